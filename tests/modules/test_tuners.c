/* What holds for every tuner, on every family and in every type of the base's weights, all pairs of two of the three, in the long tests all three at
   once: the fresh state that its descriptor names, gradients of its own parameters, the base left alone, the file and back, the scale, folding. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "module_case.h"

/* A family in one type, and what it gives without modules. */
struct ground {
    const char *family;
    enum cb_dtype dtype;
    struct base b;
    int n_typed;
    struct runner plain;
    double size;  // of its logits: their root mean square, 1 at least; rounding grows with it
};

/* One tuner on a copy of it. */
struct trial {
    const struct tuner *tuner;
    const char *spec;
    struct ground *ground;
    struct base b;
    struct module *m, *again;
    struct runner attached, reloaded;
    char *message;  // 400 bytes
};

static const struct model_io io = {.batch = 2, .tokens = 6, .want_logits = true, .want_loss = true};

/* A module whose definition of a weight stands for the base's has it computed with as f32: if the base's is in blocks its products are summed in another order.
   Two orders of k terms differ by k epsilon of the sum of their sizes at most (Higham 2002, 4.2); k is the longest such sum. 0: bit for bit. */
static double rounding(const struct trial *t) {
    int64_t k = 0;
    for (int i = 0; t->tuner->weight && i < t->m->n_sites; i++) {
        const struct nn_site *site = &t->m->sites[i].site;
        const struct store_entry *entry = site->weight ? store_find(t->b.store, site->weight) : NULL;
        if (!entry || !dtype_of(entry->type.dtype)->is_quantised || !tuner_is_by_weight(t->m, &t->m->sites[i])) continue;
        if (site->in > k) k = site->in;
    }
    return (double)k * FLT_EPSILON * t->ground->size;
}

/* What computing the same in another way, folded or saved in another form, may change. */
static double other_way(const struct trial *t) { return (t->ground->dtype == CB_DTYPE_F32 ? 1e-5 : 5e-5) * t->ground->size; }

static void say(struct trial *t, const char *what, double error) {
    snprintf(t->message, 400, "%s on %s in %s: %.250s: error %g", t->spec, t->ground->family, dtype_of(t->ground->dtype)->name, what,
             error);
}

/* Worst error of the logits of the tokens, which virtual tokens may stand before. */
static double tokens_error(struct runner *have, struct runner *want, int64_t batch) {
    const int64_t long_rows = runner_elements(have, "logits") / batch, rows = runner_elements(want, "logits") / batch;
    const float *a = runner_data(have, "logits"), *b = runner_data(want, "logits");
    double worst = 0;
    for (int64_t i = 0; i < batch; i++) worst = fmax(worst, worst_error(a + i * long_rows + long_rows - rows, b + i * rows, rows));
    return worst;
}

/* Nullable: m. */
static enum cb_status run_with(struct base *b, struct runner *r, const struct module *m, bool gradients, struct cb_err *err) {
    const struct module *modules[1] = {m};
    struct module_list list = {.modules = modules, .n = 1};
    TRY(with_modules(b, r, m ? &list : NULL, gradients ? m : NULL, &io, err));
    inputs_fill(r, (int32_t)b->model->vocab);
    return runner_run(r, err);
}

static void fresh_check(struct trial *t) {
    const double e = tokens_error(&t->attached, &t->ground->plain, io.batch), near = rounding(t);
    const enum tuner_fresh fresh = t->m->fresh;
    if ((fresh == TUNER_IS_BASE && e > near) || (fresh == TUNER_NEAR_BASE && !(e < other_way(t))) || (fresh == TUNER_NOT_BASE && e == 0))
        say(t, "fresh", e);
}

/* Every parameter is moved off its fresh state, by steps without a period: rows that are alike would only shift what a norm takes away. */
static void move(struct trial *t) {
    for (int i = 0; i < module_n_params(t->m); i++) {
        if (!module_param(t->m, i)->is_trained) continue;
        float *p = store_find(t->b.store, module_param(t->m, i)->name)->data;
        // LoReFT counts the -1 on its diagonal as whole numbers: these go down
        const int64_t most = strstr(module_param(t->m, i)->key, ".weight.original") ? 11 : 5;
        for (int64_t k = 0; k < type_elements(&module_param(t->m, i)->type); k++) {
            const uint32_t mixed = ((uint32_t)k * 2654435761u) ^ ((uint32_t)i * 40503u);
            p[k] += 0.02f * (float)((int64_t)((mixed ^ mixed >> 15) * 2246822519u >> 16) % 11 - most);
        }
    }
}

static void gradients_check(struct trial *t) {
    for (int i = 0; i < module_n_params(t->m); i++) {
        if (!module_param(t->m, i)->is_trained) continue;
        char name[400];
        snprintf(name, sizeof name, "grad.%s", module_param(t->m, i)->key);
        const float *g = runner_data(&t->attached, name);
        double norm = 0;
        for (int64_t k = 0; g && k < runner_elements(&t->attached, name); k++) norm += fabs((double)g[k]);
        // an expert may have no token, a table no row of the input
        if (!(norm > 0) && !strstr(name, "embedding") && !strstr(name, ".experts.")) say(t, name, norm);
    }
}

/* Whether the base's weights are what they were. */
static bool base_is_same(const struct trial *t) {
    const struct store *before = t->ground->b.store;
    bool same = true;
    for (int i = 0; i < store_count(before); i++) {
        const struct store_entry *a = store_at(before, i), *b = store_find(t->b.store, a->name);
        same = same && b && type_equal(&a->type, &b->type) && memcmp(a->data, b->data, (size_t)a->bytes) == 0;
    }
    return same;
}

/* Whether every file of one folder is in the other with the same bytes. */
static bool same_files(const char *a, const char *b) {
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors", "adapter.safetensors",
                                        "head_config.json",    "model_head.safetensors",    "delta.safetensors"};
    bool same = true;
    int found = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cb_err err = {0};
        char path[2][300], *text[2] = {NULL, NULL};
        size_t n[2];
        snprintf(path[0], sizeof path[0], "%s/%s", a, names[i]);
        snprintf(path[1], sizeof path[1], "%s/%s", b, names[i]);
        if (!io_is_file(path[0])) continue;
        found++;
        bool read = io_read_file(&text[0], &n[0], path[0], 1 << 28, &err) == CB_OK &&
                    io_read_file(&text[1], &n[1], path[1], 1 << 28, &err) == CB_OK;
        if (!read) fprintf(stderr, "%s\n", err.message);
        same = same && read && n[0] == n[1] && memcmp(text[0], text[1], n[0]) == 0;
        free(text[0]);
        free(text[1]);
    }
    return same && found;
}

/* Saved, loaded, saved: the same bytes, and the same module. */
static enum cb_status file_check(struct trial *t, struct cb_err *err) {
    char folder[2][128];
    if (!temporary_folder(folder[0], "tuner") || !temporary_folder(folder[1], "tuner")) FAIL(err, CB_E_IO, "no temporary folder");
    const struct module_evaluator evaluator = test_evaluator();
    TRY(module_settle(t->m, t->b.store, &evaluator, err));
    TRY(module_save(t->m, t->b.store, folder[0], err));
    TRY(module_load(&t->again, t->b.store, folder[0], "again", &t->b.sites, err));
    TRY(module_settle(t->again, t->b.store, &evaluator, err));
    TRY(module_save(t->again, t->b.store, folder[1], err));
    // a module that is saved in another form gives the same but for rounding
    const bool is_converted = module_parameters(t->again) != module_parameters(t->m);
    if (!is_converted && !same_files(folder[0], folder[1])) say(t, "saved again, other bytes", 0);
    TRY(run_with(&t->b, &t->reloaded, t->again, false, err));
    double e =
        worst_error(runner_data(&t->reloaded, "logits"), runner_data(&t->attached, "logits"), runner_elements(&t->attached, "logits"));
    if (!(e <= (is_converted ? other_way(t) : 0))) say(t, "reloaded", e);
    return CB_OK;
}

/* An additive module at scale 0 is the base: bit for bit, unless it stands for a weight in blocks. */
static enum cb_status scale_check(struct trial *t, struct cb_err *err) {
    if (!t->m->is_additive || t->m->n_swaps || t->m->n_new_rows) return CB_OK;
    module_set_scale(t->m, t->b.store, 0);
    TRY(runner_run(&t->attached, err));
    double e = worst_error(runner_data(&t->attached, "logits"), runner_data(&t->ground->plain, "logits"),
                           runner_elements(&t->ground->plain, "logits"));
    if (e > rounding(t)) say(t, "scale 0", e);
    return CB_OK;
}

/* Folded weights do what the attached module does. */
static enum cb_status fold_check(struct trial *t, struct cb_err *err) {
    const struct tuner *tuner = t->tuner;
    if (!(tuner->weight || tuner->bias || t->m->n_swaps || t->m->n_new_rows) || (tuner->refuses_fold && tuner->refuses_fold(t->m)))
        return CB_OK;
    struct runner folded = {0};
    module_set_scale(t->m, t->b.store, t->m->n_swaps || t->m->n_new_rows ? 1 : 0.5);
    TRY(runner_run(&t->attached, err));
    TRY(base_fold(&t->b, t->m, false, err));
    enum cb_status status = run_with(&t->b, &folded, NULL, false, err);
    double e = status == CB_OK
                   ? worst_error(runner_data(&folded, "logits"), runner_data(&t->attached, "logits"), runner_elements(&folded, "logits"))
                   : 0;
    if (!(e < other_way(t))) say(t, "folded", e);
    runner_destroy(&folded);
    return status;
}

static enum cb_status trial_run(struct trial *t, struct cb_err *err) {
    TRY(base_copy(&t->b, &t->ground->b, err));
    enum cb_status status = module_create(&t->m, t->b.store, t->spec, "fresh", "base", 11, &t->b.sites, err);
    if (status == CB_E_NAME && t->tuner->implied) {  // a family without such modules
        memset(err, 0, sizeof *err);
        return CB_OK;
    }
    TRY(status);
    TRY(run_with(&t->b, &t->attached, t->m, true, err));
    fresh_check(t);
    move(t);
    TRY(runner_run(&t->attached, err));
    gradients_check(t);
    TRY(file_check(t, err));
    TRY(scale_check(t, err));
    if (!base_is_same(t)) say(t, "the base's weights were changed", 0);
    return fold_check(t, err);
}

/* Runs one; its message is printed. */
static bool trial(const struct tuner *tuner, const char *spec, struct ground *ground) {
    char message[400] = "";
    struct cb_err err = {0};
    struct trial t = {.tuner = tuner, .spec = spec, .ground = ground, .message = message};
    enum cb_status status = trial_run(&t, &err);
    if (status != CB_OK) say(&t, err.message, 0);
    if (*message) fprintf(stderr, "%s\n", message);
    module_destroy(&t.m);
    module_destroy(&t.again);
    runner_destroy(&t.attached);
    runner_destroy(&t.reloaded);
    base_close(&t.b);
    return !*message;
}

static void ground_open(struct ground *g, const char *family, enum cb_dtype dtype) {
    struct cb_err err = {0};
    *g = (struct ground){.family = family, .dtype = dtype};
    CHECK_OK(dtype == CB_DTYPE_F32 ? base_fresh(&g->b, family, &err) : base_typed(&g->b, family, dtype, &g->n_typed, &err));
    CHECK_OK(run_with(&g->b, &g->plain, NULL, false, &err));
    const float *logits = runner_data(&g->plain, "logits");
    const int64_t n = runner_elements(&g->plain, "logits");
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)logits[i] * logits[i];
    g->size = fmax(1, sqrt(squares / (double)n));
}
static void ground_close(struct ground *g) {
    runner_destroy(&g->plain);
    base_close(&g->b);
}

static const enum cb_dtype types[] = {CB_DTYPE_F16, CB_DTYPE_Q8_0, CB_DTYPE_Q4_K};
enum { N_TYPES = sizeof types / sizeof *types };

/* PEFT's tuners, or those of the adapters library, on every family; those that fail. */
static int families_run(bool is_adapters, enum cb_dtype dtype) {
    int n, n_families, failed = 0, tried = 0;
    const struct tuner *const *list = tuners(&n);
    const struct family *const *families = model_families(&n_families);
    for (int f = 0; f < n_families; f++) {
        struct ground ground;
        ground_open(&ground, families[f]->name, dtype);
        for (int i = 0; i < n; i++) {
            if ((list[i]->architecture != NULL) != is_adapters) continue;
            for (const char *const *spec = list[i]->cases; *spec; spec++, tried++) failed += !trial(list[i], *spec, &ground);
        }
        ground_close(&ground);
    }
    return tried ? failed : 1;
}

/* Ranks that no weight of the model has room for; of those whose rank is free one is made. */
TEST(tuners, low_ranks_are_bounded) {
    int n, tried = 0;
    const struct tuner *const *list = tuners(&n);
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    char spec[400];
    CHECK_OK(base_fresh(&b, "llama", &err));
    for (int i = 0; i < n; i++) {
        if (!list[i]->is_low_rank) continue;
        tried++;
        snprintf(spec, sizeof spec, "%s,r=98", list[i]->cases[0]);
        CHECK_FAILS(module_create(&m, b.store, spec, "m", NULL, 1, &b.sites, &err), CB_E_SHAPE, "rank 98");
    }
    CHECK(tried > 8, "%d tuners of low rank", tried);
    CHECK_FAILS(module_create(&m, b.store, "union:methods=ad_lora,0.r=98", "m", NULL, 1, &b.sites, &err), CB_E_SHAPE, "rank 98");
    static const char *const free_ones[] = {"vera:r=98", "ad_vera:r=98,attn_matrices=q",
                                            "hyper:generates=bottleneck,reduction_factor=0.5,values=task=a"};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(module_create(&m, b.store, free_ones[i], "m", NULL, 1, &b.sites, &err));
        module_remove(m, b.store);
        module_destroy(&m);
    }
    base_close(&b);
}

/* Ranks and alphas by names: q_proj of the last layer is of rank 3 where the rest is of rank 2; a key that is none, or fits nothing, is refused. */
TEST(tuners, ranks_by_name) {
    int n, tried = 0;
    const struct tuner *const *list = tuners(&n);
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    CHECK_OK(base_fresh(&b, "llama", &err));
    for (int i = 0; i < n; i++) {
        const struct tuner_option *o = list[i]->options;
        char spec[200];
        while (o->name && strcmp(o->name, "ranks") != 0) o++;
        if (!o->name) continue;
        tried++;
        int64_t parameters[3];
        static const char *const ranks[] = {"2", "2,ranks=layers.1.self_attn.q_proj:3", "2,ranks=q_proj:3"};
        for (int k = 0; k < 3; k++) {
            const bool is_lokr = strcmp(list[i]->name, "lokr") == 0;
            snprintf(spec, sizeof spec, "%s:targets=q_proj%s,r=%s", list[i]->name, is_lokr ? ",both=true" : "", ranks[k]);
            CHECK_OK(module_create(&m, b.store, spec, "m", NULL, 1, &b.sites, &err));
            parameters[k] = module_parameters(m);
            module_remove(m, b.store);
            module_destroy(&m);
        }
        CHECK(parameters[1] > parameters[0] && parameters[2] > parameters[1], "%s: %lld, %lld, %lld parameters", list[i]->name,
              (long long)parameters[0], (long long)parameters[1], (long long)parameters[2]);
    }
    CHECK(tried == 5, "%d tuners", tried);
    CHECK_OK(module_create(&m, b.store, "lora:r=2,alpha=2,alphas=q_proj:8", "m", NULL, 1, &b.sites, &err));
    module_remove(m, b.store);
    module_destroy(&m);
    CHECK_FAILS(module_create(&m, b.store, "lora:ranks=q_proj:0", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "rank_pattern");
    CHECK_FAILS(module_create(&m, b.store, "lora:ranks=q_proj", "m", NULL, 1, &b.sites, &err), CB_E_USAGE, "NAME:NUMBER");
    CHECK_FAILS(module_create(&m, b.store, "lora:ranks=q_prj:3", "m", NULL, 1, &b.sites, &err), CB_E_NAME, "rank_pattern: q_prj");
    CHECK_FAILS(module_create(&m, b.store, "lora:targets=q_proj,alphas=v_proj:3", "m", NULL, 1, &b.sites, &err), CB_E_NAME,
                "alpha_pattern: v_proj");
    CHECK_FAILS(module_create(&m, b.store, "lora:ranks=3", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "rank_pattern");
    base_close(&b);
}

/* Experts that are named are refused by what cannot change them, and left alone where all linear layers are meant. */
TEST(tuners, experts_of_no_use) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    CHECK_OK(base_fresh(&b, "mixtral", &err));
    CHECK_FAILS(module_create(&m, b.store, "beft:targets=q_proj+w1", "m", NULL, 1, &b.sites, &err), CB_E_UNSUPPORTED,
                "experts.0.w1: an expert's module; a module of kind beft cannot change one");
    CHECK_FAILS(module_create(&m, b.store, "ssf:targets=w1", "m", NULL, 1, &b.sites, &err), CB_E_NAME,
                "kind ssf cannot change model.layers.0.");
    CHECK_OK(module_create(&m, b.store, "beft", "m", NULL, 1, &b.sites, &err));
    for (int i = 0; i < module_n_sites(m); i++) CHECK(!strstr(module_site_name(m, i), "experts"), "%s", module_site_name(m, i));
    module_remove(m, b.store);
    module_destroy(&m);
    base_close(&b);
}

/* What every descriptor needs. Kinds without cases belong to blocks or are made of other modules; keys with a dot are of objects within the file. */
TEST(tuners, descriptors) {
    static const char *const no_cases[] = {"fusion", "xlora", NULL};
    int n;
    const struct tuner *const *list = tuners(&n);
    for (int i = 0; i < n; i++) {
        const struct tuner *t = list[i];
        CHECK(t->name && t->doc && *t->doc && t->options && t->defaults && t->cases && t->match && t->declare,
              "tuner %d (%s): wanted name, doc, options, defaults, cases, match and declare", i, t->name ? t->name : "no name");
        CHECK(tuner_find(t->name) == t, "%s: another tuner has that name", t->name);
        bool may_have_none = false;
        for (int k = 0; no_cases[k]; k++) may_have_none |= strcmp(no_cases[k], t->name) == 0;
        CHECK(t->cases[0] || may_have_none, "%s: no cases, so that nothing tries it", t->name);
        json_t *known = json_loads(t->defaults, 0, NULL);
        CHECK(json_is_object(known), "%s: its defaults are no JSON object", t->name);
        for (const struct tuner_option *o = t->options; t->peft_type && o->name; o++)
            CHECK(json_object_get(known, o->key) || strchr(o->key, '.'), "%s: option %s sets %s, which its defaults do not name", t->name,
                  o->name, o->key);
        json_decref(known);
    }
}

TEST(tuners, on_every_family) {
    int failed = families_run(false, CB_DTYPE_F32);
    CHECK(!failed, "%d failed", failed);
}

TEST(tuners, of_adapters_on_every_family) {
    int failed = families_run(true, CB_DTYPE_F32);
    CHECK(!failed, "%d failed", failed);
}

TEST(tuners, in_every_type) {
    int n, failed = 0;
    const struct tuner *const *list = tuners(&n);
    for (int k = 0; k < N_TYPES; k++) {
        struct ground ground;
        ground_open(&ground, "llama", types[k]);
        CHECK(ground.n_typed == 14, "%s: %d weights", dtype_of(types[k])->name, ground.n_typed);
        // one that is made of other folders has no case that stands alone
        for (int i = 0; i < n; i++) failed += list[i]->cases[0] && !trial(list[i], list[i]->cases[0], &ground);
        ground_close(&ground);
    }
    CHECK(!failed, "%d failed", failed);
}

TEST(tuners, families_in_every_type) {
    int n_families, failed = 0;
    const struct family *const *families = model_families(&n_families);
    const struct tuner *lora = tuner_find("lora");
    for (int f = 0; f < n_families; f++)
        for (int k = 0; k < N_TYPES; k++) {
            struct ground ground;
            ground_open(&ground, families[f]->name, types[k]);
            failed += !trial(lora, "lora:r=2", &ground);
            if (!ground.n_typed)
                fprintf(stderr, "%s in %s: no weight has rows of whole blocks: only f32 was tried\n", families[f]->name,
                        dtype_of(types[k])->name);
            ground_close(&ground);
        }
    CHECK(!failed, "%d failed", failed);
}

/* All three at once. */
static void all_run(enum cb_dtype dtype) {
    const int failed = families_run(false, dtype) + families_run(true, dtype);
    CHECK(!failed, "%d failed", failed);
}

TEST_LONG(tuners, on_every_family_in_f16) { all_run(CB_DTYPE_F16); }
TEST_LONG(tuners, on_every_family_in_q8_0) { all_run(CB_DTYPE_Q8_0); }
TEST_LONG(tuners, on_every_family_in_q4_k) { all_run(CB_DTYPE_Q4_K); }
