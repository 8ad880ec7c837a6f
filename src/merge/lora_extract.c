/* Extracting a LoRA from a model that was trained whole: the best approximation of each change by its singular values (Eckart and Young 1936). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/lapack.h"
#include "base/name.h"
#include "merge/lora.h"

struct extraction {
    const struct lora_extract *o;
    struct lora_extracted *result;
    struct arena *arena;
    struct lora_out *out;
    struct tensor_item *whole;
    json_t *targets, *saved;  // sets of names, or of their last parts
    int n_out, n_whole;
    double square, lost;  // of all changes
    bool in_out, any_linear, any_bias;  // any_bias: of a layer with factors
    const char *prefix;  // that names of sites have more than those of the files ("transformer."); "": none
};

static enum cb_status out_of_memory(struct cb_err *err) { FAIL(err, CB_E_MEMORY, "extract: out of memory"); }

static const char *last_part(const char *site) { return strrchr(site, '.') ? strrchr(site, '.') + 1 : site; }

/* tuned - base as (out,in) in f64; a table of embeddings is turned, (width,rows). */
static enum cb_status change_of(const struct tensor *base, const struct tensor *tuned, bool turned, double *change, struct cb_err *err) {
    const int64_t rows = base->type.dim[0], cols = base->type.dim[1], n = rows * cols;
    float *x = malloc((size_t)n * 2 * sizeof *x);
    if (!x) return out_of_memory(err);
    tensor_read_f32(x, tuned);
    tensor_read_f32(x + n, base);
    enum cb_status status = CB_OK;
    for (int64_t i = 0; i < n && status == CB_OK; i++) {
        // f32 differences, as the merge of the module will add them
        const double d = (double)(x[i] - x[n + i]);
        change[turned ? i % cols * rows + i / cols : i] = d;
        if (!isfinite(d))
            status =
                err_set(err, CB_E_NUMERIC, __FILE__, __LINE__, "%s: found a value that is not finite; wanted finite ones", tuned->name);
    }
    free(x);
    return status;
}

/* A = sqrt(S) V', B = U sqrt(S) of the first values above epsilon, at least one. */
static enum cb_status factors(struct extraction *e, const char *site, bool embedding, double *change, int64_t out, int64_t in,
                              struct cb_err *err) {
    const int64_t k = out < in ? out : in;
    double *u = malloc((size_t)(out * k + k + k * in) * sizeof *u), *s = u + out * k, *vt = s + k;
    enum cb_status status = u ? lapack_svd(change, out, in, u, s, vt, site, err) : out_of_memory(err);
    int64_t rank = e->o->rank < k ? e->o->rank : k;
    while (status == CB_OK && rank > 1 && s[rank - 1] <= e->o->epsilon) rank--;
    struct lora_out *o = &e->out[e->n_out];
    *o = (struct lora_out){.site = site, .rank = rank, .in = in, .out = out, .embedding = embedding};
    if (status == CB_OK) {
        o->a = arena_array(e->arena, (size_t)(rank * in), sizeof *o->a);
        o->b = arena_array(e->arena, (size_t)(out * rank), sizeof *o->b);
        if (!o->a || !o->b) status = out_of_memory(err);
    }
    if (status == CB_OK) {
        for (int64_t r = 0; r < rank; r++) {
            const double root = sqrt(s[r]);
            for (int64_t j = 0; j < in; j++) o->a[r * in + j] = (float)(root * vt[r * in + j]);
            for (int64_t i = 0; i < out; i++) o->b[i * rank + r] = (float)(u[i * k + r] * root);
        }
        for (int64_t r = 0; r < k; r++) {
            e->square += s[r] * s[r];
            e->lost += r < rank ? 0 : s[r] * s[r];
        }
        // no weight is further off than the first value that was dropped
        if (rank < k) e->result->max_error = fmax(e->result->max_error, s[rank]);
        if (rank > e->result->rank) e->result->rank = rank;
        e->result->parameters += rank * (in + out);
        e->n_out++;
    }
    free(u);
    return status;
}

static enum cb_status remember(json_t *set, const char *name, struct cb_err *err) {
    if (json_object_set_new(set, name, json_null())) return out_of_memory(err);
    return CB_OK;
}

/* The site that a tensor is the weight or bias of; *part: what follows the module's name in the tensor's. */
static const struct lora_site *site_of(const struct extraction *e, const char *name, const char **part) {
    const size_t p = strlen(e->prefix), n = name_ends(name, ".weight") ? strlen(name) - 7
                                            : name_ends(name, ".bias") ? strlen(name) - 5
                                                                       : strlen(name);
    *part = name + n;
    for (int i = 0; **part && i < e->o->n_sites; i++) {
        const char *site = e->o->sites[i].name;
        if (strlen(site) == p + n && !strncmp(site + p, name, n)) return &e->o->sites[i];
    }
    return NULL;
}

/* What has no factors is stored as it was trained: under `key`, as a module of modules_to_save. */
static enum cb_status store_whole(struct extraction *e, const struct tensor *t, const char *key, struct cb_err *err) {
    if (!key) return out_of_memory(err);
    e->whole[e->n_whole++] = (struct tensor_item){.name = key, .type = t->type, .data = tensor_data(t)};
    e->result->whole++;
    return CB_OK;
}

/* Files of a bare body lack the first part of every name. */
static enum cb_status find_prefix(struct extraction *e, struct cb_err *err) {
    const char *part;
    e->prefix = "";
    for (int i = 0; i < tensors_count(e->o->base); i++)
        if (site_of(e, tensors_at(e->o->base, i)->name, &part)) return CB_OK;
    for (int i = 0; i < e->o->n_sites; i++) {
        const char *dot = strchr(e->o->sites[i].name, '.');
        char *name = dot ? arena_printf(e->arena, "%s.weight", dot + 1) : NULL;
        if (!name || !tensors_find(e->o->base, name)) continue;
        e->prefix = arena_strndup(e->arena, e->o->sites[i].name, (size_t)(dot - e->o->sites[i].name) + 1);
        return e->prefix ? CB_OK : out_of_memory(err);
    }
    FAIL(err, CB_E_NAME, "%s: no tensor of any of %d sites; wanted the weights of this model", tensors_name(e->o->base), e->o->n_sites);
}

static enum cb_status one_site(struct extraction *e, const struct lora_site *s, const struct tensor *base, const struct tensor *tuned,
                               struct cb_err *err) {
    const bool turned = s->embedding || s->in_out;
    const int64_t rows = base->type.dim[0], cols = base->type.dim[1];
    double *change = malloc((size_t)(rows * cols) * sizeof *change);
    if (!change) return out_of_memory(err);
    enum cb_status status = change_of(base, tuned, turned, change, err);
    if (status == CB_OK) status = factors(e, s->name, s->embedding, change, turned ? cols : rows, turned ? rows : cols, err);
    free(change);
    map_forget(base->map, tensor_data(base), 0, (size_t)base->bytes);
    map_forget(tuned->map, tensor_data(tuned), 0, (size_t)tuned->bytes);
    TRY(status);
    if (!s->embedding) {
        if (e->any_linear && e->in_out != s->in_out)
            FAIL(err, CB_E_UNSUPPORTED, "%s: stored otherwise than the layers before it; PEFT's fan_in_fan_out is one for all", s->name);
        e->any_linear = true;
        e->in_out = s->in_out;
    }
    // a last part may be that of a layer which is left out, too
    return remember(e->targets, e->o->exclude ? s->name : last_part(s->name), err);
}

/* Factors of a weight. The bias beside it is stored as PEFT's bias="lora_only" names it, all else as modules_to_save; layers that are left out keep the base's. */
static enum cb_status one_tensor(struct extraction *e, const struct tensor *base, struct cb_err *err) {
    const struct tensor *tuned;
    const char *part;
    char text[2][TYPE_TEXT];
    const struct lora_site *s = site_of(e, base->name, &part);
    TRY(tensors_need(&tuned, e->o->tuned, base->name, err));
    struct cb_type want = base->type;
    want.dtype = tuned->type.dtype;
    if (!type_equal(&want, &tuned->type))
        FAIL(err, CB_E_SHAPE, "%s: %s: found %s; wanted %s as in the base", tensors_name(e->o->tuned), base->name,
             type_text(&tuned->type, text[0]), type_text(&base->type, text[1]));
    if (!dtype_of(base->type.dtype)->is_float) return CB_OK;
    bool excluded = false;
    if (s && e->o->exclude) TRY(pattern_matches(e->o->exclude, s->name, &excluded, err));
    if (excluded) return CB_OK;
    const bool is_vocabulary = s && (s->embedding || (e->o->vocabulary_head && !strcmp(s->name, e->o->vocabulary_head)));
    const bool is_bias = !strcmp(part, ".bias"), is_matrix = base->type.rank == 2;
    const bool has_factors = s && (is_bias || is_matrix) && (!is_vocabulary || e->o->embeddings);
    if (has_factors && !is_bias) return one_site(e, s, base, tuned, err);
    if (e->o->skip_whole) return CB_OK;
    if (has_factors) {
        e->any_bias = true;
        return store_whole(e, tuned, arena_printf(e->arena, "base_model.model.%s.base_layer.bias", s->name), err);
    }
    // "model.norm.weight" is the module model.norm
    char *module = arena_strndup(e->arena, base->name, (size_t)(part - base->name));
    if (!module) return out_of_memory(err);
    TRY(remember(e->saved, last_part(module), err));
    return store_whole(e, tuned, arena_printf(e->arena, "base_model.model.%s%s", e->prefix, base->name), err);
}

static json_t *names_of(json_t *set) {
    json_t *list = json_array(), *value;
    const char *name;
    json_object_foreach(set, name, value) json_array_append_new(list, json_string(name));
    return list;
}

static enum cb_status extract(struct extraction *e, const char *folder, struct cb_err *err) {
    const int n = tensors_count(e->o->base);
    e->out = arena_array(e->arena, (size_t)n + 1, sizeof *e->out);
    e->whole = arena_array(e->arena, (size_t)n + 1, sizeof *e->whole);
    e->targets = json_object();
    e->saved = json_object();
    if (!e->out || !e->whole || !e->targets || !e->saved) return out_of_memory(err);
    TRY(find_prefix(e, err));
    for (int i = 0; i < n; i++) TRY(one_tensor(e, tensors_at(e->o->base, i), err));
    if (!e->n_out) FAIL(err, CB_E_ARGUMENT, "extract: no site is left; wanted linear layers");
    e->result->sites = e->n_out;
    e->result->kept = e->square > 0 ? 1 - e->lost / e->square : 1;
    json_t *config =
        json_pack("{s:s, s:s, s:b, s:o, s:o, s:s?, s:i, s:i, s:{}, s:{}, s:f, s:b, s:b, s:s}", "base_model_name_or_path", e->o->base_path,
                  "peft_type", "LORA", "use_rslora", 0, "target_modules", names_of(e->targets), "modules_to_save", names_of(e->saved),
                  "task_type", e->o->task, "r", 1, "lora_alpha", 1, "rank_pattern", "alpha_pattern", "lora_dropout", 0.0, "fan_in_fan_out",
                  (int)e->in_out, "inference_mode", 1, "bias", e->any_bias ? "lora_only" : "none");
    if (!config) return out_of_memory(err);
    if (!json_object_size(e->saved)) json_object_set_new(config, "modules_to_save", json_null());
    enum cb_status status = lora_write(folder, e->out, e->n_out, e->whole, e->n_whole, config, true, err);
    json_decref(config);
    return status;
}

enum cb_status lora_extract(const struct lora_extract *options, const char *folder, struct lora_extracted *result, struct cb_err *err) {
    struct extraction e = {.o = options, .result = result, .arena = arena_create()};
    *result = (struct lora_extracted){0};
    enum cb_status status = e.arena ? extract(&e, folder, err) : out_of_memory(err);
    json_decref(e.targets);
    json_decref(e.saved);
    arena_destroy(&e.arena);
    return status;
}
