/* The task-arithmetic family: theta0 + lambda sum_k w_k keep(tau_k), with election of signs (TIES, Yadav et al. 2023) and rescaling (DARE, Yu et al.
   2024; DELLA, Deep et al. 2024; model breadcrumbs, Davari and Belilovsky 2024); conventions of mergekit and of PEFT, as the descriptor's flags say. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpuid.h"
#include "base/rng.h"
#include "merge/merge.h"

const char *const merge_rescale_words[] = {"false", "true", "density", "l1", NULL};

struct member {
    double weight, density, gamma, epsilon;
    float rescale;
    struct merge_cut low, high;  // keys from low on and below high are kept
    const unsigned char *mask;  // drawn elsewhere; NULL: here
    uint64_t stream;  // of our own draws
    bool kept_whole;
};

struct family {
    struct member member[MERGE_MAX_MODELS];
    bool normalize;
    double lambda;
    int which;  // member whose keys are asked for
    enum merge_sign sign;
};

/* ---- what is kept */

CPU_CLONES static void magnitude(float *key, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) key[i] = fabsf(x[i]);
}

static void magnitude_key(const struct merge_job *job, const struct merge_tile *t, void *context, float *key) {
    const struct family *f = context;
    (void)job;
    magnitude(key, t->x[f->which], t->n);
}

static void keep_between(const struct member *m, const struct merge_tile *t, float *x) {
    for (int64_t i = 0; i < t->n; i++) {
        const float key = fabsf(x[i]);
        if (!merge_above(&m->low, key, t->first + i) || merge_above(&m->high, key, t->first + i)) x[i] = 0;
    }
}

/* Uniform numbers of elements [first, first + n): each depends on seed, tensor, model and its place alone. */
static bool draw(const struct merge_job *job, const struct member *m, int64_t i, float keep) {
    if (m->mask) return m->mask[i];
    const struct rng_block block = rng_philox(job->seed, (uint64_t)i / 4, m->stream);
    return rng_uniform(block.word[i % 4]) < keep;
}

static void keep_random(const struct merge_job *job, const struct member *m, const struct merge_tile *t, float *x) {
    struct rng_block block = {{0}};
    const float keep = (float)m->density;
    for (int64_t i = 0; i < t->n; i++) {
        const int64_t at = t->first + i;
        // four numbers a block: the same as draw's
        if (!m->mask && (i == 0 || at % 4 == 0)) block = rng_philox(job->seed, (uint64_t)at / 4, m->stream);
        if (!(m->mask ? m->mask[at] : rng_uniform(block.word[at % 4]) < keep)) x[i] = 0;
    }
}

struct ranked {
    uint32_t key;  // bits of |tau|, which order as the numbers do
    int32_t index;
};

/* Ascending by key, equal ones by index: 11 bits a pass, from the lowest. Returns the one of the two buffers that holds the result. */
static struct ranked *order_row(struct ranked *from, struct ranked *to, int64_t n) {
    for (int shift = 0; shift < 33; shift += 11) {
        int32_t begin[2048] = {0};
        for (int64_t i = 0; i < n; i++) begin[from[i].key >> shift & 2047]++;
        for (int32_t b = 0, at = 0; b < 2048; b++) {
            const int32_t count = begin[b];
            begin[b] = at;
            at += count;
        }
        for (int64_t i = 0; i < n; i++) to[begin[from[i].key >> shift & 2047]++] = from[i];
        struct ranked *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* Each row by itself: the larger, the likelier to stay. The tile's spare buffers hold the row's order. */
static void keep_ranked(const struct merge_job *job, const struct member *m, const struct merge_tile *t, float *x) {
    struct ranked *buffer = (struct ranked *)(void *)t->spare;
    for (int64_t at = 0; at < t->n; at += job->cols) {
        for (int64_t j = 0; j < job->cols; j++) {
            const float key = fabsf(x[at + j]);
            memcpy(&buffer[j].key, &key, sizeof key);
            buffer[j].index = (int32_t)j;
        }
        const struct ranked *order = order_row(buffer, buffer + job->cols, job->cols);
        for (int64_t rank = 0; rank < job->cols; rank++) {
            const double share = job->cols > 1 ? (double)rank / (double)(job->cols - 1) : 0.5;
            const int64_t i = at + order[rank].index;
            if (!draw(job, m, t->first + i, (float)(m->density - m->epsilon + 2 * m->epsilon * share))) x[i] = 0;
        }
    }
}

static void keep(const struct merge_job *job, const struct member *m, const struct merge_tile *t, float *x) {
    const struct merge_family *kind = job->method->kind;
    if (m->kept_whole) return;
    if (kind->keep == MERGE_KEEP_RANDOM)
        keep_random(job, m, t, x);
    else if (kind->keep == MERGE_KEEP_RANKED)
        keep_ranked(job, m, t, x);
    else
        keep_between(m, t, x);
}

/* Sums of |tau| before and after, for each model. */
static void norms_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    const struct family *f = context;
    for (int k = 0; k < job->n_models; k++) {
        double before = 0, after = 0;
        for (int64_t i = 0; i < t->n; i++) before += fabs((double)t->x[k][i]);
        keep(job, &f->member[k], t, t->x[k]);
        for (int64_t i = 0; i < t->n; i++) after += fabs((double)t->x[k][i]);
        sums[2 * k] = before;
        sums[2 * k + 1] = after;
    }
}

/* ---- preparation */

/* floor(density n) largest, at least one where density is not 0; of breadcrumbs: less the floor(gamma n) largest of all, as far as there are others. */
static enum cb_status find_cuts(struct merge_job *job, struct family *f, struct member *m, struct cb_err *err) {
    const struct merge_family *kind = job->method->kind;
    int64_t n = job->n, kept = (int64_t)(m->density * (double)n), top = 0;
    if (kind->keep == MERGE_KEEP_LARGEST && !kind->may_keep_none && m->density > 0 && kept < 1) kept = 1;
    if (kind->keep == MERGE_KEEP_MIDDLE) top = (int64_t)(m->gamma * (double)n);
    int64_t low = n - kept - top;
    if (low < 0) low = 0;
    TRY(merge_select(job, magnitude_key, f, low, &m->low, err));
    return merge_select(job, magnitude_key, f, low + kept, &m->high, err);
}

static enum cb_status member_make(struct merge_job *job, struct family *f, int k, struct cb_err *err) {
    const struct merge_family *kind = job->method->kind;
    struct member *m = &f->member[k];
    m->weight = merge_value(job, k, "weight", 1);
    m->density = merge_value(job, k, "density", 1);
    m->gamma = merge_value(job, k, "gamma", 0);
    m->epsilon = merge_value(job, k, "epsilon", 0);
    m->rescale = 1;
    m->kept_whole = kind->keep == MERGE_KEEP_ALL || m->density >= 1;
    if (m->kept_whole) return CB_OK;
    f->which = k;
    if (kind->keep == MERGE_KEEP_RANKED && !(m->density - m->epsilon > 0 && m->density + m->epsilon < 1))
        FAIL(err, CB_E_USAGE, "%s: %s: found density %g and epsilon %g; wanted density - epsilon above 0 and density + epsilon below 1",
             job->model[k].model, job->method->name, m->density, m->epsilon);
    if (!job->method->random) return find_cuts(job, f, m, err);
    // masks of one tensor for several models: streams that differ in their number
    m->stream = rng_hash(job->name) + 0x9e3779b97f4a7c15u * (uint64_t)(k + 1);
    if (job->masks && !(m->mask = job->masks->find(job->masks->context, job->model[k].model, job->name, job->n)))
        FAIL(err, CB_E_NAME, "%s: %s: no mask of %lld elements; wanted one", job->model[k].model, job->name, (long long)job->n);
    return CB_OK;
}

enum cb_status merge_family_prepare(struct merge_job *job, struct cb_err *err) {
    const struct merge_family *kind = job->method->kind;
    struct family *f = job->state = arena_alloc(job->arena, sizeof *f);
    double sums[2 * MERGE_MAX_MODELS];
    if (!f) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    f->normalize = merge_value(job, -1, "normalize", 0) != 0;
    f->lambda = merge_value(job, -1, "lambda", 1);
    f->sign = kind->sign;
    if (merge_value(job, -1, "majority_sign_method", 0) != 0) f->sign = MERGE_SIGN_COUNT;
    for (int k = 0; k < job->n_models; k++) TRY(member_make(job, f, k, err));
    if (kind->keep == MERGE_KEEP_RANKED) {
        if (job->cols > INT32_MAX) FAIL(err, CB_E_LIMIT, "%s: rows of %lld; wanted less", job->name, (long long)job->cols);
        job->by_row = true;
        job->n_spare = 4;  // two rows of struct ranked
    }
    // "true" is the L1 norm, as mergekit means it
    const enum merge_rescale rescale = (enum merge_rescale)(int)merge_value(job, -1, "rescale", 0);
    if (kind->keep == MERGE_KEEP_ALL || rescale == MERGE_RESCALE_NONE) return CB_OK;
    if (rescale != MERGE_RESCALE_DENSITY) TRY(merge_pass(job, norms_tile, f, 2 * job->n_models, sums, err));
    for (int k = 0; k < job->n_models; k++) {
        struct member *m = &f->member[k];
        if (rescale == MERGE_RESCALE_DENSITY)
            m->rescale = m->density > 0 && !m->kept_whole ? (float)(1 / m->density) : 1;
        else if (sums[2 * k] > 0 && sums[2 * k + 1] > 0)
            m->rescale = (float)(sums[2 * k] / sums[2 * k + 1]);
    }
    return CB_OK;
}

/* ---- the merge */

CPU_CLONES static void scale(float *x, float factor, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

CPU_CLONES static void add_weighted(float *out, const float *x, float weight, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] += weight * x[i];
}

/* How much each element pulls upward, before signs are elected. */
static void vote(const struct family *f, int n_models, const struct merge_tile *t, float *votes) {
    memset(votes, 0, (size_t)t->n * sizeof *votes);
    for (int k = 0; k < n_models; k++) {
        const float *x = t->x[k], w = f->sign == MERGE_SIGN_WEIGHTED ? (float)f->member[k].weight : 1;
        if (f->sign == MERGE_SIGN_COUNT)
            for (int64_t i = 0; i < t->n; i++) votes[i] += (float)((x[i] > 0) - (x[i] < 0));
        else
            add_weighted(votes, x, w, t->n);
    }
}

/* The mean of those that agree with the elected sign (0 counts as plus), or their sum. */
static void apply_signs(const struct merge_job *job, const struct family *f, const struct merge_tile *t, float *out) {
    const struct merge_family *kind = job->method->kind;
    enum { STEP = 256 };
    float votes[STEP], divisor[STEP];
    for (int64_t at = 0; at < t->n; at += STEP) {
        float *x[MERGE_MAX_MODELS];
        struct merge_tile part = *t;
        part.n = t->n - at < STEP ? t->n - at : STEP;
        part.x = x;
        for (int k = 0; k < job->n_models; k++) x[k] = t->x[k] + at;
        vote(f, job->n_models, &part, votes);
        memset(divisor, 0, sizeof divisor);
        memset(out + at, 0, (size_t)part.n * sizeof *out);
        for (int k = 0; k < job->n_models; k++) {
            const float w = (float)f->member[k].weight, step = kind->divide_by_count ? 1 : w;
            for (int64_t i = 0; i < part.n; i++) {
                // by weights: the sign of the weighted value, else of the value itself
                const float v = f->sign == MERGE_SIGN_WEIGHTED ? w * x[k][i] : x[k][i];
                const bool agrees = votes[i] >= 0 ? v > 0 : v < 0;
                out[at + i] += agrees ? w * x[k][i] : 0;
                divisor[i] += agrees ? step : 0;
            }
        }
        for (int64_t i = 0; f->normalize && i < part.n; i++) out[at + i] /= divisor[i] != 0 ? divisor[i] : 1;
    }
}

static void apply_sum(const struct merge_job *job, const struct family *f, const struct merge_tile *t, float *out) {
    double sum = 0;
    memset(out, 0, (size_t)t->n * sizeof *out);
    for (int k = 0; k < job->n_models; k++) {
        add_weighted(out, t->x[k], (float)f->member[k].weight, t->n);
        sum += f->member[k].weight;
    }
    if (f->normalize && fabs(sum) >= 1e-8) scale(out, (float)(1 / sum), t->n);
}

void merge_family_apply(const struct merge_job *job, const struct merge_tile *t, float *out) {
    const struct family *f = job->state;
    for (int k = 0; k < job->n_models; k++) {
        keep(job, &f->member[k], t, t->x[k]);
        if (f->member[k].rescale != 1) scale(t->x[k], f->member[k].rescale, t->n);
    }
    if (f->sign == MERGE_SIGN_NONE)
        apply_sum(job, f, t, out);
    else
        apply_signs(job, f, t, out);
    if (f->lambda != 1) scale(out, (float)f->lambda, t->n);
}
