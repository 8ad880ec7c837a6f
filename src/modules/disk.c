/* A module's folder as PEFT has it: adapter_config.json and adapter_model.safetensors (read: adapter_model.bin too). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/safetensors.h"
#include "modules/fusion.h"

static struct tuner_param *param_by_key(const struct module *m, const char *key) {
    int64_t i = table_get(&m->by_key, key, strlen(key));
    return i < 0 || !m->params[i].public.is_stored ? NULL : &m->params[i];
}

/* A copy that is no parameter: the tuner's, or of the weight of a site, which PEFT puts beside LoRA of embeddings and heads. */
static bool is_frozen_copy(const struct module *m, const char *key) {
    char text[512];
    if (m->tuner->is_copy && m->tuner->is_copy(m, key)) return true;
    for (int i = 0; i < m->n_sites; i++) {
        const char *body, *name = module_file_site(m, m->sites[i].site.name, &body);
        snprintf(text, sizeof text, "base_model.model.%s%s.base_layer.weight", body, name);
        if (strcmp(text, key) == 0) return true;
    }
    return false;
}

/* Biases of modules_to_save as PEFT writes them a second time where bias is "all": those of its wrapper's two sides. */
static bool is_wrapped_bias(const struct module *m, const char *key) {
    static const char *const sides[] = {".original_module.", ".modules_to_save."};
    const size_t prefix = strlen("base_model.model."), n = strlen(key);
    const char *bias = json_string_value(json_object_get(m->config, "bias"));
    char site[512];
    if (!bias || strcmp(bias, "all") != 0 || strncmp(key, "base_model.model.", prefix) != 0 || strcmp(key + n - 5, ".bias") != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(key, sides[i]);
        if (!at || at < key + prefix || at - key >= (ptrdiff_t)sizeof site) continue;
        snprintf(site, sizeof site, "%.*s", (int)(at - key - (ptrdiff_t)prefix), key + prefix);
        if (tuner_targets_save(&m->targets, site)) return true;
    }
    return false;
}

static const struct tuner_alias *alias_find(const struct module *m, const char *key) {
    for (int i = 0; i < m->n_aliases; i++)
        if (strcmp(m->aliases[i].key, key) == 0) return &m->aliases[i];
    return NULL;
}

/* Whether two tensors hold the same bytes, b with its axes changed where it is turned. */
static bool is_same(const struct tensor *a, const struct tensor *b, bool turned) {
    const int64_t rows = a->type.dim[0], columns = a->type.dim[1];
    struct cb_type type = a->type;
    if (!turned) return type_equal(&a->type, &b->type) && memcmp(tensor_data(a), tensor_data(b), (size_t)a->bytes) == 0;
    type.dim[0] = columns;
    type.dim[1] = rows;
    if (!type_equal(&type, &b->type) || !dtype_of(type.dtype)->is_float || dtype_of(type.dtype)->is_quantised) return false;
    const char *from = tensor_data(a), *to = tensor_data(b);
    const int64_t n = rows * columns, bytes = n ? a->bytes / n : 0;
    for (int64_t i = 0; i < n; i++)
        if (memcmp(from + i * bytes, to + (i % columns * rows + i / columns) * bytes, (size_t)bytes) != 0) return false;
    return true;
}

/* Other names of a parameter hold the same values, where the file has them. */
static enum cb_status aliases_compare(const struct module *m, const struct tensors *tensors, struct cb_err *err) {
    for (int i = 0; i < m->n_aliases; i++) {
        const struct module_param *p = &m->params[m->aliases[i].param].public;
        const struct tensor *other = tensors_find(tensors, m->aliases[i].key), *own = tensors_find(tensors, p->key);
        if (!other || !own || m->aliases[i].is_idle) continue;
        if (!is_same(own, other, m->aliases[i].turned))
            FAIL(err, CB_E_FORMAT, "%s: %s and %s: found two tensors; wanted one under both names", tensors_name(tensors), own->name,
                 other->name);
    }
    return CB_OK;
}

/* Appends "name" to a list that is shown in part. */
static void name_add(char text[300], int *n, const char *name) {
    size_t used = strlen(text);
    if (used + strlen(name) + 8 < 300)
        snprintf(text + used, 300 - used, "%s%s", used ? ", " : "", name);
    else if (used && text[used - 1] != '.')
        strcat(text, " ...");
    (*n)++;
}

/* Every key and shape must be as the configuration says. */
static enum cb_status keys_compare(const struct module *m, const struct tensors *tensors, struct cb_err *err) {
    char missing[300] = "", unexpected[300] = "";
    int n_missing = 0, n_unexpected = 0;
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].public.is_stored && !tensors_find(tensors, m->params[i].public.key))
            name_add(missing, &n_missing, m->params[i].public.key);
    for (int i = 0; i < tensors_count(tensors); i++) {
        const struct tensor *t = tensors_at(tensors, i);
        const struct tuner_param *p = param_by_key(m, t->name);
        if (!p && !is_frozen_copy(m, t->name) && !is_wrapped_bias(m, t->name) && !alias_find(m, t->name))
            name_add(unexpected, &n_unexpected, t->name);
        if (!p) continue;
        struct cb_type have = t->type;
        char text[2][TYPE_TEXT];
        // a parameter of numbers may be stored in any type of numbers, one of whole numbers in any of these
        const bool is_float = dtype_of(t->type.dtype)->is_float;
        have.dtype = p->public.type.dtype;
        if (!type_equal(&have, &p->public.type) || is_float != dtype_of(have.dtype)->is_float || dtype_of(t->type.dtype)->is_quantised)
            FAIL(err, CB_E_SHAPE, "%s: %s: found %s; wanted %s", tensors_name(tensors), t->name, type_text(&t->type, text[0]),
                 type_text(&p->public.type, text[1]));
    }
    if (!n_missing && !n_unexpected) return CB_OK;
    FAIL(err, CB_E_FORMAT, "%s: %d keys missing (%s), %d unexpected (%s); wanted the %d keys of adapter_config.json", tensors_name(tensors),
         n_missing, missing, n_unexpected, unexpected, m->n_params);
}

static enum cb_status params_load(const struct module *m, struct store *store, const struct tensors *tensors, struct cb_err *err) {
    TRY(keys_compare(m, tensors, err));
    TRY(aliases_compare(m, tensors, err));
    TRY(module_add_scale(m, store, err));
    for (int i = 0; i < m->n_params; i++) {
        struct store_entry *entry;
        const struct tuner_param *p = &m->params[i];
        const struct tensor *from = p->public.is_stored ? tensors_find(tensors, p->public.key) : NULL;
        TRY(store_add(store, p->public.name, p->public.type, &entry, err));
        if (!from)
            TRY(module_param_fill(m, p, store, 0, entry->data, err));
        else if (entry->type.dtype == CB_DTYPE_F32)
            tensor_read_f32(entry->data, from);
        else if (!dtype_convert(entry->data, entry->type.dtype, tensor_data(from), from->type.dtype, type_elements(&from->type)))
            FAIL(err, CB_E_DTYPE, "%s: found %s; wanted %s", from->name, dtype_of(from->type.dtype)->name,
                 dtype_of(entry->type.dtype)->name);
    }
    return m->tuner->check ? m->tuner->check(m, store, err) : CB_OK;
}

enum cb_status module_make(struct module **module, struct store *store, json_t *config, const char *where, const struct tensors *tensors,
                           const char *name, const struct nn *sites, struct cb_err *err) {
    struct module *m = NULL;
    *module = NULL;
    TRY(module_from_config(&m, config, tensors, where, name, sites, err));
    // a second module of one name would take the first one's entries with it when it fails
    enum cb_status status =
        store_find(store, m->scale_name) ? err_set(err, CB_E_NAME, __FILE__, __LINE__, "%s: a module has this name already", name) : CB_OK;
    if (status != CB_OK) {
        module_destroy(&m);
        return status;
    }
    status = params_load(m, store, tensors, err);
    if (status != CB_OK) {
        module_remove(m, store);
        module_destroy(&m);
    }
    *module = m;
    return status;
}

static enum cb_status load_adapters(struct module **module, struct store *store, const char *folder, const char *head, const char *name,
                                    const struct nn *sites, struct cb_err *err) {
    json_t *config = NULL;
    struct tensors *tensors = NULL;
    enum cb_status status = adapters_open(&config, &tensors, folder, head, store, sites, err);
    if (status == CB_OK) status = module_make(module, store, config, folder, tensors, name, sites, err);
    tensors_destroy(&tensors);
    json_decref(config);
    return status;
}

/* One pair of layer_replication. */
static enum cb_status pair_read(int64_t pair[2], const json_t *value, int64_t n_layer, const char *path, struct cb_err *err) {
    char text[JSON_TEXT];
    for (int i = 0; i < 2; i++) {
        const json_t *number = json_array_get(value, (size_t)i);
        pair[i] = json_is_integer(number) ? json_integer_value(number) : -1;
    }
    if (json_array_size(value) != 2 || pair[0] < 0 || pair[0] >= pair[1] || pair[1] > n_layer)
        FAIL(err, CB_E_FORMAT, "%s: layer_replication: found %s; wanted pairs [first, end] within %lld layers", path,
             json_text(value, text), (long long)n_layer);
    return CB_OK;
}

static enum cb_status layers_read(int **source, int *n, const json_t *list, int64_t n_layer, const char *path, struct cb_err *err) {
    enum { MOST = 4096 };
    char text[JSON_TEXT];
    if (!list || json_is_null(list)) return CB_OK;
    if (!json_is_array(list))
        FAIL(err, CB_E_FORMAT, "%s: layer_replication: found %s; wanted a list of pairs", path, json_text(list, text));
    if (!(*source = calloc(MOST, sizeof **source))) FAIL(err, CB_E_MEMORY, "%s: no memory for layers", path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t pair[2];
        TRY(pair_read(pair, json_array_get(list, i), n_layer, path, err));
        for (int64_t k = pair[0]; k < pair[1]; k++) {
            if (*n == MOST) FAIL(err, CB_E_LIMIT, "%s: layer_replication: more than %d layers", path, MOST);
            (*source)[(*n)++] = (int)k;
        }
    }
    return CB_OK;
}

static enum cb_status folder_check(const char *folder, struct cb_err *err) {
    if (io_is_file(folder)) FAIL(err, CB_E_FORMAT, "%s: found a file that is no module; wanted a module's folder or a .gguf file", folder);
    if (!io_is_folder(folder)) FAIL(err, CB_E_IO, "%s: no such folder, nor a name; wanted a module's folder or a .gguf file", folder);
    return CB_OK;
}

enum cb_status module_layers(int **source, int *n, const char *folder, int64_t n_layer, struct cb_err *err) {
    *source = NULL;
    *n = 0;
    TRY(folder_check(folder, err));
    if (fusion_is_folder(folder)) return CB_OK;
    char *path = io_path_join(folder, "adapter_config.json"), *text = NULL;
    size_t size;
    json_t *config = NULL;
    enum cb_status status = path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a path", folder);
    if (status == CB_OK) status = io_read_file(&text, &size, path, CONFIG_LIMIT, err);
    if (status == CB_OK) status = json_parse_object(&config, text, size, path, err);
    if (status == CB_OK) status = layers_read(source, n, json_object_get(config, "layer_replication"), n_layer, path, err);
    if (status != CB_OK || !*n) {
        free(*source);
        *source = NULL;
        *n = 0;
    }
    json_decref(config);
    free(text);
    free(path);
    return status;
}

enum cb_status module_load(struct module **module, struct store *store, const char *folder, const char *name, const struct nn *sites,
                           struct cb_err *err) {
    return module_load_headed(module, store, folder, NULL, name, sites, err);
}

/* Takes modules_to_save out of a module's configuration, and their tensors out of its file. */
static enum cb_status head_leave(struct module *m, struct tensors **tensors, struct cb_err *err) {
    struct tensors *kept = NULL;
    const size_t prefix = strlen("base_model.model.");
    if (!m->targets.save) return CB_OK;
    TRY(tensors_create(&kept, tensors_name(*tensors), err));
    enum cb_status status = CB_OK;
    for (int i = 0; status == CB_OK && i < tensors_count(*tensors); i++) {
        const struct tensor *t = tensors_at(*tensors, i);
        const char *dot = strrchr(t->name, '.');
        char site[512] = "";
        if (dot && strncmp(t->name, "base_model.model.", prefix) == 0 && (size_t)(dot - t->name) > prefix)
            snprintf(site, sizeof site, "%.*s", (int)(dot - t->name - (ptrdiff_t)prefix), t->name + prefix);
        if (!*site || !tuner_targets_save(&m->targets, site)) status = tensors_add(kept, t->name, &t->type, t->map, t->offset, err);
    }
    json_object_del(m->config, "modules_to_save");
    if (status != CB_OK) {
        tensors_destroy(&kept);
        return status;
    }
    tensors_destroy(tensors);
    *tensors = kept;
    return CB_OK;
}

enum cb_status module_load_headed(struct module **module, struct store *store, const char *folder, const char *head, const char *name,
                                  const struct nn *sites, struct cb_err *err) {
    *module = NULL;
    TRY(folder_check(folder, err));
    if (fusion_is_folder(folder)) return fusion_load(module, store, folder, name, sites, err);
    if (adapters_is_folder(folder)) return load_adapters(module, store, folder, head, name, sites, err);
    if (head && *head) FAIL(err, CB_E_UNSUPPORTED, "%s: the head %s goes with modules of the adapters library", folder, head);
    struct module *checked = NULL;
    struct tensors *tensors = NULL;
    char *path = io_path_join(folder, "adapter_config.json");
    enum cb_status status = path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a path", folder);
    // what the configuration alone tells is told by its own name
    if (status == CB_OK) status = module_check_config(&checked, path, name, sites, err);
    if (status == CB_OK) status = tensors_open_adapter(&tensors, folder, err);
    if (status == CB_OK && head) status = head_leave(checked, &tensors, err);
    if (status == CB_OK) status = module_make(module, store, checked->config, path, tensors, name, sites, err);
    tensors_destroy(&tensors);
    module_destroy(&checked);
    free(path);
    return status;
}

void module_remove(const struct module *m, struct store *store) {
    for (int i = 0; i < m->n_params; i++)
        if (store_find(store, m->params[i].public.name)) store_remove(store, m->params[i].public.name);
    if (store_find(store, m->scale_name)) store_remove(store, m->scale_name);
}

static int compare_words(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

enum cb_status module_config_complete(json_t **out, const struct tuner *tuner, const json_t *object, struct cb_err *err) {
    json_t *all = NULL, *sorted = json_object();
    TRY(json_parse_object(&all, tuner->defaults, strlen(tuner->defaults), tuner->name, err));
    bool ok = sorted && json_object_update(all, (json_t *)object) == 0;
    if (tuner->peft_type) ok = ok && json_object_set_new(all, "inference_mode", json_true()) == 0;
    size_t n = json_object_size(all), i = 0;
    const char **keys = malloc((n + 1) * sizeof *keys), *key;
    json_t *value;
    if (keys) json_object_foreach(all, key, value) keys[i++] = key;
    if (keys) qsort(keys, n, sizeof *keys, compare_words);
    for (i = 0; keys && ok && i < n; i++) ok = json_object_set(sorted, keys[i], json_object_get(all, keys[i])) == 0;
    ok = ok && keys;
    free(keys);
    json_decref(all);
    if (!ok) {
        json_decref(sorted);
        FAIL(err, CB_E_MEMORY, "%s: no memory for adapter_config.json", tuner->name);
    }
    *out = sorted;
    return CB_OK;
}

static enum cb_status config_save(const struct module *m, const json_t *from, const char *path, struct cb_err *err) {
    json_t *config = NULL;
    char *text = NULL;
    TRY(module_config_complete(&config, m->tuner, from, err));
    enum cb_status status = json_dump(&text, config, 2, err);
    if (status == CB_OK) status = io_write_file(path, text, strlen(text), err);
    free(text);
    json_decref(config);
    return status;
}

/* The module's entries go out under their keys. */
static bool entry_pick(void *context, const struct store_entry *entry, const char **name, enum cb_dtype *dtype) {
    const struct module *m = context;
    size_t n = strlen(m->name);
    if (strncmp(entry->name, m->name, n) != 0 || entry->name[n] != '/') return false;
    const struct tuner_param *p = param_by_key(m, entry->name + n + 1);
    if (p) *name = p->public.key;
    (void)dtype;
    return p != NULL;
}

static enum cb_status param_check(const struct tuner_param *p, const struct store *store, struct cb_err *err) {
    const struct store_entry *entry = store_find(store, p->public.name);
    if (!entry) FAIL(err, CB_E_NAME, "%s: not in the store", p->public.name);
    if (p->role == TUNER_MADE && isnan(*(const float *)entry->data))
        FAIL(err, CB_E_ARGUMENT, "%s: not computed yet; wanted module_settle before", p->public.name);
    return CB_OK;
}

/* All that is stored, by its key. */
static enum cb_status copy_all(const struct module *m, const struct store *store, struct store *out, struct cb_err *err) {
    for (int i = 0; i < m->n_params; i++) {
        const struct module_param *p = &m->params[i].public;
        struct store_entry *entry;
        if (!p->is_stored) continue;
        TRY(store_add(out, p->key, p->type, &entry, err));
        memcpy(entry->data, store_find(store, p->name)->data, (size_t)entry->bytes);
    }
    return CB_OK;
}

/* What is under a parameter's key also under its other keys. */
static enum cb_status copy_aliases(const struct module *m, struct store *out, struct cb_err *err) {
    for (int i = 0; i < m->n_aliases; i++) {
        const struct store_entry *from = store_find(out, m->params[m->aliases[i].param].public.key);
        struct store_entry *entry;
        if (!from) continue;
        const bool turned = m->aliases[i].turned;
        const int64_t rows = from->type.dim[0], columns = from->type.dim[1];
        struct cb_type type = from->type;
        if (turned) type = type_make(type.dtype, 2, (const int64_t[]){columns, rows});
        TRY(store_add(out, m->aliases[i].key, type, &entry, err));
        if (!turned) memcpy(entry->data, from->data, (size_t)entry->bytes);
        for (int64_t k = 0; turned && k < rows * columns; k++)
            ((float *)entry->data)[k % columns * rows + k / columns] = ((const float *)from->data)[k];
    }
    return CB_OK;
}

enum cb_status module_save(const struct module *m, const struct store *store, const char *folder, struct cb_err *err) {
    for (int i = 0; i < m->n_params; i++) TRY(param_check(&m->params[i], store, err));
    if (m->tuner->before_save) TRY(m->tuner->before_save(m, store, err));
    TRY(io_mkdirs(folder, err));
    if (m->tuner->save) return m->tuner->save(m, store, folder, err);
    if (module_is_adapters(m)) return adapters_save(m, store, folder, err);
    struct store *converted = NULL;
    json_t *own = NULL;
    char *tensors = io_path_join(folder, "adapter_model.safetensors"), *config = io_path_join(folder, "adapter_config.json");
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    enum cb_status status =
        tensors && config && metadata ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory to save", folder);
    const bool is_own = m->tuner->convert || m->n_aliases;
    if (status == CB_OK && is_own) status = store_create(&converted, err);
    if (status == CB_OK && m->tuner->convert) status = m->tuner->convert(m, store, &own, converted, err);
    if (status == CB_OK && !own && m->n_aliases) status = copy_all(m, store, converted, err);
    if (status == CB_OK && m->n_aliases) status = copy_aliases(m, converted, err);
    if (status == CB_OK)
        status = own || m->n_aliases ? store_save(converted, tensors, 0, NULL, NULL, metadata, err)
                                     : store_save(store, tensors, 0, entry_pick, (void *)m, metadata, err);
    if (status == CB_OK) status = config_save(m, own ? own : m->config, config, err);
    store_destroy(&converted);
    json_decref(own);
    json_decref(metadata);
    free(tensors);
    free(config);
    return status;
}
