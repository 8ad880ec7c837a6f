/* RAM+ by tensor (arXiv 2601.13572): as RAM, and what a model changed alone grows with the share of its changes that others have too. */
#include "merge/ram.h"

const struct merge_method merge_ramplus_tl = {
    .name = "ramplus_tl",
    .doc = "As ram; tau of one model alone times 1 + r min(shared / unique, alpha), for each tensor.",
    .options = {{"r", "how strongly", 0.1, 0, 1e9, false, NULL},
                {"alpha", "bound of shared / unique", 0.2, 0, 1e9, false, NULL},
                {"epsilon", "how large a change counts", 1e-5, 0, 1e9, false, NULL}},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .prepare = ram_prepare,
    .apply = ram_apply,
};
