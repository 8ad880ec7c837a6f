/* Span corruption (Raffel et al. 2020, T5): spans of a text become sentinels in the source, and the target says what stood there. A pure function of
   (options, key). */
#ifndef DATA_CORRUPT_H
#define DATA_CORRUPT_H
#include "text/tokenizer.h"

struct corrupt_options {
    double rate;  // share of the tokens that spans take, above 0 and below 1
    uint64_t seed;
    int32_t eos, pad;  // eos ends source and target, negative: none
};

struct corrupt;  // immutable: any number of threads may use one

/* tokenizer: for its sentinels <extra_id_0>, <extra_id_1>, ...; without the first CB_E_ARGUMENT. Not kept. Owned by caller, free with corrupt_destroy. */
enum cb_status corrupt_create(struct corrupt **corrupt, const struct tokenizer *tokenizer, const struct corrupt_options *options,
                              struct cb_err *err);
void corrupt_destroy(struct corrupt **corrupt);

/* The longest target of a row of seq tokens. */
int64_t corrupt_target(const struct corrupt *corrupt, int64_t seq);

/* Rows (B,T) of ids become sources, padded; mask (the segments of the loader, -1 where padded) becomes 1 at a source's tokens, else 0; labels (B,target)
   the targets, -100 after their ends. Ends of documents within a row are left out. A row of fewer than two tokens has no target. key: of the batch. */
void corrupt_apply(const struct corrupt *corrupt, uint64_t key, int64_t batch, int64_t seq, int32_t *ids, int32_t *labels, int32_t *mask);
#endif
