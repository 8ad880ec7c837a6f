/* Tokenises text inputs into a shard, or finds that the shard is there already. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "data/corpus_private.h"
#include "data/shard.h"
#include "data/source.h"
#include "io/file.h"
#include "text/buffer.h"

#define PROGRESS_BYTES ((int64_t)1 << 20)

struct builder {
    const struct tokenizer *tokenizer;
    const struct corpus_options *options;
    struct source *source;
    struct encoder *encoder;
    struct shard_writer *shard;
    struct token_list tokens, prompt;
    struct shard_mark done;  // of learnt text
    int64_t text_bytes, told;
    bool in_word;
    char *joined;  // prompt and completion
    size_t joined_size;
    bool *learnt;  // of the tokens of a conversation
    size_t learnt_size;
};

// ---- what it is made from

static enum cb_status describe(char **out, size_t *n, bool *repeatable, const struct builder *b, struct cb_err *err) {
    char *json;
    size_t n_json, n_text = 0;
    *out = NULL;
    TRY(tokenizer_to_json(b->tokenizer, &json, &n_json, err));
    uint64_t hash = rng_hash(json);
    free(json);
    FILE *text = open_memstream(out, &n_text);
    if (!text) FAIL(err, CB_E_MEMORY, "corpus: out of memory");
    const struct corpus_options *o = b->options;
    fprintf(text, "tokenizer %016llx %zu\nbos %d eos %d invalid %d piece %zu%s\n", (unsigned long long)hash, n_json, (int)o->bos,
            (int)o->eos, (int)o->invalid, o->piece_bytes, o->apart ? " apart" : "");
    size_t n_template = 0;
    const char *template = o->chat ? chat_source(o->chat, &n_template) : "";
    fprintf(text, "template %016llx chat %d separator %s\n", (unsigned long long)rng_hash(template), o->is_chat,
            o->records.separator ? o->records.separator : "");
    if (o->records.quote) fprintf(text, "quote %s\n", o->records.quote);
    if (o->records.format) fprintf(text, "format %s\n", o->records.format);
    for (int i = 0; i < o->records.n_columns; i++) fprintf(text, "column %s\n", o->records.columns[i]);
    int64_t n_files;
    const struct source_file *file = source_files(b->source, &n_files);
    *repeatable = true;
    for (int64_t i = 0; i < n_files; i++) {
        fprintf(text, "file %lld %lld %d %s\n", (long long)file[i].bytes, (long long)file[i].mtime_ns, file[i].is_listed, file[i].path);
        *repeatable &= file[i].is_regular;
    }
    if (fclose(text)) {
        free(*out);
        *out = NULL;
        FAIL(err, CB_E_MEMORY, "corpus: out of memory for the list of %lld files", (long long)n_files);
    }
    *n = n_text;
    return CB_OK;
}

// ---- one document

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Adds bytes [from, to) of learnt text to what is done.
static void count_text(struct builder *b, const char *text, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        bool space = is_space(text[i]);
        b->done.words += !space && !b->in_word;
        b->in_word = !space;
    }
    b->done.bytes += (int64_t)(to - from);
}

// Tokens of learnt text[n]; their begins are counted from `base` bytes before it.
static enum cb_status tokens_put(struct builder *b, const struct token_list *list, size_t first, size_t base, const char *text, size_t n,
                                 struct cb_err *err) {
    size_t at = 0;
    for (size_t i = first; i < list->n; i++) {
        size_t begin = list->token[i].begin > base ? list->token[i].begin - base : 0;
        if (begin > n) begin = n;
        if (begin > at) {
            count_text(b, text, at, begin);
            at = begin;
        }
        TRY(shard_token(b->shard, list->token[i].id, b->done, err));
    }
    count_text(b, text, at, n);
    return CB_OK;
}

static enum cb_status id_put(struct builder *b, int32_t id, struct cb_err *err) {
    return id < 0 ? CB_OK : shard_token(b->shard, id, b->done, err);
}

static enum cb_status join(struct builder *b, const struct source_piece *p, struct cb_err *err) {
    size_t n = p->n_prompt + p->n;
    if (n > b->joined_size || !b->joined) {
        char *more = realloc(b->joined, n + 1);
        if (!more) FAIL(err, CB_E_MEMORY, "%s: out of memory for %zu bytes", p->file, n);
        b->joined = more;
        b->joined_size = n;
    }
    memcpy(b->joined, p->prompt, p->n_prompt);
    memcpy(b->joined + p->n_prompt, p->text, p->n);
    return CB_OK;
}

// The prompt gets the tokens that it has alone, as when a completion is asked for. Where these begin the tokens of both together, the completion gets the
// rest of them; else it is tokenised by itself.
static enum cb_status pair_put(struct builder *b, const struct source_piece *p, struct cb_err *err) {
    int64_t begin = shard_tokens(b->shard);
    TRY(encoder_encode(b->encoder, &b->prompt, p->prompt, p->n_prompt, 0, err));
    TRY(join(b, p, err));
    TRY(encoder_encode(b->encoder, &b->tokens, b->joined, p->n_prompt + p->n, ENCODE_OFFSETS, err));
    bool prefix = !b->options->apart && b->prompt.n <= b->tokens.n;
    for (size_t i = 0; i < b->prompt.n && prefix; i++) prefix = b->prompt.token[i].id == b->tokens.token[i].id;
    TRY(id_put(b, b->options->bos, err));
    for (size_t i = 0; i < b->prompt.n; i++) TRY(shard_token(b->shard, b->prompt.token[i].id, b->done, err));
    TRY(shard_unlearnt(b->shard, begin, err));
    if (prefix) return tokens_put(b, &b->tokens, b->prompt.n, p->n_prompt, p->text, p->n, err);
    TRY(encoder_encode(b->encoder, &b->tokens, p->text, p->n, ENCODE_OFFSETS, err));
    return tokens_put(b, &b->tokens, 0, 0, p->text, p->n, err);
}

// A conversation: its text has all marks that it needs; tokens that hold a byte of a learnt span are learnt.
static enum cb_status conversation_put(struct builder *b, const struct source_piece *p, struct cb_err *err) {
    TRY(encoder_encode(b->encoder, &b->tokens, p->text, p->n, ENCODE_OFFSETS, err));
    TRY(buffer_grow((void **)&b->learnt, &b->learnt_size, b->tokens.n, sizeof *b->learnt, err));
    chat_mask(b->learnt, &b->tokens, p->learnt, p->n_learnt);
    size_t at = 0;
    int64_t unlearnt = -1;
    for (size_t i = 0; i < b->tokens.n; i++) {
        const struct token *t = &b->tokens.token[i];
        if (b->learnt[i] && unlearnt >= 0) TRY(shard_unlearnt(b->shard, unlearnt, err));
        if (b->learnt[i] && unlearnt >= 0) unlearnt = -1, at = t->begin;
        if (!b->learnt[i] && unlearnt < 0) {
            count_text(b, p->text, at, t->begin > at ? t->begin : at);
            unlearnt = shard_tokens(b->shard), b->in_word = false;
        }
        if (b->learnt[i] && t->begin > at) count_text(b, p->text, at, t->begin), at = t->begin;
        TRY(shard_token(b->shard, t->id, b->done, err));
    }
    if (unlearnt < 0) count_text(b, p->text, at, p->n);
    return unlearnt < 0 ? CB_OK : shard_unlearnt(b->shard, unlearnt, err);
}

// Ids as they are, nothing put before or after them. A label is the id at its own place, as causal models of Transformers have it, or ignored. learnt: room
// for the ids that are.
static enum cb_status ids_put(struct builder *b, const struct source_piece *p, int32_t *learnt, size_t *n_learnt, struct cb_err *err) {
    const json_int_t size = tokenizer_size(b->tokenizer);
    int64_t unlearnt = -1;
    *n_learnt = 0;
    for (size_t i = 0; i < json_array_size(p->ids); i++) {
        const json_int_t id = json_integer_value(json_array_get(p->ids, i));
        const json_int_t label = p->labels ? json_integer_value(json_array_get(p->labels, i)) : id;
        if (id >= size) FAIL(err, CB_E_FORMAT, "ids[%zu]: found %lld; wanted a token id below %lld", i, (long long)id, (long long)size);
        if (label != id && label != -100)
            FAIL(err, CB_E_FORMAT, "labels[%zu]: found %lld; wanted the id at its place, %lld, or -100", i, (long long)label,
                 (long long)id);
        if (label == id && unlearnt >= 0) {
            TRY(shard_unlearnt(b->shard, unlearnt, err));
            unlearnt = -1;
        }
        if (label != id && unlearnt < 0) unlearnt = shard_tokens(b->shard);
        if (label == id) learnt[(*n_learnt)++] = (int32_t)id;
        TRY(shard_token(b->shard, (int32_t)id, b->done, err));
    }
    return unlearnt < 0 ? CB_OK : shard_unlearnt(b->shard, unlearnt, err);
}

// A record that is tokenised already; its bytes and words are those of the text that its learnt ids stand for.
static enum cb_status tokenised_put(struct builder *b, const struct source_piece *p, struct cb_err *err) {
    char *text = NULL;
    size_t n = 0, n_learnt;
    int32_t *learnt = malloc((json_array_size(p->ids) + 1) * sizeof *learnt);
    if (!learnt) FAIL(err, CB_E_MEMORY, "%s: out of memory for %zu ids", p->file, json_array_size(p->ids));
    enum cb_status status = ids_put(b, p, learnt, &n_learnt, err);
    if (status == CB_OK) status = tokenizer_decode(b->tokenizer, &text, &n, learnt, n_learnt, true, err);
    if (status == CB_OK) count_text(b, text, 0, n);
    b->text_bytes += (int64_t)n;
    free(text);
    free(learnt);
    return status;
}

static enum cb_status piece_put(struct builder *b, const struct source_piece *p, struct cb_err *err) {
    if (p->begins) {
        shard_document(b->shard);
        b->in_word = false;
    }
    if (p->ids) return tokenised_put(b, p, err);
    if (p->learnt) {
        TRY(conversation_put(b, p, err));
        b->text_bytes += (int64_t)p->n;
        return CB_OK;
    }
    if (p->prompt) {
        TRY(pair_put(b, p, err));
    } else {
        if (p->begins) TRY(id_put(b, b->options->bos, err));
        TRY(encoder_encode(b->encoder, &b->tokens, p->text, p->n, ENCODE_OFFSETS, err));
        TRY(tokens_put(b, &b->tokens, 0, 0, p->text, p->n, err));
    }
    b->text_bytes += (int64_t)(p->n + p->n_prompt);
    return p->ends ? id_put(b, b->options->eos, err) : CB_OK;
}

// ---- all of it

static enum cb_status progress_tell(struct builder *b, bool last, struct cb_err *err) {
    const struct corpus_options *o = b->options;
    int64_t done = source_bytes_done(b->source);
    if (!o->progress || (!last && done - b->told < PROGRESS_BYTES)) return CB_OK;
    b->told = done;
    if (!o->progress(o->user, done, source_bytes(b->source))) FAIL(err, CB_E_STOPPED, "corpus: stopped on request while tokenising");
    return CB_OK;
}

static enum cb_status pieces_put(struct builder *b, struct cb_err *err) {
    const struct source_piece *p;
    for (;;) {
        TRY(source_next(b->source, &p, err));
        if (!p) break;
        enum cb_status status = piece_put(b, p, err);
        if (status != CB_OK)
            return p->line ? err_prefix(err, "%s: %s %lld", p->file, p->unit, (long long)p->line) : err_prefix(err, "%s", p->file);
        TRY(progress_tell(b, false, err));
    }
    if (!shard_tokens(b->shard)) FAIL(err, CB_E_FORMAT, "text: the tokenizer gives no tokens for it; wanted some");
    return progress_tell(b, true, err);
}

static enum cb_status options_check(const struct builder *b, struct cb_err *err) {
    int32_t size = tokenizer_size(b->tokenizer), bos = b->options->bos, eos = b->options->eos;
    if (bos < -1 || bos >= size || eos < -1 || eos >= size)
        FAIL(err, CB_E_ARGUMENT, "corpus: found bos %d and eos %d; wanted ids below %d, or -1", (int)bos, (int)eos, (int)size);
    return CB_OK;
}

static bool same_description(const struct corpus *c, const char *description, size_t n) {
    size_t have;
    const char *text = corpus_description(c, &have);
    return have == n && !memcmp(text, description, n);
}

// *corpus is set where the shard at `out` serves.
static void reuse(struct corpus **corpus, const char *out, const char *description, size_t n) {
    struct cb_err ignored = {0};
    if (!io_is_file(out) || corpus_open(corpus, out, &ignored) != CB_OK) return;
    if (!same_description(*corpus, description, n)) corpus_destroy(corpus);
}

static enum cb_status load(struct builder *b, struct corpus **corpus, const char *const *paths, int n_paths, const char *out,
                           char **description, struct cb_err *err) {
    const struct corpus_options *o = b->options;
    struct source_options s = {.invalid = o->invalid, .piece_bytes = o->piece_bytes, .user = o->user, .warn = o->warn, .note = o->note};
    s.records = o->records, s.chat = o->chat, s.is_chat = o->is_chat, s.needs_chat = true, s.takes_ids = !o->apart;
    size_t n = 0, n_bytes = 0;
    bool repeatable = false;
    unsigned char *bytes = NULL;
    TRY(options_check(b, err));
    TRY(source_open(&b->source, paths, n_paths, &s, err));
    TRY(describe(description, &n, &repeatable, b, err));
    if (out && repeatable) reuse(corpus, out, *description, n);
    if (*corpus) return CB_OK;
    TRY(encoder_create(&b->encoder, b->tokenizer, err));
    TRY(shard_begin(&b->shard, out, tokenizer_size(b->tokenizer), err));
    TRY(pieces_put(b, err));
    TRY(shard_end(&b->shard, b->done, b->text_bytes, *description, n, &bytes, &n_bytes, err));
    return out ? corpus_open(corpus, out, err) : corpus_adopt(corpus, bytes, n_bytes, err);
}

enum cb_status corpus_load(struct corpus **corpus, const char *const *paths, int n_paths, const struct tokenizer *tokenizer,
                           const char *out, const struct corpus_options *options, bool *reused, struct cb_err *err) {
    struct builder b = {.tokenizer = tokenizer, .options = options};
    char *description = NULL;
    *corpus = NULL;
    enum cb_status status = load(&b, corpus, paths, n_paths, out, &description, err);
    if (reused) *reused = status == CB_OK && !b.encoder;
    shard_abort(&b.shard);
    encoder_destroy(&b.encoder);
    source_close(&b.source);
    token_list_deinit(&b.tokens);
    token_list_deinit(&b.prompt);
    free(b.joined);
    free(b.learnt);
    free(description);
    return status;
}

enum cb_status corpus_build(const char *const *paths, int n_paths, const struct tokenizer *tokenizer, const char *out,
                            const struct corpus_options *options, bool *reused, struct cb_err *err) {
    struct corpus *corpus;
    TRY(corpus_load(&corpus, paths, n_paths, tokenizer, out, options, reused, err));
    corpus_destroy(&corpus);
    return CB_OK;
}
