/* What a merge of models wants to know beside their weights: orders of units and heads, statistics on a text. */
#ifndef API_COMBINE_H
#define API_COMBINE_H
#include "api/align.h"
#include "api/instance.h"
#include "models/gguf.h"

struct combine_inputs {
    struct aligned *aligned[MERGE_MAX_MODELS + 2];  // of each model of the plan; NULL: as it lies
    struct tensors *measured[MERGE_MAX_MODELS + 2];
    struct instance sites;  // of the donor: which weights are stored (in,out)
    struct merge_alignment alignment;
    struct merge_statistics statistics;
    const struct merge_plan *plan;
};

/* Aligns and measures the models of a plan, as options and method ask for. Free with combine_inputs_close, also after a failure. */
enum cb_status combine_inputs_open(struct combine_inputs *inputs, struct cb_engine *engine, const struct cb_combine_options *options,
                                   const struct merge_plan *plan, struct cb_err *err);
void combine_inputs_close(struct combine_inputs *inputs);
/* NULL where there is none. */
const struct merge_alignment *combine_alignment(const struct combine_inputs *inputs);
const struct merge_statistics *combine_statistics(const struct combine_inputs *inputs);

/* ---- combine_gguf.c */
/* How models of .gguf files are read, for a result in a folder or in such a file. */
const struct merge_format *combine_format(const char *out);
/* The kind of file that a recipe's out_dtype or dtype asks for; NULL: the base's types. */
enum cb_status combine_recipe_type(const struct gguf_recipe **recipe, const struct merge_recipe *merge, struct cb_err *err);
struct combine_gguf {
    const char *path, *vocabulary;  // whose tokenizer the result has: a folder or file
    const struct gguf_recipe *recipe;  // NULL: as the base has it
    const struct merge_run *run;
    int64_t max_bytes;  // of a part; 0: one file
};
/* Merges tensor by tensor into a GGUF file; what is stored in blocks is made into blocks again. */
enum cb_status combine_write_gguf(struct cb_engine *engine, const struct merge_plan *plan, const struct combine_gguf *options,
                                  struct merge_report *report, struct cb_err *err);
#endif
