/* Loading a model from a GGUF file: options, then every tensor under its checkpoint name, in the type in which it is stored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/decoder.h"
#include "models/gguf.h"

enum { NAME = 256 };

/* ---- comparing */

/* Names of one kind of trouble, the first ones as text. */
struct trouble {
    int n;
    size_t used;
    char text[260];
};
static void trouble_add(struct trouble *t, const char *name) {
    t->n++;
    if (t->used + strlen(name) + 3 < sizeof t->text)
        t->used += (size_t)snprintf(t->text + t->used, sizeof t->text - t->used, "%s%s", t->used ? ", " : "", name);
}

/* The shape in which the file should hold a weight. */
static struct cb_type wanted_type(const struct model *m, const struct gguf_place *p, enum cb_dtype dtype) {
    struct cb_type type = p->weight->type;
    type.dtype = dtype;
    if (p->row->turned && type.rank == 2) {
        int64_t rows = type.dim[1];
        type.dim[1] = type.dim[0];
        type.dim[0] = rows;
    }
    if (p->row->experts) type = type_make(dtype, 3, (int64_t[]){decoder_options(m)->experts.n, type.dim[0], type.dim[1]});
    if (p->row->flat) type = type_make(dtype, 1, &type.dim[1]);
    return type;
}

enum cb_status gguf_find_places(struct gguf_place *places, const struct gguf_arch *arch, const struct model *m, const struct tensors *t,
                                struct cb_err *err) {
    struct trouble missing = {0}, unexpected = {0}, wrong = {0};
    char name[NAME], both[400], text[2][TYPE_TEXT];
    for (int i = 0; i < m->n_weights; i++) {
        struct gguf_place *p = &places[i];
        p->weight = &m->weights[i];
        p->row = gguf_name_of_weight(arch, p->weight->name, m->family->prefix, name, &p->expert);
        p->tensor = p->row ? tensors_find(t, name) : NULL;
        if (!p->tensor) {
            trouble_add(&missing, p->row ? name : p->weight->name);
            continue;
        }
        struct cb_type want = wanted_type(m, p, p->tensor->type.dtype);
        const struct dtype *kind = dtype_of(want.dtype);
        // pairs of heads are taken apart by rows, of vectors by single numbers
        const bool is_cut = want.rank == 1 && kind->is_quantised && gguf_name_heads(p->row, m);
        if (type_equal(&want, &p->tensor->type) && (kind->is_float || kind->is_quantised) && !is_cut) continue;
        snprintf(both, sizeof both, "%.120s: found %s, wanted %s", name, type_text(&p->tensor->type, text[0]), type_text(&want, text[1]));
        trouble_add(&wrong, both);
    }
    for (int i = 0; i < m->n_weights; i++) {
        const struct gguf_place *p = &places[i];
        const int64_t heads = p->tensor ? gguf_name_heads(p->row, m) : 0, rows = p->tensor ? p->tensor->type.dim[0] : 0;
        if (heads && rows % (2 * heads))
            FAIL(err, CB_E_SHAPE, "%s: %lld rows; wanted %lld heads of pairs", p->tensor->name, (long long)rows, (long long)heads);
    }
    for (int i = 0; i < tensors_count(t); i++) {
        const char *file = tensors_at(t, i)->name;
        bool ignored = false;
        // a head that repeats the embedding, and divisors of frequencies, have been seen
        bool seen = !strcmp(file, "rope_freqs.weight") || (arch->long_factors && !strncmp(file, "rope_factors_", 13)) ||
                    (m->tied && !strcmp(file, "output.weight"));
        if (!seen && (!gguf_name_of_file(arch, file, name) || !model_weight_name(m, name, &ignored))) trouble_add(&unexpected, file);
    }
    if (!missing.n && !unexpected.n && !wrong.n) return CB_OK;
    FAIL(err, CB_E_FORMAT, "%s: %d missing (%s), %d unexpected (%s), %d of another shape (%s); wanted the %d weights of this %s",
         tensors_name(t), missing.n, missing.text, unexpected.n, unexpected.text, wrong.n, wrong.text, m->n_weights, m->family->name);
}

/* ---- reading */

int64_t gguf_place_offset(const struct gguf_place *p) {
    struct cb_type type = p->weight->type;
    type.dtype = p->tensor->type.dtype;
    return p->tensor->offset + (p->row->experts ? p->expert * type_bytes(&type) : 0);
}

static bool is_turned(const struct gguf_place *p) { return p->row->turned && p->tensor->type.rank == 2; }

bool gguf_place_is_plain(const struct gguf_place *p, const struct model *m) {
    return !gguf_name_heads(p->row, m) && !is_turned(p) && p->row->plus == 0;
}

/* The transpose of what lies in the file. */
static void read_turned(float *out, const struct gguf_place *p) {
    const struct tensor *t = p->tensor;
    const struct dtype *d = dtype_of(t->type.dtype);
    const int64_t rows = t->type.dim[0], columns = t->type.dim[1];
    float part[1024];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c += 1024) {
            const int64_t n = columns - c < 1024 ? columns - c : 1024;
            d->to_f32(part, (const char *)tensor_data(t) + (r * columns + c) / d->block * d->block_bytes, n);
            for (int64_t k = 0; k < n; k++) out[(c + k) * rows + r] = part[k];
        }
}

void gguf_place_read(float *out, const struct gguf_place *p, const struct model *m) {
    const struct tensor *t = p->tensor;
    const struct dtype *d = dtype_of(t->type.dtype);
    const int64_t heads = gguf_name_heads(p->row, m), n = type_elements(&p->weight->type);
    if (heads) {
        const int64_t rows = t->type.dim[0], columns = n / rows, size = rows / heads;
        for (int64_t r = 0; r < rows; r++) {
            // rows of a head: halves here, pairs there
            const int64_t at = r % size, from = r - at + at % (size / 2) * 2 + at / (size / 2);
            d->to_f32(out + r * columns, (const char *)tensor_data(t) + from * columns / d->block * d->block_bytes, columns);
        }
    } else if (is_turned(p)) {
        read_turned(out, p);
    } else {
        d->to_f32(out, map_data(t->map) + gguf_place_offset(p), n);
    }
    for (int64_t i = 0; p->row->plus != 0 && i < n; i++) out[i] -= p->row->plus;
}

/* ---- loading */

static enum cb_status place_load(struct store *store, const struct model *m, const struct gguf_place *p, struct cb_err *err) {
    struct store_entry *entry;
    const struct tensor *t = p->tensor;
    const char *name = p->weight->name;
    const int64_t heads = gguf_name_heads(p->row, m);
    if (p->row->experts || p->row->flat) {
        // an expert's part of the tensor; a row of a vector
        struct cb_type type = p->weight->type;
        type.dtype = t->type.dtype;
        return store_add_map(store, name, type, t->map, gguf_place_offset(p), &entry, err);
    }
    if (heads) {
        const int64_t rows = t->type.dim[0];
        TRY(store_add(store, name, t->type, &entry, err));
        gguf_unpair_rows(entry->data, tensor_data(t), rows, heads, (size_t)(t->bytes / rows));
    } else if (p->row->plus != 0) {
        struct cb_type type = t->type;
        type.dtype = CB_DTYPE_F32;
        TRY(store_add(store, name, type, &entry, err));
        float *value = entry->data;
        tensor_read_f32(value, t);
        for (int64_t i = 0; i < type_elements(&type); i++) value[i] -= p->row->plus;
    } else {
        TRY(store_add_map(store, name, t->type, t->map, t->offset, &entry, err));
        entry->turned = p->row->turned && t->type.rank == 2;
    }
    return CB_OK;
}

static enum cb_status weights_load(const struct gguf_arch *arch, const struct model *m, struct store *store, const struct tensors *t,
                                   struct cb_err *err) {
    struct gguf_place *places = calloc((size_t)m->n_weights, sizeof *places);
    if (!places) FAIL(err, CB_E_MEMORY, "%s: out of memory for %d weights", tensors_name(t), m->n_weights);
    enum cb_status status = gguf_find_places(places, arch, m, t, err);
    const int before = store ? store_count(store) : 0;
    for (int i = 0; store && i < m->n_weights && status == CB_OK; i++) status = place_load(store, m, &places[i], err);
    // a failure leaves the store as it was
    while (status != CB_OK && store && store_count(store) > before) store_remove(store, store_at(store, store_count(store) - 1)->name);
    free(places);
    return status;
}

bool gguf_has_model(const struct gguf *g, const char *arch) {
    const size_t n = strlen(arch);
    if (tensors_find(gguf_tensors(g), "token_embd.weight")) return true;
    for (int i = 0; i < gguf_n_keys(g) && tensors_count(gguf_tensors(g)); i++) {
        const char *key = gguf_key_at(g, i)->name;
        if (!strncmp(key, arch, n) && key[n] == '.') return true;
    }
    return false;
}

enum cb_status gguf_model(struct model **model, struct store *store, struct gguf *g, struct cb_err *err) {
    const char *type = "model";
    const struct gguf_arch *arch;
    json_t *config = NULL;
    *model = NULL;
    TRY(gguf_arch_of_file(&arch, g, err));
    TRY(gguf_get_str(&type, g, "general.type", false, err));
    if (strcmp(type, "model") != 0) FAIL(err, CB_E_UNSUPPORTED, "%s: general.type: found %.60s; wanted model", gguf_name(g), type);
    TRY(gguf_config(&config, arch, g, err));
    enum cb_status status = model_from_config(model, config, gguf_name(g), err);
    json_decref(config);
    // the format has no names for what may be absent (BERT's pooler)
    if (status == CB_OK) model_drop_optional(*model);
    if (status == CB_OK) status = weights_load(arch, *model, store, gguf_tensors(g), err);
    if (status != CB_OK) model_destroy(model);
    return status;
}

enum cb_status gguf_load_model(struct model **model, struct store *store, const char *path, struct cb_err *err) {
    struct gguf *g;
    *model = NULL;
    TRY(gguf_open(&g, path, err));
    enum cb_status status = gguf_model(model, store, g, err);
    gguf_destroy(&g);
    return status;
}
