/* Tokenizers from files and folders: the format is told by the names in a folder and by what a file begins with. */
#include <stdio.h>
#include <sys/stat.h>

#include "base/name.h"
#include "text/bpe.h"
#include "text/config.h"
#include "text/formats.h"
#include "text/layouts.h"
#include "text/spm.h"
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
        if (*n_pairs == INT32_MAX / 4) FAIL(err, CB_E_LIMIT, "%s: more merges than fit", name);
        TRY(buffer_grow((void **)pair, &capacity, (size_t)*n_pairs + 1, sizeof **pair, err));
        if (merge_parse(t, (*pair)[(*n_pairs)++], text + at, length, line, err)) return err_prefix(err, "%s", name);
    }
    return CB_OK;
}

static enum cb_status gpt2_build(struct tokenizer *t, const json_t *vocab, const char *merges, size_t n_merges, const json_t *config,
                                 const struct layout *layout, const char *name, struct cb_err *err) {
    TRY(vocab_read(t, vocab, err));
    int32_t(*pair)[2] = NULL, n_pairs = 0;
    enum cb_status status = merges_parse(t, merges, n_merges, &pair, &n_pairs, name, err);
    if (!status) status = bpe_set(t, (const int32_t(*)[2])pair, n_pairs, err);
    free(pair);
    if (status) return err_prefix(err, "%s", name);
    TRY(bytelevel_parts(t, true, err));
    t->part[ROLE_PRE_TOKENIZER]->flag[0] = config_flag(config, "add_prefix_space", false);
    if (layout) {
        TRY(layout_finish(t, layout, config, name, err));
        return tokenizer_finish(t, name, err);
    }
    TRY(config_added(t, config, name, err));
    int32_t end = vocab_find(&t->vocab, "<|endoftext|>", 13);
    struct added_token token = {"<|endoftext|>", 13, end, .special = true};
    bool has = end < 0;
    for (int i = 0; i < t->n_added; i++) has = has || t->added[i].id == end;
    if (!has) TRY(tokenizer_add(t, &token, name, err));
    return tokenizer_finish(t, name, err);
}

/* The vocabulary by the scanner, or by the general parser, which also says what is wrong with it. */
static enum cb_status gpt2_parse(struct tokenizer *t, const struct text_view *vocab, const struct text_view *merges, const json_t *config,
                                 const struct layout *layout, const char *name, struct cb_err *err) {
    struct json_scan scan;
    json_t *json = NULL;
    bool found;
    enum cb_status status = json_scan_vocab(&scan, &found, t->arena, vocab->text, vocab->n, err);
    if (!status && !found) status = json_parse_object(&json, vocab->text, vocab->n, name, err);
    if (found) t->scan = &scan;
    if (!status) status = gpt2_build(t, json, merges->text, merges->n, config, layout, name, err);
    t->scan = NULL;
    json_scan_deinit(&scan);
    json_decref(json);
    return status;
}

static enum cb_status gpt2_read(struct tokenizer **tokenizer, const struct text_view *vocab, const struct text_view *merges,
                                const json_t *config, const struct layout *layout, const char *name, struct cb_err *err) {
    *tokenizer = NULL;
    size_t good = utf8_check(vocab->text, vocab->n);
    if (good < vocab->n) FAIL(err, CB_E_FORMAT, "%s: byte 0x%02x at %zu is not UTF-8", name, (unsigned char)vocab->text[good], good);
    if (utf8_check(merges->text, merges->n) < merges->n) FAIL(err, CB_E_FORMAT, "%s: merges are not UTF-8", name);
    TRY(tokenizer_create(tokenizer, err));
    enum cb_status status = gpt2_parse(*tokenizer, vocab, merges, config, layout, name, err);
    if (status) tokenizer_destroy(tokenizer), message_clean(err);
    return status;
}

enum cb_status tokenizer_load_gpt2(struct tokenizer **tokenizer, const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                   const char *name, struct cb_err *err) {
    const struct text_view files[2] = {{vocab, n_vocab}, {merges, n_merges}};
    return gpt2_read(tokenizer, &files[0], &files[1], NULL, NULL, name, err);
}

/* ---- one file */

/* Llama's classes put the beginning of text before all unless told otherwise. */
static enum cb_status spm_load(struct tokenizer *t, const char *bytes, size_t n, const json_t *config, const char *name,
                               struct cb_err *err) {
    TRY(spm_read(t, bytes, n, config, NULL, name, err));
    if (!config) return CB_OK;
    TRY(config_added(t, config, name, err));
    const char *kind = config_text(config, "tokenizer_class").text;
    bool llama = kind && (!strncmp(kind, "Llama", 5) || !strncmp(kind, "Gemma", 5) || !strncmp(kind, "CodeLlama", 9)),
         t5 = kind && (!strncmp(kind, "T5", 2) || !strncmp(kind, "MT5", 3));
    struct text_view bos = config_text(config, "bos_token"), eos = config_text(config, "eos_token");
    bool first = bos.text && config_flag(config, "add_bos_token", llama) && tokenizer_id(t, bos.text) >= 0,
         last = eos.text && config_flag(config, "add_eos_token", t5) && tokenizer_id(t, eos.text) >= 0;
    return template_set(t, first ? bos.text : NULL, last ? eos.text : NULL, false, name, err);
}

/* Whether the first line is base64, a space and a number. */
static bool is_tiktoken(const char *bytes, size_t n) {
    size_t at = 0, n_line, i = 0;
    const char *line;
    if (!line_next(bytes, n, &at, &line, &n_line)) return false;
    while (i < n_line && line[i] != ' ') i++;
    if (i % 4 || !i || i + 1 >= n_line) return false;
    for (size_t k = i + 1; k < n_line; k++)
        if (line[k] < '0' || line[k] > '9') return false;
    return true;
}

/* A SentencePiece model begins with a piece: field 1, bytes, whose first field is a text. */
static bool is_spm(const char *bytes, size_t n) {
    for (size_t at = 1; n > 3 && bytes[0] == 0x0a && at < 6 && at + 1 < n; at++)
        if (!(bytes[at] & 0x80)) return bytes[at + 1] == 0x0a;
    return false;
}

static enum cb_status file_build(struct tokenizer *t, const struct text_file *file, struct cb_err *err) {
    const char *bytes = file->bytes, *name = file->name;
    if (file->n >= 4 && !memcmp(bytes, "GGUF", 4)) FAIL(err, CB_E_UNSUPPORTED, "%s: a GGUF file; a tokenizer's own file is wanted", name);
    if (is_spm(bytes, file->n))
        TRY(spm_load(t, bytes, file->n, file->config, name, err));
    else if (is_tiktoken(bytes, file->n))
        TRY(tiktoken_read(t, bytes, file->n, file->pattern, file->config, name, err));
    else
        TRY(vocab_txt_read(t, bytes, file->n, file->config, name, err));
    return tokenizer_finish(t, name, err);
}

enum cb_status tokenizer_load_file(struct tokenizer **tokenizer, const struct text_file *file, struct cb_err *err) {
    size_t at = 0;
    *tokenizer = NULL;
    while (at < file->n && strchr(" \t\r\n", file->bytes[at])) at++;
    // a file of that name is JSON, whatever it holds
    if (name_ends(file->name, "tokenizer.json") || (!is_spm(file->bytes, file->n) && at < file->n && file->bytes[at] == '{')) {
        TRY(tokenizer_load_bytes(tokenizer, file->bytes, file->n, file->name, err));
        config_ends(*tokenizer, file->config);
        return CB_OK;
    }
    enum cb_status status = tokenizer_create(tokenizer, err);
    if (!status) status = file_build(*tokenizer, file, err);
    if (status) tokenizer_destroy(tokenizer), message_clean(err);
    return status;
}

/* ---- folders */

static bool is_file(const char *folder, const char *file, char *path, size_t n) {
    struct stat s;
    return snprintf(path, n, "%s/%s", folder, file) < (int)n && !stat(path, &s) && S_ISREG(s.st_mode);
}

static enum cb_status load_pair(struct tokenizer **tokenizer, const char *vocab_path, const char *merges_path, const json_t *config,
                                const struct layout *layout, struct cb_err *err) {
    struct buffer vocab = {0}, merges = {0};
    enum cb_status status = file_read(&vocab, vocab_path, err);
    if (!status) status = file_read(&merges, merges_path, err);
    const struct text_view files[2] = {{vocab.data, vocab.n}, {merges.data, merges.n}};
    if (!status) status = gpt2_read(tokenizer, &files[0], &files[1], config, layout, vocab_path, err);
    free(vocab.data);
    free(merges.data);
    return status;
}

static enum cb_status load_one(struct tokenizer **tokenizer, const char *path, const char *pattern, const json_t *config,
                               struct cb_err *err) {
    struct buffer bytes = {0};
    enum cb_status status = file_read(&bytes, path, err);
    struct text_file file = {bytes.data, bytes.n, path, pattern, config};
    if (!status) status = tokenizer_load_file(tokenizer, &file, err);
    free(bytes.data);
    return status;
}

/* A JSON file of a folder; NULL where it is not there. */
static enum cb_status read_json(json_t **out, const char *folder, const char *file, struct cb_err *err) {
    char path[4096];
    struct buffer bytes = {0};
    *out = NULL;
    if (!is_file(folder, file, path, sizeof path)) return CB_OK;
    enum cb_status status = file_read(&bytes, path, err);
    if (!status) status = json_parse_config(out, bytes.data, bytes.n, path, err);
    free(bytes.data);
    return status;
}

static bool folder_has(const char *folder, const char *file) {
    char path[4096];
    return is_file(folder, file, path, sizeof path);
}

static enum cb_status layout_build(struct tokenizer *t, const struct layout *layout, const char *folder, const struct buffer *model,
                                   const json_t *config, const char *name, struct cb_err *err) {
    const struct text_view file = {model->data, model->n};
    json_t *vocab = NULL;
    if (layout->has_vocab) TRY(read_json(&vocab, folder, "vocab.json", err));
    enum cb_status status = CB_OK;
    if (layout->has_vocab && !vocab)
        status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: vocab.json is wanted beside %s", folder, layout->file);
    if (!status && !is_spm(model->data, model->n))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: a SentencePiece model is wanted", name);
    if (!status) status = layout_spm_read(t, layout, &file, vocab, config, name, err);
    json_decref(vocab);
    return status ? status : tokenizer_finish(t, name, err);
}

/* The SentencePiece model of a row; config with the row's presets. */
static enum cb_status load_layout(struct tokenizer **tokenizer, const struct layout *layout, const char *folder, const json_t *config,
                                  struct cb_err *err) {
    char path[4096];
    struct buffer model = {0};
    if (!is_file(folder, layout->file, path, sizeof path))
        FAIL(err, CB_E_IO, "%s: holds no %s; wanted it, as the tokenizer's class is %s", folder, layout->file, layout->classes);
    enum cb_status status = file_read(&model, path, err);
    if (!status) status = tokenizer_create(tokenizer, err);
    if (!status) status = layout_build(*tokenizer, layout, folder, &model, config, path, err);
    if (status) tokenizer_destroy(tokenizer), message_clean(err);
    free(model.data);
    return status;
}

/* The first are read beside others, or as a row of layouts.c says; each of the rest is a tokenizer by itself. */
enum { N_OF_SEVERAL = 5 };
const char *const tokenizer_file_names[] = {"tokenizer.json",      "vocab.json",
                                            "encoder.json",        "source.spm",
                                            "spm.model",           "tokenizer.model",
                                            "spiece.model",        "sentencepiece.bpe.model",
                                            "sentencepiece.model", "vocab.txt",
                                            "tokenizer.tiktoken",  "tiktoken.model",
                                            "qwen.tiktoken",       NULL};

/* By the names of a folder's files. */
static enum cb_status load_files(struct tokenizer **tokenizer, const char *path, const char *pattern, const json_t *config,
                                 const struct layout *layout, struct cb_err *err) {
    static const char *const pairs[][2] = {{"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    char one[4096], two[4096];
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (is_file(path, pairs[i][0], one, sizeof one) && is_file(path, pairs[i][1], two, sizeof two))
            return load_pair(tokenizer, one, two, config, layout, err);
    for (const char *const *name = tokenizer_file_names + N_OF_SEVERAL; *name; name++)
        if (is_file(path, *name, one, sizeof one)) return load_one(tokenizer, one, pattern, config, err);
    FAIL(err, CB_E_IO,
         "%s: holds no tokenizer; tokenizer.json, vocab.json + merges.txt, tokenizer.model, spiece.model, vocab.txt or tiktoken.model is "
         "wanted",
         path);
}

/* A folder without a tokenizer.json: its class says what the files mean. */
static enum cb_status load_slow(struct tokenizer **tokenizer, const char *path, const char *pattern, const json_t *config,
                                struct cb_err *err) {
    json_t *model = NULL, *full = NULL;
    bool is_named = false;
    struct cb_err quiet = {0};
    read_json(&model, path, "config.json", &quiet);  // the model's own reader says what is wrong with it
    const struct layout *layout = layout_find(config, model, folder_has, path, &is_named);
    // a model may have been trained with another class's files
    if (layout && layout->file && !is_named && !folder_has(path, layout->file)) layout = NULL;
    enum cb_status status;
    if (layout && !(full = layout_config(layout, config)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", path);
    else if (layout && layout->file)
        status = load_layout(tokenizer, layout, path, full, err);
    else
        status = load_files(tokenizer, path, pattern, full ? full : config, layout, err);
    json_decref(model), json_decref(full);
    return status;
}

/* *config with what older files beside it say. */
static enum cb_status old_join(json_t **config, const char *path, struct cb_err *err) {
    json_t *map = NULL, *added = NULL, *both = NULL;
    enum cb_status status = read_json(&map, path, "special_tokens_map.json", err);
    if (!status) status = read_json(&added, path, "added_tokens.json", err);
    if (!status && (map || added)) status = config_with_old(&both, *config, map, added, path, err);
    if (both) json_decref(*config), *config = both;
    json_decref(map), json_decref(added);
    return status;
}

enum cb_status tokenizer_load_pattern(struct tokenizer **tokenizer, const char *path, const char *pattern, struct cb_err *err) {
    *tokenizer = NULL;
    char whole[4096];
    struct stat s;
    if (stat(path, &s)) FAIL(err, CB_E_IO, "%s: no such file or folder", path);
    if (!S_ISDIR(s.st_mode)) return load_one(tokenizer, path, pattern, NULL, err);
    json_t *config = NULL;
    TRY(read_json(&config, path, "tokenizer_config.json", err));
    const bool is_whole = is_file(path, "tokenizer.json", whole, sizeof whole);
    enum cb_status status = is_whole ? load_one(tokenizer, whole, pattern, config, err) : old_join(&config, path, err);
    if (!is_whole && !status) status = load_slow(tokenizer, path, pattern, config, err);
    json_decref(config);
    return status;
}

enum cb_status tokenizer_load(struct tokenizer **tokenizer, const char *path, struct cb_err *err) {
    return tokenizer_load_pattern(tokenizer, path, NULL, err);
}
