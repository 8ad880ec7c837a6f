/* What a model's generation_config.json asks of decoding. */
#ifndef API_GENERATION_H
#define API_GENERATION_H
#include "api/engine.h"
#include "models/model.h"

struct generation_rules {
    int64_t no_repeat_ngram;  // no n tokens in a row come twice; 0: they may
    int64_t forced_eos;  // the last token of an answer that reaches the limit of its length; -1: any
};
/* From generation_config.json, or where there is none from config.json, as Transformers does. Keys that would change what a greedy answer is and that are not
   known here are named in one warning; repeat_penalty: whether the caller has chosen one. */
enum cb_status generation_rules_read(struct generation_rules *rules, const struct model *model, bool repeat_penalty,
                                     const struct cb_engine *engine, struct cb_err *err);
#endif
