/* What holds for every tuner on every family: the fresh state its descriptor names, gradients of its own parameters, the file and back, folding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "module_case.h"

/* Worst error of the logits of the tokens, which virtual tokens may stand before. */
static double tokens_error(struct runner *have, struct runner *want, int64_t batch) {
    const int64_t long_rows = runner_elements(have, "logits") / batch, rows = runner_elements(want, "logits") / batch;
    const float *a = runner_data(have, "logits"), *b = runner_data(want, "logits");
    double worst = 0;
    for (int64_t i = 0; i < batch; i++) worst = fmax(worst, worst_error(a + i * long_rows + long_rows - rows, b + i * rows, rows));
    return worst;
}

/* Every case of every tuner on every family: fresh state, gradients of its own, the file and back, folded as attached, unfolded as before. */
static enum cb_status generic(const struct tuner *tuner, const char *spec, const char *family, char message[400], struct cb_err *err) {
    struct base b;
    struct module *m = NULL, *again = NULL;
    struct runner plain = {0}, attached = {0}, reloaded = {0};
    const struct model_io io = {.batch = 2, .tokens = 6, .want_logits = true, .want_loss = true};
    char folder[128];
    TRY(base_fresh(&b, family, err));
    TRY(with_modules(&b, &plain, NULL, NULL, &io, err));
    inputs_fill(&plain, (int32_t)b.model->vocab);
    TRY(runner_run(&plain, err));
    enum cb_status status = module_create(&m, b.store, spec, "fresh", "base", 11, &b.sites, err);
    if (status == CB_E_NAME && tuner->implied) {  // a family without such modules
        memset(err, 0, sizeof *err);
        runner_destroy(&plain);
        base_close(&b);
        return CB_OK;
    }
    TRY(status);
    const struct module *modules[1] = {m};
    struct module_list list = {.modules = modules, .n = 1};
    TRY(with_modules(&b, &attached, &list, m, &io, err));
    inputs_fill(&attached, (int32_t)b.model->vocab);
    TRY(runner_run(&attached, err));
    int64_t n = runner_elements(&plain, "logits");
    double e = tokens_error(&attached, &plain, io.batch);
    if ((m->fresh == TUNER_IS_BASE && e != 0) || (m->fresh == TUNER_NEAR_BASE && !(e < 1e-5)) || (m->fresh == TUNER_NOT_BASE && e == 0))
        snprintf(message, 400, "%s on %s: fresh: error %g", spec, family, e);
    // every parameter is moved off its fresh state
    for (int i = 0; i < module_n_params(m); i++) {
        if (!module_param(m, i)->is_trained) continue;
        float *p = store_find(b.store, module_param(m, i)->name)->data;
        for (int64_t k = 0; k < type_elements(&module_param(m, i)->type); k++) p[k] += 0.02f * (float)((k * 13 + i) % 11 - 5);
    }
    TRY(runner_run(&attached, err));
    for (int i = 0; i < module_n_params(m); i++) {
        if (!module_param(m, i)->is_trained) continue;
        char name[400];
        snprintf(name, sizeof name, "grad.%s", module_param(m, i)->key);
        const float *g = runner_data(&attached, name);
        double norm = 0;
        for (int64_t k = 0; g && k < runner_elements(&attached, name); k++) norm += fabs((double)g[k]);
        // an expert may have no token, a table no row of the input
        if (!(norm > 0) && !strstr(name, "embedding") && !strstr(name, ".experts."))
            snprintf(message, 400, "%s on %s: %.200s is %g", spec, family, name, norm);
    }
    // file and back
    if (!temporary_folder(folder, "lora")) FAIL(err, CB_E_IO, "no temporary folder");
    const struct module_evaluator evaluator = test_evaluator();
    TRY(module_settle(m, b.store, &evaluator, err));
    TRY(module_save(m, b.store, folder, err));
    TRY(module_load(&again, b.store, folder, "again", &b.sites, err));
    modules[0] = again;
    TRY(with_modules(&b, &reloaded, &list, NULL, &io, err));
    inputs_fill(&reloaded, (int32_t)b.model->vocab);
    TRY(runner_run(&reloaded, err));
    e = worst_error(runner_data(&reloaded, "logits"), runner_data(&attached, "logits"), runner_elements(&attached, "logits"));
    // a module that is saved in another form gives the same but for rounding
    const bool is_converted = module_parameters(again) != module_parameters(m);
    if (!(e <= (is_converted ? 1e-5 : 0))) snprintf(message, 400, "%s on %s: reloaded: error %g", spec, family, e);
    // an additive module at scale 0 is the base, bit for bit
    if (m->is_additive && !m->n_swaps && !m->n_new_rows) {
        module_set_scale(m, b.store, 0);
        TRY(runner_run(&attached, err));
        e = worst_error(runner_data(&attached, "logits"), runner_data(&plain, "logits"), n);
        if (e != 0) snprintf(message, 400, "%s on %s: scale 0: error %g", spec, family, e);
    }
    // folded weights do what the attached module does
    if ((tuner->weight || tuner->bias || m->n_swaps || m->n_new_rows) && !(tuner->refuses_fold && tuner->refuses_fold(m))) {
        module_set_scale(m, b.store, m->n_swaps || m->n_new_rows ? 1 : 0.5);
        TRY(runner_run(&attached, err));
        TRY(base_fold(&b, m, false, err));
        TRY(runner_run(&plain, err));
        e = worst_error(runner_data(&plain, "logits"), runner_data(&attached, "logits"), n);
        if (!(e < 1e-5)) snprintf(message, 400, "%s on %s: folded: error %g", spec, family, e);
    }
    module_destroy(&m);
    module_destroy(&again);
    runner_destroy(&plain);
    runner_destroy(&attached);
    runner_destroy(&reloaded);
    base_close(&b);
    return CB_OK;
}

TEST(tuners, generic) {
    int n;
    const struct tuner *const *list = tuners(&n);
    int n_families;
    const struct family *const *families = model_families(&n_families);
    CHECK(n >= 1);
    for (int i = 0; i < n; i++)
        for (const char *const *spec = list[i]->cases; *spec; spec++)
            for (int f = 0; f < n_families; f++) {
                char message[400] = "";
                struct cb_err err = {0};
                enum cb_status status = generic(list[i], *spec, families[f]->name, message, &err);
                CHECK(status == CB_OK && !*message, "%s on %s: %s%s", *spec, families[f]->name, message, err.message);
            }
}
