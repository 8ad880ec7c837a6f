/* Choosing the next token from logits: greedy, temperature, top-k, top-p, min-p and repetition penalty. */
#ifndef RUN_SAMPLE_H
#define RUN_SAMPLE_H
#include "base/err.h"

/* Zero means off (temperature, top_p, repeat_penalty: 1). Applied in the order of Transformers' processors: repetition penalty (Keskar et al. 2019, CTRL:
   positive logits of seen tokens divided, negative ones multiplied), n-grams that must not repeat, temperature, top-k, top-p (Holtzman et al. 2020),
   min-p (Nguyen et al. 2024). */
struct sample_options {
    bool greedy;  // the likeliest after the penalty; ties: the smallest id
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k;
    int64_t no_repeat_ngram;  // no n tokens in a row come twice (Paulus et al. 2017, of all lengths of n); most_seen: of sampler_see
    int64_t most_seen;
    uint64_t seed;
};

struct sampler;

/* Options out of range are CB_E_USAGE, named as on the command line. Owned by caller, free with sampler_destroy. */
enum cb_status sampler_create(struct sampler **sampler, int64_t vocab, const struct sample_options *options, struct cb_err *err);
void sampler_destroy(struct sampler **sampler);
/* Memory of a sampler that keeps the order of most_seen tokens (0 without no_repeat_ngram). */
int64_t sampler_bytes(int64_t vocab, int64_t most_seen);
/* Marks a token of the prompt or of the answer as seen, in their order. id: in the vocabulary. */
void sampler_see(struct sampler *sampler, int32_t id);
/* The token for a position, from logits (vocab). Draws depend on seed and position alone, so that any token can be drawn again. Logits that are NaN or
   without a finite maximum are CB_E_NUMERIC. */
enum cb_status sampler_pick(struct sampler *sampler, const float *logits, int64_t position, int32_t *id, struct cb_err *err);
#endif
