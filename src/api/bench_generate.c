/* bench generate: reading a random prompt and writing tokens after it, timed. */
#include <stdlib.h>

#include "api/bench.h"
#include "api/instance.h"
#include "base/rng.h"
#include "ops/ops.h"
#include "run/sample.h"
#include "run/session.h"

struct timed {
    struct instance instance;
    struct session *session;
    struct sampler *sampler;
    int32_t *prompt;
    int64_t n_prompt, n_new;
};

/* Bytes of weights that one token reads whole: tables that only give a row do not count. */
static int64_t bytes_a_token(const struct instance *in) {
    const struct model *m = in->model;
    int64_t bytes = 0;
    for (int i = 0; i < m->n_weights; i++) {
        const struct model_weight *w = &m->weights[i];
        const struct store_entry *entry = store_find(in->store, w->name);
        bool is_table = w->type.rank == 2 && m->learned_positions && w->type.dim[0] == m->max_positions && w->type.dim[1] == m->n_embd;
        const struct model_weight *embedding = model_find_weight(m, m->embedding);
        if (entry && !is_table && (m->tied || w != embedding)) bytes += entry->bytes;
    }
    return bytes;
}

static enum cb_status timed_open(struct timed *t, struct cb_engine *engine, const struct cb_bench_options *o, struct cb_bench_result *r,
                                 struct cb_err *err) {
    const struct sample_options so = {.greedy = true};
    TRY(instance_open(&t->instance, engine, o->model, NULL, err));
    struct instance *in = &t->instance;
    int64_t held = instance_held_bytes(in), total = t->n_prompt + t->n_new;
    struct session_options options = {.model = in->model,
                                      .store = in->store,
                                      .ops = ops_table(),
                                      .plan = engine_plan_options(engine, held),
                                      .pool = engine->pool,
                                      .prompt = t->n_prompt,
                                      .context = total,
                                      .total = total};
    TRY(engine_check_runs(engine, err));
    TRY(session_create(&t->session, &options, err));
    TRY(sampler_create(&t->sampler, in->model->vocab, &so, err));
    struct session_memory memory = session_memory(t->session);
    r->planned_mib = (double)(held + memory.cache + memory.activations + sampler_bytes(in->model->vocab, 0)) / 1048576;
    t->prompt = calloc((size_t)t->n_prompt, sizeof *t->prompt);
    if (!t->prompt) FAIL(err, CB_E_MEMORY, "bench: no memory for %lld tokens", (long long)t->n_prompt);
    struct rng rng = rng_make(engine->options.seed, rng_hash("bench"));
    for (int64_t i = 0; i < t->n_prompt; i++) t->prompt[i] = (int32_t)rng_below(&rng, (uint64_t)in->model->vocab);
    return CB_OK;
}

/* One answer: seconds for the prompt and its first token, and for the n - 1 tokens after it. */
static enum cb_status run_once(struct timed *t, int64_t n, double *prefill, double *decode, struct cb_err *err) {
    const float *logits;
    int32_t id;
    session_reset(t->session);
    double begin = engine_now();
    TRY(session_push(t->session, t->prompt, t->n_prompt, &logits, err));
    TRY(sampler_pick(t->sampler, logits, t->n_prompt, &id, err));
    double middle = engine_now();
    for (int64_t i = 1; i < n; i++) {
        TRY(session_push(t->session, &id, 1, &logits, err));
        TRY(sampler_pick(t->sampler, logits, t->n_prompt + i, &id, err));
    }
    *prefill = middle - begin;
    *decode = engine_now() - middle;
    return CB_OK;
}

static enum cb_status measure(struct timed *t, const struct cb_bench_options *o, struct cb_bench_result *r, struct cb_err *err) {
    double prefill, decode, best_prefill = 1e30, best_decode = 1e30;
    TRY(run_once(t, 2, &prefill, &decode, err));  // touches all memory for the first time
    for (int i = 0; i < 3; i++) {
        TRY(run_once(t, 1, &prefill, &decode, err));
        if (prefill < best_prefill) best_prefill = prefill;
    }
    if (o->profile) session_profile(t->session, true);
    for (int i = 0; i < 2; i++) {
        TRY(run_once(t, t->n_new, &prefill, &decode, err));
        if (decode < best_decode) best_decode = decode;
    }
    r->prefill_tokens_per_s = (double)t->n_prompt / best_prefill;
    r->decode_tokens_per_s = t->n_new > 1 ? (double)(t->n_new - 1) / best_decode : 0;
    r->read_gb_per_s = (double)bytes_a_token(&t->instance) * r->decode_tokens_per_s / 1e9;
    r->peak_mib = (double)engine_peak_bytes() / 1048576;
    return o->profile ? session_profile_report(t->session, &r->profile, err) : CB_OK;
}

enum cb_status bench_generate(struct cb_engine *engine, const struct cb_bench_options *o, struct cb_bench_result *r, struct cb_err *err) {
    struct timed t = {.n_prompt = o->prompt ? o->prompt : 128, .n_new = o->new_tokens ? o->new_tokens : 64};
    if (t.n_prompt < 1 || t.n_new < 1 || t.n_prompt > INT32_MAX / 2 || t.n_new > INT32_MAX / 2)
        FAIL(err, CB_E_USAGE, "--prompt %lld --new %lld: wanted 1 to 2^30", (long long)t.n_prompt, (long long)t.n_new);
    enum cb_status status = timed_open(&t, engine, o, r, err);
    if (status == CB_OK) status = measure(&t, o, r, err);
    session_destroy(&t.session);
    sampler_destroy(&t.sampler);
    instance_close(&t.instance);
    free(t.prompt);
    return status;
}
