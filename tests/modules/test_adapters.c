/* Modules of the adapters library against its own numbers: logits, hidden states, gradients, merged weights. */
#include "base/json.h"
#include "io/file.h"
#include "module_case.h"

static const char *const bottlenecks[] = {
    "adapterplus_bert",       "compacter_bert",
    "compacter_full_w_bert",  "compacterpp_bert",
    "compacterpp_roberta",    "double_seq_bn_bert",
    "double_seq_bn_gpt2",     "double_seq_bn_inv_roberta",
    "double_seq_bn_roberta",  "par_bn_bert",
    "par_bn_channel_bert",    "par_bn_gpt2",
    "par_bn_learned_roberta", "seq_bn_bert",
    "seq_bn_gating_bert",     "seq_bn_gpt2",
    "seq_bn_inv_gpt2",        "seq_bn_inv_nice_bert",
    "seq_bn_leave_out_bert",  "seq_bn_llama",
    "seq_bn_ln_bert",         "seq_bn_ln_residual_bert",
    "seq_bn_post_add_bert",   "seq_bn_rf_map_bert",
    "seq_bn_roberta",         NULL,
};

static const char *const loras[] = {
    "ad_dora_bert", "ad_dvora_bert", "ad_ia3_bert",  "ad_ia3_gpt2", "ad_ia3_roberta", "ad_lora_bert", "ad_lora_gate_bert",
    "ad_lora_gpt2", "ad_lora_llama", "ad_vera_bert", NULL,
};

TEST(adapters, loras) {
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, loras);
    CHECK(!failed, "%d cases", failed);
}

static const char *const refts[] = {"loreft_bert", "loreft_gpt2", "loreft_tied_roberta", "noreft_bert", NULL};

TEST(adapters, refts) {
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, refts);
    CHECK(!failed, "%d cases", failed);
}

static const char *const unions[] = {"mam_bert", "unipelt_bert", "unipelt_gpt2", "union_bert", NULL};

TEST(adapters, unions) {
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, unions);
    CHECK(!failed, "%d cases", failed);
}

TEST(adapters, bottlenecks) {
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, bottlenecks);
    CHECK(!failed, "%d cases", failed);
}

/* The library leaves subtract_projection out of its files; with the key a DiReFT is what it was. */
TEST(adapters, direft_by_name) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    char path[600], folder[128], *text, command[1400];
    size_t n;
    CHECK(temporary_folder(folder, "direft"));
    snprintf(command, sizeof command, "cp -r %s/fixtures/modules/direft_bert/. %s", shared, folder);
    CHECK(system(command) == 0);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
    json_t *config = NULL;
    CHECK_OK(json_parse_object(&config, text, n, path, &err));
    json_object_set_new(json_object_get(config, "config"), "subtract_projection", json_false());
    free(text);
    CHECK_OK(json_dump(&text, config, 2, &err));
    CHECK_OK(io_write_file(path, text, strlen(text), &err));
    free(text);
    json_decref(config);
    char message[400] = "";
    module_folder_check(shared, "direft_bert", folder, message);
    CHECK(!*message, "%s", message);
}

/* One byte changed in each file of a module: read or refused, never more. */
TEST(adapters, spoilt_bytes) {
    const char *shared = shared_dir();
    if (!shared) return;
    static const char *const files[] = {"adapter_config.json", "head_config.json", "adapter.safetensors", "model_head.safetensors"};
    struct cb_err err = {0};
    struct base b;
    char path[600], folder[128], command[1400], *bytes;
    int refused = 0, tried = 0;
    snprintf(path, sizeof path, "%s/fixtures/modules/base_bert", shared);
    CHECK_OK(base_open(&b, path, &err));
    CHECK(temporary_folder(folder, "spoilt"));
    snprintf(command, sizeof command, "cp -r %s/fixtures/modules/compacter_bert/. %s && chmod -R u+w %s", shared, folder, folder);
    CHECK(system(command) == 0);
    for (int f = 0; f < 4; f++) {
        size_t n;
        snprintf(path, sizeof path, "%s/%s", folder, files[f]);
        CHECK_OK(io_read_file(&bytes, &n, path, 1 << 20, &err));
        // the headers and configurations whole, of the numbers' bytes some
        for (size_t i = 0; i < n && i < 3000; i += 23) {
            struct module *m = NULL;
            const char kept = bytes[i];
            bytes[i] = (char)(kept ^ (1 << i % 7));
            CHECK_OK(io_write_file(path, bytes, n, &err));
            memset(&err, 0, sizeof err);
            refused += module_load(&m, b.store, folder, "m", &b.sites, &err) != CB_OK;
            tried++;
            if (m) module_remove(m, b.store);
            module_destroy(&m);
            memset(&err, 0, sizeof err);
            bytes[i] = kept;
        }
        CHECK_OK(io_write_file(path, bytes, n, &err));
        free(bytes);
    }
    CHECK(refused > tried / 2, "%d of %d refused", refused, tried);
    base_close(&b);
}
