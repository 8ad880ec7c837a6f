/* Elementwise functions of two tensors with broadcasting: the shapes are merged into few long dimensions, the innermost runs in vectors. */
#ifndef BACKEND_CPU_BINARY_BODY_H
#define BACKEND_CPU_BINARY_BODY_H
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"

#define BINARY_TILE 8192 /* elements, about */

struct binary {
    const float *a, *b;
    float *y;
    int rank; /* of the outer dimensions */
    int64_t dim[CB_MAX_RANK], a_step[CB_MAX_RANK], b_step[CB_MAX_RANK];
    int64_t n, a_inner, b_inner; /* the innermost dimension; steps 0 or 1 */
    int64_t rows, tile_rows, parts, part; /* rows: product of dim; parts of a row, of `part` elements */
    void (*loop)(const float *a, const float *b, float *y, int64_t n, int64_t a_inner, int64_t b_inner);
};

/* Steps of an operand along the result's dimensions, 0 where it is broadcast. */
static void binary_steps(const struct cb_type *type, int rank, int64_t *step) {
    int64_t s = 1;
    for (int i = 0; i < rank; i++) step[i] = 0;
    for (int i = type->rank - 1; i >= 0; i--) {
        step[rank - type->rank + i] = type->dim[i] == 1 ? 0 : s;
        s *= type->dim[i];
    }
}

static void binary_open(struct binary *p, const struct op_run *run) {
    const struct cb_type *y = &run->node->out[0]->type;
    int64_t a[CB_MAX_RANK], b[CB_MAX_RANK], dim[CB_MAX_RANK + 1] = {1}, as[CB_MAX_RANK + 1] = {0}, bs[CB_MAX_RANK + 1] = {0};
    int n = 0;
    binary_steps(&run->node->in[0]->type, y->rank, a);
    binary_steps(&run->node->in[1]->type, y->rank, b);
    // from the innermost out: a dimension joins the one inside it where both operands go on in step
    for (int i = y->rank - 1; i >= 0; i--) {
        if (y->dim[i] == 1) continue;
        if (n > 0 && a[i] == as[n - 1] * dim[n - 1] && b[i] == bs[n - 1] * dim[n - 1]) {
            dim[n - 1] *= y->dim[i];
            continue;
        }
        dim[n] = y->dim[i], as[n] = a[i], bs[n] = b[i], n++;
    }
    p->a = run->in[0], p->b = run->in[1], p->y = run->out[0];
    p->n = dim[0], p->a_inner = as[0], p->b_inner = bs[0];
    p->rank = n > 0 ? n - 1 : 0, p->rows = 1;
    for (int i = 0; i < p->rank; i++) {
        p->dim[i] = dim[i + 1], p->a_step[i] = as[i + 1], p->b_step[i] = bs[i + 1];
        p->rows *= dim[i + 1];
    }
    p->part = BINARY_TILE, p->parts = tile_count(p->n, BINARY_TILE);
    p->tile_rows = tile_max(1, BINARY_TILE / tile_max(1, p->n));
}

static void binary_tile(void *context, int64_t index, int thread) {
    const struct binary *p = context;
    int64_t begin = index / p->parts * p->tile_rows, end = tile_min(p->rows, begin + p->tile_rows), at = index % p->parts * p->part;
    int64_t n = tile_min(p->part, p->n - at);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const float *a = p->a + at * p->a_inner, *b = p->b + at * p->b_inner;
        int64_t left = r;
        for (int i = 0; i < p->rank; i++) {
            int64_t k = left % p->dim[i];
            left /= p->dim[i];
            a += k * p->a_step[i], b += k * p->b_step[i];
        }
        p->loop(a, b, p->y + r * p->n + at, n, p->a_inner, p->b_inner);
    }
}

static void binary_each(const struct op_run *run,
                        void (*loop)(const float *a, const float *b, float *y, int64_t n, int64_t a_inner, int64_t b_inner)) {
    struct binary p = {.loop = loop};
    binary_open(&p, run);
    if (p.n == 0 || p.rows == 0) return;
    tile_run(run->pool, p.n * p.rows, tile_count(p.rows, p.tile_rows) * p.parts, binary_tile, &p);
}

SIMD_INLINE vf f_add(vf a, vf b) { return a + b; }
SIMD_INLINE vf f_sub(vf a, vf b) { return a - b; }
SIMD_INLINE vf f_mul(vf a, vf b) { return a * b; }
SIMD_INLINE vf f_div(vf a, vf b) { return a / b; }
/* NaN where either is. */
SIMD_INLINE vf f_maximum(vf a, vf b) { return vf_select(vf_eq(a, a), vf_select(vf_lt(b, a), a, b), a); }
SIMD_INLINE vf f_minimum(vf a, vf b) { return vf_select(vf_eq(a, a), vf_select(vf_lt(a, b), a, b), a); }

#define BINARY_LIST(X) X(add) X(sub) X(mul) X(div) X(maximum) X(minimum)
#define BINARY_DEFINE(name)                                                                                          \
    static void loop_##name(const float *a, const float *b, float *y, int64_t n, int64_t a_inner, int64_t b_inner) { \
        if (a_inner && b_inner) {                                                                                    \
            ROW_EACH(i, lanes, n, vf_put(y + i, f_##name(vf_at(a + i, lanes), vf_at(b + i, lanes)), lanes));         \
        } else if (a_inner) {                                                                                        \
            vf s = vf_set(*b);                                                                                       \
            ROW_EACH(i, lanes, n, vf_put(y + i, f_##name(vf_at(a + i, lanes), s), lanes));                           \
        } else if (b_inner) {                                                                                        \
            vf s = vf_set(*a);                                                                                       \
            ROW_EACH(i, lanes, n, vf_put(y + i, f_##name(s, vf_at(b + i, lanes)), lanes));                           \
        } else {                                                                                                     \
            vf s = f_##name(vf_set(*a), vf_set(*b));                                                                 \
            ROW_EACH(i, lanes, n, vf_put(y + i, s, lanes));                                                          \
        }                                                                                                            \
    }                                                                                                                \
    static void run_##name(const struct op_run *run) { binary_each(run, loop_##name); }
BINARY_LIST(BINARY_DEFINE)
#define BINARY_KERNEL(name) {#name, SIMD_NAME, SIMD_CPU, SIMD_PRIORITY, node_is_f32, NULL, run_##name},
#endif
