/* RandLoRA (Albert et al. 2025): W' = W + (alpha / r) sum_i B_i diag(l_i) A_i diag(g_i), n random frozen pairs A, B of rank r, as many as make the full rank,
   with trained factors l and g. A and B are shared by all sites. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "base/torch_rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct randlora_options {
    int64_t r, key;
    double alpha, dropout;
    bool is_saved, is_zero, is_sparse, is_very_sparse;
};

/* A (r,1,shorter) and B (longer,n,r) of the largest widths, the first parameters. */
enum { RANDLORA_A, RANDLORA_B };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct randlora_options *o = (struct randlora_options *)m->options;
    *o = (struct randlora_options){.r = 32, .alpha = 640, .is_saved = true, .is_zero = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->key, m->config, where, "projection_prng_key", 0, INT64_MAX, false, err));
    TRY(json_get_float(&o->alpha, m->config, where, "randlora_alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "randlora_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->is_saved, m->config, where, "save_projection", false, err));
    TRY(json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err));
    TRY(json_get_bool(&o->is_sparse, m->config, where, "sparse", false, err));
    return json_get_bool(&o->is_very_sparse, m->config, where, "very_sparse", false, err);
}

static float as_bf16(float x) {
    uint16_t half;
    dtype_of(CB_DTYPE_BF16)->from_f32(&half, &x, 1);
    dtype_of(CB_DTYPE_BF16)->to_f32(&x, &half, 1);
    return x;
}

/* Divides by the unbiased deviation; through: how its own and the results' numbers are rounded, NULL: not. */
static void normalise(float *x, int64_t n, float (*through)(float)) {
    double mean = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)x[i] / (double)n;
    for (int64_t i = 0; i < n; i++) sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    float deviation = (float)sqrt(sum / (double)(n > 1 ? n - 1 : 1));
    if (through) deviation = through(deviation);
    for (int64_t i = 0; i < n && deviation > 0; i++) x[i] = through ? through(x[i] / deviation) : x[i] / deviation;
}

/* -1, 0 or 1 in place of uniform numbers, 0 with probability 1 - 1 / sparsity. */
static void make_sparse(float *x, int64_t n, double sparsity) {
    const float low = (float)(1 / (2 * sparsity)), high = (float)(1 - 1 / (2 * sparsity));
    for (int64_t i = 0; i < n; i++) x[i] = x[i] < low ? -1 : x[i] > high ? 1 : 0;
}

/* A then B from one generator as PEFT draws them: in bf16 and for B in slabs (longer,1,r), or sparse. */
static enum cb_status projection_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                      struct cb_err *err) {
    const struct randlora_options *o = m->options;
    const struct cb_type *a = &m->params[RANDLORA_A].public.type, *type = &p->public.type;
    const bool is_b = p == &m->params[RANDLORA_B], is_sparse = o->is_sparse || o->is_very_sparse;
    const int64_t n = type_elements(type), r = o->r;
    struct torch_rng rng = torch_rng_make((uint64_t)o->key);
    float *out = data;
    (void)store;
    (void)seed;
    (void)err;
    for (int64_t i = 0; is_b && i < type_elements(a); i++) torch_rng_u32(&rng);
    if (is_sparse) {
        torch_rng_uniform(&rng, out, n, 0, 1);
        make_sparse(out, n, o->is_very_sparse ? sqrt((double)a->dim[2]) : 3);
        normalise(out, n, NULL);
        return CB_OK;
    }
    const float bound = (float)(sqrt(3.0) * (sqrt(2 / (1 + 5.0)) / sqrt((double)(is_b ? r : a->dim[2]))));
    const int64_t slabs = is_b ? type->dim[1] : 1, rows = type->dim[0], width = is_b ? r : type->dim[2];
    for (int64_t s = 0; s < slabs; s++)
        for (int64_t i = 0; i < rows; i++) torch_rng_uniform(&rng, out + (i * slabs + s) * width, width, -bound, bound);
    // PyTorch draws from [-bound, bound): what rounding takes up to the bound becomes the lower one
    for (int64_t i = 0; i < n; i++) out[i] = as_bf16(out[i]) < as_bf16(bound) ? as_bf16(out[i]) : as_bf16(-bound);
    normalise(out, n, as_bf16);
    return CB_OK;
}

static int64_t shorter(const struct nn_site *site) { return site->in < site->out ? site->in : site->out; }
static int64_t longer(const struct nn_site *site) { return site->in < site->out ? site->out : site->in; }

static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    const struct randlora_options *o = m->options;
    struct nn_site most = {0};
    TRY(parts_largest(m, nn, &most.out, &most.in, err));
    const int64_t low = shorter(&most), high = longer(&most), n = (low + o->r - 1) / o->r;
    struct tuner_param p = {.role = o->is_saved ? TUNER_FROZEN : TUNER_DERIVED, .fill = projection_fill};
    p.public = (struct module_param){.key = "base_model.randlora_A", .type = type_make(CB_DTYPE_F32, 3, (int64_t[]){o->r, 1, low})};
    TRY(tuner_add(m, NULL, p, NULL, err));
    p.public = (struct module_param){.key = "base_model.randlora_B", .type = type_make(CB_DTYPE_F32, 3, (int64_t[]){high, n, o->r})};
    return tuner_add(m, NULL, p, NULL, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct randlora_options *o = m->options;
    const int64_t low = shorter(&site->site), n = (low + o->r - 1) / o->r, lambda[2] = {o->r, n}, gamma[2] = {n, low};
    site->rank = n;
    site->scale = o->alpha / (double)o->r;
    const double even = o->is_zero ? 1 / (double)(n > low ? n : low) : 1 / (double)longer(&site->site);
    TRY(tuner_add_param(m, site, "randlora_lambda", 2, lambda, o->is_zero ? TUNER_ZEROS : TUNER_NORMAL, 1, err));
    return tuner_add_param(m, site, "randlora_gamma", 2, gamma, TUNER_CONSTANT, even, err);
}

/* PEFT writes the shared matrices again at each site. */
static bool is_copy(const struct module *m, const char *key) {
    const char *dot = strrchr(key, '.');
    return dot && (strcmp(dot, ".randlora_A") == 0 || strcmp(dot, ".randlora_B") == 0) && strcmp(key, "base_model.randlora_A") != 0 &&
           strcmp(key, "base_model.randlora_B") != 0 && strncmp(key, "base_model.model.", 17) == 0 &&
           ((const struct randlora_options *)m->options)->is_saved;
}

/* The change as b a with b (longer, n r) and a (n r, shorter), scaled; the site's weight has it as it is, or turned where it is wider than high. PEFT pairs
   the rows of A in the order (r,n) with the columns of B in the order (n,r). */
static void factors(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor **a,
                    struct cb_tensor **b) {
    const struct randlora_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t low = shorter(&site->site), high = longer(&site->site), n = site->rank, r = o->r;
    const struct module_param *pa = &m->params[RANDLORA_A].public, *pb = &m->params[RANDLORA_B].public;
    struct cb_tensor *lambda = op_mul(g, op_scale(g, tuner_leaf(m, site, 0, nn), site->scale, 0), scale);
    lambda = op_reshape(g, lambda, 3, (int64_t[]){r, n, 1});
    *a = op_mul(g, op_slice(g, graph_param(g, pa->name, pa->type), 2, 0, low, 1), lambda);
    *a = op_reshape(g, op_mul(g, *a, tuner_leaf(m, site, 1, nn)), 2, (int64_t[]){r * n, low});
    *b = op_slice(g, op_slice(g, graph_param(g, pb->name, pb->type), 0, 0, high, 1), 1, 0, n, 1);
    *b = op_reshape(g, *b, 2, (int64_t[]){high, n * r});
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct randlora_options *o = m->options;
    struct cb_tensor *a, *b;
    factors(m, site, nn, scale, &a, &b);
    x = nn_dropout(nn, x, o->dropout);
    if (site->site.in <= site->site.out) return nn_product(nn, nn_product(nn, x, a, NULL), b, y);
    x = nn_product(nn, x, op_transpose(nn->g, b, 0, 1), NULL);
    return nn_product(nn, x, op_transpose(nn->g, a, 0, 1), y);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_tensor *a, *b;
    factors(m, site, nn, scale, &a, &b);
    const bool is_turned = site->site.in > site->site.out;
    return op_add(nn->g, w, is_turned ? op_matmul(nn->g, a, b, true, true) : op_matmul(nn->g, b, a, false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank of each random pair"},
    {"alpha", "randlora_alpha", TUNER_FLOAT, "the change is scaled by alpha / r"},
    PARTS_TARGETS,
    PARTS_LAYERS,
    PARTS_BIAS("randlora"),
    {"key", "projection_prng_key", TUNER_INT, "seed of A and B"},
    {"save_projection", "save_projection", TUNER_BOOL, "A and B stand in the file; else they are drawn again"},
    {"sparse", "sparse", TUNER_BOOL, "A and B hold -1, 0 and 1, a third of them not 0"},
    {"very_sparse", "very_sparse", TUNER_BOOL, "the same, 1 / sqrt(width) of them not 0"},
    {"dropout", "randlora_dropout", TUNER_FLOAT, "of the input, in training"},
    {0},
};
static const char *const cases[] = {"randlora:r=4,alpha=4,sparse=true,save_projection=false," PARTS_QUERIES, NULL};

const struct tuner tuner_randlora = {
    .name = "randlora",
    .doc = "RandLoRA: W' = W + a full-rank sum of random frozen pairs with trained factors.",
    .peft_type = "RANDLORA",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"bias\":\"none\",\"fan_in_fan_out\":false,\"init_weights\":true,\"peft_type\":\"RANDLORA\",\"projection_prng_key\":0,"
                "\"r\":32,\"randlora_alpha\":640,\"randlora_dropout\":0.0,\"save_projection\":true,\"sparse\":false,\"very_sparse\":false}",
    .options_bytes = sizeof(struct randlora_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .scaling = "the change, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare_shared = declare_shared,
    .declare = declare,
    .is_copy = is_copy,
    .delta = delta,
    .weight = weight,
};
