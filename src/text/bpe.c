/* Byte pair encoding (Sennrich et al., ACL 2016), over characters or GPT-2's bytes, with byte fallback. */
#include "text/bpe.h"
#include "text/cache.h"
#include "text/utf8.h"

/* Words of more symbols go through a heap. */
#define LINEAR_SYMBOLS 64

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
    for (int32_t i = 0; i + 1 < n; i++) best[i] = bpe_merge_find(bpe, s[i].id, s[i + 1].id);
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
            best[at] = bpe_merge_find(bpe, s[at].id, s[at + 1].id);
        }
        if (at) best[at - 1] = bpe_merge_find(bpe, s[at - 1].id, s[at].id);
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
    const struct merge *m = bpe_merge_find(bpe, s[at].id, s[s[at].next].id);
    if (!m) return CB_OK;
    if (bpe->n_unused && bpe->unused_at[m->id]) {
        // how it came about, for cutting it again
        int32_t *halves = (int32_t *)e->work[3] + 2 * (size_t)(bpe->unused_at[m->id] - 1);
        halves[0] = s[at].id, halves[1] = s[s[at].next].id;
    }
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
    if (!k && !(last && bpe->suffix.n) && n == 1 && !bpe->hidden.n) {
        marked[0] = text[0], *n_marked = 1;
        return bpe->char_id[(unsigned char)text[0]];
    }
    memcpy(marked + k, text, n);
    k += n;
    if (last && bpe->suffix.n) memcpy(marked + k, bpe->suffix.text, bpe->suffix.n), k += bpe->suffix.n;
    *n_marked = k;
    int32_t id = vocab_find(&t->vocab, marked, k), hidden = id < 0 ? vocab_find(&bpe->hidden, marked, k) : -1;
    return hidden < 0 ? id : t->vocab.size + hidden;
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
        size_t n_marked = length;
        const struct added_needle *whole = bpe->whole ? added_find(bpe->whole, piece->text, piece->n, at) : NULL;
        if (whole) length = whole->n;
        int32_t id = whole ? whole->added : char_id(t, bpe, piece->text + at, length, at == 0, at + length == piece->n, marked, &n_marked),
                n_bytes;
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

/* SentencePiece: unused tokens are cut again as they were made, hidden characters become bytes or the unknown token. */
struct finishing {
    const struct tokenizer *t;
    const struct bpe *bpe;
    const int32_t *halves;
    const char *text;
    struct word_token *out;
    int32_t n;
};

static void finish_symbol(struct finishing *f, int32_t id, uint32_t n) {
    const struct bpe *bpe = f->bpe;
    const int32_t *halves = bpe->n_unused && id < f->t->vocab.size && bpe->unused_at[id] ? f->halves + 2 * (bpe->unused_at[id] - 1) : NULL;
    if (halves && halves[0] >= 0) {
        const struct vocab_token *left = vocab_at(&f->t->vocab, halves[0]);
        if (!left) left = vocab_at(&bpe->hidden, halves[0] - f->t->vocab.size);
        finish_symbol(f, halves[0], left->n);
        finish_symbol(f, halves[1], n - left->n);
        return;
    }
    if (id >= f->t->vocab.size) {
        int32_t n_bytes = fallback(bpe, f->out + f->n, f->text, n);
        f->n += n_bytes, id = bpe->unk_id;
        if (n_bytes) n = 0, f->text += n_bytes;
    }
    if (!n || id < 0) return;
    f->text += n;
    if (id == bpe->unk_id && bpe->fuse_unk && f->n && f->out[f->n - 1].id == id)
        f->out[f->n - 1].n += n;
    else
        f->out[f->n++] = (struct word_token){id, n};
}

static enum cb_status finish_word(const struct tokenizer *t, struct encoder *e, const struct piece *piece, int32_t *n, struct cb_err *err) {
    const struct word_token *s = e->work[0];
    TRY(buffer_grow(&e->work[1], &e->work_capacity[1], piece->n + 1, sizeof(struct symbol), err));
    struct finishing f = {t, t->model_data, e->work[3], piece->text, e->work[1], 0};
    for (int32_t i = 0; i < *n; i++) finish_symbol(&f, s[i].id, s[i].n);
    memcpy(e->work[0], f.out, (size_t)f.n * sizeof *f.out);
    *n = f.n;
    return CB_OK;
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
    if (!*n) return CB_OK;  // characters that nothing stands for
    if (bpe->n_unused) {
        TRY(buffer_grow(&e->work[3], &e->work_capacity[3], (size_t)bpe->n_unused, 2 * sizeof(int32_t), err));
        memset(e->work[3], 0xff, (size_t)bpe->n_unused * 2 * sizeof(int32_t));
    }
    if (!bpe->n_pairs) return bpe->hidden.n ? finish_word(t, e, piece, n, err) : CB_OK;
    if (*n <= LINEAR_SYMBOLS && !bpe->n_unused)
        *n = merge_linear(bpe, s, *n);
    else
        TRY(merge_heap(e, bpe, s, n, err));
    return bpe->hidden.n || bpe->n_unused ? finish_word(t, e, piece, n, err) : CB_OK;
}

static enum cb_status put_word(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err) {
    uint64_t hash = piece->n <= WORD_CACHE_LONGEST ? vocab_hash(piece->text, piece->n) : 0;
    size_t n;
    const struct word_token *s = word_cache_get(e->cache, hash, piece->text, piece->n, &n);
    if (!s) {
        int32_t count = 0;
        TRY(encode_word(t, e, piece, &count, err));
        n = (size_t)count, s = e->work[0];
        word_cache_put(&e->cache, hash, piece->text, piece->n, s, n);
    }
    for (size_t i = 0, at = 0; i < n; at += s[i++].n) TRY(encoder_token(e, tokenizer_shown(t, s[i].id), piece, at, at + s[i].n, err));
    return CB_OK;
}

/* Whether a token may go on from the character before byte at over the sign that stands there. */
static bool is_joined(const struct bpe *bpe, const char *text, size_t at) {
    size_t from = at - 1;
    uint32_t cp = 0;
    while (from && utf8_is_tail(text[from])) from--;
    utf8_decode(text + from, at - from, &cp);
    return bpe->joined[(cp & 1023) / 64] >> cp % 64 & 1;
}

enum cb_status bpe_encode(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err) {
    const struct bpe *bpe = t->model_data;
    if (!bpe->cuts || t->raw_bytes) return put_word(t, e, piece, err);
    size_t from = 0;
    for (size_t at = 1; at + 3 <= piece->n; at++) {
        const char *hit = memchr(piece->text + at, '\xe2', piece->n - 2 - at);
        if (!hit) break;
        at = (size_t)(hit - piece->text);
        if (hit[1] != '\x96' || hit[2] != '\x81' || is_joined(bpe, piece->text, at)) continue;
        struct piece word = piece_slice(piece, from, at);
        TRY(put_word(t, e, &word, err));
        from = at;
    }
    struct piece word = piece_slice(piece, from, piece->n);
    return put_word(t, e, &word, err);
}
