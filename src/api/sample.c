/* Samples of text while a model is trained. */
#include <stdlib.h>
#include <string.h>

#include "api/train.h"
#include "ops/ops.h"
#include "run/sample.h"
#include "run/session.h"
#include "text/tokenizer.h"

enum { PROMPT = 8, NEW = 64 };

/* What a document begins with: the end-of-text token, else the first tokens of the data. */
static enum cb_status prompt_choose(const struct run *r, int32_t *ids, int64_t *n, struct cb_err *err) {
    int32_t end = tokenizer_eos(r->data.tokenizer);
    *n = 1;
    ids[0] = end;
    if (end >= 0) return CB_OK;
    int64_t tokens = corpus_info(r->data.sets.set[0].corpus)->tokens;
    *n = tokens < PROMPT ? tokens : PROMPT;
    return corpus_read(r->data.sets.set[0].corpus, ids, 0, *n, err);
}

/* Draws at a temperature of 0.8 from the 40 likeliest until the end of text or of the context. */
static enum cb_status draw(const struct run *r, struct session *session, int32_t *ids, int64_t *n, int64_t room, struct cb_err *err) {
    const struct sample_options so = {.temperature = 0.8, .top_k = 40, .seed = r->engine->options.seed};
    const int32_t end = tokenizer_eos(r->data.tokenizer);
    struct sampler *sampler;
    const float *logits;
    TRY(sampler_create(&sampler, r->training.instance.model->vocab, &so, err));
    enum cb_status status = session_push(session, ids, *n, &logits, err);
    while (status == CB_OK && *n < room) {
        int32_t id;
        status = sampler_pick(sampler, logits, *n, &id, err);
        if (status != CB_OK || id == end) break;
        ids[(*n)++] = id;
        if (*n < room) status = session_push(session, &id, 1, &logits, err);
    }
    sampler_destroy(&sampler);
    return status;
}

static enum cb_status keep(struct run *r, int64_t step, const int32_t *ids, int64_t n, struct cb_err *err) {
    char *text = NULL;
    size_t bytes;
    TRY(tokenizer_decode(r->data.tokenizer, &text, &bytes, ids, (size_t)n, true, err));
    enum cb_status status = metrics_sample(r->metrics, step, text, err);
    struct cb_progress p = {
        .verb = "sample", .done = step, .total = r->steps, .seconds_left = -1, .loss = -1, .valid_loss = -1, .text = text};
    if (status == CB_OK && !engine_progress(r->engine, &p)) r->go_on = false;
    free(text);
    return status;
}

enum cb_status run_sample(void *user, int64_t step, struct cb_err *err) {
    struct run *r = user;
    struct instance *in = &r->training.instance;
    int32_t ids[PROMPT + NEW];
    int64_t n, room = PROMPT + NEW;
    const int64_t learned = in->model->max_positions - instance_positions(in);
    if (in->model->learned_positions && learned < room) room = learned;
    TRY(prompt_choose(r, ids, &n, err));
    if (n >= room) return CB_OK;
    struct session *session;
    struct session_options so = {.model = in->model,
                                 .store = in->store,
                                 .ops = ops_table(),
                                 .plan = engine_plan_options(r->engine, r->training.planned_bytes),
                                 .pool = r->engine->pool,
                                 .prompt = n,
                                 .context = room,
                                 .total = room};
    TRY(instance_hook(in, &so.hook, err));
    struct cb_err failure = {0};
    enum cb_status status = session_create(&session, &so, &failure);
    // a sample is not worth the run
    if (status == CB_E_LIMIT || status == CB_E_UNSUPPORTED) {
        engine_warn(r->engine, "no sample at step %lld: %s", (long long)step, failure.message);
        return CB_OK;
    }
    if (status != CB_OK) FAIL(err, status, "sample: %s", failure.message);
    status = draw(r, session, ids, &n, room, err);
    session_destroy(&session);
    return status == CB_OK ? keep(r, step, ids, n, err) : status;
}
