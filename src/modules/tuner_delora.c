/* DeLoRA (Bini et al. 2025): a product of two thin matrices whose norm is bounded by a learned lambda,
   dW = B diag(lambda / (r |a_i| |b_i|)) A diag(n), n the norms of the columns of the weight, kept in the file. */
#include <math.h>
#include <stdlib.h>

#include "modules/parts.h"
#include "ops/ops.h"

struct delora_options {
    int64_t r;
    double lambda, dropout;
    bool zero;
    struct tuner_numbers ranks, lambdas;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct delora_options *o = (struct delora_options *)m->options;
    o->r = 8;
    o->lambda = 15;
    o->zero = true;
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->lambda, m->config, where, "delora_lambda", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "module_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->zero, m->config, where, "init_weights", false, err));
    TRY(tuner_numbers_parse(m, &o->ranks, where, "rank_pattern", 1, TUNER_RANK_LIMIT, true, err));
    return tuner_numbers_parse(m, &o->lambdas, where, "lambda_pattern", -1e6, 1e6, false, err);
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD; }

/* The norms of the weight's columns, over its outputs. */
static enum cb_status fill_norms(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                 struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    const int64_t in = site->site.in, out = site->site.out;
    float *w, *norm = data;
    (void)seed;
    TRY(tuner_base_weight(&w, site, store, err));
    for (int64_t i = 0; i < in; i++) {
        double sum = 0;
        for (int64_t k = 0; k < out; k++) sum += (double)w[k * in + i] * (double)w[k * in + i];
        norm[i] = (float)sqrt(sum);
    }
    free(w);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct delora_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out, one = 1;
    double rank = (double)o->r, lambda = o->lambda;
    TRY(tuner_number(&rank, &o->ranks, site->site.name, err));
    TRY(tuner_number(&lambda, &o->lambdas, site->site.name, err));
    site->rank = (int64_t)rank;
    site->scale = 1 / rank;
    const int64_t a[2] = {site->rank, in}, b[2] = {out, site->rank};
    TRY(tuner_add_param(m, site, "delora_A", 2, a, TUNER_UNIFORM, 1 / sqrt((double)in), err));
    TRY(tuner_add_param(m, site, "delora_B", 2, b, o->zero ? TUNER_ZEROS : TUNER_UNIFORM, 1 / sqrt(rank), err));
    TRY(tuner_add_param(m, site, "delora_lambda", 1, &one, TUNER_CONSTANT, lambda, err));
    struct tuner_param norms = {.public = {.key = tuner_key(m, site, "delora_w_norm", err), .type = type_make(CB_DTYPE_F32, 1, &in)}};
    norms.role = TUNER_FROZEN;
    norms.fill = fill_norms;
    return tuner_add(m, site, norms, NULL, err);
}

/* 1 / norm of x's rows (axis 1) or columns (0), the norm being at least 1e-4; its gradient is then 0. */
static struct cb_tensor *inverse_norm(struct cb_graph *g, struct cb_tensor *x, int64_t axis) {
    struct cb_tensor *square = op_sum(g, op_mul(g, x, x), 1, &axis, false);
    return op_pow_scalar(g, op_clamp(g, square, 1e-8, INFINITY), -0.5);
}

/* scale lambda / (r |a_i| |b_i|): (r) */
static struct cb_tensor *middle(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *norms = op_mul(g, inverse_norm(g, tuner_leaf(m, site, 0, nn), 1), inverse_norm(g, tuner_leaf(m, site, 1, nn), 0));
    struct cb_tensor *lambda = op_scale(g, tuner_leaf(m, site, 2, nn), site->scale, 0);
    return op_mul(g, op_mul(g, norms, lambda), scale);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct delora_options *o = m->options;
    x = op_mul(nn->g, nn_dropout(nn, x, o->dropout), tuner_leaf(m, site, 3, nn));
    struct cb_tensor *low = op_mul(nn->g, nn_product(nn, x, tuner_leaf(m, site, 0, nn), NULL), middle(m, site, nn, scale));
    return nn_product(nn, low, tuner_leaf(m, site, 1, nn), y);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *b = op_mul(g, tuner_leaf(m, site, 1, nn), middle(m, site, nn, scale));
    struct cb_tensor *a = op_mul(g, tuner_leaf(m, site, 0, nn), tuner_leaf(m, site, 3, nn));
    return op_add(g, w, op_matmul(g, b, a, false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    PARTS_RANKS,
    {"lambda", "delora_lambda", TUNER_FLOAT, "the bound of the change, at the start"},
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "module_dropout", TUNER_FLOAT, "of the input, in training"},
    {"bias", "bias", TUNER_STR, "biases that are trained too: none, delora_only, all"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"delora:r=2,lambda=3", NULL};

const struct tuner tuner_delora = {
    .name = "delora",
    .doc = "DeLoRA: LoRA whose norm is bounded by a learned number, dW = B diag(lambda / (r |a| |b|)) A diag(|w|).",
    .peft_type = "DELORA",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"bias\":\"none\",\"delora_lambda\":15,\"exclude_modules\":null,"
        "\"inference_mode\":true,\"init_weights\":true,\"lambda_pattern\":{},\"layers_pattern\":null,\"layers_to_transform\":null,"
        "\"module_dropout\":0.0,\"modules_to_save\":null,\"peft_type\":\"DELORA\",\"peft_version\":\"0.21.2\",\"r\":8,\"rank_pattern\":{},"
        "\"revision\":null,\"target_modules\":\"all-linear\",\"task_type\":null}",
    .options_bytes = sizeof(struct delora_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change, beside lambda",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .delta = delta,
    .weight = weight,
};
