/* Tuners that no library of the fixtures has: the projection of the intrinsic dimension beside its definition, masks of the largest differences. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "module_case.h"

static int compare_falling(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static const float *values(const struct base *b, const char *module, const char *site, const char *name) {
    char text[400];
    snprintf(text, sizeof text, "%s/base_model.model.%s.%s", module, site, name);
    const struct store_entry *entry = store_find(b->store, text);
    return entry ? entry->data : NULL;
}

/* Sum over k of H[i][k] x[k], H[i][k] = (-1)^(bits of i & k). */
static void hadamard(double *out, const double *x, int n) {
    for (int i = 0; i < n; i++) {
        out[i] = 0;
        for (int k = 0; k < n; k++) out[i] += __builtin_parity((unsigned)(i & k)) ? -x[k] : x[k];
    }
}

TEST(sparse, fastfood) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_OK(module_create(&m, b.store, "said:d=9,targets=q_proj", "s", "base", 5, &b.sites, &err));
    const struct nn_site *site = &m->sites[0].site;
    const int all = (int)(site->in * site->out);
    int n = 1;
    while (n < all) n *= 2;
    float *theta = store_find(b.store, "s/base_model.said_theta")->data, *lambda = (float *)values(&b, "s", site->name, "said_lambda");
    const float *signs = values(&b, "s", site->name, "said_signs"), *gauss = values(&b, "s", site->name, "said_gauss");
    const int32_t *places = (const int32_t *)values(&b, "s", site->name, "said_places");
    for (int i = 0; i < 9; i++) theta[i] = (float)i - 3.3f;
    *lambda = 1.7f;
    double *x = calloc((size_t)n, sizeof *x), *y = calloc((size_t)n, sizeof *y), norm = 0, spread = 0;
    float *before = malloc((size_t)all * sizeof *before);
    CHECK(x && y && before);
    memcpy(before, store_find(b.store, site->weight)->data, (size_t)all * sizeof *before);
    for (int i = 0; i < 9; i++) x[i] = (double)theta[i] * (double)*lambda * (double)signs[i];
    hadamard(y, x, n);
    for (int i = 0; i < n; i++) x[i] = y[places[i]] * (double)gauss[i];
    hadamard(y, x, n);
    CHECK_OK(base_fold(&b, m, false, &err));
    const float *after = store_find(b.store, site->weight)->data;
    for (int i = 0; i < all; i++) {
        const double change = (double)after[i] - (double)before[i];
        CHECK(fabs(change - y[i]) < 1e-5 * (1 + fabs(y[i])), "%d: %g, wanted %g", i, change, y[i]);
        spread += change * change / all;
    }
    // the projection keeps lengths: D changes of deviation |l t| / sqrt(D)
    for (int i = 0; i < 9; i++) norm += pow((double)theta[i] * (double)*lambda, 2);
    CHECK(spread * all / norm > 0.5 && spread * all / norm < 2, "|change|^2 / |t|^2 is %g", spread * all / norm);
    free(x);
    free(y);
    free(before);
    module_destroy(&m);
    base_close(&b);
}

/* The mask holds as many as asked for, and none that is smaller than one left out; gates shrink what they close. */
TEST(sparse, mask_of_the_largest) {
    struct cb_err err = {0};
    struct base b;
    struct module *dense, *sparse;
    char folder[128], spec[300];
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_OK(module_create(&dense, b.store, "diff:prune=true,targets=q_proj+v_proj", "d", "base", 5, &b.sites, &err));
    int64_t total = 0, n = 0;
    for (int i = 0; i < dense->n_sites; i++) total += dense->sites[i].site.in * dense->sites[i].site.out;
    float *sizes = malloc((size_t)total * sizeof *sizes);
    CHECK(sizes);
    for (int i = 0; i < dense->n_sites; i++) {
        const struct nn_site *site = &dense->sites[i].site;
        float *w = (float *)values(&b, "d", site->name, "diff_weight"), *a = (float *)values(&b, "d", site->name, "diff_alpha");
        for (int64_t k = 0; k < site->in * site->out; k++) {
            w[k] = sinf((float)(31 * k + 7 * i));
            a[k] = k % 3 ? 5 : 0.1f;
            sizes[n++] = fabsf(w[k] * fminf(fmaxf(3 / (1 + expf(-a[k])) - 1.5f, 0), 1));
        }
    }
    qsort(sizes, (size_t)total, sizeof *sizes, compare_falling);
    const int64_t wanted = (int64_t)ceil(0.1 * (double)total);
    CHECK(temporary_folder(folder, "diff"));
    CHECK_OK(module_save(dense, b.store, folder, &err));
    snprintf(spec, sizeof spec, "sft:density=0.1,rewind=false,from=%s,targets=q_proj+v_proj", folder);
    CHECK_OK(module_create(&sparse, b.store, spec, "s", "base", 5, &b.sites, &err));
    CHECK(module_parameters(sparse) == wanted, "%lld, wanted %lld", (long long)module_parameters(sparse), (long long)wanted);
    for (int i = 0; i < sparse->n_params; i++) {
        if (!sparse->params[i].public.is_trained) continue;
        const float *v = store_find(b.store, sparse->params[i].public.name)->data;
        for (int64_t k = 0; k < sparse->params[i].public.type.dim[0]; k++)
            CHECK(fabsf(v[k]) >= sizes[wanted - 1] * 0.99999f, "%g is kept; the least was to be %g", (double)v[k],
                  (double)sizes[wanted - 1]);
    }
    free(sizes);
    module_destroy(&dense);
    module_destroy(&sparse);
    // what a mask says is checked when it is read
    CHECK_OK(module_create(&sparse, b.store, "sft:density=0.01,targets=q_proj", "t", "base", 5, &b.sites, &err));
    ((int32_t *)store_find(b.store, sparse->params[0].public.name)->data)[1] = -3;
    CHECK_OK(module_save(sparse, b.store, folder, &err));
    module_destroy(&sparse);
    CHECK_FAILS(module_load(&sparse, b.store, folder, "u", &b.sites, &err), CB_E_FORMAT, "found -3");
    base_close(&b);
}
