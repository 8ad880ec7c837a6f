/* The encoder-decoder of BART and its kin (Vaswani et al. 2017; Lewis et al. 2020): learned or sinusoidal positions, norms after or before each part.
   A family's options begin with struct seq2seq. */
#ifndef MODELS_SEQ2SEQ_H
#define MODELS_SEQ2SEQ_H
#include "models/model.h"

/* What differs between families but not between checkpoints. */
struct seq2seq_kind {
    bool pre_norm;  // a norm before each part and after the stack; else one after each part
    bool embedding_norm;  // layernorm_embedding
    int64_t learned_offset;  // first row of embed_positions that is used; -1: no learned positions
    /* Rows (T,C) or (B,T,C) of sinusoidal positions; NULL: learned. positions (T) or (B,T), below length. start nullable. */
    struct cb_tensor *(*positions)(const struct model *model, struct nn *nn, struct cb_tensor *ids, struct cb_tensor *positions,
                                   struct cb_tensor *start, int64_t length);
    const char *activation;  // where config.json names none
};

struct seq2seq {
    const struct seq2seq_kind *kind;
    int64_t encoder_layers, encoder_heads, encoder_inner, decoder_inner, table;
    const char *activation;
    double dropout, attention_dropout, activation_dropout, classifier_dropout, scale;
};

enum cb_status seq2seq_parse(struct model *model, const char *name, const struct seq2seq_kind *kind, struct cb_err *err);
enum cb_status seq2seq_weights(struct model *model, struct cb_err *err);
struct cb_tensor *seq2seq_body(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves);
/* For model_class of models with a language head: final_logits_bias. */
enum cb_status seq2seq_logits_bias(struct model *model, struct cb_err *err);
/* classification_head over the decoder's row of the last end of text: (B,C). */
enum cb_status seq2seq_classifier_weights(struct model *model, struct cb_err *err);
struct cb_tensor *seq2seq_classifier(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                                     struct cb_tensor *x);
/* BART's and mBART's: generation, a label, spans; what files hold besides. */
extern const struct model_class *const seq2seq_classes[];
extern const char *const seq2seq_ignored[];
#endif
