/* Validation and evaluation: every batch of a loader through a plan without gradients. */
#include "api/score.h"

#include <string.h>

enum cb_status score_open(struct score *s, struct instance *instance, const struct loader_options *o, struct cb_err *err) {
    struct nn nn;
    struct model_io io = {.batch = o->batch,
                          .tokens = o->seq,
                          .want_loss = true,
                          .head_loss_only = true,
                          .labels_shifted = true,
                          .segments = o->segments || o->no_pack,
                          .position_ids = o->segments || o->no_pack};
    *s = (struct score){.instance = instance};
    const struct model_class *class = instance->model->class;
    if (!class->head->learns_text)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s scores no text; wanted a language model", instance->path, class->name);
    s->is_open = true;
    TRY(pass_begin(&s->pass, instance, &nn, err));
    TRY(model_build(instance->model, &nn, &io, err));
    return pass_plan(&s->pass, instance, false, engine_base_bytes(instance->engine) + instance_weight_bytes(instance), err);
}

void score_close(struct score *s) {
    if (s->is_open) pass_end(&s->pass);
    s->is_open = false;
}

int64_t score_bytes(const struct score *s) { return plan_memory(s->pass.plan).inside; }

enum cb_status score_run(struct score *s, double *loss, int64_t *tokens, struct cb_err *err) {
    const struct loader_options *o = loader_options(s->loader);
    int32_t *ids = pass_data(&s->pass, "input_ids"), *labels = pass_data(&s->pass, "labels");
    int32_t *segments = pass_data(&s->pass, "segments"), *positions = pass_data(&s->pass, "position_ids");
    const float *mean = pass_data(&s->pass, "loss");
    double total = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < loader_valid_batches(s->loader); i++) {
        TRY(loader_valid(s->loader, i, ids, labels, segments, positions, err));
        int64_t learnt = 0;
        for (int64_t k = 0; k < o->batch * o->seq; k++) learnt += labels[k] != LOADER_IGNORE;
        if (!learnt) continue;
        TRY(plan_run(s->pass.plan, s->instance->engine->pool, err));
        total += (double)*mean * (double)learnt;
        count += learnt;
        struct cb_progress p = {.verb = "eval",
                                .done = i + 1,
                                .total = loader_valid_batches(s->loader),
                                .seconds_left = -1,
                                .loss = total / (double)count,
                                .valid_loss = -1};
        if (!engine_progress(s->instance->engine, &p)) FAIL(err, CB_E_STOPPED, "evaluation: stopped");
    }
    if (!count) FAIL(err, CB_E_ARGUMENT, "evaluation: no tokens to score");
    *loss = total / (double)count;
    if (tokens) *tokens = count;
    return CB_OK;
}
