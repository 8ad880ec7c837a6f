/* Bump allocator over a list of malloc blocks of growing size. */
#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct block {
    struct block *previous;
    size_t used, size;
    unsigned char *data;  // 64-byte aligned, inside the same allocation
};

struct arena {
    struct block *top;
    size_t next_size, held;
};

struct arena *arena_create(void) {
    struct arena *arena = calloc(1, sizeof *arena);
    if (arena) arena->next_size = 4096;
    return arena;
}

void arena_destroy(struct arena **arena) {
    if (!arena || !*arena) return;
    for (struct block *b = (*arena)->top, *previous; b; b = previous) {
        previous = b->previous;
        free(b);
    }
    free(*arena);
    *arena = NULL;
}

static struct block *block_push(struct arena *arena, size_t bytes) {
    size_t size = arena->next_size;
    if (bytes > size) size = bytes;
    if (size > SIZE_MAX - sizeof(struct block) - 64) return NULL;
    struct block *b = malloc(sizeof *b + size + 64);
    if (!b) return NULL;
    b->previous = arena->top;
    b->used = 0;
    b->size = size;
    b->data = (unsigned char *)(((uintptr_t)(b + 1) + 63) & ~(uintptr_t)63);
    arena->top = b;
    arena->held += size;
    if (arena->next_size < (size_t)1 << 20) arena->next_size *= 2;
    return b;
}

void *arena_alloc(struct arena *arena, size_t bytes) {
    if (!bytes) bytes = 1;
    size_t align = bytes >= 64 ? 64 : 16;
    struct block *b = arena->top;
    size_t at = b ? (b->used + align - 1) & ~(align - 1) : 0;
    if (!b || at > b->size || b->size - at < bytes) {
        if (!(b = block_push(arena, bytes))) return NULL;
        at = 0;
    }
    b->used = at + bytes;
    return memset(b->data + at, 0, bytes);
}

void *arena_array(struct arena *arena, size_t n, size_t bytes) {
    if (bytes && n > SIZE_MAX / bytes) return NULL;
    return arena_alloc(arena, n * bytes);
}

char *arena_strndup(struct arena *arena, const char *text, size_t n) {
    char *copy = arena_alloc(arena, n + 1);
    if (copy) memcpy(copy, text, n);
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text) { return arena_strndup(arena, text, strlen(text)); }

char *arena_printf(struct arena *arena, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n < 0 ? NULL : arena_alloc(arena, (size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

struct arena_mark arena_mark(const struct arena *arena) {
    return (struct arena_mark){arena->top, arena->top ? arena->top->used : 0};
}

void arena_release(struct arena *arena, struct arena_mark mark) {
    while (arena->top && arena->top != mark.block) {
        struct block *b = arena->top;
        arena->top = b->previous;
        arena->held -= b->size;
        free(b);
    }
    if (arena->top) arena->top->used = mark.used;
}

size_t arena_bytes(const struct arena *arena) { return arena->held; }
