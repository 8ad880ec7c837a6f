/* Formats of vocabularies. The readers fill an empty tokenizer but for tokenizer_finish; config: the object of tokenizer_config.json, nullable. */
#ifndef TEXT_FORMATS_H
#define TEXT_FORMATS_H
#include "text/parts.h"

/* The bytes of a tokenizer's file of any format; what it begins with tells which. Nullable: pattern, config. */
struct text_file {
    const char *bytes;
    size_t n;
    const char *name, *pattern;
    const json_t *config;
};
enum cb_status tokenizer_load_file(struct tokenizer **tokenizer, const struct text_file *file, struct cb_err *err);
/* tiktoken: "base64 rank" a line. pattern: a name (cl100k, o200k, gpt2, qwen2, ...) or a regular expression; NULL: config's, else cl100k. */
enum cb_status tiktoken_read(struct tokenizer *t, const char *bytes, size_t n, const char *pattern, const json_t *config, const char *name,
                             struct cb_err *err);
/* BERT's vocab.txt: a token a line, its number the id. */
enum cb_status vocab_txt_read(struct tokenizer *t, const char *bytes, size_t n, const json_t *config, const char *name, struct cb_err *err);
/* WordPiece over t->vocab, with what surrounds it: normaliser, pre-tokeniser, decoder, special tokens, [CLS] and [SEP]. */
enum cb_status bert_set(struct tokenizer *t, const json_t *config, const char *name, struct cb_err *err);
/* The next line from *at: its bytes without the end of line; false at the end. */
bool line_next(const char *bytes, size_t n, size_t *at, const char **line, size_t *n_line);
#endif
