/* A model with modules in a test, and a fixture against its golden file. */
#include "module_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "io/file.h"
#include "ops/ops.h"

static enum cb_status base_sites(struct base *b, struct cb_err *err) {
    TRY(graph_create(&b->sites_graph, ops_table(), err));
    b->sites = nn_make(b->sites_graph);
    struct model_io io = {.batch = 1, .tokens = 2, .want_logits = true};
    return model_build(b->model, &b->sites, &io, err);
}

enum cb_status base_open(struct base *b, const char *folder, struct cb_err *err) {
    *b = (struct base){0};
    TRY(store_create(&b->store, err));
    TRY(model_load(&b->model, b->store, folder, err));
    return base_sites(b, err);
}

enum cb_status base_fresh(struct base *b, const char *family, struct cb_err *err) {
    return base_class(b, family, model_family(family)->tiny, err);
}

enum cb_status base_class(struct base *b, const char *family, const char *changes, struct cb_err *err) {
    *b = (struct base){0};
    json_t *config;
    TRY(store_create(&b->store, err));
    TRY(model_default_config(&config, model_family(family), changes, err));
    enum cb_status status = model_from_config(&b->model, config, family, err);
    json_decref(config);
    TRY(status);
    TRY(model_init_weights(b->model, b->store, 7, err));
    return base_sites(b, err);
}

/* What makes a family's tiny configuration as wide as a type's blocks want: its own names of widths and heads. */
static const char *wide(const struct family *family, int width, char text[600]) {
    static const char *const widths[] = {"hidden_size",
                                         "n_embd",
                                         "d_model",
                                         "dim",
                                         "embedding_size",
                                         "intermediate_size",
                                         "moe_intermediate_size",
                                         "shared_expert_intermediate_size",
                                         "n_inner",
                                         "ffn_dim",
                                         "hidden_dim",
                                         "d_ff",
                                         "encoder_ffn_dim",
                                         "decoder_ffn_dim",
                                         "word_embed_proj_dim"};
    static const char *const heads[] = {"num_attention_heads",    "n_head", "n_heads", "num_heads", "encoder_attention_heads",
                                        "decoder_attention_heads"};
    json_t *defaults = json_loads(family->defaults, 0, NULL);
    size_t used = (size_t)snprintf(text, 600, "%s", family->tiny);
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        if (json_object_get(defaults, widths[i])) used += (size_t)snprintf(text + used, 600 - used, ",%s=%d", widths[i], width);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (json_object_get(defaults, heads[i])) used += (size_t)snprintf(text + used, 600 - used, ",%s=4", heads[i]);
    if (json_object_get(defaults, "num_key_value_heads")) used += (size_t)snprintf(text + used, 600 - used, ",num_key_value_heads=2");
    if (json_object_get(defaults, "head_dim")) used += (size_t)snprintf(text + used, 600 - used, ",head_dim=%d", width / 4);
    if (json_object_get(defaults, "d_kv")) snprintf(text + used, 600 - used, ",d_kv=8");  // T5's scores are not scaled: they grow with it
    json_decref(defaults);
    return text;
}

static enum cb_status entry_convert(struct store *store, const char *name, enum cb_dtype dtype, struct cb_err *err) {
    const struct store_entry *entry = store_find(store, name);
    const int64_t n = type_elements(&entry->type);
    float *values = malloc((size_t)n * sizeof *values + 1);
    if (!values) FAIL(err, CB_E_MEMORY, "test: out of memory");
    memcpy(values, entry->data, (size_t)n * sizeof *values);
    char copy[300];
    snprintf(copy, sizeof copy, "%s", name);
    struct cb_type type = type_make(dtype, entry->type.rank, entry->type.dim);
    struct store_entry *to;
    store_remove(store, copy);
    enum cb_status status = store_add(store, copy, type, &to, err);
    if (status == CB_OK && !dtype_convert(to->data, dtype, values, CB_DTYPE_F32, n))
        status = err_set(err, CB_E_DTYPE, __FILE__, __LINE__, "test: %s has no encoder", dtype_of(dtype)->name);
    free(values);
    return status;
}

enum cb_status base_typed(struct base *b, const char *name, enum cb_dtype dtype, int *n, struct cb_err *err) {
    const struct family *family = model_family(name);
    char text[600];
    json_t *config;
    *b = (struct base){0};
    *n = 0;
    TRY(store_create(&b->store, err));
    const int width = dtype_of(dtype)->block > 64 ? dtype_of(dtype)->block : 64;
    TRY(model_default_config(&config, family, dtype_of(dtype)->is_quantised ? wide(family, width, text) : family->tiny, err));
    enum cb_status status = model_from_config(&b->model, config, name, err);
    json_decref(config);
    TRY(status);
    TRY(model_init_weights(b->model, b->store, 7, err));
    TRY(base_sites(b, err));
    for (int i = 0; i < b->sites.n_sites && dtype != CB_DTYPE_F32; i++) {
        const struct nn_site *site = b->sites.sites[i];
        const struct store_entry *entry = site->weight ? store_find(b->store, site->weight) : NULL;
        const int block = dtype_of(dtype)->block;
        if (site->kind != NN_LINEAR || !entry || entry->type.dtype != CB_DTYPE_F32 || entry->type.dim[1] % block) continue;
        if (site->weight_is_in_out && dtype_of(dtype)->is_quantised) continue;
        TRY(entry_convert(b->store, site->weight, dtype, err));
        (*n)++;
    }
    return CB_OK;
}

enum cb_status base_copy(struct base *b, const struct base *from, struct cb_err *err) {
    *b = (struct base){.model = from->model, .sites = from->sites, .is_copy = true};
    TRY(store_create(&b->store, err));
    for (int i = 0; i < store_count(from->store); i++) {
        const struct store_entry *entry = store_at(from->store, i);
        struct store_entry *own;
        TRY(store_add(b->store, entry->name, entry->type, &own, err));
        memcpy(own->data, entry->data, (size_t)entry->bytes);
    }
    return CB_OK;
}

void base_close(struct base *b) {
    if (!b->is_copy) model_destroy(&b->model);
    graph_destroy(&b->sites_graph);
    store_destroy(&b->store);
}

enum cb_status with_modules(struct base *b, struct runner *r, struct module_list *list, const struct module *of,
                            const struct model_io *wanted, struct cb_err *err) {
    struct model_io io = *wanted;
    enum { MOST = 512 };
    struct cb_tensor *wrt[MOST], *grad[MOST];
    char name[400];
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    nn.param_dtype = store_dtype;
    nn.dtype_user = b->store;
    if (list) nn.hook = module_hook(list);
    TRY(model_build(b->model, &nn, &io, err));
    const char *key[MOST];
    int n = 0, all = of ? module_n_params(of) : 0;
    if (all > MOST) FAIL(err, CB_E_LIMIT, "test: %d parameters", all);
    for (int i = 0; i < all; i++) {
        if (!module_param(of, i)->is_trained) continue;
        wrt[n] = graph_find_leaf(r->g, module_param(of, i)->name);
        if (!wrt[n]) FAIL(err, CB_E_NAME, "%s: not in the graph", module_param(of, i)->name);
        key[n++] = module_param(of, i)->key;
    }
    if (n && graph_grad(r->g, io.loss, NULL, n, wrt, NULL, grad) != CB_OK) FAIL(err, r->g->err.code, "%s", r->g->err.message);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "grad.%s", key[i]);
        if (grad[i]) graph_output(r->g, grad[i], name);
    }
    return runner_plan(r, b->store, err);
}

static enum cb_status evaluate(void *user, struct cb_graph *g, const struct store *store, int n, const char *const *names,
                               float *const *out, struct cb_err *err) {
    (void)user;
    struct runner r = {.g = g};
    enum cb_status status = pool_create(&r.pool, 2, err);
    if (status == CB_OK) status = runner_plan(&r, store, err);
    if (status == CB_OK) status = runner_run(&r, err);
    for (int i = 0; status == CB_OK && i < n; i++)
        memcpy(out[i], runner_data(&r, names[i]), (size_t)runner_elements(&r, names[i]) * sizeof(float));
    r.g = NULL;
    runner_destroy(&r);
    return status;
}
struct module_evaluator test_evaluator(void) {
    return (struct module_evaluator){ops_table(), evaluate, NULL};
}

enum cb_status base_fold(struct base *b, const struct module *m, bool unfold, struct cb_err *err) {
    const struct module_evaluator evaluator = test_evaluator();
    const struct module_list list = {.modules = &m, .n = 1};
    return module_fold(&list, b->store, unfold, &evaluator, err);
}

static enum cb_status golden_run(struct base *b, struct runner *r, struct module_list *list, const struct module *of,
                                 const struct tensors *golden, const json_t *json, struct cb_err *err) {
    static const char *const inputs[] = {"input_ids", "attention_mask", "labels"};
    const struct tensor *ids;
    TRY(tensors_need(&ids, golden, "input_ids", err));
    struct model_io io = {.batch = ids->type.dim[0], .tokens = ids->type.dim[1], .want_logits = true, .want_loss = true};
    io.attention_mask = tensors_find(golden, "attention_mask") != NULL;
    io.want_hidden = tensors_find(golden, "hidden") != NULL;
    TRY(with_modules(b, r, list, of, &io, err));
    for (int i = 0; i < 3; i++)
        if (tensors_find(golden, inputs[i])) TRY(runner_fill(r, inputs[i], tensors_find(golden, inputs[i]), err));
    int32_t *tasks = runner_data(r, "task_ids");
    for (int64_t i = 0; tasks && i < io.batch; i++)
        tasks[i] = (int32_t)json_integer_value(json_array_get(json_object_get(json, "task_ids"), (size_t)i));
    return runner_run(r, err);
}

/* Worst error of an output against tensor `name`, over the rows whose mask is 1 where there is a mask a row. */
static double rows_error(struct runner *r, const char *output, const struct tensors *golden, const char *name) {
    const struct tensor *mask = tensors_find(golden, "attention_mask"), *want = tensors_find(golden, name);
    const float *have = runner_data(r, output), *values = want ? tensor_data(want) : NULL;
    if (!have || !want || runner_elements(r, output) != type_elements(&want->type)) return INFINITY;
    const bool by_row = mask && want->type.rank == 3 && want->type.dim[1] == mask->type.dim[1];
    int64_t rows = by_row ? type_elements(&mask->type) : 1, width = type_elements(&want->type) / rows;
    double worst = 0;
    for (int64_t i = 0; i < rows; i++)
        if (!by_row || ((const int64_t *)tensor_data(mask))[i])
            worst = fmax(worst, worst_error(have + i * width, values + i * width, width));
    return worst;
}

static double logits_error(struct runner *r, const struct tensors *golden, const char *name) {
    return rows_error(r, "logits", golden, name);
}

/* The store's weights against "merged.<weight>"; returns how many were compared. */
static int merged_compare(const struct base *b, const struct tensors *golden, double tolerance, const char *name, char message[400]) {
    int n = 0;
    for (int i = 0; i < tensors_count(golden); i++) {
        const struct tensor *t = tensors_at(golden, i);
        if (strncmp(t->name, "merged.", 7) != 0) continue;
        const struct store_entry *entry = store_find(b->store, t->name + 7);
        if (!entry && b->model->tied && strcmp(t->name + 7, "lm_head.weight") == 0) entry = store_find(b->store, b->model->embedding);
        double e = entry ? worst_error(entry->data, tensor_data(t), type_elements(&t->type)) : INFINITY;
        if (!(e <= tolerance)) snprintf(message, 400, "%s: %.250s: error %g", name, t->name, e);
        n++;
    }
    return n;
}

/* The layers that a folder's module wants. */
static enum cb_status base_replicate(struct base *b, const char *folder, struct cb_err *err) {
    char path[700];
    int *source, n;
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    if (access(path, R_OK) != 0) return CB_OK;
    TRY(module_layers(&source, &n, folder, b->model->n_layer, err));
    enum cb_status status = n ? model_replicate(&b->model, b->store, source, n, err) : CB_OK;
    free(source);
    if (!n || status != CB_OK) return status;
    graph_destroy(&b->sites_graph);
    return base_sites(b, err);
}

enum cb_status case_module(struct module **m, struct store *store, const char *folder, const struct nn *sites, struct cb_err *err) {
    char path[700];
    struct tensors *tensors;
    snprintf(path, sizeof path, "%s/delta.safetensors", folder);
    if (access(path, R_OK) != 0) return module_load(m, store, folder, "m", sites, err);
    json_t *config = json_pack("{s:s}", "peft_type", "BITFIT");
    TRY(tensors_open(&tensors, path, err));
    if (tensors_find(tensors, "classifier.weight")) json_object_set_new(config, "modules_to_save", json_pack("[s]", "classifier"));
    enum cb_status status = module_make(m, store, config, tensors_name(tensors), tensors, "m", sites, err);
    tensors_destroy(&tensors);
    json_decref(config);
    return status;
}

/* Everything of one fixture. */
struct fixture {
    const char *name, *folder;  // folder: of the module; NULL: the case's
    struct base b;
    struct module *m;
    struct tensors *golden;
    json_t *json;
    struct runner attached, merged;
    char *message;  // 400 bytes
};

static double tolerance(const struct fixture *f, const char *key, double least) {
    const json_t *value = json_object_get(json_object_get(f->json, "tolerance"), key);
    return fmax(least, json_number_value(value));
}

static enum cb_status fixture_open(struct fixture *f, const char *shared, struct cb_err *err) {
    char path[600], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.json", shared, f->name);
    TRY(io_read_file(&text, &n, path, 1 << 24, err));
    enum cb_status status = json_parse_object(&f->json, text, n, path, err);
    free(text);
    TRY(status);
    snprintf(path, sizeof path, "%s/fixtures/modules/%s", shared, json_string_value(json_object_get(f->json, "base")));
    TRY(base_open(&f->b, path, err));
    snprintf(path, sizeof path, "%s/fixtures/modules/%s", shared, f->name);
    if (f->folder) snprintf(path, sizeof path, "%s", f->folder);
    TRY(base_replicate(&f->b, path, err));
    TRY(case_module(&f->m, f->b.store, path, &f->b.sites, err));
    snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.safetensors", shared, f->name);
    return tensors_open(&f->golden, path, err);
}

static enum cb_status attached_check(struct fixture *f, struct cb_err *err) {
    const struct module *const modules[1] = {f->m};
    struct module_list list = {.modules = modules, .n = 1};
    struct runner *r = &f->attached;
    TRY(golden_run(&f->b, r, &list, f->m, f->golden, f->json, err));
    double e = logits_error(r, f->golden, "logits");
    if (!(e < tolerance(f, "logits", 2e-5))) snprintf(f->message, 400, "%s: logits: error %g", f->name, e);
    e = worst_error(runner_data(r, "loss"), tensor_data(tensors_find(f->golden, "loss")), 1);
    if (!(e < tolerance(f, "loss", 1e-5))) snprintf(f->message, 400, "%s: loss: error %g", f->name, e);
    if (tensors_find(f->golden, "hidden")) {
        e = rows_error(r, "final", f->golden, "hidden");
        if (!(e < tolerance(f, "logits", 2e-5))) snprintf(f->message, 400, "%s: hidden: error %g", f->name, e);
    }
    // an additive module's scale at run time: 0 is the base, in the same plan
    if (!f->m->is_additive || f->m->n_swaps || f->m->n_new_rows || !tensors_find(f->golden, "logits_base")) return CB_OK;
    if (json_is_array(json_object_get(f->m->config, "layer_replication"))) return CB_OK;  // another model
    module_set_scale(f->m, f->b.store, 0);
    TRY(runner_run(r, err));
    e = logits_error(r, f->golden, "logits_base");
    if (!(e < 2e-5)) snprintf(f->message, 400, "%s: scale 0: error %g", f->name, e);
    module_set_scale(f->m, f->b.store, 1);
    return runner_run(r, err);
}

/* Gradients under the keys of the file; those of another shape are of what the file was converted from. */
static int gradients_check(struct fixture *f) {
    int n = 0;
    for (int i = 0; i < tensors_count(f->golden); i++) {
        const struct tensor *t = tensors_at(f->golden, i);
        struct runner *r = &f->attached;
        if (strncmp(t->name, "grad.", 5) != 0) continue;
        const float *have = runner_data(r, t->name);
        n++;
        if (have && runner_elements(r, t->name) != type_elements(&t->type)) continue;
        double e = have ? relative_norm(have, tensor_data(t), type_elements(&t->type)) : INFINITY;
        // one that is zero in exact arithmetic is rounding alone
        if (have && worst_error(have, tensor_data(t), type_elements(&t->type)) < 1e-7) continue;
        if (!(e < tolerance(f, "grad_relative", 2e-5))) snprintf(f->message, 400, "%s: %.250s: error %g", f->name, t->name, e);
    }
    return n;
}

/* Where the library's own merge is its attached module: folded weights and what they give. */
static enum cb_status merged_check(struct fixture *f, struct cb_err *err) {
    const json_t *merge = json_object_get(f->json, "merge");
    if (!json_is_true(json_object_get(merge, "supported"))) return CB_OK;
    if (json_number_value(json_object_get(merge, "merged_vs_attached_max_difference")) > 1e-4) return CB_OK;
    TRY(base_fold(&f->b, f->m, false, err));
    if (!merged_compare(&f->b, f->golden, tolerance(f, "merged", 1e-5), f->name, f->message))
        snprintf(f->message, 400, "%s: no merged weights compared", f->name);
    if (f->m->head) return CB_OK;  // these logits are of its own head, which is no weight of the model
    TRY(golden_run(&f->b, &f->merged, NULL, NULL, f->golden, f->json, err));
    const char *want = tensors_find(f->golden, "logits_merged") ? "logits_merged" : "logits";
    if (!(logits_error(&f->merged, f->golden, want) < tolerance(f, "logits", 2e-5)))
        snprintf(f->message, 400, "%s: logits of merged weights", f->name);
    return CB_OK;
}

void module_fixture_check(const char *shared, const char *name, char message[400]) { module_folder_check(shared, name, NULL, message); }

void module_folder_check(const char *shared, const char *name, const char *folder, char message[400]) {
    struct cb_err err = {0};
    struct fixture f = {.name = name, .folder = folder, .message = message};
    *message = 0;
    enum cb_status status = fixture_open(&f, shared, &err);
    if (status == CB_OK) status = attached_check(&f, &err);
    if (status == CB_OK && !gradients_check(&f)) snprintf(message, 400, "%s: no gradients compared", name);
    if (status == CB_OK) status = merged_check(&f, &err);
    if (status != CB_OK) snprintf(message, 400, "%.60s: %.300s", name, err.message);
    runner_destroy(&f.attached);
    runner_destroy(&f.merged);
    tensors_destroy(&f.golden);
    module_destroy(&f.m);
    base_close(&f.b);
    json_decref(f.json);
}

int module_fixtures_check(const char *shared, const char *const *names) {
    int failed = 0;
    char message[400];
    for (; *names; names++) {
        module_fixture_check(shared, *names, message);
        if (*message) fprintf(stderr, "%s\n", message);
        failed += *message != 0;
    }
    return failed;
}

void inputs_fill(struct runner *r, int32_t vocab) {
    int32_t *ids = runner_data(r, "input_ids"), *labels = runner_data(r, "labels");
    for (int64_t i = 0; i < runner_elements(r, "input_ids"); i++) ids[i] = (int32_t)((i * 7 + 3) % vocab);
    for (int64_t i = 0; labels && i < runner_elements(r, "labels"); i++) labels[i] = (int32_t)((i * 5 + 1) % vocab);
}
