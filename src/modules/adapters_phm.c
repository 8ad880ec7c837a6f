/* Projections of bottlenecks: linear layers, and those of parametrised hypercomplex multiplication (Zhang et al. 2021), of which Compacter shares parts
   between layers (Mahabadi et al. 2021). */
#include <math.h>
#include <string.h>

#include "modules/adapters.h"
#include "ops/ops.h"

enum cb_status phm_parse(struct phm *p, const json_t *c, const char *where, struct cb_err *err) {
    const char *init = "normal";
    *p = (struct phm){.dim = 4, .rank = 1, .shares_rule = true, .learns_rule = true, .factors_w = true, .has_bias = true, .range = 1e-4};
    TRY(json_get_bool(&p->on, c, where, "phm_layer", false, err));
    TRY(json_get_int(&p->dim, c, where, "phm_dim", 1, 4096, false, err));
    TRY(json_get_int(&p->rank, c, where, "phm_rank", 1, 4096, false, err));
    TRY(json_get_bool(&p->shares_rule, c, where, "shared_phm_rule", false, err));
    TRY(json_get_bool(&p->factors_rule, c, where, "factorized_phm_rule", false, err));
    TRY(json_get_bool(&p->learns_rule, c, where, "learn_phm", false, err));
    TRY(json_get_bool(&p->factors_w, c, where, "factorized_phm_W", false, err));
    TRY(json_get_bool(&p->shares_w, c, where, "shared_W_phm", false, err));
    TRY(json_get_bool(&p->has_bias, c, where, "phm_bias", false, err));
    TRY(json_get_float(&p->range, c, where, "phm_init_range", 0, 1e6, false, err));
    TRY(json_get_str(&init, c, where, "phm_c_init", false, err));
    p->is_uniform = strcmp(init, "uniform") == 0;
    if (!p->is_uniform && strcmp(init, "normal") != 0)
        FAIL(err, CB_E_FORMAT, "%s: phm_c_init: found %.60s; wanted normal or uniform", where, init);
    return CB_OK;
}

/* Xavier's deviation of each of the dim matrices (rows,columns). */
static double glorot(int64_t rows, int64_t columns) { return sqrt(2 / (double)(rows + columns)); }

/* One or both factors of a tensor (dim,a,b): (dim,a,r) and (dim,r,b). path and suffix make the keys: "<path><suffix>". */
static enum cb_status factors_add(struct module *m, struct tuner_site *site, const char *path, const char *suffix, const int64_t shape[3],
                                  int64_t rank, bool factored, enum tuner_init init, const double spread[2], enum tuner_role role, int *at,
                                  struct cb_err *err) {
    const int64_t left[3] = {shape[0], shape[1], rank}, right[3] = {shape[0], rank, shape[2]};
    const char *key = arena_printf(m->arena, "%s%s%s", path, suffix, factored ? "_left" : "");
    const char *other = arena_printf(m->arena, "%s%s_right", path, suffix);
    if (!key || !other) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    TRY(adapters_add(m, site, key, 3, factored ? left : shape, init, spread[0], role, at, err));
    return factored ? adapters_add(m, site, other, 3, right, init, spread[1], role, NULL, err) : CB_OK;
}

static enum cb_status phm_declare(struct module *m, struct tuner_site *site, struct projection *p, const struct phm *phm, const char *path,
                                  const char *position, const char *base, struct cb_err *err) {
    const int64_t n = phm->dim, cube[3] = {n, n, n}, w[3] = {n, p->in / n, p->out / n};
    if (p->in % n || p->out % n)
        FAIL(err, CB_E_SHAPE, "%s: phm_dim: found %lld; wanted a divisor of %lld and %lld features", site->site.name, (long long)n,
             (long long)p->in, (long long)p->out);
    const char *shared = arena_printf(m->arena, "%sshared_parameters.%s.", base, m->label), *own = arena_printf(m->arena, "%s.", path);
    const char *word = phm->shares_w ? arena_printf(m->arena, "W_%s", position) : "W";
    if (!shared || !own || !word) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    const double xavier[2] = {glorot(w[1], phm->factors_w ? phm->rank : w[2]), glorot(phm->rank, w[2])};
    TRY(factors_add(m, site, phm->shares_w ? shared : own, word, w, phm->rank, phm->factors_w, TUNER_NORMAL, xavier, TUNER_TRAINED,
                    &p->weight, err));
    const double wide = phm->is_uniform ? 1 : phm->range, spread = phm->shares_rule ? wide : 0.01, both[2] = {spread, spread};
    TRY(factors_add(m, site, phm->shares_rule ? shared : own, "phm_rule", cube, 1, phm->factors_rule,
                    phm->is_uniform ? TUNER_UNIFORM : TUNER_NORMAL, both, phm->learns_rule ? TUNER_TRAINED : TUNER_FROZEN, &p->rule, err));
    p->bias = -1;
    if (!phm->has_bias) return CB_OK;
    const char *key = arena_printf(m->arena, "%s.b", path);
    if (!key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    return adapters_add(m, site, key, 1, &p->out, TUNER_ZEROS, 0, TUNER_TRAINED, &p->bias, err);
}

enum cb_status projection_declare(struct module *m, struct tuner_site *site, struct projection *p, const struct phm *phm, const char *path,
                                  const char *position, const char *base, enum tuner_init init, double spread, struct cb_err *err) {
    if (phm->on) return phm_declare(m, site, p, phm, path, position, base, err);
    const char *weight = arena_printf(m->arena, "%s.weight", path), *bias = arena_printf(m->arena, "%s.bias", path);
    if (!weight || !bias) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    const int64_t shape[2] = {p->out, p->in};
    TRY(adapters_add(m, site, weight, 2, shape, init, spread, TUNER_TRAINED, &p->weight, err));
    return adapters_add(m, site, bias, 1, &p->out, TUNER_ZEROS, 0, TUNER_TRAINED, &p->bias, err);
}

/* A tensor (dim,a,b) of one leaf or of two factors. */
static struct cb_tensor *factors(const struct module *m, const struct tuner_site *site, struct nn *nn, int at, bool factored) {
    struct cb_tensor *left = tuner_leaf(m, site, at, nn);
    return factored ? op_matmul(nn->g, left, tuner_leaf(m, site, at + 1, nn), false, false) : left;
}

struct cb_tensor *projection_apply(const struct module *m, const struct tuner_site *site, const struct projection *p, const struct phm *phm,
                                   struct nn *nn, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *bias = p->bias < 0 ? NULL : tuner_leaf(m, site, p->bias, nn);
    if (!phm->on) return op_linear(g, x, tuner_leaf(m, site, p->weight, nn), bias, false);
    // sum over i of kron(rule_i, W_i): rows (a,b), columns (c,d)
    struct cb_tensor *pair[2] = {factors(m, site, nn, p->rule, phm->factors_rule), factors(m, site, nn, p->weight, phm->factors_w)};
    struct cb_tensor *w = op_einsum(g, "iac,ibd->abcd", 2, pair);
    return op_linear(g, x, op_reshape(g, w, 2, (const int64_t[]){p->in, p->out}), bias, true);
}
