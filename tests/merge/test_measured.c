/* What needs models that run: alignment, Fisher information, Gram matrices, loss along a line; through the public calls. */
#include <cambium/cambium.h>

#include "harness.h"
#include "io/file.h"
#include "merge/fixtures.h"

struct bench {
    char folder[128], a[160], b[160], out[160], text[160];
    struct cb_engine *engine;
};

static void init(struct bench *b, const char *out, const char *family, const char *set, uint64_t seed) {
    struct cb_err err = {0};
    struct cb_engine *engine;
    struct cb_init_result r;
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 2, .seed = seed}, &err));
    struct cb_init_options o = {.out = out, .family = family, .set = set, .tokenizer = path_of(b->folder, "tokenizer.json")};
    CHECK_OK(cb_init(engine, &o, &r, &err));
    cb_engine_destroy(&engine);
}

/* Two models with one byte tokenizer, and a text. */
static void bench_open(struct bench *b, const char *family, const char *set) {
    struct cb_err err = {0};
    struct cb_tokenizer_train_result t;
    temporary_folder(b->folder, "merge");
    snprintf(b->a, sizeof b->a, "%s/a", b->folder);
    snprintf(b->b, sizeof b->b, "%s/b", b->folder);
    snprintf(b->out, sizeof b->out, "%s/out", b->folder);
    snprintf(b->text, sizeof b->text, "%s/text.txt", b->folder);
    char *text = calloc(20000, 1);
    for (int i = 0; i < 300; i++) sprintf(text + strlen(text), "line %d of a text about %d small things\n", i, i * 7 % 13);
    CHECK_OK(io_write_file(b->text, text, strlen(text), &err));
    free(text);
    CHECK_OK(cb_engine_create(&b->engine, &(struct cb_engine_options){.threads = 2}, &err));
    const char *const texts[] = {b->text};
    struct cb_tokenizer_train_options o = {.text = texts, .n_text = 1, .out = b->folder, .kind = "byte"};
    CHECK_OK(cb_tokenizer_train(b->engine, &o, &t, &err));
    init(b, b->a, family, set, 1);
    init(b, b->b, family, set, 2);
}

static void bench_close(struct bench *b) { cb_engine_destroy(&b->engine); }

static enum cb_status combine(struct bench *b, const char *method, const char *one, const char *two, bool align,
                              struct cb_combine_result *r, struct cb_err *err) {
    const char *const models[] = {one, two}, *const texts[] = {b->text};
    struct cb_combine_options o = {.method = method,
                                   .models = models,
                                   .n_models = 2,
                                   .out = b->out,
                                   .align = align,
                                   .text = texts,
                                   .n_text = align ? 0 : 1,
                                   .samples = 4};
    return cb_combine(b->engine, &o, r, err);
}

/* A file's tensor with rows or columns in another order. */
static void permute(float *x, const float *from, int64_t rows, int64_t cols, const int *order, bool by_rows) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) x[i * cols + j] = by_rows ? from[order[i] * cols + j] : from[i * cols + order[j]];
}

/* `to`: the model `from` with hidden units and groups of heads in another order: the same function. */
static void write_shuffled(const char *from, const char *to, const char *const *patterns, const bool *by_rows, const int *sizes,
                           int n_patterns) {
    struct cb_err err = {0};
    struct tensors *t;
    CHECK_OK(tensors_open(&t, from, &err));
    const int n = tensors_count(t);
    struct tensor_item *items = calloc((size_t)n, sizeof *items);
    for (int i = 0; i < n; i++) {
        const struct tensor *x = tensors_at(t, i);
        items[i] = (struct tensor_item){.name = x->name, .type = x->type, .data = tensor_data(x)};
        for (int p = 0; p < n_patterns; p++) {
            if (!strstr(x->name, patterns[p])) continue;
            const bool vector = x->type.rank == 1;
            const int64_t rows = vector ? 1 : x->type.dim[0], cols = x->type.dim[x->type.rank - 1];
            const bool rowwise = !vector && by_rows[p];
            // blocks of `size` units are turned round
            const int side = (int)(rowwise ? rows : cols), size = sizes[p], blocks = side / size;
            int *order = malloc((size_t)side * sizeof *order);
            for (int k = 0; k < side; k++) order[k] = (blocks - 1 - k / size) * size + k % size;
            float *y = malloc((size_t)x->bytes);
            permute(y, tensor_data(x), rows, cols, order, rowwise);
            items[i].data = y;
            free(order);
        }
    }
    CHECK_OK(io_mkdirs(to, &err));
    CHECK_OK(tensors_write(path_of(to, "model.safetensors"), items, n, NULL, NULL, NULL, &err));
    for (int i = 0; i < n; i++)
        if (items[i].data != tensor_data(tensors_at(t, i))) free((void *)items[i].data);
    free(items);
    tensors_destroy(&t);
    char *text;
    size_t bytes;
    CHECK_OK(io_read_file(&text, &bytes, path_of(from, "config.json"), 1 << 20, &err));
    CHECK_OK(io_write_file(path_of(to, "config.json"), text, bytes, &err));
    free(text);
}

TEST(merge_measured, alignment_finds_a_shuffled_model_again) {
    struct cb_err err = {0};
    struct bench b;
    struct cb_combine_result r;
    char shuffled[200];
    // llama: groups of heads that share keys, gated feed-forward
    bench_open(
        &b, "llama",
        "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,num_key_value_heads=2,max_position_embeddings=128");
    snprintf(shuffled, sizeof shuffled, "%s/shuffled", b.folder);
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj", "q_proj", "k_proj", "v_proj", "o_proj"};
    static const bool rows[] = {true, true, false, true, true, true, false};
    static const int sizes[] = {1, 1, 1, 16, 8, 8, 16};
    write_shuffled(b.a, shuffled, names, rows, sizes, 7);
    CHECK(tensors_gap(b.a, shuffled) > 0.01, "it is another file");
    CHECK_OK(combine(&b, "linear", b.a, shuffled, true, &r, &err));
    const double gap = tensors_gap(b.a, b.out);
    CHECK(gap >= 0 && gap < 1e-6, "llama: off by %g", gap);
    CHECK_OK(combine(&b, "linear", b.a, shuffled, false, &r, &err));
    CHECK(tensors_gap(b.a, b.out) > 0.01, "without alignment it is not found");
    // two models of different starts keep computing what they did
    CHECK_OK(combine(&b, "linear", b.a, b.b, true, &r, &err));
    bench_close(&b);
    // gpt2: weights stored (in,out), q, k and v in one
    bench_open(&b, "gpt2", "n_embd=32,n_layer=2,n_head=4,n_positions=128");
    snprintf(shuffled, sizeof shuffled, "%s/shuffled", b.folder);
    static const char *const gpt2[] = {"mlp.c_fc", "mlp.c_proj.weight"};
    static const bool gpt2_rows[] = {false, true};
    static const int gpt2_sizes[] = {1, 1};
    write_shuffled(b.a, shuffled, gpt2, gpt2_rows, gpt2_sizes, 2);
    CHECK_OK(combine(&b, "linear", b.a, shuffled, true, &r, &err));
    CHECK(tensors_gap(b.a, b.out) < 1e-6, "gpt2: off by %g", tensors_gap(b.a, b.out));
    bench_close(&b);
}

TEST(merge_measured, fisher_and_regmean_give_a_model_with_itself_back) {
    struct cb_err err = {0};
    static const char *const families[][2] = {{"gpt2", "n_embd=32,n_layer=2,n_head=4,n_positions=128"},
                                              {"llama",
                                               "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,"
                                               "num_key_value_heads=2,max_position_embeddings=128"}};
    for (int f = 0; f < 2; f++) {
        struct bench b;
        struct cb_combine_result r;
        bench_open(&b, families[f][0], families[f][1]);
        for (int m = 0; m < 2; m++) {
            const char *method = m ? "regmean" : "fisher";
            CHECK_OK(combine(&b, method, b.a, b.a, false, &r, &err));
            const double same = tensors_gap(b.a, b.out);
            CHECK(same >= 0 && same < 1e-5, "%s %s: %g", families[f][0], method, same);
            // of two models something between, and not the plain mean
            CHECK_OK(combine(&b, method, b.a, b.b, false, &r, &err));
            char mean[200];
            snprintf(mean, sizeof mean, "%s/mean", b.folder);
            const char *const models[] = {b.a, b.b};
            struct cb_combine_options o = {.method = "linear", .models = models, .n_models = 2, .out = mean};
            CHECK_OK(cb_combine(b.engine, &o, &r, &err));
            CHECK(tensors_gap(mean, b.out) > 1e-3, "%s %s is the mean", families[f][0], method);
        }
        // regmean's layers are nearer to the models' outputs than the mean's: its loss on the text is finite and the call repeats bit for bit
        char again[200];
        CHECK_OK(combine(&b, "regmean", b.a, b.b, false, &r, &err));
        snprintf(again, sizeof again, "%s/again", b.folder);
        const char *const models[] = {b.a, b.b}, *const texts[] = {b.text};
        struct cb_combine_options o = {
            .method = "regmean", .models = models, .n_models = 2, .out = again, .text = texts, .n_text = 1, .samples = 4};
        CHECK_OK(cb_combine(b.engine, &o, &r, &err));
        CHECK(tensors_gap(again, b.out) == 0, "repeats");
        o.n_text = 0;
        CHECK_FAILS(cb_combine(b.engine, &o, &r, &err), CB_E_USAGE, "--text");
        bench_close(&b);
    }
}

TEST(merge_measured, loss_along_the_line_between_two_models) {
    struct cb_err err = {0};
    struct bench b;
    struct cb_connect_result r;
    struct cb_eval_result e;
    bench_open(&b, "gpt2", "n_embd=32,n_layer=2,n_head=4,n_positions=64");
    const char *const texts[] = {b.text};
    struct cb_connect_options o = {.a = b.a, .b = b.b, .text = texts, .n_text = 1, .seq = 64, .batch = 4, .out = b.out};
    CHECK_OK(cb_connect(b.engine, &o, &r, &err));
    // the ends are the models' own losses
    for (int i = 0; i < 2; i++) {
        struct cb_eval_options eo = {.model = i ? b.b : b.a, .text = texts, .n_text = 1, .seq = 64, .batch = 4};
        CHECK_OK(cb_eval_text(b.engine, &eo, &e, &err));
        CHECK(fabs(e.loss - r.loss[i ? CB_CONNECT_POINTS - 1 : 0]) < 1e-9, "end %d: %g and %g", i, e.loss, r.loss[i ? 10 : 0]);
    }
    // and the middle that of the mean
    const char *const models[] = {b.a, b.b};
    char mean[200];
    struct cb_combine_result c;
    snprintf(mean, sizeof mean, "%s/mean", b.folder);
    struct cb_combine_options co = {.method = "linear", .models = models, .n_models = 2, .out = mean};
    CHECK_OK(cb_combine(b.engine, &co, &c, &err));
    struct cb_eval_options eo = {.model = mean, .text = texts, .n_text = 1, .seq = 64, .batch = 4};
    CHECK_OK(cb_eval_text(b.engine, &eo, &e, &err));
    CHECK(fabs(e.loss - r.loss[5]) < 1e-6 && r.barrier >= 0, "middle: %g and %g", e.loss, r.loss[5]);
    json_t *json = json_of(path_of(b.out, "connect.json"));
    CHECK(json_array_size(json_object_get(json, "points")) == CB_CONNECT_POINTS, "connect.json");
    json_decref(json);
    char *svg;
    size_t n;
    CHECK_OK(io_read_file(&svg, &n, path_of(b.out, "connect.svg"), 1 << 20, &err));
    CHECK(!strncmp(svg, "<svg xmlns=", 11) && strstr(svg, "polyline") && strstr(svg, "</svg>"), "connect.svg");
    free(svg);
    // another shape
    init(&b, b.b, "gpt2", "n_embd=16,n_layer=2,n_head=4,n_positions=64", 3);
    CHECK_FAILS(cb_connect(b.engine, &o, &r, &err), CB_E_SHAPE, "wanted f32");
    bench_close(&b);
}

TEST(merge_measured, different_vocabularies_are_refused) {
    struct cb_err err = {0};
    struct bench b;
    struct cb_combine_result r;
    bench_open(&b, "gpt2", "n_embd=16,n_layer=1,n_head=2,n_positions=64");
    CHECK_OK(combine(&b, "linear", b.a, b.b, true, &r, &err));
    // the same number of tokens, two of which have changed places
    json_t *t = json_of(path_of(b.b, "tokenizer.json")), *vocab = json_object_get(json_object_get(t, "model"), "vocab");
    CHECK(json_object_get(vocab, "a") && json_object_get(vocab, "b"), "a vocabulary of letters");
    json_t *first = json_deep_copy(json_object_get(vocab, "a")), *second = json_deep_copy(json_object_get(vocab, "b"));
    json_object_set_new(vocab, "a", second);
    json_object_set_new(vocab, "b", first);
    CHECK(!json_dump_file(t, path_of(b.b, "tokenizer.json"), 0), "written");
    json_decref(t);
    CHECK_FAILS(combine(&b, "linear", b.a, b.b, true, &r, &err), CB_E_SHAPE, "wanted models of one vocabulary");
    bench_close(&b);
}
