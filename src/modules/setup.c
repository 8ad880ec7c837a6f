/* adapter_setup.json of the adapters library (Poth et al. 2023): a composition whose modules are folders beside the file.
   {"adapter_setup": {"type": "Stack", "children": [{"type": "single", "children": ["a"]}, ...], "kwargs": {...}}, "head_setup": ["out"], "version": ...} */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "modules/expression.h"

#define SETUP_FILE "adapter_setup.json"
#define SETUP_LIMIT ((size_t)4 << 20)

/* What is being read. */
struct setup {
    struct arena *arena;
    struct cb_err *err;
    const char *folder;
    char where[1024];  // of the file, for messages
    int n_nodes;
};

bool setup_is_folder(const char *folder) {
    char path[4096];
    const int n = snprintf(path, sizeof path, "%s/%s", folder, SETUP_FILE);
    return n > 0 && n < (int)sizeof path && io_is_file(path);
}

/* FOLDER/NAME; a name is a folder's, not a way to elsewhere. */
static enum cb_status beside(struct setup *s, const char *name, const char **path) {
    if (strchr(name, '/') || !io_name_stays(name))
        FAIL(s->err, CB_E_FORMAT, "%s: found the name '%.80s'; wanted that of a folder beside the file", s->where, name);
    if (!(*path = arena_printf(s->arena, "%s/%s", s->folder, name))) FAIL(s->err, CB_E_MEMORY, "%s: no memory", s->where);
    return CB_OK;
}

static enum cb_status node_make(struct setup *s, int n, struct expression **out) {
    if (s->n_nodes++ >= EXPRESSION_NODES) FAIL(s->err, CB_E_LIMIT, "%s: more than %d modules and blocks", s->where, EXPRESSION_NODES);
    struct expression *e = arena_alloc(s->arena, sizeof *e);
    if (e)
        *e = (struct expression){.module = -1,
                                 .own = -1,
                                 .weight = 1,
                                 .scale = 1,
                                 .n = n,
                                 .child = arena_array(s->arena, (size_t)n, sizeof(struct expression *))};
    if (!e || !e->child) FAIL(s->err, CB_E_MEMORY, "%s: no memory", s->where);
    *out = e;
    return CB_OK;
}

/* "kwargs" of a split: its numbers. */
static enum cb_status numbers_read(struct setup *s, struct expression *e, const json_t *options) {
    const char *key = e->block->by_rows ? "batch_sizes" : "splits";
    if (!e->block->takes_numbers) return CB_OK;
    if (!(e->number = arena_array(s->arena, (size_t)e->n, sizeof *e->number))) FAIL(s->err, CB_E_MEMORY, "%s: no memory", s->where);
    return json_get_ints(e->number, &e->n_numbers, e->n, options, s->where, key, 0, INT32_MAX, true, s->err);
}

/* "kwargs" of an average: equal weights where it names none. */
static enum cb_status weights_read(struct setup *s, struct expression *e, const json_t *options) {
    const json_t *weights = NULL;
    bool normalize = true;
    if (!e->block->takes_options) return CB_OK;
    TRY(json_get_bool(&normalize, options, s->where, "normalize_weights", false, s->err));
    TRY(json_get_array(&weights, options, s->where, "weights", false, s->err));
    e->keeps_weights = !normalize;
    if (weights && json_array_size(weights) != (size_t)e->n)
        FAIL(s->err, CB_E_FORMAT, "%s: weights: found %zu; wanted one for each of %d children", s->where, json_array_size(weights), e->n);
    for (int i = 0; i < e->n; i++) {
        const json_t *value = weights ? json_array_get(weights, (size_t)i) : NULL;
        char text[JSON_TEXT];
        if (weights && (!json_is_number(value) || !isfinite(json_number_value(value))))
            FAIL(s->err, CB_E_FORMAT, "%s: weights: found %s; wanted a number", s->where, json_text(value, text));
        e->child[i]->weight = weights ? json_number_value(value) : 1 / (double)e->n;
    }
    return CB_OK;
}

static enum cb_status options_read(struct setup *s, struct expression *e, const json_t *node) {
    static const char *const none = "{}";
    const json_t *given = NULL;
    json_t *options = NULL;
    TRY(json_get_object(&given, node, s->where, "kwargs", false, s->err));
    if (given)
        options = json_incref((json_t *)given);
    else
        TRY(json_parse_object(&options, none, strlen(none), s->where, s->err));
    enum cb_status status = numbers_read(s, e, options);
    if (status == CB_OK) status = weights_read(s, e, options);
    json_decref(options);
    return status;
}

/* Names of the modules that a block ends with, joined by commas: what the library calls the folder of a Fuse block. */
static enum cb_status fusion_folder(struct setup *s, struct expression *e) {
    const char *joined = "";
    for (int i = 0; i < e->n && joined; i++) {
        const struct expression *last = e->child[i];
        while (last->block) last = last->child[last->n - 1];
        joined = arena_printf(s->arena, "%s%s%s", joined, i ? "," : "", last->name);
    }
    if (!joined) FAIL(s->err, CB_E_MEMORY, "%s: no memory", s->where);
    return beside(s, joined, &e->folder);
}

static enum cb_status node_read(struct setup *s, const json_t *node, int depth, struct expression **out) {
    const char *type = NULL;
    const json_t *children = NULL;
    char text[JSON_TEXT];
    if (!json_is_object(node)) FAIL(s->err, CB_E_FORMAT, "%s: found %s; wanted a block", s->where, json_text(node, text));
    if (depth > EXPRESSION_DEPTH) FAIL(s->err, CB_E_LIMIT, "%s: nested deeper than %d", s->where, EXPRESSION_DEPTH);
    TRY(json_get_str(&type, node, s->where, "type", true, s->err));
    TRY(json_get_array(&children, node, s->where, "children", true, s->err));
    const size_t n = json_array_size(children);
    if (n < 1 || n > EXPRESSION_NODES) FAIL(s->err, CB_E_FORMAT, "%s: %.40s: found %zu children; wanted one or more", s->where, type, n);
    if (strcmp(type, "single") == 0) {
        const char *name = json_string_value(json_array_get(children, 0));
        if (n != 1 || !name) FAIL(s->err, CB_E_FORMAT, "%s: single: wanted one name", s->where);
        TRY(node_make(s, 0, out));
        if (!((*out)->name = arena_strdup(s->arena, name))) FAIL(s->err, CB_E_MEMORY, "%s: no memory", s->where);
        return beside(s, (*out)->name, &(*out)->path);
    }
    const struct block *block = block_of_type(type);
    if (!block) FAIL(s->err, CB_E_UNSUPPORTED, "%s: type: found %.60s; wanted single or a known block", s->where, type);
    TRY(node_make(s, (int)n, out));
    (*out)->block = block;
    (*out)->is_library = true;
    for (size_t i = 0; i < n; i++) TRY(node_read(s, json_array_get(children, i), depth + 1, &(*out)->child[i]));
    TRY(options_read(s, *out, node));
    if (block->takes_folder) TRY(fusion_folder(s, *out));
    return block_check(*out, s->where, s->err);
}

static enum cb_status heads_read(struct setup *s, const json_t *root, const char *const **heads) {
    const json_t *list = json_object_get(root, "head_setup");
    const size_t n = json_is_string(list) ? 1 : json_array_size(list);
    char text[JSON_TEXT];
    if (n > EXPRESSION_NODES) FAIL(s->err, CB_E_LIMIT, "%s: head_setup: %zu heads", s->where, n);
    const char **out = arena_array(s->arena, n + 1, sizeof *out);
    if (!out) FAIL(s->err, CB_E_MEMORY, "%s: no memory", s->where);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_is_string(list) ? list : json_array_get(list, i);
        if (!json_is_string(value))
            FAIL(s->err, CB_E_UNSUPPORTED, "%s: head_setup: found %s; wanted a name", s->where, json_text(value, text));
        TRY(beside(s, json_string_value(value), &out[i]));
    }
    *heads = out;
    return CB_OK;
}

static bool has_path(const struct expression *e, const char *path) {
    bool found = e->path && strcmp(e->path, path) == 0;
    for (int i = 0; i < e->n; i++) found |= has_path(e->child[i], path);
    return found;
}

/* One head that is no module's own. */
static void head_settle(struct expression *root, const char *const *heads) {
    struct expression *first = root;
    while (first->block) first = first->child[0];
    if (heads[0] && !heads[1] && !has_path(root, heads[0])) first->head = heads[0];
}

enum cb_status setup_read(struct expression **out, const char *const **heads, struct arena *arena, const char *folder, struct cb_err *err) {
    struct setup s = {.arena = arena, .err = err, .folder = folder};
    char *text;
    size_t n;
    json_t *root = NULL;
    *out = NULL;
    snprintf(s.where, sizeof s.where, "%.900s/%s", folder, SETUP_FILE);
    const char *path = arena_printf(arena, "%s/%s", folder, SETUP_FILE);
    if (!path) FAIL(err, CB_E_MEMORY, "%s: no memory", s.where);
    TRY(io_read_file(&text, &n, path, SETUP_LIMIT, err));
    enum cb_status status = json_parse_object(&root, text, n, s.where, err);
    free(text);
    if (status == CB_OK) status = node_read(&s, json_object_get(root, "adapter_setup"), 0, out);
    const char *const *found = NULL;
    if (status == CB_OK) status = heads_read(&s, root, &found);
    if (status == CB_OK) head_settle(*out, found);
    if (heads) *heads = found;
    json_decref(root);
    if (status != CB_OK) *out = NULL;
    return status;
}

/* ---- writing */
static json_t *numbers_json(const struct expression *e, bool weights) {
    json_t *list = json_array();
    for (int i = 0; i < (weights ? e->n : e->n_numbers); i++)
        json_array_append_new(list, weights ? json_real(e->child[i]->weight) : json_integer(e->number[i]));
    return list;
}

/* NULL where memory is short, or after a failure. */
static json_t *node_json(const struct expression *e, const char *where, struct cb_err *err) {
    if (!e->block && e->path) return json_pack("{s:s, s:[s]}", "type", "single", "children", e->name);
    if (!e->block || !e->block->type) {
        err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__, "%s: %s has no form there", where, e->block ? e->block->name : "base");
        return NULL;
    }
    json_t *node = json_object(), *children = json_array(), *options = json_object();
    bool failed = json_object_set_new(node, "type", json_string(e->block->type)) != 0;
    for (int i = 0; i < e->n && !failed; i++) failed = json_array_append_new(children, node_json(e->child[i], where, err)) != 0;
    failed |= json_object_set_new(node, "children", children) != 0;
    if (e->n_numbers) failed |= json_object_set_new(options, e->block->by_rows ? "batch_sizes" : "splits", numbers_json(e, false)) != 0;
    if (e->block->weighs) failed |= json_object_set_new(options, "weights", numbers_json(e, true)) != 0;
    if (e->keeps_weights) failed |= json_object_set_new(options, "normalize_weights", json_false()) != 0;
    if (json_object_size(options)) failed |= json_object_set(node, "kwargs", options) != 0;
    json_decref(options);
    if (!failed) return node;
    json_decref(node);
    return NULL;
}

enum cb_status setup_write(const struct expression *e, const char *const *heads, const char *folder, struct cb_err *err) {
    char path[4096], *text = NULL;
    if (snprintf(path, sizeof path, "%s/%s", folder, SETUP_FILE) >= (int)sizeof path)
        FAIL(err, CB_E_LIMIT, "%.80s...: too long a path", folder);
    json_t *list = heads && *heads ? json_array() : json_null(), *node = node_json(e, path, err);
    if (!node && err->code == CB_OK) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", path);
    for (int i = 0; node && heads && heads[i]; i++) {
        const char *slash = strrchr(heads[i], '/');
        json_array_append_new(list, json_string(slash ? slash + 1 : heads[i]));
    }
    json_t *root = node ? json_pack("{s:o, s:o, s:s}", "adapter_setup", node, "head_setup", list, "version", "adapters.1.3.0") : NULL;
    if (!root) json_decref(list);
    if (!root) return err->code;
    enum cb_status status = json_dump(&text, root, 2, err);
    json_decref(root);
    if (status == CB_OK) status = io_write_file(path, text, strlen(text), err);
    free(text);
    return status;
}
