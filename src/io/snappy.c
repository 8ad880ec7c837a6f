/* Snappy: a length, then literals and copies from what was written before. */
#include "io/snappy.h"

#include <string.h>

static bool read_length(uint64_t *out, const unsigned char *in, size_t n, size_t *at) {
    *out = 0;
    for (int shift = 0; shift < 35 && *at < n; shift += 7) {
        unsigned char byte = in[(*at)++];
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

// A copy may overlap what it writes: then it repeats.
static bool copy(unsigned char *out, size_t n_out, size_t *used, size_t offset, size_t length) {
    if (!offset || offset > *used || length > n_out - *used) return false;
    for (size_t i = 0; i < length; i++) out[*used + i] = out[*used + i - offset];
    *used += length;
    return true;
}

enum cb_status snappy_unpack(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, const char *name, struct cb_err *err) {
    size_t at = 0, used = 0;
    uint64_t total;
    bool good = read_length(&total, in, n, &at) && total == n_out;
    while (good && at < n) {
        unsigned char tag = in[at++];
        size_t length = (size_t)(tag >> 2) + 1, offset = 0, extra = tag & 3;
        if (extra == 0) {
            // the length of a long literal stands in 1 to 4 bytes
            size_t bytes = length > 60 ? length - 60 : 0;
            if (bytes) length = 0;
            for (size_t i = 0; i < bytes && good; i++) good = at < n, length |= good ? (size_t)in[at++] << 8 * i : 0;
            length += bytes > 0;
            good = good && length <= n - at && length <= n_out - used;
            if (!good) break;
            memcpy(out + used, in + at, length);
            used += length, at += length;
            continue;
        }
        size_t bytes = extra == 1 ? 1 : extra == 2 ? 2 : 4;
        if (bytes > n - at) good = false;
        for (size_t i = 0; i < bytes && good; i++) offset |= (size_t)in[at++] << 8 * i;
        if (extra == 1) offset |= (size_t)(tag >> 5) << 8, length = (size_t)(tag >> 2 & 7) + 4;
        good = good && copy(out, n_out, &used, offset, length);
    }
    if (!good || used != n_out)
        FAIL(err, CB_E_FORMAT, "%s: a Snappy block of %zu bytes is damaged; wanted one of %zu unpacked", name, n, n_out);
    return CB_OK;
}
