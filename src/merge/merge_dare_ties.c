/* DARE (Yu et al. 2024) with election of signs. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_dare_ties = {
    MERGE_FAMILY(MERGE_KEEP_RANDOM, MERGE_SIGN_WEIGHTED),
    .name = "dare_ties",
    .doc = "Keeps tau at random, rescales, elects signs, adds what agrees (DARE, Yu et al., 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_TRUE), MERGE_LAMBDA, MERGE_INT8},
    .random = true,
};
