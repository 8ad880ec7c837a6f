/* LZ4: literals, then a copy from what was written before, again and again; the last part is literals alone. */
#include "io/lz4.h"

#include <string.h>

// A length of 15 goes on in bytes, until one is below 255.
static bool read_length(size_t *length, const unsigned char *in, size_t n, size_t *at) {
    if (*length != 15) return true;
    while (*at < n) {
        unsigned char byte = in[(*at)++];
        *length += byte;
        if (byte < 255) return true;
    }
    return false;
}

static bool unpack(unsigned char *out, size_t n_out, const unsigned char *in, size_t n) {
    size_t at = 0, used = 0;
    while (at < n) {
        unsigned char token = in[at++];
        size_t literals = token >> 4, length = token & 15;
        if (!read_length(&literals, in, n, &at) || literals > n - at || literals > n_out - used) return false;
        memcpy(out + used, in + at, literals);
        at += literals, used += literals;
        if (at == n) break;
        if (n - at < 2) return false;
        const size_t offset = in[at] | (size_t)in[at + 1] << 8;
        at += 2;
        if (!read_length(&length, in, n, &at)) return false;
        length += 4;
        if (!offset || offset > used || length > n_out - used) return false;
        // a copy may overlap what it writes: then it repeats
        for (size_t i = 0; i < length; i++) out[used + i] = out[used + i - offset];
        used += length;
    }
    return used == n_out;
}

enum cb_status lz4_unpack(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, const char *name, struct cb_err *err) {
    if (!unpack(out, n_out, in, n))
        FAIL(err, CB_E_FORMAT, "%s: an LZ4 block of %zu bytes is damaged; wanted one of %zu unpacked", name, n, n_out);
    return CB_OK;
}

static size_t word(const unsigned char *p) { return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]; }

enum cb_status lz4_unpack_framed(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, const char *name,
                                 struct cb_err *err) {
    size_t at = 0, used = 0;
    while (n - at >= 8) {
        const size_t unpacked = word(in + at), packed = word(in + at + 4);
        if (packed > n - at - 8 || unpacked > n_out - used || !unpack(out + used, unpacked, in + at + 8, packed)) break;
        at += 8 + packed, used += unpacked;
    }
    return at == n && used == n_out ? CB_OK : lz4_unpack(out, n_out, in, n, name, err);
}
