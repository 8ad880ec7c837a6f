/* Jinja templates to tokens: text between tags with its white space trimmed, and what the tags hold. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"
#include "text/unicode.h"
#include "text/utf8.h"

#define MAX_BRACKETS 256

struct lexer {
    struct jinja_tokens *tokens;
    struct arena *arena;
    struct cb_err *err;
    const char *text;  // n bytes, lines ended by \n alone
    size_t n, at;
    int line;
    bool line_starting;  // the last tag took the end of its line with it
};

static enum cb_status add(struct lexer *l, enum jinja_token_kind kind, const char *text, size_t n) {
    struct jinja_tokens *t = l->tokens;
    TRY(buffer_grow((void **)&t->item, &t->capacity, t->n + 1, sizeof *t->item, l->err));
    t->item[t->n++] = (struct jinja_token){kind, l->line, text, n};
    return CB_OK;
}

static void count_lines(struct lexer *l, size_t to) {
    for (; l->at < to; l->at++) l->line += l->text[l->at] == '\n';
}

// Bytes of the white space (Python's \s) at text + at.
static size_t space_at(const char *text, size_t n, size_t at) {
    uint32_t cp;
    int length = at < n ? utf8_decode(text + at, n - at, &cp) : 0;
    return length && (unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f)) ? (size_t)length : 0;
}
static size_t skip_space(const char *text, size_t n, size_t at) {
    for (size_t step; (step = space_at(text, n, at)) > 0;) at += step;
    return at;
}
// Where the white space that ends text[from, to) begins.
static size_t trim_end(const char *text, size_t from, size_t to) {
    while (to > from) {
        size_t back = to - 1;
        while (back > from && utf8_is_tail(text[back])) back--;
        if (!space_at(text, to, back)) break;
        to = back;
    }
    return to;
}

static bool holds(const struct lexer *l, size_t at, const char *what) {
    size_t n = strlen(what);
    return at <= l->n && l->n - at >= n && !memcmp(l->text + at, what, n);
}

// ---- text between tags

// The end of text[from, to) before a tag: "-" takes all white space, lstrip_blocks the blanks of the tag's own line.
static size_t text_end(const struct lexer *l, size_t from, size_t to, char sign, bool is_print) {
    if (sign == '-') return trim_end(l->text, from, to);
    if (sign == '+' || is_print) return to;
    size_t line = to;
    while (line > from && l->text[line - 1] != '\n') line--;
    if (line == from && !l->line_starting) return to;
    return skip_space(l->text, to, line) == to ? line : to;
}

static enum cb_status add_text(struct lexer *l, size_t from, size_t to) {
    return to > from ? add(l, JINJA_DATA, l->text + from, to - from) : CB_OK;
}

// Where a tag's end at `at` ends: "-%}" takes the white space after it, "%}" one line end (trim_blocks), "+%}" nothing. 0: there is none.
static size_t tag_end(const struct lexer *l, size_t at, const char *end, bool trims_line) {
    bool minus = holds(l, at, "-") && holds(l, at + 1, end), plus = trims_line && holds(l, at, "+") && holds(l, at + 1, end);
    if (minus) return skip_space(l->text, l->n, at + 3);
    if (plus) return at + 3;
    if (!holds(l, at, end)) return 0;
    return at + 2 + (trims_line && holds(l, at + 2, "\n"));
}

static void leave_tag(struct lexer *l, size_t to) {
    count_lines(l, to);
    l->line_starting = to > 0 && l->text[to - 1] == '\n';
}

static enum cb_status lex_comment(struct lexer *l, size_t inside) {
    for (size_t at = inside; at + 1 < l->n; at++) {
        if (!holds(l, at, "#}")) continue;
        char before = at > inside ? l->text[at - 1] : 0;
        size_t end = before == '-' ? skip_space(l->text, l->n, at + 2) : at + 2 + (before != '+' && holds(l, at + 2, "\n"));
        leave_tag(l, end);
        return CB_OK;
    }
    FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: Missing end of comment tag");
}

// After "{%" and its sign: where the body of a raw block begins; 0 where it is none.
static size_t raw_begins(const struct lexer *l, size_t at) {
    at = skip_space(l->text, l->n, at);
    if (!holds(l, at, "raw")) return 0;
    at = skip_space(l->text, l->n, at + 3);
    if (holds(l, at, "%}")) return at + 2;
    return holds(l, at, "-%}") ? skip_space(l->text, l->n, at + 3) : 0;
}

static enum cb_status lex_raw(struct lexer *l, size_t body) {
    for (size_t at = body; at + 1 < l->n; at++) {
        if (!holds(l, at, "{%")) continue;
        char sign = at + 2 < l->n ? l->text[at + 2] : 0;
        size_t word = skip_space(l->text, l->n, at + 2 + (sign == '-' || sign == '+'));
        if (!holds(l, word, "endraw")) continue;
        size_t end = tag_end(l, skip_space(l->text, l->n, word + 6), "%}", true);
        if (!end) continue;
        l->line_starting = body > 0 && l->text[body - 1] == '\n';
        TRY(add_text(l, body, text_end(l, body, at, sign, false)));
        leave_tag(l, end);
        return CB_OK;
    }
    FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: Missing end of raw directive");
}

// ---- inside tags

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// Digits with single underscores between them.
static size_t digits(const struct lexer *l, size_t at) {
    while (at < l->n && (is_digit(l->text[at]) || (l->text[at] == '_' && at + 1 < l->n && is_digit(l->text[at + 1])))) at++;
    return at;
}

static enum cb_status lex_number(struct lexer *l) {
    size_t at = l->at, end;
    char second = at + 1 < l->n ? l->text[at + 1] | 32 : 0;
    if (l->text[at] == '0' && (second == 'x' || second == 'b' || second == 'o')) {
        end = at + 2;
        while (end < l->n && (is_hex(l->text[end]) || l->text[end] == '_')) end++;
    } else {
        bool real = false;
        end = digits(l, at);
        if (end + 1 < l->n && l->text[end] == '.' && is_digit(l->text[end + 1])) end = digits(l, end + 1), real = true;
        size_t e = end + (end < l->n && (l->text[end] | 32) == 'e');
        if (e > end) {
            e += e < l->n && (l->text[e] == '+' || l->text[e] == '-');
            if (e < l->n && is_digit(l->text[e])) end = digits(l, e), real = true;
        }
        if (real) {
            TRY(add(l, JINJA_REAL, l->text + at, end - at));
            l->at = end;
            return CB_OK;
        }
    }
    TRY(add(l, JINJA_INTEGER, l->text + at, end - at));
    l->at = end;
    return CB_OK;
}

static int hex_value(const char *s, int n) {
    int value = 0;
    for (int i = 0; i < n; i++) {
        if (!is_hex(s[i])) return -1;
        value = value * 16 + (is_digit(s[i]) ? s[i] - '0' : (s[i] | 32) - 'a' + 10);
        if (value > 0x10ffff) return -1;
    }
    return value;
}

// One escape after its backslash, as Python's unicode-escape has them. *at moves past it; the bytes written, or -1.
static int escape(char *out, const char *s, size_t n, size_t *at) {
    static const char letters[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    char c = s[(*at)++];
    if (c == '\n') return 0;
    const char *simple = strchr(letters, c);
    if (c && simple) return out[0] = values[simple - letters], 1;
    int wide = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0, value = 0;
    if (wide) {
        value = n - *at < (size_t)wide ? -1 : hex_value(s + *at, wide);
        if (value < 0 || (value >= 0xd800 && value < 0xe000)) return -1;
        *at += (size_t)wide;
        return utf8_encode(out, (uint32_t)value);
    }
    if (c >= '0' && c <= '7') {
        value = c - '0';
        for (int i = 0; i < 2 && *at < n && s[*at] >= '0' && s[*at] <= '7'; i++) value = value * 8 + s[(*at)++] - '0';
        return utf8_encode(out, (uint32_t)value);
    }
    if (c == 'N') return -1;
    out[0] = '\\';
    out[1] = c;
    return 2;
}

static enum cb_status lex_string(struct lexer *l) {
    char quote = l->text[l->at];
    size_t end = l->at + 1, used = 0;
    while (end < l->n && l->text[end] != quote) end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->n) FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: unexpected char \"%c\" at %zu", quote, l->at);
    const char *s = l->text + l->at + 1;
    size_t n = end - l->at - 1;
    char *out = arena_alloc(l->arena, n + 4);
    if (!out) FAIL(l->err, CB_E_MEMORY, "template: out of memory");
    for (size_t at = 0; at < n;) {
        if (s[at] != '\\') {
            out[used++] = s[at++];
            continue;
        }
        at++;
        int bytes = escape(out + used, s, n, &at);
        if (bytes < 0) FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: a string with an escape that is no character");
        used += (size_t)bytes;
    }
    TRY(add(l, JINJA_TEXT, out, used));
    count_lines(l, end + 1);
    return CB_OK;
}

static enum cb_status lex_name(struct lexer *l) {
    size_t end = l->at;
    uint32_t cp;
    for (int step; end < l->n && (step = utf8_decode(l->text + end, l->n - end, &cp)) > 0 && unicode_is_word(cp);) end += (size_t)step;
    if (end == l->at) FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: unexpected char '%c' at %zu", l->text[l->at], l->at);
    TRY(add(l, JINJA_NAME, l->text + l->at, end - l->at));
    l->at = end;
    return CB_OK;
}

static enum cb_status lex_operator(struct lexer *l, char *open, size_t *n_open, bool *found) {
    static const char *const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
                                            "(",  ")",  "{",  "}",  ">",  "<",  "=", ".", ":", "|", ",", ";", NULL};
    *found = false;
    for (const char *const *o = operators; *o && !*found; o++) {
        if (!holds(l, l->at, *o)) continue;
        *found = true;
        char c = **o, wanted = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : 0;
        if (wanted) {
            if (*n_open == MAX_BRACKETS) FAIL(l->err, CB_E_LIMIT, "TemplateSyntaxError: brackets nested over %d deep", MAX_BRACKETS);
            open[(*n_open)++] = wanted;
        } else if (c == ')' || c == ']' || c == '}') {
            if (!*n_open) FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: unexpected '%c'", c);
            if (open[--*n_open] != c) FAIL(l->err, CB_E_FORMAT, "TemplateSyntaxError: unexpected '%c', expected '%c'", c, open[*n_open]);
        }
        TRY(add(l, JINJA_OPERATOR, l->text + l->at, strlen(*o)));
        l->at += strlen(*o);
    }
    return CB_OK;
}

static enum cb_status lex_tag(struct lexer *l, bool is_print) {
    char open[MAX_BRACKETS];
    size_t n_open = 0;
    while (true) {
        size_t end = n_open ? 0 : tag_end(l, l->at, is_print ? "}}" : "%}", !is_print);
        if (end) {
            TRY(add(l, is_print ? JINJA_PRINT_END : JINJA_BLOCK_END, "", 0));
            leave_tag(l, end);
            return CB_OK;
        }
        count_lines(l, skip_space(l->text, l->n, l->at));
        if (l->at == l->n) return CB_OK;  // the parser says what it wanted
        end = n_open ? 0 : tag_end(l, l->at, is_print ? "}}" : "%}", !is_print);
        if (end) continue;
        char c = l->text[l->at];
        bool found = false;
        if (is_digit(c)) {
            TRY(lex_number(l));
        } else if (c == '\'' || c == '"') {
            TRY(lex_string(l));
        } else {
            TRY(lex_operator(l, open, &n_open, &found));
            if (!found) TRY(lex_name(l));
        }
    }
}

// ---- the whole

static enum cb_status lex_all(struct lexer *l) {
    l->line_starting = true;
    while (true) {
        size_t from = l->at, at = from;
        while (at < l->n && !(l->text[at] == '{' && at + 1 < l->n && strchr("{%#", l->text[at + 1]) && l->text[at + 1])) at++;
        if (at == l->n) {
            TRY(add_text(l, from, l->n));
            count_lines(l, l->n);
            return add(l, JINJA_END, "", 0);
        }
        char kind = l->text[at + 1], sign = at + 2 < l->n ? l->text[at + 2] : 0;
        if (sign != '-' && sign != '+') sign = 0;
        TRY(add_text(l, from, text_end(l, from, at, sign, kind == '{')));
        size_t inside = at + 2 + (sign != 0), raw = kind == '%' ? raw_begins(l, inside) : 0;
        count_lines(l, raw ? raw : inside);
        if (raw) {
            TRY(lex_raw(l, raw));
        } else if (kind == '#') {
            TRY(lex_comment(l, inside));
        } else {
            TRY(add(l, kind == '{' ? JINJA_PRINT_BEGIN : JINJA_BLOCK_BEGIN, "", 0));
            TRY(lex_tag(l, kind == '{'));
        }
    }
}

enum cb_status jinja_lex(struct jinja_tokens *tokens, struct arena *arena, const char *source, size_t n, struct cb_err *err) {
    size_t broken = utf8_check(source, n), used = 0;
    if (broken < n) FAIL(err, CB_E_FORMAT, "TemplateSyntaxError: byte %zu is not UTF-8", broken);
    char *text = arena_alloc(arena, n + 1);
    if (!text) FAIL(err, CB_E_MEMORY, "template: out of memory for %zu bytes", n);
    // every line end is \n; the last one is dropped
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n') continue;
        text[used++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (used && text[used - 1] == '\n') used--;
    struct lexer l = {.tokens = tokens, .arena = arena, .err = err, .text = text, .n = used, .line = 1};
    enum cb_status status = lex_all(&l);
    return status == CB_OK || !err ? status : err_prefix(err, "line %d", l.line);
}
