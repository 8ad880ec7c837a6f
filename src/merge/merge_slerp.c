/* Spherical interpolation from a base model to another (Shoemake 1985). */
#include <math.h>

#include "merge/merge.h"

/* From here on the arc is a line (mergekit's threshold). */
#define PARALLEL 0.9995

static const char *coefficients(const struct merge_job *job, const double *gram, double *c) {
    const double t = merge_value(job, -1, "t", 0), norms = sqrt(gram[0]) * sqrt(gram[3]), cosine = norms > 0 ? gram[1] / norms : 0;
    c[0] = 1 - t;
    c[1] = t;
    if (fabs(cosine) > PARALLEL) return NULL;
    const double angle = acos(cosine);
    c[0] = sin((1 - t) * angle) / sin(angle);
    c[1] = sin(t * angle) / sin(angle);
    return NULL;
}

static const struct merge_combination kind = {.coefficients = coefficients, .gram = true};

const struct merge_method merge_slerp = {
    .name = "slerp",
    .doc = "Along the arc from the base (t 0) to the other model (t 1); straight where they are nearly parallel.",
    .options = {{"t", "place on the arc", NAN, -1e9, 1e9, false, NULL}},
    .base = MERGE_BASE_FIRST,
    .min_models = 2,
    .max_models = 2,
    .kind = &kind,
    .prepare = merge_combine_prepare,
    .apply = merge_combine_apply,
};
