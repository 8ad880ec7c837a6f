/* Files of records: any format of reader.h, its columns named as wanted, each record checked; every message names file and line. */
#ifndef DATA_RECORDS_H
#define DATA_RECORDS_H
#include "data/reader.h"
#include "data/record.h"

struct records;

struct records_options {
    enum data_invalid invalid;
    const char *const *columns;  // "text=review": the column review is the text; n_columns of them
    int n_columns;
    const char *separator;  // of CSV; nullable: by name and first line
    const char *quote;  // of CSV: a character or "none"; nullable: the double quote
    const char *format;  // of files that are named, whatever they are called: "csv", "conll", ...; nullable: by name
};

/* Those of the public options, which have these fields. */
#define RECORDS_OPTIONS(o)     \
    ((struct records_options){ \
        .columns = (o)->columns, .n_columns = (o)->n_columns, .separator = (o)->separator, .quote = (o)->quote, .format = (o)->format})

/* Whether columns are all "key=column"; CB_E_USAGE otherwise. */
enum cb_status records_check_columns(const char *const *columns, int n_columns, struct cb_err *err);

/* path: a file of a known format (kind NULL: by its name, else JSON Lines); "-" is standard input. Owned by caller, free with records_close. Nullable:
   options. */
enum cb_status records_open(struct records **records, const char *path, const struct reader_kind *kind,
                            const struct records_options *options, struct cb_err *err);
void records_close(struct records **records);
/* The next record; *record NULL at the end. Borrowed until the next call. Rows of a table without a value in what they are learnt from are passed over.
   So are conversations in which no assistant speaks, unless the file has nothing else. Anything malformed is CB_E_FORMAT, "FILE: line N: ...". */
enum cb_status records_next(struct records *records, const struct record **record, struct cb_err *err);
const struct reader *records_reader(const struct records *records);  // bytes, broken bytes, line
int64_t records_unanswered(const struct records *records);  // conversations passed over so far
/* Columns of a table that are left out, "a, b and 3 more", empty where there are none; rows without a value. */
const char *records_left_out(const struct records *records, int64_t *empty_rows);

struct records_summary {
    enum record_shape shape;
    bool is_read;  // to the end: what is wrong is a record, not the file
    int64_t rows, records;  // all, and those that hold something to learn
    int64_t characters;  // code points of text, prompts and completions, where the shape has them
    int64_t bytes;  // of the file, decompressed
    char text[120];  // for people: "2 records of prompt and completion, 31 characters"
};
typedef enum cb_status records_row_fn(void *user, const json_t *row, struct cb_err *err);
/* Reads a whole file. No records at all is CB_E_FORMAT. Nullable: row, which gets each object as it stands in the file, also those after one that is refused. */
enum cb_status records_check(const char *path, struct records_summary *summary, records_row_fn *row, void *user, struct cb_err *err);
#endif
