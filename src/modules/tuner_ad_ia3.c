/* IA3 (Liu et al. 2022) as the adapters library attaches it: y = alpha l (W x + b), l on keys, values and the feed-forward layer's first projection. Its
   own merging forgets the bias; here a folded module is the attached one. */
#include <string.h>

#include "modules/adapters_lora.h"
#include "ops/ops.h"

static bool owns(const json_t *method) {
    const char *mode = json_string_value(json_object_get(method, "composition_mode"));
    return mode && strcmp(mode, "scale") == 0;
}

/* 1 + scale (alpha l - 1), (out); with a gate (B,1,out). x: the input, for the gate. */
static struct cb_tensor *factor(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                struct cb_tensor *scale) {
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *l = op_reshape(g, tuner_leaf(m, site, p->b, nn), 1, &p->width), *gate = x ? ad_lora_gates(m, site, nn, x) : NULL;
    l = gate ? op_mul(g, gate, l) : op_scale(g, l, site->scale, 0);
    l = op_scale(g, op_mul(g, op_scale(g, l, 1, -1), scale), 1, 1);
    return ad_lora_spread(site, nn, l, -1, 1);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    return op_mul(nn->g, y, factor(m, site, nn, x, scale));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    return op_mul(nn->g, w, op_reshape(nn->g, factor(m, site, nn, NULL, scale), 2, (const int64_t[]){site->site.out, 1}));
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    return op_mul(nn->g, b, factor(m, site, nn, NULL, scale));
}

static const char *const cases[] = {"ad_ia3:output_lora=true", NULL};

const struct tuner tuner_ad_ia3 = {
    .name = "ad_ia3",
    .doc = "(IA)3 of the adapters library: a learned factor for each key, value and feed-forward feature.",
    .architecture = "lora",
    .owns = owns,
    .options = ad_lora_options,
    .defaults =
        "{\"alpha\":1,\"architecture\":\"lora\",\"attn_matrices\":[\"k\",\"v\"],\"composition_mode\":\"scale\",\"dropout\":0.0,"
        "\"dtype\":null,\"init_weights\":\"ia3\",\"init_weights_seed\":null,\"intermediate_lora\":true,\"leave_out\":[],"
        "\"output_lora\":false,\"r\":1,\"selfattn_lora\":true,\"use_dora\":false,\"use_gating\":false,\"vera_b\":null,"
        "\"vera_d\":null}",
    .options_bytes = sizeof(struct ad_lora),
    .fresh = TUNER_IS_BASE,
    .scaling = "the factors' distance from 1",
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
