/* Reads tokenizer.ggml.* into arrays (ggml's docs/gguf.md), every length and id checked. */
#include "api/gguf_arrays.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gguf_arrays_free(struct gguf_arrays *a) {
    for (int i = 0; i < 4; i++) free(a->owned[i]);
    *a = (struct gguf_arrays){0};
}

static enum cb_status room(struct gguf_arrays *a, int i, int64_t n, size_t bytes, const struct gguf *g, struct cb_err *err) {
    a->owned[i] = calloc((size_t)n + 1, bytes);
    if (!a->owned[i]) FAIL(err, CB_E_MEMORY, "%s: out of memory for %lld tokens", gguf_name(g), (long long)n);
    return CB_OK;
}

static enum cb_status read_texts(struct gguf_arrays *a, int i, const struct gguf_key *key, const struct text_view **out,
                                 const struct gguf *g, struct cb_err *err) {
    TRY(room(a, i, key->n, sizeof(struct text_view), g, err));
    struct text_view *view = a->owned[i];
    size_t at = 0;
    for (int64_t k = 0; k < key->n; k++) view[k].text = gguf_next_string(key, &at, &view[k].n);
    *out = view;
    return CB_OK;
}

/* A number for each token: f32 or i32; they lie unaligned in the file. */
static enum cb_status read_numbers(struct gguf_arrays *a, int i, const char *name, enum gguf_type type, int64_t n, const struct gguf *g,
                                   const void **out, struct cb_err *err) {
    const struct gguf_key *key;
    TRY(gguf_get_array(&key, g, name, type, false, err));
    if (!key) return CB_OK;
    if (key->n != n)
        FAIL(err, CB_E_FORMAT, "%s: %s: %lld values; tokenizer.ggml.tokens has %lld", gguf_name(g), name, (long long)key->n, (long long)n);
    TRY(room(a, i, n, 4, g, err));
    memcpy(a->owned[i], key->data, key->bytes);
    *out = a->owned[i];
    return CB_OK;
}

static enum cb_status read_ids(struct gguf_arrays *a, const struct gguf *g, struct cb_err *err) {
    struct tokenizer_arrays *t = &a->arrays;
    // the separator's key is misspelt in the format
    const struct {
        const char *key;
        const int32_t **to;
    } rows[] = {{"bos", &t->bos},       {"eos", &t->eos}, {"unknown", &t->unk}, {"padding", &t->pad},
                {"seperator", &t->sep}, {"cls", &t->cls}, {"mask", &t->mask}};
    char name[80];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t id = -1;
        snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", rows[i].key);
        TRY(gguf_get_int(&id, g, name, 0, t->n_tokens - 1, false, err));
        a->ids[i] = (int32_t)id;
        if (id >= 0) *rows[i].to = &a->ids[i];
    }
    return CB_OK;
}

static enum cb_status read_flag(enum array_flag *out, const struct gguf *g, const char *name, struct cb_err *err) {
    bool value = false;
    if (!gguf_find(g, name)) return CB_OK;
    TRY(gguf_get_bool(&value, g, name, true, err));
    *out = value ? ARRAY_TRUE : ARRAY_FALSE;
    return CB_OK;
}

static enum cb_status read_charsmap(struct tokenizer_arrays *t, const struct gguf *g, struct cb_err *err) {
    static const char name[] = "tokenizer.ggml.precompiled_charsmap";
    const struct gguf_key *key = gguf_find(g, name);
    if (!key) return CB_OK;
    if (!key->is_array || (key->type != GGUF_U8 && key->type != GGUF_I8))
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted an array of u8", gguf_name(g), name, gguf_type_name(key->type));
    t->charsmap = key->data;
    t->n_charsmap = key->bytes;
    return CB_OK;
}

enum cb_status gguf_arrays_read(struct gguf_arrays *a, bool *there, struct gguf *g, struct cb_err *err) {
    struct tokenizer_arrays *t = &a->arrays;
    const struct gguf_key *tokens, *merges;
    *a = (struct gguf_arrays){0};
    *there = false;
    TRY(gguf_get_array(&tokens, g, "tokenizer.ggml.tokens", GGUF_STR, false, err));
    if (!tokens) return CB_OK;
    if (tokens->n > INT32_MAX) FAIL(err, CB_E_LIMIT, "%s: tokenizer.ggml.tokens: %lld tokens", gguf_name(g), (long long)tokens->n);
    t->n_tokens = (int32_t)tokens->n;
    TRY(gguf_get_str(&t->model, g, "tokenizer.ggml.model", true, err));
    TRY(gguf_get_str(&t->pre, g, "tokenizer.ggml.pre", false, err));
    TRY(read_texts(a, 0, tokens, &t->token, g, err));
    TRY(read_numbers(a, 1, "tokenizer.ggml.scores", GGUF_F32, tokens->n, g, (const void **)&t->score, err));
    TRY(read_numbers(a, 2, "tokenizer.ggml.token_type", GGUF_I32, tokens->n, g, (const void **)&t->type, err));
    TRY(gguf_get_array(&merges, g, "tokenizer.ggml.merges", GGUF_STR, false, err));
    if (merges && merges->n > INT32_MAX) FAIL(err, CB_E_LIMIT, "%s: tokenizer.ggml.merges: %lld", gguf_name(g), (long long)merges->n);
    if (merges) {
        TRY(read_texts(a, 3, merges, &t->merge, g, err));
        t->n_merges = (int32_t)merges->n;
    }
    TRY(read_charsmap(t, g, err));
    TRY(read_ids(a, g, err));
    TRY(read_flag(&t->add_bos, g, "tokenizer.ggml.add_bos_token", err));
    TRY(read_flag(&t->add_eos, g, "tokenizer.ggml.add_eos_token", err));
    TRY(read_flag(&t->add_sep, g, "tokenizer.ggml.add_sep_token", err));
    TRY(read_flag(&t->add_space_prefix, g, "tokenizer.ggml.add_space_prefix", err));
    TRY(read_flag(&t->remove_extra_whitespaces, g, "tokenizer.ggml.remove_extra_whitespaces", err));
    *there = true;
    return CB_OK;
}
