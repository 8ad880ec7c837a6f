/* Pages of Parquet columns: heads, decompression, dictionaries, levels. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "io/lz4.h"
#include "io/parquet_private.h"
#include "io/snappy.h"
#include "io/thrift.h"

enum { PAGE_DATA, PAGE_INDEX, PAGE_DICTIONARY, PAGE_DATA_2 };
enum { CODEC_NONE, CODEC_SNAPPY, CODEC_GZIP, CODEC_LZO, CODEC_BROTLI, CODEC_LZ4_FRAMED, CODEC_ZSTD, CODEC_LZ4 };
#define MAX_PAGE ((int64_t)256 << 20)

struct page_head {
    int64_t type, unpacked, packed, values, encoding, def_bytes, rep_bytes;
    bool plain;  // of version 2: the values are not compressed
};

enum cb_status parquet_damaged(const struct parquet *p, const struct parquet_column *c, const char *what, struct cb_err *err) {
    FAIL(err, CB_E_FORMAT, "%s: column %s: %s", p->name, c->node->name, what);
}

static void read_data_head(struct thrift *t, struct page_head *h, bool second) {
    struct thrift_field f = {0};
    while (thrift_next(t, &f)) {
        if (f.id == 1)
            h->values = thrift_count(t, &f);
        else if (f.id == (second ? 4 : 2))
            h->encoding = thrift_count(t, &f);
        else if (second && f.id == 5)
            h->def_bytes = thrift_count(t, &f);
        else if (second && f.id == 6)
            h->rep_bytes = thrift_count(t, &f);
        else if (second && f.id == 7)
            h->plain = f.type == THRIFT_FALSE;
        else
            thrift_skip(t, f.type);
    }
}

static void read_head(struct thrift *t, struct page_head *h) {
    struct thrift_field f = {0};
    *h = (struct page_head){.type = -1, .values = -1};
    while (thrift_next(t, &f)) {
        if (f.id == 1)
            h->type = thrift_count(t, &f);
        else if (f.id == 2)
            h->unpacked = thrift_count(t, &f);
        else if (f.id == 3)
            h->packed = thrift_count(t, &f);
        else if ((f.id == 5 || f.id == 7 || f.id == 8) && f.type == THRIFT_STRUCT)
            read_data_head(t, h, f.id == 8);
        else
            thrift_skip(t, f.type);
    }
}

static enum cb_status inflate_gzip(unsigned char *out, size_t n_out, const unsigned char *in, size_t n, bool *good) {
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)in, .avail_in = (unsigned)n, .next_out = out, .avail_out = (unsigned)n_out};
    *good = false;
    if (inflateInit2(&z, 15 + 32) != Z_OK) return CB_E_MEMORY;
    *good = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == n_out;
    inflateEnd(&z);
    return CB_OK;
}

static enum cb_status unpack(struct parquet *p, struct parquet_column *c, unsigned char *out, size_t n_out, const unsigned char *in,
                             size_t n, struct cb_err *err) {
    bool good = true;
    if (!n_out && !n) return CB_OK;
    if (c->codec == CODEC_SNAPPY) return snappy_unpack(out, n_out, in, n, p->name, err);
    if (c->codec == CODEC_LZ4) return lz4_unpack(out, n_out, in, n, p->name, err);
    if (c->codec == CODEC_LZ4_FRAMED) return lz4_unpack_framed(out, n_out, in, n, p->name, err);
    if (c->codec == CODEC_ZSTD) {
        good = ZSTD_decompress(out, n_out, in, n) == n_out;
    } else if (c->codec == CODEC_GZIP) {
        if (inflate_gzip(out, n_out, in, n, &good) != CB_OK) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    } else if (c->codec == CODEC_NONE) {
        good = n == n_out;
        if (good) memcpy(out, in, n);
    } else {
        FAIL(err, CB_E_UNSUPPORTED, "%s: column %s: compression number %d%s; wanted none, Snappy, gzip, LZ4 or zstd", p->name,
             c->node->name, c->codec,
             c->codec == CODEC_BROTLI ? " (Brotli)"
             : c->codec == CODEC_LZO  ? " (LZO)"
                                      : "");
    }
    return good ? CB_OK : parquet_damaged(p, c, "a compressed page is damaged", err);
}

static enum cb_status room_for(unsigned char **bytes, size_t *room, size_t n, const char *name, struct cb_err *err) {
    if (n <= *room && *bytes) return CB_OK;
    unsigned char *more = realloc(*bytes, n + 8);
    if (!more) FAIL(err, CB_E_MEMORY, "%s: out of memory for a page of %zu bytes", name, n);
    *bytes = more, *room = n;
    return CB_OK;
}

// ---- dictionaries

static enum cb_status take_dictionary(struct parquet *p, struct parquet_column *c, const struct page_head *h, const unsigned char *in,
                                      struct cb_err *err) {
    TRY(room_for(&c->dictionary, &c->dictionary_room, (size_t)h->unpacked, p->name, err));
    TRY(unpack(p, c, c->dictionary, (size_t)h->unpacked, in, (size_t)h->packed, err));
    c->n_dictionary = (size_t)h->unpacked;
    c->n_entries = (size_t)h->values;
    if (h->encoding != 0 && h->encoding != 2) return parquet_damaged(p, c, "a dictionary that is not plain", err);
    if (c->node->type != PARQUET_BYTES) return CB_OK;
    // where each of its byte arrays begins: behind its length
    if (c->n_entries > c->n_dictionary / 4) return parquet_damaged(p, c, "a dictionary shorter than its entries", err);
    uint32_t *offset = realloc(c->offset, (c->n_entries + 1) * sizeof *offset);
    if (!offset) FAIL(err, CB_E_MEMORY, "%s: out of memory", p->name);
    c->offset = offset;
    size_t at = 0;
    for (size_t i = 0; i < c->n_entries; i++) {
        uint32_t n;
        if (c->n_dictionary - at < 4) return parquet_damaged(p, c, "a dictionary shorter than its entries", err);
        memcpy(&n, c->dictionary + at, 4);
        offset[i] = (uint32_t)at + 4;
        if (n > c->n_dictionary - at - 4) return parquet_damaged(p, c, "a dictionary shorter than its entries", err);
        at += 4 + (size_t)n;
    }
    offset[c->n_entries] = (uint32_t)at + 4;
    return CB_OK;
}

// ---- levels

static int bits_for(int most) {
    int bits = 0;
    while (most >> bits) bits++;
    return bits;
}

// Version 1: levels stand before the values, each behind its length.
static enum cb_status take_levels(struct parquet *p, struct parquet_column *c, struct parquet_bits *bits, int most,
                                  const unsigned char *data, size_t n, size_t *at, struct cb_err *err) {
    uint32_t length;
    *bits = (struct parquet_bits){.width = bits_for(most)};
    if (!most) return CB_OK;
    if (n - *at < 4) return parquet_damaged(p, c, "a page is cut within its levels", err);
    memcpy(&length, data + *at, 4);
    *at += 4;
    if (length > n - *at) return parquet_damaged(p, c, "a page is cut within its levels", err);
    bits->data = data + *at, bits->n = length;
    *at += length;
    return CB_OK;
}

static enum cb_status take_page(struct parquet *p, struct parquet_column *c, const struct page_head *h, const unsigned char *in,
                                struct cb_err *err) {
    const struct parquet_node *node = c->node;
    size_t levels = h->type == PAGE_DATA_2 ? (size_t)(h->def_bytes + h->rep_bytes) : 0, at = 0;
    size_t n = (size_t)h->unpacked, packed = (size_t)h->packed;
    if (levels > n || levels > packed) return parquet_damaged(p, c, "a page is shorter than its levels", err);
    TRY(room_for(&c->page, &c->page_room, n, p->name, err));
    memcpy(c->page, in, levels);
    if (h->plain && n != packed) return parquet_damaged(p, c, "a page that is not compressed has two sizes", err);
    if (h->plain)
        memcpy(c->page + levels, in + levels, n - levels);
    else
        TRY(unpack(p, c, c->page + levels, n - levels, in + levels, packed - levels, err));
    if (h->type == PAGE_DATA_2) {
        c->rep = (struct parquet_bits){.data = c->page, .n = (size_t)h->rep_bytes, .width = bits_for(node->max_rep)};
        c->def = (struct parquet_bits){.data = c->page + h->rep_bytes, .n = (size_t)h->def_bytes, .width = bits_for(node->max_def)};
        at = levels;
    } else {
        TRY(take_levels(p, c, &c->rep, node->max_rep, c->page, n, &at, err));
        TRY(take_levels(p, c, &c->def, node->max_def, c->page, n, &at, err));
    }
    c->data = c->page + at;
    c->n_data = n - at;
    c->data_at = 0;
    c->left = h->values;
    c->encoding = (int)h->encoding;
    return parquet_values_begin(p, c, h->values, err);
}

enum cb_status parquet_page_next(struct parquet *p, struct parquet_column *c, struct cb_err *err) {
    while (c->left == 0 && c->chunk_left > 0) {
        struct thrift t = {.data = c->chunk + c->at, .n = c->n_chunk - c->at};
        struct page_head h;
        read_head(&t, &h);
        size_t rest = t.failed ? 0 : t.n - t.at;
        // what a page claims must be in proportion to what there is
        if (t.failed || (size_t)h.packed > rest || h.unpacked > MAX_PAGE || h.unpacked > h.packed * 4096 + (1 << 20))
            return parquet_damaged(p, c, "the head of a page is damaged", err);
        const unsigned char *in = t.data + t.at;
        c->at += t.at + (size_t)h.packed;
        p->bytes_read += h.packed;
        if (h.type == PAGE_DICTIONARY) {
            if (h.values < 0) return parquet_damaged(p, c, "a dictionary without a head", err);
            TRY(take_dictionary(p, c, &h, in, err));
        } else if (h.type == PAGE_DATA || h.type == PAGE_DATA_2) {
            if (h.values < 0 || h.values > c->chunk_left) return parquet_damaged(p, c, "a page of more values than the column has", err);
            TRY(take_page(p, c, &h, in, err));
            c->chunk_left -= h.values;
        }
    }
    return CB_OK;
}
