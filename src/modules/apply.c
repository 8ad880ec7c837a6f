/* Modules at work: the hook that changes a graph, and folding into the weights. */
#include <stdlib.h>
#include <string.h>

#include "modules/private.h"
#include "ops/ops.h"

/* The module's part at a site; NULL: none. */
static const struct tuner_site *site_of(const struct module *m, const char *name) {
    int64_t k = table_get(&m->by_site, name, strlen(name));
    return k < 0 ? NULL : &m->sites[k];
}

static struct cb_tensor *scale_leaf(const struct module *m, struct nn *nn) {
    return graph_param(nn->g, m->scale_name, type_make(CB_DTYPE_F32, 0, NULL));
}

static struct cb_tensor *hook_input(void *user, struct nn *nn, const char *name, struct cb_tensor *x) {
    const struct module_list *list = user;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        const struct tuner_site *site = m->tuner->input ? site_of(m, name) : NULL;
        if (site && !graph_is_bad(nn->g, x)) x = m->tuner->input(m, site, nn, x, scale_leaf(m, nn));
    }
    return x;
}

static struct cb_tensor *hook_site(void *user, struct nn *nn, const struct nn_site *place, struct cb_tensor *x, struct cb_tensor *y) {
    const struct module_list *list = user;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        const struct tuner_site *site = m->tuner->delta ? site_of(m, place->name) : NULL;
        if (site && !graph_is_bad(nn->g, y)) y = m->tuner->delta(m, site, nn, x, y, scale_leaf(m, nn));
    }
    return y;
}

/* A weight or bias as the module's definition has it. turned: a linear layer's weight p is (in,out). */
static struct cb_tensor *defined(const struct module *m, const struct tuner_site *site, struct nn *nn, bool is_bias, bool turned,
                                 struct cb_tensor *p) {
    if (graph_is_bad(nn->g, p)) return p;
    if (p->type.dtype != CB_DTYPE_F32) p = op_cast(nn->g, p, CB_DTYPE_F32);
    if (is_bias) return m->tuner->bias(m, site, nn, p, scale_leaf(m, nn));
    if (turned) p = op_transpose(nn->g, p, 0, 1);
    p = m->tuner->weight(m, site, nn, p, scale_leaf(m, nn));
    return turned ? op_transpose(nn->g, p, 0, 1) : p;
}

static bool is_turned(const struct tuner_site *site, bool is_held_turned) {
    bool is_linear = site->site.kind == NN_LINEAR || site->site.kind == NN_HEAD;
    return is_linear && site->site.weight_is_in_out != is_held_turned;
}

/* Copies stand for the model's own, the last module's that has one; definitions change what they meet. */
static struct cb_tensor *hook_param(void *user, struct nn *nn, const char *name, const char *field, struct cb_tensor *p) {
    const struct module_list *list = user;
    const bool is_bias = strcmp(field, "bias") == 0;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        for (int k = 0; k < m->n_swaps; k++) {
            if (strcmp(m->swaps[k].site, name) != 0 || strcmp(m->swaps[k].field, field) != 0) continue;
            const struct module_param *own = &m->params[m->swaps[k].param].public;
            p = graph_param(nn->g, own->name, own->type);
        }
        if (m->tuner->delta || !(is_bias ? m->tuner->bias != NULL : m->tuner->weight != NULL)) continue;
        const struct tuner_site *site = site_of(m, name);
        if (!site) continue;
        bool is_held_turned = site->site.weight && nn->param_turned && nn->param_turned(nn->dtype_user, site->site.weight);
        p = defined(m, site, nn, is_bias, is_turned(site, is_held_turned), p);
    }
    return p;
}

struct nn_hook module_hook(struct module_list *list) {
    return (struct nn_hook){.user = list, .input = hook_input, .site = hook_site, .param = hook_param};
}

void module_set_scale(const struct module *module, struct store *store, double scale) {
    struct store_entry *entry = store_find(store, module->scale_name);
    if (entry) *(float *)entry->data = (float)scale;
}

/* Everything is checked before the first weight changes. */
static enum cb_status fold_check(const struct module *m, const struct store *store, bool unfold, struct cb_err *err) {
    const char *reason = m->tuner->refuses_fold ? m->tuner->refuses_fold(m) : NULL;
    if (!m->tuner->weight && !m->tuner->bias)
        FAIL(err, CB_E_UNSUPPORTED, "%s: a module of kind %s cannot be folded into weights", m->name, m->tuner->name);
    if (reason) FAIL(err, CB_E_UNSUPPORTED, "%s: it cannot be folded into weights: %s", m->name, reason);
    if (unfold && !m->tuner->is_additive)
        FAIL(err, CB_E_UNSUPPORTED, "%s: a module of kind %s cannot be taken off again: the weights that it changed are gone", m->name,
             m->tuner->name);
    for (int i = 0; i < m->n_sites; i++) {
        const struct nn_site *site = &m->sites[i].site;
        if (m->sites[i].shared)
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: its weight %s serves another module too; folding would change both", m->name, site->name,
                 site->weight);
        if (!site->weight || !store_find(store, site->weight))
            FAIL(err, CB_E_NAME, "%s: %s: its weight is not in the store", m->name, site->name);
    }
    for (int i = 0; i < m->n_swaps; i++) {
        const char *source = m->params[m->swaps[i].param].source;
        if (m->swaps[i].shared)
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: its weight %s serves another module too; folding would change both", m->name,
                 m->swaps[i].site, source);
        if (!store_find(store, source)) FAIL(err, CB_E_NAME, "%s: %s: not in the store", m->name, source);
    }
    for (int i = 0; i < m->n_params; i++)
        if (!store_find(store, m->params[i].public.name)) FAIL(err, CB_E_NAME, "%s: not in the store", m->params[i].public.name);
    return CB_OK;
}

/* One weight or bias by its definition, in place. */
static enum cb_status fold_one(const struct module *m, const struct tuner_site *site, bool is_bias, struct store *store,
                               const struct module_evaluator *evaluator, struct cb_err *err) {
    const char *name = is_bias ? site->site.bias : site->site.weight, *const output = "folded";
    struct store_entry *entry = store_find(store, name);
    struct cb_graph *g;
    if (!entry) FAIL(err, CB_E_NAME, "%s: %s: not in the store", m->name, name);
    TRY(store_make(store, entry, CB_DTYPE_F32, true, err));
    TRY(graph_create(&g, evaluator->ops, err));
    struct nn nn = nn_make(g);
    struct cb_tensor *p = graph_param(g, name, entry->type);
    p = defined(m, site, &nn, is_bias, is_turned(site, entry->turned), p);
    graph_output(g, p, output);
    float *data = malloc((size_t)entry->bytes + 1);
    enum cb_status status = data ? g->err.code : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to fold", name);
    if (data && g->err.code != CB_OK) err_set(err, g->err.code, __FILE__, __LINE__, "%s", g->err.message);
    if (status == CB_OK) status = evaluator->run(evaluator->user, g, store, 1, &output, &data, err);
    if (status == CB_OK) memcpy(entry->data, data, (size_t)entry->bytes);
    free(data);
    graph_destroy(&g);
    return status;
}

static enum cb_status fold_sites(const struct module *m, struct store *store, const struct module_evaluator *evaluator,
                                 struct cb_err *err) {
    for (int i = 0; i < m->n_sites; i++) {
        if (m->tuner->weight) TRY(fold_one(m, &m->sites[i], false, store, evaluator, err));
        if (m->tuner->bias && m->sites[i].site.bias) TRY(fold_one(m, &m->sites[i], true, store, evaluator, err));
    }
    return CB_OK;
}

bool module_unfolds(const struct module *m) { return m->tuner->is_additive; }

enum cb_status module_fold(const struct module *m, struct store *store, bool unfold, const struct module_evaluator *evaluator,
                           struct cb_err *err) {
    TRY(fold_check(m, store, unfold, err));
    const struct store_entry *entry = store_find(store, m->scale_name);
    const double scale = entry ? *(const float *)entry->data : 1;
    if (unfold) module_set_scale(m, store, -scale);
    enum cb_status status = fold_sites(m, store, evaluator, err);
    if (unfold) module_set_scale(m, store, scale);
    TRY(status);
    // copies change places with what they stand for
    for (int i = 0; i < m->n_swaps; i++) {
        const struct tuner_param *p = &m->params[m->swaps[i].param];
        struct store_entry *own = store_find(store, p->public.name), *base = store_find(store, p->source);
        TRY(store_make(store, base, CB_DTYPE_F32, true, err));
        float *a = own->data, *b = base->data;
        for (int64_t k = 0; k < type_elements(&p->public.type); k++) {
            float kept = a[k];
            a[k] = b[k];
            b[k] = kept;
        }
    }
    return CB_OK;
}
