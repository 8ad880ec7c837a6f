/* Layers as they are: stacking and duplicating them, with a factor where one is given. */
#include <math.h>

#include "merge/merge.h"

static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    (void)gram;
    c[0] = merge_value(job, 0, "scale", 1);
    return NULL;
}

static const struct merge_combination kind = {.coefficients = coefficients};

const struct merge_method merge_passthrough = {
    .name = "passthrough",
    .doc = "theta, times scale; for slices of layers put one on the other.",
    .options = {{"scale", "factor of the tensor", 1, -1e9, 1e9, true, NULL}},
    .base = MERGE_BASE_NONE,
    .min_models = 1,
    .max_models = 1,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
