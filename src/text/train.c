/* Training of vocabularies: byte-level BPE, the characters of a text, or the 256 bytes. */
#include "text/train.h"

#include "text/bytelevel.h"
#include "text/utf8.h"

/* ---- reading the text */

static enum cb_status text_check(const char *text, size_t n, struct cb_err *err) {
    size_t good = utf8_check(text, n);
    if (good < n) FAIL(err, CB_E_FORMAT, "training text: byte 0x%02x is not UTF-8", (unsigned char)text[good]);
    return CB_OK;
}

/* ---- the vocabulary */

/* Specials first, then what the kind adds. */
static enum cb_status specials_add(struct tokenizer *t, const struct train_options *o, int32_t size, struct cb_err *err) {
    TRY(vocab_init(&t->vocab, t->arena, size, size, err));
    for (int i = 0; i < o->n_specials; i++) {
        size_t n = strlen(o->specials[i]);
        if (!n || utf8_check(o->specials[i], n) < n)
            FAIL(err, CB_E_ARGUMENT, "specials: \"%.60s\"; text in UTF-8 is wanted", o->specials[i]);
        TRY(vocab_add(&t->vocab, t->arena, i, o->specials[i], n, "specials", err));
    }
    return CB_OK;
}

static enum cb_status specials_mark(struct tokenizer *t, const struct train_options *o, struct cb_err *err) {
    for (int i = 0; i < o->n_specials; i++) {
        struct added_token token = {o->specials[i], strlen(o->specials[i]), i, .special = true};
        TRY(tokenizer_add(t, &token, "specials", err));
    }
    return tokenizer_finish(t, "tokenizer", err);
}

/* The 256 byte-level characters in order of code point; byte_id tells each byte's id. */
static enum cb_status bytes_add(struct tokenizer *t, int32_t first, int32_t byte_id[256], struct cb_err *err) {
    int32_t id = first;
    for (uint32_t cp = 0; cp < 324; cp++) {
        int byte = char_to_byte(cp);
        if (byte < 0) continue;
        char text[4];
        byte_id[byte] = id;
        TRY(vocab_add(&t->vocab, t->arena, id++, text, (size_t)utf8_encode(text, cp), "specials", err));
    }
    return CB_OK;
}

/* ---- byte */

static enum cb_status train_byte(struct tokenizer *t, const struct train_options *o, struct cb_err *err) {
    int32_t byte_id[256];
    TRY(specials_add(t, o, o->n_specials + 256, err));
    TRY(bytes_add(t, o->n_specials, byte_id, err));
    TRY(bpe_set(t, NULL, 0, err));
    return bytelevel_parts(t, false, err);
}

/* ---- char */

struct char_count {
    uint32_t cp;
    int64_t count;
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

static enum cb_status chars_count(int64_t *count, text_next_fn *next, void *context, struct cb_err *err) {
    const char *text;
    size_t n;
    while (next(context, &text, &n)) {
        TRY(text_check(text, n, err));
        uint32_t cp = 0;
        for (size_t at = 0; at < n; count[cp]++) at += (size_t)utf8_decode(text + at, n - at, &cp);
    }
    return CB_OK;
}

/* The characters as tokens of a BPE without merges; others become the unknown token. */
static enum cb_status chars_set(struct tokenizer *t, const struct train_options *o, struct char_count *found, int32_t n,
                                struct cb_err *err) {
    static const char unknown[] = "<unk>";
    int32_t id = o->n_specials, room;
    bool has = false;
    for (int i = 0; i < o->n_specials; i++) has = has || !strcmp(o->specials[i], unknown);
    room = o->vocab > 0 ? o->vocab - o->n_specials - !has : n;
    if (room < 1) FAIL(err, CB_E_ARGUMENT, "vocab: %d; more than the specials are wanted", (int)o->vocab);
    qsort(found, (size_t)n, sizeof *found, by_count);
    if (n > room) n = room;
    qsort(found, (size_t)n, sizeof *found, by_char);
    TRY(specials_add(t, o, o->n_specials + !has + n, err));
    if (!has) TRY(vocab_add(&t->vocab, t->arena, id++, unknown, 5, "specials", err));
    for (int32_t i = 0; i < n; i++) {
        char text[4];
        size_t length = (size_t)utf8_encode(text, found[i].cp);
        if (vocab_find(&t->vocab, text, length) >= 0) continue;  // a special of one character
        TRY(vocab_add(&t->vocab, t->arena, id++, text, length, "specials", err));
    }
    t->vocab.size = id;
    TRY(bpe_set(t, NULL, 0, err));
    bpe_set_unknown(t, unknown);
    struct added_token token = {unknown, 5, vocab_find(&t->vocab, unknown, 5), .special = true};
    if (!has) TRY(tokenizer_add(t, &token, "specials", err));
    if (!(t->part[ROLE_DECODER] = part_make(t, ROLE_DECODER, "Fuse"))) FAIL(err, CB_E_MEMORY, "tokenizer: no memory");
    return CB_OK;
}

static enum cb_status train_char(struct tokenizer *t, const struct train_options *o, text_next_fn *next, void *context,
                                 struct cb_err *err) {
    int64_t *count = calloc(0x110000, sizeof *count);
    struct char_count *found = NULL;
    size_t n = 0, capacity = 0;
    enum cb_status status =
        count ? chars_count(count, next, context, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: no memory");
    // NUL cannot be a key of a JSON object here
    for (uint32_t cp = 1; cp < 0x110000 && !status; cp++) {
        if (!count[cp]) continue;
        status = buffer_grow((void **)&found, &capacity, n + 1, sizeof *found, err);
        if (!status) found[n++] = (struct char_count){cp, count[cp]};
    }
    if (!status && !n) status = err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "training text: no characters");
    if (!status) status = chars_set(t, o, found, (int32_t)n, err);
    free(count);
    free(found);
    return status;
}

/* ---- byte-level BPE */

static enum cb_status words_count(struct word_counts *words, text_next_fn *next, void *context, struct cb_err *err) {
    const char *text;
    size_t n;
    while (next(context, &text, &n)) {
        TRY(text_check(text, n, err));
        for (size_t at = 0, to; at < n; at = to) {
            to = bytelevel_next(BYTELEVEL_GPT2, text, n, at);
            TRY(word_counts_add(words, text + at, to - at, err));
        }
    }
    return CB_OK;
}

static enum cb_status train_bpe(struct tokenizer *t, const struct train_options *o, struct word_counts *words,
                                struct bpe_training *training, text_next_fn *next, void *next_context, text_progress_fn *progress,
                                void *progress_context, struct cb_err *err) {
    int32_t byte_id[256], least = o->n_specials + 256;
    if (o->vocab < least || o->vocab > 1 << 24)
        FAIL(err, CB_E_ARGUMENT, "vocab: %d; from %d (specials and bytes) to 2^24 is wanted", (int)o->vocab, (int)least);
    TRY(specials_add(t, o, o->vocab, err));
    TRY(bytes_add(t, o->n_specials, byte_id, err));
    TRY(words_count(words, next, next_context, err));
    TRY(bpe_train(training, t, words, byte_id, least, o, progress, progress_context, err));
    t->vocab.size = training->n_ids;
    TRY(bpe_set(t, (const int32_t(*)[2])training->merge, training->n_merges, err));
    return bytelevel_parts(t, true, err);
}

enum cb_status tokenizer_train(struct tokenizer **tokenizer, const struct train_options *options, text_next_fn *next, void *next_context,
                               text_progress_fn *progress, void *progress_context, struct cb_err *err) {
    *tokenizer = NULL;
    struct word_counts words = {0};
    struct bpe_training training = {0};
    TRY(tokenizer_create(tokenizer, err));
    enum cb_status status;
    if (options->n_specials < 0 || options->n_specials > 1 << 16)
        status = err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "specials: %d; at most 65536 are taken", options->n_specials);
    else if (!strcmp(options->kind, "bpe"))
        status = train_bpe(*tokenizer, options, &words, &training, next, next_context, progress, progress_context, err);
    else if (!strcmp(options->kind, "char"))
        status = train_char(*tokenizer, options, next, next_context, err);
    else if (!strcmp(options->kind, "byte"))
        status = train_byte(*tokenizer, options, err);
    else
        status = err_set(err, CB_E_NAME, __FILE__, __LINE__, "kind: \"%.40s\"; bpe, char or byte is wanted", options->kind);
    if (!status) status = specials_mark(*tokenizer, options, err);
    word_counts_deinit(&words);
    bpe_training_deinit(&training);
    if (status) tokenizer_destroy(tokenizer);
    return status;
}
