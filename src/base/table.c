/* Open addressing with linear probing; the hash is seeded so that a file cannot choose its collisions. */
#include "base/table.h"

#include <stdlib.h>
#include <string.h>

static uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

// Folded multiplies over words of 8 bytes.
static uint64_t hash_of(uint64_t seed, const char *key, size_t n) {
    uint64_t hash = seed ^ n, word;
    for (; n >= 8; n -= 8, key += 8) {
        memcpy(&word, key, 8);
        hash = fold(hash ^ word, 0x9E3779B97F4A7C15u ^ seed);
    }
    word = 0;
    if (n) memcpy(&word, key, n);
    return fold(hash ^ word, 0xE7037ED1A0B428DBu ^ seed);
}

// The slot of the key, or the empty one where it would go.
static size_t slot_of(const struct table *table, const char *key, size_t n, uint64_t hash) {
    size_t i = hash & (table->n_slots - 1);
    for (const struct table_slot *s = &table->slots[i]; s->key; s = &table->slots[i]) {
        if (s->hash == hash && s->n == n && !memcmp(s->key, key, n)) break;
        i = (i + 1) & (table->n_slots - 1);
    }
    return i;
}

static enum cb_status table_grow(struct table *table, struct cb_err *err) {
    size_t n_slots = table->n_slots ? table->n_slots * 2 : 16;
    struct table_slot *old = table->slots, *slots = calloc(n_slots, sizeof *slots);
    if (!slots) FAIL(err, CB_E_MEMORY, "table: out of memory for %zu names", n_slots / 2);
    // the seed is where memory happens to lie
    if (!old) table->seed = fold((uintptr_t)slots ^ (uintptr_t)&slots, 0xA0761D6478BD642Fu);
    size_t n_old = table->n_slots;
    table->slots = slots;
    table->n_slots = n_slots;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key) slots[slot_of(table, old[i].key, old[i].n, old[i].hash)] = old[i];
    free(old);
    return CB_OK;
}

enum cb_status table_put(struct table *table, const char *key, size_t n, int64_t value, struct cb_err *err) {
    if (table->n_used * 4 >= table->n_slots * 3) TRY(table_grow(table, err));
    uint64_t hash = hash_of(table->seed, key, n);
    struct table_slot *s = &table->slots[slot_of(table, key, n, hash)];
    if (!s->key) table->n_used++;
    *s = (struct table_slot){key, n, hash, value};
    return CB_OK;
}

int64_t table_get(const struct table *table, const char *key, size_t n) {
    if (!table->n_slots) return -1;
    const struct table_slot *s = &table->slots[slot_of(table, key, n, hash_of(table->seed, key, n))];
    return s->key ? s->value : -1;
}

// Moves later entries of the run back, so that no probe breaks off at the hole.
void table_remove(struct table *table, const char *key, size_t n) {
    if (!table->n_slots) return;
    size_t mask = table->n_slots - 1, hole = slot_of(table, key, n, hash_of(table->seed, key, n));
    if (!table->slots[hole].key) return;
    for (size_t i = (hole + 1) & mask; table->slots[i].key; i = (i + 1) & mask) {
        size_t home = table->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - hole) & mask)) continue;
        table->slots[hole] = table->slots[i];
        hole = i;
    }
    table->slots[hole].key = NULL;
    table->n_used--;
}

void table_deinit(struct table *table) {
    free(table->slots);
    memset(table, 0, sizeof *table);
}
