/* inspect on data: files of records by their readers, plain text as documents. */
#include "api/inspect.h"

#include <string.h>

#include "data/records.h"
#include "data/source.h"
#include "text/utf8.h"

#define MAX_COLUMNS 1000

/* ---- columns */
static const char *const kind_names[] = {
    [JSON_OBJECT] = "struct", [JSON_ARRAY] = "list",   [JSON_STRING] = "text",   [JSON_INTEGER] = "integer",
    [JSON_REAL] = "number",   [JSON_TRUE] = "boolean", [JSON_FALSE] = "boolean", [JSON_NULL] = "null"};

/* What a column holds that has held `kind` and now `more`. */
static const char *kind_join(const char *kind, const char *more) {
    const bool number = !strcmp(kind, "number") || !strcmp(more, "number");
    if (!strcmp(kind, more) || !strcmp(more, "null")) return kind;
    if (!strcmp(kind, "null")) return more;
    return number && (!strcmp(kind, "integer") || !strcmp(more, "integer")) ? "number" : "mixed";
}

/* Adds the values of a row to {name: {name, kind, first_length}}; the length is that of the first value: characters, items or keys. */
static enum cb_status columns_add(void *user, const json_t *row, struct cb_err *err) {
    json_t *columns = user;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)row, key, value) {
        json_t *column = json_object_get(columns, key);
        const char *kind = kind_names[json_typeof(value)];
        if (!column && json_object_size(columns) == MAX_COLUMNS) continue;
        if (!column && json_object_set_new(columns, key, column = json_pack("{s:s, s:s}", "name", key, "kind", "null")))
            FAIL(err, CB_E_MEMORY, "inspect: out of memory");
        const char *before = json_string_value(json_object_get(column, "kind"));
        size_t length = json_is_string(value)  ? utf8_count(json_string_value(value), json_string_length(value))
                        : json_is_array(value) ? json_array_size(value)
                                               : json_object_size(value);
        if (!strcmp(before, "null") && (json_is_string(value) || json_is_array(value) || json_is_object(value)))
            inspect_put(column, "first_length", json_integer((json_int_t)length));
        if (strcmp(kind_join(before, kind), before)) inspect_put(column, "kind", json_string(kind_join(before, kind)));
    }
    return CB_OK;
}

enum cb_status inspect_records(struct inspection *in, struct cb_err *err) {
    const struct reader_kind *kind = reader_by_name(in->path);
    struct records_summary s = {0};
    struct cb_err why = {0};
    const char *key;
    json_t *column, *columns = json_object(), *list = json_array();
    enum cb_status status = columns && list ? records_check(in->path, &s, columns_add, columns, &why)
                                            : err_set(&why, CB_E_MEMORY, __FILE__, __LINE__, "inspect: out of memory");
    inspect_put(in->root, "format", json_string(kind->name));
    inspect_put(in->root, "records", json_integer(status == CB_OK ? s.records : s.rows));
    json_object_foreach(columns, key, column) json_array_append(list, column);
    inspect_put(in->root, "columns", list);
    json_decref(columns);
    // a table is whole without a column that has the name of something to learn
    if (status != CB_OK && !(kind->is_table && why.code == CB_E_FORMAT && s.is_read && s.rows))
        return err_set(err, why.code, why.file, why.line, "%s", why.message);
    if (status != CB_OK) {
        inspect_put(in->root, "note", json_string(why.message));
        return CB_OK;
    }
    inspect_put(in->root, "found", json_string(s.text));
    inspect_put(in->root, "shape", json_string(record_shape_text(s.shape)));
    inspect_put(in->root, "characters", json_integer(s.characters));
    return CB_OK;
}

enum cb_status inspect_text(struct inspection *in, struct cb_err *err) {
    struct source *source;
    const struct source_piece *piece = NULL;
    int64_t documents = 0, bytes = 0, characters = 0, first = 0;
    TRY(source_open(&source, &in->path, 1, &(struct source_options){.records.format = "text"}, err));
    enum cb_status status;
    while ((status = source_next(source, &piece, err)) == CB_OK && piece) {
        const int64_t n = (int64_t)utf8_count(piece->text, piece->n);
        bytes += (int64_t)piece->n;
        characters += n;
        if (!documents) first += n;
        documents += piece->ends;
    }
    source_close(&source);
    inspect_put(in->root, "documents", json_integer(documents));
    inspect_put(in->root, "bytes", json_integer(bytes));
    inspect_put(in->root, "characters", json_integer(characters));
    inspect_put(in->root, "first_length", json_integer(first));
    return status;
}
