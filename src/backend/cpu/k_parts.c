/* Kernels that cut tensors along an axis and join them: runs of bytes, copied whole. */
#include <string.h>

#include "backend/cpu/tile.h"
#include "gen/attrs.h"

/* Rows of runs of bytes: each part of a row has its own place, and stride from row to row, in source and target. */
struct part {
    char *to;
    const char *from;
    int64_t bytes, to_stride, from_stride;
};
enum { MAX_PARTS = 64 };  // side by side in one walk over the rows
struct copy {
    const struct part *parts;
    int64_t n_parts, rows, rows_a_tile;
};

static void copy_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct copy *c = context;
    int64_t begin = i * c->rows_a_tile, end = tile_min(begin + c->rows_a_tile, c->rows);
    for (int64_t r = begin; r < end; r++)
        for (const struct part *p = c->parts; p < c->parts + c->n_parts; p++)
            if (p->bytes) memcpy(p->to + r * p->to_stride, p->from + r * p->from_stride, (size_t)p->bytes);
}

static void copy_rows(struct pool *pool, const struct part *parts, int64_t n_parts, int64_t rows) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < n_parts; i++) bytes += parts[i].bytes;
    if (!rows || !bytes) return;
    struct copy c = {.parts = parts, .n_parts = n_parts, .rows = rows, .rows_a_tile = tile_max(1, (64 << 10) / bytes)};
    tile_run(pool, rows * bytes / 4, tile_count(rows, c.rows_a_tile), copy_tile, &c);
}

/* Elements before an axis; bytes of one index of it. */
static int64_t outer_of(const struct cb_type *t, int64_t axis) {
    int64_t n = 1;
    for (int64_t i = 0; i < axis; i++) n *= t->dim[i];
    return n;
}
static int64_t inner_bytes(const struct cb_type *t, int64_t axis) {
    int64_t n = dtype_of(t->dtype)->block_bytes;
    for (int64_t i = axis + 1; i < t->rank; i++) n *= t->dim[i];
    return n;
}

static bool plain(const struct node *node) { return dtype_of(node->out[0]->type.dtype)->block == 1; }
static bool slice_accepts(const struct node *node) { return plain(node) && ((const struct attr_slice *)node->attrs)->step == 1; }
static bool slice_grad_accepts(const struct node *node) { return plain(node) && ((const struct attr_slice_grad *)node->attrs)->step == 1; }

static void slice_run(const struct op_run *run) {
    const struct attr_slice *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t inner = inner_bytes(x, a->axis), n = run->node->out[0]->type.dim[a->axis];
    struct part part = {.to = run->out[0], .from = (const char *)run->in[0] + a->begin * inner, .bytes = n * inner};
    part.to_stride = part.bytes;
    part.from_stride = x->dim[a->axis] * inner;
    copy_rows(run->pool, &part, 1, outer_of(x, a->axis));
}

static void slice_grad_run(const struct op_run *run) {
    const struct attr_slice_grad *a = run->node->attrs;
    const struct cb_type *dy = &run->node->in[0]->type;
    int64_t inner = inner_bytes(dy, a->axis), n = dy->dim[a->axis];
    memset(run->out[0], 0, (size_t)type_bytes(&run->node->out[0]->type));
    struct part part = {.to = (char *)run->out[0] + a->begin * inner, .from = run->in[0], .bytes = n * inner};
    part.to_stride = a->size * inner;
    part.from_stride = part.bytes;
    copy_rows(run->pool, &part, 1, outer_of(dy, a->axis));
}

static void split_run(const struct op_run *run) {
    const struct attr_split *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t inner = inner_bytes(x, a->axis), at = 0;
    for (int i = 0; i < run->node->n_out;) {
        struct part parts[MAX_PARTS];
        int n = 0;
        for (; n < MAX_PARTS && i < run->node->n_out; i++) {
            int64_t bytes = a->sizes.v[i] * inner;
            parts[n++] = (struct part){run->out[i], (const char *)run->in[0] + at, bytes, bytes, x->dim[a->axis] * inner};
            at += bytes;
        }
        copy_rows(run->pool, parts, n, outer_of(x, a->axis));
    }
}

static void concat_run(const struct op_run *run) {
    const struct attr_concat *a = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    int64_t inner = inner_bytes(y, a->axis), at = 0;
    for (int i = 0; i < run->node->n_in;) {
        struct part parts[MAX_PARTS];
        int n = 0;
        for (; n < MAX_PARTS && i < run->node->n_in; i++) {
            int64_t bytes = run->node->in[i]->type.dim[a->axis] * inner;
            parts[n++] = (struct part){(char *)run->out[0] + at, run->in[i], bytes, y->dim[a->axis] * inner, bytes};
            at += bytes;
        }
        copy_rows(run->pool, parts, n, outer_of(y, a->axis));
    }
}

const struct kernel kernel_file_parts[] = {
    {"slice", "copy", 0, 10, slice_accepts, NULL, slice_run},
    {"slice_grad", "copy", 0, 10, slice_grad_accepts, NULL, slice_grad_run},
    {"split", "copy", 0, 10, plain, NULL, split_run},
    {"concat", "copy", 0, 10, plain, NULL, concat_run},
    {0},
};
