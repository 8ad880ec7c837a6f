/* Finds the chat template of a model and its special tokens; prompts of conversations. */
#include "api/chat.h"

#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/gguf.h"

#define TEMPLATE_BYTES ((size_t)16 << 20)

/* What was found of one model. */
struct search {
    const char *model, *given;
    json_t *specials;  // an object of strings
    char *source, *name;
    size_t n;
};

static enum cb_status take(struct search *s, const char *text, size_t n, const char *name, struct cb_err *err) {
    if (s->source) return CB_OK;
    s->source = malloc(n + 1);
    s->name = strdup(name);
    if (!s->source || !s->name) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    memcpy(s->source, text, n);
    s->source[n] = 0;
    s->n = n;
    return CB_OK;
}

/* MODEL/NAME as bytes; *bytes NULL where there is no such file. */
static enum cb_status read_beside(const struct search *s, const char *name, char **path, char **bytes, size_t *n, struct cb_err *err) {
    *bytes = NULL;
    *path = io_path_join(s->model, name);
    if (!*path) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    return io_is_file(*path) ? io_read_file(bytes, n, *path, TEMPLATE_BYTES, err) : CB_OK;
}

static enum cb_status read_template(struct search *s, const char *name, struct cb_err *err) {
    char *path, *bytes;
    size_t n = 0;
    enum cb_status status = read_beside(s, name, &path, &bytes, &n, err);
    if (status == CB_OK && bytes) status = take(s, bytes, n, path, err);
    free(path);
    free(bytes);
    return status;
}

/* ---- configurations */

/* Every key that ends in _token: a string, or an object with content. */
static enum cb_status take_specials(struct search *s, const json_t *config, struct cb_err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)config, key, value) {
        size_t n = strlen(key);
        json_t *text = json_is_object(value) ? json_object_get(value, "content") : value;
        if (n < 7 || strcmp(key + n - 6, "_token") || !json_is_string(text) || json_object_get(s->specials, key)) continue;
        if (json_object_set(s->specials, key, text)) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    }
    return CB_OK;
}

/* chat_template: a string, or a list of {name, template} of which the one asked for, or "default", is taken. */
static enum cb_status take_configured(struct search *s, const json_t *config, const char *path, struct cb_err *err) {
    const json_t *found = json_object_get(config, "chat_template");
    char text[JSON_TEXT];
    const char *wanted = s->given ? s->given : "default";
    if (!found || json_is_null(found)) return CB_OK;
    if (json_is_string(found)) return s->given ? CB_OK : take(s, json_string_value(found), json_string_length(found), path, err);
    if (!json_is_array(found))
        FAIL(err, CB_E_FORMAT, "%s: chat_template: found %s; wanted a string or a list of named ones", path, json_text(found, text));
    for (size_t i = 0; i < json_array_size(found); i++) {
        const json_t *item = json_array_get(found, i), *template = json_object_get(item, "template");
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || !json_is_string(template))
            FAIL(err, CB_E_FORMAT, "%s: chat_template[%zu]: found %s; wanted an object with name and template", path, i,
                 json_text(item, text));
        if (!strcmp(name, wanted)) return take(s, json_string_value(template), json_string_length(template), path, err);
    }
    return CB_OK;
}

static enum cb_status read_config(struct search *s, const char *name, struct cb_err *err) {
    char *path, *bytes;
    size_t n = 0;
    json_t *config = NULL;
    enum cb_status status = read_beside(s, name, &path, &bytes, &n, err);
    if (status == CB_OK && bytes) status = json_parse_config(&config, bytes, n, path, err);
    if (status == CB_OK && config) status = take_specials(s, config, err);
    if (status == CB_OK && config) status = take_configured(s, config, path, err);
    json_decref(config);
    free(path);
    free(bytes);
    return status;
}

static enum cb_status read_gguf(struct search *s, struct cb_err *err) {
    struct gguf *g;
    const char *text = NULL;
    TRY(gguf_open(&g, s->model, err));
    enum cb_status status = gguf_get_str(&text, g, "tokenizer.chat_template", false, err);
    if (status == CB_OK && text && !s->given) status = take(s, text, strlen(text), s->model, err);
    gguf_destroy(&g);
    return status;
}

/* What the configuration does not say: the tokenizer's begin and end of text. */
static enum cb_status usual_specials(struct search *s, const struct tokenizer *t, struct cb_err *err) {
    const struct {
        const char *key;
        int32_t id;
    } usual[] = {{"bos_token", t ? tokenizer_bos(t) : -1}, {"eos_token", t ? tokenizer_eos(t) : -1}};
    for (int i = 0; i < 2; i++) {
        size_t n;
        const char *text = usual[i].id >= 0 ? tokenizer_token(t, usual[i].id, &n) : NULL;
        if (!text || json_object_get(s->specials, usual[i].key)) continue;
        if (json_object_set_new(s->specials, usual[i].key, json_stringn(text, n))) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    }
    return CB_OK;
}

/* ---- one template */

static enum cb_status take_given(struct search *s, struct cb_err *err) {
    char names[200] = "", *bytes;
    size_t n;
    const char *builtin = chat_builtin(s->given);
    if (s->source) return CB_OK;
    if (io_is_file(s->given)) {
        TRY(io_read_file(&bytes, &n, s->given, TEMPLATE_BYTES, err));
        enum cb_status status = take(s, bytes, n, s->given, err);
        free(bytes);
        return status;
    }
    if (builtin) return take(s, builtin, strlen(builtin), s->given, err);
    for (const char *const *name = chat_builtin_names(); *name; name++) {
        size_t used = strlen(names);
        if (used + strlen(*name) + 3 < sizeof names) strcat(strcat(names, used ? ", " : ""), *name);
    }
    FAIL(err, CB_E_ARGUMENT, "--chat-template %s: neither a file nor a template of the model; wanted one, or %s", s->given, names);
}

static enum cb_status search(struct search *s, const struct tokenizer *tokenizer, struct cb_err *err) {
    if (!(s->specials = json_object())) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    if (io_is_folder(s->model)) {
        if (!s->given) TRY(read_template(s, "chat_template.jinja", err));
        TRY(read_config(s, "tokenizer_config.json", err));
        TRY(read_config(s, "special_tokens_map.json", err));
        TRY(read_config(s, "chat_template.json", err));
    } else if (gguf_is_path(s->model)) {
        TRY(read_gguf(s, err));
    }
    if (s->given) TRY(take_given(s, err));
    return usual_specials(s, tokenizer, err);
}

enum cb_status chat_open(struct chat **chat, const char *model, const struct tokenizer *tokenizer, const char *given, struct cb_err *err) {
    struct search s = {.model = model, .given = given};
    *chat = NULL;
    enum cb_status status = search(&s, tokenizer, err);
    if (status == CB_OK && s.source) status = chat_create(chat, s.source, s.n, s.name, s.specials, err);
    json_decref(s.specials);
    free(s.source);
    free(s.name);
    return status;
}

enum cb_status chat_need(struct chat **chat, const char *model, const struct tokenizer *tokenizer, const char *given, struct cb_err *err) {
    TRY(chat_open(chat, model, tokenizer, given, err));
    if (!*chat)
        FAIL(err, CB_E_ARGUMENT,
             "%s: found no chat template (chat_template.jinja, or chat_template in tokenizer_config.json); wanted one, or --chat-template "
             "FILE or NAME "
             "(chatml, llama3, ...)",
             model);
    return CB_OK;
}

/* ---- prompts */

/* A conversation with a word that occurs nowhere else as the answer: what stands behind it ends an answer. */
enum cb_status chat_end_mark(char **mark, const struct chat *chat, struct cb_err *err) {
    static const char conversation[] = "[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"ANSWER-9a41\"}]";
    struct jinja_output out = {0};
    struct cb_err ignored = {0};
    json_t *messages = NULL;
    const char *after = NULL;
    TRY(json_parse(&messages, conversation, sizeof conversation - 1, "conversation", err));
    struct chat_request q = {.messages = messages};
    // a template that does not take so short a conversation has no mark that could be seen
    if (chat_render(&out, chat, &q, &ignored) == CB_OK) after = strstr(out.text, "ANSWER-9a41");
    if (after) after += strlen("ANSWER-9a41");
    while (after && *after == ' ') after++;
    size_t n = after ? strcspn(after, " \t\r\n") : 0;
    *mark = strndup(n ? after : "", n);
    jinja_output_deinit(&out);
    json_decref(messages);
    if (!*mark) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    return CB_OK;
}

static enum cb_status request_of(struct chat_request *q, json_t *root, json_t **variables, const char *name, struct cb_err *err) {
    char text[JSON_TEXT];
    *variables = NULL;
    q->messages = root;
    q->add_generation_prompt = true;
    if (!json_is_object(root)) {
        if (json_array_size(root)) return CB_OK;
        FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a list of at least one message", name, json_text(root, text));
    }
    q->messages = json_object_get(root, "messages");
    if (!q->messages)
        FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a list of messages, or an object with messages", name, json_text(root, text));
    if (!json_array_size(q->messages))
        FAIL(err, CB_E_FORMAT, "%s: messages: found %s; wanted a list of at least one message", name, json_text(q->messages, text));
    q->tools = json_object_get(root, "tools");
    q->documents = json_object_get(root, "documents");
    if (!(*variables = json_copy(root))) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    json_object_del(*variables, "messages");
    json_object_del(*variables, "tools");
    json_object_del(*variables, "documents");
    q->variables = *variables;
    return CB_OK;
}

enum cb_status chat_prompt(char **text, size_t *n, const struct chat *chat, const char *json, const char *name, struct cb_err *err) {
    json_t *root = NULL, *variables = NULL;
    struct chat_request q = {0};
    struct jinja_output out = {0};
    *text = NULL;
    TRY(json_parse(&root, json, strlen(json), name, err));
    enum cb_status status = request_of(&q, root, &variables, name, err);
    if (status == CB_OK) status = chat_render(&out, chat, &q, err);
    if (status == CB_OK) {
        *text = out.text, *n = out.n;
        out.text = NULL;
    }
    jinja_output_deinit(&out);
    json_decref(variables);
    json_decref(root);
    return status;
}
