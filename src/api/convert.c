/* cb_convert: models between folders and GGUF files, and between number types. */
#include "api/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/instance.h"
#include "io/file.h"

/* One call on a model. */
struct conversion {
    struct cb_engine *engine;
    const struct cb_convert_options *o;
    struct model *model;
    struct store *store;
    const struct gguf_recipe *recipe;  // NULL: as stored
};

/* ---- to GGUF */

/* One line on weights that the file has no place for, one on tensors whose rows no block of the wanted type fits. */
static void tell_parts(const struct cb_engine *engine, const struct gguf_part *parts, const struct model *m,
                       const struct gguf_recipe *recipe, int *n_other) {
    int64_t count[CB_DTYPE_COUNT] = {0};
    int n_left = 0, first = -1;
    char text[300] = "";
    *n_other = 0;
    for (int i = 0; i < m->n_weights; i++) {
        if (!parts[i].entry && !n_left++) first = i;
        if (!parts[i].entry || !parts[i].is_other) continue;
        count[parts[i].dtype]++;
        ++*n_other;
    }
    if (n_left)
        engine_warn(engine, "weights left out, as GGUF has no place for them: %d, %s the first; the file is the body of %s alone", n_left,
                    m->weights[first].name, m->class->name);
    for (int i = 0; i < CB_DTYPE_COUNT; i++)
        if (count[i] && strlen(text) < 250)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%lld as %s", *text ? ", " : "", (long long)count[i],
                     dtype_of((enum cb_dtype)i)->name);
    if (*n_other)
        engine_warn(engine, "--quantize %s: the rows of %d tensors are no multiple of its blocks: %s", recipe->name, *n_other, text);
}

enum cb_status convert_save_gguf(struct cb_engine *engine, const struct gguf_origin *from, const struct gguf_target *to,
                                 const struct model *model, const struct gguf_part *parts, const struct gguf_recipe *recipe,
                                 struct gguf_saved *saved, struct cb_err *err) {
    const struct gguf_arch *arch = gguf_arch_of(model);
    struct gguf_builder *keys = NULL;
    TRY(gguf_builder_create(&keys, err));
    enum cb_status status = gguf_model_keys(keys, from, arch, model, gguf_file_type(parts, model, recipe), engine, err);
    if (status == CB_OK) status = gguf_save(to, keys, arch, model, parts, saved, err);
    if (status == CB_OK) tell_parts(engine, parts, model, recipe, &saved->n_other);
    gguf_builder_destroy(&keys);
    return status;
}

static enum cb_status to_gguf(struct conversion *c, struct cb_convert_result *result, struct cb_err *err) {
    const struct gguf_arch *arch = gguf_arch_of(c->model);
    char known[200];
    struct gguf_saved saved = {0};
    const struct gguf_origin from = {c->o->in, c->o->in};
    const struct gguf_target to = {.path = c->o->out, .max_bytes = c->o->split_bytes, .pool = c->engine->pool};
    if (!arch)
        FAIL(err, CB_E_UNSUPPORTED, "%s: family %s has no GGUF architecture; wanted one of %s", c->o->in, c->model->family->name,
             gguf_arch_names(known));
    struct gguf_part *parts = calloc((size_t)c->model->n_weights + 1, sizeof *parts);
    if (!parts) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    for (int i = 0; i < c->model->n_weights; i++) parts[i].entry = store_find(c->store, c->model->weights[i].name);
    enum cb_status status = gguf_choose(parts, arch, c->model, c->recipe, err);
    if (status == CB_OK) status = convert_save_gguf(c->engine, &from, &to, c->model, parts, c->recipe, &saved, err);
    free(parts);
    *result = (struct cb_convert_result){saved.bytes, saved.n_tensors, saved.n_files, saved.max_error, saved.n_other};
    return status;
}

/* ---- to a folder */

/* What a change of type does to an entry's numbers. */
static double change(const struct store_entry *entry, enum cb_dtype to) {
    const struct dtype *from = dtype_of(entry->type.dtype);
    unsigned char bytes[1024 * 8];
    float in[1024], out[1024];
    double worst = 0;
    const int64_t n = type_elements(&entry->type);
    for (int64_t i = 0; i < n && to != entry->type.dtype && to != CB_DTYPE_F32; i += 1024) {
        const int64_t count = n - i < 1024 ? n - i : 1024;
        from->to_f32(in, (const char *)entry->data + i / from->block * from->block_bytes, count);
        dtype_of(to)->from_f32(bytes, in, count);
        dtype_of(to)->to_f32(out, bytes, count);
        for (int64_t k = 0; k < count; k++) worst = fmax(worst, fabs((double)out[k] - (double)in[k]));
    }
    return worst;
}

static enum cb_status to_folder(struct conversion *c, struct cb_convert_result *result, struct cb_err *err) {
    const enum cb_dtype asked = c->recipe ? c->recipe->dtype : CB_DTYPE_COUNT;
    struct tensors *written;
    if (c->recipe && dtype_of(asked)->is_quantised)
        FAIL(err, CB_E_USAGE, "--quantize %s: a folder holds f32, f16 or bf16; wanted OUT.gguf for blocks", c->o->quantize);
    for (int i = 0; i < c->model->n_weights; i++) {
        struct store_entry *entry = store_find(c->store, c->model->weights[i].name);
        const enum cb_dtype stored = dtype_of(entry->type.dtype)->is_quantised ? CB_DTYPE_F32 : entry->type.dtype;
        result->max_error = fmax(result->max_error, change(entry, c->recipe ? asked : stored));
        if (entry->turned) TRY(store_make(c->store, entry, stored, true, err));
    }
    TRY(io_mkdirs(c->o->out, err));
    TRY(model_save(c->model, c->store, c->o->out, c->o->split_bytes, asked, err));
    TRY(files_copy_tokenizer(c->o->in, c->o->out, err));
    TRY(files_write_text(c->o->out, "run.json", c->o->run_json, err));
    TRY(tensors_open(&written, c->o->out, err));
    result->tensors = tensors_count(written);
    for (int i = 0; i < tensors_count(written); i++) {
        result->bytes += tensors_at(written, i)->bytes;
        bool seen = false;
        for (int k = 0; k < i && !seen; k++) seen = tensors_at(written, k)->map == tensors_at(written, i)->map;
        result->files += !seen;
    }
    tensors_destroy(&written);
    return CB_OK;
}

/* ---- which way */

static bool is_adapter(const char *path) {
    if (gguf_is_path(path)) {
        struct gguf *g;
        struct cb_err quiet = {0};
        if (gguf_open(&g, path, &quiet) != CB_OK) return false;
        const struct gguf_key *key = gguf_find(g, "adapter.type");
        gguf_destroy(&g);
        return key != NULL;
    }
    char *config = io_path_join(path, "adapter_config.json");
    bool there = config && io_is_file(config);
    free(config);
    return there;
}

enum cb_status cb_convert(struct cb_engine *engine, const struct cb_convert_options *o, struct cb_convert_result *result,
                          struct cb_err *err) {
    struct conversion c = {.engine = engine, .o = o};
    char known[300];
    *result = (struct cb_convert_result){0};
    if (o->split_bytes < 0) FAIL(err, CB_E_USAGE, "--split %lld: wanted bytes above 0", (long long)o->split_bytes);
    if (o->quantize && !(c.recipe = gguf_recipe_find(o->quantize)))
        FAIL(err, CB_E_USAGE, "--quantize %s: wanted one of %s", o->quantize, gguf_recipe_names(known));
    if (convert_is_setup(o)) return convert_setup(engine, o, result, err);
    if (is_adapter(o->in)) return convert_adapter(engine, o, result, err);
    if (o->n_fields) FAIL(err, CB_E_USAGE, "--field %s: goes with an adapter; %s is none", o->fields[0], o->in);
    if (o->model) FAIL(err, CB_E_USAGE, "--model %s: goes with an adapter; %s is none", o->model, o->in);
    enum cb_status status = store_create(&c.store, err);
    if (status == CB_OK) status = model_load(&c.model, c.store, o->in, err);
    if (status == CB_OK) status = gguf_is_path(o->out) ? to_gguf(&c, result, err) : to_folder(&c, result, err);
    model_destroy(&c.model);
    store_destroy(&c.store);
    return status;
}
