/* Training: byte-level BPE equal to the reference's, character and byte vocabularies. */
#include <zstd.h>

#include "text/tokenizer.h"
#include "text/utf8.h"
#include "vectors.h"

struct lines {
    const char *text;
    size_t n, at;
};

static bool next_line(void *context, const char **text, size_t *n) {
    struct lines *l = context;
    if (l->at >= l->n) return false;
    const char *end = memchr(l->text + l->at, '\n', l->n - l->at);
    *text = l->text + l->at, *n = end ? (size_t)(end + 1 - *text) : l->n - l->at;
    l->at += *n;
    return true;
}

/* The options of a training vector, from its first line. */
struct vector {
    json_t *head;
};
static void keep_head(const json_t *line, void *context) {
    struct vector *v = context;
    if (!v->head) v->head = json_deep_copy(line);
}

/* A file's bytes, unpacked where its name ends in .zst. Owned by caller, free(). */
static char *unpacked_bytes(const char *path, size_t *n) {
    char *bytes = vector_bytes(path, n);
    size_t length = strlen(path);
    if (!bytes || length < 4 || strcmp(path + length - 4, ".zst") != 0) return bytes;
    size_t room = 64u << 20;
    char *out = malloc(room);
    *n = ZSTD_decompress(out, room, bytes, *n);
    free(bytes);
    if (!ZSTD_isError(*n)) return out;
    free(out);
    return NULL;
}

static void check_same(const struct tokenizer *a, const struct tokenizer *b, const char *name) {
    CHECK(tokenizer_size(a) == tokenizer_size(b), "%s: %d ids, %d wanted", name, (int)tokenizer_size(a), (int)tokenizer_size(b));
    for (int32_t id = 0; id < tokenizer_size(a); id++)
        CHECK(!strcmp(tokenizer_token(a, id, NULL), tokenizer_token(b, id, NULL)), "%s: id %d is '%s', '%s' wanted", name, (int)id,
              tokenizer_token(a, id, NULL), tokenizer_token(b, id, NULL));
}

static int32_t n_common(const struct tokenizer *a, const struct tokenizer *b) {
    int32_t n = 0;
    for (int32_t id = 0; id < tokenizer_size(a); id++) n += tokenizer_id(b, tokenizer_token(a, id, NULL)) >= 0;
    return n;
}

/* The ids of the whole slice, line by line; digest of all of them. */
static int64_t count_tokens(const struct tokenizer *t, struct lines slice, uint64_t *digest) {
    struct encoder *e;
    struct cb_err err = {0};
    struct token_list list = {0};
    const char *text;
    size_t n;
    int64_t total = 0;
    *digest = VECTOR_FNV;
    CHECK_OK(encoder_create(&e, t, &err));
    for (slice.at = 0; next_line(&slice, &text, &n); total += (int64_t)list.n) {
        CHECK_OK(encoder_encode(e, &list, text, n, 0, &err));
        for (size_t i = 0; i < list.n; i++) *digest = vector_fnv(*digest, &list.token[i].id, 4);
    }
    token_list_deinit(&list);
    encoder_destroy(&e);
    return total;
}

/* Where the library's own runs differ: the pieces that 16 of them share; what is trained here holds all of those. */
struct expectation {
    const char *name, *kind;
    bool is_exact;
    int32_t common;  // at least so many of the vector's pieces
};

/* Trains on the slice that the vector names and compares with its tokenizer.json. */
static void check_training(const struct expectation *x) {
    const char *shared = shared_dir(), *name = x->name;
    if (!shared) return;
    char path[1000];
    struct vector v = {0};
    struct tokenizer *trained = NULL, *wanted = NULL;
    struct cb_err err = {0};
    size_t n = 0, skip = 0;
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/train/train_%s.jsonl", shared, name);
    CHECK(vector_lines(path, keep_head, &v) > 0 && v.head, "no %s", path);
    const json_t *slice = json_object_get(v.head, "slice"), *names = json_object_get(v.head, "specials");
    snprintf(path, sizeof path, "%s/data/%s", shared, json_string_value(json_array_get(slice, 0)));
    char *bytes = unpacked_bytes(path, &n);
    skip = (size_t)json_integer_value(json_array_get(slice, 1));
    CHECK(bytes && skip < n, "no %s", path);
    while (skip && utf8_is_tail(bytes[skip])) skip--;
    struct lines lines = {bytes + skip, (size_t)json_integer_value(json_object_get(v.head, "slice_bytes")), 0};
    CHECK(skip + lines.n <= n && vector_fnv(VECTOR_FNV, lines.text, lines.n) ==
                                     strtoull(json_string_value(json_object_get(v.head, "slice_fnv1a64")), NULL, 16),
          "another slice");
    const char *specials[8];
    const json_t *accents = json_object_get(v.head, "strip_accents");
    struct train_options options = {
        .kind = x->kind,
        .vocab = (int32_t)json_integer_value(json_object_get(v.head, "vocab_size")) + (strcmp(x->kind, "bpe-fallback") ? 0 : 256),
        .specials = specials,
        .min_frequency = json_integer_value(json_object_get(v.head, "min_frequency")),
        .max_token_chars = (size_t)json_integer_value(json_object_get(v.head, "max_token_length")),
        .limit_alphabet = (int32_t)json_integer_value(json_object_get(v.head, "limit_alphabet")),
        .pattern = json_string_value(json_object_get(v.head, "regex")),
        .keep_accents = accents && !json_is_true(accents)};
    for (; options.n_specials < (int)json_array_size(names); options.n_specials++)
        specials[options.n_specials] = json_string_value(json_array_get(names, (size_t)options.n_specials));
    CHECK_OK(tokenizer_train(&trained, &options, next_line, &lines, NULL, NULL, &err));
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/train/train_%s.tokenizer.json", shared, name);
    CHECK_OK(tokenizer_load(&wanted, path, &err));
    uint64_t digest[2];
    int64_t tokens = count_tokens(trained, lines, &digest[0]), least = json_integer_value(json_object_get(v.head, "tokens_of_slice"));
    CHECK(count_tokens(wanted, lines, &digest[1]) == least, "%s: the vector's own tokens", name);
    if (x->is_exact) {
        check_same(trained, wanted, name);
        CHECK(tokens == least && digest[0] == digest[1], "%s: %lld tokens, %lld wanted", name, (long long)tokens, (long long)least);
    }
    int32_t common = n_common(trained, wanted);
    fprintf(stderr, "%s: %d of %d pieces common, %lld tokens beside %lld\n", name, (int)common, (int)tokenizer_size(wanted),
            (long long)tokens, (long long)least);
    CHECK(tokenizer_size(trained) == tokenizer_size(wanted), "%s: %d ids", name, (int)tokenizer_size(trained));
    CHECK(common >= x->common, "%s: %d of %d pieces are common, %d are wanted", name, (int)common, (int)tokenizer_size(wanted),
          (int)x->common);
    CHECK(llabs(tokens - least) * 200 <= least, "%s: %lld tokens, %lld wanted within 0.5%%", name, (long long)tokens, (long long)least);
    tokenizer_destroy(&trained);
    tokenizer_destroy(&wanted);
    json_decref(v.head);
    free(bytes);
}

#define TRAINING_TEST(test, ...)                              \
    TEST(text_train, test) {                                  \
        const struct expectation expectation = {__VA_ARGS__}; \
        check_training(&expectation);                         \
    }
TRAINING_TEST(english, "en_bytebpe_4k", "bpe", true, 4096)
TRAINING_TEST(english_16k, "en_bytebpe_16k", "bpe", true, 16384)
TRAINING_TEST(russian, "ru_bytebpe_4k", "bpe", true, 4096)
TRAINING_TEST(source, "c_bytebpe_4k", "bpe", true, 4096)
TRAINING_TEST(source_llama3, "c_bytebpe_llama3_2k", "bpe", true, 2048)
TRAINING_TEST(english_fallback, "en_bytefallback_2k", "bpe-fallback", true, 2304)
TRAINING_TEST(russian_fallback, "ru_bytefallback_4k", "bpe-fallback", true, 4352)
TRAINING_TEST(english_wordpiece, "en_wordpiece_4k", "wordpiece", false, 4094)
TRAINING_TEST(russian_wordpiece, "ru_wordpiece_2k", "wordpiece", false, 2038)
TRAINING_TEST(english_unigram, "en_unigram_2k", "unigram", false, 2048)
TRAINING_TEST(russian_unigram, "ru_unigram_2k", "unigram", false, 2048)

/* Trains a kind on a short text, writes and reads it, and takes the text there and back. */
static void check_kind(const char *kind, int32_t vocab, int32_t size) {
    static const char text[] =
        "one two two three three three\n\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, \xe4\xbd\xa0\xe5\xa5\xbd! \xf0\x9f\x91\x8d\n";
    static const char *const specials[] = {"<|endoftext|>"};
    struct train_options options = {.kind = kind, .vocab = vocab, .specials = specials, .n_specials = 1};
    struct lines lines = {text, sizeof text - 1, 0};
    struct tokenizer *t = NULL, *again = NULL;
    struct cb_err err = {0};
    struct token_list list = {0};
    char *json, *back;
    size_t n;
    int32_t ids[200];
    CHECK_OK(tokenizer_train(&t, &options, next_line, &lines, NULL, NULL, &err));
    CHECK(tokenizer_size(t) == size, "%s: size %d", kind, (int)tokenizer_size(t));
    CHECK_OK(tokenizer_to_json(t, &json, &n, &err));
    CHECK_OK(tokenizer_load_bytes(&again, json, n, "again", &err));
    check_same(t, again, kind);
    CHECK_OK(tokenizer_encode(again, &list, text, sizeof text - 1, 0, &err));
    CHECK(list.n < 200, "%zu tokens", list.n);
    for (size_t i = 0; i < list.n; i++) ids[i] = list.token[i].id;
    CHECK_OK(tokenizer_decode(again, &back, &n, ids, list.n, true, &err));
    CHECK(n == sizeof text - 1 && !memcmp(back, text, n), "%s: '%s'", kind, back);
    CHECK(tokenizer_eos(again) == 0, "eos %d", (int)tokenizer_eos(again));
    free(json);
    free(back);
    token_list_deinit(&list);
    tokenizer_destroy(&t);
    tokenizer_destroy(&again);
}

TEST(text_train, kinds) {
    check_kind("byte", 0, 257);
    check_kind("char", 0, 2 + 20);
    check_kind("bpe", 260, 260);
}

static bool stop(void *context, int64_t done, int64_t total) { return (void)context, (void)done, (void)total, false; }

TEST(text_train, refusals) {
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    struct lines lines = {"abc\xff", 4, 0};
    struct train_options options = {.kind = "bpe", .vocab = 300};
    CHECK_FAILS(tokenizer_train(&t, &options, next_line, &lines, NULL, NULL, &err), CB_E_FORMAT, "0xff");
    options.vocab = 255, lines.at = 0;
    CHECK_FAILS(tokenizer_train(&t, &options, next_line, &lines, NULL, NULL, &err), CB_E_ARGUMENT, "255");
    options.kind = "syllable";
    CHECK_FAILS(tokenizer_train(&t, &options, next_line, &lines, NULL, NULL, &err), CB_E_NAME, "syllable");
    char text[9000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + (i * i / 7 + i / 3) % 23);
    struct lines many = {text, sizeof text, 0};
    options.kind = "bpe", options.vocab = 1000;
    CHECK_FAILS(tokenizer_train(&t, &options, next_line, &many, stop, NULL, &err), CB_E_STOPPED, "stopped");
    CHECK(!t, "something is left");
}
