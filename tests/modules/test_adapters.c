/* Modules of the adapters library against its own numbers: logits, hidden states, gradients, merged weights. */
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
