/* What the files of the corpus share. Private to this room. */
#ifndef DATA_CORPUS_PRIVATE_H
#define DATA_CORPUS_PRIVATE_H
#include "data/corpus.h"

/* A corpus over the bytes of a shard in memory; takes ownership of them in any case. */
enum cb_status corpus_adopt(struct corpus **corpus, unsigned char *bytes, size_t n, struct cb_err *err);
#endif
