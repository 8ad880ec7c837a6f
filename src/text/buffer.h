/* A growing run of bytes. */
#ifndef TEXT_BUFFER_H
#define TEXT_BUFFER_H
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* Zero-initialise; free data. */
struct buffer {
    char *data;
    size_t n, capacity;
};

/* Room for more bytes after n (and a NUL). */
static inline enum cb_status buffer_reserve(struct buffer *b, size_t more, struct cb_err *err) {
    if (b->capacity - b->n > more) return CB_OK;
    size_t capacity = b->capacity ? b->capacity : 64;
    if (more > SIZE_MAX / 4 - b->n) FAIL(err, CB_E_MEMORY, "text: %zu bytes more than fit", more);
    while (capacity - b->n <= more) capacity *= 2;
    char *data = realloc(b->data, capacity);
    if (!data) FAIL(err, CB_E_MEMORY, "text: no memory for %zu bytes", capacity);
    b->data = data, b->capacity = capacity;
    return CB_OK;
}
static inline enum cb_status buffer_append(struct buffer *b, const char *text, size_t n, struct cb_err *err) {
    TRY(buffer_reserve(b, n, err));
    if (n) memcpy(b->data + b->n, text, n);
    b->n += n;
    return CB_OK;
}

/* Makes *array (of *capacity elements of size bytes) hold at least want elements. */
static inline enum cb_status buffer_grow(void **array, size_t *capacity, size_t want, size_t size, struct cb_err *err) {
    if (want <= *capacity) return CB_OK;
    size_t next = *capacity ? *capacity : 16;
    while (next < want && next < SIZE_MAX / 4 / size) next *= 2;
    if (next < want) FAIL(err, CB_E_MEMORY, "text: %zu elements more than fit", want);
    void *grown = realloc(*array, next * size);
    if (!grown) FAIL(err, CB_E_MEMORY, "text: no memory for %zu elements", next);
    *array = grown, *capacity = next;
    return CB_OK;
}
#endif
