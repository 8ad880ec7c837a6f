/* Compiling a differentiable function: gradients, plans, one block of memory for all parameters, first values. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/function.h"
#include "base/rng.h"

/* ---- first values */
static double fan_in(const struct cb_type *type) {
    int64_t n = 1;
    for (int i = 1; i < type->rank; i++) n *= type->dim[i];
    return n > 0 ? (double)n : 1;
}

enum cb_status function_draw(float *value, const struct entry *e, uint64_t seed, struct cb_err *err) {
    struct rng rng = rng_make(seed, rng_hash(e->name));
    int64_t n = type_elements(&e->type);
    const char *colon = strchr(e->init, ':');
    double number = 0;
    char *end = NULL;
    if (colon) number = strtod(colon + 1, &end);
    bool has_number = end && end != colon + 1 && !*end && isfinite(number) && number >= 0;
    size_t length = colon ? (size_t)(colon - e->init) : strlen(e->init);
    if (has_number && length == 6 && strncmp(e->init, "normal", 6) == 0) {
        for (int64_t i = 0; i < n; i++) value[i] = (float)(number * rng_normal(&rng));
    } else if ((has_number && length == 7 && strncmp(e->init, "uniform", 7) == 0) || strcmp(e->init, "fan_in") == 0) {
        if (!colon && e->type.rank < 2)
            FAIL(err, CB_E_ARGUMENT, "%s: init fan_in at rank %d; wanted rank 2 or more", e->name, e->type.rank);
        double bound = colon ? number : 1 / sqrt(fan_in(&e->type));
        for (int64_t i = 0; i < n; i++) value[i] = (float)(bound * (2 * rng_f64(&rng) - 1));
    } else if (strcmp(e->init, "zeros") == 0 || strcmp(e->init, "ones") == 0) {
        for (int64_t i = 0; i < n; i++) value[i] = e->init[0] == 'o';
    } else {
        FAIL(err, CB_E_ARGUMENT, "%s: init '%s'; wanted zeros, ones, normal:NUMBER, uniform:NUMBER or fan_in", e->name, e->init);
    }
    return CB_OK;
}

/* ---- memory */
static void *take(struct cb_function *f, int64_t n, size_t bytes) {
    return arena_array(f->arena, n < 16 ? 16 : (size_t)n, bytes < 4 ? 4 : bytes);  // at least 64 bytes: aligned to 64
}

/* Optimiser states: one block for all parameters, or one of its own for each where the optimiser sees whole tensors. */
static enum cb_status make_states(struct cb_function *f, struct cb_err *err) {
    int n = f->opt->n_states(f->option);
    bool flat = !f->opt->update_tensor && !f->opt->state_type;
    if (!flat && !(f->own_state = arena_array(f->arena, (size_t)f->n_entries + 1, sizeof *f->own_state)))
        FAIL(err, CB_E_MEMORY, "function: out of memory");
    for (int s = 0; s < n; s++) {
        double start = f->opt->state_start ? f->opt->state_start(f->option, s) : 0;
        for (int i = 0; i < (flat ? 1 : f->n_entries); i++) {
            struct cb_type type;
            if (!flat && (f->entries[i].kind != ENTRY_PARAMETER || !opt_state_type(f->opt, &f->entries[i].type, s, &type))) continue;
            int64_t count = flat ? f->n_floats : type_elements(&type);
            float *x = take(f, count, sizeof *x);
            if (!x) FAIL(err, CB_E_MEMORY, "function: out of memory for the optimiser's states");
            for (int64_t k = 0; start != 0 && k < count; k++) x[k] = (float)start;
            *(flat ? &f->state[s] : &f->own_state[i][s]) = x;
        }
    }
    return CB_OK;
}

/* Parameters at multiples of 16 floats from the first one; the gaps stay zero. */
static enum cb_status make_memory(struct cb_function *f, struct cb_err *err) {
    for (int i = 0; i < f->n_entries; i++) {
        struct entry *e = &f->entries[i];
        if (e->kind != ENTRY_PARAMETER) continue;
        e->offset = f->n_floats;
        f->n_floats += (type_elements(&e->type) + 15) / 16 * 16;
    }
    f->param = take(f, f->n_floats, sizeof *f->param);
    f->grad = f->loss ? take(f, f->n_floats, sizeof *f->grad) : NULL;
    f->partial = arena_array(f->arena, (size_t)opt_partials(f->n_floats) + 1, sizeof *f->partial);
    if (!f->param || !f->partial || (f->loss && !f->grad)) FAIL(err, CB_E_MEMORY, "function: out of memory for its parameters");
    for (int i = 0; i < f->n_entries; i++) {
        struct entry *e = &f->entries[i];
        if (e->kind == ENTRY_PARAMETER) {
            e->data = f->param + e->offset;
            TRY(function_draw(e->data, e, f->engine->options.seed, err));
            continue;
        }
        e->data = take(f, type_bytes(&e->type), 1);
        if (!e->data) FAIL(err, CB_E_MEMORY, "%s: out of memory", e->name);
        float *x = e->data;
        for (int64_t k = 0, n = type_elements(&e->type); e->kind == ENTRY_STATE && k < n; k++) x[k] = (float)e->start;
    }
    return f->loss ? make_states(f, err) : CB_OK;
}

/* ---- plans */
static enum cb_status differentiate(struct cb_function *f, const char **names, struct cb_err *err) {
    size_t room = (size_t)f->n_entries + 1;
    struct cb_tensor **wrt = arena_array(f->arena, room, sizeof *wrt), **grad = arena_array(f->arena, room, sizeof *grad);
    if (!wrt || !grad) FAIL(err, CB_E_MEMORY, "function: out of memory");
    int n = 0;
    for (int i = 0; i < f->n_entries; i++)
        if (f->entries[i].kind == ENTRY_PARAMETER) wrt[n++] = f->entries[i].tensor;
    if (n == 0) FAIL(err, CB_E_USAGE, "function: a loss, but no parameter to train; wanted one cb_parameter");
    if (graph_grad(f->train, f->loss, NULL, n, wrt, NULL, grad) != CB_OK) return CB_OK;  // the failure is in the graph
    n = 0;
    for (int i = 0; i < f->n_entries; i++) {
        if (f->entries[i].kind != ENTRY_PARAMETER || !grad[n++]) continue;
        names[i] = arena_printf(f->arena, "cambium.grad.%s", f->entries[i].name);
        if (!names[i]) FAIL(err, CB_E_MEMORY, "function: out of memory");
        graph_output_external(f->train, grad[n - 1], names[i]);
    }
    graph_output(f->train, f->loss, FUNCTION_LOSS);
    return CB_OK;
}

static void bind(struct plan *plan, const char *name, void *data) {
    int slot = plan && name ? plan_find(plan, name) : -1;
    if (slot >= 0) plan_bind(plan, slot, data);
}

static enum cb_status make_plans(struct cb_function *f, const char **grad_names, struct cb_err *err) {
    int64_t held = f->n_floats * 4 * (f->loss ? 2 + f->opt->n_states(f->option) : 1);
    struct plan_options options = engine_plan_options(f->engine, held);
    if (f->loss) TRY(plan_create(&f->train_plan, f->train, &options, err));
    if (f->run->n_outputs > 0) TRY(plan_create(&f->run_plan, f->run, &options, err));
    for (int i = 0; i < f->n_entries; i++) {
        const struct entry *e = &f->entries[i];
        if (e->kind != ENTRY_OUTPUT) bind(f->train_plan, e->name, e->data);
        bind(f->run_plan, e->name, e->data);
        bind(f->train_plan, grad_names[i], f->grad ? f->grad + e->offset : NULL);
    }
    bind(f->train_plan, FUNCTION_SEED, &f->seed);
    if (!f->train_plan) return CB_OK;
    int loss = plan_find(f->train_plan, FUNCTION_LOSS);
    f->loss_data = plan_data(f->train_plan, loss);
    f->loss_dtype = plan_slot(f->train_plan, loss)->type.dtype;
    return CB_OK;
}

enum cb_status cb_function_compile(struct cb_function *f, const struct cb_compile_options *options, struct cb_err *err) {
    struct cb_compile_options none = {0}, o = options ? *options : none;
    if (f->is_compiled) FAIL(err, CB_E_USAGE, "function: compiled already");
    if (f->train->err.code == CB_OK && !f->loss && f->run->n_outputs == 0)
        FAIL(err, CB_E_USAGE, "function: neither output nor loss; wanted a call of cb_output or cb_loss");
    const char **grad_names = arena_array(f->arena, (size_t)f->n_entries + 1, sizeof *grad_names);
    if (!grad_names) FAIL(err, CB_E_MEMORY, "function: out of memory");
    TRY(opt_parse(o.optimizer ? o.optimizer : "adam", &f->opt, f->option, err));
    f->lr = o.lr > 0 ? o.lr : 1e-3;
    f->clip = o.clip;
    f->weight_decay = o.weight_decay;
    if (f->train->err.code == CB_OK && f->loss) TRY(differentiate(f, grad_names, err));
    if (f->train->err.code == CB_OK && f->run->err.code) f->train->err = f->run->err;
    if (f->train->err.code) {
        if (err && err->code == CB_OK) *err = f->train->err;
        return f->train->err.code;
    }
    TRY(make_memory(f, err));
    TRY(make_plans(f, grad_names, err));
    f->seed = (int64_t)f->engine->options.seed;
    f->is_compiled = true;
    return CB_OK;
}
