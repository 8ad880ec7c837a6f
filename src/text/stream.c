/* Text as ids come one by one: bytes that do not make a character yet are held back. */
#include "text/parts.h"
#include "text/utf8.h"

/* Tokens that the last ones are decoded with, where a decoder looks at its neighbours. */
#define WINDOW 24

struct text_stream {
    const struct tokenizer *t;
    bool skip_special;
    bool has_bytes;  // <0xXX> is a byte
    const struct part *replace;  // of every token's text, in decoders that work token by token
    const struct part *tokens;  // the decoder, where it knows the bytes of single tokens
    enum { BY_BYTES, BY_CHARS, BY_TOKENS, BY_WINDOW } mode;
    struct buffer held, out;
    int32_t id[WINDOW];
    int n_ids;
};

/* Decoders whose tokens can be turned into bytes one by one. */
static void mode_find(struct text_stream *s, const struct part *part) {
    const char *type = part ? part->kind->type : "";
    if (!strcmp(type, "ByteLevel")) s->mode = BY_BYTES;
    if (!strcmp(type, "ByteFallback") || !strcmp(type, "Metaspace")) s->mode = BY_CHARS;
    if (!strcmp(type, "ByteFallback")) s->has_bytes = true;
    if (!strcmp(type, "Metaspace") || (!strcmp(type, "Replace") && !part->regex)) s->replace = part;
    for (int i = 0; part && i < part->n_parts; i++) mode_find(s, part->part[i]);
}

enum cb_status text_stream_create(struct text_stream **stream, const struct tokenizer *tokenizer, bool skip_special, struct cb_err *err) {
    struct text_stream *s = *stream = calloc(1, sizeof *s);
    if (!s) FAIL(err, CB_E_MEMORY, "stream: no memory");
    s->t = tokenizer, s->skip_special = skip_special, s->mode = BY_WINDOW;
    const struct part *decoder = tokenizer->part[ROLE_DECODER];
    mode_find(s, decoder);
    if (decoder && decoder->kind->token) s->mode = BY_TOKENS, s->tokens = decoder;
    return CB_OK;
}

void text_stream_destroy(struct text_stream **stream) {
    if (!stream || !*stream) return;
    free((*stream)->held.data);
    free((*stream)->out.data);
    free(*stream);
    *stream = NULL;
}

/* Appends the token's bytes to held. */
static enum cb_status push_bytes(struct text_stream *s, const char *text, size_t n, struct cb_err *err) {
    size_t before = s->held.n;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t cp = 0;
        length = (size_t)utf8_decode(text + at, n - at, &cp);
        int byte = length ? char_to_byte(cp) : -1;
        char c = (char)byte;
        if (byte < 0) {
            s->held.n = before;
            return buffer_append(&s->held, text, n, err);
        }
        TRY(buffer_append(&s->held, &c, 1, err));
    }
    return CB_OK;
}

static enum cb_status push_chars(struct text_stream *s, const char *text, size_t n, struct cb_err *err) {
    int byte = s->has_bytes ? byte_token(text, n) : -1;
    char c = (char)byte;
    if (byte >= 0) return buffer_append(&s->held, &c, 1, err);
    if (!s->replace) return buffer_append(&s->held, text, n, err);
    const struct part_text *old = &s->replace->text[0], *new = &s->replace->text[1];
    bool space = !new->text;  // Metaspace
    for (const char *hit; old->n && (hit = memmem(text, n, old->text, old->n));) {
        TRY(buffer_append(&s->held, text, (size_t)(hit - text), err));
        TRY(buffer_append(&s->held, space ? " " : new->text, space ? 1 : new->n, err));
        n -= (size_t)(hit - text) + old->n, text = hit + old->n;
    }
    return buffer_append(&s->held, text, n, err);
}

/* What the window's text gains by the id. */
static enum cb_status push_window(struct text_stream *s, int32_t id, struct cb_err *err) {
    char *before = NULL, *after = NULL;
    size_t n_before, n_after;
    if (s->n_ids == WINDOW) {
        s->n_ids = WINDOW / 2;
        memmove(s->id, s->id + WINDOW - s->n_ids, (size_t)s->n_ids * sizeof *s->id);
    }
    TRY(tokenizer_decode(s->t, &before, &n_before, s->id, (size_t)s->n_ids, s->skip_special, err));
    s->id[s->n_ids++] = id;
    enum cb_status status = tokenizer_decode(s->t, &after, &n_after, s->id, (size_t)s->n_ids, s->skip_special, err);
    size_t same = 0;
    while (!status && same < n_before && same < n_after && before[same] == after[same]) same++;
    while (!status && same && same < n_after && utf8_is_tail(after[same])) same--;
    if (!status) status = buffer_append(&s->held, after + same, n_after - same, err);
    free(before);
    free(after);
    return status;
}

/* Moves the first n held bytes out, repaired. */
static enum cb_status release(struct text_stream *s, size_t n_held, const char **text, size_t *n, struct cb_err *err) {
    s->out.n = 0;
    TRY(buffer_reserve(&s->out, n_held * 3, err));
    if (n_held) {
        s->out.n = utf8_repair(s->out.data, s->held.data, n_held);
        memmove(s->held.data, s->held.data + n_held, s->held.n - n_held);
        s->held.n -= n_held;
    }
    s->out.data[s->out.n] = 0;
    *text = s->out.data, *n = s->out.n;
    return CB_OK;
}

enum cb_status text_stream_push(struct text_stream *stream, int32_t id, const char **text, size_t *n, struct cb_err *err) {
    size_t length;
    const char *token = tokenizer_token(stream->t, id, &length);
    if (token && !(stream->skip_special && tokenizer_is_special(stream->t, id))) {
        if (stream->mode == BY_BYTES)
            TRY(push_bytes(stream, token, length, err));
        else if (stream->mode == BY_CHARS)
            TRY(push_chars(stream, token, length, err));
        else if (stream->mode == BY_TOKENS)
            TRY(stream->tokens->kind->token(stream->tokens, id, token, length, &stream->held, err));
        else
            TRY(push_window(stream, id, err));
    }
    return release(stream, stream->held.n ? utf8_complete(stream->held.data, stream->held.n) : 0, text, n, err);
}

enum cb_status text_stream_finish(struct text_stream *stream, const char **text, size_t *n, struct cb_err *err) {
    return release(stream, stream->held.n, text, n, err);
}
