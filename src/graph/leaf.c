/* The leaves of a graph: parameters, inputs and constants. */
#include <string.h>

#include "graph/op.h"

static const char *const no_names[] = {NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_field leaf_fields[] = {{"name", ATTR_STR, offsetof(struct attr_leaf, name)}, {NULL, ATTR_BOOL, 0}};

const struct op op_param = {.name = "param",
                            .doc = "A named buffer of the parameter store.",
                            .in_names = no_names,
                            .out_names = out_names,
                            .attrs = leaf_fields,
                            .attr_bytes = sizeof(struct attr_leaf),
                            .traits = OP_LEAF};
const struct op op_input = {.name = "input",
                            .doc = "A named buffer that the caller fills before each run.",
                            .in_names = no_names,
                            .out_names = out_names,
                            .attrs = leaf_fields,
                            .attr_bytes = sizeof(struct attr_leaf),
                            .traits = OP_LEAF};
const struct op op_const = {.name = "const",
                            .doc = "Bytes that never change.",
                            .in_names = no_names,
                            .out_names = out_names,
                            .attrs = leaf_fields,
                            .attr_bytes = sizeof(struct attr_leaf),
                            .traits = OP_LEAF};

static struct cb_tensor *leaf_add(struct cb_graph *g, const struct op *op, const char *name, const void *data, struct cb_type type);

const char *graph_leaf_name(const struct cb_tensor *t) {
    const struct op *op = t->node ? t->node->op : NULL;
    return op == &op_param || op == &op_input ? ((const struct attr_leaf *)t->node->attrs)->name : NULL;
}

struct cb_tensor *graph_find_leaf(struct cb_graph *g, const char *name) {
    int64_t value = table_get(&g->leaves, name, strlen(name));
    return value == -1 ? NULL : (struct cb_tensor *)(intptr_t)value;
}

/* A named leaf: an existing one of the same kind and type is returned. */
static struct cb_tensor *leaf_named(struct cb_graph *g, const struct op *op, const char *name, struct cb_type type) {
    if (g->err.code) return &g->bad_tensor;
    struct cb_tensor *old = graph_find_leaf(g, name);
    if (old) {
        char have[TYPE_TEXT], want[TYPE_TEXT];
        if (old->node->op != op || !type_equal(&old->type, &type))
            return graph_fail(g, CB_E_NAME, "%s: used as %s %s; wanted %s %s", name, old->node->op->name, type_text(&old->type, have),
                              op->name, type_text(&type, want));
        return old;
    }
    char *copy = arena_strdup(g->arena, name);
    if (!copy) return graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    struct cb_tensor *t = leaf_add(g, op, copy, NULL, type);
    if (!graph_is_bad(g, t)) table_put(&g->leaves, copy, strlen(copy), (int64_t)(intptr_t)t, &g->err);
    return g->err.code ? &g->bad_tensor : t;
}

struct cb_tensor *graph_param(struct cb_graph *g, const char *name, struct cb_type type) {
    return leaf_named(g, &op_param, name, type);
}

struct cb_tensor *graph_input(struct cb_graph *g, const char *name, struct cb_type type) {
    return leaf_named(g, &op_input, name, type);
}

struct cb_tensor *graph_const(struct cb_graph *g, struct cb_type type, const void *data) {
    if (g->err.code || type_check(&type, "const", &g->err)) return &g->bad_tensor;
    size_t bytes = (size_t)type_bytes(&type);
    void *copy = arena_alloc(g->arena, bytes < 64 ? 64 : bytes);
    if (!copy) return graph_fail(g, CB_E_MEMORY, "graph: out of memory for a constant of %zu bytes", bytes);
    memcpy(copy, data, bytes);
    return leaf_add(g, &op_const, "", copy, type);
}

struct cb_tensor *graph_const_f32(struct cb_graph *g, float value) {
    struct cb_type type = {.dtype = CB_DTYPE_F32};
    return graph_const(g, type, &value);
}

static struct cb_tensor *leaf_add(struct cb_graph *g, const struct op *op, const char *name, const void *data, struct cb_type type) {
    if (type_check(&type, *name ? name : "const", &g->err)) return &g->bad_tensor;
    struct attr_leaf attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.name = name;
    attrs.data = data;
    struct cb_tensor *t = graph_node(g, op, &attrs, 0, NULL);
    if (!graph_is_bad(g, t)) t->type = type;
    return t;
}
