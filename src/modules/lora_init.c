/* LoRA's initialisations that are more than draws: PiSSA (Meng et al. 2024) and OLoRA (Buyukakyuz 2024), which move a part of the weight into A and B,
   orthogonal, MiCA, and DoRA's magnitudes; and the way back from a part that was moved to plain LoRA. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "base/rng.h"
#include "modules/lora.h"

/* ---- matrices in f64, row-major */
double *lora_matrix(int64_t rows, int64_t columns, struct cb_err *err) {
    double *out = calloc((size_t)(rows * columns) + 1, sizeof *out);
    if (!out) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "no memory for a matrix of %lld x %lld", (long long)rows, (long long)columns);
    return out;
}

void lora_product(double *c, const double *a, const double *b, int64_t m, int64_t k, int64_t n, bool turned) {
    memset(c, 0, (size_t)(m * n) * sizeof *c);
    for (int64_t p = 0; p < k; p++)
        for (int64_t i = 0; i < m; i++) {
            const double x = turned ? a[p * m + i] : a[i * k + p];
            for (int64_t j = 0; j < n; j++) c[i * n + j] += x * b[p * n + j];
        }
}

/* The first r columns of Q of a = Q R, in LAPACK's signs; a (m,n), r at most m and n. */
static enum cb_status orthonormal(double *q, const double *a, int64_t m, int64_t n, int64_t r, const char *name, struct cb_err *err) {
    for (int64_t i = 0; i < m * r; i++) q[i] = a[i / r * n + i % r];
    return lapack_orthonormal(q, NULL, m, r, name, err);
}

/* ---- the weight */
enum cb_status lora_weight_open(struct lora_weight *b, const struct module *m, const struct tuner_param *param, const struct store *store,
                                struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    float *plain;
    *b = (struct lora_weight){.in = site->site.in, .out = site->site.out, .r = site->rank};
    if (b->r > b->in || b->r > b->out)
        FAIL(err, CB_E_SHAPE, "%s: rank %lld of a weight of %lld x %lld; wanted one that its decomposition has", site->site.name,
             (long long)b->r, (long long)b->out, (long long)b->in);
    TRY(tuner_base_weight(&plain, site, store, err));
    b->w = lora_matrix(b->out, b->in, err);
    for (int64_t i = 0; b->w && i < b->in * b->out; i++) b->w[i] = (double)plain[i];
    free(plain);
    return b->w ? CB_OK : err->code;
}

const float *lora_values(const struct module *m, int number, const struct store *store) {
    const struct store_entry *entry = store_find(store, m->params[number].public.name);
    return entry ? entry->data : NULL;
}

/* ---- PiSSA: A = sqrt(S/s) V^T, B = U sqrt(S/s), the r largest */
/* Halko et al. 2011, as torch.svd_lowrank: a basis of the range by powers of a drawn matrix. u (out,r), s (r), vt (r,in). */
static enum cb_status svd_drawn(struct lora_weight *b, int iterations, uint64_t seed, uint64_t stream, double *u, double *s, double *vt,
                                const char *name, struct cb_err *err) {
    double *y = lora_matrix(b->out, b->r, err), *z = lora_matrix(b->in, b->r, err), *q = lora_matrix(b->out, b->r, err);
    double *p = lora_matrix(b->in, b->r, err), *low = lora_matrix(b->r, b->in, err);
    enum cb_status status = y && z && q && p && low ? CB_OK : err->code;
    struct rng rng = rng_make(seed, stream);
    for (int64_t i = 0; status == CB_OK && i < b->in * b->r; i++) p[i] = rng_normal(&rng);
    for (int k = 0; status == CB_OK && k <= iterations; k++) {
        lora_product(y, b->w, p, b->out, b->in, b->r, false);
        status = orthonormal(q, y, b->out, b->r, b->r, name, err);
        if (status != CB_OK || k == iterations) break;
        lora_product(z, b->w, q, b->in, b->out, b->r, true);
        status = orthonormal(p, z, b->in, b->r, b->r, name, err);
    }
    if (status == CB_OK) {
        lora_product(low, q, b->w, b->r, b->out, b->in, true);
        status = lapack_svd_product(q, low, b->out, b->r, b->in, u, s, vt, name, err);
    }
    free(y), free(z), free(q), free(p), free(low);
    return status;
}

static enum cb_status pissa_a(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                              struct cb_err *err) {
    const struct lora_options *o = m->options;
    const struct tuner_site *site = &m->sites[param->site];
    struct lora_weight b;
    if (!(site->scale > 0)) FAIL(err, CB_E_FORMAT, "%s: lora_alpha: found %g; wanted one above 0", m->name, o->alpha);
    TRY(lora_weight_open(&b, m, param, store, err));
    double *u = lora_matrix(b.out, b.r, err), *s = lora_matrix(b.r, 1, err), *vt = lora_matrix(b.r, b.in, err);
    enum cb_status status = u && s && vt ? CB_OK : err->code;
    if (status == CB_OK)
        status = o->iterations ? svd_drawn(&b, o->iterations, seed, rng_hash(param->public.key), u, s, vt, site->site.name, err)
                               : lapack_svd_first(b.w, b.out, b.in, b.r, u, s, vt, site->site.name, err);
    for (int64_t i = 0; status == CB_OK && i < b.r * b.in; i++) ((float *)data)[i] = (float)(sqrt(s[i / b.in] / site->scale) * vt[i]);
    free(u), free(s), free(vt), free(b.w);
    return status;
}

/* From A: W a_i / (s |a_i|^2) is u_i sqrt(S_i / s). */
static enum cb_status pissa_b(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                              struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    const struct lora_site *own = site->own;
    const float *a = lora_values(m, site->param[m->is_fresh ? 0 : own->a0], store);
    struct lora_weight b;
    (void)seed;
    TRY(lora_weight_open(&b, m, param, store, err));
    for (int64_t i = 0; a && i < b.r; i++) {
        double square = 0;
        for (int64_t k = 0; k < b.in; k++) square += (double)a[i * b.in + k] * (double)a[i * b.in + k];
        for (int64_t j = 0; j < b.out; j++) {
            double dot = 0;
            for (int64_t k = 0; k < b.in; k++) dot += b.w[j * b.in + k] * (double)a[i * b.in + k];
            ((float *)data)[j * b.r + i] = (float)(square > 0 ? dot / (site->scale * square) : 0);
        }
    }
    free(b.w);
    return CB_OK;
}

/* ---- OLoRA: B = Q, A = R of W = Q R, the first r */
static enum cb_status olora_q(double **q, struct lora_weight *b, const struct module *m, const struct tuner_param *param,
                              const struct store *store, struct cb_err *err) {
    TRY(lora_weight_open(b, m, param, store, err));
    *q = lora_matrix(b->out, b->r, err);
    enum cb_status status = *q ? orthonormal(*q, b->w, b->out, b->in, b->r, m->name, err) : err->code;
    if (status != CB_OK) free(*q), free(b->w);
    return status;
}

static enum cb_status olora_a(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                              struct cb_err *err) {
    struct lora_weight b;
    double *q, *r;
    (void)seed;
    TRY(olora_q(&q, &b, m, param, store, err));
    r = lora_matrix(b.r, b.in, err);
    if (r) lora_product(r, q, b.w, b.r, b.out, b.in, true);
    for (int64_t i = 0; r && i < b.r * b.in; i++) ((float *)data)[i] = (float)r[i];
    const bool ok = r != NULL;
    free(q), free(r), free(b.w);
    return ok ? CB_OK : err->code;
}

static enum cb_status olora_b(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                              struct cb_err *err) {
    struct lora_weight b;
    double *q;
    (void)seed;
    TRY(olora_q(&q, &b, m, param, store, err));
    for (int64_t i = 0; i < b.out * b.r; i++) ((float *)data)[i] = (float)q[i];
    free(q), free(b.w);
    return CB_OK;
}

/* ---- orthogonal: A and B are drawn in the spans of a drawn rotation's odd and even rows, so that B A is 0 */
static enum cb_status orthogonal(const struct module *m, const struct tuner_param *param, uint64_t seed, int first, int64_t n, bool turned,
                                 float *data, struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    const int64_t r = site->rank, half = r / 2;
    if (r % 2) FAIL(err, CB_E_FORMAT, "%s: r: found %lld; wanted an even one for an orthogonal start", m->name, (long long)r);
    struct rng rng = rng_make(seed, rng_hash(site->site.name));
    double *x = lora_matrix(r, r, err), *q = lora_matrix(r, r, err);
    for (int64_t i = 0; x && i < r * r; i++) x[i] = rng_normal(&rng);
    enum cb_status status = x && q ? orthonormal(q, x, r, r, r, m->name, err) : err->code;
    rng = rng_make(seed, rng_hash(param->public.key));
    for (int64_t i = 0; status == CB_OK && i < n; i++) {
        for (int64_t j = 0; j < r; j++) x[j] = 0;
        for (int64_t h = 0; h < half; h++) {
            const double g = rng_normal(&rng) / 10;
            for (int64_t j = 0; j < r; j++) x[j] += g * q[(2 * h + first) * r + j];
        }
        for (int64_t j = 0; j < r; j++) data[turned ? j * n + i : i * r + j] = (float)x[j];
    }
    free(x), free(q);
    return status;
}

static enum cb_status orthogonal_a(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                   struct cb_err *err) {
    (void)store;
    return orthogonal(m, param, seed, 0, m->sites[param->site].site.in, true, data, err);
}

static enum cb_status orthogonal_b(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                   struct cb_err *err) {
    (void)store;
    return orthogonal(m, param, seed, 1, m->sites[param->site].site.out, false, data, err);
}

/* ---- gaussian A has deviation 1 / r; MiCA: A = 0, B the last r left singular vectors, never trained */
static enum cb_status gaussian_a(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                 struct cb_err *err) {
    struct rng rng = rng_make(seed, rng_hash(param->public.key));
    (void)store, (void)err;
    for (int64_t i = 0; i < type_elements(&param->public.type); i++)
        ((float *)data)[i] = (float)(rng_normal(&rng) / (double)m->sites[param->site].rank);
    return CB_OK;
}

static enum cb_status zeros(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err) {
    (void)m, (void)store, (void)seed, (void)err;
    memset(data, 0, (size_t)type_elements(&param->public.type) * sizeof(float));
    return CB_OK;
}

static enum cb_status mica_b(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                             struct cb_err *err) {
    struct lora_weight b;
    (void)seed;
    TRY(lora_weight_open(&b, m, param, store, err));
    const int64_t k = b.in < b.out ? b.in : b.out;
    double *u = lora_matrix(b.out, k, err), *s = lora_matrix(k, 1, err), *vt = lora_matrix(k, b.in, err);
    enum cb_status status = u && s && vt ? CB_OK : err->code;
    if (status == CB_OK) status = lapack_svd(b.w, b.out, b.in, u, s, vt, m->name, err);
    for (int64_t i = 0; status == CB_OK && i < b.out * b.r; i++) ((float *)data)[i] = (float)u[i / b.r * k + k - b.r + i % b.r];
    free(u), free(s), free(vt), free(b.w);
    return status;
}

static const struct lora_init inits[] = {
    {.name = "default", .fresh = TUNER_IS_BASE},
    {.name = "gaussian", .fresh = TUNER_IS_BASE, .a = gaussian_a},
    {.name = "orthogonal", .fresh = TUNER_NEAR_BASE, .a = orthogonal_a, .b = orthogonal_b},
    {.name = "pissa", .fresh = TUNER_NEAR_BASE, .is_residual = true, .a = pissa_a, .b = pissa_b},
    {.name = "pissa_niter_*", .fresh = TUNER_NEAR_BASE, .is_residual = true, .a = pissa_a, .b = pissa_b},
    {.name = "olora", .fresh = TUNER_NEAR_BASE, .is_residual = true, .a = olora_a, .b = olora_b},
    {.name = "mica", .fresh = TUNER_IS_BASE, .keeps_b = true, .a = zeros, .b = mica_b},
    {.name = "eva", .fresh = TUNER_IS_BASE, .of_inputs = true},
    {.name = "corda", .fresh = TUNER_NEAR_BASE, .is_residual = true, .of_moments = true},
    {.name = "loftq", .fresh = TUNER_NOT_BASE, .is_quantised = true, .a = lora_loftq_a, .b = lora_loftq_b},
};

const struct lora_init *lora_init_find(const char *word, int *number) {
    *number = 0;
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++) {
        const size_t n = strcspn(inits[i].name, "*");
        if (!inits[i].name[n] && strcmp(inits[i].name, word) == 0) return &inits[i];
        if (!inits[i].name[n] || strncmp(inits[i].name, word, n) != 0) continue;
        char *end;
        long found = strtol(word + n, &end, 10);
        if (end == word + n || *end || found < 1 || found > 1000) continue;
        *number = (int)found;
        return &inits[i];
    }
    return NULL;
}

const char *lora_init_names(char text[300]) {
    size_t used = 0;
    for (size_t i = 0; i < sizeof inits / sizeof *inits; i++)
        used += (size_t)snprintf(text + used, 300 - used, "%s%s", i ? ", " : "", inits[i].name);
    return text;
}

/* ---- the part that was moved */
static enum cb_status fill_start(const struct module *m, const struct tuner_param *param, int which, tuner_fill *fill, struct store *store,
                                 uint64_t seed, void *data, struct cb_err *err) {
    const struct lora_options *o = m->options;
    const struct tuner_site *site = &m->sites[param->site];
    const float *made = lora_values(m, site->param[which], store);
    if (m->is_fresh && made) {
        memcpy(data, made, (size_t)type_elements(&param->public.type) * sizeof(float));
        return CB_OK;
    }
    if (o->iterations || o->init->of_moments)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: init_lora_weights: found %s: its start was %s and is not in the file; wanted the module as plain LoRA", m->name,
             o->init->name, o->iterations ? "drawn" : "made of data");
    return fill(m, param, store, seed, data, err);
}

enum cb_status lora_fill_a0(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err) {
    return fill_start(m, param, 0, ((const struct lora_options *)m->options)->init->a, store, seed, data, err);
}

enum cb_status lora_fill_b0(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err) {
    return fill_start(m, param, 1, ((const struct lora_options *)m->options)->init->b, store, seed, data, err);
}

/* What a quantised start makes of a weight: Q + s B A. Another start leaves it as it is. */
static void add_quantised(float *w, const struct module *m, const struct tuner_site *site, const struct store *store) {
    const struct lora_site *own = site->own;
    const int64_t in = site->site.in, r = site->rank;
    if (own->shift < 0) return;
    const float *shift = lora_values(m, site->param[own->shift], store);
    const float *a = lora_values(m, site->param[0], store), *b = lora_values(m, site->param[1], store);
    for (int64_t i = 0; shift && a && b && i < site->site.out * in; i++) {
        double sum = (double)w[i] + (double)shift[i];
        for (int64_t k = 0; k < r; k++) sum += site->scale * (double)b[i / in * r + k] * (double)a[k * in + i % in];
        w[i] = (float)sum;
    }
}

enum cb_status lora_fill_magnitude(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                                   struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    const bool is_table = site->site.kind == NN_EMBEDDING;
    const int64_t n = site->site.out, summed = site->site.in;
    float *w;
    (void)seed;
    TRY(tuner_base_weight(&w, site, store, err));
    add_quantised(w, m, site, store);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t k = 0; k < summed; k++) {
            const double x = (double)w[is_table ? k * n + i : i * summed + k];
            sum += x * x;
        }
        ((float *)data)[i] = (float)sqrt(sum);
    }
    free(w);
    return CB_OK;
}

/* ---- as plain LoRA of twice the rank */
/* Numbers of an object of patterns, times factor. */
static bool numbers_scale(json_t *object, double factor, bool whole) {
    const char *key;
    json_t *value;
    bool ok = true;
    void *at;
    if (json_is_object(object)) json_object_foreach_safe(object, at, key, value) {
            const double number = json_number_value(value) * factor;
            ok &= json_object_set_new(object, key,
                                      whole || number == floor(number) ? json_integer((json_int_t)number) : json_real(number)) == 0;
        }
    return ok;
}

static enum cb_status config_convert(json_t **out, const struct module *m, struct cb_err *err) {
    const struct lora_options *o = m->options;
    const double factor = o->rslora ? sqrt(2) : 2;
    json_t *config = json_deep_copy(m->config);
    json_t *own = json_pack("{s:I,s:f}", "r", (json_int_t)o->r, "lora_alpha", o->alpha), *r = own ? json_object() : NULL;
    bool ok = config && own && r && json_object_set(r, "r", json_object_get(own, "r")) == 0 && json_object_del(own, "r") == 0;
    ok = ok && numbers_scale(r, 2, true) && numbers_scale(own, factor, false) && json_object_update(config, r) == 0;
    ok = ok && json_object_update(config, own) == 0 && json_object_set_new(config, "init_lora_weights", json_true()) == 0;
    ok = ok && json_object_set_new(config, "corda_config", json_null()) == 0;
    ok = ok && numbers_scale(json_object_get(config, "rank_pattern"), 2, true);
    ok = ok && numbers_scale(json_object_get(config, "alpha_pattern"), factor, false);
    json_decref(own);
    json_decref(r);
    if (!ok) {
        json_decref(config);
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    }
    *out = config;
    return CB_OK;
}

/* Two matrices as one, under each other, or side by side with the second one negated. */
static enum cb_status joined(const struct module *m, const struct store *store, int first, int second, bool beside, struct store *tensors,
                             struct cb_err *err) {
    const struct module_param *p = &m->params[first].public;
    const float *a = lora_values(m, first, store), *b = lora_values(m, second, store);
    struct cb_type type = p->type;
    struct store_entry *entry;
    if (!a || !b) FAIL(err, CB_E_NAME, "%s: not in the store", p->name);
    const int64_t rows = type.dim[0], columns = type.dim[1];
    type.dim[beside ? 1 : 0] *= 2;
    TRY(store_add(tensors, p->key, type, &entry, err));
    for (int64_t i = 0; i < rows * columns; i++) {
        float *to = entry->data;
        to[beside ? i / columns * 2 * columns + i % columns : i] = a[i];
        to[beside ? i / columns * 2 * columns + columns + i % columns : rows * columns + i] = beside ? -b[i] : b[i];
    }
    return CB_OK;
}

enum cb_status lora_convert(const struct module *m, const struct store *store, json_t **config, struct store *tensors, struct cb_err *err) {
    const struct lora_options *o = m->options;
    // PEFT takes lora_bias with its own start alone, and how this one began no longer matters
    const bool renames = m->is_fresh && o->bias && !o->init->is_residual && (o->init->a || o->init->of_inputs);
    *config = NULL;
    if (!o->init->is_residual && !renames) return CB_OK;
    for (int i = 0; i < m->n_params; i++) {
        const struct tuner_param *p = &m->params[i];
        const struct tuner_site *site = p->site >= 0 ? &m->sites[p->site] : NULL;
        const struct lora_site *own = site ? site->own : NULL;
        struct store_entry *entry;
        if (!p->public.is_stored) continue;
        if (own && own->a0 >= 0 && (i == site->param[0] || i == site->param[1])) {
            TRY(joined(m, store, i, site->param[own->a0 + (i == site->param[1])], i == site->param[1], tensors, err));
            continue;
        }
        TRY(store_add(tensors, p->public.key, p->public.type, &entry, err));
        memcpy(entry->data, store_find(store, p->public.name)->data, (size_t)entry->bytes);
    }
    if (!renames) return config_convert(config, m, err);
    *config = json_deep_copy(m->config);
    if (!*config || json_object_set_new(*config, "init_lora_weights", json_true()) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    return CB_OK;
}
