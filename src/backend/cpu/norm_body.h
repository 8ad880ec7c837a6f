/* Layer norm, RMS norm and their gradients by rows; sums over rows go through blocks of rows of a fixed size. */
#ifndef BACKEND_CPU_NORM_BODY_H
#define BACKEND_CPU_NORM_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

#define NORM_BLOCKS 64 /* at most this many blocks of rows have sums of their own */

struct norm {
    const float *x, *weight, *bias, *dy, *acc;
    float *y, *dw, *db;
    float *sums; /* (blocks, 2, n): partial dw and db */
    int64_t rows, n, tile_rows, blocks;
    float eps, offset;
    bool centred;
};

static struct norm norm_open(const struct op_run *run, double eps, double offset, bool centred) {
    const struct cb_type *x = &run->node->in[0]->type;
    struct norm p = {
        .x = run->in[0], .weight = run->in[1], .y = run->out[0], .eps = (float)eps, .offset = (float)offset, .centred = centred};
    p.n = x->dim[x->rank - 1];
    p.rows = p.n ? type_elements(x) / p.n : 0;
    p.tile_rows = tile_max(1, 4096 / tile_max(p.n, 1));
    return p;
}

/* Mean (0 where not centred) and 1 / sqrt(variance + eps) of a row. */
SIMD_INLINE void norm_stats(const struct norm *p, const float *x, float *mean, float *scale) {
    vf square[2] = {{0}};
    *mean = p->centred ? row_sum(x, p->n) / (float)p->n : 0;
    vf m = vf_set(*mean);
    int64_t i = 0;
    for (; i + 2 * SIMD_LANES <= p->n; i += 2 * SIMD_LANES) {
        vf a = vf_load(x + i) - m, b = vf_load(x + i + SIMD_LANES) - m;
        square[0] = vf_fma(a, a, square[0]), square[1] = vf_fma(b, b, square[1]);
    }
    float rest = 0;
    for (; i < p->n; i++) rest += (x[i] - *mean) * (x[i] - *mean);
    *scale = 1 / sqrtf((vf_sum(square[0] + square[1]) + rest) / (float)p->n + p->eps);
}

static void norm_tile(void *context, int64_t index, int thread) {
    const struct norm *p = context;
    int64_t end = tile_min(p->rows, (index + 1) * p->tile_rows);
    (void)thread;
    for (int64_t r = index * p->tile_rows; r < end; r++) {
        const float *x = p->x + r * p->n;
        float *y = p->y + r * p->n, mean, scale;
        norm_stats(p, x, &mean, &scale);
        vf m = vf_set(mean), s = vf_set(scale), offset = vf_set(p->offset);
        ROW_EACH(i, lanes, p->n, {
            vf v = (vf_at(x + i, lanes) - m) * s;
            if (p->weight) v *= vf_at(p->weight + i, lanes) + offset;
            if (p->bias) v += vf_at(p->bias + i, lanes);
            vf_put(y + i, v, lanes);
        });
    }
}

static void layer_norm_run(const struct op_run *run) {
    struct norm p = norm_open(run, ((const struct attr_layer_norm *)run->node->attrs)->eps, 0, true);
    p.bias = run->in[2];
    tile_run(run->pool, p.rows * p.n, tile_count(p.rows, p.tile_rows), norm_tile, &p);
}
static void rms_norm_run(const struct op_run *run) {
    const struct attr_rms_norm *a = run->node->attrs;
    struct norm p = norm_open(run, a->eps, a->offset, false);
    tile_run(run->pool, p.rows * p.n, tile_count(p.rows, p.tile_rows), norm_tile, &p);
}

/* ---- gradients: with h = (x - mean) s and e = (w + offset) dy, dx = acc + s (e - mean(e) - h mean(e h)); dw = sum dy h, db = sum dy */
SIMD_INLINE void norm_grad_row(const struct norm *p, const float *x, const float *dy, const float *acc, float *dx, float *dw, float *db) {
    float mean, scale;
    norm_stats(p, x, &mean, &scale);
    vf m = vf_set(mean), s = vf_set(scale), offset = vf_set(p->offset), sum_e = vf_zero(), sum_eh = vf_zero();
    ROW_EACH(i, lanes, p->n, {
        vf g = vf_at(dy + i, lanes), h = (vf_at(x + i, lanes) - m) * s;
        vf e = p->weight ? g * (vf_at(p->weight + i, lanes) + offset) : g;
        sum_e += e;
        sum_eh = vf_fma(e, h, sum_eh);
        if (dw) vf_put(dw + i, vf_fma(g, h, vf_at(dw + i, lanes)), lanes);
        if (db) vf_put(db + i, g + vf_at(db + i, lanes), lanes);
    });
    vf me = vf_set(p->centred ? vf_sum(sum_e) / (float)p->n : 0), meh = vf_set(vf_sum(sum_eh) / (float)p->n);
    ROW_EACH(i, lanes, p->n, {
        vf g = vf_at(dy + i, lanes), h = (vf_at(x + i, lanes) - m) * s;
        vf e = p->weight ? g * (vf_at(p->weight + i, lanes) + offset) : g;
        vf d = s * (e - me - h * meh);
        vf_put(dx + i, acc ? vf_at(acc + i, lanes) + d : d, lanes);
    });
}

static void norm_grad_tile(void *context, int64_t index, int thread) {
    const struct norm *p = context;
    int64_t end = tile_min(p->rows, (index + 1) * p->tile_rows);
    float *dw = p->dw ? p->sums + index * 2 * p->n : NULL, *db = p->db ? dw + p->n : NULL;
    (void)thread;
    if (dw) memset(dw, 0, (size_t)(2 * p->n) * sizeof *dw);
    for (int64_t r = index * p->tile_rows; r < end; r++) {
        const int64_t at = r * p->n;
        norm_grad_row(p, p->x + at, p->dy + at, p->acc ? p->acc + at : NULL, p->y + at, dw, db);
    }
}

/* Sums of the blocks, in their order. */
static void norm_params_tile(void *context, int64_t index, int thread) {
    const struct norm *p = context;
    int64_t at = index * 256, n = tile_min(256, p->n - at);
    (void)thread;
    for (int k = 0; k < 2; k++) {
        float *out = k == 0 ? p->dw : p->db;
        if (!out) continue;
        const float *from = p->sums + k * p->n + at;
        ROW_EACH(i, lanes, n, {
            vf sum = vf_zero();
            for (int64_t b = 0; b < p->blocks; b++) sum += vf_at(from + b * 2 * p->n + i, lanes);
            vf_put(out + at + i, sum, lanes);
        });
    }
}

/* Rows of a block: depends on the shape alone. */
static int64_t norm_block_rows(int64_t rows) { return tile_max(16, tile_count(rows, NORM_BLOCKS)); }

static size_t norm_grad_workspace(const struct node *node, int n_threads) {
    const struct cb_type *x = &node->in[0]->type;
    int64_t n = x->dim[x->rank - 1], rows = n ? type_elements(x) / n : 0;
    (void)n_threads;
    return node->n_out > 1 ? (size_t)(tile_count(rows, norm_block_rows(rows)) * 2 * n) * sizeof(float) : 0;
}

static void norm_grad_run(const struct op_run *run, double eps, double offset, bool centred) {
    struct norm p = norm_open(run, eps, offset, centred);
    p.dy = run->in[2], p.acc = run->in[3], p.sums = run->work;
    p.dw = run->node->n_out > 1 ? run->out[1] : NULL, p.db = run->node->n_out > 2 ? run->out[2] : NULL;
    p.tile_rows = norm_block_rows(p.rows), p.blocks = tile_count(p.rows, p.tile_rows);
    tile_run(run->pool, 2 * p.rows * p.n, p.blocks, norm_grad_tile, &p);
    if (p.dw) tile_run(run->pool, p.blocks * p.n, tile_count(p.n, 256), norm_params_tile, &p);
}
static void layer_norm_grad_run(const struct op_run *run) {
    norm_grad_run(run, ((const struct attr_layer_norm_grad *)run->node->attrs)->eps, 0, true);
}
static void rms_norm_grad_run(const struct op_run *run) {
    const struct attr_rms_norm_grad *a = run->node->attrs;
    norm_grad_run(run, a->eps, a->offset, false);
}

#endif
