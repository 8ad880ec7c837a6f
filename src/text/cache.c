/* A hash table of words that starts small, doubles, and is emptied when it reaches its bound. */
#include "text/cache.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_SLOTS 1024u
#define MOST_SLOTS (1u << 18)

struct entry {
    uint64_t hash;
    uint32_t at;  // of the word's tokens, which the word's bytes follow
    uint16_t n, n_tokens;  // n = 0: empty
};
struct word_cache {
    struct entry *entry;
    uint32_t n_slots, n;
    struct word_token *store;  // tokens, and bytes rounded up to whole ones
    uint32_t used, capacity;
};

void word_cache_destroy(struct word_cache **cache) {
    if (!cache || !*cache) return;
    free((*cache)->entry);
    free((*cache)->store);
    free(*cache);
    *cache = NULL;
}

static struct entry *entry_of(const struct word_cache *c, uint64_t hash, const char *word, size_t n) {
    uint32_t mask = c->n_slots - 1, at = (uint32_t)hash & mask;
    for (; c->entry[at].n; at = (at + 1) & mask) {
        const struct entry *e = &c->entry[at];
        if (e->hash == hash && e->n == n && !memcmp(c->store + e->at + e->n_tokens, word, n)) break;
    }
    return &c->entry[at];
}

const struct word_token *word_cache_get(const struct word_cache *cache, uint64_t hash, const char *word, size_t n, size_t *n_tokens) {
    if (!cache || !cache->n_slots || !n || n > WORD_CACHE_LONGEST) return NULL;
    const struct entry *e = entry_of(cache, hash, word, n);
    if (!e->n) return NULL;
    *n_tokens = e->n_tokens;
    return cache->store + e->at;
}

static bool grow(struct word_cache *c) {
    uint32_t n_slots = c->n_slots ? c->n_slots * 2 : FIRST_SLOTS;
    if (n_slots > MOST_SLOTS) {
        // full: begin again
        memset(c->entry, 0, c->n_slots * sizeof *c->entry);
        c->n = c->used = 0;
        return true;
    }
    struct entry *entry = calloc(n_slots, sizeof *entry);
    if (!entry) return false;
    for (uint32_t i = 0; i < c->n_slots; i++) {
        if (!c->entry[i].n) continue;
        uint32_t at = (uint32_t)c->entry[i].hash & (n_slots - 1);
        while (entry[at].n) at = (at + 1) & (n_slots - 1);
        entry[at] = c->entry[i];
    }
    free(c->entry);
    c->entry = entry, c->n_slots = n_slots;
    return true;
}

void word_cache_put(struct word_cache **cache, uint64_t hash, const char *word, size_t n, const struct word_token *token, size_t n_tokens) {
    if (!n || n > WORD_CACHE_LONGEST) return;
    if (!*cache && !(*cache = calloc(1, sizeof **cache))) return;
    struct word_cache *c = *cache;
    if (c->n * 2 >= c->n_slots && !grow(c)) return;
    uint32_t want = (uint32_t)(n_tokens + (n + sizeof *token - 1) / sizeof *token);
    if (c->capacity - c->used < want) {
        uint32_t capacity = c->capacity ? c->capacity * 2 : 8192;
        struct word_token *store = realloc(c->store, capacity * sizeof *store);
        if (!store) return;
        c->store = store, c->capacity = capacity;
    }
    struct entry *e = entry_of(c, hash, word, n);
    if (e->n) return;
    *e = (struct entry){hash, c->used, (uint16_t)n, (uint16_t)n_tokens};
    memcpy(c->store + c->used, token, n_tokens * sizeof *token);
    memcpy(c->store + c->used + n_tokens, word, n);
    c->used += want, c->n++;
}
