/* Rewriting a piece of text while keeping, for each byte, the range of the raw text that it comes from. */
#include "text/parts.h"
#include "text/utf8.h"

/* The range of byte i. */
static struct align align_at(const struct piece *piece, size_t i) {
    if (piece->align) return piece->align[i];
    size_t from = i;
    while (from && utf8_is_tail(piece->text[from])) from--;
    uint32_t begin = piece->begin + (uint32_t)from, length = (uint32_t)utf8_length(piece->text[from]);
    return (struct align){begin, begin + (length < piece->n - from ? length : (uint32_t)(piece->n - from))};
}

struct align piece_range(const struct piece *piece, size_t from, size_t to) {
    if (from >= to || to > piece->n) {
        uint32_t at = from < piece->n ? align_at(piece, from).begin : piece->end;
        return (struct align){at, at};
    }
    return (struct align){align_at(piece, from).begin, align_at(piece, to - 1).end};
}

struct piece piece_slice(const struct piece *piece, size_t from, size_t to) {
    struct piece s = {piece->text + from, to - from, NULL, 0, 0};
    struct align range = {piece->begin + (uint32_t)from, piece->begin + (uint32_t)to};
    if (piece->align) {
        s.align = piece->align + from;
        range = piece_range(piece, from, to);
    }
    s.begin = range.begin, s.end = range.end;
    return s;
}

struct rewrite rewrite_begin(struct track *out, const struct piece *in, bool tracking) {
    out->n = 0;
    return (struct rewrite){in, out, 0, tracking};
}

static enum cb_status track_reserve(struct rewrite *r, size_t more, struct cb_err *err) {
    struct track *t = r->out;
    if (t->n + more > (size_t)1 << 31) FAIL(err, CB_E_LIMIT, "text: over 2^31 bytes after normalising");
    TRY(buffer_grow((void **)&t->text, &t->n_text, t->n + more, 1, err));
    if (r->tracking) TRY(buffer_grow((void **)&t->align, &t->n_align, t->n + more, sizeof *t->align, err));
    return CB_OK;
}

static enum cb_status put(struct rewrite *r, const char *bytes, size_t n, struct align align, struct cb_err *err) {
    if (!n) return CB_OK;
    TRY(track_reserve(r, n, err));
    struct track *t = r->out;
    memcpy(t->text + t->n, bytes, n);
    if (r->tracking)
        for (size_t i = 0; i < n; i++) t->align[t->n + i] = align;
    t->n += n;
    return CB_OK;
}

/* The range of what is inserted here. */
static struct align align_inserted(const struct rewrite *r) {
    if (!r->tracking) return (struct align){0, 0};
    return r->at ? align_at(r->in, r->at - 1) : (struct align){r->in->begin, r->in->begin};
}

enum cb_status rewrite_emit(struct rewrite *r, uint32_t cp, int change, struct cb_err *err) {
    const struct piece *in = r->in;
    struct align align = {0, 0};
    if (change > 0 || r->at >= in->n)
        align = align_inserted(r);
    else {
        if (r->tracking) align = align_at(in, r->at);
        for (int k = 0; k <= -change && r->at < in->n; k++) r->at += (size_t)utf8_length(in->text[r->at]);
    }
    char bytes[4];
    return put(r, bytes, (size_t)utf8_encode(bytes, cp), align, err);
}

enum cb_status rewrite_ascii(struct rewrite *r, char c, struct cb_err *err) {
    struct track *t = r->out;
    if (t->n == t->n_text || (r->tracking && t->n == t->n_align)) TRY(track_reserve(r, 1, err));
    if (r->tracking) t->align[t->n] = align_at(r->in, r->at);
    t->text[t->n++] = c, r->at++;
    return CB_OK;
}

void rewrite_skip(struct rewrite *r, size_t bytes) { r->at += bytes; }

enum cb_status rewrite_keep(struct rewrite *r, size_t bytes, struct cb_err *err) {
    TRY(track_reserve(r, bytes, err));
    struct track *t = r->out;
    if (bytes) memcpy(t->text + t->n, r->in->text + r->at, bytes);
    if (r->tracking)
        for (size_t i = 0; i < bytes; i++) t->align[t->n + i] = align_at(r->in, r->at + i);
    t->n += bytes, r->at += bytes;
    return CB_OK;
}

enum cb_status rewrite_text(struct rewrite *r, const char *text, size_t n, struct cb_err *err) {
    return put(r, text, n, align_inserted(r), err);
}

enum cb_status rewrite_span(struct rewrite *r, const char *text, size_t n, size_t bytes, struct cb_err *err) {
    const struct piece *in = r->in;
    struct align align = {0, 0};
    size_t from = r->at, to = bytes < in->n - from ? from + bytes : in->n;
    if (r->tracking && !in->align) align = (struct align){in->begin + (uint32_t)from, in->begin + (uint32_t)to};
    if (r->tracking && in->align) align = piece_range(in, from, to);
    return put(r, text, n, align, err);
}

enum cb_status rewrite_prefix(struct rewrite *r, const char *text, size_t n, struct cb_err *err) {
    return put(r, text, n, r->tracking ? align_at(r->in, 0) : (struct align){0, 0}, err);
}

struct piece rewrite_end(struct rewrite *r) {
    struct track *t = r->out;
    struct piece p = {t->text ? t->text : "", t->n, NULL, r->in->begin, r->in->end};
    if (r->tracking && t->align) p.align = t->align;
    return p;
}
