/* Making and checking graphs: nodes in order, sticky errors, names. */
#include "graph/ir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/op.h"

enum cb_status graph_create(struct cb_graph **graph, const struct op_table *ops, struct cb_err *err) {
    struct arena *arena = arena_create();
    struct cb_graph *g = arena ? arena_alloc(arena, sizeof *g) : NULL;
    if (!g) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "graph: out of memory");
    }
    g->arena = arena;
    g->ops = ops;
    g->scope = "";
    g->backward_begin = INT32_MAX;
    *graph = g;
    return CB_OK;
}

void graph_destroy(struct cb_graph **graph) {
    if (!graph || !*graph) return;
    free((*graph)->nodes);
    free((*graph)->tensors);
    free((*graph)->outputs);
    table_deinit(&(*graph)->leaves);
    table_deinit(&(*graph)->output_names);
    struct arena *arena = (*graph)->arena;
    arena_destroy(&arena);
    *graph = NULL;
}

struct cb_tensor *graph_fail(struct cb_graph *g, enum cb_status code, const char *format, ...) {
    if (g->err.code == CB_OK) {
        va_list args;
        va_start(args, format);
        vsnprintf(g->err.message, sizeof g->err.message, format, args);
        va_end(args);
        g->err.code = code;
        g->err.file = __FILE__;
        g->err.line = __LINE__;
    }
    return &g->bad_tensor;
}

/* Makes room for one more element of a growing list. */
static bool grow(void **list, int n, int *size, size_t bytes) {
    if (n < *size) return true;
    int bigger = *size ? *size * 2 : 64;
    void *p = realloc(*list, (size_t)bigger * bytes);
    if (!p) return false;
    *list = p;
    *size = bigger;
    return true;
}

const struct op *op_find(const struct op_table *table, const char *name) {
    for (int f = 0; table->files[f]; f++)
        for (int i = 0; table->files[f][i]; i++)
            if (strcmp(table->files[f][i]->name, name) == 0) return table->files[f][i];
    return NULL;
}

static int names_count(const char *const *names) {
    int n = 0;
    while (names && names[n]) n++;
    return n;
}

/* Arity and presence of inputs, as the op's in_names say; "...": any number. */
static bool inputs_fit(struct cb_graph *g, const struct op *op, int n_in, struct cb_tensor *const *in) {
    int n = names_count(op->in_names);
    bool many = n && strcmp(op->in_names[n - 1], "...") == 0;
    if (n_in > n && !many) {
        graph_fail(g, CB_E_ARGUMENT, "%s: %d inputs; wanted at most %d", op->name, n_in, n);
        return false;
    }
    for (int i = 0; i < n; i++) {
        const char *name = op->in_names[i];
        bool optional = name[strlen(name) - 1] == '?' || strcmp(name, "...") == 0;
        if (!optional && (i >= n_in || !in[i])) {
            graph_fail(g, CB_E_ARGUMENT, "%s: input '%s' is missing", op->name, name);
            return false;
        }
    }
    return true;
}

/* Memory of a node with its lists; NULL when out of memory. */
static struct node *node_make(struct cb_graph *g, const struct op *op, const void *attrs, int n_in, struct cb_tensor *const *in,
                              int n_out) {
    struct node *node = arena_alloc(g->arena, sizeof *node);
    int n_names = names_count(op->in_names);
    int n_slots = n_in > n_names ? n_in : n_names;
    if (!node || !(node->in = arena_array(g->arena, (size_t)n_slots, sizeof *node->in)) ||
        !(node->out = arena_array(g->arena, (size_t)n_out, sizeof *node->out)))
        return NULL;
    if (op->attr_bytes) {
        void *copy = arena_alloc(g->arena, op->attr_bytes);
        if (!copy) return NULL;
        if (attrs) memcpy(copy, attrs, op->attr_bytes);
        node->attrs = copy;
    }
    for (int i = 0; i < n_in; i++) node->in[i] = in[i];
    bool many = n_names && strcmp(op->in_names[n_names - 1], "...") == 0;
    node->n_in = many ? n_in : n_slots;  // every named input has its place, absent ones are NULL
    node->op = op;
    node->name = g->scope;
    return node;
}

struct cb_tensor *graph_node(struct cb_graph *g, const struct op *op, const void *attrs, int n_in, struct cb_tensor *const *in) {
    if (g->err.code) return &g->bad_tensor;
    for (int i = 0; i < n_in; i++)
        if (in[i] && graph_is_bad(g, in[i])) return &g->bad_tensor;
    if (!inputs_fit(g, op, n_in, in)) return &g->bad_tensor;
    struct cb_type type[64];
    memset(type, 0, sizeof type);
    int n_out = op->n_out > 0 ? op->n_out : names_count(op->out_names);
    struct node *node = node_make(g, op, attrs, n_in, in, 64);
    if (!node) return graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    if (op->infer && op->infer(node, type, &n_out, &g->err)) {
        if (*g->scope) err_prefix(&g->err, "%s", g->scope);
        return &g->bad_tensor;
    }
    for (int i = 0; i < n_out; i++) {
        if (op->infer && type_check(&type[i], op->name, &g->err)) return &g->bad_tensor;
        struct cb_tensor *t = arena_alloc(g->arena, sizeof *t);
        if (!t || !grow((void **)&g->tensors, g->n_tensors, &g->tensors_size, sizeof *g->tensors))
            return graph_fail(g, CB_E_MEMORY, "graph: out of memory");
        *t = (struct cb_tensor){type[i], node, i, g->n_tensors};
        g->tensors[g->n_tensors++] = t;
        node->out[i] = t;
    }
    node->n_out = n_out;
    if (!grow((void **)&g->nodes, g->n_nodes, &g->nodes_size, sizeof *g->nodes)) return graph_fail(g, CB_E_MEMORY, "graph: out of memory");
    node->id = g->n_nodes;
    g->nodes[g->n_nodes++] = node;
    return node->out[0];
}

struct cb_tensor *graph_out(struct cb_graph *g, struct cb_tensor *t, int i) {
    if (graph_is_bad(g, t)) return t;
    if (i < 0 || i >= t->node->n_out) return graph_fail(g, CB_E_ARGUMENT, "%s: output %d; it has %d", t->node->op->name, i, t->node->n_out);
    return t->node->out[i];
}

static void output_add(struct cb_graph *g, struct cb_tensor *t, const char *name, bool is_external) {
    if (g->err.code || graph_is_bad(g, t)) return;
    if (table_get(&g->output_names, name, strlen(name)) >= 0) {
        graph_fail(g, CB_E_NAME, "output %s: named twice", name);
        return;
    }
    char *copy = arena_strdup(g->arena, name);
    if (!copy || !grow((void **)&g->outputs, g->n_outputs, &g->outputs_size, sizeof *g->outputs)) {
        graph_fail(g, CB_E_MEMORY, "graph: out of memory");
        return;
    }
    if (table_put(&g->output_names, copy, strlen(copy), g->n_outputs, &g->err)) return;
    g->outputs[g->n_outputs++] = (struct graph_output){copy, t, is_external};
}

void graph_output(struct cb_graph *g, struct cb_tensor *t, const char *name) { output_add(g, t, name, false); }

void graph_output_external(struct cb_graph *g, struct cb_tensor *t, const char *name) { output_add(g, t, name, true); }

const char *graph_push(struct cb_graph *g, const char *format, ...) {
    const char *old = g->scope;
    char part[256];
    va_list args;
    va_start(args, format);
    vsnprintf(part, sizeof part, format, args);
    va_end(args);
    const char *scope = arena_printf(g->arena, "%s%s%s", old, *old ? "." : "", part);
    if (scope) g->scope = scope;
    return old;
}

void graph_pop(struct cb_graph *g, const char *old) { g->scope = old; }

enum cb_status graph_check(const struct cb_graph *g, struct cb_err *err) {
    if (g->err.code) {
        if (err && err->code == CB_OK) *err = g->err;
        return g->err.code;
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        if (node->id != i) FAIL(err, CB_E_ARGUMENT, "graph: node %d (%s) has id %d", i, node->op->name, node->id);
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k] && node->in[k]->node->id >= i)
                FAIL(err, CB_E_ARGUMENT, "graph: node %d (%s) reads node %d, which comes later", i, node->op->name, node->in[k]->node->id);
        struct cb_type type[64];
        memset(type, 0, sizeof type);
        int n_out = node->n_out;
        if (node->op->infer) TRY(node->op->infer(node, type, &n_out, err));
        for (int k = 0; node->op->infer && k < node->n_out; k++)
            if (!type_equal(&type[k], &node->out[k]->type)) {
                char have[TYPE_TEXT], want[TYPE_TEXT];
                FAIL(err, CB_E_SHAPE, "graph: node %d (%s) output %d is %s; infer gives %s", i, node->op->name, k,
                     type_text(&node->out[k]->type, have), type_text(&type[k], want));
            }
    }
    return CB_OK;
}
