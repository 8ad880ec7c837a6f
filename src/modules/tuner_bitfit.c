/* BitFit (Ben Zaken et al. 2022): every bias is trained, as a copy that stands for the model's. No library has a folder of its own for it: ours holds the
   new values under the model's own names, beside a configuration in PEFT's manner. */
#include "modules/tuner.h"

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    (void)m, (void)where, (void)err;
    return CB_OK;
}

static bool match(const struct nn_site *site) { return site->bias != NULL; }

static bool implied(const struct module *m, const struct nn_site *site) {
    (void)m, (void)site;
    return true;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    return tuner_add_copy(m, &site->site, false, "bias", "bias", err);
}

static const struct tuner_option options[] = {
    {"targets", "target_modules", TUNER_STRS, "modules whose biases are trained: names or endings joined by +; without: all"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"bitfit", NULL};

const struct tuner tuner_bitfit = {
    .name = "bitfit",
    .doc = "BitFit: the biases alone.",
    .peft_type = "BITFIT",
    .options = options,
    .defaults =
        "{\"base_model_name_or_path\":null,\"exclude_modules\":null,\"inference_mode\":true,\"modules_to_save\":null,"
        "\"peft_type\":\"BITFIT\",\"revision\":null,\"target_modules\":null,\"task_type\":null}",
    .fresh = TUNER_IS_BASE,
    .scaling = "nothing: new values stand for the old ones",
    .prefix = "",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare = declare,
};
