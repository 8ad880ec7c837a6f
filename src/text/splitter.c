/* The five behaviours of cutting text at matches, as tokenizer.json names them. */
#include "text/parts.h"

const char *const split_behavior_names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous", NULL};

struct splitter splitter_begin(struct encoder *e, int stage, const struct piece *in, enum split_behavior behavior, bool invert) {
    return (struct splitter){.e = e, .stage = stage, .in = in, .behavior = behavior, .invert = invert};
}

static enum cb_status emit(struct splitter *s, size_t from, size_t to, struct cb_err *err) {
    struct piece p = piece_slice(s->in, from, to);
    return p.n ? encoder_emit(s->e, s->stage, &p, err) : CB_OK;
}

static enum cb_status flush(struct splitter *s, struct cb_err *err) {
    if (!s->pending) return CB_OK;
    s->pending = false;
    return emit(s, s->from, s->to, err);
}

/* The next span in order, a match or what lies between two. One span is held back where it may still grow. */
static enum cb_status span(struct splitter *s, size_t from, size_t to, bool match, struct cb_err *err) {
    match = match != s->invert;
    bool join = false;
    switch (s->behavior) {
        case SPLIT_REMOVED: return match ? CB_OK : emit(s, from, to, err);
        case SPLIT_ISOLATED: return emit(s, from, to, err);
        case SPLIT_MERGED_PREVIOUS: join = match && !s->pending_match; break;
        case SPLIT_MERGED_NEXT: join = !match && s->pending_match; break;
        case SPLIT_CONTIGUOUS: join = match == s->pending_match; break;
    }
    if (s->pending && join)
        s->to = to;
    else {
        TRY(flush(s, err));
        s->from = from, s->to = to, s->pending = true;
    }
    s->pending_match = match;
    return CB_OK;
}

enum cb_status splitter_match(struct splitter *s, size_t from, size_t to, struct cb_err *err) {
    if (from > s->at) TRY(span(s, s->at, from, false, err));
    s->at = to;
    return span(s, from, to, true, err);
}

enum cb_status splitter_end(struct splitter *s, struct cb_err *err) {
    if (s->at < s->in->n) TRY(span(s, s->at, s->in->n, false, err));
    return flush(s, err);
}
