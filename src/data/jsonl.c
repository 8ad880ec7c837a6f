/* The strict reader of JSON Lines: one object a line (jsonlines.org), its shape told by its keys and checked in full. */
#include "data/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/stream.h"
#include "text/utf8.h"

#define MAX_LINE ((size_t)1 << 28)

struct jsonl {
    struct stream *stream;
    enum data_invalid invalid;
    json_t *object;
    struct jsonl_record record;
    int64_t n_records, first_line;  // first_line: of the first record
    enum jsonl_shape shape;  // of the first record
    json_type label;  // of the first record
    int64_t bytes, broken, broken_line;
    char *repaired;
};

const char *jsonl_shape_text(enum jsonl_shape shape) {
    static const char *const text[JSONL_SHAPES] = {
        "text", "prompt and completion", "messages", "instruction and output", "conversations", "input_ids", "text and label",
    };
    return shape < JSONL_SHAPES ? text[shape] : "nothing";
}

enum cb_status jsonl_open(struct jsonl **out, const char *path, enum data_invalid invalid, struct cb_err *err) {
    *out = NULL;
    struct jsonl *j = calloc(1, sizeof *j);
    if (!j) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    j->invalid = invalid;
    enum cb_status status = stream_open(&j->stream, path, err);
    if (status != CB_OK)
        jsonl_close(&j);
    else
        *out = j;
    return status;
}

void jsonl_close(struct jsonl **jsonl) {
    struct jsonl *j = jsonl ? *jsonl : NULL;
    if (!j) return;
    stream_close(&j->stream);
    json_decref(j->object);
    free(j->repaired);
    free(j);
    *jsonl = NULL;
}

int64_t jsonl_bytes(const struct jsonl *jsonl) { return jsonl->bytes; }
int64_t jsonl_broken(const struct jsonl *jsonl, int64_t *line) {
    *line = jsonl->broken_line;
    return jsonl->broken;
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

static enum cb_status messages_check(const json_t *list, const char *where, struct cb_err *err) {
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool", "function", NULL};
    if (!json_is_array(list) || !json_array_size(list)) return refuse(where, "messages", list, "a list of at least one message", err);
    bool answered = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *message = json_array_get(list, i), *role = json_object_get(message, "role");
        char at[600];
        snprintf(at, sizeof at, "%.500s: messages[%zu]", where, i);
        if (!json_is_object(message)) return refuse(where, "messages", message, "messages that are objects", err);
        if (!json_is_string(role) || !word_among(json_string_value(role), roles))
            return refuse(at, "role", role, "system, developer, user, assistant, tool or function", err);
        bool assistant = !strcmp(json_string_value(role), "assistant");
        TRY(content_check(message, at, assistant, err));
        answered |= assistant;
    }
    if (!answered) FAIL(err, CB_E_FORMAT, "%s: messages: found none of an assistant; wanted one to learn from", where);
    return CB_OK;
}

static enum cb_status sharegpt_check(const json_t *list, const char *where, struct cb_err *err) {
    static const char *const from[] = {"system",  "human", "user",          "gpt",         "assistant",
                                       "chatgpt", "tool",  "function_call", "observation", NULL};
    if (!json_is_array(list) || !json_array_size(list)) return refuse(where, "conversations", list, "a list of at least one turn", err);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *turn = json_array_get(list, i), *who = json_object_get(turn, "from");
        char at[600];
        const char *text;
        size_t n;
        snprintf(at, sizeof at, "%.500s: conversations[%zu]", where, i);
        if (!json_is_string(who) || !word_among(json_string_value(who), from)) return refuse(at, "from", who, "human, gpt or system", err);
        TRY(string_get(&text, &n, turn, at, "value", err));
    }
    return CB_OK;
}

// ---- one record

// The keys tell the shape; the order settles records that have several.
static enum cb_status shape_find(enum jsonl_shape *shape, const json_t *object, const char *where, struct cb_err *err) {
    static const struct {
        const char *key;
        enum jsonl_shape shape;
    } by_key[] = {
        {"messages", JSONL_MESSAGES},  {"conversations", JSONL_SHAREGPT}, {"prompt", JSONL_PROMPT}, {"completion", JSONL_PROMPT},
        {"instruction", JSONL_ALPACA}, {"input_ids", JSONL_IDS},          {"ids", JSONL_IDS},       {"text", JSONL_TEXT},
    };
    for (size_t i = 0; i < sizeof by_key / sizeof *by_key; i++) {
        if (!json_object_get(object, by_key[i].key)) continue;
        *shape = by_key[i].shape;
        if (*shape == JSONL_TEXT && json_object_get(object, "label")) *shape = JSONL_LABEL;
        return CB_OK;
    }
    char found[JSON_TEXT] = "no keys", key[JSON_TEXT];
    void *first = json_object_iter((json_t *)(uintptr_t)object);
    if (first) {
        json_t *name = json_string(json_object_iter_key(first));
        snprintf(found, sizeof found, "%.70s", json_text(name, key));
        json_decref(name);
    }
    FAIL(err, CB_E_FORMAT, "%s: found %s; wanted text, prompt and completion, messages, instruction and output, conversations or input_ids",
         where, found);
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

// A label is an integer, a float or a string, the same kind on every line.
static enum cb_status label_check(struct jsonl *j, const json_t *label, const char *where, struct cb_err *err) {
    if (!json_is_integer(label) && !json_is_string(label) && !json_is_real(label))
        return refuse(where, "label", label, "an integer, a float or a string", err);
    if (!j->n_records) j->label = json_typeof(label);
    if (json_typeof(label) == j->label) return CB_OK;
    return refuse(where, "label", label,
                  j->label == JSON_STRING    ? "a string, as in the first record"
                  : j->label == JSON_INTEGER ? "an integer, as in the first record"
                                             : "a float, as in the first record",
                  err);
}

static enum cb_status record_check(struct jsonl *j, const char *where, struct cb_err *err) {
    struct jsonl_record *r = &j->record;
    const json_t *o = r->object;
    const char *text;
    size_t n;
    TRY(shape_find(&r->shape, o, where, err));
    if (j->n_records && r->shape != j->shape)
        FAIL(err, CB_E_FORMAT, "%s: found a record of %s; wanted %s, as on line %lld", where, jsonl_shape_text(r->shape),
             jsonl_shape_text(j->shape), (long long)j->first_line);
    switch (r->shape) {
        case JSONL_TEXT: TRY(string_get(&r->text, &r->n_text, o, where, "text", err)); break;
        case JSONL_LABEL:
            TRY(string_get(&r->text, &r->n_text, o, where, "text", err));
            TRY(label_check(j, json_object_get(o, "label"), where, err));
            break;
        case JSONL_PROMPT:
            TRY(string_get(&r->prompt, &r->n_prompt, o, where, "prompt", err));
            TRY(string_get(&r->text, &r->n_text, o, where, "completion", err));
            break;
        case JSONL_ALPACA:
            TRY(string_get(&text, &n, o, where, "instruction", err));
            TRY(string_get(&text, &n, o, where, json_object_get(o, "response") ? "response" : "output", err));
            if (json_object_get(o, "input")) TRY(string_get(&text, &n, o, where, "input", err));
            break;
        case JSONL_MESSAGES: TRY(messages_check(json_object_get(o, "messages"), where, err)); break;
        case JSONL_SHAREGPT: TRY(sharegpt_check(json_object_get(o, "conversations"), where, err)); break;
        case JSONL_IDS: TRY(ids_record_check(o, where, err)); break;
        case JSONL_SHAPES: break;
    }
    return CB_OK;
}

// ---- lines

// Broken UTF-8 in a line: refused, replaced or left out.
static enum cb_status line_repair(struct jsonl *j, char **line, size_t *n, const char *where, struct cb_err *err) {
    size_t bad = utf8_check(*line, *n);
    if (bad == *n) return CB_OK;
    const unsigned char *s = (const unsigned char *)*line;
    if (j->record.line == 1 && *n >= 2 && ((s[0] == 0xff && s[1] == 0xfe) || (s[0] == 0xfe && s[1] == 0xff)))
        FAIL(err, CB_E_FORMAT, "%s: found UTF-16; wanted UTF-8", where);
    if (j->invalid == DATA_INVALID_FAIL)
        FAIL(err, CB_E_FORMAT, "%s: found byte 0x%02x at offset %zu, which is not UTF-8; wanted UTF-8 text", where, s[bad], bad);
    free(j->repaired);
    j->repaired = malloc(3 * *n + 1);
    if (!j->repaired) FAIL(err, CB_E_MEMORY, "%s: out of memory for a line of %zu bytes", where, *n);
    if (!j->broken_line) j->broken_line = j->record.line;
    *n = data_repair(j->repaired, *line, *n, j->invalid, &j->broken);
    j->repaired[*n] = 0;
    *line = j->repaired;
    return CB_OK;
}

// The parser counts lines too, and always says 1: its "JSON line 1 column" would mislead beside the number of the file's line.
static void message_tidy(struct cb_err *err) {
    static const char twice[] = "JSON line 1 ";
    char *at = err ? strstr(err->message, twice) : NULL;
    if (at) memmove(at + 5, at + sizeof twice - 1, strlen(at + sizeof twice - 1) + 1);
}

enum cb_status jsonl_next(struct jsonl *j, const struct jsonl_record **record, struct cb_err *err) {
    char *line, where[600];
    size_t n;
    *record = NULL;
    for (;;) {
        TRY(stream_line(j->stream, &line, &n, MAX_LINE, err));
        if (!line) return CB_OK;
        j->bytes += (int64_t)n + 1;
        j->record = (struct jsonl_record){.line = stream_line_number(j->stream)};
        if (j->record.line == 1 && n >= 3 && !memcmp(line, "\xef\xbb\xbf", 3)) line += 3, n -= 3;
        if (strspn(line, " \t\r") < n) break;
    }
    snprintf(where, sizeof where, "%.500s: line %lld", stream_name(j->stream), (long long)j->record.line);
    TRY(line_repair(j, &line, &n, where, err));
    json_decref(j->object);
    enum cb_status status = json_parse_object(&j->object, line, n, where, err);
    if (status != CB_OK) message_tidy(err);
    TRY(status);
    j->record.object = j->object;
    TRY(record_check(j, where, err));
    if (!j->n_records++) j->shape = j->record.shape, j->first_line = j->record.line;
    *record = &j->record;
    return CB_OK;
}

// ---- a whole file

static enum cb_status check_all(struct jsonl *j, struct jsonl_summary *summary, const char *path, struct cb_err *err) {
    const struct jsonl_record *record;
    for (;;) {
        TRY(jsonl_next(j, &record, err));
        if (!record) break;
        summary->records++;
        summary->shape = record->shape;
        if (record->prompt) summary->characters += (int64_t)utf8_count(record->prompt, record->n_prompt);
        if (record->text) summary->characters += (int64_t)utf8_count(record->text, record->n_text);
    }
    summary->bytes = j->bytes;
    if (!summary->records) FAIL(err, CB_E_FORMAT, "%s: found no record (the file is empty); wanted one JSON object a line", path);
    int used = snprintf(summary->text, sizeof summary->text, "%lld record%s of %s", (long long)summary->records,
                        summary->records == 1 ? "" : "s", jsonl_shape_text(summary->shape));
    if (summary->characters)
        snprintf(summary->text + used, sizeof summary->text - (size_t)used, ", %lld characters", (long long)summary->characters);
    return CB_OK;
}

enum cb_status jsonl_check(const char *path, struct jsonl_summary *summary, struct cb_err *err) {
    struct jsonl *j;
    *summary = (struct jsonl_summary){0};
    TRY(jsonl_open(&j, path, DATA_INVALID_FAIL, err));
    enum cb_status status = check_all(j, summary, path, err);
    jsonl_close(&j);
    return status;
}
