/* A prompt and its completion, one behind the other in a row, are parted into two rows. */
#include "data/pair.h"

#include <stdbool.h>

#define IGNORE (-100)

static void row_split(int64_t seq, int32_t *ids, int32_t *labels, int32_t *mask, int32_t eos, int32_t pad) {
    // labels[t] is the token after t: the first that is learnt begins the target
    int64_t last = 0;
    while (last < seq && labels[last] == IGNORE) last++;
    bool has_target = last < seq;
    for (int64_t t = 0; has_target && t < seq; t++) labels[t] = t + last < seq ? labels[t + last] : IGNORE;
    int64_t n = has_target ? last + 1 : 0;
    while (!has_target && n < seq && mask[n] >= 0) n++;
    if (eos >= 0 && n < seq && n > 0 && ids[n - 1] != eos) ids[n++] = eos;
    if (!n) n = 1;  // a row of padding alone sees its first place
    for (int64_t t = 0; t < seq; t++) {
        if (t >= n) ids[t] = pad;
        mask[t] = t < n;
    }
}

void pair_split(int64_t batch, int64_t seq, int32_t *ids, int32_t *labels, int32_t *mask, int32_t eos, int32_t pad) {
    for (int64_t b = 0; b < batch; b++) row_split(seq, ids + b * seq, labels + b * seq, mask + b * seq, eos, pad);
}
