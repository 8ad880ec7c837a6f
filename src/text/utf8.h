/* UTF-8 (RFC 3629): decoding, encoding and checking. */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the valid sequence at text (n > 0 bytes are there) and its code point; 0 where it is not valid. */
static inline int utf8_decode(const char *text, size_t n, uint32_t *cp) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return *cp = s[0], 1;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < 2 || (s[1] & 0xc0) != 0x80) return 0;
    if (s[0] < 0xe0) return *cp = (s[0] & 31u) << 6 | (s[1] & 63u), 2;
    if (n < 3 || (s[2] & 0xc0) != 0x80) return 0;
    if (s[0] < 0xf0) {
        *cp = (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u);
        return *cp < 0x800 || (*cp >= 0xd800 && *cp < 0xe000) ? 0 : 3;
    }
    if (n < 4 || (s[3] & 0xc0) != 0x80) return 0;
    *cp = (s[0] & 7u) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 | (s[3] & 63u);
    return *cp < 0x10000 || *cp > 0x10ffff ? 0 : 4;
}

/* Writes a code point (not checked) as 1..4 bytes; returns their count. */
static inline int utf8_encode(char out[4], uint32_t cp) {
    if (cp < 0x80) return out[0] = (char)cp, 1;
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6), out[1] = (char)(0x80 | (cp & 63));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12), out[1] = (char)(0x80 | (cp >> 6 & 63)), out[2] = (char)(0x80 | (cp & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18), out[1] = (char)(0x80 | (cp >> 12 & 63)), out[2] = (char)(0x80 | (cp >> 6 & 63));
    out[3] = (char)(0x80 | (cp & 63));
    return 4;
}

/* Length of the character that a valid lead byte begins. */
static inline int utf8_length(char lead) {
    unsigned char c = (unsigned char)lead;
    return c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}
static inline bool utf8_is_tail(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

/* Offset of the first byte that is not part of a valid sequence; n where all is valid. */
size_t utf8_check(const char *text, size_t n);
/* Code points of valid text. */
size_t utf8_count(const char *text, size_t n);
/* Bytes of text's longest prefix that ends on a complete sequence or on bytes that can never become one (a streaming reader
   holds the rest back). */
size_t utf8_complete(const char *text, size_t n);
/* Copies n bytes to out (room for 3n), each maximal broken part (Unicode 3.9, D93b) as U+FFFD; returns the bytes written. */
size_t utf8_repair(char *out, const char *text, size_t n);
#endif
