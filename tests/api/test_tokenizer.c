/* The public calls about tokenizers: vocabularies in GGUF files against the libraries they come from, batches, and conversion. */
#include <cambium/cambium.h>

#include "../data/files.h"
#include "io/file.h"
#include "text/buffer.h"
#include "text/tokenizer.h"
#include "text/vectors.h"

struct check {
    struct cb_tokenizer *t;
    int n_lines, n_bad;
    bool finds_specials;
    char wrong[400];
};

static bool same_ids(const struct cb_encoding *e, const json_t *want) { return vector_ids_are(want, e->ids, (size_t)e->n); }

static void check_line(const json_t *line, void *context) {
    struct check *c = context;
    struct cb_err err = {0};
    struct cb_encoding e = {0};
    const char *name = json_string_value(json_object_get(line, "name"));
    if (!json_object_get(line, "text") || (c->finds_specials && name && !strncmp(name, "special", 7))) return;
    size_t n;
    char *text = vector_text(json_object_get(line, "text"), &n);
    c->n_lines++;
    enum cb_status status = cb_tokenizer_encode(c->t, text, n, true, false, &e, &err);
    if ((status || !same_ids(&e, json_object_get(line, "ids"))) && !c->n_bad++)
        snprintf(c->wrong, sizeof c->wrong, "%.40s: %.300s", name ? name : "?", status ? err.message : text);
    cb_encoding_free(&e);
    free(text);
}

/* llama.cpp's own tests: texts between marks, and a line of ids for each. */
static void check_llamacpp(struct check *c, const char *path) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char file[1010];
    size_t n = 0, n_out = 0;
    snprintf(file, sizeof file, "%s.inp", path);
    char *in = vector_bytes(file, &n);
    snprintf(file, sizeof file, "%s.out", path);
    char *out = vector_bytes(file, &n_out), *line = out;
    CHECK(in && out, "no %s", file);
    struct cb_err err = {0};
    int n_tests = 0;
    for (char *at = in, *end; line && *line && at <= in + n; at = end + sizeof mark - 1, n_tests++) {
        struct cb_encoding e = {0};
        end = strstr(at, mark);
        if (!end) end = in + n;
        CHECK_OK(cb_tokenizer_encode(c->t, at, (size_t)(end - at), true, false, &e, &err));
        char *stop = strchr(line, '\n');
        bool same = true;
        for (int64_t i = 0; i < e.n; i++) same = strtol(line, &line, 10) == e.ids[i] && same;
        while (*line == ' ') line++;
        if ((!same || (stop && line != stop)) && !c->n_bad++) snprintf(c->wrong, sizeof c->wrong, "%.100s", at);
        cb_encoding_free(&e);
        line = stop ? stop + 1 : NULL;
        if (end == in + n) break;
    }
    CHECK(n_tests >= 45, "%d tests in %s", n_tests, file);
    free(in);
    free(out);
}

static void check_gguf(const char *stem, const char *vectors, bool finds_specials) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct check c = {.finds_specials = finds_specials};
    struct cb_err err = {0};
    char path[1000], file[1000];
    snprintf(path, sizeof path, "%s/data/tokenizers_llamacpp/ggml-vocab-%s.gguf", shared, stem);
    CHECK_OK(cb_tokenizer_load(&c.t, path, &err));
    snprintf(file, sizeof file, "%s/fixtures/tokenizers/real/%s.jsonl", shared, vectors);
    vector_lines(file, check_line, &c);
    CHECK(c.n_lines > 170, "%d texts in %s", c.n_lines, file);
    check_llamacpp(&c, path);
    CHECK(!c.n_bad, "%s: %d are wrong: %s", stem, c.n_bad, c.wrong);
    cb_tokenizer_destroy(&c.t);
}

TEST(api_tokenizer, gguf_gpt2) { check_gguf("gpt-2", "gpt2", false); }
TEST(api_tokenizer, gguf_llama) { check_gguf("llama-spm", "llama2_hf", true); }
TEST(api_tokenizer, gguf_starcoder) { check_gguf("starcoder", "gguf_starcoder", true); }

/* A vocabulary of words with [CLS] and [SEP], windows of 4 ids that overlap by one, padding to the longest. */
static const char words[] =
    "{\"version\":\"1.0\",\"truncation\":{\"direction\":\"Right\",\"max_length\":4,\"strategy\":\"LongestFirst\",\"stride\":1},"
    "\"padding\":{\"strategy\":\"BatchLongest\",\"direction\":\"Right\",\"pad_to_multiple_of\":null,\"pad_id\":0,\"pad_type_id\":0,\"pad_"
    "token\":"
    "\"_\"},\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"post_processor\":{\"type\":"
    "\"BertProcessing\",\"sep\":[\")\",2],\"cls\":[\"(\",1]},\"decoder\":null,\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"_\":0,\"(\":1,"
    "\")\":2,"
    "\"a\":3,\"b\":4,\"c\":5,\"d\":6},\"unk_token\":\"_\"}}";

TEST(api_tokenizer, batch) {
    char folder[128], path[160];
    struct cb_err err = {0};
    struct cb_tokenizer *t = NULL, *again = NULL;
    struct cb_encodings e;
    temporary_folder(folder, "tokenizer");
    snprintf(path, sizeof path, "%s/in.json", folder);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(words, 1, sizeof words - 1, file) == sizeof words - 1 && !fclose(file), "cannot write %s", path);
    CHECK_OK(cb_tokenizer_load(&t, path, &err));
    remove(path);
    // a b c d in windows of two, with one in common; then a pair, then words
    const struct cb_text text = {"a b c d", 7}, pair[2] = {{"a", 1}, {"b", 1}}, cut[2] = {{"c", 1}, {"d", 1}};
    const struct cb_encode_input inputs[] = {{.text = &text, .n_text = 1}, {.text = cut, .n_text = 1, .is_words = true}};
    const struct cb_encode_options options = {.overflow = true, .offsets = true};
    CHECK_OK(cb_tokenizer_encode_batch(t, inputs, 2, &options, &e, &err));
    static const int32_t want[4][4] = {{1, 3, 4, 2}, {1, 4, 5, 2}, {1, 5, 6, 2}, {1, 5, 2, 0}};
    CHECK(e.n == 4, "%lld windows", (long long)e.n);
    for (int i = 0; i < 4; i++) {
        CHECK(e.encoding[i].n == 4 && !memcmp(e.encoding[i].ids, want[i], sizeof want[i]), "window %d is another", i);
        CHECK(e.encoding[i].input == i / 3, "window %d belongs to input %lld", i, (long long)e.encoding[i].input);
    }
    CHECK(e.encoding[2].offsets[2] == 4 && e.encoding[2].offsets[3] == 5, "offsets of the last window");
    CHECK(e.encoding[3].attention[2] && !e.encoding[3].attention[3], "attention to padding");
    cb_encodings_free(&e);
    const struct cb_encode_input one = {.text = &pair[0], .pair = &pair[1], .n_text = 1, .n_pair = 1};
    CHECK_OK(cb_tokenizer_encode_batch(t, &one, 1, &(struct cb_encode_options){.no_special = true}, &e, &err));
    CHECK(e.n == 1 && e.encoding[0].n == 2 && e.encoding[0].types[1] == 1 && e.encoding[0].ids[1] == 4, "the pair");
    cb_encodings_free(&e);
    // an input without a text is refused, a saved tokenizer loads
    CHECK_FAILS(cb_tokenizer_encode_batch(t, &(struct cb_encode_input){0}, 1, &options, &e, &err), CB_E_ARGUMENT, "without a text");
    CHECK_OK(cb_tokenizer_save(t, folder, NULL, &err));
    CHECK_OK(cb_tokenizer_load(&again, folder, &err));
    CHECK(cb_tokenizer_vocab(again) == 7, "%lld tokens", (long long)cb_tokenizer_vocab(again));
    cb_tokenizer_destroy(&t);
    cb_tokenizer_destroy(&again);
}

/* tests/golden/tokenizers/NAME into a folder. */
static void copy_golden(const char *folder, const char *name) {
    struct cb_err err = {0};
    char path[200], *bytes;
    size_t n;
    snprintf(path, sizeof path, "tests/golden/tokenizers/%s", name);
    CHECK_OK(io_read_file(&bytes, &n, path, 1 << 20, &err));
    free(file_put(folder, strrchr(name, '/') + 1, bytes, n));
    free(bytes);
}

/* A vocabulary is that of the class that its own folder says, or of none, whatever the new model is. */
TEST(api_tokenizer, init_keeps_what_files_mean) {
    static const struct {
        const char *config, *family, *set;
        int64_t n;
    } cases[] = {
        {NULL, "roberta", "hidden_size=16,intermediate_size=16,num_hidden_layers=1,num_attention_heads=2", 9},
        {"{\"model_type\": \"roberta\"}", "gpt2", "n_embd=16,n_layer=1,n_head=2,n_positions=16", 11},
        {"{\"model_type\": \"roberta\"}", "roberta", "hidden_size=16,intermediate_size=16,num_hidden_layers=1,num_attention_heads=2", 11},
    };
    struct cb_engine *engine;
    struct cb_err err = {0};
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 1}, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *from = folder_make(), *out = folder_make();
        struct cb_init_result made;
        struct cb_tokenizer *t;
        struct cb_encoding e;
        copy_golden(from, "roberta/vocab.json");
        copy_golden(from, "roberta/merges.txt");
        if (cases[i].config) free(file_put(from, "config.json", cases[i].config, strlen(cases[i].config)));
        const struct cb_init_options o = {.tokenizer = from, .out = out, .family = cases[i].family, .set = cases[i].set};
        CHECK_OK(cb_init(engine, &o, &made, &err));
        CHECK_OK(cb_tokenizer_load(&t, out, &err));
        CHECK_OK(cb_tokenizer_encode(t, "hello world", 11, false, false, &e, &err));
        CHECK(e.n == cases[i].n, "%zu: %lld tokens", i, (long long)e.n);
        cb_encoding_free(&e);
        cb_tokenizer_destroy(&t);
        free(from);
        free(out);
    }
    cb_engine_destroy(&engine);
}

/* Texts for a trainer: lines with their ends, or all at once. */
struct feed {
    const char *text;
    size_t n, at;
    bool whole;
};
static bool next_text(void *context, const char **text, size_t *n) {
    struct feed *f = context;
    if (f->at == f->n) return false;
    const char *end = f->whole ? NULL : memchr(f->text + f->at, '\n', f->n - f->at);
    *text = f->text + f->at, *n = end ? (size_t)(end + 1 - *text) : f->n - f->at;
    f->at += *n;
    return true;
}

/* The file gives the tokenizer.json and the count of tokens that its texts give one by one. */
static void check_trained(const char *path, const char *kind, struct feed feed) {
    static const char *const specials[] = {"<unk>", "<s>", "</s>"};
    char folder[128], saved[160], *want, *got;
    size_t n_want, n_got, n;
    struct cb_engine *engine;
    struct cb_err err = {0};
    struct cb_tokenizer_train_result r;
    struct tokenizer *t;
    struct encoder *e;
    struct token_list list = {0};
    const char *text;
    int64_t tokens = 0;
    temporary_folder(folder, "trained");
    snprintf(saved, sizeof saved, "%s/tokenizer.json", folder);
    CHECK_OK(cb_engine_create(&engine, &(struct cb_engine_options){.threads = 1}, &err));
    const struct cb_tokenizer_train_options o = {.text = &path, .n_text = 1, .out = folder, .kind = kind, .vocab = 330};
    CHECK_OK(cb_tokenizer_train(engine, &o, &r, &err));
    CHECK(r.bytes == (int64_t)feed.n, "%s: %lld bytes", kind, (long long)r.bytes);
    const struct train_options to = {.kind = kind, .vocab = 330, .specials = specials, .n_specials = 3, .min_frequency = 2};
    CHECK_OK(tokenizer_train(&t, &to, next_text, &feed, NULL, NULL, &err));
    CHECK_OK(tokenizer_to_json(t, &want, &n_want, &err));
    CHECK_OK(io_read_file(&got, &n_got, saved, 1 << 24, &err));
    CHECK(n_want == n_got && !memcmp(want, got, n_got), "%s: another vocabulary", kind);
    CHECK_OK(encoder_create(&e, t, &err));
    for (feed.at = 0; next_text(&feed, &text, &n); tokens += (int64_t)list.n) CHECK_OK(encoder_encode(e, &list, text, n, 0, &err));
    CHECK(r.tokens == tokens, "%s: %lld tokens, %lld wanted", kind, (long long)r.tokens, (long long)tokens);
    token_list_deinit(&list);
    encoder_destroy(&e);
    tokenizer_destroy(&t);
    cb_engine_destroy(&engine);
    free(want);
    free(got);
}

/* Plain text is learnt line by line with its line ends, however long a line is; a record is one text. */
TEST(api_tokenizer, trains_on_lines) {
    char folder[128], path[160];
    static const char lines[] = "one line\r\n\n\ttwo lines\rhere\n \n", last[] = "\nthe end is no line's";
    struct buffer text = {0};
    struct cb_err err = {0};
    temporary_folder(folder, "lines");
    snprintf(path, sizeof path, "%s/text.txt", folder);
    for (int i = 0; i < 40; i++) CHECK_OK(buffer_append(&text, lines, sizeof lines - 1, &err));
    // longer than the pieces that files are read in, and cut by them within words
    for (int i = 0; i < 300000; i++) CHECK_OK(buffer_append(&text, i % 7 ? "words" : " and ", 5, &err));
    CHECK_OK(buffer_append(&text, last, sizeof last - 1, &err));
    CHECK_OK(io_write_file(path, text.data, text.n, &err));
    check_trained(path, "bpe-fallback", (struct feed){text.data, text.n, 0, false});
    free(text.data);
    static const char record[] = "{\"text\":\"one line\\none line\\n\\none line\"}\n", whole[] = "one line\none line\n\none line";
    snprintf(path, sizeof path, "%s/text.jsonl", folder);
    CHECK_OK(io_write_file(path, record, sizeof record - 1, &err));
    check_trained(path, "bpe-fallback", (struct feed){whole, sizeof whole - 1, 0, true});
    check_trained(path, "unigram", (struct feed){whole, sizeof whole - 1, 0, true});
}
