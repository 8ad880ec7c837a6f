/* LoKr (LyCORIS; Edalati et al. 2022, KronA): W' = W + (alpha / r) kron(w1, w2), where w2, and w1 too if asked, may be a product of rank r. */
#include <math.h>
#include <string.h>

#include "modules/parts.h"
#include "ops/ops.h"

struct lokr_options {
    int64_t r, factor;
    double alpha, rank_dropout, module_dropout;
    bool both, dropout_scale;
    const char *init;  // "zeros", "lycoris", "random"
    struct tuner_numbers ranks, alphas;
};

/* Shapes at a site: w1 (l,m), w2 (k,n), l k = out, m n = in. */
struct lokr_site {
    int64_t l, k, m, n;
    bool is_whole[2];  // w1, w2: not products
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct lokr_options *o = (struct lokr_options *)m->options;
    *o = (struct lokr_options){.r = 8, .alpha = 8, .factor = -1, .init = "zeros"};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, m->config, where, "alpha", -1e6, 1e6, false, err));
    TRY(json_get_int(&o->factor, m->config, where, "decompose_factor", -1, 1 << 24, false, err));
    TRY(json_get_bool(&o->both, m->config, where, "decompose_both", false, err));
    TRY(json_get_float(&o->rank_dropout, m->config, where, "rank_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->dropout_scale, m->config, where, "rank_dropout_scale", false, err));
    TRY(json_get_float(&o->module_dropout, m->config, where, "module_dropout", 0, 0.999, false, err));
    if (o->factor == 0) FAIL(err, CB_E_FORMAT, "%s: decompose_factor: found 0; wanted -1, or 1 or more", where);
    const json_t *init = json_object_get(m->config, "init_weights");
    char text[JSON_TEXT];
    if (json_is_false(init))
        o->init = "random";
    else if (json_is_string(init) && strcmp(json_string_value(init), "lycoris") == 0)
        o->init = "lycoris";
    else if (init && !json_is_true(init))
        FAIL(err, CB_E_FORMAT, "%s: init_weights: found %s; wanted true, false or \"lycoris\"", where, json_text(init, text));
    TRY(tuner_numbers_parse(m, &o->ranks, where, "rank_pattern", 1, TUNER_RANK_LIMIT, true, err));
    return tuner_numbers_parse(m, &o->alphas, where, "alpha_pattern", -1e6, 1e6, false, err);
}

/* n as a product of two: the factor first where it divides n, else the pair nearest to each other whose smaller one is at most the factor. */
static void factorise(int64_t n, int64_t factor, int64_t *a, int64_t *b) {
    *a = factor > 0 && n % factor == 0 ? factor : 1;
    for (int64_t i = 2; !(factor > 0 && n % factor == 0) && i <= n / i; i++)
        if (n % i == 0 && (factor < 0 || i <= factor)) *a = i;
    *b = n / *a;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct lokr_options *o = m->options;
    struct lokr_site *own = arena_alloc(m->arena, sizeof *own);
    if (!own) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", site->site.name);
    double alpha = o->alpha, rank = (double)o->r;
    TRY(tuner_number(&rank, &o->ranks, site->site.name, err));
    TRY(tuner_number(&alpha, &o->alphas, site->site.name, err));
    const int64_t r = site->rank = (int64_t)rank;
    site->scale = alpha / rank;
    site->own = own;
    factorise(site->site.in, o->factor, &own->m, &own->n);
    factorise(site->site.out, o->factor, &own->l, &own->k);
    const int64_t most1 = own->l > own->m ? own->l : own->m, most2 = own->k > own->n ? own->k : own->n;
    own->is_whole[0] = !(o->both && 2 * r < most1);
    own->is_whole[1] = !(2 * r < most2);
    const int64_t shape[2][2] = {{own->l, own->m}, {own->k, own->n}};
    static const char *const names[2][3] = {{"lokr_w1", "lokr_w1_a", "lokr_w1_b"}, {"lokr_w2", "lokr_w2_a", "lokr_w2_b"}};
    for (int i = 0; i < 2; i++) {
        const int64_t a[2] = {shape[i][0], r}, b[2] = {r, shape[i][1]};
        const bool starts_zero = i == 0 ? strcmp(o->init, "zeros") == 0 : strcmp(o->init, "lycoris") == 0;
        const double spread = 1 / sqrt((double)shape[i][1]);
        const enum tuner_init init = starts_zero ? TUNER_ZEROS : TUNER_UNIFORM;
        if (own->is_whole[i]) {
            TRY(tuner_add_param(m, site, names[i][0], 2, shape[i], init, spread, err));
            continue;
        }
        // of w1 the first factor starts at 0, of w2 the second
        TRY(tuner_add_param(m, site, names[i][1], 2, a, i == 0 ? init : TUNER_UNIFORM, 1 / sqrt(rank), err));
        TRY(tuner_add_param(m, site, names[i][2], 2, b, i == 1 ? init : TUNER_UNIFORM, spread, err));
    }
    return CB_OK;
}

/* w1, scaled, and w2. */
static void factors(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor *w[2]) {
    const struct lokr_site *own = site->own;
    for (int i = 0, p = 0; i < 2; i++) {
        w[i] = tuner_leaf(m, site, p++, nn);
        if (i == 0) w[i] = op_mul(nn->g, op_scale(nn->g, w[i], site->scale, 0), scale);
        if (!own->is_whole[i]) w[i] = op_matmul(nn->g, w[i], tuner_leaf(m, site, p++, nn), false, false);
    }
}

/* What training leaves out: a factor for each output; NULL: nothing. */
static struct cb_tensor *output_mask(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct lokr_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *rows = parts_mask(nn, site->site.out, o->rank_dropout), *all = parts_mask(nn, 1, o->module_dropout);
    if (rows && o->dropout_scale) rows = op_div(g, rows, op_clamp(g, op_mean(g, rows, 0, NULL, false), 1e-6, 1));
    return rows && all ? op_mul(g, rows, all) : rows ? rows : all;
}

/* Without the large product: with x as a matrix X (m,n), y as a matrix (l,k) is w1 X w2^T. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct lokr_site *own = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *w[2], *mask = output_mask(m, site, nn);
    factors(m, site, nn, scale, w);
    x = op_linear(g, op_reshape(g, x, 3, (int64_t[]){-1, own->m, own->n}), w[1], NULL, false);
    x = op_linear(g, op_transpose(g, x, 1, 2), w[0], NULL, false);
    x = op_reshape(g, op_transpose(g, x, 1, 2), y->type.rank, y->type.dim);
    return op_add(g, y, mask ? op_mul(g, x, mask) : x);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct lokr_site *own = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *f[2], *mask = output_mask(m, site, nn);
    factors(m, site, nn, scale, f);
    struct cb_tensor *a = op_reshape(g, f[0], 4, (int64_t[]){own->l, 1, own->m, 1});
    struct cb_tensor *b = op_reshape(g, f[1], 4, (int64_t[]){1, own->k, 1, own->n});
    struct cb_tensor *change = op_reshape(g, op_mul(g, a, b), 2, (int64_t[]){site->site.out, site->site.in});
    if (mask) change = op_mul(g, change, op_reshape(g, mask, 2, (int64_t[]){-1, 1}));
    return op_add(g, w, change);
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    {"alpha", "alpha", TUNER_FLOAT, "the change is scaled by alpha / r"},
    PARTS_RANKS,
    PARTS_ALPHAS,
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    {"both", "decompose_both", TUNER_BOOL, "w1 is a product of rank r too"},
    {"factor", "decompose_factor", TUNER_INT, "first size of the pairs that widths are split into; -1: nearest to their roots"},
    {"rank_dropout", "rank_dropout", TUNER_FLOAT, "probability of an output's change to be left out, in training"},
    {"module_dropout", "module_dropout", TUNER_FLOAT, "probability of a site's change to be left out, in training"},
    {0},
};
static const char *const cases[] = {"lokr:r=1,alpha=2,both=true," PARTS_QUERIES, NULL};

const struct tuner tuner_lokr = {
    .name = "lokr",
    .doc = "LoKr: W' = W + (alpha / r) kron(w1, w2).",
    .peft_type = "LOKR",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"alpha\":8,\"alpha_pattern\":{},\"decompose_both\":false,\"decompose_factor\":-1,\"exclude_modules\":null,"
                "\"init_weights\":true,\"module_dropout\":0.0,\"peft_type\":\"LOKR\",\"r\":8,\"rank_dropout\":0.0,\"rank_dropout_scale\":"
                "false,\"rank_pattern\":{},\"use_effective_conv2d\":false}",
    .options_bytes = sizeof(struct lokr_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "the change, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .delta = delta,
    .weight = weight,
};
