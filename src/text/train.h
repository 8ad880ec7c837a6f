/* Byte pair encoding is learned from counted words. */
#ifndef TEXT_TRAIN_H
#define TEXT_TRAIN_H
#include "text/parts.h"

/* Different words and how often each was seen. Zero-initialise. */
struct word_counts {
    struct counted_word {
        uint64_t hash;
        size_t at;  // of its bytes
        uint32_t n;  // bytes
        int64_t count;
    } * word;
    size_t n, capacity;
    uint32_t *slot;  // index + 1
    size_t n_slots;
    struct buffer bytes;
};
enum cb_status word_counts_add(struct word_counts *words, const char *word, size_t n, struct cb_err *err);
void word_counts_deinit(struct word_counts *words);

struct bpe_training {
    int32_t (*merge)[2];  // left and right id, in order
    int32_t n_merges;
    int32_t n_ids;  // used, with those given before
};
/* Learns merges until options->vocab ids are used: the most frequent pair first, of equals the one with the smallest ids; a merge that makes a known
   token takes its id, the others go into t's vocabulary from first_id on. Identical in every run. */
enum cb_status bpe_train(struct bpe_training *out, struct tokenizer *t, const struct word_counts *words, const int32_t byte_id[256],
                         int32_t first_id, const struct train_options *options, text_progress_fn *progress, void *progress_context,
                         struct cb_err *err);
void bpe_training_deinit(struct bpe_training *training);
#endif
