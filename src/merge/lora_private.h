/* Inside the merging of modules: what one call works on. */
#ifndef MERGE_LORA_PRIVATE_H
#define MERGE_LORA_PRIVATE_H
#include "merge/lora.h"

/* By concatenation, on the changes themselves, or on each factor. */
enum lora_mode { LORA_JOIN, LORA_CHANGES, LORA_FACTORS };

struct lora_merging {
    const struct merge_recipe *recipe;
    const struct lora_run *run;
    struct lora_report *report;
    struct arena *arena;  // of names and results
    struct lora lora[MERGE_MAX_MODELS];
    int n;
    struct merge_method method;  // its options as the recipe may have them
    enum lora_mode mode;
    enum lora_convention convention;
    int64_t n_layers;
    struct lora_out *out;
    int n_out;
    struct tensor_item *whole;
    int n_whole;
};

/* lora_combine.c: merges one site of all the modules into the next of m->out. */
enum cb_status lora_merge_site(struct lora_merging *m, const char *site, struct cb_err *err);
#endif
