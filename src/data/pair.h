/* Rows of an encoder-decoder: what a document gives first becomes the source, from its first learnt token on it is the target. */
#ifndef DATA_PAIR_H
#define DATA_PAIR_H
#include "data/corpus.h"

/* Source and target are cut apart, each to seq tokens with the eos at its end (Raffel et al. 2020: sources end by it too). */
struct pair_options {
    int64_t seq;
    int32_t eos, pad;  // eos negative: none
};

/* Tokens that the row loses. */
struct pair_cut {
    int64_t source, target;
};

/* Tokens [begin, end) of a document into a row of seq places: ids, ended by eos and padded; mask 1 at them, else 0; labels, LOADER_IGNORE after the target
   and where it is not learnt. A source without tokens sees its first place. All three NULL: what is cut alone. Nullable: cut. */
enum cb_status pair_row(const struct corpus *corpus, const struct pair_options *options, int64_t begin, int64_t end, int32_t *ids,
                        int32_t *labels, int32_t *mask, struct pair_cut *cut, struct cb_err *err);
/* First learnt token of [begin, end); end where there is none. */
int64_t pair_border(const struct corpus *corpus, int64_t begin, int64_t end);
#endif
