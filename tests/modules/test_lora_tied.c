/* LoRA files of PEFT whose head and table stay one matrix (ensure_weight_tying), and what else names mean there: whole names beside layers, rows of a head. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "io/file.h"
#include "module_case.h"
#include "modules/lora.h"

static const struct model_io io = {.batch = 1, .tokens = 6, .want_logits = true};

/* Numbers that are not zero, another for each element. */
static void move(const struct base *b, const struct module *m) {
    for (int i = 0; i < module_n_params(m); i++) {
        float *p = store_find(b->store, module_param(m, i)->name)->data;
        if (!module_param(m, i)->is_trained) continue;
        for (int64_t k = 0; k < type_elements(&module_param(m, i)->type); k++) p[k] += 0.05f * (float)((k * 7 + i * 3) % 11 - 4);
    }
}

static enum cb_status logits_of(struct base *b, struct runner *r, const struct module *m, struct cb_err *err) {
    const struct module *const one[1] = {m};
    struct module_list list = {.modules = one, .n = 1};
    TRY(with_modules(b, r, m ? &list : NULL, NULL, &io, err));
    inputs_fill(r, (int32_t)b->model->vocab);
    return runner_run(r, err);
}

/* The folder's tensors into a store of their own. */
static enum cb_status file_open(struct store **file, char path[200], const char *folder, struct cb_err *err) {
    struct tensors *tensors;
    snprintf(path, 200, "%s/adapter_model.safetensors", folder);
    TRY(store_create(file, err));
    TRY(tensors_open(&tensors, path, err));
    enum cb_status status = store_load(*file, tensors, NULL, NULL, err);
    for (int i = 0; status == CB_OK && i < store_count(*file); i++) status = store_make(*file, store_at(*file, i), CB_DTYPE_F32, true, err);
    tensors_destroy(&tensors);
    return status;
}

/* A second key: the same values, its axes changed where it is turned. */
static enum cb_status key_add(struct store *file, const char *key, const char *of, bool turned, struct cb_err *err) {
    const struct store_entry *from = store_find(file, of);
    struct store_entry *to;
    if (!from) FAIL(err, CB_E_NAME, "%s: not in the file", of);
    const int64_t rows = from->type.dim[0], columns = from->type.dim[1], dim[2] = {turned ? columns : rows, turned ? rows : columns};
    TRY(store_add(file, key, type_make(CB_DTYPE_F32, 2, dim), &to, err));
    from = store_find(file, of);
    for (int64_t i = 0; i < rows * columns; i++)
        ((float *)to->data)[turned ? i % columns * rows + i / columns : i] = ((const float *)from->data)[i];
    return CB_OK;
}

/* Sets one key of a folder's configuration. Takes ownership of value. */
static enum cb_status config_set(const char *folder, const char *key, json_t *value, struct cb_err *err) {
    char path[200], *text = NULL, *made = NULL;
    size_t n;
    json_t *config = NULL;
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    TRY(io_read_file(&text, &n, path, 1 << 20, err));
    enum cb_status status = json_parse_object(&config, text, n, path, err);
    if (status == CB_OK && json_object_set_new(config, key, value) != 0)
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "no memory");
    if (status == CB_OK) status = json_dump(&made, config, 2, err);
    if (status == CB_OK) status = io_write_file(path, made, strlen(made), err);
    free(text), free(made);
    json_decref(config);
    return status;
}

/* A folder as PEFT writes it on a tied model: a change, or a copy, of the table, again under the head's keys. */
static void tied_folder(struct base *b, const char *folder, const char *spec, bool copies) {
    struct cb_err err = {0};
    struct module *m;
    struct store *file = NULL;
    char path[200];
    CHECK_OK(module_create(&m, b->store, spec, "made", NULL, 1, &b->sites, &err));
    move(b, m);
    CHECK_OK(module_save(m, b->store, folder, &err));
    module_remove(m, b->store);
    module_destroy(&m);
    CHECK_OK(file_open(&file, path, folder, &err));
    if (copies) {
        CHECK_OK(key_add(file, "base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight", false, &err));
    } else {
        CHECK_OK(
            key_add(file, "base_model.model.lm_head.lora_A.weight", "base_model.model.model.embed_tokens.lora_embedding_B", true, &err));
        CHECK_OK(
            key_add(file, "base_model.model.lm_head.lora_B.weight", "base_model.model.model.embed_tokens.lora_embedding_A", true, &err));
    }
    CHECK_OK(store_save(file, path, 0, NULL, NULL, NULL, &err));
    store_destroy(&file);
    CHECK_OK(config_set(folder, "ensure_weight_tying", json_true(), &err));
}

/* What is written is what was read, under all keys. */
static void stays(const struct base *b, const struct module *m, const char *folder) {
    struct cb_err err = {0};
    struct store *was, *is;
    char again[128], path[200];
    CHECK(temporary_folder(again, "tied_again"));
    CHECK_OK(module_save(m, b->store, again, &err));
    CHECK_OK(file_open(&was, path, folder, &err));
    CHECK_OK(file_open(&is, path, again, &err));
    CHECK(store_count(was) == store_count(is));
    for (int i = 0; i < store_count(was); i++) {
        const struct store_entry *x = store_at(was, i), *y = store_find(is, x->name);
        CHECK(y && type_equal(&x->type, &y->type) && memcmp(x->data, y->data, (size_t)x->bytes) == 0, "%s", x->name);
    }
    store_destroy(&was);
    store_destroy(&is);
}

TEST(lora_tied, head_has_its_tables_change) {
    static const char *const specs[] = {"lora:r=2,alpha=3,targets=q_proj+embed_tokens", "lora:r=2,targets=q_proj,save=embed_tokens"};
    for (int i = 0; i < 2; i++) {
        struct cb_err err = {0};
        struct base b;
        struct module *m;
        struct runner plain, attached, folded;
        char folder[128];
        CHECK(temporary_folder(folder, "tied"));
        CHECK_OK(base_class(&b, "llama", "tie_word_embeddings=true", &err));
        tied_folder(&b, folder, specs[i], i == 1);
        CHECK_OK(module_load(&m, b.store, folder, "m", &b.sites, &err));
        CHECK_OK(logits_of(&b, &plain, NULL, &err));
        CHECK_OK(logits_of(&b, &attached, m, &err));
        const int64_t n = runner_elements(&attached, "logits");
        CHECK(worst_error(runner_data(&plain, "logits"), runner_data(&attached, "logits"), n) > 1e-2);
        stays(&b, m, folder);
        // into the one table, though two sites read it
        CHECK(!module_shares(m));
        CHECK_OK(base_fold(&b, m, false, &err));
        CHECK_OK(logits_of(&b, &folded, NULL, &err));
        const double e = worst_error(runner_data(&folded, "logits"), runner_data(&attached, "logits"), n);
        CHECK(e < 1e-4, "%s: %g", specs[i], e);
        runner_destroy(&plain), runner_destroy(&attached), runner_destroy(&folded);
        module_destroy(&m);
        base_close(&b);
    }
}

TEST(lora_tied, keys_that_differ_are_refused) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    struct store *file;
    char folder[128], path[200];
    CHECK(temporary_folder(folder, "tied"));
    CHECK_OK(base_class(&b, "llama", "tie_word_embeddings=true", &err));
    tied_folder(&b, folder, "lora:r=2,targets=q_proj+embed_tokens", false);
    CHECK_OK(file_open(&file, path, folder, &err));
    ((float *)store_find(file, "base_model.model.lm_head.lora_B.weight")->data)[3] += 1;
    CHECK_OK(store_save(file, path, 0, NULL, NULL, NULL, &err));
    store_destroy(&file);
    CHECK_FAILS(module_load(&m, b.store, folder, "m", &b.sites, &err), CB_E_FORMAT, "two tensors");
    // one matrix, one scale
    CHECK_OK(config_set(folder, "alpha_pattern", json_pack("{s:i}", "lm_head", 5), &err));
    CHECK_FAILS(module_load(&m, b.store, folder, "m", &b.sites, &err), CB_E_UNSUPPORTED, "wanted one");
    base_close(&b);
}

/* With bias all PEFT's model has the copy's bias, which acts, and the one that it stands for, which does not. */
TEST(lora_tied, bias_of_a_copied_head) {
    struct cb_err err = {0};
    struct base b;
    struct module *m;
    struct store *file;
    char folder[128], path[200];
    CHECK(temporary_folder(folder, "idle"));
    CHECK_OK(base_fresh(&b, "bert", &err));
    CHECK_OK(module_create(&m, b.store, "lora:r=2,targets=query,bias=all,save=decoder", "made", NULL, 1, &b.sites, &err));
    CHECK_OK(module_save(m, b.store, folder, &err));
    module_destroy(&m);
    CHECK_OK(file_open(&file, path, folder, &err));
    struct store_entry *idle = store_find(file, "base_model.model.cls.predictions.bias");
    CHECK(idle && store_find(file, "base_model.model.cls.predictions.decoder.bias"));
    if (idle) ((float *)idle->data)[1] += 3;
    CHECK_OK(store_save(file, path, 0, NULL, NULL, NULL, &err));
    store_destroy(&file);
    CHECK_OK(module_load(&m, b.store, folder, "m", &b.sites, &err));
    module_destroy(&m);
    base_close(&b);
}

/* ---- what names mean */
static struct module *configured(struct base *b, const char *rest, struct cb_err *err) {
    char folder[128], path[200], text[400];
    struct module *m = NULL;
    CHECK(temporary_folder(folder, "names"));
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    snprintf(text, sizeof text, "{\"peft_type\": \"LORA\", \"r\": 2, %s}", rest);
    CHECK(io_write_file(path, text, strlen(text), err) == CB_OK, "%s", err->message);
    memset(err, 0, sizeof *err);
    (void)module_check_config(&m, path, "m", &b->sites, err);
    return m;
}

TEST(lora_tied, whole_names_and_layers) {
    struct cb_err err = {0};
    struct base b;
    CHECK_OK(base_fresh(&b, "llama", &err));
    struct module *m =
        configured(&b, "\"target_modules\": [\"model.layers.0.self_attn.q_proj\", \"v_proj\"], \"layers_to_transform\": 1", &err);
    CHECK(m && module_n_sites(m) == 2 && strcmp(module_site_name(m, 0), "model.layers.0.self_attn.q_proj") == 0 &&
              strcmp(module_site_name(m, 1), "model.layers.1.self_attn.v_proj") == 0,
          "%s", err.message);
    module_destroy(&m);
    // nothing is passed over
    m = configured(&b, "\"target_modules\": \".*q_proj\", \"layers_to_transform\": 1", &err);
    CHECK(!m && err.code == CB_E_FORMAT && strstr(err.message, "layers_to_transform: found beside a pattern"), "%s", err.message);
    m = configured(&b, "\"target_modules\": [\"q_proj\"], \"layers_to_transform\": 7", &err);
    CHECK(!m && err.code == CB_E_NAME && strstr(err.message, "left by exclude_modules, layers_to_transform"), "%s", err.message);
    base_close(&b);
}

TEST(lora_tied, rows_of_heads) {
    struct cb_err err = {0};
    struct base b;
    CHECK_OK(base_class(&b, "llama", "tie_word_embeddings=true", &err));
    // the head's alone
    struct module *m = configured(&b, "\"target_modules\": [\"q_proj\"], \"trainable_token_indices\": {\"lm_head\": [3, 1]}", &err);
    CHECK(m && m->n_new_rows == 1 && module_shares(m), "%s", err.message);
    module_destroy(&m);
    // both alike: the table's, in whatever order they are named
    m = configured(&b, "\"target_modules\": [\"q_proj\"], \"trainable_token_indices\": {\"lm_head\": [3], \"model.embed_tokens\": [3]}",
                   &err);
    CHECK(m && m->n_new_rows == 2 && !module_shares(m), "%s", err.message);
    CHECK(m && strstr(m->params[m->new_rows[1].delta].public.key, "embed_tokens"));
    module_destroy(&m);
    base_close(&b);
}

/* PEFT reads lora_bias beside its own start alone: what is written says so. */
TEST(lora_tied, biases_and_starts) {
    struct cb_err err = {0};
    struct base b;
    struct module *m, *again;
    char folder[128];
    CHECK(temporary_folder(folder, "starts"));
    CHECK_OK(base_fresh(&b, "gpt2", &err));
    CHECK_OK(module_create(&m, b.store, "lora:r=2,lora_bias=true,init=gaussian", "m", NULL, 1, &b.sites, &err));
    CHECK_OK(module_save(m, b.store, folder, &err));
    CHECK_OK(module_load(&again, b.store, folder, "again", &b.sites, &err));
    CHECK(again && json_is_true(json_object_get(module_config(again), "init_lora_weights")));
    module_destroy(&m);
    module_destroy(&again);
    CHECK_FAILS(module_create(&m, b.store, "lora:r=2,lora_bias=true,init=loftq", "n", NULL, 1, &b.sites, &err), CB_E_UNSUPPORTED,
                "lora_bias");
    base_close(&b);
}

/* 8 bits of LoftQ are normal floats in old files of PEFT and in ours, in newer ones they are not. */
TEST(lora_tied, bits_of_loftq) {
    static const char *const rest = "\"target_modules\": [\"q_proj\"], \"init_lora_weights\": \"loftq\", ";
    static const char *const readable[] = {
        "\"loftq_config\": {\"loftq_bits\": 8}", "\"peft_version\": \"0.19.1\", \"loftq_config\": {\"loftq_bits\": 8}",
        "\"peft_version\": \"0.21.2\", \"loftq_config\": {\"loftq_bits\": 4}",
        "\"peft_version\": \"0.21.2\", \"loftq_config\": {\"loftq_bits\": 8, \"loftq_reading\": \"paper\"}"};
    struct cb_err err = {0};
    struct base b;
    struct module *m, *again;
    char text[300], folder[128];
    CHECK_OK(base_fresh(&b, "llama", &err));
    for (int i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "%s%s", rest, readable[i]);
        m = configured(&b, text, &err);
        CHECK(m, "%s: %s", readable[i], err.message);
        module_destroy(&m);
    }
    snprintf(text, sizeof text, "%s\"peft_version\": \"0.21.2\", \"loftq_config\": {\"loftq_bits\": 8}", rest);
    m = configured(&b, text, &err);
    CHECK(!m && err.code == CB_E_UNSUPPORTED && strstr(err.message, "loftq_bits: found 8"), "%s", err.message);
    memset(&err, 0, sizeof err);
    CHECK(temporary_folder(folder, "bits"));
    CHECK_OK(module_create(&m, b.store, "lora:r=2,init=loftq,bits=8", "m", NULL, 1, &b.sites, &err));
    CHECK_OK(module_save(m, b.store, folder, &err));
    CHECK_OK(module_load(&again, b.store, folder, "again", &b.sites, &err));
    module_destroy(&m);
    module_destroy(&again);
    base_close(&b);
}
