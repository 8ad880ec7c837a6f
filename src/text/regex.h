/* Regular expressions in the dialect of tokenizer.json (Oniguruma, Ruby syntax), with a bound on backtracking. */
#ifndef TEXT_REGEX_H
#define TEXT_REGEX_H
#include "base/err.h"

struct regex;
struct regex_scratch;  // what a search works in: one per thread

/* pattern: n bytes of UTF-8. where: the owner's name for messages. Owned by caller, free with regex_destroy. */
enum cb_status regex_create(struct regex **regex, const char *pattern, size_t n, const char *where, struct cb_err *err);
void regex_destroy(struct regex **regex);
/* The first match at or after from in n bytes of valid UTF-8, as bytes [*begin, *end); *begin = -1 where there is none. Lookarounds see
   all of text. CB_E_LIMIT when the match takes too many steps. *scratch: NULL at first, then kept by the caller, free with
   regex_scratch_destroy. */
enum cb_status regex_find(const struct regex *regex, int64_t *begin, int64_t *end, struct regex_scratch **scratch, const char *text,
                          size_t n, size_t from, struct cb_err *err);
void regex_scratch_destroy(struct regex_scratch **scratch);

/* The number of a character property by its name ("Han"); -1 where unknown. */
int regex_property(const char *name);
bool regex_has_property(int property, uint32_t cp);
#endif
