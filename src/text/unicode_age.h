/* Code points younger than one of the Unicode tables in use. */
#ifndef TEXT_UNICODE_AGE_H
#define TEXT_UNICODE_AGE_H
#include <stdbool.h>
#include <stdint.h>

bool unicode_is_new_mark(uint32_t cp);  // marks younger than the accent table of StripAccents in the reference
bool unicode_is_new_nonspacing(uint32_t cp);  // marks younger than that of its BertNormalizer (about Unicode 8)
bool unicode_is_new_punctuation(uint32_t cp);  // punctuation younger than its punctuation table
bool unicode_is_new_format(uint32_t cp);  // format characters younger than its control table
bool unicode_is_new_decomposition(uint32_t cp);  // decompositions younger than its normal forms
bool unicode_is_new_letter(uint32_t cp);  // letters younger than utf8proc (Unicode 16 and 17)
bool unicode_is_new_number(uint32_t cp);  // numbers younger than utf8proc
bool unicode_is_after_9(uint32_t cp);  // assigned after Unicode 9
/* Lower case of letters that are younger than utf8proc's tables; cp for all others. */
uint32_t unicode_new_lower(uint32_t cp);
#endif
