/* Hypernetworks: the plain module for a value gives what the hypernetwork gives, rows of a batch what they give alone, and configurations that cannot be. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "io/file.h"
#include "module_case.h"
#include "modules/expression.h"

#define VALUES "embedding=4,hidden=7,size=5,values=task=a+task=b+task=c+language=en+language=ru"
static const char *const specs[] = {"hyper:r=3,alpha=5," VALUES,
                                    "hyper:generates=bottleneck,reduction_factor=4,non_linearity=gelu," VALUES};
static const char *const families[] = {"gpt2", "llama", "bert", "t5", "qwen3_moe"};
static const char *const task_input = "route.task:a,b,c", *const language_input = "route.language:en,ru";
static const struct model_io io = {.batch = 3, .tokens = 6, .want_logits = true, .want_loss = true};

struct hyper_case {
    struct base b;
    struct module *m;
};

static void draw(struct hyper_case *c) {
    struct rng rng = rng_make(3, 4);
    for (int i = 0; i < module_n_params(c->m); i++) {
        struct store_entry *entry = store_find(c->b.store, module_param(c->m, i)->name);
        for (int64_t k = 0; k < type_elements(&entry->type); k++) ((float *)entry->data)[k] += (float)(0.1 * rng_normal(&rng));
    }
}

static enum cb_status case_open(struct hyper_case *c, const char *family, const char *spec, struct cb_err *err) {
    *c = (struct hyper_case){0};
    TRY(base_fresh(&c->b, family, err));
    TRY(module_create(&c->m, c->b.store, spec, "m", "base", 5, &c->b.sites, err));
    draw(c);
    return CB_OK;
}

static void case_close(struct hyper_case *c) {
    module_destroy(&c->m);
    base_close(&c->b);
}

/* Logits, with gradients of the module where it is to give them. rows: 3 numbers of each field, NULL: all rows are one. */
static enum cb_status run(struct hyper_case *c, struct runner *r, const struct module *m, bool gradients, const int32_t (*rows)[3],
                          struct cb_err *err) {
    const struct module *modules[1] = {m};
    struct module_list list = {.modules = modules, .n = 1};
    TRY(with_modules(&c->b, r, &list, gradients ? m : NULL, &io, err));
    inputs_fill(r, (int32_t)c->b.model->vocab);
    if (rows) memcpy(runner_data(r, task_input), rows[0], sizeof rows[0]);
    if (rows) memcpy(runner_data(r, language_input), rows[1], sizeof rows[1]);
    return runner_run(r, err);
}

static double difference(struct runner *a, struct runner *b) {
    return worst_error(runner_data(a, "logits"), runner_data(b, "logits"), runner_elements(a, "logits"));
}

/* Exported, saved and loaded: what the hypernetwork gives for that value, and no other. */
static enum cb_status plain_trial(struct hyper_case *c, char message[300], struct cb_err *err) {
    const struct module_evaluator evaluator = test_evaluator();
    struct runner want = {0}, other = {0}, have = {0}, loaded = {0};
    struct module *plain = NULL, *again = NULL;
    char folder[128];
    TRY(module_set_field(c->m, "task", "b", err));
    TRY(module_set_field(c->m, "language", "ru", err));
    TRY(run(c, &want, c->m, false, NULL, err));
    TRY(module_plain(&plain, c->m, c->b.store, "plain", &c->b.sites, &evaluator, err));
    TRY(run(c, &have, plain, false, NULL, err));
    if (!temporary_folder(folder, "hyper")) FAIL(err, CB_E_IO, "no temporary folder");
    TRY(module_save(plain, c->b.store, folder, err));
    TRY(module_load(&again, c->b.store, folder, "again", &c->b.sites, err));
    TRY(run(c, &loaded, again, false, NULL, err));
    TRY(module_set_field(c->m, "task", "c", err));
    TRY(run(c, &other, c->m, false, NULL, err));
    const double made = difference(&have, &want), read = difference(&loaded, &want), apart = difference(&other, &want);
    if (!(made < 1e-6) || !(read < 1e-6) || !(apart > 1e-3))
        snprintf(message, 300, "plain %g, loaded %g, another value %g", made, read, apart);
    if (strcmp(module_tuner(again)->name, module_tuner(plain)->name) != 0) snprintf(message, 300, "another tuner");
    struct runner *all[] = {&want, &other, &have, &loaded};
    for (int i = 0; i < 4; i++) runner_destroy(all[i]);
    module_destroy(&plain);
    module_destroy(&again);
    return CB_OK;
}

TEST(hyper, plain_modules) {
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (int k = 0; k < 2; k++) {
            struct cb_err err = {0};
            struct hyper_case c;
            char message[300] = "";
            CHECK_OK(case_open(&c, families[f], specs[k], &err));
            CHECK_OK(plain_trial(&c, message, &err));
            CHECK(!*message, "%s, %s: %s", families[f], specs[k], message);
            case_close(&c);
        }
}

/* Row i of a batch in which rows are what they are, beside a batch in which all rows are what row i is. */
static enum cb_status rows_trial(struct hyper_case *c, char message[300], struct cb_err *err) {
    static const char *const tasks[] = {"a", "b", "c"}, *const languages[] = {"en", "ru"};
    static const int32_t rows[2][3] = {{2, 0, 1}, {1, 1, 0}};
    struct runner all = {0};
    TRY(run(c, &all, c->m, false, rows, err));
    const int64_t n = runner_elements(&all, "logits") / io.batch;
    for (int i = 0; i < io.batch; i++) {
        struct runner one = {0};
        TRY(module_set_field(c->m, "task", tasks[rows[0][i]], err));
        TRY(module_set_field(c->m, "language", languages[rows[1][i]], err));
        TRY(run(c, &one, c->m, false, NULL, err));
        const double e = worst_error((float *)runner_data(&all, "logits") + i * n, (float *)runner_data(&one, "logits") + i * n, n);
        if (!(e < 2e-6)) snprintf(message, 300, "row %d: error %g", i, e);
        runner_destroy(&one);
    }
    runner_destroy(&all);
    return CB_OK;
}

TEST(hyper, rows_of_a_batch) {
    for (size_t f = 0; f < 4; f++)
        for (int k = 0; k < 2; k++) {
            struct cb_err err = {0};
            struct hyper_case c;
            char message[300] = "";
            CHECK_OK(case_open(&c, families[f], specs[k], &err));
            CHECK_OK(rows_trial(&c, message, &err));
            CHECK(!*message, "%s, %s: %s", families[f], specs[k], message);
            case_close(&c);
        }
}

/* Gradients where each row is told to be the same are those where all rows are that. */
static enum cb_status gradients_trial(struct hyper_case *c, char message[300], struct cb_err *err) {
    static const int32_t rows[2][3] = {{1, 1, 1}, {0, 0, 0}};
    struct runner each = {0}, one = {0};
    TRY(run(c, &each, c->m, true, rows, err));
    TRY(module_set_field(c->m, "task", "b", err));
    TRY(module_set_field(c->m, "language", "en", err));
    TRY(run(c, &one, c->m, true, NULL, err));
    for (int i = 0; i < module_n_params(c->m); i++) {
        char name[300];
        snprintf(name, sizeof name, "grad.%s", module_param(c->m, i)->key);
        const float *a = runner_data(&each, name), *b = runner_data(&one, name);
        const double e = a && b ? relative_norm(a, b, runner_elements(&one, name)) : INFINITY;
        if (!(e < 1e-4)) snprintf(message, 300, "%.200s: error %g", name, e);
    }
    runner_destroy(&each);
    runner_destroy(&one);
    return CB_OK;
}

TEST(hyper, gradients_of_rows) {
    for (int k = 0; k < 2; k++) {
        struct cb_err err = {0};
        struct hyper_case c;
        char message[300] = "";
        CHECK_OK(case_open(&c, "llama", specs[k], &err));
        CHECK_OK(gradients_trial(&c, message, &err));
        CHECK(!*message, "%s: %s", specs[k], message);
        case_close(&c);
    }
}

/* One network for all sites: sites of one shape have one head. */
TEST(hyper, heads_are_shared) {
    struct cb_err err = {0};
    struct hyper_case c;
    CHECK_OK(case_open(&c, "gpt2", specs[0], &err));
    int heads = 0;
    for (int i = 0; i < module_n_params(c.m); i++) heads += strstr(module_param(c.m, i)->key, ".hyper.lora_") != NULL;
    // GPT-2 has linear layers of four shapes: C to 3 C, C, 4 C, and 4 C to C
    CHECK(heads == 5, "%d heads", heads);
    CHECK(module_n_sites(c.m) >= 8, "%d sites", module_n_sites(c.m));
    case_close(&c);
}

/* What cannot be done where rows differ. */
TEST(hyper, refusals) {
    struct cb_err err = {0};
    struct hyper_case c;
    struct module *plain;
    struct arena *arena = arena_create();
    const struct module_evaluator evaluator = test_evaluator();
    CHECK_OK(case_open(&c, "llama", specs[0], &err));
    CHECK_FAILS(module_plain(&plain, c.m, c.b.store, "plain", &c.b.sites, &evaluator, &err), CB_E_ARGUMENT,
                "field task: found no value; wanted one of a, b, c");
    CHECK_FAILS(base_fold(&c.b, c.m, false, &err), CB_E_UNSUPPORTED, "rows have weights of their own");
    CHECK_FAILS(module_set_field(c.m, "task", "z", &err), CB_E_NAME, "field task: found z; wanted one of a, b, c");
    CHECK_FAILS(module_set_field(c.m, "tongue", "en", &err), CB_E_NAME,
                "field tongue: a module of kind hyper that depends on no such field");
    struct expression *e;
    CHECK_OK(expression_parse(&e, arena, "@task=a\nbatch(m, base; 1, 2)", "test", &err));
    CHECK(e->n_fields == 1 && !strcmp(e->fields[0], "task") && !strcmp(e->fields[1], "a"), "fields of an expression");
    e->child[0]->module = 0;
    const struct module *modules[1] = {c.m};
    struct module_list list = {.modules = modules, .n = 1, .expression = e, .n_composed = 1};
    CHECK_FAILS(module_list_check(&list, &err), CB_E_UNSUPPORTED, "m: its weights are each row's own, by field task; only sum and stack");
    CHECK_OK(module_set_field(c.m, "task", "a", &err));
    CHECK_OK(module_set_field(c.m, "language", "en", &err));
    CHECK_OK(module_list_check(&list, &err));
    arena_destroy(&arena);
    case_close(&c);
}

TEST(hyper, wrong_configurations) {
    static const struct {
        const char *spec, *message;
        enum cb_status code;
    } wrong[] = {
        {"hyper:values=task", "metadata: found \"task\"; wanted \"FIELD=VALUE\"", CB_E_FORMAT},
        {"hyper:values==a", "metadata: found \"=a\"; wanted", CB_E_FORMAT},
        {"hyper:values=task=", "metadata: found \"task=\"; wanted", CB_E_FORMAT},
        {"hyper:values=task=a b", "metadata: found \"task=a b\"; wanted", CB_E_FORMAT},
        {"hyper:values=task=a;b", "metadata: found \"task=a;b\"; wanted", CB_E_FORMAT},
        {"hyper:values=task=a+task=a", "metadata: found task=a twice; wanted it once", CB_E_FORMAT},
        {"hyper:values=task=a,at=task=b", "metadata_default: ", CB_E_NAME},
        {"hyper:values=task=a,at=task=b", "field task: found b; wanted one of a", CB_E_NAME},
        {"hyper:at=language=en", "field language: a module of kind hyper that depends on no such field", CB_E_NAME},
        {"hyper:values=a=1+b=1+c=1+d=1+e=1+f=1+g=1+h=1+i=1+j=1+k=1+l=1+m=1+n=1+o=1+p=1+q=1", "more than 16 fields", CB_E_LIMIT},
        {"hyper:generates=prefix", "generates: found prefix; wanted lora or bottleneck", CB_E_FORMAT},
        {"hyper:r=0", "r: found 0; wanted", CB_E_FORMAT},
        {"hyper:embedding=0", "embedding_size: found 0; wanted", CB_E_FORMAT},
        {"hyper:hidden=70000", "hidden_size: found 70000; wanted", CB_E_FORMAT},
        {"hyper:size=1", "projection_size: found 1; wanted", CB_E_FORMAT},
        {"hyper:non_linearity=bend", "non_linearity: found bend; wanted", CB_E_UNSUPPORTED},
        {"hyper:generates=bottleneck,reduction_factor=0", "reduction_factor: found 0.0; wanted", CB_E_FORMAT},
        {"hyper:targets=.*attention_adapters", "found among the targets; wanted linear layers, for which generates=lora", CB_E_NAME},
        {"hyper:generates=bottleneck,targets=q_proj", "found among the targets; wanted places where an output", CB_E_NAME},
        {"hyper:targets=nothing", "no module of the model has such a name", CB_E_NAME},
    };
    struct base b;
    struct cb_err err = {0};
    CHECK_OK(base_fresh(&b, "llama", &err));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct module *m;
        CHECK_FAILS(module_create(&m, b.store, wrong[i].spec, "wrong", NULL, 1, &b.sites, &err), wrong[i].code, wrong[i].message);
    }
    base_close(&b);
}

/* A configuration that another file would go with: every size is compared before anything is made. */
TEST(hyper, wrong_files) {
    static const struct {
        const char *key;
        int64_t value;
        const char *text, *message;
    } wrong[] = {{"r", 60000, NULL, "lora_A.3x"},
                 {"projection_size", 65536, NULL, "wanted f32"},
                 {"hidden_size", 65536, NULL, "wanted f32"},
                 {"embedding_size", 65536, NULL, "wanted f32"},
                 {"metadata", 0, "[\"task=a\",\"task=b\",\"task=d\",\"task=c\",\"language=en\",\"language=ru\"]", "field.task.weight"},
                 {"metadata", 0, "[\"task=a\",\"task=b\",\"task=c\"]", "mlp.0.weight: found f32[7,16]; wanted f32[7,12]"},
                 {"metadata", 0, "\"task=a\"", "metadata: found \"task=a\"; wanted a list"},
                 {"metadata", 0, "[1]", "metadata: found 1; wanted \"FIELD=VALUE\""},
                 {"generates", 0, "\"bottleneck\"", "found among the targets; wanted places"}};
    struct cb_err err = {0};
    struct hyper_case c;
    struct module *again;
    char folder[128], path[160], *text;
    size_t n;
    CHECK_OK(case_open(&c, "llama", specs[0], &err));
    CHECK(temporary_folder(folder, "hyper"), "no temporary folder");
    CHECK_OK(module_save(c.m, c.b.store, folder, &err));
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *config = json_loads(text, 0, NULL);
        json_t *value = wrong[i].text ? json_loads(wrong[i].text, JSON_DECODE_ANY, NULL) : json_integer(wrong[i].value);
        CHECK(config && json_object_set_new(config, wrong[i].key, value) == 0, "%s", wrong[i].key);
        CHECK(json_dump_file(config, path, 0) == 0, "cannot write");
        const enum cb_status status = module_load(&again, c.b.store, folder, "again", &c.b.sites, &err);
        CHECK(status != CB_OK && strstr(err.message, wrong[i].message), "%s: %s", wrong[i].key, err.message);
        err = (struct cb_err){0};
        json_decref(config);
    }
    free(text);
    case_close(&c);
}
