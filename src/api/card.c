/* Cards of modules: card.json beside the module's own files. */
#include "api/card.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "base/hash.h"
#include "io/file.h"
#include "modules/tuner.h"

enum { SPOTS = 8, SPOT = 256, CARD_LIMIT = 1 << 24 };  // of each weight, SPOT values at SPOTS places
enum { SAMPLE = 256 };
#define ALIKE 0.5  // cosine of samples: of other weights it is around 0, of the coarsest blocks still well above

/* What a base is, apart from where it lies: the names and shapes of its weights, hashes and a sample of their values, read as f32. */
struct base_print {
    uint64_t shapes, values;
    bool is_quantised;
    double sample[SAMPLE];
    int n_sample;
};

static uint64_t hash_values(uint64_t h, const struct store_entry *entry) {
    const struct dtype *type = dtype_of(entry->type.dtype);
    const int64_t n = type_elements(&entry->type), step = n / SPOTS / SPOT * SPOT;
    float values[SPOT];
    for (int i = 0; i < SPOTS && (i == 0 || step); i++) {
        const int64_t first = i * step, left = n - first < SPOT ? (n - first) / type->block * type->block : SPOT;
        type->to_f32(values, (const char *)entry->data + first / type->block * type->block_bytes, left);
        h = hash_bytes(h, values, (size_t)left * sizeof *values);
    }
    return h;
}

/* Element (i,j) of a matrix, however it is stored. */
static double value_at(const struct store_entry *entry, int64_t i, int64_t j) {
    const struct dtype *type = dtype_of(entry->type.dtype);
    const int64_t at = entry->turned ? j * entry->type.dim[1] + i : i * entry->type.dim[1] + j, first = at / type->block * type->block;
    float values[SPOT];
    type->to_f32(values, (const char *)entry->data + first / type->block * type->block_bytes, type->block);
    return (double)values[at - first];
}

/* A matrix's share of the sample: places on a diagonal. */
static void sample_more(struct base_print *print, const struct store_entry *entry) {
    const int64_t rows = entry->type.dim[entry->turned], columns = entry->type.dim[!entry->turned];
    for (int64_t k = 1; k < 8 && print->n_sample < SAMPLE; k++)
        print->sample[print->n_sample++] = value_at(entry, rows * k / 8, columns * k / 8);
}

static struct base_print base_print(const struct instance *in) {
    struct base_print print = {HASH_START, HASH_START, false, {0}, 0};
    for (int i = 0; i < in->model->n_weights; i++) {
        const struct model_weight *w = &in->model->weights[i];
        const struct store_entry *entry = store_find(in->store, w->name);
        // a fresh head is none of the base's
        if (!entry || !entry->data || entry->trainable || w->is_buffer) continue;
        print.shapes = hash_bytes(print.shapes, w->name, strlen(w->name));
        print.shapes = hash_bytes(print.shapes, w->type.dim, (size_t)w->type.rank * sizeof *w->type.dim);
        print.is_quantised |= dtype_of(entry->type.dtype)->is_quantised;
        if (!entry->turned) print.values = hash_values(print.values, entry);
        if (entry->type.rank == 2 && type_elements(&entry->type)) sample_more(&print, entry);
    }
    return print;
}

/* The sample as a list; NULL: no memory. */
static json_t *sample_json(const struct base_print *print) {
    json_t *list = json_array();
    for (int i = 0; list && i < print->n_sample; i++)
        if (json_array_append_new(list, json_real(print->sample[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

/* Whether the weights may be those of the card, rounded otherwise. A card without a sample, or of zeros, tells nothing. */
static bool is_alike(const struct base_print *print, const json_t *sample) {
    double dot = 0, own = 0, other = 0;
    for (int i = 0; i < print->n_sample && json_array_size(sample) == (size_t)print->n_sample; i++) {
        const double x = print->sample[i], y = json_number_value(json_array_get(sample, (size_t)i));
        dot += x * y;
        own += x * x;
        other += y * y;
    }
    return !(own * other > 0) || dot >= ALIKE * sqrt(own * other);
}

enum cb_status card_write(const struct instance *in, const char *folder, const struct module *module, json_t *data, json_t *metrics,
                          const char *modules, const char *options, struct cb_err *err) {
    const struct base_print print = base_print(in);
    struct cb_err quiet = {0};
    json_t *run = NULL, *card = json_object();
    char *text = NULL;
    if (options && json_parse_object(&run, options, strlen(options), "options", &quiet) != CB_OK) run = NULL;
    json_t *base = json_pack("{s:s, s:s, s:o, s:o, s:o, s:b}", "path", in->path, "family", in->model->family->name, "shapes",
                             json_sprintf("%016" PRIx64, print.shapes), "values", json_sprintf("%016" PRIx64, print.values), "sample",
                             sample_json(&print), "quantised", (int)print.is_quantised);
    bool ok = card && base && json_object_set_new(card, "kind", json_string("module")) == 0 &&
              json_object_set_new(card, "tuner", json_string(module_tuner(module)->name)) == 0 &&
              json_object_set_new(card, "parameters", json_integer((json_int_t)module_parameters(module))) == 0 &&
              json_object_set(card, "base", base) == 0 &&
              json_object_set_new(card, "parents", modules ? json_pack("[s]", modules) : json_array()) == 0 &&
              json_object_set_new(card, "licence", json_null()) == 0;
    if (data) ok = ok && json_object_set(card, "data", data) == 0;
    if (metrics) ok = ok && json_object_set(card, "metrics", metrics) == 0;
    if (run) ok = ok && json_object_set(card, "options", run) == 0;
    enum cb_status status =
        ok ? json_dump(&text, card, 2, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: no memory for a card", folder);
    if (status == CB_OK) status = files_write_text(folder, "card.json", text, err);
    free(text);
    json_decref(run);
    json_decref(base);
    json_decref(data);
    json_decref(metrics);
    json_decref(card);
    return status;
}

static enum cb_status compare(const struct instance *in, const char *path, const json_t *base, struct cb_err *err) {
    const char *shapes = NULL, *values = NULL, *was = "";
    bool was_quantised = false;
    char text[32];
    TRY(json_get_str(&shapes, base, path, "shapes", true, err));
    TRY(json_get_str(&values, base, path, "values", true, err));
    TRY(json_get_str(&was, base, path, "path", false, err));
    TRY(json_get_bool(&was_quantised, base, path, "quantised", false, err));
    const struct base_print print = base_print(in);
    snprintf(text, sizeof text, "%016" PRIx64, print.shapes);
    const bool other_shapes = strcmp(text, shapes) != 0;
    snprintf(text, sizeof text, "%016" PRIx64, print.values);
    if (!other_shapes && strcmp(text, values) == 0) return CB_OK;
    const char *what = other_shapes ? "names or shapes of its weights differ" : "its weights have other values";
    const bool is_rounded = !other_shapes && print.is_quantised != was_quantised && is_alike(&print, json_object_get(base, "sample"));
    if (in->engine->options.force || is_rounded) {
        engine_warn(in->engine, "%s: trained on %.200s; %.200s is another base: %s", path, was, in->path, what);
        return CB_OK;
    }
    FAIL(err, CB_E_ARGUMENT, "%s: trained on %.200s; found %.200s, another base: %s (--force takes it all the same)", path, was, in->path,
         what);
}

enum cb_status card_check(const struct instance *in, const char *folder, struct cb_err *err) {
    char *path = io_path_join(folder, "card.json"), *text = NULL;
    size_t n;
    json_t *card = NULL;
    const json_t *base = NULL;
    if (!path) FAIL(err, CB_E_MEMORY, "%s: no memory for a path", folder);
    enum cb_status status = CB_OK;
    if (io_is_file(path)) {
        status = io_read_file(&text, &n, path, CARD_LIMIT, err);
        if (status == CB_OK) status = json_parse_object(&card, text, n, path, err);
        if (status == CB_OK) status = json_get_object(&base, card, path, "base", false, err);
        if (status == CB_OK && base) status = compare(in, path, base, err);
    }
    json_decref(card);
    free(text);
    free(path);
    return status;
}
