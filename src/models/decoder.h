/* Decoders in the manner of Llama: what their families differ in, read from config.json, and the one body that they share.
   Shapes: B batch, T time, C channels, H heads (Hkv of keys), D head size. */
#ifndef MODELS_DECODER_H
#define MODELS_DECODER_H
#include "models/model.h"
#include "nn/rope.h"

/* What is normed in queries and keys: nothing, each head, or all heads together. */
enum decoder_qk_norm { DECODER_QK_PLAIN, DECODER_QK_HEADS, DECODER_QK_WHOLE };

struct decoder_layer {
    int64_t window;  // 0: all keys before
    int rope;  // index into ropes; -1: no positions
    bool is_sparse;  // a mixture of experts stands for the MLP
};

/* A mixture of experts in place of the MLP; n 0: none. */
struct decoder_experts {
    const char *block;  // "mlp"
    const char *gate, *up, *down;  // an expert's projections
    int64_t n, top_k, inner;
    int64_t shared_inner;  // of the expert that all tokens use; 0: none
    bool normalised;
    double balance, jitter;  // weight of the balance loss; noise in training
};

/* Options of a family; the defaults are Llama's. A family's parse sets what it wants other, then calls decoder_parse, then reads its own keys. */
struct decoder {
    int64_t inner;
    const char *activation;
    double eps, attention_dropout, residual_dropout;
    bool qkv_bias, out_bias, mlp_bias;
    bool is_fused;  // qkv_proj and gate_up_proj
    enum decoder_qk_norm qk_norm;
    double norm_offset;  // norms multiply by this + weight
    const char *norm_before[2], *norm_after[2];  // of attention and MLP: names in a layer; NULL: none
    double embedding_scale;  // 0: 1
    double attention_scale;  // 0: 1/sqrt(D)
    double softcap;  // of scores
    struct rope_source rope_source;  // what a family's rope has other: theta, partial, old_yarn
    struct rope rope[2];
    int n_ropes;
    struct decoder_layer *layer;  // n_layer
    struct decoder_experts experts;
};

/* struct family: options of this body; parse, weights and body follow. */
struct decoder *decoder_options(const struct model *model);
/* The keys that all have: sizes, heads, activation, norms, dropout, rope, tied head. */
enum cb_status decoder_parse(struct model *model, const char *name, struct cb_err *err);
/* Key `key`, an activation; absent: what it is. */
enum cb_status decoder_parse_activation(struct model *model, const char *name, const char *key, struct cb_err *err);
/* Key of a sliding window and of a soft cap; absent: what it is; null, and a window of 0: none. */
enum cb_status decoder_parse_window(struct model *model, const char *name, const char *key, int64_t *window, struct cb_err *err);
enum cb_status decoder_parse_cap(struct model *model, const char *name, const char *key, double *cap, struct cb_err *err);
/* window (0: none) into the layers that the list layer_types calls sliding_attention; where it is absent or not has_types, into those that is_sliding
   (NULL: all) says, with the option given. */
enum cb_status decoder_parse_windows(struct model *model, const char *name, int64_t window, bool has_types,
                                     bool (*is_sliding)(const struct decoder *d, int64_t layer, int64_t option), int64_t option,
                                     struct cb_err *err);
/* sliding_window where use_sliding_window is true, else 0. */
enum cb_status decoder_parse_used_window(struct model *model, const char *name, int64_t *window, struct cb_err *err);
/* For is_sliding: layers from `first` on; all but each `every`-th. */
bool decoder_is_late(const struct decoder *d, int64_t layer, int64_t first);
bool decoder_is_between(const struct decoder *d, int64_t layer, int64_t every);
/* A second rope for the layers with windows, of this base. */
enum cb_status decoder_parse_local_rope(struct model *model, const char *name, double theta, struct cb_err *err);
/* Gemma: what all have other than Llama, before decoder_parse; the four norms from the second on; their own keys, after it. */
void decoder_gemma(struct model *model);
void decoder_gemma_norms(struct decoder *d);
enum cb_status decoder_parse_gemma(struct model *model, const char *name, struct cb_err *err);
/* num_experts_per_tok, router_aux_loss_coef and, with sparse steps, decoder_sparse_step and mlp_only_layers; experts.n and the names are set. */
enum cb_status decoder_parse_experts(struct model *model, const char *name, bool has_sparse_steps, struct cb_err *err);

enum cb_status decoder_weights(struct model *model, struct cb_err *err);
struct cb_tensor *decoder_body(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves);

/* decoder_moe.c: the sparse block of a layer, x (B,T,C) -> (B,T,C); what balance wants is kept in *balance. */
struct decoder_balance {
    struct cb_tensor *counts, *weights;  // (n_experts): choices, and sums of router weights, over all rows so far; NULL: none yet
    struct cb_tensor *rows;  // of one layer that count: rank 0
    int n_layers;
};
struct cb_tensor *decoder_moe(const struct model *model, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                              const char *layer, struct cb_tensor *x, struct decoder_balance *balance);
enum cb_status decoder_moe_weights(struct model *model, const char *layer, struct cb_err *err);
/* The loss that wants experts to be used evenly (Fedus et al. 2021, Switch), times its weight; an output "aux_loss" with want_hidden. */
struct cb_tensor *decoder_balance_loss(const struct model *model, struct nn *nn, const struct model_io *io,
                                       const struct decoder_balance *balance);

/* The sizes of a small one for the generic tests; more keys may follow. */
#define DECODER_TINY                                                                                                                  \
    "hidden_size=24,intermediate_size=44,num_attention_heads=4,num_key_value_heads=2,num_hidden_layers=2,max_position_embeddings=64," \
    "vocab_size=71"

/* The next token, a label a sequence, a label a token; and spans. */
extern const struct model_class *const decoder_classes[], *const decoder_span_classes[], *const decoder_span_old_classes[];
/* Names that the stored buffers of such models end in. */
extern const char *const decoder_ignored[];
#endif
