/* Streams: the same lines from plain, gzip and zstd files, and archives that are cut, damaged or misnamed. */
#include "io/stream.h"

#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "../harness.h"
#include "io/file.h"

static struct cb_err err;

// A file of these bytes in a folder of its own, opened; the folder goes away at once.
static enum cb_status open_bytes(struct stream **s, const char *name, const void *bytes, size_t n) {
    char folder[200];
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/cambium_stream_XXXXXX", base ? base : P_tmpdir);
    if (!mkdtemp(folder)) return CB_E_IO;
    char *path = io_path_join(folder, name);
    enum cb_status status = io_write_file(path, bytes, n, &err);
    if (status == CB_OK) status = stream_open(s, path, &err);
    unlink(path);
    rmdir(folder);
    free(path);
    return status;
}

#define N_LINES 20000
static char *text_make(size_t *n) {
    char *text = malloc(N_LINES * 40);
    *n = 0;
    for (int i = 0; i < N_LINES; i++) *n += (size_t)sprintf(text + *n, "line %d %u\n", i, (unsigned)i * 2654435761u);
    return text;
}
static unsigned char *gzip_make(const void *bytes, size_t n, size_t *out_n) {
    z_stream z = {0};
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    size_t room = deflateBound(&z, n);
    unsigned char *out = malloc(room);
    z.next_in = (unsigned char *)(uintptr_t)bytes, z.avail_in = (uInt)n, z.next_out = out, z.avail_out = (uInt)room;
    deflate(&z, Z_FINISH);
    *out_n = z.total_out;
    deflateEnd(&z);
    return out;
}

static void lines_check(struct stream *s, int repeats) {
    char *line, want[60];
    size_t n;
    for (int i = 0; i < N_LINES * repeats; i++) {
        CHECK_OK(stream_line(s, &line, &n, 1000, &err));
        int k = i % N_LINES, length = sprintf(want, "line %d %u", k, (unsigned)k * 2654435761u);
        CHECK(line && n == (size_t)length && !strcmp(line, want), "line %d: %s", i, line ? line : "end");
        CHECK(stream_line_number(s) == i + 1);
    }
    CHECK_OK(stream_line(s, &line, &n, 1000, &err));
    CHECK(!line);
}

TEST(stream, plain_gzip_zstd) {
    size_t n, gz_n, zst_n;
    char *text = text_make(&n);
    struct stream *s;
    CHECK_OK(open_bytes(&s, "a.txt", text, n));
    lines_check(s, 1);
    stream_close(&s);
    unsigned char *gz = gzip_make(text, n, &gz_n), *twice = malloc(gz_n * 2);
    memcpy(twice, gz, gz_n), memcpy(twice + gz_n, gz, gz_n);
    CHECK_OK(open_bytes(&s, "a.gz", twice, gz_n * 2));  // two members
    lines_check(s, 2);
    stream_close(&s);
    size_t room = ZSTD_compressBound(n);
    unsigned char *zst = malloc(room * 2);
    zst_n = ZSTD_compress(zst, room, text, n, 3);
    memcpy(zst + zst_n, zst, zst_n);
    CHECK_OK(open_bytes(&s, "unnamed", zst, zst_n * 2));  // two frames, known by their magic
    lines_check(s, 2);
    stream_close(&s);
    free(text), free(gz), free(twice), free(zst);
}

static enum cb_status read_all(struct stream *s) {
    char piece[5000];
    size_t got = 1;
    enum cb_status status = CB_OK;
    while (status == CB_OK && got) status = stream_read(s, piece, sizeof piece, &got, &err);
    return status;
}

TEST(stream, cut_and_damaged_archives) {
    size_t n, size;
    char *text = text_make(&n);
    struct stream *s;
    for (int kind = 0; kind < 2; kind++) {
        const char *name = kind ? "a.zst" : "a.gz";
        unsigned char *bytes;
        if (kind) {
            bytes = malloc(ZSTD_compressBound(n));
            ZSTD_CCtx *c = ZSTD_createCCtx();
            ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
            size = ZSTD_compress2(c, bytes, ZSTD_compressBound(n), text, n);
            ZSTD_freeCCtx(c);
        } else {
            bytes = gzip_make(text, n, &size);
        }
        static const int cuts[] = {1, 3, 1000};
        for (int i = 0; i < 3; i++) {
            CHECK_OK(open_bytes(&s, name, bytes, size - (size_t)cuts[i]));
            CHECK_FAILS(read_all(s), CB_E_FORMAT, "truncated");
            stream_close(&s);
        }
        bytes[size / 2] ^= 0x55;
        CHECK_OK(open_bytes(&s, name, bytes, size));
        CHECK_FAILS(read_all(s), CB_E_FORMAT, "corrupt");
        stream_close(&s);
        free(bytes);
        CHECK_FAILS(open_bytes(&s, name, text, n), CB_E_FORMAT, "magic");
        CHECK(!s);
    }
    free(text);
    CHECK_FAILS(stream_open(&s, "no/such", &err), CB_E_IO, "no/such");
    CHECK_FAILS(stream_open(&s, ".", &err), CB_E_IO, "a folder");
}

TEST(stream, odd_lines) {
    struct stream *s;
    char *line;
    size_t n;
    CHECK_OK(open_bytes(&s, "a", "\n\na\0b\nlast", 10));
    static const size_t lengths[] = {0, 0, 3, 4};
    for (int i = 0; i < 4; i++) {
        CHECK_OK(stream_line(s, &line, &n, 10, &err));
        CHECK(line && n == lengths[i], "%d", i);
    }
    CHECK_OK(stream_line(s, &line, &n, 10, &err));
    CHECK(!line);
    stream_close(&s);
    CHECK_OK(open_bytes(&s, "a", "", 0));
    CHECK_OK(stream_line(s, &line, &n, 10, &err));
    CHECK(!line);
    stream_close(&s);
    size_t long_n = 500000;
    char *text = malloc(long_n);
    memset(text, 'x', long_n);
    CHECK_OK(open_bytes(&s, "a", text, long_n));
    CHECK_FAILS(stream_line(s, &line, &n, 1000, &err), CB_E_LIMIT, "line 1 has over 1000 bytes");
    stream_close(&s);
    CHECK_OK(open_bytes(&s, "a", text, long_n));
    CHECK_OK(stream_line(s, &line, &n, long_n, &err));
    CHECK(n == long_n && line[n] == 0);
    stream_close(&s);
    free(text);
}
