/* PEFT's other tuners beside the library: logits, loss, gradients by the keys of their files, merged weights. */
#include "base/json.h"
#include "io/file.h"
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

/* task_type of the adapter_config.json that a fresh module of a spec is written with: "" for null, "none" where there is none. */
static enum cb_status written_task(char task[40], const char *family, const char *class, const char *spec, struct cb_err *err) {
    struct base b;
    struct module *m = NULL;
    char folder[128], path[200], changes[700], *text = NULL;
    size_t n;
    json_t *config = NULL;
    temporary_folder(folder, "task_type");
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    snprintf(changes, sizeof changes, "%s,architectures=[%s]", model_family(family)->tiny, class);
    snprintf(task, 40, "none");
    enum cb_status status = base_class(&b, family, changes, err);
    if (status == CB_OK) status = module_create(&m, b.store, spec, "m", NULL, 3, &b.sites, err);
    if (status == CB_OK) status = module_save(m, b.store, folder, err);
    if (status == CB_OK) status = io_read_file(&text, &n, path, 1 << 20, err);
    if (status == CB_OK) status = json_parse_config(&config, text, n, path, err);
    const json_t *value = json_object_get(config, "task_type");
    if (value) snprintf(task, 40, "%s", json_is_string(value) ? json_string_value(value) : "");
    json_decref(config);
    free(text);
    module_destroy(&m);
    base_close(&b);
    return status;
}

TEST(peft, task_type_is_of_the_head) {
    static const char *const rows[][4] = {{"gpt2", "GPT2LMHeadModel", "lora:r=2", "CAUSAL_LM"},
                                          {"llama", "LlamaForCausalLM", "prompt:n=2", "CAUSAL_LM"},
                                          {"llama", "LlamaForSequenceClassification", "ia3", "SEQ_CLS"},
                                          {"llama", "LlamaModel", "adalora:r=2,target=1", "FEATURE_EXTRACTION"},
                                          {"bert", "BertForMaskedLM", "lora:r=2", ""},
                                          {"bert", "BertForMaskedLM", "loha:r=2", ""},
                                          {"albert", "AlbertForMaskedLM", "ln_tuning", ""},
                                          {"bert", "BertForTokenClassification", "hira:r=2", "TOKEN_CLS"},
                                          {"roberta", "RobertaForQuestionAnswering", "delora:r=2", "QUESTION_ANS"},
                                          {"t5", "T5ForConditionalGeneration", "lora:r=2", "SEQ_2_SEQ_LM"},
                                          {"bart", "BartForConditionalGeneration", "ia3", "SEQ_2_SEQ_LM"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cb_err err = {0};
        char task[40];
        CHECK_OK(written_task(task, rows[i][0], rows[i][1], rows[i][2], &err));
        CHECK(!strcmp(task, rows[i][3]), "%s, %s: found task_type '%s'; wanted '%s'", rows[i][1], rows[i][2], task, rows[i][3]);
    }
}
