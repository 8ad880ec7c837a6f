/* Measures of labelled tasks: accuracy, macro F1 and Matthews' correlation of classes, correlations of numbers, entity F1 of tags. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/task.h"

enum cb_status measure_open(struct measure *m, enum labelled_kind kind, const struct labels *labels, int64_t examples, struct cb_err *err) {
    *m = (struct measure){.kind = kind, .n_labels = labels->n, .labels = labels};
    bool numbers = kind == LABELLED_NUMBER;
    if (numbers &&
        (!(m->truth = calloc((size_t)examples + 1, sizeof *m->truth)) || !(m->guess = calloc((size_t)examples + 1, sizeof *m->guess))))
        FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    if (numbers) return CB_OK;
    if (labels->n > 4096) FAIL(err, CB_E_LIMIT, "evaluation: %d labels; at most 4096 are counted", labels->n);
    m->confusion = calloc((size_t)labels->n * (size_t)labels->n + 1, sizeof *m->confusion);
    if (!m->confusion) FAIL(err, CB_E_MEMORY, "evaluation: out of memory");
    return CB_OK;
}

void measure_close(struct measure *m) {
    free(m->confusion);
    free(m->truth);
    free(m->guess);
    *m = (struct measure){0};
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

void measure_add(struct measure *m, const float *logits, int64_t n, const int32_t *truth, float value) {
    if (m->kind == LABELLED_NUMBER) {
        m->truth[m->n] = value;
        m->guess[m->n++] = logits[0];
        return;
    }
    int *rows = m->kind == LABELLED_TAGS ? calloc(2 * (size_t)n + 1, sizeof *rows) : NULL;
    int64_t words = 0;
    for (int64_t i = 0; i < n; i++) {
        if (truth[i] < 0) continue;
        int guess = largest(logits + i * m->n_labels, m->n_labels);
        m->confusion[(int64_t)truth[i] * m->n_labels + guess]++;
        m->right += guess == truth[i];
        m->n++;
        if (rows) rows[words] = truth[i], rows[n + words++] = guess;
    }
    if (rows) spans_count(m, rows, rows + n, words);
    free(rows);
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
static void classes_finish(const struct measure *m, struct cb_task_result *r) {
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
}

void measure_finish(const struct measure *m, struct cb_task_result *r) {
    r->accuracy = r->f1 = r->mcc = r->pearson = r->spearman = NAN;
    if (!m->n) return;
    if (m->kind == LABELLED_NUMBER) {
        r->pearson = correlation(m->truth, m->guess, m->n);
        r->spearman = spearman(m);
        return;
    }
    r->accuracy = (double)m->right / (double)m->n;
    if (m->kind == LABELLED_CLASS) classes_finish(m, r);
    if (m->kind == LABELLED_TAGS) r->f1 = m->spans + m->found ? 2.0 * (double)m->both / (double)(m->spans + m->found) : 1;
}
