/* CorDA (Yang et al. 2024): the weight W times the second moments C of its inputs is decomposed, W C = U S V^T, and V^T C^-1 takes the place of V^T: the first
   parts (instruction-previewed) or the last (knowledge-preserved) move into A and B, W losing s B A as with PiSSA. C is damped as PEFT damps it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "modules/lora.h"

enum cb_status lora_corda_parse(struct module *m, struct lora_options *o, const char *where, struct cb_err *err) {
    const json_t *c = NULL;
    const char *method = "ipm";
    TRY(json_get_object(&c, m->config, where, "corda_config", false, err));
    if (c) TRY(json_get_str(&method, c, where, "corda_method", false, err));
    o->keeps_knowledge = strcmp(method, "kpm") == 0;
    if (!o->keeps_knowledge && strcmp(method, "ipm") != 0)
        FAIL(err, CB_E_FORMAT, "%s: corda_method: found %.60s; wanted ipm or kpm", where, method);
    return CB_OK;
}

enum cb_status lora_corda_config(struct module *m, struct cb_err *err) {
    const struct lora_options *o = m->options;
    json_t *c = json_pack("{s:n, s:s, s:n, s:b, s:b, s:b}", "cache_file", "corda_method", o->keeps_knowledge ? "kpm" : "ipm",
                          "covariance_file", "prune_temporary_fields", 1, "use_float16_for_covariance", 0, "verbose", 0);
    if (json_object_set_new(m->config, "corda_config", c) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    return CB_OK;
}

/* How far a b is from the unit matrix. */
static double unit_error(const double *a, const double *b, double *room, int64_t n) {
    double sum = 0;
    lora_product(room, a, b, n, n, n, false);
    for (int64_t i = 0; i < n * n; i++) sum += pow(room[i] - (i % (n + 1) == 0), 2);
    return sqrt(sum);
}

/* c gets a share of its mean diagonal, 1% and twice as much until its inverse is one. */
static enum cb_status damped_inverse(double *c, double *inverse, int64_t n, const char *name, struct cb_err *err) {
    double mean = 0, *room = lora_matrix(n, n, err);
    enum cb_status status = room ? CB_OK : err->code;
    for (int64_t i = 0; i < n; i++) mean += c[i * n + i] / (double)n;
    if (status == CB_OK && !(mean > 0 && isfinite(mean)))
        status = err_set(err, CB_E_NUMERIC, __FILE__, __LINE__, "%s: second moments of its inputs have a mean of %g; wanted one above 0",
                         name, mean);
    double given = 0;
    bool found = false;
    for (double share = 0.01; status == CB_OK && !found && share < 1e6; share *= 2) {
        struct cb_err reason = {0};
        for (int64_t i = 0; i < n; i++) c[i * n + i] += mean * (share - given);
        given = share;
        memcpy(room, c, (size_t)(n * n) * sizeof *room);
        for (int64_t i = 0; i < n * n; i++) inverse[i] = i % (n + 1) == 0;
        // one that is not positive definite yet is no failure
        const enum cb_status solved = lapack_solve_spd(room, inverse, n, n, name, &reason);
        if (solved != CB_OK && solved != CB_E_NUMERIC) *err = reason, status = solved;
        found = solved == CB_OK && unit_error(c, inverse, room, n) < 0.05;
    }
    if (status == CB_OK && !found)
        status = err_set(err, CB_E_NUMERIC, __FILE__, __LINE__, "%s: second moments of its inputs have no inverse", name);
    free(room);
    return status;
}

/* W C, decomposed; vt then holds V^T C^-1. */
static enum cb_status decompose(const struct lora_weight *b, double *c, double *u, double *s, double *vt, const char *name,
                                struct cb_err *err) {
    const int64_t k = b->in < b->out ? b->in : b->out;
    double *inverse = lora_matrix(b->in, b->in, err), *wc = lora_matrix(b->out, b->in, err);
    enum cb_status status = inverse && wc ? damped_inverse(c, inverse, b->in, name, err) : err->code;
    if (status == CB_OK) {
        lora_product(wc, b->w, c, b->out, b->in, b->in, false);
        status = lapack_svd(wc, b->out, b->in, u, s, vt, name, err);
    }
    free(wc);
    double *turned = status == CB_OK ? lora_matrix(k, b->in, err) : NULL;
    if (status == CB_OK && !turned) status = err->code;
    if (status == CB_OK) {
        lora_product(turned, vt, inverse, k, b->in, b->in, false);
        memcpy(vt, turned, (size_t)(k * b->in) * sizeof *vt);
    }
    free(turned);
    free(inverse);
    return status;
}

/* A parameter of the site, and its start, which is taken off the weight. */
static enum cb_status put(const struct module *m, const struct tuner_site *site, int number, struct store *store, const float *from,
                          struct cb_err *err) {
    const struct module_param *p = &m->params[site->param[number]].public;
    struct store_entry *entry = store_find(store, p->name);
    if (!entry) FAIL(err, CB_E_NAME, "%s: not in the store", p->name);
    memcpy(entry->data, from, (size_t)entry->bytes);
    return CB_OK;
}

enum cb_status lora_take_moments(const struct module *m, const struct tuner_site *site, struct store *store, double *c,
                                 struct cb_err *err) {
    const struct lora_site *own = site->own;
    struct lora_weight b;
    if (!(site->scale > 0)) FAIL(err, CB_E_FORMAT, "%s: lora_alpha: found a scale of %g; wanted one above 0", m->name, site->scale);
    TRY(lora_weight_open(&b, m, &m->params[site->param[0]], store, err));
    const int64_t k = b.in < b.out ? b.in : b.out, first = ((const struct lora_options *)m->options)->keeps_knowledge ? k - b.r : 0;
    double *u = lora_matrix(b.out, k, err), *s = lora_matrix(k, 1, err), *vt = lora_matrix(k, b.in, err);
    float *a = calloc((size_t)(b.r * b.in), sizeof *a), *up = calloc((size_t)(b.out * b.r), sizeof *up);
    enum cb_status status = u && s && vt && a && up ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", m->name);
    if (status == CB_OK) status = decompose(&b, c, u, s, vt, site->site.name, err);
    for (int64_t i = 0; status == CB_OK && i < b.r * b.in; i++)
        a[i] = (float)(sqrt(s[first + i / b.in] / site->scale) * vt[first * b.in + i]);
    for (int64_t i = 0; status == CB_OK && i < b.out * b.r; i++)
        up[i] = (float)(u[i / b.r * k + first + i % b.r] * sqrt(s[first + i % b.r] / site->scale));
    for (int i = 0; status == CB_OK && i < 2; i++) {
        status = put(m, site, i, store, i ? up : a, err);
        if (status == CB_OK) status = put(m, site, own->a0 + i, store, i ? up : a, err);
    }
    free(u), free(s), free(vt), free(a), free(up), free(b.w);
    return status;
}
