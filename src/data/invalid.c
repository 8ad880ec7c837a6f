/* Replacing or leaving out bytes that are not UTF-8. */
#include "data/invalid.h"

#include <string.h>

#include "text/utf8.h"

enum cb_status data_invalid_by_name(enum data_invalid *out, const char *name, struct cb_err *err) {
    static const char *const names[] = {"fail", "replace", "skip"};
    int i = 0;
    while (i < 3 && name && strcmp(name, names[i])) i++;
    if (i == 3) FAIL(err, CB_E_USAGE, "--invalid %s: wanted fail, replace or skip", name);
    *out = (enum data_invalid)i;
    return CB_OK;
}

size_t data_mark(const char *text, size_t n) { return n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0; }
bool data_is_utf16(const char *text, size_t n) { return n >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)); }

size_t data_repair(char *out, const char *text, size_t n, enum data_invalid invalid, int64_t *broken) {
    size_t used = 0;
    for (size_t at = 0; at < n; at++) {
        size_t good = utf8_check(text + at, n - at);
        if (invalid == DATA_INVALID_SKIP) memcpy(out + used, text + at, good);
        used += good, at += good;
        if (at < n) ++*broken;
    }
    return invalid == DATA_INVALID_SKIP ? used : utf8_repair(out, text, n);
}
