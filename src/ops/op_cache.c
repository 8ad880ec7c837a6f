/* The cache of keys and values that decoding fills: rows written in place at each sequence's own position. */
#include <string.h>

#include "ops/infer.h"
#include "ops/ops.h"

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct cb_type *cache = &node->in[0]->type, *rows = &node->in[1]->type;
    char have[TYPE_TEXT], text[TYPE_TEXT];
    bool is_kept =
        cache->dtype == CB_DTYPE_F32 || cache->dtype == CB_DTYPE_F64 || cache->dtype == CB_DTYPE_F16 || cache->dtype == CB_DTYPE_BF16;
    if (!is_kept || cache->rank < 2)
        FAIL(err, CB_E_SHAPE, "cache_write: cache is %s; wanted f32, f64, f16 or bf16 of rank 2 or more", type_text(cache, have));
    TRY(check_float(node, 1, err));
    struct cb_type want = *cache;
    if (rows->rank == cache->rank) want.dim[1] = rows->dim[1];
    if (!shape_equal(rows, &want) || rows->dim[1] > cache->dim[1])
        FAIL(err, CB_E_SHAPE, "cache_write: rows is %s, cache is %s; wanted the same shape but for dimension 1, which fits in",
             type_text(rows, have), type_text(cache, text));
    *out = *cache;
    return check_type(node, 2, TYPE(CB_DTYPE_I32, cache->dim[0]), err);
}

static void ref(const struct op_run *run) {
    const struct cb_type *cache = &run->node->in[0]->type, *rows = &run->node->in[1]->type;
    const int32_t *start = run->in[2];
    int64_t t_max = cache->dim[1], t_n = rows->dim[1], inner = 1;
    for (int i = 2; i < cache->rank; i++) inner *= cache->dim[i];
    if (run->in[0] != run->out[0]) memcpy(run->out[0], run->in[0], (size_t)type_bytes(cache));
    for (int64_t b = 0; b < cache->dim[0]; b++)
        for (int64_t t = 0; t < t_n; t++) {
            int64_t to = start[b] + t;
            if (to < 0 || to >= t_max) continue;
            for (int64_t i = 0; i < inner; i++)
                ref_set(cache->dtype, run->out[0], (b * t_max + to) * inner + i,
                        ref_get(rows->dtype, run->in[1], (b * t_n + t) * inner + i));
        }
}

static double flops(const struct node *node) { return (double)type_elements(&node->in[1]->type); }

static const char *const in_names[] = {"cache", "rows", "start", NULL};
static const char *const out_names[] = {"cache", NULL};
static const struct op_case cases[] = {
    {.name = "keys", .in = {CASE_F32(2, 7, 3, 4), CASE_F32(2, 2, 3, 4), CASE_INDEX(6, 2)}, .no_grad = true},
    {.name = "past_end", .in = {CASE_F32(3, 4, 5), CASE_F32(3, 3, 5), CASE_INDEX(5, 3)}, .no_grad = true},
    {.name = "no_rows", .in = {CASE_F32(2, 4, 5), CASE_F32(2, 0, 5), CASE_INDEX(4, 2)}, .no_grad = true},
    {0},
};
static const struct op cache_write_op = {
    .name = "cache_write",
    .doc =
        "Writes rows (B,T,...) into cache (B,Tmax,...) from row start[b] on (i32 (B)), in place, converted to the cache's type (f32, f64, "
        "f16 or "
        "bf16); rows that fall outside are left out. Not differentiable.",
    .in_names = in_names,
    .out_names = out_names,
    .traits = OP_EFFECT,
    .infer = infer,
    .ref = ref,
    .flops = flops,
    .inplace = {1},
    .cases = cases,
};

struct cb_tensor *op_cache_write(struct cb_graph *g, struct cb_tensor *cache, struct cb_tensor *rows, struct cb_tensor *start) {
    return graph_node(g, &cache_write_op, NULL, 3, (struct cb_tensor *[]){cache, rows, start});
}

const struct op *const op_file_cache[] = {&cache_write_op, NULL};
