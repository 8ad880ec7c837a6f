/* Writes GGUF files of version 3, whole or in parts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf_private.h"

enum { ALIGNMENT = 32, MAX_DIMS = 4, MAX_NAME = 63, PIECE = 1 << 18 /* elements, a multiple of every block */ };

/* Bytes that grow; out of memory is kept. */
struct bytes {
    unsigned char *data;
    size_t n, room;
    bool failed;
};

struct gguf_builder {
    struct bytes keys;
    int64_t n_keys;
};

static void add(struct bytes *b, const void *data, size_t n) {
    if (b->failed || !n) return;
    if (n > b->room - b->n) {
        size_t room = (b->n + n) * 2;
        unsigned char *grown = realloc(b->data, room);
        if (!grown) {
            b->failed = true;
            return;
        }
        b->data = grown;
        b->room = room;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
}
static void add_word(struct bytes *b, uint64_t word, int n) {
    unsigned char text[8];
    for (int i = 0; i < 8; i++) text[i] = (unsigned char)(word >> 8 * i);
    add(b, text, (size_t)n);
}
static void add_text(struct bytes *b, const char *text, size_t n) {
    add_word(b, n, 8);
    add(b, text, n);
}

enum cb_status gguf_builder_create(struct gguf_builder **builder, struct cb_err *err) {
    *builder = calloc(1, sizeof **builder);
    if (!*builder) FAIL(err, CB_E_MEMORY, "gguf: out of memory");
    return CB_OK;
}
void gguf_builder_destroy(struct gguf_builder **builder) {
    if (!builder || !*builder) return;
    free((*builder)->keys.data);
    free(*builder);
    *builder = NULL;
}

/* ---- keys */

static void begin(struct gguf_builder *b, const char *key, enum gguf_type type) {
    add_text(&b->keys, key, strlen(key));
    add_word(&b->keys, type, 4);
    b->n_keys++;
}
static uint64_t float_bits(double value) {
    float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

void gguf_put_int(struct gguf_builder *b, const char *key, enum gguf_type type, int64_t value) {
    begin(b, key, type);
    add_word(&b->keys, (uint64_t)value, gguf_type_bytes(type));
}
void gguf_put_f32(struct gguf_builder *b, const char *key, double value) {
    begin(b, key, GGUF_F32);
    add_word(&b->keys, float_bits(value), 4);
}
void gguf_put_bool(struct gguf_builder *b, const char *key, bool value) {
    begin(b, key, GGUF_BOOL);
    add_word(&b->keys, value, 1);
}
void gguf_put_str(struct gguf_builder *b, const char *key, const char *text) {
    begin(b, key, GGUF_STR);
    add_text(&b->keys, text, strlen(text));
}
void gguf_put_array(struct gguf_builder *b, const char *key, enum gguf_type type, const void *data, int64_t n) {
    const int bytes = gguf_type_bytes(type);
    begin(b, key, GGUF_ARRAY);
    add_word(&b->keys, type, 4);
    add_word(&b->keys, (uint64_t)n, 8);
    for (int64_t i = 0; i < n; i++) {
        uint64_t word = 0;
        uint16_t two;
        uint32_t four;
        const char *p = (const char *)data + i * bytes;
        if (bytes == 1) word = *(const unsigned char *)p;
        if (bytes == 2) memcpy(&two, p, 2), word = two;
        if (bytes == 4) memcpy(&four, p, 4), word = four;
        if (bytes == 8) memcpy(&word, p, 8);
        add_word(&b->keys, word, bytes);
    }
}
void gguf_put_strings(struct gguf_builder *b, const char *key, const char *const *text, const size_t *length, int64_t n) {
    begin(b, key, GGUF_ARRAY);
    add_word(&b->keys, GGUF_STR, 4);
    add_word(&b->keys, (uint64_t)n, 8);
    for (int64_t i = 0; i < n; i++) add_text(&b->keys, text[i], length[i]);
}
void gguf_put_key(struct gguf_builder *b, const struct gguf_key *key) {
    begin(b, key->name, key->is_array ? GGUF_ARRAY : key->type);
    if (key->is_array) {
        add_word(&b->keys, key->type, 4);
        add_word(&b->keys, (uint64_t)key->n, 8);
    }
    add(&b->keys, key->data, key->bytes);
}

/* ---- tensors */

static int64_t padded(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static enum cb_status check_items(const struct tensor_item *items, int n, tensor_fill *fill, const char *path, struct cb_err *err) {
    char text[TYPE_TEXT];
    for (int i = 0; i < n; i++) {
        const struct tensor_item *t = &items[i];
        TRY(type_check(&t->type, t->name, err));
        if (gguf_dtype_number(t->type.dtype) < 0 || t->type.rank < 1 || t->type.rank > MAX_DIMS || !type_elements(&t->type))
            FAIL(err, CB_E_DTYPE, "%s: tensor %s: found %s; wanted 1 to %d dimensions and a type that GGUF has", path, t->name,
                 type_text(&t->type, text), MAX_DIMS);
        if (!*t->name || strlen(t->name) > MAX_NAME)
            FAIL(err, CB_E_NAME, "%s: tensor %s: a name of %zu bytes; wanted 1 to %d", path, t->name, strlen(t->name), MAX_NAME);
        if (!t->data && !fill) FAIL(err, CB_E_ARGUMENT, "%s: tensor %s: no data and no source of it", path, t->name);
    }
    return CB_OK;
}

/* Everything before the data, padded. */
static void header_make(struct bytes *h, const struct gguf_builder *b, const struct tensor_item *items, int n) {
    int64_t at = 0;
    add(h, "GGUF", 4);
    add_word(h, 3, 4);
    add_word(h, (uint64_t)n, 8);
    add_word(h, (uint64_t)b->n_keys, 8);
    add(h, b->keys.data, b->keys.n);
    for (int i = 0; i < n; i++) {
        const struct cb_type *type = &items[i].type;
        add_text(h, items[i].name, strlen(items[i].name));
        add_word(h, (uint64_t)type->rank, 4);
        for (int d = type->rank - 1; d >= 0; d--) add_word(h, (uint64_t)type->dim[d], 8);
        add_word(h, (uint64_t)gguf_dtype_number(type->dtype), 4);
        add_word(h, (uint64_t)at, 8);
        at += padded(type_bytes(type));
    }
    while (h->n % ALIGNMENT && !h->failed) add_word(h, 0, 1);
}

static enum cb_status item_write(struct io_writer *w, const struct tensor_item *item, void *piece, tensor_fill *fill, void *context,
                                 struct cb_err *err) {
    static const char zeros[ALIGNMENT];
    const int64_t bytes = type_bytes(&item->type), n = type_elements(&item->type);
    const struct dtype *kind = dtype_of(item->type.dtype);
    if (item->data) TRY(io_writer_write(w, item->data, (size_t)bytes, err));
    for (int64_t first = 0; !item->data && first < n; first += PIECE) {
        int64_t count = n - first < PIECE ? n - first : PIECE;
        TRY(fill(context, piece, item, first, count, err));
        TRY(io_writer_write(w, piece, (size_t)(count / kind->block * kind->block_bytes), err));
    }
    return io_writer_write(w, zeros, (size_t)(padded(bytes) - bytes), err);
}

enum cb_status gguf_write(const char *path, const struct gguf_builder *b, const struct tensor_item *items, int n, tensor_fill *fill,
                          void *context, struct cb_err *err) {
    struct bytes header = {0};
    struct io_writer *w = NULL;
    TRY(check_items(items, n, fill, path, err));
    header_make(&header, b, items, n);
    void *piece = malloc((size_t)PIECE * 8);
    enum cb_status status = CB_OK;
    if (!piece || header.failed || b->keys.failed) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", path);
    if (status == CB_OK) status = io_writer_open(&w, path, err);
    if (status == CB_OK) status = io_writer_write(w, header.data, header.n, err);
    for (int i = 0; i < n && status == CB_OK; i++) status = item_write(w, &items[i], piece, fill, context, err);
    if (status == CB_OK)
        status = io_writer_commit(&w, err);
    else
        io_writer_abort(&w);
    free(piece);
    free(header.data);
    return status;
}

/* ---- parts */

/* Tensors of the part that begins with item `first`. */
static int part_items(const struct tensor_item *items, int n, int first, int64_t max_bytes) {
    int64_t bytes = 0;
    int i = first;
    while (i < n && (i == first || bytes + padded(type_bytes(&items[i].type)) <= max_bytes)) bytes += padded(type_bytes(&items[i++].type));
    return i - first;
}

static enum cb_status part_write(const char *path, int64_t part, int64_t n_parts, const struct gguf_builder *keys,
                                 const struct tensor_item *items, int n, int n_all, tensor_fill *fill, void *context, struct cb_err *err) {
    struct gguf_builder b = {0};
    char name[4096];
    const int stem = (int)(strlen(path) - (gguf_is_path(path) ? strlen(".gguf") : 0));
    if (snprintf(name, sizeof name, "%.*s-%05lld-of-%05lld.gguf", stem, path, (long long)part + 1, (long long)n_parts) >= (int)sizeof name)
        FAIL(err, CB_E_LIMIT, "%.200s...: the path is too long", path);
    if (part == 0) {
        add(&b.keys, keys->keys.data, keys->keys.n);
        b.n_keys = keys->n_keys;
    }
    gguf_put_int(&b, "split.no", GGUF_U16, part);
    gguf_put_int(&b, "split.count", GGUF_U16, n_parts);
    gguf_put_int(&b, "split.tensors.count", GGUF_I32, n_all);
    enum cb_status status = gguf_write(name, &b, items, n, fill, context, err);
    free(b.keys.data);
    return status;
}

enum cb_status gguf_write_split(const char *path, const struct gguf_builder *b, const struct tensor_item *items, int n, int64_t max_bytes,
                                tensor_fill *fill, void *context, int *n_files, struct cb_err *err) {
    int64_t n_parts = 0, part = 0;
    *n_files = 1;
    for (int first = 0; max_bytes > 0 && first < n; n_parts++) first += part_items(items, n, first, max_bytes);
    if (n_parts < 2) return gguf_write(path, b, items, n, fill, context, err);
    if (n_parts > 65535) FAIL(err, CB_E_LIMIT, "%s: %lld parts; wanted at most 65535", path, (long long)n_parts);
    if (b->keys.failed) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    for (int first = 0; first < n; part++) {
        int count = part_items(items, n, first, max_bytes);
        TRY(part_write(path, part, n_parts, b, items + first, count, n, fill, context, err));
        first += count;
    }
    *n_files = (int)n_parts;
    return CB_OK;
}
