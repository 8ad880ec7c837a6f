/* Training of vocabularies: the kinds, and the tokenizers that stand around what they learn. */
#include "text/train.h"

#include "text/formats.h"
#include "text/patterns.h"
#include "text/utf8.h"

/* ---- reading the text */

static enum cb_status text_check(const char *text, size_t n, struct cb_err *err) {
    size_t good = utf8_check(text, n);
    if (good < n) FAIL(err, CB_E_FORMAT, "training text: byte 0x%02x is not UTF-8", (unsigned char)text[good]);
    return CB_OK;
}

static enum cb_status word_add(void *context, const char *piece, size_t n, size_t begin, size_t end, struct cb_err *err) {
    (void)begin, (void)end;
    return word_counts_add(context, piece, n, err);
}

/* Counts the words that t's normaliser and pre-tokeniser make. */
static enum cb_status words_count(struct training *training, struct tokenizer *t, text_next_fn *next, void *context, struct cb_err *err) {
    const char *text;
    size_t n;
    struct encoder *encoder;
    TRY(tokenizer_finish(t, "training", err));
    TRY(encoder_create(&encoder, t, err));
    enum cb_status status = CB_OK;
    while (!status && next(context, &text, &n)) {
        status = text_check(text, n, err);
        if (!status) status = encoder_words(encoder, text, n, word_add, &training->words, err);
    }
    encoder_destroy(&encoder);
    return status;
}

/* ---- the vocabulary */

/* Specials first, then what the kind adds; room for size tokens. */
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
        bool has = false;
        for (int k = 0; k < t->n_added; k++) has = has || t->added[k].id == i;
        if (!has) TRY(tokenizer_add(t, &token, "specials", err));
    }
    return tokenizer_finish(t, "tokenizer", err);
}

/* Checks the size and begins the vocabulary. */
static enum cb_status vocab_begin(struct training *training, int32_t more, struct cb_err *err) {
    const struct train_options *o = training->options;
    int32_t least = o->n_specials + more;
    if (o->vocab < least || o->vocab > 1 << 24)
        FAIL(err, CB_E_ARGUMENT, "vocab: %d; from %d (specials and bytes) to 2^24 is wanted", (int)o->vocab, (int)least);
    training->n_ids = o->n_specials;
    return specials_add(training->t, o, o->vocab, err);
}

/* The 256 byte-level characters in order of code point. */
static void byte_alphabet(uint32_t alphabet[256]) {
    for (uint32_t cp = 0; cp < 324; cp++)
        if (char_to_byte(cp) >= 0) *alphabet++ = cp;
}

static enum cb_status part_text_read(struct tokenizer *t, enum part_role role, const char *text, struct cb_err *err) {
    json_t *json = NULL;
    TRY(json_parse_object(&json, text, strlen(text), "training", err));
    enum cb_status status = part_read(t, &t->part[role], role, json, "training", 0, err);
    json_decref(json);
    return status;
}

/* ---- byte */

static enum cb_status train_byte(struct training *training, text_next_fn *next, void *context, struct cb_err *err) {
    (void)next, (void)context;
    struct tokenizer *t = training->t;
    struct train_options o = *training->options;
    uint32_t alphabet[256];
    byte_alphabet(alphabet);
    o.vocab = o.n_specials + 256, training->options = &o;
    enum cb_status status = vocab_begin(training, 256, err);
    if (!status) status = bpe_alphabet(training, alphabet, NULL, err);
    if (!status) status = bpe_set(t, NULL, 0, err);
    return status ? status : bytelevel_parts(t, false, err);
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

static enum cb_status train_char(struct training *training, text_next_fn *next, void *context, struct cb_err *err) {
    struct tokenizer *t = training->t;
    const struct train_options *o = training->options;
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

static enum cb_status merges_set(struct training *training, struct cb_err *err) {
    training->t->vocab.size = training->n_ids;
    return bpe_set(training->t, (const int32_t(*)[2])training->merge, training->n_merges, err);
}

static enum cb_status bytes_parts(struct tokenizer *t, const struct train_options *o, struct cb_err *err) {
    if (!o->pattern) return bytelevel_parts(t, true, err);
    const struct text_pattern *known = text_pattern_find(o->pattern);
    const char *const own[] = {o->pattern, NULL};
    return text_pattern_parts(t, known ? known->regex : own, "pattern", err);
}

static enum cb_status train_bpe(struct training *training, text_next_fn *next, void *context, struct cb_err *err) {
    uint32_t alphabet[256];
    byte_alphabet(alphabet);
    TRY(vocab_begin(training, 256, err));
    TRY(bytes_parts(training->t, training->options, err));
    TRY(words_count(training, training->t, next, context, err));
    TRY(bpe_alphabet(training, alphabet, NULL, err));
    TRY(bpe_learn(training, NULL, err));
    return merges_set(training, err);
}

/* ---- BPE of characters, with tokens of bytes for those that are left out (as SentencePiece and Llama 2 have it) */

static const char metaspace[] = "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"%s\",\"split\":true}";

static enum cb_status metaspace_part(struct tokenizer *t, enum part_role role, const char *scheme, struct cb_err *err) {
    char text[sizeof metaspace + 16];
    snprintf(text, sizeof text, metaspace, scheme);
    return part_text_read(t, role, text, err);
}

static enum cb_status train_fallback(struct training *training, text_next_fn *next, void *context, struct cb_err *err) {
    struct tokenizer *t = training->t;
    char byte[8];
    TRY(vocab_begin(training, 256, err));
    for (unsigned b = 0; b < 256; b++) {
        snprintf(byte, sizeof byte, "<0x%02X>", b);
        TRY(vocab_add(&t->vocab, t->arena, training->n_ids++, byte, 6, "vocab", err));
    }
    TRY(metaspace_part(t, ROLE_PRE_TOKENIZER, "first", err));
    TRY(words_count(training, t, next, context, err));
    TRY(bpe_alphabet(training, NULL, NULL, err));
    TRY(bpe_learn(training, NULL, err));
    TRY(merges_set(training, err));
    bpe_set_fallback(t, "<unk>");
    return part_text_read(
        t, ROLE_DECODER,
        "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},"
        "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}",
        err);
}

/* ---- WordPiece */

static enum cb_status train_wordpiece(struct training *training, text_next_fn *next, void *context, struct cb_err *err) {
    const struct train_options *o = training->options;
    struct tokenizer *t = training->t;
    TRY(vocab_begin(training, 1, err));
    // the parts, then the words that they make, then the vocabulary that the parts' model looks into
    json_t *config =
        json_pack("{sbsossssssss}", "do_lower_case", !o->is_cased, "strip_accents", o->keep_accents ? json_false() : json_null(),
                  "unk_token", "[UNK]", "pad_token", "[PAD]", "cls_token", "[CLS]", "sep_token", "[SEP]");
    enum cb_status status =
        config ? bert_set(t, config, "training", err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: no memory");
    json_decref(config);
    if (!status) status = words_count(training, t, next, context, err);
    if (!status) status = bpe_alphabet(training, NULL, "##", err);
    if (!status) status = bpe_learn(training, "##", err);
    if (!status) t->vocab.size = training->n_ids;
    return status;
}

/* ---- Unigram */

static enum cb_status train_unigram(struct training *training, text_next_fn *next, void *context, struct cb_err *err) {
    struct tokenizer *t = training->t;
    struct part_text *piece = NULL;
    double *score = NULL;
    int32_t n = 0, size = training->options->n_specials;
    TRY(vocab_begin(training, 1, err));
    TRY(metaspace_part(t, ROLE_PRE_TOKENIZER, "always", err));
    TRY(metaspace_part(t, ROLE_DECODER, "always", err));
    TRY(words_count(training, t, next, context, err));
    TRY(unigram_learn(training, &piece, &score, &n, err));
    double *all = arena_array(t->arena, (size_t)size + (size_t)n + 1, sizeof *all);
    if (!all) FAIL(err, CB_E_MEMORY, "training: no memory");
    for (int32_t i = 0; i < n; i++) {
        if (vocab_find(&t->vocab, piece[i].text, piece[i].n) >= 0) continue;  // a special
        all[size] = score[i];
        TRY(vocab_add(&t->vocab, t->arena, size++, piece[i].text, piece[i].n, "vocab", err));
    }
    t->vocab.size = size;
    struct unigram_options options = {.score = all, .unk_id = vocab_find(&t->vocab, "<unk>", 5)};
    return unigram_set(t, &options, err);
}

/* ---- the kinds */

static const struct kind {
    const char *name, *unknown;  // unknown: a special that the model needs
    enum cb_status (*train)(struct training *training, text_next_fn *next, void *context, struct cb_err *err);
} kinds[] = {{"bpe", NULL, train_bpe},
             {"bpe-fallback", "<unk>", train_fallback},
             {"wordpiece", "[UNK]", train_wordpiece},
             {"unigram", "<unk>", train_unigram},
             {"char", NULL, train_char},
             {"byte", NULL, train_byte}};

static enum cb_status run(struct training *training, const struct kind *kind, text_next_fn *next, void *context, struct cb_err *err) {
    struct train_options o = *training->options;
    const char **specials = malloc(((size_t)o.n_specials + 1) * sizeof *specials);
    if (!specials) FAIL(err, CB_E_MEMORY, "training: no memory");
    bool has = !kind->unknown;
    for (int i = 0; i < o.n_specials; i++) has = has || !strcmp(o.specials[i], kind->unknown);
    if (!has) specials[0] = kind->unknown;
    if (o.n_specials) memcpy(specials + !has, o.specials, (size_t)o.n_specials * sizeof *specials);
    o.specials = specials, o.n_specials += !has;
    training->options = &o;
    enum cb_status status = kind->train(training, next, context, err);
    if (!status) status = specials_mark(training->t, &o, err);
    free(specials);
    return status;
}

enum cb_status tokenizer_train(struct tokenizer **tokenizer, const struct train_options *options, text_next_fn *next, void *next_context,
                               text_progress_fn *progress, void *progress_context, struct cb_err *err) {
    const struct kind *kind = NULL;
    *tokenizer = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, options->kind)) kind = &kinds[i];
    if (!kind) FAIL(err, CB_E_NAME, "kind: \"%.40s\"; bpe, bpe-fallback, wordpiece, unigram, char or byte is wanted", options->kind);
    if (options->n_specials < 0 || options->n_specials > 1 << 16)
        FAIL(err, CB_E_ARGUMENT, "specials: %d; at most 65536 are taken", options->n_specials);
    TRY(tokenizer_create(tokenizer, err));
    struct training training = {.options = options, .t = *tokenizer, .progress = progress, .progress_context = progress_context};
    enum cb_status status = run(&training, kind, next, next_context, err);
    word_counts_deinit(&training.words);
    free(training.merge);
    if (status) tokenizer_destroy(tokenizer);
    return status;
}
