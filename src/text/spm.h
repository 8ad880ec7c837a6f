/* SentencePiece models: what a .model file or a GGUF vocabulary says, and the tokenizer made of it. */
#ifndef TEXT_SPM_H
#define TEXT_SPM_H
#include "text/parts.h"

/* Types of pieces, as sentencepiece_model.proto and GGUF number them. */
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL,
    PIECE_USER,
    PIECE_UNUSED,
    PIECE_BYTE,
    PIECE_ABSENT
};  // absent: a token of the vocabulary that is no piece of the model

/* Texts and lists are borrowed; the character map is too, and must outlive the tokenizer. */
struct spm_model {
    int32_t n;
    const struct text_view *piece;
    const float *score;
    const int32_t *type;
    bool unigram;  // else BPE
    bool has_merges;  // BPE: off for models of single characters
    bool byte_fallback, dummy_prefix, squeeze_spaces, escape_spaces, prefix_at_end;
    const unsigned char *charsmap;
    size_t n_charsmap;
    struct text_view unk_surface;  // what the unknown piece is decoded to
    bool find_specials;  // control and user-defined pieces are cut out of the text first, as chat formats want it
};
#define SPM_PRESET                                                                                                                      \
    {                                                                                                                                   \
        .has_merges = true, .dummy_prefix = true, .squeeze_spaces = true, .escape_spaces = true, .unk_surface = { " \xe2\x81\x87 ", 5 } \
    }
/* Sets vocabulary, model, normaliser, decoder and added tokens of an empty tokenizer; tokenizer_finish is left to the caller. */
enum cb_status spm_set(struct tokenizer *t, const struct spm_model *m, const char *name, struct cb_err *err);
/* Other ids than the pieces' own. */
struct spm_ids {
    const char *first;  // texts of the first ids, between spaces; NULL: none
    int32_t n_skipped;  // pieces that these stand for
    const json_t *claims;  // {text: id} of tokens; a piece of such a text and another id is not used
    const json_t *vocab;  // {text: id} of all tokens, instead of all that; NULL: none
    struct text_view unk;  // the unknown token
    bool rare_commas;  // pieces that end in a digit and a comma are the last choice
};
enum cb_status spm_renumber(struct spm_model *m, struct tokenizer *t, const struct spm_ids *ids, const char *name, struct cb_err *err);
/* The n bytes of a .model file, likewise. Nullable: ids. */
enum cb_status spm_read(struct tokenizer *t, const char *bytes, size_t n, bool find_specials, const struct spm_ids *ids, const char *name,
                        struct cb_err *err);

/* SentencePiece's normaliser and decoder (spm_rules.c). They stand in no registry: they are written as the components that come nearest. */
struct spm_rules {
    const struct charsmap *map;  // NULL: none
    const unsigned char *charsmap;
    size_t n_charsmap;
    bool dummy_prefix, squeeze_spaces, escape_spaces, prefix_at_end, byte_fallback, shows_specials;
    struct added_set user;  // taken as they are
    const uint8_t *type;  // by id, n_types of them
    int32_t n_types;
    struct part_text unk_surface;
};
extern const struct part_kind spm_normalizer_kind, spm_decoder_kind;
#endif
