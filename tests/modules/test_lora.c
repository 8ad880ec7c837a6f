/* LoRA beside PEFT: the fixtures' logits, loss, gradients by the keys of their files, merged weights; files, refusals. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/safetensors.h"
#include "module_case.h"

TEST(lora, fixtures) {
    static const char *const names[] = {"lora_gpt2",
                                        "lora_gpt2_bias_lora_only",
                                        "lora_gpt2_dora",
                                        "lora_gpt2_pissa",
                                        "lora_bert_seqcls",
                                        "lora_roberta_seqcls",
                                        "lora_llama_list",
                                        "lora_llama_regex",
                                        "lora_llama_all_linear",
                                        "lora_llama_dora",
                                        "lora_llama_dora_rslora",
                                        "lora_llama_rslora",
                                        "lora_llama_pattern",
                                        "lora_llama_layers",
                                        "lora_llama_exclude",
                                        "lora_llama_embed",
                                        "lora_llama_embed_lm_head",
                                        "lora_llama_save_lm_head",
                                        "lora_llama_gaussian",
                                        "lora_llama_init_default",
                                        "lora_llama_eva",
                                        "lora_llama_orthogonal",
                                        "lora_llama_pissa",
                                        "lora_llama_pissa_rslora",
                                        "lora_llama_olora",
                                        "lora_llama_tokens",
                                        "lora_llama_layer_replication",
                                        "lora_qwen2_bias_all",
                                        "lora_qwen2_embed_tied",
                                        "lora_qwen2_lora_bias",
                                        "lora_qwen2_tokens_tied",
                                        NULL};
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, names);
    CHECK(!failed, "%d fixtures failed", failed);
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

/* ---- starts that move a part of the weight */
struct start {
    const char *name, *base, *spec;
};
static const struct start starts[] = {
    {"lora_llama_pissa", "base_llama", "lora:r=4,alpha=8,targets=q_proj+down_proj,init=pissa"},
    {"lora_llama_pissa_rslora", "base_llama", "lora:r=4,alpha=8,targets=q_proj,init=pissa,rslora=true"},
    {"lora_gpt2_pissa", "base_gpt2", "lora:r=3,alpha=6,targets=c_fc,init=pissa"},
    {"lora_llama_olora", "base_llama", "lora:r=4,alpha=8,targets=q_proj+down_proj,init=olora"},
};

/* Worst difference of b a at any place from that of two others. */
static double product_error(const float *a, const float *b, const float *c, const float *d, int64_t r, int64_t in, int64_t out) {
    double worst = 0;
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < in; i++) {
            double x = 0, y = 0;
            for (int64_t k = 0; k < r; k++) {
                x += (double)b[o * r + k] * (double)a[k * in + i];
                y += (double)d[o * r + k] * (double)c[k * in + i];
            }
            worst = fmax(worst, fabs(x - y));
        }
    return worst;
}

/* The products B A of a fresh module beside the library's; signs of singular vectors are free. */
static int starts_compare(const struct base *b, const struct module *m, const struct tensors *golden) {
    int bad = 0;
    char name[400];
    for (int i = 0; i < m->n_sites; i++) {
        const struct nn_site *site = &m->sites[i].site;
        const struct tensor *t[2];
        const float *own[2];
        for (int k = 0; k < 2; k++) {
            const struct module_param *p = &m->params[m->sites[i].param[k]].public;
            snprintf(name, sizeof name, "init.%s", p->key);
            t[k] = tensors_find(golden, name);
            own[k] = store_find(b->store, p->name)->data;
        }
        bad += !t[0] || !t[1] ||
               !(product_error(own[0], own[1], tensor_data(t[0]), tensor_data(t[1]), m->sites[i].rank, site->in, site->out) < 2e-6);
    }
    return bad;
}

/* The weights that a module as it was trained gives, beside the merged ones of the library. */
static int merged_differ(const struct base *b, const struct tensors *golden) {
    int bad = 0, n = 0;
    for (int i = 0; i < tensors_count(golden); i++) {
        const struct tensor *t = tensors_at(golden, i);
        if (strncmp(t->name, "merged.", 7) != 0) continue;
        bad += !(worst_error(store_find(b->store, t->name + 7)->data, tensor_data(t), type_elements(&t->type)) < 1e-5);
        n++;
    }
    return n ? bad : -1;
}

TEST(lora, starts) {
    const char *shared = shared_dir();
    if (!shared) return;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        struct cb_err err = {0};
        struct base b;
        struct module *m, *plain;
        struct tensors *golden;
        char path[600], folder[128];
        snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.safetensors", shared, starts[i].name);
        CHECK_OK(tensors_open(&golden, path, &err));
        snprintf(path, sizeof path, "%s/fixtures/modules/%s", shared, starts[i].base);
        CHECK_OK(base_open(&b, path, &err));
        CHECK_OK(module_create(&m, b.store, starts[i].spec, "fresh", NULL, 1, &b.sites, &err));
        CHECK(!starts_compare(&b, m, golden), "%s: other products", starts[i].name);
        // saved as plain LoRA of twice the rank, which changes nothing yet
        CHECK(temporary_folder(folder, "start"));
        CHECK_OK(module_save(m, b.store, folder, &err));
        CHECK_OK(module_load(&plain, b.store, folder, "plain", &b.sites, &err));
        CHECK(plain->sites[0].rank == 2 * m->sites[0].rank && fabs(plain->sites[0].scale - m->sites[0].scale) < 1e-6);
        module_destroy(&m);
        module_destroy(&plain);
        // as it was trained, for the weight that the start leaves: the part is found again
        snprintf(path, sizeof path, "%s/fixtures/modules/%s/unconverted", shared, starts[i].name);
        CHECK_OK(module_load(&m, b.store, path, "m", &b.sites, &err));
        CHECK_OK(base_fold(&b, m, false, &err));
        CHECK(!merged_differ(&b, golden), "%s: other weights", starts[i].name);
        module_destroy(&m);
        tensors_destroy(&golden);
        base_close(&b);
    }
}

/* Two at once are folded together: DoRA's norms are those of the base's own weights. */
TEST(lora, folded_together) {
    static const char *const names[] = {"multi_active_lora", "multi_active_lora_dora"};
    const char *shared = shared_dir();
    if (!shared) return;
    for (int i = 0; i < 2; i++) {
        struct cb_err err = {0};
        struct base b;
        struct module *m[2];
        struct tensors *golden;
        char path[600];
        snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.safetensors", shared, names[i]);
        CHECK_OK(tensors_open(&golden, path, &err));
        snprintf(path, sizeof path, "%s/fixtures/modules/base_llama", shared);
        CHECK_OK(base_open(&b, path, &err));
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/fixtures/modules/%s/%c", shared, names[i], 'a' + k);
            CHECK_OK(module_load(&m[k], b.store, path, k ? "b" : "a", &b.sites, &err));
        }
        const struct module_evaluator evaluator = test_evaluator();
        const struct module *const modules[2] = {m[0], m[1]};
        const struct module_list list = {.modules = modules, .n = 2};
        CHECK_OK(module_fold(&list, b.store, false, &evaluator, &err));
        CHECK(!merged_differ(&b, golden), "%s: other weights", names[i]);
        for (int k = 0; k < 2; k++) module_destroy(&m[k]);
        tensors_destroy(&golden);
        base_close(&b);
    }
}

/* What was drawn cannot be found again. */
TEST(lora, drawn_start_is_refused) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    char folder[128], path[200];
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK(temporary_folder(folder, "drawn"));
    CHECK_OK(module_create(&m, b.store, "lora:r=2", "m", NULL, 1, &b.sites, &err));
    CHECK_OK(module_save(m, b.store, folder, &err));
    module_destroy(&m);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    static const char config[] =
        "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": \"all-linear\", \"init_lora_weights\": \"pissa_niter_4\"}";
    CHECK_OK(io_write_file(path, config, sizeof config - 1, &err));
    CHECK_FAILS(module_load(&m, b.store, folder, "again", &b.sites, &err), CB_E_UNSUPPORTED, "pissa_niter");
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
    CHECK_FAILS(module_create(&m, b.store, "lora:r=99999999999999999999", "m", NULL, 1, &b.sites, &err), CB_E_USAGE,
                "found 99999999999999999999;");
    CHECK_FAILS(module_create(&m, b.store, "lora:r=0", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "r: ");
    CHECK_FAILS(module_create(&m, b.store, "lora:targets=zzz", "m", NULL, 1, &b.sites, &err), CB_E_NAME, "zzz");
    CHECK_FAILS(module_create(&m, b.store, "lora:targets=input_layernorm", "m", NULL, 1, &b.sites, &err), CB_E_NAME,
                "a module of kind lora cannot change model.layers.0.input_layernorm");
    CHECK_FAILS(module_create(&m, b.store, "lora:init=pisa", "m", NULL, 1, &b.sites, &err), CB_E_UNSUPPORTED, "pissa");
    CHECK_FAILS(module_create(&m, b.store, "lora:r=20,init=pissa", "m", NULL, 1, &b.sites, &err), CB_E_SHAPE, "rank 20");
    CHECK_FAILS(module_create(&m, b.store, "lora:r=3,init=orthogonal", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "even");
    CHECK_FAILS(module_create(&m, b.store, "lora:init=mica,dora=true", "m", NULL, 1, &b.sites, &err), CB_E_UNSUPPORTED, "use_dora");
    CHECK_FAILS(module_create(&m, b.store, "lora:tokens=3+3", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "twice");
    CHECK_FAILS(module_create(&m, b.store, "lora:tokens=999999", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "999999");
    CHECK_FAILS(module_create(&m, b.store, "lora:tokens=1,targets=embed_tokens", "m", NULL, 1, &b.sites, &err), CB_E_UNSUPPORTED,
                "embed_tokens");
    CHECK_FAILS(module_create(&m, b.store, "lora:tokens=1,save=embed_tokens", "m", NULL, 1, &b.sites, &err), CB_E_FORMAT, "embed_tokens");
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

/* Llama's queries are 24 x 24, its values 24 x 12. */
TEST(lora, ranks_that_no_weight_has) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    char folder[128], path[200];
    CHECK(temporary_folder(folder, "rank"));
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_FAILS(module_create(&m, b.store, "lora:r=25", "m", NULL, 1, &b.sites, &err), CB_E_SHAPE, "24 at most");
    CHECK_FAILS(module_create(&m, b.store, "lora:r=13,targets=v_proj", "m", NULL, 1, &b.sites, &err), CB_E_SHAPE,
                "rank 13 is larger than the smaller side of every weight that it changes, 12 at most (model.layers.0.self_attn.v_proj)");
    // one that has room is enough
    CHECK_OK(module_create(&m, b.store, "lora:r=13,targets=q_proj+v_proj", "m", NULL, 1, &b.sites, &err));
    module_remove(m, b.store);
    module_destroy(&m);
    // a file is read as it is
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    const char text[] = "{\"peft_type\": \"LORA\", \"r\": 99, \"target_modules\": [\"v_proj\"]}";
    CHECK_OK(io_write_file(path, text, strlen(text), &err));
    CHECK_OK(module_check_config(&m, path, "m", &b.sites, &err));
    module_destroy(&m);
    base_close(&b);
}

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

/* Files may hold no path with ".."; the user's may have some, and its absolute form is kept. */
TEST(lora, base_by_a_path_that_climbs) {
    struct cb_err err = {0};
    struct base b;
    struct module *m = NULL;
    CHECK_OK(base_fresh(&b, "llama", &err));
    CHECK_OK(module_create(&m, b.store, "lora:r=2", "m", "../..", 1, &b.sites, &err));
    const char *base = json_string_value(json_object_get(m->config, "base_model_name_or_path"));
    CHECK(base && *base == '/' && !strstr(base, ".."), "%s", base ? base : "none");
    module_destroy(&m);
    base_close(&b);
}
