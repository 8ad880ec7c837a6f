/* Sum and mean over neighbouring axes, seen as (outer, reduced, inner): rows, columns, or everything in blocks of a fixed size. */
#ifndef BACKEND_CPU_REDUCE_BODY_H
#define BACKEND_CPU_REDUCE_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

#define REDUCE_PART 8192 /* elements of one partial sum of a long row */
#define REDUCE_COLUMNS 128 /* columns of a tile */
#define REDUCE_ROWS 64 /* rows added up before they join the total: keeps rounding errors small */

struct reduce {
    const float *x;
    float *y, *parts;
    int64_t outer, n, inner, n_parts, n_columns;
    float scale;
};

/* Splits x around the axes; false where they are not neighbours. */
static bool reduce_split(const struct cb_type *x, const bool *reduced, struct reduce *p) {
    int i = 0;
    p->outer = p->n = p->inner = 1;
    for (; i < x->rank && (!reduced[i] || x->dim[i] == 1); i++) p->outer *= x->dim[i];
    for (; i < x->rank && (reduced[i] || x->dim[i] == 1); i++) p->n *= x->dim[i];
    for (; i < x->rank; i++) {
        if (reduced[i] && x->dim[i] != 1) return false;
        p->inner *= x->dim[i];
    }
    p->n_parts = p->inner == 1 ? tile_count(p->n, REDUCE_PART) : 1;
    p->n_columns = tile_count(p->inner, REDUCE_COLUMNS);
    return true;
}
static bool reduce_shape(const struct node *node, struct reduce *p) {
    const struct attr_reduce *a = node->attrs;
    bool reduced[CB_MAX_RANK] = {false};
    for (int i = 0; i < a->axes.n; i++) reduced[a->axes.v[i]] = true;
    return reduce_split(&node->in[0]->type, reduced, p);
}
static bool sum_to_shape(const struct node *node, struct reduce *p) {
    const struct cb_type *x = &node->in[0]->type, *y = &node->out[0]->type;
    bool reduced[CB_MAX_RANK] = {false};
    for (int i = 0; i < x->rank; i++) {
        int k = i - (x->rank - y->rank);
        reduced[i] = k < 0 || y->dim[k] != x->dim[i];
    }
    return reduce_split(x, reduced, p);
}

/* A part of a row. */
static void reduce_part_tile(void *context, int64_t index, int thread) {
    const struct reduce *p = context;
    int64_t row = index / p->n_parts, at = index % p->n_parts * REDUCE_PART;
    (void)thread;
    p->parts[index] = row_sum(p->x + row * p->n + at, tile_min(REDUCE_PART, p->n - at));
}
/* Up to 256 short rows. */
static void reduce_rows_tile(void *context, int64_t index, int thread) {
    const struct reduce *p = context;
    int64_t end = tile_min(p->outer, (index + 1) * 256);
    (void)thread;
    for (int64_t r = index * 256; r < end; r++) p->y[r] = row_sum(p->x + r * p->n, p->n) * p->scale;
}
/* Some columns of one matrix (n, inner). */
static void reduce_columns_tile(void *context, int64_t index, int thread) {
    const struct reduce *p = context;
    int64_t o = index / p->n_columns, at = index % p->n_columns * REDUCE_COLUMNS, columns = tile_min(REDUCE_COLUMNS, p->inner - at);
    float total[REDUCE_COLUMNS] = {0}, block[REDUCE_COLUMNS];
    const float *x = p->x + o * p->n * p->inner + at;
    (void)thread;
    for (int64_t r0 = 0; r0 < p->n; r0 += REDUCE_ROWS) {
        int64_t r1 = tile_min(p->n, r0 + REDUCE_ROWS);
        memset(block, 0, sizeof block);
        for (int64_t r = r0; r < r1; r++) {
            const float *row = x + r * p->inner;
            ROW_EACH(i, lanes, columns, vf_store(block + i, vf_load(block + i) + vf_at(row + i, lanes)));
        }
        for (int i = 0; i < REDUCE_COLUMNS; i += SIMD_LANES) vf_store(total + i, vf_load(total + i) + vf_load(block + i));
    }
    float *y = p->y + o * p->inner + at;
    ROW_EACH(i, lanes, columns, vf_put(y + i, vf_load(total + i) * vf_set(p->scale), lanes));
}

static void reduce_each(const struct op_run *run, struct reduce *p, bool mean) {
    p->x = run->in[0], p->y = run->out[0], p->parts = run->work;
    p->scale = mean ? 1 / (float)p->n : 1;
    int64_t work = p->outer * p->n * p->inner;
    if (p->inner != 1) {
        tile_run(run->pool, work, p->outer * p->n_columns, reduce_columns_tile, p);
    } else if (p->n_parts <= 1) {
        tile_run(run->pool, work, tile_count(p->outer, 256), reduce_rows_tile, p);
    } else {
        tile_run(run->pool, work, p->outer * p->n_parts, reduce_part_tile, p);
        for (int64_t o = 0; o < p->outer; o++) p->y[o] = row_sum(p->parts + o * p->n_parts, p->n_parts) * p->scale;
    }
}
static size_t reduce_bytes(const struct reduce *p) { return p->n_parts > 1 ? (size_t)(p->outer * p->n_parts) * sizeof(float) : 0; }

static bool reduce_accepts(const struct node *node) {
    struct reduce p;
    return node_is_f32(node) && reduce_shape(node, &p);
}
static size_t reduce_workspace(const struct node *node, int n_threads) {
    struct reduce p;
    (void)n_threads;
    return reduce_shape(node, &p) ? reduce_bytes(&p) : 0;
}
static void sum_run(const struct op_run *run) {
    struct reduce p;
    if (reduce_shape(run->node, &p)) reduce_each(run, &p, false);
}
static void mean_run(const struct op_run *run) {
    struct reduce p;
    if (reduce_shape(run->node, &p)) reduce_each(run, &p, true);
}
static bool sum_to_accepts(const struct node *node) {
    struct reduce p;
    return node_is_f32(node) && sum_to_shape(node, &p);
}
static size_t sum_to_workspace(const struct node *node, int n_threads) {
    struct reduce p;
    (void)n_threads;
    return sum_to_shape(node, &p) ? reduce_bytes(&p) : 0;
}
static void sum_to_run(const struct op_run *run) {
    struct reduce p;
    if (sum_to_shape(run->node, &p)) reduce_each(run, &p, false);
}
#endif
