/* The wrappers: a table of live blocks, so that what other libraries allocated and we free is told apart. */
#include "wrap.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

void *__real_malloc(size_t n);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
int __wrap_posix_memalign(void **p, size_t alignment, size_t n);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);
void __wrap_free(void *p);
int __wrap_fsync(int fd);

enum { SLOTS = 1 << 18, DEPTH = 12 };

static struct {
    pthread_mutex_t lock;
    long count, fail_at, live;
    void *block[SLOTS];  // open addressing; GONE marks a freed place
    long made[SLOTS];  // number of the allocation
    void *site[DEPTH];
    int n_site;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define GONE ((void *)1)

static size_t place(const void *p) { return (size_t)(((uintptr_t)p >> 4) * 0x9E3779B97F4A7C15ull >> 40) % SLOTS; }

static void keep(void *p) {
    if (!p) return;
    size_t i = place(p);
    while (state.block[i] && state.block[i] != GONE) i = (i + 1) % SLOTS;
    state.block[i] = p;
    state.made[i] = state.count;
    state.live++;
}

static void drop(void *p) {
    for (size_t i = place(p); state.block[i]; i = (i + 1) % SLOTS)
        if (state.block[i] == p) {
            // a free place after this one: no search passes here
            state.block[i] = state.block[(i + 1) % SLOTS] ? GONE : NULL;
            state.live--;
            return;
        }
}

/* Counts one allocation; true: it must fail. The lock is held. */
static bool fails(void) {
    if (++state.count != state.fail_at) return false;
    state.n_site = backtrace(state.site, DEPTH);
    errno = ENOMEM;
    return true;
}

static void *made(void *p) {
    keep(p);
    pthread_mutex_unlock(&state.lock);
    return p;
}

void *__wrap_malloc(size_t n) {
    pthread_mutex_lock(&state.lock);
    return made(fails() ? NULL : __real_malloc(n ? n : 1));
}

void *__wrap_calloc(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
    void *p = __wrap_malloc(bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void *__wrap_realloc(void *p, size_t n) {
    pthread_mutex_lock(&state.lock);
    void *q = NULL;
    if (!fails()) {
        drop(p);
        if (!(q = __real_realloc(p, n ? n : 1))) keep(p);
    }
    return made(q);
}

void *__wrap_aligned_alloc(size_t alignment, size_t n) {
    pthread_mutex_lock(&state.lock);
    return made(fails() ? NULL : __real_aligned_alloc(alignment, n));
}

int __wrap_posix_memalign(void **p, size_t alignment, size_t n) {
    void *q = __wrap_aligned_alloc(alignment, (n + alignment - 1) / alignment * alignment);
    if (!q) return ENOMEM;
    *p = q;
    return 0;
}

char *__wrap_strndup(const char *text, size_t n) {
    n = strnlen(text, n);
    char *copy = __wrap_malloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, text, n);
    copy[n] = 0;
    return copy;
}

char *__wrap_strdup(const char *text) { return __wrap_strndup(text, strlen(text)); }

void __wrap_free(void *p) {
    pthread_mutex_lock(&state.lock);
    if (p) drop(p);
    pthread_mutex_unlock(&state.lock);
    __real_free(p);
}

/* Thousands of runs, none of them worth the wait for a disk. */
int __wrap_fsync(int fd) {
    (void)fd;
    return 0;
}

void wrap_fail_at(long k) {
    void *first[1];
    backtrace(first, 1);  // loads what it needs
    state.count = 0;
    state.fail_at = k;
    state.n_site = 0;
}

long wrap_count(void) { return state.count; }

long wrap_live(void) { return state.live; }

int wrap_site(void *address[12]) {
    memcpy(address, state.site, sizeof state.site);
    return state.n_site;
}

void wrap_print_live(void) {
    int shown = 0;
    for (size_t i = 0; i < SLOTS && shown < 10; i++)
        if (state.block[i] && state.block[i] != GONE) {
            fprintf(stderr, "  block %p, allocation %ld\n", state.block[i], state.made[i]);
            shown++;
        }
}
