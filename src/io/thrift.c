/* Thrift's compact protocol: varints, strings, lists, structs of numbered fields. */
#include "io/thrift.h"

uint64_t thrift_varint(struct thrift *t) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && t->at < t->n && !t->failed; shift += 7) {
        unsigned char byte = t->data[t->at++];
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return value;
    }
    t->failed = true;
    return 0;
}

int64_t thrift_int(struct thrift *t) {
    uint64_t v = thrift_varint(t);
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

const char *thrift_binary(struct thrift *t, size_t *n) {
    uint64_t length = thrift_varint(t);
    if (t->failed || length > t->n - t->at) {
        t->failed = true;
        *n = 0;
        return "";
    }
    const char *text = (const char *)t->data + t->at;
    t->at += (size_t)length;
    *n = (size_t)length;
    return text;
}

bool thrift_next(struct thrift *t, struct thrift_field *field) {
    if (t->failed || t->at >= t->n) {
        t->failed = true;
        return false;
    }
    unsigned char byte = t->data[t->at++];
    if (!byte) return false;
    field->type = (enum thrift_type)(byte & 15);
    field->id = byte >> 4 ? field->id + (byte >> 4) : (int)thrift_int(t);
    if (field->type < THRIFT_TRUE || field->type > THRIFT_STRUCT) t->failed = true;
    return !t->failed;
}

size_t thrift_list(struct thrift *t, enum thrift_type *type) {
    if (t->failed || t->at >= t->n) {
        t->failed = true;
        return 0;
    }
    unsigned char byte = t->data[t->at++];
    uint64_t n = byte >> 4 == 15 ? thrift_varint(t) : byte >> 4;
    *type = (enum thrift_type)(byte & 15);
    if (n > t->n - t->at) t->failed = true;
    return t->failed ? 0 : (size_t)n;
}

static void skip_items(struct thrift *t, size_t n, enum thrift_type type) {
    // booleans of a list take a byte each
    for (size_t i = 0; i < n && !t->failed; i++) thrift_skip(t, type == THRIFT_TRUE || type == THRIFT_FALSE ? THRIFT_BYTE : type);
}

void thrift_skip(struct thrift *t, enum thrift_type type) {
    struct thrift_field field = {0};
    enum thrift_type item;
    size_t n;
    if (t->failed || t->depth >= THRIFT_MAX_DEPTH) {
        t->failed = true;
        return;
    }
    t->depth++;
    switch (type) {
        case THRIFT_TRUE:
        case THRIFT_FALSE: break;
        case THRIFT_BYTE: t->at++; break;
        case THRIFT_I16:
        case THRIFT_I32:
        case THRIFT_I64: thrift_varint(t); break;
        case THRIFT_DOUBLE: t->at += 8; break;
        case THRIFT_BINARY: thrift_binary(t, &n); break;
        case THRIFT_LIST:
        case THRIFT_SET:
            n = thrift_list(t, &item);
            skip_items(t, n, item);
            break;
        case THRIFT_MAP: {
            uint64_t pairs = thrift_varint(t);
            unsigned char kinds = pairs && t->at < t->n ? t->data[t->at++] : 0;
            for (uint64_t i = 0; i < pairs && !t->failed; i++) {
                skip_items(t, 1, (enum thrift_type)(kinds >> 4));
                skip_items(t, 1, (enum thrift_type)(kinds & 15));
            }
            break;
        }
        case THRIFT_STRUCT:
            while (thrift_next(t, &field)) thrift_skip(t, field.type);
            break;
        default: t->failed = true;
    }
    t->depth--;
    if (t->at > t->n) t->failed = true;
}

int64_t thrift_count(struct thrift *t, const struct thrift_field *field) {
    if (field->type < THRIFT_I16 || field->type > THRIFT_I64) {
        t->failed = true;
        return 0;
    }
    int64_t v = thrift_int(t);
    if (v < 0 || v > INT32_MAX) t->failed = true;
    return t->failed ? 0 : v;
}
