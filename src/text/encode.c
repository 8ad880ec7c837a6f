/* The encoder: added tokens, normaliser, pre-tokeniser stages, model and post-processor in a row. */
#include "text/added.h"
#include "text/cache.h"
#include "text/parts.h"
#include "text/utf8.h"
#include "text/windows.h"

enum cb_status encoder_create(struct encoder **encoder, const struct tokenizer *tokenizer, struct cb_err *err) {
    struct encoder *e = *encoder = calloc(1, sizeof *e);
    if (!e) FAIL(err, CB_E_MEMORY, "encoder: no memory");
    e->t = tokenizer;
    e->track = calloc((size_t)tokenizer->n_stages * 2 + 2, sizeof *e->track);
    if (!e->track) {
        encoder_destroy(encoder);
        FAIL(err, CB_E_MEMORY, "encoder: no memory");
    }
    return CB_OK;
}

void encoder_destroy(struct encoder **encoder) {
    struct encoder *e = encoder ? *encoder : NULL;
    if (!e) return;
    for (int i = 0; e->track && i < e->t->n_stages * 2 + 2; i++) free(e->track[i].text), free(e->track[i].align);
    free(e->track);
    for (int i = 0; i < 4; i++) free(e->work[i]);
    regex_scratch_destroy(&e->scratch);
    word_cache_destroy(&e->cache);
    free(e->own), free(e->texts.data);
    free(e);
    *encoder = NULL;
}

enum cb_status encoder_token(struct encoder *e, int32_t id, const struct piece *piece, size_t from, size_t to, struct cb_err *err) {
    struct token_list *out = e->out;
    if (out->n == out->capacity) TRY(buffer_grow((void **)&out->token, &out->capacity, out->n + 1, sizeof *out->token, err));
    struct token *token = &out->token[out->n++];
    *token = (struct token){.id = id, .word = e->word, .type = e->sequence, .attention = true, .sequence = e->sequence};
    if (e->tracking) {
        struct align range = piece_range(piece, from, to);
        token->begin = range.begin, token->end = range.end;
    }
    return CB_OK;
}

enum cb_status encoder_token_own(struct encoder *e, int32_t id, const struct piece *piece, size_t from, size_t to, struct cb_err *err) {
    TRY(encoder_token(e, id, piece, from, to, err));
    if (!e->keeps_texts) return CB_OK;
    if (e->n_own == UINT32_MAX) FAIL(err, CB_E_LIMIT, "encoder: more than 2^32 texts of tokens");
    TRY(buffer_grow((void **)&e->own, &e->own_capacity, e->n_own + 1, sizeof *e->own, err));
    e->own[e->n_own++] = (struct own_text){e->texts.n, to - from};
    e->out->token[e->out->n - 1].own = (uint32_t)e->n_own;
    return buffer_append(&e->texts, piece->text + from, to - from, err);
}

const char *encoder_text(const struct encoder *e, const struct token *token, size_t *n) {
    if (!token->own || token->own > e->n_own) return tokenizer_token(e->t, token->id, n);
    *n = e->own[token->own - 1].n;
    return e->texts.data + e->own[token->own - 1].at;
}

enum cb_status encoder_emit(struct encoder *e, int stage, const struct piece *piece, struct cb_err *err) {
    if (!piece->n) return CB_OK;
    if (stage + 1 < e->t->n_stages) {
        const struct part *next = e->t->stage[stage + 1];
        return next->kind->split(next, e, stage + 1, piece, err);
    }
    if (e->hook)
        TRY(e->hook(e->hook_context, piece->text, piece->n, piece->begin, piece->end, err));
    else
        TRY(e->t->model->encode(e->t, e, piece, err));
    e->word++;
    return CB_OK;
}

static enum cb_status pretokenise(struct encoder *e, const struct piece *piece, struct cb_err *err) {
    return encoder_emit(e, -1, piece, err);
}

struct track *encoder_free_track(const struct encoder *e, const struct piece *piece) {
    // the end is not inside: another allocation may begin there
    uintptr_t at = (uintptr_t)piece->text, begin = (uintptr_t)e->track[0].text;
    return begin && at >= begin && at < begin + e->track[0].n_text ? &e->track[1] : &e->track[0];
}

/* The normalisers from first up to end. */
static enum cb_status normalise(struct encoder *e, struct piece *piece, int first, int end, struct cb_err *err) {
    for (int i = first; i < end; i++) {
        const struct part *part = e->t->normaliser[i];
        TRY(part->kind->normalise(part, e, encoder_free_track(e, piece), piece, err));
    }
    return CB_OK;
}

static enum cb_status normalise_late(struct encoder *e, const struct piece *piece, struct cb_err *err) {
    struct piece normal = *piece;
    TRY(normalise(e, &normal, e->t->n_normalisers - e->t->n_late, e->t->n_normalisers, err));
    return pretokenise(e, &normal, err);
}

static enum cb_status normalise_rest(struct encoder *e, const struct piece *piece, struct cb_err *err) {
    struct piece normal = *piece;
    TRY(normalise(e, &normal, 0, e->t->n_normalisers - e->t->n_late, err));
    return added_split(e, &e->t->normal_set, &normal, e->t->n_late ? normalise_late : pretokenise, err);
}

static enum cb_status check_text(const char *text, size_t n, struct cb_err *err) {
    if (n >= (size_t)1 << 31) FAIL(err, CB_E_LIMIT, "text: %zu bytes; fewer than 2^31 are wanted", n);
    size_t good = utf8_check(text, n);
    if (good < n) FAIL(err, CB_E_FORMAT, "text: byte 0x%02x at %zu is not UTF-8", (unsigned char)text[good], good);
    return CB_OK;
}

/* Byte offsets of tokens [first, n) become code points; they mostly rise, so one cursor walks. */
static void count_code_points(struct token_list *list, size_t first, const char *text) {
    size_t byte = 0, cp = 0;
    for (size_t i = first; i < list->n; i++) {
        uint32_t *offset[2] = {&list->token[i].begin, &list->token[i].end};
        for (int k = 0; k < 2; k++) {
            for (; byte < *offset[k]; byte++) cp += !utf8_is_tail(text[byte]);
            for (; byte > *offset[k]; byte--) cp -= !utf8_is_tail(text[byte - 1]);
            *offset[k] = (uint32_t)cp;
        }
    }
}

static bool is_blank(const struct tokenizer *t, const struct token *token) {
    size_t n;
    const char *text = tokenizer_token(t, token->id, &n);
    uint32_t cp = 0;
    for (size_t at = 0; at < n; at += (size_t)utf8_length(text[at])) {
        int byte = utf8_decode(text + at, n - at, &cp) ? char_to_byte(cp) : -1;
        if (byte != ' ' && byte != '\n' && byte != '\t') return false;
    }
    return n;
}

/* tiktoken's way with bytes that are not UTF-8: the words up to the first such byte are cut as usual, but all from the last one on (with the blank tokens
   before it, which more text might have joined) is a single word. */
static enum cb_status encode_joined(struct encoder *e, const struct piece *all, size_t first, size_t good, struct cb_err *err) {
    struct token_list *out = e->out;
    size_t n = out->n, begin = good;
    while (n > first && out->token[n - 1].word == out->token[out->n - 1].word) n--;
    if (n < out->n && is_blank(e->t, &out->token[n]))
        while (n > first && is_blank(e->t, &out->token[n - 1])) n--;
    for (size_t i = n; i < out->n; i++) {
        size_t length;
        const char *text = tokenizer_token(e->t, out->token[i].id, &length);
        size_t bytes = e->t->added_of[out->token[i].id] ? length : utf8_count(text, length);
        begin -= bytes < begin ? bytes : begin;
    }
    if (n < out->n) e->word = out->token[n].word;
    out->n = n;
    struct piece rest = piece_slice(all, begin, all->n);
    return e->t->model->encode(e->t, e, &rest, err);
}

/* Appends one sequence to e->out. */
static enum cb_status encode_sequence(struct encoder *e, int sequence, const char *text, size_t n, unsigned flags, struct cb_err *err) {
    size_t first = e->out->n, good = n;
    if (!e->t->broken)
        TRY(check_text(text, n, err));
    else if (n >= (size_t)1 << 31)
        FAIL(err, CB_E_LIMIT, "text: %zu bytes; fewer than 2^31 are wanted", n);
    else if (e->t->broken == BROKEN_JOINED)
        good = utf8_check(text, n);
    e->sequence = (int8_t)sequence, e->word = 0, e->hook = NULL;
    e->tracking = (flags & ENCODE_OFFSETS) || e->t->always_track;
    struct piece all = {text, n, NULL, 0, (uint32_t)n}, valid = {text, good, NULL, 0, (uint32_t)good};
    TRY(added_split(e, &e->t->raw_set, &valid, normalise_rest, err));
    if (good < n) TRY(encode_joined(e, &all, first, good, err));
    if ((flags & ENCODE_CODE_POINTS) == ENCODE_CODE_POINTS) count_code_points(e->out, first, text);
    return CB_OK;
}

/* Appends one sequence of words that were cut elsewhere; ranges are those in each word. */
static enum cb_status encode_words(struct encoder *e, int sequence, const struct text_view *word, size_t n, unsigned flags,
                                   struct cb_err *err) {
    if (n > INT32_MAX) FAIL(err, CB_E_LIMIT, "text: %zu words; fewer than 2^31 are wanted", n);
    for (size_t i = 0; i < n; i++) {
        size_t first = e->out->n;
        TRY(encode_sequence(e, sequence, word[i].text, word[i].n, flags, err));
        for (size_t k = first; k < e->out->n; k++) e->out->token[k].word = (int32_t)i;
    }
    return CB_OK;
}

enum cb_status encoder_encode_input(struct encoder *encoder, struct token_windows *out, const struct encode_input *input, unsigned flags,
                                    struct cb_err *err) {
    struct encoder *e = encoder;
    TRY(windows_reserve(out, 1, err));
    out->n = 1, out->list[0].n = 0, e->out = &out->list[0];
    e->keeps_texts = flags & (ENCODE_OFFSETS | ENCODE_TEXTS);  // offsets are trimmed by them
    if (!(flags & ENCODE_TEXTS)) e->n_own = e->texts.n = 0;
    for (int i = 0; i < input->n_sequences; i++) {
        if (input->is_words)
            TRY(encode_words(e, i, input->text[i], input->n_texts[i], flags, err));
        else
            TRY(encode_sequence(e, i, input->text[i]->text, input->text[i]->n, flags, err));
    }
    return windows_finish(e, out, input->n_sequences, flags, err);
}

/* A list of tokens as the only window. */
static enum cb_status encode_list(struct encoder *encoder, struct token_list *out, const struct encode_input *input, unsigned flags,
                                  struct cb_err *err) {
    struct token_windows windows = {out, 1, 1};
    return encoder_encode_input(encoder, &windows, input, flags & ~(unsigned)ENCODE_WINDOWS, err);
}

enum cb_status encoder_encode(struct encoder *encoder, struct token_list *out, const char *text, size_t n, unsigned flags,
                              struct cb_err *err) {
    struct text_view view = {text, n};
    struct encode_input input = {{&view, NULL}, {1, 0}, 1, false};
    return encode_list(encoder, out, &input, flags, err);
}

enum cb_status encoder_encode_pair(struct encoder *encoder, struct token_list *out, const char *first, size_t n_first, const char *second,
                                   size_t n_second, unsigned flags, struct cb_err *err) {
    struct text_view view[2] = {{first, n_first}, {second, n_second}};
    struct encode_input input = {{&view[0], &view[1]}, {1, 1}, 2, false};
    return encode_list(encoder, out, &input, flags, err);
}

enum cb_status tokenizer_encode(const struct tokenizer *tokenizer, struct token_list *out, const char *text, size_t n, unsigned flags,
                                struct cb_err *err) {
    struct encoder *encoder;
    TRY(encoder_create(&encoder, tokenizer, err));
    enum cb_status status = encoder_encode(encoder, out, text, n, flags, err);
    encoder_destroy(&encoder);
    return status;
}

enum cb_status encoder_normalise(struct encoder *encoder, char **out, size_t *n_out, const char *text, size_t n, struct cb_err *err) {
    *out = NULL;
    TRY(check_text(text, n, err));
    struct piece all = {text, n, NULL, 0, (uint32_t)n};
    encoder->tracking = encoder->t->always_track;
    TRY(normalise(encoder, &all, 0, encoder->t->n_normalisers - encoder->t->n_late, err));
    struct buffer copy = {0};
    TRY(buffer_append(&copy, all.text, all.n, err));
    copy.data[copy.n] = 0;
    *out = copy.data, *n_out = copy.n;
    return CB_OK;
}

enum cb_status encoder_pretokenise(struct encoder *encoder, const char *text, size_t n, text_piece_fn *fn, void *context,
                                   struct cb_err *err) {
    TRY(check_text(text, n, err));
    struct piece all = {text, n, NULL, 0, (uint32_t)n};
    encoder->hook = fn, encoder->hook_context = context, encoder->tracking = true, encoder->word = 0;
    enum cb_status status = encoder_emit(encoder, -1, &all, err);
    encoder->hook = NULL;
    return status;
}

enum cb_status encoder_words(struct encoder *encoder, const char *text, size_t n, text_piece_fn *fn, void *context, struct cb_err *err) {
    TRY(check_text(text, n, err));
    struct piece all = {text, n, NULL, 0, (uint32_t)n};
    encoder->hook = fn, encoder->hook_context = context, encoder->tracking = encoder->t->always_track, encoder->word = 0;
    enum cb_status status = normalise(encoder, &all, 0, encoder->t->n_normalisers, err);
    if (!status) status = encoder_emit(encoder, -1, &all, err);
    encoder->hook = NULL;
    return status;
}
