/* The pool: each tile once, threads within bounds, results visible, idle threads asleep. */
#include "base/pool.h"

#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>

#include "../harness.h"
#include "base/subnormal.h"

#if defined(__x86_64__)
enum { FLUSHES = 1 };
#else
enum { FLUSHES = 0 };
#endif

static struct cb_err err;

struct job {
    int64_t n;
    int n_threads;
    unsigned char *seen;  // written without atomics: the pool must order it
    atomic_int bad;
};
static void mark(void *context, int64_t i, int thread) {
    struct job *job = context;
    if (i < 0 || i >= job->n || thread < 0 || thread >= job->n_threads) atomic_fetch_add(&job->bad, 1);
    job->seen[i]++;
}

TEST(pool, each_tile_once) {
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 1000};
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
        struct pool *pool;
        CHECK_OK(pool_create(&pool, n_threads, &err));
        CHECK(pool_threads(pool) == n_threads);
        unsigned char seen[1000];
        memset(seen, 0, sizeof seen);
        int rounds = 0;
        for (int repeat = 0; repeat < 30; repeat++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                struct job job = {sizes[s], n_threads, seen, 0};
                memset(seen, 0, sizeof seen);
                pool_run(pool, sizes[s], mark, &job);
                for (int64_t i = 0; i < 1000; i++) CHECK(seen[i] == (i < sizes[s]), "tile %d ran %d times", (int)i, seen[i]);
                CHECK(!job.bad);
                // let the threads fall asleep now and then
                if (rounds++ % 50 == 0) nanosleep(&(struct timespec){0, 2000000}, NULL);
            }
        pool_destroy(&pool);
        CHECK(!pool);
    }
}

// A chain of small jobs: each reads what the one before wrote on any thread.
static void add_neighbour(void *context, int64_t i, int thread) {
    int64_t **v = context;
    (void)thread;
    v[1][i] = v[0][i] + v[0][(i + 1) % 8];
}
TEST(pool, jobs_are_ordered) {
    struct pool *pool;
    CHECK_OK(pool_create(&pool, 3, &err));
    int64_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8], c[8], d[8];
    memcpy(c, a, sizeof a);
    for (int step = 0; step < 2000; step++) {
        int64_t *v[2] = {step & 1 ? b : a, step & 1 ? a : b}, *w[2] = {step & 1 ? d : c, step & 1 ? c : d};
        pool_run(pool, 8, add_neighbour, v);
        for (int i = 0; i < 8; i++) add_neighbour(w, i, 0);
        for (int i = 0; i < 8; i++) v[1][i] %= 1000003, w[1][i] %= 1000003;
    }
    CHECK(!memcmp(a, c, sizeof a));
    pool_destroy(&pool);
}

TEST(pool, idle_threads_sleep) {
    struct pool *pool;
    CHECK_OK(pool_create(&pool, 3, &err));
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    getrusage(RUSAGE_SELF, &after);
    long us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000L + after.ru_utime.tv_usec - before.ru_utime.tv_usec;
    CHECK(us < 50000, "%ld us of work in 200 ms of idling", us);
    pool_destroy(&pool);
}

/* Half of the smallest normal number: a zero where subnormal results are. */
static void halve_smallest(void *context, int64_t i, int thread) {
    volatile float smallest = 0x1p-126f, half = 0.5f;
    (void)thread;
    ((float *)context)[i] = smallest * half;
}
TEST(pool, threads_take_the_callers_subnormals) {
    enum { N = 256 };
    struct pool *pool;
    CHECK_OK(pool_create(&pool, 3, &err));
    for (int repeat = 0; repeat < 20; repeat++) {
        float kept[N], flushed[N];
        pool_run(pool, N, halve_smallest, kept);
        const uint32_t before = subnormal_flush();
        pool_run(pool, N, halve_smallest, flushed);
        subnormal_set(before);
        CHECK(subnormal_mode() == before);
        for (int i = 0; i < N; i++)
            CHECK(kept[i] == 0x1p-127f && (flushed[i] == 0 || !FLUSHES), "tile %d: %g, %g", i, (double)kept[i], (double)flushed[i]);
    }
    pool_destroy(&pool);
}

TEST(pool, refuses_counts) {
    struct pool *pool;
    CHECK_FAILS(pool_create(&pool, 0, &err), CB_E_ARGUMENT, "threads: found 0");
    CHECK_FAILS(pool_create(&pool, 100000, &err), CB_E_ARGUMENT, "100000");
    CHECK(!pool);
}
