/* Matrix multiplication by the tile unit of AMX, which multiplies bf16 and adds in f32. Each f32 is cut into three bf16 whose sum is exactly that
   number: the first takes the upper 8 bits of the significand, the second the next 8, rounded, the third what is left. Of the nine products of
   pieces, the six largest are added; the others are below 2^-23 of the product, as f32's own rounding is (Henry, Tang & Heinecke 2019, "Leveraging the
   bfloat16 artificial intelligence datatype for higher-precision computations"). Infinities become NaN, as sums
   that overflow may; pieces and products below 2^-126 are lost. */
#include "base/cpuid.h"

#if defined(COMPILED_FOR_AMX)
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/gemm.h"

#define INLINE static inline __attribute__((always_inline))

extern const struct gemm_isa gemm_avx512;

enum {
    SIDE = 16,  // rows, or columns, of a tile
    WIDE = 2 * SIDE,  // of C's block: two by two tiles
    PAIRS = 16,  // of bf16 along k: a step takes 32 values
    DEPTH = 2 * PAIRS,
    TILE = SIDE * PAIRS,  // dwords, each a pair of bf16
    PIECES = 3,
    PRODUCTS = 6,  // of pieces
    A_STEP = PIECES * 2 * TILE,  // dwords of a panel of A for one step: for each piece, largest first, two tiles
    CHUNK = 128,  // k of B that is decoded at a time, or a block of the type
    CHUNK_MOST = 512,
};

/* Palette 1: eight tiles of 16 rows by 64 bytes (Intel SDM volume 1, chapter 18). */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t column_bytes[16];
    uint8_t rows[16];
};
static const struct tile_config config = {
    .palette = 1, .column_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE}};

/* bf16 that a number of this type has at most. */
static int pieces_of(enum cb_dtype dtype) { return dtype == CB_DTYPE_BF16 ? 1 : dtype == CB_DTYPE_F16 ? 2 : PIECES; }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- packing */
/* The upper half of each piece is a bf16. */
struct pieces {
    __m512i of[PIECES];
};
INLINE struct pieces cut(__m512 x) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u), half = _mm512_set1_epi32(0x8000);
    const __m512i first = _mm512_and_si512(_mm512_castps_si512(x), upper);
    const __m512 left = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
    const __m512i second = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(left), half), upper);
    return (struct pieces){{first, second, _mm512_castps_si512(_mm512_sub_ps(left, _mm512_castsi512_ps(second)))}};
}

/* 16 rows of 16 dwords, turned. */
INLINE void turn(__m512i x[SIDE]) {
    __m512i y[SIDE];
    for (int i = 0; i < SIDE; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(x[i], x[i + 1]), b = _mm512_unpackhi_epi32(x[i], x[i + 1]),
                      c = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), d = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_epi64(a, c), y[i + 1] = _mm512_unpackhi_epi64(a, c);
        y[i + 2] = _mm512_unpacklo_epi64(b, d), y[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // y[4 i + q] holds, in each quarter, column q of that quarter for rows 4 i to 4 i + 3
    for (int q = 0; q < 4; q++) {
        const __m512i a = _mm512_shuffle_i32x4(y[q], y[4 + q], 0x88), b = _mm512_shuffle_i32x4(y[q], y[4 + q], 0xdd),
                      c = _mm512_shuffle_i32x4(y[8 + q], y[12 + q], 0x88), d = _mm512_shuffle_i32x4(y[8 + q], y[12 + q], 0xdd);
        x[q] = _mm512_shuffle_i32x4(a, c, 0x88), x[8 + q] = _mm512_shuffle_i32x4(a, c, 0xdd);
        x[4 + q] = _mm512_shuffle_i32x4(b, d, 0x88), x[12 + q] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

INLINE __mmask16 first(int64_t n) { return (__mmask16)(n >= SIDE ? 0xffff : n > 0 ? (1u << n) - 1 : 0); }
/* Where the tile of row or column i and depth p begins: steps of DEPTH follow each other, shorter where there are fewer pieces. */
INLINE uint32_t *place(float *out, int64_t panel_step, int n_pieces, int64_t i, int64_t p) {
    return (uint32_t *)(out + i / WIDE * panel_step) + p / DEPTH * n_pieces * 2 * TILE + i % WIDE / SIDE * TILE;
}

/* A tile of A: row i holds the pairs along k of row i. Rows are contiguous along k; n rows and k values, SIDE and DEPTH at most, zeros after. */
INLINE void tile_of_rows(uint32_t *to, const float *rows, int64_t step, int64_t n, int64_t k) {
    const __m512i uppers = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19, 17,
                                            15, 13, 11, 9, 7, 5, 3, 1);
    const __mmask16 low = first(k), high = first(k - SIDE);
    for (int64_t i = 0; i < SIDE; i++, to += PAIRS) {
        struct pieces a = {0}, b = {0};
        if (i < n) {
            const float *row = rows + i * step;
            a = cut(_mm512_maskz_loadu_ps(low, row)), b = cut(_mm512_maskz_loadu_ps(high, row + SIDE));
        }
        for (int p = 0; p < PIECES; p++) _mm512_storeu_si512(to + p * 2 * TILE, _mm512_permutex2var_epi16(a.of[p], uppers, b.of[p]));
    }
}

/* Pieces of two neighbours along k, as a row of a tile of B: pairs of the columns. */
INLINE void row_of_pairs(uint32_t *to, const int n_pieces, __m512 even, __m512 odd) {
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    const struct pieces a = cut(even), b = cut(odd);
    for (int p = 0; p < n_pieces; p++)
        _mm512_storeu_si512(to + p * 2 * TILE, _mm512_or_si512(_mm512_srli_epi32(a.of[p], 16), _mm512_and_si512(b.of[p], upper)));
}

/* A tile of B: row q holds, for each column, its values 2 q and 2 q + 1 along k. Columns are contiguous; n columns and k values as above. */
INLINE void tile_of_columns(uint32_t *to, const int n_pieces, const float *columns, int64_t step, int64_t n, int64_t k) {
    for (int64_t q = 0; q < DEPTH; q += 2, to += SIDE) {
        const float *even = columns + q * step, *odd = even + step;
        row_of_pairs(to, n_pieces, _mm512_maskz_loadu_ps(q < k ? first(n) : 0, even), _mm512_maskz_loadu_ps(q + 1 < k ? first(n) : 0, odd));
    }
}

/* The same where columns are contiguous along k. */
INLINE void tile_of_turned(uint32_t *to, const int n_pieces, const float *columns, int64_t step, int64_t n, int64_t k) {
    for (int64_t p = 0; p < DEPTH; p += SIDE) {
        __m512i x[SIDE];
        for (int64_t i = 0; i < SIDE; i++) {
            x[i] = _mm512_maskz_loadu_epi32(i < n ? first(k - p) : 0, columns + i * step + p);
        }
        turn(x);
        for (int q = 0; q < SIDE; q += 2, to += SIDE) row_of_pairs(to, n_pieces, _mm512_castsi512_ps(x[q]), _mm512_castsi512_ps(x[q + 1]));
    }
}

/* A tile of A whose rows lie next to each other: what is contiguous is turned first. */
INLINE void tile_of_crossed(uint32_t *to, const float *rows, int64_t step, int64_t n, int64_t k) {
    float turned[SIDE * DEPTH];
    for (int64_t p = 0; p < DEPTH; p += SIDE) {
        __m512i x[SIDE];
        for (int64_t q = 0; q < SIDE; q++) {
            x[q] = _mm512_maskz_loadu_epi32(p + q < k ? first(n) : 0, rows + (p + q) * step);
        }
        turn(x);
        for (int i = 0; i < SIDE; i++) _mm512_storeu_si512(turned + i * DEPTH + p, x[i]);
    }
    tile_of_rows(to, turned, DEPTH, SIDE, DEPTH);
}

/* Panels of WIDE rows of A: steps of DEPTH follow each other. What is contiguous is read first; where nothing is, a tile's numbers are gathered. */
static void pack_a(float *out, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t step_k, int64_t n,
                   int64_t k) {
    const float *from = src;  // f32
    if (step_k == 1) {
        for (int64_t i = 0; i < n; i += SIDE)
            for (int64_t p = 0; p < k; p += DEPTH)
                tile_of_rows(place(out, panel_step, PIECES, i, p), from + i * step_w + p, step_w, least(SIDE, n - i), k - p);
        return;
    }
    float gathered[SIDE * DEPTH];
    for (int64_t p = 0; p < k; p += DEPTH) {
        for (int64_t i = 0; i < n; i += SIDE) {
            const float *rows = from + i * step_w + p * step_k;
            const int64_t n_rows = least(SIDE, n - i);
            if (step_w != 1) gemm_avx512.pack(gathered, SIDE, 0, rows, dtype, step_w, step_k, n_rows, least(DEPTH, k - p));
            tile_of_crossed(place(out, panel_step, PIECES, i, p), step_w == 1 ? rows : gathered, step_w == 1 ? step_k : SIDE, n_rows,
                            k - p);
        }
    }
}

/* Panels of WIDE columns of B, likewise. Other types, and other layouts, are turned into f32 first. */
INLINE void pack_pieces(const int n_pieces, float *out, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w,
                        int64_t step_k, int64_t n, int64_t k) {
    const float *from = src;
    if (dtype == CB_DTYPE_F32 && step_w == 1) {
        for (int64_t p = 0; p < k; p += DEPTH)
            for (int64_t j = 0; j < n; j += SIDE)
                tile_of_columns(place(out, panel_step, n_pieces, j, p), n_pieces, from + j + p * step_k, step_k, least(SIDE, n - j), k - p);
        return;
    }
    if (dtype == CB_DTYPE_F32 && step_k == 1) {
        for (int64_t j = 0; j < n; j += SIDE)
            for (int64_t p = 0; p < k; p += DEPTH)
                tile_of_turned(place(out, panel_step, n_pieces, j, p), n_pieces, from + j * step_w + p, step_w, least(SIDE, n - j), k - p);
        return;
    }
    const struct dtype *type = dtype_of(dtype);
    const int64_t chunk = type->block > CHUNK ? type->block : CHUNK;
    float decoded[SIDE * CHUNK_MOST];
    for (int64_t j = 0; j < n; j += SIDE) {
        for (int64_t p = 0; p < k; p += DEPTH) {
            const char *blocks = (const char *)src + (j * step_w + p * step_k) / type->block * type->block_bytes;
            if (p % chunk == 0) gemm_avx512.pack(decoded, SIDE, 0, blocks, dtype, step_w, step_k, least(SIDE, n - j), least(chunk, k - p));
            tile_of_columns(place(out, panel_step, n_pieces, j, p), n_pieces, decoded + p % chunk * SIDE, SIDE, SIDE, k - p);
        }
    }
}

static void pack_b(float *out, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t step_k, int64_t n,
                   int64_t k) {
    switch (pieces_of(dtype)) {
        case 1: pack_pieces(1, out, panel_step, src, dtype, step_w, step_k, n, k); break;
        case 2: pack_pieces(2, out, panel_step, src, dtype, step_w, step_k, n, k); break;
        default: pack_pieces(PIECES, out, panel_step, src, dtype, step_w, step_k, n, k); break;
    }
}

/* ---- tiles */
struct block_call {
    const uint32_t *a, *b;
    int64_t steps;
    float *c;
    int64_t c_row;
    const char *ahead;  // of A, wanted after this: lines_ahead cache lines a step
    int64_t lines_ahead;
    const float *c_ahead;  // C's next block, rows c_ahead_row apart; nullable
    int64_t c_ahead_row;
};

/* Tiles 0 to 3 are C's block, 4 and 5 of A, 6 and 7 of B. */
#define LOAD_A(piece)                                                 \
    do {                                                              \
        _tile_loadd(4, a + (piece)*2 * TILE, 64);                     \
        if (two_rows) _tile_loadd(5, a + ((piece)*2 + 1) * TILE, 64); \
    } while (0)
#define LOAD_B(piece)                                                    \
    do {                                                                 \
        _tile_loadd(6, b + (piece)*2 * TILE, 64);                        \
        if (two_columns) _tile_loadd(7, b + ((piece)*2 + 1) * TILE, 64); \
    } while (0)
#define MULTIPLY                                              \
    do {                                                      \
        _tile_dpbf16ps(0, 4, 6);                              \
        if (two_columns) _tile_dpbf16ps(1, 4, 7);             \
        if (two_rows) _tile_dpbf16ps(2, 5, 6);                \
        if (two_rows && two_columns) _tile_dpbf16ps(3, 5, 7); \
    } while (0)

INLINE void block(const bool two_rows, const bool two_columns, const int n_pieces, const struct block_call *t) {
    const uint32_t *a = t->a, *b = t->b;
    __asm__ volatile("" ::: "memory");  // gcc's tile loads do not say that they read memory: what they read is stored before
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const char *ahead = t->ahead;
    int64_t c_next = 0;
    // the smallest products first; each step changes one operand
    for (int64_t s = 0; s < t->steps; s++, a += A_STEP, b += n_pieces * 2 * TILE) {
        LOAD_A(2);
        LOAD_B(0);
        MULTIPLY;
        LOAD_A(1);
        MULTIPLY;
        if (n_pieces > 1) {
            LOAD_B(1);
            MULTIPLY;
        }
        LOAD_A(0);
        if (n_pieces > 1) MULTIPLY;
        if (n_pieces > 2) {
            LOAD_B(2);
            MULTIPLY;
        }
        if (n_pieces > 1) LOAD_B(0);
        MULTIPLY;
        for (int64_t i = 0; i < t->lines_ahead; i++, ahead += 64) __builtin_prefetch(ahead, 0, 2);
        for (int i = 0; t->c_ahead && i < 4 && c_next < WIDE; i++, c_next++) {
            const float *c = t->c_ahead + c_next * t->c_ahead_row;
            __builtin_prefetch(c, 1), __builtin_prefetch(c + WIDE - 1, 1);
        }
    }
    const size_t step = (size_t)t->c_row * sizeof(float);
    _tile_stored(0, t->c, step);
    if (two_columns) _tile_stored(1, t->c + SIDE, step);
    if (two_rows) _tile_stored(2, t->c + SIDE * t->c_row, step);
    if (two_rows && two_columns) _tile_stored(3, t->c + SIDE * t->c_row + SIDE, step);
}

#define BLOCKS(pieces)                                                                            \
    static void block_11_##pieces(const struct block_call *t) { block(false, false, pieces, t); } \
    static void block_12_##pieces(const struct block_call *t) { block(false, true, pieces, t); }  \
    static void block_21_##pieces(const struct block_call *t) { block(true, false, pieces, t); }  \
    static void block_22_##pieces(const struct block_call *t) { block(true, true, pieces, t); }
BLOCKS(1)
BLOCKS(2)
BLOCKS(3)
static void (*const blocks[PIECES][2][2])(const struct block_call *t) = {{{block_11_1, block_12_1}, {block_21_1, block_22_1}},
                                                                         {{block_11_2, block_12_2}, {block_21_2, block_22_2}},
                                                                         {{block_11_3, block_12_3}, {block_21_3, block_22_3}}};

/* The sums of a block into n columns of C, to what it was where it accumulates: added once, they round at their own size and not at C's. */
static void put(const struct gemm_tile *t, float *c, const float *bias, int64_t n, const float sums[WIDE * WIDE]) {
    for (int64_t r = 0; r < t->m; r++, c += t->c_row, sums += WIDE) {
        for (int64_t j = 0; j < n; j += SIDE) {
            const __mmask16 some = first(n - j);
            __m512 x = _mm512_loadu_ps(sums + j);
            if (bias) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(some, bias + j));
            if (t->accumulate) x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(some, c + j));
            _mm512_mask_storeu_ps(c + j, some, x);
        }
    }
}

static void tile(const struct gemm_tile *t) {
    const int n_pieces = pieces_of(t->b_dtype);
    const int64_t panels = (t->n + WIDE - 1) / WIDE, steps = (t->k + DEPTH - 1) / DEPTH, lines = t->n_ahead * t->k_ahead / SIDE;
    _Alignas(64) float sums[WIDE * WIDE];
    struct block_call g = {.a = (const uint32_t *)t->a, .steps = steps, .lines_ahead = lines / (panels * steps)};
    _tile_loadconfig(&config);
    for (int64_t i = 0; i < panels; i++) {
        const int64_t n = least(WIDE, t->n - i * WIDE);
        const float *bias = t->bias ? t->bias + i * WIDE : NULL;
        float *c = t->c + i * WIDE;
        const bool is_direct = t->m % SIDE == 0 && n % SIDE == 0 && !bias && !t->accumulate;
        g.b = (const uint32_t *)(t->b + i * t->b_panel);
        g.c = is_direct ? c : sums, g.c_row = is_direct ? t->c_row : WIDE;
        g.ahead = (const char *)(t->ahead + i * g.lines_ahead * steps * SIDE);
        g.c_ahead = t->m < WIDE || n < WIDE ? NULL : i + 1 < panels ? c + WIDE : t->n_ahead ? t->c + t->m * t->c_row : NULL;
        g.c_ahead_row = t->c_row;
        blocks[n_pieces - 1][t->m > SIDE][n > SIDE](&g);
        if (!is_direct) put(t, c, bias, n, sums);
    }
    _tile_release();
}

static double spin(int64_t rounds) {
    const bool two_rows = true, two_columns = true;
    _tile_loadconfig(&config);  // tiles become zeros
    for (int64_t i = 0; i < rounds; i++)
        for (int product = 0; product < PRODUCTS; product++) MULTIPLY;
    _tile_release();
    return 2.0 * WIDE * WIDE * DEPTH * (double)rounds;
}

static const struct gemm_split split = {&gemm_avx512, DEPTH, pieces_of, pack_a, pack_b, spin};
const struct gemm_isa gemm_amx = {
    .name = "amx", .cpu = CPU_AMX | CPU_AVX512 | CPU_AVX2, .mr = WIDE, .nr = WIDE, .tile = tile, .split = &split};
#else
typedef int gemm_amx_is_empty;  // another processor
#endif
