/* Tokenizers from files: tokenizer.json, or GPT-2's pair of vocabulary and merges. */
#include <stdio.h>
#include <sys/stat.h>

#include "text/parts.h"
#include "text/utf8.h"

#define FILE_LIMIT ((size_t)1 << 29)

static enum cb_status file_read(struct buffer *out, const char *path, struct cb_err *err) {
    FILE *file = fopen(path, "rb");
    if (!file) FAIL(err, CB_E_IO, "%s: cannot be opened", path);
    enum cb_status status = CB_OK;
    for (size_t got = 1; got && !status;) {
        status = buffer_reserve(out, 1 << 16, err);
        got = status ? 0 : fread(out->data + out->n, 1, out->capacity - out->n - 1, file);
        out->n += got;
        if (out->n > FILE_LIMIT) status = err_set(err, CB_E_LIMIT, __FILE__, __LINE__, "%s: over %zu bytes", path, FILE_LIMIT);
    }
    if (!status && ferror(file)) status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: cannot be read", path);
    fclose(file);
    return status;
}

/* ---- GPT-2's two files */

/* One merge a line, "a b"; the first line may be a #version. */
static enum cb_status merges_parse(const struct tokenizer *t, const char *text, size_t n, int32_t (**pair)[2], int32_t *n_pairs,
                                   const char *name, struct cb_err *err) {
    size_t capacity = 0, line = 0;
    for (size_t at = 0, end; at < n; at = end + 1) {
        const char *stop = memchr(text + at, '\n', n - at);
        end = stop ? (size_t)(stop - text) : n;
        size_t length = end - at;
        line++;
        if (length && text[at + length - 1] == '\r') length--;
        if (!length || (line == 1 && length >= 8 && !memcmp(text + at, "#version", 8))) continue;
        const char *gap = memchr(text + at, ' ', length);
        size_t left = gap ? (size_t)(gap - text) - at : 0;
        if (!gap || memchr(gap + 1, ' ', length - left - 1))
            FAIL(err, CB_E_FORMAT, "%s: merges line %zu: two tokens with one space are wanted", name, line);
        if (*n_pairs == INT32_MAX / 4) FAIL(err, CB_E_LIMIT, "%s: more merges than fit", name);
        TRY(buffer_grow((void **)pair, &capacity, (size_t)*n_pairs + 1, sizeof **pair, err));
        int32_t *new = (*pair)[(*n_pairs)++];
        new[0] = vocab_find(&t->vocab, text + at, left), new[1] = vocab_find(&t->vocab, gap + 1, length - left - 1);
        if (new[0] < 0 || new[1] < 0)
            FAIL(err, CB_E_FORMAT, "%s: merges line %zu: \"%.*s\"; two tokens of the vocabulary are wanted", name, line,
                 (int)(length < 80 ? length : 80), text + at);
    }
    return CB_OK;
}

static enum cb_status gpt2_build(struct tokenizer *t, const json_t *vocab, const char *merges, size_t n_merges, const char *name,
                                 struct cb_err *err) {
    TRY(vocab_read(t, vocab, err));
    int32_t(*pair)[2] = NULL, n_pairs = 0;
    enum cb_status status = merges_parse(t, merges, n_merges, &pair, &n_pairs, name, err);
    if (!status) status = bpe_set(t, (const int32_t(*)[2])pair, n_pairs, err);
    free(pair);
    if (status) return err_prefix(err, "%s", name);
    TRY(bytelevel_parts(t, true, err));
    int32_t end = vocab_find(&t->vocab, "<|endoftext|>", 13);
    struct added_token token = {"<|endoftext|>", 13, end, .special = true};
    if (end >= 0) TRY(tokenizer_add(t, &token, name, err));
    return tokenizer_finish(t, name, err);
}

enum cb_status tokenizer_load_gpt2(struct tokenizer **tokenizer, const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                   const char *name, struct cb_err *err) {
    *tokenizer = NULL;
    if (utf8_check(merges, n_merges) < n_merges) FAIL(err, CB_E_FORMAT, "%s: merges are not UTF-8", name);
    json_t *json = NULL;
    TRY(json_parse_object(&json, vocab, n_vocab, name, err));
    enum cb_status status = tokenizer_create(tokenizer, err);
    if (!status) status = gpt2_build(*tokenizer, json, merges, n_merges, name, err);
    json_decref(json);
    if (status) tokenizer_destroy(tokenizer);
    return status;
}

/* ---- folders */

static bool is_file(const char *folder, const char *file, char *path, size_t n) {
    struct stat s;
    return snprintf(path, n, "%s/%s", folder, file) < (int)n && !stat(path, &s) && S_ISREG(s.st_mode);
}

static enum cb_status load_pair(struct tokenizer **tokenizer, const char *vocab_path, const char *merges_path, struct cb_err *err) {
    struct buffer vocab = {0}, merges = {0};
    enum cb_status status = file_read(&vocab, vocab_path, err);
    if (!status) status = file_read(&merges, merges_path, err);
    if (!status) status = tokenizer_load_gpt2(tokenizer, vocab.data, vocab.n, merges.data, merges.n, vocab_path, err);
    free(vocab.data);
    free(merges.data);
    return status;
}

enum cb_status tokenizer_load(struct tokenizer **tokenizer, const char *path, struct cb_err *err) {
    *tokenizer = NULL;
    char one[4096], two[4096];
    struct stat s;
    if (stat(path, &s)) FAIL(err, CB_E_IO, "%s: no such file or folder", path);
    if (S_ISDIR(s.st_mode)) {
        if (is_file(path, "tokenizer.json", one, sizeof one)) return tokenizer_load(tokenizer, one, err);
        if (is_file(path, "vocab.json", one, sizeof one) && is_file(path, "merges.txt", two, sizeof two))
            return load_pair(tokenizer, one, two, err);
        if (is_file(path, "encoder.json", one, sizeof one) && is_file(path, "vocab.bpe", two, sizeof two))
            return load_pair(tokenizer, one, two, err);
        FAIL(err, CB_E_IO, "%s: holds no tokenizer; tokenizer.json, vocab.json + merges.txt or encoder.json + vocab.bpe are wanted", path);
    }
    struct buffer bytes = {0};
    enum cb_status status = file_read(&bytes, path, err);
    if (!status) status = tokenizer_load_bytes(tokenizer, bytes.data, bytes.n, path, err);
    free(bytes.data);
    return status;
}
