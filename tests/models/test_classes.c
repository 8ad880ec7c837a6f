/* Every class of every family: described, built, written and read again; weights that a file may lack. */
#include "../harness.h"
#include "graph_runner.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "ops/ops.h"

/* A tiny fresh model of a class. */
static enum cb_status class_make(struct model **m, struct store **store, const struct family *family, const char *class,
                                 struct cb_err *err) {
    char changes[600];
    json_t *config = NULL;
    snprintf(changes, sizeof changes, "%s,architectures=[%s]", family->tiny, class);
    TRY(store_create(store, err));
    TRY(model_default_config(&config, family, changes, err));
    enum cb_status status = model_from_config(m, config, class, err);
    json_decref(config);
    return status == CB_OK ? model_init_weights(*m, *store, 7, err) : status;
}

/* The graph of its outputs, planned and run. */
static enum cb_status class_run(struct runner *r, const struct model *m, const struct store *store, struct cb_err *err) {
    struct model_io io = {.batch = 2, .tokens = 6, .want_logits = true};
    TRY(runner_create(r, err));
    struct nn nn = nn_make(r->g);
    TRY(model_build(m, &nn, &io, err));
    TRY(runner_plan(r, store, err));
    static const char *const inputs[2] = {"input_ids", "decoder_input_ids"};
    for (int k = 0; k < 2; k++) {
        int32_t *ids = runner_data(r, inputs[k]);
        for (int64_t i = 0; ids && i < runner_elements(r, inputs[k]); i++) ids[i] = (int32_t)((i * 7 + 3) % m->vocab);
        // a classifier of an encoder-decoder reads the row of the end of text
        for (int64_t row = 0; ids && m->n_eos && row < 2; row++) ids[row * 6 + 5] = (int32_t)m->eos[0];
    }
    return runner_run(r, err);
}

static bool same_file(const char *a, const char *b, const char *name) {
    struct cb_err err = {0};
    char *text[2] = {NULL, NULL}, path[400];
    size_t n[2] = {0, 1};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", i ? b : a, name);
        if (io_read_file(&text[i], &n[i], path, 1 << 24, &err) != CB_OK) n[i] = (size_t)i + 1;
    }
    bool same = n[0] == n[1] && text[0] && text[1] && memcmp(text[0], text[1], n[0]) == 0;
    free(text[0]);
    free(text[1]);
    return same;
}

/* Writes, reads and writes again: the same bytes. */
static enum cb_status class_write(const struct model *m, const struct store *store, const char *name, struct cb_err *err) {
    char first[128], second[128];
    struct model *read = NULL;
    struct store *again;
    temporary_folder(first, "class");
    temporary_folder(second, "class");
    TRY(model_save(m, store, first, 0, CB_DTYPE_COUNT, err));
    TRY(store_create(&again, err));
    enum cb_status status = model_load(&read, again, first, err);
    if (status == CB_OK && read->n_weights != m->n_weights) status = err_set(err, CB_E_NAME, __FILE__, __LINE__, "%s: other weights", name);
    if (status == CB_OK) status = model_save(read, again, second, 0, CB_DTYPE_COUNT, err);
    if (status == CB_OK && !(same_file(first, second, "model.safetensors") && same_file(first, second, "config.json")))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: other bytes", name);
    model_destroy(&read);
    store_destroy(&again);
    return status;
}

TEST(models, every_class) {
    int n, checked = 0;
    const struct family *const *families = model_families(&n);
    const struct model_class *class;
    for (int i = 0; i < n; i++)
        for (int k = 0; (class = model_class_at(families[i], k)); k++) {
            struct cb_err err = {0};
            struct runner r = {0};
            struct model *m = NULL;
            struct store *store = NULL;
            char name[MODEL_CLASS_NAME];
            CHECK(model_class_name(name, families[i], class), "%s: its name is too long", families[i]->name);
            CHECK_OK(class_make(&m, &store, families[i], name, &err));
            CHECK(strcmp(m->class->name, name) == 0 && m->class->head == class->head, "%s: read as %s", name, m->class->name);
            enum cb_status status = class_run(&r, m, store, &err);
            CHECK(status == CB_OK, "%s: %s", name, err.message);
            status = class_write(m, store, name, &err);
            CHECK(status == CB_OK, "%s: %s", name, err.message);
            runner_destroy(&r);
            model_destroy(&m);
            store_destroy(&store);
            checked++;
        }
    CHECK(checked >= 150, "%d classes", checked);
}

/* A body's pooler is kept where its file has one, and not asked for where it has none; half of one is refused. */
TEST(models, optional_pooler) {
    static const char *const cases[][2] = {
        {"bert", "BertModel"}, {"roberta", "RobertaModel"}, {"xlm-roberta", "XLMRobertaModel"}, {"albert", "AlbertModel"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_err err = {0};
        struct runner with = {0}, without = {0};
        struct model *m = NULL, *less = NULL, *full = NULL;
        struct store *store, *read;
        char folder[128];
        const char *weight = NULL, *bias = NULL;
        CHECK_OK(class_make(&m, &store, model_family(cases[i][0]), cases[i][1], &err));
        for (int k = 0; k < m->n_weights; k++)
            if (m->weights[k].is_optional) *(strstr(m->weights[k].name, ".bias") ? &bias : &weight) = m->weights[k].name;
        CHECK(weight && bias, "%s: no pooler", cases[i][1]);
        CHECK_OK(class_run(&with, m, store, &err));
        CHECK(runner_data(&with, "pooler_output") && runner_elements(&with, "pooler_output") == 2 * m->n_embd);
        // the table without it is what a file without it is read by
        CHECK_OK(model_from_config(&less, m->config, "config.json", &err));
        CHECK_OK(model_from_config(&full, m->config, "config.json", &err));
        model_drop_optional(less);
        CHECK(less->n_weights == m->n_weights - 2 && !model_find_weight(less, weight) && model_find_weight(less, less->embedding));
        CHECK_OK(class_write(less, store, cases[i][1], &err));
        CHECK_OK(class_run(&without, less, store, &err));
        CHECK(!runner_data(&without, "pooler_output") && runner_data(&without, "last_hidden_state"));
        CHECK(memcmp(runner_data(&without, "last_hidden_state"), runner_data(&with, "last_hidden_state"),
                     sizeof(float) * (size_t)runner_elements(&with, "last_hidden_state")) == 0);
        // half of it
        store_remove(store, bias);
        for (int k = 0; k < full->n_weights; k++)
            if (strcmp(full->weights[k].name, bias) == 0)
                ((struct model_weight *)full->weights)[k].is_optional = true;
            else
                ((struct model_weight *)full->weights)[k].is_optional = false;
        model_drop_optional(full);
        temporary_folder(folder, "half");
        CHECK_OK(model_save(full, store, folder, 0, CB_DTYPE_COUNT, &err));
        struct model *half = NULL;
        CHECK_OK(store_create(&read, &err));
        CHECK_FAILS(model_load(&half, read, folder, &err), CB_E_FORMAT, "pooler");
        runner_destroy(&with);
        runner_destroy(&without);
        model_destroy(&m);
        model_destroy(&less);
        model_destroy(&full);
        store_destroy(&store);
        store_destroy(&read);
    }
}
