/* LN tuning (Zhao et al. 2024): the norms' own weights and biases are trained, as copies that stand for the model's. */
#include "modules/tuner.h"

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    (void)m, (void)where, (void)err;
    return CB_OK;
}

static bool match(const struct nn_site *site) { return site->kind == NN_NORM && site->weight; }

static bool implied(const struct module *m, const struct nn_site *site) {
    (void)m, (void)site;
    return true;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    if (site->site.bias) TRY(tuner_add_copy(m, &site->site, false, "bias", "ln_tuning_layers.bias", err));
    return tuner_add_copy(m, &site->site, site->shared, "weight", "ln_tuning_layers.weight", err);
}

static const struct tuner_option options[] = {
    {"targets", "target_modules", TUNER_STRS, "norms: names or endings joined by +; without: all"},
    {"exclude", "exclude_modules", TUNER_STRS, "norms that are left alone"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"ln_tuning", NULL};

const struct tuner tuner_ln_tuning = {
    .name = "ln_tuning",
    .doc = "LN tuning: the norms' own weights and biases.",
    .peft_type = "LN_TUNING",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"exclude_modules\":null,\"inference_mode\":true,"
        "\"modules_to_save\":null,\"peft_type\":\"LN_TUNING\",\"peft_version\":\"0.21.2\",\"revision\":null,\"target_modules\":null,"
        "\"task_type\":null}",
    .fresh = TUNER_IS_BASE,
    .scaling = "nothing: new values stand for the old ones",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare = declare,
};
