/* SHiRA (Bhardwaj et al. 2024): W' = W + a sparse matrix, r (in + out) trained numbers at fixed random places. */
#include <stdlib.h>

#include "base/rng.h"
#include "base/torch_rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct shira_options {
    int64_t r, seed;
    bool is_zero, has_seed;
};

/* The site's parameters. */
enum { SHIRA_WEIGHT, SHIRA_INDICES };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct shira_options *o = (struct shira_options *)m->options;
    *o = (struct shira_options){.r = 32, .is_zero = true};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->seed, m->config, where, "random_seed", 0, INT64_MAX, false, err));
    o->has_seed = json_is_integer(json_object_get(m->config, "random_seed"));
    return json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err);
}

static int compare_places(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Rows, then columns of the first places of a permutation, in the order of the weight. */
static enum cb_status places_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const struct shira_options *o = m->options;
    const struct nn_site *site = &m->sites[p->site].site;
    const int64_t n = p->public.type.dim[1], places = site->in * site->out;
    int32_t *place = malloc((size_t)places * sizeof *place), *out = data;
    (void)store;
    if (!place) FAIL(err, CB_E_MEMORY, "%s: no memory for its places", site->name);
    struct torch_rng rng = torch_rng_make(o->has_seed ? (uint64_t)o->seed : seed ^ rng_hash(p->public.key));
    torch_rng_permutation(&rng, place, places, n);
    qsort(place, (size_t)n, sizeof *place, compare_places);
    for (int64_t i = 0; i < n; i++) {
        out[i] = place[i] / (int32_t)site->in;
        out[n + i] = place[i] % (int32_t)site->in;
    }
    free(place);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct shira_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out, n = o->r * (in + out);
    if (in >= INT32_MAX / out || n > in * out)
        FAIL(err, CB_E_SHAPE, "%s: %lld numbers in a weight (%lld,%lld); wanted no more than it has, and these below 2^31", site->site.name,
             (long long)n, (long long)out, (long long)in);
    TRY(tuner_add_param(m, site, "shira_weight", 1, &n, o->is_zero ? TUNER_ZEROS : TUNER_NORMAL, 1, err));
    struct tuner_param places = {.role = TUNER_FROZEN, .fill = places_fill};
    places.public.key = tuner_key(m, site, "shira_indices", err);
    places.public.type = type_make(CB_DTYPE_I32, 2, (int64_t[]){2, n});
    if (!places.public.key) return err->code;
    return tuner_add(m, site, places, NULL, err);
}

static enum cb_status check(const struct module *m, const struct store *store, struct cb_err *err) {
    for (int i = 0; i < m->n_sites; i++) {
        const struct tuner_site *site = &m->sites[i];
        const int places = site->param[SHIRA_INDICES];
        const int64_t n = m->params[places].public.type.dim[1];
        TRY(parts_check_range(m, store, places, 0, n, site->site.out, err));
        TRY(parts_check_range(m, store, places, n, 2 * n, site->site.in, err));
    }
    return CB_OK;
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    const struct cb_type type = w->type;
    const int32_t in = (int32_t)site->site.in;
    const int64_t n = m->params[site->param[SHIRA_INDICES]].public.type.dim[1], all = type_elements(&type);
    struct cb_tensor *places = tuner_leaf(m, site, SHIRA_INDICES, nn), *v = op_mul(g, tuner_leaf(m, site, SHIRA_WEIGHT, nn), scale);
    struct cb_tensor *rows = op_reshape(g, op_slice(g, places, 0, 0, 1, 1), 1, &n);
    struct cb_tensor *columns = op_reshape(g, op_slice(g, places, 0, 1, 2, 1), 1, &n);
    rows = op_mul(g, rows, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &in));
    w = op_index_add(g, op_reshape(g, w, 1, &all), NULL, op_add(g, rows, columns), v, 0);
    return op_reshape(g, w, type.rank, type.dim);
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "r (in + out) numbers of each weight are trained"},
    PARTS_TARGETS,
    {"seed", "random_seed", TUNER_INT, "of the places; else the run's"},
    {0},
};
static const char *const cases[] = {"shira:r=1," PARTS_QUERIES, NULL};

const struct tuner tuner_shira = {
    .name = "shira",
    .doc = "SHiRA: W' = W + trained numbers at fixed random places.",
    .peft_type = "SHIRA",
    .options = options,
    .defaults =
        "{" PARTS_JSON
        ",\"fan_in_fan_out\":false,\"init_weights\":true,\"mask_type\":\"random\",\"peft_type\":\"SHIRA\",\"r\":32,\"random_seed\":null}",
    .options_bytes = sizeof(struct shira_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "the change",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .check = check,
    .weight = weight,
};
