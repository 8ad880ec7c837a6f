/* The training loop and what it keeps between runs. */
#include "train/loop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/ckpt.h"

/* One run of the loop. */
struct loop {
    struct trainer *trainer;
    const struct loop_options *o;
    const struct loop_callbacks *c;
    struct loop_outcome *out;
    double train_seconds;
    char last_checkpoint[64];
};

/* What a checkpoint keeps beside parameters and optimiser: all that the loop itself knows. */
static json_t *state_pack(const struct loop *l) {
    const struct loop_event *e = &l->out->last;
    json_t *state = json_object();
    json_object_set_new(state, "best_step", json_integer(e->best_step));
    if (isfinite(e->best_loss)) json_object_set_new(state, "best_loss", json_real(e->best_loss));
    if (isfinite(e->valid_loss)) json_object_set_new(state, "valid_loss", json_real(e->valid_loss));
    if (isfinite(e->loss)) json_object_set_new(state, "loss", json_real(e->loss));
    json_object_set_new(state, "bad_evals", json_integer(l->out->bad_evals));
    json_object_set_new(state, "has_best", json_boolean(l->out->has_best));
    json_object_set_new(state, "train_seconds", json_real(l->train_seconds));
    if (l->o->identity && json_object_set_new(state, "run", json_deep_copy(l->o->identity))) {
        json_decref(state);
        return NULL;
    }
    return state;
}

static double real_or_nan(const json_t *state, const char *key) {
    const json_t *v = json_object_get(state, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void state_unpack(struct loop *l, const json_t *state) {
    struct loop_event *e = &l->out->last;
    e->best_step = json_integer_value(json_object_get(state, "best_step"));
    e->best_loss = real_or_nan(state, "best_loss");
    e->valid_loss = real_or_nan(state, "valid_loss");
    e->loss = real_or_nan(state, "loss");
    l->out->bad_evals = json_integer_value(json_object_get(state, "bad_evals"));
    l->out->has_best = json_is_true(json_object_get(state, "has_best"));
    double seconds = real_or_nan(state, "train_seconds");
    e->seconds = l->train_seconds = seconds > 0 && isfinite(seconds) ? seconds : 0;
}

/* A numeric failure says where one can go on from. */
static enum cb_status checked(const struct loop *l, enum cb_status status, struct cb_err *err) {
    if (status == CB_E_NUMERIC && l->last_checkpoint[0])
        err_prefix(err, "%s/%s is the last good checkpoint", l->o->folder, l->last_checkpoint);
    else if (status == CB_E_NUMERIC)
        err_prefix(err, "%s: no checkpoint yet", l->o->folder);
    return status;
}

static enum cb_status save(struct loop *l, struct cb_err *err) {
    TRY(checked(l, trainer_check(l->trainer, err), err));
    json_t *state = state_pack(l);
    enum cb_status status = state ? ckpt_save(l->trainer, l->o->folder, state, err) : CB_E_MEMORY;
    json_decref(state);
    if (status == CB_E_MEMORY) err_set(err, status, __FILE__, __LINE__, "checkpoint: out of memory");
    TRY(status);
    snprintf(l->last_checkpoint, sizeof l->last_checkpoint, "ckpt-%010lld.safetensors", (long long)trainer_steps(l->trainer));
    ckpt_prune(l->o->folder, trainer_steps(l->trainer), l->o->keep > 0 ? l->o->keep : 2);
    return CB_OK;
}

static enum cb_status evaluate(struct loop *l, struct cb_err *err) {
    struct loop_event *e = &l->out->last;
    TRY(checked(l, trainer_check(l->trainer, err), err));
    TRY(l->c->validate(l->c->user, &e->valid_loss, err));
    if (!isfinite(e->valid_loss)) {
        err_set(err, CB_E_NUMERIC, __FILE__, __LINE__, "step %lld: validation loss %g; wanted a finite number (a lower --lr may help)",
                (long long)e->step, e->valid_loss);
        return checked(l, CB_E_NUMERIC, err);
    }
    e->is_evaluated = true;
    if (isnan(e->best_loss) || e->valid_loss < e->best_loss) {
        e->best_loss = e->valid_loss;
        e->best_step = e->step;
        l->out->bad_evals = 0;
        l->out->has_best = true;
        json_t *state = state_pack(l);
        enum cb_status status = ckpt_save_best(l->trainer, l->o->folder, state, err);
        json_decref(state);
        return status;
    }
    l->out->bad_evals++;
    return CB_OK;
}

static bool is_due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

static enum cb_status one_step(struct loop *l, struct cb_err *err) {
    struct loop_event *e = &l->out->last;
    double begin = l->o->now();
    TRY(checked(l, trainer_step(l->trainer, l->c->batch, l->c->user, &e->result, err), err));
    if (isfinite(e->result.loss)) e->loss = e->result.loss;
    double took = l->o->now() - begin;
    l->train_seconds += took;
    e->step = trainer_steps(l->trainer);
    e->seconds = l->train_seconds;
    e->seconds_here += took;
    e->tokens_per_s = took > 0 ? (double)l->o->tokens_a_step / took : 0;
    e->is_evaluated = false;
    if (l->c->validate && (is_due(l->o->eval_every, e->step) || e->step == e->steps)) TRY(evaluate(l, err));
    TRY(l->c->step(l->c->user, e, err));
    if (l->c->sample && is_due(l->o->sample_every, e->step)) TRY(l->c->sample(l->c->user, e->step, err));
    return CB_OK;
}

static enum cb_status loop_resume(struct loop *l, const char *path, struct cb_err *err) {
    json_t *state = NULL;
    TRY(ckpt_load(l->trainer, path, &state, err));
    state_unpack(l, state);
    json_decref(state);
    const char *name = strrchr(path, '/');
    snprintf(l->last_checkpoint, sizeof l->last_checkpoint, "%.63s", name ? name + 1 : path);
    return CB_OK;
}

static bool is_out_of_patience(const struct loop *l) { return l->o->patience > 0 && l->out->bad_evals >= l->o->patience; }

enum cb_status loop_run(struct trainer *trainer, const struct loop_options *options, const struct loop_callbacks *callbacks,
                        const char *resume_path, struct loop_outcome *outcome, struct cb_err *err) {
    struct loop l = {.trainer = trainer, .o = options, .c = callbacks, .out = outcome};
    memset(outcome, 0, sizeof *outcome);
    outcome->last.steps = options->steps;
    outcome->last.valid_loss = outcome->last.best_loss = outcome->last.loss = NAN;
    if (resume_path) TRY(loop_resume(&l, resume_path, err));
    outcome->last.step = trainer_steps(trainer);
    TRY(ckpt_retire(options->folder, outcome->last.step, err));
    outcome->is_early = is_out_of_patience(&l);  // a run that had ended early has nothing left to do
    while (outcome->last.step < options->steps && !outcome->is_early && !outcome->is_stopped) {
        TRY(one_step(&l, err));
        int64_t step = outcome->last.step;
        outcome->is_early = is_out_of_patience(&l);
        outcome->is_stopped = !callbacks->go_on(callbacks->user, &outcome->last) ||
                              (options->stop_after > 0 && step >= options->stop_after && step < options->steps);
        bool ends = outcome->is_early || outcome->is_stopped || step == options->steps;
        if (ends || is_due(options->save_every, step)) TRY(save(&l, err));
    }
    return CB_OK;
}
