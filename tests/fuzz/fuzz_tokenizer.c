/* Fuzz target: bytes as tokenizer.json; what loads is written, read again, and used on text that is the rest of the input. */
#include "tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    const char *bytes = (const char *)data, *gap = size ? memchr(bytes, 0, size) : NULL;
    size_t n = gap ? (size_t)(gap - bytes) : size;
    if (tokenizer_load_bytes(&t, bytes, n, "input", &err)) return 0;
    use_text(t, gap ? gap + 1 : "ab \xc3\xa9 1", gap ? size - n - 1 : 7, ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_LIMITS);
    use_again(&t);
    return 0;
}
