/* Base64 (RFC 4648), with padding. */
#ifndef TEXT_BASE64_H
#define TEXT_BASE64_H
#include <stddef.h>
#include <stdint.h>

/* Writes the bytes of n characters to out (room for 3 of every 4); returns their count, or -1 where the text is not base64. */
int64_t base64_decode(unsigned char *out, const char *text, size_t n);
/* Writes n bytes as (n + 2) / 3 * 4 characters and a NUL. */
void base64_encode(char *out, const unsigned char *bytes, size_t n);
#endif
