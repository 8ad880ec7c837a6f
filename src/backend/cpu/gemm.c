/* Which way a matrix multiplication goes, how it is blocked, and how its tiles are shared out to threads. */
#include "backend/cpu/gemm.h"

#include <string.h>

#include "base/cpuid.h"

extern const struct gemm_isa gemm_plain;
#if defined(__x86_64__)
extern const struct gemm_isa gemm_avx2, gemm_avx512, gemm_amx;
static const struct gemm_isa *const isa_list[] = {&gemm_amx, &gemm_avx512, &gemm_avx2, &gemm_plain, NULL};
#else
static const struct gemm_isa *const isa_list[] = {&gemm_plain, NULL};
#endif

/* Blocking (Goto & van de Geijn 2008). The order of every sum depends on the problem alone, never on the number of threads. */
enum {
    DEPTH = 384,  // k of one pass over registers
    DEPTH_BLOCKS = 512,  // the same for block types longer than 128: a multiple of each
    DEPTH_STEPS = 2,  // passes of a round
    PACKED = 1 << 21,  // floats of packed A at most
    WHOLE_B = 1 << 18,  // floats of a depth of B that is packed whole
    STRIP_COLUMNS = 256,  // of a task; a quarter of it is a multiple of every nr
    STRIP_ROWS = 96,  // of a task, about, at least; a multiple of every mr
    PACK_ROWS = 96,  // of a packing task; a multiple of every mr and nr
    SMALL = 64 * 64 * 64,  // m * n * k up to which one thread works unpacked
    SMALL_B = 1 << 15,  // n * k of that
    SMALL_PACK = 4096,  // floats of B packed on the stack
    FEW = 8,  // rows (or columns) that stream
    CHUNKS = 16,  // parts of k that stream side by side, at most
    CHUNK_ROWS = 32,  // of B in such a part, at least; a multiple of the 8 that are read together
    CHUNK_COLUMNS = 1024,  // of B that several rows of A meet at a time
    ALIASED = 2048,  // bytes: a multiple of it between rows is too often
    LINE = 16,  // floats of a cache line
    UNIT_STEP = 768,  // k of one pass of a matrix unit, about: its panels may leave the first cache
    UNIT_DEPTH = 16,  // k below which a matrix unit adds zeros for the most part
};

enum way { WAY_NONE, WAY_SMALL, WAY_DOT_ROWS, WAY_STREAM_ROWS, WAY_DOT_COLUMNS, WAY_STREAM_COLUMNS, WAY_PACKED };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

const struct gemm_isa *const *gemm_isa_list(void) { return isa_list; }

const struct gemm_isa *gemm_isa_for(uint32_t cpu) {
    const struct gemm_isa *const *isa = isa_list;
    while (((*isa)->cpu & ~cpu) != 0) isa++;
    return *isa;
}

bool gemm_dtype_ok(enum cb_dtype dtype) {
    return dtype == CB_DTYPE_F32 || dtype == CB_DTYPE_F16 || dtype == CB_DTYPE_BF16 ||
           (dtype_of(dtype)->is_quantised && DEPTH_BLOCKS % dtype_of(dtype)->block == 0);
}

static bool is_plain(enum cb_dtype dtype) { return dtype == CB_DTYPE_F32 || dtype == CB_DTYPE_F16 || dtype == CB_DTYPE_BF16; }

/* Few rows read B once; few columns read A once; the rest is packed. */
static enum way way_of(const struct gemm *g) {
    if (g->m == 0 || g->n == 0 || g->k == 0) return WAY_NONE;
    const bool b_direct = g->b_dtype == CB_DTYPE_F32 && g->b_col == 1;
    // Sizes are compared one by one first, so that the product cannot overflow.
    if (g->m <= SMALL && g->n <= SMALL && g->k <= SMALL && g->m * g->n <= SMALL && g->m * g->n * g->k <= SMALL && g->n * g->k <= SMALL_B &&
        is_plain(g->b_dtype) && (b_direct || round_up(g->n, g->isa->nr) * g->k <= SMALL_PACK))
        return WAY_SMALL;
    if (g->m <= FEW) return is_plain(g->b_dtype) && g->b_col == 1 ? WAY_STREAM_ROWS : g->b_row == 1 ? WAY_DOT_ROWS : WAY_PACKED;
    if (g->n <= FEW && is_plain(g->b_dtype)) return g->a_col == 1 ? WAY_DOT_COLUMNS : g->a_row == 1 ? WAY_STREAM_COLUMNS : WAY_PACKED;
    return WAY_PACKED;
}

/* A matrix unit is for packed products that are not thin. */
static struct gemm settled(const struct gemm *g) {
    struct gemm s = *g;
    if (g->isa->split && (way_of(g) != WAY_PACKED || g->k < UNIT_DEPTH)) s.isa = g->isa->split->base;
    return s;
}

static void run_tiles(struct pool *pool, int64_t n, void (*tile)(void *context, int64_t i, int thread), void *context) {
    if (pool && n > 1) {
        pool_run(pool, n, tile, context);
    } else {
        for (int64_t i = 0; i < n; i++) tile(context, i, 0);
    }
}

/* Columns [begin, end) of C before anything is added. */
static void start_columns(const struct gemm *g, int64_t begin, int64_t end) {
    for (int64_t i = 0; i < g->m; i++) {
        float *c = g->c + i * g->c_row;
        if (g->bias) {
            for (int64_t j = begin; j < end; j++) c[j] = g->accumulate ? c[j] + g->bias[j] : g->bias[j];
        } else if (!g->accumulate) {
            memset(c + begin, 0, (size_t)(end - begin) * sizeof *c);
        }
    }
}

/* ---- small: one thread, no workspace */
static void run_small(const struct gemm *g) {
    if (g->b_dtype == CB_DTYPE_F32 && g->b_col == 1) {
        g->isa->direct(g);
        return;
    }
    float b[SMALL_PACK];
    const int64_t width = round_up(g->n, g->isa->nr);
    struct gemm d = *g;
    g->isa->pack(b, width, 0, g->b, g->b_dtype, g->b_col, g->b_row, g->n, g->k);
    d.b = b;
    d.b_dtype = CB_DTYPE_F32;
    d.b_row = width;
    d.b_col = 1;
    g->isa->direct(&d);
}

/* ---- few rows or columns: the large operand streams past, cut along its long side */
struct strips {
    const struct gemm *g;  // its B streams
    struct gemm_dot dot;  // its Y streams
    int64_t n, width;
    float *turned;  // (n columns, m rows) of C before it is turned; NULL where rows stream
    const struct gemm *to;
};

/* Wide enough to read runs of memory, narrow enough for several threads. */
static int64_t strip_width(int64_t n) { return least(1024, most(192, round_up((n + 7) / 8, 64))); }

static void dot_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct strips *s = context;
    s->g->isa->dot(&s->dot, i * s->width, least(s->n, (i + 1) * s->width));
}

static void stream_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct strips *s = context;
    const int64_t begin = i * s->width, end = least(s->n, begin + s->width);
    start_columns(s->g, begin, end);
    s->g->isa->stream(s->g, begin, end);
    if (!s->turned) return;
    const struct gemm *to = s->to;
    for (int64_t r = begin; r < end; r++) {
        float *c = to->c + r * to->c_row;
        for (int64_t j = 0; j < to->n; j++) {
            const float sum = s->turned[j * s->n + r] + (to->bias ? to->bias[j] : 0);
            c[j] = to->accumulate ? c[j] + sum : sum;
        }
    }
}

/* The small operand of a dot product with k contiguous: itself or a copy in work. */
static const float *rows_along_k(const struct gemm *g, bool of_b, float *work, int64_t *row) {
    if (!of_b) {
        *row = g->a_col == 1 ? g->a_row : g->k;
        if (g->a_col == 1) return g->a;
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t p = 0; p < g->k; p++) work[i * g->k + p] = g->a[i * g->a_row + p * g->a_col];
        return work;
    }
    const bool as_is = g->b_dtype == CB_DTYPE_F32 && g->b_row == 1;
    *row = as_is ? g->b_col : g->k;
    if (as_is) return g->b;
    // One panel whose width is k: its rows are B's columns.
    g->isa->pack(work, g->k, 0, g->b, g->b_dtype, g->b_row, g->b_col, g->k, g->n);
    return work;
}

static void run_dot_rows(const struct gemm *g, float *work, struct pool *pool) {
    struct strips s = {.g = g, .n = g->n, .width = least(64, strip_width(g->n))};
    s.dot = (struct gemm_dot){.n_x = g->m,
                              .k = g->k,
                              .y = g->b,
                              .y_row = g->b_col,
                              .y_dtype = g->b_dtype,
                              .c = g->c,
                              .c_x = g->c_row,
                              .c_y = 1,
                              .accumulate = g->accumulate,
                              .bias_y = g->bias};
    s.dot.x = rows_along_k(g, false, work, &s.dot.x_row);
    run_tiles(pool, (s.n + s.width - 1) / s.width, dot_tile, &s);
}

static void run_dot_columns(const struct gemm *g, float *work, struct pool *pool) {
    struct strips s = {.g = g, .n = g->m, .width = least(64, strip_width(g->m))};
    s.dot = (struct gemm_dot){.n_x = g->n,
                              .k = g->k,
                              .y = g->a,
                              .y_row = g->a_row,
                              .y_dtype = CB_DTYPE_F32,
                              .c = g->c,
                              .c_x = 1,
                              .c_y = g->c_row,
                              .accumulate = g->accumulate,
                              .bias_x = g->bias};
    s.dot.x = rows_along_k(g, true, work, &s.dot.x_row);
    run_tiles(pool, (s.n + s.width - 1) / s.width, dot_tile, &s);
}

/* Rows of B in each part of k: parts are runs of memory, which a column strip is not. */
static int64_t chunk_rows(const struct gemm *g) { return round_up(most((g->k + CHUNKS - 1) / CHUNKS, CHUNK_ROWS), 8); }

struct chunks {
    const struct gemm *g;
    int64_t rows, n;  // of B in a part; parts
    float *sums;  // (parts, m, n)
};

/* One part's share of C. */
static void chunk_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct chunks *s = context;
    struct gemm part = *s->g;
    const int64_t p = i * s->rows, width = part.m > 1 ? CHUNK_COLUMNS : part.n;
    part.k = least(s->rows, part.k - p);
    part.a += p * part.a_col;
    part.b = (const char *)part.b + p * part.b_row * dtype_of(part.b_dtype)->block_bytes;
    part.c = s->sums + i * part.m * part.n;
    part.c_row = part.n;
    memset(part.c, 0, (size_t)(part.m * part.n) * sizeof *part.c);
    for (int64_t j = 0; j < part.n; j += width) part.isa->stream(&part, j, least(part.n, j + width));
}

/* Adds the parts in their order to a strip of C. */
static void chunk_sum_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct chunks *s = context;
    const struct gemm *g = s->g;
    const int64_t begin = i * CHUNK_COLUMNS, end = least(g->n, begin + CHUNK_COLUMNS);
    start_columns(g, begin, end);
    for (int64_t r = 0; r < g->m; r++)
        for (int64_t part = 0; part < s->n; part++) {
            float *restrict c = g->c + r * g->c_row;
            const float *restrict sum = s->sums + (part * g->m + r) * g->n;
            for (int64_t j = begin; j < end; j++) c[j] += sum[j];
        }
}

static void run_stream_rows(const struct gemm *g, float *work, struct pool *pool) {
    struct chunks s = {.g = g, .rows = chunk_rows(g), .sums = work};
    s.n = (g->k + s.rows - 1) / s.rows;
    run_tiles(pool, s.n, chunk_tile, &s);
    const int64_t strips = (g->n + CHUNK_COLUMNS - 1) / CHUNK_COLUMNS;
    run_tiles(g->m * g->n > 4 * CHUNK_COLUMNS ? pool : NULL, strips, chunk_sum_tile, &s);
}

/* C transposed = B transposed times A transposed: A's rows of k stream past; work holds C transposed, then B in f32. */
static void run_stream_columns(const struct gemm *g, float *work, struct pool *pool) {
    struct gemm t = {.m = g->n,
                     .n = g->m,
                     .k = g->k,
                     .b = g->a,
                     .b_row = g->a_col,
                     .b_col = 1,
                     .b_dtype = CB_DTYPE_F32,
                     .c = work,
                     .c_row = g->m,
                     .isa = g->isa};
    t.a = rows_along_k(g, true, work + g->n * g->m, &t.a_row);
    t.a_col = 1;
    struct strips s = {.g = &t, .n = g->m, .width = strip_width(g->m), .turned = work, .to = g};
    run_tiles(pool, (s.n + s.width - 1) / s.width, stream_tile, &s);
}

/* ---- packed */
/* One run is a row of rounds: a depth of B at a time, and for each as many rows of A as are packed at once. Where B is small, all threads pack it
   together and share it; else each thread packs the strip of columns that it then multiplies, which so never leaves its second cache. */
enum a_source {
    A_IN_PLACE,  // contiguous along k
    A_COPIED,  // the same, but its rows fall on the same lines of the first cache: a register tile's rows are copied first
    A_PACKED,  // any other: all of a round is packed into panels by all threads together
};
struct blocks {
    struct gemm g;  // of this round
    int64_t step;  // k of one pass over registers
    int64_t depth, rows;  // of a round, at most
    int64_t m_padded, n_padded;
    int64_t strips, groups;  // of columns and of rows: a task of this round is one of each; they differ by a panel at most
    enum a_source source;
    bool b_whole;
    float *a, *b;  // packed A; packed B, or a strip of it and copied rows for each thread
    int64_t b_floats;  // of one thread
    int64_t thin_at;  // in these: the thin product's strip of B
    bool is_last;  // round over k: the thin product follows
    int64_t a_tasks, b_tasks;  // of packing, for one pass of this round
};

static bool is_aliased(const struct gemm *g) { return g->a_row * (int64_t)sizeof(float) % ALIASED == 0; }

/* Floats that `wide` rows of A or columns of B, whole panels of them, take for a depth of k. */
static int64_t split_floats(const struct gemm_split *split, enum cb_dtype dtype, int64_t wide, int64_t k) {
    return split ? wide * round_up(k, split->step) * split->pieces(dtype) / 2 : wide * k;
}
static int64_t a_floats(const struct gemm *g, int64_t wide, int64_t k) { return split_floats(g->isa->split, CB_DTYPE_F32, wide, k); }
static int64_t b_floats(const struct gemm *g, int64_t wide, int64_t k) { return split_floats(g->isa->split, g->b_dtype, wide, k); }

/* k of one pass of a matrix unit: passes of nearly the same depth, each a round. */
static int64_t unit_step(const struct gemm *g) {
    const int64_t passes = (g->k + UNIT_STEP - 1) / UNIT_STEP;
    return round_up((g->k + passes - 1) / passes, most(g->isa->split->step, dtype_of(g->b_dtype)->block));
}

static struct blocks blocks_plan(const struct gemm *g) {
    struct blocks s = {.step = dtype_of(g->b_dtype)->block > 128 ? DEPTH_BLOCKS : DEPTH};
    if (g->isa->split) s.step = unit_step(g);
    s.source = g->a_col != 1 || g->isa->split ? A_PACKED : is_aliased(g) ? A_COPIED : A_IN_PLACE;
    s.depth = least(g->k, g->isa->split ? s.step : DEPTH_STEPS * s.step);
    s.rows = s.source == A_PACKED ? least(g->m, PACKED / a_floats(g, STRIP_ROWS, s.depth) * STRIP_ROWS) : g->m;
    s.n_padded = round_up(g->n, g->isa->nr);
    s.b_whole = s.n_padded <= WHOLE_B / s.depth;
    s.b_floats = s.b_whole ? 0 : b_floats(g, least(s.n_padded, STRIP_COLUMNS), s.depth);
    if (s.source == A_COPIED) s.b_floats += g->isa->mr * (s.step + LINE);
    s.thin_at = s.b_floats = round_up(s.b_floats, LINE);
    s.b_floats += round_up(least(s.n_padded, STRIP_COLUMNS) * g->r, LINE);
    return s;
}

/* Floats of packed A and of the whole of B, which lie before what each thread has. */
static int64_t shared_floats(const struct gemm *g, const struct blocks *s, int64_t *b_at) {
    *b_at = s->source == A_PACKED ? round_up(a_floats(g, round_up(s->rows, g->isa->mr), s->depth), LINE) : 0;
    return *b_at + (s->b_whole ? round_up(b_floats(g, s->n_padded, s->depth), LINE) : 0);
}

/* Panels of n columns of B from column j on, for k values from p on. */
static void pack_columns(const struct blocks *s, float *out, int64_t j, int64_t n, int64_t p, int64_t k) {
    const struct gemm *g = &s->g;
    const struct dtype *type = dtype_of(g->b_dtype);
    const char *from = (const char *)g->b + (j * g->b_col + p * g->b_row) / type->block * type->block_bytes;
    const int64_t nr = g->isa->nr;
    if (g->isa->split) {
        g->isa->split->pack_b(out, b_floats(g, nr, k), from, g->b_dtype, g->b_col, g->b_row, n, k);
    } else {
        g->isa->pack(out, nr, nr * k, from, g->b_dtype, g->b_col, g->b_row, n, k);
    }
}

/* Panels of rows of A from row i on, likewise. */
static void pack_rows(const struct blocks *s, float *out, int64_t i, int64_t n, int64_t p, int64_t k) {
    const struct gemm *g = &s->g;
    const float *from = g->a + i * g->a_row + p * g->a_col;
    const int64_t mr = g->isa->mr;
    if (g->isa->split) {
        g->isa->split->pack_a(out, a_floats(g, mr, k), from, CB_DTYPE_F32, g->a_row, g->a_col, n, k);
    } else {
        g->isa->pack(out, mr, mr * k, from, CB_DTYPE_F32, g->a_row, g->a_col, n, k);
    }
}

/* Panels of one task of A, or of B where it is packed whole, for one pass. */
static void pack_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct blocks *s = context;
    const struct gemm *g = &s->g;
    const int64_t tasks = s->a_tasks + s->b_tasks, p = i / tasks * s->step, task = i % tasks, depth = least(s->step, g->k - p);
    if (task < s->a_tasks) {
        const int64_t at = task * PACK_ROWS;
        pack_rows(s, s->a + a_floats(g, s->m_padded, p) + a_floats(g, at, depth), at, least(PACK_ROWS, g->m - at), p, depth);
        return;
    }
    const int64_t at = (task - s->a_tasks) * PACK_ROWS;
    pack_columns(s, s->b + b_floats(g, s->n_padded, p) + b_floats(g, at, depth), at, least(PACK_ROWS, g->n - at), p, depth);
}

/* A register tile's rows of A for one pass, copied next to each other. */
static const float *rows_copy(const struct blocks *s, float *to, int64_t row, int64_t rows, int64_t p, int64_t depth) {
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * (s->step + LINE), s->g.a + (row + r) * s->g.a_row + p, (size_t)depth * sizeof *to);
    return to;
}

/* Where part i of n begins, in whole panels; parts of `size` are as even as these allow. */
static int64_t part_begin(int64_t size, int64_t panel, int64_t i, int64_t n) {
    return least(size, (size + panel - 1) / panel * i / n * panel);
}

/* Who multiplies thin products: its panels of B are as wide as the unit's. */
static const struct gemm_isa *thin_isa(const struct gemm *g) { return g->isa->split ? g->isa->split->base : g->isa; }

/* C += A2 B2 for rows of a strip of n columns, of which thin is B2 in panels. */
static void add_thin(const struct gemm *g, int64_t row, int64_t rows, int64_t column, int64_t n, float *thin) {
    const struct gemm_isa *isa = thin_isa(g);
    for (int64_t r = row; r < row + rows; r += isa->mr) {
        const struct gemm_tile t = {.m = least(isa->mr, row + rows - r),
                                    .n = n,
                                    .k = g->r,
                                    .a = g->a2 + r * g->a2_row,
                                    .a_row = g->a2_row,
                                    .b = thin,
                                    .b_panel = isa->nr * g->r,
                                    .c = g->c + r * g->c_row + column,
                                    .c_row = g->c_row,
                                    .accumulate = true};
        isa->tile(&t);
    }
}

/* One strip of columns for one group of rows: a register tile's rows at a time stay in the first cache while B's panels pass. */
static void multiply_tile(void *context, int64_t i, int thread) {
    const struct blocks *s = context;
    const struct gemm *g = &s->g;
    const int64_t mr = g->isa->mr, nr = g->isa->nr, strip = i % s->strips, group = i / s->strips;
    const int64_t column = part_begin(g->n, nr, strip, s->strips), n = part_begin(g->n, nr, strip + 1, s->strips) - column;
    const int64_t first = part_begin(g->m, mr, group, s->groups), end = part_begin(g->m, mr, group + 1, s->groups);
    // B: one panel's passes lie n_wide * step apart
    const int64_t n_wide = s->b_whole ? s->n_padded : round_up(n, g->isa->nr), at = s->b_whole ? column : 0;
    float *own = s->b + (s->b_whole ? round_up(b_floats(g, s->n_padded, s->depth), LINE) : 0) + thread * s->b_floats;
    float *b = s->b_whole ? s->b : own, *const thin = s->is_last && g->r ? own + s->thin_at : NULL;
    if (thin) thin_isa(g)->pack(thin, nr, nr * g->r, g->b2 + column * g->b2_col, CB_DTYPE_F32, g->b2_col, g->b2_row, n, g->r);
    // rows of B along the strip are packed by the first register tile that reads them
    const bool fresh = !s->b_whole && !g->isa->split && g->b_dtype == CB_DTYPE_F32 && g->b_col == 1;
    if (!s->b_whole) {
        for (int64_t p = 0; p < g->k && !fresh; p += s->step)
            pack_columns(s, own + b_floats(g, n_wide, p), column, n, p, least(s->step, g->k - p));
        own += b_floats(g, n_wide, g->k);
    }
    for (int64_t row = first; row < end; row += mr) {
        const int64_t rows = least(mr, end - row);
        for (int64_t p = 0; p < g->k; p += s->step) {
            const int64_t depth = least(s->step, g->k - p);
            struct gemm_tile t = {.m = rows,
                                  .n = n,
                                  .k = depth,
                                  .b = b + b_floats(g, n_wide, p) + b_floats(g, at, depth),
                                  .b_panel = b_floats(g, nr, depth),
                                  .b_dtype = g->b_dtype,
                                  .c = g->c + row * g->c_row + column,
                                  .c_row = g->c_row,
                                  .accumulate = g->accumulate || p > 0,
                                  .bias = g->bias && p == 0 ? g->bias + column : NULL};
            if (fresh && row == first) t.fresh = (const float *)g->b + p * g->b_row + column, t.fresh_row = g->b_row;
            t.n_ahead = least(mr, end - row - rows), t.k_ahead = depth, t.ahead_row = g->a_row;
            t.ahead = g->a + (row + rows) * g->a_row + p;
            if (s->source == A_PACKED) {
                t.a = s->a + a_floats(g, s->m_padded, p) + a_floats(g, row, depth);
                t.k_ahead = a_floats(g, mr, depth), t.ahead = t.a + t.k_ahead, t.n_ahead = t.n_ahead > 0;
            } else if (s->source == A_COPIED) {
                t.a = rows_copy(s, own, row, rows, p, depth), t.a_row = s->step + LINE;
            } else {
                t.a = g->a + row * g->a_row + p, t.a_row = g->a_row;
            }
            g->isa->tile(&t);
        }
        if (thin) add_thin(g, row, rows, column, n, thin);
    }
}

/* Tasks of a round: strips of columns by groups of rows, some for each thread, the same number where that can be. Their sizes change no sum. */
static int64_t blocks_cut(struct blocks *s, int n_threads) {
    const int64_t m = s->g.m, n = s->g.n, wanted = n_threads > 1 ? 3 * n_threads : 1;
    int64_t strip = STRIP_COLUMNS, group = round_up(m, STRIP_ROWS);
    for (;;) {
        s->strips = (n + strip - 1) / strip;
        s->groups = (m + group - 1) / group;
        if (s->strips * s->groups >= wanted) break;
        // A strip packs B for its rows: few rows are cut last.
        if (strip > STRIP_COLUMNS / 2 && strip / 2 < n) {
            strip /= 2;
        } else if (group > (s->b_whole ? 1 : 4) * STRIP_ROWS) {
            group = round_up((group + 1) / 2, STRIP_ROWS);
        } else if (strip > STRIP_COLUMNS / 4 && strip / 2 < n) {
            strip /= 2;
        } else if (group > STRIP_ROWS) {
            group = round_up((group + 1) / 2, STRIP_ROWS);
        } else {
            break;
        }
    }
    while (s->strips * s->groups % n_threads && s->strips * s->g.isa->nr < n) s->strips++;
    return s->strips * s->groups;
}

static void run_packed(const struct gemm *g, float *work, struct pool *pool) {
    struct blocks s = blocks_plan(g);
    int64_t b_at;
    shared_floats(g, &s, &b_at);
    s.a = work;
    s.b = work + b_at;
    const struct dtype *type = dtype_of(g->b_dtype);
    for (int64_t p = 0; p < g->k; p += s.depth)
        for (int64_t i = 0; i < g->m; i += s.rows) {
            s.g = *g;
            s.g.m = least(s.rows, g->m - i);
            s.g.k = least(s.depth, g->k - p);
            s.g.a = g->a + i * g->a_row + p * g->a_col;
            s.g.b = (const char *)g->b + p * g->b_row / type->block * type->block_bytes;
            s.g.c = g->c + i * g->c_row;
            s.g.accumulate = g->accumulate || p > 0;
            s.g.bias = p == 0 ? g->bias : NULL;
            s.g.a2 = g->r ? g->a2 + i * g->a2_row : NULL;
            s.is_last = p + s.depth >= g->k;
            s.m_padded = round_up(s.g.m, g->isa->mr);
            s.a_tasks = s.source == A_PACKED ? (s.g.m + PACK_ROWS - 1) / PACK_ROWS : 0;
            s.b_tasks = s.b_whole && i == 0 ? (g->n + PACK_ROWS - 1) / PACK_ROWS : 0;
            run_tiles(pool, (s.a_tasks + s.b_tasks) * ((s.g.k + s.step - 1) / s.step), pack_tile, &s);
            const int64_t n_tiles = blocks_cut(&s, pool ? pool_threads(pool) : 1);
            run_tiles(pool, n_tiles, multiply_tile, &s);
        }
}

/* The thin product alone, and what is left. */
static struct gemm thin_part(const struct gemm *g) {
    return (struct gemm){.m = g->m,
                         .n = g->n,
                         .k = g->r,
                         .a = g->a2,
                         .a_row = g->a2_row,
                         .a_col = 1,
                         .b = g->b2,
                         .b_row = g->b2_row,
                         .b_col = g->b2_col,
                         .b_dtype = CB_DTYPE_F32,
                         .c = g->c,
                         .c_row = g->c_row,
                         .accumulate = true,
                         .isa = g->isa};
}
static struct gemm main_part(const struct gemm *g) {
    struct gemm part = *g;
    part.r = 0;
    return part;
}

size_t gemm_workspace(const struct gemm *asked, int n_threads) {
    const struct gemm now = settled(asked), *const g = &now;
    struct blocks s;
    int64_t b_at;
    const enum way way = way_of(g);
    if (g->r && way != WAY_PACKED) {
        const struct gemm part[] = {main_part(g), thin_part(g)};
        const size_t bytes[] = {gemm_workspace(&part[0], n_threads), gemm_workspace(&part[1], n_threads)};
        return bytes[bytes[1] > bytes[0]];
    }
    switch (way) {
        case WAY_DOT_ROWS: return g->a_col == 1 ? 0 : (size_t)(g->m * g->k) * sizeof(float);
        case WAY_DOT_COLUMNS: return (size_t)(g->n * g->k) * sizeof(float);
        case WAY_STREAM_ROWS: return (size_t)((g->k + chunk_rows(g) - 1) / chunk_rows(g) * g->m * g->n) * sizeof(float);
        case WAY_STREAM_COLUMNS: return (size_t)(g->n * (g->k + g->m)) * sizeof(float);
        case WAY_PACKED: s = blocks_plan(g); return (size_t)(shared_floats(g, &s, &b_at) + n_threads * s.b_floats) * sizeof(float);
        default: return 0;
    }
}

void gemm_run(const struct gemm *asked, void *work, struct pool *pool) {
    const struct gemm now = settled(asked), *const g = &now;
    const enum way way = way_of(g);
    if (g->r && way != WAY_PACKED) {
        const struct gemm part[] = {main_part(g), thin_part(g)};
        for (int i = 0; i < 2; i++) gemm_run(&part[i], work, pool);
        return;
    }
    switch (way) {
        case WAY_NONE: start_columns(g, 0, g->n); break;
        case WAY_SMALL: run_small(g); break;
        case WAY_DOT_ROWS: run_dot_rows(g, work, pool); break;
        case WAY_STREAM_ROWS: run_stream_rows(g, work, pool); break;
        case WAY_DOT_COLUMNS: run_dot_columns(g, work, pool); break;
        case WAY_STREAM_COLUMNS: run_stream_columns(g, work, pool); break;
        case WAY_PACKED: run_packed(g, work, pool); break;
    }
}
