/* Adaptors of matrix products, convolution, attention, recurrence and losses. */
#include <math.h>
#include <string.h>

#include "ops/fixtures.h"
#include "ops/losses.h"
#include "ops/ops.h"
#include "ops/recurrent.h"
#include "ops/vision.h"

#define BUILD(name) static void build_##name(struct fixture *f)
#define IN(name) fixture_in(f, name)
#define OUT(t) fixture_out(f, "", (t))
#define FLOAT(name, otherwise) fixture_float(f, name, otherwise)
#define REDUCTION fixture_str(f, "reduction", "mean")

/* ---- products */
BUILD(matmul) { OUT(op_matmul(f->g, IN("a"), IN("b"), false, false)); }
BUILD(matmul_transposed) {
    OUT(op_matmul(f->g, IN("a"), IN("b"), fixture_bool(f, "transpose_a", false), fixture_bool(f, "transpose_b", false)));
}
BUILD(linear) { OUT(op_linear(f->g, IN("x"), IN("weight"), IN("bias"), false)); }
BUILD(outer) {
    struct cb_tensor *a = op_reshape(f->g, IN("a"), 2, (int64_t[]){-1, 1}), *b = op_reshape(f->g, IN("b"), 2, (int64_t[]){1, -1});
    OUT(op_matmul(f->g, a, b, false, false));
}
BUILD(einsum) {
    struct cb_tensor *x[FIXTURE_MAX];
    for (int i = 0; i < f->n_in; i++) x[i] = f->in[i].tensor;
    OUT(op_einsum(f->g, fixture_str(f, "equation", ""), f->n_in, x));
}
BUILD(inverse) { OUT(op_inverse(f->g, IN("x"))); }
BUILD(solve) { OUT(op_solve(f->g, IN("a"), IN("b"))); }
BUILD(cholesky) { OUT(op_cholesky(f->g, IN("x"))); }
BUILD(logdet) { OUT(op_logdet(f->g, IN("x"))); }
BUILD(svdvals) { OUT(op_svdvals(f->g, IN("x"))); }
BUILD(embedding) {
    int64_t padding = fixture_int(f, "padding_idx", -1);
    OUT(padding < 0 ? op_embedding(f->g, IN("weight"), IN("index")) : op_embedding_padded(f->g, IN("weight"), IN("index"), padding));
}

/* ---- images. One integer stands for both axes; 1-d cases fill entry 1. */
static void read_pair(const struct fixture *f, const char *name, int64_t to[2]) {
    int64_t v[FIXTURE_MAX];
    int n = fixture_ints(f, name, v);
    if (n) to[0] = v[0], to[1] = v[n - 1];
}

static struct conv_options conv_of(const struct fixture *f) {
    struct conv_options o = {.groups = fixture_int(f, "groups", 1)};
    read_pair(f, "stride", o.stride);
    read_pair(f, "padding", o.padding);
    read_pair(f, "dilation", o.dilation);
    read_pair(f, "output_padding", o.output_padding);
    return o;
}

#define CONV(name)                                                   \
    BUILD(name) {                                                    \
        struct conv_options o = conv_of(f);                          \
        OUT(op_##name(f->g, IN("x"), IN("weight"), IN("bias"), &o)); \
    }
CONV(conv1d)
CONV(conv2d)
CONV(conv_transpose1d)
CONV(conv_transpose2d)

static struct pool_options pool_of(const struct fixture *f) {
    struct pool_options o = {.ceil_mode = fixture_bool(f, "ceil_mode", false), .exclude_pad = !fixture_bool(f, "count_include_pad", true)};
    read_pair(f, "kernel_size", o.kernel);
    read_pair(f, "stride", o.stride);
    read_pair(f, "padding", o.padding);
    read_pair(f, "dilation", o.dilation);
    read_pair(f, "output_size", o.output);
    return o;
}

#define POOL(name, builder)                 \
    BUILD(name) {                           \
        struct pool_options o = pool_of(f); \
        OUT(builder(f->g, IN("x"), &o));    \
    }
POOL(max_pool2d, op_max_pool2d)
POOL(max_pool1d, op_max_pool1d)
POOL(avg_pool2d, op_avg_pool2d)

BUILD(interpolate) {
    int64_t size[2] = {0, 0};
    double factor = FLOAT("scale_factor", 0), scale[2] = {factor, factor};
    read_pair(f, "size", size);
    OUT(op_interpolate2d(f->g, IN("x"), size, scale, fixture_str(f, "mode", "nearest"), fixture_bool(f, "align_corners", false)));
}

/* ---- sequences: heads come before time in the files */
static struct cb_tensor *heads(struct fixture *f, struct cb_tensor *x) { return op_permute(f->g, x, 4, (int64_t[]){0, 2, 1, 3}); }

BUILD(rope) {
    struct cb_tensor *x = IN("x");
    int64_t d = fixture_int(f, "rotary_dim", x->type.dim[3]);
    float freq[64];
    for (int64_t i = 0; i < d / 2 && i < 64; i++)
        freq[i] = (float)(pow(FLOAT("theta", 10000), -2.0 * (double)i / (double)d) / FLOAT("factor", 1));
    struct cb_tensor *inv_freq = graph_const(f->g, (struct cb_type){CB_DTYPE_F32, 1, {d / 2}}, freq);
    bool interleaved = strcmp(fixture_str(f, "style", "half"), "interleaved") == 0;
    OUT(heads(f, op_rope(f->g, heads(f, x), IN("position"), inv_freq, interleaved, 1)));
}

BUILD(attention) {
    struct attention_options o = {.causal = fixture_bool(f, "is_causal", false), .scale = FLOAT("scale", 0), .bias = IN("mask")};
    if (o.bias && o.bias->type.dtype == CB_DTYPE_BOOL)
        o.bias = op_where(f->g, o.bias, graph_const_f32(f->g, 0), graph_const_f32(f->g, -INFINITY));
    OUT(heads(f, op_attention(f->g, heads(f, IN("q")), heads(f, IN("k")), heads(f, IN("v")), &o)));
}

static void recurrent(struct fixture *f, const char *kind) {
    struct recurrent_weights w[8];
    int layers = (int)fixture_int(f, "layers", 1), ways = fixture_bool(f, "bidirectional", false) ? 2 : 1;
    for (int i = 0; i < layers * ways; i++) {
        char name[64];
        const char *const parts[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
        struct cb_tensor *t[4];
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "%s_l%d%s", parts[k], i / ways, i % ways ? "_reverse" : "");
            t[k] = IN(name);
        }
        w[i] = (struct recurrent_weights){t[0], t[1], t[2], t[3]};
    }
    bool time_first = !fixture_bool(f, "batch_first", true);
    struct recurrent_result r = op_recurrent(f->g, kind, IN("x"), layers, ways == 2, time_first, w, IN("h0"), IN("c0"));
    fixture_out(f, "y", r.y);
    fixture_out(f, "h", r.h);
    if (r.c) fixture_out(f, "c", r.c);
}
BUILD(lstm) { recurrent(f, "lstm"); }
BUILD(gru) { recurrent(f, "gru"); }

/* ---- losses */
BUILD(cross_entropy) {
    struct cross_entropy_options o = {REDUCTION, IN("weight"), FLOAT("label_smoothing", 0), fixture_int(f, "ignore_index", -100)};
    OUT(op_cross_entropy_full(f->g, IN("logits"), IN("target"), &o));
}
BUILD(nll) { OUT(loss_nll(f->g, IN("logp"), IN("target"), IN("weight"), fixture_int(f, "ignore_index", -100), REDUCTION)); }
BUILD(mse) { OUT(loss_mse(f->g, IN("x"), IN("target"), REDUCTION)); }
BUILD(l1) { OUT(loss_l1(f->g, IN("x"), IN("target"), REDUCTION)); }
BUILD(smooth_l1) { OUT(loss_smooth_l1(f->g, IN("x"), IN("target"), FLOAT("beta", 1), REDUCTION)); }
BUILD(huber) { OUT(loss_huber(f->g, IN("x"), IN("target"), FLOAT("delta", 1), REDUCTION)); }
BUILD(bce) { OUT(loss_bce_with_logits(f->g, IN("x"), IN("target"), IN("weight"), IN("pos_weight"), REDUCTION)); }
BUILD(kl_div) {
    OUT(loss_kl_div(f->g, IN("x"), IN("target"), fixture_bool(f, "log_target", false), fixture_str(f, "reduction", "batchmean")));
}
BUILD(cosine_embedding) { OUT(loss_cosine_embedding(f->g, IN("a"), IN("b"), IN("target"), FLOAT("margin", 0), REDUCTION)); }
BUILD(triplet) {
    OUT(loss_triplet(f->g, IN("anchor"), IN("positive"), IN("negative"), FLOAT("margin", 1), fixture_bool(f, "swap", false), REDUCTION));
}
BUILD(margin_ranking) { OUT(loss_margin_ranking(f->g, IN("a"), IN("b"), IN("target"), FLOAT("margin", 0), REDUCTION)); }
BUILD(hinge_embedding) { OUT(loss_hinge_embedding(f->g, IN("x"), IN("target"), FLOAT("margin", 1), REDUCTION)); }
BUILD(info_nce) { OUT(loss_info_nce(f->g, IN("a"), IN("b"), FLOAT("temperature", 1))); }
/* The files' gradient is that of softmax and loss together. */
BUILD(ctc) {
    OUT(loss_ctc(f->g, op_log_softmax(f->g, IN("logits"), -1), IN("targets"), IN("input_lengths"), IN("target_lengths"),
                 fixture_int(f, "blank", 0), fixture_bool(f, "zero_infinity", false), REDUCTION));
}

const struct fixture_adaptor fixtures_b[] = {
    {"matmul", build_matmul},
    {"matmul_transposed", build_matmul_transposed},
    {"linear", build_linear},
    {"outer", build_outer},
    {"einsum", build_einsum},
    {"inverse", build_inverse},
    {"solve", build_solve},
    {"cholesky", build_cholesky},
    {"logdet", build_logdet},
    {"svdvals", build_svdvals},
    {"embedding", build_embedding},
    {"conv1d", build_conv1d},
    {"conv2d", build_conv2d},
    {"conv_transpose1d", build_conv_transpose1d},
    {"conv_transpose2d", build_conv_transpose2d},
    {"max_pool2d", build_max_pool2d},
    {"max_pool1d", build_max_pool1d},
    {"avg_pool2d", build_avg_pool2d},
    {"adaptive_avg_pool2d", build_avg_pool2d},
    {"interpolate", build_interpolate},
    {"rope", build_rope},
    {"scaled_dot_product_attention", build_attention},
    {"lstm", build_lstm},
    {"gru", build_gru},
    {"cross_entropy", build_cross_entropy},
    {"nll_loss", build_nll},
    {"mse_loss", build_mse},
    {"l1_loss", build_l1},
    {"smooth_l1_loss", build_smooth_l1},
    {"huber_loss", build_huber},
    {"bce_with_logits", build_bce},
    {"kl_div", build_kl_div},
    {"cosine_embedding_loss", build_cosine_embedding},
    {"triplet_margin_loss", build_triplet},
    {"margin_ranking_loss", build_margin_ranking},
    {"hinge_embedding_loss", build_hinge_embedding},
    {"info_nce", build_info_nce},
    {"ctc_loss", build_ctc},
    {NULL, NULL},
};
