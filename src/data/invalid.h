/* What to do with bytes that are not UTF-8. */
#ifndef DATA_INVALID_H
#define DATA_INVALID_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum data_invalid {
    DATA_INVALID_FAIL,  // an error with file and place
    DATA_INVALID_REPLACE,  // each broken part becomes U+FFFD
    DATA_INVALID_SKIP,  // the bytes are left out
};
/* "fail" (also NULL), "replace" or "skip"; CB_E_USAGE where it is none of them. */
enum cb_status data_invalid_by_name(enum data_invalid *out, const char *name, struct cb_err *err);
/* Of the beginning of a file: bytes of the byte order mark of UTF-8, 3 or 0; whether that of UTF-16 stands there. */
size_t data_mark(const char *text, size_t n);
bool data_is_utf16(const char *text, size_t n);
/* Copies text to out (room for 3n) with its broken bytes replaced or left out; returns the bytes written, adds the broken bytes to *broken. */
size_t data_repair(char *out, const char *text, size_t n, enum data_invalid invalid, int64_t *broken);
#endif
