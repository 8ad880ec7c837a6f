/* LoftQ (Li et al. 2023): the weight W becomes its quantised form Q, and A and B begin as the r largest parts of what that loses: by turns Q is made of
   W - B A, and B A of W - Q. PEFT's Q has normal floats in blocks of 64 (NF4 of Dettmers et al. 2023, and the same with 2 and 8 bits); a block type of our
   files may stand in their place. Q is not in a module's file: it is made again of W. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "base/rng.h"
#include "modules/lora.h"

enum { NF_BLOCK = 64, NF_MOST = 256 };

/* ---- configuration */
/* Since 0.20 PEFT's 8 bits are whole numbers by rows, not normal floats; a file of ours says its reading. */
enum cb_status lora_loftq_check(const struct module *m, const struct lora_options *o, struct cb_err *err) {
    const char *version = json_string_value(json_object_get(m->config, "peft_version"));
    int major = 0, minor = 0;
    if (o->loftq.bits != 8 || o->loftq.dtype != CB_DTYPE_COUNT ||
        json_object_get(json_object_get(m->config, "loftq_config"), "loftq_reading"))
        return CB_OK;
    if (!version || sscanf(version, "%d.%d", &major, &minor) != 2 || (major == 0 && minor < 20)) return CB_OK;
    FAIL(err, CB_E_UNSUPPORTED, "%s: loftq_bits: found 8 of PEFT %.40s, which quantises by rows then; wanted 2 or 4", m->name, version);
}

enum cb_status lora_loftq_parse(struct module *m, struct lora_options *o, const char *where, struct cb_err *err) {
    struct lora_loftq *q = &o->loftq;
    const json_t *c = NULL;
    const char *type = NULL, *reading = "paper";
    *q = (struct lora_loftq){.bits = 4, .iterations = 1, .dtype = CB_DTYPE_COUNT};
    TRY(json_get_object(&c, m->config, where, "loftq_config", false, err));
    if (!c) return CB_OK;
    TRY(json_get_int(&q->bits, c, where, "loftq_bits", 2, 8, false, err));
    TRY(json_get_int(&q->iterations, c, where, "loftq_iter", 1, 1000, false, err));
    TRY(json_get_str(&type, c, where, "loftq_type", false, err));
    TRY(json_get_str(&reading, c, where, "loftq_reading", false, err));
    if (q->bits != 2 && q->bits != 4 && q->bits != 8)
        FAIL(err, CB_E_FORMAT, "%s: loftq_bits: found %lld; wanted 2, 4 or 8", where, (long long)q->bits);
    if (type) q->dtype = dtype_by_name(type);
    if (type && (q->dtype == CB_DTYPE_COUNT || !dtype_of(q->dtype)->is_quantised || !dtype_of(q->dtype)->from_f32))
        FAIL(err, CB_E_FORMAT, "%s: loftq_type: found %.60s; wanted a block type that can be written: q4_0, q8_0, q4_k, ...", where, type);
    q->is_peft = strcmp(reading, "peft") == 0;
    if (!q->is_peft && strcmp(reading, "paper") != 0)
        FAIL(err, CB_E_FORMAT, "%s: loftq_reading: found %.60s; wanted paper or peft", where, reading);
    return CB_OK;
}

bool lora_loftq_wanted(const struct module *m, const struct tuner_site *site) {
    const struct lora_options *o = m->options;
    const struct nn *nn = m->nn;
    if (!o->init->is_quantised) return false;
    const bool is_stored_so = o->loftq.dtype != CB_DTYPE_COUNT && nn && nn->param_dtype && site->site.weight &&
                              nn->param_dtype(nn->dtype_user, site->site.weight) == o->loftq.dtype;
    return !is_stored_so;
}

/* ---- normal floats */
/* Where the standard normal distribution has p, from 0.5 on below it: Newton's steps, which come up to it from below. */
static double quantile(double p) {
    double x = 0;
    for (int i = 0; i < 60; i++) x += (p - 0.5 * erfc(-x * sqrt(0.5))) * sqrt(8 * atan(1)) * exp(x * x / 2);
    return x;
}

/* 2^bits values, rising: quantiles evenly apart in probability, one more above 0 than below it, the largest 1. */
static int levels(float *level, int64_t bits) {
    const double offset = 0.9677083;
    const int half = 1 << (bits - 1);
    const double most = quantile(offset);
    int n = 0;
    for (int i = 0; i < half - 1; i++) level[n++] = (float)(-quantile(offset + (0.5 - offset) * i / (half - 1)) / most);
    level[n++] = 0;
    for (int i = half; i-- > 0;) level[n++] = (float)(quantile(offset + (0.5 - offset) * i / half) / most);
    return n;
}

/* The nearest one, the lower of two. */
static float nearest(const float *level, int n, float x) {
    int low = 0, high = n - 1;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        *(level[middle] <= x ? &low : &high) = middle;
    }
    return fabsf(x - level[low]) <= fabsf(x - level[high]) ? level[low] : level[high];
}

static void normal_floats(float *w, int64_t n, int64_t bits) {
    float level[NF_MOST];
    const int n_levels = levels(level, bits);
    for (int64_t begin = 0; begin < n; begin += NF_BLOCK) {
        const int64_t end = begin + NF_BLOCK < n ? begin + NF_BLOCK : n;
        float most = 0;
        for (int64_t i = begin; i < end; i++) most = fmaxf(most, fabsf(w[i]));
        for (int64_t i = begin; i < end; i++) w[i] = most > 0 ? most * nearest(level, n_levels, w[i] / most) : 0;
    }
}

/* w (out,in) as it comes back from its quantised form. */
static enum cb_status quantise(float *w, const struct lora_weight *b, const struct lora_loftq *q, const char *name, struct cb_err *err) {
    const int64_t n = b->in * b->out;
    if (q->dtype == CB_DTYPE_COUNT) {
        normal_floats(w, n, q->bits);
        return CB_OK;
    }
    const struct dtype *type = dtype_of(q->dtype);
    if (b->in % type->block)
        FAIL(err, CB_E_SHAPE, "%s: rows of %lld values; wanted blocks of %d, as loftq_type %s has them", name, (long long)b->in,
             type->block, type->name);
    void *packed = malloc((size_t)(n / type->block * type->block_bytes) + 1);
    if (!packed) FAIL(err, CB_E_MEMORY, "%s: no memory to quantise it", name);
    type->from_f32(packed, w, n);
    type->to_f32(w, packed, n);
    free(packed);
    return CB_OK;
}

/* ---- by turns */
/* Room for the first r values of a matrix (out,in). */
struct parts {
    double *rest, *u, *s, *vt;  // (out,in), (out,r), (r), (r,in)
};

static enum cb_status parts_open(struct parts *p, const struct lora_weight *b, struct cb_err *err) {
    p->rest = lora_matrix(b->out, b->in, err);
    p->u = lora_matrix(b->out, b->r, err);
    p->s = lora_matrix(b->r, 1, err);
    p->vt = lora_matrix(b->r, b->in, err);
    return p->rest && p->u && p->s && p->vt ? CB_OK : err->code;
}

static void parts_close(struct parts *p) { free(p->rest), free(p->u), free(p->s), free(p->vt); }

/* q: the weight, then Q. */
static enum cb_status alternate(float *q, const struct lora_weight *b, struct parts *p, const struct lora_loftq *o, const char *name,
                                struct cb_err *err) {
    const int64_t n = b->in * b->out;
    for (int64_t turn = 0;; turn++) {
        TRY(quantise(q, b, o, name, err));
        if (turn + 1 == o->iterations) return CB_OK;
        for (int64_t i = 0; i < n; i++) p->rest[i] = b->w[i] - (double)q[i];
        TRY(lapack_svd_first(p->rest, b->out, b->in, b->r, p->u, p->s, p->vt, name, err));
        for (int64_t i = 0; i < n; i++) {
            double kept = 0;
            for (int64_t k = 0; k < b->r; k++) kept += p->u[i / b->in * b->r + k] * p->s[k] * p->vt[k * b->in + i % b->in];
            q[i] = (float)(b->w[i] - kept);
        }
    }
}

enum cb_status lora_fill_shift(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                               struct cb_err *err) {
    const struct lora_options *o = m->options;
    struct lora_weight b;
    struct parts p = {0};
    float *q = data;
    (void)seed;
    TRY(lora_weight_open(&b, m, param, store, err));
    for (int64_t i = 0; i < b.in * b.out; i++) q[i] = (float)b.w[i];
    enum cb_status status = parts_open(&p, &b, err);
    if (status == CB_OK) status = alternate(q, &b, &p, &o->loftq, m->sites[param->site].site.name, err);
    for (int64_t i = 0; i < b.in * b.out; i++) q[i] = (float)((double)q[i] - b.w[i]);
    parts_close(&p);
    free(b.w);
    return status;
}

/* ---- A = sqrt(S) V^T, B = U sqrt(S) of what is lost; the paper's product is B A, so the factor alpha / r is taken out, which PEFT leaves in */
static double factor_of(const struct module *m, const struct tuner_site *site) {
    return ((const struct lora_options *)m->options)->loftq.is_peft ? 1 : site->scale;
}

enum cb_status lora_loftq_a(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    const float *shift = lora_values(m, site->param[((const struct lora_site *)site->own)->shift], store);
    const double factor = factor_of(m, site);
    struct lora_weight b;
    struct parts p = {0};
    float *a = data;
    if (!(factor > 0)) FAIL(err, CB_E_FORMAT, "%s: lora_alpha: found a scale of %g; wanted one above 0", m->name, factor);
    TRY(lora_weight_open(&b, m, param, store, err));
    enum cb_status status = parts_open(&p, &b, err);
    for (int64_t i = 0; status == CB_OK && i < b.in * b.out; i++) p.rest[i] = -(double)shift[i];
    if (status == CB_OK) status = lapack_svd_first(p.rest, b.out, b.in, b.r, p.u, p.s, p.vt, site->site.name, err);
    for (int64_t i = 0; status == CB_OK && i < b.r * b.in; i++) a[i] = (float)(sqrt(p.s[i / b.in] / factor) * p.vt[i]);
    // where nothing is lost it begins as LoRA does: from zeros it would not learn
    struct rng rng = rng_make(seed, rng_hash(param->public.key));
    for (int64_t i = 0; status == CB_OK && !(p.s[0] > 0) && i < b.r * b.in; i++)
        a[i] = (float)((2 * rng_f64(&rng) - 1) / sqrt((double)b.in));
    parts_close(&p);
    free(b.w);
    return status;
}

/* From A: (W - Q) a_i / (s |a_i|^2) is u_i sqrt(S_i / s). */
enum cb_status lora_loftq_b(const struct module *m, const struct tuner_param *param, struct store *store, uint64_t seed, void *data,
                            struct cb_err *err) {
    const struct tuner_site *site = &m->sites[param->site];
    const float *a = lora_values(m, site->param[0], store);
    const float *shift = lora_values(m, site->param[((const struct lora_site *)site->own)->shift], store);
    const int64_t r = site->rank, in = site->site.in, out = site->site.out;
    (void)seed, (void)err;
    for (int64_t i = 0; i < r; i++) {
        double square = 0;
        for (int64_t k = 0; k < in; k++) square += (double)a[i * in + k] * (double)a[i * in + k];
        for (int64_t j = 0; j < out; j++) {
            double dot = 0;
            for (int64_t k = 0; k < in; k++) dot -= (double)shift[j * in + k] * (double)a[i * in + k];
            ((float *)data)[j * r + i] = (float)(square > 0 ? dot / (factor_of(m, site) * square) : 0);
        }
    }
    return CB_OK;
}
