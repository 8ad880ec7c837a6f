/* Records of JSON Lines: every malformed fixture is refused with its words, every odd but right one is read. */
#include "data/records.h"

#include <zlib.h>

#include "../harness.h"
#include "files.h"

static struct cb_err err;

// One of the alternatives "a|b" of a word is in the text, case aside.
static bool word_in(const char *text, const char *word, size_t n) {
    char part[100];
    for (size_t at = 0; at < n;) {
        size_t m = strcspn(word + at, "|");
        if (m > n - at) m = n - at;
        snprintf(part, sizeof part, "%.*s", (int)m, word + at);
        if (strcasestr(text, part)) return true;
        at += m + 1;
    }
    return n == 0;
}

TEST(data_jsonl, malformed_fixtures) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[900], row[1000];
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/EXPECTED.tsv", shared);
    FILE *f = fopen(path, "r");
    CHECK(f, "%s is absent", path);
    int n = 0;
    while (fgets(row, sizeof row, f)) {
        char *column[5], *at = row;
        for (int i = 0; i < 5; i++) column[i] = at ? strsep(&at, "\t\n") : row + strlen(row);
        if (strcmp(column[0], "jsonl")) continue;
        n++;
        struct records_summary summary;
        memset(&err, 0, sizeof err);
        snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/jsonl/%s", shared, column[1]);
        enum cb_status status = records_check(path, &summary, NULL, NULL, &err);
        if (!strcmp(column[2], "accept")) {
            CHECK(status == CB_OK, "%s: %s", column[1], err.message);
            CHECK(strstr(summary.text, column[3]), "%s: '%s' lacks '%s'", column[1], summary.text, column[3]);
            continue;
        }
        CHECK(status == CB_E_FORMAT, "%s: status %d", column[1], (int)status);
        CHECK(!strncmp(err.message, path, strlen(path)), "%s", err.message);
        const char *message = err.message + strlen(path);
        for (char *word = column[3]; *word;) {
            size_t length = strcspn(word, ";");
            CHECK(word_in(message, word, length), "%s: '%s' lacks '%.*s'", column[1], message, (int)length, word);
            word += length + (word[length] == ';');
        }
    }
    fclose(f);
    CHECK(n >= 30, "%d fixtures", n);
}

TEST(data_jsonl, shapes) {
    static const struct {
        const char *line, *said;
    } good[] = {
        {"{\"prompt\":\"a\",\"completion\":\"bc\",\"more\":[1]}", "1 record of prompt and completion, 3 characters"},
        {"{\"instruction\":\"a\",\"input\":\"\",\"output\":\"b\"}", "1 record of instruction and output"},
        {"{\"instruction\":\"a\",\"response\":\"b\"}", "1 record of instruction and output"},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}", "1 record of conversations"},
        {"{\"ids\":[1,2],\"labels\":[-100,2]}", "1 record of input_ids"},
        {"{\"text\":\"\xd0\xb6\",\"label\":\"x\"}", "1 record of text and label, 1 characters"},
        {"{\"a\":NaN,\"b\":[-Infinity,{\"c\":12345678901234567890}],\"text\":\"\\\"NaN\",\"d\":-1e999}", "1 record of text, 4 characters"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
         "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]}]}",
         "1 record of messages"},
    };
    static const struct {
        const char *line, *word;
    } bad[] = {
        {"{\"completion\":\"b\"}", "line 1: prompt: found nothing"},
        {"{\"instruction\":\"a\"}", "output: found nothing"},
        {"{\"instruction\":\"a\",\"output\":\"b\",\"input\":3}", "input: found 3"},
        {"{\"conversations\":[{\"from\":\"dog\",\"value\":\"a\"}]}", "from: found \"dog\""},
        {"{\"ids\":[1],\"labels\":[-101]}", "labels[0]: found -101"},
        {"{\"ids\":[4294967296]}", "4294967296"},
        {"{\"text\":\"a\",\"label\":[1]}", "label: found a list of 1"},
        {"{}", "found no keys"},
        {"{\"text\":NaN}", "line 1: JSON column"},
        {"{\"a\":NaN,\"text\":\"a\",\"label\":12345678901234567890}", "line 1: JSON column"},
        {"{\"text\":\"a\",\"label\":12345678901234567890}", "label: found null; wanted an integer, a float or a string (null is in"},
        {"{\"text\":\"a\",\"label\":12345678901234567890}", "label: too big integer"},
        {"{\"text\":1,\"a\":NaN}", "text: found 1; wanted a string (null is in"},
        {"{\"a\":NaN,\"text\":\"a\"", "line 1: JSON column"},
        {"{\"a\":NaNa,\"text\":\"a\"}", "line 1: JSON column"},
        {"\n[\n  {\n    \"text\": \"a\"\n  }\n]\n", "line 2: found a line that ends within a value; wanted one JSON object a line"},
        {"{\"text\": \"a\",\r\n\"label\": 1}\n", "line 1: found a line that ends within a value"},
    };
    struct records_summary summary;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char *path = file_make("a.jsonl", good[i].line, strlen(good[i].line));
        CHECK_OK(records_check(path, &summary, NULL, NULL, &err));
        CHECK(!strcmp(summary.text, good[i].said), "%s", summary.text);
        free(path);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *path = file_make("a.jsonl", bad[i].line, strlen(bad[i].line));
        CHECK_FAILS(records_check(path, &summary, NULL, NULL, &err), CB_E_FORMAT, bad[i].word);
        free(path);
    }
    // a table of names alone is not an empty file
    static const char *const none[][2] = {{"", "the file is empty"}, {"text,label\n", "no row after the names of the columns"}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char *path = file_make("a.csv", none[i][0], strlen(none[i][0]));
        CHECK_FAILS(records_check(path, &summary, NULL, NULL, &err), CB_E_FORMAT, none[i][1]);
        free(path);
    }
}

static enum cb_status count_row(void *user, const json_t *row, struct cb_err *ignored) {
    (void)ignored;
    CHECK(json_object_get(row, "text"));
    ++*(int *)user;
    return CB_OK;
}

TEST(data_jsonl, rows_after_a_refused_record) {
    static const char lines[] = "{\"text\":\"a\"}\n{\"text\":1}\n{\"text\":\"b\"}\n";
    char *path = file_make("a.jsonl", lines, sizeof lines - 1);
    struct records_summary s;
    int rows = 0;
    CHECK_FAILS(records_check(path, &s, count_row, &rows, &err), CB_E_FORMAT, "line 2: text: found 1");
    CHECK(rows == 3 && s.rows == 3 && s.records == 1 && s.is_read);
    CHECK_FAILS(records_check(path, &s, NULL, NULL, &err), CB_E_FORMAT, "line 2: text: found 1");
    CHECK(s.rows == 2 && !s.is_read);
    free(path);
}

TEST(data_jsonl, broken_utf8_replaced_or_left_out) {
    static const char line[] = "{\"text\":\"a\xff\xe2\x82z\"}\n";
    char *path = file_make("a.jsonl", line, sizeof line - 1);
    static const char *const want[] = {"a\xef\xbf\xbd\xef\xbf\xbdz", "az"};
    for (int i = 0; i < 2; i++) {
        struct records *j;
        struct records_options o = {.invalid = i ? DATA_INVALID_SKIP : DATA_INVALID_REPLACE};
        const struct record *r;
        CHECK_OK(records_open(&j, path, NULL, &o, &err));
        CHECK_OK(records_next(j, &r, &err));
        CHECK(r && !strcmp(r->text, want[i]), "%s", r ? r->text : "end");
        CHECK(records_reader(j)->broken == 3 && records_reader(j)->broken_line == 1);
        CHECK_OK(records_next(j, &r, &err));
        CHECK(!r);
        records_close(&j);
        CHECK(!j);
    }
    free(path);
}

TEST(data_jsonl, names_of_choices) {
    enum data_invalid invalid;
    CHECK(data_invalid_by_name(&invalid, NULL, &err) == CB_OK && invalid == DATA_INVALID_FAIL);
    CHECK(data_invalid_by_name(&invalid, "replace", &err) == CB_OK && invalid == DATA_INVALID_REPLACE);
    CHECK(data_invalid_by_name(&invalid, "skip", &err) == CB_OK && invalid == DATA_INVALID_SKIP);
    CHECK_FAILS(data_invalid_by_name(&invalid, "drop", &err), CB_E_USAGE, "--invalid drop: wanted fail, replace or skip");
}

// Texts of all records of a file, each after a bar; or the failure.
static enum cb_status texts_in(char *out, size_t size, const char *name, const char *json) {
    char *path = file_make(name, json, strlen(json));
    const struct record *r = NULL;
    struct records *records;
    size_t used = 0;
    *out = 0;
    memset(&err, 0, sizeof err);
    enum cb_status status = records_open(&records, path, NULL, NULL, &err);
    if (status == CB_OK) {
        while ((status = records_next(records, &r, &err)) == CB_OK && r)
            used += (size_t)snprintf(out + used, size - used, "|%lld%s", (long long)r->line, r->text);
        records_close(&records);
    }
    free(path);
    return status;
}

TEST(data_json, lists_and_objects) {
    static const struct {
        const char *json, *want;
    } good[] = {
        {"[{\"text\":\"a]}\\\"\"},\n {\"text\":\"b\",\"more\":[{}]}]\n", "|1a]}\"|2b"},
        {"\xef\xbb\xbf \n[\n  {\n \"text\": \"a\"\n  }\n]", "|1a"},
        {"{\"text\":\"a\"}\n\n{\"text\":\"b\"}", "|1a|3b"},
        {"{\n\"text\":\"a\"\n}\n", "|1a"},
        {"{\"version\":1,\"data\":[{\"text\":\"a\"},{\"text\":\"b\"}]}", "|1a|2b"},
        {"{\"train\":[{\"text\":\"a\"}]}", "|1a"},
    };
    static const struct {
        const char *json, *word;
    } bad[] = {
        {"[1, 2]", "line 1: found '1'; wanted { of a record"},
        {"\"text\"", "line 1: found '\"'; wanted a list of objects or an object a line (--format text"},
        {"plain words", "--format text reads it as plain text"},
        {"[{\"text\":\"a\"} {\"text\":\"b\"}]", "found '{'; wanted , or ]"},
        {"[{\"text\":\"a\"},]", "found ']'; wanted {"},
        {"[{\"text\":\"a\"}", "found the end of the file; wanted , or ]"},
        {"[{\"text\":\"a\"}]\n[", "line 2: found '['; wanted nothing after the list"},
        {"[{\"text\":\"a\"},\n{\"text\":", "line 2: found a record that is never closed"},
        {"[{\"text\":\"a\"},{\"text\":x}]", "record 2: JSON column"},
        {"[{\"text\":\"a\"},{\"prompt\":\"x\",\"completion\":\"\"}]", "record 2: found a record of prompt and completion"},
        {"{\"data\":[{\"text\":\"a\"},7]}", "record 2: found 7; wanted an object"},
        {"\xff\xfe[", "UTF-16"},
    };
    char out[400];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK_OK(texts_in(out, sizeof out, "a.json", good[i].json));
        CHECK(!strcmp(out, good[i].want), "%zu: %s", i, out);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_FAILS(texts_in(out, sizeof out, "a.json", bad[i].json), CB_E_FORMAT, bad[i].word);
    // nothing is held but one record: pieces end anywhere in a file of many
    char *many = malloc(3000000);
    size_t n = 1;
    CHECK(many);
    many[0] = '[';
    for (int i = 0; i < 60000; i++) n += (size_t)sprintf(many + n, "%s{\"text\": \"%d \\\\\"}", i ? ", " : "", i);
    memcpy(many + n, "]", 2);
    char *path = folder_make(), *packed = file_put_packed(path, "a.json.zst", many, n + 1);
    struct records_summary summary;
    memset(&err, 0, sizeof err);
    CHECK_OK(records_check(packed, &summary, NULL, NULL, &err));
    CHECK(summary.records == 60000, "%s", summary.text);
    free(packed);
    free(path);
    free(many);
}

TEST(data_json, conversations_without_an_assistant_are_passed_over) {
    static const char asked[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}\n",
                      said[] = "{\"messages\":[{\"role\":\"assistant\",\"content\":\"b\"}]}\n",
                      human[] = "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"}]}\n";
    char text[1000];
    struct records *records;
    const struct record *r;
    snprintf(text, sizeof text, "%s%s%s", asked, said, asked);
    char *path = file_make("a.jsonl", text, strlen(text));
    memset(&err, 0, sizeof err);
    CHECK_OK(records_open(&records, path, NULL, NULL, &err));
    CHECK_OK(records_next(records, &r, &err));
    CHECK(r && r->line == 2);
    CHECK_OK(records_next(records, &r, &err));
    CHECK(!r && records_unanswered(records) == 2);
    records_close(&records);
    free(path);
    struct records_summary summary;
    path = file_make("a.jsonl", human, strlen(human));
    CHECK_FAILS(records_check(path, &summary, NULL, NULL, &err), CB_E_FORMAT, "line 1: conversations: found none of an assistant");
    free(path);
}

TEST(data_json, turns_under_either_key) {
    static const char *const lines[] = {
        "{\"conversations\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}",
        "{\"messages\":[{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *path = file_make("a.jsonl", lines[i], strlen(lines[i])), *text;
        struct records *records;
        const struct record *r;
        json_t *messages, *tools;
        memset(&err, 0, sizeof err);
        CHECK_OK(records_open(&records, path, NULL, NULL, &err));
        CHECK_OK(records_next(records, &r, &err));
        CHECK_OK(record_messages(&messages, &tools, r, "a", &err));
        text = json_dumps(messages, JSON_COMPACT);
        CHECK(!strcmp(text, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]"), "%s", text);
        free(text);
        json_decref(messages);
        records_close(&records);
        free(path);
    }
}
