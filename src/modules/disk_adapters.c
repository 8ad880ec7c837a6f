/* A module's folder as the adapters library has it: adapter_config.json and adapter.safetensors (or pytorch_adapter.bin), head_config.json and
   model_head.safetensors (or pytorch_model_head.bin). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "modules/private.h"

static const char *const weights_names[] = {"adapter.safetensors", "pytorch_adapter.bin", NULL};
static const char *const head_names[] = {"model_head.safetensors", "pytorch_model_head.bin", NULL};

static bool is_there(const char *folder, const char *name) {
    char *path = io_path_join(folder, name);
    bool found = path && io_is_file(path);
    free(path);
    return found;
}

static const char *first_there(const char *folder, const char *const *names) {
    while (*names && !is_there(folder, *names)) names++;
    return *names;
}

bool adapters_is_folder(const char *folder) { return first_there(folder, weights_names) && !is_there(folder, "adapter_model.safetensors"); }

/* ---- reading */
static enum cb_status object_read(json_t **object, const char *folder, const char *name, struct cb_err *err) {
    char *text, *path = io_path_join(folder, name);
    size_t n;
    if (!path) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", folder);
    enum cb_status status = io_read_file(&text, &n, path, CONFIG_LIMIT, err);
    if (status == CB_OK) {
        status = json_parse_object(object, text, n, path, err);
        free(text);
    }
    free(path);
    return status;
}

static enum cb_status weights_open(struct tensors **tensors, const char *folder, const char *name, struct cb_err *err) {
    char *path = io_path_join(folder, name);
    if (!path) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", folder);
    enum cb_status status = tensors_open(tensors, path, err);
    free(path);
    return status;
}

enum cb_status adapters_tensors_join(struct tensors *into, const struct tensors *from, struct cb_err *err) {
    for (int i = 0; i < tensors_count(from); i++) {
        const struct tensor *t = tensors_at(from, i);
        TRY(tensors_add(into, t->name, &t->type, t->map, t->offset, err));
    }
    return CB_OK;
}

/* The site that a tensor named "<site>.weight" or "<site>.bias" is for; NULL: none. */
static const struct nn_site *site_of(const struct nn *sites, const char *name, bool *is_bias) {
    const char *dot = strrchr(name, '.');
    char site[512];
    *is_bias = dot && strcmp(dot, ".bias") == 0;
    if (!sites || !dot || (!*is_bias && strcmp(dot, ".weight") != 0) || dot - name >= (ptrdiff_t)sizeof site) return NULL;
    snprintf(site, sizeof site, "%.*s", (int)(dot - name), name);
    return nn_find_site(sites, site);
}

/* Whether the model has the same numbers there. */
static bool is_model_own(const struct tensor *t, const struct nn_site *site, bool is_bias, const struct store *store) {
    const char *source = is_bias ? site->bias : site->weight;
    const struct store_entry *entry = source ? store_find(store, source) : NULL;
    if (!entry || entry->turned || !type_equal(&entry->type, &t->type)) return false;
    return memcmp(entry->data, tensor_data(t), (size_t)entry->bytes) == 0;
}

/* Parts of the model's own head, which the library writes with every module of such a model: those that differ stand for the model's (modules_to_save);
   of another class's head nothing is taken, and that is told. */
static enum cb_status own_head_read(json_t *config, struct tensors *into, const struct tensors *from, const struct store *store,
                                    const struct nn *sites, struct cb_err *err) {
    json_t *save = json_array();
    bool is_bias, ok = save != NULL;
    for (int i = 0; ok && i < tensors_count(from); i++) {
        const struct tensor *t = tensors_at(from, i);
        const struct nn_site *site = site_of(sites, t->name, &is_bias);
        if (strncmp(t->name, "heads.", 6) == 0) continue;
        if (!site)
            ok = json_object_set_new(config, "head_left_out", json_string(t->name)) == 0;
        else if (!is_model_own(t, site, is_bias, store))
            ok = json_array_append_new(save, json_string(site->name)) == 0;
    }
    if (ok && json_array_size(save)) ok = json_object_set(config, "modules_to_save", save) == 0;
    enum cb_status status = ok ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a head", tensors_name(from));
    // every tensor of a site that is saved, also such as are the model's
    for (int i = 0; status == CB_OK && i < tensors_count(from); i++) {
        const struct tensor *t = tensors_at(from, i);
        const struct nn_site *site = site_of(sites, t->name, &is_bias);
        bool taken = strncmp(t->name, "heads.", 6) == 0;
        for (size_t k = 0; site && k < json_array_size(save); k++)
            taken |= strcmp(site->name, json_string_value(json_array_get(save, k))) == 0;
        if (taken) status = tensors_add(into, t->name, &t->type, t->map, t->offset, err);
    }
    json_decref(save);
    return status;
}

static enum cb_status head_read(json_t *config, struct tensors *into, const char *folder, const char *name, const struct store *store,
                                const struct nn *sites, struct cb_err *err) {
    json_t *head = NULL;
    struct tensors *tensors = NULL;
    enum cb_status status = object_read(&head, folder, "head_config.json", err);
    if (status == CB_OK) status = weights_open(&tensors, folder, name, err);
    if (status == CB_OK) status = own_head_read(config, into, tensors, store, sites, err);
    if (status == CB_OK && json_object_set(config, "head", head) != 0)
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a head", folder);
    tensors_destroy(&tensors);
    json_decref(head);
    return status;
}

enum cb_status adapters_head_open(json_t *config, struct tensors *into, const char *folder, const struct store *store,
                                  const struct nn *sites, struct cb_err *err) {
    const char *head = is_there(folder, "head_config.json") ? first_there(folder, head_names) : NULL;
    return head ? head_read(config, into, folder, head, store, sites, err) : CB_OK;
}

enum cb_status adapters_open(json_t **config, struct tensors **tensors, const char *folder, const char *head_folder,
                             const struct store *store, const struct nn *sites, struct cb_err *err) {
    struct tensors *weights = NULL;
    if (!head_folder) head_folder = folder;
    *config = NULL;
    *tensors = NULL;
    TRY(object_read(config, folder, "adapter_config.json", err));
    if (!json_is_object(json_object_get(*config, "config")))
        FAIL(err, CB_E_FORMAT, "%s/adapter_config.json: config: wanted an object, as the adapters library writes it", folder);
    json_object_del(*config, "head");
    json_object_del(*config, "modules_to_save");
    enum cb_status status = weights_open(&weights, folder, first_there(folder, weights_names), err);
    if (status == CB_OK) status = tensors_create(tensors, folder, err);
    if (status == CB_OK) status = adapters_tensors_join(*tensors, weights, err);
    if (status == CB_OK && *head_folder) status = adapters_head_open(*config, *tensors, head_folder, store, sites, err);
    tensors_destroy(&weights);
    return status;
}

/* ---- writing */
static enum cb_status object_write(const json_t *object, const char *folder, const char *name, struct cb_err *err) {
    char *text = NULL, *path = io_path_join(folder, name);
    enum cb_status status =
        path ? json_dump(&text, object, 2, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", folder);
    if (status == CB_OK) status = io_write_file(path, text, strlen(text), err);
    free(text);
    free(path);
    return status;
}

/* Parameters of the module or of its head, shared ones under each of their names. */
enum cb_status adapters_tensors_save(const struct module *m, const struct store *store, const char *folder, const char *name, bool of_head,
                                     struct cb_err *err) {
    int n = 0;
    struct tensor_item *items = calloc((size_t)(m->n_params + m->n_aliases) + 1, sizeof *items);
    char *path = io_path_join(folder, name);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    for (int i = 0; items && i < m->n_params + m->n_aliases; i++) {
        const bool is_alias = i >= m->n_params;
        const struct tuner_param *p = &m->params[is_alias ? m->aliases[i - m->n_params].param : i];
        if (p->of_head != of_head || !p->public.is_stored) continue;
        const struct store_entry *entry = store_find(store, p->public.name);
        items[n++] = (struct tensor_item){is_alias ? m->aliases[i - m->n_params].key : p->public.key, entry->type, entry->data, NULL};
    }
    enum cb_status status = items && path && metadata ? tensors_write(path, items, n, metadata, NULL, NULL, err)
                                                      : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to save", folder);
    json_decref(metadata);
    free(path);
    free(items);
    return status;
}

/* What the library writes beside the configuration proper. */
bool adapters_envelope_fill(json_t *file, const struct module *m) {
    const struct {
        const char *key, *value;
    } words[] = {{"model_class", m->model_class},
                 {"model_name", ""},
                 {"model_type", m->model_type},
                 {"name", m->label},
                 {"version", "adapters.1.3.0"}};
    bool ok = json_object_get(file, "hidden_size") || json_object_set_new(file, "hidden_size", json_integer(m->width)) == 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        ok = ok && (json_object_get(file, words[i].key) || json_object_set_new(file, words[i].key, json_string(words[i].value)) == 0);
    return ok;
}

/* Keys of module->config that are no part of the file. */
static const char *const not_of_file[] = {"head", "head_left_out", "modules_to_save", "task_type"};

static enum cb_status config_save(const struct module *m, const char *folder, struct cb_err *err) {
    json_t *file = json_copy(m->config), *config = NULL;
    enum cb_status status = file ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to save", folder);
    if (status == CB_OK) status = module_config_complete(&config, m->tuner, m->method, err);
    if (status == CB_OK) {
        for (size_t i = 0; i < sizeof not_of_file / sizeof *not_of_file; i++) json_object_del(file, not_of_file[i]);
        if (json_object_set(file, "config", config) != 0 || !adapters_envelope_fill(file, m))
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to save", folder);
    }
    if (status == CB_OK) status = object_write(file, folder, "adapter_config.json", err);
    json_decref(config);
    json_decref(file);
    return status;
}

enum cb_status adapters_head_save(const struct module *m, const struct store *store, const char *folder, struct cb_err *err) {
    if (!m->head && !m->n_swaps) return CB_OK;
    const json_t *head = json_object_get(m->config, "head");
    json_t *file = json_is_object(head) ? json_copy((json_t *)head) : NULL;
    // the model's own head has no configuration
    if (!file) file = json_pack("{s:n,s:n}", "config", "name");
    enum cb_status status = file && adapters_envelope_fill(file, m)
                                ? object_write(file, folder, "head_config.json", err)
                                : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory", folder);
    json_decref(file);
    return status == CB_OK ? adapters_tensors_save(m, store, folder, "model_head.safetensors", true, err) : status;
}

enum cb_status adapters_save(const struct module *m, const struct store *store, const char *folder, struct cb_err *err) {
    TRY(adapters_tensors_save(m, store, folder, "adapter.safetensors", false, err));
    TRY(config_save(m, folder, err));
    return adapters_head_save(m, store, folder, err);
}
