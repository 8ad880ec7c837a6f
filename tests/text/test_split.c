/* The patterns used in practice, and the normalisers over every code point, against the reference library. */
#include "text/parts.h"
#include "text/unicode.h"
#include "text/utf8.h"
#include "vectors.h"

struct check {
    struct tokenizer *t;
    struct encoder *e;
    int n_texts, n_bad;
    bool is_uncommon;
    char wrong[300];
};

/* A tokenizer whose one part cuts or normalises; key: of tokenizer.json. part: taken over. */
static void make(struct check *c, const char *key, json_t *part) {
    struct cb_err err = {0};
    json_t *json = json_pack("{sosss{sss{si}s[]}}", key, part, "version", "1.0", "model", "type", "BPE", "vocab", "a", 0, "merges");
    char *text = json_dumps(json, 0);
    CHECK(text, "no memory");
    CHECK_OK(tokenizer_load_bytes(&c->t, text, strlen(text), "split", &err));
    CHECK_OK(encoder_create(&c->e, c->t, &err));
    free(text);
    json_decref(json);
}

static void unmake(struct check *c) {
    encoder_destroy(&c->e);
    tokenizer_destroy(&c->t);
}

static enum cb_status note_cut(void *context, const char *piece, size_t n, size_t begin, size_t end, struct cb_err *err) {
    (void)piece, (void)n, (void)begin, (void)err;
    json_array_append_new(context, json_integer((json_int_t)end));
    return CB_OK;
}

/* Ends of the pieces in code points. */
static void check_cuts(const json_t *line, void *context) {
    struct check *c = context;
    struct cb_err err = {0};
    const json_t *pattern = json_object_get(line, "pattern"), *want = json_object_get(line, "cuts");
    if (pattern)
        make(c, "pre_tokenizer",
             json_pack("{sss{sO}sssb}", "type", "Split", "pattern", "Regex", pattern, "behavior", "Isolated", "invert", 0));
    if (!json_is_array(want)) return;
    size_t n;
    char *text = vector_text(json_object_get(line, "text"), &n);
    json_t *cuts = json_array();
    enum cb_status status = encoder_pretokenise(c->e, text, n, note_cut, cuts, &err);
    bool same = !status && json_array_size(cuts) == json_array_size(want);
    for (size_t i = 0, at = 0, count = 0; i < json_array_size(cuts) && same; i++) {
        size_t end = (size_t)json_integer_value(json_array_get(cuts, i));
        count += utf8_count(text + at, end - at), at = end;
        same = json_integer_value(json_array_get(want, i)) == (json_int_t)count;
    }
    const char *name = json_string_value(json_object_get(line, "name"));
    // signs and marks that are younger than the tables of Oniguruma where Debian has it; letters and numbers have own tables in the common patterns
    if (c->is_uncommon && name && !strcmp(name, "new_unicode")) same = true;
    if (!same && !c->n_bad++) snprintf(c->wrong, sizeof c->wrong, "%.60s: %.200s", name ? name : "?", err.message);
    c->n_texts++;
    json_decref(cuts);
    free(text);
}

TEST(text_split, patterns) {
    const char *shared = shared_dir();
    if (!shared) return;
    static const char *const names[] = {"bloom",
                                        "chatglm4",
                                        "cl100k",
                                        "cl100k_possessive",
                                        "deepseek_cjk",
                                        "deepseek_llm_punct",
                                        "deepseek_llm_words",
                                        "deepseek_numbers",
                                        "deepseek_v3",
                                        "dots",
                                        "falcon",
                                        "gpt2",
                                        "llama3",
                                        "o200k",
                                        "qwen2",
                                        "qwen35",
                                        "starcoder_digits",
                                        "tekken",
                                        "whitespace"};
    int n_good = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct check c = {.is_uncommon = !strcmp(names[i], "deepseek_v3")};
        char path[1000];
        snprintf(path, sizeof path, "%s/fixtures/tokenizers/split/split_%s.jsonl", shared, names[i]);
        vector_lines(path, check_cuts, &c);
        CHECK(c.n_texts > 50, "%d texts in %s", c.n_texts, path);
        n_good += !c.n_bad;
        if (c.n_bad) fprintf(stderr, "%s: %d of %d are cut otherwise: %s\n", names[i], c.n_bad, c.n_texts, c.wrong);
        unmake(&c);
    }
    CHECK(n_good == 19, "%d of 19 patterns cut as the reference does", n_good);
}

/* ---- normalisers: FNV of the results in blocks of 4096 code points, each ended by NUL; blocks that do not change are left out */

static const struct {
    const char *name, *json;
} normalisers[] = {
    {"NFC", "{\"type\":\"NFC\"}"},
    {"NFD", "{\"type\":\"NFD\"}"},
    {"NFKC", "{\"type\":\"NFKC\"}"},
    {"NFKD", "{\"type\":\"NFKD\"}"},
    {"Lowercase", "{\"type\":\"Lowercase\"}"},
    {"StripAccents", "{\"type\":\"StripAccents\"}"},
    {"Nmt", "{\"type\":\"Nmt\"}"},
#define BERT(clean, chinese, strip)                                                                                       \
    "{\"type\":\"BertNormalizer\",\"clean_text\":" clean ",\"handle_chinese_chars\":" chinese ",\"strip_accents\":" strip \
    ",\"lowercase\":false}"
    {"BertNormalizer clean_text", BERT("true", "false", "false")},
    {"BertNormalizer handle_chinese_chars", BERT("false", "true", "false")},
    {"BertNormalizer strip_accents", BERT("false", "false", "true")},
};

static void check_normaliser(const json_t *line, void *context) {
    struct check *all = context, c = {0};
    const char *name = json_string_value(json_object_get(line, "normalizer"));
    const json_t *blocks = json_object_get(line, "block_fnv1a64");
    size_t which = 0, n_kinds = sizeof normalisers / sizeof *normalisers;
    while (name && which < n_kinds && strcmp(normalisers[which].name, name) != 0) which++;
    if (!name || which == n_kinds) return;
    make(&c, "normalizer", json_loads(normalisers[which].json, 0, NULL));
    all->n_texts++;
    for (uint32_t block = 0; block < 0x110; block++) {
        uint64_t ours = VECTOR_FNV, plain = VECTOR_FNV;
        for (uint32_t cp = block << 12; cp < (block + 1) << 12; cp++) {
            char text[4], *out = NULL, shown[20];
            size_t n, n_text;
            struct cb_err err = {0};
            if (cp >= 0xd800 && cp < 0xe000) continue;
            n_text = (size_t)utf8_encode(text, cp);
            CHECK_OK(encoder_normalise(c.e, &out, &n, text, n_text, &err));
            ours = vector_fnv(vector_fnv(ours, out, n), "", 1), plain = vector_fnv(vector_fnv(plain, text, n_text), "", 1);
            free(out);
            if ((cp & 0xfff) != 0xfff) continue;
            snprintf(shown, sizeof shown, "%03x", block);
            const char *want = json_string_value(json_object_get(blocks, shown));
            snprintf(shown, sizeof shown, "%016llx", (unsigned long long)ours);
            if (want ? strcmp(want, shown) != 0 : ours != plain)
                if (!all->n_bad++) snprintf(all->wrong, sizeof all->wrong, "%.60s: the block of U+%03X000", name, block);
        }
    }
    unmake(&c);
}

TEST(text_split, normalisers) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct check c = {0};
    char path[1000];
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/unicode/normalizers.jsonl", shared);
    vector_lines(path, check_normaliser, &c);
    CHECK(c.n_texts == 10, "%d normalisers in %s", c.n_texts, path);
    CHECK(!c.n_bad, "%d blocks are wrong: %s", c.n_bad, c.wrong);
}

/* ---- classes of code points that have tables of their own */

static bool is_letter(uint32_t cp) { return unicode_class(cp) == UNICODE_LETTER; }
static bool is_class_number(uint32_t cp) { return unicode_class(cp) == UNICODE_NUMBER; }

static const struct {
    const char *name;
    bool (*is_in)(uint32_t cp);
} classes[] = {{"\\p{L}", is_letter},
               {"\\p{N}", is_class_number},
               {"\\s", unicode_is_space},
               {"char::is_whitespace", unicode_is_space},
               {"char::is_numeric", unicode_is_number},
               {"punctuation", unicode_is_punctuation}};

static void check_class(const json_t *line, void *context) {
    struct check *c = context;
    const char *name = json_string_value(json_object_get(line, "class"));
    const json_t *ranges = json_object_get(line, "ranges");
    size_t which = 0, n_kinds = sizeof classes / sizeof *classes;
    while (name && which < n_kinds && strcmp(classes[which].name, name) != 0) which++;
    if (!name || which == n_kinds) return;
    c->n_texts++;
    size_t range = 0;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        while (range < json_array_size(ranges) && cp > json_integer_value(json_array_get(json_array_get(ranges, range), 1))) range++;
        bool want = range < json_array_size(ranges) && cp >= json_integer_value(json_array_get(json_array_get(ranges, range), 0));
        if (cp >= 0xd800 && cp < 0xe000) continue;
        if (classes[which].is_in(cp) != want && !c->n_bad++) snprintf(c->wrong, sizeof c->wrong, "%.40s: U+%04X", name, cp);
    }
    if (c->n_bad) fprintf(stderr, "%s: %d so far\n", name, c->n_bad);
}

TEST(text_split, classes) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct check c = {0};
    char path[1000];
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/unicode/classes.jsonl", shared);
    vector_lines(path, check_class, &c);
    CHECK(c.n_texts == 6, "%d classes in %s", c.n_texts, path);
    CHECK(!c.n_bad, "%d code points are in another class: %s", c.n_bad, c.wrong);
}
