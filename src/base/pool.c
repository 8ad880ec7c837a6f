/* The thread pool: each thread takes tiles of its own share, then of the others'; threads spin briefly between jobs, then sleep. */
#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/subnormal.h"

#define MAX_THREADS 1024
#define SPINS \
    8000  // pauses before sleeping: a few hundred us, longer than the gaps between the kernels of a step; waking a sleeper takes 50 us
#define CLOSED UINT32_MAX  // tile number of a state in which no tile can be taken
#define MAX_TILES (UINT32_MAX - 1u)  // per job; longer runs are cut

/* The next tile of one thread's share: (job number << 32 | tile). A tile is taken by compare-and-swap, so a thread that slept through a job cannot
   take a tile of another one with old fields; and a job ends when its tiles are done, without waiting for threads that never woke up. */
struct share {
    _Alignas(64) _Atomic uint64_t next;
};

struct pool {
    _Alignas(64) _Atomic int64_t n_done;
    _Alignas(64) _Atomic int64_t n_tiles;
    _Atomic int64_t first;  // number of the job's tile 0
    _Atomic(void *) context;
    _Atomic uint32_t subnormals;  // mode of the caller
    void (*_Atomic tile)(void *context, int64_t i, int thread);
    _Alignas(64) atomic_int n_sleeping;
    atomic_bool caller_sleeps, stop;
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    int n_threads, n_started;
    struct worker *workers;
    struct share shares[];  // one of each thread; the first tells the newest job
};

struct worker {
    struct pool *pool;
    int index;
    pthread_t thread;
};

static void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t job_number(struct pool *pool) { return (uint32_t)(atomic_load(&pool->shares[0].next) >> 32); }

// The end of a thread's share, and so the beginning of the next one's.
static int64_t share_end(int64_t n_tiles, int owner, int n_threads) {
    return n_tiles / n_threads * (owner + 1) + n_tiles % n_threads * (owner + 1) / n_threads;
}

// Takes tiles of one share until there are none.
static void share_work(struct pool *pool, int owner, int thread) {
    _Atomic uint64_t *next = &pool->shares[owner].next;
    uint64_t state = atomic_load_explicit(next, memory_order_acquire);
    for (;;) {
        uint32_t i = (uint32_t)state;
        int64_t total = atomic_load_explicit(&pool->n_tiles, memory_order_acquire);
        int64_t first = atomic_load_explicit(&pool->first, memory_order_acquire);
        void *context = atomic_load_explicit(&pool->context, memory_order_acquire);
        void (*tile)(void *, int64_t, int) = atomic_load_explicit(&pool->tile, memory_order_acquire);
        uint32_t subnormals = atomic_load_explicit(&pool->subnormals, memory_order_acquire);
        if (i == CLOSED || i >= share_end(total, owner, pool->n_threads)) return;
        // a newer job makes this fail: what was just read then counts for nothing
        if (!atomic_compare_exchange_weak_explicit(next, &state, state + 1, memory_order_acq_rel, memory_order_acquire)) continue;
        if (subnormals != subnormal_mode()) subnormal_set(subnormals);
        tile(context, first + i, thread);
        state++;
        if (atomic_fetch_add(&pool->n_done, 1) + 1 == total && atomic_load(&pool->caller_sleeps)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

// Works on the current job until none of its tiles is free: neighbouring tiles stay with one thread, from job to job, as long as all keep pace.
// Returns the job's number.
static uint32_t tiles_work(struct pool *pool, int thread) {
    const uint32_t job = job_number(pool);
    for (int i = 0; i < pool->n_threads; i++) share_work(pool, (thread + i) % pool->n_threads, thread);
    return job;
}

static void *worker_main(void *argument) {
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    uint32_t seen = 0;
    while (!atomic_load_explicit(&pool->stop, memory_order_acquire)) {
        int spins = 0;
        while (job_number(pool) == seen && spins++ < SPINS) spin_pause();
        if (job_number(pool) == seen) {
            pthread_mutex_lock(&pool->mutex);
            atomic_fetch_add(&pool->n_sleeping, 1);
            while (job_number(pool) == seen && !atomic_load(&pool->stop)) pthread_cond_wait(&pool->work, &pool->mutex);
            atomic_fetch_sub(&pool->n_sleeping, 1);
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = tiles_work(pool, worker->index);
    }
    return NULL;
}

// Signals go to the caller's threads, never to the pool's.
static int workers_start(struct pool *pool) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = 0;
    for (int i = 1; i < pool->n_threads && !failure; i++) {
        struct worker *worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i;
        failure = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (!failure) pool->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

enum cb_status pool_create(struct pool **out, int n_threads, struct cb_err *err) {
    *out = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS) FAIL(err, CB_E_ARGUMENT, "threads: found %d; wanted 1 to %d", n_threads, MAX_THREADS);
    const size_t bytes = sizeof(struct pool) + (size_t)n_threads * sizeof(struct share);
    struct pool *pool = aligned_alloc(64, bytes);
    struct worker *workers = calloc((size_t)n_threads, sizeof *workers);
    if (!pool || !workers) {
        free(pool);
        free(workers);
        FAIL(err, CB_E_MEMORY, "threads: out of memory for a pool of %d", n_threads);
    }
    memset(pool, 0, bytes);
    pool->n_threads = n_threads;
    pool->workers = workers;
    for (int i = 0; i < n_threads; i++) atomic_store(&pool->shares[i].next, CLOSED);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    int failure = workers_start(pool);
    if (failure) {
        int n_started = pool->n_started;
        pool_destroy(&pool);
        FAIL(err, CB_E_LIMIT, "threads: the system gave %d of %d (%s)", n_started + 1, n_threads, strerror(failure));
    }
    *out = pool;
    return CB_OK;
}

void pool_destroy(struct pool **pool) {
    struct pool *p = pool ? *pool : NULL;
    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    free(p->workers);
    free(p);
    *pool = NULL;
}

int pool_threads(const struct pool *pool) { return pool->n_threads; }

// Opens a job: closes the old shares first, so that no thread pairs them with the new fields.
static void job_open(struct pool *pool, int64_t first, int64_t n_tiles, void (*tile)(void *, int64_t, int), void *context) {
    uint32_t job = job_number(pool);
    for (int i = 0; i < pool->n_threads; i++) atomic_store(&pool->shares[i].next, (uint64_t)job << 32 | CLOSED);
    atomic_store_explicit(&pool->n_done, 0, memory_order_release);
    atomic_store_explicit(&pool->n_tiles, n_tiles, memory_order_release);
    atomic_store_explicit(&pool->first, first, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->subnormals, subnormal_mode(), memory_order_release);
    atomic_store_explicit(&pool->tile, tile, memory_order_release);
    for (int i = pool->n_threads - 1; i >= 0; i--) {
        const int64_t begin = i ? share_end(n_tiles, i - 1, pool->n_threads) : 0;
        atomic_store(&pool->shares[i].next, (uint64_t)(job + 1) << 32 | (uint64_t)begin);
    }
    // pairs with a worker that counts itself asleep, then looks at the state
    if (atomic_load(&pool->n_sleeping) > 0) {
        pthread_mutex_lock(&pool->mutex);
        if (n_tiles > 2)
            pthread_cond_broadcast(&pool->work);
        else
            pthread_cond_signal(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void job_wait(struct pool *pool, int64_t n_tiles) {
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(&pool->n_done, memory_order_acquire) == n_tiles) return;
        spin_pause();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeps, true);
    while (atomic_load(&pool->n_done) != n_tiles) pthread_cond_wait(&pool->done, &pool->mutex);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->mutex);
}

void pool_run(struct pool *pool, int64_t n_tiles, void (*tile)(void *context, int64_t i, int thread), void *context) {
    if (pool->n_threads == 1 || n_tiles <= 1) {
        for (int64_t i = 0; i < n_tiles; i++) tile(context, i, 0);
        return;
    }
    for (int64_t first = 0; first < n_tiles; first += MAX_TILES) {
        int64_t n = n_tiles - first < MAX_TILES ? n_tiles - first : MAX_TILES;
        job_open(pool, first, n, tile, context);
        tiles_work(pool, 0);
        job_wait(pool, n);
    }
}
