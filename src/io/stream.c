/* Streams over read(2), zlib (RFC 1952, many members) and zstd (RFC 8878, many frames). */
#include "io/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/name.h"

#define INPUT_BYTES ((size_t)1 << 17)

enum coding { PLAIN, GZIP, ZSTD };

struct stream {
    char *name;
    int fd;
    enum coding coding;
    bool fd_ended;
    bool inside;  // a gzip member or zstd frame has begun and not ended
    z_stream gzip;
    bool gzip_ready;
    ZSTD_DStream *zstd;
    size_t in_at, in_end;
    char *line;  // decoded bytes for stream_line: [line_at, line_end)
    size_t line_size, line_at, line_end;
    int64_t line_number;
    unsigned char input[INPUT_BYTES];
};

// Reads more input behind what is there; nothing new at the end of the file.
static enum cb_status input_fill(struct stream *s, struct cb_err *err) {
    if (s->in_at == s->in_end) s->in_at = s->in_end = 0;
    while (!s->fd_ended && s->in_end < INPUT_BYTES) {
        ssize_t got = read(s->fd, s->input + s->in_end, INPUT_BYTES - s->in_end);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) FAIL(err, CB_E_IO, "%s: %s", s->name, strerror(errno));
        if (got == 0) s->fd_ended = true;
        s->in_end += (size_t)got;
        if (s->in_end - s->in_at >= 4) break;  // the longest magic number
    }
    return CB_OK;
}

static enum cb_status coding_detect(struct stream *s, struct cb_err *err) {
    TRY(input_fill(s, err));
    static const unsigned char gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
    size_t n = s->in_end;
    if (n >= 2 && !memcmp(s->input, gzip, 2)) s->coding = GZIP;
    if (n >= 4 && !memcmp(s->input, zstd, 4)) s->coding = ZSTD;
    if (name_ends(s->name, ".gz") && s->coding != GZIP)
        FAIL(err, CB_E_FORMAT, "%s: found no gzip magic number; wanted a gzip file", s->name);
    if (name_ends(s->name, ".zst") && s->coding != ZSTD)
        FAIL(err, CB_E_FORMAT, "%s: found no zstd magic number; wanted a zstd file", s->name);
    if (s->coding == GZIP) s->gzip_ready = inflateInit2(&s->gzip, 15 + 16) == Z_OK;
    if (s->coding == ZSTD) s->zstd = ZSTD_createDStream();
    if ((s->coding == GZIP && !s->gzip_ready) || (s->coding == ZSTD && !s->zstd)) FAIL(err, CB_E_MEMORY, "%s: out of memory", s->name);
    return CB_OK;
}

enum cb_status stream_open(struct stream **out, const char *path, struct cb_err *err) {
    *out = NULL;
    bool standard = !strcmp(path, "-");
    struct stream *s = calloc(1, sizeof *s);
    if (s) s->name = strdup(standard ? "standard input" : path);
    if (!s || !s->name) {
        free(s);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    }
    s->fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    enum cb_status status = CB_OK;
    if (s->fd < 0)
        status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: %s", path, strerror(errno));
    else if (fstat(s->fd, &info) == 0 && S_ISDIR(info.st_mode))
        status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: a folder; wanted a file", path);
    if (status == CB_OK) status = coding_detect(s, err);
    if (status != CB_OK)
        stream_close(&s);
    else
        *out = s;
    return status;
}

void stream_close(struct stream **stream) {
    struct stream *s = stream ? *stream : NULL;
    if (!s) return;
    if (s->gzip_ready) inflateEnd(&s->gzip);
    ZSTD_freeDStream(s->zstd);
    if (s->fd > STDIN_FILENO) close(s->fd);
    free(s->line);
    free(s->name);
    free(s);
    *stream = NULL;
}

const char *stream_name(const struct stream *stream) { return stream->name; }
int64_t stream_line_number(const struct stream *stream) { return stream->line_number; }

// One step of decoding into out[n]; *got may be 0 without being at the end.
static enum cb_status gzip_step(struct stream *s, unsigned char *out, size_t n, size_t *got, struct cb_err *err) {
    s->gzip.next_in = s->input + s->in_at;
    s->gzip.avail_in = (uInt)(s->in_end - s->in_at);
    s->gzip.next_out = out;
    s->gzip.avail_out = (uInt)(n < (size_t)1 << 30 ? n : (size_t)1 << 30);
    uInt room = s->gzip.avail_out;
    s->inside = true;
    int code = inflate(&s->gzip, Z_NO_FLUSH);
    s->in_at = s->in_end - s->gzip.avail_in;
    *got = room - s->gzip.avail_out;
    if (code == Z_STREAM_END) {
        s->inside = false;
        if (inflateReset(&s->gzip) != Z_OK) FAIL(err, CB_E_FORMAT, "%s: gzip: cannot start the next member", s->name);
    } else if (code == Z_MEM_ERROR) {
        FAIL(err, CB_E_MEMORY, "%s: out of memory", s->name);
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
        FAIL(err, CB_E_FORMAT, "%s: gzip data is corrupt: %s", s->name, s->gzip.msg ? s->gzip.msg : "unknown fault");
    }
    return CB_OK;
}

static enum cb_status zstd_step(struct stream *s, unsigned char *out, size_t n, size_t *got, struct cb_err *err) {
    ZSTD_inBuffer in = {s->input, s->in_end, s->in_at};
    ZSTD_outBuffer to = {out, n, 0};
    size_t code = ZSTD_decompressStream(s->zstd, &to, &in);
    if (ZSTD_isError(code)) FAIL(err, CB_E_FORMAT, "%s: zstd data is corrupt: %s", s->name, ZSTD_getErrorName(code));
    s->in_at = in.pos;
    *got = to.pos;
    s->inside = code != 0;
    return CB_OK;
}

enum cb_status stream_read(struct stream *s, void *bytes, size_t n, size_t *got, struct cb_err *err) {
    *got = 0;
    while (n) {
        if (s->in_at == s->in_end) TRY(input_fill(s, err));
        bool empty = s->in_at == s->in_end;
        if (s->coding == PLAIN) {
            size_t count = s->in_end - s->in_at;
            *got = count < n ? count : n;
            memcpy(bytes, s->input + s->in_at, *got);
            s->in_at += *got;
            return CB_OK;
        }
        if (empty && !s->inside) return CB_OK;
        size_t before = s->in_at;
        TRY(s->coding == GZIP ? gzip_step(s, bytes, n, got, err) : zstd_step(s, bytes, n, got, err));
        if (*got) return CB_OK;
        // no input left, none taken, nothing given: the archive ends too early
        if (empty && s->in_at == before && s->inside)
            FAIL(err, CB_E_FORMAT, "%s: %s data is truncated", s->name, s->coding == GZIP ? "gzip" : "zstd");
    }
    return CB_OK;
}

// Makes room behind line_end; the unread part moves to the front.
static enum cb_status line_room(struct stream *s, struct cb_err *err) {
    if (s->line_at) memmove(s->line, s->line + s->line_at, s->line_end - s->line_at);
    s->line_end -= s->line_at;
    s->line_at = 0;
    if (s->line_size - s->line_end > s->line_size / 2) return CB_OK;
    size_t size = s->line_size ? s->line_size * 2 : (size_t)1 << 16;
    char *more = realloc(s->line, size + 1);
    if (!more) FAIL(err, CB_E_MEMORY, "%s: out of memory for a line of %zu bytes", s->name, size);
    s->line = more;
    s->line_size = size;
    return CB_OK;
}

enum cb_status stream_line(struct stream *s, char **line, size_t *n, size_t max_bytes, struct cb_err *err) {
    size_t scanned = 0;
    *line = NULL;
    *n = 0;
    for (bool ended = false;;) {
        size_t held = s->line_end - s->line_at;
        char *start = s->line ? s->line + s->line_at : NULL;
        char *newline = held > scanned ? memchr(start + scanned, '\n', held - scanned) : NULL;
        size_t length = newline ? (size_t)(newline - start) : held;
        if (length > max_bytes)
            FAIL(err, CB_E_LIMIT, "%s: line %lld has over %zu bytes; wanted at most that", s->name, (long long)s->line_number + 1,
                 max_bytes);
        if (newline || (ended && held)) {
            start[length] = 0;
            s->line_at += length + (newline != NULL);
            s->line_number++;
            *line = start;
            *n = length;
            return CB_OK;
        }
        if (ended) return CB_OK;
        scanned = held;
        TRY(line_room(s, err));
        size_t got;
        TRY(stream_read(s, s->line + s->line_end, s->line_size - s->line_end, &got, err));
        s->line_end += got;
        ended = got == 0;
    }
}
