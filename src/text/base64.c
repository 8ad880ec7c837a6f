/* Base64 (RFC 4648): character maps, tokens of byte vocabularies. */
#include "text/base64.h"

static int value_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int64_t base64_decode(unsigned char *out, const char *text, size_t n) {
    int64_t written = 0;
    if (n % 4) return -1;
    for (size_t i = 0; i < n; i += 4) {
        int pad = i + 4 == n ? (text[i + 3] == '=') + (text[i + 2] == '=' && text[i + 3] == '=') : 0;
        uint32_t word = 0;
        for (int k = 0; k < 4; k++) {
            int v = k >= 4 - pad ? 0 : value_of(text[i + (size_t)k]);
            if (v < 0) return -1;
            word = word << 6 | (uint32_t)v;
        }
        for (int k = 0; k < 3 - pad; k++) out[written++] = (unsigned char)(word >> (16 - 8 * k));
    }
    return written;
}

void base64_encode(char *out, const unsigned char *bytes, size_t n) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t word = (uint32_t)bytes[i] << 16 | (have > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (have > 2 ? bytes[i + 2] : 0);
        for (size_t k = 0; k < 4; k++) *out++ = k > have ? '=' : digit[word >> (18 - 6 * k) & 63];
    }
    *out = 0;
}
