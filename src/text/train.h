/* Learning vocabularies from counted words. */
#ifndef TEXT_TRAIN_H
#define TEXT_TRAIN_H
#include "text/parts.h"

/* Different words and how often each was seen, in the order of their first sight. Zero-initialise. */
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

/* One training: what was asked for, what was counted, and the tokenizer that is made. */
struct training {
    const struct train_options *options;
    struct tokenizer *t;
    struct word_counts words;
    text_progress_fn *progress;
    void *progress_context;
    int32_t (*merge)[2];  // of BPE: left and right id, in order
    int32_t n_merges;
    int32_t n_ids;  // given
};

/* Adds the characters of the words to t's vocabulary, by code point from n_ids on: those of alphabet (256 byte-level characters, or NULL), and the
   most frequent others (limit_alphabet). Then, where there is a prefix (WordPiece), those seen within words once more with it. */
enum cb_status bpe_alphabet(struct training *training, const uint32_t *alphabet, const char *prefix, struct cb_err *err);
/* Learns merges until options->vocab ids are used: the most frequent pair first, of equals the one with the smallest ids; a merge that makes a known
   token takes its id. Identical in every run. */
enum cb_status bpe_learn(struct training *training, const char *prefix, struct cb_err *err);

/* Learns pieces and their scores for options->vocab ids, of which n_ids are given: *piece and *score of *n, best first, which lie in t's arena. */
enum cb_status unigram_learn(struct training *training, struct part_text **piece, double **score, int32_t *n, struct cb_err *err);
#endif
