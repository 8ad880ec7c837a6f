/* FourierFT (Gao et al. 2024): W' = W + c Re(IDFT2(F)), a two-dimensional spectrum F that is 0 but at n fixed random frequencies, whose values are trained. */
#include <math.h>
#include <stdlib.h>

#include "base/torch_rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct fourierft_options {
    int64_t n, seed;
    double scaling;
    bool is_zero;
    struct tuner_numbers counts;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct fourierft_options *o = (struct fourierft_options *)m->options;
    *o = (struct fourierft_options){.n = 1000, .seed = 777, .scaling = 150};
    TRY(json_get_int(&o->n, m->config, where, "n_frequency", 1, INT32_MAX, false, err));
    TRY(json_get_int(&o->seed, m->config, where, "random_loc_seed", 0, INT64_MAX, false, err));
    TRY(json_get_float(&o->scaling, m->config, where, "scaling", -1e9, 1e9, false, err));
    TRY(json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err));
    return tuner_numbers_parse(m, &o->counts, where, "n_frequency_pattern", 1, INT32_MAX, true, err);
}

/* Cosines and sines of the site's frequencies over one of its axes, (2n, width): with angles a of the rows and b of the columns,
   cos(a + b) = cos a cos b - sin a sin b. The frequencies are the first n places of a permutation drawn from the seed. */
static enum cb_status waves_fill(const struct module *m, const struct tuner_param *p, int64_t width, bool is_rows, float *out,
                                 struct cb_err *err) {
    const struct fourierft_options *o = m->options;
    const struct nn_site *site = &m->sites[p->site].site;
    const int64_t n = p->public.type.dim[0] / 2, places = site->in * site->out;
    int32_t *place = malloc((size_t)places * sizeof *place);
    double *table = malloc((size_t)width * 2 * sizeof *table);
    if (!place || !table) {
        free(place);
        free(table);
        FAIL(err, CB_E_MEMORY, "%s: no memory for its frequencies", site->name);
    }
    struct torch_rng rng = torch_rng_make((uint64_t)o->seed);
    torch_rng_permutation(&rng, place, places, n);
    for (int64_t i = 0; i < width; i++) {
        const double angle = 6.283185307179586476925286766559 * (double)i / (double)width;
        table[2 * i] = cos(angle);
        table[2 * i + 1] = is_rows ? sin(angle) : -sin(angle);
    }
    for (int64_t k = 0; k < n; k++) {
        const int64_t frequency = is_rows ? place[k] / site->in : place[k] % site->in;
        for (int64_t i = 0; i < width; i++) {
            out[k * width + i] = (float)table[2 * (frequency * i % width)];
            out[(n + k) * width + i] = (float)table[2 * (frequency * i % width) + 1];
        }
    }
    free(place);
    free(table);
    return CB_OK;
}
static enum cb_status rows_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                struct cb_err *err) {
    (void)store;
    (void)seed;
    return waves_fill(m, p, m->sites[p->site].site.out, true, data, err);
}
static enum cb_status columns_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                   struct cb_err *err) {
    (void)store;
    (void)seed;
    return waves_fill(m, p, m->sites[p->site].site.in, false, data, err);
}

/* The spectrum; the waves are shared by sites of one shape. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct fourierft_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out;
    double count = (double)o->n;
    TRY(tuner_number(&count, &o->counts, site->site.name, err));
    const int64_t n = (int64_t)count;
    if (in >= INT32_MAX / out || n > in * out)
        FAIL(err, CB_E_SHAPE,
             "%s: %lld frequencies of a weight (%lld,%lld); wanted one or more, no more than its elements, and these below 2^31",
             site->site.name, (long long)n, (long long)out, (long long)in);
    site->scale = o->scaling / ((double)in * (double)out);
    TRY(tuner_add_param(m, site, "fourierft_spectrum", 1, &n, o->is_zero ? TUNER_ZEROS : TUNER_NORMAL, 1, err));
    struct tuner_param waves = {.role = TUNER_DERIVED, .fill = rows_fill};
    waves.public.key = arena_printf(m->arena, "fourierft_rows.%lld.%lld.%lld", (long long)out, (long long)in, (long long)n);
    waves.public.type = type_make(CB_DTYPE_F32, 2, (int64_t[]){2 * n, out});
    TRY(tuner_add(m, site, waves, NULL, err));
    waves.fill = columns_fill;
    waves.public.key = arena_printf(m->arena, "fourierft_columns.%lld.%lld.%lld", (long long)out, (long long)in, (long long)n);
    waves.public.type = type_make(CB_DTYPE_F32, 2, (int64_t[]){2 * n, in});
    return tuner_add(m, site, waves, NULL, err);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *f = op_mul(g, op_scale(g, tuner_leaf(m, site, 0, nn), site->scale, 0), scale);
    f = op_reshape(g, op_concat(g, 2, (struct cb_tensor *[]){f, f}, 0), 2, (int64_t[]){-1, 1});
    struct cb_tensor *columns = op_mul(g, tuner_leaf(m, site, 2, nn), f);
    return op_add(g, w, op_matmul(g, tuner_leaf(m, site, 1, nn), columns, true, false));
}

static const struct tuner_option options[] = {
    {"n", "n_frequency", TUNER_INT, "number of frequencies of a site"},
    {"scaling", "scaling", TUNER_FLOAT, "factor of the change"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    PARTS_BIAS("fourier"),
    {"seed", "random_loc_seed", TUNER_INT, "of the frequencies"},
    {"zero", "init_weights", TUNER_BOOL, "the fresh module is the base; else its spectrum is normal"},
    {0},
};
static const char *const cases[] = {"fourierft:n=7,scaling=15", NULL};

const struct tuner tuner_fourierft = {
    .name = "fourierft",
    .doc = "FourierFT: W' = W + a few trained coefficients of its two-dimensional Fourier transform.",
    .peft_type = "FOURIERFT",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"bias\":\"none\",\"exclude_modules\":null,\"fan_in_fan_out\":false,\"init_weights\":false,\"n_frequency\":1000,"
                "\"n_frequency_pattern\":{},\"peft_type\":\"FOURIERFT\",\"random_loc_seed\":777,\"scaling\":150.0}",
    .options_bytes = sizeof(struct fourierft_options),
    .fresh = TUNER_NOT_BASE,
    .is_additive = true,
    .scaling = "the change, beside scaling",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .weight = weight,
};
