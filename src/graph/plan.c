/* Making, binding and running plans. */
#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/subnormal.h"
#include "graph/plan_private.h"

/* Room for the pointers of every step. */
static enum cb_status make_calls(struct plan *plan, struct cb_err *err) {
    for (int s = 0; s < plan->n_steps; s++) {
        struct step *step = &plan->steps[s];
        if (!step->node) continue;
        step->in = arena_array(plan->arena, (size_t)step->node->n_in, sizeof *step->in);
        step->out = arena_array(plan->arena, (size_t)step->node->n_out, sizeof *step->out);
        if (!step->in || !step->out) FAIL(err, CB_E_MEMORY, "plan: out of memory");
        step->call = (struct op_run){.node = step->node, .in = step->in, .out = step->out};
    }
    return CB_OK;
}

static enum cb_status make_memory(struct plan *plan, struct cb_err *err) {
    int64_t bytes = plan->bytes.inside, limit = plan->options.memory_limit;
    if (limit && bytes > limit) FAIL(err, CB_E_LIMIT, "plan: %lld bytes needed; the limit is %lld", (long long)bytes, (long long)limit);
    if (!bytes || (plan->options.backend && !plan->options.backend->runs)) return CB_OK;
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) FAIL(err, CB_E_MEMORY, "plan: out of memory for %lld bytes of activations", (long long)bytes);
    if (bytes >= 4 << 20) madvise(p, (size_t)bytes, MADV_HUGEPAGE);
    plan->memory = p;
    return CB_OK;
}

enum cb_status plan_create(struct plan **plan, struct cb_graph *graph, const struct plan_options *options, struct cb_err *err) {
    *plan = NULL;
    if (graph->err.code) {
        if (err && err->code == CB_OK) *err = graph->err;
        return graph->err.code;
    }
    struct arena *arena = arena_create();
    struct plan *p = arena ? arena_alloc(arena, sizeof *p) : NULL;
    if (!p) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "plan: out of memory");
    }
    p->arena = arena;
    p->graph = graph;
    p->options = *options;
    if (p->options.n_threads < 1) p->options.n_threads = 1;
    if (options->kernels && !(p->options.kernels = arena_strdup(arena, options->kernels))) p->options.kernels = NULL;
    enum cb_status status = plan_build(p, err);
    if (status == CB_OK && graph->err.code == CB_OK) {
        p->bound = arena_array(arena, (size_t)p->n_slots + 1, sizeof *p->bound);
        if (!p->bound) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "plan: out of memory");
    }
    if (graph->err.code) {
        if (err && err->code == CB_OK) *err = graph->err;
        status = graph->err.code;
    }
    if (status == CB_OK) status = make_calls(p, err);
    if (status == CB_OK) status = make_memory(p, err);
    if (status != CB_OK) {
        plan_destroy(&p);
        return status;
    }
    *plan = p;
    return CB_OK;
}

void plan_destroy(struct plan **plan) {
    if (!plan || !*plan) return;
    if ((*plan)->memory) munmap((*plan)->memory, (size_t)(*plan)->bytes.inside);
    table_deinit(&(*plan)->by_name);
    struct arena *arena = (*plan)->arena;
    arena_destroy(&arena);
    *plan = NULL;
}

int plan_n_slots(const struct plan *plan) { return plan->n_slots; }

const struct plan_slot *plan_slot(const struct plan *plan, int slot) { return &plan->slots[slot]; }

int plan_find(const struct plan *plan, const char *name) { return (int)table_get(&plan->by_name, name, strlen(name)); }

void plan_bind(struct plan *plan, int slot, void *data) {
    if (plan->bound[slot] == data) return;
    plan->bound[slot] = data;
    plan->is_resolved = false;
}

void *plan_data(struct plan *plan, int slot) {
    if (plan->bound[slot]) return plan->bound[slot];
    return plan->slot_offset[slot] >= 0 && plan->memory ? plan->memory + plan->slot_offset[slot] : NULL;
}

static void *tensor_data(struct plan *plan, const struct cb_tensor *t) {
    const struct where *w = &plan->where[t->id];
    switch (w->place) {
        case PLACE_SLOT: return plan_data(plan, w->slot);
        case PLACE_INSIDE: return plan->memory + w->offset;
        case PLACE_CONST: return (void *)(uintptr_t)w->data;
        case PLACE_NONE: break;
    }
    return NULL;
}

/* Fills every step's pointers from the present bindings. */
static enum cb_status resolve(struct plan *plan, struct pool *pool, struct cb_err *err) {
    for (int i = 0; i < plan->n_slots; i++)
        if ((plan->slots[i].is_param || plan->slots[i].is_output) && !plan_data(plan, i) && type_bytes(&plan->slots[i].type))
            FAIL(err, CB_E_ARGUMENT, "%s: not bound to a buffer", plan->slots[i].name);
    for (int s = 0; s < plan->n_steps; s++) {
        struct step *step = &plan->steps[s];
        if (step->copy_source) {
            step->copy_from = tensor_data(plan, step->copy_source);
            step->copy_to = step->copy_slot >= 0 ? plan_data(plan, step->copy_slot) : tensor_data(plan, step->copy_target);
            step->copy_bytes = type_bytes(&step->copy_source->type);
        }
        if (!step->node) continue;
        for (int k = 0; k < step->node->n_in; k++) step->in[k] = step->node->in[k] ? tensor_data(plan, step->node->in[k]) : NULL;
        for (int k = 0; k < step->node->n_out; k++) step->out[k] = tensor_data(plan, step->node->out[k]);
        // an accumulator that was copied is read from its new place
        for (int k = 0; step->copy_source && k < step->node->n_in; k++)
            if (step->node->in[k] == step->copy_source && (k == step->node->op->accumulate - 1 || step->node->op->traits & OP_EFFECT))
                step->in[k] = step->copy_to;
        step->call.work = step->work_bytes ? plan->memory + step->work_offset : NULL;
        step->call.pool = pool;
    }
    plan->is_resolved = true;
    return CB_OK;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

enum cb_status plan_run(struct plan *plan, struct pool *pool, struct cb_err *err) {
    if (plan->options.backend && !plan->options.backend->runs)
        FAIL(err, CB_E_UNSUPPORTED, "plan: backend '%s' runs nothing", plan->options.backend->name);
    if (!plan->is_resolved || (plan->n_steps && plan->steps[0].node && plan->steps[0].call.pool != pool)) TRY(resolve(plan, pool, err));
    const uint32_t subnormals = subnormal_flush();
    int64_t begin = plan->is_profiled ? now_ns() : 0;
    for (int s = 0; s < plan->n_steps; s++) {
        struct step *step = &plan->steps[s];
        if (step->copy_bytes && step->copy_to != step->copy_from) memmove(step->copy_to, step->copy_from, (size_t)step->copy_bytes);
        if (step->node) step->run(&step->call);
        if (plan->is_profiled) {
            int64_t end = now_ns();
            step->time_ns += end - begin;
            begin = end;
        }
    }
    subnormal_set(subnormals);
    plan->n_profiled += plan->is_profiled;
    return CB_OK;
}

struct plan_memory plan_memory(const struct plan *plan) {
    return plan->bytes;
}

int plan_n_steps(const struct plan *plan) { return plan->n_steps; }

bool plan_uses(const struct plan *plan, const struct kernel *kernel) {
    for (int i = 0; i < plan->n_steps; i++)
        if (plan->steps[i].kernel == kernel) return true;
    return false;
}

void plan_profile(struct plan *plan, bool on) { plan->is_profiled = on; }
