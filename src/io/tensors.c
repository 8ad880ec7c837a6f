/* A set of named tensors over maps, and opening one from a file, an index of shards or a folder. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/name.h"
#include "base/table.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/torch.h"

#define INDEX_LIMIT ((size_t)100 * 1000 * 1000)
#define MAX_TENSORS (1 << 24)

struct tensors {
    struct arena *arena;  // names
    char *name;
    struct tensor *items;
    int n_items, room;
    struct map **maps;
    int n_maps;
    struct table by_name;  // to the item's number
    json_t *metadata;
};

enum cb_status tensors_create(struct tensors **out, const char *name, struct cb_err *err) {
    struct tensors *t = calloc(1, sizeof *t);
    if (t) {
        t->arena = arena_create();
        t->name = strdup(name);
    }
    if (!t || !t->arena || !t->name) {
        tensors_destroy(&t);
        *out = NULL;
        FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    }
    *out = t;
    return CB_OK;
}

void tensors_destroy(struct tensors **tensors) {
    struct tensors *t = tensors ? *tensors : NULL;
    if (!t) return;
    for (int i = 0; i < t->n_maps; i++) map_release(&t->maps[i]);
    table_deinit(&t->by_name);
    json_decref(t->metadata);
    free(t->maps);
    free(t->items);
    free(t->name);
    arena_destroy(&t->arena);
    free(t);
    *tensors = NULL;
}

int tensors_count(const struct tensors *tensors) { return tensors->n_items; }
const struct tensor *tensors_at(const struct tensors *tensors, int i) { return &tensors->items[i]; }
const char *tensors_name(const struct tensors *tensors) { return tensors->name; }
const json_t *tensors_metadata_all(const struct tensors *tensors) { return tensors->metadata; }
const void *tensor_data(const struct tensor *tensor) { return map_data(tensor->map) + tensor->offset; }

const struct tensor *tensors_find(const struct tensors *tensors, const char *name) {
    int64_t i = table_get(&tensors->by_name, name, strlen(name));
    return i < 0 ? NULL : &tensors->items[i];
}

enum cb_status tensors_need(const struct tensor **tensor, const struct tensors *tensors, const char *name, struct cb_err *err) {
    *tensor = tensors_find(tensors, name);
    if (!*tensor) FAIL(err, CB_E_NAME, "%s: no tensor %s among %d; wanted it", tensors->name, name, tensors->n_items);
    return CB_OK;
}

const char *tensors_metadata(const struct tensors *tensors, const char *key) {
    return json_string_value(json_object_get(tensors->metadata, key));
}

void tensors_set_metadata(struct tensors *tensors, json_t *metadata) {
    json_t *old = tensors->metadata;
    tensors->metadata = json_incref(metadata);
    json_decref(old);
}

void tensor_read_f32(float *out, const struct tensor *tensor) {
    dtype_of(tensor->type.dtype)->to_f32(out, tensor_data(tensor), type_elements(&tensor->type));
}

static enum cb_status map_keep(struct tensors *t, struct map *map, struct cb_err *err) {
    for (int i = t->n_maps - 1; i >= 0; i--)
        if (t->maps[i] == map) return CB_OK;
    struct map **maps = realloc(t->maps, ((size_t)t->n_maps + 1) * sizeof *maps);
    if (!maps) FAIL(err, CB_E_MEMORY, "%s: out of memory", t->name);
    t->maps = maps;
    maps[t->n_maps++] = map_retain(map);
    return CB_OK;
}

enum cb_status tensors_add(struct tensors *t, const char *name, const struct cb_type *type, struct map *map, int64_t offset,
                           struct cb_err *err) {
    TRY(type_check(type, name, err));
    int64_t bytes = type_bytes(type), size = (int64_t)map_size(map);
    if (offset < 0 || offset > size || bytes > size - offset)
        FAIL(err, CB_E_FORMAT, "%s: tensor %s: %lld bytes from %lld; the file has %lld", map_name(map), name, (long long)bytes,
             (long long)offset, (long long)size);
    if (tensors_find(t, name)) FAIL(err, CB_E_NAME, "%s: tensor %s: duplicate name; wanted each once", t->name, name);
    if (t->n_items == t->room) {
        if (t->room >= MAX_TENSORS) FAIL(err, CB_E_LIMIT, "%s: more than %d tensors", t->name, MAX_TENSORS);
        int room = t->room ? t->room * 2 : 64;
        struct tensor *items = realloc(t->items, (size_t)room * sizeof *items);
        if (!items) FAIL(err, CB_E_MEMORY, "%s: out of memory for %d tensors", t->name, room);
        t->items = items;
        t->room = room;
    }
    char *copy = arena_strdup(t->arena, name);
    if (!copy) FAIL(err, CB_E_MEMORY, "%s: out of memory", t->name);
    TRY(map_keep(t, map, err));
    TRY(table_put(&t->by_name, copy, strlen(copy), t->n_items, err));
    t->items[t->n_items++] = (struct tensor){copy, *type, map, offset, bytes};
    return CB_OK;
}

// ---- opening

static enum cb_status file_open(struct tensors **out, const char *path, struct cb_err *err) {
    struct map *map;
    TRY(map_open(&map, path, err));
    enum cb_status status = torch_is_file(map) ? torch_read(out, map, err) : tensors_read(out, map, err);
    map_release(&map);
    return status;
}

// The shards of an index that have been opened, by file name.
struct shards {
    struct tensors **items;
    int n_items;
    struct table by_name;
};

static void shards_deinit(struct shards *shards) {
    for (int i = 0; i < shards->n_items; i++) tensors_destroy(&shards->items[i]);
    free(shards->items);
    table_deinit(&shards->by_name);
}

// file: stays valid as long as the shards.
static enum cb_status shard_get(const struct tensors **out, struct shards *shards, const char *index_path, const char *file,
                                struct cb_err *err) {
    int64_t i = table_get(&shards->by_name, file, strlen(file));
    if (i >= 0) {
        *out = shards->items[i];
        return CB_OK;
    }
    if (!io_name_stays(file))
        FAIL(err, CB_E_FORMAT, "%s: weight_map: file '%.200s' leaves the folder; wanted a name inside it", index_path, file);
    struct tensors **items = realloc(shards->items, ((size_t)shards->n_items + 1) * sizeof *items);
    if (!items) FAIL(err, CB_E_MEMORY, "%s: out of memory", index_path);
    shards->items = items;
    const char *slash = strrchr(index_path, '/');
    char *folder = strndup(index_path, slash ? (size_t)(slash - index_path) + 1 : 0);
    char *path = folder ? io_path_join(folder, file) : NULL;
    enum cb_status status = path ? table_put(&shards->by_name, file, strlen(file), shards->n_items, err)
                                 : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", index_path);
    if (status == CB_OK) status = file_open(&items[shards->n_items], path, err);
    if (status == CB_OK) *out = items[shards->n_items++];
    free(folder);
    free(path);
    return status;
}

static enum cb_status index_merge(struct tensors *t, struct shards *shards, const json_t *index, struct cb_err *err) {
    const json_t *weight_map;
    const char *name;
    json_t *file;
    TRY(json_get_object(&weight_map, index, t->name, "weight_map", true, err));
    json_object_foreach((json_t *)weight_map, name, file) {
        const char *file_name;
        const struct tensors *shard = NULL;
        TRY(json_get_str(&file_name, weight_map, t->name, name, true, err));
        TRY(shard_get(&shard, shards, t->name, file_name, err));
        const struct tensor *tensor = tensors_find(shard, name);
        if (!tensor) FAIL(err, CB_E_NAME, "%s: tensor %s is not in %s; the index says that it is", t->name, name, file_name);
        TRY(tensors_add(t, name, &tensor->type, tensor->map, tensor->offset, err));
        if (!t->metadata) tensors_set_metadata(t, shard->metadata);
    }
    return CB_OK;
}

static enum cb_status index_open(struct tensors **out, const char *path, struct cb_err *err) {
    char *text;
    size_t n;
    json_t *index = NULL;
    struct shards shards = {0};
    *out = NULL;
    TRY(io_read_file(&text, &n, path, INDEX_LIMIT, err));
    enum cb_status status = json_parse_object(&index, text, n, path, err);
    free(text);
    if (status == CB_OK) status = tensors_create(out, path, err);
    if (status == CB_OK) status = index_merge(*out, &shards, index, err);
    shards_deinit(&shards);
    json_decref(index);
    if (status != CB_OK) tensors_destroy(out);
    return status;
}

static enum cb_status path_open(struct tensors **out, const char *path, struct cb_err *err) {
    return name_ends(path, ".index.json") ? index_open(out, path, err) : file_open(out, path, err);
}

/* What PEFT's folders hold: now, and as torch.save wrote it before. */
#define ADAPTER_NAMES "adapter_model.safetensors", "adapter_model.bin"

/* The first of n files that is in a folder; *out stays NULL where none is. */
static enum cb_status first_open(struct tensors **out, const char *folder, const char *const *names, size_t n, struct cb_err *err) {
    *out = NULL;
    for (size_t i = 0; i < n; i++) {
        char *file = io_path_join(folder, names[i]);
        if (!file) FAIL(err, CB_E_MEMORY, "%s: out of memory", folder);
        const bool found = io_is_file(file);
        const enum cb_status status = found ? path_open(out, file, err) : CB_OK;
        free(file);
        if (found) return status;
    }
    return CB_OK;
}

enum cb_status tensors_open_adapter(struct tensors **out, const char *folder, struct cb_err *err) {
    static const char *const names[] = {ADAPTER_NAMES};
    TRY(first_open(out, folder, names, 2, err));
    if (!*out) FAIL(err, CB_E_IO, "%s: no weights of an adapter; wanted %s or %s", folder, names[0], names[1]);
    return CB_OK;
}

enum cb_status tensors_open(struct tensors **out, const char *path, struct cb_err *err) {
    // in the order in which Transformers looks
    static const char *const usual[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                        "pytorch_model.bin.index.json", ADAPTER_NAMES};
    *out = NULL;
    if (!io_is_folder(path)) return path_open(out, path, err);
    TRY(first_open(out, path, usual, sizeof usual / sizeof *usual, err));
    if (!*out) FAIL(err, CB_E_IO, "%s: no weights; wanted %s, %s, %s or %s", path, usual[0], usual[1], usual[2], usual[4]);
    return CB_OK;
}
