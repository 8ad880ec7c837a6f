/* A module's description: configuration, the sites that it changes and the parameters that these want. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "modules/private.h"

#define TUNER(name) extern const struct tuner tuner_##name;
#include "gen/tuners.inc"
#undef TUNER

const struct tuner *const *tuners(int *n) {
    static const struct tuner *const list[] = {
#define TUNER(name) &tuner_##name,
#include "gen/tuners.inc"
#undef TUNER
    };
    *n = (int)(sizeof list / sizeof *list);
    return list;
}

const struct tuner *tuner_find(const char *name) {
    int n;
    const struct tuner *const *list = tuners(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(list[i]->name, name) == 0 || (list[i]->peft_type && strcmp(list[i]->peft_type, name) == 0)) return list[i];
    return NULL;
}

const struct tuner *tuner_find_preset(const char *name, const struct tuner_preset **preset) {
    int n;
    const struct tuner *const *list = tuners(&n);
    for (int i = 0; i < n; i++)
        for (*preset = list[i]->presets; *preset && (*preset)->name; (*preset)++)
            if (strcmp((*preset)->name, name) == 0) return list[i];
    *preset = NULL;
    return NULL;
}

const struct tuner *tuner_find_method(const json_t *method) {
    int n;
    const struct tuner *const *list = tuners(&n);
    const json_t *value = json_object_get(method, "architecture");
    const char *architecture = !value || json_is_null(value) ? "" : json_string_value(value);
    for (int i = 0; architecture && i < n; i++)
        if (list[i]->architecture && strcmp(list[i]->architecture, architecture) == 0 && (!list[i]->owns || list[i]->owns(method)))
            return list[i];
    return NULL;
}

void *module_grow(struct module *m, void *list, int n, int *size, size_t bytes) {
    if (n < *size) return list;
    int grown = *size ? 2 * *size : 32;
    void *out = arena_array(m->arena, (size_t)grown, bytes);
    if (out && n) memcpy(out, list, (size_t)n * bytes);
    if (out) *size = grown;
    return out;
}

/* ---- parameters */
static enum cb_status param_add(struct module *m, struct tuner_param rest, struct cb_err *err) {
    struct tuner_param *grown = module_grow(m, m->params, m->n_params, &m->params_size, sizeof *grown);
    const char *key = rest.public.key, *name = key ? arena_printf(m->arena, "%s/%s", m->name, key) : NULL;
    if (!grown || !name) FAIL(err, CB_E_MEMORY, "%s: no memory for a parameter", m->name);
    m->params = grown;
    rest.public.name = name;
    rest.public.is_trained = rest.role == TUNER_TRAINED || rest.role == TUNER_INNER;
    rest.public.is_stored = rest.role != TUNER_DERIVED && rest.role != TUNER_INNER;
    TRY(type_check(&rest.public.type, name, err));
    TRY(table_put(&m->by_key, key, strlen(key), m->n_params, err));
    m->params[m->n_params++] = rest;
    return CB_OK;
}

enum cb_status tuner_add(struct module *m, struct tuner_site *site, struct tuner_param rest, int *number, struct cb_err *err) {
    const char *key = rest.public.key;
    int64_t found = key ? table_get(&m->by_key, key, strlen(key)) : -1;
    if (found < 0) {
        rest.site = site ? m->n_sites : -1;
        found = m->n_params;
        TRY(param_add(m, rest, err));
    } else if (!type_equal(&m->params[found].public.type, &rest.public.type)) {
        char text[2][TYPE_TEXT];
        FAIL(err, CB_E_SHAPE, "%s: found %s; wanted %s, as another site has it", key, type_text(&rest.public.type, text[0]),
             type_text(&m->params[found].public.type, text[1]));
    }
    if (number) *number = (int)found;
    if (!site) return CB_OK;
    if (site->n_params == TUNER_MAX_PARAMS) FAIL(err, CB_E_LIMIT, "%s: more than %d parameters", site->site.name, TUNER_MAX_PARAMS);
    site->param[site->n_params++] = (int)found;
    return CB_OK;
}

enum cb_status tuner_add_alias(struct module *m, const char *key, int number, struct cb_err *err) {
    struct tuner_alias *grown = module_grow(m, m->aliases, m->n_aliases, &m->aliases_size, sizeof *grown);
    if (!grown || !key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    m->aliases = grown;
    m->aliases[m->n_aliases++] = (struct tuner_alias){.key = key, .param = number};
    return CB_OK;
}

enum cb_status tuner_add_turned(struct module *m, const char *key, int number, struct cb_err *err) {
    TRY(tuner_add_alias(m, key, number, err));
    m->aliases[m->n_aliases - 1].turned = true;
    return CB_OK;
}

#define PEFT_PREFIX "base_model.model."

const char *module_file_site(const struct module *m, const char *site, const char **prefix) {
    const size_t n = m->prefix ? strlen(m->prefix) : 0;
    const bool differs = m->file_prefix && strncmp(site, m->prefix, n) == 0;
    *prefix = differs ? m->file_prefix : "";
    return differs ? site + n : site;
}

/* What keys have in place of the prefix of the model's sites; NULL: nothing else, or a file that has the prefix all the same. */
static const char *file_prefix(const struct module *m, const struct nn *nn) {
    char own[200];
    if (m->label || !nn->file_prefix) return NULL;
    snprintf(own, sizeof own, PEFT_PREFIX "%s", m->prefix);
    for (int i = 0; m->file && i < tensors_count(m->file); i++)
        if (strncmp(tensors_at(m->file, i)->name, own, strlen(own)) == 0) return NULL;
    return arena_strdup(m->arena, nn->file_prefix);
}

const char *tuner_key(struct module *m, const struct tuner_site *site, const char *suffix, struct cb_err *err) {
    const char *before = m->label ? "" : m->tuner->prefix ? m->tuner->prefix : PEFT_PREFIX, *body;
    const char *name = module_file_site(m, site->site.name, &body);
    const char *key = arena_printf(m->arena, "%s%s%s.%s", before, body, name, suffix);
    if (!key) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a name", m->name);
    return key;
}

enum cb_status tuner_add_param(struct module *m, struct tuner_site *site, const char *suffix, int rank, const int64_t *dim,
                               enum tuner_init init, double spread, struct cb_err *err) {
    const char *key = tuner_key(m, site, suffix, err);
    if (!key) return err->code;
    struct tuner_param rest = {.public = {.key = key, .type = type_make(CB_DTYPE_F32, rank, dim)}, .init = init, .spread = spread};
    return tuner_add(m, site, rest, NULL, err);
}

struct cb_tensor *tuner_leaf(const struct module *m, const struct tuner_site *site, int i, struct nn *nn) {
    const struct module_param *p = &m->params[site->param[i]].public;
    return graph_param(nn->g, p->name, p->type);
}

struct cb_tensor *tuner_value(const struct module *m, const struct tuner_site *site, int i, struct nn *nn) {
    const struct tuner_param *p = &m->params[site->param[i]];
    if (p->role != TUNER_MADE) return tuner_leaf(m, site, i, nn);
    struct cb_tensor *kept = nn_kept(nn, p->public.name);
    return kept ? kept : nn_keep(nn, p->public.name, m->tuner->make(m, site, nn));
}

enum cb_status tuner_base_weight(float **weight, const struct tuner_site *site, const struct store *store, struct cb_err *err) {
    const struct store_entry *entry = site->site.weight ? store_find(store, site->site.weight) : NULL;
    if (!entry) FAIL(err, CB_E_NAME, "%s: its weight is not in the store", site->site.name);
    const int64_t n = type_elements(&entry->type), in = site->site.in, out = site->site.out;
    const bool turns = site->site.weight_is_in_out != entry->turned && entry->type.rank == 2;
    float *plain = malloc((size_t)n * sizeof *plain + 1), *turned = turns ? malloc((size_t)n * sizeof *turned + 1) : NULL;
    if (!plain || (turns && !turned)) {
        free(plain);
        free(turned);
        FAIL(err, CB_E_MEMORY, "%s: no memory for its weight", site->site.name);
    }
    dtype_of(entry->type.dtype)->to_f32(plain, entry->data, n);
    for (int64_t i = 0; turns && i < in; i++)
        for (int64_t k = 0; k < out; k++) turned[k * in + i] = plain[i * out + k];
    if (turns) free(plain);
    *weight = turns ? turned : plain;
    return CB_OK;
}

enum cb_status tuner_pattern(struct module *m, const struct pattern **pattern, const char *text, const char *where, struct cb_err *err) {
    struct pattern **grown = module_grow(m, m->patterns, m->n_patterns, &m->patterns_size, sizeof(struct pattern *));
    if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for a pattern", where);
    m->patterns = grown;
    TRY(pattern_create(&m->patterns[m->n_patterns], text, where, err));
    *pattern = m->patterns[m->n_patterns++];
    return CB_OK;
}

/* ---- sites */
/* Shallow copy of a site whose names live as long as the module. */
static enum cb_status site_copy(struct module *m, struct nn_site *out, const struct nn_site *in, struct cb_err *err) {
    *out = *in;
    out->name = arena_strdup(m->arena, in->name);
    out->weight = in->weight ? arena_strdup(m->arena, in->weight) : NULL;
    out->bias = in->bias ? arena_strdup(m->arena, in->bias) : NULL;
    out->role = in->role ? arena_strdup(m->arena, in->role) : NULL;
    bool ok = out->role || !in->role;
    for (int i = 0; i < in->n_slices; i++) {
        out->slice[i].name = arena_strdup(m->arena, in->slice[i].name);
        ok = ok && out->slice[i].name;
    }
    if (!ok || !out->name || (in->weight && !out->weight) || (in->bias && !out->bias))
        FAIL(err, CB_E_MEMORY, "%s: no memory for a site", in->name);
    return CB_OK;
}

/* How many sites read each weight. */
static enum cb_status uses_count(struct table *uses, const struct nn *nn, struct cb_err *err) {
    for (int i = 0; i < nn->n_sites; i++) {
        const char *weight = nn->sites[i]->weight;
        int64_t n = weight ? table_get(uses, weight, strlen(weight)) : 0;
        if (weight) TRY(table_put(uses, weight, strlen(weight), n < 0 ? 1 : n + 1, err));
    }
    return CB_OK;
}

static bool weight_is_shared(const struct table *uses, const struct nn_site *site) {
    return site->weight && table_get(uses, site->weight, strlen(site->weight)) > 1;
}

bool tuner_takes_experts(const struct tuner *tuner) { return tuner->takes_experts || tuner->weight; }

/* Nullable: table, the module's site whose change this one has. */
static enum cb_status site_add(struct module *m, const struct table *uses, const struct nn_site *site, const struct tuner_site *table,
                               struct cb_err *err) {
    if (site->some_rows && !tuner_takes_experts(m->tuner))
        FAIL(err, CB_E_UNSUPPORTED, "%s: an expert's module; a module of kind %s cannot change one; wanted targets without it", site->name,
             m->tuner->name);
    const struct tuner_site of = table ? *table : (struct tuner_site){0};  // the list moves as it grows
    struct tuner_site *grown = module_grow(m, m->sites, m->n_sites, &m->sites_size, sizeof *grown);
    if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", site->name);
    m->sites = grown;
    struct tuner_site *s = &m->sites[m->n_sites];
    *s = (struct tuner_site){.scale = 1, .shared = weight_is_shared(uses, site)};
    TRY(site_copy(m, &s->site, site, err));
    TRY(table ? m->tuner->declare_tied(m, s, &of, err) : m->tuner->declare(m, s, err));
    return table_put(&m->by_site, s->site.name, strlen(s->site.name), m->n_sites++, err);
}

/* Shape of a site's own weight or bias. */
static struct cb_type field_type(const struct nn_site *site, bool is_bias) {
    const bool is_table = site->kind == NN_EMBEDDING || site->weight_is_in_out;
    const int64_t dim[2] = {is_table ? site->in : site->out, is_table ? site->out : site->in};
    return is_bias || site->kind == NN_NORM ? type_make(CB_DTYPE_F32, 1, &site->out) : type_make(CB_DTYPE_F32, 2, dim);
}

enum cb_status tuner_add_copy(struct module *m, const struct nn_site *site, bool shared, const char *field, const char *suffix,
                              struct cb_err *err) {
    const bool is_bias = strcmp(field, "bias") == 0;
    const char *source = is_bias ? site->bias : site->weight;
    const struct tuner_site place = {.site = *site};
    struct tuner_swap *grown = module_grow(m, m->swaps, m->n_swaps, &m->swaps_size, sizeof *grown);
    if (!source || !grown) FAIL(err, source ? CB_E_MEMORY : CB_E_NAME, "%s: no %s that could be replaced", site->name, field);
    m->swaps = grown;
    struct tuner_param rest = {.init = TUNER_COPY, .source = arena_strdup(m->arena, source), .site = -1, .of_head = m->label != NULL};
    rest.public.key = tuner_key(m, &place, suffix, err);
    rest.public.type = field_type(site, is_bias);
    struct tuner_swap swap = {.site = arena_strdup(m->arena, site->name), .field = is_bias ? "bias" : "weight", .param = m->n_params};
    swap.shared = shared;
    if (!rest.source || !swap.site) FAIL(err, CB_E_MEMORY, "%s: no memory for a copy", site->name);
    TRY(param_add(m, rest, err));
    m->swaps[m->n_swaps++] = swap;
    return CB_OK;
}

/* "a, b, ...": what was asked for, for messages. */
static const char *targets_text(const struct module *m, char text[200]) {
    const json_t *names = m->targets.names;
    size_t used = 0;
    *text = 0;
    if (!names) snprintf(text, 200, "%s", json_string_value(json_object_get(m->config, "target_modules")));
    for (size_t i = 0; names && i < json_array_size(names) && used < 150; i++)
        used += (size_t)snprintf(text + used, 200 - used, "%s%.40s", i ? ", " : "", json_string_value(json_array_get(names, i)));
    return text;
}

static enum cb_status nothing_fits(const struct module *m, const struct nn *nn, const char *where, struct cb_err *err) {
    char text[200];
    if (m->targets.is_implied) FAIL(err, CB_E_NAME, "%s: the model has nothing that a module of kind %s acts on", where, m->tuner->name);
    for (int i = 0; i < nn->n_sites; i++) {
        bool is_meant;
        TRY(tuner_targets_name(m, nn->sites[i], &is_meant, err));
        if (is_meant)
            FAIL(err, CB_E_NAME, "%s: target_modules: %s: a module of kind %s cannot change %s; wanted others", where,
                 targets_text(m, text), m->tuner->name, nn->sites[i]->name);
    }
    const bool leaves = m->targets.exclude_names || m->targets.exclude_pattern || m->targets.n_layers || m->targets.save;
    FAIL(err, CB_E_NAME, "%s: target_modules: %s: no module of the model has such a name%s; wanted one or more", where,
         targets_text(m, text), leaves ? " and is left by exclude_modules, layers_to_transform and modules_to_save" : "");
}

/* A trained bias, under the keys of PEFT's wrappers; with `all` also under its parameter's own name, where a head's is not the layer's. */
static enum cb_status bias_add(struct module *m, const struct nn_site *site, bool matches, bool all, bool saved, struct cb_err *err) {
    const bool has_rows = tuner_has_rows(m, site->name);
    TRY(tuner_add_copy(m, site, false, "bias", matches ? "base_layer.bias" : has_rows ? "token_adapter.base_layer.bias" : "bias", err));
    const size_t n = strlen(site->name);
    if (!all || m->label || (strncmp(site->bias, site->name, n) == 0 && strcmp(site->bias + n, ".bias") == 0)) return CB_OK;
    TRY(tuner_add_alias(m, arena_printf(m->arena, PEFT_PREFIX "%s", site->bias), m->n_params - 1, err));
    // PEFT's model has both then, and the copy's at work
    m->aliases[m->n_aliases - 1].is_idle = saved;
    return CB_OK;
}

/* ensure_weight_tying of a file that was made with it: a head has the change, or the copy, of the table that it shares, and keys of its own with the same
   numbers. */
static enum cb_status tied_copy(struct module *m, const struct nn_site *site, int of, bool shared, struct cb_err *err) {
    const struct tuner_site place = {.site = *site};
    struct tuner_swap swap = m->swaps[of], *grown = module_grow(m, m->swaps, m->n_swaps, &m->swaps_size, sizeof *grown);
    swap.site = arena_strdup(m->arena, site->name);
    if (!swap.site || !grown) FAIL(err, CB_E_MEMORY, "%s: no memory for a copy", m->name);
    m->swaps = grown;
    m->swaps[of].shared = swap.shared = shared;
    swap.is_tied = true;
    m->swaps[m->n_swaps++] = swap;
    return tuner_add_alias(m, tuner_key(m, &place, "weight", err), swap.param, err);
}

static bool file_has(const struct module *m, const char *key) { return m->file && key && tensors_find(m->file, key); }

static enum cb_status tied_add(struct module *m, const struct table *uses, const struct nn_site *site, struct cb_err *err) {
    const struct nn_site *words = tuner_word_table(m->nn);
    const struct tuner_site place = {.site = *site};
    bool ties = false;
    TRY(json_get_bool(&ties, m->config, m->name, "ensure_weight_tying", false, err));
    if (!ties || m->label || !words || site == words || !site->weight || strcmp(site->weight, words->weight) != 0) return CB_OK;
    // a third that reads the table is left without
    const bool shared = table_get(uses, site->weight, strlen(site->weight)) > 2;
    const int64_t table = table_get(&m->by_site, words->name, strlen(words->name));
    for (int i = 0; i < m->n_swaps; i++)
        if (strcmp(m->swaps[i].site, words->name) == 0 && strcmp(m->swaps[i].field, "weight") == 0)
            return file_has(m, tuner_key(m, &place, "weight", err)) ? tied_copy(m, site, i, shared, err) : CB_OK;
    if (table < 0 || !m->tuner->declare_tied || !file_has(m, tuner_key(m, &place, m->tuner->tied_key, err))) return CB_OK;
    TRY(site_add(m, uses, site, &m->sites[table], err));
    m->sites[m->n_sites - 1].is_tied = true;
    m->sites[table].shared = m->sites[m->n_sites - 1].shared = shared;
    return CB_OK;
}

static enum cb_status resolve(struct module *m, const struct nn *nn, const struct table *uses, const char *where, struct cb_err *err) {
    const char *bias = json_string_value(json_object_get(m->config, "bias"));
    bool all = bias && strcmp(bias, "all") == 0, some = bias && strcmp(bias, "none") != 0;
    if (m->tuner->declare_shared) TRY(m->tuner->declare_shared(m, nn, err));
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *site = nn->sites[i];
        bool matches, saved = tuner_targets_save(&m->targets, site->name);
        TRY(tuner_targets_match(m, site, &matches, err));
        if (matches) TRY(site_add(m, uses, site, NULL, err));
        if (saved && site->weight) TRY(tuner_add_copy(m, site, weight_is_shared(uses, site), "weight", "weight", err));
        if (!matches && !saved) TRY(tied_add(m, uses, site, err));
        if (site->bias && (saved || all || (matches && some))) TRY(bias_add(m, site, matches, all, saved, err));
    }
    m->rows_alone = tuner_rows_alone(m, nn);
    return m->n_sites ? CB_OK : nothing_fits(m, nn, where, err);
}

/* A product has no more than the rank of a weight's smaller side. One site with room for all of it is enough: among wide layers a router is narrow. */
static enum cb_status ranks_check(const struct module *m, const char *where, struct cb_err *err) {
    const struct tuner_site *widest = NULL;
    int64_t most = 0;
    for (int i = 0; m->is_fresh && m->is_low_rank && i < m->n_sites; i++) {
        const struct tuner_site *site = &m->sites[i];
        const int64_t side = site->site.in < site->site.out ? site->site.in : site->site.out;
        if (site->rank <= side) return CB_OK;
        if (widest && side <= most) continue;
        widest = site;
        most = side;
    }
    if (!widest) return CB_OK;
    FAIL(err, CB_E_SHAPE,
         "%s: rank %lld is larger than the smaller side of every weight that it changes, %lld at most (%s); wanted r=%lld or less", where,
         (long long)widest->rank, (long long)most, widest->site.name, (long long)most);
}

enum cb_status module_resolve(struct module *m, const struct nn *nn, const char *where, struct cb_err *err) {
    struct table uses = {0};
    m->prefix = arena_strdup(m->arena, nn->prefix ? nn->prefix : "");
    m->model_type = arena_strdup(m->arena, nn->model_type ? nn->model_type : "");
    m->model_class = arena_strdup(m->arena, nn->model_class ? nn->model_class : "");
    m->width = nn->width;
    m->file_prefix = m->prefix ? file_prefix(m, nn) : NULL;
    if (!m->prefix || !m->model_type || !m->model_class) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", where);
    enum cb_status status = uses_count(&uses, nn, err);
    m->nn = nn;
    if (status == CB_OK) status = resolve(m, nn, &uses, where, err);
    if (status == CB_OK) status = ranks_check(m, where, err);
    if (status == CB_OK && m->is_fresh) status = tuner_numbers_check(m, where, err);
    m->nn = NULL;
    table_deinit(&uses);
    return status;
}

/* ---- configuration */
/* Keys that PEFT does not have are kept and told; they change nothing. */
static enum cb_status unknown_keys(struct module *m, const json_t *known, const char *where, struct cb_err *err) {
    char text[300] = "";
    size_t used = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)m->method, key, value) if (!json_object_get(known, key) && used < 200) used +=
        (size_t)snprintf(text + used, sizeof text - used, "%s%.60s", used ? ", " : "", key);
    if (!used) return CB_OK;
    m->warning = arena_printf(m->arena, "%s: unknown keys, kept as they are: %s", where, text);
    if (!m->warning) FAIL(err, CB_E_MEMORY, "%s: no memory for a warning", where);
    return CB_OK;
}

static enum cb_status common_parse(struct module *m, const char *where, struct cb_err *err) {
    const char *bias = "none", *base = NULL, *text = NULL;
    bool flag = false;
    TRY(json_get_str(&base, m->config, where, "base_model_name_or_path", false, err));
    TRY(json_get_str(&text, m->config, where, "task_type", false, err));
    TRY(json_get_bool(&flag, m->config, where, "inference_mode", false, err));
    TRY(json_get_bool(&flag, m->config, where, "fan_in_fan_out", false, err));
    if (base && io_name_climbs(base))
        FAIL(err, CB_E_FORMAT, "%s: base_model_name_or_path: found %.80s; wanted a path without \"..\"", where, base);
    TRY(json_get_str(&bias, m->config, where, "bias", false, err));
    size_t n = strlen(bias);
    if (strcmp(bias, "none") != 0 && strcmp(bias, "all") != 0 && (n < 6 || strcmp(bias + n - 5, "_only") != 0))
        FAIL(err, CB_E_FORMAT, "%s: bias: found %.60s; wanted none, all or %s_only", where, bias, m->tuner->name);
    return CB_OK;
}

bool module_is_adapters(const struct module *m) {
    return json_is_object(json_object_get(m->config, "config")) && !json_object_get(m->config, "peft_type");
}

static enum cb_status module_parse(struct module *m, const char *where, struct cb_err *err) {
    const char *type = NULL;
    const bool is_adapters = module_is_adapters(m);
    m->method = m->config;
    if (is_adapters) {
        TRY(adapters_parse(m, where, err));
    } else {
        TRY(json_get_str(&type, m->config, where, "peft_type", true, err));
        m->tuner = tuner_find(type);
        if (!m->tuner || !m->tuner->peft_type)
            FAIL(err, CB_E_UNSUPPORTED, "%s: peft_type: found %.60s; wanted a known tuner (cambium list tuners)", where, type);
    }
    m->fresh = m->tuner->fresh;
    m->options = arena_alloc(m->arena, m->tuner->options_bytes);
    m->is_additive = m->tuner->is_additive;
    m->is_low_rank = m->tuner->is_low_rank;
    m->scale_name = arena_printf(m->arena, "%s/scale", m->name);
    if (!m->options || !m->scale_name) FAIL(err, CB_E_MEMORY, "%s: no memory for options", where);
    json_t *known;
    TRY(json_parse_object(&known, m->tuner->defaults, strlen(m->tuner->defaults), m->tuner->name, err));
    enum cb_status status = unknown_keys(m, known, where, err);
    json_decref(known);
    TRY(status);
    if (!is_adapters) TRY(common_parse(m, where, err));
    if (m->tuner->parse) TRY(m->tuner->parse(m, where, err));
    return tuner_targets_parse(m, where, err);
}

enum cb_status module_from_config(struct module **module, json_t *config, const struct tensors *file, const char *where, const char *name,
                                  const struct nn *sites, struct cb_err *err) {
    *module = NULL;
    struct arena *arena = arena_create();
    struct module *m = arena ? arena_alloc(arena, sizeof *m) : NULL;
    const char *copy = m ? arena_strdup(arena, name) : NULL;
    if (!copy) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "%s: no memory for a module", where);
    }
    m->arena = arena;
    m->name = copy;
    m->config = json_incref(config);
    enum cb_status status = module_parse(m, where, err);
    m->file = file;
    if (status == CB_OK && sites) status = module_resolve(m, sites, where, err);
    if (status == CB_OK && sites && m->label) status = adapters_resolve(m, sites, where, err);
    m->file = NULL;
    if (status != CB_OK) module_destroy(&m);
    *module = m;
    return status;
}

enum cb_status module_check_config(struct module **module, const char *path, const char *name, const struct nn *sites, struct cb_err *err) {
    *module = NULL;
    char *text;
    size_t n;
    json_t *config = NULL;
    TRY(io_read_file(&text, &n, path, CONFIG_LIMIT, err));
    enum cb_status status = json_parse_object(&config, text, n, path, err);
    if (status == CB_OK) status = module_from_config(module, config, NULL, path, name, sites, err);
    json_decref(config);
    free(text);
    return status;
}

void module_destroy(struct module **module) {
    if (!module || !*module) return;
    for (int i = 0; i < (*module)->n_patterns; i++) pattern_destroy(&(*module)->patterns[i]);
    if ((*module)->tuner && (*module)->tuner->release) (*module)->tuner->release(*module);
    json_decref((*module)->config);
    table_deinit(&(*module)->by_site);
    table_deinit(&(*module)->by_key);
    struct arena *arena = (*module)->arena;
    *module = NULL;
    arena_destroy(&arena);
}

int64_t module_components(const struct module *m, int i) {
    return m->is_fresh && m->tuner->components ? m->tuner->components(m, &m->sites[i]) : 0;
}

enum cb_status module_take_components(const struct module *m, int i, struct store *store, const double *rows, struct cb_err *err) {
    return m->tuner->take_components(m, &m->sites[i], store, rows, err);
}

bool module_wants_moments(const struct module *m, int i) {
    return m->is_fresh && m->tuner->wants_moments && m->tuner->wants_moments(m, &m->sites[i]);
}

enum cb_status module_take_moments(const struct module *m, int i, struct store *store, double *moments, struct cb_err *err) {
    return m->tuner->take_moments(m, &m->sites[i], store, moments, err);
}

enum cb_status module_train_begin(struct module *m, struct store *states, int64_t steps, struct cb_err *err) {
    return m->tuner->train_begin ? m->tuner->train_begin(m, states, steps, err) : CB_OK;
}

int64_t module_train_bytes(const struct module *m) { return m->tuner->train_bytes ? m->tuner->train_bytes(m) : 0; }

enum cb_status module_train_step(const struct module *m, struct store *store, struct store *states, int64_t step, struct cb_err *err) {
    return m->tuner->train_step ? m->tuner->train_step(m, store, states, step, err) : CB_OK;
}

/* ---- what others may know */
int module_n_params(const struct module *module) { return module->n_params; }
const struct module_param *module_param(const struct module *module, int i) { return &module->params[i].public; }
int module_n_sites(const struct module *module) { return module->n_sites; }
const char *module_site_name(const struct module *module, int i) { return module->sites[i].site.name; }
const struct tuner *module_tuner(const struct module *module) { return module->tuner; }
const char *module_name(const struct module *module) { return module->name; }
const json_t *module_config(const struct module *module) { return module->config; }
const char *module_warning(const struct module *module) { return module->warning; }
int64_t module_parameters(const struct module *module) {
    int64_t n = 0;
    for (int i = 0; i < module->n_params; i++)
        if (module->params[i].public.is_trained) n += type_elements(&module->params[i].public.type);
    return n;
}
int64_t module_rows(const struct module *module) { return module->n_rows + module->n_late; }
int64_t module_positions(const struct module *module) { return module->n_rows + module->n_past; }
enum cb_status module_share(struct module *m, const struct module *with, struct store *store, struct cb_err *err) {
    for (int i = 0; m->tuner->shares && m->tuner == with->tuner && i < m->n_params && i < with->n_params; i++) {
        struct module_param *p = &m->params[i].public;
        const struct module_param *other = &with->params[i].public;
        if (!m->tuner->shares(m, &m->params[i]) || !type_equal(&p->type, &other->type)) continue;
        const char *name = arena_strdup(m->arena, other->name);
        if (!name) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
        store_remove(store, p->name);
        p->name = name;
    }
    return CB_OK;
}

int64_t module_tasks(const struct module *module) { return module->tuner->tasks ? module->tuner->tasks(module) : 0; }
enum cb_status module_set_drop(struct module *m, const char *spec, struct cb_err *err) {
    if (!m->tuner->scaling || m->tuner->of_block)
        FAIL(err, CB_E_UNSUPPORTED, "--adapter-drop: a module of kind %s (%s) cannot be left out of a layer", m->tuner->name, spec);
    m->drops = true;
    return CB_OK;
}
bool module_scales(const struct module *module) { return module->tuner->scaling != NULL; }
