/* The layout of a token shard, and its writer. Private to this room. */
#ifndef DATA_SHARD_H
#define DATA_SHARD_H
#include "base/err.h"

#define SHARD_MAGIC "CBTOKENS"
#define SHARD_END "CBTOKEND"
#define SHARD_VERSION 1
#define SHARD_MARK 1024  // tokens between two marks

/* A file is: head, tokens (u16 or u32), documents, marks, ranges, description, foot; each section begins at a multiple of 8. All little-endian. */
struct shard_head {
    char magic[8];
    uint32_t version, token_bytes;
    int64_t vocab;
    int64_t zero[5];
};
struct shard_foot {
    int64_t tokens, documents, ranges, description_bytes;
    int64_t text_bytes;  // of all text, prompts too
    int64_t zero[2];
    char magic[8];
};
/* What comes before a token: bytes and words of learnt text. */
struct shard_mark {
    int64_t bytes, words;
};
/* One more than there are documents: the last holds the totals. */
struct shard_document {
    int64_t start;
    struct shard_mark before;
};
/* Tokens [begin, end) are not learnt. */
struct shard_range {
    int64_t begin, end;
};

struct shard_writer;

/* path NULL: in memory. Frees with shard_abort, or shard_end. */
enum cb_status shard_begin(struct shard_writer **writer, const char *path, int64_t vocab, struct cb_err *err);
/* The next token begins a document. A document without tokens leaves no trace. */
void shard_document(struct shard_writer *writer);
/* before: bytes and words of learnt text before this token, never falling. */
enum cb_status shard_token(struct shard_writer *writer, int32_t id, struct shard_mark before, struct cb_err *err);
/* Tokens [begin, tokens so far) are not learnt. */
enum cb_status shard_unlearnt(struct shard_writer *writer, int64_t begin, struct cb_err *err);
int64_t shard_tokens(const struct shard_writer *writer);
/* totals: what there was of learnt text. Frees the writer in any case. bytes: in memory, owned by caller, free with free(); else NULL. */
enum cb_status shard_end(struct shard_writer **writer, struct shard_mark totals, int64_t text_bytes, const char *description, size_t n,
                         unsigned char **bytes, size_t *n_bytes, struct cb_err *err);
void shard_abort(struct shard_writer **writer);
#endif
