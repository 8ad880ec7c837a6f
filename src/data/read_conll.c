/* Tagged words, one a line in columns, sentences parted by empty lines: CoNLL-U (universaldependencies.org/format) and the older column files. Each sentence
   is a record: text, tokens, tags, and the other columns as lists. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/reader.h"
#include "text/buffer.h"

#define MAX_LINE ((size_t)1 << 20)
#define MAX_COLUMNS 32
#define MAX_WORDS 100000

struct conll {
    json_t *sentence;
    json_t *column[MAX_COLUMNS];  // lists of the sentence; borrowed from it
    int n_columns;  // of the file; 0: not seen yet
    bool is_conllu;
    char *repaired;
};

static enum cb_status conll_open(struct reader *r, struct cb_err *err) {
    struct conll *c = r->state;
    (void)err;
    c->is_conllu = reader_is_called(r->path, ".conllu");
    return CB_OK;
}

static void conll_close(struct reader *r) {
    struct conll *c = r->state;
    json_decref(c->sentence);
    free(c->repaired);
}

// What the columns are called. Of the older files the first is the word and the last its tag.
static void column_name(char name[24], const struct conll *c, int i, int n) {
    static const char *const conllu[] = {"id", "tokens", "lemma", "tags", "xpos", "feats", "head", "deprel", "deps", "misc"};
    if (c->is_conllu)
        snprintf(name, 24, "%s", conllu[i]);
    else
        snprintf(name, 24, i == 0 ? "tokens" : i == n - 1 ? "tags" : "column_%d", i + 1);
}

static enum cb_status sentence_begin(struct reader *r, int n, struct cb_err *err) {
    struct conll *c = r->state;
    for (int i = 0; i < n; i++) {
        char name[24];
        column_name(name, c, i, n);
        c->column[i] = json_array();
        if (json_object_set_new(c->sentence, name, c->column[i])) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    }
    c->n_columns = n;
    return CB_OK;
}

// Cells of a line: parted by tabs in CoNLL-U, else by blanks or tabs.
static int split(const struct conll *c, const char *line, size_t n, const char *cell[MAX_COLUMNS], size_t length[MAX_COLUMNS]) {
    int count = 0;
    for (size_t at = 0; at < n || (at == n && count && line[n - 1] == '\t');) {
        size_t end = at;
        while (end < n && line[end] != '\t' && (c->is_conllu || line[end] != ' ')) end++;
        if (count == MAX_COLUMNS) return MAX_COLUMNS + 1;
        cell[count] = line + at, length[count++] = end - at;
        if (end >= n) break;
        at = end + 1;
        while (!c->is_conllu && at < n && line[at] == ' ') at++;
    }
    return count;
}

static enum cb_status add_word(struct reader *r, const char *line, size_t n, struct cb_err *err) {
    struct conll *c = r->state;
    const char *cell[MAX_COLUMNS];
    size_t length[MAX_COLUMNS];
    int count = split(c, line, n, cell, length), wanted = c->is_conllu ? 10 : c->n_columns;
    // ranges (1-2) and empty words (1.1) of CoNLL-U are no words of their own
    if (c->is_conllu && count && (memchr(cell[0], '-', length[0]) || memchr(cell[0], '.', length[0]))) return CB_OK;
    if (count < 2 || count > MAX_COLUMNS || (wanted && count != wanted))
        FAIL(err, CB_E_FORMAT, "%s: line %lld: found %d columns; wanted %d", r->path, (long long)r->line, count, wanted ? wanted : 2);
    if (!c->column[0]) TRY(sentence_begin(r, count, err));
    if (json_array_size(c->column[0]) == MAX_WORDS)
        FAIL(err, CB_E_LIMIT, "%s: line %lld: a sentence of over %d words; are the empty lines missing?", r->path, (long long)r->line,
             MAX_WORDS);
    for (int i = 0; i < count; i++)
        if (json_array_append_new(c->column[i], json_stringn(cell[i], length[i]))) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    return CB_OK;
}

// The sentence's own text where a comment gives it, else its words with blanks between.
static enum cb_status add_text(struct reader *r, struct cb_err *err) {
    struct conll *c = r->state;
    const json_t *tokens = json_object_get(c->sentence, "tokens");
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    if (json_object_get(c->sentence, "text")) return CB_OK;
    for (size_t i = 0; i < json_array_size(tokens) && status == CB_OK; i++) {
        const json_t *word = json_array_get(tokens, i);
        if (i) status = buffer_append(&b, " ", 1, err);
        if (status == CB_OK) status = buffer_append(&b, json_string_value(word), json_string_length(word), err);
    }
    if (status == CB_OK && json_object_set_new(c->sentence, "text", json_stringn(b.data ? b.data : "", b.n)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", r->path);
    free(b.data);
    return status;
}

static enum cb_status conll_next(struct reader *r, json_t **object, struct cb_err *err) {
    struct conll *c = r->state;
    char where[600], *line;
    const char *text;
    size_t n;
    *object = NULL;
    json_decref(c->sentence);
    memset(c->column, 0, sizeof c->column);
    if (!(c->sentence = json_object())) FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
    for (;;) {
        TRY(stream_line(r->stream, &line, &n, MAX_LINE, err));
        if (!line) break;
        r->bytes += (int64_t)n + 1;
        r->line = stream_line_number(r->stream);
        const size_t mark = r->line == 1 ? data_mark(line, n) : 0;
        text = line + mark, n -= mark;
        snprintf(where, sizeof where, "%.500s: line %lld", r->path, (long long)r->line);
        TRY(reader_repair(r, &text, &n, &c->repaired, where, err));
        while (n && (text[n - 1] == '\r' || text[n - 1] == ' ')) n--;
        if (!n && c->column[0]) break;
        if (!n || (n >= 10 && !memcmp(text, "-DOCSTART-", 10))) continue;
        if (c->is_conllu && text[0] == '#') {
            if (n > 9 && !memcmp(text, "# text = ", 9) && json_object_set_new(c->sentence, "text", json_stringn(text + 9, n - 9)))
                FAIL(err, CB_E_MEMORY, "%s: out of memory", r->path);
            continue;
        }
        TRY(add_word(r, text, n, err));
    }
    if (!c->column[0]) return CB_OK;
    TRY(add_text(r, err));
    *object = c->sentence;
    return CB_OK;
}

static const char *const extensions[] = {".conllu", ".conll", ".conll2000", ".conll2002", ".conll2003", NULL};
const struct reader_kind read_conll = {.name = "conll",
                                       .doc = "tagged words, one a line, sentences parted by empty lines (CoNLL-U and older column files)",
                                       .extensions = extensions,
                                       .streams = true,
                                       .is_table = true,
                                       .state_bytes = sizeof(struct conll),
                                       .open = conll_open,
                                       .close = conll_close,
                                       .next = conll_next};
