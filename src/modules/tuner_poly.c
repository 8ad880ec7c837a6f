/* Poly and MHR (Ponti et al. 2023; Caccia et al. 2023): each row of the batch names a task, whose trained logits mix an inventory of LoRA skills, split by split of
   the widths: y = W x + A B x / r with A and B the mixtures. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct poly_options {
    int64_t r, tasks, skills, splits;
    bool is_zero;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct poly_options *o = (struct poly_options *)m->options;
    const char *kind = "poly";
    *o = (struct poly_options){.r = 8, .tasks = 1, .skills = 4, .splits = 1, .is_zero = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->tasks, m->config, where, "n_tasks", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->skills, m->config, where, "n_skills", 1, 1 << 16, false, err));
    TRY(json_get_int(&o->splits, m->config, where, "n_splits", 1, 1 << 16, false, err));
    TRY(json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err));
    TRY(json_get_str(&kind, m->config, where, "poly_type", false, err));
    if (strcmp(kind, "poly") != 0) FAIL(err, CB_E_UNSUPPORTED, "%s: poly_type: found %.60s; wanted poly", where, kind);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct poly_options *o = m->options;
    const int64_t q = o->splits, s = o->skills, in = site->site.in, out = site->site.out;
    if (in % q || out % q)
        FAIL(err, CB_E_SHAPE, "%s: a weight (%lld,%lld) in %lld splits; wanted a divisor of both widths", site->site.name, (long long)out,
             (long long)in, (long long)q);
    site->rank = o->r;
    site->scale = 1 / (double)o->r;
    TRY(tuner_add_param(m, site, "poly_lora_A", 4, (int64_t[]){q, s, in / q, o->r}, TUNER_UNIFORM, sqrt((double)q / (double)in), err));
    TRY(tuner_add_param(m, site, "poly_lora_B", 4, (int64_t[]){q, s, o->r, out / q}, o->is_zero ? TUNER_ZEROS : TUNER_UNIFORM,
                        1 / sqrt((double)o->r), err));
    return tuner_add_param(m, site, "poly_router.module_logits", 2, (int64_t[]){o->tasks, q * s}, TUNER_UNIFORM, 1e-3, err);
}

static int64_t tasks(const struct module *m) { return ((const struct poly_options *)m->options)->tasks; }

/* Shares of the skills, (splits, rows, skills): of each row the sigmoids of its task's logits, in training drawn around them (relaxed Bernoulli, temperature 1),
   over their sum. A number of no task, which callers refuse, makes its row NaN. */
static struct cb_tensor *shares(const struct module *m, const struct tuner_site *site, struct nn *nn, int64_t rows) {
    const struct poly_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t last = -1;
    struct cb_tensor *ids = graph_input(g, "task_ids", type_make(CB_DTYPE_I32, 1, &rows));
    struct cb_tensor *z = op_index_select(g, tuner_leaf(m, site, 2, nn), ids, 0);
    if (nn->train && !graph_is_bad(g, z)) {
        struct cb_tensor *u = op_random(g, "uniform", nn_seed(nn), z->type, rng_hash(m->params[site->param[2]].public.name));
        u = op_clamp(g, u, 1e-6, 1 - 1e-6);
        z = op_add(g, z, op_sub(g, op_unary(g, "log", u), op_unary(g, "log1p", op_unary(g, "neg", u))));
    }
    z = op_reshape(g, op_unary(g, "sigmoid", z), 3, (int64_t[]){rows, o->splits, o->skills});
    z = op_div(g, z, op_scale(g, op_sum(g, z, 1, &last, true), 1, 1e-12));
    return op_transpose(g, z, 0, 1);
}

/* Each row's mixture of an inventory (splits, skills, a, b): (rows, splits, a, b). */
static struct cb_tensor *mixture(struct cb_graph *g, struct cb_tensor *share, struct cb_tensor *skills, int64_t rows) {
    if (graph_is_bad(g, skills)) return skills;
    const int64_t *d = skills->type.dim;
    struct cb_tensor *mixed = op_matmul(g, share, op_reshape(g, skills, 3, (int64_t[]){d[0], d[1], d[2] * d[3]}), false, false);
    return op_reshape(g, op_transpose(g, mixed, 0, 1), 4, (int64_t[]){rows, d[0], d[2], d[3]});
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct poly_options *o = m->options;
    struct cb_graph *g = nn->g;
    const struct cb_tensor *ids = graph_find_leaf(g, "input_ids");
    const int64_t rows = ids ? ids->type.dim[0] : x->type.dim[0], in = site->site.in, out = site->site.out;
    struct cb_tensor *share = shares(m, site, nn, rows);
    struct cb_tensor *a = op_reshape(g, mixture(g, share, tuner_leaf(m, site, 0, nn), rows), 3, (int64_t[]){rows, in, o->r});
    struct cb_tensor *b = op_transpose(g, mixture(g, share, tuner_leaf(m, site, 1, nn), rows), 1, 2);
    b = op_reshape(g, b, 3, (int64_t[]){rows, o->r, out});
    x = op_matmul(g, op_reshape(g, x, 3, (int64_t[]){rows, -1, in}), a, false, false);
    x = op_matmul(g, op_mul(g, op_scale(g, x, site->scale, 0), scale), b, false, false);
    return op_add(g, y, op_reshape(g, x, y->type.rank, y->type.dim));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank of a skill"},
    {"tasks", "n_tasks", TUNER_INT, "number of tasks; rows name theirs in the input task_ids"},
    {"skills", "n_skills", TUNER_INT, "number of skills"},
    {"splits", "n_splits", TUNER_INT, "parts of the widths that are mixed by themselves"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    {0},
};
static const char *const cases[] = {"poly:r=2,tasks=2,skills=3", NULL};

const struct tuner tuner_poly = {
    .name = "poly",
    .doc = "Poly, MHR: LoRA skills that each task mixes by trained logits.",
    .peft_type = "POLY",
    .options = options,
    .defaults = "{" PARTS_JSON
                ",\"exclude_modules\":null,\"init_weights\":true,\"n_skills\":4,\"n_splits\":1,\"n_tasks\":1,\"peft_type\":\"POLY\","
                "\"poly_type\":\"poly\",\"r\":8}",
    .options_bytes = sizeof(struct poly_options),
    .fresh = TUNER_IS_BASE,
    .is_low_rank = true,
    .scaling = "the change, beside 1 / r",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .delta = delta,
    .tasks = tasks,
};
