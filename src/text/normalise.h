/* Pieces that normalisers share. */
#ifndef TEXT_NORMALISE_H
#define TEXT_NORMALISE_H
#include "text/parts.h"

/* NFC, NFD, NFKC or NFKD (UAX 15). */
enum cb_status normal_form(struct encoder *e, struct track *out, struct piece *piece, bool compose, bool compatible, struct cb_err *err);
/* Writes r's source with every match of the part's pattern (slot 0) replaced by its text in slot 1. */
enum cb_status pattern_replace(const struct part *part, struct regex_scratch **scratch, struct rewrite *r, struct cb_err *err);
/* SentencePiece's compiled character map. */
extern const struct part_kind precompiled_kind;
#endif
