/* Runs a graph in a test: plan, bind the params from a store, fill the inputs from a file, read the outputs. */
#ifndef TESTS_GRAPH_RUNNER_H
#define TESTS_GRAPH_RUNNER_H
#include "graph/plan.h"
#include "io/safetensors.h"
#include "store/store.h"

struct runner {
    struct cb_graph *g;
    struct plan *plan;
    struct pool *pool;
    void **own;  // params that the store lacks (caches), zeroed
    int n_own;
};
enum cb_status runner_create(struct runner *runner, struct cb_err *err);
/* Plans the graph and binds params by name; those without an entry get zeroed memory of the runner's if they are caches, else CB_E_NAME. */
enum cb_status runner_plan(struct runner *runner, const struct store *store, struct cb_err *err);
/* Fills an input, converting from the file's type to i32, i64 or f32; absent inputs are CB_E_NAME. */
enum cb_status runner_fill(struct runner *runner, const char *input, const struct tensor *from, struct cb_err *err);
/* Bytes of an input, output or cache. NULL where there is none. */
void *runner_data(struct runner *runner, const char *name);
/* Elements of it. */
int64_t runner_elements(struct runner *runner, const char *name);
enum cb_status runner_run(struct runner *runner, struct cb_err *err);
void runner_destroy(struct runner *runner);

/* Largest |a - b| / (1 + |b|) over n values of stride-1 arrays; infinite where one is NaN. */
double worst_error(const float *a, const float *b, int64_t n);
/* ||a - b|| / ||b||; where b is 0, ||a||. */
double relative_norm(const float *a, const float *b, int64_t n);
/* A tensor as f32. Owned by caller, free with free(); NULL when out of memory. */
float *tensor_floats(const struct tensor *tensor);
#endif
