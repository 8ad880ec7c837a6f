/* Batch norm, its gradient, and sums of channels: every channel of x (B,C,...) is one tile, its values lie in B runs of `inner`. */
#ifndef BACKEND_CPU_CHANNEL_BODY_H
#define BACKEND_CPU_CHANNEL_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

struct channel {
    const float *x, *weight, *bias, *dy, *mean, *var;
    float *y, *new_mean, *new_var, *dw, *db;
    int64_t b, c, inner;
    double eps, momentum;
    bool training;
};

static struct channel channel_open(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type;
    struct channel p = {.x = run->in[0], .y = run->out[0], .b = x->dim[0], .c = x->dim[1], .inner = 1};
    for (int i = 2; i < x->rank; i++) p.inner *= x->dim[i];
    return p;
}

static void channel_run(const struct op_run *run, struct channel *p, void (*tile)(void *context, int64_t i, int thread)) {
    tile_run(run->pool, p->b * p->c * p->inner, p->c, tile, p);
}

/* Start of row b of channel k. */
SIMD_INLINE int64_t channel_at(const struct channel *p, int64_t b, int64_t k) { return (b * p->c + k) * p->inner; }

SIMD_INLINE double channel_sum(const struct channel *p, const float *x, int64_t k) {
    double sum = 0;
    for (int64_t b = 0; b < p->b; b++) sum += (double)row_sum(x + channel_at(p, b, k), p->inner);
    return sum;
}

/* Mean and variance of a channel, the latter from differences to the mean. */
SIMD_INLINE void channel_stats(const struct channel *p, int64_t k, double *mean, double *var) {
    double n = (double)(p->b * p->inner);
    *mean = channel_sum(p, p->x, k) / n;
    vf m = vf_set((float)*mean);
    double sum = 0;
    for (int64_t b = 0; b < p->b; b++) {
        const float *x = p->x + channel_at(p, b, k);
        vf square = vf_zero();
        int64_t i = 0;
        for (; i + SIMD_LANES <= p->inner; i += SIMD_LANES) {
            vf d = vf_load(x + i) - m;
            square = vf_fma(d, d, square);
        }
        float rest = 0;
        for (; i < p->inner; i++) rest += (x[i] - m[0]) * (x[i] - m[0]);
        sum += (double)(vf_sum(square) + rest);
    }
    *var = sum / n;
}

static void batch_norm_tile(void *context, int64_t k, int thread) {
    const struct channel *p = context;
    double mean, var, n = (double)(p->b * p->inner);
    (void)thread;
    if (p->training) {
        channel_stats(p, k, &mean, &var);
        p->new_mean[k] = (float)(p->momentum * mean + (1 - p->momentum) * (double)p->mean[k]);
        p->new_var[k] = (float)(p->momentum * var * n / (n - 1) + (1 - p->momentum) * (double)p->var[k]);
    } else {
        mean = (double)p->mean[k];
        var = (double)p->var[k];
    }
    double scale = (p->weight ? (double)p->weight[k] : 1) / sqrt(var + p->eps);
    vf m = vf_set((float)mean), s = vf_set((float)scale), shift = vf_set(p->bias ? p->bias[k] : 0);
    for (int64_t b = 0; b < p->b; b++) {
        const float *x = p->x + channel_at(p, b, k);
        float *y = p->y + channel_at(p, b, k);
        ROW_EACH(i, lanes, p->inner, vf_put(y + i, vf_fma(vf_at(x + i, lanes) - m, s, shift), lanes));
    }
}

static void batch_norm_run(const struct op_run *run) {
    const struct attr_batch_norm *a = run->node->attrs;
    struct channel p = channel_open(run);
    p.weight = run->in[1], p.bias = run->in[2], p.mean = run->in[3], p.var = run->in[4];
    p.eps = a->eps, p.momentum = a->momentum, p.training = a->training;
    if (p.training) p.new_mean = run->out[1], p.new_var = run->out[2];
    channel_run(run, &p, batch_norm_tile);
}

/* dx = w s (dy - mean(dy) - h mean(dy h)), h = (x - mean) s. */
static void batch_norm_grad_tile(void *context, int64_t k, int thread) {
    const struct channel *p = context;
    double mean, var, n = (double)(p->b * p->inner), sum = 0, sum_h = 0;
    (void)thread;
    channel_stats(p, k, &mean, &var);
    double scale = 1 / sqrt(var + p->eps);
    vf m = vf_set((float)mean), s = vf_set((float)scale);
    for (int64_t b = 0; b < p->b; b++) {
        const float *x = p->x + channel_at(p, b, k), *dy = p->dy + channel_at(p, b, k);
        vf part = vf_zero(), part_h = vf_zero();
        ROW_EACH(i, lanes, p->inner, {
            vf g = vf_at(dy + i, lanes);
            part += g;
            part_h = vf_fma(g, (vf_at(x + i, lanes) - m) * s, part_h);
        });
        sum += (double)vf_sum(part), sum_h += (double)vf_sum(part_h);
    }
    p->dw[k] = (float)sum_h, p->db[k] = (float)sum;
    vf ws = vf_set((float)(scale * (p->weight ? (double)p->weight[k] : 1))), mg = vf_set((float)(sum / n)),
       mgh = vf_set((float)(sum_h / n));
    for (int64_t b = 0; b < p->b; b++) {
        const float *x = p->x + channel_at(p, b, k), *dy = p->dy + channel_at(p, b, k);
        float *dx = p->y + channel_at(p, b, k);
        ROW_EACH(i, lanes, p->inner, {
            vf h = (vf_at(x + i, lanes) - m) * s;
            vf_put(dx + i, ws * (vf_at(dy + i, lanes) - mg - h * mgh), lanes);
        });
    }
}

static void batch_norm_grad_run(const struct op_run *run) {
    struct channel p = channel_open(run);
    p.weight = run->in[1], p.dy = run->in[2], p.dw = run->out[1], p.db = run->out[2];
    p.eps = ((const struct attr_batch_norm_grad *)run->node->attrs)->eps;
    channel_run(run, &p, batch_norm_grad_tile);
}

/* ---- sum over every axis but the channels': the gradient of a convolution's bias */
static bool channel_sum_accepts(const struct node *node) {
    const struct attr_reduce *a = node->attrs;
    const struct cb_type *x = &node->in[0]->type;
    if (!node_is_f32(node) || x->rank < 3 || a->axes.n != x->rank - 1 || a->axes.v[0] != 0) return false;
    for (int i = 1; i < a->axes.n; i++)
        if (a->axes.v[i] != i + 1) return false;
    return true;
}

static void channel_sum_tile(void *context, int64_t k, int thread) {
    const struct channel *p = context;
    (void)thread;
    p->y[k] = (float)channel_sum(p, p->x, k);
}

static void channel_sum_run(const struct op_run *run) {
    struct channel p = channel_open(run);
    channel_run(run, &p, channel_sum_tile);
}
#endif
