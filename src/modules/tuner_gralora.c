/* GraLoRA (Jung et al. 2025): the weight in k x k blocks, each with a product of rank r / k of its own, and hybrid_r ranks of a common LoRA.
   Block (j,n): s B_j[n]^T A_n[j]^T, s = alpha / (r + hybrid_r). */
#include <math.h>

#include "modules/tuner.h"
#include "ops/ops.h"

struct gralora_options {
    int64_t r, hybrid, k;
    double alpha, dropout;
    bool zero;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct gralora_options *o = (struct gralora_options *)m->options;
    o->r = 32;
    o->k = 2;
    o->alpha = 64;
    o->zero = true;
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->hybrid, m->config, where, "hybrid_r", 0, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->k, m->config, where, "gralora_k", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, m->config, where, "alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "gralora_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->zero, m->config, where, "init_weights", false, err));
    if (o->r % o->k)
        FAIL(err, CB_E_FORMAT, "%s: r: found %lld; wanted a multiple of gralora_k, %lld", where, (long long)o->r, (long long)o->k);
    return CB_OK;
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD; }

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct gralora_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out, k = o->k;
    if (in % k || out % k)
        FAIL(err, CB_E_SHAPE, "%s: %lld inputs, %lld outputs; wanted multiples of gralora_k, %lld", site->site.name, (long long)in,
             (long long)out, (long long)k);
    site->rank = o->r;
    site->scale = o->alpha / (double)(o->r + o->hybrid);
    const int64_t a[3] = {k, in / k, o->r}, b[3] = {k, o->r, out / k}, ga[2] = {o->hybrid, in}, gb[2] = {out, o->hybrid};
    TRY(tuner_add_param(m, site, "gralora_A", 3, a, TUNER_UNIFORM, 1 / sqrt((double)(in / k)), err));
    TRY(tuner_add_param(m, site, "gralora_B", 3, b, o->zero ? TUNER_ZEROS : TUNER_UNIFORM, 1 / sqrt((double)o->r), err));
    if (!o->hybrid) return CB_OK;
    TRY(tuner_add_param(m, site, "gralora_A_general.weight", 2, ga, TUNER_UNIFORM, 1 / sqrt((double)in), err));
    return tuner_add_param(m, site, "gralora_B_general.weight", 2, gb, o->zero ? TUNER_ZEROS : TUNER_UNIFORM, 1 / sqrt((double)o->hybrid),
                           err);
}

/* A as (n,i,j,q): input block n, its feature, output block j, rank; B, at its scale, as (j,n,q,o). */
static void blocks(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor *ab[2]) {
    const struct gralora_options *o = m->options;
    const int64_t k = o->k, q = o->r / k, a[4] = {k, site->site.in / k, k, q}, b[4] = {k, k, q, site->site.out / k};
    struct cb_tensor *scaled = op_mul(nn->g, op_scale(nn->g, tuner_leaf(m, site, 1, nn), site->scale, 0), scale);
    ab[0] = op_reshape(nn->g, tuner_leaf(m, site, 0, nn), 4, a);
    ab[1] = op_reshape(nn->g, scaled, 4, b);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct gralora_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *ab[2];
    x = nn_dropout(nn, x, o->dropout);
    blocks(m, site, nn, scale, ab);
    if (graph_is_bad(g, x) || graph_is_bad(g, y)) return y;
    // every block of the input gives each block of the output its share
    struct cb_tensor *low = op_einsum(
        g, "rni,nijq->rjnq", 2, (struct cb_tensor *[]){op_reshape(g, x, 3, (const int64_t[]){-1, o->k, site->site.in / o->k}), ab[0]});
    struct cb_tensor *high = op_einsum(g, "rjnq,jnqo->rjo", 2, (struct cb_tensor *[]){low, ab[1]});
    y = op_add(g, y, op_reshape(g, high, y->type.rank, y->type.dim));
    if (!o->hybrid) return y;
    low = op_mul(g, op_scale(g, op_linear(g, x, tuner_leaf(m, site, 2, nn), NULL, false), site->scale, 0), scale);
    return op_add(g, y, op_linear(g, low, tuner_leaf(m, site, 3, nn), NULL, false));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct gralora_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *ab[2];
    blocks(m, site, nn, scale, ab);
    w = op_add(g, w, op_reshape(g, op_einsum(g, "nijq,jnqo->joni", 2, ab), 2, (const int64_t[]){site->site.out, site->site.in}));
    if (!o->hybrid) return w;
    struct cb_tensor *b = op_mul(g, op_scale(g, tuner_leaf(m, site, 3, nn), site->scale, 0), scale);
    return op_add(g, w, op_matmul(g, b, tuner_leaf(m, site, 2, nn), false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank of the blocks together, a multiple of k"},
    {"alpha", "alpha", TUNER_FLOAT, "the change is scaled by alpha / (r + hybrid)"},
    {"k", "gralora_k", TUNER_INT, "blocks a side"},
    {"hybrid", "hybrid_r", TUNER_INT, "rank of a common LoRA beside the blocks"},
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "gralora_dropout", TUNER_FLOAT, "of the input, in training"},
    {"bias", "bias", TUNER_STR, "biases that are trained too: none, gralora_only, all"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"gralora:r=4,k=2,hybrid=1,alpha=4,targets=.*\\.[0-9]+\\..*(?<!gate)", NULL};

const struct tuner tuner_gralora = {
    .name = "gralora",
    .doc = "GraLoRA: a low-rank change of its own for each of k x k blocks of the weight.",
    .peft_type = "GRALORA",
    .options = options,
    .defaults =
        "{\"alpha\":64,\"auto_mapping\":null,\"base_model_name_or_path\":null,\"bias\":\"none\",\"fan_in_fan_out\":false,"
        "\"gralora_dropout\":0.0,\"gralora_k\":2,\"hybrid_r\":0,\"inference_mode\":true,\"init_weights\":true,\"layers_pattern\":null,"
        "\"layers_to_transform\":null,\"modules_to_save\":null,\"peft_type\":\"GRALORA\",\"peft_version\":\"0.21.2\",\"r\":32,"
        "\"revision\":null,\"target_modules\":\"all-linear\",\"task_type\":null}",
    .options_bytes = sizeof(struct gralora_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change, beside alpha / (r + hybrid)",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .delta = delta,
    .weight = weight,
};
