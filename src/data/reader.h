/* Formats of records: each reads a file into JSON objects, one after another. To add one: read_<name>.c with a reader_kind. */
#ifndef DATA_READER_H
#define DATA_READER_H
#include "base/json.h"
#include "data/invalid.h"
#include "io/stream.h"

struct reader;
struct reader_kind {
    const char *name, *doc;
    const char *const *extensions;  // ".csv", NULL-ended; each also with .gz and .zst where `streams`
    const char *magic;  // first bytes of such a file, whatever its name; nullable
    bool streams;  // reads reader->stream from start to end: compressed files and standard input will do
    bool is_table;  // has columns, of which some may be left out
    bool is_guess;  // many a file is called so: in a folder, one without records is left out
    /* Nullable. Whether a file whose first n bytes these are may be of this format, which others are called like. */
    bool (*fits)(const char *head, size_t n);
    size_t state_bytes;  // of reader->state
    /* Nullable: open. close frees what the state holds, also after a failed open. */
    enum cb_status (*open)(struct reader *reader, struct cb_err *err);
    void (*close)(struct reader *reader);
    /* Nullable. Whether a column has given null for bytes that are no text. */
    bool (*holds_bytes)(const struct reader *reader, const char *column);
    /* The next object, borrowed until the next call, NULL at the end; sets reader->line. */
    enum cb_status (*next)(struct reader *reader, json_t **object, struct cb_err *err);
};

struct reader {
    const struct reader_kind *kind;
    const char *path;  // borrowed
    enum data_invalid invalid;
    const char *separator;  // between columns, of formats that have one; nullable: by the name and the first line
    const char *quote;  // around cells, likewise: a character or "none"; nullable: the double quote
    int64_t names_line;  // of a table: where its columns are named; 0: nowhere in lines
    void *state;  // of the kind; zeros before open
    struct stream *stream;  // of kinds that stream
    char *ahead;  // [at, n) are still to be read, of kinds that reader_peek
    size_t at, n;
    int64_t line;  // of the last object, or its row, from 1
    const char *unit;  // what line counts: "line" before open, which may say "record", "row" or "entry"
    int64_t bytes;  // of text read so far
    struct cb_err bad_number;  // of the last object, which has null in its place; code CB_OK: none
    int64_t broken, broken_line;  // broken bytes replaced or left out, and the line of the first (0: none)
};

/* All kinds, NULL-ended. */
const struct reader_kind *const *reader_kinds(void);
/* Bytes of a file's name before .gz or .zst, where it ends so. */
size_t reader_plain_length(const char *path);
/* Whether it ends so, these left out. */
bool reader_is_called(const char *path, const char *end);
/* The kind of a file by its name; NULL: plain text. */
const struct reader_kind *reader_by_name(const char *path);
/* By the name of the format, "text" being none; CB_E_USAGE names those there are. */
enum cb_status reader_by_format(const struct reader_kind **kind, const char *format, struct cb_err *err);
/* Whether a file may be of a kind, by its first bytes; true where that cannot be told. */
bool reader_fits(const struct reader_kind *kind, const char *path);
/* By its first bytes, NULL where no kind has such. */
const struct reader_kind *reader_by_magic(const char *path);

/* Opens reader->path; the caller has set the kind, the path and the options. Free with reader_close, also after a failure. */
enum cb_status reader_open(struct reader *reader, struct cb_err *err);
void reader_close(struct reader *reader);

/* Reads on; a mark at the beginning is passed over, UTF-16 refused. At the end reader->at stays reader->n. */
enum cb_status reader_fill(struct reader *reader, struct cb_err *err);
/* The next byte of the stream, which is still to be read: ++reader->at; -1 at the end. */
static inline enum cb_status reader_peek(struct reader *r, int *byte, struct cb_err *err) {
    if (r->at == r->n) TRY(reader_fill(r, err));
    *byte = r->at < r->n ? (unsigned char)r->ahead[r->at] : -1;
    return CB_OK;
}
/* Bytes that are not UTF-8: refused ("WHERE: found byte ..."), replaced or left out, as reader->invalid says. *text: valid afterwards; *kept is the
   memory that it then lies in (grown as needed, owned by caller). */
enum cb_status reader_repair(struct reader *reader, const char **text, size_t *n, char **kept, const char *where, struct cb_err *err);
/* The object that a text of JSON is, its bytes seen to as above. Numbers that no value holds (NaN, infinities, over 64 bits) become null and
   reader->bad_number: they harm where they are learnt from alone. *object: owned by caller, json_decref. */
enum cb_status reader_parse(struct reader *reader, json_t **object, const char *text, size_t n, char **kept, const char *where,
                            struct cb_err *err);
#endif
