/* Matrix multiplication on the CPU: C (m,n) = A (m,k) B (k,n), any strides and number types, bit-equal for any number of threads. */
#ifndef BACKEND_CPU_GEMM_H
#define BACKEND_CPU_GEMM_H
#include "base/dtype.h"
#include "base/pool.h"

struct gemm_isa;

/* One multiplication. Steps are in elements; a_row or a_col should be 1, and b_row or b_col, or packing is slow.
   B of a block type (q8_0 ...) is stored by rows of B transposed: b_row 1, b_col a multiple of the block, as is k. */
struct gemm {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_col;  // A[i,p] = a[i * a_row + p * a_col]
    const void *b;
    int64_t b_row, b_col;  // B[p,j] = b[p * b_row + j * b_col]
    enum cb_dtype b_dtype;  // f32, f16, bf16 or a block type
    float *c;
    int64_t c_row;  // C[i,j] = c[i * c_row + j]; C overlaps neither A nor B
    bool accumulate;  // C += A B instead of C = A B
    const float *bias;  // (n), added to every row; nullable
    const struct gemm_isa *isa;  // whose kernels
    /* A thin product over the same rows, added to each tile of C before it is left: A2 (m,r), contiguous rows, B2 (r,n), f32. r 0: none. */
    int64_t r;
    const float *a2, *b2;
    int64_t a2_row, b2_row, b2_col;
};

/* Bytes of work that gemm_run needs with a pool of n_threads (1: none). Depends on sizes, strides and type, not on pointers. */
size_t gemm_workspace(const struct gemm *g, int n_threads);
/* work: 64-byte aligned, nullable where gemm_workspace is 0. pool nullable: the calling thread does all. */
void gemm_run(const struct gemm *g, void *work, struct pool *pool);

/* Whether B of this type is understood. */
bool gemm_dtype_ok(enum cb_dtype dtype);
/* The best set of kernels for a processor (CPU_* mask). */
const struct gemm_isa *gemm_isa_for(uint32_t cpu);
/* The sets, best first, NULL-ended. */
const struct gemm_isa *const *gemm_isa_list(void);

/* Dot products of rows; both contiguous along k. */
struct gemm_dot {
    int64_t n_x, k;
    const float *x;
    int64_t x_row;
    const void *y;
    int64_t y_row;  // elements
    enum cb_dtype y_dtype;
    float *c;
    int64_t c_x, c_y;
    bool accumulate;
    const float *bias_x, *bias_y;  // nullable
};

/* C (m,n) = or += A B (+ bias (n), nullable) from packed panels of B, and one of A, or A's own rows of contiguous k. */
struct gemm_tile {
    int64_t m, n, k;  // m at most mr
    const float *a;
    int64_t a_row;  // rows of A lie a_row apart; 0: A is one packed panel
    const float *ahead;  // of A, wanted next: n_ahead rows of k_ahead floats, ahead_row apart
    int64_t n_ahead, k_ahead, ahead_row;
    float *b;
    int64_t b_panel;
    enum cb_dtype b_dtype;  // of B before it was packed
    const float *fresh;  // nullable: B itself, rows fresh_row apart, of which b becomes the panels
    int64_t fresh_row;
    float *c;
    int64_t c_row;
    bool accumulate;
    const float *bias;
};

/* A matrix unit that multiplies bf16: its panels hold each number as a few of them, and a depth that is a multiple of its step, with zeros after. */
struct gemm_split {
    const struct gemm_isa *base;  // for products too small for the unit, and thin ones added to it: its nr is the unit's
    int step;
    int (*pieces)(enum cb_dtype dtype);  // bf16 of a number of B; A has those of f32
    /* As gemm_isa's pack, for panels of mr rows of A and nr columns of B. */
    void (*pack_a)(float *out, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t step_k, int64_t n_wide,
                   int64_t k);
    void (*pack_b)(float *out, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t step_k, int64_t n_wide,
                   int64_t k);
    /* The unit with nothing to load: the operations on f32 that so many rounds of its products are worth. */
    double (*spin)(int64_t rounds);
};

/* Kernels for one instruction set (gemm_plain.c, gemm_avx2.c, gemm_avx512.c share gemm_body.h; gemm_amx.c has tile and split alone). Packed panels:
   element (w, p) of a panel of width W lies at p * W + w; rows past the end of B's panels are zero. */
struct gemm_isa {
    const char *name;
    uint32_t cpu;
    int mr, nr;  // rows and columns of a register tile: widths of A's and B's panels
    /* Packs n_wide rows by k columns, element (w, p) at src[w * step_w + p * step_k], into panels of the given width, panel_step floats apart. */
    void (*pack)(float *out, int64_t width, int64_t panel_step, const void *src, enum cb_dtype dtype, int64_t step_w, int64_t step_k,
                 int64_t n_wide, int64_t k);
    void (*tile)(const struct gemm_tile *t);
    /* C from A of any strides and f32 B with b_col 1, in registers, unpacked. */
    void (*direct)(const struct gemm *g);
    /* C += A B for columns [begin, end): B's rows stream past; b_col 1, plain type. */
    void (*stream)(const struct gemm *g, int64_t begin, int64_t end);
    /* C[x * c_x + y * c_y] = or += sum_p X[x,p] Y[y,p] (+ bias_x[x] or bias_y[y]), y in [begin, end): rows of Y stream past. */
    void (*dot)(const struct gemm_dot *d, int64_t begin, int64_t end);
    const struct gemm_split *split;  // nullable
};

#endif
