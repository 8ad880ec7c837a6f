/* Labelled tasks by their public face: heads on bases without one, modules with their heads, what is measured, what is refused. */
#include <cambium/cambium.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../data/files.h"
#include "../harness.h"
#include "io/file.h"
#include "io/safetensors.h"

/* A folder with examples of which the label is a word's presence, a tokenizer and a small model. */
struct place {
    char *folder, *train, *valid, *pairs, *numbers, *tags, *tokens, *model, *out;
    struct cb_engine *engine;
};

static char *lines(const char *folder, const char *name, int n, int from, const char *kind) {
    static const char *const words[] = {"red", "blue", "green", "house", "tree", "river", "stone", "bird"};
    char *text = malloc((size_t)n * 200), *p = text;
    CHECK(text);
    for (int i = from; i < from + n; i++) {
        unsigned h = (unsigned)i * 2654435761u >> 8;
        const char *a = words[h % 8], *b = words[h / 8 % 8], *c = words[h / 64 % 8];
        int red = !strcmp(a, "red") || !strcmp(b, "red") || !strcmp(c, "red"), same = !strcmp(a, b);
        if (!strcmp(kind, "class"))
            p += sprintf(p, "{\"text\": \"%s %s %s\", \"label\": \"%s\"}\n", a, b, c, red ? "yes" : "no");
        else if (!strcmp(kind, "pair"))
            p += sprintf(p, "{\"text\": \"%s\", \"text_b\": \"%s\", \"label\": %d}\n", a, b, same);
        else if (!strcmp(kind, "number"))
            p += sprintf(p, "{\"text\": \"%s %s %s\", \"label\": %.1f}\n", a, b, c, red ? 1.5 : -0.5);
        else
            p += sprintf(p, "{\"tokens\": [\"%s\", \"%s\", \"%s\"], \"tags\": [\"%s\", \"%s\", \"%s\"]}\n", a, b, c,
                         !strcmp(a, "red") ? "B-C" : "O", !strcmp(b, "red") ? "B-C" : "O", !strcmp(c, "red") ? "B-C" : "O");
    }
    char *path = file_put(folder, name, text, strlen(text));
    free(text);
    return path;
}

static void place_open(struct place *p, const char *family, const char *set) {
    struct cb_err err = {0};
    *p = (struct place){.folder = folder_make()};
    p->train = lines(p->folder, "train.jsonl", 512, 0, "class");
    p->valid = lines(p->folder, "valid.jsonl", 128, 5000, "class");
    p->pairs = lines(p->folder, "pairs.jsonl", 64, 0, "pair");
    p->numbers = lines(p->folder, "numbers.jsonl", 512, 0, "number");
    p->tags = lines(p->folder, "tags.jsonl", 512, 0, "tags");
    p->tokens = io_path_join(p->folder, "tokens");
    p->model = io_path_join(p->folder, "model");
    p->out = io_path_join(p->folder, "out");
    struct cb_engine_options eo = {.threads = 1};
    CHECK_OK(cb_engine_create(&p->engine, &eo, &err));
    const char *text = p->train;
    struct cb_tokenizer_train_options to = {.text = &text, .n_text = 1, .out = p->tokens, .vocab = 280, .kind = "bpe"};
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p->engine, &to, &tr, &err));
    struct cb_init_options io = {.out = p->model, .family = family, .set = set, .tokenizer = p->tokens};
    struct cb_init_result ir;
    CHECK_OK(cb_init(p->engine, &io, &ir, &err));
}

static void place_close(struct place *p) {
    cb_engine_destroy(&p->engine);
    char **paths[] = {&p->train, &p->valid, &p->pairs, &p->numbers, &p->tags, &p->tokens, &p->model, &p->out};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) free(*paths[i]);
    free(p->folder);
}

static enum cb_status train(struct place *p, const char *task, const char *tuner, const char *data, int64_t steps, struct cb_err *err) {
    struct cb_train_result r;
    struct cb_train_options o = {.model = p->model,
                                 .out = p->out,
                                 .text = &data,
                                 .n_text = 1,
                                 .task = task,
                                 .tuner = tuner,
                                 .steps = steps,
                                 .batch = 16,
                                 .lr = 3e-3,
                                 .run_json = "{}"};
    *err = (struct cb_err){0};
    return cb_train(p->engine, &o, &r, err);
}

static struct cb_task_result score(struct place *p, const char *task, const char *model, const char *modules, const char *data) {
    struct cb_task_result r = {0};
    struct cb_err err = {0};
    struct cb_eval_options o = {.model = model, .modules = modules, .text = &data, .n_text = 1, .task = task};
    CHECK_OK(cb_eval_task(p->engine, &o, &r, &err));
    return r;
}

static const char gpt2[] = "n_embd=32,n_layer=2,n_head=2,n_positions=32";
static const char bert[] = "hidden_size=32,num_hidden_layers=1,num_attention_heads=2,intermediate_size=64,max_position_embeddings=32";

TEST(task, heads_are_learnt_on_any_base) {
    static const char *const families[][2] = {{"gpt2", gpt2}, {"bert", bert}};
    for (int f = 0; f < 2; f++) {
        struct place p;
        struct cb_err err;
        place_open(&p, families[f][0], families[f][1]);
        // whole weights: the folder is a classifier, which knows its labels
        CHECK_OK(train(&p, "classify", "full", p.train, 150, &err));
        struct cb_task_result r = score(&p, "classify", p.out, NULL, p.valid);
        CHECK(r.n == 128 && r.accuracy > 0.9 && r.mcc > 0.7 && r.f1 > 0.8, "%s: accuracy %g, mcc %g, f1 %g", families[f][0], r.accuracy,
              r.mcc, r.f1);
        CHECK(isnan(r.pearson));
        place_close(&p);
        // numbers
        place_open(&p, families[f][0], families[f][1]);
        CHECK_OK(train(&p, "regress", "full", p.numbers, 150, &err));
        r = score(&p, "regress", p.out, NULL, p.numbers);
        CHECK(r.pearson > 0.9 && r.loss < 0.2, "%s: pearson %g, loss %g", families[f][0], r.pearson, r.loss);
        place_close(&p);
        // tags
        place_open(&p, families[f][0], families[f][1]);
        CHECK_OK(train(&p, "tag", "full", p.tags, 100, &err));
        r = score(&p, "tag", p.out, NULL, p.tags);
        CHECK(r.accuracy > 0.95 && r.f1 > 0.9, "%s: accuracy %g, f1 %g", families[f][0], r.accuracy, r.f1);
        place_close(&p);
    }
}

TEST(task, a_module_brings_its_head) {
    struct place p;
    struct cb_err err;
    place_open(&p, "bert", bert);
    CHECK_OK(train(&p, "classify", "lora:r=8,alpha=32", p.train, 200, &err));
    char *config = io_path_join(p.out, "adapter_config.json"), *text;
    size_t n;
    CHECK_OK(io_read_file(&text, &n, config, 1 << 20, &err));
    CHECK(strstr(text, "\"SEQ_CLS\"") && strstr(text, "\"classifier\""), "%s", text);
    struct cb_task_result r = score(&p, "classify", p.model, p.out, p.valid);
    CHECK(r.accuracy > 0.85, "accuracy %g", r.accuracy);
    // its card says on which base it was trained: another is refused
    char *other = io_path_join(p.folder, "other");
    struct cb_init_options io = {.out = other, .family = "bert", .set = bert, .tokenizer = p.tokens};
    struct cb_init_result ir;
    struct cb_engine_options eo = {.threads = 1, .seed = 5}, forced = {.threads = 1, .force = true};
    struct cb_engine *engine;
    CHECK_OK(cb_engine_create(&engine, &eo, &err));
    CHECK_OK(cb_init(engine, &io, &ir, &err));
    const char *data = p.valid;
    struct cb_eval_options o = {.model = other, .modules = p.out, .text = &data, .n_text = 1, .task = "classify"};
    CHECK_FAILS(cb_eval_task(engine, &o, &r, &err), CB_E_ARGUMENT, "another base");
    cb_engine_destroy(&engine);
    CHECK_OK(cb_engine_create(&engine, &forced, &err));
    CHECK_OK(cb_eval_task(engine, &o, &r, &err));
    cb_engine_destroy(&engine);
    free(other);
    free(config);
    free(text);
    place_close(&p);
}

/* A base with a head of other labels, or of another task, takes a new one: it is learnt, saved and merged with the module. */
TEST(task, a_new_head_on_a_base_that_has_one) {
    struct place p;
    struct cb_err err;
    place_open(&p, "bert", bert);
    CHECK_OK(train(&p, "classify", "full", p.train, 20, &err));
    free(p.model);
    p.model = p.out;
    p.out = io_path_join(p.folder, "pairs");
    CHECK_FAILS(train(&p, "classify", "lora:r=8,alpha=32", p.pairs, 4, &err), CB_E_FORMAT, "wanted one of the model's 2 labels");
    struct cb_train_result r;
    const char *data = p.pairs;
    struct cb_train_options o = {.model = p.model,
                                 .out = p.out,
                                 .text = &data,
                                 .n_text = 1,
                                 .tuner = "lora:r=8,alpha=32",
                                 .task = "classify",
                                 .new_head = true,
                                 .steps = 400,
                                 .batch = 16,
                                 .lr = 3e-3,
                                 .run_json = "{}"};
    CHECK_OK(cb_train(p.engine, &o, &r, &err));
    struct cb_task_result attached = score(&p, "classify", p.model, p.out, p.pairs);
    CHECK(attached.accuracy > 0.95, "accuracy %g", attached.accuracy);
    char *merged = io_path_join(p.folder, "merged");
    struct cb_merge_options mo = {.model = p.model, .modules = p.out, .out = merged};
    struct cb_merge_result mr;
    CHECK_OK(cb_merge(p.engine, &mo, &mr, &err));
    CHECK(fabs(score(&p, "classify", merged, NULL, p.pairs).loss - attached.loss) < 1e-4);
    // a tagger's head is of as many labels, and not theirs
    free(p.out);
    p.out = io_path_join(p.folder, "tagger");
    CHECK_FAILS(train(&p, "tag", "lora:r=8,alpha=32", p.tags, 4, &err), CB_E_ARGUMENT, "found classify; wanted tag");
    data = p.tags;
    o.out = p.out;
    o.task = "tag";
    CHECK_OK(cb_train(p.engine, &o, &r, &err));
    CHECK(score(&p, "tag", p.model, p.out, p.tags).f1 > 0.9);
    // labels are what a new head has
    o.task = "text";
    CHECK_FAILS(cb_train(p.engine, &o, &r, &err), CB_E_USAGE, "--new-head: wanted it with a --task");
    free(merged);
    place_close(&p);
}

/* A base in blocks is the one that a module was trained on, but for rounding; another one in blocks is refused as well. */
TEST(task, a_module_on_bases_in_blocks) {
    struct place p;
    struct cb_err err;
    place_open(&p, "gpt2", gpt2);
    CHECK_OK(train(&p, NULL, "lora:r=4", p.train, 20, &err));
    char *other = io_path_join(p.folder, "other"), *blocks = io_path_join(p.folder, "blocks.gguf");
    struct cb_init_options io = {.out = other, .family = "gpt2", .set = gpt2, .tokenizer = p.tokens};
    struct cb_init_result ir;
    struct cb_engine_options eo = {.threads = 1, .seed = 5};
    struct cb_engine *engine;
    CHECK_OK(cb_engine_create(&engine, &eo, &err));
    CHECK_OK(cb_init(engine, &io, &ir, &err));
    static const char *const types[] = {"q8_0", "q4_0"};
    const char *data = p.valid;
    struct cb_eval_options o = {.model = p.model, .modules = p.out, .text = &data, .n_text = 1};
    struct cb_eval_result plain, r;
    CHECK_OK(cb_eval_text(engine, &o, &plain, &err));
    o.model = blocks;
    for (int i = 0; i < 4; i++) {
        struct cb_convert_options co = {.in = i < 2 ? p.model : other, .out = blocks, .quantize = types[i % 2]};
        struct cb_convert_result cr;
        CHECK_OK(cb_convert(engine, &co, &cr, &err));
        if (i < 2) {
            CHECK_OK(cb_eval_text(engine, &o, &r, &err));
            CHECK(fabs(r.loss - plain.loss) < 0.2, "%s: loss %g, %g of the base", types[i], r.loss, plain.loss);
        } else {
            CHECK_FAILS(cb_eval_text(engine, &o, &r, &err), CB_E_ARGUMENT, "another base");
        }
    }
    cb_engine_destroy(&engine);
    free(other);
    free(blocks);
    place_close(&p);
}

/* Numbers of labels are those of the training data, also where a module stands in an expression and the data have one label only. */
TEST(task, labels_are_found_in_expressions) {
    struct place p;
    struct cb_err err;
    place_open(&p, "bert", bert);
    CHECK_OK(train(&p, "classify", "lora:r=4", p.train, 20, &err));
    const char yes[] = "{\"text\": \"red tree\", \"label\": \"yes\"}\n";
    char *data = file_put(p.folder, "yes.jsonl", yes, strlen(yes)), *stack = malloc(strlen(p.out) + 16);
    CHECK(stack);
    sprintf(stack, "stack(\"%s\")", p.out);
    struct cb_task_result alone = score(&p, "classify", p.model, p.out, data), stacked = score(&p, "classify", p.model, stack, data);
    CHECK(alone.loss == stacked.loss, "loss %g alone, %g in a stack", alone.loss, stacked.loss);
    const char *text = p.tags;
    struct cb_eval_options o = {.model = p.model, .modules = stack, .text = &text, .n_text = 1, .task = "tag"};
    CHECK_FAILS(cb_eval_task(p.engine, &o, &alone, &err), CB_E_ARGUMENT, "found classify; wanted tag");
    free(data);
    free(stack);
    place_close(&p);
}

TEST(task, pairs_are_read) {
    struct place p;
    struct cb_err err;
    place_open(&p, "bert", bert);
    CHECK_OK(train(&p, "classify", "full", p.pairs, 4, &err));
    CHECK(score(&p, "classify", p.out, NULL, p.pairs).n == 64);
    place_close(&p);
}

TEST(task, wrong_data_are_refused) {
    struct place p;
    struct cb_err err;
    place_open(&p, "gpt2", gpt2);
    CHECK_FAILS(train(&p, "classify", "full", p.tags, 4, &err), CB_E_FORMAT, "wanted text and label");
    CHECK_FAILS(train(&p, "tag", "full", p.train, 4, &err), CB_E_FORMAT, "wanted tokens and tags");
    CHECK_FAILS(train(&p, "regress", "full", p.train, 4, &err), CB_E_FORMAT, "wanted a number");
    CHECK_FAILS(train(&p, "nosuch", "full", p.train, 4, &err), CB_E_USAGE, "classify");
    CHECK_OK(train(&p, "classify", "full", p.train, 4, &err));
    // labels that the model has not
    struct cb_task_result r;
    const char *data = p.pairs;
    struct cb_eval_options o = {.model = p.out, .text = &data, .n_text = 1, .task = "classify"};
    CHECK_FAILS(cb_eval_task(p.engine, &o, &r, &err), CB_E_FORMAT, "wanted one of the model's 2 labels");
    // a resumed run is the same run or refused
    CHECK_FAILS(train(&p, "classify", "full", p.train, 4, &err), CB_E_ARGUMENT, "--resume");
    place_close(&p);
}

/* Numbers as tags are those of a model's labels, where these are words: the same examples by names and by numbers, in three formats. */
TEST(task, labels_by_number) {
    static const char *const same[][2] = {
        {"names.jsonl", "{\"tokens\": [\"red\", \"house\"], \"ner_tags\": [\"B-C\", \"O\"]}"},
        {"numbers.jsonl", "{\"tokens\": [\"red\", \"house\"], \"ner_tags\": [0, 1]}"},
        {"numbers.csv", "tokens,ner_tags\n\"[\"\"red\"\", \"\"house\"\"]\",\"[0, 1]\"\n"},
        {"numbers.conll", "red 0\nhouse 1\n"},
    };
    static const char *const wrong[][2] = {
        {"{\"tokens\": [\"red\"], \"ner_tags\": [2]}",
         "tags: found 2; wanted a number from 0 to 1, or one of the model's labels (B-C, ...)"},
        {"{\"tokens\": [\"red\"], \"ner_tags\": [-1]}", "found -1; wanted a number from 0 to 1"},
        {"{\"tokens\": [\"red\"], \"ner_tags\": [0.5]}", "found 0.5; wanted one of the model's 2 labels"},
        {"{\"tokens\": [\"red\"], \"ner_tags\": [99999999999999999999]}", "99999999999999999999"},
    };
    struct place p;
    struct cb_err err = {0};
    struct cb_task_result r[2];
    place_open(&p, "bert", bert);
    CHECK_OK(train(&p, "tag", "full", p.tags, 2, &err));
    struct cb_eval_options o = {.model = p.out, .n_text = 1, .task = "tag"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char *path = file_put(p.folder, same[i][0], same[i][1], strlen(same[i][1]));
        const char *data = path;
        o.text = &data;
        CHECK_OK(cb_eval_task(p.engine, &o, &r[i > 0], &err));
        CHECK(r[0].loss > 0 && (!i || r[1].loss == r[0].loss), "%s: %g, %g", same[i][0], r[1].loss, r[0].loss);
        free(path);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *path = file_put(p.folder, "wrong.jsonl", wrong[i][0], strlen(wrong[i][0]));
        const char *data = path;
        o.text = &data;
        CHECK_FAILS(cb_eval_task(p.engine, &o, &r[0], &err), CB_E_FORMAT, wrong[i][1]);
        free(path);
    }
    place_close(&p);
}

/* Broken bytes are an error, unless they are to be replaced or left out. */
TEST(task, broken_bytes_as_told) {
    static const char bytes[] = "{\"text\": \"red \xff house\", \"label\": \"c0\"}\n";
    struct place p;
    struct cb_err err = {0};
    struct cb_task_result r;
    place_open(&p, "gpt2", gpt2);
    char *path = file_put(p.folder, "broken.jsonl", bytes, strlen(bytes));
    const char *data = path;
    struct cb_eval_options o = {.model = p.model, .text = &data, .n_text = 1, .task = "classify"};
    CHECK_FAILS(cb_eval_task(p.engine, &o, &r, &err), CB_E_FORMAT, "found byte 0xff");
    o.invalid = "hide";
    CHECK_FAILS(cb_eval_task(p.engine, &o, &r, &err), CB_E_USAGE, "--invalid hide: wanted fail, replace or skip");
    o.invalid = "skip";
    CHECK_OK(cb_eval_task(p.engine, &o, &r, &err));
    CHECK(r.n == 1);
    free(path);
    place_close(&p);
}

TEST(task, tuners_are_compared) {
    struct place p;
    struct cb_err err = {0};
    place_open(&p, "gpt2", gpt2);
    static const char *const tuners[] = {"full@3e-3", "lora:r=4", "head"};
    const char *data = p.train, *valid = p.valid;
    struct cb_compare_result r, again;
    struct cb_compare_options o = {.model = p.model, .out = p.out, .task = "classify", .tuners = tuners, .n_tuners = 3};
    o.text = &data, o.n_text = 1, o.valid = &valid, o.n_valid = 1, o.test = &valid, o.n_test = 1;
    CHECK_FAILS(cb_compare(p.engine, &o, &r, &err), CB_E_USAGE, "--steps");
    o.steps = 20, o.seeds = 2, o.batch = 16, o.run_json = "{}";
    CHECK_OK(cb_compare(p.engine, &o, &r, &err));
    CHECK(r.n_rows == 3 && r.rows[0].mean.trainable == r.rows[0].mean.total && r.rows[2].mean.trainable == 64);
    for (int i = 0; i < 3; i++)
        CHECK(r.rows[i].mean.valid > 0.3 && r.rows[i].mean.valid == r.rows[i].mean.test && r.rows[i].error >= 0 &&
              r.rows[i].mean.file_bytes > 0);
    // what is finished is not done again
    CHECK_OK(cb_compare(p.engine, &o, &again, &err));
    CHECK(again.rows[1].mean.seconds == r.rows[1].mean.seconds && again.rows[1].mean.valid == r.rows[1].mean.valid);
    char *path = io_path_join(p.out, "compare.svg"), *text;
    size_t n;
    CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
    CHECK(strstr(text, "lora:r=4"), "%s", text);
    free(path);
    free(text);
    cb_free(r.rows);
    cb_free(again.rows);
    // the same rows as text, by their likelihood
    char *out = io_path_join(p.out, "text");
    o.out = out, o.task = "text", o.tuners = tuners + 1, o.n_tuners = 1, o.seeds = 1, o.metric = "accuracy";
    CHECK_FAILS(cb_compare(p.engine, &o, &r, &err), CB_E_USAGE, "wanted one of loss, perplexity, bits_per_byte");
    o.metric = NULL, o.steps = 2;
    CHECK_OK(cb_compare(p.engine, &o, &r, &err));
    CHECK(r.rows[0].mean.valid > 0.5 && r.rows[0].mean.valid < 10, "%g", r.rows[0].mean.valid);
    cb_free(r.rows);
    free(out);
    place_close(&p);
}

/* Names of the weights that training changed, joined by spaces, of both folders' common ones. */
static char *changed(const struct place *p, const char *out) {
    struct tensors *a, *b;
    struct cb_err err = {0};
    char *text = calloc(1, 8000);
    CHECK_OK(tensors_open(&a, p->model, &err));
    CHECK_OK(tensors_open(&b, out, &err));
    for (int i = 0; i < tensors_count(a); i++) {
        const struct tensor *x = tensors_at(a, i), *y = tensors_find(b, x->name);
        if (!y || memcmp(tensor_data(x), tensor_data(y), (size_t)type_bytes(&x->type)) == 0) continue;
        strcat(text, x->name);
        strcat(text, " ");
    }
    tensors_destroy(&a);
    tensors_destroy(&b);
    return text;
}

TEST(task, parameters_learn_as_told) {
    struct place p;
    struct cb_err err;
    struct cb_train_result r;
    place_open(&p, "gpt2", gpt2);
    const char *data = p.train, *scales[] = {".*mlp.*=0", ".*wte.*=0.5"}, *nothing[] = {"nosuch=1"};
    struct cb_train_options o = {.model = p.model, .text = &data, .n_text = 1, .task = "classify", .steps = 4, .run_json = "{}"};
    o.batch = 8;
    static const struct {
        const char *name, *tuner, *has, *lacks;
        bool scaled;
        int64_t unfreeze;
    } cases[] = {
        {"a", "match:transformer.h.1.attn.*", "h.1.attn.c_attn.weight", "mlp", false, 0},
        {"b", "head", "", "transformer", false, 0},
        {"c", "full", "h.0.attn.c_attn.weight", "mlp", true, 0},
        {"d", "full", "transformer.h.1.mlp", "transformer.h.0", false, 100},
        {"e", "full", "transformer.h.0.mlp", "wte", false, 2},
        {"f", "last:1", "transformer.h.1.mlp", "transformer.h.0", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = io_path_join(p.folder, cases[i].name);
        o.out = out;
        o.tuner = cases[i].tuner;
        o.lr_scales = scales;
        o.n_lr_scales = cases[i].scaled ? 2 : 0;
        o.unfreeze = cases[i].unfreeze;
        err = (struct cb_err){0};
        CHECK_OK(cb_train(p.engine, &o, &r, &err));
        char *names = changed(&p, out);
        CHECK(strstr(names, cases[i].has), "%s: %s lacks %s", cases[i].name, names, cases[i].has);
        CHECK(!strstr(names, cases[i].lacks), "%s: %s has %s", cases[i].name, names, cases[i].lacks);
        free(names);
        free(out);
    }
    o.out = p.out;
    o.tuner = "full";
    o.lr_scales = nothing;
    o.n_lr_scales = 1;
    CHECK_FAILS(cb_train(p.engine, &o, &r, &err), CB_E_NAME, "nosuch");
    o.n_lr_scales = 0;
    o.tuner = "match:nosuch";
    CHECK_FAILS(cb_train(p.engine, &o, &r, &err), CB_E_NAME, "nosuch");
    place_close(&p);
}

/* A student that is given no label of use still learns what its teacher knows. */
TEST(task, a_teacher_is_distilled) {
    struct place p;
    struct cb_err err = {0};
    struct cb_train_result r;
    place_open(&p, "gpt2", gpt2);
    CHECK_OK(train(&p, "classify", "full", p.train, 150, &err));
    char *student = io_path_join(p.folder, "student"), *wrong = io_path_join(p.folder, "wrong.jsonl");
    // the same texts, all of one label but the first
    char *text;
    size_t n;
    CHECK_OK(io_read_file(&text, &n, p.train, 1 << 20, &err));
    for (char *at = text; (at = strstr(at, "\"yes\"")); at++)
        if (at - text > 200) memcpy(at, "\"no\" ", 5);
    CHECK_OK(io_write_file(wrong, text, strlen(text), &err));
    const char *data = wrong;
    struct cb_train_options o = {.model = p.model, .out = student, .text = &data, .n_text = 1, .task = "classify", .tuner = "full"};
    o.steps = 150, o.batch = 16, o.lr = 3e-3, o.run_json = "{}", o.teacher = p.out, o.distill = 1, o.temperature = 2;
    CHECK_OK(cb_train(p.engine, &o, &r, &err));
    struct cb_task_result scored = score(&p, "classify", student, NULL, p.valid);
    CHECK(scored.accuracy > 0.9, "accuracy %g", scored.accuracy);
    free(text);
    free(student);
    free(wrong);
    place_close(&p);
}

TEST(task, names_of_labelled_ones) {
    CHECK(cb_task_is_labelled("classify") && cb_task_is_labelled("regress") && cb_task_is_labelled("tag"));
    CHECK(!cb_task_is_labelled("chat") && !cb_task_is_labelled("class") && !cb_task_is_labelled("") && !cb_task_is_labelled(NULL));
}
