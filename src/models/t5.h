/* The encoder-decoder of T5 and mT5 (Raffel et al. 2020): relative positions as a bias that all layers share, RMS norms before each part, no biases. */
#ifndef MODELS_T5_H
#define MODELS_T5_H
#include "models/model.h"

struct t5 {
    int64_t encoder_layers, inner, buckets, max_distance;
    const char *activation;
    bool is_gated;
    double eps, dropout, init_factor;
};

enum cb_status t5_parse(struct model *model, const char *name, struct cb_err *err);
enum cb_status t5_weights(struct model *model, struct cb_err *err);
struct cb_tensor *t5_body(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves);
/* For model_class of language models: rows are scaled by 1/sqrt(C) before a tied head. */
struct cb_tensor *t5_head_rows(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                               struct cb_tensor *x);
extern const struct model_class *const t5_classes[];
extern const char *const t5_ignored[];
#endif
