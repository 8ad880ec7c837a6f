/* Converting LoRA adapters: GGUF to PEFT through a loaded module, and back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/convert.h"
#include "api/files.h"
#include "api/instance.h"
#include "base/arena.h"
#include "base/name.h"
#include "io/file.h"
#include "modules/tuner.h"

/* ---- to GGUF */

/* One site's pair on its way into the file. */
struct pair {
    const struct tuner_site *site;
    const struct store_entry *a, *b;  // (r,in), (out,r)
    int64_t heads;
};

/* B is scaled so that alpha / r is the scale of every site, and its rows lie as the base's. */
static enum cb_status pair_items(struct tensor_item *items, struct arena *arena, const struct gguf_arch *arch, const struct model *m,
                                 const struct pair *p, double alpha, struct cb_err *err) {
    char weight[512], file[256];
    snprintf(weight, sizeof weight, "%s.weight", p->site->site.name);
    const struct gguf_name *row = gguf_name_of_weight(arch, weight, m->family->prefix, file, NULL);
    if (!row || row->experts) FAIL(err, CB_E_UNSUPPORTED, "%s: GGUF has no name for it in %s", weight, arch->name);
    const int64_t rank = p->b->type.dim[1], rows = p->b->type.dim[0], heads = gguf_name_heads(row, m), n = rows * rank;
    const float factor = (float)(p->site->scale * (double)rank / alpha), *from = p->b->data;
    float *scaled = arena_array(arena, (size_t)n, sizeof *scaled), *b = arena_array(arena, (size_t)n, sizeof *b);
    items[0].name = arena_printf(arena, "%s.lora_a", file);
    items[1].name = arena_printf(arena, "%s.lora_b", file);
    if (!scaled || !b || !items[0].name || !items[1].name) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    for (int64_t i = 0; i < n; i++) scaled[i] = factor == 1 ? from[i] : from[i] * factor;
    if (heads)
        gguf_pair_rows(b, scaled, rows, heads, (size_t)rank * sizeof *b);
    else
        memcpy(b, scaled, (size_t)n * sizeof *b);
    items[0].type = p->a->type;
    items[0].data = p->a->data;
    items[1].type = p->b->type;
    items[1].data = b;
    return CB_OK;
}

/* A file of pairs has no place for anything else that a module holds. */
static enum cb_status check_pairs(const struct module *m, struct cb_err *err) {
    for (int i = 0; i < m->n_params; i++) {
        const struct module_param *p = &m->params[i].public;
        if (!p->is_stored || name_ends(p->key, ".lora_A.weight") || name_ends(p->key, ".lora_B.weight")) continue;
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: GGUF holds pairs of lora_A and lora_B alone; wanted LoRA of linear layers without biases, magnitudes, embeddings, token "
             "rows or saved modules",
             p->key);
    }
    if (json_array_size(json_object_get(m->config, "layer_replication")))
        FAIL(err, CB_E_UNSUPPORTED, "layer_replication: GGUF has no key for it; wanted LoRA of the base's own layers");
    return CB_OK;
}

static enum cb_status pair_find(struct pair *p, const struct module *m, int site, const struct store *store, struct cb_err *err) {
    const struct tuner_site *s = &m->sites[site];
    *p = (struct pair){.site = s};
    for (int i = 0; i < s->n_params; i++) {
        const struct module_param *param = &m->params[s->param[i]].public;
        if (name_ends(param->key, ".lora_A.weight")) p->a = store_find(store, param->name);
        if (name_ends(param->key, ".lora_B.weight")) p->b = store_find(store, param->name);
    }
    if (!p->a || !p->b || s->n_params != 2 || m->n_swaps)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: GGUF holds pairs of lora_A and lora_B alone; wanted LoRA of linear layers without biases, magnitudes or saved "
             "modules",
             s->site.name);
    return CB_OK;
}

static enum cb_status write_items(const char *path, const struct instance *in, struct arena *arena, struct cb_convert_result *result,
                                  struct cb_err *err) {
    const struct module *m = in->modules[0];
    const struct gguf_arch *arch = gguf_arch_of(in->model);
    struct tensor_item *items = arena_array(arena, (size_t)m->n_sites * 2, sizeof *items);
    struct gguf_builder *keys;
    if (!items) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    if (!arch) FAIL(err, CB_E_UNSUPPORTED, "%s: no GGUF architecture", in->model->family->name);
    TRY(check_pairs(m, err));
    // the scale of the first site, at its rank
    double alpha = 0;
    for (int i = 0; i < m->n_sites; i++) {
        struct pair p;
        TRY(pair_find(&p, m, i, in->store, err));
        if (!i) alpha = (double)(float)(m->sites[0].scale * (double)p.b->type.dim[1]);
        TRY(pair_items(items + 2 * i, arena, arch, in->model, &p, alpha, err));
    }
    TRY(gguf_builder_create(&keys, err));
    gguf_put_str(keys, "general.architecture", arch->name);
    gguf_put_str(keys, "general.type", "adapter");
    gguf_put_str(keys, "adapter.type", "lora");
    gguf_put_f32(keys, "adapter.lora.alpha", alpha);
    enum cb_status status = gguf_write(path, keys, items, 2 * m->n_sites, NULL, NULL, err);
    gguf_builder_destroy(&keys);
    result->tensors = 2 * m->n_sites;
    return status;
}

/* ---- both ways */

/* The module for given values of its fields, in its place. */
static enum cb_status make_plain(struct instance *in, const struct cb_convert_options *o, struct cb_err *err) {
    const struct module_evaluator evaluator = instance_evaluator(in);
    struct module *plain;
    for (int i = 0; i < o->n_fields; i++) {
        const char *equals = strchr(o->fields[i], '=');
        char field[256];
        if (!equals || equals - o->fields[i] >= (ptrdiff_t)sizeof field)
            FAIL(err, CB_E_USAGE, "--field %.60s: wanted FIELD=VALUE", o->fields[i]);
        snprintf(field, sizeof field, "%.*s", (int)(equals - o->fields[i]), o->fields[i]);
        TRY(module_set_field(in->modules[0], field, equals + 1, err));
    }
    TRY(module_plain(&plain, in->modules[0], in->store, "plain", &in->sites, &evaluator, err));
    module_remove(in->modules[0], in->store);
    module_destroy(&in->modules[0]);
    in->modules[0] = plain;
    return CB_OK;
}

/* The labels of the head that a module brings (labels.json): the base wants that head too, and what is written has the same. */
static char *labels_of(const char *folder) {
    char *path = gguf_is_path(folder) ? NULL : io_path_join(folder, "labels.json");
    if (path && io_is_file(path)) return path;
    free(path);
    return NULL;
}

static enum cb_status labels_copy(const char *path, const char *out, struct cb_err *err) {
    char *text;
    size_t n;
    TRY(io_read_file(&text, &n, path, (size_t)16 << 20, err));
    enum cb_status status = files_write_text(out, "labels.json", text, err);
    free(text);
    return status;
}

enum cb_status convert_adapter(struct cb_engine *engine, const struct cb_convert_options *o, struct cb_convert_result *result,
                               struct cb_err *err) {
    struct instance in = {0};
    struct arena *arena = arena_create();
    if (!arena) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    enum cb_status status = CB_OK;
    if (!o->model)
        status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "convert: %s is an adapter; wanted --model BASE, what it is for", o->in);
    if (status == CB_OK && (o->quantize || o->split_bytes))
        status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "convert: --quantize and --split are for models; %s is an adapter", o->in);
    char *labels = labels_of(o->in);
    if (status == CB_OK) status = instance_open(&in, engine, o->model, labels ? o->in : NULL, err);
    if (status == CB_OK && !labels) status = instance_load_module(&in, o->in, NULL, 1, err);
    if (status == CB_OK && o->n_fields) {
        status = make_plain(&in, o, err);
        if (status != CB_OK) err_prefix(err, "%s", o->in);
    }
    if (status == CB_OK)
        status = gguf_is_path(o->out) ? write_items(o->out, &in, arena, result, err) : module_save(in.modules[0], in.store, o->out, err);
    if (status == CB_OK && labels && !gguf_is_path(o->out)) status = labels_copy(labels, o->out, err);
    free(labels);
    if (status == CB_OK) {
        const struct module *m = in.modules[0];
        result->bytes = module_parameters(m) * (int64_t)sizeof(float);
        result->files = 1;
        if (!result->tensors) result->tensors = m->n_params;
    }
    instance_close(&in);
    arena_destroy(&arena);
    return status;
}
