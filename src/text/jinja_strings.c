/* Text functions that Jinja's filters and methods share: case, stripping, replacing, padding. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_builtin.h"
#include "text/unicode.h"
#include "text/utf8.h"

enum cb_status jinja_need_string(struct jinja_run *r, const struct jinja_string **out, const struct jinja_value *v) {
    if (v->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, v);
    if (v->kind != JINJA_STRING) JINJA_RAISE(r, "TypeError", "argument must be str, not %s", jinja_type(v));
    *out = v->string;
    return CB_OK;
}

enum cb_status jinja_need_integer(struct jinja_run *r, int64_t *out, const struct jinja_value *v, int64_t otherwise, int64_t low,
                                  int64_t high) {
    *out = otherwise;
    if (!GIVEN(v)) return CB_OK;
    if (v->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, v);
    if (!jinja_is_whole(v)) JINJA_RAISE(r, "TypeError", "'%s' object cannot be interpreted as an integer", jinja_type(v));
    jinja_integer i = jinja_whole(v);
    *out = i < low ? low : i > high ? high : (int64_t)i;
    return CB_OK;
}

size_t jinja_space(const struct jinja_string *s, size_t at) {
    uint32_t cp;
    int length = at < s->n ? utf8_decode(s->data + at, s->n - at, &cp) : 0;
    return length > 0 && (unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f)) ? (size_t)length : 0;
}

static uint32_t point_at(const struct jinja_string *s, size_t at, size_t *length) {
    uint32_t cp = 0;
    int n = utf8_decode(s->data + at, s->n - at, &cp);
    *length = n > 0 ? (size_t)n : 1;
    return cp;
}
static size_t point_before(const struct jinja_string *s, size_t at) {
    do at--;
    while (at > 0 && utf8_is_tail(s->data[at]));
    return at;
}

// ---- case

// A sigma that ends a word: a cased letter before it, none after it (Unicode 3.13, Final_Sigma).
static bool final_sigma(const struct jinja_string *s, size_t at) {
    size_t length, before = at;
    bool cased = false;
    while (before > 0 && !cased) {
        before = point_before(s, before);
        uint32_t cp = point_at(s, before, &length);
        cased = unicode_is_cased(cp) && !unicode_is_case_ignorable(cp);
        if (!cased && !unicode_is_case_ignorable(cp)) return false;
    }
    if (!cased) return false;
    for (size_t after = at + 2; after < s->n; after += length) {
        uint32_t cp = point_at(s, after, &length);
        if (unicode_is_case_ignorable(cp)) continue;
        return !unicode_is_cased(cp);
    }
    return true;
}

enum cb_status jinja_put_case(struct jinja_run *r, struct buffer *b, const struct jinja_string *s, size_t at, enum unicode_case to,
                              size_t *length) {
    uint32_t cp = point_at(s, at, length), mapped[UNICODE_CASED];
    int n = unicode_map_case(mapped, cp, to);
    if (cp == 0x3a3 && to == UNICODE_LOWER && final_sigma(s, at)) mapped[0] = 0x3c2;
    for (int i = 0; i < n; i++) {
        char bytes[4];
        TRY(jinja_put(r, b, bytes, (size_t)utf8_encode(bytes, mapped[i])));
    }
    return CB_OK;
}

enum cb_status jinja_map_case(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, enum unicode_case to) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    for (size_t at = 0, length = 1; at < s->n && status == CB_OK; at += length) status = jinja_put_case(r, &b, s, at, to, &length);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

enum cb_status jinja_capitalise(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    for (size_t at = 0, length = 1; at < s->n && status == CB_OK; at += length)
        status = jinja_put_case(r, &b, s, at, at ? UNICODE_LOWER : UNICODE_TITLE, &length);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

// ---- ends

static bool in_set(const struct jinja_string *s, size_t at, size_t length, const struct jinja_string *set) {
    if (!set) return jinja_space(s, at) > 0;
    for (size_t i = 0; i < set->n; i += (size_t)utf8_length(set->data[i]))
        if ((size_t)utf8_length(set->data[i]) == length && !memcmp(set->data + i, s->data + at, length)) return true;
    return false;
}

enum cb_status jinja_strip(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, const struct jinja_string *set,
                           bool left, bool right) {
    size_t from = 0, to = s->n, length;
    TRY(jinja_work(r, s->n / 8 + (set ? set->n : 0)));
    while (left && from < to) {
        point_at(s, from, &length);
        if (!in_set(s, from, length, set)) break;
        from += length;
    }
    while (right && to > from) {
        size_t at = point_before(s, to);
        if (!in_set(s, at, to - at, set)) break;
        to = at;
    }
    TRY(jinja_borrow(r, out, s->data + from, to - from));
    return CB_OK;
}

// ---- replacing and padding

enum cb_status jinja_replace(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, const struct jinja_string *old,
                             const struct jinja_string *with, int64_t count) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    size_t at = 0;
    while (status == CB_OK && count != 0 && at <= s->n) {
        const char *found = at < s->n || !old->n ? memmem(s->data + at, s->n - at, old->data, old->n) : NULL;
        if (!found) break;
        size_t where = (size_t)(found - s->data);
        status = jinja_put(r, &b, s->data + at, where - at);
        if (status == CB_OK) status = jinja_put(r, &b, with->data, with->n);
        at = where + old->n;
        count--;
        // an empty text stands before every character and at the end
        if (old->n) continue;
        if (at == s->n) break;
        size_t length = (size_t)utf8_length(s->data[at]);
        if (status == CB_OK) status = jinja_put(r, &b, s->data + at, length);
        at += length;
    }
    if (status == CB_OK && at < s->n) status = jinja_put(r, &b, s->data + at, s->n - at);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

enum cb_status jinja_pad(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, int64_t width,
                         const struct jinja_string *fill, char side) {
    static const struct jinja_string blank = {.data = " ", .n = 1, .points = 1};
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    int64_t n = (int64_t)jinja_points(s), pad = width > n ? width - n : 0;
    int64_t left = side == '<' ? 0 : side == '>' ? pad : pad / 2 + (pad & width & 1);
    if (!fill) fill = &blank;
    if (jinja_points(fill) != 1) JINJA_RAISE(r, "TypeError", "The fill character must be exactly one character long");
    for (int64_t i = 0; i < left && status == CB_OK; i++) status = jinja_put(r, &b, fill->data, fill->n);
    if (status == CB_OK) status = jinja_put(r, &b, s->data, s->n);
    for (int64_t i = left; i < pad && status == CB_OK; i++) status = jinja_put(r, &b, fill->data, fill->n);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

enum cb_status jinja_pairs(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *dict, enum jinja_kind kind) {
    if (dict->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, dict);
    if (dict->kind != JINJA_DICT) JINJA_RAISE(r, "TypeError", "Can only get item pairs from a mapping, not %s", jinja_type(dict));
    const struct jinja_dict *d = dict->dict;
    TRY(jinja_new_list(r, out, kind, d->n));
    for (size_t i = 0; i < d->n; i++) {
        TRY(jinja_new_list(r, &out->list->item[i], JINJA_TUPLE, 2));
        out->list->item[i].list->item[0] = d->key[i];
        out->list->item[i].list->item[1] = d->item[i];
    }
    return CB_OK;
}
