/* Methods of modules: the conventions of PEFT's add_weighted_adapter (0.21), where they are not those of the models' registry: signs are elected before
   weighting, what agrees is averaged by count, and values kept at random are divided by the density. */
#include <math.h>

#include "merge/lora.h"

static const char *const sign_words[] = {"total", "frequency", NULL};
#define RANK \
    { "rank", "of the result; 0: the largest of the modules", 0, 0, 1 << 20, false, NULL }
#define CLAMP \
    { "clamp", "quantile at which the factors of a decomposition are cut off; 0: none", 0, 0, 1, false, NULL }
#define SHARE \
    { "density", "share of the values that is kept", NAN, 0, 1, false, NULL }
#define SIGN \
    { "majority_sign_method", "signs by sum (total) or by number (frequency)", 0, 0, 1, false, sign_words }
#define AVERAGE \
    { "normalize", "divide by how many agree", 1, 0, 1, false, NULL }
#define DIVIDE \
    { "rescale", "as of the models' methods", MERGE_RESCALE_DENSITY, 0, 3, false, merge_rescale_words }

static const struct merge_family sum = {.keep = MERGE_KEEP_ALL};
static const struct merge_family largest = {.keep = MERGE_KEEP_LARGEST, .may_keep_none = true};
static const struct merge_family largest_signs = {
    .keep = MERGE_KEEP_LARGEST, .may_keep_none = true, .sign = MERGE_SIGN_PLAIN, .divide_by_count = true};
static const struct merge_family chance = {.keep = MERGE_KEEP_RANDOM};
static const struct merge_family chance_signs = {.keep = MERGE_KEEP_RANDOM, .sign = MERGE_SIGN_PLAIN, .divide_by_count = true};

#define COMMON .min_models = 1, .max_models = MERGE_MAX_MODELS, .prepare = merge_family_prepare, .apply = merge_family_apply
static const struct merge_method methods[] = {
    {.name = "linear", .doc = "Weighted sum of the changes.", .options = {MERGE_WEIGHT, RANK, CLAMP}, .kind = &sum, COMMON},
    {.name = "ties",
     .doc = "The largest values, the mean of those of the elected sign.",
     .options = {MERGE_WEIGHT, SHARE, AVERAGE, SIGN, RANK, CLAMP},
     .kind = &largest_signs,
     COMMON},
    {.name = "dare_linear",
     .doc = "Values kept at random, divided by the density, added.",
     .options = {MERGE_WEIGHT, SHARE, DIVIDE, RANK, CLAMP},
     .random = true,
     .kind = &chance,
     COMMON},
    {.name = "dare_ties",
     .doc = "Values kept at random, divided by the density, the mean of those of the elected sign.",
     .options = {MERGE_WEIGHT, SHARE, DIVIDE, AVERAGE, SIGN, RANK, CLAMP},
     .random = true,
     .kind = &chance_signs,
     COMMON},
    {.name = "magnitude_prune",
     .doc = "The largest values, added.",
     .options = {MERGE_WEIGHT, SHARE, RANK, CLAMP},
     .kind = &largest,
     COMMON},
};

const struct merge_method *lora_method_at(int i) { return i < (int)(sizeof methods / sizeof *methods) ? &methods[i] : NULL; }
