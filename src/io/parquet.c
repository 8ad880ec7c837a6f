/* Rows of Parquet files: entries of all columns put together again by their levels (Melnik et al. 2010, Dremel, section 4.3). */
#include "io/parquet_private.h"

#include <stdlib.h>
#include <string.h>

enum cb_status parquet_open(struct parquet **out, const char *path, parquet_repair_fn *repair, void *user, struct cb_err *err) {
    *out = NULL;
    struct parquet *p = calloc(1, sizeof *p);
    if (!p) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    p->repair = repair;
    p->user = user;
    enum cb_status status = map_open(&p->map, path, err);
    if (status == CB_OK) {
        p->name = map_name(p->map);
        p->arena = arena_create();
        status = p->arena ? parquet_read_foot(p, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", path);
    }
    if (status == CB_OK && !(p->column = calloc(p->n_leaves + 1, sizeof *p->column)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", path);
    if (status != CB_OK) {
        parquet_close(&p);
        return status;
    }
    for (size_t i = 0; i < p->n_leaves; i++) {
        const struct parquet_node *n = p->leaf[i];
        p->column[i].node = n;
        p->column[i].is_skipped = !n->is_text && (n->type == PARQUET_FIXED || (n->type == PARQUET_BYTES && !n->is_plain));
    }
    *out = p;
    return CB_OK;
}

void parquet_close(struct parquet **parquet) {
    struct parquet *p = parquet ? *parquet : NULL;
    if (!p) return;
    for (size_t i = 0; p->column && i < p->n_leaves; i++) {
        free(p->column[i].page);
        free(p->column[i].dictionary);
        free(p->column[i].offset);
        free(p->column[i].previous);
    }
    free(p->column);
    arena_destroy(&p->arena);
    map_release(&p->map);
    free(p);
    *parquet = NULL;
}

bool parquet_holds_bytes(const struct parquet *p, const char *column) {
    const struct parquet_node *root = p->root;
    for (size_t i = 0; i < root->n_children; i++) {
        const size_t end = i + 1 < root->n_children ? (size_t)root->child[i + 1]->leaf : p->n_leaves;
        for (size_t k = (size_t)root->child[i]->leaf; k < end && !strcmp(root->child[i]->name, column); k++)
            if (p->column[k].holds_bytes) return true;
    }
    return false;
}

int64_t parquet_rows(const struct parquet *parquet) { return parquet->rows; }
int64_t parquet_bytes(const struct parquet *parquet) { return parquet->bytes_read; }

// ---- one column's entries

// Looks at the next entry: its levels. At the end of the chunk has_next is false.
static enum cb_status peek(struct parquet *p, struct parquet_column *c, struct cb_err *err) {
    uint32_t rep = 0, def = 0;
    c->has_next = false;
    if (!c->left) TRY(parquet_page_next(p, c, err));
    if (!c->left) return CB_OK;
    if (!parquet_bits_next(&c->rep, &rep) || !parquet_bits_next(&c->def, &def) || rep > (uint32_t)c->node->max_rep ||
        def > (uint32_t)c->node->max_def)
        return parquet_damaged(p, c, "the levels of a page are damaged", err);
    c->left--;
    c->next_rep = (int)rep, c->next_def = (int)def;
    c->has_next = true;
    return CB_OK;
}

// The next entry of a column as a value or null, and on to the one after.
static enum cb_status take(struct parquet *p, struct parquet_column *c, json_t **out, struct cb_err *err) {
    *out = NULL;
    if (!c->has_next) return parquet_damaged(p, c, "the column has fewer entries than there are rows", err);
    if (c->next_def == c->node->max_def) TRY(parquet_value(p, c, out, err));
    if (!*out) *out = json_null();
    enum cb_status status = peek(p, c, err);
    if (status != CB_OK) json_decref(*out);
    return status;
}

// Passes over one entry of every column below a node.
static enum cb_status pass_over(struct parquet *p, const struct parquet_node *n, struct cb_err *err) {
    json_t *ignored;
    if (n->type == PARQUET_GROUP) {
        for (size_t i = 0; i < n->n_children; i++) TRY(pass_over(p, n->child[i], err));
        return CB_OK;
    }
    TRY(take(p, &p->column[n->leaf], &ignored, err));
    json_decref(ignored);
    return CB_OK;
}

// ---- rows

static enum cb_status assemble(struct parquet *p, const struct parquet_node *n, json_t **out, struct cb_err *err);

static enum cb_status assemble_group(struct parquet *p, const struct parquet_node *n, json_t **out, struct cb_err *err) {
    *out = json_object();
    enum cb_status status = *out ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", p->name);
    for (size_t i = 0; i < n->n_children && status == CB_OK; i++) {
        json_t *item = NULL;
        status = assemble(p, n->child[i], &item, err);
        if (status == CB_OK && json_object_set_new(*out, n->child[i]->name, item))
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: a column without a proper name", p->name);
    }
    if (status == CB_OK) return CB_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

// The items of a repeated node, each through `item`.
static enum cb_status assemble_items(struct parquet *p, const struct parquet_node *n, const struct parquet_node *item, json_t **out,
                                     struct cb_err *err) {
    struct parquet_column *first = &p->column[n->leaf];
    *out = json_array();
    if (!*out) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    enum cb_status status = CB_OK;
    if (first->has_next && first->next_def < n->max_def) {
        status = pass_over(p, n, err);
    } else {
        do {
            json_t *made = NULL;
            status = item != n                  ? assemble(p, item, &made, err)
                     : n->type == PARQUET_GROUP ? assemble_group(p, n, &made, err)
                                                : take(p, first, &made, err);
            if (status == CB_OK && json_array_append_new(*out, made))
                status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", p->name);
        } while (status == CB_OK && first->has_next && first->next_rep == n->max_rep);
    }
    if (status == CB_OK) return CB_OK;
    json_decref(*out);
    *out = NULL;
    return status;
}

// Pairs of key and value to an object, where the keys are text.
static enum cb_status map_object(struct parquet *p, json_t **out, struct cb_err *err) {
    json_t *object = json_object(), *pairs = *out;
    bool good = object != NULL;
    for (size_t i = 0; i < json_array_size(pairs) && good; i++) {
        const json_t *pair = json_array_get(pairs, i), *key = json_object_get(pair, "key");
        json_t *value = json_object_get(pair, "value");
        good = json_is_string(key) && !json_object_set(object, json_string_value(key), value ? value : json_null());
    }
    if (!object) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    // other keys: the list of pairs as it is
    if (!good) {
        json_decref(object);
        return CB_OK;
    }
    json_decref(pairs);
    *out = object;
    return CB_OK;
}

static enum cb_status assemble(struct parquet *p, const struct parquet_node *n, json_t **out, struct cb_err *err) {
    struct parquet_column *first = &p->column[n->leaf];
    *out = NULL;
    if (n->repetition == PARQUET_REPEATED) return assemble_items(p, n, n, out, err);
    if (n->type != PARQUET_GROUP) return take(p, first, out, err);
    if (!first->has_next) return parquet_damaged(p, first, "the column has fewer entries than there are rows", err);
    if (first->next_def < n->max_def) {
        TRY(pass_over(p, n, err));
        *out = json_null();
        return CB_OK;
    }
    // LogicalTypes.md: a list is a group of one repeated node, which holds the item or is it
    const struct parquet_node *repeated = n->n_children == 1 && n->child[0]->repetition == PARQUET_REPEATED ? n->child[0] : NULL;
    if (!repeated || !(n->is_list || n->is_map)) return assemble_group(p, n, out, err);
    bool holds = n->is_list && repeated->type == PARQUET_GROUP && repeated->n_children == 1;
    TRY(assemble_items(p, repeated, holds ? repeated->child[0] : repeated, out, err));
    return n->is_map ? map_object(p, out, err) : CB_OK;
}

static enum cb_status group_begin(struct parquet *p, struct cb_err *err) {
    const struct parquet_group *g = &p->group[p->at_group++];
    p->row_left = g->rows;
    for (size_t i = 0; i < p->n_leaves; i++) {
        struct parquet_column *c = &p->column[i];
        c->chunk = map_data(p->map) + g->chunk[i].offset;
        c->n_chunk = (size_t)g->chunk[i].bytes;
        c->at = 0;
        c->codec = g->chunk[i].codec;
        c->chunk_left = g->chunk[i].values;
        c->left = 0;
        c->n_entries = 0;
        TRY(peek(p, c, err));
    }
    return CB_OK;
}

enum cb_status parquet_next(struct parquet *p, json_t **row, struct cb_err *err) {
    *row = NULL;
    while (!p->row_left) {
        if (p->at_group == p->n_groups) return CB_OK;
        TRY(group_begin(p, err));
    }
    p->row_left--;
    return assemble_group(p, p->root, row, err);
}
