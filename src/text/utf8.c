/* UTF-8 checking, counting and repair. */
#include "text/utf8.h"

#include <string.h>

size_t utf8_check(const char *text, size_t n) {
    size_t at = 0;
    while (at < n) {
        // eight ASCII bytes at a time
        uint64_t word;
        while (n - at >= 8 && (memcpy(&word, text + at, 8), !(word & 0x8080808080808080u))) at += 8;
        if (at == n) break;
        uint32_t cp;
        int length = utf8_decode(text + at, n - at, &cp);
        if (!length) return at;
        at += (size_t)length;
    }
    return n;
}

size_t utf8_count(const char *text, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += !utf8_is_tail(text[i]);
    return count;
}

/* Length of the maximal broken part at text: a prefix of some valid sequence, or one byte. */
static size_t broken_length(const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0xc2 || s[0] > 0xf4) return 1;
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80, high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    size_t want = (size_t)utf8_length(text[0]), k = 1;
    if (k < n && k < want && s[k] >= low && s[k] <= high)
        for (k = 2; k < n && k < want && utf8_is_tail(text[k]);) k++;
    return k;
}

size_t utf8_complete(const char *text, size_t n) {
    // only the last three bytes can begin an unfinished sequence
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const char *s = text + n - back;
        if (utf8_is_tail(*s)) continue;
        if ((unsigned char)*s < 0xc2 || (unsigned char)*s > 0xf4) return n;
        bool open = (size_t)utf8_length(*s) > back && broken_length(s, back) == back;
        return open ? n - back : n;
    }
    return n;
}

size_t utf8_repair(char *out, const char *text, size_t n) {
    size_t written = 0;
    for (size_t at = 0; at < n;) {
        size_t good = utf8_check(text + at, n - at);
        memmove(out + written, text + at, good);
        written += good, at += good;
        if (at == n) break;
        at += broken_length(text + at, n - at);
        memcpy(out + written, "\xef\xbf\xbd", 3);
        written += 3;
    }
    return written;
}
