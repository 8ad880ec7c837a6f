/* TIES (Yadav et al. 2023): the largest differences, those of the elected sign. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_LARGEST, .sign = MERGE_SIGN_WEIGHTED};

const struct merge_method merge_ties = {
    .name = "ties",
    .doc = "Keeps the largest tau, elects signs after weighting, averages what agrees (TIES, Yadav et al., 2023).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_NORMALIZE(1), MERGE_RESCALE(MERGE_RESCALE_NONE), MERGE_LAMBDA, MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_family_prepare,
    .apply = merge_family_apply,
};
