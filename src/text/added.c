/* Added tokens: found in text before (or after) normalising, whatever the model would make of them. */
#include "text/added.h"

#include "text/unicode.h"
#include "text/utf8.h"

static int needle_order(const void *a, const void *b) {
    const struct added_needle *x = a, *y = b;
    int first = (int)(unsigned char)x->text[0] - (int)(unsigned char)y->text[0];
    if (first) return first;
    return x->n == y->n ? x->added - y->added : x->n < y->n ? 1 : -1;
}

void added_set_index(struct added_set *set) {
    qsort(set->needle, (size_t)set->n, sizeof *set->needle, needle_order);
    int at = 0;
    for (int b = 0; b <= 256; b++) {
        while (at < set->n && (int)(unsigned char)set->needle[at].text[0] < b) at++;
        set->first[b] = (uint32_t)at;
    }
}

const struct added_needle *added_find(const struct added_set *set, const char *text, size_t n, size_t at) {
    unsigned char b = (unsigned char)text[at];
    for (uint32_t i = set->first[b]; i < set->first[b + 1]; i++)
        if (set->needle[i].n <= n - at && !memcmp(set->needle[i].text, text + at, set->needle[i].n)) return &set->needle[i];
    return NULL;
}

static bool word_before(const char *text, size_t at) {
    if (!at) return false;
    size_t from = at - 1;
    while (from && utf8_is_tail(text[from])) from--;
    uint32_t cp = 0;
    return utf8_decode(text + from, at - from, &cp) && unicode_is_word(cp);
}

static bool word_after(const char *text, size_t n, size_t at) {
    uint32_t cp = 0;
    return at < n && utf8_decode(text + at, n - at, &cp) && unicode_is_word(cp);
}

static size_t spaces_before(const char *text, size_t at, size_t stop) {
    while (at > stop) {
        size_t from = at - 1;
        while (from > stop && utf8_is_tail(text[from])) from--;
        uint32_t cp = 0;
        if (!utf8_decode(text + from, at - from, &cp) || !unicode_is_space(cp)) break;
        at = from;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t n, size_t at) {
    for (uint32_t cp; at < n;) {
        int length = utf8_decode(text + at, n - at, &cp);
        if (!length || !unicode_is_space(cp)) break;
        at += (size_t)length;
    }
    return at;
}

enum cb_status added_split(struct encoder *e, const struct added_set *set, const struct piece *piece,
                           enum cb_status (*rest)(struct encoder *e, const struct piece *piece, struct cb_err *err), struct cb_err *err) {
    const char *text = piece->text;
    size_t n = piece->n, done = 0;
    for (size_t at = 0; set->n && at < n;) {
        const struct added_needle *needle = added_find(set, text, n, at);
        if (!needle) {
            at++;
            continue;
        }
        const struct added_token *added = &e->t->added[needle->added];
        size_t from = at, to = at + needle->n;
        at = to;
        if (added->single_word && (word_before(text, from) || word_after(text, n, to))) continue;
        if (from < done) from = done < to ? done : to;
        if (added->lstrip) from = spaces_before(text, from, done);
        if (added->rstrip) to = spaces_after(text, n, to);
        // what lies before it, then the token
        struct piece part = piece_slice(piece, done, from);
        if (part.n) TRY(rest(e, &part, err));
        part = piece_slice(piece, from, to);
        if (part.n) {
            if (e->hook)
                TRY(e->hook(e->hook_context, part.text, part.n, part.begin, part.end, err));
            else if (part.n == added->n && !memcmp(part.text, added->text, part.n))
                TRY(encoder_token(e, added->id, &part, 0, part.n, err));
            else
                TRY(encoder_token_own(e, added->id, &part, 0, part.n, err));
            e->word++;
        }
        done = to;
    }
    struct piece part = piece_slice(piece, done, n);
    return part.n ? rest(e, &part, err) : CB_OK;
}
