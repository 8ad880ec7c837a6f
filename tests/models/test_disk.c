/* Folders: what is refused, with everything that is wrong told; what is written is what was read. */
#include <dirent.h>
#include <unistd.h>

#include "../harness.h"
#include "graph_runner.h"
#include "io/file.h"
#include "models/model.h"

static void file_put(const char *folder, const char *name, const char *text) {
    char path[300];
    struct cb_err err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    io_write_file(path, text, strlen(text), &err);
}

static bool files_equal(const char *a, const char *b, const char *name) {
    struct cb_err err = {0};
    char path[2][700], *text[2] = {NULL, NULL};
    size_t n[2] = {0, 1};
    snprintf(path[0], sizeof path[0], "%s/%s", a, name);
    snprintf(path[1], sizeof path[1], "%s/%s", b, name);
    for (int i = 0; i < 2; i++) io_read_file(&text[i], &n[i], path[i], 1 << 24, &err);
    bool equal = text[0] && text[1] && n[0] == n[1] && memcmp(text[0], text[1], n[0]) == 0;
    free(text[0]);
    free(text[1]);
    return equal;
}

/* Loads a folder and saves it under another name. */
static enum cb_status copy_model(const char *from, const char *to, int64_t shard_bytes, enum cb_dtype dtype, struct cb_err *err) {
    struct store *store;
    struct model *model;
    TRY(store_create(&store, err));
    enum cb_status status = model_load(&model, store, from, err);
    if (status == CB_OK) status = model_save(model, store, to, shard_bytes, dtype, err);
    model_destroy(&model);
    store_destroy(&store);
    return status;
}

/* Whether a folder is a model that this build knows, in one file with the names that are written. */
static bool is_plain(const char *folder) {
    struct cb_err err = {0};
    struct model *m = NULL;
    struct tensors *file = NULL;
    char path[700];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    bool plain = io_is_file(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    plain = plain && model_check_config(&m, path, &err) == CB_OK && tensors_open(&file, folder, &err) == CB_OK;
    for (int i = 0; plain && i < tensors_count(file); i++) plain = model_find_weight(m, tensors_at(file, i)->name) != NULL;
    tensors_destroy(&file);
    model_destroy(&m);
    return plain;
}

TEST(models, saved_as_transformers_saves) {
    static const char *const files[] = {"model.safetensors", "config.json", "generation_config.json"};
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600], folder[128];
    snprintf(path, sizeof path, "%s/fixtures/models", shared);
    DIR *dir = opendir(path);
    CHECK(dir, "%s: cannot be read", path);
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        struct cb_err err = {0};
        snprintf(path, sizeof path, "%s/fixtures/models/%.200s", shared, e->d_name);
        if (e->d_name[0] == '.' || !is_plain(path)) continue;
        CHECK(temporary_folder(folder, "saved"));
        CHECK_OK(copy_model(path, folder, 0, CB_DTYPE_COUNT, &err));
        for (int i = 0; i < 3; i++) {
            char file[700];
            snprintf(file, sizeof file, "%s/%s", path, files[i]);
            CHECK(!io_is_file(file) || files_equal(path, folder, files[i]), "%s: %s differs", e->d_name, files[i]);
        }
        n++;
    }
    closedir(dir);
    CHECK(n >= 40, "only %d folders found", n);
}

TEST(models, saved_twice_and_in_shards) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    char path[600], first[128], second[128];
    snprintf(path, sizeof path, "%s/fixtures/models/gpt2_hub_layout", shared);
    CHECK(temporary_folder(first, "first") && temporary_folder(second, "second"));
    // other names in the file: canonical from the first save on
    CHECK_OK(copy_model(path, first, 0, CB_DTYPE_COUNT, &err));
    CHECK_OK(copy_model(first, second, 0, CB_DTYPE_COUNT, &err));
    CHECK(files_equal(first, second, "model.safetensors") && files_equal(first, second, "config.json"));
    CHECK(temporary_folder(first, "shards") && temporary_folder(second, "whole"));
    CHECK_OK(copy_model(path, first, 30000, CB_DTYPE_BF16, &err));
    CHECK_OK(copy_model(first, second, 0, CB_DTYPE_COUNT, &err));
    struct store *store;
    struct model *model;
    CHECK_OK(store_create(&store, &err));
    CHECK_OK(model_load(&model, store, second, &err));
    CHECK(store_find(store, "transformer.wte.weight")->type.dtype == CB_DTYPE_BF16);
    CHECK(strcmp(json_string_value(json_object_get(model->config, "dtype")), "bfloat16") == 0);
    model_destroy(&model);
    store_destroy(&store);
}

TEST(models, strict_folders) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    struct store *store;
    struct model *model;
    char path[600], folder[128], text[4096], *config;
    size_t n;
    CHECK_OK(store_create(&store, &err));
    // the description of another model over the weights of gpt2_tied: everything that is wrong is told
    snprintf(path, sizeof path, "%s/fixtures/models/gpt2_tied/config.json", shared);
    CHECK_OK(io_read_file(&config, &n, path, 1 << 20, &err));
    CHECK(temporary_folder(folder, "strict"));
    snprintf(path, sizeof path, "%s/fixtures/models/gpt2_tied", shared);
    CHECK_OK(copy_model(path, folder, 0, CB_DTYPE_COUNT, &err));
    char *at = strstr(config, "\"vocab_size\": 67");
    CHECK(at);
    memcpy(at, "\"vocab_size\": 68", 16);
    file_put(folder, "config.json", config);
    CHECK_FAILS(model_load(&model, store, folder, &err), CB_E_FORMAT, "transformer.wte.weight: found f32[67,24], wanted f32[68,24]");
    at = strstr(config, "\"n_layer\": 2");
    CHECK(at);
    memcpy(at, "\"n_layer\": 3", 12);
    file_put(folder, "config.json", config);
    CHECK_FAILS(model_load(&model, store, folder, &err), CB_E_FORMAT, "12 missing (transformer.h.2.ln_1.weight");
    memcpy(at, "\"n_layer\": 1", 12);
    file_put(folder, "config.json", config);
    CHECK_FAILS(model_load(&model, store, folder, &err), CB_E_FORMAT, "12 unexpected (transformer.h.1.");
    CHECK(store_count(store) == 0, "%d entries were left", store_count(store));
    free(config);
    // no weights, no folder, an end of text past the vocabulary
    snprintf(text, sizeof text, "%s/model.safetensors", folder);
    CHECK(unlink(text) == 0);
    CHECK_FAILS(model_load(&model, store, folder, &err), CB_E_IO, "model.safetensors");
    CHECK_FAILS(model_load(&model, store, "nosuch_folder", &err), CB_E_IO, "nosuch_folder: no such file or folder");
    file_put(folder, "generation_config.json", "{\"eos_token_id\": 500}");
    CHECK_FAILS(model_load(&model, store, folder, &err), CB_E_FORMAT, "500");
    store_destroy(&store);
}

/* Fresh weights depend on seed and name alone, and have the deviation that the table says. */
TEST(models, fresh_weights) {
    struct cb_err err = {0};
    json_t *config;
    struct model *model;
    struct store *store[3];
    CHECK_OK(model_default_config(&config, model_family("gpt2"), "n_embd=96,n_layer=2,n_head=4,vocab_size=300,n_positions=64", &err));
    CHECK_OK(model_from_config(&model, config, "gpt2", &err));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(store_create(&store[i], &err));
        CHECK_OK(model_init_weights(model, store[i], i < 2 ? 5 : 6, &err));
    }
    const char *name = "transformer.h.1.mlp.c_proj.weight";
    const struct store_entry *a = store_find(store[0], name), *b = store_find(store[1], name), *c = store_find(store[2], name);
    CHECK(memcmp(a->data, b->data, (size_t)a->bytes) == 0 && memcmp(a->data, c->data, (size_t)a->bytes) != 0);
    double sum = 0, square = 0;
    int64_t n = type_elements(&a->type);
    for (int64_t i = 0; i < n; i++) {
        double v = ((const float *)a->data)[i];
        sum += v;
        square += v * v;
    }
    CHECK(fabs(sqrt(square / (double)n) / 0.01 - 1) < 0.02 && fabs(sum / (double)n) < 3e-4, "deviation %g, mean %g",
          sqrt(square / (double)n), sum / (double)n);
    CHECK(((const float *)store_find(store[0], "transformer.ln_f.weight")->data)[3] == 1);
    CHECK(((const float *)store_find(store[0], "transformer.ln_f.bias")->data)[3] == 0);
    for (int i = 0; i < 3; i++) store_destroy(&store[i]);
    model_destroy(&model);
    json_decref(config);
}

/* Weights of torch.save make the same model as safetensors, as they are written now and as they were before PyTorch 1.6. */
TEST(models, weights_of_torch) {
    static const char *const files[] = {"tests/golden/models/bert_pytorch", "tests/golden/models/bert_pytorch_old"};
    struct cb_err err = {0};
    for (size_t i = 0; i < 2; i++) {
        struct store *store[2];
        struct model *model[2];
        const char *const folder[2] = {"tests/golden/models/bert_relative_key", files[i]};
        for (int k = 0; k < 2; k++) {
            CHECK_OK(store_create(&store[k], &err));
            CHECK_OK(model_load(&model[k], store[k], folder[k], &err));
        }
        CHECK(store_count(store[0]) == store_count(store[1]) && store_count(store[0]) > 20);
        for (int w = 0; w < store_count(store[0]); w++) {
            const struct store_entry *want = store_at(store[0], w), *have = store_find(store[1], want->name);
            CHECK(have && type_equal(&have->type, &want->type) && memcmp(have->data, want->data, (size_t)want->bytes) == 0, "%s",
                  want->name);
        }
        for (int k = 0; k < 2; k++) model_destroy(&model[k]), store_destroy(&store[k]);
    }
}
