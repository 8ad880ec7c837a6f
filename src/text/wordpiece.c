/* Whole-word models: WordLevel, and WordPiece (longest match first; Schuster and Nakajima, ICASSP 2012). */
#include "text/cache.h"
#include "text/parts.h"
#include "text/utf8.h"

struct words {
    struct part_text unk, prefix;
    int32_t unk_id;
    int64_t max_chars;
};

static enum cb_status text_read(struct tokenizer *t, struct part_text *out, const json_t *json, const char *key, const char *preset,
                                struct cb_err *err) {
    TRY(json_get_str(&preset, json, "model", key, !preset, err));
    *out = (struct part_text){arena_strdup(t->arena, preset), strlen(preset)};
    if (!out->text) FAIL(err, CB_E_MEMORY, "model: no memory");
    return CB_OK;
}

static enum cb_status words_read(struct tokenizer *t, const json_t *json, struct words **out, struct cb_err *err) {
    TRY(vocab_read(t, json_object_get(json, "vocab"), err));
    struct words *words = *out = t->model_data = arena_alloc(t->arena, sizeof *words);
    if (!words) FAIL(err, CB_E_MEMORY, "model: no memory");
    TRY(text_read(t, &words->unk, json, "unk_token", NULL, err));
    words->unk_id = vocab_find(&t->vocab, words->unk.text, words->unk.n);
    return CB_OK;
}

/* ---- WordLevel */

static enum cb_status wordlevel_read(struct tokenizer *t, const json_t *json, struct cb_err *err) {
    struct words *words;
    return words_read(t, json, &words, err);
}

static enum cb_status wordlevel_write(const struct tokenizer *t, json_t *json, struct cb_err *err) {
    const struct words *words = t->model_data;
    TRY(vocab_write(t, json, err));
    if (json_object_set_new(json, "unk_token", json_stringn(words->unk.text, words->unk.n)))
        FAIL(err, CB_E_MEMORY, "model: no memory to write it");
    return CB_OK;
}

static enum cb_status unknown(const struct words *words, const struct piece *piece, struct cb_err *err) {
    FAIL(err, CB_E_NAME, "model: \"%.*s\" has no token, and unk_token \"%.60s\" is not in the vocabulary",
         (int)(piece->n < 60 ? piece->n : 60), piece->text, words->unk.text);
}

static enum cb_status wordlevel_encode(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err) {
    const struct words *words = t->model_data;
    int32_t id = vocab_find(&t->vocab, piece->text, piece->n);
    if (id < 0) id = words->unk_id;
    if (id < 0) return unknown(words, piece, err);
    return encoder_token(e, id, piece, 0, piece->n, err);
}

const struct model_kind wordlevel_model = {"WordLevel", wordlevel_read, wordlevel_write, wordlevel_encode};

/* ---- WordPiece */

static enum cb_status wordpiece_read(struct tokenizer *t, const json_t *json, struct cb_err *err) {
    struct words *words;
    TRY(words_read(t, json, &words, err));
    if (words->unk_id < 0) FAIL(err, CB_E_FORMAT, "model: unk_token \"%.80s\" is not in the vocabulary", words->unk.text);
    TRY(text_read(t, &words->prefix, json, "continuing_subword_prefix", "##", err));
    words->max_chars = 100;
    return json_get_int(&words->max_chars, json, "model", "max_input_chars_per_word", 0, 1 << 20, false, err);
}

enum cb_status wordpiece_set(struct tokenizer *t, const char *unk, const char *prefix, struct cb_err *err) {
    struct words *words = t->model_data = arena_alloc(t->arena, sizeof *words);
    if (!words) FAIL(err, CB_E_MEMORY, "model: no memory");
    words->unk = (struct part_text){arena_strdup(t->arena, unk), strlen(unk)};
    words->prefix = (struct part_text){arena_strdup(t->arena, prefix), strlen(prefix)};
    if (!words->unk.text || !words->prefix.text) FAIL(err, CB_E_MEMORY, "model: no memory");
    words->unk_id = vocab_find(&t->vocab, unk, words->unk.n), words->max_chars = 100;
    t->model = &wordpiece_model;
    return CB_OK;
}

static enum cb_status wordpiece_write(const struct tokenizer *t, json_t *json, struct cb_err *err) {
    const struct words *words = t->model_data;
    int bad = json_object_set_new(json, "unk_token", json_stringn(words->unk.text, words->unk.n));
    bad |= json_object_set_new(json, "continuing_subword_prefix", json_stringn(words->prefix.text, words->prefix.n));
    bad |= json_object_set_new(json, "max_input_chars_per_word", json_integer(words->max_chars));
    if (bad) FAIL(err, CB_E_MEMORY, "model: no memory to write it");
    return vocab_write(t, json, err);
}

/* The longest pieces from left to right into out (room for a token a byte); one that has none makes the whole word unknown. */
static enum cb_status word_cut(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct word_token *out,
                               size_t *n_out, struct cb_err *err) {
    const struct words *words = t->model_data;
    size_t k = words->prefix.n;
    out[0] = (struct word_token){words->unk_id, (uint32_t)piece->n}, *n_out = 1;
    if ((int64_t)piece->n > words->max_chars && (int64_t)utf8_count(piece->text, piece->n) > words->max_chars) return CB_OK;
    // the prefix lies before the word; each later piece is looked up with it, put over the bytes before it
    TRY(buffer_grow(&e->work[0], &e->work_capacity[0], k + piece->n + 1, 1, err));
    char *word = e->work[0];
    size_t n = 0;
    memcpy(word + k, piece->text, piece->n);
    for (size_t from = 0, to; from < piece->n; from = to) {
        int32_t id = -1;
        char *at = word + k + from;
        if (from) at -= k, memcpy(at, words->prefix.text, k);
        for (to = piece->n; to > from; to--) {
            if (to < piece->n && utf8_is_tail(piece->text[to])) continue;
            if ((id = vocab_find(&t->vocab, at, (size_t)(word + k + to - at))) >= 0) break;
        }
        if (id < 0) {
            out[0] = (struct word_token){words->unk_id, (uint32_t)piece->n};
            return CB_OK;
        }
        out[n++] = (struct word_token){id, (uint32_t)(to - from)};
    }
    *n_out = n;
    return CB_OK;
}

static enum cb_status wordpiece_encode(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err) {
    uint64_t hash = piece->n <= WORD_CACHE_LONGEST ? vocab_hash(piece->text, piece->n) : 0;
    size_t n;
    const struct word_token *s = word_cache_get(e->cache, hash, piece->text, piece->n, &n);
    if (!s) {
        TRY(buffer_grow(&e->work[1], &e->work_capacity[1], piece->n + 1, sizeof *s, err));
        TRY(word_cut(t, e, piece, e->work[1], &n, err));
        s = e->work[1];
        word_cache_put(&e->cache, hash, piece->text, piece->n, s, n);
    }
    for (size_t i = 0, at = 0; i < n; at += s[i++].n) TRY(encoder_token(e, s[i].id, piece, at, at + s[i].n, err));
    return CB_OK;
}

const struct model_kind wordpiece_model = {"WordPiece", wordpiece_read, wordpiece_write, wordpiece_encode};
