/* The Karcher mean of models on a sphere, by iteration (Karcher 1977). */
#include <math.h>

#include "merge/merge.h"

/* Length of sum a x. */
static double length(const double *a, const double *gram, int n) {
    double square = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) square += a[i] * a[j] * gram[i * n + j];
    return sqrt(fmax(square, 0));
}

/* m in coefficients of x; each step goes along the mean tangent towards all the models. */
static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    const int n = job->n_models;
    const double tol = merge_value(job, -1, "tol", 1e-5);
    double norm[MERGE_MAX_MODELS], tangent[MERGE_MAX_MODELS], mean = 0;
    int valid = 0, first = -1;
    for (int k = 0; k < n; k++) {
        norm[k] = sqrt(gram[k * n + k]);
        mean += norm[k] / n;
        c[k] = 0;
        if (norm[k] <= tol) continue;
        if (first < 0) first = k;
        valid++;
    }
    if (!valid) return NULL;
    for (int k = 0; k < n; k++) c[k] = norm[k] > tol ? 1 / (norm[k] * valid) : 0;
    double size = length(c, gram, n);
    for (int k = 0; k < n; k++) c[k] = size < tol ? (k == first) / norm[first] : c[k] / size;
    for (int step = 0; step < (int)merge_value(job, -1, "max_iter", 10); step++) {
        for (int k = 0; k < n; k++) tangent[k] = 0;
        for (int k = 0; k < n; k++) {
            if (norm[k] <= tol) continue;
            double cosine = 0;
            for (int j = 0; j < n; j++) cosine += c[j] * gram[j * n + k] / norm[k];
            cosine = fmin(fmax(cosine, -1), 1);
            const double angle = acos(cosine), factor = angle / sin(angle) / valid;
            if (angle < tol || !isfinite(factor)) continue;
            for (int j = 0; j < n; j++) tangent[j] -= factor * cosine * c[j];
            tangent[k] += factor / norm[k];
        }
        const double angle = length(tangent, gram, n);
        if (angle < tol) break;
        for (int k = 0; k < n; k++) c[k] = cos(angle) * c[k] + sin(angle) / angle * tangent[k];
        size = length(c, gram, n);
        for (int k = 0; k < n && size > tol; k++) c[k] /= size;
    }
    for (int k = 0; k < n; k++) c[k] *= mean;
    return NULL;
}

static const struct merge_combination kind = {.coefficients = coefficients, .gram = true};

const struct merge_method merge_karcher = {
    .name = "karcher",
    .doc = "The point of the sphere that is nearest to all models, by iteration, times the mean norm.",
    .options = {{"max_iter", "steps at most", 10, 1, 10000, false, NULL},
                {"tol", "length of a step that ends it", 1e-5, 0, 1, false, NULL}},
    .base = MERGE_BASE_NONE,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
