/* Reading the outside tokenizer vectors: one JSON value a line. */
#ifndef TESTS_TEXT_VECTORS_H
#define TESTS_TEXT_VECTORS_H
#include "base/json.h"
#include "harness.h"

/* The bytes of a file with a NUL, or NULL. Owned by caller, free(). */
static inline char *vector_bytes(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size + 1);
    *n = bytes ? fread(bytes, 1, (size_t)size, file) : 0;
    if (bytes) bytes[*n] = 0;
    fclose(file);
    return bytes;
}

/* FNV-1a 64, as the digests have it. */
static inline uint64_t vector_fnv(uint64_t h, const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return h;
}
#define VECTOR_FNV 0xcbf29ce484222325u

static inline bool vector_fnv_is(const json_t *digest, uint64_t h) {
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)h);
    const char *want = json_string_value(json_object_get(digest, "fnv1a64"));
    return want && !strcmp(want, text);
}

/* A text is a string or {"repeat", "count"}. Owned by caller, free(). */
static inline char *vector_text(const json_t *json, size_t *n) {
    const json_t *unit = json_is_string(json) ? json : json_object_get(json, "repeat");
    size_t count = json_is_string(json) ? 1 : (size_t)json_integer_value(json_object_get(json, "count")), length = json_string_length(unit);
    char *text = malloc(length * count + 1);
    for (size_t i = 0; i < count; i++) memcpy(text + i * length, json_string_value(unit), length);
    text[ *n = length * count] = 0;
    return text;
}

static inline bool vector_text_is(const json_t *want, const char *text, size_t n) {
    if (json_is_object(want))
        return (size_t)json_integer_value(json_object_get(want, "bytes")) == n && vector_fnv_is(want, vector_fnv(VECTOR_FNV, text, n));
    return json_is_string(want) && json_string_length(want) == n && !memcmp(json_string_value(want), text, n);
}

/* ids: a list of numbers, or a digest of it. */
static inline bool vector_ids_are(const json_t *want, const int32_t *ids, size_t n) {
    if (json_is_object(want))
        return (size_t)json_integer_value(json_object_get(want, "n")) == n && vector_fnv_is(want, vector_fnv(VECTOR_FNV, ids, n * 4));
    if (!json_is_array(want) || json_array_size(want) != n) return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(want, i)) != ids[i]) return false;
    return true;
}

/* Calls fn for every line; returns the lines, or -1 without the file. */
static inline int vector_lines(const char *path, void (*fn)(const json_t *line, void *context), void *context) {
    size_t n;
    int count = 0;
    char *bytes = vector_bytes(path, &n);
    if (!bytes) return -1;
    for (char *at = bytes, *end; at < bytes + n; at = end + 1) {
        end = memchr(at, '\n', (size_t)(bytes + n - at));
        if (!end) end = bytes + n;
        json_t *line = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
        if (!line) continue;
        fn(line, context);
        json_decref(line);
        count++;
    }
    free(bytes);
    return count;
}
#endif
