/* MiSS (Kang and Yin 2024, Bone): W' = W + D repeated over blocks of r inputs. "mini": D is repeated over outputs too. "bat": each block W_pq of r by r becomes
   W_pq (I + D_p) + D_p. */
#include <math.h>
#include <string.h>

#include "modules/parts.h"
#include "ops/ops.h"

enum miss_variant { MISS_PLAIN, MISS_MINI, MISS_BAT };

struct miss_options {
    int64_t r, mini_r;
    double dropout;
    enum miss_variant variant;
    bool is_zero;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct miss_options *o = (struct miss_options *)m->options;
    *o = (struct miss_options){.r = 64, .mini_r = 1, .is_zero = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->mini_r, m->config, where, "mini_r", 1, 1 << 24, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "miss_dropout", 0, 0.999, false, err));
    const json_t *init = json_object_get(m->config, "init_weights");
    const char *word = json_string_value(init);
    char text[JSON_TEXT];
    if (word && strcmp(word, "mini") == 0)
        o->variant = MISS_MINI;
    else if (word && strcmp(word, "bat") == 0)
        o->variant = MISS_BAT;
    else if (init && !json_is_boolean(init))
        FAIL(err, CB_E_FORMAT, "%s: init_weights: found %s; wanted true, false, \"mini\" or \"bat\"", where, json_text(init, text));
    o->is_zero = !json_is_false(init);
    if (o->variant == MISS_BAT) m->is_additive = false;
    return CB_OK;
}

static bool by_weight(const struct module *m, const struct tuner_site *site) {
    (void)site;
    return ((const struct miss_options *)m->options)->variant == MISS_BAT;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct miss_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out, r = o->r;
    const bool is_mini = o->variant == MISS_MINI, is_bat = o->variant == MISS_BAT;
    if (r > in || (is_bat && (in % r || out % r)) || (is_mini && out % o->mini_r))
        FAIL(err, CB_E_SHAPE, "%s: a weight (%lld,%lld) with r %lld, mini_r %lld; wanted r at most the inputs, %s", site->site.name,
             (long long)out, (long long)in, (long long)r, (long long)o->mini_r,
             is_bat ? "and a divisor of both" : "and mini_r a divisor of the outputs");
    const int64_t plain[2] = {r, is_mini ? o->mini_r : out}, bat[3] = {out / r, r, r};
    const double spread = 1 / sqrt((double)plain[1]);
    return tuner_add_param(m, site, "miss_block", is_bat ? 3 : 2, is_bat ? bat : plain, o->is_zero ? TUNER_ZEROS : TUNER_UNIFORM, spread,
                           err);
}

/* D (r,out), scaled. */
static struct cb_tensor *block(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    const struct miss_options *o = m->options;
    struct cb_tensor *d = op_mul(nn->g, tuner_leaf(m, site, 0, nn), scale);
    return o->variant == MISS_MINI ? op_repeat(nn->g, d, 2, (int64_t[]){1, site->site.out / o->mini_r}) : d;
}

/* Inputs whose numbers agree modulo r meet the same row of D: they are added first. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct miss_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t in = site->site.in, r = o->r, n = (in + r - 1) / r, axis = 1;
    x = op_reshape(g, nn_dropout(nn, x, o->dropout), 2, (int64_t[]){-1, in});
    if (n * r > in) x = op_pad(g, x, "constant", 0, 2, (int64_t[]){0, n * r - in});
    x = op_sum(g, op_reshape(g, x, 3, (int64_t[]){-1, n, r}), 1, &axis, false);
    x = op_matmul(g, x, block(m, site, nn, scale), false, false);
    return op_add(g, y, op_reshape(g, x, y->type.rank, y->type.dim));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct miss_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t in = site->site.in, out = site->site.out, r = o->r, n = (in + r - 1) / r;
    struct cb_tensor *d = block(m, site, nn, scale);
    if (o->variant != MISS_BAT) {
        d = op_repeat(g, op_transpose(g, d, 0, 1), 2, (int64_t[]){1, n});
        return op_add(g, w, n * r > in ? op_slice(g, d, 1, 0, in, 1) : d);
    }
    // rows of block p: W_pq D_p + D_p, the r rows beside each other for all q
    struct cb_tensor *blocks = op_reshape(g, w, 4, (int64_t[]){out / r, r, n, r});
    blocks = op_reshape(g, op_permute(g, blocks, 4, (int64_t[]){0, 2, 1, 3}), 3, (int64_t[]){out / r, n * r, r});
    blocks = op_reshape(g, op_matmul(g, blocks, d, false, false), 4, (int64_t[]){out / r, n, r, r});
    blocks = op_add(g, blocks, op_reshape(g, d, 4, (int64_t[]){out / r, 1, r, r}));
    blocks = op_permute(g, blocks, 4, (int64_t[]){0, 2, 1, 3});
    return op_add(g, w, op_reshape(g, blocks, 2, (int64_t[]){out, in}));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rows of D: the inputs are taken in blocks of r"},
    {"variant", "init_weights", TUNER_STR, "mini or bat; else the plain one"},
    {"mini_r", "mini_r", TUNER_INT, "columns of D in mini"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    PARTS_BIAS("miss"),
    {"dropout", "miss_dropout", TUNER_FLOAT, "of the input, in training"},
    {0},
};
static const char *const cases[] = {"miss:r=5", "miss:r=2,variant=bat,exclude=gate+shared_expert_gate", NULL};

const struct tuner tuner_miss = {
    .name = "miss",
    .doc = "MiSS (Bone): W' = W + a block of r inputs, repeated; bat multiplies blocks of the weight by it as well.",
    .peft_type = "MISS",
    .options = options,
    .defaults =
        "{" PARTS_JSON "," PARTS_JSON_LAYERS
        ",\"bias\":\"none\",\"exclude_modules\":null,\"init_weights\":true,\"mini_r\":1,\"miss_dropout\":0.0,\"peft_type\":\"MISS\","
        "\"r\":64}",
    .options_bytes = sizeof(struct miss_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "the block D",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .by_weight = by_weight,
    .delta = delta,
    .weight = weight,
};
