/* Reading a model's folder: config.json, generation_config.json and every weight, strictly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/safetensors.h"
#include "models/gguf.h"
#include "models/model.h"

#define GENERATION_LIMIT ((size_t)1 << 20)

/* Names of one kind of trouble: how many, and the first ones as text. */
struct list {
    int n, shown;
    size_t used;
    char text[260];
};

static void list_add(struct list *list, const char *name) {
    size_t length = strlen(name);
    list->n++;
    if (list->used + length + 3 >= sizeof list->text) return;
    list->shown++;
    list->used += (size_t)snprintf(list->text + list->used, sizeof list->text - list->used, "%s%s", list->used ? ", " : "", name);
}

/* "; 3 missing (a, b, ...)" */
static void list_print(const struct list *list, const char *what, char *out, size_t size) {
    if (!list->n) return;
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%d %s (%s%s)", used ? "; " : "", list->n, what, list->text, list->shown < list->n ? ", ..." : "");
}

/* Whether a file's tensor serves for a weight. */
static bool type_serves(const struct cb_type *have, const struct cb_type *want) {
    if (have->rank != want->rank || !dtype_of(have->dtype)->is_float) return false;
    for (int i = 0; i < have->rank; i++)
        if (have->dim[i] != want->dim[i]) return false;
    return true;
}

/* The weight that a tensor of the file is; an alias only where the weight's own name is not in the file. */
static const char *name_in_model(const struct model *model, const struct tensors *tensors, const char *name, bool *ignored) {
    const char *found = model_weight_name(model, name, ignored);
    if (!found || !*ignored) return found;
    const char *prefix = model->family->prefix;
    size_t n = strlen(prefix);
    bool has_own = tensors_find(tensors, found) || (strncmp(found, prefix, n) == 0 && tensors_find(tensors, found + n));
    for (int i = 0; i < model->n_aliases && !has_own; i++) {
        // of several aliases the first counts
        if (strcmp(model->aliases[i].alias, name) == 0) break;
        has_own = strcmp(model->aliases[i].name, found) == 0 && tensors_find(tensors, model->aliases[i].alias);
    }
    return has_own ? NULL : found;
}

/* Where the file's head is not the model's: the model of the file's own class and labels; and the wanted one with a label more (NULL: no label decides its
   shapes), which tells the weights that belong to the labels. */
struct heads {
    struct model *file, *wider;
};

/* Whether a weight is not the file's to give. heads: nullable, all are. */
static bool is_fresh(const struct heads *heads, const struct model_weight *weight) {
    if (!heads) return false;
    const struct model_weight *there = model_find_weight(heads->file, weight->name);
    const struct model_weight *wider = heads->wider ? model_find_weight(heads->wider, weight->name) : weight;
    return !there || !type_serves(&there->type, &weight->type) || !type_serves(&wider->type, &weight->type);
}

/* Compares names and shapes of all tensors with the table; every difference is told. heads: nullable; fresh weights, and those of the file's own head, may be
   missing. */
static enum cb_status weights_compare(const struct model *model, const struct heads *heads, const struct tensors *tensors,
                                      struct cb_err *err) {
    struct list missing = {0}, unexpected = {0}, wrong = {0};
    bool *seen = calloc((size_t)model->n_weights, sizeof *seen);
    if (!seen) FAIL(err, CB_E_MEMORY, "%s: no memory to compare %d weights", tensors_name(tensors), model->n_weights);
    for (int i = 0; i < tensors_count(tensors); i++) {
        const struct tensor *t = tensors_at(tensors, i);
        bool ignored;
        const char *name = name_in_model(model, tensors, t->name, &ignored);
        if (!name && !ignored && !(heads && model_weight_name(heads->file, t->name, &ignored))) list_add(&unexpected, t->name);
        const struct model_weight *w = name ? model_find_weight(model, name) : NULL;
        if (!w || is_fresh(heads, w)) continue;
        seen[w - model->weights] = true;
        if (type_serves(&t->type, &w->type)) continue;
        char text[2][TYPE_TEXT], both[400];
        snprintf(both, sizeof both, "%.120s: found %s, wanted %s", name, type_text(&t->type, text[0]), type_text(&w->type, text[1]));
        list_add(&wrong, both);
    }
    for (int i = 0; i < model->n_weights; i++)
        if (!seen[i] && !model->weights[i].is_buffer && !is_fresh(heads, &model->weights[i])) list_add(&missing, model->weights[i].name);
    free(seen);
    if (!missing.n && !unexpected.n && !wrong.n) return CB_OK;
    char report[900] = "";
    list_print(&missing, "missing", report, sizeof report);
    list_print(&unexpected, "unexpected", report, sizeof report);
    list_print(&wrong, "of another shape", report, sizeof report);
    FAIL(err, CB_E_FORMAT, "%s: %s; wanted the %d weights of this %s", tensors_name(tensors), report, model->n_weights,
         model->family->name);
}

/* Optional weights of which the file has none are none of the model's. */
static void optional_settle(struct model *model, const struct tensors *tensors) {
    for (int i = 0; i < tensors_count(tensors); i++) {
        bool ignored;
        const char *name = name_in_model(model, tensors, tensors_at(tensors, i)->name, &ignored);
        if (name && model_find_weight(model, name)->is_optional) return;
    }
    model_drop_optional(model);
}

struct rename {
    const struct model *model;
    const struct heads *heads;
    const struct tensors *tensors;
};

static const char *weight_rename(void *context, const struct tensor *tensor) {
    const struct rename *r = context;
    bool ignored;
    const char *name = name_in_model(r->model, r->tensors, tensor->name, &ignored);
    return name && !is_fresh(r->heads, model_find_weight(r->model, name)) ? name : NULL;
}

/* Buffers that the file lacks, as zeros. */
static enum cb_status buffers_add(const struct model *model, struct store *store, struct cb_err *err) {
    struct store_entry *entry;
    for (int i = 0; i < model->n_weights; i++) {
        const struct model_weight *w = &model->weights[i];
        if (w->is_buffer && !store_find(store, w->name)) TRY(store_add(store, w->name, w->type, &entry, err));
    }
    return CB_OK;
}

/* Weights that no file has: fresh, and marked so that they are trained. */
static enum cb_status fresh_add(const struct model *model, struct store *store, uint64_t seed, struct cb_err *err) {
    for (int i = 0; i < model->n_weights; i++) {
        if (store_find(store, model->weights[i].name)) continue;
        TRY(model_init_weight(&model->weights[i], store, seed, err));
        store_find(store, model->weights[i].name)->trainable = true;
    }
    return CB_OK;
}

static enum cb_status weights_load(struct model *model, const struct heads *heads, uint64_t seed, struct store *store, const char *folder,
                                   struct cb_err *err) {
    struct tensors *tensors;
    TRY(tensors_open(&tensors, folder, err));
    optional_settle(model, tensors);
    enum cb_status status = weights_compare(model, heads, tensors, err);
    int before = store_count(store);
    if (status == CB_OK) status = store_load(store, tensors, weight_rename, &(struct rename){model, heads, tensors}, err);
    if (status == CB_OK) status = buffers_add(model, store, err);
    if (status == CB_OK && heads) status = fresh_add(model, store, seed, err);
    // a failure leaves the store as it was
    while (status != CB_OK && store_count(store) > before) store_remove(store, store_at(store, store_count(store) - 1)->name);
    tensors_destroy(&tensors);
    return status;
}

/* generation_config.json, where there is one, has the last word on the end of text. */
static enum cb_status generation_load(struct model *m, const char *folder, struct cb_err *err) {
    char *path = io_path_join(folder, "generation_config.json"), *text = NULL;
    size_t n;
    if (!path) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", folder);
    enum cb_status status = CB_OK;
    if (io_is_file(path)) {
        status = io_read_file(&text, &n, path, GENERATION_LIMIT, err);
        if (status == CB_OK) status = json_parse_object(&m->generation, text, n, path, err);
        int64_t eos[MODEL_MAX_EOS];
        int n_eos = 0;
        if (status == CB_OK)
            status = json_get_ints(eos, &n_eos, MODEL_MAX_EOS, m->generation, path, "eos_token_id", 0, m->vocab - 1, false, err);
        if (status == CB_OK)
            status = json_get_int(&m->decoder_start, m->generation, path, "decoder_start_token_id", 0, m->vocab - 1, false, err);
        if (status == CB_OK) status = json_get_int(&m->forced_bos, m->generation, path, "forced_bos_token_id", 0, m->vocab - 1, false, err);
        if (status == CB_OK && n_eos) {
            memcpy(m->eos, eos, sizeof eos);
            m->n_eos = n_eos;
        }
        free(text);
    }
    free(path);
    return status;
}

/* The model that a folder's config.json says. */
static enum cb_status folder_describe(struct model **model, const char *folder, struct cb_err *err) {
    *model = NULL;
    if (io_is_file(folder)) FAIL(err, CB_E_FORMAT, "%s: found a file that is no model; wanted a model's folder or a .gguf file", folder);
    if (!io_is_folder(folder)) FAIL(err, CB_E_IO, "%s: no such file or folder; wanted a model's folder or a .gguf file", folder);
    char *path = io_path_join(folder, "config.json");
    if (!path) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", folder);
    enum cb_status status = model_check_config(model, path, err);
    free(path);
    return status;
}

enum cb_status model_load(struct model **model, struct store *store, const char *folder, struct cb_err *err) {
    *model = NULL;
    if (gguf_is_path(folder) && !io_is_folder(folder)) return gguf_load_model(model, store, folder, err);
    struct model *m = NULL;
    enum cb_status status = folder_describe(&m, folder, err);
    if (status == CB_OK) status = generation_load(m, folder, err);
    if (status == CB_OK) status = weights_load(m, NULL, 0, store, folder, err);
    if (status != CB_OK) model_destroy(&m);
    *model = m;
    return status;
}

/* ---- with another head */
static const struct model_class *class_named(const struct family *family, const char *name) {
    int i = 0;
    while (model_class_at(family, i) && !model_class_is(model_class_at(family, i), name)) i++;
    return model_class_at(family, i);
}

/* The file's labels are those wanted, or it names none. */
static enum cb_status labels_compare(const struct model *file, const struct model_as *as, const char *folder, struct cb_err *err) {
    const json_t *names = json_object_get(file->config, "id2label");
    if (!file->class->head->has_labels) return CB_OK;
    if (file->n_labels != as->n_labels)
        FAIL(err, CB_E_ARGUMENT, "%s: found a head of %lld labels; the data have %d", folder, (long long)file->n_labels, as->n_labels);
    for (int i = 0; names && as->labels && i < as->n_labels; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        const char *name = json_string_value(json_object_get(names, key));
        if (name && strcmp(name, as->labels[i]) != 0)
            FAIL(err, CB_E_ARGUMENT, "%s: label %d: found %.60s; the data have %.60s", folder, i, name, as->labels[i]);
    }
    return CB_OK;
}

/* The configuration of the class with the head. *out: owned by caller. */
static enum cb_status config_as(json_t **out, const struct model *file, const struct model_class *class, const struct model_as *as,
                                struct cb_err *err) {
    static const char *const problems[] = {NULL, "regression", "single_label_classification", "multi_label_classification"};
    char name[MODEL_CLASS_NAME], key[16];
    json_t *config = json_copy(file->config), *by_id = json_object(), *by_name = json_object();
    bool ok = config && by_id && by_name && model_class_name(name, file->family, class);
    for (int i = 0; ok && as->labels && i < as->n_labels; i++) {
        snprintf(key, sizeof key, "%d", i);
        ok = json_object_set_new(by_id, key, json_string(as->labels[i])) == 0 &&
             json_object_set_new(by_name, as->labels[i], json_integer(i)) == 0;
    }
    ok = ok && json_object_set_new(config, "architectures", json_pack("[s]", name)) == 0;
    if (as->labels) {
        ok = ok && json_object_set(config, "id2label", by_id) == 0 && json_object_set(config, "label2id", by_name) == 0;
    } else if (as->n_labels) {
        json_object_del(config, "id2label");
        ok = ok && json_object_set_new(config, "num_labels", json_integer(as->n_labels)) == 0;
    }
    if (problems[as->problem]) ok = ok && json_object_set_new(config, "problem_type", json_string(problems[as->problem])) == 0;
    if (as->pad >= 0 && file->pad < 0) ok = ok && json_object_set_new(config, "pad_token_id", json_integer(as->pad)) == 0;
    json_decref(by_id);
    json_decref(by_name);
    if (!ok) {
        json_decref(config);
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", class->name);
    }
    *out = config;
    return CB_OK;
}

/* The class with one label more. */
static enum cb_status widen(struct model **model, const struct model *file, const struct model_class *class, const struct model_as *as,
                            const char *folder, struct cb_err *err) {
    const struct model_as wider = {.class = as->class, .n_labels = as->n_labels + 1, .problem = as->problem, .pad = as->pad};
    json_t *config;
    TRY(config_as(&config, file, class, &wider, err));
    enum cb_status status = model_from_config(model, config, folder, err);
    json_decref(config);
    return status;
}

enum cb_status model_load_as(struct model **model, struct store *store, const char *folder, const struct model_as *as, struct cb_err *err) {
    struct heads heads = {0};
    struct model *m = NULL;
    json_t *config = NULL;
    *model = NULL;
    TRY(model_describe(&heads.file, folder, err));
    const struct model *file = heads.file;
    const struct model_class *class = class_named(file->family, as->class);
    enum cb_status status = CB_OK;
    if (!class)
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__, "%s: %s has no class %s%s", folder, file->family->name,
                         file->family->title, as->class);
    else if (gguf_is_path(folder) && !io_is_folder(folder))
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__,
                         "%s: a GGUF file takes no other head; wanted a folder (cambium convert)", folder);
    char name[MODEL_CLASS_NAME];
    bool is_own = class && model_class_name(name, file->family, class) && strcmp(name, file->class->name) == 0;
    struct cb_err differ = {0};
    if (is_own && as->head == MODEL_HEAD_FRESH && !class->head->has_labels)
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__,
                         "%s: a new head: found a %s, whose head has no labels; it is learnt on from the file's", folder, name);
    if (is_own && as->head == MODEL_HEAD_FRESH) is_own = false;
    if (is_own && as->head == MODEL_HEAD_FITTING) is_own = labels_compare(file, as, folder, &differ) == CB_OK;
    if (status == CB_OK && is_own) status = labels_compare(file, as, folder, err);
    if (status == CB_OK) status = config_as(&config, file, class, as, err);
    if (status == CB_OK) status = model_from_config(&m, config, folder, err);
    if (status == CB_OK && !is_own && m->class->head->has_labels) status = widen(&heads.wider, file, class, as, folder, err);
    if (status == CB_OK) status = weights_load(m, is_own ? NULL : &heads, as->seed, store, folder, err);
    json_decref(config);
    model_destroy(&heads.file);
    model_destroy(&heads.wider);
    if (status != CB_OK) model_destroy(&m);
    *model = m;
    return status;
}

enum cb_status model_describe(struct model **model, const char *path, struct cb_err *err) {
    if (gguf_is_path(path) && !io_is_folder(path)) return gguf_load_model(model, NULL, path, err);
    return folder_describe(model, path, err);
}
