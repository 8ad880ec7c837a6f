/* Unicode normal forms (UAX 15) that keep the source range of every character. */
#include "text/normalise.h"
#include "text/unicode.h"
#include "text/utf8.h"

/* A decomposed character: what it is, its class, and the change it means (see struct rewrite). */
struct mark {
    uint32_t cp;
    int ccc, change;
};
/* Characters from one starter to the next; longer runs of marks are passed on unsorted. */
#define RUN_LIMIT 256
struct run {
    struct mark mark[RUN_LIMIT];
    int n;
    struct rewrite *r;
    bool compose;
    struct mark starter;  // held back while composing
    bool has_starter;
};

/* Canonical order: a stable sort of marks by class. */
static void run_sort(struct run *run) {
    for (int i = 1; i < run->n; i++) {
        struct mark m = run->mark[i];
        int at = i;
        if (!m.ccc) continue;
        for (; at && run->mark[at - 1].ccc > m.ccc; at--) run->mark[at] = run->mark[at - 1];
        run->mark[at] = m;
    }
}

/* Composes the run onto the starter held back, then writes what cannot change any more. */
static enum cb_status run_compose(struct run *run, struct cb_err *err) {
    int kept = 0, last = -1;
    for (int i = 0; i < run->n; i++) {
        struct mark m = run->mark[i];
        uint32_t joined = run->has_starter && (last < m.ccc) ? unicode_compose(run->starter.cp, m.cp) : 0;
        if (joined && (last < 0 || m.ccc)) {
            run->starter.cp = joined;
            run->starter.change += m.change - 1;
            continue;
        }
        if (!m.ccc || !run->has_starter) {
            // a new starter (or a mark without one): all before it is done
            if (run->has_starter) TRY(rewrite_emit(run->r, run->starter.cp, run->starter.change, err));
            for (int k = 0; k < kept; k++) TRY(rewrite_emit(run->r, run->mark[k].cp, run->mark[k].change, err));
            kept = 0, last = -1;
            run->has_starter = !m.ccc;
            if (m.ccc) TRY(rewrite_emit(run->r, m.cp, m.change, err));
            run->starter = m;
            continue;
        }
        run->mark[kept++] = m;
        last = m.ccc;
    }
    run->n = kept;
    return CB_OK;
}

static enum cb_status run_flush(struct run *run, bool end, struct cb_err *err) {
    run_sort(run);
    if (run->compose) {
        TRY(run_compose(run, err));
        // the next starter may still join this one, if no mark stands between
        if (!end && !run->n) return CB_OK;
        if (run->has_starter) TRY(rewrite_emit(run->r, run->starter.cp, run->starter.change, err));
        run->has_starter = false;
    }
    for (int i = 0; i < run->n; i++) TRY(rewrite_emit(run->r, run->mark[i].cp, run->mark[i].change, err));
    run->n = 0;
    return CB_OK;
}

enum cb_status normal_form(struct encoder *e, struct track *out, struct piece *piece, bool compose, bool compatible, struct cb_err *err) {
    struct piece in = *piece;
    // ASCII is in every form
    size_t ascii = 0;
    while (ascii < in.n && !(in.text[ascii] & 0x80)) ascii++;
    if (ascii == in.n) return CB_OK;
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    struct run run = {.r = &r, .compose = compose};
    for (size_t at = 0, length; at < in.n; at += length) {
        uint32_t cp = 0, to[UNICODE_DECOMPOSED];
        length = (size_t)utf8_decode(in.text + at, in.n - at, &cp);
        if (!length) length = 1;
        int n = unicode_decompose(to, cp, compatible);
        for (int i = 0; i < n; i++) {
            struct mark m = {to[i], unicode_combining(to[i]), i > 0};
            if ((!m.ccc && run.n) || run.n == RUN_LIMIT) TRY(run_flush(&run, run.n == RUN_LIMIT, err));
            run.mark[run.n++] = m;
        }
    }
    TRY(run_flush(&run, true, err));
    *piece = rewrite_end(&r);
    return CB_OK;
}
