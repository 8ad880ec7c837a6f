/* Folders of Transformers' slow classes against the ids that these give (tests/golden/make_tokenizers.py), also after conversion. */
#include "../data/files.h"
#include "io/file.h"
#include "text/tokenizer.h"
#include "vectors.h"

struct check {
    struct encoder *e;
    struct token_list list;
    int n_lines;
    const char *name;
};

static void check_line(const json_t *line, void *context) {
    struct check *c = context;
    struct cb_err err = {0};
    size_t n;
    char *text = vector_text(json_object_get(line, "text"), &n);
    CHECK_OK(encoder_encode(c->e, &c->list, text, n, ENCODE_SPECIALS, &err));
    int32_t *ids = calloc(c->list.n + 1, sizeof *ids);
    CHECK(ids, "no memory");
    for (size_t i = 0; i < c->list.n; i++) ids[i] = c->list.token[i].id;
    CHECK(vector_ids_are(json_object_get(line, "ids"), ids, c->list.n), "%s: \"%s\" has other ids", c->name, text);
    c->n_lines++;
    free(ids);
    free(text);
}

static void check_tokenizer(const struct tokenizer *t, const char *name) {
    struct check c = {.name = name};
    struct cb_err err = {0};
    char path[300];
    CHECK_OK(encoder_create(&c.e, t, &err));
    snprintf(path, sizeof path, "tests/golden/tokenizers/%s/wanted.jsonl", name);
    vector_lines(path, check_line, &c);
    CHECK(c.n_lines > 3, "%s: %d lines", path, c.n_lines);
    token_list_deinit(&c.list);
    encoder_destroy(&c.e);
}

TEST(text_layouts, slow_classes) {
    static const char *const names[] = {"roberta", "bart", "xlm-roberta", "camembert", "albert", "deberta-v2", "mbart", "mbart50", "nllb",
                                        "m2m100", "marian",
                                        // older files: tests/golden/make_added.py
                                        "bert-added", "gpt2-added", "roberta-added", "xlm-roberta-added", "albert-added", "mbart50-added"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct tokenizer *t = NULL;
        struct cb_err err = {0};
        char path[300], *bytes;
        size_t n;
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s", names[i]);
        CHECK_OK(tokenizer_load(&t, path, &err));
        check_tokenizer(t, names[i]);
        CHECK_OK(tokenizer_to_json(t, &bytes, &n, &err));
        tokenizer_destroy(&t);
        CHECK_OK(tokenizer_load_bytes(&t, bytes, n, "converted", &err));
        if (strcmp(names[i], "marian") != 0) check_tokenizer(t, names[i]);  // pieces without an id are not kept
        free(bytes);
        tokenizer_destroy(&t);
    }
}

/* A folder with tokenizer_config.json, vocab.json, and a golden folder's model under its name; nullable: vocab, model. */
static enum cb_status loaded(const char *config, const char *vocab, const char *model, struct cb_err *err) {
    char *folder = folder_make(), path[300], *bytes = NULL;
    size_t n;
    struct tokenizer *t = NULL;
    free(file_put(folder, "tokenizer_config.json", config, strlen(config)));
    if (vocab) free(file_put(folder, "vocab.json", vocab, strlen(vocab)));
    if (model) {
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s", model);
        CHECK(io_read_file(&bytes, &n, path, 1 << 20, err) == CB_OK, "%s", err->message);
        free(file_put(folder, strrchr(model, '/') + 1, bytes, n));
    }
    const enum cb_status status = tokenizer_load(&t, folder, err);
    tokenizer_destroy(&t);
    free(bytes);
    free(folder);
    return status;
}

TEST(text_layouts, what_is_refused) {
#define CLASS(name) "{\"tokenizer_class\":\"" name "Tokenizer\""
    static const char marian[] = "marian/source.spm", nllb[] = "nllb/sentencepiece.bpe.model";
    static const struct {
        const char *config, *vocab, *model, *words;
    } cases[] = {
        {CLASS("XLMRoberta") "}", NULL, NULL, "holds no sentencepiece.bpe.model; wanted it, as the tokenizer's class is XLMRoberta"},
        {CLASS("Marian") "}", NULL, marian, "vocab.json is wanted beside source.spm"},
        {CLASS("Marian") "}", "{\"a\":0,\"<unk>\":0}", marian, "has id 0; one of 0 to 1 for each is wanted"},
        {CLASS("Marian") "}", "{\"</s>\":0,\"<unk>\":-1}", marian, "\"<unk>\" has id -1"},
        {CLASS("Marian") "}", "{\"</s>\":0,\"a\":1}", marian, "the unknown token <unk> is not in it"},
        {CLASS("Marian") ",\"separate_vocabs\":true}", "{\"</s>\":0,\"<unk>\":1}", marian, "separate_vocabs: found true; wanted false"},
        {CLASS("DebertaV2") ",\"split_by_punct\":true}", NULL, "deberta-v2/spm.model", "split_by_punct: found true; wanted false"},
        {CLASS("Nllb") ",\"src_lang\":\"xyz_Abcd\"}", NULL, nllb,
         "\"xyz_Abcd\" (src_token) stands around texts; it is not in the vocabulary"},
        {CLASS("MBart") ",\"added_tokens_decoder\":{\"4\":{\"content\":\"new\"}}}", NULL, "mbart/sentencepiece.bpe.model",
         "\"new\" has id 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_err err = {0};
        CHECK(loaded(cases[i].config, cases[i].vocab, cases[i].model, &err) != CB_OK, "%zu: %s", i, cases[i].config);
        CHECK(strstr(err.message, cases[i].words), "%zu: '%s' lacks '%s'", i, err.message, cases[i].words);
    }
#undef CLASS
}

/* What stands in older files is checked as what tokenizer_config.json says is. */
TEST(text_layouts, older_files_that_are_refused) {
    static const struct {
        const char *file, *text, *words;  // words NULL: it is read
    } cases[] = {
        {"added_tokens.json", "{\"[NEW]\": 41}", NULL},
        {"added_tokens.json", "[\"[NEW]\"]", "wanted a JSON object"},
        {"added_tokens.json", "{\"[NEW]\": \"41\"}", "\"[NEW]\": found \"41\"; wanted an id"},
        {"added_tokens.json", "{\"[NEW]\": 4611686018427387904}", "\"4611686018427387904\"; an id is wanted"},
        {"added_tokens.json", "{\"[NEW]\": -1}", "\"-1\"; an id is wanted"},
        {"added_tokens.json", "{\"[NEW]\": 99}", "at most the next one, 41, is wanted"},
        {"added_tokens.json", "{\"[NEW]\": 41", "added_tokens.json"},
        {"special_tokens_map.json", "3", "wanted a JSON object"},
        {"special_tokens_map.json", "{\"pad_token\": 3, \"additional_special_tokens\": [null, {\"content\": \"<e>\"}]}", NULL},
    };
    char *bytes;
    size_t n;
    struct cb_err err = {0};
    CHECK_OK(io_read_file(&bytes, &n, "tests/golden/tokenizers/bert-added/vocab.txt", 1 << 20, &err));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = folder_make();
        struct tokenizer *t = NULL;
        free(file_put(folder, "vocab.txt", bytes, n));
        free(file_put(folder, cases[i].file, cases[i].text, strlen(cases[i].text)));
        enum cb_status status = tokenizer_load(&t, folder, &err);
        if (cases[i].words) CHECK(status != CB_OK && strstr(err.message, cases[i].words), "%zu: '%s'", i, err.message);
        if (!cases[i].words) CHECK(status == CB_OK && tokenizer_size(t) == 42, "%zu: %s", i, err.message);
        tokenizer_destroy(&t);
        memset(&err, 0, sizeof err);
        free(folder);
    }
    free(bytes);
}
