/* Reads text inputs piece by piece: documents of plain text, records of JSON Lines. */
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/walk.h"
#include "io/stream.h"
#include "text/buffer.h"
#include "text/utf8.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define RAW_BYTES ((size_t)1 << 16)
#define SEPARATOR "<|endoftext|>"
#define SEPARATOR_BYTES (sizeof SEPARATOR - 1)

// What files of records held, for one line at the end.
struct found {
    int64_t files, records, empty_rows;
    enum record_shape shape;
    const char *format;
    bool mixed;
    char left_out[200];  // columns of the first table that has such
};

struct source {
    struct source_options options;
    struct walk walk;
    int64_t current;  // number of the file being read; -1 before the first
    struct source_piece piece;
    int64_t bytes, bytes_before, n_pieces;
    // plain text: checked bytes [at, end) of buffer, of which the lines before `scanned` hold no separator; raw bytes held back
    struct stream *stream;
    char *buffer, *raw;
    size_t at, end, size, scanned, n_raw;
    bool ended, inside, file_has_text;  // inside: the document has begun
    bool mid_line;  // the text at `scanned` goes on a line that was cut
    int64_t offset;  // of raw[0] in the file
    // records
    struct records *records;
    struct jinja_output rendered;
    int64_t n_unmarked;  // conversations of which nothing is the assistant's
    struct found found;
    // reports
    int64_t broken, broken_at, n_listed, n_left_out;
    char *broken_file;
    char left_out[400];  // the first one and why
};

static enum cb_status no_memory(const char *name, size_t n, struct cb_err *err) {
    FAIL(err, CB_E_MEMORY, "%s: out of memory for %zu bytes", name, n);
}

enum cb_status source_open(struct source **out, const char *const *paths, int n_paths, const struct source_options *options,
                           struct cb_err *err) {
    *out = NULL;
    if (n_paths < 1) FAIL(err, CB_E_ARGUMENT, "text: found no inputs; wanted files or folders");
    struct source *s = calloc(1, sizeof *s);
    if (!s) return no_memory("text", sizeof *s, err);
    s->options = *options;
    if (!s->options.piece_bytes) s->options.piece_bytes = PIECE_BYTES;
    if (s->options.piece_bytes < 16) s->options.piece_bytes = 16;
    s->current = -1;
    // room for a piece, a line end and what one read can add to it when repaired
    s->size = s->options.piece_bytes + SEPARATOR_BYTES + 2 + 3 * RAW_BYTES;
    s->buffer = malloc(s->size + 1);
    s->raw = malloc(RAW_BYTES);
    enum cb_status status = s->buffer && s->raw ? CB_OK : no_memory("text", s->size, err);
    for (int i = 0; i < n_paths && status == CB_OK; i++) status = walk_add(&s->walk, paths[i], err);
    if (status == CB_OK && !s->walk.n) status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: found no files; wanted text", paths[0]);
    for (int64_t i = 0; i < s->walk.n; i++) s->bytes += s->walk.file[i].bytes;
    if (status != CB_OK)
        source_close(&s);
    else
        *out = s;
    return status;
}

static void file_close(struct source *s) {
    stream_close(&s->stream);
    records_close(&s->records);
}

void source_close(struct source **source) {
    struct source *s = source ? *source : NULL;
    if (!s) return;
    file_close(s);
    walk_deinit(&s->walk);
    free(s->buffer);
    free(s->raw);
    free(s->broken_file);
    jinja_output_deinit(&s->rendered);
    free(s);
    *source = NULL;
}

const struct source_file *source_files(const struct source *source, int64_t *n) {
    *n = source->walk.n;
    return source->walk.file;
}
int64_t source_bytes(const struct source *source) { return source->bytes; }
int64_t source_bytes_done(const struct source *s) {
    if (s->current < 0) return 0;
    if (s->current >= s->walk.n) return s->bytes;
    int64_t read = s->records ? records_reader(s->records)->bytes : s->offset, size = s->walk.file[s->current].bytes;
    return s->bytes_before + (read < size ? read : size);
}

// ---- plain text

// Moves the checked part of raw behind the buffer's end; an incomplete character at its end waits for more.
static enum cb_status raw_take(struct source *s, struct cb_err *err) {
    size_t n = s->ended ? s->n_raw : utf8_complete(s->raw, s->n_raw), good = utf8_check(s->raw, n);
    char *to = s->buffer + s->end;
    const char *name = stream_name(s->stream);
    if (s->offset == 0 && data_is_utf16(s->raw, s->n_raw)) FAIL(err, CB_E_FORMAT, "%s: found UTF-16; wanted UTF-8", name);
    if (good < n && s->options.invalid == DATA_INVALID_FAIL)
        FAIL(err, CB_E_FORMAT, "%s: found byte 0x%02x at offset %lld, which is not UTF-8; wanted UTF-8 text (or --invalid replace or skip)",
             name, (unsigned char)s->raw[good], (long long)(s->offset + (int64_t)good));
    if (good < n) {
        if (!s->broken_file) {
            s->broken_file = strdup(name);
            s->broken_at = s->offset + (int64_t)good;
        }
        s->end += data_repair(to, s->raw, n, s->options.invalid, &s->broken);
    } else {
        memcpy(to, s->raw, n);
        s->end += n;
    }
    const size_t mark = s->offset == 0 ? data_mark(s->buffer, s->end) : 0;
    s->end -= mark;
    if (mark) memmove(s->buffer, s->buffer + mark, s->end);
    memmove(s->raw, s->raw + n, s->n_raw - n);
    s->n_raw -= n;
    s->offset += (int64_t)n;
    return CB_OK;
}

static enum cb_status buffer_fill(struct source *s, struct cb_err *err) {
    if (s->at) {
        memmove(s->buffer, s->buffer + s->at, s->end - s->at);
        s->end -= s->at, s->scanned -= s->at;
        s->at = 0;
    }
    size_t got;
    TRY(stream_read(s->stream, s->raw + s->n_raw, RAW_BYTES - s->n_raw, &got, err));
    s->n_raw += got;
    if (!got) s->ended = true;
    // the start decides about byte order marks: wait for three bytes
    if (s->offset == 0 && s->n_raw < 3 && !s->ended) return CB_OK;
    return raw_take(s, err);
}

// A separator line in the checked bytes: its place and the bytes with its line end. Unless the file has ended, lines must be whole.
static bool separator_find(struct source *s, size_t *place, size_t *length) {
    while (s->scanned < s->end) {
        const char *line = s->buffer + s->scanned, *newline = memchr(line, '\n', s->end - s->scanned);
        if (!newline && !s->ended) return false;
        size_t n = newline ? (size_t)(newline - line) : s->end - s->scanned, text = n;
        if (text && line[text - 1] == '\r') text--;
        if (!s->mid_line && text == SEPARATOR_BYTES && !memcmp(line, SEPARATOR, text)) {
            *place = s->scanned;
            *length = n + (newline != NULL);
            return true;
        }
        s->scanned += n + (newline != NULL);
        s->mid_line = false;
    }
    return false;
}

static bool is_white(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// Where to cut a long stretch, in its second half: after a line end with text on both sides, where tokens of byte-level vocabularies end anyway; else
// after any line end; else at a character. n: at least 16, and less than what is there.
static size_t cut_find(const char *text, size_t n) {
    size_t line = 0;
    for (size_t i = n - 1; i > n / 2; i--) {
        if (text[i - 1] != '\n') continue;
        if (!is_white(text[i]) && !is_white(text[i - 2])) return i;
        if (!line) line = i;
    }
    if (line) return line;
    while (n > 1 && utf8_is_tail(text[n])) n--;
    return n;
}

static bool is_blank(const char *text, size_t n) {
    while (n && is_white(text[n - 1])) n--;
    return n == 0;
}

// Fills s->piece from the open file; false at its end.
static enum cb_status plain_next(struct source *s, bool *found, struct cb_err *err) {
    *found = false;
    for (;;) {
        size_t place = 0, length = 0, limit = s->options.piece_bytes, held = s->end - s->at;
        bool separated = separator_find(s, &place, &length), ends = separated || s->ended;
        size_t n = separated ? place - s->at : held;
        if (n > limit) {
            n = cut_find(s->buffer + s->at, limit);
            ends = false;
        } else if (!ends) {
            TRY(buffer_fill(s, err));
            continue;
        }
        const char *text = s->buffer + s->at;
        s->at = ends && separated ? place + length : s->at + n;
        if (ends && separated) s->scanned = s->at;
        if (s->scanned < s->at) {
            s->mid_line = n && text[n - 1] != '\n';
            s->scanned = s->at;
        }
        bool begins = !s->inside, blank = is_blank(text, n);
        s->inside = !ends;
        // an empty document leaves no trace; the end of one that has begun is always told
        if (!(begins && ends && blank)) {
            s->piece = (struct source_piece){.file = stream_name(s->stream), .text = text, .n = n, .begins = begins, .ends = ends};
            s->file_has_text |= !blank;
            *found = true;
            return CB_OK;
        }
        if (!separated && s->ended) return CB_OK;
    }
}

// ---- records

// What was said, line after line.
static enum cb_status contents_join(struct jinja_output *out, const json_t *messages, struct cb_err *err) {
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    for (size_t i = 0; i < json_array_size(messages) && status == CB_OK; i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        if (!json_is_string(content)) continue;
        if (b.n) status = buffer_append(&b, "\n", 1, err);
        if (status == CB_OK) status = buffer_append(&b, json_string_value(content), json_string_length(content), err);
    }
    if (status == CB_OK) status = buffer_reserve(&b, 1, err);
    jinja_output_deinit(out);
    if (status != CB_OK) {
        free(b.data);
        return status;
    }
    b.data[b.n] = 0;
    out->text = b.data, out->n = b.n;
    return CB_OK;
}

// A conversation as the chat template writes it, and what the assistant says in it.
static enum cb_status conversation_render(struct source *s, const struct record *r, const char *where, struct cb_err *err) {
    struct chat_request q = {.variables = json_object_get(r->object, "chat_template_kwargs"),
                             .documents = json_object_get(r->object, "documents")};
    json_t *messages, *tools;
    if (!s->options.chat && s->options.needs_chat)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: found a record of %s, and the model has no chat template to make text of it; wanted --chat-template FILE or NAME "
             "(chatml, llama3, ...)",
             where, record_shape_text(r->shape));
    TRY(record_messages(&messages, &tools, r, where, err));
    q.messages = messages, q.tools = tools;
    if (!json_is_object(q.variables)) q.variables = NULL;
    if (!json_is_array(q.documents)) q.documents = NULL;
    enum cb_status status =
        s->options.chat ? chat_render_marked(&s->rendered, s->options.chat, &q, err) : contents_join(&s->rendered, messages, err);
    json_decref(messages);
    json_decref(tools);
    if (status != CB_OK && status != CB_E_MEMORY) err_prefix(err, "%s", where);
    return status;
}

static enum cb_status record_piece(struct source *s, const struct record *r, bool *found, struct cb_err *err) {
    const char *path = s->walk.file[s->current].path;
    char where[600];
    bool turns = r->shape == RECORD_MESSAGES || r->shape == RECORD_ALPACA || r->shape == RECORD_SHAREGPT ||
                 (s->options.is_chat && r->shape == RECORD_PROMPT);
    snprintf(where, sizeof where, "%.500s: %s %lld", path, r->unit, (long long)r->line);
    s->piece = (struct source_piece){.file = path, .begins = true, .ends = true, .line = r->line, .unit = r->unit};
    if (turns) {
        TRY(conversation_render(s, r, where, err));
        s->n_unmarked += s->options.chat && !s->rendered.n_spans;
        s->piece.text = s->rendered.text, s->piece.n = s->rendered.n;
        static const struct jinja_span nothing;
        if (s->options.chat) s->piece.learnt = s->rendered.n_spans ? s->rendered.span : &nothing;
        s->piece.n_learnt = s->rendered.n_spans;
        *found = s->piece.n > 0;
        return CB_OK;
    }
    if (r->shape == RECORD_IDS && s->options.takes_ids && !s->options.is_chat) {
        const json_t *ids = json_object_get(r->object, "input_ids");
        s->piece.ids = ids ? ids : json_object_get(r->object, "ids");
        s->piece.labels = json_object_get(r->object, "labels");
        *found = true;
        return CB_OK;
    }
    if (!r->text)
        FAIL(err, CB_E_UNSUPPORTED, "%s: found a record of %s, which is not text; wanted text, prompt and completion, or messages", where,
             record_shape_text(r->shape));
    if (s->options.is_chat)
        FAIL(err, CB_E_UNSUPPORTED, "%s: found a record of %s, which is no conversation; wanted messages", where,
             record_shape_text(r->shape));
    s->piece.text = r->text, s->piece.n = r->n_text, s->piece.prompt = r->prompt, s->piece.n_prompt = r->n_prompt;
    *found = r->prompt || !is_blank(r->text, r->n_text);
    return CB_OK;
}

static enum cb_status record_next(struct source *s, bool *found, struct cb_err *err) {
    const struct record *r;
    *found = false;
    do {
        TRY(records_next(s->records, &r, err));
        if (!r) return CB_OK;
        if (!s->found.records++) s->found.shape = r->shape;
        s->found.mixed |= s->found.shape != r->shape;
        TRY(record_piece(s, r, found, err));
    } while (!*found);
    s->file_has_text = true;
    return CB_OK;
}

// ---- files, one after another

// Whether all of a file found in a folder is text; what is not is counted, and the first one's reason kept.
static enum cb_status listed_check(struct source *s, const char *path, bool *good, struct cb_err *err) {
    struct cb_err why = {0};
    struct stream *stream = NULL;
    int64_t offset = 0;
    size_t held = 0, got = 1;
    enum cb_status status = stream_open(&stream, path, &why);
    while (status == CB_OK && got) {
        status = stream_read(stream, s->raw + held, RAW_BYTES - held, &got, &why);
        if (status != CB_OK) break;
        size_t n = held + got, whole = got ? utf8_complete(s->raw, n) : n, fine = utf8_check(s->raw, whole);
        const char *nul = memchr(s->raw, 0, n);
        bool repairs = s->options.invalid != DATA_INVALID_FAIL && !(offset == 0 && data_is_utf16(s->raw, n));
        if (nul)
            status = err_set(&why, CB_E_FORMAT, __FILE__, __LINE__, "%s: a NUL at offset %lld", path, (long long)(offset + (nul - s->raw)));
        else if (fine < whole && !repairs)
            status =
                err_set(&why, CB_E_FORMAT, __FILE__, __LINE__, "%s: no UTF-8 at offset %lld", path, (long long)(offset + (int64_t)fine));
        held = n - whole;
        memmove(s->raw, s->raw + whole, held);
        offset += (int64_t)whole;
    }
    stream_close(&stream);
    if (status == CB_OK && !offset) status = err_set(&why, CB_E_FORMAT, __FILE__, __LINE__, "%s: empty", path);
    *good = status == CB_OK;
    s->n_listed++;
    if (status == CB_E_MEMORY) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    if (!*good && !s->n_left_out++) snprintf(s->left_out, sizeof s->left_out, "%.399s", why.message);
    return CB_OK;
}

/* A table in a folder that has no column to learn from, or JSON that holds no records, is left out, as other files that are no text are. */
static enum cb_status records_begin(struct source *s, const struct source_file *f, bool *good, struct cb_err *err) {
    const struct record *first;
    struct records_options o = s->options.records;
    o.invalid = s->options.invalid;
    if (f->is_listed && (f->reader->is_table || f->reader->is_guess)) {
        struct cb_err why = {0};
        struct records *probe = NULL;
        enum cb_status status = records_open(&probe, f->path, f->reader, &o, &why);
        if (status == CB_OK) status = records_next(probe, &first, &why);
        records_close(&probe);
        if (status == CB_E_MEMORY) FAIL(err, CB_E_MEMORY, "%s: out of memory", f->path);
        *good = status == CB_OK;
        if (!*good && !s->n_left_out++) snprintf(s->left_out, sizeof s->left_out, "%.399s", why.message);
        if (!*good) return CB_OK;
    }
    s->found.files++;
    if (!s->found.format) s->found.format = f->reader->name;
    return records_open(&s->records, f->path, f->reader, &o, err);
}

static enum cb_status file_begin(struct source *s, bool *good, struct cb_err *err) {
    struct source_file *f = &s->walk.file[s->current];
    *good = true;
    if (s->options.records.format && !f->is_listed) TRY(reader_by_format(&f->reader, s->options.records.format, err));
    if (f->is_listed && (!f->reader || f->reader->streams))
        TRY(listed_check(s, f->path, good, err));
    else
        s->n_listed += f->is_listed;
    if (!*good) return CB_OK;
    s->at = s->end = s->scanned = s->n_raw = 0;
    s->offset = 0;
    s->ended = s->inside = s->file_has_text = s->mid_line = false;
    if (f->reader) return records_begin(s, f, good, err);
    if (s->options.is_chat) FAIL(err, CB_E_UNSUPPORTED, "%s: found plain text; --task chat wants records of messages", f->path);
    return stream_open(&s->stream, f->path, err);
}

static enum cb_status file_end(struct source *s, struct cb_err *err) {
    const struct source_file *f = &s->walk.file[s->current];
    int64_t empty_rows = 0;
    const struct reader *reader = s->records ? records_reader(s->records) : NULL;
    int64_t line = reader ? reader->broken_line : 0, broken = reader ? reader->broken : 0;
    const char *left_out = reader ? records_left_out(s->records, &empty_rows) : "";
    s->found.empty_rows += empty_rows;
    if (reader) s->n_unmarked += records_unanswered(s->records), s->found.records += records_unanswered(s->records);
    if (!*s->found.left_out) snprintf(s->found.left_out, sizeof s->found.left_out, "%s", left_out);
    if (broken && !s->broken_file) {
        s->broken_file = strdup(f->path);
        s->broken_at = -line;
    }
    s->broken += broken;
    file_close(s);
    if (s->file_has_text) return CB_OK;
    if (!f->is_listed) FAIL(err, CB_E_FORMAT, "%s: found no text, it is empty or blank; wanted text", f->path);
    if (!s->n_left_out++) snprintf(s->left_out, sizeof s->left_out, "%.350s: no text but white space", f->path);
    return CB_OK;
}

// One line on files of records: what they held, and what of it is not used.
static void note_found(const struct source *s) {
    const struct found *f = &s->found;
    char line[700];
    if (!f->files || !s->options.note) return;
    int n = snprintf(line, sizeof line, "found %lld record%s of %s%s in %lld %s file%s", (long long)f->records, f->records == 1 ? "" : "s",
                     record_shape_text(f->shape), f->mixed ? " and other shapes" : "", (long long)f->files, f->format,
                     f->files == 1 ? "" : "s");
    if (*f->left_out) n += snprintf(line + n, sizeof line - (size_t)n, "; columns left out: %s", f->left_out);
    if (f->empty_rows) snprintf(line + n, sizeof line - (size_t)n, "; %lld rows without a value left out", (long long)f->empty_rows);
    s->options.note(s->options.user, line);
}

static enum cb_status all_end(struct source *s, struct cb_err *err) {
    char line[900];
    if (!s->n_pieces)
        FAIL(err, CB_E_FORMAT, "text: found no text in %lld files (first left out: %s); wanted files of UTF-8 text", (long long)s->walk.n,
             s->left_out);
    note_found(s);
    if (!s->options.warn) return CB_OK;
    if (s->n_unmarked) {
        snprintf(line, sizeof line, "%lld of %lld conversations hold nothing that the assistant says: nothing is learnt from them",
                 (long long)s->n_unmarked, (long long)s->found.records);
        s->options.warn(s->options.user, line);
    }
    if (s->n_left_out) {
        snprintf(line, sizeof line, "%lld of %lld files in folders are left out, not being text (first: %s)", (long long)s->n_left_out,
                 (long long)s->n_listed, s->left_out);
        s->options.warn(s->options.user, line);
    }
    if (s->broken) {
        const char *done = s->options.invalid == DATA_INVALID_SKIP ? "left out" : "replaced";
        snprintf(line, sizeof line, "%lld bytes that are not UTF-8 were %s (first: %.500s: %s %lld)", (long long)s->broken, done,
                 s->broken_file ? s->broken_file : "?", s->broken_at < 0 ? "line" : "offset",
                 (long long)(s->broken_at < 0 ? -s->broken_at : s->broken_at));
        s->options.warn(s->options.user, line);
    }
    return CB_OK;
}

enum cb_status source_next(struct source *s, const struct source_piece **piece, struct cb_err *err) {
    *piece = NULL;
    while (s->current < s->walk.n) {
        bool found = false;
        if (s->stream) TRY(plain_next(s, &found, err));
        if (s->records) TRY(record_next(s, &found, err));
        if (found) {
            s->n_pieces++;
            *piece = &s->piece;
            return CB_OK;
        }
        if (s->stream || s->records) TRY(file_end(s, err));
        if (s->current >= 0) s->bytes_before += s->walk.file[s->current].bytes;
        if (++s->current == s->walk.n) return all_end(s, err);
        bool good;
        TRY(file_begin(s, &good, err));
    }
    return CB_OK;
}
