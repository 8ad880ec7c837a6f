/* Weighted mean on a sphere by one tangent plane (multi-SLERP of mergekit). */
#include <math.h>

#include "merge/merge.h"

/* All in coefficients of x: u_k = x_k / norm_k, m = sum w u / |sum w u|, T = sum w (u - (u.m) m), m cos|T| + T sin|T| / |T|. */
static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    const int n = job->n_models;
    const double eps = merge_value(job, -1, "eps", 1e-8);
    double w[MERGE_MAX_MODELS], norm[MERGE_MAX_MODELS], m[MERGE_MAX_MODELS], sum = 0, mean_norm = 0, length = 0, mean_square = 0;
    c[0] = 1;
    if (n == 1) return NULL;
    for (int k = 0; k < n; k++) sum += w[k] = merge_value(job, k, "weight", 1);
    if (merge_value(job, -1, "normalize_weights", 1) != 0) {
        if (sum == 0) return "found weights that add up to 0; wanted another sum";
        for (int k = 0; k < n; k++) w[k] /= sum;
    }
    for (int k = 0; k < n; k++) {
        norm[k] = sqrt(gram[k * n + k]) + eps;
        mean_norm += w[k] * sqrt(gram[k * n + k]);
        m[k] = w[k] / norm[k];
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) mean_square += m[i] * m[j] * gram[i * n + j];
    const double mean_length = sqrt(fmax(mean_square, 0));
    if (mean_length < eps) {
        double longest = 0;
        for (int k = 0; k < n; k++) longest = fmax(longest, gram[k * n + k]);
        // nothing but zeros (no model differs from the base) is no contradiction
        if (n > 2 && longest > 0) return "found directions that cancel out; wanted other weights";
        for (int k = 0; k < n; k++) c[k] = w[k];
        return NULL;
    }
    double along = 0;  // sum w (u.m)
    for (int k = 0; k < n; k++) m[k] /= mean_length;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) along += w[i] / norm[i] * m[j] * gram[i * n + j];
    double tangent[MERGE_MAX_MODELS];
    for (int k = 0; k < n; k++) tangent[k] = w[k] / norm[k] - along * m[k];
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) length += tangent[i] * tangent[j] * gram[i * n + j];
    const double angle = sqrt(fmax(length, 0)) + eps;
    for (int k = 0; k < n; k++) c[k] = mean_norm * (m[k] * cos(angle) + tangent[k] * sin(angle) / angle);
    return NULL;
}

static const struct merge_combination kind = {.coefficients = coefficients, .gram = true};

const struct merge_method merge_multislerp = {
    .name = "multislerp",
    .doc = "Weighted mean on the sphere, in the tangent plane of the mean direction, times the mean norm; with a base, of differences.",
    .options = {MERGE_WEIGHT,
                {"normalize_weights", "weights are divided by their sum", 1, 0, 1, false, NULL},
                {"eps", "what keeps divisions by norms finite", 1e-8, 0, 1, false, NULL}},
    .base = MERGE_BASE_OPTIONAL,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
