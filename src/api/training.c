/* From "what to train" to a trainer: trainable parameters, the loss graph with gradients, its plan. */
#include "api/training.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pattern.h"
#include "data/loader.h"

/* Layer number in a weight's name ("model.layers.3.mlp..." is 3), -1 outside the layers. */
int64_t training_layer_of(const char *name) {
    for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.')) {
        size_t n = strspn(p + 1, "0123456789");
        if (n && p[1 + n] == '.') return strtoll(p + 1, NULL, 10);
    }
    return -1;
}

/* Layers with weights of their own (ALBERT's share theirs). */
int64_t training_layers(const struct model *m) {
    int64_t most = 0;
    for (int i = 0; i < m->n_weights; i++) {
        int64_t layer = training_layer_of(m->weights[i].name);
        if (layer >= most) most = layer + 1;
    }
    return most < m->n_layer ? most : m->n_layer;
}

bool training_is_before_layers(const struct model *m, const char *name) {
    for (int i = 0; i < m->n_weights && training_layer_of(m->weights[i].name) < 0; i++)
        if (strcmp(m->weights[i].name, name) == 0) return true;
    return false;
}

/* Whether last:N trains a weight: those of the last N layers (of an encoder-decoder the decoder's), the final norm and an own head, not the embeddings.
   *after: a layer was seen before, tables of weights follow the data. */
static bool in_last(const struct model *m, const struct model_weight *w, int64_t n, int64_t layers, bool *after) {
    static const char *const embeddings[] = {".embed_positions.", ".layernorm_embedding.", ".rel_embeddings."};
    int64_t layer = training_layer_of(w->name);
    *after |= layer >= 0;
    if (m->family->encoder_decoder && (strncmp(w->name, "encoder.", 8) == 0 || strstr(w->name, ".encoder."))) return false;
    if (layer >= 0) return layer >= layers - n;
    for (size_t i = 0; i < sizeof embeddings / sizeof *embeddings; i++)
        if (strstr(w->name, embeddings[i])) return false;
    return *after && strcmp(w->name, m->embedding) != 0 &&
           !(w->type.rank == 2 && w->type.dim[0] == m->max_positions && m->learned_positions);
}

enum cb_status training_parse(const char *tuner, struct training_what *what, struct cb_err *err) {
    *what = (struct training_what){.kind = TRAIN_ALL};
    if (!tuner || strcmp(tuner, "full") == 0) return CB_OK;
    what->kind = strcmp(tuner, "head") == 0 ? TRAIN_HEAD : TRAIN_MODULE;
    if (strncmp(tuner, "match:", 6) == 0) {
        what->kind = TRAIN_MATCH;
        what->match = tuner + 6;
    }
    if (strncmp(tuner, "last:", 5) != 0) return CB_OK;
    char *end;
    what->kind = TRAIN_LAST;
    what->last = strtoll(tuner + 5, &end, 10);
    if (end == tuner + 5 || *end || what->last < 1) FAIL(err, CB_E_USAGE, "--tuner %s: wanted last:N with N from 1", tuner);
    return CB_OK;
}

static enum cb_status pick_each(struct training *t, const struct training_what *what, int64_t layers, const struct pattern *pattern,
                                struct cb_err *err) {
    struct instance *in = &t->instance;
    bool after = false;
    int matched = 0;
    for (int i = 0; i < in->model->n_weights; i++) {
        const struct model_weight *w = &in->model->weights[i];
        struct store_entry *entry = store_find(in->store, w->name);
        const bool is_last = in_last(in->model, w, what->last, layers, &after);
        bool wanted = what->kind == TRAIN_ALL || (what->kind == TRAIN_LAST && is_last);
        if (pattern) TRY(pattern_matches(pattern, w->name, &wanted, err));
        matched += wanted;
        // a fresh head always
        if (!entry || w->is_buffer || (!wanted && !entry->trainable)) continue;
        TRY(store_make(in->store, entry, CB_DTYPE_F32, true, err));
        entry->trainable = true;
        t->params[t->n_params++] = (struct train_param){.value = entry, .decay = w->decay, .lr_scale = 1};
    }
    if (pattern && !matched) FAIL(err, CB_E_NAME, "--tuner match:%s: no weight has such a name", what->match);
    return CB_OK;
}

/* Whole weights: all of them, those of the last layers, a fresh head, or those of some names. */
static enum cb_status pick_weights(struct training *t, const struct training_what *what, struct cb_err *err) {
    struct instance *in = &t->instance;
    const int64_t layers = training_layers(in->model);
    if (what->kind == TRAIN_LAST && what->last > layers)
        FAIL(err, CB_E_USAGE, "--tuner last:%lld: wanted last:N with N from 1 to %lld", (long long)what->last, (long long)layers);
    t->params = calloc((size_t)in->model->n_weights + 1, sizeof *t->params);
    if (!t->params) FAIL(err, CB_E_MEMORY, "training: out of memory");
    struct pattern *pattern = NULL;
    if (what->kind == TRAIN_MATCH) TRY(pattern_create(&pattern, what->match, "--tuner match", err));
    enum cb_status status = pick_each(t, what, layers, pattern, err);
    pattern_destroy(&pattern);
    TRY(status);
    if (!t->n_params && what->kind == TRAIN_HEAD)
        FAIL(err, CB_E_USAGE, "--tuner head: the model has a head already; wanted full, last:N or a module");
    return CB_OK;
}

/* The entries of new modules: one, or one for each data set. */
static enum cb_status pick_modules(struct training *t, const struct training_options *o, struct cb_err *err) {
    struct instance *in = &t->instance;
    size_t n = 1;
    t->n_modules = o->module_per_set ? o->n_sets : 1;
    if (o->module_per_set)
        TRY(instance_new_tasks(in, o->tuner, o->sets, o->n_sets, err));
    else
        TRY(instance_new_module(in, o->tuner, &t->module, err));
    t->modules = in->modules + in->list.n - t->n_modules;
    t->module = t->modules[0];
    for (int k = 1; k < t->n_modules; k++) TRY(module_share(t->modules[k], t->modules[0], in->store, err));
    for (int k = 0; k < t->n_modules; k++) n += (size_t)module_n_params(t->modules[k]);
    if (o->adapter_drop > training_layers(in->model))
        FAIL(err, CB_E_USAGE, "--adapter-drop %lld: the model has %lld layers", (long long)o->adapter_drop,
             (long long)training_layers(in->model));
    for (int k = 0; k < t->n_modules && o->adapter_drop > 0; k++) TRY(module_set_drop(t->modules[k], o->tuner, err));
    t->params = calloc(n, sizeof *t->params);
    if (!t->params) FAIL(err, CB_E_MEMORY, "training: out of memory");
    for (int k = 0; k < t->n_modules; k++)
        for (int i = 0; i < module_n_params(t->modules[k]); i++) {
            if (!module_param(t->modules[k], i)->is_trained) continue;
            struct store_entry *entry = store_find(in->store, module_param(t->modules[k], i)->name);
            bool is_listed = false;  // of another module too
            for (int j = 0; k && j < t->n_params; j++) is_listed |= t->params[j].value == entry;
            if (is_listed) continue;
            t->params[t->n_params++] = (struct train_param){.value = entry, .decay = entry->type.rank > 1, .lr_scale = 1};
        }
    return CB_OK;
}

/* "grad.<name>" outputs of the loss; micro-batches add to what the buffer holds. */
static enum cb_status add_gradients(struct training *t, struct cb_graph *g, struct cb_tensor *loss, int accumulate, struct cb_err *err) {
    size_t n = (size_t)t->n_params + 1;
    struct cb_tensor **wrt = calloc(n, sizeof *wrt), **sum = calloc(n, sizeof *sum), **grad = calloc(n, sizeof *grad), *seed = NULL;
    char name[600];
    int k = 0;
    enum cb_status status = wrt && sum && grad ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: out of memory");
    if (accumulate > 1) seed = graph_const_f32(g, 1.0f / (float)accumulate);
    for (int i = 0; status == CB_OK && i < t->n_params; i++) {
        struct train_param p = t->params[i];
        if (!(wrt[k] = graph_find_leaf(g, p.value->name))) continue;  // not part of this graph's loss: it cannot be trained here
        t->params[k] = p;
        snprintf(name, sizeof name, "grad.%s", p.value->name);
        if (accumulate > 1) sum[k] = graph_param(g, name, p.value->type);
        k++;
    }
    t->n_params = k;
    if (status == CB_OK) status = graph_grad(g, loss, seed, k, wrt, accumulate > 1 ? sum : NULL, grad);
    int kept = 0;
    for (int i = 0; status == CB_OK && i < k; i++) {
        if (!grad[i]) continue;
        snprintf(name, sizeof name, "grad.%s", t->params[i].value->name);
        graph_output_external(g, grad[i], name);
        t->params[kept++] = t->params[i];
    }
    t->n_params = kept;
    free(wrt);
    free(sum);
    free(grad);
    if (status == CB_OK && !kept) FAIL(err, CB_E_UNSUPPORTED, "training: nothing that is to be trained reaches the loss");
    if (g->err.code) FAIL(err, g->err.code, "%s", g->err.message);
    return status;
}

/* The graph of a step on `batch` rows, with its gradients. */
static enum cb_status build_graph(struct training *t, struct pass *pass, const struct training_options *o, int64_t batch,
                                  struct cb_tensor **loss, struct cb_err *err) {
    struct nn nn;
    const bool pairs = o->labels_given && t->instance.model->class->head->shifts_labels;
    struct model_io io = {.batch = batch,
                          .tokens = o->seq,
                          .want_loss = true,
                          .labels_shifted = o->labels_given,
                          .segments = o->segments && !pairs,
                          .position_ids = o->segments && !pairs,
                          .attention_mask = pairs,
                          .decoder_tokens = o->target};
    if (o->task) io = task_io(t->instance.model, o->examples, batch, o->seq);
    TRY(pass_begin(pass, &t->instance, &nn, err));
    nn.train = o->train_mode;
    const struct model_io plain = io;
    io.want_logits = o->teacher != NULL;
    TRY(model_build(t->instance.model, &nn, &io, err));
    *loss = o->teacher ? distill_loss(&nn, &io, o->distill, o->temperature) : io.loss;
    if (o->teacher) TRY(teacher_open(&t->teacher, t->instance.engine, o->teacher, o->as, &plain, err));
    return add_gradients(t, pass->graph, *loss, o->trainer.accumulate, err);
}

/* Of the whole batch, or of each half. */
static enum cb_status build_graphs(struct training *t, const struct training_options *o, struct cb_err *err) {
    const bool may_halve = training_may_halve(t, o);
    struct cb_tensor *loss;
    TRY(build_graph(t, &t->pass, o, may_halve ? o->batch / 2 : o->batch, &loss, err));
    if (!may_halve) return CB_OK;
    if (training_can_halve(t->pass.graph, loss, o->batch / 2)) return build_graph(t, &t->twin, o, o->batch / 2, &loss, err);
    pass_end(&t->pass);
    return build_graph(t, &t->pass, o, o->batch, &loss, err);
}

static enum cb_status build(struct training *t, const struct training_options *o, struct cb_err *err) {
    TRY(build_graphs(t, o, err));
    trainer_bytes(t->params, t->n_params, &o->trainer, &t->gradients_bytes, &t->states_bytes);
    if (t->twin.graph) t->gradients_bytes *= 2;
    for (int i = 0; i < t->n_modules; i++) t->states_bytes += module_train_bytes(t->modules[i]);
    t->weights_bytes = instance_weight_bytes(&t->instance);
    for (int i = 0; i < t->n_params; i++) t->trainable += type_elements(&t->params[i].value->type);
    t->total = model_parameters(t->instance.model) + (t->module ? t->trainable : 0);
    int64_t held = engine_base_bytes(t->instance.engine) + t->weights_bytes + t->gradients_bytes + t->states_bytes + o->held_bytes;
    if (o->teacher) held += instance_weight_bytes(&t->teacher.instance) + plan_memory(t->teacher.pass.plan).inside;
    const struct cb_engine *engine = t->instance.engine;
    const char *what =
        o->held_bytes ? "weights, gradients, optimiser, validation and the program" : "weights, gradients, optimiser and the program";
    char with_hint[128];
    snprintf(with_hint, sizeof with_hint, "%s%s", what, t->module ? "" : " (a module, --tuner lora, needs less)");
    TRY(engine_check_held(engine, held, with_hint, err));
    enum cb_status status = pass_plan(&t->pass, &t->instance, true, held, err);
    if (status == CB_OK && t->twin.graph) status = pass_plan(&t->twin, &t->instance, true, held + plan_memory(t->pass.plan).inside, err);
    if (status == CB_E_LIMIT)
        err_prefix(err, "--memory %lld, of which %s take %lld; a smaller --batch (with --accumulate) or a shorter --seq needs less",
                   (long long)engine->options.memory_limit, what, (long long)held);
    TRY(status);
    t->activations_bytes = plan_memory(t->pass.plan).inside + o->held_bytes;
    if (t->twin.plan) t->activations_bytes += plan_memory(t->twin.plan).inside;
    t->planned_bytes = held + t->activations_bytes - o->held_bytes;
    return CB_OK;
}

enum cb_status training_open(struct training *t, struct cb_engine *engine, const struct training_options *o, struct cb_err *err) {
    memset(t, 0, sizeof *t);
    TRY(instance_open_as(&t->instance, engine, o->model, o->modules, o->as, err));
    const struct model *m = t->instance.model;
    t->instance.gives_fields = o->task != NULL;
    t->instance.gives_tasks = o->n_sets > 0;
    if (o->adapter_drop && o->what.kind != TRAIN_MODULE) FAIL(err, CB_E_USAGE, "--adapter-drop: --tuner %s trains no module", o->tuner);
    if (o->module_per_set && o->what.kind != TRAIN_MODULE)
        FAIL(err, CB_E_USAGE, "--module-per-dataset: --tuner %s trains no module", o->tuner);
    if (o->task) t->instance.task_type = o->task->peft_type;
    if (!o->task && !m->class->head->learns_text && !m->class->head->shifts_labels)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s learns no text; wanted a language model", o->model, m->class->name);
    if (m->learned_positions && o->seq > m->max_positions)
        FAIL(err, CB_E_LIMIT, "--seq %lld: the model has %lld positions", (long long)o->seq, (long long)m->max_positions);
    TRY(o->what.kind == TRAIN_MODULE ? pick_modules(t, o, err) : pick_weights(t, &o->what, err));
    return training_groups(t, o, err);
}

/* What kinds of modules do after each update. */
static enum cb_status module_updated(void *user, int64_t step, struct store *states, struct cb_err *err) {
    struct training *t = user;
    for (int i = 0; i < t->n_modules; i++) TRY(module_train_step(t->modules[i], t->instance.store, states, step, err));
    return CB_OK;
}

/* Labels of a batch that are learnt: where they are shifted in the graph, none of the first column. Labels that are no classes, and other heads' inputs, all
   count. */
static int64_t count_labels(void *user, struct plan *plan) {
    const struct training *t = user;
    const int slot = plan_find(plan, "labels");
    if (slot < 0 || plan_slot(plan, slot)->type.dtype != CB_DTYPE_I32) return 1;
    const struct cb_type *type = &plan_slot(plan, slot)->type;
    const int64_t columns = t->twin.plan && !t->labels_given ? type->dim[1] : 0;
    const int32_t *label = plan_data(plan, slot);
    int64_t count = 0;
    for (int64_t i = 0, n = type_elements(type); i < n; i++) count += label[i] != LOADER_IGNORE && !(columns && i % columns == 0);
    return count;
}

enum cb_status training_plan(struct training *t, const struct training_options *o, struct cb_err *err) {
    const struct cb_engine *engine = t->instance.engine;
    TRY(build(t, o, err));
    if (!engine->backend.runs) return CB_OK;
    struct trainer_options options = o->trainer;
    t->labels_given = o->labels_given;
    if (t->twin.plan) TRY(training_bind_halves(t, o->batch / 2, err));
    options.twin = t->twin.plan;
    if (t->module) options.updated = module_updated;
    options.labels = count_labels;
    options.user = t;
    TRY(trainer_create(&t->trainer, t->pass.plan, t->params, t->n_params, &options, engine->pool, err));
    for (int i = 0; i < t->n_modules; i++) TRY(module_train_begin(t->modules[i], trainer_states(t->trainer), options.sched.steps, err));
    return CB_OK;
}

double training_flops(const struct training *t) { return plan_flops(t->pass.plan) * (t->twin.plan ? 2 : 1); }

void training_close(struct training *t) {
    trainer_destroy(&t->trainer);
    teacher_close(&t->teacher);
    pass_end(&t->pass);
    pass_end(&t->twin);
    store_destroy(&t->inputs);
    free(t->params);
    t->params = NULL;
    instance_close(&t->instance);
}
