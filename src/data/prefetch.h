/* One thread that prepares the batch after the one that is being used. */
#ifndef DATA_PREFETCH_H
#define DATA_PREFETCH_H
#include "data/loader.h"

struct prefetch;

/* Starts the thread on batch `first`. loader must outlive it. Which of segments and positions are made is said here. Owned by caller, free with
   prefetch_destroy, which waits for the batch being prepared. */
enum cb_status prefetch_create(struct prefetch **prefetch, const struct loader *loader, int64_t first, bool segments, bool positions,
                               struct cb_err *err);
void prefetch_destroy(struct prefetch **prefetch);
/* As loader_batch, with the same result for any index; quick where index follows the last one taken. One caller at a time. segments, positions: NULL
   where they are not made. */
enum cb_status prefetch_batch(struct prefetch *prefetch, int64_t index, int32_t *ids, int32_t *labels, int32_t *segments,
                              int32_t *positions, struct cb_err *err);
#endif
