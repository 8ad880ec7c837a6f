/* Parquet files (apache/parquet-format) row by row, each a JSON object: strings, numbers, booleans, lists, structs, maps. */
#ifndef IO_PARQUET_H
#define IO_PARQUET_H
#include "base/json.h"

struct parquet;

/* What to do with a text that is not UTF-8: gives another in *text, *n (borrowed until the next call), or fails. */
typedef enum cb_status parquet_repair_fn(void *user, const char **text, size_t *n, struct cb_err *err);

/* Read: pages of version 1 and 2; encodings plain, dictionary, run-length, delta (numbers, lengths, byte arrays), byte stream split; Snappy, gzip, LZ4, zstd.
   Bytes without a type of text are text where they are UTF-8, else null; times are the numbers that they are stored as, of INT96 nanoseconds since 1970.
   Owned by caller, free with parquet_close. */
enum cb_status parquet_open(struct parquet **parquet, const char *path, parquet_repair_fn *repair, void *user, struct cb_err *err);
void parquet_close(struct parquet **parquet);
/* *row: owned by caller, json_decref; NULL at the end. */
enum cb_status parquet_next(struct parquet *parquet, json_t **row, struct cb_err *err);
int64_t parquet_rows(const struct parquet *parquet);
/* Whether a column of the top has given null for bytes that are no text. */
bool parquet_holds_bytes(const struct parquet *parquet, const char *column);
/* Bytes of pages read so far. */
int64_t parquet_bytes(const struct parquet *parquet);
#endif
