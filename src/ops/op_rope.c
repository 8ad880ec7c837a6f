/* Rotary position embedding (Su et al., RoFormer, 2021): pairs of features turn by an angle that grows with the position. */
#include <math.h>
#include <string.h>

#include "gen/attrs.h"
#include "ops/infer.h"
#include "ops/ops.h"

// @attrs rope: bool interleaved, bool inverse, float scale

static const struct op rope_op;

static enum cb_status infer(const struct node *node, struct cb_type *out, int *n_out, struct cb_err *err) {
    (void)n_out;
    const struct cb_type *x = &node->in[0]->type, *position = &node->in[1]->type, *freq = &node->in[2]->type;
    char text[TYPE_TEXT];
    TRY(check_float(node, 0, err));
    TRY(check_rank(node, 0, 4, err));
    if (position->rank == 2)
        TRY(check_type(node, 1, TYPE(CB_DTYPE_I32, x->dim[0], x->dim[1]), err));
    else
        TRY(check_type(node, 1, TYPE(CB_DTYPE_I32, x->dim[1]), err));
    TRY(check_float(node, 2, err));
    TRY(check_rank(node, 2, 1, err));
    if (2 * freq->dim[0] > x->dim[3])
        FAIL(err, CB_E_SHAPE, "rope: inv_freq turns %lld features, x is %s; wanted at most its last dimension",
             (long long)(2 * freq->dim[0]), type_text(x, text));
    *out = *x;
    return CB_OK;
}

static void ref(const struct op_run *run) {
    const struct attr_rope *attrs = run->node->attrs;
    const struct cb_type *x = &run->node->in[0]->type, *freq = &run->node->in[2]->type;
    int64_t b_n = x->dim[0], t_n = x->dim[1], h_n = x->dim[2], d = x->dim[3], half = freq->dim[0];
    bool shared = run->node->in[1]->type.rank == 1;
    const int32_t *position = run->in[1];
    double scale = attrs->scale == 0 ? 1 : attrs->scale;
    for (int64_t i = 0; i < b_n * t_n * h_n; i++) {
        int64_t row = i / h_n, p = position[shared ? row % t_n : row], at = i * d;
        for (int64_t k = 0; k < half; k++) {
            double angle = (double)p * ref_get(freq->dtype, run->in[2], k);
            double c = cos(angle) * scale, s = (attrs->inverse ? -sin(angle) : sin(angle)) * scale;
            int64_t i0 = at + (attrs->interleaved ? 2 * k : k), i1 = at + (attrs->interleaved ? 2 * k + 1 : k + half);
            double x0 = ref_get(x->dtype, run->in[0], i0), x1 = ref_get(x->dtype, run->in[0], i1);
            ref_set(x->dtype, run->out[0], i0, x0 * c - x1 * s);
            ref_set(x->dtype, run->out[0], i1, x1 * c + x0 * s);
        }
        for (int64_t k = 2 * half; k < d; k++) ref_set(x->dtype, run->out[0], at + k, ref_get(x->dtype, run->in[0], at + k));
    }
}

static void grad(struct cb_graph *g, const struct node *node, struct cb_tensor *const *dout, const bool *need, struct cb_tensor **din) {
    struct attr_rope attrs;
    memcpy(&attrs, node->attrs, sizeof attrs);
    attrs.inverse = !attrs.inverse;
    // a turn is orthogonal: its transpose turns back
    if (need[0]) din[0] = graph_node(g, &rope_op, &attrs, 3, (struct cb_tensor *[]){dout[0], node->in[1], node->in[2]});
}

static double flops(const struct node *node) { return 3.0 * (double)type_elements(&node->in[0]->type); }

static const char *const in_names[] = {"x", "position", "inv_freq", NULL};
static const char *const out_names[] = {"y", NULL};
static const struct attr_rope half_split = {0}, neighbours = {.interleaved = true, .scale = 1.25}, back = {.inverse = true, .scale = 0.5};
#define CASE_FREQ(n) \
    { .present = true, .dtype = CB_DTYPE_F32, CASE_DIMS(n), .fill = FILL_UNIFORM, .low = 0.01, .high = 1, .no_grad = true }
static const struct op_case cases[] = {
    {.name = "half", .attrs = &half_split, .in = {CASE_F32(2, 5, 3, 8), CASE_INDEX(9, 5), CASE_FREQ(4)}},
    {.name = "rows", .attrs = &half_split, .in = {CASE_F32(2, 5, 1, 6), CASE_INDEX(9, 2, 5), CASE_FREQ(3)}},
    {.name = "interleaved", .attrs = &neighbours, .in = {CASE_F32(1, 3, 2, 6), CASE_INDEX(9, 3), CASE_FREQ(3)}},
    {.name = "partial", .attrs = &half_split, .in = {CASE_F32(1, 3, 2, 11), CASE_INDEX(9, 3), CASE_FREQ(2)}},
    {.name = "partial_interleaved", .attrs = &neighbours, .in = {CASE_F32(1, 3, 2, 7), CASE_INDEX(9, 1, 3), CASE_FREQ(2)}},
    {.name = "inverse", .attrs = &back, .in = {CASE_F32(2, 3, 2, 4), CASE_INDEX(9, 3), CASE_FREQ(2)}},
    {.name = "empty", .attrs = &half_split, .in = {CASE_F32(2, 0, 2, 4), CASE_INDEX(9, 0), CASE_FREQ(2)}},
    {.name = "head_64", .attrs = &half_split, .in = {CASE_F32(2, 7, 3, 64), CASE_INDEX(99, 7), CASE_FREQ(32)}, .no_grad = true},
    {0},
};
static const struct op rope_op = {
    .name = "rope",
    .doc =
        "Turns the first 2n features of x (B,T,H,D) by position i32 (B,T) or (T) times inv_freq (n): pairs (k, k+n), or neighbours (2k, "
        "2k+1) "
        "where interleaved, the result scaled (0: by 1); the other features pass. inverse turns back. inv_freq is a constant.",
    .in_names = in_names,
    .out_names = out_names,
    .attrs = attr_fields_rope,
    .attr_bytes = sizeof(struct attr_rope),
    .traits = OP_CHEAP,
    .infer = infer,
    .grad = grad,
    .ref = ref,
    .flops = flops,
    .inplace = {1},
    .cases = cases,
};

struct cb_tensor *op_rope(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *position, struct cb_tensor *inv_freq, bool interleaved,
                          double scale) {
    struct attr_rope attrs;
    memset(&attrs, 0, sizeof attrs);
    attrs.interleaved = interleaved;
    attrs.scale = scale;
    return graph_node(g, &rope_op, &attrs, 3, (struct cb_tensor *[]){x, position, inv_freq});
}

const struct op *const op_file_rope[] = {&rope_op, NULL};
