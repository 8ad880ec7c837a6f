/* Matchers for the patterns of GPT-2, cl100k (Llama 3) and Qwen 2, and GPT-2's map of bytes to characters. */
#include "text/bytelevel.h"

#include "text/unicode.h"
#include "text/utf8.h"

uint32_t byte_to_char(unsigned char b) {
    // printable Latin-1 stands for itself, the other 68 bytes follow from U+0100 in order
    if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174) return b;
    return 256u + (b <= 32 ? b : b <= 160 ? b - 127u + 33u : 67u);
}

int char_to_byte(uint32_t cp) {
    if (cp < 256) return byte_to_char((unsigned char)cp) == cp ? (int)cp : -1;
    if (cp > 323) return -1;
    return cp <= 288 ? (int)cp - 256 : cp == 323 ? 173 : (int)cp - 256 - 33 + 127;
}

int bytelevel_pattern_find(const char *regex) {
    static const char *const known[] = {
        [BYTELEVEL_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        [BYTELEVEL_CL100K] =
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
            "\\s+(?!\\S)|\\s+",
        [BYTELEVEL_QWEN2] =
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
            "\\s+(?!\\S)|\\s+",
    };
    for (int i = 0; i < (int)(sizeof known / sizeof *known); i++)
        if (!strcmp(known[i], regex)) return i;
    return -1;
}

/* Class and length of the character at a byte (length 0 at the end). */
static inline enum unicode_class class_at(const char *text, size_t n, size_t at, size_t *length) {
    if (at >= n) return *length = 0, UNICODE_OTHER;
    *length = 1;
    if ((unsigned char)text[at] < 0x80) return unicode_class((unsigned char)text[at]);
    uint32_t cp = 0;
    *length = (size_t)utf8_decode(text + at, n - at, &cp);
    return unicode_class(cp);
}

/* End of the run of characters of a class. */
static size_t run_end(const char *text, size_t n, size_t at, enum unicode_class wanted, int most) {
    size_t length;
    for (; most && at < n && class_at(text, n, at, &length) == wanted; most--) at += length;
    return at;
}

/* Length of 's 't 're 've 'm 'll 'd at an apostrophe, or 0. */
static size_t contraction(const char *text, size_t n, bool fold) {
    if (n < 2) return 0;
    char a = text[1], b = n > 2 ? text[2] : 0;
    if (fold) {
        if (a == '\xc5' && b == '\xbf') return 3;  // long s folds to s
        if (a >= 'A' && a <= 'Z') a += 'a' - 'A';
        if (b >= 'A' && b <= 'Z') b += 'a' - 'A';
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* White space before a word leaves its last character to it. */
static size_t space_end(const char *text, size_t n, size_t at) {
    size_t end = run_end(text, n, at, UNICODE_SPACE, -1), last = end;
    if (end == n) return end;
    do last--;
    while (utf8_is_tail(text[last]));
    return last > at ? last : end;
}

static size_t next_gpt2(const char *text, size_t n, size_t at) {
    size_t length, from = at;
    if (text[at] == '\'' && (length = contraction(text + at, n - at, false))) return at + length;
    if (text[at] == ' ') from++;
    enum unicode_class kind = class_at(text, n, from, &length);
    if (length && kind != UNICODE_SPACE) return run_end(text, n, from + length, kind, -1);
    return space_end(text, n, at);
}

static bool is_newline(char c) { return c == '\r' || c == '\n'; }

static size_t next_cl100k(const char *text, size_t n, size_t at, int digits) {
    size_t length, after, from = at;
    if (text[at] == '\'' && (length = contraction(text + at, n - at, true))) return at + length;
    enum unicode_class kind = class_at(text, n, at, &length);
    if (kind == UNICODE_LETTER) return run_end(text, n, at + length, UNICODE_LETTER, -1);
    if (kind == UNICODE_NUMBER) return run_end(text, n, at, UNICODE_NUMBER, digits);
    // any one character but a newline may lead letters
    if (!is_newline(text[at]) && class_at(text, n, at + length, &after) == UNICODE_LETTER && after)
        return run_end(text, n, at + length, UNICODE_LETTER, -1);
    // signs, after a space, with the newlines that follow
    if (text[at] == ' ') kind = class_at(text, n, ++from, &length);
    if (length && kind == UNICODE_OTHER) {
        size_t end = run_end(text, n, from, UNICODE_OTHER, -1);
        while (end < n && is_newline(text[end])) end++;
        return end;
    }
    // white space up to its last newline
    size_t end = run_end(text, n, at, UNICODE_SPACE, -1);
    for (size_t last = end; last > at; last--)
        if (is_newline(text[last - 1])) return last;
    return space_end(text, n, at);
}

size_t bytelevel_next(enum bytelevel_pattern pattern, const char *text, size_t n, size_t at) {
    return pattern == BYTELEVEL_GPT2 ? next_gpt2(text, n, at) : next_cl100k(text, n, at, pattern == BYTELEVEL_QWEN2 ? 1 : 3);
}

enum cb_status bytelevel_emit(struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    if (e->t->raw_bytes && !e->hook) return encoder_emit(e, stage, piece, err);
    // each byte becomes a character that has the range of its own character
    struct rewrite r = rewrite_begin(&e->track[3 + stage * 2], piece, e->tracking);
    for (size_t i = 0; i < piece->n; i++) {
        char bytes[4];
        rewrite_skip(&r, 1);
        TRY(rewrite_text(&r, bytes, (size_t)utf8_encode(bytes, byte_to_char((unsigned char)piece->text[i])), err));
    }
    struct piece mapped = rewrite_end(&r);
    return encoder_emit(e, stage, &mapped, err);
}

enum cb_status bytelevel_cut(struct encoder *e, int stage, const struct piece *piece, enum bytelevel_pattern pattern, bool map,
                             struct cb_err *err) {
    for (size_t at = 0, to; at < piece->n; at = to) {
        to = bytelevel_next(pattern, piece->text, piece->n, at);
        struct piece word = piece_slice(piece, at, to);
        TRY(map ? bytelevel_emit(e, stage, &word, err) : encoder_emit(e, stage, &word, err));
    }
    return CB_OK;
}
