/* RegMean (Jin et al. 2023): the linear layer whose outputs are nearest to those of all the models on their own inputs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "merge/merge.h"

struct regmean {
    float *merged;  // the whole weight; NULL: no layer, the weighted mean
    double weight[MERGE_MAX_MODELS];
};

/* One model's Gram matrix, less of it beside the diagonal, and its weight as (in,out). */
static void read_model(const struct merge_job *job, int k, int64_t in, int64_t n_out, double shrink, float *f, double *gram, double *w) {
    merge_input_read(&job->statistic[k], in, 0, in * in, f);
    for (int64_t i = 0; i < in * in; i++) gram[i] = (double)f[i] * (i / in == i % in ? 1 : shrink);
    merge_input_read(&job->model[k], job->cols, 0, job->n, f);
    for (int64_t i = 0; i < job->n; i++) w[job->in_out ? i : i % in * n_out + i / in] = (double)f[i];
}

/* sum w G W = (sum w G) W*. A little of the mean diagonal is added: inputs that never vary leave the sum singular. */
static enum cb_status solve(struct merge_job *job, struct regmean *s, int64_t in, int64_t n_out, double *work, struct cb_err *err) {
    double *sum = work, *right = sum + in * in, *gram = right + in * n_out, *w = gram + in * in, trace = 0;
    const int64_t most = in * in > job->n ? in * in : job->n;
    float *f = malloc((size_t)most * sizeof *f);
    if (!f) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    memset(sum, 0, (size_t)(in * in) * sizeof *sum);
    memset(right, 0, (size_t)(in * n_out) * sizeof *right);
    // every Gram matrix gets its own share of the ridge, so that equal models stay what they are
    for (int k = 0; k < job->n_models; k++) {
        read_model(job, k, in, n_out, merge_value(job, -1, "shrink", 0.9), f, gram, w);
        trace = 0;
        for (int64_t i = 0; i < in; i++) trace += gram[i * in + i];
        for (int64_t i = 0; i < in; i++) gram[i * in + i] += 1e-6 * trace / (double)in + 1e-30;
        for (int64_t i = 0; i < in * in; i++) sum[i] += s->weight[k] * gram[i];
        merge_product(job->pool, right, gram, false, w, in, in, n_out, s->weight[k]);
    }
    free(f);
    TRY(lapack_solve_spd(sum, right, in, n_out, job->name, err));
    for (int64_t i = 0; i < job->n; i++) s->merged[i] = (float)right[job->in_out ? i : i % in * n_out + i / in];
    return CB_OK;
}

static enum cb_status prepare(struct merge_job *job, struct cb_err *err) {
    struct regmean *s = job->state = arena_alloc(job->arena, sizeof *s);
    bool is_layer = job->statistic && job->type.rank == 2;
    double total = 0;
    if (!s) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    for (int k = 0; k < job->n_models; k++) {
        is_layer = is_layer && job->statistic[k].data;
        total += s->weight[k] = merge_value(job, k, "weight", 1);
    }
    if (!(total > 0)) FAIL(err, CB_E_NUMERIC, "%s: regmean: found weights that add up to %g; wanted more than 0", job->name, total);
    for (int k = 0; k < job->n_models; k++) s->weight[k] /= total;
    if (!is_layer) return CB_OK;
    const int64_t in = job->type.dim[job->in_out ? 0 : 1], n_out = job->n / in;
    double *work = malloc((size_t)(2 * in * in + 2 * job->n) * sizeof *work);
    s->merged = arena_array(job->arena, (size_t)job->n, sizeof *s->merged);
    enum cb_status status = work && s->merged ? solve(job, s, in, n_out, work, err)
                                              : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to merge it", job->name);
    free(work);
    return status;
}

static void apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct regmean *s = job->state;
    if (s->merged) {
        memcpy(out, s->merged + t->first, (size_t)t->n * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < t->n; i++) {
        double sum = 0;
        for (int k = 0; k < job->n_models; k++) sum += s->weight[k] * (double)t->x[k][i];
        out[i] = (float)sum;
    }
}

const struct merge_method merge_regmean = {
    .name = "regmean",
    .doc =
        "Linear layers (sum w G)^-1 sum w G W, G the Gram matrix of their inputs on --text; the rest a weighted mean (Jin et al., 2023).",
    .options = {MERGE_WEIGHT, {"shrink", "factor of G beside its diagonal", 0.9, 0, 1, false, NULL}},
    .base = MERGE_BASE_NONE,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .statistic = "gram",
    .prepare = prepare,
    .apply = apply,
};
