/* HRA (Yuan et al. 2024): W' = W H_1 ... H_r, each H = I - 2 u u^T / |u|^2 a Householder reflection. */
#include <math.h>

#include "base/rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct hra_options {
    int64_t r;
    bool is_orthogonal, is_paired;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct hra_options *o = (struct hra_options *)m->options;
    *o = (struct hra_options){.r = 8, .is_paired = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_bool(&o->is_orthogonal, m->config, where, "apply_GS", false, err));
    return json_get_bool(&o->is_paired, m->config, where, "init_weights", false, err);
}

/* Columns equal in pairs, whose reflections undo each other; an odd number has none. */
static enum cb_status columns_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                   struct cb_err *err) {
    const struct hra_options *o = m->options;
    const int64_t in = p->public.type.dim[0], r = p->public.type.dim[1], step = o->is_paired && r % 2 == 0 ? 2 : 1;
    const double spread = 1 / sqrt((double)(r / step));
    struct rng rng = rng_make(seed, rng_hash(p->public.key));
    float *out = data;
    (void)store;
    (void)err;
    for (int64_t i = 0; i < in * r; i += step) {
        out[i] = (float)(spread * (2 * rng_f64(&rng) - 1));
        if (step == 2) out[i + 1] = out[i];
    }
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct hra_options *o = m->options;
    struct tuner_param u = {.fill = columns_fill};
    u.public.key = tuner_key(m, site, "hra_u", err);
    u.public.type = type_make(CB_DTYPE_F32, 2, (int64_t[]){site->site.in, o->r});
    if (!u.public.key) return err->code;
    site->rank = o->r;
    return tuner_add(m, site, u, NULL, err);
}

/* The columns of u orthonormalised in their order (Gram-Schmidt, each step twice). */
static struct cb_tensor *orthonormal(struct cb_graph *g, struct cb_tensor *u, int64_t r) {
    const int64_t rows = 0;
    struct cb_tensor *q = NULL;
    for (int64_t i = 0; i < r; i++) {
        struct cb_tensor *v = op_slice(g, u, 1, i, i + 1, 1);
        for (int k = 0; q && k < 2; k++) v = op_sub(g, v, op_matmul(g, q, op_matmul(g, q, v, true, false), false, false));
        v = op_div(g, v, op_reduce(g, "norm_2", v, 1, &rows, true));
        q = q ? op_concat(g, 2, (struct cb_tensor *[]){q, v}, 1) : v;
    }
    return q;
}

/* The product of the reflections is I - U K: with unit columns U, K = T U^T, where the inverse of T has 1/2 on its diagonal and above it the products of the
   columns (Joffrain et al. 2006). Orthogonal columns make it 2 U^T. */
static void reflections(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor **u,
                        struct cb_tensor **k) {
    const struct hra_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t rows = 0;
    *u = tuner_leaf(m, site, 0, nn);
    if (o->is_orthogonal) {
        *u = orthonormal(g, *u, o->r);
        *k = op_scale(g, op_transpose(g, *u, 0, 1), 2, 0);
    } else {
        *u = op_div(g, *u, op_reduce(g, "norm_2", *u, 1, &rows, true));
        struct cb_tensor *t = op_tril(g, op_matmul(g, *u, *u, true, false), 1, true);
        t = op_add(g, t, op_scale(g, parts_identity(g, o->r), 0.5, 0));
        *k = op_solve(g, t, op_transpose(g, *u, 0, 1));
    }
    *k = op_mul(g, *k, scale);
}

static struct cb_tensor *input(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale) {
    struct cb_tensor *u, *k;
    reflections(m, site, nn, scale, &u, &k);
    return op_sub(nn->g, x, op_linear(nn->g, op_linear(nn->g, x, k, NULL, false), u, NULL, false));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_tensor *u, *k;
    reflections(m, site, nn, scale, &u, &k);
    return op_sub(nn->g, w, op_matmul(nn->g, op_matmul(nn->g, w, u, false, false), k, false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "number of reflections; an even number starts at the base"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    PARTS_BIAS("hra"),
    {"orthogonal", "apply_GS", TUNER_BOOL, "the reflections are made orthogonal (the fresh module is then not the base)"},
    {0},
};
static const char *const cases[] = {"hra:r=4", NULL};

const struct tuner tuner_hra = {
    .name = "hra",
    .doc = "HRA: inputs are reflected r times before they meet the weight, W' = W H_1 ... H_r.",
    .peft_type = "HRA",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"apply_GS\":false,\"bias\":\"none\",\"exclude_modules\":null,\"init_weights\":true,\"peft_type\":\"HRA\",\"r\":8}",
    .options_bytes = sizeof(struct hra_options),
    .fresh = TUNER_NEAR_BASE,
    .scaling = "the way from the input to its reflection",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .input = input,
    .weight = weight,
};
