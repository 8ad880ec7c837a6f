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
struct cb_tensor *op_unary(struct cb_graph *g, const char *name,
                           struct cb_tensor *x); /* abs neg exp expm1 log log1p sqrt rsqrt square reciprocal
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
struct cb_tensor *op_compare(struct cb_graph *g, const char *kind, struct cb_tensor *a,
                             struct cb_tensor *b); /* lt le gt ge eq ne -> bool */
struct cb_tensor *op_logical(struct cb_graph *g, const char *kind, struct cb_tensor *a, struct cb_tensor *b); /* logical_and, _or, _xor */
struct cb_tensor *op_logical_not(struct cb_graph *g, struct cb_tensor *a);
struct cb_tensor *op_where(struct cb_graph *g, struct cb_tensor *condition, struct cb_tensor *a, struct cb_tensor *b);

/* op_reduce.c: over axes (n_axes 0: all); negative axes count from the end. */
struct cb_tensor *op_sum(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep);
struct cb_tensor *op_mean(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes, bool keep);
struct cb_tensor *op_reduce(struct cb_graph *g, const char *kind, struct cb_tensor *x, int n_axes, const int64_t *axes,
                            bool keep); /* sum mean
    prod max min logsumexp norm_1 norm_2 norm_inf var var_biased */
struct cb_tensor *op_norm_p(struct cb_graph *g, struct cb_tensor *x, double p, int n_axes, const int64_t *axes,
                            bool keep); /* p > 0 or infinity */
struct cb_tensor *op_var(struct cb_graph *g, struct cb_tensor *x, double correction, int n_axes, const int64_t *axes, bool keep);
/* Sums x down to a broadcast source's shape (the gradient of broadcasting). */
struct cb_tensor *op_sum_to(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape);

/* op_shape.c, op_index.c: moving data. */
struct cb_tensor *op_reshape(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim); /* one -1 is inferred; a view */
struct cb_tensor *op_permute(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *axes);
struct cb_tensor *op_transpose(struct cb_graph *g, struct cb_tensor *x, int axis_a, int axis_b);
struct cb_tensor *op_expand(struct cb_graph *g, struct cb_tensor *x, int rank, const int64_t *dim);
struct cb_tensor *op_repeat(struct cb_graph *g, struct cb_tensor *x, int n, const int64_t *times); /* tiles; may add axes in front */
struct cb_tensor *op_flip(struct cb_graph *g, struct cb_tensor *x, int n_axes, const int64_t *axes);
struct cb_tensor *op_roll(struct cb_graph *g, struct cb_tensor *x, int n, const int64_t *shifts,
                          const int64_t *axes); /* one shift an axis */
struct cb_tensor *op_tril(struct cb_graph *g, struct cb_tensor *x, int64_t diagonal,
                          bool upper); /* keeps column - row <= (upper: >=) diagonal */
/* Python's slicing of one axis: negative ends count from the end, both are held within the axis; step >= 1. */
struct cb_tensor *op_slice(struct cb_graph *g, struct cb_tensor *x, int axis, int64_t begin, int64_t end, int64_t step);
struct cb_tensor *op_concat(struct cb_graph *g, int n, struct cb_tensor *const *x, int axis);
struct cb_tensor *op_stack(struct cb_graph *g, int n, struct cb_tensor *const *x, int axis); /* along a new axis */
struct cb_tensor *op_split(struct cb_graph *g, struct cb_tensor *x, int axis, int n,
                           const int64_t *sizes); /* part i: graph_out(result, i) */
/* Pairs (before, after) for the last n/2 axes in axis order; negative ones crop. mode: constant, reflect, replicate. */
struct cb_tensor *op_pad(struct cb_graph *g, struct cb_tensor *x, const char *mode, double value, int n, const int64_t *before_after);
struct cb_tensor *op_gather(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, int axis);
struct cb_tensor *op_index_select(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, int axis);
/* The index has x's rank (gather), or rank 1 (index_select, index_add); one outside [0, size) reads NaN (0 in integers) and adds nothing.
   scatter_add and index_add: x nullable, then zeros of `shape`. */
struct cb_tensor *op_scatter_add(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape, struct cb_tensor *index,
                                 struct cb_tensor *source, int axis);
struct cb_tensor *op_index_add(struct cb_graph *g, struct cb_tensor *x, const struct cb_type *shape, struct cb_tensor *index,
                               struct cb_tensor *source, int axis);
struct cb_tensor *op_masked_fill(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *mask,
                                 double value); /* mask bool, broadcast to x */

/* op_cumulative.c: along one axis, or from its end where reverse. linear_scan: h_t = a_t h_(t-1) + b_t. */
struct cb_tensor *op_cumsum(struct cb_graph *g, struct cb_tensor *x, int axis, bool reverse);
struct cb_tensor *op_cumprod(struct cb_graph *g, struct cb_tensor *x, int axis, bool reverse);
struct cb_tensor *op_linear_scan(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, int axis, bool reverse);

/* op_sort.c: values; indices (i32) are graph_out(result, 1). NaN ranks above infinity; equal values keep their order. */
struct cb_tensor *op_sort(struct cb_graph *g, struct cb_tensor *x, int axis, bool descending);
struct cb_tensor *op_topk(struct cb_graph *g, struct cb_tensor *x, int64_t k, int axis, bool largest);
struct cb_tensor *op_max_with_index(struct cb_graph *g, struct cb_tensor *x, int axis, bool keep);
/* Position (i32) of the first largest along axis; over all elements where n_axes is 0. argmin: of the smallest. */
struct cb_tensor *op_argmax(struct cb_graph *g, struct cb_tensor *x, int n_axes, int axis, bool keep);
struct cb_tensor *op_argmin(struct cb_graph *g, struct cb_tensor *x, int n_axes, int axis, bool keep);

/* op_matmul.c: numpy matmul of a (..., M, K) and b (..., K, N), either transposed in its last two axes; b may be f16, bf16 or a block type
   (its stored rows are read as they are). bias (N) and acc (the output's shape, added in place) are optional (NULL). */
struct cb_tensor *op_matmul(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, bool trans_a, bool trans_b);
struct cb_tensor *op_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                            bool weight_is_in_out);
/* op_matmul_sum.c: a b + a2 b2 + bias + acc of in: a, b, a2, b2, bias, acc (both nullable); b, b2 matrices. */
struct cb_tensor *op_matmul_sum(struct cb_graph *g, struct cb_tensor *const in[6], bool trans_b, bool trans_b2);

/* op_grouped.c: rows in groups, one matrix a group. group_rows sorts choices ids i32 (N,K) by group: source i32 (N K), row of each sorted choice;
   outputs 1 and 2: place i32 (N,K) and ends i32 (groups+1), group g having the sorted rows [ends[g], ends[g+1]). grouped_linear: y (R,out) = acc
   (nullable: 0) plus, in the rows of groups first .. first+n-1, x (R,in) times their weights (out,in), or (in,out). */
struct cb_tensor *op_group_rows(struct cb_graph *g, struct cb_tensor *ids, int64_t groups);
struct cb_tensor *op_grouped_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *ends, struct cb_tensor *acc, int n,
                                    struct cb_tensor *const *weights, int64_t first, bool weight_is_in_out);

/* op_indexed.c: y (B,T,out) = acc (nullable: 0) plus x (B,T,in) times the weight (out,in), or (in,out), of the number that index i32 (B) has for each
   sequence; where it has none, or one whose weight is NULL, y keeps acc. */
struct cb_tensor *op_indexed_linear(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *index, struct cb_tensor *acc, int n,
                                    struct cb_tensor *const *weights, bool weight_is_in_out);

/* op_softmax.c, op_norm.c */
struct cb_tensor *op_softmax(struct cb_graph *g, struct cb_tensor *x, int axis);
struct cb_tensor *op_log_softmax(struct cb_graph *g, struct cb_tensor *x, int axis);
struct cb_tensor *op_layer_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                double eps); /* last axis;
    weight, bias nullable */
struct cb_tensor *op_rms_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, double eps,
                              double weight_offset); /* weight nullable */
/* x (B,C,...), weight and bias (C), nullable. */
struct cb_tensor *op_group_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias, int64_t groups,
                                double eps);
/* running_mean and running_var (C). Where training: batch statistics, and outputs 1 and 2 are the new running ones (unbiased variance). */
struct cb_tensor *op_batch_norm(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                struct cb_tensor *running_mean, struct cb_tensor *running_var, bool training, double momentum, double eps);
struct cb_tensor *op_weight_norm(struct cb_graph *g, struct cb_tensor *v, struct cb_tensor *scale,
                                 int axis); /* scale v / |v|, norm over all axes but one */
struct cb_tensor *op_cosine_similarity(struct cb_graph *g, struct cb_tensor *a, struct cb_tensor *b, int axis,
                                       double eps); /* a, b broadcast */

/* op_embedding.c: table (V,C), ids i32 (...) -> (...,C). */
struct cb_tensor *op_embedding(struct cb_graph *g, struct cb_tensor *table, struct cb_tensor *ids);
/* The row of padding_idx gets no gradient. */
struct cb_tensor *op_embedding_padded(struct cb_graph *g, struct cb_tensor *table, struct cb_tensor *ids, int64_t padding_idx);

/* op_rope.c: x (B,T,H,D), position i32 (B,T) or (T), inv_freq f32 (rot/2): turns the first rot of D features by position * inv_freq, both halves
   (or neighbours where interleaved) scaled by `scale`. */
struct cb_tensor *op_rope(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *position, struct cb_tensor *inv_freq, bool interleaved,
                          double scale);

/* op_attention.c: y (B,Tq,H,D) of q (B,Tq,H,D), k (B,Tk,Hkv,D) and v (B,Tk,Hkv,Dv), H a multiple of Hkv; output 1 is lse (B,H,Tq). bias is
   added where given. Key j is visible to query i when q_segment[b,i] == k_segment[b,j] or k_segment[b,j] is ATTENTION_EVERYONE (both i32 or both NULL), and, with p = start[b] + i (start i32 (B), NULL: 0),
   !causal or j <= p, and window == 0 or p - j < window. A query that sees nothing gives zeros. q, k and v that are the parts of one split (B,T,(H+2Hkv)D)
   are read where they lie, and have one gradient. */
struct attention_options {
    bool causal;
    double scale; /* 0: 1/sqrt(D) */
    int64_t window; /* 0: none */
    double softcap; /* 0: none; else softcap * tanh(score / softcap) */
    struct cb_tensor *bias; /* f32, broadcast to (B,H,Tq,Tk); nullable */
    struct cb_tensor *q_segment; /* i32 (B,Tq); nullable */
    struct cb_tensor *k_segment; /* i32 (B,Tk); nullable */
    struct cb_tensor *start; /* i32 (B): absolute position of query 0 among the keys; NULL: 0 */
};
struct cb_tensor *op_attention(struct cb_graph *g, struct cb_tensor *q, struct cb_tensor *k, struct cb_tensor *v,
                               const struct attention_options *options);

/* op_cache.c: writes rows (B,T,...) into cache (B,Tmax,...) at start[b] (i32 (B)), in place; returns the cache. */
struct cb_tensor *op_cache_write(struct cb_graph *g, struct cb_tensor *cache, struct cb_tensor *rows, struct cb_tensor *start);

/* op_cross_entropy.c, op_linear_cross_entropy.c: mean (or sum) of -log softmax over rows whose label (i32) is not -100. */
struct cb_tensor *op_cross_entropy(struct cb_graph *g, struct cb_tensor *logits, struct cb_tensor *labels, const char *reduction);
/* The same from hidden states x (N,C) and the head's weight (V,C) or (C,V), without ever holding (N,V). bias nullable; softcap 0: none. */
struct cb_tensor *op_linear_cross_entropy(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *weight, struct cb_tensor *bias,
                                          struct cb_tensor *labels, bool weight_is_in_out, double softcap, const char *reduction);

/* All of PyTorch's options. logits (N,V) or (N,V,...), classes on axis 1; target i32 labels of the remaining shape, or probabilities of the
   logits' shape. reduction mean, sum or none; weight (V) nullable; ignore_index is -100 unless one wants another. */
struct cross_entropy_options {
    const char *reduction;
    struct cb_tensor *weight;
    double label_smoothing;
    int64_t ignore_index;
};
struct cb_tensor *op_cross_entropy_full(struct cb_graph *g, struct cb_tensor *logits, struct cb_tensor *target,
                                        const struct cross_entropy_options *options);

/* einsum.c: "bij,bjk->bik": letters, repeated ones for diagonals, "..." for broadcast axes; without "->" the letters that occur once. Up to 8. */
struct cb_tensor *op_einsum(struct cb_graph *g, const char *equation, int n, struct cb_tensor *const *x);

/* op_linalg.c: square matrices in the last two axes. */
struct cb_tensor *op_inverse(struct cb_graph *g, struct cb_tensor *a);
struct cb_tensor *op_solve(struct cb_graph *g, struct cb_tensor *a,
                           struct cb_tensor *b); /* a^-1 b; b (...,N,K), or a vector (N) beside a matrix */
struct cb_tensor *op_cholesky(struct cb_graph *g, struct cb_tensor *a); /* lower */
struct cb_tensor *op_logdet(struct cb_graph *g, struct cb_tensor *a);
struct cb_tensor *op_svdvals(struct cb_graph *g, struct cb_tensor *a); /* (...,M,N) -> (...,min(M,N)), falling */

/* op_alias.c: y = x as a node of its own (NULL gives NULL). */
struct cb_tensor *op_alias(struct cb_graph *g, struct cb_tensor *x);
/* For the expand hook of a gradient op: out is its forward op expanded over aliases wrt (NULLs are passed over); grads[i] = the gradient of
   sum out[i] dout[i] with respect to wrt[i], zeros where there is none. dout[i] nullable. */
void op_expand_grad(struct cb_graph *g, int n_out, struct cb_tensor *const *out, struct cb_tensor *const *dout, int n,
                    struct cb_tensor *const *wrt, struct cb_tensor **grads);

/* op_random.c: seed i64 (1) is an input, so that every step draws anew and can be repeated. */
struct cb_tensor *op_dropout(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *seed, double rate, uint64_t key);
struct cb_tensor *op_random(struct cb_graph *g, const char *kind, struct cb_tensor *seed, struct cb_type type,
                            uint64_t key); /* uniform normal */

/* op_call.c: subgraphs as nodes. A body is a graph of its own (inputs "arg.0", "arg.1", ..., outputs in order, params by name) that must outlive g.
   call: the body's outputs for these inputs; output i by graph_out. */
struct cb_tensor *op_call(struct cb_graph *g, const struct cb_graph *body, int n, struct cb_tensor *const *in);
/* scan: the body runs once for each index of the sequences' first axis. in: n_carry carries, then sequences (T,...). The body's arguments are the carries
   and one step of each sequence; its first n_carry outputs are the next carries. Outputs: the last carries, then the other outputs, stacked (T,...). */
struct cb_tensor *op_scan(struct cb_graph *g, const struct cb_graph *body, int n_carry, int n, struct cb_tensor *const *in);
#endif
