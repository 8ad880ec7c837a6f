/* Representation fine-tuning (Wu et al. 2024): behind each layer the first and last positions of a sequence become h + R' (act(W h + b) - R h), R (r,C) with
   orthonormal rows (LoReFT) or any (NoReFT), or without - R h (DiReFT). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "modules/adapters.h"
#include "ops/ops.h"

#define LAYERS_MAX 1024

struct reft {
    bool all_layers;
    int64_t layer[LAYERS_MAX];
    int n_layers;
    int64_t prefix, suffix, r;  // positions; rank
    bool is_orthogonal, is_tied, subtracts, is_on;
    const char *activation;  // NULL: none
    double dropout;
};

/* Parameters of a unit, in this order; NoReFT has the projection alone in place of original and base. */
enum { WEIGHT, BIAS, PROJECTION, BASE, PER_UNIT };

/* ---- configuration */
static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct reft *o = (struct reft *)m->options;
    const json_t *c = m->method, *layers = json_object_get(c, "layers");
    const char *word = json_string_value(layers);
    o->is_on = o->subtracts = true;
    o->dropout = 0.05;
    o->all_layers = !layers || (word && strcmp(word, "all") == 0);
    if (!o->all_layers) TRY(json_get_ints(o->layer, &o->n_layers, LAYERS_MAX, c, where, "layers", 0, 1 << 20, true, err));
    TRY(json_get_int(&o->prefix, c, where, "prefix_positions", 0, 1 << 24, true, err));
    TRY(json_get_int(&o->suffix, c, where, "suffix_positions", 0, 1 << 24, true, err));
    TRY(json_get_int(&o->r, c, where, "r", 1, TUNER_RANK_LIMIT, true, err));
    TRY(json_get_bool(&o->is_orthogonal, c, where, "orthogonality", true, err));
    TRY(json_get_bool(&o->is_tied, c, where, "tied_weights", false, err));
    TRY(json_get_bool(&o->is_on, c, where, "output_reft", false, err));
    // the library leaves this key out of its files, and takes every DiReFT for a NoReFT; where a file has the key it is obeyed here
    TRY(json_get_bool(&o->subtracts, c, where, "subtract_projection", false, err));
    TRY(json_get_float(&o->dropout, c, where, "dropout", 0, 0.999, false, err));
    TRY(json_get_str(&o->activation, c, where, "non_linearity", false, err));
    if (o->activation && !adapters_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: non_linearity: found %.60s; wanted relu, gelu, ... or null", where, o->activation);
    return CB_OK;
}

static bool match(const struct nn_site *site) { return site->kind == NN_HIDDEN; }

static bool implied(const struct module *m, const struct nn_site *site) {
    const struct reft *o = m->options;
    for (int i = 0; i < o->n_layers; i++)
        if (o->layer[i] == site->depth) return o->is_on;
    return o->all_layers && o->is_on;
}

/* ---- parameters */
/* A random orthogonal matrix (C,C): as many reflections of a signed identity as R has rows, so that its first columns are uniform (Stewart 1980). */
static enum cb_status base_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                struct cb_err *err) {
    (void)store;
    const struct reft *o = m->options;
    const int64_t n = p->public.type.dim[0];
    struct rng rng = rng_make(seed, rng_hash(p->public.key));
    double *q = calloc((size_t)(n * n), sizeof *q), *v = malloc((size_t)n * sizeof *v);
    if (!q || !v) {
        free(q);
        free(v);
        FAIL(err, CB_E_MEMORY, "%s: no memory for %lld x %lld", p->public.key, (long long)n, (long long)n);
    }
    for (int64_t i = 0; i < n; i++) q[i * n + i] = 1;
    for (int64_t k = o->r; k-- > 0;) {
        double norm = 0;
        for (int64_t i = k; i < n; i++) {
            v[i] = rng_normal(&rng);
            norm += v[i] * v[i];
        }
        // the reflection that takes the first axis to the drawn direction
        const double length = sqrt(norm), sign = v[k] < 0 ? -1 : 1;
        v[k] += sign * length;
        norm = 0;
        for (int64_t i = k; i < n; i++) norm += v[i] * v[i];
        for (int64_t column = k; norm > 0 && column < n; column++) {
            double dot = 0;
            for (int64_t i = k; i < n; i++) dot += v[i] * q[i * n + column];
            for (int64_t i = k; i < n; i++) q[i * n + column] -= 2 * dot / norm * v[i];
        }
        for (int64_t i = k; i < n; i++) q[i * n + k] *= -sign;
    }
    for (int64_t i = 0; i < n * n; i++) ((float *)data)[i] = (float)q[i];
    free(q);
    free(v);
    return CB_OK;
}

/* -1 on the diagonal: no reflection but the signs. */
static enum cb_status original_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                    struct cb_err *err) {
    (void)m, (void)store, (void)seed, (void)err;
    for (int64_t i = 0; i < p->public.type.dim[0]; i++) ((float *)data)[i * p->public.type.dim[1] + i] = -1;
    return CB_OK;
}

static enum cb_status param_add(struct module *m, struct tuner_site *site, int unit, const char *name, int rank, const int64_t *dim,
                                enum tuner_role role, tuner_fill *fill, struct cb_err *err) {
    const char *key = arena_printf(m->arena, "%s.reft_layer.refts.%s.units.%d.%s", site->site.name, m->label, unit, name);
    if (!key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    struct tuner_param rest = {.public = {.key = key, .type = type_make(CB_DTYPE_F32, rank, dim)}, .init = TUNER_UNIFORM};
    rest.spread = 1 / sqrt((double)site->site.in);
    rest.role = role;
    rest.fill = fill;
    return tuner_add(m, site, rest, NULL, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct reft *o = m->options;
    const int64_t c = site->site.in, thin[2] = {o->r, c}, square[2] = {c, c};
    if (o->r >= c)
        FAIL(err, CB_E_SHAPE, "%s: r: found %lld; wanted less than the %lld features", site->site.name, (long long)o->r, (long long)c);
    site->rank = o->r;
    for (int unit = 0; unit < (o->is_tied ? 1 : 2); unit++) {
        TRY(param_add(m, site, unit, "learned_source.weight", 2, thin, TUNER_TRAINED, NULL, err));
        TRY(param_add(m, site, unit, "learned_source.bias", 1, &o->r, TUNER_TRAINED, NULL, err));
        if (!o->is_orthogonal) {
            TRY(param_add(m, site, unit, "projection.weight", 2, thin, TUNER_TRAINED, NULL, err));
            continue;
        }
        TRY(param_add(m, site, unit, "projection.parametrizations.weight.original", 2, thin, TUNER_TRAINED, original_fill, err));
        TRY(param_add(m, site, unit, "projection.parametrizations.weight.0.base", 2, square, TUNER_FROZEN, base_fill, err));
    }
    return CB_OK;
}

/* ---- graph */
static struct cb_tensor *identity(struct cb_graph *g, int64_t rows, int64_t columns) {
    float *data = arena_array(g->arena, (size_t)(rows * columns), sizeof *data);
    if (!data) return graph_fail(g, CB_E_MEMORY, "reft: no memory for %lld x %lld", (long long)rows, (long long)columns);
    for (int64_t i = 0; i < rows && i < columns; i++) data[i * columns + i] = 1;
    return graph_const(g, type_make(CB_DTYPE_F32, 2, (const int64_t[]){rows, columns}), data);
}

/* PyTorch's orthogonal(): base times the product of reflections whose vectors lie below the diagonal of original', times the whole part of that diagonal, which
   has no gradient. The product H_1 ... H_r is I - V T V', T^-1 being the upper part of V'V with half its diagonal (Schreiber and Van Loan 1989). */
static struct cb_tensor *orthogonal(struct nn *nn, struct cb_tensor *original, struct cb_tensor *base) {
    struct cb_graph *g = nn->g;
    const int64_t r = original->type.dim[0], c = original->type.dim[1];
    struct cb_tensor *x = op_transpose(g, original, 0, 1), *eye = identity(g, r, r), *tall = identity(g, c, r);
    struct cb_tensor *v = op_add(g, op_tril(g, x, -1, false), tall), *gram = op_matmul(g, v, v, true, false);
    struct cb_tensor *inverse = op_sub(g, op_tril(g, gram, 0, true), op_scale(g, op_mul(g, gram, eye), 0.5, 0));
    struct cb_tensor *first = op_transpose(g, op_slice(g, v, 0, 0, r, 1), 0, 1);
    struct cb_tensor *q = op_sub(g, tall, op_matmul(g, v, op_solve(g, inverse, first), false, false));
    struct cb_tensor *diagonal = op_sum(g, op_mul(g, op_slice(g, x, 0, 0, r, 1), eye), 1, (const int64_t[]){0}, true);
    diagonal = op_stop_gradient(g, op_cast(g, op_cast(g, diagonal, CB_DTYPE_I32), CB_DTYPE_F32));
    return op_transpose(g, op_matmul(g, base, op_mul(g, q, diagonal), false, false), 0, 1);
}

/* What a unit makes of states x (B,T,C). */
static struct cb_tensor *unit(const struct module *m, const struct tuner_site *site, struct nn *nn, int first, struct cb_tensor *x,
                              struct cb_tensor *scale) {
    const struct reft *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *r = tuner_leaf(m, site, first + PROJECTION, nn);
    if (o->is_orthogonal) r = orthogonal(nn, r, tuner_leaf(m, site, first + BASE, nn));
    struct cb_tensor *source = op_linear(g, x, tuner_leaf(m, site, first + WEIGHT, nn), tuner_leaf(m, site, first + BIAS, nn), false);
    if (o->activation) source = adapters_activation(nn, o->activation, source);
    if (o->subtracts) source = op_sub(g, source, op_linear(g, x, r, NULL, false));
    source = op_mul(g, source, scale);
    return nn_dropout(nn, op_add(g, x, op_matmul(g, source, r, false, false)), o->dropout);
}

static struct cb_tensor *whole(struct cb_graph *g, int64_t value) {
    const int32_t v = (int32_t)value;
    return graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &v);
}

/* Whether position `at` (1 or B,T) lies in [begin, begin + n), as (1 or B,T,1). */
static struct cb_tensor *within(struct cb_graph *g, struct cb_tensor *at, struct cb_tensor *begin, int64_t n) {
    struct cb_tensor *inside =
        op_logical(g, "logical_and", op_compare(g, "ge", at, begin), op_compare(g, "lt", at, op_add(g, begin, whole(g, n))));
    if (graph_is_bad(g, inside)) return inside;
    return op_reshape(g, inside, 3, (const int64_t[]){inside->type.dim[0], inside->type.dim[1], 1});
}

/* A unit without positions is in the file, and its gradient is 0. */
static struct cb_tensor *idle(const struct module *m, const struct tuner_site *site, struct nn *nn, int first, struct cb_tensor *y) {
    struct cb_tensor *sum = NULL;
    for (int i = first; i < first + BASE; i++) {
        struct cb_tensor *one = op_sum(nn->g, tuner_leaf(m, site, i, nn), 0, NULL, false);
        sum = sum ? op_add(nn->g, sum, one) : one;
    }
    return op_add(nn->g, y, op_scale(nn->g, sum, 0, 0));
}

/* Every row goes through both units, and each keeps what its position wants: rows are few where r is small, and no index can leave the sequence. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    (void)x;
    const struct reft *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t t = y->type.dim[1], row[2] = {1, t};
    int32_t *count = arena_array(g->arena, (size_t)t, sizeof *count);
    if (!count) return graph_fail(g, CB_E_MEMORY, "reft: no memory for %lld positions", (long long)t);
    for (int64_t i = 0; i < t; i++) count[i] = (int32_t)i;
    struct cb_tensor *at = graph_const(g, type_make(CB_DTYPE_I32, 2, row), count), *begin = whole(g, 0), *length = whole(g, t);
    if (nn->start) {
        if (o->suffix)
            return graph_fail(g, CB_E_UNSUPPORTED,
                              "%s: suffix_positions %lld: a sequence that grows has no last positions; wanted 0 to generate", m->name,
                              (long long)o->suffix);
        at = op_add(g, op_reshape(g, nn->start, 2, (const int64_t[]){nn->start->type.dim[0], 1}), at);
    }
    if (nn->mask) {
        begin = op_argmax(g, nn->mask, 1, 1, true);
        length = op_cast(g, op_sum(g, op_cast(g, nn->mask, CB_DTYPE_F32), 1, (const int64_t[]){1}, true), CB_DTYPE_I32);
    }
    const int per_unit = o->is_orthogonal ? PER_UNIT : PER_UNIT - 1;
    struct cb_tensor *first = o->prefix || o->is_tied ? unit(m, site, nn, 0, y, scale) : NULL, *out = first ? y : idle(m, site, nn, 0, y);
    if (o->prefix) out = op_where(g, within(g, at, begin, o->prefix < t || nn->start ? o->prefix : t), first, out);
    if (!o->suffix) return o->is_tied || nn->start ? out : idle(m, site, nn, per_unit, out);
    const int64_t last = o->suffix < t ? o->suffix : t;
    struct cb_tensor *second = o->is_tied ? first : unit(m, site, nn, per_unit, y, scale);
    return op_where(g, within(g, at, op_sub(g, op_add(g, begin, length), whole(g, last)), last), second, out);
}

/* The diagonal of original holds signs, which decay of the weights would bring below 1, and so to 0: each update puts them back. */
static enum cb_status train_step(const struct module *m, struct store *store, struct store *states, int64_t step, struct cb_err *err) {
    (void)states, (void)step, (void)err;
    for (int i = 0; i < m->n_params; i++) {
        const struct tuner_param *p = &m->params[i];
        struct store_entry *entry = p->fill == original_fill ? store_find(store, p->public.name) : NULL;
        float *data = entry ? entry->data : NULL;
        for (int64_t k = 0; data && k < p->public.type.dim[0]; k++) {
            float *d = &data[k * p->public.type.dim[1] + k];
            *d = *d < 0 ? -1 : 1;
        }
    }
    return CB_OK;
}

/* ---- descriptor */
static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    {"layers", "layers", TUNER_INTS, "layers that are changed, joined by +; without: all"},
    {"prefix_positions", "prefix_positions", TUNER_INT, "positions that are changed at the beginning"},
    {"suffix_positions", "suffix_positions", TUNER_INT, "and at the end"},
    {"orthogonality", "orthogonality", TUNER_BOOL, "rows of the projection are orthonormal"},
    {"tied_weights", "tied_weights", TUNER_BOOL, "one unit for both ends"},
    {"subtract_projection", "subtract_projection", TUNER_BOOL, "the state's own projection is taken off"},
    {"non_linearity", "non_linearity", TUNER_STR, "of the source; without: none"},
    {"dropout", "dropout", TUNER_REAL, "of the new state, in training"},
    {0},
};
static const struct tuner_preset presets[] = {
    {"direft", "DiReFT: neither orthonormal nor less the state's own projection.",
     "{\"orthogonality\":false,\"subtract_projection\":false}"},
    {"loreft", "LoReFT: an edit of the state within a subspace.", "{\"orthogonality\":true}"},
    {"noreft", "NoReFT: the same without the constraint that rows are orthonormal.", "{\"orthogonality\":false}"},
    {0},
};
static const char *const cases[] = {"loreft:r=4,suffix_positions=2,dropout=0",
                                    "noreft:r=2,prefix_positions=2,suffix_positions=2,tied_weights=true",
                                    "direft:r=3,suffix_positions=2,non_linearity=gelu", NULL};

const struct tuner tuner_reft = {
    .name = "reft",
    .doc = "ReFT: thin edits of the states behind layers, at a sequence's first and last positions.",
    .architecture = "reft",
    .presets = presets,
    .options = options,
    .defaults =
        "{\"architecture\":\"reft\",\"dropout\":0.05,\"dtype\":null,\"init_weights_seed\":null,\"layers\":\"all\","
        "\"non_linearity\":null,\"orthogonality\":true,\"output_reft\":true,\"prefix_positions\":3,\"r\":1,"
        "\"subtract_projection\":true,\"suffix_positions\":0,\"tied_weights\":false}",
    .options_bytes = sizeof(struct reft),
    .fresh = TUNER_NOT_BASE,
    .is_additive = true,
    .scaling = "what is added to the state",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare = declare,
    .delta = delta,
    .train_step = train_step,
};
