/* Fuzz target: bytes as tokenizer.json; what loads is written, read again, and used on text that is the rest of the input. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct tokenizer *t, const char *text, size_t n) {
    struct cb_err err = {0};
    struct token_list list = {0};
    char *out = NULL;
    size_t n_out;
    if (!tokenizer_encode(t, &list, text, n, ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_LIMITS, &err)) {
        int32_t *ids = malloc((list.n + 1) * sizeof *ids);
        for (size_t i = 0; ids && i < list.n; i++) ids[i] = list.token[i].id;
        if (ids && !tokenizer_decode(t, &out, &n_out, ids, list.n, false, &err) && utf8_check(out, n_out) < n_out) abort();
        free(ids);
        free(out);
    }
    token_list_deinit(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tokenizer *t = NULL, *again = NULL;
    struct cb_err err = {0};
    const char *bytes = (const char *)data, *gap = size ? memchr(bytes, 0, size) : NULL;
    size_t n = gap ? (size_t)(gap - bytes) : size;
    if (tokenizer_load_bytes(&t, bytes, n, "input", &err)) return 0;
    use(t, gap ? gap + 1 : "ab \xc3\xa9 1", gap ? size - n - 1 : 7);
    char *json = NULL;
    if (!tokenizer_to_json(t, &json, &n, &err) && tokenizer_load_bytes(&again, json, n, "again", &err)) abort();
    free(json);
    tokenizer_destroy(&again);
    tokenizer_destroy(&t);
    return 0;
}
