/* Measures of labelled tasks: accuracy, macro F1 and Matthews' correlation of classes, correlations of numbers, entity F1 of tags, accuracy of choices. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/task.h"

void measure_close(struct measure *m) {
    json_decref(m->guesses);
    free(m->confusion);
    free(m->truth);
    free(m->guess);
    *m = (struct measure){0};
}

enum cb_status measure_guess(struct measure *m, const char *key, json_t *guess, struct cb_err *err) {
    if (!m->guesses) m->guesses = key ? json_object() : json_array();
    const bool failed = key ? json_object_set_new(m->guesses, key, guess) : json_array_append_new(m->guesses, guess);
    if (failed) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    return CB_OK;
}

/* {"<key>": value} as a guess. */
static enum cb_status guess_add(struct measure *m, const char *key, json_t *value, struct cb_err *err) {
    return measure_guess(m, NULL, json_pack("{s:o}", key, value), err);
}

static int largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* ---- entities: spans in the IOB schemes as conlleval (Tjong Kim Sang and Buchholz, CoNLL-2000) reads them */
struct tag {
    char mark;  // B, I, O, E, S
    const char *type;
};

static struct tag tag_of(const struct labels *labels, int number) {
    const char *name = number >= 0 && number < labels->n ? labels->name[number] : "O";
    bool has_type = name[0] && name[1] == '-';
    return (struct tag){has_type || !name[1] ? name[0] : 'O', has_type ? name + 2 : ""};
}

static bool ends(struct tag before, struct tag now) {
    if (before.mark == 'O') return false;
    return before.mark == 'E' || before.mark == 'S' || now.mark == 'B' || now.mark == 'S' || now.mark == 'O' ||
           strcmp(before.type, now.type) != 0;
}

static bool begins(struct tag before, struct tag now) {
    if (now.mark == 'O') return false;
    return now.mark == 'B' || now.mark == 'S' || before.mark == 'O' || before.mark == 'E' || before.mark == 'S' ||
           strcmp(before.type, now.type) != 0;
}

/* Counts the entities of both rows of n tags, and those that agree in place and type. */
static void spans_count(struct measure *m, const int *truth, const int *guess, int64_t n) {
    const struct tag none = {'O', ""};
    struct tag before[2] = {none, none};
    bool same = false;  // both are within an entity that began at one place with one type
    for (int64_t i = 0; i <= n; i++) {
        struct tag now[2] = {i < n ? tag_of(m->labels, truth[i]) : none, i < n ? tag_of(m->labels, guess[i]) : none};
        bool end[2] = {ends(before[0], now[0]), ends(before[1], now[1])};
        bool begin[2] = {begins(before[0], now[0]), begins(before[1], now[1])};
        if (same && (end[0] || end[1])) {
            m->both += end[0] && end[1];
            same = false;
        }
        m->spans += begin[0];
        m->found += begin[1];
        if (begin[0] && begin[1] && strcmp(now[0].type, now[1].type) == 0) same = true;
        before[0] = now[0];
        before[1] = now[1];
    }
}

/* ---- batches */
static enum cb_status open_classes(struct measure *m, const struct labelled_info *examples, struct cb_err *err) {
    (void)examples;
    if (m->n_labels > 4096) FAIL(err, CB_E_LIMIT, "evaluation: %d labels; at most 4096 are counted", m->n_labels);
    m->confusion = calloc((size_t)m->n_labels * (size_t)m->n_labels + 1, sizeof *m->confusion);
    if (!m->confusion) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    return CB_OK;
}

static enum cb_status open_numbers(struct measure *m, const struct labelled_info *examples, struct cb_err *err) {
    m->truth = calloc((size_t)examples->n + 1, sizeof *m->truth);
    m->guess = calloc((size_t)examples->n + 1, sizeof *m->guess);
    if (!m->truth || !m->guess) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    return CB_OK;
}

static enum cb_status open_nothing(struct measure *m, const struct labelled_info *examples, struct cb_err *err) {
    (void)m;
    (void)examples;
    (void)err;
    return CB_OK;
}

static void learnt_add(struct measure *m, double loss, int64_t learnt) {
    m->loss += learnt ? loss * (double)learnt : 0;
    m->learnt += learnt;
}

static int count_one(struct measure *m, const float *logits, int truth) {
    const int guess = largest(logits, m->n_labels);
    m->confusion[(int64_t)truth * m->n_labels + guess]++;
    m->right += guess == truth;
    m->n++;
    return guess;
}

static enum cb_status add_classes(struct measure *m, const struct measured *b, struct cb_err *err) {
    for (int64_t i = 0; i < b->n; i++) {
        const int guess = count_one(m, b->logits + i * m->n_labels, b->batch->labels[i]);
        if (m->wants_guesses) TRY(guess_add(m, "label", json_string(m->labels->name[guess]), err));
    }
    learnt_add(m, b->loss, b->n);
    return CB_OK;
}

/* Rows after the end are none of the mean of squared errors. */
static enum cb_status add_numbers(struct measure *m, const struct measured *b, struct cb_err *err) {
    for (int64_t i = 0; i < b->n; i++) {
        const double gap = (double)b->logits[i] - b->batch->values[i];
        m->loss += gap * gap;
        m->truth[m->n] = b->batch->values[i];
        m->guess[m->n++] = b->logits[i];
        if (m->wants_guesses) TRY(guess_add(m, "label", json_real(b->logits[i]), err));
    }
    m->learnt += b->n;
    return CB_OK;
}

/* One row: guesses of its words, beside their truth. */
static enum cb_status add_words(struct measure *m, const struct measured *b, int64_t row, int *truth, int *guess, struct cb_err *err) {
    const float *logits = b->logits + row * measured_rows(b) * m->n_labels;
    const int32_t *labels = b->batch->labels + row * b->batch->seq;
    int64_t words = 0;
    for (int64_t t = 0; t < b->batch->seq; t++) {
        if (labels[t] < 0) continue;
        truth[words] = labels[t];
        guess[words++] = count_one(m, logits + measured_place(b, t) * m->n_labels, labels[t]);
    }
    spans_count(m, truth, guess, words);
    if (!m->wants_guesses) return CB_OK;
    json_t *tags = json_array();
    for (int64_t i = 0; i < words; i++) json_array_append_new(tags, json_string(m->labels->name[guess[i]]));
    return guess_add(m, "tags", tags, err);
}

static enum cb_status add_tags(struct measure *m, const struct measured *b, struct cb_err *err) {
    int *rows = calloc(2 * (size_t)b->batch->seq + 1, sizeof *rows);
    if (!rows) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    const int64_t before = m->n;
    enum cb_status status = CB_OK;
    for (int64_t i = 0; status == CB_OK && i < b->n; i++) status = add_words(m, b, i, rows, rows + b->batch->seq, err);
    learnt_add(m, b->loss, m->n - before);
    free(rows);
    return status;
}

static enum cb_status add_choices(struct measure *m, const struct measured *b, struct cb_err *err) {
    const int64_t width = labelled_info(b->data)->rows;
    for (int64_t i = 0; i < b->n; i++) {
        const int guess = largest(b->logits + i * width, (int)width);
        m->right += guess == b->batch->labels[i];
        m->n++;
        if (m->wants_guesses) TRY(guess_add(m, "label", json_integer(guess), err));
    }
    learnt_add(m, b->loss, b->n);
    return CB_OK;
}

/* ---- results */
static double correlation(const double *x, const double *y, int64_t n) {
    double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
    for (int64_t i = 0; i < n; i++) mx += x[i] / (double)n, my += y[i] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
        xy += (x[i] - mx) * (y[i] - my);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

struct place {
    double value;
    int64_t at;
};

static int compare_places(const void *a, const void *b) {
    double x = ((const struct place *)a)->value, y = ((const struct place *)b)->value;
    return (x > y) - (x < y);
}

/* Ranks, equal values sharing theirs; false where memory is short. */
static bool ranks(double *out, const double *x, int64_t n) {
    struct place *p = malloc((size_t)n * sizeof *p + 1);
    if (!p) return false;
    for (int64_t i = 0; i < n; i++) p[i] = (struct place){x[i], i};
    qsort(p, (size_t)n, sizeof *p, compare_places);
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && p[end].value == p[i].value;) end++;
        for (int64_t k = i; k < end; k++) out[p[k].at] = (double)(i + end - 1) / 2;
    }
    free(p);
    return true;
}

static double spearman(const struct measure *m) {
    double *rank = malloc(2 * (size_t)m->n * sizeof *rank + 1), r = NAN;
    if (rank && ranks(rank, m->truth, m->n) && ranks(rank + m->n, m->guess, m->n)) r = correlation(rank, rank + m->n, m->n);
    free(rank);
    return r;
}

/* Matthews' correlation of several classes (Gorodkin 2004), and the mean of the classes' F1. */
static enum cb_status finish_classes(struct measure *m, struct cb_task_result *r, struct cb_err *err) {
    (void)err;
    if (!m->n) return CB_OK;
    r->accuracy = (double)m->right / (double)m->n;
    double s = (double)m->n, pt = 0, pp = 0, tt = 0, f1 = 0;
    int known = 0;
    for (int k = 0; k < m->n_labels; k++) {
        double truth = 0, guess = 0, right = (double)m->confusion[(int64_t)k * m->n_labels + k];
        for (int i = 0; i < m->n_labels; i++) {
            truth += (double)m->confusion[(int64_t)k * m->n_labels + i];
            guess += (double)m->confusion[(int64_t)i * m->n_labels + k];
        }
        pt += truth * guess;
        pp += guess * guess;
        tt += truth * truth;
        if (truth + guess == 0) continue;
        f1 += 2 * right / (truth + guess);
        known++;
    }
    double below = sqrt((s * s - pp) * (s * s - tt));
    r->mcc = below > 0 ? ((double)m->right * s - pt) / below : 0;
    r->f1 = known ? f1 / known : NAN;
    return CB_OK;
}

static enum cb_status finish_numbers(struct measure *m, struct cb_task_result *r, struct cb_err *err) {
    (void)err;
    r->pearson = correlation(m->truth, m->guess, m->n);
    r->spearman = spearman(m);
    return CB_OK;
}

static enum cb_status finish_tags(struct measure *m, struct cb_task_result *r, struct cb_err *err) {
    (void)err;
    if (!m->n) return CB_OK;
    r->accuracy = (double)m->right / (double)m->n;
    r->f1 = m->spans + m->found ? 2.0 * (double)m->both / (double)(m->spans + m->found) : 1;
    return CB_OK;
}

static enum cb_status finish_choices(struct measure *m, struct cb_task_result *r, struct cb_err *err) {
    (void)err;
    r->accuracy = m->n ? (double)m->right / (double)m->n : NAN;
    return CB_OK;
}

const struct measure_kind measure_classes = {"accuracy", open_classes, add_classes, finish_classes};
const struct measure_kind measure_numbers = {"pearson", open_numbers, add_numbers, finish_numbers};
const struct measure_kind measure_tags = {"f1", open_classes, add_tags, finish_tags};
const struct measure_kind measure_choices = {"accuracy", open_nothing, add_choices, finish_choices};
