/* A vocabulary: array by id, hash table by text. */
#include "text/vocab.h"

#include <string.h>

uint64_t vocab_hash(const char *text, size_t n) {
    // multiply and fold, eight bytes at a time
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; text += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t word = 0;
    memcpy(&word, text, n);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
    h *= 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

enum cb_status vocab_init(struct vocab *vocab, struct arena *arena, int32_t n, int32_t size, struct cb_err *err) {
    memset(vocab, 0, sizeof *vocab);
    uint32_t slots = 16;
    while (slots < (uint32_t)n * 2u) slots *= 2;
    vocab->token = arena_array(arena, (size_t)size, sizeof *vocab->token);
    vocab->slot = arena_array(arena, slots, sizeof *vocab->slot);
    if (!vocab->token || !vocab->slot) FAIL(err, CB_E_MEMORY, "vocab: no memory for %d tokens", (int)n);
    vocab->size = size, vocab->n_slots = slots;
    return CB_OK;
}

/* The slot that holds the text, or the empty one where it belongs. */
static uint32_t slot_of(const struct vocab *vocab, const char *text, size_t n) {
    uint32_t mask = vocab->n_slots - 1, at = (uint32_t)vocab_hash(text, n) & mask;
    for (; vocab->slot[at]; at = (at + 1) & mask) {
        const struct vocab_token *t = &vocab->token[vocab->slot[at] - 1];
        if (t->n == n && !memcmp(t->text, text, n)) break;
    }
    return at;
}

/* arena NULL: text is not copied. is_again: a text that is there is found under its last id. */
static enum cb_status add(struct vocab *vocab, struct arena *arena, int32_t id, const char *text, size_t n, bool is_again, const char *name,
                          struct cb_err *err) {
    struct vocab_token *t = &vocab->token[id];
    if (t->text)
        FAIL(err, CB_E_FORMAT, "%s: \"%.60s\" and \"%.*s\" both have id %d; one token an id", name, t->text, (int)(n < 60 ? n : 60), text,
             (int)id);
    uint32_t at = slot_of(vocab, text, n);
    if (vocab->slot[at] && !is_again) FAIL(err, CB_E_FORMAT, "%s: token \"%.*s\" is there twice", name, (int)(n < 60 ? n : 60), text);
    t->text = arena ? arena_strndup(arena, text, n) : text;
    if (!t->text) FAIL(err, CB_E_MEMORY, "%s: no memory for a token", name);
    t->n = (uint32_t)n;
    vocab->slot[at] = (uint32_t)id + 1;
    vocab->n++;
    return CB_OK;
}

enum cb_status vocab_add(struct vocab *vocab, struct arena *arena, int32_t id, const char *text, size_t n, const char *name,
                         struct cb_err *err) {
    return add(vocab, arena, id, text, n, false, name, err);
}

enum cb_status vocab_put(struct vocab *vocab, int32_t id, const char *text, size_t n, const char *name, struct cb_err *err) {
    return add(vocab, NULL, id, text, n, false, name, err);
}

enum cb_status vocab_add_last(struct vocab *vocab, struct arena *arena, int32_t id, const char *text, size_t n, const char *name,
                              struct cb_err *err) {
    return add(vocab, arena, id, text, n, true, name, err);
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n) {
    return vocab->n_slots ? (int32_t)vocab->slot[slot_of(vocab, text, n)] - 1 : -1;
}

const struct vocab_token *vocab_at(const struct vocab *vocab, int32_t id) {
    return id >= 0 && id < vocab->size && vocab->token[id].text ? &vocab->token[id] : NULL;
}
