/* Unicode properties over utf8proc. */
#include "text/unicode.h"

#include <utf8proc.h>

#include "text/unicode_age.h"
#include "text/utf8.h"

/* Numbers of Unicode 17: the reference's Digits knows them, its regular expressions do not. */
static bool is_youngest_number(uint32_t cp) { return cp - 0x11de0 < 10 || cp - 0x16ff4 < 3; }

enum unicode_class unicode_class(uint32_t cp) {
    if (cp < 0x80) {
        if ((cp | 32) - 'a' < 26) return UNICODE_LETTER;
        if (cp - '0' < 10) return UNICODE_NUMBER;
        return cp == ' ' || cp - 9 < 5 ? UNICODE_SPACE : UNICODE_OTHER;
    }
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO: return UNICODE_LETTER;
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO: return UNICODE_NUMBER;
        case UTF8PROC_CATEGORY_ZS:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP: return UNICODE_SPACE;
        case UTF8PROC_CATEGORY_CN:
            if (unicode_is_new_letter(cp)) return UNICODE_LETTER;
            return unicode_is_new_number(cp) && !is_youngest_number(cp) ? UNICODE_NUMBER : UNICODE_OTHER;
        default: return cp == 0x85 ? UNICODE_SPACE : UNICODE_OTHER;
    }
}

bool unicode_is_space(uint32_t cp) { return unicode_class(cp) == UNICODE_SPACE; }
bool unicode_is_number(uint32_t cp) { return unicode_class(cp) == UNICODE_NUMBER || is_youngest_number(cp); }

bool unicode_is_punctuation(uint32_t cp) {
    if (cp < 0x80) return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) || (cp >= 123 && cp <= 126);
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (cp == 0x166d || cp == 0x111c9) return true;  // were punctuation once
    return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO && !unicode_is_new_punctuation(cp);
}

bool unicode_is_mark(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

// U+1CF2 and U+1CF3 were marks once, U+1734 a nonspacing one
bool unicode_is_accent(uint32_t cp) {
    return cp >= 0x300 && ((unicode_is_mark(cp) && !unicode_is_new_mark(cp)) || cp == 0x1cf2 || cp == 0x1cf3);
}

bool unicode_is_nonspacing(uint32_t cp) {
    if (cp == 0x1734) return true;
    return cp >= 0x300 && utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MN && !unicode_is_new_nonspacing(cp);
}

bool unicode_is_word(uint32_t cp) {
    if (cp < 0x80) return cp == '_' || unicode_class(cp) == UNICODE_LETTER || unicode_class(cp) == UNICODE_NUMBER;
    if (cp == 0x200c || cp == 0x200d || cp - 0x24b6 < 52 || cp - 0x1f130 < 26 || cp - 0x1f150 < 26 || cp - 0x1f170 < 26) return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return unicode_class(cp) == UNICODE_LETTER || c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_PC ||
           unicode_is_mark(cp);
}

bool unicode_is_control(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (c == UTF8PROC_CATEGORY_CF) return !unicode_is_new_format(cp);
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CO;
}

bool unicode_is_ideograph(uint32_t cp) {
    static const uint32_t block[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                        {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    if (cp < 0x3400) return false;
    for (unsigned i = 0; i < sizeof block / sizeof *block; i++)
        if (cp >= block[i][0] && cp <= block[i][1]) return true;
    return false;
}

int unicode_lower(uint32_t out[2], uint32_t cp) {
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
    if (out[0] == cp && cp >= 0x1c89) out[0] = unicode_new_lower(cp);
    if (cp != 0x130) return 1;
    out[0] = 'i', out[1] = 0x307;
    return 2;
}

int unicode_decompose(uint32_t out[UNICODE_DECOMPOSED], uint32_t cp, bool compatible) {
    if (cp < 0xc0 && (!compatible || cp < 0xa0)) return out[0] = cp, 1;
    if (unicode_is_new_decomposition(cp)) return out[0] = cp, 1;
    utf8proc_int32_t buffer[UNICODE_DECOMPOSED];
    utf8proc_option_t options = UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, buffer, UNICODE_DECOMPOSED, options, NULL);
    if (n < 1 || n > UNICODE_DECOMPOSED) return out[0] = cp, 1;
    for (int i = 0; i < (int)n; i++) out[i] = (uint32_t)buffer[i];
    return (int)n;
}

uint32_t unicode_compose(uint32_t first, uint32_t second) {
    utf8proc_int32_t pair[2] = {(utf8proc_int32_t)first, (utf8proc_int32_t)second};
    return utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1 ? (uint32_t)pair[0] : 0;
}

int unicode_combining(uint32_t cp) { return cp < 0x300 ? 0 : utf8proc_get_property((utf8proc_int32_t)cp)->combining_class; }

size_t unicode_grapheme(const char *text, size_t n) {
    uint32_t cp = 0, next = 0;
    size_t at = (size_t)utf8_decode(text, n, &cp);
    utf8proc_int32_t state = 0;
    while (at && at < n) {
        size_t length = (size_t)utf8_decode(text + at, n - at, &next);
        if (!length || utf8proc_grapheme_break_stateful((utf8proc_int32_t)cp, (utf8proc_int32_t)next, &state)) break;
        at += length, cp = next;
    }
    return at ? at : 1;
}
