/* Spherical interpolation by weights, of models or of their differences from a base, whole or by rows or columns (NuSLERP of mergekit). */
#include <math.h>

#include "merge/merge.h"

static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    const double w0 = merge_value(job, 0, "weight", 1), w1 = merge_value(job, 1, "weight", 1), sum = w0 + w1;
    const double t = fabs(sum) < 1e-6 ? 0.5 : w1 / sum;
    // norms below 1e-7 count as that, as in mergekit
    const double norms = fmax(sqrt(gram[0]), 1e-7) * fmax(sqrt(gram[3]), 1e-7);
    const double angle = acos(fmin(fmax(gram[1] / norms, -1), 1)), sine = sin(angle);
    c[0] = fabs(sine) < 1e-8 ? 1 - t : sin((1 - t) * angle) / sine;
    c[1] = fabs(sine) < 1e-8 ? t : sin(t * angle) / sine;
    return NULL;
}

static enum merge_axis axis(const struct merge_job *job) {
    if (merge_value(job, -1, "nuslerp_flatten", 1) != 0) return MERGE_WHOLE;
    return merge_value(job, -1, "nuslerp_row_wise", 0) != 0 && job->type.rank > 1 ? MERGE_COLUMNS : MERGE_ROWS;
}

static const struct merge_combination kind = {.coefficients = coefficients, .gram = true, .axis = axis};

const struct merge_method merge_nuslerp = {
    .name = "nuslerp",
    .doc = "Along the arc between two models, t = w1 / (w0 + w1); with a base, between their differences.",
    .options = {MERGE_WEIGHT,
                {"nuslerp_flatten", "one arc a tensor", 1, 0, 1, false, NULL},
                {"nuslerp_row_wise", "unflattened: an arc a column; else one a row (mergekit's meaning)", 0, 0, 1, false, NULL}},
    .base = MERGE_BASE_OPTIONAL,
    .min_models = 2,
    .max_models = 2,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
