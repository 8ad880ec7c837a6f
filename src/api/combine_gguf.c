/* Merging models of GGUF files, and into one: tensors under their checkpoints' names, results in the stored types. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/combine.h"
#include "api/convert.h"
#include "io/file.h"

/* ---- reading */

/* An open file and where its weights lie. */
struct source {
    struct gguf *gguf;
    struct model *model;
    struct gguf_place *places;
};

static bool is_model(const char *path) { return gguf_is_path(path) && io_is_file(path); }

static void close_source(struct merge_model *m) {
    struct source *s = m->file;
    model_destroy(&s->model);
    gguf_destroy(&s->gguf);
    free(s->places);
    free(s);
    m->file = NULL;
}

static enum cb_status open_source(struct merge_model *m, struct arena *arena, struct cb_err *err) {
    const struct gguf_arch *arch;
    struct source *s = m->file = calloc(1, sizeof *s);
    if (!s) FAIL(err, CB_E_MEMORY, "%s: out of memory", m->path);
    TRY(gguf_open(&s->gguf, m->path, err));
    TRY(gguf_model(&s->model, NULL, s->gguf, err));
    TRY(gguf_arch_of_file(&arch, s->gguf, err));
    const int n = s->model->n_weights;
    struct merge_tensor *all = arena_array(arena, (size_t)n + 1, sizeof *all);
    s->places = calloc((size_t)n + 1, sizeof *s->places);
    if (!all || !s->places) FAIL(err, CB_E_MEMORY, "%s: out of memory for %d weights", m->path, n);
    TRY(gguf_find_places(s->places, arch, s->model, gguf_tensors(s->gguf), err));
    for (int i = 0; i < n; i++) {
        const struct gguf_place *p = &s->places[i];
        all[i] = (struct merge_tensor){.name = model_file_name(s->model, p->weight->name), .type = p->weight->type, .stored = p->tensor};
        all[i].type.dtype = p->tensor->type.dtype;
        all[i].offset = gguf_place_offset(p);
        all[i].place = gguf_place_is_plain(p, s->model) ? NULL : p;
    }
    m->tensor = all;
    m->n_tensors = n;
    m->config = json_incref(s->model->config);
    m->config_path = m->path;
    return CB_OK;
}

static void read_source(const struct merge_model *m, const struct merge_tensor *t, float *out) {
    const struct source *s = m->file;
    gguf_place_read(out, t->place, s->model);
}

/* The architecture that files of a model_type name; NULL: none. */
static const char *arch_name(const char *model_type) {
    const struct family *family = model_family(model_type);
    const struct gguf_arch *arch = family ? gguf_arch_of(&(struct model){.family = family}) : NULL;
    return arch ? arch->name : NULL;
}

static bool same_kind(const char *model_type, const char *other) {
    const char *a = arch_name(model_type), *b = arch_name(other);
    return a && b && !strcmp(a, b);
}

struct merge_format combine_format(const char *out, struct combine_vocabulary *vocabulary) {
    return (struct merge_format){.is_model = is_model,
                                 .open = open_source,
                                 .close = close_source,
                                 .read = read_source,
                                 .same_kind = same_kind,
                                 .vocabulary = combine_find_vocabulary,
                                 .context = vocabulary,
                                 .chooses_types = gguf_is_path(out)};
}

/* ---- writing */

struct writing {
    const struct combine_gguf *o;
    const struct merge_plan *plan;
    struct model *model;
    struct store_entry *entries;  // of each weight: no data, the type of the donor's
    const struct merge_output **outputs;  // of each weight
    struct gguf_part *parts;
    struct merge_reader *reader;
    int64_t done, total;
};

/* Which tensor of the merge each weight of the result is. */
static enum cb_status find_outputs(struct writing *w, struct cb_err *err) {
    struct model *m = w->model;
    const struct merge_plan *plan = w->plan;
    char text[2][TYPE_TEXT];
    for (int i = 0; i < plan->n_outputs; i++) {
        bool ignored;
        const struct merge_output *o = &plan->outputs[i];
        const char *name = model_weight_name(m, o->name, &ignored);
        const struct model_weight *weight = name ? model_find_weight(m, name) : NULL;
        if (!weight && !ignored) FAIL(err, CB_E_NAME, "%s: no weight of this %s", o->name, m->family->name);
        if (!weight) continue;
        struct cb_type have = o->type;
        have.dtype = weight->type.dtype;
        if (!type_equal(&have, &weight->type))
            FAIL(err, CB_E_SHAPE, "%s: found %s; wanted %s by the configuration", o->name, type_text(&have, text[0]),
                 type_text(&weight->type, text[1]));
        w->outputs[weight - m->weights] = o;
    }
    for (int i = 0; i < m->n_weights; i++)
        if (!w->outputs[i] && !m->weights[i].is_optional)
            FAIL(err, CB_E_NAME, "%s: none of the models' tensors is this weight of a %s", m->weights[i].name, m->family->name);
    return CB_OK;
}

static enum cb_status choose_types(struct writing *w, struct cb_err *err) {
    const struct model *m = w->model;
    for (int i = 0; i < m->n_weights; i++) {
        if (!w->outputs[i]) continue;
        w->entries[i] = (struct store_entry){.name = m->weights[i].name, .type = m->weights[i].type};
        w->entries[i].type.dtype = w->outputs[i]->stored;
        w->parts[i].entry = &w->entries[i];
        w->total += type_bytes(&m->weights[i].type);
    }
    TRY(gguf_choose(w->parts, gguf_arch_of(m), m, w->o->recipe, err));
    for (int i = 0; i < m->n_weights; i++) {
        const struct dtype *kind = dtype_of(w->parts[i].dtype);
        if (w->parts[i].entry && !kind->from_f32)
            FAIL(err, CB_E_DTYPE, "%s: %s has no encoder; wanted --dtype with a type that has one", m->weights[i].name, kind->name);
    }
    return CB_OK;
}

static enum cb_status read_values(void *context, const char *weight, int64_t first, int64_t n, float *out, struct cb_err *err) {
    struct writing *w = context;
    const struct merge_run *run = w->o->run;
    const struct model_weight *at = model_find_weight(w->model, weight);
    TRY(merge_reader_read(w->reader, w->outputs[at - w->model->weights], first, n, out, err));
    w->done += n * (int64_t)sizeof *out;
    if (run->progress && !run->progress(run->user, w->done, w->total)) FAIL(err, CB_E_STOPPED, "merge: stopped on request");
    return CB_OK;
}

static enum cb_status write_file(struct writing *w, struct cb_engine *engine, struct merge_report *report, struct cb_err *err) {
    const struct combine_gguf *o = w->o;
    const struct gguf_values values = {read_values, w};
    const struct gguf_origin from = {w->plan->models[w->plan->donor].path, o->vocabulary};
    const struct gguf_target to = {.path = o->path, .max_bytes = o->max_bytes, .pool = engine->pool, .values = &values};
    struct gguf_saved saved = {0};
    json_t *config = NULL;
    enum cb_status status = merge_plan_config(w->plan, &config, err);
    if (status == CB_OK) status = combine_move_tokens(config, w->plan, err);
    if (status == CB_OK) status = model_from_config(&w->model, config, from.path, err);
    json_decref(config);
    TRY(status);
    if (!gguf_arch_of(w->model)) FAIL(err, CB_E_UNSUPPORTED, "%s: no GGUF architecture", w->model->family->name);
    const size_t n = (size_t)w->model->n_weights + 1;
    w->entries = calloc(n, sizeof *w->entries);
    w->outputs = calloc(n, sizeof *w->outputs);
    w->parts = calloc(n, sizeof *w->parts);
    if (!w->entries || !w->outputs || !w->parts) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    TRY(find_outputs(w, err));
    TRY(choose_types(w, err));
    TRY(merge_reader_create(&w->reader, w->plan, o->run, report, err));
    TRY(convert_save_gguf(engine, &from, &to, w->model, w->parts, o->recipe, &saved, err));
    merge_reader_destroy(&w->reader);
    report->tensors = saved.n_tensors;
    report->parameters = model_parameters(w->model);
    report->bytes = saved.bytes;
    report->max_error = saved.max_error;
    report->error_squares = saved.error_squares;
    report->value_squares = saved.value_squares;
    return CB_OK;
}

enum cb_status combine_write_gguf(struct cb_engine *engine, const struct merge_plan *plan, const struct combine_gguf *options,
                                  struct merge_report *report, struct cb_err *err) {
    struct writing w = {.o = options, .plan = plan};
    enum cb_status status = write_file(&w, engine, report, err);
    merge_reader_destroy(&w.reader);
    model_destroy(&w.model);
    free(w.entries);
    free(w.outputs);
    free(w.parts);
    return status;
}

enum cb_status combine_recipe_type(const struct gguf_recipe **recipe, const struct merge_recipe *r, struct cb_err *err) {
    const char *name = r->out_dtype ? r->out_dtype : r->dtype;
    enum cb_dtype dtype;
    char known[300];
    *recipe = name ? gguf_recipe_find(name) : NULL;
    if (!name || *recipe) return CB_OK;
    // mergekit's names
    struct cb_err ignored = {0};
    if (merge_dtype(&dtype, name, r->name, &ignored) == CB_OK) *recipe = gguf_recipe_find(dtype_of(dtype)->name);
    if (!*recipe) FAIL(err, CB_E_USAGE, "%s: number type '%.60s'; wanted one of %s", r->name, name, gguf_recipe_names(known));
    return CB_OK;
}
