/* Inside the room: the components of a tokenizer as tables, and the text that flows through them. */
#ifndef TEXT_PARTS_H
#define TEXT_PARTS_H
#include "base/json.h"
#include "text/buffer.h"
#include "text/json_scan.h"
#include "text/regex.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

/* ---- text on its way to the model */

/* Where a byte comes from: bytes [begin, end) of the raw text, always whole characters. */
struct align {
    uint32_t begin, end;
};
/* A stretch of valid UTF-8. align has one entry a byte; NULL means that text lies in the raw text at begin, unchanged (or that nobody asks). */
struct piece {
    const char *text;
    size_t n;
    const struct align *align;
    uint32_t begin, end;
};
/* The buffer that a rewritten piece lies in. */
struct track {
    char *text;
    struct align *align;
    size_t n, n_text, n_align;  // used; capacities
};
/* Bytes [from, to) of a piece. */
struct piece piece_slice(const struct piece *piece, size_t from, size_t to);
/* The raw range of bytes [from, to) of a piece. */
struct align piece_range(const struct piece *piece, size_t from, size_t to);

/* A piece being rewritten character by character. A change of 0 replaces the next source character, -k also drops the k after it, and
   +1 inserts (and takes the range of the source character before). */
struct rewrite {
    const struct piece *in;
    struct track *out;
    size_t at;  // source bytes consumed
    bool tracking;
};
struct rewrite rewrite_begin(struct track *out, const struct piece *in, bool tracking);
enum cb_status rewrite_emit(struct rewrite *r, uint32_t cp, int change, struct cb_err *err);
enum cb_status rewrite_ascii(struct rewrite *r, char c, struct cb_err *err);  // a byte for the next one, both ASCII
void rewrite_skip(struct rewrite *r, size_t bytes);  // drops source bytes
enum cb_status rewrite_keep(struct rewrite *r, size_t bytes, struct cb_err *err);  // copies them with their ranges
enum cb_status rewrite_text(struct rewrite *r, const char *text, size_t n, struct cb_err *err);  // inserts valid text
/* Inserts valid text with the range of the next bytes of the source, which stay where they are. */
enum cb_status rewrite_span(struct rewrite *r, const char *text, size_t n, size_t bytes, struct cb_err *err);
/* Puts text before all else, with the range of the first character (call it first, on a piece that is not empty). */
enum cb_status rewrite_prefix(struct rewrite *r, const char *text, size_t n, struct cb_err *err);
struct piece rewrite_end(struct rewrite *r);

/* ---- components: normalisers, pre-tokenisers, post-processors and decoders are made from these */

enum field_type { FIELD_END, FIELD_FLAG, FIELD_TEXT, FIELD_CHAR, FIELD_COUNT, FIELD_CHOICE, FIELD_PATTERN, FIELD_TOKEN, FIELD_PARTS };
#define PART_FIELDS 6
struct part_field {
    const char *key;
    enum field_type type;
    int slot;  // which flag, text, number of the part
    bool required;  // else preset
    int64_t preset;  // of flags, counts and choices; 2 of a flag: null ("as the rest says")
    const char *const *choice;  // NULL-terminated names
};
struct part;
struct encoder;
struct decode_list;
struct part_kind {
    const char *type;
    struct part_field field[PART_FIELDS];
    /* What remains of reading and writing. Nullable: both. */
    enum cb_status (*read)(struct tokenizer *t, struct part *part, const json_t *json, const char *where, struct cb_err *err);
    enum cb_status (*write)(const struct part *part, json_t *json, struct cb_err *err);
    /* One of these, by the registry that the kind is in. */
    enum cb_status (*normalise)(const struct part *part, struct encoder *e, struct track *out, struct piece *piece, struct cb_err *err);
    enum cb_status (*split)(const struct part *part, struct encoder *e, int stage, const struct piece *piece, struct cb_err *err);
    enum cb_status (*process)(const struct part *part, struct encoder *e, struct token_list *list, int n_sequences, bool specials,
                              struct cb_err *err);
    enum cb_status (*decode)(const struct part *part, struct decode_list *list, struct cb_err *err);
    /* Nullable: of decoders, the bytes that one token adds in the middle of a text. */
    enum cb_status (*token)(const struct part *part, int32_t id, const char *text, size_t n, struct buffer *out, struct cb_err *err);
};
struct part_text {
    const char *text;
    size_t n;
};
#define PART_SLOTS 5
struct part {
    const struct part_kind *kind;
    uint8_t flag[PART_SLOTS];
    struct part_text text[PART_SLOTS];
    int64_t number[PART_SLOTS];
    struct regex *regex;  // FIELD_PATTERN {"Regex"}; {"String"} leaves it NULL with text in the slot
    struct part **part;  // FIELD_PARTS
    int n_parts;
    void *data;  // what the kind's read made (in the arena)
};
/* Which registry a part is looked up in. */
enum part_role { ROLE_NORMALIZER, ROLE_PRE_TOKENIZER, ROLE_POST_PROCESSOR, ROLE_DECODER, ROLE_COUNT };
extern const struct part_kind *const normalizer_kinds[], *const pre_tokenizer_kinds[], *const post_processor_kinds[],
                                                                                           *const decoder_kinds[];
/* Reads and writes by the fields of the kind. json null or absent gives *part = NULL. */
enum cb_status part_read(struct tokenizer *t, struct part **part, enum part_role role, const json_t *json, const char *where, int depth,
                         struct cb_err *err);
enum cb_status part_write(const struct part *part, json_t **json, struct cb_err *err);
/* A part made by code: kind by name, all presets. NULL when out of memory. */
struct part *part_make(struct tokenizer *t, enum part_role role, const char *type);

/* ---- models */

struct model_kind {
    const char *type;
    enum cb_status (*read)(struct tokenizer *t, const json_t *json, struct cb_err *err);
    enum cb_status (*write)(const struct tokenizer *t, json_t *json, struct cb_err *err);
    /* Appends the ids of one pre-token. Under t->raw_bytes the piece's bytes stand for byte-level characters. */
    enum cb_status (*encode)(const struct tokenizer *t, struct encoder *e, const struct piece *piece, struct cb_err *err);
};
extern const struct model_kind bpe_model, wordpiece_model, wordlevel_model, unigram_model;
/* Unigram from code, over t->vocab: scores by id. pieces: SentencePiece's types by id, whose rules and single precision then hold; NULL: none. */
struct unigram_options {
    const double *score;
    const uint8_t *type;
    int32_t unk_id;  // -1: none
    bool byte_fallback;
};
enum cb_status unigram_set(struct tokenizer *t, const struct unigram_options *options, struct cb_err *err);
/* WordPiece from code, over t->vocab. unk: a token of it. */
enum cb_status wordpiece_set(struct tokenizer *t, const char *unk, const char *prefix, struct cb_err *err);
/* Reads {"token": id, ...} into t->vocab. */
enum cb_status vocab_read(struct tokenizer *t, const json_t *json, struct cb_err *err);
enum cb_status vocab_write(const struct tokenizer *t, json_t *json, struct cb_err *err);

/* ---- the tokenizer */

struct added_token {
    const char *text;
    size_t n;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool hidden;  // not looked for in text
};
/* Contents of added tokens to find: candidates by first byte, longest first. */
struct added_set {
    struct added_needle {
        const char *text;
        size_t n;
        int added;  // index
    } * needle;
    int n;
    uint32_t first[257];  // needles of byte b: [first[b], first[b + 1])
};
struct truncation {
    bool on, left;
    int64_t max_length, stride;
    int strategy;  // 0 longest first, 1 only first, 2 only second
};
struct padding {
    bool on, left;
    int64_t fixed, multiple;  // -1: longest; 0: none
    int64_t id, type;
    const char *token;
};
struct tokenizer {
    struct arena *arena;
    struct vocab vocab;  // of the model
    const struct model_kind *model;
    void *model_data;  // in the arena
    struct added_token *added;
    int n_added;
    int32_t size;
    int32_t *added_of;  // by id: index + 1 of the added token
    struct added_set raw_set, normal_set;
    struct part *part[ROLE_COUNT];
    const struct part **normaliser, **stage;  // flattened sequences
    int n_normalisers, n_stages;
    int n_late;  // the last normalisers, which run on what lies between added tokens of normalised text: none, or SentencePiece's own
    bool raw_bytes;  // the last stage is ByteLevel and the model maps bytes itself
    bool always_track;  // a component asks where its text lies
    enum {
        BROKEN_REFUSED,
        BROKEN_REPAIRED,
        BROKEN_JOINED
    } broken;  // text that is not UTF-8: refused, the normaliser's, one word from its last good one
    int32_t bos, eos;  // -1: known by their contents
    bool absent;  // the vocabulary may have tokens that the model does not cut text into
    int32_t n_shown, unknown_id;  // n_shown > 0: ids from it on stand for unknown_id
    struct truncation truncation;
    struct padding padding;
    const struct json_scan *scan;  // while a tokenizer.json is read: its great lists, which are empty in the JSON; NULL: they are there
    struct regex **regex;  // to destroy
    size_t n_regex, regex_capacity;
};
/* How many ids are told of the model's vocabulary; the id that is told of a piece. */
static inline int32_t tokenizer_n_shown(const struct tokenizer *t) { return t->n_shown ? t->n_shown : t->vocab.size; }
static inline int32_t tokenizer_shown(const struct tokenizer *t, int32_t id) { return t->n_shown && id >= t->n_shown ? t->unknown_id : id; }
/* An empty tokenizer; then the model and parts are set, then tokenizer_finish checks them together and builds the tables. */
enum cb_status tokenizer_create(struct tokenizer **tokenizer, struct cb_err *err);
enum cb_status tokenizer_finish(struct tokenizer *t, const char *name, struct cb_err *err);
enum cb_status tokenizer_add(struct tokenizer *t, const struct added_token *token, const char *name, struct cb_err *err);
enum cb_status tokenizer_keep_regex(struct tokenizer *t, struct regex *regex, struct cb_err *err);
/* Messages quote the file: one line of whole characters remains. */
void message_clean(struct cb_err *err);
/* GPT-2's map between bytes and printable characters. */
uint32_t byte_to_char(unsigned char byte);
int char_to_byte(uint32_t cp);  // -1 for others
/* BPE from code: the model of t over t->vocab; pairs (left id, right id) in order of rank. */
/* The vocabulary must be there; every pair and what it makes must be tokens. */
enum cb_status bpe_set(struct tokenizer *t, const int32_t (*pair)[2], int32_t n, struct cb_err *err);
/* For bpe_set's tokenizer: the unknown token. */
void bpe_set_unknown(struct tokenizer *t, const char *unk);
/* The same, and bytes for characters that are no tokens (<0x00> to <0xFF>). */
void bpe_set_fallback(struct tokenizer *t, const char *unk);
/* ByteLevel as pre-tokeniser (cutting words or not) and decoder. */
enum cb_status bytelevel_parts(struct tokenizer *t, bool words, struct cb_err *err);

/* ---- the encoder */

struct word_cache;
struct encoder {
    const struct tokenizer *t;
    struct token_list *out;
    bool tracking;
    int32_t word;
    int8_t sequence;
    struct track *track;  // two for the normalisers, then two a stage
    struct regex_scratch *scratch;
    struct word_cache *cache;
    void *work[4];  // of the model, grown by buffer_grow
    size_t work_capacity[4];
    bool keeps_texts;
    struct own_text {
        size_t at, n;  // of texts
    } * own;  // by token.own - 1
    size_t n_own, own_capacity;
    struct buffer texts;
    text_piece_fn *hook;  // instead of the model
    void *hook_context;
};
/* The one of the two tracks of normalisers that the piece does not lie in. */
struct track *encoder_free_track(const struct encoder *e, const struct piece *piece);
/* Hands a piece to what follows the stage. */
enum cb_status encoder_emit(struct encoder *e, int stage, const struct piece *piece, struct cb_err *err);
/* Appends a token of bytes [from, to) of the piece. */
enum cb_status encoder_token(struct encoder *e, int32_t id, const struct piece *piece, size_t from, size_t to, struct cb_err *err);
/* The same, whose text is not that of its id. */
enum cb_status encoder_token_own(struct encoder *e, int32_t id, const struct piece *piece, size_t from, size_t to, struct cb_err *err);
/* Cuts as tokenizer.json's behaviours do, from matches that come in order. */
enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_PREVIOUS, SPLIT_MERGED_NEXT, SPLIT_CONTIGUOUS };
extern const char *const split_behavior_names[];
struct splitter {
    struct encoder *e;
    int stage;
    const struct piece *in;
    enum split_behavior behavior;
    bool invert;
    size_t at;  // all before is known
    size_t from, to;  // the pending cut
    bool pending, pending_match;  // whether there is one; of a match
};
struct splitter splitter_begin(struct encoder *e, int stage, const struct piece *in, enum split_behavior behavior, bool invert);
/* A match at bytes [from, to), at or after the last one's end. */
enum cb_status splitter_match(struct splitter *s, size_t from, size_t to, struct cb_err *err);
enum cb_status splitter_end(struct splitter *s, struct cb_err *err);

/* ---- decoding */

struct decode_list {
    struct buffer text, spare;
    struct decode_item {
        size_t begin, end;
        int32_t id;  // until a decoder has joined tokens
    } * item;
    size_t n, capacity;
};
/* What a decoder wrote to list->spare is the one item that is left. */
enum cb_status decode_all(struct decode_list *list, struct cb_err *err);
/* The byte of <0xXX>, or -1. */
int byte_token(const char *text, size_t n);
#endif
