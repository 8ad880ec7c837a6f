/* Reading recipes: mergekit's keys, and the values of options for each tensor. */
#include "merge/recipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io/yaml.h"

/* ---- checks of keys */

/* Refuses keys that are not among known (NULL-ended); those of `refused` with their reason. */
static enum cb_status check_keys(const json_t *object, const char *name, const char *where, const char *const *known, struct cb_err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        bool found = false;
        for (int i = 0; known[i] && !found; i++) found = !strcmp(known[i], key);
        if (found) continue;
        char all[300] = "";
        for (int i = 0; known[i]; i++) {
            strncat(all, known[i], sizeof all - strlen(all) - 1);
            if (known[i + 1]) strncat(all, ", ", sizeof all - strlen(all) - 1);
        }
        FAIL(err, CB_E_NAME, "%s: %s: unknown key '%.100s'; wanted %s", name, where, key, all);
    }
    return CB_OK;
}

/* A model: a path, or {model: {path: ...}} as mergekit dumps it. */
static enum cb_status read_model(const char **out, const json_t *value, const char *name, const char *where, bool required,
                                 struct cb_err *err) {
    char text[JSON_TEXT];
    if (json_is_object(value)) value = json_object_get(value, "model") ? json_object_get(value, "model") : value;
    if (json_is_object(value)) {
        static const char *const keys[] = {"path", NULL};
        TRY(check_keys(value, name, where, keys, err));
        value = json_object_get(value, "path");
    }
    *out = json_string_value(value);
    if (*out && **out && strlen(*out) < 4000) return CB_OK;
    if (!required && (!value || json_is_null(value))) {
        *out = NULL;
        return CB_OK;
    }
    FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted the path of a model folder", name, where, json_text(value, text));
}

static enum cb_status read_parameters(const json_t **out, const json_t *object, const char *name, struct cb_err *err) {
    *out = NULL;
    return json_get_object(out, object, name, "parameters", false, err);
}

static enum cb_status read_range(struct merge_source *s, const json_t *object, const char *name, bool wanted, struct cb_err *err) {
    int64_t range[2] = {0, 0};
    int n = 0;
    s->first = s->last = -1;
    TRY(json_get_ints(range, &n, 2, object, name, "layer_range", 0, 1 << 20, wanted, err));
    if (!wanted) return CB_OK;
    if (n != 2 || range[1] <= range[0])
        FAIL(err, CB_E_FORMAT, "%s: layer_range: found [%lld, %lld]; wanted a first layer and one after the last", name,
             (long long)range[0], (long long)range[1]);
    s->first = range[0];
    s->last = range[1];
    return CB_OK;
}

/* The sources of a slice, or the models of a whole merge. */
static enum cb_status read_sources(struct merge_recipe *r, struct merge_slice *slice, const json_t *list, bool ranges, const char *where,
                                   struct cb_err *err) {
    static const char *const with_range[] = {"model", "layer_range", "parameters", NULL};
    static const char *const without[] = {"model", "parameters", NULL};
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || !n || n > MERGE_MAX_MODELS + 1)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %zu models; wanted a list of 1 to %d", r->name, where, n, MERGE_MAX_MODELS);
    slice->sources = arena_array(r->arena, n, sizeof *slice->sources);
    if (!slice->sources) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->name);
    for (size_t i = 0; i < n; i++) {
        struct merge_source *s = &slice->sources[slice->n_sources++];
        const json_t *item = json_array_get(list, i);
        char here[80];
        snprintf(here, sizeof here, "%.60s[%zu]", where, i);
        if (!json_is_object(item)) FAIL(err, CB_E_FORMAT, "%s: %s: wanted a mapping with `model`", r->name, here);
        TRY(check_keys(item, r->name, here, ranges ? with_range : without, err));
        TRY(read_model(&s->model, json_object_get(item, "model"), r->name, here, true, err));
        TRY(read_range(s, item, r->name, ranges, err));
        TRY(read_parameters(&s->parameters, item, r->name, err));
        if (s->last - s->first != slice->sources[0].last - slice->sources[0].first)
            FAIL(err, CB_E_FORMAT, "%s: %s: found %lld layers; wanted %lld as of the slice's first model", r->name, here,
                 (long long)(s->last - s->first), (long long)(slice->sources[0].last - slice->sources[0].first));
    }
    return CB_OK;
}

static enum cb_status read_slices(struct merge_recipe *r, const json_t *list, struct cb_err *err) {
    static const char *const keys[] = {"sources", "base_model", "parameters", NULL};
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || !n || n > MERGE_MAX_SLICES)
        FAIL(err, CB_E_FORMAT, "%s: slices: found %zu; wanted a list of 1 to %d", r->name, n, MERGE_MAX_SLICES);
    if (!(r->slices = arena_array(r->arena, n, sizeof *r->slices))) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->name);
    for (size_t i = 0; i < n; i++) {
        struct merge_slice *s = &r->slices[r->n_slices++];
        const json_t *item = json_array_get(list, i);
        char where[40];
        snprintf(where, sizeof where, "slices[%zu]", i);
        if (!json_is_object(item)) FAIL(err, CB_E_FORMAT, "%s: %s: wanted a mapping with `sources`", r->name, where);
        TRY(check_keys(item, r->name, where, keys, err));
        snprintf(where, sizeof where, "slices[%zu].base_model", i);
        TRY(read_model(&s->base, json_object_get(item, "base_model"), r->name, where, false, err));
        if (!s->base) s->base = r->base;
        snprintf(where, sizeof where, "slices[%zu].sources", i);
        TRY(read_sources(r, s, json_object_get(item, "sources"), true, where, err));
        TRY(read_parameters(&s->parameters, item, r->name, err));
    }
    return CB_OK;
}

/* `tokenizer: {source: ...}` says the same as tokenizer_source. */
static enum cb_status read_tokenizer(struct merge_recipe *r, struct cb_err *err) {
    static const char *const keys[] = {"source", NULL};
    const json_t *tokenizer = NULL;
    TRY(json_get_object(&tokenizer, r->root, r->name, "tokenizer", false, err));
    TRY(read_model(&r->tokenizer_source, json_object_get(r->root, "tokenizer_source"), r->name, "tokenizer_source", false, err));
    if (!tokenizer) return CB_OK;
    if (r->tokenizer_source) FAIL(err, CB_E_FORMAT, "%s: found tokenizer and tokenizer_source; wanted one of them", r->name);
    TRY(check_keys(tokenizer, r->name, "tokenizer", keys, err));
    return read_model(&r->tokenizer_source, json_object_get(tokenizer, "source"), r->name, "tokenizer.source", false, err);
}

static enum cb_status read_root(struct merge_recipe *r, struct cb_err *err) {
    static const char *const keys[] = {"merge_method", "models",    "slices",           "base_model",    "parameters", "dtype",
                                       "out_dtype",    "tokenizer", "tokenizer_source", "chat_template", NULL};
    const json_t *models = json_object_get(r->root, "models"), *slices = json_object_get(r->root, "slices");
    if (json_object_get(r->root, "modules"))
        FAIL(err, CB_E_UNSUPPORTED, "%s: modules: parts of multimodal models cannot be merged; wanted models or slices", r->name);
    TRY(check_keys(r->root, r->name, "recipe", keys, err));
    TRY(json_get_str(&r->method, r->root, r->name, "merge_method", true, err));
    TRY(json_get_str(&r->dtype, r->root, r->name, "dtype", false, err));
    TRY(json_get_str(&r->out_dtype, r->root, r->name, "out_dtype", false, err));
    TRY(json_get_str(&r->chat_template, r->root, r->name, "chat_template", false, err));
    TRY(read_model(&r->base, json_object_get(r->root, "base_model"), r->name, "base_model", false, err));
    TRY(read_tokenizer(r, err));
    TRY(read_parameters(&r->parameters, r->root, r->name, err));
    if ((models != NULL) == (slices != NULL))
        FAIL(err, CB_E_FORMAT, "%s: found %s; wanted one of models and slices", r->name, models ? "both" : "neither");
    r->is_sliced = slices != NULL;
    if (slices) return read_slices(r, slices, err);
    if (!(r->slices = arena_array(r->arena, 1, sizeof *r->slices))) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->name);
    r->n_slices = 1;
    r->slices[0].base = r->base;
    return read_sources(r, &r->slices[0], models, false, "models", err);
}

enum cb_status merge_recipe_create(struct merge_recipe **out, json_t *root, const char *name, struct cb_err *err) {
    struct arena *arena = arena_create();
    struct merge_recipe *r = arena ? arena_alloc(arena, sizeof *r) : NULL;
    *out = NULL;
    if (!r || !(r->name = arena_strdup(arena, name))) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    }
    r->arena = arena;
    r->root = json_incref(root);
    enum cb_status status = json_is_object(root)
                                ? read_root(r, err)
                                : err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: wanted a mapping with merge_method and models", name);
    if (status != CB_OK) merge_recipe_destroy(&r);
    *out = r;
    return status;
}

void merge_recipe_destroy(struct merge_recipe **recipe) {
    struct merge_recipe *r = recipe ? *recipe : NULL;
    if (!r) return;
    struct arena *arena = r->arena;
    json_decref(r->root);
    arena_destroy(&arena);
    *recipe = NULL;
}

/* ---- changes before reading */

/* The value at one step of a path; make: an object where there is none. */
static json_t *step_into(json_t *at, const char *step, bool make) {
    char *end;
    if (json_is_array(at)) {
        const long i = strtol(step, &end, 10);
        return *end || i < 0 ? NULL : json_array_get(at, (size_t)i);
    }
    json_t *next = json_object_get(at, step);
    if (!next && make && json_is_object(at)) {
        json_object_set_new(at, step, json_object());
        next = json_object_get(at, step);
    }
    return next;
}

static enum cb_status set_at(json_t *root, char *path, json_t *value, const char *assignment, struct cb_err *err) {
    char *end, *step = path;
    json_t *at = root;
    for (char *dot = strchr(step, '.'); dot && at; dot = strchr(step, '.')) {
        *dot = 0;
        at = step_into(at, step, true);
        step = dot + 1;
    }
    const long i = json_is_array(at) ? strtol(step, &end, 10) : -1;
    bool done = json_is_object(at)  ? *step && !json_object_set(at, step, value)
                : json_is_array(at) ? *step && !*end && i >= 0 && !json_array_set(at, (size_t)i, value)
                                    : false;
    if (!done) FAIL(err, CB_E_USAGE, "--set %.200s: the recipe has no such place; wanted PATH=VALUE, as parameters.t=0.5", assignment);
    return CB_OK;
}

enum cb_status merge_recipe_set(json_t *root, const char *assignment, struct cb_err *err) {
    const char *equals = strchr(assignment, '=');
    json_t *value = NULL;
    if (!equals || equals == assignment) FAIL(err, CB_E_USAGE, "--set %.200s: wanted PATH=VALUE, as parameters.t=0.5", assignment);
    char *path = strndup(assignment, (size_t)(equals - assignment));
    if (!path) FAIL(err, CB_E_MEMORY, "--set: out of memory");
    enum cb_status status = yaml_parse(&value, equals + 1, strlen(equals + 1), "--set", err);
    if (status == CB_OK) status = set_at(root, path, value, assignment, err);
    json_decref(value);
    free(path);
    return status;
}

/* ---- options */

bool merge_option_known(const char *name) {
    for (int i = 0; merge_method_at(i); i++)
        if (merge_option_index(merge_method_at(i), name) >= 0) return true;
    return false;
}

struct checked {
    const struct merge_recipe *recipe;
    const struct merge_option *options;
    bool (*known)(const char *name);
    void (*warn)(void *user, const char *line);
    void *user;
};

static enum cb_status check_parameters(const struct checked *c, const json_t *parameters, bool of_model, struct cb_err *err) {
    const char *key;
    json_t *value;
    char line[300];
    json_object_foreach((json_t *)parameters, key, value) {
        const struct merge_option *o = c->options;
        for (int i = 0; i < MERGE_MAX_OPTIONS && o->name && strcmp(o->name, key); i++) o++;
        const bool has = o < c->options + MERGE_MAX_OPTIONS && o->name;
        if (has && (o->per_model || !of_model)) continue;
        if (!has && !c->known(key))
            FAIL(err, CB_E_NAME, "%s: parameters: no method has an option '%.100s'; `cambium list merges %s` shows those of %s",
                 c->recipe->name, key, c->recipe->method, c->recipe->method);
        snprintf(line, sizeof line,
                 has ? "%.100s: %.60s is an option of the whole merge, not of one model: passed over"
                     : "%.100s: %.60s is no option of this method: passed over",
                 c->recipe->name, key);
        if (c->warn) c->warn(c->user, line);
    }
    return CB_OK;
}

enum cb_status merge_recipe_check(const struct merge_recipe *r, const struct merge_option *options, bool (*known)(const char *name),
                                  void (*warn)(void *user, const char *line), void *user, struct cb_err *err) {
    const struct checked c = {r, options, known, warn, user};
    TRY(check_parameters(&c, r->parameters, false, err));
    for (int i = 0; i < r->n_slices; i++) {
        TRY(check_parameters(&c, r->slices[i].parameters, false, err));
        for (int s = 0; s < r->slices[i].n_sources; s++) TRY(check_parameters(&c, r->slices[i].sources[s].parameters, true, err));
    }
    return CB_OK;
}

/* A single value: a number, true or false, or a word of the option's list; numbers, true and false also as text. */
static bool scalar_number(const struct merge_option *o, const json_t *value, double *out, bool *is_number) {
    const char *word = json_string_value(value);
    char *end;
    *is_number = false;
    for (int i = 0; o->words && o->words[i] && word; i++) {
        *out = i;
        if (!strcmp(o->words[i], word)) return true;
    }
    *out = word ? !strcasecmp(word, "true") : json_is_true(value);
    if (json_is_boolean(value) || *out || (word && !strcasecmp(word, "false"))) return true;
    *is_number = true;
    *out = word ? strtod(word, &end) : json_number_value(value);
    return word ? *word && !*end && isfinite(*out) : json_is_number(value);
}

/* Numbers spread evenly over t in [0,1], straight lines between them; of words, true and false the one at or before t. */
static bool gradient_number(const struct merge_option *o, const json_t *list, double t, double *out) {
    const size_t n = json_array_size(list);
    bool is_number, all_numbers = true;
    double a, b;
    if (!n) return false;
    for (size_t i = 0; i < n; i++) {
        if (!scalar_number(o, json_array_get(list, i), &a, &is_number)) return false;
        all_numbers &= is_number;
    }
    const double at = t * (double)(n - 1);
    const size_t low = (size_t)at, high = all_numbers && low + 1 < n ? low + 1 : low;
    scalar_number(o, json_array_get(list, low), &a, &is_number);
    scalar_number(o, json_array_get(list, high), &b, &is_number);
    *out = (1 - (at - (double)low)) * a + (at - (double)low) * b;
    return true;
}

/* *found: whether the setting says anything of the tensor. */
static enum cb_status evaluate(const struct merge_recipe *r, const struct merge_option *o, const json_t *setting, const char *tensor,
                               double t, bool *found, double *out, struct cb_err *err) {
    char text[JSON_TEXT];
    bool is_number;
    *found = true;
    if (scalar_number(o, setting, out, &is_number) || (json_is_array(setting) && gradient_number(o, setting, t, out))) return CB_OK;
    *found = false;
    // conditions: a list of {filter, value}, or one of them
    static const char *const keys[] = {"filter", "value", NULL};
    const size_t n = json_is_array(setting) ? json_array_size(setting) : json_is_object(setting) ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *condition = json_is_array(setting) ? json_array_get(setting, i) : setting;
        const json_t *value = json_object_get(condition, "value"), *filter = json_object_get(condition, "filter");
        if (!json_is_object(condition) || !value || (filter && !json_is_string(filter) && !json_is_null(filter))) break;
        TRY(check_keys(condition, r->name, o->name, keys, err));
        const char *word = json_string_value(filter);
        if (word && strcmp(word, "*") && !strstr(tensor, word)) {
            if (i + 1 == n) return CB_OK;
            continue;
        }
        if (json_is_object(value) || (json_is_array(value) && json_is_object(json_array_get(value, 0)))) break;
        return evaluate(r, o, value, tensor, t, found, out, err);
    }
    FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted a number%s, a list of numbers over the layers, or a list of {filter, value}", r->name,
         o->name, json_text(setting, text), o->words ? ", a word" : "");
}

enum cb_status merge_recipe_value(const struct merge_recipe *r, const struct merge_slice *slice, const struct merge_source *source,
                                  const struct merge_option *o, const char *tensor, double t, double *value, struct cb_err *err) {
    const json_t *from[] = {o->per_model && source ? source->parameters : NULL, slice ? slice->parameters : NULL, r->parameters};
    bool found = false;
    *value = o->value;
    for (int i = 0; i < 3 && !found; i++) {
        const json_t *setting = json_object_get(from[i], o->name);
        if (setting && !json_is_null(setting)) TRY(evaluate(r, o, setting, tensor, t, &found, value, err));
    }
    if (!found && isnan(o->value))
        FAIL(err, CB_E_USAGE, "%s: %s: no %s%s%s; it must be given", r->name, tensor, o->name, source ? " of " : "",
             source ? source->model : "");
    if (!(*value >= o->min && *value <= o->max))
        FAIL(err, CB_E_USAGE, "%s: %s: %s is %g; wanted %g to %g", r->name, tensor, o->name, *value, o->min, o->max);
    return CB_OK;
}
