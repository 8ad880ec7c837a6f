/* The test's way to run a graph on the CPU backend. */
#include "graph_runner.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "ops/ops.h"

enum cb_status runner_create(struct runner *runner, struct cb_err *err) {
    *runner = (struct runner){0};
    TRY(pool_create(&runner->pool, 2, err));
    return graph_create(&runner->g, ops_table(), err);
}

enum cb_status runner_plan(struct runner *runner, const struct store *store, struct cb_err *err) {
    struct plan_options options = {.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = 2};
    TRY(plan_create(&runner->plan, runner->g, &options, err));
    int n = plan_n_slots(runner->plan);
    if (!(runner->own = calloc((size_t)n + 1, sizeof *runner->own))) FAIL(err, CB_E_MEMORY, "runner: no memory");
    for (int i = 0; i < n; i++) {
        const struct plan_slot *slot = plan_slot(runner->plan, i);
        if (!slot->is_param) continue;
        struct store_entry *entry = store ? store_find(store, slot->name) : NULL;
        if (entry && !type_equal(&entry->type, &slot->type)) FAIL(err, CB_E_SHAPE, "%s: the store's type is not the graph's", slot->name);
        if (entry) {
            plan_bind(runner->plan, i, entry->data);
        } else {
            if (strncmp(slot->name, "cache.", 6) != 0) FAIL(err, CB_E_NAME, "%s: no such entry", slot->name);
            void *data = aligned_alloc(64, ((size_t)type_bytes(&slot->type) + 63) & ~(size_t)63);
            if (!data) FAIL(err, CB_E_MEMORY, "%s: no memory", slot->name);
            memset(data, 0, (size_t)type_bytes(&slot->type));
            runner->own[runner->n_own++] = data;
            plan_bind(runner->plan, i, data);
        }
    }
    return CB_OK;
}

enum cb_status runner_fill(struct runner *runner, const char *input, const struct tensor *from, struct cb_err *err) {
    int i = plan_find(runner->plan, input);
    if (i < 0) FAIL(err, CB_E_NAME, "%s: no such input", input);
    const struct cb_type *type = &plan_slot(runner->plan, i)->type;
    int64_t n = type_elements(type);
    if (type_elements(&from->type) != n)
        FAIL(err, CB_E_SHAPE, "%s: found %lld values; wanted %lld", input, (long long)type_elements(&from->type), (long long)n);
    void *out = plan_data(runner->plan, i);
    for (int64_t k = 0; k < n; k++) {
        double v = from->type.dtype == CB_DTYPE_I64   ? (double)((const int64_t *)tensor_data(from))[k]
                   : from->type.dtype == CB_DTYPE_I32 ? ((const int32_t *)tensor_data(from))[k]
                                                      : (double)((const float *)tensor_data(from))[k];
        if (type->dtype == CB_DTYPE_I32)
            ((int32_t *)out)[k] = (int32_t)v;
        else if (type->dtype == CB_DTYPE_I64)
            ((int64_t *)out)[k] = (int64_t)v;
        else
            ((float *)out)[k] = (float)v;
    }
    return CB_OK;
}

void *runner_data(struct runner *runner, const char *name) {
    int i = plan_find(runner->plan, name);
    return i < 0 ? NULL : plan_data(runner->plan, i);
}

int64_t runner_elements(struct runner *runner, const char *name) {
    int i = plan_find(runner->plan, name);
    return i < 0 ? 0 : type_elements(&plan_slot(runner->plan, i)->type);
}

enum cb_status runner_run(struct runner *runner, struct cb_err *err) { return plan_run(runner->plan, runner->pool, err); }

void runner_destroy(struct runner *runner) {
    plan_destroy(&runner->plan);
    graph_destroy(&runner->g);
    pool_destroy(&runner->pool);
    for (int i = 0; i < runner->n_own; i++) free(runner->own[i]);
    free(runner->own);
    *runner = (struct runner){0};
}

double worst_error(const float *a, const float *b, int64_t n) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = fabs((double)a[i] - b[i]) / (1 + fabs((double)b[i]));
        if (!(e <= worst)) worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}

double relative_norm(const float *a, const float *b, int64_t n) {
    double miss = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        miss += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return norm > 0 ? sqrt(miss / norm) : sqrt(miss);
}

float *tensor_floats(const struct tensor *tensor) {
    float *out = malloc((size_t)type_elements(&tensor->type) * sizeof *out + 4);
    if (out) tensor_read_f32(out, tensor);
    return out;
}
