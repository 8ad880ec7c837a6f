/* Batches of an encoder-decoder: what is given becomes the source, what is learnt the target. */
#ifndef DATA_PAIR_H
#define DATA_PAIR_H
#include <stdint.h>

/* Rows (B,T) as loader_batch gives them with no_pack, in place: ids become the source, ended by eos and padded; mask (the segments of the loader, -1 where
   padded) becomes 1 at the source's tokens, else 0; labels become the target from the row's start, -100 after its end. eos negative: none. */
void pair_split(int64_t batch, int64_t seq, int32_t *ids, int32_t *labels, int32_t *mask, int32_t eos, int32_t pad);
#endif
