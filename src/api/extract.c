/* cb_extract: a LoRA from a model that was trained whole. */
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/instance.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "io/yaml.h"
#include "merge/lora.h"

struct extraction {
    const struct cb_extract_options *o;
    struct lora_extract extract;
    struct instance instance;
    struct lora_site *sites;
    struct tensors *base, *tuned;
    struct pattern *exclude;
};

/* "r=16,exclude=mlp" as an object. A comma inside a value is not meant. */
static enum cb_status read_spec(struct extraction *e, struct cb_err *err) {
    static const char *const keys[] = {"r", "epsilon", "exclude", "embeddings", "skip_whole"};
    json_t *spec = json_object();
    char *text = strdup(e->o->spec ? e->o->spec : ""), *rest = text, *word;
    const char *exclude = NULL;
    enum cb_status status = spec && text ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "--extract: out of memory");
    while (status == CB_OK && (word = strsep(&rest, ","))) {
        char *equals = strchr(word, '=');
        json_t *value = NULL;
        bool known = false;
        if (!*word) continue;
        if (equals) *equals = 0;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) known |= !strcmp(keys[i], word);
        if (!known || !equals)
            status = err_set(err, CB_E_USAGE, __FILE__, __LINE__,
                             "--extract %s: '%s': wanted r=16, epsilon, exclude, embeddings, skip_whole", e->o->spec, word);
        else
            status = yaml_parse(&value, equals + 1, strlen(equals + 1), "--extract", err);
        if (status == CB_OK) json_object_set_new(spec, word, value);
    }
    free(text);
    struct lora_extract *x = &e->extract;
    x->rank = 16;
    if (status == CB_OK) status = json_get_int(&x->rank, spec, "--extract", "r", 1, 1 << 20, false, err);
    if (status == CB_OK) status = json_get_float(&x->epsilon, spec, "--extract", "epsilon", 0, 1e30, false, err);
    if (status == CB_OK) status = json_get_bool(&x->embeddings, spec, "--extract", "embeddings", false, err);
    if (status == CB_OK) status = json_get_bool(&x->skip_whole, spec, "--extract", "skip_whole", false, err);
    if (status == CB_OK) status = json_get_str(&exclude, spec, "--extract", "exclude", false, err);
    if (status == CB_OK && exclude) {
        char found[4200];
        snprintf(found, sizeof found, ".*(?:%.4000s).*", exclude);
        status = pattern_create(&e->exclude, found, "--extract exclude", err);
        x->exclude = e->exclude;
    }
    json_decref(spec);
    return status;
}

/* What may become factors: linear layers, the head, tables of embeddings that nothing else reads as a weight. */
static enum cb_status list_sites(struct extraction *e, struct cb_err *err) {
    TRY(instance_sites(&e->instance, err));
    const struct nn *nn = &e->instance.sites;
    e->sites = calloc((size_t)nn->n_sites + 1, sizeof *e->sites);
    if (!e->sites) FAIL(err, CB_E_MEMORY, "extract: out of memory");
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *s = nn->sites[i];
        if (s->kind != NN_LINEAR && s->kind != NN_HEAD && s->kind != NN_EMBEDDING) continue;
        e->sites[e->extract.n_sites++] = (struct lora_site){s->name, s->weight_is_in_out, s->kind == NN_EMBEDDING};
        if (s->kind == NN_HEAD) e->extract.vocabulary_head = s->name;
    }
    e->extract.sites = e->sites;
    return CB_OK;
}

static enum cb_status run(struct extraction *e, struct cb_engine *engine, struct cb_extract_result *r, struct cb_err *err) {
    const struct cb_extract_options *o = e->o;
    struct lora_extracted done;
    if (!o->base || !o->tuned || !o->out) FAIL(err, CB_E_USAGE, "extract: wanted --base BASE, a tuned model and --out DIR");
    TRY(read_spec(e, err));
    TRY(instance_open(&e->instance, engine, o->base, NULL, err));
    TRY(list_sites(e, err));
    if (e->instance.model->tied && (e->extract.embeddings || !e->extract.skip_whole))
        engine_warn(engine,
                    "%s: the head is the table of embeddings: what the module holds of it acts on the input alone and cannot be folded",
                    o->base);
    TRY(tensors_open(&e->base, o->base, err));
    TRY(tensors_open(&e->tuned, o->tuned, err));
    e->extract.base_path = o->base;
    e->extract.task = e->instance.sites.task;
    e->extract.base = e->base;
    e->extract.tuned = e->tuned;
    TRY(lora_extract(&e->extract, o->out, &done, err));
    *r = (struct cb_extract_result){done.sites, done.whole, done.parameters, done.rank, done.max_error, done.kept};
    return files_write_text(o->out, "run.json", o->run_json, err);
}

enum cb_status cb_extract(struct cb_engine *engine, const struct cb_extract_options *options, struct cb_extract_result *result,
                          struct cb_err *err) {
    struct extraction e = {.o = options};
    *result = (struct cb_extract_result){0};
    enum cb_status status = run(&e, engine, result, err);
    tensors_destroy(&e.base);
    tensors_destroy(&e.tuned);
    pattern_destroy(&e.exclude);
    free(e.sites);
    instance_close(&e.instance);
    return status;
}
