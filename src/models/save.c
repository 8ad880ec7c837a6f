/* Writing a model's folder as Transformers does, and fresh weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "io/file.h"
#include "models/model.h"

/* What is picked from the store: the model's weights, in one type. */
struct pick {
    const struct model *model;
    enum cb_dtype dtype;  // CB_DTYPE_COUNT: as stored
};

const char *model_file_name(const struct model *model, const char *weight) {
    const struct model_weight *w = model_find_weight(model, weight);
    return w && w->file_name ? w->file_name : weight;
}

static bool weight_pick(void *context, const struct store_entry *entry, const char **name, enum cb_dtype *dtype) {
    const struct pick *pick = context;
    const char *repeated = pick->model->repeated;
    if (!model_find_weight(pick->model, entry->name) && !(repeated && strcmp(entry->name, repeated) == 0)) return false;
    *name = model_file_name(pick->model, entry->name);
    if (pick->dtype != CB_DTYPE_COUNT) *dtype = pick->dtype;
    return true;
}

static enum cb_status json_write(const json_t *value, const char *folder, const char *name, struct cb_err *err) {
    char *text = NULL, *path = io_path_join(folder, name), *line = NULL;
    enum cb_status status = path ? json_dump(&text, value, 2, err) : CB_E_MEMORY;
    size_t n = text ? strlen(text) : 0;
    if (status == CB_OK && !(line = malloc(n + 1))) status = CB_E_MEMORY;
    if (status == CB_E_MEMORY) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s/%s: no memory to write it", folder, name);
    if (status == CB_OK) {
        memcpy(line, text, n);
        line[n] = '\n';
        status = io_write_file(path, line, n + 1, err);
    }
    free(line);
    free(text);
    free(path);
    return status;
}

/* config.json with the number type that the weights are written in. */
static enum cb_status config_write(const struct model *model, enum cb_dtype dtype, const char *folder, struct cb_err *err) {
    const char *type = dtype == CB_DTYPE_F16 ? "float16" : dtype == CB_DTYPE_BF16 ? "bfloat16" : dtype == CB_DTYPE_F32 ? "float32" : NULL;
    json_t *config = json_copy(model->config);
    const char *key = json_object_get(config, "torch_dtype") ? "torch_dtype" : "dtype";
    bool is_written = config && (!type || json_object_set_new(config, key, json_string(type)) == 0);
    enum cb_status status = is_written ? json_write(config, folder, "config.json", err) : CB_E_MEMORY;
    if (!is_written) err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for config.json", folder);
    json_decref(config);
    return status;
}

/* Every weight must be there; the type of the largest goes into config.json if the caller names none. */
static enum cb_status weights_check(const struct model *model, const struct store *store, enum cb_dtype *dtype, struct cb_err *err) {
    int64_t largest = -1;
    enum cb_dtype stored = CB_DTYPE_F32;
    for (int i = 0; i < model->n_weights; i++) {
        const struct model_weight *w = &model->weights[i];
        const struct store_entry *e = store_find(store, w->name);
        if (!e) FAIL(err, CB_E_NAME, "%s: not in the store; wanted every weight of the model", w->name);
        struct cb_type type = w->type;
        type.dtype = e->type.dtype;
        char text[2][TYPE_TEXT];
        if (!type_equal(&type, &e->type))
            FAIL(err, CB_E_SHAPE, "%s: found %s; wanted %s", w->name, type_text(&e->type, text[0]), type_text(&type, text[1]));
        if (e->bytes > largest) largest = e->bytes, stored = e->type.dtype;
    }
    if (*dtype == CB_DTYPE_COUNT) *dtype = dtype_of(stored)->is_quantised ? CB_DTYPE_F32 : stored;
    return CB_OK;
}

enum cb_status model_save(const struct model *model, const struct store *store, const char *folder, int64_t shard_bytes,
                          enum cb_dtype dtype, struct cb_err *err) {
    enum cb_dtype written = dtype;
    TRY(weights_check(model, store, &written, err));
    TRY(io_mkdirs(folder, err));
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    if (!metadata) FAIL(err, CB_E_MEMORY, "%s: no memory for metadata", folder);
    struct pick pick = {model, dtype};
    enum cb_status status = store_save(store, folder, shard_bytes > 0 ? shard_bytes : INT64_MAX, weight_pick, &pick, metadata, err);
    json_decref(metadata);
    // the description last: a folder with config.json is whole
    if (status == CB_OK && model->generation) status = json_write(model->generation, folder, "generation_config.json", err);
    if (status == CB_OK) status = config_write(model, written, folder, err);
    return status;
}

/* Normal numbers from Philox words by the rule of Box and Muller (1958), four a block. */
static void fill_normal(float *out, int64_t n, double std, uint64_t key) {
    for (int64_t i = 0; i < n; i += 4) {
        struct rng_block block = rng_philox(key, (uint64_t)i / 4, 0);
        for (int j = 0; j < 4 && i + j < n; j += 2) {
            double radius = std * sqrt(-2 * log(((double)block.word[j] + 1) * 0x1p-32));
            double angle = 6.283185307179586 * (double)block.word[j + 1] * 0x1p-32;
            out[i + j] = (float)(radius * cos(angle));
            if (i + j + 1 < n) out[i + j + 1] = (float)(radius * sin(angle));
        }
    }
}

enum cb_status model_init_weight(const struct model_weight *w, struct store *store, uint64_t seed, struct cb_err *err) {
    struct store_entry *entry;
    TRY(store_add(store, w->name, w->type, &entry, err));
    float *data = entry->data;
    int64_t n = type_elements(&w->type);
    if (w->init == MODEL_NORMAL) fill_normal(data, n, w->std, rng_hash(w->name) ^ (seed * 0x9E3779B97F4A7C15u));
    for (int64_t k = 0; w->init == MODEL_ONES && k < n; k++) data[k] = 1;
    return CB_OK;
}

enum cb_status model_init_weights(const struct model *model, struct store *store, uint64_t seed, struct cb_err *err) {
    for (int i = 0; i < model->n_weights; i++) TRY(model_init_weight(&model->weights[i], store, seed, err));
    return CB_OK;
}
