/* Byte-level words: the known patterns by hand-written matchers, and the map from bytes to characters. */
#ifndef TEXT_BYTELEVEL_H
#define TEXT_BYTELEVEL_H
#include "text/parts.h"

enum bytelevel_pattern { BYTELEVEL_GPT2, BYTELEVEL_CL100K, BYTELEVEL_QWEN2 };
/* The pattern (enum bytelevel_pattern) whose regular expression this is; -1 for others. */
int bytelevel_pattern_find(const char *regex);
/* End of the word that begins at byte at (every byte belongs to one word). */
size_t bytelevel_next(enum bytelevel_pattern pattern, const char *text, size_t n, size_t at);
/* Cuts by the pattern and hands each word on: as it is, or by bytelevel_emit. */
enum cb_status bytelevel_cut(struct encoder *e, int stage, const struct piece *piece, enum bytelevel_pattern pattern, bool map,
                             struct cb_err *err);
/* Hands on a piece of a ByteLevel stage, its bytes mapped to characters (unless the model does that). */
enum cb_status bytelevel_emit(struct encoder *e, int stage, const struct piece *piece, struct cb_err *err);
/* In a file of its own. */
extern const struct part_kind unicode_scripts_kind;
#endif
