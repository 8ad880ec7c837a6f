/* Modules whose start changed the base: what B A means then, by the public calls on the outside fixtures. */
#include <cambium/cambium.h>

#include "harness.h"
#include "io/file.h"
#include "merge/fixtures.h"
#include "merge/lora.h"

struct bench {
    char folder[128];
    struct cb_engine *engine;
};

static enum cb_status merge(struct bench *b, const char *one, const char *two, const char *base, const char *out, struct cb_err *err) {
    const char *const models[] = {one, two}, *const set[] = {"models.1.parameters.weight=0.5"};
    struct cb_combine_result r;
    struct cb_combine_options o = {.method = "linear", .models = models, .n_models = 2, .base = base, .out = path_of(b->folder, out)};
    o.set = set;
    o.n_set = 1;
    return cb_combine(b->engine, &o, &r, err);
}

/* scale B A of a pair. */
static double *change_of(const struct lora_pair *p) {
    float *a = malloc((size_t)(p->rank * p->in) * sizeof *a), *b = malloc((size_t)(p->rank * p->out) * sizeof *b);
    double *out = calloc((size_t)(p->in * p->out), sizeof *out);
    tensor_read_f32(a, p->a);
    tensor_read_f32(b, p->b);
    for (int64_t i = 0; i < p->out; i++)
        for (int64_t k = 0; k < p->rank; k++)
            for (int64_t j = 0; j < p->in; j++) out[i * p->in + j] += p->scale * (double)b[i * p->rank + k] * (double)a[k * p->in + j];
    free(a);
    free(b);
    return out;
}

/* Largest difference of what two modules do. size: the largest change. */
static double change_gap(const char *x, const char *y, double *size) {
    struct cb_err err = {0};
    struct arena *arena = arena_create();
    struct lora l[2];
    double worst = 0;
    *size = 0;
    CHECK_OK(lora_open(&l[0], x, arena, &err));
    CHECK_OK(lora_open(&l[1], y, arena, &err));
    CHECK(l[0].n_pairs == l[1].n_pairs && l[0].n_pairs > 1, "%d and %d sites", l[0].n_pairs, l[1].n_pairs);
    for (int i = 0; i < l[0].n_pairs; i++) {
        const struct lora_pair *p = &l[0].pairs[i], *q = lora_find(&l[1], p->site);
        CHECK(q && q->in == p->in && q->out == p->out, "%s", p->site);
        double *c = change_of(p), *d = change_of(q);
        for (int64_t k = 0; k < p->in * p->out; k++) worst = fmax(worst, fabs(c[k] - d[k])), *size = fmax(*size, fabs(d[k]));
        free(c);
        free(d);
    }
    lora_close(&l[0]);
    lora_close(&l[1]);
    arena_destroy(&arena);
    return worst;
}

/* A fixture's folder with another word of init_lora_weights and another loftq_config. */
static const char *other_start(const struct bench *b, const char *name, const char *from, const char *word, const char *loftq) {
    struct cb_err err = {0};
    char folder[200], *bytes;
    size_t n;
    snprintf(folder, sizeof folder, "%s/%s", b->folder, name);
    json_t *config = json_of(path_of(from, "adapter_config.json"));
    CHECK(config, "%s", from);
    json_object_set_new(config, "init_lora_weights", json_string(word));
    if (loftq) json_object_set_new(config, "loftq_config", json_loads(loftq, 0, NULL));
    CHECK_OK(io_mkdirs(folder, &err));
    CHECK(json_dump_file(config, path_of(folder, "adapter_config.json"), 0) == 0, "%s", folder);
    json_decref(config);
    CHECK_OK(io_read_file(&bytes, &n, path_of(from, "adapter_model.safetensors"), 1 << 24, &err));
    CHECK_OK(io_write_file(path_of(folder, "adapter_model.safetensors"), bytes, n, &err));
    free(bytes);
    return path_of(b->folder, name);
}

TEST(merge_starts, a_part_that_was_taken_off_the_base_is_given_back) {
    const char *root = modules_dir();
    struct cb_err err = {0};
    struct bench b;
    char from[4][300], base[300];
    double size;
    if (!root) return;
    static const char *const names[] = {"lora_llama_pissa/unconverted", "lora_llama_olora/unconverted", "lora_llama_pissa",
                                        "lora_llama_olora"};
    for (int i = 0; i < 4; i++) snprintf(from[i], sizeof from[i], "%s/%s", root, names[i]);
    snprintf(base, sizeof base, "%s/base_llama", root);
    temporary_folder(b.folder, "merge");
    CHECK_OK(cb_engine_create(&b.engine, &(struct cb_engine_options){.threads = 2}, &err));
    // as trained, with the base; and as PEFT converted them, without
    CHECK_FAILS(merge(&b, from[0], from[1], NULL, "refused", &err), CB_E_UNSUPPORTED, "took a part of the base");
    CHECK_OK(merge(&b, from[0], from[1], base, "got", &err));
    CHECK_OK(merge(&b, from[2], from[3], NULL, "want", &err));
    const double gap = change_gap(path_of(b.folder, "got"), path_of(b.folder, "want"), &size);
    fprintf(stderr, "pissa and olora: changes up to %g, off by %g\n", size, gap);
    CHECK(size > 1e-3 && gap < 1e-4 * size, "%g of %g", gap, size);
    CHECK(!io_is_folder(path_of(b.folder, "got.plain-0")), "what was made for the while is gone");
    json_t *config = json_of(path_of(path_of(b.folder, "got"), "adapter_config.json"));
    CHECK(json_is_true(json_object_get(config, "init_lora_weights")), "the result is plain");
    json_decref(config);
    cb_engine_destroy(&b.engine);
}

TEST(merge_starts, a_base_that_was_quantised_and_starts_that_are_not_known) {
    const char *root = modules_dir();
    struct cb_err err = {0};
    struct bench b;
    char plain[300];
    if (!root) return;
    snprintf(plain, sizeof plain, "%s/lora_llama_gaussian", root);
    temporary_folder(b.folder, "merge");
    CHECK_OK(cb_engine_create(&b.engine, &(struct cb_engine_options){.threads = 2}, &err));
    const char *one = other_start(&b, "one", plain, "loftq", "{\"loftq_bits\": 4, \"loftq_iter\": 1}");
    const char *two = other_start(&b, "two", plain, "loftq", "{\"loftq_bits\": 4, \"loftq_iter\": 1}");
    char first[200], second[200];
    snprintf(first, sizeof first, "%s", one);
    snprintf(second, sizeof second, "%s", two);
    CHECK_OK(merge(&b, first, second, NULL, "out", &err));
    json_t *config = json_of(path_of(path_of(b.folder, "out"), "adapter_config.json"));
    const char *word = json_string_value(json_object_get(config, "init_lora_weights"));
    CHECK(word && !strcmp(word, "loftq"), "the result is for the same quantised base");
    json_decref(config);
    CHECK_FAILS(merge(&b, first, plain, NULL, "out", &err), CB_E_UNSUPPORTED, "quantising left");
    CHECK_FAILS(merge(&b, plain, first, NULL, "out", &err), CB_E_UNSUPPORTED, "quantising left");
    other_start(&b, "two", plain, "loftq", "{\"loftq_bits\": 2, \"loftq_iter\": 1}");
    CHECK_FAILS(merge(&b, first, second, NULL, "out", &err), CB_E_UNSUPPORTED, "one loftq_config");
    other_start(&b, "one", plain, "loftq", "{\"loftq_bits\": 4, \"loftq_iter\": 3}");
    other_start(&b, "two", plain, "loftq", "{\"loftq_bits\": 4, \"loftq_iter\": 3}");
    CHECK_FAILS(merge(&b, first, second, NULL, "out", &err), CB_E_UNSUPPORTED, "loftq_iter 1");
    // starts that leave the base alone, and one that nobody here knows
    other_start(&b, "one", plain, "eva", NULL);
    CHECK_OK(merge(&b, first, plain, NULL, "out", &err));
    other_start(&b, "one", plain, "lora_ga", NULL);
    CHECK_FAILS(merge(&b, first, plain, NULL, "out", &err), CB_E_UNSUPPORTED, "lora_ga");
    cb_engine_destroy(&b.engine);
}
