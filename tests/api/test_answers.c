/* Questions by their public face: spans of a context that answer, choices; windows and offsets, SQuAD's measures, what is refused. */
#include <cambium/cambium.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../data/files.h"
#include "../harness.h"
#include "api/files.h"
#include "api/task.h"
#include "io/file.h"

struct place {
    char *folder, *spans, *held, *choices, *held_choices, *tokens, *model, *out;
    struct cb_engine *engine;
};

/* A colour stands in brackets among words: the question is answered by it. Few letters of ASCII, so that bytes and characters differ. */
static char *spans(const char *folder, const char *name, int n, int from) {
    static const char *const words[] = {"ёлка", "дом", "été", "река", "naïve", "猫", "Straße", "мир"};
    char *text = malloc((size_t)n * 400), *p = text, context[200];
    CHECK(text);
    for (int i = from; i < from + n; i++) {
        const unsigned h = (unsigned)i * 2654435761u >> 4, at = h % 4;
        int used = 0, start = 0, characters = 0;
        const char *answer = words[(h >> 20) % 8];
        for (unsigned k = 0; k < 4; k++) {
            const char *word = words[(h >> (3 * k + 2)) % 8];
            if (k == at) word = answer, start = characters + 2, used += sprintf(context + used, "[ "), characters += 2;
            used += sprintf(context + used, "%s ", word);
            for (const char *c = word; *c; c++) characters += (*c & 0xc0) != 0x80;
            characters++;
        }
        p += sprintf(
            p,
            "{\"id\": \"q%d\", \"context\": \"%s\", \"question\": \"which?\", \"answers\": {\"text\": [\"%s\"], \"answer_start\": [%d]}}\n",
            i, context, answer, start);
    }
    char *path = file_put(folder, name, text, strlen(text));
    free(text);
    return path;
}

/* The right choice is the one that names the question's word; two to four of them. */
static char *choices(const char *folder, const char *name, int n, int from) {
    static const char *const words[] = {"red", "blue", "stone", "tree", "bird"};
    char *text = malloc((size_t)n * 200), *p = text;
    CHECK(text);
    for (int i = from; i < from + n; i++) {
        const unsigned h = (unsigned)i * 2654435761u >> 4, count = 2 + h % 3, right = (h >> 4) % count, first = (h >> 8) % 5;
        p += sprintf(p, "{\"question\": \"%s\", \"choices\": [", words[(first + right) % 5]);
        for (unsigned k = 0; k < count; k++) p += sprintf(p, "%s\"%s\"", k ? ", " : "", words[(first + k) % 5]);
        p += sprintf(p, "], \"label\": %u}\n", right);
    }
    char *path = file_put(folder, name, text, strlen(text));
    free(text);
    return path;
}

static void place_open(struct place *p, const char *family, const char *set) {
    struct cb_err err = {0};
    *p = (struct place){.folder = folder_make()};
    p->spans = spans(p->folder, "spans.jsonl", 512, 0);
    p->held = spans(p->folder, "held.jsonl", 64, 5000);
    p->choices = choices(p->folder, "choices.jsonl", 512, 0);
    p->held_choices = choices(p->folder, "held_choices.jsonl", 64, 5000);
    p->tokens = io_path_join(p->folder, "tokens");
    p->model = io_path_join(p->folder, "model");
    p->out = io_path_join(p->folder, "out");
    struct cb_engine_options eo = {.threads = 1};
    CHECK_OK(cb_engine_create(&p->engine, &eo, &err));
    static const char words[] =
        "ёлка дом été река naïve 猫 Straße мир which? [ ёлка ] [ дом ] [ été ] [ река ] [ naïve ] [ 猫 ] [ Straße ] [ мир ]\n"
        "red blue stone tree bird ёлка дом été река naïve 猫 Straße мир red blue stone tree bird\n";
    char *path = file_put(p->folder, "words.txt", words, strlen(words));
    const char *text = path;
    struct cb_tokenizer_train_options to = {.text = &text, .n_text = 1, .out = p->tokens, .vocab = 330, .kind = "bpe"};
    struct cb_tokenizer_train_result tr;
    CHECK_OK(cb_tokenizer_train(p->engine, &to, &tr, &err));
    free(path);
    struct cb_init_options io = {.out = p->model, .family = family, .set = set, .tokenizer = p->tokens};
    struct cb_init_result ir;
    CHECK_OK(cb_init(p->engine, &io, &ir, &err));
}

static void place_close(struct place *p) {
    cb_engine_destroy(&p->engine);
    char **paths[] = {&p->spans, &p->held, &p->choices, &p->held_choices, &p->tokens, &p->model, &p->out};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) free(*paths[i]);
    free(p->folder);
}

static enum cb_status train(struct place *p, const char *task, const char *tuner, const char *data, int64_t steps, struct cb_err *err) {
    struct cb_train_result r;
    struct cb_train_options o = {.model = p->model, .out = p->out, .text = &data, .n_text = 1, .task = task, .tuner = tuner};
    o.steps = steps, o.batch = 16, o.lr = 3e-3, o.run_json = "{}";
    *err = (struct cb_err){0};
    return cb_train(p->engine, &o, &r, err);
}

static struct cb_task_result score(struct place *p, const char *task, const char *modules, const char *data) {
    struct cb_task_result r = {0};
    struct cb_err err = {0};
    struct cb_eval_options o = {.model = modules ? p->model : p->out, .modules = modules, .text = &data, .n_text = 1, .task = task};
    CHECK_OK(cb_eval_task(p->engine, &o, &r, &err));
    return r;
}

static const char gpt2[] = "n_embd=48,n_layer=2,n_head=4,n_positions=64";
static const char bert[] = "hidden_size=48,num_hidden_layers=2,num_attention_heads=4,intermediate_size=96,max_position_embeddings=64";
static const char llama[] =
    "hidden_size=48,num_hidden_layers=2,num_attention_heads=4,num_key_value_heads=2,intermediate_size=96,max_position_embeddings=64";

TEST(answers, spans_are_learnt_on_any_base) {
    static const char *const cases[][3] = {
        {"gpt2", gpt2, "full"}, {"bert", bert, "full"}, {"llama", llama, "full"}, {"gpt2", gpt2, "lora:r=16,alpha=64"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct place p;
        struct cb_err err;
        place_open(&p, cases[i][0], cases[i][1]);
        CHECK_OK(train(&p, "qa", cases[i][2], p.spans, 250, &err));
        const bool is_module = strcmp(cases[i][2], "full") != 0;
        struct cb_task_result r = score(&p, "qa", is_module ? p.out : NULL, p.held);
        CHECK(r.n == 64 && r.exact_match > 0.85 && r.f1 >= r.exact_match && isnan(r.accuracy), "%s %s: exact %g, f1 %g", cases[i][0],
              cases[i][2], r.exact_match, r.f1);
        if (is_module) {
            char *path = io_path_join(p.out, "adapter_config.json"), *text;
            size_t n;
            CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
            CHECK(strstr(text, "\"QUESTION_ANS\"") && strstr(text, "\"qa_outputs\""), "%s", text);
            free(path);
            free(text);
        }
        place_close(&p);
    }
}

TEST(answers, choices_are_learnt_on_any_base) {
    static const char *const cases[][3] = {{"gpt2", gpt2, "full"}, {"bert", bert, "full"}, {"llama", llama, "lora:r=16,alpha=64"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct place p;
        struct cb_err err;
        place_open(&p, cases[i][0], cases[i][1]);
        CHECK_OK(train(&p, "choice", cases[i][2], p.choices, 150, &err));
        struct cb_task_result r = score(&p, "choice", strcmp(cases[i][2], "full") ? p.out : NULL, p.held_choices);
        CHECK(r.n == 64 && r.accuracy > 0.9 && isnan(r.f1), "%s %s: accuracy %g", cases[i][0], cases[i][2], r.accuracy);
        place_close(&p);
    }
}

/* A choice that there is none of takes no part: scores of a question are the same beside questions of more choices. */
TEST(answers, missing_choices_count_for_nothing) {
    struct place p;
    struct cb_err err;
    place_open(&p, "gpt2", gpt2);
    CHECK_OK(train(&p, "choice", "full", p.choices, 10, &err));
    static const char two[] = "{\"question\": \"red\", \"choices\": [\"blue\", \"red\"], \"label\": 1}\n";
    static const char four[] = "{\"text\": \"red\", \"choices\": [\"blue\", \"red\", \"tree\", \"bird\"], \"label\": \"2\"}\n";
    char both[400];
    snprintf(both, sizeof both, "%s%s", two, four);
    char *paths[3] = {file_put(p.folder, "two.jsonl", two, strlen(two)), file_put(p.folder, "four.jsonl", four, strlen(four)),
                      file_put(p.folder, "both.jsonl", both, strlen(both))};
    double loss[3];
    for (int i = 0; i < 3; i++) {
        loss[i] = score(&p, "choice", NULL, paths[i]).loss;
        free(paths[i]);
    }
    CHECK(fabs(loss[0] + loss[1] - 2 * loss[2]) < 1e-5, "%g and %g, together %g", loss[0], loss[1], loss[2]);
    place_close(&p);
}

/* ---- windows */
static struct labelled *load(struct place *p, const char *text, const struct labelled_options *o) {
    struct cb_err err = {0};
    struct tokenizer *tokenizer;
    struct labelled *l;
    char *path = file_put(p->folder, "some.jsonl", text, strlen(text));
    CHECK_OK(files_load_tokenizer(&tokenizer, p->model, &err));
    const char *paths[] = {path};
    CHECK_OK(labelled_load(&l, paths, 1, tokenizer, o, &err));
    tokenizer_destroy(&tokenizer);
    free(path);
    return l;
}

/* Two labels may differ at their ends alone. */
TEST(answers, labels_have_long_names) {
    struct place p;
    char text[600], name[121];
    place_open(&p, "gpt2", gpt2);
    memset(name, 'a', 120);
    name[120] = 0;
    snprintf(text, sizeof text, "{\"text\": \"red\", \"label\": \"%s1\"}\n{\"text\": \"red\", \"label\": \"%s2\"}\n", name, name);
    struct labelled *l = load(&p, text, &(struct labelled_options){.kind = LABELLED_CLASS, .seq = 16});
    const struct labels *labels = labelled_labels(l);
    CHECK(labels->n == 2 && strlen(labels->name[0]) == 121 && labels->name[0][120] == '1' && labels->name[1][120] == '2');
    labelled_destroy(&l);
    place_close(&p);
}

/* Rows of a long context cover all of it, overlap, and have the answer where they hold all of it. */
TEST(answers, windows_cover_a_context) {
    struct place p;
    place_open(&p, "gpt2", gpt2);
    static const char context[] =
        "ёлка дом été река naïve 猫 Straße мир ёлка дом été река naïve 猫 Straße мир [ Zürich ] ёлка дом été река naïve 猫";
    char text[600];
    int start = 0;
    for (const char *c = context; strncmp(c, "Zürich", 6) != 0; c++) start += (*c & 0xc0) != 0x80;
    snprintf(text, sizeof text,
             "{\"context\": \"%s\", \"question\": \"which?\", \"answers\": {\"text\": [\"Zürich\"], \"answer_start\": [%d]}}\n", context,
             start);
    const struct labelled_options o = {.kind = LABELLED_SPAN, .seq = 24, .stride = 8};
    struct labelled *l = load(&p, text, &o);
    const struct labelled_info *info = labelled_info(l);
    CHECK(info->questions == 1 && info->n > 2 && info->longest <= 24 && !info->lost && !info->cut, "%lld windows of %lld tokens",
          (long long)info->n, (long long)info->longest);
    int32_t ids[24], mask[24], first, last;
    struct labelled_batch b = {.batch = 1, .seq = 24, .ids = ids, .mask = mask, .start = &first, .end = &last};
    char seen[sizeof context] = {0};
    int found = 0;
    for (int64_t row = 0; row < info->n; row++) {
        uint32_t begin, end;
        labelled_fill_from(l, &b, row);
        for (int t = 0; t < 24; t++)
            if (labelled_bytes(l, row, t, &begin, &end)) {
                CHECK(end < sizeof context && mask[t], "token %d: bytes %u to %u", t, begin, end);
                memset(seen + begin, 1, end - begin);
            }
        if (!last) continue;
        found++;
        uint32_t answer_begin, answer_end, ignored;
        CHECK(labelled_bytes(l, row, first, &answer_begin, &ignored) && labelled_bytes(l, row, last, &ignored, &answer_end));
        const char *at = strstr(context, "Zürich");
        CHECK(answer_begin <= (uint32_t)(at - context) && answer_end >= (uint32_t)(at - context) + strlen("Zürich") &&
                  answer_end - answer_begin <= strlen("Zürich") + 2,
              "bytes %u to %u, the answer at %ld", answer_begin, answer_end, (long)(at - context));
    }
    CHECK(found >= 1, "the answer is in %d windows", found);
    for (size_t i = 0; i + 1 < sizeof context; i++) CHECK(seen[i] || context[i] == ' ', "byte %zu is in no window", i);
    // past the end: padding, of which nothing is learnt
    labelled_fill_from(l, &b, info->n);
    CHECK(first == 24 && last == 24 && mask[0] && !mask[1]);
    labelled_destroy(&l);
    // rows too short for the answer: it is counted, and its windows have none
    const struct labelled_options tight = {.kind = LABELLED_SPAN, .seq = 8, .stride = 2};
    l = load(&p, text, &tight);
    CHECK(labelled_info(l)->lost == 1 && labelled_info(l)->cut == 1 && labelled_info(l)->longest <= 8, "%lld lost, %lld cut, longest %lld",
          (long long)labelled_info(l)->lost, (long long)labelled_info(l)->cut, (long long)labelled_info(l)->longest);
    labelled_destroy(&l);
    place_close(&p);
}

/* Two texts that are too long for a row lose what both can spare; a question gives way to its choices. Letters that the vocabulary has no word of are a
   token each. */
TEST(answers, long_rows_keep_both_texts) {
    enum { SEQ = 16 };
    static const char z[] = "zzzzzzzzzzzzzzzzzzzzzzzz", q[] = "qqqqqqqqqqqqqqqqqqqqqqqq";
    static const struct {
        enum labelled_kind kind;
        const char *format;
        int z, q, of_z, of_q;  // letters, and how many of them stay
    } cases[] = {
        {LABELLED_CLASS, "{\"text\": \"%.*s\", \"text_b\": \"%.*s\", \"label\": 1}\n", 24, 24, 8, 8},
        {LABELLED_CLASS, "{\"text\": \"%.*s\", \"text_b\": \"%.*s\", \"label\": 1}\n", 24, 3, 13, 3},
        {LABELLED_CLASS, "{\"text\": \"%.*s\", \"text_b\": \"%.*s\", \"label\": 1}\n", 5, 24, 5, 11},
        {LABELLED_CLASS, "{\"text\": \"%.*s%.*s\", \"label\": 1}\n", 10, 24, 10, 6},
        {LABELLED_CHOICE, "{\"text\": \"%.*s\", \"choices\": [\"%.*s\", \"\"], \"label\": 1}\n", 24, 10, 6, 10},
        {LABELLED_CHOICE, "{\"text\": \"%.*s\", \"choices\": [\"%.*s\", \"\"], \"label\": 1}\n", 24, 24, 0, 16},
    };
    struct place p;
    place_open(&p, "gpt2", gpt2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        snprintf(text, sizeof text, cases[i].format, cases[i].z, z, cases[i].q, q);
        const struct labelled_options o = {.kind = cases[i].kind, .seq = SEQ};
        struct labelled *l = load(&p, text, &o);
        int32_t ids[2 * SEQ], mask[2 * SEQ], label, choices[2];
        const struct labelled_batch b = {.batch = 1, .seq = SEQ, .ids = ids, .mask = mask, .labels = &label, .choices = choices};
        labelled_fill_from(l, &b, 0);
        int n[2] = {0, 0};
        for (int t = 0; t < SEQ; t++) n[0] += t < cases[i].of_z && ids[t] == ids[0], n[1] += t >= cases[i].of_z && ids[t] == ids[SEQ - 1];
        CHECK(labelled_info(l)->cut == 1 && labelled_info(l)->longest == SEQ && mask[SEQ - 1], "case %zu", i);
        CHECK(n[0] == cases[i].of_z && n[1] == cases[i].of_q && (!n[0] || ids[0] != ids[SEQ - 1]), "case %zu: %d and %d stay", i, n[0],
              n[1]);
        labelled_destroy(&l);
    }
    place_close(&p);
}

/* SQuAD's own layout gives what its lists give, and questions without an answer may be answered by none. */
TEST(answers, squad_files_are_read) {
    static const char text[] =
        "{\"version\": \"2\", \"data\": [{\"title\": \"t\", \"paragraphs\": [{\"context\": \"The été of 1905 was hot.\", \"qas\": ["
        "{\"id\": \"a\", \"question\": \"When?\", \"answers\": [{\"text\": \"1905\", \"answer_start\": 11}], \"is_impossible\": false}, "
        "{\"id\": \"b\", \"question\": \"Who?\", \"answers\": [], \"is_impossible\": true}]}, {\"context\": \"Nothing.\", \"qas\": []}]}]}";
    struct place p;
    struct cb_err err = {0};
    place_open(&p, "gpt2", gpt2);
    CHECK_OK(train(&p, "qa", "full", p.spans, 2, &err));
    char *path = file_put(p.folder, "squad.json", text, strlen(text)), *guesses = io_path_join(p.folder, "guesses.json"), *written;
    struct cb_task_result r;
    const char *data = path;
    struct cb_eval_options o = {.model = p.out, .text = &data, .n_text = 1, .task = "qa", .submission = guesses};
    CHECK_OK(cb_eval_task(p.engine, &o, &r, &err));
    size_t n;
    CHECK_OK(io_read_file(&written, &n, guesses, 1 << 20, &err));
    CHECK(r.n == 2 && strstr(written, "\"a\": ") && strstr(written, "\"b\": "), "%s", written);
    // two places have no labels that a new head could be of
    char *out = io_path_join(p.folder, "again");
    struct cb_train_result trained;
    struct cb_train_options again = {.model = p.out,
                                     .out = out,
                                     .text = &data,
                                     .n_text = 1,
                                     .task = "qa",
                                     .tuner = "full",
                                     .new_head = true,
                                     .steps = 1,
                                     .run_json = "{}"};
    CHECK_FAILS(cb_train(p.engine, &again, &trained, &err), CB_E_UNSUPPORTED, "whose head has no labels");
    free(out);
    free(written);
    free(guesses);
    free(path);
    place_close(&p);
}

/* A .json may also hold a list of questions, one in an object, or one after another: what it holds says which. */
TEST(answers, lists_of_questions_are_read) {
#define ONE \
    "{\"context\": \"A 2 b.\", \"question\": \"What is \\\"paragraphs\\\"?\", \"answers\": {\"text\": [\"2\"], \"answer_start\": [2]}}"
    static const char *const texts[] = {"[" ONE "," ONE "]", " \n[" ONE ",\n " ONE "]", ONE "\n" ONE,
                                        "{\"version\": 1, \"data\": [" ONE ", " ONE "]}"};
#undef ONE
    struct place p;
    struct cb_err err = {0};
    place_open(&p, "gpt2", gpt2);
    CHECK_OK(train(&p, "qa", "full", p.spans, 2, &err));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct cb_task_result r;
        char *path = file_put(p.folder, "list.json", texts[i], strlen(texts[i]));
        const char *data = path;
        struct cb_eval_options o = {.model = p.out, .text = &data, .n_text = 1, .task = "qa"};
        CHECK_OK(cb_eval_task(p.engine, &o, &r, &err));
        CHECK(r.n == 2, "%zu: %lld", i, (long long)r.n);
        free(path);
    }
    place_close(&p);
}

/* ---- measures: values by SQuAD's own script */
TEST(answers, squad_measures) {
    static const struct {
        const char *answer, *right;
        double exact, f1;
    } cases[] = {
        {"The  Cat!", "cat", 1, 1},
        {"a cat and a dog", "the cat", 0, 0.5},
        {"МОСКВА", "москва.", 1, 1},
        {"1905", "1906", 0, 0},
        {"", "", 1, 1},
        {"the", "the", 1, 1},
        {"cat", "", 0, 0},
        {"theatre", "atre", 0, 0},
        {"«the» Zoë", "«» zoë", 0, 0.4},
        {"x x y", "x y y", 0, 2.0 * 2 / 6},
        {"don't stop", "dont, stop", 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_err err = {0};
        double exact, f1;
        json_t *right = json_array();
        if (*cases[i].right) json_array_append_new(right, json_string(cases[i].right));
        CHECK_OK(answer_score(&exact, &f1, cases[i].answer, strlen(cases[i].answer), right, &err));
        CHECK(exact == cases[i].exact && fabs(f1 - cases[i].f1) < 1e-12, "%s beside %s: exact %g, f1 %g", cases[i].answer, cases[i].right,
              exact, f1);
        json_decref(right);
    }
    // the best of several right ones
    struct cb_err err = {0};
    double exact, f1;
    json_t *right = json_pack("[s,s]", "in the year 1905", "1905");
    CHECK_OK(answer_score(&exact, &f1, "1905", 4, right, &err));
    CHECK(exact == 1 && f1 == 1);
    json_decref(right);
}

TEST(answers, wrong_records_are_refused) {
    static const struct {
        const char *task, *text, *message;
    } cases[] = {
        {"qa", "{\"question\": \"q\", \"answers\": {\"text\": [], \"answer_start\": []}}",
         "line 1: context: found nothing; wanted a string"},
        {"qa", "{\"context\": \"c\", \"answers\": []}", "question: found nothing; wanted a string"},
        {"qa", "{\"context\": \"c\", \"question\": \"q\"}", "answers: found nothing; wanted lists text and answer_start"},
        {"qa", "{\"context\": \"c\", \"question\": \"q\", \"answers\": {\"text\": [\"c\"]}}", "answers.answer_start: found nothing"},
        {"qa", "{\"context\": \"c\", \"question\": \"q\", \"answers\": [{\"text\": 3, \"answer_start\": 0}]}",
         "answers.text[0]: found 3; wanted a text"},
        {"qa", "{\"context\": \"c\", \"question\": \"q\", \"answers\": [{\"text\": \"c\", \"answer_start\": -1}]}",
         "answers.answer_start[0]: found -1"},
        {"qa", "{\"context\": \"été chaud\", \"question\": \"q\", \"answers\": [{\"text\": \"chaud\", \"answer_start\": 6}]}",
         "answer_start: found 6, where the context has \"aud\"; wanted where it has \"chaud\""},
        {"qa", "{\"context\": \"c\", \"question\": \"q\", \"answers\": [{\"text\": \"c\", \"answer_start\": 900000000000}]}",
         "found 900000000000"},
        {"qa", "{\"text\": \"t\", \"label\": 1}", "found a record of text and label; wanted context, question and answers"},
        {"choice", "{\"choices\": [\"a\", \"b\"], \"label\": 0}", "question: found nothing; wanted a string (or text, sent1)"},
        {"choice", "{\"question\": \"q\", \"choices\": [\"a\"], \"label\": 0}", "choices: found a list of 1; wanted a list of 2 to"},
        {"choice", "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"label\": 2}",
         "label: found 2; wanted the number of a choice, 0 to 1"},
        {"choice", "{\"question\": \"q\", \"choices\": [\"a\", \"b\"]}", "label: found nothing"},
        {"choice", "{\"question\": \"q\", \"choices\": [\"a\", 3], \"label\": 0}", "choices: found 3; wanted texts"},
    };
    struct place p;
    struct cb_err err;
    place_open(&p, "gpt2", gpt2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *path = file_put(p.folder, "wrong.jsonl", cases[i].text, strlen(cases[i].text));
        CHECK_FAILS(train(&p, cases[i].task, "full", path, 1, &err), CB_E_FORMAT, cases[i].message);
        free(path);
    }
    static const char *const squad[][2] = {
        {"[]", "squad.json"},
        {"{\"data\": 3}", "data: found 3; wanted SQuAD's list"},
        {"{\"data\": [{}]}", "data[0]: paragraphs: found nothing; wanted a list"},
        {"{\"data\": [{\"paragraphs\": [{\"context\": \"c\"}]}]}", "data[0].paragraphs[0]: qas: found nothing"},
        {"{\"data\": [{\"paragraphs\": [{\"qas\": [{\"question\": \"q\"}]}]}]}", "wanted a context"},
        {"{\"data\": []}", "no examples"},
    };
    for (size_t i = 0; i < sizeof squad / sizeof *squad; i++) {
        char *path = file_put(p.folder, "squad.json", squad[i][0], strlen(squad[i][0]));
        CHECK_FAILS(train(&p, "qa", "full", path, 1, &err), CB_E_FORMAT, squad[i][1]);
        free(path);
    }
    place_close(&p);
}

TEST(answers, tuners_are_compared) {
    struct place p;
    struct cb_err err = {0};
    place_open(&p, "bert", bert);
    static const char *const tuners[] = {"full@5e-3", "head"};
    const char *data = p.spans, *valid = p.held;
    struct cb_compare_result r;
    struct cb_compare_options o = {.model = p.model, .out = p.out, .task = "qa", .tuners = tuners, .n_tuners = 2, .metric = "exact"};
    o.text = &data, o.n_text = 1, o.valid = &valid, o.n_valid = 1, o.steps = 200, o.batch = 16, o.run_json = "{}";
    CHECK_FAILS(cb_compare(p.engine, &o, &r, &err), CB_E_USAGE, "exact_match");
    err = (struct cb_err){0};
    o.metric = NULL;
    CHECK_OK(cb_compare(p.engine, &o, &r, &err));
    CHECK(r.n_rows == 2 && r.rows[0].mean.valid > 0.8 && r.rows[0].mean.valid > r.rows[1].mean.valid + 0.2, "f1 %g of all, %g of the head",
          r.rows[0].mean.valid, r.rows[1].mean.valid);
    cb_free(r.rows);
    place_close(&p);
}
