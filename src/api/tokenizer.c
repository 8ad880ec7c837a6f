/* The public calls about tokenizers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "io/file.h"
#include "text/tokenizer.h"

struct cb_tokenizer {
    struct tokenizer *tokenizer;
};

enum cb_status cb_tokenizer_load_pattern(struct cb_tokenizer **tokenizer, const char *path, const char *pattern, struct cb_err *err) {
    struct cb_tokenizer *t = calloc(1, sizeof *t);
    *tokenizer = NULL;
    if (!t) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    enum cb_status status =
        pattern ? tokenizer_load_pattern(&t->tokenizer, path, pattern, err) : files_load_tokenizer(&t->tokenizer, path, err);
    if (status != CB_OK) {
        free(t);
        return status;
    }
    *tokenizer = t;
    return CB_OK;
}

enum cb_status cb_tokenizer_load(struct cb_tokenizer **tokenizer, const char *path, struct cb_err *err) {
    return cb_tokenizer_load_pattern(tokenizer, path, NULL, err);
}

enum cb_status files_save_tokenizer(const struct tokenizer *tokenizer, const char *folder, const char *run_json, struct cb_err *err) {
    char *json = NULL, *path = io_path_join(folder, "tokenizer.json");
    size_t n;
    enum cb_status status =
        path ? tokenizer_to_json(tokenizer, &json, &n, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: out of memory");
    if (status == CB_OK) status = io_mkdirs(folder, err);
    if (status == CB_OK) status = io_write_file(path, json, n, err);
    if (status == CB_OK) status = files_write_text(folder, "run.json", run_json, err);
    free(json);
    free(path);
    return status;
}

enum cb_status cb_tokenizer_save(const struct cb_tokenizer *tokenizer, const char *folder, const char *run_json, struct cb_err *err) {
    return files_save_tokenizer(tokenizer->tokenizer, folder, run_json, err);
}

void cb_tokenizer_destroy(struct cb_tokenizer **tokenizer) {
    if (!tokenizer || !*tokenizer) return;
    tokenizer_destroy(&(*tokenizer)->tokenizer);
    free(*tokenizer);
    *tokenizer = NULL;
}

int64_t cb_tokenizer_vocab(const struct cb_tokenizer *tokenizer) { return tokenizer_size(tokenizer->tokenizer); }

static enum cb_status copy_tokens(const struct encoder *encoder, const struct token_list *list, bool offsets, struct cb_encoding *e,
                                  struct cb_err *err) {
    size_t n = list->n + 1;
    e->ids = calloc(n, sizeof *e->ids);
    e->tokens = calloc(n, sizeof *e->tokens);
    e->offsets = offsets ? calloc(2 * n, sizeof *e->offsets) : NULL;
    e->types = calloc(n, sizeof *e->types);
    e->attention = calloc(n, sizeof *e->attention);
    if (!e->ids || !e->tokens || !e->types || !e->attention || (offsets && !e->offsets)) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    for (e->n = 0; e->n < (int64_t)list->n; e->n++) {
        const struct token *token = &list->token[e->n];
        size_t bytes = 0;
        const char *text = encoder_text(encoder, token, &bytes);
        e->ids[e->n] = token->id, e->types[e->n] = token->type, e->attention[e->n] = token->attention;
        if (!(e->tokens[e->n] = strndup(text ? text : "", bytes))) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
        if (offsets) e->offsets[2 * e->n] = token->begin, e->offsets[2 * e->n + 1] = token->end;
    }
    return CB_OK;
}

static unsigned flags_of(bool no_special, bool offsets, bool overflow) {
    return ENCODE_LIMITS | ENCODE_TEXTS | (no_special ? 0u : ENCODE_SPECIALS) | (offsets ? ENCODE_CODE_POINTS : 0u) |
           (overflow ? ENCODE_WINDOWS : 0u);
}

enum cb_status cb_tokenizer_encode(const struct cb_tokenizer *tokenizer, const char *text, size_t bytes, bool no_special, bool offsets,
                                   struct cb_encoding *encoding, struct cb_err *err) {
    struct token_list list = {0};
    struct encoder *encoder = NULL;
    *encoding = (struct cb_encoding){0};
    enum cb_status status = encoder_create(&encoder, tokenizer->tokenizer, err);
    if (status == CB_OK) status = encoder_encode(encoder, &list, text, bytes, flags_of(no_special, offsets, false), err);
    if (status == CB_OK) status = copy_tokens(encoder, &list, offsets, encoding, err);
    token_list_deinit(&list);
    encoder_destroy(&encoder);
    if (status != CB_OK) cb_encoding_free(encoding);
    return status;
}

void cb_encoding_free(struct cb_encoding *encoding) {
    for (int64_t i = 0; encoding->tokens && i < encoding->n; i++) free(encoding->tokens[i]);
    free(encoding->tokens);
    free(encoding->ids);
    free(encoding->offsets);
    free(encoding->types);
    free(encoding->attention);
    *encoding = (struct cb_encoding){0};
}

/* ---- batches */

static enum cb_status encode_input(struct encoder *encoder, struct token_windows *out, const struct cb_encode_input *in, unsigned flags,
                                   struct cb_err *err) {
    const struct cb_text *text[2] = {in->text, in->pair};
    size_t n[2] = {(size_t)in->n_text, in->pair ? (size_t)in->n_pair : 0};
    if (!in->text || in->n_text < !in->is_words || (in->pair && in->n_pair < !in->is_words))
        FAIL(err, CB_E_ARGUMENT, "tokenizer: an input without a text");
    struct text_view *view = calloc(n[0] + n[1] + 1, sizeof *view);
    if (!view) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    for (size_t k = 0, at = 0; k < 2; at += n[k++])
        for (size_t i = 0; i < n[k]; i++) view[at + i] = (struct text_view){text[k][i].text, text[k][i].bytes};
    struct encode_input input = {{view, view + n[0]}, {n[0], n[1]}, in->pair ? 2 : 1, in->is_words};
    enum cb_status status = encoder_encode_input(encoder, out, &input, flags, err);
    free(view);
    return status;
}

static enum cb_status copy_windows(const struct encoder *encoder, const struct token_windows *windows, int64_t n, bool offsets,
                                   struct cb_encodings *out, struct cb_err *err) {
    size_t total = 0;
    for (int64_t i = 0; i < n; i++) total += windows[i].n;
    out->encoding = calloc(total + 1, sizeof *out->encoding);
    if (!out->encoding) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    for (int64_t i = 0; i < n; i++) {
        for (size_t k = 0; k < windows[i].n; k++) {
            struct cb_encoding *e = &out->encoding[out->n++];
            e->input = i;
            TRY(copy_tokens(encoder, &windows[i].list[k], offsets, e, err));
        }
    }
    return CB_OK;
}

enum cb_status cb_tokenizer_encode_batch(const struct cb_tokenizer *tokenizer, const struct cb_encode_input *inputs, int64_t n,
                                         const struct cb_encode_options *options, struct cb_encodings *encodings, struct cb_err *err) {
    const struct tokenizer *t = tokenizer->tokenizer;
    unsigned flags = flags_of(options->no_special, options->offsets, options->overflow);
    struct encoder *encoder = NULL;
    *encodings = (struct cb_encodings){0};
    if (n < 0 || n > INT32_MAX) FAIL(err, CB_E_ARGUMENT, "tokenizer: a batch of %lld inputs; 0 to 2^31 - 1 are wanted", (long long)n);
    struct token_windows *windows = calloc((size_t)n + 1, sizeof *windows);
    enum cb_status status =
        windows ? encoder_create(&encoder, t, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: out of memory");
    for (int64_t i = 0; i < n && status == CB_OK; i++) status = encode_input(encoder, &windows[i], &inputs[i], flags, err);
    if (status == CB_OK) status = tokenizer_pad(t, windows, (size_t)n, err);
    if (status == CB_OK) status = copy_windows(encoder, windows, n, options->offsets, encodings, err);
    for (int64_t i = 0; windows && i < n; i++) token_windows_deinit(&windows[i]);
    free(windows);
    encoder_destroy(&encoder);
    if (status != CB_OK) cb_encodings_free(encodings);
    return status;
}

void cb_encodings_free(struct cb_encodings *encodings) {
    for (int64_t i = 0; i < encodings->n; i++) cb_encoding_free(&encodings->encoding[i]);
    free(encodings->encoding);
    *encodings = (struct cb_encodings){0};
}

enum cb_status cb_tokenizer_decode(const struct cb_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip_special, char **text,
                                   size_t *bytes, struct cb_err *err) {
    return tokenizer_decode(tokenizer->tokenizer, text, bytes, ids, (size_t)n, skip_special, err);
}
