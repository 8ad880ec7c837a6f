/* Tokens by id and by text. */
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H
#include "base/arena.h"
#include "base/err.h"

struct vocab_token {
    const char *text;  // NULL: no such id
    uint32_t n;
};
struct vocab {
    struct vocab_token *token;  // by id, size of them
    int32_t size;  // greatest id + 1
    int32_t n;  // tokens (ids may have holes)
    uint32_t *slot;  // id + 1, open addressing over n_slots, a power of two
    uint32_t n_slots;
};

uint64_t vocab_hash(const char *text, size_t n);
/* For n tokens with ids below size. */
enum cb_status vocab_init(struct vocab *vocab, struct arena *arena, int32_t n, int32_t size, struct cb_err *err);
/* text is copied into the arena. CB_E_FORMAT where the id or the text is taken. name: for messages. */
enum cb_status vocab_add(struct vocab *vocab, struct arena *arena, int32_t id, const char *text, size_t n, const char *name,
                         struct cb_err *err);
/* The same with a text (ended by NUL) that outlives the vocabulary and is not copied. */
enum cb_status vocab_put(struct vocab *vocab, int32_t id, const char *text, size_t n, const char *name, struct cb_err *err);
/* As vocab_add, but a text that is there already is found under its last id. */
enum cb_status vocab_add_last(struct vocab *vocab, struct arena *arena, int32_t id, const char *text, size_t n, const char *name,
                              struct cb_err *err);
/* -1 where absent. */
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t n);
/* NULL where absent. */
const struct vocab_token *vocab_at(const struct vocab *vocab, int32_t id);
#endif
