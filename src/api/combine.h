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

/* ---- combine_vocabulary.c */
/* Whose tokens the result has. */
struct combine_vocabulary {
    struct cb_engine *engine;
    const char *folder;  // whose tokenizer it is; with json: whose settings go with it
    char *json;  // tokenizer.json of a union; NULL: the folder's own. Owned, free()
};
/* A merge_format's vocabulary: what a recipe's tokenizer_source asks for. context: a combine_vocabulary. */
enum cb_status combine_find_vocabulary(void *context, struct merge_plan *plan, struct cb_err *err);
/* Models whose rows are taken as they lie must have the same token under each id. */
enum cb_status combine_check_vocabulary(struct combine_vocabulary *vocabulary, const struct merge_plan *plan, struct cb_err *err);
/* Ids of a configuration (keys that end in token_id) as the result counts them. */
enum cb_status combine_move_tokens(json_t *config, const struct merge_plan *plan, struct cb_err *err);
/* The files of the tokenizer into a folder. */
enum cb_status combine_write_vocabulary(const struct combine_vocabulary *vocabulary, const char *folder, struct cb_err *err);

/* ---- combine_gguf.c */
/* How models of .gguf files are read, for a result in a folder or in such a file. */
struct merge_format combine_format(const char *out, struct combine_vocabulary *vocabulary);
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
