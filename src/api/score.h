/* Likelihood of a loader's tokens under an instance, batch by batch. */
#ifndef API_SCORE_H
#define API_SCORE_H
#include "api/instance.h"
#include "data/corrupt.h"
#include "data/loader.h"
#include "data/mask.h"

struct score {
    struct instance *instance;
    const struct loader *loader;  // borrowed
    const struct mask *mask;  // of masked language models: hides what is scored; borrowed
    const struct corrupt *corrupt;  // of span corruption: parts what is scored; borrowed
    int32_t *spare;  // with corrupt: the loader's labels, which are none of the model's
    struct pass pass;
    bool is_open;
};

/* The mask of a masked language model by its options; NULL for other models, which take none. *mask: owned by caller, free with mask_destroy. */
enum cb_status score_mask(struct mask **mask, const struct model *model, const struct tokenizer *tokenizer, const char *kind, double rate,
                          uint64_t seed, struct cb_err *err);
/* Of --task span-corruption, as score_mask: NULL for other tasks. Nullable: task, tokenizer (none is made). */
enum cb_status score_corrupt(struct corrupt **corrupt, const struct model *model, const struct tokenizer *tokenizer, const char *task,
                             double rate, uint64_t seed, struct cb_err *err);
/* Whether a model learns what --task says: "text" or "chat", of masked language models "mlm", of encoder-decoders "span-corruption" too. Nullable: task. */
enum cb_status score_check_task(const struct model *model, const char *task, struct cb_err *err);
/* An encoder-decoder learns completions of prompts, unless spans are corrupted: a corpus without any is CB_E_ARGUMENT. Its loader is
   that of score_pairs. */
enum cb_status score_check_pairs(const struct model *model, const struct corpus *corpus, struct cb_err *err);
/* Input of a pass that the loader's segments go into; NULL: none. */
int32_t *score_segments(struct pass *pass);
/* A loader's batch as the model learns it: tokens hidden, spans corrupted: then labels (B,corrupt_target) are all new. Nullable: mask, corrupt. */
void score_prepare(const struct mask *mask, const struct corrupt *corrupt, uint64_t key, int64_t batch, int64_t seq, int32_t *ids,
                   int32_t *labels, int32_t *segments);
/* Options of a loader for an encoder-decoder: a source and a target a row. */
void score_pairs(struct loader_options *options, const struct model *model);
/* Warns of what a loader's rows lose and of rows without anything to learn; of: what they are, "validation: ", or "". */
void score_tell_lost(struct cb_engine *engine, const struct loader *loader, const char *of);
/* Builds the plan for batches of a loader's options; weights are the instance's own, so that later training shows. Set score->loader and ->mask before
   score_run. Nullable: corrupt (borrowed). Free with score_close. */
enum cb_status score_open(struct score *score, struct instance *instance, const struct loader_options *options,
                          const struct corrupt *corrupt, struct cb_err *err);
void score_close(struct score *score);
/* Mean loss over all learnt tokens, and their number. Nullable: tokens. */
enum cb_status score_run(struct score *score, double *loss, int64_t *tokens, struct cb_err *err);
int64_t score_bytes(const struct score *score);
#endif
