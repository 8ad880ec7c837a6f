/* A prompt and its completion, one behind the other in a corpus, as source and target of one row. */
#include "data/pair.h"

#include <string.h>

#include "data/loader.h"

int64_t pair_border(const struct corpus *corpus, int64_t begin, int64_t end) {
    enum { MANY = 256 };
    int32_t label[MANY];
    for (int64_t n; begin < end; begin += n) {
        n = end - begin < MANY ? end - begin : MANY;
        memset(label, 0, sizeof label);
        corpus_unlearn(corpus, label, begin, n);
        for (int64_t t = 0; t < n; t++)
            if (label[t] != LOADER_IGNORE) return begin + t;
    }
    return end;
}

// Whether tokens [begin, end) end by eos.
static enum cb_status ends_by(const struct corpus *corpus, int64_t begin, int64_t end, int32_t eos, bool *does, struct cb_err *err) {
    int32_t last = -1;
    if (begin < end) TRY(corpus_read(corpus, &last, end - 1, 1, err));
    *does = eos >= 0 && last == eos;
    return CB_OK;
}

enum cb_status pair_row(const struct corpus *corpus, const struct pair_options *o, int64_t begin, int64_t end, int32_t *ids,
                        int32_t *labels, int32_t *mask, struct pair_cut *cut, struct cb_err *err) {
    const int64_t border = pair_border(corpus, begin, end), seq = o->seq;
    const bool source_eos = o->eos >= 0;
    bool has_eos, target_eos;
    TRY(ends_by(corpus, begin, border, o->eos, &has_eos, err));
    TRY(ends_by(corpus, border, end, o->eos, &target_eos, err));
    // tokens before the eos, and as many of them as there is room for
    const int64_t source = border - begin - has_eos, target = end - border - target_eos;
    const int64_t source_kept = source < seq - source_eos ? source : seq - source_eos;
    const int64_t target_kept = target < seq - target_eos ? target : seq - target_eos;
    if (cut) *cut = (struct pair_cut){source - source_kept, target - target_kept};
    if (!ids) return CB_OK;
    TRY(corpus_read(corpus, ids, begin, source_kept, err));
    for (int64_t t = source_kept; t < seq; t++) ids[t] = source_eos && t == source_kept ? o->eos : o->pad;
    for (int64_t t = 0; t < seq; t++) mask[t] = t < source_kept + source_eos || t == 0;
    TRY(corpus_read(corpus, labels, border, target_kept, err));
    corpus_unlearn(corpus, labels, border, target_kept);
    for (int64_t t = target_kept; t < seq; t++) labels[t] = LOADER_IGNORE;
    if (!target_eos) return CB_OK;
    labels[target_kept] = o->eos;
    corpus_unlearn(corpus, labels + target_kept, end - 1, 1);
    return CB_OK;
}
