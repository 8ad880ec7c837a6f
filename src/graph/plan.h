/* A plan: the steps of a graph in order, a kernel and byte offsets for each, fixed before anything runs. */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H
#include "base/pool.h"
#include "graph/backend.h"

struct plan;

struct plan_options {
    const struct backend *backend;
    uint32_t cpu_mask;  // features that kernels may use
    int n_threads;
    const char *kernels;  // "matmul=ref,softmax=avx2"; NULL: best
    int64_t memory_limit;  // bytes of the plan's own memory; 0: none
    int64_t recompute;  // compute cheap nodes again for the backward pass where that saves so many bytes in all; 0: never
    bool keep_all;  // no buffer is shared or reused (debugging)
};

/* One named buffer that the plan shares with the outside: each param, input and output. */
struct plan_slot {
    const char *name;
    struct cb_type type;
    bool is_param, is_input, is_output;
    bool is_inside;  // the plan holds the memory (inputs and outputs that were not declared external)
};

/* Plans every node that the graph's outputs need, after running the passes on the graph, which must outlive the plan. Owned by caller, free with
   plan_destroy. Where the limit is passed: CB_E_LIMIT, with the bytes needed. */
enum cb_status plan_create(struct plan **plan, struct cb_graph *graph, const struct plan_options *options, struct cb_err *err);
void plan_destroy(struct plan **plan);

int plan_n_slots(const struct plan *plan);
const struct plan_slot *plan_slot(const struct plan *plan, int slot);
/* -1 where there is none. */
int plan_find(const struct plan *plan, const char *name);

/* Params must be bound before a run; inputs and outputs may be (else the plan's own memory serves, see plan_data). 64-byte alignment is
   best, 16 enough. data: borrowed until bound again. */
void plan_bind(struct plan *plan, int slot, void *data);
/* Buffer of a slot: what was bound, or the plan's own. NULL: a param not yet bound. */
void *plan_data(struct plan *plan, int slot);

/* Runs all steps; results too small for normal numbers are zeros meanwhile. Allocates nothing. pool: at most options.n_threads threads. */
enum cb_status plan_run(struct plan *plan, struct pool *pool, struct cb_err *err);

/* Bytes. inside: activations, inputs, outputs, constants and workspace that the plan itself holds. */
struct plan_memory {
    int64_t inside, activations, workspace, constants, params, outputs;
};
struct plan_memory plan_memory(const struct plan *plan);
double plan_flops(const struct plan *plan);
int plan_n_steps(const struct plan *plan);
/* Whether a step runs this kernel. */
bool plan_uses(const struct plan *plan, const struct kernel *kernel);
/* One line a step: op, kernel, types, offsets. Owned by caller, free with free(). */
enum cb_status plan_dump(const struct plan *plan, char **text, struct cb_err *err);
/* After plan_profile(plan, true) each run adds the time of every step; the report is a table by op and kernel. Owned by caller, free(). */
void plan_profile(struct plan *plan, bool on);
enum cb_status plan_profile_report(const struct plan *plan, char **text, struct cb_err *err);
#endif
