/* Python's two kinds of formatting: "%s" % x and "{}".format(x). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_builtin.h"
#include "text/utf8.h"

#define MAX_WIDTH 10000

// A field: [[fill]align][sign][#][0][width][,][.precision][type]
struct field {
    struct jinja_string fill;
    char align, sign, type;
    bool alternate, zero;
    char group;
    int64_t width, precision;  // precision -1: not given
};

static enum cb_status pad_field(struct jinja_run *r, struct buffer *b, const struct jinja_string *s, const struct field *f, char usual) {
    struct jinja_value v;
    char align = f->align ? f->align : usual;
    // '=': the fill goes between sign and digits
    if (align == '=') {
        size_t sign = s->n && (s->data[0] == '-' || s->data[0] == '+' || s->data[0] == ' ');
        struct jinja_string digits = {.data = s->data + sign, .n = s->n - sign, .points = SIZE_MAX};
        TRY(jinja_pad(r, &v, &digits, f->width - (int64_t)sign, &f->fill, '>'));
        TRY(jinja_put(r, b, s->data, sign));
    } else {
        TRY(jinja_pad(r, &v, s, f->width, &f->fill, align == '^' ? '^' : align));
        // format centres with the smaller half to the left
        if (align == '^') {
            int64_t n = (int64_t)jinja_points(s), spare = f->width > n ? f->width - n : 0;
            struct jinja_value right;
            TRY(jinja_pad(r, &right, s, n + spare - spare / 2, &f->fill, '<'));
            TRY(jinja_pad(r, &v, right.string, f->width, &f->fill, '>'));
        }
    }
    return jinja_put(r, b, v.string->data, v.string->n);
}

// ---- numbers

static void add_groups(char *out, const char *digits, char group, int every) {
    size_t n = strspn(digits, "0123456789abcdefABCDEF"), used = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % (size_t)every == 0) out[used++] = group;
        out[used++] = digits[i];
    }
    strcpy(out + used, digits + n);
}

static void digits_of(char out[140], unsigned __int128 v, unsigned base, bool upper) {
    char turned[140];
    int n = 0;
    do {
        unsigned digit = (unsigned)(v % base);
        turned[n++] = (char)(digit < 10 ? '0' + digit : (upper ? 'A' : 'a') + digit - 10);
        v /= base;
    } while (v);
    for (int i = 0; i < n; i++) out[i] = turned[n - 1 - i];
    out[n] = 0;
}

static enum cb_status put_number(struct jinja_run *r, struct buffer *b, const struct jinja_value *v, const struct field *f) {
    char digits[700], text[1100], sign[2] = {0};
    char type = f->type;
    bool negative = v->kind == JINJA_FLOAT ? signbit(v->real) != 0 : jinja_whole(v) < 0;
    const char *prefix = "";
    if (jinja_is_whole(v) && (!type || strchr("dxXobn", type))) {
        unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
        jinja_integer i = jinja_whole(v);
        digits_of(digits, negative ? -(unsigned __int128)i : (unsigned __int128)i, base, type == 'X');
        if (f->alternate) prefix = base == 16 ? (type == 'X' ? "0X" : "0x") : base == 8 ? "0o" : base == 2 ? "0b" : "";
    } else {
        char pattern[16];
        double d = fabs(jinja_number(v));
        int precision = (int)(f->precision < 0 ? 6 : f->precision > 300 ? 300 : f->precision);
        bool plain = !type && f->precision < 0, percent = type == '%';
        char kind = percent ? 'f' : type ? type : 'g';
        if (!strchr("eEfFgGn", kind)) JINJA_RAISE(r, "ValueError", "Unknown format code '%c' for object of type '%s'", type, jinja_type(v));
        snprintf(pattern, sizeof pattern, "%%%s.*%c", f->alternate ? "#" : "", kind == 'n' ? 'g' : kind);
        if (plain)
            jinja_float_text(digits, d);
        else
            snprintf(digits, sizeof digits, pattern, precision, percent ? d * 100 : d);
        if (percent) strcat(digits, "%");
    }
    if (f->group) {
        add_groups(text, digits, f->group, type == 'x' || type == 'X' || type == 'b' || type == 'o' ? 4 : 3);
        strcpy(digits, text);
    }
    sign[0] = negative ? '-' : f->sign == '+' || f->sign == ' ' ? f->sign : 0;
    int n = snprintf(text, sizeof text, "%s%s%s", sign, prefix, digits);
    struct jinja_string s = {.data = text, .n = (size_t)n, .points = SIZE_MAX};
    return pad_field(r, b, &s, f, f->zero ? '=' : '>');
}

// A value as text, cut to the precision.
static enum cb_status put_text(struct jinja_run *r, struct buffer *b, const struct jinja_string *s, const struct field *f, char usual) {
    struct jinja_string cut = *s;
    if (f->precision >= 0 && f->precision < (int64_t)jinja_points(s))
        cut = (struct jinja_string){.data = s->data, .n = jinja_offset(s, (size_t)f->precision), .points = SIZE_MAX};
    return pad_field(r, b, &cut, f, usual);
}

static enum cb_status repr_string(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v) {
    struct buffer b = {0};
    enum cb_status status = jinja_put_repr(r, &b, v);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

static const struct field empty_field = {.fill = {.data = " ", .n = 1, .points = 1}, .precision = -1};

static int64_t read_digits(const struct jinja_string *s, size_t *at) {
    int64_t value = 0;
    for (; *at < s->n && s->data[*at] >= '0' && s->data[*at] <= '9'; ++*at)
        value = value < MAX_WIDTH ? value * 10 + s->data[*at] - '0' : value;
    return value < MAX_WIDTH ? value : MAX_WIDTH;
}

// ---- percent

struct percent {
    const struct jinja_args *args;
    size_t used;
    bool mapped;
};

static enum cb_status next_argument(struct jinja_run *r, struct percent *p, const struct jinja_value **out) {
    *out = NULL;
    if (p->used >= p->args->n) JINJA_RAISE(r, "TypeError", "not enough arguments for format string");
    *out = &p->args->item[p->used++];
    return CB_OK;
}

// (name): a key of the one dictionary, or a keyword.
static enum cb_status named_argument(struct jinja_run *r, struct percent *p, const struct jinja_string *s, size_t *at,
                                     const struct jinja_value **out) {
    const char *end = memchr(s->data + *at, ')', s->n - *at);
    if (!end) JINJA_RAISE(r, "ValueError", "incomplete format key");
    struct jinja_string name = {.data = s->data + *at, .n = (size_t)(end - s->data) - *at, .points = SIZE_MAX};
    *at += name.n + 1;
    *out = NULL;
    p->mapped = true;
    if (p->args->n && p->args->item[0].kind == JINJA_DICT) *out = jinja_dict_get(p->args->item[0].dict, &name);
    for (size_t k = 0; k < p->args->n_keywords && !*out; k++)
        if (p->args->keyword[k]->n == name.n && !memcmp(p->args->keyword[k]->data, name.data, name.n)) *out = &p->args->value[k];
    if (!*out) JINJA_RAISE(r, "KeyError", "'%.*s'", (int)name.n, name.data);
    return CB_OK;
}

static enum cb_status width_of(struct jinja_run *r, struct percent *p, const struct jinja_string *s, size_t *at, int64_t *out) {
    if (*at >= s->n || s->data[*at] != '*') {
        *out = read_digits(s, at);
        return CB_OK;
    }
    const struct jinja_value *v;
    ++*at;
    TRY(next_argument(r, p, &v));
    if (!jinja_is_whole(v)) JINJA_RAISE(r, "TypeError", "* wants int");
    return jinja_need_integer(r, out, v, 0, -MAX_WIDTH, MAX_WIDTH);
}

static enum cb_status put_percent(struct jinja_run *r, struct buffer *b, struct percent *p, const struct jinja_string *s, size_t *at) {
    struct field f = empty_field;
    const struct jinja_value *v = NULL;
    struct jinja_value text;
    if (*at < s->n && s->data[*at] == '(') {
        ++*at;
        TRY(named_argument(r, p, s, at, &v));
    }
    for (; *at < s->n && s->data[*at] && strchr("-+ #0", s->data[*at]); ++*at) {
        char c = s->data[*at];
        if (c == '-') f.align = '<';
        if (c == '+' || (c == ' ' && !f.sign)) f.sign = c;
        f.alternate |= c == '#';
        f.zero |= c == '0';
    }
    TRY(width_of(r, p, s, at, &f.width));
    if (f.width < 0) f.width = -f.width, f.align = '<';
    if (*at < s->n && s->data[*at] == '.') {
        ++*at;
        TRY(width_of(r, p, s, at, &f.precision));
        if (f.precision < 0) f.precision = 0;
    }
    while (*at < s->n && s->data[*at] && strchr("hlL", s->data[*at])) ++*at;
    if (*at >= s->n) JINJA_RAISE(r, "ValueError", "incomplete format");
    f.type = s->data[(*at)++];
    if (f.type == '%') return jinja_put(r, b, "%", 1);
    if (!v) TRY(next_argument(r, p, &v));
    if (f.type == 's' || f.type == 'r' || f.type == 'a') {
        TRY(f.type == 's' ? jinja_str(r, &text, v) : repr_string(r, &text, v));
        return put_text(r, b, text.string, &f, '>');
    }
    if (f.type == 'c') {
        if (jinja_is_whole(v) && jinja_whole(v) >= 0 && jinja_whole(v) < 0xd800) {
            char bytes[4];
            TRY(jinja_text(r, &text, bytes, (size_t)utf8_encode(bytes, (uint32_t)jinja_whole(v))));
        } else if (v->kind == JINJA_STRING && jinja_points(v->string) == 1) {
            text = *v;
        } else {
            JINJA_RAISE(r, "TypeError", "%%c requires int or char");
        }
        return put_text(r, b, text.string, &f, '>');
    }
    if (!strchr("diuxXoeEfFgG", f.type)) JINJA_RAISE(r, "ValueError", "unsupported format character '%c'", f.type);
    if (v->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, v);
    if (!jinja_is_number(v)) JINJA_RAISE(r, "TypeError", "%%%c format: a real number is required, not %s", f.type, jinja_type(v));
    if (f.zero) f.fill.data = "0";
    if (f.align == '<') f.zero = false, f.fill.data = " ";
    struct jinja_value whole = *v;
    if (strchr("diu", f.type)) {
        f.type = 'd';
        if (v->kind == JINJA_FLOAT) {
            if (!isfinite(v->real) || fabs(v->real) > 1e38) JINJA_RAISE(r, "OverflowError", "cannot convert float to integer");
            whole = jinja_int((jinja_integer)v->real);
        }
        f.precision = -1;
    } else if (strchr("xXo", f.type) && v->kind == JINJA_FLOAT) {
        JINJA_RAISE(r, "TypeError", "%%%c format: an integer is required, not float", f.type);
    }
    return put_number(r, b, &whole, &f);
}

enum cb_status jinja_format_percent(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s,
                                    const struct jinja_args *args) {
    struct percent p = {.args = args};
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    for (size_t at = 0; at < s->n && status == CB_OK;) {
        const char *next = memchr(s->data + at, '%', s->n - at);
        size_t n = next ? (size_t)(next - s->data) - at : s->n - at;
        status = jinja_put(r, &b, s->data + at, n);
        at += n + (next != NULL);
        if (next && status == CB_OK) status = put_percent(r, &b, &p, s, &at);
    }
    bool left_over =
        p.used < args->n && !p.mapped && !(args->n == 1 && (args->item[0].kind == JINJA_DICT || args->item[0].kind == JINJA_LIST));
    if (status == CB_OK && left_over)
        status = err_set(r->err, CB_E_FORMAT, __FILE__, __LINE__, "TypeError: not all arguments converted during string formatting");
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

// ---- braces

struct braces {
    const struct jinja_args *args;
    size_t next;
    int depth;
};

static enum cb_status expand(struct jinja_run *r, struct buffer *b, struct braces *x, const struct jinja_string *s);

static enum cb_status read_field(struct jinja_run *r, struct field *f, const struct jinja_string *s) {
    size_t at = 0, first = s->n ? (size_t)utf8_length(s->data[0]) : 0;
    *f = empty_field;
    bool filled = first && first < s->n && s->data[first] && strchr("<>^=", s->data[first]);
    if (filled) f->fill = (struct jinja_string){.data = s->data, .n = first, .points = 1};
    at = filled ? first : 0;
    if (at < s->n && s->data[at] && strchr("<>^=", s->data[at])) f->align = s->data[at++];
    if (at < s->n && s->data[at] && strchr("+- ", s->data[at])) f->sign = s->data[at++];
    if (at < s->n && s->data[at] == '#') f->alternate = true, at++;
    if (at < s->n && s->data[at] == '0') {
        at++;
        if (!filled) f->fill.data = "0";
        f->zero = !f->align;
    }
    f->width = read_digits(s, &at);
    if (at < s->n && (s->data[at] == ',' || s->data[at] == '_')) f->group = s->data[at++];
    if (at < s->n && s->data[at] == '.') {
        at++;
        if (at >= s->n || s->data[at] < '0' || s->data[at] > '9') JINJA_RAISE(r, "ValueError", "Format specifier missing precision");
        f->precision = read_digits(s, &at);
    }
    if (at < s->n) f->type = s->data[at++];
    if (at < s->n) JINJA_RAISE(r, "ValueError", "Invalid format specifier '%.*s'", (int)s->n, s->data);
    return CB_OK;
}

// name, number or nothing, then .attribute and [item]
static enum cb_status field_value(struct jinja_run *r, struct jinja_value *out, struct braces *x, const struct jinja_string *s) {
    size_t n = 0, number = 0;
    while (n < s->n && s->data[n] != '.' && s->data[n] != '[') n++;
    struct jinja_string name = {.data = s->data, .n = n, .points = SIZE_MAX};
    bool is_number = true;
    for (size_t i = 0; i < n; i++) {
        is_number = is_number && s->data[i] >= '0' && s->data[i] <= '9';
        number = number < MAX_WIDTH && is_number ? number * 10 + (size_t)(s->data[i] - '0') : number;
    }
    if (is_number) {
        size_t i = n ? number : x->next++;
        if (i >= x->args->n) JINJA_RAISE(r, "IndexError", "Replacement index %zu out of range for positional args tuple", i);
        *out = x->args->item[i];
    } else {
        const struct jinja_value *found = NULL;
        for (size_t k = 0; k < x->args->n_keywords; k++)
            if (x->args->keyword[k]->n == n && !memcmp(x->args->keyword[k]->data, name.data, n)) found = &x->args->value[k];
        if (!found) JINJA_RAISE(r, "KeyError", "'%.*s'", (int)n, name.data);
        *out = *found;
    }
    while (n < s->n) {
        bool item = s->data[n++] == '[';
        size_t begin = n;
        while (n < s->n && (item ? s->data[n] != ']' : s->data[n] != '.' && s->data[n] != '[')) n++;
        struct jinja_value key, of = *out;
        jinja_integer index;
        bool fits;
        TRY(jinja_text(r, &key, s->data + begin, n - begin));
        jinja_parse_integer(s->data + begin, n - begin, 10, &index, &fits);
        if (item && fits) key = jinja_int(index);
        TRY(item ? jinja_item(r, out, &of, &key) : jinja_attribute(r, out, &of, key.string));
        if (item) n++;
    }
    return CB_OK;
}

static enum cb_status put_braces(struct jinja_run *r, struct buffer *b, struct braces *x, const struct jinja_string *s) {
    size_t n = 0;
    while (n < s->n && s->data[n] != ':' && s->data[n] != '!') n++;
    struct jinja_string name = {.data = s->data, .n = n, .points = SIZE_MAX};
    char conversion = n + 1 < s->n && s->data[n] == '!' ? s->data[n + 1] : 0;
    if (conversion) n += 2;
    struct jinja_string spec = {.data = s->data + n, .n = s->n - n, .points = SIZE_MAX};
    if (spec.n) spec.data++, spec.n--;
    struct jinja_value v, text;
    struct field f;
    struct buffer nested = {0};
    TRY(field_value(r, &v, x, &name));
    if (memchr(spec.data, '{', spec.n)) {
        if (x->depth) JINJA_RAISE(r, "ValueError", "Max string recursion exceeded");
        x->depth++;
        enum cb_status status = expand(r, &nested, x, &spec);
        x->depth--;
        if (status == CB_OK) status = jinja_take(r, &text, &nested);
        free(nested.data);
        TRY(status);
        spec = *text.string;
    }
    TRY(read_field(r, &f, &spec));
    if (conversion == 'r' || conversion == 'a') TRY(repr_string(r, &v, &v));
    if (conversion == 's') TRY(jinja_str(r, &v, &v));
    if (jinja_is_number(&v) && !(v.kind == JINJA_BOOL && !spec.n)) return put_number(r, b, &v, &f);
    if (spec.n && v.kind != JINJA_STRING && v.kind != JINJA_UNDEFINED)
        JINJA_RAISE(r, "TypeError", "unsupported format string passed to %s.__format__", jinja_type(&v));
    if (f.type && f.type != 's') JINJA_RAISE(r, "ValueError", "Unknown format code '%c' for object of type 'str'", f.type);
    TRY(jinja_str(r, &text, &v));
    return put_text(r, b, text.string, &f, '<');
}

static enum cb_status expand(struct jinja_run *r, struct buffer *b, struct braces *x, const struct jinja_string *s) {
    for (size_t at = 0; at < s->n;) {
        char c = s->data[at];
        if ((c == '{' || c == '}') && at + 1 < s->n && s->data[at + 1] == c) {
            TRY(jinja_put(r, b, &c, 1));
            at += 2;
            continue;
        }
        if (c == '}') JINJA_RAISE(r, "ValueError", "Single '}' encountered in format string");
        if (c != '{') {
            TRY(jinja_put(r, b, &c, 1));
            at++;
            continue;
        }
        size_t begin = ++at;
        int open = 1;
        for (; at < s->n && open; at++) open += (s->data[at] == '{') - (s->data[at] == '}');
        if (open) JINJA_RAISE(r, "ValueError", "expected '}' before end of string");
        struct jinja_string inside = {.data = s->data + begin, .n = at - 1 - begin, .points = SIZE_MAX};
        TRY(put_braces(r, b, x, &inside));
    }
    return CB_OK;
}

enum cb_status jinja_format_braces(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s,
                                   const struct jinja_args *args) {
    struct braces x = {.args = args};
    struct buffer b = {0};
    enum cb_status status = expand(r, &b, &x, s);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}
