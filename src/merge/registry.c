/* The list of merge methods and their options by name. */
#include <string.h>

#include "merge/merge.h"

#define MERGE(name) extern const struct merge_method merge_##name;
#include "gen/merges.inc"
#undef MERGE

static const struct merge_method *const all[] = {
#define MERGE(name) &merge_##name,
#include "gen/merges.inc"
#undef MERGE
    NULL};

const struct merge_method *merge_method_at(int i) { return all[i]; }

const struct merge_method *merge_method_find(const char *name) {
    for (int i = 0; all[i]; i++)
        if (strcmp(all[i]->name, name) == 0) return all[i];
    return NULL;
}

int merge_option_index(const struct merge_method *method, const char *name) {
    for (int i = 0; i < MERGE_MAX_OPTIONS && method->options[i].name; i++)
        if (strcmp(method->options[i].name, name) == 0) return i;
    return -1;
}

double merge_value(const struct merge_job *job, int model, const char *name, double otherwise) {
    int i = merge_option_index(job->method, name);
    return i < 0 ? otherwise : model >= 0 && job->method->options[i].per_model ? job->own[model][i] : job->shared[i];
}
