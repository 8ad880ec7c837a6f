/* SSF (Lian et al. 2022, arXiv 2210.08823): what a linear layer gives is scaled and shifted, y' = gamma * (W x + b) + beta, feature by feature. Folded,
   gamma scales the rows of W and b, and beta joins b. The factors begin at 1 and 0, where the paper draws them within 0.02 of these, so that a fresh
   module is the base. Experts are left alone: of their outputs only some rows are their own. */
#include "modules/parts.h"
#include "ops/ops.h"

struct ssf_options {
    bool shift;
};
enum { GAMMA, BETA };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct ssf_options *o = (struct ssf_options *)m->options;
    o->shift = true;
    return json_get_bool(&o->shift, m->config, where, "shift", false, err);
}

static bool match(const struct nn_site *site) { return parts_is_linear(site) && !site->some_rows; }

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct ssf_options *o = m->options;
    TRY(tuner_add_param(m, site, "ssf_scale", 1, &site->site.out, TUNER_CONSTANT, 1, err));
    return o->shift ? tuner_add_param(m, site, "ssf_shift", 1, &site->site.out, TUNER_ZEROS, 0, err) : CB_OK;
}

/* gamma (out), brought to 1 by the run-time scale. */
static struct cb_tensor *gamma_of(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    return parts_scaled_factor(nn->g, tuner_leaf(m, site, GAMMA, nn), scale);
}

/* Of a bias (out) as of outputs (...,out). */
static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    const struct ssf_options *o = m->options;
    b = op_mul(nn->g, b, gamma_of(m, site, nn, scale));
    return o->shift ? op_add(nn->g, b, op_mul(nn->g, tuner_leaf(m, site, BETA, nn), scale)) : b;
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    (void)x;
    return bias(m, site, nn, y, scale);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    return op_mul(nn->g, w, op_reshape(nn->g, gamma_of(m, site, nn, scale), 2, (const int64_t[]){site->site.out, 1}));
}

static const char *refuses_fold(const struct module *m) {
    const struct ssf_options *o = m->options;
    for (int i = 0; o->shift && i < m->n_sites; i++)
        if (!m->sites[i].site.bias) return "a layer that it shifts has no bias (shift=false trains the factors alone)";
    return NULL;
}

static const struct tuner_option options[] = {
    PARTS_TARGETS, PARTS_EXCLUDE,
    PARTS_LAYERS,  {"shift", "shift", TUNER_BOOL, "outputs are shifted too; without: scaled alone, which folds where layers have no bias"},
    {0},
};
static const char *const cases[] = {"ssf:shift=false", "ssf", NULL};

const struct tuner tuner_ssf = {
    .name = "ssf",
    .doc = "SSF: what a layer gives is scaled and shifted, y = gamma (W x + b) + beta.",
    .peft_type = "SSF",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS ",\"exclude_modules\":null,\"peft_type\":\"SSF\",\"shift\":true}",
    .options_bytes = sizeof(struct ssf_options),
    .fresh = TUNER_IS_BASE,
    .scaling = "the factors' distance from 1, and the shift",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .delta = delta,
    .weight = weight,
    .bias = bias,
    .refuses_fold = refuses_fold,
};
