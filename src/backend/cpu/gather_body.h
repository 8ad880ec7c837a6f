/* Rows that move: embedding and its gradient, rotary positions, the cache of keys and values, permute and expand. */
#ifndef BACKEND_CPU_GATHER_BODY_H
#define BACKEND_CPU_GATHER_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

/* ---- embedding */
struct embedding {
    const void *table;
    const struct dtype *kind;
    const int32_t *ids;
    const float *dy;
    float *y;
    int64_t v, c, n, tile_rows;
    int32_t padding;
    bool has_padding;
};

static void embedding_tile(void *context, int64_t index, int thread) {
    const struct embedding *p = context;
    int64_t end = tile_min(p->n, (index + 1) * p->tile_rows);
    size_t row = (size_t)(p->c / p->kind->block * p->kind->block_bytes);
    (void)thread;
    for (int64_t i = index * p->tile_rows; i < end; i++) {
        float *y = p->y + i * p->c;
        if (p->ids[i] < 0 || p->ids[i] >= p->v) {
            for (int64_t k = 0; k < p->c; k++) y[k] = NAN;
            continue;
        }
        p->kind->to_f32(y, (const char *)p->table + (size_t)p->ids[i] * row, p->c);
    }
}
static void embedding_run(const struct op_run *run) {
    const struct cb_type *table = &run->node->in[0]->type;
    struct embedding p = {.table = run->in[0],
                          .kind = dtype_of(table->dtype),
                          .ids = run->in[1],
                          .y = run->out[0],
                          .v = table->dim[0],
                          .c = table->dim[1],
                          .n = type_elements(&run->node->in[1]->type)};
    p.tile_rows = tile_max(1, 4096 / tile_max(1, p.c));
    tile_run(run->pool, p.n * p.c, tile_count(p.n, p.tile_rows), embedding_tile, &p);
}
static bool embedding_accepts(const struct node *node) { return node->out[0]->type.dtype == CB_DTYPE_F32; }

#define EMBEDDING_COLUMNS 64

/* Some columns of the whole table: rows are added in the order of the ids. */
static void embedding_grad_tile(void *context, int64_t index, int thread) {
    const struct embedding *p = context;
    int64_t at = index * EMBEDDING_COLUMNS, n = tile_min(EMBEDDING_COLUMNS, p->c - at);
    (void)thread;
    for (int64_t i = 0; i < p->n; i++) {
        int32_t id = p->ids[i];
        if (id < 0 || id >= p->v || (p->has_padding && id == p->padding)) continue;
        float *to = p->y + id * p->c + at;
        const float *from = p->dy + i * p->c + at;
        ROW_EACH(k, lanes, n, vf_put(to + k, vf_at(to + k, lanes) + vf_at(from + k, lanes), lanes));
    }
}
static void embedding_grad_run(const struct op_run *run) {
    const struct attr_embedding_grad *a = run->node->attrs;
    const struct cb_type *table = &run->node->out[0]->type;
    const void *acc = run->node->n_in > 2 ? run->in[2] : NULL;
    struct embedding p = {.ids = run->in[0],
                          .dy = run->in[1],
                          .y = run->out[0],
                          .v = table->dim[0],
                          .c = table->dim[1],
                          .n = type_elements(&run->node->in[0]->type),
                          .has_padding = a->has_padding,
                          .padding = (int32_t)a->padding_idx};
    if (!acc)
        memset(run->out[0], 0, (size_t)type_bytes(table));
    else if (acc != run->out[0])
        memcpy(run->out[0], acc, (size_t)type_bytes(table));
    tile_run(run->pool, p.n * p.c, tile_count(p.c, EMBEDDING_COLUMNS), embedding_grad_tile, &p);
}

/* ---- rope */
struct rope {
    const float *x, *freq;
    const int32_t *position;
    float *y, *work;
    int64_t t, h, d, half, work_floats;
    float scale;
    bool shared, interleaved, inverse;
};

static int64_t rope_floats(const struct node *node) { return (node->in[2]->type.dim[0] * 2 + 31) / 16 * 16; }

/* Turns one head by the angles' cosines c and sines s. y may be x. */
SIMD_INLINE void rope_head(const struct rope *p, const float *x, float *y, const float *c, const float *s) {
    int64_t half = p->half;
    if (p->interleaved) {
        for (int64_t k = 0; k < half; k++) {
            float a = x[2 * k], b = x[2 * k + 1];
            y[2 * k] = a * c[k] - b * s[k];
            y[2 * k + 1] = b * c[k] + a * s[k];
        }
    } else {
        ROW_EACH(k, lanes, half, {
            vf a = vf_at(x + k, lanes), b = vf_at(x + half + k, lanes), cos_k = vf_at(c + k, lanes), sin_k = vf_at(s + k, lanes);
            vf_put(y + k, a * cos_k - b * sin_k, lanes);
            vf_put(y + half + k, b * cos_k + a * sin_k, lanes);
        });
    }
    for (int64_t k = 2 * half; k < p->d; k++) y[k] = x[k];
}
/* The whole number next to x, for |x| < 2^51. */
SIMD_INLINE double rope_whole(double x) { return x + 0x1.8p52 - 0x1.8p52; }

/* Cosines and sines of the angles position * freq, times scale: less whole quarter turns, an angle is at most pi/4, where Taylor's series have all
   digits of f32. In double, one loop that compilers make vectors of. */
static void rope_angles(const struct rope *p, double position, float *restrict c, float *restrict s) {
    const float *restrict freq = p->freq;
    const float scale = p->scale;
    const int64_t half = p->half;
    if (p->inverse) position = -position;
    for (int64_t k = 0; k < half; k++) {
        const double angle = position * (double)freq[k], n = rope_whole(angle * 0x1.45f306dc9c883p-1);
        // pi / 2 in two parts, of which the first has few digits, as in fdlibm
        const double x = angle - n * 0x1.921fb544p+0 - n * 0x1.0b4611a626331p-34, x2 = x * x;
        const double sine = x + x * x2 * (-1.0 / 6 + x2 * (1.0 / 120 + x2 * (-1.0 / 5040 + x2 * (1.0 / 362880 - x2 / 39916800))));
        const double cosine = 1 + x2 * (-1.0 / 2 + x2 * (1.0 / 24 + x2 * (-1.0 / 720 + x2 * (1.0 / 40320 - x2 / 3628800))));
        // of the four quarters: -2 to 2; 1, 0 or -1 where sine and cosine stay, and what is left where they change places
        const double quarter = n - 4 * rope_whole(n / 4), stay = 1 - fabs(quarter), change = quarter * (1 - stay * stay);
        c[k] = (float)(stay * cosine - change * sine) * scale;
        s[k] = (float)(stay * sine + change * cosine) * scale;
    }
}

/* One token: all heads turn alike. */
static void rope_tile(void *context, int64_t row, int thread) {
    const struct rope *p = context;
    float *c = p->work + thread * p->work_floats, *s = c + p->half;
    rope_angles(p, p->position[p->shared ? row % p->t : row], c, s);
    for (int64_t h = 0; h < p->h; h++) rope_head(p, p->x + (row * p->h + h) * p->d, p->y + (row * p->h + h) * p->d, c, s);
}
static bool rope_accepts(const struct node *node) {
    return node->in[0]->type.dtype == CB_DTYPE_F32 && node->in[2]->type.dtype == CB_DTYPE_F32;
}
static size_t rope_workspace(const struct node *node, int n_threads) { return (size_t)(n_threads * rope_floats(node)) * sizeof(float); }
static void rope_run(const struct op_run *run) {
    const struct attr_rope *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    struct rope p = {.x = run->in[0],
                     .position = run->in[1],
                     .freq = run->in[2],
                     .y = run->out[0],
                     .work = run->work,
                     .t = x->dim[1],
                     .h = x->dim[2],
                     .d = x->dim[3],
                     .half = run->node->in[2]->type.dim[0],
                     .work_floats = rope_floats(run->node),
                     .scale = a->scale == 0 ? 1 : (float)a->scale,
                     .shared = run->node->in[1]->type.rank == 1,
                     .interleaved = a->interleaved,
                     .inverse = a->inverse};
    int64_t rows = x->dim[0] * x->dim[1];
    tile_run(run->pool, rows * (p.h * p.d + 32 * p.half), rows, rope_tile, &p);
}

/* ---- cache_write: rows go to their own places, in the cache's number type */
static bool cache_accepts(const struct node *node) {
    return node->in[1]->type.dtype == CB_DTYPE_F32 && dtype_of(node->in[0]->type.dtype)->from_f32;
}
static void cache_run(const struct op_run *run) {
    const struct cb_type *cache = &run->node->in[0]->type;
    const struct dtype *kind = dtype_of(cache->dtype);
    const int32_t *start = run->in[2];
    int64_t t_max = cache->dim[1], t_n = run->node->in[1]->type.dim[1], inner = 1;
    for (int i = 2; i < cache->rank; i++) inner *= cache->dim[i];
    if (run->in[0] != run->out[0]) memcpy(run->out[0], run->in[0], (size_t)type_bytes(cache));
    for (int64_t b = 0; b < cache->dim[0]; b++) {
        int64_t first = tile_max(0, -(int64_t)start[b]), end = tile_min(t_n, t_max - start[b]);
        if (first >= end) continue;
        int64_t to = (b * t_max + start[b] + first) * inner;
        kind->from_f32((char *)run->out[0] + to * kind->block_bytes, (const float *)run->in[1] + (b * t_n + first) * inner,
                       (end - first) * inner);
    }
}
#endif
