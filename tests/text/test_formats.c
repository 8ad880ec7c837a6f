/* Every tokenizer file of the data folder against the library it comes from: ids and text, also of broken UTF-8, and after conversion. */
#include "text/formats.h"
#include "text/utf8.h"
#include "vectors.h"

struct check {
    struct tokenizer *t;
    struct encoder *e;
    struct token_list list;
    bool is_converted;  // written as tokenizer.json and read again
    bool cuts_specials, is_unigram;  // cuts_specials: special tokens in text are not text
    int n_lines, n_bad;
    char wrong[600];
};

static void wrong(struct check *c, const json_t *line, const char *what) {
    char *text = json_dumps(json_object_get(line, "text"), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    const char *name = json_string_value(json_object_get(line, "name"));
    if (!c->n_bad++) snprintf(c->wrong, sizeof c->wrong, "%.80s: %.100s: %.300s", name ? name : "?", what, text ? text : "");
    free(text);
}

static char *hex_bytes(const char *hex, size_t *n) {
    char *bytes = malloc(strlen(hex) / 2 + 1);
    unsigned byte;
    *n = 0;
    for (; hex[0] && hex[1] && sscanf(hex, "%2x", &byte) == 1; hex += 2) bytes[(*n)++] = (char)byte;
    return bytes;
}

static bool ids_are(const struct check *c, const json_t *want, int32_t **ids) {
    *ids = malloc((c->list.n + 1) * sizeof **ids);
    for (size_t i = 0; i < c->list.n; i++) (*ids)[i] = c->list.token[i].id;
    return vector_ids_are(want, *ids, c->list.n);
}

static void check_line(const json_t *line, void *context) {
    struct check *c = context;
    struct cb_err err = {0};
    const json_t *text_json = json_object_get(line, "text"), *decoded = json_object_get(line, "decoded");
    const char *hex = json_string_value(json_object_get(line, "bytes_hex")), *name = json_string_value(json_object_get(line, "name"));
    if ((!text_json && !hex) || json_object_get(line, "error")) return;
    if (hex && c->is_converted) return;  // a tokenizer.json takes valid text alone
    if (c->cuts_specials && name && !strncmp(name, "special", 7)) return;
    size_t n, n_back;
    const char *plain = json_string_value(text_json);
    if (c->is_converted && c->is_unigram && (!plain || strstr(plain, "<unk>"))) return;
    char *text = hex ? hex_bytes(hex, &n) : vector_text(text_json, &n), *back = NULL;
    int32_t *ids = NULL;
    c->n_lines++;
    if (encoder_encode(c->e, &c->list, text, n, ENCODE_CODE_POINTS, &err)) {
        wrong(c, line, err.message);
    } else {
        if (!ids_are(c, json_object_get(line, "ids"), &ids)) wrong(c, line, "ids");
        bool has_unknown = false;  // which is another text in a tokenizer.json
        for (size_t i = 0; i < c->list.n; i++) has_unknown = has_unknown || !strcmp(tokenizer_token(c->t, ids[i], NULL), "<unk>");
        if (tokenizer_decode(c->t, &back, &n_back, ids, c->list.n, false, &err))
            wrong(c, line, err.message);
        else if (decoded && !(c->is_converted && has_unknown) && !vector_text_is(decoded, back, n_back))
            wrong(c, line, "decoded");
        free(ids);
    }
    if (json_object_get(line, "ids_special")) {
        if (encoder_encode(c->e, &c->list, text, n, ENCODE_SPECIALS, &err) || !ids_are(c, json_object_get(line, "ids_special"), &ids))
            wrong(c, line, "ids_special");
        free(ids);
    }
    free(back);
    free(text);
}

/* A text of the fixtures' random lines through text_stream; the words of all pieces and what is left. */
static void check_stream(const json_t *line, void *context) {
    struct check *c = context;
    struct cb_err err = {0};
    struct text_stream *stream;
    const json_t *ids = json_object_get(line, "ids"), *pieces = json_object_get(line, "pieces");
    const char *text;
    size_t n;
    if (!json_is_array(ids) || !json_is_array(pieces)) return;
    c->n_lines++;
    if (text_stream_create(&stream, c->t, false, &err)) return wrong(c, line, err.message);
    for (size_t i = 0; i < json_array_size(ids); i++)
        if (text_stream_push(stream, (int32_t)json_integer_value(json_array_get(ids, i)), &text, &n, &err) ||
            !vector_text_is(json_array_get(pieces, i), text, n))
            wrong(c, line, "piece");
    if (text_stream_finish(stream, &text, &n, &err) || !vector_text_is(json_object_get(line, "flush"), text, n)) wrong(c, line, "flush");
    text_stream_destroy(&stream);
}

/* llama.cpp's own tests: texts between marks, and a line of ids for each. */
static void check_llamacpp(struct check *c, const char *shared, const char *stem) {
    char path[1000];
    size_t n = 0, n_out = 0;
    snprintf(path, sizeof path, "%s/data/tokenizers_llamacpp/ggml-vocab-%s.gguf.inp", shared, stem);
    char *in = vector_bytes(path, &n);
    snprintf(path, sizeof path, "%s/data/tokenizers_llamacpp/ggml-vocab-%s.gguf.out", shared, stem);
    char *out = vector_bytes(path, &n_out), *line = out;
    static const char mark[] = "\n__ggml_vocab_test__\n";
    CHECK(in && out, "no %s", path);
    struct cb_err err = {0};
    for (char *at = in, *end; line && *line; at = end + sizeof mark - 1) {
        end = strstr(at, mark);
        if (!end) end = in + n;
        CHECK_OK(encoder_encode(c->e, &c->list, at, (size_t)(end - at), 0, &err));
        bool same = true;
        char *stop = strchr(line, '\n');
        for (size_t i = 0; i < c->list.n; i++) same = strtol(line, &line, 10) == c->list.token[i].id && same;
        while (*line == ' ') line++;
        c->n_lines++;
        if (!same || (stop && line != stop)) c->n_bad++, snprintf(c->wrong, sizeof c->wrong, "%.100s", at);
        line = stop ? stop + 1 : NULL;
        if (end == in + n) break;
    }
    free(in);
    free(out);
}

struct known {
    const char *vectors, *file, *pattern, *config, *stream, *llamacpp;
    bool is_unigram;  // once converted, the unknown token is found in text, and sums are in double precision: long ties fall otherwise
};

static void convert(struct check *c) {
    struct cb_err err = {0};
    char *bytes;
    size_t n;
    CHECK_OK(tokenizer_to_json(c->t, &bytes, &n, &err));
    tokenizer_destroy(&c->t);
    CHECK_OK(tokenizer_load_bytes(&c->t, bytes, n, "converted", &err));
    free(bytes);
    c->is_converted = c->cuts_specials = true;
}

static void run(const struct known *k, bool is_converted) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct check c = {.is_unigram = k->is_unigram, .cuts_specials = k->config && strstr(k->config, "Llama")};
    struct cb_err err = {0};
    char path[1000];
    size_t n;
    snprintf(path, sizeof path, "%s/data/%s", shared, k->file);
    struct stat s;
    CHECK(stat(path, &s) == 0, "no %s", path);
    if (S_ISDIR(s.st_mode)) {
        CHECK_OK(tokenizer_load(&c.t, path, &err));
    } else {
        char *bytes = vector_bytes(path, &n);
        json_t *config = k->config ? json_loads(k->config, 0, NULL) : NULL;
        CHECK(bytes && (config || !k->config), "no %s", path);
        struct text_file file = {bytes, n, path, k->pattern, config};
        CHECK_OK(tokenizer_load_file(&c.t, &file, &err));
        free(bytes);
        json_decref(config);
    }
    if (k->config) c.cuts_specials = false;
    if (is_converted) {
        convert(&c);
        if (k->config) c.cuts_specials = false;
    }
    CHECK_OK(encoder_create(&c.e, c.t, &err));
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/real/%s.jsonl", shared, k->vectors);
    vector_lines(path, check_line, &c);
    CHECK(c.n_lines > 160, "%d texts in %s", c.n_lines, path);
    CHECK(!c.n_bad, "%s: %d of %d are wrong: %s", k->vectors, c.n_bad, c.n_lines, c.wrong);
    int n_before = c.n_lines;
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/stream/%s.jsonl", shared, k->stream ? k->stream : "");
    if (k->stream && !is_converted) {
        vector_lines(path, check_stream, &c);
        CHECK(c.n_lines > n_before + 20, "%d lines in %s", c.n_lines - n_before, path);
        CHECK(!c.n_bad, "%s: %d are wrong: %s", path, c.n_bad, c.wrong);
    }
    n_before = c.n_lines;
    if (k->llamacpp) {
        check_llamacpp(&c, shared, k->llamacpp);
        CHECK(c.n_lines == n_before + 46, "%d tests of %s", c.n_lines - n_before, k->llamacpp);
        CHECK(!c.n_bad, "%s: %d are wrong: %s", k->llamacpp, c.n_bad, c.wrong);
    }
    encoder_destroy(&c.e);
    token_list_deinit(&c.list);
    tokenizer_destroy(&c.t);
}

#define FORMAT_TEST(name, ...)                    \
    TEST(text_formats, name) {                    \
        const struct known known = {__VA_ARGS__}; \
        run(&known, false);                       \
    }                                             \
    TEST(text_formats, name##_converted) {        \
        const struct known known = {__VA_ARGS__}; \
        run(&known, true);                        \
    }
FORMAT_TEST(llama2, .vectors = "llama2_spm", .file = "tokenizers_llama2/tokenizer.model", .stream = "llama2_spm", .llamacpp = "llama-spm")
FORMAT_TEST(
    llama2_hf, .vectors = "llama2_hf", .file = "tokenizers_llama2/tokenizer.model", .llamacpp = "llama-spm",
    .config = "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":false,\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}")
FORMAT_TEST(albert, .vectors = "spm_albert_spiece", .file = "tokenizers_sentencepiece/spiece.model", .is_unigram = true)
FORMAT_TEST(test_bpe, .vectors = "spm_test_bpe", .file = "tokenizers_sentencepiece/test_sentencepiece_bpe.model")
FORMAT_TEST(test_unigram, .vectors = "spm_test_unigram", .file = "tokenizers_sentencepiece/test_sentencepiece.model", .is_unigram = true)
FORMAT_TEST(torchtune_m, .vectors = "spm_torchtune_m", .file = "tokenizers_torchtune_tiny/m.model", .is_unigram = true)
FORMAT_TEST(t5, .vectors = "spm_torchtune_t5", .file = "tokenizers_torchtune_tiny/sentencepiece.model", .is_unigram = true)
FORMAT_TEST(tiktoken, .vectors = "tiktoken_small_cl100k", .file = "tokenizers_torchtune_tiny/tiktoken_small.model",
            .stream = "tiktoken_small_cl100k")
FORMAT_TEST(bert, .vectors = "bert_uncased", .file = "tokenizers_bert/bert_base_uncased_vocab_from_gguf.txt")
FORMAT_TEST(gpt2, .vectors = "gpt2", .file = "tokenizers_gpt2", .stream = "gpt2", .llamacpp = "gpt-2")
FORMAT_TEST(tiny_bpe, .vectors = "tiny_bpe_tokenizer_json", .file = "tokenizers_torchtune_tiny/tiny_bpe_tokenizer.json")
FORMAT_TEST(torchtune_json, .vectors = "torchtune_tokenizer_json", .file = "tokenizers_torchtune_tiny/tokenizer.json")
