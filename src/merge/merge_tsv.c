/* TSV-M (Gargiulo et al. 2025, arXiv 2412.00081): of each model's change of a layer's matrix only its share of the singular vectors, those of all models
   made orthogonal together. tau_k = U_k S_k V_k', the largest min(rows, cols) / n of each; with U = [U_1 ... U_n], V likewise and S of all on a diagonal the
   merged change is O(U) S O(V)', where O(U) is the nearest matrix with orthonormal columns: of U = P D Q' it is P Q'. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "merge/models.h"

/* Singular values below this share of the largest are rounding of f32; directions that models have in common to that precision are one. */
#define NO_VALUE (2 * (double)FLT_EPSILON)
#define NO_DIRECTION 1e-6

struct tsv {
    double weight[MERGE_MAX_MODELS], lambda;
    float *merged;  // the whole change of a matrix; NULL: the mean of vectors, tables of words and stacks of matrices
};

/* What is gathered of the models: k vectors so far. */
struct parts {
    double *u, *s, *v;  // (k,rows), (k), (k,cols)
    int64_t k;
};

/* Adds the largest singular vectors of a model's change, at most `most` of them. */
static enum cb_status take_parts(struct merge_job *job, const struct tsv *t, int model, int64_t most, double *work, struct parts *p,
                                 struct cb_err *err) {
    const int64_t m = job->rows, n = job->cols, r = m < n ? m : n;
    double *a = work, *u = a + m * n, *vt = u + m * r, *s = vt + r * n;
    TRY(merge_whole(job, model, t->weight[model], a, err));
    TRY(lapack_svd(a, m, n, u, s, vt, job->name, err));
    for (int64_t i = 0; i < most && s[i] > NO_VALUE * s[0]; i++, p->k++) {
        for (int64_t row = 0; row < m; row++) p->u[p->k * m + row] = u[row * r + i];
        memcpy(p->v + p->k * n, vt + i * n, (size_t)n * sizeof *vt);
        p->s[p->k] = s[i];
    }
    return CB_OK;
}

/* x(k,n), rows of unit length, becomes the nearest matrix with orthonormal rows; rows that several models have share one direction. */
static enum cb_status orthogonalise(const struct merge_job *job, double *x, int64_t k, int64_t n, struct cb_err *err) {
    const int64_t r = k < n ? k : n;
    double *work = malloc((size_t)(k * n + k * r + r + r * n) * sizeof *work), *u = work + k * n, *s = u + k * r, *vt = s + r;
    if (!work) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    memcpy(work, x, (size_t)(k * n) * sizeof *x);
    enum cb_status status = lapack_svd(work, k, n, u, s, vt, job->name, err);
    int64_t rank = 0;
    while (status == CB_OK && rank < r && s[rank] > NO_DIRECTION * s[0]) rank++;
    // the columns of u that belong to them
    for (int64_t i = 0; i < k; i++) memmove(u + i * rank, u + i * r, (size_t)rank * sizeof *u);
    memset(x, 0, (size_t)(k * n) * sizeof *x);
    if (status == CB_OK) merge_product(job->pool, x, u, false, vt, k, rank, n, 1);
    free(work);
    return status;
}

static enum cb_status merge_parts(struct merge_job *job, struct tsv *t, struct parts *p, double *work, int64_t most, struct cb_err *err) {
    const int64_t m = job->rows, n = job->cols;
    for (int k = 0; k < job->n_models; k++) TRY(take_parts(job, t, k, most, work, p, err));
    if (!p->k) return CB_OK;  // nothing has changed: merged is 0
    TRY(orthogonalise(job, p->u, p->k, m, err));
    TRY(orthogonalise(job, p->v, p->k, n, err));
    for (int64_t k = 0; k < p->k; k++)
        for (int64_t i = 0; i < m; i++) p->u[k * m + i] *= p->s[k];
    memset(work, 0, (size_t)job->n * sizeof *work);
    merge_product(job->pool, work, p->u, true, p->v, m, p->k, n, t->lambda);
    for (int64_t i = 0; i < job->n; i++) t->merged[i] = (float)work[i];
    return CB_OK;
}

static enum cb_status prepare(struct merge_job *job, struct cb_err *err) {
    struct tsv *t = job->state = arena_alloc(job->arena, sizeof *t);
    if (!t) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    t->lambda = merge_value(job, -1, "lambda", 1);
    for (int k = 0; k < job->n_models; k++) t->weight[k] = merge_value(job, k, "weight", 1);
    if (job->type.rank != 2 || merge_is_vocabulary(job->name)) return CB_OK;
    const int64_t m = job->rows, n = job->cols, r = m < n ? m : n;
    const int64_t most = r > job->n_models ? r / job->n_models : 1, all = most * job->n_models;
    double *work = malloc((size_t)(m * n + r * (m + n + 1) + all * (m + n + 1)) * sizeof *work);
    struct parts p = {.u = work + m * n + r * (m + n + 1)};
    p.v = p.u + all * m;
    p.s = p.v + all * n;
    t->merged = arena_array(job->arena, (size_t)job->n, sizeof *t->merged);
    enum cb_status status = work && t->merged ? merge_parts(job, t, &p, work, most, err)
                                              : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to merge it", job->name);
    free(work);
    return status;
}

static void apply(const struct merge_job *job, const struct merge_tile *tile, float *out) {
    const struct tsv *t = job->state;
    if (t->merged) {
        memcpy(out, t->merged + tile->first, (size_t)tile->n * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < tile->n; i++) {
        double sum = 0;
        for (int k = 0; k < job->n_models; k++) sum += t->weight[k] * (double)tile->x[k][i];
        out[i] = (float)(t->lambda * sum / job->n_models);
    }
}

const struct merge_method merge_tsv = {
    .name = "tsv",
    .doc =
        "Layers: each model's 1/n of the singular vectors of w tau, made orthogonal together; the rest the mean (TSV-M, Gargiulo et al., "
        "2025).",
    .options = {MERGE_WEIGHT, MERGE_LAMBDA},
    .base = MERGE_BASE_WANTED,
    .min_models = 1,
    .max_models = MERGE_MAX_MODELS,
    .prepare = prepare,
    .apply = apply,
};
