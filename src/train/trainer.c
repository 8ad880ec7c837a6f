/* The training step: run the plan for each micro-batch, clip by the global norm, update every parameter in one pass. */
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

struct trainer {
    struct arena *arena;
    struct plan *plan;
    struct pool *pool;
    const struct train_param *params;
    int n_params;
    int loss_slot[2];  // of the plan and its twin
    struct trainer_options options;
    struct store *states, *other;  // gradients and optimiser states; the twin's gradients
    struct store_entry **grad, **other_grad;
    struct store_entry *(*state)[OPT_MAX_STATES];
    double *partial;
    int64_t steps;
};

void trainer_bytes(const struct train_param *params, int n_params, const struct trainer_options *options, int64_t *gradients,
                   int64_t *states) {
    int n_states = options->opt->n_states(options->option);
    struct cb_type type;
    *gradients = *states = 0;
    for (int i = 0; i < n_params; i++) {
        *gradients += type_elements(&params[i].value->type) * 4;
        for (int s = 0; s < n_states; s++)
            if (opt_state_type(options->opt, &params[i].value->type, s, &type)) *states += type_elements(&type) * 4;
    }
}

/* Gradient and states of one parameter, bound to the plan. */
static enum cb_status add_param(struct trainer *t, int i, struct cb_err *err) {
    const struct train_param *p = &t->params[i];
    struct store_entry *value = p->value;
    int n_states = t->options.opt->n_states(t->options.option);
    if (value->type.dtype != CB_DTYPE_F32 || value->place != STORE_HEAP)
        FAIL(err, CB_E_DTYPE, "%s: %s; a trained parameter is f32 in memory", value->name, dtype_of(value->type.dtype)->name);
    char name[512];
    snprintf(name, sizeof name, "grad.%s", value->name);
    int grad_slot = plan_find(t->plan, name), value_slot = plan_find(t->plan, value->name);
    if (grad_slot < 0 || value_slot < 0) FAIL(err, CB_E_NAME, "%s: the plan has no gradient for it", value->name);
    TRY(store_add(t->states, name, value->type, &t->grad[i], err));
    plan_bind(t->plan, grad_slot, t->grad[i]->data);
    plan_bind(t->plan, value_slot, value->data);
    if (t->options.twin) {
        TRY(store_add(t->other, name, value->type, &t->other_grad[i], err));
        grad_slot = plan_find(t->options.twin, name), value_slot = plan_find(t->options.twin, value->name);
        if (grad_slot < 0 || value_slot < 0) FAIL(err, CB_E_NAME, "%s: the plan's twin has no gradient for it", value->name);
        plan_bind(t->options.twin, grad_slot, t->other_grad[i]->data);
        plan_bind(t->options.twin, value_slot, value->data);
    }
    for (int s = 0; s < n_states; s++) {
        struct cb_type type;
        if (!opt_state_type(t->options.opt, &value->type, s, &type)) continue;
        snprintf(name, sizeof name, "%s.%s", t->options.opt->state_names[s], value->name);
        TRY(store_add(t->states, name, type, &t->state[i][s], err));
        double start = t->options.opt->state_start ? t->options.opt->state_start(t->options.option, s) : 0;
        float *x = t->state[i][s]->data;
        for (int64_t k = 0, n = type_elements(&type); start != 0 && k < n; k++) x[k] = (float)start;
    }
    return CB_OK;
}

static enum cb_status trainer_fill(struct trainer *t, struct cb_err *err) {
    size_t n = (size_t)t->n_params + 1;
    int64_t partials = 1;
    t->grad = arena_array(t->arena, n, sizeof *t->grad);
    t->other_grad = arena_array(t->arena, n, sizeof *t->other_grad);
    t->state = arena_array(t->arena, n, sizeof *t->state);
    for (int i = 0; i < t->n_params; i++) {
        int64_t need = opt_partials(type_elements(&t->params[i].value->type));
        if (need > partials) partials = need;
    }
    t->partial = arena_array(t->arena, (size_t)partials, sizeof *t->partial);
    if (!t->grad || !t->other_grad || !t->state || !t->partial) FAIL(err, CB_E_MEMORY, "training: out of memory");
    TRY(store_create(&t->states, err));
    TRY(store_create(&t->other, err));
    for (int i = 0; i < t->n_params; i++) TRY(add_param(t, i, err));
    t->loss_slot[0] = plan_find(t->plan, "loss");
    t->loss_slot[1] = t->options.twin ? plan_find(t->options.twin, "loss") : t->loss_slot[0];
    if (t->loss_slot[0] < 0 || t->loss_slot[1] < 0) FAIL(err, CB_E_NAME, "training: the plan has no output 'loss'");
    return CB_OK;
}

enum cb_status trainer_create(struct trainer **trainer, struct plan *plan, const struct train_param *params, int n_params,
                              const struct trainer_options *options, struct pool *pool, struct cb_err *err) {
    *trainer = NULL;
    struct arena *arena = arena_create();
    struct trainer *t = arena ? arena_alloc(arena, sizeof *t) : NULL;
    if (!t) {
        arena_destroy(&arena);
        FAIL(err, CB_E_MEMORY, "training: out of memory");
    }
    t->arena = arena;
    t->plan = plan;
    t->pool = pool;
    t->params = params;
    t->n_params = n_params;
    t->options = *options;
    if (t->options.accumulate < 1) t->options.accumulate = 1;
    enum cb_status status = trainer_fill(t, err);
    if (status != CB_OK) {
        trainer_destroy(&t);
        return status;
    }
    *trainer = t;
    return CB_OK;
}

void trainer_destroy(struct trainer **trainer) {
    if (!trainer || !*trainer) return;
    store_destroy(&(*trainer)->states);
    store_destroy(&(*trainer)->other);
    struct arena *arena = (*trainer)->arena;
    arena_destroy(&arena);
    *trainer = NULL;
}

static void clear_gradients(struct trainer *t) {
    for (int i = 0; i < t->n_params; i++) memset(t->grad[i]->data, 0, (size_t)t->grad[i]->bytes);
}

/* What the plan (0) or its twin (1) made. */
static double loss_of(const struct trainer *t, int half) {
    struct plan *plan = half ? t->options.twin : t->plan;
    return ref_get(plan_slot(plan, t->loss_slot[half])->type.dtype, plan_data(plan, t->loss_slot[half]), 0);
}

/* Labels that the micro-batch filled into a plan has. */
static int64_t labels_of(const struct trainer *t, struct plan *plan) {
    return t->options.labels ? t->options.labels(t->options.user, plan) : 1;
}

/* Both halves of a batch. Where there are two threads each takes one, as neither the halves nor their sums depend on that. */
struct halves {
    struct trainer *t;
    struct plan *plan[2];
    int64_t labels[2];
    float weight[2];  // of its gradients
    struct cb_err err[2];
};

static void run_half(void *context, int64_t i, int thread) {
    struct halves *h = context;
    (void)thread;
    if (h->labels[i]) plan_run(h->plan[i], NULL, &h->err[i]);
}

/* The gradient of a parameter: the halves' mean by their labels. */
static void add_half(void *context, int64_t i, int thread) {
    const struct halves *h = context;
    float *to = h->t->grad[i]->data;
    const float *other = h->t->other_grad[i]->data, a = h->weight[0], b = h->weight[1];
    (void)thread;
    for (int64_t k = 0, n = type_elements(&h->t->grad[i]->type); k < n; k++) to[k] = (a != 0 ? a * to[k] : 0) + (b != 0 ? b * other[k] : 0);
}

/* The batch whose halves lie in the plan and its twin. */
static enum cb_status run_halves(struct trainer *t, double *loss, int *learnt, struct cb_err *err) {
    struct halves h = {.t = t, .plan = {t->plan, t->options.twin}};
    for (int i = 0; i < 2; i++) h.labels[i] = labels_of(t, h.plan[i]);
    const double all = (double)(h.labels[0] + h.labels[1]);
    *learnt = all > 0;
    *loss = all > 0 ? 0 : NAN;
    if (pool_threads(t->pool) == 2) {
        pool_run(t->pool, 2, run_half, &h);
    } else {
        for (int i = 0; i < 2; i++)
            if (h.labels[i]) plan_run(h.plan[i], t->pool, &h.err[i]);
    }
    for (int i = 0; i < 2; i++) {
        if (h.err[i].code) FAIL(err, h.err[i].code, "%s", h.err[i].message);
        if (!h.labels[i]) continue;
        h.weight[i] = (float)((double)h.labels[i] / all);
        *loss += loss_of(t, i) * ((double)h.labels[i] / all);
    }
    pool_run(t->pool, t->n_params, add_half, &h);
    return CB_OK;
}

/* Runs every micro-batch that has something to learn, *learnt of them; the gradients, each 1 / accumulate of its own, add up in place. A mean over no label
   is NaN, and other terms of a loss are not to move the weights by themselves: what has no label is not run at all. */
static enum cb_status run_batches(struct trainer *t, train_batch_fn *batch, void *user, double *loss, int *learnt, struct cb_err *err) {
    const struct trainer_options *o = &t->options;
    const int n = o->accumulate;
    *loss = 0;
    *learnt = 0;
    if (n > 1) clear_gradients(t);
    for (int i = 0; i < n; i++) {
        TRY(batch(user, t->steps * n + i, err));
        if (o->twin) return run_halves(t, loss, learnt, err);
        if (!labels_of(t, t->plan)) continue;
        TRY(plan_run(t->plan, t->pool, err));
        *loss += loss_of(t, 0);
        ++*learnt;
    }
    *loss = *learnt ? *loss / *learnt : NAN;
    if (!*learnt) clear_gradients(t);
    return CB_OK;
}

/* share: what the gradients are multiplied by to be the mean of the micro-batches. */
static void update_params(struct trainer *t, const struct train_result *r, double share) {
    double scale = share * (t->options.clip > 0 && r->grad_norm > t->options.clip ? t->options.clip / (r->grad_norm + 1e-6) : 1);
    for (int i = 0; i < t->n_params; i++) {
        const struct train_param *p = &t->params[i];
        if (t->steps < p->from_step) continue;
        struct opt_range range = {.param = p->value->data,
                                  .grad = t->grad[i]->data,
                                  .step = t->steps - p->from_step + 1,
                                  .lr = r->lr * p->lr_scale,
                                  .weight_decay = p->decay ? t->options.weight_decay : 0,
                                  .grad_scale = scale,
                                  .option = t->options.option};
        for (int s = 0; s < OPT_MAX_STATES; s++) range.state[s] = t->state[i][s] ? t->state[i][s]->data : NULL;
        opt_apply(t->options.opt, &range, &p->value->type, t->pool);
    }
}

enum cb_status trainer_step(struct trainer *t, train_batch_fn *batch, void *user, struct train_result *result, struct cb_err *err) {
    int learnt;
    TRY(run_batches(t, batch, user, &result->loss, &learnt, err));
    const double share = learnt ? (double)t->options.accumulate / learnt : 0;
    double squares = 0;
    for (int i = 0; i < t->n_params; i++)
        if (t->steps >= t->params[i].from_step)
            squares += opt_sum_squares(t->grad[i]->data, type_elements(&t->params[i].value->type), t->pool, t->partial);
    result->grad_norm = share * sqrt(squares);
    result->lr = sched_rate(&t->options.sched, t->steps);
    if (learnt && (!isfinite(result->loss) || !isfinite(result->grad_norm)))
        FAIL(err, CB_E_NUMERIC,
             "step %lld: loss %g, gradient norm %g; wanted finite numbers (a lower --lr, more --warmup or --clip may help; --resume takes "
             "them with --force)",
             (long long)t->steps + 1, result->loss, result->grad_norm);
    if (learnt) update_params(t, result, share);
    if (t->options.updated) TRY(t->options.updated(t->options.user, t->steps, t->states, err));
    t->steps++;
    return CB_OK;
}

enum cb_status trainer_check(struct trainer *t, struct cb_err *err) {
    for (int i = 0; i < t->n_params; i++) {
        const struct store_entry *value = t->params[i].value;
        double squares = opt_sum_squares(value->data, type_elements(&value->type), t->pool, t->partial);
        if (!isfinite(squares))
            FAIL(err, CB_E_NUMERIC,
                 "step %lld: the update left %s with values that are not finite; wanted finite numbers (a lower --lr, more --warmup or "
                 "--clip may help; --resume takes them with --force)",
                 (long long)t->steps, value->name);
    }
    return CB_OK;
}

int64_t trainer_steps(const struct trainer *trainer) { return trainer->steps; }

void trainer_set_steps(struct trainer *trainer, int64_t steps) { trainer->steps = steps; }

struct store *trainer_states(struct trainer *trainer) {
    return trainer->states;
}

const struct train_param *trainer_params(const struct trainer *trainer, int *n) {
    *n = trainer->n_params;
    return trainer->params;
}

const struct trainer_options *trainer_get_options(const struct trainer *trainer) { return &trainer->options; }
