/* The shapes of records: told by their keys, checked in full, and turned into conversations. */
#include "data/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What each shape is called, and the keys that belong to it.
static const struct {
    const char *text;
    const char *keys[8];
} shapes[RECORD_SHAPES] = {
    [RECORD_TEXT] = {"text", {"text"}},
    [RECORD_PROMPT] = {"prompt and completion", {"prompt", "completion", "system"}},
    [RECORD_MESSAGES] = {"messages", {"messages", "tools", "documents", "prompt", "completion", "chat_template_kwargs"}},
    [RECORD_ALPACA] = {"instruction and output", {"instruction", "input", "output", "response", "system"}},
    [RECORD_SHAREGPT] = {"conversations", {"conversations", "system", "tools"}},
    [RECORD_IDS] = {"input_ids", {"input_ids", "ids", "labels"}},
    [RECORD_LABEL] = {"text and label", {"text", "text_b", "label"}},
    [RECORD_TAGS] = {"tokens and tags", {"tokens", "tags", "ner_tags", "text"}},
    [RECORD_QUESTION] = {"context, question and answers", {"context", "question", "answers", "id", "is_impossible"}},
    [RECORD_CHOICE] = {"a question with choices and label", {"text", "question", "sent1", "choices", "label"}},
    [RECORD_PIXELS] = {"pixels", {"pixels", "label"}},
};

const char *record_shape_text(enum record_shape shape) { return shape < RECORD_SHAPES ? shapes[shape].text : "nothing"; }
bool record_uses(enum record_shape shape, const char *key) {
    for (int i = 0; i < 8 && shapes[shape].keys[i]; i++)
        if (!strcmp(shapes[shape].keys[i], key)) return true;
    return false;
}

// ---- one field

// "FILE: line N: KEY: found X; wanted Y"
static enum cb_status refuse(const char *where, const char *key, const json_t *found, const char *wanted, struct cb_err *err) {
    char text[JSON_TEXT];
    FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted %s", where, key, json_text(found, text), wanted);
}

static enum cb_status string_get(const char **text, size_t *n, const json_t *object, const char *where, const char *key,
                                 struct cb_err *err) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return refuse(where, key, value, "a string", err);
    *text = json_string_value(value);
    *n = json_string_length(value);
    return CB_OK;
}

// A list of token ids, with -100 among them where ids may be ignored; messages name key[i].
static enum cb_status ids_check(const json_t *list, const char *where, const char *key, bool ignored, struct cb_err *err) {
    if (!json_is_array(list) || !json_array_size(list)) return refuse(where, key, list, "a list of token ids", err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        json_int_t value = json_integer_value(id);
        if (json_is_integer(id) && ((value >= 0 && value <= INT32_MAX) || (ignored && value == -100))) continue;
        char name[80];
        snprintf(name, sizeof name, "%s[%zu]", key, i);
        return refuse(where, name, id, ignored ? "a token id of at least 0, or -100" : "a token id of at least 0", err);
    }
    return CB_OK;
}

// ---- conversations

static bool word_among(const char *word, const char *const *words) {
    while (*words && strcmp(*words, word)) words++;
    return *words != NULL;
}

// content: a string, or a list of parts that each say their type; null only beside the tool calls of an assistant.
static enum cb_status content_check(const json_t *message, const char *where, bool assistant, struct cb_err *err) {
    const json_t *content = json_object_get(message, "content");
    if (json_is_string(content)) return CB_OK;
    if (json_is_array(content) && json_array_size(content)) {
        for (size_t i = 0; i < json_array_size(content); i++) {
            const json_t *part = json_array_get(content, i);
            if (!json_is_string(json_object_get(part, "type"))) return refuse(where, "content", part, "parts with a type", err);
        }
        return CB_OK;
    }
    bool calls = assistant && json_array_size(json_object_get(message, "tool_calls")) > 0;
    if (calls && (!content || json_is_null(content))) return CB_OK;
    return refuse(where, "content", content, "a string", err);
}

static enum cb_status messages_check(const json_t *list, const char *where, const char *key, bool *answered, struct cb_err *err) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function", NULL};
    if (!json_is_array(list) || !json_array_size(list)) return refuse(where, key, list, "a list of at least one message", err);
    *answered = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *message = json_array_get(list, i), *role = json_object_get(message, "role");
        char at[600];
        snprintf(at, sizeof at, "%.500s: %s[%zu]", where, key, i);
        if (!json_is_object(message)) return refuse(where, key, message, "messages that are objects", err);
        if (!json_is_string(role) || !word_among(json_string_value(role), roles))
            return refuse(at, "role", role, "system, developer, user, assistant, tool or function", err);
        bool assistant = !strcmp(json_string_value(role), "assistant");
        TRY(content_check(message, at, assistant, err));
        *answered |= assistant;
    }
    return CB_OK;
}

/* Who speaks in conversations of {from, value}, as roles of messages. */
static const struct {
    const char *from, *role;
} speakers[] = {{"human", "user"},          {"user", "user"},         {"gpt", "assistant"},
                {"assistant", "assistant"}, {"chatgpt", "assistant"}, {"function_call", "assistant"},
                {"tool", "tool"},           {"observation", "tool"},  {"system", "system"}};

static const char *speaker_role(const char *from) {
    for (size_t i = 0; from && i < sizeof speakers / sizeof *speakers; i++)
        if (!strcmp(speakers[i].from, from)) return speakers[i].role;
    return NULL;
}

/* Whether the turns of a list are {from, value}, not messages of {role, content}; told by the first. Sets keep either under either key. */
static bool are_spoken(const json_t *list, const char *key) {
    const json_t *first = json_array_get(list, 0);
    const bool from = json_object_get(first, "from") != NULL, role = json_object_get(first, "role") != NULL;
    return strcmp(key, "conversations") ? from && !role : from || !role;
}

static enum cb_status turns_check(const json_t *list, const char *where, const char *key, bool *answered, struct cb_err *err) {
    if (!are_spoken(list, key)) return messages_check(list, where, key, answered, err);
    *answered = false;
    if (!json_is_array(list) || !json_array_size(list)) return refuse(where, key, list, "a list of at least one turn", err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *turn = json_array_get(list, i), *who = json_object_get(turn, "from");
        const char *role = speaker_role(json_string_value(who)), *text;
        char at[600];
        size_t n;
        snprintf(at, sizeof at, "%.500s: %s[%zu]", where, key, i);
        if (!role) return refuse(at, "from", who, "human, gpt or system", err);
        TRY(string_get(&text, &n, turn, at, "value", err));
        *answered |= !strcmp(role, "assistant");
    }
    return CB_OK;
}

// messages, or a prompt and a completion that are such lists.
static enum cb_status conversation_check(const json_t *object, const char *where, bool *answered, struct cb_err *err) {
    const json_t *list = json_object_get(object, "messages");
    if (list) return turns_check(list, where, "messages", answered, err);
    json_t *both = json_array();
    if (!both || json_array_extend(both, json_object_get(object, "prompt"))) {
        json_decref(both);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    }
    const json_t *completion = json_object_get(object, "completion");
    enum cb_status status =
        json_is_array(completion) ? CB_OK : refuse(where, "completion", completion, "a list of messages, as the prompt is", err);
    if (status == CB_OK && json_array_extend(both, (json_t *)(uintptr_t)completion))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", where);
    if (status == CB_OK) status = messages_check(both, where, "messages", answered, err);
    json_decref(both);
    return status;
}

const json_t *record_tags(const json_t *object, const char **key) {
    *key = json_object_get(object, "tags") || !json_object_get(object, "ner_tags") ? "tags" : "ner_tags";
    return json_object_get(object, *key);
}

static enum cb_status tags_check(const json_t *object, const char *where, struct cb_err *err) {
    const char *key;
    const json_t *tokens = json_object_get(object, "tokens"), *tags = record_tags(object, &key);
    if (!json_is_array(tokens) || !json_array_size(tokens)) return refuse(where, "tokens", tokens, "a list of words", err);
    if (!json_is_array(tags) || json_array_size(tags) != json_array_size(tokens))
        return refuse(where, key, tags, "a list with a tag for each word", err);
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *word = json_array_get(tokens, i), *tag = json_array_get(tags, i);
        if (!json_is_string(word)) return refuse(where, "tokens", word, "words", err);
        if (!json_is_string(tag) && !json_is_number(tag)) return refuse(where, key, tag, "words or numbers", err);
    }
    return CB_OK;
}

// A label is an integer, a float or a string, the same kind on every line.
static enum cb_status label_check(struct record_checker *c, const json_t *label, const char *where, struct cb_err *err) {
    if (!json_is_integer(label) && !json_is_string(label) && !json_is_real(label))
        return refuse(where, "label", label, "an integer, a float or a string", err);
    if (!c->n) c->label = json_typeof(label);
    if (json_typeof(label) == c->label) return CB_OK;
    return refuse(where, "label", label,
                  c->label == JSON_STRING    ? "a string, as in the first record"
                  : c->label == JSON_INTEGER ? "an integer, as in the first record"
                                             : "a float, as in the first record",
                  err);
}

// One answer to a question: its text, and the character of the context at which it stands.
static enum cb_status answer_check(const json_t *text, const json_t *start, size_t i, const char *where, struct cb_err *err) {
    char name[60];
    snprintf(name, sizeof name, "answers.text[%zu]", i);
    if (!json_is_string(text) || !json_string_length(text)) return refuse(where, name, text, "a text", err);
    snprintf(name, sizeof name, "answers.answer_start[%zu]", i);
    if (json_is_integer(start) && json_integer_value(start) >= 0) return CB_OK;
    return refuse(where, name, start, "a number of characters from 0", err);
}

static enum cb_status question_check(const json_t *object, const char *where, struct cb_err *err) {
    static const char wanted[] = "lists text and answer_start, or a list of pairs of these";
    const json_t *answers = json_object_get(object, "answers"), *texts = json_object_get(answers, "text"),
                 *starts = json_object_get(answers, "answer_start"), *id = json_object_get(object, "id");
    const char *text;
    size_t n;
    TRY(string_get(&text, &n, object, where, "context", err));
    TRY(string_get(&text, &n, object, where, "question", err));
    if (id && !json_is_string(id)) return refuse(where, "id", id, "a string", err);
    if (json_is_object(answers) && !json_is_array(texts)) return refuse(where, "answers.text", texts, "a list of texts", err);
    if (json_is_object(answers) && (!json_is_array(starts) || json_array_size(starts) != json_array_size(texts)))
        return refuse(where, "answers.answer_start", starts, "a list with a number for each text", err);
    if (!json_is_object(answers) && !json_is_array(answers)) return refuse(where, "answers", answers, wanted, err);
    if (json_array_size(texts ? texts : answers) > RECORD_CHOICES_MOST)
        FAIL(err, CB_E_FORMAT, "%s: answers: found %zu; wanted at most %d", where, json_array_size(texts ? texts : answers),
             RECORD_CHOICES_MOST);
    for (size_t i = 0; i < json_array_size(texts ? texts : answers); i++) {
        const json_t *one = json_array_get(answers, i);
        TRY(answer_check(texts ? json_array_get(texts, i) : json_object_get(one, "text"),
                         texts ? json_array_get(starts, i) : json_object_get(one, "answer_start"), i, where, err));
    }
    return CB_OK;
}

// What the choices follow may be under several keys; the label counts them from 0, also as a table writes it.
static enum cb_status choice_check(const json_t *object, const char *where, struct cb_err *err) {
    static const char *const keys[] = {"text", "question", "sent1"};
    const json_t *choices = json_object_get(object, "choices"), *label = json_object_get(object, "label");
    const size_t n = json_array_size(choices);
    bool has_text = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *text = json_object_get(object, keys[i]);
        if (text && !json_is_string(text)) return refuse(where, keys[i], text, "a string", err);
        has_text |= text != NULL;
    }
    if (!has_text) return refuse(where, "question", NULL, "a string (or text, sent1)", err);
    if (n < 2 || n > RECORD_CHOICES_MOST) {
        char wanted[60];
        snprintf(wanted, sizeof wanted, "a list of 2 to %d texts", RECORD_CHOICES_MOST);
        return refuse(where, "choices", choices, wanted, err);
    }
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(choices, i))) return refuse(where, "choices", json_array_get(choices, i), "texts", err);
    char *end = NULL, wanted[60];
    const char *digits = json_string_value(label);
    const long long number = digits ? strtoll(digits, &end, 10) : json_is_integer(label) ? json_integer_value(label) : -1;
    if (number >= 0 && (uint64_t)number < n && (!digits || (end != digits && !*end))) return CB_OK;
    snprintf(wanted, sizeof wanted, "the number of a choice, 0 to %zu", n - 1);
    return refuse(where, "label", label, wanted, err);
}

// Lists of lists, each of as many; at the innermost numbers.
static bool is_grid(const json_t *value, int depth) {
    if (!json_is_array(value)) return json_is_number(value);
    const json_t *first = json_array_get(value, 0);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (json_array_size(item) != json_array_size(first) || json_is_array(item) != json_is_array(first) || depth > 4 ||
            !is_grid(item, depth + 1))
            return false;
    }
    return json_array_size(value) > 0;
}

static enum cb_status pixels_check(struct record_checker *c, const json_t *object, const char *where, struct cb_err *err) {
    const json_t *pixels = json_object_get(object, "pixels"), *label = json_object_get(object, "label");
    if (!json_is_array(json_array_get(pixels, 0)) || !is_grid(pixels, 1))
        FAIL(err, CB_E_FORMAT, "%s: pixels: wanted rows of numbers, each of as many", where);
    return label ? label_check(c, label, where, err) : CB_OK;
}

// ---- one record

const char *record_keys(const json_t *object, char text[RECORD_KEYS]) {
    int used = snprintf(text, RECORD_KEYS, "no keys"), n = 0;
    for (void *i = json_object_iter((json_t *)(uintptr_t)object); i; i = json_object_iter_next((json_t *)(uintptr_t)object, i), n++) {
        char key[JSON_TEXT];
        json_t *name = json_string(json_object_iter_key(i));
        if (!n) used = 0;
        if (used < RECORD_KEYS - 100)
            used += snprintf(text + used, (size_t)(RECORD_KEYS - used), "%s%.60s", n ? ", " : "", json_text(name, key));
        else if (text[used - 1] != '.')
            used += snprintf(text + used, (size_t)(RECORD_KEYS - used), ", ...");
        json_decref(name);
    }
    return text;
}

// The keys tell the shape; the order settles records that have several.
enum cb_status record_shape_find(enum record_shape *shape, const json_t *object, const char *where, struct cb_err *err) {
    static const struct {
        const char *key;
        enum record_shape shape;
    } by_key[] = {
        {"messages", RECORD_MESSAGES},
        {"conversations", RECORD_SHAREGPT},
        {"prompt", RECORD_PROMPT},
        {"completion", RECORD_PROMPT},
        {"instruction", RECORD_ALPACA},
        {"input_ids", RECORD_IDS},
        {"ids", RECORD_IDS},
        {"tags", RECORD_TAGS},
        {"ner_tags", RECORD_TAGS},
        {"text", RECORD_TEXT},
        {"pixels", RECORD_PIXELS},
        {"choices", RECORD_CHOICE},
        {"answers", RECORD_QUESTION},
        {"context", RECORD_QUESTION},
    };
    for (size_t i = 0; i < sizeof by_key / sizeof *by_key; i++) {
        if (!json_object_get(object, by_key[i].key)) continue;
        *shape = by_key[i].shape;
        if (*shape == RECORD_PROMPT && json_is_array(json_object_get(object, "prompt"))) *shape = RECORD_MESSAGES;
        if (*shape == RECORD_TEXT && json_object_get(object, "label")) *shape = RECORD_LABEL;
        if (*shape == RECORD_LABEL && json_is_array(json_object_get(object, "choices"))) *shape = RECORD_CHOICE;
        return CB_OK;
    }
    char found[RECORD_KEYS];
    FAIL(err, CB_E_FORMAT,
         "%s: found %s; wanted text, prompt and completion, messages, instruction and output, conversations, input_ids, or tokens and tags",
         where, record_keys(object, found));
}

static enum cb_status ids_record_check(const json_t *object, const char *where, struct cb_err *err) {
    const char *key = json_object_get(object, "input_ids") ? "input_ids" : "ids";
    const json_t *ids = json_object_get(object, key), *labels = json_object_get(object, "labels");
    TRY(ids_check(ids, where, key, false, err));
    if (!labels) return CB_OK;
    TRY(ids_check(labels, where, "labels", true, err));
    if (json_array_size(labels) != json_array_size(ids))
        FAIL(err, CB_E_FORMAT, "%s: labels: found %zu for %zu ids; wanted as many", where, json_array_size(labels), json_array_size(ids));
    return CB_OK;
}

enum cb_status record_check(struct record_checker *c, struct record *r, const char *where, struct cb_err *err) {
    const json_t *o = r->object;
    const char *text;
    size_t n;
    TRY(record_shape_find(&r->shape, o, where, err));
    r->is_answered = true;
    if (c->n && r->shape != c->shape)
        FAIL(err, CB_E_FORMAT, "%s: found a record of %s; wanted %s, as of %s %lld", where, record_shape_text(r->shape),
             record_shape_text(c->shape), r->unit, (long long)c->first_line);
    switch (r->shape) {
        case RECORD_TEXT: TRY(string_get(&r->text, &r->n_text, o, where, "text", err)); break;
        case RECORD_LABEL:
            TRY(string_get(&r->text, &r->n_text, o, where, "text", err));
            TRY(label_check(c, json_object_get(o, "label"), where, err));
            break;
        case RECORD_PROMPT:
            TRY(string_get(&r->prompt, &r->n_prompt, o, where, "prompt", err));
            TRY(string_get(&r->text, &r->n_text, o, where, "completion", err));
            break;
        case RECORD_ALPACA:
            TRY(string_get(&text, &n, o, where, "instruction", err));
            TRY(string_get(&text, &n, o, where, json_object_get(o, "response") ? "response" : "output", err));
            if (json_object_get(o, "input") && !json_is_null(json_object_get(o, "input")))
                TRY(string_get(&text, &n, o, where, "input", err));
            break;
        case RECORD_MESSAGES: TRY(conversation_check(o, where, &r->is_answered, err)); break;
        case RECORD_TAGS:
            TRY(tags_check(o, where, err));
            if (json_object_get(o, "text")) TRY(string_get(&r->text, &r->n_text, o, where, "text", err));
            break;
        case RECORD_SHAREGPT: TRY(turns_check(json_object_get(o, "conversations"), where, "conversations", &r->is_answered, err)); break;
        case RECORD_IDS: TRY(ids_record_check(o, where, err)); break;
        case RECORD_QUESTION: TRY(question_check(o, where, err)); break;
        case RECORD_CHOICE: TRY(choice_check(o, where, err)); break;
        case RECORD_PIXELS: TRY(pixels_check(c, o, where, err)); break;
        case RECORD_SHAPES: break;
    }
    if (!c->n++) c->shape = r->shape, c->first_line = r->line;
    return CB_OK;
}

// ---- conversations out of records

static enum cb_status no_memory(const char *where, struct cb_err *err) { FAIL(err, CB_E_MEMORY, "%s: out of memory", where); }

// Adds {role, content}; content: taken over in any case.
static enum cb_status turn_add(json_t *messages, const char *role, json_t *content, const char *where, struct cb_err *err) {
    json_t *message = json_object();
    bool good = message && content && !json_object_set_new(message, "role", json_string(role));
    if (!message || json_object_set_new(message, "content", content)) good = false;
    if (json_array_append_new(messages, message)) good = false;
    return good ? CB_OK : no_memory(where, err);
}

static enum cb_status system_add(json_t *messages, const json_t *object, const char *where, struct cb_err *err) {
    json_t *system = json_object_get(object, "system");
    if (!json_is_string(system) || !json_string_length(system)) return CB_OK;
    return turn_add(messages, "system", json_incref(system), where, err);
}

// Messages as they are, but for keys without a value: tables fill them in for every row.
static enum cb_status messages_add(json_t *messages, const json_t *list, const char *where, struct cb_err *err) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *key;
        json_t *value, *copy = json_object();
        bool good = copy != NULL;
        json_object_foreach(json_array_get(list, i), key, value) {
            if (json_is_null(value) && strcmp(key, "content")) continue;
            if (good) good = !json_object_set(copy, key, value);
        }
        if (json_array_append_new(messages, copy) || !good) return no_memory(where, err);
    }
    return CB_OK;
}

static enum cb_status alpaca_add(json_t *messages, const json_t *object, const char *where, struct cb_err *err) {
    const json_t *instruction = json_object_get(object, "instruction"), *input = json_object_get(object, "input");
    json_t *output = json_object_get(object, json_object_get(object, "response") ? "response" : "output");
    size_t n = json_string_length(instruction), more = json_is_string(input) ? json_string_length(input) : 0;
    char *text = malloc(n + more + 3);
    if (!text) return no_memory(where, err);
    memcpy(text, json_string_value(instruction), n);
    if (more) memcpy(text + n, "\n\n", 2), memcpy(text + n + 2, json_string_value(input), more);
    json_t *question = json_stringn(text, more ? n + 2 + more : n);
    free(text);
    TRY(system_add(messages, object, where, err));
    TRY(turn_add(messages, "user", question, where, err));
    return turn_add(messages, "assistant", json_incref(output), where, err);
}

static enum cb_status spoken_add(json_t *messages, const json_t *object, const char *key, const char *where, struct cb_err *err) {
    const json_t *turns = json_object_get(object, key);
    if (!are_spoken(turns, key)) return messages_add(messages, turns, where, err);
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const json_t *turn = json_array_get(turns, i);
        const char *role = speaker_role(json_string_value(json_object_get(turn, "from")));
        TRY(turn_add(messages, role ? role : "user", json_incref(json_object_get(turn, "value")), where, err));
    }
    return CB_OK;
}

static enum cb_status sharegpt_add(json_t *messages, const json_t *object, const char *where, struct cb_err *err) {
    TRY(system_add(messages, object, where, err));
    return spoken_add(messages, object, "conversations", where, err);
}

static enum cb_status pair_add(json_t *messages, const json_t *object, const char *where, struct cb_err *err) {
    TRY(system_add(messages, object, where, err));
    TRY(turn_add(messages, "user", json_incref(json_object_get(object, "prompt")), where, err));
    return turn_add(messages, "assistant", json_incref(json_object_get(object, "completion")), where, err);
}

static enum cb_status turns_add(json_t *messages, const struct record *r, const char *where, struct cb_err *err) {
    const json_t *o = r->object;
    switch (r->shape) {
        case RECORD_MESSAGES:
            if (json_object_get(o, "messages")) return spoken_add(messages, o, "messages", where, err);
            TRY(messages_add(messages, json_object_get(o, "prompt"), where, err));
            return messages_add(messages, json_object_get(o, "completion"), where, err);
        case RECORD_ALPACA: return alpaca_add(messages, o, where, err);
        case RECORD_SHAREGPT: return sharegpt_add(messages, o, where, err);
        case RECORD_PROMPT: return pair_add(messages, o, where, err);
        default:
            FAIL(err, CB_E_UNSUPPORTED, "%s: found a record of %s, which is no conversation; wanted messages", where,
                 record_shape_text(r->shape));
    }
}

enum cb_status record_messages(json_t **messages, json_t **tools, const struct record *r, const char *where, struct cb_err *err) {
    json_t *given = json_object_get(r->object, "tools");
    *messages = json_array();
    *tools = NULL;
    if (!*messages) return no_memory(where, err);
    enum cb_status status = turns_add(*messages, r, where, err);
    // some sets keep the tools as text
    if (status == CB_OK && json_is_string(given) && json_string_length(given))
        status = json_parse(tools, json_string_value(given), json_string_length(given), where, err);
    else if (status == CB_OK && json_array_size(given))
        *tools = json_incref(given);
    if (status == CB_OK) return CB_OK;
    json_decref(*messages);
    *messages = NULL;
    return status;
}
