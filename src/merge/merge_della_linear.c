/* DELLA (Deep et al. 2024) with task arithmetic. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_RANKED, .sign = MERGE_SIGN_NONE};

const struct merge_method merge_della_linear = {
    .name = "della_linear",
    .doc = "Keeps tau at random, larger ones likelier, rescales, adds (DELLA, Deep et al., 2024).",
    .options = {MERGE_WEIGHT,
                MERGE_DENSITY,
                {"epsilon", "how far the chance to stay moves with the rank", 0.15, 0, 0.5, true, NULL},
                MERGE_NORMALIZE(0),
                MERGE_RESCALE(MERGE_RESCALE_TRUE),
                MERGE_LAMBDA,
                MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .random = true,
    .kind = &kind,
    .prepare = merge_family_prepare,
    .apply = merge_family_apply,
};
