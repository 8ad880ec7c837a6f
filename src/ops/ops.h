/* Typed builders: one line per op. Each adds a node to g and returns its (first) output; failures are sticky in g (graph/ir.h).
   Shapes: B batch, T time (Tq queries, Tk keys), H heads (Hkv key heads), D head size, C channels, V vocabulary, N rows. */
#ifndef OPS_OPS_H
#define OPS_OPS_H
#include "graph/op.h"

/* All ops, generated from the file names. */
const struct op_table *ops_table(void);
/* Any op by name with attributes as text: "stride=2,axes=0:1". Unknown names, attributes and arities are errors in g. Defaults are zero. */
struct cb_tensor *op_apply(struct cb_graph *g, const char *op, const char *attrs, int n_in, struct cb_tensor *const *in);

/* op_unary.c: elementwise, same shape. */
struct cb_tensor *op_unary(struct cb_graph *g, const char *name, struct cb_tensor *x); /* abs neg exp expm1 log log1p sqrt rsqrt square reciprocal
    sin cos tanh sigmoid erf relu silu gelu gelu_tanh sign floor ... */
struct cb_tensor *op_softplus(struct cb_graph *g, struct cb_tensor *x, double beta, double threshold);
struct cb_tensor *op_elu(struct cb_graph *g, struct cb_tensor *x, double alpha);
struct cb_tensor *op_leaky_relu(struct cb_graph *g, struct cb_tensor *x, double slope);
struct cb_tensor *op_clamp(struct cb_graph *g, struct cb_tensor *x, double low, double high); /* infinities: no bound */
struct cb_tensor *op_pow_scalar(struct cb_graph *g, struct cb_tensor *x, double exponent);
struct cb_tensor *op_scale(struct cb_graph *g, struct cb_tensor *x, double factor, double add); /* factor * x + add */
struct cb_tensor *op_cast(struct cb_graph *g, struct cb_tensor *x, enum cb_dtype dtype);
struct cb_tensor *op_stop_gradient(struct cb_graph *g, struct cb_tensor *x);

/* op_binary.c: elementwise with numpy broadcasting. */
struct cb_tensor *op_add(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_sub(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_mul(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_div(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_pow(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_maximum(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_minimum(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b);
struct cb_tensor *op_compare(struct cb_graph *g, const char *kind, struct cb_tensor *a, struct cb_tensor *b); /* lt le gt ge eq ne -> bool */
struct cb_tensor *op_where(struct cb_graph *g, struct cb_tensor *condition, struct cb_tensor *a, struct cb_tensor *b);

/* op_reduce.c: over axes (n_axes 0: all); negative axes count from the end. */
struct cb_tensor *op_sum(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep);
struct cb_tensor *op_mean(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep);
struct cb_tensor *op_reduce(struct cb_graph *g, const char *kind, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep); /* sum mean
    prod max min logsumexp norm_1 norm_2 norm_inf ... */
/* Sums x down to a broadcast source's shape (the gradient of broadcasting). */
struct cb_tensor *op_sum_to(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape);

/* op_shape.c, op_index.c: moving data. */
struct cb_tensor *op_reshape(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim); /* one -1 is inferred; a view */
struct cb_tensor *op_permute(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *axes);
struct cb_tensor *op_transpose(struct cb_graph *g, struct cb_tensor *x, int axis_a, int axis_b);
struct cb_tensor *op_expand(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim);
struct cb_tensor *op_slice(struct cb_graph *g, struct cb_tensor *x, int axis, int64_t begin, int64_t end, int64_t step);
struct cb_tensor *op_concat(struct cb_graph *g, int n, struct cb_tensor *const *x, int axis);
struct cb_tensor *op_pad(struct cb_graph *g, struct cb_tensor *x, const char *mode, double value, int n, const int64_t *before_after);
struct cb_tensor *op_gather(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, int axis);
struct cb_tensor *op_index_select(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, int axis);

/* op_matmul.c: numpy matmul of a (..., M, K) and b (..., K, N), either transposed in its last two axes; b may be f16, bf16 or a block type
   (its stored rows are read as they are). bias (N) and acc (the output's shape, added in place) are optional (NULL). */
struct cb_tensor *op_matmul(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, bool trans_a, bool trans_b);
struct cb_tensor *op_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias, bool weight_is_in_out);

/* op_softmax.c, op_norm.c */
struct cb_tensor *op_softmax(struct cb_graph *g, struct cb_tensor *x, int axis);
struct cb_tensor *op_log_softmax(struct cb_graph *g, struct cb_tensor *x, int axis);
struct cb_tensor *op_layer_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias, double eps); /* last axis;
    weight, bias nullable */
struct cb_tensor *op_rms_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, double eps, double weight_offset); /* weight nullable */

/* op_embedding.c: table (V,C), ids i32 (...) -> (...,C). */
struct cb_tensor *op_embedding(struct cb_graph *g, struct cb_tensor *table, struct cb_tensor *ids);

/* op_rope.c: x (B,T,H,D), position i32 (B,T) or (T), inv_freq f32 (rot/2): turns the first rot of D features by position * inv_freq, both halves
   (or neighbours where interleaved) scaled by `scale`. */
struct cb_tensor *op_rope(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *position, struct cb_tensor *inv_freq, bool interleaved, double scale);

/* op_attention.c: y (B,Tq,H,D) of q (B,Tq,H,D), k and v (B,Tk,Hkv,D), H a multiple of Hkv. Key j is visible to query i when
   bias is added where given, q_segment[b,i] == k_segment[b,j] (both i32 or both NULL), and, with p = start[b] + i (start i32 (B), NULL: Tk - Tq
   ... as causal_offset says), !causal or j <= p, and window == 0 or p - j < window. A query that sees nothing gives zeros. */
struct attention_options {
    bool causal;
    double scale;   /* 0: 1/sqrt(D) */
    int64_t window; /* 0: none */
    double softcap; /* 0: none; else softcap * tanh(score / softcap) */
    struct cb_tensor *bias;      /* f32, broadcast to (B,H,Tq,Tk); nullable */
    struct cb_tensor *q_segment; /* i32 (B,Tq); nullable */
    struct cb_tensor *k_segment; /* i32 (B,Tk); nullable */
    struct cb_tensor *start;     /* i32 (B): absolute position of query 0 among the keys; NULL: 0 */
};
struct cb_tensor *op_attention(struct cb_graph *g, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v, const struct attention_options *options);

/* op_cache.c: writes rows (B,T,...) into cache (B,Tmax,...) at start[b] (i32 (B)), in place; returns the cache. */
struct cb_tensor *op_cache_write(struct cb_graph *g, struct cb_tensor *cache, struct cb_tensor *rows, struct cb_tensor *start);

/* op_cross_entropy.c, op_linear_cross_entropy.c: mean (or sum) of -log softmax over rows whose label (i32) is not -100. */
struct cb_tensor *op_cross_entropy(struct cb_graph *g, struct cb_tensor *logits, struct cb_tensor *labels, const char *reduction);
/* The same from hidden states x (N,C) and the head's weight (V,C) or (C,V), without ever holding (N,V). bias nullable. */
struct cb_tensor *op_linear_cross_entropy(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias, struct cb_tensor *labels,
                                          bool weight_is_in_out, const char *reduction);

/* op_random.c: seed i64 (1) is an input, so that every step draws anew and can be repeated. */
struct cb_tensor *op_dropout(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *seed, double rate, uint64_t key);
struct cb_tensor *op_random(struct cb_graph *g, const char *kind, struct cb_tensor *seed, struct cb_type type, uint64_t key); /* uniform normal */
#endif
