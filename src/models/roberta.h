/* What RoBERTa and its kin share: all but the names of their classes and their vocabulary. */
#ifndef MODELS_ROBERTA_H
#define MODELS_ROBERTA_H
#include "models/encoder.h"

extern const char *const roberta_ignored[];
extern const struct model_class *const roberta_classes[];
enum cb_status roberta_parse(struct model *model, const char *name, struct cb_err *err);
#endif
