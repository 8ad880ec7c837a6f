/* DARE (Yu et al. 2024) with election of signs. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_RANDOM, .sign = MERGE_SIGN_WEIGHTED};

const struct merge_method merge_dare_ties = {
    .name = "dare_ties",
    .doc = "Keeps tau at random, rescales, elects signs, adds what agrees (DARE, Yu et al., 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_TRUE), MERGE_LAMBDA, MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .random = true,
    .kind = &kind,
    .prepare = merge_family_prepare,
    .apply = merge_family_apply,
};
