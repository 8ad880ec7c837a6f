/* Model breadcrumbs (Davari and Belilovsky 2024): neither the smallest differences nor the very largest. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_MIDDLE, .sign = MERGE_SIGN_NONE};

const struct merge_method merge_breadcrumbs = {
    .name = "breadcrumbs",
    .doc = "Keeps tau that are neither small nor among the very largest, adds (model breadcrumbs, Davari and Belilovsky, 2024).",
    .options = {MERGE_WEIGHT,
                MERGE_DENSITY,
                {"gamma", "share of the largest that is dropped", 0.01, 0, 1, true, NULL},
                MERGE_NORMALIZE(0),
                MERGE_RESCALE(MERGE_RESCALE_NONE),
                MERGE_LAMBDA,
                MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_family_prepare,
    .apply = merge_family_apply,
};
