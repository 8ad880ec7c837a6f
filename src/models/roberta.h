/* What RoBERTa and XLM-RoBERTa share: all but the names of their classes and their vocabulary. */
#ifndef MODELS_ROBERTA_H
#define MODELS_ROBERTA_H
#include "models/encoder.h"

extern const char *const roberta_ignored[];
enum cb_status roberta_parse(struct model *model, const char *name, struct cb_err *err);

/* The classes of a family whose names begin with `prefix`. */
#define ROBERTA_CLASSES(prefix)                                                                                                    \
    {.name = prefix "ForMaskedLM",                                                                                                 \
     .head = &model_head_masked_lm,                                                                                                \
     .linear = "lm_head.decoder",                                                                                                  \
     .bias = "lm_head.bias",                                                                                                       \
     .weights = encoder_masked_weights,                                                                                            \
     .features = encoder_masked},                                                                                                  \
        {.name = prefix "ForSequenceClassification",                                                                               \
         .head = &model_head_sequence,                                                                                             \
         .linear = "classifier.out_proj",                                                                                          \
         .weights = encoder_dense_weights,                                                                                         \
         .features = encoder_dense},                                                                                               \
        {.name = prefix "ForTokenClassification", .head = &model_head_tokens, .linear = "classifier", .features = encoder_tokens}, \
        {.name = prefix "ForQuestionAnswering", .head = &model_head_span, .linear = "qa_outputs"},                                 \
        {.name = prefix "ForMultipleChoice",                                                                                       \
         .head = &model_head_choice,                                                                                               \
         .linear = "classifier",                                                                                                   \
         .weights = encoder_pooled_weights,                                                                                        \
         .features = encoder_pooled},                                                                                              \
        {.name = prefix "Model", .head = &model_head_states}, {.name = NULL},
#endif
