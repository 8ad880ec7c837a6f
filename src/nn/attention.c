/* Attention as a block: cache, visibility and, where weights are dropped in training, the long way round. */
#include <math.h>
#include <stdlib.h>

#include "nn/nn.h"
#include "ops/ops.h"

/* Writes rows into the cache param of this layer and returns the whole cache, which is also an output of the same name. */
static struct cb_tensor *cache_write(struct nn *nn, struct cb_tensor *rows, const char *part, const struct nn_attention *options) {
    const int64_t *d = rows->type.dim, shape[4] = {d[0], options->cache, d[2], d[3]};
    const char *name = nn_name(nn, "cache.%d.%s", nn->layer, part);
    struct cb_tensor *cache = graph_param(nn->g, name, type_make(CB_DTYPE_F32, 4, shape));
    cache = op_cache_write(nn->g, cache, rows, options->start);
    graph_output(nn->g, cache, name);
    return cache;
}

/* (B,T,Hkv,D) -> (B,H,T,D), each key head repeated for the query heads that share it. */
static struct cb_tensor *heads_spread(struct cb_graph *g, struct cb_tensor *x, int64_t heads) {
    const int64_t *d = x->type.dim, split[5] = {d[0], d[2], 1, d[1], d[3]}, wide[5] = {d[0], d[2], heads / d[2], d[1], d[3]};
    const int64_t joined[4] = {d[0], heads, d[1], d[3]};
    x = op_transpose(g, x, 1, 2);
    if (heads == d[2]) return x;
    return op_reshape(g, op_expand(g, op_reshape(g, x, 5, split), 5, wide), 4, joined);
}

/* Scores are -1e30 where a query must not look: bias f32 (T,T). */
static struct cb_tensor *causal_bias(struct cb_graph *g, int64_t t, int64_t window) {
    float *bias = t <= 1 << 14 ? malloc((size_t)(t * t) * sizeof *bias + 1) : NULL;
    if (!bias) return graph_fail(g, CB_E_MEMORY, "attention: no memory for a mask of %lld x %lld", (long long)t, (long long)t);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < t; j++) bias[i * t + j] = j > i || (window && i - j >= window) ? -1e30f : 0;
    struct cb_tensor *out = graph_const(g, type_make(CB_DTYPE_F32, 2, (const int64_t[]){t, t}), bias);
    free(bias);
    return out;
}

/* Attention in simple ops, for dropout between softmax and values: y (B,T,H,D). */
static struct cb_tensor *attention_dropped(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                                           const struct nn_attention *o) {
    struct cb_graph *g = nn->g;
    int64_t b = q->type.dim[0], t = q->type.dim[1], tk = k->type.dim[1], heads = q->type.dim[2];
    double scale = o->scale != 0 ? o->scale : 1 / sqrt((double)q->type.dim[3]);
    struct cb_tensor *score = op_matmul(g, op_transpose(g, q, 1, 2), heads_spread(g, k, heads), false, true);
    score = nn_softcap(nn, op_scale(g, score, scale, 0), o->softcap);
    if (!o->bidirectional) score = op_add(g, score, causal_bias(g, t, o->window));
    if (o->bias) score = op_add(g, score, o->bias);
    // rows of other segments
    if (o->q_segment) {
        struct cb_tensor *rows = op_reshape(g, o->q_segment, 4, (const int64_t[]){b, 1, t, 1});
        struct cb_tensor *columns = op_reshape(g, o->k_segment, 4, (const int64_t[]){b, 1, 1, tk});
        score = op_where(g, op_compare(g, "eq", rows, columns), score, graph_const_f32(g, -1e30f));
    }
    struct cb_tensor *weight = nn_dropout(nn, op_softmax(g, score, -1), o->dropout);
    return op_transpose(g, op_matmul(g, weight, heads_spread(g, v, heads), false, false), 1, 2);
}

struct cb_tensor *nn_attention(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                               const struct nn_attention *options) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, q) || graph_is_bad(g, k) || graph_is_bad(g, v)) return &g->bad_tensor;
    int64_t width = k->type.dim[2] * k->type.dim[3];
    struct nn_site site = {.name = nn_name(nn, "%s.keys", options->name), .kind = NN_KEYS, .in = width, .out = width};
    k = nn_site(nn, &site, k, k);
    site.name = nn_name(nn, "%s.values", options->name);
    site.kind = NN_VALUES;
    v = nn_site(nn, &site, v, v);
    if (nn->train && options->dropout > 0 && !options->cache && !graph_is_bad(g, k) && !graph_is_bad(g, v))
        return attention_dropped(nn, q, k, v, options);
    struct attention_options o = {.causal = !options->bidirectional, .scale = options->scale, .window = options->window};
    o.softcap = options->softcap;
    o.bias = options->bias;
    o.q_segment = options->q_segment;
    o.k_segment = options->k_segment;
    if (options->cache) {
        k = cache_write(nn, k, "k", options);
        v = cache_write(nn, v, "v", options);
        o.start = options->start;
    }
    return op_attention(g, q, k, v, &o);
}

void nn_split_heads(struct nn *nn, struct cb_tensor *x, int64_t heads, struct cb_tensor *qkv[3]) {
    qkv[0] = qkv[1] = qkv[2] = &nn->g->bad_tensor;
    if (graph_is_bad(nn->g, x)) return;
    const int64_t d = x->type.dim[2] / heads / 3, shape[4] = {x->type.dim[0], x->type.dim[1], heads, 3 * d};
    struct cb_tensor *parts = op_split(nn->g, op_reshape(nn->g, x, 4, shape), -1, 3, (const int64_t[]){d, d, d});
    for (int i = 0; i < 3; i++) qkv[i] = graph_out(nn->g, parts, i);
}
