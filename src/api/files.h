/* Small files beside results, shared by the calls that write folders. */
#ifndef API_FILES_H
#define API_FILES_H
#include "api/engine.h"

/* Writes FOLDER/NAME from text, whole or not at all. Nullable: text: nothing is written. */
enum cb_status files_write_text(const char *folder, const char *name, const char *text, struct cb_err *err);
/* Copies those of tokenizer.json, tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt, ... that are in `from` (a folder or one
   tokenizer file) into the folder `to`. *found: any that a tokenizer can be made of. Nullable: found. */
enum cb_status files_copy_tokenizer(const char *from, const char *to, bool *found, struct cb_err *err);
#endif
