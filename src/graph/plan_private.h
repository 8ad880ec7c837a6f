/* What plan.c, plan_build.c and plan_report.c share: the inside of a plan. */
#ifndef GRAPH_PLAN_PRIVATE_H
#define GRAPH_PLAN_PRIVATE_H
#include "graph/plan.h"

enum place { PLACE_NONE, PLACE_SLOT, PLACE_INSIDE, PLACE_CONST };

/* Where a tensor's bytes are. */
struct where {
    enum place place;
    int slot;  // PLACE_SLOT
    int64_t offset;  // PLACE_INSIDE: from plan->memory
    const void *data;  // PLACE_CONST
};

struct step {
    const struct node *node;  // NULL: a copy into an output slot
    void (*run)(const struct op_run *run);
    const struct kernel *kernel;  // NULL: ref
    struct op_run call;
    const void **in;
    void **out;
    int64_t work_offset, work_bytes;
    void *copy_to;  // bytes copied before the kernel runs: an accumulator that could not share its buffer
    const void *copy_from;
    int64_t copy_bytes;
    const struct cb_tensor *copy_source, *copy_target;  // resolved into the pointers above
    int copy_slot;  // PLACE_SLOT target of a final copy, -1: none
    int64_t time_ns;
};

struct plan {
    struct arena *arena;
    struct cb_graph *graph;
    struct plan_options options;
    struct plan_slot *slots;
    struct table by_name;  // numbers of the slots
    void **bound;  // by slot
    int64_t *slot_offset;  // inside slots: offset in memory; -1 else
    int n_slots;
    struct step *steps;
    int n_steps;
    struct where *where;  // by tensor id
    int n_tensors;
    unsigned char *memory;
    struct plan_memory bytes;
    bool is_resolved, is_profiled;
    int64_t n_profiled;
};

/* plan_build.c: fills slots, steps, places and byte counts. */
enum cb_status plan_build(struct plan *plan, struct cb_err *err);
#endif
