/* cb_combine: recipes of models and of modules. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/combine.h"
#include "api/convert.h"
#include "api/files.h"
#include "io/file.h"
#include "io/yaml.h"
#include "merge/lora.h"
#include "merge/models.h"

#define RECIPE_LIMIT ((size_t)1 << 24)
/* Largest file where none is asked for, as mergekit and Transformers have it. */
#define SHARD_BYTES 5000000000

struct combining {
    struct cb_engine *engine;
    const struct cb_combine_options *o;
    struct cb_combine_result *result;
    json_t *root;
    char *text;  // of the recipe's file; NULL: none
    struct merge_recipe *recipe;
    struct combine_vocabulary vocabulary;
    struct merge_format format;
    struct merge_plan plan;
    struct combine_inputs inputs;
    int n_plain;  // modules that were made plain LoRA
};

static void warn(void *user, const char *line) { engine_warn(user, "%s", line); }

static bool progress(void *user, int64_t done, int64_t total) {
    struct cb_engine *engine = user;
    struct cb_progress p = {.verb = "merge", .done = done, .total = total, .seconds = engine_now() - engine->start_s, .seconds_left = -1};
    p.rate = p.seconds > 0 ? (double)done / 1e6 / p.seconds : -1;
    p.seconds_left = done ? p.seconds * (double)(total - done) / (double)done : -1;
    p.unit = "MB";
    p.loss = p.valid_loss = p.lr = -1;
    return engine_progress(engine, &p);
}

/* ---- the recipe */

/* Whether a method, of models or of modules, weighs each model. */
static bool has_weight(const char *name) {
    const struct merge_method *m = merge_method_find(name);
    return !m || merge_option_index(m, "weight") >= 0;
}

/* From the file; or made of method, models and base, with weights of 1. */
static enum cb_status read_recipe(struct combining *c, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    size_t n;
    if (o->recipe && (o->method || o->n_models || o->base))
        FAIL(err, CB_E_USAGE, "merge: found a recipe and %s; wanted one (--set changes a recipe)", o->method ? "a method" : "models");
    if (o->recipe) {
        TRY(io_read_file(&c->text, &n, o->recipe, RECIPE_LIMIT, err));
        TRY(yaml_parse(&c->root, c->text, n, o->recipe, err));
    } else {
        if (!o->method || !o->n_models) FAIL(err, CB_E_USAGE, "merge: wanted a recipe, or a method and models");
        json_t *models = json_array();
        for (int i = 0; i < o->n_models; i++) json_array_append_new(models, json_pack("{s:s, s:{}}", "model", o->models[i], "parameters"));
        c->root = json_pack("{s:s, s:o, s:{}}", "merge_method", o->method, "models", models, "parameters");
        if (has_weight(o->method)) json_object_set_new(json_object_get(c->root, "parameters"), "weight", json_integer(1));
        if (!c->root || (o->base && json_object_set_new(c->root, "base_model", json_string(o->base))))
            FAIL(err, CB_E_MEMORY, "merge: out of memory");
    }
    for (int i = 0; i < o->n_set; i++) TRY(merge_recipe_set(c->root, o->set[i], err));
    if (o->tokenizer) json_object_del(c->root, "tokenizer");
    if ((o->dtype && json_object_set_new(c->root, "out_dtype", json_string(o->dtype))) ||
        (o->tokenizer && json_object_set_new(c->root, "tokenizer_source", json_string(o->tokenizer))))
        FAIL(err, CB_E_FORMAT, "merge: the recipe is no mapping");
    return merge_recipe_create(&c->recipe, c->root, o->recipe ? o->recipe : "merge", err);
}

/* ---- models */

static enum cb_status write_json(const char *folder, const char *name, const json_t *value, struct cb_err *err) {
    char *text;
    TRY(json_dump(&text, value, 2, err));
    const size_t n = strlen(text);
    char *line = realloc(text, n + 2);
    if (!line) {
        free(text);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    }
    line[n] = '\n';
    line[n + 1] = 0;
    enum cb_status status = files_write_text(folder, name, line, err);
    free(line);
    return status;
}

/* generation_config.json of the donor, its ids of tokens as the result counts them. */
static enum cb_status write_generation(const struct combining *c, struct cb_err *err) {
    char *path = io_path_join(c->plan.models[c->plan.donor].path, "generation_config.json"), *text = NULL;
    json_t *json = NULL;
    size_t n;
    enum cb_status status = path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "merge: out of memory");
    const bool is_there = path && io_is_file(path), is_moved = c->plan.vocabulary != NULL;
    if (is_there) status = io_read_file(&text, &n, path, RECIPE_LIMIT, err);
    if (status == CB_OK && is_there && is_moved) status = json_parse_config(&json, text, n, path, err);
    if (status == CB_OK && json) status = combine_move_tokens(json, &c->plan, err);
    if (status == CB_OK && json) status = write_json(c->o->out, "generation_config.json", json, err);
    if (status == CB_OK && !json) status = files_write_text(c->o->out, "generation_config.json", text, err);
    json_decref(json);
    free(text);
    free(path);
    return status;
}

/* Everything of the folder but the weights. */
static enum cb_status write_rest(const struct combining *c, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    const char *template = c->recipe->chat_template;
    json_t *config = NULL;
    enum cb_status status = merge_plan_config(&c->plan, &config, err);
    if (status == CB_OK) status = combine_move_tokens(config, &c->plan, err);
    if (status == CB_OK) status = write_json(o->out, "config.json", config, err);
    json_decref(config);
    TRY(status);
    TRY(write_generation(c, err));
    TRY(combine_write_vocabulary(&c->vocabulary, o->out, err));
    if (template && strcmp(template, "auto")) TRY(files_write_text(o->out, "chat_template.jinja", template, err));
    TRY(files_write_text(o->out, "mergekit_config.yml", c->text, err));
    return files_write_text(o->out, "run.json", o->run_json, err);
}

/* Into a GGUF file; a union's tokenizer is written beside it for the while, as a folder's is read. */
static enum cb_status write_file(const struct combining *c, const struct merge_run *run, struct merge_report *report, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    struct combine_gguf file = {.path = o->out, .vocabulary = c->vocabulary.folder, .run = run, .max_bytes = o->shard_bytes};
    char folder[4200];
    TRY(combine_recipe_type(&file.recipe, c->recipe, err));
    if (!c->vocabulary.json) return combine_write_gguf(c->engine, &c->plan, &file, report, err);
    if (snprintf(folder, sizeof folder, "%s.tokenizer", o->out) >= (int)sizeof folder) FAIL(err, CB_E_LIMIT, "--out: the path is too long");
    TRY(io_mkdirs(folder, err));
    file.vocabulary = folder;
    enum cb_status status = combine_write_vocabulary(&c->vocabulary, folder, err);
    if (status == CB_OK) status = combine_write_gguf(c->engine, &c->plan, &file, report, err);
    files_remove_tokenizer(folder);
    return status;
}

/* A base that is neither among the models nor what differences are taken from: its tokens and configuration count, its weights do not. */
static void warn_of_base(const struct combining *c, const struct merge_method *method) {
    const struct merge_recipe *r = c->recipe;
    char line[400];
    if (!r->base || r->is_sliced || method->base != MERGE_BASE_NONE) return;
    for (int i = 0; i < r->slices[0].n_sources; i++)
        if (!strcmp(r->slices[0].sources[i].model, r->base)) return;
    snprintf(line, sizeof line,
             "%.100s: %s takes no differences: the weights of base_model %.100s are left out (mergekit merges them; list it for that)",
             r->name, method->name, r->base);
    warn(c->engine, line);
}

static enum cb_status combine_models(struct combining *c, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    const struct merge_method *method = merge_method_find(c->recipe->method);
    struct merge_report report;
    if (!method)
        FAIL(err, CB_E_NAME, "%s: merge_method '%.60s': unknown; `cambium list merges` shows them", c->recipe->name, c->recipe->method);
    if (c->recipe->chat_template && strcmp(c->recipe->chat_template, "auto") && !strchr(c->recipe->chat_template, '{'))
        FAIL(err, CB_E_UNSUPPORTED, "%s: chat_template '%.60s': wanted auto, or the template itself", c->recipe->name,
             c->recipe->chat_template);
    TRY(merge_recipe_check(c->recipe, method->options, merge_option_known, warn, c->engine, err));
    warn_of_base(c, method);
    c->vocabulary.engine = c->engine;
    c->format = combine_format(o->out, &c->vocabulary);
    TRY(merge_plan_open(&c->plan, c->recipe, method, &c->format, err));
    TRY(combine_check_vocabulary(&c->vocabulary, &c->plan, err));
    struct merge_run run = {.pool = c->engine->pool,
                            .seed = c->engine->options.seed,
                            .progress = progress,
                            .user = c->engine,
                            .shard_bytes = o->shard_bytes ? o->shard_bytes : SHARD_BYTES};
    TRY(combine_inputs_open(&c->inputs, c->engine, o, &c->plan, err));
    run.alignment = combine_alignment(&c->inputs);
    run.statistics = combine_statistics(&c->inputs);
    if (gguf_is_path(o->out)) {
        TRY(write_file(c, &run, &report, err));
    } else {
        TRY(merge_write(&c->plan, &run, o->out, &report, err));
        TRY(write_rest(c, err));
    }
    *c->result =
        (struct cb_combine_result){.tensors = report.tensors,
                                   .parameters = report.parameters,
                                   .bytes = report.bytes,
                                   .layers = c->plan.n_layers,
                                   .max_error = report.max_error,
                                   .relative_error = report.value_squares > 0 ? sqrt(report.error_squares / report.value_squares) : 0,
                                   .identity = report.identity,
                                   .sign_conflicts = NAN};
    if (report.has_conflicts)
        c->result->sign_conflicts = report.shared_elements ? (double)report.conflicts / (double)report.shared_elements : 0;
    return CB_OK;
}

/* ---- modules */

static const char *plain_folder(const struct combining *c, int i) { return arena_printf(c->recipe->arena, "%s.plain-%d", c->o->out, i); }

/* A module whose start took a part of the base, as plain LoRA in a folder beside the result for the while. */
static enum cb_status make_plain(void *context, const char *folder, const char **plain, struct cb_err *err) {
    struct combining *c = context;
    struct cb_convert_result ignored = {0};
    *plain = plain_folder(c, c->n_plain);
    if (!*plain) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    c->n_plain++;
    return convert_adapter(c->engine, &(struct cb_convert_options){.in = folder, .out = *plain, .model = c->recipe->base}, &ignored, err);
}

static void remove_plain(const struct combining *c) {
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors", "labels.json"};
    for (int i = 0; i < c->n_plain; i++) {
        const char *folder = plain_folder(c, i);
        for (size_t k = 0; folder && k < sizeof names / sizeof *names; k++) {
            char *path = io_path_join(folder, names[k]);
            if (path) unlink(path);
            free(path);
        }
        if (folder) rmdir(folder);
    }
}

static enum cb_status combine_modules(struct combining *c, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    struct tensors *base = NULL;
    struct lora_report report;
    if (o->align || o->n_text) FAIL(err, CB_E_USAGE, "merge: --align and --text are for models; found modules");
    // of a .gguf file no weights are read for DoRA
    if (c->recipe->base && !gguf_is_path(c->recipe->base)) TRY(tensors_open(&base, c->recipe->base, err));
    struct lora_run run = {.pool = c->engine->pool, .seed = c->engine->options.seed, .base = base, .warn = warn, .user = c->engine};
    if (c->recipe->base) run.make_plain = make_plain;
    run.context = c;
    enum cb_status status = lora_merge(c->recipe, &run, o->out, &report, err);
    remove_plain(c);
    tensors_destroy(&base);
    TRY(status);
    *c->result = (struct cb_combine_result){.tensors = report.sites,
                                            .parameters = report.parameters,
                                            .bytes = report.parameters * (int64_t)sizeof(float),
                                            .rank = report.rank,
                                            .max_error = report.max_error,
                                            .identity = NAN,
                                            .sign_conflicts = NAN};
    return files_write_text(o->out, "run.json", o->run_json, err);
}

/* The first model decides; a recipe may name it from where it lies. */
static bool is_of_modules(const struct merge_recipe *r) {
    const char *first = r->slices[0].sources[0].model, *slash = strrchr(r->name, '/');
    char beside[4096];
    if (lora_is_folder(first)) return true;
    snprintf(beside, sizeof beside, "%.*s/%s", slash ? (int)(slash - r->name) : 0, r->name, first);
    return slash && *first != '/' && !io_is_folder(first) && lora_is_folder(beside);
}

enum cb_status cb_combine(struct cb_engine *engine, const struct cb_combine_options *options, struct cb_combine_result *result,
                          struct cb_err *err) {
    struct combining c = {.engine = engine, .o = options, .result = result};
    *result = (struct cb_combine_result){0};
    if (!options->out) FAIL(err, CB_E_USAGE, "merge: no --out DIR; wanted one");
    TRY(engine_check_runs(engine, err));
    enum cb_status status = read_recipe(&c, err);
    if (status == CB_OK) status = is_of_modules(c.recipe) ? combine_modules(&c, err) : combine_models(&c, err);
    result->peak_bytes = engine_peak_bytes();
    combine_inputs_close(&c.inputs);
    merge_plan_close(&c.plan);
    free(c.vocabulary.json);
    merge_recipe_destroy(&c.recipe);
    json_decref(c.root);
    free(c.text);
    return status;
}
