/* Cross-entropy of rows of logits and its gradient. */
#ifndef BACKEND_CPU_CROSS_ENTROPY_BODY_H
#define BACKEND_CPU_CROSS_ENTROPY_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

enum { LOSS_MEAN, LOSS_SUM, LOSS_NONE }; /* the op's reductions */

struct loss {
    const float *logits, *dloss;
    const int32_t *labels;
    float *out; /* losses (N), or dlogits (N,V) */
    int64_t n, v, reduction;
    int32_t ignored;
    float scale; /* gradient: 1 / rows that count, or 1 */
};

static struct loss loss_open(const struct op_run *run, int64_t reduction, int64_t ignore_shift) {
    const struct cb_type *x = &run->node->in[0]->type;
    return (struct loss){.logits = run->in[0],
                         .labels = run->in[1],
                         .n = x->dim[0],
                         .v = x->dim[1],
                         .reduction = reduction,
                         .ignored = (int32_t)(ignore_shift - 100),
                         .scale = 1};
}
static int64_t loss_count(const struct loss *p) {
    int64_t count = 0;
    for (int64_t i = 0; i < p->n; i++) count += p->labels[i] != p->ignored;
    return count;
}

/* -log softmax(row)[label]; NaN for a label outside. */
static void loss_tile(void *context, int64_t i, int thread) {
    const struct loss *p = context;
    const float *x = p->logits + i * p->v;
    int32_t label = p->labels[i];
    (void)thread;
    p->out[i] = 0;
    if (label == p->ignored) return;
    p->out[i] = NAN;
    if (label < 0 || label >= p->v) return;
    float peak = row_max(x, p->v);
    p->out[i] = logf(row_exp_sum(x, peak, p->v)) + (peak - x[label]);
}

static void cross_entropy_run(const struct op_run *run) {
    const struct attr_cross_entropy *a = run->node->attrs;
    struct loss p = loss_open(run, a->reduction, a->ignore_shift);
    p.out = a->reduction == LOSS_NONE ? run->out[0] : run->work;
    tile_run(run->pool, 4 * p.n * p.v, p.n, loss_tile, &p);
    if (a->reduction == LOSS_NONE) return;
    double total = 0;
    for (int64_t i = 0; i < p.n; i++) total += (double)p.out[i];
    if (a->reduction == LOSS_MEAN) total /= (double)loss_count(&p);
    *(float *)run->out[0] = (float)total;
}
static size_t cross_entropy_workspace(const struct node *node, int n_threads) {
    (void)n_threads;
    return (size_t)node->in[0]->type.dim[0] * sizeof(float);
}

/* share (softmax(row) - onehot(label)); zeros where the row does not count. */
static void loss_grad_tile(void *context, int64_t i, int thread) {
    const struct loss *p = context;
    const float *x = p->logits + i * p->v;
    float *dx = p->out + i * p->v, share = p->dloss[p->reduction == LOSS_NONE ? i : 0] * p->scale;
    int32_t label = p->labels[i];
    (void)thread;
    if (label == p->ignored) {
        memset(dx, 0, (size_t)p->v * sizeof *dx);
        return;
    }
    float by = share / row_exp_into(x, row_max(x, p->v), dx, p->v);
    row_scale(dx, by, p->v);
    if (label >= 0 && label < p->v) dx[label] -= share;
}

static void cross_entropy_grad_run(const struct op_run *run) {
    const struct attr_cross_entropy_grad *a = run->node->attrs;
    struct loss p = loss_open(run, a->reduction, a->ignore_shift);
    p.dloss = run->in[2], p.out = run->out[0];
    if (a->reduction == LOSS_MEAN) p.scale = 1 / (float)loss_count(&p);
    tile_run(run->pool, 4 * p.n * p.v, p.n, loss_grad_tile, &p);
}

static bool cross_entropy_accepts(const struct node *node) { return node->in[0]->type.dtype == CB_DTYPE_F32; }
#endif
