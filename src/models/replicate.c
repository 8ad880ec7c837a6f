/* A model whose layers are another's, some of them several times: what LoRA's layer_replication asks for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/model.h"
#include "store/store.h"

#define MOST_LAYERS 4096

/* Where the number of a layer stands in a weight's name ("model.layers.3.mlp"); NULL: it belongs to no layer. */
static const char *layer_number(const char *name, int *length) {
    for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.')) {
        size_t n = strspn(p + 1, "0123456789");
        *length = (int)n;
        if (n && p[1 + n] == '.') return p + 1;
    }
    return NULL;
}

/* The configuration of n layers, each of the kind that its source has. */
static enum cb_status config_make(json_t **out, const struct model *model, const int *source, int n, struct cb_err *err) {
    static const char *const keys[] = {"num_hidden_layers", "n_layer", "num_layers"};
    json_t *config = json_deep_copy(model->config), *kinds = json_object_get(config, "layer_types"), *list = NULL;
    int found = 0;
    bool ok = config != NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_is_integer(json_object_get(config, keys[i]))) {
            ok = ok && json_object_set_new(config, keys[i], json_integer(n)) == 0;
            found++;
        }
    if (json_is_array(kinds)) {
        list = json_array();
        for (int i = 0; ok && i < n; i++) ok = json_array_append(list, json_array_get(kinds, (size_t)source[i])) == 0;
        ok = ok && json_object_set_new(config, "layer_types", list) == 0;
    }
    if (!ok || !found) json_decref(config);
    if (!ok) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", model->family->name);
    if (!found) FAIL(err, CB_E_UNSUPPORTED, "%s: its configuration has no number of layers that could be changed", model->family->name);
    *out = config;
    return CB_OK;
}

/* Every weight of a layer as "replicated.<name>", by the source's. */
static enum cb_status weights_take(const struct model *model, struct store *store, const int *source, struct cb_err *err) {
    for (int i = 0; i < model->n_weights; i++) {
        const char *name = model->weights[i].name;
        char from[400], to[400];
        int length;
        const char *number = layer_number(name, &length);
        if (!number) continue;
        snprintf(from, sizeof from, "%.*s%d%s", (int)(number - name), name, source[atoi(number)], number + length);
        snprintf(to, sizeof to, "replicated.%s", name);
        if (model->weights[i].is_buffer && !store_find(store, from)) continue;
        TRY(store_add_alias(store, to, from, err));
    }
    return CB_OK;
}

static enum cb_status weights_rename(const struct model *old, const struct model *model, struct store *store, struct cb_err *err) {
    int length;
    for (int i = 0; i < old->n_weights; i++)
        if (layer_number(old->weights[i].name, &length)) store_remove(store, old->weights[i].name);
    for (int i = 0; i < model->n_weights; i++) {
        char from[400];
        if (!layer_number(model->weights[i].name, &length)) continue;
        snprintf(from, sizeof from, "replicated.%s", model->weights[i].name);
        if (!store_find(store, from)) continue;
        TRY(store_add_alias(store, model->weights[i].name, from, err));
        store_remove(store, from);
    }
    return CB_OK;
}

void model_replace(struct model **model, struct model *made) {
    made->generation = json_incref((*model)->generation);
    memcpy(made->eos, (*model)->eos, sizeof made->eos);
    made->n_eos = (*model)->n_eos;
    model_destroy(model);
    *model = made;
}

enum cb_status model_replicate(struct model **model, struct store *store, const int *source, int n, struct cb_err *err) {
    struct model *made = NULL;
    json_t *config = NULL;
    if ((*model)->family->encoder_decoder)
        FAIL(err, CB_E_UNSUPPORTED, "%s: layers of two stacks cannot be replicated", (*model)->family->name);
    if (n < 1 || n > MOST_LAYERS) FAIL(err, CB_E_LIMIT, "%d layers; wanted 1 to %d", n, MOST_LAYERS);
    for (int i = 0; i < n; i++)
        if (source[i] < 0 || source[i] >= (*model)->n_layer)
            FAIL(err, CB_E_ARGUMENT, "layer %d; wanted one of the model's %lld", source[i], (long long)(*model)->n_layer);
    TRY(config_make(&config, *model, source, n, err));
    enum cb_status status = model_from_config(&made, config, (*model)->family->name, err);
    json_decref(config);
    TRY(status);
    status = weights_take(made, store, source, err);
    if (status == CB_OK) status = weights_rename(*model, made, store, err);
    if (status != CB_OK) {
        model_destroy(&made);
        return status;
    }
    model_replace(model, made);
    return CB_OK;
}
