/* Convolution as matrix products over unfolded patches (im2col; Chellapilla et al. 2006), a few output rows at a time, and its two gradients. */
#ifndef BACKEND_CPU_CONV_BODY_H
#define BACKEND_CPU_CONV_BODY_H
#include "backend/cpu/gemm.h"
#include "backend/cpu/simd.h"
#include "backend/cpu/tile.h"
#include "gen/attrs.h"

#define CONV_COLUMNS 65536 /* floats of unfolded patches at a time, about */
#define CONV_BLOCKS 8 /* blocks of images whose weight gradients are summed apart */

/* x (n,c,h,w), weight (o,c/groups,kh,kw), y (n,o,oh,ow); pairs are height then width. */
struct conv {
    const float *x, *weight, *bias, *dy;
    float *y, *dx, *dweight, *work;
    int64_t n, c, o, groups, in[2], kernel[2], out[2], stride[2], padding[2], dilation[2];
    int64_t patch, area, rows, parts; /* patch: elements of one; area: oh ow; rows of y per part */
    int64_t blocks, block; /* of images, for the weight's gradient */
    int64_t columns_floats, work_floats;
    bool plain; /* the patches are x itself: 1 x 1, stride 1, no padding */
};

static void conv_pair(const struct attr_ints *list, int64_t absent, int64_t to[2]) {
    for (int i = 0; i < 2; i++) to[i] = list->n ? list->v[list->n == 2 ? i : 0] : absent;
}

/* x and y: shapes (n,c,h,w) and (n,o,oh,ow); kernel: the last two sizes of the weight. The attribute structs begin alike. */
static struct conv conv_open(const struct node *node, const struct cb_type *x, const struct cb_type *w, const struct cb_type *y) {
    const struct attr_conv2d *a = node->attrs;
    struct conv p = {.n = x->dim[0], .c = x->dim[1], .o = y->dim[1], .groups = a->groups ? a->groups : 1};
    conv_pair(&a->stride, 1, p.stride), conv_pair(&a->padding, 0, p.padding), conv_pair(&a->dilation, 1, p.dilation);
    for (int i = 0; i < 2; i++) p.in[i] = x->dim[2 + i], p.out[i] = y->dim[2 + i], p.kernel[i] = w->dim[2 + i];
    p.patch = p.c / p.groups * p.kernel[0] * p.kernel[1], p.area = p.out[0] * p.out[1];
    p.rows = tile_max(1, tile_min(p.out[0], CONV_COLUMNS / tile_max(1, p.patch * p.out[1])));
    p.parts = tile_count(p.out[0], p.rows);
    p.block = tile_max(1, tile_count(p.n, CONV_BLOCKS)), p.blocks = tile_count(p.n, p.block);
    p.columns_floats = (p.patch * p.rows * p.out[1] + 15) / 16 * 16;
    p.plain = p.kernel[0] == 1 && p.kernel[1] == 1 && p.stride[0] == 1 && p.stride[1] == 1 && !p.padding[0] && !p.padding[1];
    return p;
}

/* Patches of group g of image i for output rows [r0, r1) as (patch, columns): unfolded, or added back into dx. */
SIMD_INLINE void conv_unfold(const struct conv *p, const float *x, float *columns, int64_t r0, int64_t r1, float *dx) {
    int64_t n = (r1 - r0) * p->out[1];
    for (int64_t k = 0; k < p->patch; k++) {
        int64_t kx = k % p->kernel[1], ky = k / p->kernel[1] % p->kernel[0], c = k / (p->kernel[0] * p->kernel[1]);
        int64_t first = kx * p->dilation[1] - p->padding[1];
        // output columns whose source lies inside the row
        int64_t from = first >= 0 ? 0 : (-first + p->stride[1] - 1) / p->stride[1];
        int64_t to = p->in[1] - 1 - first < 0 ? 0 : tile_min(p->out[1], (p->in[1] - 1 - first) / p->stride[1] + 1);
        from = tile_min(from, p->out[1]), to = tile_max(to, from);
        for (int64_t r = r0; r < r1; r++) {
            int64_t iy = r * p->stride[0] - p->padding[0] + ky * p->dilation[0];
            float *at = columns + k * n + (r - r0) * p->out[1];
            bool inside = iy >= 0 && iy < p->in[0];
            int64_t row = (c * p->in[0] + iy) * p->in[1] + first;
            if (dx) {
                for (int64_t j = from; inside && j < to; j++) dx[row + j * p->stride[1]] += at[j];
                continue;
            }
            if (!inside) {
                memset(at, 0, (size_t)p->out[1] * sizeof *at);
                continue;
            }
            for (int64_t j = 0; j < from; j++) at[j] = 0;
            if (p->stride[1] == 1)
                memcpy(at + from, x + row + from, (size_t)(to - from) * sizeof *at);
            else
                for (int64_t j = from; j < to; j++) at[j] = x[row + j * p->stride[1]];
            for (int64_t j = to; j < p->out[1]; j++) at[j] = 0;
        }
    }
}

/* The three products of a part of `rows` output rows. */
static struct gemm conv_product(const struct conv *p, int64_t rows) {
    int64_t pixels = rows * p->out[1];
    return (struct gemm){.m = p->o / p->groups,
                         .n = pixels,
                         .k = p->patch,
                         .a_row = p->patch,
                         .a_col = 1,
                         .b_row = p->plain ? p->area : pixels,
                         .b_col = 1,
                         .b_dtype = CB_DTYPE_F32,
                         .c_row = p->area,
                         .accumulate = p->bias != NULL,
                         .isa = gemm_isa_for(SIMD_CPU)};
}
static struct gemm conv_input_product(const struct conv *p, int64_t rows) {
    int64_t pixels = rows * p->out[1];
    return (struct gemm){.m = p->patch,
                         .n = pixels,
                         .k = p->o / p->groups,
                         .a_row = 1,
                         .a_col = p->patch,
                         .b_row = p->area,
                         .b_col = 1,
                         .b_dtype = CB_DTYPE_F32,
                         .c_row = pixels,
                         .isa = gemm_isa_for(SIMD_CPU)};
}
static struct gemm conv_weight_product(const struct conv *p, int64_t rows) {
    int64_t pixels = rows * p->out[1];
    return (struct gemm){.m = p->o / p->groups,
                         .n = p->patch,
                         .k = pixels,
                         .a_row = p->area,
                         .a_col = 1,
                         .b_row = 1,
                         .b_col = p->plain ? p->area : pixels,
                         .b_dtype = CB_DTYPE_F32,
                         .c_row = p->patch,
                         .accumulate = true,
                         .isa = gemm_isa_for(SIMD_CPU)};
}
/* Floats of one thread: patches, and what the product of a whole or of the last part needs. */
static int64_t conv_thread_floats(const struct conv *p, struct gemm (*product)(const struct conv *p, int64_t rows)) {
    int64_t last = p->out[0] - (p->parts - 1) * p->rows;
    struct gemm whole = product(p, p->rows), rest = product(p, tile_max(last, 0));
    size_t a = gemm_workspace(&whole, 1), b = gemm_workspace(&rest, 1);
    return p->columns_floats + (int64_t)((a > b ? a : b) / 64 + 1) * 16;
}

/* One part of one image and group. */
static void conv_tile(void *context, int64_t index, int thread) {
    const struct conv *p = context;
    int64_t part = index % p->parts, g = index / p->parts % p->groups, i = index / p->parts / p->groups;
    int64_t r0 = part * p->rows, r1 = tile_min(p->out[0], r0 + p->rows), m = p->o / p->groups, n = (r1 - r0) * p->out[1];
    float *columns = p->work + thread * p->work_floats, *y = p->y + (i * p->o + g * m) * p->area + r0 * p->out[1];
    const float *x = p->x + (i * p->c + g * (p->c / p->groups)) * p->in[0] * p->in[1];
    struct gemm t = conv_product(p, r1 - r0);
    t.a = p->weight + g * m * p->patch, t.b = p->plain ? x + r0 * p->out[1] : columns, t.c = y;
    if (!p->plain) conv_unfold(p, x, columns, r0, r1, NULL);
    for (int64_t o = 0; p->bias && o < m; o++)
        for (int64_t k = 0; k < n; k++) y[o * p->area + k] = p->bias[g * m + o];
    gemm_run(&t, columns + p->columns_floats, NULL);
}
static struct conv conv_forward(const struct node *node) {
    return conv_open(node, &node->in[0]->type, &node->in[1]->type, &node->out[0]->type);
}
static size_t conv_workspace(const struct node *node, int n_threads) {
    struct conv p = conv_forward(node);
    return (size_t)(n_threads * conv_thread_floats(&p, conv_product)) * sizeof(float);
}
static void conv_run(const struct op_run *run) {
    struct conv p = conv_forward(run->node);
    p.x = run->in[0], p.weight = run->in[1], p.bias = run->in[2], p.y = run->out[0], p.work = run->work;
    p.work_floats = conv_thread_floats(&p, conv_product);
    tile_run(run->pool, p.n * p.o * p.area * p.patch / 8, p.n * p.groups * p.parts, conv_tile, &p);
}

/* One image and group: gradients of the patches are added back where they came from. */
static void conv_input_tile(void *context, int64_t index, int thread) {
    const struct conv *p = context;
    int64_t g = index % p->groups, i = index / p->groups, m = p->o / p->groups, c = p->c / p->groups;
    float *columns = p->work + thread * p->work_floats, *dx = p->dx + (i * p->c + g * c) * p->in[0] * p->in[1];
    memset(dx, 0, (size_t)(c * p->in[0] * p->in[1]) * sizeof *dx);
    for (int64_t r0 = 0; r0 < p->out[0]; r0 += p->rows) {
        int64_t r1 = tile_min(p->out[0], r0 + p->rows);
        struct gemm t = conv_input_product(p, r1 - r0);
        t.a = p->weight + g * m * p->patch, t.b = p->dy + (i * p->o + g * m) * p->area + r0 * p->out[1], t.c = columns;
        gemm_run(&t, columns + p->columns_floats, NULL);
        conv_unfold(p, NULL, columns, r0, r1, dx);
    }
}
static struct conv conv_input(const struct node *node) {
    return conv_open(node, &node->out[0]->type, &node->in[1]->type, &node->in[0]->type);
}
static size_t conv_input_workspace(const struct node *node, int n_threads) {
    struct conv p = conv_input(node);
    return (size_t)(n_threads * conv_thread_floats(&p, conv_input_product)) * sizeof(float);
}
static void conv_input_run(const struct op_run *run) {
    struct conv p = conv_input(run->node);
    p.dy = run->in[0], p.weight = run->in[1], p.dx = run->out[0], p.work = run->work;
    p.work_floats = conv_thread_floats(&p, conv_input_product);
    tile_run(run->pool, p.n * p.o * p.area * p.patch / 8, p.n * p.groups, conv_input_tile, &p);
}

/* One group over one block of images, into that block's own sums. */
static void conv_weight_tile(void *context, int64_t index, int thread) {
    const struct conv *p = context;
    int64_t g = index % p->groups, b = index / p->groups, m = p->o / p->groups, size = p->o * p->patch;
    float *columns = p->work + thread * p->work_floats, *dw = p->dweight + b * size + g * m * p->patch;
    memset(dw, 0, (size_t)(m * p->patch) * sizeof *dw);
    for (int64_t i = b * p->block; i < tile_min(p->n, (b + 1) * p->block); i++) {
        const float *x = p->x + (i * p->c + g * (p->c / p->groups)) * p->in[0] * p->in[1];
        for (int64_t r0 = 0; r0 < p->out[0]; r0 += p->rows) {
            int64_t r1 = tile_min(p->out[0], r0 + p->rows);
            struct gemm t = conv_weight_product(p, r1 - r0);
            if (!p->plain) conv_unfold(p, x, columns, r0, r1, NULL);
            t.a = p->dy + (i * p->o + g * m) * p->area + r0 * p->out[1], t.b = p->plain ? x + r0 * p->out[1] : columns, t.c = dw;
            gemm_run(&t, columns + p->columns_floats, NULL);
        }
    }
}
static struct conv conv_weight(const struct node *node) {
    return conv_open(node, &node->in[0]->type, &node->out[0]->type, &node->in[1]->type);
}
/* Floats of the blocks' sums. */
static int64_t conv_sums(const struct conv *p) { return (p->blocks * p->o * p->patch + 15) / 16 * 16; }
static size_t conv_weight_workspace(const struct node *node, int n_threads) {
    struct conv p = conv_weight(node);
    return (size_t)(n_threads * conv_thread_floats(&p, conv_weight_product) + conv_sums(&p)) * sizeof(float);
}
static void conv_weight_run(const struct op_run *run) {
    struct conv p = conv_weight(run->node);
    float *out = run->out[0];
    int64_t size = p.o * p.patch;
    p.x = run->in[0], p.dy = run->in[1];
    p.work_floats = conv_thread_floats(&p, conv_weight_product);
    p.dweight = run->work, p.work = p.dweight + conv_sums(&p);
    tile_run(run->pool, p.n * p.o * p.area * p.patch / 8, p.blocks * p.groups, conv_weight_tile, &p);
    // the blocks' sums, in their order
    if (p.blocks == 0) memset(out, 0, (size_t)size * sizeof *out);
    for (int64_t b = 0; b < p.blocks; b++)
        ROW_EACH(i, lanes, size, {
            vf s = vf_at(p.dweight + b * size + i, lanes);
            vf_put(out + i, b ? s + vf_at(out + i, lanes) : s, lanes);
        });
}
#endif
