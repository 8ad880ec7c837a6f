/* How many spans a row has follows from its length; where they lie is drawn, every way to part the row being as likely as any other. */
#include "data/corrupt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"

#define IGNORE (-100)
#define MEAN_SPAN 3.0  // tokens, as in the paper
#define MOST_SENTINELS 1000

struct corrupt {
    struct corrupt_options options;
    int32_t sentinel[MOST_SENTINELS];
    int64_t n_sentinels;
};

enum cb_status corrupt_create(struct corrupt **corrupt, const struct tokenizer *tokenizer, const struct corrupt_options *options,
                              struct cb_err *err) {
    *corrupt = NULL;
    if (!(options->rate > 0 && options->rate < 1))
        FAIL(err, CB_E_USAGE, "--mask-rate %g: wanted a number above 0 and below 1", options->rate);
    struct corrupt *c = calloc(1, sizeof *c);
    if (!c) FAIL(err, CB_E_MEMORY, "span corruption: out of memory");
    c->options = *options;
    // mT5 writes them with SentencePiece's mark of a space
    static const char *const names[] = {"<extra_id_%d>", "\xE2\x96\x81<extra_id_%d>"};
    for (int k = 0; k < 2 && !c->n_sentinels; k++)
        for (int32_t id = 0; c->n_sentinels < MOST_SENTINELS; c->sentinel[c->n_sentinels++] = id) {
            char name[40];
            snprintf(name, sizeof name, names[k], (int)c->n_sentinels);
            if ((id = tokenizer_id(tokenizer, name)) < 0) break;
        }
    if (!c->n_sentinels) {
        free(c);
        FAIL(err, CB_E_ARGUMENT,
             "tokenizer: no sentinel that stands for a span; wanted <extra_id_0>, <extra_id_1>, ... among its tokens (tokenizer train "
             "--special)");
    }
    *corrupt = c;
    return CB_OK;
}

void corrupt_destroy(struct corrupt **corrupt) {
    free(*corrupt);
    *corrupt = NULL;
}

/* Of n tokens, 2 or more: those that spans take, and the spans; each span and each piece between has a token at least. */
static void counts(const struct corrupt *c, int64_t n, int64_t *hidden, int64_t *spans) {
    *hidden = llround((double)n * c->options.rate);
    if (*hidden < 1) *hidden = 1;
    if (*hidden > n - 1) *hidden = n - 1;
    *spans = llround((double)*hidden / MEAN_SPAN);
    const int64_t most = *hidden < n - *hidden ? *hidden : n - *hidden;
    if (*spans > most) *spans = most;
    if (*spans > c->n_sentinels) *spans = c->n_sentinels;
    if (*spans < 1) *spans = 1;
}

int64_t corrupt_target(const struct corrupt *c, int64_t seq) {
    int64_t hidden, spans;
    counts(c, seq < 2 ? 2 : seq, &hidden, &spans);
    return hidden + spans + 1;
}

/* `tokens` parted into `parts`, one part after another: cuts are drawn among the tokens - 1 places where one may be (Knuth, algorithm S). */
struct parting {
    struct rng rng;
    int64_t tokens, parts;  // left
};
static int64_t part_next(struct parting *p) {
    int64_t n = 1;
    if (p->parts == 1) n = p->tokens;
    while (p->parts > 1 && rng_f64(&p->rng) * (double)(p->tokens - n) >= (double)(p->parts - 1)) n++;
    p->tokens -= n;
    p->parts--;
    return n;
}

static void row_apply(const struct corrupt *c, uint64_t key, int64_t seq, int64_t room, int32_t *ids, int32_t *labels, int32_t *mask) {
    const int32_t eos = c->options.eos;
    int64_t n = 0, source = 0, target = 0, at = 0, hidden = 0, spans = 0;
    for (int64_t t = 0; t < seq; t++)
        if (mask[t] >= 0 && ids[t] != eos) ids[n++] = ids[t];
    if (n >= 2) counts(c, n, &hidden, &spans);
    struct parting kept = {rng_make(c->options.seed ^ rng_hash("kept"), key), n - hidden, spans};
    struct parting taken = {rng_make(c->options.seed ^ rng_hash("taken"), key), hidden, spans};
    for (int64_t s = 0; s < spans; s++) {
        for (int64_t k = part_next(&kept); k > 0; k--) ids[source++] = ids[at++];
        labels[target++] = c->sentinel[s];
        for (int64_t k = part_next(&taken); k > 0; k--) labels[target++] = ids[at++];
        ids[source++] = c->sentinel[s];
    }
    if (!spans) source = n;
    if (spans && eos >= 0 && target < room) labels[target++] = eos;
    if (eos >= 0 && source < seq) ids[source++] = eos;
    for (; target < room; target++) labels[target] = IGNORE;
    for (int64_t t = 0; t < seq; t++) {
        if (t >= source) ids[t] = c->options.pad;
        mask[t] = t < source || !t;  // a row of padding alone sees its first place
    }
}

void corrupt_apply(const struct corrupt *c, uint64_t key, int64_t batch, int64_t seq, int32_t *ids, int32_t *labels, int32_t *mask) {
    const int64_t room = corrupt_target(c, seq);
    for (int64_t b = 0; b < batch; b++)
        row_apply(c, key * (uint64_t)batch + (uint64_t)b, seq, room, ids + b * seq, labels + b * room, mask + b * seq);
}
