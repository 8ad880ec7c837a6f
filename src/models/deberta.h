/* What the versions of DeBERTa share. A family's options are struct deberta. */
#ifndef MODELS_DEBERTA_H
#define MODELS_DEBERTA_H
#include "models/encoder.h"

struct deberta {
    struct encoder encoder;  // first: what encoder.c reads
    struct encoder_names names;  // the family's, with those of the head that is meant
    bool legacy;  // the head of masked tokens that is named as BERT's; else that of the authors' files, lm_predictions
    bool relative, absolute;  // positions in attention; positions added to the embeddings
    bool content_to_position, position_to_content;
    bool shares_keys;  // positions pass the projections of contents, else those of the next two names
    const char *position_key, *position_query;  // below a layer's path
    bool position_key_bias;
    bool norms_positions;
    int64_t buckets, distance, span;  // of relative positions; rows of rel_embeddings are 2 span
    int64_t kernel, groups;  // of the convolution (v2); kernel 0: none
    const char *conv_activation, *pooler_activation;
    double pooler_dropout;
};

/* Biases of queries and values where these have one projection with the keys; below a layer's path. */
#define DEBERTA_QUERY_BIAS "attention.self.q_bias"
#define DEBERTA_VALUE_BIAS "attention.self.v_bias"

/* Everything but the convolution; names of positions' projections are the family's. */
enum cb_status deberta_parse(struct model *model, const struct encoder_names *names, const char *name, struct cb_err *err);
enum cb_status deberta_weights(struct model *model, struct cb_err *err);

/* For struct encoder_names. */
struct cb_tensor *deberta_embed(const struct model *model, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves);
struct cb_tensor *deberta_attention(const struct model *model, struct nn *nn, const struct model_leaves *leaves, const char *path,
                                    struct cb_tensor *x);
/* x (B,T,C), zero at padding. */
struct cb_tensor *deberta_masked(struct cb_graph *g, struct cb_tensor *x, const struct model_leaves *leaves);

/* Paths of struct encoder_names that are the same in all versions. */
#define DEBERTA_NAMES                                                                                                               \
    .embeddings = "deberta.embeddings", .layer = "deberta.encoder.layer.%d", .out = "attention.output.dense",                       \
    .attention_norm = "attention.output.LayerNorm", .up = "intermediate.dense", .down = "output.dense", .norm = "output.LayerNorm", \
    .joins = {"attention.output", "output"}, .pooler = "pooler.dense", .transform = "cls.predictions.transform.dense",              \
    .transform_norm = "cls.predictions.transform.LayerNorm", .embed = deberta_embed, .attention = deberta_attention

extern const char *const deberta_ignored[];
extern const struct model_class *const deberta_classes[];
#endif
