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

/* Bytes of the character at s, as UTF-8 has it (RFC 3629: no overlong form, no surrogate, none above U+10FFFF); 0: there is none. */
static size_t character(const unsigned char *s) {
    if (*s < 0x80) return 1;
    const size_t n = *s >= 0xC2 && *s < 0xE0 ? 2 : *s >= 0xE0 && *s < 0xF0 ? 3 : *s >= 0xF0 && *s < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    const bool is_other =
        (*s == 0xE0 && s[1] < 0xA0) || (*s == 0xED && s[1] >= 0xA0) || (*s == 0xF0 && s[1] < 0x90) || (*s == 0xF4 && s[1] >= 0x90);
    return is_other ? 0 : n;
}

enum { MESSAGE_BYTES = sizeof((struct cb_err *)0)->message };

/* Names from files end up in messages: control characters become '?', bytes that are no UTF-8 \xNN, so that a message is one line, safe to print and
   to send as JSON. */
static void one_line(char message[MESSAGE_BYTES]) {
    char safe[MESSAGE_BYTES];
    const unsigned char *s = (const unsigned char *)message;
    size_t n = 0, bytes, room;
    for (; *s; s += bytes ? bytes : 1, n += room) {
        bytes = character(s);
        room = bytes ? bytes : 4;
        if (n + room >= sizeof safe) break;
        if (!bytes)
            snprintf(safe + n, 5, "\\x%02x", *s);
        else if (*s < 0x20 || *s == 0x7f)
            safe[n] = '?';
        else
            memcpy(safe + n, s, bytes);
    }
    memcpy(message, safe, n);
    message[n] = 0;
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
    if (n >= 0 && (size_t)n < sizeof err->message) snprintf(err->message + n, sizeof err->message - (size_t)n, ": %.900s", old);
    one_line(err->message);
    return err->code;
}
