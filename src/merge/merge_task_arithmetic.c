/* Task arithmetic (Ilharco et al. 2023): a model plus weighted differences; a negative weight takes one away. */
#include <math.h>

#include "merge/merge.h"

const struct merge_method merge_task_arithmetic = {
    MERGE_FAMILY(MERGE_KEEP_ALL, MERGE_SIGN_NONE),
    .name = "task_arithmetic",
    .doc = "theta0 + lambda sum w tau (Ilharco et al., 2023); a negative weight negates.",
    .options = {MERGE_WEIGHT, MERGE_NORMALIZE(0), MERGE_LAMBDA, MERGE_INT8},
};
