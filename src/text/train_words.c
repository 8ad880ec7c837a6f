/* What training counts: words, and the characters in them. */
#include "text/train.h"
#include "text/utf8.h"

/* ---- counting words */

static enum cb_status counts_grow(struct word_counts *w, struct cb_err *err) {
    size_t n_slots = w->n_slots ? w->n_slots * 2 : 4096;
    uint32_t *slot = calloc(n_slots, sizeof *slot);
    if (!slot) FAIL(err, CB_E_MEMORY, "training: no memory for %zu words", w->n);
    for (size_t i = 0; i < w->n; i++) {
        size_t at = w->word[i].hash & (n_slots - 1);
        while (slot[at]) at = (at + 1) & (n_slots - 1);
        slot[at] = (uint32_t)i + 1;
    }
    free(w->slot);
    w->slot = slot, w->n_slots = n_slots;
    return CB_OK;
}

enum cb_status word_counts_add(struct word_counts *words, const char *word, size_t n, struct cb_err *err) {
    struct word_counts *w = words;
    if (w->n * 2 >= w->n_slots) TRY(counts_grow(w, err));
    uint64_t hash = vocab_hash(word, n);
    size_t at = hash & (w->n_slots - 1);
    for (; w->slot[at]; at = (at + 1) & (w->n_slots - 1)) {
        struct counted_word *c = &w->word[w->slot[at] - 1];
        if (c->hash == hash && c->n == n && !memcmp(w->bytes.data + c->at, word, n)) return c->count++, CB_OK;
    }
    if (w->n >= UINT32_MAX / 2) FAIL(err, CB_E_LIMIT, "training: more than 2^31 different words");
    TRY(buffer_grow((void **)&w->word, &w->capacity, w->n + 1, sizeof *w->word, err));
    w->word[w->n] = (struct counted_word){hash, w->bytes.n, (uint32_t)n, 1};
    TRY(buffer_append(&w->bytes, word, n, err));
    w->slot[at] = (uint32_t)++w->n;
    return CB_OK;
}

void word_counts_deinit(struct word_counts *words) {
    free(words->word), free(words->slot), free(words->bytes.data);
    *words = (struct word_counts){0};
}

/* ---- characters */

struct char_count {
    uint32_t cp;
    int64_t count;  // INT64_MAX: always kept
};
static int by_count(const void *a, const void *b) {
    const struct char_count *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    return x->cp < y->cp ? -1 : x->cp > y->cp;
}
static int by_char(const void *a, const void *b) {
    const struct char_count *x = a, *y = b;
    return x->cp < y->cp ? -1 : x->cp > y->cp;
}

/* All characters into *found, and into within those that are not first in some word. */
static enum cb_status chars_count(const struct word_counts *words, int64_t *count, bool *within, const uint32_t *alphabet,
                                  struct char_count **found, size_t *n_found, struct cb_err *err) {
    size_t capacity = 0;
    for (size_t i = 0; i < words->n; i++) {
        const char *word = words->bytes.data + words->word[i].at;
        uint32_t cp = 0;
        for (size_t at = 0, length; at < words->word[i].n; at += length) {
            length = (size_t)utf8_decode(word + at, words->word[i].n - at, &cp);
            if (!length) length = 1;
            count[cp] += words->word[i].count;
            within[cp] = within[cp] || at;
        }
    }
    for (int i = 0; alphabet && i < 256; i++) count[alphabet[i]] = INT64_MAX;
    // NUL cannot be a key of a JSON object here
    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        if (!count[cp]) continue;
        TRY(buffer_grow((void **)found, &capacity, *n_found + 1, sizeof **found, err));
        (*found)[(*n_found)++] = (struct char_count){cp, count[cp]};
    }
    return CB_OK;
}

static enum cb_status chars_add(struct training *training, const struct char_count *found, size_t n, const bool *within, const char *prefix,
                                struct cb_err *err) {
    struct vocab *vocab = &training->t->vocab;
    size_t n_prefix = prefix ? strlen(prefix) : 0, total = (size_t)training->n_ids + n;
    for (size_t i = 0; prefix && i < n; i++) total += within[found[i].cp];
    if (total > (size_t)training->options->vocab)
        FAIL(err, CB_E_ARGUMENT, "vocab: %d; the text has %zu characters, with which at least %zu are wanted (or a limit of the alphabet)",
             (int)training->options->vocab, n, total);
    for (int pass = 0; pass < (prefix ? 2 : 1); pass++) {
        for (size_t i = 0; i < n; i++) {
            char text[32];
            if (pass && !within[found[i].cp]) continue;
            if (pass) memcpy(text, prefix, n_prefix);
            size_t length = (pass ? n_prefix : 0) + (size_t)utf8_encode(text + (pass ? n_prefix : 0), found[i].cp);
            if (vocab_find(vocab, text, length) < 0)
                TRY(vocab_add(vocab, training->t->arena, training->n_ids++, text, length, "vocab", err));
        }
    }
    return CB_OK;
}

enum cb_status bpe_alphabet(struct training *training, const uint32_t *alphabet, const char *prefix, struct cb_err *err) {
    struct char_count *found = NULL;
    size_t n = 0, limit = (size_t)training->options->limit_alphabet;
    int64_t *count = calloc(0x110000, sizeof *count);
    bool *within = calloc(0x110000, sizeof *within);
    enum cb_status status = count && within ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: no memory");
    if (!status && prefix && strlen(prefix) > 16) status = err_set(err, CB_E_LIMIT, __FILE__, __LINE__, "training: prefix over 16 bytes");
    if (!status) status = chars_count(&training->words, count, within, alphabet, &found, &n, err);
    if (!status && n) {
        qsort(found, n, sizeof *found, by_count);
        if (limit && n > limit) n = limit;
        qsort(found, n, sizeof *found, by_char);
        status = chars_add(training, found, n, within, prefix, err);
    }
    free(count), free(within), free(found);
    return status;
}
