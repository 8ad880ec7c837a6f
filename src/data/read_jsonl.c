/* JSON Lines (jsonlines.org): one object a line, blank lines passed over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"

#define MAX_LINE ((size_t)1 << 28)

struct jsonl {
    json_t *object;
    char *repaired;
};

static void jsonl_close(struct reader *r) {
    struct jsonl *j = r->state;
    json_decref(j->object);
    free(j->repaired);
}

/* Whether a line ends within a value, as the first of an indented document does. */
static bool goes_on(const char *line, size_t n) {
    while (n && strchr(" \t\r", line[n - 1])) n--;
    return n && line[n - 1] && strchr("{[,", line[n - 1]);
}

static enum cb_status jsonl_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct jsonl *j = r->state;
    char *line, where[600];
    size_t n;
    *object = NULL;
    for (;;) {
        TRY(stream_line(r->stream, &line, &n, MAX_LINE, err));
        if (!line) return CB_OK;
        r->bytes += (int64_t)n + 1;
        r->line = stream_line_number(r->stream);
        const size_t mark = r->line == 1 ? data_mark(line, n) : 0;
        line += mark, n -= mark;
        if (strspn(line, " \t\r") < n) break;
    }
    snprintf(where, sizeof where, "%.500s: line %lld", stream_name(r->stream), (long long)r->line);
    if (!j->object && goes_on(line, n))
        FAIL(err, CB_E_FORMAT,
             "%s: found a line that ends within a value; wanted one JSON object a line: this looks like one indented document, which is "
             "read under a name in .json, or with --format json",
             where);
    json_decref(j->object);
    TRY(reader_parse(r, &j->object, line, n, &j->repaired, where, err));
    *object = j->object;
    return CB_OK;
}

static const char *const extensions[] = {".jsonl", ".ndjson", NULL};
const struct reader_kind read_jsonl = {.name = "jsonl",
                                       .doc = "one JSON object a line",
                                       .extensions = extensions,
                                       .streams = true,
                                       .state_bytes = sizeof(struct jsonl),
                                       .close = jsonl_close,
                                       .next = jsonl_next};
