/* Opening models with modules, building passes over them. */
#include "api/instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/card.h"
#include "api/files.h"
#include "api/task.h"
#include "models/gguf_lora.h"
#include "modules/expression.h"
#include "ops/ops.h"
#include "text/tokenizer.h"

enum cb_status instance_open_as(struct instance *in, struct cb_engine *engine, const char *model, const char *modules,
                                const struct model_as *as, struct cb_err *err) {
    *in = (struct instance){.engine = engine, .path = model};
    TRY(store_create(&in->store, err));
    TRY(as ? model_load_as(&in->model, in->store, model, as, err) : model_load(&in->model, in->store, model, err));
    return modules ? instance_add_modules(in, modules, err) : CB_OK;
}

/* A module that was trained with a head wants a model of that head. */
enum cb_status instance_open(struct instance *in, struct cb_engine *engine, const char *model, const char *modules, struct cb_err *err) {
    struct labels labels = {0};
    const struct task *task = NULL;
    *in = (struct instance){.engine = engine};
    enum cb_status status = modules ? task_of_modules(&task, &labels, modules, err) : CB_OK;
    struct model_as as = {0};
    if (task) as = task_model(task, &labels, labels.pad, engine->options.seed);
    as.head = MODEL_HEAD_FITTING;
    if (status == CB_OK) status = instance_open_as(in, engine, model, modules, task ? &as : NULL, err);
    labels_deinit(&labels);
    return status;
}

void instance_close(struct instance *in) {
    for (int i = 0; i < in->list.n; i++) module_destroy(&in->modules[i]);
    free(in->modules);
    arena_destroy(&in->arena);
    graph_destroy(&in->site_graph);
    model_destroy(&in->model);
    store_destroy(&in->store);
}

/* Builds the plain model once, to record its sites. */
enum cb_status instance_sites(struct instance *in, struct cb_err *err) {
    if (in->site_graph) return CB_OK;
    struct model_io io = {.batch = 1, .tokens = 2, .want_logits = true};
    TRY(graph_create(&in->site_graph, ops_table(), err));
    in->sites = nn_make(in->site_graph);
    return model_build(in->model, &in->sites, &io, err);
}

/* The name of the next module, the prefix of its store entries; and room for it. */
static enum cb_status next_name(struct instance *in, char name[16], struct cb_err *err) {
    if (in->list.n == INSTANCE_MAX_MODULES) FAIL(err, CB_E_LIMIT, "modules: more than %d at once", INSTANCE_MAX_MODULES);
    if (in->list.n == in->modules_size) {
        const int size = in->modules_size ? 2 * in->modules_size : 8;
        struct module **more = realloc(in->modules, (size_t)size * sizeof(struct module *));
        if (!more) FAIL(err, CB_E_MEMORY, "modules: out of memory");
        in->modules = more;
        in->modules_size = size;
    }
    snprintf(name, 16, "module%d", in->list.n);
    return CB_OK;
}

static void keep_module(struct instance *in, struct module *module) {
    in->modules[in->list.n++] = module;
    in->list.modules = (const struct module *const *)in->modules;
    if (module_warning(module) && !in->is_parted) engine_warn(in->engine, "%s", module_warning(module));
}

/* An adapter of a GGUF file. */
static enum cb_status load_gguf(struct module **module, struct instance *in, const char *path, const char *name, struct cb_err *err) {
    struct gguf *g;
    json_t *config = NULL;
    struct tensors *tensors = NULL;
    TRY(gguf_open(&g, path, err));
    enum cb_status status = gguf_lora_read(&config, &tensors, g, in->model, err);
    if (status == CB_OK) status = module_make(module, in->store, config, path, tensors, name, &in->sites, err);
    json_decref(config);
    tensors_destroy(&tensors);
    gguf_destroy(&g);
    return status;
}

/* A module may want the model's layers several times over: before anything else is on it. */
static enum cb_status replicate(struct instance *in, const char *folder, struct cb_err *err) {
    int *source, n;
    TRY(module_layers(&source, &n, folder, in->model->n_layer, err));
    enum cb_status status = CB_OK;
    if (n && in->list.n)
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__, "%s: layer_replication: the model has modules already; wanted it first",
                         folder);
    if (n) graph_destroy(&in->site_graph);
    in->is_replicated |= n > 0;
    if (n && status == CB_OK) status = model_replicate(&in->model, in->store, source, n, err);
    free(source);
    return status;
}

enum cb_status instance_load_module(struct instance *in, const char *folder, const char *head, double scale, struct cb_err *err) {
    char name[16];
    struct module *module;
    TRY(next_name(in, name, err));
    if (!gguf_is_path(folder) && !in->is_parted) TRY(card_check(in, folder, err));
    if (!gguf_is_path(folder)) TRY(replicate(in, folder, err));
    TRY(instance_sites(in, err));
    TRY(gguf_is_path(folder) ? load_gguf(&module, in, folder, name, err)
                             : module_load_headed(&module, in->store, folder, head, name, &in->sites, err));
    if (scale != 1 && !module_scales(module)) {
        module_remove(module, in->store);
        module_destroy(&module);
        FAIL(err, CB_E_UNSUPPORTED, "%s: weight %g; a module of its kind has no weight but 1", folder, scale);
    }
    keep_module(in, module);
    module_set_scale(module, in->store, scale);
    return CB_OK;
}

enum cb_status instance_part(struct instance *in, const char *expression, struct cb_err *err) {
    bool shares = false, ties = false;
    for (int i = 0; i < in->list.n; i++) {
        shares |= module_shares(in->modules[i]);
        ties |= module_ties(in->modules[i]);
    }
    if (!shares || ties || in->is_replicated || in->model->family->encoder_decoder) return CB_OK;
    while (in->list.n > 0) {
        module_remove(in->modules[--in->list.n], in->store);
        module_destroy(&in->modules[in->list.n]);
    }
    in->list = (struct module_list){.modules = in->list.modules};
    graph_destroy(&in->site_graph);
    arena_destroy(&in->arena);
    in->copies = 0;
    in->is_parted = true;
    TRY(model_untie(&in->model, in->store, err));
    return instance_add_modules(in, expression, err);
}

/* Ids that the model's tokenizer gives a text. */
static enum cb_status text_ids(void *user, const char *text, int32_t **ids, int64_t *n, struct cb_err *err) {
    const struct instance *in = user;
    struct tokenizer *tokenizer = NULL;
    struct token_list list = {0};
    TRY(files_load_tokenizer(&tokenizer, in->path, err));
    enum cb_status status = tokenizer_encode(tokenizer, &list, text, strlen(text), ENCODE_SPECIALS, err);
    *ids = status == CB_OK ? malloc(list.n * sizeof **ids + 1) : NULL;
    if (status == CB_OK && !*ids) status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for its tokens", text);
    for (size_t i = 0; status == CB_OK && i < list.n; i++) (*ids)[i] = list.token[i].id;
    *n = (int64_t)list.n;
    token_list_deinit(&list);
    tokenizer_destroy(&tokenizer);
    return status;
}

/* Nullable: label. */
static enum cb_status new_module(struct instance *in, const char *spec, const char *label, struct module **module, struct cb_err *err) {
    char name[16];
    TRY(next_name(in, name, err));
    TRY(instance_sites(in, err));
    struct module_fresh fresh = {
        .spec = spec, .name = name, .base = in->path, .task_type = in->task_type, .seed = in->engine->options.seed};
    const char *save[MODULE_MAX_SAVE];
    fresh.save = save;
    fresh.label = label;
    fresh.block = in->open;
    fresh.list = &in->list;
    fresh.ids = text_ids;
    fresh.user = in;
    // a fresh head goes with the module
    for (int i = 0; i < in->sites.n_sites; i++) {
        const struct nn_site *site = in->sites.sites[i];
        const struct store_entry *entry = site->weight ? store_find(in->store, site->weight) : NULL;
        if (!entry || !entry->trainable) continue;
        if (fresh.n_save == MODULE_MAX_SAVE) FAIL(err, CB_E_LIMIT, "%s: a head of more than %d layers", in->path, MODULE_MAX_SAVE);
        save[fresh.n_save++] = site->name;
    }
    TRY(module_create_fresh(module, in->store, &fresh, &in->sites, err));
    keep_module(in, *module);
    if (!in->open) return CB_OK;
    in->open->own = in->list.n - 1;
    in->open = NULL;
    in->list.n_composed = in->list.n;
    return CB_OK;
}

enum cb_status instance_new_module(struct instance *in, const char *spec, struct module **module, struct cb_err *err) {
    return new_module(in, spec, NULL, module, err);
}

static struct expression *node_make(struct instance *in, const struct block *block, int n) {
    struct expression *e = arena_alloc(in->arena, sizeof *e);
    struct expression **child = arena_array(in->arena, (size_t)n + 1, sizeof *child);
    if (!e || !child) return NULL;
    *e = (struct expression){.block = block, .module = -1, .own = -1, .weight = 1, .scale = 1, .n = n, .child = child};
    return e;
}

enum cb_status instance_new_tasks(struct instance *in, const char *spec, const char *const *names, int n, struct cb_err *err) {
    if (!in->arena && !(in->arena = arena_create())) FAIL(err, CB_E_MEMORY, "modules: out of memory");
    struct expression *all = node_make(in, block_find("multitask", strlen("multitask")), n), *root = all;
    for (int i = 0; i < n && all; i++) {
        struct module *m;
        if (!(all->child[i] = node_make(in, NULL, 0))) FAIL(err, CB_E_MEMORY, "modules: out of memory");
        TRY(new_module(in, spec, names[i], &m, err));
        all->child[i]->module = in->list.n - 1;
        all->child[i]->name = all->child[i]->path = names[i];
    }
    // after what was there
    if (in->list.expression && all && (root = node_make(in, block_find("sum", strlen("sum")), 2))) {
        root->child[0] = (struct expression *)in->list.expression;
        root->child[1] = all;
    }
    if (!all || !root) FAIL(err, CB_E_MEMORY, "modules: out of memory");
    all->is_library = true;  // as adapter_setup.json will be read
    in->list.expression = root;
    in->list.n_composed = in->list.n;
    in->tasks = all;
    if (!in->copies) in->copies = 1;
    return CB_OK;
}

enum cb_status instance_f32(struct instance *in, bool writable, struct cb_err *err) {
    for (int i = 0; i < in->model->n_weights; i++) {
        struct store_entry *entry = store_find(in->store, in->model->weights[i].name);
        if (entry && (writable || entry->type.dtype != CB_DTYPE_F32)) TRY(store_make(in->store, entry, CB_DTYPE_F32, writable, err));
    }
    return CB_OK;
}

enum cb_status pass_begin(struct pass *pass, struct instance *in, struct nn *nn, struct cb_err *err) {
    *pass = (struct pass){0};
    TRY(graph_create(&pass->graph, ops_table(), err));
    TRY(store_create(&pass->own, err));
    *nn = nn_make(pass->graph);
    nn->param_dtype = store_dtype;
    nn->param_turned = store_turned;
    nn->dtype_user = in->store;
    return instance_hook(in, &nn->hook, err);
}

/* Less is not worth the time: a small model's step would be 2% longer. */
enum { RECOMPUTE_FROM = 16 << 20 };

enum cb_status pass_plan(struct pass *pass, struct instance *in, bool recompute, int64_t held, struct cb_err *err) {
    struct plan_options options = engine_plan_options(in->engine, held);
    options.recompute = recompute ? RECOMPUTE_FROM : 0;
    TRY(plan_create(&pass->plan, pass->graph, &options, err));
    return store_bind(in->store, in->engine->backend.runs ? pass->own : NULL, false, pass->plan, err);
}

void pass_end(struct pass *pass) {
    plan_destroy(&pass->plan);
    graph_destroy(&pass->graph);
    store_destroy(&pass->own);
}

void *pass_data(struct pass *pass, const char *name) {
    int slot = plan_find(pass->plan, name);
    return slot < 0 ? NULL : plan_data(pass->plan, slot);
}

int64_t instance_weight_bytes(const struct instance *in) { return store_bytes(in->store, STORE_HEAP) + store_bytes(in->store, STORE_MAP); }

int64_t instance_held_bytes(const struct instance *in) {
    int64_t base = engine_base_bytes(in->engine), now = engine_resident_bytes() - store_bytes(in->store, STORE_HEAP);
    return (now > base ? now : base) + instance_weight_bytes(in);
}

/* A small graph, planned, bound to the store and run once. */
static enum cb_status evaluate(void *user, struct cb_graph *g, const struct store *store, int n, const char *const *names,
                               float *const *out, struct cb_err *err) {
    struct instance *in = user;
    struct plan_options options = engine_plan_options(in->engine, 0);
    struct plan *plan;
    TRY(plan_create(&plan, g, &options, err));
    enum cb_status status = store_bind(store, NULL, true, plan, err);
    if (status == CB_OK) status = plan_run(plan, in->engine->pool, err);
    for (int i = 0; status == CB_OK && i < n; i++) {
        int slot = plan_find(plan, names[i]);
        memcpy(out[i], plan_data(plan, slot), (size_t)type_bytes(&plan_slot(plan, slot)->type));
    }
    plan_destroy(&plan);
    return status;
}

struct module_evaluator instance_evaluator(struct instance *in) {
    return (struct module_evaluator){ops_table(), evaluate, in};
}

int64_t instance_rows(const struct instance *in) {
    int64_t n = 0;
    for (int i = 0; i < in->list.n; i++) n += module_rows(in->modules[i]);
    return n;
}

int64_t instance_positions(const struct instance *in) {
    int64_t n = 0;
    for (int i = 0; i < in->list.n; i++) n += module_positions(in->modules[i]);
    return n;
}
