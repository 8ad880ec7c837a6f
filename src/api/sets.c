/* Data sets of several tasks: read off the options, drawn from, and told to the graph. */
#include "api/sets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options */
/* The number of the set that "NAME=FILE" names, made where it is new and may be; *file: what follows. */
static enum cb_status set_find(struct data_sets *s, const char *text, bool may_make, int *number, const char **file, struct cb_err *err) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *option = may_make ? "--dataset" : "--valid";
    const size_t n = strspn(text, letters);
    if (!n || n > 64 || text[n] != '=' || !text[n + 1])
        FAIL(err, CB_E_USAGE, "%s %.80s: wanted NAME=FILE, the name of 1 to 64 letters, digits, _ and -", option, text);
    *file = text + n + 1;
    for (*number = 0; *number < s->n; ++*number)
        if (strlen(s->set[*number].name) == n && memcmp(s->set[*number].name, text, n) == 0) return CB_OK;
    if (!may_make) FAIL(err, CB_E_NAME, "%s %.80s: no --dataset has this name", option, text);
    if (n == 3 && memcmp(text, "run", n) == 0) FAIL(err, CB_E_USAGE, "%s %.80s: run is the name of the run's own folder", option, text);
    if (!(s->set[s->n].name = strndup(text, n))) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
    s->names[s->n] = s->set[s->n].name;
    s->n++;
    return CB_OK;
}

/* "size", "equal", "temperature:T" as the power of a set's size. */
static enum cb_status sampling_parse(double *exponent, const char *text, struct cb_err *err) {
    const size_t n = strlen("temperature:");
    char *end = NULL;
    *exponent = 1;
    if (!text || strcmp(text, "size") == 0) return CB_OK;
    *exponent = MIXTURE_EQUAL;
    if (strcmp(text, "equal") == 0) return CB_OK;
    const double t = strncmp(text, "temperature:", n) == 0 ? strtod(text + n, &end) : 0;
    if (!(t >= 0.01) || !isfinite(t) || *end)
        FAIL(err, CB_E_USAGE, "--sampling %.80s: wanted size, equal, or temperature:T with T from 0.01", text);
    *exponent = 1 / t;
    return CB_OK;
}

static enum cb_status named_parse(struct data_sets *s, const struct cb_train_options *o, struct cb_err *err) {
    int number = 0;
    const char *file = NULL;
    s->is_named = true;
    for (int i = 0; i < o->n_sets + o->n_valid; i++) {
        const bool is_valid = i >= o->n_sets;
        TRY(set_find(s, is_valid ? o->valid[i - o->n_sets] : o->sets[i], !is_valid, &number, &file, err));
        struct data_set *set = &s->set[number];
        const char ***list = is_valid ? &set->valid : &set->text;
        int *n = is_valid ? &set->n_valid : &set->n_text;
        if (!*list && !(*list = calloc((size_t)(o->n_sets + o->n_valid), sizeof **list)))
            FAIL(err, CB_E_MEMORY, "data sets: out of memory");
        (*list)[(*n)++] = file;
    }
    for (int i = 0; i < s->n && o->n_valid; i++)
        if (!s->set[i].n_valid) FAIL(err, CB_E_USAGE, "--valid: none of --dataset %s; wanted %s=FILE", s->set[i].name, s->set[i].name);
    return CB_OK;
}

enum cb_status sets_parse(struct data_sets *s, const struct cb_train_options *o, struct cb_err *err) {
    *s = (struct data_sets){0};
    if (!o->n_sets && (o->sampling || o->module_per_set))
        FAIL(err, CB_E_USAGE, "--sampling, --module-per-dataset: wanted --dataset NAME=FILE with them");
    if (o->n_sets && o->n_text) FAIL(err, CB_E_USAGE, "--data, --dataset: wanted one of them");
    if (!o->n_sets && !o->n_text) return CB_OK;
    TRY(sampling_parse(&s->exponent, o->sampling, err));
    s->set = calloc((size_t)o->n_sets + 1, sizeof *s->set);
    s->names = calloc((size_t)o->n_sets + 1, sizeof *s->names);
    if (!s->set || !s->names) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
    if (o->n_sets) return named_parse(s, o, err);
    struct data_set *one = &s->set[s->n++];
    one->n_text = o->n_text;
    one->n_valid = o->n_valid;
    one->text = calloc((size_t)o->n_text, sizeof *one->text);
    one->valid = calloc((size_t)o->n_valid + 1, sizeof *one->valid);
    if (!one->text || !one->valid) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
    for (int i = 0; i < o->n_text; i++) one->text[i] = o->text[i];
    for (int i = 0; i < o->n_valid; i++) one->valid[i] = o->valid[i];
    return CB_OK;
}

void sets_close(struct data_sets *s) {
    for (int i = 0; i < s->n; i++) {
        struct data_set *set = &s->set[i];
        loader_destroy(&set->loader);
        loader_destroy(&set->valid_loader);
        corpus_destroy(&set->corpus);
        corpus_destroy(&set->valid_corpus);
        free(set->text);
        free(set->valid);
        free(set->name);
    }
    mixture_destroy(&s->mixture);
    free(s->set);
    free(s->names);
    *s = (struct data_sets){0};
}

enum cb_status sets_paths(const struct data_sets *s, bool valid, const char ***paths, int **number, int *n, struct cb_err *err) {
    int total = 0;
    for (int i = 0; i < s->n; i++) total += valid ? s->set[i].n_valid : s->set[i].n_text;
    *n = 0;
    *paths = calloc((size_t)total + 1, sizeof **paths);
    *number = calloc((size_t)total + 1, sizeof **number);
    if (!*paths || !*number) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < (valid ? s->set[i].n_valid : s->set[i].n_text); k++) {
            (*paths)[*n] = (valid ? s->set[i].valid : s->set[i].text)[k];
            (*number)[(*n)++] = i;
        }
    return CB_OK;
}

/* ---- draws */
static int64_t set_rows(const struct data_sets *s, const struct labelled *examples, int i) {
    return examples ? labelled_set_size(examples, i) : s->set[i].loader ? loader_windows(s->set[i].loader) : 0;
}

int64_t sets_rows(const struct data_sets *s, const struct labelled *examples) {
    int64_t rows = 0;
    for (int i = 0; i < s->n; i++) rows += set_rows(s, examples, i);
    return rows;
}

enum cb_status sets_mix(struct data_sets *s, const struct labelled *examples, uint64_t seed, struct cb_err *err) {
    if (!s->is_named) return CB_OK;
    int64_t *size = calloc((size_t)s->n, sizeof *size);
    if (!size) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
    enum cb_status status = CB_OK;
    for (int i = 0; i < s->n && status == CB_OK; i++)
        if (!(size[i] = set_rows(s, examples, i)))
            status = err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "--dataset %s: nothing to learn in it", s->set[i].name);
    if (status == CB_OK) status = mixture_create(&s->mixture, size, s->n, s->exponent, seed, err);
    free(size);
    return status;
}

/* ---- inputs */
/* The number that an input "route.task:a,b" has for a name; -1: none. */
static int32_t value_find(const char *values, const char *name) {
    const size_t n = strlen(name);
    for (int32_t i = 0;; i++) {
        const size_t length = strcspn(values, ",");
        if (length == n && memcmp(values, name, n) == 0) return i;
        if (!values[length]) return -1;
        values += length + 1;
    }
}

/* The field of a module that an input holds; NULL: none. */
static const struct module_field *field_of(const struct instance *instance, struct pass *pass, const char *input) {
    const struct module_field *found = NULL;
    for (int m = 0; m < instance->list.n && !found; m++) found = module_field_of(instance->modules[m], input, pass->graph->arena);
    return found;
}

enum cb_status set_inputs_open(struct set_inputs *in, struct pass *pass, const struct instance *instance, const struct data_sets *s,
                               int64_t batch, bool has_fields, struct cb_err *err) {
    static const char tasks[] = "task_ids", route[] = "route.", field[] = "route." SETS_FIELD ":";
    char known[200];
    in->batch = batch;
    if (!(in->set = calloc((size_t)batch, sizeof *in->set))) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
    for (int i = 0; s->is_named && i < plan_n_slots(pass->plan); i++) {
        const struct plan_slot *slot = plan_slot(pass->plan, i);
        const bool is_field = strncmp(slot->name, field, strlen(field)) == 0, is_tasks = strcmp(slot->name, tasks) == 0;
        const struct module_field *own = slot->is_input ? field_of(instance, pass, slot->name) : NULL;
        if (!slot->is_input || (own && has_fields) || (!is_tasks && strncmp(slot->name, route, strlen(route)) != 0)) continue;
        if (!is_tasks && !is_field)
            FAIL(err, CB_E_UNSUPPORTED, "--dataset: a module asks for %.80s of a row; its data set tells the field " SETS_FIELD " alone",
                 slot->name + strlen(route));
        if (in->n == (int)(sizeof in->input / sizeof *in->input))
            FAIL(err, CB_E_LIMIT, "--dataset: modules ask for more than %d fields", in->n);
        for (int m = 0; m < instance->list.n && is_tasks; m++)
            if (module_tasks(instance->modules[m]) && module_tasks(instance->modules[m]) < s->n)
                FAIL(err, CB_E_USAGE, "--dataset: %d of them; the module knows %lld tasks", s->n,
                     (long long)module_tasks(instance->modules[m]));
        in->input[in->n].to = plan_data(pass->plan, i);
        if (!(in->input[in->n].number = calloc((size_t)s->n, sizeof(int32_t)))) FAIL(err, CB_E_MEMORY, "data sets: out of memory");
        for (int k = 0; k < s->n; k++)
            in->input[in->n].number[k] = is_tasks ? (int32_t)k : value_find(slot->name + strlen(field), s->names[k]);
        // an index of no value would be outside of what the module has
        for (int k = 0; k < s->n && own; k++)
            if (in->input[in->n].number[k] < 0)
                FAIL(err, CB_E_NAME, "--dataset %s: the module's field %s has %s", s->names[k], own->name, module_field_values(own, known));
        in->n++;
    }
    return CB_OK;
}

void set_inputs_fill(const struct set_inputs *in) {
    for (int i = 0; i < in->n; i++)
        for (int64_t b = 0; b < in->batch; b++) in->input[i].to[b] = in->input[i].number[in->set[b]];
}

void set_inputs_all(const struct set_inputs *in, int set) {
    for (int64_t b = 0; b < in->batch; b++) in->set[b] = set;
    set_inputs_fill(in);
}

void set_inputs_close(struct set_inputs *in) {
    for (size_t i = 0; i < sizeof in->input / sizeof *in->input; i++) free(in->input[i].number);
    free(in->set);
    *in = (struct set_inputs){0};
}
