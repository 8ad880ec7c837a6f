/* Measures of answers that are spans: the best span of all windows of a question, as text, beside the right ones. */
#include <math.h>
#include <string.h>

#include "api/task.h"
#include "text/unicode.h"
#include "text/utf8.h"

static enum cb_status open_spans(struct measure *m, const struct labelled_info *examples, struct cb_err *err) {
    (void)err;
    // as SQuAD 2.0: where questions without an answer are among them, none is an answer
    m->may_be_none = examples->unanswered > 0;
    return CB_OK;
}

/* The bytes of a span without white space around them: tokens may hold the space before them. */
static void trim(const char *text, uint32_t *begin, uint32_t *end) {
    uint32_t cp;
    while (*begin < *end) {
        const int step = utf8_decode(text + *begin, *end - *begin, &cp);
        if (!step || !unicode_is_space(cp)) break;
        *begin += (uint32_t)step;
    }
    while (*begin < *end) {
        uint32_t last = *end - 1;
        while (last > *begin && utf8_is_tail(text[last])) last--;
        if (!utf8_decode(text + last, *end - last, &cp) || !unicode_is_space(cp)) break;
        *end = last;
    }
}

/* The question whose windows are all read. */
static enum cb_status question_close(struct measure *m, struct cb_err *err) {
    const struct labelled_question *q = m->question;
    if (!q) return CB_OK;
    const char *text = json_string_value(q->context);
    uint32_t begin = m->begin, end = m->end;
    double exact, f1;
    char number[32];
    trim(text, &begin, &end);
    if (m->may_be_none && m->none > m->best) end = begin;
    TRY(answer_score(&exact, &f1, text + begin, end - begin, q->answers, err));
    snprintf(number, sizeof number, "%lld", (long long)m->n);
    if (m->wants_guesses) TRY(measure_guess(m, q->id ? json_string_value(q->id) : number, json_stringn(text + begin, end - begin), err));
    m->exact += exact;
    m->f1 += f1;
    m->n++;
    return CB_OK;
}

/* The best span of a row: from any token of the context to one of the answer_tokens from there on. */
static void row_search(struct measure *m, const struct measured *b, int64_t i) {
    const float *start = b->start + i * measured_rows(b), *end = b->end + i * measured_rows(b);
    const int64_t place = measured_place(b, 0), row = b->first + i;
    uint32_t begin, behind, ignored;
    // the least of the windows: one that has no answer says nothing of the others
    m->none = fmin(m->none, (double)start[place] + end[place]);
    for (int64_t s = 0; s < b->batch->seq; s++) {
        if (!labelled_bytes(b->data, row, s, &begin, &ignored)) continue;
        for (int64_t e = s; e < b->batch->seq && e < s + m->answer_tokens && labelled_bytes(b->data, row, e, &ignored, &behind); e++) {
            const double score = (double)start[measured_place(b, s)] + end[measured_place(b, e)];
            if (!(score > m->best) || behind <= begin) continue;
            m->best = score;
            m->begin = begin;
            m->end = behind;
        }
    }
}

static enum cb_status add_spans(struct measure *m, const struct measured *b, struct cb_err *err) {
    for (int64_t i = 0; i < b->n; i++) {
        const struct labelled_question *q = labelled_question(b->data, b->first + i);
        if (q != m->question) {
            TRY(question_close(m, err));
            m->question = q;
            m->best = -INFINITY;
            m->none = INFINITY;
            m->begin = m->end = 0;
        }
        row_search(m, b, i);
    }
    m->loss += b->loss * (double)b->n;
    m->learnt += b->n;
    return CB_OK;
}

static enum cb_status finish_spans(struct measure *m, struct cb_task_result *r, struct cb_err *err) {
    TRY(question_close(m, err));
    r->n = m->n;
    r->exact_match = m->n ? m->exact / (double)m->n : NAN;
    r->f1 = m->n ? m->f1 / (double)m->n : NAN;
    return CB_OK;
}

const struct measure_kind measure_spans = {"f1", open_spans, add_spans, finish_spans};
