/* Multi-head attention with its projections, and feed-forward layers, by names that a family gives. */
#include "nn/block.h"

#include <string.h>

#include "ops/ops.h"

static struct cb_tensor *linear(struct nn *nn, struct cb_tensor *x, const char *path, const char *name, const char *role, int64_t in,
                                int64_t out, bool bias) {
    struct nn_linear l = {.name = nn_name(nn, "%s%s%s", path, *path ? "." : "", name), .in = in, .out = out, .bias = bias};
    l.role = role;
    return nn_linear(nn, x, &l);
}

static bool is_named(const char *name, const char *wanted) { return wanted && strcmp(name, wanted) == 0; }

struct cb_tensor *nn_heads_project(struct nn *nn, struct cb_tensor *x, const struct nn_heads *h, const char *name, bool bias) {
    const char *role = is_named(name, h->q) ? "q" : is_named(name, h->k) ? "k" : is_named(name, h->v) ? "v" : NULL;
    struct cb_tensor *y = linear(nn, x, h->path, name, role, h->width, h->heads * h->head_dim, bias);
    if (graph_is_bad(nn->g, y)) return y;
    return op_reshape(nn->g, y, 4, (const int64_t[]){x->type.dim[0], x->type.dim[1], h->heads, h->head_dim});
}

struct cb_tensor *nn_heads(struct nn *nn, struct cb_tensor *x, struct cb_tensor *k, struct cb_tensor *v, const struct nn_heads *h,
                           const struct nn_attention *attention) {
    struct cb_tensor *q = nn_heads_project(nn, x, h, h->q, !h->no_bias);
    if (!k) k = nn_heads_project(nn, x, h, h->k, !h->no_bias && !h->k_without_bias);
    if (!v) v = nn_heads_project(nn, x, h, h->v, !h->no_bias);
    struct nn_attention a = *attention;
    a.input = x;
    return nn_heads_join(nn, q, k, v, h, &a);
}

struct cb_tensor *nn_heads_join(struct nn *nn, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v, const struct nn_heads *h,
                                const struct nn_attention *attention) {
    if (graph_is_bad(nn->g, q)) return q;
    const int64_t joined[3] = {q->type.dim[0], q->type.dim[1], h->heads * h->head_dim};
    struct cb_tensor *y = op_reshape(nn->g, nn_attention(nn, q, k, v, attention), 3, joined);
    return linear(nn, y, h->path, h->out, "o", joined[2], h->width, !h->no_bias);
}

/* A cache of the layer; rows, where there are any, are written from its beginning. */
static struct cb_tensor *memory_cache(struct nn *nn, const struct nn_heads *h, const char *part, int64_t batch, int64_t capacity,
                                      struct cb_tensor *rows) {
    const int64_t shape[4] = {batch, capacity, h->heads, h->head_dim};
    const char *name = nn_name(nn, "cache.%d.cross_%s", nn->layer, part);
    struct cb_tensor *cache = graph_param(nn->g, name, type_make(CB_DTYPE_F32, 4, shape));
    int32_t *zeros = rows ? arena_array(nn->g->arena, (size_t)batch, sizeof *zeros) : NULL;
    if (!rows) return cache;
    if (!zeros) return graph_fail(nn->g, CB_E_MEMORY, "%s: no memory for %lld rows", name, (long long)batch);
    cache = op_cache_write(nn->g, cache, rows, graph_const(nn->g, type_make(CB_DTYPE_I32, 1, &batch), zeros));
    graph_output(nn->g, cache, name);
    return cache;
}

void nn_heads_memory(struct nn *nn, struct cb_tensor *memory, const struct nn_heads *h, int64_t batch, int64_t capacity,
                     struct cb_tensor **k, struct cb_tensor **v) {
    *k = memory ? nn_heads_project(nn, memory, h, h->k, !h->no_bias && !h->k_without_bias) : NULL;
    *v = memory ? nn_heads_project(nn, memory, h, h->v, !h->no_bias) : NULL;
    if (!capacity) return;
    *k = memory_cache(nn, h, "k", batch, capacity, *k);
    *v = memory_cache(nn, h, "v", batch, capacity, *v);
}

struct cb_tensor *nn_feed_forward(struct nn *nn, struct cb_tensor *x, const struct nn_feed_forward *f) {
    struct cb_tensor *y = linear(nn, x, f->path, f->gate ? f->gate : f->up, f->gate ? "gate" : "up", f->width, f->inner, !f->no_bias);
    y = nn_activation(nn, f->activation, y);
    if (f->gate) y = op_mul(nn->g, y, linear(nn, x, f->path, f->up, "up", f->width, f->inner, !f->no_bias));
    return linear(nn, nn_dropout(nn, y, f->dropout), f->path, f->down, "down", f->inner, f->width, !f->no_bias);
}
