/* Folders of Transformers' slow classes against the ids that these give (tests/golden/make_tokenizers.py), also after conversion. */
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
    CHECK(c.n_lines > 5, "%s: %d lines", path, c.n_lines);
    token_list_deinit(&c.list);
    encoder_destroy(&c.e);
}

TEST(text_layouts, slow_classes) {
    static const char *const names[] = {"roberta", "bart",    "xlm-roberta", "camembert", "albert", "deberta-v2",
                                        "mbart",   "mbart50", "nllb",        "m2m100",    "marian"};
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
