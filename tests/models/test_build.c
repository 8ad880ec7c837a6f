/* Every GPT-2 and Llama fixture: outputs, loss, gradients, and greedy ids by whole passes and by the cache. */
#include <dirent.h>

#include "../harness.h"
#include "graph_runner.h"
#include "io/file.h"
#include "models/model.h"

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

static enum cb_status fixture_open(struct fixture *f, const char *shared, struct cb_err *err) {
    snprintf(f->folder, sizeof f->folder, "%s/fixtures/models/%s", shared, f->name);
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
static enum cb_status forward_build(struct fixture *f, struct runner *r, struct cb_err *err) {
    const struct tensor *ids;
    TRY(tensors_need(&ids, f->golden, "input_ids", err));
    struct model_io io = {
        .batch = ids->type.dim[0], .tokens = ids->type.dim[1], .want_logits = true, .want_loss = true, .want_hidden = true};
    io.attention_mask = tensors_find(f->golden, "attention_mask");
    io.position_ids = tensors_find(f->golden, "position_ids");
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    nn.param_dtype = stored_dtype;
    nn.dtype_user = f->store;
    TRY(model_build(f->model, &nn, &io, err));
    enum { MAX = 64 };
    struct cb_tensor *wrt[MAX], *grad[MAX];
    char name[300];
    int n = 0;
    for (int i = 0; i < f->model->n_weights && n < MAX; i++) {
        snprintf(name, sizeof name, "grad.%s", f->model->weights[i].name);
        if (tensors_find(f->golden, name)) wrt[n++] = graph_find_leaf(r->g, f->model->weights[i].name);
    }
    if (!n) return CB_OK;
    if (graph_grad(r->g, io.loss, NULL, n, wrt, NULL, grad) != CB_OK) FAIL(err, r->g->err.code, "%s", r->g->err.message);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "grad.%s", graph_leaf_name(wrt[i]));
        if (grad[i]) graph_output(r->g, grad[i], name);
    }
    return CB_OK;
}

static enum cb_status forward_fill(struct fixture *f, struct runner *r, struct cb_err *err) {
    static const char *const inputs[] = {"input_ids", "attention_mask", "position_ids", "labels"};
    for (int i = 0; i < 4; i++) {
        const struct tensor *t = tensors_find(f->golden, inputs[i]);
        if (t) TRY(runner_fill(r, inputs[i], t, err));
    }
    return CB_OK;
}

/* Worst error of an output over the rows whose mask is 1 (all rows where it has one row a sequence). */
static double masked_error(struct fixture *f, struct runner *r, const struct tensor *want) {
    const struct tensor *mask = tensors_find(f->golden, "attention_mask");
    const float *have = runner_data(r, want->name), *value = tensor_data(want);
    int64_t n = type_elements(&want->type);
    if (!have || runner_elements(r, want->name) != n) return INFINITY;
    if (!mask || want->type.rank < 3) return worst_error(have, value, n);
    int64_t rows = type_elements(&mask->type), width = n / rows;
    double worst = 0;
    for (int64_t i = 0; i < rows; i++)
        if (((const int64_t *)tensor_data(mask))[i]) worst = fmax(worst, worst_error(have + i * width, value + i * width, width));
    return worst;
}

/* Compares every tensor of the golden file that is an output; returns how many were, or -1 with a message. */
static int forward_compare(struct fixture *f, struct runner *r, char message[300]) {
    int n = 0;
    for (int i = 0; i < tensors_count(f->golden); i++) {
        const struct tensor *want = tensors_at(f->golden, i);
        bool is_grad = strncmp(want->name, "grad.", 5) == 0, is_hidden = strncmp(want->name, "hidden.", 7) == 0;
        if (!is_grad && !is_hidden && strcmp(want->name, "logits") && strcmp(want->name, "loss") && strcmp(want->name, "final")) continue;
        const float *have = runner_data(r, want->name);
        double error = !have     ? INFINITY
                       : is_grad ? relative_norm(have, tensor_data(want), type_elements(&want->type))
                                 : masked_error(f, r, want);
        snprintf(message, 300, "%s: %s: error %g", f->name, want->name, error);
        if (!(error <= 2e-5)) return -1;
        n++;
    }
    return n;
}

/* The next id after ids by a graph of exactly n tokens. */
static enum cb_status greedy_whole(struct fixture *f, const int32_t *ids, int n, int32_t *next, struct cb_err *err) {
    struct runner r;
    enum cb_status status = runner_create(&r, err);
    struct nn nn = nn_make(r.g);
    nn.param_dtype = stored_dtype;
    nn.dtype_user = f->store;
    struct model_io io = {.batch = 1, .tokens = n, .want_logits = true, .last_only = true};
    if (status == CB_OK) status = model_build(f->model, &nn, &io, err);
    if (status == CB_OK) status = runner_plan(&r, f->store, err);
    if (status == CB_OK) {
        memcpy(runner_data(&r, "input_ids"), ids, (size_t)n * sizeof *ids);
        *(int32_t *)runner_data(&r, "last") = n - 1;
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

/* Both ways of generating against generate.ids; "" or a message. */
static void greedy_compare(struct fixture *f, char message[300]) {
    struct cb_err err = {0};
    const json_t *generate = json_object_get(f->json, "generate"), *prompt = json_object_get(generate, "prompt_ids");
    const json_t *wanted = json_object_get(generate, "ids");
    int n_prompt = (int)json_array_size(prompt), total = n_prompt + (int)json_array_size(wanted);
    int32_t ids[256], cached[256];
    *message = 0;
    if (!generate) return;
    for (int i = 0; i < n_prompt; i++) ids[i] = cached[i] = (int32_t)json_integer_value(json_array_get(prompt, (size_t)i));
    for (int i = n_prompt; i < total && !*message; i++) {
        int want = (int)json_integer_value(json_array_get(wanted, (size_t)(i - n_prompt)));
        if (greedy_whole(f, ids, i, &ids[i], &err) != CB_OK || ids[i] != want)
            snprintf(message, 300, "%s: whole passes: token %d is %d, wanted %d %.150s", f->name, i, ids[i], want, err.message);
    }
    if (*message || total > f->model->exact_cache) return;
    if (greedy_cached(f, cached, n_prompt, total, &err) != CB_OK) snprintf(message, 300, "%s: cached: %.200s", f->name, err.message);
    for (int i = n_prompt; i < total && !*message; i++)
        if (cached[i] != ids[i]) snprintf(message, 300, "%s: cached: token %d is %d, wanted %d", f->name, i, cached[i], ids[i]);
}

/* One case whole; config NULL or the name of another configuration. */
static void case_check(const char *shared, const char *name, const char *config, char message[300]) {
    struct fixture f = {.name = name, .config = config};
    struct runner r = {0};
    struct cb_err err = {0};
    enum cb_status status = fixture_open(&f, shared, &err);
    if (status == CB_OK) status = forward_build(&f, &r, &err);
    if (status == CB_OK) status = runner_plan(&r, f.store, &err);
    if (status == CB_OK) status = forward_fill(&f, &r, &err);
    if (status == CB_OK) status = runner_run(&r, &err);
    snprintf(message, 300, "%.40s: %.250s", name, err.message);
    if (status == CB_OK) {
        int n = forward_compare(&f, &r, message);
        if (n >= 0 && n < 5) snprintf(message, 300, "%s: only %d outputs compared", name, n);
        if (n >= 5) greedy_compare(&f, message);
    }
    runner_destroy(&r);
    fixture_close(&f);
}

TEST(models, fixtures) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600], message[300];
    snprintf(path, sizeof path, "%s/fixtures/models", shared);
    DIR *dir = opendir(path);
    CHECK(dir, "%s: cannot be read", path);
    int n = 0, failed = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if ((strncmp(e->d_name, "gpt2_", 5) && strncmp(e->d_name, "llama_", 6))) continue;
        for (int v5 = 0; v5 < (strncmp(e->d_name, "llama_", 6) == 0 ? 2 : 1); v5++) {
            case_check(shared, e->d_name, v5 ? "config.v5.json" : NULL, message);
            if (*message) fprintf(stderr, "%s%s\n", message, v5 ? " (config.v5.json)" : "");
            failed += *message != 0;
            n++;
        }
    }
    closedir(dir);
    CHECK(n >= 25, "only %d cases found", n);
    CHECK(!failed, "%d of %d cases failed", failed, n);
}
