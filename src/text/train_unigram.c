/* Learning a unigram language model (Kudo, ACL 2018) as the tokenizers library does: seeds from repeated substrings, expectation and maximisation, and
   pruning of the pieces that the likelihood misses least. */
#include <math.h>

#include "text/train.h"
#include "text/trie.h"
#include "text/utf8.h"

enum { LONGEST = 16, SEEDS = 1000000, SUB_ITERATIONS = 2 };
#define SHRINKING 0.75
#define UNKNOWN_PENALTY 10.0
#define LEAST_EXPECTED 0.5

struct seed {
    struct part_text text;
    double score;
};
struct model {
    const struct word_counts *words;
    struct seed *piece;  // piece 0 stands for unknown characters
    int32_t n;
    struct trie trie;
    double unk_score;
    size_t longest;  // characters of a piece
    /* Room for the longest word. */
    double *alpha, *beta;
    struct best *best;
};
/* The best path to a byte, and the second best. */
struct best {
    double score[2];
    int32_t from[2], id[2], rank[2];  // rank: which path of from it goes on
    int n;
};

/* ---- seeds: substrings that are seen twice and go on in different ways, the inner nodes of a suffix tree */

/* A suffix of a word: it begins at byte at and ends with its word. */
struct suffix {
    uint32_t at, end;
};

/* Characters (at most most) that two suffixes share; one more where both end together. *order: how they compare. */
static size_t shared(const char *text, struct suffix a, struct suffix b, size_t most, int *order) {
    size_t n = 0, i = 0;
    for (; n < most; n++) {
        bool a_ends = a.at + i >= a.end, b_ends = b.at + i >= b.end;
        *order = (int)b_ends - (int)a_ends;
        if (a_ends || b_ends) return n + (a_ends && b_ends);
        size_t length = (size_t)utf8_length(text[a.at + i]);
        *order = memcmp(text + a.at + i, text + b.at + i, b.end - b.at - i < length ? b.end - b.at - i : length);
        if (*order) return n;
        i += length;
    }
    *order = 0;
    return n;
}

struct sorting {
    const char *text;
    size_t most;
};
static int suffix_order(const void *a, const void *b, void *context) {
    const struct sorting *s = context;
    int order;
    shared(s->text, *(const struct suffix *)a, *(const struct suffix *)b, s->most, &order);
    return order;
}

static int seed_order(const void *a, const void *b) {
    const struct seed *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    size_t n = x->text.n < y->text.n ? x->text.n : y->text.n;
    int order = memcmp(y->text.text, x->text.text, n);
    return order ? order : x->text.n < y->text.n ? 1 : x->text.n > y->text.n ? -1 : 0;
}

struct seeds {
    struct seed *seed;
    size_t n, capacity;
};

static size_t bytes_of(const char *text, size_t chars) {
    size_t n = 0;
    while (chars--) n += (size_t)utf8_length(text[n]);
    return n;
}

static enum cb_status seed_add(struct seeds *out, const char *text, size_t n, double score, struct cb_err *err) {
    TRY(buffer_grow((void **)&out->seed, &out->capacity, out->n + 1, sizeof *out->seed, err));
    out->seed[out->n++] = (struct seed){{text, n}, score};
    return CB_OK;
}

/* Intervals of the sorted suffixes whose least shared length is 2 to longest: a substring and how often it is there. */
static enum cb_status intervals_find(struct seeds *out, const struct sorting *s, const struct suffix *suffix, size_t n, size_t longest,
                                     struct cb_err *err) {
    struct {
        size_t depth, left;
    } stack[LONGEST * 64 + 2];
    size_t n_stack = 0;
    for (size_t i = 1; i <= n; i++) {
        int order;
        size_t depth = i < n ? shared(s->text, suffix[i - 1], suffix[i], s->most, &order) : 0, left = i - 1;
        while (n_stack && stack[n_stack - 1].depth > depth) {
            size_t d = stack[--n_stack].depth;
            left = stack[n_stack].left;
            const char *text = s->text + suffix[left].at;
            // the end of a word is no part of a piece
            size_t have = utf8_count(text, suffix[left].end - suffix[left].at);
            if (d >= 2 && d <= longest && d <= have) TRY(seed_add(out, text, bytes_of(text, d), (double)(i - left) * (double)d, err));
        }
        if (depth && (!n_stack || stack[n_stack - 1].depth < depth)) stack[n_stack].depth = depth, stack[n_stack++].left = left;
    }
    return CB_OK;
}

static enum cb_status substrings_find(struct seeds *out, const struct word_counts *w, size_t longest, struct cb_err *err) {
    size_t n = 0;
    struct suffix *suffix = malloc((w->bytes.n + 1) * sizeof *suffix);
    struct sorting s = {w->bytes.data, longest + 1};
    if (!suffix) FAIL(err, CB_E_MEMORY, "training: no memory for %zu bytes of words", w->bytes.n);
    for (size_t i = 0; i < w->n; i++)
        for (size_t at = 0; at < w->word[i].n; at++)
            if (!utf8_is_tail(w->bytes.data[w->word[i].at + at]))
                suffix[n++] = (struct suffix){(uint32_t)(w->word[i].at + at), (uint32_t)(w->word[i].at + w->word[i].n)};
    qsort_r(suffix, n, sizeof *suffix, suffix_order, &s);
    enum cb_status status = intervals_find(out, &s, suffix, n, longest, err);
    free(suffix);
    return status;
}

/* Single characters by their weighted counts. */
static enum cb_status chars_find(struct seeds *out, struct tokenizer *t, const struct word_counts *w, struct cb_err *err) {
    int64_t *count = calloc(0x110000, sizeof *count);
    enum cb_status status = count ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: no memory");
    for (size_t i = 0; i < w->n && !status; i++) {
        uint32_t cp = 0;
        for (size_t at = 0; at < w->word[i].n; count[cp] += w->word[i].count)
            at += (size_t)utf8_decode(w->bytes.data + w->word[i].at + at, w->word[i].n - at, &cp);
    }
    for (uint32_t cp = 1; cp < 0x110000 && !status; cp++) {
        char text[4];
        if (!count[cp]) continue;
        size_t n = (size_t)utf8_encode(text, cp);
        const char *copy = arena_strndup(t->arena, text, n);
        status =
            copy ? seed_add(out, copy, n, (double)count[cp], err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: no memory");
    }
    free(count);
    return status;
}

/* Piece 0, the characters, then the substrings, as logarithms of their shares. */
static enum cb_status seeds_find(struct seeds *out, struct tokenizer *t, const struct word_counts *w, size_t longest, int32_t *n_chars,
                                 struct cb_err *err) {
    TRY(seed_add(out, "", 0, 0, err));
    TRY(chars_find(out, t, w, err));
    size_t first = out->n;
    *n_chars = (int32_t)first - 1;
    qsort(out->seed + 1, first - 1, sizeof *out->seed, seed_order);
    TRY(substrings_find(out, w, longest, err));
    qsort(out->seed + first, out->n - first, sizeof *out->seed, seed_order);
    if (out->n > SEEDS + 1 && first < SEEDS) out->n = SEEDS + 1;
    double sum = 0;
    for (size_t i = 1; i < out->n; i++) sum += out->seed[i].score;
    for (size_t i = 1; i < out->n; i++) out->seed[i].score = log(out->seed[i].score) - log(sum);
    return CB_OK;
}

/* ---- the lattice of a word */

static enum cb_status model_index(struct model *m, struct cb_err *err) {
    size_t bytes = 1;
    double least = INFINITY;
    for (int32_t i = 1; i < m->n; i++) {
        bytes += m->piece[i].text.n;
        if (m->piece[i].score < least) least = m->piece[i].score;
    }
    free(m->trie.node);
    m->trie = (struct trie){0};
    if (bytes > INT32_MAX || !(m->trie.node = malloc(bytes * sizeof *m->trie.node)))
        FAIL(err, CB_E_MEMORY, "training: no memory for pieces");
    for (int32_t i = 1; i < m->n; i++) trie_add(&m->trie, m->piece[i].text.text, m->piece[i].text.n, i);
    m->unk_score = least - UNKNOWN_PENALTY;
    return CB_OK;
}

/* Calls for every piece that lies at a byte of the text: the pieces from the trie, else the character as unknown. */
typedef void edge_fn(struct model *m, size_t from, size_t to, int32_t id, double score, void *context);
static void edges(struct model *m, const char *text, size_t n, size_t at, edge_fn *fn, void *context) {
    size_t length = (size_t)utf8_length(text[at]);
    bool single = false;
    int32_t node = 0;
    for (size_t to = at; to < n && (node = trie_child(&m->trie, node, (unsigned char)text[to])); to++) {
        int32_t id = m->trie.node[node].id;
        if (id < 0) continue;
        fn(m, at, to + 1, id, m->piece[id].score, context);
        single = single || to + 1 - at == length;
    }
    if (!single) fn(m, at, at + length, 0, m->unk_score, context);
}

/* log(exp(x) + exp(y)); is_first: x is not there yet. */
static double log_sum(double x, double y, bool is_first) {
    if (is_first) return y;
    double low = x < y ? x : y, high = x < y ? y : x;
    return high > low + 50 ? high : high + log(exp(low - high) + 1);
}

static void alpha_edge(struct model *m, size_t from, size_t to, int32_t id, double score, void *context) {
    bool *has = context;
    (void)id;
    m->alpha[to] = log_sum(m->alpha[to], m->alpha[from] + score, !has[to]);
    has[to] = true;
}
static void beta_edge(struct model *m, size_t from, size_t to, int32_t id, double score, void *context) {
    bool *has = context;
    (void)id;
    if (!has[to]) return;
    m->beta[from] = log_sum(m->beta[from], m->beta[to] + score, !has[from]);
    has[from] = true;
}
struct expectation {
    double *expected, weight, total;
};
static void expect_edge(struct model *m, size_t from, size_t to, int32_t id, double score, void *context) {
    struct expectation *e = context;
    e->expected[id] += e->weight * exp(m->alpha[from] + score + m->beta[to] - e->total);
}

/* Forward and backward over every word: how often each piece is expected. */
static void expect(struct model *m, double *expected, bool *has) {
    memset(expected, 0, (size_t)m->n * sizeof *expected);
    for (size_t i = 0; i < m->words->n; i++) {
        const struct counted_word *w = &m->words->word[i];
        const char *text = m->words->bytes.data + w->at;
        memset(has, 0, (w->n + 1) * sizeof *has);
        m->alpha[0] = 0, has[0] = true;
        for (size_t at = 0; at < w->n; at += (size_t)utf8_length(text[at])) edges(m, text, w->n, at, alpha_edge, has);
        memset(has, 0, (w->n + 1) * sizeof *has);
        m->beta[w->n] = 0, has[w->n] = true;
        for (size_t at = w->n; at-- > 0;)
            if (!utf8_is_tail(text[at])) edges(m, text, w->n, at, beta_edge, has);
        struct expectation e = {expected, (double)w->count, m->alpha[w->n]};
        for (size_t at = 0; at < w->n; at += (size_t)utf8_length(text[at])) edges(m, text, w->n, at, expect_edge, &e);
    }
}

static double digamma(double x) {
    double result = 0;
    for (; x < 7; x++) result -= 1 / x;
    x -= 0.5;
    double xx = 1 / x, xx2 = xx * xx, xx4 = xx2 * xx2;
    return result + log(x) + (1.0 / 24) * xx2 - (7.0 / 960) * xx4 + (31.0 / 8064) * xx4 * xx2 - (127.0 / 30720) * xx4 * xx4;
}

/* New scores from what was expected, with a sparse prior (Liang and Klein, ACL 2007 tutorial); rare pieces go. */
static void maximise(struct model *m, const double *expected) {
    int32_t n = 1;
    double sum = 0;
    for (int32_t i = 1; i < m->n; i++) {
        if (expected[i] < LEAST_EXPECTED) continue;
        m->piece[n] = m->piece[i];
        m->piece[n++].score = expected[i];
        sum += expected[i];
    }
    double log_total = digamma(sum);
    for (int32_t i = 1; i < n; i++) m->piece[i].score = digamma(m->piece[i].score) - log_total;
    m->n = n;
}

/* ---- pruning */

static void best_edge(struct model *m, size_t from, size_t to, int32_t id, double score, void *context) {
    const int *keep = context;
    struct best *b = &m->best[to];
    for (int k = 0; k < m->best[from].n; k++) {
        double total = m->best[from].score[k] + score;
        int place = b->n;
        while (place && total > b->score[place - 1]) place--;
        if (place >= *keep) continue;
        if (b->n < *keep) b->n++;
        for (int i = b->n - 1; i > place; i--)
            b->score[i] = b->score[i - 1], b->from[i] = b->from[i - 1], b->id[i] = b->id[i - 1], b->rank[i] = b->rank[i - 1];
        b->score[place] = total, b->from[place] = (int32_t)from, b->id[place] = id, b->rank[place] = k;
    }
}

/* The best keep (1 or 2) paths to every byte of a text. */
static void best_paths(struct model *m, const char *text, size_t n, int keep) {
    for (size_t i = 0; i <= n; i++) m->best[i].n = 0;
    m->best[0].n = 1, m->best[0].score[0] = 0;
    for (size_t at = 0; at < n; at += (size_t)utf8_length(text[at])) edges(m, text, n, at, best_edge, &keep);
}

struct candidate {
    int32_t id;
    double loss;
};
static int by_loss(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->loss != y->loss) return x->loss < y->loss ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* What the pieces of the best paths are seen in: the weight of pieces, and of words for each time that a piece is in one. */
static double frequencies(struct model *m, double *freq) {
    double words = 0;
    memset(freq, 0, (size_t)m->n * sizeof *freq);
    for (size_t i = 0; i < m->words->n; i++) {
        const struct counted_word *w = &m->words->word[i];
        best_paths(m, m->words->bytes.data + w->at, w->n, 1);
        words += (double)w->count;
        for (size_t to = w->n; to; to = (size_t)m->best[to].from[0]) freq[m->best[to].id[0]] += (double)w->count;
    }
    return words;
}

enum fate { DROPPED, KEPT, CANDIDATE };

/* What becomes of a piece, and how much the likelihood would fall if its second best cut took its place. */
static enum fate fate_of(struct model *m, int32_t id, const double *freq, double sum, double words, double *loss) {
    const struct part_text *text = &m->piece[id].text;
    best_paths(m, text->text, text->n, 2);
    const struct best *b = &m->best[text->n];
    if (b->n == 1) return KEPT;  // it cannot be cut
    if (b->from[0] > 0) return freq[id] > 0 ? KEPT : DROPPED;  // its parts are better than it
    if (freq[id] <= 0) return DROPPED;
    // the pieces that would take over grow by its frequency
    double log_sum_alt = log(sum + freq[id] * (double)(m->n - 1)), alternative = 0;
    size_t to = text->n;
    for (int rank = 1; to;) {
        const struct best *at = &m->best[to];
        alternative += log(freq[at->id[rank]] + freq[id]) - log_sum_alt;
        to = (size_t)at->from[rank], rank = at->rank[rank];
    }
    *loss = freq[id] / words * (log(freq[id]) - log(sum) - alternative);
    return CANDIDATE;
}

static enum cb_status prune(struct model *m, int32_t wanted, double *freq, struct cb_err *err) {
    double words = frequencies(m, freq), sum = 0;
    struct candidate *candidate = malloc((size_t)m->n * sizeof *candidate);
    struct seed *kept = malloc((size_t)m->n * sizeof *kept);
    int32_t n = 1, n_candidates = 0, size = (int32_t)((double)m->n * SHRINKING);
    if (size < wanted) size = wanted;
    if (!candidate || !kept) {
        free(candidate), free(kept);
        FAIL(err, CB_E_MEMORY, "training: no memory for %d pieces", (int)m->n);
    }
    for (int32_t i = 0; i < m->n; i++) sum += freq[i];
    kept[0] = m->piece[0];
    for (int32_t i = 1; i < m->n; i++) {
        double loss = 0;
        enum fate fate = fate_of(m, i, freq, sum, words, &loss);
        if (fate == KEPT) kept[n++] = m->piece[i];
        if (fate == CANDIDATE) candidate[n_candidates++] = (struct candidate){i, loss};
    }
    qsort(candidate, (size_t)n_candidates, sizeof *candidate, by_loss);
    for (int32_t i = 0; i < n_candidates && n != size; i++) kept[n++] = m->piece[candidate[i].id];
    memcpy(m->piece, kept, (size_t)n * sizeof *kept);
    m->n = n;
    free(candidate), free(kept);
    return CB_OK;
}

/* ---- the whole */

static enum cb_status iterate(struct model *m, struct training *training, double *work, bool *has, struct cb_err *err) {
    int32_t wanted = (int32_t)((int64_t)training->options->vocab * 11 / 10), first = m->n;
    TRY(model_index(m, err));
    for (;;) {
        for (int i = 0; i < SUB_ITERATIONS; i++) {
            expect(m, work, has);
            maximise(m, work);
            TRY(model_index(m, err));
        }
        if (training->progress && !training->progress(training->progress_context, first - m->n, first - wanted > 0 ? first - wanted : 1))
            FAIL(err, CB_E_STOPPED, "training: stopped");
        if (m->n <= wanted) return CB_OK;
        int32_t before = m->n;
        TRY(prune(m, wanted, work, err));
        if (m->n == before) return CB_OK;  // no piece can go
        TRY(model_index(m, err));
    }
}

/* All characters of the text (chars[0..n_chars)), then the best of the other pieces until room is filled, by score. */
static enum cb_status finish(struct model *m, struct tokenizer *t, struct seed *chars, int32_t n_chars, int32_t room,
                             struct part_text **piece, double **score, int32_t *n, struct cb_err *err) {
    struct seed *out = malloc(((size_t)room + (size_t)n_chars + 1) * sizeof *out);
    double least = m->unk_score + UNKNOWN_PENALTY, penalty = 0;
    if (!out) FAIL(err, CB_E_MEMORY, "training: no memory");
    *n = 0;
    for (int32_t i = 0; i < n_chars; i++) {
        int32_t node = 0;
        for (size_t k = 0; k < chars[i].text.n && (!k || node); k++)
            node = trie_child(&m->trie, node, (unsigned char)chars[i].text.text[k]);
        int32_t id = node ? m->trie.node[node].id : -1;
        double found = id > 0 ? m->piece[id].score : least + penalty;
        if (id <= 0) penalty += 0.0001;
        out[(*n)++] = (struct seed){chars[i].text, found};
    }
    for (int32_t i = 1; i < m->n && *n < room; i++)
        if (m->piece[i].text.n > (size_t)utf8_length(m->piece[i].text.text[0])) out[(*n)++] = m->piece[i];
    qsort(out, (size_t)*n, sizeof *out, seed_order);
    *piece = arena_array(t->arena, (size_t)*n + 1, sizeof **piece), *score = arena_array(t->arena, (size_t)*n + 1, sizeof **score);
    bool good = *piece && *score;
    for (int32_t i = 0; i < *n && good; i++) {
        (*piece)[i] = (struct part_text){arena_strndup(t->arena, out[i].text.text, out[i].text.n), out[i].text.n},
        (*score)[i] = out[i].score;
        good = (*piece)[i].text;
    }
    free(out);
    if (!good) FAIL(err, CB_E_MEMORY, "training: no memory");
    return CB_OK;
}

static enum cb_status learn(struct model *m, struct training *training, struct seeds *seeds, struct part_text **piece, double **score,
                            int32_t *n, struct cb_err *err) {
    const struct word_counts *w = &training->words;
    size_t longest = LONGEST * 4;
    int32_t n_chars, room = training->options->vocab - training->n_ids;
    for (size_t i = 0; i < w->n; i++)
        if (w->word[i].n > longest) longest = w->word[i].n;
    TRY(seeds_find(seeds, training->t, w, m->longest, &n_chars, err));
    if (n_chars > room)
        FAIL(err, CB_E_ARGUMENT, "vocab: %d; the text has %d characters, with which at least %d are wanted", (int)training->options->vocab,
             (int)n_chars, (int)(n_chars + training->n_ids));
    struct seed *chars = arena_array(training->t->arena, (size_t)n_chars + 1, sizeof *chars);
    double *work = malloc((seeds->n + 1) * sizeof *work);
    bool *has = malloc(longest + 1);
    m->alpha = malloc((longest + 1) * sizeof *m->alpha), m->beta = malloc((longest + 1) * sizeof *m->beta);
    m->best = malloc((longest + 1) * sizeof *m->best);
    m->piece = seeds->seed, m->n = (int32_t)seeds->n;
    enum cb_status status = CB_OK;
    if (!chars || !work || !has || !m->alpha || !m->beta || !m->best)
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: no memory for words of %zu bytes", longest);
    if (!status) memcpy(chars, seeds->seed + 1, (size_t)n_chars * sizeof *chars);
    if (!status) status = iterate(m, training, work, has, err);
    if (!status) status = finish(m, training->t, chars, n_chars, room, piece, score, n, err);
    free(work), free(has), free(m->alpha), free(m->beta), free(m->best);
    return status;
}

enum cb_status unigram_learn(struct training *training, struct part_text **piece, double **score, int32_t *n, struct cb_err *err) {
    size_t longest = training->options->max_token_chars;
    struct model m = {.words = &training->words, .longest = longest ? longest : LONGEST};
    struct seeds seeds = {0};
    if (m.longest > LONGEST * 4) FAIL(err, CB_E_ARGUMENT, "max_token_chars: %zu; at most %d are taken", longest, LONGEST * 4);
    if (training->words.bytes.n > UINT32_MAX / 2) FAIL(err, CB_E_LIMIT, "training: over 2^31 bytes of different words");
    enum cb_status status = learn(&m, training, &seeds, piece, score, n, err);
    free(seeds.seed), free(m.trie.node);
    return status;
}
