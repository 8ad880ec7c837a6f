/* A model whose head has a table of its own, in place of one that shares the embedding's: what changes only one of both needs that. */
#include "models/model.h"
#include "store/store.h"

/* The head's table begins as the embedding's. */
static enum cb_status head_take(const struct model *old, const struct model *model, struct store *store, struct cb_err *err) {
    for (int i = 0; i < model->n_weights; i++) {
        const struct model_weight *w = &model->weights[i];
        if (model_find_weight(old, w->name) || store_find(store, w->name)) continue;
        const struct store_entry *table = store_find(store, old->embedding);
        if (!table || type_elements(&table->type) != type_elements(&w->type) || table->type.dim[0] != w->type.dim[0])
            FAIL(err, CB_E_UNSUPPORTED, "%s: not of the embedding's shape; the two cannot be parted", w->name);
        TRY(store_add_alias(store, w->name, old->embedding, err));
    }
    return CB_OK;
}

enum cb_status model_untie(struct model **model, struct store *store, struct cb_err *err) {
    struct model *made = NULL;
    if (!(*model)->tied) return CB_OK;
    if ((*model)->family->encoder_decoder)
        FAIL(err, CB_E_UNSUPPORTED, "%s: the tables of two stacks cannot be parted", (*model)->family->name);
    json_t *config = json_deep_copy((*model)->config);
    if (!config || json_object_set_new(config, "tie_word_embeddings", json_false()) != 0) {
        json_decref(config);
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", (*model)->family->name);
    }
    enum cb_status status = model_from_config(&made, config, (*model)->family->name, err);
    json_decref(config);
    TRY(status);
    status = made->tied ? err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__,
                                  "%s: its head is the embedding's table whatever tie_word_embeddings says", made->class->name)
                        : head_take(*model, made, store, err);
    if (status != CB_OK) {
        model_destroy(&made);
        return status;
    }
    model_replace(model, made);
    return CB_OK;
}
