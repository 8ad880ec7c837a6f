/* Op fixtures: reads a case, runs it and its gradients with ref kernels, and compares with the stored tensors. */
#include "ops/fixtures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/build.h"
#include "ops/ops.h"

/* ---- what adaptors ask for */
static const json_t *attr(const struct fixture *f, const char *name) {
    const json_t *v = json_object_get(json_object_get(f->about, "attrs"), name);
    return json_is_null(v) ? NULL : v;
}

struct cb_tensor *fixture_in(const struct fixture *f, const char *name) {
    for (int i = 0; i < f->n_in; i++)
        if (!strcmp(f->in[i].name, name)) return f->in[i].tensor;
    return NULL;
}

void fixture_out(struct fixture *f, const char *name, struct cb_tensor *t) {
    f->out[f->n_out].name = name;
    f->out[f->n_out++].tensor = t;
}

double fixture_float(const struct fixture *f, const char *name, double otherwise) {
    const json_t *v = attr(f, name);
    if (json_is_string(v)) return strtod(json_string_value(v), NULL);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

int64_t fixture_int(const struct fixture *f, const char *name, int64_t otherwise) {
    const json_t *v = attr(f, name);
    return json_is_integer(v) ? (int64_t)json_integer_value(v) : otherwise;
}

bool fixture_bool(const struct fixture *f, const char *name, bool otherwise) {
    const json_t *v = attr(f, name);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

const char *fixture_str(const struct fixture *f, const char *name, const char *otherwise) {
    const json_t *v = attr(f, name);
    return json_is_string(v) ? json_string_value(v) : otherwise;
}

int fixture_ints(const struct fixture *f, const char *name, int64_t *out) {
    const json_t *v = attr(f, name);
    if (json_is_integer(v)) {
        out[0] = (int64_t)json_integer_value(v);
        return 1;
    }
    int n = 0;
    for (size_t i = 0; i < json_array_size(v) && n < FIXTURE_MAX; i++) out[n++] = (int64_t)json_integer_value(json_array_get(v, i));
    return n;
}

const struct fixture_adaptor *fixture_adaptor_of(const char *op) {
    const struct fixture_adaptor *const lists[] = {fixtures_a, fixtures_b};
    for (int l = 0; l < 2; l++)
        for (const struct fixture_adaptor *a = lists[l]; a->op; a++)
            if (!strcmp(a->op, op)) return a;
    return NULL;
}

/* ---- building */
static bool listed(const struct fixture *f, const char *list, const char *name) {
    const json_t *v = json_object_get(f->about, list);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!strcmp(json_string_value(json_array_get(v, i)), name)) return true;
    return false;
}

static const struct tensor *stored(const struct fixture *f, const char *kind, const char *name) {
    char key[200];
    snprintf(key, sizeof key, "%s%s%s", kind, *name ? "." : "", name);
    return tensors_find(f->file, key);
}

/* Graph inputs of all of the case's inputs. */
static enum cb_status make_inputs(struct fixture *f, struct cb_err *err) {
    const json_t *names = json_object_get(f->about, "inputs");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        const struct tensor *t = stored(f, "input", name);
        if (!t || f->n_in == FIXTURE_MAX) FAIL(err, CB_E_FORMAT, "%s: input %s is absent", f->name, name);
        struct cb_type type = t->type;
        if (type.dtype == CB_DTYPE_I64) type.dtype = CB_DTYPE_I32;
        if (listed(f, "bool_inputs", name)) type.dtype = CB_DTYPE_BOOL;
        f->in[f->n_in].name = name;
        f->in[f->n_in++].tensor = graph_input(f->g, name, type);
    }
    return CB_OK;
}

/* Sum over outputs of output * grad_output, whose gradients are those of the file. NULL where the file has no upstream. */
static struct cb_tensor *make_loss(struct fixture *f) {
    struct cb_tensor *loss = NULL;
    char name[64];
    for (int i = 0; i < f->n_out; i++) {
        const struct tensor *up = stored(f, "grad_output", f->out[i].name);
        if (!up) continue;
        snprintf(name, sizeof name, "up %s", f->out[i].name);
        struct cb_tensor *part = op_sum(f->g, op_mul(f->g, f->out[i].tensor, graph_input(f->g, name, up->type)), 0, NULL, false);
        loss = loss ? op_add(f->g, loss, part) : part;
    }
    return loss;
}

/* Gradients of the differentiable inputs, as outputs "grad NAME". */
static enum cb_status make_grads(struct fixture *f, struct cb_tensor *loss, struct cb_err *err) {
    struct cb_tensor *wrt[FIXTURE_MAX], *grad[FIXTURE_MAX];
    char name[64];
    int n = 0, which[FIXTURE_MAX];
    for (int i = 0; i < f->n_in; i++)
        if (stored(f, "grad", f->in[i].name)) {
            which[n] = i;
            wrt[n++] = f->in[i].tensor;
        }
    if (!loss || n == 0) return CB_OK;
    if (graph_grad(f->g, loss, NULL, n, wrt, NULL, grad)) {
        *err = f->g->err;
        return err->code;
    }
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "grad %s", f->in[which[i]].name);
        graph_output(f->g, grad[i] ? grad[i] : ops_zeros(f->g, &wrt[i]->type), name);
    }
    return CB_OK;
}

/* ---- running and comparing */
static void fill(struct plan *plan, const char *slot_name, const struct tensor *from) {
    int slot = plan_find(plan, slot_name);
    if (slot < 0) return;
    const struct cb_type *type = &plan_slot(plan, slot)->type;
    for (int64_t i = 0; i < type_elements(type); i++)
        ref_set(type->dtype, plan_data(plan, slot), i, ref_get(from->type.dtype, tensor_data(from), i));
}

/* Equal NaN and infinities; else within 2e-5 of the value plus 2e-5 of the largest (at most 1). */
static enum cb_status compare(const struct fixture *f, struct plan *plan, const char *slot_name, const struct tensor *want,
                              struct cb_err *err) {
    int slot = plan_find(plan, slot_name);
    char a[TYPE_TEXT], b[TYPE_TEXT];
    if (slot < 0) FAIL(err, CB_E_NAME, "%s: no output %s", f->name, slot_name);
    const struct cb_type *type = &plan_slot(plan, slot)->type;
    bool same = type->rank == want->type.rank;
    for (int i = 0; same && i < type->rank; i++) same = type->dim[i] == want->type.dim[i];
    if (!same) FAIL(err, CB_E_SHAPE, "%s: %s is %s; %s wanted", f->name, slot_name, type_text(type, a), type_text(&want->type, b));
    double scale = 0;
    int64_t n = type_elements(type);
    for (int64_t i = 0; i < n; i++) {
        double w = fabs(ref_get(want->type.dtype, tensor_data(want), i));
        if (isfinite(w) && w > scale) scale = w < 1 ? w : 1;
    }
    for (int64_t i = 0; i < n; i++) {
        double have = ref_get(type->dtype, plan_data(plan, slot), i), w = ref_get(want->type.dtype, tensor_data(want), i);
        bool close = isnan(w) ? isnan(have) : isinf(w) ? have == w : fabs(have - w) <= 2e-5 * (fabs(w) + scale);
        if (!close) FAIL(err, CB_E_NUMERIC, "%s: %s[%lld] is %.9g; %.9g wanted", f->name, slot_name, (long long)i, have, w);
    }
    return CB_OK;
}

static enum cb_status run(struct fixture *f, struct plan *plan, struct cb_err *err) {
    struct pool *pool = NULL;
    char name[64];
    for (int i = 0; i < f->n_in; i++) fill(plan, f->in[i].name, stored(f, "input", f->in[i].name));
    for (int i = 0; i < f->n_out; i++) {
        snprintf(name, sizeof name, "up %s", f->out[i].name);
        if (stored(f, "grad_output", f->out[i].name)) fill(plan, name, stored(f, "grad_output", f->out[i].name));
    }
    TRY(pool_create(&pool, 1, err));
    enum cb_status status = plan_run(plan, pool, err);
    pool_destroy(&pool);
    TRY(status);
    for (int i = 0; i < f->n_out; i++) {
        const struct tensor *want = stored(f, "output", f->out[i].name);
        snprintf(name, sizeof name, "out %s", f->out[i].name);
        if (!want) FAIL(err, CB_E_NAME, "%s: the file has no output '%s'", f->name, f->out[i].name);
        TRY(compare(f, plan, name, want, err));
    }
    for (int i = 0; i < f->n_in; i++) {
        const struct tensor *want = stored(f, "grad", f->in[i].name);
        snprintf(name, sizeof name, "grad %s", f->in[i].name);
        if (want) TRY(compare(f, plan, name, want, err));
    }
    return CB_OK;
}

static enum cb_status build_and_run(struct fixture *f, struct cb_err *err) {
    char name[64];
    int n_stored = 0;
    TRY(make_inputs(f, err));
    fixture_adaptor_of(json_string_value(json_object_get(f->about, "op")))->build(f);
    for (int i = 0; i < f->n_out; i++) {
        snprintf(name, sizeof name, "out %s", f->out[i].name);
        graph_output(f->g, f->out[i].tensor, name);
    }
    struct cb_tensor *loss = make_loss(f);
    if (f->g->err.code) {
        *err = f->g->err;
        return err->code;
    }
    // every output of the file must have been declared
    for (int i = 0; i < tensors_count(f->file); i++) n_stored += !strncmp(tensors_at(f->file, i)->name, "output", 6);
    if (n_stored != f->n_out) FAIL(err, CB_E_NAME, "%s: %d outputs; the file has %d", f->name, f->n_out, n_stored);
    TRY(make_grads(f, loss, err));
    TRY(graph_check(f->g, err));
    struct plan *plan = NULL;
    struct plan_options options = {.n_threads = 1};
    TRY(plan_create(&plan, f->g, &options, err));
    enum cb_status status = run(f, plan, err);
    plan_destroy(&plan);
    return status;
}

bool fixture_op(const char *path, char *op, size_t bytes) {
    struct cb_err err = {0};
    struct tensors *file = NULL;
    if (tensors_open(&file, path, &err) != CB_OK) return false;
    const char *about = tensors_metadata(file, "case");
    json_t *json = about ? json_loads(about, 0, NULL) : NULL;
    const char *name = json_string_value(json_object_get(json, "op"));
    snprintf(op, bytes, "%s", name ? name : "");
    json_decref(json);
    tensors_destroy(&file);
    return *op != '\0';
}

bool fixture_check(const char *path, const char *name, char text[1200]) {
    struct cb_err err = {0};
    struct tensors *file = NULL;
    struct fixture f = {.name = name};
    enum cb_status status = tensors_open(&file, path, &err);
    if (status == CB_OK) {
        const char *about = tensors_metadata(file, "case");
        f.file = file;
        f.about = about ? json_loads(about, 0, NULL) : NULL;
        status = graph_create(&f.g, ops_table(), &err);
        if (status == CB_OK && f.about) status = build_and_run(&f, &err);
    }
    bool fine = status == CB_OK && f.about;
    snprintf(text, 1200, "%s (%s)", err.message, cb_status_text(status));
    graph_destroy(&f.g);
    json_decref(f.about);
    tensors_destroy(&file);
    return fine;
}
