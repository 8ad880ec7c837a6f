/* DELLA (Deep et al. 2024): differences dropped at random by their rank, with election of signs. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_RANKED, .sign = MERGE_SIGN_WEIGHTED};

const struct merge_method merge_della = {
    .name = "della",
    .doc = "Keeps tau at random, larger ones likelier, rescales, elects signs, averages what agrees (DELLA, Deep et al., 2024).",
    .options = {MERGE_WEIGHT,
                MERGE_DENSITY,
                {"epsilon", "how far the chance to stay moves with the rank", 0.15, 0, 0.5, true, NULL},
                MERGE_NORMALIZE(1),
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
