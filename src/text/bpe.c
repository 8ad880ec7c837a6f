/* Byte pair encoding (Sennrich et al., ACL 2016), over characters or GPT-2's bytes, with byte fallback. */
#include <stdio.h>

#include "text/cache.h"
#include "text/parts.h"
#include "text/utf8.h"

/* Words of more symbols go through a heap. */
#define LINEAR_SYMBOLS 64
/* Bytes of a prefix or suffix. */
#define MARK_LIMIT 256

struct merge {
    uint64_t pair;  // left id << 32 | right id
    int32_t rank, id;  // id < 0: empty slot
};
struct bpe {
    struct part_text unk, prefix, suffix;  // NULL where there is none
    bool fuse_unk, byte_fallback, ignore_merges, has_dropout;
    double dropout;
    int32_t unk_id;
    int32_t (*pair)[2];  // by rank
    int32_t n_pairs;
    struct merge *merge;
    uint64_t mask;
    int32_t byte_id[256];  // of the byte-level character, -1 absent
    int32_t fallback_id[256];  // of <0xXX>, -1 absent
    int32_t char_id[128];  // of ASCII characters
};

/* ---- the table of merges */

static uint64_t pair_slot(const struct bpe *bpe, uint64_t pair) {
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    return (h ^ h >> 32) & bpe->mask;
}

static const struct merge *merge_find(const struct bpe *bpe, int32_t left, int32_t right) {
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

static enum cb_status merges_index(struct tokenizer *t, struct bpe *bpe, struct cb_err *err) {
    uint64_t slots = 16;
    while (slots < (uint64_t)bpe->n_pairs * 2) slots *= 2;
    bpe->merge = arena_array(t->arena, slots, sizeof *bpe->merge);
    if (!bpe->merge) FAIL(err, CB_E_MEMORY, "model: no memory for %d merges", (int)bpe->n_pairs);
    bpe->mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++) bpe->merge[i].id = -1;
    struct buffer text = {0};
    enum cb_status status = CB_OK;
    for (int32_t rank = 0; rank < bpe->n_pairs && !status; rank++) {
        int32_t id = -1, left = bpe->pair[rank][0], right = bpe->pair[rank][1];
        status = joined_id(t, bpe, left, right, &text, &id, err);
        if (status) break;
        if (id < 0) {
            status =
                err_set(err, CB_E_FORMAT, __FILE__, __LINE__,
                        "model: merge %d of \"%.60s\" and \"%.60s\" makes \"%.*s\"; a token of the vocabulary is wanted", (int)rank,
                        vocab_at(&t->vocab, left)->text, vocab_at(&t->vocab, right)->text, (int)(text.n < 80 ? text.n : 80), text.data);
            break;
        }
        uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, at = pair_slot(bpe, pair);
        while (bpe->merge[at].id >= 0 && bpe->merge[at].pair != pair) at = (at + 1) & bpe->mask;
        bpe->merge[at] = (struct merge){pair, rank, id};
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

/* ---- reading and writing */

static enum cb_status merge_side(const struct tokenizer *t, int32_t *id, const char *text, size_t n, size_t rank, struct cb_err *err) {
    *id = vocab_find(&t->vocab, text, n);
    if (*id < 0)
        FAIL(err, CB_E_FORMAT, "model: merge %zu has \"%.*s\"; a token of the vocabulary is wanted", rank, (int)(n < 80 ? n : 80), text);
    return CB_OK;
}

/* A merge is ["a","b"] or "a b". */
static enum cb_status merge_read(const struct tokenizer *t, int32_t pair[2], const json_t *json, size_t rank, struct cb_err *err) {
    char shown[JSON_TEXT];
    if (json_is_string(json)) {
        const char *text = json_string_value(json), *gap = memchr(text, ' ', json_string_length(json));
        size_t n = json_string_length(json), left = gap ? (size_t)(gap - text) : 0;
        if (!gap || memchr(gap + 1, ' ', n - left - 1))
            FAIL(err, CB_E_FORMAT, "model: merge %zu is %s; two tokens with one space are wanted", rank, json_text(json, shown));
        TRY(merge_side(t, &pair[0], text, left, rank, err));
        return merge_side(t, &pair[1], gap + 1, n - left - 1, rank, err);
    }
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
    size_t n = json_array_size(merges);
    if (n > INT32_MAX / 4) FAIL(err, CB_E_LIMIT, "model: %zu merges are more than fit", n);
    struct bpe *bpe = arena_alloc(t->arena, sizeof *bpe);
    if (!bpe || !(options.pair = arena_array(t->arena, n + 1, sizeof *options.pair)))
        FAIL(err, CB_E_MEMORY, "model: no memory for %zu merges", n);
    *bpe = options;
    for (size_t i = 0; i < n; i++) TRY(merge_read(t, bpe->pair[i], json_array_get(merges, i), i, err));
    bpe->n_pairs = (int32_t)n;
    t->model_data = bpe;
    TRY(merges_index(t, bpe, err));
    bytes_index(t, bpe);
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
        bad |= json_array_append_new(merges, json_pack("[s%,s%]", a->text, (size_t)a->n, b->text, (size_t)b->n));
    }
    if (bad) FAIL(err, CB_E_MEMORY, "model: no memory to write it");
    return CB_OK;
}

/* ---- encoding */

struct symbol {
    int32_t id;
    uint32_t n;  // bytes of the word
    int32_t previous, next;  // -1 at the ends; next < 0 also once merged away
};
struct candidate {
    int32_t rank, at, id;  // merging the symbol at with its next gives id
    int32_t left, right;  // what they were; otherwise it is stale
};

/* Short words: the best pair is looked for anew after every merge. */
static int32_t merge_linear(const struct bpe *bpe, struct word_token *s, int32_t n) {
    const struct merge *best[LINEAR_SYMBOLS];
    for (int32_t i = 0; i + 1 < n; i++) best[i] = merge_find(bpe, s[i].id, s[i + 1].id);
    for (;;) {
        int32_t at = -1, rank = INT32_MAX;
        for (int32_t i = 0; i + 1 < n; i++)
            if (best[i] && best[i]->rank < rank) rank = best[i]->rank, at = i;
        if (at < 0) return n;
        s[at] = (struct word_token){best[at]->id, s[at].n + s[at + 1].n};
        n--;
        memmove(s + at + 1, s + at + 2, (size_t)(n - at - 1) * sizeof *s);
        if (at + 1 < n) {
            memmove(best + at + 1, best + at + 2, (size_t)(n - at - 2 > 0 ? n - at - 2 : 0) * sizeof *best);
            best[at] = merge_find(bpe, s[at].id, s[at + 1].id);
        }
        if (at) best[at - 1] = merge_find(bpe, s[at - 1].id, s[at].id);
    }
}

static bool before(const struct candidate *a, const struct candidate *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void heap_pop(struct candidate *heap, size_t n) {
    struct candidate last = heap[n];
    size_t at = 0;
    for (size_t child; (child = at * 2 + 1) < n; at = child) {
        if (child + 1 < n && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[at] = heap[child];
    }
    heap[at] = last;
}

static enum cb_status heap_push(struct encoder *e, size_t *n, const struct bpe *bpe, const struct symbol *s, int32_t at,
                                struct cb_err *err) {
    if (at < 0 || s[at].next < 0) return CB_OK;
    const struct merge *m = merge_find(bpe, s[at].id, s[s[at].next].id);
    if (!m) return CB_OK;
    TRY(buffer_grow(&e->work[2], &e->work_capacity[2], *n + 1, sizeof(struct candidate), err));
    struct candidate *heap = e->work[2], new = {m->rank, at, m->id, s[at].id, s[s[at].next].id};
    size_t i = (*n)++;
    for (; i && before(&new, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = new;
    return CB_OK;
}

/* Long words: a heap of candidate merges over a linked list. */
static enum cb_status merge_heap(struct encoder *e, const struct bpe *bpe, struct word_token *word, int32_t *n_word, struct cb_err *err) {
    int32_t n = *n_word, out = 0;
    TRY(buffer_grow(&e->work[1], &e->work_capacity[1], (size_t)n, sizeof(struct symbol), err));
    struct symbol *s = e->work[1];
    for (int32_t i = 0; i < n; i++) s[i] = (struct symbol){word[i].id, word[i].n, i - 1, i + 1 < n ? i + 1 : -1};
    size_t n_heap = 0;
    for (int32_t i = 0; i + 1 < n; i++) TRY(heap_push(e, &n_heap, bpe, s, i, err));
    while (n_heap) {
        struct candidate best = *(struct candidate *)e->work[2];
        heap_pop(e->work[2], --n_heap);
        int32_t next = s[best.at].next;
        if (next < 0 || s[best.at].id != best.left || s[next].id != best.right) continue;
        s[best.at].id = best.id, s[best.at].n += s[next].n, s[best.at].next = s[next].next;
        if (s[next].next >= 0) s[s[next].next].previous = best.at;
        s[next].id = s[next].next = -1;
        TRY(heap_push(e, &n_heap, bpe, s, s[best.at].previous, err));
        TRY(heap_push(e, &n_heap, bpe, s, best.at, err));
    }
    for (int32_t i = 0; i >= 0; i = s[i].next) word[out++] = (struct word_token){s[i].id, s[i].n};
    *n_word = out;
    return CB_OK;
}

/* The id of a character with the prefix or suffix that its place asks for. */
static int32_t char_id(const struct tokenizer *t, const struct bpe *bpe, const char *text, size_t n, bool first, bool last, char *marked,
                       size_t *n_marked) {
    size_t k = 0;
    if (!first && bpe->prefix.n) memcpy(marked, bpe->prefix.text, bpe->prefix.n), k = bpe->prefix.n;
    if (!k && !(last && bpe->suffix.n) && n == 1) {
        marked[0] = text[0], *n_marked = 1;
        return bpe->char_id[(unsigned char)text[0]];
    }
    memcpy(marked + k, text, n);
    k += n;
    if (last && bpe->suffix.n) memcpy(marked + k, bpe->suffix.text, bpe->suffix.n), k += bpe->suffix.n;
    *n_marked = k;
    return vocab_find(&t->vocab, marked, k);
}

/* The bytes of what has no id, where all have theirs; their count or 0. */
static int32_t fallback(const struct bpe *bpe, struct word_token *out, const char *text, size_t n) {
    if (!bpe->byte_fallback) return 0;
    for (size_t i = 0; i < n; i++)
        if (bpe->fallback_id[(unsigned char)text[i]] < 0) return 0;
    for (size_t i = 0; i < n; i++) out[i] = (struct word_token){bpe->fallback_id[(unsigned char)text[i]], 1};
    return (int32_t)n;
}

/* The word as single characters; one that has neither id nor bytes nor unknown token vanishes. */
static int32_t split_chars(const struct tokenizer *t, const struct bpe *bpe, struct word_token *out, const struct piece *piece) {
    char marked[MARK_LIMIT * 2 + 4];
    struct word_token unk = {-1, 0};
    int32_t n = 0;
    for (size_t at = 0, length; at < piece->n; at += length) {
        length = (size_t)utf8_length(piece->text[at]);
        size_t n_marked;
        int32_t id = char_id(t, bpe, piece->text + at, length, at == 0, at + length == piece->n, marked, &n_marked), n_bytes;
        if (id >= 0) {
            if (unk.id >= 0) out[n++] = unk;
            unk.id = -1;
            out[n++] = (struct word_token){id, (uint32_t)length};
        } else if ((n_bytes = fallback(bpe, out + n, marked, n_marked)))
            n += n_bytes;
        else if (bpe->unk_id >= 0) {
            if (unk.id >= 0 && bpe->fuse_unk)
                unk.n += (uint32_t)length;
            else {
                if (unk.id >= 0) out[n++] = unk;
                unk = (struct word_token){bpe->unk_id, (uint32_t)length};
            }
        }
    }
    if (unk.id >= 0) out[n++] = unk;
    return n;
}

/* The whole word's id, for ignore_merges; -1 where it is no token. */
static enum cb_status whole_id(const struct tokenizer *t, struct encoder *e, const struct piece *piece, int32_t *id, struct cb_err *err) {
    if (!t->raw_bytes) return *id = vocab_find(&t->vocab, piece->text, piece->n), CB_OK;
    TRY(buffer_grow(&e->work[1], &e->work_capacity[1], piece->n * 2 / sizeof(struct symbol) + 1, sizeof(struct symbol), err));
    char *mapped = e->work[1];
    size_t n = 0;
    for (size_t i = 0; i < piece->n; i++) n += (size_t)utf8_encode(mapped + n, byte_to_char((unsigned char)piece->text[i]));
    *id = vocab_find(&t->vocab, mapped, n);
    return CB_OK;
}

static enum cb_status encode_word(const struct tokenizer *t, struct encoder *e, const struct piece *piece, int32_t *n, struct cb_err *err) {
    const struct bpe *bpe = t->model_data;
    size_t room = piece->n * (bpe->byte_fallback ? bpe->prefix.n + 1 : 1) + bpe->suffix.n + 1;  // the bytes of marks may fall back too
    TRY(buffer_grow(&e->work[0], &e->work_capacity[0], room, sizeof(struct word_token), err));
    struct word_token *s = e->work[0];
    int32_t whole = -1;
    if (bpe->ignore_merges) TRY(whole_id(t, e, piece, &whole, err));
    if (whole >= 0) {
        s[0] = (struct word_token){whole, (uint32_t)piece->n}, *n = 1;
        return CB_OK;
    }
    if (t->raw_bytes) {
        for (size_t i = 0; i < piece->n; i++) s[i] = (struct word_token){bpe->byte_id[(unsigned char)piece->text[i]], 1};
        *n = (int32_t)piece->n;
    } else
        *n = split_chars(t, bpe, s, piece);
    if (!bpe->n_pairs) return CB_OK;
    if (*n <= LINEAR_SYMBOLS)
        *n = merge_linear(bpe, s, *n);
    else
        TRY(merge_heap(e, bpe, s, n, err));
    return CB_OK;
}

static enum cb_status bpe_encode(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err) {
    uint64_t hash = piece->n <= WORD_CACHE_LONGEST ? vocab_hash(piece->text, piece->n) : 0;
    size_t n;
    const struct word_token *s = word_cache_get(e->cache, hash, piece->text, piece->n, &n);
    if (!s) {
        int32_t count = 0;
        TRY(encode_word(t, e, piece, &count, err));
        n = (size_t)count, s = e->work[0];
        word_cache_put(&e->cache, hash, piece->text, piece->n, s, n);
    }
    for (size_t i = 0, at = 0; i < n; at += s[i++].n) TRY(encoder_token(e, s[i].id, piece, at, at + s[i].n, err));
    return CB_OK;
}

const struct model_kind bpe_model = {"BPE", bpe_read, bpe_write, bpe_encode};
