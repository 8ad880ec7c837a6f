/* The public calls about tokenizers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "text/tokenizer.h"

struct cb_tokenizer {
    struct tokenizer *tokenizer;
};

enum cb_status cb_tokenizer_load(struct cb_tokenizer **tokenizer, const char *path, struct cb_err *err) {
    struct cb_tokenizer *t = calloc(1, sizeof *t);
    *tokenizer = NULL;
    if (!t) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    enum cb_status status = files_load_tokenizer(&t->tokenizer, path, err);
    if (status != CB_OK) {
        free(t);
        return status;
    }
    *tokenizer = t;
    return CB_OK;
}

void cb_tokenizer_destroy(struct cb_tokenizer **tokenizer) {
    if (!tokenizer || !*tokenizer) return;
    tokenizer_destroy(&(*tokenizer)->tokenizer);
    free(*tokenizer);
    *tokenizer = NULL;
}

int64_t cb_tokenizer_vocab(const struct cb_tokenizer *tokenizer) { return tokenizer_size(tokenizer->tokenizer); }

static enum cb_status copy_tokens(const struct tokenizer *t, const struct token_list *list, bool offsets, struct cb_encoding *e,
                                  struct cb_err *err) {
    size_t n = list->n + 1;
    e->ids = calloc(n, sizeof *e->ids);
    e->tokens = calloc(n, sizeof *e->tokens);
    e->offsets = offsets ? calloc(2 * n, sizeof *e->offsets) : NULL;
    if (!e->ids || !e->tokens || (offsets && !e->offsets)) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    for (e->n = 0; e->n < (int64_t)list->n; e->n++) {
        const struct token *token = &list->token[e->n];
        size_t bytes = 0;
        const char *text = tokenizer_token(t, token->id, &bytes);
        e->ids[e->n] = token->id;
        if (!(e->tokens[e->n] = strndup(text ? text : "", bytes))) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
        if (offsets) e->offsets[2 * e->n] = token->begin, e->offsets[2 * e->n + 1] = token->end;
    }
    return CB_OK;
}

enum cb_status cb_tokenizer_encode(const struct cb_tokenizer *tokenizer, const char *text, size_t bytes, bool no_special, bool offsets,
                                   struct cb_encoding *encoding, struct cb_err *err) {
    struct token_list list = {0};
    unsigned flags = ENCODE_LIMITS | (no_special ? 0u : ENCODE_SPECIALS) | (offsets ? ENCODE_CODE_POINTS : 0u);
    *encoding = (struct cb_encoding){0};
    enum cb_status status = tokenizer_encode(tokenizer->tokenizer, &list, text, bytes, flags, err);
    if (status == CB_OK) status = copy_tokens(tokenizer->tokenizer, &list, offsets, encoding, err);
    token_list_deinit(&list);
    if (status != CB_OK) cb_encoding_free(encoding);
    return status;
}

void cb_encoding_free(struct cb_encoding *encoding) {
    for (int64_t i = 0; encoding->tokens && i < encoding->n; i++) free(encoding->tokens[i]);
    free(encoding->tokens);
    free(encoding->ids);
    free(encoding->offsets);
    *encoding = (struct cb_encoding){0};
}

enum cb_status cb_tokenizer_decode(const struct cb_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip_special, char **text,
                                   size_t *bytes, struct cb_err *err) {
    return tokenizer_decode(tokenizer->tokenizer, text, bytes, ids, (size_t)n, skip_special, err);
}
