/* Decompression of raw Snappy blocks (google/snappy, format_description.txt). */
#ifndef IO_SNAPPY_H
#define IO_SNAPPY_H
#include "base/err.h"

/* Fills exactly n_out bytes; a block that is malformed or of another size is CB_E_FORMAT. */
enum cb_status snappy_unpack(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, const char *name, struct cb_err *err);
#endif
