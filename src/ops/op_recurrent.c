/* LSTM (Hochreiter and Schmidhuber, 1997; with forget gate) and GRU (Cho et al., 2014): one layer over a whole sequence, and its gradient. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/infer.h"
#include "ops/ops.h"
#include "ops/recurrent.h"

// @attrs lstm: bool reverse
// @attrs gru: bool reverse
// @attrs lstm_grad: bool reverse
// @attrs gru_grad: bool reverse

enum { X, W_IH, W_HH, B_IH, B_HH, H0, C0 };
enum { LSTM_Y, LSTM_H, LSTM_C, LSTM_GATES, LSTM_CELLS };
enum { GRU_Y, GRU_H, GRU_GATES };
/* Inputs of the gradient ops after those of the forward op. */
enum { LSTM_BACK_Y = 7, LSTM_BACK_GATES, LSTM_BACK_CELLS, LSTM_DY, LSTM_DH, LSTM_DC };
enum { GRU_BACK_Y = 6, GRU_BACK_GATES, GRU_DY, GRU_DH };

static const struct op lstm_op, gru_op, lstm_grad_op, gru_grad_op;

struct sizes {
    enum cb_dtype dtype;
    int64_t b, t, i, h, blocks;  // blocks: 4 gates or 3
    bool reverse;
};

/* reverse is the only attribute of all four. */
static struct sizes sizes_of(const struct node *node, int blocks) {
    const struct cb_type *x = &node->in[X]->type;
    return (struct sizes){
        x->dtype, x->dim[0], x->dim[1], x->dim[2], node->in[W_HH]->type.dim[1], blocks, ((const struct attr_lstm *)node->attrs)->reverse};
}

static enum cb_status infer_common(const struct node *node, int blocks, struct sizes *s, struct cb_err *err) {
    TRY(check_float(node, X, err));
    TRY(check_rank(node, X, 3, err));
    TRY(check_rank(node, W_HH, 2, err));
    *s = sizes_of(node, blocks);
    if (s->t < 1) FAIL(err, CB_E_SHAPE, "%s: a sequence of length 0; wanted 1 or more", node->op->name);
    TRY(check_type(node, W_IH, TYPE(s->dtype, blocks * s->h, s->i), err));
    TRY(check_type(node, W_HH, TYPE(s->dtype, blocks * s->h, s->h), err));
    TRY(check_type(node, B_IH, TYPE(s->dtype, blocks * s->h), err));
    TRY(check_type(node, B_HH, TYPE(s->dtype, blocks * s->h), err));
    return check_type(node, H0, TYPE(s->dtype, s->b, s->h), err);
}

static enum cb_status lstm_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct sizes s;
    TRY(infer_common(node, 4, &s, err));
    out[LSTM_Y] = out[LSTM_CELLS] = TYPE(s.dtype, s.b, s.t, s.h);
    out[LSTM_H] = out[LSTM_C] = TYPE(s.dtype, s.b, s.h);
    out[LSTM_GATES] = TYPE(s.dtype, s.b, s.t, 4 * s.h);
    return check_type(node, C0, out[LSTM_C], err);
}

static enum cb_status gru_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct sizes s;
    TRY(infer_common(node, 3, &s, err));
    out[GRU_Y] = TYPE(s.dtype, s.b, s.t, s.h);
    out[GRU_H] = TYPE(s.dtype, s.b, s.h);
    out[GRU_GATES] = TYPE(s.dtype, s.b, s.t, 4 * s.h);
    return CB_OK;
}

static enum cb_status lstm_back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct sizes s;
    TRY(infer_common(node, 4, &s, err));
    struct cb_type state = TYPE(s.dtype, s.b, s.h), y = TYPE(s.dtype, s.b, s.t, s.h);
    TRY(check_type(node, C0, state, err));
    TRY(check_type(node, LSTM_BACK_Y, y, err));
    TRY(check_type(node, LSTM_BACK_GATES, TYPE(s.dtype, s.b, s.t, 4 * s.h), err));
    TRY(check_type(node, LSTM_BACK_CELLS, y, err));
    TRY(check_type(node, LSTM_DY, y, err));
    TRY(check_type(node, LSTM_DH, state, err));
    TRY(check_type(node, LSTM_DC, state, err));
    for (int i = X; i <= W_HH; i++) out[i] = node->in[i]->type;
    out[B_IH] = out[B_HH] = TYPE(s.dtype, 4 * s.h);
    out[H0] = out[C0] = state;
    return CB_OK;
}

static enum cb_status gru_back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct sizes s;
    TRY(infer_common(node, 3, &s, err));
    struct cb_type y = TYPE(s.dtype, s.b, s.t, s.h);
    TRY(check_type(node, GRU_BACK_Y, y, err));
    TRY(check_type(node, GRU_BACK_GATES, TYPE(s.dtype, s.b, s.t, 4 * s.h), err));
    TRY(check_type(node, GRU_DY, y, err));
    TRY(check_type(node, GRU_DH, TYPE(s.dtype, s.b, s.h), err));
    for (int i = X; i <= W_HH; i++) out[i] = node->in[i]->type;
    out[B_IH] = out[B_HH] = TYPE(s.dtype, 3 * s.h);
    out[H0] = TYPE(s.dtype, s.b, s.h);
    return CB_OK;
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static void add(enum cb_dtype dtype, void *p, int64_t i, double v) { ref_set(dtype, p, i, ref_get(dtype, p, i) + v); }

/* State k before step number n of row b: from the sequence of states, or the initial one. */
static double before(const struct sizes *s, const void *states, const void *first, int64_t b, int64_t n, int64_t k) {
    if (n == 0) return first ? ref_get(s->dtype, first, b * s->h + k) : 0;
    int64_t t = s->reverse ? s->t - n : n - 1;
    return ref_get(s->dtype, states, (b * s->t + t) * s->h + k);
}

/* Row r of x times w_ih, and of the state times w_hh, with their biases. */
static double from_input(const struct sizes *s, const struct op_run *run, int64_t at, int64_t r) {
    double sum = run->in[B_IH] ? ref_get(s->dtype, run->in[B_IH], r) : 0;
    for (int64_t k = 0; k < s->i; k++) sum += ref_get(s->dtype, run->in[W_IH], r * s->i + k) * ref_get(s->dtype, run->in[X], at * s->i + k);
    return sum;
}

static double from_state(const struct sizes *s, const struct op_run *run, int64_t b, int64_t n, int64_t r) {
    double sum = run->in[B_HH] ? ref_get(s->dtype, run->in[B_HH], r) : 0;
    for (int64_t k = 0; k < s->h; k++) sum += ref_get(s->dtype, run->in[W_HH], r * s->h + k) * before(s, run->out[0], run->in[H0], b, n, k);
    return sum;
}

/* i, f, o = sigmoid, g = tanh of the sums; c = f c + i g; h = o tanh(c). */
static void lstm_ref(const struct op_run *run) {
    struct sizes s = sizes_of(run->node, 4);
    for (int64_t step = 0; step < s.b * s.t; step++) {
        int64_t b = step / s.t, n = step % s.t, at = b * s.t + (s.reverse ? s.t - 1 - n : n);
        for (int64_t k = 0; k < s.h; k++) {
            double gate[4];
            for (int64_t q = 0; q < 4; q++) {
                double a = from_input(&s, run, at, q * s.h + k) + from_state(&s, run, b, n, q * s.h + k);
                gate[q] = q == 2 ? tanh(a) : sigmoid(a);
                ref_set(s.dtype, run->out[LSTM_GATES], at * 4 * s.h + q * s.h + k, gate[q]);
            }
            double c = gate[1] * before(&s, run->out[LSTM_CELLS], run->in[C0], b, n, k) + gate[0] * gate[2];
            ref_set(s.dtype, run->out[LSTM_CELLS], at * s.h + k, c);
            ref_set(s.dtype, run->out[LSTM_Y], at * s.h + k, gate[3] * tanh(c));
        }
        for (int64_t k = 0; n == s.t - 1 && k < s.h; k++) {
            ref_set(s.dtype, run->out[LSTM_H], b * s.h + k, ref_get(s.dtype, run->out[LSTM_Y], at * s.h + k));
            ref_set(s.dtype, run->out[LSTM_C], b * s.h + k, ref_get(s.dtype, run->out[LSTM_CELLS], at * s.h + k));
        }
    }
}

/* r, z = sigmoid; n = tanh(input + r hn), hn the state's part; h = (1 - z) n + z h. */
static void gru_ref(const struct op_run *run) {
    struct sizes s = sizes_of(run->node, 3);
    for (int64_t step = 0; step < s.b * s.t; step++) {
        int64_t b = step / s.t, n = step % s.t, at = b * s.t + (s.reverse ? s.t - 1 - n : n);
        for (int64_t k = 0; k < s.h; k++) {
            double r = sigmoid(from_input(&s, run, at, k) + from_state(&s, run, b, n, k));
            double z = sigmoid(from_input(&s, run, at, s.h + k) + from_state(&s, run, b, n, s.h + k));
            double hn = from_state(&s, run, b, n, 2 * s.h + k), m = tanh(from_input(&s, run, at, 2 * s.h + k) + r * hn);
            const double saved[4] = {r, z, m, hn};
            for (int64_t q = 0; q < 4; q++) ref_set(s.dtype, run->out[GRU_GATES], at * 4 * s.h + q * s.h + k, saved[q]);
            ref_set(s.dtype, run->out[GRU_Y], at * s.h + k, (1 - z) * m + z * before(&s, run->out[GRU_Y], run->in[H0], b, n, k));
        }
        for (int64_t k = 0; n == s.t - 1 && k < s.h; k++)
            ref_set(s.dtype, run->out[GRU_H], b * s.h + k, ref_get(s.dtype, run->out[GRU_Y], at * s.h + k));
    }
}

static size_t back_work(const struct node *node) { return (size_t)node->in[W_HH]->type.dim[1] * 11 * sizeof(double); }

/* Scratch of a backward walk over one sequence. */
struct back {
    double *dh, *dc;  // (H): carried to the step before
    double *da, *dr;  // (blocks H): gradients of the input's and the state's sums
    double *next;  // (H)
};

static struct back back_begin(const struct op_run *run, const struct sizes *s) {
    for (int i = 0; i < run->node->n_out; i++) memset(run->out[i], 0, (size_t)type_bytes(&run->node->out[i]->type));
    double *w = run->work;
    return (struct back){w, w + s->h, w + 2 * s->h, w + 6 * s->h, w + 10 * s->h};
}

/* Sends da and dr into x, weights and biases, and dr through w_hh into next. */
static void back_sums(const struct op_run *run, const struct sizes *s, const struct back *k, const void *y, int64_t b, int64_t n,
                      int64_t at) {
    for (int64_t r = 0; r < s->blocks * s->h; r++) {
        add(s->dtype, run->out[B_IH], r, k->da[r]);
        add(s->dtype, run->out[B_HH], r, k->dr[r]);
        for (int64_t i = 0; i < s->i; i++) {
            add(s->dtype, run->out[W_IH], r * s->i + i, k->da[r] * ref_get(s->dtype, run->in[X], at * s->i + i));
            add(s->dtype, run->out[X], at * s->i + i, k->da[r] * ref_get(s->dtype, run->in[W_IH], r * s->i + i));
        }
        for (int64_t j = 0; j < s->h; j++) {
            add(s->dtype, run->out[W_HH], r * s->h + j, k->dr[r] * before(s, y, run->in[H0], b, n, j));
            k->next[j] += k->dr[r] * ref_get(s->dtype, run->in[W_HH], r * s->h + j);
        }
    }
}

static double get_or_zero(const struct sizes *s, const void *p, int64_t i) { return p ? ref_get(s->dtype, p, i) : 0; }

static void lstm_back_ref(const struct op_run *run) {
    struct sizes s = sizes_of(run->node, 4);
    struct back w = back_begin(run, &s);
    const void *gates = run->in[LSTM_BACK_GATES], *cells = run->in[LSTM_BACK_CELLS];
    for (int64_t b = 0; b < s.b; b++) {
        for (int64_t k = 0; k < s.h; k++) {
            w.dh[k] = get_or_zero(&s, run->in[LSTM_DH], b * s.h + k);
            w.dc[k] = get_or_zero(&s, run->in[LSTM_DC], b * s.h + k);
        }
        for (int64_t n = s.t - 1; n >= 0; n--) {
            int64_t at = b * s.t + (s.reverse ? s.t - 1 - n : n);
            for (int64_t k = 0; k < s.h; k++) {
                double q[4];
                for (int64_t j = 0; j < 4; j++) q[j] = ref_get(s.dtype, gates, (at * 4 + j) * s.h + k);
                double c = tanh(ref_get(s.dtype, cells, at * s.h + k)), dh = w.dh[k] + get_or_zero(&s, run->in[LSTM_DY], at * s.h + k);
                double dc = w.dc[k] + dh * q[3] * (1 - c * c);
                w.da[k] = dc * q[2] * q[0] * (1 - q[0]);
                w.da[s.h + k] = dc * before(&s, cells, run->in[C0], b, n, k) * q[1] * (1 - q[1]);
                w.da[2 * s.h + k] = dc * q[0] * (1 - q[2] * q[2]);
                w.da[3 * s.h + k] = dh * c * q[3] * (1 - q[3]);
                w.dc[k] = dc * q[1];
                w.next[k] = 0;
            }
            memcpy(w.dr, w.da, (size_t)(4 * s.h) * sizeof *w.dr);
            back_sums(run, &s, &w, run->in[LSTM_BACK_Y], b, n, at);
            memcpy(w.dh, w.next, (size_t)s.h * sizeof *w.dh);
        }
        for (int64_t k = 0; k < s.h; k++) {
            ref_set(s.dtype, run->out[H0], b * s.h + k, w.dh[k]);
            ref_set(s.dtype, run->out[C0], b * s.h + k, w.dc[k]);
        }
    }
}

static void gru_back_ref(const struct op_run *run) {
    struct sizes s = sizes_of(run->node, 3);
    struct back w = back_begin(run, &s);
    const void *gates = run->in[GRU_BACK_GATES], *y = run->in[GRU_BACK_Y];
    for (int64_t b = 0; b < s.b; b++) {
        for (int64_t k = 0; k < s.h; k++) w.dh[k] = get_or_zero(&s, run->in[GRU_DH], b * s.h + k);
        for (int64_t n = s.t - 1; n >= 0; n--) {
            int64_t at = b * s.t + (s.reverse ? s.t - 1 - n : n);
            for (int64_t k = 0; k < s.h; k++) {
                double q[4];
                for (int64_t j = 0; j < 4; j++) q[j] = ref_get(s.dtype, gates, (at * 4 + j) * s.h + k);
                double dh = w.dh[k] + get_or_zero(&s, run->in[GRU_DY], at * s.h + k), dm = dh * (1 - q[1]) * (1 - q[2] * q[2]);
                w.da[k] = w.dr[k] = dm * q[3] * q[0] * (1 - q[0]);
                w.da[s.h + k] = w.dr[s.h + k] = dh * (before(&s, y, run->in[H0], b, n, k) - q[2]) * q[1] * (1 - q[1]);
                w.da[2 * s.h + k] = dm;
                w.dr[2 * s.h + k] = dm * q[0];
                w.next[k] = dh * q[1];
            }
            back_sums(run, &s, &w, y, b, n, at);
            memcpy(w.dh, w.next, (size_t)s.h * sizeof *w.dh);
        }
        for (int64_t k = 0; k < s.h; k++) ref_set(s.dtype, run->out[H0], b * s.h + k, w.dh[k]);
    }
}

static double flops(const struct node *node) {
    const struct cb_type *x = &node->in[X]->type, *w = &node->in[W_HH]->type;
    return 2.0 * (double)(x->dim[0] * x->dim[1]) * (double)w->dim[0] * (double)(x->dim[2] + w->dim[1]);
}

static double back_flops(const struct node *node) { return 2 * flops(node); }

/* ---- in primitive ops, step by step */

/* Time steps (B,1,H) side by side, a few at a time. */
static struct cb_tensor *join(struct cb_graph *g, int64_t n, struct cb_tensor **part) {
    while (n > 1 && !g->err.code) {
        int64_t fewer = 0;
        for (int64_t i = 0; i < n; i += 16) part[fewer++] = n - i > 1 ? op_concat(g, (int)(n - i < 16 ? n - i : 16), part + i, 1) : part[i];
        n = fewer;
    }
    return part[0];
}

/* Block q of (B, blocks H). */
static struct cb_tensor *block(struct cb_graph *g, struct cb_tensor *x, int64_t h, int q) {
    return op_slice(g, x, 1, q * h, (q + 1) * h, 1);
}

/* One step: a (B, blocks H) from the input, r from the state. Fills saved, the gates to keep; returns the new h; *c is updated. */
static struct cb_tensor *step(struct cb_graph *g, bool is_lstm, struct cb_tensor *a, struct cb_tensor *r, int64_t size, struct cb_tensor *h,
                              struct cb_tensor **c, struct cb_tensor **saved) {
    if (is_lstm) {
        a = op_add(g, a, r);
        for (int q = 0; q < 4; q++) saved[q] = op_unary(g, q == 2 ? "tanh" : "sigmoid", block(g, a, size, q));
        *c = op_add(g, op_mul(g, saved[1], *c), op_mul(g, saved[0], saved[2]));
        return op_mul(g, saved[3], op_unary(g, "tanh", *c));
    }
    for (int q = 0; q < 2; q++) saved[q] = op_unary(g, "sigmoid", op_add(g, block(g, a, size, q), block(g, r, size, q)));
    saved[3] = block(g, r, size, 2);
    saved[2] = op_unary(g, "tanh", op_add(g, block(g, a, size, 2), op_mul(g, saved[0], saved[3])));
    return op_add(g, saved[2], op_mul(g, saved[1], op_sub(g, h, saved[2])));
}

/* All outputs of the forward op from its inputs `in`. */
static void unroll(struct cb_graph *g, const struct node *node, bool is_lstm, struct cb_tensor *const *in, struct cb_tensor **out) {
    struct sizes s = sizes_of(node, is_lstm ? 4 : 3);
    struct cb_type state = TYPE(s.dtype, s.b, s.h);
    struct cb_tensor *h = in[H0] ? in[H0] : ops_zeros(g, &state), *c = is_lstm ? (in[C0] ? in[C0] : ops_zeros(g, &state)) : NULL;
    struct cb_tensor *all = op_linear(g, in[X], in[W_IH], in[B_IH], false);
    struct cb_tensor **list = arena_array(g->arena, (size_t)(3 * s.t), sizeof *list);
    if (!list) {
        graph_fail(g, CB_E_MEMORY, "%s: out of memory", node->op->name);
        return;
    }
    for (int64_t n = 0; n < s.t && !g->err.code; n++) {
        int64_t t = s.reverse ? s.t - 1 - n : n;
        struct cb_tensor *a = op_reshape(g, op_slice(g, all, 1, t, t + 1, 1), 2, (int64_t[]){s.b, s.blocks * s.h}), *saved[4];
        h = step(g, is_lstm, a, op_linear(g, h, in[W_HH], in[B_HH], false), s.h, h, &c, saved);
        list[t] = op_reshape(g, h, 3, (int64_t[]){s.b, 1, s.h});
        list[s.t + t] = op_reshape(g, op_concat(g, 4, saved, 1), 3, (int64_t[]){s.b, 1, 4 * s.h});
        if (c) list[2 * s.t + t] = op_reshape(g, c, 3, (int64_t[]){s.b, 1, s.h});
    }
    if (g->err.code) return;
    out[0] = join(g, s.t, list);
    out[1] = h;
    out[is_lstm ? LSTM_GATES : GRU_GATES] = join(g, s.t, list + s.t);
    if (!is_lstm) return;
    out[LSTM_C] = c;
    out[LSTM_CELLS] = join(g, s.t, list + 2 * s.t);
}

static void lstm_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) { unroll(g, node, true, node->in, out); }
static void gru_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) { unroll(g, node, false, node->in, out); }

/* Gradients of the unrolled steps, for any output. */
static void unroll_back(struct cb_graph *g, const struct node *node, bool is_lstm, struct cb_tensor *const *dout, struct cb_tensor **din) {
    struct cb_tensor *in[7] = {NULL}, *out[5] = {NULL};
    int n = is_lstm ? 7 : 6;
    for (int i = 0; i < n; i++) in[i] = op_alias(g, node->in[i]);
    unroll(g, node, is_lstm, in, out);
    if (!g->err.code) op_expand_grad(g, is_lstm ? 5 : 3, out, dout, n, in, din);
}

/* The gradient op's outputs of absent inputs are what they would be for zeros. */
static void back_expand(struct cb_graph *g, const struct node *node, bool is_lstm, struct cb_tensor **out) {
    struct cb_tensor *dout[5] = {node->in[is_lstm ? LSTM_DY : GRU_DY], node->in[is_lstm ? LSTM_DH : GRU_DH],
                                 is_lstm ? node->in[LSTM_DC] : NULL};
    struct node full = *node;
    struct cb_tensor *in[7];
    for (int i = X; i <= W_HH; i++) in[i] = node->in[i];
    for (int i = B_IH; i <= (is_lstm ? C0 : H0); i++) {
        struct sizes s = sizes_of(node, is_lstm ? 4 : 3);
        struct cb_type type = i <= B_HH ? TYPE(s.dtype, s.blocks * s.h) : TYPE(s.dtype, s.b, s.h);
        in[i] = node->in[i] ? node->in[i] : ops_zeros(g, &type);
    }
    full.in = in;
    unroll_back(g, &full, is_lstm, dout, out);
}

static void lstm_back_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) { back_expand(g, node, true, out); }
static void gru_back_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) { back_expand(g, node, false, out); }

static void lstm_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need,
                      struct cb_tensor **din) {
    if (dout[LSTM_GATES] || dout[LSTM_CELLS]) {
        unroll_back(g, node, true, dout, din);
        return;
    }
    struct cb_tensor *in[13];
    for (int i = X; i <= C0; i++) in[i] = node->in[i];
    in[LSTM_BACK_Y] = node->out[LSTM_Y];
    in[LSTM_BACK_GATES] = node->out[LSTM_GATES];
    in[LSTM_BACK_CELLS] = node->out[LSTM_CELLS];
    for (int i = 0; i < 3; i++) in[LSTM_DY + i] = dout[i];
    struct cb_tensor *t = graph_node(g, &lstm_grad_op, node->attrs, 13, in);
    for (int i = X; i <= C0; i++)
        if (node->in[i] && need[i]) din[i] = graph_out(g, t, i);
}

static void gru_grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    if (dout[GRU_GATES]) {
        unroll_back(g, node, false, dout, din);
        return;
    }
    struct cb_tensor *in[10];
    for (int i = X; i <= H0; i++) in[i] = node->in[i];
    in[GRU_BACK_Y] = node->out[GRU_Y];
    in[GRU_BACK_GATES] = node->out[GRU_GATES];
    for (int i = 0; i < 2; i++) in[GRU_DY + i] = dout[i];
    struct cb_tensor *t = graph_node(g, &gru_grad_op, node->attrs, 10, in);
    for (int i = X; i <= H0; i++)
        if (node->in[i] && need[i]) din[i] = graph_out(g, t, i);
}

/* ---- descriptors */
static const char *const lstm_in[] = {"x", "w_ih", "w_hh", "b_ih?", "b_hh?", "h0?", "c0?", NULL};
static const char *const lstm_out[] = {"y", "h", "c", "gates", "cells", NULL};
static const struct attr_lstm ahead = {0}, backwards = {.reverse = true};
static const struct op_case lstm_cases[] = {
    {.name = "plain", .attrs = &ahead, .in = {CASE_F32(2, 3, 3), CASE_F32(8, 3), CASE_F32(8, 2)}},
    {.name = "all",
     .attrs = &backwards,
     .in = {CASE_F32(2, 3, 1), CASE_F32(12, 1), CASE_F32(12, 3), CASE_F32(12), CASE_F32(12), CASE_F32(2, 3), CASE_F32(2, 3)}},
    {.name = "no_rows", .attrs = &ahead, .in = {CASE_F32(0, 3, 2), CASE_F32(4, 2), CASE_F32(4, 1)}},
    {0},
};
static const struct op lstm_op = {
    .name = "lstm",
    .doc =
        "One LSTM layer over x (B,T,I): w_ih (4H,I), w_hh (4H,H), biases (4H), gates i,f,g,o, states h0, c0 (B,H). y (B,T,H), last h and c "
        "(B,H); "
        "gates (B,T,4H) and cells (B,T,H) serve the gradient. reverse: from the last step to the first.",
    .in_names = lstm_in,
    .out_names = lstm_out,
    .attrs = attr_fields_lstm,
    .attr_bytes = sizeof(struct attr_lstm),
    .infer = lstm_infer,
    .grad = lstm_grad,
    .ref = lstm_ref,
    .expand = lstm_expand,
    .flops = flops,
    .tolerance = 2e-5,
    .cases = lstm_cases,
};

static const char *const gru_in[] = {"x", "w_ih", "w_hh", "b_ih?", "b_hh?", "h0?", NULL};
static const char *const gru_out[] = {"y", "h", "gates", NULL};
static const struct attr_gru gru_ahead = {0}, gru_backwards = {.reverse = true};
static const struct op_case gru_cases[] = {
    {.name = "plain", .attrs = &gru_ahead, .in = {CASE_F32(2, 3, 3), CASE_F32(6, 3), CASE_F32(6, 2)}},
    {.name = "all",
     .attrs = &gru_backwards,
     .in = {CASE_F32(2, 3, 1), CASE_F32(9, 1), CASE_F32(9, 3), CASE_F32(9), CASE_F32(9), CASE_F32(2, 3)}},
    {0},
};
static const struct op gru_op = {
    .name = "gru",
    .doc =
        "One GRU layer over x (B,T,I): w_ih (3H,I), w_hh (3H,H), biases (3H), gates r,z,n, the reset gate after the product with w_hh; "
        "state h0 "
        "(B,H). y (B,T,H), last h (B,H); gates (B,T,4H) r,z,n and n's part from the state.",
    .in_names = gru_in,
    .out_names = gru_out,
    .attrs = attr_fields_gru,
    .attr_bytes = sizeof(struct attr_gru),
    .infer = gru_infer,
    .grad = gru_grad,
    .ref = gru_ref,
    .expand = gru_expand,
    .flops = flops,
    .tolerance = 2e-5,
    .cases = gru_cases,
};

static const char *const lstm_back_in[] = {"x", "w_ih",  "w_hh",  "b_ih?", "b_hh?", "h0?", "c0?",
                                           "y", "gates", "cells", "dy?",   "dh?",   "dc?", NULL};
static const char *const lstm_back_out[] = {"dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0", "dc0", NULL};
static const struct attr_lstm_grad back_ahead = {0};
/* y, gates and cells are not those of the inputs here: differences are tried by the forward op's cases. */
static const struct op_case lstm_back_cases[] = {
    {.name = "plain",
     .attrs = &back_ahead,
     .in = {CASE_F32(2, 3, 3), CASE_F32(8, 3), CASE_F32(8, 2), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_F32(2, 3, 2),
            CASE_F32(2, 3, 8), CASE_F32(2, 3, 2), CASE_F32(2, 3, 2), CASE_F32(2, 2)},
     .no_grad = true},
    {0},
};
static const struct op lstm_grad_op = {
    .name = "lstm_grad",
    .doc = "Gradients of lstm for all its inputs, from its inputs, y, gates and cells, and those of dy, dh and dc that there are.",
    .in_names = lstm_back_in,
    .out_names = lstm_back_out,
    .attrs = attr_fields_lstm_grad,
    .attr_bytes = sizeof(struct attr_lstm_grad),
    .infer = lstm_back_infer,
    .ref = lstm_back_ref,
    .ref_work = back_work,
    .expand = lstm_back_expand,
    .flops = back_flops,
    .tolerance = 2e-5,
    .cases = lstm_back_cases,
};

static const char *const gru_back_in[] = {"x", "w_ih", "w_hh", "b_ih?", "b_hh?", "h0?", "y", "gates", "dy?", "dh?", NULL};
static const char *const gru_back_out[] = {"dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0", NULL};
static const struct attr_gru_grad gru_back_ahead = {0};
static const struct op_case gru_back_cases[] = {
    {.name = "plain",
     .attrs = &gru_back_ahead,
     .in = {CASE_F32(2, 3, 3), CASE_F32(6, 3), CASE_F32(6, 2), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_F32(2, 3, 2), CASE_F32(2, 3, 8),
            CASE_F32(2, 3, 2), CASE_F32(2, 2)},
     .no_grad = true},
    {0},
};
static const struct op gru_grad_op = {
    .name = "gru_grad",
    .doc = "Gradients of gru for all its inputs, from its inputs, y and gates, and those of dy and dh that there are.",
    .in_names = gru_back_in,
    .out_names = gru_back_out,
    .attrs = attr_fields_gru_grad,
    .attr_bytes = sizeof(struct attr_gru_grad),
    .infer = gru_back_infer,
    .ref = gru_back_ref,
    .ref_work = back_work,
    .expand = gru_back_expand,
    .flops = back_flops,
    .tolerance = 2e-5,
    .cases = gru_back_cases,
};

/* State number k of (n,B,H) as (B,H). */
static struct cb_tensor *state_of(struct cb_graph *g, struct cb_tensor *states, int k) {
    if (!states || graph_is_bad(g, states)) return states;
    if (states->type.rank != 3) return graph_fail(g, CB_E_SHAPE, "recurrent: initial state of rank %d; wanted (n,B,H)", states->type.rank);
    struct cb_tensor *one = op_slice(g, states, 0, k, k + 1, 1);
    return op_reshape(g, one, 2, states->type.dim + 1);
}

/* Last states (B,H) one upon another. */
static struct cb_tensor *stack(struct cb_graph *g, int n, struct cb_tensor **state) {
    if (g->err.code) return &g->bad_tensor;
    for (int i = 0; i < n; i++) state[i] = op_reshape(g, state[i], 3, (int64_t[]){1, state[i]->type.dim[0], state[i]->type.dim[1]});
    return n > 1 ? op_concat(g, n, state, 0) : state[0];
}

struct recurrent_result op_recurrent(struct cb_graph *g, const char *kind, struct cb_tensor *x, int n_layers, bool bidirectional,
                                     bool time_first, const struct recurrent_weights *weights, struct cb_tensor *h0, struct cb_tensor *c0) {
    bool is_lstm = strcmp(kind, "lstm") == 0;
    int n_ways = bidirectional ? 2 : 1, n = n_layers * n_ways;
    struct recurrent_result bad = {&g->bad_tensor, &g->bad_tensor, is_lstm ? &g->bad_tensor : NULL};
    struct cb_tensor *h[16], *c[16];
    if ((!is_lstm && strcmp(kind, "gru") != 0) || n_layers < 1 || n > 16) {
        graph_fail(g, CB_E_ARGUMENT, "recurrent: kind '%s', %d layers; wanted lstm or gru, 1 to %d", kind, n_layers, 16 / n_ways);
        return bad;
    }
    if (time_first) x = op_transpose(g, x, 0, 1);
    for (int layer = 0; layer < n_layers && !g->err.code; layer++) {
        struct cb_tensor *y[2];
        for (int way = 0; way < n_ways; way++) {
            int k = layer * n_ways + way;
            struct attr_lstm attrs;
            memset(&attrs, 0, sizeof attrs);
            attrs.reverse = way;
            const struct recurrent_weights *w = &weights[k];
            struct cb_tensor *in[] = {x, w->w_ih, w->w_hh, w->b_ih, w->b_hh, state_of(g, h0, k), state_of(g, c0, k)};
            y[way] = graph_node(g, is_lstm ? &lstm_op : &gru_op, &attrs, is_lstm ? 7 : 6, in);
            h[k] = graph_out(g, y[way], 1);
            c[k] = is_lstm ? graph_out(g, y[way], LSTM_C) : NULL;
        }
        x = bidirectional ? op_concat(g, 2, y, 2) : y[0];
    }
    if (g->err.code) return bad;
    if (time_first) x = op_transpose(g, x, 0, 1);
    return (struct recurrent_result){x, stack(g, n, h), is_lstm ? stack(g, n, c) : NULL};
}

const struct op *const op_file_recurrent[] = {&lstm_op, &gru_op, &lstm_grad_op, &gru_grad_op, NULL};
