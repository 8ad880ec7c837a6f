/* Building a network for the tests of training. */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "base/name.h"
#include "base/rng.h"
#include "ops/ops.h"

/* What is trained, of what the graph uses. */
static enum cb_status pick(struct net *net, const char *frozen, bool decay_all, struct cb_err *err) {
    int n = net->module ? module_n_params(net->module) : store_count(net->store);
    if (!(net->params = calloc((size_t)n + 1, sizeof *net->params))) FAIL(err, CB_E_MEMORY, "net: no memory");
    for (int i = 0; i < n; i++) {
        struct store_entry *e = net->module ? store_find(net->store, module_param(net->module, i)->name) : store_at(net->store, i);
        if (net->module && !module_param(net->module, i)->is_trained) continue;
        if ((frozen && name_ends(e->name, frozen)) || !graph_find_leaf(net->r.g, e->name)) continue;
        net->params[net->n_params++] = (struct train_param){.value = e, .decay = decay_all || e->type.rank > 1, .lr_scale = 1};
    }
    return CB_OK;
}

static enum cb_status add_gradients(struct net *net, struct cb_tensor *loss, int accumulate, struct cb_err *err) {
    struct cb_graph *g = net->r.g;
    struct cb_tensor *wrt[128], *sum[128], *grad[128];
    char name[400];
    if (net->n_params > 128) FAIL(err, CB_E_LIMIT, "net: %d parameters", net->n_params);
    for (int i = 0; i < net->n_params; i++) {
        const struct store_entry *e = net->params[i].value;
        snprintf(name, sizeof name, "grad.%s", e->name);
        wrt[i] = graph_find_leaf(g, e->name);
        sum[i] = accumulate > 1 ? graph_param(g, name, e->type) : NULL;
    }
    struct cb_tensor *seed = accumulate > 1 ? graph_const_f32(g, 1.0f / (float)accumulate) : NULL;
    if (graph_grad(g, loss, seed, net->n_params, wrt, accumulate > 1 ? sum : NULL, grad) != CB_OK)
        FAIL(err, g->err.code, "%s", g->err.message);
    for (int i = 0; i < net->n_params; i++) {
        snprintf(name, sizeof name, "grad.%s", net->params[i].value->name);
        if (!grad[i]) FAIL(err, CB_E_NAME, "%s: none", name);
        graph_output_external(g, grad[i], name);
    }
    return CB_OK;
}

enum cb_status net_finish(struct net *net, struct cb_tensor *loss, const char *frozen, bool decay_all,
                          const struct trainer_options *options, struct cb_err *err) {
    struct plan_options po = {.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = 2, .recompute = 1};
    if (net->r.g->err.code) FAIL(err, net->r.g->err.code, "%s", net->r.g->err.message);
    TRY(pick(net, frozen, decay_all, err));
    TRY(add_gradients(net, loss, options->accumulate, err));
    TRY(plan_create(&net->r.plan, net->r.g, &po, err));
    for (int i = 0; i < plan_n_slots(net->r.plan); i++) {
        struct store_entry *e = store_find(net->store, plan_slot(net->r.plan, i)->name);
        if (e) plan_bind(net->r.plan, i, e->data);
    }
    return trainer_create(&net->trainer, net->r.plan, net->params, net->n_params, options, net->r.pool, err);
}

enum cb_status net_load(struct net *net, const char *folder, struct cb_err *err) {
    TRY(store_create(&net->store, err));
    TRY(model_load(&net->model, net->store, folder, err));
    for (int i = 0; i < store_count(net->store); i++) TRY(store_make(net->store, store_at(net->store, i), CB_DTYPE_F32, true, err));
    return CB_OK;
}

enum cb_status net_model_loss(struct net *net, int64_t batch, int64_t tokens, bool mask, struct cb_tensor **loss, struct cb_err *err) {
    struct model_io io = {.batch = batch, .tokens = tokens, .want_loss = true, .attention_mask = mask};
    TRY(runner_create(&net->r, err));
    struct nn nn = nn_make(net->r.g);
    nn.train = net->module != NULL;
    const struct module *const modules[1] = {net->module};
    struct module_list list = {.modules = modules, .n = 1};
    if (net->module) nn.hook = module_hook(&list);
    TRY(model_build(net->model, &nn, &io, err));
    *loss = io.loss;
    return CB_OK;
}

void net_close(struct net *net) {
    trainer_destroy(&net->trainer);
    runner_destroy(&net->r);
    free(net->params);
    module_destroy(&net->module);
    graph_destroy(&net->sites_graph);
    model_destroy(&net->model);
    store_destroy(&net->store);
    *net = (struct net){0};
}

enum cb_status net_fill(struct net *net, const char *input, const struct tensor *from, int64_t at, struct cb_err *err) {
    int slot = plan_find(net->r.plan, input);
    if (slot < 0) FAIL(err, CB_E_NAME, "%s: no such input", input);
    const struct cb_type *type = &plan_slot(net->r.plan, slot)->type;
    int64_t n = type_elements(type);
    if (at + n > type_elements(&from->type)) FAIL(err, CB_E_SHAPE, "%s: too few values", input);
    void *out = plan_data(net->r.plan, slot);
    for (int64_t k = 0; k < n; k++)
        if (type->dtype == CB_DTYPE_I32)
            ((int32_t *)out)[k] = (int32_t)((const int64_t *)tensor_data(from))[at + k];
        else
            ((float *)out)[k] = ((const float *)tensor_data(from))[at + k];
    return CB_OK;
}

#define TYPE1(d, a) type_make(d, 1, (int64_t[]){a})
#define TYPE2(d, a, b) type_make(d, 2, (int64_t[]){a, b})

enum cb_status net_tiny(struct net *net, uint64_t seed, const struct trainer_options *options, struct cb_err *err) {
    return net_tiny_of(net, seed, 8, options, err);
}

enum cb_status net_tiny_of(struct net *net, uint64_t seed, int64_t rows, const struct trainer_options *options, struct cb_err *err) {
    static const char *const names[] = {"in.weight", "in.bias", "out.weight", "out.bias"};
    struct cb_type types[] = {TYPE2(CB_DTYPE_F32, 13, 6), TYPE1(CB_DTYPE_F32, 13), TYPE2(CB_DTYPE_F32, 5, 13), TYPE1(CB_DTYPE_F32, 5)};
    struct rng rng = rng_make(seed, 1);
    struct cb_tensor *leaf[4];
    TRY(store_create(&net->store, err));
    TRY(runner_create(&net->r, err));
    for (int i = 0; i < 4; i++) {
        struct store_entry *e;
        TRY(store_add(net->store, names[i], types[i], &e, err));
        for (int64_t k = 0; k < type_elements(&types[i]); k++) ((float *)e->data)[k] = 0.3f * (float)rng_normal(&rng);
        leaf[i] = graph_param(net->r.g, names[i], types[i]);
    }
    struct cb_graph *g = net->r.g;
    struct cb_tensor *x = graph_input(g, "x", TYPE2(CB_DTYPE_F32, rows, 6)), *y = graph_input(g, "y", TYPE1(CB_DTYPE_I32, rows));
    struct cb_tensor *h = op_unary(g, "tanh", op_linear(g, x, leaf[0], leaf[1], false));
    struct cb_tensor *loss = op_cross_entropy(g, op_linear(g, h, leaf[2], leaf[3], false), y, "mean");
    graph_output(g, loss, "loss");
    return net_finish(net, loss, NULL, false, options, err);
}

enum cb_status net_tiny_batch(void *user, int64_t index, struct cb_err *err) {
    (void)err;
    struct net *net = user;
    struct rng rng = rng_make(99, (uint64_t)index);
    float *x = runner_data(&net->r, "x");
    int32_t *y = runner_data(&net->r, "y");
    for (int i = 0; i < 8; i++) {
        y[i] = 0;
        for (int k = 0; k < 6; k++) x[6 * i + k] = (float)rng_normal(&rng);
        for (int k = 1; k < 5; k++)
            if (x[6 * i + k] > x[6 * i + y[i]]) y[i] = k;
    }
    return CB_OK;
}
