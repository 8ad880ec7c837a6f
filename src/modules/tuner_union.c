/* Several methods of the adapters library in one module (its ConfigUnion): MAM (He et al. 2021), UniPELT (Mao et al. 2022). Each acts where it would alone. */
#include <stdio.h>
#include <string.h>

#include "modules/adapters.h"
#include "modules/private.h"

#define METHODS_MAX 8

struct union_options {
    struct module *child[METHODS_MAX];
    int n;
};

/* Which methods act at a site. */
struct parts {
    const struct module *child[METHODS_MAX];
    const struct tuner_site *site[METHODS_MAX];
    int n;
};

/* ---- configuration */
/* One method as a module of its own, under the same name and label. *complete: its configuration with every key. */
static enum cb_status child_make(struct module *m, json_t *config, const char *where, json_t **complete, struct cb_err *err) {
    struct union_options *o = (struct union_options *)m->options;
    struct module *child = NULL;
    json_t *file = json_pack("{s:O,s:s}", "config", config, "name", m->label);
    const json_t *version = json_object_get(m->config, "version");
    if (!file || (version && json_object_set(file, "version", (json_t *)version) != 0)) {
        json_decref(file);
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", where);
    }
    enum cb_status status = module_from_config(&child, file, NULL, where, m->name, NULL, err);
    json_decref(file);
    TRY(status);
    o->child[o->n++] = child;
    if (child->tuner == m->tuner) FAIL(err, CB_E_FORMAT, "%s: a union inside a union; wanted methods", where);
    return module_config_complete(complete, child->tuner, child->method, err);
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    const json_t *list = NULL;
    char place[400], text[JSON_TEXT];
    m->fresh = TUNER_IS_BASE;
    TRY(json_get_array(&list, m->method, where, "configs", true, err));
    const size_t n = json_array_size(list);
    if (!n || n > METHODS_MAX) FAIL(err, CB_E_LIMIT, "%s: configs: found %zu methods; wanted 1 to %d", where, n, METHODS_MAX);
    for (size_t i = 0; i < n; i++) {
        json_t *config = json_array_get(list, i), *own = NULL, *complete = NULL;
        snprintf(place, sizeof place, "%.300s: configs %zu", where, i);
        if (json_is_string(config)) TRY(module_method_config(&own, json_string_value(config), place, err));
        enum cb_status status = CB_OK;
        if (!own && !json_is_object(config))
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: found %s; wanted an object", place, json_text(config, text));
        if (status == CB_OK) status = child_make(m, own ? own : config, place, &complete, err);
        json_decref(own);
        TRY(status);
        // the file is to say all
        if (json_array_set_new((json_t *)list, i, complete) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", place);
        const enum tuner_fresh fresh = ((struct union_options *)m->options)->child[i]->fresh;
        if (fresh > m->fresh) m->fresh = fresh;
        m->reads_padding |= ((struct union_options *)m->options)->child[i]->reads_padding;
    }
    return CB_OK;
}

static void release(struct module *m) {
    struct union_options *o = (struct union_options *)m->options;
    for (int i = 0; o && i < o->n; i++) module_destroy(&o->child[i]);
}

/* ---- parameters */
/* As the method that owns the parameter fills it. */
static enum cb_status child_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                 struct cb_err *err) {
    const struct union_options *o = m->options;
    for (int i = 0; i < o->n; i++) {
        int64_t at = table_get(&o->child[i]->by_key, p->public.key, strlen(p->public.key));
        if (at >= 0) return module_param_fill(o->child[i], &o->child[i]->params[at], store, seed, data, err);
    }
    FAIL(err, CB_E_NAME, "%s: of no method of its module", p->public.key);
}

static enum cb_status child_params(struct module *m, const struct module *child, struct cb_err *err) {
    for (int i = 0; i < child->n_params; i++) {
        struct tuner_param rest = child->params[i];
        if (table_get(&m->by_key, rest.public.key, strlen(rest.public.key)) >= 0)
            FAIL(err, CB_E_FORMAT, "%s: %s: two methods of one kind at one place; wanted one", m->name, rest.public.key);
        rest.fill = child_fill;
        TRY(tuner_add(m, NULL, rest, NULL, err));
    }
    for (int i = 0; i < child->n_aliases; i++) {
        const char *key = child->params[child->aliases[i].param].public.key;
        TRY(tuner_add_alias(m, child->aliases[i].key, (int)table_get(&m->by_key, key, strlen(key)), err));
    }
    return CB_OK;
}

static enum cb_status declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    const struct union_options *o = m->options;
    for (int i = 0; i < o->n; i++) {
        struct module *child = o->child[i];
        child->file = m->file;
        child->is_fresh = m->is_fresh;
        enum cb_status status = module_resolve(child, sites, m->name, err);
        child->file = NULL;
        TRY(status);
        TRY(child_params(m, child, err));
        m->n_rows += child->n_rows;
        m->n_past += child->n_past;
    }
    return CB_OK;
}

static bool match(const struct nn_site *site) {
    (void)site;
    return true;
}

static bool implied(const struct module *m, const struct nn_site *site) {
    const struct union_options *o = m->options;
    for (int i = 0; i < o->n; i++)
        if (module_site(o->child[i], site->name)) return true;
    return false;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct union_options *o = m->options;
    struct parts *p = arena_alloc(m->arena, sizeof *p);
    if (!p) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", m->name);
    for (int i = 0; i < o->n; i++) {
        const struct tuner_site *own = module_site(o->child[i], site->site.name);
        if (!own) continue;
        p->child[p->n] = o->child[i];
        p->site[p->n++] = own;
    }
    site->own = p;
    return CB_OK;
}

/* ---- graph: each method in turn */
static struct cb_tensor *input(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++)
        if (p->child[i]->tuner->input) x = p->child[i]->tuner->input(p->child[i], p->site[i], nn, x, scale);
    return x;
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++)
        if (p->child[i]->tuner->delta) y = p->child[i]->tuner->delta(p->child[i], p->site[i], nn, x, y, scale);
    return y;
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++)
        if (p->child[i]->tuner->weight) w = p->child[i]->tuner->weight(p->child[i], p->site[i], nn, w, scale);
    return w;
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++)
        if (p->child[i]->tuner->bias) b = p->child[i]->tuner->bias(p->child[i], p->site[i], nn, b, scale);
    return b;
}

static struct cb_tensor *before(const struct module *m, const struct tuner_site *site, struct nn *nn, const struct nn_prefixed *attention) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++)
        if (p->child[i]->tuner->before) return p->child[i]->tuner->before(p->child[i], p->site[i], nn, attention);
    return NULL;
}

static struct cb_tensor *rows(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++)
        if (p->child[i]->tuner->rows) return p->child[i]->tuner->rows(p->child[i], p->site[i], nn);
    return NULL;
}

static void enter(const struct module *m, const struct tuner_site *site, struct nn *nn, struct tuner_flow *flow) {
    (void)m, (void)site, (void)nn, (void)flow;
}

static void change(const struct module *m, const struct tuner_site *site, struct nn *nn, struct tuner_flow *flow, struct cb_tensor *scale) {
    const struct parts *p = site->own;
    (void)m;
    for (int i = 0; i < p->n; i++) {
        const struct tuner_join *join = p->child[i]->tuner->join;
        if (!join) continue;
        join->enter(p->child[i], p->site[i], nn, flow);
        join->change(p->child[i], p->site[i], nn, flow, scale);
    }
}

static struct cb_tensor *leave(const struct module *m, const struct tuner_site *site, struct nn *nn, const struct tuner_flow *flow) {
    const struct parts *p = site->own;
    int i = p->n - 1;
    (void)m;
    while (i > 0 && !p->child[i]->tuner->join) i--;
    return p->child[i]->tuner->join->leave(p->child[i], p->site[i], nn, flow);
}

static const char *refuses_fold(const struct module *m) {
    const struct union_options *o = m->options;
    for (int i = 0; i < o->n; i++) {
        const struct tuner *t = o->child[i]->tuner;
        if (!t->weight && !t->bias) return "one of its methods is no change of weights";
        if (t->refuses_fold && t->refuses_fold(o->child[i])) return t->refuses_fold(o->child[i]);
    }
    return NULL;
}

static const struct tuner_option options[] = {
    {"methods", "configs", TUNER_STRS,
     "methods of the adapters library joined by +: par_bn+ad_lora; options of the first one begin with 0., of the second with 1."},
    {0},
};
#define GATED_LORA "{\"alpha\":2,\"architecture\":\"lora\",\"r\":8,\"use_gating\":true}"
#define GATED_PREFIX "{\"architecture\":\"prefix_tuning\",\"prefix_length\":10,\"use_gating\":true}"
#define GATED_BOTTLENECK                                                                                                            \
    "{\"mh_adapter\":false,\"non_linearity\":\"relu\",\"original_ln_before\":true,\"output_adapter\":true,\"reduction_factor\":16," \
    "\"use_gating\":true}"
#define PARALLEL                                                                                                                      \
    "{\"init_weights\":\"mam_adapter\",\"is_parallel\":true,\"mh_adapter\":false,\"non_linearity\":\"relu\",\"output_adapter\":true," \
    "\"reduction_factor\":2,\"scaling\":4.0}"
static const struct tuner_preset presets[] = {
    {"mam", "MAM: prefix tuning and a parallel bottleneck.",
     "{\"configs\":[{\"architecture\":\"prefix_tuning\",\"bottleneck_size\":800,\"prefix_length\":30}," PARALLEL "]}"},
    {"unipelt", "UniPELT: prefix tuning, a bottleneck and LoRA, each behind a gate.",
     "{\"configs\":[" GATED_PREFIX "," GATED_BOTTLENECK "," GATED_LORA "]}"},
    {0},
};
static const char *const cases[] = {"union:methods=par_bn+ad_lora", "mam:0.bottleneck=6",
                                    "unipelt:0.n=2,0.bottleneck=5,1.reduction_factor=3,2.r=2", NULL};
static const struct tuner_join join = {enter, change, leave};

const struct tuner tuner_union = {
    .name = "union",
    .doc = "Several methods of the adapters library in one module.",
    .architecture = "union",
    .presets = presets,
    .options = options,
    .defaults = "{\"architecture\":\"union\",\"configs\":[]}",
    .options_bytes = sizeof(struct union_options),
    .fresh = TUNER_NOT_BASE,
    .scaling = "as its methods have it",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .input = input,
    .delta = delta,
    .weight = weight,
    .bias = bias,
    .rows = rows,
    .before = before,
    .join = &join,
    .release = release,
    .refuses_fold = refuses_fold,
};
