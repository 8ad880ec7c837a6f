/* Products with matrices stored in ggml's blocks, written once over the vector words that each k_blocks_<isa>.c defines before it includes this.
   Few rows of A: the blocks stream past once and are read as they are, in registers; activations stay f32, so results are those of the dequantised
   matrix up to rounding. B that is not transposed (gradients): its rows become f32 a slab at a time.
   Words: vf (VL floats), vf_zero set1 load store add sub mul fma sum; vf_half, vf_halves (one f16 and 16 of them), vf_pairs (one f16 times eight bytes, another times the eight after them);
   vf_spread (VL/4 numbers, four times each); vi (VL integers), vi_u8 (of bytes), vf_i8 (of signed bytes), vf_low and vf_high (halves of bytes), vf_byte (byte b of
   each); vi_words (as in memory), vi_set1 and left right, vi_pick (bits of a where the mask has ones, else of b), vi_upper (Q6_K's words of upper bits, those for
   part v of 64 levels at the bottom of each half of a byte). */
#include <string.h>

#include "backend/cpu/gemm.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

#define INLINE static inline __attribute__((always_inline))

enum { A, B, BIAS, ACC };
enum { FEW = 8, TILE_ROWS = 32, SLAB = 1 << 20 /* floats */, AHEAD = 4096 /* bytes */ };

/* Rows of A that meet rows of B, and sums of their values for what blocks subtract. */
struct rows {
    int64_t k, n_sums, n_pairs;  // of a row
    const float *x, *sums;  // values; sums of 16
    const float *minimums;  // as the minimums of a super-block lie: eight zeros and eight sums of 32
    const float *pairs;  // sums of 32, then zeros up to a run
};

/* ---- n rows of B, one after the other in memory, with n_x rows of A: out[i * out_row + j] is the product of row i of A and row j of B. Scales are turned
   into f32 for a run of blocks before their values are read. */
enum { RUN = 16, N_V = 32 / VL };

/* Keeps an array in memory: from there the load units spread a number over a vector, where the compiler would shuffle it out of a register. */
#define IN_MEMORY(array) __asm__("" : "+m"(array))

/* The halves at the head of a run of blocks, zeros past its end. */
struct halves {
    uint16_t v[RUN];
};
struct scales {
    float v[RUN];
};
INLINE void read_half(uint16_t *to, const uint8_t *from) {
    memcpy(to, from, sizeof *to);
    IN_MEMORY(*to);  // one by one: the compiler would shuffle them together, with the units that multiply
}
INLINE void read_halves(struct halves *h, const uint8_t *w, const int stride, int n) {
    if (n < RUN) memset(h, 0, sizeof *h);
    if (n == RUN) {
        for (int b = 0; b < RUN; b++) read_half(&h->v[b], w + b * stride);
    } else {
        for (int b = 0; b < n; b++) read_half(&h->v[b], w + b * stride);
    }
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
                       int64_t n, float *out, int64_t out_row) {
    vf even[FEW], odd[FEW], offset[FEW], q[N_V];
    struct halves next;
    struct scales scale;
    // the scales of a run are read while the one before is multiplied, be it of the row before: what has just been stored in pieces cannot be
    // read whole at once
    const int64_t blocks = r->k / 32;
    const int first = (int)tile_min(blocks, RUN);
    read_halves(&next, w, stride, first);
    for (int64_t j = 0; j < n; j++) {
        for (int i = 0; i < n_x; i++) even[i] = odd[i] = offset[i] = vf_zero();
        for (int64_t at = 0; at < blocks; at += RUN) {
            const int count = (int)tile_min(blocks - at, RUN), after = (int)tile_min(blocks - at - count, RUN);
            const float *x = r->x + at * 32;
            make_scales(&scale, &next);
            if (after || j + 1 < n) read_halves(&next, w + count * stride, stride, after ? after : first);
            for (int i = 0; less != 0 && i < n_x; i++)
                for (int v = 0; v < RUN / VL; v++)
                    offset[i] = vf_fma(vf_load(scale.v + v * VL), vf_load(r->pairs + i * r->n_pairs + at + v * VL), offset[i]);
            int b = 0;
            for (; b + 1 < count; b += 2, w += 2 * stride, x += 64) {
                __builtin_prefetch(w + AHEAD), __builtin_prefetch(w + AHEAD + stride);
                levels(q, w);
                add_scaled(n_x, N_V, even, q, vf_set1(scale.v[b]), r, x);
                levels(q, w + stride);
                add_scaled(n_x, N_V, odd, q, vf_set1(scale.v[b + 1]), r, x + 32);
            }
            if (b < count) {
                levels(q, w);
                add_scaled(n_x, N_V, even, q, vf_set1(scale.v[b]), r, x);
                w += stride;
            }
        }
        for (int i = 0; i < n_x; i++) out[i * out_row + j] = vf_sum(vf_fma(vf_set1(-less), offset[i], vf_add(even[i], odd[i])));
    }
}

INLINE void dot_q8_0(const int n_x, const struct rows *r, const uint8_t *w, int64_t n, float *out, int64_t out_row) {
    dot_simple(n_x, 34, levels_q8_0, 0, r, w, n, out, out_row);
}
INLINE void dot_q4_0(const int n_x, const struct rows *r, const uint8_t *w, int64_t n, float *out, int64_t out_row) {
    dot_simple(n_x, 18, levels_q4_0, 8, r, w, n, out, out_row);
}

/* Eight scales and then eight minimums of 6 bits in 12 bytes (quant_k.c), a byte each. */
INLINE void pairs_unpack(uint64_t out[2], const uint8_t *packed) {
    uint32_t word[3];
    memcpy(word, packed, sizeof word);
    const uint32_t scales = (word[2] & 0x0f0f0f0fu) | (word[0] >> 2 & 0x30303030u),
                   minimums = (word[2] >> 4 & 0x0f0f0f0fu) | (word[1] >> 2 & 0x30303030u);
    uint64_t first = (word[0] & 0x3f3f3f3fu) | (uint64_t)scales << 32, second = (word[1] & 0x3f3f3f3fu) | (uint64_t)minimums << 32;
    __asm__("" : "+r"(first), "+r"(second));  // not by vectors, whose units multiply
    out[0] = first, out[1] = second;
}

/* Scales and minimums of one super-block as floats. */
INLINE void make_pairs(struct scales *s, const uint8_t *w) {
    struct {
        uint64_t v[2];
    } bytes;
    pairs_unpack(bytes.v, w + 4);
    IN_MEMORY(bytes);
    vf_pairs(s->v, w, bytes.v);
    IN_MEMORY(*s);
}

INLINE void dot_q4_k(const int n_x, const struct rows *r, const uint8_t *w, int64_t n, float *out, int64_t out_row) {
    vf even[FEW], odd[FEW], less[FEW], q[2][N_V];
    struct scales scales[2], *scale = &scales[0], *next = &scales[1];
    make_pairs(next, w);
    for (int64_t j = 0; j < n; j++) {
        for (int i = 0; i < n_x; i++) even[i] = odd[i] = less[i] = vf_zero();
        for (int64_t p = 0; p < r->k; p += 256, w += 144) {
            struct scales *const used = scale;
            scale = next, next = used;
            if (p + 256 < r->k || j + 1 < n) make_pairs(next, w + 144);
            for (int i = 0; i < n_x; i++)
                for (int v = 0; v < 16 / VL; v++)
                    less[i] = vf_fma(vf_load(scale->v + v * VL), vf_load(r->minimums + i * r->n_sums + p / 16 + v * VL), less[i]);
            for (int g = 0; g < 4; g++) {
                const float *x = r->x + p + 64 * g;
                __builtin_prefetch(w + AHEAD + 36 * g);
                for (int v = 0; v < N_V; v++) {
                    vi bytes = vi_u8(w + 16 + 32 * g + v * VL);
                    q[0][v] = vf_low(bytes);
                    q[1][v] = vf_high(bytes);
                }
                add_scaled(n_x, N_V, even, q[0], vf_set1(scale->v[2 * g]), r, x);
                add_scaled(n_x, N_V, odd, q[1], vf_set1(scale->v[2 * g + 1]), r, x + 32);
            }
        }
        for (int i = 0; i < n_x; i++) out[i * out_row + j] = vf_sum(vf_sub(vf_add(even[i], odd[i]), less[i]));
    }
}

/* Levels of 6 bits less 32, a scale for 16 of them. Words of four levels each are made for a vector at once, and one byte after the other taken out of
   them: x is turned to their order, 64 values at a time (turn_bytes). */
INLINE void dot_q6_k(const int n_x, const struct rows *r, const uint8_t *w, int64_t n, float *out, int64_t out_row) {
    enum { N16 = 16 / VL };
    const vi low_bits = vi_set1(0x0f0f0f0f), bits = vi_set1(0x3f3f3f3f);
    vf sum[FEW][N16], offset[FEW], q[4];
    for (int64_t j = 0; j < n; j++) {
        for (int i = 0; i < n_x; i++) {
            offset[i] = vf_zero();
            for (int v = 0; v < N16; v++) sum[i][v] = vf_zero();
        }
        for (int64_t p = 0; p < r->k; p += 256, w += 210) {
            struct scales scale;
            const vf d = vf_set1(half_at(w + 208));
            for (int v = 0; v < N16; v++) vf_store(scale.v + v * VL, vf_mul(d, vf_i8(w + 192 + v * VL)));
            IN_MEMORY(scale);
            for (int i = 0; i < n_x; i++)
                for (int v = 0; v < N16; v++)
                    offset[i] = vf_fma(vf_load(scale.v + v * VL), vf_load(r->sums + i * r->n_sums + p / 16 + v * VL), offset[i]);
            // 128 values: the low halves of 64 bytes are the first 64 of them, the high halves the others
            for (int half = 0; half < 2; half++)
                for (int v = 0; v < N16; v++) {
                    const vi low = vi_words(w + 64 * half + 4 * VL * v), high = vi_upper(w + 128 + 32 * half, v);
                    const float *x = r->x + p + 128 * half + v * VL, *s = scale.v + 8 * half + v * VL / 4;
                    __builtin_prefetch(w + AHEAD + 105 * half + 4 * VL * v);
                    const vi six[2] = {vi_pick(low_bits, low, vi_left(high, 4)), vi_pick(low_bits, vi_right(low, 4), high)};
                    for (int h = 0; h < 2; h++) {
                        const vi levels = vi_and(six[h], bits);
                        for (int b = 0; b < 4; b++) q[b] = vf_byte(levels, b);
                        const vf by = vf_spread(s + 4 * h);
                        for (int i = 0; i < n_x; i++) {
                            const float *at = x + i * r->k + 64 * h;
                            vf t = vf_mul(q[0], vf_load(at));
                            for (int b = 1; b < 4; b++) t = vf_fma(q[b], vf_load(at + 16 * b), t);
                            sum[i][v] = vf_fma(t, by, sum[i][v]);
                        }
                    }
                }
        }
        for (int i = 0; i < n_x; i++) {
            vf all = sum[i][0];
            for (int v = 1; v < N16; v++) all = vf_add(all, sum[i][v]);
            out[i * out_row + j] = vf_sum(vf_fma(vf_set1(-32), offset[i], all));
        }
    }
}

/* Four bytes of each word apart: value 4 i + b of 64 comes to 16 b + i. */
static void turn_bytes(float *to, const float *x, int64_t n) {
    for (int64_t p = 0; p < n; p += 64)
        for (int i = 0; i < 64; i++) to[p + i % 4 * 16 + i / 4] = x[p + i];
}

/* A function for each count of rows of A, so that sums stay in registers. */
typedef void dot_function(const struct rows *r, const uint8_t *w, int64_t n, float *out, int64_t out_row);
#define DOT_OF(name, n_x)                                                                                      \
    static void name##_##n_x(const struct rows *r, const uint8_t *w, int64_t n, float *out, int64_t out_row) { \
        dot_##name(n_x, r, w, n, out, out_row);                                                                \
    }
#define DOT(name) DOT_OF(name, 1) DOT_OF(name, 2) DOT_OF(name, 4)
DOT(q8_0)
DOT(q4_0)
DOT(q4_k)
DOT(q6_k)
static const struct dots {
    enum cb_dtype dtype;
    bool turned;  // x by turn_bytes
    dot_function *dot[3];  // 1, 2, 4 rows
} dots[] = {{CB_DTYPE_Q8_0, false, {q8_0_1, q8_0_2, q8_0_4}},
            {CB_DTYPE_Q4_0, false, {q4_0_1, q4_0_2, q4_0_4}},
            {CB_DTYPE_Q4_K, false, {q4_k_1, q4_k_2, q4_k_4}},
            {CB_DTYPE_Q6_K, true, {q6_k_1, q6_k_2, q6_k_4}}};
enum { N_DOTS = sizeof dots / sizeof *dots };

static const struct dots *dots_find(enum cb_dtype dtype) {
    for (int i = 0; i < N_DOTS; i++)
        if (dots[i].dtype == dtype) return &dots[i];
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
    const struct dots *dots;
    const uint8_t *w;
    int64_t row_bytes;
    const float *bias, *acc;
    float *y;
};

static void stream_tile(void *context, int64_t tile, int thread) {
    (void)thread;
    const struct streaming *s = context;
    const int64_t begin = tile * TILE_ROWS, n = tile_min(TILE_ROWS, s->p.n - begin);
    float out[4 * TILE_ROWS];
    for (int64_t i = 0, count; i < s->p.m; i += count) {
        const int kind = s->p.m - i >= 4 ? 2 : s->p.m - i >= 2 ? 1 : 0;
        struct rows r = s->rows;
        count = 1 << kind;
        r.x += i * r.k, r.sums += i * r.n_sums, r.minimums += i * r.n_sums, r.pairs += i * r.n_pairs;
        s->dots->dot[kind](&r, s->w + begin * s->row_bytes, n, out, TILE_ROWS);
        for (int64_t c = 0; c < count; c++)
            for (int64_t j = 0; j < n; j++) {
                const int64_t at = (i + c) * s->p.n + begin + j;
                s->y[at] = out[c * TILE_ROWS + j] + (s->bias ? s->bias[begin + j] : 0) + (s->acc ? s->acc[at] : 0);
            }
    }
}

/* Floats of work: sums of 16, of 32, and those as minimums meet them; x turned. */
static int64_t n_sums(const struct product *p) { return p->k / 16; }
static int64_t n_pairs(const struct product *p) { return tile_count(p->k / 32, RUN) * RUN; }
static size_t few_workspace(const struct product *p, bool turned) {
    return (size_t)(p->m * (2 * n_sums(p) + n_pairs(p) + (turned ? p->k : 0))) * sizeof(float);
}

static void sums_make(const struct product *p, const float *x, float *sums, float *minimums, float *pairs) {
    memset(pairs, 0, (size_t)(p->m * n_pairs(p)) * sizeof *pairs);
    for (int64_t i = 0; i < p->m; i++, sums += n_sums(p), minimums += n_sums(p), pairs += n_pairs(p), x += p->k) {
        for (int64_t g = 0; g < n_sums(p); g++) {
            sums[g] = 0;
            for (int v = 0; v < 16; v++) sums[g] += x[g * 16 + v];
        }
        for (int64_t b = 0; b < p->k / 32; b++) pairs[b] = sums[2 * b] + sums[2 * b + 1];
        // eight scales, then eight minimums, of each 256 values
        for (int64_t g = 0; g < n_sums(p); g++) minimums[g] = g % 16 < 8 ? 0 : pairs[g / 16 * 8 + g % 8];
    }
}

static void run_few(const struct op_run *run, const struct product *p) {
    const struct dtype *type = dtype_of(run->node->in[B]->type.dtype);
    struct streaming s = {.p = *p, .dots = dots_find(run->node->in[B]->type.dtype), .w = run->in[B], .y = run->out[0]};
    const float *x = run->in[A];
    float *sums = run->work, *minimums = sums + p->m * n_sums(p), *pairs = minimums + p->m * n_sums(p), *turned = pairs + p->m * n_pairs(p);
    sums_make(p, x, sums, minimums, pairs);
    if (s.dots->turned) turn_bytes(turned, x, p->m * p->k);
    s.rows = (struct rows){p->k, n_sums(p), n_pairs(p), s.dots->turned ? turned : x, sums, minimums, pairs};
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
    if (p.turned) return few_workspace(&p, dots_find(node->in[B]->type.dtype)->turned);
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
