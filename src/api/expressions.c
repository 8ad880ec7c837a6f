/* Module expressions on an instance: every folder that one names is loaded once a scale, and the tree tells the hook what becomes of them. */
#include <stdlib.h>
#include <string.h>

#include "api/instance.h"
#include "modules/expression.h"

/* A module that the tree has already, with the same scale: of parts of a batch it need not be there twice. */
static const struct expression *find_loaded(const struct expression *e, const char *path, double scale) {
    if (!e->block) return e->path && e->module >= 0 && e->scale == scale && strcmp(e->path, path) == 0 ? e : NULL;
    for (int i = 0; i < e->n; i++) {
        const struct expression *found = find_loaded(e->child[i], path, scale);
        if (found) return found;
    }
    return NULL;
}

static enum cb_status load_tree(struct instance *in, const struct expression *root, struct expression *e, struct cb_err *err) {
    for (int i = 0; i < e->n; i++) TRY(load_tree(in, root, e->child[i], err));
    if (e->block || !e->path) return CB_OK;
    const struct expression *same = expression_is_sum(root) ? NULL : find_loaded(root, e->path, e->scale);
    if (same) {
        e->module = same->module;
        return CB_OK;
    }
    TRY(instance_load_module(in, e->path, e->scale, err));
    e->module = in->list.n - 1;
    return CB_OK;
}

/* Every row goes to all children of a block that replicates: how many rows there are for one; and these children's names, for their outputs. */
static int64_t copies_of(const struct expression *e) {
    int64_t most = 1;
    for (int i = 0; i < e->n; i++) {
        const int64_t n = copies_of(e->child[i]);
        if (n > most) most = n;
    }
    return e->block && e->block->replicates ? most * e->n : most;
}

enum cb_status instance_add_modules(struct instance *in, const char *text, struct cb_err *err) {
    struct expression *root;
    if (in->list.n) FAIL(err, CB_E_ARGUMENT, "modules: the instance has some already");
    if (!in->arena && !(in->arena = arena_create())) FAIL(err, CB_E_MEMORY, "modules: out of memory");
    TRY(expression_parse(&root, in->arena, text, "--modules", err));
    TRY(load_tree(in, root, root, err));
    in->list.expression = root;
    in->list.n_composed = in->list.n;
    in->copies = copies_of(root);
    return CB_OK;
}

/* The child of the field's value takes the place of the block; none of that value: the base. */
static void resolve(struct expression *e, const char *field, const char *value) {
    for (int i = 0; i < e->n; i++) resolve(e->child[i], field, value);
    if (!e->field || strcmp(e->field, field) != 0) return;
    for (int i = 0; i < e->n; i++)
        if (strcmp(e->value[i], value) == 0) {
            struct expression chosen = *e->child[i];
            chosen.weight *= e->weight;
            *e = chosen;
            return;
        }
    *e = (struct expression){.module = -1, .weight = 1, .scale = 1, .name = "base"};
}

void instance_set_field(struct instance *in, const char *field, const char *value) {
    if (in->list.expression) resolve((struct expression *)in->list.expression, field, value);
}
