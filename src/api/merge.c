/* cb_merge: folds modules into the weights, and measures what that changed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/convert.h"
#include "api/files.h"
#include "api/instance.h"
#include "base/rng.h"
#include "io/file.h"
#include "modules/expression.h"
#include "ops/ops.h"

enum { PROBE_ROWS = 2, PROBE_TOKENS = 16 };

/* The same indices at every call, each within its range. */
static void fill_probe(struct pass *pass, const struct model_io *io) {
    struct rng rng = rng_make(7, rng_hash("probe"));
    for (int r = 0; r < io->n_ranges; r++) {
        int slot = plan_find(pass->plan, io->ranges[r].name);
        int32_t *to = slot < 0 ? NULL : plan_data(pass->plan, slot);
        uint64_t span = (uint64_t)(io->ranges[r].high - io->ranges[r].low);
        for (int64_t i = 0; to && i < type_elements(&plan_slot(pass->plan, slot)->type); i++)
            to[i] = (int32_t)(io->ranges[r].low + (int64_t)rng_below(&rng, span));
    }
}

/* All outputs, one behind the other. */
static enum cb_status keep_outputs(struct pass *pass, float **out, int64_t *n, struct cb_err *err) {
    struct plan *plan = pass->plan;
    for (int copy = 0; copy < 2; copy++) {
        *n = 0;
        for (int i = 0; i < plan_n_slots(plan); i++) {
            const struct plan_slot *slot = plan_slot(plan, i);
            if (!slot->is_output || slot->is_param || slot->type.dtype != CB_DTYPE_F32) continue;
            if (copy) memcpy(*out + *n, plan_data(plan, i), (size_t)type_bytes(&slot->type));
            *n += type_elements(&slot->type);
        }
        if (!copy && !(*out = malloc((size_t)*n * sizeof **out + 1))) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    }
    return CB_OK;
}

/* Logits of a fixed probe with the modules attached (as they are in the instance) or of the weights alone. Owned by caller. */
static enum cb_status probe(struct instance *in, float **logits, int64_t *n, struct cb_err *err) {
    struct pass pass;
    struct nn nn;
    int64_t tokens = in->model->learned_positions && in->model->max_positions < PROBE_TOKENS ? in->model->max_positions : PROBE_TOKENS;
    struct model_io io = {.batch = PROBE_ROWS, .tokens = tokens, .want_logits = true};
    enum cb_status status = pass_begin(&pass, in, &nn, err);
    *logits = NULL;
    if (status == CB_OK) status = model_build(in->model, &nn, &io, err);
    if (status == CB_OK) status = pass_plan(&pass, in, false, instance_weight_bytes(in), err);
    if (status == CB_OK) {
        fill_probe(&pass, &io);
        status = plan_run(pass.plan, in->engine->pool, err);
    }
    if (status == CB_OK) status = keep_outputs(&pass, logits, n, err);
    pass_end(&pass);
    return status;
}

static double largest_gap(const float *a, const float *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

static enum cb_status fold_modules(struct instance *in, bool unfold, struct cb_err *err) {
    const struct module_evaluator evaluator = instance_evaluator(in);
    return module_fold(&in->list, in->store, unfold, &evaluator, err);
}

/* Folds every module; then, as the identity test, takes them off again, compares with the original weights, and folds once more.
   is_changed: a flag a weight. */
static enum cb_status fold_all(struct instance *in, bool *is_changed, struct cb_merge_result *r, struct cb_err *err) {
    struct store *original = NULL;
    TRY(store_create(&original, err));
    enum cb_status status = CB_OK;
    for (int i = 0; i < in->model->n_weights && status == CB_OK; i++) {
        struct store_entry *from = store_find(in->store, in->model->weights[i].name), *to;
        if (!from) continue;
        status = store_make(in->store, from, CB_DTYPE_F32, true, err);
        if (status == CB_OK) status = store_add(original, from->name, from->type, &to, err);
        if (status == CB_OK) memcpy(to->data, from->data, (size_t)from->bytes);
    }
    if (status == CB_OK) status = fold_modules(in, false, err);
    for (int i = 0; i < in->model->n_weights && status == CB_OK; i++) {
        const struct store_entry *old = store_find(original, in->model->weights[i].name);
        is_changed[i] = old && memcmp(old->data, store_find(in->store, old->name)->data, (size_t)old->bytes) != 0;
        r->changed += is_changed[i];
    }
    // off again, where every module can be: what comes back should be what was there
    bool unfolds = true;
    for (int i = 0; i < in->list.n; i++) unfolds &= module_unfolds(in->modules[i]);
    if (!unfolds) r->identity = NAN;
    if (status == CB_OK && unfolds) status = fold_modules(in, true, err);
    for (int i = 0; i < store_count(original) && status == CB_OK && unfolds; i++) {
        const struct store_entry *old = store_at(original, i);
        struct store_entry *now = store_find(in->store, old->name);
        r->identity = fmax(r->identity, largest_gap(old->data, now->data, type_elements(&old->type)));
        memcpy(now->data, old->data, (size_t)old->bytes);
    }
    if (status == CB_OK && unfolds) status = fold_modules(in, false, err);
    store_destroy(&original);
    return status;
}

/* One call. */
struct merge {
    struct cb_engine *engine;
    const struct cb_merge_options *o;
    struct cb_merge_result *result;
    struct instance in;
    float *before;  // probed with the modules attached
    int64_t n;
    bool *is_changed;
};

/* The probe of the weights alone, against that of the modules. */
static enum cb_status compare(struct merge *m, struct instance *merged, struct cb_err *err) {
    const int attached = merged->list.n;
    float *after = NULL;
    merged->list.n = 0;
    enum cb_status status = probe(merged, &after, &m->n, err);
    merged->list.n = attached;
    if (status == CB_OK) m->result->max_error = largest_gap(m->before, after, m->n);
    free(after);
    return status;
}

/* ---- into a folder */

/* The weights as the file will hold them. */
static enum cb_status round_all(struct instance *in, enum cb_dtype dtype, struct cb_err *err) {
    for (int i = 0; i < in->model->n_weights && dtype != CB_DTYPE_F32; i++) {
        struct store_entry *entry = store_find(in->store, in->model->weights[i].name);
        if (!entry) continue;
        TRY(store_make(in->store, entry, dtype, true, err));
        TRY(store_make(in->store, entry, CB_DTYPE_F32, true, err));
    }
    return CB_OK;
}

/* A head that shares a table which was changed is written as well, for what reads both. */
static enum cb_status repeat_head(struct merge *m, struct cb_err *err) {
    struct instance *in = &m->in;
    const struct nn_site *head = NULL;
    struct store_entry *table, *copy;
    for (int i = 0; i < in->model->n_weights; i++) {
        if (!m->is_changed[i] || strcmp(in->model->weights[i].name, in->model->embedding) != 0) continue;
        for (int k = 0; k < in->sites.n_sites; k++)
            if (in->sites.sites[k]->kind == NN_HEAD && in->sites.sites[k]->weight &&
                strcmp(in->sites.sites[k]->weight, in->model->embedding) == 0)
                head = in->sites.sites[k];
    }
    if (!head) return CB_OK;
    table = store_find(in->store, head->weight);
    char name[256];
    snprintf(name, sizeof name, "%.240s.weight", head->name);
    TRY(store_add(in->store, name, table->type, &copy, err));
    in->model->repeated = copy->name;
    memcpy(copy->data, table->data, (size_t)table->bytes);
    return CB_OK;
}

static enum cb_status to_folder(struct merge *m, enum cb_dtype dtype, struct cb_err *err) {
    const struct cb_merge_options *o = m->o;
    if (dtype != CB_DTYPE_F32 && dtype != CB_DTYPE_F16 && dtype != CB_DTYPE_BF16)
        FAIL(err, CB_E_USAGE, "--dtype %s: wanted f32, f16 or bf16", o->dtype ? o->dtype : dtype_of(dtype)->name);
    TRY(fold_all(&m->in, m->is_changed, m->result, err));
    TRY(repeat_head(m, err));
    TRY(round_all(&m->in, dtype, err));
    TRY(compare(m, &m->in, err));
    TRY(io_mkdirs(o->out, err));
    TRY(model_save(m->in.model, m->in.store, o->out, o->shard_bytes, dtype, err));
    TRY(files_copy_tokenizer(o->model, o->out, err));
    return files_write_text(o->out, "run.json", o->run_json, err);
}

/* ---- into a GGUF file: changed weights are made in their stored types again, the others keep their bytes */

static enum cb_status parts_make(struct merge *m, const struct store *kept, struct gguf_part *parts, const struct gguf_recipe *recipe,
                                 struct cb_err *err) {
    const struct model *model = m->in.model;
    for (int i = 0; i < model->n_weights; i++) parts[i].entry = store_find(kept, model->weights[i].name);
    TRY(gguf_choose(parts, gguf_arch_of(model), model, recipe, err));
    for (int i = 0; i < model->n_weights; i++) {
        if (!m->is_changed[i]) continue;
        parts[i].entry = store_find(m->in.store, model->weights[i].name);
        const struct dtype *kind = dtype_of(parts[i].dtype);
        if (!kind->from_f32)
            FAIL(err, CB_E_DTYPE, "%s: %s has no encoder; wanted --dtype with a type that has one", model->weights[i].name, kind->name);
    }
    return CB_OK;
}

/* Of the file as it was written, its first part where it has several. */
static enum cb_status compare_file(struct merge *m, int n_files, struct cb_err *err) {
    struct instance merged = {0};
    char path[4096];
    const int stem = (int)(strlen(m->o->out) - strlen(".gguf"));
    snprintf(path, sizeof path, "%s", m->o->out);
    if (n_files > 1) snprintf(path, sizeof path, "%.*s-00001-of-%05d.gguf", stem, m->o->out, n_files);
    enum cb_status status = instance_open(&merged, m->engine, path, NULL, err);
    if (status == CB_OK) status = compare(m, &merged, err);
    instance_close(&merged);
    return status;
}

static enum cb_status to_gguf(struct merge *m, struct cb_err *err) {
    const struct cb_merge_options *o = m->o;
    const struct gguf_recipe *recipe = o->dtype ? gguf_recipe_find(o->dtype) : NULL;
    struct store *kept = NULL;
    struct model *model = NULL;
    struct gguf_saved saved = {0};
    const struct gguf_origin from = {o->model, o->model};
    const struct gguf_target to = {.path = o->out, .max_bytes = o->shard_bytes, .pool = m->engine->pool};
    char known[300];
    if (o->dtype && !recipe) FAIL(err, CB_E_USAGE, "--dtype %s: wanted one of %s", o->dtype, gguf_recipe_names(known));
    if (!gguf_arch_of(m->in.model)) FAIL(err, CB_E_UNSUPPORTED, "%s: no GGUF architecture", m->in.model->family->name);
    TRY(fold_all(&m->in, m->is_changed, m->result, err));
    struct gguf_part *parts = calloc((size_t)m->in.model->n_weights + 1, sizeof *parts);
    enum cb_status status = parts ? store_create(&kept, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "merge: out of memory");
    if (status == CB_OK) status = model_load(&model, kept, o->model, err);
    if (status == CB_OK) status = parts_make(m, kept, parts, recipe, err);
    if (status == CB_OK) status = convert_save_gguf(m->engine, &from, &to, m->in.model, parts, recipe, &saved, err);
    model_destroy(&model);
    store_destroy(&kept);
    free(parts);
    return status == CB_OK ? compare_file(m, saved.n_files, err) : status;
}

static enum cb_status merge(struct merge *m, struct cb_err *err) {
    const struct cb_merge_options *o = m->o;
    TRY(instance_open(&m->in, m->engine, o->model, o->modules, err));
    if (m->in.list.expression && !expression_is_sum(m->in.list.expression))
        FAIL(err, CB_E_UNSUPPORTED, "--modules '%s': only modules and sum(...) can be folded into weights: other blocks change outputs",
             o->modules);
    if (o->modules && !gguf_is_path(o->out)) TRY(instance_part(&m->in, o->modules, err));
    // the type of the result: as asked, or as the embedding is stored
    const struct store_entry *stored = store_find(m->in.store, m->in.model->embedding);
    enum cb_dtype dtype = o->dtype ? dtype_by_name(o->dtype) : stored ? stored->type.dtype : CB_DTYPE_F32;
    if (!o->dtype && dtype_of(dtype)->is_quantised) dtype = CB_DTYPE_F32;
    if (!(m->is_changed = calloc((size_t)m->in.model->n_weights + 1, sizeof(bool)))) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    TRY(instance_f32(&m->in, true, err));
    TRY(probe(&m->in, &m->before, &m->n, err));
    return gguf_is_path(o->out) ? to_gguf(m, err) : to_folder(m, dtype, err);
}

enum cb_status cb_merge(struct cb_engine *engine, const struct cb_merge_options *o, struct cb_merge_result *result, struct cb_err *err) {
    struct merge m = {.engine = engine, .o = o, .result = result};
    *result = (struct cb_merge_result){0};
    enum cb_status status = engine_check_runs(engine, err);
    if (status == CB_OK) status = merge(&m, err);
    instance_close(&m.in);
    free(m.is_changed);
    free(m.before);
    return status;
}
