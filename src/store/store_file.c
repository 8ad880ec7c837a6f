/* The store from and to safetensors files. */
#include <stdlib.h>

#include "io/safetensors.h"
#include "store/store.h"

enum cb_status store_load(struct store *store, const struct tensors *tensors,
                          const char *(*rename)(void *context, const struct tensor *tensor), void *context, struct cb_err *err) {
    for (int i = 0; i < tensors_count(tensors); i++) {
        const struct tensor *t = tensors_at(tensors, i);
        const char *name = rename ? rename(context, t) : t->name;
        if (name) TRY(store_add_map(store, name, t->type, t->map, t->offset, NULL, err));
    }
    return CB_OK;
}

// Entries whose type differs in the file are converted piece by piece.
static enum cb_status entry_fill(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *err) {
    (void)context;
    const struct store_entry *entry = item->source;
    const struct dtype *d = dtype_of(entry->type.dtype);
    const char *in = (const char *)entry->data + first / d->block * d->block_bytes;
    if (!dtype_convert(out, item->type.dtype, in, entry->type.dtype, n))
        FAIL(err, CB_E_DTYPE, "%s: cannot write %s as %s; wanted a type that has an encoder", item->name, d->name,
             dtype_of(item->type.dtype)->name);
    return CB_OK;
}

enum cb_status store_save(const struct store *store, const char *path, int64_t max_shard_bytes, store_pick *pick, void *context,
                          const void *metadata, struct cb_err *err) {
    int n = 0, count = store_count(store);
    struct tensor_item *items = calloc((size_t)count + 1, sizeof *items);
    if (!items) FAIL(err, CB_E_MEMORY, "%s: out of memory for %d parameters", path, count);
    for (int i = 0; i < count; i++) {
        struct store_entry *entry = store_at(store, i);
        const char *name = entry->name;
        enum cb_dtype dtype = dtype_of(entry->type.dtype)->is_quantised ? CB_DTYPE_F32 : entry->type.dtype;
        if (pick && !pick(context, entry, &name, &dtype)) continue;
        items[n] = (struct tensor_item){.name = name, .type = entry->type, .source = entry};
        items[n].type.dtype = dtype;
        if (dtype == entry->type.dtype) items[n].data = entry->data;
        n++;
    }
    enum cb_status status = max_shard_bytes
                                ? tensors_write_sharded(path, "model", items, n, max_shard_bytes, metadata, entry_fill, NULL, err)
                                : tensors_write(path, items, n, metadata, entry_fill, NULL, err);
    free(items);
    return status;
}
