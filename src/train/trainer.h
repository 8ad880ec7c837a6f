/* One training step: micro-batches through a plan, or a batch through two, clipping, the optimiser. Knows parameters, not models or tuners. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H
#include "graph/plan.h"
#include "store/store.h"
#include "train/opt.h"
#include "train/sched.h"

/* A trainable parameter: f32, on the heap. Its plan has a param slot of this entry's name and an external output "grad.<name>"; where micro-batches
   accumulate, "grad.<name>" is a param leaf as well, to which the output adds. */
struct train_param {
    struct store_entry *value;  // borrowed from the store that holds it
    bool decay;  // weight decay applies
    double lr_scale;  // 1: the schedule's rate
    int64_t from_step;  // it learns from this step on, which is the optimiser's first for it; 0: always
};

struct trainer_options {
    const struct optimizer *opt;
    double option[OPT_MAX_OPTIONS];
    struct sched sched;
    double weight_decay;
    double clip;  // largest global norm of the gradient; 0: none
    int accumulate;  // micro-batches a step, at least 1
    /* A second plan of the same graph, for the other half of each batch, whose inputs are bound already: the two run side by side on two threads, which
       then wait for each other once a step, not once an op. Nullable; not with accumulate. Must outlive the trainer. */
    struct plan *twin;
    /* How many labels what was filled into a plan has to learn; where none, it is not run. Nullable: one. */
    int64_t (*labels)(void *user, struct plan *plan);
    /* Called after the update of step number `step`, from 0. Nullable. */
    enum cb_status (*updated)(void *user, int64_t step, struct store *states, struct cb_err *err);
    void *user;
};

struct trainer;

/* plan, pool, params and the store entries must outlive the trainer. Gradients and optimiser states are entries of its own store:
   "grad.<name>" and "<state>.<name>". Owned by caller, free with trainer_destroy. */
enum cb_status trainer_create(struct trainer **trainer, struct plan *plan, const struct train_param *params, int n_params,
                              const struct trainer_options *options, struct pool *pool, struct cb_err *err);
void trainer_destroy(struct trainer **trainer);

struct train_result {
    double loss;  // mean over the micro-batches that learn, before the update; NaN where none does: nothing is updated then
    double grad_norm;  // before clipping
    double lr;
};
/* Fills the plan's inputs with micro-batch `index` (0, 1, ... over the whole run). */
typedef enum cb_status train_batch_fn(void *user, int64_t index, struct cb_err *err);
/* Runs step trainer_steps(t). A loss or norm that is not finite: CB_E_NUMERIC, nothing updated. */
enum cb_status trainer_step(struct trainer *trainer, train_batch_fn *batch, void *user, struct train_result *result, struct cb_err *err);

/* CB_E_NUMERIC where a parameter is not finite after an update, by its name. */
enum cb_status trainer_check(struct trainer *trainer, struct cb_err *err);

/* Steps done; the next step's number counting from 0. Set when resuming. */
int64_t trainer_steps(const struct trainer *trainer);
void trainer_set_steps(struct trainer *trainer, int64_t steps);
/* Optimiser states for checkpoints. */
struct store *trainer_states(struct trainer *trainer);
const struct train_param *trainer_params(const struct trainer *trainer, int *n);
const struct trainer_options *trainer_get_options(const struct trainer *trainer);
/* Bytes of gradients and of optimiser states, as planned for these parameters. */
void trainer_bytes(const struct train_param *params, int n_params, const struct trainer_options *options, int64_t *gradients,
                   int64_t *states);
#endif
