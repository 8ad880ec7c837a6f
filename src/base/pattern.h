/* Regular expressions over whole names, as module configurations use them: a name matches or not, with a bound on backtracking. */
#ifndef BASE_PATTERN_H
#define BASE_PATTERN_H
#include "base/err.h"

struct pattern;

/* where: the owner's name for messages. Owned by caller, free with pattern_destroy. */
enum cb_status pattern_create(struct pattern **pattern, const char *text, const char *where, struct cb_err *err);
void pattern_destroy(struct pattern **pattern);
/* Whether all of name matches. CB_E_LIMIT where it takes too many steps. */
enum cb_status pattern_matches(const struct pattern *pattern, const char *name, bool *matches, struct cb_err *err);
#endif
