/* cb_generate as users call it: golden continuations, text, stop strings, streams, refusals. */
#include <cambium/cambium.h>
#include <dirent.h>
#include <unistd.h>

#include "../data/files.h"
#include "../harness.h"
#include "base/json.h"
#include "io/file.h"
#include "text/tokenizer.h"

static json_t *golden_open(const char *folder) {
    struct cb_err err = {0};
    char *path = io_path_join(folder, "golden.json"), *text;
    size_t n;
    json_t *golden;
    CHECK_OK(io_read_file(&text, &n, path, 1 << 22, &err));
    CHECK_OK(json_parse_object(&golden, text, n, path, &err));
    free(text);
    free(path);
    return golden;
}

/* Greedy ids of one fixture. Whether it has any. */
static bool check_golden(struct cb_engine *engine, const char *folder) {
    struct cb_err err = {0};
    json_t *golden = golden_open(folder), *want = json_object_get(golden, "generate");
    json_t *prompt = json_object_get(want, "prompt_ids"), *answer = json_object_get(want, "ids");
    int32_t ids[64];
    int64_t n = (int64_t)json_array_size(answer), n_prompt = (int64_t)json_array_size(prompt);
    if (want) {
        CHECK(n > 0 && n_prompt > 0 && n_prompt <= 64, "%s: no ids", folder);
        for (int64_t i = 0; i < n_prompt; i++) ids[i] = (int32_t)json_integer_value(json_array_get(prompt, (size_t)i));
        struct cb_generate_options o = {.model = folder, .ids = ids, .n_ids = n_prompt, .max_new = n, .greedy = true, .ignore_eos = true};
        struct cb_generate_result r;
        CHECK_OK(cb_generate(engine, &o, &r, &err));
        CHECK(r.n_ids == n && r.prompt_tokens == n_prompt && !r.text, "%s: %lld ids", folder, (long long)r.n_ids);
        CHECK(strcmp(r.stopped_by, "length") == 0, "%s: stopped by %s", folder, r.stopped_by);
        for (int64_t i = 0; i < n; i++)
            CHECK(r.ids[i] == json_integer_value(json_array_get(answer, (size_t)i)), "%s: id %lld is %d", folder, (long long)i, r.ids[i]);
        cb_free(r.ids);
    }
    json_decref(golden);
    return want != NULL;
}

TEST(generate, golden_continuations) {
    const char *shared = shared_dir();
    struct cb_err err = {0};
    struct cb_engine *engine;
    char path[1200];
    int n = 0;
    if (!shared) return;
    snprintf(path, sizeof path, "%s/fixtures/models", shared);
    DIR *dir = opendir(path);
    CHECK(dir, "%s cannot be read", path);
    CHECK_OK(cb_engine_create(&engine, NULL, &err));
    for (struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "gpt2_", 5) != 0 && strncmp(e->d_name, "llama_", 6) != 0) continue;
        snprintf(path, sizeof path, "%s/fixtures/models/%s", shared, e->d_name);
        n += check_golden(engine, path);
    }
    closedir(dir);
    CHECK(n >= 15, "%d cases with golden ids; wanted 15", n);
    cb_engine_destroy(&engine);
}

/* ---- a small model with a tokenizer of bytes */

struct home {
    char *folder, *model;
    struct cb_engine *engine;
};

static void home_open(struct home *h) {
    struct cb_err err = {0};
    struct tokenizer *tokenizer;
    char *json;
    size_t n;
    h->folder = folder_make();
    const char *const specials[] = {"<|endoftext|>"};
    struct train_options to = {.kind = "byte", .vocab = 257, .specials = specials, .n_specials = 1};
    CHECK_OK(tokenizer_train(&tokenizer, &to, NULL, NULL, NULL, NULL, &err));
    CHECK_OK(tokenizer_to_json(tokenizer, &json, &n, &err));
    char *path = file_put(h->folder, "tokenizer.json", json, n);
    h->model = io_path_join(h->folder, "model");
    CHECK_OK(cb_engine_create(&h->engine, &(struct cb_engine_options){.seed = 11}, &err));
    struct cb_init_options io = {
        .out = h->model, .family = "gpt2", .set = "n_embd=32,n_layer=2,n_head=2,n_positions=48", .tokenizer = path};
    struct cb_init_result ir;
    CHECK_OK(cb_init(h->engine, &io, &ir, &err));
    tokenizer_destroy(&tokenizer);
    free(json);
    free(path);
}

static void home_close(struct home *h) {
    cb_engine_destroy(&h->engine);
    free(h->model);
    free(h->folder);
}

struct heard {
    char text[4000];
    int pieces, most;  // most: stop after so many; 0: never
};
static bool hear(void *user, const char *text, int32_t id) {
    struct heard *heard = user;
    CHECK(text && *text && id >= 0, "an empty piece");
    strncat(heard->text, text, sizeof heard->text - strlen(heard->text) - 1);
    return ++heard->pieces != heard->most;
}

TEST(generate, streams_what_it_returns) {
    struct home h;
    struct cb_err err = {0};
    home_open(&h);
    struct heard heard = {.pieces = 0};
    struct cb_generate_options o = {.model = h.model, .prompt = "Bäume", .max_new = 30, .ignore_eos = true, .piece = hear, .user = &heard};
    struct cb_generate_result r, again;
    CHECK_OK(cb_generate(h.engine, &o, &r, &err));
    CHECK(r.n_ids == 30 && r.prompt_tokens == 6, "%lld ids after %lld", (long long)r.n_ids, (long long)r.prompt_tokens);
    CHECK(strcmp(heard.text, r.text) == 0, "'%s' was streamed, '%s' returned", heard.text, r.text);
    o.piece = NULL;
    CHECK_OK(cb_generate(h.engine, &o, &again, &err));
    CHECK(strcmp(again.text, r.text) == 0 && memcmp(again.ids, r.ids, 30 * sizeof *r.ids) == 0, "the same seed gave another text");
    cb_free(again.text);
    cb_free(again.ids);
    // cut by the caller
    heard = (struct heard){.most = 3};
    o.piece = hear;
    CHECK_OK(cb_generate(h.engine, &o, &again, &err));
    CHECK(heard.pieces == 3 && strcmp(again.stopped_by, "caller") == 0, "%d pieces, %s", heard.pieces, again.stopped_by);
    cb_free(again.text);
    cb_free(again.ids);
    cb_free(r.text);
    cb_free(r.ids);
    home_close(&h);
}

/* generation_config.json: the last token at the limit, and pairs of tokens that come once. */
TEST(generate, keeps_to_the_rules_of_the_model) {
    struct home h;
    struct cb_err err = {0};
    struct cb_init_result made;
    char folder[400], path[440];
    static const char rules[] = "{\"forced_eos_token_id\": [9, 7], \"eos_token_id\": 7, \"no_repeat_ngram_size\": 2}";
    const int32_t ids[] = {5, 8, 5};
    home_open(&h);
    snprintf(folder, sizeof folder, "%s-rules", h.model);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    struct cb_init_options io = {.out = folder, .family = "gpt2", .set = "n_embd=16,n_layer=1,n_head=2,n_positions=64,vocab_size=24"};
    CHECK_OK(cb_init(h.engine, &io, &made, &err));
    CHECK_OK(io_write_file(path, rules, strlen(rules), &err));
    struct cb_generate_options o = {.model = folder, .ids = ids, .n_ids = 3, .max_new = 30, .greedy = true, .ignore_eos = true};
    struct cb_generate_result r;
    CHECK_OK(cb_generate(h.engine, &o, &r, &err));
    CHECK(r.n_ids == 30);
    for (int i = 1; i < 30; i++)
        for (int k = 1; k < i; k++)
            CHECK(r.ids[k] != r.ids[i] || r.ids[k - 1] != r.ids[i - 1], "%d %d at %d and at %d", r.ids[i - 1], r.ids[i], k, i);
    const int32_t first = r.ids[0];
    cb_free(r.ids);
    // the one token that there is room for is the forced one, unless the end is to be ignored
    o.max_new = 1;
    o.ignore_eos = false;
    CHECK_OK(cb_generate(h.engine, &o, &r, &err));
    CHECK(r.n_ids == 1 && r.ids[0] == 7 && first != 7, "%d in place of %d", r.ids[0], first);
    CHECK(strcmp(r.stopped_by, "eos") == 0, "stopped by %s", r.stopped_by);
    cb_free(r.ids);
    home_close(&h);
}

static void tell(void *user, const char *line) { snprintf(user, 300, "%s", line); }

/* Keys that ask for something and are not followed are named with their file, those that are off or followed are not. */
TEST(generate, names_the_rules_that_it_does_not_keep) {
    static const char rules[] =
        "{\"num_beams\": 4, \"min_length\": 0, \"repetition_penalty\": 1.5, \"bad_words_ids\": [[3]], \"guidance_scale\": null}";
    struct cb_err err = {0};
    struct cb_init_result made;
    struct cb_engine *engine;
    char folder[128], path[160], told[300] = "";
    const int32_t ids[] = {5};
    const struct cb_engine_options eo = {.threads = 1, .user = told, .warn = tell};
    temporary_folder(folder, "rules");
    CHECK_OK(cb_engine_create(&engine, &eo, &err));
    struct cb_init_options io = {.out = folder, .family = "gpt2", .set = "n_embd=16,n_layer=1,n_head=2,n_positions=8,vocab_size=24"};
    CHECK_OK(cb_init(engine, &io, &made, &err));
    struct cb_generate_options o = {.model = folder, .ids = ids, .n_ids = 1, .max_new = 1, .greedy = true};
    struct cb_generate_result r;
    snprintf(path, sizeof path, "%s/config.json", folder);
    json_t *config = json_load_file(path, 0, NULL);
    CHECK(config && !json_object_set_new(config, "num_beams", json_integer(2)) && !json_dump_file(config, path, 0), "%s", path);
    json_decref(config);
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    const char *const want[] = {"config.json asks for what is not done here: num_beams;",
                                "generation_config.json asks for what is not done here: num_beams, bad_words_ids;"};
    for (int i = 0; i < 2; i++) {
        if (!i) unlink(path);
        if (i == 1) CHECK_OK(io_write_file(path, rules, strlen(rules), &err));
        *told = 0;
        CHECK_OK(cb_generate(engine, &o, &r, &err));
        CHECK(!strncmp(told, want[i], strlen(want[i])), "%d: %s", i, told);
        cb_free(r.ids);
    }
    cb_engine_destroy(&engine);
}

/* What generation_config.json says of drawing is as if options said it, and options win. */
TEST(generate, draws_as_the_model_says) {
    static const struct {
        const char *rules;  // NULL: none
        struct cb_generate_options o;
    } cases[] = {
        // equal pairs
        {"{\"do_sample\": false, \"repetition_penalty\": 1.3, \"max_new_tokens\": 9}", {0}},
        {NULL, {.greedy = true, .repeat_penalty = 1.3, .max_new = 9}},
        {"{\"do_sample\": true, \"temperature\": 3.5, \"top_p\": 0.9, \"max_new_tokens\": 12}", {0}},
        {NULL, {.temperature = 3.5, .top_p = 0.9, .top_k = 50, .max_new = 12}},
        {"{\"do_sample\": true, \"temperature\": 3.5, \"top_k\": 3}", {.top_p = 0.5, .max_new = 12}},
        {NULL, {.temperature = 3.5, .top_p = 0.5, .top_k = 3, .max_new = 12}},
        {"{\"do_sample\": true, \"top_k\": 3, \"min_p\": 0.9}", {.top_k = -1, .min_p = -1, .max_new = 12}},
        {NULL, {.max_new = 12}},
        {"{\"do_sample\": false, \"temperature\": 2.5}", {.top_k = 5, .max_new = 12}},
        {NULL, {.temperature = 2.5, .top_k = 5, .max_new = 12}},
        {"{\"temperature\": 0.0, \"max_new_tokens\": 6}", {0}},
        {NULL, {.greedy = true, .max_new = 6}},
        {"{\"do_sample\": true, \"max_new_tokens\": 6}", {.greedy = true}},
        {NULL, {.greedy = true, .max_new = 6}},
    };
    struct cb_err err = {0};
    struct cb_init_result made;
    struct cb_engine *engine;
    char folder[128], path[160];
    const int32_t ids[] = {5, 8};
    const struct cb_engine_options eo = {.threads = 1, .seed = 5};
    temporary_folder(folder, "draws");
    CHECK_OK(cb_engine_create(&engine, &eo, &err));
    struct cb_init_options io = {.out = folder, .family = "gpt2"};
    io.set = "n_embd=16,n_layer=1,n_head=2,n_positions=160,vocab_size=90,initializer_range=0.8,eos_token_id=null";
    CHECK_OK(cb_init(engine, &io, &made, &err));
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    struct cb_generate_result r[2];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_generate_options o = cases[i].o;
        o.model = folder, o.ids = ids, o.n_ids = 2, o.ignore_eos = true;
        unlink(path);
        if (cases[i].rules) CHECK_OK(io_write_file(path, cases[i].rules, strlen(cases[i].rules), &err));
        CHECK_OK(cb_generate(engine, &o, &r[i % 2], &err));
        if (i % 2 == 0) continue;
        CHECK(r[0].n_ids == r[1].n_ids && !memcmp(r[0].ids, r[1].ids, (size_t)r[0].n_ids * sizeof *r[0].ids), "%s", cases[i - 1].rules);
        cb_free(r[0].ids);
        cb_free(r[1].ids);
    }
    static const char endless[] = "{\"max_new_tokens\": 1000000000, \"no_repeat_ngram_size\": 2}", wrong[] = "{\"top_p\": 1.5}";
    struct cb_generate_options o = {.model = folder, .ids = ids, .n_ids = 2};
    CHECK_OK(io_write_file(path, endless, strlen(endless), &err));
    CHECK_OK(cb_generate(engine, &o, &r[0], &err));
    CHECK(r[0].n_ids <= 160 && r[0].cache_bytes + r[0].activations_bytes < 1 << 24, "%lld and %lld bytes", (long long)r[0].cache_bytes,
          (long long)r[0].activations_bytes);
    cb_free(r[0].ids);
    CHECK_OK(io_write_file(path, wrong, strlen(wrong), &err));
    CHECK_FAILS(cb_generate(engine, &o, &r[0], &err), CB_E_FORMAT, "generation_config.json: top_p: found 1.5");
    cb_engine_destroy(&engine);
}

TEST(generate, stops_at_strings_and_at_the_end) {
    struct home h;
    struct cb_err err = {0};
    home_open(&h);
    struct cb_generate_options o = {.model = h.model, .prompt = "abc", .max_new = 40, .top_k = 40, .ignore_eos = true};
    struct cb_generate_result whole, r;
    CHECK_OK(cb_generate(h.engine, &o, &whole, &err));
    // two characters from the middle of the text, at a character's border
    size_t n = strlen(whole.text), at = n / 2, bytes = 0;
    while (at && (whole.text[at] & 0xC0) == 0x80) at--;
    for (int characters = 0; at + bytes < n && (characters < 2 || (whole.text[at + bytes] & 0xC0) == 0x80);) {
        bytes++;
        characters += (whole.text[at + bytes] & 0xC0) != 0x80;
    }
    char stop[32];
    snprintf(stop, sizeof stop, "%.*s", (int)bytes, whole.text + at);
    const char *stops[] = {"never seen", stop};
    struct heard heard = {.pieces = 0};
    o.stop = stops;
    o.n_stop = 2;
    o.piece = hear;
    o.user = &heard;
    CHECK_OK(cb_generate(h.engine, &o, &r, &err));
    size_t first = (size_t)(strstr(whole.text, stop) - whole.text);
    CHECK(strcmp(r.stopped_by, "stop") == 0 && strlen(r.text) == first && strncmp(r.text, whole.text, first) == 0,
          "'%s' of '%s' before '%s'", r.text, whole.text, stop);
    CHECK(strcmp(heard.text, r.text) == 0, "'%s' was streamed, '%s' returned", heard.text, r.text);
    cb_free(r.text);
    cb_free(r.ids);
    // the first answer's token as the model's end of text
    char config[64];
    snprintf(config, sizeof config, "{\"eos_token_id\": [%d]}", whole.ids[2]);
    char *path = file_put(h.model, "generation_config.json", config, strlen(config));
    free(path);
    o = (struct cb_generate_options){.model = h.model, .prompt = "abc", .max_new = 40, .top_k = 40};
    CHECK_OK(cb_generate(h.engine, &o, &r, &err));
    CHECK(strcmp(r.stopped_by, "eos") == 0 && r.n_ids <= 3 && r.ids[r.n_ids - 1] == whole.ids[2], "%s after %lld", r.stopped_by,
          (long long)r.n_ids);
    cb_free(r.text);
    cb_free(r.ids);
    cb_free(whole.text);
    cb_free(whole.ids);
    home_close(&h);
}

TEST(generate, prompts_that_are_empty_long_or_wrong) {
    struct home h;
    struct cb_err err = {0};
    home_open(&h);
    int32_t ids[48] = {0};
    struct cb_generate_options o = {.model = h.model, .prompt = "", .max_new = 60, .greedy = true, .ignore_eos = true};
    struct cb_generate_result r;
    CHECK_OK(cb_generate(h.engine, &o, &r, &err));  // 61 tokens of 48 positions: the older half goes
    CHECK(r.prompt_tokens == 1 && r.n_ids == 60, "%lld, %lld", (long long)r.prompt_tokens, (long long)r.n_ids);
    cb_free(r.text);
    cb_free(r.ids);
    o = (struct cb_generate_options){.model = h.model, .ids = ids, .n_ids = 48, .max_new = 1};
    CHECK_FAILS(cb_generate(h.engine, &o, &r, &err), CB_E_LIMIT, "48 tokens");
    o.n_ids = 2;
    ids[1] = 257;
    CHECK_FAILS(cb_generate(h.engine, &o, &r, &err), CB_E_ARGUMENT, "id 257 at position 1");
    ids[1] = -1;
    CHECK_FAILS(cb_generate(h.engine, &o, &r, &err), CB_E_ARGUMENT, "id -1");
    ids[1] = 1;
    o.context = 49;
    CHECK_FAILS(cb_generate(h.engine, &o, &r, &err), CB_E_USAGE, "--context 49");
    o = (struct cb_generate_options){.model = h.model, .prompt = "\xff", .max_new = 1};
    CHECK_FAILS(cb_generate(h.engine, &o, &r, &err), CB_E_FORMAT, "prompt");
    o = (struct cb_generate_options){.model = h.folder, .prompt = "a"};
    CHECK_FAILS(cb_generate(h.engine, &o, &r, &err), CB_E_IO, "config.json");
    home_close(&h);
}

TEST(generate, plans_the_bytes_of_a_run) {
    struct home h;
    struct cb_err err = {0};
    home_open(&h);
    struct cb_generate_options o = {.model = h.model, .prompt = "abcdef", .max_new = 10, .plan_only = true};
    struct cb_generate_result plan, run;
    CHECK_OK(cb_generate(h.engine, &o, &plan, &err));
    CHECK(!plan.text && plan.n_ids == 0 && plan.cache_bytes == 16 * 2 * 2 * 32 * 4, "cache %lld", (long long)plan.cache_bytes);
    o.plan_only = false;
    CHECK_OK(cb_generate(h.engine, &o, &run, &err));
    CHECK(plan.weights_bytes == run.weights_bytes && plan.cache_bytes == run.cache_bytes && plan.activations_bytes == run.activations_bytes,
          "the run's bytes differ");
    CHECK(plan.planned_bytes > plan.weights_bytes + plan.cache_bytes + plan.activations_bytes, "the program takes nothing");
    cb_free(plan.ids);
    cb_free(run.text);
    cb_free(run.ids);
    cb_engine_destroy(&h.engine);
    CHECK_OK(cb_engine_create(&h.engine, &(struct cb_engine_options){.memory_limit = 100000}, &err));
    CHECK_FAILS(cb_generate(h.engine, &o, &run, &err), CB_E_LIMIT, "--memory 100000");
    home_close(&h);
}
