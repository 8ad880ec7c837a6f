/* cb_inspect: what a file or folder is, and whether it is whole. One row of a table per kind of file. */
#include "api/inspect.h"
#include "api/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/instance.h"
#include "base/name.h"
#include "data/reader.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "modules/tuner.h"
#include "text/tokenizer.h"
#include "train/ckpt.h"

void inspect_put(json_t *root, const char *key, json_t *value) { json_object_set_new(root, key, value); }

static json_t *shape_json(const struct cb_type *type) {
    json_t *shape = json_array();
    for (int i = 0; i < type->rank; i++) json_array_append_new(shape, json_integer(type->dim[i]));
    return shape;
}

void inspect_tensors(const struct inspection *in, const struct tensors *t) {
    int64_t bytes = 0, elements = 0;
    json_t *types = json_object(), *list = json_array();
    for (int i = 0; i < tensors_count(t); i++) {
        const struct tensor *tensor = tensors_at(t, i);
        const char *dtype = dtype_of(tensor->type.dtype)->name;
        bytes += tensor->bytes;
        elements += type_elements(&tensor->type);
        inspect_put(types, dtype, json_integer(json_integer_value(json_object_get(types, dtype)) + 1));
        json_t *one = json_object();
        inspect_put(one, "name", json_string(tensor->name));
        inspect_put(one, "dtype", json_string(dtype));
        inspect_put(one, "shape", shape_json(&tensor->type));
        json_array_append_new(list, one);
    }
    inspect_put(in->root, "tensors", json_integer(tensors_count(t)));
    inspect_put(in->root, "elements", json_integer(elements));
    inspect_put(in->root, "bytes", json_integer(bytes));
    inspect_put(in->root, "dtypes", types);
    if (tensors_metadata_all(t)) json_object_set(in->root, "metadata", (json_t *)(uintptr_t)tensors_metadata_all(t));
    if (in->tensors)
        inspect_put(in->root, "list", list);
    else
        json_decref(list);
}

static enum cb_status inspect_safetensors(struct inspection *in, struct cb_err *err) {
    struct tensors *t;
    TRY(tensors_open(&t, in->path, err));
    inspect_tensors(in, t);
    tensors_destroy(&t);
    return CB_OK;
}

static enum cb_status inspect_checkpoint(struct inspection *in, struct cb_err *err) {
    TRY(inspect_safetensors(in, err));
    return ckpt_check(in->path, err);
}

void inspect_model(const struct inspection *in, const struct model *m) {
    inspect_put(in->root, "family", json_string(m->family->name));
    inspect_put(in->root, "parameters", json_integer(model_parameters(m)));
    inspect_put(in->root, "layers", json_integer(m->n_layer));
    inspect_put(in->root, "width", json_integer(m->n_embd));
    inspect_put(in->root, "heads", json_integer(m->n_head));
    inspect_put(in->root, "key_heads", json_integer(m->n_kv_head));
    inspect_put(in->root, "vocab", json_integer(m->vocab));
    inspect_put(in->root, "positions", json_integer(m->max_positions));
    inspect_put(in->root, "tied", json_boolean(m->tied));
    json_t *eos = json_array();
    for (int i = 0; i < m->n_eos; i++) json_array_append_new(eos, json_integer(m->eos[i]));
    inspect_put(in->root, "eos", eos);
}

static enum cb_status inspect_config(struct inspection *in, struct cb_err *err) {
    struct model *m;
    TRY(model_check_config(&m, in->path, err));
    inspect_model(in, m);
    model_destroy(&m);
    return CB_OK;
}

static enum cb_status inspect_tokenizer(struct inspection *in, struct cb_err *err) {
    struct tokenizer *t;
    TRY(files_load_tokenizer(&t, in->path, err));
    inspect_put(in->root, "vocab", json_integer(tokenizer_size(t)));
    json_t *pieces = json_array();
    for (int32_t id = 0; id < tokenizer_size(t) && json_array_size(pieces) < 8; id++) {
        size_t n = 0;
        const char *piece = tokenizer_token(t, id, &n);
        json_t *text = piece ? json_stringn(piece, n) : NULL;
        json_array_append_new(pieces, text ? text : json_null());
    }
    inspect_put(in->root, "first_pieces", pieces);
    int32_t bos = tokenizer_bos(t), eos = tokenizer_eos(t);
    if (bos >= 0) inspect_put(in->root, "bos", json_integer(bos));
    if (eos >= 0) inspect_put(in->root, "eos", json_integer(eos));
    tokenizer_destroy(&t);
    return CB_OK;
}

static void describe_module(const struct inspection *in, const struct module *m) {
    json_t *sites = json_array();
    inspect_put(in->root, "tuner", json_string(module_tuner(m)->name));
    inspect_put(in->root, "parameters", json_integer(module_parameters(m)));
    for (int i = 0; i < module_n_sites(m); i++) json_array_append_new(sites, json_string(module_site_name(m, i)));
    inspect_put(in->root, "sites", sites);
    json_object_set(in->root, "config", (json_t *)(uintptr_t)module_config(m));
    if (module_warning(m)) inspect_put(in->root, "warning", json_string(module_warning(m)));
}

/* An adapter's configuration, against a base where one is given; with a folder, its tensors as well. */
static enum cb_status inspect_adapter(struct inspection *in, const char *folder, struct cb_err *err) {
    struct instance base = {0};
    struct cb_engine none = {0};
    struct module *m = NULL;
    enum cb_status status = CB_OK;
    if (in->model) {
        base.engine = &none;
        base.path = in->model;
        status = store_create(&base.store, err);
        if (status == CB_OK) status = model_load(&base.model, base.store, in->model, err);
        if (status == CB_OK) status = instance_sites(&base, err);
    }
    const struct nn *sites = in->model ? &base.sites : NULL;
    if (status == CB_OK && folder && sites) {
        status = module_load(&m, base.store, folder, "module", sites, err);
    } else if (status == CB_OK) {
        char *path = folder ? io_path_join(folder, "adapter_config.json") : strdup(in->path);
        status = path ? module_check_config(&m, path, "module", sites, err)
                      : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "inspect: out of memory");
        free(path);
    }
    if (status == CB_OK) describe_module(in, m);
    module_destroy(&m);
    instance_close(&base);
    return status;
}

static enum cb_status inspect_adapter_config(struct inspection *in, struct cb_err *err) { return inspect_adapter(in, NULL, err); }

static bool has(const char *folder, const char *name) {
    char *path = io_path_join(folder, name);
    bool there = path && io_is_file(path);
    free(path);
    return there;
}

/* A tokenizer must not give ids that the model has no row for. */
static enum cb_status check_vocab(const struct inspection *in, const struct model *m, struct cb_err *err) {
    struct tokenizer *t;
    TRY(files_load_tokenizer(&t, in->path, err));
    int64_t size = tokenizer_size(t);
    tokenizer_destroy(&t);
    if (size > m->vocab)
        FAIL(err, CB_E_FORMAT, "%s: the tokenizer has %lld ids, the model's vocab_size is %lld; wanted as many or more", in->path,
             (long long)size, (long long)m->vocab);
    return CB_OK;
}

static enum cb_status inspect_model_folder(struct inspection *in, struct cb_err *err) {
    struct model *m = NULL;
    struct store *store = NULL;
    struct tensors *t = NULL;
    TRY(store_create(&store, err));
    enum cb_status status = model_load(&m, store, in->path, err);
    if (status == CB_OK) status = tensors_open(&t, in->path, err);
    if (status == CB_OK) {
        inspect_tensors(in, t);
        inspect_model(in, m);
        inspect_put(in->root, "tokenizer", json_boolean(files_have_tokenizer(in->path)));
        if (json_is_true(json_object_get(in->root, "tokenizer"))) status = check_vocab(in, m, err);
    }
    tensors_destroy(&t);
    model_destroy(&m);
    store_destroy(&store);
    return status;
}

static enum cb_status inspect_adapter_folder(struct inspection *in, struct cb_err *err) {
    TRY(inspect_adapter(in, in->path, err));
    struct tensors *t;
    TRY(tensors_open(&t, in->path, err));
    inspect_tensors(in, t);
    tensors_destroy(&t);
    return CB_OK;
}

static enum cb_status inspect_fusion_folder(struct inspection *in, struct cb_err *err) {
    struct tensors *t;
    char *path = io_path_join(in->path, "model_adapter_fusion.safetensors");
    if (!path) FAIL(err, CB_E_MEMORY, "inspect: out of memory");
    enum cb_status status = in->model ? inspect_adapter(in, in->path, err) : CB_OK;
    if (status == CB_OK) status = tensors_open(&t, path, err);
    free(path);
    TRY(status);
    inspect_tensors(in, t);
    tensors_destroy(&t);
    return CB_OK;
}

/* Weights alone: what they are weights of is not there. */
static enum cb_status inspect_weights_folder(struct inspection *in, struct cb_err *err) {
    const bool is_adapter = has(in->path, "adapter_model.safetensors") || has(in->path, "adapter_model.bin");
    TRY(inspect_safetensors(in, err));
    FAIL(err, CB_E_IO, "%s: weights without %s; wanted it beside them", in->path, is_adapter ? "adapter_config.json" : "config.json");
}

/* Whether the last part of a path does. */
static bool begins_with(const char *path, const char *begin) {
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, begin, strlen(begin)) == 0;
}

/* Kinds of file by the end of their names, folders by what is in them; the first that fits. */
static const struct {
    const char *kind, *ending;  // ending of the path, or the file that marks a folder
    bool is_folder;
    enum cb_status (*inspect)(struct inspection *in, struct cb_err *err);
    const char *beginning;  // of the file's name; NULL: any
} kinds[] = {
    {"adapter", "adapter_config.json", true, inspect_adapter_folder, NULL},
    {"fusion", "adapter_fusion_config.json", true, inspect_fusion_folder, NULL},
    {"model", "config.json", true, inspect_model_folder, NULL},
    {"weights", "model.safetensors", true, inspect_weights_folder, NULL},
    {"weights", "model.safetensors.index.json", true, inspect_weights_folder, NULL},
    {"weights", "pytorch_model.bin", true, inspect_weights_folder, NULL},
    {"weights", "pytorch_model.bin.index.json", true, inspect_weights_folder, NULL},
    {"adapter weights", "adapter_model.safetensors", true, inspect_weights_folder, NULL},
    {"adapter weights", "adapter_model.bin", true, inspect_weights_folder, NULL},
    {"checkpoint", ".safetensors", false, inspect_checkpoint, "ckpt-"},
    {"checkpoint", ".safetensors", false, inspect_checkpoint, "best.safetensors"},
    {"safetensors", ".safetensors", false, inspect_safetensors, NULL},
    {"gguf", ".gguf", false, inspect_gguf, NULL},
    {"safetensors index", ".safetensors.index.json", false, inspect_safetensors, NULL},
    {"torch", ".bin", false, inspect_safetensors, NULL},
    {"torch", ".pt", false, inspect_safetensors, NULL},
    {"torch index", ".bin.index.json", false, inspect_safetensors, NULL},
    {"adapter configuration", "adapter_config.json", false, inspect_adapter_config, NULL},
    {"tokenizer", "tokenizer.json", false, inspect_tokenizer, NULL},
    {"model configuration", "config.json", false, inspect_config, NULL},
    {"tokenizer", ".model", false, inspect_tokenizer, NULL},
    {"tokenizer", ".tiktoken", false, inspect_tokenizer, NULL},
    {"tokenizer", "vocab.txt", false, inspect_tokenizer, NULL},
    {"text", ".txt", false, inspect_text, NULL},
    {"text", ".txt.gz", false, inspect_text, NULL},
    {"text", ".txt.zst", false, inspect_text, NULL},
    {"text", ".md", false, inspect_text, NULL},
};

static enum cb_status inspect(struct inspection *in, struct cb_err *err) {
    bool is_folder = io_is_folder(in->path);
    if (!is_folder && !io_is_file(in->path)) FAIL(err, CB_E_IO, "%s: no such file or folder", in->path);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].is_folder != is_folder) continue;
        if (is_folder ? !has(in->path, kinds[i].ending) : !name_ends(in->path, kinds[i].ending)) continue;
        if (kinds[i].beginning && !begins_with(in->path, kinds[i].beginning)) continue;
        inspect_put(in->root, "kind", json_string(kinds[i].kind));
        return kinds[i].inspect(in, err);
    }
    const bool has_tokenizer = is_folder && files_have_tokenizer(in->path);
    if (has_tokenizer || (!is_folder && reader_by_name(in->path))) {
        inspect_put(in->root, "kind", json_string(has_tokenizer ? "tokenizer" : "records"));
        return has_tokenizer ? inspect_tokenizer(in, err) : inspect_records(in, err);
    }
    FAIL(err, CB_E_UNSUPPORTED, "%s: %s", in->path,
         is_folder ? "no config.json, adapter_config.json, model.safetensors or file of a tokenizer (tokenizer.json, tokenizer.model, "
                     "vocab.txt, ...) in it"
                   : "not a kind of file that is known by its name (.safetensors, .bin, .pt, .gguf, .jsonl, .json, .csv, .tsv, .parquet, "
                     ".conll, -ubyte, .txt, config.json, adapter_config.json, tokenizer.json, .model, .tiktoken, vocab.txt)");
}

/* "key: value" lines; lists of objects one a line. */
static char *as_text(const json_t *root) {
    char *text = NULL;
    size_t n, i;
    const char *key;
    json_t *value, *item;
    FILE *f = open_memstream(&text, &n);
    if (!f) return NULL;
    json_object_foreach((json_t *)(uintptr_t)root, key, value) {
        bool rows =
            json_is_array(value) && json_array_size(value) && (json_is_object(json_array_get(value, 0)) || strcmp(key, "sites") == 0);
        char *line = rows ? NULL : json_is_string(value) ? strdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY);
        fprintf(f, "%-14s %s\n", key, line ? line : "");
        free(line);
        if (rows) json_array_foreach(value, i, item) {
                line = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);
                fprintf(f, "  %s\n", line ? line : "");
                free(line);
            }
    }
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    if (n && text[n - 1] == '\n') text[n - 1] = 0;
    return text;
}

enum cb_status cb_inspect(const char *path, const char *model, bool check, bool tensors, bool json, char **text, struct cb_err *err) {
    struct inspection in = {.path = path, .model = model, .tensors = tensors, .root = json_object()};
    struct cb_err problem = {0};
    *text = NULL;
    if (!in.root) FAIL(err, CB_E_MEMORY, "inspect: out of memory");
    inspect_put(in.root, "path", json_string(path));
    enum cb_status status = inspect(&in, &problem);
    if (status != CB_OK && (check || status == CB_E_MEMORY || !json_object_get(in.root, "kind"))) {
        json_decref(in.root);
        if (err && err->code == CB_OK) *err = problem;
        return status;
    }
    if (status != CB_OK) inspect_put(in.root, "problem", json_string(problem.message));
    *text = json ? json_dumps(in.root, JSON_COMPACT) : as_text(in.root);
    json_decref(in.root);
    if (!*text) FAIL(err, CB_E_MEMORY, "inspect: out of memory");
    return CB_OK;
}
