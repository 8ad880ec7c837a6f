/* cb_generate: a prompt read into a session, tokens drawn one by one, text streamed as it becomes certain. */
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/instance.h"
#include "io/file.h"
#include "ops/ops.h"
#include "run/sample.h"
#include "run/session.h"
#include "run/stop.h"
#include "text/tokenizer.h"

#define USUAL_NEW 128
#define USUAL_PROMPT 128  // of a plan for no prompt

/* One call. */
struct generation {
    const struct cb_generate_options *o;
    struct cb_engine *engine;
    struct cb_generate_result *result;
    struct instance instance;
    struct tokenizer *tokenizer;  // NULL: ids in, ids out
    struct session *session;
    struct sampler *sampler;
    struct text_stream *stream;
    struct stopper stopper;
    int32_t *prompt;
    int64_t n_prompt, max_new, context;
    double begin;
};

/* ---- the prompt */

/* A model without any tokenizer has none; one that cannot be read is an error. */
static enum cb_status tokenizer_open(struct generation *g, struct cb_err *err) {
    if (files_have_tokenizer(g->o->model)) return files_load_tokenizer(&g->tokenizer, g->o->model, err);
    if (g->o->prompt && !g->o->ids) FAIL(err, CB_E_ARGUMENT, "%s: no tokenizer for a prompt of text; wanted one, or --ids", g->o->model);
    if (g->o->n_stop) FAIL(err, CB_E_ARGUMENT, "%s: no tokenizer for --stop; wanted one", g->o->model);
    return CB_OK;
}

/* What an empty prompt begins with; -1: nothing. */
static int64_t begin_id(const struct generation *g) {
    const struct model *m = g->instance.model;
    int64_t id = m->bos;
    if (id < 0 && g->tokenizer) id = tokenizer_bos(g->tokenizer);
    if (id < 0 && g->tokenizer) id = tokenizer_eos(g->tokenizer);
    if (id < 0 && m->n_eos) id = m->eos[0];
    return id;
}

static enum cb_status prompt_alloc(struct generation *g, int64_t n, struct cb_err *err) {
    if ((uint64_t)n > INT32_MAX) FAIL(err, CB_E_LIMIT, "prompt: %lld tokens; wanted fewer than 2^31", (long long)n);
    g->prompt = calloc((size_t)n + 1, sizeof *g->prompt);
    if (!g->prompt) FAIL(err, CB_E_MEMORY, "prompt: no memory for %lld tokens", (long long)n);
    g->n_prompt = n;
    return CB_OK;
}

static enum cb_status prompt_encode(struct generation *g, struct cb_err *err) {
    struct token_list list = {0};
    enum cb_status status = tokenizer_encode(g->tokenizer, &list, g->o->prompt, strlen(g->o->prompt), ENCODE_SPECIALS, err);
    if (status == CB_OK) status = prompt_alloc(g, (int64_t)list.n, err);
    for (size_t i = 0; status == CB_OK && i < list.n; i++) g->prompt[i] = list.token[i].id;
    token_list_deinit(&list);
    return status == CB_OK ? CB_OK : err_prefix(err, "prompt");
}

static enum cb_status prompt_make(struct generation *g, struct cb_err *err) {
    const struct cb_generate_options *o = g->o;
    const int64_t vocab = g->instance.model->vocab;
    if (o->ids) {
        TRY(prompt_alloc(g, o->n_ids, err));
        if (o->n_ids) memcpy(g->prompt, o->ids, (size_t)o->n_ids * sizeof *o->ids);
    } else if (o->prompt) {
        TRY(prompt_encode(g, err));
    } else {
        TRY(prompt_alloc(g, o->plan_only ? USUAL_PROMPT : 0, err));
    }
    if (!g->n_prompt) {
        int64_t id = begin_id(g);
        if (id < 0) FAIL(err, CB_E_ARGUMENT, "prompt: empty, and %s names no token that begins or ends text; wanted one or more", o->model);
        g->prompt[0] = (int32_t)id;  // there is room for one more
        g->n_prompt = 1;
    }
    for (int64_t i = 0; i < g->n_prompt; i++)
        if (g->prompt[i] < 0 || g->prompt[i] >= vocab)
            FAIL(err, CB_E_ARGUMENT, "prompt: id %d at position %lld; the model's vocabulary has %lld", g->prompt[i], (long long)i,
                 (long long)vocab);
    g->result->prompt_tokens = g->n_prompt;
    return CB_OK;
}

/* Positions of the cache: what was asked for, else all that is needed, within what the model has learned. */
static enum cb_status context_choose(struct generation *g, struct cb_err *err) {
    const struct model *m = g->instance.model;
    const int64_t top = m->learned_positions ? m->max_positions : INT32_MAX;
    if (g->o->max_new < 0 || g->o->max_new > INT32_MAX / 2)
        FAIL(err, CB_E_USAGE, "--max-new %lld: wanted 1 to 2^30", (long long)g->o->max_new);
    if (g->o->context < 0) FAIL(err, CB_E_USAGE, "--context %lld: wanted 1 or more", (long long)g->o->context);
    if (g->o->context > top)
        FAIL(err, CB_E_USAGE, "--context %lld: the model has %lld positions", (long long)g->o->context, (long long)top);
    g->max_new = g->o->max_new ? g->o->max_new : USUAL_NEW;
    if (m->family->encoder_decoder) {
        // the prompt is the source; the decoder's cache holds what it begins with and what is new
        g->context = g->o->context ? g->o->context : g->max_new + 2 < top ? g->max_new + 2 : top;
        return CB_OK;
    }
    g->context = g->n_prompt + g->max_new < top ? g->n_prompt + g->max_new : top;
    if (g->o->context) g->context = g->o->context;
    if (g->n_prompt >= g->context)
        FAIL(err, CB_E_LIMIT, "prompt: %lld tokens; the context has %lld positions and wants room for a new one", (long long)g->n_prompt,
             (long long)g->context);
    return CB_OK;
}

/* ---- the session */

static enum cb_status session_open(struct generation *g, struct cb_err *err) {
    struct instance *in = &g->instance;
    int64_t weights = instance_weight_bytes(in), held = instance_held_bytes(in);
    struct session_options so = {.model = in->model,
                                 .store = in->store,
                                 .ops = ops_table(),
                                 .plan = engine_plan_options(g->engine, held),
                                 .pool = g->engine->pool,
                                 .prompt = g->n_prompt,
                                 .context = g->context,
                                 .total = g->n_prompt + g->max_new,
                                 .plan_only = g->o->plan_only || !g->engine->backend.runs};
    TRY(engine_check_held(g->engine, held, "weights and the program", err));
    if (in->list.n) so.hook = module_hook(&in->list);
    enum cb_status status = session_create(&g->session, &so, err);
    if (status == CB_E_LIMIT && so.plan.memory_limit)
        err_prefix(err, "--memory %lld, of which weights and program take %lld", (long long)g->engine->options.memory_limit,
                   (long long)held);
    TRY(status);
    struct session_memory memory = session_memory(g->session);
    g->result->weights_bytes = weights;
    g->result->cache_bytes = memory.cache;
    g->result->activations_bytes = memory.activations + sampler_bytes(in->model->vocab);
    g->result->planned_bytes = held + memory.cache + g->result->activations_bytes;
    return CB_OK;
}

static enum cb_status helpers_open(struct generation *g, struct cb_err *err) {
    const struct cb_generate_options *o = g->o;
    struct sample_options so = {.greedy = o->greedy,
                                .temperature = o->temperature,
                                .top_p = o->top_p,
                                .min_p = o->min_p,
                                .repeat_penalty = o->repeat_penalty,
                                .top_k = o->top_k,
                                .seed = g->engine->options.seed};
    TRY(sampler_create(&g->sampler, g->instance.model->vocab, &so, err));
    for (int64_t i = 0; i < g->n_prompt; i++) sampler_see(g->sampler, g->prompt[i]);
    g->stopper = (struct stopper){.stop = o->stop, .n_stop = o->n_stop};
    if (g->tokenizer) TRY(text_stream_create(&g->stream, g->tokenizer, true, err));
    g->result->ids = calloc((size_t)g->max_new + 1, sizeof *g->result->ids);
    if (!g->result->ids) FAIL(err, CB_E_MEMORY, "generate: no memory for %lld ids", (long long)g->max_new);
    return CB_OK;
}

/* ---- the answer */

/* n bytes of text to the caller; *go_on false: enough. Pieces end with a NUL for the call. */
static enum cb_status give_text(struct generation *g, const char *text, size_t n, int32_t id, bool *go_on, struct cb_err *err) {
    if (!g->o->piece || !n) return CB_OK;
    char *piece = strndup(text, n);
    if (!piece) FAIL(err, CB_E_MEMORY, "generate: no memory for %zu bytes of text", n);
    *go_on = g->o->piece(g->o->user, piece, id);
    free(piece);
    return CB_OK;
}

static enum cb_status give_token(struct generation *g, int32_t id, bool *go_on, struct cb_err *err) {
    const char *text, *out;
    size_t n, n_out;
    if (!g->stream) {
        if (g->o->piece) *go_on = g->o->piece(g->o->user, NULL, id);
        return CB_OK;
    }
    TRY(text_stream_push(g->stream, id, &text, &n, err));
    TRY(stopper_add(&g->stopper, text, n, &out, &n_out, err));
    return give_text(g, out, n_out, id, go_on, err);
}

/* What the tokenizer and the stop strings held back. */
static enum cb_status give_rest(struct generation *g, struct cb_err *err) {
    const char *text, *out;
    size_t n, n_out;
    bool go_on = strcmp(g->result->stopped_by, "caller") != 0, ignored = true;
    int32_t id = g->result->n_ids ? g->result->ids[g->result->n_ids - 1] : 0;
    if (!g->stream) return CB_OK;
    TRY(text_stream_finish(g->stream, &text, &n, err));
    TRY(stopper_add(&g->stopper, text, n, &out, &n_out, err));
    if (go_on) TRY(give_text(g, out, n_out, id, &go_on, err));
    stopper_finish(&g->stopper, &out, &n_out);
    if (go_on) TRY(give_text(g, out, n_out, id, &ignored, err));
    if (g->stopper.is_stopped && go_on) g->result->stopped_by = "stop";
    g->result->text = g->stopper.text;
    g->stopper.text = NULL;
    return CB_OK;
}

static bool is_end(const struct generation *g, int32_t id) {
    const struct model *m = g->instance.model;
    for (int i = 0; i < m->n_eos && !g->o->ignore_eos; i++)
        if (m->eos[i] == id) return true;
    return false;
}

/* Draws until something ends it; logits: after the prompt. */
static enum cb_status answer(struct generation *g, const float *logits, struct cb_err *err) {
    struct cb_generate_result *r = g->result;
    bool go_on = true;
    r->stopped_by = NULL;
    while (!r->stopped_by) {
        int32_t id;
        TRY(sampler_pick(g->sampler, logits, g->n_prompt + r->n_ids, &id, err));
        sampler_see(g->sampler, id);
        r->ids[r->n_ids++] = id;
        if (r->n_ids == 1) r->first_token_s = engine_now() - g->begin;
        bool is_last = is_end(g, id);
        if (!is_last) TRY(give_token(g, id, &go_on, err));
        if (is_last)
            r->stopped_by = "eos";
        else if (g->stopper.is_stopped)
            r->stopped_by = "stop";
        else if (!go_on)
            r->stopped_by = "caller";
        else if (r->n_ids == g->max_new)
            r->stopped_by = "length";
        else
            TRY(session_push(g->session, &id, 1, &logits, err));
    }
    return give_rest(g, err);
}

static enum cb_status generate(struct generation *g, struct cb_err *err) {
    const float *logits;
    TRY(instance_open(&g->instance, g->engine, g->o->model, g->o->modules, err));
    TRY(tokenizer_open(g, err));
    TRY(prompt_make(g, err));
    TRY(context_choose(g, err));
    TRY(session_open(g, err));
    TRY(helpers_open(g, err));
    if (g->o->plan_only) return CB_OK;
    double begin = engine_now();
    TRY(session_push(g->session, g->prompt, g->n_prompt, &logits, err));
    double middle = engine_now();
    TRY(answer(g, logits, err));
    double end = engine_now();
    g->result->prefill_tokens_per_s = middle > begin ? (double)g->n_prompt / (middle - begin) : 0;
    g->result->decode_tokens_per_s = g->result->n_ids > 1 && end > middle ? (double)(g->result->n_ids - 1) / (end - middle) : 0;
    if (session_has_forgotten(g->session))
        engine_warn(g->engine, "the context of %lld positions was full: the older half of the text was forgotten", (long long)g->context);
    return CB_OK;
}

enum cb_status cb_generate(struct cb_engine *engine, const struct cb_generate_options *options, struct cb_generate_result *result,
                           struct cb_err *err) {
    struct generation g = {.o = options, .engine = engine, .result = result, .begin = engine_now()};
    *result = (struct cb_generate_result){0};
    enum cb_status status = generate(&g, err);
    session_destroy(&g.session);
    sampler_destroy(&g.sampler);
    text_stream_destroy(&g.stream);
    stopper_deinit(&g.stopper);
    tokenizer_destroy(&g.tokenizer);
    instance_close(&g.instance);
    free(g.prompt);
    if (status != CB_OK) {
        free(result->text);
        free(result->ids);
        result->text = NULL;
        result->ids = NULL;
        result->n_ids = 0;
    }
    return status;
}
