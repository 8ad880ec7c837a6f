/* OFT (Qiu et al. 2023; Qiu et al. 2025 for the series): W' = W R^T, that is W on inputs turned block by block, x' = x R. R is the Cayley transform of a
   skew Q, exact, (I - Q)(I + Q)^-1, or a Neumann series, I + 2 Q + 2 Q^2 + ... + Q^n, in which the sign of Q is the other one. */
#include <math.h>

#include "modules/parts.h"
#include "ops/ops.h"

struct oft_options {
    int64_t r, block, terms;
    double eps, dropout;
    bool is_constrained, is_shared, is_series, is_zero;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct oft_options *o = (struct oft_options *)m->options;
    const json_t *c = m->config;
    *o = (struct oft_options){.block = 32, .terms = 5, .eps = 6e-5, .is_series = true, .is_zero = true};
    TRY(json_get_int(&o->r, c, where, "r", 0, 1 << 24, false, err));
    TRY(json_get_int(&o->block, c, where, "oft_block_size", 0, 1 << 16, false, err));
    TRY(json_get_int(&o->terms, c, where, "num_cayley_neumann_terms", 1, 64, false, err));
    TRY(json_get_float(&o->eps, c, where, "eps", 0, 1e6, false, err));
    TRY(json_get_float(&o->dropout, c, where, "module_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->is_constrained, c, where, "coft", false, err));
    TRY(json_get_bool(&o->is_shared, c, where, "block_share", false, err));
    TRY(json_get_bool(&o->is_series, c, where, "use_cayley_neumann", false, err));
    TRY(json_get_bool(&o->is_zero, c, where, "init_weights", false, err));
    if (!o->r == !o->block)
        FAIL(err, CB_E_FORMAT, "%s: r, oft_block_size: found %lld and %lld; wanted one of them, the other 0", where, (long long)o->r,
             (long long)o->block);
    return CB_OK;
}

/* The divisor of n nearest to wanted, the smaller of two. */
static int64_t nearest_divisor(int64_t n, int64_t wanted) {
    if (wanted >= n) return n;
    int64_t low = wanted, high = wanted;
    while (n % low) low--;
    while (n % high) high++;
    return wanted - low <= high - wanted ? low : high;
}

/* Places of the upper triangle, row by row, in the packed vector; one place more, of zeros, for the rest. */
static enum cb_status places_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const int64_t b = m->sites[p->site].rank;
    int32_t *out = data, next = 0;
    (void)store;
    (void)seed;
    (void)err;
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < b; j++) out[i * b + j] = j > i ? next++ : (int32_t)(b * (b - 1) / 2);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct oft_options *o = m->options;
    const int64_t in = site->site.in;
    const int64_t b = o->block ? nearest_divisor(in, o->block) : in / nearest_divisor(in, o->r), square = b * b;
    if (b < 2 || b > 1 << 15)
        FAIL(err, CB_E_SHAPE, "%s: %lld inputs in blocks of %lld; wanted blocks of 2 to 32768", site->site.name, (long long)in,
             (long long)b);
    site->rank = b;
    const int64_t dim[2] = {o->is_shared ? 1 : in / b, b * (b - 1) / 2};
    TRY(tuner_add_param(m, site, "oft_R.weight", 2, dim, o->is_zero ? TUNER_ZEROS : TUNER_NORMAL, 0.1, err));
    struct tuner_param places = {.role = TUNER_DERIVED, .fill = places_fill};
    places.public.key = arena_printf(m->arena, "oft_places.%lld", (long long)b);
    places.public.type = type_make(CB_DTYPE_I32, 1, &square);
    return tuner_add(m, site, places, NULL, err);
}

/* Constrained OFT: each block's Q within a ball; the gradient passes as if it were not. */
static struct cb_tensor *constrained(struct cb_graph *g, struct cb_tensor *v, double eps) {
    if (graph_is_bad(g, v)) return v;
    const int64_t last = -1;
    const double limit = eps / sqrt((double)v->type.dim[0]);
    struct cb_tensor *norm = op_scale(g, op_reduce(g, "norm_2", v, 1, &last, true), sqrt(2), 0);
    struct cb_tensor *near = op_clamp(g, op_div(g, graph_const_f32(g, (float)limit), op_clamp(g, norm, 1e-30, INFINITY)), 0, 1);
    return op_add(g, v, op_stop_gradient(g, op_sub(g, op_mul(g, v, near), v)));
}

/* Blocks of R (D,b,b). */
static struct cb_tensor *rotation(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    const struct oft_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t b = site->rank;
    struct cb_tensor *v = tuner_leaf(m, site, 0, nn);
    if (o->is_constrained) v = constrained(g, v, o->eps);
    v = op_pad(g, op_mul(g, v, scale), "constant", 0, 2, (int64_t[]){0, 1});
    v = op_reshape(g, op_index_select(g, v, tuner_leaf(m, site, 1, nn), 1), 3, (int64_t[]){-1, b, b});
    struct cb_tensor *q = op_sub(g, v, op_transpose(g, v, 1, 2)), *r = parts_identity(g, b), *power = q;
    if (!o->is_series) return op_solve(g, op_add(g, r, q), op_sub(g, r, q));
    // three terms are four: the last power is always there
    const int64_t last = o->terms == 3 ? 3 : o->terms - 1;
    if (last == 0) return op_expand(g, r, 3, (int64_t[]){o->is_shared ? 1 : site->site.in / b, b, b});
    r = op_add(g, r, op_scale(g, q, 2, 0));
    for (int64_t i = 2; i <= last; i++) {
        power = op_matmul(g, power, q, false, false);
        r = op_add(g, r, i < last ? op_scale(g, power, 2, 0) : power);
    }
    return r;
}

static struct cb_tensor *input(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale) {
    const struct oft_options *o = m->options;
    struct cb_tensor *r = rotation(m, site, nn, scale);
    return parts_by_blocks(nn->g, x, o->is_shared ? r : parts_drop_blocks(nn, r, o->dropout), false);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct oft_options *o = m->options;
    struct cb_tensor *r = rotation(m, site, nn, scale);
    return parts_by_blocks(nn->g, w, o->is_shared ? r : parts_drop_blocks(nn, r, o->dropout), true);
}

static const struct tuner_option options[] = {
    {"block", "oft_block_size", TUNER_INT, "size of the blocks; 0: by r"},
    {"r", "r", TUNER_INT, "number of the blocks; 0: by block"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    PARTS_BIAS("oft"),
    {"share", "block_share", TUNER_BOOL, "one block for all"},
    {"series", "use_cayley_neumann", TUNER_BOOL, "a Neumann series in place of the inverse"},
    {"terms", "num_cayley_neumann_terms", TUNER_INT, "of the series"},
    {"coft", "coft", TUNER_BOOL, "Q is held within eps of 0"},
    {"eps", "eps", TUNER_FLOAT, "see coft"},
    {"dropout", "module_dropout", TUNER_FLOAT, "probability of a block to be left out, in training"},
    {0},
};
static const char *const cases[] = {"oft:block=4", NULL};

const struct tuner tuner_oft = {
    .name = "oft",
    .doc = "OFT: inputs are turned block by block before they meet the weight, W' = W R^T.",
    .peft_type = "OFT",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"bias\":\"none\",\"block_share\":false,\"coft\":false,\"eps\":6e-05,\"exclude_modules\":null,\"fan_in_fan_out\":false,"
                "\"init_weights\":true,\"module_dropout\":0.0,\"num_cayley_neumann_terms\":5,\"oft_block_size\":32,\"peft_type\":\"OFT\","
                "\"r\":0,\"use_cayley_neumann\":true}",
    .options_bytes = sizeof(struct oft_options),
    .fresh = TUNER_NEAR_BASE,
    .scaling = "the skew matrices Q, so that any scale turns",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .input = input,
    .weight = weight,
};
