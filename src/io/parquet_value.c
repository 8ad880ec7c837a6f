/* Values of Parquet pages: runs, deltas, dictionaries, plain (Encodings.md), each as JSON. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/parquet_private.h"

enum {
    PLAIN,
    PLAIN_DICTIONARY = 2,
    RLE,
    BIT_PACKED,
    DELTA_BINARY_PACKED,
    DELTA_LENGTH_BYTE_ARRAY,
    DELTA_BYTE_ARRAY,
    RLE_DICTIONARY,
    BYTE_STREAM_SPLIT,
};

// ---- runs and packed bits

static bool varint(const unsigned char *data, size_t n, size_t *at, uint64_t *out) {
    *out = 0;
    for (int shift = 0; shift < 64 && *at < n; shift += 7) {
        unsigned char byte = data[(*at)++];
        *out |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

// `width` bits from bit `from` of data, the lowest first; the caller has seen that they are there.
static uint64_t bits_at(const unsigned char *data, uint64_t from, int width) {
    uint64_t value = 0;
    for (int got = 0; got < width;) {
        int shift = (int)(from & 7), take = 8 - shift < width - got ? 8 - shift : width - got;
        value |= (uint64_t)(data[from >> 3] >> shift & ((1u << take) - 1)) << got;
        got += take, from += (uint64_t)take;
    }
    return value;
}

bool parquet_bits_next(struct parquet_bits *b, uint32_t *value) {
    *value = 0;
    if (!b->width) return true;
    while (!b->run) {
        uint64_t head;
        if (!varint(b->data, b->n, &b->at, &head)) return false;
        b->packed = head & 1;
        b->bit = 0;
        size_t left = b->n - b->at, bytes = ((size_t)b->width + 7) / 8;
        if (b->packed) {
            // groups of 8 values; the last may be cut short
            uint64_t groups = head >> 1;
            if (groups > left / (size_t)b->width + 1) groups = left / (size_t)b->width + 1;
            b->run = groups * 8;
            if (b->run > (uint64_t)left * 8 / (uint64_t)b->width) b->run = (uint64_t)left * 8 / (uint64_t)b->width;
            if (!b->run) return false;
        } else {
            if (left < bytes) return false;
            b->run = head >> 1;
            for (size_t i = 0; i < bytes; i++) b->value = (i ? b->value : 0) | (uint32_t)b->data[b->at + i] << 8 * i;
            b->at += bytes;
        }
    }
    *value = b->packed ? (uint32_t)bits_at(b->data + b->at, b->bit, b->width) : b->value;
    b->bit += (uint64_t)b->width;
    if (--b->run == 0 && b->packed) b->at += (size_t)((b->bit + 7) / 8);
    return true;
}

// ---- deltas

bool parquet_delta_begin(struct parquet_delta *d, const unsigned char *data, size_t n) {
    uint64_t first;
    *d = (struct parquet_delta){.data = data, .n = n, .first = true};
    if (!varint(data, n, &d->at, &d->block_size) || !varint(data, n, &d->at, &d->n_minis) || !varint(data, n, &d->at, &d->left) ||
        !varint(data, n, &d->at, &first))
        return false;
    if (!d->n_minis || d->n_minis > sizeof d->widths || d->block_size > 1 << 20 || d->block_size % d->n_minis) return false;
    d->per_mini = d->block_size / d->n_minis;
    d->last = (int64_t)(first >> 1) ^ -(int64_t)(first & 1);
    return d->per_mini > 0 && d->per_mini % 8 == 0;
}

static bool delta_block(struct parquet_delta *d) {
    uint64_t least;
    if (!varint(d->data, d->n, &d->at, &least) || d->n - d->at < d->n_minis) return false;
    d->least = (int64_t)(least >> 1) ^ -(int64_t)(least & 1);
    memcpy(d->widths, d->data + d->at, d->n_minis);
    d->at += d->n_minis;
    d->block_left = d->block_size;
    d->mini = 0;
    d->mini_left = d->per_mini;
    d->bit = 0;
    return true;
}

bool parquet_delta_next(struct parquet_delta *d, int64_t *value) {
    if (!d->left) return false;
    d->left--;
    if (d->first) {
        d->first = false;
        *value = d->last;
        return true;
    }
    if (!d->block_left && !delta_block(d)) return false;
    if (!d->mini_left) {
        d->at += (size_t)(d->per_mini * d->widths[d->mini] / 8);
        d->mini++;
        d->mini_left = d->per_mini;
        d->bit = 0;
    }
    int width = d->widths[d->mini];
    if (width > 64 || d->at > d->n || d->bit + (uint64_t)width > (uint64_t)(d->n - d->at) * 8) return false;
    uint64_t delta = bits_at(d->data + d->at, d->bit, width);
    d->bit += (uint64_t)width;
    d->mini_left--;
    if (--d->block_left == 0) d->at += (size_t)(d->per_mini * (uint64_t)width / 8);
    d->last = (int64_t)((uint64_t)d->last + (uint64_t)d->least + delta);
    *value = d->last;
    return true;
}

// Where the bytes after a run of deltas begin; SIZE_MAX where it is damaged. left: how many at most.
static size_t delta_end(const unsigned char *data, size_t n, int64_t left) {
    struct parquet_delta d;
    int64_t ignored;
    if (!parquet_delta_begin(&d, data, n) || d.left > (uint64_t)left) return SIZE_MAX;
    uint64_t total = d.left;
    while (d.left)
        if (!parquet_delta_next(&d, &ignored)) return SIZE_MAX;
    // the last block may have miniblocks that hold no value; they are not stored, but the one begun is whole
    if (total > 1 && d.block_left && d.bit) d.at += (size_t)(d.per_mini * d.widths[d.mini] / 8);
    return d.at > n ? SIZE_MAX : d.at;
}

// ---- a page's values

static bool begin_lengths(struct parquet_column *c, struct parquet_delta *lengths, size_t from, int64_t n) {
    size_t end = delta_end(c->data + from, c->n_data - from, n);
    if (end == SIZE_MAX) return false;
    c->data_at = from + end;
    return parquet_delta_begin(lengths, c->data + from, c->n_data - from);
}

enum cb_status parquet_values_begin(struct parquet *p, struct parquet_column *c, int64_t n, struct cb_err *err) {
    bool bytes = c->node->type == PARQUET_BYTES || c->node->type == PARQUET_FIXED, good = true;
    c->bit = 0;
    c->n_previous = 0;
    if (c->is_skipped) return CB_OK;
    switch (c->encoding) {
        case PLAIN: return CB_OK;
        case PLAIN_DICTIONARY:
        case RLE_DICTIONARY:
            c->index = (struct parquet_bits){.data = c->data + 1, .n = c->n_data ? c->n_data - 1 : 0, .width = c->n_data ? c->data[0] : 0};
            good = c->index.width <= 32;
            break;
        case RLE:
            good = c->node->type == PARQUET_BOOLEAN && c->n_data >= 4;
            c->index = (struct parquet_bits){.data = c->data + 4, .n = c->n_data >= 4 ? c->n_data - 4 : 0, .width = 1};
            break;
        case DELTA_BINARY_PACKED:
            good = (c->node->type == PARQUET_INT32 || c->node->type == PARQUET_INT64) && parquet_delta_begin(&c->delta, c->data, c->n_data);
            break;
        case DELTA_LENGTH_BYTE_ARRAY: good = bytes && begin_lengths(c, &c->delta, 0, n); break;
        case DELTA_BYTE_ARRAY: good = bytes && begin_lengths(c, &c->delta, 0, n) && begin_lengths(c, &c->suffix, c->data_at, n); break;
        case BYTE_STREAM_SPLIT: good = c->node->type != PARQUET_BOOLEAN && c->node->type != PARQUET_BYTES; break;
        default:
            FAIL(err, CB_E_UNSUPPORTED,
                 "%s: column %s: encoding number %d; wanted plain, dictionary, run-length, delta or byte stream split", p->name,
                 c->node->name, c->encoding);
    }
    return good ? CB_OK : parquet_damaged(p, c, "the values of a page are damaged", err);
}

static size_t type_width(const struct parquet_node *n) {
    static const size_t widths[] = {
        [PARQUET_INT32] = 4, [PARQUET_INT64] = 8, [PARQUET_INT96] = 12, [PARQUET_FLOAT] = 4, [PARQUET_DOUBLE] = 8};
    return n->type == PARQUET_FIXED ? (size_t)n->width : widths[n->type];
}

// The bytes of the next value of a type of fixed width.
static const unsigned char *fixed_bytes(struct parquet_column *c, unsigned char split[64]) {
    size_t width = type_width(c->node);
    if (c->encoding == RLE_DICTIONARY || c->encoding == PLAIN_DICTIONARY) {
        uint32_t index;
        if (!parquet_bits_next(&c->index, &index) || index >= c->n_entries || (index + (size_t)1) * width > c->n_dictionary) return NULL;
        return c->dictionary + index * width;
    }
    if (c->encoding == BYTE_STREAM_SPLIT) {
        size_t n = width ? c->n_data / width : 0;
        if (width > 64 || c->data_at >= n) return NULL;
        for (size_t i = 0; i < width; i++) split[i] = c->data[i * n + c->data_at];
        c->data_at++;
        return split;
    }
    if (c->encoding != PLAIN || width > c->n_data - c->data_at) return NULL;
    c->data_at += width;
    return c->data + c->data_at - width;
}

// The next byte array.
static const unsigned char *next_bytes(struct parquet_column *c, size_t *n) {
    int64_t length, prefix;
    uint32_t index, stored;
    if (c->encoding == PLAIN) {
        if (c->n_data - c->data_at < 4) return NULL;
        memcpy(&stored, c->data + c->data_at, 4);
        if (stored > c->n_data - c->data_at - 4) return NULL;
        *n = stored;
        c->data_at += 4 + (size_t)stored;
        return c->data + c->data_at - stored;
    }
    if (c->encoding == RLE_DICTIONARY || c->encoding == PLAIN_DICTIONARY) {
        if (!parquet_bits_next(&c->index, &index) || index >= c->n_entries) return NULL;
        *n = c->offset[index + 1] - 4 - c->offset[index];
        return c->dictionary + c->offset[index];
    }
    bool prefixed = c->encoding == DELTA_BYTE_ARRAY;
    if (prefixed && (!parquet_delta_next(&c->delta, &prefix) || prefix < 0 || (size_t)prefix > c->n_previous)) return NULL;
    if (!parquet_delta_next(prefixed ? &c->suffix : &c->delta, &length) || length < 0 || (uint64_t)length > c->n_data - c->data_at)
        return NULL;
    const unsigned char *suffix = c->data + c->data_at;
    c->data_at += (size_t)length;
    *n = (size_t)length;
    if (!prefixed) return suffix;
    *n += (size_t)prefix;
    if (*n > c->previous_room || !c->previous) {
        char *more = realloc(c->previous, 2 * *n + 1);
        if (!more) return NULL;
        c->previous = more, c->previous_room = 2 * *n;
    }
    memcpy(c->previous + prefix, suffix, (size_t)length);
    c->n_previous = *n;
    return (unsigned char *)c->previous;
}

// ---- as JSON

static enum cb_status give_text(struct parquet *p, struct parquet_column *c, json_t **out, const unsigned char *bytes, size_t n,
                                struct cb_err *err) {
    const char *text = (const char *)bytes;
    *out = json_stringn(text, n);
    // bytes of no declared type are text where they are UTF-8
    if (!*out && !c->node->is_text) {
        c->holds_bytes = true;
        *out = json_null();
    }
    if (*out) return CB_OK;
    if (p->repair) TRY(p->repair(p->user, &text, &n, err));
    *out = json_stringn(text, n);
    if (!*out) FAIL(err, CB_E_FORMAT, "%s: column %s: found text that is not UTF-8", p->name, c->node->name);
    return CB_OK;
}

static json_t *give_integer(const struct parquet_node *node, int64_t v) {
    if (node->is_unsigned && node->type == PARQUET_INT32) v &= 0xffffffff;
    return node->is_unsigned && v < 0 ? json_real((double)(uint64_t)v) : json_integer(v);
}

/* Nanoseconds of a day and the number of the Julian day, as Impala and Spark wrote times. */
static json_t *give_int96(const unsigned char *bytes) {
    int64_t nanoseconds, time;
    int32_t day;
    memcpy(&nanoseconds, bytes, 8);
    memcpy(&day, bytes + 8, 4);
    const int64_t days = (int64_t)day - 2440588;
    if (__builtin_mul_overflow(days, (int64_t)86400000000000, &time) || __builtin_add_overflow(time, nanoseconds, &time))
        return json_null();
    return json_integer(time);
}

static json_t *give_fixed(const struct parquet_node *node, const unsigned char *bytes) {
    int32_t i32;
    int64_t i64;
    float f32;
    double f64 = 0;
    switch (node->type) {
        case PARQUET_INT32: memcpy(&i32, bytes, 4); return give_integer(node, i32);
        case PARQUET_INT64: memcpy(&i64, bytes, 8); return give_integer(node, i64);
        case PARQUET_INT96: return give_int96(bytes);
        case PARQUET_FLOAT:
            memcpy(&f32, bytes, 4);
            f64 = (double)f32;
            break;
        case PARQUET_DOUBLE: memcpy(&f64, bytes, 8); break;
        default: return json_null();
    }
    return isfinite(f64) ? json_real(f64) : json_null();
}

static bool next_boolean(struct parquet_column *c, bool *value) {
    uint32_t bit;
    if (c->encoding == RLE) {
        if (!parquet_bits_next(&c->index, &bit)) return false;
        *value = bit;
        return true;
    }
    if (c->encoding != PLAIN || c->data_at >= c->n_data) return false;
    *value = c->data[c->data_at] >> c->bit & 1;
    c->bit = (c->bit + 1) & 7;
    c->data_at += c->bit == 0;
    return true;
}

enum cb_status parquet_value(struct parquet *p, struct parquet_column *c, json_t **out, struct cb_err *err) {
    unsigned char split[64];
    const unsigned char *bytes = NULL;
    int64_t number;
    size_t n = 0;
    bool yes = false;
    *out = NULL;
    if (c->is_skipped) {
        *out = json_null();
    } else if (c->node->type == PARQUET_BOOLEAN) {
        if (!next_boolean(c, &yes)) return parquet_damaged(p, c, "a page has fewer values than it says", err);
        *out = json_boolean(yes);
    } else if (c->encoding == DELTA_BINARY_PACKED) {
        if (!parquet_delta_next(&c->delta, &number)) return parquet_damaged(p, c, "a page has fewer values than it says", err);
        *out = give_integer(c->node, c->node->type == PARQUET_INT32 ? (int32_t)number : number);
    } else if (c->node->type == PARQUET_BYTES ||
               (c->node->type == PARQUET_FIXED && c->encoding >= DELTA_LENGTH_BYTE_ARRAY && c->encoding <= DELTA_BYTE_ARRAY)) {
        if (!(bytes = next_bytes(c, &n))) return parquet_damaged(p, c, "a page has fewer values than it says", err);
        return give_text(p, c, out, bytes, n, err);
    } else {
        if (!(bytes = fixed_bytes(c, split))) return parquet_damaged(p, c, "a page has fewer values than it says", err);
        *out = give_fixed(c->node, bytes);
    }
    if (!*out) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    return CB_OK;
}
