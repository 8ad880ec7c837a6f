/* DELLA (Deep et al. 2024): differences dropped at random by their rank, with election of signs. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_della = {
    MERGE_FAMILY(MERGE_KEEP_RANKED, MERGE_SIGN_WEIGHTED),
    .name = "della",
    .doc = "Keeps tau at random, larger ones likelier, rescales, elects signs, averages what agrees (DELLA, Deep et al., 2024).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_EPSILON, MERGE_NORMALIZE(1), MERGE_RESCALE(MERGE_RESCALE_TRUE), MERGE_LAMBDA,
                MERGE_INT8},
    .random = true,
};
