/* VeRA (Kopiczko et al. 2024): W' = W + diag(b) B diag(d) A, where A and B are random, frozen and shared by all sites, each of which uses their first
   columns and rows. */
#include <math.h>

#include "base/torch_rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct vera_options {
    int64_t r, key;
    double initial, dropout;
    bool is_saved, is_zero;
};

/* A (r, largest in) and B (largest out, r), the first parameters. */
enum { VERA_A, VERA_B };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct vera_options *o = (struct vera_options *)m->options;
    *o = (struct vera_options){.r = 256, .initial = 0.1, .is_saved = true, .is_zero = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->key, m->config, where, "projection_prng_key", 0, INT64_MAX, false, err));
    TRY(json_get_float(&o->initial, m->config, where, "d_initial", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "vera_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->is_saved, m->config, where, "save_projection", false, err));
    return json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err);
}

/* A then B in the order that PEFT draws them from one generator, uniform in sqrt(6 / inputs). */
static enum cb_status projection_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                      struct cb_err *err) {
    const struct vera_options *o = m->options;
    const struct cb_type *a = &m->params[VERA_A].public.type;
    struct torch_rng rng = torch_rng_make((uint64_t)o->key);
    (void)store;
    (void)seed;
    (void)err;
    float *out = data, bound = (float)sqrt(6 / (double)a->dim[1]);
    if (p == &m->params[VERA_A]) {
        torch_rng_uniform(&rng, out, type_elements(a), -bound, bound);
        return CB_OK;
    }
    for (int64_t i = 0; i < type_elements(a); i++) torch_rng_u32(&rng);
    bound = (float)sqrt(6 / (double)o->r);
    torch_rng_uniform(&rng, out, type_elements(&p->public.type), -bound, bound);
    return CB_OK;
}

static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    const struct vera_options *o = m->options;
    int64_t in = 0, out = 0;
    TRY(parts_largest(m, nn, &out, &in, err));
    struct tuner_param p = {.role = o->is_saved ? TUNER_FROZEN : TUNER_DERIVED, .fill = projection_fill};
    p.public = (struct module_param){.key = "base_model.vera_A", .type = type_make(CB_DTYPE_F32, 2, (int64_t[]){o->r, in})};
    TRY(tuner_add(m, NULL, p, NULL, err));
    p.public = (struct module_param){.key = "base_model.vera_B", .type = type_make(CB_DTYPE_F32, 2, (int64_t[]){out, o->r})};
    return tuner_add(m, NULL, p, NULL, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct vera_options *o = m->options;
    const double spread = o->is_zero ? 0 : 1;
    TRY(tuner_add_param(m, site, "vera_lambda_d", 1, &o->r, o->is_zero ? TUNER_CONSTANT : TUNER_NORMAL, o->is_zero ? o->initial : 1, err));
    return tuner_add_param(m, site, "vera_lambda_b", 1, &site->site.out, o->is_zero ? TUNER_ZEROS : TUNER_CONSTANT, spread, err);
}

/* d A, scaled, and b B of the site. */
static void factors(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor **a,
                    struct cb_tensor **b) {
    struct cb_graph *g = nn->g;
    const struct module_param *pa = &m->params[VERA_A].public, *pb = &m->params[VERA_B].public;
    *a = op_slice(g, graph_param(g, pa->name, pa->type), 1, 0, site->site.in, 1);
    *b = op_slice(g, graph_param(g, pb->name, pb->type), 0, 0, site->site.out, 1);
    *a = op_mul(g, *a, op_reshape(g, op_mul(g, tuner_leaf(m, site, 0, nn), scale), 2, (int64_t[]){-1, 1}));
    *b = op_mul(g, *b, op_reshape(g, tuner_leaf(m, site, 1, nn), 2, (int64_t[]){-1, 1}));
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct vera_options *o = m->options;
    struct cb_tensor *a, *b;
    factors(m, site, nn, scale, &a, &b);
    return nn_product(nn, nn_product(nn, nn_dropout(nn, x, o->dropout), a, NULL), b, y);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_tensor *a, *b;
    factors(m, site, nn, scale, &a, &b);
    return op_add(nn->g, w, op_matmul(nn->g, b, a, false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    PARTS_TARGETS,
    PARTS_LAYERS,
    PARTS_BIAS("vera"),
    {"key", "projection_prng_key", TUNER_INT, "seed of A and B"},
    {"save_projection", "save_projection", TUNER_BOOL, "A and B stand in the file; else they are drawn again"},
    {"initial", "d_initial", TUNER_FLOAT, "fresh value of d"},
    {"dropout", "vera_dropout", TUNER_FLOAT, "of the input, in training"},
    {0},
};
static const char *const cases[] = {"vera:r=3,save_projection=false", NULL};

const struct tuner tuner_vera = {
    .name = "vera",
    .doc = "VeRA: W' = W + diag(b) B diag(d) A with A and B random, frozen and shared.",
    .peft_type = "VERA",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"bias\":\"none\",\"d_initial\":0.1,\"fan_in_fan_out\":false,\"init_weights\":true,\"peft_type\":\"VERA\","
                "\"projection_prng_key\":0,\"r\":256,\"save_projection\":true,\"vera_dropout\":0.0}",
    .options_bytes = sizeof(struct vera_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .scaling = "the change, beside d",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare_shared = declare_shared,
    .declare = declare,
    .delta = delta,
    .weight = weight,
};
