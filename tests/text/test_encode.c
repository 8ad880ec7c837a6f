/* The encode vectors: every kind of component against the reference library. */
#include <glob.h>

#include "text/parts.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "vectors.h"

/* What one case is checked with, and what was wrong first. */
struct check {
    struct tokenizer *t;
    struct encoder *e;
    struct token_list list;
    struct token_windows windows;
    int n_bad, n_lines, n_windows, n_words, n_batches, n_streams;
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

static bool is_special(const struct token *token) { return token->special; }
static bool is_type(const struct token *token) { return token->type; }
static bool has_attention(const struct token *token) { return token->attention; }

/* A list of one number a token, which is left out where all are preset. */
static bool marks_are(const json_t *want, const struct token_list *list, bool (*mark)(const struct token *token), bool preset) {
    for (size_t i = 0; i < list->n; i++)
        if (mark(&list->token[i]) != (want ? json_integer_value(json_array_get(want, i)) != 0 : preset)) return false;
    return !want || json_array_size(want) == list->n;
}

/* One encoding: ids, offsets, masks and numbers of the tokens. */
static bool encoding_is(const struct encoder *e, const json_t *want, const struct token_list *list, const char *ids_key) {
    int32_t *ids = ids_of(list);
    bool same = vector_ids_are(json_object_get(want, ids_key), ids, list->n);
    free(ids);
    const json_t *offsets = json_object_get(want, "offsets"), *tokens = json_object_get(want, "tokens"),
                 *words = json_object_get(want, "words"), *sequences = json_object_get(want, "sequences");
    if (!same || strcmp(ids_key, "ids") || !offsets) return same;
    for (size_t i = 0; i < list->n; i++) {
        const struct token *token = &list->token[i];
        const json_t *offset = json_array_get(offsets, i), *word = json_array_get(words, i), *sequence = json_array_get(sequences, i);
        same = same && json_integer_value(json_array_get(offset, 0)) == token->begin &&
               json_integer_value(json_array_get(offset, 1)) == token->end;
        size_t n = 0;
        const char *text = encoder_text(e, token, &n), *text_wanted = json_string_value(json_array_get(tokens, i));
        if (text_wanted) same = same && text && n == json_string_length(json_array_get(tokens, i)) && !memcmp(text, text_wanted, n);
        if (json_is_integer(word)) same = same && json_integer_value(word) == token->word;
        if (words && json_is_null(word)) same = same && token->word == -1;
        if (json_is_integer(sequence)) same = same && json_integer_value(sequence) == token->sequence;
    }
    return same && marks_are(json_object_get(want, "special"), list, is_special, false) &&
           marks_are(json_object_get(want, "types"), list, is_type, false) &&
           marks_are(json_object_get(want, "attention"), list, has_attention, true);
}

/* Of long texts the vectors have the first window alone. */
static bool windows_are(const struct encoder *e, const json_t *want, const struct token_windows *w) {
    const json_t *more = json_object_get(want, "overflow");
    if (json_is_object(json_object_get(want, "ids"))) return encoding_is(e, want, &w->list[0], "ids");
    bool same = w->n == json_array_size(more) + 1 && encoding_is(e, want, &w->list[0], "ids");
    for (size_t i = 1; i < w->n && same; i++) same = encoding_is(e, json_array_get(more, i - 1), &w->list[i], "ids");
    return same;
}

/* Encodes what a line gives, with all its windows. */
static void check_input(struct check *c, const json_t *line, const struct encode_input *input) {
    struct cb_err err = {0};
    bool fails = json_object_get(line, "error");
    if (encoder_encode_input(c->e, &c->windows, input, ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_TEXTS | ENCODE_LIMITS | ENCODE_WINDOWS,
                             &err)) {
        if (!fails) wrong(c, line, err.message);
        return;
    }
    if (fails) return;
    c->n_windows += c->windows.n > 1;
    if (!windows_are(c->e, line, &c->windows)) wrong(c, line, "encoding");
    int32_t *ids = ids_of(&c->windows.list[0]);
    check_decoded(c, line, ids, c->windows.list[0].n);
    free(ids);
}

static void check_words(struct check *c, const json_t *line, const json_t *list) {
    size_t n = json_array_size(list);
    struct text_view *word = calloc(n + 1, sizeof *word);
    for (size_t i = 0; i < n; i++)
        word[i] = (struct text_view){json_string_value(json_array_get(list, i)), json_string_length(json_array_get(list, i))};
    struct encode_input input = {{word, NULL}, {n, 0}, 1, true};
    c->n_words++;
    check_input(c, line, &input);
    free(word);
}

static void check_batch(struct check *c, const json_t *line, const json_t *list) {
    size_t n = json_array_size(list);
    const json_t *want = json_object_get(line, "encodings");
    struct token_windows *all = calloc(n + 1, sizeof *all);
    struct cb_err err = {0};
    enum cb_status status = CB_OK;
    for (size_t i = 0; i < n && !status; i++) {
        struct text_view text = {json_string_value(json_array_get(list, i)), json_string_length(json_array_get(list, i))};
        struct encode_input input = {{&text, NULL}, {1, 0}, 1, false};
        status = encoder_encode_input(c->e, &all[i], &input,
                                      ENCODE_SPECIALS | ENCODE_CODE_POINTS | ENCODE_TEXTS | ENCODE_LIMITS | ENCODE_WINDOWS, &err);
    }
    if (!status) status = tokenizer_pad(c->t, all, n, &err);
    bool same = !status && json_array_size(want) == n;
    for (size_t i = 0; i < n && same; i++) same = windows_are(c->e, json_array_get(want, i), &all[i]);
    if (!same && !json_object_get(line, "error")) wrong(c, line, status ? err.message : "batch");
    c->n_batches += n > 0;
    for (size_t i = 0; i < n; i++) token_windows_deinit(&all[i]);
    free(all);
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
    struct text_view view;
    char *text = vector_text(json_object_get(line, "text"), &view.n);
    view.text = text;
    struct encode_input input = {{&view, NULL}, {1, 0}, 1, false};
    check_input(c, line, &input);
    if (json_object_get(line, "ids_bare")) {
        if (encoder_encode(c->e, &c->list, text, view.n, ENCODE_LIMITS, &err))
            wrong(c, line, err.message);
        else if (!encoding_is(c->e, line, &c->list, "ids_bare"))
            wrong(c, line, "ids_bare");
    }
    if (!json_object_get(line, "error")) check_steps(c, line, text, view.n);
    free(text);
}

/* Ids one by one, against what DecodeStream gave, where it gave up or met broken characters (U+FFFD) nowhere. It drops the space that stands for the
   beginning of a text; here it is kept, since a text may go on. */
static void check_stream(struct check *c, const json_t *line, const json_t *ids, bool skip) {
    const json_t *want = json_object_get(line, skip ? "stream_skip" : "stream");
    struct cb_err err = {0};
    struct text_stream *stream;
    if (!json_is_array(want) || json_array_size(want) != json_array_size(ids)) return;
    for (size_t i = 0; i < json_array_size(want); i++)
        if (!json_is_string(json_array_get(want, i)) && !json_is_null(json_array_get(want, i))) return;  // it gave up
    if (text_stream_create(&stream, c->t, skip, &err)) return wrong(c, line, err.message);
    struct buffer ours = {0}, theirs = {0};
    const char *text;
    size_t n;
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *piece = json_array_get(want, i);
        if (text_stream_push(stream, (int32_t)json_integer_value(json_array_get(ids, i)), &text, &n, &err)) wrong(c, line, err.message);
        buffer_append(&ours, text, n, &err);
        if (json_is_string(piece)) buffer_append(&theirs, json_string_value(piece), json_string_length(piece), &err);
    }
    bool broken = theirs.n && memmem(theirs.data, theirs.n, "\xef\xbf\xbd", 3);
    size_t space = ours.n && ours.data[0] == ' ' && (!theirs.n || theirs.data[0] != ' ');
    c->n_streams += !broken;
    // a character that is never finished is given by neither
    if (!broken && (ours.n - space < theirs.n || (theirs.n && memcmp(ours.data + space, theirs.data, theirs.n) != 0)))
        wrong(c, line, skip ? "stream_skip" : "stream");
    text_stream_destroy(&stream);
    free(ours.data);
    free(theirs.data);
}

static void check_line(const json_t *line, void *context) {
    struct check *c = context;
    const json_t *pair = json_object_get(line, "pair"), *decode = json_object_get(line, "decode"),
                 *words = json_object_get(line, "pretokenized"), *batch = json_object_get(line, "batch");
    c->n_lines++;
    if (json_object_get(line, "text")) check_text(c, line);
    if (words) check_words(c, line, words);
    if (batch) check_batch(c, line, batch);
    if (pair) {
        struct text_view view[2];
        char *text[2];
        for (size_t i = 0; i < 2; i++) view[i].text = text[i] = vector_text(json_array_get(pair, i), &view[i].n);
        struct encode_input input = {{&view[0], &view[1]}, {1, 1}, 2, false};
        check_input(c, line, &input);
        free(text[0]);
        free(text[1]);
    }
    if (decode) {
        size_t n = json_array_size(decode);
        int32_t *ids = malloc((n + 1) * sizeof *ids);
        for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(decode, i));
        check_decoded(c, line, ids, n);
        free(ids);
        check_stream(c, line, decode, false);
        check_stream(c, line, decode, true);
    }
}

/* Lines of each kind over all cases: a check that meets none checks nothing. */
struct met {
    int windows, words, batches, streams;
};

/* Whether every line of a case is as the reference has it; also after writing and reading the tokenizer again. */
static bool case_passes(const char *json_path, bool rewritten, struct met *met, char *why, size_t n_why) {
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
    met->windows += c.n_windows, met->words += c.n_words, met->batches += c.n_batches, met->streams += c.n_streams;
    token_list_deinit(&c.list);
    token_windows_deinit(&c.windows);
    encoder_destroy(&c.e);
    tokenizer_destroy(&c.t);
    return lines > 0 && !c.n_bad;
}

static void run_cases(const char *pattern, int wanted, struct met *met) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[1000], why[3200];
    glob_t found;
    int n_good = 0;
    snprintf(path, sizeof path, "%s/%s", shared, pattern);
    CHECK(glob(path, 0, NULL, &found) == 0 && found.gl_pathc > 0, "no case at %s", path);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        bool good =
            case_passes(found.gl_pathv[i], false, met, why, sizeof why) && case_passes(found.gl_pathv[i], true, met, why, sizeof why);
        n_good += good;
        if (!good) fprintf(stderr, "%s: %s\n", strrchr(found.gl_pathv[i], '/') + 1, why);
    }
    globfree(&found);
    CHECK(n_good >= wanted, "%d cases of %s pass, %d are wanted", n_good, pattern, wanted);
}

TEST(text_encode, cases) {
    struct met met = {0};
    run_cases("fixtures/tokenizers/encode/*.tokenizer.json", 182, &met);
    fprintf(stderr, "%d truncated, %d of words, %d batches, %d streams\n", met.windows, met.words, met.batches, met.streams);
    CHECK(!shared_dir() || (met.windows >= 100 && met.words >= 24 && met.batches >= 16 && met.streams >= 700), "too few lines of a kind");
}
TEST(text_encode, trained) {
    struct met met = {0};
    run_cases("fixtures/tokenizers/train/*.tokenizer.json", 12, &met);
}

/* A normaliser writes to the track that its source does not lie in. The end of a track is outside of it: another allocation may begin there. */
TEST(text_encode, tracks) {
    char block[16] = "0123456789abcde";
    struct track track[2] = {{.text = block, .n_text = 8}, {0}};
    struct encoder e = {.track = track};
    struct piece first = {block, 4, NULL, 0, 4}, last = {block + 7, 1, NULL, 0, 1}, after = {block + 8, 4, NULL, 0, 4};
    CHECK(encoder_free_track(&e, &first) == &track[1], "a piece at the beginning of the track lies in it");
    CHECK(encoder_free_track(&e, &last) == &track[1], "its last byte lies in it");
    CHECK(encoder_free_track(&e, &after) == &track[0], "a piece at its end does not");
    track[0].text = NULL, track[0].n_text = 0;
    CHECK(encoder_free_track(&e, &first) == &track[0], "nothing lies in a track that was never used");
}

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

/* Added tokens that took white space with them, and Unigram's unknown one, are told and trimmed by what they stand for. Figures of the tokenizers
   library 0.22. */
static void check_own(const char *file, const char *text, int n, const char *const *tokens, const uint32_t (*offsets)[2]) {
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct token_list list = {0};
    struct cb_err err = {0};
    CHECK_OK(tokenizer_load_bytes(&t, file, strlen(file), "own", &err));
    CHECK_OK(encoder_create(&e, t, &err));
    for (int pass = 0; pass < 2; pass++) {  // with the texts kept, and with offsets alone
        unsigned flags = ENCODE_SPECIALS | ENCODE_CODE_POINTS | (pass ? 0 : ENCODE_TEXTS);
        CHECK_OK(encoder_encode(e, &list, text, strlen(text), flags, &err));
        CHECK(list.n == (size_t)n, "%s: %zu tokens", text, list.n);
        for (int i = 0; i < n; i++) {
            size_t length;
            const char *own = encoder_text(e, &list.token[i], &length);
            CHECK(own && length == strlen(tokens[i]) && !memcmp(own, tokens[i], length), "%s: token %d is '%.*s'", text, i, (int)length,
                  own);
            CHECK(list.token[i].begin == offsets[i][0] && list.token[i].end == offsets[i][1], "%s: token %d lies in [%u, %u)", text, i,
                  list.token[i].begin, list.token[i].end);
        }
    }
    token_list_deinit(&list);
    encoder_destroy(&e);
    tokenizer_destroy(&t);
}

#define WORDS                                                                                                                         \
    "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0,\"b\":1,\"M\":2,\"S\":3}," \
    "\"unk_token\":\"S\"}"
#define ADDED(left, right, normalized)                                                                          \
    "\"added_tokens\":[{\"id\":2,\"content\":\"M\",\"single_word\":false,\"lstrip\":" left ",\"rstrip\":" right \
    ",\"normalized\":" normalized ",\"special\":false}],"
#define ROBERTA                                                                                                                          \
    "\"post_processor\":{\"type\":\"RobertaProcessing\",\"sep\":[\"S\",3],\"cls\":[\"S\",3],\"trim_offsets\":true,\"add_prefix_space\":" \
    "false},"
#define BYTES "\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"

TEST(text_encode, own_texts) {
    static const char *const left[] = {"S", "a", " M", "b", "S"}, *const right[] = {"a", "M  ", "b"}, *const lower[] = {"a", "  m ", "b"};
    static const uint32_t left_at[][2] = {{0, 0}, {0, 1}, {2, 3}, {4, 5}, {0, 0}}, right_at[][2] = {{0, 1}, {2, 3}, {5, 6}},
                          lower_at[][2] = {{0, 1}, {3, 4}, {5, 6}};
    check_own("{" ADDED("true", "false", "false") ROBERTA WORDS "}", "a M b", 5, left, left_at);
    check_own("{" ADDED("false", "true", "false") BYTES WORDS "}", "a M  b", 3, right, right_at);
    check_own("{" ADDED("true", "true", "true") "\"normalizer\":{\"type\":\"Lowercase\"}," BYTES WORDS "}", "a  M b", 3, lower, lower_at);
    static const char *const unknown[] = {"a", "\xc2\xa0x", "a"};
    static const uint32_t unknown_at[][2] = {{0, 1}, {2, 3}, {3, 4}};
    check_own("{" BYTES "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-1]]}}", "a\xc2\xa0xa", 3, unknown,
              unknown_at);
}

/* A template that puts the second sequence first counts its windows first. */
TEST(text_encode, windows_of_a_turned_pair) {
    static const char file[] =
        "{\"truncation\":{\"direction\":\"Right\",\"max_length\":3,\"strategy\":\"LongestFirst\",\"stride\":0},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{"
        "\"Sequence\":"
        "{\"id\":\"B\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"S\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
        "\"special_tokens\":{\"S\":{\"id\":\"S\",\"ids\":[3],\"tokens\":[\"S\"]}}}," WORDS "}";
    static const int32_t want[][3] = {{0, 3, 0}, {1, 3, 0}, {1, 3, 1}, {2, 3, 0}, {2, 3, 1}, {0, 3, 1}};
    enum { N = sizeof want / sizeof *want };
    struct tokenizer *t = NULL;
    struct encoder *e = NULL;
    struct token_windows w = {0};
    struct cb_err err = {0};
    const struct text_view first = {"a b", 3}, second = {"a b M", 5};
    const struct encode_input pair = {{&first, &second}, {1, 1}, 2, false};
    CHECK_OK(tokenizer_load_bytes(&t, file, sizeof file - 1, "pair", &err));
    CHECK_OK(encoder_create(&e, t, &err));
    CHECK_OK(encoder_encode_input(e, &w, &pair, ENCODE_SPECIALS | ENCODE_LIMITS | ENCODE_WINDOWS, &err));
    CHECK(w.n == N, "%zu windows", w.n);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 3; k++) CHECK(w.list[i].n == 3 && w.list[i].token[k].id == want[i][k], "window %d: token %d", i, k);
    token_windows_deinit(&w);
    encoder_destroy(&e);
    tokenizer_destroy(&t);
}
