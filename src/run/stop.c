/* Stop strings: found wherever pieces join, and never shown. */
#include "run/stop.h"

#include <stdlib.h>
#include <string.h>

static enum cb_status text_add(struct stopper *s, const char *piece, size_t n, struct cb_err *err) {
    if (s->n + n + 1 > s->room) {
        size_t room = (s->n + n + 1) * 2 + 64;
        char *text = realloc(s->text, room);
        if (!text) FAIL(err, CB_E_MEMORY, "generate: no memory for %zu bytes of text", room);
        s->text = text;
        s->room = room;
    }
    if (n) memcpy(s->text + s->n, piece, n);
    s->text[s->n += n] = 0;
    return CB_OK;
}

/* The first stop string in text from byte `from` on; n where there is none. */
static size_t find_stop(const struct stopper *s, size_t from) {
    size_t first = s->n;
    for (int i = 0; i < s->n_stop; i++) {
        size_t length = strlen(s->stop[i]);
        const char *at = length && s->n - from >= length ? memmem(s->text + from, s->n - from, s->stop[i], length) : NULL;
        if (at && (size_t)(at - s->text) < first) first = (size_t)(at - s->text);
    }
    return first;
}

/* Bytes at the end of the text that begin a stop string. */
static size_t held_bytes(const struct stopper *s) {
    size_t held = 0;
    for (int i = 0; i < s->n_stop; i++) {
        size_t length = strlen(s->stop[i]), most = s->n - s->given;
        for (size_t k = length && length - 1 < most ? length - 1 : length ? most : 0; k > held; k--)
            if (memcmp(s->text + s->n - k, s->stop[i], k) == 0) held = k;
    }
    return held;
}

enum cb_status stopper_add(struct stopper *s, const char *piece, size_t n, const char **out, size_t *n_out, struct cb_err *err) {
    *out = "";
    *n_out = 0;
    if (s->is_stopped) return CB_OK;
    TRY(text_add(s, piece, n, err));
    // what is held back is all that a stop string could begin in
    size_t at = find_stop(s, s->given), end = at;
    if (at < s->n) {
        s->is_stopped = true;
        s->text[s->n = at] = 0;
    } else {
        end = s->n - held_bytes(s);
    }
    *out = s->text + s->given;
    *n_out = end - s->given;
    s->given = end;
    return CB_OK;
}

void stopper_finish(struct stopper *s, const char **out, size_t *n_out) {
    *out = s->text ? s->text + s->given : "";
    *n_out = s->n - s->given;
    s->given = s->n;
}

void stopper_deinit(struct stopper *s) {
    free(s->text);
    s->text = NULL;
}
