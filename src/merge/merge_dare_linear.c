/* DARE (Yu et al. 2024) with task arithmetic: differences dropped at random. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_dare_linear = {
    MERGE_FAMILY(MERGE_KEEP_RANDOM, MERGE_SIGN_NONE),
    .name = "dare_linear",
    .doc = "Keeps tau at random, rescales, adds (DARE, Yu et al., 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_TRUE), MERGE_LAMBDA, MERGE_INT8},
    .random = true,
};
