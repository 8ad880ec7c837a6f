/* The merges of byte pair encoding: read, written, looked up. */
#include <stdio.h>

#include "text/bpe.h"
#include "text/utf8.h"

/* ---- the table of merges */

static uint64_t pair_slot(const struct bpe *bpe, uint64_t pair) {
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    return (h ^ h >> 32) & bpe->mask;
}

const struct merge *bpe_merge_find(const struct bpe *bpe, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint64_t at = pair_slot(bpe, pair);; at = (at + 1) & bpe->mask) {
        const struct merge *m = &bpe->merge[at];
        if (m->id < 0) return NULL;
        if (m->pair == pair) return m;
    }
}

/* The id of left and right joined (the right one without its prefix), or -1. */
static enum cb_status joined_id(const struct tokenizer *t, const struct bpe *bpe, int32_t left, int32_t right, struct buffer *text,
                                int32_t *id, struct cb_err *err) {
    const struct vocab_token *a = vocab_at(&t->vocab, left), *b = vocab_at(&t->vocab, right);
    size_t skip = bpe->prefix.n && b->n >= bpe->prefix.n && !memcmp(b->text, bpe->prefix.text, bpe->prefix.n) ? bpe->prefix.n : 0;
    text->n = 0;
    TRY(buffer_append(text, a->text, a->n, err));
    TRY(buffer_append(text, b->text + skip, b->n - skip, err));
    *id = vocab_find(&t->vocab, text->data, text->n);
    return CB_OK;
}

static enum cb_status merges_reserve(struct tokenizer *t, struct bpe *bpe, int32_t n, struct cb_err *err) {
    uint64_t slots = 16;
    while (slots < (uint64_t)n * 2) slots *= 2;
    bpe->merge = arena_array(t->arena, slots, sizeof *bpe->merge);
    if (!bpe->merge) FAIL(err, CB_E_MEMORY, "model: no memory for %d merges", (int)n);
    bpe->mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++) bpe->merge[i].id = -1;
    return CB_OK;
}

static void merge_put(struct bpe *bpe, const int32_t pair[2], int32_t rank, int32_t id) {
    uint64_t key = (uint64_t)(uint32_t)pair[0] << 32 | (uint32_t)pair[1], at = pair_slot(bpe, key);
    while (bpe->merge[at].id >= 0 && bpe->merge[at].pair != key) at = (at + 1) & bpe->mask;
    bpe->merge[at] = (struct merge){key, rank, id};
}

static enum cb_status merges_index(struct tokenizer *t, struct bpe *bpe, struct cb_err *err) {
    TRY(merges_reserve(t, bpe, bpe->n_pairs, err));
    struct buffer text = {0};
    enum cb_status status = CB_OK;
    for (int32_t rank = 0; rank < bpe->n_pairs && !status; rank++) {
        int32_t id = -1, left = bpe->pair[rank][0], right = bpe->pair[rank][1];
        status = joined_id(t, bpe, left, right, &text, &id, err);
        if (!status && id < 0)
            status =
                err_set(err, CB_E_FORMAT, __FILE__, __LINE__,
                        "model: merge %d of \"%.60s\" and \"%.60s\" makes \"%.*s\"; a token of the vocabulary is wanted", (int)rank,
                        vocab_at(&t->vocab, left)->text, vocab_at(&t->vocab, right)->text, (int)(text.n < 80 ? text.n : 80), text.data);
        if (!status) merge_put(bpe, bpe->pair[rank], rank, id);
    }
    free(text.data);
    return status;
}

/* Looks up the ids of single bytes and characters. */
static void bytes_index(struct tokenizer *t, struct bpe *bpe) {
    bool all = true;
    for (int b = 0; b < 256; b++) {
        char text[8];
        int n = utf8_encode(text, byte_to_char((unsigned char)b));
        bpe->byte_id[b] = vocab_find(&t->vocab, text, (size_t)n);
        all = all && bpe->byte_id[b] >= 0;
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        bpe->fallback_id[b] = vocab_find(&t->vocab, text, 6);
        char c = (char)b;
        if (b < 128) bpe->char_id[b] = vocab_find(&t->vocab, &c, 1);
    }
    t->raw_bytes = all && !bpe->prefix.n && !bpe->suffix.n;  // tokenizer_finish asks the stages too
}

#define SIGN "\xe2\x96\x81"

void bpe_find_cuts(const struct tokenizer *t, struct bpe *bpe) {
    memset(bpe->joined, 0, sizeof bpe->joined);
    bpe->cuts = !bpe->ignore_merges && !bpe->prefix.n && !bpe->suffix.n && !bpe->n_unused && vocab_find(&t->vocab, SIGN, 3) >= 0;
    for (int32_t id = 0; bpe->cuts && id < t->vocab.size; id++) {
        const char *text = t->vocab.token[id].text, *hit = text;
        size_t n = t->vocab.token[id].n;
        for (; text && (hit = memmem(hit, n - (size_t)(hit - text), SIGN, 3)); hit += 3) {
            size_t from = (size_t)(hit - text);
            uint32_t cp = 0;
            if (!from) continue;
            while (--from && utf8_is_tail(text[from])) continue;
            utf8_decode(text + from, n - from, &cp);
            bpe->joined[(cp & 1023) / 64] |= (uint64_t)1 << cp % 64;
        }
    }
}

/* ---- merges by their results */

/* Bytes of a token that is made by merging: every way to cut it is looked at. */
#define TOKEN_LIMIT 4096

struct ways {
    struct tokenizer *t;
    struct bpe *bpe;
    const int32_t *rank;
    int32_t (*pair)[2];
    int32_t *id;
    size_t n, pair_capacity, id_capacity;
};

static int by_rank(const void *a, const void *b) {
    const int32_t *x = a, *y = b;
    return x[0] != y[0] ? (x[0] < y[0] ? -1 : 1) : x[1] < y[1] ? -1 : x[1] > y[1];
}

/* The id of a half: a token that has a rank, or a hidden character. */
static int32_t half_id(const struct ways *w, const char *text, size_t n) {
    int32_t id = vocab_find(&w->t->vocab, text, n);
    if (id >= 0) return w->rank[id] >= 0 ? id : -1;
    id = vocab_find(&w->bpe->hidden, text, n);
    return id < 0 ? -1 : w->t->vocab.size + id;
}

/* Every way to make the token of two halves, in order of their ids. */
static enum cb_status ways_add(struct ways *w, int32_t id, struct cb_err *err) {
    const struct vocab_token *token = vocab_at(&w->t->vocab, id);
    size_t first = w->n;
    if (token->n > TOKEN_LIMIT) FAIL(err, CB_E_LIMIT, "model: token %d has %u bytes; at most %d are taken", (int)id, token->n, TOKEN_LIMIT);
    for (size_t cut = 1; cut < token->n; cut++) {
        if (utf8_is_tail(token->text[cut])) continue;
        int32_t left = half_id(w, token->text, cut), right = left < 0 ? -1 : half_id(w, token->text + cut, token->n - cut);
        if (right < 0) continue;
        if (w->n >= INT32_MAX / 4) FAIL(err, CB_E_LIMIT, "model: more merges than fit");
        TRY(buffer_grow((void **)&w->pair, &w->pair_capacity, w->n + 1, sizeof *w->pair, err));
        TRY(buffer_grow((void **)&w->id, &w->id_capacity, w->n + 1, sizeof *w->id, err));
        w->pair[w->n][0] = left, w->pair[w->n][1] = right, w->id[w->n++] = id;
    }
    if (w->n > first) qsort(w->pair + first, w->n - first, sizeof *w->pair, by_rank);
    return CB_OK;
}

/* Characters of mergeable tokens that are no tokens. */
static enum cb_status hidden_find(struct tokenizer *t, struct bpe *bpe, const int32_t *rank, struct cb_err *err) {
    int32_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass && !n) return CB_OK;
        if (pass) TRY(vocab_init(&bpe->hidden, t->arena, n, n, err));
        n = 0;
        for (int32_t id = 0; id < t->vocab.size; id++) {
            const struct vocab_token *token = &t->vocab.token[id];
            for (size_t at = 0, length; rank[id] >= 0 && at < token->n; at += length) {
                length = (size_t)utf8_length(token->text[at]);
                if (vocab_find(&t->vocab, token->text + at, length) >= 0) continue;
                if (pass && vocab_find(&bpe->hidden, token->text + at, length) < 0)
                    TRY(vocab_add(&bpe->hidden, t->arena, bpe->hidden.n, token->text + at, length, "model", err));
                if (n == INT32_MAX / 4) FAIL(err, CB_E_LIMIT, "model: more characters than fit");
                n++;
            }
        }
    }
    return CB_OK;
}

/* order: {rank, id} of every mergeable token, ascending. */
static enum cb_status results_index(struct ways *w, int32_t (*order)[2], int32_t n, struct cb_err *err) {
    struct tokenizer *t = w->t;
    for (int32_t i = 0; i < n; i++) TRY(ways_add(w, order[i][1], err));
    w->bpe->n_pairs = (int32_t)w->n;
    w->bpe->pair = arena_array(t->arena, w->n + 1, sizeof *w->bpe->pair);
    if (!w->bpe->pair) FAIL(err, CB_E_MEMORY, "model: no memory for %zu merges", w->n);
    TRY(merges_reserve(t, w->bpe, w->bpe->n_pairs, err));
    for (size_t i = 0; i < w->n; i++) {
        memcpy(w->bpe->pair[i], w->pair[i], sizeof *w->pair);
        merge_put(w->bpe, w->pair[i], w->rank[w->id[i]], w->id[i]);
    }
    return CB_OK;
}

enum cb_status bpe_set_results(struct tokenizer *t, const int32_t *rank, bool is_hidden, struct bpe **out, struct cb_err *err) {
    struct bpe *bpe = *out = arena_alloc(t->arena, sizeof *bpe);
    int32_t(*order)[2] = malloc(((size_t)t->vocab.size + 1) * sizeof *order), n = 0;
    struct ways w = {.t = t, .bpe = bpe, .rank = rank};
    enum cb_status status = bpe && order ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "model: no memory");
    for (int32_t id = 0; id < t->vocab.size && !status; id++)
        if (rank[id] >= 0 && vocab_at(&t->vocab, id)) order[n][0] = rank[id], order[n++][1] = id;
    if (!status && is_hidden) status = hidden_find(t, bpe, rank, err);
    if (!status) {
        qsort(order, (size_t)n, sizeof *order, by_rank);
        bpe->unk_id = -1;
        t->model = &bpe_model, t->model_data = bpe;
        status = results_index(&w, order, n, err);
    }
    if (!status) bytes_index(t, bpe);
    free(order), free(w.pair), free(w.id);
    return status;
}

enum cb_status bpe_set(struct tokenizer *t, const int32_t (*pair)[2], int32_t n, struct cb_err *err) {
    struct bpe *bpe = arena_alloc(t->arena, sizeof *bpe);
    if (bpe) bpe->pair = arena_array(t->arena, (size_t)n + 1, sizeof *bpe->pair);
    if (!bpe || !bpe->pair) FAIL(err, CB_E_MEMORY, "model: no memory for %d merges", (int)n);
    if (n) memcpy(bpe->pair, pair, (size_t)n * sizeof *pair);
    bpe->n_pairs = n, bpe->unk_id = -1;
    t->model = &bpe_model, t->model_data = bpe;
    TRY(merges_index(t, bpe, err));
    bytes_index(t, bpe);
    return CB_OK;
}

void bpe_set_unknown(struct tokenizer *t, const char *unk) {
    struct bpe *bpe = t->model_data;
    int32_t id = vocab_find(&t->vocab, unk, strlen(unk));
    const struct vocab_token *token = vocab_at(&t->vocab, id);
    if (token) bpe->unk = (struct part_text){token->text, token->n}, bpe->unk_id = id;
}

void bpe_set_fallback(struct tokenizer *t, const char *unk) {
    struct bpe *bpe = t->model_data;
    bpe_set_unknown(t, unk);
    bpe->byte_fallback = bpe->fuse_unk = true;
    t->raw_bytes = false;
    bpe_find_cuts(t, bpe);
}

/* ---- reading and writing */

static enum cb_status merge_side(const struct tokenizer *t, int32_t *id, const char *text, size_t n, size_t rank, struct cb_err *err) {
    *id = vocab_find(&t->vocab, text, n);
    if (*id < 0)
        FAIL(err, CB_E_FORMAT, "model: merge %zu has \"%.*s\"; a token of the vocabulary is wanted", rank, (int)(n < 80 ? n : 80), text);
    return CB_OK;
}

enum cb_status merge_parse(const struct tokenizer *t, int32_t pair[2], const char *text, size_t n, size_t rank, struct cb_err *err) {
    const char *gap = memchr(text, ' ', n);
    size_t left = gap ? (size_t)(gap - text) : 0;
    if (!gap || memchr(gap + 1, ' ', n - left - 1))
        FAIL(err, CB_E_FORMAT, "model: merge %zu is \"%.*s\"; two tokens with one space are wanted", rank, (int)(n < 80 ? n : 80), text);
    TRY(merge_side(t, &pair[0], text, left, rank, err));
    return merge_side(t, &pair[1], gap + 1, n - left - 1, rank, err);
}

/* A merge is ["a","b"] or "a b". */
static enum cb_status merge_read(const struct tokenizer *t, int32_t pair[2], const json_t *json, size_t rank, struct cb_err *err) {
    char shown[JSON_TEXT];
    if (json_is_string(json)) return merge_parse(t, pair, json_string_value(json), json_string_length(json), rank, err);
    const json_t *a = json_array_get(json, 0), *b = json_array_get(json, 1);
    if (!json_is_array(json) || json_array_size(json) != 2 || !json_is_string(a) || !json_is_string(b))
        FAIL(err, CB_E_FORMAT, "model: merge %zu is %s; a list of two tokens is wanted", rank, json_text(json, shown));
    TRY(merge_side(t, &pair[0], json_string_value(a), json_string_length(a), rank, err));
    return merge_side(t, &pair[1], json_string_value(b), json_string_length(b), rank, err);
}

static enum cb_status text_read(struct tokenizer *t, struct part_text *out, const json_t *json, const char *key, struct cb_err *err) {
    const char *text = NULL;
    TRY(json_get_str(&text, json, "model", key, false, err));
    if (!text) return CB_OK;
    out->n = strlen(text);
    out->text = arena_strndup(t->arena, text, out->n);
    if (!out->text) FAIL(err, CB_E_MEMORY, "model: no memory");
    return CB_OK;
}

static enum cb_status bpe_read(struct tokenizer *t, const json_t *json, struct cb_err *err) {
    TRY(vocab_read(t, json_object_get(json, "vocab"), err));
    const json_t *merges = NULL;
    TRY(json_get_array(&merges, json, "model", "merges", true, err));
    struct bpe options = {.unk_id = -1};
    TRY(text_read(t, &options.unk, json, "unk_token", err));
    TRY(text_read(t, &options.prefix, json, "continuing_subword_prefix", err));
    TRY(text_read(t, &options.suffix, json, "end_of_word_suffix", err));
    if (options.prefix.n > MARK_LIMIT || options.suffix.n > MARK_LIMIT)
        FAIL(err, CB_E_LIMIT, "model: continuing_subword_prefix or end_of_word_suffix of over %d bytes", MARK_LIMIT);
    TRY(json_get_bool(&options.fuse_unk, json, "model", "fuse_unk", false, err));
    TRY(json_get_bool(&options.byte_fallback, json, "model", "byte_fallback", false, err));
    TRY(json_get_bool(&options.ignore_merges, json, "model", "ignore_merges", false, err));
    options.has_dropout = json_is_number(json_object_get(json, "dropout"));
    TRY(json_get_float(&options.dropout, json, "model", "dropout", 0, 1, false, err));
    if (options.unk.text && (options.unk_id = vocab_find(&t->vocab, options.unk.text, options.unk.n)) < 0)
        FAIL(err, CB_E_FORMAT, "model: unk_token \"%.80s\" is not in the vocabulary", options.unk.text);
    const struct json_scan *scan = t->scan && t->scan->has_merges ? t->scan : NULL;
    size_t n = scan ? scan->n_merges : json_array_size(merges);
    if (n > INT32_MAX / 4) FAIL(err, CB_E_LIMIT, "model: %zu merges are more than fit", n);
    struct bpe *bpe = arena_alloc(t->arena, sizeof *bpe);
    if (!bpe || !(options.pair = arena_array(t->arena, n + 1, sizeof *options.pair)))
        FAIL(err, CB_E_MEMORY, "model: no memory for %zu merges", n);
    *bpe = options;
    t->model_data = bpe;
    for (size_t i = 0; i < n && !scan; i++) TRY(merge_read(t, bpe->pair[i], json_array_get(merges, i), i, err));
    for (size_t i = 0; i < n && scan; i++) {
        TRY(merge_side(t, &bpe->pair[i][0], scan->merge[i].left, scan->merge[i].n_left, i, err));
        TRY(merge_side(t, &bpe->pair[i][1], scan->merge[i].right, scan->merge[i].n_right, i, err));
    }
    bpe->n_pairs = (int32_t)n;
    TRY(merges_index(t, bpe, err));
    bytes_index(t, bpe);
    bpe_find_cuts(t, bpe);
    return CB_OK;
}

static int set_text(json_t *json, const char *key, struct part_text text) {
    return json_object_set_new(json, key, text.text ? json_stringn(text.text, text.n) : json_null());
}

static enum cb_status bpe_write(const struct tokenizer *t, json_t *json, struct cb_err *err) {
    const struct bpe *bpe = t->model_data;
    int bad = json_object_set_new(json, "dropout", bpe->has_dropout ? json_real(bpe->dropout) : json_null());
    bad |= set_text(json, "unk_token", bpe->unk);
    bad |= set_text(json, "continuing_subword_prefix", bpe->prefix);
    bad |= set_text(json, "end_of_word_suffix", bpe->suffix);
    bad |= json_object_set_new(json, "fuse_unk", json_boolean(bpe->fuse_unk));
    bad |= json_object_set_new(json, "byte_fallback", json_boolean(bpe->byte_fallback));
    bad |= json_object_set_new(json, "ignore_merges", json_boolean(bpe->ignore_merges));
    TRY(vocab_write(t, json, err));
    json_t *merges = json_array();
    bad |= json_object_set_new(json, "merges", merges);
    for (int32_t i = 0; i < bpe->n_pairs && !bad; i++) {
        const struct vocab_token *a = vocab_at(&t->vocab, bpe->pair[i][0]), *b = vocab_at(&t->vocab, bpe->pair[i][1]);
        if (a && b) bad |= json_array_append_new(merges, json_pack("[s%,s%]", a->text, (size_t)a->n, b->text, (size_t)b->n));
    }
    if (bad) FAIL(err, CB_E_MEMORY, "model: no memory to write it");
    return CB_OK;
}

const struct model_kind bpe_model = {"BPE", bpe_read, bpe_write, bpe_encode};
