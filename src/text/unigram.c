/* Unigram language model (Kudo, ACL 2018): the best cut by dynamic programming over a trie of the pieces. */
#include <float.h>
#include <stdio.h>

#include "text/parts.h"
#include "text/spm.h"
#include "text/trie.h"
#include "text/utf8.h"

/* How far below the worst piece an unknown character lies. */
#define UNKNOWN_PENALTY 10.0

struct unigram {
    double *score;  // by id
    int32_t unk_id;  // -1: none
    bool byte_fallback;
    bool is_single;  // SentencePiece adds in single precision
    double unk_score;
    struct trie trie;
    int32_t fallback_id[256];
};

/* What SentencePiece makes of a score: user-defined pieces outdo all others; false: not found in text. */
static bool piece_score(const struct unigram *u, const struct tokenizer *t, int32_t id, uint8_t type, float best, double *score) {
    *score = u->score[id];
    if (type == PIECE_USER) *score = (double)((float)t->vocab.token[id].n * best) - 0.1;
    return type == PIECE_NORMAL || type == PIECE_USER;
}

/* The trie of all pieces that are found in text. */
static enum cb_status trie_fill(struct tokenizer *t, struct unigram *u, const uint8_t *type, struct cb_err *err) {
    size_t bytes = 1;
    float best = FLT_MIN;
    for (int32_t id = 0; id < t->vocab.size; id++) {
        bytes += t->vocab.token[id].n;
        if (type && type[id] == PIECE_NORMAL && u->score[id] > best) best = (float)u->score[id];
    }
    if (bytes > INT32_MAX || !(u->trie.node = arena_array(t->arena, bytes, sizeof *u->trie.node)))
        FAIL(err, CB_E_MEMORY, "model: no memory for %d pieces", (int)t->vocab.size);
    for (int32_t id = 0; id < t->vocab.size; id++)
        if (!type || piece_score(u, t, id, type[id], best, &u->score[id]))
            trie_add(&u->trie, t->vocab.token[id].text, t->vocab.token[id].n, id);
    return CB_OK;
}

enum cb_status unigram_set(struct tokenizer *t, const struct unigram_options *options, struct cb_err *err) {
    struct unigram *u = t->model_data = arena_alloc(t->arena, sizeof *u);
    size_t n = (size_t)t->vocab.size;
    if (!u || !(u->score = arena_array(t->arena, n, sizeof *u->score))) FAIL(err, CB_E_MEMORY, "model: no memory for %zu pieces", n);
    t->model = &unigram_model;
    u->unk_id = options->unk_id, u->byte_fallback = options->byte_fallback, u->is_single = options->type;
    u->unk_score = options->type ? FLT_MAX : DBL_MAX;
    for (size_t i = 0; i < n; i++) {
        u->score[i] = options->score[i];
        if ((!options->type || options->type[i] == PIECE_NORMAL) && u->score[i] < u->unk_score) u->unk_score = u->score[i];
    }
    u->unk_score -= UNKNOWN_PENALTY;
    if (u->is_single) u->unk_score = (float)u->unk_score;
    TRY(trie_fill(t, u, options->type, err));
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        u->fallback_id[b] = vocab_find(&t->vocab, text, 6);
    }
    return CB_OK;
}

static enum cb_status piece_read(struct json_scan *out, const json_t *json, struct cb_err *err) {
    char shown[JSON_TEXT];
    const json_t *text = json_array_get(json, 0), *number = json_array_get(json, 1);
    if (!json_is_array(json) || json_array_size(json) != 2 || !json_is_string(text) || !json_is_number(number))
        FAIL(err, CB_E_FORMAT, "model: vocab: piece %zu is %s; [text, score] is wanted", out->n_tokens,
             json_text(json_is_array(json) && json_is_string(text) && json_array_size(json) == 2 ? number : json, shown));
    struct scanned_token token = {json_string_value(text), (uint32_t)json_string_length(text), 0, json_number_value(number)};
    TRY(buffer_grow((void **)&out->token, &out->token_capacity, out->n_tokens + 1, sizeof token, err));
    out->token[out->n_tokens++] = token;
    return CB_OK;
}

static enum cb_status pieces_set(struct tokenizer *t, const struct json_scan *in, const json_t *json, struct cb_err *err) {
    size_t n = in->n_tokens;
    struct unigram_options options = {.unk_id = -1};
    int64_t unk_id = -1;
    if (n > 1 << 24) FAIL(err, CB_E_LIMIT, "model: vocab: %zu pieces; at most 2^24 are taken", n);
    if (!n) FAIL(err, CB_E_FORMAT, "model: vocab: found no pieces");
    TRY(vocab_init(&t->vocab, t->arena, (int32_t)n, (int32_t)n, err));
    TRY(json_get_int(&unk_id, json, "model", "unk_id", 0, (int64_t)n - 1, false, err));
    TRY(json_get_bool(&options.byte_fallback, json, "model", "byte_fallback", false, err));
    double *score = calloc(n, sizeof *score);
    enum cb_status status = score ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "model: no memory for %zu pieces", n);
    for (size_t i = 0; i < n && !status; i++) {
        score[i] = in->token[i].score;
        status = vocab_add(&t->vocab, t->arena, (int32_t)i, in->token[i].text, in->token[i].n, "vocab", err);
    }
    options.score = score, options.unk_id = (int32_t)unk_id;
    if (!status) status = unigram_set(t, &options, err);
    free(score);
    return status;
}

static enum cb_status unigram_read(struct tokenizer *t, const json_t *json, struct cb_err *err) {
    const json_t *vocab = NULL;
    if (t->scan && !t->scan->is_pairs) FAIL(err, CB_E_FORMAT, "model: vocab: found an object; a list of [text, score] is wanted");
    if (t->scan) return pieces_set(t, t->scan, json, err);
    TRY(json_get_array(&vocab, json, "model", "vocab", true, err));
    struct json_scan own = {0};
    enum cb_status status = CB_OK;
    for (size_t i = 0; i < json_array_size(vocab) && !status; i++) status = piece_read(&own, json_array_get(vocab, i), err);
    if (!status) status = pieces_set(t, &own, json, err);
    json_scan_deinit(&own);
    return status;
}

static enum cb_status unigram_write(const struct tokenizer *t, json_t *json, struct cb_err *err) {
    const struct unigram *u = t->model_data;
    json_t *vocab = json_array();
    int bad = json_object_set_new(json, "unk_id", u->unk_id < 0 ? json_null() : json_integer(u->unk_id));
    bad |= json_object_set_new(json, "vocab", vocab);
    bad |= json_object_set_new(json, "byte_fallback", json_boolean(u->byte_fallback));
    for (int32_t i = 0; i < tokenizer_n_shown(t) && !bad; i++)
        bad |= json_array_append_new(vocab, json_pack("[s%f]", t->vocab.token[i].text, (size_t)t->vocab.token[i].n, u->score[i]));
    if (bad) FAIL(err, CB_E_MEMORY, "model: no memory to write it");
    return CB_OK;
}

/* The best path to a byte. */
struct best {
    double score;
    int64_t from;  // -1: not reached
    int32_t id;
};

static void improve(const struct unigram *u, struct best *node, double score, size_t from, int32_t id) {
    if (u->is_single) score = (float)score;
    if (node->from < 0 || score > node->score) *node = (struct best){score, (int64_t)from, id};
}

/* Fills best[0..n] from left to right. */
static void forward(const struct unigram *u, struct best *best, const struct piece *piece) {
    for (size_t i = 0; i <= piece->n; i++) best[i] = (struct best){0, -1, -1};
    for (size_t at = 0, length; at < piece->n; at += length) {
        length = (size_t)utf8_length(piece->text[at]);
        bool single = false;
        double here = best[at].score;
        int32_t node = 0;
        for (size_t to = at; to < piece->n && (node = trie_child(&u->trie, node, (unsigned char)piece->text[to])); to++) {
            int32_t id = u->trie.node[node].id;
            if (id < 0) continue;
            improve(u, &best[to + 1], here + u->score[id], at, id);
            single = single || to + 1 - at == length;
        }
        if (single) continue;
        improve(u, &best[at + length], here + u->unk_score, at, u->unk_id);
    }
}

/* Appends the token of bytes [from, to): a piece, else its bytes, else the unknown one. */
static enum cb_status put(const struct tokenizer *t, struct encoder *e, const struct piece *piece, size_t from, size_t to, int32_t found,
                          struct cb_err *err) {
    const struct unigram *u = t->model_data;
    int32_t id = vocab_find(&t->vocab, piece->text + from, to - from);
    // SentencePiece's unknown text may still be a token of the vocabulary beside it
    if (u->is_single && (found != u->unk_id || !t->n_shown || id >= t->n_shown)) id = found == u->unk_id ? -1 : found;
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = from; bytes && i < to; i++) bytes = u->fallback_id[(unsigned char)piece->text[i]] >= 0;
    if (id < 0 && !bytes && u->unk_id < 0)
        FAIL(err, CB_E_NAME, "model: \"%.*s\" has no piece, and there is no unk_id", (int)(to - from < 60 ? to - from : 60),
             piece->text + from);
    if (!bytes && id < 0) return encoder_token_own(e, u->unk_id, piece, from, to, err);
    if (!bytes) return encoder_token(e, tokenizer_shown(t, id), piece, from, to, err);
    for (size_t i = from; i < to; i++) TRY(encoder_token(e, u->fallback_id[(unsigned char)piece->text[i]], piece, from, to, err));
    return CB_OK;
}

static enum cb_status unigram_encode(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err) {
    const struct unigram *u = t->model_data;
    TRY(buffer_grow(&e->work[0], &e->work_capacity[0], piece->n + 1, sizeof(struct best), err));
    struct best *best = e->work[0];
    forward(u, best, piece);
    // turn the chain round: from then says where the next piece ends
    int64_t to = (int64_t)piece->n, next = -1;
    while (to > 0) {
        int64_t from = best[to].from;
        best[to].from = next;
        next = to, to = from;
    }
    for (size_t from = 0; next > 0;) {
        // unknown ones in a row are one
        int64_t end = next;
        while (best[end].id == u->unk_id && best[end].from > 0 && best[best[end].from].id == u->unk_id) end = best[end].from;
        TRY(put(t, e, piece, from, (size_t)end, best[end].id, err));
        from = (size_t)end, next = best[end].from;
    }
    return CB_OK;
}

const struct model_kind unigram_model = {"Unigram", unigram_read, unigram_write, unigram_encode};
