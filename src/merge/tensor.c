/* One tensor's merge: its values in tiles over the pool, passes with ordered sums, and the result in pieces. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpuid.h"
#include "merge/merge.h"

/* Elements of a tile, and of what is computed at once for the reader of the result. */
enum { TILE = 16384, BAND = 1 << 20, MAX_SUMS = 2 * MERGE_MAX_MODELS * MERGE_MAX_MODELS };

struct merge_work {
    float *buffers;  // of all threads
    int64_t tile, n_tiles, per_thread;
    int n_buffers;  // a thread: models, statistics, base, spare
    float *band;  // the piece of the result that was computed last
    int64_t band_first, band_n, band_room;
    int64_t *partial;  // two counts a tile of the band: conflicts, shared
    atomic_int bad;  // 1 + the input with a value that is not finite: models, statistics, base
};

/* ---- reading */

/* n values from the first on, as they lie; blocks are read from their beginnings. */
static void read_range(const struct merge_input *in, int64_t first, int64_t n, float *out) {
    const struct dtype *d = dtype_of(in->dtype);
    const char *data = in->data;
    float block[256];  // the longest there are
    while (first % d->block && n > 0) {
        const int64_t at = first % d->block, some = d->block - at < n ? d->block - at : n;
        d->to_f32(block, data + first / d->block * d->block_bytes, d->block);
        memcpy(out, block + at, (size_t)some * sizeof *out);
        first += some, out += some, n -= some;
    }
    const int64_t whole = n / d->block * d->block;
    if (whole > 0) d->to_f32(out, data + first / d->block * d->block_bytes, whole);
    if (whole >= n) return;
    d->to_f32(block, data + (first + whole) / d->block * d->block_bytes, d->block);
    memcpy(out + whole, block, (size_t)(n - whole) * sizeof *out);
}

/* Columns of one row through a map of columns. */
static void gather(const struct merge_input *in, int64_t cols, int64_t row, int64_t first, int64_t n, float *out) {
    const struct dtype *d = dtype_of(in->dtype);
    const char *from = (const char *)in->data + row * cols / d->block * d->block_bytes;
    if (!in->cols) {
        read_range(in, row * cols + first, n, out);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const int64_t c = in->cols[first + i];
        if (c < 0)
            in->absent->read(in->absent, first + i, 0, 1, out + i);
        else
            d->to_f32(out + i, from + c * d->block_bytes, 1);
    }
}

void merge_input_read(const struct merge_input *in, int64_t cols, int64_t first, int64_t n, float *out) {
    if (!in->rows && !in->cols) {
        read_range(in, first, n, out);
        return;
    }
    while (n > 0) {
        int64_t row = first / cols, at = first % cols, some = cols - at < n ? cols - at : n;
        if (in->rows && in->rows[row] < 0)
            in->absent->read(in->absent, row, at, some, out);
        else
            gather(in, cols, in->rows ? in->rows[row] : row, at, some, out);
        first += some;
        out += some;
        n -= some;
    }
}

/* Whether all are finite: 0 times anything else is not a number. */
CPU_CLONES static bool all_finite(const float *x, int64_t n) {
    float lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] += x[i + k] * 0.0f;
    for (; i < n; i++) lane[0] += x[i] * 0.0f;
    for (int k = 0; k < 16; k++)
        if (lane[k] != 0) return false;
    return true;
}

CPU_CLONES static void subtract(float *x, const float *base, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] -= base[i];
}

CPU_CLONES static void add(float *x, const float *base, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] += base[i];
}

/* A tile's buffers and the pointers to them. */
struct frame {
    float *x[MERGE_MAX_MODELS], *statistic[MERGE_MAX_MODELS];
    struct merge_tile tile;
};

static void load_input(const struct merge_job *job, const struct merge_input *in, int number, int64_t first, int64_t n, float *out) {
    merge_input_read(in, job->cols, first, n, out);
    if (!all_finite(out, n)) atomic_store(&job->work->bad, number + 1);
}

static void load_tile(const struct merge_job *job, int64_t i, int thread, struct frame *f) {
    struct merge_work *w = job->work;
    float *at = w->buffers + thread * w->per_thread;
    struct merge_tile *t = &f->tile;
    *t = (struct merge_tile){.first = i * w->tile, .n = w->tile, .x = f->x, .room = w->tile};
    if (t->first + t->n > job->n) t->n = job->n - t->first;
    for (int k = 0; k < job->n_models; k++, at += w->tile) {
        f->x[k] = at;
        load_input(job, &job->model[k], k, t->first, t->n, at);
    }
    const bool has_statistic = job->statistic && job->method->statistic_in_tiles;
    if (has_statistic) t->statistic = f->statistic;
    for (int k = 0; has_statistic && k < job->n_models; k++, at += w->tile) {
        f->statistic[k] = at;
        load_input(job, &job->statistic[k], job->n_models + k, t->first, t->n, at);
    }
    if (job->base) {
        load_input(job, job->base, 2 * job->n_models, t->first, t->n, at);
        t->base = at;
        at += w->tile;
        for (int k = 0; k < job->n_models; k++) subtract(f->x[k], t->base, t->n);
    }
    t->spare = at;
}

static enum cb_status check_finite(const struct merge_job *job, struct cb_err *err) {
    int bad = atomic_load(&job->work->bad) - 1, n = job->n_models;
    if (bad < 0) return CB_OK;
    const struct merge_input *in = bad < n ? &job->model[bad] : bad < 2 * n ? &job->statistic[bad - n] : job->base;
    FAIL(err, CB_E_NUMERIC, "%s: %s: found a value that is not finite; wanted finite ones", in->model, job->name);
}

/* Gives pages that were read back to the system. */
static void forget(const struct merge_job *job, const struct merge_input *in, int64_t first, int64_t n) {
    const struct dtype *d = dtype_of(in->dtype);
    if (!in->map) return;
    const int64_t all = in->n ? in->n : job->n;
    if (in->rows || in->n) first = 0, n = all;  // rows lie anywhere
    if (n > all - first) n = all - first;
    map_forget(in->map, in->data, (size_t)(first / d->block * d->block_bytes), (size_t)(n / d->block * d->block_bytes));
}

static void forget_all(const struct merge_job *job, int64_t first, int64_t n) {
    for (int k = 0; k < job->n_models; k++) forget(job, &job->model[k], first, n);
    for (int k = 0; job->statistic && job->method->statistic_in_tiles && k < job->n_models; k++) forget(job, &job->statistic[k], first, n);
    if (job->base) forget(job, job->base, first, n);
}

void merge_forget(const struct merge_job *job) { forget_all(job, 0, job->n); }

/* ---- passes */

struct pass {
    struct merge_job *job;
    merge_pass_fn *fn;
    void *context;
    int n_sums;
    double *partial;
};

/* Tiles whose pages are given back together. */
enum { FORGET = 64 };

static void pass_tile(void *context, int64_t i, int thread) {
    struct pass *p = context;
    struct frame f;
    load_tile(p->job, i, thread, &f);
    p->fn(p->job, &f.tile, p->context, p->partial + i * p->n_sums);
    if (i % FORGET == FORGET - 1) forget_all(p->job, (i - FORGET + 1) * p->job->work->tile, FORGET * p->job->work->tile);
}

/* Tiles as the job wants them: a number of elements, or whole rows. */
static enum cb_status tiles_make(struct merge_job *job, struct cb_err *err) {
    struct merge_work *w = job->work;
    int64_t rows = job->cols ? TILE / job->cols : 1;
    w->tile = job->by_row ? job->cols * (rows > 1 ? rows : 1) : TILE;
    if (w->tile > job->n) w->tile = job->n > 0 ? job->n : 1;
    w->n_tiles = (job->n + w->tile - 1) / w->tile;
    w->n_buffers = job->n_models * (job->statistic && job->method->statistic_in_tiles ? 2 : 1) + (job->base != NULL) + job->n_spare;
    w->per_thread = (w->n_buffers * w->tile + 15) / 16 * 16;
    free(w->buffers);
    w->buffers = calloc((size_t)(w->per_thread * pool_threads(job->pool)), sizeof *w->buffers);
    if (!w->buffers) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    return CB_OK;
}

enum cb_status merge_pass(struct merge_job *job, merge_pass_fn *fn, void *context, int n_sums, double *sums, struct cb_err *err) {
    struct merge_work *w = job->work;
    TRY(tiles_make(job, err));
    struct pass p = {job, fn, context, n_sums, calloc((size_t)(w->n_tiles * n_sums) + 1, sizeof(double))};
    if (!p.partial) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    pool_run(job->pool, w->n_tiles, pass_tile, &p);
    for (int s = 0; s < n_sums; s++) sums[s] = 0;
    for (int64_t i = 0; i < w->n_tiles; i++)
        for (int s = 0; s < n_sums; s++) sums[s] += p.partial[i * n_sums + s];
    free(p.partial);
    return check_finite(job, err);
}

/* In f64 from products of f32 values: exact products, 16 running sums. */
CPU_CLONES static double dot(const float *a, const float *b, int64_t n) {
    double lane[16] = {0}, total = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] += (double)a[i + k] * (double)b[i + k];
    for (; i < n; i++) lane[0] += (double)a[i] * (double)b[i];
    for (int k = 0; k < 16; k++) total += lane[k];
    return total;
}

static void gram_tile(const struct merge_job *job, const struct merge_tile *t, void *context, double *sums) {
    (void)context;
    for (int i = 0; i < job->n_models; i++)
        for (int j = 0; j <= i; j++) *sums++ = dot(t->x[i], t->x[j], t->n);
}

enum cb_status merge_gram(struct merge_job *job, double *gram, struct cb_err *err) {
    const int n = job->n_models, pairs = n * (n + 1) / 2;
    double *sums = arena_array(job->arena, (size_t)pairs, sizeof *sums);
    if (!sums) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    TRY(merge_pass(job, gram_tile, NULL, pairs, sums, err));
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) gram[i * n + j] = gram[j * n + i] = *sums++;
    return CB_OK;
}

/* ---- the result */

enum cb_status merge_begin(struct merge_job *job, struct cb_err *err) {
    const struct merge_method *m = job->method;
    const struct cb_type *type = &job->type;
    job->n = type_elements(type);
    job->cols = type->rank ? type->dim[type->rank - 1] : 1;
    job->rows = job->cols ? job->n / job->cols : 0;
    if (job->n_models < m->min_models || job->n_models > m->max_models)
        FAIL(err, CB_E_USAGE, "%s: %s: found %d models%s; wanted %d to %d", job->name, m->name, job->n_models,
             job->base ? " beside the base" : "", m->min_models, m->max_models);
    job->arena = arena_create();
    job->work = calloc(1, sizeof *job->work);
    if (!job->arena || !job->work) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    atomic_init(&job->work->bad, 0);
    if (m->prepare && job->n) TRY(m->prepare(job, err));
    TRY(tiles_make(job, err));
    // a band is whole tiles
    struct merge_work *w = job->work;
    int64_t tiles = w->tile < BAND ? BAND / w->tile : 1;
    w->band_room = tiles * w->tile;
    w->band = malloc((size_t)w->band_room * sizeof *w->band);
    w->partial = calloc((size_t)tiles * 2, sizeof *w->partial);
    if (!w->band || !w->partial) FAIL(err, CB_E_MEMORY, "%s: no memory to merge it", job->name);
    return CB_OK;
}

/* Where values of both signs meet, and where several are not 0. */
CPU_CLONES static void count_conflicts(float *const *x, int n_models, int64_t n, int64_t *counts) {
    for (int64_t begin = 0; begin < n; begin += 256) {
        int plus[256] = {0}, minus[256] = {0};
        int64_t some = n - begin < 256 ? n - begin : 256;
        for (int k = 0; k < n_models; k++)
            for (int64_t i = 0; i < some; i++) {
                plus[i] += x[k][begin + i] > 0;
                minus[i] += x[k][begin + i] < 0;
            }
        for (int64_t i = 0; i < some; i++) {
            counts[0] += (plus[i] > 0) & (minus[i] > 0);
            counts[1] += plus[i] + minus[i] > 1;
        }
    }
}

static void band_tile(void *context, int64_t i, int thread) {
    struct merge_job *job = context;
    struct merge_work *w = job->work;
    struct frame f;
    load_tile(job, w->band_first / w->tile + i, thread, &f);
    float *out = w->band + i * w->tile;
    // before apply: it may overwrite its values
    w->partial[2 * i] = w->partial[2 * i + 1] = 0;
    if (job->n_models > 1) count_conflicts(f.x, job->n_models, f.tile.n, w->partial + 2 * i);
    job->method->apply(job, &f.tile, out);
    if (f.tile.base) add(out, f.tile.base, f.tile.n);
}

static enum cb_status band_make(struct merge_job *job, int64_t first, struct cb_err *err) {
    struct merge_work *w = job->work;
    w->band_first = first / w->band_room * w->band_room;
    w->band_n = job->n - w->band_first < w->band_room ? job->n - w->band_first : w->band_room;
    const int64_t tiles = (w->band_n + w->tile - 1) / w->tile;
    pool_run(job->pool, tiles, band_tile, job);
    for (int64_t i = 0; i < tiles; i++) {
        job->conflicts += w->partial[2 * i];
        job->shared_elements += w->partial[2 * i + 1];
    }
    forget_all(job, w->band_first, w->band_n);
    return check_finite(job, err);
}

enum cb_status merge_read(struct merge_job *job, int64_t first, int64_t n, float *out, struct cb_err *err) {
    struct merge_work *w = job->work;
    while (n > 0) {
        if (!w->band_n || first < w->band_first || first >= w->band_first + w->band_n) TRY(band_make(job, first, err));
        int64_t at = first - w->band_first, some = w->band_n - at < n ? w->band_n - at : n;
        memcpy(out, w->band + at, (size_t)some * sizeof *out);
        first += some;
        out += some;
        n -= some;
    }
    return CB_OK;
}

void merge_end(struct merge_job *job) {
    if (job->work) {
        merge_forget(job);
        free(job->work->buffers);
        free(job->work->band);
        free(job->work->partial);
        free(job->work);
    }
    job->work = NULL;
    arena_destroy(&job->arena);
}
