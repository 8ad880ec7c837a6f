/* Broken tokenizer files: each is refused in words that name what is wrong. */
#include <strings.h>

#include "text/tokenizer.h"
#include "vectors.h"

/* Whether the message holds one of "a|b" for every part of "a|b;c", in any case. */
static bool words_are_in(const char *words, const char *message) {
    char copy[400];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *rest = copy, *part; (part = strsep(&rest, ";"));) {
        bool found = !*part;
        for (char *word; (word = strsep(&part, "|"));) found = found || strcasestr(message, word);
        if (!found) return false;
    }
    return true;
}

/* A slow pattern must come to an end. */
static void check_bounded(const struct tokenizer *t, const char *name) {
    if (strcmp(name, "ok_regex_slow.json")) return;
    struct cb_err err = {0};
    struct token_list list = {0};
    char text[42];
    memset(text, 'a', 40);
    text[40] = 'b', text[41] = 0;
    enum cb_status status = tokenizer_encode(t, &list, text, 41, 0, &err);
    CHECK(status == CB_OK || status == CB_E_LIMIT, "slow pattern: %s", err.message);
    token_list_deinit(&list);
}

TEST(text_malformed, expected) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[1000], *rest, *line;
    size_t n;
    int n_rows = 0;
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/EXPECTED.tsv", shared);
    char *table = rest = vector_bytes(path, &n);
    CHECK(table, "no %s", path);
    while ((line = strsep(&rest, "\n"))) {
        char *format = strsep(&line, "\t"), *name = strsep(&line, "\t"), *expect = strsep(&line, "\t"), *words = strsep(&line, "\t");
        if (!words || strcmp(format, "tokenizer_json")) continue;
        struct cb_err err = {0};
        struct tokenizer *t = NULL;
        snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/tokenizer_json/%s", shared, name);
        char *bytes = vector_bytes(path, &n);
        CHECK(bytes, "no %s", path);
        enum cb_status status = tokenizer_load_bytes(&t, bytes, n, "tokenizer", &err);
        n_rows++;
        if (!strcmp(expect, "accept")) {
            CHECK(!status, "%s: %s", name, err.message);
            check_bounded(t, name);
        } else {
            CHECK(status || !strcmp(expect, "either"), "%s is accepted", name);
            CHECK(!status || words_are_in(words, err.message), "%s: '%s' lacks '%s'", name, err.message, words);
            CHECK(!status || !strchr(err.message, '\n'), "%s: more than a line", name);
        }
        free(bytes);
        tokenizer_destroy(&t);
    }
    free(table);
    CHECK(n_rows >= 55, "%d rows", n_rows);
}

/* Every prefix of a good file is refused, and every byte of it may be another without harm. */
TEST(text_malformed, cut_and_changed) {
    static const char good[] =
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":4,\"content\":\"<x>\",\"special\":true}],\"normalizer\":{\"type\":\"NFC\"},"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"}"
        ","
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"abab\":3},\"merges\":[[\"a\",\"b\"],\"ab ab\"]}}";
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    struct token_list list = {0};
    CHECK_OK(tokenizer_load_bytes(&t, good, sizeof good - 1, "good", &err));
    CHECK_OK(tokenizer_encode(t, &list, "ababab<x>c", 10, ENCODE_OFFSETS, &err));
    CHECK(list.n == 3 && list.token[0].id == 3 && list.token[1].id == 2 && list.token[2].id == 4 && list.token[2].begin == 6, "%zu tokens",
          list.n);
    tokenizer_destroy(&t);
    for (size_t n = 0; n < sizeof good - 1; n++) {
        memset(&err, 0, sizeof err);
        CHECK(tokenizer_load_bytes(&t, good, n, "cut", &err) == CB_E_FORMAT && err.message[0], "a prefix of %zu bytes is accepted", n);
    }
    for (size_t i = 0; i < sizeof good - 1; i++) {
        char bytes[sizeof good];
        memcpy(bytes, good, sizeof good);
        for (const char *c = "x0\"[{}-\xff"; *c; c++) {
            bytes[i] = *c;
            memset(&err, 0, sizeof err);
            if (!tokenizer_load_bytes(&t, bytes, sizeof good - 1, "changed", &err) &&
                tokenizer_encode(t, &list, "ab \xc3\xa9", 5, 15, &err))
                CHECK(err.message[0], "no message");
            tokenizer_destroy(&t);
        }
    }
    token_list_deinit(&list);
}
