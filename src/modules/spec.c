/* Fresh modules: from a short text to a whole configuration, then parameters drawn from a seed and their names. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "io/file.h"
#include "modules/adapters.h"
#include "modules/private.h"

/* A list of the words of text, which + joins; numbers where whole. NULL: no memory, or a word that is no number. */
static json_t *words_make(const char *text, bool whole) {
    json_t *list = json_array();
    for (const char *p = text; list && *p;) {
        size_t n = strcspn(p, "+");
        char *end = NULL;
        errno = 0;
        long long number = whole ? strtoll(p, &end, 10) : 0;
        json_t *word = whole ? (end == p + n && n && !errno ? json_integer(number) : NULL) : json_stringn(p, n);
        if (!word || json_array_append_new(list, word) != 0) {
            json_decref(list);
            return NULL;
        }
        p += n + (p[n] == '+');
    }
    return list;
}

static json_t *value_make(enum tuner_kind kind, const char *text);

/* "0:8+default:16": an object of numbers. NULL: it is none. */
static json_t *map_make(const char *text) {
    json_t *map = json_object();
    for (const char *p = text; map && *p;) {
        size_t n = strcspn(p, "+"), k = strcspn(p, ":");
        char key[128] = "", value[32] = "";
        if (k < n && k < sizeof key && n - k <= sizeof value) {
            snprintf(key, sizeof key, "%.*s", (int)k, p);
            snprintf(value, sizeof value, "%.*s", (int)(n - k - 1), p + k + 1);
        }
        json_t *number = *key && !json_object_get(map, key) ? value_make(TUNER_FLOAT, value) : NULL;
        if (!number || json_object_set_new(map, key, number) != 0) {
            json_decref(map);
            return NULL;
        }
        p += n + (p[n] == '+');
    }
    return map;
}

/* What a value of each kind is, for messages. */
static const char *const kind_words[] = {[TUNER_INT] = "a whole number",
                                         [TUNER_FLOAT] = "a finite number",
                                         [TUNER_REAL] = "a finite number",
                                         [TUNER_BOOL] = "true or false",
                                         [TUNER_STR] = "a word",
                                         [TUNER_STRS] = "words joined by +",
                                         [TUNER_INTS] = "whole numbers joined by +",
                                         [TUNER_TEXT] = "text",
                                         [TUNER_SCALAR] = "a finite number, true, false, none or a word",
                                         [TUNER_MAP] = "a number, or NAME:NUMBER joined by +"};

static json_t *value_make(enum tuner_kind kind, const char *text) {
    char *end = NULL;
    double number;
    switch (kind) {
        case TUNER_INT: {
            errno = 0;
            long long whole = strtoll(text, &end, 10);
            return *text && !*end && !errno ? json_integer(whole) : NULL;
        }
        case TUNER_FLOAT:
            number = strtod(text, &end);
            if (!*text || *end || !isfinite(number)) return NULL;
            return number == floor(number) && fabs(number) < 1e15 ? json_integer((json_int_t)number) : json_real(number);
        case TUNER_REAL:
        case TUNER_SCALAR:
            number = strtod(text, &end);
            if (*text && !*end && isfinite(number)) return json_real(number);
            if (kind == TUNER_REAL || !*text) return NULL;
            if (strcmp(text, "none") == 0) return json_null();
            return strcmp(text, "true") == 0 ? json_true() : strcmp(text, "false") == 0 ? json_false() : json_string(text);
        case TUNER_MAP: return strchr(text, ':') ? map_make(text) : value_make(TUNER_FLOAT, text);
        case TUNER_BOOL: return strcmp(text, "true") == 0 ? json_true() : strcmp(text, "false") == 0 ? json_false() : NULL;
        case TUNER_TEXT:
        case TUNER_STR: return *text ? json_string(text) : NULL;
        case TUNER_STRS:
            // one word that is a pattern or a shorthand stays a string
            if (strcmp(text, "all-linear") == 0 || strpbrk(text, "*()[]\\|^$")) return json_string(text);
            return *text ? words_make(text, false) : NULL;
        case TUNER_INTS: return *text ? words_make(text, true) : NULL;
    }
    return NULL;
}

/* The object of a key "object.key", made where there is none. */
static json_t *object_place(json_t *config, const char **key) {
    const char *dot = strchr(*key, '.');
    char name[64];
    if (!dot) return config;
    snprintf(name, sizeof name, "%.*s", (int)(dot - *key), *key);
    *key = dot + 1;
    if (!json_is_object(json_object_get(config, name))) json_object_set_new(config, name, json_object());
    return json_object_get(config, name);
}

/* Where an option's key goes: PEFT's file is flat but for an object here and there; the adapters library's has "config", a name, and beside it the file of
   a head. NULL: no memory. */
static json_t *option_place(json_t *config, const struct tuner *tuner, const char **key) {
    if (tuner->peft_type) return object_place(config, key);
    if (strcmp(*key, "name") == 0) return config;
    if (strncmp(*key, "head.", 5) != 0) return json_object_get(config, "config");
    *key += 5;
    if (!json_object_get(config, "head")) json_object_set_new(config, "head", json_pack("{s:{}}", "config"));
    return json_object_get(json_object_get(config, "head"), "config");
}

static const struct tuner_option *option_find(const struct tuner_option *o, const char *word) {
    while (o->name && strcmp(o->name, word) != 0) o++;
    return o->name ? o : NULL;
}

/* An option "1.r" of the second method of a union: its place, its rest "r", the method's tuner. Methods that are names still become configurations. */
static enum cb_status method_find(json_t **place, const char **word, const struct tuner **tuner, json_t *config, struct cb_err *err) {
    char *end;
    const unsigned long i = strtoul(*word, &end, 10);
    json_t *list = json_object_get(json_object_get(config, "config"), "configs"), *own = json_array_get(list, i);
    if (*end != '.' || !own) FAIL(err, CB_E_NAME, "%s: %s: it has %zu methods", (*tuner)->name, *word, json_array_size(list));
    if (json_is_string(own)) {
        json_t *made;
        TRY(module_method_config(&made, json_string_value(own), (*tuner)->name, err));
        if (json_array_set_new(list, i, made) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", *word);
        own = made;
    }
    const struct tuner *found = tuner_find_method(own);
    if (!found) FAIL(err, CB_E_NAME, "%s: %s: its method %lu is not known", (*tuner)->name, *word, i);
    *place = own;
    *word = end + 1;
    *tuner = found;
    return CB_OK;
}

/* One "key=value" of a spec into the configuration. */
static enum cb_status option_set(json_t *config, const struct tuner *tuner, const char *text, size_t n, struct cb_err *err) {
    char word[512];
    if (n >= sizeof word) FAIL(err, CB_E_LIMIT, "%s: option of %zu bytes; at most %zu are taken", tuner->name, n, sizeof word - 1);
    memcpy(word, text, n);
    word[n] = 0;
    char *equals = strchr(word, '=');
    if (!equals) FAIL(err, CB_E_USAGE, "%s: '%s': no value; wanted KEY=VALUE", tuner->name, word);
    *equals = 0;
    json_t *place = NULL;
    const char *name = word;
    if (!tuner->peft_type && *word >= '0' && *word <= '9') TRY(method_find(&place, &name, &tuner, config, err));
    const struct tuner_option *o = option_find(tuner->options, name);
    if (!o && !place && !tuner->peft_type) o = option_find(adapters_options, name);
    if (!o) FAIL(err, CB_E_NAME, "%s: %s: no such option (cambium list tuners %s)", tuner->name, word, tuner->name);
    json_t *value = value_make(o->kind, equals + 1);
    const char *key = o->key;
    if (!place) place = option_place(config, tuner, &key);
    if (!value || !place || json_object_set_new(place, key, value) != 0)
        FAIL(err, CB_E_USAGE, "%s: %s: found %s; wanted %s (%s)", tuner->name, word, equals[1] ? equals + 1 : "nothing",
             kind_words[o->kind], o->doc);
    return CB_OK;
}

/* Whether the option at p takes all that is left, commas included. */
static bool takes_rest(const struct tuner *tuner, const char *p) {
    const size_t n = strcspn(p, "=,");
    for (const struct tuner_option *o = tuner->options; o->name; o++)
        if (o->kind == TUNER_TEXT && strlen(o->name) == n && strncmp(o->name, p, n) == 0) return true;
    return false;
}

/* A tuner's defaults with what a preset changes. Nullable: preset. */
static enum cb_status defaults_parse(json_t **config, const struct tuner *tuner, const struct tuner_preset *preset, struct cb_err *err) {
    json_t *changes;
    TRY(json_parse_object(config, tuner->defaults, strlen(tuner->defaults), tuner->name, err));
    if (!preset) return CB_OK;
    TRY(json_parse_object(&changes, preset->config, strlen(preset->config), preset->name, err));
    const int failed = json_object_update(*config, changes);
    json_decref(changes);
    if (failed) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", preset->name);
    return CB_OK;
}

enum cb_status module_method_config(json_t **config, const char *name, const char *where, struct cb_err *err) {
    const struct tuner_preset *preset = NULL;
    const struct tuner *t = tuner_find(name);
    if (!t) t = tuner_find_preset(name, &preset);
    if (!t || t->peft_type || strcmp(t->architecture, "union") == 0)
        FAIL(err, CB_E_NAME, "%s: methods: found %.60s; wanted one of the adapters library that is no union itself", where, name);
    return defaults_parse(config, t, preset, err);
}

static enum cb_status spec_parse(json_t **config, const char *spec, const char *base, struct cb_err *err) {
    char name[64];
    size_t n = strcspn(spec, ":");
    snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), spec);
    const struct tuner_preset *preset = NULL;
    const struct tuner *tuner = tuner_find(name);
    if (!tuner) tuner = tuner_find_preset(name, &preset);
    if (!tuner) FAIL(err, CB_E_NAME, "tuner: found %s; wanted one that is known (cambium list tuners)", name);
    TRY(defaults_parse(config, tuner, preset, err));
    if (base && tuner->peft_type) {
        char *absolute = io_name_climbs(base) ? io_absolute(base) : NULL;  // a file may hold no ".."
        const int failed = json_object_set_new(*config, "base_model_name_or_path", json_string(absolute ? absolute : base));
        free(absolute);
        if (failed) FAIL(err, CB_E_FORMAT, "%s: base model's name is not UTF-8", tuner->name);
    }
    if (!tuner->peft_type) {
        json_t *whole = json_pack("{s:o}", "config", *config);
        if (!whole) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", name);
        *config = whole;
    }
    for (const char *p = spec + n + (spec[n] == ':'); *p;) {
        size_t length = takes_rest(tuner, p) ? strlen(p) : strcspn(p, ",");
        TRY(option_set(*config, tuner, p, length, err));
        p += length + (p[length] == ',');
    }
    return CB_OK;
}

enum cb_status module_param_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *to,
                                 struct cb_err *err) {
    if (p->fill) return p->fill(m, p, store, seed, to, err);
    float *data = to;
    int64_t n = type_elements(&p->public.type);
    for (int64_t i = 0; p->role == TUNER_MADE && i < n; i++) data[i] = NAN;  // until module_settle
    if (p->role == TUNER_MADE) return CB_OK;
    struct rng rng = rng_make(seed, rng_hash(p->public.key));
    for (int64_t i = 0; p->init == TUNER_UNIFORM && i < n; i++) data[i] = (float)(p->spread * (2 * rng_f64(&rng) - 1));
    for (int64_t i = 0; p->init == TUNER_NORMAL && i < n; i++) data[i] = (float)(p->spread * rng_normal(&rng));
    for (int64_t i = 0; p->init == TUNER_TRUNCATED && i < n; i++) {
        double z = rng_normal(&rng);
        while (fabs(z) > 2) z = rng_normal(&rng);
        data[i] = (float)(p->spread * z);
    }
    for (int64_t i = 0; p->init == TUNER_CONSTANT && i < n; i++) data[i] = (float)p->spread;
    if (p->init != TUNER_COPY) return CB_OK;
    const struct store_entry *source = store_find(store, p->source);
    if (!source || type_elements(&source->type) != n) FAIL(err, CB_E_NAME, "%s: not in the store; wanted it to copy", p->source);
    dtype_of(source->type.dtype)->to_f32(data, source->data, n);
    return CB_OK;
}

/* Weights of GPT-2 are stored (in,out): PEFT wants to be told. */
static enum cb_status orientation_set(struct module *m, struct cb_err *err) {
    bool in_out = false;
    for (int i = 0; i < m->n_sites; i++) in_out |= m->sites[i].site.weight_is_in_out;
    if (json_object_get(m->config, "fan_in_fan_out") && json_object_set_new(m->config, "fan_in_fan_out", json_boolean(in_out)) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    return CB_OK;
}

/* By task_type PEFT picks the class that wraps the model: that of the model's head, unless a task has brought another. */
static enum cb_status task_set(struct module *m, const struct nn *sites, struct cb_err *err) {
    if (!sites->task || !json_is_null(json_object_get(m->config, "task_type"))) return CB_OK;
    if (json_object_set_new(m->config, "task_type", json_string(sites->task)) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    return CB_OK;
}

/* PEFT takes layers_to_transform only beside a list, and has targets of its own where there are none: both become the names that are meant. */
static enum cb_status targets_named(struct module *m, struct cb_err *err) {
    const json_t *layers = json_object_get(m->config, "layers_to_transform");
    const bool is_text = json_is_string(json_object_get(m->config, "target_modules"));
    if (!json_object_get(m->config, "target_modules")) return CB_OK;
    if (!m->targets.is_implied && (!is_text || !layers || json_is_null(layers))) return CB_OK;
    json_t *names = json_array();
    for (int i = 0; i < m->n_sites; i++)
        if (json_array_append_new(names, json_string(m->sites[i].site.name)) != 0) {
            json_decref(names);
            FAIL(err, CB_E_MEMORY, "%s: no memory for its targets", m->name);
        }
    if (json_object_set_new(m->config, "target_modules", names) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory for its targets", m->name);
    return CB_OK;
}

enum cb_status module_add_scale(const struct module *m, struct store *store, struct cb_err *err) {
    struct store_entry *entry;
    TRY(store_add(store, m->scale_name, type_make(CB_DTYPE_F32, 0, NULL), &entry, err));
    *(float *)entry->data = 1;
    return CB_OK;
}

/* What is not in the spec: the task, and modules to save beside those that it names. */
static enum cb_status fresh_add(json_t *config, const struct module_fresh *fresh, struct cb_err *err) {
    bool ok = !fresh->task_type || json_object_set_new(config, "task_type", json_string(fresh->task_type)) == 0;
    if (ok && fresh->label && json_object_get(config, "config") && !json_object_get(config, "name"))
        ok = json_object_set_new(config, "name", json_string(fresh->label)) == 0;
    json_t *save = json_object_get(config, "modules_to_save");
    const json_t *head = json_object_get(config, "head");
    if (fresh->n_save && head && !json_is_null(head))
        FAIL(err, CB_E_USAGE, "--tuner %s: the module brings a head, and so does the task; wanted one of them", fresh->spec);
    if (ok && fresh->n_save && !json_is_array(save)) {
        ok = json_object_set_new(config, "modules_to_save", json_array()) == 0;
        save = json_object_get(config, "modules_to_save");
    }
    for (int i = 0; ok && i < fresh->n_save; i++) ok = json_array_append_new(save, json_string(fresh->save[i])) == 0;
    if (!ok) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", fresh->name);
    return CB_OK;
}

/* What a module of a block says of it; others have none. */
static enum cb_status block_add(json_t *config, const struct module_fresh *fresh, const struct nn *sites, struct cb_err *err) {
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    const struct tuner *t = type ? tuner_find(type) : NULL;
    const bool is_of_block = t && t->of_block;
    if (is_of_block && !fresh->block)
        FAIL(err, CB_E_USAGE, "--tuner %s: no block of modules wants its weights; wanted --modules \"fuse(a, b)\" with it", fresh->spec);
    if (!is_of_block && fresh->block)
        FAIL(err, CB_E_USAGE, "--tuner %s: a block of --modules has no weights; wanted --tuner fusion, which makes them, or their folder",
             fresh->spec);
    return is_of_block ? t->of_block(config, fresh, sites, err) : CB_OK;
}

/* Ids of the text that the module begins with, where it wants one. */
static enum cb_status text_read(struct module *m, const struct module_fresh *fresh, const struct nn *sites, struct cb_err *err) {
    int32_t *ids = NULL;
    if (!m->init_text || !sites) return CB_OK;
    if (!fresh->ids) FAIL(err, CB_E_UNSUPPORTED, "%s: begins as a text; wanted a model with a tokenizer", fresh->name);
    TRY(fresh->ids(fresh->user, m->init_text, &ids, &m->n_init_ids, err));
    int32_t *own = arena_array(m->arena, (size_t)m->n_init_ids + 1, sizeof *own);
    if (own) memcpy(own, ids, (size_t)m->n_init_ids * sizeof *own);
    free(ids);
    m->init_ids = own;
    if (!own) FAIL(err, CB_E_MEMORY, "%s: no memory for %lld tokens", fresh->name, (long long)m->n_init_ids);
    for (int i = 0; i < sites->n_sites; i++)
        for (int64_t k = 0; sites->sites[i]->reads_tokens && k < m->n_init_ids; k++)
            if (own[k] < 0 || own[k] >= sites->sites[i]->in)
                FAIL(err, CB_E_ARGUMENT, "%s: its text has token %d; the model's vocabulary has %lld", fresh->name, own[k],
                     (long long)sites->sites[i]->in);
    if (!m->n_init_ids) FAIL(err, CB_E_ARGUMENT, "%s: \"%.60s\": no tokens in it", fresh->name, m->init_text);
    return CB_OK;
}

enum cb_status module_create(struct module **module, struct store *store, const char *spec, const char *name, const char *base,
                             uint64_t seed, const struct nn *sites, struct cb_err *err) {
    const struct module_fresh fresh = {.spec = spec, .name = name, .base = base, .seed = seed};
    return module_create_fresh(module, store, &fresh, sites, err);
}

enum cb_status module_create_fresh(struct module **module, struct store *store, const struct module_fresh *fresh, const struct nn *sites,
                                   struct cb_err *err) {
    const char *spec = fresh->spec, *name = fresh->name;
    *module = NULL;
    json_t *config = NULL;
    struct module *m = NULL;
    enum cb_status status = spec_parse(&config, spec, fresh->base, err);
    if (status == CB_OK) status = fresh_add(config, fresh, err);
    if (status == CB_OK && sites) status = block_add(config, fresh, sites, err);
    if (status == CB_OK) status = module_from_config(&m, config, NULL, spec, name, NULL, err);
    json_decref(config);
    if (m) m->is_fresh = true;
    if (status == CB_OK && sites) status = task_set(m, sites, err);
    if (status == CB_OK && sites) status = module_resolve(m, sites, spec, err);
    if (status == CB_OK) status = text_read(m, fresh, sites, err);
    if (status == CB_OK) status = orientation_set(m, err);
    if (status == CB_OK) status = targets_named(m, err);
    if (status == CB_OK) status = module_add_scale(m, store, err);
    for (int i = 0; status == CB_OK && i < m->n_params; i++) {
        struct store_entry *entry;
        status = store_add(store, m->params[i].public.name, m->params[i].public.type, &entry, err);
        if (status != CB_OK) break;
        entry->trainable = m->params[i].public.is_trained;
        status = module_param_fill(m, &m->params[i], store, fresh->seed, entry->data, err);
    }
    if (status != CB_OK && m) {
        module_remove(m, store);
        module_destroy(&m);
    }
    *module = m;
    return status;
}

enum cb_status module_spec_positions(const char *spec, int64_t *positions, struct cb_err *err) {
    json_t *config = NULL;
    struct module *m = NULL;
    enum cb_status status = spec_parse(&config, spec, NULL, err);
    if (status == CB_OK) status = module_from_config(&m, config, NULL, spec, "spec", NULL, err);
    json_decref(config);
    *positions = m ? module_positions(m) : 0;
    module_destroy(&m);
    return status;
}
