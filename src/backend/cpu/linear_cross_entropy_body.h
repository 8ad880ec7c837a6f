/* Linear cross-entropy, forward and backward, over chunks of the rows that have a label; written once, compiled for each instruction set
   (k_linear_cross_entropy*.c). Chunks and tiles depend on shapes and labels alone, and sums are added in a fixed order: results are bit-equal for
   any number of threads. */
#include <math.h>
#include <string.h>

#include "backend/cpu/gemm.h"
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

enum { X, WEIGHT, LABELS, BIAS, DLOSS = 3, BACK_BIAS = 4, DWEIGHT_ACC = 5 };
enum {
    IGNORED = -100,
    CHUNK_FLOATS = 18 << 20,  // logits held at once: 72 MiB; twice that beside a frozen weight, which holds no gradient
    CHUNK_MIN = 64,
    CHUNK_MAX = 1024,
    ROW_MULTIPLE = 12,  // of a chunk, where it has the choice
    SUM_COLUMNS = 4096,  // of a task that sums dlogits over rows
};

/* One node at work. */
struct head {
    int64_t n, c, v, chunk;
    bool in_out, frozen;
    const struct op_run *run;
    const int32_t *labels;
    int64_t n_labelled;
    int64_t *row;  // (N): where the labelled rows lie in x, ascending
    float *packed;  // forward, (chunk, C): a place for rows of x, where some have no label
    float *logits;  // (chunk, V)
    double *loss;  // (N): of each labelled row
    char *work;  // of the multiplications
    int64_t begin, rows;  // of this chunk, among the labelled rows
    const float *x;  // its rows (rows, C)
    float scale;  // of dlogits
    float softcap;  // 0: none
    float *dbias;
};

/* Rows of a chunk where n rows are cut into chunks of nearly the same size, none above `most`. */
static int64_t even_chunk(int64_t n, int64_t most) {
    const int64_t rows = tile_count(n, tile_max(1, tile_count(n, most)));
    return tile_count(rows, ROW_MULTIPLE) * ROW_MULTIPLE;
}

static struct head head_of(const struct node *node, bool in_out, bool frozen) {
    struct head h = {.n = node->in[X]->type.dim[0], .c = node->in[X]->type.dim[1], .v = node->in[WEIGHT]->type.dim[in_out ? 1 : 0]};
    h.in_out = in_out;
    h.frozen = frozen;
    const int64_t most = tile_min(CHUNK_MAX, tile_max(CHUNK_MIN, CHUNK_FLOATS * (frozen ? 2 : 1) / tile_max(1, h.v)));
    h.chunk = tile_min(even_chunk(h.n, most), h.n);
    return h;
}

static const struct gemm_isa *isa(void) { return gemm_isa_for(SIMD_CPU); }

/* The three products of a chunk of `rows` rows. */
static struct gemm logits_gemm(const struct head *h, const struct node *node, int64_t rows) {
    return (struct gemm){.m = rows,
                         .n = h->v,
                         .k = h->c,
                         .a_row = h->c,
                         .a_col = 1,
                         .b_row = h->in_out ? h->v : 1,
                         .b_col = h->in_out ? 1 : h->c,
                         .b_dtype = node->in[WEIGHT]->type.dtype,
                         .c = h->logits,
                         .c_row = h->v,
                         .isa = isa()};
}
static struct gemm dx_gemm(const struct head *h, const struct node *node, int64_t rows) {
    return (struct gemm){.m = rows,
                         .n = h->c,
                         .k = h->v,
                         .a = h->logits,
                         .a_row = h->v,
                         .a_col = 1,
                         .b_row = h->in_out ? 1 : h->c,
                         .b_col = h->in_out ? h->v : 1,
                         .b_dtype = node->in[WEIGHT]->type.dtype,
                         .c_row = h->c,
                         .isa = isa()};
}
/* in_out: dW (C,V) += x^T dlogits; else dW (V,C) += dlogits^T x. */
static struct gemm dweight_gemm(const struct head *h, int64_t rows) {
    struct gemm g = {.m = h->in_out ? h->c : h->v,
                     .n = h->in_out ? h->v : h->c,
                     .k = rows,
                     .a_row = 1,
                     .a_col = h->in_out ? h->c : h->v,
                     .b_row = h->in_out ? h->v : h->c,
                     .b_col = 1,
                     .b_dtype = CB_DTYPE_F32,
                     .accumulate = true,
                     .isa = isa()};
    g.c_row = g.n;
    return g;
}

static size_t round_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Most that the products need for any chunk: labels decide how many rows it has. */
static size_t gemm_bytes(const struct head *h, const struct node *node, bool backward, int n_threads) {
    size_t most = 0;
    for (int64_t rows = 1; rows <= h->chunk; rows++) {
        const struct gemm g[] = {logits_gemm(h, node, rows), dx_gemm(h, node, rows), dweight_gemm(h, rows)};
        for (int j = 0; j < (!backward ? 1 : h->frozen ? 2 : 3); j++) {
            const size_t bytes = gemm_workspace(&g[j], n_threads);
            if (bytes > most) most = bytes;
        }
    }
    return most;
}

static size_t head_bytes(const struct head *h, const struct node *node, bool backward, int n_threads) {
    return round_line((size_t)(h->chunk * h->v) * sizeof(float)) + round_line((size_t)h->n * sizeof(double)) +
           round_line((size_t)h->n * sizeof(int64_t)) + (backward ? 0 : round_line((size_t)(h->chunk * h->c) * sizeof(float))) +
           gemm_bytes(h, node, backward, n_threads);
}

static void head_bind(struct head *h, const struct op_run *run, bool backward) {
    h->run = run;
    h->labels = run->in[LABELS];
    h->logits = run->work;
    h->loss = (double *)((char *)run->work + round_line((size_t)(h->chunk * h->v) * sizeof(float)));
    h->row = (int64_t *)((char *)h->loss + round_line((size_t)h->n * sizeof(double)));
    h->work = (char *)h->row + round_line((size_t)h->n * sizeof(int64_t));
    if (!backward) {
        h->packed = (float *)h->work;
        h->work += round_line((size_t)(h->chunk * h->c) * sizeof(float));
    }
    for (int64_t i = 0; i < h->n; i++)
        if (h->labels[i] != IGNORED) h->row[h->n_labelled++] = i;
    h->chunk = tile_min(h->chunk, even_chunk(h->n_labelled, tile_max(1, h->chunk)));
}

/* The rows of x of this chunk, which lie together where all have a label. */
static const float *chunk_x(const struct head *h, float *packed) {
    const float *x = h->run->in[X];
    if (h->n_labelled == h->n) return x + h->begin * h->c;
    for (int64_t i = 0; i < h->rows; i++) memcpy(packed + i * h->c, x + h->row[h->begin + i] * h->c, (size_t)h->c * sizeof *x);
    return packed;
}

/* dx of the labelled rows, which lie first, to where x has them; zeros between. From the end: no row moves to a lower place. */
static void spread_rows(const struct head *h, float *dx) {
    const size_t bytes = (size_t)h->c * sizeof *dx;
    int64_t left = h->n_labelled;
    for (int64_t i = h->n - 1; i >= left; i--) {
        if (left > 0 && h->row[left - 1] == i)
            memcpy(dx + i * h->c, dx + --left * h->c, bytes);
        else
            memset(dx + i * h->c, 0, bytes);
    }
}

/* sum of e^(p - max); put: p becomes e^(p - max). */
SIMD_INLINE float row_exp(float *p, int64_t n, float max, const bool put) {
    vf sum[2] = {vf_zero(), vf_zero()};
    const vf top = vf_set(max);
    int64_t i = 0;
    for (; i + 2 * SIMD_LANES <= n; i += 2 * SIMD_LANES) {
        SIMD_UNROLL
        for (int k = 0; k < 2; k++) {
            const vf e = vf_exp(vf_load(p + i + k * SIMD_LANES) - top);
            if (put) vf_store(p + i + k * SIMD_LANES, e);
            sum[k] += e;
        }
    }
    for (; i < n; i += SIMD_LANES) {
        const int left = (int)tile_min(SIMD_LANES, n - i);
        vf e = vf_exp(vf_load_n(p + i, left) - top);
        float part[SIMD_LANES] = {0};
        if (put) vf_store_n(p + i, e, left);
        vf_store_n(part, e, left);
        sum[0] += vf_load(part);
    }
    return vf_sum(sum[0] + sum[1]);
}

/* Logits of a row become softcap tanh(logit / softcap). */
static void cap_row(float *p, int64_t n, float softcap) {
    const vf cap = vf_set(softcap), by = vf_set(1 / softcap);
    int64_t v = 0;
    for (; v + SIMD_LANES <= n; v += SIMD_LANES) vf_store(p + v, cap * vf_tanh(vf_load(p + v) * by));
    if (v < n) vf_store_n(p + v, cap * vf_tanh(vf_load_n(p + v, (int)(n - v)) * by), (int)(n - v));
}

/* Times the soft cap's slope 1 - (logit / softcap)^2, where p is e^(logit - max) still; what has become 0 stays it. */
SIMD_INLINE vf cap_slope(vf p, float max, float softcap) {
    const vf t = (vf_log(vf_max(p, vf_set(1e-37f))) + vf_set(max)) * vf_set(1 / softcap);
    return vf_max(vf_set(1.0f) - t * t, vf_zero());
}

/* Loss of one row; backward: its logits become dlogits. A label outside [0, V) gives NaN. */
SIMD_INLINE void head_row(const struct head *h, int64_t i, const bool backward) {
    float *p = h->logits + i * h->v;
    const int32_t label = h->labels[h->row[h->begin + i]];
    if (h->softcap > 0) cap_row(p, h->v, h->softcap);
    const float max = row_max(p, h->v);
    const bool known = label >= 0 && label < h->v;
    const float at_label = known ? p[label] : NAN;
    const float sum = row_exp(p, h->v, max, backward);
    h->loss[h->begin + i] = log((double)sum) + (double)max - (double)at_label;
    if (!backward) return;
    const vf factor = vf_set(h->scale / sum);
    const float share = known ? p[label] * (h->scale / sum) : 0, t = h->softcap > 0 ? at_label / h->softcap : 0;
    int64_t v = 0;
    if (h->softcap > 0) {
        for (; v + SIMD_LANES <= h->v; v += SIMD_LANES) {
            const vf e = vf_load(p + v);
            vf_store(p + v, e * factor * cap_slope(e, max, h->softcap));
        }
        const int left = (int)(h->v - v);
        if (left) vf_store_n(p + v, vf_load_n(p + v, left) * factor * cap_slope(vf_load_n(p + v, left), max, h->softcap), left);
        if (known) p[label] = (share - h->scale) * (1 - t * t);
        return;
    }
    for (; v + SIMD_LANES <= h->v; v += SIMD_LANES) vf_store(p + v, vf_load(p + v) * factor);
    if (v < h->v) vf_store_n(p + v, vf_load_n(p + v, (int)(h->v - v)) * factor, (int)(h->v - v));
    if (known) p[label] -= h->scale;
}

static void forward_tile(void *context, int64_t i, int thread) {
    (void)thread;
    head_row(context, i, false);
}
static void backward_tile(void *context, int64_t i, int thread) {
    (void)thread;
    head_row(context, i, true);
}

/* dbias += sum over rows of dlogits, for some columns. */
static void dbias_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct head *h = context;
    const int64_t begin = i * SUM_COLUMNS, end = tile_min(h->v, begin + SUM_COLUMNS);
    for (int64_t r = 0; r < h->rows; r++) {
        const float *p = h->logits + r * h->v;
        for (int64_t v = begin; v < end; v++) h->dbias[v] += p[v];
    }
}

/* Logits of the next chunk, losses of its rows, and dlogits in the logits' place. */
static void chunk_logits(struct head *h, const void *bias, void (*tile)(void *context, int64_t i, int thread)) {
    const struct op_run *run = h->run;
    struct gemm g = logits_gemm(h, run->node, h->rows);
    g.a = h->x;
    g.b = run->in[WEIGHT];
    g.bias = bias;
    gemm_run(&g, h->work, run->pool);
    tile_run(run->pool, h->rows * h->v * 4, h->rows, tile, h);
}

static double total_loss(const struct head *h) {
    double loss = 0;
    for (int64_t i = 0; i < h->n_labelled; i++) loss += h->loss[i];
    return loss;
}

static bool accepts_types(const struct node *node, bool in_out, int bias, bool frozen) {
    const struct dtype *weight = dtype_of(node->in[WEIGHT]->type.dtype);
    if (node->in[X]->type.dtype != CB_DTYPE_F32 || !gemm_dtype_ok(node->in[WEIGHT]->type.dtype)) return false;
    // Blocks lie along C: fit for logits, not for dx, whose inner size is V.
    if (weight->is_quantised && (in_out || bias == BACK_BIAS)) return false;
    if (bias == BACK_BIAS && !frozen && node->in[WEIGHT]->type.dtype != CB_DTYPE_F32) return false;
    return node->in[LABELS]->type.dtype == CB_DTYPE_I32;
}

static bool forward_accepts(const struct node *node) {
    return accepts_types(node, ((const struct attr_linear_cross_entropy *)node->attrs)->weight_is_in_out, BIAS, true);
}
static bool backward_accepts(const struct node *node) {
    const struct attr_linear_cross_entropy_grad *attrs = node->attrs;
    return accepts_types(node, attrs->weight_is_in_out, BACK_BIAS, attrs->no_dweight);
}

static size_t forward_workspace(const struct node *node, int n_threads) {
    const struct head h = head_of(node, ((const struct attr_linear_cross_entropy *)node->attrs)->weight_is_in_out, true);
    return head_bytes(&h, node, false, n_threads);
}
static size_t backward_workspace(const struct node *node, int n_threads) {
    const struct attr_linear_cross_entropy_grad *attrs = node->attrs;
    const struct head h = head_of(node, attrs->weight_is_in_out, attrs->no_dweight);
    return head_bytes(&h, node, true, n_threads);
}

/* Begins with the chunk at `begin`; false behind the last one. */
static bool next_chunk(struct head *h, int64_t begin) {
    h->begin = begin;
    h->rows = tile_min(h->chunk, h->n_labelled - begin);
    return h->rows > 0;
}

static void forward_run(const struct op_run *run) {
    const struct attr_linear_cross_entropy *attrs = run->node->attrs;
    struct head h = head_of(run->node, attrs->weight_is_in_out, true);
    head_bind(&h, run, false);
    h.softcap = (float)attrs->softcap;
    for (bool more = next_chunk(&h, 0); more; more = next_chunk(&h, h.begin + h.chunk)) {
        h.x = chunk_x(&h, h.packed);
        chunk_logits(&h, run->node->n_in > BIAS ? run->in[BIAS] : NULL, forward_tile);
    }
    const double loss = total_loss(&h), count = (double)h.n_labelled;
    *(float *)run->out[0] = (float)(attrs->reduction ? loss : loss / count);
    *(float *)run->out[1] = (float)count;
}

/* dW += x^T dlogits of a chunk, or its transpose. */
static void chunk_dweight(const struct head *h, float *dw, bool accumulate) {
    struct gemm g = dweight_gemm(h, h->rows);
    g.a = h->in_out ? h->x : h->logits;
    g.b = h->in_out ? h->logits : h->x;
    g.c = dw;
    g.accumulate = accumulate;
    gemm_run(&g, h->work, h->run->pool);
}

static void backward_run(const struct op_run *run) {
    const struct attr_linear_cross_entropy_grad *attrs = run->node->attrs;
    float *dx = run->out[1];
    struct head h = head_of(run->node, attrs->weight_is_in_out, attrs->no_dweight);
    head_bind(&h, run, true);
    h.softcap = (float)attrs->softcap;
    const double share = attrs->reduction ? 1 : (double)h.n_labelled;
    const bool adds = run->node->n_in > DWEIGHT_ACC && run->in[DWEIGHT_ACC];
    const void *bias = run->node->n_in > BACK_BIAS ? run->in[BACK_BIAS] : NULL;
    const size_t weight_bytes = (size_t)(h.c * h.v) * sizeof(float);
    h.scale = (float)(*(const float *)run->in[DLOSS] / share);
    if (bias) memset(h.dbias = run->out[3], 0, (size_t)h.v * sizeof(float));
    if (!h.frozen && adds && run->in[DWEIGHT_ACC] != run->out[2]) memcpy(run->out[2], run->in[DWEIGHT_ACC], weight_bytes);
    if (!h.frozen && !adds && h.n_labelled == 0) memset(run->out[2], 0, weight_bytes);
    for (bool more = next_chunk(&h, 0); more; more = next_chunk(&h, h.begin + h.chunk)) {
        h.x = chunk_x(&h, dx + h.begin * h.c);
        chunk_logits(&h, bias, backward_tile);
        if (bias) tile_run(run->pool, h.rows * h.v, tile_count(h.v, SUM_COLUMNS), dbias_tile, &h);
        if (!h.frozen) chunk_dweight(&h, run->out[2], adds || h.begin > 0);
        struct gemm g = dx_gemm(&h, run->node, h.rows);  // over the rows of x that were put there
        g.b = run->in[WEIGHT];
        g.c = dx + h.begin * h.c;
        gemm_run(&g, h.work, run->pool);
    }
    spread_rows(&h, dx);
    const double loss = total_loss(&h);
    *(float *)run->out[0] = (float)(loss / share);
}

#define HEAD_KERNELS(name)                                                                                                  \
    {"linear_cross_entropy", name, SIMD_CPU, SIMD_PRIORITY, forward_accepts, forward_workspace, forward_run},               \
        {"linear_cross_entropy_grad", name, SIMD_CPU, SIMD_PRIORITY, backward_accepts, backward_workspace, backward_run}, { \
        0                                                                                                                   \
    }
