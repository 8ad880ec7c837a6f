/* Decompression of raw LZ4 blocks (lz4/lz4, doc/lz4_Block_format.md), alone or framed as Hadoop does. */
#ifndef IO_LZ4_H
#define IO_LZ4_H
#include "base/err.h"

/* Fills exactly n_out bytes; a block that is malformed or of another size is CB_E_FORMAT. */
enum cb_status lz4_unpack(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, const char *name, struct cb_err *err);
/* Blocks one after another, before each its two sizes, unpacked and packed, as big-endian words; a block without them is taken as it is. */
enum cb_status lz4_unpack_framed(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, const char *name, struct cb_err *err);
#endif
