/* Small matrix products on blocks that sit in cache: the inner loops of attention. */
#ifndef BACKEND_CPU_MINI_H
#define BACKEND_CPU_MINI_H
#include "backend/cpu/simd.h"

/* Rows x vectors of C that stay in registers: 24 of 32, or 12 of 16. */
#define MINI_ROWS 6
#if SIMD_LANES == 16
#define MINI_VECTORS 4
#else
#define MINI_VECTORS 2
#endif

/* Rows of floats wanted after the products at hand, which ask for them bit by bit: a burst would hold up what they read themselves. */
#define MINI_SETS 8
#define MINI_ASK (256 / SIMD_LANES) /* steps of a product between two times of asking */
#define MINI_ASKED 64 /* floats at a time, in whole rows */
struct mini_ahead {
    struct mini_rows {
        const float *at;
        int64_t step, left;
    } set[MINI_SETS];
    int n_sets, done;
    int64_t floats; /* of a row */
};

/* Into the second cache: the first is full of the products' own. */
static inline void mini_ask(struct mini_ahead *x) {
    for (int64_t asked = 0; asked < MINI_ASKED && x->done < x->n_sets; asked += x->floats) {
        struct mini_rows *rows = &x->set[x->done];
        for (int64_t i = 0; i < x->floats; i += 16) __builtin_prefetch(rows->at + i, 0, 2);
        rows->at += rows->step;
        if (--rows->left == 0) x->done++;
    }
}

/* C (M,N) = init + A (M,K) B (K,N), with A[m,k] at a[m * a_row + k * a_column]. B's rows must be readable up to whole vectors. */
struct mini {
    const float *a, *b;
    float *c;
    int64_t a_row, a_column, b_row, c_row;
    int64_t m, n, k;
    const float *alpha; /* init = alpha[n] * C; nullable */
    bool add; /* where alpha is NULL: init = C, else 0 */
    struct mini_ahead *ahead;
};

/* One column of A times one row of B. */
SIMD_INLINE void mini_step(const float *a, int64_t a_row, const float *b, vf (*acc)[MINI_VECTORS], const int rows, const int vectors) {
    vf row[MINI_VECTORS];
    SIMD_UNROLL
    for (int v = 0; v < vectors; v++) row[v] = vf_load(b + v * SIMD_LANES);
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        vf x = vf_set(a[r * a_row]);
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) acc[r][v] = vf_fma(x, row[v], acc[r][v]);
    }
}

/* One register block at row m, lane n; tail: lanes of the last vector. */
SIMD_INLINE void mini_block(const struct mini *p, int64_t m, int64_t n, const int rows, const int vectors, const int tail) {
    vf acc[MINI_ROWS][MINI_VECTORS];
    const float *a = p->a + m * p->a_row, *b = p->b + n;
    float *c = p->c + m * p->c_row + n;
    int64_t a_row = p->a_row, a_column = p->a_column, b_row = p->b_row, c_row = p->c_row, k = p->k;
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) acc[r][v] = vf_zero();
    }
    if (p->alpha || p->add) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) {
            vf alpha = p->alpha ? vf_load(p->alpha + n + v * SIMD_LANES) : vf_set(1.0f);
            SIMD_UNROLL
            for (int r = 0; r < rows; r++) acc[r][v] = alpha * vf_at(c + r * c_row + v * SIMD_LANES, v == vectors - 1 ? tail : SIMD_LANES);
        }
    }
    for (; k > 0; k -= MINI_ASK) {
        mini_ask(p->ahead);
        for (int64_t i = k < MINI_ASK ? k : MINI_ASK; i > 0; i--, a += a_column, b += b_row) mini_step(a, a_row, b, acc, rows, vectors);
    }
    SIMD_UNROLL
    for (int r = 0; r < rows; r++) {
        SIMD_UNROLL
        for (int v = 0; v < vectors; v++) vf_put(c + r * c_row + v * SIMD_LANES, acc[r][v], v == vectors - 1 ? tail : SIMD_LANES);
    }
}

/* All rows of one column of blocks. */
SIMD_INLINE void mini_column(const struct mini *p, int64_t n, const int vectors, const int tail) {
    int64_t m = 0;
    for (; m + MINI_ROWS <= p->m; m += MINI_ROWS) mini_block(p, m, n, MINI_ROWS, vectors, tail);
    if (m + 4 <= p->m) mini_block(p, m, n, 4, vectors, tail), m += 4;
    if (m + 2 <= p->m) mini_block(p, m, n, 2, vectors, tail), m += 2;
    if (m < p->m) mini_block(p, m, n, 1, vectors, tail);
}

static __attribute__((noinline)) void mini_columns(const struct mini *p, int64_t n, int vectors) {
    switch (vectors) {
#if MINI_VECTORS == 4
        case 4: mini_column(p, n, 4, SIMD_LANES); break;
#endif
        case 2: mini_column(p, n, 2, SIMD_LANES); break;
        default: mini_column(p, n, 1, SIMD_LANES); break;
    }
}
static __attribute__((noinline)) void mini_tail(const struct mini *p, int64_t n, int tail) { mini_column(p, n, 1, tail); }

static __attribute__((unused)) void mini_run(const struct mini *p) {
    int64_t n = 0, whole = p->n / SIMD_LANES * SIMD_LANES;
    while (n < whole) {
        int vectors = MINI_VECTORS;
        while (vectors * SIMD_LANES > whole - n) vectors /= 2;
        mini_columns(p, n, vectors);
        n += vectors * SIMD_LANES;
    }
    if (n < p->n) mini_tail(p, n, (int)(p->n - n));
}
#endif
