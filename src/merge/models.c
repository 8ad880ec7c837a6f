/* Opening a recipe's models and planning the tensors of the result. */
#include "merge/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

#define CONFIG_LIMIT ((size_t)1 << 24)

/* Keys that hold a number of layers. */
static const char *const layer_keys[] = {"num_hidden_layers", "n_layer", "num_layers", "n_layers", NULL};

/* ---- names */

int64_t merge_layer_of(const char *name, size_t *begin, size_t *end) {
    for (const char *p = name; p; p = strchr(p, '.')) {
        p += *p == '.';
        const size_t n = strspn(p, "0123456789");
        if (!n || n > 6 || (p[n] && p[n] != '.')) continue;
        *begin = (size_t)(p - name);
        *end = *begin + n;
        return strtoll(p, NULL, 10);
    }
    return -1;
}

bool merge_is_vocabulary(const char *name) {
    static const char *const words[] = {"embed_tokens.", "wte.",    "word_embeddings.", "embed_in.",   "embed_out.",
                                        "lm_head.",      "shared.", "tok_embeddings.",  "predictions."};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(name, words[i])) return true;
    return false;
}

/* Whether a tensor outside the layers stands before them: gradients begin there. */
static bool is_before_layers(const char *name) {
    static const char *const words[] = {"embed", "wte", "wpe", "shared.weight"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(name, words[i]) && !strstr(name, "embed_out")) return true;
    return false;
}

enum cb_status merge_dtype(enum cb_dtype *dtype, const char *name, const char *where, struct cb_err *err) {
    static const struct {
        const char *name;
        enum cb_dtype dtype;
    } torch[] = {{"float32", CB_DTYPE_F32}, {"float16", CB_DTYPE_F16}, {"bfloat16", CB_DTYPE_BF16}, {"float64", CB_DTYPE_F64}};
    *dtype = dtype_by_name(name);
    for (size_t i = 0; i < sizeof torch / sizeof *torch; i++)
        if (!strcmp(torch[i].name, name)) *dtype = torch[i].dtype;
    if (*dtype == CB_DTYPE_COUNT || !dtype_of(*dtype)->is_float || !dtype_of(*dtype)->from_f32)
        FAIL(err, CB_E_USAGE, "%s: number type '%.60s'; wanted float32, float16, bfloat16 or float64", where, name);
    return CB_OK;
}

/* ---- models */

static bool is_model(const struct merge_plan *plan, const char *path) {
    return io_is_folder(path) || (plan->format && plan->format->is_model(path));
}

/* The folder or file as it is named from here, or from where the recipe lies. */
static enum cb_status find_folder(struct merge_plan *plan, const char *written, const char **path, struct cb_err *err) {
    const char *recipe = plan->recipe->name, *slash = strrchr(recipe, '/');
    *path = written;
    if (is_model(plan, written)) return CB_OK;
    char *beside = slash && *written != '/' ? arena_printf(plan->arena, "%.*s/%s", (int)(slash - recipe), recipe, written) : NULL;
    if (beside && is_model(plan, beside)) {
        *path = beside;
        return CB_OK;
    }
    if (strchr(written, '+'))
        FAIL(err, CB_E_UNSUPPORTED, "%s: model %s: a model with an adapter; wanted a folder (fold it first: merge MODEL --modules ADAPTER)",
             recipe, written);
    FAIL(err, CB_E_IO, "%s: model %s: no such folder here%s; wanted a model folder%s", recipe, written,
         slash ? " or beside the recipe" : "", plan->format ? " or a .gguf file" : "");
}

static enum cb_status open_folder(struct merge_plan *plan, struct merge_model *m, struct cb_err *err) {
    char *text;
    size_t n;
    m->config_path = arena_printf(plan->arena, "%s/config.json", m->path);
    if (!m->config_path) FAIL(err, CB_E_MEMORY, "%s: out of memory", m->path);
    TRY(io_read_file(&text, &n, m->config_path, CONFIG_LIMIT, err));
    enum cb_status status = json_parse_config(&m->config, text, n, m->config_path, err);
    free(text);
    TRY(status);
    TRY(tensors_open(&m->tensors, m->path, err));
    struct merge_tensor *all = arena_array(plan->arena, (size_t)tensors_count(m->tensors) + 1, sizeof *all);
    if (!all) FAIL(err, CB_E_MEMORY, "%s: out of memory", m->path);
    for (int i = 0; i < tensors_count(m->tensors); i++) {
        const struct tensor *t = tensors_at(m->tensors, i);
        all[i] = (struct merge_tensor){.name = t->name, .type = t->type, .stored = t, .offset = t->offset};
    }
    m->tensor = all;
    m->n_tensors = tensors_count(m->tensors);
    return CB_OK;
}

static const struct merge_tensor *own_tensor(const struct merge_model *m, const char *name) {
    const int64_t i = table_get(&m->by_name, name, strlen(name));
    return i < 0 ? NULL : &m->tensor[i];
}

/* Names of checkpoints of one family differ by a prefix: files of the bare body lack it. */
static enum cb_status find_prefix(struct merge_plan *plan, struct merge_model *m, struct cb_err *err) {
    const struct merge_model *first = &plan->models[0];
    m->prefix = "";
    if (m == first) return CB_OK;
    for (int i = 0; i < m->n_tensors; i++)
        if (own_tensor(first, m->tensor[i].name)) return CB_OK;
    for (int side = 0; side < 2; side++) {
        const struct merge_model *longer = side ? first : m, *shorter = side ? m : first;
        for (int i = 0; i < longer->n_tensors; i++) {
            const char *name = longer->tensor[i].name, *dot = strchr(name, '.');
            if (!dot || !own_tensor(shorter, dot + 1)) continue;
            m->prefix = arena_strndup(plan->arena, name, (size_t)(dot - name) + 1);
            m->lacks_prefix = side;
            if (!m->prefix) FAIL(err, CB_E_MEMORY, "%s: out of memory", m->path);
            return CB_OK;
        }
    }
    return CB_OK;
}

static enum cb_status add_model(struct merge_plan *plan, const char *written, struct cb_err *err) {
    struct merge_model *m = &plan->models[plan->n_models];
    const char *path;
    if (merge_plan_model(plan, written) >= 0) return CB_OK;
    if (plan->n_models > MERGE_MAX_MODELS) FAIL(err, CB_E_LIMIT, "%s: more than %d models", plan->recipe->name, MERGE_MAX_MODELS);
    TRY(find_folder(plan, written, &path, err));
    *m = (struct merge_model){.path = path, .written = written};
    plan->n_models++;
    if (io_is_folder(path))
        TRY(open_folder(plan, m, err));
    else
        TRY(plan->format->open(m, plan->arena, err));
    TRY(json_get_bool(&m->tied, m->config, m->config_path, "tie_word_embeddings", false, err));
    m->vocab = json_integer_value(json_object_get(m->config, "vocab_size"));
    for (int i = 0; i < m->n_tensors; i++) {
        size_t begin, end;
        const char *name = m->tensor[i].name;
        const int64_t layer = merge_layer_of(name, &begin, &end);
        if (layer >= m->n_layers) m->n_layers = layer + 1;
        TRY(table_put(&m->by_name, name, strlen(name), i, err));
    }
    TRY(find_prefix(plan, m, err));
    const char *type = json_string_value(json_object_get(m->config, "model_type"));
    const char *want = json_string_value(json_object_get(plan->models[0].config, "model_type"));
    if (type && want && strcmp(type, want) && !(plan->format && plan->format->same_kind(type, want)))
        FAIL(err, CB_E_SHAPE, "%s: a %s; wanted a %s as %s", m->config_path, type, want, plan->models[0].path);
    return CB_OK;
}

int merge_plan_model(const struct merge_plan *plan, const char *written) {
    for (int i = 0; written && i < plan->n_models; i++)
        if (!strcmp(plan->models[i].written, written)) return i;
    return -1;
}

int merge_plan_base(const struct merge_plan *plan, const struct merge_slice *slice) {
    return plan->method->base == MERGE_BASE_NONE ? -1 : merge_plan_model(plan, slice->base);
}

/* The embeddings of a model whose head is tied to them. */
static const struct merge_tensor *tied_head(const struct merge_model *m) {
    static const char *const names[] = {"embed_tokens.weight", "wte.weight", "word_embeddings.weight", "shared.weight", "embed_in.weight"};
    for (int i = 0; m->tied && i < m->n_tensors; i++) {
        const struct merge_tensor *t = &m->tensor[i];
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            const size_t n = strlen(t->name), e = strlen(names[k]);
            if (n >= e && !strcmp(t->name + n - e, names[k])) return t;
        }
    }
    return NULL;
}

/* The model's tensor of that name of the first model. */
static const struct merge_tensor *find_tensor(const struct merge_model *m, const char *name) {
    const struct merge_tensor *t = own_tensor(m, name);
    char other[1024];
    if (!t && *m->prefix) {
        const size_t n = strlen(m->prefix);
        if (!m->lacks_prefix)
            snprintf(other, sizeof other, "%s%s", m->prefix, name);
        else if (!strncmp(name, m->prefix, n))
            snprintf(other, sizeof other, "%s", name + n);
        else
            other[0] = 0;
        t = own_tensor(m, other);
    }
    return t || !strstr(name, "lm_head.weight") ? t : tied_head(m);
}

/* The axis of a tensor that counts tokens: rows of embeddings and heads, biases of heads; -1: none. */
static int vocabulary_axis(const struct merge_model *m, const struct merge_tensor *t) {
    const struct cb_type *type = &t->type;
    const bool is_named = merge_is_vocabulary(t->name) || strstr(t->name, "final_logits_bias");
    if (!m->vocab || !is_named || strstr(t->name, "transform") || type->rank < 1 || type->rank > 2) return -1;
    if (type->dim[0] == m->vocab) return 0;
    return type->rank == 2 && type->dim[0] == 1 && type->dim[1] == m->vocab ? 1 : -1;
}

/* ---- tensors of the result */

static bool same_shape(const struct cb_type *a, const struct cb_type *b) {
    if (a->rank != b->rank) return false;
    for (int d = 0; d < a->rank; d++)
        if (a->dim[d] != b->dim[d]) return false;
    return true;
}

static bool is_real(enum cb_dtype dtype) { return dtype_of(dtype)->is_float || dtype_of(dtype)->is_quantised; }

static enum cb_status check_shape(const struct merge_model *first, const struct merge_tensor *a, const struct merge_model *m,
                                  const struct merge_tensor *b, int axis, struct cb_err *err) {
    char text[2][TYPE_TEXT];
    struct cb_type type = b->type;
    // rows by token may differ in number, where both have them
    const bool fits = axis < 0 || vocabulary_axis(m, b) == axis;
    if (axis >= 0 && fits) type.dim[axis] = a->type.dim[axis];
    if (fits && same_shape(&a->type, &type) && is_real(a->type.dtype) == is_real(b->type.dtype)) return CB_OK;
    FAIL(err, CB_E_SHAPE, "%s: %s: found %s; wanted %s as in %s%s", m->path, b->name, type_text(&b->type, text[0]),
         type_text(&a->type, text[1]), first->path,
         merge_is_vocabulary(b->name) ? " (models of different vocabularies want tokenizer_source)" : "");
}

/* The name of a source's tensor: that of the slice's first model with this one's layer in it. */
static const char *renumber(struct merge_plan *plan, const char *name, int64_t layer) {
    size_t begin = 0, end = 0;
    if (layer < 0 || merge_layer_of(name, &begin, &end) < 0) return name;
    return arena_printf(plan->arena, "%.*s%lld%s", (int)begin, name, (long long)layer, name + end);
}

/* The number type of a result's tensor in a folder: as the recipe says, else as the donor (the base, the first) has it, blocks as f32. */
static enum cb_status output_dtype(const struct merge_plan *plan, enum cb_dtype stored, enum cb_dtype *dtype, struct cb_err *err) {
    const struct merge_recipe *r = plan->recipe;
    *dtype = stored;
    if (!is_real(stored)) return CB_OK;
    if (dtype_of(stored)->is_quantised || !dtype_of(stored)->from_f32) *dtype = CB_DTYPE_F32;
    if (plan->format && plan->format->chooses_types) return CB_OK;
    return r->out_dtype || r->dtype ? merge_dtype(dtype, r->out_dtype ? r->out_dtype : r->dtype, r->name, err) : CB_OK;
}

/* One more tensor, named as in the slice's first model there; layer: of the result, at: in the slice. */
static enum cb_status add_output(struct merge_plan *plan, const struct merge_slice *slice, const char *name, int64_t layer, int64_t at,
                                 double t, struct cb_err *err) {
    const int n = slice->n_sources, base = merge_plan_base(plan, slice);
    const bool has_extra = base >= 0 && !plan->recipe->is_sliced;
    if (plan->n_outputs == plan->room) {
        plan->room = plan->room ? 2 * plan->room : 256;
        struct merge_output *more = realloc(plan->outputs, (size_t)plan->room * sizeof *more);
        if (!more) FAIL(err, CB_E_MEMORY, "merge: out of memory");
        plan->outputs = more;
    }
    struct merge_output *o = &plan->outputs[plan->n_outputs];
    *o = (struct merge_output){.name = renumber(plan, name, layer), .slice = slice, .t = t, .layer = layer};
    o->tensor = arena_array(plan->arena, (size_t)n + 1, sizeof *o->tensor);
    o->own = arena_array(plan->arena, (size_t)n + 1, sizeof *o->own);
    if (!o->name || !o->tensor || !o->own) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    const struct merge_model *first = NULL;
    int donor = 0, axis = -1;
    for (int i = 0; i < n + has_extra; i++) {
        const struct merge_source *s = i < n ? &slice->sources[i] : NULL;
        const struct merge_model *m = s ? &plan->models[merge_plan_model(plan, s->model)] : &plan->models[base];
        const char *own = renumber(plan, name, layer < 0 ? -1 : (s && s->first >= 0 ? s->first : 0) + at);
        if (!own) FAIL(err, CB_E_MEMORY, "merge: out of memory");
        o->own[i] = own;
        if (!(o->tensor[i] = find_tensor(m, own)))
            FAIL(err, CB_E_NAME, "%s: no tensor %s, which %s has; wanted models of the same tensors", m->path, own,
                 first ? first->path : plan->models[0].path);
        if (first)
            TRY(check_shape(first, o->tensor[0], m, o->tensor[i], axis, err));
        else
            first = m, axis = plan->vocabulary ? vocabulary_axis(m, o->tensor[0]) : -1;
        if (m == &plan->models[plan->donor]) donor = i;
    }
    o->type = o->tensor[0]->type;
    if (axis >= 0) {
        // rows by token, from all models that are open
        o->type.dim[axis] = plan->vocabulary->n;
        o->rows_of = arena_array(plan->arena, (size_t)plan->n_models, sizeof *o->rows_of);
        if (!o->rows_of) FAIL(err, CB_E_MEMORY, "merge: out of memory");
        for (int i = 0; i < plan->n_models; i++) {
            const struct merge_model *m = &plan->models[i];
            const struct merge_tensor *rows = find_tensor(m, name);
            if (rows && vocabulary_axis(m, rows) == axis) o->rows_of[i] = rows;
        }
    }
    o->stored = o->tensor[donor]->type.dtype;
    TRY(output_dtype(plan, o->stored, &o->type.dtype, err));
    plan->n_outputs++;
    return CB_OK;
}

/* A head that its own model has tied is not stored; files may hold it all the same. */
static bool is_left_out(const struct merge_plan *plan, const char *name) {
    return plan->models[plan->donor].tied && strstr(name, "lm_head.weight") && tied_head(&plan->models[plan->donor]);
}

/* Layers of a slice, tensor by tensor as its first model names them. */
static enum cb_status add_slice(struct merge_plan *plan, const struct merge_slice *slice, struct cb_err *err) {
    const struct merge_source *s = &slice->sources[0];
    const struct merge_model *m = &plan->models[merge_plan_model(plan, s->model)];
    const int64_t first = s->first < 0 ? 0 : s->first, n = s->first < 0 ? m->n_layers : s->last - s->first;
    for (int i = 0; i < slice->n_sources; i++) {
        const struct merge_source *other = &slice->sources[i];
        const struct merge_model *o = &plan->models[merge_plan_model(plan, other->model)];
        if (other->last > o->n_layers || (other->last < 0 && o->n_layers != n))
            FAIL(err, CB_E_SHAPE, "%s: %s: found %lld layers; wanted %lld", plan->recipe->name, o->path, (long long)o->n_layers,
                 (long long)(other->last < 0 ? n : other->last));
    }
    for (int i = 0; i < m->n_tensors; i++) {
        const char *name = m->tensor[i].name;
        size_t begin, end;
        const int64_t layer = merge_layer_of(name, &begin, &end);
        if (layer < first || layer >= first + n) continue;
        const int64_t at = layer - first;
        TRY(add_output(plan, slice, name, plan->n_layers + at, at, n > 1 ? (double)at / (double)(n - 1) : 1, err));
    }
    plan->n_layers += n;
    return CB_OK;
}

/* Tensors outside the layers: embeddings of the first slice's models, the rest of the last slice's. */
static enum cb_status add_outside(struct merge_plan *plan, bool before, struct cb_err *err) {
    const struct merge_slice *slice = &plan->recipe->slices[before ? 0 : plan->recipe->n_slices - 1];
    const struct merge_model *m = &plan->models[merge_plan_model(plan, slice->sources[0].model)];
    for (int i = 0; i < m->n_tensors; i++) {
        const char *name = m->tensor[i].name;
        size_t begin, end;
        if (merge_layer_of(name, &begin, &end) >= 0 || is_before_layers(name) != before || is_left_out(plan, name)) continue;
        TRY(add_output(plan, slice, name, -1, 0, 0, err));
    }
    return CB_OK;
}

/* Stacks of two kinds (encoder and decoder) have no single order of layers to cut. */
static enum cb_status check_stacks(const struct merge_plan *plan, struct cb_err *err) {
    for (int k = 0; k < plan->n_models && plan->recipe->is_sliced; k++) {
        const struct merge_model *m = &plan->models[k];
        const char *stack = NULL;
        size_t length = 0, begin, end;
        for (int i = 0; i < m->n_tensors; i++) {
            const char *name = m->tensor[i].name;
            if (merge_layer_of(name, &begin, &end) < 0) continue;
            if (stack && (begin != length || strncmp(stack, name, length)))
                FAIL(err, CB_E_UNSUPPORTED, "%s: layers %.*s* and %.*s*; slices want models of one stack", m->path, (int)length, stack,
                     (int)begin, name);
            stack = name;
            length = begin;
        }
    }
    return CB_OK;
}

/* Tensors that others have and the first model lacks. */
static enum cb_status check_others(const struct merge_plan *plan, struct cb_err *err) {
    if (plan->recipe->is_sliced) return CB_OK;
    const struct merge_model *first = &plan->models[merge_plan_model(plan, plan->recipe->slices[0].sources[0].model)];
    for (int k = 0; k < plan->n_models; k++) {
        const struct merge_model *m = &plan->models[k];
        for (int i = 0; i < m->n_tensors && m != first; i++) {
            const char *name = m->tensor[i].name;
            char other[1024];
            snprintf(other, sizeof other, "%s%s", m->lacks_prefix ? m->prefix : "", name);
            const size_t n = m->lacks_prefix || strncmp(name, m->prefix, strlen(m->prefix)) ? 0 : strlen(m->prefix);
            if (find_tensor(first, other + n) || is_left_out(plan, name)) continue;
            FAIL(err, CB_E_NAME, "%s: no tensor %s, which %s has; wanted models of the same tensors", first->path, other + n, m->path);
        }
    }
    return CB_OK;
}

/* The base is found among the sources of each slice; a whole merge may have it beside them. */
static enum cb_status check_base(const struct merge_plan *plan, struct cb_err *err) {
    const struct merge_recipe *r = plan->recipe;
    const enum merge_base kind = plan->method->base;
    for (int i = 0; i < r->n_slices && kind != MERGE_BASE_NONE; i++) {
        const struct merge_slice *slice = &r->slices[i];
        bool found = !r->is_sliced || !slice->base;
        if (!slice->base && kind != MERGE_BASE_OPTIONAL)
            FAIL(err, CB_E_USAGE, "%s: %s: no base_model; wanted one", r->name, plan->method->name);
        for (int s = 0; s < slice->n_sources && !found; s++) found = !strcmp(slice->sources[s].model, slice->base);
        if (!found)
            FAIL(err, CB_E_USAGE, "%s: slices[%d]: base_model %s is not among its sources; wanted it there", r->name, i, slice->base);
    }
    return CB_OK;
}

static enum cb_status open_all(struct merge_plan *plan, struct cb_err *err) {
    const struct merge_recipe *r = plan->recipe;
    if (!(plan->arena = arena_create())) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    for (int i = 0; i < r->n_slices; i++)
        for (int s = 0; s < r->slices[i].n_sources; s++) TRY(add_model(plan, r->slices[i].sources[s].model, err));
    if (r->base) TRY(add_model(plan, r->base, err));
    plan->donor = r->base ? merge_plan_model(plan, r->base) : 0;
    TRY(check_base(plan, err));
    TRY(check_stacks(plan, err));
    if (plan->format && plan->format->vocabulary) TRY(plan->format->vocabulary(plan->format->context, plan, err));
    TRY(add_outside(plan, true, err));
    for (int i = 0; i < r->n_slices; i++) TRY(add_slice(plan, &r->slices[i], err));
    TRY(add_outside(plan, false, err));
    if (!plan->n_outputs) FAIL(err, CB_E_FORMAT, "%s: %s has no tensors", r->name, plan->models[0].path);
    return check_others(plan, err);
}

enum cb_status merge_plan_open(struct merge_plan *plan, const struct merge_recipe *recipe, const struct merge_method *method,
                               const struct merge_format *format, struct cb_err *err) {
    *plan = (struct merge_plan){.recipe = recipe, .method = method, .format = format};
    return open_all(plan, err);
}

void merge_plan_close(struct merge_plan *plan) {
    for (int i = 0; i < plan->n_models; i++) {
        struct merge_model *m = &plan->models[i];
        if (m->file) plan->format->close(m);
        tensors_destroy(&m->tensors);
        table_deinit(&m->by_name);
        json_decref(m->config);
    }
    plan->n_models = 0;
    free(plan->outputs);
    plan->outputs = NULL;
    arena_destroy(&plan->arena);
}

/* ---- configuration */

/* Lists of one entry a layer ("layer_types") follow the layers. */
static enum cb_status config_lists(const struct merge_plan *plan, json_t *config, int64_t n_old, struct cb_err *err) {
    const struct merge_recipe *r = plan->recipe;
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(config, next, key, value) {
        if (!json_is_array(value) || (int64_t)json_array_size(value) != n_old || strncmp(key, "layer", 5)) continue;
        json_t *list = json_array();
        for (int i = 0; i < r->n_slices; i++) {
            const struct merge_source *s = &r->slices[i].sources[0];
            const json_t *from = json_object_get(plan->models[merge_plan_model(plan, s->model)].config, key);
            for (int64_t l = s->first; l < s->last; l++) json_array_append(list, json_array_get(from, (size_t)l));
        }
        if (!list || json_object_set_new(config, key, list)) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    }
    return CB_OK;
}

enum cb_status merge_plan_config(const struct merge_plan *plan, json_t **out, struct cb_err *err) {
    const struct merge_recipe *r = plan->recipe;
    const struct merge_model *donor = &plan->models[plan->donor];
    json_t *config = *out = json_deep_copy(donor->config);
    if (!config) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    for (int i = 0; r->is_sliced && layer_keys[i]; i++) {
        if (!json_is_integer(json_object_get(config, layer_keys[i]))) continue;
        const int64_t old = (int64_t)json_integer_value(json_object_get(config, layer_keys[i]));
        if (json_object_set_new(config, layer_keys[i], json_integer(plan->n_layers))) FAIL(err, CB_E_MEMORY, "merge: out of memory");
        TRY(config_lists(plan, config, old, err));
    }
    if (plan->vocabulary && json_object_set_new(config, "vocab_size", json_integer(plan->vocabulary->n)))
        FAIL(err, CB_E_MEMORY, "merge: out of memory");
    // what the weights are stored in, under the name that the donor's file has for it
    enum cb_dtype dtype = CB_DTYPE_COUNT;
    for (int i = 0; i < plan->n_outputs && dtype == CB_DTYPE_COUNT; i++)
        if (dtype_of(plan->outputs[i].type.dtype)->is_float) dtype = plan->outputs[i].type.dtype;
    const char *name = dtype == CB_DTYPE_F32    ? "float32"
                       : dtype == CB_DTYPE_F16  ? "float16"
                       : dtype == CB_DTYPE_BF16 ? "bfloat16"
                       : dtype == CB_DTYPE_F64  ? "float64"
                                                : NULL;
    const char *key = json_object_get(config, "torch_dtype") ? "torch_dtype" : "dtype";
    if (name && json_object_set_new(config, key, json_string(name))) FAIL(err, CB_E_MEMORY, "merge: out of memory");
    return CB_OK;
}
