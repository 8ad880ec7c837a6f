/* cb_merge: folds modules into the weights, and measures what that changed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/instance.h"
#include "base/rng.h"
#include "io/file.h"

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

/* Folds every module; then, as the identity test, takes them off again, compares with the original weights, and folds once more. */
static enum cb_status fold_all(struct instance *in, struct cb_merge_result *r, struct cb_err *err) {
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
    for (int m = 0; m < in->list.n && status == CB_OK; m++) status = module_fold(in->modules[m], in->store, false, err);
    for (int i = 0; i < store_count(original) && status == CB_OK; i++) {
        const struct store_entry *old = store_at(original, i);
        r->changed += memcmp(old->data, store_find(in->store, old->name)->data, (size_t)old->bytes) != 0;
    }
    // off again: what comes back should be what was there
    for (int m = in->list.n - 1; m >= 0 && status == CB_OK; m--) status = module_fold(in->modules[m], in->store, true, err);
    for (int i = 0; i < store_count(original) && status == CB_OK; i++) {
        const struct store_entry *old = store_at(original, i);
        struct store_entry *now = store_find(in->store, old->name);
        r->identity = fmax(r->identity, largest_gap(old->data, now->data, type_elements(&old->type)));
        memcpy(now->data, old->data, (size_t)old->bytes);
    }
    for (int m = 0; m < in->list.n && status == CB_OK; m++) status = module_fold(in->modules[m], in->store, false, err);
    store_destroy(&original);
    return status;
}

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

static enum cb_status save(struct instance *in, const struct cb_merge_options *o, enum cb_dtype dtype, struct cb_err *err) {
    TRY(io_mkdirs(o->out, err));
    TRY(model_save(in->model, in->store, o->out, o->shard_bytes, dtype, err));
    TRY(files_copy_tokenizer(o->model, o->out, NULL, err));
    return files_write_text(o->out, "run.json", o->run_json, err);
}

enum cb_status cb_merge(struct cb_engine *engine, const struct cb_merge_options *o, struct cb_merge_result *result, struct cb_err *err) {
    struct instance in = {0};
    float *before = NULL, *after = NULL;
    int64_t n = 0;
    *result = (struct cb_merge_result){0};
    enum cb_status status = instance_open(&in, engine, o->model, o->modules, err);
    // the type of the result: as asked, or as the embedding is stored
    const struct store_entry *stored = status == CB_OK ? store_find(in.store, in.model->embedding) : NULL;
    enum cb_dtype dtype = o->dtype ? dtype_by_name(o->dtype) : stored ? stored->type.dtype : CB_DTYPE_F32;
    if (status == CB_OK && dtype != CB_DTYPE_F32 && dtype != CB_DTYPE_F16 && dtype != CB_DTYPE_BF16)
        status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "--dtype %s: wanted f32, f16 or bf16",
                         o->dtype ? o->dtype : dtype_of(dtype)->name);
    if (status == CB_OK) status = instance_f32(&in, true, err);
    if (status == CB_OK) status = probe(&in, &before, &n, err);
    if (status == CB_OK) status = fold_all(&in, result, err);
    if (status == CB_OK) status = round_all(&in, dtype, err);
    if (status == CB_OK) {
        int attached = in.list.n;
        in.list.n = 0;  // the probe sees the weights alone
        status = probe(&in, &after, &n, err);
        in.list.n = attached;
    }
    if (status == CB_OK) result->max_error = largest_gap(before, after, n);
    if (status == CB_OK) status = save(&in, o, dtype, err);
    instance_close(&in);
    free(before);
    free(after);
    return status;
}
