/* What follows the model: truncation into windows, the post-processor, padding. */
#ifndef TEXT_WINDOWS_H
#define TEXT_WINDOWS_H
#include "text/parts.h"

/* Room for n lists; new ones are empty. */
enum cb_status windows_reserve(struct token_windows *windows, size_t n, struct cb_err *err);
/* From the bare tokens in out->list[0] to finished windows. */
enum cb_status windows_finish(struct encoder *e, struct token_windows *out, int n_sequences, unsigned flags, struct cb_err *err);
#endif
