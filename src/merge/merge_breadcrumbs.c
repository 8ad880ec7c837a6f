/* Model breadcrumbs (Davari and Belilovsky 2024): neither the smallest differences nor the very largest. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_breadcrumbs = {
    MERGE_FAMILY(MERGE_KEEP_MIDDLE, MERGE_SIGN_NONE),
    .name = "breadcrumbs",
    .doc = "Keeps tau that are neither small nor among the very largest, adds (model breadcrumbs, Davari and Belilovsky, 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_GAMMA, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_NONE), MERGE_LAMBDA, MERGE_INT8},
};
