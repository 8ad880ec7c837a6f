/* RAM (arXiv 2601.13572): differences of one model added, shared ones averaged. */
#include "merge/ram.h"

const struct merge_method merge_ram = {
    .name = "ram",
    .doc = "theta0 + tau where one model changed, their mean where several did (reinforced agent merging, 2026).",
    .options = {{"epsilon", "how large a change counts", 1e-5, 0, 1e9, false, NULL}},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .prepare = ram_prepare,
    .apply = ram_apply,
};
