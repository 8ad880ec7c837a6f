/* Models whose tokenizers disagree: embeddings and heads are merged token by token. */
#include <cambium/cambium.h>

#include "harness.h"
#include "io/file.h"
#include "merge/fixtures.h"
#include "text/tokenizer.h"

struct bench {
    char folder[128];
    struct cb_engine *engine;
};

static const char *at(const struct bench *b, const char *name) { return path_of(b->folder, name); }

/* Model NAME with a tokenizer trained on its own text: byte tokens in common, longer ones its own. */
static void make(struct bench *b, const char *name, const char *text, uint64_t seed) {
    struct cb_err err = {0};
    struct cb_tokenizer_train_result t;
    struct cb_init_result r;
    struct cb_engine *engine;
    char *many = calloc(strlen(text) * 20 + 1, 1), folder[200], file[200];
    for (int i = 0; i < 20; i++) strcat(many, text);
    snprintf(folder, sizeof folder, "%s/%s-tokens", b->folder, name);
    snprintf(file, sizeof file, "%s/text.txt", b->folder);
    CHECK_OK(io_write_file(file, many, strlen(many), &err));
    CHECK_OK(io_mkdirs(folder, &err));
    const char *const texts[] = {file};
    struct cb_tokenizer_train_options to = {.text = texts, .n_text = 1, .out = folder, .kind = "bpe", .vocab = 275};
    CHECK_OK(cb_tokenizer_train(b->engine, &to, &t, &err));
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 1, .seed = seed}, &err));
    struct cb_init_options o = {.out = at(b, name), .family = "llama", .tokenizer = folder};
    o.set =
        "hidden_size=32,intermediate_size=48,num_attention_heads=2,num_key_value_heads=2,num_hidden_layers=1,max_position_embeddings=64";
    CHECK_OK(cb_init(engine, &o, &r, &err));
    cb_engine_destroy(&engine);
    free(many);
}

static void bench_open(struct bench *b) {
    struct cb_err err = {0};
    temporary_folder(b->folder, "merge");
    CHECK_OK(cb_engine_create(&b->engine, &(struct cb_engine_options){.threads = 2}, &err));
    make(b, "a", "the theory then thinks the thing there\n", 1);
    make(b, "b", "sing a song then sinking songs the long\n", 2);
    make(b, "c", "an old gold cold bolt\n", 3);
}

static void bench_close(struct bench *b) { cb_engine_destroy(&b->engine); }

/* A model's tokens and weights. */
struct opened {
    struct tokenizer *tokens;
    struct tensors *tensors;
};
static struct opened open_model(const struct bench *b, const char *name) {
    struct cb_err err = {0};
    struct opened o;
    CHECK_OK(tokenizer_load(&o.tokens, at(b, name), &err));
    CHECK_OK(tensors_open(&o.tensors, at(b, name), &err));
    return o;
}
static void close_model(struct opened *o) {
    tokenizer_destroy(&o->tokens);
    tensors_destroy(&o->tensors);
}
/* The row of a token; NULL: it has none. */
static const float *row_of(const struct opened *o, const char *tensor, const char *token) {
    const int32_t id = tokenizer_id(o->tokens, token);
    const struct tensor *t = tensors_find(o->tensors, tensor);
    CHECK(t && t->type.rank == 2 && id < t->type.dim[0] && t->type.dim[1] == 32, "%s", tensor);
    return id < 0 ? NULL : (const float *)tensor_data(t) + (int64_t)id * 32;
}

static enum cb_status merge(struct bench *b, const char *const *names, int n, const char *base, const char *tokenizer, const char *out,
                            struct cb_err *err) {
    const char *models[3];
    struct cb_combine_result r;
    for (int i = 0; i < n; i++) models[i] = at(b, names[i]);
    struct cb_combine_options o = {.method = "linear", .models = models, .n_models = n, .tokenizer = tokenizer, .out = at(b, out)};
    if (base) o.base = at(b, base);
    TRY(cb_combine(b->engine, &o, &r, err));
    CHECK(r.identity < 1e-7, "identity %g", r.identity);
    return CB_OK;
}

/* Every row of the result is the mean of what each model has, or of what stands in for it. base: its number; -1: none. */
static void check_rows(const struct bench *b, const char *const *names, int n, int base, const char *out, bool is_union) {
    static const char *const tables[] = {"model.embed_tokens.weight", "lm_head.weight"};
    struct opened m[3], result = open_model(b, out);
    const int32_t size = tokenizer_size(result.tokens);
    int counts[4] = {0};
    for (int k = 0; k < n; k++) m[k] = open_model(b, names[k]);
    for (int table = 0; table < 2; table++) {
        CHECK(tensors_find(result.tensors, tables[table])->type.dim[0] == size, "%s: one row a token", tables[table]);
        for (int32_t i = 0; i < size; i++) {
            const char *token = tokenizer_token(result.tokens, i, NULL);
            const float *row[3], *got = row_of(&result, tables[table], token);
            int known = 0, only = -1;
            for (int k = 0; k < n; k++)
                if ((row[k] = row_of(&m[k], tables[table], token))) known++, only = k;
            counts[known]++;
            for (int c = 0; c < 32; c++) {
                double stand_in = 0, sum = 0;
                for (int k = 0; k < n && known; k++) stand_in += row[k] ? (double)row[k][c] / known : 0;
                if (known == 1) stand_in = (double)row[only][c];
                if (known > 1 && base >= 0 && row[base]) stand_in = (double)row[base][c];
                for (int k = 0; k < n; k++) sum += row[k] ? (double)row[k][c] : stand_in;
                CHECK(fabs(sum / n - (double)got[c]) < 1e-6, "%s: '%s' (%d of %d models): %g, wanted %g", tables[table], token, known, n,
                      (double)got[c], sum / n);
            }
        }
        // nothing of a union is lost
        for (int k = 0; k < n && is_union; k++)
            for (int32_t i = 0; i < tokenizer_size(m[k].tokens); i++)
                CHECK(tokenizer_id(result.tokens, tokenizer_token(m[k].tokens, i, NULL)) >= 0, "a token of %s", names[k]);
    }
    fprintf(stderr, "%s: %d tokens, of one model %d, of two %d, of three %d\n", out, size, counts[1] / 2, counts[2] / 2, counts[3] / 2);
    CHECK(counts[1] && counts[n], "tokens of one model and of all");
    for (int k = 0; k < n; k++) close_model(&m[k]);
    close_model(&result);
}

TEST(merge_vocabulary, a_union_has_every_token_once) {
    static const char *const two[] = {"a", "b"}, *const three[] = {"a", "b", "c"};
    struct cb_err err = {0};
    struct bench b;
    bench_open(&b);
    CHECK_OK(merge(&b, two, 2, NULL, "union", "out", &err));
    check_rows(&b, two, 2, -1, "out", true);
    // ids of the first one's tokens stay, and texts are cut as it cuts them
    struct opened a = open_model(&b, "a"), out = open_model(&b, "out");
    for (int32_t i = 0; i < tokenizer_size(a.tokens); i++)
        CHECK(!strcmp(tokenizer_token(a.tokens, i, NULL), tokenizer_token(out.tokens, i, NULL)), "id %d", i);
    struct token_list x = {0}, y = {0};
    const char *text = "then the song sings of the thing";
    CHECK_OK(tokenizer_encode(a.tokens, &x, text, strlen(text), 0, &err));
    CHECK_OK(tokenizer_encode(out.tokens, &y, text, strlen(text), 0, &err));
    CHECK(x.n == y.n && x.n > 5, "%zu and %zu tokens", x.n, y.n);
    for (size_t i = 0; i < x.n; i++) CHECK(x.token[i].id == y.token[i].id, "token %zu", i);
    token_list_deinit(&x);
    token_list_deinit(&y);
    close_model(&a);
    close_model(&out);
    // three, without and with a base that has some of them
    CHECK_OK(merge(&b, three, 3, NULL, "union", "three", &err));
    check_rows(&b, three, 3, -1, "three", true);
    CHECK_OK(merge(&b, three, 3, "b", "union", "based", &err));
    check_rows(&b, three, 3, 1, "based", true);
    // the base's tokens alone, or those of a model that is named
    CHECK_OK(merge(&b, three, 3, "b", "base", "base", &err));
    check_rows(&b, three, 3, 1, "base", false);
    CHECK_OK(merge(&b, three, 3, NULL, at(&b, "c"), "named", &err));
    check_rows(&b, three, 3, -1, "named", false);
    // the model runs
    struct cb_generate_options g = {.model = at(&b, "out"), .prompt = "then the", .max_new = 3};
    struct cb_generate_result gr = {0};
    CHECK_OK(cb_generate(b.engine, &g, &gr, &err));
    cb_free(gr.text);
    cb_free(gr.ids);
    bench_close(&b);
}

/* The same model with its ids turned round: tokens, rows and the ids of its configuration. */
static void write_turned(const struct bench *b, const char *from, const char *to) {
    struct cb_err err = {0};
    struct opened m = open_model(b, from);
    const int64_t n = tokenizer_size(m.tokens);
    const int count = tensors_count(m.tensors);
    struct tensor_item *items = calloc((size_t)count, sizeof *items);
    float *made[2];
    int n_made = 0;
    for (int i = 0; i < count; i++) {
        const struct tensor *t = tensors_at(m.tensors, i);
        items[i] = (struct tensor_item){.name = t->name, .type = t->type, .data = tensor_data(t)};
        if (!strstr(t->name, "embed_tokens") && !strstr(t->name, "lm_head")) continue;
        float *y = made[n_made++] = malloc((size_t)t->bytes);
        for (int64_t r = 0; r < n; r++) memcpy(y + (n - 1 - r) * 32, (const float *)tensor_data(t) + r * 32, 32 * sizeof *y);
        items[i].data = y;
    }
    CHECK_OK(io_mkdirs(at(b, to), &err));
    CHECK_OK(tensors_write(path_of(at(b, to), "model.safetensors"), items, count, NULL, NULL, NULL, &err));
    json_t *config = json_of(path_of(at(b, from), "config.json")), *json = json_of(path_of(at(b, from), "tokenizer.json"));
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach(config, key, value) if (strstr(key, "token_id") && json_is_integer(value))
        json_integer_set(value, n - 1 - json_integer_value(value));
    json_object_foreach(json_object_get(json_object_get(json, "model"), "vocab"), key, value)
        json_integer_set(value, n - 1 - json_integer_value(value));
    json_array_foreach(json_object_get(json, "added_tokens"), i, value)
        json_integer_set(json_object_get(value, "id"), n - 1 - json_integer_value(json_object_get(value, "id")));
    json_dump_file(config, path_of(at(b, to), "config.json"), 0);
    json_dump_file(json, path_of(at(b, to), "tokenizer.json"), 0);
    json_decref(config);
    json_decref(json);
    for (int k = 0; k < n_made; k++) free(made[k]);
    free(items);
    close_model(&m);
}

TEST(merge_vocabulary, a_model_and_itself_under_other_ids) {
    static const char *const both[] = {"a", "turned"}, *const files[] = {"a.gguf", "turned.gguf"}, *const back[] = {"turned", "a"};
    struct cb_err err = {0};
    struct cb_convert_result cr;
    struct bench b;
    bench_open(&b);
    write_turned(&b, "a", "turned");
    CHECK_FAILS(merge(&b, both, 2, NULL, NULL, "out", &err), CB_E_SHAPE, "tokenizer_source");
    CHECK_OK(merge(&b, both, 2, NULL, "union", "out", &err));
    CHECK(tensors_gap(at(&b, "a"), at(&b, "out")) == 0, "the first one again");
    CHECK_OK(merge(&b, both, 2, "turned", "base", "out", &err));
    CHECK(tensors_gap(at(&b, "turned"), at(&b, "out")) == 0, "the second one again");
    // ids of the configuration are those of the result
    CHECK_OK(merge(&b, back, 2, NULL, at(&b, "a"), "out", &err));
    json_t *want = json_of(path_of(at(&b, "a"), "config.json")), *got = json_of(path_of(at(&b, "out"), "config.json"));
    CHECK(json_is_integer(json_object_get(want, "eos_token_id")) &&
              json_equal(json_object_get(want, "eos_token_id"), json_object_get(got, "eos_token_id")),
          "eos_token_id");
    json_decref(want);
    json_decref(got);
    // files of blocks, into a file
    for (int i = 0; i < 2; i++) {
        struct cb_convert_options o = {.in = at(&b, both[i]), .out = at(&b, files[i]), .quantize = "q8_0"};
        CHECK_OK(cb_convert(b.engine, &o, &cr, &err));
    }
    CHECK_OK(merge(&b, files, 2, NULL, "union", "out.gguf", &err));
    struct cb_convert_options o = {.in = at(&b, "out.gguf"), .out = at(&b, "x")}, p = {.in = at(&b, "a.gguf"), .out = at(&b, "y")};
    CHECK_OK(cb_convert(b.engine, &o, &cr, &err));
    CHECK_OK(cb_convert(b.engine, &p, &cr, &err));
    CHECK(tensors_gap(at(&b, "x"), at(&b, "y")) == 0, "the first file again");
    // two vocabularies into a file: as into a folder, but for the blocks
    static const char *const two[] = {"a", "b"};
    CHECK_OK(merge(&b, two, 2, NULL, "union", "two", &err));
    CHECK_OK(merge(&b, two, 2, NULL, "union", "two.gguf", &err));
    CHECK(!io_is_folder(at(&b, "two.gguf.tokenizer")), "what was written for the while is gone");
    o = (struct cb_convert_options){.in = at(&b, "two.gguf"), .out = at(&b, "x")};
    CHECK_OK(cb_convert(b.engine, &o, &cr, &err));
    CHECK(tensors_gap(at(&b, "x"), at(&b, "two")) == 0, "a file and a folder");
    struct opened x = open_model(&b, "x"), y = open_model(&b, "two");
    for (int32_t i = 0; i < tokenizer_size(y.tokens); i++)
        CHECK(!strcmp(tokenizer_token(x.tokens, i, NULL), tokenizer_token(y.tokens, i, NULL)), "token %d", i);
    close_model(&x);
    close_model(&y);
    bench_close(&b);
}

TEST(merge_vocabulary, what_is_refused) {
    static const char *const two[] = {"a", "b"};
    struct cb_err err = {0};
    struct bench b;
    bench_open(&b);
    CHECK_FAILS(merge(&b, two, 2, NULL, NULL, "out", &err), CB_E_SHAPE, "different vocabularies want tokenizer_source");
    CHECK_FAILS(merge(&b, two, 2, NULL, "base", "out", &err), CB_E_USAGE, "no base_model");
    CHECK_FAILS(merge(&b, two, 2, NULL, "nowhere", "out", &err), CB_E_IO, "no tokenizer");
    CHECK_OK(io_write_file(path_of(at(&b, "b"), "tokenizer.json"), "{}", 2, &err));
    CHECK_FAILS(merge(&b, two, 2, NULL, "union", "out", &err), CB_E_FORMAT, "model");
    remove(path_of(at(&b, "b"), "tokenizer.json"));
    CHECK_FAILS(merge(&b, two, 2, NULL, "union", "out", &err), CB_E_IO, "one of every model");
    bench_close(&b);
}
