/* Descriptions: malformed config.json files, defaults with changes, tables of weights. */
#include "../harness.h"
#include "io/file.h"
#include "models/model.h"

/* The rows of EXPECTED.tsv: refused with the words, or accepted. */
TEST(models, malformed_configs) {
    const char *shared = shared_dir();
    if (!shared) return;
    struct cb_err err = {0};
    char path[600], *text, *rest = NULL;
    size_t n;
    int rows = 0;
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/EXPECTED.tsv", shared);
    CHECK_OK(io_read_file(&text, &n, path, 1 << 20, &err));
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char file[100], expect[20], words[200];
        if (sscanf(line, "config_json\t%99[^\t]\t%19[^\t]\t%199[^\t]", file, expect, words) != 3) continue;
        snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/config_json/%s", shared, file);
        struct model *m = NULL;
        memset(&err, 0, sizeof err);
        enum cb_status status = model_check_config(&m, path, &err);
        rows++;
        if (strcmp(expect, "accept") == 0) {
            CHECK(status == CB_OK, "%s: %s", file, err.message);
            CHECK(strcmp(m->family->name, "llama") == 0 && m->n_layer == 2);
            if (strcmp(file, "ok_eos_list.json") == 0) CHECK(m->n_eos == 2 && m->eos[0] == 2 && m->eos[1] == 3);
            if (strcmp(file, "ok_kv_null.json") == 0) CHECK(m->n_kv_head == 4);
        } else {
            CHECK(status != CB_OK, "%s was taken", file);
            const char *message = strchr(err.message, ' ');
            char *save = NULL;
            for (char *word = strtok_r(words, ";", &save); word; word = strtok_r(NULL, ";", &save)) {
                char *other = strchr(word, '|');
                if (other) *other++ = 0;
                CHECK(message && (strstr(message, word) || (other && strstr(message, other))), "%s: '%s' lacks %s", file, err.message,
                      word);
            }
        }
        model_destroy(&m);
    }
    CHECK(rows >= 30, "only %d rows", rows);
    free(text);
}

TEST(models, defaults) {
    struct cb_err err = {0};
    json_t *config;
    struct model *m;
    const struct family *gpt2 = model_family("gpt2");
    CHECK(gpt2 && !model_family("nosuch"));
    CHECK_OK(model_default_config(&config, gpt2, NULL, &err));
    CHECK_OK(model_from_config(&m, config, "gpt2", &err));
    CHECK(model_parameters(m) == 124439808, "%lld parameters", (long long)model_parameters(m));
    const struct model_weight *w = model_find_weight(m, "transformer.h.3.mlp.c_proj.weight");
    CHECK(w && fabs(w->std - 0.02 / sqrt(24)) < 1e-12 && w->decay);
    CHECK(!model_find_weight(m, "transformer.h.3.ln_1.weight")->decay);
    model_destroy(&m);
    json_decref(config);
    // changes
    CHECK_OK(model_default_config(&config, gpt2, "n_embd=64,n_head=8,n_layer=3,activation_function=relu,eos_token_id=[1,2]", &err));
    CHECK_OK(model_from_config(&m, config, "gpt2", &err));
    CHECK(m->n_embd == 64 && m->n_layer == 3 && m->n_eos == 2);
    model_destroy(&m);
    json_decref(config);
    // any class of a family, by a list, by bare words, by a word
    static const char *const classes[] = {
        "architectures=[\"GPT2ForTokenClassification\"],num_labels=5", "architectures=[GPT2ForTokenClassification],num_labels=5",
        "architectures=GPT2ForTokenClassification,id2label={\"0\":\"a\",\"1\":\"b\",\"2\":\"c\",\"3\":\"d\",\"4\":\"e\"}"};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(model_default_config(&config, gpt2, classes[i], &err));
        CHECK_OK(model_from_config(&m, config, "gpt2", &err));
        CHECK(strcmp(m->class->name, "GPT2ForTokenClassification") == 0 && m->n_labels == 5 && model_find_weight(m, "classifier.bias"));
        model_destroy(&m);
        json_decref(config);
    }
    CHECK_OK(model_default_config(&config, gpt2, "architectures=[NoSuchModel]", &err));
    CHECK_FAILS(model_from_config(&m, config, "gpt2", &err), CB_E_UNSUPPORTED, "GPT2ForSequenceClassification");
    json_decref(config);
    CHECK_FAILS(model_default_config(&config, gpt2, "n_embed=64", &err), CB_E_NAME, "n_embed");
    CHECK_FAILS(model_default_config(&config, gpt2, "n_embd", &err), CB_E_USAGE, "n_embd");
    CHECK_OK(model_default_config(&config, gpt2, "n_head=7", &err));
    CHECK_FAILS(model_from_config(&m, config, "gpt2", &err), CB_E_FORMAT, "n_head: found 7");
    json_decref(config);
}

/* Each key of each family's configuration with values of every kind: taken, or refused with a reason; never a crash. */
TEST(models, hostile_values) {
    static const char *const values[] = {
        "null", "true", "-1",       "0",  "1",         "3",   "1000000", "4611686018427387904", "1e300",
        "0.5",  "\"\"", "\"relu\"", "[]", "[1,\"a\"]", "[0]", "[[1]]",   "{\"a\":1}",           "{\"rope_type\":\"longrope\"}"};
    int n, taken = 0, refused = 0;
    const struct family *const *families = model_families(&n);
    for (int f = 0; f < n; f++) {
        struct cb_err err = {0};
        json_t *config, *value;
        const char *key;
        CHECK_OK(model_default_config(&config, families[f], families[f]->tiny, &err));
        json_t *keys = json_copy(config);
        json_object_foreach(keys, key, value) {
            for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
                struct model *m = NULL;
                memset(&err, 0, sizeof err);
                json_t *changed = json_copy(config);
                CHECK(json_object_set_new(changed, key, json_loads(values[i], JSON_DECODE_ANY, NULL)) == 0);
                enum cb_status status = model_from_config(&m, changed, families[f]->name, &err);
                CHECK(status == CB_OK ? model_parameters(m) > 0 : *err.message && !m, "%s: %s = %s: status %d without a reason",
                      families[f]->name, key, values[i], (int)status);
                taken += status == CB_OK;
                refused += status != CB_OK;
                model_destroy(&m);
                json_decref(changed);
            }
        }
        json_decref(keys);
        json_decref(config);
    }
    CHECK(taken > 100 && refused > 100, "%d taken, %d refused", taken, refused);
}

/* What an encoder's configuration may say that would make it another model. */
TEST(registry, encoder_options) {
    static const struct {
        const char *change, *word;
    } cases[] = {{"is_decoder=true", "is_decoder: found true; wanted false"},
                 {"add_cross_attention=true", "add_cross_attention: found true; wanted false"},
                 {"position_embedding_type=rotary", "found rotary; wanted absolute, relative_key or relative_key_query"},
                 {"hidden_act=prelu", "hidden_act: found prelu"}};
    static const char *const families[] = {"bert", "roberta", "electra", "albert"};
    struct cb_err err = {0};
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            json_t *config = NULL;
            struct model *m = NULL;
            const char *equals = strchr(cases[i].change, '=');
            char key[64];
            snprintf(key, sizeof key, "%.*s", (int)(equals - cases[i].change), cases[i].change);
            CHECK_OK(model_default_config(&config, model_family(families[f]), model_family(families[f])->tiny, &err));
            json_t *value = strcmp(equals, "=true") == 0 ? json_true() : json_string(equals + 1);
            CHECK(json_object_set_new(config, key, value) == 0);
            CHECK_FAILS(model_from_config(&m, config, families[f], &err), CB_E_UNSUPPORTED, cases[i].word);
            json_decref(config);
        }
}
