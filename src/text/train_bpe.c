/* Learning byte pair encoding: pair counts that are kept exact while words are merged, and a heap of pairs by count. */
#include "text/train.h"
#include "text/utf8.h"

struct pair {
    int32_t left, right;
    int64_t count;
    uint32_t *where;  // words that held it once
    size_t n_where, capacity;
    bool initial;  // of single characters: no length limit
};
struct ranked {
    int64_t count;
    int32_t left, right;
    uint32_t pair;
};
struct learner {
    const struct train_options *options;
    int32_t *symbol;  // of all words, one after the other
    size_t *begin;  // of each word
    uint32_t *length;  // in symbols
    const struct word_counts *words;
    struct pair *pair;
    size_t n_pairs, pair_capacity;
    uint32_t *slot;
    size_t n_slots;
    struct ranked *heap;
    size_t n_heap, heap_capacity;
    uint32_t *chars;  // of each id
    struct tokenizer *t;
    const char *prefix;  // of symbols within words; NULL: none
    struct buffer text;
};

static size_t pair_hash(int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 29);
}

static enum cb_status pairs_grow(struct learner *l, struct cb_err *err) {
    size_t n_slots = l->n_slots ? l->n_slots * 2 : 4096;
    uint32_t *slot = calloc(n_slots, sizeof *slot);
    if (!slot) FAIL(err, CB_E_MEMORY, "training: no memory for pairs");
    for (size_t i = 0; i < l->n_pairs; i++) {
        size_t at = pair_hash(l->pair[i].left, l->pair[i].right) & (n_slots - 1);
        while (slot[at]) at = (at + 1) & (n_slots - 1);
        slot[at] = (uint32_t)i + 1;
    }
    free(l->slot);
    l->slot = slot, l->n_slots = n_slots;
    return CB_OK;
}

/* The pair's index, made if it is new. */
static enum cb_status pair_get(struct learner *l, int32_t left, int32_t right, uint32_t *index, struct cb_err *err) {
    if (l->n_pairs * 2 >= l->n_slots) TRY(pairs_grow(l, err));
    size_t at = pair_hash(left, right) & (l->n_slots - 1);
    for (; l->slot[at]; at = (at + 1) & (l->n_slots - 1)) {
        const struct pair *p = &l->pair[l->slot[at] - 1];
        if (p->left == left && p->right == right) return *index = l->slot[at] - 1, CB_OK;
    }
    TRY(buffer_grow((void **)&l->pair, &l->pair_capacity, l->n_pairs + 1, sizeof *l->pair, err));
    l->pair[l->n_pairs] = (struct pair){.left = left, .right = right};
    *index = (uint32_t)l->n_pairs;
    l->slot[at] = (uint32_t)++l->n_pairs;
    return CB_OK;
}

static bool before(const struct ranked *a, const struct ranked *b) {
    if (a->count != b->count) return a->count > b->count;
    return a->left != b->left ? a->left < b->left : a->right < b->right;
}

static enum cb_status heap_push(struct learner *l, uint32_t index, struct cb_err *err) {
    const struct pair *p = &l->pair[index];
    TRY(buffer_grow((void **)&l->heap, &l->heap_capacity, l->n_heap + 1, sizeof *l->heap, err));
    struct ranked new = {p->count, p->left, p->right, index};
    size_t i = l->n_heap++;
    for (; i && before(&new, &l->heap[(i - 1) / 2]); i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = new;
    return CB_OK;
}

static struct ranked heap_pop(struct learner *l) {
    struct ranked best = l->heap[0], last = l->heap[--l->n_heap];
    size_t at = 0;
    for (size_t child; (child = at * 2 + 1) < l->n_heap; at = child) {
        if (child + 1 < l->n_heap && before(&l->heap[child + 1], &l->heap[child])) child++;
        if (!before(&l->heap[child], &last)) break;
        l->heap[at] = l->heap[child];
    }
    l->heap[at] = last;
    return best;
}

/* Adds to the count of a pair in a word; gaining pairs remember the word. */
static enum cb_status pair_add(struct learner *l, int32_t left, int32_t right, uint32_t word, int64_t change, bool initial,
                               struct cb_err *err) {
    uint32_t index;
    TRY(pair_get(l, left, right, &index, err));
    struct pair *p = &l->pair[index];
    p->initial = p->initial || initial;
    size_t limit = l->options->max_token_chars;
    if (limit && !p->initial && (size_t)l->chars[left] + l->chars[right] >= limit) return CB_OK;
    p->count += change;
    if (change < 0 || (p->n_where && p->where[p->n_where - 1] == word)) return CB_OK;
    TRY(buffer_grow((void **)&p->where, &p->capacity, p->n_where + 1, sizeof *p->where, err));
    p->where[p->n_where++] = word;
    return CB_OK;
}

/* Replaces the pair in one word by id, left to right; the counts of the word's pairs follow. */
static enum cb_status word_merge(struct learner *l, uint32_t word, int32_t left, int32_t right, int32_t id, struct cb_err *err) {
    int32_t *s = l->symbol + l->begin[word];
    uint32_t n = l->length[word], out = 0;
    int64_t count = l->words->word[word].count;
    bool has = false;
    for (uint32_t i = 0; i + 1 < n && !has; i++) has = s[i] == left && s[i + 1] == right;
    if (!has) return CB_OK;
    for (uint32_t i = 0; i + 1 < n; i++) TRY(pair_add(l, s[i], s[i + 1], word, -count, false, err));
    for (uint32_t i = 0; i < n; out++) {
        bool match = i + 1 < n && s[i] == left && s[i + 1] == right;
        s[out] = match ? id : s[i];
        i += match ? 2 : 1;
    }
    l->length[word] = out;
    for (uint32_t i = 0; i + 1 < out; i++) TRY(pair_add(l, s[i], s[i + 1], word, count, false, err));
    return CB_OK;
}

/* A word as ids of its characters; those that have none are left out. */
static enum cb_status word_symbols(struct learner *l, const char *word, size_t n, int32_t *out, uint32_t *n_out, struct cb_err *err) {
    *n_out = 0;
    for (size_t at = 0, length; at < n; at += length) {
        length = (size_t)utf8_length(word[at]);
        int32_t id = vocab_find(&l->t->vocab, word + at, length);
        if (id >= 0 && at && l->prefix) {
            l->text.n = 0;
            TRY(buffer_append(&l->text, l->prefix, strlen(l->prefix), err));
            TRY(buffer_append(&l->text, word + at, length, err));
            id = vocab_find(&l->t->vocab, l->text.data, l->text.n);
        }
        if (id >= 0) out[(*n_out)++] = id;
    }
    return CB_OK;
}

static enum cb_status learner_fill(struct learner *l, struct cb_err *err) {
    const struct word_counts *w = l->words;
    l->symbol = malloc((w->bytes.n + 1) * sizeof *l->symbol);
    l->begin = malloc((w->n + 1) * sizeof *l->begin);
    l->length = malloc((w->n + 1) * sizeof *l->length);
    l->chars = malloc(((size_t)l->options->vocab + 1) * sizeof *l->chars);
    if (!l->symbol || !l->begin || !l->length || !l->chars) FAIL(err, CB_E_MEMORY, "training: no memory for %zu words", w->n);
    for (int32_t i = 0; i < l->options->vocab; i++) l->chars[i] = 1;
    for (uint32_t i = 0; i < w->n; i++) {
        const struct counted_word *c = &w->word[i];
        int32_t *s = l->symbol + c->at;
        l->begin[i] = c->at;
        TRY(word_symbols(l, w->bytes.data + c->at, c->n, s, &l->length[i], err));
        for (uint32_t k = 0; k + 1 < l->length[i]; k++) TRY(pair_add(l, s[k], s[k + 1], i, c->count, true, err));
    }
    for (uint32_t i = 0; i < l->n_pairs; i++) TRY(heap_push(l, i, err));
    return CB_OK;
}

/* Merges one pair everywhere; is_new: its id was not there before. */
static enum cb_status pair_merge(struct learner *l, uint32_t index, int32_t id, bool is_new, struct cb_err *err) {
    int32_t left = l->pair[index].left, right = l->pair[index].right;
    uint32_t *where = l->pair[index].where;
    size_t n_where = l->pair[index].n_where, known = l->n_pairs;
    l->pair[index].where = NULL, l->pair[index].n_where = l->pair[index].capacity = 0;
    enum cb_status status = CB_OK;
    for (size_t i = 0; i < n_where && !status; i++) status = word_merge(l, where[i], left, right, id, err);
    free(where);
    if (status) return status;
    l->pair[index].count = 0;
    // only pairs with the id can have gained: they are new, if it is
    for (size_t i = is_new ? known : 0; i < l->n_pairs; i++)
        if (l->pair[i].count > 0 && (l->pair[i].left == id || l->pair[i].right == id)) TRY(heap_push(l, (uint32_t)i, err));
    return CB_OK;
}

/* The id of two tokens joined, which may have one already. */
static enum cb_status joined_id(struct learner *l, int32_t left, int32_t right, int32_t *n_ids, int32_t *id, struct cb_err *err) {
    const struct vocab_token *a = vocab_at(&l->t->vocab, left), *b = vocab_at(&l->t->vocab, right);
    size_t skip = l->prefix ? strlen(l->prefix) : 0;
    if (b->n < skip || memcmp(b->text, l->prefix ? l->prefix : "", skip)) skip = 0;
    l->text.n = 0;
    TRY(buffer_append(&l->text, a->text, a->n, err));
    TRY(buffer_append(&l->text, b->text + skip, b->n - skip, err));
    if ((*id = vocab_find(&l->t->vocab, l->text.data, l->text.n)) >= 0) return CB_OK;
    *id = (*n_ids)++;
    l->chars[*id] = l->chars[left] + l->chars[right];
    return vocab_add(&l->t->vocab, l->t->arena, *id, l->text.data, l->text.n, "vocab", err);
}

static enum cb_status learn(struct learner *l, struct training *out, struct cb_err *err) {
    const struct train_options *o = l->options;
    int64_t least = o->min_frequency > 1 ? o->min_frequency : 1;
    size_t capacity = 0;
    while (out->n_ids < o->vocab && l->n_heap) {
        struct ranked best = heap_pop(l);
        int64_t count = l->pair[best.pair].count;
        if (count != best.count) {
            // it lost some since: back to its place
            if (count > 0 && count < best.count) TRY(heap_push(l, best.pair, err));
            continue;
        }
        if (count < least) break;
        TRY(buffer_grow((void **)&out->merge, &capacity, (size_t)out->n_merges + 1, sizeof *out->merge, err));
        int32_t id = -1, before_ids = out->n_ids, *merge = out->merge[out->n_merges++];
        merge[0] = best.left, merge[1] = best.right;
        TRY(joined_id(l, best.left, best.right, &out->n_ids, &id, err));
        TRY(pair_merge(l, best.pair, id, out->n_ids > before_ids, err));
        if (out->progress && out->n_merges % 64 == 0 && !out->progress(out->progress_context, out->n_ids, o->vocab))
            FAIL(err, CB_E_STOPPED, "training: stopped");
    }
    return CB_OK;
}

enum cb_status bpe_learn(struct training *training, const char *prefix, struct cb_err *err) {
    struct learner l = {.options = training->options, .words = &training->words, .t = training->t, .prefix = prefix};
    enum cb_status status = learner_fill(&l, err);
    if (!status) status = learn(&l, training, err);
    for (size_t i = 0; i < l.n_pairs; i++) free(l.pair[i].where);
    free(l.symbol), free(l.begin), free(l.length), free(l.chars), free(l.pair), free(l.slot), free(l.heap), free(l.text.data);
    return status;
}
