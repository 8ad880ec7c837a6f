/* Reads the header of a GGUF file and of the other parts where it is split, and refuses whatever does not fit the file. */
#include "io/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/name.h"
#include "base/table.h"
#include "io/gguf_private.h"

enum { MAX_DIMS = 4, MAX_NAME = 63, USUAL_ALIGNMENT = 32, MAX_PARTS = 99999 };

static const struct {
    const char *name;
    int bytes;
} types[GGUF_TYPE_COUNT] = {
#define GGUF_X(NAME, name, number, bytes) [number] = {name, bytes},
    GGUF_TYPE_LIST(GGUF_X)
#undef GGUF_X
};
const char *gguf_type_name(enum gguf_type type) { return (unsigned)type < GGUF_TYPE_COUNT ? types[type].name : "?"; }
int gguf_type_bytes(enum gguf_type type) { return types[type].bytes; }

/* ---- numbers of tensor types (ggml.h; 4, 5, 31-33 and 36-38 were given up) */
static const struct {
    uint32_t number;
    enum cb_dtype dtype;
} tensor_types[] = {
    {0, CB_DTYPE_F32},     {1, CB_DTYPE_F16},      {2, CB_DTYPE_Q4_0},   {3, CB_DTYPE_Q4_1},    {6, CB_DTYPE_Q5_0},
    {7, CB_DTYPE_Q5_1},    {8, CB_DTYPE_Q8_0},     {9, CB_DTYPE_Q8_1},   {10, CB_DTYPE_Q2_K},   {11, CB_DTYPE_Q3_K},
    {12, CB_DTYPE_Q4_K},   {13, CB_DTYPE_Q5_K},    {14, CB_DTYPE_Q6_K},  {15, CB_DTYPE_Q8_K},   {16, CB_DTYPE_IQ2_XXS},
    {17, CB_DTYPE_IQ2_XS}, {18, CB_DTYPE_IQ3_XXS}, {19, CB_DTYPE_IQ1_S}, {20, CB_DTYPE_IQ4_NL}, {21, CB_DTYPE_IQ3_S},
    {22, CB_DTYPE_IQ2_S},  {23, CB_DTYPE_IQ4_XS},  {24, CB_DTYPE_I8},    {25, CB_DTYPE_I16},    {26, CB_DTYPE_I32},
    {27, CB_DTYPE_I64},    {28, CB_DTYPE_F64},     {29, CB_DTYPE_IQ1_M}, {30, CB_DTYPE_BF16},   {34, CB_DTYPE_TQ1_0},
    {35, CB_DTYPE_TQ2_0},  {39, CB_DTYPE_MXFP4},   {40, CB_DTYPE_NVFP4}, {41, CB_DTYPE_Q1_0},
};
enum { N_TENSOR_TYPES = sizeof tensor_types / sizeof *tensor_types };

int gguf_dtype_number(enum cb_dtype dtype) {
    for (int i = 0; i < N_TENSOR_TYPES; i++)
        if (tensor_types[i].dtype == dtype) return (int)tensor_types[i].number;
    return -1;
}
enum cb_dtype gguf_dtype(uint32_t number) {
    for (int i = 0; i < N_TENSOR_TYPES; i++)
        if (tensor_types[i].number == number) return tensor_types[i].dtype;
    return CB_DTYPE_COUNT;
}

/* ---- bytes; `what` names what is read */
struct reader {
    const unsigned char *data;
    size_t size, at;
    const char *path;
    char what[160];
};

static enum cb_status take(struct reader *r, size_t n, struct cb_err *err) {
    if (n > r->size - r->at)
        FAIL(err, CB_E_FORMAT, "%s: %s: truncated, %zu bytes wanted at %zu; the file has %zu", r->path, r->what, n, r->at, r->size);
    r->at += n;
    return CB_OK;
}
static enum cb_status take_u32(struct reader *r, uint32_t *out, struct cb_err *err) {
    TRY(take(r, 4, err));
    *out = (uint32_t)gguf_word(r->data + r->at - 4, 4);
    return CB_OK;
}
static enum cb_status take_u64(struct reader *r, uint64_t *out, struct cb_err *err) {
    TRY(take(r, 8, err));
    *out = gguf_word(r->data + r->at - 8, 8);
    return CB_OK;
}
static enum cb_status take_string(struct reader *r, const unsigned char **text, size_t *n, struct cb_err *err) {
    uint64_t length;
    TRY(take_u64(r, &length, err));
    if (length > r->size - r->at)
        FAIL(err, CB_E_FORMAT, "%s: %s: truncated, length %llu at %zu; the file has %zu bytes", r->path, r->what,
             (unsigned long long)length, r->at, r->size);
    *text = r->data + r->at;
    *n = (size_t)length;
    r->at += *n;
    return CB_OK;
}

/* Continuation bytes after a first byte of UTF-8 (RFC 3629), -1 where it cannot begin a character. */
static bool is_utf8(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        unsigned c = p[i++];
        int more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : -1;
        if (more < 0 || (size_t)more > n - i) return false;
        if (more && ((c == 0xe0 && p[i] < 0xa0) || (c == 0xed && p[i] > 0x9f) || (c == 0xf0 && p[i] < 0x90) || (c == 0xf4 && p[i] > 0x8f)))
            return false;
        for (; more > 0; more--, i++)
            if ((p[i] & 0xc0) != 0x80) return false;
    }
    return true;
}

/* A name of a key or tensor: UTF-8 without control characters. Copied into the arena. */
static enum cb_status take_name(struct reader *r, struct gguf *g, const char *kind, int number, const char **out, struct cb_err *err) {
    const unsigned char *text = NULL;
    size_t n = 0;
    snprintf(r->what, sizeof r->what, "name of %s %d", kind, number);
    TRY(take_string(r, &text, &n, err));
    if (!n) FAIL(err, CB_E_FORMAT, "%s: %s: empty; wanted a text", r->path, r->what);
    if (!is_utf8(text, n)) FAIL(err, CB_E_FORMAT, "%s: %s: not UTF-8", r->path, r->what);
    for (size_t i = 0; i < n; i++)
        if (text[i] < 0x20) FAIL(err, CB_E_FORMAT, "%s: %s: byte %d at %zu; wanted no control characters", r->path, r->what, text[i], i);
    if (!(*out = arena_strndup(g->arena, (const char *)text, n))) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    snprintf(r->what, sizeof r->what, "%s %.120s", kind, *out);
    return CB_OK;
}

/* ---- keys */

static enum cb_status check_bools(const struct reader *r, const struct gguf_key *key, struct cb_err *err) {
    for (int64_t i = 0; key->type == GGUF_BOOL && i < key->n; i++)
        if (key->data[i] > 1) FAIL(err, CB_E_FORMAT, "%s: %s: bool of value %d; wanted 0 or 1", r->path, r->what, key->data[i]);
    return CB_OK;
}

static enum cb_status take_value(struct reader *r, struct gguf_key *key, struct cb_err *err) {
    uint32_t type;
    uint64_t n = 1;
    TRY(take_u32(r, &type, err));
    key->is_array = type == GGUF_ARRAY;
    if (key->is_array) {
        TRY(take_u32(r, &type, err));
        if (type == GGUF_ARRAY) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: nested arrays; wanted an array of plain values", r->path, r->what);
        TRY(take_u64(r, &n, err));
    }
    if (type >= GGUF_TYPE_COUNT)
        FAIL(err, CB_E_FORMAT, "%s: %s: value type %u; wanted one below %d", r->path, r->what, type, GGUF_TYPE_COUNT);
    // strings take 8 bytes at least
    const size_t each = type == GGUF_STR ? 8 : (size_t)types[type].bytes;
    if (n > (r->size - r->at) / each)
        FAIL(err, CB_E_FORMAT, "%s: %s: truncated, length %llu of %s at %zu; the file has %zu bytes", r->path, r->what,
             (unsigned long long)n, types[type].name, r->at, r->size);
    key->type = (enum gguf_type)type;
    key->n = (int64_t)n;
    key->data = r->data + r->at;
    if (type != GGUF_STR) TRY(take(r, (size_t)n * each, err));
    for (uint64_t i = 0; type == GGUF_STR && i < n; i++) {
        const unsigned char *text = NULL;
        size_t length = 0;
        TRY(take_string(r, &text, &length, err));
        if (!key->is_array && !is_utf8(text, length)) FAIL(err, CB_E_FORMAT, "%s: %s: the text is not UTF-8", r->path, r->what);
    }
    key->bytes = (size_t)(r->data + r->at - key->data);
    return check_bools(r, key, err);
}

/* Room for element n of a list that doubles: what is allocated follows what has been read, not what the file claims. */
static void *grow(void *list, uint64_t n, size_t bytes) {
    if (n & (n - 1)) return list;
    return realloc(list, (n ? (size_t)n * 2 : 1) * bytes);
}

static enum cb_status read_keys(struct reader *r, struct gguf *g, uint64_t count, struct cb_err *err) {
    if (count > r->size)
        FAIL(err, CB_E_FORMAT, "%s: key count %llu; the file of %zu bytes has no room for them", r->path, (unsigned long long)count,
             r->size);
    for (uint64_t i = 0; i < count; i++) {
        void *keys = grow(g->keys, i, sizeof *g->keys);
        if (!keys) FAIL(err, CB_E_MEMORY, "%s: out of memory for %llu keys", r->path, (unsigned long long)count);
        g->keys = keys;
        struct gguf_key *key = &g->keys[i];
        memset(key, 0, sizeof *key);
        TRY(take_name(r, g, "key", (int)i, &key->name, err));
        if (gguf_find(g, key->name)) FAIL(err, CB_E_NAME, "%s: %s: duplicate; wanted each key once", r->path, r->what);
        TRY(take_value(r, key, err));
        TRY(table_put(&g->by_name, key->name, strlen(key->name), (int64_t)i, err));
        g->n_keys++;
    }
    return CB_OK;
}

/* ---- tensors */
struct info {
    const char *name;
    struct cb_type type;
    uint64_t offset;  // in the data section
};

static enum cb_status take_info(struct reader *r, struct gguf *g, int number, struct info *info, struct cb_err *err) {
    uint32_t n_dims, type;
    uint64_t dim[MAX_DIMS];
    TRY(take_name(r, g, "tensor", number, &info->name, err));
    if (strlen(info->name) > MAX_NAME)
        FAIL(err, CB_E_FORMAT, "%s: %s: a name of %zu bytes; wanted at most %d", r->path, r->what, strlen(info->name), MAX_NAME);
    TRY(take_u32(r, &n_dims, err));
    if (n_dims < 1 || n_dims > MAX_DIMS)
        FAIL(err, CB_E_FORMAT, "%s: %s: %u dimensions; wanted 1 to %d", r->path, r->what, n_dims, MAX_DIMS);
    for (uint32_t i = 0; i < n_dims; i++) TRY(take_u64(r, &dim[i], err));
    TRY(take_u32(r, &type, err));
    TRY(take_u64(r, &info->offset, err));
    info->type = (struct cb_type){.dtype = gguf_dtype(type), .rank = (int)n_dims};
    if (info->type.dtype == CB_DTYPE_COUNT) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: tensor type %u is not known", r->path, r->what, type);
    for (uint32_t i = 0; i < n_dims; i++) {
        if (dim[i] < 1 || dim[i] > INT64_MAX)
            FAIL(err, CB_E_SHAPE, "%s: %s: dimension %u is %llu; wanted 1 to 2^63 - 1 (or the size overflows)", r->path, r->what, i,
                 (unsigned long long)dim[i]);
        info->type.dim[n_dims - 1 - i] = (int64_t)dim[i];
    }
    char where[400];
    snprintf(where, sizeof where, "%.200s: %s", r->path, r->what);
    return type_check(&info->type, where, err);
}

/* By place: empty ranges do not occur. */
static int info_order(const void *a, const void *b) {
    const struct info *x = *(const struct info *const *)a, *y = *(const struct info *const *)b;
    return x->offset != y->offset ? x->offset < y->offset ? -1 : 1 : strcmp(x->name, y->name);
}

static enum cb_status check_places(const struct reader *r, const struct info *info, int n, int64_t alignment, int64_t start,
                                   struct cb_err *err) {
    const struct info **sorted = malloc(((size_t)n + 1) * sizeof *sorted);
    if (!sorted) FAIL(err, CB_E_MEMORY, "%s: out of memory for %d tensors", r->path, n);
    enum cb_status status = CB_OK;
    for (int i = 0; i < n && status == CB_OK; i++) {
        const struct info *t = sorted[i] = &info[i];
        if (t->offset % (uint64_t)alignment)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: tensor %s: offset %llu is not aligned; wanted a multiple of %lld",
                             r->path, t->name, (unsigned long long)t->offset, (long long)alignment);
        else if (start > (int64_t)r->size || t->offset > r->size - (size_t)start ||
                 (uint64_t)type_bytes(&t->type) > r->size - (size_t)start - t->offset)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__,
                             "%s: tensor %s: truncated, %lld bytes at offset %llu of the data at %lld; the file has %zu", r->path, t->name,
                             (long long)type_bytes(&t->type), (unsigned long long)t->offset, (long long)start, r->size);
    }
    if (status == CB_OK) qsort(sorted, (size_t)n, sizeof *sorted, info_order);
    for (int i = 1; i < n && status == CB_OK; i++)
        if (sorted[i]->offset - sorted[i - 1]->offset < (uint64_t)type_bytes(&sorted[i - 1]->type))
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: tensor %s: overlaps tensor %s", r->path, sorted[i]->name,
                             sorted[i - 1]->name);
    free(sorted);
    return status;
}

static enum cb_status add_infos(struct reader *r, struct gguf *g, struct map *map, const struct info *info, int n, struct cb_err *err) {
    int64_t alignment = USUAL_ALIGNMENT;
    TRY(gguf_get_int(&alignment, g, "general.alignment", 0, UINT32_MAX, false, err));
    if (alignment < 1 || (alignment & (alignment - 1)))
        FAIL(err, CB_E_FORMAT, "%s: general.alignment: found %lld; wanted a power of two", r->path, (long long)alignment);
    const int64_t start = ((int64_t)r->at + alignment - 1) / alignment * alignment;
    TRY(check_places(r, info, n, alignment, start, err));
    for (int i = 0; i < n; i++) TRY(tensors_add(g->tensors, info[i].name, &info[i].type, map, start + (int64_t)info[i].offset, err));
    return CB_OK;
}

static enum cb_status read_tensors(struct reader *r, struct gguf *g, struct map *map, uint64_t count, struct cb_err *err) {
    if (count > r->size || count > INT32_MAX)
        FAIL(err, CB_E_FORMAT, "%s: tensor count %llu; the file of %zu bytes has no room for them", r->path, (unsigned long long)count,
             r->size);
    struct info *info = NULL;
    enum cb_status status = CB_OK;
    for (uint64_t i = 0; i < count && status == CB_OK; i++) {
        struct info *grown = grow(info, i, sizeof *info);
        if (grown) info = grown;
        status =
            grown ? take_info(r, g, (int)i, &info[i], err)
                  : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory for %llu tensors", r->path, (unsigned long long)count);
    }
    if (status == CB_OK) status = add_infos(r, g, map, info, (int)count, err);
    free(info);
    return status;
}

/* ---- a file */

static enum cb_status read_start(struct reader *r, uint64_t *n_tensors, uint64_t *n_keys, struct cb_err *err) {
    uint32_t version;
    if (r->size < 4 || memcmp(r->data, "GGUF", 4) != 0) {
        char found[5] = "";
        for (size_t i = 0; i < 4 && i < r->size; i++) found[i] = (char)(r->data[i] > 32 && r->data[i] < 127 ? r->data[i] : '?');
        FAIL(err, CB_E_FORMAT, "%s: magic '%s' in a file of %zu bytes; wanted GGUF", r->path, found, r->size);
    }
    r->at = 4;
    snprintf(r->what, sizeof r->what, "version");
    TRY(take_u32(r, &version, err));
    if (version && (version & 0xffff) == 0) FAIL(err, CB_E_UNSUPPORTED, "%s: a big-endian file; wanted a little-endian one", r->path);
    if (version != 2 && version != 3) FAIL(err, CB_E_UNSUPPORTED, "%s: version %u; wanted 2 or 3", r->path, version);
    snprintf(r->what, sizeof r->what, "tensor count");
    TRY(take_u64(r, n_tensors, err));
    snprintf(r->what, sizeof r->what, "key count");
    return take_u64(r, n_keys, err);
}

/* Reads one file into g: keys too, where they are wanted; its tensors are added. */
static enum cb_status read_file(struct gguf *g, struct map *map, struct cb_err *err) {
    struct reader r = {.data = map_data(map), .size = map_size(map), .path = map_name(map)};
    uint64_t n_tensors = 0, n_keys = 0;
    TRY(read_start(&r, &n_tensors, &n_keys, err));
    TRY(read_keys(&r, g, n_keys, err));
    return read_tensors(&r, g, map, n_tensors, err);
}

void gguf_destroy(struct gguf **gguf) {
    struct gguf *g = gguf ? *gguf : NULL;
    if (!g) return;
    *gguf = NULL;
    tensors_destroy(&g->tensors);
    table_deinit(&g->by_name);
    free(g->keys);
    map_release(&g->map);
    arena_destroy(&g->arena);
    free(g);
}

enum cb_status gguf_read(struct gguf **out, struct map *map, struct cb_err *err) {
    *out = NULL;
    struct gguf *g = calloc(1, sizeof *g);
    if (g) g->arena = arena_create();
    if (!g || !g->arena) {
        free(g);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", map_name(map));
    }
    g->map = map_retain(map);
    enum cb_status status = tensors_create(&g->tensors, map_name(map), err);
    if (status == CB_OK) status = read_file(g, map, err);
    if (status != CB_OK) gguf_destroy(&g);
    *out = g;
    return status;
}

const char *gguf_name(const struct gguf *g) { return map_name(g->map); }
const struct tensors *gguf_tensors(const struct gguf *g) { return g->tensors; }
int gguf_n_keys(const struct gguf *g) { return g->n_keys; }
const struct gguf_key *gguf_key_at(const struct gguf *g, int i) { return &g->keys[i]; }
const struct gguf_key *gguf_find(const struct gguf *g, const char *name) {
    int64_t i = table_get(&g->by_name, name, strlen(name));
    return i < 0 ? NULL : &g->keys[i];
}

/* ---- parts */

bool gguf_is_path(const char *path) { return name_ends(path, ".gguf"); }

/* Number and count of a part, from its keys; 0 of 1 where there are none. */
static enum cb_status part_of(const struct gguf *g, int64_t *no, int64_t *count, struct cb_err *err) {
    *no = 0;
    *count = 1;
    TRY(gguf_get_int(count, g, "split.count", 0, MAX_PARTS, false, err));
    if (*count < 1) *count = 1;
    return gguf_get_int(no, g, "split.no", 0, *count - 1, false, err);
}

/* Adds the tensors of part i, which lies beside `path`. */
static enum cb_status part_add(struct gguf *into, const char *path, int64_t i, int64_t count, struct cb_err *err) {
    const int stem = (int)(strlen(path) - strlen("-00001-of-00003.gguf"));
    char name[4096];
    struct map *map = NULL;
    struct gguf *part = NULL;
    int64_t no = 0, n = 0;
    if (snprintf(name, sizeof name, "%.*s-%05lld-of-%05lld.gguf", stem, path, (long long)i + 1, (long long)count) >= (int)sizeof name)
        FAIL(err, CB_E_LIMIT, "%.200s...: the path is too long", path);
    enum cb_status status = map_open(&map, name, err);
    if (status == CB_OK) status = gguf_read(&part, map, err);
    if (status == CB_OK) status = part_of(part, &no, &n, err);
    if (status == CB_OK && (no != i || n != count))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: split.no %lld of %lld; wanted %lld of %lld", name, (long long)no,
                         (long long)n, (long long)i, (long long)count);
    for (int k = 0; status == CB_OK && k < tensors_count(part->tensors); k++) {
        const struct tensor *t = tensors_at(part->tensors, k);
        status = tensors_add(into->tensors, t->name, &t->type, t->map, t->offset, err);
    }
    if (status != CB_OK && map == NULL) err_prefix(err, "%s: split in %lld parts", path, (long long)count);
    gguf_destroy(&part);
    map_release(&map);
    return status;
}

static bool is_part_name(const char *path, int64_t no, int64_t count) {
    char end[64];
    snprintf(end, sizeof end, "-%05lld-of-%05lld.gguf", (long long)no + 1, (long long)count);
    return name_ends(path, end);
}

static enum cb_status open_one(struct gguf **out, const char *path, struct cb_err *err) {
    struct map *map;
    TRY(map_open(&map, path, err));
    enum cb_status status = gguf_read(out, map, err);
    map_release(&map);
    return status;
}

/* The whole of which *out is a part: the keys of the first one, the tensors of all. */
static enum cb_status gather(struct gguf **out, const char *path, int64_t no, int64_t count, struct cb_err *err) {
    if (!is_part_name(path, no, count))
        FAIL(err, CB_E_FORMAT, "%s: split.no %lld of split.count %lld; wanted a name that ends in -%05lld-of-%05lld.gguf", path,
             (long long)no, (long long)count, (long long)no + 1, (long long)count);
    if (no > 0) {
        char *first = strdup(path);
        if (!first) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
        memcpy(first + strlen(path) - strlen("00001-of-00003.gguf"), "00001", 5);
        gguf_destroy(out);
        enum cb_status status = open_one(out, first, err);
        if (status == CB_OK) status = part_of(*out, &no, &count, err);
        if (status == CB_OK && no != 0)
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: split.no %lld; wanted 0", first, (long long)no);
        free(first);
        TRY(status);
    }
    for (int64_t i = 1; i < count; i++) TRY(part_add(*out, path, i, count, err));
    int64_t n = tensors_count((*out)->tensors), want = n;
    TRY(gguf_get_int(&want, *out, "split.tensors.count", 0, INT32_MAX, false, err));
    if (want != n)
        FAIL(err, CB_E_FORMAT, "%s: %lld tensors in all parts; split.tensors.count says %lld", path, (long long)n, (long long)want);
    return CB_OK;
}

enum cb_status gguf_open(struct gguf **out, const char *path, struct cb_err *err) {
    int64_t no, count;
    TRY(open_one(out, path, err));
    enum cb_status status = part_of(*out, &no, &count, err);
    if (status == CB_OK && count > 1) status = gather(out, path, no, count, err);
    if (status != CB_OK) gguf_destroy(out);
    return status;
}
