/* Pre-tokenisers: how text is cut into the words that the model sees. */
#include "text/bytelevel.h"
#include "text/parts.h"
#include "text/unicode.h"
#include "text/utf8.h"

/* ---- characters of a kind as matches */

/* Every character that the test accepts is a match of its own. */
static enum cb_status split_chars(struct encoder *e, int stage, const struct piece *piece, enum split_behavior behavior, uint32_t wanted,
                                  bool (*test)(uint32_t cp, uint32_t wanted), struct cb_err *err) {
    struct splitter s = splitter_begin(e, stage, piece, behavior, false);
    uint32_t cp = 0;
    for (size_t at = 0, length; at < piece->n; at += length) {
        length = (size_t)utf8_decode(piece->text + at, piece->n - at, &cp);
        if (!length) length = 1;
        if (test(cp, wanted)) TRY(splitter_match(&s, at, at + length, err));
    }
    return splitter_end(&s, err);
}

static bool is_space(uint32_t cp, uint32_t wanted) { return (void)wanted, unicode_is_space(cp); }
static bool is_number(uint32_t cp, uint32_t wanted) { return (void)wanted, unicode_is_number(cp); }
static bool is_punctuation(uint32_t cp, uint32_t wanted) { return (void)wanted, unicode_is_punctuation(cp); }
static bool is_same(uint32_t cp, uint32_t wanted) { return cp == wanted; }

static enum cb_status whitespace_split(const struct part *part, struct encoder *e, int stage, const struct piece *piece,
                                       struct cb_err *err) {
    (void)part;
    return split_chars(e, stage, piece, SPLIT_REMOVED, 0, is_space, err);
}
static const struct part_kind whitespace_split_kind = {.type = "WhitespaceSplit", .split = whitespace_split};

static enum cb_status digits(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    return split_chars(e, stage, piece, part->flag[0] ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, 0, is_number, err);
}
static const struct part_kind digits_kind = {
    .type = "Digits", .field = {{"individual_digits", FIELD_FLAG, 0, .preset = 0}}, .split = digits};

static enum cb_status punctuation(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    return split_chars(e, stage, piece, (enum split_behavior)part->number[0], 0, is_punctuation, err);
}
static const struct part_kind punctuation_kind = {
    .type = "Punctuation",
    .field = {{"behavior", FIELD_CHOICE, 0, .preset = SPLIT_ISOLATED, .choice = split_behavior_names}},
    .split = punctuation};

static enum cb_status delimiter(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    return split_chars(e, stage, piece, SPLIT_REMOVED, (uint32_t)part->number[0], is_same, err);
}
static const struct part_kind delimiter_kind = {
    .type = "CharDelimiterSplit", .field = {{"delimiter", FIELD_CHAR, 0, .required = true}}, .split = delimiter};

/* BERT: white space is dropped, punctuation stands alone. */
static enum cb_status bert(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    (void)part;
    struct splitter s = splitter_begin(e, stage, piece, SPLIT_ISOLATED, false);
    uint32_t cp = 0;
    for (size_t at = 0, length; at < piece->n; at += length) {
        length = (size_t)utf8_decode(piece->text + at, piece->n - at, &cp);
        if (!length) length = 1;
        if (unicode_is_punctuation(cp)) {
            TRY(splitter_match(&s, at, at + length, err));
        } else if (unicode_is_space(cp)) {
            struct piece before = piece_slice(piece, s.at, at);
            TRY(encoder_emit(e, stage, &before, err));
            s.at = at + length;
        }
    }
    return splitter_end(&s, err);
}
static const struct part_kind bert_kind = {.type = "BertPreTokenizer", .split = bert};

/* \w+|[^\w\s]+ and nothing else. */
static enum cb_status whitespace(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    (void)part;
    size_t from = 0;
    int kind = 0;  // 0 space, 1 word, 2 other
    uint32_t cp = 0;
    for (size_t at = 0, length; at <= piece->n; at += length) {
        int next = 0;
        length = at < piece->n ? (size_t)utf8_decode(piece->text + at, piece->n - at, &cp) : 0;
        if (!length) length = 1;
        if (at < piece->n) next = unicode_is_word(cp) ? 1 : unicode_is_space(cp) ? 0 : 2;
        if (next == kind && at < piece->n) continue;
        struct piece word = piece_slice(piece, from, at);
        if (kind && word.n) TRY(encoder_emit(e, stage, &word, err));
        from = at, kind = next;
    }
    return CB_OK;
}
static const struct part_kind whitespace_kind = {.type = "Whitespace", .split = whitespace};

static enum cb_status fixed_length(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    int64_t count = 0;
    size_t from = 0;
    for (size_t at = 0; at <= piece->n; at++) {
        if (at < piece->n && (utf8_is_tail(piece->text[at]) || count++ < part->number[0])) continue;
        struct piece word = piece_slice(piece, from, at);
        TRY(encoder_emit(e, stage, &word, err));
        from = at, count = 1;
    }
    return CB_OK;
}

static enum cb_status fixed_length_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    (void)t, (void)json;
    if (part->number[0] < 1) FAIL(err, CB_E_FORMAT, "%s: length: found 0; at least 1 is wanted", where);
    return CB_OK;
}
static const struct part_kind fixed_length_kind = {
    .type = "FixedLength", .field = {{"length", FIELD_COUNT, 0, .preset = 5}}, .read = fixed_length_read, .split = fixed_length};

/* ---- patterns */

static enum cb_status split_text(struct splitter *s, const struct part_text *needle, struct cb_err *err) {
    const char *text = s->in->text, *hit;
    for (size_t at = 0; needle->n && at < s->in->n; at = (size_t)(hit - text) + needle->n) {
        if (!(hit = memmem(text + at, s->in->n - at, needle->text, needle->n))) break;
        TRY(splitter_match(s, (size_t)(hit - text), (size_t)(hit - text) + needle->n, err));
    }
    return splitter_end(s, err);
}

static enum cb_status split_regex(struct splitter *s, const struct regex *regex, struct cb_err *err) {
    const char *text = s->in->text;
    size_t n = s->in->n;
    int64_t from, to, last = -1;
    for (size_t at = 0; at <= n;) {
        TRY(regex_find(regex, &from, &to, &s->e->scratch, text, n, at, err));
        if (from < 0) break;
        // an empty match right after the last one does not count
        if (from == to && to == last) {
            at += at < n ? (size_t)utf8_length(text[at]) : 1;
            continue;
        }
        TRY(splitter_match(s, (size_t)from, (size_t)to, err));
        at = (size_t)to, last = to;
    }
    return splitter_end(s, err);
}

static enum cb_status split(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    enum split_behavior behavior = (enum split_behavior)part->number[1];
    if (part->data && !part->flag[0] && behavior == SPLIT_ISOLATED)
        return bytelevel_cut(e, stage, piece, *(const enum bytelevel_pattern *)part->data, false, err);
    struct splitter s = splitter_begin(e, stage, piece, behavior, part->flag[0]);
    return part->regex ? split_regex(&s, part->regex, err) : split_text(&s, &part->text[0], err);
}

/* Patterns that have a matcher of their own are told by their text. */
static enum cb_status split_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    (void)json;
    int known = part->regex ? bytelevel_pattern_find(part->text[0].text) : -1;
    if (known < 0) return CB_OK;
    enum bytelevel_pattern *pattern = part->data = arena_alloc(t->arena, sizeof *pattern);
    if (!pattern) FAIL(err, CB_E_MEMORY, "%s: no memory", where);
    *pattern = (enum bytelevel_pattern)known;
    return CB_OK;
}
static const struct part_kind split_kind = {.type = "Split",
                                            .field = {{"pattern", FIELD_PATTERN, 0, .required = true},
                                                      {"behavior", FIELD_CHOICE, 1, .required = true, .choice = split_behavior_names},
                                                      {"invert", FIELD_FLAG, 0, .preset = 0}},
                                            .read = split_read,
                                            .split = split};

/* ---- Metaspace (SentencePiece): spaces become a visible sign */

static const char *const scheme_names[] = {"always", "first", "never", NULL};

static enum cb_status metaspace(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    const struct part_text *sign = &part->text[0];
    struct track *track = &e->track[2 + stage * 2];
    struct piece now = *piece;
    // spaces
    struct rewrite r = rewrite_begin(&track[0], piece, e->tracking);
    for (size_t at = 0; at < piece->n; at = r.at) {
        const char *space = memchr(piece->text + at, ' ', piece->n - at);
        TRY(rewrite_keep(&r, space ? (size_t)(space - piece->text) - at : piece->n - at, err));
        if (!space) break;
        rewrite_skip(&r, 1);
        TRY(rewrite_text(&r, sign->text, sign->n, err));
    }
    now = rewrite_end(&r);
    // the sign before all
    bool has = now.n >= sign->n && !memcmp(now.text, sign->text, sign->n);
    if (!has && (part->number[1] == 0 || (part->number[1] == 1 && now.begin == 0))) {
        struct piece before = now;
        r = rewrite_begin(&track[1], &before, e->tracking);
        TRY(rewrite_prefix(&r, sign->text, sign->n, err));
        TRY(rewrite_keep(&r, before.n, err));
        now = rewrite_end(&r);
        now.begin = before.begin, now.end = before.end;
    }
    if (!part->flag[0]) return encoder_emit(e, stage, &now, err);
    struct splitter s = splitter_begin(e, stage, &now, SPLIT_MERGED_NEXT, false);
    return split_text(&s, sign, err);
}

/* Old files say add_prefix_space instead of prepend_scheme. */
enum cb_status metaspace_read(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err) {
    (void)t;
    bool prefix = true;
    TRY(json_get_bool(&prefix, json, where, "add_prefix_space", false, err));
    if (!json_object_get(json, "prepend_scheme") && !prefix) part->number[1] = 2;
    return CB_OK;
}
static const struct part_kind metaspace_kind = {.type = "Metaspace",
                                                .field = {{"replacement", FIELD_CHAR, 0, .required = true},
                                                          {"prepend_scheme", FIELD_CHOICE, 1, .choice = scheme_names},
                                                          {"split", FIELD_FLAG, 0, .preset = 1}},
                                                .read = metaspace_read,
                                                .split = metaspace};

/* ---- ByteLevel (GPT-2) */

static enum cb_status bytelevel(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    struct piece now = *piece;
    if (part->flag[0] && piece->text[0] != ' ') {
        struct rewrite r = rewrite_begin(&e->track[2 + stage * 2], piece, e->tracking);
        TRY(rewrite_prefix(&r, " ", 1, err));
        TRY(rewrite_keep(&r, piece->n, err));
        now = rewrite_end(&r);
    }
    if (part->flag[2]) return bytelevel_cut(e, stage, &now, BYTELEVEL_GPT2, true, err);
    return bytelevel_emit(e, stage, &now, err);
}
static const struct part_kind bytelevel_kind = {.type = "ByteLevel",
                                                .field = {{"add_prefix_space", FIELD_FLAG, 0, .preset = 1},
                                                          {"trim_offsets", FIELD_FLAG, 1, .preset = 1},
                                                          {"use_regex", FIELD_FLAG, 2, .preset = 1}},
                                                .split = bytelevel};

/* Its parts become stages of their own, so it is never run. */
static const struct part_kind sequence_kind = {.type = "Sequence", .field = {{"pretokenizers", FIELD_PARTS, 0, .required = true}}};

const struct part_kind *const pre_tokenizer_kinds[] = {&bert_kind,
                                                       &bytelevel_kind,
                                                       &delimiter_kind,
                                                       &digits_kind,
                                                       &fixed_length_kind,
                                                       &metaspace_kind,
                                                       &punctuation_kind,
                                                       &sequence_kind,
                                                       &split_kind,
                                                       &unicode_scripts_kind,
                                                       &whitespace_kind,
                                                       &whitespace_split_kind,
                                                       NULL};
