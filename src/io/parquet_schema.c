/* The foot of a Parquet file: the schema as a tree, and where the columns of each row group lie (parquet.thrift). */
#include <string.h>

#include "io/parquet_private.h"
#include "io/thrift.h"

struct element {
    const char *name;
    size_t n_name;
    int64_t type, width, repetition, children, converted;  // type, converted -1: none
    bool logical_text, logical_list, logical_map, logical_any;
};

// LogicalType is a union: the number of its one field says which.
static void read_logical(struct thrift *t, struct element *e) {
    struct thrift_field f = {0};
    while (thrift_next(t, &f)) {
        e->logical_text |= f.id == 1 || f.id == 4 || f.id == 11;  // string, enum, json
        e->logical_any = true;
        e->logical_map |= f.id == 2;
        e->logical_list |= f.id == 3;
        thrift_skip(t, f.type);
    }
}

static void read_element(struct thrift *t, struct element *e) {
    struct thrift_field f = {0};
    *e = (struct element){.type = -1, .converted = -1};
    while (thrift_next(t, &f)) {
        switch (f.id) {
            case 1: e->type = thrift_count(t, &f); break;
            case 2: e->width = thrift_count(t, &f); break;
            case 3: e->repetition = thrift_count(t, &f); break;
            case 4:
                if (f.type == THRIFT_BINARY)
                    e->name = thrift_binary(t, &e->n_name);
                else
                    t->failed = true;
                break;
            case 5: e->children = thrift_count(t, &f); break;
            case 6: e->converted = thrift_count(t, &f); break;
            case 10:
                if (f.type == THRIFT_STRUCT)
                    read_logical(t, e);
                else
                    t->failed = true;
                break;
            default: thrift_skip(t, f.type);
        }
    }
    if (e->type > PARQUET_FIXED || e->repetition > PARQUET_REPEATED || !e->name) t->failed = true;
}

// ---- the tree: elements come depth first, each with the number of its children

struct builder {
    struct parquet *p;
    struct thrift *t;
    size_t left;  // elements
};

static enum cb_status read_node(struct builder *b, struct parquet_node **out, const struct parquet_node *above, int depth,
                                struct cb_err *err) {
    struct parquet *p = b->p;
    struct element e;
    if (depth > PARQUET_MAX_DEPTH || !b->left) FAIL(err, CB_E_FORMAT, "%s: the schema is over %d deep, or cut", p->name, PARQUET_MAX_DEPTH);
    b->left--;
    read_element(b->t, &e);
    if (b->t->failed) FAIL(err, CB_E_FORMAT, "%s: the schema is damaged", p->name);
    struct parquet_node *n = arena_alloc(p->arena, sizeof *n);
    *out = n;
    if (!n || !(n->name = arena_strndup(p->arena, e.name, e.n_name))) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    n->type = e.type < 0 ? PARQUET_GROUP : (enum parquet_type)e.type;
    n->repetition = above ? (enum parquet_repetition)e.repetition : PARQUET_REQUIRED;
    n->width = (int32_t)e.width;
    // converted types: 0 UTF8, 1 MAP, 2 MAP_KEY_VALUE, 3 LIST, 4 ENUM, 11..14 unsigned, 19 JSON
    n->is_text = e.logical_text || e.converted == 0 || e.converted == 4 || e.converted == 19;
    n->is_plain = !e.logical_any && e.converted < 0;
    n->is_list = e.logical_list || e.converted == 3;
    n->is_map = e.logical_map || e.converted == 1 || e.converted == 2;
    n->is_unsigned = e.converted >= 11 && e.converted <= 14;
    n->max_def = (above ? above->max_def : 0) + (n->repetition != PARQUET_REQUIRED);
    n->max_rep = (above ? above->max_rep : 0) + (n->repetition == PARQUET_REPEATED);
    n->leaf = (int)p->n_leaves;
    if (n->type != PARQUET_GROUP) {
        if (e.children) FAIL(err, CB_E_FORMAT, "%s: the schema is damaged: %s has a type and children", p->name, n->name);
        p->leaf[p->n_leaves++] = n;
        return CB_OK;
    }
    if ((size_t)e.children > b->left || !e.children)
        FAIL(err, CB_E_FORMAT, "%s: the schema is damaged: %s has %lld children", p->name, n->name, (long long)e.children);
    n->child = arena_array(p->arena, (size_t)e.children, sizeof *n->child);
    if (!n->child) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    for (; n->n_children < (size_t)e.children; n->n_children++) TRY(read_node(b, &n->child[n->n_children], n, depth + 1, err));
    return CB_OK;
}

static enum cb_status read_schema(struct parquet *p, struct thrift *t, struct cb_err *err) {
    enum thrift_type type;
    struct builder b = {.p = p, .t = t, .left = thrift_list(t, &type)};
    if (t->failed || type != THRIFT_STRUCT || b.left < 2 || b.left > PARQUET_MAX_NODES)
        FAIL(err, CB_E_FORMAT, "%s: found a schema of %zu elements; wanted 2 to %d", p->name, b.left, PARQUET_MAX_NODES);
    p->leaf = arena_array(p->arena, b.left, sizeof *p->leaf);
    if (!p->leaf) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    TRY(read_node(&b, &p->root, NULL, 0, err));
    if (b.left || p->root->type != PARQUET_GROUP) FAIL(err, CB_E_FORMAT, "%s: the schema is damaged", p->name);
    return CB_OK;
}

// ---- row groups

static void read_chunk_about(struct thrift *t, struct parquet_chunk *c, int64_t *type) {
    struct thrift_field f = {0};
    int64_t dictionary = 0, data = 0;
    while (thrift_next(t, &f)) {
        if (f.id == 1)
            *type = thrift_count(t, &f);
        else if (f.id == 4)
            c->codec = (int)thrift_count(t, &f);
        else if (f.id == 5 && f.type == THRIFT_I64)
            c->values = thrift_int(t);
        else if (f.id == 7 && f.type == THRIFT_I64)
            c->bytes = thrift_int(t);
        else if (f.id == 9 && f.type == THRIFT_I64)
            data = thrift_int(t);
        else if (f.id == 11 && f.type == THRIFT_I64)
            dictionary = thrift_int(t);
        else
            thrift_skip(t, f.type);
    }
    c->offset = dictionary > 0 && dictionary < data ? dictionary : data;
}

static enum cb_status read_chunk(struct parquet *p, struct thrift *t, struct parquet_chunk *c, const struct parquet_node *leaf,
                                 struct cb_err *err) {
    struct thrift_field f = {0};
    int64_t type = -1;
    bool elsewhere = false;
    while (thrift_next(t, &f)) {
        elsewhere |= f.id == 1;
        if (f.id == 3 && f.type == THRIFT_STRUCT)
            read_chunk_about(t, c, &type);
        else
            thrift_skip(t, f.type);
    }
    int64_t size = (int64_t)map_size(p->map);
    if (elsewhere) FAIL(err, CB_E_UNSUPPORTED, "%s: column %s lies in another file", p->name, leaf->name);
    if (!c->values) c->offset = 4, c->bytes = 0;  // nothing lies anywhere
    if (t->failed || type != (int64_t)leaf->type || c->values < 0 || c->values > size * PARQUET_MAX_RATIO || c->bytes < 0 ||
        c->offset < 4 || c->offset > size || c->bytes > size - c->offset)
        FAIL(err, CB_E_FORMAT, "%s: the place of column %s is damaged", p->name, leaf->name);
    return CB_OK;
}

static enum cb_status read_group(struct parquet *p, struct thrift *t, struct parquet_group *g, struct cb_err *err) {
    struct thrift_field f = {0};
    enum thrift_type type;
    size_t n = 0;
    g->rows = -1;
    g->chunk = arena_array(p->arena, p->n_leaves, sizeof *g->chunk);
    if (!g->chunk) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    while (thrift_next(t, &f)) {
        if (f.id == 1 && f.type == THRIFT_LIST && !n) {
            n = thrift_list(t, &type);
            if (n != p->n_leaves) FAIL(err, CB_E_FORMAT, "%s: found a row group of %zu columns; wanted %zu", p->name, n, p->n_leaves);
            for (size_t i = 0; i < n; i++) TRY(read_chunk(p, t, &g->chunk[i], p->leaf[i], err));
        } else if (f.id == 3 && f.type == THRIFT_I64) {
            g->rows = thrift_int(t);
        } else {
            thrift_skip(t, f.type);
        }
    }
    // a file of few bytes may not claim rows without end
    if (t->failed || n != p->n_leaves || g->rows < 0 || g->rows > (int64_t)map_size(p->map) * PARQUET_MAX_RATIO ||
        p->rows > INT64_MAX - g->rows)
        FAIL(err, CB_E_FORMAT, "%s: a row group is damaged: %lld rows in a file of %zu bytes", p->name, (long long)g->rows,
             map_size(p->map));
    p->rows += g->rows;
    return CB_OK;
}

static enum cb_status read_groups(struct parquet *p, struct thrift *t, struct cb_err *err) {
    enum thrift_type type;
    size_t n = thrift_list(t, &type);
    if (!p->root) FAIL(err, CB_E_FORMAT, "%s: the schema does not come first", p->name);
    p->group = arena_array(p->arena, n, sizeof *p->group);
    if (!p->group) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    for (; p->n_groups < n; p->n_groups++) TRY(read_group(p, t, &p->group[p->n_groups], err));
    return CB_OK;
}

enum cb_status parquet_read_foot(struct parquet *p, struct cb_err *err) {
    const unsigned char *data = map_data(p->map);
    size_t size = map_size(p->map);
    if (size < 12 || memcmp(data, "PAR1", 4)) FAIL(err, CB_E_FORMAT, "%s: found no Parquet file; wanted the magic number PAR1", p->name);
    if (!memcmp(data + size - 4, "PARE", 4)) FAIL(err, CB_E_UNSUPPORTED, "%s: the file is encrypted", p->name);
    uint32_t length =
        (uint32_t)data[size - 8] | (uint32_t)data[size - 7] << 8 | (uint32_t)data[size - 6] << 16 | (uint32_t)data[size - 5] << 24;
    if (memcmp(data + size - 4, "PAR1", 4) || length > size - 12)
        FAIL(err, CB_E_FORMAT, "%s: the file has no end; it was cut or damaged", p->name);
    struct thrift t = {.data = data + size - 8 - length, .n = length};
    struct thrift_field f = {0};
    while (thrift_next(&t, &f)) {
        if (f.id == 2 && f.type == THRIFT_LIST && !p->root)
            TRY(read_schema(p, &t, err));
        else if (f.id == 4 && f.type == THRIFT_LIST && !p->group)
            TRY(read_groups(p, &t, err));
        else
            thrift_skip(&t, f.type);
    }
    if (t.failed || !p->root) FAIL(err, CB_E_FORMAT, "%s: the foot of the file is damaged", p->name);
    return CB_OK;
}
