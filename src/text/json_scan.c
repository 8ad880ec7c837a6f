/* A scanner for the vocabulary and the merges of a tokenizer.json (RFC 8259), which are nearly all of the file. */
#include "text/json_scan.h"

#include <math.h>

#include "text/buffer.h"
#include "text/utf8.h"

struct scanner {
    const char *at, *end;
    char *out;  // where decoded texts go; never more than their source
    bool bad;  // something that is left to the general parser
};

static void skip_space(struct scanner *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

/* Whether c comes next; it is then passed. */
static bool take(struct scanner *s, char c) {
    skip_space(s);
    if (s->at >= s->end || *s->at != c) return false;
    s->at++;
    return true;
}

static void want(struct scanner *s, char c) { s->bad = s->bad || !take(s, c); }

static int hex4(const struct scanner *s) {
    int value = 0;
    if (s->end - s->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = s->at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* After a backslash. */
static void escape(struct scanner *s) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *known = s->at < s->end && *s->at ? strchr(names, *s->at) : NULL;
    int high, low;
    if (known) {
        *s->out++ = values[known - names];
        s->at++;
        return;
    }
    s->bad = s->at == s->end || *s->at++ != 'u' || (high = hex4(s)) <= 0 || (high & 0xfc00) == 0xdc00;
    if (s->bad) return;
    s->at += 4;
    uint32_t cp = (uint32_t)high;
    if ((high & 0xfc00) == 0xd800) {
        s->bad = s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u';
        if (s->bad) return;
        s->at += 2;
        low = hex4(s);
        s->bad = low < 0 || (low & 0xfc00) != 0xdc00;
        s->at += 4;
        cp = 0x10000 + (((uint32_t)high & 0x3ff) << 10 | ((uint32_t)low & 0x3ff));
    }
    if (!s->bad) s->out += utf8_encode(s->out, cp);
}

/* A text, decoded and ended by NUL (the closing quote's place). */
static const char *text_scan(struct scanner *s, uint32_t *n) {
    char *begin = s->out;
    want(s, '"');
    while (!s->bad) {
        const char *from = s->at;
        while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 32) s->at++;
        memcpy(s->out, from, (size_t)(s->at - from));
        s->out += s->at - from;
        s->bad = s->at == s->end || (unsigned char)*s->at < 32;
        if (s->bad || *s->at == '"') break;
        s->at++;
        escape(s);
    }
    if (s->bad) return NULL;
    s->at++;
    *n = (uint32_t)(s->out - begin);
    *s->out++ = 0;
    return begin;
}

static int64_t count_scan(struct scanner *s) {
    int64_t value = 0;
    skip_space(s);
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && s->at - from < 10) value = value * 10 + (*s->at++ - '0');
    bool zeros = s->at - from > 1 && *from == '0', more = s->at < s->end && (strchr("0123456789.eE+-", *s->at) != NULL) && *s->at;
    s->bad = s->bad || s->at == from || zeros || more;
    return value;
}

static double number_scan(struct scanner *s) {
    char copy[64], *stop;
    size_t n = 0;
    skip_space(s);
    while (n < sizeof copy - 1 && s->at + n < s->end && s->at[n] && strchr("0123456789.eE+-", s->at[n])) copy[n] = s->at[n], n++;
    copy[n] = 0;
    // JSON wants a digit first and after the point
    const char *digits = copy + (copy[0] == '-');
    const char *point = strchr(copy, '.');
    s->bad = s->bad || digits[0] < '0' || digits[0] > '9' || (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9') ||
             (point && (point[1] < '0' || point[1] > '9'));
    double value = s->bad ? 0 : strtod(copy, &stop);
    if (!s->bad) s->bad = *stop || !isfinite(value);
    s->at += n;
    return value;
}

static void text_skip(struct scanner *s) {
    want(s, '"');
    while (s->at < s->end && *s->at != '"') s->at += *s->at == '\\' ? 2 : 1;
    s->bad = s->bad || s->at >= s->end;
    s->at = s->bad ? s->end : s->at + 1;
}

/* Passes any value. What it holds is checked by the parser that reads it in the end. */
static void value_skip(struct scanner *s) {
    int64_t depth = 0;
    do {
        skip_space(s);
        char c = s->at < s->end ? *s->at : 0;
        if (!c) s->bad = true;
        if (c == '"')
            text_skip(s);
        else if (c == '{' || c == '[')
            depth++, s->at++;
        else if (c == '}' || c == ']')
            depth--, s->at++;
        else
            for (s->at += c != 0; s->at < s->end && !strchr(",:{}[]\" \n\r\t", *s->at);) s->at++;
    } while (!s->bad && depth > 0);
}

/* ---- the lists */

static enum cb_status vocab_scan(struct json_scan *scan, struct scanner *s, struct cb_err *err) {
    bool pairs = scan->is_pairs = take(s, '[');
    scan->has_vocab = true;
    char close = pairs ? ']' : '}';
    if (!pairs) want(s, '{');
    if (s->bad || take(s, close)) return CB_OK;
    do {
        struct scanned_token token = {NULL, 0, -1, 0};
        if (pairs) want(s, '[');
        token.text = text_scan(s, &token.n);
        want(s, pairs ? ',' : ':');
        if (pairs) {
            token.score = number_scan(s);
            want(s, ']');
        } else {
            token.id = count_scan(s);
        }
        if (s->bad) return CB_OK;
        TRY(buffer_grow((void **)&scan->token, &scan->token_capacity, scan->n_tokens + 1, sizeof token, err));
        scan->token[scan->n_tokens++] = token;
    } while (take(s, ','));
    want(s, close);
    return CB_OK;
}

/* "a b" or ["a", "b"]. */
static void merge_scan(struct scanner *s, struct scanned_merge *m) {
    if (take(s, '[')) {
        m->left = text_scan(s, &m->n_left);
        want(s, ',');
        m->right = s->bad ? NULL : text_scan(s, &m->n_right);
        want(s, ']');
        return;
    }
    uint32_t n = 0;
    const char *text = text_scan(s, &n), *gap = s->bad ? NULL : memchr(text, ' ', n);
    s->bad = !gap || memchr(gap + 1, ' ', n - (size_t)(gap + 1 - text));
    if (s->bad) return;
    *m = (struct scanned_merge){text, gap + 1, (uint32_t)(gap - text), n - (uint32_t)(gap + 1 - text)};
}

static enum cb_status merges_scan(struct json_scan *scan, struct scanner *s, struct cb_err *err) {
    scan->has_merges = true;
    want(s, '[');
    if (s->bad || take(s, ']')) return CB_OK;
    do {
        struct scanned_merge m = {0};
        merge_scan(s, &m);
        if (s->bad) return CB_OK;
        TRY(buffer_grow((void **)&scan->merge, &scan->merge_capacity, scan->n_merges + 1, sizeof m, err));
        scan->merge[scan->n_merges++] = m;
    } while (take(s, ','));
    want(s, ']');
    return CB_OK;
}

/* ---- the file */

/* Passes the members of an object up to one of a name; false: there is none. */
static bool member_find(struct scanner *s, const char *name) {
    size_t n = strlen(name);
    while (!s->bad && !take(s, '}')) {
        skip_space(s);
        const char *key = s->at;
        text_skip(s);
        bool found = !s->bad && (size_t)(s->at - key) == n + 2 && !memcmp(key + 1, name, n);
        want(s, ':');
        if (found) return !s->bad;
        value_skip(s);
        take(s, ',');
    }
    return false;
}

/* Copies the file without the source bytes of a list. */
static void cut(struct json_scan *scan, const char **kept, const char *from, const char *to) {
    memcpy(scan->rest + scan->n_rest, *kept, (size_t)(from - *kept));
    scan->n_rest += (size_t)(from - *kept);
    scan->rest[scan->n_rest++] = *from;
    scan->rest[scan->n_rest++] = *from == '{' ? '}' : ']';
    *kept = to;
}

static enum cb_status lists_scan(struct json_scan *scan, struct scanner *s, const char *bytes, struct cb_err *err) {
    const char *kept = bytes;
    want(s, '{');
    if (!member_find(s, "model")) return CB_OK;
    want(s, '{');
    for (int i = 0; i < 2 && !s->bad; i++) {
        // either may come first
        struct scanner vocab = *s, merges = *s;
        bool has_vocab = !scan->has_vocab && member_find(&vocab, "vocab"), has_merges = !scan->has_merges && member_find(&merges, "merges");
        if (!has_vocab && !has_merges) break;
        bool vocab_first = has_vocab && (!has_merges || vocab.at < merges.at);
        s->at = vocab_first ? vocab.at : merges.at;
        skip_space(s);
        const char *from = s->at;
        if (from == s->end || (*from != '{' && *from != '[')) break;
        TRY(vocab_first ? vocab_scan(scan, s, err) : merges_scan(scan, s, err));
        if (s->bad) return CB_OK;
        cut(scan, &kept, from, s->at);
        take(s, ',');
    }
    memcpy(scan->rest + scan->n_rest, kept, (size_t)(s->end - kept));
    scan->n_rest += (size_t)(s->end - kept);
    return CB_OK;
}

enum cb_status json_scan(struct json_scan *scan, bool *found, struct arena *arena, const char *bytes, size_t n, struct cb_err *err) {
    struct scanner s = {bytes, bytes + n, NULL, false};
    *scan = (struct json_scan){0};
    *found = false;
    s.out = arena_alloc(arena, n + 1), scan->rest = malloc(n + 8);
    if (!s.out || !scan->rest) FAIL(err, CB_E_MEMORY, "tokenizer: no memory for %zu bytes", n);
    TRY(lists_scan(scan, &s, bytes, err));
    *found = !s.bad && scan->has_vocab;
    return CB_OK;
}

enum cb_status json_scan_vocab(struct json_scan *scan, bool *found, struct arena *arena, const char *bytes, size_t n, struct cb_err *err) {
    struct scanner s = {bytes, bytes + n, NULL, false};
    *scan = (struct json_scan){0};
    *found = false;
    s.out = arena_alloc(arena, n + 1);
    if (!s.out) FAIL(err, CB_E_MEMORY, "tokenizer: no memory for %zu bytes", n);
    TRY(vocab_scan(scan, &s, err));
    skip_space(&s);
    *found = !s.bad && !scan->is_pairs && s.at == s.end;
    return CB_OK;
}

void json_scan_deinit(struct json_scan *scan) {
    free(scan->token), free(scan->merge), free(scan->rest);
    *scan = (struct json_scan){0};
}
