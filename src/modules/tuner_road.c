/* RoAd (Liao and Monz 2024): outputs are turned in pairs, y' = c y + d rot(y), where in each group of g outputs the first half pairs with the second,
   rot(y1, y2) = (-y2, y1), c = a cos t and d = a sin t. road_1 has one t and a for a pair, road_2 one for each output, road_4 one for each of c and d. */
#include <string.h>

#include "modules/parts.h"
#include "ops/ops.h"

struct road_options {
    int64_t group, variant;
    bool is_unit;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct road_options *o = (struct road_options *)m->options;
    const char *variant = "road_1";
    *o = (struct road_options){.group = 64, .is_unit = true};
    TRY(json_get_int(&o->group, m->config, where, "group_size", 2, 1 << 24, false, err));
    TRY(json_get_str(&variant, m->config, where, "variant", false, err));
    TRY(json_get_bool(&o->is_unit, m->config, where, "init_weights", false, err));
    o->variant = strncmp(variant, "road_", 5) == 0 && strlen(variant) == 6 && strchr("124", variant[5]) ? variant[5] - '0' : 0;
    if (!o->variant) FAIL(err, CB_E_FORMAT, "%s: variant: found %.60s; wanted road_1, road_2 or road_4", where, variant);
    if (o->group % 2) FAIL(err, CB_E_FORMAT, "%s: group_size: found %lld; wanted an even number", where, (long long)o->group);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct road_options *o = m->options;
    const int64_t out = site->site.out, n = out * o->variant / 2;
    if (out % o->group)
        FAIL(err, CB_E_SHAPE, "%s: %lld outputs in groups of %lld; wanted a divisor", site->site.name, (long long)out, (long long)o->group);
    TRY(tuner_add_param(m, site, "road_theta", 1, &n, o->is_unit ? TUNER_ZEROS : TUNER_NORMAL, 0.5, err));
    return tuner_add_param(m, site, "road_alpha", 1, &n, TUNER_CONSTANT, 1, err);
}

/* c and d, (groups,2,half,1) or of size 1 where halves share them; d with the sign that rot gives its half. */
static void factors(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor **c,
                    struct cb_tensor **d) {
    const struct road_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t half = o->group / 2, groups = site->site.out / o->group, pairs = o->variant == 1 ? 1 : 2;
    const int64_t shape[4] = {groups, pairs, half, 1}, four[4] = {groups, 2, 2 * half, 1}, both[4] = {groups, 2, half, 1};
    static const float signs[2] = {-1, 1};
    struct cb_tensor *theta = op_mul(g, tuner_leaf(m, site, 0, nn), scale);
    struct cb_tensor *alpha = parts_scaled_factor(g, tuner_leaf(m, site, 1, nn), scale);
    *c = op_mul(g, alpha, op_unary(g, "cos", theta));
    *d = op_mul(g, alpha, op_unary(g, "sin", theta));
    if (o->variant == 4) {
        // of each group first what c has, then what d has
        *c = op_reshape(g, op_slice(g, op_reshape(g, *c, 4, four), 1, 0, 1, 1), 4, both);
        *d = op_reshape(g, op_slice(g, op_reshape(g, *d, 4, four), 1, 1, 2, 1), 4, both);
    } else {
        *c = op_reshape(g, *c, 4, shape);
        *d = op_reshape(g, *d, 4, shape);
    }
    *d = op_mul(g, *d, graph_const(g, type_make(CB_DTYPE_F32, 4, (int64_t[]){1, 2, 1, 1}), signs));
}

/* z whose elements are rows x out x columns. */
static struct cb_tensor *turned(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *z, int64_t columns,
                                struct cb_tensor *scale) {
    const struct road_options *o = m->options;
    struct cb_graph *g = nn->g;
    const struct cb_type type = z->type;
    const int64_t axis = 2, shape[5] = {-1, site->site.out / o->group, 2, o->group / 2, columns};
    struct cb_tensor *c, *d;
    factors(m, site, nn, scale, &c, &d);
    z = op_reshape(g, z, 5, shape);
    z = op_add(g, op_mul(g, z, c), op_mul(g, op_flip(g, z, 1, &axis), d));
    return op_reshape(g, z, type.rank, type.dim);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    (void)x;
    return turned(m, site, nn, y, 1, scale);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    return turned(m, site, nn, w, site->site.in, scale);
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    return turned(m, site, nn, b, 1, scale);
}

static const struct tuner_option options[] = {
    {"variant", "variant", TUNER_STR, "road_1, road_2 or road_4"},
    {"group", "group_size", TUNER_INT, "outputs of a group, an even divisor"},
    PARTS_TARGETS,
    {0},
};
static const char *const cases[] = {"road:group=2,variant=road_2," PARTS_QUERIES, NULL};

const struct tuner tuner_road = {
    .name = "road",
    .doc = "RoAd: outputs are turned and stretched in pairs.",
    .peft_type = "ROAD",
    .options = options,
    .defaults = "{" PARTS_JSON ",\"group_size\":64,\"init_weights\":true,\"peft_type\":\"ROAD\",\"variant\":\"road_1\"}",
    .options_bytes = sizeof(struct road_options),
    .fresh = TUNER_IS_BASE,
    .scaling = "the angles, and the lengths' distance from 1",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .delta = delta,
    .weight = weight,
    .bias = bias,
};
