/* Scaled dot-product attention (Vaswani et al., 2017) with grouped heads, causal and sliding windows, segments and soft caps, and its gradient. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/build.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs attention: bool causal, float scale, int window, float softcap, int kv_heads
// @attrs attention_grad: bool causal, float scale, int window, float softcap, int kv_heads, bool want_bias

enum { Q, K, V, BIAS, Q_SEGMENT, K_SEGMENT, START, Y, LSE, DY };

static const struct op attention_op, attention_grad_op;

/* The attributes of the gradient begin with those of attention. */
static struct attr_attention forward_attrs(const struct node *grad) {
    _Static_assert(offsetof(struct attr_attention_grad, want_bias) == sizeof(struct attr_attention), "attention_grad has other attributes");
    struct attr_attention attrs;
    memcpy(&attrs, grad->attrs, sizeof attrs);
    return attrs;
}

/* Types of q, k and v: inputs of their own, or some of the heads of input q. */
static void part_types(const struct node *node, int64_t kv_heads, struct cb_type part[3]) {
    for (int i = Q; i <= V; i++) {
        part[i] = node->in[kv_heads ? Q : i]->type;
        if (kv_heads) part[i].dim[2] = i == Q ? part[i].dim[2] - 2 * kv_heads : kv_heads;
    }
}

/* Checks q, k and v, and gives their types. */
static enum cb_status infer_parts(const struct node *node, int64_t kv_heads, struct cb_type part[3], struct cb_err *err) {
    char qt[TYPE_TEXT], kt[TYPE_TEXT], vt[TYPE_TEXT];
    TRY(check_float(node, Q, err));
    TRY(check_rank(node, Q, 4, err));
    for (int i = K; i <= V; i++) {
        if (!node->in[i] != (kv_heads != 0))
            FAIL(err, CB_E_ARGUMENT, "%s: kv_heads is %lld and %s is %s; wanted k and v where kv_heads is 0, else neither", node->op->name,
                 (long long)kv_heads, i == K ? "k" : "v", node->in[i] ? "given" : "absent");
        if (kv_heads) continue;
        TRY(check_rank(node, i, 4, err));
        TRY(check_dtype(node, i, node->in[Q]->type.dtype, err));
    }
    if (kv_heads < 0 || kv_heads > node->in[Q]->type.dim[2] / 2)
        FAIL(err, CB_E_ARGUMENT, "%s: kv_heads %lld of q %s; wanted 0 to half of its heads", node->op->name, (long long)kv_heads,
             type_text(&node->in[Q]->type, qt));
    part_types(node, kv_heads, part);
    const struct cb_type *q = &part[Q], *k = &part[K], *v = &part[V];
    bool fits =
        q->dim[0] == k->dim[0] && q->dim[3] == k->dim[3] && k->dim[0] == v->dim[0] && k->dim[1] == v->dim[1] && k->dim[2] == v->dim[2];
    if (!fits || (k->dim[2] ? q->dim[2] % k->dim[2] != 0 : q->dim[2] != 0))
        FAIL(err, CB_E_SHAPE, "%s: q is %s, k is %s, v is %s; wanted (B,Tq,H,D), (B,Tk,Hkv,D), (B,Tk,Hkv,Dv), H a multiple of Hkv",
             node->op->name, type_text(q, qt), type_text(k, kt), type_text(v, vt));
    return CB_OK;
}

/* Checks the inputs that both ops have in common; the types of q, k and v. */
static enum cb_status infer_common(const struct node *node, const struct attr_attention *attrs, struct cb_type part[3],
                                   struct cb_err *err) {
    char text[TYPE_TEXT];
    TRY(infer_parts(node, attrs->kv_heads, part, err));
    const struct cb_type *q = &part[Q], *k = &part[K];
    if (node->in[BIAS]) {
        const struct cb_type *bias = &node->in[BIAS]->type;
        const int64_t want[4] = {q->dim[0], q->dim[2], q->dim[1], k->dim[1]};
        TRY(check_dtype(node, BIAS, q->dtype, err));
        bool broadcasts = bias->rank <= 4;
        for (int i = 0; broadcasts && i < bias->rank; i++) broadcasts = bias->dim[i] == 1 || bias->dim[i] == want[4 - bias->rank + i];
        if (!broadcasts)
            FAIL(err, CB_E_SHAPE, "%s: bias is %s; wanted to broadcast to [%lld,%lld,%lld,%lld]", node->op->name, type_text(bias, text),
                 (long long)want[0], (long long)want[1], (long long)want[2], (long long)want[3]);
    }
    if (!node->in[Q_SEGMENT] != !node->in[K_SEGMENT])
        FAIL(err, CB_E_ARGUMENT, "%s: one of q_segment and k_segment is given; wanted both or none", node->op->name);
    TRY(check_type(node, Q_SEGMENT, TYPE(CB_DTYPE_I32, q->dim[0], q->dim[1]), err));
    TRY(check_type(node, K_SEGMENT, TYPE(CB_DTYPE_I32, q->dim[0], k->dim[1]), err));
    TRY(check_type(node, START, TYPE(CB_DTYPE_I32, q->dim[0]), err));
    if (!isfinite(attrs->scale) || !(attrs->softcap >= 0) || attrs->window < 0)
        FAIL(err, CB_E_ARGUMENT, "%s: scale %g, softcap %g, window %lld; wanted a finite scale, the others 0 or more", node->op->name,
             attrs->scale, attrs->softcap, (long long)attrs->window);
    return CB_OK;
}

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    struct cb_type part[3], *q = &part[Q];
    TRY(infer_common(node, node->attrs, part, err));
    out[0] = TYPE(q->dtype, q->dim[0], q->dim[1], q->dim[2], part[V].dim[3]);
    out[1] = TYPE(q->dtype, q->dim[0], q->dim[2], q->dim[1]);
    return CB_OK;
}

/* Where q, k or v lie: which input (and, of the gradient, output), elements from one token to the next, first element. */
struct part {
    int at;
    int64_t row, from;
};

/* Sizes, and the options of either op. */
struct job {
    const struct op_run *run;
    enum cb_dtype dtype;
    int64_t b, tq, tk, h, hkv, d, dv;
    struct part q, k, v;
    bool causal;
    double scale, softcap;
    int64_t window;
    int64_t bias_stride[4];  // over (B,H,Tq,Tk)
};

static struct job job_of(const struct op_run *run, const struct attr_attention *a) {
    struct cb_type part[3], *q = &part[Q], *k = &part[K], *v = &part[V];
    part_types(run->node, a->kv_heads, part);
    struct job j = {.run = run, .dtype = q->dtype, .causal = a->causal, .scale = a->scale, .softcap = a->softcap, .window = a->window};
    j.b = q->dim[0], j.tq = q->dim[1], j.h = q->dim[2], j.d = q->dim[3];
    j.tk = k->dim[1], j.hkv = k->dim[2], j.dv = v->dim[3];
    j.q = (struct part){.at = Q, .row = j.h * j.d};
    j.k = (struct part){.at = K, .row = j.hkv * j.d};
    j.v = (struct part){.at = V, .row = j.hkv * j.dv};
    if (a->kv_heads) {
        const int64_t row = (j.h + 2 * j.hkv) * j.d;
        j.q = (struct part){.at = Q, .row = row};
        j.k = (struct part){.at = Q, .row = row, .from = j.h * j.d};
        j.v = (struct part){.at = Q, .row = row, .from = (j.h + j.hkv) * j.d};
    }
    if (a->scale == 0) j.scale = j.d ? 1 / sqrt((double)j.d) : 1;
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

/* An element of a token. */
static int64_t part_at(const struct part *p, int64_t token, int64_t element) { return p->from + token * p->row + element; }

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
    int64_t q_at = part_at(&j->q, b * j->tq + i, h * j->d), k_at = part_at(&j->k, b * j->tk + k, h / (j->h / j->hkv) * j->d);
    double s = 0;
    for (int64_t c = 0; c < j->d; c++)
        s += ref_get(j->dtype, j->run->in[j->q.at], q_at + c) * ref_get(j->dtype, j->run->in[j->k.at], k_at + c);
    s *= j->scale;
    if (j->softcap > 0) {
        double t = tanh(s / j->softcap);
        s = j->softcap * t;
        *slope = 1 - t * t;
    }
    return j->run->in[BIAS] ? s + ref_get(j->dtype, j->run->in[BIAS], bias_at(j, b, h, i, k)) : s;
}

static size_t ref_work(const struct node *node) { return (size_t)node->in[node->in[K] ? K : Q]->type.dim[1] * sizeof(double); }

static void ref(const struct op_run *run) {
    struct job j = job_of(run, run->node->attrs);
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
                int64_t v_at = part_at(&j.v, b * j.tk + k, h / (j.h / j.hkv) * j.dv + c);
                if (p[k] != 0) y += p[k] * ref_get(j.dtype, run->in[j.v.at], v_at);
            }
            ref_set(j.dtype, run->out[0], row * j.dv + c, sees_nothing ? 0 : y / sum);
        }
    }
}

static double flops_of(const struct node *node, int64_t kv_heads) {
    struct cb_type part[3], *q = &part[Q];
    part_types(node, kv_heads, part);
    return 2.0 * (double)(q->dim[0] * q->dim[1] * q->dim[2]) * (double)part[K].dim[1] * (double)(q->dim[3] + part[V].dim[3]);
}

static double flops(const struct node *node) { return flops_of(node, ((const struct attr_attention *)node->attrs)->kv_heads); }

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
    memcpy(&back, attrs, sizeof *attrs);
    back.want_bias = node->in[BIAS] && need[BIAS];
    struct cb_tensor *in[10];
    for (int i = Q; i <= START; i++) in[i] = node->in[i];
    in[Y] = node->out[0];
    in[LSE] = node->out[1];
    in[DY] = dout[0];
    struct cb_tensor *t = graph_node(g, &attention_grad_op, &back, 10, in);
    const int n = attrs->kv_heads ? 1 : 3;
    for (int i = 0; i < n; i++)
        if (need[i]) din[i] = graph_out(g, t, i);
    if (back.want_bias) din[BIAS] = graph_out(g, t, n);
}

static enum cb_status back_infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    const struct attr_attention_grad *attrs = node->attrs;
    const struct attr_attention common = forward_attrs(node);
    struct cb_type part[3], *q = &part[Q];
    TRY(infer_common(node, &common, part, err));
    struct cb_type y = TYPE(q->dtype, q->dim[0], q->dim[1], q->dim[2], part[V].dim[3]);
    TRY(check_type(node, Y, y, err));
    TRY(check_type(node, LSE, TYPE(q->dtype, q->dim[0], q->dim[2], q->dim[1]), err));
    TRY(check_type(node, DY, y, err));
    if (attrs->want_bias && !node->in[BIAS]) FAIL(err, CB_E_ARGUMENT, "attention_grad: want_bias without a bias; wanted one");
    int n = 0;
    for (int i = Q; i <= V; i++)
        if (node->in[i]) out[n++] = node->in[i]->type;
    if (attrs->want_bias) out[n++] = node->in[BIAS]->type;
    *n_out = n;
    return CB_OK;
}

#define LSE_MOST 1e4  // beyond it f32 has no digits for the logarithm of a sum: the weights of such a row are summed again

static void add(enum cb_dtype dtype, void *p, int64_t i, double v) { ref_set(dtype, p, i, ref_get(dtype, p, i) + v); }

/* One query: with p = exp(score - lse), ds = p (dy.v - dy.y) slope; dq = ds k scale, dk += ds q scale, dv += p dy. */
static void back_row(const struct job *j, int64_t b, int64_t i, int64_t h, void *dbias) {
    const struct op_run *run = j->run;
    int64_t q_at = part_at(&j->q, b * j->tq + i, h * j->d), y_at = ((b * j->tq + i) * j->h + h) * j->dv;
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
        int64_t kv_head = h / (j->h / j->hkv);
        int64_t k_at = part_at(&j->k, b * j->tk + k, kv_head * j->d), v_at = part_at(&j->v, b * j->tk + k, kv_head * j->dv);
        for (int64_t c = 0; c < j->dv; c++) {
            double dy = ref_get(j->dtype, run->in[DY], y_at + c);
            dp += dy * ref_get(j->dtype, run->in[j->v.at], v_at + c);
            add(j->dtype, run->out[j->v.at], v_at + c, p * dy);
        }
        double ds = p * (dp - dot);
        if (dbias) add(j->dtype, dbias, bias_at(j, b, h, i, k), ds);
        ds *= slope * j->scale;
        for (int64_t c = 0; c < j->d; c++) {
            add(j->dtype, run->out[j->q.at], q_at + c, ds * ref_get(j->dtype, run->in[j->k.at], k_at + c));
            add(j->dtype, run->out[j->k.at], k_at + c, ds * ref_get(j->dtype, run->in[j->q.at], q_at + c));
        }
    }
}

static void back_ref(const struct op_run *run) {
    const struct attr_attention attrs = forward_attrs(run->node);
    const bool want_bias = ((const struct attr_attention_grad *)run->node->attrs)->want_bias;
    struct job j = job_of(run, &attrs);
    for (int i = 0; i < run->node->n_out; i++) memset(run->out[i], 0, (size_t)type_bytes(&run->node->out[i]->type));
    for (int64_t row = 0; row < j.b * j.tq * j.h; row++)
        back_row(&j, row / (j.tq * j.h), row / j.h % j.tq, row % j.h, want_bias ? run->out[run->node->n_out - 1] : NULL);
}

static double back_flops(const struct node *node) { return 2.5 * flops_of(node, forward_attrs(node).kv_heads); }

#define LOW (-1e30)

/* 1 where a query sees a key, as (B or 1, 1, Tq, Tk) in q's type; NULL where every query sees every key. */
static struct cb_tensor *visible_mask(struct cb_graph *g, const struct node *node, const struct cb_type part[3], bool causal,
                                      int64_t window) {
    const struct cb_type *q = &part[Q];
    int64_t b = q->dim[0], tq = q->dim[1], tk = part[K].dim[1];
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
    struct cb_type part[3], *q = &part[Q], *k = &part[K];
    part_types(node, attrs->kv_heads, part);
    int64_t b = q->dim[0], tq = q->dim[1], h = q->dim[2], d = q->dim[3], tk = k->dim[1], hkv = k->dim[2], dv = part[V].dim[3];
    int64_t groups = hkv ? h / hkv : 1, heads[] = {0, 2, 1, 3};
    // (B,Hkv,G,Tq,D) by (B,Hkv,1,Tk,D)
    struct cb_tensor *apart[3] = {in[Q], in[K], in[V]};
    if (attrs->kv_heads) {
        struct cb_tensor *split = op_split(g, in[Q], 2, 3, (const int64_t[]){h, hkv, hkv});
        for (int i = Q; i <= V; i++) apart[i] = graph_out(g, split, i);
    }
    struct cb_tensor *qh = op_reshape(g, op_permute(g, apart[Q], 4, heads), 5, (int64_t[]){b, hkv, groups, tq, d});
    struct cb_tensor *kh = op_reshape(g, op_permute(g, apart[K], 4, heads), 5, (int64_t[]){b, hkv, 1, tk, d});
    struct cb_tensor *vh = op_reshape(g, op_permute(g, apart[V], 4, heads), 5, (int64_t[]){b, hkv, 1, tk, dv});
    struct cb_tensor *s = op_reshape(g, op_matmul(g, qh, kh, false, true), 4, (int64_t[]){b, h, tq, tk});
    s = op_scale(g, s, attrs->scale != 0 ? attrs->scale : d ? 1 / sqrt((double)d) : 1, 0);
    if (attrs->softcap > 0) s = op_scale(g, op_unary(g, "tanh", op_scale(g, s, 1 / attrs->softcap, 0)), attrs->softcap, 0);
    if (in[BIAS]) s = op_add(g, s, in[BIAS]);
    struct cb_tensor *mask = visible_mask(g, node, part, attrs->causal, attrs->window), *low = ops_scalar(g, q->dtype, LOW);
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
    const struct attr_attention plain = forward_attrs(node);
    struct cb_tensor *in[4], *wrt[4];
    for (int i = Q; i <= BIAS; i++) in[i] = op_alias(g, node->in[i]);
    struct cb_tensor *y = forward(g, node, &plain, in, NULL);
    int n = 0;
    for (int i = Q; i <= BIAS; i++)
        if (in[i] && (i < BIAS || attrs->want_bias)) wrt[n++] = in[i];
    op_expand_grad(g, 1, &y, &node->in[DY], n, wrt, out);
}

static const char *const in_names[] = {"q", "k?", "v?", "bias?", "q_segment?", "k_segment?", "start?", NULL};
static const char *const out_names[] = {"y", "lse", NULL};
static const struct attr_attention plain_attrs = {0}, causal = {.causal = true}, capped = {.causal = true, .softcap = 1.5, .scale = 0.7},
                                   windowed = {.causal = true, .window = 3}, packed = {.causal = true, .kv_heads = 2};
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
    {.name = "packed", .attrs = &packed, .in = {CASE_F32(2, 5, 8, 4), CASE_ABSENT, CASE_ABSENT, CASE_F32(4, 1, 5)}},
    {.name = "packed_one_query", .attrs = &packed, .in = {CASE_F32(3, 1, 6, 8)}},
    {.name = "packed_tiles", .attrs = &packed, .in = {CASE_F32(2, 67, 8, 20)}, .no_grad = true},
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
static const char *const back_in[] = {"q", "k?", "v?", "bias?", "q_segment?", "k_segment?", "start?", "y", "lse", "dy", NULL};
static const char *const back_out[] = {"dq", "dk", "dv", "dbias", NULL};
static const struct attr_attention_grad back_causal = {.causal = true}, back_capped = {.causal = true, .softcap = 1.5, .window = 4},
                                        back_bias = {.want_bias = true}, back_packed = {.causal = true, .kv_heads = 2},
                                        back_packed_bias = {.causal = true, .kv_heads = 2, .want_bias = true};
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
    {.name = "packed_bias",
     .attrs = &back_packed_bias,
     .in = {CASE_F32(2, 5, 6, 4), CASE_ABSENT, CASE_ABSENT, CASE_F32(2, 1, 5), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_F32(2, 5, 2, 4),
            CASE_POSITIVE(2, 2, 5), CASE_F32(2, 5, 2, 4)},
     .no_grad = true},
    {.name = "packed_tiles",
     .attrs = &back_packed,
     .in = {CASE_F32(2, 67, 8, 20), CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_ABSENT, CASE_F32(2, 67, 4, 20),
            CASE_UNIFORM(10, 30, 2, 4, 67), CASE_F32(2, 67, 4, 20)},
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
        "sees nothing gives 0, lse -infinity. kv_heads n > 0: q is (B,T,H+2n,D), whose last heads are k and v, which are absent.",
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
        "dq, dk, dv (dq of all where kv_heads is not 0) and, with want_bias, dbias of attention from its inputs, its outputs y and lse, "
        "and dy (Dao et al., FlashAttention, "
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

/* What q, k and v are the parts of: heads (B,T,H+2Hkv,D) side by side, or NULL. */
static struct cb_tensor *whole_of(struct cb_graph *g, struct cb_tensor *const part[3]) {
    const struct node *split = NULL;
    for (int i = Q; i <= V; i++) {
        const struct cb_tensor *t = part[i];
        if (graph_is_bad(g, t) || t->type.rank != 4) return NULL;
        while (strcmp(t->node->op->name, "reshape") == 0) t = t->node->in[0];
        if (strcmp(t->node->op->name, "split") != 0 || t->index != i || (split && t->node != split)) return NULL;
        split = t->node;
    }
    const struct cb_type *x = &split->in[0]->type, *q = &part[Q]->type;
    const int64_t n_kv = part[K]->type.dim[2], heads = q->dim[2] + 2 * n_kv, d = q->dim[3];
    bool fits = split->n_out == 3 && x->rank == 3 && n_kv > 0 && x->dim[2] == heads * d;
    for (int i = Q; fits && i <= V; i++) {
        const struct cb_type *t = &part[i]->type, *cut = &split->out[i]->type;
        fits = cut->dim[1] == x->dim[1] && t->dim[0] == x->dim[0] && t->dim[1] == x->dim[1] && t->dim[3] == d &&
               t->dim[2] == (i == Q ? q->dim[2] : n_kv) && cut->dim[2] == t->dim[2] * d;
    }
    return fits ? op_reshape(g, split->in[0], 4, (const int64_t[]){x->dim[0], x->dim[1], heads, d}) : NULL;
}

struct cb_tensor *op_attention(struct cb_graph *g, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                               const struct attention_options *o) {
    struct cb_tensor *whole = whole_of(g, (struct cb_tensor *[]){q, k, v});
    struct attr_attention attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.causal = o->causal;
    attrs.scale = o->scale;
    attrs.window = o->window;
    attrs.softcap = o->softcap;
    if (whole) attrs.kv_heads = k->type.dim[2], q = whole, k = v = NULL;
    return graph_node(g, &attention_op, &attrs, 7, (struct cb_tensor *[]){q, k, v, o->bias, o->q_segment, o->k_segment, o->start});
}

const struct op *const op_file_attention[] = {&attention_op, &attention_grad_op, NULL};
