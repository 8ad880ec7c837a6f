/* Shared by the tests of merging. */
#include "merge/fixtures.h"

#include "base/rng.h"
#include "harness.h"
#include "io/file.h"
#include "io/yaml.h"

const char *path_of(const char *folder, const char *name) {
    static char paths[8][1200];
    static int turn;
    char *p = paths[turn++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

const char *modules_dir(void) {
    const char *shared = shared_dir();
    return shared ? path_of(shared, "fixtures/modules") : NULL;
}

static json_t *read_any(const char *path, bool yaml) {
    struct cb_err err = {0};
    char *text;
    size_t n;
    json_t *out = NULL;
    if (io_read_file(&text, &n, path, 1 << 24, &err) != CB_OK) return NULL;
    if ((yaml ? yaml_parse(&out, text, n, path, &err) : json_parse(&out, text, n, path, &err)) != CB_OK)
        fprintf(stderr, "%s\n", err.message);
    free(text);
    return out;
}

json_t *json_of(const char *path) { return read_any(path, false); }
json_t *yaml_of(const char *path) { return read_any(path, true); }

void root_models(json_t *value, const char *folder) {
    const char *key;
    json_t *item;
    size_t i;
    if (json_is_array(value)) json_array_foreach(value, i, item) root_models(item, folder);
    if (!json_is_object(value)) return;
    json_object_foreach(value, key, item) {
        root_models(item, folder);
        if ((!strcmp(key, "model") || !strcmp(key, "base_model")) && json_is_string(item))
            json_object_set_new(value, key, json_string(path_of(folder, json_string_value(item))));
    }
}

double tensors_gap(const char *a, const char *b) {
    struct cb_err err = {0};
    struct tensors *x = NULL, *y = NULL;
    double worst = 0;
    if (tensors_open(&x, a, &err) != CB_OK || tensors_open(&y, b, &err) != CB_OK || tensors_count(x) != tensors_count(y)) {
        fprintf(stderr, "%s and %s: %s\n", a, b, err.code ? err.message : "another number of tensors");
        worst = -1;
    }
    for (int i = 0; worst >= 0 && i < tensors_count(x); i++) {
        const struct tensor *t = tensors_at(x, i), *u = tensors_find(y, t->name);
        if (!u || !type_equal(&t->type, &u->type)) {
            fprintf(stderr, "%s: %s differs in type or is absent\n", b, t->name);
            worst = -1;
            break;
        }
        const int64_t n = type_elements(&t->type);
        float *p = malloc((size_t)n * 2 * sizeof *p + 1);
        tensor_read_f32(p, t);
        tensor_read_f32(p + n, u);
        for (int64_t k = 0; k < n; k++)
            if (!(fabs((double)p[k] - (double)p[n + k]) <= worst)) worst = fabs((double)p[k] - (double)p[n + k]);
        free(p);
    }
    tensors_destroy(&x);
    tensors_destroy(&y);
    return worst;
}

static void add_item(struct tensor_item *items, int *n, char names[][80], const char *name, int rows, int cols, enum cb_dtype dtype) {
    snprintf(names[*n], 80, "%s", name);
    items[*n] = (struct tensor_item){.name = names[*n]};
    items[*n].type = rows ? type_make(dtype, 2, (const int64_t[]){rows, cols}) : type_make(dtype, 1, (const int64_t[]){cols});
    (*n)++;
}

static enum cb_status fill_random(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *err) {
    const struct dtype *d = dtype_of(item->type.dtype);
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        const struct rng_block b = rng_philox(*(unsigned *)context, (uint64_t)(first + i), rng_hash(item->name));
        const float x = (rng_uniform(b.word[0]) - 0.5f) * 0.1f;
        d->from_f32((char *)out + i * d->block_bytes, &x, 1);
    }
    return CB_OK;
}

void make_model(const char *folder, int n_layers, int width, int vocab, unsigned seed, const char *dtype) {
    static const char *const parts[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                        "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    struct cb_err err = {0};
    const enum cb_dtype type = dtype_by_name(dtype);
    const int size = n_layers * 9 + 3;
    struct tensor_item *items = calloc((size_t)size, sizeof *items);
    char(*names)[80] = calloc((size_t)size, sizeof *names), text[900], name[80];
    int n = 0;
    add_item(items, &n, names, "model.embed_tokens.weight", vocab, width, type);
    for (int l = 0; l < n_layers; l++) {
        for (int p = 0; p < 7; p++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", l, parts[p]);
            const int rows = p == 4 || p == 5 ? 2 * width : width, cols = p == 6 ? 2 * width : width;
            add_item(items, &n, names, name, rows, cols, type);
        }
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", l);
        add_item(items, &n, names, name, 0, width, type);
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", l);
        add_item(items, &n, names, name, 0, width, type);
    }
    add_item(items, &n, names, "model.norm.weight", 0, width, type);
    add_item(items, &n, names, "lm_head.weight", vocab, width, type);
    CHECK_OK(io_mkdirs(folder, &err));
    CHECK_OK(tensors_write(path_of(folder, "model.safetensors"), items, n, NULL, fill_random, &seed, &err));
    const int m =
        snprintf(text, sizeof text,
                 "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": %d, \"intermediate_size\": %d, "
                 "\"num_hidden_layers\": %d, \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"vocab_size\": %d, "
                 "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": false}\n",
                 width, 2 * width, n_layers, vocab);
    CHECK_OK(io_write_file(path_of(folder, "config.json"), text, (size_t)m, &err));
    free(items);
    free(names);
}

enum cb_status merge_json(json_t *root, const char *folder, int threads, const struct merge_masks *masks, struct merge_report *report,
                          struct cb_err *err) {
    struct merge_recipe *recipe = NULL;
    struct merge_plan plan = {0};
    struct merge_report ignored;
    struct merge_run run = {.masks = masks, .shard_bytes = 5000000000, .seed = 1};
    enum cb_status status = pool_create(&run.pool, threads, err);
    if (status == CB_OK) status = merge_recipe_create(&recipe, root, "recipe", err);
    const struct merge_method *method = status == CB_OK ? merge_method_find(recipe->method) : NULL;
    if (status == CB_OK && !method) status = err_set(err, CB_E_NAME, __FILE__, __LINE__, "merge_method %s: unknown", recipe->method);
    if (status == CB_OK) status = merge_recipe_check(recipe, method->options, merge_option_known, NULL, NULL, err);
    if (status == CB_OK) status = merge_plan_open(&plan, recipe, method, NULL, err);
    if (status == CB_OK) status = merge_write(&plan, &run, folder, report ? report : &ignored, err);
    merge_plan_close(&plan);
    merge_recipe_destroy(&recipe);
    pool_destroy(&run.pool);
    return status;
}

enum cb_status merge_text(const char *text, const char *folder, int threads, struct merge_report *report, struct cb_err *err) {
    json_t *root = NULL;
    TRY(yaml_parse(&root, text, strlen(text), "recipe", err));
    enum cb_status status = merge_json(root, folder, threads, NULL, report, err);
    json_decref(root);
    return status;
}
