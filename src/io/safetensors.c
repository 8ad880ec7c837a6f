/* Reads the header of a safetensors file, and refuses whatever the format's specification does not allow. */
#include "io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LIMIT 100000000u  // the specification's

// An entry of the header, before its place is known to be right.
struct entry {
    const char *name;
    struct cb_type type;
    int64_t begin, end;  // bytes of the data section
    int order;
};

static const char *const dtype_names[CB_DTYPE_COUNT] = {
    [CB_DTYPE_F32] = "F32",   [CB_DTYPE_F16] = "F16",         [CB_DTYPE_BF16] = "BF16",       [CB_DTYPE_F64] = "F64",
    [CB_DTYPE_I8] = "I8",     [CB_DTYPE_U8] = "U8",           [CB_DTYPE_I16] = "I16",         [CB_DTYPE_U16] = "U16",
    [CB_DTYPE_I32] = "I32",   [CB_DTYPE_U32] = "U32",         [CB_DTYPE_I64] = "I64",         [CB_DTYPE_U64] = "U64",
    [CB_DTYPE_BOOL] = "BOOL", [CB_DTYPE_F8_E4M3] = "F8_E4M3", [CB_DTYPE_F8_E5M2] = "F8_E5M2",
};

const char *safetensors_dtype_name(enum cb_dtype dtype) { return (unsigned)dtype < CB_DTYPE_COUNT ? dtype_names[dtype] : NULL; }

enum cb_dtype safetensors_dtype(const char *name) {
    int i = 0;
    while (i < CB_DTYPE_COUNT && !(dtype_names[i] && !strcmp(dtype_names[i], name))) i++;
    return (enum cb_dtype)i;
}

/* What a file is that a download left in place of weights; NULL: unknown. */
static const char *looks_like(const unsigned char *p, size_t size) {
    static const struct {
        const char *beginning, *what;
    } rows[] = {{"version https://git-lfs", "a git-lfs pointer: fetch the file itself with git lfs pull"},
                {"<!DOCTYPE", "an HTML page: the download was refused or needs a login"},
                {"<!doctype", "an HTML page: the download was refused or needs a login"},
                {"<html", "an HTML page: the download was refused or needs a login"},
                {"<?xml", "an XML page: the download was refused or needs a login"},
                {"{", "a JSON text"},
                {"GGUF", "a GGUF file: its name should end in .gguf"},
                {"PK\x03\x04", "a zip archive"},
                {"\x80\x02", "a pickle of Python, but none of torch.save"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const size_t n = strlen(rows[i].beginning);
        if (size >= n && !memcmp(p, rows[i].beginning, n)) return rows[i].what;
    }
    for (size_t i = 0; i < size && i < 64; i++)
        if (p[i] >= 127 || (p[i] < 32 && p[i] != '\n' && p[i] != '\r' && p[i] != '\t')) return NULL;
    return "text";
}

static enum cb_status header_length(size_t *length, const struct map *map, struct cb_err *err) {
    const unsigned char *p = map_data(map);
    const char *name = map_name(map);
    unsigned long long n = 0;
    size_t size = map_size(map);
    if (size < 8) FAIL(err, CB_E_FORMAT, "%s: %zu bytes; wanted a safetensors header, whose length alone takes 8", name, size);
    for (int i = 7; i >= 0; i--) n = n << 8 | p[i];
    const char *other = n > HEADER_LIMIT ? looks_like(p, size) : NULL;
    if (other) FAIL(err, CB_E_FORMAT, "%s: not safetensors; it looks like %s", name, other);
    if (n > HEADER_LIMIT) FAIL(err, CB_E_FORMAT, "%s: header of %llu bytes; wanted at most %u", name, n, HEADER_LIMIT);
    if (n > size - 8) FAIL(err, CB_E_FORMAT, "%s: header of %llu bytes; the file has %zu after the length", name, n, size - 8);
    if (n < 2) FAIL(err, CB_E_FORMAT, "%s: header of %llu bytes; wanted at least {}", name, n);
    if (p[8] != '{') FAIL(err, CB_E_FORMAT, "%s: header begins with byte 0x%02x; wanted the { of a JSON object", name, p[8]);
    *length = (size_t)n;
    return CB_OK;
}

static enum cb_status metadata_check(const json_t *metadata, const char *file, struct cb_err *err) {
    char text[JSON_TEXT];
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        FAIL(err, CB_E_FORMAT, "%s: __metadata__: found %s; wanted an object of strings", file, json_text(metadata, text));
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value))
        FAIL(err, CB_E_FORMAT, "%s: __metadata__: %s: found %s; wanted a string", file, key, json_text(value, text));
    return CB_OK;
}

// The fields of one tensor; `where` is "FILE: tensor NAME".
static enum cb_status entry_read(struct entry *e, const json_t *value, const char *where, struct cb_err *err) {
    char text[JSON_TEXT], type[TYPE_TEXT];
    int64_t offsets[2];
    int n;
    const char *dtype;
    const json_t *list;
    if (!json_is_object(value))
        FAIL(err, CB_E_FORMAT, "%s: found %s; wanted an object with dtype, shape and data_offsets", where, json_text(value, text));
    TRY(json_get_str(&dtype, value, where, "dtype", true, err));
    e->type.dtype = safetensors_dtype(dtype);
    if (e->type.dtype == CB_DTYPE_COUNT)
        FAIL(err, CB_E_FORMAT, "%s: dtype: found \"%.40s\"; wanted one such as F32, BF16 or I64", where, dtype);

    TRY(json_get_array(&list, value, where, "shape", true, err));
    if (json_array_size(list) > CB_MAX_RANK)
        FAIL(err, CB_E_SHAPE, "%s: shape of rank %zu; wanted at most %d", where, json_array_size(list), CB_MAX_RANK);
    TRY(json_get_ints(e->type.dim, &e->type.rank, CB_MAX_RANK, value, where, "shape", 0, INT64_MAX, true, err));
    TRY(type_check(&e->type, where, err));

    TRY(json_get_array(&list, value, where, "data_offsets", true, err));
    if (json_array_size(list) != 2) FAIL(err, CB_E_FORMAT, "%s: data_offsets: found %s; wanted two", where, json_text(list, text));
    TRY(json_get_ints(offsets, &n, 2, value, where, "data_offsets", 0, INT64_MAX, true, err));
    e->begin = offsets[0];
    e->end = offsets[1];
    if (e->end < e->begin)
        FAIL(err, CB_E_FORMAT, "%s: data_offsets: begin %lld is after end %lld", where, (long long)e->begin, (long long)e->end);
    int64_t bytes = type_bytes(&e->type);
    if (e->end - e->begin != bytes)
        FAIL(err, CB_E_FORMAT, "%s: data_offsets hold %lld bytes; %s takes %lld", where, (long long)(e->end - e->begin),
             type_text(&e->type, type), (long long)bytes);
    return CB_OK;
}

static int entry_order(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

// Sorted by place, the tensors must fill the data section without hole or overlap.
static enum cb_status places_check(const struct entry *e, int n, int64_t data_bytes, const char *file, struct cb_err *err) {
    int64_t at = 0;
    for (int i = 0; i < n; at = e[i++].end) {
        if (e[i].end > data_bytes)
            FAIL(err, CB_E_FORMAT, "%s: tensor %s: data_offsets end at %lld; the file has %lld bytes of data", file, e[i].name,
                 (long long)e[i].end, (long long)data_bytes);
        if (e[i].begin != at)
            FAIL(err, CB_E_FORMAT, "%s: tensor %s: data_offsets begin at %lld, %s; wanted %lld, where %s", file, e[i].name,
                 (long long)e[i].begin, e[i].begin < at ? "inside another tensor" : "after a hole", (long long)at,
                 i ? "the tensor before it ends" : "the data begins");
    }
    if (at != data_bytes)
        FAIL(err, CB_E_FORMAT, "%s: %lld trailing bytes after the last tensor; wanted a file size of %lld less", file,
             (long long)(data_bytes - at), (long long)(data_bytes - at));
    return CB_OK;
}

static enum cb_status header_read(struct tensors *t, struct entry *entries, json_t *header, struct map *map, int64_t data_at,
                                  struct cb_err *err) {
    const char *name;
    json_t *value;
    int n = 0;
    json_object_foreach(header, name, value) {
        if (!strcmp(name, "__metadata__")) {
            TRY(metadata_check(value, map_name(map), err));
            tensors_set_metadata(t, value);
            continue;
        }
        char where[700];
        snprintf(where, sizeof where, "%.300s: tensor %.300s", map_name(map), name);
        entries[n] = (struct entry){.name = name, .order = n};
        TRY(entry_read(&entries[n], value, where, err));
        n++;
    }
    qsort(entries, (size_t)n, sizeof *entries, entry_order);
    TRY(places_check(entries, n, (int64_t)map_size(map) - data_at, map_name(map), err));
    for (int i = 0; i < n; i++) TRY(tensors_add(t, entries[i].name, &entries[i].type, map, data_at + entries[i].begin, err));
    return CB_OK;
}

enum cb_status tensors_read(struct tensors **out, struct map *map, struct cb_err *err) {
    *out = NULL;
    size_t length = 0;
    json_t *header = NULL;
    char where[400];
    TRY(header_length(&length, map, err));
    snprintf(where, sizeof where, "%.380s: header", map_name(map));
    TRY(json_parse_object(&header, (const char *)map_data(map) + 8, length, where, err));
    struct entry *entries = calloc(json_object_size(header) + 1, sizeof *entries);
    enum cb_status status = entries ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", where);
    if (status == CB_OK) status = tensors_create(out, map_name(map), err);
    if (status == CB_OK) status = header_read(*out, entries, header, map, 8 + (int64_t)length, err);
    free(entries);
    json_decref(header);
    if (status != CB_OK) tensors_destroy(out);
    return status;
}
