/* Weighted mean of models (model soups, Wortsman et al. 2022). */
#include <math.h>

#include "merge/merge.h"

static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    double sum = 0;
    (void)gram;
    for (int k = 0; k < job->n_models; k++) sum += c[k] = merge_value(job, k, "weight", 1);
    if (merge_value(job, -1, "normalize", 1) == 0) return NULL;
    if (sum == 0) return "found weights that add up to 0; wanted another sum, or normalize: false";
    for (int k = 0; k < job->n_models; k++) c[k] /= sum;
    return NULL;
}

static const struct merge_combination kind = {.coefficients = coefficients};

const struct merge_method merge_linear = {
    .name = "linear",
    .doc = "sum w theta / sum w (model soups, Wortsman et al., 2022).",
    .options = {MERGE_WEIGHT, MERGE_NORMALIZE(1)},
    .base = MERGE_BASE_NONE,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
