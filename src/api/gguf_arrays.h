/* The vocabulary of a GGUF file as plain arrays. */
#ifndef API_GGUF_ARRAYS_H
#define API_GGUF_ARRAYS_H
#include "io/gguf.h"
#include "text/tokenizer.h"

/* Arrays and what they point to; texts are borrowed from the file. */
struct gguf_arrays {
    struct tokenizer_arrays arrays;
    int32_t ids[7];
    void *owned[4];
};
/* CB_E_FORMAT where lengths differ or an id is outside the vocabulary. *there: whether the file has a vocabulary. Free with gguf_arrays_free, after a failure too. */
enum cb_status gguf_arrays_read(struct gguf_arrays *out, bool *there, struct gguf *gguf, struct cb_err *err);
void gguf_arrays_free(struct gguf_arrays *arrays);
/* gguf_tokenizer.c: the tokenizer of an open file. */
enum cb_status gguf_tokenizer(struct tokenizer **tokenizer, struct gguf *gguf, struct cb_err *err);
/* The vocabulary of a file as tokenizer.json and tokenizer_config.json of a folder, where it has one. */
enum cb_status gguf_write_tokenizer(const char *path, const char *folder, struct cb_err *err);
#endif
