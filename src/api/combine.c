/* cb_combine: recipes of models and of modules. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/combine.h"
#include "api/files.h"
#include "base/table.h"
#include "io/file.h"
#include "io/yaml.h"
#include "merge/lora.h"
#include "merge/models.h"
#include "text/tokenizer.h"

#define RECIPE_LIMIT ((size_t)1 << 24)
#define TOKENIZER_LIMIT ((size_t)1 << 30)
/* Largest file where none is asked for, as mergekit and Transformers have it. */
#define SHARD_BYTES 5000000000

struct combining {
    struct cb_engine *engine;
    const struct cb_combine_options *o;
    struct cb_combine_result *result;
    json_t *root;
    char *text;  // of the recipe's file; NULL: none
    struct merge_recipe *recipe;
    struct merge_plan plan;
    struct combine_inputs inputs;
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
    if (o->dtype && json_object_set_new(c->root, "out_dtype", json_string(o->dtype)))
        FAIL(err, CB_E_FORMAT, "merge: the recipe is no mapping");
    return merge_recipe_create(&c->recipe, c->root, o->recipe ? o->recipe : "merge", err);
}

/* ---- vocabularies */

/* Whether two folders have the same tokenizer.json, byte for byte: the usual case, without reading what they mean. */
static bool same_file(const char *a, const char *b) {
    struct cb_err ignored = {0};
    char *path[2] = {io_path_join(a, "tokenizer.json"), io_path_join(b, "tokenizer.json")}, *bytes[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    bool same = path[0] && path[1] && io_is_file(path[0]) && io_is_file(path[1]);
    for (int i = 0; i < 2 && same; i++) same = io_read_file(&bytes[i], &n[i], path[i], TOKENIZER_LIMIT, &ignored) == CB_OK;
    same = same && n[0] == n[1] && !memcmp(bytes[0], bytes[1], n[0]);
    for (int i = 0; i < 2; i++) {
        free(path[i]);
        free(bytes[i]);
    }
    return same;
}

/* Each id must be the same token in both; one may have more of them. */
static enum cb_status compare_tokenizers(const struct combining *c, const char *a, const char *b, struct cb_err *err) {
    struct tokenizer *x = NULL, *y = NULL;
    enum cb_status status = files_load_tokenizer(&x, a, err);
    if (status == CB_OK) status = files_load_tokenizer(&y, b, err);
    const int32_t nx = status == CB_OK ? tokenizer_size(x) : 0, ny = status == CB_OK ? tokenizer_size(y) : 0;
    for (int32_t i = 0; i < nx && i < ny; i++) {
        size_t n, m;
        const char *s = tokenizer_token(x, i, &n), *t = tokenizer_token(y, i, &m);
        if ((!s && !t) || (s && t && n == m && !memcmp(s, t, n))) continue;
        status = err_set(err, CB_E_SHAPE, __FILE__, __LINE__, "%s: token %d is '%.*s', in %s it is '%.*s'; wanted models of one vocabulary",
                         b, (int)i, t ? (int)(m < 60 ? m : 60) : 0, t ? t : "", a, s ? (int)(n < 60 ? n : 60) : 0, s ? s : "");
        break;
    }
    if (status == CB_OK && nx != ny) engine_warn(c->engine, "%s: %d tokens, %s has %d: those of %s are kept", b, (int)ny, a, (int)nx, a);
    tokenizer_destroy(&x);
    tokenizer_destroy(&y);
    return status;
}

/* The folder whose tokenizer the result has: the donor's, or as the recipe says. */
static enum cb_status tokenizer_folder(const struct combining *c, const char **folder, struct cb_err *err) {
    const char *source = c->recipe->tokenizer_source;
    const struct merge_plan *plan = &c->plan;
    *folder = plan->models[plan->donor].path;
    if (!source || !strcmp(source, "base")) {
        if (source && !c->recipe->base) FAIL(err, CB_E_USAGE, "%s: tokenizer_source: base, and no base_model; wanted one", c->recipe->name);
        return CB_OK;
    }
    if (strcmp(source, "union")) {
        const int i = merge_plan_model(plan, source);
        *folder = i < 0 ? source : plan->models[i].path;
        if (!files_have_tokenizer(*folder)) FAIL(err, CB_E_IO, "%s: tokenizer_source %s: no tokenizer there", c->recipe->name, source);
        return CB_OK;
    }
    // the union of vocabularies that agree is the largest of them
    int32_t most = 0;
    for (int i = 0; i < plan->n_models; i++) {
        struct tokenizer *t;
        if (!files_have_tokenizer(plan->models[i].path)) continue;
        TRY(files_load_tokenizer(&t, plan->models[i].path, err));
        if (tokenizer_size(t) > most) {
            most = tokenizer_size(t);
            *folder = plan->models[i].path;
        }
        tokenizer_destroy(&t);
    }
    return CB_OK;
}

static enum cb_status check_vocabularies(const struct combining *c, const char **folder, struct cb_err *err) {
    TRY(tokenizer_folder(c, folder, err));
    for (int i = 0; i < c->plan.n_models && files_have_tokenizer(*folder); i++) {
        const char *other = c->plan.models[i].path;
        if (!strcmp(other, *folder) || !files_have_tokenizer(other) || same_file(*folder, other)) continue;
        TRY(compare_tokenizers(c, *folder, other, err));
    }
    return CB_OK;
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

/* Everything of the folder but the weights. */
static enum cb_status write_rest(const struct combining *c, const char *tokenizer, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    const char *donor = c->plan.models[c->plan.donor].path, *template = c->recipe->chat_template;
    json_t *config = NULL;
    size_t n;
    enum cb_status status = merge_plan_config(&c->plan, &config, err);
    if (status == CB_OK) status = write_json(o->out, "config.json", config, err);
    json_decref(config);
    TRY(status);
    char *generation = io_path_join(donor, "generation_config.json"), *text = NULL;
    if (generation && io_is_file(generation)) status = io_read_file(&text, &n, generation, RECIPE_LIMIT, err);
    if (status == CB_OK) status = files_write_text(o->out, "generation_config.json", text, err);
    free(text);
    free(generation);
    TRY(status);
    TRY(files_copy_tokenizer(tokenizer, o->out, NULL, err));
    if (template && strcmp(template, "auto")) TRY(files_write_text(o->out, "chat_template.jinja", template, err));
    TRY(files_write_text(o->out, "mergekit_config.yml", c->text, err));
    return files_write_text(o->out, "run.json", o->run_json, err);
}

static enum cb_status combine_models(struct combining *c, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    const struct merge_method *method = merge_method_find(c->recipe->method);
    const char *tokenizer;
    struct merge_report report;
    if (!method)
        FAIL(err, CB_E_NAME, "%s: merge_method '%.60s': unknown; `cambium list merges` shows them", c->recipe->name, c->recipe->method);
    if (c->recipe->chat_template && strcmp(c->recipe->chat_template, "auto") && !strchr(c->recipe->chat_template, '{'))
        FAIL(err, CB_E_UNSUPPORTED, "%s: chat_template '%.60s': wanted auto, or the template itself", c->recipe->name,
             c->recipe->chat_template);
    TRY(merge_recipe_check(c->recipe, method->options, merge_option_known, warn, c->engine, err));
    TRY(merge_plan_open(&c->plan, c->recipe, method, combine_format(o->out), err));
    TRY(check_vocabularies(c, &tokenizer, err));
    struct merge_run run = {.pool = c->engine->pool,
                            .seed = c->engine->options.seed,
                            .progress = progress,
                            .user = c->engine,
                            .shard_bytes = o->shard_bytes ? o->shard_bytes : SHARD_BYTES};
    TRY(combine_inputs_open(&c->inputs, c->engine, o, &c->plan, err));
    run.alignment = combine_alignment(&c->inputs);
    run.statistics = combine_statistics(&c->inputs);
    if (gguf_is_path(o->out)) {
        struct combine_gguf file = {.path = o->out, .vocabulary = tokenizer, .run = &run, .max_bytes = o->shard_bytes};
        TRY(combine_recipe_type(&file.recipe, c->recipe, err));
        TRY(combine_write_gguf(c->engine, &c->plan, &file, &report, err));
    } else {
        TRY(merge_write(&c->plan, &run, o->out, &report, err));
        TRY(write_rest(c, tokenizer, err));
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

static enum cb_status combine_modules(struct combining *c, struct cb_err *err) {
    const struct cb_combine_options *o = c->o;
    struct tensors *base = NULL;
    struct lora_report report;
    if (o->align || o->n_text) FAIL(err, CB_E_USAGE, "merge: --align and --text are for models; found modules");
    if (c->recipe->base) TRY(tensors_open(&base, c->recipe->base, err));
    struct lora_run run = {.pool = c->engine->pool, .seed = c->engine->options.seed, .base = base, .warn = warn, .user = c->engine};
    enum cb_status status = lora_merge(c->recipe, &run, o->out, &report, err);
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
    enum cb_status status = read_recipe(&c, err);
    if (status == CB_OK) status = is_of_modules(c.recipe) ? combine_modules(&c, err) : combine_models(&c, err);
    result->peak_bytes = engine_peak_bytes();
    combine_inputs_close(&c.inputs);
    merge_plan_close(&c.plan);
    merge_recipe_destroy(&c.recipe);
    json_decref(c.root);
    free(c.text);
    return status;
}
