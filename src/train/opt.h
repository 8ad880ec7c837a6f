/* Optimisers: one descriptor each; the update is one pass over memory. */
#ifndef TRAIN_OPT_H
#define TRAIN_OPT_H
#include "base/dtype.h"
#include "base/pool.h"

#define OPT_MAX_OPTIONS 12
#define OPT_MAX_STATES 3

/* One named option with its default; a pair of betas is two options, beta1 and beta2. */
struct opt_option {
    const char *name;  // NULL ends the list
    double value;
    double min, max;  // allowed, both included
};

/* One update of elements [begin, end) of one parameter. */
struct opt_range {
    float *param;
    const float *grad;
    float *state[OPT_MAX_STATES];
    int64_t begin, end;
    int64_t step;  // 1 for the first
    double lr, weight_decay;  // of this parameter; decay is the update's own work
    double grad_scale;  // multiply the gradient by it first (clipping)
    const double *option;  // in the order of the descriptor
};

struct optimizer {
    const char *name, *doc;  // doc: formula and source
    struct opt_option options[OPT_MAX_OPTIONS];
    /* Needed, if only to give 0: state buffers of a parameter's size that these options need; and their names in checkpoints ("exp_avg", ...). */
    int (*n_states)(const double *option);
    const char *state_names[OPT_MAX_STATES];
    double (*state_start)(const double *option, int state);  // NULL: zeros
    void (*update)(const struct opt_range *range);  // needed, or the next
    /* For optimisers that see a whole tensor at once, instead of update; NULL. */
    void (*update_tensor)(const struct opt_range *range, const struct cb_type *type);
    /* The type (f32) of a state of a parameter; false: this parameter has none. NULL: all have the parameter's. */
    bool (*state_type)(const struct cb_type *param, int state, struct cb_type *type);
};

/* NULL where unknown. */
const struct optimizer *opt_find(const char *name);
/* i-th of all, NULL past the end. */
const struct optimizer *opt_at(int i);

/* Parses "adamw:beta1=0.9,beta2=0.95,eps=1e-8"; options not named keep their defaults. */
enum cb_status opt_parse(const char *spec, const struct optimizer **opt, double option[OPT_MAX_OPTIONS], struct cb_err *err);
/* Index of an option, -1 where the optimiser has none of that name. */
int opt_option_index(const struct optimizer *opt, const char *name);

/* Updates a whole parameter, in fixed tiles over the pool where the optimiser allows it. range->begin and end are set here. */
void opt_apply(const struct optimizer *opt, const struct opt_range *range, const struct cb_type *type, struct pool *pool);
/* The type of a state of a parameter; false: it has none. */
bool opt_state_type(const struct optimizer *opt, const struct cb_type *param, int state, struct cb_type *type);
/* Sum of squares of n values in f64: the same for any number of threads. */
double opt_sum_squares(const float *x, int64_t n, struct pool *pool, double *partial);
/* Doubles that opt_sum_squares needs in partial. */
int64_t opt_partials(int64_t n);
#endif
