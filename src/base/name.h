/* Endings of names: of tensors, of files. */
#ifndef BASE_NAME_H
#define BASE_NAME_H
#include <stdbool.h>
#include <string.h>

static inline bool name_ends(const char *name, const char *end) {
    const size_t n = strlen(name), k = strlen(end);
    return n >= k && memcmp(name + n - k, end, k) == 0;
}
#endif
