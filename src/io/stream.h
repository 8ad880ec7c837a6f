/* Text bytes from a plain, gzip or zstd file, or standard input, in pieces or lines. */
#ifndef IO_STREAM_H
#define IO_STREAM_H
#include "base/err.h"

struct stream;

/* path "-" is standard input. The first bytes tell the compression; a name ending in .gz or .zst must hold what it says. Owned by caller, free with
   stream_close. */
enum cb_status stream_open(struct stream **stream, const char *path, struct cb_err *err);
void stream_close(struct stream **stream);
const char *stream_name(const struct stream *stream);
/* Up to n bytes; *got 0 at the end only. A truncated or damaged archive is CB_E_FORMAT. */
enum cb_status stream_read(struct stream *stream, void *bytes, size_t n, size_t *got, struct cb_err *err);
/* The next line without its "\n" (a last one may lack it): *line, NUL-terminated, borrowed until the next call; NULL at the end. A line over max_bytes
   is CB_E_LIMIT and names its number. */
enum cb_status stream_line(struct stream *stream, char **line, size_t *n, size_t max_bytes, struct cb_err *err);
/* Number of the line that stream_line gave last, from 1. */
int64_t stream_line_number(const struct stream *stream);
#endif
