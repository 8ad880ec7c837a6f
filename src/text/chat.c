/* Renders conversations through a model's chat template, as Transformers does; the spans that the assistant said. */
#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

#include "text/jinja_value.h"
#include "text/unicode.h"
#include "text/utf8.h"

struct chat {
    struct jinja *jinja;
    char *source, *name;
    size_t n;
    json_t *specials;
};

enum cb_status chat_create(struct chat **out, const char *source, size_t n, const char *name, const json_t *specials, struct cb_err *err) {
    *out = NULL;
    struct chat *c = calloc(1, sizeof *c);
    if (!c) FAIL(err, CB_E_MEMORY, "chat template: out of memory");
    c->n = n;
    c->source = malloc(n + 1);
    c->name = strdup(name);
    c->specials = specials ? json_deep_copy(specials) : json_object();
    enum cb_status status = CB_OK;
    if (!c->source || !c->name || !c->specials)
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "chat template: out of memory");
    else {
        memcpy(c->source, source, n);
        c->source[n] = 0;
        status = jinja_parse(&c->jinja, source, n, name, err);
    }
    if (status != CB_OK)
        chat_destroy(&c);
    else
        *out = c;
    return status;
}

void chat_destroy(struct chat **chat) {
    struct chat *c = chat ? *chat : NULL;
    if (!c) return;
    jinja_destroy(&c->jinja);
    json_decref(c->specials);
    free(c->source);
    free(c->name);
    free(c);
    *chat = NULL;
}

const char *chat_source(const struct chat *chat, size_t *n) {
    if (n) *n = chat->n;
    return chat->source;
}
const char *chat_name(const struct chat *chat) { return chat->name; }
bool chat_marks_generation(const struct chat *chat) { return jinja_marks_generation(chat->jinja); }

// ---- what a template sees

static enum cb_status put(json_t *object, const char *key, const json_t *value, struct cb_err *err) {
    if (json_object_set(object, key, (json_t *)value)) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    return CB_OK;
}

// A message of its own. Its reasoning, known under three names, is seen as reasoning_content and thinking.
static enum cb_status copy_message(json_t **out, const json_t *message, struct cb_err *err) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    json_t *reasoning = NULL;
    for (int i = 0; i < 3 && !reasoning; i++) {
        reasoning = json_object_get(message, names[i]);
        if (json_is_null(reasoning)) reasoning = NULL;
    }
    *out = json_object();
    if (*out && reasoning) TRY(put(*out, "thinking", reasoning, err));
    if (!*out || json_object_update(*out, (json_t *)message)) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    return reasoning ? put(*out, "reasoning_content", reasoning, err) : CB_OK;
}

// A copy of the messages, whose objects are their own.
static enum cb_status copy_messages(json_t **out, const json_t *messages, struct cb_err *err) {
    *out = json_array();
    if (!*out) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        char text[JSON_TEXT];
        if (!json_is_object(message))
            FAIL(err, CB_E_FORMAT, "messages[%zu]: found %s; wanted an object with role and content", i, json_text(message, text));
        json_t *copy = NULL;
        enum cb_status status = copy_message(&copy, message, err);
        // the list takes the copy in any case
        if (json_array_append_new(*out, copy) && status == CB_OK) FAIL(err, CB_E_MEMORY, "chat: out of memory");
        TRY(status);
    }
    return CB_OK;
}

static enum cb_status make_variables(json_t **out, const struct chat *c, const struct chat_request *q, const json_t *messages, bool prompt,
                                     struct cb_err *err) {
    *out = json_object();
    json_t *flag = json_boolean(prompt), *null = json_null();
    if (!*out || json_object_update(*out, c->specials) || (q->variables && json_object_update(*out, (json_t *)q->variables)))
        FAIL(err, CB_E_MEMORY, "chat: out of memory");
    TRY(put(*out, "messages", messages, err));
    TRY(put(*out, "tools", q->tools ? q->tools : null, err));
    TRY(put(*out, "documents", q->documents ? q->documents : null, err));
    return put(*out, "add_generation_prompt", flag, err);
}

static enum cb_status render_messages(struct jinja_output *out, const struct chat *c, const struct chat_request *q, const json_t *messages,
                                      bool prompt, struct cb_err *err) {
    json_t *variables = NULL;
    struct jinja_options options = {.now = q->now};
    enum cb_status status = make_variables(&variables, c, q, messages, prompt, err);
    if (status == CB_OK) status = jinja_render(out, c->jinja, variables, &options, err);
    json_decref(variables);
    return status;
}

// ---- continuing the last message: a mark behind it shows where the text is cut

#define CONTINUE_MARK "CONTINUE_FINAL_MESSAGE_TAG "

// The last message's text: a string, or the last part that has one.
static enum cb_status text_of_last(json_t *messages, json_t **holder, const char **key, struct cb_err *err) {
    size_t n = json_array_size(messages);
    json_t *last = n ? json_array_get(messages, n - 1) : NULL, *content = json_object_get(last, "content");
    *holder = last, *key = "content";
    if (json_is_string(content)) return CB_OK;
    // parts are shared with the caller's messages: those that change are copied
    json_t *parts = json_is_array(content) ? json_deep_copy(content) : NULL;
    if (!parts || json_object_set_new(last, "content", parts))
        FAIL(err, CB_E_FORMAT, "continue_final_message: the last message has no text to continue");
    *key = "text";
    for (size_t i = json_array_size(parts); i-- > 0;) {
        *holder = json_array_get(parts, i);
        if (json_is_string(json_object_get(*holder, "text"))) return CB_OK;
    }
    FAIL(err, CB_E_FORMAT, "continue_final_message: the last message has no text to continue");
}

static enum cb_status cut_at_mark(struct jinja_output *out, struct cb_err *err) {
    size_t n = strlen(CONTINUE_MARK), at = out->n;
    while (at > 0 && !(out->n - (at - 1) >= n - 1 && !memcmp(out->text + at - 1, CONTINUE_MARK, n - 1))) at--;
    if (!at) FAIL(err, CB_E_FORMAT, "continue_final_message: the template leaves the last message out");
    at--;
    bool kept = out->n - at >= n && out->text[at + n - 1] == ' ';
    // a template that trims takes the message's own white space too
    while (!kept && at > 0) {
        size_t back = at - 1;
        uint32_t cp;
        while (back > 0 && utf8_is_tail(out->text[back])) back--;
        if (!utf8_decode(out->text + back, at - back, &cp) || !(unicode_is_space(cp) || (cp >= 0x1c && cp <= 0x1f))) break;
        at = back;
    }
    out->n = at;
    out->text[at] = 0;
    for (size_t i = 0; i < out->n_spans; i++)
        if (out->span[i].end > at) out->span[i].end = out->span[i].begin > at ? out->span[i].begin : at;
    return CB_OK;
}

static enum cb_status render_continued(struct jinja_output *out, const struct chat *c, const struct chat_request *q, json_t *messages,
                                       struct cb_err *err) {
    json_t *holder;
    const char *key;
    TRY(text_of_last(messages, &holder, &key, err));
    json_t *text = json_object_get(holder, key);
    size_t n = json_string_length(text), mark = strlen(CONTINUE_MARK);
    char *marked = malloc(n + mark + 1);
    if (!marked) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    memcpy(marked, json_string_value(text), n);
    memcpy(marked + n, CONTINUE_MARK, mark + 1);
    bool set = !json_object_set_new(holder, key, json_stringn(marked, n + mark));
    free(marked);
    if (!set) FAIL(err, CB_E_MEMORY, "chat: out of memory");
    TRY(render_messages(out, c, q, messages, q->add_generation_prompt, err));
    return cut_at_mark(out, err);
}

static enum cb_status check(const struct chat_request *q, struct cb_err *err) {
    char text[JSON_TEXT];
    if (!json_is_array(q->messages)) FAIL(err, CB_E_FORMAT, "messages: found %s; wanted a list", json_text(q->messages, text));
    if (q->continue_final_message && q->add_generation_prompt)
        FAIL(err, CB_E_ARGUMENT, "chat: a generation prompt and continuing the last message exclude each other");
    return CB_OK;
}

enum cb_status chat_render(struct jinja_output *out, const struct chat *c, const struct chat_request *q, struct cb_err *err) {
    json_t *messages = NULL;
    TRY(check(q, err));
    enum cb_status status = copy_messages(&messages, q->messages, err);
    if (status == CB_OK)
        status = q->continue_final_message ? render_continued(out, c, q, messages, err)
                                           : render_messages(out, c, q, messages, q->add_generation_prompt, err);
    json_decref(messages);
    if (status != CB_OK) jinja_output_deinit(out);
    return status;
}

// ---- what the assistant said

static bool is_assistant(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && (!strcmp(role, "assistant") || !strcmp(role, "model"));
}

static bool is_prefix(const struct jinja_output *a, const struct jinja_output *whole) {
    return a->n <= whole->n && !memcmp(a->text, whole->text, a->n);
}

// The first n messages alone.
static enum cb_status render_first(struct jinja_output *out, const struct chat *c, const struct chat_request *q, const json_t *messages,
                                   size_t n, bool prompt, struct cb_err *err) {
    json_t *head = json_array();
    enum cb_status status = head ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "chat: out of memory");
    for (size_t i = 0; i < n && status == CB_OK; i++)
        if (json_array_append(head, json_array_get(messages, i)))
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "chat: out of memory");
    if (status == CB_OK) status = render_messages(out, c, q, head, prompt, err);
    json_decref(head);
    return status;
}

// Where a run of the assistant's messages [from, to) begins and ends in the whole text.
static enum cb_status span_of_run(struct jinja_span *span, const struct chat *c, const struct chat_request *q, const json_t *messages,
                                  size_t from, size_t to, const struct jinja_output *whole, struct cb_err *err) {
    struct jinja_output before = {0}, after = {0};
    bool begins = false;
    // the generation prompt belongs to what comes before; where a template has none, the text alone
    enum cb_status status = render_first(&before, c, q, messages, from, true, err);
    if (status == CB_OK && !(begins = is_prefix(&before, whole))) {
        status = render_first(&before, c, q, messages, from, false, err);
        begins = status == CB_OK && is_prefix(&before, whole);
    }
    span->begin = before.n;
    span->end = whole->n;
    if (status == CB_OK && begins && to < json_array_size(messages)) {
        status = render_first(&after, c, q, messages, to, false, err);
        span->end = after.n;
        if (status == CB_OK) begins = is_prefix(&after, whole) && after.n >= before.n;
    }
    jinja_output_deinit(&before);
    jinja_output_deinit(&after);
    TRY(status);
    if (!begins)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: what it makes of the first %zu messages does not begin the whole text, so the assistant's part is unknown; wanted a "
             "template with "
             "{%% generation %%} blocks",
             c->name, from);
    return CB_OK;
}

static enum cb_status mark_runs(struct jinja_output *out, const struct chat *c, const struct chat_request *q, const json_t *messages,
                                struct cb_err *err) {
    size_t n = json_array_size(messages);
    for (size_t i = 0; i < n; i++) {
        size_t from = i;
        if (!is_assistant(json_array_get(messages, i))) continue;
        while (i + 1 < n && is_assistant(json_array_get(messages, i + 1))) i++;
        struct jinja_span span;
        TRY(span_of_run(&span, c, q, messages, from, i + 1, out, err));
        TRY(buffer_grow((void **)&out->span, &out->capacity, out->n_spans + 1, sizeof *out->span, err));
        out->span[out->n_spans++] = span;
    }
    return CB_OK;
}

enum cb_status chat_render_marked(struct jinja_output *out, const struct chat *c, const struct chat_request *q, struct cb_err *err) {
    json_t *messages = NULL;
    TRY(check(q, err));
    enum cb_status status = copy_messages(&messages, q->messages, err);
    if (status == CB_OK) status = render_messages(out, c, q, messages, false, err);
    if (status == CB_OK && !chat_marks_generation(c)) status = mark_runs(out, c, q, messages, err);
    json_decref(messages);
    if (status != CB_OK) jinja_output_deinit(out);
    return status;
}

void chat_mask(bool *learnt, const struct token_list *tokens, const struct jinja_span *span, size_t n_spans) {
    for (size_t i = 0; i < tokens->n; i++) {
        const struct token *t = &tokens->token[i];
        learnt[i] = false;
        for (size_t k = 0; k < n_spans && !learnt[i]; k++)
            learnt[i] = span[k].begin < span[k].end && t->begin < span[k].end && t->end > span[k].begin && t->begin < t->end;
    }
}
