/* The word cache of an encoder: pre-tokens that were met before, with their ids. */
#ifndef TEXT_CACHE_H
#define TEXT_CACHE_H
#include "base/err.h"

struct word_cache;
/* One token of a word: its id and its bytes of the word. */
struct word_token {
    int32_t id;
    uint32_t n;
};
/* Words longer than this are not kept. */
#define WORD_CACHE_LONGEST 48

/* The tokens of a word, or NULL. Valid until the next word_cache_put. Nullable: cache. */
const struct word_token *word_cache_get(const struct word_cache *cache, uint64_t hash, const char *word, size_t n, size_t *n_tokens);
/* Keeps a word; forgets all when full. Creates *cache. Failing to find memory keeps nothing and is no error. */
void word_cache_put(struct word_cache **cache, uint64_t hash, const char *word, size_t n, const struct word_token *token, size_t n_tokens);
void word_cache_destroy(struct word_cache **cache);
#endif
