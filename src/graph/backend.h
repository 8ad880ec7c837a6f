/* The interface of a backend: kernels that run nodes. A backend is a list of kernels, best chosen per node by the planner. */
#ifndef GRAPH_BACKEND_H
#define GRAPH_BACKEND_H
#include "graph/op.h"

struct kernel {
    const char *op;  // name of the op it runs
    const char *name;  // "avx512", "avx2", "simd", ... ; unique per op
    uint32_t cpu;  // features needed (CPU_* mask)
    int priority;  // the highest that accepts wins; ref is below all
    /* Whether it can run this node (types, shapes, absent inputs). NULL: f32 floating-point tensors only, any shape. */
    bool (*accepts)(const struct node *node);
    /* Bytes of run->work for a pool of n_threads. NULL: none. */
    size_t (*workspace)(const struct node *node, int n_threads);
    void (*run)(const struct op_run *run);
};

struct backend {
    const char *name;
    /* A file exports `const struct kernel kernel_file_<name>[]`, ended by op == NULL; the list is generated from the file names. */
    const struct kernel *const *files;  // NULL-ended
    bool runs;  // false: plans and counts only
};
#endif
