/* JSON files of records: a list of objects, as Alpaca and ShareGPT are published, or objects one after another; read one at a time. A file that is one
   object with such a list as its data or train holds the records of the list. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "text/buffer.h"

#define MAX_RECORD ((size_t)1 << 28)
#define AS_TEXT " (--format text reads it as plain text)"

struct json_file {
    bool is_list, has_ended;
    int64_t line, count;  // being read, from 1; records so far
    struct buffer text;  // of one record
    json_t *object;
    json_t *inner;  // the list within the one object of the file; borrowed from whole
    json_t *whole;
    char *repaired;
};

/* The next byte that is no white space, -1 at the end; it is still to be read. */
static enum cb_status peek_black(struct reader *r, int *byte, struct cb_err *err) {
    struct json_file *j = r->state;
    for (;;) {
        TRY(reader_peek(r, byte, err));
        if (*byte != ' ' && *byte != '\t' && *byte != '\r' && *byte != '\n') return CB_OK;
        j->line += *byte == '\n';
        r->at++;
    }
}

static enum cb_status unexpected(const struct reader *r, int byte, const char *wanted, struct cb_err *err) {
    const struct json_file *j = r->state;
    char found[40] = "the end of the file";
    if (byte >= 0) snprintf(found, sizeof found, byte > 32 && byte < 127 ? "'%c'" : "byte 0x%02x", (unsigned)byte);
    FAIL(err, CB_E_FORMAT, "%s: line %lld: found %s; %s", r->path, (long long)j->line, found, wanted);
}

/* From a brace to the one that closes it, into j->text. What is between is for the parser to judge. */
static enum cb_status object_read(struct reader *r, struct cb_err *err) {
    struct json_file *j = r->state;
    const long long begin = j->line;
    int64_t depth = 0;
    bool quoted = false, escaped = false;
    j->text.n = 0;
    do {
        int byte;
        TRY(reader_peek(r, &byte, err));
        if (byte < 0) FAIL(err, CB_E_FORMAT, "%s: line %lld: found a record that is never closed; wanted }", r->path, begin);
        size_t i = r->at;
        do {
            const char c = r->ahead[i++];
            j->line += c == '\n';
            if (escaped)
                escaped = false;
            else if (quoted && c == '\\')
                escaped = true;
            else if (c == '"')
                quoted = !quoted;
            else if (!quoted)
                depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        } while (depth && i < r->n);
        TRY(buffer_append(&j->text, r->ahead + r->at, i - r->at, err));
        r->at = i;
        if (j->text.n > MAX_RECORD)
            FAIL(err, CB_E_LIMIT, "%s: line %lld: a record of over %zu bytes; wanted at most that", r->path, begin, MAX_RECORD);
    } while (depth);
    return CB_OK;
}

/* The next object of the file into j->object; NULL at the end of the list or the file. */
static enum cb_status object_next(struct reader *r, struct cb_err *err) {
    struct json_file *j = r->state;
    int byte;
    json_decref(j->object);
    j->object = NULL;
    TRY(peek_black(r, &byte, err));
    if (j->has_ended || (!j->is_list && byte < 0)) return CB_OK;
    if (j->is_list && byte == ']') {
        r->at++;
        j->has_ended = true;
        TRY(peek_black(r, &byte, err));
        return byte < 0 ? CB_OK : unexpected(r, byte, "wanted nothing after the list", err);
    }
    if (j->is_list && j->count) {
        if (byte != ',') return unexpected(r, byte, "wanted , or ] after a record", err);
        r->at++;
        TRY(peek_black(r, &byte, err));
    }
    if (byte != '{')
        return unexpected(
            r, byte, j->is_list ? "wanted { of a record in the list" AS_TEXT : "wanted a list of objects or an object a line" AS_TEXT, err);
    char where[600];
    r->line = j->is_list ? j->count + 1 : j->line;
    snprintf(where, sizeof where, "%.500s: %s %lld", r->path, r->unit, (long long)r->line);
    TRY(object_read(r, err));
    j->count++;
    return reader_parse(r, &j->object, j->text.data, j->text.n, &j->repaired, where, err);
}

/* A file that is one object around its records. */
static enum cb_status inner_find(struct reader *r, struct cb_err *err) {
    static const char *const keys[] = {"data", "train"};
    struct json_file *j = r->state;
    int byte;
    TRY(peek_black(r, &byte, err));
    for (size_t i = 0; i < sizeof keys / sizeof *keys && byte < 0 && !j->inner; i++) {
        json_t *list = json_object_get(j->object, keys[i]);
        if (json_is_object(json_array_get(list, 0))) j->inner = list;
    }
    if (!j->inner) return CB_OK;
    j->whole = j->object;
    j->object = NULL;
    j->count = 0;
    r->unit = "record";
    return CB_OK;
}

static enum cb_status json_records_open(struct reader *r, struct cb_err *err) {
    struct json_file *j = r->state;
    int byte;
    j->line = 1;
    TRY(peek_black(r, &byte, err));
    if (byte == '[') {
        j->is_list = true;
        r->at++;
        r->unit = "record";
    }
    return CB_OK;
}

static void json_records_close(struct reader *r) {
    struct json_file *j = r->state;
    json_decref(j->object);
    json_decref(j->whole);
    free(j->text.data);
    free(j->repaired);
}

static enum cb_status json_records_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct json_file *j = r->state;
    char found[JSON_TEXT];
    *object = NULL;
    if (!j->inner) {
        TRY(object_next(r, err));
        if (j->object && !j->is_list && j->count == 1) TRY(inner_find(r, err));
    }
    *object = j->inner ? json_array_get(j->inner, (size_t)j->count) : j->object;
    if (!j->inner || !*object) return CB_OK;
    r->line = ++j->count;
    if (!json_is_object(*object))
        FAIL(err, CB_E_FORMAT, "%s: record %lld: found %s; wanted an object", r->path, (long long)r->line, json_text(*object, found));
    return CB_OK;
}

static const char *const extensions[] = {".json", NULL};
const struct reader_kind read_json = {.name = "json",
                                      .doc = "a list of JSON objects, or one object after another",
                                      .extensions = extensions,
                                      .streams = true,
                                      .is_guess = true,
                                      .state_bytes = sizeof(struct json_file),
                                      .open = json_records_open,
                                      .close = json_records_close,
                                      .next = json_records_next};
