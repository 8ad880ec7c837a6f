/* Intrinsic dimension (Li et al. 2018; Aghajanyan et al. 2021, SAID): all changes of all weights are one random projection of d trained numbers t. Of a weight
   of D elements, with L the next power of two: fastfood, l H G P H S t / (|G| sqrt(D)), H the Hadamard matrix (L,L), G normal and S signs on diagonals, P a
   permutation; or dense, l R t / sqrt(D) with R (D,d) normal. l, one number a weight, is 1 or trained (structure-aware). */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct said_options {
    int64_t d, seed;
    bool is_dense, is_aware;
};

/* A site's parameters after t: the projection; l. */
enum { SAID_THETA, SAID_SIGNS, SAID_PLACES, SAID_GAUSS };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct said_options *o = (struct said_options *)m->options;
    const char *projection = "fastfood";
    *o = (struct said_options){.d = 200, .is_aware = true};
    TRY(json_get_int(&o->d, m->config, where, "intrinsic_dimension", 1, 1 << 26, false, err));
    TRY(json_get_int(&o->seed, m->config, where, "projection_seed", 0, INT64_MAX, false, err));
    TRY(json_get_str(&projection, m->config, where, "projection", false, err));
    o->is_dense = strcmp(projection, "dense") == 0;
    if (!o->is_dense && strcmp(projection, "fastfood") != 0)
        FAIL(err, CB_E_FORMAT, "%s: projection: found %.60s; wanted fastfood or dense", where, projection);
    return json_get_bool(&o->is_aware, m->config, where, "structure_aware", false, err);
}

/* The next power of two. */
static int64_t padded(int64_t n) {
    int64_t power = 1;
    while (power < n) power *= 2;
    return power;
}

/* Elements of the transform at a site: t fits in too. */
static int64_t transformed(const struct said_options *o, const struct nn_site *site) {
    const int64_t n = padded(site->in * site->out), c = padded(o->d);
    return n > c ? n : c;
}

/* The random part of a site is drawn from the seed and its key. */
static enum cb_status random_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const struct said_options *o = m->options;
    const struct nn_site *site = &m->sites[p->site].site;
    const int64_t n = type_elements(&p->public.type);
    struct rng rng = rng_make((uint64_t)o->seed, rng_hash(p->public.key));
    float *x = data;
    int32_t *place = data;
    double sum = 0;
    (void)store;
    (void)seed;
    (void)err;
    if (p->public.type.dtype == CB_DTYPE_I32) {
        for (int64_t i = 0; i < n; i++) place[i] = (int32_t)i;
        for (int64_t i = n - 1; i > 0; i--) {
            const int64_t j = (int64_t)rng_below(&rng, (uint64_t)i + 1);
            const int32_t kept = place[i];
            place[i] = place[j];
            place[j] = kept;
        }
        for (int64_t i = 0; i < n; i++) place[i] &= (int32_t)(padded(o->d) - 1);
        return CB_OK;
    }
    if (strstr(p->public.key, "said_signs")) {
        for (int64_t i = 0; i < n; i++) x[i] = rng_u32(&rng) & 1 ? 1 : -1;
        return CB_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)rng_normal(&rng);
        sum += (double)x[i] * (double)x[i];
    }
    const double norm = sqrt((double)site->in * (double)site->out) * (o->is_dense ? 1 : sqrt(sum));
    for (int64_t i = 0; i < n; i++) x[i] = (float)((double)x[i] / norm);
    return CB_OK;
}

static enum cb_status add_random(struct module *m, struct tuner_site *site, const char *name, struct cb_type type, struct cb_err *err) {
    struct tuner_param p = {.role = TUNER_DERIVED, .fill = random_fill};
    p.public.key = tuner_key(m, site, name, err);
    p.public.type = type;
    return p.public.key ? tuner_add(m, site, p, NULL, err) : err->code;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct said_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out, one = 1;
    if (in >= INT32_MAX / 2 / out || (o->is_dense && o->d > INT64_MAX / 64 / (in * out)))
        FAIL(err, CB_E_LIMIT, "%s: a weight (%lld,%lld) is too large for the projection", site->site.name, (long long)out, (long long)in);
    const int64_t n = transformed(o, &site->site), c = padded(o->d), dense[2] = {in * out, o->d};
    struct tuner_param theta = {.public = {.key = "base_model.said_theta", .type = type_make(CB_DTYPE_F32, 1, &o->d)}};
    TRY(tuner_add(m, site, theta, NULL, err));
    if (o->is_dense) {
        TRY(add_random(m, site, "said_projection", type_make(CB_DTYPE_F32, 2, dense), err));
    } else {
        TRY(add_random(m, site, "said_signs", type_make(CB_DTYPE_F32, 1, &c), err));
        TRY(add_random(m, site, "said_places", type_make(CB_DTYPE_I32, 1, &n), err));
        TRY(add_random(m, site, "said_gauss", type_make(CB_DTYPE_F32, 1, &n), err));
    }
    return o->is_aware ? tuner_add_param(m, site, "said_lambda", 1, &one, TUNER_CONSTANT, 1, err) : CB_OK;
}

/* H x for x of n = 2^k elements: H is a Kronecker product, whose factors act one after the other on groups of up to 5 bits of the index. */
static struct cb_tensor *hadamard(struct cb_graph *g, struct cb_tensor *x, int64_t n) {
    float factor[32 * 32];
    for (int64_t left = n; left > 1;) {
        const int64_t c = left < 32 ? left : 32, square[2] = {c, c};
        for (int64_t i = 0; i < c; i++)
            for (int64_t k = 0; k < c; k++) factor[i * c + k] = __builtin_parityll((unsigned long long)(i & k)) ? -1 : 1;
        // the lowest bits are transformed and become the highest
        x = op_matmul(g, op_reshape(g, x, 2, (int64_t[]){n / c, c}), graph_const(g, type_make(CB_DTYPE_F32, 2, square), factor), false,
                      false);
        x = op_reshape(g, op_transpose(g, x, 0, 1), 1, &n);
        left /= c;
    }
    return x;
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct said_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t n = transformed(o, &site->site), c = padded(o->d), all = site->site.in * site->site.out;
    const struct cb_type type = w->type;
    struct cb_tensor *t = op_mul(g, tuner_leaf(m, site, SAID_THETA, nn), scale);
    if (o->is_aware) t = op_mul(g, t, tuner_leaf(m, site, site->n_params - 1, nn));
    if (o->is_dense) {
        t = op_matmul(g, tuner_leaf(m, site, 1, nn), op_reshape(g, t, 2, (int64_t[]){o->d, 1}), false, false);
        return op_add(g, w, op_reshape(g, t, type.rank, type.dim));
    }
    // behind its c leading elements S t is zero, of which H makes the same c numbers again and again: they are computed once, P takes places modulo c
    t = op_pad(g, t, "constant", 0, 2, (int64_t[]){0, c - o->d});
    t = hadamard(g, op_mul(g, t, tuner_leaf(m, site, SAID_SIGNS, nn)), c);
    t = op_index_select(g, t, tuner_leaf(m, site, SAID_PLACES, nn), 0);
    t = hadamard(g, op_mul(g, t, tuner_leaf(m, site, SAID_GAUSS, nn)), n);
    return op_add(g, w, op_reshape(g, op_slice(g, t, 0, 0, all, 1), type.rank, type.dim));
}

static const struct tuner_option options[] = {
    {"d", "intrinsic_dimension", TUNER_INT, "numbers that are trained"},
    {"projection", "projection", TUNER_STR, "fastfood or dense (small models: it is as large as d times the weights)"},
    {"aware", "structure_aware", TUNER_BOOL, "a trained factor for each weight"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    {"seed", "projection_seed", TUNER_INT, "of the projection"},
    {0},
};
static const char *const cases[] = {"said:d=20", NULL};

const struct tuner tuner_said = {
    .name = "said",
    .doc = "Intrinsic dimension: all changes are a random projection of a few trained numbers.",
    .peft_type = "SAID",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"exclude_modules\":null,\"intrinsic_dimension\":200,\"peft_type\":\"SAID\",\"projection\":\"fastfood\","
                "\"projection_seed\":0,\"structure_aware\":true}",
    .options_bytes = sizeof(struct said_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "the change",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .weight = weight,
};
