/* Small files beside results, shared by the calls that write folders. */
#ifndef API_FILES_H
#define API_FILES_H
#include "api/engine.h"

/* Writes FOLDER/NAME from text, whole or not at all. Nullable: text: nothing is written. */
enum cb_status files_write_text(const char *folder, const char *name, const char *text, struct cb_err *err);
/* The bytes of a file as FOLDER/NAME. */
enum cb_status files_copy_into(const char *from, const char *folder, const char *name, struct cb_err *err);
/* Copies those of tokenizer.json, tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt, ... that are in `from` (a folder or one
   tokenizer file) into the folder `to`; the vocabulary of a .gguf file becomes the first two. */
enum cb_status files_copy_tokenizer(const char *from, const char *to, struct cb_err *err);
/* What goes with a tokenizer and is no part of it: tokenizer_config.json, special_tokens_map.json, chat_template.jinja (of a .gguf file: a tokenizer.json too). */
enum cb_status files_copy_settings(const char *from, const char *to, struct cb_err *err);
/* Removes the files of a tokenizer, and the folder where it holds nothing else. */
void files_remove_tokenizer(const char *folder);
/* The tokenizer of a model: of a folder, a tokenizer's own file, or the vocabulary of a .gguf file. */
struct tokenizer;
enum cb_status files_load_tokenizer(struct tokenizer **tokenizer, const char *path, struct cb_err *err);
/* Writes it as tokenizer.json into a folder, which is made where it is not there, and run.json beside it. Nullable: run_json. In tokenizer.c. */
enum cb_status files_save_tokenizer(const struct tokenizer *tokenizer, const char *folder, const char *run_json, struct cb_err *err);
/* Whether a model brings one. */
bool files_have_tokenizer(const char *path);
#endif
