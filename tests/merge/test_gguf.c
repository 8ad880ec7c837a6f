/* Merging models of GGUF files: the same as merging the folders that they were made from; blocks are taken apart, merged and made again. */
#include <cambium/cambium.h>

#include "harness.h"
#include "io/file.h"
#include "io/gguf.h"
#include "merge/fixtures.h"

#define SIZES \
    "hidden_size=64,intermediate_size=96,num_attention_heads=4,num_key_value_heads=2,num_hidden_layers=2,max_position_embeddings=64"
/* Layouts of every kind: heads in pairs, transposes, norms plus one, experts, biases of heads, an encoder. */
static const struct {
    const char *family, *set;
    double tolerance;  // of a number: what adding one to a norm rounds away
} cases[] = {
    {"llama", SIZES, 0},
    {"gpt2", "n_embd=64,n_layer=2,n_head=4,n_positions=64", 0},
    {"qwen2", SIZES ",tie_word_embeddings=true", 0},
    {"gemma2", SIZES ",head_dim=8,query_pre_attn_scalar=8,sliding_window=5", 2e-7},
    {"mixtral", SIZES ",num_local_experts=3,num_experts_per_tok=2,sliding_window=null", 0},
    {"mistral", SIZES ",sliding_window=null", 0},
    {"bert",
     "hidden_size=64,intermediate_size=96,num_attention_heads=4,num_hidden_layers=2,max_position_embeddings=64,architectures=["
     "\"BertModel\"]",
     0},
};
enum { N_CASES = sizeof cases / sizeof *cases };

struct bench {
    char folder[128];
    struct cb_engine *engine;
};

static const char *at(const struct bench *b, const char *name) { return path_of(b->folder, name); }

/* A byte tokenizer, and one of another vocabulary. */
static void bench_open(struct bench *b) {
    struct cb_err err = {0};
    struct cb_tokenizer_train_result t;
    temporary_folder(b->folder, "merge");
    CHECK_OK(cb_engine_create(&b->engine, &(struct cb_engine_options){.threads = 2}, &err));
    const char *text = "one line of a text about two small things, and one more line of text about two things\n";
    CHECK_OK(io_write_file(at(b, "text.txt"), text, strlen(text), &err));
    const char *const texts[] = {at(b, "text.txt")};
    CHECK_OK(io_mkdirs(at(b, "words"), &err));
    struct cb_tokenizer_train_options o = {.text = texts, .n_text = 1, .out = b->folder, .kind = "byte"};
    CHECK_OK(cb_tokenizer_train(b->engine, &o, &t, &err));
    o.out = at(b, "words");
    o.kind = "bpe";
    o.vocab = 270;
    CHECK_OK(cb_tokenizer_train(b->engine, &o, &t, &err));
}

static void bench_close(struct bench *b) { cb_engine_destroy(&b->engine); }

static void init(struct bench *b, const char *name, const char *family, const char *set, uint64_t seed, const char *tokenizer) {
    struct cb_err err = {0};
    struct cb_engine *engine;
    struct cb_init_result r;
    char from[200];
    snprintf(from, sizeof from, "%s/tokenizer.json", tokenizer);
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 1, .seed = seed}, &err));
    struct cb_init_options o = {.out = at(b, name), .family = family, .set = set, .tokenizer = from};
    CHECK_OK(cb_init(engine, &o, &r, &err));
    cb_engine_destroy(&engine);
}

static double convert(struct bench *b, const char *from, const char *to, const char *type) {
    struct cb_err err = {0};
    struct cb_convert_result r;
    struct cb_convert_options o = {.in = at(b, from), .out = at(b, to), .quantize = type};
    CHECK_OK(cb_convert(b->engine, &o, &r, &err));
    return r.max_error;
}

static enum cb_status merge(struct bench *b, const char *method, const char *one, const char *two, const char *out, const char *set,
                            struct cb_combine_result *r, struct cb_err *err) {
    const char *const models[] = {at(b, one), at(b, two)}, *const sets[] = {"models.1.parameters.weight=0.25", set};
    struct cb_combine_options o = {.method = method, .models = models, .n_models = 2, .out = at(b, out), .set = sets, .n_set = set ? 2 : 1};
    return cb_combine(b->engine, &o, r, err);
}

/* Two files hold the same bytes under the same names. */
static void check_same(const struct bench *b, const char *x, const char *y, const char *what) {
    struct cb_err err = {0};
    struct gguf *g[2];
    CHECK_OK(gguf_open(&g[0], at(b, x), &err));
    CHECK_OK(gguf_open(&g[1], at(b, y), &err));
    const struct tensors *s = gguf_tensors(g[0]), *t = gguf_tensors(g[1]);
    CHECK(tensors_count(s) == tensors_count(t) && tensors_count(s) > 10, "%s: %d and %d tensors", what, tensors_count(s), tensors_count(t));
    for (int i = 0; i < tensors_count(s); i++) {
        const struct tensor *p = tensors_at(s, i), *q = tensors_find(t, p->name);
        CHECK(q && type_equal(&p->type, &q->type) && !memcmp(tensor_data(p), tensor_data(q), (size_t)p->bytes), "%s: %s differs", what,
              p->name);
    }
    CHECK(gguf_n_keys(g[0]) == gguf_n_keys(g[1]), "%s: %d and %d keys", what, gguf_n_keys(g[0]), gguf_n_keys(g[1]));
    gguf_destroy(&g[0]);
    gguf_destroy(&g[1]);
}

/* Whether a text has the same ids. */
static bool same_tokens(const char *x, const char *y) {
    struct cb_err err = {0};
    struct cb_tokenizer *t[2];
    struct cb_encoding e[2];
    const char *text = "two lines, \xc3\xa9 and 12", *const path[2] = {x, y};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(cb_tokenizer_load(&t[i], path[i], &err));
        CHECK_OK(cb_tokenizer_encode(t[i], text, strlen(text), true, false, &e[i], &err));
    }
    const bool same = e[0].n == e[1].n && e[0].n > 3 && !memcmp(e[0].ids, e[1].ids, (size_t)e[0].n * sizeof *e[0].ids);
    for (int i = 0; i < 2; i++) {
        cb_encoding_free(&e[i]);
        cb_tokenizer_destroy(&t[i]);
    }
    return same;
}

TEST(merge_gguf, files_of_f32_give_what_their_folders_give) {
    struct cb_err err = {0};
    struct cb_combine_result r;
    struct bench b;
    char name[40];
    bench_open(&b);
    for (int i = 0; i < N_CASES; i++) {
        init(&b, "a", cases[i].family, cases[i].set, 1, b.folder);
        init(&b, "b", cases[i].family, cases[i].set, 2, b.folder);
        convert(&b, "a", "a.gguf", "f32");
        convert(&b, "b", "b.gguf", "f32");
        // folders as the files have them: a family under its file's name, an encoder without what files cannot hold
        convert(&b, "a.gguf", "fa", NULL);
        convert(&b, "b.gguf", "fb", NULL);
        CHECK_OK(merge(&b, "linear", "fa", "fb", "want", NULL, &r, &err));
        CHECK(r.max_error == 0 && r.relative_error == 0 && r.tensors > 10);
        const char *const pairs[][2] = {{"a.gguf", "b.gguf"}, {"fa", "b.gguf"}, {"a.gguf", "fb"}};
        for (int k = 0; k < 3; k++) {
            snprintf(name, sizeof name, "out%d", k);
            CHECK_OK(merge(&b, "linear", pairs[k][0], pairs[k][1], name, NULL, &r, &err));
            const double gap = tensors_gap(at(&b, "want"), at(&b, name));
            CHECK(gap >= 0 && gap <= cases[i].tolerance, "%s, %s and %s: %g", cases[i].family, pairs[k][0], pairs[k][1], gap);
            CHECK(same_tokens(at(&b, "a.gguf"), at(&b, name)), "%s: the tokenizer", cases[i].family);
            // the same into a file
            snprintf(name, sizeof name, "out%d.gguf", k);
            CHECK_OK(merge(&b, "linear", pairs[k][0], pairs[k][1], name, NULL, &r, &err));
            CHECK(r.max_error == 0 && r.parameters > 0);
            convert(&b, name, "back", NULL);
            const double back = tensors_gap(at(&b, "want"), at(&b, "back"));
            CHECK(back >= 0 && back <= cases[i].tolerance, "%s, %s and %s into a file: %g", cases[i].family, pairs[k][0], pairs[k][1],
                  back);
        }
    }
    bench_close(&b);
}

TEST(merge_gguf, blocks_are_taken_apart_and_made_again) {
    static const char *const types[] = {"q8_0", "q4_k", "q4_k_m", "q4_0"};
    struct cb_err err = {0};
    struct cb_combine_result r;
    struct bench b;
    bench_open(&b);
    // every method with two models; the base of those that want one is the first
    for (int family = 0; family < 2; family++) {
        const char *set = family ? "n_embd=256,n_layer=1,n_head=4,n_positions=64"
                                 : "hidden_size=256,intermediate_size=512,num_hidden_layers=1,num_attention_heads=4,num_key_value_heads=2,"
                                   "max_position_embeddings=64";
        init(&b, "a", family ? "gpt2" : "llama", set, 1, b.folder);
        init(&b, "b", family ? "gpt2" : "llama", set, 2, b.folder);
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            convert(&b, "a", "a.gguf", types[t]);
            convert(&b, "b", "b.gguf", types[t]);
            convert(&b, "a.gguf", "fa", NULL);
            convert(&b, "b.gguf", "fb", NULL);
            static const char *const methods[] = {"linear", "nuslerp", "karcher", "multislerp"};
            for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
                const char *more = m == 1 ? "parameters.nuslerp_row_wise=true" : NULL;
                CHECK_OK(merge(&b, methods[m], "fa", "fb", "steps", more, &r, &err));
                const double error = convert(&b, "steps", "steps.gguf", types[t]);
                CHECK_OK(merge(&b, methods[m], "a.gguf", "b.gguf", "out.gguf", more, &r, &err));
                check_same(&b, "steps.gguf", "out.gguf", methods[m]);
                CHECK(r.max_error == error && error > 0, "%s: %g in steps, %g", types[t], error, r.max_error);
                CHECK(r.relative_error > 1e-3 && r.relative_error < 0.2, "%s: relative error %g", types[t], r.relative_error);
            }
            if (!family) fprintf(stderr, "%s %s: largest error %g, relative %g\n", "llama", types[t], r.max_error, r.relative_error);
            // the base's types unless others are asked for: a folder's, another recipe's, a folder in f32
            CHECK_OK(merge(&b, "linear", "a.gguf", "fb", "out.gguf", NULL, &r, &err));
            CHECK_OK(merge(&b, "linear", "fa", "fb", "steps", NULL, &r, &err));
            convert(&b, "steps", "steps.gguf", types[t]);
            check_same(&b, "steps.gguf", "out.gguf", "the base's types");
            CHECK_OK(merge(&b, "linear", "fa", "b.gguf", "out.gguf", "out_dtype=q8_0", &r, &err));
            convert(&b, "steps", "steps.gguf", "q8_0");
            check_same(&b, "steps.gguf", "out.gguf", "a recipe's types");
            CHECK_OK(merge(&b, "linear", "a.gguf", "b.gguf", "out", NULL, &r, &err));
            CHECK(tensors_gap(at(&b, "steps"), at(&b, "out")) == 0, "%s into a folder", types[t]);
        }
    }
    bench_close(&b);
}

TEST(merge_gguf, every_method_and_slices) {
    struct cb_err err = {0};
    struct cb_combine_result r;
    struct bench b;
    char recipe[2000];
    bench_open(&b);
    const char *set =
        "hidden_size=256,intermediate_size=256,num_hidden_layers=2,num_attention_heads=4,num_key_value_heads=2,"
        "max_position_embeddings=64";
    for (int i = 0; i < 3; i++) {
        const char *const names[] = {"a", "b", "c"};
        char file[20];
        init(&b, names[i], "llama", set, (uint64_t)i + 1, b.folder);
        snprintf(file, sizeof file, "%s.gguf", names[i]);
        convert(&b, names[i], file, i ? "q4_k" : "q8_0");
    }
    int n = 0;
    for (int i = 0; merge_method_at(i); i++) {
        const struct merge_method *m = merge_method_at(i);
        const bool based = m->base == MERGE_BASE_WANTED || m->base == MERGE_BASE_FIRST;
        if (m->statistic) continue;
        int used = snprintf(recipe, sizeof recipe, "merge_method: %s\n%s%s\nmodels:\n- model: %s\n", m->name, based ? "base_model: " : "",
                            based ? at(&b, "a.gguf") : "", at(&b, based ? "b.gguf" : "a.gguf"));
        if (m->max_models > 1 && m->base != MERGE_BASE_FIRST)
            used += snprintf(recipe + used, sizeof recipe - (size_t)used, "- model: %s\n", at(&b, "c.gguf"));
        snprintf(recipe + used, sizeof recipe - (size_t)used, "parameters: {%s%s}\n",
                 merge_option_index(m, "weight") >= 0 ? "weight: 0.5" : "", merge_option_index(m, "t") >= 0 ? "t: 0.4" : "");
        CHECK_OK(io_write_file(at(&b, "recipe.yml"), recipe, strlen(recipe), &err));
        struct cb_combine_options o = {.recipe = at(&b, "recipe.yml"), .out = at(&b, "out.gguf")};
        CHECK_OK(cb_combine(b.engine, &o, &r, &err));
        CHECK(r.identity < 1e-6 && (r.max_error > 0 || m->max_models < 2) && r.layers == 2, "%s: identity %g, error %g", m->name,
              r.identity, r.max_error);
        n++;
    }
    CHECK(n >= 20, "only %d methods", n);
    // layers of two files behind one another: bytes as they were, and one more layer than each
    snprintf(recipe, sizeof recipe,
             "merge_method: passthrough\nslices:\n- sources: [{model: %s, layer_range: [0, 2]}]\n- sources: [{model: %s, layer_range: [1, "
             "2]}]\n",
             at(&b, "b.gguf"), at(&b, "c.gguf"));
    CHECK_OK(io_write_file(at(&b, "recipe.yml"), recipe, strlen(recipe), &err));
    struct cb_combine_options o = {.recipe = at(&b, "recipe.yml"), .out = at(&b, "out.gguf")};
    CHECK_OK(cb_combine(b.engine, &o, &r, &err));
    CHECK(r.layers == 3);
    struct gguf *g, *c;
    int64_t layers = 0;
    CHECK_OK(gguf_open(&g, at(&b, "out.gguf"), &err));
    CHECK_OK(gguf_open(&c, at(&b, "c.gguf"), &err));
    CHECK_OK(gguf_get_int(&layers, g, "llama.block_count", 0, 100, true, &err));
    CHECK(layers == 3, "%lld layers", (long long)layers);
    const struct tensor *x = tensors_find(gguf_tensors(g), "blk.2.attn_q.weight"),
                        *y = tensors_find(gguf_tensors(c), "blk.1.attn_q.weight");
    CHECK(x && y && type_equal(&x->type, &y->type), "a layer of the second");
    gguf_destroy(&g);
    gguf_destroy(&c);
    convert(&b, "out.gguf", "back", NULL);
    bench_close(&b);
}

TEST(merge_gguf, what_cannot_be_merged_is_refused) {
    struct cb_err err = {0};
    struct cb_combine_result r;
    struct bench b;
    bench_open(&b);
    init(&b, "a", "llama", SIZES, 1, b.folder);
    init(&b, "other", "llama", SIZES, 1, at(&b, "words"));
    init(&b, "gpt2", "gpt2", cases[1].set, 1, b.folder);
    convert(&b, "a", "a.gguf", "q8_0");
    convert(&b, "other", "other.gguf", "q8_0");
    convert(&b, "gpt2", "gpt2.gguf", "f32");
    CHECK_FAILS(merge(&b, "linear", "a.gguf", "other.gguf", "out.gguf", NULL, &r, &err), CB_E_SHAPE, "different vocabularies");
    CHECK_FAILS(merge(&b, "linear", "a", "other.gguf", "out.gguf", NULL, &r, &err), CB_E_SHAPE, "different vocabularies");
    CHECK_FAILS(merge(&b, "linear", "a.gguf", "gpt2.gguf", "out.gguf", NULL, &r, &err), CB_E_SHAPE, "wanted a llama");
    CHECK_FAILS(merge(&b, "linear", "a.gguf", "a", "out.gguf", "out_dtype=q3", &r, &err), CB_E_USAGE, "q4_k");
    CHECK_FAILS(merge(&b, "linear", "a.gguf", "a", "out", "out_dtype=q4_k", &r, &err), CB_E_USAGE, "number type");
    CHECK_FAILS(merge(&b, "linear", "a.gguf", "none.gguf", "out", NULL, &r, &err), CB_E_IO, "none.gguf");
    CHECK(!io_is_file(at(&b, "out.gguf")), "a file was left");
    // vocabularies of one size that differ in a token
    char *text;
    size_t n;
    init(&b, "changed", "llama", SIZES, 1, b.folder);
    CHECK_OK(io_read_file(&text, &n, path_of(at(&b, "changed"), "tokenizer.json"), 1 << 24, &err));
    json_t *json = json_loadb(text, n, 0, NULL), *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    const json_int_t id = json_integer_value(json_object_get(vocab, "Q"));
    json_object_del(vocab, "Q");
    json_object_set_new(vocab, "QQ", json_integer(id));
    char *dumped = json_dumps(json, 0);
    CHECK_OK(io_write_file(path_of(at(&b, "changed"), "tokenizer.json"), dumped, strlen(dumped), &err));
    free(dumped);
    json_decref(json);
    free(text);
    convert(&b, "changed", "changed.gguf", "f32");
    CHECK_FAILS(merge(&b, "linear", "a.gguf", "changed.gguf", "out.gguf", NULL, &r, &err), CB_E_SHAPE, "'QQ'");
    bench_close(&b);
}
