/* Kernels that cut tensors along an axis and join them: runs of bytes, copied whole. */
#include <string.h>

#include "backend/cpu/tile.h"
#include "gen/attrs.h"

/* Copies `rows` runs of `bytes`, each row at its own stride in source and target. */
struct copy {
    char *to;
    const char *from;
    int64_t rows, bytes, to_stride, from_stride, rows_a_tile;
};

static void copy_tile(void *context, int64_t i, int thread) {
    (void)thread;
    const struct copy *c = context;
    int64_t begin = i * c->rows_a_tile, end = tile_min(begin + c->rows_a_tile, c->rows);
    for (int64_t r = begin; r < end; r++) memcpy(c->to + r * c->to_stride, c->from + r * c->from_stride, (size_t)c->bytes);
}

static void copy_rows(struct pool *pool, char *to, int64_t to_stride, const char *from, int64_t from_stride, int64_t rows, int64_t bytes) {
    if (!rows || !bytes) return;
    int64_t a_tile = tile_max(1, (64 << 10) / bytes);
    struct copy c = {
        .to = to, .from = from, .rows = rows, .bytes = bytes, .to_stride = to_stride, .from_stride = from_stride, .rows_a_tile = a_tile};
    tile_run(pool, rows * bytes / 4, tile_count(rows, a_tile), copy_tile, &c);
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
    copy_rows(run->pool, run->out[0], n * inner, (const char *)run->in[0] + a->begin * inner, x->dim[a->axis] * inner, outer_of(x, a->axis),
              n * inner);
}

static void slice_grad_run(const struct op_run *run) {
    const struct attr_slice_grad *a = run->node->attrs;
    const struct cb_type *dy = &run->node->in[0]->type;
    int64_t inner = inner_bytes(dy, a->axis), n = dy->dim[a->axis];
    memset(run->out[0], 0, (size_t)type_bytes(&run->node->out[0]->type));
    copy_rows(run->pool, (char *)run->out[0] + a->begin * inner, a->size * inner, run->in[0], n * inner, outer_of(dy, a->axis), n * inner);
}

static void split_run(const struct op_run *run) {
    const struct attr_split *a = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type;
    int64_t inner = inner_bytes(x, a->axis), at = 0;
    for (int i = 0; i < run->node->n_out; i++) {
        int64_t bytes = a->sizes.v[i] * inner;
        copy_rows(run->pool, run->out[i], bytes, (const char *)run->in[0] + at, x->dim[a->axis] * inner, outer_of(x, a->axis), bytes);
        at += bytes;
    }
}

static void concat_run(const struct op_run *run) {
    const struct attr_concat *a = run->node->attrs;
    const struct cb_type *y = &run->node->out[0]->type;
    int64_t inner = inner_bytes(y, a->axis), at = 0;
    for (int i = 0; i < run->node->n_in; i++) {
        int64_t bytes = run->node->in[i]->type.dim[a->axis] * inner;
        copy_rows(run->pool, (char *)run->out[0] + at, y->dim[a->axis] * inner, run->in[i], bytes, outer_of(y, a->axis), bytes);
        at += bytes;
    }
}

const struct kernel kernel_file_parts[] = {
    {"slice", "copy", 0, 10, slice_accepts, NULL, slice_run},
    {"slice_grad", "copy", 0, 10, slice_grad_accepts, NULL, slice_grad_run},
    {"split", "copy", 0, 10, plain, NULL, split_run},
    {"concat", "copy", 0, 10, plain, NULL, concat_run},
    {0},
};
