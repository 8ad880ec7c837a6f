/* Fisher-weighted mean (Matena and Raffel 2022): each parameter by how much each model's loss depends on it. */
#include <math.h>

#include "merge/merge.h"

static void apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const double least = merge_value(job, -1, "floor", 1e-12);
    for (int64_t i = 0; i < t->n; i++) {
        double sum = 0, weights = 0;
        for (int k = 0; k < job->n_models; k++) {
            const double w = merge_value(job, k, "weight", 1) * fmax((double)t->statistic[k][i], least);
            sum += w * (double)t->x[k][i];
            weights += w;
        }
        out[i] = weights != 0 ? (float)(sum / weights) : t->x[0][i];
    }
}

const struct merge_method merge_fisher = {
    .name = "fisher",
    .doc = "sum w F theta / sum w F, F the mean squared gradient of each parameter on --text (Matena and Raffel, 2022).",
    .options = {MERGE_WEIGHT, {"floor", "least information of a parameter", 1e-12, 1e-30, 1, false, NULL}},
    .base = MERGE_BASE_NONE,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .statistic = "fisher",
    .statistic_in_tiles = true,
    .apply = apply,
};
