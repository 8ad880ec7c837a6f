/* Max pooling and its gradient: planes (N C) are tiles; windows of 2 x 2 without overlap go by vectors, others by scalar loops. */
#ifndef BACKEND_CPU_POOL_BODY_H
#define BACKEND_CPU_POOL_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

struct max_pool {
    const float *x;
    float *y;
    int32_t *index;
    int64_t h, w, oh, ow;
    int64_t kernel[2], stride[2], padding[2];
};

static int64_t pool_entry(const struct attr_ints *list, int i, int64_t absent) {
    return list->n < 1 ? absent : list->v[list->n == 2 ? i : 0];
}

static bool max_pool_accepts(const struct node *node) {
    const struct attr_max_pool2d *a = node->attrs;
    if (node->in[0]->type.dtype != CB_DTYPE_F32 || a->output.n) return false;
    return pool_entry(&a->dilation, 0, 1) == 1 && pool_entry(&a->dilation, 1, 1) == 1;
}

/* The first of equal values wins; NaN wins over all. */
static void max_pool_window(const struct max_pool *p, const float *x, int64_t oy, int64_t ox, float *best, int32_t *at) {
    int64_t y0 = oy * p->stride[0] - p->padding[0], x0 = ox * p->stride[1] - p->padding[1];
    int64_t y1 = tile_min(p->h, y0 + p->kernel[0]), x1 = tile_min(p->w, x0 + p->kernel[1]);
    y0 = tile_max(y0, 0), x0 = tile_max(x0, 0);
    *best = -INFINITY;
    *at = (int32_t)(y0 * p->w + x0);
    for (int64_t i = y0; i < y1; i++)
        for (int64_t k = x0; k < x1; k++) {
            float v = x[i * p->w + k];
            if (v > *best || v != v) *best = v, *at = (int32_t)(i * p->w + k);
        }
}

#if SIMD_LANES == 16
#define POOL_PART(p, q, o) \
    SHUFFLE(p, q, o, 2 + o, 4 + o, 6 + o, 8 + o, 10 + o, 12 + o, 14 + o, 16 + o, 18 + o, 20 + o, 22 + o, 24 + o, 26 + o, 28 + o, 30 + o)
#elif SIMD_LANES == 8
#define POOL_PART(p, q, o) SHUFFLE(p, q, o, 2 + o, 4 + o, 6 + o, 8 + o, 10 + o, 12 + o, 14 + o)
#else
#define POOL_PART(p, q, o) SHUFFLE(p, q, o, 2 + o, 4 + o, 6 + o)
#endif

/* best = v, and its place, where v is greater or not a number. */
SIMD_INLINE void max_pool_take(vf *best, vi *at, vf v, vi place) {
    vm take = (vm)(vf_lt(*best, v) | ~vf_eq(v, v));
    *best = vf_select(take, v, *best);
    *at = (vi)vf_select(take, (vf)place, (vf)*at);
}

/* One row of windows of 2 x 2 with stride 2. */
SIMD_INLINE void max_pool_row(const struct max_pool *p, const float *x, int64_t oy, float *y, int32_t *index) {
    const float *above = x + 2 * oy * p->w, *below = above + p->w;
    for (int64_t ox = 0; ox < p->ow; ox += SIMD_LANES) {
        int n = (int)tile_min(SIMD_LANES, p->ow - ox), first = 2 * n < SIMD_LANES ? 2 * n : SIMD_LANES, second = 2 * n - first;
        vf a = vf_load_n(above + 2 * ox, first), b = vf_load_n(below + 2 * ox, first), c = vf_zero(), d = vf_zero();
        if (second) {
            c = vf_load_n(above + 2 * ox + SIMD_LANES, second);
            d = vf_load_n(below + 2 * ox + SIMD_LANES, second);
        }
        vi place = vi_set((int32_t)(2 * oy * p->w + 2 * ox)) + 2 * vi_iota();
        vf best = vf_set(-INFINITY);
        vi at = place;
        max_pool_take(&best, &at, POOL_PART(a, c, 0), place);
        max_pool_take(&best, &at, POOL_PART(a, c, 1), place + 1);
        max_pool_take(&best, &at, POOL_PART(b, d, 0), place + (int32_t)p->w);
        max_pool_take(&best, &at, POOL_PART(b, d, 1), place + (int32_t)p->w + 1);
        vf_put(y + ox, best, n);
        memcpy(index + ox, &at, (size_t)n * sizeof *index);
    }
}

static void max_pool_tile(void *context, int64_t plane, int thread) {
    const struct max_pool *p = context;
    const float *x = p->x + plane * p->h * p->w;
    float *y = p->y + plane * p->oh * p->ow;
    int32_t *index = p->index + plane * p->oh * p->ow;
    bool pairs = p->kernel[0] == 2 && p->kernel[1] == 2 && p->stride[0] == 2 && p->stride[1] == 2 && !p->padding[0] && !p->padding[1] &&
                 2 * p->oh <= p->h && 2 * p->ow <= p->w;
    (void)thread;
    for (int64_t oy = 0; oy < p->oh; oy++, y += p->ow, index += p->ow) {
        if (pairs) {
            max_pool_row(p, x, oy, y, index);
            continue;
        }
        for (int64_t ox = 0; ox < p->ow; ox++) max_pool_window(p, x, oy, ox, &y[ox], &index[ox]);
    }
}

static void max_pool_run(const struct op_run *run) {
    const struct attr_max_pool2d *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type, *y = &run->node->out[0]->type;
    struct max_pool p = {
        .x = run->in[0], .y = run->out[0], .index = run->out[1], .h = x->dim[2], .w = x->dim[3], .oh = y->dim[2], .ow = y->dim[3]};
    for (int i = 0; i < 2; i++) {
        p.kernel[i] = pool_entry(&a->kernel, i, 0);
        p.stride[i] = pool_entry(&a->stride, i, p.kernel[i]);
        p.padding[i] = pool_entry(&a->padding, i, 0);
    }
    tile_run(run->pool, type_elements(x), x->dim[0] * x->dim[1], max_pool_tile, &p);
}

/* ---- the gradient goes to the places that won */
struct max_pool_back {
    const int32_t *index;
    const float *dy;
    float *dx;
    int64_t small, big;
};

static bool max_pool_back_accepts(const struct node *node) { return node->in[1]->type.dtype == CB_DTYPE_F32; }

static void max_pool_back_tile(void *context, int64_t plane, int thread) {
    const struct max_pool_back *p = context;
    const int32_t *index = p->index + plane * p->small;
    const float *dy = p->dy + plane * p->small;
    float *dx = p->dx + plane * p->big;
    (void)thread;
    memset(dx, 0, (size_t)p->big * sizeof *dx);
    for (int64_t i = 0; i < p->small; i++)
        if (index[i] >= 0 && index[i] < p->big) dx[index[i]] += dy[i];
}

static void max_pool_back_run(const struct op_run *run) {
    const struct cb_type *dy = &run->node->in[1]->type, *dx = &run->node->out[0]->type;
    struct max_pool_back p = {run->in[0], run->in[1], run->out[0], dy->dim[2] * dy->dim[3], dx->dim[2] * dx->dim[3]};
    tile_run(run->pool, type_elements(dx), dx->dim[0] * dx->dim[1], max_pool_back_tile, &p);
}
#endif
