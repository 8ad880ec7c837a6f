/* Batches of tokens from a corpus: a pure function of (options, index), so that a run that goes on sees exactly what it would have seen. */
#ifndef DATA_LOADER_H
#define DATA_LOADER_H
#include "data/corpus.h"

#define LOADER_IGNORE (-100)  // a label that is not learnt

struct loader_options {
    int64_t batch, seq;  // B rows of T tokens
    uint64_t seed;
    int64_t first, last;  // tokens of the corpus that are used; last 0: to its end
    bool no_pack;  // one document a row, cut after T tokens or padded; else windows of T tokens over all
    bool pairs;  // with no_pack, of an encoder-decoder: ids are the source, labels the target, segments the mask (data/pair.h)
    int32_t eos;  // of pairs: ends each source; negative: none
    bool segments;  // documents of one window do not see each other: the first token of a document is not learnt from the one before
    bool evaluation;  // for loader_valid alone: text may be shorter than a window (2 tokens at least), loader_batch is refused
    int64_t stride;  // of loader_valid: tokens from window to window, 1..seq; 0: seq
    int32_t pad;  // id in padded places
};

struct loader;  // immutable: any number of threads may use one

/* corpus must outlive the loader. Text shorter than one window is CB_E_ARGUMENT unless no_pack or evaluation. Owned by caller, free with loader_destroy. */
enum cb_status loader_create(struct loader **loader, const struct corpus *corpus, const struct loader_options *options, struct cb_err *err);
void loader_destroy(struct loader **loader);

/* Rows in an epoch: windows, or documents with no_pack. Row r of the run is window r % windows of epoch r / windows. */
int64_t loader_windows(const struct loader *loader);
/* Batches that hold the rows of this many epochs (the last may go into the next epoch); INT64_MAX where that is too many. */
int64_t loader_batches(const struct loader *loader, int64_t epochs);
/* Tokens of the range; what rows of an epoch lose: tokens cut off (no_pack) or left over by the windows, documents they are cut from, and rows of which
   nothing is left to learn. Of pairs cut_tokens and cut_documents are the sources', cut_target_tokens and cut_targets the targets'. */
struct loader_info {
    int64_t tokens, documents, cut_tokens, cut_documents, cut_target_tokens, cut_targets, blank_rows;
};
const struct loader_info *loader_info(const struct loader *loader);

/* Batch `index` >= 0 of the run: ids, labels (each the token after, LOADER_IGNORE where not learnt), segments (number of the document within the row, -1
   where padded), positions (from 0 in each document of the row, and at the row's start); each (B,T), row-major. An epoch visits each window once, in an
   order of its own, begun at a token of its own: the last window goes round the end. Nullable: segments, positions. */
enum cb_status loader_batch(const struct loader *loader, int64_t index, int32_t *ids, int32_t *labels, int32_t *segments,
                            int32_t *positions, struct cb_err *err);

/* Validation: batches over the range in order; every token but the first (with segments: but the first of each document) is a label exactly once. With a
   stride, windows overlap and a token is scored with at least seq - stride tokens before it, where there are as many. Rows after the end are padded
   whole. no_pack: the documents in order. */
int64_t loader_valid_batches(const struct loader *loader);
enum cb_status loader_valid(const struct loader *loader, int64_t index, int32_t *ids, int32_t *labels, int32_t *segments,
                            int32_t *positions, struct cb_err *err);
const struct loader_options *loader_options(const struct loader *loader);
#endif
