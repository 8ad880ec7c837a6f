/* Virtual tokens and prefixes beside PEFT: the fixtures, encoders that files do not hold, cached decoding, packed documents. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/file.h"
#include "module_case.h"

TEST(inputs, fixtures) {
    static const char *const names[] = {"prompt_gpt2", "prompt_llama", "prompt_bert", "prefix_gpt2", "prefix_llama", "prefix_qwen2",
                                        "prefix_bert", NULL};
    const char *shared = shared_dir();
    if (!shared) return;
    int failed = module_fixtures_check(shared, names);
    CHECK(!failed, "%d fixtures failed", failed);
}

/* A fresh module with an encoder, whose parameters then are those that the library began training with. */
static enum cb_status encoder_case(const char *shared, const char *name, const char *spec, char message[400], struct cb_err *err) {
    char path[600];
    struct base b;
    struct module *m = NULL;
    struct tensors *golden = NULL, *trace = NULL;
    struct runner r = {0};
    snprintf(path, sizeof path, "%s/fixtures/modules/base_llama", shared);
    TRY(base_open(&b, path, err));
    TRY(module_create(&m, b.store, spec, "m", NULL, 1, &b.sites, err));
    snprintf(path, sizeof path, "%s/fixtures/modules/%s/golden.safetensors", shared, name);
    TRY(tensors_open(&golden, path, err));
    snprintf(path, sizeof path, "%s/fixtures/modules/%s/trace.safetensors", shared, name);
    TRY(tensors_open(&trace, path, err));
    for (int i = 0; i < module_n_params(m); i++) {
        if (!module_param(m, i)->is_trained) continue;
        char text[200];
        const struct tensor *from;
        snprintf(text, sizeof text, "initial.%s", module_param(m, i)->key);
        TRY(tensors_need(&from, trace, text, err));
        tensor_read_f32(store_find(b.store, module_param(m, i)->name)->data, from);
    }
    const struct module *modules[1] = {m};
    struct module_list list = {modules, 1};
    const struct tensor *ids, *logits, *table;
    TRY(tensors_need(&ids, golden, "input_ids", err));
    TRY(tensors_need(&logits, golden, "logits", err));
    const struct model_io io = {
        .batch = ids->type.dim[0], .tokens = ids->type.dim[1], .want_logits = true, .want_loss = true, .attention_mask = true};
    TRY(with_modules(&b, &r, &list, m, &io, err));
    static const char *const inputs[] = {"input_ids", "attention_mask", "labels"};
    for (int i = 0; i < 3; i++) TRY(runner_fill(&r, inputs[i], tensors_find(golden, inputs[i]), err));
    TRY(runner_run(&r, err));
    const float *loss = runner_data(&r, "loss"), *want = tensor_data(tensors_find(golden, "loss"));
    if (runner_elements(&r, "logits") != type_elements(&logits->type) || !(fabsf(*loss - *want) < 1e-5f * *want))
        snprintf(message, 400, "%s: loss %g, wanted %g", name, (double)*loss, (double)*want);
    int compared = 0;
    for (int i = 0; i < tensors_count(golden); i++) {
        const struct tensor *t = tensors_at(golden, i);
        if (strncmp(t->name, "grad.", 5) != 0) continue;
        const float *have = runner_data(&r, t->name);
        double e = have ? relative_norm(have, tensor_data(t), type_elements(&t->type)) : INFINITY;
        if (!(e < 1e-4)) snprintf(message, 400, "%s: %.250s: error %g", name, t->name, e);
        compared++;
    }
    if (!compared) snprintf(message, 400, "%s: no gradients", name);
    // what is written is what the library wrote
    struct tensors *file = NULL;
    const struct module_evaluator evaluator = test_evaluator();
    struct store_entry *made = store_find(b.store, "m/prompt_embeddings");
    snprintf(path, sizeof path, "%s/fixtures/modules/%s/adapter_model.safetensors", shared, name);
    TRY(tensors_open(&file, path, err));
    TRY(tensors_need(&table, file, "prompt_embeddings", err));
    TRY(module_settle(m, b.store, &evaluator, err));
    double e = worst_error(made->data, tensor_data(table), type_elements(&table->type));
    if (!(e < 1e-5)) snprintf(message, 400, "%s: the table that is written: error %g", name, e);
    runner_destroy(&r);
    tensors_destroy(&file);
    tensors_destroy(&golden);
    tensors_destroy(&trace);
    module_destroy(&m);
    base_close(&b);
    return CB_OK;
}

TEST(inputs, encoders) {
    static const struct {
        const char *name, *spec;
    } cases[] = {{"prefix_llama_projection", "prefix:n=3,projection=true,hidden=10"}, {"ptuning_llama_mlp", "ptuning:n=4,hidden=12"}};
    const char *shared = shared_dir();
    if (!shared) return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_err err = {0};
        char message[400] = "";
        enum cb_status status = encoder_case(shared, cases[i].name, cases[i].spec, message, &err);
        CHECK(status == CB_OK && !*message, "%s%s", message, err.message);
    }
}
