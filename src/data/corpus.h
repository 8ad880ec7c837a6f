/* A tokenised corpus: one long row of token ids with document borders, what is learnt of it, and its bytes and words. On disk or in memory. */
#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H
#include "base/err.h"
#include "data/invalid.h"
#include "data/records.h"
#include "text/chat.h"
#include "text/tokenizer.h"

struct corpus;  // immutable: any number of threads may read one

struct corpus_options {
    int32_t bos, eos;  // ids put before and after each document; -1: none
    enum data_invalid invalid;
    bool apart;  // completions are tokenised by themselves, as targets of an encoder-decoder
    size_t piece_bytes;  // the longest stretch tokenised at once; 0: 1 MiB
    struct records_options records;  // columns and separator of tables
    const struct chat *chat;  // makes text of conversations, of which the assistant's part is learnt; nullable
    bool is_chat;  // prompts with completions are conversations too
    void *user;
    void (*warn)(void *user, const char *line);  // nullable
    void (*note)(void *user, const char *line);  // nullable: what was found
    bool (*progress)(void *user, int64_t done_bytes, int64_t bytes);  // nullable; false stops with CB_E_STOPPED
};

/* Tokenises text inputs (data/source.h) into `out`, unless that already holds the same files (names, sizes, times), tokenizer and options. Reads it back
   with corpus_open. Nullable: reused (told which it was). */
enum cb_status corpus_build(const char *const *paths, int n_paths, const struct tokenizer *tokenizer, const char *out,
                            const struct corpus_options *options, bool *reused, struct cb_err *err);
/* Maps a file; everything but the tokens is checked. Owned by caller, free with corpus_destroy. */
enum cb_status corpus_open(struct corpus **corpus, const char *path, struct cb_err *err);
/* corpus_build and corpus_open in one; out NULL: in memory, no file. Nullable: reused. */
enum cb_status corpus_load(struct corpus **corpus, const char *const *paths, int n_paths, const struct tokenizer *tokenizer,
                           const char *out, const struct corpus_options *options, bool *reused, struct cb_err *err);
/* Ids as they are, in memory: n_documents documents of lengths length[i] > 0, of which the first unlearnt[i] tokens are not learnt. bytes: the text's
   length, shared out evenly. Nullable: unlearnt. */
enum cb_status corpus_from_ids(struct corpus **corpus, const int32_t *ids, const int64_t *length, const int64_t *unlearnt,
                               int64_t n_documents, int64_t vocab, int64_t bytes, struct cb_err *err);
void corpus_destroy(struct corpus **corpus);

struct corpus_info {
    int64_t tokens, documents, vocab;
    int64_t learnt;  // tokens that are learnt as targets
    int64_t bytes, words;  // of learnt text (prompts left out), words parted by ASCII white space
    int64_t text_bytes;  // of all text
};
const struct corpus_info *corpus_info(const struct corpus *corpus);
/* What it was made from, as text lines; empty for ids. Borrowed. */
const char *corpus_description(const struct corpus *corpus, size_t *n);

/* Tokens [first, first + n) into out; the range must be within the corpus. An id outside the vocabulary (a damaged file) is CB_E_FORMAT. */
enum cb_status corpus_read(const struct corpus *corpus, int32_t *out, int64_t first, int64_t n, struct cb_err *err);
/* Number of the document that holds token `position`; its first token (i = documents gives the end). */
int64_t corpus_document_at(const struct corpus *corpus, int64_t position);
int64_t corpus_document_start(const struct corpus *corpus, int64_t i);
/* Sets label[i] to -100 where token first + i is not to be learnt. */
void corpus_unlearn(const struct corpus *corpus, int32_t *label, int64_t first, int64_t n);
/* Bytes and words of learnt text in tokens [first, last): exact at document borders and at every 1024th token, else counted from the last of these. */
void corpus_count(const struct corpus *corpus, int64_t first, int64_t last, int64_t *bytes, int64_t *words);
/* Where the last `share` of the tokens begins: at a document border where one is within a quarter of the share, else at a 1024th token, else exactly.
   share outside (0, 1) or nothing left on a side: CB_E_ARGUMENT. */
enum cb_status corpus_split(const struct corpus *corpus, double share, int64_t *cut, struct cb_err *err);
#endif
