/* Modules at work: the hook that changes a graph, and folding into the weights. */
#include <string.h>

#include "modules/private.h"
#include "ops/ops.h"

static struct cb_tensor *hook_site(void *user, struct nn *nn, const struct nn_site *site, struct cb_tensor *x, struct cb_tensor *y) {
    const struct module_list *list = user;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        int64_t k = table_get(&m->by_site, site->name, strlen(site->name));
        if (k < 0 || graph_is_bad(nn->g, y)) continue;
        struct cb_tensor *scale = graph_param(nn->g, m->scale_name, type_make(CB_DTYPE_F32, 0, NULL));
        y = m->tuner->delta(m, &m->sites[k], nn, x, y, scale);
    }
    return y;
}

/* The last module that holds a copy wins. */
static struct cb_tensor *hook_param(void *user, struct nn *nn, const char *site, const char *field, struct cb_tensor *p) {
    const struct module_list *list = user;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        for (int k = 0; k < m->n_swaps; k++) {
            if (strcmp(m->swaps[k].site, site) != 0 || strcmp(m->swaps[k].field, field) != 0) continue;
            const struct module_param *own = &m->params[m->swaps[k].param].public;
            p = graph_param(nn->g, own->name, own->type);
        }
    }
    return p;
}

struct nn_hook module_hook(struct module_list *list) {
    return (struct nn_hook){list, hook_site, hook_param};
}

void module_set_scale(const struct module *module, struct store *store, double scale) {
    struct store_entry *entry = store_find(store, module->scale_name);
    if (entry) *(float *)entry->data = (float)scale;
}

/* Everything is checked before the first weight changes. */
static enum cb_status fold_check(const struct module *m, const struct store *store, struct cb_err *err) {
    if (!m->tuner->fold) FAIL(err, CB_E_UNSUPPORTED, "%s: a module of kind %s cannot be folded into weights", m->name, m->tuner->name);
    for (int i = 0; i < m->n_sites; i++) {
        const struct nn_site *site = &m->sites[i].site;
        if (m->sites[i].shared)
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: its weight %s serves another module too; folding would change both", m->name, site->name,
                 site->weight);
        if (!store_find(store, site->weight)) FAIL(err, CB_E_NAME, "%s: %s: not in the store", m->name, site->weight);
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

enum cb_status module_fold(const struct module *m, struct store *store, bool unfold, struct cb_err *err) {
    TRY(fold_check(m, store, err));
    const struct store_entry *entry = store_find(store, m->scale_name);
    double factor = (entry ? *(const float *)entry->data : 1) * (unfold ? -1.0 : 1.0);
    for (int i = 0; i < m->n_sites; i++) {
        const struct tuner_site *site = &m->sites[i];
        struct store_entry *weight = store_find(store, site->site.weight);
        TRY(store_make(store, weight, CB_DTYPE_F32, true, err));
        const float *param[8] = {0};
        for (int k = 0; k < site->n_params && k < 8; k++) param[k] = store_find(store, m->params[site->first + k].public.name)->data;
        m->tuner->fold(site, param, factor, weight->data);
    }
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
