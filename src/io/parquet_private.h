/* What the files of the Parquet reader share. Private to parquet*.c. */
#ifndef IO_PARQUET_PRIVATE_H
#define IO_PARQUET_PRIVATE_H
#include "base/arena.h"
#include "io/map.h"
#include "io/parquet.h"

#define PARQUET_MAX_NODES 10000
#define PARQUET_MAX_DEPTH 32
#define PARQUET_MAX_RATIO 1024  // entries of a column for each byte of the file: a small file cannot claim rows without end

enum parquet_type {
    PARQUET_BOOLEAN,
    PARQUET_INT32,
    PARQUET_INT64,
    PARQUET_INT96,
    PARQUET_FLOAT,
    PARQUET_DOUBLE,
    PARQUET_BYTES,
    PARQUET_FIXED,
    PARQUET_GROUP
};
enum parquet_repetition { PARQUET_REQUIRED, PARQUET_OPTIONAL, PARQUET_REPEATED };

/* One column or group of the schema. */
struct parquet_node {
    char *name;
    enum parquet_type type;
    enum parquet_repetition repetition;
    int32_t width;  // bytes of PARQUET_FIXED
    bool is_text, is_list, is_map, is_unsigned;
    bool is_plain;  // says nothing of what its bytes are
    int max_def, max_rep;
    struct parquet_node **child;
    size_t n_children;
    int leaf;  // number of a column; of a group: its first one
};

/* Bits packed or in runs (Encodings.md, RLE), value by value. */
struct parquet_bits {
    const unsigned char *data;
    size_t n, at;
    int width;
    uint64_t run;  // values left of it
    bool packed;
    uint32_t value;  // of a run
    uint64_t bit;  // of packed values: read so far
};
bool parquet_bits_next(struct parquet_bits *bits, uint32_t *value);

/* DELTA_BINARY_PACKED, value by value. */
struct parquet_delta {
    const unsigned char *data;
    size_t n, at;
    uint64_t left, block_left, mini_left, per_mini, n_minis, block_size;
    int64_t last, least;
    unsigned char widths[64];
    uint64_t mini, bit;
    bool first;
};
bool parquet_delta_begin(struct parquet_delta *d, const unsigned char *data, size_t n);
bool parquet_delta_next(struct parquet_delta *d, int64_t *value);

/* Where one column stands: its pages in the row group, its levels and values. */
struct parquet_column {
    const struct parquet_node *node;
    bool is_skipped;  // nothing of it is shown: always null
    bool holds_bytes;  // some of its values were no text, and became null
    // pages of the chunk
    const unsigned char *chunk;
    size_t n_chunk, at;
    int codec;
    int64_t chunk_left;  // values of the chunk that no page has given yet
    // the page
    unsigned char *page;  // unpacked; NULL: in the map
    size_t page_room;
    int64_t left;  // entries of the page
    struct parquet_bits rep, def, index;
    const unsigned char *data;
    size_t n_data, data_at;
    int encoding;
    struct parquet_delta delta, suffix;
    char *previous;  // of DELTA_BYTE_ARRAY
    size_t n_previous, previous_room;
    // the dictionary
    unsigned char *dictionary;
    size_t n_dictionary, dictionary_room;
    uint32_t *offset;  // of its byte arrays; n_entries + 1
    size_t n_entries;
    uint8_t bit;  // of plain booleans
    // the entry that comes next
    bool has_next;
    int next_rep, next_def;
};

struct parquet_chunk {
    int64_t values, offset, bytes;
    int codec;
};
struct parquet_group {
    int64_t rows;
    struct parquet_chunk *chunk;  // one a column
};

struct parquet {
    struct map *map;
    struct arena *arena;
    const char *name;
    struct parquet_node *root;
    struct parquet_node **leaf;
    size_t n_leaves;
    struct parquet_group *group;
    size_t n_groups, at_group;
    int64_t rows, row_left, bytes_read;
    struct parquet_column *column;
    parquet_repair_fn *repair;
    void *user;
};

/* parquet_schema.c: the foot of the file. */
enum cb_status parquet_read_foot(struct parquet *p, struct cb_err *err);
/* parquet_page.c: the next page of data; its dictionary before it. */
enum cb_status parquet_page_next(struct parquet *p, struct parquet_column *c, struct cb_err *err);
/* parquet_value.c: one value as JSON. */
enum cb_status parquet_value(struct parquet *p, struct parquet_column *c, json_t **out, struct cb_err *err);
/* The values of a page of data begin; n of them. */
enum cb_status parquet_values_begin(struct parquet *p, struct parquet_column *c, int64_t n, struct cb_err *err);
enum cb_status parquet_damaged(const struct parquet *p, const struct parquet_column *c, const char *what, struct cb_err *err);
#endif
