/* LoRA from a whole fine-tuning: mergekit's own extractions of the outside fixtures, and what must hold of any. */
#include <cambium/cambium.h>

#include "harness.h"
#include "merge/fixtures.h"
#include "merge/lora.h"

/* mergekit-extract-lora's arguments as a spec. */
static void spec_of(const json_t *args, char *spec, size_t size) {
    static const char *const names[][2] = {{"--max-rank", "r"}, {"--exclude-regex", "exclude"}, {"--sv-epsilon", "epsilon"}};
    static const char *const flags[][2] = {{"--embed-lora", "embeddings=true"}, {"--skip-undecomposable", "skip_whole=true"}};
    *spec = 0;
    for (size_t i = 0; i < json_array_size(args); i++) {
        const char *word = json_string_value(json_array_get(args, i)), *next = json_string_value(json_array_get(args, i + 1));
        const size_t n = strlen(spec);
        for (int k = 0; k < 3; k++)
            if (!strcmp(word, names[k][0])) snprintf(spec + n, size - n, "%s%s=%s", n ? "," : "", names[k][1], next);
        for (int k = 0; k < 2; k++)
            if (!strcmp(word, flags[k][0])) snprintf(spec + n, size - n, "%s%s", n ? "," : "", flags[k][1]);
    }
}

static double change_gap(const struct lora_pair *p, const struct lora_pair *q) {
    const struct lora_pair *pair[] = {p, q};
    double *change = calloc((size_t)(p->in * p->out), sizeof *change), worst = 0;
    for (int s = 0; s < 2; s++) {
        float *a = malloc((size_t)(pair[s]->rank * p->in) * sizeof *a), *b = malloc((size_t)(pair[s]->rank * p->out) * sizeof *b);
        tensor_read_f32(a, pair[s]->a);
        tensor_read_f32(b, pair[s]->b);
        for (int64_t i = 0; i < p->out; i++)
            for (int64_t k = 0; k < pair[s]->rank; k++)
                for (int64_t j = 0; j < p->in; j++)
                    change[i * p->in + j] += (s ? -1 : 1) * pair[s]->scale * (double)b[i * pair[s]->rank + k] * (double)a[k * p->in + j];
        free(a);
        free(b);
    }
    for (int64_t i = 0; i < p->in * p->out; i++) worst = fmax(worst, fabs(change[i]));
    free(change);
    return worst;
}

static void check_case(const char *dir, const char *name) {
    struct cb_err err = {0};
    char path[1600], base[1300], tuned[1300], folder[128], spec[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    json_t *about = json_of(path_of(path, "golden.json"));
    CHECK(about, "%s/golden.json", path);
    snprintf(base, sizeof base, "%s/%s", dir, json_string_value(json_object_get(about, "base")));
    snprintf(tuned, sizeof tuned, "%s/%s", dir, json_string_value(json_object_get(about, "model")));
    spec_of(json_object_get(about, "args"), spec, sizeof spec);
    const double tolerance = json_number_value(json_object_get(json_object_get(about, "tolerance"), "delta_of_each_module"));
    struct cb_engine *engine;
    struct cb_extract_result result;
    temporary_folder(folder, "merge");
    CHECK_OK(cb_engine_create(&engine, NULL, &err));
    struct cb_extract_options o = {.base = base, .tuned = tuned, .out = folder, .spec = spec};
    CHECK_OK(cb_extract(engine, &o, &result, &err));
    struct arena *arena = arena_create();
    struct lora got, want;
    CHECK_OK(lora_open(&got, folder, arena, &err));
    CHECK_OK(lora_open(&want, path_of(path, "output"), arena, &err));
    CHECK(got.n_pairs == want.n_pairs && got.n_whole == want.n_whole, "%s: %d pairs and %d whole; wanted %d and %d", name, got.n_pairs,
          got.n_whole, want.n_pairs, want.n_whole);
    double worst = 0;
    for (int i = 0; i < want.n_pairs; i++) {
        const struct lora_pair *p = lora_find(&got, want.pairs[i].site);
        CHECK(p && p->in == want.pairs[i].in && p->out == want.pairs[i].out, "%s: %s", name, want.pairs[i].site);
        worst = fmax(worst, change_gap(p, &want.pairs[i]));
    }
    for (int i = 0; i < want.n_whole; i++) {
        const struct tensor *t = tensors_find(got.tensors, want.whole[i]->name);
        CHECK(t && t->bytes == want.whole[i]->bytes && !memcmp(tensor_data(t), tensor_data(want.whole[i]), (size_t)t->bytes), "%s: %s",
              name, want.whole[i]->name);
    }
    fprintf(stderr, "%-24s %-44s gap %.2e (tolerance %.0e), kept %.3f\n", name, spec, worst, tolerance, result.kept);
    CHECK(tolerance > 0 && worst <= tolerance, "%s: differs by %g", name, worst);
    // what it says of itself: no weight is further off than that
    CHECK(result.kept > 0 && result.kept <= 1 && result.max_error >= 0, "%s: %g kept", name, result.kept);
    lora_close(&got);
    lora_close(&want);
    arena_destroy(&arena);
    cb_engine_destroy(&engine);
    json_decref(about);
}

TEST(merge_extract, gives_what_mergekit_wrote) {
    const char *dir = modules_dir();
    if (!dir) return;
    char root[1200];
    snprintf(root, sizeof root, "%s", dir);
    check_case(root, "mk_extract_r4");
    check_case(root, "mk_extract_full");
    check_case(root, "mk_extract_embed");
    check_case(root, "mk_extract_exclude");
}

TEST(merge_extract, at_full_rank_it_is_the_training) {
    struct cb_err err = {0};
    struct cb_engine *engine;
    struct cb_extract_result x;
    struct cb_merge_result m;
    char folder[128], base[160], tuned[160], lora[160], back[160];
    temporary_folder(folder, "merge");
    snprintf(base, sizeof base, "%s/base", folder);
    snprintf(tuned, sizeof tuned, "%s/tuned", folder);
    snprintf(lora, sizeof lora, "%s/lora", folder);
    snprintf(back, sizeof back, "%s/back", folder);
    make_model(base, 2, 8, 13, 1, "f32");
    make_model(tuned, 2, 8, 13, 2, "f32");
    CHECK_OK(cb_engine_create(&engine, NULL, &err));
    struct cb_extract_options o = {.base = base, .tuned = tuned, .out = lora, .spec = "r=64"};
    CHECK_OK(cb_extract(engine, &o, &x, &err));
    CHECK(fabs(x.kept - 1) < 1e-12 && x.max_error == 0, "%g kept, %g off", x.kept, x.max_error);
    // folded into the base it gives the tuned model back
    struct cb_merge_options fold = {.model = base, .modules = lora, .out = back};
    CHECK_OK(cb_merge(engine, &fold, &m, &err));
    const double gap = tensors_gap(path_of(tuned, "model.safetensors"), path_of(back, "model.safetensors"));
    CHECK(gap >= 0 && gap < 1e-6, "off by %g", gap);
    // wrong use
    o.spec = "rank=4";
    CHECK_FAILS(cb_extract(engine, &o, &x, &err), CB_E_USAGE, "rank");
    o.spec = "r=0";
    CHECK_FAILS(cb_extract(engine, &o, &x, &err), CB_E_FORMAT, "r: found 0");
    o.spec = "r=4";
    make_model(tuned, 2, 12, 13, 2, "f32");
    CHECK_FAILS(cb_extract(engine, &o, &x, &err), CB_E_SHAPE, "wanted f32[13,8]");
    cb_engine_destroy(&engine);
}

/* A layer's bias goes beside its factors, where PEFT looks for it (bias: lora_only), not to modules_to_save, which would want the weight too, as of a head;
   that of a layer that is left out stays the base's, and no target means that layer. */
TEST(merge_extract, biases_of_layers_lie_beside_their_factors) {
    struct cb_err err = {0};
    char folder[128], out[160];
    struct tensors *model[2];
    float data[2][12];
    temporary_folder(folder, "merge");
    snprintf(out, sizeof out, "%s/out", folder);
    for (int m = 0; m < 2; m++) {
        for (int i = 0; i < 12; i++) data[m][i] = (float)((m + 1) * (i + 1) % 7);
        static const char *const names[] = {"l.q.weight", "l.q.bias",      "n.q.weight",  "n.q.bias",
                                            "score.bias", "l.norm.weight", "l.norm.bias", "score.weight"};
        struct tensor_item items[8];
        for (int i = 0; i < 8; i++) {
            const struct cb_type matrix = type_make(CB_DTYPE_F32, 2, (const int64_t[]){3, 4});
            const struct cb_type vector = type_make(CB_DTYPE_F32, 1, (const int64_t[]){3});
            items[i] = (struct tensor_item){.name = names[i], .type = i == 0 || i == 2 || i == 7 ? matrix : vector, .data = data[m]};
        }
        char path[200];
        snprintf(path, sizeof path, "%s/%d.safetensors", folder, m);
        CHECK_OK(tensors_write(path, items, 8, NULL, NULL, NULL, &err));
        CHECK_OK(tensors_open(&model[m], path, &err));
    }
    static const struct lora_site sites[] = {{.name = "l.q"}, {.name = "n.q"}, {.name = "score"}};
    struct pattern *exclude;
    struct lora_extracted result;
    CHECK_OK(pattern_create(&exclude, "n.*", "exclude", &err));
    const struct lora_extract o = {.base = model[0],
                                   .tuned = model[1],
                                   .sites = sites,
                                   .n_sites = 3,
                                   .vocabulary_head = "score",
                                   .rank = 3,
                                   .exclude = exclude,
                                   .base_path = "base"};
    CHECK_OK(lora_extract(&o, out, &result, &err));
    struct tensors *got;
    CHECK_OK(tensors_open(&got, path_of(out, "adapter_model.safetensors"), &err));
    const struct tensor *bias = tensors_find(got, "base_model.model.l.q.base_layer.bias");
    CHECK(bias && ((const float *)tensor_data(bias))[2] == data[1][2] && tensors_count(got) == 7, "%d tensors", tensors_count(got));
    CHECK(tensors_find(got, "base_model.model.score.bias") && tensors_find(got, "base_model.model.score.weight"), "the head");
    json_t *config = json_of(path_of(out, "adapter_config.json")), *saved = json_object_get(config, "modules_to_save");
    char *said = json_dumps(saved, JSON_COMPACT | JSON_ENCODE_ANY),
         *meant = json_dumps(json_object_get(config, "target_modules"), JSON_COMPACT);
    CHECK(said && !strcmp(said, "[\"norm\",\"score\"]"), "modules_to_save: %s", said);
    CHECK(meant && !strcmp(meant, "[\"l.q\"]"), "target_modules: %s", meant);
    free(said);
    free(meant);
    CHECK(!strcmp(json_string_value(json_object_get(config, "bias")), "lora_only"), "bias");
    json_decref(config);
    pattern_destroy(&exclude);
    tensors_destroy(&got);
    for (int m = 0; m < 2; m++) tensors_destroy(&model[m]);
}
