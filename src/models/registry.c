/* The families of models, generated from the file names, and what all their descriptions share. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "models/model.h"

#define MODEL(name) extern const struct family model_##name;
#include "gen/models.inc"
#undef MODEL

#define CONFIG_LIMIT ((size_t)16 << 20)

const struct family *const *model_families(int *n) {
    static const struct family *const families[] = {
#define MODEL(name) &model_##name,
#include "gen/models.inc"
#undef MODEL
    };
    *n = (int)(sizeof families / sizeof *families);
    return families;
}

static bool listed(const char *const *list, const char *name) {
    for (; list && *list; list++)
        if (strcmp(*list, name) == 0) return true;
    return false;
}

const struct family *model_family(const char *name) {
    int n;
    const struct family *const *families = model_families(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(families[i]->name, name) == 0 || listed(families[i]->model_types, name)) return families[i];
    return NULL;
}

/* ---- the table of weights */
enum cb_status model_add_weight(struct model *model, struct cb_err *err, enum model_init init, double std, int rank, const int64_t *dim,
                                const char *format, ...) {
    char name[256];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(name, sizeof name, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof name) FAIL(err, CB_E_LIMIT, "%s: the weight's name is too long", name);
    if (model->n_weights == model->weights_size) {
        int size = model->weights_size ? 2 * model->weights_size : 64;
        struct model_weight *grown = arena_array(model->arena, (size_t)size, sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for %d weights", name, size);
        if (model->n_weights) memcpy(grown, model->weights, (size_t)model->n_weights * sizeof *grown);
        model->weights = grown;
        model->weights_size = size;
    }
    struct model_weight w = {.type = type_make(CB_DTYPE_F32, rank, dim), .init = init, .std = std, .decay = rank > 1};
    TRY(type_check(&w.type, name, err));
    if (!(w.name = arena_strdup(model->arena, name))) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", name);
    memcpy(model->weights + model->n_weights++, &w, sizeof w);
    return CB_OK;
}

enum cb_status model_add_linear(struct model *model, int64_t in, int64_t out, bool bias, const char *path, const char *name,
                                struct cb_err *err) {
    const char *dot = *path ? "." : "";
    const int64_t shape[2] = {out, in};
    TRY(model_add_weight(model, err, MODEL_NORMAL, model->init_std, 2, shape, "%s%s%s.weight", path, dot, name));
    return bias ? model_add_weight(model, err, MODEL_ZEROS, 0, 1, &out, "%s%s%s.bias", path, dot, name) : CB_OK;
}

enum cb_status model_add_norm(struct model *model, int64_t n, bool bias, const char *path, const char *name, struct cb_err *err) {
    const char *dot = *path ? "." : "";
    TRY(model_add_weight(model, err, MODEL_ONES, 0, 1, &n, "%s%s%s.weight", path, dot, name));
    return bias ? model_add_weight(model, err, MODEL_ZEROS, 0, 1, &n, "%s%s%s.bias", path, dot, name) : CB_OK;
}

enum cb_status model_add_buffer(struct model *model, struct cb_err *err, int rank, const int64_t *dim, const char *name) {
    TRY(model_add_weight(model, err, MODEL_ZEROS, 0, rank, dim, "%s", name));
    struct model_weight *w = model->weights + model->n_weights - 1;
    w->is_buffer = true;
    w->decay = false;
    return CB_OK;
}

void model_make_optional(struct model *model, int n) {
    struct model_weight *w = model->weights + model->n_weights;
    while (n-- > 0) (--w)->is_optional = true;
}

enum cb_status model_add_alias(struct model *model, const char *alias, const char *name, struct cb_err *err) {
    if (model->n_aliases == model->aliases_size) {
        int size = model->aliases_size ? 2 * model->aliases_size : 8;
        struct model_alias *grown = arena_array(model->arena, (size_t)size, sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for %d names", alias, size);
        if (model->n_aliases) memcpy(grown, model->aliases, (size_t)model->n_aliases * sizeof *grown);
        model->aliases = grown;
        model->aliases_size = size;
    }
    struct model_alias a = {arena_strdup(model->arena, alias), arena_strdup(model->arena, name)};
    if (!a.alias || !a.name) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", alias);
    model->aliases[model->n_aliases++] = a;
    return CB_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const struct model_weight *const *)a)->name, (*(const struct model_weight *const *)b)->name);
}

static void weights_sort(struct model *model) {
    for (int i = 0; i < model->n_weights; i++) model->by_name[i] = &model->weights[i];
    qsort(model->by_name, (size_t)model->n_weights, sizeof *model->by_name, compare_names);
}

static enum cb_status weights_index(struct model *model, struct cb_err *err) {
    model->by_name = arena_array(model->arena, (size_t)model->n_weights, sizeof *model->by_name);
    if (!model->by_name) FAIL(err, CB_E_MEMORY, "model: no memory for %d weights", model->n_weights);
    const char *prefix = model->class->prefix;
    const size_t n = strlen(model->family->prefix);
    for (int i = 0; i < model->n_weights && prefix; i++) {
        struct model_weight *w = &model->weights[i];
        if (strncmp(w->name, model->family->prefix, n) != 0) continue;
        w->file_name = arena_printf(model->arena, "%s%s", prefix, w->name + n);
        if (!w->file_name) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
    }
    weights_sort(model);
    return CB_OK;
}

void model_drop_optional(struct model *model) {
    struct model_weight *to = model->weights;
    for (int i = 0; i < model->n_weights; i++)
        if (!model->weights[i].is_optional) memmove(to++, &model->weights[i], sizeof *to);
    model->n_weights = (int)(to - model->weights);
    weights_sort(model);
}

const struct model_weight *model_find_weight(const struct model *model, const char *name) {
    struct model_weight key = {.name = name}, *p = &key;
    const struct model_weight **found = bsearch(&p, model->by_name, (size_t)model->n_weights, sizeof *model->by_name, compare_names);
    return found ? *found : NULL;
}

int64_t model_parameters(const struct model *model) {
    int64_t n = 0;
    for (int i = 0; i < model->n_weights; i++)
        if (!model->weights[i].is_buffer) n += type_elements(&model->weights[i].type);
    return n;
}

static const struct model_weight *find_plain(const struct model *model, const char *name) {
    // a body saved alone lacks the prefix; some classes have one of their own
    char full[512];
    const struct model_weight *w = model_find_weight(model, name);
    const char *own = model->class->prefix;
    if (!w && own && *own && strncmp(name, own, strlen(own)) == 0) name += strlen(own);
    if (!w && snprintf(full, sizeof full, "%s%s", model->family->prefix, name) < (int)sizeof full) w = model_find_weight(model, full);
    return w;
}

/* Norms of the first checkpoints have gamma and beta. */
static const struct model_weight *find_old(const struct model *model, const char *name) {
    static const char *const old[2] = {".gamma", ".beta"}, *const new[2] = {".weight", ".bias"};
    char full[512];
    size_t n = strlen(name);
    for (int i = 0; i < 2; i++) {
        size_t end = strlen(old[i]);
        if (n < end || n > 400 || strcmp(name + n - end, old[i]) != 0) continue;
        snprintf(full, sizeof full, "%.*s%s", (int)(n - end), name, new[i]);
        return find_plain(model, full);
    }
    return NULL;
}

/* A word that ends in a dot is a beginning, with or without the body's prefix, which bodies saved alone lack; another an ending. */
static bool may_be_left(const struct model *model, const char *name) {
    size_t n = strlen(name), p = strlen(model->family->prefix);
    for (const char *const *word = model->family->ignored; word && *word; word++) {
        size_t w = strlen(*word);
        bool begins = (*word)[w - 1] == '.', has_prefix = w > p && strncmp(*word, model->family->prefix, p) == 0;
        if (n >= w && strncmp(begins ? name : name + n - w, *word, w) == 0) return true;
        if (begins && has_prefix && n >= w - p && strncmp(name, *word + p, w - p) == 0) return true;
    }
    return model->tied && strcmp(name, "lm_head.weight") == 0;
}

const char *model_weight_name(const struct model *model, const char *name, bool *ignored) {
    *ignored = false;
    const struct model_weight *w = find_plain(model, name);
    if (!w) w = find_old(model, name);
    if (w) return w->name;
    for (int i = 0; i < model->n_aliases; i++) {
        if (strcmp(model->aliases[i].alias, name) != 0) continue;
        *ignored = true;
        return model->aliases[i].name;
    }
    *ignored = may_be_left(model, name);
    return NULL;
}

/* ---- descriptions */
/* Number of labels, and what they are. */
static enum cb_status labels_parse(struct model *m, const char *name, struct cb_err *err) {
    static const char *const problems[] = {"", "regression", "single_label_classification", "multi_label_classification"};
    const json_t *labels = NULL;
    const char *problem = "";
    m->n_labels = 2;
    TRY(json_get_object(&labels, m->config, name, "id2label", false, err));
    if (labels) m->n_labels = (int64_t)json_object_size(labels);
    if (!labels) TRY(json_get_int(&m->n_labels, m->config, name, "num_labels", 1, 1 << 20, false, err));
    if (m->n_labels < 1) FAIL(err, CB_E_FORMAT, "%s: id2label: found no label; wanted one or more", name);
    TRY(json_get_str(&problem, m->config, name, "problem_type", false, err));
    for (int i = 0; i < 4; i++)
        if (strcmp(problem, problems[i]) == 0) {
            m->problem = (enum model_problem)i;
            return CB_OK;
        }
    FAIL(err, CB_E_UNSUPPORTED, "%s: problem_type: found %.60s; wanted %s, %s or %s", name, problem, problems[1], problems[2], problems[3]);
}

bool model_class_name(char name[MODEL_CLASS_NAME], const struct family *family, const struct model_class *class) {
    int n = snprintf(name, MODEL_CLASS_NAME, "%s%s", family->title, class->name);
    return n > 0 && n < MODEL_CLASS_NAME;
}

/* The family's row with its whole name. */
static enum cb_status class_set(struct model *m, const struct model_class *class, const char *name, struct cb_err *err) {
    struct model_class *own = arena_alloc(m->arena, sizeof *own);
    if (own) memcpy(own, class, sizeof *own);
    if (!own || !(own->name = arena_strdup(m->arena, name))) FAIL(err, CB_E_MEMORY, "%s: no memory for a class", name);
    m->class = own;
    return CB_OK;
}

/* The class, from the first of "architectures" (absent: the family's first). */
static enum cb_status class_parse(struct model *m, const char *name, struct cb_err *err) {
    const json_t *names = NULL;
    TRY(json_get_array(&names, m->config, name, "architectures", false, err));
    const json_t *first = names ? json_array_get(names, 0) : NULL;
    const char *wanted = first ? json_string_value(first) : NULL;
    char text[JSON_TEXT], list[400] = "", known[MODEL_CLASS_NAME];
    size_t used = 0;
    const struct model_class *c;
    for (int i = 0; (c = model_class_at(m->family, i)) && !m->class; i++) {
        if (!model_class_name(known, m->family, c)) FAIL(err, CB_E_LIMIT, "%s: the name of a class is too long", known);
        if (!first || (wanted && strcmp(known, wanted) == 0)) TRY(class_set(m, c, known, err));
        if (used + strlen(known) + 3 < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", known);
    }
    if (m->class) return m->class->head->has_labels ? labels_parse(m, name, err) : CB_OK;
    FAIL(err, CB_E_UNSUPPORTED, "%s: architectures: found %s; wanted one of %s", name, json_text(first, text), list);
}

static enum cb_status model_parse(struct model *m, const char *name, struct cb_err *err) {
    const char *type = NULL;
    TRY(json_get_str(&type, m->config, name, "model_type", true, err));
    m->family = model_family(type);
    if (!m->family) FAIL(err, CB_E_UNSUPPORTED, "%s: model_type: found %.80s; wanted a known family (cambium list models)", name, type);
    m->options = arena_alloc(m->arena, m->family->options_bytes);
    if (!m->options) FAIL(err, CB_E_MEMORY, "%s: no memory for a description", name);
    m->bos = m->pad = m->decoder_start = m->forced_bos = -1;
    m->exact_cache = INT64_MAX;
    m->init_std = 0.02;
    TRY(json_get_float(&m->init_std, m->config, name, "initializer_range", 0, 1e3, false, err));
    TRY(m->family->parse(m, name, err));
    TRY(class_parse(m, name, err));
    m->n_features = m->n_embd;
    // special tokens
    TRY(json_get_ints(m->eos, &m->n_eos, MODEL_MAX_EOS, m->config, name, "eos_token_id", 0, m->vocab - 1, false, err));
    TRY(json_get_int(&m->bos, m->config, name, "bos_token_id", -1, INT32_MAX, false, err));
    TRY(json_get_int(&m->pad, m->config, name, "pad_token_id", -1, INT32_MAX, false, err));
    TRY(json_get_int(&m->decoder_start, m->config, name, "decoder_start_token_id", 0, m->vocab - 1, false, err));
    TRY(json_get_int(&m->forced_bos, m->config, name, "forced_bos_token_id", 0, m->vocab - 1, false, err));
    // weights of the body, then of the head
    TRY(m->family->weights(m, err));
    if (m->class->weights) TRY(m->class->weights(m, err));
    if (m->class->head->weights) TRY(m->class->head->weights(m, err));
    return weights_index(m, err);
}

enum cb_status model_from_config(struct model **model, json_t *config, const char *name, struct cb_err *err) {
    *model = NULL;
    struct arena *arena = arena_create();
    struct model *m = arena ? arena_alloc(arena, sizeof *m) : NULL;
    if (!m) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "%s: no memory for a description", name);
    }
    m->arena = arena;
    m->config = json_incref(config);
    enum cb_status status = model_parse(m, name, err);
    if (status != CB_OK) model_destroy(&m);
    *model = m;
    return status;
}

enum cb_status model_check_config(struct model **model, const char *path, struct cb_err *err) {
    *model = NULL;
    char *text;
    size_t n;
    json_t *config = NULL;
    TRY(io_read_file(&text, &n, path, CONFIG_LIMIT, err));
    enum cb_status status = json_parse_object(&config, text, n, path, err);
    if (status == CB_OK) status = model_from_config(model, config, path, err);
    json_decref(config);
    free(text);
    return status;
}

void model_destroy(struct model **model) {
    if (!model || !*model) return;
    json_decref((*model)->config);
    json_decref((*model)->generation);
    struct arena *arena = (*model)->arena;
    *model = NULL;
    arena_destroy(&arena);
}

/* What any family takes besides its defaults' keys. */
static const char *const class_keys[] = {"id2label", "label2id", "num_labels", "problem_type", NULL};

/* A JSON value; "[a,b]" of bare words is a list of texts; anything else is text. */
static json_t *change_value(const char *text, size_t n, const char *key) {
    json_t *value = NULL;
    struct cb_err quiet = {0};
    if (json_parse(&value, text, n, key, &quiet) == CB_OK) return value;
    if (n < 2 || text[0] != '[' || text[n - 1] != ']') return json_stringn(text, n);
    value = json_array();
    for (size_t at = 1; at < n; at++) {
        const char *comma = memchr(text + at, ',', n - 1 - at);
        size_t end = comma ? (size_t)(comma - text) : n - 1;
        json_t *item = NULL;
        if (json_parse(&item, text + at, end - at, key, &quiet) != CB_OK) item = json_stringn(text + at, end - at);
        if (!item || json_array_append_new(value, item) != 0) {
            json_decref(value);
            return NULL;
        }
        at = end;
    }
    return value;
}

/* One change "key=value"; a list takes a single value too. */
static enum cb_status config_change(json_t *config, const char *change, size_t n, struct cb_err *err) {
    const char *equals = memchr(change, '=', n);
    if (!equals) FAIL(err, CB_E_USAGE, "%.*s: no value; wanted KEY=VALUE", (int)n, change);
    char key[128];
    snprintf(key, sizeof key, "%.*s", (int)(equals - change), change);
    if (!json_object_get(config, key) && !listed(class_keys, key)) FAIL(err, CB_E_NAME, "%s: no such key of the configuration", key);
    size_t length = n - (size_t)(equals - change) - 1;
    json_t *value = change_value(equals + 1, length, key);
    if (json_is_array(json_object_get(config, key)) && json_is_string(value)) value = json_pack("[o]", value);
    if (!value || json_object_set_new(config, key, value) != 0)
        FAIL(err, CB_E_FORMAT, "%s: found %.*s; wanted JSON or UTF-8 text", key, (int)length, equals + 1);
    return CB_OK;
}

enum cb_status model_default_config(json_t **config, const struct family *family, const char *changes, struct cb_err *err) {
    *config = NULL;
    json_t *out;
    TRY(json_parse_object(&out, family->defaults, strlen(family->defaults), family->name, err));
    enum cb_status status = CB_OK;
    // commas inside brackets belong to a value
    for (const char *p = changes ? changes : ""; *p && status == CB_OK;) {
        size_t n = 0;
        for (int depth = 0; p[n] && (p[n] != ',' || depth > 0); n++) depth += (p[n] == '[' || p[n] == '{') - (p[n] == ']' || p[n] == '}');
        status = config_change(out, p, n, err);
        p += n + (p[n] == ',');
    }
    if (status != CB_OK)
        json_decref(out);
    else
        *config = out;
    return status;
}
