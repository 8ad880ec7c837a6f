/* This machine's roofs, measured: arithmetic from registers, of vectors or of a matrix unit; reading, writing and copying memory. */
#include <stdlib.h>
#include <string.h>

#include "api/bench.h"
#include "backend/cpu/gemm.h"
#include "base/cpuid.h"
#include "models/model.h"

enum { FMA_LANES = 192, FMA_ROUNDS = 20000, UNIT_ROUNDS = 1000, TILES_MOST = 256 };

/* 192 independent multiply-adds a round: enough to hide the latency at any vector width. */
CPU_CLONES_FMA static float multiply_add(float seed) {
    float x[FMA_LANES];
    for (int i = 0; i < FMA_LANES; i++) x[i] = seed + (float)i;
    for (int r = 0; r < FMA_ROUNDS; r++)
        for (int i = 0; i < FMA_LANES; i++) x[i] = __builtin_fmaf(x[i], 0.999f, 0.5f);
    float total = 0;
    for (int i = 0; i < FMA_LANES; i++) total += x[i];
    return total;
}

static void fma_tile(void *context, int64_t i, int thread) {
    (void)thread;
    ((float *)context)[i] = multiply_add((float)i);
}

struct unit {
    const struct gemm_split *split;
    double operations[TILES_MOST];
};
static void unit_tile(void *context, int64_t i, int thread) {
    (void)thread;
    struct unit *u = context;
    u->operations[i] = u->split->spin(UNIT_ROUNDS);
}

/* The least time of the tasks, seconds. */
static double least_time(struct pool *pool, int tiles, void (*tile)(void *context, int64_t i, int thread), void *context) {
    double best = 1e9;
    for (int run = 0; run < 8; run++) {
        double begin = engine_now();
        pool_run(pool, tiles, tile, context);
        double took = engine_now() - begin;
        if (took < best) best = took;
    }
    return best;
}

double bench_peak_gflops(struct cb_engine *engine) {
    float out[TILES_MOST] = {0};
    struct unit unit = {.split = gemm_isa_for(engine->cpu_mask)->split};
    int tiles = 4 * pool_threads(engine->pool);
    if (tiles > TILES_MOST) tiles = TILES_MOST;
    const double vectors = 2.0 * FMA_LANES * FMA_ROUNDS * tiles / least_time(engine->pool, tiles, fma_tile, out);
    if (!unit.split) return vectors / 1e9;
    const double took = least_time(engine->pool, tiles, unit_tile, &unit), units = unit.operations[0] * tiles / took;
    return (units > vectors ? units : vectors) / 1e9;
}

enum { MOVE_TILES = 64 };

struct moving {
    uint64_t *data;
    int64_t words;  // of a tile
    enum bench_move move;
    uint64_t sum[MOVE_TILES];
};

CPU_CLONES static uint64_t sum_words(const uint64_t *p, int64_t n) {
    uint64_t total = 0;
    for (int64_t i = 0; i < n; i++) total += p[i];
    return total;
}

/* Copies go from one half of a tile to the other. */
static void move_tile(void *context, int64_t i, int thread) {
    (void)thread;
    struct moving *m = context;
    uint64_t *p = m->data + i * m->words;
    if (m->move == BENCH_READ) m->sum[i] = sum_words(p, m->words);
    if (m->move == BENCH_WRITE) memset(p, (int)i, (size_t)m->words * sizeof *p);
    if (m->move == BENCH_COPY) memcpy(p, p + m->words / 2, (size_t)m->words / 2 * sizeof *p);
}

double bench_memory_gb_per_s(struct pool *pool, enum bench_move move) {
    const size_t bytes = (size_t)256 << 20;
    struct moving m = {.words = (int64_t)(bytes / 8 / MOVE_TILES), .move = move, .data = malloc(bytes)};
    if (!m.data) return 0;
    memset(m.data, 1, bytes);
    double best = 1e9;
    for (int run = 0; run < 5; run++) {
        double begin = engine_now();
        pool_run(pool, MOVE_TILES, move_tile, &m);
        double took = engine_now() - begin;
        if (took < best) best = took;
    }
    free(m.data);
    return (double)bytes / best / 1e9;
}

enum cb_status bench_vocab(const char *model, int64_t *vocab, struct cb_err *err) {
    struct model *m = NULL;
    TRY(model_describe(&m, model, err));
    *vocab = m->vocab;
    model_destroy(&m);
    return CB_OK;
}
