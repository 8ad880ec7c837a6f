/* What tokenizer_config.json (Transformers) says beside a vocabulary, and the parts that formats without a post-processor need. */
#ifndef TEXT_CONFIG_H
#define TEXT_CONFIG_H
#include "text/parts.h"

/* Getters over the file's object, which may be NULL: then all is absent. */
bool config_flag(const json_t *config, const char *key, bool preset);
/* The text of "key": "text" or {"content": "text"}; text NULL where there is none. */
struct text_view config_text(const json_t *config, const char *key);
/* The same of a value. Nullable: value. */
struct text_view config_item(const json_t *value);
/* bos_token, ..., in the order in which Transformers adds what is not in the vocabulary; NULL after the last. */
extern const char *const config_special_keys[];
/* config with what older files say where it has no added_tokens_decoder. Nullable: config, map (special_tokens_map.json), added (added_tokens.json).
   *out: owned by caller, json_decref. */
enum cb_status config_with_old(json_t **out, const json_t *config, const json_t *map, const json_t *added, const char *name,
                               struct cb_err *err);
/* Adds the tokens of added_tokens_decoder, marks the named specials (bos_token, ...) that are in the vocabulary, and adds the others and the additional ones
   after all; sets t's bos and eos. */
enum cb_status config_added(struct tokenizer *t, const json_t *config, const char *name, struct cb_err *err);
/* Adds a token of any id, which it gets by its text or after all; one that is added already stays as it is. */
enum cb_status config_put(struct tokenizer *t, struct added_token token, const char *name, struct cb_err *err);
/* Sets bos and eos by bos_token and eos_token. */
void config_ends(struct tokenizer *t, const json_t *config);
/* A template that puts first (bos or [CLS]) before and last (eos or [SEP]) after each sequence; NULL: nothing there. Ids are looked up. is_bert: first
   only before the first sequence, and the second of a pair has type 1. */
enum cb_status template_set(struct tokenizer *t, const char *first, const char *last, bool is_bert, const char *name, struct cb_err *err);
/* The next word of a list between spaces; false at its end. Nullable: *list. */
bool config_word(const char **list, struct text_view *word);
/* A template of words between spaces: A and B are the sequences, src the token source, cls is config's cls_token and so on; a 1 after it: of type 1.
   pair: for two sequences. */
enum cb_status template_words(struct tokenizer *t, const char *single, const char *pair, const json_t *config, const char *source,
                              const char *name, struct cb_err *err);
#endif
