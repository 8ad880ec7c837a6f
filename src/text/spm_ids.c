/* The pieces of a SentencePiece model under the ids that a class of Transformers gives them. */
#include <stdio.h>

#include "text/config.h"
#include "text/spm.h"

#define ABSENT_SCORE -1e6f  // so that a tokenizer.json does not cut text into them either
enum { MOST_FIRST = 8 };

/* Lists of n tokens in the tokenizer's arena, which m gets. */
struct pieces {
    struct text_view *piece;
    float *score;
    int32_t *type, n;
};

static enum cb_status pieces_alloc(struct pieces *out, struct tokenizer *t, int64_t n, const char *name, struct cb_err *err) {
    if (n < 1 || n > 1 << 25) FAIL(err, CB_E_LIMIT, "%s: %lld tokens; 1 to 2^25 are taken", name, (long long)n);
    out->piece = arena_array(t->arena, (size_t)n, sizeof *out->piece);
    out->score = arena_array(t->arena, (size_t)n, sizeof *out->score);
    out->type = arena_array(t->arena, (size_t)n, sizeof *out->type);  // 0: none yet
    if (!out->piece || !out->score || !out->type) FAIL(err, CB_E_MEMORY, "%s: no memory for %lld tokens", name, (long long)n);
    return CB_OK;
}

static void piece_put(struct pieces *out, struct text_view text, float score, int32_t type) {
    out->piece[out->n] = text, out->score[out->n] = score, out->type[out->n++] = type;
}

/* A piece whose text has another id keeps its place under another text. */
static enum cb_status shadowed_put(struct pieces *out, struct tokenizer *t, struct text_view piece, struct cb_err *err) {
    size_t size = piece.n + 40;
    char *text = arena_alloc(t->arena, size);
    if (!text) FAIL(err, CB_E_MEMORY, "model: no memory");
    int n = snprintf(text, size, "%.*s:NOTUSED:%d", (int)piece.n, piece.text, (int)out->n);
    piece_put(out, (struct text_view){text, (size_t)n}, ABSENT_SCORE, PIECE_ABSENT);
    return CB_OK;
}

/* "12," and the like, which ALBERT and XLNet cut before the comma. */
static bool is_number_comma(struct text_view p) {
    return p.n > 1 && p.text[p.n - 1] == ',' && p.text[p.n - 2] >= '0' && p.text[p.n - 2] <= '9';
}

/* fairseq's first tokens take the place of the model's own first pieces; the others follow in their order. */
static enum cb_status shifted(struct pieces *out, struct tokenizer *t, const struct spm_model *m, const struct spm_ids *ids,
                              const char *name, struct cb_err *err) {
    TRY(pieces_alloc(out, t, (int64_t)m->n + MOST_FIRST, name, err));
    for (int32_t i = 0; i < ids->n_skipped; i++)
        if (i >= m->n || (m->type[i] != PIECE_UNKNOWN && m->type[i] != PIECE_CONTROL))
            FAIL(err, CB_E_FORMAT, "%s: piece %d: %.60s; among the first %d the unknown and the control pieces are wanted", name, (int)i,
                 i < m->n ? "found a piece of text" : "found none", (int)ids->n_skipped);
    const char *first = ids->first;
    for (struct text_view text; out->n < MOST_FIRST && config_word(&first, &text);) {
        bool unknown = text.n == ids->unk.n && !memcmp(text.text, ids->unk.text, text.n);
        const json_t *claim = json_object_getn(ids->claims, text.text, text.n);
        if (!unknown && claim && json_integer_value(claim) != out->n)
            TRY(shadowed_put(out, t, text, err));
        else
            piece_put(out, text, 0, unknown ? PIECE_UNKNOWN : PIECE_CONTROL);
    }
    for (int32_t i = ids->n_skipped; i < m->n; i++) {
        struct text_view p = m->piece[i];
        const json_t *claim = json_object_getn(ids->claims, p.text, p.n);
        if (claim && json_integer_value(claim) != out->n)
            TRY(shadowed_put(out, t, p, err));
        else
            piece_put(out, p, m->score[i] - (ids->rare_commas && is_number_comma(p) ? 100 : 0), m->type[i]);
    }
    return CB_OK;
}

/* ">>fr<<": Marian's languages. */
static bool is_language(const char *text, size_t n) { return n > 4 && !memcmp(text, ">>", 2) && !memcmp(text + n - 2, "<<", 2); }

/* vocab.json gives the ids; pieces that it does not have come after all, and stand for the unknown token. */
static enum cb_status mapped(struct pieces *out, struct tokenizer *t, const struct spm_model *m, const struct spm_ids *ids,
                             const char *name, struct cb_err *err) {
    size_t n = json_object_size(ids->vocab);
    const char *key;
    const json_t *value;
    TRY(pieces_alloc(out, t, (int64_t)n + m->n, name, err));
    json_object_foreach((json_t *)(uintptr_t)ids->vocab, key, value) {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || (size_t)id >= n || out->type[id])
            FAIL(err, CB_E_FORMAT, "%s: vocab.json: \"%.60s\" has id %lld; one of 0 to %zu for each is wanted", name, key, (long long)id,
                 n - 1);
        // the key lives as long as the file's object: a copy outlives it
        out->piece[id] = (struct text_view){arena_strdup(t->arena, key), strlen(key)};
        if (!out->piece[id].text) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
        out->score[id] = ABSENT_SCORE, out->type[id] = is_language(key, out->piece[id].n) ? PIECE_USER : PIECE_ABSENT;
    }
    const json_t *unk = ids->unk.n ? json_object_getn(ids->vocab, ids->unk.text, ids->unk.n) : NULL;
    if (!unk) FAIL(err, CB_E_FORMAT, "%s: vocab.json: the unknown token %.60s is not in it", name, ids->unk.n ? ids->unk.text : "(none)");
    out->n = (int32_t)n;
    for (int32_t i = 0; i < m->n; i++) {
        const json_t *known = json_object_getn(ids->vocab, m->piece[i].text, m->piece[i].n);
        json_int_t id = json_integer_value(known);
        if (known && m->type[i] != PIECE_UNKNOWN)
            out->score[id] = m->score[i], out->type[id] = m->type[i];
        else if (!known && m->type[i] != PIECE_UNKNOWN && m->type[i] != PIECE_CONTROL)
            piece_put(out, m->piece[i], m->score[i], m->type[i]);
    }
    t->unknown_id = (int32_t)json_integer_value(unk), t->n_shown = (int32_t)n;
    out->type[t->unknown_id] = PIECE_UNKNOWN;
    return CB_OK;
}

enum cb_status spm_renumber(struct spm_model *m, struct tokenizer *t, const struct spm_ids *ids, const char *name, struct cb_err *err) {
    struct pieces out = {0};
    TRY(ids->vocab ? mapped(&out, t, m, ids, name, err) : shifted(&out, t, m, ids, name, err));
    t->absent = true;
    m->piece = out.piece, m->score = out.score, m->type = out.type, m->n = out.n;
    return CB_OK;
}
