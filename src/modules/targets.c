/* Which modules of a model a configuration means: lists of endings, patterns over whole names, exclusions and layers, as PEFT reads them. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "modules/private.h"

bool targets_ends_in(const char *name, const char *word) {
    size_t n = strlen(name), w = strlen(word);
    return n >= w && strcmp(name + n - w, word) == 0 && (n == w || name[n - w - 1] == '.');
}

/* Some leading part of name, cut at a dot, ends in word; within a name too, as PEFT has it: a DistilBERT's pre_classifier goes with its classifier. */
static bool lies_in(const char *name, const char *word) {
    size_t w = strlen(word);
    for (const char *p = name; w && (p = strstr(p, word)); p++)
        if (p[w] == 0 || p[w] == '.') return true;
    return false;
}

static bool is_name(const char *name, const char *word) { return strcmp(name, word) == 0; }

static bool list_has(const json_t *list, const char *name, bool (*fits)(const char *, const char *)) {
    size_t i;
    json_t *word;
    json_array_foreach((json_t *)list, i, word) if (fits(name, json_string_value(word))) return true;
    return false;
}

/* A string, or a list of strings that hold no NUL and are not empty; *text or *list is set, neither where the key is absent. */
static enum cb_status words_get(const char **text, const json_t **list, const json_t *config, const char *where, const char *key,
                                struct cb_err *err) {
    json_t *value = json_object_get(config, key);
    char shown[JSON_TEXT];
    *text = NULL;
    *list = NULL;
    if (!value || json_is_null(value)) return CB_OK;
    if (json_is_string(value)) return json_get_str(text, config, where, key, true, err);
    if (!json_is_array(value))
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted a list of names or a pattern", where, key, json_text(value, shown));
    size_t i;
    json_t *word;
    json_array_foreach(value, i, word) {
        const char *s = json_string_value(word);
        if (!s || !*s || strlen(s) != json_string_length(word))
            FAIL(err, CB_E_FORMAT, "%s: %s: found %s in the list; wanted a name", where, key, json_text(word, shown));
    }
    *list = value;
    return CB_OK;
}

static enum cb_status key_pattern(struct module *m, const struct pattern **pattern, const char *text, const char *where, const char *key,
                                  struct cb_err *err) {
    char place[400];
    snprintf(place, sizeof place, "%.300s: %s", where, key);
    return tuner_pattern(m, pattern, text, place, err);
}

/* layers_to_transform: a number or list; layers_pattern: what stands before the number. */
static enum cb_status layers_parse(struct module *m, const char *where, struct cb_err *err) {
    struct tuner_targets *t = &m->targets;
    const char *word;
    const json_t *words;
    TRY(json_get_ints(t->layer, &t->n_layers, 256, m->config, where, "layers_to_transform", 0, 1 << 20, false, err));
    TRY(words_get(&word, &words, m->config, where, "layers_pattern", err));
    if (!t->n_layers) return CB_OK;
    if (!(word && *word) && !(words && json_array_size(words))) {
        t->by_layer = true;
        return CB_OK;
    }
    // (?:.*?\.)?(?:layers|h)\.(?:1|3)\..*
    size_t i, size = 64 + (word ? strlen(word) : 0) + 24 * (size_t)t->n_layers;
    json_t *one;
    json_array_foreach((json_t *)words, i, one) size += json_string_length(one) + 1;
    char *text = arena_array(m->arena, size, 1), *p = text;
    if (!text) FAIL(err, CB_E_MEMORY, "%s: no memory for layers_pattern", where);
    p += sprintf(p, "(?:.*?\\.)?(?:%s", word ? word : "");
    json_array_foreach((json_t *)words, i, one) p += sprintf(p, "%s%s", i ? "|" : "", json_string_value(one));
    p += sprintf(p, ")\\.(?:");
    for (int k = 0; k < t->n_layers; k++) p += sprintf(p, "%s%lld", k ? "|" : "", (long long)t->layer[k]);
    sprintf(p, ")\\..*");
    return key_pattern(m, &t->layers, text, where, "layers_pattern", err);
}

enum cb_status tuner_targets_parse(struct module *m, const char *where, struct cb_err *err) {
    struct tuner_targets *t = &m->targets;
    const char *text;
    char shown[JSON_TEXT];
    TRY(words_get(&text, &t->names, m->config, where, "target_modules", err));
    if (text && strcasecmp(text, "all-linear") == 0)
        t->all_linear = true;
    else if (text && *text)
        TRY(key_pattern(m, &t->pattern, text, where, "target_modules", err));
    t->is_implied = !t->all_linear && !t->pattern && !(t->names && json_array_size(t->names)) && m->tuner->implied;
    if (!t->all_linear && !t->pattern && !(t->names && json_array_size(t->names)) && !t->is_implied)
        FAIL(err, CB_E_FORMAT, "%s: target_modules: found %s; wanted names, a pattern or all-linear", where,
             json_text(json_object_get(m->config, "target_modules"), shown));
    TRY(words_get(&text, &t->exclude_names, m->config, where, "exclude_modules", err));
    if (text && *text) TRY(key_pattern(m, &t->exclude_pattern, text, where, "exclude_modules", err));
    TRY(layers_parse(m, where, err));
    if (t->pattern && t->n_layers)
        FAIL(err, CB_E_FORMAT,
             "%s: layers_to_transform: found beside a pattern in target_modules; wanted names, or a pattern that has the layers", where);
    TRY(words_get(&text, &t->save, m->config, where, "modules_to_save", err));
    if (text) FAIL(err, CB_E_FORMAT, "%s: modules_to_save: found \"%.60s\"; wanted a list of names", where, text);
    return CB_OK;
}

enum cb_status tuner_targets_match(const struct module *m, const struct nn_site *site, bool *matches, struct cb_err *err) {
    *matches = false;
    if (!m->tuner->match(site) || (m->targets.all_linear && site->some_rows && !tuner_takes_experts(m->tuner))) return CB_OK;
    return tuner_targets_name(m, site, matches, err);
}

enum cb_status tuner_targets_name(const struct module *m, const struct nn_site *site, bool *matches, struct cb_err *err) {
    const struct tuner_targets *t = &m->targets;
    *matches = false;
    if (tuner_targets_save(t, site->name)) return CB_OK;
    // exclusions win
    bool excluded = t->exclude_names && list_has(t->exclude_names, site->name, targets_ends_in);
    if (t->exclude_pattern) TRY(pattern_matches(t->exclude_pattern, site->name, &excluded, err));
    if (excluded) return CB_OK;
    if (t->pattern) return pattern_matches(t->pattern, site->name, matches, err);
    *matches = t->is_implied   ? m->tuner->implied(m, site)
               : t->all_linear ? site->kind == NN_LINEAR
                               : list_has(t->names, site->name, targets_ends_in);
    // layers count for endings only: who names a module whole means that one
    if (t->names && list_has(t->names, site->name, is_name)) return CB_OK;
    if (*matches && t->layers) return pattern_matches(t->layers, site->name, matches, err);
    if (*matches && t->by_layer) {
        *matches = false;
        for (int i = 0; i < t->n_layers; i++) *matches |= site->layer == t->layer[i];
    }
    return CB_OK;
}

bool tuner_targets_save(const struct tuner_targets *targets, const char *site) {
    return targets->save && list_has(targets->save, site, lies_in);
}

enum cb_status tuner_numbers_parse(struct module *m, struct tuner_numbers *numbers, const char *where, const char *key, double low,
                                   double high, bool whole, struct cb_err *err) {
    *numbers = (struct tuner_numbers){.name = key, .next = m->numbers};
    m->numbers = numbers;
    TRY(json_get_object(&numbers->object, m->config, where, key, false, err));
    if (!numbers->object) return CB_OK;
    const struct pattern **list = arena_array(m->arena, json_object_size(numbers->object) + 1, sizeof *list);
    char place[400];
    const char *name;
    json_t *value;
    size_t i = 0;
    if (!list) FAIL(err, CB_E_MEMORY, "%s: no memory for %s", where, key);
    numbers->keys = list;
    snprintf(place, sizeof place, "%.300s: %s", where, key);
    json_object_foreach((json_t *)numbers->object, name, value) {
        int64_t integer;
        double number;
        TRY(whole ? json_get_int(&integer, numbers->object, place, name, (int64_t)low, (int64_t)high, true, err)
                  : json_get_float(&number, numbers->object, place, name, low, high, true, err));
        // anchored at the end; a ^ of the key holds at the start
        char *text = arena_printf(m->arena, "(?:.*\\.)?(?:%s)", name);
        if (!text) FAIL(err, CB_E_MEMORY, "%s: no memory for a pattern", place);
        TRY(tuner_pattern(m, &list[i++], text, place, err));
    }
    return CB_OK;
}

enum cb_status tuner_number(double *out, const struct tuner_numbers *numbers, const char *name, struct cb_err *err) {
    const char *key;
    json_t *value;
    size_t i = 0;
    if (!numbers->object) return CB_OK;
    json_object_foreach((json_t *)numbers->object, key, value) {
        bool fits;
        TRY(pattern_matches(numbers->keys[i++], name, &fits, err));
        if (!fits) continue;
        *out = json_number_value(value);
        return CB_OK;
    }
    return CB_OK;
}

enum cb_status tuner_numbers_check(const struct module *m, const char *where, struct cb_err *err) {
    for (const struct tuner_numbers *numbers = m->numbers; numbers; numbers = numbers->next) {
        const char *key;
        json_t *value;
        size_t i = 0;
        json_object_foreach((json_t *)numbers->object, key, value) {
            const struct pattern *pattern = numbers->keys[i++];
            bool fits = false;
            for (int k = 0; !fits && k < m->n_sites; k++) TRY(pattern_matches(pattern, m->sites[k].site.name, &fits, err));
            if (!fits)
                FAIL(err, CB_E_NAME,
                     "%s: %s: %.100s: found no module of such a name among those that are changed; wanted the end of one, as of %s", where,
                     numbers->name, key, m->sites[0].site.name);
        }
    }
    return CB_OK;
}
