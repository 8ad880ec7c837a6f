/* Regimes of training by their public face: a fusion over frozen modules, several tasks at once, a module beside older ones, layers left out. */
#include <cambium/cambium.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../data/files.h"
#include "../harness.h"
#include "io/file.h"
#include "io/safetensors.h"

/* A folder with texts, labelled examples of two kinds, a tokenizer and a small model. */
struct place {
    char *folder, *text, *other, *ends, *colours, *input;
    char model[128], tokens[128];
    struct cb_engine *engine;
};

static char *examples(const char *folder, const char *name, int n, const char *const *words, int n_words) {
    char *text = malloc((size_t)n * 120), *p = text;
    CHECK(text);
    for (int i = 0; i < n; i++)
        p += sprintf(p, "{\"text\": \"a %s thing, number %d\", \"label\": \"%s\"}\n", words[i % n_words], i * 37 % 101, words[i % n_words]);
    char *path = file_put(folder, name, text, strlen(text));
    free(text);
    return path;
}

static char *lines(const char *folder, const char *name, const char *format, int n) {
    char *text = calloc((size_t)n + 1, 120), *p = text;
    CHECK(text);
    for (int i = 0; i < n; i++) p += sprintf(p, format, i, i * 7919 % 1000);
    char *path = file_put(folder, name, text, strlen(text));
    free(text);
    return path;
}

static void place_open(struct place *p) {
    static const char *const two[] = {"sunny", "rainy"}, *const three[] = {"red", "green", "blue"};
    struct cb_err err = {0};
    *p = (struct place){.folder = folder_make()};
    p->text = lines(p->folder, "text.txt", "line %d of a text that goes on with %d.\n", 150);
    p->other = lines(p->folder, "other.txt", "row %d: quite another kind of prose, %d.\n", 60);
    p->ends = examples(p->folder, "ends.jsonl", 60, two, 2);
    p->colours = examples(p->folder, "colours.jsonl", 90, three, 3);
    snprintf(p->model, sizeof p->model, "%s/model", p->folder);
    snprintf(p->tokens, sizeof p->tokens, "%s/tokens", p->folder);
    struct cb_engine_options eo = {.threads = 1};
    CHECK_OK(cb_engine_create(&p->engine, &eo, &err));
    const char *const text[] = {p->text, p->other, p->colours};
    struct cb_tokenizer_train_options to = {.text = text, .n_text = 3, .out = p->tokens, .vocab = 300};
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p->engine, &to, &tr, &err));
    struct cb_init_options io = {
        .out = p->model, .family = "gpt2", .set = "n_embd=16,n_layer=2,n_head=2,n_positions=48", .tokenizer = p->tokens};
    struct cb_init_result ir;
    CHECK_OK(cb_init(p->engine, &io, &ir, &err));
    const int64_t shape[2] = {2, 8};
    const int32_t ids[16] = {5, 9, 2, 7, 11, 3, 8, 1, 4, 6, 10, 12, 14, 13, 15, 20};
    struct tensor_item item = {"input_ids", type_make(CB_DTYPE_I32, 2, shape), ids, NULL};
    p->input = io_path_join(p->folder, "input.safetensors");
    CHECK_OK(tensors_write(p->input, &item, 1, NULL, NULL, NULL, &err));
}

static void place_close(struct place *p) {
    cb_engine_destroy(&p->engine);
    char **paths[] = {&p->text, &p->other, &p->ends, &p->colours, &p->input};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) free(*paths[i]);
    free(p->folder);
}

/* PLACE/NAME, and an expression in which ~ is the place; one of many in turn. */
static const char *in_place(const struct place *p, const char *text) {
    static char out[64][300];
    static int next;
    char *to = out[next++ % 64], *start = to;
    for (const char *c = text; *c; c++)
        if (*c == '~')
            to += sprintf(to, "%s", p->folder);
        else
            *to++ = *c;
    *to = 0;
    return start;
}

static struct cb_train_options options(const struct place *p, const char *tuner, const char *modules, const char *out) {
    return (struct cb_train_options){.model = p->model,
                                     .tuner = tuner,
                                     .modules = modules ? in_place(p, modules) : NULL,
                                     .out = in_place(p, out),
                                     .steps = 6,
                                     .batch = 4,
                                     .seq = 16,
                                     .save_every = 3,
                                     .lr = 5e-3,
                                     .run_json = "{}"};
}

static enum cb_status train(const struct place *p, struct cb_train_options o, const char *data, struct cb_err *err) {
    struct cb_train_result r;
    o.text = &data;
    o.n_text = data != NULL;
    *err = (struct cb_err){0};
    return cb_train(p->engine, &o, &r, err);
}

static bool same_file(const char *a, const char *b, const char *name) {
    struct cb_err err = {0};
    char *x = NULL, *y = NULL, *paths[2] = {io_path_join(a, name), io_path_join(b, name)};
    size_t n = 0, m = 0;
    CHECK_OK(io_read_file(&x, &n, paths[0], 1 << 24, &err));
    CHECK_OK(io_read_file(&y, &m, paths[1], 1 << 24, &err));
    const bool same = n == m && memcmp(x, y, n) == 0;
    for (int i = 0; i < 2; i++) free(paths[i]);
    free(x);
    free(y);
    return same;
}

/* The same run as `whole`, stopped half way and resumed into `parted`. */
static void train_parted(const struct place *p, struct cb_train_options o, const char *parted, const char *data) {
    struct cb_err err;
    o.out = in_place(p, parted);
    o.stop_after = 3;
    CHECK(train(p, o, data, &err) == CB_E_STOPPED, "%s", err.message);
    o.stop_after = 0;
    o.resume = true;
    CHECK_OK(train(p, o, data, &err));
}

/* Logits of the two rows under modules. */
static struct tensors *logits(const struct place *p, const char *modules, const char *rows) {
    struct cb_err err = {0};
    struct tensors *out;
    char path[200];
    snprintf(path, sizeof path, "%s/out.safetensors", p->folder);
    struct cb_forward_options o = {.model = p->model, .modules = in_place(p, modules), .input = p->input, .output = path, .rows = rows};
    struct cb_forward_result r = {0};
    CHECK_OK(cb_forward(p->engine, &o, &r, &err));
    cb_free(r.shapes);
    CHECK_OK(tensors_open(&out, path, &err));
    remove(path);  // the map stays
    return out;
}

static bool same_logits(const struct tensors *a, const struct tensors *b) {
    const struct tensor *x = tensors_find(a, "logits"), *y = tensors_find(b, "logits");
    CHECK(x && y && type_equal(&x->type, &y->type));
    return memcmp(tensor_data(x), tensor_data(y), (size_t)x->bytes) == 0;
}

/* ---- fusion */
static const char fusion_config[] = "adapter_fusion_config.json", fusion_weights[] = "model_adapter_fusion.safetensors";

TEST(regimes, a_fusion_is_trained_over_frozen_modules) {
    // kinds that act on linear layers, where outputs join the stream, on states; and such that share no place
    static const char *const kinds[][2] = {
        {"lora:r=2", "lora:r=4"}, {"seq_bn:reduction_factor=4", "seq_bn:reduction_factor=8"}, {"lora:r=2", "loreft:r=2"}};
    struct place p;
    struct cb_err err;
    place_open(&p);
    for (int i = 0; i < 3; i++) {
        char first[20], second[20], expression[100], out[20], loaded[100], parted[20];
        snprintf(second, sizeof second, "~/second%d", i);
        snprintf(first, sizeof first, "~/first%d", i);
        snprintf(expression, sizeof expression, "fuse(%s, %s)", first, second);
        snprintf(out, sizeof out, "~/fusion%d", i);
        snprintf(parted, sizeof parted, "~/parted%d", i);
        snprintf(loaded, sizeof loaded, "fuse(%s; %s, %s)", out, first, second);
        CHECK_OK(train(&p, options(&p, kinds[i][0], NULL, first), p.other, &err));
        CHECK_OK(train(&p, options(&p, kinds[i][1], NULL, second), p.text, &err));
        struct tensors *before = logits(&p, second, NULL);
        struct cb_train_options o = options(&p, "fusion", expression, out);
        CHECK_OK(train(&p, o, p.text, &err));
        // what was frozen is what it was; the run in two parts is the same run
        struct tensors *after = logits(&p, second, NULL), *fused = logits(&p, loaded, NULL);
        CHECK(same_logits(before, after) && !same_logits(fused, after), "%s", kinds[i][0]);
        train_parted(&p, o, parted, p.text);
        CHECK(same_file(o.out, in_place(&p, parted), fusion_weights) && same_file(o.out, in_place(&p, parted), fusion_config));
        // only the fusion's own parameters, and they have moved: a value's diagonal begins as ones
        char *path = io_path_join(o.out, fusion_weights);
        struct tensors *file;
        int moved = 0;
        CHECK_OK(tensors_open(&file, path, &err));
        for (int k = 0; k < tensors_count(file); k++) {
            const struct tensor *t = tensors_at(file, k);
            CHECK(strstr(t->name, ".adapter_fusion_layer.first"), "%s", t->name);
            if (strstr(t->name, ".value.weight"))
                for (int64_t n = 0; n < t->type.dim[0]; n++) moved += ((const float *)tensor_data(t))[n * (t->type.dim[0] + 1)] != 1;
        }
        CHECK(moved > 0, "%s: the values are the unit matrix", kinds[i][0]);
        tensors_destroy(&file);
        tensors_destroy(&before);
        tensors_destroy(&after);
        tensors_destroy(&fused);
        free(path);
    }
    place_close(&p);
}

/* Modules of tasks with labels of their own number come without their heads; the fusion brings one. */
TEST(regimes, a_fusion_brings_its_head) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    struct cb_train_options o = options(&p, "lora:r=2", NULL, "~/ends");
    o.task = "classify";
    o.seq = 0;
    CHECK_OK(train(&p, o, p.ends, &err));
    CHECK_OK(train(&p, options(&p, "lora:r=2", NULL, "~/plain"), p.text, &err));
    o = options(&p, "fusion:name=mix", "fuse(~/plain, ~/ends)", "~/mix");
    o.task = "classify";
    o.seq = 0;
    o.steps = 80;
    o.lr = 2e-2;
    CHECK_OK(train(&p, o, p.colours, &err));
    const char *data = p.colours;
    struct cb_eval_options eo = {
        .model = p.model, .modules = in_place(&p, "fuse(~/mix; ~/plain, ~/ends)"), .text = &data, .n_text = 1, .task = "classify"};
    struct cb_task_result r;
    CHECK_OK(cb_eval_task(p.engine, &eo, &r, &err));
    CHECK(r.n == 90 && r.accuracy > 0.6, "accuracy %g of a third", r.accuracy);
    // by itself a module has its own
    eo.modules = in_place(&p, "~/ends");
    data = p.ends;
    CHECK_OK(cb_eval_task(p.engine, &eo, &r, &err));
    place_close(&p);
}

TEST(regimes, fusions_that_make_no_sense_are_refused) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    CHECK_OK(train(&p, options(&p, "lora:r=2", NULL, "~/a"), p.text, &err));
    const struct {
        const char *tuner, *modules, *words;
    } rows[] = {
        {"fusion", NULL, "no block"},
        {"fusion", "~/a", "no block"},
        {"lora:r=2", "fuse(~/a, ~/a)", "has no weights"},
        {"fusion:name=a.b", "fuse(~/a, ~/a)", "without a dot"},
        {"fusion", "stack(fuse(~/a, ~/a), fuse(~/a, ~/a))", "one at a time"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK(train(&p, options(&p, rows[i].tuner, rows[i].modules, "~/out"), p.text, &err) != CB_OK && strstr(err.message, rows[i].words),
              "%s: %s", rows[i].tuner, err.message);
        CHECK(!io_is_folder(in_place(&p, "~/out")), "%s: a folder was made", rows[i].tuner);
    }
    const char *text = p.text;
    struct cb_eval_options eo = {.model = p.model, .modules = in_place(&p, "fuse(~/a, ~/a)"), .text = &text, .n_text = 1};
    struct cb_eval_result r;
    CHECK_FAILS(cb_eval_text(p.engine, &eo, &r, &err), CB_E_USAGE, "no folder");
    place_close(&p);
}

/* ---- several tasks at once */
/* Options of two data sets. */
static struct cb_train_options two_sets(const struct place *p, const char *tuner, const char *out, const char *a, const char *b) {
    static char text[2][300];
    static const char *sets[2] = {text[0], text[1]};
    snprintf(text[0], sizeof text[0], "one=%s", a);
    snprintf(text[1], sizeof text[1], "two=%s", b);
    struct cb_train_options o = options(p, tuner, NULL, out);
    o.sets = sets;
    o.n_sets = 2;
    return o;
}

TEST(regimes, each_task_has_a_module_of_its_own) {
    static const char *const kinds[] = {"lora:r=4", "seq_bn:reduction_factor=4"};
    struct place p;
    struct cb_err err;
    place_open(&p);
    char *rows = file_put(p.folder, "rows.jsonl", "{\"task_ids\": 1}\n{\"task_ids\": 0}\n", 32);
    for (int i = 0; i < 2; i++) {
        char out[20], parted[20], path[60];
        snprintf(out, sizeof out, "~/all%d", i);
        snprintf(parted, sizeof parted, "~/parted%d", i);
        struct cb_train_options o = two_sets(&p, kinds[i], out, p.text, p.other);
        const char *const valid[] = {o.sets[1], o.sets[0]};
        o.module_per_set = true;
        o.sampling = "temperature:2";
        o.valid = valid;
        o.n_valid = 2;
        o.eval_every = 3;
        CHECK_OK(train(&p, o, NULL, &err));
        train_parted(&p, o, parted, NULL);
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/%s", out, k ? "two" : "one");
            const char *whole = in_place(&p, path);
            snprintf(path, sizeof path, "%s/%s", parted, k ? "two" : "one");
            const char *name = i ? "adapter.safetensors" : "adapter_model.safetensors";
            CHECK(same_file(whole, in_place(&p, path), name), "%s: another run", kinds[i]);
        }
        // adapter_setup.json by rows: the first row through the second module; each as alone
        snprintf(path, sizeof path, "%s/one", out);
        struct tensors *both = logits(&p, out, rows), *one = logits(&p, path, NULL);
        snprintf(path, sizeof path, "@task_ids=two\n%s", out);
        struct tensors *named = logits(&p, path, NULL);
        snprintf(path, sizeof path, "%s/two", out);
        struct tensors *two = logits(&p, path, NULL);
        const struct tensor *b = tensors_find(both, "logits"), *x = tensors_find(one, "logits"), *y = tensors_find(two, "logits");
        const int64_t n = type_elements(&b->type) / 2;
        double worst = 0, apart = 0;
        for (int64_t k = 0; k < n; k++) {
            const float *all = tensor_data(b), *first = tensor_data(x), *second = tensor_data(y);
            worst = fmax(worst, fmax(fabs(all[k] - second[k]), fabs(all[n + k] - first[n + k])));
            apart = fmax(apart, fabs(first[k] - second[k]));
        }
        CHECK(worst < 1e-5 && apart > 1e-3, "%s: error %g, modules apart by %g", kinds[i], worst, apart);
        CHECK(same_logits(named, two), "%s: a task by its name", kinds[i]);
        tensors_destroy(&both);
        tensors_destroy(&one);
        tensors_destroy(&two);
        tensors_destroy(&named);
    }
    free(rows);
    place_close(&p);
}

/* Labels of all sets make one head; each module has a copy of it. */
TEST(regimes, labelled_tasks_are_learnt_together) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    struct cb_train_options o = two_sets(&p, "lora:r=4", "~/all", p.ends, p.colours);
    o.task = "classify";
    o.seq = 0;
    o.steps = 80;
    o.batch = 8;
    o.lr = 1e-2;
    o.sampling = "equal";
    o.module_per_set = true;
    CHECK_OK(train(&p, o, NULL, &err));
    const char *data = p.colours;
    struct cb_eval_options eo = {
        .model = p.model, .modules = in_place(&p, "@task_ids=1\n~/all"), .text = &data, .n_text = 1, .task = "classify"};
    struct cb_task_result r;
    CHECK_OK(cb_eval_task(p.engine, &eo, &r, &err));
    CHECK(r.n == 90 && r.accuracy > 0.8, "accuracy %g", r.accuracy);
    data = p.ends;
    eo.modules = in_place(&p, "~/all/one");
    CHECK_OK(cb_eval_task(p.engine, &eo, &r, &err));
    CHECK(r.n == 60 && r.accuracy > 0.8, "accuracy %g", r.accuracy);
    // one module for both, whose rows say which task they are of (Poly)
    o = two_sets(&p, "poly:r=2,tasks=2,skills=3", "~/poly", p.ends, p.colours);
    o.task = "classify";
    o.seq = 0;
    CHECK_OK(train(&p, o, NULL, &err));
    train_parted(&p, o, "~/poly_parted", NULL);
    CHECK(same_file(o.out, in_place(&p, "~/poly_parted"), "adapter_model.safetensors"));
    place_close(&p);
}

TEST(regimes, data_sets_that_make_no_sense_are_refused) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    for (int i = 0; i < 8; i++) {
        struct cb_train_options o = two_sets(&p, "lora:r=2", "~/out", p.text, p.other);
        const char *valid[] = {o.sets[0]}, *words = "", *data = NULL;
        const char *odd[2] = {o.sets[0], "../x=file"};
        if (i == 0) o.sets = odd, words = "NAME=FILE";
        if (i == 1) odd[1] = "run=file", o.sets = odd, words = "own folder";
        if (i == 2) o.sampling = "temperature:0", words = "--sampling";
        if (i == 3) o.valid = valid, o.n_valid = 1, words = "none of --dataset two";
        if (i == 4) o.tuner = "full", o.module_per_set = true, words = "trains no module";
        if (i == 5) data = p.text, words = "one of them";
        if (i == 6) o.n_sets = 0, o.sampling = "equal", data = p.text, words = "wanted --dataset";
        if (i == 7) o.sample_every = 1, words = "--sample-every";
        CHECK(train(&p, o, data, &err) != CB_OK && strstr(err.message, words), "%d: %s", i, err.message);
        CHECK(!io_is_folder(in_place(&p, "~/out")), "%d: a folder was made", i);
    }
    place_close(&p);
}

/* ---- beside older modules */
TEST(regimes, older_modules_stay_bit_for_bit) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    CHECK_OK(train(&p, options(&p, "lora:r=2", NULL, "~/old"), p.text, &err));
    CHECK_OK(train(&p, options(&p, "seq_bn:reduction_factor=4", "~/old", "~/older"), p.text, &err));
    struct tensors *before = logits(&p, "stack(~/old, ~/older)", NULL);
    struct cb_train_options o = options(&p, "lora:r=4", "stack(~/old, ~/older)", "~/new");
    CHECK_OK(train(&p, o, p.other, &err));
    train_parted(&p, o, "~/parted", p.other);
    CHECK(same_file(o.out, in_place(&p, "~/parted"), "adapter_model.safetensors"));
    // alone, and as the rows of their own task beside the new one
    struct tensors *after = logits(&p, "stack(~/old, ~/older)", NULL), *all = logits(&p, "sum(stack(~/old, ~/older), ~/new)", NULL);
    struct tensors *routed =
        logits(&p, "@task=old\nroute(by=task; old=stack(~/old, ~/older), new=sum(stack(~/old, ~/older), ~/new))", NULL);
    CHECK(same_logits(before, after) && same_logits(before, routed) && !same_logits(before, all));
    char *card = io_path_join(o.out, "card.json"), *text;
    size_t n;
    CHECK_OK(io_read_file(&text, &n, card, 1 << 20, &err));
    CHECK(strstr(text, "bit-equal before and after"), "%s", text);
    free(text);
    free(card);
    struct tensors *files[] = {before, after, all, routed};
    for (int i = 0; i < 4; i++) tensors_destroy(&files[i]);
    place_close(&p);
}

/* ---- AdapterDrop */
TEST(regimes, modules_are_left_out_of_the_first_layers) {
    // acting by outputs, by weights, and where outputs join the stream
    static const char *const kinds[] = {"lora:r=2", "lora:r=2,dora=true", "seq_bn:reduction_factor=4"};
    struct place p;
    struct cb_err err;
    place_open(&p);
    struct tensors *base = logits(&p, "base", NULL);
    for (int i = 0; i < 3; i++) {
        char out[20], parted[20], text[80];
        snprintf(out, sizeof out, "~/kind%d", i);
        snprintf(parted, sizeof parted, "~/parted%d", i);
        struct cb_train_options o = options(&p, kinds[i], NULL, out);
        o.adapter_drop = 2;
        CHECK_OK(train(&p, o, p.text, &err));
        train_parted(&p, o, parted, p.text);
        CHECK(same_file(o.out, in_place(&p, parted), i == 2 ? "adapter.safetensors" : "adapter_model.safetensors"), "%s", kinds[i]);
        struct tensors *dropped[3], *whole = logits(&p, out, NULL);
        for (int k = 0; k < 3; k++) {
            snprintf(text, sizeof text, "drop(%s; %d)", out, k);
            dropped[k] = logits(&p, text, NULL);
        }
        CHECK(same_logits(dropped[0], whole) && same_logits(dropped[2], base), "%s: of no layer or of all", kinds[i]);
        CHECK(!same_logits(dropped[1], whole) && !same_logits(dropped[1], base), "%s: of one layer", kinds[i]);
        for (int k = 0; k < 3; k++) tensors_destroy(&dropped[k]);
        // training without it is another run
        o.adapter_drop = 0;
        o.out = in_place(&p, "~/always");
        CHECK(i || train(&p, o, p.text, &err) == CB_OK, "%s", err.message);
        CHECK(i || !same_file(in_place(&p, out), o.out, "adapter_model.safetensors"), "the module was never left out");
        tensors_destroy(&whole);
    }
    // the second layer's module alone is the module of which the first was never there
    struct cb_train_options o = options(&p, "lora:r=2,layers=1", NULL, "~/second");
    CHECK_OK(train(&p, o, p.text, &err));
    struct tensors *second = logits(&p, "~/second", NULL), *same = logits(&p, "drop(~/second; 1)", NULL);
    CHECK(same_logits(second, same), "a layer that the module does not have");
    o = options(&p, "lora:r=2", NULL, "~/out");
    o.adapter_drop = 3;
    CHECK_FAILS(train(&p, o, p.text, &err), CB_E_USAGE, "2 layers");
    o.adapter_drop = 1;
    o.tuner = "prefix:n=2";
    CHECK_FAILS(train(&p, o, p.text, &err), CB_E_UNSUPPORTED, "cannot be left out");
    tensors_destroy(&second);
    tensors_destroy(&same);
    tensors_destroy(&base);
    place_close(&p);
}
