/* SQuAD's measures of an answer (Rajpurkar et al. 2016, evaluate-v2.0.py): exact match and F1 of words, after case, punctuation, articles and white
   space are evened out. */
#include <string.h>

#include "api/task.h"
#include "text/buffer.h"
#include "text/unicode.h"
#include "text/utf8.h"

static enum cb_status put(struct buffer *out, uint32_t cp, struct cb_err *err) {
    char bytes[4];
    return buffer_append(out, bytes, (size_t)utf8_encode(bytes, cp), err);
}

/* Lower case, without ASCII's punctuation. */
static enum cb_status fold(struct buffer *out, const char *text, size_t n, struct cb_err *err) {
    uint32_t cp, low[2];
    for (size_t at = 0, step; at < n; at += step) {
        step = (size_t)utf8_decode(text + at, n - at, &cp);
        if (!step) FAIL(err, CB_E_FORMAT, "answer: byte %zu is not UTF-8", at);
        if (cp < 128 && cp && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", (int)cp)) continue;
        const int count = unicode_lower(low, cp);
        for (int i = 0; i < count; i++) TRY(put(out, low[i], err));
    }
    return CB_OK;
}

static bool is_article(const char *word, size_t n) {
    return (n == 1 && word[0] == 'a') || (n == 2 && memcmp(word, "an", 2) == 0) || (n == 3 && memcmp(word, "the", 3) == 0);
}

/* Bytes of the letters and digits that text begins with. */
static size_t run_of(const char *text, size_t n) {
    size_t at = 0;
    uint32_t cp = 0;
    while (at < n) {
        const size_t step = (size_t)utf8_decode(text + at, n - at, &cp);
        const enum unicode_class class = unicode_class(cp);
        if (class != UNICODE_LETTER && class != UNICODE_NUMBER) break;
        at += step;
    }
    return at;
}

/* One space where there was any, or an article: a run of letters and digits of its own. */
static enum cb_status words_make(struct buffer *out, const struct buffer *text, struct cb_err *err) {
    uint32_t cp = 0;
    bool gap = false;
    for (size_t at = 0, step; at < text->n; at += step) {
        const char *from = text->data + at;
        const size_t run = run_of(from, text->n - at);
        step = run ? run : (size_t)utf8_decode(from, text->n - at, &cp);
        if (run ? is_article(from, run) : unicode_is_space(cp)) {
            gap = true;
            continue;
        }
        if (gap && out->n) TRY(put(out, ' ', err));
        gap = false;
        TRY(buffer_append(out, from, step, err));
    }
    return CB_OK;
}

static enum cb_status normalise(struct buffer *out, const char *text, size_t n, struct cb_err *err) {
    struct buffer folded = {0};
    out->n = 0;
    enum cb_status status = fold(&folded, text, n, err);
    if (status == CB_OK) status = words_make(out, &folded, err);
    free(folded.data);
    return status;
}

/* The word at *at, and *at behind it; its length 0: none is left. */
static size_t word_next(const struct buffer *text, size_t *at, const char **word) {
    while (*at < text->n && text->data[*at] == ' ') ++*at;
    const size_t begin = *at;
    while (*at < text->n && text->data[*at] != ' ') ++*at;
    *word = text->data + begin;
    return *at - begin;
}

static int64_t words_count(const struct buffer *text) {
    const char *word;
    int64_t n = 0;
    for (size_t at = 0; word_next(text, &at, &word);) n++;
    return n;
}

/* Words in both, each as often as in the text that has it less often. used: room for a byte a word of b. */
static int64_t words_shared(const struct buffer *a, const struct buffer *b, char *used) {
    const char *x, *y;
    int64_t shared = 0;
    for (size_t at = 0, n; (n = word_next(a, &at, &x));) {
        int64_t k = 0;
        bool is_found = false;
        for (size_t from = 0, m; !is_found && (m = word_next(b, &from, &y)); k++) {
            if (used[k] || m != n || memcmp(x, y, n) != 0) continue;
            used[k] = is_found = true;
        }
        shared += is_found;
    }
    return shared;
}

static enum cb_status f1_of(double *f1, const struct buffer *answer, const struct buffer *right, struct cb_err *err) {
    const int64_t n = words_count(answer), m = words_count(right);
    *f1 = n == m;
    if (!n || !m) return CB_OK;
    char *used = calloc((size_t)m, 1);
    if (!used) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    *f1 = 2 * (double)words_shared(answer, right, used) / (double)(n + m);
    free(used);
    return CB_OK;
}

enum cb_status answer_score(double *exact, double *f1, const char *answer, size_t n, const json_t *right, struct cb_err *err) {
    struct buffer own = {0}, other = {0};
    enum cb_status status = normalise(&own, answer, n, err);
    bool any = false;  // of the right ones that has words
    *exact = *f1 = 0;
    for (size_t i = 0; status == CB_OK && i < json_array_size(right); i++) {
        const json_t *text = json_array_get(right, i);
        double one = 0;
        status = normalise(&other, json_string_value(text), json_string_length(text), err);
        if (status != CB_OK || !other.n) continue;
        any = true;
        if (own.n == other.n && memcmp(own.data, other.data, own.n) == 0) *exact = 1;
        status = f1_of(&one, &own, &other, err);
        if (one > *f1) *f1 = one;
    }
    if (!any) *exact = *f1 = own.n == 0;
    free(own.data);
    free(other.data);
    return status;
}
