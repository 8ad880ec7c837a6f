/* GPT-2's own files: the vectors of real text, streams, pre-token boundaries. */
#include "text/bytelevel.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "vectors.h"

struct gpt2 {
    struct tokenizer *t;
    struct encoder *e;
    struct token_list list;
    int n_texts, n_bad;
    char wrong[400];
};

static void wrong(struct gpt2 *g, const json_t *line, const char *what) {
    const char *name = json_string_value(json_object_get(line, "name"));
    if (!g->n_bad++) snprintf(g->wrong, sizeof g->wrong, "%.80s: %.300s", name ? name : "?", what);
}

static void check_line(const json_t *line, void *context) {
    struct gpt2 *g = context;
    struct cb_err err = {0};
    const json_t *want = json_object_get(line, "text");
    if (!want) return;
    size_t n, n_back;
    char *text = vector_text(want, &n), *back = NULL;
    g->n_texts++;
    if (encoder_encode(g->e, &g->list, text, n, ENCODE_OFFSETS, &err)) {
        wrong(g, line, err.message);
        free(text);
        return;
    }
    int32_t *ids = malloc((g->list.n + 1) * sizeof *ids);
    for (size_t i = 0; i < g->list.n; i++) ids[i] = g->list.token[i].id;
    if (!vector_ids_are(json_object_get(line, "ids"), ids, g->list.n)) wrong(g, line, "ids");
    if (tokenizer_decode(g->t, &back, &n_back, ids, g->list.n, false, &err))
        wrong(g, line, err.message);
    else if (n_back != n || memcmp(back, text, n))
        wrong(g, line, "decoded text");
    free(back);
    free(ids);
    free(text);
}

static void check_stream(const json_t *line, void *context) {
    struct gpt2 *g = context;
    struct cb_err err = {0};
    struct text_stream *stream;
    const json_t *ids = json_object_get(line, "ids"), *pieces = json_object_get(line, "pieces");
    if (!json_is_array(ids) || !json_is_array(pieces)) return;
    g->n_texts++;
    if (text_stream_create(&stream, g->t, false, &err)) return wrong(g, line, err.message);
    const char *text;
    size_t n;
    for (size_t i = 0; i < json_array_size(ids); i++)
        if (text_stream_push(stream, (int32_t)json_integer_value(json_array_get(ids, i)), &text, &n, &err) ||
            !vector_text_is(json_array_get(pieces, i), text, n))
            wrong(g, line, "piece");
    if (text_stream_finish(stream, &text, &n, &err) || !vector_text_is(json_object_get(line, "flush"), text, n)) wrong(g, line, "flush");
    text_stream_destroy(&stream);
}

static void run(const char *file, void (*fn)(const json_t *line, void *context), int least) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct gpt2 g = {0};
    struct cb_err err = {0};
    char path[1000];
    snprintf(path, sizeof path, "%s/data/tokenizers_gpt2", shared);
    CHECK_OK(tokenizer_load(&g.t, path, &err));
    CHECK_OK(encoder_create(&g.e, g.t, &err));
    CHECK(tokenizer_size(g.t) == 50257 && tokenizer_eos(g.t) == 50256, "size %d", (int)tokenizer_size(g.t));
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/%s", shared, file);
    vector_lines(path, fn, &g);
    CHECK(g.n_texts >= least, "%d texts in %s", g.n_texts, path);
    CHECK(!g.n_bad, "%d of %d are wrong: %s", g.n_bad, g.n_texts, g.wrong);
    token_list_deinit(&g.list);
    encoder_destroy(&g.e);
    tokenizer_destroy(&g.t);
}

TEST(text_gpt2, real_text) { run("real/gpt2.jsonl", check_line, 170); }
TEST(text_gpt2, stream) { run("stream/gpt2.jsonl", check_stream, 20); }

/* The matchers written by hand against the cuts of the patterns they stand for. */
static void check_cuts(const json_t *line, void *context) {
    struct gpt2 *g = context;
    const char *regex = json_string_value(json_object_get(line, "pattern"));
    if (regex) g->n_bad = bytelevel_pattern_find(regex) < 0 ? 1000 : 0, g->list.n = (size_t)bytelevel_pattern_find(regex);
    const json_t *cuts = json_object_get(line, "cuts");
    if (!json_is_array(cuts) || !json_is_string(json_object_get(line, "text"))) return;
    size_t n, i = 0, count = 0;
    char *text = vector_text(json_object_get(line, "text"), &n);
    bool same = true;
    for (size_t at = 0, to; at < n; at = to, i++) {
        to = bytelevel_next((enum bytelevel_pattern)g->list.n, text, n, at);
        count += utf8_count(text + at, to - at);
        same = same && json_integer_value(json_array_get(cuts, i)) == (json_int_t)count;
    }
    if (!same || i != json_array_size(cuts)) wrong(g, line, "cuts");
    g->n_texts++;
    free(text);
}

TEST(text_gpt2, cuts) {
    const char *shared = shared_dir();
    if (!shared) return;
    static const char *const names[] = {"gpt2", "cl100k", "llama3", "chatglm4", "qwen2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct gpt2 g = {0};
        char path[1000];
        snprintf(path, sizeof path, "%s/fixtures/tokenizers/split/split_%s.jsonl", shared, names[i]);
        vector_lines(path, check_cuts, &g);
        CHECK(g.n_texts > 50 && !g.n_bad, "%s: %d of %d are wrong: %s", names[i], g.n_bad, g.n_texts, g.wrong);
    }
}
