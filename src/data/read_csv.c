/* Tables as text: CSV (RFC 4180) and TSV, the first row naming the columns. Every value is a string. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "text/buffer.h"

#define MAX_COLUMNS 4096
#define MAX_CELL ((size_t)1 << 28)

struct csv {
    char separator;
    int quote;  // -1: none
    struct buffer row;  // the cells of a row, one after another
    size_t *end;  // of each cell in row; n_cells of them
    size_t n_cells, capacity;
    char **column;
    size_t n_columns;
    int64_t line;  // being read, from 1
    json_t *object;
    char *repaired;
};

static enum cb_status cell_end(struct reader *r, struct cb_err *err) {
    struct csv *c = r->state;
    if (c->n_cells == MAX_COLUMNS) FAIL(err, CB_E_LIMIT, "%s: line %lld: over %d columns", r->path, (long long)c->line, MAX_COLUMNS);
    TRY(buffer_grow((void **)&c->end, &c->capacity, c->n_cells + 1, sizeof *c->end, err));
    c->end[c->n_cells++] = c->row.n;
    return CB_OK;
}

static enum cb_status cell_add(struct reader *r, char byte, struct cb_err *err) {
    struct csv *c = r->state;
    if (c->row.n >= MAX_CELL)
        FAIL(err, CB_E_LIMIT, "%s: line %lld: a row of over %zu bytes; is a quote left open?", r->path, (long long)r->line, MAX_CELL);
    return buffer_append(&c->row, &byte, 1, err);
}

// What stands behind a closing quote: nothing but the end of the cell (RFC 4180, 2.5 to 2.7).
static enum cb_status closed_check(const struct reader *r, int byte, struct cb_err *err) {
    const struct csv *c = r->state;
    char found[20];
    if (byte < 0 || byte == c->separator || byte == '\n' || byte == '\r') return CB_OK;
    snprintf(found, sizeof found, byte >= 32 && byte < 127 ? "'%c'" : "byte 0x%02x", (unsigned)byte);
    FAIL(err, CB_E_FORMAT,
         "%s: line %lld: found %s after a closing quote (the row begins on line %lld); wanted the end of the cell, a quote within quotes "
         "twice, or --quote none where quotes are text",
         r->path, (long long)c->line, found, (long long)r->line);
}

// After the opening quote: to the closing one; two quotes are one.
static enum cb_status quoted(struct reader *r, struct cb_err *err) {
    struct csv *c = r->state;
    for (int byte;;) {
        TRY(reader_peek(r, &byte, err));
        if (byte < 0)
            FAIL(err, CB_E_FORMAT, "%s: line %lld: found a quote that is never closed; wanted %c (or --quote none)", r->path,
                 (long long)r->line, c->quote);
        r->at++;
        c->line += byte == '\n';
        if (byte == c->quote) {
            TRY(reader_peek(r, &byte, err));
            if (byte != c->quote) return closed_check(r, byte, err);
            r->at++;
        }
        TRY(cell_add(r, (char)byte, err));
    }
}

// One row into c->row; *any false at the end. Quotes count only where they begin a cell.
static enum cb_status row_read(struct reader *r, bool *any, struct cb_err *err) {
    struct csv *c = r->state;
    bool begins = true;
    c->row.n = c->n_cells = 0;
    *any = false;
    r->line = c->line;
    for (int byte;;) {
        TRY(reader_peek(r, &byte, err));
        if (byte < 0) return *any ? cell_end(r, err) : CB_OK;
        r->at++;
        if (byte == '\n' || byte == '\r') {
            int next = 0;
            if (byte == '\r') TRY(reader_peek(r, &next, err));
            if (next == '\n') r->at++;
            c->line++;
            // an empty line is no row
            if (*any) return cell_end(r, err);
            r->line = c->line;
            continue;
        }
        *any = true;
        if (byte == c->separator) {
            TRY(cell_end(r, err));
            begins = true;
        } else if (byte == c->quote && begins) {
            TRY(quoted(r, err));
            begins = false;
        } else {
            TRY(cell_add(r, (char)byte, err));
            begins = false;
        }
    }
}

static const char *cell(const struct csv *c, size_t i, size_t *n) {
    size_t begin = i ? c->end[i - 1] : 0;
    *n = c->end[i] - begin;
    return c->row.data ? c->row.data + begin : "";
}

// The separator that the first line has most of, outside quotes; a tab where the name says so.
static char separator_find(const struct reader *r, const struct csv *c) {
    static const char candidates[] = ",\t;|";
    size_t best = 0, count[4] = {0};
    bool inside = false;
    if (r->separator && *r->separator) return !strcmp(r->separator, "\\t") || !strcmp(r->separator, "tab") ? '\t' : *r->separator;
    if (reader_is_called(r->path, ".tsv") || reader_is_called(r->path, ".tab")) return '\t';
    for (size_t i = r->at; i < r->n && (inside || r->ahead[i] != '\n'); i++) {
        const char *found = r->ahead[i] ? strchr(candidates, r->ahead[i]) : NULL;
        inside ^= (unsigned char)r->ahead[i] == c->quote;
        if (found && !inside) count[found - candidates]++;
    }
    for (size_t i = 1; i < 4; i++)
        if (count[i] > count[best]) best = i;
    return candidates[best];
}

static enum cb_status header_read(struct reader *r, struct cb_err *err) {
    struct csv *c = r->state;
    bool any;
    char where[600];
    TRY(row_read(r, &any, err));
    if (!any) return CB_OK;
    r->names_line = r->line;
    c->column = calloc(c->n_cells, sizeof *c->column);
    if (!c->column) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    snprintf(where, sizeof where, "%.500s: line %lld: the names of the columns", r->path, (long long)r->line);
    for (; c->n_columns < c->n_cells; c->n_columns++) {
        size_t n;
        const char *text = cell(c, c->n_columns, &n);
        TRY(reader_repair(r, &text, &n, &c->repaired, where, err));
        while (n && (*text == ' ')) text++, n--;
        while (n && (text[n - 1] == ' ')) n--;
        if (memchr(text, 0, n)) FAIL(err, CB_E_FORMAT, "%s: found a NUL; wanted text", where);
        for (size_t i = 0; i < c->n_columns; i++)
            if (strlen(c->column[i]) == n && !memcmp(c->column[i], text, n))
                FAIL(err, CB_E_FORMAT, "%s: found '%s' twice; wanted each once", where, c->column[i]);
        if (!(c->column[c->n_columns] = strndup(text, n))) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    }
    return CB_OK;
}

static enum cb_status csv_open(struct reader *r, struct cb_err *err) {
    struct csv *c = r->state;
    int byte;
    c->line = 1;
    const bool none = r->quote && (!*r->quote || !strcmp(r->quote, "none"));
    if (r->quote && !none && r->quote[1]) FAIL(err, CB_E_USAGE, "--quote %.40s: wanted one character or none", r->quote);
    c->quote = none ? -1 : r->quote ? (unsigned char)*r->quote : '"';
    TRY(reader_peek(r, &byte, err));
    c->separator = separator_find(r, c);
    if ((unsigned char)c->separator == c->quote)
        FAIL(err, CB_E_USAGE, "--quote %c: found it between the columns too; wanted another", c->quote);
    return header_read(r, err);
}

static void csv_close(struct reader *r) {
    struct csv *c = r->state;
    for (size_t i = 0; i < c->n_columns; i++) free(c->column[i]);
    free(c->column);
    free(c->row.data);
    free(c->end);
    json_decref(c->object);
    free(c->repaired);
}

static enum cb_status csv_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct csv *c = r->state;
    bool any;
    char where[600];
    *object = NULL;
    TRY(row_read(r, &any, err));
    if (!any) return CB_OK;
    if (c->n_cells != c->n_columns)
        FAIL(err, CB_E_FORMAT, "%s: line %lld: found %zu cells; wanted %zu, as the first row has (or another --separator)", r->path,
             (long long)r->line, c->n_cells, c->n_columns);
    json_decref(c->object);
    if (!(c->object = json_object())) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    for (size_t i = 0; i < c->n_cells; i++) {
        size_t n;
        const char *text = cell(c, i, &n);
        snprintf(where, sizeof where, "%.400s: line %lld: %.100s", r->path, (long long)r->line, c->column[i]);
        TRY(reader_repair(r, &text, &n, &c->repaired, where, err));
        if (json_object_set_new(c->object, c->column[i], json_stringn(text, n))) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    }
    *object = c->object;
    return CB_OK;
}

static const char *const extensions[] = {".csv", ".tsv", ".tab", NULL};
const struct reader_kind read_csv = {.name = "csv",
                                     .doc = "a table with a first row of names, columns parted by comma, tab, semicolon or bar (RFC 4180)",
                                     .extensions = extensions,
                                     .streams = true,
                                     .is_table = true,
                                     .state_bytes = sizeof(struct csv),
                                     .open = csv_open,
                                     .close = csv_close,
                                     .next = csv_next};
