/* Training: byte-level BPE equal to the reference's, character and byte vocabularies. */
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

static void check_same(const struct tokenizer *a, const struct tokenizer *b, const char *name) {
    CHECK(tokenizer_size(a) == tokenizer_size(b), "%s: %d ids, %d wanted", name, (int)tokenizer_size(a), (int)tokenizer_size(b));
    for (int32_t id = 0; id < tokenizer_size(a); id++)
        CHECK(!strcmp(tokenizer_token(a, id, NULL), tokenizer_token(b, id, NULL)), "%s: id %d is '%s', '%s' wanted", name, (int)id,
              tokenizer_token(a, id, NULL), tokenizer_token(b, id, NULL));
}

/* What both make of the whole slice, line by line. */
static void check_encodings(const struct tokenizer *a, const struct tokenizer *b, struct lines slice, int64_t wanted, const char *name) {
    struct encoder *e[2];
    struct cb_err err = {0};
    struct token_list list[2] = {{0}, {0}};
    const char *text;
    size_t n;
    int64_t total = 0;
    CHECK_OK(encoder_create(&e[0], a, &err));
    CHECK_OK(encoder_create(&e[1], b, &err));
    for (slice.at = 0; next_line(&slice, &text, &n); total += (int64_t)list[0].n) {
        CHECK_OK(encoder_encode(e[0], &list[0], text, n, 0, &err));
        CHECK_OK(encoder_encode(e[1], &list[1], text, n, 0, &err));
        bool same = list[0].n == list[1].n;
        for (size_t i = 0; same && i < list[0].n; i++) same = list[0].token[i].id == list[1].token[i].id;
        CHECK(same, "%s: a line is encoded otherwise", name);
    }
    CHECK(total == wanted, "%s: %lld tokens, %lld wanted", name, (long long)total, (long long)wanted);
    for (int i = 0; i < 2; i++) token_list_deinit(&list[i]), encoder_destroy(&e[i]);
}

/* Trains on the slice that the vector names and compares with its tokenizer.json. */
static void check_training(const char *name) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[1000];
    struct vector v = {0};
    struct tokenizer *trained = NULL, *wanted = NULL;
    struct cb_err err = {0};
    size_t n;
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/train/train_%s.jsonl", shared, name);
    CHECK(vector_lines(path, keep_head, &v) > 0 && v.head, "no %s", path);
    const json_t *slice = json_object_get(v.head, "slice"), *names = json_object_get(v.head, "specials");
    snprintf(path, sizeof path, "%s/data/%s", shared, json_string_value(json_array_get(slice, 0)));
    char *bytes = vector_bytes(path, &n);
    CHECK(bytes, "no %s", path);
    struct lines lines = {bytes, (size_t)json_integer_value(json_object_get(v.head, "slice_bytes")), 0};
    CHECK(lines.n <= n &&
              vector_fnv(VECTOR_FNV, bytes, lines.n) == strtoull(json_string_value(json_object_get(v.head, "slice_fnv1a64")), NULL, 16),
          "another slice");
    const char *specials[8];
    struct train_options options = {
        .kind = "bpe", .vocab = (int32_t)json_integer_value(json_object_get(v.head, "vocab_size")), .specials = specials};
    for (; options.n_specials < (int)json_array_size(names); options.n_specials++)
        specials[options.n_specials] = json_string_value(json_array_get(names, (size_t)options.n_specials));
    CHECK_OK(tokenizer_train(&trained, &options, next_line, &lines, NULL, NULL, &err));
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/train/train_%s.tokenizer.json", shared, name);
    CHECK_OK(tokenizer_load(&wanted, path, &err));
    check_same(trained, wanted, name);
    check_encodings(trained, wanted, lines, json_integer_value(json_object_get(v.head, "tokens_of_slice")), name);
    tokenizer_destroy(&trained);
    tokenizer_destroy(&wanted);
    json_decref(v.head);
    free(bytes);
}

TEST(text_train, english) { check_training("en_bytebpe_4k"); }
TEST(text_train, russian) { check_training("ru_bytebpe_4k"); }

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
