/* The encode vectors: every kind of component against the reference library. */
#include <glob.h>

#include "text/tokenizer.h"
#include "text/utf8.h"
#include "vectors.h"

/* What one case is checked with, and what was wrong first. */
struct check {
    struct tokenizer *t;
    struct encoder *e;
    struct token_list list;
    int n_bad, n_lines;
    char wrong[3000];
};

static void wrong(struct check *c, const json_t *line, const char *what) {
    if (!c->n_bad++) {
        char *text = json_dumps(line, JSON_ENSURE_ASCII);
        snprintf(c->wrong, sizeof c->wrong, "%s: %.2000s", what, text ? text : "");
        free(text);
    }
}

static int32_t *ids_of(const struct token_list *list) {
    int32_t *ids = malloc((list->n + 1) * sizeof *ids);
    for (size_t i = 0; i < list->n; i++) ids[i] = list->token[i].id;
    return ids;
}

static void check_decoded(struct check *c, const json_t *line, const int32_t *ids, size_t n) {
    for (int skip = 0; skip < 2; skip++) {
        const json_t *want = json_object_get(line, skip ? "decoded_skip" : "decoded");
        struct cb_err err = {0};
        char *text;
        size_t length;
        if (tokenizer_decode(c->t, &text, &length, ids, n, skip, &err)) {
            if (want) wrong(c, line, err.message);
            continue;
        }
        if (want && !vector_text_is(want, text, length)) wrong(c, line, skip ? "decoded_skip" : "decoded");
        free(text);
    }
}

static void check_tokens(struct check *c, const json_t *line, const char *ids_key) {
    int32_t *ids = ids_of(&c->list);
    if (!vector_ids_are(json_object_get(line, ids_key), ids, c->list.n)) wrong(c, line, ids_key);
    const json_t *offsets = json_object_get(line, "offsets"), *special = json_object_get(line, "special"),
                 *types = json_object_get(line, "types");
    const json_t *words = json_object_get(line, "words");
    for (size_t i = 0; !strcmp(ids_key, "ids") && i < c->list.n && c->list.n == json_array_size(offsets); i++) {
        const struct token *token = &c->list.token[i];
        const json_t *offset = json_array_get(offsets, i);
        if (json_integer_value(json_array_get(offset, 0)) != token->begin || json_integer_value(json_array_get(offset, 1)) != token->end) {
            wrong(c, line, "offsets");
            break;
        }
        if (special && json_integer_value(json_array_get(special, i)) != token->special) wrong(c, line, "special");
        if (types && json_integer_value(json_array_get(types, i)) != token->type) wrong(c, line, "types");
        if (json_is_integer(json_array_get(words, i)) && json_integer_value(json_array_get(words, i)) != token->word)
            wrong(c, line, "words");
    }
    if (!strcmp(ids_key, "ids")) check_decoded(c, line, ids, c->list.n);
    free(ids);
}

static enum cb_status check_piece(void *context, const char *piece, size_t n, size_t begin, size_t end, struct cb_err *err) {
    (void)begin, (void)end, (void)err;
    json_array_append_new(context, json_stringn(piece, n));
    return CB_OK;
}

static void check_steps(struct check *c, const json_t *line, const char *text, size_t n) {
    struct cb_err err = {0};
    const json_t *want = json_object_get(line, "normalized");
    if (json_is_string(want)) {
        char *normal;
        size_t length;
        if (encoder_normalise(c->e, &normal, &length, text, n, &err))
            wrong(c, line, err.message);
        else if (!vector_text_is(want, normal, length))
            wrong(c, line, "normalized");
        free(normal);
    }
    if (!n || !json_is_array(want = json_object_get(line, "pre"))) return;
    json_t *pieces = json_array();
    if (encoder_pretokenise(c->e, text, n, check_piece, pieces, &err)) wrong(c, line, err.message);
    bool same = json_array_size(pieces) == json_array_size(want);
    for (size_t i = 0; same && i < json_array_size(want); i++)
        same = json_equal(json_array_get(json_array_get(want, i), 0), json_array_get(pieces, i));
    if (!same) wrong(c, line, "pre");
    json_decref(pieces);
}

static void check_text(struct check *c, const json_t *line) {
    struct cb_err err = {0};
    size_t n;
    char *text = vector_text(json_object_get(line, "text"), &n);
    bool fails = json_object_get(line, "error");
    if (!encoder_encode(c->e, &c->list, text, n, ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_LIMITS, &err)) {
        if (!fails) check_tokens(c, line, "ids");
    } else if (!fails)
        wrong(c, line, err.message);
    memset(&err, 0, sizeof err);
    if (json_object_get(line, "ids_bare")) {
        if (encoder_encode(c->e, &c->list, text, n, ENCODE_LIMITS, &err))
            wrong(c, line, err.message);
        else
            check_tokens(c, line, "ids_bare");
    }
    if (!fails) check_steps(c, line, text, n);
    free(text);
}

static void check_line(const json_t *line, void *context) {
    struct check *c = context;
    struct cb_err err = {0};
    c->n_lines++;
    if (json_object_get(line, "text")) check_text(c, line);
    const json_t *pair = json_object_get(line, "pair"), *decode = json_object_get(line, "decode");
    if (pair) {
        size_t n[2];
        char *text[2] = {vector_text(json_array_get(pair, 0), &n[0]), vector_text(json_array_get(pair, 1), &n[1])};
        bool fails = json_object_get(line, "error");
        if (!encoder_encode_pair(c->e, &c->list, text[0], n[0], text[1], n[1], ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_LIMITS,
                                 &err)) {
            if (!fails) check_tokens(c, line, "ids");
        } else if (!fails)
            wrong(c, line, err.message);
        free(text[0]);
        free(text[1]);
    }
    if (decode) {
        size_t n = json_array_size(decode);
        int32_t *ids = malloc((n + 1) * sizeof *ids);
        for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(decode, i));
        check_decoded(c, line, ids, n);
        free(ids);
    }
}

/* Whether every line of a case is as the reference has it; also after writing and reading the tokenizer again. */
static bool case_passes(const char *json_path, bool rewritten, char *why, size_t n_why) {
    struct check c = {0};
    struct cb_err err = {0};
    char path[1000], *bytes;
    size_t n;
    snprintf(why, n_why, "did not load");
    if (tokenizer_load(&c.t, json_path, &err)) return snprintf(why, n_why, "%s", err.message), false;
    if (rewritten) {
        if (tokenizer_to_json(c.t, &bytes, &n, &err)) return snprintf(why, n_why, "%s", err.message), false;
        tokenizer_destroy(&c.t);
        enum cb_status status = tokenizer_load_bytes(&c.t, bytes, n, "rewritten", &err);
        free(bytes);
        if (status) return snprintf(why, n_why, "%s", err.message), false;
    }
    if (encoder_create(&c.e, c.t, &err)) return false;
    snprintf(path, sizeof path, "%.*s.jsonl", (int)(strlen(json_path) - strlen(".tokenizer.json")), json_path);
    int lines = vector_lines(path, check_line, &c);
    snprintf(why, n_why, "%d of %d: %s", c.n_bad, c.n_lines, c.wrong);
    token_list_deinit(&c.list);
    encoder_destroy(&c.e);
    tokenizer_destroy(&c.t);
    return lines > 0 && !c.n_bad;
}

static void run_cases(const char *pattern, int wanted) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[1000], why[3200];
    glob_t found;
    int n_good = 0;
    snprintf(path, sizeof path, "%s/%s", shared, pattern);
    CHECK(glob(path, 0, NULL, &found) == 0 && found.gl_pathc > 0, "no case at %s", path);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        bool good = case_passes(found.gl_pathv[i], false, why, sizeof why) && case_passes(found.gl_pathv[i], true, why, sizeof why);
        n_good += good;
        if (!good) fprintf(stderr, "%s: %s\n", strrchr(found.gl_pathv[i], '/') + 1, why);
    }
    globfree(&found);
    CHECK(n_good >= wanted, "%d cases of %s pass, %d are wanted", n_good, pattern, wanted);
}

TEST(text_encode, cases) { run_cases("fixtures/tokenizers/encode/*.tokenizer.json", 182); }
TEST(text_encode, trained) { run_cases("fixtures/tokenizers/train/*.tokenizer.json", 12); }

/* Where the first token of each stretch of one script begins, over every code point. */
static enum cb_status note_start(void *context, const char *piece, size_t n, size_t begin, size_t end, struct cb_err *err) {
    (void)n, (void)begin, (void)end, (void)err;
    uint32_t cp = 0;
    utf8_decode(piece, n, &cp);
    json_array_append_new(context, json_integer(cp));
    return CB_OK;
}

TEST(text_encode, scripts) {
    const char *shared = shared_dir();
    if (!shared) return;
    static const char file[] =
        "{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}";
    char path[1000], *all = malloc(0x110000 * 4);
    size_t n = 0, n_want;
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct cb_err err = {0};
    for (uint32_t cp = 0; cp < 0x110000; cp++)
        if (cp < 0xd800 || cp > 0xdfff) n += (size_t)utf8_encode(all + n, cp);
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/unicode/scripts.json", shared);
    char *bytes = vector_bytes(path, &n_want);
    CHECK(bytes, "no %s", path);
    json_t *want = json_loads(bytes, 0, NULL), *starts = json_array();
    CHECK_OK(tokenizer_load_bytes(&t, file, sizeof file - 1, "scripts", &err));
    CHECK_OK(encoder_create(&e, t, &err));
    CHECK_OK(encoder_pretokenise(e, all, n, note_start, starts, &err));
    const json_t *list = json_object_get(want, "starts");
    for (size_t i = 0; i < json_array_size(list); i++)
        CHECK(json_equal(json_array_get(list, i), json_array_get(starts, i)), "piece %zu begins at U+%04X, U+%04X wanted", i,
              (unsigned)json_integer_value(json_array_get(starts, i)), (unsigned)json_integer_value(json_array_get(list, i)));
    CHECK(json_array_size(list) == json_array_size(starts) && json_array_size(list) > 300, "%zu pieces", json_array_size(starts));
    json_decref(want);
    json_decref(starts);
    free(bytes);
    free(all);
    encoder_destroy(&e);
    tokenizer_destroy(&t);
}
