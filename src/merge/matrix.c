/* Whole matrices in f64, for methods that need a tensor at once. */
#include "merge/merge.h"

struct whole {
    int model;
    double factor, *out;
};

static void whole_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    const struct whole *w = context;
    (void)job;
    (void)sums;
    for (int64_t i = 0; i < t->n; i++) w->out[t->first + i] = w->factor * (double)t->x[w->model][i];
}

enum cb_status merge_whole(struct merge_job *job, int model, double factor, double *out, struct cb_err *err) {
    return merge_pass(job, whole_tile, &(struct whole){model, factor, out}, 0, NULL, err);
}

struct product {
    double *out;
    const double *left, *right;
    int64_t row, step, k, n;  // left's element (i,p) is left[i * row + p * step]
    double factor;
};

static void product_row(void *context, int64_t i, int thread) {
    const struct product *p = context;
    double *out = p->out + i * p->n;
    (void)thread;
    for (int64_t k = 0; k < p->k; k++) {
        const double f = p->factor * p->left[i * p->row + k * p->step];
        for (int64_t j = 0; j < p->n; j++) out[j] += f * p->right[k * p->n + j];
    }
}

void merge_product(struct pool *pool, double *out, const double *left, bool turned, const double *right, int64_t m, int64_t k, int64_t n,
                   double factor) {
    pool_run(pool, m, product_row, &(struct product){out, left, right, turned ? 1 : k, turned ? m : 1, k, n, factor});
}
