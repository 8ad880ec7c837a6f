/* Pieces that normalisers share. */
#ifndef TEXT_NORMALISE_H
#define TEXT_NORMALISE_H
#include "text/parts.h"

/* NFC, NFD, NFKC or NFKD (UAX 15). */
enum cb_status normal_form(struct encoder *e, struct track *out, struct piece *piece, bool compose, bool compatible, struct cb_err *err);
/* Writes r's source with every match of the part's pattern (slot 0) replaced by its text in slot 1. */
enum cb_status pattern_replace(const struct part *part, struct regex_scratch **scratch, struct rewrite *r, struct cb_err *err);
/* SentencePiece's compiled character map, as a component and alone. The n bytes must outlive the tokenizer. */
struct charsmap;
enum cb_status charsmap_parse(struct tokenizer *t, struct charsmap **out, const unsigned char *bytes, size_t n, const char *where,
                              struct cb_err *err);
/* The replacement (up to its NUL) of the longest known prefix of n bytes, of *length bytes; NULL where none is known. Nullable: map. */
const char *charsmap_longest(const struct charsmap *map, const char *text, size_t n, size_t *length);
extern const struct part_kind precompiled_kind;
#endif
