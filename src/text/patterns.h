/* Patterns of byte-level vocabularies by the names that they go by. */
#ifndef TEXT_PATTERNS_H
#define TEXT_PATTERNS_H
#include "text/parts.h"

/* How a family of byte-level vocabularies cuts text: each expression cuts what the ones before have left. */
struct text_pattern {
    const char *names;  // "|gpt-2|mpt|": GGUF's tokenizer.ggml.pre, tiktoken's encodings
    const char *regex[6];
    bool ignore_merges;  // a word that is a token is that token
    bool add_bos;  // where nothing else is said
};
/* NULL where the name is not known. */
const struct text_pattern *text_pattern_find(const char *name);
/* Split stages with the expressions, then ByteLevel, and its decoder. */
enum cb_status text_pattern_parts(struct tokenizer *t, const char *const *regex, const char *name, struct cb_err *err);
#endif
