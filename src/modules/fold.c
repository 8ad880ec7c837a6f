/* Folding: weights and biases by the definitions of modules, in place of the model's. */
#include <stdlib.h>
#include <string.h>

#include "modules/private.h"

void module_set_scale(const struct module *module, struct store *store, double scale) {
    struct store_entry *entry = store_find(store, module->scale_name);
    if (entry) *(float *)entry->data = (float)scale;
}

static bool is_defined(const struct module *m, bool is_bias) { return is_bias ? m->tuner->bias != NULL : m->tuner->weight != NULL; }

/* Everything is checked before the first weight changes. */
static enum cb_status fold_check(const struct module *m, const struct store *store, bool unfold, struct cb_err *err) {
    const char *reason = m->tuner->refuses_fold ? m->tuner->refuses_fold(m) : NULL;
    if (m->n_sites && !m->tuner->weight && !m->tuner->bias && (m->tuner->join || m->tuner->delta || m->tuner->input))
        FAIL(err, CB_E_UNSUPPORTED, "%s: a module of kind %s cannot be folded into weights", m->name, m->tuner->name);
    if (reason) FAIL(err, CB_E_UNSUPPORTED, "%s: it cannot be folded into weights: %s", m->name, reason);
    if (unfold && !module_unfolds(m))
        FAIL(err, CB_E_UNSUPPORTED, "%s: a module of kind %s cannot be taken off again: the weights that it changed are gone", m->name,
             m->tuner->name);
    for (int i = 0; i < m->n_sites; i++) {
        const struct nn_site *site = &m->sites[i].site;
        if (m->sites[i].shared && m->tuner->weight)
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: its weight %s serves another module too; folding would change both", m->name, site->name,
                 site->weight);
        if (m->tuner->weight && (!site->weight || !store_find(store, site->weight)))
            FAIL(err, CB_E_NAME, "%s: %s: its weight is not in the store", m->name, site->name);
    }
    if (m->rows_alone)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s serves another module too, which has not these new rows; folding would change both", m->name,
             m->rows_alone);
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

static bool is_held_turned(void *user, const char *name) {
    const struct store_entry *entry = store_find(user, name);
    return entry && entry->turned;
}

/* One weight or bias through all modules' definitions, in place. */
static enum cb_status fold_one(const struct module_list *list, const struct nn_site *place, bool is_bias, struct store *store,
                               const struct module_evaluator *evaluator, struct cb_err *err) {
    const char *name = is_bias ? place->bias : place->weight, *const output = "folded";
    struct store_entry *entry = store_find(store, name);
    struct cb_graph *g;
    if (!entry) FAIL(err, CB_E_NAME, "%s: %s: not in the store", place->name, name);
    TRY(store_make(store, entry, CB_DTYPE_F32, true, err));
    TRY(graph_create(&g, evaluator->ops, err));
    struct nn nn = nn_make(g);
    nn.param_dtype = store_dtype;
    nn.param_turned = is_held_turned;
    nn.dtype_user = store;
    struct cb_tensor *const leaf = graph_param(g, name, entry->type), *p = leaf;
    for (int i = 0; i < list->n; i++) {
        const struct tuner_site *site = is_defined(list->modules[i], is_bias) ? module_site(list->modules[i], place->name) : NULL;
        if (site) p = module_defined(list->modules[i], site, &nn, is_bias, p);
    }
    if (p == leaf) {  // nothing defined, after all
        graph_destroy(&g);
        return CB_OK;
    }
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

/* Whether a module before the i-th has a definition there: its turn did them all. */
static bool is_done(const struct module_list *list, int i, const char *site, bool is_bias) {
    for (int k = 0; k < i; k++)
        if (is_defined(list->modules[k], is_bias) && module_site(list->modules[k], site)) return true;
    return false;
}

static enum cb_status fold_sites(const struct module_list *list, struct store *store, const struct module_evaluator *evaluator,
                                 struct cb_err *err) {
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        for (int k = 0; k < m->n_sites; k++) {
            const struct nn_site *site = &m->sites[k].site;
            if (m->sites[k].is_tied) continue;
            // a bias may be defined by the weight as it was
            for (int is_bias = 1; is_bias >= 0; is_bias--) {
                if (!is_defined(m, is_bias) || (is_bias && !site->bias) || is_done(list, i, site->name, is_bias)) continue;
                TRY(fold_one(list, site, is_bias, store, evaluator, err));
            }
        }
    }
    return CB_OK;
}

/* Copies and rows change places with what they stand for. */
static enum cb_status fold_copies(const struct module *m, struct store *store, struct cb_err *err) {
    for (int i = 0; i < m->n_swaps; i++) {
        const struct tuner_param *p = &m->params[m->swaps[i].param];
        if (m->swaps[i].is_tied) continue;
        struct store_entry *own = store_find(store, p->public.name), *base = store_find(store, p->source);
        TRY(store_make(store, base, CB_DTYPE_F32, true, err));
        float *a = own->data, *b = base->data;
        for (int64_t k = 0; k < type_elements(&p->public.type); k++) {
            float kept = a[k];
            a[k] = b[k];
            b[k] = kept;
        }
    }
    return tuner_rows_fold(m, store, err);
}

bool module_shares(const struct module *m) {
    bool shares = m->rows_alone != NULL;
    for (int i = 0; i < m->n_sites; i++) shares |= m->sites[i].shared && m->tuner->weight;
    for (int i = 0; i < m->n_swaps; i++) shares |= m->swaps[i].shared;
    return shares;
}

bool module_ties(const struct module *m) {
    bool ties = false;
    for (int i = 0; i < m->n_new_rows; i++) ties |= m->new_rows[i].is_tied;
    return ties;
}

bool module_unfolds(const struct module *m) { return m->is_additive; }

/* Scales change their signs. */
static void scales_turn(const struct module_list *list, struct store *store) {
    for (int i = 0; i < list->n; i++) {
        struct store_entry *entry = store_find(store, list->modules[i]->scale_name);
        if (entry) *(float *)entry->data *= -1;
    }
}

enum cb_status module_fold(const struct module_list *list, struct store *store, bool unfold, const struct module_evaluator *evaluator,
                           struct cb_err *err) {
    for (int i = 0; i < list->n; i++) TRY(fold_check(list->modules[i], store, unfold, err));
    for (int i = 0; !unfold && i < list->n; i++) TRY(fold_copies(list->modules[i], store, err));
    if (unfold) scales_turn(list, store);
    enum cb_status status = fold_sites(list, store, evaluator, err);
    if (unfold) scales_turn(list, store);
    TRY(status);
    for (int i = list->n; unfold && i-- > 0;) TRY(fold_copies(list->modules[i], store, err));
    return CB_OK;
}
