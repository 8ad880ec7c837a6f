/* Recipes in mergekit's form: models or slices of them, a method, and its options by filters and gradients. */
#ifndef MERGE_RECIPE_H
#define MERGE_RECIPE_H
#include "base/json.h"
#include "merge/merge.h"

#define MERGE_MAX_SLICES 1024

/* One model of a slice. */
struct merge_source {
    const char *model;  // as written
    int64_t first, last;  // layers [first, last); -1: all
    const json_t *parameters;  // NULL: none
};

struct merge_slice {
    struct merge_source *sources;
    int n_sources;
    const char *base;  // its own, else the recipe's; NULL: none
    const json_t *parameters;
};

struct merge_recipe {
    const char *name;  // of the file, for messages
    const char *method, *base;  // base: NULL: none
    const char *dtype, *out_dtype;  // as written; NULL: none
    const char *tokenizer_source, *chat_template;
    struct merge_slice *slices;
    int n_slices;
    bool is_sliced;  // `slices`; else `models`, one slice of all layers
    const json_t *parameters;
    // the rest is the recipe's own
    json_t *root;
    struct arena *arena;
};

/* Reads a recipe from its JSON form, to which a reference is taken. Unknown keys are refused. name: for messages. Owned by caller, free with
   merge_recipe_destroy. */
enum cb_status merge_recipe_create(struct merge_recipe **recipe, json_t *root, const char *name, struct cb_err *err);
void merge_recipe_destroy(struct merge_recipe **recipe);
/* Sets a value before that: "parameters.t=0.3", "models.0.parameters.weight=[0, 1]"; the value is YAML. */
enum cb_status merge_recipe_set(json_t *root, const char *assignment, struct cb_err *err);

/* Checks every `parameters` of a recipe: names must be options of `options`; what another method has is told by warn, what none has is refused.
   known: whether any other method has a name. Nullable: warn. */
enum cb_status merge_recipe_check(const struct merge_recipe *recipe, const struct merge_option *options, bool (*known)(const char *name),
                                  void (*warn)(void *user, const char *line), void *user, struct cb_err *err);
/* Whether any method of the registry has an option of that name. */
bool merge_option_known(const char *name);

/* An option's value for a tensor of a layer at t in [0,1] of its slice: the source's (options of each model), else the slice's, else the recipe's, else
   the default. A list of numbers is a gradient over t; a list of {filter, value} takes the first whose filter is in the tensor's name. Nullable: source. */
enum cb_status merge_recipe_value(const struct merge_recipe *recipe, const struct merge_slice *slice, const struct merge_source *source,
                                  const struct merge_option *option, const char *tensor, double t, double *value, struct cb_err *err);
#endif
