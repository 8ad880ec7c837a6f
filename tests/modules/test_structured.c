/* Tuners whose change of a weight has a structure (products, rotations, sparse or random parts) beside PEFT: logits, loss, gradients, merged weights. */
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "module_case.h"

TEST(structured, fixtures) {
    static const char *const names[] = {"poly_llama",
                                        "xlora_llama",
                                        "xlora_llama_layerwise_topk",
                                        "loha_llama",
                                        "loha_llama_pattern",
                                        "lokr_llama",
                                        "lokr_llama_both",
                                        "lokr_llama_full",
                                        "lokr_llama_factor4",
                                        "lokr_llama_factor2_both",
                                        "vera_llama",
                                        "vera_llama_no_projection",
                                        "vera_gpt2",
                                        "oft_llama_neumann",
                                        "oft_llama_exact",
                                        "oft_llama_r",
                                        "oft_llama_share",
                                        "oft_llama_coft",
                                        "boft_llama",
                                        "boft_llama_num",
                                        "hra_llama",
                                        "hra_llama_gs",
                                        "fourierft_llama",
                                        "fourierft_llama_pattern",
                                        "randlora_llama",
                                        "randlora_llama_sparse",
                                        "vblora_llama",
                                        "vblora_llama_topk",
                                        "miss_llama",
                                        "miss_llama_bat",
                                        "miss_llama_mini",
                                        "c3a_llama",
                                        "road_llama_1",
                                        "road_llama_2",
                                        "road_llama_4",
                                        "shira_llama",
                                        NULL};
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, names);
    CHECK(!failed, "%d fixtures failed", failed);
}

/* What a file leaves out is drawn again as PEFT drew it: the projections of VeRA and RandLoRA, the last bits of RandLoRA's halves included. */
TEST(structured, draws) {
    static const char *const names[][3] = {
        {"vera_llama", "m/base_model.vera_A", "frozen.base_model.model.model.layers.0.self_attn.q_proj.vera_A"},
        {"vera_llama_no_projection", "m/base_model.vera_A", "frozen.base_model.model.model.layers.0.self_attn.q_proj.vera_A"},
        {"vera_llama_no_projection", "m/base_model.vera_B", "frozen.base_model.model.model.layers.0.self_attn.q_proj.vera_B"},
        {"randlora_llama_sparse", "m/base_model.randlora_A", "frozen.base_model.model.model.layers.0.self_attn.q_proj.randlora_A"},
        {"randlora_llama_sparse", "m/base_model.randlora_B", "frozen.base_model.model.model.layers.0.self_attn.q_proj.randlora_B"},
        {"randlora_llama", "m/base_model.randlora_A", "frozen.base_model.model.model.layers.0.self_attn.q_proj.randlora_A"},
        {"randlora_llama", "m/base_model.randlora_B", "frozen.base_model.model.model.layers.0.self_attn.q_proj.randlora_B"},
    };
    const char *shared = shared_dir();
    if (!shared) return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cb_err err = {0};
        struct base b;
        struct module *m;
        struct tensors *golden;
        char path[600];
        snprintf(path, sizeof path, "%s/fixtures/modules/base_llama", shared);
        CHECK_OK(base_open(&b, path, &err));
        snprintf(path, sizeof path, "%s/fixtures/modules/%s", shared, names[i][0]);
        CHECK_OK(module_load(&m, b.store, path, "m", &b.sites, &err));
        snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.safetensors", shared, names[i][0]);
        CHECK_OK(tensors_open(&golden, path, &err));
        const struct tensor *want = tensors_find(golden, names[i][2]);
        struct store_entry *entry = store_find(b.store, names[i][1]);
        CHECK(want && entry && type_equal(&want->type, &entry->type), "%s: %s", names[i][0], names[i][1]);
        // what a file gave is drawn once more
        for (int k = 0; k < m->n_params; k++)
            if (strcmp(m->params[k].public.name, names[i][1]) == 0)
                CHECK_OK(m->params[k].fill(m, &m->params[k], b.store, 0, entry->data, &err));
        double e = worst_error(entry->data, tensor_data(want), type_elements(&want->type));
        CHECK(e <= 1e-7, "%s: %s: error %g", names[i][0], names[i][1], e);
        tensors_destroy(&golden);
        module_destroy(&m);
        base_close(&b);
    }
}
