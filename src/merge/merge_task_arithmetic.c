/* Task arithmetic (Ilharco et al. 2023): a model plus weighted differences; a negative weight takes one away. */
#include <math.h>

#include "merge/merge.h"

static const struct merge_family kind = {.keep = MERGE_KEEP_ALL, .sign = MERGE_SIGN_NONE};

const struct merge_method merge_task_arithmetic = {
    .name = "task_arithmetic",
    .doc = "theta0 + lambda sum w tau (Ilharco et al., 2023); a negative weight negates.",
    .options = {MERGE_WEIGHT, MERGE_NORMALIZE(0), MERGE_LAMBDA, MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .kind = &kind,
    .prepare = merge_family_prepare,
    .apply = merge_family_apply,
};
