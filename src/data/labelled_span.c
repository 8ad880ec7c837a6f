/* Questions about a context, SQuAD's task (Rajpurkar et al. 2016): the answer's characters become tokens, and a context that is too long for a row
   becomes windows that overlap. */
#include <stdlib.h>
#include <string.h>

#include "data/labelled_private.h"
#include "text/utf8.h"

/* The encoded pair of question and context: what stands before the context's tokens, these, and what stands behind them. */
struct parts {
    const struct token *token;
    int64_t context_begin, context_end, n;
    int64_t question_end, n_cut;  // tokens [question_end - n_cut, question_end) of the question are left out
    uint32_t begin, end;  // bytes of the answer; equal: there is none
    int64_t answer_first, answer_last;  // its tokens; -1: none
};

/* Byte of the n-th code point of a context; -1 behind its end. */
static int64_t byte_of(const json_t *context, json_int_t n) {
    const char *text = json_string_value(context);
    const size_t size = json_string_length(context);
    size_t at = 0;
    while (n > 0 && at < size) at += (size_t)utf8_length(text[at]), n--;
    return n == 0 && at <= size ? (int64_t)at : -1;
}

/* The texts of a record's answers, which are a list of {text, answer_start} or an object of two lists; *out: owned by caller. begin, end: of the first. */
static enum cb_status answers_read(json_t **out, uint32_t *begin, uint32_t *end, const struct record *r, const char *where,
                                   struct cb_err *err) {
    const json_t *answers = json_object_get(r->object, "answers"), *context = json_object_get(r->object, "context");
    const json_t *texts = json_object_get(answers, "text"), *starts = json_object_get(answers, "answer_start");
    const size_t n = texts ? json_array_size(texts) : json_array_size(answers);
    *begin = *end = 0;
    if (!(*out = json_array())) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(answers, i);
        json_t *text = texts ? json_array_get(texts, i) : json_object_get(one, "text");
        const json_int_t start = json_integer_value(texts ? json_array_get(starts, i) : json_object_get(one, "answer_start"));
        const int64_t at = byte_of(context, start);
        const size_t size = json_string_length(text), whole = json_string_length(context);
        if (at < 0 || size > whole - (size_t)at || memcmp(json_string_value(context) + at, json_string_value(text), size) != 0)
            FAIL(err, CB_E_FORMAT,
                 "%s: answers[%zu]: answer_start: found %lld, where the context has \"%.40s\"; wanted where it has \"%.60s\"", where, i,
                 (long long)start, at < 0 ? "" : json_string_value(context) + at, json_string_value(text));
        if (i == 0) *begin = (uint32_t)at, *end = (uint32_t)(at + (int64_t)size);
        if (json_array_append(*out, text)) FAIL(err, CB_E_MEMORY, "%s: out of memory", where);
    }
    return CB_OK;
}

/* A question is kept for its windows; its context is that of the question before where it says the same. */
static enum cb_status question_add(struct build *b, json_t *answers, const struct record *r, struct cb_err *err) {
    struct labelled *l = b->out;
    json_t *context = json_object_get(r->object, "context"), *id = json_object_get(r->object, "id");
    if (l->info.questions == l->questions_size) {
        const int64_t size = l->questions_size ? 2 * l->questions_size : 256;
        struct labelled_question *grown = realloc(l->question, (size_t)size * sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        l->question = grown;
        l->questions_size = size;
    }
    json_t *before = l->info.questions ? l->question[l->info.questions - 1].context : NULL;
    if (before && json_equal(before, context)) context = before;
    l->question[l->info.questions++] = (struct labelled_question){json_incref(context), json_incref(answers), json_incref(id)};
    l->info.unanswered += json_array_size(answers) == 0;
    return CB_OK;
}

/* ---- windows */
static void token_put(struct labelled *l, const struct token *t) {
    l->ids[l->n_tokens] = t->id;
    l->types[l->n_tokens] = t->type;
    l->tags[l->n_tokens] = LABELLED_IGNORE;
    l->from[l->n_tokens] = t->begin;
    l->to[l->n_tokens++] = t->end;
}

/* The answer's tokens are those that share a byte with it. */
static void answer_find(struct parts *p) {
    p->answer_first = p->answer_last = -1;
    for (int64_t i = p->context_begin; i < p->context_end && p->begin < p->end; i++) {
        if (p->token[i].end <= p->begin || p->token[i].begin >= p->end) continue;
        if (p->answer_first < 0) p->answer_first = i;
        p->answer_last = i;
    }
}

/* One row: context tokens [first, first + n) in their surroundings. */
static enum cb_status window_add(struct build *b, const struct parts *p, int64_t first, int64_t n, bool *has_answer, struct cb_err *err) {
    struct labelled *l = b->out;
    const int64_t before = p->context_begin - p->n_cut, length = before + n + p->n - p->context_end;
    TRY(labelled_grow(l, length, err));
    struct example e = {.begin = l->n_tokens, .n = (int32_t)length, .set = b->set, .question = l->info.questions - 1};
    for (int64_t i = 0; i < p->context_begin; i++)
        if (i < p->question_end - p->n_cut || i >= p->question_end) token_put(l, &p->token[i]);
    e.context_begin = (int32_t)before;
    e.context_end = (int32_t)(before + n);
    *has_answer = p->answer_first >= first && p->answer_last < first + n;
    if (*has_answer) e.label = (int32_t)(before + p->answer_first - first), e.end = (int32_t)(before + p->answer_last - first);
    for (int64_t i = first; i < first + n; i++) token_put(l, &p->token[i]);
    for (int64_t i = p->context_end; i < p->n; i++) token_put(l, &p->token[i]);
    l->example[l->n_rows++] = e;
    if (length > l->info.longest) l->info.longest = length;
    return CB_OK;
}

static enum cb_status windows_add(struct build *b, struct parts *p, const char *where, struct cb_err *err) {
    const int64_t context = p->context_end - p->context_begin, half = b->o->seq / 2;
    int64_t around = p->n - context, question = 0;
    while (question < p->context_begin && p->token[p->context_begin - 1 - question].special) question++;
    p->question_end = p->context_begin - question;
    for (question = 0; question < p->question_end && !p->token[p->question_end - 1 - question].special;) question++;
    // a question gives way to the context where it would take more than half of the row
    if (around + context > b->o->seq && around > half) p->n_cut = around - half < question ? around - half : question;
    around -= p->n_cut;
    b->out->info.cut += p->n_cut > 0;
    const int64_t room = b->o->seq - around;
    if (room < 1)
        FAIL(err, CB_E_ARGUMENT, "%s: --seq %lld: %lld tokens stand around the context; wanted more room", where, (long long)b->o->seq,
             (long long)around);
    const int64_t step = b->o->stride > 0 && b->o->stride < room ? b->o->stride : room - room / 3;
    bool is_found = p->begin == p->end;
    answer_find(p);
    for (int64_t first = 0;; first += step) {
        bool has_answer;
        TRY(window_add(b, p, p->context_begin + first, first + room < context ? room : context - first, &has_answer, err));
        is_found |= has_answer;
        if (first + room >= context) break;
    }
    b->out->info.lost += !is_found;
    return CB_OK;
}

enum cb_status labelled_add_span(struct build *b, const struct record *r, const char *where, struct cb_err *err) {
    const json_t *context = json_object_get(r->object, "context"), *question = json_object_get(r->object, "question");
    struct parts p = {0};
    json_t *answers = NULL;
    TRY(encoder_encode_pair(b->encoder, &b->list, json_string_value(question), json_string_length(question), json_string_value(context),
                            json_string_length(context), ENCODE_SPECIALS | ENCODE_OFFSETS, err));
    p.token = b->list.token;
    p.n = (int64_t)b->list.n;
    while (p.context_begin < p.n && p.token[p.context_begin].sequence != 1) p.context_begin++;
    for (p.context_end = p.context_begin; p.context_end < p.n && p.token[p.context_end].sequence == 1;) p.context_end++;
    if (p.context_begin == p.context_end) FAIL(err, CB_E_FORMAT, "%s: context: found nothing that has tokens; wanted some text", where);
    enum cb_status status = answers_read(&answers, &p.begin, &p.end, r, where, err);
    if (status == CB_OK) status = question_add(b, answers, r, err);
    json_decref(answers);
    b->out->info.has_pairs = true;
    return status == CB_OK ? windows_add(b, &p, where, err) : status;
}
