/* SCE (Wan et al. 2024, FuseChat): select by variance, calculate weights by energy, erase minority signs. */
#include <math.h>
#include <string.h>

#include "merge/merge.h"

struct sce {
    bool selects;
    struct merge_cut cut;  // of the variance
    double weight[MERGE_MAX_MODELS];
};

/* Population variance over the models. */
static float variance(const struct merge_job *job, const struct merge_tile *t, int64_t i) {
    double mean = 0, sum = 0;
    for (int k = 0; k < job->n_models; k++) mean += (double)t->x[k][i] / job->n_models;
    for (int k = 0; k < job->n_models; k++) sum += ((double)t->x[k][i] - mean) * ((double)t->x[k][i] - mean);
    return (float)(sum / job->n_models);
}

static void variance_key(const struct merge_job *job, const struct merge_tile *t, void *context, float *key) {
    (void)context;
    for (int64_t i = 0; i < t->n; i++) key[i] = variance(job, t, i);
}

static void nonzero_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    (void)context;
    for (int64_t i = 0; i < t->n; i++) sums[0] += variance(job, t, i) != 0;
}

static bool is_kept(const struct merge_job *job, const struct merge_tile *t, int64_t i) {
    const struct sce *s = job->state;
    return !s->selects || merge_above(&s->cut, variance(job, t, i), t->first + i);
}

static void energy_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    (void)context;
    for (int64_t i = 0; i < t->n; i++) {
        if (!is_kept(job, t, i)) continue;
        for (int k = 0; k < job->n_models; k++) sums[k] += (double)t->x[k][i] * (double)t->x[k][i];
    }
}

static enum cb_status prepare(struct merge_job *job, struct cb_err *err) {
    struct sce *s = job->state = arena_alloc(job->arena, sizeof *s);
    const double share = merge_value(job, -1, "select_topk", 1);
    double nonzero, total = 0;
    if (!s) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    s->selects = share < 1;
    if (s->selects) {
        TRY(merge_pass(job, nonzero_tile, NULL, 1, &nonzero, err));
        TRY(merge_select(job, variance_key, NULL, job->n - (int64_t)(share * nonzero), &s->cut, err));
    }
    TRY(merge_pass(job, energy_tile, NULL, job->n_models, s->weight, err));
    for (int k = 0; k < job->n_models; k++) total += s->weight[k];
    for (int k = 0; k < job->n_models; k++) s->weight[k] = total > 0 ? s->weight[k] / total : 1.0 / job->n_models;
    return CB_OK;
}

static void apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct sce *s = job->state;
    for (int64_t i = 0; i < t->n; i++) {
        double sign = 0, sum = 0, weights = 0;
        out[i] = 0;
        if (!is_kept(job, t, i)) continue;
        for (int k = 0; k < job->n_models; k++) sign += (double)t->x[k][i];
        for (int k = 0; k < job->n_models; k++) {
            const double x = (double)t->x[k][i];
            if (sign >= 0 ? x <= 0 : x >= 0) continue;
            sum += s->weight[k] * x;
            weights += s->weight[k];
        }
        out[i] = (float)(sum / fmax(weights, 1e-6));
    }
}

static const char doc[] =
    "Keeps the elements of largest variance, weighs by the mean of tau^2, averages what agrees in sign (SCE, Wan et al., 2024).";
const struct merge_method merge_sce = {
    .name = "sce",
    .doc = doc,
    .options = {{"select_topk", "share of the elements that differ which is kept", 1, 0, 1, false, NULL}, MERGE_INT8},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .prepare = prepare,
    .apply = apply,
};
