/* Normalisers: the text is rewritten before it is cut. */
#include "text/normalise.h"

#include "text/bytelevel.h"
#include "text/unicode.h"
#include "text/utf8.h"

/* ---- one character at a time */

/* Replaces every character by what map makes of it: its count (0 drops it) and characters. */
static enum cb_status map_chars(struct encoder *e, struct track *out, struct piece *piece,
                                int (*map)(uint32_t *to, uint32_t cp, unsigned flags), unsigned flags, struct cb_err *err) {
    struct piece in = *piece;
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    while (r.at < in.n) {
        uint32_t cp = 0, to[4] = {0};
        int length = utf8_decode(in.text + r.at, in.n - r.at, &cp), n = map(to, cp, flags);
        if (n == 1 && length == 1 && to[0] < 0x80) {
            TRY(rewrite_ascii(&r, (char)to[0], err));
            continue;
        }
        if (!n) rewrite_skip(&r, (size_t)(length ? length : 1));
        for (int i = 0; i < n; i++) TRY(rewrite_emit(&r, to[i], i > 0, err));
    }
    *piece = rewrite_end(&r);
    return CB_OK;
}

static int map_lower(uint32_t *to, uint32_t cp, unsigned flags) { return (void)flags, unicode_lower(to, cp); }
static enum cb_status lowercase(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    return map_chars(e, out, piece, map_lower, 0, err);
}
static const struct part_kind lowercase_kind = {.type = "Lowercase", .normalise = lowercase};

static int map_strip_marks(uint32_t *to, uint32_t cp, unsigned flags) {
    to[0] = cp;
    return flags ? !unicode_is_nonspacing(cp) : !unicode_is_accent(cp);
}
static enum cb_status strip_accents(const struct part *part, struct encoder *e, struct track *out, struct piece *piece,
                                    struct cb_err *err) {
    (void)part;
    return map_chars(e, out, piece, map_strip_marks, 0, err);
}
static const struct part_kind strip_accents_kind = {.type = "StripAccents", .normalise = strip_accents};

/* The rules of the NMT task: controls vanish, odd spaces become one. */
static int map_nmt(uint32_t *to, uint32_t cp, unsigned flags) {
    (void)flags;
    to[0] = cp;
    if ((cp >= 1 && cp <= 8) || cp == 11 || (cp >= 14 && cp <= 31) || cp == 127 || cp == 0x8f || cp == 0x9f) return 0;
    if (cp == 9 || cp == 10 || cp == 12 || cp == 13 || cp == 0x1680 || (cp >= 0x200b && cp <= 0x200f) || cp == 0x2028 || cp == 0x2029 ||
        cp == 0x2581 || cp == 0xfeff || cp == 0xfffd)
        to[0] = ' ';
    return 1;
}
static enum cb_status nmt(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    return map_chars(e, out, piece, map_nmt, 0, err);
}
static const struct part_kind nmt_kind = {.type = "Nmt", .normalise = nmt};

static enum cb_status bytes(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    struct piece in = *piece;
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    for (size_t i = 0; i < in.n; i++) {
        char mapped[4];
        rewrite_skip(&r, 1);
        TRY(rewrite_text(&r, mapped, (size_t)utf8_encode(mapped, byte_to_char((unsigned char)in.text[i])), err));
    }
    *piece = rewrite_end(&r);
    return CB_OK;
}
static const struct part_kind bytes_kind = {.type = "ByteLevel", .normalise = bytes};

/* ---- Unicode normal forms (UAX 15) */

static enum cb_status nfc(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    return normal_form(e, out, piece, true, false, err);
}
static enum cb_status nfd(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    return normal_form(e, out, piece, false, false, err);
}
static enum cb_status nfkc(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    return normal_form(e, out, piece, true, true, err);
}
static enum cb_status nfkd(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)part;
    return normal_form(e, out, piece, false, true, err);
}
static const struct part_kind nfc_kind = {.type = "NFC", .normalise = nfc}, nfd_kind = {.type = "NFD", .normalise = nfd},
                              nfkc_kind = {.type = "NFKC", .normalise = nfkc}, nfkd_kind = {.type = "NFKD", .normalise = nfkd};

/* ---- whole texts */

static enum cb_status strip(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)e, (void)out, (void)err;
    size_t from = 0, to = piece->n;
    uint32_t cp = 0;
    for (int length; part->flag[0] && from < to; from += (size_t)length) {
        length = utf8_decode(piece->text + from, to - from, &cp);
        if (!length || !unicode_is_space(cp)) break;
    }
    while (part->flag[1] && to > from) {
        size_t at = to - 1;
        while (at > from && utf8_is_tail(piece->text[at])) at--;
        if (!utf8_decode(piece->text + at, to - at, &cp) || !unicode_is_space(cp)) break;
        to = at;
    }
    *piece = piece_slice(piece, from, to);
    return CB_OK;
}
static const struct part_kind strip_kind = {
    .type = "Strip",
    .field = {{"strip_left", FIELD_FLAG, 0, .required = true}, {"strip_right", FIELD_FLAG, 1, .required = true}},
    .normalise = strip};

static enum cb_status prepend(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    if (!piece->n) return CB_OK;
    struct piece in = *piece;
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    TRY(rewrite_prefix(&r, part->text[0].text, part->text[0].n, err));
    TRY(rewrite_keep(&r, in.n, err));
    *piece = rewrite_end(&r);
    return CB_OK;
}
static const struct part_kind prepend_kind = {
    .type = "Prepend", .field = {{"prepend", FIELD_TEXT, 0, .required = true}}, .normalise = prepend};

/* The next match of a part's pattern, as regex_find. */
static enum cb_status pattern_next(const struct part *part, struct regex_scratch **scratch, const char *text, size_t n, size_t at,
                                   int64_t *from, int64_t *to, struct cb_err *err) {
    if (part->regex) return regex_find(part->regex, from, to, scratch, text, n, at, err);
    const struct part_text *needle = &part->text[0];
    const char *hit = needle->n && at < n ? memmem(text + at, n - at, needle->text, needle->n) : NULL;
    *from = hit ? hit - text : -1, *to = *from + (int64_t)needle->n;
    return CB_OK;
}

enum cb_status pattern_replace(const struct part *part, struct regex_scratch **scratch, struct rewrite *r, struct cb_err *err) {
    const struct piece *in = r->in;
    int64_t from, to, last = -1;
    for (size_t at = 0; in->n && at <= in->n;) {
        TRY(pattern_next(part, scratch, in->text, in->n, at, &from, &to, err));
        if (from < 0) break;
        if (from == to && to == last) {
            at += at < in->n ? (size_t)utf8_length(in->text[at]) : 1;
            continue;
        }
        TRY(rewrite_keep(r, (size_t)from - r->at, err));
        rewrite_skip(r, (size_t)(to - from));
        TRY(rewrite_text(r, part->text[1].text, part->text[1].n, err));
        at = (size_t)to, last = to;
    }
    return rewrite_keep(r, in->n - r->at, err);
}

static enum cb_status replace(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    struct piece in = *piece;
    struct rewrite r = rewrite_begin(out, &in, e->tracking);
    TRY(pattern_replace(part, &e->scratch, &r, err));
    *piece = rewrite_end(&r);
    return CB_OK;
}
static const struct part_kind replace_kind = {
    .type = "Replace",
    .field = {{"pattern", FIELD_PATTERN, 0, .required = true}, {"content", FIELD_TEXT, 1, .required = true}},
    .normalise = replace};

/* ---- BertNormalizer: its four steps in one kind */

enum { BERT_CLEAN, BERT_CHINESE, BERT_STRIP, BERT_LOWER };

static int map_clean(uint32_t *to, uint32_t cp, unsigned flags) {
    (void)flags;
    bool white = unicode_is_space(cp);
    to[0] = white ? ' ' : cp;
    if (cp == '\t' || cp == '\n' || cp == '\r') return 1;
    return cp != 0 && cp != 0xfffd && !unicode_is_control(cp);
}
static int map_chinese(uint32_t *to, uint32_t cp, unsigned flags) {
    (void)flags;
    if (!unicode_is_ideograph(cp)) return to[0] = cp, 1;
    to[0] = ' ', to[1] = cp, to[2] = ' ';
    return 3;
}

static enum cb_status bert(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err) {
    (void)out;  // the steps take turns with both tracks
    bool accents = part->flag[BERT_STRIP] == 2 ? part->flag[BERT_LOWER] : part->flag[BERT_STRIP];
    if (part->flag[BERT_CLEAN]) TRY(map_chars(e, encoder_free_track(e, piece), piece, map_clean, 0, err));
    if (part->flag[BERT_CHINESE]) TRY(map_chars(e, encoder_free_track(e, piece), piece, map_chinese, 0, err));
    if (accents) {
        TRY(normal_form(e, encoder_free_track(e, piece), piece, false, false, err));
        TRY(map_chars(e, encoder_free_track(e, piece), piece, map_strip_marks, 1, err));
    }
    if (part->flag[BERT_LOWER]) TRY(map_chars(e, encoder_free_track(e, piece), piece, map_lower, 0, err));
    return CB_OK;
}
static const struct part_kind bert_kind = {.type = "BertNormalizer",
                                           .field = {{"clean_text", FIELD_FLAG, BERT_CLEAN, .preset = 1},
                                                     {"handle_chinese_chars", FIELD_FLAG, BERT_CHINESE, .preset = 1},
                                                     {"strip_accents", FIELD_FLAG, BERT_STRIP, .preset = 2},
                                                     {"lowercase", FIELD_FLAG, BERT_LOWER, .preset = 1}},
                                           .normalise = bert};

/* Its parts become normalisers of their own, so it is never run. */
static const struct part_kind sequence_kind = {.type = "Sequence", .field = {{"normalizers", FIELD_PARTS, 0, .required = true}}};

const struct part_kind *const normalizer_kinds[] = {&bert_kind,    &bytes_kind,    &lowercase_kind, &nfc_kind,           &nfd_kind,
                                                    &nfkc_kind,    &nfkd_kind,     &nmt_kind,       &precompiled_kind,   &prepend_kind,
                                                    &replace_kind, &sequence_kind, &strip_kind,     &strip_accents_kind, NULL};
