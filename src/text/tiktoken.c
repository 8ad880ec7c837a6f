/* tiktoken's vocabularies: tokens are bytes, and two that follow each other merge where their bytes are a token, the lowest rank first. */
#include <stdio.h>

#include "text/base64.h"
#include "text/bpe.h"
#include "text/config.h"
#include "text/formats.h"
#include "text/patterns.h"
#include "text/utf8.h"

/* Bytes of a token. */
#define BYTES_LIMIT 2048

bool line_next(const char *bytes, size_t n, size_t *at, const char **line, size_t *n_line) {
    if (*at >= n) return false;
    const char *stop = memchr(bytes + *at, '\n', n - *at);
    size_t end = stop ? (size_t)(stop - bytes) : n;
    *line = bytes + *at, *n_line = end - *at;
    if (*n_line && (*line)[*n_line - 1] == '\r') --*n_line;
    *at = end + 1;
    return true;
}

/* A line's token as byte-level characters, and its rank. */
static enum cb_status entry_parse(const char *line, size_t n, size_t number, struct buffer *text, int32_t *rank, const char *name,
                                  struct cb_err *err) {
    unsigned char bytes[BYTES_LIMIT];
    const char *gap = memchr(line, ' ', n);
    size_t length = gap ? (size_t)(gap - line) : n;
    if (length > BYTES_LIMIT / 3 * 4) FAIL(err, CB_E_LIMIT, "%s: line %zu: a token of over %d bytes", name, number, BYTES_LIMIT);
    int64_t n_bytes = gap ? base64_decode(bytes, line, length) : -1, value = 0;
    for (size_t i = length + 1; i < n && value >= 0; i++)
        value = line[i] >= '0' && line[i] <= '9' && value < INT32_MAX / 16 ? value * 10 + (line[i] - '0') : -1;
    if (n_bytes < 1 || value < 0 || length + 1 >= n)
        FAIL(err, CB_E_FORMAT, "%s: line %zu: found \"%.*s\"; a token in base64, a space and its rank are wanted", name, number,
             (int)(n < 60 ? n : 60), line);
    text->n = 0;
    TRY(buffer_reserve(text, (size_t)n_bytes * 2, err));
    for (int64_t i = 0; i < n_bytes; i++) text->n += (size_t)utf8_encode(text->data + text->n, byte_to_char(bytes[i]));
    *rank = (int32_t)value;
    return CB_OK;
}

/* Two walks: the number of tokens and greatest rank, then the tokens. */
static enum cb_status entries_read(struct tokenizer *t, const char *bytes, size_t n, struct buffer *text, const char *name,
                                   struct cb_err *err) {
    int32_t rank, greatest = -1, n_tokens = 0;
    for (int pass = 0; pass < 2; pass++) {
        const char *line;
        size_t n_line, number = 0;
        if (pass && (greatest < 0 || greatest > n_tokens + (1 << 20)))
            FAIL(err, CB_E_FORMAT, "%s: %d tokens with ranks up to %d; ranks without great holes are wanted", name, (int)n_tokens,
                 (int)greatest);
        if (pass) TRY(vocab_init(&t->vocab, t->arena, n_tokens, greatest + 1, err));
        for (size_t at = 0; line_next(bytes, n, &at, &line, &n_line);) {
            number++;
            if (!n_line) continue;
            TRY(entry_parse(line, n_line, number, text, &rank, name, err));
            if (pass) TRY(vocab_add(&t->vocab, t->arena, rank, text->data, text->n, name, err));
            if (rank > greatest) greatest = rank;
            if (!pass && ++n_tokens > 1 << 24) FAIL(err, CB_E_LIMIT, "%s: over 2^24 tokens", name);
        }
    }
    return CB_OK;
}

static enum cb_status model_set(struct tokenizer *t, const char *name, struct cb_err *err) {
    int32_t *rank = malloc(((size_t)t->vocab.size + 1) * sizeof *rank);
    struct bpe *bpe = NULL;
    if (!rank) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    for (int32_t i = 0; i < t->vocab.size; i++) rank[i] = i;
    enum cb_status status = bpe_set_results(t, rank, false, &bpe, err);
    free(rank);
    if (status) return err_prefix(err, "%s", name);
    for (int b = 0; b < 256; b++)
        if (bpe->byte_id[b] < 0) FAIL(err, CB_E_FORMAT, "%s: byte 0x%02x is no token; all 256 are wanted", name, (unsigned)b);
    bpe->ignore_merges = true;
    return CB_OK;
}

enum cb_status tiktoken_read(struct tokenizer *t, const char *bytes, size_t n, const char *pattern, const json_t *config, const char *name,
                             struct cb_err *err) {
    struct buffer text = {0};
    enum cb_status status = entries_read(t, bytes, n, &text, name, err);
    free(text.data);
    if (!status) status = model_set(t, name, err);
    if (status) return status;
    if (!pattern) pattern = config_text(config, "pattern").text;
    if (!pattern) pattern = config_text(config, "pat_str").text;
    if (!pattern) pattern = "cl100k";
    const struct text_pattern *known = text_pattern_find(pattern);
    const char *const own[] = {pattern, NULL};
    TRY(text_pattern_parts(t, known ? known->regex : own, name, err));
    t->broken = BROKEN_JOINED;
    TRY(config_added(t, config, name, err));
    struct text_view bos = config_text(config, "bos_token");
    bool add_bos = config_flag(config, "add_bos_token", false) && bos.text && tokenizer_id(t, bos.text) >= 0;
    return template_set(t, add_bos ? bos.text : NULL, NULL, false, name, err);
}
