/* What a model's generation_config.json asks of decoding. */
#ifndef API_GENERATION_H
#define API_GENERATION_H
#include "api/engine.h"
#include "models/model.h"
#include "run/sample.h"

struct generation_rules {
    int64_t no_repeat_ngram;  // no n tokens in a row come twice; 0: they may
    int64_t forced_eos;  // the last token of an answer that reaches the limit of its length; -1: any
    int64_t max_new;  // new tokens at most; 0: unsaid
    struct sample_options sampling;  // zeros: unsaid; greedy: the file says so
};
/* From generation_config.json, or where there is none from config.json, as Transformers does. Keys that would change what an answer is and that are not
   known here are named in one warning. */
enum cb_status generation_rules_read(struct generation_rules *rules, const struct model *model, const struct cb_engine *engine,
                                     struct cb_err *err);
/* How to draw: each option that is set, else what the file says. One that asks for sampling ends a greedy file's word. Without seed and history. */
struct sample_options generation_sampling(const struct generation_rules *rules, const struct cb_generate_options *options);
#endif
