/* Matrix multiplication against a double loop: odd shapes, strides, number types, bias and accumulation, every kernel set, 1 to 3 threads. */
#include "backend/cpu/gemm.h"
#include "base/cpuid.h"
#include "base/rng.h"
#include "harness.h"

enum { THREADS = 3 };

struct problem {
    int64_t m, n, k;
    bool trans_a, trans_b, accumulate, bias;
    enum cb_dtype dtype;
    int64_t pad;  // extra elements between stored rows
    int64_t spread;  // elements from one of a row of A or B to the next; block types: 1
};

/* Storage of one problem: values in [-1,1), and B decoded to f32. */
struct fixture {
    float *a, *bias, *start, *b_f32, *c[THREADS + 1];
    void *b;
    struct gemm g;
    int64_t c_floats;
};

static void *space(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p) fprintf(stderr, "test_gemm: out of memory\n"), exit(1);
    return p;
}
static void fill(float *p, int64_t n, struct rng *rng) {
    for (int64_t i = 0; i < n; i++) p[i] = rng_uniform(rng_u32(rng)) * 2 - 1;
}

/* Random values in the block layouts: scales of 1/64, random quants. */
static void fill_blocks(uint8_t *p, const struct dtype *type, int64_t n, struct rng *rng) {
    for (int64_t i = 0; i < n / type->block; i++) {
        uint8_t *block = p + i * type->block_bytes;
        for (int j = 0; j < type->block_bytes; j++) block[j] = (uint8_t)rng_u32(rng);
        const uint16_t scale = f16_from_f32(1.0f / 512);
        memcpy(block, &scale, 2);
        if (type->block_bytes == 144) memcpy(block + 2, &scale, 2);
    }
}

static void setup(struct fixture *f, const struct problem *p) {
    struct rng rng = rng_make(7, (uint64_t)(p->m * 1000003 + p->n * 1009 + p->k));
    const struct dtype *type = dtype_of(p->dtype);
    const int64_t spread = p->spread;
    const int64_t a_line = (p->trans_a ? p->m : p->k) * spread + p->pad,
                  b_line = (p->trans_b ? p->k : p->n) * spread + (type->block > 1 ? 0 : p->pad);
    const int64_t a_floats = a_line * (p->trans_a ? p->k : p->m), b_floats = b_line * (p->trans_b ? p->n : p->k);
    memset(f, 0, sizeof *f);
    f->a = space((size_t)a_floats * 4);
    f->b_f32 = space((size_t)b_floats * 4);
    f->b = space((size_t)(b_floats / type->block * type->block_bytes));
    f->bias = space((size_t)p->n * 4);
    f->c_floats = p->m * (p->n + p->pad);
    f->start = space((size_t)f->c_floats * 4);
    for (int i = 0; i <= THREADS; i++) f->c[i] = space((size_t)f->c_floats * 4);
    fill(f->a, a_floats, &rng);
    fill(f->b_f32, b_floats, &rng);
    fill(f->bias, p->n, &rng);
    fill(f->start, f->c_floats, &rng);
    if (type->block > 1) {
        fill_blocks(f->b, type, b_floats, &rng);
    } else {
        type->from_f32(f->b, f->b_f32, b_floats);
    }
    type->to_f32(f->b_f32, f->b, b_floats);
    f->g = (struct gemm){.m = p->m,
                         .n = p->n,
                         .k = p->k,
                         .a = f->a,
                         .a_row = p->trans_a ? spread : a_line,
                         .a_col = p->trans_a ? a_line : spread,
                         .b = f->b,
                         .b_row = p->trans_b ? spread : b_line,
                         .b_col = p->trans_b ? b_line : spread,
                         .b_dtype = p->dtype,
                         .c_row = p->n + p->pad,
                         .accumulate = p->accumulate,
                         .bias = p->bias ? f->bias : NULL};
}

static void teardown(struct fixture *f) {
    free(f->a), free(f->b), free(f->b_f32), free(f->bias), free(f->start);
    for (int i = 0; i <= THREADS; i++) free(f->c[i]);
}

/* What C must be, by a double loop, beside one result; the gaps between rows must be as they were. */
static void compare(const struct problem *p, const struct fixture *f, const float *c, const char *isa) {
    const struct gemm *g = &f->g;
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t j = 0; j < g->n; j++) {
            double sum = (g->bias ? (double)g->bias[j] : 0) + (g->accumulate ? (double)f->start[i * g->c_row + j] : 0), size = 1;
            for (int64_t q = 0; q < g->k; q++) {
                const double x = (double)f->a[i * g->a_row + q * g->a_col] * (double)f->b_f32[q * g->b_row + j * g->b_col];
                sum += x;
                size += fabs(x);
            }
            CHECK(fabs(sum - (double)c[i * g->c_row + j]) <= 4e-7 * size + 1e-7 * fabs(sum),
                  "%s: m %ld n %ld k %ld trans %d%d %s acc %d bias %d: C[%ld,%ld] is %.9g, wanted %.9g", isa, (long)g->m, (long)g->n,
                  (long)g->k, p->trans_a, p->trans_b, dtype_of(p->dtype)->name, p->accumulate, p->bias, (long)i, (long)j,
                  (double)c[i * g->c_row + j], sum);
        }
        for (int64_t j = g->n; j < g->c_row; j++) CHECK(c[i * g->c_row + j] == f->start[i * g->c_row + j], "%s: wrote beside C", isa);
    }
}

static void check_problem(const struct problem *p, struct pool *const *pools) {
    struct fixture f;
    setup(&f, p);
    for (const struct gemm_isa *const *isa = gemm_isa_list(); *isa; isa++) {
        if ((*isa)->cpu & ~cpu_features()) continue;
        f.g.isa = *isa;
        // The workspace is followed by a mark that must stay.
        const size_t bytes = gemm_workspace(&f.g, THREADS);
        unsigned char *work = space(bytes + 64);
        memset(work, 0xff, bytes);  // NaN
        memset(work + bytes, 0x5a, 64);
        for (int t = 0; t <= THREADS; t++) {
            memcpy(f.c[t], f.start, (size_t)f.c_floats * 4);
            f.g.c = f.c[t];
            gemm_run(&f.g, work, pools[t]);
            if (t > 0) {
                CHECK(memcmp(f.c[t], f.c[0], (size_t)f.c_floats * 4) == 0, "%s: m %ld n %ld k %ld: %d threads give other bits",
                      (*isa)->name, (long)p->m, (long)p->n, (long)p->k, t);
            }
        }
        for (int i = 0; i < 64; i++) CHECK(work[bytes + (size_t)i] == 0x5a, "%s: wrote past its workspace", (*isa)->name);
        compare(p, &f, f.c[0], (*isa)->name);
        free(work);
    }
    teardown(&f);
}

static void make_pools(struct pool **pools) {
    struct cb_err err = {0};
    pools[0] = NULL;
    for (int t = 1; t <= THREADS; t++) CHECK(pool_create(&pools[t], t, &err) == CB_OK, "%s", err.message);
}
static void drop_pools(struct pool **pools) {
    for (int t = 1; t <= THREADS; t++) pool_destroy(&pools[t]);
}

TEST(gemm, odd_shapes_in_every_layout) {
    static const int64_t sizes[][3] = {{1, 1, 1},       {4, 8, 8},     {3, 5, 7},      {13, 33, 17}, {12, 32, 64},  {1, 300, 70},
                                       {1, 1031, 513},  {2, 517, 301}, {3, 64, 1000},  {5, 130, 90}, {8, 259, 385}, {7, 33, 2000},
                                       {301, 8, 77},    {600, 1, 129}, {515, 3, 400},  {259, 7, 31}, {97, 65, 41},  {14, 100, 500},
                                       {205, 270, 390}, {61, 300, 1},  {130, 40, 1600}};
    struct pool *pools[THREADS + 1];
    make_pools(pools);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int form = 0; form < 16; form++) {
            const struct problem p = {sizes[i][0], sizes[i][1], sizes[i][2],  form & 1, form & 2,
                                      form & 4,    form & 8,    CB_DTYPE_F32, form % 3, 1};
            check_problem(&p, pools);
        }
    drop_pools(pools);
}

TEST(gemm, nothing_contiguous) {
    static const enum cb_dtype types[] = {CB_DTYPE_F32, CB_DTYPE_BF16, CB_DTYPE_F16};
    static const int64_t sizes[][3] = {{3, 40, 300}, {50, 5, 300}, {13, 7, 9}, {9, 33, 800}, {97, 65, 141}, {130, 300, 17}};
    struct pool *pools[THREADS + 1];
    make_pools(pools);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int form = 0; form < 4; form++)
            check_problem(&(struct problem){sizes[i][0], sizes[i][1], sizes[i][2], form & 1, form & 2, form & 1, form & 2,
                                            types[(i + (size_t)form) % 3], form % 3, 2 + form % 2},
                          pools);
    drop_pools(pools);
}

/* Around the 16 rows and columns of a matrix unit's tile, its steps of 32 along k and its passes of at most 768. */
TEST(gemm, edges_of_tiles) {
    static const int64_t sides[] = {9, 16, 17, 32, 47}, depths[] = {161, 768, 769}, thin[] = {15, 16, 17, 31, 32, 33};
    static const enum cb_dtype types[] = {CB_DTYPE_F32, CB_DTYPE_BF16, CB_DTYPE_F16};
    struct pool *pools[THREADS + 1];
    make_pools(pools);
    // each combination of sides and depth has four layouts; sums' beginnings and types take turns
    for (int i = 0, turn = 0; i < 75; i++)
        for (int layout = 0; layout < 4; layout++, turn++) {
            const int form = turn / 4 % 4 ^ layout;
            check_problem(&(struct problem){sides[i % 5], sides[i / 5 % 5], depths[i / 25], layout & 1, layout & 2, form & 1, form & 2,
                                            types[turn % 3], turn % 2, 1},
                          pools);
        }
    for (int i = 0; i < 6; i++)
        for (int layout = 0; layout < 4; layout++)
            check_problem(&(struct problem){130, 290, thin[i], layout & 1, layout & 2, i & 1, i & 2, types[(i + layout) % 3], 0, 1}, pools);
    drop_pools(pools);
}

TEST(gemm, halves_and_blocks) {
    static const enum cb_dtype types[] = {CB_DTYPE_F16, CB_DTYPE_BF16, CB_DTYPE_Q8_0, CB_DTYPE_Q4_0, CB_DTYPE_Q4_K};
    static const int64_t sizes[][3] = {{1, 70, 256}, {1, 300, 1024}, {3, 129, 768},   {8, 97, 512},
                                       {9, 37, 256}, {50, 300, 768}, {100, 70, 1792}, {200, 5, 256}};
    struct pool *pools[THREADS + 1];
    make_pools(pools);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int form = 0; form < 4; form++) {
                const bool plain = dtype_of(types[t])->block == 1;
                struct problem p = {sizes[i][0], sizes[i][1], sizes[i][2], form & 1, !plain || form & 2,
                                    form & 1,    form & 2,    types[t],    form % 2, 1};
                if (plain) p.k -= form + 1;
                check_problem(&p, pools);
            }
    drop_pools(pools);
}

TEST(gemm, several_rounds_of_packing) {
    static const struct problem problems[] = {{20, 3000, 1700, false, true, false, true, CB_DTYPE_F32, 0, 1},
                                              {2900, 12, 1650, true, false, true, false, CB_DTYPE_F32, 1, 1},
                                              {1500, 40, 1600, false, false, true, true, CB_DTYPE_F32, 0, 1},
                                              {12, 1500, 3100, false, false, false, true, CB_DTYPE_BF16, 0, 1}};
    struct pool *pools[THREADS + 1];
    make_pools(pools);
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) check_problem(&problems[i], pools);
    drop_pools(pools);
}

TEST(gemm, empty_sides) {
    struct pool *pools[THREADS + 1];
    make_pools(pools);
    for (int form = 0; form < 4; form++) {
        check_problem(&(struct problem){3, 40, 0, false, false, form & 1, form & 2, CB_DTYPE_F32, 0, 1}, pools);
        check_problem(&(struct problem){0, 40, 5, false, false, form & 1, form & 2, CB_DTYPE_F32, 0, 1}, pools);
        check_problem(&(struct problem){3, 0, 5, false, true, form & 1, form & 2, CB_DTYPE_F32, 0, 1}, pools);
    }
    drop_pools(pools);
}
