/* Each allocation failing in turn: a run must end with a clean error about memory and leave nothing allocated. Arguments: scenario names, or
   NAME:K to fail the K-th allocation alone. OOM_STRIDE: every n-th allocation. */
#include <execinfo.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cambium/cambium.h>
#include <cambium/graph.h>

#include "io/safetensors.h"
#include "wrap.h"

static char folder[160];  // of everything that is written

static char now_running[64];  // "scenario:k"

/* A crash must say which allocation it was. */
static void on_crash(int number) {
    ssize_t written = write(2, now_running, strlen(now_running));
    written += write(2, ": crashed\n", 10);
    signal(number, SIG_DFL);
    raise(number * (written != 0));
}

static const char *at(const char *name) {
    static char text[6][320];
    static int next;
    char *path = text[next++ % 6];
    snprintf(path, sizeof text[0], "%s/%s", folder, name);
    return path;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *ftw) {
    (void)info, (void)kind, (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- scenarios: each makes its engine, does one thing, and frees everything */
typedef enum cb_status scenario_fn(struct cb_engine *engine, struct cb_err *err);

static enum cb_status init(struct cb_engine *engine, struct cb_err *err) {
    struct cb_init_options o = {.out = at("fresh"),
                                .family = "llama",
                                .set =
                                    "hidden_size=16,intermediate_size=24,num_hidden_layers=2,"
                                    "num_attention_heads=2,num_key_value_heads=1,max_position_embeddings=32",
                                .tokenizer = at("tokenizer")};
    struct cb_init_result r;
    return cb_init(engine, &o, &r, err);
}

static enum cb_status forward(struct cb_engine *engine, struct cb_err *err) {
    struct cb_forward_options o = {
        .model = at("model"), .input = at("input.safetensors"), .output = at("output.safetensors"), .hidden = true, .grad = true};
    struct cb_forward_result r;
    enum cb_status status = cb_forward(engine, &o, &r, err);
    if (status == CB_OK) cb_free(r.shapes);
    return status;
}

/* Two steps with validation, a checkpoint each. */
static enum cb_status train_with(struct cb_engine *engine, const char *tuner, const char *out, bool resume, struct cb_err *err) {
    const char *text = at("text.txt");
    struct cb_train_options o = {.model = at("model"),
                                 .out = at(out),
                                 .text = &text,
                                 .n_text = 1,
                                 .tuner = tuner,
                                 .steps = resume ? 3 : 2,
                                 .batch = 2,
                                 .seq = 8,
                                 .save_every = 1,
                                 .eval_every = 1,
                                 .valid_share = 0.1,
                                 .resume = resume,
                                 .run_json = "{}"};
    struct cb_train_result r;
    enum cb_status status = cb_train(engine, &o, &r, err);
    if (status == CB_OK) cb_free(r.dump);
    return status;
}

static enum cb_status finetune(struct cb_engine *engine, struct cb_err *err) {
    return train_with(engine, "lora:r=2,alpha=4", "trained", false, err);
}
static enum cb_status pretrain(struct cb_engine *engine, struct cb_err *err) { return train_with(engine, NULL, "trained", false, err); }
static enum cb_status resume(struct cb_engine *engine, struct cb_err *err) {
    return train_with(engine, "lora:r=2,alpha=4", "resumed", true, err);
}

static enum cb_status generate(struct cb_engine *engine, struct cb_err *err) {
    struct cb_generate_options o = {
        .model = at("model"), .modules = at("half"), .prompt = "line", .max_new = 4, .top_k = 5, .ignore_eos = true};
    struct cb_generate_result r;
    enum cb_status status = cb_generate(engine, &o, &r, err);
    if (status == CB_OK) cb_free(r.text), cb_free(r.ids);
    return status;
}

static enum cb_status eval(struct cb_engine *engine, struct cb_err *err) {
    const char *text = at("small.txt");
    struct cb_eval_options o = {.model = at("model"), .modules = at("half"), .text = &text, .n_text = 1, .seq = 8, .batch = 2};
    struct cb_eval_result r;
    return cb_eval_text(engine, &o, &r, err);
}

static enum cb_status merge(struct cb_engine *engine, struct cb_err *err) {
    struct cb_merge_options o = {.model = at("model"), .modules = at("half"), .out = at("merged"), .dtype = "bf16", .run_json = "{}"};
    struct cb_merge_result r;
    return cb_merge(engine, &o, &r, err);
}

/* Blocks over two modules, one of them weighed. */
static enum cb_status expression(struct cb_engine *engine, struct cb_err *err) {
    char modules[700];
    snprintf(modules, sizeof modules, "stack(\"%s\", sum(base, -0.5*\"%s\"))", at("half"), at("ia3"));
    struct cb_forward_options o = {
        .model = at("model"), .modules = modules, .input = at("input.safetensors"), .output = at("output.safetensors")};
    struct cb_forward_result r;
    enum cb_status status = cb_forward(engine, &o, &r, err);
    if (status == CB_OK) cb_free(r.shapes);
    return status;
}

/* Two models into one, by a method that reads all of them. */
static enum cb_status combine(struct cb_engine *engine, struct cb_err *err) {
    const char *models[2] = {at("model"), at("other")};
    struct cb_combine_options o = {.method = "ties", .models = models, .n_models = 2, .base = at("model"), .out = at("combined")};
    struct cb_combine_result r;
    return cb_combine(engine, &o, &r, err);
}

/* A head and a module on labelled examples, and how well they do. */
static enum cb_status classify(struct cb_engine *engine, const char *out, struct cb_err *err) {
    const char *data = at("labelled.jsonl");
    struct cb_train_options o = {.model = at("model"),
                                 .out = at(out),
                                 .text = &data,
                                 .n_text = 1,
                                 .tuner = "lora:r=2",
                                 .task = "classify",
                                 .steps = 2,
                                 .batch = 2,
                                 .valid = &data,
                                 .n_valid = 1,
                                 .eval_every = 1,
                                 .run_json = "{}"};
    struct cb_train_result r;
    enum cb_status status = cb_train(engine, &o, &r, err);
    if (status == CB_OK) cb_free(r.dump);
    return status;
}
static enum cb_status task(struct cb_engine *engine, struct cb_err *err) { return classify(engine, "trained", err); }

static enum cb_status task_eval(struct cb_engine *engine, struct cb_err *err) {
    const char *data = at("labelled.jsonl");
    struct cb_eval_options o = {
        .model = at("model"), .modules = at("labelled"), .text = &data, .n_text = 1, .task = "classify", .batch = 2};
    struct cb_task_result r;
    return cb_eval_task(engine, &o, &r, err);
}

/* A small net of the public functions: built, compiled, trained, saved and loaded. */
static enum cb_status function(struct cb_engine *engine, struct cb_err *err) {
    struct cb_function *f;
    if (cb_function_create(&f, engine, err) != CB_OK) return err->code;
    struct cb_tensor *x = cb_input(f, "x", CB_DTYPE_F32, 2, (int64_t[]){4, 3});
    struct cb_tensor *labels = cb_input(f, "labels", CB_DTYPE_I32, 1, (int64_t[]){4});
    struct cb_tensor *y = cb_linear(f, "out", cb_dropout(f, cb_unary(f, "tanh", cb_linear(f, "in", x, 5)), 0.1), 2);
    cb_output(f, "y", y);
    cb_loss(f, cb_cross_entropy(f, y, labels));
    enum cb_status status = cb_function_compile(f, &(struct cb_compile_options){.clip = 1}, err);
    if (status == CB_OK) status = cb_function_train(f, NULL, err);
    if (status == CB_OK) status = cb_function_run(f, err);
    if (status == CB_OK) status = cb_function_save(f, at("function.safetensors"), err);
    if (status == CB_OK) status = cb_function_load(f, at("function.safetensors"), err);
    cb_function_destroy(&f);
    return status;
}

static enum cb_status tokenizer_train_bpe(struct cb_engine *engine, struct cb_err *err) {
    const char *text = at("small.txt");
    struct cb_tokenizer_train_options o = {.text = &text, .n_text = 1, .out = at("tokens"), .vocab = 270};
    struct cb_tokenizer_train_result r;
    return cb_tokenizer_train(engine, &o, &r, err);
}

static enum cb_status encode(struct cb_engine *engine, struct cb_err *err) {
    (void)engine;
    struct cb_tokenizer *t;
    struct cb_encoding e;
    char *text;
    size_t n;
    if (cb_tokenizer_load(&t, at("tokenizer"), err) != CB_OK) return err->code;
    enum cb_status status = cb_tokenizer_encode(t, "one line of text", 16, false, true, &e, err);
    if (status == CB_OK) {
        status = cb_tokenizer_decode(t, e.ids, e.n, false, &text, &n, err);
        if (status == CB_OK) cb_free(text);
        cb_encoding_free(&e);
    }
    cb_tokenizer_destroy(&t);
    return status;
}

static const struct scenario {
    const char *name;
    scenario_fn *run;
    const char *out;  // removed before each run
    const char *from;  // copied to out then; NULL: nothing
} scenarios[] = {{"encode", encode, "none", NULL},
                 {"tokenizer", tokenizer_train_bpe, "tokens", NULL},
                 {"init", init, "fresh", NULL},
                 {"forward", forward, "output.safetensors", NULL},
                 {"finetune", finetune, "trained", NULL},
                 {"pretrain", pretrain, "trained", NULL},
                 {"resume", resume, "resumed", "half"},
                 {"generate", generate, "none", NULL},
                 {"eval", eval, "none", NULL},
                 {"merge", merge, "merged", NULL},
                 {"expression", expression, "output.safetensors", NULL},
                 {"combine", combine, "combined", NULL},
                 {"task", task, "trained", NULL},
                 {"task_eval", task_eval, "none", NULL},
                 {"function", function, "function.safetensors", NULL}};

static void copy_tree(const char *from, const char *to) {
    char command[700];
    snprintf(command, sizeof command, "cp -r '%s' '%s'", from, to);
    if (system(command) != 0) fprintf(stderr, "%s: failed\n", command);
}

/* One run whose k-th allocation fails (0: none does). */
static enum cb_status run(const struct scenario *s, long k, struct cb_err *err) {
    struct cb_engine *engine = NULL;
    struct cb_engine_options options = {.threads = 1};
    remove_tree(at(s->out));
    if (s->from) copy_tree(at(s->from), at(s->out));
    memset(err, 0, sizeof *err);
    wrap_fail_at(k);
    enum cb_status status = cb_engine_create(&engine, &options, err);
    if (status == CB_OK) status = s->run(engine, err);
    cb_engine_destroy(&engine);
    return status;
}

static void print_site(void) {
    void *address[12];
    int n = wrap_site(address);
    fflush(stderr);
    backtrace_symbols_fd(address + 2, n > 2 ? n - 2 : 0, 2);
}

/* Fails each allocation of a scenario in turn; the number of faults. */
static int sweep(const struct scenario *s, long only, long stride) {
    struct cb_err err;
    enum cb_status status = run(s, 0, &err);
    if (status != CB_OK) {
        printf("%s: %s\n", s->name, err.message);
        return 1;
    }
    long n = wrap_count(), unnoticed = 0;
    int faults = 0;
    for (long k = only ? only : 1; k <= (only ? only : n); k += stride) {
        long before = wrap_live();
        snprintf(now_running, sizeof now_running, "%s:%ld", s->name, k);
        status = run(s, k, &err);
        long count = wrap_count();
        bool told = status == CB_E_MEMORY || strstr(err.message, "memory"), leaks = wrap_live() != before;
        if (status == CB_OK && count >= k) unnoticed++;
        if (leaks || (status != CB_OK && !told) || only) {
            if (faults < 12 || only) {
                fprintf(stderr, "%s:%ld: status %d (%s), %ld blocks left\n", s->name, k, (int)status, err.message, wrap_live() - before);
                print_site();
                if (leaks) wrap_print_live();
            }
            faults += !only || leaks;
        }
    }
    printf("%s: %ld allocations, %ld done without, %d faults\n", s->name, n, unnoticed, faults);
    fflush(stdout);
    return faults;
}

/* What the scenarios read. */
static enum cb_status prepare(struct cb_err *err) {
    struct cb_engine *engine;
    struct cb_engine_options options = {.threads = 1};
    FILE *small = fopen(at("small.txt"), "w"), *text = fopen(at("text.txt"), "w"), *labelled = fopen(at("labelled.jsonl"), "w");
    if (!small || !text || !labelled) return CB_E_IO;
    for (int i = 0; i < 60; i++) fprintf(i < 6 ? small : text, "line %d of a text, %d.\n", i, i * 7919 % 1000);
    for (int i = 0; i < 10; i++) fprintf(labelled, "{\"text\": \"line %d\", \"label\": \"%s\"}\n", i, i % 3 ? "good" : "bad");
    fclose(labelled);
    fclose(small);
    fclose(text);
    const char *from = at("text.txt");
    struct cb_tokenizer_train_options to = {.text = &from, .n_text = 1, .out = at("tokenizer"), .vocab = 270};
    struct cb_tokenizer_train_result tr;
    struct cb_init_options io = {
        .out = at("model"), .family = "gpt2", .set = "n_embd=8,n_layer=1,n_head=2,n_positions=16", .tokenizer = at("tokenizer")};
    struct cb_init_result ir;
    int64_t ids[6] = {1, 2, 3, 4, 5, 6};
    struct cb_type type = {CB_DTYPE_I64, 2, {2, 3}};
    struct tensor_item item[2] = {{.name = "input_ids", .type = type, .data = ids}, {.name = "labels", .type = type, .data = ids}};
    if (cb_engine_create(&engine, &options, err) != CB_OK) return err->code;
    if (cb_tokenizer_train(engine, &to, &tr, err) == CB_OK && cb_init(engine, &io, &ir, err) == CB_OK)
        tensors_write(at("input.safetensors"), item, 2, NULL, NULL, NULL, err);
    if (err->code == CB_OK) train_with(engine, "lora:r=2,alpha=4", "half", false, err);
    if (err->code == CB_OK) train_with(engine, "ia3", "ia3", false, err);
    if (err->code == CB_OK) train_with(engine, NULL, "other", false, err);
    if (err->code == CB_OK) classify(engine, "labelled", err);
    cb_engine_destroy(&engine);
    return err->code;
}

int main(int argc, char **argv) {
    const char *base = getenv("TMPDIR"), *stride = getenv("OOM_STRIDE");
    struct cb_err err = {0};
    int faults = 0;
    signal(SIGSEGV, on_crash);
    signal(SIGABRT, on_crash);
    snprintf(folder, sizeof folder, "%.100s/cambium_oom_XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder) || prepare(&err) != CB_OK) return printf("cannot prepare: %s\n", err.message), 1;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        bool wanted = argc == 1;
        long only = 0;
        for (int a = 1; a < argc; a++) {
            size_t n = strcspn(argv[a], ":");
            if (strncmp(argv[a], scenarios[i].name, n) != 0 || scenarios[i].name[n]) continue;
            wanted = true;
            if (argv[a][n]) only = strtol(argv[a] + n + 1, NULL, 10);
        }
        if (wanted) faults += sweep(&scenarios[i], only, stride && atol(stride) > 0 ? atol(stride) : 1);
    }
    remove_tree(folder);
    printf("oom: %s\n", faults ? "FAILED" : "no faults");
    return faults != 0;
}
