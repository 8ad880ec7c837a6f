/* DoRA (Liu et al. 2024) and DVoRA as the adapters library attaches them: y = m / |W + B A| (W x + b + (alpha / r) B A x), the norm of each row without
   alpha / r and in the gradient, the bias scaled too. Its own merging has no alpha / r at all; here a folded module is the attached one. */
#include <string.h>

#include "modules/adapters_lora.h"
#include "ops/ops.h"

static bool owns(const json_t *method) { return json_is_true(json_object_get(method, "use_dora")); }

/* m / |W + scale B A|, (out); 1 where a fused projection is left alone. */
static struct cb_tensor *factor(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *v = op_add(g, w, op_mul(g, ad_lora_product(m, site, nn), scale));
    struct cb_tensor *norm = op_reduce(g, "norm_2", v, 1, (const int64_t[]){1}, false);
    struct cb_tensor *own = ad_lora_spread(site, nn, op_reshape(g, tuner_leaf(m, site, p->m, nn), 1, &p->width), 0, 0);
    struct cb_tensor *y = op_div(g, own, norm);
    return p->is_part ? op_add(g, y, ad_lora_spread(site, nn, op_expand(g, graph_const_f32(g, 0), 1, &p->width), 0, 1)) : y;
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    return op_mul(g, ad_lora_delta(m, site, nn, x, y, scale), factor(m, site, nn, tuner_base(site, nn), scale));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    return op_mul(g, ad_lora_weight(m, site, nn, w, scale),
                  op_reshape(g, factor(m, site, nn, w, scale), 2, (const int64_t[]){site->site.out, 1}));
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    return op_mul(nn->g, b, factor(m, site, nn, tuner_base(site, nn), scale));
}

static const struct tuner_preset presets[] = {
    {"ad_dvora", "DoRA with the change of VeRA.", "{\"init_weights\":\"vera\",\"vera_b\":0.0,\"vera_d\":0.1}"},
    {0},
};
static const char *const cases[] = {"ad_dora:r=2,alpha=4", NULL};

const struct tuner tuner_ad_dora = {
    .name = "ad_dora",
    .doc = "DoRA of the adapters library: LoRA's direction and a trained magnitude for each output.",
    .architecture = "lora",
    .owns = owns,
    .presets = presets,
    .options = ad_lora_options,
    .defaults =
        "{\"alpha\":8,\"architecture\":\"lora\",\"attn_matrices\":[\"q\",\"v\"],\"composition_mode\":\"add\",\"dropout\":0.0,"
        "\"dtype\":null,\"init_weights\":\"lora\",\"init_weights_seed\":null,\"intermediate_lora\":false,\"leave_out\":[],"
        "\"output_lora\":false,\"r\":8,\"selfattn_lora\":true,\"use_dora\":true,\"use_gating\":false,\"vera_b\":null,"
        "\"vera_d\":null}",
    .options_bytes = sizeof(struct ad_lora),
    .fresh = TUNER_NEAR_BASE,
    .is_low_rank = true,
    .scaling = "the change B A, beside alpha / r",
    .cases = cases,
    .parse = ad_lora_parse,
    .match = ad_lora_match,
    .implied = ad_lora_implied,
    .declare = ad_lora_declare,
    .delta = delta,
    .weight = weight,
    .bias = bias,
    .refuses_fold = ad_lora_refuses_fold,
};
