/* DELLA (Deep et al. 2024) with task arithmetic. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_della_linear = {
    MERGE_FAMILY(MERGE_KEEP_RANKED, MERGE_SIGN_NONE),
    .name = "della_linear",
    .doc = "Keeps tau at random, larger ones likelier, rescales, adds (DELLA, Deep et al., 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_EPSILON, MERGE_NORMALIZE(0), MERGE_RESCALE(MERGE_RESCALE_TRUE), MERGE_LAMBDA,
                MERGE_INT8},
    .random = true,
};
