/* A dense difference, W' = W + w: full fine-tuning of some weights as a module, the first phase of LT-SFT (Ansell et al. 2022) with its L1 penalty; and diff
   pruning (Guo et al. 2021), W' = W + z z_t w, whose z are gates of hard concrete distributions (Louizos et al. 2018), one an element and one a weight, with
   a penalty on how many are open. `sft` keeps the largest differences. */
#include "base/rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct diff_options {
    bool is_pruned;
    double penalty, l1, alpha;
};

/* The site's parameters. */
enum { DIFF_WEIGHT, DIFF_GATES, DIFF_GATE };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct diff_options *o = (struct diff_options *)m->options;
    *o = (struct diff_options){.penalty = 1.25e-7, .alpha = 5};
    TRY(json_get_bool(&o->is_pruned, m->config, where, "diff_pruning", false, err));
    TRY(json_get_float(&o->penalty, m->config, where, "sparsity_penalty", 0, 1e6, false, err));
    TRY(json_get_float(&o->alpha, m->config, where, "alpha_init", -1e3, 1e3, false, err));
    return json_get_float(&o->l1, m->config, where, "l1_penalty", 0, 1e6, false, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct diff_options *o = m->options;
    const int64_t dim[2] = {site->site.out, site->site.in}, one = 1;
    TRY(tuner_add_param(m, site, "diff_weight", 2, dim, TUNER_ZEROS, 0, err));
    if (!o->is_pruned) return CB_OK;
    TRY(tuner_add_param(m, site, "diff_alpha", 2, dim, TUNER_CONSTANT, o->alpha, err));
    return tuner_add_param(m, site, "diff_alpha_group", 1, &one, TUNER_CONSTANT, o->alpha, err);
}

/* The gates of logits a: 3 sigmoid(a + noise) - 1.5 held within 0 and 1; noise in training alone. */
static struct cb_tensor *gates(const struct module *m, const struct tuner_site *site, struct nn *nn, int param) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, param, nn);
    if (nn->train && !graph_is_bad(g, a)) {
        struct cb_tensor *u = op_random(g, "uniform", nn_seed(nn), a->type, rng_hash(m->params[site->param[param]].public.name));
        u = op_clamp(g, u, 1e-4, 1 - 1e-4);
        a = op_add(g, a, op_sub(g, op_unary(g, "log", u), op_unary(g, "log1p", op_unary(g, "neg", u))));
    }
    return op_clamp(g, op_scale(g, op_unary(g, "sigmoid", a), 3, -1.5), 0, 1);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct diff_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *d = op_mul(g, tuner_leaf(m, site, DIFF_WEIGHT, nn), scale);
    if (o->is_pruned) d = op_mul(g, op_mul(g, d, gates(m, site, nn, DIFF_GATES)), gates(m, site, nn, DIFF_GATE));
    return op_add(g, w, d);
}

static struct cb_tensor *site_penalty(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct diff_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *sum = NULL;
    if (o->l1 > 0) {
        sum = op_sum(g, op_unary(g, "abs", tuner_leaf(m, site, DIFF_WEIGHT, nn)), 0, NULL, false);
        sum = op_scale(g, sum, o->l1, 0);
    }
    for (int i = DIFF_GATES; o->is_pruned && o->penalty > 0 && i <= DIFF_GATE; i++) {
        struct cb_tensor *open = op_sum(g, op_unary(g, "sigmoid", tuner_leaf(m, site, i, nn)), 0, NULL, false);
        open = op_scale(g, open, o->penalty, 0);
        sum = sum ? op_add(g, sum, open) : open;
    }
    return sum;
}

/* Of training alone. */
static struct cb_tensor *penalty(const struct module *m, struct nn *nn) {
    struct cb_tensor *sum = NULL;
    for (int i = 0; nn->train && i < m->n_sites; i++) {
        struct cb_tensor *one = site_penalty(m, &m->sites[i], nn);
        if (one) sum = sum ? op_add(nn->g, sum, one) : one;
    }
    return sum;
}

static const struct tuner_option options[] = {
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    {"prune", "diff_pruning", TUNER_BOOL, "with the gates of diff pruning"},
    {"penalty", "sparsity_penalty", TUNER_FLOAT, "added to the loss for each open gate"},
    {"alpha", "alpha_init", TUNER_FLOAT, "fresh logits of the gates"},
    {"l1", "l1_penalty", TUNER_FLOAT, "added to the loss for each unit of difference"},
    {0},
};
static const char *const cases[] = {"diff:prune=true,alpha=0.2", NULL};

const struct tuner tuner_diff = {
    .name = "diff",
    .doc = "A dense difference of weights, as it is or with the gates of diff pruning; sft keeps the largest of it.",
    .peft_type = "DIFF",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"alpha_init\":5,\"diff_pruning\":false,\"exclude_modules\":null,\"l1_penalty\":0,\"peft_type\":\"DIFF\","
                "\"sparsity_penalty\":1.25e-07}",
    .options_bytes = sizeof(struct diff_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "the difference",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .weight = weight,
    .penalty = penalty,
};
