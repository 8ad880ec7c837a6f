/* LoHa (Hyeon-Woo et al. 2022, FedPara; LyCORIS): W' = W + (alpha / r) (w1_a w1_b) * (w2_a w2_b), the product of two low-rank matrices element by
   element. */
#include <math.h>

#include "modules/parts.h"
#include "ops/ops.h"

struct loha_options {
    int64_t r;
    double alpha, rank_dropout, module_dropout;
    bool is_zero;  // the fresh module is the base
    struct tuner_numbers ranks, alphas;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct loha_options *o = (struct loha_options *)m->options;
    *o = (struct loha_options){.r = 8, .alpha = 8, .is_zero = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, m->config, where, "alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->rank_dropout, m->config, where, "rank_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->module_dropout, m->config, where, "module_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err));
    TRY(tuner_numbers_parse(m, &o->ranks, where, "rank_pattern", 1, TUNER_RANK_LIMIT, true, err));
    return tuner_numbers_parse(m, &o->alphas, where, "alpha_pattern", -1e6, 1e6, false, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct loha_options *o = m->options;
    double alpha = o->alpha, rank = (double)o->r;
    TRY(tuner_number(&rank, &o->ranks, site->site.name, err));
    TRY(tuner_number(&alpha, &o->alphas, site->site.name, err));
    site->rank = (int64_t)rank;
    site->scale = alpha / rank;
    const int64_t a[2] = {site->site.out, site->rank}, b[2] = {site->rank, site->site.in};
    const double ra = 1 / sqrt(rank), rb = 1 / sqrt((double)site->site.in);
    TRY(tuner_add_param(m, site, "hada_w1_a", 2, a, TUNER_UNIFORM, ra, err));
    TRY(tuner_add_param(m, site, "hada_w1_b", 2, b, TUNER_UNIFORM, rb, err));
    TRY(tuner_add_param(m, site, "hada_w2_a", 2, a, TUNER_UNIFORM, ra, err));
    return tuner_add_param(m, site, "hada_w2_b", 2, b, o->is_zero ? TUNER_ZEROS : TUNER_UNIFORM, rb, err);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct loha_options *o = m->options;
    struct cb_graph *g = nn->g;
    // the scale goes where the tensor is smallest
    struct cb_tensor *b = op_mul(g, op_scale(g, tuner_leaf(m, site, 1, nn), site->scale, 0), scale);
    struct cb_tensor *one = op_matmul(g, tuner_leaf(m, site, 0, nn), b, false, false);
    struct cb_tensor *two = op_matmul(g, tuner_leaf(m, site, 2, nn), tuner_leaf(m, site, 3, nn), false, false);
    struct cb_tensor *change = op_mul(g, one, two);
    struct cb_tensor *rows = parts_mask(nn, site->site.out, o->rank_dropout), *all = parts_mask(nn, 1, o->module_dropout);
    if (rows) change = op_mul(g, change, op_reshape(g, rows, 2, (int64_t[]){site->site.out, 1}));
    if (all) change = op_mul(g, change, all);
    return op_add(g, w, change);
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    {"alpha", "alpha", TUNER_FLOAT, "the change is scaled by alpha / r"},
    PARTS_RANKS,
    PARTS_ALPHAS,
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    {"rank_dropout", "rank_dropout", TUNER_FLOAT, "probability of an output's change to be left out, in training"},
    {"module_dropout", "module_dropout", TUNER_FLOAT, "probability of a site's change to be left out, in training"},
    {0},
};
static const char *const cases[] = {"loha:r=2,alpha=4", NULL};

const struct tuner tuner_loha = {
    .name = "loha",
    .doc = "LoHa: W' = W + (alpha / r) (w1_a w1_b) * (w2_a w2_b), element by element.",
    .peft_type = "LOHA",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"alpha\":8,\"alpha_pattern\":{},\"exclude_modules\":null,\"init_weights\":true,\"module_dropout\":0.0,\"peft_type\":"
                "\"LOHA\",\"r\":8,\"rank_dropout\":0.0,\"rank_pattern\":{},\"use_effective_conv2d\":false}",
    .options_bytes = sizeof(struct loha_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .weight = weight,
};
