/* Properties, case and decomposition of code points; utf8proc stands behind this file alone. */
#ifndef TEXT_UNICODE_H
#define TEXT_UNICODE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The four classes that byte-level patterns know. */
enum unicode_class { UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE };
enum unicode_class unicode_class(uint32_t cp);
bool unicode_is_space(uint32_t cp);  // White_Space
bool unicode_is_number(uint32_t cp);  // N
bool unicode_is_punctuation(uint32_t cp);  // P, and the ASCII signs
bool unicode_is_mark(uint32_t cp);  // M, of any age
bool unicode_is_accent(uint32_t cp);  // M, as the accent table of the reference has it
bool unicode_is_nonspacing(uint32_t cp);  // Mn, likewise
bool unicode_is_word(uint32_t cp);  // UTS 18: alphabetic, mark, decimal digit, connector, joiner
bool unicode_is_control(uint32_t cp);  // Cc, Cf, Co
bool unicode_is_ideograph(uint32_t cp);  // the CJK blocks that BERT sets apart

/* Simple lower case into out (U+0130 gives two); returns their count. */
int unicode_lower(uint32_t out[2], uint32_t cp);
/* Full canonical (or compatibility) decomposition of one code point; returns the count, at least 1. */
#define UNICODE_DECOMPOSED 24
int unicode_decompose(uint32_t out[UNICODE_DECOMPOSED], uint32_t cp, bool compatible);
/* The primary composite of a pair, or 0. */
uint32_t unicode_compose(uint32_t first, uint32_t second);
int unicode_combining(uint32_t cp);  // canonical combining class
/* Bytes of the extended grapheme cluster (UAX 29) at n > 0 bytes of valid UTF-8. */
size_t unicode_grapheme(const char *text, size_t n);
#endif
