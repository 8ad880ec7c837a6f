/* Records of JSON Lines: read one by one and checked strictly; every message names file and line. */
#ifndef DATA_JSONL_H
#define DATA_JSONL_H
#include "base/json.h"
#include "data/invalid.h"

/* What a record is. All records of a file have one shape. */
enum jsonl_shape {
    JSONL_TEXT,  // text
    JSONL_PROMPT,  // prompt, completion
    JSONL_MESSAGES,  // messages: a list of {role, content}
    JSONL_ALPACA,  // instruction, output (or response), input where there is one
    JSONL_SHAREGPT,  // conversations: a list of {from, value}
    JSONL_IDS,  // input_ids (or ids), labels of the same length where there are any
    JSONL_LABEL,  // text, label: an integer, float or string, the same kind throughout
    JSONL_SHAPES,
};
/* The keys in words: "text", "prompt and completion", ... */
const char *jsonl_shape_text(enum jsonl_shape shape);

/* Strings may hold NUL. text: of JSONL_TEXT and JSONL_LABEL, or the completion of JSONL_PROMPT; NULL for other shapes. */
struct jsonl_record {
    enum jsonl_shape shape;
    int64_t line;  // from 1
    const char *prompt, *text;
    size_t n_prompt, n_text;
    const json_t *object;  // the whole record
};

struct jsonl;

/* path: .jsonl, plain or compressed; "-" is standard input. invalid: what to do with bytes that are not UTF-8. Owned by caller, free with
   jsonl_close. */
enum cb_status jsonl_open(struct jsonl **jsonl, const char *path, enum data_invalid invalid, struct cb_err *err);
void jsonl_close(struct jsonl **jsonl);
/* The next record, blank lines passed over; *record NULL at the end. Borrowed until the next call. Anything malformed is CB_E_FORMAT,
   "FILE: line N: ...". */
enum cb_status jsonl_next(struct jsonl *jsonl, const struct jsonl_record **record, struct cb_err *err);
/* Bytes of text read so far; broken bytes replaced or left out so far, and the line of the first (0: none). */
int64_t jsonl_bytes(const struct jsonl *jsonl);
int64_t jsonl_broken(const struct jsonl *jsonl, int64_t *line);

struct jsonl_summary {
    enum jsonl_shape shape;
    int64_t records;
    int64_t characters;  // code points of text, prompts and completions, where the shape has them
    int64_t bytes;  // of the file, decompressed
    char text[120];  // for people: "2 records of prompt and completion, 31 characters"
};
/* Reads a whole file. No records at all is CB_E_FORMAT. */
enum cb_status jsonl_check(const char *path, struct jsonl_summary *summary, struct cb_err *err);
#endif
