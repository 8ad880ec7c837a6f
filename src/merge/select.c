/* Order statistics of keys that are computed from tiles: the bits of a float >= 0 order as the float does, 16 bits a pass. */
#include <stdlib.h>
#include <string.h>

#include "merge/merge.h"

enum { BINS = 1 << 16 };

struct selection {
    merge_key_fn *fn;
    void *context;
    int64_t *bins;  // BINS
    bool low;  // the low 16 bits of keys whose high bits are `high`
    uint32_t high, bits;
    int64_t *equals;  // a tile: keys of these bits
    int64_t wanted, found_tile, found_index;  // the wanted-th equal key of a tile
};

static uint32_t bits_of(float key) {
    uint32_t bits;
    memcpy(&bits, &key, sizeof bits);
    return bits;
}

static void keys(const struct merge_job *job, const struct merge_tile *t, const struct selection *s, float *key) {
    s->fn(job, t, s->context, key);
}

static void count_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    struct selection *s = context;
    float *key = t->spare;
    keys(job, t, s, key);
    // counts are whole numbers: their order does not matter
    for (int64_t i = 0; i < t->n; i++) {
        uint32_t b = bits_of(key[i]);
        if (!s->low)
            __atomic_fetch_add(&s->bins[b >> 16], 1, __ATOMIC_RELAXED);
        else if (b >> 16 == s->high)
            __atomic_fetch_add(&s->bins[b & 0xffff], 1, __ATOMIC_RELAXED);
    }
    (void)sums;
}

static void equal_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    struct selection *s = context;
    float *key = t->spare;
    keys(job, t, s, key);
    int64_t n = 0;
    for (int64_t i = 0; i < t->n; i++) n += bits_of(key[i]) == s->bits;
    s->equals[t->first / t->room] = n;
    (void)sums;
}

static void find_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    struct selection *s = context;
    float *key = t->spare;
    (void)sums;
    if (t->first / t->room != s->found_tile) return;
    keys(job, t, s, key);
    int64_t n = 0;
    for (int64_t i = 0; i < t->n; i++)
        if (bits_of(key[i]) == s->bits && ++n == s->wanted) s->found_index = t->first + i;
}

/* One pass over 16 bits: the bin that holds the rank, which becomes the rank within it. */
static enum cb_status narrow(struct merge_job *job, struct selection *s, int64_t *rank, uint32_t *bin, struct cb_err *err) {
    double none;
    memset(s->bins, 0, BINS * sizeof *s->bins);
    TRY(merge_pass(job, count_tile, s, 0, &none, err));
    for (*bin = 0; *bin < BINS - 1 && *rank >= s->bins[*bin]; (*bin)++) *rank -= s->bins[*bin];
    return CB_OK;
}

/* The element that is `rank`-th of the equal ones: later elements come first, so it is the (n - rank)-th in the tensor. */
static enum cb_status find_index(struct merge_job *job, struct selection *s, int64_t rank, int64_t n, int64_t *index, struct cb_err *err) {
    double none;
    *index = INT64_MAX;
    if (rank == 0) return CB_OK;  // all of them are kept
    // tiles are never smaller than a row, so there are at most n of them
    TRY(merge_pass(job, equal_tile, s, 0, &none, err));
    s->wanted = n - rank;
    for (s->found_tile = 0; s->wanted > s->equals[s->found_tile]; s->found_tile++) s->wanted -= s->equals[s->found_tile];
    TRY(merge_pass(job, find_tile, s, 0, &none, err));
    *index = s->found_index;
    return CB_OK;
}

enum cb_status merge_select(struct merge_job *job, merge_key_fn *fn, void *context, int64_t rank, struct merge_cut *cut,
                            struct cb_err *err) {
    struct selection s = {.fn = fn, .context = context};
    uint32_t low;
    *cut = (struct merge_cut){UINT32_MAX, -1};
    if (rank >= job->n) return CB_OK;
    const struct arena_mark mark = arena_mark(job->arena);
    if (!job->n_spare) job->n_spare = 1;
    s.bins = arena_array(job->arena, BINS, sizeof *s.bins);
    s.equals = arena_array(job->arena, (size_t)job->n / 1024 + (size_t)job->rows + 2, sizeof *s.equals);
    if (!s.bins || !s.equals) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    TRY(narrow(job, &s, &rank, &s.high, err));
    s.low = true;
    TRY(narrow(job, &s, &rank, &low, err));
    cut->bits = s.bits = s.high << 16 | low;
    TRY(find_index(job, &s, rank, s.bins[low], &cut->index, err));
    arena_release(job->arena, mark);
    return CB_OK;
}
