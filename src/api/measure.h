/* What methods of merging want to know of a model on a text: Fisher information, Gram matrices of its layers' inputs. */
#ifndef API_MEASURE_H
#define API_MEASURE_H
#include "api/instance.h"
#include "io/safetensors.h"

struct measure_options {
    const char *const *text;
    int n_text;
    int64_t samples;  // rows at most
    bool gram;  // Gram matrices; else squared gradients
};

/* Measures a model and writes safetensors: mean squared gradients of a row's loss under the weights' names, or (in,in) sums of x x' under the name of each linear
   layer's weight. */
enum cb_status measure_model(struct cb_engine *engine, const char *model, const struct measure_options *options, const char *path,
                             struct cb_err *err);
#endif
