/* How the classes of Transformers lay out a tokenizer over files that are no tokenizer.json: one table, a row a kind of class. */
#ifndef TEXT_LAYOUTS_H
#define TEXT_LAYOUTS_H
#include "text/spm.h"

struct layout {
    const char *classes;  // of tokenizer_config.json's tokenizer_class, without its ending Tokenizer or TokenizerFast; parted by spaces
    const char *models;  // model_type of config.json, likewise; NULL: another row has it
    const char *file;  // the SentencePiece model; NULL: vocab.json and merges.txt
    bool has_vocab;  // vocab.json beside the model gives the ids
    const char *preset;  // what tokenizer_config.json says where it does not say it
    const char *single, *pair;  // what stands around texts: words of template_words
    const char *first;  // texts of the first ids, between spaces, ...
    int32_t n_skipped;  // ... which stand for so many pieces
    const char *codes;  // languages, between spaces: tokens after the pieces
    const char *code_begin, *code_end;  // around a language in its token
    bool rare_commas;  // pieces that end in a digit and a comma are the last choice
};
/* The row of a folder: by config (tokenizer_config.json), else by model (config.json), else by the name of a file in it. NULL: none is special.
   Nullable: config, model. has: whether the folder has a file. *is_named: tokenizer_class names it. */
const struct layout *layout_find(const json_t *config, const json_t *model, bool (*has)(const char *folder, const char *file),
                                 const char *folder, bool *is_named);
/* config over the row's presets. Owned by caller, json_decref; NULL when out of memory. */
json_t *layout_config(const struct layout *layout, const json_t *config);
/* The special tokens of the row, and what stands around a text, over a vocabulary that is set. */
enum cb_status layout_finish(struct tokenizer *t, const struct layout *layout, const json_t *config, const char *name, struct cb_err *err);
/* A row's SentencePiece model; vocab: the ids by text where the row wants them; the languages come into it. */
enum cb_status layout_spm_read(struct tokenizer *t, const struct layout *layout, const struct text_view *file, json_t *vocab,
                               const json_t *config, const char *name, struct cb_err *err);
#endif
