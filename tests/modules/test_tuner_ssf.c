/* SSF by hand: what folding leaves in weights and biases, and a shift that has no bias to go into. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "module_case.h"

static const struct model_io io = {.batch = 2, .tokens = 5, .want_logits = true};

/* Scales and shifts away from 1 and 0. */
static void move(const struct base *b, const struct module *m) {
    for (int i = 0; i < module_n_params(m); i++) {
        const struct module_param *p = module_param(m, i);
        float *x = store_find(b->store, p->name)->data;
        for (int64_t k = 0; k < type_elements(&p->type); k++) x[k] += 0.3f * (float)sin((double)(7 * i + 3 * k));
    }
}

static float *copy_of(const struct base *b, const char *name, int64_t *n) {
    const struct store_entry *e = store_find(b->store, name);
    *n = type_elements(&e->type);
    float *copy = malloc((size_t)*n * sizeof *copy);
    return memcpy(copy, e->data, (size_t)*n * sizeof *copy);
}

TEST(tuner_ssf, folds_into_rows_and_bias) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    int64_t n, n_out;
    CHECK_OK(base_fresh(&b, "gpt2", &err));
    CHECK_OK(module_create(&m, b.store, "ssf:targets=c_attn", "m", NULL, 1, &b.sites, &err));
    move(&b, m);
    // what the base has, before it is folded; GPT-2 stores weights (in,out)
    const char *site = module_site_name(m, 0);
    char weight[200], bias[200], name[200];
    snprintf(weight, sizeof weight, "%s.weight", site);
    snprintf(bias, sizeof bias, "%s.bias", site);
    float *w = copy_of(&b, weight, &n), *c = copy_of(&b, bias, &n_out);
    for (int64_t i = 0; i < n_out; i++) ((float *)store_find(b.store, bias)->data)[i] = c[i] = 0.01f * (float)(i % 7);
    CHECK_OK(base_fold(&b, m, false, &err));
    snprintf(name, sizeof name, "m/base_model.model.%s.ssf_scale", site);
    const float *gamma = store_find(b.store, name)->data;
    snprintf(name, sizeof name, "m/base_model.model.%s.ssf_shift", site);
    const float *beta = store_find(b.store, name)->data;
    const float *folded = store_find(b.store, weight)->data, *shifted = store_find(b.store, bias)->data;
    double worst = 0, moved = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)folded[i] - (double)w[i] * (double)gamma[i % n_out]));
        moved = fmax(moved, fabs((double)folded[i] - (double)w[i]));
    }
    for (int64_t i = 0; i < n_out; i++) worst = fmax(worst, fabs((double)shifted[i] - (double)gamma[i] * (double)c[i] - (double)beta[i]));
    CHECK(worst < 1e-6 && moved > 1e-3, "off by %g, moved by %g", worst, moved);
    free(w);
    free(c);
    module_destroy(&m);
    base_close(&b);
}

/* Largest difference of the logits of two lists, and of that from the plain model. */
static double gap(struct base *b, const struct module *const *one, int n_one, const struct module *const *two, int n_two) {
    struct cb_err err = {0};
    struct module_list lists[2] = {{.modules = one, .n = n_one}, {.modules = two, .n = n_two}};
    struct runner r[2] = {{0}};
    double worst = 0;
    for (int i = 0; i < 2; i++) {
        CHECK_OK(with_modules(b, &r[i], &lists[i], NULL, &io, &err));
        inputs_fill(&r[i], (int32_t)b->model->vocab);
        CHECK_OK(runner_run(&r[i], &err));
    }
    const float *x = runner_data(&r[0], "logits"), *y = runner_data(&r[1], "logits");
    for (int64_t i = 0; i < runner_elements(&r[0], "logits"); i++) worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    for (int i = 0; i < 2; i++) runner_destroy(&r[i]);
    return worst;
}

/* A module before one that changes weights acts through the weight too: with a shift and no bias for it that would lose the shift. */
TEST(tuner_ssf, a_shift_without_a_bias_is_never_lost) {
    static const char *const families[] = {"gpt2", "llama"};
    for (int f = 0; f < 2; f++) {
        struct cb_err err = {0};
        struct base b;
        struct module *ssf, *bat;
        struct runner r = {0};
        CHECK_OK(base_fresh(&b, families[f], &err));
        CHECK_OK(module_create(&ssf, b.store, f ? "ssf:targets=o_proj" : "ssf:targets=c_proj", "s", NULL, 1, &b.sites, &err));
        CHECK_OK(module_create(&bat, b.store, f ? "miss:r=2,variant=bat,targets=o_proj" : "miss:r=2,variant=bat,targets=c_proj", "t", NULL,
                               1, &b.sites, &err));
        move(&b, ssf);
        const struct module *const before[] = {ssf, bat}, *const behind[] = {bat, ssf}, *const alone[] = {ssf};
        // the other module is fresh, so that it changes nothing
        CHECK(gap(&b, behind, 2, alone, 1) < 1e-5, "%s: behind it: %g", families[f], gap(&b, behind, 2, alone, 1));
        CHECK(gap(&b, alone, 1, NULL, 0) > 1e-3, "%s: it does nothing", families[f]);
        if (f == 0) {
            CHECK(gap(&b, before, 2, alone, 1) < 1e-5, "gpt2: before it: %g", gap(&b, before, 2, alone, 1));
        } else {
            struct module_list list = {.modules = before, .n = 2};
            CHECK_FAILS(with_modules(&b, &r, &list, NULL, &io, &err), CB_E_UNSUPPORTED, "has no bias");
            runner_destroy(&r);
            err = (struct cb_err){0};
            CHECK_FAILS(base_fold(&b, ssf, false, &err), CB_E_UNSUPPORTED, "has no bias");
        }
        module_destroy(&ssf);
        module_destroy(&bat);
        base_close(&b);
    }
}
