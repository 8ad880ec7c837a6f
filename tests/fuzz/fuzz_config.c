/* Fuzz target: any bytes as a config.json; what is accepted must list its weights and survive being built as far as shapes go. */
#include "models/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    struct cb_err err = {0};
    struct model *model = NULL;
    json_t *config;
    if (json_parse(&config, (const char *)bytes, n, "config.json", &err)) return 0;
    if (model_from_config(&model, config, "config.json", &err) == CB_OK) {
        if (model_parameters(model) <= 0 || !model_find_weight(model, model->embedding)) __builtin_trap();
    } else if (!err.message[0]) {
        __builtin_trap();  // every refusal says why
    }
    model_destroy(&model);
    json_decref(config);
    return 0;
}
