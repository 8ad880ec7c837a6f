/* A hash table from strings to integers; keys are borrowed, order is the caller's own business. */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H
#include "base/err.h"

struct table_slot {
    const char *key;  // NULL: empty
    size_t n;
    uint64_t hash;
    int64_t value;
};
/* Zero-initialise; free with table_deinit. */
struct table {
    struct table_slot *slots;
    size_t n_slots, n_used;  // slots: a power of 2
    uint64_t seed;
};

/* Sets the value (>= 0 by convention) of a key of n bytes, which must outlive the table. */
enum cb_status table_put(struct table *table, const char *key, size_t n, int64_t value, struct cb_err *err);
/* -1 where the key is absent. */
int64_t table_get(const struct table *table, const char *key, size_t n);
void table_remove(struct table *table, const char *key, size_t n);
void table_deinit(struct table *table);
#endif
