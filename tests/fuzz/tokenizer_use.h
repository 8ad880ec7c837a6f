/* What the fuzz targets of tokenizers do with one that loaded: encode, decode whole and in a stream, write it, read it again. */
#ifndef TOKENIZER_USE_H
#define TOKENIZER_USE_H
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

static inline void use_text(const struct tokenizer *t, const char *text, size_t n, unsigned flags) {
    struct cb_err err = {0};
    struct token_list list = {0};
    char *out = NULL;
    size_t n_out;
    if (!tokenizer_encode(t, &list, text, n, flags, &err)) {
        int32_t *ids = malloc((list.n + 1) * sizeof *ids);
        for (size_t i = 0; ids && i < list.n; i++) {
            ids[i] = list.token[i].id;
            if (list.token[i].end > n || list.token[i].id < 0) abort();
            // a template may name ids that the vocabulary does not have
            if (list.token[i].id >= tokenizer_size(t) && !(flags & ENCODE_SPECIALS)) abort();
        }
        if (ids && !tokenizer_decode(t, &out, &n_out, ids, list.n, false, &err) && utf8_check(out, n_out) < n_out) abort();
        struct text_stream *stream = NULL;
        const char *piece;
        if (ids && !text_stream_create(&stream, t, true, &err))
            for (size_t i = 0; i < list.n; i++)
                if (!text_stream_push(stream, ids[i], &piece, &n_out, &err) && utf8_check(piece, n_out) < n_out) abort();
        text_stream_destroy(&stream);
        free(ids);
        free(out);
    }
    token_list_deinit(&list);
}

/* What a tokenizer writes loads again. Destroys it. */
static inline void use_again(struct tokenizer **t) {
    struct tokenizer *again = NULL;
    struct cb_err err = {0};
    char *json = NULL;
    size_t n;
    if (!tokenizer_to_json(*t, &json, &n, &err) && tokenizer_load_bytes(&again, json, n, "again", &err)) abort();
    if (again) use_text(again, "Hello \xc3\xa9 ab  abab<s>", 19, 0);
    free(json);
    tokenizer_destroy(&again);
    tokenizer_destroy(t);
}
#endif
