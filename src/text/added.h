/* Finding added tokens in text. */
#ifndef TEXT_ADDED_H
#define TEXT_ADDED_H
#include "text/parts.h"

/* Sorts the needles and indexes them by first byte. */
void added_set_index(struct added_set *set);
/* The longest needle at byte at of text (n bytes), or NULL. */
const struct added_needle *added_find(const struct added_set *set, const char *text, size_t n, size_t at);
/* Appends the added tokens of the set that lie in piece, leftmost and longest first, and hands the rest on in order. */
enum cb_status added_split(struct encoder *e, const struct added_set *set, const struct piece *piece,
                           enum cb_status (*rest)(struct encoder *e, const struct piece *piece, struct cb_err *err), struct cb_err *err);
#endif
