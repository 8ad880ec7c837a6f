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
    if (isfinite(e->result.loss)) json_object_set_new(state, "loss", json_real(e->result.loss));
    json_object_set_new(state, "bad_evals", json_integer(l->out->bad_evals));
    json_object_set_new(state, "has_best", json_boolean(l->out->has_best));
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
    e->result.loss = real_or_nan(state, "loss");
    l->out->bad_evals = json_integer_value(json_object_get(state, "bad_evals"));
    l->out->has_best = json_is_true(json_object_get(state, "has_best"));
}

static enum cb_status save(struct loop *l, struct cb_err *err) {
    json_t *state = state_pack(l);
    enum cb_status status = state ? ckpt_save(l->trainer, l->o->folder, state, err) : CB_E_MEMORY;
    json_decref(state);
    if (status == CB_E_MEMORY) err_set(err, status, __FILE__, __LINE__, "checkpoint: out of memory");
    TRY(status);
    snprintf(l->last_checkpoint, sizeof l->last_checkpoint, "ckpt-%010lld.safetensors", (long long)trainer_steps(l->trainer));
    ckpt_prune(l->o->folder, l->o->keep > 0 ? l->o->keep : 2);
    return CB_OK;
}

static enum cb_status evaluate(struct loop *l, struct cb_err *err) {
    struct loop_event *e = &l->out->last;
    TRY(l->c->validate(l->c->user, &e->valid_loss, err));
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
    enum cb_status status = trainer_step(l->trainer, l->c->batch, l->c->user, &e->result, err);
    if (status == CB_E_NUMERIC && l->last_checkpoint[0])
        err_prefix(err, "%s/%s is the last good checkpoint", l->o->folder, l->last_checkpoint);
    else if (status == CB_E_NUMERIC)
        err_prefix(err, "%s: no checkpoint yet", l->o->folder);
    TRY(status);
    double took = l->o->now() - begin;
    l->train_seconds += took;
    e->step = trainer_steps(l->trainer);
    e->seconds = l->train_seconds;
    e->tokens_per_s = took > 0 ? (double)l->o->tokens_a_step / took : 0;
    e->is_evaluated = false;
    if (l->c->validate && (is_due(l->o->eval_every, e->step) || e->step == e->steps)) TRY(evaluate(l, err));
    TRY(l->c->step(l->c->user, e, err));
    if (l->c->sample && is_due(l->o->sample_every, e->step)) TRY(l->c->sample(l->c->user, e->step, err));
    return CB_OK;
}

static enum cb_status loop_resume(struct loop *l, struct cb_err *err) {
    char *path;
    TRY(ckpt_newest(l->o->folder, &path, l->c->warn, l->c->user, err));
    if (!path) return CB_OK;
    json_t *state = NULL;
    enum cb_status status = ckpt_load(l->trainer, path, &state, err);
    if (status == CB_OK) {
        state_unpack(l, state);
        const char *name = strrchr(path, '/');
        snprintf(l->last_checkpoint, sizeof l->last_checkpoint, "%.63s", name ? name + 1 : path);
    }
    json_decref(state);
    free(path);
    return status;
}

enum cb_status loop_run(struct trainer *trainer, const struct loop_options *options, const struct loop_callbacks *callbacks, bool resume,
                        struct loop_outcome *outcome, struct cb_err *err) {
    struct loop l = {.trainer = trainer, .o = options, .c = callbacks, .out = outcome};
    memset(outcome, 0, sizeof *outcome);
    outcome->last.steps = options->steps;
    outcome->last.valid_loss = outcome->last.best_loss = outcome->last.result.loss = NAN;
    if (resume) TRY(loop_resume(&l, err));
    outcome->last.step = trainer_steps(trainer);
    while (outcome->last.step < options->steps) {
        TRY(one_step(&l, err));
        int64_t step = outcome->last.step;
        outcome->is_early = options->patience > 0 && outcome->bad_evals >= options->patience;
        outcome->is_stopped = !callbacks->go_on(callbacks->user, &outcome->last) ||
                              (options->stop_after > 0 && step >= options->stop_after && step < options->steps);
        bool ends = outcome->is_early || outcome->is_stopped || step == options->steps;
        if (ends || is_due(options->save_every, step)) TRY(save(&l, err));
        if (outcome->is_early || outcome->is_stopped) break;
    }
    return CB_OK;
}
