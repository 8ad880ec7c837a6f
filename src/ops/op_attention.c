/* Scaled dot-product attention (Vaswani et al., 2017) with grouped heads, causal and sliding windows, segments and soft caps, and its gradient. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs attention: bool causal, float scale, int window, float softcap
// @attrs attention_grad: bool causal, float scale, int window, float softcap, bool want_bias

enum { Q, K, V, BIAS, Q_SEGMENT, K_SEGMENT, START, Y, LSE, DY };

static const struct op attention_op, attention_grad_op;

/* Checks the inputs that both ops have in common. */
static enum cb_status infer_common(const struct node *node, double scale, int64_t window, double softcap, struct cb_err *err) {
    char qt[TYPE_TEXT], kt[TYPE_TEXT], vt[TYPE_TEXT];
    TRY(check_float(node, Q, err));
    for (int i = Q; i <= V; i++) TRY(check_rank(node, i, 4, err));
    const struct cb_type *q = &node->in[Q]->type, *k = &node->in[K]->type, *v = &node->in[V]->type;
    TRY(check_dtype(node, K, q->dtype, err));
    TRY(check_dtype(node, V, q->dtype, err));
    bool fits =
        q->dim[0] == k->dim[0] && q->dim[3] == k->dim[3] && k->dim[0] == v->dim[0] && k->dim[1] == v->dim[1] && k->dim[2] == v->dim[2];
    if (!fits || (k->dim[2] ? q->dim[2] % k->dim[2] != 0 : q->dim[2] != 0))
        FAIL(err, CB_E_SHAPE, "%s: q is %s, k is %s, v is %s; wanted (B,Tq,H,D), (B,Tk,Hkv,D), (B,Tk,Hkv,Dv), H a multiple of Hkv",
             node->op->name, type_text(q, qt), type_text(k, kt), type_text(v, vt));
    if (node->in[BIAS]) {
        const struct cb_type *bias = &node->in[BIAS]->type;
        const int64_t want[4] = {q->dim[0], q->dim[2], q->dim[1], k->dim[1]};
        TRY(check_dtype(node, BIAS, q->dtype, err));
        bool broadcasts = bias->rank <= 4;
        for (int i = 0; broadcasts && i < bias->rank; i++) broadcasts = bias->dim[i] == 1 || bias->dim[i] == want[4 - bias->rank + i];
        if (!broadcasts)
            FAIL(err, CB_E_SHAPE, "%s: bias is %s; wanted to broadcast to [%lld,%lld,%lld,%lld]", node->op->name, type_text(bias, qt),
                 (long long)want[0], (long long)want[1], (long long)want[2], (long long)want[3]);
    }
    if (!node->in[Q_SEGMENT] != !node->in[K_SEGMENT])
        FAIL(err, CB_E_ARGUMENT, "%s: one of q_segment and k_segment is given; wanted both or none", node->op->name);
    TRY(check_type(node, Q_SEGMENT, TYPE(CB_DTYPE_I32, q->dim[0], q->dim[1]), err));
    TRY(check_type(node, K_SEGMENT, TYPE(CB_DTYPE_I32, q->dim[0], k->dim[1]), err));
    TRY(check_type(node, START, TYPE(CB_DTYPE_I32, q->dim[0]), err));
    if (!isfinite(scale) || !(softcap >= 0) || window < 0)
        FAIL(err, CB_E_ARGUMENT, "%s: scale %g, softcap %g, window %lld; wanted a finite scale, the others 0 or more", node->op->name,
             scale, softcap, (long long)window);
    return CB_OK;
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct attr_attention *attrs = node->attrs;
    TRY(infer_common(node, attrs->scale, attrs->window, attrs->softcap, err));
    const struct cb_type *q = &node->in[Q]->type;
    out[0] = TYPE(q->dtype, q->dim[0], q->dim[1], q->dim[2], node->in[V]->type.dim[3]);
    out[1] = TYPE(q->dtype, q->dim[0], q->dim[2], q->dim[1]);
    return CB_OK;
}

/* Sizes, and the options of either op. */
struct job {
    const struct op_run *run;
    enum cb_dtype dtype;
    int64_t b, tq, tk, h, hkv, d, dv;
    bool causal;
    double scale, softcap;
    int64_t window;
    int64_t bias_stride[4];  // over (B,H,Tq,Tk)
};

static struct job job_of(const struct op_run *run, bool causal, double scale, int64_t window, double softcap) {
    const struct cb_type *q = &run->node->in[Q]->type, *k = &run->node->in[K]->type;
    struct job j = {.run = run, .dtype = q->dtype, .causal = causal, .scale = scale, .softcap = softcap, .window = window};
    j.b = q->dim[0], j.tq = q->dim[1], j.h = q->dim[2], j.d = q->dim[3];
    j.tk = k->dim[1], j.hkv = k->dim[2], j.dv = run->node->in[V]->type.dim[3];
    if (scale == 0) j.scale = j.d ? 1 / sqrt((double)j.d) : 1;
    if (run->node->in[BIAS]) {
        const struct cb_type *bias = &run->node->in[BIAS]->type;
        int64_t step = 1;
        for (int i = bias->rank - 1; i >= 0; i--) {
            j.bias_stride[4 - bias->rank + i] = bias->dim[i] == 1 ? 0 : step;
            step *= bias->dim[i];
        }
    }
    return j;
}

static bool is_visible(const struct job *j, int64_t b, int64_t i, int64_t k) {
    const int32_t *qs = j->run->in[Q_SEGMENT], *ks = j->run->in[K_SEGMENT], *start = j->run->in[START];
    if (qs && qs[b * j->tq + i] != ks[b * j->tk + k] && ks[b * j->tk + k] != ATTENTION_EVERYONE) return false;
    int64_t p = (start ? start[b] : 0) + i;
    return (!j->causal || k <= p) && (!j->window || p - k < j->window);
}

static int64_t bias_at(const struct job *j, int64_t b, int64_t h, int64_t i, int64_t k) {
    return b * j->bias_stride[0] + h * j->bias_stride[1] + i * j->bias_stride[2] + k * j->bias_stride[3];
}

/* Score of query (b,i,h) and key k, -infinity where it is not seen; *slope: derivative of the soft cap. */
static double score(const struct job *j, int64_t b, int64_t i, int64_t h, int64_t k, double *slope) {
    *slope = 1;
    if (!is_visible(j, b, i, k)) return -INFINITY;
    int64_t q_at = ((b * j->tq + i) * j->h + h) * j->d, k_at = ((b * j->tk + k) * j->hkv + h / (j->h / j->hkv)) * j->d;
    double s = 0;
    for (int64_t c = 0; c < j->d; c++) s += ref_get(j->dtype, j->run->in[Q], q_at + c) * ref_get(j->dtype, j->run->in[K], k_at + c);
    s *= j->scale;
    if (j->softcap > 0) {
        double t = tanh(s / j->softcap);
        s = j->softcap * t;
        *slope = 1 - t * t;
    }
    return j->run->in[BIAS] ? s + ref_get(j->dtype, j->run->in[BIAS], bias_at(j, b, h, i, k)) : s;
}

static size_t ref_work(const struct node *node) { return (size_t)node->in[K]->type.dim[1] * sizeof(double); }

static void ref(const struct op_run *run) {
    const struct attr_attention *attrs = run->node->attrs;
    struct job j = job_of(run, attrs->causal, attrs->scale, attrs->window, attrs->softcap);
    double *p = run->work, slope;
    for (int64_t row = 0; row < j.b * j.tq * j.h; row++) {
        int64_t b = row / (j.tq * j.h), i = row / j.h % j.tq, h = row % j.h;
        double max = -INFINITY, sum = 0;
        for (int64_t k = 0; k < j.tk; k++) {
            p[k] = score(&j, b, i, h, k, &slope);
            if (p[k] > max || isnan(p[k])) max = p[k];
        }
        bool sees_nothing = isinf(max) && max < 0;
        for (int64_t k = 0; k < j.tk; k++) sum += p[k] = sees_nothing ? 0 : exp(p[k] - max);
        ref_set(j.dtype, run->out[1], (b * j.h + h) * j.tq + i, sees_nothing ? -INFINITY : max + log(sum));
        for (int64_t c = 0; c < j.dv; c++) {
            double y = 0;
            for (int64_t k = 0; k < j.tk; k++) {
                int64_t v_at = ((b * j.tk + k) * j.hkv + h / (j.h / j.hkv)) * j.dv + c;
                if (p[k] != 0) y += p[k] * ref_get(j.dtype, run->in[V], v_at);
            }
            ref_set(j.dtype, run->out[0], row * j.dv + c, sees_nothing ? 0 : y / sum);
        }
    }
}

static double flops(const struct node *node) {
    const struct cb_type *q = &node->in[Q]->type, *k = &node->in[K]->type, *v = &node->in[V]->type;
    return 2.0 * (double)(q->dim[0] * q->dim[1] * q->dim[2]) * (double)k->dim[1] * (double)(q->dim[3] + v->dim[3]);
}

/* The rare case that lse itself reaches the loss. */
static void by_expansion(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, struct cb_tensor **din);

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    const struct attr_attention *attrs = node->attrs;
    if (dout[1]) {
        by_expansion(g, node, dout, din);
        return;
    }
    struct attr_attention_grad back;
    memset(&back, 0, sizeof back);
    back.causal = attrs->causal;
    back.scale = attrs->scale;
    back.window = attrs->window;
    back.softcap = attrs->softcap;
    back.want_bias = node->in[BIAS] && need[BIAS];
    struct cb_tensor *in[10];
    for (int i = Q; i <= START; i++) in[i] = node->in[i];
    in[Y] = node->out[0];
    in[LSE] = node->out[1];
    in[DY] = dout[0];
    struct cb_tensor *t = graph_node(g, &attention_grad_op, &back, 10, in);
    for (int i = Q; i <= V; i++)
        if (need[i]) din[i] = graph_out(g, t, i);
    if (back.want_bias) din[BIAS] = graph_out(g, t, 3);
}

static enum cb_status back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct attr_attention_grad *attrs = node->attrs;
    TRY(infer_common(node, attrs->scale, attrs->window, attrs->softcap, err));
    const struct cb_type *q = &node->in[Q]->type;
    struct cb_type y = TYPE(q->dtype, q->dim[0], q->dim[1], q->dim[2], node->in[V]->type.dim[3]);
    TRY(check_type(node, Y, y, err));
    TRY(check_type(node, LSE, TYPE(q->dtype, q->dim[0], q->dim[2], q->dim[1]), err));
    TRY(check_type(node, DY, y, err));
    if (attrs->want_bias && !node->in[BIAS]) FAIL(err, CB_E_ARGUMENT, "attention_grad: want_bias without a bias; wanted one");
    for (int i = Q; i <= V; i++) out[i] = node->in[i]->type;
    if (attrs->want_bias) out[3] = node->in[BIAS]->type;
    *n_out = attrs->want_bias ? 4 : 3;
    return CB_OK;
}

#define LSE_MOST 1e4  // beyond it f32 has no digits for the logarithm of a sum: the weights of such a row are summed again

static void add(enum cb_dtype dtype, void *p, int64_t i, double v) { ref_set(dtype, p, i, ref_get(dtype, p, i) + v); }

/* One query: with p = exp(score - lse), ds = p (dy.v - dy.y) slope; dq = ds k scale, dk += ds q scale, dv += p dy. */
static void back_row(const struct job *j, int64_t b, int64_t i, int64_t h, void *dbias) {
    const struct op_run *run = j->run;
    int64_t row = (b * j->tq + i) * j->h + h, q_at = row * j->d, y_at = row * j->dv;
    double lse = ref_get(j->dtype, run->in[LSE], (b * j->h + h) * j->tq + i), dot = 0, slope;
    if (isinf(lse) && lse < 0) return;
    double share = 1, sum = 0;
    if (fabs(lse) > LSE_MOST) {
        for (int64_t k = 0; k < j->tk; k++) sum += exp(score(j, b, i, h, k, &slope) - lse);
        if (sum > 0) share = 1 / sum;
    }
    for (int64_t c = 0; c < j->dv; c++) dot += ref_get(j->dtype, run->in[DY], y_at + c) * ref_get(j->dtype, run->in[Y], y_at + c);
    for (int64_t k = 0; k < j->tk; k++) {
        double p = share * exp(score(j, b, i, h, k, &slope) - lse), dp = 0;
        if (p == 0) continue;
        int64_t key = (b * j->tk + k) * j->hkv + h / (j->h / j->hkv);
        for (int64_t c = 0; c < j->dv; c++) {
            double dy = ref_get(j->dtype, run->in[DY], y_at + c);
            dp += dy * ref_get(j->dtype, run->in[V], key * j->dv + c);
            add(j->dtype, run->out[V], key * j->dv + c, p * dy);
        }
        double ds = p * (dp - dot);
        if (dbias) add(j->dtype, dbias, bias_at(j, b, h, i, k), ds);
        ds *= slope * j->scale;
        for (int64_t c = 0; c < j->d; c++) {
            add(j->dtype, run->out[Q], q_at + c, ds * ref_get(j->dtype, run->in[K], key * j->d + c));
            add(j->dtype, run->out[K], key * j->d + c, ds * ref_get(j->dtype, run->in[Q], q_at + c));
        }
    }
}

static void back_ref(const struct op_run *run) {
    const struct attr_attention_grad *attrs = run->node->attrs;
    struct job j = job_of(run, attrs->causal, attrs->scale, attrs->window, attrs->softcap);
    for (int i = 0; i < run->node->n_out; i++) memset(run->out[i], 0, (size_t)type_bytes(&run->node->out[i]->type));
    for (int64_t row = 0; row < j.b * j.tq * j.h; row++)
        back_row(&j, row / (j.tq * j.h), row / j.h % j.tq, row % j.h, attrs->want_bias ? run->out[3] : NULL);
}

static double back_flops(const struct node *node) { return 2.5 * flops(node); }

#define LOW (-1e30)

/* 1 where a query sees a key, as (B or 1, 1, Tq, Tk) in q's type; NULL where every query sees every key. */
static struct cb_tensor *visible_mask(struct cb_graph *g, const struct node *node, bool causal, int64_t window) {
    const struct cb_type *q = &node->in[Q]->type, *k = &node->in[K]->type;
    int64_t b = q->dim[0], tq = q->dim[1], tk = k->dim[1];
    struct cb_tensor *mask = NULL;
    if (causal || window) {
        // p - k, exact in f32 up to 2^24
        float *ahead = arena_array(g->arena, (size_t)(tq * tk), sizeof *ahead);
        if (!ahead) return graph_fail(g, CB_E_MEMORY, "attention: out of memory");
        for (int64_t i = 0; i < tq * tk; i++) ahead[i] = (float)(i / tk - i % tk);
        struct cb_tensor *x = op_cast(g, graph_const(g, TYPE(CB_DTYPE_F32, 1, 1, tq, tk), ahead), q->dtype);
        if (node->in[START]) x = op_add(g, op_reshape(g, op_cast(g, node->in[START], q->dtype), 4, (int64_t[]){b, 1, 1, 1}), x);
        if (causal) mask = op_cast(g, op_compare(g, "ge", x, ops_scalar(g, q->dtype, 0)), q->dtype);
        struct cb_tensor *near = window ? op_cast(g, op_compare(g, "lt", x, ops_scalar(g, q->dtype, (double)window)), q->dtype) : NULL;
        if (near) mask = mask ? op_mul(g, mask, near) : near;
    }
    if (node->in[Q_SEGMENT]) {
        struct cb_tensor *qs = op_reshape(g, node->in[Q_SEGMENT], 4, (int64_t[]){b, 1, tq, 1});
        struct cb_tensor *ks = op_reshape(g, node->in[K_SEGMENT], 4, (int64_t[]){b, 1, 1, tk});
        struct cb_tensor *same = op_cast(g, op_compare(g, "eq", qs, ks), q->dtype);
        mask = mask ? op_mul(g, mask, same) : same;
    }
    return mask;
}

/* The forward pass in primitive ops from given q, k, v and bias; lse only where wanted. */
static struct cb_tensor *forward(struct cb_graph *g, const struct node *node, const struct attr_attention *attrs,
                                 struct cb_tensor *const *in, struct cb_tensor **lse) {
    const struct cb_type *q = &node->in[Q]->type, *k = &node->in[K]->type;
    int64_t b = q->dim[0], tq = q->dim[1], h = q->dim[2], d = q->dim[3], tk = k->dim[1], hkv = k->dim[2], dv = node->in[V]->type.dim[3];
    int64_t groups = hkv ? h / hkv : 1, heads[] = {0, 2, 1, 3};
    // (B,Hkv,G,Tq,D) by (B,Hkv,1,Tk,D)
    struct cb_tensor *qh = op_reshape(g, op_permute(g, in[Q], 4, heads), 5, (int64_t[]){b, hkv, groups, tq, d});
    struct cb_tensor *kh = op_reshape(g, op_permute(g, in[K], 4, heads), 5, (int64_t[]){b, hkv, 1, tk, d});
    struct cb_tensor *vh = op_reshape(g, op_permute(g, in[V], 4, heads), 5, (int64_t[]){b, hkv, 1, tk, dv});
    struct cb_tensor *s = op_reshape(g, op_matmul(g, qh, kh, false, true), 4, (int64_t[]){b, h, tq, tk});
    s = op_scale(g, s, attrs->scale != 0 ? attrs->scale : d ? 1 / sqrt((double)d) : 1, 0);
    if (attrs->softcap > 0) s = op_scale(g, op_unary(g, "tanh", op_scale(g, s, 1 / attrs->softcap, 0)), attrs->softcap, 0);
    if (in[BIAS]) s = op_add(g, s, in[BIAS]);
    struct cb_tensor *mask = visible_mask(g, node, attrs->causal, attrs->window), *low = ops_scalar(g, q->dtype, LOW);
    if (in[BIAS]) {
        struct cb_tensor *finite = op_cast(g, op_compare(g, "gt", s, low), q->dtype);
        mask = mask ? op_mul(g, finite, mask) : finite;
    }
    if (mask) s = op_where(g, op_compare(g, "gt", mask, ops_scalar(g, q->dtype, 0.5)), s, low);
    // the mask again: a row that sees nothing is uniform before and zero after it
    struct cb_tensor *p = op_softmax(g, s, -1);
    if (mask) p = op_mul(g, p, mask);
    if (lse) {
        *lse = op_reduce(g, "logsumexp", s, 1, (int64_t[]){-1}, false);
        struct cb_tensor *sees = op_compare(g, "gt", *lse, ops_scalar(g, q->dtype, LOW / 2));
        *lse = op_where(g, sees, *lse, ops_scalar(g, q->dtype, -INFINITY));
    }
    struct cb_tensor *y = op_matmul(g, op_reshape(g, p, 5, (int64_t[]){b, hkv, groups, tq, tk}), vh, false, false);
    return op_permute(g, op_reshape(g, y, 4, (int64_t[]){b, h, tq, dv}), 4, heads);
}

static void expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    out[0] = forward(g, node, node->attrs, node->in, &out[1]);
}

static void by_expansion(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, struct cb_tensor **din) {
    struct cb_tensor *in[4], *out[2];
    for (int i = Q; i <= BIAS; i++) in[i] = op_alias(g, node->in[i]);
    out[0] = forward(g, node, node->attrs, in, &out[1]);
    op_expand_grad(g, 2, out, dout, 4, in, din);
}

/* The derivative of the forward expansion in q, k, v and bias; y and lse follow from these. */
static void back_expand(struct cb_graph *g, const struct node *node, struct cb_tensor **out) {
    const struct attr_attention_grad *attrs = node->attrs;
    struct attr_attention plain;
    memset(&plain, 0, sizeof plain);
    plain.causal = attrs->causal;
    plain.scale = attrs->scale;
    plain.window = attrs->window;
    plain.softcap = attrs->softcap;
    struct cb_tensor *in[4];
    for (int i = Q; i <= BIAS; i++) in[i] = op_alias(g, node->in[i]);
    struct cb_tensor *y = forward(g, node, &plain, in, NULL);
    op_expand_grad(g, 1, &y, &node->in[DY], attrs->want_bias ? 4 : 3, in, out);
}

static const char *const in_names[] = {"q", "k", "v", "bias?", "q_segment?", "k_segment?", "start?", NULL};
static const char *const out_names[] = {"y", "lse", NULL};
static const struct attr_attention plain_attrs = {0}, causal = {.causal = true}, capped = {.causal = true, .softcap = 1.5, .scale = 0.7},
                                   windowed = {.causal = true, .window = 3};
#define CASE_GIVEN(values_, ...) \
    { .present = true, .dtype = CB_DTYPE_I32, CASE_DIMS(__VA_ARGS__), .fill = FILL_VALUES, .values = (values_), .no_grad = true }
static const double own[] = {0, 0, 1, 1, 1, 0, 1, 1, 2, 2};
static const struct op_case cases[] = {
    {.name = "plain", .attrs = &plain_attrs, .in = {CASE_F32(2, 5, 3, 4), CASE_F32(2, 7, 3, 4), CASE_F32(2, 7, 3, 6)}},
    {.name = "causal_grouped", .attrs = &causal, .in = {CASE_F32(2, 5, 6, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4)}},
    {.name = "capped", .attrs = &capped, .in = {CASE_F32(1, 3, 2, 5), CASE_F32(1, 3, 1, 5), CASE_F32(1, 3, 1, 5)}},
    {.name = "bias", .attrs = &plain_attrs, .in = {CASE_F32(2, 3, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 1, 5)}},
    {.name = "bias_of_queries",
     .attrs = &causal,
     .in = {CASE_F32(2, 3, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 2, 3, 5)}},
    {.name = "bias_of_keys_tiles",
     .attrs = &causal,
     .in = {CASE_F32(2, 67, 4, 20), CASE_F32(2, 67, 2, 20), CASE_F32(2, 67, 2, 20), CASE_F32(4, 1, 67)},
     .no_grad = true},
    {.name = "bias_of_queries_tiles",
     .attrs = &capped,
     .in = {CASE_F32(1, 67, 2, 20), CASE_F32(1, 67, 2, 20), CASE_F32(1, 67, 2, 20), CASE_F32(67, 67)},
     .no_grad = true},
    {.name = "window_start",
     .attrs = &windowed,
     .in = {CASE_F32(2, 3, 2, 4), CASE_F32(2, 7, 2, 4), CASE_F32(2, 7, 2, 4), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_INDEX(5, 2)}},
    {.name = "segments",
     .attrs = &causal,
     .in = {CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4), CASE_ABSENT, CASE_GIVEN(own, 2, 5), CASE_GIVEN(own, 2, 5)}},
    {.name = "one_query",
     .attrs = &causal,
     .in = {CASE_F32(3, 1, 4, 8), CASE_F32(3, 9, 2, 8), CASE_F32(3, 9, 2, 8), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_INDEX(9, 3)}},
    {.name = "no_queries", .attrs = &causal, .in = {CASE_F32(2, 0, 2, 4), CASE_F32(2, 3, 2, 4), CASE_F32(2, 3, 2, 4)}},
    {.name = "no_keys", .attrs = &plain_attrs, .in = {CASE_F32(2, 3, 2, 4), CASE_F32(2, 0, 2, 4), CASE_F32(2, 0, 2, 4)}, .no_grad = true},
    {.name = "tiles", .attrs = &causal, .in = {CASE_F32(2, 67, 4, 64), CASE_F32(2, 67, 2, 64), CASE_F32(2, 67, 2, 64)}, .no_grad = true},
    {.name = "tiles_odd",
     .attrs = &windowed,
     .in = {CASE_F32(1, 37, 3, 20), CASE_F32(1, 37, 3, 20), CASE_F32(1, 37, 3, 20), CASE_ABSENT, CASE_INDEX(2, 1, 37),
            CASE_INDEX(2, 1, 37)},
     .no_grad = true},
    {0},
};

#define CASE_UNIFORM(low_, high_, ...) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(__VA_ARGS__), .fill = FILL_UNIFORM, .low = (low_), .high = (high_) }
static const char *const back_in[] = {"q", "k", "v", "bias?", "q_segment?", "k_segment?", "start?", "y", "lse", "dy", NULL};
static const char *const back_out[] = {"dq", "dk", "dv", "dbias", NULL};
static const struct attr_attention_grad back_causal = {.causal = true}, back_capped = {.causal = true, .softcap = 1.5, .window = 4},
                                        back_bias = {.want_bias = true};
/* y and lse are not those of q, k and v here, so that differences do not apply: the forward op's own cases try the second derivative. */
static const struct op_case back_cases[] = {
    {.name = "causal_grouped",
     .attrs = &back_causal,
     .in = {CASE_F32(2, 5, 6, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_ABSENT,
            CASE_F32(2, 5, 6, 4), CASE_POSITIVE(2, 6, 5), CASE_F32(2, 5, 6, 4)},
     .no_grad = true},
    {.name = "bias",
     .attrs = &back_bias,
     .in = {CASE_F32(2, 3, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 5, 2, 4), CASE_F32(2, 1, 5), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT,
            CASE_F32(2, 3, 2, 4), CASE_POSITIVE(2, 2, 3), CASE_F32(2, 3, 2, 4)},
     .no_grad = true},
    {.name = "bias_of_keys_tiles",
     .attrs = &back_causal,
     .in = {CASE_F32(1, 67, 2, 20), CASE_F32(1, 67, 2, 20), CASE_F32(1, 67, 2, 20), CASE_F32(2, 1, 67), CASE_ABSENT, CASE_ABSENT,
            CASE_ABSENT, CASE_F32(1, 67, 2, 20), CASE_UNIFORM(10, 30, 1, 2, 67), CASE_F32(1, 67, 2, 20)},
     .no_grad = true},
    {.name = "bias_of_queries_tiles",
     .attrs = &back_causal,
     .in = {CASE_F32(1, 67, 2, 20), CASE_F32(1, 67, 2, 20), CASE_F32(1, 67, 2, 20), CASE_F32(2, 67, 67), CASE_ABSENT, CASE_ABSENT,
            CASE_ABSENT, CASE_F32(1, 67, 2, 20), CASE_UNIFORM(10, 30, 1, 2, 67), CASE_F32(1, 67, 2, 20)},
     .no_grad = true},
    {.name = "capped_segments",
     .attrs = &back_capped,
     .in = {CASE_F32(1, 7, 2, 5), CASE_F32(1, 7, 1, 5), CASE_F32(1, 7, 1, 5), CASE_ABSENT, CASE_INDEX(2, 1, 7), CASE_INDEX(2, 1, 7),
            CASE_ABSENT, CASE_F32(1, 7, 2, 5), CASE_POSITIVE(1, 2, 7), CASE_F32(1, 7, 2, 5)},
     .no_grad = true},
    {.name = "tiles",
     .attrs = &back_causal,
     .in = {CASE_F32(1, 67, 4, 64), CASE_F32(1, 67, 2, 64), CASE_F32(1, 67, 2, 64), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_ABSENT,
            CASE_F32(1, 67, 4, 64), CASE_UNIFORM(10, 30, 1, 4, 67), CASE_F32(1, 67, 4, 64)},
     .no_grad = true},
    {0},
};

static const struct op attention_op = {
    .name = "attention",
    .doc =
        "y = softmax(scale q k^T + bias over the keys seen) v: q (B,Tq,H,D), k (B,Tk,Hkv,D), v (B,Tk,Hkv,Dv), bias broadcast to "
        "(B,H,Tq,Tk); lse "
        "(B,H,Tq) is the log of the softmax's sum. Query i stands at p = start[b] + i (start absent: 0) and sees key j of its own segment "
        "when "
        "j <= p (causal) and p - j < window (0: any). scale 0: 1/sqrt(D). softcap c: c tanh(score / c), before the bias. A query that "
        "sees nothing gives 0, lse -infinity.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_attention,
    .attr_bytes = sizeof(struct attr_attention),
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .ref_work = ref_work,
    .expand = expand,
    .flops = flops,
    .cases = cases,
};

static const struct op attention_grad_op = {
    .name = "attention_grad",
    .doc =
        "dq, dk, dv and, with want_bias, dbias of attention from its inputs, its outputs y and lse, and dy (Dao et al., FlashAttention, "
        "2022).",
    .in_names = back_in,
    .out_names = back_out,
    .attrs = attr_fields_attention_grad,
    .attr_bytes = sizeof(struct attr_attention_grad),
    .n_out = -1,
    .infer = back_infer,
    .ref = back_ref,
    .expand = back_expand,
    .flops = back_flops,
    .tolerance = 2e-5,
    .cases = back_cases,
};

struct cb_tensor *op_attention(struct cb_graph *g, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                               const struct attention_options *o) {
    struct attr_attention attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.causal = o->causal;
    attrs.scale = o->scale;
    attrs.window = o->window;
    attrs.softcap = o->softcap;
    return graph_node(g, &attention_op, &attrs, 7, (struct cb_tensor *[]){q, k, v, o->bias, o->q_segment, o->k_segment, o->start});
}

const struct op *const op_file_attention[] = {&attention_op, &attention_grad_op, NULL};
