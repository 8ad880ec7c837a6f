/* The plain module that one with fields (a hypernetwork) is for given values of them: the same parameters, made once, in the layout of their own kind. */
#include <stdlib.h>
#include <string.h>

#include "modules/private.h"

/* A trained copy of one of the model's own weights goes over as it is. */
static enum cb_status copy_fill(const struct tuner_param *p, const struct module *m, const struct store *store, float *to,
                                struct cb_err *err) {
    for (int i = 0; i < m->n_params; i++) {
        const struct tuner_param *own = &m->params[i];
        const struct store_entry *entry = own->source && strcmp(own->source, p->source) == 0 ? store_find(store, own->public.name) : NULL;
        if (!entry || !type_equal(&entry->type, &p->public.type)) continue;
        memcpy(to, entry->data, (size_t)entry->bytes);
        return CB_OK;
    }
    FAIL(err, CB_E_NAME, "%s: %s has no copy of it", p->source, m->name);
}

/* Every value by one graph. */
static enum cb_status values_make(const struct module *plain, const struct module *m, struct store *store,
                                  const struct module_evaluator *evaluator, const char **names, float **data, struct cb_err *err) {
    struct cb_graph *g;
    int n = 0;
    enum cb_status status = CB_OK;
    TRY(graph_create(&g, evaluator->ops, err));
    struct nn nn = nn_make(g);
    for (int i = 0; i < plain->n_params && status == CB_OK; i++) {
        const struct tuner_param *p = &plain->params[i];
        float *to = store_find(store, p->public.name)->data;
        if (p->source) {
            status = copy_fill(p, m, store, to, err);
            continue;
        }
        names[n] = p->public.name;
        data[n++] = to;
        graph_output(g, m->tuner->plain_value(m, plain, i, &nn), p->public.name);
    }
    if (status == CB_OK && (status = g->err.code) != CB_OK) err_set(err, status, __FILE__, __LINE__, "%s", g->err.message);
    if (status == CB_OK && n) status = evaluator->run(evaluator->user, g, store, n, names, data, err);
    graph_destroy(&g);
    return status;
}

static enum cb_status values_fill(const struct module *plain, const struct module *m, struct store *store,
                                  const struct module_evaluator *evaluator, struct cb_err *err) {
    TRY(module_add_scale(plain, store, err));
    for (int i = 0; i < plain->n_params; i++) {
        struct store_entry *entry;
        TRY(store_add(store, plain->params[i].public.name, plain->params[i].public.type, &entry, err));
    }
    const size_t n = (size_t)plain->n_params + 1;
    const char **names = calloc(n, sizeof *names);
    float **data = calloc(n, sizeof *data);
    enum cb_status status = names && data ? values_make(plain, m, store, evaluator, names, data, err)
                                          : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", plain->name);
    free(names);
    free(data);
    return status;
}

/* Both change the same sites. */
static enum cb_status sites_compare(const struct module *plain, const struct module *m, struct cb_err *err) {
    bool same = plain->n_sites == m->n_sites;
    for (int i = 0; same && i < m->n_sites; i++) same = strcmp(plain->sites[i].site.name, m->sites[i].site.name) == 0;
    if (same) return CB_OK;
    FAIL(err, CB_E_UNSUPPORTED, "%s: a configuration of kind %s cannot name its sites: it would have %d; wanted %d", m->name,
         plain->tuner->name, plain->n_sites, m->n_sites);
}

enum cb_status module_plain(struct module **plain, const struct module *module, struct store *store, const char *name,
                            const struct nn *sites, const struct module_evaluator *evaluator, struct cb_err *err) {
    const struct module_field *open = module_open_field(module);
    char known[200];
    json_t *config = NULL;
    *plain = NULL;
    if (!module->tuner->plain_config)
        FAIL(err, CB_E_UNSUPPORTED, "a module of kind %s depends on no fields: it is plain already", module->tuner->name);
    if (open) FAIL(err, CB_E_ARGUMENT, "field %s: found no value; wanted one of %s", open->name, module_field_values(open, known));
    TRY(module->tuner->plain_config(module, &config, err));
    enum cb_status status = module_from_config(plain, config, NULL, module->name, name, sites, err);
    json_decref(config);
    if (status == CB_OK) status = sites_compare(*plain, module, err);
    if (status == CB_OK) status = values_fill(*plain, module, store, evaluator, err);
    if (status == CB_OK || !*plain) return status;
    module_remove(*plain, store);
    module_destroy(plain);
    return status;
}
