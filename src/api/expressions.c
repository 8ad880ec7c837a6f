/* Module expressions on an instance: every folder that one names is loaded once a scale, and the tree tells the hook what becomes of them. */
#include <stdlib.h>
#include <string.h>

#include "api/sets.h"
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

/* no_head: the modules come without heads, one above brings one. */
static enum cb_status load_tree(struct instance *in, const struct expression *root, struct expression *e, bool no_head,
                                struct cb_err *err) {
    const bool is_fusing = e->block && e->block->brings_head;
    // heads are told apart from modules in adapter_setup.json
    for (int i = 0; i < e->n; i++) TRY(load_tree(in, root, e->child[i], no_head || (is_fusing && !e->is_library), err));
    if (is_fusing && !e->folder) {
        if (in->open) FAIL(err, CB_E_UNSUPPORTED, "--modules: %s: a second block without weights; wanted one at a time", e->block->name);
        in->open = e;
    }
    if (e->folder) {
        TRY(instance_load_module(in, e->folder, NULL, 1, err));
        e->own = in->list.n - 1;
    }
    if (e->block || !e->path) return CB_OK;
    const struct expression *same = expression_is_sum(root) ? NULL : find_loaded(root, e->path, e->scale);
    if (same) {
        e->module = same->module;
        return CB_OK;
    }
    TRY(instance_load_module(in, e->path, no_head ? MODULE_NO_HEAD : e->head, e->scale, err));
    e->module = in->list.n - 1;
    return CB_OK;
}

/* Rows of the input for one, where blocks give each row to several children. */
static int64_t copies_of(const struct expression *e) {
    int64_t most = 1;
    for (int i = 0; i < e->n; i++) {
        const int64_t n = copies_of(e->child[i]);
        if (n > most) most = n;
    }
    return e->block && e->block->replicates ? most * e->n : most;
}

static const struct expression *copied(const struct expression *e) {
    if (e->block && e->block->replicates) return e;
    for (int i = 0; i < e->n; i++) {
        const struct expression *found = copied(e->child[i]);
        if (found) return found;
    }
    return NULL;
}

const struct expression *instance_copied(const struct instance *in) { return in->list.expression ? copied(in->list.expression) : NULL; }

/* A block that chooses by what nobody says of rows; has_tasks: their tasks are said. */
static const struct expression *chooser(const struct expression *e, bool has_tasks) {
    if (e->block && e->block->chooses && !(has_tasks && (!e->field || strcmp(e->field, SETS_FIELD) == 0))) return e;
    for (int i = 0; i < e->n; i++) {
        const struct expression *found = chooser(e->child[i], has_tasks);
        if (found) return found;
    }
    return NULL;
}

/* Modules that depend on what all rows have. */
static enum cb_status fields_set(struct instance *in, const struct expression *root, struct cb_err *err) {
    for (int i = 0; i < root->n_fields; i++)
        for (int k = 0; k < in->list.n; k++)
            if (module_has_field(in->modules[k], root->fields[2 * i]))
                TRY(module_set_field(in->modules[k], root->fields[2 * i], root->fields[2 * i + 1], err));
    return CB_OK;
}

enum cb_status instance_add_modules(struct instance *in, const char *text, struct cb_err *err) {
    struct expression *root;
    if (in->list.n) FAIL(err, CB_E_ARGUMENT, "modules: the instance has some already");
    if (!in->arena && !(in->arena = arena_create())) FAIL(err, CB_E_MEMORY, "modules: out of memory");
    TRY(expression_parse(&root, in->arena, text, "--modules", err));
    TRY(load_tree(in, root, root, false, err));
    TRY(fields_set(in, root, err));
    in->list.expression = root;
    in->list.n_composed = in->list.n;
    in->copies = copies_of(root);
    return CB_OK;
}

enum cb_status instance_hook(struct instance *in, struct nn_hook *hook, struct cb_err *err) {
    const struct expression *e = in->list.expression, *by = e ? chooser(e, in->gives_tasks) : NULL;
    if (!in->list.n) return CB_OK;
    if (in->open)
        FAIL(err, CB_E_USAGE, "--modules: %s: found no folder of its weights; wanted %s (finetune --tuner fusion trains them)",
             in->open->block->name, in->open->block->syntax);
    if (in->copies > 1 && !in->gives_rows)
        FAIL(err, CB_E_UNSUPPORTED, "--modules: %s gives several outputs; here one is wanted (forward takes it)", copied(e)->block->name);
    if (by && !in->gives_rows)
        FAIL(err, CB_E_UNSUPPORTED, "--modules: %s%s%s: rows have no such field here; --field %s=VALUE gives them all one", by->block->name,
             by->field ? " by " : "", by->field ? by->field : "", by->field ? by->field : "task_ids");
    for (int i = 0; i < in->list.n && !in->gives_rows && !in->gives_fields; i++) {
        const struct module_field *open = module_open_field(in->modules[i]);
        char known[200];
        if (open && !(in->gives_tasks && strcmp(open->name, SETS_FIELD) == 0))
            FAIL(err, CB_E_UNSUPPORTED,
                 "a module with field %s: rows have no such field here; --field %s=VALUE (fresh: at=%s=VALUE) gives them all one of %s",
                 open->name, open->name, open->name, module_field_values(open, known));
    }
    TRY(module_list_check(&in->list, err));
    *hook = module_hook(&in->list);
    return CB_OK;
}
