/* GGUF files (versions 2 and 3, little-endian; ggml's docs/gguf.md): keys with typed values, and tensors over the mapped file or its parts; and their writer. */
#ifndef IO_GGUF_H
#define IO_GGUF_H
#include "io/safetensors.h"

/* Types of values: X(NAME, name, number, bytes). */
#define GGUF_TYPE_LIST(X)   \
    X(U8, "u8", 0, 1)       \
    X(I8, "i8", 1, 1)       \
    X(U16, "u16", 2, 2)     \
    X(I16, "i16", 3, 2)     \
    X(U32, "u32", 4, 4)     \
    X(I32, "i32", 5, 4)     \
    X(F32, "f32", 6, 4)     \
    X(BOOL, "bool", 7, 1)   \
    X(STR, "str", 8, 0)     \
    X(ARRAY, "array", 9, 0) \
    X(U64, "u64", 10, 8)    \
    X(I64, "i64", 11, 8)    \
    X(F64, "f64", 12, 8)
enum gguf_type {
#define GGUF_X(NAME, name, number, bytes) GGUF_##NAME = number,
    GGUF_TYPE_LIST(GGUF_X)
#undef GGUF_X
        GGUF_TYPE_COUNT
};
const char *gguf_type_name(enum gguf_type type);

/* One key. data: n elements as they lie in the file, unaligned (strings: each a u64 length and bytes); a plain value is one element. */
struct gguf_key {
    const char *name;
    enum gguf_type type;  // of the elements
    bool is_array;
    int64_t n;
    const unsigned char *data;
    size_t bytes;
};

struct gguf;

/* Opens a file, or, where it is a part of several (NAME-00001-of-00003.gguf), all of them. Everything but the tensors' bytes is checked. Owned by caller,
   free with gguf_destroy. */
enum cb_status gguf_open(struct gguf **gguf, const char *path, struct cb_err *err);
/* One mapped file alone. */
enum cb_status gguf_read(struct gguf **gguf, struct map *map, struct cb_err *err);
void gguf_destroy(struct gguf **gguf);
/* Whether a path ends as these files do. */
bool gguf_is_path(const char *path);

const char *gguf_name(const struct gguf *gguf);
/* Shapes are row-major: the reverse of the file's. Borrowed. */
const struct tensors *gguf_tensors(const struct gguf *gguf);
int gguf_n_keys(const struct gguf *gguf);
const struct gguf_key *gguf_key_at(const struct gguf *gguf, int i);
/* NULL where there is none. */
const struct gguf_key *gguf_find(const struct gguf *gguf, const char *name);
/* The number of a tensor type in these files, negative where they have none; and back: CB_DTYPE_COUNT where unknown. */
int gguf_dtype_number(enum cb_dtype dtype);
enum cb_dtype gguf_dtype(uint32_t number);

/* gguf_value.c. Typed getters: an absent key is CB_E_FORMAT if required; otherwise *out keeps the value that it has. A value of another type, an array or a
   number outside [min, max] is CB_E_FORMAT that names file and key. Integers may be stored in any integer type. */
enum cb_status gguf_get_int(int64_t *out, const struct gguf *gguf, const char *key, int64_t min, int64_t max, bool required,
                            struct cb_err *err);
/* f32 values become the shortest decimal number that reads back as the same f32: 1e-05, not 9.99999975e-06. */
enum cb_status gguf_get_float(double *out, const struct gguf *gguf, const char *key, double min, double max, bool required,
                              struct cb_err *err);
enum cb_status gguf_get_bool(bool *out, const struct gguf *gguf, const char *key, bool required, struct cb_err *err);
/* *out: borrowed from gguf; a text with a NUL inside is refused. */
enum cb_status gguf_get_str(const char **out, struct gguf *gguf, const char *key, bool required, struct cb_err *err);
/* An array of an exact element type; *key NULL where absent. */
enum cb_status gguf_get_array(const struct gguf_key **out, const struct gguf *gguf, const char *key, enum gguf_type type, bool required,
                              struct cb_err *err);
/* The string at *at of key->data; moves *at past it. */
const char *gguf_next_string(const struct gguf_key *key, size_t *at, size_t *n);
/* Element i of a value of numbers. */
double gguf_number(const struct gguf_key *key, int64_t i);
/* Any value as JSON: arrays longer than `most` (negative: none) as {"type","length"}; numbers past 2^63 - 1, infinities and bytes that are not UTF-8 as text. NULL
   when out of memory. */
json_t *gguf_json(const struct gguf_key *key, int64_t most);

/* gguf_write.c. Keys in the order in which they are added; a failure is kept until gguf_write. */
struct gguf_builder;
enum cb_status gguf_builder_create(struct gguf_builder **builder, struct cb_err *err);
void gguf_builder_destroy(struct gguf_builder **builder);
void gguf_put_int(struct gguf_builder *b, const char *key, enum gguf_type type, int64_t value);
void gguf_put_f32(struct gguf_builder *b, const char *key, double value);
void gguf_put_bool(struct gguf_builder *b, const char *key, bool value);
void gguf_put_str(struct gguf_builder *b, const char *key, const char *text);
/* n elements of a plain type from `data`, in this machine's memory layout. */
void gguf_put_array(struct gguf_builder *b, const char *key, enum gguf_type type, const void *data, int64_t n);
void gguf_put_strings(struct gguf_builder *b, const char *key, const char *const *text, const size_t *length, int64_t n);
/* A key of another file as it is. */
void gguf_put_key(struct gguf_builder *b, const struct gguf_key *key);
/* One file, atomically; tensors in their order, aligned to 32 bytes. Nullable: fill (if every item has data), context. */
enum cb_status gguf_write(const char *path, const struct gguf_builder *b, const struct tensor_item *items, int n, tensor_fill *fill,
                          void *context, struct cb_err *err);
/* PATH, or, where the tensors pass max_bytes (> 0), its parts STEM-00001-of-0000n.gguf; the keys are in the first. *n_files: how many. */
enum cb_status gguf_write_split(const char *path, const struct gguf_builder *b, const struct tensor_item *items, int n, int64_t max_bytes,
                                tensor_fill *fill, void *context, int *n_files, struct cb_err *err);
#endif
