/* cb_generate, cb_generator_*: a prompt read into a session, tokens drawn one by one, text streamed as it becomes certain. */
#include <stdlib.h>
#include <string.h>

#include "api/chat.h"
#include "api/files.h"
#include "api/generation.h"
#include "api/instance.h"
#include "io/file.h"
#include "ops/ops.h"
#include "run/sample.h"
#include "run/session.h"
#include "run/stop.h"
#include "text/tokenizer.h"

#define USUAL_NEW 128
#define USUAL_PROMPT 128  // of a plan for no prompt
#define USUAL_CHAT 1024  // positions that a conversation may grow by
#define CHAT_STRETCH 256

/* A loaded model. */
struct cb_generator {
    struct cb_engine *engine;
    char *model, *modules, *chat_template;
    int64_t wanted_context;  // 0: by the prompt
    struct instance instance;
    struct generation_rules rules;
    struct tokenizer *tokenizer;  // NULL: ids in, ids out
    struct chat *chat;  // opened with the first conversation
    char *end_mark;  // what ends an answer in a conversation
    struct session *session;
    int64_t context, stretch;  // of the session
    int32_t *read;  // what the session has read: n_read of room
    int64_t n_read, room;
};

/* One answer. */
struct generation {
    struct cb_generator *from;
    const struct cb_generate_options *o;
    struct cb_engine *engine;
    struct cb_generate_result *result;
    struct sampler *sampler;
    struct text_stream *stream;
    struct stopper stopper;
    const char **stop;
    int32_t *prompt;
    int64_t n_prompt, max_new;
    int32_t end_id;  // a token that ends an answer in a conversation; -1: none
    double begin;
};

/* ---- the prompt */

/* A model without any tokenizer has none; one that cannot be read is an error. */
static enum cb_status tokenizer_check(const struct generation *g, struct cb_err *err) {
    const char *model = g->from->model;
    if (g->from->tokenizer) return CB_OK;
    if (g->o->messages) FAIL(err, CB_E_ARGUMENT, "%s: no tokenizer for a conversation; wanted one", model);
    if (g->o->prompt && !g->o->ids) FAIL(err, CB_E_ARGUMENT, "%s: no tokenizer for a prompt of text; wanted one, or --ids", model);
    if (g->o->n_stop) FAIL(err, CB_E_ARGUMENT, "%s: no tokenizer for --stop; wanted one", model);
    return CB_OK;
}

/* What an empty prompt begins with; -1: nothing. */
static int64_t begin_id(const struct generation *g) {
    const struct model *m = g->from->instance.model;
    const struct tokenizer *t = g->from->tokenizer;
    int64_t id = m->bos;
    if (id < 0 && t) id = tokenizer_bos(t);
    if (id < 0 && t) id = tokenizer_eos(t);
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

static enum cb_status prompt_encode(struct generation *g, const char *text, size_t n, unsigned flags, struct cb_err *err) {
    struct token_list list = {0};
    enum cb_status status = tokenizer_encode(g->from->tokenizer, &list, text, n, flags, err);
    if (status == CB_OK) status = prompt_alloc(g, (int64_t)list.n, err);
    for (size_t i = 0; status == CB_OK && i < list.n; i++) g->prompt[i] = list.token[i].id;
    // a source ends as it does in training, whether the tokenizer sees to that or not
    const struct model *m = g->from->instance.model;
    if (status == CB_OK && m->family->encoder_decoder && m->n_eos && (!g->n_prompt || g->prompt[g->n_prompt - 1] != m->eos[0]))
        g->prompt[g->n_prompt++] = (int32_t)m->eos[0];
    token_list_deinit(&list);
    return status == CB_OK ? CB_OK : err_prefix(err, "prompt");
}

/* What ends an answer in a conversation is a token of its own, or a string to look for. */
static enum cb_status end_mark_use(struct generation *g, struct cb_err *err) {
    struct token_list list = {0};
    const char *mark = g->from->end_mark;
    if (!*mark) return CB_OK;
    enum cb_status status = tokenizer_encode(g->from->tokenizer, &list, mark, strlen(mark), 0, err);
    if (status == CB_OK && list.n && tokenizer_is_special(g->from->tokenizer, list.token[0].id))
        g->end_id = list.token[0].id;
    else if (status == CB_OK)
        g->stop[g->stopper.n_stop++] = mark;
    token_list_deinit(&list);
    return status;
}

/* The conversation as the template writes it, which holds all marks that it needs. */
static enum cb_status prompt_chat(struct generation *g, struct cb_err *err) {
    struct cb_generator *from = g->from;
    char *text;
    size_t n;
    if (!from->chat) TRY(chat_need(&from->chat, from->model, from->tokenizer, from->chat_template, err));
    if (!from->end_mark) TRY(chat_end_mark(&from->end_mark, from->chat, err));
    TRY(chat_prompt(&text, &n, from->chat, g->o->messages, g->o->messages_name ? g->o->messages_name : "conversation", err));
    enum cb_status status = prompt_encode(g, text, n, 0, err);
    free(text);
    TRY(status);
    return end_mark_use(g, err);
}

static enum cb_status prompt_make(struct generation *g, struct cb_err *err) {
    const struct cb_generate_options *o = g->o;
    const int64_t vocab = g->from->instance.model->vocab;
    if (o->ids) {
        TRY(prompt_alloc(g, o->n_ids, err));
        if (o->n_ids) memcpy(g->prompt, o->ids, (size_t)o->n_ids * sizeof *o->ids);
    } else if (o->messages) {
        TRY(prompt_chat(g, err));
    } else if (o->prompt) {
        TRY(prompt_encode(g, o->prompt, strlen(o->prompt), ENCODE_SPECIALS, err));
    } else {
        TRY(prompt_alloc(g, o->plan_only ? USUAL_PROMPT : 0, err));
    }
    if (!g->n_prompt) {
        int64_t id = begin_id(g);
        if (id < 0)
            FAIL(err, CB_E_ARGUMENT, "prompt: empty, and %s names no token that begins or ends text; wanted one or more", g->from->model);
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

/* Positions of the cache: what was asked for, else all that is needed, within what the model has learned; a conversation gets room to go on. */
static enum cb_status context_choose(struct generation *g, int64_t *context, struct cb_err *err) {
    const struct model *m = g->from->instance.model;
    const int64_t learned = m->max_positions - instance_positions(&g->from->instance);
    const int64_t top = m->learned_positions ? learned : INT32_MAX, asked = g->from->wanted_context;
    if (g->o->max_new < 0 || g->o->max_new > INT32_MAX / 2)
        FAIL(err, CB_E_USAGE, "--max-new %lld: wanted 1 to 2^30", (long long)g->o->max_new);
    if (asked < 0) FAIL(err, CB_E_USAGE, "--context %lld: wanted 1 or more", (long long)asked);
    if (asked > top) FAIL(err, CB_E_USAGE, "--context %lld: the model has %lld positions", (long long)asked, (long long)top);
    const int64_t usual = g->from->rules.max_new ? g->from->rules.max_new : USUAL_NEW;
    g->max_new = g->o->max_new ? g->o->max_new : usual;
    if (m->family->encoder_decoder) {
        // the prompt is the source; the decoder's cache holds what it begins with and what is new
        *context = asked ? asked : g->max_new + 2 < top ? g->max_new + 2 : top;
        return CB_OK;
    }
    int64_t need = g->n_prompt + g->max_new, room = g->o->messages ? need + need / 2 + USUAL_CHAT : need;
    *context = asked ? asked : room < top ? room : top;
    if (g->n_prompt >= *context)
        FAIL(err, CB_E_LIMIT, "prompt: %lld tokens; the context has %lld positions and wants room for a new one", (long long)g->n_prompt,
             (long long)*context);
    return CB_OK;
}

/* ---- the session */

static enum cb_status session_open(struct generation *g, int64_t context, struct cb_err *err) {
    struct cb_generator *from = g->from;
    struct instance *in = &from->instance;
    int64_t held = instance_held_bytes(in);
    bool chat = g->o->messages && !in->model->family->encoder_decoder;
    // turns that come later are read in stretches of this size
    from->stretch = chat && g->n_prompt < CHAT_STRETCH && context > CHAT_STRETCH ? CHAT_STRETCH : g->n_prompt;
    struct session_options so = {.model = in->model,
                                 .store = in->store,
                                 .ops = ops_table(),
                                 .plan = engine_plan_options(g->engine, held),
                                 .pool = g->engine->pool,
                                 .prompt = from->stretch,
                                 .context = context,
                                 .total = chat ? context : g->n_prompt + g->max_new,
                                 .plan_only = g->o->plan_only || !g->engine->backend.runs};
    TRY(engine_check_held(g->engine, held, "weights and the program", err));
    TRY(instance_hook(in, &so.hook, err));
    enum cb_status status = session_create(&from->session, &so, err);
    if (status == CB_E_LIMIT && so.plan.memory_limit)
        err_prefix(err, "--memory %lld, of which weights and program take %lld", (long long)g->engine->options.memory_limit,
                   (long long)held);
    TRY(status);
    from->context = context;
    from->n_read = 0;
    return CB_OK;
}

/* Tokens whose order the sampler keeps: prompt, what a decoder begins with, answer. */
static int64_t most_seen(const struct generation *g) { return g->from->rules.no_repeat_ngram ? g->n_prompt + g->max_new + 2 : 0; }

static void session_count(const struct generation *g) {
    struct instance *in = &g->from->instance;
    struct session_memory memory = session_memory(g->from->session);
    g->result->weights_bytes = instance_weight_bytes(in);
    g->result->cache_bytes = memory.cache;
    g->result->activations_bytes = memory.activations + sampler_bytes(in->model->vocab, most_seen(g));
    g->result->planned_bytes = instance_held_bytes(in) + memory.cache + g->result->activations_bytes;
}

/* Ids that the session has read; where memory ran out for the list, nothing counts as read the next time. */
static void read_note(struct cb_generator *from, const int32_t *ids, int64_t n) {
    if (from->n_read < 0) return;
    if (from->n_read + n > from->room) {
        int64_t room = 2 * (from->n_read + n) + 64;
        int32_t *more = realloc(from->read, (size_t)room * sizeof *more);
        if (!more) {
            from->n_read = -1;
            return;
        }
        from->read = more, from->room = room;
    }
    memcpy(from->read + from->n_read, ids, (size_t)n * sizeof *ids);
    from->n_read += n;
}

static enum cb_status push(struct generation *g, const int32_t *ids, int64_t n, const float **logits, struct cb_err *err) {
    for (int64_t at = 0; at < n; at += g->from->stretch) {
        int64_t some = n - at < g->from->stretch ? n - at : g->from->stretch;
        TRY(session_push(g->from->session, ids + at, some, logits, err));
        read_note(g->from, ids + at, some);
    }
    return CB_OK;
}

/* A session that has room for prompt and answer, and what of the prompt it has read already; all else is forgotten. */
static enum cb_status session_ready(struct generation *g, int64_t *known, struct cb_err *err) {
    struct cb_generator *from = g->from;
    int64_t context = 0;
    TRY(context_choose(g, &context, err));
    bool fits = from->session && (g->n_prompt + g->max_new <= from->context || from->context == context);
    bool begins = from->session && from->n_read > 0 && from->n_read < g->n_prompt && !session_has_forgotten(from->session) &&
                  !from->instance.model->family->encoder_decoder &&
                  !memcmp(from->read, g->prompt, (size_t)from->n_read * sizeof *g->prompt);
    *known = fits && begins ? from->n_read : 0;
    if (from->instance.model->family->encoder_decoder && from->session && g->n_prompt > from->stretch) fits = false;
    if (from->session && !fits) session_destroy(&from->session);
    if (!from->session) TRY(session_open(g, context, err));
    if (!*known) session_reset(from->session), from->n_read = 0;
    session_count(g);
    return CB_OK;
}

static enum cb_status helpers_open(struct generation *g, struct cb_err *err) {
    struct sample_options so = generation_sampling(&g->from->rules, g->o);
    so.no_repeat_ngram = g->from->rules.no_repeat_ngram;
    so.most_seen = most_seen(g);
    so.seed = g->engine->options.seed;
    TRY(sampler_create(&g->sampler, g->from->instance.model->vocab, &so, err));
    // of two stacks it is the decoder's own tokens that count
    const struct model *m = g->from->instance.model;
    const int64_t begins[] = {m->decoder_start, m->forced_bos};
    for (int i = 0; m->family->encoder_decoder && i < 2; i++)
        if (begins[i] >= 0) sampler_see(g->sampler, (int32_t)begins[i]);
    for (int64_t i = 0; !m->family->encoder_decoder && i < g->n_prompt; i++) sampler_see(g->sampler, g->prompt[i]);
    if (g->from->tokenizer) TRY(text_stream_create(&g->stream, g->from->tokenizer, true, err));
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
    const struct model *m = g->from->instance.model;
    if (id == g->end_id && !g->o->ignore_eos) return true;
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
        const int64_t forced = g->from->rules.forced_eos;
        int32_t id = (int32_t)forced;
        if (forced < 0 || g->o->ignore_eos || r->n_ids + 1 < g->max_new)
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
            TRY(push(g, &id, 1, &logits, err));
    }
    return give_rest(g, err);
}

static enum cb_status stops_copy(struct generation *g, struct cb_err *err) {
    if (g->o->n_stop < 0 || !(g->stop = calloc((size_t)g->o->n_stop + 1, sizeof *g->stop)))
        FAIL(err, CB_E_MEMORY, "generate: out of memory");
    for (int i = 0; i < g->o->n_stop; i++) g->stop[i] = g->o->stop[i];
    g->stopper = (struct stopper){.stop = g->stop, .n_stop = g->o->n_stop};
    return CB_OK;
}

static enum cb_status generate(struct generation *g, struct cb_err *err) {
    const float *logits;
    int64_t known;
    TRY(tokenizer_check(g, err));
    TRY(stops_copy(g, err));
    TRY(prompt_make(g, err));
    TRY(session_ready(g, &known, err));
    TRY(helpers_open(g, err));
    if (g->o->plan_only) return CB_OK;
    double begin = engine_now();
    TRY(push(g, g->prompt + known, g->n_prompt - known, &logits, err));
    double middle = engine_now();
    TRY(answer(g, logits, err));
    double end = engine_now();
    g->result->prefill_tokens_per_s = middle > begin ? (double)(g->n_prompt - known) / (middle - begin) : 0;
    g->result->decode_tokens_per_s = g->result->n_ids > 1 && end > middle ? (double)(g->result->n_ids - 1) / (end - middle) : 0;
    if (session_has_forgotten(g->from->session))
        engine_warn(g->engine, "the context of %lld positions was full: the older half of the text was forgotten",
                    (long long)g->from->context);
    return CB_OK;
}

/* ---- the calls */

static enum cb_status copy_name(char **out, const char *name, struct cb_err *err) {
    *out = NULL;
    if (!name) return CB_OK;
    if (!(*out = strdup(name))) FAIL(err, CB_E_MEMORY, "generate: out of memory");
    return CB_OK;
}

static enum cb_status generator_load(struct cb_generator *g, const struct cb_generate_options *o, struct cb_err *err) {
    TRY(copy_name(&g->model, o->model, err));
    TRY(copy_name(&g->modules, o->modules, err));
    TRY(copy_name(&g->chat_template, o->chat_template, err));
    TRY(instance_open(&g->instance, g->engine, g->model, g->modules, err));
    TRY(generation_rules_read(&g->rules, g->instance.model, g->engine, err));
    return files_have_tokenizer(g->model) ? files_load_tokenizer(&g->tokenizer, g->model, err) : CB_OK;
}

enum cb_status cb_generator_open(struct cb_generator **out, struct cb_engine *engine, const struct cb_generate_options *options,
                                 struct cb_err *err) {
    *out = NULL;
    struct cb_generator *g = calloc(1, sizeof *g);
    if (!g) FAIL(err, CB_E_MEMORY, "generate: out of memory");
    g->engine = engine;
    g->wanted_context = options->context;
    enum cb_status status = generator_load(g, options, err);
    if (status != CB_OK)
        cb_generator_close(&g);
    else
        *out = g;
    return status;
}

void cb_generator_close(struct cb_generator **generator) {
    struct cb_generator *g = generator ? *generator : NULL;
    if (!g) return;
    session_destroy(&g->session);
    chat_destroy(&g->chat);
    tokenizer_destroy(&g->tokenizer);
    instance_close(&g->instance);
    free(g->model);
    free(g->modules);
    free(g->chat_template);
    free(g->end_mark);
    free(g->read);
    free(g);
    *generator = NULL;
}

enum cb_status cb_generator_answer(struct cb_generator *generator, const struct cb_generate_options *options,
                                   struct cb_generate_result *result, struct cb_err *err) {
    struct generation g = {
        .from = generator, .o = options, .engine = generator->engine, .result = result, .end_id = -1, .begin = engine_now()};
    *result = (struct cb_generate_result){0};
    enum cb_status status = generate(&g, err);
    sampler_destroy(&g.sampler);
    text_stream_destroy(&g.stream);
    stopper_deinit(&g.stopper);
    free(g.stop);
    free(g.prompt);
    if (status != CB_OK) {
        // what the session holds is not known any more
        generator->n_read = 0;
        free(result->text);
        free(result->ids);
        result->text = NULL;
        result->ids = NULL;
        result->n_ids = 0;
    }
    return status;
}

enum cb_status cb_generate(struct cb_engine *engine, const struct cb_generate_options *options, struct cb_generate_result *result,
                           struct cb_err *err) {
    struct cb_generator *g;
    *result = (struct cb_generate_result){0};
    TRY(cb_generator_open(&g, engine, options, err));
    enum cb_status status = cb_generator_answer(g, options, result, err);
    cb_generator_close(&g);
    return status;
}
