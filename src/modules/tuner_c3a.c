/* C3A (Chen et al. 2025): W' = W + blocks of b by b, each a circulant matrix of a trained kernel, divided by the inputs. PEFT 0.21.2 passes back to the input a
   wrong gradient: that of circulants whose (u,t) is kernel[t + u] in place of kernel[t - u]. A file of PEFT, which lacks "input_gradient", is trained as PEFT
   does; fresh modules say "exact". */
#include <math.h>
#include <string.h>

#include "modules/parts.h"
#include "ops/ops.h"

struct c3a_options {
    int64_t block;
    const char *init;
    bool is_exact;
    struct tuner_numbers blocks;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct c3a_options *o = (struct c3a_options *)m->options;
    *o = (struct c3a_options){.block = 256, .init = "xavier_uniform"};
    TRY(json_get_int(&o->block, m->config, where, "block_size", 1, 1 << 14, false, err));
    const json_t *init = json_object_get(m->config, "init_weights");
    if (json_is_true(init))
        o->init = "zeros";
    else if (!json_is_boolean(init))
        TRY(json_get_str(&o->init, m->config, where, "init_weights", false, err));
    if (strcmp(o->init, "zeros") != 0 && strcmp(o->init, "xavier_uniform") != 0 && strcmp(o->init, "kaiming_uniform") != 0 &&
        strcmp(o->init, "gaussian") != 0)
        FAIL(err, CB_E_FORMAT, "%s: init_weights: found %.60s; wanted true, false, xavier_uniform, kaiming_uniform or gaussian", where,
             o->init);
    const char *gradient = "peft";
    TRY(json_get_str(&gradient, m->config, where, "input_gradient", false, err));
    o->is_exact = strcmp(gradient, "exact") == 0;
    if (!o->is_exact && strcmp(gradient, "peft") != 0)
        FAIL(err, CB_E_FORMAT, "%s: input_gradient: found %.60s; wanted exact or peft", where, gradient);
    if (json_object_set_new(m->config, "input_gradient", json_string(gradient)) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", where);
    return tuner_numbers_parse(m, &o->blocks, where, "block_size_pattern", 1, 1 << 14, true, err);
}

static bool by_weight(const struct module *m, const struct tuner_site *site) {
    (void)site;
    return ((const struct c3a_options *)m->options)->is_exact;
}

/* Which of a kernel's numbers stands at (u,t): (t - u) mod b in a circulant, (t + u) mod b in what PEFT's gradient takes for one. */
static void places(int64_t b, int sign, int32_t *out) {
    for (int64_t u = 0; u < b; u++)
        for (int64_t t = 0; t < b; t++) out[u * b + t] = (int32_t)((t + sign * u + b) % b);
}
static enum cb_status places_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    (void)store;
    (void)seed;
    (void)err;
    places(m->sites[p->site].rank, -1, data);
    return CB_OK;
}
static enum cb_status mirrored_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                    struct cb_err *err) {
    (void)store;
    (void)seed;
    (void)err;
    places(m->sites[p->site].rank, 1, data);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct c3a_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out;
    double block = (double)o->block;
    TRY(tuner_number(&block, &o->blocks, site->site.name, err));
    const int64_t b = (int64_t)block, square = b * b;
    if (in % b || out % b)
        FAIL(err, CB_E_SHAPE, "%s: a weight (%lld,%lld) in blocks of %lld; wanted a divisor of both widths", site->site.name,
             (long long)out, (long long)in, (long long)b);
    site->rank = b;
    const bool is_normal = strcmp(o->init, "gaussian") == 0, is_zero = strcmp(o->init, "zeros") == 0;
    const double spread = is_normal ? 1 : strcmp(o->init, "kaiming_uniform") == 0 ? 1 / sqrt((double)in) : sqrt(6 / (double)(in + out));
    TRY(tuner_add_param(m, site, "c3a_kernel", 3, (int64_t[]){out / b, in / b, b},
                        is_zero     ? TUNER_ZEROS
                        : is_normal ? TUNER_NORMAL
                                    : TUNER_UNIFORM,
                        spread, err));
    struct tuner_param index = {.role = TUNER_DERIVED, .fill = places_fill};
    index.public.key = arena_printf(m->arena, "c3a_places.%lld", (long long)b);
    index.public.type = type_make(CB_DTYPE_I32, 1, &square);
    TRY(tuner_add(m, site, index, NULL, err));
    if (o->is_exact) return CB_OK;
    index.fill = mirrored_fill;
    index.public.key = arena_printf(m->arena, "c3a_mirrored.%lld", (long long)b);
    return tuner_add(m, site, index, NULL, err);
}

/* The change (out,in), its blocks filled in the order of an index parameter. */
static struct cb_tensor *blocks(const struct module *m, const struct tuner_site *site, struct nn *nn, int index, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    const int64_t in = site->site.in, out = site->site.out, b = site->rank;
    struct cb_tensor *k = op_mul(g, op_scale(g, tuner_leaf(m, site, 0, nn), 1 / (double)in, 0), scale);
    k = op_reshape(g, op_index_select(g, k, tuner_leaf(m, site, index, nn), 2), 4, (int64_t[]){out / b, in / b, b, b});
    return op_reshape(g, op_permute(g, k, 4, (int64_t[]){0, 2, 1, 3}), 2, (int64_t[]){out, in});
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    return op_add(nn->g, w, blocks(m, site, nn, 1, scale));
}

/* With PEFT's gradient of the input: the last two terms cancel, but for their gradients. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    y = op_add(g, y, op_linear(g, op_stop_gradient(g, x), blocks(m, site, nn, 1, scale), NULL, false));
    x = op_linear(g, x, op_stop_gradient(g, blocks(m, site, nn, 2, scale)), NULL, false);
    return op_add(g, y, op_sub(g, x, op_stop_gradient(g, x)));
}

static const struct tuner_option options[] = {
    {"block", "block_size", TUNER_INT, "size of the circulant blocks, a divisor of the widths"},
    PARTS_TARGETS,
    PARTS_LAYERS,
    PARTS_BIAS("c3a"),
    {"gradient", "input_gradient", TUNER_STR, "exact, or peft: what PEFT passes back to the input"},
    {"init", "init_weights", TUNER_STR, "xavier_uniform, kaiming_uniform or gaussian"},
    {0},
};
static const char *const cases[] = {"c3a:block=1", NULL};

const struct tuner tuner_c3a = {
    .name = "c3a",
    .doc = "C3A: W' = W + circulant blocks of trained kernels.",
    .peft_type = "C3A",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"bias\":\"none\",\"block_size\":256,\"block_size_pattern\":{},\"init_weights\":\"xavier_uniform\",\"input_gradient\":"
                "\"exact\",\"peft_type\":\"C3A\"}",
    .options_bytes = sizeof(struct c3a_options),
    .fresh = TUNER_NOT_BASE,
    .is_additive = true,
    .scaling = "the change",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .by_weight = by_weight,
    .delta = delta,
    .weight = weight,
};
