/* Sparse fine-tuning on a fixed mask, W' = W + a sparse matrix: the second phase of LT-SFT (Ansell et al. 2022) and of diff pruning (Guo et al. 2021). The mask
   holds the largest differences, over all weights together, of a `diff` module that was trained first; without one it is random. Sums of such modules compose
   tasks and languages. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct sft_options {
    double density;
    const char *from;  // folder of the dense module; NULL: none
    bool rewinds;  // values start from 0, not from the differences
    int64_t seed;
    uint32_t threshold;  // bits of the least size of a difference that is kept
    int64_t at_threshold;  // how many of exactly this size still are
};

/* The mask of a fresh site, in order, and its values. */
struct sft_site {
    int32_t *place;
    float *value;
};

/* The site's parameters. */
enum { SFT_INDICES, SFT_VALUES };

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct sft_options *o = (struct sft_options *)m->options;
    *o = (struct sft_options){.density = 0.05, .rewinds = true};
    TRY(json_get_float(&o->density, m->config, where, "density", 1e-9, 1, false, err));
    TRY(json_get_int(&o->seed, m->config, where, "random_seed", 0, INT64_MAX, false, err));
    TRY(json_get_bool(&o->rewinds, m->config, where, "rewind", false, err));
    return json_get_str(&o->from, m->config, where, "mask_from", false, err);
}

/* ---- the mask */
static uint32_t size_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & UINT32_C(0x7fffffff);  // sizes rise with their bits
}

/* What the dense module adds to a site: its difference, times its gates where it has them. *out: owned by caller. */
static enum cb_status difference(float **out, const struct tensors *from, const struct nn_site *site, struct cb_err *err) {
    static const char *const names[] = {"diff_weight", "diff_alpha", "diff_alpha_group"};
    const int64_t n = site->in * site->out;
    char key[512];
    float *x = malloc((size_t)n * sizeof *x), *gate = malloc((size_t)n * sizeof *gate);
    enum cb_status status = x && gate ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for its mask", site->name);
    for (int i = 0; status == CB_OK && i < 3; i++) {
        snprintf(key, sizeof key, "base_model.model.%.400s.%s", site->name, names[i]);
        const struct tensor *t = tensors_find(from, key);
        const int64_t wanted = i == 2 ? 1 : n, have = t ? type_elements(&t->type) : 0;
        if (!t && i) continue;
        if (have != wanted || !dtype_of(t->type.dtype)->is_float) {
            status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: %s: found %lld numbers; wanted %lld", tensors_name(from), key,
                             (long long)have, (long long)wanted);
            break;
        }
        tensor_read_f32(i ? gate : x, t);
        for (int64_t k = 0; i && k < n; k++) {
            const float a = gate[i == 2 ? 0 : k], z = 3 / (1 + expf(-a)) - 1.5f;
            x[k] *= fminf(fmaxf(z, 0), 1);
        }
    }
    free(gate);
    if (status != CB_OK) free(x);
    *out = status == CB_OK ? x : NULL;
    return status;
}

/* Counts sizes whose bits above 16 agree with `high` (all where it is negative) by their next 16 bits. */
static enum cb_status count_sizes(const struct module *m, const struct nn *nn, const struct tensors *from, int64_t high, int64_t *count,
                                  int64_t *total, struct cb_err *err) {
    memset(count, 0, 65536 * sizeof *count);
    *total = 0;
    for (int i = 0; i < nn->n_sites; i++) {
        bool matches;
        float *x;
        TRY(tuner_targets_match(m, nn->sites[i], &matches, err));
        if (!matches) continue;
        TRY(difference(&x, from, nn->sites[i], err));
        const int64_t n = nn->sites[i]->in * nn->sites[i]->out;
        for (int64_t k = 0; k < n; k++) {
            const uint32_t bits = size_bits(x[k]);
            if (high < 0)
                count[bits >> 16]++;
            else if (bits >> 16 == (uint32_t)high)
                count[bits & 65535]++;
        }
        *total += n;
        free(x);
    }
    return CB_OK;
}

/* The bin in which the k-th largest lies; *k becomes its number from the top of the bin. */
static int64_t bin_of(const int64_t *count, int64_t *k) {
    int64_t bin = 65535;
    while (bin > 0 && *k > count[bin]) *k -= count[bin--];
    return bin;
}

/* The size from which on differences are kept, found by its upper and then its lower bits. */
static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    struct sft_options *o = (struct sft_options *)m->options;
    if (!m->is_fresh || !o->from) return CB_OK;
    struct tensors *from = NULL;
    int64_t *count = malloc(65536 * sizeof *count), total = 0, k = 0, high = 0;
    enum cb_status status = count ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a mask", m->name);
    if (status == CB_OK) status = tensors_open_adapter(&from, o->from, err);
    if (status == CB_OK) status = count_sizes(m, nn, from, -1, count, &total, err);
    if (status == CB_OK) {
        k = (int64_t)ceil(o->density * (double)total);
        high = bin_of(count, &k);
        status = count_sizes(m, nn, from, high, count, &total, err);
    }
    if (status == CB_OK) {
        o->threshold = (uint32_t)(high << 16 | bin_of(count, &k));
        o->at_threshold = k;
    }
    tensors_destroy(&from);
    free(count);
    return status;
}

/* The mask of one site from the dense module; at least one place. */
static enum cb_status mask_read(struct module *m, const struct nn_site *site, struct sft_site *own, int64_t *n, struct cb_err *err) {
    struct sft_options *o = (struct sft_options *)m->options;
    struct tensors *from = NULL;
    float *x = NULL;
    const int64_t all = site->in * site->out;
    TRY(tensors_open_adapter(&from, o->from, err));
    enum cb_status status = difference(&x, from, site, err);
    tensors_destroy(&from);
    TRY(status);
    int64_t count = 0, best = 0, left = o->at_threshold;
    for (int64_t i = 0; i < all; i++) {
        const uint32_t bits = size_bits(x[i]);
        count += bits > o->threshold || (bits == o->threshold && left-- > 0);
        if (bits > size_bits(x[best])) best = i;
    }
    *n = count ? count : 1;
    own->place = arena_array(m->arena, (size_t)*n, sizeof *own->place);
    own->value = arena_array(m->arena, (size_t)*n, sizeof *own->value);
    if (own->place && own->value) {
        int64_t k = 0;
        for (int64_t i = 0; i < all; i++) {
            const uint32_t bits = size_bits(x[i]);
            if (count ? bits < o->threshold || (bits == o->threshold && o->at_threshold-- <= 0) : i != best) continue;
            own->place[k] = (int32_t)i;
            own->value[k++] = x[i];
        }
    }
    free(x);
    return own->place && own->value ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for its mask", site->name);
}

/* ---- parameters */
static enum cb_status places_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const struct sft_options *o = m->options;
    const struct tuner_site *site = &m->sites[p->site];
    const struct sft_site *own = site->own;
    const int64_t n = p->public.type.dim[0], all = site->site.in * site->site.out;
    int32_t *out = data;
    (void)store;
    (void)err;
    if (own->place) {
        memcpy(out, own->place, (size_t)n * sizeof *out);
        return CB_OK;
    }
    // n of all in order: each is taken with the probability that is left (Fan et al. 1962)
    struct rng rng = rng_make(o->seed ? (uint64_t)o->seed : seed, rng_hash(p->public.key));
    for (int64_t i = 0, k = 0; k < n && i < all; i++)
        if ((int64_t)rng_below(&rng, (uint64_t)(all - i)) < n - k) out[k++] = (int32_t)i;
    return CB_OK;
}

static enum cb_status values_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const struct sft_options *o = m->options;
    const struct sft_site *own = m->sites[p->site].own;
    const size_t bytes = (size_t)p->public.type.dim[0] * sizeof(float);
    (void)store;
    (void)seed;
    (void)err;
    memset(data, 0, bytes);
    if (own->value && !o->rewinds) memcpy(data, own->value, bytes);
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct sft_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out;
    struct sft_site *own = arena_alloc(m->arena, sizeof *own);
    struct tuner_param index = {.role = TUNER_FROZEN, .fill = places_fill}, value = {.fill = values_fill};
    index.public.key = tuner_key(m, site, "sft_indices", err);
    value.public.key = tuner_key(m, site, "sft_values", err);
    if (!own || !index.public.key || !value.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", site->site.name);
    site->own = own;
    if (in >= INT32_MAX / out)
        FAIL(err, CB_E_LIMIT, "%s: a weight (%lld,%lld); wanted one of less than 2^31 elements", site->site.name, (long long)out,
             (long long)in);
    const struct tensor *held = m->file ? tensors_find(m->file, index.public.key) : NULL;
    int64_t n = (int64_t)ceil(o->density * (double)(in * out));
    if (held && held->type.rank == 1) n = held->type.dim[0];
    if (m->is_fresh && o->from) TRY(mask_read(m, &site->site, own, &n, err));
    if (n < 1 || n > in * out)
        FAIL(err, CB_E_SHAPE, "%s: found %lld numbers; wanted 1 to %lld", index.public.key, (long long)n, (long long)(in * out));
    index.public.type = type_make(CB_DTYPE_I32, 1, &n);
    value.public.type = type_make(CB_DTYPE_F32, 1, &n);
    TRY(tuner_add(m, site, index, NULL, err));
    return tuner_add(m, site, value, NULL, err);
}

static enum cb_status check(const struct module *m, const struct store *store, struct cb_err *err) {
    for (int i = 0; i < m->n_sites; i++) {
        const struct tuner_site *site = &m->sites[i];
        const int index = site->param[SFT_INDICES];
        TRY(parts_check_range(m, store, index, 0, m->params[index].public.type.dim[0], site->site.in * site->site.out, err));
    }
    return CB_OK;
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    const struct cb_type type = w->type;
    const int64_t all = type_elements(&type);
    struct cb_tensor *v = op_mul(g, tuner_leaf(m, site, SFT_VALUES, nn), scale);
    w = op_index_add(g, op_reshape(g, w, 1, &all), NULL, tuner_leaf(m, site, SFT_INDICES, nn), v, 0);
    return op_reshape(g, w, type.rank, type.dim);
}

static const struct tuner_option options[] = {
    {"density", "density", TUNER_FLOAT, "share of the elements that are trained"},
    {"from", "mask_from", TUNER_STR, "folder of a diff module, of which the largest differences are the mask; none: a random one"},
    {"rewind", "rewind", TUNER_BOOL, "start from the base (LT-SFT); else from the differences (diff pruning)"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    {"seed", "random_seed", TUNER_INT, "of a random mask; else the run's"},
    {0},
};
static const char *const cases[] = {"sft:density=0.1," PARTS_QUERIES, NULL};

const struct tuner tuner_sft = {
    .name = "sft",
    .doc = "LT-SFT: trained numbers on a fixed sparse mask of the weights.",
    .peft_type = "SFT",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"density\":0.05,\"exclude_modules\":null,\"mask_from\":null,\"peft_type\":\"SFT\",\"random_seed\":0,\"rewind\":true}",
    .options_bytes = sizeof(struct sft_options),
    .fresh = TUNER_IS_BASE,
    .is_additive = true,
    .scaling = "the change",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare_shared = declare_shared,
    .declare = declare,
    .check = check,
    .weight = weight,
};
