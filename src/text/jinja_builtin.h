/* What the files of Jinja's filters, tests and methods share. Private to jinja_*.c. */
#ifndef TEXT_JINJA_BUILTIN_H
#define TEXT_JINJA_BUILTIN_H
#include "text/jinja_tree.h"
#include "text/unicode_case.h"

#define FILTER struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args
#define ARG(i) (&args->item[i])
/* None counts as not given, as the defaults of most filters are None. */
#define GIVEN(v) ((v)->kind != JINJA_ABSENT && (v)->kind != JINJA_NONE)
#define TRUE(v) (jinja_truth(v))

/* The text of a string argument; TypeError otherwise. */
enum cb_status jinja_need_string(struct jinja_run *r, const struct jinja_string **out, const struct jinja_value *v);
/* A whole number within [low, high] (clamped to it), or `otherwise` where it is not given. */
enum cb_status jinja_need_integer(struct jinja_run *r, int64_t *out, const struct jinja_value *v, int64_t otherwise, int64_t low,
                                  int64_t high);
enum cb_status jinja_map_case(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, enum unicode_case to);
/* The character at s + at, *length bytes long, in another case. */
enum cb_status jinja_put_case(struct jinja_run *r, struct buffer *b, const struct jinja_string *s, size_t at, enum unicode_case to,
                              size_t *length);
/* First letter of each word (of the text, where `once`) as title, the rest in lower case. */
enum cb_status jinja_capitalise(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s);
/* s without the characters of `set` (NULL: white space) at its ends. */
enum cb_status jinja_strip(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, const struct jinja_string *set,
                           bool left, bool right);
/* At most `count` places; negative: all. */
enum cb_status jinja_replace(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, const struct jinja_string *old,
                             const struct jinja_string *with, int64_t count);
/* s in a field of `width` code points. side: '<', '>' or '^'. */
enum cb_status jinja_pad(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, int64_t width,
                         const struct jinja_string *fill, char side);
/* (key, value) tuples of a dictionary. */
enum cb_status jinja_pairs(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *dict, enum jinja_kind kind);
/* Bytes of white space (Python's str.isspace) at s + at; 0: none. */
size_t jinja_space(const struct jinja_string *s, size_t at);
#endif
