/* AdapterFusion (Pfeiffer et al. 2021): attention over what several modules add at a place, in every position for itself: the state asks, keys and
   values are made of the modules' parts. A block of expressions (fuse) uses it, over modules of any kind; it changes nothing by itself. */
#include <stdio.h>
#include <string.h>

#include "modules/compose.h"
#include "modules/fusion.h"
#include "ops/ops.h"

struct fusion_options {
    bool query, key, value;  // which projections there are
    bool query_before_ln, residual_before, value_before_softmax, value_is_unit, is_regularised;
    double dropout;  // of the attention, in training
    const char *name;  // within the keys of the file
    const json_t *places;  // names of the sites that the file has weights for
};

/* Numbers of a site's parameters; -1: none. */
struct fusion_place {
    int weight[3], bias[3];
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct fusion_options *o = (struct fusion_options *)m->options;
    *o = (struct fusion_options){.query = true, .key = true, .value = true, .value_before_softmax = true, .value_is_unit = true};
    o->is_regularised = true;
    TRY(json_get_bool(&o->query, m->config, where, "query", false, err));
    TRY(json_get_bool(&o->key, m->config, where, "key", false, err));
    TRY(json_get_bool(&o->value, m->config, where, "value", false, err));
    TRY(json_get_bool(&o->query_before_ln, m->config, where, "query_before_ln", false, err));
    TRY(json_get_bool(&o->residual_before, m->config, where, "residual_before", false, err));
    TRY(json_get_bool(&o->value_before_softmax, m->config, where, "value_before_softmax", false, err));
    TRY(json_get_bool(&o->value_is_unit, m->config, where, "value_initialized", false, err));
    TRY(json_get_bool(&o->is_regularised, m->config, where, "regularization", false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "dropout_prob", 0, 0.999, false, err));
    TRY(json_get_str(&o->name, m->config, where, "name", true, err));
    if (strlen(o->name) > 2000 || strchr(o->name, '.'))
        FAIL(err, CB_E_FORMAT, "%s: name: found \"%.60s\"; wanted at most 2000 bytes without a dot", where, o->name);
    m->label = o->name;
    return json_get_array(&o->places, m->config, where, "places", true, err);
}

static bool match(const struct nn_site *site) {
    const enum nn_kind kind = site->kind;
    return kind == NN_JOIN || kind == NN_LINEAR || kind == NN_HEAD || kind == NN_EMBEDDING || kind == NN_HIDDEN;
}

static bool implied(const struct module *m, const struct nn_site *site) {
    const struct fusion_options *o = m->options;
    for (size_t i = 0; i < json_array_size(o->places); i++) {
        const char *place = json_string_value(json_array_get(o->places, i));
        if (place && strcmp(place, site->name) == 0) return true;
    }
    return false;
}

/* ---- a fresh one */
/* The modules that the children end with. */
static json_t *names_of(const struct module_fresh *fresh) {
    json_t *names = json_array();
    for (int i = 0; names && i < fresh->block->n; i++) {
        const struct expression *last = fresh->block->child[i];
        while (last->block) last = last->child[last->n - 1];
        char name[200];
        snprintf(name, sizeof name, "%s", last->name);
        for (char *c = name; *c; c++) *c = *c == '.' || *c == ',' ? '_' : *c;
        json_array_append_new(names, json_string(name));
    }
    return names;
}

/* The places that the block's modules change, and unless the spec gave a name the library's: theirs joined by commas. */
static enum cb_status of_block(json_t *config, const struct module_fresh *fresh, const struct nn *sites, struct cb_err *err) {
    struct compose c = {.list = fresh->list};
    json_t *places = json_array(), *names = names_of(fresh), *envelope = json_pack("{s:O?}", "adapter_names", names);
    const char *given = json_string_value(json_object_get(config, "name"));
    char joined[2000] = "";
    size_t used = 0;
    for (int i = 0; i < sites->n_sites; i++) {
        c.name = sites->sites[i]->name;
        if (match(sites->sites[i]) && compose_touches(&c, fresh->block)) json_array_append_new(places, json_string(c.name));
    }
    for (size_t i = 0; i < json_array_size(names) && used < sizeof joined; i++)
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i ? "," : "", json_string_value(json_array_get(names, i)));
    const bool failed = json_object_set(config, "places", places) != 0 || json_object_set(config, "envelope", envelope) != 0 ||
                        ((!given || !*given) && json_object_set_new(config, "name", json_string(joined)) != 0);
    json_decref(places);
    json_decref(names);
    json_decref(envelope);
    if (failed) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", fresh->spec);
    return CB_OK;
}

/* Query and key with biases, the value without and starting as nearly the unit matrix. */
static enum cb_status fill_unit(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                struct cb_err *err) {
    const int64_t n = param->public.type.dim[0];
    (void)m, (void)store, (void)seed, (void)err;
    for (int64_t i = 0; i < n * n; i++) ((float *)data)[i] = i / n == i % n ? 1 : 1e-6f;
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    static const char *const names[3] = {"query", "key", "value"};
    const struct fusion_options *o = m->options;
    const bool is_there[3] = {o->query, o->key, o->value};
    struct fusion_place *p = arena_alloc(m->arena, sizeof *p);
    const int64_t c = site->site.out, square[2] = {c, c};
    if (!p) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", m->name);
    site->own = p;
    for (int i = 0; i < 3; i++) {
        p->weight[i] = p->bias[i] = -1;
        for (int k = 0; k < 2 && is_there[i] && (k == 0 || i < 2); k++) {
            struct tuner_param rest = {.init = k ? TUNER_ZEROS : TUNER_NORMAL, .spread = 0.02};
            if (i == 2 && o->value_is_unit) rest.fill = fill_unit;
            rest.public.key =
                arena_printf(m->arena, "%s.adapter_fusion_layer.%s.%s.%s", site->site.name, o->name, names[i], k ? "bias" : "weight");
            rest.public.type = type_make(CB_DTYPE_F32, k ? 1 : 2, square);
            if (!rest.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
            *(k ? &p->bias[i] : &p->weight[i]) = site->n_params;
            TRY(tuner_add(m, site, rest, NULL, err));
        }
    }
    return CB_OK;
}

/* ---- graph */
static struct cb_tensor *project(const struct module *m, const struct tuner_site *site, struct nn *nn, int i, struct cb_tensor *x) {
    const struct fusion_place *p = site->own;
    if (p->weight[i] < 0) return x;
    return op_linear(nn->g, x, tuner_leaf(m, site, p->weight[i], nn), p->bias[i] < 0 ? NULL : tuner_leaf(m, site, p->bias[i], nn), false);
}

/* residual + sum_i softmax_i(q . k_i) v_i. parts (...,C): what each module adds. */
static struct cb_tensor *fused(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *query, int n,
                               struct cb_tensor **parts, struct cb_tensor *residual) {
    const struct fusion_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor **score = arena_array(g->arena, (size_t)n, sizeof(struct cb_tensor *)), *sum = NULL;
    const int64_t last = -1;
    if (!score) return graph_fail(g, CB_E_MEMORY, "fuse: no memory");
    query = project(m, site, nn, 0, query);
    for (int i = 0; i < n; i++) {
        struct cb_tensor *key = project(m, site, nn, 1, parts[i]);
        if (o->residual_before) parts[i] = op_add(g, parts[i], residual);
        score[i] = op_sum(g, op_mul(g, query, key), 1, &last, true);
    }
    struct cb_tensor *weights = op_softmax(g, op_concat(g, n, score, query->type.rank - 1), query->type.rank - 1);
    weights = nn_dropout(nn, weights, o->dropout);
    for (int i = 0; i < n; i++) {
        struct cb_tensor *value = o->value_before_softmax ? project(m, site, nn, 2, parts[i]) : parts[i];
        value = op_mul(g, value, op_slice(g, weights, query->type.rank - 1, i, i + 1, 1));
        sum = sum ? op_add(g, sum, value) : value;
    }
    if (!o->value_before_softmax) sum = project(m, site, nn, 2, sum);
    return o->residual_before ? sum : op_add(g, residual, sum);
}

/* The fusion's module and its part at the site. */
static const struct module *fusion_of(struct compose *c, const struct expression *e, const struct tuner_site **site) {
    const struct module *m = e->own >= 0 ? c->list->modules[e->own] : NULL;
    *site = m ? module_site(m, c->name) : NULL;
    if (!*site) graph_fail(c->nn->g, CB_E_NAME, "%s: fuse: %s has no weights for it", c->name, e->folder ? e->folder : "the new module");
    return *site ? m : NULL;
}

static bool children_touch(const struct compose *c, const struct expression *e) {
    for (int i = 0; i < e->n; i++)
        if (compose_touches(c, e->child[i])) return true;
    return false;
}

struct cb_tensor *fusion_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    const struct tuner_site *site;
    if (!c->site) return y;
    // its head
    if (e->own >= 0) y = compose_module(c, c->list->modules[e->own], x, y);
    if (!children_touch(c, e)) return y;
    const struct module *m = fusion_of(c, e, &site);
    struct cb_tensor **part = arena_array(g->arena, (size_t)e->n, sizeof(struct cb_tensor *));
    int n = 0;
    if (!m || !part) return &g->bad_tensor;
    for (int i = 0; i < e->n; i++)
        if (compose_touches(c, e->child[i])) part[n++] = op_sub(g, compose_alone(c, e->child[i], x, y), y);
    return fused(m, site, c->nn, y, n, part, y);
}

void fusion_flow(struct compose_join *j, const struct expression *e) {
    struct cb_graph *g = j->c.nn->g;
    const struct tuner_site *site;
    if (!children_touch(&j->c, e)) return;
    const struct module *m = fusion_of(&j->c, e, &site);
    struct cb_tensor **part = arena_array(g->arena, (size_t)e->n, sizeof(struct cb_tensor *)), *before = j->flow.hidden;
    const struct module *last = NULL;
    int n = 0;
    if (!m || !part) return;
    // the last module's settings count for all
    compose_join_enter(j, e->child[e->n - 1]);
    const struct fusion_options *o = m->options;
    for (int i = 0; i < e->n && !graph_is_bad(g, j->flow.hidden); i++) {
        struct compose_join child = *j;
        child.last = NULL;
        child.flow.up = NULL;
        compose_join_child(&child, e->child[i]);
        if (!child.last) continue;
        last = child.last;
        part[n++] = child.flow.up ? child.flow.up : op_sub(g, child.flow.hidden, child.flow.residual);
    }
    if (!n) return;
    j->last = last;
    j->flow.hidden = fused(m, site, j->c.nn, o->query_before_ln ? before : j->flow.hidden, n, part, j->flow.residual);
    j->flow.up = NULL;
}

/* 0.01 |V - 1|^2 of each place's value, which keeps what the modules add from being turned about (the library's regularization). */
static struct cb_tensor *penalty(const struct module *m, struct nn *nn) {
    const struct fusion_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *sum = NULL, *unit = NULL;
    if (!m->is_fresh || !o->is_regularised || !o->value) return NULL;
    for (int i = 0; i < m->n_sites; i++) {
        const struct tuner_site *site = &m->sites[i];
        const int64_t c = site->site.out, square[2] = {c, c};
        if (!unit || unit->type.dim[0] != c) {
            float *data = arena_array(g->arena, (size_t)(c * c), sizeof *data);
            if (!data) return graph_fail(g, CB_E_MEMORY, "%s: no memory", m->name);
            for (int64_t k = 0; k < c; k++) data[k * c + k] = 1;
            unit = graph_const(g, type_make(CB_DTYPE_F32, 2, square), data);
        }
        const struct fusion_place *p = site->own;
        struct cb_tensor *off = op_sub(g, tuner_leaf(m, site, p->weight[2], nn), unit);
        off = op_sum(g, op_mul(g, off, off), 2, (const int64_t[]){0, 1}, false);
        sum = sum ? op_add(g, sum, off) : off;
    }
    return sum ? op_scale(g, sum, 0.01, 0) : NULL;
}

static const struct tuner_option options[] = {
    {"name", "name", TUNER_STR, "what the fusion is called in its file (default: the modules' names)"},
    {"query", "query", TUNER_BOOL, "whether the state is projected"},
    {"key", "key", TUNER_BOOL, "whether what modules add is, to be compared with it"},
    {"value", "value", TUNER_BOOL, "and to be added up"},
    {"value_before_softmax", "value_before_softmax", TUNER_BOOL, "the value is of each module, not of their sum"},
    {"value_initialized", "value_initialized", TUNER_BOOL, "the value begins as the unit matrix"},
    {"regularization", "regularization", TUNER_BOOL, "and is held near it in training"},
    {"query_before_ln", "query_before_ln", TUNER_BOOL, "the state that asks is that before the modules' norm"},
    {"residual_before", "residual_before", TUNER_BOOL, "values hold the residual"},
    {"dropout", "dropout_prob", TUNER_REAL, "of the attention, in training"},
    {0},
};
static const char *const cases[] = {NULL};

const struct tuner tuner_fusion = {
    .name = "fusion",
    .doc = "AdapterFusion: attention over what the modules of a fuse(...) block add.",
    .peft_type = "ADAPTER_FUSION",
    .options = options,
    .defaults =
        "{\"base_model_name_or_path\":null,\"dropout_prob\":null,\"envelope\":null,\"head\":null,\"head_left_out\":null,\"key\":true,"
        "\"modules_to_save\":null,\"name\":\"\",\"peft_type\":\"ADAPTER_FUSION\",\"places\":[],\"query\":true,\"query_before_ln\":false,"
        "\"regularization\":true,\"residual_before\":false,\"task_type\":null,\"temperature\":false,\"value\":true,"
        "\"value_before_softmax\":true,\"value_initialized\":true}",
    .options_bytes = sizeof(struct fusion_options),
    .fresh = TUNER_NOT_BASE,
    .scaling = "nothing",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare = declare,
    .penalty = penalty,
    .of_block = of_block,
    .save = fusion_save,
};
