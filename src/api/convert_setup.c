/* Converting compositions: the modules of an expression, or of a folder with an adapter_setup.json, each into a folder beside the file that puts them together. */
#include <stdlib.h>
#include <string.h>

#include "api/convert.h"
#include "api/files.h"
#include "api/instance.h"
#include "base/arena.h"
#include "io/file.h"
#include "modules/expression.h"

struct setup {
    const struct cb_convert_options *o;
    struct cb_convert_result *result;
    struct instance in;
    struct arena *arena;
    const char **path, **name;  // of each module of the instance, once it is saved: where it was, the folder's name now
};

static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* One module into a folder of its own; names are those of the file, so each may stand for one folder alone. */
static enum cb_status save_module(struct setup *s, int number, const char *path, const char *name, struct cb_err *err) {
    const struct module *m = s->in.modules[number];
    if (s->path[number]) return CB_OK;
    if (!*name || strchr(name, '/') || !io_name_stays(name))
        FAIL(err, CB_E_UNSUPPORTED, "%s: a module without a name of its own cannot stand in an adapter_setup.json", path);
    for (int i = 0; i < s->in.list.n; i++)
        if (s->name[i] && !strcmp(s->name[i], name))
            FAIL(err, CB_E_NAME, "%s and %s: two modules of one name; wanted names that differ", s->path[i], path);
    char *folder = io_path_join(s->o->out, name);
    if (!folder) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    s->path[number] = path;
    s->name[number] = name;
    enum cb_status status = module_save(m, s->in.store, folder, err);
    free(folder);
    s->result->files++;
    s->result->tensors += module_n_params(m);
    s->result->bytes += module_parameters(m) * (int64_t)sizeof(float);
    return status;
}

/* The folder of a fusion: the modules that its children end with, as its readers name it. */
static const char *fusion_name(struct arena *arena, const struct expression *e) {
    const char *joined = "";
    for (int i = 0; i < e->n && joined; i++) {
        const struct expression *last = e->child[i];
        while (last->block) last = last->child[last->n - 1];
        joined = arena_printf(arena, "%s%s%s", joined, i ? "," : "", last->name);
    }
    return joined;
}

static enum cb_status save_tree(struct setup *s, const struct expression *e, struct cb_err *err) {
    for (int i = 0; i < e->n; i++) TRY(save_tree(s, e->child[i], err));
    if (e->own >= 0) {
        const char *name = fusion_name(s->arena, e);
        if (!name) FAIL(err, CB_E_MEMORY, "convert: out of memory");
        TRY(save_module(s, e->own, e->folder, name, err));
    }
    if (e->block || !e->path) return CB_OK;
    if (e->scale != 1) FAIL(err, CB_E_UNSUPPORTED, "%s: weight %g: adapter_setup.json has no form for it", e->path, e->scale);
    return save_module(s, e->module, e->path, e->name, err);
}

static bool is_module(const struct setup *s, const char *path) {
    for (int i = 0; i < s->in.list.n; i++)
        if (s->path[i] && !strcmp(s->path[i], path)) return true;
    return false;
}

/* A head in a folder of its own stays there. */
static enum cb_status copy_head(const struct setup *s, const char *head, struct cb_err *err) {
    static const char *const names[] = {"head_config.json", "model_head.safetensors", "pytorch_model_head.bin"};
    if (is_module(s, head) || !io_is_folder(head)) return CB_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *from = io_path_join(head, names[i]), *to = io_path_join(s->o->out, last_part(head));
        enum cb_status status = from && to ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "convert: out of memory");
        if (status == CB_OK && io_is_file(from)) status = io_mkdirs(to, err);
        if (status == CB_OK && io_is_file(from)) status = files_copy_into(from, to, names[i], err);
        free(from);
        free(to);
        TRY(status);
    }
    return CB_OK;
}

static enum cb_status convert(struct setup *s, struct cb_err *err) {
    const struct cb_convert_options *o = s->o;
    const struct expression *root;
    const char *const *heads = NULL;
    struct expression *again;
    const struct module_evaluator evaluator = instance_evaluator(&s->in);
    if (gguf_is_path(o->out)) FAIL(err, CB_E_UNSUPPORTED, "convert: %s puts several modules together; wanted --out DIR", o->in);
    if (o->n_fields) FAIL(err, CB_E_UNSUPPORTED, "convert: --field: goes with one adapter; %s puts several together", o->in);
    TRY(instance_open(&s->in, s->in.engine, o->model, o->in, err));
    root = s->in.list.expression;
    if (!root || s->in.open) FAIL(err, CB_E_USAGE, "convert: %s: wanted modules that are there", o->in);
    s->path = arena_array(s->arena, (size_t)s->in.list.n + 1, sizeof *s->path);
    s->name = arena_array(s->arena, (size_t)s->in.list.n + 1, sizeof *s->name);
    if (!s->path || !s->name) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    for (int i = 0; i < s->in.list.n; i++) TRY(module_settle(s->in.modules[i], s->in.store, &evaluator, err));
    TRY(io_mkdirs(o->out, err));
    TRY(save_tree(s, root, err));
    if (setup_is_folder(o->in)) TRY(setup_read(&again, &heads, s->arena, o->in, err));
    for (int i = 0; heads && heads[i]; i++) TRY(copy_head(s, heads[i], err));
    TRY(setup_write(root, heads, o->out, err));
    return files_write_text(o->out, "run.json", o->run_json, err);
}

bool convert_is_setup(const struct cb_convert_options *o) {
    // an expression is no path, and wants the model that its modules are for
    return setup_is_folder(o->in) || (o->model && strchr(o->in, '(') && !io_is_folder(o->in) && !io_is_file(o->in));
}

enum cb_status convert_setup(struct cb_engine *engine, const struct cb_convert_options *o, struct cb_convert_result *result,
                             struct cb_err *err) {
    struct setup s = {.o = o, .result = result, .in = {.engine = engine}, .arena = arena_create()};
    enum cb_status status = CB_OK;
    if (!s.arena) FAIL(err, CB_E_MEMORY, "convert: out of memory");
    if (!o->model)
        status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "convert: %s is of modules; wanted --model BASE, what they are for", o->in);
    if (status == CB_OK && (o->quantize || o->split_bytes))
        status = err_set(err, CB_E_USAGE, __FILE__, __LINE__, "convert: --quantize and --split are for models; %s is of modules", o->in);
    if (status == CB_OK) status = convert(&s, err);
    instance_close(&s.in);
    arena_destroy(&s.arena);
    return status;
}
