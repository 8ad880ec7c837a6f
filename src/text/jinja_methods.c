/* Methods of Python's strings and containers that templates may call. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_builtin.h"
#include "text/unicode.h"
#include "text/utf8.h"

static enum cb_status answer(struct jinja_value *out, bool yes) {
    *out = jinja_bool(yes);
    return CB_OK;
}
static enum cb_status finish(struct jinja_run *r, struct jinja_value *out, struct buffer *b, enum cb_status status) {
    if (status == CB_OK) return jinja_take(r, out, b);
    free(b->data);
    return status;
}
static enum cb_status optional_string(struct jinja_run *r, const struct jinja_string **out, const struct jinja_value *v) {
    *out = NULL;
    return GIVEN(v) ? jinja_need_string(r, out, v) : CB_OK;
}

// ---- case, ends, padding

static enum cb_status m_upper(FILTER) { return (void)args, jinja_map_case(r, out, self->string, UNICODE_UPPER); }
static enum cb_status m_lower(FILTER) { return (void)args, jinja_map_case(r, out, self->string, UNICODE_LOWER); }
static enum cb_status m_casefold(FILTER) { return (void)args, jinja_map_case(r, out, self->string, UNICODE_FOLD); }
static enum cb_status m_capitalize(FILTER) { return (void)args, jinja_capitalise(r, out, self->string); }

// title: after a letter without case or none, a capital; swapcase: the other case.
static enum cb_status recase(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, bool title) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    bool inside = false;
    for (size_t at = 0, length = 1; at < s->n && status == CB_OK; at += length) {
        uint32_t cp = 0;
        utf8_decode(s->data + at, s->n - at, &cp);
        enum unicode_case to = title ? (inside ? UNICODE_LOWER : UNICODE_TITLE) : unicode_is_upper(cp) ? UNICODE_LOWER : UNICODE_UPPER;
        status = jinja_put_case(r, &b, s, at, to, &length);
        inside = unicode_is_cased(cp);
    }
    return finish(r, out, &b, status);
}
static enum cb_status m_title(FILTER) { return (void)args, recase(r, out, self->string, true); }
static enum cb_status m_swapcase(FILTER) { return (void)args, recase(r, out, self->string, false); }

static enum cb_status strip(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                            bool left, bool right) {
    const struct jinja_string *set;
    TRY(optional_string(r, &set, ARG(0)));
    return jinja_strip(r, out, self->string, set, left, right);
}
static enum cb_status m_strip(FILTER) { return strip(r, out, self, args, true, true); }
static enum cb_status m_lstrip(FILTER) { return strip(r, out, self, args, true, false); }
static enum cb_status m_rstrip(FILTER) { return strip(r, out, self, args, false, true); }

static enum cb_status m_removeprefix(FILTER) {
    const struct jinja_string *s = self->string, *prefix;
    TRY(jinja_need_string(r, &prefix, ARG(0)));
    size_t n = s->n >= prefix->n && !memcmp(s->data, prefix->data, prefix->n) ? prefix->n : 0;
    return jinja_borrow(r, out, s->data + n, s->n - n);
}
static enum cb_status m_removesuffix(FILTER) {
    const struct jinja_string *s = self->string, *suffix;
    TRY(jinja_need_string(r, &suffix, ARG(0)));
    bool ends = s->n >= suffix->n && !memcmp(s->data + s->n - suffix->n, suffix->data, suffix->n);
    return jinja_borrow(r, out, s->data, s->n - (ends ? suffix->n : 0));
}

static enum cb_status pad(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                          char side) {
    const struct jinja_string *fill;
    int64_t width;
    TRY(jinja_need_integer(r, &width, ARG(0), 0, 0, INT32_MAX));
    TRY(optional_string(r, &fill, ARG(1)));
    return jinja_pad(r, out, self->string, width, fill, side);
}
static enum cb_status m_ljust(FILTER) { return pad(r, out, self, args, '<'); }
static enum cb_status m_rjust(FILTER) { return pad(r, out, self, args, '>'); }
static enum cb_status m_center(FILTER) { return pad(r, out, self, args, '^'); }

static enum cb_status m_zfill(FILTER) {
    static const struct jinja_string zero = {.data = "0", .n = 1, .points = 1};
    const struct jinja_string *s = self->string;
    int64_t width;
    struct jinja_value rest;
    TRY(jinja_need_integer(r, &width, ARG(0), 0, 0, INT32_MAX));
    bool sign = s->n && (s->data[0] == '-' || s->data[0] == '+');
    struct jinja_string digits = {.data = s->data + sign, .n = s->n - sign, .points = SIZE_MAX};
    TRY(jinja_pad(r, &rest, &digits, width - sign, &zero, '>'));
    struct jinja_string head = {.data = s->data, .n = sign, .points = sign};
    return jinja_append(r, out, &head, rest.string->data, rest.string->n);
}

static enum cb_status m_expandtabs(FILTER) {
    const struct jinja_string *s = self->string;
    int64_t size, column = 0;
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    TRY(jinja_need_integer(r, &size, ARG(0), 8, 0, 1000));
    for (size_t at = 0; at < s->n && status == CB_OK; at++) {
        char c = s->data[at];
        if (c != '\t') {
            column = c == '\n' || c == '\r' ? 0 : column + !utf8_is_tail(c);
            status = jinja_put(r, &b, &c, 1);
            continue;
        }
        for (int64_t i = size ? size - column % size : 0; i > 0 && status == CB_OK; i--, column++) status = jinja_put(r, &b, " ", 1);
    }
    return finish(r, out, &b, status);
}

// ---- splitting

static enum cb_status push_part(struct jinja_run *r, struct jinja_items *items, const char *data, size_t n) {
    struct jinja_value v;
    TRY(jinja_borrow(r, &v, data, n));
    return jinja_push(r, items, &v);
}

static void turn_round(struct jinja_items *items) {
    for (size_t i = 0; i < items->n / 2; i++) {
        struct jinja_value v = items->item[i];
        items->item[i] = items->item[items->n - 1 - i];
        items->item[items->n - 1 - i] = v;
    }
}

// At white space: runs of it part, and none is kept at the ends.
static enum cb_status split_spaces(struct jinja_run *r, struct jinja_items *items, const struct jinja_string *s, int64_t most, bool right) {
    size_t from = 0, to = s->n, step;
    struct jinja_value v;
    TRY(jinja_work(r, s->n));
    for (; to > from; most--) {
        struct jinja_string rest = {.data = s->data + from, .n = to - from, .points = SIZE_MAX};
        TRY(jinja_strip(r, &v, &rest, NULL, !right || !most, right || !most));
        // only the end that is worked on is stripped, the other at the very last
        from = (size_t)(v.string->data - s->data);
        to = from + v.string->n;
        if (from == to) return CB_OK;
        if (!most) {
            struct jinja_value last;
            TRY(jinja_strip(r, &last, &rest, NULL, !right, right));
            return jinja_push(r, items, &last);
        }
        if (right) {
            size_t at = to;
            while (at > from) {
                size_t back = at - 1;
                while (back > from && utf8_is_tail(s->data[back])) back--;
                if (jinja_space(s, back)) break;
                at = back;
            }
            TRY(push_part(r, items, s->data + at, to - at));
            to = at;
        } else {
            size_t at = from;
            while (at < to && !jinja_space(s, at)) {
                step = (size_t)utf8_length(s->data[at]);
                at += step;
            }
            TRY(push_part(r, items, s->data + from, at - from));
            from = at;
        }
    }
    return CB_OK;
}

static const char *last_of(const char *data, size_t n, const struct jinja_string *what) {
    for (size_t at = n >= what->n ? n - what->n + 1 : 0; at-- > 0;)
        if (!memcmp(data + at, what->data, what->n)) return data + at;
    return NULL;
}

static enum cb_status split(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                            bool right) {
    const struct jinja_string *s = self->string, *by;
    struct jinja_items items = {0};
    int64_t most;
    TRY(optional_string(r, &by, ARG(0)));
    TRY(jinja_need_integer(r, &most, ARG(1), -1, -1, INT32_MAX));
    if (by && !by->n) JINJA_RAISE(r, "ValueError", "empty separator");
    TRY(jinja_work(r, s->n));
    if (!by) {
        TRY(split_spaces(r, &items, s, most, right));
    } else {
        size_t from = 0, to = s->n;
        for (const char *found; most != 0; most--) {
            found = right ? last_of(s->data + from, to - from, by) : memmem(s->data + from, to - from, by->data, by->n);
            if (!found) break;
            size_t at = (size_t)(found - s->data);
            TRY(right ? push_part(r, &items, s->data + at + by->n, to - at - by->n) : push_part(r, &items, s->data + from, at - from));
            if (right)
                to = at;
            else
                from = at + by->n;
        }
        TRY(push_part(r, &items, s->data + from, to - from));
    }
    if (right) turn_round(&items);
    return jinja_finish(r, out, JINJA_LIST, &items);
}
static enum cb_status m_split(FILTER) { return split(r, out, self, args, false); }
static enum cb_status m_rsplit(FILTER) { return split(r, out, self, args, true); }

static bool ends_line(uint32_t cp) {
    return (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

static enum cb_status m_splitlines(FILTER) {
    const struct jinja_string *s = self->string;
    struct jinja_items items = {0};
    size_t from = 0;
    bool keep = TRUE(ARG(0));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp = 0;
        int length = utf8_decode(s->data + at, s->n - at, &cp);
        size_t next = at + (length > 0 ? (size_t)length : 1);
        if (ends_line(cp)) {
            if (cp == '\r' && next < s->n && s->data[next] == '\n') next++;
            TRY(push_part(r, &items, s->data + from, (keep ? next : at) - from));
            from = next;
        }
        at = next;
    }
    if (from < s->n) TRY(push_part(r, &items, s->data + from, s->n - from));
    return jinja_finish(r, out, JINJA_LIST, &items);
}

static enum cb_status partition(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                                bool right) {
    const struct jinja_string *s = self->string, *by;
    struct jinja_items items = {0};
    TRY(jinja_need_string(r, &by, ARG(0)));
    if (!by->n) JINJA_RAISE(r, "ValueError", "empty separator");
    TRY(jinja_work(r, s->n));
    const char *found = right ? last_of(s->data, s->n, by) : memmem(s->data, s->n, by->data, by->n);
    size_t head = found ? (size_t)(found - s->data) : right ? 0 : s->n, middle = found ? by->n : 0;
    TRY(push_part(r, &items, s->data, head));
    TRY(push_part(r, &items, s->data + head, middle));
    TRY(push_part(r, &items, s->data + head + middle, s->n - head - middle));
    return jinja_finish(r, out, JINJA_TUPLE, &items);
}
static enum cb_status m_partition(FILTER) { return partition(r, out, self, args, false); }
static enum cb_status m_rpartition(FILTER) { return partition(r, out, self, args, true); }

static enum cb_status m_join(FILTER) {
    struct jinja_list items;
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    TRY(jinja_items(r, &items, ARG(0)));
    for (size_t i = 0; i < items.n && status == CB_OK; i++) {
        if (items.item[i].kind != JINJA_STRING)
            status = err_set(r->err, CB_E_FORMAT, __FILE__, __LINE__, "TypeError: sequence item %zu: expected str instance, %s found", i,
                             jinja_type(&items.item[i]));
        if (status == CB_OK && i) status = jinja_put(r, &b, self->string->data, self->string->n);
        if (status == CB_OK) status = jinja_put(r, &b, items.item[i].string->data, items.item[i].string->n);
    }
    return finish(r, out, &b, status);
}

// ---- searching, within [start, end) of code points

static enum cb_status window(struct jinja_run *r, struct jinja_string *out, size_t *first, const struct jinja_string *s,
                             const struct jinja_value *start, const struct jinja_value *end) {
    int64_t n = (int64_t)jinja_points(s), from, to;
    TRY(jinja_need_integer(r, &from, start, 0, -n - 1, n + 1));
    TRY(jinja_need_integer(r, &to, end, n, -n - 1, n));
    if (from < 0) from = from + n < 0 ? 0 : from + n;
    if (to < 0) to = to + n < 0 ? 0 : to + n;
    *first = (size_t)from;
    if (from > n || to < from) {
        *out = (struct jinja_string){.data = NULL};
        return CB_OK;
    }
    size_t a = jinja_offset(s, (size_t)from), b = jinja_offset(s, (size_t)to);
    *out = (struct jinja_string){.data = s->data + a, .n = b - a, .points = SIZE_MAX};
    return CB_OK;
}

static enum cb_status find(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                           bool right, bool needed) {
    const struct jinja_string *what;
    struct jinja_string in;
    size_t first;
    TRY(jinja_need_string(r, &what, ARG(0)));
    TRY(window(r, &in, &first, self->string, ARG(1), ARG(2)));
    TRY(jinja_work(r, self->string->n));
    const char *found = !in.data ? NULL : right ? last_of(in.data, in.n, what) : memmem(in.data, in.n, what->data, what->n);
    if (!found && needed) JINJA_RAISE(r, "ValueError", "substring not found");
    *out = jinja_int(found ? (jinja_integer)(first + utf8_count(in.data, (size_t)(found - in.data))) : -1);
    return CB_OK;
}
static enum cb_status m_find(FILTER) { return find(r, out, self, args, false, false); }
static enum cb_status m_rfind(FILTER) { return find(r, out, self, args, true, false); }
static enum cb_status m_index(FILTER) { return find(r, out, self, args, false, true); }
static enum cb_status m_rindex(FILTER) { return find(r, out, self, args, true, true); }

static enum cb_status m_count(FILTER) {
    const struct jinja_string *what;
    struct jinja_string in;
    size_t first;
    jinja_integer n = 0;
    TRY(jinja_need_string(r, &what, ARG(0)));
    TRY(window(r, &in, &first, self->string, ARG(1), ARG(2)));
    TRY(jinja_work(r, self->string->n));
    if (in.data && !what->n) n = (jinja_integer)jinja_points(&in) + 1;
    for (size_t at = 0; in.data && what->n; n++) {
        const char *found = memmem(in.data + at, in.n - at, what->data, what->n);
        if (!found) break;
        at = (size_t)(found - in.data) + what->n;
    }
    *out = jinja_int(n);
    return CB_OK;
}

static enum cb_status at_end(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                             bool start) {
    struct jinja_list one = {.item = (struct jinja_value *)ARG(0), .n = 1};
    const struct jinja_list *any = ARG(0)->kind == JINJA_TUPLE ? ARG(0)->list : &one;
    const struct jinja_string *what;
    struct jinja_string in;
    size_t first;
    bool found = false;
    TRY(window(r, &in, &first, self->string, ARG(1), ARG(2)));
    for (size_t i = 0; i < any->n && !found; i++) {
        if (any->item[i].kind != JINJA_STRING && any->item[i].kind != JINJA_UNDEFINED)
            JINJA_RAISE(r, "TypeError", "%s first arg must be str or a tuple of str, not %s", start ? "startswith" : "endswith",
                        jinja_type(&any->item[i]));
        TRY(jinja_need_string(r, &what, &any->item[i]));
        found = in.data && in.n >= what->n && !memcmp(in.data + (start ? 0 : in.n - what->n), what->data, what->n);
    }
    return answer(out, found);
}
static enum cb_status m_startswith(FILTER) { return at_end(r, out, self, args, true); }
static enum cb_status m_endswith(FILTER) { return at_end(r, out, self, args, false); }

static enum cb_status m_replace(FILTER) {
    const struct jinja_string *old, *with;
    int64_t count;
    TRY(jinja_need_string(r, &old, ARG(0)));
    TRY(jinja_need_string(r, &with, ARG(1)));
    TRY(jinja_need_integer(r, &count, ARG(2), -1, -1, INT32_MAX));
    return jinja_replace(r, out, self->string, old, with, count);
}

static enum cb_status m_format(FILTER) { return jinja_format_braces(r, out, self->string, args); }

static enum cb_status m_encode(FILTER) {
    (void)args;
    TRY(jinja_borrow(r, out, self->string->data, self->string->n));
    out->kind = JINJA_BYTES;
    return CB_OK;
}
static enum cb_status m_decode(FILTER) {
    (void)args;
    if (utf8_check(self->string->data, self->string->n) < self->string->n) JINJA_RAISE(r, "UnicodeDecodeError", "bytes that are no UTF-8");
    return jinja_borrow(r, out, self->string->data, self->string->n);
}

// ---- classes: every character, and one at least

static bool is_alnum(uint32_t cp) { return unicode_is_alphabetic(cp) || unicode_is_digit(cp) || unicode_is_number(cp); }
static bool is_space(uint32_t cp) { return unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f); }
static bool is_ascii(uint32_t cp) { return cp < 128; }
static bool is_name(uint32_t cp) { return unicode_is_word(cp); }
static bool is_numeric(uint32_t cp) { return unicode_is_number(cp) || unicode_is_digit(cp); }

static enum cb_status all(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, bool (*is)(uint32_t cp),
                          bool of_empty) {
    bool yes = s->n > 0 || of_empty;
    TRY(jinja_work(r, s->n));
    for (size_t at = 0; at < s->n && yes;) {
        uint32_t cp = 0;
        int length = utf8_decode(s->data + at, s->n - at, &cp);
        yes = is(cp);
        at += length > 0 ? (size_t)length : 1;
    }
    return answer(out, yes);
}
static enum cb_status m_isalnum(FILTER) { return (void)args, all(r, out, self->string, is_alnum, false); }
static enum cb_status m_isalpha(FILTER) { return (void)args, all(r, out, self->string, unicode_is_alphabetic, false); }
static enum cb_status m_isdigit(FILTER) { return (void)args, all(r, out, self->string, unicode_is_digit, false); }
static enum cb_status m_isdecimal(FILTER) { return (void)args, all(r, out, self->string, unicode_is_decimal, false); }
static enum cb_status m_isnumeric(FILTER) { return (void)args, all(r, out, self->string, is_numeric, false); }
static enum cb_status m_isspace(FILTER) { return (void)args, all(r, out, self->string, is_space, false); }
static enum cb_status m_isascii(FILTER) { return (void)args, all(r, out, self->string, is_ascii, true); }
static enum cb_status m_isprintable(FILTER) { return (void)args, all(r, out, self->string, unicode_is_printable, true); }
static enum cb_status m_isidentifier(FILTER) {
    bool digit = self->string->n && self->string->data[0] >= '0' && self->string->data[0] <= '9';
    (void)args;
    TRY(all(r, out, self->string, is_name, false));
    out->boolean &= !digit;
    return CB_OK;
}

// islower, isupper: a cased character at least, and none of the other case; istitle: capitals begin words and only they.
static enum cb_status case_is(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, enum unicode_case wanted) {
    bool any = false, good = true, inside = false;
    TRY(jinja_work(r, s->n));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp = 0;
        int length = utf8_decode(s->data + at, s->n - at, &cp);
        bool lower = unicode_is_lower(cp), title = unicode_is_title(cp), upper = unicode_is_upper(cp);
        any |= wanted == UNICODE_LOWER ? lower : wanted == UNICODE_UPPER ? upper : lower || upper || title;
        good &= wanted == UNICODE_LOWER   ? !upper && !title
                : wanted == UNICODE_UPPER ? !lower && !title
                : inside                  ? !upper && !title
                                          : !lower;
        inside = lower || upper || title;
        at += length > 0 ? (size_t)length : 1;
    }
    return answer(out, any && good);
}
static enum cb_status m_islower(FILTER) { return (void)args, case_is(r, out, self->string, UNICODE_LOWER); }
static enum cb_status m_isupper(FILTER) { return (void)args, case_is(r, out, self->string, UNICODE_UPPER); }
static enum cb_status m_istitle(FILTER) { return (void)args, case_is(r, out, self->string, UNICODE_TITLE); }

const struct jinja_builtin jinja_string_methods[] = {{"upper", m_upper, ""},
                                                     {"lower", m_lower, ""},
                                                     {"casefold", m_casefold, ""},
                                                     {"capitalize", m_capitalize, ""},
                                                     {"title", m_title, ""},
                                                     {"swapcase", m_swapcase, ""},
                                                     {"strip", m_strip, "chars"},
                                                     {"lstrip", m_lstrip, "chars"},
                                                     {"rstrip", m_rstrip, "chars"},
                                                     {"removeprefix", m_removeprefix, "prefix!"},
                                                     {"removesuffix", m_removesuffix, "suffix!"},
                                                     {"ljust", m_ljust, "width! fillchar"},
                                                     {"rjust", m_rjust, "width! fillchar"},
                                                     {"center", m_center, "width! fillchar"},
                                                     {"zfill", m_zfill, "width!"},
                                                     {"expandtabs", m_expandtabs, "tabsize"},
                                                     {"split", m_split, "sep maxsplit"},
                                                     {"rsplit", m_rsplit, "sep maxsplit"},
                                                     {"splitlines", m_splitlines, "keepends"},
                                                     {"partition", m_partition, "sep!"},
                                                     {"rpartition", m_rpartition, "sep!"},
                                                     {"join", m_join, "iterable!"},
                                                     {"find", m_find, "sub! start end"},
                                                     {"rfind", m_rfind, "sub! start end"},
                                                     {"index", m_index, "sub! start end"},
                                                     {"rindex", m_rindex, "sub! start end"},
                                                     {"count", m_count, "sub! start end"},
                                                     {"startswith", m_startswith, "prefix! start end"},
                                                     {"endswith", m_endswith, "suffix! start end"},
                                                     {"replace", m_replace, "old! new! count"},
                                                     {"format", m_format, NULL},
                                                     {"encode", m_encode, "encoding errors"},
                                                     {"isalnum", m_isalnum, ""},
                                                     {"isalpha", m_isalpha, ""},
                                                     {"isdigit", m_isdigit, ""},
                                                     {"isdecimal", m_isdecimal, ""},
                                                     {"isnumeric", m_isnumeric, ""},
                                                     {"isspace", m_isspace, ""},
                                                     {"isascii", m_isascii, ""},
                                                     {"isprintable", m_isprintable, ""},
                                                     {"isidentifier", m_isidentifier, ""},
                                                     {"islower", m_islower, ""},
                                                     {"isupper", m_isupper, ""},
                                                     {"istitle", m_istitle, ""},
                                                     {0}};

// ---- containers

static enum cb_status m_get(FILTER) {
    const struct jinja_value *found;
    TRY(jinja_dict_find(r, &found, self->dict, ARG(0)));
    *out = found ? *found : ARG(1)->kind == JINJA_ABSENT ? jinja_none() : *ARG(1);
    return CB_OK;
}
static enum cb_status m_items(FILTER) {
    (void)args;
    TRY(jinja_pairs(r, out, self, JINJA_VIEW));
    out->list->type = "dict_items";
    return CB_OK;
}
static enum cb_status m_keys(FILTER) {
    (void)args;
    TRY(jinja_new_list(r, out, JINJA_VIEW, 0));
    *out->list = (struct jinja_list){.item = self->dict->key, .n = self->dict->n, .type = "dict_keys"};
    return CB_OK;
}
static enum cb_status m_values(FILTER) {
    (void)args;
    TRY(jinja_new_list(r, out, JINJA_VIEW, 0));
    *out->list = (struct jinja_list){.item = self->dict->item, .n = self->dict->n, .type = "dict_values"};
    return CB_OK;
}
static enum cb_status m_copy(FILTER) {  // nothing changes in place: the value is its own copy
    (void)r, (void)args;
    *out = *self;
    return CB_OK;
}
static enum cb_status m_position(FILTER) {
    struct jinja_list items;
    TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n; i++) {
        bool same;
        TRY(jinja_is_equal(r, &same, &items.item[i], ARG(0)));
        if (same) return *out = jinja_int((jinja_integer)i), CB_OK;
    }
    JINJA_RAISE(r, "ValueError", "the value is not in the %s", jinja_type(self));
}
static enum cb_status m_occurrences(FILTER) {
    struct jinja_list items;
    jinja_integer n = 0;
    TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n; i++) {
        bool same;
        TRY(jinja_is_equal(r, &same, &items.item[i], ARG(0)));
        n += same;
    }
    *out = jinja_int(n);
    return CB_OK;
}
static enum cb_status m_next(FILTER) {
    struct jinja_cycle *c = self->cycle;
    (void)r, (void)args;
    *out = c->items.item[c->at];
    c->at = (c->at + 1) % c->items.n;
    return CB_OK;
}
static enum cb_status m_reset(FILTER) {
    (void)r, (void)args;
    self->cycle->at = 0;
    *out = jinja_none();
    return CB_OK;
}

const struct jinja_builtin jinja_container_methods[] = {{"dict.get", m_get, "key! default"},
                                                        {"dict.items", m_items, ""},
                                                        {"dict.keys", m_keys, ""},
                                                        {"dict.values", m_values, ""},
                                                        {"dict.copy", m_copy, ""},
                                                        {"list.copy", m_copy, ""},
                                                        {"list.index", m_position, "value!"},
                                                        {"list.count", m_occurrences, "value!"},
                                                        {"tuple.index", m_position, "value!"},
                                                        {"tuple.count", m_occurrences, "value!"},
                                                        {"range.index", m_position, "value!"},
                                                        {"range.count", m_occurrences, "value!"},
                                                        {"bytes.decode", m_decode, "encoding errors"},
                                                        {"Cycler.next", m_next, ""},
                                                        {"Cycler.reset", m_reset, ""},
                                                        {0}};
