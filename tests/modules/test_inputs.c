/* Virtual tokens and prefixes beside PEFT: the fixtures, encoders that files do not hold, cached decoding, packed documents. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/cpuid.h"
#include "module_case.h"
#include "ops/ops.h"
#include "run/session.h"

TEST(inputs, fixtures) {
    static const char *const names[] = {"prompt_gpt2",
                                        "prompt_llama",
                                        "prompt_bert",
                                        "prefix_gpt2",
                                        "prefix_llama",
                                        "prefix_qwen2",
                                        "prefix_bert",
                                        "prefix_tuning_bert",
                                        "prefix_tuning_flat_bert",
                                        "prefix_tuning_ejected_bert",
                                        "prefix_tuning_gpt2",
                                        "prefix_tuning_gate_roberta",
                                        "prefix_tuning_llama",
                                        "prompt_tuning_bert",
                                        "prompt_tuning_cls_roberta",
                                        NULL};
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
    struct module_list list = {.modules = modules, .n = 1};
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

/* ---- ADePT */
/* Its words moved are a table of other words: prompt tuning with the same rows on a model that has this table gives the same logits. */
static enum cb_status moved_case(char message[400], struct cb_err *err) {
    enum { R = 4, TOKENS = 6 };
    struct base b, moved;
    struct module *adept = NULL, *prompt = NULL;
    struct runner have = {0}, want = {0};
    TRY(base_class(&b, "llama", "tie_word_embeddings=false", err));
    TRY(base_copy(&moved, &b, err));
    TRY(module_create(&adept, b.store, "adept:n=3,r=4", "m", NULL, 3, &b.sites, err));
    TRY(module_create(&prompt, moved.store, "prompt:n=3", "m", NULL, 3, &b.sites, err));
    for (int i = 1; i < module_n_params(adept); i++) {
        float *p = store_find(b.store, module_param(adept, i)->name)->data;
        for (int64_t k = 0; k < type_elements(&module_param(adept, i)->type); k++) p[k] += 0.05f * (float)((k * 7 + i * 3) % 11 - 4);
    }
    const struct store_entry *rows = store_find(b.store, "m/prompt_embeddings");
    memcpy(store_find(moved.store, "m/prompt_embeddings")->data, rows->data, (size_t)type_elements(&rows->type) * sizeof(float));
    const float *a = store_find(b.store, "m/prompt_encoder.lora_embedding_A")->data,
                *u = store_find(b.store, "m/prompt_encoder.lora_embedding_a")->data,
                *c = store_find(b.store, "m/prompt_encoder.lora_embedding_B")->data,
                *v = store_find(b.store, "m/prompt_encoder.lora_embedding_b")->data;
    struct store_entry *table = store_find(moved.store, "model.embed_tokens.weight");
    const int64_t width = table->type.dim[1];
    for (int64_t id = 0; id < table->type.dim[0]; id++) {
        float *e = (float *)table->data + id * width;
        double inner[R];
        for (int j = 0; j < R; j++) {
            inner[j] = u[j];
            for (int64_t k = 0; k < width; k++) inner[j] += (double)e[k] * a[k * R + j];
        }
        for (int64_t k = 0; k < width; k++) {
            double sum = e[k] + v[k];
            for (int j = 0; j < R; j++) sum += fmax(inner[j], 0) * c[j * width + k];
            e[k] = (float)sum;
        }
    }
    const struct model_io io = {.batch = 2, .tokens = TOKENS, .want_logits = true};
    struct module_list list = {.modules = (const struct module *const[]){adept}, .n = 1};
    struct module_list other = {.modules = (const struct module *const[]){prompt}, .n = 1};
    TRY(with_modules(&b, &have, &list, NULL, &io, err));
    TRY(with_modules(&moved, &want, &other, NULL, &io, err));
    inputs_fill(&have, (int32_t)b.model->vocab);
    inputs_fill(&want, (int32_t)b.model->vocab);
    TRY(runner_run(&have, err));
    TRY(runner_run(&want, err));
    const double e = worst_error(runner_data(&have, "logits"), runner_data(&want, "logits"), runner_elements(&have, "logits"));
    if (!(e < 2e-6)) snprintf(message, 400, "error %g", e);
    runner_destroy(&have);
    runner_destroy(&want);
    module_destroy(&adept);
    module_destroy(&prompt);
    base_close(&moved);
    base_close(&b);
    return CB_OK;
}

TEST(inputs, moved_words) {
    struct cb_err err = {0};
    char message[400] = "";
    enum cb_status status = moved_case(message, &err);
    CHECK(status == CB_OK && !*message, "%s%s", message, err.message);
}

/* ---- decoding */
/* Logits of the last row of a whole pass over ids; of an encoder-decoder, over a source and the decoder's ids. */
static enum cb_status whole_pass(struct base *b, struct module_list *list, const int32_t *ids, int64_t n, const int32_t *decoder,
                                 int64_t n_decoder, float *logits, struct cb_err *err) {
    struct runner r = {0};
    struct model_io io = {.batch = 1, .tokens = n, .want_logits = true, .decoder_ids = decoder != NULL, .decoder_tokens = n_decoder};
    TRY(with_modules(b, &r, list, NULL, &io, err));
    memcpy(runner_data(&r, "input_ids"), ids, (size_t)n * sizeof *ids);
    if (decoder) memcpy(runner_data(&r, "decoder_input_ids"), decoder, (size_t)n_decoder * sizeof *ids);
    TRY(runner_run(&r, err));
    const int64_t vocab = b->model->vocab, all = runner_elements(&r, "logits");
    memcpy(logits, (float *)runner_data(&r, "logits") + all - vocab, (size_t)vocab * sizeof *logits);
    runner_destroy(&r);
    return CB_OK;
}

/* However tokens are cut into pushes, the cached logits are those of a whole pass. */
static enum cb_status decode_case(const char *family, const char *spec, char message[400], struct cb_err *err) {
    static const int64_t cuts[][6] = {{7, 1, 1, 3}, {1, 1, 9}, {9, 3}};
    struct base b;
    struct module *m = NULL;
    struct pool *pool;
    int32_t ids[32];
    float want[128];
    TRY(base_fresh(&b, family, err));
    TRY(pool_create(&pool, 2, err));
    TRY(module_create(&m, b.store, spec, "m", NULL, 3, &b.sites, err));
    const struct module *modules[1] = {m};
    struct module_list list = {.modules = modules, .n = 1};
    const bool has_source = b.model->family->encoder_decoder;
    for (int i = 0; i < 32; i++) ids[i] = (int32_t)((i * 13 + i * i + 7) % b.model->vocab);
    struct session_options o = {.model = b.model, .store = b.store, .ops = ops_table(), .pool = pool, .prompt = 9, .context = 20};
    o.plan = (struct plan_options){.backend = &backend_cpu, .cpu_mask = cpu_features(), .n_threads = 2};
    o.total = o.context;
    o.hook = module_hook(&list);
    for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
        struct session *s;
        const float *logits = NULL;
        int64_t at = 0;
        int32_t decoder[32] = {(int32_t)b.model->decoder_start, (int32_t)b.model->forced_bos};
        const int64_t first = b.model->forced_bos >= 0 ? 2 : 1;
        TRY(session_create(&s, &o, err));
        if (has_source) TRY(session_push(s, ids + 20, 7, &logits, err));
        for (int k = 0; cuts[c][k]; k++) {
            TRY(session_push(s, ids + at, cuts[c][k], &logits, err));
            at += cuts[c][k];
            memcpy(decoder + first, ids, (size_t)at * sizeof *ids);
            TRY(has_source ? whole_pass(&b, &list, ids + 20, 7, decoder, first + at, want, err)
                           : whole_pass(&b, &list, ids, at, NULL, 0, want, err));
            double e = worst_error(logits, want, b.model->vocab);
            if (!(e < 2e-5)) snprintf(message, 400, "%s on %s: after %lld tokens: error %g", spec, family, (long long)at, e);
        }
        session_destroy(&s);
    }
    module_destroy(&m);
    pool_destroy(&pool);
    base_close(&b);
    return CB_OK;
}

TEST(inputs, decoding_equals_whole_passes) {
    static const char *const specs[] = {"prompt:n=3",    "prefix:n=4", "ptuning:n=2,hidden=8", "ad_prefix:n=3,bottleneck=8",
                                        "adept:n=3,r=4", NULL};
    int n;
    const struct family *const *families = model_families(&n);
    for (int i = 0; i < n; i++)
        for (const char *const *spec = specs; *spec && families[i]->classes[0]->head->generates; spec++) {
            struct cb_err err = {0};
            char message[400] = "";
            enum cb_status status = decode_case(families[i]->name, *spec, message, &err);
            CHECK(status == CB_OK && !*message, "%s on %s: %s%s", *spec, families[i]->name, message, err.message);
        }
}

/* ---- packed documents */
/* Two documents in one row give what each gives alone: logits of their tokens. */
static enum cb_status packed_case(const char *family, const char *spec, char message[400], struct cb_err *err) {
    enum { FIRST = 4, SECOND = 5, BOTH = FIRST + SECOND };
    struct base b;
    struct module *m = NULL;
    struct runner packed = {0};
    int32_t ids[BOTH];
    TRY(base_fresh(&b, family, err));
    TRY(module_create(&m, b.store, spec, "m", NULL, 3, &b.sites, err));
    const struct module *modules[1] = {m};
    struct module_list list = {.modules = modules, .n = 1};
    const struct model_io io = {.batch = 1, .tokens = BOTH, .want_logits = true, .segments = true, .position_ids = true};
    TRY(with_modules(&b, &packed, &list, NULL, &io, err));
    int32_t *segments = runner_data(&packed, "segments"), *positions = runner_data(&packed, "position_ids");
    for (int i = 0; i < BOTH; i++) {
        ids[i] = (int32_t)(3 + (i * 13 + 7) % (b.model->vocab - 3));  // no padding
        segments[i] = i >= FIRST;
        positions[i] = i < FIRST ? i : i - FIRST;
    }
    memcpy(runner_data(&packed, "input_ids"), ids, sizeof ids);
    TRY(runner_run(&packed, err));
    for (int part = 0; part < 2; part++) {
        struct runner alone = {0};
        const int64_t begin = part ? FIRST : 0, n = part ? SECOND : FIRST, vocab = b.model->vocab;
        const struct model_io one = {.batch = 1, .tokens = n, .want_logits = true};
        TRY(with_modules(&b, &alone, &list, NULL, &one, err));
        memcpy(runner_data(&alone, "input_ids"), ids + begin, (size_t)n * sizeof *ids);
        TRY(runner_run(&alone, err));
        const float *have = runner_data(&packed, "logits"), *want = runner_data(&alone, "logits");
        have += (module_rows(m) + begin) * vocab;
        want += module_rows(m) * vocab;
        double e = worst_error(have, want, n * vocab);
        if (!(e < 2e-5)) snprintf(message, 400, "%s on %s: document %d: error %g", spec, family, part, e);
        runner_destroy(&alone);
    }
    runner_destroy(&packed);
    module_destroy(&m);
    base_close(&b);
    return CB_OK;
}

TEST(inputs, packed_documents_are_apart) {
    static const struct {
        const char *family, *spec;
    } cases[] = {{"gpt2", "prompt:n=3"},     {"gpt2", "prefix:n=3"}, {"llama", "prompt:n=3"},   {"llama", "prefix:n=3"},
                 {"gpt_neox", "prefix:n=3"}, {"bert", "prefix:n=3"}, {"roberta", "prefix:n=3"}, {"distilbert", "prefix:n=3"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct cb_err err = {0};
        char message[400] = "";
        enum cb_status status = packed_case(cases[i].family, cases[i].spec, message, &err);
        CHECK(status == CB_OK && !*message, "%s%s", message, err.message);
    }
}
