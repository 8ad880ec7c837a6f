/* Text forms of Jinja's values: Python's str and repr, and json.dumps. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"
#include "text/unicode_case.h"
#include "text/utf8.h"

enum cb_status jinja_put(struct jinja_run *r, struct buffer *b, const char *data, size_t n) {
    if (n > r->max_output || b->n > r->max_output - n) FAIL(r->err, CB_E_LIMIT, "rendering makes over %zu bytes of text", r->max_output);
    TRY(jinja_work(r, 1 + n / 8));
    return buffer_append(b, data, n, r->err);
}
static enum cb_status put(struct jinja_run *r, struct buffer *b, const char *text) { return jinja_put(r, b, text, strlen(text)); }

// ---- numbers

void jinja_integer_text(char text[48], jinja_integer value) {
    char digits[48];
    int n = 0;
    bool negative = value < 0;
    unsigned __int128 left = negative ? -(unsigned __int128)value : (unsigned __int128)value;
    do {
        digits[n++] = (char)('0' + (int)(left % 10));
        left /= 10;
    } while (left);
    if (negative) *text++ = '-';
    while (n) *text++ = digits[--n];
    *text = 0;
}

// The fewest digits that read back equal, in Python's layout: an exponent from 1e16 on and below 1e-4.
void jinja_float_text(char text[40], double value) {
    char digits[40];
    if (isnan(value) || isinf(value)) {
        strcpy(text, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    for (int precision = 0; precision < 18; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1), used = 0;
    if (exponent < -4 || exponent >= 16) {
        snprintf(text, 40, "%.*se%c%02d", (int)(e - digits), digits, exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    // the digits without their point, laid out again
    char plain[40];
    if (digits[0] == '-') text[used++] = '-';
    int n = 0;
    for (const char *c = digits; c < e; c++)
        if (*c >= '0' && *c <= '9') plain[n++] = *c;
    if (exponent < 0) {
        used += sprintf(text + used, "0.%.*s", -exponent - 1, "0000");
        memcpy(text + used, plain, (size_t)n);
        text[used + n] = 0;
        return;
    }
    for (int i = 0; i <= exponent || i < n; i++) {
        if (i == exponent + 1) text[used++] = '.';
        text[used++] = i < n ? plain[i] : '0';
    }
    if (n <= exponent + 1) text[used++] = '.', text[used++] = '0';
    text[used] = 0;
}

// ---- strings

static enum cb_status put_string_repr(struct jinja_run *r, struct buffer *b, const struct jinja_string *s, bool bytes) {
    char quote = memchr(s->data, '\'', s->n) && !memchr(s->data, '"', s->n) ? '"' : '\'', text[16];
    TRY(jinja_put(r, b, &quote, 1));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp = (unsigned char)s->data[at];
        int length = 1;
        if (!bytes) length = utf8_decode(s->data + at, s->n - at, &cp);
        if (length < 1) length = 1;
        const char *simple = cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : cp == '\t' ? "\\t" : cp == '\\' ? "\\\\" : NULL;
        if (simple)
            TRY(put(r, b, simple));
        else if (cp == (uint32_t)quote) {
            snprintf(text, sizeof text, "\\%c", quote);
            TRY(put(r, b, text));
        } else if (bytes ? cp >= 32 && cp < 127 : unicode_is_printable(cp)) {
            TRY(jinja_put(r, b, s->data + at, (size_t)length));
        } else {
            snprintf(text, sizeof text, cp < 256 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)cp);
            TRY(put(r, b, text));
        }
        at += (size_t)length;
    }
    return jinja_put(r, b, &quote, 1);
}

static enum cb_status put_json_string(struct jinja_run *r, struct buffer *b, const struct jinja_string *s, bool ascii) {
    static const char special[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    TRY(put(r, b, "\""));
    for (size_t at = 0; at < s->n;) {
        uint32_t cp = 0;
        int length = utf8_decode(s->data + at, s->n - at, &cp);
        const char *found = cp && cp < 128 ? strchr(special, (int)cp) : NULL;
        char text[16];
        if (length < 1) length = 1;
        if (found)
            snprintf(text, sizeof text, "\\%c", letters[found - special]);
        else if (cp < 32 || (ascii && cp >= 127 && cp < 0x10000 && cp != 127))
            snprintf(text, sizeof text, "\\u%04x", (unsigned)cp);
        else if (ascii && cp >= 0x10000)
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800u + ((cp - 0x10000) >> 10), 0xdc00u + ((cp - 0x10000) & 0x3ff));
        else
            *text = 0;
        TRY(*text ? put(r, b, text) : jinja_put(r, b, s->data + at, (size_t)length));
        at += (size_t)length;
    }
    return put(r, b, "\"");
}

// ---- str and repr

static enum cb_status put_items(struct jinja_run *r, struct buffer *b, const char *open, const struct jinja_list *list, const char *close) {
    TRY(put(r, b, open));
    for (size_t i = 0; i < list->n; i++) {
        if (i) TRY(put(r, b, ", "));
        TRY(jinja_put_repr(r, b, &list->item[i]));
    }
    return put(r, b, close);
}

static enum cb_status put_dict(struct jinja_run *r, struct buffer *b, const struct jinja_dict *d) {
    TRY(put(r, b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i) TRY(put(r, b, ", "));
        TRY(jinja_put_repr(r, b, &d->key[i]));
        TRY(put(r, b, ": "));
        TRY(jinja_put_repr(r, b, &d->item[i]));
    }
    return put(r, b, "}");
}

static enum cb_status put_range(struct jinja_run *r, struct buffer *b, const struct jinja_range *range) {
    char text[96];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)range->step);
    snprintf(text + n, sizeof text - (size_t)n, ")");
    return put(r, b, text);
}

static enum cb_status put_container(struct jinja_run *r, struct buffer *b, const struct jinja_value *v) {
    char text[80];
    switch (v->kind) {
        case JINJA_LIST: return put_items(r, b, "[", v->list, "]");
        case JINJA_TUPLE: return put_items(r, b, "(", v->list, v->list->n == 1 ? ",)" : ")");
        case JINJA_VIEW: snprintf(text, sizeof text, "%s([", v->list->type); return put_items(r, b, text, v->list, "])");
        case JINJA_DICT: return put_dict(r, b, v->dict);
        case JINJA_NAMESPACE:
            TRY(put(r, b, "<Namespace "));
            TRY(put_dict(r, b, v->dict));
            return put(r, b, ">");
        case JINJA_SELF: return put(r, b, "<TemplateReference None>");
        case JINJA_MACRO_VALUE:
            snprintf(text, sizeof text, "<Macro '%.*s'>", (int)(v->closure->macro->name->n > 60 ? 60 : v->closure->macro->name->n),
                     v->closure->macro->name->data);
            return put(r, b, text);
        default:
            snprintf(text, sizeof text, "<%s object>", v->kind == JINJA_ITERATOR ? v->list->type : jinja_type(v));
            return put(r, b, text);
    }
}

enum cb_status jinja_put_repr(struct jinja_run *r, struct buffer *b, const struct jinja_value *v) {
    char text[64];
    switch (v->kind) {
        case JINJA_UNDEFINED: return put(r, b, "Undefined");
        case JINJA_NONE: return put(r, b, "None");
        case JINJA_BOOL: return put(r, b, v->boolean ? "True" : "False");
        case JINJA_INT: jinja_integer_text(text, v->integer); return put(r, b, text);
        case JINJA_FLOAT: jinja_float_text(text, v->real); return put(r, b, text);
        case JINJA_STRING:
            if (v->string->safe) TRY(put(r, b, "Markup("));
            TRY(put_string_repr(r, b, v->string, false));
            return v->string->safe ? put(r, b, ")") : CB_OK;
        case JINJA_BYTES: TRY(put(r, b, "b")); return put_string_repr(r, b, v->string, true);
        case JINJA_RANGE: return put_range(r, b, v->range);
        default: break;
    }
    TRY(jinja_enter(r));
    TRY(put_container(r, b, v));
    r->depth--;
    return CB_OK;
}

enum cb_status jinja_put_str(struct jinja_run *r, struct buffer *b, const struct jinja_value *v) {
    if (v->kind == JINJA_STRING) return jinja_put(r, b, v->string->data, v->string->n);
    if (v->kind == JINJA_UNDEFINED) return CB_OK;
    return jinja_put_repr(r, b, v);
}

enum cb_status jinja_take(struct jinja_run *r, struct jinja_value *out, struct buffer *b) {
    enum cb_status status = jinja_text(r, out, b->data, b->n);
    free(b->data);
    *b = (struct buffer){0};
    return status;
}

enum cb_status jinja_str(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v) {
    struct buffer b = {0};
    if (v->kind == JINJA_STRING) {
        *out = *v;
        return CB_OK;
    }
    enum cb_status status = jinja_put_str(r, &b, v);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

// ---- JSON

static enum cb_status json_line(struct jinja_run *r, struct buffer *b, const struct jinja_json_style *style, int depth) {
    if (!style->pretty) return CB_OK;
    TRY(put(r, b, "\n"));
    for (int i = 0; i < depth; i++) TRY(jinja_put(r, b, style->indent->data, style->indent->n));
    return CB_OK;
}

static enum cb_status json_at(struct jinja_run *r, struct buffer *b, const struct jinja_value *v, const struct jinja_json_style *style,
                              int depth);

// A key as a string: numbers, true, false and null are written as such.
static enum cb_status json_key(struct jinja_run *r, struct buffer *b, const struct jinja_value *key, const struct jinja_json_style *style) {
    if (key->kind == JINJA_STRING) return put_json_string(r, b, key->string, style->ascii);
    if (key->kind > JINJA_FLOAT || key->kind == JINJA_UNDEFINED)
        JINJA_RAISE(r, "TypeError", "keys must be str, int, float, bool or None, not %s", jinja_type(key));
    TRY(put(r, b, "\""));
    TRY(json_at(r, b, key, style, 0));
    return put(r, b, "\"");
}

static enum cb_status json_dict(struct jinja_run *r, struct buffer *b, const struct jinja_dict *d, const struct jinja_json_style *style,
                                int depth) {
    size_t *order;
    TRY(jinja_new(r, &order, d->n + 1, sizeof *order));
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        // insertion sort: objects are small, and the work is counted
        for (; style->sort_keys && at; at--) {
            int sign;
            TRY(jinja_order(r, &sign, &d->key[i], &d->key[order[at - 1]], "<"));
            if (sign >= 0) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    TRY(put(r, b, "{"));
    for (size_t i = 0; i < d->n; i++) {
        if (i) TRY(jinja_put(r, b, style->comma->data, style->comma->n));
        TRY(json_line(r, b, style, depth + 1));
        TRY(json_key(r, b, &d->key[order[i]], style));
        TRY(jinja_put(r, b, style->colon->data, style->colon->n));
        TRY(json_at(r, b, &d->item[order[i]], style, depth + 1));
    }
    if (d->n) TRY(json_line(r, b, style, depth));
    return put(r, b, "}");
}

static enum cb_status json_list(struct jinja_run *r, struct buffer *b, const struct jinja_list *list, const struct jinja_json_style *style,
                                int depth) {
    TRY(put(r, b, "["));
    for (size_t i = 0; i < list->n; i++) {
        if (i) TRY(jinja_put(r, b, style->comma->data, style->comma->n));
        TRY(json_line(r, b, style, depth + 1));
        TRY(json_at(r, b, &list->item[i], style, depth + 1));
    }
    if (list->n) TRY(json_line(r, b, style, depth));
    return put(r, b, "]");
}

static enum cb_status json_at(struct jinja_run *r, struct buffer *b, const struct jinja_value *v, const struct jinja_json_style *style,
                              int depth) {
    switch (v->kind) {
        case JINJA_NONE: return put(r, b, "null");
        case JINJA_BOOL: return put(r, b, v->boolean ? "true" : "false");
        case JINJA_INT: return jinja_put_repr(r, b, v);
        case JINJA_FLOAT:
            if (isfinite(v->real)) return jinja_put_repr(r, b, v);
            return put(r, b, isnan(v->real) ? "NaN" : v->real > 0 ? "Infinity" : "-Infinity");
        case JINJA_STRING: return put_json_string(r, b, v->string, style->ascii);
        case JINJA_LIST:
        case JINJA_TUPLE:
        case JINJA_DICT: break;
        default: JINJA_RAISE(r, "TypeError", "Object of type %s is not JSON serializable", jinja_type(v));
    }
    TRY(jinja_enter(r));
    TRY(v->kind == JINJA_DICT ? json_dict(r, b, v->dict, style, depth) : json_list(r, b, v->list, style, depth));
    r->depth--;
    return CB_OK;
}

enum cb_status jinja_put_json(struct jinja_run *r, struct buffer *b, const struct jinja_value *v, const struct jinja_json_style *style) {
    return json_at(r, b, v, style, 0);
}
