/* The parameter store: named buffers with a type and a place; models and modules name them, plans bind to them. */
#ifndef STORE_STORE_H
#define STORE_STORE_H
#include "base/dtype.h"

struct store;
struct map;  // io/map.h: a mapped file, reference counted

enum store_place { STORE_HEAP, STORE_MAP };

struct store_entry {
    const char *name;
    struct cb_type type;
    void *data;
    int64_t bytes;
    enum store_place place;  // STORE_MAP is read-only
    bool trainable;
    bool turned;  // a matrix that is held as its transpose, of which type is
};

/* Owned by caller, free with store_destroy. */
enum cb_status store_create(struct store **store, struct cb_err *err);
void store_destroy(struct store **store);

/* A new heap entry, zeroed, 64-byte aligned (large ones page-aligned from the system). A name twice is CB_E_NAME. entry: borrowed from store,
   valid until it is removed. */
enum cb_status store_add(struct store *store, const char *name, struct cb_type type, struct store_entry **entry, struct cb_err *err);
/* An entry over bytes of a mapped file; holds a reference on the map. Bytes that are not aligned to their number type are copied to the heap. */
enum cb_status store_add_map(struct store *store, const char *name, struct cb_type type, struct map *map, int64_t offset,
                             struct store_entry **entry, struct cb_err *err);
/* The same values under another name: of a mapped entry the same bytes, else a copy. */
enum cb_status store_add_alias(struct store *store, const char *name, const char *of, struct cb_err *err);
/* NULL where there is none. */
struct store_entry *store_find(const struct store *store, const char *name);
void store_remove(struct store *store, const char *name);
/* In order of addition. */
int store_count(const struct store *store);
struct store_entry *store_at(const struct store *store, int i);
/* Converts an entry to another plain type on the heap (e.g. a mapped bf16 weight to f32 for training); nothing to do if it has it and is writable
   as asked. A writable one is no longer turned. */
enum cb_status store_make(struct store *store, struct store_entry *entry, enum cb_dtype dtype, bool writable, struct cb_err *err);
/* Adds every tensor of a file as a mapped entry. rename: the store's name for a tensor, NULL to leave it out. Nullable: rename (names as in the file). */
struct tensor;
struct tensors;  // io/safetensors.h
enum cb_status store_load(struct store *store, const struct tensors *tensors,
                          const char *(*rename)(void *context, const struct tensor *tensor), void *context, struct cb_err *err);

/* What of the store goes into a file: false leaves the entry out; otherwise *name (preset: the entry's) and *dtype (preset: the entry's; f32 for block
   types) may be changed. *name must stay valid until the save returns. */
typedef bool store_pick(void *context, const struct store_entry *entry, const char **name, enum cb_dtype *dtype);
/* Writes safetensors atomically. max_shard_bytes 0: path is the file; otherwise path is a folder that gets model.safetensors or shards with an index.
   metadata: a json_t object of strings. Nullable: pick (everything), metadata. */
enum cb_status store_save(const struct store *store, const char *path, int64_t max_shard_bytes, store_pick *pick, void *context,
                          const void *metadata, struct cb_err *err);
/* Type of the named entry, f32 where there is none, and whether it is turned: what nn's param_dtype and param_turned ask of a store. */
enum cb_dtype store_dtype(void *store, const char *name);
bool store_turned(void *store, const char *name);
/* Binds a plan's params to the entries of their names in store, else in cache, where params "cache.*" are made on first sight (nullable: none are).
   all: a param without entry is CB_E_NAME; else it stays unbound. Another type than the plan's is CB_E_SHAPE. */
struct plan;
enum cb_status store_bind(const struct store *store, struct store *cache, bool all, struct plan *plan, struct cb_err *err);
/* Bytes by place. */
int64_t store_bytes(const struct store *store, enum store_place place);
#endif
