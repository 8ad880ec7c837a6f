/* PEFT's other tuners beside the library: logits, loss, gradients by the keys of their files, merged weights. */
#include "module_case.h"

TEST(peft, fixtures) {
    static const char *const names[] = {"adalora_llama",
                                        "adalora_llama_pruned",
                                        "beft_qwen2",
                                        "bitfit_bert",
                                        "bitfit_gpt2",
                                        "delora_llama",
                                        "gralora_llama",
                                        "hira_llama",
                                        "ia3_bert",
                                        "ia3_gpt2",
                                        "ia3_llama",
                                        "ln_tuning_gpt2",
                                        "ln_tuning_llama",
                                        "trainable_tokens_llama",
                                        "trainable_tokens_qwen2_tied",
                                        NULL};
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, names);
    CHECK(!failed, "%d fixtures failed", failed);
}
