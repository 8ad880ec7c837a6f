/* A hypernetwork trained jointly over rows of two languages: each row is what its field says, in training, in evaluation and in what convert writes. */
#include <cambium/cambium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../data/files.h"
#include "../harness.h"
#include "io/file.h"
#include "io/safetensors.h"

/* Examples whose label is the opposite in the other language, so that no one module can learn both. */
static char *examples(const char *folder, const char *name, int n, int from, const char *only, const char *said) {
    static const char *const words[] = {"red", "blue", "house", "river"}, *const languages[] = {"en", "ru"};
    char *text = malloc((size_t)n * 120 + 1), *p = text;
    CHECK(text);
    *p = 0;
    for (int i = from; i < from + n; i++) {
        const unsigned h = (unsigned)i * 2654435761u >> 8;
        const char *a = words[h % 4], *b = words[h / 4 % 4], *language = only ? only : languages[h / 16 % 2];
        const int is_red = !strcmp(a, "red") || !strcmp(b, "red"), is_yes = is_red == !strcmp(language, "en");
        p += sprintf(p, "{\"text\": \"%s %s\", \"label\": \"%s\", \"language\": \"%s\"}\n", a, b, is_yes ? "yes" : "no",
                     said ? said : language);
    }
    char *path = file_put(folder, name, text, strlen(text));
    free(text);
    return path;
}

enum { ROWS = 3, TOKENS = 5, VOCAB = 270 };

struct place {
    char *folder, *train, *both, *ru, *lie, *odd, *tokens, *model, *out, *plain;
    struct cb_engine *engine;
};

static void place_open(struct place *p) {
    struct cb_err err = {0};
    *p = (struct place){.folder = folder_make()};
    p->train = examples(p->folder, "train.jsonl", 512, 0, NULL, NULL);
    p->both = examples(p->folder, "both.jsonl", 128, 5000, NULL, NULL);
    p->ru = examples(p->folder, "ru.jsonl", 64, 6000, "ru", NULL);
    p->lie = examples(p->folder, "lie.jsonl", 64, 6000, "ru", "en");
    p->odd = examples(p->folder, "odd.jsonl", 8, 0, "ru", "fr");
    p->tokens = io_path_join(p->folder, "tokens");
    p->model = io_path_join(p->folder, "model");
    p->out = io_path_join(p->folder, "out");
    p->plain = io_path_join(p->folder, "plain");
    struct cb_engine_options eo = {.threads = 1};
    CHECK_OK(cb_engine_create(&p->engine, &eo, &err));
    const char *text = p->train;
    struct cb_tokenizer_train_options to = {.text = &text, .n_text = 1, .out = p->tokens, .vocab = 270, .kind = "bpe"};
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p->engine, &to, &tr, &err));
    struct cb_init_options io = {
        .out = p->model, .family = "gpt2", .set = "n_embd=32,n_layer=2,n_head=2,n_positions=32", .tokenizer = p->tokens};
    struct cb_init_result ir;
    CHECK_OK(cb_init(p->engine, &io, &ir, &err));
}

static void place_close(struct place *p) {
    cb_engine_destroy(&p->engine);
    char *paths[] = {p->train, p->both, p->ru, p->lie, p->odd, p->tokens, p->model, p->out, p->plain};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) free(paths[i]);
    free(p->folder);
}

static enum cb_status train(struct place *p, const char *tuner, const char *data, int64_t steps, struct cb_err *err) {
    struct cb_train_result r;
    struct cb_train_options o = {.model = p->model,
                                 .out = p->out,
                                 .text = &data,
                                 .n_text = 1,
                                 .task = "classify",
                                 .tuner = tuner,
                                 .steps = steps,
                                 .batch = 16,
                                 .lr = 5e-3,
                                 .run_json = "{}"};
    *err = (struct cb_err){0};
    return cb_train(p->engine, &o, &r, err);
}

static double accuracy(struct place *p, const char *modules, const char *data) {
    struct cb_task_result r = {0};
    struct cb_err err = {0};
    struct cb_eval_options o = {.model = p->model, .modules = modules, .text = &data, .n_text = 1, .task = "classify"};
    CHECK_OK(cb_eval_task(p->engine, &o, &r, &err));
    return r.accuracy;
}

static const char hyper[] = "hyper:r=4,values=language=en+language=ru";

TEST(hyper, is_trained_by_the_field_of_each_row) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    CHECK_OK(train(&p, hyper, p.train, 600, &err));
    const double both = accuracy(&p, p.out, p.both), lie = accuracy(&p, p.out, p.lie), ru = accuracy(&p, p.out, p.ru);
    CHECK(both > 0.9 && ru > 0.9 && lie < 0.2, "accuracy %g, of one language %g, told to be the other %g", both, ru, lie);
    // what is written for one value is that value's, whatever the rows say
    const char *fields[] = {"language=ru"};
    struct cb_convert_options co = {.in = p.out, .out = p.plain, .model = p.model, .fields = fields, .n_fields = 1, .run_json = "{}"};
    struct cb_convert_result cr;
    CHECK_OK(cb_convert(p.engine, &co, &cr, &err));
    CHECK(accuracy(&p, p.plain, p.ru) == ru && accuracy(&p, p.plain, p.lie) == ru, "plain: accuracy %g; wanted %g",
          accuracy(&p, p.plain, p.ru), ru);
    place_close(&p);
}

/* Logits of three rows; said: the file of their fields. */
static enum cb_status logits(struct place *p, const char *modules, const char *said, float *to, struct cb_err *err) {
    int64_t ids[ROWS * TOKENS];
    char in[300], out[300];
    struct cb_forward_result r = {0};
    struct tensors *t = NULL;
    const struct tensor *found;
    for (int i = 0; i < ROWS * TOKENS; i++) ids[i] = (i * 7 + 3) % VOCAB;
    snprintf(in, sizeof in, "%s/in.safetensors", p->folder);
    snprintf(out, sizeof out, "%s/out.safetensors", p->folder);
    const struct tensor_item item = {.name = "input_ids", .type = type_make(CB_DTYPE_I64, 2, (int64_t[]){ROWS, TOKENS}), .data = ids};
    TRY(tensors_write(in, &item, 1, NULL, NULL, NULL, err));
    const struct cb_forward_options o = {.model = p->model, .modules = modules, .input = in, .output = out, .rows = said};
    TRY(cb_forward(p->engine, &o, &r, err));
    cb_free(r.shapes);
    TRY(tensors_open(&t, out, err));
    enum cb_status status = tensors_need(&found, t, "logits", err);
    if (status == CB_OK) tensor_read_f32(to, found);
    tensors_destroy(&t);
    return status;
}

TEST(hyper, rows_of_a_file) {
    static float each[ROWS * TOKENS * VOCAB], one[ROWS * TOKENS * VOCAB];
    struct place p;
    struct cb_err err;
    char text[600];
    const struct cb_train_options o = {
        .tuner = "hyper:r=2,values=language=en+language=ru,at=language=en", .steps = 5, .batch = 2, .seq = 8};
    struct cb_train_options full = o;
    struct cb_train_result r;
    place_open(&p);
    const char *data = p.train;
    full.model = p.model, full.out = p.out, full.text = &data, full.n_text = 1, full.run_json = "{}", full.lr = 0.05;
    memset(&err, 0, sizeof err);
    CHECK_OK(cb_train(p.engine, &full, &r, &err));
    // the value that was trained with holds where none is told: rows are asked only where it is taken out
    CHECK_OK(logits(&p, p.out, NULL, one, &err));
    char *path = io_path_join(p.out, "adapter_config.json"), *config;
    size_t n;
    CHECK_OK(io_read_file(&config, &n, path, 1 << 20, &err));
    char *at = strstr(config, "\"language=en\"\n  ],\n  \"modules_to_save\"");
    CHECK(at, "%s", config);
    memset(at, ' ', strlen("\"language=en\""));
    CHECK_OK(io_write_file(path, config, strlen(config), &err));
    CHECK_FAILS(logits(&p, p.out, NULL, each, &err), CB_E_ARGUMENT, "--rows FILE is wanted, or --field language=VALUE");
    static const char mixed[] = "{\"language\": \"ru\"}\n{\"language\": \"en\"}\n{\"language\": \"ru\"}\n",
                      odd[] = "{\"language\": \"fr\"}\n";
    char *rows = file_put(p.folder, "rows.jsonl", mixed, strlen(mixed)), *wrong = file_put(p.folder, "odd.jsonl", odd, strlen(odd));
    CHECK_OK(logits(&p, p.out, rows, each, &err));
    for (int i = 0; i < ROWS; i++) {
        snprintf(text, sizeof text, "@language=%s\n%s", i % 2 ? "en" : "ru", p.out);
        CHECK_OK(logits(&p, text, NULL, one, &err));
        double worst = 0, apart = 0;
        for (int k = 0; k < TOKENS * VOCAB; k++) {
            worst = fmax(worst, fabs((double)each[i * TOKENS * VOCAB + k] - (double)one[i * TOKENS * VOCAB + k]));
            apart = fmax(apart, fabs((double)each[(i + 1) % 2 * TOKENS * VOCAB + k] - (double)one[(i + 1) % 2 * TOKENS * VOCAB + k]));
        }
        CHECK(worst < 1e-5 && apart > 1e-4, "row %d: error %g, the other language's %g", i, worst, apart);
    }
    CHECK_FAILS(logits(&p, p.out, wrong, each, &err), CB_E_FORMAT, "line 1: language: found \"fr\"; wanted one of en, ru");
    free(rows);
    free(wrong);
    free(path);
    free(config);
    place_close(&p);
}

TEST(hyper, wrong_fields_are_told) {
    struct place p;
    struct cb_err err;
    place_open(&p);
    CHECK_FAILS(train(&p, hyper, p.odd, 1, &err), CB_E_FORMAT, "data: example 1: language: found fr; wanted one of 2 values (en, ...)");
    CHECK_FAILS(train(&p, "hyper:values=tongue=en+tongue=ru", p.train, 1, &err), CB_E_FORMAT,
                "data: found no example with a string tongue; wanted one in each");
    place_close(&p);
}
