/* Twenty steps beside PyTorch, Transformers and PEFT: loss, gradient norm and final parameters of every optimiser and of modules. */
#include <dirent.h>

#include "../harness.h"
#include "../modules/module_case.h"
#include "base/json.h"
#include "io/file.h"
#include "net.h"
#include "ops/ops.h"
#include "ops/recurrent.h"

#define TYPE1(d, a) type_make(d, 1, (int64_t[]){a})
#define TYPE2(d, a, b) type_make(d, 2, (int64_t[]){a, b})

/* One case being replayed. */
struct trace {
    struct net net;
    struct tensors *golden, *start;
    json_t *json;
    int n_batches;  // of a LoRA trace
};

static enum cb_status read_json(json_t **json, const char *folder, const char *file, struct cb_err *err) {
    char path[700], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    TRY(io_read_file(&text, &n, path, 1 << 20, err));
    enum cb_status status = json_parse_object(json, text, n, path, err);
    free(text);
    return status;
}

static const float *floats(const struct tensors *tensors, const char *name) {
    const struct tensor *t = tensors_find(tensors, name);
    return t ? tensor_data(t) : NULL;
}

/* PyTorch's names of options to ours. */
static enum cb_status take_options(const json_t *json, struct trainer_options *o, struct cb_err *err) {
    const char *name = json_string_value(json_object_get(json, "optimizer")), *key;
    const json_t *options = json_object_get(json, "options"), *value;
    TRY(opt_parse(name, &o->opt, o->option, err));
    if (strncmp(name, "adam", 4) == 0) o->option[opt_option_index(o->opt, "beta2")] = 0.999;
    if (strcmp(name, "adamw") == 0) o->weight_decay = 0.01;
    for (void *i = json_object_iter((json_t *)(uintptr_t)options); i; i = json_object_iter_next((json_t *)(uintptr_t)options, i)) {
        key = json_object_iter_key(i);
        value = json_object_iter_value(i);
        double number = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
        if (strcmp(key, "lr") == 0) continue;
        if (strcmp(key, "weight_decay") == 0) {
            o->weight_decay = number;
        } else if (strcmp(key, "betas") == 0) {
            o->option[opt_option_index(o->opt, "beta1")] = json_number_value(json_array_get(value, 0));
            o->option[opt_option_index(o->opt, "beta2")] = json_number_value(json_array_get(value, 1));
        } else {
            int at = opt_option_index(o->opt, strcmp(key, "initial_accumulator_value") == 0 ? "initial" : key);
            if (at < 0) FAIL(err, CB_E_NAME, "%s: no option %s", name, key);
            o->option[at] = number;
        }
    }
    if (json_object_get(json, "group_decay")) o->weight_decay = json_number_value(json_object_get(json, "group_decay"));
    o->clip = json_number_value(json_object_get(json, "clip"));
    o->accumulate = (int)json_integer_value(json_object_get(json, "accumulate"));
    if (o->accumulate < 1) o->accumulate = 1;
    o->sched = (struct sched){.kind = SCHED_CONSTANT, .lr = 1};  // the case's rates come as factors
    return CB_OK;
}

/* The start of a network that is no model folder. */
static enum cb_status load_start(struct trace *t, const char *folder, struct cb_err *err) {
    char path[700];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    TRY(tensors_open(&t->start, path, err));
    TRY(store_create(&t->net.store, err));
    TRY(runner_create(&t->net.r, err));
    TRY(store_load(t->net.store, t->start, NULL, NULL, err));
    for (int i = 0; i < store_count(t->net.store); i++) {
        struct store_entry *e = store_at(t->net.store, i);
        TRY(store_make(t->net.store, e, CB_DTYPE_F32, true, err));
        graph_param(t->net.r.g, e->name, e->type);
    }
    return CB_OK;
}

static struct cb_tensor *leaf(struct trace *t, const char *format, int i) {
    char name[64];
    snprintf(name, sizeof name, format, i);
    return graph_find_leaf(t->net.r.g, name);
}

static struct cb_tensor *build_mlp(struct trace *t) {
    struct cb_graph *g = t->net.r.g;
    struct cb_tensor *x = graph_input(g, "x", TYPE2(CB_DTYPE_F32, 7, 5)), *y = graph_input(g, "y", TYPE1(CB_DTYPE_I32, 7));
    for (int i = 0; i < 3; i++) {
        x = op_linear(g, x, leaf(t, "layers.%d.weight", i), leaf(t, "layers.%d.bias", i), false);
        if (i < 2) x = op_unary(g, "tanh", x);
    }
    return op_cross_entropy(g, x, y, "mean");
}

/* Embedding, two LSTM layers from zero, a score for each next token. */
static struct cb_tensor *build_lstm(struct trace *t) {
    struct cb_graph *g = t->net.r.g;
    struct cb_tensor *x = graph_input(g, "x", TYPE2(CB_DTYPE_I32, 3, 11)), *y = graph_input(g, "y", TYPE1(CB_DTYPE_I32, 33));
    struct recurrent_weights w[2];
    for (int i = 0; i < 2; i++)
        w[i] = (struct recurrent_weights){leaf(t, "lstm.weight_ih_l%d", i), leaf(t, "lstm.weight_hh_l%d", i),
                                          leaf(t, "lstm.bias_ih_l%d", i), leaf(t, "lstm.bias_hh_l%d", i)};
    struct cb_tensor *e = op_embedding(g, graph_find_leaf(g, "embedding.weight"), x);
    struct cb_tensor *h = op_recurrent(g, "lstm", e, 2, false, false, w, NULL, NULL).y;
    h = op_reshape(g, h, 2, (int64_t[]){33, 7});
    return op_cross_entropy(g, op_linear(g, h, graph_find_leaf(g, "head.weight"), graph_find_leaf(g, "head.bias"), false), y, "mean");
}

/* One micro-batch of a trace: row `index` of batch.*. */
static enum cb_status next_batch(void *user, int64_t index, struct cb_err *err) {
    struct trace *t = user;
    struct net *net = &t->net;
    const struct tensor *ids = tensors_find(t->golden, "batch.input_ids"), *x = tensors_find(t->golden, "batch.x");
    if (ids) {
        int64_t n = ids->type.dim[1] * ids->type.dim[2];
        TRY(net_fill(net, "input_ids", ids, index * n, err));
        return net_fill(net, "labels", ids, index * n, err);
    }
    if (x->type.dtype == CB_DTYPE_F32) {
        TRY(net_fill(net, "x", x, index * 35, err));
        return net_fill(net, "y", tensors_find(t->golden, "batch.y"), index * 7, err);
    }
    int32_t *in = runner_data(&net->r, "x"), *out = runner_data(&net->r, "y");
    const int64_t *row = (const int64_t *)tensor_data(x) + index * 36;
    for (int i = 0; i < 33; i++) {
        in[i] = (int32_t)row[i / 11 * 12 + i % 11];
        out[i] = (int32_t)row[i / 11 * 12 + i % 11 + 1];
    }
    return CB_OK;
}

static double tolerance(const json_t *json, const char *key) {
    return json_number_value(json_object_get(json_object_get(json, "tolerance"), key));
}

/* Final parameters, but for slices that only rounding moves. */
static int compare_final(struct trace *t, const char *key, char message[300]) {
    const json_t *slices = json_object_get(json_object_get(t->json, "not_compared"), "slices");
    int n = 0;
    for (int i = 0; i < tensors_count(t->golden); i++) {
        const struct tensor *want = tensors_at(t->golden, i);
        if (strncmp(want->name, "final.", 6) != 0) continue;
        // the adapters library lists the model's own head too, which is not trained
        if (strncmp(want->name, "final.heads.default.", 20) == 0) continue;
        char name[400];
        snprintf(name, sizeof name, "%s%s", t->net.module ? "m/" : "", want->name + 6);
        const struct store_entry *e = store_find(t->net.store, name);
        const json_t *slice = json_object_get(slices, want->name);
        double worst = INFINITY;
        if (e && slice) {
            int64_t a = json_integer_value(json_array_get(slice, 0)), b = json_integer_value(json_array_get(slice, 1));
            worst = worst_error(e->data, tensor_data(want), a);
            worst = fmax(worst, worst_error((float *)e->data + b, (const float *)tensor_data(want) + b, type_elements(&want->type) - b));
        } else if (e) {
            worst = worst_error(e->data, tensor_data(want), type_elements(&want->type));
        }
        if (!(worst <= tolerance(t->json, key))) snprintf(message, 300, "%.200s: error %g", want->name, worst);
        n++;
    }
    return n;
}

static enum cb_status replay(struct trace *t, char message[300], struct cb_err *err) {
    const float *loss = floats(t->golden, "loss"), *norm = floats(t->golden, "grad_norm"), *lr = floats(t->golden, "lr");
    for (int step = 0; step < 20; step++) {
        struct train_result r;
        for (int i = 0; i < t->net.n_params; i++) t->net.params[i].lr_scale = lr ? (double)lr[step] : 0;
        TRY(trainer_step(t->net.trainer, next_batch, t, &r, err));
        double e = fabs(r.loss - (double)loss[step]) / (1 + fabs((double)loss[step]));
        double en = fabs(r.grad_norm - (double)norm[step]) / (double)norm[step];
        if (!(e <= tolerance(t->json, "loss"))) FAIL(err, CB_E_NUMERIC, "step %d: loss %g, wanted %g", step, r.loss, (double)loss[step]);
        if (!(en <= 2 * tolerance(t->json, "grad_norm")))
            FAIL(err, CB_E_NUMERIC, "step %d: norm %.9g, wanted %.9g", step, r.grad_norm, (double)norm[step]);
    }
    if (compare_final(t, "final", message) < t->net.n_params) FAIL(err, CB_E_NAME, "too few final parameters");
    return CB_OK;
}

static enum cb_status trace_open(struct trace *t, const char *folder, struct cb_err *err) {
    char path[700];
    struct trainer_options options = {0};
    struct cb_tensor *loss;
    TRY(read_json(&t->json, folder, "golden.json", err));
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    TRY(tensors_open(&t->golden, path, err));
    TRY(take_options(t->json, &options, err));
    const char *kind = json_string_value(json_object_get(t->json, "kind"));
    const char *frozen = json_string_value(json_array_get(json_object_get(t->json, "frozen"), 0));
    if (strcmp(kind, "causal_lm") == 0) {
        const struct tensor *ids;
        TRY(tensors_need(&ids, t->golden, "batch.input_ids", err));
        TRY(net_load(&t->net, folder, err));
        TRY(net_model_loss(&t->net, ids->type.dim[1], ids->type.dim[2], false, &loss, err));
    } else {
        TRY(load_start(t, folder, err));
        loss = strcmp(kind, "mlp") == 0 ? build_mlp(t) : build_lstm(t);
        graph_output(t->net.r.g, loss, "loss");
    }
    return net_finish(&t->net, loss, frozen, !json_object_get(t->json, "group_decay"), &options, err);
}

static void trace_close(struct trace *t) {
    net_close(&t->net);
    tensors_destroy(&t->golden);
    tensors_destroy(&t->start);
    json_decref(t->json);
}

TEST(train, traces) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600];
    int n = 0, bad = 0;
    snprintf(path, sizeof path, "%s/fixtures/models/training", shared);
    DIR *dir = opendir(path);
    CHECK(dir, "%s: absent", path);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        struct trace t = {0};
        struct cb_err err = {0};
        char message[300] = "";
        snprintf(path, sizeof path, "%s/fixtures/models/training/%s", shared, e->d_name);
        enum cb_status status = trace_open(&t, path, &err);
        if (status == CB_OK) status = replay(&t, message, &err);
        if (status != CB_OK) snprintf(message, sizeof message, "%.290s", err.message);
        if (*message) {
            fprintf(stderr, "%s: %s\n", e->d_name, message);
            bad++;
        }
        trace_close(&t);
        n++;
    }
    closedir(dir);
    CHECK(n >= 20, "%d cases", n);
    CHECK(bad == 0, "%d of %d traces differ", bad, n);
}

/* ---- modules beside PEFT */
static enum cb_status module_batch(void *user, int64_t index, struct cb_err *err) {
    static const char *const inputs[] = {"input_ids", "attention_mask", "labels"};
    struct trace *t = user;
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "batch.%d.%s", (int)(index % t->n_batches), inputs[i]);
        const struct tensor *from;
        TRY(tensors_need(&from, t->golden, name, err));
        TRY(net_fill(&t->net, inputs[i], from, 0, err));
    }
    return CB_OK;
}

static enum cb_status module_updated(void *user, int64_t step, struct store *states, struct cb_err *err) {
    struct trace *t = user;
    return module_train_step(t->net.module, t->net.store, states, step, err);
}

/* The start of the trace, which may not be that of the folder. */
static void take_initial(struct trace *t) {
    for (int i = 0; i < module_n_params(t->net.module); i++) {
        const struct module_param *p = module_param(t->net.module, i);
        char name[500];
        snprintf(name, sizeof name, "initial.%s", p->key);
        const struct tensor *from = tensors_find(t->golden, name);
        if (from) memcpy(store_find(t->net.store, p->name)->data, tensor_data(from), (size_t)type_bytes(&from->type));
    }
}

/* spec: of a fresh module, whose parameters the folder does not hold; NULL: the folder's. */
static enum cb_status module_open(struct trace *t, const char *shared, const char *name, const char *base, const char *spec,
                                  struct cb_err *err) {
    char folder[600], path[700];
    struct trainer_options o = {.sched = {.kind = SCHED_CONSTANT}, .accumulate = 1};
    const struct tensor *ids;
    struct cb_tensor *loss;
    snprintf(folder, sizeof folder, "%s/fixtures/modules/%s", shared, name);
    snprintf(path, sizeof path, "%s/trace.safetensors", folder);
    TRY(read_json(&t->json, folder, "trace.json", err));
    TRY(tensors_open(&t->golden, path, err));
    TRY(tensors_need(&ids, t->golden, "batch.0.input_ids", err));
    snprintf(path, sizeof path, "%s/fixtures/modules/%s", shared, base);
    TRY(net_load(&t->net, path, err));
    TRY(graph_create(&t->net.sites_graph, ops_table(), err));
    t->net.sites = nn_make(t->net.sites_graph);
    struct model_io io = {.batch = 1, .tokens = 2, .want_logits = true};
    TRY(model_build(t->net.model, &t->net.sites, &io, err));
    TRY(spec ? module_create(&t->net.module, t->net.store, spec, "m", NULL, 1, &t->net.sites, err)
             : case_module(&t->net.module, t->net.store, folder, &t->net.sites, err));
    take_initial(t);
    TRY(opt_parse("adamw:beta2=0.999,eps=1e-5", &o.opt, o.option, err));
    const json_t *opt = json_object_get(t->json, "optimiser");
    o.sched.lr = json_number_value(json_object_get(opt, "lr"));
    o.weight_decay = json_number_value(json_object_get(opt, "weight_decay"));
    t->n_batches = (int)json_integer_value(json_object_get(t->json, "n_batches"));
    TRY(net_model_loss(&t->net, ids->type.dim[0], ids->type.dim[1], true, &loss, err));
    o.updated = module_updated;
    o.user = t;
    TRY(net_finish(&t->net, loss, NULL, true, &o, err));
    return module_train_begin(t->net.module, trainer_states(t->net.trainer), 20, err);
}

TEST(train, module_traces) {
    static const char *const cases[][3] = {
        {"prompt_gpt2", "base_gpt2"},
        {"prompt_llama", "base_llama"},
        {"prefix_gpt2", "base_gpt2"},
        {"prefix_llama", "base_llama"},
        {"prefix_llama_projection", "base_llama", "prefix:n=3,projection=true,hidden=10"},
        {"ptuning_llama_mlp", "base_llama", "ptuning:n=4,hidden=12"},
        {"prefix_tuning_bert", "base_bert"},
        {"prompt_tuning_bert", "base_bert"},
        {"ad_lora_bert", "base_bert"},
        {"compacter_bert", "base_bert"},
        {"double_seq_bn_bert", "base_bert"},
        {"loreft_bert", "base_bert"},
        {"par_bn_bert", "base_bert"},
        {"seq_bn_bert", "base_bert"},
        {"seq_bn_gpt2", "base_gpt2"},
        {"unipelt_bert", "base_bert"},
        {"lora_gpt2", "base_gpt2"},
        {"lora_llama_list", "base_llama"},
        {"loha_llama", "base_llama"},
        {"lokr_llama", "base_llama"},
        {"vera_llama", "base_llama"},
        {"oft_llama_exact", "base_llama"},
        {"oft_llama_neumann", "base_llama"},
        {"lora_llama_dora", "base_llama"},
        {"lora_bert_seqcls", "base_bert"},
        {"ia3_llama", "base_llama"},
        {"ln_tuning_llama", "base_llama"},
        {"adalora_llama", "base_llama"},
        {"bitfit_gpt2", "base_gpt2"},
        {"bitfit_bert", "base_bert"},
    };
    const char *shared = shared_dir();
    if (!shared) return;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct trace t = {0};
        struct cb_err err = {0};
        char message[300] = "";
        CHECK_OK(module_open(&t, shared, cases[k][0], cases[k][1], cases[k][2], &err));
        for (int step = 0; step < 20; step++) {
            struct train_result r;
            CHECK_OK(trainer_step(t.net.trainer, module_batch, &t, &r, &err));
            double want = json_number_value(json_array_get(json_object_get(t.json, "loss"), (size_t)step));
            CHECK(fabs(r.loss - want) <= 1e-5 * (1 + want), "%s: step %d: loss %g, wanted %g", cases[k][0], step, r.loss, want);
        }
        CHECK(compare_final(&t, "final_weights", message) >= t.net.n_params, "%s: %d parameters", cases[k][0], t.net.n_params);
        CHECK(!*message, "%s: %s", cases[k][0], message);
        trace_close(&t);
    }
}
