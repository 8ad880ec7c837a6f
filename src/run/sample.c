/* Samplers: a heap gives the likeliest tokens one by one, so that a vocabulary is never sorted whole. */
#include "run/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpuid.h"
#include "base/rng.h"

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    struct sample_options o;
    int64_t vocab;
    uint8_t *seen;
    int32_t *history;  // what was seen, in order; NULL: not wanted
    int64_t n_history;
    struct candidate *items;  // a heap in [0, n_heap); behind it the popped ones, the likeliest last
    int64_t n_heap;
};

static enum cb_status options_check(const struct sample_options *o, struct cb_err *err) {
    if (!(o->temperature >= 0) || !isfinite(o->temperature))
        FAIL(err, CB_E_USAGE, "--temperature %g: wanted a number above 0", o->temperature);
    if (!(o->top_p >= 0 && o->top_p <= 1)) FAIL(err, CB_E_USAGE, "--top-p %g: wanted a share above 0, at most 1", o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1)) FAIL(err, CB_E_USAGE, "--min-p %g: wanted a share from 0 to 1", o->min_p);
    if (o->top_k < 0) FAIL(err, CB_E_USAGE, "--top-k %lld: wanted 0 or more", (long long)o->top_k);
    if (!(o->repeat_penalty >= 0) || !isfinite(o->repeat_penalty))
        FAIL(err, CB_E_USAGE, "--repeat-penalty %g: wanted a number above 0", o->repeat_penalty);
    if (o->no_repeat_ngram < 0) FAIL(err, CB_E_USAGE, "no_repeat_ngram_size %lld: wanted 0 or more", (long long)o->no_repeat_ngram);
    if (o->most_seen < 0 || o->most_seen > INT32_MAX)
        FAIL(err, CB_E_LIMIT, "sampler: %lld tokens to be seen; wanted 0 to 2^31 - 1", (long long)o->most_seen);
    return CB_OK;
}

enum cb_status sampler_create(struct sampler **sampler, int64_t vocab, const struct sample_options *options, struct cb_err *err) {
    *sampler = NULL;
    TRY(options_check(options, err));
    struct sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->o = *options;
        s->vocab = vocab;
        s->seen = calloc((size_t)vocab + 1, 1);
        s->items = calloc((size_t)vocab + 1, sizeof *s->items);
        if (s->o.no_repeat_ngram) s->history = calloc((size_t)s->o.most_seen + 1, sizeof *s->history);
    }
    if (!s || !s->seen || !s->items || (s->o.no_repeat_ngram && !s->history)) {
        sampler_destroy(&s);
        FAIL(err, CB_E_MEMORY, "sampler: no memory for %lld tokens", (long long)vocab);
    }
    if (s->o.temperature == 0) s->o.temperature = 1;
    if (s->o.top_p == 0) s->o.top_p = 1;
    if (s->o.repeat_penalty == 0) s->o.repeat_penalty = 1;
    if (s->o.top_k > vocab) s->o.top_k = 0;
    *sampler = s;
    return CB_OK;
}

void sampler_destroy(struct sampler **sampler) {
    if (!sampler || !*sampler) return;
    free((*sampler)->seen);
    free((*sampler)->history);
    free((*sampler)->items);
    free(*sampler);
    *sampler = NULL;
}

int64_t sampler_bytes(int64_t vocab, int64_t most_seen) {
    return (vocab + 1) * (int64_t)(sizeof(struct candidate) + 1) + (most_seen ? (most_seen + 1) * (int64_t)sizeof(int32_t) : 0);
}

void sampler_see(struct sampler *s, int32_t id) {
    s->seen[id] = 1;
    if (s->history && s->n_history < s->o.most_seen) s->history[s->n_history++] = id;
}

/* ---- the heap: the likeliest at its root, of equals the smaller id */

static bool is_before(const struct candidate *a, const struct candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift_down(struct candidate *heap, int64_t n, int64_t i) {
    const struct candidate moved = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_before(&heap[child + 1], &heap[child])) child++;
        if (!is_before(&heap[child], &moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* The candidate of rank i (0: the likeliest); ranks are asked for in order, any number of times. */
static const struct candidate *ranked(struct sampler *s, int64_t i) {
    while (s->vocab - s->n_heap <= i) {
        const struct candidate top = s->items[0];
        s->items[0] = s->items[--s->n_heap];
        if (s->n_heap) sift_down(s->items, s->n_heap, 0);
        s->items[s->n_heap] = top;
    }
    return &s->items[s->vocab - 1 - i];
}

/* ---- drawing */

/* Whatever followed the last n - 1 tokens where they stood before cannot come. */
static void ban_repeats(struct sampler *s) {
    const int64_t n = s->o.no_repeat_ngram, begin = s->n_history - (n - 1);
    if (!s->history || begin < 0) return;
    for (int64_t i = 0; i < begin; i++)
        if (!memcmp(s->history + i, s->history + begin, (size_t)(n - 1) * sizeof *s->history))
            s->items[s->history[i + n - 1]].logit = -INFINITY;
}

/* Candidates in the order of ids with the penalty, without repeated n-grams; the likeliest into *best. */
static enum cb_status candidates_fill(struct sampler *s, const float *logits, struct candidate *best, struct cb_err *err) {
    const float penalty = (float)s->o.repeat_penalty;
    *best = (struct candidate){-INFINITY, 0};
    for (int64_t i = 0; i < s->vocab; i++) {
        float x = logits[i];
        if (isnan(x)) FAIL(err, CB_E_NUMERIC, "logits: token %lld is not a number; wanted finite numbers", (long long)i);
        if (s->seen[i]) x = x > 0 ? x / penalty : x * penalty;
        s->items[i] = (struct candidate){x, (int32_t)i};
    }
    ban_repeats(s);
    for (int64_t i = 0; i < s->vocab; i++)
        if (s->items[i].logit > best->logit) *best = s->items[i];
    if (!isfinite(best->logit)) FAIL(err, CB_E_NUMERIC, "logits: the largest is %g; wanted a finite number", (double)best->logit);
    return CB_OK;
}

/* Uniform in [0,1) with 53 bits, keyed by seed and position. */
static double uniform(const struct sampler *s, int64_t position) {
    struct rng_block b = rng_philox(s->o.seed, (uint64_t)position, rng_hash("sample"));
    return (double)(((uint64_t)b.word[0] << 32 | b.word[1]) >> 11) * 0x1p-53;
}

static double weight_of(const struct sampler *s, const struct candidate *c, float best) {
    return exp(((double)c->logit - (double)best) / s->o.temperature);
}

/* Any token, by its probability. */
static int32_t draw_any(const struct sampler *s, float best, double u) {
    double total = 0, sum = 0;
    int32_t last = 0;
    for (int64_t i = 0; i < s->vocab; i++) total += weight_of(s, &s->items[i], best);
    for (int64_t i = 0; i < s->vocab; i++) {
        double w = weight_of(s, &s->items[i], best);
        if (w > 0) last = (int32_t)i;
        if ((sum += w) > u * total) return (int32_t)i;
    }
    return last;
}

/* Among the likeliest that top-k, top-p and min-p leave. */
static int32_t draw_filtered(struct sampler *s, float best, double u) {
    const int64_t limit = s->o.top_k ? s->o.top_k : s->vocab;
    double total = 0, sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; !s->o.top_k && i < s->vocab; i++) total += weight_of(s, &s->items[i], best);
    s->n_heap = s->vocab;
    for (int64_t i = s->vocab / 2; i-- > 0;) sift_down(s->items, s->vocab, i);
    for (int64_t i = 0; s->o.top_k && i < limit; i++) total += weight_of(s, ranked(s, i), best);
    // top-p keeps the token that passes the share; min-p is relative to the likeliest, whose weight is 1
    while (n < limit) {
        double w = weight_of(s, ranked(s, n), best);
        if (n && (w <= 0 || w < s->o.min_p)) break;
        n++;
        if ((sum += w) >= s->o.top_p * total) break;
    }
    double goal = u * sum, passed = 0;
    for (int64_t i = 0; i < n; i++)
        if ((passed += weight_of(s, ranked(s, i), best)) > goal) return ranked(s, i)->id;
    return ranked(s, n - 1)->id;
}

/* The likeliest of n, of equals the first; false where one is not a number. Lanes side by side, so that compilers make vectors of them. */
CPU_CLONES static bool likeliest(const float *logits, int64_t n, struct candidate *best) {
    enum { LANES = 16, PIECE = 256 * LANES };
    *best = (struct candidate){-INFINITY, 0};
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t size = n - at < PIECE ? n - at : PIECE;
        float most[LANES], top = -INFINITY;
        int32_t is_nan[LANES] = {0}, any = 0;
        for (int l = 0; l < LANES; l++) most[l] = -INFINITY;
        for (int64_t i = 0; i + LANES <= size; i += LANES)
            for (int l = 0; l < LANES; l++) {
                const float x = logits[at + i + l];
                most[l] = x > most[l] ? x : most[l];
                is_nan[l] |= x != x;
            }
        for (int64_t i = size / LANES * LANES; i < size; i++) {
            const float x = logits[at + i];
            top = x > top ? x : top;
            any |= x != x;
        }
        for (int l = 0; l < LANES; l++) {
            top = most[l] > top ? most[l] : top;
            any |= is_nan[l];
        }
        if (any) return false;
        if (!(top > best->logit)) continue;
        int64_t i = at;
        while (logits[i] != top) i++;
        *best = (struct candidate){top, (int32_t)i};
    }
    return true;
}

enum cb_status sampler_pick(struct sampler *s, const float *logits, int64_t position, int32_t *id, struct cb_err *err) {
    struct candidate best;
    const bool is_plain = s->o.greedy && s->o.repeat_penalty == 1 && !s->history;
    if (!is_plain || !likeliest(logits, s->vocab, &best) || !isfinite(best.logit)) TRY(candidates_fill(s, logits, &best, err));
    *id = best.id;
    if (s->o.greedy) return CB_OK;
    const bool is_filtered = s->o.top_k || s->o.top_p < 1 || s->o.min_p > 0;
    const double u = uniform(s, position);
    *id = is_filtered ? draw_filtered(s, best.logit, u) : draw_any(s, best.logit, u);
    return CB_OK;
}
