/* Model breadcrumbs (Davari and Belilovsky 2024) with election of signs. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_breadcrumbs_ties = {
    MERGE_FAMILY(MERGE_KEEP_MIDDLE, MERGE_SIGN_WEIGHTED),
    .name = "breadcrumbs_ties",
    .doc = "Keeps tau that are neither small nor among the very largest, elects signs, adds what agrees (Davari and Belilovsky, 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_GAMMA, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_NONE), MERGE_LAMBDA, MERGE_INT8},
};
