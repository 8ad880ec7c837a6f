/* Full case mappings and Python's character classes over utf8proc. */
#include "text/unicode_case.h"

#include <utf8proc.h>

#include "text/unicode.h"

static utf8proc_category_t category(uint32_t cp) { return utf8proc_category((utf8proc_int32_t)cp); }

/* Code points whose upper case is longer than one (SpecialCasing.txt): but for U+00DF it is the upper case of their decomposition, composed again. */
static bool grows(uint32_t cp) {
    static const uint16_t ranges[][2] = {
        {0x149, 0x149},   {0x1f0, 0x1f0},   {0x390, 0x390},   {0x3b0, 0x3b0},   {0x587, 0x587},   {0x1e96, 0x1e9a}, {0x1f50, 0x1f50},
        {0x1f52, 0x1f52}, {0x1f54, 0x1f54}, {0x1f56, 0x1f56}, {0x1f80, 0x1faf}, {0x1fb2, 0x1fb4}, {0x1fb6, 0x1fb7}, {0x1fbc, 0x1fbc},
        {0x1fc2, 0x1fc4}, {0x1fc6, 0x1fc7}, {0x1fcc, 0x1fcc}, {0x1fd2, 0x1fd3}, {0x1fd6, 0x1fd7}, {0x1fe2, 0x1fe4}, {0x1fe6, 0x1fe7},
        {0x1ff2, 0x1ff4}, {0x1ff6, 0x1ff7}, {0x1ffc, 0x1ffc}, {0xfb00, 0xfb06}, {0xfb13, 0xfb17}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (cp >= ranges[i][0] && cp <= ranges[i][1]) return true;
    return false;
}

// U+0345 under a letter becomes a letter after it; capitals with it (title case letters) have themselves as title case.
static int long_upper(uint32_t out[UNICODE_CASED], uint32_t cp, bool title) {
    uint32_t part[UNICODE_DECOMPOSED];
    int n = unicode_decompose(part, cp, cp == 0x149 || cp == 0x587 || cp == 0x1e9a || cp >= 0xfb00), used = 0;
    for (int i = 0; i < n && used < UNICODE_CASED; i++) {
        bool keeps = title && i > 0 && cp >= 0x587 && (cp >= 0xfb00 || cp == 0x587 || cp == 0x1e9a);
        uint32_t next = keeps ? part[i] : (uint32_t)utf8proc_toupper((utf8proc_int32_t)part[i]);
        if (title && part[i] == 0x345) next = part[i];
        uint32_t joined = used && next != 0x399 ? unicode_compose(out[used - 1], next) : 0;
        if (joined)
            out[used - 1] = joined;
        else
            out[used++] = next;
    }
    return used;
}

static int fold(uint32_t out[UNICODE_CASED], uint32_t cp) {
    utf8proc_int32_t folded[UNICODE_CASED];
    int boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, folded, UNICODE_CASED, UTF8PROC_CASEFOLD, &boundary);
    if (n < 1 || n > UNICODE_CASED) return out[0] = cp, 1;
    for (int i = 0; i < n; i++) out[i] = (uint32_t)folded[i];
    return (int)n;
}

int unicode_map_case(uint32_t out[UNICODE_CASED], uint32_t cp, enum unicode_case to) {
    if (to == UNICODE_LOWER) return unicode_lower(out, cp);
    if (to == UNICODE_FOLD) return fold(out, cp);
    if (cp == 0xdf) return out[0] = 'S', out[1] = to == UNICODE_TITLE ? 's' : 'S', 2;
    if (grows(cp)) {
        uint32_t title = (uint32_t)utf8proc_totitle((utf8proc_int32_t)cp);
        if (to == UNICODE_TITLE && (title != cp || unicode_is_title(cp))) return out[0] = title, 1;
        return long_upper(out, cp, to == UNICODE_TITLE);
    }
    out[0] = (uint32_t)(to == UNICODE_TITLE ? utf8proc_totitle((utf8proc_int32_t)cp) : utf8proc_toupper((utf8proc_int32_t)cp));
    return 1;
}

// Other_Lowercase and Other_Uppercase: letters that are small or great by form, not by category.
bool unicode_is_lower(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_LL || cp == 0xaa || cp == 0xba || (cp >= 0x2b0 && cp <= 0x2b8) || cp == 0x2c0 || cp == 0x2c1 ||
           (cp >= 0x2e0 && cp <= 0x2e4) || cp == 0x345 || cp == 0x37a || (cp >= 0x1d2c && cp <= 0x1d6a) || cp == 0x1d78 ||
           (cp >= 0x1d9b && cp <= 0x1dbf) || cp == 0x2071 || cp == 0x207f || (cp >= 0x2090 && cp <= 0x209c) ||
           (cp >= 0x2170 && cp <= 0x217f) || (cp >= 0x24d0 && cp <= 0x24e9);
}
bool unicode_is_upper(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_LU || (cp >= 0x2160 && cp <= 0x216f) || (cp >= 0x24b6 && cp <= 0x24cf) ||
           (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) || (cp >= 0x1f170 && cp <= 0x1f189);
}
bool unicode_is_title(uint32_t cp) { return category(cp) == UTF8PROC_CATEGORY_LT; }
bool unicode_is_case_ignorable(uint32_t cp) {
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_LM ||
           c == UTF8PROC_CATEGORY_SK || cp == '\'' || cp == '.' || cp == ':' || cp == 0xb7 || cp == 0x2018 || cp == 0x2019 ||
           cp == 0x2024 || cp == 0x2027;
}
bool unicode_is_alphabetic(uint32_t cp) { return unicode_class(cp) == UNICODE_LETTER; }
bool unicode_is_decimal(uint32_t cp) { return category(cp) == UTF8PROC_CATEGORY_ND; }
bool unicode_is_digit(uint32_t cp) {
    return unicode_is_decimal(cp) || cp == 0xb2 || cp == 0xb3 || cp == 0xb9 || cp == 0x2070 || (cp >= 0x2074 && cp <= 0x2079) ||
           (cp >= 0x2080 && cp <= 0x2089) || (cp >= 0x2460 && cp <= 0x2468) || (cp >= 0x2474 && cp <= 0x247c) ||
           (cp >= 0x2488 && cp <= 0x2490) || cp == 0x24ea || (cp >= 0x24f5 && cp <= 0x24fd) || cp == 0x24ff ||
           (cp >= 0x2776 && cp <= 0x277e) || (cp >= 0x2780 && cp <= 0x2788) || (cp >= 0x278a && cp <= 0x2792);
}
bool unicode_is_printable(uint32_t cp) {
    utf8proc_category_t c = category(cp);
    if (cp == ' ') return true;
    return c != UTF8PROC_CATEGORY_CN && c != UTF8PROC_CATEGORY_CC && c != UTF8PROC_CATEGORY_CF && c != UTF8PROC_CATEGORY_CS &&
           c != UTF8PROC_CATEGORY_CO && c != UTF8PROC_CATEGORY_ZS && c != UTF8PROC_CATEGORY_ZL && c != UTF8PROC_CATEGORY_ZP;
}
