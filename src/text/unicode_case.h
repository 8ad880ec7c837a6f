/* Case and classes of code points as Python's str methods have them. utf8proc stands behind unicode_case.c. */
#ifndef TEXT_UNICODE_CASE_H
#define TEXT_UNICODE_CASE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNICODE_CASED 8  // code points one may become
enum unicode_case { UNICODE_LOWER, UNICODE_UPPER, UNICODE_TITLE, UNICODE_FOLD };
/* The full mapping of one code point (Unicode's SpecialCasing without its conditions); the count, at least 1. */
int unicode_map_case(uint32_t out[UNICODE_CASED], uint32_t cp, enum unicode_case to);
bool unicode_is_lower(uint32_t cp);
bool unicode_is_upper(uint32_t cp);
bool unicode_is_title(uint32_t cp);
static inline bool unicode_is_cased(uint32_t cp) { return unicode_is_lower(cp) || unicode_is_upper(cp) || unicode_is_title(cp); }
/* Stands between a letter and its neighbours without parting them: what the rule of the final sigma passes over. */
bool unicode_is_case_ignorable(uint32_t cp);
bool unicode_is_alphabetic(uint32_t cp);  // L
bool unicode_is_decimal(uint32_t cp);  // Nd
bool unicode_is_digit(uint32_t cp);  // Nd, and superscripts and their like
bool unicode_is_printable(uint32_t cp);  // str.isprintable
#endif
