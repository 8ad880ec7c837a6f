/* Methods whose result is a linear combination of the models: coefficients for the whole tensor, for each row, or for each column. They are found
   from dot products alone, since every vector that such a method makes lies in the span of its inputs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpuid.h"
#include "merge/merge.h"

struct combination {
    enum merge_axis axis;
    double c[MERGE_MAX_MODELS];  // of the whole tensor
    float *column;  // n_models rows of cols coefficients
};

CPU_CLONES static void add_times(float *out, const float *x, float c, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += c * x[i];
}

CPU_CLONES static void add_product(float *out, const float *x, const float *c, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += c[i] * x[i];
}

/* ---- columns: dot products down each, over a range of rows at a time */

struct columns {
    struct merge_job *job;
    double *gram;  // n_models^2 rows of cols
    float *column;
    const char *wrong;
};

enum { COLUMN_TILE = 512 };

/* A range of columns through all rows, by one thread: the sums do not depend on the others. */
static void column_tile(void *context, int64_t i, int thread) {
    struct columns *c = context;
    const struct merge_job *job = c->job;
    const int n = job->n_models;
    const int64_t begin = i * COLUMN_TILE, some = job->cols - begin < COLUMN_TILE ? job->cols - begin : COLUMN_TILE;
    float x[MERGE_MAX_MODELS][COLUMN_TILE], base[COLUMN_TILE];
    (void)thread;
    for (int64_t row = 0; row < job->rows; row++) {
        const int64_t first = row * job->cols + begin;
        if (job->base) merge_input_read(job->base, job->cols, first, some, base);
        for (int k = 0; k < n; k++) {
            merge_input_read(&job->model[k], job->cols, first, some, x[k]);
            for (int64_t j = 0; job->base && j < some; j++) x[k][j] -= base[j];
        }
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++) {
                double *to = c->gram + (a * n + b) * job->cols + begin;
                for (int64_t j = 0; j < some; j++) to[j] += (double)x[a][j] * (double)x[b][j];
            }
    }
}

static enum cb_status columns_prepare(struct merge_job *job, struct combination *s, struct cb_err *err) {
    const struct merge_combination *kind = job->method->kind;
    const int n = job->n_models;
    const int64_t cols = job->cols;
    double gram[MERGE_MAX_MODELS * MERGE_MAX_MODELS], coefficient[MERGE_MAX_MODELS];
    struct columns c = {.job = job, .gram = arena_array(job->arena, (size_t)(n * n * cols), sizeof *c.gram)};
    s->column = arena_array(job->arena, (size_t)(n * cols), sizeof *s->column);
    if (!c.gram || !s->column) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    pool_run(job->pool, (cols + COLUMN_TILE - 1) / COLUMN_TILE, column_tile, &c);
    merge_forget(job);
    for (int64_t j = 0; j < cols; j++) {
        for (int p = 0; p < n * n; p++) gram[p] = c.gram[p * cols + j];
        const char *wrong = kind->coefficients(job, gram, coefficient);
        if (wrong) FAIL(err, CB_E_NUMERIC, "%s: column %lld: %s", job->name, (long long)j, wrong);
        for (int k = 0; k < n; k++) s->column[k * cols + j] = (float)coefficient[k];
    }
    return CB_OK;
}

/* ---- preparation and use */

enum cb_status merge_combine_prepare(struct merge_job *job, struct cb_err *err) {
    const struct merge_combination *kind = job->method->kind;
    struct combination *s = job->state = arena_alloc(job->arena, sizeof *s);
    if (!s) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    s->axis = kind->axis ? kind->axis(job) : MERGE_WHOLE;
    job->by_row = s->axis == MERGE_ROWS;
    if (s->axis == MERGE_ROWS) return CB_OK;  // each row's are found where it is merged
    if (s->axis == MERGE_COLUMNS) return columns_prepare(job, s, err);
    double *gram = NULL;
    if (kind->gram) {
        gram = arena_array(job->arena, (size_t)(job->n_models * job->n_models), sizeof *gram);
        if (!gram) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
        TRY(merge_gram(job, gram, err));
    }
    const char *wrong = kind->coefficients(job, gram, s->c);
    if (wrong) FAIL(err, CB_E_NUMERIC, "%s: %s: %s", job->name, job->method->name, wrong);
    return CB_OK;
}

static void apply_rows(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct merge_combination *kind = job->method->kind;
    double gram[MERGE_MAX_MODELS * MERGE_MAX_MODELS], c[MERGE_MAX_MODELS];
    const int n = job->n_models;
    for (int64_t at = 0; at < t->n; at += job->cols) {
        memset(gram, 0, sizeof(double) * (size_t)(n * n));
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++)
                for (int64_t j = at; j < at + job->cols; j++) gram[a * n + b] += (double)t->x[a][j] * (double)t->x[b][j];
        if (kind->coefficients(job, gram, c)) memset(c, 0, sizeof c);  // a row without a direction adds nothing
        for (int k = 0; k < n; k++) add_times(out + at, t->x[k] + at, (float)c[k], job->cols);
    }
}

CPU_CLONES static void add_exactly(double *sum, const float *x, double c, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += c * (double)x[i];
}

/* In f64, so that coefficients that add up to 1 give a model that is merged with itself back. */
static void apply_whole(const struct merge_job *job, const struct combination *s, const struct merge_tile *t, float *out) {
    enum { STEP = 512 };
    for (int64_t at = 0; at < t->n; at += STEP) {
        double sum[STEP] = {0};
        const int64_t some = t->n - at < STEP ? t->n - at : STEP;
        for (int k = 0; k < job->n_models; k++) add_exactly(sum, t->x[k] + at, s->c[k], some);
        for (int64_t i = 0; i < some; i++) out[at + i] = (float)sum[i];
    }
}

void merge_combine_apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct combination *s = job->state;
    memset(out, 0, (size_t)t->n * sizeof *out);
    if (s->axis == MERGE_ROWS) {
        apply_rows(job, t, out);
        return;
    }
    if (s->axis == MERGE_WHOLE) {
        apply_whole(job, s, t, out);
        return;
    }
    for (int k = 0; k < job->n_models; k++) {
        for (int64_t at = 0; at < t->n;) {
            int64_t col = (t->first + at) % job->cols, some = job->cols - col < t->n - at ? job->cols - col : t->n - at;
            add_product(out + at, t->x[k] + at, s->column + k * job->cols + col, some);
            at += some;
        }
    }
}
