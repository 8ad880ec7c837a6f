/* Offsets for buffers with known lifetimes: the largest first, each into the smallest gap among its contemporaries. */
#include "graph/mem.h"

#include <stdlib.h>

static int64_t round_up(int64_t bytes) { return (bytes + 63) & ~(int64_t)63; }

/* Larger first; of equals the longer-lived, then the earlier. */
static int by_size(const void *a, const void *b) {
    const struct mem_buffer *x = *(struct mem_buffer *const *)a, *y = *(struct mem_buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    int dx = x->last - x->first, dy = y->last - y->first;
    if (dx != dy) return dx < dy ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* Lowest-waste offset for b among the placed buffers, which are sorted by offset. Returns where to insert it. */
static int best_gap(struct mem_buffer *b, struct mem_buffer *const *placed, int n) {
    int64_t end = 0, best = INT64_MAX, need = round_up(b->bytes);
    b->offset = -1;
    for (int i = 0; i < n; i++) {
        const struct mem_buffer *p = placed[i];
        if (p->last < b->first || p->first > b->last) continue;
        int64_t gap = p->offset - end;
        if (gap >= need && gap < best) best = gap, b->offset = end;
        if (p->offset + round_up(p->bytes) > end) end = p->offset + round_up(p->bytes);
    }
    if (b->offset < 0) b->offset = end;
    int at = n;
    while (at > 0 && placed[at - 1]->offset > b->offset) at--;
    return at;
}

enum cb_status mem_place(struct mem_buffer *buffers, int n, int64_t *total, struct cb_err *err) {
    *total = 0;
    if (!n) return CB_OK;
    struct mem_buffer **order = malloc((size_t)n * sizeof *order), **placed = malloc((size_t)n * sizeof *placed);
    if (!order || !placed) {
        free(order);
        free(placed);
        FAIL(err, CB_E_MEMORY, "plan: out of memory");
    }
    for (int i = 0; i < n; i++) order[i] = &buffers[i];
    qsort(order, (size_t)n, sizeof *order, by_size);
    for (int i = 0; i < n; i++) {
        int at = best_gap(order[i], placed, i);
        for (int j = i; j > at; j--) placed[j] = placed[j - 1];
        placed[at] = order[i];
        int64_t end = order[i]->offset + round_up(order[i]->bytes);
        if (end > *total) *total = end;
    }
    free(order);
    free(placed);
    return CB_OK;
}
