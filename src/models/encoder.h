/* The body that BERT and its kin share (Devlin et al. 2019): embeddings of words, positions and segments, then blocks with a norm after each part.
   A family's options begin with struct encoder; names and a few switches are its own. */
#ifndef MODELS_ENCODER_H
#define MODELS_ENCODER_H
#include "models/model.h"

/* Names of weights, and what differs between families but not between checkpoints. */
struct encoder_names {
    const char *embeddings;  // path of word_embeddings, position_embeddings, token_type_embeddings and LayerNorm
    const char *project;  // from the embeddings' width to the blocks'; NULL: none
    const char *layer;  // path of a block: a format for its number; with shared layers for the group's and the block's
    const char *q, *k, *v, *out, *attention_norm, *up, *down, *norm;  // below a block's path
    const char *distances;  // a table of distances that queries and keys meet, where config.json says so; NULL: it never does
    const char *fused;  // q, k and v of one projection without bias; NULL: each has its own
    const char *joins[2];  // where the adapters library keeps what it adds to attention and to the MLP; NULL: as model_join_name
    const char *pooler;  // tanh of a linear layer over the first row; NULL: none
    const char *transform, *transform_norm;  // before a masked language model's vocabulary
    const char *transform_activation;  // NULL: the blocks'
    const char *dense, *dense_activation;  // before a classifier; NULL: none
    bool project_always;  // also where the widths are equal
    bool distances_unscaled;  // what they add to the scores is not divided by the root of the head's size
    bool counts_positions;  // from pad + 1, padding left out (RoBERTa)
    /* In place of encoder_embed, of a block's attention with its projections, and after a layer; each nullable. */
    struct cb_tensor *(*embed)(const struct model *model, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves);
    struct cb_tensor *(*attention)(const struct model *model, struct nn *nn, const struct model_leaves *leaves, const char *path,
                                   struct cb_tensor *x);
    struct cb_tensor *(*after)(const struct model *model, struct nn *nn, const struct model_leaves *leaves, struct cb_tensor *embedded,
                               struct cb_tensor *x);
};
/* Keys of config.json; NULL in a family's table: BERT's. */
struct encoder_keys {
    const char *hidden, *layers, *heads, *inner, *activation, *dropout, *attention_dropout, *classifier_dropout;
};

struct encoder {
    const struct encoder_names *names;
    int64_t embedding, inner, table;  // widths; rows of position_embeddings
    int64_t groups, group_size;  // of shared layers; 0: each layer is its own
    const char *activation;
    double eps, dropout, attention_dropout, classifier_dropout;
    bool query_distances;  // positions are not added to the embeddings: scores get the distance's row times the query
    bool key_distances;  // and times the key
};

enum cb_status encoder_parse(struct model *model, const char *name, const struct encoder_names *names, const struct encoder_keys *keys,
                             struct cb_err *err);
enum cb_status encoder_weights(struct model *model, struct cb_err *err);
struct cb_tensor *encoder_body(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves);
/* The layers alone; the embeddings alone, up to their dropout: (B,T,embedding). */
enum cb_status encoder_layer_weights(struct model *model, struct cb_err *err);
struct cb_tensor *encoder_embed(const struct model *model, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves);

/* For model_class: dense, activation and norm of a masked language model; with model_head_masked_lm, whose bias the class names. */
enum cb_status encoder_masked_weights(struct model *model, struct cb_err *err);
struct cb_tensor *encoder_masked(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x);
/* The pooler over the first row: (B,C); encoder_pooled has the classifier's dropout behind it. */
struct cb_tensor *encoder_pooler(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x);
/* For struct family: the same, where the model has the pooler's weights. */
struct cb_tensor *encoder_given_pooler(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                       struct cb_tensor *x);
enum cb_status encoder_pooled_weights(struct model *model, struct cb_err *err);
struct cb_tensor *encoder_pooled(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x);
/* The first row through names->dense, dropout before and after: (B,C). */
enum cb_status encoder_dense_weights(struct model *model, struct cb_err *err);
struct cb_tensor *encoder_dense(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                struct cb_tensor *x);
/* All rows with the classifier's dropout. */
struct cb_tensor *encoder_tokens(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                 struct cb_tensor *x);

/* The row ForMaskedLM by the names of the vocabulary's layer and of its bias; NULL: the layer's own. */
#define ENCODER_MASKED(linear_, bias_)                                                                                             \
    {                                                                                                                              \
        .name = "ForMaskedLM", .head = &model_head_masked_lm, .linear = linear_, .bias = bias_, .weights = encoder_masked_weights, \
        .features = encoder_masked                                                                                                 \
    }
/* Rows that several of the families list as they are. */
extern const struct model_class encoder_class_masked;  // ForMaskedLM: cls.predictions
extern const struct model_class encoder_class_pooled;  // ForSequenceClassification: the pooler
extern const struct model_class encoder_class_pooled_choice;  // ForMultipleChoice: the same
extern const struct model_class encoder_class_dense;  // ForSequenceClassification: names->dense and classifier.out_proj
extern const struct model_class encoder_class_tokens;  // ForTokenClassification
extern const struct model_class encoder_class_tokens_plain;  // the same with the body's dropout, not the classifier's
extern const struct model_class encoder_class_states;  // Model, with the pooler where the file has one: output pooler_output
#endif
