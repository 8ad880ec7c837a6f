/* Fuzz target: any bytes as JSON; what is accepted must come back equal from its own dump. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct cb_err err = {0};
    json_t *value, *again;
    char *text;
    if (json_parse(&value, (const char *)bytes, n, "input", &err)) return 0;
    if (json_dump(&text, value, n & 1 ? 2 : 0, &err)) __builtin_trap();
    if (json_parse(&again, text, strlen(text), "dump", &err) || !json_equal(value, again)) __builtin_trap();
    int64_t number;
    int count;
    json_get_ints(&number, &count, 1, value, "input", "a", 0, 100, false, &err);
    json_decref(again);
    json_decref(value);
    free(text);
    return 0;
}
