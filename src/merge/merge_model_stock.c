/* Model stock (Jang et al. 2024): between the base and the mean, by the angle of the differences. */
#include <math.h>

#include "merge/merge.h"

static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    const int n = job->n_models;
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            sum += fmin(fmax(gram[i * n + j] / fmax(sqrt(gram[i * n + i]) * sqrt(gram[j * n + j]), 1e-6), -1), 1);
    const double cosine = sum / (n * (n - 1) / 2.0), below = 1 + (n - 1) * cosine;
    const double t = fabs(below) < 1e-6 ? 0 : n * cosine / below;
    for (int k = 0; k < n; k++) c[k] = t / n;
    return NULL;
}

static enum merge_axis axis(const struct merge_job *job) { return merge_value(job, -1, "filter_wise", 0) != 0 ? MERGE_ROWS : MERGE_WHOLE; }

static const struct merge_combination kind = {.coefficients = coefficients, .gram = true, .axis = axis};

const struct merge_method merge_model_stock = {
    .name = "model_stock",
    .doc = "theta0 + t mean tau, t = n cos / (1 + (n - 1) cos) by the mean cosine of pairs (model stock, Jang et al., 2024).",
    .options = {{"filter_wise", "a t for each row", 0, 0, 1, false, NULL}},
    .base = MERGE_BASE_WANTED,
    .min_models = 2,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
