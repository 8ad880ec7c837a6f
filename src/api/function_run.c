/* Using a compiled function: runs, training steps, its memory by name, its file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/function.h"
#include "io/safetensors.h"

void *cb_data(struct cb_function *f, const char *name) {
    struct entry *e = f->is_compiled ? function_find(f, name) : NULL;
    return e ? e->data : NULL;
}

float *cb_floats(struct cb_function *f, const char *name) {
    struct entry *e = f->is_compiled ? function_find(f, name) : NULL;
    return e && e->type.dtype == CB_DTYPE_F32 ? e->data : NULL;
}

int64_t cb_data_bytes(const struct cb_function *f, const char *name, struct cb_type *type) {
    const struct entry *e = function_find(f, name);
    if (e && type) *type = e->type;
    return e ? type_bytes(&e->type) : -1;
}

enum cb_status cb_function_run(struct cb_function *f, struct cb_err *err) {
    if (!f->run_plan)
        FAIL(err, CB_E_USAGE, "cb_function_run: %s",
             f->is_compiled ? "the function has no output" : "not compiled; wanted cb_function_compile first");
    return plan_run(f->run_plan, f->engine->pool, err);
}

/* ---- training */
static void update(struct cb_function *f, double scale) {
    struct opt_range range = {.param = f->param,
                              .grad = f->grad,
                              .step = f->steps + 1,
                              .lr = f->lr,
                              .weight_decay = f->weight_decay,
                              .grad_scale = scale,
                              .option = f->option};
    if (!f->own_state) {  // all parameters at once
        memcpy(range.state, f->state, sizeof range.state);
        opt_apply(f->opt, &range, &(struct cb_type){.dtype = CB_DTYPE_F32, .rank = 1, .dim = {f->n_floats}}, f->engine->pool);
        return;
    }
    for (int i = 0; i < f->n_entries; i++) {
        const struct entry *e = &f->entries[i];
        if (e->kind != ENTRY_PARAMETER) continue;
        range.param = f->param + e->offset;
        range.grad = f->grad + e->offset;
        memcpy(range.state, f->own_state[i], sizeof range.state);
        opt_apply(f->opt, &range, &e->type, f->engine->pool);
    }
}

enum cb_status cb_function_train(struct cb_function *f, double *loss, struct cb_err *err) {
    if (!f->train_plan)
        FAIL(err, CB_E_USAGE, "cb_function_train: %s",
             f->is_compiled ? "the function has no loss" : "not compiled; wanted cb_function_compile first");
    TRY(plan_run(f->train_plan, f->engine->pool, err));
    double value = ref_get(f->loss_dtype, f->loss_data, 0), scale = 1;
    if (loss) *loss = value;
    // checked without clipping too: a finite loss may have gradients that are not
    double norm = sqrt(opt_sum_squares(f->grad, f->n_floats, f->engine->pool, f->partial));
    if (!isfinite(norm)) value = norm;
    if (f->clip > 0 && norm > f->clip) scale = f->clip / (norm + 1e-6);
    if (!isfinite(value))
        FAIL(err, CB_E_NUMERIC, "step %lld: loss or gradient norm %g; wanted a finite number", (long long)f->steps + 1, value);
    update(f, scale);
    f->steps++;
    f->seed++;
    return CB_OK;
}

void cb_function_set_lr(struct cb_function *f, double lr) { f->lr = lr; }

/* ---- files */
static bool is_kept(const struct entry *e) { return e->kind == ENTRY_PARAMETER || e->kind == ENTRY_STATE; }

enum cb_status cb_function_save(const struct cb_function *f, const char *path, struct cb_err *err) {
    if (!f->is_compiled) FAIL(err, CB_E_USAGE, "%s: the function is not compiled; wanted cb_function_compile before saving", path);
    struct tensor_item *items = calloc((size_t)f->n_entries + 1, sizeof *items);
    if (!items) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    int n = 0;
    for (int i = 0; i < f->n_entries; i++)
        if (is_kept(&f->entries[i]))
            items[n++] = (struct tensor_item){.name = f->entries[i].name, .type = f->entries[i].type, .data = f->entries[i].data};
    enum cb_status status = tensors_write(path, items, n, NULL, NULL, NULL, err);
    free(items);
    return status;
}

/* Names and shapes agree both ways. */
static enum cb_status check_file(const struct cb_function *f, const struct tensors *tensors, struct cb_err *err) {
    int n = 0;
    for (int i = 0; i < f->n_entries; i++) {
        const struct entry *e = &f->entries[i];
        const struct tensor *t;
        if (!is_kept(e)) continue;
        n++;
        TRY(tensors_need(&t, tensors, e->name, err));
        struct cb_type have = t->type;
        char a[TYPE_TEXT], b[TYPE_TEXT];
        if (!dtype_of(have.dtype)->is_float)
            FAIL(err, CB_E_DTYPE, "%s: %s in %s; wanted floating point", e->name, type_text(&have, a), tensors_name(tensors));
        have.dtype = e->type.dtype;
        if (!type_equal(&have, &e->type))
            FAIL(err, CB_E_SHAPE, "%s: %s in %s; wanted %s", e->name, type_text(&t->type, a), tensors_name(tensors),
                 type_text(&e->type, b));
    }
    if (n != tensors_count(tensors))
        FAIL(err, CB_E_NAME, "%s: %d tensors; the function has %d", tensors_name(tensors), tensors_count(tensors), n);
    return CB_OK;
}

enum cb_status cb_function_load(struct cb_function *f, const char *path, struct cb_err *err) {
    if (!f->is_compiled) FAIL(err, CB_E_USAGE, "%s: the function is not compiled; wanted cb_function_compile before loading", path);
    struct tensors *tensors;
    TRY(tensors_open(&tensors, path, err));
    enum cb_status status = check_file(f, tensors, err);
    for (int i = 0; i < f->n_entries && status == CB_OK; i++)
        if (is_kept(&f->entries[i])) tensor_read_f32(f->entries[i].data, tensors_find(tensors, f->entries[i].name));
    tensors_destroy(&tensors);
    return status;
}

/* ---- where the time goes */
void cb_function_profile(struct cb_function *f, bool on) {
    if (f->train_plan) plan_profile(f->train_plan, on);
    if (f->run_plan) plan_profile(f->run_plan, on);
}

enum cb_status cb_function_profile_report(const struct cb_function *f, char **text, struct cb_err *err) {
    char *train = NULL, *run = NULL;
    *text = NULL;
    enum cb_status status = f->train_plan ? plan_profile_report(f->train_plan, &train, err) : CB_OK;
    if (status == CB_OK && f->run_plan) status = plan_profile_report(f->run_plan, &run, err);
    size_t n = (train ? strlen(train) : 0) + (run ? strlen(run) : 0) + 40;
    if (status == CB_OK && !(*text = malloc(n))) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "function: out of memory");
    if (*text) snprintf(*text, n, "training steps\n%sruns\n%s", train ? train : "", run ? run : "");
    free(train);
    free(run);
    return status;
}
