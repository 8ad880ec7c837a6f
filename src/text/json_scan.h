/* The two great lists of a tokenizer.json, vocabulary and merges, read without a JSON value for each of their entries. */
#ifndef TEXT_JSON_SCAN_H
#define TEXT_JSON_SCAN_H
#include "base/arena.h"
#include "base/err.h"

struct scanned_token {
    const char *text;  // ended by NUL, which it does not hold
    uint32_t n;
    int64_t id;  // of {"text": id}
    double score;  // of ["text", score]
};
struct scanned_merge {
    const char *left, *right;
    uint32_t n_left, n_right;
};
struct json_scan {
    bool has_vocab, has_merges;
    bool is_pairs;  // the vocabulary is a list of pairs, not an object
    struct scanned_token *token;
    struct scanned_merge *merge;
    size_t n_tokens, n_merges, token_capacity, merge_capacity;
    char *rest;  // the file with empty lists in their places, n_rest bytes
    size_t n_rest;
};
/* Looks into n bytes of UTF-8 for "model": {"vocab": ..., "merges": ...} of the usual form, and reads them. What is of another form, or wrong, is left to
   the general parser: *found tells whether rest replaces the file. Texts lie in the arena. Free with json_scan_deinit. */
enum cb_status json_scan(struct json_scan *scan, bool *found, struct arena *arena, const char *bytes, size_t n, struct cb_err *err);
/* The same of n bytes that are nothing but {"text": id, ...}; there is no rest. */
enum cb_status json_scan_vocab(struct json_scan *scan, bool *found, struct arena *arena, const char *bytes, size_t n, struct cb_err *err);
void json_scan_deinit(struct json_scan *scan);
#endif
