/* permute and expand of 4-byte elements: dimensions are merged, then rows are copied, spread or turned in blocks. */
#ifndef BACKEND_CPU_MOVE_BODY_H
#define BACKEND_CPU_MOVE_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

struct move {
    const float *x;
    float *y;
    int rank; /* dimensions of y, outermost first, after merging; at least 1 */
    int64_t dim[CB_MAX_RANK], step[CB_MAX_RANK], y_step[CB_MAX_RANK];
    int turned; /* the dimension along which x is contiguous, or -1 where it is the last or none */
    int64_t tiles, n_outer;
};

/* Merges neighbours that walk x in step, and finds the dimension to turn against the last. */
static void move_open(struct move *p, const struct op_run *run, const int64_t *step) {
    const struct cb_type *y = &run->node->out[0]->type;
    p->x = run->in[0], p->y = run->out[0], p->rank = 0, p->turned = -1;
    for (int i = 0; i < y->rank; i++) {
        if (y->dim[i] == 1) continue;
        if (p->rank > 0 && p->step[p->rank - 1] == step[i] * y->dim[i]) {
            p->dim[p->rank - 1] *= y->dim[i], p->step[p->rank - 1] = step[i];
            continue;
        }
        p->dim[p->rank] = y->dim[i], p->step[p->rank++] = step[i];
    }
    if (p->rank == 0) p->dim[0] = 1, p->step[0] = 1, p->rank = 1;
    int64_t s = 1;
    for (int i = p->rank - 1; i >= 0; i--) p->y_step[i] = s, s *= p->dim[i];
    for (int i = 0; i < p->rank - 1; i++)
        if (p->step[i] == 1 && p->step[p->rank - 1] > 1) p->turned = i;
    p->n_outer = 1;
    for (int i = 0; i < p->rank - 1; i++) p->n_outer *= i == p->turned ? 1 : p->dim[i];
}

/* One row of y, or one matrix of the turned and the last dimension. */
static void move_tile(void *context, int64_t index, int thread) {
    const struct move *p = context;
    int last = p->rank - 1;
    const float *x = p->x;
    float *y = p->y;
    (void)thread;
    for (int i = last - 1; i >= 0; i--) {
        if (i == p->turned) continue;
        x += index % p->dim[i] * p->step[i], y += index % p->dim[i] * p->y_step[i];
        index /= p->dim[i];
    }
    int64_t n = p->dim[last], step = p->step[last];
    if (p->turned >= 0) {
        simd_turn(y, p->y_step[p->turned], x, step, n, p->dim[p->turned], 1, false);
    } else if (step == 1) {
        memcpy(y, x, (size_t)n * sizeof *y);
    } else {
        for (int64_t i = 0; i < n; i++) memcpy(y + i, x + i * step, sizeof *y);
    }
}

static void move_each(const struct op_run *run, const int64_t *step) {
    struct move p;
    int64_t n = type_elements(&run->node->out[0]->type);
    if (n == 0) return;
    move_open(&p, run, step);
    tile_run(run->pool, n, p.n_outer, move_tile, &p);
}

static void permute_run(const struct op_run *run) {
    const struct attr_permute *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t own[CB_MAX_RANK] = {0}, step[CB_MAX_RANK] = {0}, s = 1;
    for (int i = x->rank - 1; i >= 0; i--) own[i] = s, s *= x->dim[i];
    for (int i = 0; i < x->rank; i++) step[i] = own[a->axes.v[i]];
    move_each(run, step);
}
static void expand_run(const struct op_run *run) {
    const struct cb_type *x = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    int64_t step[CB_MAX_RANK] = {0}, s = 1;
    for (int i = x->rank - 1; i >= 0; i--) {
        step[y->rank - x->rank + i] = x->dim[i] == 1 ? 0 : s;
        s *= x->dim[i];
    }
    move_each(run, step);
}
/* simd_turn multiplies by 1: whole numbers would not survive as f32 bits, so only f32. */
static bool move_accepts(const struct node *node) { return node_is_f32(node); }
#endif
