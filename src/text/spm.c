/* Tokenizers of SentencePiece models (Kudo and Richardson, EMNLP 2018): the pieces become a vocabulary, their scores a model. */
#include "text/spm.h"

#include <math.h>

#include "text/bpe.h"
#include "text/normalise.h"
#include "text/utf8.h"

static int32_t type_at(const struct spm_model *m, int32_t id) { return m->type ? m->type[id] : PIECE_NORMAL; }

static enum cb_status pieces_set(struct tokenizer *t, const struct spm_model *m, struct spm_rules *rules, const char *name,
                                 struct cb_err *err) {
    uint8_t *type = arena_alloc(t->arena, (size_t)m->n + 1);
    if (!type) FAIL(err, CB_E_MEMORY, "%s: no memory for %d pieces", name, (int)m->n);
    TRY(vocab_init(&t->vocab, t->arena, m->n, m->n, err));
    for (int32_t id = 0; id < m->n; id++) {
        struct text_view p = m->piece[id];
        size_t good = utf8_check(p.text, p.n);
        if (!p.n || good < p.n || memchr(p.text, 0, p.n))
            FAIL(err, CB_E_FORMAT, "%s: piece %d: %s; text in UTF-8 is wanted", name, (int)id,
                 !p.n         ? "found no text"
                 : good < p.n ? "found bytes that are not UTF-8"
                              : "found a NUL");
        if (m->score && isnan(m->score[id])) FAIL(err, CB_E_FORMAT, "%s: piece %d: score is not a number", name, (int)id);
        TRY(vocab_add(&t->vocab, t->arena, id, p.text, p.n, name, err));
        int32_t kind = type_at(m, id);
        if (kind < PIECE_NORMAL || kind > (t->absent ? PIECE_ABSENT : PIECE_BYTE))
            FAIL(err, CB_E_FORMAT, "%s: piece %d: type %d; 1 (normal) to 6 (byte) is wanted", name, (int)id, (int)kind);
        type[id] = (uint8_t)kind;
    }
    rules->type = type, rules->n_types = m->n;
    return CB_OK;
}

/* ---- the model */

static int32_t unknown_find(const struct spm_model *m) {
    for (int32_t id = 0; id < m->n; id++)
        if (type_at(m, id) == PIECE_UNKNOWN) return id;
    return -1;
}

struct scored {
    float score;
    int32_t id;
};
static int by_score(const void *a, const void *b) {
    const struct scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The best score has rank 0; equal scores share a rank, and then the leftmost pair merges first. */
static enum cb_status ranks_find(int32_t **rank, const struct spm_model *m, struct cb_err *err) {
    struct scored *order = malloc(((size_t)m->n + 1) * sizeof *order);
    int32_t *out = *rank = malloc(((size_t)m->n + 1) * sizeof *out), n = 0, last = -1;
    if (!order || !out) {
        free(order);
        FAIL(err, CB_E_MEMORY, "model: no memory for %d pieces", (int)m->n);
    }
    for (int32_t id = 0; id < m->n; id++) {
        int32_t type = type_at(m, id);
        out[id] = -1;
        if (m->has_merges && (type == PIECE_NORMAL || type == PIECE_UNUSED)) order[n++] = (struct scored){m->score[id], id};
    }
    qsort(order, (size_t)n, sizeof *order, by_score);
    for (int32_t i = 0; i < n; i++) out[order[i].id] = last += !i || order[i].score != order[i - 1].score;
    free(order);
    return CB_OK;
}

static enum cb_status unused_mark(struct tokenizer *t, struct bpe *bpe, const struct spm_model *m, struct cb_err *err) {
    int32_t *unused = NULL;
    for (int32_t id = 0; id < m->n; id++) {
        if (type_at(m, id) != PIECE_UNUSED) continue;
        if (!unused && !(unused = arena_array(t->arena, (size_t)m->n, sizeof *unused))) FAIL(err, CB_E_MEMORY, "model: no memory");
        unused[id] = ++bpe->n_unused;
    }
    bpe->unused_at = unused;
    return CB_OK;
}

static enum cb_status bpe_model_set(struct tokenizer *t, const struct spm_model *m, const struct spm_rules *rules, int32_t unk,
                                    struct cb_err *err) {
    struct bpe *bpe = NULL;
    int32_t *rank = NULL;
    enum cb_status status = ranks_find(&rank, m, err);
    if (!status) status = bpe_set_results(t, rank, true, &bpe, err);
    free(rank);
    if (status) return status;
    const struct vocab_token *token = vocab_at(&t->vocab, unk);
    if (token) bpe->unk = (struct part_text){token->text, token->n};
    bpe->unk_id = unk, bpe->fuse_unk = true, bpe->byte_fallback = m->byte_fallback;
    if (rules->user.n) bpe->whole = &rules->user;
    TRY(unused_mark(t, bpe, m, err));
    t->raw_bytes = false;
    bpe_find_cuts(t, bpe);
    return CB_OK;
}

static enum cb_status unigram_model_set(struct tokenizer *t, const struct spm_model *m, const struct spm_rules *rules, int32_t unk,
                                        struct cb_err *err) {
    double *score = malloc(((size_t)m->n + 1) * sizeof *score);
    if (!score) FAIL(err, CB_E_MEMORY, "model: no memory for %d pieces", (int)m->n);
    for (int32_t id = 0; id < m->n; id++) score[id] = m->score[id];
    struct unigram_options options = {score, rules->type, unk, m->byte_fallback};
    enum cb_status status = unigram_set(t, &options, err);
    free(score);
    return status;
}

/* ---- around the model */

static struct part *part_of(struct tokenizer *t, const struct part_kind *kind, void *data) {
    struct part *part = arena_alloc(t->arena, sizeof *part);
    if (part) part->kind = kind, part->data = data;
    return part;
}

static enum cb_status user_set(struct tokenizer *t, const struct spm_model *m, struct added_set *set, struct cb_err *err) {
    for (int32_t id = 0; id < m->n; id++) {
        if (type_at(m, id) != PIECE_USER) continue;
        if (!set->needle && !(set->needle = arena_array(t->arena, (size_t)m->n, sizeof *set->needle)))
            FAIL(err, CB_E_MEMORY, "model: no memory");
        const struct vocab_token *token = vocab_at(&t->vocab, id);
        set->needle[set->n++] = (struct added_needle){token->text, token->n, id};
    }
    if (set->n) added_set_index(set);
    return CB_OK;
}

/* Whether normalising leaves the text as it is. */
static bool is_stable(const struct spm_rules *rules, const struct vocab_token *token) {
    for (size_t at = 0, length; at < token->n; at += length) {
        uint32_t cp = 0;
        if (token->text[at] == ' ' || charsmap_longest(rules->map, token->text + at, token->n - at, &length)) return false;
        length = (size_t)utf8_decode(token->text + at, token->n - at, &cp);
    }
    return true;
}

/* Control and user-defined pieces are added tokens. A Unigram model finds user-defined pieces by their scores alone. */
static enum cb_status specials_set(struct tokenizer *t, const struct spm_model *m, const struct spm_rules *rules, const char *name,
                                   struct cb_err *err) {
    for (int32_t id = 0; id < m->n; id++) {
        int32_t type = type_at(m, id);
        const struct vocab_token *token = vocab_at(&t->vocab, id);
        if (type != PIECE_CONTROL && (type != PIECE_USER || (m->unigram && !m->find_specials && is_stable(rules, token)))) continue;
        if (t->n_added >= 1 << 16) FAIL(err, CB_E_LIMIT, "%s: over 65536 control and user-defined pieces", name);
        struct added_token added = {token->text, token->n, id, .special = type != PIECE_USER, .hidden = !m->find_specials};
        TRY(tokenizer_add(t, &added, name, err));
    }
    return CB_OK;
}

enum cb_status spm_set(struct tokenizer *t, const struct spm_model *m, const char *name, struct cb_err *err) {
    struct spm_rules *rules = arena_alloc(t->arena, sizeof *rules);
    if (!rules) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    if (m->n < 1) FAIL(err, CB_E_FORMAT, "%s: found no pieces", name);
    if (!m->score && (m->unigram || m->has_merges)) FAIL(err, CB_E_FORMAT, "%s: found no scores; one for each piece is wanted", name);
    rules->dummy_prefix = m->dummy_prefix, rules->squeeze_spaces = m->squeeze_spaces, rules->escape_spaces = m->escape_spaces;
    rules->prefix_at_end = m->prefix_at_end, rules->byte_fallback = m->byte_fallback, rules->shows_specials = m->find_specials;
    rules->charsmap = m->charsmap, rules->n_charsmap = m->n_charsmap;
    rules->unk_surface = (struct part_text){arena_strndup(t->arena, m->unk_surface.text, m->unk_surface.n), m->unk_surface.n};
    if (!rules->unk_surface.text) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    if (utf8_check(m->unk_surface.text, m->unk_surface.n) < m->unk_surface.n) FAIL(err, CB_E_FORMAT, "%s: unk_surface is not UTF-8", name);
    TRY(pieces_set(t, m, rules, name, err));
    if (m->n_charsmap) {
        struct charsmap *map = NULL;
        TRY(charsmap_parse(t, &map, m->charsmap, m->n_charsmap, name, err));
        rules->map = map;
    }
    if (!m->find_specials) TRY(user_set(t, m, &rules->user, err));
    int32_t unk = unknown_find(m);
    enum cb_status status = m->unigram ? unigram_model_set(t, m, rules, unk, err) : bpe_model_set(t, m, rules, unk, err);
    if (status) return err_prefix(err, "%s", name);
    t->part[ROLE_NORMALIZER] = part_of(t, &spm_normalizer_kind, rules);
    t->part[ROLE_DECODER] = part_of(t, &spm_decoder_kind, rules);
    if (!t->part[ROLE_NORMALIZER] || !t->part[ROLE_DECODER]) FAIL(err, CB_E_MEMORY, "%s: no memory", name);
    t->broken = BROKEN_REPAIRED;
    return specials_set(t, m, rules, name, err);
}
