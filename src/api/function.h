/* A differentiable function: two graphs built side by side, one for training steps and one for runs, over the same memory. */
#ifndef API_FUNCTION_H
#define API_FUNCTION_H
#include <cambium/graph.h>

#include "api/engine.h"
#include "ops/ops.h"
#include "train/opt.h"

#define FUNCTION_LOSS "cambium.loss"
#define FUNCTION_SEED "cambium.seed"

enum entry_kind { ENTRY_PARAMETER, ENTRY_STATE, ENTRY_INPUT, ENTRY_OUTPUT };

/* One named buffer. */
struct entry {
    const char *name;
    enum entry_kind kind;
    struct cb_type type;
    struct cb_tensor *tensor;  // in the training graph
    const char *init;  // of a parameter
    double start;  // of a state
    void *data;
    int64_t offset;  // of a parameter: floats from the first one's
};

struct cb_function {
    struct cb_engine *engine;
    struct arena *arena;
    struct cb_graph *train, *run;
    struct cb_tensor **twin;  // tensor of the run graph, by id of the training graph's
    int twins_size;
    struct entry *entries;
    int n_entries, entries_size;
    struct cb_tensor *loss;
    int64_t seed;  // of dropout: another for every step
    int n_random;
    bool is_compiled;
    struct plan *train_plan, *run_plan;  // the first is NULL without a loss, the second without outputs
    /* Parameters, gradients and optimiser states lie in one block each, in the same order: one update of them all. */
    const struct optimizer *opt;
    double option[OPT_MAX_OPTIONS];
    int64_t n_floats;
    float *param, *grad, *state[OPT_MAX_STATES];
    float *(*own_state)[OPT_MAX_STATES];  // by entry, for optimisers that see whole tensors
    double lr, clip, weight_decay;
    double *partial;
    int64_t steps;
    const void *loss_data;
    enum cb_dtype loss_dtype;
};

/* function.c */
struct entry *function_find(const struct cb_function *f, const char *name);
/* The run graph's twin of a tensor of the training graph. NULL gives NULL. */
struct cb_tensor *function_twin(struct cb_function *f, struct cb_tensor *t);
/* Makes r the twin of t, with their nodes' other outputs; returns t. */
struct cb_tensor *function_pair(struct cb_function *f, struct cb_tensor *t, struct cb_tensor *r);
/* False, with the failure kept, where the function takes no more nodes or t is none of its tensors. */
bool function_takes(struct cb_function *f, const struct cb_tensor *t);
/* A new entry, or NULL with the failure kept: the name is taken. */
struct entry *function_entry(struct cb_function *f, enum entry_kind kind, const char *name);

/* function_compile.c: fills n values of a parameter by its init. */
enum cb_status function_draw(float *value, const struct entry *entry, uint64_t seed, struct cb_err *err);
#endif
