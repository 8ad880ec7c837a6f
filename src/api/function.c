/* Building differentiable functions: leaves, ops and names, in the training graph and the run graph at once. */
#include "api/function.h"

#include <stdlib.h>
#include <string.h>

enum cb_status cb_function_create(struct cb_function **function, struct cb_engine *engine, struct cb_err *err) {
    *function = NULL;
    struct cb_function *f = calloc(1, sizeof *f);
    if (!f) FAIL(err, CB_E_MEMORY, "function: out of memory");
    f->engine = engine;
    enum cb_status status = CB_OK;
    if (!(f->arena = arena_create())) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "function: out of memory");
    if (status == CB_OK) status = graph_create(&f->train, ops_table(), err);
    if (status == CB_OK) status = graph_create(&f->run, ops_table(), err);
    if (status != CB_OK) cb_function_destroy(&f);
    *function = f;
    return status;
}

void cb_function_destroy(struct cb_function **function) {
    if (!function || !*function) return;
    struct cb_function *f = *function;
    plan_destroy(&f->train_plan);
    plan_destroy(&f->run_plan);
    graph_destroy(&f->train);
    graph_destroy(&f->run);
    arena_destroy(&f->arena);
    free(f->twin);
    free(f->entries);
    free(f);
    *function = NULL;
}

/* ---- the two graphs */
bool function_takes(struct cb_function *f, const struct cb_tensor *t) {
    if (f->train->err.code) return false;
    if (f->is_compiled)
        graph_fail(f->train, CB_E_USAGE, "function: compiled already; nothing can be added");
    else if (t && (t->id < 0 || t->id >= f->train->n_tensors || f->train->tensors[t->id] != t))
        graph_fail(f->train, CB_E_USAGE, "function: a tensor of another function was given");
    return f->train->err.code == CB_OK;
}

struct cb_tensor *function_twin(struct cb_function *f, struct cb_tensor *t) {
    if (!t) return NULL;
    if (graph_is_bad(f->train, t) || t->id >= f->twins_size) return &f->run->bad_tensor;
    return f->twin[t->id] ? f->twin[t->id] : &f->run->bad_tensor;
}

static bool twins_grow(struct cb_function *f) {
    if (f->train->n_tensors <= f->twins_size) return true;
    int size = 2 * f->train->n_tensors + 64;
    struct cb_tensor **grown = realloc(f->twin, (size_t)size * sizeof *grown);
    if (!grown) return graph_fail(f->train, CB_E_MEMORY, "function: out of memory") == NULL;
    memset(grown + f->twins_size, 0, (size_t)(size - f->twins_size) * sizeof *grown);
    f->twin = grown;
    f->twins_size = size;
    return true;
}

struct cb_tensor *function_pair(struct cb_function *f, struct cb_tensor *t, struct cb_tensor *r) {
    if (f->run->err.code && !f->train->err.code) f->train->err = f->run->err;
    if (f->train->err.code || !twins_grow(f)) return &f->train->bad_tensor;
    for (int i = 0; t->node && r->node && i < t->node->n_out && i < r->node->n_out; i++) f->twin[t->node->out[i]->id] = r->node->out[i];
    f->twin[t->id] = r;
    return t;
}

/* ---- names */
struct entry *function_find(const struct cb_function *f, const char *name) {
    for (int i = 0; i < f->n_entries; i++)
        if (strcmp(f->entries[i].name, name) == 0) return &f->entries[i];
    return NULL;
}

struct entry *function_entry(struct cb_function *f, enum entry_kind kind, const char *name) {
    struct entry *e = NULL;
    if (!name || !*name || strncmp(name, "cambium.", 8) == 0)
        graph_fail(f->train, CB_E_NAME, "function: name '%s'; wanted one that is not empty and does not begin with cambium.",
                   name ? name : "");
    else if (function_find(f, name))
        graph_fail(f->train, CB_E_NAME, "%s: named twice; parameters, states, inputs and outputs need names of their own", name);
    if (f->train->err.code) return NULL;
    if (f->n_entries == f->entries_size) {
        int size = 2 * f->entries_size + 16;
        struct entry *grown = realloc(f->entries, (size_t)size * sizeof *grown);
        if (grown) f->entries = grown, f->entries_size = size;
    }
    char *copy = arena_strdup(f->arena, name);
    if (!copy || f->n_entries == f->entries_size) {
        graph_fail(f->train, CB_E_MEMORY, "function: out of memory");
        return NULL;
    }
    e = &f->entries[f->n_entries++];
    *e = (struct entry){.name = copy, .kind = kind};
    return e;
}

/* ---- leaves */
static bool make_type(struct cb_function *f, const char *name, enum cb_dtype dtype, int rank, const int64_t *dim, struct cb_type *type) {
    if (!function_takes(f, NULL)) return false;
    if (rank < 0 || rank > CB_MAX_RANK || (rank && !dim)) {
        graph_fail(f->train, CB_E_SHAPE, "%s: rank %d; wanted 0 to %d", name ? name : "", rank, CB_MAX_RANK);
        return false;
    }
    *type = type_make(dtype, rank, dim);
    return type_check(type, name, &f->train->err) == CB_OK;
}

static struct cb_tensor *add_leaf(struct cb_function *f, struct entry *e, struct cb_type type) {
    if (!e) return &f->train->bad_tensor;
    bool is_param = e->kind == ENTRY_PARAMETER;
    e->type = type;
    e->tensor = is_param ? graph_param(f->train, e->name, type) : graph_input(f->train, e->name, type);
    return function_pair(f, e->tensor, is_param ? graph_param(f->run, e->name, type) : graph_input(f->run, e->name, type));
}

struct cb_tensor *cb_parameter(struct cb_function *f, const char *name, const char *init, int rank, const int64_t *dim) {
    struct cb_type type;
    if (!make_type(f, name, CB_DTYPE_F32, rank, dim, &type)) return &f->train->bad_tensor;
    struct entry *old = name ? function_find(f, name) : NULL;
    if (old && old->kind == ENTRY_PARAMETER && type_equal(&old->type, &type)) return old->tensor;
    struct entry *e = function_entry(f, ENTRY_PARAMETER, name);
    if (e && !(e->init = arena_strdup(f->arena, init ? init : "zeros")))
        return graph_fail(f->train, CB_E_MEMORY, "function: out of memory");
    return add_leaf(f, e, type);
}

struct cb_tensor *cb_state(struct cb_function *f, const char *name, double start, int rank, const int64_t *dim) {
    struct cb_type type;
    if (!make_type(f, name, CB_DTYPE_F32, rank, dim, &type)) return &f->train->bad_tensor;
    struct entry *e = function_entry(f, ENTRY_STATE, name);
    if (e) e->start = start;
    return add_leaf(f, e, type);
}

void cb_state_update(struct cb_function *f, struct cb_tensor *state, struct cb_tensor *next) {
    if (!function_takes(f, state) || !function_takes(f, next)) return;
    const char *name = state ? graph_leaf_name(state) : NULL;
    struct entry *e = name ? function_find(f, name) : NULL;
    if (!e || e->kind != ENTRY_STATE || !next || !type_equal(&e->type, &next->type)) {
        graph_fail(f->train, CB_E_SHAPE, "cb_state_update: '%s'; wanted a state, and a next value of its type", name ? name : "");
        return;
    }
    graph_output(f->train, next, e->name);
    graph_output(f->run, function_twin(f, next), e->name);
}

struct cb_tensor *cb_input(struct cb_function *f, const char *name, enum cb_dtype dtype, int rank, const int64_t *dim) {
    struct cb_type type;
    if (!make_type(f, name, dtype, rank, dim, &type)) return &f->train->bad_tensor;
    return add_leaf(f, function_entry(f, ENTRY_INPUT, name), type);
}

struct cb_tensor *cb_constant(struct cb_function *f, double value) {
    if (!function_takes(f, NULL)) return &f->train->bad_tensor;
    return function_pair(f, graph_const_f32(f->train, (float)value), graph_const_f32(f->run, (float)value));
}

/* ---- the body */
struct cb_tensor *cb_op(struct cb_function *f, const char *op, const char *attributes, int n, struct cb_tensor *const *inputs) {
    struct cb_tensor *run[OP_MAX_IN];
    if (n < 0 || n > OP_MAX_IN) return graph_fail(f->train, CB_E_ARGUMENT, "op '%s': %d inputs; wanted 0 to %d", op, n, OP_MAX_IN);
    for (int i = 0; i < n; i++) {
        if (!function_takes(f, inputs[i])) return &f->train->bad_tensor;
        run[i] = function_twin(f, inputs[i]);
    }
    if (!function_takes(f, NULL)) return &f->train->bad_tensor;
    return function_pair(f, op_apply(f->train, op, attributes, n, inputs), op_apply(f->run, op, attributes, n, run));
}

struct cb_tensor *cb_op_output(struct cb_function *f, struct cb_tensor *t, int i) {
    if (!t || !function_takes(f, t)) return &f->train->bad_tensor;
    return function_pair(f, graph_out(f->train, t, i), graph_out(f->run, function_twin(f, t), i));
}

struct cb_tensor *cb_by_mode(struct cb_function *f, struct cb_tensor *training, struct cb_tensor *running) {
    if (!training || !running || !function_takes(f, training) || !function_takes(f, running)) return &f->train->bad_tensor;
    if (!type_equal(&training->type, &running->type))
        return graph_fail(f->train, CB_E_SHAPE, "cb_by_mode: the two values have different types; wanted the same");
    return function_pair(f, op_alias(f->train, training), op_alias(f->run, function_twin(f, running)));
}

void cb_output(struct cb_function *f, const char *name, struct cb_tensor *t) {
    if (!t || !function_takes(f, t)) return;
    struct entry *e = function_entry(f, ENTRY_OUTPUT, name);
    if (!e) return;
    e->type = t->type;
    e->tensor = t;
    graph_output(f->run, function_twin(f, t), e->name);
}

void cb_loss(struct cb_function *f, struct cb_tensor *t) {
    if (!t || !function_takes(f, t)) return;
    char text[TYPE_TEXT];
    if (f->loss)
        graph_fail(f->train, CB_E_USAGE, "cb_loss: called twice; wanted one loss (add the parts)");
    else if (type_elements(&t->type) != 1 || !dtype_of(t->type.dtype)->is_float)
        graph_fail(f->train, CB_E_SHAPE, "cb_loss: %s; wanted one floating-point number", type_text(&t->type, text));
    f->loss = t;
}
