/* Generated text on its way out: held back while it may turn out to be a stop string. */
#ifndef RUN_STOP_H
#define RUN_STOP_H
#include "base/err.h"

struct stopper {
    const char *const *stop;  // n_stop strings; borrowed
    int n_stop;
    char *text;  // everything up to the stop string, and a NUL; NULL before the first piece
    size_t n, room, given;  // bytes; given: handed out so far
    bool is_stopped;  // a stop string was found; the text ends before it
};

/* Adds a piece (n bytes). *out: what may be handed out now (maybe nothing), *n_out bytes, borrowed until the next call. */
enum cb_status stopper_add(struct stopper *stopper, const char *piece, size_t n, const char **out, size_t *n_out, struct cb_err *err);
/* What is still held back, at the end. */
void stopper_finish(struct stopper *stopper, const char **out, size_t *n_out);
void stopper_deinit(struct stopper *stopper);
#endif
