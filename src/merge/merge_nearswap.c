/* NearSwap of mergekit: the other model's value where it is near the base's, a step of length t towards it elsewhere. */
#include <math.h>

#include "base/cpuid.h"
#include "merge/merge.h"

CPU_CLONES static void step(float *out, const float *x, float t, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = fminf(t / fmaxf(fabsf(x[i]), 1e-6f), 1) * x[i];
}

static void apply(const struct merge_job *job, const struct merge_tile *tile, float *out) {
    step(out, tile->x[0], (float)merge_value(job, -1, "t", 0), tile->n);
}

const struct merge_method merge_nearswap = {
    .name = "nearswap",
    .doc = "theta0 + min(t / |tau|, 1) tau.",
    .options = {{"t", "how near values are taken whole", NAN, 1e-30, 1e9, false, NULL}},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = 1,
    .apply = apply,
};
