/* Jinja and chat templates against the outside vectors, and the bounds of the interpreter. */
#include "text/chat.h"

#include <dirent.h>

#include "harness.h"
#include "text/utf8.h"
#include "text/vectors.h"

// 2024-07-26T12:34:56 to a broken-down time.
static struct tm clock_of(const char *text) {
    struct tm t = {0};
    sscanf(text, "%d-%d-%dT%d:%d:%d", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min, &t.tm_sec);
    t.tm_year -= 1900, t.tm_mon--;
    timegm(&t);  // fills the day of the week and of the year
    return t;
}

// "UndefinedError: ..." : what the template raised and undefined names must be named; of other errors the kind counts.
static bool same_error(const struct cb_err *err, const char *want) {
    size_t kind = strcspn(want, ":");
    bool exact = !strncmp(want, "TemplateError", kind) || !strncmp(want, "UndefinedError", kind);
    char text[900];
    snprintf(text, sizeof text, "%.*s", exact ? (int)strlen(want) : (int)kind, want);
    return err->code == CB_E_FORMAT && strstr(err->message, text);
}

struct score {
    int cases, wrong;
};

static void compare(struct score *score, const char *what, enum cb_status status, const struct jinja_output *out, const struct cb_err *err,
                    const json_t *row) {
    const json_t *want = json_object_get(row, "expected");
    const char *error = json_string_value(json_object_get(row, "error"));
    bool good = error ? status != CB_OK && same_error(err, error)
                      : status == CB_OK && json_string_length(want) == out->n && !memcmp(json_string_value(want), out->text, out->n);
    const json_t *spans = json_object_get(row, "generation");
    if (good && spans) {
        good = json_array_size(spans) == out->n_spans;
        for (size_t i = 0; good && i < out->n_spans; i++) {
            const json_t *span = json_array_get(spans, i);
            good = (size_t)json_integer_value(json_array_get(span, 0)) == utf8_count(out->text, out->span[i].begin) &&
                   (size_t)json_integer_value(json_array_get(span, 1)) == utf8_count(out->text, out->span[i].end);
        }
    }
    score->cases++;
    score->wrong += !good;
    if (!good)
        printf("%s: found %s; wanted %s\n", what, status == CB_OK ? out->text : err->message, error ? error : json_string_value(want));
}

TEST(chat, features) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600];
    struct score score = {0};
    size_t n;
    snprintf(path, sizeof path, "%s/fixtures/chat/features.jsonl", shared);
    char *bytes = vector_bytes(path, &n), *save = NULL;
    CHECK(bytes);
    json_t *head = NULL;
    struct tm now = {0};
    for (char *line = strtok_r(bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *row = json_loads(line, 0, NULL);
        const json_t *source = json_object_get(row, "template");
        if (!source) {
            head = row;
            now = clock_of(json_string_value(json_object_get(row, "now")));
            continue;
        }
        struct jinja *jinja = NULL;
        struct jinja_output out = {0};
        struct cb_err err = {0};
        enum cb_status status = jinja_parse(&jinja, json_string_value(source), json_string_length(source), "feature", &err);
        if (status == CB_OK)
            status = jinja_render(&out, jinja, json_object_get(head, "context"), &(struct jinja_options){.now = &now}, &err);
        compare(&score, json_string_value(source), status, &out, &err, row);
        jinja_output_deinit(&out);
        jinja_destroy(&jinja);
        json_decref(row);
    }
    json_decref(head);
    free(bytes);
    printf("%d features, %d wrong\n", score.cases, score.wrong);
    CHECK(score.cases >= 239);
    CHECK(score.wrong == 0);
}

// One line of a case file.
static void run_case(struct score *score, const struct chat *chat, json_t *row) {
    static const char *const own[] = {
        "template", "now",   "case",      "messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
        "expected", "error", "generation"};
    struct tm now = clock_of(json_string_value(json_object_get(row, "now")));
    json_t *variables = json_copy(row);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) json_object_del(variables, own[i]);
    struct chat_request q = {.messages = json_object_get(row, "messages"), .variables = variables, .now = &now};
    q.tools = json_object_get(row, "tools");
    q.documents = json_object_get(row, "documents");
    q.add_generation_prompt = json_is_true(json_object_get(row, "add_generation_prompt"));
    q.continue_final_message = json_is_true(json_object_get(row, "continue_final_message"));
    struct jinja_output out = {0};
    struct cb_err err = {0};
    enum cb_status status = chat_render(&out, chat, &q, &err);
    compare(score, json_string_value(json_object_get(row, "case")), status, &out, &err, row);
    jinja_output_deinit(&out);
    json_decref(variables);
}

static struct chat *load_template(const char *shared, const char *name) {
    char path[600];
    size_t n;
    struct chat *chat = NULL;
    struct cb_err err = {0};
    snprintf(path, sizeof path, "%s/fixtures/chat/templates/%s", shared, name);
    char *source = vector_bytes(path, &n);
    CHECK(source);
    CHECK_OK(chat_create(&chat, source, n, name, NULL, &err));
    free(source);
    return chat;
}

TEST(chat, cases) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[900];
    struct score score = {0};
    snprintf(path, sizeof path, "%s/fixtures/chat/cases", shared);
    DIR *folder = opendir(path);
    CHECK(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        size_t n;
        char name[300], *save = NULL;
        snprintf(path, sizeof path, "%s/fixtures/chat/cases/%s", shared, entry->d_name);
        snprintf(name, sizeof name, "%.*s.jinja", (int)strcspn(entry->d_name, "."), entry->d_name);
        struct chat *chat = load_template(shared, name);
        char *bytes = vector_bytes(path, &n);
        CHECK(bytes);
        for (char *line = strtok_r(bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            json_t *row = json_loads(line, 0, NULL);
            CHECK(row);
            run_case(&score, chat, row);
            json_decref(row);
        }
        free(bytes);
        chat_destroy(&chat);
    }
    closedir(folder);
    printf("%d renderings, %d wrong\n", score.cases, score.wrong);
    CHECK(score.cases >= 496);
    CHECK(score.wrong == 0);
}

TEST(chat, masks) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600];
    struct tokenizer *tokenizer = NULL;
    struct cb_err err = {0};
    size_t n;
    int rows = 0;
    snprintf(path, sizeof path, "%s/data/tokenizers_gpt2", shared);
    CHECK_OK(tokenizer_load(&tokenizer, path, &err));
    struct chat *chat = load_template(shared, "chatml_generation.jinja");
    snprintf(path, sizeof path, "%s/fixtures/chat/masks.jsonl", shared);
    char *bytes = vector_bytes(path, &n), *save = NULL;
    CHECK(bytes);
    for (char *line = strtok_r(bytes, "\n", &save); line; line = strtok_r(NULL, "\n", &save), rows++) {
        json_t *row = json_loads(line, 0, NULL);
        struct jinja_output out = {0};
        struct token_list tokens = {0};
        struct chat_request q = {.messages = json_object_get(row, "messages"),
                                 .add_generation_prompt = json_is_true(json_object_get(row, "add_generation_prompt"))};
        CHECK_OK(chat_render(&out, chat, &q, &err));
        CHECK_OK(tokenizer_encode(tokenizer, &tokens, out.text, out.n, ENCODE_OFFSETS, &err));
        bool learnt[1000];
        CHECK(tokens.n < 1000);
        chat_mask(learnt, &tokens, out.span, out.n_spans);
        const json_t *ids = json_object_get(row, "ids"), *mask = json_object_get(row, "mask");
        CHECK(json_array_size(ids) == tokens.n);
        for (size_t i = 0; i < tokens.n; i++) {
            CHECK(json_integer_value(json_array_get(ids, i)) == tokens.token[i].id);
            CHECK((json_integer_value(json_array_get(mask, i)) != 0) == learnt[i]);
        }
        token_list_deinit(&tokens);
        jinja_output_deinit(&out);
        json_decref(row);
    }
    free(bytes);
    chat_destroy(&chat);
    tokenizer_destroy(&tokenizer);
    CHECK(rows >= 5);
}

// ---- without outside files

static enum cb_status render(struct jinja_output *out, const char *source, const char *variables, const struct jinja_options *o,
                             struct cb_err *err) {
    struct jinja *jinja = NULL;
    json_t *object = json_loads(variables, 0, NULL);
    CHECK(object);
    *err = (struct cb_err){0};
    enum cb_status status = jinja_parse(&jinja, source, strlen(source), "t", err);
    if (status == CB_OK) status = jinja_render(out, jinja, object, o, err);
    jinja_destroy(&jinja);
    json_decref(object);
    return status;
}

static void check_text(const char *source, const char *want) {
    struct jinja_output out = {0};
    struct cb_err err = {0};
    CHECK_OK(render(&out, source, "{}", NULL, &err));
    if (strcmp(out.text, want)) printf("%s: found %s; wanted %s\n", source, out.text, want);
    CHECK(!strcmp(out.text, want));
    jinja_output_deinit(&out);
}

static void check_fails(const char *source, enum cb_status code, const char *words) {
    struct jinja_output out = {0};
    struct cb_err err = {0};
    struct jinja_options o = {.max_work = 20000000, .max_bytes = 64 << 20, .max_output = 1 << 20};
    CHECK_FAILS(render(&out, source, "{}", &o, &err), code, words);
    jinja_output_deinit(&out);
}

TEST(chat, bounds) {
    // growing work, memory, output and depth end with an error, not with the machine
    check_fails("{% set l = range(99999) | list %}{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}", CB_E_LIMIT, "steps");
    check_fails("{% set s = 'x' * 1000000 %}{% for i in range(100) %}{% set t = s * 1000 %}{% endfor %}", CB_E_LIMIT, "bytes");
    check_fails("{{ ('x' * 2000000) }}", CB_E_LIMIT, "bytes of text");
    check_fails("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", CB_E_LIMIT, "RecursionError");
    check_fails("{% set ns = namespace(l=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", CB_E_LIMIT,
                "RecursionError");
    check_fails("{{ 10 ** 39 }}", CB_E_FORMAT, "OverflowError");
    check_fails("{{ '%9999999999d' % 1 ~ '{:>999999999}'.format(1) * 999999 }}", CB_E_LIMIT, "bytes");
    char deep[2001];
    memset(deep, '(', 1000);
    memcpy(deep, "{{", 2);
    deep[1000] = 0;
    check_fails(deep, CB_E_LIMIT, "nested");
}

TEST(chat, errors_name_their_line) {
    check_fails("a\n\n{{ x.y }}", CB_E_FORMAT, "t: line 3: UndefinedError: 'x' is undefined");
    check_fails("\n{% if %}", CB_E_FORMAT, "t: line 2: TemplateSyntaxError");
    check_fails("{% set a = 1 %}\n{{ 'a' + a }}", CB_E_FORMAT, "line 2: TypeError: can only concatenate str (not \"int\") to str");
    check_fails("\n\n\n{{ raise_exception('roles must alternate') }}", CB_E_FORMAT, "line 4: TemplateError: roles must alternate");
    check_fails("{{ x | nope }}", CB_E_FORMAT, "TemplateAssertionError");
    check_fails("{% for m in [1] %}{% if true %}{{ 1 | nope }}{% endif %}{% endfor %}", CB_E_FORMAT, "TemplateRuntimeError");
    check_fails("\xff", CB_E_FORMAT, "UTF-8");
}

TEST(chat, scopes_and_values) {
    check_text("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}", "13");
    check_text("{% macro f() %}{{ y }}{% endmacro %}{% set y = 5 %}{{ f() }}", "5");
    check_text("{% set it = [1, 2, 3] | select('odd') %}{{ it | list }}{{ it | list }}", "[1, 3][]");
    check_text("{% set d = {'items': 1} %}{{ d['items'] }}{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}", "1items1");
    check_text("{{ 'e\xcc\x81t\xc3\xa9' | length }}{{ 'a,b' | replace(',', ';') }}", "4a;b");
    check_text("{% set s = namespace(t='') %}{% for i in range(300) %}{% set s.t = s.t + 'ab' %}{% endfor %}{{ s.t | length }}", "600");
    check_text("{{ '<' ~ ('<' | e) }}{{ '<' + ('<' | e) }}", "<&lt;&lt;&lt;");
    check_text("{%- for m in 'ab' -%} {{ loop.index }}{{ m }} {%- endfor -%}", "1a2b");
}

TEST(chat, learns_the_assistants_part) {
    static const char chatml[] =
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    struct chat *chat = NULL;
    struct cb_err err = {0};
    struct jinja_output out = {0};
    json_t *messages = json_loads(
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"bc\"},"
        "{\"role\":\"user\",\"content\":\"d\"},{\"role\":\"assistant\",\"content\":\"e\"}]",
        0, NULL);
    struct chat_request q = {.messages = messages};
    CHECK_OK(chat_create(&chat, chatml, strlen(chatml), "chatml", NULL, &err));
    CHECK_OK(chat_render_marked(&out, chat, &q, &err));
    CHECK(out.n_spans == 2);
    CHECK(!strncmp(out.text + out.span[0].begin, "bc<|im_end|>\n<", 14) && out.span[0].end - out.span[0].begin == 13);
    CHECK(!strcmp(out.text + out.span[1].begin, "e<|im_end|>\n") && out.span[1].end == out.n);
    chat_destroy(&chat);
    // a template that says at the beginning how many messages there are rewrites its past
    static const char counting[] = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
    CHECK_OK(chat_create(&chat, counting, strlen(counting), "counting", NULL, &err));
    CHECK_FAILS(chat_render_marked(&out, chat, &q, &err), CB_E_UNSUPPORTED, "generation");
    chat_destroy(&chat);
    jinja_output_deinit(&out);
    json_decref(messages);
}

TEST(chat, builtin_templates_parse) {
    struct cb_err err = {0};
    json_t *messages = json_loads(
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"},{"
        "\"role\":\"user\",\"content\":\"w\"}]",
        0, NULL);
    json_t *specials = json_loads("{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}", 0, NULL);
    struct chat_request q = {.messages = messages, .add_generation_prompt = true};
    int n = 0;
    for (const char *const *name = chat_builtin_names(); *name; name++, n++) {
        struct chat *chat = NULL;
        struct jinja_output out = {0};
        CHECK_OK(chat_create(&chat, chat_builtin(*name), strlen(chat_builtin(*name)), *name, specials, &err));
        CHECK_OK(chat_render_marked(&out, chat, &q, &err));
        CHECK(out.n_spans == 1);
        CHECK(memchr(out.text + out.span[0].begin, 'a', out.span[0].end - out.span[0].begin));
        jinja_output_deinit(&out);
        chat_destroy(&chat);
    }
    CHECK(n >= 5 && !chat_builtin("nothing"));
    json_decref(messages);
    json_decref(specials);
}
