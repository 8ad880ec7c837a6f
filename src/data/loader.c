/* Windows and rows over a corpus, permuted by counter. */
#include "data/loader.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "data/pair.h"
#include "data/permute.h"

struct loader {
    const struct corpus *corpus;
    struct loader_options options;
    struct loader_info info;
    int64_t first, last;  // tokens
    int64_t document, windows;  // no_pack: the first document
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- making one

static enum cb_status options_check(const struct loader *l, struct cb_err *err) {
    const struct loader_options *o = &l->options;
    if (o->batch < 1 || o->seq < 1 || o->batch > INT32_MAX || o->seq > INT32_MAX || o->batch > INT64_MAX / 64 / o->seq)
        FAIL(err, CB_E_ARGUMENT, "loader: found batch %lld and seq %lld; wanted at least 1 and 1", (long long)o->batch, (long long)o->seq);
    if (o->stride < 0 || o->stride > o->seq)
        FAIL(err, CB_E_ARGUMENT, "loader: found stride %lld; wanted 1 to seq, which is %lld", (long long)o->stride, (long long)o->seq);
    if (o->first < 0 || l->first >= l->last || l->last > corpus_info(l->corpus)->tokens)
        FAIL(err, CB_E_ARGUMENT, "loader: found tokens %lld to %lld; wanted a range within %lld", (long long)o->first, (long long)l->last,
             (long long)corpus_info(l->corpus)->tokens);
    return CB_OK;
}

static bool is_blank(const struct loader *l, int64_t begin, int64_t end) { return pair_border(l->corpus, begin, end) == end; }

static struct pair_options pair_options(const struct loader *l) {
    return (struct pair_options){.seq = l->options.seq, .eos = l->options.eos, .pad = l->options.pad};
}

// The part of document i that is in the range.
static void document_extent(const struct loader *l, int64_t i, int64_t *begin, int64_t *end) {
    int64_t start = corpus_document_start(l->corpus, i);
    *begin = start > l->first ? start : l->first;
    *end = smaller(corpus_document_start(l->corpus, i + 1), l->last);
}

// Goes through the documents once: what rows lose.
static enum cb_status documents_count(struct loader *l, struct cb_err *err) {
    const struct pair_options po = pair_options(l);
    struct loader_info *info = &l->info;
    for (int64_t i = l->document; i < l->document + info->documents; i++) {
        int64_t begin, end;
        document_extent(l, i, &begin, &end);
        // a row has T ids and the label of the last
        const int64_t kept = smaller(end - begin, l->options.seq + 1);
        struct pair_cut cut = {.source = end - begin - kept};
        if (l->options.pairs) TRY(pair_row(l->corpus, &po, begin, end, NULL, NULL, NULL, &cut, err));
        info->cut_tokens += cut.source;
        info->cut_documents += cut.source > 0;
        info->cut_target_tokens += cut.target;
        info->cut_targets += cut.target > 0;
        info->blank_rows += l->options.pairs ? is_blank(l, begin, end) : is_blank(l, begin + 1, begin + kept);
    }
    if (l->info.blank_rows == l->info.documents)
        FAIL(err, CB_E_ARGUMENT, "loader: nothing to learn in the first %lld tokens of any of %lld documents; wanted a longer --seq",
             (long long)l->options.seq, (long long)l->info.documents);
    return CB_OK;
}

static enum cb_status windows_count(struct loader *l, struct cb_err *err) {
    const struct loader_options *o = &l->options;
    l->document = corpus_document_at(l->corpus, l->first);
    l->info.documents = corpus_document_at(l->corpus, l->last - 1) - l->document + 1;
    l->info.tokens = l->last - l->first;
    if (o->no_pack) {
        l->windows = l->info.documents;
        return documents_count(l, err);
    }
    if (l->info.tokens < 2) FAIL(err, CB_E_ARGUMENT, "text: found %lld tokens; wanted 2 at least", (long long)l->info.tokens);
    if (o->evaluation) return CB_OK;
    if (l->info.tokens < o->seq + 1)
        FAIL(err, CB_E_ARGUMENT,
             "text: found %lld tokens, fewer than one window of --seq %lld and the token after it; wanted more text or --seq %lld",
             (long long)l->info.tokens, (long long)o->seq, (long long)(l->info.tokens > 2 ? l->info.tokens - 1 : 1));
    l->windows = l->info.tokens / o->seq;
    l->info.cut_tokens = l->info.tokens % o->seq;
    if (corpus_info(l->corpus)->learnt == corpus_info(l->corpus)->tokens) return CB_OK;
    // of windows that begin with the range: those of an epoch lie elsewhere
    for (int64_t i = 0; i < l->windows; i++) {
        int64_t begin = l->first + i * o->seq + 1;
        l->info.blank_rows += is_blank(l, begin, smaller(begin + o->seq, l->last));
    }
    if (l->info.blank_rows == l->windows)
        FAIL(err, CB_E_ARGUMENT, "loader: nothing to learn in %lld tokens; wanted text, completions or an assistant's turns",
             (long long)l->info.tokens);
    return CB_OK;
}

enum cb_status loader_create(struct loader **out, const struct corpus *corpus, const struct loader_options *options, struct cb_err *err) {
    *out = NULL;
    struct loader *l = calloc(1, sizeof *l);
    if (!l) FAIL(err, CB_E_MEMORY, "loader: out of memory");
    l->corpus = corpus;
    l->options = *options;
    l->first = options->first;
    l->last = options->last ? options->last : corpus_info(corpus)->tokens;
    enum cb_status status = options_check(l, err);
    if (status == CB_OK) status = windows_count(l, err);
    if (status != CB_OK)
        loader_destroy(&l);
    else
        *out = l;
    return status;
}

void loader_destroy(struct loader **loader) {
    if (!loader) return;
    free(*loader);
    *loader = NULL;
}

int64_t loader_windows(const struct loader *loader) { return loader->windows; }
const struct loader_info *loader_info(const struct loader *loader) { return &loader->info; }
const struct loader_options *loader_options(const struct loader *loader) { return &loader->options; }
int64_t loader_batches(const struct loader *l, int64_t epochs) {
    if (!l->windows) return 0;
    if (epochs > INT64_MAX / l->windows - l->options.batch) return INT64_MAX;
    return (epochs * l->windows + l->options.batch - 1) / l->options.batch;
}

// ---- rows

struct row {
    int32_t *ids, *labels, *segments, *positions;  // of this row; the last two nullable
};

// Documents within tokens [begin, begin + n) at places t of the row; the number goes on from *segment.
static void row_borders(const struct loader *l, const struct row *r, int64_t t, int64_t begin, int64_t n, int32_t *segment) {
    int64_t document = corpus_document_at(l->corpus, begin), start = begin;
    int64_t next = corpus_document_start(l->corpus, document + 1);
    for (int64_t i = 0; i < n; i++) {
        if (begin + i == next) {
            if (l->options.segments && t + i > 0) r->labels[t + i - 1] = LOADER_IGNORE;
            start = next;
            ++*segment;
            next = corpus_document_start(l->corpus, ++document + 1);
        }
        if (r->segments) r->segments[t + i] = *segment;
        if (r->positions) r->positions[t + i] = (int32_t)(begin + i - start);
    }
    // the label of the last place is the first token of the next document
    if (l->options.segments && begin + n == next) r->labels[t + n - 1] = LOADER_IGNORE;
}

// Tokens [begin, begin + n) into places t.. of the row, n > 0; the label of the last one is the token at `begin + n` where that is below `end`.
static enum cb_status row_fill(const struct loader *l, const struct row *r, int64_t t, int64_t begin, int64_t n, int64_t end,
                               int32_t *segment, struct cb_err *err) {
    TRY(corpus_read(l->corpus, r->ids + t, begin, n, err));
    int64_t n_labels = begin + n < end ? n : n - 1;
    TRY(corpus_read(l->corpus, r->labels + t, begin + 1, n_labels, err));
    if (n_labels) corpus_unlearn(l->corpus, r->labels + t, begin + 1, n_labels);
    if (n_labels < n) r->labels[t + n - 1] = LOADER_IGNORE;
    row_borders(l, r, t, begin, n, segment);
    return CB_OK;
}

static void row_pad(const struct loader *l, const struct row *r, int64_t t) {
    for (; t < l->options.seq; t++) {
        r->ids[t] = l->options.pad;
        r->labels[t] = LOADER_IGNORE;
        // a source without tokens sees its first place
        if (r->segments) r->segments[t] = l->options.pairs ? t == 0 : -1;
        if (r->positions) r->positions[t] = 0;
    }
}

static enum cb_status row_document(const struct loader *l, const struct row *r, int64_t i, struct cb_err *err) {
    int64_t begin, end;
    int32_t segment = 0;
    document_extent(l, l->document + i, &begin, &end);
    if (l->options.pairs) {
        const struct pair_options po = pair_options(l);
        return pair_row(l->corpus, &po, begin, end, r->ids, r->labels, r->segments, NULL, err);
    }
    int64_t kept = smaller(end - begin, l->options.seq);
    TRY(row_fill(l, r, 0, begin, kept, end, &segment, err));
    row_pad(l, r, kept);
    return CB_OK;
}

// Window i of an epoch whose first window begins at token `phase` of the range; where the range ends it goes on at its beginning.
static enum cb_status row_window(const struct loader *l, const struct row *r, int64_t i, int64_t phase, struct cb_err *err) {
    int64_t seq = l->options.seq, at = phase + i * seq;
    if (at >= l->info.tokens) at -= l->info.tokens;
    int64_t n = smaller(seq, l->info.tokens - at);
    int32_t segment = 0;
    TRY(row_fill(l, r, 0, l->first + at, n, l->last, &segment, err));
    if (n == seq) return CB_OK;
    segment++;
    return row_fill(l, r, n, l->first, seq - n, l->last, &segment, err);
}

static struct row row_of(const struct loader *l, int64_t b, int32_t *ids, int32_t *labels, int32_t *segments, int32_t *positions) {
    int64_t at = b * l->options.seq;
    return (struct row){ids + at, labels + at, segments ? segments + at : NULL, positions ? positions + at : NULL};
}

enum cb_status loader_batch(const struct loader *l, int64_t index, int32_t *ids, int32_t *labels, int32_t *segments, int32_t *positions,
                            struct cb_err *err) {
    const struct loader_options *o = &l->options;
    if (index < 0 || index > INT64_MAX / o->batch - 1) FAIL(err, CB_E_ARGUMENT, "loader: batch %lld; wanted at least 0", (long long)index);
    if (!l->windows) FAIL(err, CB_E_ARGUMENT, "loader: made for evaluation; wanted one for training");
    for (int64_t b = 0; b < o->batch; b++) {
        int64_t number = index * o->batch + b, epoch = number / l->windows;
        int64_t i = (int64_t)permute((uint64_t)(number % l->windows), (uint64_t)l->windows, o->seed, (uint64_t)epoch);
        struct row r = row_of(l, b, ids, labels, segments, positions);
        if (o->no_pack) {
            TRY(row_document(l, &r, i, err));
            continue;
        }
        struct rng rng = rng_make(o->seed ^ rng_hash("loader phase"), (uint64_t)epoch);
        TRY(row_window(l, &r, i, (int64_t)rng_below(&rng, (uint64_t)l->info.tokens), err));
    }
    return CB_OK;
}

// ---- validation

static int64_t valid_stride(const struct loader *l) { return l->options.stride ? l->options.stride : l->options.seq; }

// Windows until the last token has been a label.
static int64_t valid_rows(const struct loader *l) {
    if (l->options.no_pack) return l->info.documents;
    int64_t targets = l->info.tokens - 1, stride = valid_stride(l);
    return targets <= l->options.seq ? 1 : 1 + (targets - l->options.seq + stride - 1) / stride;
}

int64_t loader_valid_batches(const struct loader *l) { return (valid_rows(l) + l->options.batch - 1) / l->options.batch; }

static enum cb_status valid_window(const struct loader *l, const struct row *r, int64_t i, struct cb_err *err) {
    int64_t begin = l->first + i * valid_stride(l), n = smaller(l->options.seq, l->last - begin);
    int32_t segment = 0;
    TRY(row_fill(l, r, 0, begin, n, l->last, &segment, err));
    // what the window before has scored is context here
    int64_t context = i ? smaller(n, l->options.seq - valid_stride(l)) : 0;
    for (int64_t t = 0; t < context; t++) r->labels[t] = LOADER_IGNORE;
    row_pad(l, r, n);
    return CB_OK;
}

enum cb_status loader_valid(const struct loader *l, int64_t index, int32_t *ids, int32_t *labels, int32_t *segments, int32_t *positions,
                            struct cb_err *err) {
    if (index < 0 || index >= loader_valid_batches(l))
        FAIL(err, CB_E_ARGUMENT, "loader: validation batch %lld; wanted one of %lld", (long long)index, (long long)loader_valid_batches(l));
    for (int64_t b = 0; b < l->options.batch; b++) {
        int64_t i = index * l->options.batch + b;
        struct row r = row_of(l, b, ids, labels, segments, positions);
        if (i >= valid_rows(l))
            row_pad(l, &r, 0);
        else if (l->options.no_pack)
            TRY(row_document(l, &r, i, err));
        else
            TRY(valid_window(l, &r, i, err));
    }
    return CB_OK;
}
