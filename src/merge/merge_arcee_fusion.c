/* Arcee fusion of mergekit: only the changes that matter most, by their size and by how far the row's softmax moved. */
#include <math.h>

#include "merge/merge.h"

struct fusion {
    float *divergence;  // of each row
    float threshold;
};

/* Log of the sum of exponentials of one row of theta0 + x (x may be NULL). */
static double log_sum(const float *base, const float *x, int64_t n) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, (double)base[i] + (x ? (double)x[i] : 0));
    for (int64_t i = 0; i < n; i++) sum += exp((double)base[i] + (x ? (double)x[i] : 0) - most);
    return most + log(sum);
}

/* KL of softmax(theta) from softmax(theta0), both + 1e-8, row by row. */
static void divergence_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    struct fusion *f = context;
    (void)sums;
    for (int64_t at = 0; at < t->n; at += job->cols) {
        const float *base = t->base + at, *x = t->x[0] + at;
        const double whole = log_sum(base, x, job->cols), base_whole = log_sum(base, NULL, job->cols);
        double sum = 0;
        for (int64_t i = 0; i < job->cols; i++) {
            const double p = exp((double)base[i] + (double)x[i] - whole) + 1e-8, q = exp((double)base[i] - base_whole) + 1e-8;
            sum += p * log(p / q);
        }
        f->divergence[(t->first + at) / job->cols] = (float)sum;
    }
}

/* Importance; never below 0 but for rounding. */
static void importance(const struct merge_job *job, const struct merge_tile *t, void *context, float *key) {
    const struct fusion *f = context;
    for (int64_t i = 0; i < t->n; i++) key[i] = fabsf(t->x[0][i]) * fmaxf(f->divergence[(t->first + i) / job->cols], 0);
}

static enum cb_status quantile(struct merge_job *job, struct fusion *f, double share, float *value, struct cb_err *err) {
    struct merge_cut cut;
    union {
        uint32_t u;
        float f;
    } bits;
    TRY(merge_select(job, importance, f, (int64_t)(share * (double)(job->n - 1)), &cut, err));
    bits.u = cut.bits;
    *value = bits.f;
    return CB_OK;
}

static enum cb_status prepare(struct merge_job *job, struct cb_err *err) {
    struct fusion *f = job->state = arena_alloc(job->arena, sizeof *f);
    float q1, median, q3;
    double none;
    if (f) f->divergence = arena_array(job->arena, (size_t)job->rows + 1, sizeof *f->divergence);
    if (!f || !f->divergence) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    job->by_row = true;
    TRY(merge_pass(job, divergence_tile, f, 0, &none, err));
    TRY(quantile(job, f, 0.25, &q1, err));
    TRY(quantile(job, f, 0.5, &median, err));
    TRY(quantile(job, f, 0.75, &q3, err));
    f->threshold = median + 1.5f * (q3 - q1);
    return CB_OK;
}

static void apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct fusion *f = job->state;
    importance(job, t, (void *)f, out);
    for (int64_t i = 0; i < t->n; i++) out[i] = out[i] >= f->threshold ? t->x[0][i] : 0;
}

const struct merge_method merge_arcee_fusion = {
    .name = "arcee_fusion",
    .doc = "theta0 + tau where |tau| KL(softmax theta, softmax theta0) of its row is at least median + 1.5 (q3 - q1).",
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = 1,
    .reads_base = true,
    .prepare = prepare,
    .apply = apply,
};
