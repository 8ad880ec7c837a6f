/* Error records and status texts. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

const char *cb_status_text(enum cb_status status) {
    switch (status) {
#define CB_X(name, number, text) \
    case name: return text;
        CB_STATUS_LIST(CB_X)
#undef CB_X
    }
    return "unknown status";
}

/* Names from files end up in messages: control characters become '?', so that a message is one line and safe to print. */
static void one_line(char *message) {
    for (; *message; message++)
        if ((unsigned char)*message < 0x20 || *message == 0x7f) *message = '?';
}

enum cb_status err_set(struct cb_err *err, enum cb_status code, const char *file, int line, const char *format, ...) {
    if (!err || err->code != CB_OK) return code;
    err->code = code;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    one_line(err->message);
    return code;
}

enum cb_status err_prefix(struct cb_err *err, const char *format, ...) {
    if (!err) return CB_E_ARGUMENT;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    one_line(err->message);
    if (n >= 0 && (size_t)n < sizeof err->message) snprintf(err->message + n, sizeof err->message - (size_t)n, ": %.900s", old);
    return err->code;
}
