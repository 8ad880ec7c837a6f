/* Reinforced agent merging (arXiv 2601.13572): differences of one model alone are added, those of several averaged; RAM+ makes the former larger by how
   much of a model's changes is shared. */
#include "merge/ram.h"

#include <math.h>

struct ram {
    float epsilon;
    float alone[MERGE_MAX_MODELS];  // factor of a model's own differences
};

/* How many models changed the element. */
static int changed(const struct merge_job *job, const struct merge_tile *t, int64_t i, float epsilon) {
    int n = 0;
    for (int k = 0; k < job->n_models; k++) n += fabsf(t->x[k][i]) > epsilon;
    return n;
}

/* For each model: elements that it shares, and those it has alone. */
static void count_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    const struct ram *r = context;
    for (int64_t i = 0; i < t->n; i++) {
        const int n = changed(job, t, i, r->epsilon);
        for (int k = 0; k < job->n_models && n; k++)
            if (fabsf(t->x[k][i]) > r->epsilon) sums[2 * k + (n == 1)]++;
    }
}

enum cb_status ram_prepare(struct merge_job *job, struct cb_err *err) {
    struct ram *r = job->state = arena_alloc(job->arena, sizeof *r);
    double sums[2 * MERGE_MAX_MODELS];
    if (!r) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    r->epsilon = (float)merge_value(job, -1, "epsilon", 1e-5);
    for (int k = 0; k < job->n_models; k++) r->alone[k] = 1;
    const double gain = merge_value(job, -1, "r", 0), most = merge_value(job, -1, "alpha", 0);
    if (gain == 0) return CB_OK;
    TRY(merge_pass(job, count_tile, r, 2 * job->n_models, sums, err));
    for (int k = 0; k < job->n_models; k++)
        r->alone[k] = (float)(1 + gain * fmin(sums[2 * k] / fmax(sums[2 * k + 1], (double)r->epsilon), most));
    return CB_OK;
}

void ram_apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct ram *r = job->state;
    for (int64_t i = 0; i < t->n; i++) {
        const int n = changed(job, t, i, r->epsilon);
        out[i] = 0;
        for (int k = 0; k < job->n_models && n; k++)
            if (fabsf(t->x[k][i]) > r->epsilon) out[i] += n == 1 ? r->alone[k] * t->x[k][i] : t->x[k][i] / (float)n;
    }
}
