/* Writes safetensors files, whole or in shards, in the byte order of the format's own library. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"
#include "io/safetensors.h"

#define PIECE_BYTES ((int64_t)1 << 20)
#define MAX_SHARDS 99999

// The library sorts by number type, from the last of this list to the first, then by name.
static const enum cb_dtype library_order[] = {
    CB_DTYPE_BOOL, CB_DTYPE_U8,  CB_DTYPE_I8,  CB_DTYPE_F8_E5M2, CB_DTYPE_F8_E4M3, CB_DTYPE_I16, CB_DTYPE_U16, CB_DTYPE_F16,
    CB_DTYPE_BF16, CB_DTYPE_I32, CB_DTYPE_U32, CB_DTYPE_F32,     CB_DTYPE_F64,     CB_DTYPE_I64, CB_DTYPE_U64,
};

static int dtype_order(enum cb_dtype dtype) {
    int i = 0;
    while (i < (int)(sizeof library_order / sizeof *library_order) && library_order[i] != dtype) i++;
    return i;
}

static int item_order(const void *a, const void *b) {
    const struct tensor_item *x = *(const struct tensor_item *const *)a, *y = *(const struct tensor_item *const *)b;
    int dx = dtype_order(x->type.dtype), dy = dtype_order(y->type.dtype);
    return dx != dy ? dy - dx : strcmp(x->name, y->name);
}

static enum cb_status items_check(const struct tensor_item *items, int n, tensor_fill *fill, const char *path, struct cb_err *err) {
    char text[TYPE_TEXT];
    for (int i = 0; i < n; i++) {
        TRY(type_check(&items[i].type, items[i].name, err));
        if (!safetensors_dtype_name(items[i].type.dtype))
            FAIL(err, CB_E_DTYPE, "%s: tensor %s: found %s; wanted a type that safetensors has", path, items[i].name,
                 type_text(&items[i].type, text));
        if (!items[i].data && !fill && type_elements(&items[i].type))
            FAIL(err, CB_E_ARGUMENT, "%s: tensor %s: no data and no source of it", path, items[i].name);
        if (!strcmp(items[i].name, "__metadata__"))
            FAIL(err, CB_E_NAME, "%s: tensor __metadata__: a name the format keeps for itself", path);
    }
    return CB_OK;
}

// The header of sorted items; *out is owned by the caller. A name twice is CB_E_NAME.
static enum cb_status header_make(char **out, const struct tensor_item *const *items, int n, const json_t *metadata, const char *path,
                                  struct cb_err *err) {
    *out = NULL;
    json_t *header = json_object();
    bool ok = header != NULL;
    if (metadata) ok = ok && !json_object_set(header, "__metadata__", (json_t *)metadata);
    int64_t at = 0;
    for (int i = 0; i < n && ok; i++) {
        const struct cb_type *type = &items[i]->type;
        if (json_object_get(header, items[i]->name)) {
            json_decref(header);
            FAIL(err, CB_E_NAME, "%s: tensor %s: duplicate name; wanted each once", path, items[i]->name);
        }
        json_t *shape = json_array();
        for (int d = 0; d < type->rank && shape; d++) ok = ok && !json_array_append_new(shape, json_integer(type->dim[d]));
        int64_t end = at + type_bytes(type);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_dtype_name(type->dtype), "shape", shape, "data_offsets",
                                  (json_int_t)at, (json_int_t)end);
        ok = ok && !json_object_set_new(header, items[i]->name, entry);
        at = end;
    }
    // an object refuses names that are not UTF-8 too
    enum cb_status status = ok ? json_dump(out, header, 0, err)
                               : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: cannot make the header of %d tensors", path, n);
    json_decref(header);
    return status;
}

static enum cb_status header_write(struct io_writer *w, const char *header, const char *path, struct cb_err *err) {
    unsigned char length[8];
    size_t n = strlen(header), padded = (n + 7) / 8 * 8;
    if (padded > 100000000u) FAIL(err, CB_E_LIMIT, "%s: header of %zu bytes; wanted at most 100000000", path, padded);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(padded >> 8 * i);
    TRY(io_writer_write(w, length, 8, err));
    TRY(io_writer_write(w, header, n, err));
    return io_writer_write(w, "       ", padded - n, err);
}

static enum cb_status item_write(struct io_writer *w, const struct tensor_item *item, void *piece, tensor_fill *fill, void *context,
                                 struct cb_err *err) {
    if (item->data) return io_writer_write(w, item->data, (size_t)type_bytes(&item->type), err);
    int64_t size = dtype_of(item->type.dtype)->block_bytes, n = type_elements(&item->type), step = PIECE_BYTES / size;
    for (int64_t first = 0; first < n; first += step) {
        int64_t count = n - first < step ? n - first : step;
        TRY(fill(context, piece, item, first, count, err));
        TRY(io_writer_write(w, piece, (size_t)(count * size), err));
    }
    return CB_OK;
}

static enum cb_status file_fill(struct io_writer *w, const struct tensor_item *const *sorted, int n, const char *header, const char *path,
                                tensor_fill *fill, void *context, struct cb_err *err) {
    TRY(header_write(w, header, path, err));
    void *piece = malloc((size_t)PIECE_BYTES);
    if (!piece) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    enum cb_status status = CB_OK;
    for (int i = 0; i < n && status == CB_OK; i++) status = item_write(w, sorted[i], piece, fill, context, err);
    free(piece);
    return status;
}

enum cb_status tensors_write(const char *path, const struct tensor_item *items, int n, const json_t *metadata, tensor_fill *fill,
                             void *context, struct cb_err *err) {
    TRY(items_check(items, n, fill, path, err));
    const struct tensor_item **sorted = calloc((size_t)n + 1, sizeof *sorted);
    if (!sorted) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    for (int i = 0; i < n; i++) sorted[i] = &items[i];
    qsort(sorted, (size_t)n, sizeof *sorted, item_order);
    char *header = NULL;
    struct io_writer *w = NULL;
    enum cb_status status = header_make(&header, sorted, n, metadata, path, err);
    if (status == CB_OK) status = io_writer_open(&w, path, err);
    if (status == CB_OK) status = file_fill(w, sorted, n, header, path, fill, context, err);
    if (status == CB_OK) status = io_writer_commit(&w, err);
    io_writer_abort(&w);
    free(header);
    free(sorted);
    return status;
}

// ---- shards

// Number of the item's shard, greedily filled in the order given; returns the count of shards.
static int shards_cut(int *shard, const struct tensor_item *items, int n, int64_t max_bytes, int64_t *total) {
    int64_t used = 0;
    int current = 0;
    *total = 0;
    for (int i = 0; i < n; i++) {
        int64_t bytes = type_bytes(&items[i].type);
        if (used && bytes > max_bytes - used) {
            current++;
            used = 0;
        }
        used += bytes;
        *total += bytes;
        shard[i] = current;
    }
    return current + 1;
}

static int name_order(const void *a, const void *b) {
    return strcmp((*(const struct tensor_item *const *)a)->name, (*(const struct tensor_item *const *)b)->name);
}

static void shard_name(char *name, size_t size, const char *stem, int i, int n) {
    snprintf(name, size, "%.100s-%05d-of-%05d.safetensors", stem, i + 1, n);
}

static enum cb_status index_write(const char *path, const char *stem, const struct tensor_item *items, const int *shard, int n,
                                  int n_shards, int64_t total, struct cb_err *err) {
    const struct tensor_item **sorted = calloc((size_t)n + 1, sizeof *sorted);
    json_t *map = json_object();
    char *text = NULL, name[160];
    bool ok = sorted && map;
    for (int i = 0; i < n && ok; i++) sorted[i] = &items[i];
    if (ok) qsort(sorted, (size_t)n, sizeof *sorted, name_order);
    for (int i = 0; i < n && ok; i++) {
        shard_name(name, sizeof name, stem, shard[sorted[i] - items], n_shards);
        ok = !json_object_set_new(map, sorted[i]->name, json_string(name));
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    enum cb_status status =
        ok && index ? json_dump(&text, index, 2, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: cannot make the index", path);
    if (status == CB_OK) {
        size_t length = strlen(text);
        text[length] = '\n';  // in place of the NUL, which the writer does not need
        status = io_write_file(path, text, length + 1, err);
    }
    json_decref(index);
    free(text);
    free(sorted);
    return status;
}

static enum cb_status shard_write(const char *folder, const char *stem, const struct tensor_item *items, const int *shard, int n, int which,
                                  int n_shards, const json_t *metadata, tensor_fill *fill, void *context, struct cb_err *err) {
    char name[160];
    shard_name(name, sizeof name, stem, which, n_shards);
    int first = 0, count = 0;  // a shard is a run of items
    while (first < n && shard[first] != which) first++;
    while (first + count < n && shard[first + count] == which) count++;
    char *path = io_path_join(folder, name);
    if (!path) FAIL(err, CB_E_MEMORY, "%s: out of memory", folder);
    enum cb_status status = tensors_write(path, items + first, count, metadata, fill, context, err);
    free(path);
    return status;
}

enum cb_status tensors_write_sharded(const char *folder, const char *stem, const struct tensor_item *items, int n, int64_t max_shard_bytes,
                                     const json_t *metadata, tensor_fill *fill, void *context, struct cb_err *err) {
    if (max_shard_bytes <= 0) FAIL(err, CB_E_ARGUMENT, "%s: shards of %lld bytes; wanted more than 0", folder, (long long)max_shard_bytes);
    TRY(items_check(items, n, fill, folder, err));
    TRY(io_mkdirs(folder, err));
    char name[160];
    snprintf(name, sizeof name, "%.100s.safetensors", stem);
    char *whole = io_path_join(folder, name);
    snprintf(name, sizeof name, "%.100s.safetensors.index.json", stem);
    char *index = io_path_join(folder, name);
    int *shard = calloc((size_t)n + 1, sizeof *shard);
    enum cb_status status = whole && index && shard ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", folder);
    int64_t total = 0;
    int n_shards = status == CB_OK ? shards_cut(shard, items, n, max_shard_bytes, &total) : 0;
    if (n_shards > MAX_SHARDS)
        status = err_set(err, CB_E_LIMIT, __FILE__, __LINE__, "%s: %d shards; wanted at most %d", folder, n_shards, MAX_SHARDS);
    // what an older save left under the other name would be read instead
    if (status == CB_OK && n_shards == 1) {
        status = tensors_write(whole, items, n, metadata, fill, context, err);
        if (status == CB_OK) unlink(index);
    } else {
        for (int i = 0; i < n_shards && status == CB_OK; i++)
            status = shard_write(folder, stem, items, shard, n, i, n_shards, metadata, fill, context, err);
        if (status == CB_OK) status = index_write(index, stem, items, shard, n, n_shards, total, err);
        if (status == CB_OK) unlink(whole);
    }
    free(shard);
    free(whole);
    free(index);
    return status;
}
