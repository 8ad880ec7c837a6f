/* Fuzz target: any bytes as a YAML recipe; what is accepted has options of every method that are numbers within their bounds. */
#include <math.h>
#include <stdlib.h>

#include "io/yaml.h"
#include "merge/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Every option of the recipe's method, or of all where it is unknown, for a tensor in the middle of a slice. */
static void ask(const struct merge_recipe *r) {
    for (int i = 0; merge_method_at(i); i++)
        for (int k = 0; k < MERGE_MAX_OPTIONS && merge_method_at(i)->options[k].name; k++) {
            const struct merge_option *o = &merge_method_at(i)->options[k];
            struct cb_err err = {0};
            double value;
            if (merge_recipe_value(r, &r->slices[0], &r->slices[0].sources[0], o, "model.layers.0.mlp.up_proj.weight", 0.5, &value, &err))
                continue;
            if (!(value >= o->min && value <= o->max)) __builtin_trap();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct cb_err err = {0};
    json_t *root;
    struct merge_recipe *r;
    char *text;
    if (yaml_parse(&root, (const char *)bytes, n, "input", &err)) return 0;
    // what YAML gives is always JSON that can be written
    if (json_dump(&text, root, 0, &err)) __builtin_trap();
    free(text);
    if (merge_recipe_create(&r, root, "input", &err) == CB_OK) {
        const struct merge_method *m = merge_method_find(r->method);
        if (m) merge_recipe_check(r, m->options, merge_option_known, NULL, NULL, &err);
        ask(r);
        merge_recipe_destroy(&r);
    }
    if (json_is_object(root)) merge_recipe_set(root, "parameters.t.x=[0, 1]", &err);
    json_decref(root);
    return 0;
}
