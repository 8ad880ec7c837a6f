/* The kernels of struct gemm_isa, written once over the vector words that each gemm_<isa>.c defines before it includes this.
   Words: vf (VL floats), vm (mask), vf_zero set1 load store add fma sum, vm_first, vf_load_mask, vf_store_mask, vf_load_f16, vf_load_bf16, vf_load_i8, vf_mul,
   transpose4, turn_bytes; sizes MR, XR_MAX and YR_WIDE. Register tiles after Goto & van de Geijn 2008 and Van Zee & van de Geijn 2015. */
#include <string.h>

#include "backend/cpu/gemm.h"

#define NR (2 * VL)
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* VL values of a plain type as f32. */
INLINE vf load_as(const enum cb_dtype dtype, const void *p, int64_t i) {
    if (dtype == CB_DTYPE_F16) return vf_load_f16((const uint16_t *)p + i);
    if (dtype == CB_DTYPE_BF16) return vf_load_bf16((const uint16_t *)p + i);
    return vf_load((const float *)p + i);
}

/* The first n < VL of them, zeros after. */
INLINE vf load_part_as(const enum cb_dtype dtype, const void *p, int64_t i, int64_t n) {
    if (dtype == CB_DTYPE_F32) return vf_load_mask(vm_first(n), (const float *)p + i);
    uint16_t part[VL] = {0};
    for (int64_t j = 0; j < n; j++) part[j] = ((const uint16_t *)p)[i + j];
    return load_as(dtype, part, 0);
}

static inline float value_as(enum cb_dtype dtype, const void *p, int64_t i) {
    if (dtype == CB_DTYPE_F16) return f16_to_f32(((const uint16_t *)p)[i]);
    if (dtype == CB_DTYPE_BF16) return bf16_to_f32(((const uint16_t *)p)[i]);
    return ((const float *)p)[i];
}

/* ---- register tiles */
struct micro_call {
    int64_t k;
    const float *a;
    int64_t a_row, a_col;
    const float *b;
    int64_t b_row;
    float *c;
    int64_t c_row;
    const float *bias;
    int n;  // columns, (n_vec - 1) * VL < n <= n_vec * VL
    bool accumulate;
    /* Wanted after this tile, of packed ones: rows_ahead rows of lines_ahead cache lines of A, ahead_row floats apart, and the next tile of C. */
    const float *ahead, *c_ahead;  // nullable
    int64_t rows_ahead, lines_ahead, ahead_row;
    float *panel;  // FRESH: to be written
};

/* How far ahead of its reading a tile asks for its panels, in floats; panels follow each other in memory. */
enum { AHEAD_A = 24 * MR, AHEAD_B = 16 * NR, NEAR_ROWS = 6, FAR_ROWS = 48 };

/* PANELS: A and B packed. ROWS: B packed, A as it is with contiguous rows. STRIDED: neither; B's last columns are read under a mask. FRESH: as STRIDED,
   and what is read of B is put down as a panel. */
enum source { PANELS, ROWS, STRIDED, FRESH, SOURCES };

/* What is wanted next is asked for bit by bit: a burst would hold up the panels that this tile reads. */
enum { ASK = 16, CACHE_LINE = 16 };
struct asking {
    int64_t row, line, c_row;
};

INLINE void ask_ahead(const struct micro_call *g, struct asking *at) {
    if (g->c_ahead && at->c_row < MR) {
        const float *c = g->c_ahead + at->c_row++ * g->c_row;
        __builtin_prefetch(c, 1), __builtin_prefetch(c + NR - 1, 1);
    }
    for (int i = 0; i < 2 && at->row < g->rows_ahead; i++) {
        __builtin_prefetch(g->ahead + at->row * g->ahead_row + at->line * CACHE_LINE, 0, 2);
        if (++at->line == g->lines_ahead) at->line = 0, at->row++;
    }
}

/* rows by n_vec vectors of C. */
INLINE void micro(const int rows, const int n_vec, const enum source source, const struct micro_call *g) {
    const bool packed = source == PANELS || source == ROWS;
    vf acc[MR][2];
    const vm last = vm_first(g->n - (n_vec - 1) * VL);
    const float *a = g->a, *b = g->b;
    const int64_t a_row = source == PANELS ? 1 : g->a_row,
                  a_col = source == PANELS ? MR
                          : source == ROWS ? 1
                                           : g->a_col,
                  b_row = packed ? NR : g->b_row, c_row = g->c_row;
    float *c = g->c, *panel = g->panel;
    UNROLL for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = vf_zero();
    // Every third row has a pointer: the others are one step of addressing away.
    const float *third[(MR + 2) / 3];
    UNROLL for (int r = 0; r < (rows + 2) / 3; r++) third[r] = a + 3 * r * a_row;
    struct asking asking = {0};
    for (int64_t left = g->k; left > 0; left -= ASK) {
        if (source != STRIDED) ask_ahead(g, &asking);
        for (int64_t p = least(left, ASK); p > 0; p--) {
            vf b0 = !packed && n_vec == 1 ? vf_load_mask(last, b) : vf_load(b), b1 = vf_zero();
            if (n_vec == 2) b1 = packed ? vf_load(b + VL) : vf_load_mask(last, b + VL);
            if (packed) {
                if (source == PANELS) __builtin_prefetch(a + AHEAD_A);
                __builtin_prefetch(b + AHEAD_B);
                if (n_vec == 2) __builtin_prefetch(b + AHEAD_B + VL);
            }
            if (source == FRESH) {
                // near rows into the first cache, where rows a page apart share few places; far ones into the second
                __builtin_prefetch(b + NEAR_ROWS * b_row), __builtin_prefetch(b + FAR_ROWS * b_row, 0, 2);
                if (n_vec == 2) __builtin_prefetch(b + NEAR_ROWS * b_row + VL), __builtin_prefetch(b + FAR_ROWS * b_row + VL, 0, 2);
                vf_store(panel, b0), vf_store(panel + VL, b1);
                panel += NR;
            }
            UNROLL for (int r = 0; r < rows; r++) {
                vf x = vf_set1(source == PANELS ? a[r] : third[r / 3][r % 3 * a_row]);
                acc[r][0] = vf_fma(x, b0, acc[r][0]);
                if (n_vec == 2) acc[r][1] = vf_fma(x, b1, acc[r][1]);
            }
            a += a_col;
            UNROLL for (int r = 0; r < (rows + 2) / 3; r++) third[r] += a_col;
            b += b_row;
        }
    }
    UNROLL for (int v = 0; v < n_vec; v++) {
        const bool part = v == n_vec - 1;
        vf bias = !g->bias ? vf_zero() : part ? vf_load_mask(last, g->bias + v * VL) : vf_load(g->bias + v * VL);
        UNROLL for (int r = 0; r < rows; r++) {
            float *to = c + r * c_row + v * VL;
            vf sum = g->bias ? vf_add(acc[r][v], bias) : acc[r][v];
            if (g->accumulate) sum = vf_add(sum, part ? vf_load_mask(last, to) : vf_load(to));
            if (part) {
                vf_store_mask(last, to, sum);
            } else {
                vf_store(to, sum);
            }
        }
    }
}

/* One function for each number of rows and vectors, so that the edges run at the speed of what they hold. */
#define MICRO(r)                                                                         \
    static void panels_##r##_1(const struct micro_call *g) { micro(r, 1, PANELS, g); }   \
    static void panels_##r##_2(const struct micro_call *g) { micro(r, 2, PANELS, g); }   \
    static void rows_##r##_1(const struct micro_call *g) { micro(r, 1, ROWS, g); }       \
    static void rows_##r##_2(const struct micro_call *g) { micro(r, 2, ROWS, g); }       \
    static void strided_##r##_1(const struct micro_call *g) { micro(r, 1, STRIDED, g); } \
    static void strided_##r##_2(const struct micro_call *g) { micro(r, 2, STRIDED, g); } \
    static void fresh_##r##_1(const struct micro_call *g) { micro(r, 1, FRESH, g); }     \
    static void fresh_##r##_2(const struct micro_call *g) { micro(r, 2, FRESH, g); }
MICRO_LIST(MICRO)
typedef void (*micro_function)(const struct micro_call *g);
#define PANELS_ROW(r) {panels_##r##_1, panels_##r##_2},
#define ROWS_ROW(r) {rows_##r##_1, rows_##r##_2},
#define STRIDED_ROW(r) {strided_##r##_1, strided_##r##_2},
#define FRESH_ROW(r) {fresh_##r##_1, fresh_##r##_2},
static const micro_function micros[SOURCES][MR][2] = {
    {MICRO_LIST(PANELS_ROW)}, {MICRO_LIST(ROWS_ROW)}, {MICRO_LIST(STRIDED_ROW)}, {MICRO_LIST(FRESH_ROW)}};

static void tile(const struct gemm_tile *t) {
    struct micro_call g = {.k = t->k, .a = t->a, .a_row = t->a_row, .a_col = 1, .c_row = t->c_row, .accumulate = t->accumulate};
    if (!t->a_row && t->fresh) g.a_row = 1, g.a_col = MR;
    const micro_function *micro = micros[t->fresh ? FRESH : t->a_row > 0 ? ROWS : PANELS][t->m - 1];
    const int64_t panels = (t->n + NR - 1) / NR, lines = (t->k_ahead + CACHE_LINE - 1) / CACHE_LINE, share = (lines + panels - 1) / panels;
    g.ahead_row = t->ahead_row;
    g.b_row = t->fresh_row;
    for (int64_t i = 0; i < panels; i++) {
        g.panel = t->b + i * t->b_panel;
        g.b = t->fresh ? t->fresh + i * NR : g.panel;
        g.c = t->c + i * NR;
        g.n = (int)least(NR, t->n - i * NR);
        g.bias = t->bias ? t->bias + i * NR : NULL;
        // each panel asks for its share of the columns of A, and for the tile of C to its right or, last, below
        g.ahead = t->ahead + i * share * CACHE_LINE;
        g.lines_ahead = least(share, lines - i * share);
        g.rows_ahead = g.lines_ahead > 0 ? t->n_ahead : 0;
        g.c_ahead = i + 1 < panels ? g.c + NR : t->n_ahead ? t->c + t->m * t->c_row : NULL;
        micro[g.n > VL](&g);
    }
}

static void direct(const struct gemm *g) {
    struct micro_call t = {
        .k = g->k, .a_row = g->a_row, .a_col = g->a_col, .b_row = g->b_row, .c_row = g->c_row, .accumulate = g->accumulate};
    for (int64_t j = 0; j < g->n; j += NR) {
        t.b = (const float *)g->b + j;
        t.n = (int)least(NR, g->n - j);
        t.bias = g->bias ? g->bias + j : NULL;
        const int v = t.n > VL;
        for (int64_t i = 0; i < g->m; i += MR) {
            t.a = g->a + i * g->a_row;
            t.c = g->c + i * g->c_row + j;
            micros[STRIDED][least(MR, g->m - i) - 1][v](&t);
        }
    }
}

/* ---- packing */
/* Rows of the source that are packed together, so that they and what is written stay in the first cache; the next ones are asked for ahead. */
enum { PACK_STEP = 8, PACK_CHUNK = 64 };

/* The first n values of one row of a panel from src + i, then zeros up to its width. */
INLINE void pack_row(const enum cb_dtype dtype, float *to, int64_t width, const void *src, int64_t i, int64_t n, int64_t ahead) {
    const int64_t bytes = dtype == CB_DTYPE_F32 ? 4 : 2;
    int64_t w = 0;
    for (; w + VL <= n; w += VL) {
        __builtin_prefetch((const char *)src + (i + w + ahead) * bytes);
        vf_store(to + w, load_as(dtype, src, i + w));
    }
    for (; w < n; w++) to[w] = value_as(dtype, src, i + w);
    for (; w < width; w++) to[w] = 0;
}

/* Panel rows are contiguous in the source: copy with conversion, a few k of all panels at a time. */
INLINE void pack_along(const enum cb_dtype dtype, float *out, int64_t width, int64_t panel_step, const void *src, int64_t step_k,
                       int64_t n_wide, int64_t k) {
    for (int64_t first = 0; first < k; first += PACK_STEP) {
        const int64_t end = least(first + PACK_STEP, k);
        float *panel = out + first * width;
        for (int64_t at = 0; at < n_wide; at += width, panel += panel_step) {
            float *to = panel;
            for (int64_t p = first; p < end; p++, to += width)
                pack_row(dtype, to, width, src, p * step_k + at, least(width, n_wide - at), p + PACK_STEP < k ? PACK_STEP * step_k : 0);
        }
    }
}

/* The same for panels of A: they are narrower than a vector and share lines of the source, so one k of all panels at a time. */
static void pack_narrow(float *out, int64_t panel_step, const float *src, int64_t step_k, int64_t n_wide, int64_t k) {
    for (int64_t p = 0; p < k; p++, src += step_k) {
        const float *ahead = src + (p + PACK_STEP < k ? PACK_STEP * step_k : 0);
        for (int64_t i = 0; i < n_wide; i += 64 / (int64_t)sizeof *ahead) __builtin_prefetch(ahead + i);
        int64_t at = 0;
        float *to = out + p * MR;
        for (; at + MR <= n_wide; at += MR, to += panel_step) {
            UNROLL for (int w = 0; w < MR / 4; w++) memcpy(to + 4 * w, src + at + 4 * w, 16);
            if (MR % 4 == 2) memcpy(to + MR - 2, src + at + MR - 2, 8);
        }
        for (int w = 0; at < n_wide && w < MR; w++) to[w] = at + w < n_wide ? src[at + w] : 0;
    }
}

/* The source is contiguous along k: transpose blocks of 4 rows by 8. */
INLINE void pack_across(const enum cb_dtype dtype, float *out, int64_t width, const void *src, int64_t step_w, int64_t n, int64_t k) {
    const int64_t bytes = dtype == CB_DTYPE_F32 ? 4 : 2;
    for (int64_t first = 0; first < k; first += PACK_CHUNK) {
        const int64_t end = least(first + PACK_CHUNK, k);
        // wanted next: the same rows further on, or the beginning of the next panel's
        const int64_t next = end < k ? PACK_CHUNK : width * step_w - first;
        int64_t w = 0;
        for (; w + 4 <= n; w += 4) {
            int64_t p = first;
            const char *ahead = (const char *)src + (w * step_w + next) * bytes;
            for (; p + 8 <= end; p += 8) {
                for (int i = 0; i < 4; i++) __builtin_prefetch(ahead + (i * step_w + p) * bytes);
                transpose4(dtype, out + p * width + w, width, src, w * step_w + p, step_w);
            }
            for (; p < end; p++)
                for (int64_t i = w; i < w + 4; i++) out[p * width + i] = value_as(dtype, src, i * step_w + p);
        }
        for (; w < n; w++)
            for (int64_t p = first; p < end; p++) out[p * width + w] = value_as(dtype, src, w * step_w + p);
        for (; w < width; w++)
            for (int64_t p = first; p < end; p++) out[p * width + w] = 0;
    }
}

/* Levels of one block: bytes as they are, or the low and then the high halves of 16 bytes, less 8. */
INLINE void levels_of(const enum cb_dtype dtype, int8_t *levels, const unsigned char *block) {
    const uint64_t low_bits = UINT64_C(0x0f0f0f0f0f0f0f0f), sign = UINT64_C(0x8080808080808080), less = UINT64_C(0x7878787878787878);
    if (dtype == CB_DTYPE_Q8_0) {
        memcpy(levels, block + 2, 32);
        return;
    }
    uint64_t bytes[2], out[4];
    memcpy(bytes, block + 2, sizeof bytes);
    for (int i = 0; i < 2; i++) {
        // every byte less 8: x + 0x78 does not carry, and its highest bit is the sign turned
        out[i] = ((bytes[i] & low_bits) + less) ^ sign;
        out[2 + i] = ((bytes[i] >> 4 & low_bits) + less) ^ sign;
    }
    memcpy(levels, out, sizeof out);
}

/* At most DECODE values of a type whose block is a half-precision scale and 32 levels. */
enum { DECODE = 256, DECODE_BLOCKS = DECODE / 32 };
INLINE void decode_levels(const enum cb_dtype dtype, float *out, const unsigned char *block, int64_t block_bytes, int64_t n) {
    int8_t levels[DECODE];
    uint16_t halves[DECODE_BLOCKS + VL] = {0};
    float scales[DECODE_BLOCKS + VL];
    for (int64_t b = 0; b < n / 32; b++) {
        memcpy(&halves[b], block + b * block_bytes, sizeof *halves);
        levels_of(dtype, levels + 32 * b, block + b * block_bytes);
    }
    for (int i = 0; i < DECODE_BLOCKS; i += VL) vf_store(scales + i, vf_load_f16(halves + i));
    for (int64_t b = 0; b < n / 32; b++) {
        UNROLL for (int i = 0; i < 32; i += VL) vf_store(out + 32 * b + i, vf_mul(vf_set1(scales[b]), vf_load_i8(levels + 32 * b + i)));
    }
}

/* At most DECODE values of a block type as f32. */
static void decode(const struct dtype *type, enum cb_dtype dtype, float *out, const void *in, int64_t n) {
    if (dtype == CB_DTYPE_Q8_0)
        decode_levels(CB_DTYPE_Q8_0, out, in, type->block_bytes, n);
    else if (dtype == CB_DTYPE_Q4_0)
        decode_levels(CB_DTYPE_Q4_0, out, in, type->block_bytes, n);
    else
        type->to_f32(out, in, n);
}

/* 16 rows by one block of 32 levels: the bytes are turned, so that what is decoded together is stored together. */
enum { TURNED = 16, TURNED_AHEAD = 192 /* bytes of a row */ };
INLINE void pack_turned(const enum cb_dtype dtype, float *out, int64_t width, const unsigned char *blocks, int64_t row_bytes) {
    _Alignas(64) int8_t levels[2][TURNED][TURNED];
    uint16_t halves[TURNED];
    vf scales[TURNED / VL];
    for (int w = 0; w < TURNED; w++) {
        memcpy(&halves[w], blocks + w * row_bytes, sizeof *halves);
        __builtin_prefetch(blocks + w * row_bytes + TURNED_AHEAD);
    }
    for (int v = 0; v < TURNED / VL; v++) scales[v] = vf_load_f16(halves + v * VL);
    turn_bytes(levels[0], blocks + 2, row_bytes);
    if (dtype == CB_DTYPE_Q8_0) {
        turn_bytes(levels[1], blocks + 18, row_bytes);
    } else {  // the low and then the high halves of 16 bytes, less 8
        int8_t *low = levels[0][0], *high = levels[1][0];
        for (int i = 0; i < TURNED * TURNED; i++) {
            const uint8_t both = (uint8_t)low[i];
            high[i] = (int8_t)((both >> 4) - 8);
            low[i] = (int8_t)((both & 15) - 8);
        }
    }
    for (int p = 0; p < 32; p++)
        for (int v = 0; v < TURNED / VL; v++)
            vf_store(out + p * width + v * VL, vf_mul(scales[v], vf_load_i8(levels[p / TURNED][p % TURNED] + v * VL)));
}

/* Rows of such blocks, as many as are a multiple of 16; returns how many. */
static int64_t pack_levels(float *out, int64_t width, const void *src, enum cb_dtype dtype, int64_t row_bytes, int64_t n, int64_t k) {
    const int64_t block_bytes = dtype_of(dtype)->block_bytes;
    if (dtype != CB_DTYPE_Q8_0 && dtype != CB_DTYPE_Q4_0) return 0;
    int64_t w = 0;
    for (; w + TURNED <= n; w += TURNED) {
        const unsigned char *from = (const unsigned char *)src + w * row_bytes;
        for (int64_t p = 0; p < k; p += 32, from += block_bytes) {
            if (dtype == CB_DTYPE_Q8_0)
                pack_turned(CB_DTYPE_Q8_0, out + p * width + w, width, from, row_bytes);
            else
                pack_turned(CB_DTYPE_Q4_0, out + p * width + w, width, from, row_bytes);
        }
    }
    return w;
}

/* Rows of blocks of any type: 4 rows are decoded at a time, few enough values that a panel's share of them stays in the first cache. */
static void pack_blocks(float *out, int64_t width, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t n, int64_t k) {
    const struct dtype *type = dtype_of(dtype);
    float rows[4 * DECODE];
    const int64_t row_bytes = step_w / type->block * type->block_bytes, turned = pack_levels(out, width, src, dtype, row_bytes, n, k);
    for (int64_t p = 0; p < k && turned < n; p += DECODE)
        for (int64_t w = turned; w < n; w += 4) {
            const int64_t n_rows = least(4, n - w), n_k = least(DECODE, k - p);
            const char *from = (const char *)src + p / type->block * type->block_bytes + w * row_bytes;
            for (int64_t i = 0; i < n_rows; i++, from += row_bytes) {
                for (int64_t b = 0; b < n_k / type->block * type->block_bytes; b += 64) __builtin_prefetch(from + 4 * row_bytes + b);
                decode(type, dtype, rows + i * DECODE, from, n_k);
            }
            int64_t q = 0;
            for (; n_rows == 4 && q + 8 <= n_k; q += 8) transpose4(CB_DTYPE_F32, out + (p + q) * width + w, width, rows, q, DECODE);
            for (; q < n_k; q++)
                for (int64_t i = 0; i < n_rows; i++) out[(p + q) * width + w + i] = rows[i * DECODE + q];
        }
    for (int64_t w = n; w < width; w++)
        for (int64_t p = 0; p < k; p++) out[p * width + w] = 0;
}

static void pack(float *out, int64_t width, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t step_k,
                 int64_t n_wide, int64_t k) {
    if (step_w == 1 && dtype == CB_DTYPE_F32 && width == MR) {
        pack_narrow(out, panel_step, src, step_k, n_wide, k);
        return;
    }
    if (step_w == 1 && dtype == CB_DTYPE_F32) {
        pack_along(CB_DTYPE_F32, out, width, panel_step, src, step_k, n_wide, k);
        return;
    }
    if (step_w == 1 && dtype == CB_DTYPE_F16) {
        pack_along(CB_DTYPE_F16, out, width, panel_step, src, step_k, n_wide, k);
        return;
    }
    if (step_w == 1 && dtype == CB_DTYPE_BF16) {
        pack_along(CB_DTYPE_BF16, out, width, panel_step, src, step_k, n_wide, k);
        return;
    }
    const struct dtype *type = dtype_of(dtype);
    for (int64_t at = 0; at < n_wide; at += width, out += panel_step) {
        const int64_t n = least(width, n_wide - at);
        const void *from = (const char *)src + at * step_w / type->block * type->block_bytes;
        if (type->block > 1) {
            pack_blocks(out, width, from, dtype, step_w, n, k);
        } else if (step_k == 1 && dtype == CB_DTYPE_F32) {
            pack_across(CB_DTYPE_F32, out, width, from, step_w, n, k);
        } else if (step_k == 1 && dtype == CB_DTYPE_F16) {
            pack_across(CB_DTYPE_F16, out, width, from, step_w, n, k);
        } else if (step_k == 1) {
            pack_across(CB_DTYPE_BF16, out, width, from, step_w, n, k);
        } else {
            for (int64_t p = 0; p < k; p++)
                for (int64_t w = 0; w < width; w++) out[p * width + w] = w < n ? value_as(dtype, from, w * step_w + p * step_k) : 0;
        }
    }
}

/* ---- few rows of A, B's rows contiguous: each vector of B meets all rows while C's columns stay in the first cache */
INLINE void stream_part(const int rows, const int depth, const enum cb_dtype dtype, const struct gemm *g, int64_t i, int64_t p,
                        int64_t begin, int64_t end) {
    vf x[4][8];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int d = 0; d < depth; d++) x[r][d] = vf_set1(g->a[(i + r) * g->a_row + (p + d) * g->a_col]);
    }
    float *c = g->c + i * g->c_row;
    int64_t j = begin;
    for (; j + VL <= end; j += VL) {
        vf acc[4];
        UNROLL for (int r = 0; r < rows; r++) acc[r] = vf_load(c + r * g->c_row + j);
        UNROLL for (int d = 0; d < depth; d++) {
            vf y = load_as(dtype, g->b, (p + d) * g->b_row + j);
            UNROLL for (int r = 0; r < rows; r++) acc[r] = vf_fma(x[r][d], y, acc[r]);
        }
        UNROLL for (int r = 0; r < rows; r++) vf_store(c + r * g->c_row + j, acc[r]);
    }
    if (j == end) return;
    const vm mask = vm_first(end - j);
    vf acc[4];
    UNROLL for (int r = 0; r < rows; r++) acc[r] = vf_load_mask(mask, c + r * g->c_row + j);
    UNROLL for (int d = 0; d < depth; d++) {
        vf y = load_part_as(dtype, g->b, (p + d) * g->b_row + j, end - j);
        UNROLL for (int r = 0; r < rows; r++) acc[r] = vf_fma(x[r][d], y, acc[r]);
    }
    UNROLL for (int r = 0; r < rows; r++) vf_store_mask(mask, c + r * g->c_row + j, acc[r]);
}

INLINE void stream_as(const enum cb_dtype dtype, const struct gemm *g, int64_t begin, int64_t end) {
    for (int64_t p = 0; p < g->k;) {
        const int depth = g->k - p >= 8 && g->m == 1 ? 8 : g->k - p >= 4 ? 4 : 1;
        int64_t i = 0;
        for (; depth == 4 && i + 4 <= g->m; i += 4) stream_part(4, 4, dtype, g, i, p, begin, end);
        for (; depth == 4 && i + 2 <= g->m; i += 2) stream_part(2, 4, dtype, g, i, p, begin, end);
        for (; depth == 8 && i < g->m; i++) stream_part(1, 8, dtype, g, i, p, begin, end);
        for (; depth == 4 && i < g->m; i++) stream_part(1, 4, dtype, g, i, p, begin, end);
        for (; i < g->m; i++) stream_part(1, 1, dtype, g, i, p, begin, end);
        p += depth;
    }
}

static void stream(const struct gemm *g, int64_t begin, int64_t end) {
    if (g->b_dtype == CB_DTYPE_F16) {
        stream_as(CB_DTYPE_F16, g, begin, end);
    } else if (g->b_dtype == CB_DTYPE_BF16) {
        stream_as(CB_DTYPE_BF16, g, begin, end);
    } else {
        stream_as(CB_DTYPE_F32, g, begin, end);
    }
}

/* ---- dot products of rows */
INLINE void dot_put(const struct gemm_dot *d, bool first, int64_t x, int64_t y, float sum) {
    float *to = d->c + x * d->c_x + y * d->c_y;
    if (first && d->bias_x) sum += d->bias_x[x];
    if (first && d->bias_y) sum += d->bias_y[y];
    *to = first && !d->accumulate ? sum : *to + sum;
}

enum { DOT_AHEAD = 4096 /* bytes of Y */ };

/* n_x rows of X with n_y rows of Y from row y (rows holds row y of Y at element 0), along [0, k). */
INLINE void dot_part(const int n_x, const int n_y, const enum cb_dtype dtype, const struct gemm_dot *d, const float *x, const void *rows,
                     int64_t row_step, int64_t k, bool first, int64_t at_x, int64_t at_y) {
    vf acc[8][4];
    UNROLL for (int i = 0; i < n_x; i++) { UNROLL for (int j = 0; j < n_y; j++) acc[i][j] = vf_zero(); }
    const int64_t bytes = dtype == CB_DTYPE_F32 ? 4 : 2, ahead = DOT_AHEAD / n_y / bytes;
    int64_t p = 0;
    for (; p + VL <= k; p += VL) {
        vf y[4];
        // past the ends of these rows come the beginnings of the next n_y
        const char *soon = (const char *)rows + (p + ahead + (p + ahead < k ? 0 : n_y * row_step - k)) * bytes;
        UNROLL for (int j = 0; j < n_y; j++) {
            __builtin_prefetch(soon + j * row_step * bytes);
            y[j] = load_as(dtype, rows, j * row_step + p);
        }
        UNROLL for (int i = 0; i < n_x; i++) {
            vf v = vf_load(x + i * d->x_row + p);
            UNROLL for (int j = 0; j < n_y; j++) acc[i][j] = vf_fma(v, y[j], acc[i][j]);
        }
    }
    if (p < k) {
        UNROLL for (int j = 0; j < n_y; j++) {
            vf y = load_part_as(dtype, rows, j * row_step + p, k - p);
            UNROLL for (int i = 0; i < n_x; i++) acc[i][j] = vf_fma(vf_load_mask(vm_first(k - p), x + i * d->x_row + p), y, acc[i][j]);
        }
    }
    UNROLL for (int i = 0; i < n_x; i++) { UNROLL for (int j = 0; j < n_y; j++) dot_put(d, first, at_x + i, at_y + j, vf_sum(acc[i][j])); }
}

/* All of X with n_y rows of Y, along k values from p0. */
INLINE void dot_rows(const int n_y, const enum cb_dtype dtype, const struct gemm_dot *d, int64_t p0, const void *rows, int64_t row_step,
                     int64_t k, int64_t at_y) {
    int64_t i = 0;
    for (; XR_MAX == 8 && i + 8 <= d->n_x && n_y <= YR_WIDE; i += 8)
        dot_part(8, n_y, dtype, d, d->x + i * d->x_row + p0, rows, row_step, k, p0 == 0, i, at_y);
    for (; i + 4 <= d->n_x; i += 4) dot_part(4, n_y, dtype, d, d->x + i * d->x_row + p0, rows, row_step, k, p0 == 0, i, at_y);
    for (; i + 2 <= d->n_x; i += 2) dot_part(2, n_y, dtype, d, d->x + i * d->x_row + p0, rows, row_step, k, p0 == 0, i, at_y);
    for (; i < d->n_x; i++) dot_part(1, n_y, dtype, d, d->x + i * d->x_row + p0, rows, row_step, k, p0 == 0, i, at_y);
}

INLINE void dot_as(const enum cb_dtype dtype, const struct gemm_dot *d, int64_t begin, int64_t end) {
    const char *y = d->y;
    const int64_t row_bytes = d->y_row * (dtype == CB_DTYPE_F32 ? 4 : 2);
    int64_t j = begin;
    if (d->n_x >= 4)
        for (; j + YR_WIDE <= end; j += YR_WIDE) dot_rows(YR_WIDE, dtype, d, 0, y + j * row_bytes, d->y_row, d->k, j);
    for (; d->n_x < 4 && j + 4 <= end; j += 4) dot_rows(4, dtype, d, 0, y + j * row_bytes, d->y_row, d->k, j);
    for (; j < end; j++) dot_rows(1, dtype, d, 0, y + j * row_bytes, d->y_row, d->k, j);
}

/* Block types: rows are decoded piece by piece. */
static void dot_blocks(const struct gemm_dot *d, int64_t begin, int64_t end) {
    const struct dtype *type = dtype_of(d->y_dtype);
    float rows[DECODE];
    for (int64_t j = begin; j < end; j++)
        for (int64_t p = 0; p < d->k; p += DECODE) {
            const int64_t n = least(DECODE, d->k - p);
            decode(type, d->y_dtype, rows, (const char *)d->y + (j * d->y_row + p) / type->block * type->block_bytes, n);
            dot_rows(1, CB_DTYPE_F32, d, p, rows, 0, n, j);
        }
}

static void dot(const struct gemm_dot *d, int64_t begin, int64_t end) {
    if (d->y_dtype == CB_DTYPE_F32) {
        dot_as(CB_DTYPE_F32, d, begin, end);
    } else if (d->y_dtype == CB_DTYPE_F16) {
        dot_as(CB_DTYPE_F16, d, begin, end);
    } else if (d->y_dtype == CB_DTYPE_BF16) {
        dot_as(CB_DTYPE_BF16, d, begin, end);
    } else {
        dot_blocks(d, begin, end);
    }
}
