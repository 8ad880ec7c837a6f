/* SQuAD's files (rajpurkar.github.io/SQuAD-explorer; XQuAD and MLQA have them too): one JSON object, data > paragraphs > qas, which becomes a record a
   question: its keys and the context of its paragraph. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "text/buffer.h"

#define MAX_BYTES ((size_t)1 << 28)

struct squad {
    json_t *file, *record;
    size_t article, paragraph, question;  // the next one
};

static enum cb_status file_read(struct reader *r, struct buffer *text, struct cb_err *err) {
    for (size_t got = 1; got; text->n += got) {
        TRY(buffer_reserve(text, 1 << 16, err));
        TRY(stream_read(r->stream, text->data + text->n, 1 << 16, &got, err));
        if (text->n > MAX_BYTES)
            FAIL(err, CB_E_LIMIT, "%s: found over %zu bytes; wanted fewer, or a question a line (.jsonl)", r->path, MAX_BYTES);
    }
    return CB_OK;
}

static enum cb_status squad_open(struct reader *r, struct cb_err *err) {
    struct squad *s = r->state;
    struct buffer file = {0};
    char *repaired = NULL;
    enum cb_status status = file_read(r, &file, err);
    const char *text = file.data;
    size_t n = file.n;
    r->bytes = (int64_t)n;
    const size_t mark = data_mark(text, n);
    if (mark) text += mark, n -= mark;
    if (status == CB_OK && n) status = reader_repair(r, &text, &n, &repaired, r->path, err);
    if (status == CB_OK) status = json_parse_object(&s->file, text ? text : "", n, r->path, err);
    char found[JSON_TEXT];
    const json_t *data = json_object_get(s->file, "data");
    if (status == CB_OK && !json_is_array(data))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: data: found %s; wanted SQuAD's list of articles (or --format json)",
                         r->path, json_text(data, found));
    free(repaired);
    free(file.data);
    return status;
}

static void squad_close(struct reader *r) {
    struct squad *s = r->state;
    json_decref(s->file);
    json_decref(s->record);
}

/* A list within an object of the file; where: the place of the object. */
static enum cb_status list_get(const json_t **list, const json_t *object, const char *key, const char *where, struct cb_err *err) {
    char found[JSON_TEXT];
    *list = json_object_get(object, key);
    if (!json_is_array(*list)) FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted a list", where, key, json_text(*list, found));
    return CB_OK;
}

static enum cb_status squad_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct squad *s = r->state;
    const json_t *data = json_object_get(s->file, "data"), *paragraphs, *questions;
    char where[600], found[JSON_TEXT];
    *object = NULL;
    for (; s->article < json_array_size(data); s->article++, s->paragraph = 0) {
        snprintf(where, sizeof where, "%.500s: data[%zu]", r->path, s->article);
        TRY(list_get(&paragraphs, json_array_get(data, s->article), "paragraphs", where, err));
        for (; s->paragraph < json_array_size(paragraphs); s->paragraph++, s->question = 0) {
            const json_t *paragraph = json_array_get(paragraphs, s->paragraph);
            snprintf(where, sizeof where, "%.500s: data[%zu].paragraphs[%zu]", r->path, s->article, s->paragraph);
            TRY(list_get(&questions, paragraph, "qas", where, err));
            if (s->question == json_array_size(questions)) continue;
            json_t *question = json_array_get(questions, s->question++), *context = json_object_get(paragraph, "context");
            if (!json_is_object(question) || !context)
                FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a context and questions that are objects", where, json_text(question, found));
            json_decref(s->record);
            s->record = json_copy(question);
            if (!s->record || json_object_set(s->record, "context", context)) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
            r->line++;
            *object = s->record;
            return CB_OK;
        }
    }
    return CB_OK;
}

static bool is_white(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Whether a key stands in the text. */
static bool has_key(const char *text, size_t n, const char *key) {
    const size_t length = strlen(key);
    for (const char *hit = text; (hit = memmem(hit, (size_t)(text + n - hit), key, length)); hit++) {
        size_t end = (size_t)(hit - text) + length;
        while (end < n && is_white(text[end])) end++;
        if ((hit == text || hit[-1] != '\\') && (end == n || text[end] == ':')) return true;
    }
    return false;
}

/* One object of data; a list of records and records one after another are none, nor is data of contexts without paragraphs. */
static bool squad_fits(const char *head, size_t n) {
    size_t at = data_mark(head, n);
    while (at < n && is_white(head[at])) at++;
    if (at == n) return true;
    if (head[at] != '{') return false;
    if (has_key(head, n, "\"paragraphs\"")) return true;
    return has_key(head, n, "\"data\"") && !has_key(head, n, "\"context\"");
}

// Files are called .json, as many others are: tasks of questions look for it.
static const char *const extensions[] = {NULL};
const struct reader_kind read_squad = {.name = "squad",
                                       .doc = "SQuAD's JSON: articles, paragraphs, questions",
                                       .extensions = extensions,
                                       .streams = true,
                                       .fits = squad_fits,
                                       .state_bytes = sizeof(struct squad),
                                       .open = squad_open,
                                       .close = squad_close,
                                       .next = squad_next};
