/* Products with matrices stored in ggml's blocks, written once over the vector words that each k_blocks_<isa>.c defines before it includes this.
   Few rows of A: the blocks stream past once and are read as they are, in registers; activations stay f32, so results are those of the dequantised
   matrix up to rounding. B that is not transposed (gradients): its rows become f32 a slab at a time.
   Words: vf (VL floats), vf_zero set1 load store add mul fma sum, vf_halved (two numbers, half a vector each), vf_half and vf_halves (one f16 and 16 of them); vi_u8 (VL bytes as integers); vf_i8 (VL signed bytes), vf_low and vf_high (halves of bytes),
   vf_six (a half and two bits of another byte). */
#include <string.h>

#include "backend/cpu/gemm.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

#define INLINE static inline __attribute__((always_inline))

enum { A, B, BIAS, ACC };
enum { FEW = 8, TILE_ROWS = 32, SLAB = 1 << 20 /* floats */, AHEAD = 2048 /* bytes */ };

/* Rows of A that meet a row of B, and sums of their values, 16 and 32 at a time, for what blocks subtract. Room for a run of sums past the end. */
struct rows {
    int64_t k;
    const float *x, *sums, *pairs;
};

/* ---- one row of B with n_x rows of A: out[i] is their product. Scales are turned into f32 for a run of blocks before their values are read. */
enum { RUN = 16, N_V = 32 / VL };

/* Keeps an array in memory: from there the load units spread a number over a vector, where the compiler would shuffle it out of a register. */
#define IN_MEMORY(array) __asm__("" : "+m"(array))

/* The halves at the head of a run of blocks; those past the end stay as they are. */
struct halves {
    uint16_t v[RUN];
};
struct scales {
    float v[RUN];
};
INLINE void read_halves(struct halves *h, const uint8_t *w, const int stride, int n) {
    if (n == RUN) {
        for (int b = 0; b < RUN; b++) memcpy(&h->v[b], w + b * stride, 2);
    } else {
        for (int b = 0; b < n; b++) memcpy(&h->v[b], w + b * stride, 2);
        for (int b = n; b < RUN; b++) h->v[b] = 0;
    }
    IN_MEMORY(*h);
}
INLINE void make_scales(struct scales *s, const struct halves *h) {
    vf_halves(s->v, h->v);
    IN_MEMORY(*s);
}
INLINE float half_at(const uint8_t *p) {
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return vf_half(bits);
}

/* acc[i] += scale * sum of q[v] * x. x: of the first value of these. */
INLINE void add_scaled(const int n_x, const int n_v, vf *acc, const vf *q, const vf scale, const struct rows *r, const float *x) {
    for (int i = 0; i < n_x; i++) {
        vf t = vf_mul(q[0], vf_load(x + i * r->k));
        for (int v = 1; v < n_v; v++) t = vf_fma(q[v], vf_load(x + i * r->k + v * VL), t);
        acc[i] = vf_fma(t, scale, acc[i]);
    }
}

/* One block of 32 by its type. */
typedef void block_levels(vf q[N_V], const uint8_t *w);
INLINE void levels_q8_0(vf q[N_V], const uint8_t *w) {
    for (int v = 0; v < N_V; v++) q[v] = vf_i8(w + 2 + v * VL);
}
INLINE void levels_q4_0(vf q[N_V], const uint8_t *w) {
    for (int v = 0; v < N_V / 2; v++) {
        vi bytes = vi_u8(w + 2 + v * VL);
        q[v] = vf_low(bytes);
        q[v + N_V / 2] = vf_high(bytes);
    }
}

/* Types of 32 values under a half; `less`: what each level is too large by. Two sums are kept, so that one need not wait for the other. */
INLINE void dot_simple(const int n_x, const int stride, block_levels *levels, const float less, const struct rows *r, const uint8_t *w,
                       float *out) {
    vf even[FEW], odd[FEW], offset[FEW], q[N_V];
    struct halves next;
    struct scales scale;
    for (int i = 0; i < n_x; i++) even[i] = odd[i] = offset[i] = vf_zero();
    // the scales of a run are read while the one before is multiplied: what has just been stored in pieces cannot be read whole at once
    read_halves(&next, w, stride, (int)tile_min(RUN, r->k / 32));
    for (int64_t p = 0; p < r->k; p += 32 * RUN) {
        const int n = (int)tile_min(RUN, (r->k - p) / 32);
        const float *x = r->x + p;
        make_scales(&scale, &next);
        if (p + 32 * RUN < r->k) read_halves(&next, w + RUN * stride, stride, (int)tile_min(RUN, (r->k - p) / 32 - RUN));
        for (int i = 0; less != 0 && i < n_x; i++)
            for (int v = 0; v < RUN / VL; v++)
                offset[i] = vf_fma(vf_load(scale.v + v * VL), vf_load(r->pairs + (i * r->k + p) / 32 + v * VL), offset[i]);
        for (int b = 0; b + 1 < n; b += 2, w += 2 * stride, x += 64) {
            __builtin_prefetch(w + AHEAD);
            levels(q, w);
            add_scaled(n_x, N_V, even, q, vf_set1(scale.v[b]), r, x);
            levels(q, w + stride);
            add_scaled(n_x, N_V, odd, q, vf_set1(scale.v[b + 1]), r, x + 32);
        }
        if (n % 2) {
            levels(q, w);
            add_scaled(n_x, N_V, even, q, vf_set1(scale.v[n - 1]), r, x);
            w += stride;
        }
    }
    for (int i = 0; i < n_x; i++) out[i] = vf_sum(vf_fma(vf_set1(-less), offset[i], vf_add(even[i], odd[i])));
}

INLINE void dot_q8_0(const int n_x, const struct rows *r, const uint8_t *w, float *out) { dot_simple(n_x, 34, levels_q8_0, 0, r, w, out); }
INLINE void dot_q4_0(const int n_x, const struct rows *r, const uint8_t *w, float *out) { dot_simple(n_x, 18, levels_q4_0, 8, r, w, out); }

/* Eight scales and then eight minimums of 6 bits in 12 bytes (quant_k.c), a byte each. */
INLINE void pairs_unpack(const uint8_t *packed, uint8_t out[16]) {
    uint32_t word[3], all[4];
    memcpy(word, packed, sizeof word);
    all[0] = word[0] & 0x3f3f3f3fu;
    all[1] = (word[2] & 0x0f0f0f0fu) | (word[0] >> 6 & 0x03030303u) << 4;
    all[2] = word[1] & 0x3f3f3f3fu;
    all[3] = (word[2] >> 4 & 0x0f0f0f0fu) | (word[1] >> 6 & 0x03030303u) << 4;
    memcpy(out, all, sizeof all);
}

/* Scales and minimums of one super-block as floats, of which the minimums are negative. */
INLINE void make_pairs(struct scales *s, const uint8_t *w) {
    struct {
        uint8_t v[16];
    } bytes;
    pairs_unpack(w + 4, bytes.v);
    for (int v = 0; v < 16 / VL; v++) {
        // VL 16: the halves of one vector have two factors
        const float d = half_at(w + (v * VL < 8 ? 0 : 2)), d_low = half_at(w + 2);
        const vf factor = VL > 8 ? vf_halved(d, -d_low) : vf_set1(v * VL < 8 ? d : -d);
        vf_store(s->v + v * VL, vf_mul(factor, vf_i8(bytes.v + v * VL)));
    }
    IN_MEMORY(*s);
}

INLINE void dot_q4_k(const int n_x, const struct rows *r, const uint8_t *w, float *out) {
    vf even[FEW], odd[FEW], q[2][N_V];
    float less[FEW][8] = {{0}};
    struct scales scale, next;
    for (int i = 0; i < n_x; i++) even[i] = odd[i] = vf_zero();
    make_pairs(&next, w);
    for (int64_t p = 0; p < r->k; p += 256, w += 144) {
        scale = next;
        IN_MEMORY(scale);
        if (p + 256 < r->k) make_pairs(&next, w + 144);
        for (int i = 0; i < n_x; i++)
            for (int j = 0; j < 8; j++) less[i][j] += scale.v[8 + j] * r->pairs[(i * r->k + p) / 32 + j];
        for (int j = 0; j < 4; j++) {
            __builtin_prefetch(w + AHEAD + 36 * j);
            for (int v = 0; v < N_V; v++) {
                vi bytes = vi_u8(w + 16 + 32 * j + v * VL);
                q[0][v] = vf_low(bytes);
                q[1][v] = vf_high(bytes);
            }
            add_scaled(n_x, N_V, even, q[0], vf_set1(scale.v[2 * j]), r, r->x + p + 64 * j);
            add_scaled(n_x, N_V, odd, q[1], vf_set1(scale.v[2 * j + 1]), r, r->x + p + 64 * j + 32);
        }
    }
    for (int i = 0; i < n_x; i++) {
        float all = 0;
        for (int j = 0; j < 8; j++) all += less[i][j];
        out[i] = vf_sum(vf_add(even[i], odd[i])) + all;
    }
}

/* Levels 0 to 63 less 32, a scale for 16 of them. */
INLINE void dot_q6_k(const int n_x, const struct rows *r, const uint8_t *w, float *out) {
    enum { N16 = 16 / VL };
    vf even[FEW], odd[FEW], offset[FEW], q[4][N16];
    for (int i = 0; i < n_x; i++) even[i] = odd[i] = offset[i] = vf_zero();
    for (int64_t p = 0; p < r->k; p += 256, w += 210) {
        float scale[16];
        const float d = half_at(w + 208);
        for (int v = 0; v < N16; v++) vf_store(scale + v * VL, vf_mul(vf_set1(d), vf_i8(w + 192 + v * VL)));
        IN_MEMORY(scale);
        for (int i = 0; i < n_x; i++)
            for (int v = 0; v < N16; v++)
                offset[i] = vf_fma(vf_load(scale + v * VL), vf_load(r->sums + (i * r->k + p) / 16 + v * VL), offset[i]);
        // 128 values: two stretches of 16 out of each of four rows of 32
        for (int half = 0; half < 2; half++)
            for (int part = 0; part < 2; part++) {
                const uint8_t *low = w + 64 * half + 16 * part, *high = w + 128 + 32 * half + 16 * part;
                const float *x = r->x + p + 128 * half + 16 * part, *s = scale + 8 * half + part;
                __builtin_prefetch(w + AHEAD + 52 * (2 * half + part));
                for (int v = 0; v < N16; v++) {
                    vi a = vi_u8(low + v * VL), b = vi_u8(low + 32 + v * VL), h = vi_u8(high + v * VL);
                    q[0][v] = vf_six(a, 0, h, 0);
                    q[1][v] = vf_six(b, 0, h, 2);
                    q[2][v] = vf_six(a, 4, h, 4);
                    q[3][v] = vf_six(b, 4, h, 6);
                }
                add_scaled(n_x, N16, even, q[0], vf_set1(s[0]), r, x);
                add_scaled(n_x, N16, odd, q[1], vf_set1(s[2]), r, x + 32);
                add_scaled(n_x, N16, even, q[2], vf_set1(s[4]), r, x + 64);
                add_scaled(n_x, N16, odd, q[3], vf_set1(s[6]), r, x + 96);
            }
    }
    for (int i = 0; i < n_x; i++) out[i] = vf_sum(vf_fma(vf_set1(-32), offset[i], vf_add(even[i], odd[i])));
}

/* A function for each count of rows of A, so that sums stay in registers. */
typedef void dot_function(const struct rows *r, const uint8_t *w, float *out);
#define DOT(name)                                                                                          \
    static void name##_1(const struct rows *r, const uint8_t *w, float *out) { dot_##name(1, r, w, out); } \
    static void name##_2(const struct rows *r, const uint8_t *w, float *out) { dot_##name(2, r, w, out); } \
    static void name##_4(const struct rows *r, const uint8_t *w, float *out) { dot_##name(4, r, w, out); }
DOT(q8_0)
DOT(q4_0)
DOT(q4_k)
DOT(q6_k)
static const struct {
    enum cb_dtype dtype;
    dot_function *dot[3];  // 1, 2, 4 rows
} dots[] = {{CB_DTYPE_Q8_0, {q8_0_1, q8_0_2, q8_0_4}},
            {CB_DTYPE_Q4_0, {q4_0_1, q4_0_2, q4_0_4}},
            {CB_DTYPE_Q4_K, {q4_k_1, q4_k_2, q4_k_4}},
            {CB_DTYPE_Q6_K, {q6_k_1, q6_k_2, q6_k_4}}};
enum { N_DOTS = sizeof dots / sizeof *dots };

static dot_function *const *dots_find(enum cb_dtype dtype) {
    for (int i = 0; i < N_DOTS; i++)
        if (dots[i].dtype == dtype) return dots[i].dot;
    return NULL;
}

/* ---- the node */

struct product {
    int64_t m, n, k;  // A (m,k), or (m,n) where B (n,k) is not transposed
    bool turned;  // y = x B^T
};

static struct product product_of(const struct node *node) {
    const struct cb_type *a = &node->in[A]->type, *b = &node->in[B]->type;
    const struct attr_matmul *attrs = node->attrs;
    struct product p = {.m = 1, .n = b->dim[0], .k = b->dim[1], .turned = attrs->trans_b};
    for (int i = 0; i < a->rank - 1; i++) p.m *= a->dim[i];
    return p;
}

static bool accepts(const struct node *node) {
    const struct attr_matmul *attrs = node->attrs;
    const struct cb_type *b = &node->in[B]->type;
    if (b->rank != 2 || !dtype_of(b->dtype)->is_quantised || attrs->trans_a) return false;
    for (int i = 0; i < node->n_in; i++)
        if (i != B && node->in[i] && node->in[i]->type.dtype != CB_DTYPE_F32) return false;
    const struct product p = product_of(node);
    return !p.turned || (p.m <= FEW && dots_find(b->dtype));
}

/* ---- few rows */
struct streaming {
    struct product p;
    struct rows rows;
    dot_function *const *dot;
    const uint8_t *w;
    int64_t row_bytes;
    const float *bias, *acc;
    float *y;
};

static void stream_tile(void *context, int64_t tile, int thread) {
    (void)thread;
    const struct streaming *s = context;
    const int64_t begin = tile * TILE_ROWS, end = tile_min(s->p.n, begin + TILE_ROWS);
    for (int64_t j = begin; j < end; j++) {
        float out[4];
        for (int64_t i = 0; i < s->p.m;) {
            const int kind = s->p.m - i >= 4 ? 2 : s->p.m - i >= 2 ? 1 : 0, count = 1 << kind;
            const int64_t at_x = i * s->p.k;
            const struct rows r = {s->p.k, s->rows.x + at_x, s->rows.sums + at_x / 16, s->rows.pairs + at_x / 32};
            s->dot[kind](&r, s->w + j * s->row_bytes, out);
            for (int c = 0; c < count; c++) {
                const int64_t at = (i + c) * s->p.n + j;
                s->y[at] = out[c] + (s->bias ? s->bias[j] : 0) + (s->acc ? s->acc[at] : 0);
            }
            i += count;
        }
    }
}

static void run_few(const struct op_run *run, const struct product *p) {
    const struct dtype *type = dtype_of(run->node->in[B]->type.dtype);
    struct streaming s = {.p = *p, .dot = dots_find(run->node->in[B]->type.dtype), .w = run->in[B], .y = run->out[0]};
    const float *x = run->in[A];
    const int64_t n = p->m * p->k / 16, n_pairs = p->m * p->k / 32;
    float *sums = run->work, *pairs = sums + n + RUN;
    for (int64_t i = 0; i < n; i++) {
        float sum = 0;
        for (int j = 0; j < 16; j++) sum += x[i * 16 + j];
        sums[i] = sum;
    }
    for (int64_t i = 0; i < n_pairs; i++) pairs[i] = sums[2 * i] + sums[2 * i + 1];
    memset(sums + n, 0, RUN * sizeof *sums);
    memset(pairs + n_pairs, 0, RUN * sizeof *pairs);
    s.rows = (struct rows){p->k, x, sums, pairs};
    s.row_bytes = p->k / type->block * type->block_bytes;
    s.bias = run->node->n_in > BIAS ? run->in[BIAS] : NULL;
    s.acc = run->node->n_in > ACC ? run->in[ACC] : NULL;
    tile_run(run->pool, p->n * p->k / 4, tile_count(p->n, TILE_ROWS), stream_tile, &s);
}

/* ---- y (m,k) = x (m,n) B (n,k): slabs of B's rows become f32 */
static int64_t slab_rows(const struct product *p) { return tile_max(1, tile_min(p->n, SLAB / tile_max(1, p->k))); }

static struct gemm slab_product(const struct product *p, int64_t rows, const struct gemm_isa *isa) {
    return (struct gemm){.m = p->m,
                         .n = p->k,
                         .k = rows,
                         .a_row = p->n,
                         .a_col = 1,
                         .b_row = p->k,
                         .b_col = 1,
                         .b_dtype = CB_DTYPE_F32,
                         .c_row = p->k,
                         .isa = isa};
}

struct decoding {
    const struct dtype *type;
    const uint8_t *w;
    float *out;
    int64_t rows, k;
};
static void decode_tile(void *context, int64_t tile, int thread) {
    (void)thread;
    const struct decoding *d = context;
    const int64_t begin = tile * TILE_ROWS, n = tile_min(TILE_ROWS, d->rows - begin),
                  row_bytes = d->k / d->type->block * d->type->block_bytes;
    d->type->to_f32(d->out + begin * d->k, d->w + begin * row_bytes, n * d->k);
}

static size_t slab_floats(const struct product *p) { return (size_t)((slab_rows(p) * p->k + 15) / 16 * 16); }

static void run_slabs(const struct op_run *run, const struct product *p, const struct gemm_isa *isa) {
    const struct dtype *type = dtype_of(run->node->in[B]->type.dtype);
    const int64_t step = slab_rows(p), row_bytes = p->k / type->block * type->block_bytes;
    const float *acc = run->node->n_in > ACC ? run->in[ACC] : NULL;
    float *slab = run->work;
    if (acc && acc != run->out[0]) memcpy(run->out[0], acc, (size_t)type_bytes(&run->node->out[0]->type));
    for (int64_t at = 0; at < p->n; at += step) {
        struct decoding d = {type, (const uint8_t *)run->in[B] + at * row_bytes, slab, tile_min(step, p->n - at), p->k};
        tile_run(run->pool, d.rows * d.k, tile_count(d.rows, TILE_ROWS), decode_tile, &d);
        struct gemm g = slab_product(p, d.rows, isa);
        g.a = (const float *)run->in[A] + at;
        g.b = slab;
        g.c = run->out[0];
        g.accumulate = acc || at > 0;
        g.bias = at == 0 && run->node->n_in > BIAS ? run->in[BIAS] : NULL;
        gemm_run(&g, slab + slab_floats(p), run->pool);
    }
}

static size_t workspace(const struct node *node, int n_threads) {
    const struct product p = product_of(node);
    if (p.turned) return (size_t)(p.m * p.k / 16 + p.m * p.k / 32 + 2 * RUN) * sizeof(float);
    // slabs and what is left over
    const int64_t last = p.n % slab_rows(&p);
    struct gemm g = slab_product(&p, slab_rows(&p), gemm_isa_for(ISA)), rest = slab_product(&p, last ? last : 1, gemm_isa_for(ISA));
    const size_t a = gemm_workspace(&g, n_threads), b = gemm_workspace(&rest, n_threads);
    return slab_floats(&p) * sizeof(float) + (a > b ? a : b);
}

static void run(const struct op_run *op) {
    const struct product p = product_of(op->node);
    if (p.turned)
        run_few(op, &p);
    else
        run_slabs(op, &p, gemm_isa_for(ISA));
}
