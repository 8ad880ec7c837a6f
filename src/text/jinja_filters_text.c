/* Jinja's filters of text, numbers and JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_builtin.h"
#include "text/unicode.h"
#include "text/utf8.h"

// What most text filters do first: str(value).
static enum cb_status soft(struct jinja_run *r, const struct jinja_string **out, const struct jinja_value *self) {
    struct jinja_value v;
    TRY(jinja_str(r, &v, self));
    *out = v.string;
    return CB_OK;
}

static enum cb_status finish(struct jinja_run *r, struct jinja_value *out, struct buffer *b, enum cb_status status) {
    if (status == CB_OK) return jinja_take(r, out, b);
    free(b->data);
    return status;
}

// ---- case and ends

static enum cb_status f_upper(FILTER) {
    const struct jinja_string *s;
    (void)args;
    TRY(soft(r, &s, self));
    return jinja_map_case(r, out, s, UNICODE_UPPER);
}
static enum cb_status f_lower(FILTER) {
    const struct jinja_string *s;
    (void)args;
    TRY(soft(r, &s, self));
    return jinja_map_case(r, out, s, UNICODE_LOWER);
}
static enum cb_status f_capitalize(FILTER) {
    const struct jinja_string *s;
    (void)args;
    TRY(soft(r, &s, self));
    return jinja_capitalise(r, out, s);
}

// A word begins after white space or one of -({[<
static enum cb_status f_title(FILTER) {
    const struct jinja_string *s;
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    bool begins = true;
    (void)args;
    TRY(soft(r, &s, self));
    for (size_t at = 0; at < s->n && status == CB_OK;) {
        uint32_t cp = 0, mapped[UNICODE_CASED];
        int length = utf8_decode(s->data + at, s->n - at, &cp);
        int n = unicode_map_case(mapped, cp, begins ? UNICODE_UPPER : UNICODE_LOWER);
        char bytes[4];
        for (int i = 0; i < n && status == CB_OK; i++) status = jinja_put(r, &b, bytes, (size_t)utf8_encode(bytes, mapped[i]));
        begins = jinja_space(s, at) > 0 || (cp < 128 && cp && strchr("-({[<", (int)cp));
        at += length > 0 ? (size_t)length : 1;
    }
    return finish(r, out, &b, status);
}

static enum cb_status f_trim(FILTER) {
    const struct jinja_string *s, *set = NULL;
    TRY(soft(r, &s, self));
    if (GIVEN(ARG(0))) TRY(jinja_need_string(r, &set, ARG(0)));
    return jinja_strip(r, out, s, set, true, true);
}

static enum cb_status f_replace(FILTER) {
    const struct jinja_string *s, *old, *with;
    int64_t count;
    TRY(soft(r, &s, self));
    TRY(soft(r, &old, ARG(0)));
    TRY(soft(r, &with, ARG(1)));
    TRY(jinja_need_integer(r, &count, ARG(2), -1, -1, INT32_MAX));
    return jinja_replace(r, out, s, old, with, count);
}

static enum cb_status f_string(FILTER) {
    (void)args;
    return jinja_str(r, out, self);
}

static enum cb_status f_center(FILTER) {
    const struct jinja_string *s;
    int64_t width;
    TRY(soft(r, &s, self));
    TRY(jinja_need_integer(r, &width, ARG(0), 80, 0, INT32_MAX));
    return jinja_pad(r, out, s, width, NULL, '^');
}

static enum cb_status f_wordcount(FILTER) {
    const struct jinja_string *s;
    jinja_integer words = 0;
    bool inside = false;
    (void)args;
    TRY(soft(r, &s, self));
    TRY(jinja_work(r, s->n));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp = 0;
        int length = utf8_decode(s->data + at, s->n - at, &cp);
        bool word = unicode_is_word(cp);
        words += word && !inside;
        inside = word;
        at += length > 0 ? (size_t)length : 1;
    }
    *out = jinja_int(words);
    return CB_OK;
}

// ---- layout

static enum cb_status f_indent(FILTER) {
    const struct jinja_string *s, *by;
    struct jinja_value pad;
    struct buffer b = {0};
    bool first = TRUE(ARG(1)), blank = TRUE(ARG(2));
    TRY(jinja_need_string(r, &s, self));
    if (ARG(0)->kind == JINJA_STRING) {
        by = ARG(0)->string;
    } else {
        static const struct jinja_string none = {.data = "", .points = 0};
        int64_t width;
        TRY(jinja_need_integer(r, &width, ARG(0), 4, 0, INT32_MAX));
        TRY(jinja_pad(r, &pad, &none, width, NULL, '<'));
        by = pad.string;
    }
    enum cb_status status = first ? jinja_put(r, &b, by->data, by->n) : CB_OK;
    for (size_t at = 0; at <= s->n && status == CB_OK;) {
        const char *end = memchr(s->data + at, '\n', s->n - at);
        size_t n = end ? (size_t)(end - s->data) - at : s->n - at;
        // a carriage return ends its line too
        size_t shown = n && s->data[at + n - 1] == '\r' ? n - 1 : n;
        if (at && (shown || blank)) status = jinja_put(r, &b, by->data, by->n);
        if (status == CB_OK) status = jinja_put(r, &b, s->data + at, shown);
        if (status == CB_OK && end) status = jinja_put(r, &b, "\n", 1);
        at += n + 1;
    }
    return finish(r, out, &b, status);
}

static enum cb_status f_truncate(FILTER) {
    static const struct jinja_string dots = {.data = "...", .n = 3, .points = 3};
    const struct jinja_string *s, *end = &dots;
    int64_t length, leeway;
    TRY(jinja_need_string(r, &s, self));
    TRY(jinja_need_integer(r, &length, ARG(0), 255, -INT32_MAX, INT32_MAX));
    if (GIVEN(ARG(2))) TRY(jinja_need_string(r, &end, ARG(2)));
    TRY(jinja_need_integer(r, &leeway, ARG(3), 5, -INT32_MAX, INT32_MAX));
    if (length < (int64_t)jinja_points(end))
        JINJA_RAISE(r, "AssertionError", "expected length >= %zu, got %lld", jinja_points(end), (long long)length);
    if (leeway < 0) JINJA_RAISE(r, "AssertionError", "expected leeway >= 0, got %lld", (long long)leeway);
    if ((int64_t)jinja_points(s) <= length + leeway) return *out = jinja_of(s), CB_OK;
    size_t n = jinja_offset(s, (size_t)length - jinja_points(end));
    const char *space = TRUE(ARG(1)) ? NULL : memrchr(s->data, ' ', n);
    if (space) n = (size_t)(space - s->data);
    struct jinja_string head = {.data = s->data, .n = n, .points = SIZE_MAX};
    return jinja_append(r, out, &head, end->data, end->n);
}

// Greedy filling of lines; words that are too long are cut.
static enum cb_status wrap_line(struct jinja_run *r, struct buffer *b, const char *line, size_t n, size_t width, bool cuts,
                                const struct jinja_string *newline) {
    size_t used = 0;
    bool any = false;
    for (size_t at = 0; at < n;) {
        size_t gap = at;
        while (at < n && (line[at] == ' ' || line[at] == '\t')) at++;
        size_t word = at;
        while (at < n && line[at] != ' ' && line[at] != '\t' && !(at > word && line[at - 1] == '-' && line[at] != '-')) at++;
        struct jinja_string s = {.data = line + word, .n = at - word, .points = SIZE_MAX};
        size_t points = jinja_points(&s), spaces = word - gap;
        if (!points) break;
        if (any && used + spaces + points > width) {
            TRY(jinja_put(r, b, newline->data, newline->n));
            used = 0, spaces = 0;
        }
        TRY(jinja_put(r, b, line + word - spaces, spaces));
        while (cuts && points > width) {
            size_t head = jinja_offset(&s, width);
            TRY(jinja_put(r, b, s.data, head));
            TRY(jinja_put(r, b, newline->data, newline->n));
            s = (struct jinja_string){.data = s.data + head, .n = s.n - head, .points = SIZE_MAX};
            points -= width;
        }
        TRY(jinja_put(r, b, s.data, s.n));
        used += spaces + points;
        any = true;
    }
    return CB_OK;
}

static enum cb_status f_wordwrap(FILTER) {
    static const struct jinja_string line_end = {.data = "\n", .n = 1, .points = 1};
    const struct jinja_string *s, *newline = &line_end;
    int64_t width;
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    TRY(jinja_need_string(r, &s, self));
    TRY(jinja_need_integer(r, &width, ARG(0), 79, -1, INT32_MAX));
    if (width < 1) JINJA_RAISE(r, "ValueError", "invalid width %lld (must be > 0)", (long long)width);
    if (GIVEN(ARG(2))) TRY(jinja_need_string(r, &newline, ARG(2)));
    for (size_t at = 0; at < s->n && status == CB_OK;) {
        const char *end = memchr(s->data + at, '\n', s->n - at);
        size_t n = end ? (size_t)(end - s->data) - at : s->n - at;
        if (at) status = jinja_put(r, &b, newline->data, newline->n);
        if (status == CB_OK)
            status = wrap_line(r, &b, s->data + at, n, (size_t)width, ARG(1)->kind == JINJA_ABSENT || TRUE(ARG(1)), newline);
        at += n + 1;
    }
    return finish(r, out, &b, status);
}

// ---- numbers

// int(text, base) of Python: white space, a sign, a prefix of the base, single underscores.
static bool read_integer(const struct jinja_string *s, int base, jinja_integer *out) {
    struct jinja_string t = *s;
    size_t step;
    char digits[160];
    size_t n = 0, at = 0;
    while ((step = jinja_space(&t, at)) > 0) at += step;
    while (t.n > at && (t.data[t.n - 1] == ' ' || (t.data[t.n - 1] >= 9 && t.data[t.n - 1] <= 13))) t.n--;
    bool negative = at < t.n && t.data[at] == '-';
    at += at < t.n && (t.data[at] == '-' || t.data[at] == '+');
    char kind = at + 1 < t.n && t.data[at] == '0' ? t.data[at + 1] | 32 : 0;
    if ((kind == 'x' && (base == 16 || base == 0)) || (kind == 'b' && (base == 2 || base == 0)) ||
        (kind == 'o' && (base == 8 || base == 0))) {
        base = kind == 'x' ? 16 : kind == 'b' ? 2 : 8;
        at += 2;
    }
    if (base == 0) base = 10;
    for (bool digit = false; at < t.n && n < sizeof digits; at++) {
        if (t.data[at] == '_' && digit && at + 1 < t.n && t.data[at + 1] != '_') continue;
        digit = true;
        digits[n++] = t.data[at];
    }
    bool fits = false;
    jinja_parse_integer(digits, n, base, out, &fits);
    if (negative) *out = -*out;
    return fits && at == t.n;
}

// float(text) of Python; false where it is none.
static bool read_real(const struct jinja_string *s, double *out) {
    char text[128], *end;
    struct jinja_string t = *s;
    size_t at = 0, step;
    while ((step = jinja_space(&t, at)) > 0) at += step;
    while (t.n > at && (t.data[t.n - 1] == ' ' || (t.data[t.n - 1] >= 9 && t.data[t.n - 1] <= 13))) t.n--;
    if (t.n == at || t.n - at >= sizeof text || memchr(t.data + at, 'x', t.n - at) || memchr(t.data + at, 'X', t.n - at)) return false;
    memcpy(text, t.data + at, t.n - at);
    text[t.n - at] = 0;
    *out = strtod(text, &end);
    return end == text + (t.n - at) && end > text && !memchr(text, '(', t.n - at);
}

static enum cb_status real_to_integer(struct jinja_value *out, double d, const struct jinja_value *otherwise) {
    static const double limit = 1.7e38;
    *out = isfinite(d) && fabs(d) < limit ? jinja_int((jinja_integer)d) : GIVEN(otherwise) ? *otherwise : jinja_int(0);
    return CB_OK;
}

static enum cb_status f_int(FILTER) {
    jinja_integer value;
    double d;
    int64_t base;
    TRY(jinja_need_integer(r, &base, ARG(1), 10, 0, 36));
    if (self->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, self);
    if (jinja_is_whole(self)) return *out = jinja_int(jinja_whole(self)), CB_OK;
    if (self->kind == JINJA_FLOAT) return real_to_integer(out, self->real, ARG(0));
    if (self->kind == JINJA_STRING && read_integer(self->string, (int)base, &value)) return *out = jinja_int(value), CB_OK;
    if (self->kind == JINJA_STRING && read_real(self->string, &d)) return real_to_integer(out, d, ARG(0));
    *out = ARG(0)->kind == JINJA_ABSENT ? jinja_int(0) : *ARG(0);
    return CB_OK;
}

static enum cb_status f_float(FILTER) {
    double d;
    if (self->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, self);
    if (jinja_is_number(self)) return *out = jinja_real(jinja_number(self)), CB_OK;
    if (self->kind == JINJA_STRING && read_real(self->string, &d)) return *out = jinja_real(d), CB_OK;
    *out = ARG(0)->kind == JINJA_ABSENT ? jinja_real(0) : *ARG(0);
    return CB_OK;
}

static enum cb_status f_abs(FILTER) {
    (void)args;
    if (self->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, self);
    if (!jinja_is_number(self)) JINJA_RAISE(r, "TypeError", "bad operand type for abs(): '%s'", jinja_type(self));
    return jinja_sign(r, out, self, jinja_number(self) < 0);
}

// Half to even at 10^digits.
static jinja_integer round_whole(jinja_integer v, int64_t digits) {
    jinja_integer unit = 1;
    for (int64_t i = 0; i < digits && i < 38; i++) unit *= 10;
    jinja_integer rest = v % unit, down = v - rest;
    if (rest < 0) rest += unit, down -= unit;
    bool up = 2 * rest > unit || (2 * rest == unit && (down / unit) % 2 != 0);
    return up ? down + unit : down;
}

static enum cb_status f_round(FILTER) {
    static const struct jinja_string common = {.data = "common", .n = 6, .points = 6};
    const struct jinja_string *method = &common;
    int64_t precision;
    char text[400];
    TRY(jinja_need_integer(r, &precision, ARG(0), 0, -30, 30));
    if (GIVEN(ARG(1))) TRY(jinja_need_string(r, &method, ARG(1)));
    bool up = jinja_equals(method, "ceil"), down = jinja_equals(method, "floor");
    if (!up && !down && !jinja_equals(method, "common")) JINJA_RAISE(r, "FilterArgumentError", "method must be common, ceil or floor");
    if (self->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, self);
    if (!jinja_is_number(self)) JINJA_RAISE(r, "TypeError", "type %s doesn't define __round__ method", jinja_type(self));
    double scale = pow(10, (double)precision), v = jinja_number(self);
    if (up || down) return *out = jinja_real((up ? ceil(v * scale) : floor(v * scale)) / scale), CB_OK;
    if (jinja_is_whole(self))
        return *out = jinja_int(precision < 0 ? round_whole(jinja_whole(self), -precision) : jinja_whole(self)), CB_OK;
    if (precision < 0) {
        *out = jinja_real(rint(v * scale) / scale);
    } else {
        // the decimal nearest to the exact value, halves to even
        snprintf(text, sizeof text, "%.*f", (int)precision, v);
        *out = jinja_real(isfinite(v) ? strtod(text, NULL) : v);
    }
    return CB_OK;
}

static enum cb_status f_filesizeformat(FILTER) {
    static const char *const decimal[] = {"kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"};
    static const char *const binary[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"};
    char text[64];
    double bytes = 0, base = TRUE(ARG(0)) ? 1024 : 1000;
    if (jinja_is_number(self))
        bytes = jinja_number(self);
    else if (self->kind != JINJA_STRING || !read_real(self->string, &bytes))
        JINJA_RAISE(r, "TypeError", "filesizeformat of '%s'", jinja_type(self));
    if (bytes == 1) return jinja_cstring(r, out, "1 Byte");
    if (bytes < base) {
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
        return jinja_text(r, out, text, strlen(text));
    }
    double unit = base * base;
    int i = 0;
    for (; bytes >= unit && i < 7; i++) unit *= base;
    snprintf(text, sizeof text, "%.1f %s", base * bytes / unit, base == 1024 ? binary[i] : decimal[i]);
    return jinja_text(r, out, text, strlen(text));
}

// ---- defaults, formats, JSON

static enum cb_status f_default(FILTER) {
    static const struct jinja_string empty = {.data = ""};
    bool takes = self->kind == JINJA_UNDEFINED || (TRUE(ARG(1)) && !jinja_truth(self));
    (void)r;
    *out = !takes ? *self : ARG(0)->kind == JINJA_ABSENT ? jinja_of(&empty) : *ARG(0);
    return CB_OK;
}

static enum cb_status f_format(FILTER) {
    const struct jinja_string *s;
    TRY(soft(r, &s, self));
    return jinja_format_percent(r, out, s, args);
}

static enum cb_status f_tojson(FILTER) {
    static const struct jinja_string comma_space = {.data = ", ", .n = 2}, comma = {.data = ",", .n = 1}, colon = {.data = ": ", .n = 2},
                                     none = {.data = ""};
    struct jinja_json_style style = {
        .ascii = TRUE(ARG(0)), .pretty = GIVEN(ARG(1)), .sort_keys = TRUE(ARG(3)), .indent = &none, .colon = &colon};
    struct jinja_value pad;
    struct buffer b = {0};
    style.comma = style.pretty ? &comma : &comma_space;
    if (style.pretty && ARG(1)->kind == JINJA_STRING) {
        style.indent = ARG(1)->string;
    } else if (style.pretty) {
        int64_t width;
        TRY(jinja_need_integer(r, &width, ARG(1), 0, 0, 1000));
        TRY(jinja_pad(r, &pad, &none, width, NULL, '<'));
        style.indent = pad.string;
    }
    if (GIVEN(ARG(2))) {
        struct jinja_list pair;
        TRY(jinja_items(r, &pair, ARG(2)));
        if (pair.n != 2) JINJA_RAISE(r, "ValueError", "separators: found %zu; wanted 2", pair.n);
        TRY(jinja_need_string(r, &style.comma, &pair.item[0]));
        TRY(jinja_need_string(r, &style.colon, &pair.item[1]));
    }
    return finish(r, out, &b, jinja_put_json(r, &b, self, &style));
}

const struct jinja_builtin jinja_text_filters[] = {{"upper", f_upper, ""},
                                                   {"lower", f_lower, ""},
                                                   {"capitalize", f_capitalize, ""},
                                                   {"title", f_title, ""},
                                                   {"trim", f_trim, "chars"},
                                                   {"replace", f_replace, "old! new! count"},
                                                   {"string", f_string, ""},
                                                   {"center", f_center, "width"},
                                                   {"wordcount", f_wordcount, ""},
                                                   {"indent", f_indent, "width first blank"},
                                                   {"truncate", f_truncate, "length killwords end leeway"},
                                                   {"wordwrap", f_wordwrap, "width break_long_words wrapstring break_on_hyphens"},
                                                   {"int", f_int, "default base"},
                                                   {"float", f_float, "default"},
                                                   {"abs", f_abs, ""},
                                                   {"round", f_round, "precision method"},
                                                   {"filesizeformat", f_filesizeformat, "binary"},
                                                   {"default", f_default, "default_value boolean"},
                                                   {"d", f_default, "default_value boolean"},
                                                   {"format", f_format, NULL},
                                                   {"tojson", f_tojson, "ensure_ascii indent separators sort_keys"},
                                                   {0}};
