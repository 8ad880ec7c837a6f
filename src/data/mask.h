/* Masked language modelling (Devlin et al. 2019): tokens of a batch that are hidden and become its labels; a pure function of (options, key). */
#ifndef DATA_MASK_H
#define DATA_MASK_H
#include "text/tokenizer.h"

/* Single tokens; whole words; spans of words (Joshi et al. 2020, SpanBERT: lengths of a geometric distribution, 10 at most). */
enum mask_kind { MASK_WORD, MASK_TOKEN, MASK_SPAN };
/* "whole-word", "token" or "span"; NULL: whole-word. False where unknown. */
bool mask_kind_by_name(enum mask_kind *kind, const char *name);
const char *mask_kind_name(enum mask_kind kind);

struct mask_options {
    enum mask_kind kind;
    double rate;  // share of the tokens, above 0 and below 1
    uint64_t seed;
};

struct mask;  // immutable: any number of threads may use one

/* tokenizer: for what a word is, the special tokens and the mask token ("[MASK]", "<mask>", ...); without one CB_E_ARGUMENT. Not kept.
   Owned by caller, free with mask_destroy. */
enum cb_status mask_create(struct mask **mask, const struct tokenizer *tokenizer, const struct mask_options *options, struct cb_err *err);
void mask_destroy(struct mask **mask);

/* Rows (B,T) of ids: labels become the ids that were chosen, -100 elsewhere; of the chosen ids 80% become the mask token, 10% another token, 10% stay (of
   spans: all of a span alike). Special tokens and places of segment -1 are never chosen; where anything can be chosen, at least one token is.
   key: of the batch. Nullable: segments (a word ends where they change). */
void mask_apply(const struct mask *mask, uint64_t key, int64_t batch, int64_t seq, int32_t *ids, int32_t *labels, const int32_t *segments);
#endif
