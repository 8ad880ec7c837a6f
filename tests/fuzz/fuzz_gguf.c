/* Fuzz target: any bytes as a GGUF file: its keys as JSON, its tensors to the last byte, the model, adapter and vocabulary that it may hold. */
#include <stdlib.h>

#include "api/gguf_arrays.h"
#include "models/gguf_lora.h"

static void read_tensors(const struct tensors *tensors) {
    for (int i = 0; i < tensors_count(tensors); i++) {
        const struct tensor *t = tensors_at(tensors, i);
        float *values = malloc((size_t)type_elements(&t->type) * sizeof *values + 1);
        if (values) tensor_read_f32(values, t);
        free(values);
        if (tensors_find(tensors, t->name) != t) __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct cb_err err = {0};
    struct map *map;
    struct gguf *g;
    if (map_copy(&map, bytes, n, "input", &err)) return 0;
    if (gguf_read(&g, map, &err) == CB_OK) {
        struct model *model = NULL;
        struct store *store = NULL;
        struct tokenizer *tokenizer = NULL;
        json_t *config = NULL;
        struct tensors *adapter = NULL;
        read_tensors(gguf_tensors(g));
        for (int i = 0; i < gguf_n_keys(g); i++) json_decref(gguf_json(gguf_key_at(g, i), 64));
        if (store_create(&store, &err) == CB_OK) gguf_model(&model, store, g, &err);
        err = (struct cb_err){0};
        gguf_lora_read(&config, &adapter, g, NULL, &err);
        err = (struct cb_err){0};
        gguf_tokenizer(&tokenizer, g, &err);
        tokenizer_destroy(&tokenizer);
        json_decref(config);
        tensors_destroy(&adapter);
        model_destroy(&model);
        store_destroy(&store);
        gguf_destroy(&g);
    }
    map_release(&map);
    return 0;
}
