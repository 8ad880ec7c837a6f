/* Rows of softmax, log-softmax and cross-entropy with their gradients: the last axis only, one row at a time. */
#ifndef BACKEND_CPU_SOFTMAX_BODY_H
#define BACKEND_CPU_SOFTMAX_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

struct softmax {
    const float *x, *dy;
    float *y;
    int64_t rows, n, tile_rows;
    void (*row)(const float *x, const float *dy, float *y, int64_t n);
};

static void softmax_row(const float *x, const float *dy, float *y, int64_t n) {
    (void)dy;
    row_scale(y, 1 / row_exp_into(x, row_max(x, n), y, n), n);
}
static void log_softmax_row(const float *x, const float *dy, float *y, int64_t n) {
    (void)dy;
    float peak = row_max(x, n);
    vf less = vf_set(logf(row_exp_sum(x, peak, n))), from = vf_set(peak);
    ROW_EACH(i, lanes, n, vf_put(y + i, vf_at(x + i, lanes) - from - less, lanes));
}
static void softmax_grad_row(const float *x, const float *dy, float *y, int64_t n) {
    vf sum = vf_set(row_dot(x, dy, n));
    ROW_EACH(i, lanes, n, vf_put(y + i, vf_at(x + i, lanes) * (vf_at(dy + i, lanes) - sum), lanes));
}
static void log_softmax_grad_row(const float *x, const float *dy, float *y, int64_t n) {
    vf sum = vf_set(row_sum(dy, n));
    ROW_EACH(i, lanes, n, vf_put(y + i, vf_at(dy + i, lanes) - vf_exp(vf_at(x + i, lanes)) * sum, lanes));
}

static void softmax_tile(void *context, int64_t index, int thread) {
    const struct softmax *p = context;
    int64_t end = tile_min(p->rows, (index + 1) * p->tile_rows);
    (void)thread;
    for (int64_t r = index * p->tile_rows; r < end; r++) p->row(p->x + r * p->n, p->dy ? p->dy + r * p->n : NULL, p->y + r * p->n, p->n);
}
static void softmax_each(const struct op_run *run, void (*row)(const float *x, const float *dy, float *y, int64_t n)) {
    const struct cb_type *x = &run->node->in[0]->type;
    struct softmax p = {.x = run->in[0], .y = run->out[0], .row = row, .n = x->dim[x->rank - 1]};
    if (run->node->n_in > 1) p.dy = run->in[1];
    p.rows = p.n ? type_elements(x) / p.n : 0;
    p.tile_rows = tile_max(1, 4096 / tile_max(p.n, 1));
    tile_run(run->pool, 4 * p.rows * p.n, tile_count(p.rows, p.tile_rows), softmax_tile, &p);
}
static void softmax_run(const struct op_run *run) { softmax_each(run, softmax_row); }
static void log_softmax_run(const struct op_run *run) { softmax_each(run, log_softmax_row); }
static void softmax_grad_run(const struct op_run *run) { softmax_each(run, softmax_grad_row); }
static void log_softmax_grad_run(const struct op_run *run) { softmax_each(run, log_softmax_grad_row); }

static bool softmax_accepts(const struct node *node) {
    return node_is_f32(node) && ((const struct attr_softmax *)node->attrs)->axis == node->in[0]->type.rank - 1;
}
#endif
