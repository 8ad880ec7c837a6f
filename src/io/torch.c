/* The files of torch.save: where the storages lie, in a zip archive or (before PyTorch 1.6) behind the pickles, and the tensors over them. */
#include "io/torch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"
#include "io/torch_private.h"

#define ALIGNMENT 64
#define COPIES 4  // of a file's bytes at most

/* What is read. A tensor that lies unaligned or not row by row is copied into `copy`, in a second pass over the dictionary. */
struct reader {
    struct map *map, *copy;
    struct arena *arena;
    struct tensors *tensors;
    const struct zip *zip;  // NULL: storages are `members`, their numbers by name in `storages`
    const char *root;  // the folder of the archive, with its slash
    struct zip_member *members;
    struct table storages;
    int64_t copied, copy_bytes;
    unsigned char *copy_data;  // NULL in the first pass
};

static int64_t element_bytes(enum cb_dtype dtype) { return dtype_of(dtype)->block_bytes; }

/* Where the numbers of a storage begin; there are as many as it says. */
static enum cb_status storage_find(const struct reader *r, int64_t *offset, const char *key, const struct value *storage,
                                   struct cb_err *err) {
    char path[600];
    snprintf(path, sizeof path, "%.400s%s%.180s", r->root, r->zip ? "data/" : "", storage->text);
    const int64_t i = r->zip ? -1 : table_get(&r->storages, storage->text, strlen(storage->text));
    const struct zip_member *member = r->zip ? zip_find(r->zip, path) : i < 0 ? NULL : &r->members[i];
    if (!member || storage->number > member->bytes / element_bytes(storage->type.dtype))
        FAIL(err, CB_E_FORMAT, "%s: %.200s: its storage %.100s is missing or too short", map_name(r->map), key, path);
    *offset = member->offset;
    return CB_OK;
}

/* Elements of `size` bytes by their strides, the last axis fastest. */
static void strided_copy(unsigned char *out, const unsigned char *in, const struct value *v, int64_t size) {
    const int rank = v->type.rank;
    int64_t at[CB_MAX_RANK] = {0}, from = 0;
    for (int64_t i = type_elements(&v->type); i > 0; i--, out += size) {
        memcpy(out, in + from * size, (size_t)size);
        for (int axis = rank - 1; axis >= 0; axis--) {
            const int64_t by = v->strides->item[axis]->number;
            from += by;
            if (++at[axis] < v->type.dim[axis]) break;
            from -= at[axis] * by;
            at[axis] = 0;
        }
    }
}

static enum cb_status tensor_take(struct reader *r, const char *key, const struct value *v, struct cb_err *err) {
    int64_t offset = 0;
    TRY(storage_find(r, &offset, key, v->storage, err));
    // it lies within its storage, and that in the file: no sum overflows
    const int64_t size = element_bytes(v->type.dtype), bytes = type_bytes(&v->type), room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    offset += v->offset * size;
    const unsigned char *data = map_data(r->map) + offset;
    const bool is_copied = v->strides || (uintptr_t)data % (uintptr_t)size != 0;
    if (!r->copy_data) {
        if (is_copied) r->copy_bytes += room;
        if (r->copy_bytes > COPIES * (int64_t)map_size(r->map))
            FAIL(err, CB_E_LIMIT, "%s: %.200s: tensors that are no rows of their storage, of more than %d times the file's bytes",
                 map_name(r->map), key, COPIES);
        return CB_OK;
    }
    if (!is_copied) return tensors_add(r->tensors, key, &v->type, r->map, offset, err);
    if (v->strides)
        strided_copy(r->copy_data + r->copied, data, v, size);
    else
        memcpy(r->copy_data + r->copied, data, (size_t)bytes);
    r->copied += room;
    return tensors_add(r->tensors, key, &v->type, r->copy, r->copied - room, err);
}

static enum cb_status dictionary_pass(struct reader *r, const struct value *all, struct cb_err *err) {
    for (int i = 0; i + 1 < all->n; i += 2) {
        const struct value *key = all->item[i], *v = all->item[i + 1];
        if (key->kind != TEXT || v->kind != TENSOR)
            FAIL(err, CB_E_UNSUPPORTED, "%s: %.200s: no tensor under a name", map_name(r->map), key->kind == TEXT ? key->text : "a key");
        TRY(tensor_take(r, key->text, v, err));
    }
    return CB_OK;
}

static enum cb_status dictionary_read(struct reader *r, const struct value *all, struct cb_err *err) {
    if (all->kind != DICTIONARY) FAIL(err, CB_E_FORMAT, "%s: found no dictionary of tensors", map_name(r->map));
    TRY(dictionary_pass(r, all, err));
    TRY(map_create(&r->copy, &r->copy_data, (size_t)r->copy_bytes, map_name(r->map), err));
    return dictionary_pass(r, all, err);
}

/* ---- in a zip archive */
static enum cb_status archive_read(struct reader *r, const struct zip *zip, struct cb_err *err) {
    const struct zip_member *pickle = zip_find_end(zip, "data.pkl"), *order = zip_find_end(zip, "/byteorder");
    const unsigned char *data = map_data(r->map);
    if (!pickle) FAIL(err, CB_E_FORMAT, "%s: no data.pkl in it", map_name(r->map));
    if (order && (order->bytes != 6 || memcmp(data + order->offset, "little", 6) != 0))
        FAIL(err, CB_E_UNSUPPORTED, "%s: byteorder: wanted little", map_name(r->map));
    const char *where = arena_printf(r->arena, "%s: %s", map_name(r->map), pickle->name);
    r->root = arena_strndup(r->arena, pickle->name, strlen(pickle->name) - strlen("data.pkl"));
    if (!where || !r->root) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", map_name(r->map));
    const unsigned char *at = data + pickle->offset;
    struct value *root = NULL;
    TRY(pickle_run(&root, r->arena, where, &at, at + pickle->bytes, err));
    r->zip = zip;
    return dictionary_read(r, root, err);
}

/* ---- one after another: pickles of a number, the version, the system, the dictionary and the storages' names, then each storage behind its length */
static const unsigned char magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

static bool is_plain(const struct map *map) { return map_size(map) >= sizeof magic && memcmp(map_data(map), magic, sizeof magic) == 0; }

/* The storages of the dictionary by their names, for the sizes of their elements. */
static enum cb_status storages_note(struct table *sizes, const struct value *all, struct cb_err *err) {
    for (int i = 0; all->kind == DICTIONARY && i + 1 < all->n; i += 2) {
        if (all->item[i + 1]->kind != TENSOR) continue;
        const struct value *storage = all->item[i + 1]->storage;
        if (table_get(sizes, storage->text, strlen(storage->text)) < 0)
            TRY(table_put(sizes, storage->text, strlen(storage->text), element_bytes(storage->type.dtype), err));
    }
    return CB_OK;
}

/* Where each storage of the list begins. */
static enum cb_status storages_place(struct reader *r, const struct value *names, const struct table *sizes, const unsigned char *at,
                                     struct cb_err *err) {
    const unsigned char *const end = map_data(r->map) + map_size(r->map);
    r->members = arena_array(r->arena, (size_t)names->n + 1, sizeof *r->members);
    if (!r->members) FAIL(err, CB_E_MEMORY, "%s: no memory for %d storages", map_name(r->map), names->n);
    for (int i = 0; i < names->n; i++) {
        const char *name = names->item[i]->kind == TEXT ? names->item[i]->text : "";
        const int64_t size = table_get(sizes, name, strlen(name));
        uint64_t n = 0;
        if (size < 0) FAIL(err, CB_E_UNSUPPORTED, "%s: storage %.100s: of no tensor in the dictionary", map_name(r->map), name);
        if (end - at < 8) FAIL(err, CB_E_FORMAT, "%s: storage %.100s: the file ends before it", map_name(r->map), name);
        for (int k = 8; k-- > 0;) n = n << 8 | at[k];
        at += 8;
        if (n > (uint64_t)(end - at) / (uint64_t)size)
            FAIL(err, CB_E_FORMAT, "%s: storage %.100s: %llu elements; the file ends before", map_name(r->map), name,
                 (unsigned long long)n);
        r->members[i] = (struct zip_member){name, at - map_data(r->map), (int64_t)n * size};
        TRY(table_put(&r->storages, name, strlen(name), i, err));
        at += r->members[i].bytes;
    }
    return CB_OK;
}

static enum cb_status plain_read(struct reader *r, struct cb_err *err) {
    const unsigned char *at = map_data(r->map) + sizeof magic, *const end = map_data(r->map) + map_size(r->map);
    struct value *version = NULL, *host = NULL, *all = NULL, *names = NULL;
    struct table sizes = {0};
    r->root = "";
    TRY(pickle_run(&version, r->arena, map_name(r->map), &at, end, err));
    TRY(pickle_run(&host, r->arena, map_name(r->map), &at, end, err));
    for (int i = 0; host->kind == DICTIONARY && i + 1 < host->n; i += 2)
        if (host->item[i]->kind == TEXT && strcmp(host->item[i]->text, "little_endian") == 0 && !host->item[i + 1]->number)
            FAIL(err, CB_E_UNSUPPORTED, "%s: little_endian: found false; wanted true", map_name(r->map));
    TRY(pickle_run(&all, r->arena, map_name(r->map), &at, end, err));
    TRY(pickle_run(&names, r->arena, map_name(r->map), &at, end, err));
    if (names->kind != TUPLE) FAIL(err, CB_E_FORMAT, "%s: no list of its storages behind the dictionary", map_name(r->map));
    enum cb_status status = storages_note(&sizes, all, err);
    if (status == CB_OK) status = storages_place(r, names, &sizes, at, err);
    table_deinit(&sizes);
    return status == CB_OK ? dictionary_read(r, all, err) : status;
}

/* ---- both */
static bool is_archive(const struct map *map) { return map_size(map) >= 4 && memcmp(map_data(map), "PK\3\4", 4) == 0; }

bool torch_is_file(const struct map *map) { return is_archive(map) || is_plain(map); }

enum cb_status torch_read(struct tensors **out, struct map *map, struct cb_err *err) {
    struct zip *zip = NULL;
    struct reader r = {.map = map, .arena = arena_create()};
    *out = NULL;
    enum cb_status status = r.arena ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", map_name(map));
    if (status == CB_OK && !is_plain(map)) status = zip_open(&zip, map, err);
    if (status == CB_OK) status = tensors_create(&r.tensors, map_name(map), err);
    if (status == CB_OK) status = zip ? archive_read(&r, zip, err) : plain_read(&r, err);
    if (status != CB_OK) tensors_destroy(&r.tensors);
    *out = r.tensors;
    map_release(&r.copy);
    table_deinit(&r.storages);
    zip_destroy(&zip);
    arena_destroy(&r.arena);
    return status;
}
