/* Every fixture whose family is known: outputs, loss, gradients, and greedy ids by whole passes and by the cache. */
#include <dirent.h>

#include "../harness.h"
#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "graph_runner.h"
#include "io/file.h"
#include "models/model.h"
#include "ops/ops.h"
#include "run/session.h"

/* Stored weights keep their type; vectors are cast by nn. */
static enum cb_dtype stored_dtype(void *user, const char *name) {
    const struct store_entry *entry = store_find(user, name);
    return entry ? entry->type.dtype : CB_DTYPE_F32;
}

struct fixture {
    const char *name, *config;  // config: another file than config.json, or NULL
    char folder[600];
    struct store *store;
    struct model *model;
    struct tensors *golden;
    json_t *json;
};

static enum cb_status fixture_open(struct fixture *f, const char *root, struct cb_err *err) {
    snprintf(f->folder, sizeof f->folder, "%s/%s", root, f->name);
    char path[700];
    TRY(store_create(&f->store, err));
    TRY(model_load(&f->model, f->store, f->folder, err));
    if (f->config) {
        snprintf(path, sizeof path, "%s/%s", f->folder, f->config);
        model_destroy(&f->model);
        TRY(model_check_config(&f->model, path, err));
    }
    snprintf(path, sizeof path, "%s/golden.safetensors", f->folder);
    TRY(tensors_open(&f->golden, path, err));
    snprintf(path, sizeof path, "%s/golden.json", f->folder);
    char *text;
    size_t n;
    TRY(io_read_file(&text, &n, path, 1 << 20, err));
    enum cb_status status = json_parse_object(&f->json, text, n, path, err);
    free(text);
    return status;
}

static void fixture_close(struct fixture *f) {
    json_decref(f->json);
    tensors_destroy(&f->golden);
    model_destroy(&f->model);
    store_destroy(&f->store);
}

/* Builds outputs and, where the fixture has gradients, "grad.<weight>" of every weight. */
static enum cb_status gradients_build(struct fixture *f, struct runner *r, struct cb_tensor *loss, struct cb_err *err) {
    int n = 0, n_all = tensors_count(f->golden);
    struct cb_tensor **wrt = calloc((size_t)n_all + 1, sizeof *wrt), **grad = calloc((size_t)n_all + 1, sizeof *grad);
    enum cb_status status = wrt && grad ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "no memory for gradients");
    for (int i = 0; status == CB_OK && i < n_all; i++) {
        const char *name = tensors_at(f->golden, i)->name;
        if (strncmp(name, "grad.", 5) != 0) continue;
        bool ignored;
        const char *own = model_weight_name(f->model, name + 5, &ignored);
        if (!own || !(wrt[n] = graph_find_leaf(r->g, own)))
            status = err_set(err, CB_E_NAME, __FILE__, __LINE__, "%s: no such weight in the graph", name);
        else
            n++;
    }
    if (status == CB_OK && n && graph_grad(r->g, loss, NULL, n, wrt, NULL, grad) != CB_OK)
        status = err_set(err, r->g->err.code, __FILE__, __LINE__, "%s", r->g->err.message);
    for (int i = 0; status == CB_OK && i < n; i++) {
        char name[300];
        snprintf(name, sizeof name, "grad.%s", graph_leaf_name(wrt[i]));
        if (grad[i]) graph_output(r->g, grad[i], name);
    }
    free(wrt);
    free(grad);
    return status;
}

/* Whether golden.json lists name under key. */
static bool listed(const struct fixture *f, const char *key, const char *name) {
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(f->json, key), i, value) if (strcmp(json_string_value(value), name) == 0) return true;
    return false;
}

static enum cb_status forward_build(struct fixture *f, struct runner *r, struct cb_err *err) {
    const struct tensor *ids, *labels = tensors_find(f->golden, "labels");
    TRY(tensors_need(&ids, f->golden, "input_ids", err));
    struct model_io io = {.want_logits = true, .want_hidden = true, .batch = ids->type.dim[0], .tokens = ids->type.dim[ids->type.rank - 1]};
    if (ids->type.rank == 3) io.batch *= io.choices = ids->type.dim[1];
    io.want_loss = tensors_find(f->golden, "loss");
    io.attention_mask = listed(f, "inputs", "attention_mask");
    io.position_ids = listed(f, "inputs", "position_ids");
    io.token_types = listed(f, "inputs", "token_type_ids") && f->model->n_types > 0;
    const struct tensor *decoder = tensors_find(f->golden, "decoder_input_ids");
    io.decoder_ids = decoder;
    if (!decoder && f->model->class->head->shifts_labels) decoder = labels;
    if (f->model->family->encoder_decoder && decoder) io.decoder_tokens = decoder->type.dim[1];
    io.float_labels = labels && dtype_of(labels->type.dtype)->is_float;
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    nn.param_dtype = stored_dtype;
    nn.dtype_user = f->store;
    TRY(model_build(f->model, &nn, &io, err));
    return gradients_build(f, r, io.loss, err);
}

static enum cb_status forward_fill(struct fixture *f, struct runner *r, struct cb_err *err) {
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(f->json, "inputs"), i, value) {
        const struct tensor *t = tensors_find(f->golden, json_string_value(value));
        if (t && runner_data(r, t->name)) TRY(runner_fill(r, t->name, t, err));
    }
    return CB_OK;
}

/* Worst error of an output, over the rows whose mask is 1 where golden.json says so. */
static double masked_error(struct fixture *f, struct runner *r, const struct tensor *want) {
    // a router's rows are the tokens, padding included
    bool has_rows = listed(f, "compare_where_mask_is_1", want->name) || strncmp(want->name, "router_logits.", 14) == 0;
    const struct tensor *mask = has_rows ? tensors_find(f->golden, "attention_mask") : NULL;
    const float *have = runner_data(r, want->name), *value = tensor_data(want);
    int64_t n = type_elements(&want->type);
    if (!have || runner_elements(r, want->name) != n) return INFINITY;
    if (!mask) return worst_error(have, value, n);
    int64_t rows = type_elements(&mask->type), width = n / rows;
    double worst = 0;
    for (int64_t i = 0; i < rows; i++)
        if (((const int64_t *)tensor_data(mask))[i]) worst = fmax(worst, worst_error(have + i * width, value + i * width, width));
    return worst;
}

/* ||a - b|| / ||b||, or 0 where no value is farther off than rounding: gradients that are 0 in exact numbers. */
static double gradient_error(const float *a, const float *b, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] - b[i]));
    return most <= 1e-7 ? 0 : relative_norm(a, b, n);
}

/* Compares every tensor of the golden file that is an output; returns how many were, or -1 with a message. */
static int forward_compare(struct fixture *f, struct runner *r, char message[300]) {
    int n = 0;
    for (int i = 0; i < tensors_count(f->golden); i++) {
        const struct tensor *want = tensors_at(f->golden, i);
        bool is_grad = strncmp(want->name, "grad.", 5) == 0;
        bool is_wanted = is_grad || strstr(want->name, "hidden.") || strcmp(want->name, "final") == 0 || listed(f, "outputs", want->name);
        const float *have = listed(f, "inputs", want->name) ? NULL : runner_data(r, want->name);
        if (!have && !is_wanted) continue;
        double error = !have     ? INFINITY
                       : is_grad ? gradient_error(have, tensor_data(want), type_elements(&want->type))
                                 : masked_error(f, r, want);
        snprintf(message, 300, "%s: %s: error %g", f->name, want->name, error);
        if (!(error <= 2e-5)) return -1;
        n++;
    }
    *message = 0;
    return n;
}

/* The next id after ids by a graph of exactly n tokens; of an encoder-decoder the first n_source of them are its source. */
static enum cb_status greedy_whole(struct fixture *f, const int32_t *ids, int n, int n_source, int32_t *next, struct cb_err *err) {
    const bool has_source = f->model->family->encoder_decoder;
    const int n_decoder = n - n_source + 1;
    struct runner r;
    enum cb_status status = runner_create(&r, err);
    struct nn nn = nn_make(r.g);
    nn.param_dtype = stored_dtype;
    nn.dtype_user = f->store;
    struct model_io io = {.batch = 1, .tokens = has_source ? n_source : n, .want_logits = true, .last_only = true};
    if (has_source) io.decoder_tokens = n_decoder;
    if (status == CB_OK) status = model_build(f->model, &nn, &io, err);
    if (status == CB_OK) status = runner_plan(&r, f->store, err);
    if (status == CB_OK) {
        memcpy(runner_data(&r, "input_ids"), ids, (size_t)io.tokens * sizeof *ids);
        *(int32_t *)runner_data(&r, "last") = (has_source ? n_decoder : n) - 1;
        int32_t *decoder = runner_data(&r, "decoder_input_ids");
        if (decoder) *decoder = (int32_t)f->model->decoder_start;
        if (decoder) memcpy(decoder + 1, ids + n_source, (size_t)(n_decoder - 1) * sizeof *ids);
        status = runner_run(&r, err);
    }
    if (status == CB_OK) {
        const float *logits = runner_data(&r, "logits");
        *next = 0;
        for (int32_t i = 1; i < f->model->vocab; i++)
            if (logits[i] > logits[*next]) *next = i;
    }
    runner_destroy(&r);
    return status;
}

/* Greedy ids by a cache, one token a run (the prompt too); ids: the prompt, then room for `total`. */
static enum cb_status greedy_cached(struct fixture *f, int32_t *ids, int n_prompt, int total, struct cb_err *err) {
    struct runner r;
    enum cb_status status = runner_create(&r, err);
    struct nn nn = nn_make(r.g);
    nn.param_dtype = stored_dtype;
    nn.dtype_user = f->store;
    struct model_io io = {.batch = 1, .tokens = 1, .want_logits = true, .cache = total, .attention_mask = true};
    if (status == CB_OK) status = model_build(f->model, &nn, &io, err);
    if (status == CB_OK) status = runner_plan(&r, f->store, err);
    int32_t *mask = status == CB_OK ? runner_data(&r, "attention_mask") : NULL;
    for (int t = 0; mask && t < total; t++) mask[t] = 1;
    for (int t = 0; status == CB_OK && t + 1 < total; t++) {
        *(int32_t *)runner_data(&r, "input_ids") = ids[t];
        *(int32_t *)runner_data(&r, "start") = t;
        status = runner_run(&r, err);
        const float *logits = runner_data(&r, "logits");
        int32_t best = 0;
        for (int32_t i = 1; i < f->model->vocab; i++)
            if (logits[i] > logits[best]) best = i;
        if (t + 1 >= n_prompt) ids[t + 1] = best;
    }
    runner_destroy(&r);
    return status;
}

/* The same of an encoder-decoder, whose source is the prompt, by a session. */
static enum cb_status greedy_session(struct fixture *f, int32_t *ids, int n_prompt, int total, struct cb_err *err) {
    struct pool *pool = NULL;
    struct session *s = NULL;
    const float *logits = NULL;
    struct session_options o = {.model = f->model, .store = f->store, .ops = ops_table(), .prompt = n_prompt, .context = total + 2};
    o.plan = (struct plan_options){.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = 2};
    o.total = o.context;
    enum cb_status status = pool_create(&pool, 2, err);
    o.pool = pool;
    if (status == CB_OK) status = session_create(&s, &o, err);
    for (int t = n_prompt; status == CB_OK && t < total; t++) {
        status = t == n_prompt ? session_push(s, ids, n_prompt, &logits, err) : session_push(s, &ids[t - 1], 1, &logits, err);
        ids[t] = 0;
        for (int32_t i = 1; status == CB_OK && i < f->model->vocab; i++)
            if (logits[i] > logits[ids[t]]) ids[t] = i;
    }
    session_destroy(&s);
    pool_destroy(&pool);
    return status;
}

/* Both ways of generating against generate.ids; "" or a message. */
static void greedy_compare(struct fixture *f, char message[300]) {
    struct cb_err err = {0};
    const json_t *generate = json_object_get(f->json, "generate"), *prompt = json_object_get(generate, "prompt_ids");
    const json_t *wanted = json_object_get(generate, "ids");
    int n_prompt = (int)json_array_size(prompt), total = n_prompt + (int)json_array_size(wanted);
    int32_t ids[256], cached[256];
    *message = 0;
    if (!generate || !f->model->class->head->generates) return;
    for (int i = 0; i < n_prompt; i++) ids[i] = cached[i] = (int32_t)json_integer_value(json_array_get(prompt, (size_t)i));
    for (int i = n_prompt; i < total && !*message; i++) {
        int want = (int)json_integer_value(json_array_get(wanted, (size_t)(i - n_prompt)));
        if (greedy_whole(f, ids, i, n_prompt, &ids[i], &err) != CB_OK || ids[i] != want)
            snprintf(message, 300, "%s: whole passes: token %d is %d, wanted %d %.150s", f->name, i, ids[i], want, err.message);
    }
    if (*message || total > f->model->exact_cache) return;
    bool has_source = f->model->family->encoder_decoder;
    if ((has_source ? greedy_session : greedy_cached)(f, cached, n_prompt, total, &err) != CB_OK)
        snprintf(message, 300, "%s: cached: %.200s", f->name, err.message);
    for (int i = n_prompt; i < total && !*message; i++)
        if (cached[i] != ids[i]) snprintf(message, 300, "%s: cached: token %d is %d, wanted %d", f->name, i, cached[i], ids[i]);
}

/* One case of the folder root whole; config NULL or the name of another configuration. */
static void case_check(const char *root, const char *name, const char *config, char message[300]) {
    struct fixture f = {.name = name, .config = config};
    struct runner r = {0};
    struct cb_err err = {0};
    enum cb_status status = fixture_open(&f, root, &err);
    if (status == CB_OK) status = forward_build(&f, &r, &err);
    if (status == CB_OK) status = runner_plan(&r, f.store, &err);
    if (status == CB_OK) status = forward_fill(&f, &r, &err);
    if (status == CB_OK) status = runner_run(&r, &err);
    snprintf(message, 300, "%.40s: %.250s", name, err.message);
    if (status == CB_OK) {
        int n = forward_compare(&f, &r, message);
        if (n >= 0 && n < 4) snprintf(message, 300, "%s: only %d outputs compared", name, n);
        if (n >= 4) greedy_compare(&f, message);
    }
    runner_destroy(&r);
    fixture_close(&f);
}

/* Whether a folder holds a model case that this build knows; a reason is printed where it does not. */
static bool case_is_known(const char *path) {
    struct cb_err err = {0};
    struct model *m = NULL;
    char file[900];
    snprintf(file, sizeof file, "%s/golden.safetensors", path);
    bool is_case = io_is_file(file);
    snprintf(file, sizeof file, "%s/config.json", path);
    if (!is_case || !io_is_file(file)) return false;
    enum cb_status status = model_check_config(&m, file, &err);
    model_destroy(&m);
    // what is refused for any other reason than its kind is a failure later on
    bool is_unknown = status == CB_E_UNSUPPORTED && (strstr(err.message, "model_type") || strstr(err.message, "architectures"));
    if (is_unknown) fprintf(stderr, "left out: %s\n", err.message);
    return !is_unknown;
}

/* All cases of a folder; returns how many. */
static int cases_check(const char *root) {
    char path[800], file[900], message[300];
    DIR *dir = opendir(root);
    CHECK(dir, "%s: cannot be read", root);
    int n = 0, failed = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%.200s", root, e->d_name);
        if (e->d_name[0] == '.' || !case_is_known(path)) continue;
        snprintf(file, sizeof file, "%s/config.v5.json", path);
        for (int v5 = 0; v5 < (io_is_file(file) ? 2 : 1); v5++) {
            case_check(root, e->d_name, v5 ? "config.v5.json" : NULL, message);
            if (*message) fprintf(stderr, "%s%s\n", message, v5 ? " (config.v5.json)" : "");
            failed += *message != 0;
            n++;
        }
    }
    closedir(dir);
    CHECK(!failed, "%d of %d cases failed", failed, n);
    return n;
}

TEST(models, fixtures) {
    const char *shared = shared_dir();
    char root[600];
    if (!shared) return;
    snprintf(root, sizeof root, "%s/fixtures/models", shared);
    const int n = cases_check(root);
    CHECK(n >= 100, "only %d cases found", n);
}

/* Ours: tests/golden/make_models.py. */
TEST(models, goldens) {
    const int n = cases_check("tests/golden/models");
    CHECK(n >= 5, "only %d cases found", n);
}

/* Loss and the embedding's gradient of a tiny fresh model, with the logits or without them ever being made. */
static enum cb_status loss_run(const struct model *m, struct store *store, bool want_logits, struct runner *r, struct cb_err *err) {
    struct model_io io = {.batch = 2, .tokens = 9, .want_loss = true, .want_logits = want_logits};
    struct cb_tensor *wrt, *grad = NULL;
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    TRY(model_build(m, &nn, &io, err));
    wrt = graph_find_leaf(r->g, m->embedding);
    if (graph_grad(r->g, io.loss, NULL, 1, &wrt, NULL, &grad) != CB_OK) FAIL(err, r->g->err.code, "%s", r->g->err.message);
    graph_output(r->g, grad, "grad");
    TRY(runner_plan(r, store, err));
    int32_t *ids = runner_data(r, "input_ids"), *labels = runner_data(r, "labels");
    for (int64_t i = 0; i < runner_elements(r, "input_ids"); i++) ids[i] = (int32_t)((i * 7 + 3) % m->vocab);
    for (int64_t i = 0; i < runner_elements(r, "labels"); i++) labels[i] = i % 4 == 1 ? -100 : (int32_t)((i * 5 + 1) % m->vocab);
    return runner_run(r, err);
}

TEST(models, loss_without_logits) {
    int n, checked = 0;
    const struct family *const *families = model_families(&n);
    for (int i = 0; i < n; i++) {
        if (families[i]->classes[0]->head != &model_head_causal_lm) continue;
        struct cb_err err = {0};
        struct store *store;
        struct model *m;
        struct runner with = {0}, without = {0};
        json_t *config;
        CHECK_OK(store_create(&store, &err));
        CHECK_OK(model_default_config(&config, families[i], families[i]->tiny, &err));
        CHECK_OK(model_from_config(&m, config, families[i]->name, &err));
        CHECK_OK(model_init_weights(m, store, 3, &err));
        CHECK_OK(loss_run(m, store, true, &with, &err));
        CHECK_OK(loss_run(m, store, false, &without, &err));
        double loss = worst_error(runner_data(&without, "loss"), runner_data(&with, "loss"), 1);
        double grad = relative_norm(runner_data(&without, "grad"), runner_data(&with, "grad"), runner_elements(&with, "grad"));
        CHECK(loss < 1e-6 && grad < 1e-5, "%s: loss differs by %g, gradient by %g", families[i]->name, loss, grad);
        CHECK(!runner_data(&without, "logits"), "%s: has logits", families[i]->name);
        runner_destroy(&with);
        runner_destroy(&without);
        model_destroy(&m);
        store_destroy(&store);
        json_decref(config);
        checked++;
    }
    CHECK(checked >= 10, "%d families", checked);
}
