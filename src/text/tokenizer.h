/* Tokenizers: text to ids and back, tokenizer.json (Hugging Face) read and written, and training. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H
#include "base/err.h"

struct tokenizer;  // immutable: any number of threads may use one
struct encoder;  // one thread's working memory and word cache over a tokenizer

/* n bytes, which need no NUL. */
struct text_view {
    const char *text;
    size_t n;
};

/* ---- loading, writing */

/* path: a folder with tokenizer.json, vocab.json + merges.txt (or encoder.json + vocab.bpe), tokenizer.model, vocab.txt or a tiktoken file, read with
   the tokenizer_config.json beside it; or one of the files: a tokenizer.json, a SentencePiece .model, a tiktoken file or BERT's vocab.txt, told by what
   it begins with. Owned by caller, free with tokenizer_destroy. CB_E_FORMAT names the component and key that is wrong, CB_E_UNSUPPORTED one that is not
   known here. */
enum cb_status tokenizer_load(struct tokenizer **tokenizer, const char *path, struct cb_err *err);
/* Names of the files that a folder's tokenizer begins with, NULL-ended: such a folder has one of them. */
extern const char *const tokenizer_file_names[];
/* pattern: cuts the text of a tiktoken file: a name (cl100k, o200k, gpt2, qwen2, llama3, ...) or a regular expression. Nullable. */
enum cb_status tokenizer_load_pattern(struct tokenizer **tokenizer, const char *path, const char *pattern, struct cb_err *err);
/* The n bytes of a tokenizer.json. name: for messages. */
enum cb_status tokenizer_load_bytes(struct tokenizer **tokenizer, const char *bytes, size_t n, const char *name, struct cb_err *err);
/* GPT-2's two files: token -> id, and one merge a line. */
enum cb_status tokenizer_load_gpt2(struct tokenizer **tokenizer, const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                   const char *name, struct cb_err *err);

/* A vocabulary as plain arrays, as GGUF files hold it (gguf.md of ggml, keys tokenizer.ggml.*). Zero-initialise, then set model, n_tokens, token and
   what the file has; texts are borrowed for the call and need no NUL. */
enum array_flag { ARRAY_DEFAULT, ARRAY_FALSE, ARRAY_TRUE };  // a key that is absent leaves the model's own default
struct tokenizer_arrays {
    const char *model;  // tokenizer.ggml.model: "llama" (SentencePiece BPE), "t5" (Unigram), "gpt2" (byte-level BPE), "bert" (WordPiece)
    const char *pre;  // tokenizer.ggml.pre: names the pattern of "gpt2"; NULL: "gpt-2"
    int32_t n_tokens;
    const struct text_view *token;  // n_tokens, by id
    const float *score;  // n_tokens; wanted by "llama" and "t5", else NULL
    const int32_t *type;  // n_tokens: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; NULL: all normal
    const struct text_view *merge;  // n_merges lines "a b"; wanted by "gpt2"
    int32_t n_merges;
    const unsigned char *charsmap;  // tokenizer.ggml.precompiled_charsmap, n_charsmap bytes; NULL: none
    size_t n_charsmap;
    const int32_t *bos, *eos, *unk, *pad, *sep, *cls, *mask;  // ids; NULL where the file has none
    enum array_flag add_bos, add_eos, add_sep, add_space_prefix, remove_extra_whitespaces;
};
/* CB_E_UNSUPPORTED for models and pre-tokenisers that are not known, CB_E_FORMAT for arrays that do not fit together. name: for messages. */
enum cb_status tokenizer_from_arrays(struct tokenizer **tokenizer, const struct tokenizer_arrays *arrays, const char *name,
                                     struct cb_err *err);
void tokenizer_destroy(struct tokenizer **tokenizer);
/* The tokenizer.json of *n bytes (and a NUL). *bytes: owned by caller, free with free(). */
enum cb_status tokenizer_to_json(const struct tokenizer *tokenizer, char **bytes, size_t *n, struct cb_err *err);

/* ---- the vocabulary */

/* One more than the greatest id (ids may have holes). */
int32_t tokenizer_size(const struct tokenizer *tokenizer);
/* The token's text (n bytes, as in the file, not decoded), or NULL where the id has none. Borrowed from tokenizer. Nullable: n. */
const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *n);
/* -1 where there is no such token. */
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token);
bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);
/* The usual begin or end of text by its content (<|endoftext|>, <s>, </s>, [CLS], ...); -1 where there is none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);
int32_t tokenizer_eos(const struct tokenizer *tokenizer);

/* ---- text to ids */

enum {
    ENCODE_SPECIALS = 1,  // what the post-processor adds
    ENCODE_OFFSETS = 2,  // fill begin and end (bytes of the text)
    ENCODE_CODE_POINTS = 6,  // fill them in code points
    ENCODE_LIMITS = 8,  // the file's truncation and padding
    ENCODE_WINDOWS = 16,  // with ENCODE_LIMITS: what truncation cuts off follows in windows of its own
    ENCODE_TEXTS = 32,  // encoder_text knows the tokens of all calls with this flag
};
struct token {
    int32_t id;
    int32_t word;  // number of the pre-token, -1 for an added special
    uint32_t begin, end;  // in the raw text; 0 without ENCODE_OFFSETS
    int32_t type;
    bool special, attention;
    int8_t sequence;  // 0 or 1 of a pair, -1 for an added special
    uint32_t own;  // number from 1 of a text of its own in the encoder; 0: that of its id
};
struct token_list {
    struct token *token;
    size_t n, capacity;
};
void token_list_deinit(struct token_list *list);
/* The first window of an input, then what it had no room for; each overlaps the one before by the stride of the file. Of pairs every window of the one
   sequence stands with every window of the other. */
struct token_windows {
    struct token_list *list;
    size_t n, capacity;
};
void token_windows_deinit(struct token_windows *windows);

/* Owned by caller, free with encoder_destroy, before the tokenizer. */
enum cb_status encoder_create(struct encoder **encoder, const struct tokenizer *tokenizer, struct cb_err *err);
void encoder_destroy(struct encoder **encoder);
/* Replaces what out holds (zero-initialise it first). text: n bytes of UTF-8 below 2^31; CB_E_FORMAT where it is not valid. */
enum cb_status encoder_encode(struct encoder *encoder, struct token_list *out, const char *text, size_t n, unsigned flags,
                              struct cb_err *err);
enum cb_status encoder_encode_pair(struct encoder *encoder, struct token_list *out, const char *first, size_t n_first, const char *second,
                                   size_t n_second, unsigned flags, struct cb_err *err);
/* One or two sequences: of text, or of words that were cut elsewhere (offsets are then those in each word, and token.word counts them). */
struct encode_input {
    const struct text_view *text[2];  // n_texts[i] of them; one where they are no words
    size_t n_texts[2];
    int n_sequences;
    bool is_words;
};
/* Replaces what out holds (zero-initialise it first). CB_E_LIMIT where the stride leaves no room for windows. */
enum cb_status encoder_encode_input(struct encoder *encoder, struct token_windows *out, const struct encode_input *input, unsigned flags,
                                    struct cb_err *err);
/* What a token of this encoder's stands for, made with ENCODE_TEXTS: the content of its id, but the text itself (after normalising) of an added token
   that took white space with it and of Unigram's unknown one. NULL where the id has none. Borrowed from encoder. */
const char *encoder_text(const struct encoder *encoder, const struct token *token, size_t *n);
/* Pads the windows of n encoded inputs as the file says: to its length, or to the longest first window. */
enum cb_status tokenizer_pad(const struct tokenizer *tokenizer, struct token_windows *windows, size_t n, struct cb_err *err);
/* encoder_encode with an encoder for this call. */
enum cb_status tokenizer_encode(const struct tokenizer *tokenizer, struct token_list *out, const char *text, size_t n, unsigned flags,
                                struct cb_err *err);
/* The normaliser alone, and the pre-tokeniser alone on raw text (each piece with its byte range of the text). *out: owned by caller, free(). */
enum cb_status encoder_normalise(struct encoder *encoder, char **out, size_t *n_out, const char *text, size_t n, struct cb_err *err);
typedef enum cb_status text_piece_fn(void *context, const char *piece, size_t n, size_t begin, size_t end, struct cb_err *err);
enum cb_status encoder_pretokenise(struct encoder *encoder, const char *text, size_t n, text_piece_fn *fn, void *context,
                                   struct cb_err *err);

/* Both in a row, and no added tokens: the words that training counts. Their ranges are not told. */
enum cb_status encoder_words(struct encoder *encoder, const char *text, size_t n, text_piece_fn *fn, void *context, struct cb_err *err);

/* ---- ids to text */

/* Ids without a token are passed over. *text: *n bytes of valid UTF-8 and a NUL, owned by caller, free with free(). */
enum cb_status tokenizer_decode(const struct tokenizer *tokenizer, char **text, size_t *n, const int32_t *ids, size_t n_ids,
                                bool skip_special, struct cb_err *err);

/* Text as ids come one by one: complete characters only. Owned by caller, free with text_stream_destroy. */
struct text_stream;
enum cb_status text_stream_create(struct text_stream **stream, const struct tokenizer *tokenizer, bool skip_special, struct cb_err *err);
void text_stream_destroy(struct text_stream **stream);
/* What the id adds (maybe nothing): *n bytes, borrowed from stream until the next call. */
enum cb_status text_stream_push(struct text_stream *stream, int32_t id, const char **text, size_t *n, struct cb_err *err);
/* What is left, broken parts as U+FFFD. */
enum cb_status text_stream_finish(struct text_stream *stream, const char **text, size_t *n, struct cb_err *err);

/* ---- training */

struct train_options {
    /* "bpe" (byte-level), "bpe-fallback" (characters, and bytes for the others), "wordpiece", "unigram", "char", "byte" */
    const char *kind;
    int32_t vocab;  // wanted size with specials ("char": the most frequent ones fit), at least what the kind needs
    const char *const *specials;  // n_specials contents, ids from 0; the kind's unknown token goes before them where they lack it
    int n_specials;
    int64_t min_frequency;  // a merge seen less often is not made; 0 for any
    size_t max_token_chars;  // merges: no token of this many characters or more, 0 for any; unigram: none longer, 0 for 16
    int32_t limit_alphabet;  // characters that are kept, the most frequent ones; 0: all
    const char *pattern;  // "bpe": how text is cut, a name (gpt2, cl100k, llama3, qwen2, o200k, ...) or a regular expression; NULL: gpt2
    bool is_cased, keep_accents;  // "wordpiece": do not lower case, do not strip accents
};
/* The next stretch of text (a line, say; words do not cross it) into *text, *n; false at the end. Borrowed until the next call. */
typedef bool text_next_fn(void *context, const char **text, size_t *n);
/* done of total merges; false stops the training with CB_E_STOPPED. */
typedef bool text_progress_fn(void *context, int64_t done, int64_t total);
/* Text that is not UTF-8 is CB_E_FORMAT. Nullable: progress. Owned by caller, free with tokenizer_destroy. */
enum cb_status tokenizer_train(struct tokenizer **tokenizer, const struct train_options *options, text_next_fn *next, void *next_context,
                               text_progress_fn *progress, void *progress_context, struct cb_err *err);
#endif
