/* DARE (Yu et al. 2024) with task arithmetic: differences dropped at random. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_RANDOM, .sign = MERGE_SIGN_NONE};

const struct merge_method merge_dare_linear = {
    .name = "dare_linear",
    .doc = "Keeps tau at random, rescales, adds (DARE, Yu et al., 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_TRUE), MERGE_LAMBDA, MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .random = true,
    .kind = &kind,
    .prepare = merge_family_prepare,
    .apply = merge_family_apply,
};
