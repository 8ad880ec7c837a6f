/* LoRA beside PEFT: the fixtures' logits, loss, gradients by the keys of their files, merged weights; fresh modules, files, refusals. */
#include "../harness.h"
#include "../models/graph_runner.h"
#include "base/json.h"
#include "io/file.h"
#include "models/model.h"
#include "modules/tuner.h"
#include "ops/ops.h"

/* A model with the sites of its graph. */
struct base {
    struct store *store;
    struct model *model;
    struct cb_graph *sites_graph;
    struct nn sites;
};

static enum cb_status base_sites(struct base *b, struct cb_err *err) {
    TRY(graph_create(&b->sites_graph, ops_table(), err));
    b->sites = nn_make(b->sites_graph);
    struct model_io io = {.batch = 1, .tokens = 2, .want_logits = true};
    return model_build(b->model, &b->sites, &io, err);
}

static enum cb_status base_open(struct base *b, const char *folder, struct cb_err *err) {
    *b = (struct base){0};
    TRY(store_create(&b->store, err));
    TRY(model_load(&b->model, b->store, folder, err));
    return base_sites(b, err);
}

/* A fresh tiny model of a family. */
static enum cb_status base_fresh(struct base *b, const char *family, struct cb_err *err) {
    *b = (struct base){0};
    json_t *config;
    TRY(store_create(&b->store, err));
    TRY(model_default_config(&config, model_family(family), model_family(family)->tiny, err));
    enum cb_status status = model_from_config(&b->model, config, family, err);
    json_decref(config);
    TRY(status);
    TRY(model_init_weights(b->model, b->store, 7, err));
    return base_sites(b, err);
}

static void base_close(struct base *b) {
    model_destroy(&b->model);
    graph_destroy(&b->sites_graph);
    store_destroy(&b->store);
}

/* A graph of the model with modules: logits, loss, and grad.<key> of the parameters of `of` (NULL: none). */
static enum cb_status with_modules(struct base *b, struct runner *r, struct module_list *list, const struct module *of,
                                   const struct model_io *wanted, struct cb_err *err) {
    struct model_io io = *wanted;
    enum { MOST = 512 };
    struct cb_tensor *wrt[MOST], *grad[MOST];
    char name[400];
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    if (list) nn.hook = module_hook(list);
    TRY(model_build(b->model, &nn, &io, err));
    int n = of ? module_n_params(of) : 0;
    if (n > MOST) FAIL(err, CB_E_LIMIT, "test: %d parameters", n);
    for (int i = 0; i < n; i++) {
        wrt[i] = graph_find_leaf(r->g, module_param(of, i)->name);
        if (!wrt[i]) FAIL(err, CB_E_NAME, "%s: not in the graph", module_param(of, i)->name);
    }
    if (n && graph_grad(r->g, io.loss, NULL, n, wrt, NULL, grad) != CB_OK) FAIL(err, r->g->err.code, "%s", r->g->err.message);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "grad.%s", module_param(of, i)->key);
        if (grad[i]) graph_output(r->g, grad[i], name);
    }
    return runner_plan(r, b->store, err);
}

static enum cb_status golden_run(struct base *b, struct runner *r, struct module_list *list, const struct module *of,
                                 const struct tensors *golden, struct cb_err *err) {
    static const char *const inputs[] = {"input_ids", "attention_mask", "labels"};
    const struct tensor *ids;
    TRY(tensors_need(&ids, golden, "input_ids", err));
    struct model_io io = {
        .batch = ids->type.dim[0], .tokens = ids->type.dim[1], .want_logits = true, .want_loss = true, .attention_mask = true};
    TRY(with_modules(b, r, list, of, &io, err));
    for (int i = 0; i < 3; i++) TRY(runner_fill(r, inputs[i], tensors_find(golden, inputs[i]), err));
    return runner_run(r, err);
}

static double logits_error(struct runner *r, const struct tensors *golden, const char *name) {
    const struct tensor *mask = tensors_find(golden, "attention_mask"), *want = tensors_find(golden, name);
    const float *have = runner_data(r, "logits");
    int64_t rows = type_elements(&mask->type), width = type_elements(&want->type) / rows;
    double worst = 0;
    for (int64_t i = 0; i < rows; i++)
        if (((const int64_t *)tensor_data(mask))[i])
            worst = fmax(worst, worst_error(have + i * width, (const float *)tensor_data(want) + i * width, width));
    return worst;
}

/* The store's weights against "merged.<weight>"; returns how many were compared. */
static int merged_compare(const struct base *b, const struct tensors *golden, const char *name, char message[400]) {
    int n = 0;
    for (int i = 0; i < tensors_count(golden); i++) {
        const struct tensor *t = tensors_at(golden, i);
        if (strncmp(t->name, "merged.", 7) != 0) continue;
        const struct store_entry *entry = store_find(b->store, t->name + 7);
        double e = entry ? worst_error(entry->data, tensor_data(t), type_elements(&t->type)) : INFINITY;
        if (!(e < 1e-5)) snprintf(message, 400, "%s: %.250s: error %g", name, t->name, e);
        n++;
    }
    return n;
}

/* Values, gradients and merged weights of one fixture; "" or a message. */
static void fixture_check(const char *shared, const char *name, char message[400]) {
    struct cb_err err = {0};
    char path[600];
    struct base b = {0};
    struct module *m = NULL;
    struct tensors *golden = NULL;
    struct runner r = {0}, merged = {0};
    const char *family = strncmp(name, "lora_gpt2", 9) == 0 ? "gpt2" : "llama";
    int n_grads = 0, n_merged = 0;
    snprintf(path, sizeof path, "%s/fixtures/modules/base_%s", shared, family);
    *message = 0;
    enum cb_status status = base_open(&b, path, &err);
    snprintf(path, sizeof path, "%s/fixtures/modules/%s", shared, name);
    if (status == CB_OK) status = module_load(&m, b.store, path, "m", &b.sites, &err);
    snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.safetensors", shared, name);
    if (status == CB_OK) status = tensors_open(&golden, path, &err);
    const struct module *const modules[1] = {m};
    struct module_list list = {modules, 1};
    if (status == CB_OK) status = golden_run(&b, &r, &list, m, golden, &err);
    if (status == CB_OK) {
        double e = logits_error(&r, golden, "logits");
        if (!(e < 2e-5)) snprintf(message, 400, "%s: logits: error %g", name, e);
        e = worst_error(runner_data(&r, "loss"), tensor_data(tensors_find(golden, "loss")), 1);
        if (!(e < 1e-5)) snprintf(message, 400, "%s: loss: error %g", name, e);
        // the scale at run time: 0 is the base, in the same plan
        module_set_scale(m, b.store, 0);
        status = runner_run(&r, &err);
        e = logits_error(&r, golden, "logits_base");
        if (m->n_swaps == 0 && !(e < 2e-5)) snprintf(message, 400, "%s: scale 0: error %g", name, e);
        module_set_scale(m, b.store, 1);
    }
    if (status == CB_OK) status = runner_run(&r, &err);
    for (int i = 0; status == CB_OK && i < tensors_count(golden); i++) {
        const struct tensor *t = tensors_at(golden, i);
        // a converted file has twice the rank that was trained: its gradients are another module's
        if (strncmp(t->name, "grad.", 5) != 0 || (runner_data(&r, t->name) && runner_elements(&r, t->name) != type_elements(&t->type)))
            continue;
        const float *have = runner_data(&r, t->name);
        double e = have ? relative_norm(have, tensor_data(t), type_elements(&t->type)) : INFINITY;
        if (!(e < 2e-5)) snprintf(message, 400, "%s: %.250s: error %g", name, t->name, e);
        n_grads++;
    }
    if (status == CB_OK) status = module_fold(m, b.store, false, &err);
    if (status == CB_OK) n_merged = merged_compare(&b, golden, name, message);
    if (status == CB_OK) status = golden_run(&b, &merged, NULL, NULL, golden, &err);
    if (status == CB_OK && !(logits_error(&merged, golden, "logits_merged") < 2e-5))
        snprintf(message, 400, "%s: logits of merged weights", name);
    if (status == CB_OK && ((!n_grads && !strstr(name, "pissa") && !strstr(name, "olora")) || !n_merged))
        snprintf(message, 400, "%s: %d gradients, %d merged weights compared", name, n_grads, n_merged);
    if (status != CB_OK) snprintf(message, 400, "%.60s: %.300s", name, err.message);
    runner_destroy(&r);
    runner_destroy(&merged);
    tensors_destroy(&golden);
    module_destroy(&m);
    base_close(&b);
}

TEST(lora, fixtures) {
    static const char *const names[] = {"lora_gpt2",           "lora_gpt2_bias_lora_only", "lora_llama_list",
                                        "lora_llama_regex",    "lora_llama_all_linear",    "lora_llama_rslora",
                                        "lora_llama_pattern",  "lora_llama_layers",        "lora_llama_exclude",
                                        "lora_llama_embed",    "lora_llama_embed_lm_head", "lora_llama_save_lm_head",
                                        "lora_llama_gaussian", "lora_llama_eva",           "lora_llama_orthogonal",
                                        "lora_llama_pissa",    "lora_llama_olora"};
    const char *shared = shared_dir();
    if (!shared) return;
    char message[400];
    int failed = 0, n = sizeof names / sizeof *names;
    for (int i = 0; i < n; i++) {
        fixture_check(shared, names[i], message);
        if (*message) fprintf(stderr, "%s\n", message);
        failed += *message != 0;
    }
    CHECK(!failed, "%d of %d fixtures failed", failed, n);
}

/* ids that repeat nothing, labels that are ids */
static void inputs_fill(struct runner *r, int32_t vocab) {
    int32_t *ids = runner_data(r, "input_ids"), *labels = runner_data(r, "labels");
    for (int64_t i = 0; i < runner_elements(r, "input_ids"); i++) ids[i] = (int32_t)((i * 7 + 3) % vocab);
    for (int64_t i = 0; labels && i < runner_elements(r, "labels"); i++) labels[i] = (int32_t)((i * 5 + 1) % vocab);
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
    TRY(module_create(&m, b.store, spec, "fresh", "base", 11, &b.sites, err));
    const struct module *modules[1] = {m};
    struct module_list list = {modules, 1};
    TRY(with_modules(&b, &attached, &list, m, &io, err));
    inputs_fill(&attached, (int32_t)b.model->vocab);
    TRY(runner_run(&attached, err));
    int64_t n = runner_elements(&plain, "logits");
    double e = worst_error(runner_data(&attached, "logits"), runner_data(&plain, "logits"), n);
    if (tuner->fresh == TUNER_IS_BASE && e != 0) snprintf(message, 400, "%s on %s: fresh: error %g", spec, family, e);
    // every parameter is moved off its fresh state
    for (int i = 0; i < module_n_params(m); i++) {
        float *p = store_find(b.store, module_param(m, i)->name)->data;
        for (int64_t k = 0; k < type_elements(&module_param(m, i)->type); k++) p[k] += 0.02f * (float)((k * 13 + i) % 11 - 5);
    }
    TRY(runner_run(&attached, err));
    for (int i = 0; i < module_n_params(m); i++) {
        char name[400];
        snprintf(name, sizeof name, "grad.%s", module_param(m, i)->key);
        const float *g = runner_data(&attached, name);
        double norm = 0;
        for (int64_t k = 0; g && k < runner_elements(&attached, name); k++) norm += fabs((double)g[k]);
        if (!(norm > 0) && !strstr(name, "lora_embedding")) snprintf(message, 400, "%s on %s: %.200s is %g", spec, family, name, norm);
    }
    // file and back
    if (!temporary_folder(folder, "lora")) FAIL(err, CB_E_IO, "no temporary folder");
    TRY(module_save(m, b.store, folder, err));
    TRY(module_load(&again, b.store, folder, "again", &b.sites, err));
    modules[0] = again;
    TRY(with_modules(&b, &reloaded, &list, NULL, &io, err));
    inputs_fill(&reloaded, (int32_t)b.model->vocab);
    TRY(runner_run(&reloaded, err));
    e = worst_error(runner_data(&reloaded, "logits"), runner_data(&attached, "logits"), n);
    if (e != 0) snprintf(message, 400, "%s on %s: reloaded: error %g", spec, family, e);
    // folded weights do what the attached module does
    module_set_scale(m, b.store, m->n_swaps ? 1 : 0.5);
    TRY(runner_run(&attached, err));
    TRY(module_fold(m, b.store, false, err));
    TRY(runner_run(&plain, err));
    e = worst_error(runner_data(&plain, "logits"), runner_data(&attached, "logits"), n);
    if (!(e < 1e-5)) snprintf(message, 400, "%s on %s: folded: error %g", spec, family, e);
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

/* Files of PEFT are written back as they were read. */
TEST(lora, file_is_stable) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    char path[600], folder[128], ours[200];
    snprintf(path, sizeof path, "%s/fixtures/modules/base_llama", shared);
    CHECK_OK(base_open(&b, path, &err));
    snprintf(path, sizeof path, "%s/fixtures/modules/lora_llama_pattern", shared);
    CHECK_OK(module_load(&m, b.store, path, "m", &b.sites, &err));
    CHECK(!module_warning(m), "%s", module_warning(m));
    CHECK(temporary_folder(folder, "stable"));
    CHECK_OK(module_save(m, b.store, folder, &err));
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    for (int i = 0; i < 2; i++) {
        char *a, *c;
        size_t n_a, n_c;
        snprintf(path, sizeof path, "%s/fixtures/modules/lora_llama_pattern/%s", shared, files[i]);
        snprintf(ours, sizeof ours, "%s/%s", folder, files[i]);
        CHECK_OK(io_read_file(&a, &n_a, path, 1 << 20, &err));
        CHECK_OK(io_read_file(&c, &n_c, ours, 1 << 20, &err));
        CHECK(n_a == n_c && memcmp(a, c, n_a) == 0, "%s differs from what PEFT wrote", files[i]);
        free(a);
        free(c);
    }
    module_destroy(&m);
    base_close(&b);
}

TEST(lora, strict_files) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    char path[600];
    snprintf(path, sizeof path, "%s/fixtures/modules/base_gpt2", shared);
    CHECK_OK(base_open(&b, path, &err));
    // a module of another model
    snprintf(path, sizeof path, "%s/fixtures/modules/lora_llama_list", shared);
    int before = store_count(b.store);
    CHECK_FAILS(module_load(&m, b.store, path, "m", &b.sites, &err), CB_E_NAME, "v_proj, q_proj");
    snprintf(path, sizeof path, "%s/fixtures/modules/lora_gpt2_dora", shared);
    CHECK_FAILS(module_load(&m, b.store, path, "m", &b.sites, &err), CB_E_UNSUPPORTED, "use_dora");
    CHECK(store_count(b.store) == before, "%d entries were left", store_count(b.store) - before);
    // one name, one module
    snprintf(path, sizeof path, "%s/fixtures/modules/lora_gpt2", shared);
    CHECK_OK(module_load(&m, b.store, path, "m", &b.sites, &err));
    struct module *second;
    CHECK_FAILS(module_load(&second, b.store, path, "m", &b.sites, &err), CB_E_NAME, "m:");
    CHECK(store_find(b.store, "m/scale"));
    module_destroy(&m);
    base_close(&b);
}

TEST(lora, specs) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_FAILS(module_create(&m, b.store, "nosuch:r=2", "m", NULL, 1, &b.sites, &err), CB_E_NAME, "nosuch");
    CHECK_FAILS(module_create(&m, b.store, "lora:rank=2", "m", NULL, 1, &b.sites, &err), CB_E_NAME, "rank");
    CHECK_FAILS(module_create(&m, b.store, "lora:r=two", "m", NULL, 1, &b.sites, &err), CB_E_USAGE, "two");
    CHECK_FAILS(module_create(&m, b.store, "lora:r=0", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "r: ");
    CHECK_FAILS(module_create(&m, b.store, "lora:targets=zzz", "m", NULL, 1, &b.sites, &err), CB_E_NAME, "zzz");
    CHECK_FAILS(module_create(&m, b.store, "lora:init=pissa", "m", NULL, 1, &b.sites, &err), CB_E_UNSUPPORTED, "pissa");
    CHECK_OK(module_create(&m, b.store, "lora:r=2,targets=q_proj+v_proj,layers=1", "m", NULL, 1, &b.sites, &err));
    CHECK(module_n_sites(m) == 2 && strcmp(module_site_name(m, 0), "model.layers.1.self_attn.q_proj") == 0);
    CHECK(module_parameters(m) == 2 * (24 + 24) + 2 * (24 + 12), "%lld parameters", (long long)module_parameters(m));
    const float *a = store_find(b.store, "m/base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight")->data;
    for (int i = 0; i < 48; i++) CHECK(fabsf(a[i]) <= 1 / sqrtf(24) && a[i] != 0);
    module_remove(m, b.store);
    module_destroy(&m);
    CHECK_OK(module_create(&m, b.store, "lora:r=2", "m", NULL, 1, &b.sites, &err));
    CHECK(module_n_sites(m) == 14, "%d sites; all-linear is every linear layer but the head", module_n_sites(m));
    module_destroy(&m);
    base_close(&b);
}

/* The rows of EXPECTED.tsv: refused with the words, or accepted. */
/* The word that fits comes after others' thousands of letters: nothing of the list is cut, and what is too long is refused. */
TEST(lora, long_layers_pattern) {
    struct cb_err err = {0};
    struct base b;
    char folder[128], path[200];
    CHECK(temporary_folder(folder, "layers"));
    CHECK_OK(base_fresh(&b, "llama", &err));
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    for (int words = 10; words <= 60; words += 50) {
        struct module *m = NULL;
        FILE *f = fopen(path, "w");
        CHECK(f);
        if (!f) return;
        fputs("{\"peft_type\": \"LORA\", \"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1], \"layers_pattern\": [", f);
        for (int i = 0; i < words; i++) fprintf(f, "\"%0300d\", ", i);
        fputs("\"layers\"]}", f);
        fclose(f);
        if (words == 10)
            CHECK_OK(module_check_config(&m, path, "m", &b.sites, &err));
        else
            CHECK_FAILS(module_check_config(&m, path, "m", &b.sites, &err), CB_E_LIMIT, "layers_pattern");
        module_destroy(&m);
    }
    base_close(&b);
}

TEST(lora, malformed_configs) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    struct base b;
    char path[600], *text, *line, *rest = NULL;
    size_t n;
    int rows = 0;
    CHECK_OK(base_fresh(&b, "llama", &err));
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/EXPECTED.tsv", shared);
    CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char file[100], expect[20], words[200];
        if (sscanf(line, "adapter_config\t%99[^\t]\t%19[^\t]\t%199[^\t]", file, expect, words) != 3) continue;
        snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/adapter_config/%s", shared, file);
        struct module *m = NULL;
        memset(&err, 0, sizeof err);
        enum cb_status status = module_check_config(&m, path, "m", &b.sites, &err);
        rows++;
        if (strcmp(expect, "accept") == 0) {
            CHECK(status == CB_OK, "%s: %s", file, err.message);
            CHECK(!strstr(file, "unknown") || strstr(module_warning(m), words), "%s: no warning", file);
        } else {
            CHECK(status != CB_OK, "%s was taken", file);
            const char *message = strchr(err.message, ' ');
            char *save = NULL;
            for (char *word = strtok_r(words, ";", &save); word; word = strtok_r(NULL, ";", &save))
                CHECK(message && strstr(message, word), "%s: '%s' lacks %s", file, err.message, word);
        }
        module_destroy(&m);
    }
    CHECK(rows >= 25, "only %d rows", rows);
    free(text);
    base_close(&b);
}
