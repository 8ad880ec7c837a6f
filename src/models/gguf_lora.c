/* LoRA in GGUF: tensors named as the base's, with .lora_a (r,in) and .lora_b (out,r); y += s B(A x), s = alpha / r, or 1 where alpha is 0. */
#include "models/gguf_lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

enum { NAME = 256 };

bool gguf_is_adapter(struct gguf *g) {
    const char *type = NULL;
    struct cb_err quiet = {0};
    return gguf_get_str(&type, g, "general.type", false, &quiet) == CB_OK && type && !strcmp(type, "adapter");
}

/* ---- reading */

/* One pair of matrices. */
struct pair {
    const struct tensor *a, *b;  // (r,in), (out,r)
    char base[NAME];  // the tensor that it changes, in the file
};

static bool ends(const char *text, const char *end, char base[NAME]) {
    size_t n = strlen(text), m = strlen(end);
    if (n <= m || n - m >= NAME || strcmp(text + n - m, end) != 0) return false;
    memcpy(base, text, n - m);
    base[n - m] = 0;
    return true;
}

static enum cb_status pair_find(struct pair *p, const struct tensors *t, const struct tensor *one, bool *is_a, struct cb_err *err) {
    char other[NAME + 16];
    *is_a = ends(one->name, ".lora_a", p->base);
    if (!*is_a && !ends(one->name, ".lora_b", p->base))
        FAIL(err, CB_E_UNSUPPORTED, "%s: tensor %s; wanted names that end in .lora_a or .lora_b", tensors_name(t), one->name);
    snprintf(other, sizeof other, "%s.lora_%c", p->base, *is_a ? 'b' : 'a');
    const struct tensor *partner = tensors_find(t, other);
    if (!partner) FAIL(err, CB_E_FORMAT, "%s: %s has no partner %s", tensors_name(t), one->name, other);
    p->a = *is_a ? one : partner;
    p->b = *is_a ? partner : one;
    if (p->a->type.rank != 2 || p->b->type.rank != 2) FAIL(err, CB_E_SHAPE, "%s: %s: wanted two matrices", tensors_name(t), p->base);
    if (p->a->type.dim[0] != p->b->type.dim[1])
        FAIL(err, CB_E_SHAPE, "%s: %s: lora_a has rank %lld, lora_b %lld; wanted one rank", tensors_name(t), p->base,
             (long long)p->a->type.dim[0], (long long)p->b->type.dim[1]);
    return CB_OK;
}

/* Adds a tensor as f32; heads > 0: its rows lie in pairs. */
static enum cb_status add_f32(struct tensors *out, const char *name, const struct tensor *t, int64_t heads, struct cb_err *err) {
    const int64_t n = type_elements(&t->type), rows = t->type.dim[0], width = t->type.dim[1];
    if (heads && rows % (2 * heads))
        FAIL(err, CB_E_SHAPE, "%s: %lld rows; wanted %lld heads of pairs", t->name, (long long)rows, (long long)heads);
    float *value = malloc((size_t)n * 2 * sizeof *value);
    if (!value) FAIL(err, CB_E_MEMORY, "%s: out of memory", t->name);
    tensor_read_f32(value, t);
    if (heads) gguf_unpair_rows(value + n, value, rows, heads, (size_t)width * sizeof *value);
    struct map *map = NULL;
    struct cb_type type = t->type;
    type.dtype = CB_DTYPE_F32;
    enum cb_status status = map_copy(&map, value + (heads ? n : 0), (size_t)n * sizeof *value, name, err);
    if (status == CB_OK) status = tensors_add(out, name, &type, map, 0, err);
    map_release(&map);
    free(value);
    return status;
}

/* What is gathered on the way. */
struct reading {
    json_t *targets, *ranks, *alphas;
    int64_t rank;
    double alpha;
    bool turned;  // of a weight that the checkpoint has as (in,out)
};

static enum cb_status pair_read(struct reading *r, struct tensors *out, const struct pair *p, const struct gguf_arch *arch,
                                const struct model *m, struct cb_err *err) {
    char name[NAME], key[NAME + 64];
    const struct gguf_name *row = gguf_name_of_file(arch, p->base, name);
    bool ignored;
    const char *weight = row && !row->experts ? model_weight_name(m, name, &ignored) : NULL;
    char *dot = row ? strrchr(name, '.') : NULL;
    if (!weight && row && m->tied && !strcmp(p->base, "output.weight")) weight = name;
    const struct model_weight *w = weight ? model_find_weight(m, weight) : NULL;
    if (!weight || !dot || strcmp(dot, ".weight") != 0)
        FAIL(err, CB_E_NAME, "%s: no weight of this %s that it could change", p->base, m->family->name);
    if (w && (w->type.rank != 2 || w->type.dim[row->turned] != p->b->type.dim[0] || w->type.dim[!row->turned] != p->a->type.dim[1]))
        FAIL(err, CB_E_SHAPE, "%s: changes (%lld,%lld); the weight has other sides", p->base, (long long)p->b->type.dim[0],
             (long long)p->a->type.dim[1]);
    snprintf(name, sizeof name, "%s", weight);
    *strrchr(name, '.') = 0;
    const int64_t rank = p->a->type.dim[0];
    if (!r->rank) r->rank = rank;
    r->turned |= row->turned;
    json_array_append_new(r->targets, json_string(name));
    if (rank != r->rank) json_object_set_new(r->ranks, name, json_integer(rank));
    if (rank != r->rank && r->alpha == 0) json_object_set_new(r->alphas, name, json_integer(rank));
    snprintf(key, sizeof key, "base_model.model.%s.lora_A.weight", name);
    TRY(add_f32(out, key, p->a, 0, err));
    snprintf(key, sizeof key, "base_model.model.%s.lora_B.weight", name);
    return add_f32(out, key, p->b, gguf_name_heads(row, m), err);
}

static enum cb_status config_make(json_t **config, const struct reading *r, const char *task, struct cb_err *err) {
    const double alpha = r->alpha != 0 ? r->alpha : (double)r->rank;
    json_t *whole = alpha == (double)(int64_t)alpha ? json_integer((int64_t)alpha) : json_real(alpha);
    *config = json_pack("{s:s,s:s?,s:n,s:I,s:o,s:f,s:s,s:b,s:O,s:O,s:O}", "peft_type", "LORA", "task_type", task, "base_model_name_or_path",
                        "r", (json_int_t)r->rank, "lora_alpha", whole, "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", r->turned,
                        "target_modules", r->targets, "rank_pattern", r->ranks, "alpha_pattern", r->alphas);
    if (!*config) FAIL(err, CB_E_MEMORY, "lora: out of memory");
    return CB_OK;
}

static enum cb_status lora_read(struct reading *r, json_t **config, struct tensors *out, struct gguf *g, const struct gguf_arch *arch,
                                const struct model *m, struct cb_err *err) {
    const struct tensors *t = gguf_tensors(g);
    TRY(gguf_get_float(&r->alpha, g, "adapter.lora.alpha", -1e6, 1e6, true, err));
    for (int i = 0; i < tensors_count(t); i++) {
        struct pair p = {0};
        bool is_a;
        TRY(pair_find(&p, t, tensors_at(t, i), &is_a, err));
        if (is_a && m) TRY(pair_read(r, out, &p, arch, m, err));
    }
    return m ? config_make(config, r, m->class->head->task, err) : CB_OK;
}

enum cb_status gguf_lora_read(json_t **config, struct tensors **tensors, struct gguf *g, const struct model *m, struct cb_err *err) {
    const char *name = NULL, *type = NULL;
    *config = NULL;
    *tensors = NULL;
    TRY(gguf_get_str(&name, g, "general.architecture", true, err));
    TRY(gguf_get_str(&type, g, "adapter.type", true, err));
    if (strcmp(type, "lora") != 0) FAIL(err, CB_E_UNSUPPORTED, "%s: adapter.type: found %.60s; wanted lora", gguf_name(g), type);
    const struct gguf_arch *arch = m ? gguf_arch_of(m) : gguf_arch_find(name);
    if (!gguf_arch_find(name)) FAIL(err, CB_E_UNSUPPORTED, "%s: general.architecture: found %.60s; it is not known", gguf_name(g), name);
    if (!arch || strcmp(arch->name, name) != 0)
        FAIL(err, CB_E_FORMAT, "%s: general.architecture: found %s; the model is of %s", gguf_name(g), name, m->family->name);
    struct reading r = {json_array(), json_object(), json_object(), 0, 0, false};
    enum cb_status status = r.targets && r.ranks && r.alphas
                                ? tensors_create(tensors, gguf_name(g), err)
                                : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", gguf_name(g));
    if (status == CB_OK) status = lora_read(&r, config, *tensors, g, arch, m, err);
    if (status != CB_OK || !m) tensors_destroy(tensors);
    json_decref(r.targets);
    json_decref(r.ranks);
    json_decref(r.alphas);
    return status;
}
