/* Dropout on all threads: the same draws as its op's reference, one Philox block for four elements. */
#include "backend/cpu/tile.h"
#include "base/rng.h"
#include "gen/attrs.h"

enum { TILE = 4096 };

struct dropout {
    const float *x;
    float *y;
    int64_t n;
    uint64_t seed, key;
    uint32_t least;  // words below it, after the shift that makes a uniform number, are dropped
    float scale;
};

static void dropout_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct dropout *d = context;
    int64_t begin = i * TILE, end = tile_min(begin + TILE, d->n);
    for (int64_t k = begin; k < end; k += 4) {
        struct rng_block r = rng_philox(d->seed, (uint64_t)k / 4, d->key);
        for (int64_t j = k; j < tile_min(k + 4, end); j++) d->y[j] = (r.word[j - k] >> 8) >= d->least ? d->x[j] * d->scale : 0;
    }
}

static bool dropout_accepts(const struct node *node) {
    return node->in[0]->type.dtype == CB_DTYPE_F32 && node->in[1]->type.dtype == CB_DTYPE_I64 &&
           ((const struct attr_dropout *)node->attrs)->rate < 1;
}

static void dropout_run(const struct op_run *run) {
    const struct attr_dropout *a = run->node->attrs;
    double least = a->rate * 0x1p24;  // u >= rate, for u = (word >> 8) / 2^24
    struct dropout d = {.x = run->in[0],
                        .y = run->out[0],
                        .n = type_elements(&run->node->in[0]->type),
                        .key = (uint64_t)a->key,
                        .seed = (uint64_t) * (const int64_t *)run->in[1],
                        .least = (uint32_t)least + (least > (double)(uint32_t)least),
                        .scale = (float)(1 / (1 - a->rate))};
    tile_run(run->pool, d.n * 4, tile_count(d.n, TILE), dropout_tile, &d);
}

const struct kernel kernel_file_random[] = {{"dropout", "philox", 0, 10, dropout_accepts, NULL, dropout_run}, {0}};
