/* A thread, one prepared batch, and a lock around them. */
#include "data/prefetch.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct prefetch {
    const struct loader *loader;
    size_t n;  // B * T
    int32_t *ids, *labels, *segments, *positions;  // the thread's while it works, else under the lock
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t thread;
    int64_t wanted, ready;  // batches; ready -1: none
    bool stop;
    enum cb_status status;  // of the ready batch
    struct cb_err err;
};

static void *work(void *context) {
    struct prefetch *p = context;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        if (p->ready == p->wanted) {
            pthread_cond_wait(&p->changed, &p->mutex);
            continue;
        }
        // `ready` is -1 or old here, and the caller takes only what is ready: the buffers are this thread's
        int64_t index = p->wanted;
        p->ready = -1;
        pthread_mutex_unlock(&p->mutex);
        struct cb_err err = {0};
        enum cb_status status = loader_batch(p->loader, index, p->ids, p->labels, p->segments, p->positions, &err);
        pthread_mutex_lock(&p->mutex);
        p->ready = index;
        p->status = status;
        p->err = err;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

// Signals are the main thread's business.
static int thread_start(struct prefetch *p) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = pthread_create(&p->thread, NULL, work, p);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed;
}

static void memory_free(struct prefetch *p) {
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->changed);
    free(p->ids);
    free(p);
}

enum cb_status prefetch_create(struct prefetch **out, const struct loader *loader, int64_t first, bool segments, bool positions,
                               struct cb_err *err) {
    *out = NULL;
    struct prefetch *p = calloc(1, sizeof *p);
    if (!p) FAIL(err, CB_E_MEMORY, "prefetch: out of memory");
    const struct loader_options *o = loader_options(loader);
    *p = (struct prefetch){.loader = loader, .n = (size_t)(o->batch * o->seq), .wanted = first, .ready = -1};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->ids = malloc(4 * p->n * sizeof *p->ids);
    if (!p->ids) {
        memory_free(p);
        FAIL(err, CB_E_MEMORY, "prefetch: out of memory for a batch of %lld rows of %lld", (long long)o->batch, (long long)o->seq);
    }
    p->labels = p->ids + p->n;
    p->segments = segments ? p->labels + p->n : NULL;
    p->positions = positions ? p->labels + 2 * p->n : NULL;
    if (thread_start(p)) {
        memory_free(p);
        FAIL(err, CB_E_MEMORY, "prefetch: the system gives no thread");
    }
    *out = p;
    return CB_OK;
}

void prefetch_destroy(struct prefetch **prefetch) {
    struct prefetch *p = prefetch ? *prefetch : NULL;
    if (!p) return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    memory_free(p);
    *prefetch = NULL;
}

static void copy(int32_t *to, const int32_t *from, size_t n) {
    if (to && from) memcpy(to, from, n * sizeof *to);
}

enum cb_status prefetch_batch(struct prefetch *p, int64_t index, int32_t *ids, int32_t *labels, int32_t *segments, int32_t *positions,
                              struct cb_err *err) {
    if ((segments && !p->segments) || (positions && !p->positions))
        FAIL(err, CB_E_ARGUMENT, "prefetch: asked for segments or positions; wanted them named at the start");
    pthread_mutex_lock(&p->mutex);
    if (p->wanted != index) {
        p->wanted = index;
        pthread_cond_broadcast(&p->changed);
    }
    while (p->ready != index) pthread_cond_wait(&p->changed, &p->mutex);
    enum cb_status status = p->status;
    if (status == CB_OK) {
        copy(ids, p->ids, p->n);
        copy(labels, p->labels, p->n);
        copy(segments, p->segments, p->n);
        copy(positions, p->positions, p->n);
        if (index < INT64_MAX) p->wanted = index + 1;
        pthread_cond_broadcast(&p->changed);
    } else if (err && err->code == CB_OK) {
        *err = p->err;
    }
    pthread_mutex_unlock(&p->mutex);
    return status;
}
