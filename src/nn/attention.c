/* Attention as a block: prefixes, cache, visibility and, where weights are dropped in training, the long way round. */
#include <math.h>
#include <stdlib.h>

#include "nn/nn.h"
#include "ops/ops.h"

/* i32 of a shape, all of one value. */
static struct cb_tensor *filled(struct cb_graph *g, int rank, const int64_t *dim, int64_t value) {
    struct cb_type type = type_make(CB_DTYPE_I32, rank, dim);
    const int32_t v = (int32_t)value;
    return op_expand(g, op_reshape(g, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &v), rank, (const int64_t[]){1, 1}), rank, type.dim);
}

/* i32 (n): 0, 1, ... */
static struct cb_tensor *counted(struct cb_graph *g, int64_t n) {
    int32_t *value = arena_array(g->arena, (size_t)n + 1, sizeof *value);
    if (!value) return graph_fail(g, CB_E_MEMORY, "attention: no memory for %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++) value[i] = (int32_t)i;
    return graph_const(g, type_make(CB_DTYPE_I32, 1, &n), value);
}

/* Rows (B,n,Hkv,D) that a hook puts before the keys or values x of a site; NULL: none. */
static struct cb_tensor *rows_before(struct nn *nn, const char *site, struct cb_tensor *x, const struct nn_attention *options) {
    const struct nn_site *place = nn_find_site(nn, site);
    if (!nn->hook.before || !place || graph_is_bad(nn->g, x)) return NULL;
    const int64_t *d = x->type.dim;
    const struct nn_prefixed what = {options->input, d[2], d[3], options->cache != 0};
    struct cb_tensor *rows = nn->hook.before(nn->hook.user, nn, place, &what);
    if (!rows || graph_is_bad(nn->g, rows)) return rows;
    return op_expand(nn->g, rows, 4, (const int64_t[]){d[0], rows->type.dim[1], d[2], d[3]});
}

/* What a hook adds to the scores of its rows' keys; NULL: nothing. */
static struct cb_tensor *scores_before(struct nn *nn, const char *site, struct cb_tensor *k, const struct nn_attention *options) {
    const struct nn_site *place = nn_find_site(nn, site);
    const struct nn_prefixed what = {options->input, k->type.dim[2], k->type.dim[3], options->cache != 0};
    return place && nn->hook.hidden ? nn->hook.hidden(nn->hook.user, nn, place, &what) : NULL;
}

/* Writes rows into the cache param of this layer, after n rows of a prefix, and returns the whole cache, which is also an output of the same name.
   Nullable: before. */
static struct cb_tensor *cache_write(struct nn *nn, struct cb_tensor *before, int64_t n, struct cb_tensor *rows, struct cb_tensor *start,
                                     const char *part, int64_t capacity) {
    const int64_t *d = rows->type.dim, shape[4] = {d[0], n + capacity, d[2], d[3]};
    const char *name = nn_name(nn, "cache.%d.%s", nn->layer, part);
    struct cb_tensor *cache = graph_param(nn->g, name, type_make(CB_DTYPE_F32, 4, shape));
    if (before) cache = op_cache_write(nn->g, cache, before, filled(nn->g, 1, d, 0));
    cache = op_cache_write(nn->g, cache, rows, start);
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

/* Scores are -1e30 where a query must not look: bias f32 (T,Tk), query 0 standing at key Tk - T. */
static struct cb_tensor *causal_bias(struct cb_graph *g, int64_t t, int64_t tk, int64_t window) {
    float *bias = tk <= 1 << 14 ? malloc((size_t)(t * tk) * sizeof *bias + 1) : NULL;
    if (!bias) return graph_fail(g, CB_E_MEMORY, "attention: no memory for a mask of %lld x %lld", (long long)t, (long long)tk);
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < tk; j++) bias[i * tk + j] = j > i + tk - t || (window && i + tk - t - j >= window) ? -1e30f : 0;
    struct cb_tensor *out = graph_const(g, type_make(CB_DTYPE_F32, 2, (const int64_t[]){t, tk}), bias);
    free(bias);
    return out;
}

struct cb_tensor *nn_hide(struct nn *nn, struct cb_tensor *score, struct cb_tensor *q_segment, struct cb_tensor *k_segment) {
    struct cb_graph *g = nn->g;
    const int32_t everyone = ATTENTION_EVERYONE;
    if (graph_is_bad(g, score) || graph_is_bad(g, q_segment) || graph_is_bad(g, k_segment)) return &g->bad_tensor;
    const int64_t *d = score->type.dim, down[4] = {d[0], 1, d[2], 1}, across[4] = {d[0], 1, 1, d[3]};
    struct cb_tensor *rows = op_reshape(g, q_segment, 4, down), *columns = op_reshape(g, k_segment, 4, across);
    struct cb_tensor *for_all = op_compare(g, "eq", columns, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &everyone));
    struct cb_tensor *others = op_where(g, for_all, score, graph_const_f32(g, -1e30f));
    return op_where(g, op_compare(g, "eq", rows, columns), score, others);
}

/* Attention in simple ops, for dropout between softmax and values: y (B,T,H,D). */
static struct cb_tensor *attention_dropped(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                                           const struct nn_attention *o) {
    struct cb_graph *g = nn->g;
    int64_t heads = q->type.dim[2];
    double scale = o->scale != 0 ? o->scale : 1 / sqrt((double)q->type.dim[3]);
    struct cb_tensor *score = op_matmul(g, op_transpose(g, q, 1, 2), heads_spread(g, k, heads), false, true);
    score = nn_softcap(nn, op_scale(g, score, scale, 0), o->softcap);
    if (!o->bidirectional) score = op_add(g, score, causal_bias(g, q->type.dim[1], k->type.dim[1], o->window));
    if (o->bias) score = op_add(g, score, o->bias);
    if (o->q_segment) score = nn_hide(nn, score, o->q_segment, o->k_segment);
    struct cb_tensor *weight = nn_dropout(nn, op_softmax(g, score, -1), o->dropout);
    return op_transpose(g, op_matmul(g, weight, heads_spread(g, v, heads), false, false), 1, 2);
}

/* A window as a bias, (B,1,T,n + tk): the keys of a prefix, which is no past, are seen from any distance. */
static struct cb_tensor *window_bias(struct nn *nn, const struct nn_attention *o, int64_t batch, int64_t t, int64_t tk, int64_t n) {
    struct cb_graph *g = nn->g;
    const int64_t down[4] = {1, 1, t, 1}, across[4] = {1, 1, 1, n + tk}, rows[4] = {batch, 1, 1, 1};
    struct cb_tensor *key = op_reshape(g, counted(g, n + tk), 4, across), *query = op_reshape(g, counted(g, t), 4, down);
    query = op_add(g, query, op_reshape(g, o->start, 4, rows));
    const int32_t window = (int32_t)o->window, first = (int32_t)n;
    const struct cb_type scalar = type_make(CB_DTYPE_I32, 0, NULL);
    struct cb_tensor *seen = op_compare(g, "lt", op_sub(g, query, key), graph_const(g, scalar, &window));
    struct cb_tensor *is_prefix = op_compare(g, "lt", key, graph_const(g, scalar, &first)), *zero = graph_const_f32(g, 0);
    return op_where(g, is_prefix, zero, op_where(g, seen, zero, graph_const_f32(g, -1e30f)));
}

/* The options with a prefix of n rows: their keys are everyone's, and nothing is added to their scores unless bias has columns for them, or hidden
   says so. tk: keys without them. Nullable: hidden. */
static struct nn_attention with_prefix(struct nn *nn, const struct nn_attention *options, int64_t batch, int64_t t, int64_t tk, int64_t n,
                                       struct cb_tensor *hidden) {
    struct cb_graph *g = nn->g;
    struct nn_attention o = *options;
    o.start = filled(g, 1, &batch, n);
    if (options->start) o.start = op_add(g, options->start, o.start);
    if (o.k_segment) {
        struct cb_tensor *everyone = filled(g, 2, (const int64_t[]){batch, n}, ATTENTION_EVERYONE);
        o.k_segment = op_concat(g, 2, (struct cb_tensor *[]){everyone, o.k_segment}, 1);
    }
    const int rank = o.bias && !graph_is_bad(g, o.bias) ? o.bias->type.rank : 0;
    if (rank && o.bias->type.dim[rank - 1] == tk) {
        const int64_t around[2] = {n, 0};
        o.bias = op_pad(g, o.bias, "constant", 0, 2, around);
    }
    if (hidden) {
        hidden = op_pad(g, hidden, "constant", 0, 2, (const int64_t[]){0, tk});
        o.bias = o.bias ? op_add(g, o.bias, hidden) : hidden;
    }
    if (o.window && !nn->hook.n_past) {
        struct cb_tensor *window = window_bias(nn, &o, batch, t, tk, n);
        o.bias = o.bias ? op_add(g, o.bias, window) : window;
        o.window = 0;
    }
    return o;
}

bool nn_prefix(struct nn *nn, struct cb_tensor **k, struct cb_tensor **v, const struct nn_attention *options, struct nn_prefix *prefix) {
    struct cb_graph *g = nn->g;
    *prefix = (struct nn_prefix){0};
    if (graph_is_bad(g, *k) || graph_is_bad(g, *v)) return false;
    const int64_t width = (*k)->type.dim[2] * (*k)->type.dim[3];
    struct nn_site site = {.name = nn_name(nn, "%s.keys", options->name), .kind = NN_KEYS, .in = width, .out = width};
    site.role = options->role;
    *k = nn_site(nn, &site, *k, *k);
    prefix->k = rows_before(nn, site.name, *k, options);
    const char *keys = site.name;
    site.name = nn_name(nn, "%s.values", options->name);
    site.kind = NN_VALUES;
    *v = nn_site(nn, &site, *v, *v);
    prefix->v = rows_before(nn, site.name, *v, options);
    if (graph_is_bad(g, *k) || graph_is_bad(g, *v)) return false;
    if (!prefix->k || !prefix->v) return true;
    if (graph_is_bad(g, prefix->k) || graph_is_bad(g, prefix->v)) return false;
    prefix->n = prefix->k->type.dim[1];
    prefix->hidden = scores_before(nn, keys, *k, options);
    return true;
}

struct cb_tensor *nn_attention(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                               const struct nn_attention *options) {
    struct cb_graph *g = nn->g;
    struct nn_prefix prefix;
    if (graph_is_bad(g, q) || !nn_prefix(nn, &k, &v, options, &prefix)) return &g->bad_tensor;
    const int64_t batch = q->type.dim[0], tk = options->cache ? options->cache : k->type.dim[1], n = prefix.n;
    struct nn_attention all = *options;
    if (n) all = with_prefix(nn, options, batch, q->type.dim[1], tk, n, prefix.hidden);
    if (n && !options->cache) {
        k = op_concat(g, 2, (struct cb_tensor *[]){prefix.k, k}, 1);
        v = op_concat(g, 2, (struct cb_tensor *[]){prefix.v, v}, 1);
    }
    if (graph_is_bad(g, k) || graph_is_bad(g, v)) return &g->bad_tensor;
    if (nn->train && options->dropout > 0 && !options->cache) return attention_dropped(nn, q, k, v, &all);
    struct attention_options o = {.causal = !options->bidirectional, .scale = options->scale, .window = all.window};
    o.softcap = options->softcap;
    o.bias = all.bias;
    o.q_segment = all.q_segment;
    o.k_segment = all.k_segment;
    o.start = all.start;
    if (options->cache) {
        k = cache_write(nn, n ? prefix.k : NULL, n, k, all.start, "k", options->cache);
        v = cache_write(nn, n ? prefix.v : NULL, n, v, all.start, "v", options->cache);
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
