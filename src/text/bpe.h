/* Byte pair encoding: the table of merges, and words as symbols. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H
#include "text/added.h"
#include "text/parts.h"

/* Bytes of a prefix or suffix. */
#define MARK_LIMIT 256

struct merge {
    uint64_t pair;  // left id << 32 | right id
    int32_t rank, id;  // id < 0: empty slot
};
struct bpe {
    struct part_text unk, prefix, suffix;  // NULL where there is none
    bool fuse_unk, byte_fallback, ignore_merges, has_dropout;
    double dropout;
    int32_t unk_id;
    int32_t (*pair)[2];  // in order
    int32_t n_pairs;
    struct merge *merge;
    uint64_t mask;
    int32_t byte_id[256];  // of the byte-level character, -1 absent
    int32_t fallback_id[256];  // of <0xXX>, -1 absent
    int32_t char_id[128];  // of ASCII characters
    /* A sign that begins words (U+2581): words are merged apart where no token goes on over one. */
    bool cuts;
    uint64_t joined[16];  // characters, by their low ten bits, that a token has before the sign
    /* SentencePiece's own rules; all absent elsewhere. */
    const struct added_set *whole;  // contents that are one symbol and never merged; needle.added is the id
    struct vocab hidden;  // characters that are no tokens but parts of some; their ids follow the vocabulary's
    const int32_t *unused_at;  // by id: 1 + index among the tokens that are cut again after merging
    int32_t n_unused;
};

/* The model's encode. */
enum cb_status bpe_encode(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err);
/* "left right" as ids. rank: for messages. */
enum cb_status merge_parse(const struct tokenizer *t, int32_t pair[2], const char *text, size_t n, size_t rank, struct cb_err *err);
/* The merge of two symbols, or NULL. */
const struct merge *bpe_merge_find(const struct bpe *bpe, int32_t left, int32_t right);
/* Merges by their results: two symbols whose joined text is a token of rank >= 0 (by id) merge, the lowest rank first. is_hidden: characters of such
   tokens that are no tokens themselves (or have no rank) are symbols, too. Sets t's model, whose options *out has for the caller to set. */
enum cb_status bpe_set_results(struct tokenizer *t, const int32_t *rank, bool is_hidden, struct bpe **out, struct cb_err *err);
/* Finds where words may be cut; call it last. */
void bpe_find_cuts(const struct tokenizer *t, struct bpe *bpe);
#endif
