/* Reads files of records in any format: columns renamed, texts that hold lists parsed, each record checked. */
#include "data/records.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

struct records {
    struct reader reader;
    struct records_options options;
    struct record_checker checker;
    struct record record;
    json_t *changed;  // the object with its columns renamed
    int64_t empty_rows;
    int64_t unanswered, first_unanswered;  // conversations passed over, and the line of the first
    char left_out[200];
};

enum cb_status records_check_columns(const char *const *columns, int n_columns, struct cb_err *err) {
    for (int i = 0; i < n_columns; i++) {
        const char *equals = strchr(columns[i], '=');
        if (!equals || equals == columns[i] || !equals[1])
            FAIL(err, CB_E_USAGE, "--column %s: wanted KEY=COLUMN, as text=review", columns[i]);
    }
    return CB_OK;
}

enum cb_status records_open(struct records **out, const char *path, const struct reader_kind *kind, const struct records_options *options,
                            struct cb_err *err) {
    extern const struct reader_kind read_jsonl;
    *out = NULL;
    if (!kind) kind = reader_by_name(path);
    if (!kind) kind = &read_jsonl;
    struct records *r = calloc(1, sizeof *r);
    if (!r) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    if (options) r->options = *options;
    r->reader = (struct reader){.kind = kind,
                                .path = path,
                                .invalid = r->options.invalid,
                                .separator = r->options.separator,
                                .quote = r->options.quote,
                                .unit = "line"};
    enum cb_status status = reader_open(&r->reader, err);
    if (status != CB_OK)
        records_close(&r);
    else
        *out = r;
    return status;
}

void records_close(struct records **records) {
    struct records *r = records ? *records : NULL;
    if (!r) return;
    reader_close(&r->reader);
    json_decref(r->changed);
    free(r);
    *records = NULL;
}

const struct reader *records_reader(const struct records *records) { return &records->reader; }
int64_t records_unanswered(const struct records *records) { return records->unanswered; }
const char *records_left_out(const struct records *records, int64_t *empty_rows) {
    *empty_rows = records->empty_rows;
    return records->left_out;
}

// ---- columns

// Keys of lists: a table may hold them as JSON text.
static bool holds_list(const char *key) {
    static const char *const keys[] = {"messages", "conversations", "tools", "prompt",   "completion", "input_ids",
                                       "labels",   "tokens",        "tags",  "ner_tags", "choices"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(keys[i], key)) return true;
    return false;
}

// "[{...": a list written as text; anything else stays what it is.
static json_t *parse_list(const json_t *value) {
    const char *text = json_string_value(value);
    json_t *list = NULL;
    struct cb_err ignored = {0};
    if (!text || text[0] != '[' || json_parse(&list, text, json_string_length(value), "", &ignored) != CB_OK) return NULL;
    if (json_is_array(list)) return list;
    json_decref(list);
    return NULL;
}

static bool is_source(const struct records *r, const char *key) {
    for (int i = 0; i < r->options.n_columns; i++)
        if (!strcmp(strchr(r->options.columns[i], '=') + 1, key)) return true;
    return false;
}

// The column that a key is taken from; NULL: none is named, its own.
static const char *column_of(const struct records *r, const char *key) {
    size_t n = strlen(key);
    for (int i = 0; i < r->options.n_columns; i++)
        if (!strncmp(r->options.columns[i], key, n) && r->options.columns[i][n] == '=') return r->options.columns[i] + n + 1;
    return NULL;
}

// Where the columns of a table are named: not the line of the row at which it is noticed.
static const char *names_place(const struct records *r, char head[600], const char *where) {
    if (!r->reader.names_line) return where;
    snprintf(head, 600, "%.500s: line %lld", r->reader.path, (long long)r->reader.names_line);
    return head;
}

// The object with its columns under the names that were asked for, lists out of their texts.
static enum cb_status rename_columns(struct records *r, json_t **object, const char *where, struct cb_err *err) {
    const char *key;
    json_t *value;
    bool table = r->reader.kind->is_table, changes = r->options.n_columns > 0;
    json_object_foreach(*object, key, value) changes |= table && holds_list(key) && json_is_string(value);
    if (!changes) return CB_OK;
    json_decref(r->changed);
    if (!(r->changed = json_object())) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    for (int i = 0; i < r->options.n_columns; i++) {
        const char *equals = strchr(r->options.columns[i], '=');
        value = json_object_get(*object, equals + 1);
        if (!value) {
            char found[RECORD_KEYS], head[600];
            FAIL(err, CB_E_FORMAT, "%s: --column %s: there is no column of this name; found %s", names_place(r, head, where),
                 r->options.columns[i], record_keys(*object, found));
        }
        if (json_object_setn(r->changed, r->options.columns[i], (size_t)(equals - r->options.columns[i]), value))
            FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    }
    json_object_foreach(*object, key, value) {
        if (is_source(r, key) || column_of(r, key)) continue;
        if (json_object_set(r->changed, key, value)) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    }
    json_object_foreach(r->changed, key, value) {
        json_t *list = table && holds_list(key) ? parse_list(value) : NULL;
        if (list && json_object_set_new(r->changed, key, list)) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    }
    *object = r->changed;
    return CB_OK;
}

// Of a table, once: the columns that nothing is learnt from.
static void note_columns(struct records *r, const json_t *object) {
    const char *key;
    json_t *value;
    int n = 0, used = 0, size = (int)sizeof r->left_out;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        if (record_uses(r->checker.shape, key)) continue;
        if (n < 6 && used < size - 60) used += snprintf(r->left_out + used, (size_t)(size - used), "%s%.40s", n ? ", " : "", key);
        n++;
    }
    if (n > 6) snprintf(r->left_out + used, (size_t)(size - used), " and %d more", n - 6);
}

// Whether a table's row has no value where its text should be; bytes that are no text are refused.
static enum cb_status empty_find(const struct records *r, const json_t *object, bool *empty, const char *where, struct cb_err *err) {
    static const char *const keys[] = {"messages", "conversations", "prompt", "completion", "instruction", "text", "tokens"};
    bool any = false, filled = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(object, keys[i]);
        const char *column = column_of(r, keys[i]) ? column_of(r, keys[i]) : keys[i];
        any |= value != NULL;
        filled |= value && !json_is_null(value);
        if (json_is_null(value) && r->reader.kind->holds_bytes && r->reader.kind->holds_bytes(&r->reader, column))
            FAIL(err, CB_E_FORMAT, "%s: column %s: found bytes (BYTE_ARRAY) that are not UTF-8; wanted text", where, column);
    }
    *empty = any && !filled;
    return CB_OK;
}

/* What may help, behind what is wrong. Nullable: err. */
static void hint(struct cb_err *err, const char *before, const char *text) {
    const size_t used = err ? strlen(err->message) : 0;
    if (err) snprintf(err->message + used, sizeof err->message - used, " (%s%.600s)", before, text);
}

static enum cb_status check_one(struct records *r, const char *where, struct cb_err *err) {
    const bool is_table = r->reader.kind->is_table;
    char head[600];
    enum record_shape shape;
    enum cb_status status = r->checker.n ? CB_OK : record_shape_find(&shape, r->record.object, names_place(r, head, where), err);
    if (status == CB_OK) status = record_check(&r->checker, &r->record, where, err);
    if (status != CB_OK && is_table && r->checker.n == 0) hint(err, "or ", "--column KEY=COLUMN");
    if (status != CB_OK && r->reader.bad_number.code) hint(err, "null is in the place of a number: ", r->reader.bad_number.message);
    if (status == CB_OK && r->checker.n == 1 && is_table) note_columns(r, r->record.object);
    return status;
}

/* Conversations without an assistant are passed over; a file of nothing else is refused. */
static enum cb_status end_check(const struct records *r, struct cb_err *err) {
    if (!r->unanswered || r->unanswered < r->checker.n) return CB_OK;
    FAIL(err, CB_E_FORMAT, "%s: %s %lld: %s: found none of an assistant%s; wanted one to learn from", r->reader.path, r->reader.unit,
         (long long)r->first_unanswered, record_shape_text(r->checker.shape), r->unanswered > 1 ? ", in none of the conversations" : "");
}

/* An object of the file as a record; *record NULL where it is passed over. */
static enum cb_status take(struct records *r, json_t *object, const struct record **record, struct cb_err *err) {
    char where[600];
    bool empty = false;
    *record = NULL;
    r->record = (struct record){.line = r->reader.line, .unit = r->reader.unit};
    snprintf(where, sizeof where, "%.500s: %s %lld", r->reader.path, r->record.unit, (long long)r->record.line);
    TRY(rename_columns(r, &object, where, err));
    if (r->reader.kind->is_table) TRY(empty_find(r, object, &empty, where, err));
    r->empty_rows += empty;
    if (empty) return CB_OK;
    r->record.object = object;
    TRY(check_one(r, where, err));
    if (r->record.is_answered)
        *record = &r->record;
    else if (!r->unanswered++)
        r->first_unanswered = r->record.line;
    return CB_OK;
}

enum cb_status records_next(struct records *r, const struct record **record, struct cb_err *err) {
    json_t *object;
    *record = NULL;
    while (!*record) {
        TRY(r->reader.kind->next(&r->reader, &object, err));
        if (!object) return end_check(r, err);
        TRY(take(r, object, record, err));
    }
    return CB_OK;
}

// ---- a whole file

static void summary_add(struct records_summary *s, const struct record *record) {
    s->records++;
    s->shape = record->shape;
    if (record->prompt) s->characters += (int64_t)utf8_count(record->prompt, record->n_prompt);
    if (record->text) s->characters += (int64_t)utf8_count(record->text, record->n_text);
}

static enum cb_status summary_end(struct records *r, struct records_summary *s, struct cb_err *err) {
    TRY(end_check(r, err));
    if (!s->records)
        FAIL(err, CB_E_FORMAT, "%s: found no record%s; wanted %s", r->reader.path,
             s->bytes ? " (no row after the names of the columns, or nothing but empty lines)" : " (the file is empty)",
             r->reader.kind->doc);
    int used = snprintf(s->text, sizeof s->text, "%lld record%s of %s", (long long)s->records, s->records == 1 ? "" : "s",
                        record_shape_text(s->shape));
    if (s->characters) snprintf(s->text + used, sizeof s->text - (size_t)used, ", %lld characters", (long long)s->characters);
    return CB_OK;
}

/* refused: of the first record that is none; err: what the file cannot be read for. */
static enum cb_status check_all(struct records *r, struct records_summary *s, records_row_fn *row, void *user, struct cb_err *refused,
                                struct cb_err *err) {
    const struct record *record;
    json_t *object;
    while (!refused->code || row) {
        TRY(r->reader.kind->next(&r->reader, &object, err));
        s->bytes = r->reader.bytes;
        s->is_read = !object;
        if (s->is_read && !refused->code) summary_end(r, s, refused);
        if (s->is_read) break;
        s->rows++;
        if (row) TRY(row(user, object, err));
        if (!refused->code && take(r, object, &record, refused) == CB_OK && record) summary_add(s, record);
    }
    return CB_OK;
}

enum cb_status records_check(const char *path, struct records_summary *summary, records_row_fn *row, void *user, struct cb_err *err) {
    struct records *r;
    struct cb_err refused = {0};
    *summary = (struct records_summary){0};
    TRY(records_open(&r, path, NULL, NULL, err));
    enum cb_status status = check_all(r, summary, row, user, &refused, err);
    records_close(&r);
    if (status != CB_OK || !refused.code) return status;
    return err_set(err, refused.code, refused.file, refused.line, "%s", refused.message);
}
