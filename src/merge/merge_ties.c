/* TIES (Yadav et al. 2023): the largest differences, those of the elected sign. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_ties = {
    MERGE_FAMILY(MERGE_KEEP_LARGEST, MERGE_SIGN_WEIGHTED),
    .name = "ties",
    .doc = "Keeps the largest tau, elects signs after weighting, averages what agrees (TIES, Yadav et al., 2023).",
    .options = {MERGE_WEIGHT, MERGE_DENSITY, MERGE_NORMALIZE(1), MERGE_RESCALE(MERGE_RESCALE_NONE), MERGE_LAMBDA, MERGE_INT8},
};
