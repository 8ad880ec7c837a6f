/* BEFT: a learned addition to what a layer gives, y = W x + b + beta; where the layer has a bias it can be folded into that. */
#include "modules/parts.h"
#include "ops/ops.h"

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    bool init = true;
    return json_get_bool(&init, m->config, where, "init_weights", false, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    return tuner_add_param(m, site, "beft_bias", 2, (const int64_t[]){1, site->site.out}, TUNER_ZEROS, 0, err);
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    struct cb_tensor *beta = op_reshape(nn->g, tuner_leaf(m, site, 0, nn), 1, (const int64_t[]){-1});
    return op_add(nn->g, b, op_mul(nn->g, beta, scale));
}

/* Added to what the layer gives, whether it has a bias or not. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    (void)x;
    return bias(m, site, nn, y, scale);
}

static const char *refuses_fold(const struct module *m) {
    for (int i = 0; i < m->n_sites; i++)
        if (!m->sites[i].site.bias) return "a layer that it changes has no bias";
    return NULL;
}

static const struct tuner_option options[] = {
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"beft", NULL};

const struct tuner tuner_beft = {
    .name = "beft",
    .doc = "BEFT: a learned addition to what a layer gives, y = W x + b + beta.",
    .peft_type = "BEFT",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"inference_mode\":true,\"init_weights\":true,"
        "\"modules_to_save\":null,\"peft_type\":\"BEFT\",\"peft_version\":\"0.21.2\",\"revision\":null,"
        "\"target_modules\":\"all-linear\",\"task_type\":null}",
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "what is added",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .delta = delta,
    .bias = bias,
    .refuses_fold = refuses_fold,
};
