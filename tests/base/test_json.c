/* JSON: what is refused and in which words, the getters, and the writer. */
#include "base/json.h"

#include <math.h>

#include "../harness.h"

static struct cb_err err;
static enum cb_status parse(const char *text) {
    json_t *value;
    enum cb_status status = json_parse(&value, text, strlen(text), "t", &err);
    json_decref(value);
    return status;
}

TEST(json, refuses) {
    CHECK_FAILS(parse("{\"a\":1,\"a\":2}"), CB_E_FORMAT, "duplicate key 'a'");
    CHECK_FAILS(parse("{\"q\\\"r\":1,\n\"q\\\"r\":2}"), CB_E_FORMAT, "duplicate key 'q\\\"r'");
    CHECK_FAILS(parse("[NaN]"), CB_E_FORMAT, "JSON");
    CHECK_FAILS(parse("[1e999]"), CB_E_FORMAT, "JSON");
    CHECK_FAILS(parse("[18446744073709551616]"), CB_E_FORMAT, "JSON");
    CHECK_FAILS(parse("{} x"), CB_E_FORMAT, "JSON");
    CHECK_FAILS(parse(""), CB_E_FORMAT, "JSON");
    CHECK_FAILS(parse("[\"\xff\"]"), CB_E_FORMAT, "UTF-8");
    CHECK_FAILS(parse("[\"\\ud800\"]"), CB_E_FORMAT, "surrogate");
    CHECK_OK(parse("[\"a\\u0000b\"]"));
    CHECK_OK(parse("\"plain\""));
    json_t *value;
    CHECK_FAILS(json_parse_object(&value, "[1,2]", 5, "t", &err), CB_E_FORMAT, "wanted a JSON object");
}

TEST(json, long_duplicate_key_and_depth) {
    static char text[70000];
    char key[301];
    memset(key, 'k', 300);
    key[300] = 0;
    snprintf(text, sizeof text, "{\"%s\":1,\"%s\":2}", key, key);
    CHECK_FAILS(parse(text), CB_E_FORMAT, key);
    memset(text, '[', 60000);
    text[60000] = 0;
    CHECK_FAILS(parse(text), CB_E_FORMAT, "depth");
}

TEST(json, getters) {
    const char *text = "{\"i\":7,\"f\":2.5,\"e\":8e0,\"b\":true,\"s\":\"x\",\"n\":null,\"l\":[1,2],\"z\":\"a\\u0000\",\"neg\":-1}";
    json_t *o;
    CHECK_OK(json_parse_object(&o, text, strlen(text), "c.json", &err));
    int64_t i = 3, list[4];
    int n;
    double f = 0;
    bool b = false;
    const char *s = "d";
    CHECK_OK(json_get_int(&i, o, "c.json", "i", 0, 9, true, &err));
    CHECK(i == 7);
    i = 3;
    CHECK_OK(json_get_int(&i, o, "c.json", "n", 0, 9, false, &err));
    CHECK_OK(json_get_int(&i, o, "c.json", "absent", 0, 9, false, &err));
    CHECK(i == 3);
    CHECK_FAILS(json_get_int(&i, o, "c.json", "f", 0, 9, true, &err), CB_E_FORMAT, "c.json: f: found 2.5; wanted an integer in [0, 9]");
    CHECK_FAILS(json_get_int(&i, o, "c.json", "e", 0, INT64_MAX, true, &err), CB_E_FORMAT, "e: found 8.0; wanted an integer of at least 0");
    CHECK_FAILS(json_get_int(&i, o, "c.json", "neg", 0, 9, true, &err), CB_E_FORMAT, "neg: found -1");
    CHECK_FAILS(json_get_int(&i, o, "c.json", "n", 0, 9, true, &err), CB_E_FORMAT, "n: found null");
    CHECK_FAILS(json_get_int(&i, o, "c.json", "absent", 0, 9, true, &err), CB_E_FORMAT, "absent: found nothing");
    CHECK_OK(json_get_float(&f, o, "c.json", "i", 0, INFINITY, true, &err));
    CHECK(f == 7);
    CHECK_FAILS(json_get_float(&f, o, "c.json", "f", 0, 1, true, &err), CB_E_FORMAT, "f: found 2.5; wanted a number in [0, 1]");
    CHECK_FAILS(json_get_float(&f, o, "c.json", "s", 0, 1, true, &err), CB_E_FORMAT, "s: found \"x\"");
    CHECK_OK(json_get_bool(&b, o, "c.json", "b", true, &err));
    CHECK(b);
    CHECK_FAILS(json_get_bool(&b, o, "c.json", "i", true, &err), CB_E_FORMAT, "i: found 7; wanted true or false");
    CHECK_OK(json_get_str(&s, o, "c.json", "s", true, &err));
    CHECK(!strcmp(s, "x"));
    CHECK_FAILS(json_get_str(&s, o, "c.json", "z", true, &err), CB_E_FORMAT, "without NUL");
    CHECK_OK(json_get_ints(list, &n, 4, o, "c.json", "l", 0, 9, true, &err));
    CHECK(n == 2 && list[1] == 2);
    CHECK_OK(json_get_ints(list, &n, 4, o, "c.json", "i", 0, 9, true, &err));
    CHECK(n == 1 && list[0] == 7);
    CHECK_FAILS(json_get_ints(list, &n, 1, o, "c.json", "l", 0, 9, true, &err), CB_E_FORMAT, "at most 1");
    json_decref(o);
}

TEST(json, dump_round_trip) {
    const char *text = "{\"z\":0.1,\"a\":[1,2.0,1e-5,null,true],\"s\":\"a\\\"\\\\\\n\\u0000\\u0001\xc3\xa9\",\"e\":{},\"l\":[]}";
    json_t *o, *again;
    char *out;
    CHECK_OK(json_parse(&o, text, strlen(text), "t", &err));
    CHECK_OK(json_dump(&out, o, 0, &err));
    CHECK(!strcmp(out, "{\"z\":0.1,\"a\":[1,2.0,1e-05,null,true],\"s\":\"a\\\"\\\\\\n\\u0000\\u0001\xc3\xa9\",\"e\":{},\"l\":[]}"), "%s",
          out);
    free(out);
    CHECK_OK(json_dump(&out, o, 2, &err));
    CHECK(strstr(out, "{\n  \"z\": 0.1,\n  \"a\": [\n    1,\n"), "%s", out);
    CHECK_OK(json_parse(&again, out, strlen(out), "t", &err));
    CHECK(json_equal(o, again));
    free(out);
    json_decref(again);
    json_decref(o);
}

// Texts of every length around the room that messages have.
TEST(json, texts_are_cut) {
    char text[JSON_TEXT + 8], long_text[300];
    memset(long_text, 'x', sizeof long_text);
    for (size_t n = 0; n < 290; n++) {
        memset(text, '#', sizeof text);
        json_t *value = json_stringn(long_text, n);
        json_text(value, text);
        CHECK(strlen(text) < JSON_TEXT && text[JSON_TEXT] == '#' && !!strstr(text, "...") == (strlen(text) != n + 2), "%d: %s", (int)n,
              text);
        json_decref(value);
        char key[700];
        int length = snprintf(key, sizeof key, "{\"%.*s\":99999999999999999999}", (int)n, long_text);
        CHECK_FAILS(json_parse(&value, key, (size_t)length, "t", &err), CB_E_FORMAT, "wanted a number of 64 bits");
    }
}

TEST(json, configurations_hold_huge_integers) {
    const char *text = "{\"a\": 1000000000000000019884624838656, \"b\": [-98765432109876543210, 7], \"c\": \"1\"}";
    json_t *value;
    CHECK_FAILS(json_parse(&value, text, strlen(text), "t", &err), CB_E_FORMAT, "64 bits");
    CHECK_OK(json_parse_config(&value, text, strlen(text), "t", &err));
    CHECK(fabs(json_real_value(json_object_get(value, "a")) / 1e30 - 1) < 1e-12);
    CHECK(fabs(json_real_value(json_array_get(json_object_get(value, "b"), 0)) / -9.87654321098765e19 - 1) < 1e-12);
    CHECK(json_integer_value(json_array_get(json_object_get(value, "b"), 1)) == 7);
    json_decref(value);
    const char *broken = "{\"a\": 100000000000000000000,}";
    CHECK_FAILS(json_parse_config(&value, broken, strlen(broken), "t", &err), CB_E_FORMAT, "t: JSON line 1");
    const char *list = "[1]";
    CHECK_FAILS(json_parse_config(&value, list, strlen(list), "t", &err), CB_E_FORMAT, "wanted a JSON object");
}
