/* Jinja's filters for HTML and addresses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_builtin.h"
#include "text/utf8.h"

static enum cb_status finish(struct jinja_run *r, struct jinja_value *out, struct buffer *b, enum cb_status status) {
    if (status == CB_OK) return jinja_take(r, out, b);
    free(b->data);
    return status;
}

static enum cb_status put_escaped(struct jinja_run *r, struct buffer *b, const struct jinja_string *s) {
    for (size_t i = 0; i < s->n; i++) {
        char c = s->data[i];
        const char *to = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\'' ? "&#39;" : c == '"' ? "&#34;" : NULL;
        TRY(to ? jinja_put(r, b, to, strlen(to)) : jinja_put(r, b, &c, 1));
    }
    return CB_OK;
}

static enum cb_status escape(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, bool again) {
    struct jinja_value text;
    struct buffer b = {0};
    TRY(jinja_str(r, &text, self));
    if (text.string->safe && !again) return *out = text, CB_OK;
    TRY(finish(r, out, &b, put_escaped(r, &b, text.string)));
    ((struct jinja_string *)out->string)->safe = true;
    return CB_OK;
}
static enum cb_status f_escape(FILTER) { return (void)args, escape(r, out, self, false); }
static enum cb_status f_forceescape(FILTER) { return (void)args, escape(r, out, self, true); }

static enum cb_status f_safe(FILTER) {
    struct jinja_value text;
    (void)args;
    TRY(jinja_str(r, &text, self));
    TRY(jinja_borrow(r, out, text.string->data, text.string->n));
    ((struct jinja_string *)out->string)->safe = true;
    return CB_OK;
}

static enum cb_status f_xmlattr(FILTER) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    bool any = ARG(0)->kind == JINJA_ABSENT || TRUE(ARG(0));
    if (self->kind != JINJA_DICT) JINJA_RAISE(r, "TypeError", "xmlattr of '%s'; wanted a dict", jinja_type(self));
    for (size_t i = 0; i < self->dict->n && status == CB_OK; i++) {
        const struct jinja_value *v = &self->dict->item[i];
        struct jinja_value key, value;
        if (v->kind == JINJA_NONE || v->kind == JINJA_UNDEFINED) continue;
        status = jinja_str(r, &key, &self->dict->key[i]);
        if (status == CB_OK && strcspn(key.string->data, " \t\n\f\r/>=") < key.string->n)
            status = err_set(r->err, CB_E_FORMAT, __FILE__, __LINE__, "ValueError: Invalid character in attribute name");
        if (status == CB_OK && any) status = jinja_put(r, &b, " ", 1);
        any = true;
        if (status == CB_OK) status = escape(r, &key, &key, false);
        if (status == CB_OK) status = escape(r, &value, v, false);
        if (status == CB_OK) status = jinja_put(r, &b, key.string->data, key.string->n);
        if (status == CB_OK) status = jinja_put(r, &b, "=\"", 2);
        if (status == CB_OK) status = jinja_put(r, &b, value.string->data, value.string->n);
        if (status == CB_OK) status = jinja_put(r, &b, "\"", 1);
    }
    TRY(finish(r, out, &b, status));
    ((struct jinja_string *)out->string)->safe = true;
    return CB_OK;
}

// A named or numbered character; the bytes it takes, 0 where there is none.
static size_t entity(const char *s, size_t n, char out[5], int *length) {
    static const struct {
        const char *name;
        uint32_t cp;
    } names[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}, {"&nbsp;", 0xa0}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t m = strlen(names[i].name);
        if (n < m || memcmp(s, names[i].name, m)) continue;
        *length = utf8_encode(out, names[i].cp);
        return m;
    }
    if (n < 4 || s[1] != '#') return 0;
    char *end, text[16] = {0};
    memcpy(text, s + 2, n - 2 < 15 ? n - 2 : 15);
    bool hex = (text[0] | 32) == 'x';
    unsigned long cp = strtoul(text + hex, &end, hex ? 16 : 10);
    if (*end != ';' || end == text + hex || !cp || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000)) return 0;
    *length = utf8_encode(out, (uint32_t)cp);
    return 2 + (size_t)(end - text) + 1;
}

// Comments and tags taken out, white space joined, then entities read.
static enum cb_status f_striptags(FILTER) {
    struct jinja_value text;
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    bool gap = false;
    (void)args;
    TRY(jinja_str(r, &text, self));
    const struct jinja_string *s = text.string;
    for (size_t at = 0; at < s->n && status == CB_OK;) {
        bool comment = s->n - at >= 4 && !memcmp(s->data + at, "<!--", 4);
        const char *end = comment              ? memmem(s->data + at, s->n - at, "-->", 3)
                          : s->data[at] == '<' ? memchr(s->data + at, '>', s->n - at)
                                               : NULL;
        size_t space = jinja_space(s, at), taken = end ? (size_t)(end - s->data) - at + (comment ? 3 : 1) : space;
        if (taken) {
            gap |= space > 0;
            at += taken;
            continue;
        }
        char bytes[5];
        int length = 1;
        size_t n = s->data[at] == '&' ? entity(s->data + at, s->n - at, bytes, &length) : 0;
        if (gap && b.n) status = jinja_put(r, &b, " ", 1);
        gap = false;
        if (status == CB_OK) status = n ? jinja_put(r, &b, bytes, (size_t)length) : jinja_put(r, &b, s->data + at, 1);
        at += n ? n : 1;
    }
    return finish(r, out, &b, status);
}

// Percent signs for all but letters, digits and _.-~ (and / outside a query, where a blank becomes +).
static enum cb_status put_quoted(struct jinja_run *r, struct buffer *b, const struct jinja_value *v, bool query) {
    struct jinja_value text;
    TRY(jinja_str(r, &text, v));
    for (size_t i = 0; i < text.string->n; i++) {
        unsigned char c = (unsigned char)text.string->data[i];
        char shown[4];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (query && c == ' ')
            strcpy(shown, "+");
        else
            snprintf(shown, sizeof shown, plain ? "%c" : "%%%02X", c);
        TRY(jinja_put(r, b, shown, strlen(shown)));
    }
    return CB_OK;
}

static enum cb_status put_query(struct jinja_run *r, struct buffer *b, const struct jinja_value *key, const struct jinja_value *value) {
    if (b->n) TRY(jinja_put(r, b, "&", 1));
    TRY(put_quoted(r, b, key, true));
    TRY(jinja_put(r, b, "=", 1));
    return put_quoted(r, b, value, true);
}

static enum cb_status f_urlencode(FILTER) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    struct jinja_list items;
    (void)args;
    if (self->kind == JINJA_DICT) {
        for (size_t i = 0; i < self->dict->n && status == CB_OK; i++) status = put_query(r, &b, &self->dict->key[i], &self->dict->item[i]);
    } else if (self->kind == JINJA_LIST || self->kind == JINJA_TUPLE || self->kind == JINJA_ITERATOR || self->kind == JINJA_VIEW) {
        TRY(jinja_items(r, &items, self));
        for (size_t i = 0; i < items.n && status == CB_OK; i++) {
            struct jinja_list pair;
            status = jinja_items(r, &pair, &items.item[i]);
            if (status == CB_OK && pair.n != 2)
                status = err_set(r->err, CB_E_FORMAT, __FILE__, __LINE__, "ValueError: urlencode wants pairs");
            if (status == CB_OK) status = put_query(r, &b, &pair.item[0], &pair.item[1]);
        }
    } else {
        status = put_quoted(r, &b, self, false);
    }
    return finish(r, out, &b, status);
}

// ---- for people

// repr with sorted dictionaries, as Python's pprint has it while it fits a line of 80.
static enum cb_status sort_dicts(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v) {
    *out = *v;
    if (v->kind == JINJA_LIST || v->kind == JINJA_TUPLE) {
        TRY(jinja_enter(r));
        TRY(jinja_new_list(r, out, v->kind, v->list->n));
        for (size_t i = 0; i < v->list->n; i++) TRY(sort_dicts(r, &out->list->item[i], &v->list->item[i]));
        r->depth--;
    }
    if (v->kind != JINJA_DICT) return CB_OK;
    const struct jinja_string name = {.data = "dictsort", .n = 8, .points = 8};
    const struct jinja_value yes = jinja_bool(true);
    const struct jinja_string *const keyword[] = {&(const struct jinja_string){.data = "case_sensitive", .n = 14, .points = 14}};
    struct jinja_args args = {.keyword = (const struct jinja_string **)keyword, .value = &yes, .n_keywords = 1};
    struct jinja_value pairs;
    TRY(jinja_enter(r));
    TRY(jinja_call_builtin(r, &pairs, jinja_find_filter(&name), v, &args));
    TRY(jinja_new_dict(r, out, JINJA_DICT));
    for (size_t i = 0; i < pairs.list->n; i++) {
        struct jinja_value item;
        TRY(sort_dicts(r, &item, &pairs.list->item[i].list->item[1]));
        TRY(jinja_dict_put(r, out->dict, &pairs.list->item[i].list->item[0], &item));
    }
    r->depth--;
    return CB_OK;
}

static enum cb_status f_pprint(FILTER) {
    struct jinja_value sorted;
    struct buffer b = {0};
    (void)args;
    TRY(sort_dicts(r, &sorted, self));
    TRY(finish(r, out, &b, jinja_put_repr(r, &b, &sorted)));
    if (out->string->n > 80) FAIL(r->err, CB_E_UNSUPPORTED, "pprint of over 80 columns; wanted tojson(indent=2)");
    return CB_OK;
}

const struct jinja_builtin jinja_more_filters[] = {{"e", f_escape, ""},
                                                   {"escape", f_escape, ""},
                                                   {"forceescape", f_forceescape, ""},
                                                   {"safe", f_safe, ""},
                                                   {"xmlattr", f_xmlattr, "autospace"},
                                                   {"striptags", f_striptags, ""},
                                                   {"urlencode", f_urlencode, ""},
                                                   {"pprint", f_pprint, ""},
                                                   {0}};
