/* The thread pool: work cut into tiles that do not depend on the number of threads. */
#ifndef BASE_POOL_H
#define BASE_POOL_H
#include "base/err.h"

struct pool;

/* n_threads >= 1 counts the calling thread. Owned by caller, free with pool_destroy. */
enum cb_status pool_create(struct pool **pool, int n_threads, struct cb_err *err);
void pool_destroy(struct pool **pool);
int pool_threads(const struct pool *pool);

/* Runs tile(context, i, thread) for each i in [0, n_tiles), each once, on any thread (0 <= thread < pool_threads), and returns when all are
   done. Each thread begins with its own share of neighbouring tiles, in increasing order, then helps the others. Not reentrant: one caller at
   a time, tiles do not call it. n_tiles <= 1 or one thread runs inline. Results too
   small for normal numbers are zeros on all threads if they are on the caller's. Allocates nothing. */
void pool_run(struct pool *pool, int64_t n_tiles, void (*tile)(void *context, int64_t i, int thread), void *context);
#endif
