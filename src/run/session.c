/* Sessions: prompts in stretches through one plan, tokens through another, both on the same cache; read again, or whole, where a cache would be stale. */
#include "run/session.h"

#include <stdlib.h>
#include <string.h>

#define STRETCH 512  // tokens of a prompt that are read at once, at most

/* One graph of the model and its plan. */
struct reader {
    struct cb_graph *graph;
    struct plan *plan;
    int64_t tokens;
    int32_t *ids, *start, *last, *mask;  // inputs; start NULL: without a cache; mask: of an encoder-decoder's source
    const float *logits;
};

struct session {
    struct session_options o;
    struct store *cache;
    int64_t positions;  // of the cache: context, or what a rope that depends on the length leaves of it
    struct session_memory other;  // of the longer cache that such a rope may want later
    struct reader prompt, token, whole;  // prompt.plan NULL: prompts of one token; whole: the last one made past exact_cache
    struct reader first;  // virtual tokens of modules, which the cache begins with, and one token; no plan: there are none
    struct reader source;  // of an encoder-decoder: the prompt goes through it, what follows is the decoder's
    bool has_source;
    int32_t *ids;  // everything read, room for context
    int64_t n, n_cached;  // tokens read; of them in the cache
    bool has_forgotten;
};

/* ---- plans */
static struct session_memory memory_now(const struct session *s);

/* Memory that is left of the limit after caches and plans so far; 0: no limit. */
static int64_t limit_left(const struct session *s) {
    int64_t limit = s->o.plan.memory_limit;
    struct session_memory m = memory_now(s);
    int64_t left = limit - m.cache - m.activations;
    return limit ? (left > 0 ? left : 1) : 0;
}

static void *data_of(struct plan *plan, const char *name) {
    int slot = plan_find(plan, name);
    return slot < 0 ? NULL : plan_data(plan, slot);
}

static void reader_close(struct reader *r) {
    plan_destroy(&r->plan);
    graph_destroy(&r->graph);
    *r = (struct reader){0};
}

/* Rows of the cache that virtual tokens take; of an encoder-decoder they are the source's. */
static int64_t rows_before(const struct session *s) { return s->o.model->family->encoder_decoder ? 0 : s->o.hook.n_rows; }

/* Positions before the first token. */
static int64_t positions_before(const struct session *s) { return rows_before(s) + s->o.hook.n_past; }

/* positions 0: a whole pass without a cache. */
static enum cb_status reader_open(struct session *s, struct reader *r, int64_t tokens, int64_t positions, struct cb_err *err) {
    struct model_io io = {.batch = 1, .tokens = tokens, .want_logits = true, .last_only = true, .cache = positions};
    io.no_rows = positions && r != &s->first;
    struct plan_options options = s->o.plan;
    const bool has_source = s->o.model->family->encoder_decoder, is_source = r == &s->source;
    if (has_source) {
        io.memory = s->o.prompt;
        io.attention_mask = true;
        io.decoder_tokens = is_source ? 0 : tokens;
        io.want_logits = io.last_only = !is_source;
        if (!is_source) io.tokens = 1;
    }
    reader_close(r);
    r->tokens = tokens;
    TRY(graph_create(&r->graph, s->o.ops, err));
    struct nn nn = nn_make(r->graph);
    nn.hook = s->o.hook;
    nn.param_dtype = store_dtype;
    nn.param_turned = store_turned;
    nn.dtype_user = (void *)(uintptr_t)s->o.store;
    TRY(model_build(s->o.model, &nn, &io, err));
    options.memory_limit = limit_left(s);
    TRY(plan_create(&r->plan, r->graph, &options, err));
    if (s->o.plan_only) return CB_OK;
    TRY(store_bind(s->o.store, s->cache, true, r->plan, err));
    r->ids = data_of(r->plan, has_source && !is_source ? "decoder_input_ids" : "input_ids");
    r->mask = data_of(r->plan, "attention_mask");
    r->start = data_of(r->plan, "start");
    r->last = data_of(r->plan, "last");
    r->logits = data_of(r->plan, "logits");
    if (is_source && r->ids && r->mask) return CB_OK;
    if (!r->ids || !r->last || !r->logits) FAIL(err, CB_E_UNSUPPORTED, "session: the model takes no tokens or gives no logits");
    return CB_OK;
}

static int64_t cache_bytes(const struct session *s) {
    const struct model *m = s->o.model;
    int64_t rows = s->positions + s->o.hook.n_past + (m->family->encoder_decoder ? s->o.prompt + s->o.hook.n_rows : 0);
    return rows * m->n_layer * m->n_kv_head * m->head_dim * 2 * (int64_t)sizeof(float);
}

/* What a decoder begins with: its own token, else what begins text. */
static int64_t decoder_start(const struct model *m) {
    int64_t id = m->decoder_start >= 0 ? m->decoder_start : m->bos;
    return id < m->vocab ? id : -1;
}

static enum cb_status options_check(const struct session_options *o, struct cb_err *err) {
    const struct model *m = o->model;
    const int64_t past = o->hook.n_past, rows = o->hook.n_rows, source = m->family->encoder_decoder ? rows : 0;
    const int64_t before = past + rows - source;
    if (!m->class->head->generates)
        FAIL(err, CB_E_UNSUPPORTED, "%s: gives no next token; wanted a model with a language head", m->class->name);
    if (m->family->encoder_decoder) {
        if (decoder_start(m) < 0) FAIL(err, CB_E_FORMAT, "%s: decoder_start_token_id: found none; wanted one", m->class->name);
        if (o->prompt < 1 || o->prompt > INT32_MAX || o->context < 3 || o->context > INT32_MAX)
            FAIL(err, CB_E_ARGUMENT, "context: %lld positions, a source of %lld tokens; wanted 3 or more, and 1 or more",
                 (long long)o->context, (long long)o->prompt);
        if (m->learned_positions && o->prompt + source > m->max_positions)
            FAIL(err, CB_E_LIMIT, "source: %lld tokens; the model has learned %lld positions%s", (long long)(o->prompt + source),
                 (long long)m->max_positions, source ? ", the module's tokens take some" : "");
    } else if (o->prompt < 1 || o->context > INT32_MAX || o->prompt >= o->context)
        FAIL(err, CB_E_ARGUMENT, "context: %lld positions for a prompt of %lld tokens; wanted room for one more, at most 2^31 - 1",
             (long long)o->context, (long long)o->prompt);
    if (before && m->exact_cache <= before)
        FAIL(err, CB_E_UNSUPPORTED, "%s: positions change with the length from %lld on, modules take %lld before the first token",
             m->class->name, (long long)m->exact_cache, (long long)before);
    if (o->context > INT32_MAX - before || (m->learned_positions && o->context + before > m->max_positions))
        FAIL(err, CB_E_LIMIT, "context: %lld positions%s; the model has learned %lld", (long long)(o->context + before),
             before ? ", those of modules among them" : "", (long long)m->max_positions);
    return CB_OK;
}

/* Rows of the cache, virtual tokens among them, that n tokens want: all, unless the rope's table changes on the way. */
static int64_t positions_for(const struct session *s, int64_t n) {
    const struct model *m = s->o.model;
    const int64_t before = positions_before(s), exact = m->exact_cache;
    bool is_short = s->o.context + before > exact && (n + before <= exact || !m->exact_again);
    return is_short ? exact - s->o.hook.n_past : s->o.context + rows_before(s);
}

/* An empty cache of so many positions, and the plans that fill it. */
static enum cb_status span(struct session *s, int64_t positions, struct cb_err *err) {
    int64_t limit = s->o.plan.memory_limit, prompt = s->o.prompt, exact = s->o.model->exact_cache - positions_before(s);
    const int64_t rows = rows_before(s);
    reader_close(&s->first);
    reader_close(&s->prompt);
    reader_close(&s->token);
    store_destroy(&s->cache);
    s->positions = positions;
    s->n_cached = 0;
    int64_t bytes = s->o.context * (int64_t)sizeof *s->ids + cache_bytes(s);
    if (limit && bytes > limit)
        FAIL(err, CB_E_LIMIT, "cache: %lld bytes for %lld positions; the limit leaves %lld", (long long)bytes, (long long)s->positions,
             (long long)(limit > 1 ? limit : 0));  // 1: nothing, 0 is no limit
    TRY(store_create(&s->cache, err));
    // stretches of one size; where the context will overflow, no longer than the half that stays
    int64_t most = s->o.total > s->o.context && s->o.context / 2 < STRETCH ? s->o.context / 2 : STRETCH;
    if (s->o.model->family->encoder_decoder) {
        TRY(reader_open(s, &s->source, prompt, 0, err));
        return reader_open(s, &s->token, 1, s->positions, err);
    }
    if (rows) TRY(reader_open(s, &s->first, 1, s->positions, err));
    if (positions - rows > exact && prompt < exact) prompt = exact;  // what was read before is read again
    if (prompt > s->positions - rows) prompt = s->positions - rows;
    int64_t n_stretches = prompt > 1 && most > 1 ? (prompt + most - 1) / most : 0;
    if (n_stretches) TRY(reader_open(s, &s->prompt, (prompt + n_stretches - 1) / n_stretches, s->positions, err));
    return reader_open(s, &s->token, 1, s->positions, err);
}

static enum cb_status session_fill(struct session *s, struct cb_err *err) {
    s->ids = malloc((size_t)s->o.context * sizeof *s->ids);
    if (!s->ids) FAIL(err, CB_E_MEMORY, "session: no memory for %lld ids", (long long)s->o.context);
    // a longer cache that may be wanted later has to fit too
    int64_t first = positions_for(s, 1), last = positions_for(s, s->o.context);
    if (last != first) {
        TRY(span(s, last, err));
        s->other = memory_now(s);
    }
    return span(s, first, err);
}

enum cb_status session_create(struct session **session, const struct session_options *options, struct cb_err *err) {
    *session = NULL;
    TRY(options_check(options, err));
    struct session *s = calloc(1, sizeof *s);
    if (!s) FAIL(err, CB_E_MEMORY, "session: out of memory");
    s->o = *options;
    enum cb_status status = session_fill(s, err);
    if (status != CB_OK) session_destroy(&s);
    *session = s;
    return status;
}

void session_destroy(struct session **session) {
    struct session *s = session ? *session : NULL;
    if (!s) return;
    reader_close(&s->first);
    reader_close(&s->prompt);
    reader_close(&s->token);
    reader_close(&s->whole);
    reader_close(&s->source);
    store_destroy(&s->cache);
    free(s->ids);
    free(s);
    *session = NULL;
}

/* ---- reading */

/* Runs r over ids [begin, begin + r->tokens). Rows that are already in the cache are written once more, with the same values. */
static enum cb_status read(struct session *s, struct reader *r, int64_t begin, struct cb_err *err) {
    memcpy(r->ids, s->ids + begin, (size_t)r->tokens * sizeof *s->ids);
    if (r->start) *r->start = (int32_t)(begin + (r == &s->first ? 0 : rows_before(s)));
    *r->last = (int32_t)(r->tokens - 1);
    return plan_run(r->plan, s->o.pool, err);
}

/* Brings the cache up to all n ids. */
static enum cb_status read_cached(struct session *s, const float **logits, struct cb_err *err) {
    if (!s->n_cached && s->first.plan) {
        TRY(read(s, &s->first, 0, err));
        s->n_cached = 1;
        *logits = s->first.logits;
    }
    while (s->n_cached < s->n) {
        int64_t left = s->n - s->n_cached, tokens = s->prompt.tokens;
        // a stretch that is mostly known already costs more than its new tokens one by one
        bool is_stretch = left > 1 && tokens > 1 && s->n >= tokens && left >= tokens / 8;
        struct reader *r = is_stretch ? &s->prompt : &s->token;
        int64_t begin = s->n_cached + r->tokens <= s->n ? s->n_cached : s->n - r->tokens;
        TRY(read(s, r, begin, err));
        s->n_cached = begin + r->tokens;
        *logits = r->logits;
    }
    return CB_OK;
}

/* Where positions depend on every length (dynamic rope), everything is read again. */
static enum cb_status read_whole(struct session *s, const float **logits, struct cb_err *err) {
    reader_close(&s->whole);
    TRY(reader_open(s, &s->whole, s->n, 0, err));
    TRY(read(s, &s->whole, 0, err));
    *logits = s->whole.logits;
    return CB_OK;
}

/* Drops the older half, or more, so that n new tokens fit in. */
static void forget(struct session *s, int64_t n) {
    int64_t keep = s->o.context / 2;
    if (keep > s->o.context - n) keep = s->o.context - n;
    if (keep > s->n) keep = s->n;
    memmove(s->ids, s->ids + s->n - keep, (size_t)keep * sizeof *s->ids);
    s->n = keep;
    s->n_cached = 0;
    s->has_forgotten = true;
}

/* The source, padded to the room that there is; then what the decoder begins with. */
static enum cb_status read_source(struct session *s, const int32_t *ids, int64_t n, const float **logits, struct cb_err *err) {
    const struct model *m = s->o.model;
    struct reader *r = &s->source;
    if (n < 1 || n > r->tokens)
        FAIL(err, CB_E_ARGUMENT, "session: a source of %lld tokens; wanted 1 to %lld", (long long)n, (long long)r->tokens);
    for (int64_t i = 0; i < r->tokens; i++) {
        r->ids[i] = i < n ? ids[i] : m->pad >= 0 && m->pad < m->vocab ? (int32_t)m->pad : 0;
        r->mask[i] = s->token.mask[i] = i < n;
    }
    TRY(plan_run(r->plan, s->o.pool, err));
    s->has_source = true;
    s->ids[s->n++] = (int32_t)decoder_start(m);
    if (m->forced_bos >= 0) s->ids[s->n++] = (int32_t)m->forced_bos;
    return read_cached(s, logits, err);
}

enum cb_status session_push(struct session *s, const int32_t *ids, int64_t n, const float **logits, struct cb_err *err) {
    if (s->o.plan_only) FAIL(err, CB_E_UNSUPPORTED, "session: planned only; wanted one that runs");
    bool is_source = s->o.model->family->encoder_decoder && !s->has_source;
    if (!is_source && (n < 1 || n > s->o.context))
        FAIL(err, CB_E_ARGUMENT, "session: %lld tokens at once; wanted 1 to %lld", (long long)n, (long long)s->o.context);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->o.model->vocab)
            FAIL(err, CB_E_ARGUMENT, "token %lld of %lld: id %d; the vocabulary has %lld", (long long)i, (long long)n, ids[i],
                 (long long)s->o.model->vocab);
    if (is_source) return read_source(s, ids, n, logits, err);
    if (s->n + n > s->o.context) forget(s, n);
    memcpy(s->ids + s->n, ids, (size_t)n * sizeof *ids);
    s->n += n;
    int64_t positions = positions_for(s, s->n);
    if (positions != s->positions) TRY(span(s, positions, err));
    return s->n + rows_before(s) > s->positions ? read_whole(s, logits, err) : read_cached(s, logits, err);
}

void session_reset(struct session *s) {
    s->n = s->n_cached = 0;
    s->has_source = false;
}

int64_t session_length(const struct session *s) { return s->n; }
bool session_has_forgotten(const struct session *s) { return s->has_forgotten; }

static int64_t inside(const struct reader *r) { return r->plan ? plan_memory(r->plan).inside : 0; }

static struct session_memory memory_now(const struct session *s) {
    int64_t plans = inside(&s->first) + inside(&s->prompt) + inside(&s->token) + inside(&s->whole) + inside(&s->source);
    return (struct session_memory){cache_bytes(s), plans};
}

struct session_memory session_memory(const struct session *s) {
    struct session_memory now = memory_now(s);
    return s->other.cache + s->other.activations > now.cache + now.activations ? s->other : now;
}

void session_profile(struct session *s, bool on) { plan_profile(s->token.plan, on); }

enum cb_status session_profile_report(const struct session *s, char **text, struct cb_err *err) {
    return plan_profile_report(s->token.plan, text, err);
}
