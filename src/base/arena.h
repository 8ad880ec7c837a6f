/* Bump allocation: many small objects with one lifetime, freed together. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H
#include <stdarg.h>
#include <stddef.h>

struct arena;

/* Returns NULL when out of memory. Owned by caller, free with arena_destroy. */
struct arena *arena_create(void);
/* Frees everything in *arena and nulls it. Nullable: *arena. */
void arena_destroy(struct arena **arena);

/* Zeroed memory, 64-byte aligned if bytes >= 64, else 16. NULL when out of memory; bytes may be 0. */
void *arena_alloc(struct arena *arena, size_t bytes);
/* n * bytes with overflow check. */
void *arena_array(struct arena *arena, size_t n, size_t bytes);
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t n);
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Scratch: everything allocated after the mark is freed by the release. */
struct arena_mark {
    void *block;
    size_t used;
};
struct arena_mark arena_mark(const struct arena *arena);
void arena_release(struct arena *arena, struct arena_mark mark);
/* Bytes held from the system. */
size_t arena_bytes(const struct arena *arena);
#endif
