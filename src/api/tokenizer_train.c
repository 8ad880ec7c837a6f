/* cb_tokenizer_train: from text files to a folder with tokenizer.json. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "data/source.h"
#include "text/buffer.h"
#include "text/tokenizer.h"

enum { MAX_SPECIALS = 256, LINE_BYTES = 1 << 24 };

/* The text of one pass over the inputs: plain text line by line with the line ends, as the Hugging Face library's train(files) reads it, of records each
   text whole. */
struct feed {
    struct cb_engine *engine;
    struct source *source;
    struct cb_err *err;
    bool prompt_next;  // a record's prompt goes before its completion
    const struct source_piece *piece;
    size_t at;  // of the piece's text: all before is given
    struct buffer line;  // the beginning of a line that goes on in the next piece
    bool line_given;
    int64_t bytes;
    bool failed;
    double begin;
};

static bool piece_next(struct feed *f) {
    if (source_next(f->source, &f->piece, f->err) != CB_OK) f->failed = true;
    if (f->failed || !f->piece) return false;
    f->at = 0;
    struct cb_progress p = {.verb = "read",
                            .done = source_bytes_done(f->source),
                            .total = source_bytes(f->source),
                            .seconds_left = -1,
                            .loss = -1,
                            .valid_loss = -1};
    engine_progress(f->engine, &p);
    return true;
}

/* The next line of a piece of plain text; false where the piece holds none to its end. A line of LINE_BYTES is cut. */
static bool line_next(struct feed *f, const char **text, size_t *n) {
    const struct source_piece *p = f->piece;
    const char *from = p->text + f->at, *newline = p->n > f->at ? memchr(from, '\n', p->n - f->at) : NULL;
    *text = from, *n = newline ? (size_t)(newline + 1 - from) : p->n - f->at;
    f->at += *n;
    bool whole = newline || p->ends;
    if (whole && !f->line.n) return *n > 0;
    if (buffer_append(&f->line, *text, *n, f->err) != CB_OK) return f->failed = true, false;
    if (!whole && f->line.n < LINE_BYTES) return false;
    *text = f->line.data, *n = f->line.n;
    return f->line_given = f->line.n > 0;
}

static bool next_text(void *context, const char **text, size_t *n) {
    struct feed *f = context;
    if (f->line_given) f->line.n = 0, f->line_given = false;
    if (f->prompt_next) {  // the completion of the record whose prompt came last
        f->prompt_next = false;
        *text = f->piece->text, *n = f->piece->n;
        f->bytes += (int64_t)*n;
        return true;
    }
    bool found = f->piece && !f->piece->line && line_next(f, text, n);
    while (!found && !f->failed && piece_next(f)) {
        found = f->piece->line || line_next(f, text, n);
        if (!f->piece->line) continue;
        f->prompt_next = f->piece->prompt != NULL;
        *text = f->prompt_next ? f->piece->prompt : f->piece->text;
        *n = f->prompt_next ? f->piece->n_prompt : f->piece->n;
    }
    if (found) f->bytes += (int64_t)*n;
    return found;
}

static bool progress(void *context, int64_t done, int64_t total) {
    struct feed *f = context;
    struct cb_progress p = {.verb = "merges",
                            .done = done,
                            .total = total,
                            .seconds = engine_now() - f->begin,
                            .seconds_left = -1,
                            .loss = -1,
                            .valid_loss = -1};
    return engine_progress(f->engine, &p);
}

static void warn(void *user, const char *line) { engine_warn(user, "%s", line); }

static void feed_close(struct feed *f) {
    source_close(&f->source);
    free(f->line.data);
}

static enum cb_status feed_open(struct feed *f, const struct cb_tokenizer_train_options *o, struct cb_err *err) {
    enum data_invalid invalid;
    TRY(data_invalid_by_name(&invalid, o->invalid, err));
    struct source_options so = {.invalid = invalid, .user = f->engine, .warn = warn};
    f->err = err;
    f->begin = engine_now();
    return source_open(&f->source, o->text, o->n_text, &so, err);
}

/* The special tokens that a kind begins with, and whether those that are given come after them or instead of them. */
static const struct kind_specials {
    const char *kind, *specials;
    bool replaced;
} kind_specials[] = {{"bpe-fallback", "<unk>,<s>,</s>", true},
                     {"unigram", "<unk>,<s>,</s>", true},
                     {"wordpiece", "[PAD],[UNK],[CLS],[SEP],[MASK]", true},
                     {"", "<|endoftext|>", false}};

/* Appends the names of "a,b" that are not there yet. Pointers go into copy, which the caller frees. */
static enum cb_status split_specials(const char *list, const char **out, int *n, char **copy, struct cb_err *err) {
    *copy = list ? strdup(list) : NULL;
    if (list && !*copy) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    for (char *save = NULL, *p = *copy ? strtok_r(*copy, ",", &save) : NULL; p; p = strtok_r(NULL, ",", &save)) {
        bool has = false;
        for (int i = 0; i < *n; i++) has = has || strcmp(p, out[i]) == 0;
        if (has) continue;
        if (*n == MAX_SPECIALS) FAIL(err, CB_E_USAGE, "--special: more than %d tokens", MAX_SPECIALS);
        out[(*n)++] = p;
    }
    return CB_OK;
}

static enum cb_status specials_of(const struct cb_tokenizer_train_options *o, const char *kind, const char **out, int *n, char *copy[2],
                                  struct cb_err *err) {
    const struct kind_specials *k = kind_specials;
    while (k->kind[0] && strcmp(k->kind, kind) != 0) k++;
    if (!k->replaced || !o->special) TRY(split_specials(k->specials, out, n, &copy[0], err));
    return split_specials(o->special, out, n, &copy[1], err);
}

/* Numbers that the trainer takes, checked. */
static enum cb_status options_of(struct train_options *to, const struct cb_tokenizer_train_options *o, struct cb_err *err) {
    if (o->vocab < 0 || o->vocab > 10000000) FAIL(err, CB_E_USAGE, "--vocab %lld: wanted 1 to 10M", (long long)o->vocab);
    if (o->min_frequency < 0) FAIL(err, CB_E_USAGE, "--min-frequency %lld: wanted 1 or more", (long long)o->min_frequency);
    if (o->limit_alphabet < 0 || o->limit_alphabet > 0x110000)
        FAIL(err, CB_E_USAGE, "--limit-alphabet %lld: wanted 1 to %d", (long long)o->limit_alphabet, 0x110000);
    if (o->max_token_length < 0 || o->max_token_length > INT32_MAX)
        FAIL(err, CB_E_USAGE, "--max-token-length %lld: wanted 1 or more", (long long)o->max_token_length);
    *to = (struct train_options){.kind = o->kind ? o->kind : "bpe",
                                 .vocab = (int32_t)(o->vocab ? o->vocab : 8192),
                                 .min_frequency = o->min_frequency ? o->min_frequency : 2,
                                 .limit_alphabet = (int32_t)o->limit_alphabet,
                                 .max_token_chars = (size_t)o->max_token_length,
                                 .pattern = o->pattern,
                                 .is_cased = o->cased,
                                 .keep_accents = o->keep_accents};
    return CB_OK;
}

/* Tokens of the same text, to say how many bytes one stands for. */
static enum cb_status count_tokens(struct feed *f, const struct tokenizer *t, int64_t *tokens, struct cb_err *err) {
    struct encoder *encoder;
    struct token_list list = {0};
    const char *text;
    size_t n;
    TRY(encoder_create(&encoder, t, err));
    enum cb_status status = CB_OK;
    while (status == CB_OK && next_text(f, &text, &n)) {
        status = encoder_encode(encoder, &list, text, n, 0, err);
        *tokens += (int64_t)list.n;
    }
    token_list_deinit(&list);
    encoder_destroy(&encoder);
    return f->failed ? err->code : status;
}

enum cb_status cb_tokenizer_train(struct cb_engine *engine, const struct cb_tokenizer_train_options *o,
                                  struct cb_tokenizer_train_result *result, struct cb_err *err) {
    struct feed feed = {.engine = engine};
    struct tokenizer *t = NULL;
    const char *specials[MAX_SPECIALS];
    char *copy[2] = {NULL, NULL};
    struct cb_err own = {0};
    if (!err) err = &own;
    *result = (struct cb_tokenizer_train_result){0};
    struct train_options to;
    TRY(options_of(&to, o, err));
    enum cb_status status = specials_of(o, to.kind, specials, &to.n_specials, copy, err);
    to.specials = specials;
    if (status == CB_OK) status = feed_open(&feed, o, err);
    if (status == CB_OK) status = tokenizer_train(&t, &to, next_text, &feed, progress, &feed, err);
    if (feed.failed) status = err->code;  // the text broke off: the vocabulary is of no use
    result->bytes = feed.bytes;
    feed_close(&feed);
    // standard input cannot be read twice
    bool again = status == CB_OK;
    for (int i = 0; i < o->n_text; i++) again &= strcmp(o->text[i], "-") != 0;
    struct feed count = {.engine = engine};
    if (again) status = feed_open(&count, o, err);
    if (again && status == CB_OK) status = count_tokens(&count, t, &result->tokens, err);
    feed_close(&count);
    // a vocabulary of bytes is made without reading
    if (!result->bytes) result->bytes = count.bytes;
    if (status == CB_OK && again && !result->bytes) status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: no text", o->text[0]);
    if (status == CB_OK) status = files_save_tokenizer(t, o->out, o->run_json, err);
    if (status == CB_OK) {
        result->vocab = tokenizer_size(t);
        result->bytes_per_token = result->tokens ? (double)result->bytes / (double)result->tokens : 0;
    }
    tokenizer_destroy(&t);
    free(copy[0]), free(copy[1]);
    return status;
}
