/* Chat templates: a conversation to the text that a model was trained on, and which part of it the assistant said. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H
#include "text/jinja.h"
#include "text/tokenizer.h"

struct chat;  // a template with the special tokens of its model; immutable

/* source: n bytes of a Jinja template. specials: an object of strings (bos_token, eos_token, ...), copied; nullable. Owned by caller, free with
   chat_destroy. */
enum cb_status chat_create(struct chat **chat, const char *source, size_t n, const char *name, const json_t *specials, struct cb_err *err);
void chat_destroy(struct chat **chat);
const char *chat_source(const struct chat *chat, size_t *n);  // the template's text
const char *chat_name(const struct chat *chat);
bool chat_marks_generation(const struct chat *chat);

/* A template of our own by name ("chatml", "llama3", ...), or NULL; the names, NULL-ended. */
const char *chat_builtin(const char *name);
const char *const *chat_builtin_names(void);

struct chat_request {
    const json_t *messages;  // a list of objects
    const json_t *tools, *documents;  // lists; nullable
    const json_t *variables;  // an object of whatever else the template asks for; nullable
    bool add_generation_prompt;
    bool continue_final_message;  // the text ends where the last message does
    const struct tm *now;  // nullable
};
/* As apply_chat_template of Transformers renders it. Replaces *out (zero-initialise it first), free with jinja_output_deinit. */
enum cb_status chat_render(struct jinja_output *out, const struct chat *chat, const struct chat_request *request, struct cb_err *err);

/* The text of a whole conversation, and in out->span what the assistant said: what {% generation %} marks, or, in a template without it, what each
   assistant's message adds to the text of the messages before it with the generation prompt. Where these are no prefixes of the whole (the template
   rewrites its past): CB_E_UNSUPPORTED, the message that it begins with named. */
enum cb_status chat_render_marked(struct jinja_output *out, const struct chat *chat, const struct chat_request *request,
                                  struct cb_err *err);

/* learnt[i]: whether token i holds a byte of a span. tokens: with ENCODE_OFFSETS (bytes). */
void chat_mask(bool *learnt, const struct token_list *tokens, const struct jinja_span *span, size_t n_spans);
#endif
