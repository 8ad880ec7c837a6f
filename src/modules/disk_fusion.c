/* Folders of AdapterFusion as the adapters library writes them: adapter_fusion_config.json and model_adapter_fusion.safetensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "modules/fusion.h"

#define FUSION_CONFIG "adapter_fusion_config.json"
#define FUSION_WEIGHTS "model_adapter_fusion.safetensors"
#define FUSION_LAYER ".adapter_fusion_layer."

bool fusion_is_folder(const char *folder) {
    char *path = io_path_join(folder, FUSION_CONFIG);
    const bool is_there = path && io_is_file(path);
    free(path);
    return is_there;
}

/* Keys of module->config that are none of the library's. */
static const char *const not_of_file[] = {"base_model_name_or_path", "envelope", "head",      "head_left_out", "inference_mode",
                                          "modules_to_save",         "name",     "peft_type", "places",        "task_type"};

/* The names of the sites that the file has weights for. */
static enum cb_status places_list(json_t *config, const struct tensors *tensors, struct cb_err *err) {
    json_t *places = json_array();
    for (int i = 0; i < tensors_count(tensors); i++) {
        const char *key = tensors_at(tensors, i)->name, *layer = strstr(key, FUSION_LAYER);
        if (!layer) continue;
        json_t *place = json_stringn(key, (size_t)(layer - key));
        const json_t *last = json_array_get(places, json_array_size(places) - 1);
        if (last && json_equal(last, place))
            json_decref(place);
        else
            json_array_append_new(places, place);
    }
    if (json_object_set_new(config, "places", places) != 0) FAIL(err, CB_E_MEMORY, "%s: no memory", tensors_name(tensors));
    return CB_OK;
}

/* The file's configuration; what stands around it is kept beside. */
static enum cb_status config_make(json_t **config, const char *path, const struct tensors *tensors, struct cb_err *err) {
    char *text;
    size_t n;
    json_t *root = NULL;
    const json_t *inner = NULL;
    const char *name = NULL;
    TRY(io_read_file(&text, &n, path, CONFIG_LIMIT, err));
    enum cb_status status = json_parse_object(&root, text, n, path, err);
    free(text);
    if (status == CB_OK) status = json_get_object(&inner, root, path, "config", true, err);
    if (status == CB_OK) status = json_get_str(&name, root, path, "name", true, err);
    if (status == CB_OK && !(*config = json_deep_copy(inner)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", path);
    if (status == CB_OK && (json_object_set_new(*config, "name", json_string(name)) != 0 ||
                            json_object_set_new(*config, "peft_type", json_string("ADAPTER_FUSION")) != 0 ||
                            json_object_set_new(*config, "envelope", json_copy(root)) != 0))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", path);
    if (status == CB_OK) json_object_del(json_object_get(*config, "envelope"), "config");
    if (status == CB_OK) status = places_list(*config, tensors, err);
    json_decref(root);
    return status;
}

static enum cb_status config_save(const struct module *m, const char *folder, struct cb_err *err) {
    const json_t *kept = json_object_get(m->config, "envelope");
    json_t *config = NULL, *file = json_is_object(kept) ? json_copy((json_t *)kept) : json_object();
    char *text = NULL, *path = io_path_join(folder, FUSION_CONFIG);
    enum cb_status status = file && path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to save", folder);
    if (status == CB_OK) status = module_config_complete(&config, m->tuner, m->config, err);
    for (size_t i = 0; config && i < sizeof not_of_file / sizeof *not_of_file; i++) json_object_del(config, not_of_file[i]);
    if (status == CB_OK && (!adapters_envelope_fill(file, m) || json_object_set(file, "config", config) != 0))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to save", folder);
    if (status == CB_OK) status = json_dump(&text, file, 2, err);
    if (status == CB_OK) status = io_write_file(path, text, strlen(text), err);
    free(text);
    free(path);
    json_decref(config);
    json_decref(file);
    return status;
}

enum cb_status fusion_save(const struct module *m, const struct store *store, const char *folder, struct cb_err *err) {
    TRY(adapters_tensors_save(m, store, folder, FUSION_WEIGHTS, false, err));
    TRY(config_save(m, folder, err));
    return adapters_head_save(m, store, folder, err);
}

enum cb_status fusion_load(struct module **module, struct store *store, const char *folder, const char *name, const struct nn *sites,
                           struct cb_err *err) {
    char *path = io_path_join(folder, FUSION_CONFIG), *weights = io_path_join(folder, FUSION_WEIGHTS);
    struct tensors *tensors = NULL, *all = NULL;
    json_t *config = NULL;
    enum cb_status status = path && weights ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a path", folder);
    if (status == CB_OK) status = tensors_open(&tensors, weights, err);
    if (status == CB_OK) status = config_make(&config, path, tensors, err);
    if (status == CB_OK) status = tensors_create(&all, folder, err);
    if (status == CB_OK) status = adapters_tensors_join(all, tensors, err);
    if (status == CB_OK) status = adapters_head_open(config, all, folder, store, sites, err);
    if (status == CB_OK) status = module_make(module, store, config, path, all, name, sites, err);
    json_decref(config);
    tensors_destroy(&all);
    tensors_destroy(&tensors);
    free(path);
    free(weights);
    return status;
}
