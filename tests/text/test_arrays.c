/* Tokenizers from plain arrays, from vocab.txt and tiktoken lines: small ones of every model, their defaults, and what is refused. */
#include "text/formats.h"
#include "vectors.h"

#define VIEWS(...) \
    (const char *const[]) { __VA_ARGS__, NULL }

/* NULL-terminated texts as views; their count. Owned by caller, free(). */
static struct text_view *views(const char *const *text, int32_t *n) {
    struct text_view *v = calloc(1000, sizeof *v);
    for (*n = 0; text[*n]; ++*n) v[*n] = (struct text_view){text[*n], strlen(text[*n])};
    return v;
}

static void check_ids(const struct tokenizer *t, const char *text, const int32_t *want, size_t n) {
    struct token_list list = {0};
    struct cb_err err = {0};
    CHECK_OK(tokenizer_encode(t, &list, text, strlen(text), ENCODE_SPECIALS, &err));
    CHECK(list.n == n, "'%s': %zu ids, %zu wanted", text, list.n, n);
    for (size_t i = 0; i < n; i++)
        CHECK(list.token[i].id == want[i], "'%s': id %d at %zu, %d wanted", text, (int)list.token[i].id, i, (int)want[i]);
    token_list_deinit(&list);
}
#define CHECK_IDS(t, text, ...) check_ids(t, text, (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void check_text(const struct tokenizer *t, const int32_t *ids, size_t n, const char *want) {
    char *text;
    size_t length;
    struct cb_err err = {0};
    CHECK_OK(tokenizer_decode(t, &text, &length, ids, n, false, &err));
    CHECK(!strcmp(text, want), "'%s', '%s' wanted", text, want);
    free(text);
}

static const int32_t llama_types[] = {2, 3, 3, 1, 1, 1, 1, 1, 4, 5};
static const float llama_scores[] = {0, 0, 0, -5, -6, -7, -1, -2, 0, -0.5f};

TEST(text_arrays, llama) {
    struct tokenizer_arrays a = {.model = "llama", .score = llama_scores, .type = llama_types};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    int32_t bos = 1, eos = 2;
    struct text_view *v = views(VIEWS("<unk>", "<s>", "</s>", "\xe2\x96\x81", "a", "b", "ab",
                                      "\xe2\x96\x81"
                                      "ab",
                                      "<u>", "bab"),
                                &a.n_tokens);
    a.token = v, a.bos = &bos, a.eos = &eos;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK(tokenizer_bos(t) == 1 && tokenizer_eos(t) == 2, "ends %d, %d", (int)tokenizer_bos(t), (int)tokenizer_eos(t));
    // the beginning, a space before all, specials and user-defined tokens in the text, an unused token cut again
    CHECK_IDS(t, "ab", 1, 7);
    CHECK_IDS(t, "ab</s>a<u>b", 1, 7, 2, 3, 4, 8, 3, 5);
    CHECK_IDS(t, "bab", 1, 3, 5, 6);
    CHECK_IDS(t, "a\xc3\xa9\xc3\xa9", 1, 3, 4, 0);
    CHECK_IDS(t, "\xff", 1, 3, 0);
    check_text(t, (const int32_t[]){7, 6, 3, 4}, 4, "abab a");
    tokenizer_destroy(&t);
    a.add_bos = ARRAY_FALSE, a.add_eos = ARRAY_TRUE, a.add_space_prefix = ARRAY_FALSE;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "ab", 6, 2);
    tokenizer_destroy(&t);
    a.score = NULL;
    CHECK_FAILS(tokenizer_from_arrays(&t, &a, "arrays", &err), CB_E_FORMAT, "scores");
    a.score = llama_scores, bos = 10;
    CHECK_FAILS(tokenizer_from_arrays(&t, &a, "arrays", &err), CB_E_FORMAT, "id 10");
    bos = 1, a.model = "rwkv";
    CHECK_FAILS(tokenizer_from_arrays(&t, &a, "arrays", &err), CB_E_UNSUPPORTED, "rwkv");
    free(v);
}

/* Merging goes by texts: characters that are no pieces themselves may join to one. */
TEST(text_arrays, llama_hidden_characters) {
    static const float scores[] = {0, -1, -2, -3};
    static const int32_t types[] = {2, 1, 1, 1};
    struct tokenizer_arrays a = {.model = "llama", .score = scores, .type = types};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    struct text_view *v = views(VIEWS("<unk>", "\xe2\x96\x81", "ab", "abc"), &a.n_tokens);
    a.token = v;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "ab abc", 1, 2, 1, 3);
    CHECK_IDS(t, "bab", 1, 0, 2);
    CHECK_IDS(t, "ccab", 1, 0, 2);
    tokenizer_destroy(&t);
    free(v);
}

/* Without an unknown token, characters that nothing stands for vanish: a word may have no symbols at all. */
TEST(text_arrays, llama_without_unknown) {
    static const float scores[] = {-1, -2, -3};
    static const int32_t types[] = {1, 1, 5};
    struct tokenizer_arrays a = {.model = "llama", .score = scores, .type = types, .add_space_prefix = ARRAY_FALSE};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    struct text_view *v = views(VIEWS("a", "b", "ab"), &a.n_tokens);
    a.token = v;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "xaby", 0, 1);
    check_ids(t, "xyz", NULL, 0);
    tokenizer_destroy(&t);
    free(v);
}

TEST(text_arrays, t5) {
    static const float scores[] = {0, 0, -2, -3, -3.5f, -4};
    static const int32_t types[] = {2, 3, 1, 1, 1, 1};
    struct tokenizer_arrays a = {.model = "t5", .score = scores, .type = types};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    int32_t eos = 1;
    struct text_view *v = views(VIEWS("<unk>", "</s>", "\xe2\x96\x81", "a", "b",
                                      "\xe2\x96\x81"
                                      "ab"),
                                &a.n_tokens);
    a.token = v, a.eos = &eos;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "  ab   ba ", 5, 2, 4, 3, 1);  // spaces fall together, the end is put
    tokenizer_destroy(&t);
    free(v);
}

TEST(text_arrays, gpt2) {
    struct tokenizer_arrays a = {.model = "gpt2", .pre = "qwen2"};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    static const int32_t types[] = {1, 1, 1, 1, 1, 3};
    struct text_view *v = views(VIEWS("a", "b", "ab", "1", "11", "<|end|>"), &a.n_tokens);
    int32_t n;
    struct text_view *m = views(VIEWS("a b", "1 1"), &n);
    a.token = v, a.type = types, a.merge = m, a.n_merges = n;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "ab<|end|>11", 2, 5, 3, 3);  // Qwen's pattern takes digits one by one
    tokenizer_destroy(&t);
    a.pre = "gpt-2";
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "ab11", 2, 4);
    tokenizer_destroy(&t);
    a.pre = "nobody's";
    CHECK_FAILS(tokenizer_from_arrays(&t, &a, "arrays", &err), CB_E_UNSUPPORTED, "nobody's");
    a.pre = NULL, m[1] = (struct text_view){"1 2", 3};
    CHECK_FAILS(tokenizer_from_arrays(&t, &a, "arrays", &err), CB_E_FORMAT, "\"2\"");
    free(v);
    free(m);
}

/* Names of pre-tokenisers that differ in what they make of digits. */
TEST(text_arrays, pre_names) {
    static const struct {
        const char *names[12];
        bool joins_digits;  // "11" is one piece
    } rows[] = {
        {{"glm4", "glm5", "jina-v5-nano", "minicpm5", "jais-2", "granite-embed-multi-97m", "tiny_aya", "cohere2moe", "kanana2", "talkie",
          "minimax-m2"},
         true},
        {{"f2llmv2", "grok-2", "laguna", "bailingmoe", "bailingmoe2", "llada-moe", "seed-coder", "exaone-moe", "mellum2"}, false},
        {{"jina-es", "jina-de"}, true},
        {{"ufakzeka"}, false},
        {{"joyai-llm", "hy_v4"}, true},
    };
    static const int32_t types[] = {1, 1, 1, 1, 1, 1};
    struct tokenizer_arrays a = {.model = "gpt2"};
    struct cb_err err = {0};
    int32_t n;
    struct text_view *v = views(VIEWS("s", "'", "'s", "1", "11", "b"), &a.n_tokens), *m = views(VIEWS("' s", "1 1"), &n);
    a.token = v, a.type = types, a.merge = m, a.n_merges = n;
    int seen = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < 12 && rows[i].names[k]; k++, seen++) {
            struct tokenizer *t = NULL;
            a.pre = rows[i].names[k];
            CHECK_OK(tokenizer_from_arrays(&t, &a, a.pre, &err));
            if (rows[i].joins_digits)
                CHECK_IDS(t, "b11", 5, 4);
            else
                CHECK_IDS(t, "b11", 5, 3, 3);
            CHECK_IDS(t, "'s", 2);
            tokenizer_destroy(&t);
        }
    CHECK(seen == 25, "%d names", seen);
    free(v);
    free(m);
}

TEST(text_arrays, bert) {
    struct tokenizer_arrays a = {.model = "bert"};
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    static const int32_t types[] = {3, 2, 3, 3, 1, 1, 1};
    struct text_view *v =
        views(VIEWS("[PAD]", "[UNK]", "[CLS]", "[SEP]", "\xe2\x96\x81run", "ning", "\xe2\x96\x81\xe2\x82\xac"), &a.n_tokens);
    a.token = v, a.type = types;
    CHECK_OK(tokenizer_from_arrays(&t, &a, "arrays", &err));
    CHECK_IDS(t, "Running \xe2\x82\xac ning", 2, 4, 5, 6, 1, 3);
    check_text(t, (const int32_t[]){4, 5}, 2, "running");
    tokenizer_destroy(&t);
    free(v);
}

/* ---- files of lines */

static enum cb_status load(struct tokenizer **t, const char *bytes, const char *pattern, const char *config, struct cb_err *err) {
    json_t *json = config ? json_loads(config, 0, NULL) : NULL;
    struct text_file file = {bytes, strlen(bytes), "lines", pattern, json};
    enum cb_status status = tokenizer_load_file(t, &file, err);
    json_decref(json);
    return status;
}

TEST(text_arrays, vocab_txt) {
    static const char lower[] = "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n\ncafe\n##s\n", cased[] = "[UNK]\nCaf\xc3\xa9\ncafe\n";
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    CHECK_OK(load(&t, lower, NULL, NULL, &err));
    CHECK_IDS(t, "Caf\xc3\xa9s", 2, 5, 6, 3);
    tokenizer_destroy(&t);
    CHECK_OK(load(&t, cased, NULL, NULL, &err));
    CHECK_IDS(t, "Caf\xc3\xa9 cafe CAFE", 1, 2, 0);
    tokenizer_destroy(&t);
    CHECK_OK(load(&t, cased, NULL, "{\"do_lower_case\":true}", &err));
    CHECK_IDS(t, "Caf\xc3\xa9 CAFE", 2, 2);
    tokenizer_destroy(&t);
    CHECK_FAILS(load(&t, "a\nb\n", NULL, NULL, &err), CB_E_FORMAT, "[UNK]");
    CHECK_FAILS(load(&t, "a\n\xff\n", NULL, NULL, &err), CB_E_FORMAT, "0xff");
    CHECK_FAILS(load(&t, "GGUF....", NULL, NULL, &err), CB_E_UNSUPPORTED, "GGUF");
}

TEST(text_arrays, tiktoken) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char bytes[8000];
    size_t n = 0;
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    for (int i = 0; i < 256; i++) n += (size_t)sprintf(bytes + n, "%c%c== %d\n", digit[i >> 2], digit[(i & 3) << 4], i);
    strcpy(bytes + n, "MTI= 256\nMTIz 257\n");  // "12", "123"
    CHECK_OK(load(&t, bytes, NULL, NULL, &err));
    CHECK_IDS(t, "1234", 257, '4');  // cl100k: three digits a word
    tokenizer_destroy(&t);
    CHECK_OK(load(&t, bytes, "qwen2", NULL, &err));
    CHECK_IDS(t, "123", '1', '2', '3');
    tokenizer_destroy(&t);
    CHECK_OK(load(&t, bytes, "1|23", NULL, &err));
    CHECK_IDS(t, "123", '1', '2', '3');
    tokenizer_destroy(&t);
    CHECK_OK(load(&t, bytes, NULL,
                  "{\"added_tokens_decoder\":{\"258\":{\"content\":\"<|end|>\",\"special\":true}},\"eos_token\":\"<|end|>\"}", &err));
    CHECK_IDS(t, "12<|end|>", 256, 258);
    CHECK(tokenizer_eos(t) == 258 && tokenizer_is_special(t, 258), "eos %d", (int)tokenizer_eos(t));
    CHECK_IDS(t,
              "1\xff"
              "2",
              '1', 0xff, '2');
    tokenizer_destroy(&t);
    CHECK_FAILS(load(&t, bytes, "(", NULL, &err), CB_E_FORMAT, "pattern");
    CHECK_FAILS(load(&t, "MTI= 0\n", NULL, NULL, &err), CB_E_FORMAT, "all 256");
    CHECK_FAILS(load(&t, "MTI= 0\nMT 1\n", NULL, NULL, &err), CB_E_FORMAT, "line 2");
    CHECK_FAILS(load(&t, "MTI= 0\nMTIz 0\n", NULL, NULL, &err), CB_E_FORMAT, "both have id 0");
    CHECK_FAILS(load(&t, "MTI= 2000000\n", NULL, NULL, &err), CB_E_FORMAT, "holes");
}
