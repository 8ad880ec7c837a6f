/* Which way a matrix multiplication goes, how it is blocked, and how its tiles are shared out to threads. */
#include "backend/cpu/gemm.h"

#include <string.h>

#include "base/cpuid.h"

extern const struct gemm_isa gemm_plain;
#if defined(__x86_64__)
extern const struct gemm_isa gemm_avx2, gemm_avx512;
static const struct gemm_isa *const isa_list[] = {&gemm_avx512, &gemm_avx2, &gemm_plain, NULL};
#else
static const struct gemm_isa *const isa_list[] = {&gemm_plain, NULL};
#endif

/* Blocking (Goto & van de Geijn 2008): all sizes depend on the problem alone, never on the number of threads. */
enum {
    DEPTH = 384,  // k of one pass over registers
    DEPTH_BLOCKS = 512,  // the same for block types longer than 128: a multiple of each
    DEPTH_PACKED = 1536,  // k packed at a time, a multiple of both
    PACKED = 1 << 21,  // floats of packed A, and of packed B, at most
    TILE_ROWS = 192,  // of a task; a multiple of every mr
    TILE_COLUMNS = 256,  // a multiple of every nr
    TILES = 8,  // wanted at least, so that threads end together; the least tile is 96 by 64
    PACK_ROWS = 96,  // of a packing task; a multiple of every mr and nr
    SMALL = 64 * 64 * 64,  // m * n * k up to which one thread works unpacked
    SMALL_B = 1 << 15,  // n * k of that
    SMALL_PACK = 4096,  // floats of B packed on the stack
    FEW = 8,  // rows (or columns) that stream
    ALIASED = 2048,  // bytes: a multiple of it between rows is too often
    LINE = 16,  // floats of a cache line
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

static int64_t depth_of(const struct gemm *g) { return dtype_of(g->b_dtype)->block > 128 ? DEPTH_BLOCKS : DEPTH; }

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

static void run_stream_rows(const struct gemm *g, struct pool *pool) {
    struct strips s = {.g = g, .n = g->n, .width = strip_width(g->n)};
    run_tiles(pool, (s.n + s.width - 1) / s.width, stream_tile, &s);
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
struct blocks {
    struct gemm g;  // of this round: m, n, k are of the packed part
    int64_t step;  // k of one pass over registers
    int64_t depth, rows, columns;  // of a round
    int64_t m_padded, n_padded;  // of this round
    int64_t a_tasks, b_tasks;  // packing tasks a depth block
    int64_t tile_m, tile_n, tiles_across;  // sizes of a tile of C; tiles in a row of them
    float *a, *b;
    bool pack_a, a_in_place;
};

/* Rows of A with contiguous k need no packing, unless they fall on the same lines of the first cache. */
static bool a_in_place(const struct gemm *g) { return g->a_col == 1 && g->a_row * (int64_t)sizeof(float) % ALIASED != 0; }

/* How much is packed at once: everything where it fits. */
static void blocks_plan(const struct gemm *g, struct blocks *b) {
    b->depth = least(g->k, DEPTH_PACKED);
    b->rows = least(g->m, PACKED / b->depth / TILE_ROWS * TILE_ROWS);
    b->columns = least(g->n, PACKED / b->depth / TILE_COLUMNS * TILE_COLUMNS);
}

static size_t blocks_floats(const struct gemm *g, const struct blocks *b, int64_t *b_at) {
    *b_at = a_in_place(g) ? 0 : round_up(round_up(b->rows, g->isa->mr) * b->depth, LINE);
    return (size_t)(*b_at + round_up(b->columns, g->isa->nr) * b->depth);
}

/* Panels of one task of A or of B, for one depth block. */
static void pack_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct blocks *s = context;
    const struct gemm *g = &s->g;
    const int64_t a_tasks = s->pack_a ? s->a_tasks : 0, per_depth = a_tasks + s->b_tasks;
    const int64_t p = i / per_depth * s->step, task = i % per_depth, depth = least(s->step, g->k - p);
    if (task < a_tasks) {
        const int64_t at = task * PACK_ROWS;
        g->isa->pack(s->a + p * s->m_padded + at * depth, g->isa->mr, g->isa->mr * depth, g->a + at * g->a_row + p * g->a_col, CB_DTYPE_F32,
                     g->a_row, g->a_col, least(PACK_ROWS, g->m - at), depth);
        return;
    }
    const int64_t at = (task - a_tasks) * PACK_ROWS;
    const struct dtype *type = dtype_of(g->b_dtype);
    const char *from = (const char *)g->b + (at * g->b_col + p * g->b_row) / type->block * type->block_bytes;
    g->isa->pack(s->b + p * s->n_padded + at * depth, g->isa->nr, g->isa->nr * depth, from, g->b_dtype, g->b_col, g->b_row,
                 least(PACK_ROWS, g->n - at), depth);
}

/* One tile of C through all depth blocks of the round. */
static void multiply_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct blocks *s = context;
    const struct gemm *g = &s->g;
    const int64_t row = i / s->tiles_across * s->tile_m, column = i % s->tiles_across * s->tile_n;
    for (int64_t p = 0; p < g->k; p += s->step) {
        const int64_t depth = least(s->step, g->k - p);
        const struct gemm_tile t = {.m = least(s->tile_m, g->m - row),
                                    .n = least(s->tile_n, g->n - column),
                                    .k = depth,
                                    .a = s->a_in_place ? g->a + row * g->a_row + p : s->a + p * s->m_padded + row * depth,
                                    .a_panel = g->isa->mr * depth,
                                    .a_row = s->a_in_place ? g->a_row : 0,
                                    .b = s->b + p * s->n_padded + column * depth,
                                    .b_panel = g->isa->nr * depth,
                                    .c = g->c + row * g->c_row + column,
                                    .c_row = g->c_row,
                                    .accumulate = g->accumulate || p > 0,
                                    .bias = g->bias && p == 0 ? g->bias + column : NULL};
        g->isa->tile(&t);
    }
}

/* Tiles of C: as large as pays, smaller where there would be few. Returns their number. */
static int64_t blocks_tiles(struct blocks *s) {
    s->tile_m = TILE_ROWS;
    s->tile_n = TILE_COLUMNS;
    for (;;) {
        const int64_t down = (s->g.m + s->tile_m - 1) / s->tile_m;
        s->tiles_across = (s->g.n + s->tile_n - 1) / s->tile_n;
        if (down * s->tiles_across >= TILES || (s->tile_m == TILE_ROWS / 2 && s->tile_n == TILE_COLUMNS / 4)) return down * s->tiles_across;
        if (s->tile_m == TILE_ROWS && s->tile_n <= TILE_COLUMNS / 2) {
            s->tile_m /= 2;
        } else {
            s->tile_n /= 2;
        }
    }
}

static void run_packed(const struct gemm *g, float *work, struct pool *pool) {
    struct blocks s;
    int64_t b_at;
    blocks_plan(g, &s);
    blocks_floats(g, &s, &b_at);
    s.step = depth_of(g);
    s.a_in_place = a_in_place(g);
    s.a = work;
    s.b = work + b_at;
    const struct dtype *type = dtype_of(g->b_dtype);
    for (int64_t p = 0; p < g->k; p += s.depth)
        for (int64_t j = 0; j < g->n; j += s.columns)
            for (int64_t i = 0; i < g->m; i += s.rows) {
                s.g = *g;
                s.g.m = least(s.rows, g->m - i);
                s.g.n = least(s.columns, g->n - j);
                s.g.k = least(s.depth, g->k - p);
                s.g.a = g->a + i * g->a_row + p * g->a_col;
                s.g.b = (const char *)g->b + (j * g->b_col + p * g->b_row) / type->block * type->block_bytes;
                s.g.c = g->c + i * g->c_row + j;
                s.g.accumulate = g->accumulate || p > 0;
                s.g.bias = g->bias && p == 0 ? g->bias + j : NULL;
                s.m_padded = round_up(s.g.m, g->isa->mr);
                s.n_padded = round_up(s.g.n, g->isa->nr);
                s.a_tasks = (s.g.m + PACK_ROWS - 1) / PACK_ROWS;
                s.b_tasks = i == 0 ? (s.g.n + PACK_ROWS - 1) / PACK_ROWS : 0;
                // A stays packed over the columns where one round holds all of its rows.
                s.pack_a = !s.a_in_place && (j == 0 || s.rows < g->m);
                const int64_t per_depth = (s.pack_a ? s.a_tasks : 0) + s.b_tasks;
                run_tiles(pool, per_depth * ((s.g.k + s.step - 1) / s.step), pack_tile, &s);
                const int64_t n_tiles = blocks_tiles(&s);
                run_tiles(pool, n_tiles, multiply_tile, &s);
            }
}

size_t gemm_workspace(const struct gemm *g) {
    struct blocks s;
    int64_t b_at;
    switch (way_of(g)) {
        case WAY_DOT_ROWS: return g->a_col == 1 ? 0 : (size_t)(g->m * g->k) * sizeof(float);
        case WAY_DOT_COLUMNS: return (size_t)(g->n * g->k) * sizeof(float);
        case WAY_STREAM_COLUMNS: return (size_t)(g->n * (g->k + g->m)) * sizeof(float);
        case WAY_PACKED: blocks_plan(g, &s); return blocks_floats(g, &s, &b_at) * sizeof(float);
        default: return 0;
    }
}

void gemm_run(const struct gemm *g, void *work, struct pool *pool) {
    switch (way_of(g)) {
        case WAY_NONE: start_columns(g, 0, g->n); break;
        case WAY_SMALL: run_small(g); break;
        case WAY_DOT_ROWS: run_dot_rows(g, work, pool); break;
        case WAY_STREAM_ROWS: run_stream_rows(g, pool); break;
        case WAY_DOT_COLUMNS: run_dot_columns(g, work, pool); break;
        case WAY_STREAM_COLUMNS: run_stream_columns(g, work, pool); break;
        case WAY_PACKED: run_packed(g, work, pool); break;
    }
}
