/* Parquet files as records: each row an object of its columns. */
#include <stdio.h>
#include <stdlib.h>

#include "data/reader.h"
#include "io/parquet.h"

struct rows {
    struct parquet *file;
    json_t *row;
    char *repaired;
};

static enum cb_status repair(void *user, const char **text, size_t *n, struct cb_err *err) {
    struct reader *r = user;
    struct rows *s = r->state;
    char where[600];
    snprintf(where, sizeof where, "%.500s: row %lld", r->path, (long long)r->line);
    return reader_repair(r, text, n, &s->repaired, where, err);
}

static enum cb_status rows_open(struct reader *r, struct cb_err *err) {
    struct rows *s = r->state;
    r->unit = "row";
    return parquet_open(&s->file, r->path, repair, r, err);
}

static void rows_close(struct reader *r) {
    struct rows *s = r->state;
    parquet_close(&s->file);
    json_decref(s->row);
    free(s->repaired);
}

static enum cb_status rows_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct rows *s = r->state;
    json_decref(s->row);
    s->row = NULL;
    r->line++;
    TRY(parquet_next(s->file, &s->row, err));
    r->bytes = parquet_bytes(s->file);
    *object = s->row;
    return CB_OK;
}

static bool holds_bytes(const struct reader *r, const char *column) {
    const struct rows *s = r->state;
    return parquet_holds_bytes(s->file, column);
}

static const char *const extensions[] = {".parquet", NULL};
const struct reader_kind read_parquet = {.name = "parquet",
                                         .doc = "a table in columns (apache/parquet-format)",
                                         .extensions = extensions,
                                         .magic = "PAR1",
                                         .is_table = true,
                                         .state_bytes = sizeof(struct rows),
                                         .open = rows_open,
                                         .close = rows_close,
                                         .holds_bytes = holds_bytes,
                                         .next = rows_next};
