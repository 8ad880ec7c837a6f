/* LSTM: the input's part of all steps is one matrix product, the state's part one a step; the gradient likewise, weights last. */
#ifndef BACKEND_CPU_RECURRENT_BODY_H
#define BACKEND_CPU_RECURRENT_BODY_H
#include "backend/cpu/gemm.h"
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

/* x (B,T,I), w_ih (4H,I), w_hh (4H,H); y and cells (B,T,H), gates (B,T,4H) in the order i f g o. */
struct lstm {
    const float *w_ih, *w_hh, *b_ih, *b_hh, *h0, *c0, *x;
    const float *dy, *dgates_of, *cells_of; /* gradient: dy, and the forward pass's gates and cells */
    float *y, *gates, *cells;
    float *dgates, *dh, *dc; /* gradient: (B,T,4H), (B,H), (B,H) */
    int64_t b, t, i, h, step; /* step: number of the step at work */
    bool reverse;
};

static struct lstm lstm_open(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type;
    return (struct lstm){.x = run->in[0],
                         .w_ih = run->in[1],
                         .w_hh = run->in[2],
                         .b_ih = run->in[3],
                         .b_hh = run->in[4],
                         .h0 = run->in[5],
                         .c0 = run->in[6],
                         .b = x->dim[0],
                         .t = x->dim[1],
                         .i = x->dim[2],
                         .h = run->node->in[2]->type.dim[1],
                         .reverse = ((const struct attr_lstm *)run->node->attrs)->reverse};
}
/* Place in time of step n. */
static int64_t lstm_time(const struct lstm *p, int64_t n) { return p->reverse ? p->t - 1 - n : n; }

/* C (m,n) = A B with rows of A and C as far apart as said; trans_b: B is stored (n,k). */
static struct gemm lstm_product(int64_t m, int64_t n, int64_t k, int64_t a_row, int64_t c_row, bool trans_b, bool accumulate) {
    return (struct gemm){.m = m,
                         .n = n,
                         .k = k,
                         .a_row = a_row,
                         .a_col = 1,
                         .b_row = trans_b ? 1 : n,
                         .b_col = trans_b ? k : 1,
                         .b_dtype = CB_DTYPE_F32,
                         .c_row = c_row,
                         .accumulate = accumulate,
                         .isa = gemm_isa_for(SIMD_CPU)};
}
/* C (m,n) = A' B, A stored (k,m): sums over all rows, for the weights. */
static struct gemm lstm_weight_product(int64_t m, int64_t n, int64_t k) {
    return (struct gemm){.m = m,
                         .n = n,
                         .k = k,
                         .a_row = 1,
                         .a_col = m,
                         .b_row = n,
                         .b_col = 1,
                         .b_dtype = CB_DTYPE_F32,
                         .c_row = n,
                         .isa = gemm_isa_for(SIMD_CPU)};
}
static void lstm_multiply(struct gemm t, const float *a, const float *b, float *c, const float *bias, void *work, struct pool *pool) {
    t.a = a, t.b = b, t.c = c, t.bias = bias;
    gemm_run(&t, work, pool);
}
static size_t lstm_most(size_t a, size_t b) { return a > b ? a : b; }
static size_t lstm_forward_bytes(const struct lstm *p, int n_threads) {
    struct gemm all = lstm_product(p->b * p->t, 4 * p->h, p->i, p->i, 4 * p->h, true, false);
    struct gemm step = lstm_product(p->b, 4 * p->h, p->h, p->t * p->h, p->t * 4 * p->h, true, true);
    struct gemm first = lstm_product(p->b, 4 * p->h, p->h, p->h, p->t * 4 * p->h, true, true);
    return lstm_most(gemm_workspace(&all, n_threads), lstm_most(gemm_workspace(&step, n_threads), gemm_workspace(&first, n_threads)));
}

/* Gates, cell and output of one row at the current step. */
static void lstm_row(void *context, int64_t row, int thread) {
    const struct lstm *p = context;
    int64_t h = p->h, at = row * p->t + lstm_time(p, p->step), before = row * p->t + lstm_time(p, p->step - 1);
    float *g = p->gates + at * 4 * h, *c = p->cells + at * h, *y = p->y + at * h;
    const float *old = p->step ? p->cells + before * h : p->c0 ? p->c0 + row * h : NULL;
    (void)thread;
    ROW_EACH(k, lanes, h, {
        vf a[4];
        for (int q = 0; q < 4; q++) {
            a[q] = vf_at(g + q * h + k, lanes);
            // without a state before the first step, its bias alone
            if (p->b_hh) a[q] += vf_at(p->b_hh + q * h + k, lanes);
            a[q] = q == 2 ? vf_tanh(a[q]) : vf_sigmoid(a[q]);
            vf_put(g + q * h + k, a[q], lanes);
        }
        vf cell = a[0] * a[2];
        if (old) cell = vf_fma(a[1], vf_at(old + k, lanes), cell);
        vf_put(c + k, cell, lanes);
        vf_put(y + k, a[3] * vf_tanh(cell), lanes);
    });
}

static void lstm_run(const struct op_run *run) {
    struct lstm p = lstm_open(run);
    int64_t h = p.h;
    p.y = run->out[0], p.gates = run->out[3], p.cells = run->out[4];
    lstm_multiply(lstm_product(p.b * p.t, 4 * h, p.i, p.i, 4 * h, true, false), p.x, p.w_ih, p.gates, p.b_ih, run->work, run->pool);
    for (p.step = 0; p.step < p.t; p.step++) {
        float *gates = p.gates + lstm_time(&p, p.step) * 4 * h;
        const float *old = p.step ? p.y + lstm_time(&p, p.step - 1) * h : p.h0;
        struct gemm t = lstm_product(p.b, 4 * h, h, p.step ? p.t * h : h, p.t * 4 * h, true, true);
        if (old) lstm_multiply(t, old, p.w_hh, gates, NULL, run->work, run->pool);
        tile_run(run->pool, p.b * h * 16, p.b, lstm_row, &p);
    }
    // the last step's states
    for (int64_t b = 0; b < p.b; b++) {
        int64_t at = (b * p.t + lstm_time(&p, p.t - 1)) * h;
        memcpy((float *)run->out[1] + b * h, p.y + at, (size_t)h * sizeof(float));
        memcpy((float *)run->out[2] + b * h, p.cells + at, (size_t)h * sizeof(float));
    }
}
static size_t lstm_workspace(const struct node *node, int n_threads) {
    struct op_run run = {.node = node, .in = (const void *[16]){NULL}};
    struct lstm p = lstm_open(&run);
    return lstm_forward_bytes(&p, n_threads);
}

/* ---- gradient: with dh and dc from the step after, through o = sigmoid, c = f c + i g, y = o tanh(c) */
static void lstm_grad_row(void *context, int64_t row, int thread) {
    const struct lstm *p = context;
    int64_t h = p->h, at = row * p->t + lstm_time(p, p->step), before = row * p->t + lstm_time(p, p->step - 1);
    const float *g = p->dgates_of + at * 4 * h, *c = p->cells_of + at * h, *dy = p->dy ? p->dy + at * h : NULL;
    const float *old = p->step ? p->cells_of + before * h : p->c0 ? p->c0 + row * h : NULL;
    float *dg = p->dgates + at * 4 * h, *dh_at = p->dh + row * h, *dc_at = p->dc + row * h;
    vf one = vf_set(1.0f);
    (void)thread;
    ROW_EACH(k, lanes, h, {
        vf i = vf_at(g + k, lanes), f = vf_at(g + h + k, lanes), n = vf_at(g + 2 * h + k, lanes), o = vf_at(g + 3 * h + k, lanes);
        vf t = vf_tanh(vf_at(c + k, lanes)), dh = vf_at(dh_at + k, lanes);
        if (dy) dh += vf_at(dy + k, lanes);
        vf dc = vf_fma(dh * o, one - t * t, vf_at(dc_at + k, lanes));
        vf last = old ? vf_at(old + k, lanes) : vf_zero();
        vf_put(dg + k, dc * n * i * (one - i), lanes);
        vf_put(dg + h + k, dc * last * f * (one - f), lanes);
        vf_put(dg + 2 * h + k, dc * i * (one - n * n), lanes);
        vf_put(dg + 3 * h + k, dh * t * o * (one - o), lanes);
        vf_put(dc_at + k, dc * f, lanes);
    });
}

/* Areas of the gradient's workspace. */
struct lstm_areas {
    int64_t dgates, before, gemm; /* floats: offsets of before and gemm are sums of those in front */
};
static struct lstm_areas lstm_areas(const struct lstm *p, int n_threads) {
    struct gemm step = lstm_product(p->b, p->h, 4 * p->h, p->t * 4 * p->h, p->h, false, false);
    struct gemm dx = lstm_product(p->b * p->t, p->i, 4 * p->h, 4 * p->h, p->i, false, false);
    struct gemm dw = lstm_weight_product(4 * p->h, p->i, p->b * p->t), dr = lstm_weight_product(4 * p->h, p->h, p->b * p->t);
    size_t most = lstm_most(lstm_most(gemm_workspace(&step, n_threads), gemm_workspace(&dx, n_threads)),
                            lstm_most(gemm_workspace(&dw, n_threads), gemm_workspace(&dr, n_threads)));
    return (struct lstm_areas){(p->b * p->t * 4 * p->h + 15) / 16 * 16, (p->b * p->t * p->h + 15) / 16 * 16, (int64_t)(most / 4 + 16)};
}
static size_t lstm_grad_workspace(const struct node *node, int n_threads) {
    struct op_run run = {.node = node, .in = (const void *[16]){NULL}};
    struct lstm p = lstm_open(&run);
    struct lstm_areas a = lstm_areas(&p, n_threads);
    return (size_t)(a.dgates + a.before + a.gemm) * sizeof(float);
}

/* The states before every step (B,T,H). */
static void lstm_states_before(const struct lstm *p, const float *y, float *out) {
    for (int64_t b = 0; b < p->b; b++)
        for (int64_t n = 0; n < p->t; n++) {
            float *to = out + (b * p->t + lstm_time(p, n)) * p->h;
            const float *from = n ? y + (b * p->t + lstm_time(p, n - 1)) * p->h : p->h0 ? p->h0 + b * p->h : NULL;
            if (from)
                memcpy(to, from, (size_t)p->h * sizeof *to);
            else
                memset(to, 0, (size_t)p->h * sizeof *to);
        }
}

static void lstm_grad_run(const struct op_run *run) {
    struct lstm p = lstm_open(run);
    struct lstm_areas areas = lstm_areas(&p, 1);
    int64_t h = p.h, rows = p.b * p.t;
    size_t state = (size_t)(p.b * h) * sizeof(float);
    float *before = (float *)run->work + areas.dgates, *work = before + areas.before, *db = run->out[3];
    p.dgates_of = run->in[8], p.cells_of = run->in[9], p.dy = run->in[10];
    p.dgates = run->work, p.dh = run->out[5], p.dc = run->out[6];
    if (run->in[11])
        memcpy(p.dh, run->in[11], state);
    else
        memset(p.dh, 0, state);
    if (run->in[12])
        memcpy(p.dc, run->in[12], state);
    else
        memset(p.dc, 0, state);
    // back in time; what is left in dh and dc belongs to the initial states
    for (p.step = p.t - 1; p.step >= 0; p.step--) {
        tile_run(run->pool, p.b * h * 16, p.b, lstm_grad_row, &p);
        lstm_multiply(lstm_product(p.b, h, 4 * h, p.t * 4 * h, h, false, false), p.dgates + lstm_time(&p, p.step) * 4 * h, p.w_hh, p.dh,
                      NULL, work, run->pool);
    }
    lstm_states_before(&p, run->in[7], before);
    lstm_multiply(lstm_product(rows, p.i, 4 * h, 4 * h, p.i, false, false), p.dgates, p.w_ih, run->out[0], NULL, work, run->pool);
    lstm_multiply(lstm_weight_product(4 * h, p.i, rows), p.dgates, p.x, run->out[1], NULL, work, run->pool);
    lstm_multiply(lstm_weight_product(4 * h, h, rows), p.dgates, before, run->out[2], NULL, work, run->pool);
    memset(db, 0, (size_t)(4 * h) * sizeof *db);
    for (int64_t r = 0; r < rows; r++)
        ROW_EACH(k, lanes, 4 * h, vf_put(db + k, vf_at(db + k, lanes) + vf_at(p.dgates + r * 4 * h + k, lanes), lanes));
    memcpy(run->out[4], db, (size_t)(4 * h) * sizeof *db);
}
#endif
