/* Small graphs for the tests of the graph room. */
#ifndef TESTS_GRAPH_TOOLBOX_H
#define TESTS_GRAPH_TOOLBOX_H
#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "graph/plan.h"
#include "harness.h"
#include "ops/ops.h"

static inline struct cb_type f32_type(int rank, int64_t a, int64_t b) { return type_make(CB_DTYPE_F32, rank, (int64_t[]){a, b}); }

static inline struct plan_options cpu_options(void) {
    return (struct plan_options){.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = 2};
}

static inline float *slot_floats(struct plan *plan, const char *name) {
    int slot = plan_find(plan, name);
    return slot < 0 ? NULL : plan_data(plan, slot);
}
#endif
