/* Fuzz target: bytes as an adapter_config.json and, behind a zero byte, the safetensors of its module, on a small decoder and a small encoder; a module that
   loads changes sites and has its parameters in the store. */
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "models/model.h"
#include "modules/module.h"
#include "ops/ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* A fresh tiny model with the sites of its graph, made once. */
struct base {
    struct store *store;
    struct model *model;
    struct cb_graph *g;
    struct nn sites;
};

static struct base *base_of(const char *family, struct base *b) {
    struct cb_err err = {0};
    json_t *config;
    struct model_io io = {.batch = 1, .tokens = 2, .want_logits = true};
    if (b->g) return b;
    if (store_create(&b->store, &err) || model_default_config(&config, model_family(family), model_family(family)->tiny, &err)) abort();
    if (model_from_config(&b->model, config, family, &err) || model_init_weights(b->model, b->store, 7, &err)) abort();
    json_decref(config);
    if (graph_create(&b->g, ops_table(), &err)) abort();
    b->sites = nn_make(b->g);
    if (model_build(b->model, &b->sites, &io, &err)) abort();
    return b;
}

/* A file without tensors, where the input has none. */
static enum cb_status tensors_of(struct tensors **tensors, struct map **map, const void *bytes, size_t n, struct cb_err *err) {
    static const char none[] = "\2\0\0\0\0\0\0\0{}";
    TRY(map_copy(map, n ? bytes : none, n ? n : sizeof none - 1, "module.safetensors", err));
    return tensors_read(tensors, *map, err);
}

static void load(struct base *b, json_t *config, const struct tensors *tensors) {
    struct cb_err err = {0};
    struct module *m = NULL;
    if (module_make(&m, b->store, config, "config", tensors, "fuzzed", &b->sites, &err) == CB_OK) {
        if (module_n_sites(m) + module_n_params(m) <= 0) __builtin_trap();
        for (int i = 0; i < module_n_params(m); i++)
            if (!store_find(b->store, module_param(m, i)->name)) __builtin_trap();
        module_remove(m, b->store);
        module_destroy(&m);
    } else if (!err.message[0] || m) {
        __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    static struct base decoder, encoder;
    struct cb_err err = {0};
    const uint8_t *gap = n ? memchr(bytes, 0, n) : NULL;
    const size_t n_config = gap ? (size_t)(gap - bytes) : n;
    json_t *config = NULL;
    struct tensors *tensors = NULL;
    struct map *map = NULL;
    if (json_parse_object(&config, (const char *)bytes, n_config, "adapter_config.json", &err) == CB_OK &&
        tensors_of(&tensors, &map, gap ? gap + 1 : NULL, gap ? n - n_config - 1 : 0, &err) == CB_OK) {
        load(base_of("llama", &decoder), config, tensors);
        load(base_of("bert", &encoder), config, tensors);
    }
    tensors_destroy(&tensors);
    map_release(&map);
    json_decref(config);
    return 0;
}
