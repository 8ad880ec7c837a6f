/* Expressions over modules: the language, and what blocks compute beside the reference libraries (../shared/fixtures/modules). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cambium/cambium.h"
#include "io/file.h"
#include "module_case.h"
#include "modules/expression.h"

/* ---- the language */
static enum cb_status parse(const char *text, struct expression **e, struct arena *arena, struct cb_err *err) {
    memset(err, 0, sizeof *err);
    return expression_parse(e, arena, text, "--modules", err);
}

TEST(compose, language) {
    struct arena *arena = arena_create();
    struct expression *e;
    struct cb_err err;
    CHECK_OK(parse("sum( x/a , -0.5 * stack(x/b,\t 2*\"x/c (1)\") )", &e, arena, &err));
    CHECK_OK(parse(" 0.5*dir/one ", &e, arena, &err));
    CHECK(!e->block && e->scale == 0.5 && e->weight == 1 && strcmp(e->path, "dir/one") == 0 && strcmp(e->name, "one") == 0);
    CHECK_OK(parse("2*sum(x/a, -0.5*stack(x/b, 2*\"x/c (1)\"))", &e, arena, &err));
    CHECK(strcmp(e->block->name, "sum") == 0 && e->n == 2 && e->weight == 1);
    CHECK(e->child[0]->scale == 2 && e->child[1]->weight == -1, "%g %g", e->child[0]->scale, e->child[1]->weight);
    CHECK(e->child[1]->child[1]->scale == 2 && strcmp(e->child[1]->child[1]->path, "x/c (1)") == 0);
    CHECK_OK(parse("avg(0.3*a, 0.7*sum(b, 2*c); normalize=false)", &e, arena, &err));
    CHECK(e->keeps_weights && !e->is_library && e->child[0]->weight == 0.3 && e->child[0]->scale == 1);
    CHECK(e->child[1]->weight == 0.7 && e->child[1]->child[1]->scale == 2);
    CHECK_OK(parse("a=x/y\nb=stack(a, x/z)\nroute(by=language; en=a, ru=b)", &e, arena, &err));
    CHECK(strcmp(e->field, "language") == 0 && strcmp(e->value[1], "ru") == 0 && strcmp(e->child[1]->child[0]->path, "x/y") == 0);
    CHECK(strcmp(e->child[0]->name, "a") == 0);
    CHECK_OK(parse("@language=ru\nstack(2*route(by=language; en=a, ru=0.5*b), route(by=language; en=c))", &e, arena, &err));
    CHECK(strcmp(e->child[0]->name, "b") == 0 && e->child[0]->scale == 1 && !e->child[1]->block && !e->child[1]->path);
    CHECK_OK(parse("@task_ids=1\nstack(multitask(a, 0.5*b), c)", &e, arena, &err));
    CHECK(strcmp(e->child[0]->name, "b") == 0 && e->child[0]->scale == 0.5 && strcmp(e->child[1]->name, "c") == 0);
    CHECK_OK(parse("batch(a, base; 2, 3)", &e, arena, &err));
    CHECK(e->n_numbers == 2 && e->number[1] == 3 && !e->child[1]->path);
    arena_destroy(&arena);
}

TEST(compose, refused_expressions) {
    static const struct {
        const char *text, *words;
        enum cb_status code;
    } rows[] = {
        {"", "found its end", CB_E_USAGE},
        {"stack(a, ", "at character 9: found its end", CB_E_USAGE},
        {"stack(a, b", "',' or ')'", CB_E_USAGE},
        {"stack(a, b))", "found ')'", CB_E_USAGE},
        {"stack(a,, b)", "at character 8", CB_E_USAGE},
        {"stick(a, b)", "wanted sum, stack", CB_E_USAGE},
        {"batch(a, b; 1)", "the rows of each of 2", CB_E_USAGE},
        {"batch(a, b; 1, -2)", "a whole number", CB_E_USAGE},
        {"batch(a, b; 1, 99999999999)", "a whole number", CB_E_USAGE},
        {"split(a, b, c; 1)", "how many positions", CB_E_USAGE},
        {"drop(a)", "how many layers", CB_E_USAGE},
        {"drop(a; -1)", "a whole number", CB_E_USAGE},
        {"1e38*x/m", "m: its weight is 1e+38; wanted -1e+06 to 1e+06", CB_E_USAGE},
        {"1e999*m", "its weight is inf", CB_E_USAGE},
        {"1e4*sum(a, 1e3*stack(b, c))", "stack: its weight is 1e+07", CB_E_USAGE},
        {"avg(1*a, -1*b)", "cannot be made to sum to 1", CB_E_USAGE},
        {"arrow(a, b; top_k=0)", "whole number from 1", CB_E_USAGE},
        {"arrow(a, b; temperature=x)", "found 'x'", CB_E_USAGE},
        {"arrow(a, b; best=2)", "top_k=NUMBER", CB_E_USAGE},
        {"arrow(a, b; general=2)", "2 of them general", CB_E_USAGE},
        {"arrow(a, sum(b, c))", "no module", CB_E_USAGE},
        {"avg(a, b; reading=both)", "reading=mean", CB_E_USAGE},
        {"route(by=x; a=m, a=n)", "twice", CB_E_USAGE},
        {"route(by=x; a, b)", "'='", CB_E_USAGE},
        {"route(r; a, b)", "by=FIELD", CB_E_USAGE},
        {"a=stack(b, x/m)\nb=avg(a, x/n)\na", "contains itself", CB_E_USAGE},
        {"a=a\na", "contains itself", CB_E_USAGE},
        {"a=m\na=n\na", "twice", CB_E_USAGE},
        {"a=sum(b\nc=m\nsum(a, c)", "at character 5 of a: found its end", CB_E_USAGE},
        {"a=m\nsum(a,, c)", "at character 6: found ', c)'", CB_E_USAGE},
        {"a=m\n=n\na", "at character 0: found '=n'; wanted NAME=MODULE", CB_E_USAGE},
        {"sum=m\nsum", "cannot be a name", CB_E_USAGE},
        {"sum(\"a, b)", "closing quotation mark", CB_E_USAGE},
        {"@task_ids=2\nmultitask(a, b)", "wanted 0 to 1", CB_E_USAGE},
        {"@task_ids=x\nmultitask(a, b)", "found x", CB_E_USAGE},
    };
    struct arena *arena = arena_create();
    struct expression *e;
    struct cb_err err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum cb_status status = parse(rows[i].text, &e, arena, &err);
        CHECK(status == rows[i].code && strstr(err.message, rows[i].words), "%s: %d, '%s'; wanted '%s'", rows[i].text, status, err.message,
              rows[i].words);
    }
    arena_destroy(&arena);
}

/* Depth, number and expansion are bounded. */
TEST(compose, bounded) {
    struct arena *arena = arena_create();
    struct expression *e;
    struct cb_err err;
    enum { MANY = 30000 };
    char *text = calloc(1, 8 * MANY), name[40];
    for (int i = 0; i < MANY; i++) strcat(text + 6 * i, "stack(");
    CHECK_FAILS(parse(text, &e, arena, &err), CB_E_LIMIT, "deeper");
    strcpy(text, "sum(a");
    for (int i = 0; i < MANY; i++) memcpy(text + 5 + 2 * i, ",a", 3);
    CHECK_FAILS(parse(strcat(text, ")"), &e, arena, &err), CB_E_LIMIT, "more than");
    // each name twice the one before it
    strcpy(text, "n0=x/y\n");
    for (int i = 1; i < 20; i++) {
        snprintf(name, sizeof name, "n%d=sum(n%d, n%d)\n", i, i - 1, i - 1);
        strcat(text, name);
    }
    CHECK_FAILS(parse(strcat(text, "n19"), &e, arena, &err), CB_E_LIMIT, "");
    free(text);
    arena_destroy(&arena);
}

/* ---- beside the libraries */
/* A fixture by an expression, in which ~ is the fixture's folder; NULL: the folder itself. */
struct composed {
    const char *name, *expression;
    const char *rows;  // lines of --rows; NULL: none
    const char *output, *golden;  // what is compared; NULL: all logits
    const char *setup;  // an adapter_setup.json in place of the fixture's, which says less than what was computed; NULL: none
};

static char *expanded(const char *text, const char *folder) {
    size_t n = strlen(text) + 1;
    for (const char *c = text; *c; c++) n += *c == '~' ? strlen(folder) : 0;
    char *out = calloc(1, n), *to = out;
    for (const char *c = text; out && *c; c++)
        if (*c == '~')
            to += sprintf(to, "%s", folder);
        else
            *to++ = *c;
    return out;
}

/* Worst error of an output over the rows of its tokens. */
static double output_error(const struct tensors *have, const struct tensors *golden, const char *name, const char *other) {
    const struct tensor *a = tensors_find(have, name), *b = tensors_find(golden, other), *mask = tensors_find(golden, "attention_mask");
    if (!a || !b || !type_equal(&a->type, &b->type)) return INFINITY;
    const bool by_token = mask && b->type.rank == 3;
    const int64_t masks = by_token ? type_elements(&mask->type) : 1;
    const int64_t rows = by_token ? b->type.dim[0] * b->type.dim[1] : 1, width = type_elements(&b->type) / rows;
    double worst = 0;
    for (int64_t i = 0; i < rows; i++)
        if (!by_token || ((const int64_t *)tensor_data(mask))[i % masks])
            worst = fmax(worst, worst_error((const float *)tensor_data(a) + i * width, (const float *)tensor_data(b) + i * width, width));
    return worst;
}

/* A folder that is the fixture's but for its adapter_setup.json; its fusion's folder has the name that the library gives it. */
static enum cb_status setup_make(char out[200], const struct composed *c, const char *folder, struct cb_err *err) {
    static const char *const names[][2] = {{"a", "a"}, {"b", "b"}, {"out", "out"}, {"mix", "a,b"}};
    char from[600], to[300], temporary[128];
    if (!temporary_folder(temporary, "setup")) FAIL(err, CB_E_IO, "no temporary folder");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(from, sizeof from, "%s/%s", folder, names[i][0]);
        snprintf(to, sizeof to, "%s/%s", temporary, names[i][1]);
        char *full = realpath(from, NULL);
        const bool failed = full && symlink(full, to) != 0;
        free(full);
        if (failed) FAIL(err, CB_E_IO, "%s: no link", to);
    }
    snprintf(out, 200, "%s", temporary);
    snprintf(to, sizeof to, "%s/adapter_setup.json", temporary);
    return io_write_file(to, c->setup, strlen(c->setup), err);
}

static enum cb_status composed_run(const struct composed *c, const char *shared, char message[400], struct cb_err *err) {
    char folder[400], path[800], base[500], out[200], rows[200], temporary[128], *text;
    size_t n;
    json_t *json = NULL;
    struct cb_engine *engine = NULL;
    struct cb_forward_result result = {0};
    struct tensors *golden = NULL, *have = NULL;
    snprintf(folder, sizeof folder, "%s/fixtures/modules/%s", shared, c->name);
    snprintf(path, sizeof path, "%s/golden.json", folder);
    TRY(io_read_file(&text, &n, path, 1 << 24, err));
    enum cb_status status = json_parse_object(&json, text, n, path, err);
    free(text);
    TRY(status);
    snprintf(base, sizeof base, "%s/fixtures/modules/%s", shared, json_string_value(json_object_get(json, "base")));
    const double tolerance = fmax(2e-5, json_number_value(json_object_get(json_object_get(json, "tolerance"), "logits")));
    json_decref(json);
    snprintf(path, sizeof path, "%s/golden.safetensors", folder);
    snprintf(out, sizeof out, "%s/out.safetensors", temporary_folder(temporary, "composed"));
    char own[200], *expression = NULL;
    if (c->setup) TRY(setup_make(own, c, folder, err));
    expression = expanded(c->expression ? c->expression : "~", c->setup ? own : folder);
    struct cb_forward_options options = {.hidden = c->output != NULL, .model = base, .modules = expression, .input = path, .output = out};
    snprintf(rows, sizeof rows, "%s/rows.jsonl", temporary);
    if (c->rows) TRY(io_write_file(options.rows = rows, c->rows, strlen(c->rows), err));
    status = cb_engine_create(&engine, &(struct cb_engine_options){.threads = 2}, err);
    if (status == CB_OK) status = cb_forward(engine, &options, &result, err);
    if (status == CB_OK) status = tensors_open(&golden, path, err);
    if (status == CB_OK) status = tensors_open(&have, out, err);
    int compared = 0;
    for (int i = 0; status == CB_OK && i < tensors_count(have); i++) {
        const char *name = tensors_at(have, i)->name;
        // where every module has outputs of its own, "logits" holds them all
        const bool is_all = strcmp(name, "logits") == 0 && (strstr(expression, "parallel(") || !tensors_find(golden, "logits"));
        const char *other = c->output ? c->golden : name;
        if (c->output ? strcmp(name, c->output) != 0 : strncmp(name, "logits", 6) != 0 || is_all) continue;
        if (!tensors_find(golden, other)) continue;
        const double e = output_error(have, golden, name, other);
        compared++;
        if (!(e < tolerance)) snprintf(message, 400, "%s: %.100s: error %g", c->name, name, e);
    }
    if (status == CB_OK && !compared) snprintf(message, 400, "%s: nothing to compare", c->name);
    tensors_destroy(&golden);
    tensors_destroy(&have);
    free(expression);
    cb_free(result.shapes);
    cb_engine_destroy(&engine);
    return status;
}

#define STATES(name_) \
    { .name = (name_), .output = "final", .golden = "hidden" }
TEST(compose, fixtures) {
    static const struct composed rows[] = {
        {.name = "multi_active_lora", .expression = "sum(~/a, ~/b)"},
        {.name = "multi_active_lora_dora", .expression = "sum(~/a, ~/b)"},
        {.name = "hotswap_lora", .expression = "~/b"},
        {.name = "hotswap_lora_rank", .expression = "~/b"},
        {.name = "mixed_batch_lora", .expression = "batch(~/b, base, ~/a; 1, 1, 1)"},
        {.name = "mixed_batch_lora_heads", .expression = "batch(~/b, ~/a, base; 1, 1, 1)"},
        {.name = "mixed_batch_embed", .expression = "a=~/a\nb=~/b\nbatch(a, b, a; 1, 1, 1)"},
        {.name = "mixed_batch_embed", .expression = "parallel(~/a, ~/b)"},
        {.name = "mixed_batch_lora", .expression = "route(by=of; 1=~/a, 2=~/b)", .rows = "{\"of\":\"2\"}\n{}\n{\"of\":\"1\"}\n"},
        {.name = "mixed_batch_lora", .expression = "@of=2\nbatch(route(by=of; 1=~/a, 2=~/b), base, ~/a; 1, 1, 1)"},
        {.name = "arrow_llama", .expression = "arrow(~/task0, ~/task1, ~/task2, ~/task3; top_k=2, temperature=0.7, seed=5)"},
        {.name = "arrow_llama_gks", .expression = "arrow(~/task0, ~/task1, ~/task2, ~/general0, ~/general1; top_k=3, seed=5, general=2)"},
        {.name = "mixed_kinds_lora_loha_ia3", .expression = "sum(~/lora, ~/loha, ~/lokrx)"},
        STATES("compose_stack_bert"),
        STATES("compose_stack_madx_roberta"),
        STATES("compose_stack_lora_bert"),
        STATES("compose_stack_mixed_bert"),
        STATES("compose_stack_gpt2"),
        STATES("compose_fuse_bert"),
        STATES("compose_fuse_stack_roberta"),
        STATES("compose_fuse_double_gpt2"),
        // its file does not say what its fusion is called
        {.name = "compose_fuse_named_bert", .expression = "fuse(~/mix; ~/a, ~/b)", .output = "final", .golden = "hidden"},
        STATES("compose_split_bert"),
        STATES("compose_split_nested_roberta"),
        STATES("compose_batchsplit_bert"),
        STATES("compose_batchsplit_lora_bert"),
        STATES("compose_parallel_bert"),
        STATES("compose_parallel_lora_roberta"),
        STATES("compose_parallel_stack_bert"),
        STATES("compose_parallel_gpt2"),
        STATES("compose_stack_prefix_bert"),
        STATES("compose_batchsplit_prefix_bert"),
        STATES("compose_parallel_prefix_bert"),
        STATES("compose_average_bert"),
        STATES("compose_average_default_bert"),
        STATES("compose_average_lora_bert"),
        // its file does not say that the weights are to be kept
        {.name = "compose_average_raw_bert",
         .expression = "avg(0.9*~/a, 0.8*~/b; normalize=false, reading=adapters)",
         .output = "final",
         .golden = "hidden"},
        {.name = "compose_multitask_mtl_lora_bert", .rows = "{\"task_ids\": 1}\n{\"task_ids\": 0}\n{\"task_ids\": 1}\n"},
        {.name = "compose_multitask_lora_bert", .rows = "{\"task_ids\": 1}\n{\"task_ids\": 0}\n{\"task_ids\": 1}\n"},
        // logits of heads: of folders of their own, and such as modules bring
        {.name = "compose_average_bert"},
        {.name = "compose_average_default_bert"},
        {.name = "compose_average_lora_bert"},
        {.name = "compose_average_raw_bert",
         .setup = "{\"adapter_setup\": {\"type\": \"Average\", \"kwargs\": {\"weights\": [0.9, 0.8], \"normalize_weights\": false},"
                  "\"children\": [{\"type\": \"single\", \"children\": [\"a\"]}, {\"type\": \"single\", \"children\": [\"b\"]}]},"
                  "\"head_setup\": [\"out\"]}"},
        {.name = "compose_fuse_named_bert",
         .setup = "{\"adapter_setup\": {\"type\": \"Fuse\", \"children\": [{\"type\": \"single\", \"children\": [\"a\"]},"
                  "{\"type\": \"single\", \"children\": [\"b\"]}]}, \"head_setup\": [\"out\"]}"},
        {.name = "compose_batchsplit_bert"},
        {.name = "compose_fuse_bert"},
        {.name = "compose_fuse_double_gpt2"},
        {.name = "compose_fuse_stack_roberta"},
        {.name = "compose_parallel_bert"},
        {.name = "compose_parallel_gpt2"},
        {.name = "compose_parallel_lora_roberta"},
        {.name = "compose_parallel_prefix_bert"},
        {.name = "compose_parallel_stack_bert"},
        {.name = "compose_split_bert"},
        {.name = "compose_split_nested_roberta"},
        {.name = "compose_stack_bert"},
        {.name = "compose_stack_gpt2"},
        {.name = "compose_stack_lora_bert"},
        {.name = "compose_stack_madx_roberta"},
        {.name = "compose_stack_mixed_bert"},
        {.name = "compose_stack_prefix_bert"},
    };
    const char *shared = shared_dir();
    if (!shared) return;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cb_err err = {0};
        char message[400] = "";
        enum cb_status status = composed_run(&rows[i], shared, message, &err);
        CHECK(status == CB_OK, "%s: %s", rows[i].name, err.message);
        CHECK(!*message, "%s", message);
    }
}

/* ---- folders of fusions */
static bool same_bytes(const char *a, const char *b, const char *name) {
    struct cb_err err = {0};
    char path[2][600], *text[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    snprintf(path[0], sizeof path[0], "%s/%s", a, name);
    snprintf(path[1], sizeof path[1], "%s/%s", b, name);
    for (int i = 0; i < 2; i++) CHECK_OK(io_read_file(&text[i], &n[i], path[i], 1 << 24, &err));
    const bool same = n[0] == n[1] && memcmp(text[0], text[1], n[0]) == 0;
    free(text[0]);
    free(text[1]);
    return same;
}

/* The library's folder, read and written twice: its tensors, its configuration, and the same bytes again. */
TEST(compose, fusions_are_saved_as_they_are_read) {
    static const char *const rows[][3] = {{"compose_fuse_bert", "a,b,c", "base_bert"},
                                          {"compose_fuse_named_bert", "mix", "base_bert"},
                                          {"compose_fuse_double_gpt2", "a,b", "base_gpt2"}};
    static const char weights[] = "model_adapter_fusion.safetensors", config[] = "adapter_fusion_config.json";
    const char *shared = shared_dir();
    if (!shared) return;
    for (int i = 0; i < 3; i++) {
        struct cb_err err = {0};
        char from[500], base[500], to[2][200], temporary[128];
        struct base b;
        snprintf(base, sizeof base, "%s/fixtures/modules/%s", shared, rows[i][2]);
        snprintf(from, sizeof from, "%s/fixtures/modules/%s/%s", shared, rows[i][0], rows[i][1]);
        temporary_folder(temporary, "fusion");
        CHECK_OK(base_open(&b, base, &err));
        for (int k = 0; k < 2; k++) {
            struct module *m;
            snprintf(to[k], sizeof to[k], "%s/%d", temporary, k);
            CHECK_OK(module_load(&m, b.store, k ? to[0] : from, "m", &b.sites, &err));
            CHECK_OK(module_save(m, b.store, to[k], &err));
            module_remove(m, b.store);
            module_destroy(&m);
        }
        CHECK(same_bytes(to[0], to[1], weights) && same_bytes(to[0], to[1], config), "%s: a second save differs", rows[i][0]);
        json_t *object[2];
        struct tensors *file[2];
        for (int k = 0; k < 2; k++) {
            char path[600], *text;
            size_t n;
            snprintf(path, sizeof path, "%s/%s", k ? to[0] : from, weights);
            CHECK_OK(tensors_open(&file[k], path, &err));
            snprintf(path, sizeof path, "%s/%s", k ? to[0] : from, config);
            CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
            CHECK_OK(json_parse_object(&object[k], text, n, path, &err));
            free(text);
        }
        CHECK(json_equal(object[0], object[1]), "%s: another configuration", rows[i][0]);
        CHECK(tensors_count(file[0]) && tensors_count(file[0]) == tensors_count(file[1]), "%s: other tensors", rows[i][0]);
        for (int k = 0; k < tensors_count(file[0]); k++) {
            const struct tensor *t = tensors_at(file[0], k), *u = tensors_find(file[1], t->name);
            CHECK(u && type_equal(&t->type, &u->type) && memcmp(tensor_data(t), tensor_data(u), (size_t)t->bytes) == 0, "%s: %s",
                  rows[i][0], t->name);
        }
        for (int k = 0; k < 2; k++) {
            json_decref(object[k]);
            tensors_destroy(&file[k]);
        }
        base_close(&b);
    }
}
