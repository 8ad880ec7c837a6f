/* The registry of record formats, and what their readers share. */
#include "data/reader.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "io/file.h"
#include "text/buffer.h"
#include "text/utf8.h"

#define READER(name) extern const struct reader_kind read_##name;
#include "gen/readers.inc"
#undef READER

const struct reader_kind *const *reader_kinds(void) {
    static const struct reader_kind *const kinds[] = {
#define READER(name) &read_##name,
#include "gen/readers.inc"
#undef READER
        NULL};
    return kinds;
}

size_t reader_plain_length(const char *path) { return strlen(path) - (name_ends(path, ".gz") ? 3 : name_ends(path, ".zst") ? 4 : 0); }

bool reader_is_called(const char *path, const char *end) {
    const size_t n = reader_plain_length(path), m = strlen(end);
    return n > m && !memcmp(path + n - m, end, m);
}

const struct reader_kind *reader_by_name(const char *path) {
    for (const struct reader_kind *const *k = reader_kinds(); *k; k++)
        for (const char *const *e = (*k)->extensions; *e; e++)
            if ((*k)->streams ? reader_is_called(path, *e) : name_ends(path, *e)) return *k;
    return NULL;
}

enum cb_status reader_by_format(const struct reader_kind **kind, const char *format, struct cb_err *err) {
    char names[100] = "text";
    *kind = NULL;
    if (!strcmp(format, "text")) return CB_OK;
    for (const struct reader_kind *const *k = reader_kinds(); *k; k++) {
        if (!strcmp((*k)->name, format)) *kind = *k;
        if (strlen(names) + strlen((*k)->name) + 3 < sizeof names) strcat(strcat(names, ", "), (*k)->name);
    }
    if (!*kind) FAIL(err, CB_E_USAGE, "--format %s: wanted one of %s", format, names);
    return CB_OK;
}

const struct reader_kind *reader_by_magic(const char *path) {
    char head[16] = {0};
    FILE *file = fopen(path, "rb");
    size_t n = file ? fread(head, 1, sizeof head, file) : 0;
    if (file) fclose(file);
    for (const struct reader_kind *const *k = reader_kinds(); *k; k++)
        if ((*k)->magic && n >= strlen((*k)->magic) && !memcmp(head, (*k)->magic, strlen((*k)->magic))) return *k;
    return NULL;
}

bool reader_fits(const struct reader_kind *kind, const char *path) {
    enum { HEAD = 1 << 16 };
    struct stream *stream = NULL;
    struct cb_err ignored = {0};
    char *head = kind->fits && io_is_file(path) ? malloc(HEAD) : NULL;
    bool fits = true;
    if (head && stream_open(&stream, path, &ignored) == CB_OK) {
        size_t n = 0, got = 1;
        while (got && n < HEAD && stream_read(stream, head + n, HEAD - n, &got, &ignored) == CB_OK) n += got;
        fits = kind->fits(head, n);
    }
    stream_close(&stream);
    free(head);
    return fits;
}

enum cb_status reader_open(struct reader *r, struct cb_err *err) {
    r->state = calloc(1, r->kind->state_bytes);
    if (!r->state) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    if (r->kind->streams) TRY(stream_open(&r->stream, r->path, err));
    return r->kind->open ? r->kind->open(r, err) : CB_OK;
}

void reader_close(struct reader *r) {
    if (r->state) r->kind->close(r);
    stream_close(&r->stream);
    free(r->ahead);
    free(r->state);
    r->state = r->ahead = NULL;
}

enum cb_status reader_fill(struct reader *r, struct cb_err *err) {
    enum { READ_BYTES = 1 << 16 };
    const bool begins = !r->ahead;
    if (!begins && !r->n) return CB_OK;
    if (begins && !(r->ahead = malloc(READ_BYTES))) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    r->at = 0;
    TRY(stream_read(r->stream, r->ahead, READ_BYTES, &r->n, err));
    r->bytes += (int64_t)r->n;
    if (!begins) return CB_OK;
    if (data_is_utf16(r->ahead, r->n)) FAIL(err, CB_E_FORMAT, "%s: line 1: found UTF-16; wanted UTF-8", r->path);
    r->at = data_mark(r->ahead, r->n);
    return r->at && r->at == r->n ? reader_fill(r, err) : CB_OK;
}

enum cb_status reader_repair(struct reader *r, const char **text, size_t *n, char **kept, const char *where, struct cb_err *err) {
    size_t bad = utf8_check(*text, *n);
    if (bad == *n) return CB_OK;
    if (r->line <= 1 && data_is_utf16(*text, *n)) FAIL(err, CB_E_FORMAT, "%s: found UTF-16; wanted UTF-8", where);
    if (r->invalid == DATA_INVALID_FAIL)
        FAIL(err, CB_E_FORMAT, "%s: found byte 0x%02x at offset %zu, which is not UTF-8; wanted UTF-8 text", where,
             (unsigned char)(*text)[bad], bad);
    char *more = realloc(*kept, 3 * *n + 1);
    if (!more) FAIL(err, CB_E_MEMORY, "%s: out of memory for %zu bytes", where, *n);
    *kept = more;
    if (!r->broken_line) r->broken_line = r->line;
    *n = data_repair(more, *text, *n, r->invalid, &r->broken);
    more[*n] = 0;
    *text = more;
    return CB_OK;
}

// The parser counts lines too: its "JSON line 1 column" would mislead beside the number of the file's line.
static void message_tidy(struct cb_err *err) {
    static const char twice[] = "JSON line 1 ";
    char *at = err ? strstr(err->message, twice) : NULL;
    if (at) memmove(at + 5, at + sizeof twice - 1, strlen(at + sizeof twice - 1) + 1);
}

/* Whether a value holds the number that a token is; what is no number at all is for the parser to refuse. */
static bool number_fits(const char *token, size_t n) {
    char text[320] = "", *end;
    if (n >= sizeof text) return false;
    memcpy(text, token, n);
    if (!isfinite(strtod(text, &end))) return *end;
    errno = 0;
    if (!strpbrk(text, ".eE")) strtoll(text, &end, 10);
    return errno != ERANGE;
}

/* Into out the text with null for each number that no value holds; nothing where there is none. */
static enum cb_status numbers_drop(struct buffer *out, const char *text, size_t n, struct cb_err *err) {
    bool quoted = false;
    size_t done = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"')
            quoted = !quoted;
        else if (quoted)
            i += text[i] == '\\';
        else if (text[i] == '-' || text[i] == 'N' || text[i] == 'I' || isdigit((unsigned char)text[i])) {
            const size_t begin = i;
            while (i + 1 < n && (isalnum((unsigned char)text[i + 1]) || memchr("+-.", text[i + 1], 3))) i++;
            if (number_fits(text + begin, i + 1 - begin)) continue;
            TRY(buffer_append(out, text + done, begin - done, err));
            TRY(buffer_append(out, "null", 4, err));
            done = i + 1;
        }
    }
    return done ? buffer_append(out, text + done, n - done, err) : CB_OK;
}

enum cb_status reader_parse(struct reader *r, json_t **object, const char *text, size_t n, char **kept, const char *where,
                            struct cb_err *err) {
    struct cb_err *why = &r->bad_number;
    struct buffer other = {0};
    *object = NULL;
    why->code = CB_OK;
    TRY(reader_repair(r, &text, &n, kept, where, err));
    if (json_parse_object(object, text, n, where, why) == CB_OK) return CB_OK;
    message_tidy(why);
    enum cb_status status = numbers_drop(&other, text, n, err);
    if (status == CB_OK && (!other.n || json_parse_object(object, other.data, other.n, where, NULL) != CB_OK))
        status = err_set(err, why->code, why->file, why->line, "%s", why->message);
    free(other.data);
    return status;
}
