/* The scanner of a tokenizer.json's great lists gives what the general parser gives, and leaves to it what it does not know. */
#include "text/json_scan.h"
#include "text/tokenizer.h"
#include "vectors.h"

/* Whether the scanner takes the file; then the vocabulary must be as in the parsed JSON. */
static bool scan_same(const char *text) {
    struct json_scan scan;
    struct cb_err err = {0};
    struct arena *arena = arena_create();
    bool found;
    CHECK_OK(json_scan(&scan, &found, arena, text, strlen(text), &err));
    json_t *whole = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *rest = found ? json_loadb(scan.rest, scan.n_rest, 0, NULL) : NULL;
    if (found) {
        const json_t *model = json_object_get(whole, "model"), *vocab = json_object_get(model, "vocab"),
                     *merges = json_object_get(model, "merges");
        CHECK(rest && json_object_size(rest) == json_object_size(whole), "the rest is no JSON: %.*s", (int)scan.n_rest, scan.rest);
        CHECK(scan.n_tokens == (scan.is_pairs ? json_array_size(vocab) : json_object_size(vocab)), "%zu tokens", scan.n_tokens);
        for (size_t i = 0; i < scan.n_tokens; i++) {
            const struct scanned_token *t = &scan.token[i];
            const json_t *pair = json_array_get(vocab, i),
                         *value = scan.is_pairs ? json_array_get(pair, 1) : json_object_get(vocab, t->text);
            CHECK(scan.is_pairs ? json_number_value(value) == t->score : json_integer_value(value) == t->id, "token %zu: '%s'", i, t->text);
            CHECK(value && strlen(t->text) == t->n, "token %zu: '%s'", i, t->text);
            if (scan.is_pairs) CHECK(!strcmp(json_string_value(json_array_get(pair, 0)), t->text), "token %zu: '%s'", i, t->text);
        }
        for (size_t i = 0; i < scan.n_merges; i++) {
            const json_t *m = json_array_get(merges, i);
            char joined[100];
            snprintf(joined, sizeof joined, "%.*s %.*s", (int)scan.merge[i].n_left, scan.merge[i].left, (int)scan.merge[i].n_right,
                     scan.merge[i].right);
            if (json_is_string(m)) CHECK(!strcmp(json_string_value(m), joined), "merge %zu: '%s'", i, joined);
            if (json_is_array(m))
                CHECK(!strncmp(json_string_value(json_array_get(m, 0)), joined, scan.merge[i].n_left), "merge %zu: '%s'", i, joined);
        }
        CHECK(scan.n_merges == json_array_size(merges), "%zu merges", scan.n_merges);
    }
    json_decref(whole);
    json_decref(rest);
    json_scan_deinit(&scan);
    arena_destroy(&arena);
    return found;
}

TEST(text_json_scan, usual_forms) {
    static const char *const good[] = {
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}",
        (" { \"x\" : [1, {\"model\": \"}]\"}] , \"model\" : { \"type\":\"BPE\", \"merges\" : [ [ \"a\" , \"b\" ] ] ,\n \"z\": -1.5e3,"
         "\"vocab\" : { \"a\" : 0 ,\t\"b\":1, \"ab\":2 } , \"y\": null }, \"w\": true } "),
        "{\"model\":{\"vocab\":{\"\\u0120\\\"\\\\\\/\\b\\f\\n\\r\\t\":0,\"\\ud83d\\ude00\xc4\xa0\":1}}}",
        "{\"model\":{\"vocab\":[[\"a\",-1.5],[\"b\",0],[\"c\",-2e-3]],\"unk_id\":0}}",
        "{\"model\":{\"vocab\":{},\"merges\":[]}}",
        "{\"a\\\"model\":{\"vocab\":1},\"model\":{\"vocab\":{\"a\":7}}}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) CHECK(scan_same(good[i]), "form %zu is not taken", i);
}

TEST(text_json_scan, left_to_the_parser) {
    static const char *const other[] = {
        "",
        "[]",
        "{\"model\":3}",
        "{\"model\":{\"vocab\":{\"a\":1.0}}}",
        "{\"model\":{\"vocab\":{\"a\":-1}}}",
        "{\"model\":{\"vocab\":{\"a\":01}}}",
        "{\"model\":{\"vocab\":{\"a\":12345678901}}}",
        "{\"model\":{\"vocab\":{\"\\u0000\":1}}}",
        "{\"model\":{\"vocab\":{\"\\ud800\":1}}}",
        "{\"model\":{\"vocab\":{\"\\ude00\":1}}}",
        "{\"model\":{\"vocab\":{\"a\nb\":1}}}",
        "{\"model\":{\"vocab\":{\"a\":1,}}}",
        "{\"model\":{\"vocab\":{\"a\":1",
        "{\"model\":{\"vocab\":{\"a",
        "{\"model\":{\"vocab\":{\"a\\",
        "{\"model\":{\"vocab\":[[\"a\",1e999]]}}",
        "{\"model\":{\"vocab\":[[\"a\",.5]]}}",
        "{\"model\":{\"vocab\":[[\"a\",1.]]}}",
        "{\"model\":{\"vocab\":[[\"a\",NaN]]}}",
        "{\"model\":{\"vocab\":{\"a\":1},\"merges\":[\"a b c\"]}}",
        "{\"model\":{\"vocab\":{\"a\":1},\"merges\":[\"ab\"]}}",
        "{\"model\":{\"vocab\":{\"a\":1},\"merges\":[[\"a\",\"b\",\"c\"]]}}",
        "{\"model\":{\"vocab\":{\"a\":1},\"merges\":[3]}}",
    };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) CHECK(!scan_same(other[i]), "form %zu is taken: %s", i, other[i]);
}

/* What only the whole file shows is still an error: keys and tokens that are there twice, a vocabulary of the other kind, text after the end. */
TEST(text_json_scan, still_refused) {
    static const struct {
        const char *text, *word;
    } bad[] = {
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "twice"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"vocab\":{\"b\":0},\"merges\":[]}}", "vocab"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"model\":{}}", "model"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[[\"a\",0]],\"merges\":[]}}", "object"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}", "list"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}} x", "x"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "\"b\""},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", "99999999"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct tokenizer *t = NULL;
        struct cb_err err = {0};
        CHECK(tokenizer_load_bytes(&t, bad[i].text, strlen(bad[i].text), "file", &err) == CB_E_FORMAT, "%s is taken", bad[i].text);
        CHECK(strstr(err.message, bad[i].word), "'%s' lacks '%s'", err.message, bad[i].word);
    }
}
