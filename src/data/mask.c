/* Which tokens are hidden: words are told by how the vocabulary marks them, choices come from counted random numbers. */
#include "data/mask.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#define IGNORE (-100)
#define SPAN_STOP 0.2  // probability that a span ends after a word
#define SPAN_MOST 10

/* What is known of a token. */
enum { PLAIN = 1 /* can be chosen */, BEGINS = 2 /* begins a word */, ENDS_WORD = 4 /* ends in a letter or digit */ };

struct mask {
    struct mask_options options;
    int32_t mask_id, n_ids;
    unsigned char *flags;  // n_ids
    int32_t *plain, n_plain;  // ids that can be chosen, and drawn in place of others
};

static const char *const kind_names[] = {"whole-word", "token", "span"};

bool mask_kind_by_name(enum mask_kind *kind, const char *name) {
    *kind = MASK_WORD;
    for (int i = 0; name && i < 3; i++)
        if (strcmp(name, kind_names[i]) == 0) {
            *kind = (enum mask_kind)i;
            return true;
        }
    return !name;
}

const char *mask_kind_name(enum mask_kind kind) { return kind_names[kind]; }

/* ---- the vocabulary */
static bool starts_with(const char *text, size_t n, const char *prefix) {
    size_t p = strlen(prefix);
    return n >= p && memcmp(text, prefix, p) == 0;
}

/* Letters, digits and every byte outside ASCII. */
static bool is_word_byte(unsigned char c) {
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* How a space before a word is written: SentencePiece's U+2581, byte-level BPE's U+0120 (and line breaks and tabs). */
static const char *const spaces[] = {"\xE2\x96\x81", "\xC4\xA0", "\xC4\x8A", "\xC4\x89", "\xC4\x8D"};

/* WordPiece marks what goes on, "##ing"; the others what begins. Without marks a word ends where letters do. */
static unsigned token_flags(const char *text, size_t n, bool is_wordpiece) {
    unsigned flags = PLAIN | (n && is_word_byte((unsigned char)text[n - 1]) ? ENDS_WORD : 0);
    if (is_wordpiece) return PLAIN | ENDS_WORD | (starts_with(text, n, "##") ? 0 : BEGINS);
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (starts_with(text, n, spaces[i])) {
            // a space alone ends no word
            return n == strlen(spaces[i]) ? PLAIN | BEGINS : flags | BEGINS;
        }
    return n && !is_word_byte((unsigned char)*text) ? flags | BEGINS : flags;
}

static enum cb_status read_vocabulary(struct mask *m, const struct tokenizer *tokenizer, struct cb_err *err) {
    static const char *const names[] = {"[MASK]", "<mask>", "<|mask|>", "<MASK>"};
    m->mask_id = -1;
    for (size_t i = 0; i < sizeof names / sizeof *names && m->mask_id < 0; i++) m->mask_id = tokenizer_id(tokenizer, names[i]);
    if (m->mask_id < 0)
        FAIL(err, CB_E_ARGUMENT,
             "tokenizer: no token that hides others; wanted [MASK] or <mask> among its tokens (tokenizer train --special)");
    m->n_ids = tokenizer_size(tokenizer);
    m->flags = calloc((size_t)m->n_ids + 1, 1);
    m->plain = calloc((size_t)m->n_ids + 1, sizeof *m->plain);
    if (!m->flags || !m->plain) FAIL(err, CB_E_MEMORY, "masking: no memory for %d tokens", m->n_ids);
    bool is_wordpiece = false;
    size_t n;
    for (int32_t id = 0; id < m->n_ids && !is_wordpiece; id++) {
        const char *text = tokenizer_token(tokenizer, id, &n);
        is_wordpiece = text && n > 2 && starts_with(text, n, "##") && is_word_byte((unsigned char)text[2]);
    }
    for (int32_t id = 0; id < m->n_ids; id++) {
        const char *text = tokenizer_token(tokenizer, id, &n);
        if (!text || id == m->mask_id || tokenizer_is_special(tokenizer, id)) continue;
        m->flags[id] = (unsigned char)token_flags(text, n, is_wordpiece);
        m->plain[m->n_plain++] = id;
    }
    if (!m->n_plain) FAIL(err, CB_E_ARGUMENT, "tokenizer: special tokens alone; wanted some that can be hidden");
    return CB_OK;
}

enum cb_status mask_create(struct mask **mask, const struct tokenizer *tokenizer, const struct mask_options *options, struct cb_err *err) {
    *mask = NULL;
    if (!(options->rate > 0 && options->rate < 1))
        FAIL(err, CB_E_USAGE, "--mask-rate %g: wanted a number above 0 and below 1", options->rate);
    struct mask *m = calloc(1, sizeof *m);
    if (!m) FAIL(err, CB_E_MEMORY, "masking: out of memory");
    m->options = *options;
    enum cb_status status = read_vocabulary(m, tokenizer, err);
    if (status != CB_OK) mask_destroy(&m);
    *mask = m;
    return status;
}

void mask_destroy(struct mask **mask) {
    if (!*mask) return;
    free((*mask)->flags);
    free((*mask)->plain);
    free(*mask);
    *mask = NULL;
}

/* ---- a batch */
/* One row on its way from the left. */
struct walk {
    const struct mask *m;
    const int32_t *ids, *segments;  // as they were; segments NULL: one
    int64_t seq;
};

static unsigned flags_at(const struct walk *w, int64_t t) {
    if (w->segments && w->segments[t] < 0) return 0;
    return w->ids[t] >= 0 && w->ids[t] < w->m->n_ids ? w->m->flags[w->ids[t]] : 0;
}

/* First place after t that is not of t's word; single tokens are words of their own. */
static int64_t word_end(const struct walk *w, int64_t t) {
    unsigned before = flags_at(w, t++);
    if (w->m->options.kind == MASK_TOKEN || !before) return t;
    for (; t < w->seq; t++) {
        unsigned here = flags_at(w, t);
        bool goes_on = here && !(here & BEGINS) && (before & ENDS_WORD) && (!w->segments || w->segments[t] == w->segments[t - 1]);
        if (!goes_on) break;
        before = here;
    }
    return t;
}

/* What a chosen id becomes. */
static int32_t replaced(const struct mask *m, struct rng *rng, double u, int32_t id) {
    if (u < 0.8) return m->mask_id;
    return u < 0.9 ? m->plain[rng_below(rng, (uint64_t)m->n_plain)] : id;
}

static void hide(const struct mask *m, struct rng *rng, int64_t begin, int64_t end, double all, int32_t *ids, int32_t *labels) {
    for (int64_t t = begin; t < end; t++) {
        labels[t] = ids[t];
        ids[t] = replaced(m, rng, all >= 0 ? all : rng_f64(rng), ids[t]);
    }
}

/* Words that follow one another within a span: how many, 1 to SPAN_MOST. */
static int span_length(struct rng *rng) {
    int n = 1;
    while (n < SPAN_MOST && rng_f64(rng) >= SPAN_STOP) n++;
    return n;
}

/* The probability that a word begins a span, for which the expected share of hidden words is rate. */
static double span_start(double rate) {
    double mean = 0, stays = 1;
    for (int i = 0; i < SPAN_MOST; i++, stays *= 1 - SPAN_STOP) mean += stays;
    return rate / (rate + mean * (1 - rate));
}

/* Returns whether anything was hidden. words are told by the ids before any is replaced: those ahead are untouched. */
static bool hide_row(const struct mask *m, struct rng *rng, int64_t seq, int32_t *ids, int32_t *labels, const int32_t *segments) {
    const struct walk w = {m, ids, segments, seq};
    const bool is_span = m->options.kind == MASK_SPAN;
    const double start = is_span ? span_start(m->options.rate) : m->options.rate;
    bool any = false;
    for (int64_t t = 0; t < seq;) {
        int64_t end = word_end(&w, t);
        if (!flags_at(&w, t) || rng_f64(rng) >= start) {
            t = end;
            continue;
        }
        for (int more = is_span ? span_length(rng) - 1 : 0; more > 0 && end < seq && flags_at(&w, end); more--) {
            if (segments && segments[end] != segments[t]) break;
            end = word_end(&w, end);
        }
        hide(m, rng, t, end, is_span ? rng_f64(rng) : -1, ids, labels);
        any = true;
        t = end;
    }
    return any;
}

void mask_apply(const struct mask *m, uint64_t key, int64_t batch, int64_t seq, int32_t *ids, int32_t *labels, const int32_t *segments) {
    struct rng rng = rng_make(m->options.seed ^ rng_hash("mask"), key);
    bool any = false;
    int64_t n = 0;
    for (int64_t i = 0; i < batch * seq; i++) labels[i] = IGNORE;
    for (int64_t b = 0; b < batch; b++) {
        const struct walk w = {m, ids + b * seq, segments ? segments + b * seq : NULL, seq};
        for (int64_t t = 0; t < seq; t++) n += flags_at(&w, t) != 0;
        any |= hide_row(m, &rng, seq, ids + b * seq, labels + b * seq, w.segments);
    }
    if (any || !n) return;
    // a batch without a label has no loss: one token of all
    int64_t pick = (int64_t)rng_below(&rng, (uint64_t)n);
    for (int64_t i = 0; i < batch * seq; i++) {
        const struct walk w = {m, ids + i, segments ? segments + i : NULL, 1};
        if (!flags_at(&w, 0) || pick--) continue;
        hide(m, &rng, i, i + 1, -1, ids, labels);
        return;
    }
}
