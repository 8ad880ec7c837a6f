/* Reading Thrift's compact protocol (thrift-compact-protocol.md) from memory, within bounds. Sticky: after a failure everything reads as empty. */
#ifndef IO_THRIFT_H
#define IO_THRIFT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum thrift_type {
    THRIFT_STOP,
    THRIFT_TRUE,
    THRIFT_FALSE,
    THRIFT_BYTE,
    THRIFT_I16,
    THRIFT_I32,
    THRIFT_I64,
    THRIFT_DOUBLE,
    THRIFT_BINARY,
    THRIFT_LIST,
    THRIFT_SET,
    THRIFT_MAP,
    THRIFT_STRUCT,
};
#define THRIFT_MAX_DEPTH 16

struct thrift {
    const unsigned char *data;
    size_t n, at;
    int depth;
    bool failed;
};
struct thrift_field {
    int id;
    enum thrift_type type;
};

uint64_t thrift_varint(struct thrift *t);
int64_t thrift_int(struct thrift *t);  // zigzag
/* Bytes of a string, borrowed. */
const char *thrift_binary(struct thrift *t, size_t *n);
/* The next field of a struct; false at its end. Begin with a zeroed field. */
bool thrift_next(struct thrift *t, struct thrift_field *field);
/* The length of a list that begins here, and the type of its items; at most as many as bytes are left. */
size_t thrift_list(struct thrift *t, enum thrift_type *type);
void thrift_skip(struct thrift *t, enum thrift_type type);
/* An integer field's value, within [0, INT32_MAX] or failed; fields of another type fail. */
int64_t thrift_count(struct thrift *t, const struct thrift_field *field);
#endif
