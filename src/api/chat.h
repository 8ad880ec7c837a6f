/* A model's chat template: found among its files, or given. Shared by the files of this room only. */
#ifndef API_CHAT_H
#define API_CHAT_H
#include "api/engine.h"
#include "text/chat.h"

/* The template of a model (a folder or .gguf file): `given` is a file, the name of one of the model's own templates, or of a built-in one; NULL: the model's
   own, chat_template.jinja before tokenizer_config.json and chat_template.json. Special tokens come from the configuration, else from the tokenizer.
   *chat NULL: the model has none and none is given. Owned by caller, free with chat_destroy. */
enum cb_status chat_open(struct chat **chat, const char *model, const struct tokenizer *tokenizer, const char *given, struct cb_err *err);
/* The same; where there is none CB_E_ARGUMENT says how to give one. */
enum cb_status chat_need(struct chat **chat, const char *model, const struct tokenizer *tokenizer, const char *given, struct cb_err *err);
/* What follows an assistant's message, without the white space at its end: "<|im_end|>". Empty where nothing does. *mark: owned by caller, free(). */
enum cb_status chat_end_mark(char **mark, const struct chat *chat, struct cb_err *err);
/* The text that asks for the next message. json: a list of messages, or an object with messages and maybe tools, documents and variables of the template;
   name: where it is from, for messages. *text: *n bytes and a NUL, owned by caller, free(). */
enum cb_status chat_prompt(char **text, size_t *n, const struct chat *chat, const char *json, const char *name, struct cb_err *err);
#endif
