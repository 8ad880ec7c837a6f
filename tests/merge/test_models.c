/* Whole merges of made models: what holds for every method, and what is refused. */

#include "harness.h"
#include "io/file.h"
#include "merge/fixtures.h"

struct bench {
    char folder[128], model[3][160], out[160];
};

static void bench_open(struct bench *b) {
    temporary_folder(b->folder, "merge");
    for (int i = 0; i < 3; i++) {
        snprintf(b->model[i], sizeof b->model[i], "%s/m%d", b->folder, i);
        make_model(b->model[i], 3, 24, 37, (unsigned)i + 1, "f32");
    }
    snprintf(b->out, sizeof b->out, "%s/out", b->folder);
}

/* A recipe of a method over so many of the models as it takes, with the first as base where it wants one. */
static void recipe_of(const struct bench *b, const struct merge_method *m, char *text, size_t size) {
    const bool based = m->base == MERGE_BASE_WANTED || m->base == MERGE_BASE_FIRST;
    int n = m->max_models < 2 ? 1 : 2;
    if (m->base == MERGE_BASE_FIRST) n = 1;
    int at = snprintf(text, size, "merge_method: %s\n%s%s\nmodels:\n", m->name, based ? "base_model: " : "", based ? b->model[0] : "");
    for (int i = 0; i < n; i++) at += snprintf(text + at, size - (size_t)at, "- model: %s\n", b->model[based ? i + 1 : i]);
    at += snprintf(text + at, size - (size_t)at, "parameters: {");
    for (int k = 0; k < MERGE_MAX_OPTIONS && m->options[k].name; k++) {
        const struct merge_option *o = &m->options[k];
        const double v = !strcmp(o->name, "density") ? 0.6 : isnan(o->value) ? 0.5 : o->value;
        if (!o->words)
            at += snprintf(text + at, size - (size_t)at, "%s%s: %.17g", k ? ", " : "", o->name, v);
        else
            at += snprintf(text + at, size - (size_t)at, "%s%s: %s", k ? ", " : "", o->name, o->words[(int)v]);
    }
    snprintf(text + at, size - (size_t)at, "}\n");
}

TEST(merge_models, every_method_gives_a_model_with_itself_back) {
    struct cb_err err = {0};
    struct bench b;
    char text[2000], one[200];
    int n = 0;
    bench_open(&b);
    for (int i = 0; merge_method_at(i); i++) {
        const struct merge_method *m = merge_method_at(i);
        struct merge_report r;
        CHECK(m->doc && *m->doc && m->max_models > 0 && m->apply, "%s: wanted doc, max_models and apply", m->name);
        if (m->statistic) continue;  // with its own test
        recipe_of(&b, m, text, sizeof text);
        snprintf(one, sizeof one, "%s/one", b.folder);
        CHECK_OK(merge_text(text, one, 1, &r, &err));
        // normalised methods; others scale by what they are told
        fprintf(stderr, "%-20s identity %.1e conflicts %lld of %lld\n", m->name, r.identity, (long long)r.conflicts,
                (long long)r.shared_elements);
        CHECK(r.identity < 1e-6, "%s: %g", m->name, r.identity);
        // three threads give the same bytes
        CHECK_OK(merge_text(text, b.out, 3, NULL, &err));
        CHECK(tensors_gap(path_of(one, "model.safetensors"), path_of(b.out, "model.safetensors")) == 0, "%s: threads", m->name);
        n++;
    }
    CHECK(n >= 20, "only %d methods", n);
}

/* The share of elements where a and b differ. */
static double changed_share(const char *a, const char *b) {
    struct cb_err err = {0};
    struct tensors *x, *y;
    int64_t changed = 0, all = 0;
    CHECK_OK(tensors_open(&x, a, &err));
    CHECK_OK(tensors_open(&y, b, &err));
    for (int i = 0; i < tensors_count(x); i++) {
        const struct tensor *t = tensors_at(x, i), *u = tensors_find(y, t->name);
        const float *p = tensor_data(t), *q = tensor_data(u);
        for (int64_t k = 0; k < type_elements(&t->type); k++) changed += p[k] != q[k];
        all += type_elements(&t->type);
    }
    tensors_destroy(&x);
    tensors_destroy(&y);
    return (double)changed / (double)all;
}

TEST(merge_models, our_own_masks_keep_the_density) {
    struct cb_err err = {0};
    struct bench b;
    char text[900];
    bench_open(&b);
    for (int i = 0; i < 2; i++) {
        static const char *const names[] = {"dare_linear", "della_linear"};
        snprintf(text, sizeof text,
                 "merge_method: %s\nbase_model: %s\nmodels: [{model: %s}]\nparameters: {weight: 1, density: 0.3, rescale: false}\n",
                 names[i], b.model[0], b.model[1]);
        CHECK_OK(merge_text(text, b.out, 2, NULL, &err));
        const double share = changed_share(b.model[0], b.out);
        CHECK(fabs(share - 0.3) < 0.02, "%s: %g of the values are kept", names[i], share);
    }
    // values are divided by the density on request
    snprintf(text, sizeof text,
             "merge_method: dare_linear\nbase_model: %s\nmodels: [{model: %s}]\nparameters: {weight: 1, density: 0.5, rescale: density}\n",
             b.model[0], b.model[1]);
    CHECK_OK(merge_text(text, b.out, 2, NULL, &err));
    struct tensors *base, *tuned, *got;
    CHECK_OK(tensors_open(&base, b.model[0], &err));
    CHECK_OK(tensors_open(&tuned, b.model[1], &err));
    CHECK_OK(tensors_open(&got, b.out, &err));
    const float *x = tensor_data(tensors_find(base, "lm_head.weight")), *y = tensor_data(tensors_find(tuned, "lm_head.weight"));
    const float *z = tensor_data(tensors_find(got, "lm_head.weight"));
    for (int i = 0; i < 37 * 24; i++) CHECK(z[i] == x[i] || fabsf(z[i] - x[i] - 2 * (y[i] - x[i])) < 1e-6f, "element %d", i);
    tensors_destroy(&base);
    tensors_destroy(&tuned);
    tensors_destroy(&got);
}

/* What mergekit 0.1.5 makes of them: nothing at all is kept, and what lies outside the layers takes a gradient's first number. */
TEST(merge_models, a_density_of_0_keeps_nothing_and_gradients_begin_outside_the_layers) {
    struct cb_err err = {0};
    struct bench b;
    char text[900];
    bench_open(&b);
    static const char *const methods[] = {"ties", "breadcrumbs", "breadcrumbs_ties"};
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "merge_method: %s\nbase_model: %s\nmodels: [{model: %s}]\nparameters: {weight: 1, density: 0}\n",
                 methods[i], b.model[0], b.model[1]);
        CHECK_OK(merge_text(text, b.out, 2, NULL, &err));
        CHECK(changed_share(b.model[0], b.out) == 0, "%s keeps some", methods[i]);
    }
    snprintf(text, sizeof text, "merge_method: slerp\nbase_model: %s\nmodels: [{model: %s}]\nparameters: {t: [0, 1]}\n", b.model[0],
             b.model[1]);
    CHECK_OK(merge_text(text, b.out, 2, NULL, &err));
    struct tensors *base, *tuned, *got;
    CHECK_OK(tensors_open(&base, b.model[0], &err));
    CHECK_OK(tensors_open(&tuned, b.model[1], &err));
    CHECK_OK(tensors_open(&got, b.out, &err));
    for (int i = 0; i < tensors_count(got); i++) {
        const struct tensor *t = tensors_at(got, i);
        size_t begin, end;
        const int64_t layer = merge_layer_of(t->name, &begin, &end);
        const struct tensor *want = tensors_find(layer > 0 ? tuned : base, t->name);
        const float *x = tensor_data(t), *y = tensor_data(want);
        if (layer > 0 && layer < 2) continue;  // between the two
        for (int64_t k = 0; k < type_elements(&t->type); k++) CHECK(fabsf(x[k] - y[k]) < 1e-6f, "%s: %lld", t->name, (long long)k);
    }
    tensors_destroy(&base);
    tensors_destroy(&tuned);
    tensors_destroy(&got);
}

/* Ties by sorting, to check the order statistics against. */
TEST(merge_models, ties_keeps_the_largest_of_large_tensors_with_equal_values) {
    struct cb_err err = {0};
    struct pool *pool;
    enum { N = 100003, KEPT = 33334 };
    float *x = calloc(N, sizeof *x), *zero = calloc(N, sizeof *zero), *out = calloc(N, sizeof *out);
    // many equal values: what is kept of them are the first
    for (int i = 0; i < N; i++) x[i] = (float)((i * 7919) % 5 - 2);
    const struct merge_input in = {.model = "m", .data = x, .dtype = CB_DTYPE_F32},
                             base = {.model = "b", .data = zero, .dtype = CB_DTYPE_F32};
    const struct merge_method *m = merge_method_find("ties");
    double shared[MERGE_MAX_OPTIONS] = {0}, own[1][MERGE_MAX_OPTIONS] = {{0}};
    own[0][merge_option_index(m, "weight")] = 1;
    own[0][merge_option_index(m, "density")] = (KEPT + 0.5) / N;
    shared[merge_option_index(m, "lambda")] = 1;
    struct merge_job job = {.method = m,
                            .name = "t",
                            .n_models = 1,
                            .model = &in,
                            .base = &base,
                            .shared = shared,
                            .own = (const double(*)[MERGE_MAX_OPTIONS])own};
    job.type = type_make(CB_DTYPE_F32, 1, (const int64_t[]){N});
    CHECK_OK(pool_create(&pool, 3, &err));
    job.pool = pool;
    CHECK_OK(merge_begin(&job, &err));
    CHECK_OK(merge_read(&job, 0, N, out, &err));
    merge_end(&job);
    int kept = 0, last = -1;
    for (int i = 0; i < N; i++)
        if (out[i] != 0) {
            CHECK(out[i] == x[i] && fabsf(x[i]) == 2, "element %d: %g", i, (double)out[i]);
            kept++;
            last = i;
        }
    CHECK(kept == KEPT, "%d are kept", kept);
    for (int i = 0; i <= last; i++) CHECK(fabsf(x[i]) != 2 || out[i] != 0, "element %d comes before %d", i, last);
    pool_destroy(&pool);
    free(x);
    free(zero);
    free(out);
}

TEST(merge_models, layers_are_stacked_and_the_configuration_says_so) {
    struct cb_err err = {0};
    struct bench b;
    char text[900];
    json_t *root = NULL, *config;
    struct merge_recipe *recipe;
    struct merge_plan plan;
    bench_open(&b);
    snprintf(
        text, sizeof text,
        "{\"merge_method\": \"passthrough\", \"out_dtype\": \"bfloat16\", \"slices\": ["
        "{\"sources\": [{\"model\": \"%s\", \"layer_range\": [0, 3]}]}, {\"sources\": [{\"model\": \"%s\", \"layer_range\": [1, 3]}]}]}",
        b.model[0], b.model[1]);
    root = json_loads(text, 0, NULL);
    CHECK_OK(merge_json(root, b.out, 2, NULL, NULL, &err));
    CHECK_OK(merge_recipe_create(&recipe, root, "recipe", &err));
    CHECK_OK(merge_plan_open(&plan, recipe, merge_method_find("passthrough"), NULL, &err));
    CHECK_OK(merge_plan_config(&plan, &config, &err));
    CHECK(json_integer_value(json_object_get(config, "num_hidden_layers")) == 5, "layers");
    CHECK(!strcmp(json_string_value(json_object_get(config, "dtype")), "bfloat16"), "dtype");
    struct tensors *got, *from;
    CHECK_OK(tensors_open(&got, b.out, &err));
    CHECK_OK(tensors_open(&from, b.model[1], &err));
    const struct tensor *t = tensors_find(got, "model.layers.4.mlp.up_proj.weight"),
                        *u = tensors_find(from, "model.layers.2.mlp.up_proj.weight");
    CHECK(tensors_count(got) == 5 * 9 + 3 && t && u && t->type.dtype == CB_DTYPE_BF16, "%d tensors", tensors_count(got));
    const uint16_t *p = tensor_data(t);
    const float *q = tensor_data(u);
    for (int i = 0; i < 48 * 24; i++) CHECK(p[i] == bf16_from_f32(q[i]), "element %d", i);
    tensors_destroy(&got);
    tensors_destroy(&from);
    json_decref(config);
    merge_plan_close(&plan);
    merge_recipe_destroy(&recipe);
    json_decref(root);
}

/* Each slice may have a base of its own: then the recipe's is not wanted. */
TEST(merge_models, slices_have_bases) {
    struct cb_err err = {0};
    struct bench b;
    char text[1400];
    bench_open(&b);
    snprintf(text, sizeof text,
             "merge_method: task_arithmetic\nparameters: {weight: 0.5}\nslices:\n"
             "- {base_model: %s, sources: [{model: %s, layer_range: [0, 2]}, {model: %s, layer_range: [0, 2]}]}\n"
             "- {base_model: %s, sources: [{model: %s, layer_range: [2, 3]}, {model: %s, layer_range: [2, 3]}]}\n",
             b.model[0], b.model[0], b.model[1], b.model[1], b.model[2], b.model[1]);
    CHECK_OK(merge_text(text, b.out, 2, NULL, &err));
    struct tensors *got, *from[3];
    CHECK_OK(tensors_open(&got, b.out, &err));
    for (int i = 0; i < 3; i++) CHECK_OK(tensors_open(&from[i], b.model[i], &err));
    for (int layer = 1; layer < 3; layer++) {
        char name[80];
        snprintf(name, sizeof name, "model.layers.%d.mlp.up_proj.weight", layer);
        const float *x = tensor_data(tensors_find(got, name)), *base = tensor_data(tensors_find(from[layer - 1], name)),
                    *tuned = tensor_data(tensors_find(from[layer == 1 ? 1 : 2], name));
        for (int k = 0; k < 48 * 24; k++) CHECK(fabsf(x[k] - (base[k] + 0.5F * (tuned[k] - base[k]))) < 1e-6F, "%s: element %d", name, k);
    }
    tensors_destroy(&got);
    for (int i = 0; i < 3; i++) tensors_destroy(&from[i]);
    snprintf(text, sizeof text,
             "merge_method: ties\nparameters: {weight: 1, density: 0.5}\nslices: [{base_model: %s, sources: [{model: %s, layer_range: [0, "
             "1]}]}]\n",
             b.model[0], b.model[1]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "not among its sources");
}

/* Filters of a source's options are looked for in its own names, those of the whole merge in the result's. */
TEST(merge_models, filters_of_a_source_know_its_own_layers) {
    struct cb_err err = {0};
    struct bench b;
    char text[900];
    bench_open(&b);
    snprintf(
        text, sizeof text,
        "merge_method: passthrough\nslices:\n- sources: [{model: %s, layer_range: [1, 3], parameters: {scale: [{filter: layers.2., value: "
        "2}]}}]\n- sources: [{model: %s, layer_range: [2, 3]}]\nparameters: {scale: [{filter: layers.2., value: 3}, {value: 1}]}\n",
        b.model[0], b.model[0]);
    CHECK_OK(merge_text(text, b.out, 2, NULL, &err));
    struct tensors *got, *from;
    CHECK_OK(tensors_open(&got, b.out, &err));
    CHECK_OK(tensors_open(&from, b.model[0], &err));
    static const struct {
        const char *name, *from;
        float scale;
    } wanted[] = {{"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", 1},
                  {"model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight", 2},
                  {"model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight", 3}};
    for (int i = 0; i < 3; i++) {
        const float *x = tensor_data(tensors_find(got, wanted[i].name)), *y = tensor_data(tensors_find(from, wanted[i].from));
        for (int k = 0; k < 48 * 24; k++) CHECK(x[k] == wanted[i].scale * y[k], "%s: element %d", wanted[i].name, k);
    }
    tensors_destroy(&got);
    tensors_destroy(&from);
}

static void write_tensor(const char *folder, const char *name, float value) {
    struct cb_err err = {0};
    const float data[4] = {1, value, 3, 4};
    const struct tensor_item item = {.name = name, .type = type_make(CB_DTYPE_F32, 1, (const int64_t[]){4}), .data = data};
    CHECK_OK(io_mkdirs(folder, &err));
    CHECK_OK(tensors_write(path_of(folder, "model.safetensors"), &item, 1, NULL, NULL, NULL, &err));
    CHECK_OK(io_write_file(path_of(folder, "config.json"), "{\"model_type\": \"llama\"}", 23, &err));
}

TEST(merge_models, what_cannot_be_merged_is_refused) {
    struct cb_err err = {0};
    struct bench b;
    char text[900], other[200];
    bench_open(&b);
    snprintf(other, sizeof other, "%s/other", b.folder);
#define LINEAR(first, second)                                                                                                           \
    (snprintf(text, sizeof text, "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: %s}, {model: %s}]\n", first, second), \
     text)
    // another vocabulary, width, number of layers
    make_model(other, 3, 24, 41, 4, "f32");
    CHECK_FAILS(merge_text(LINEAR(b.model[0], other), b.out, 1, NULL, &err), CB_E_SHAPE, "different vocabularies");
    make_model(other, 3, 20, 37, 4, "f32");
    CHECK_FAILS(merge_text(LINEAR(b.model[0], other), b.out, 1, NULL, &err), CB_E_SHAPE, "found f32[37,20]; wanted f32[37,24]");
    make_model(other, 2, 24, 37, 4, "f32");
    CHECK_FAILS(merge_text(LINEAR(b.model[0], other), b.out, 1, NULL, &err), CB_E_SHAPE, "found 2 layers; wanted 3");
    CHECK_FAILS(merge_text(LINEAR(other, b.model[0]), b.out, 1, NULL, &err), CB_E_SHAPE, "layers");
    // other tensors, on either side
    write_tensor(other, "model.norm.weight", 1);
    CHECK_FAILS(merge_text(LINEAR(b.model[0], other), b.out, 1, NULL, &err), CB_E_NAME, "no tensor");
    CHECK_FAILS(merge_text(LINEAR(other, b.model[0]), b.out, 1, NULL, &err), CB_E_SHAPE, "");
    // values that are not finite, wherever they stand
    char good[200];
    snprintf(good, sizeof good, "%s/good", b.folder);
    write_tensor(good, "model.norm.weight", 2);
    for (int i = 0; i < 3; i++) {
        write_tensor(other, "model.norm.weight", i == 0 ? NAN : i == 1 ? INFINITY : -INFINITY);
        CHECK_FAILS(merge_text(LINEAR(good, other), b.out, 1, NULL, &err), CB_E_NUMERIC, "not finite");
        snprintf(text, sizeof text, "merge_method: ties\nbase_model: %s\nparameters: {weight: 1, density: 0.5}\nmodels: [{model: %s}]\n",
                 other, good);
        CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_NUMERIC, "not finite");
    }
    // nothing is left under the result's name
    CHECK(!io_is_file(path_of(b.out, "model.safetensors")), "a file was left");
    // models that are not there, methods that are not, numbers of models
    CHECK_FAILS(merge_text(LINEAR(b.model[0], "/nowhere"), b.out, 1, NULL, &err), CB_E_IO, "no such folder");
    CHECK_FAILS(merge_text(LINEAR(b.model[0], "a+b"), b.out, 1, NULL, &err), CB_E_UNSUPPORTED, "adapter");
    snprintf(text, sizeof text, "merge_method: mean\nmodels: [{model: %s}]\n", b.model[0]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_NAME, "mean");
    snprintf(text, sizeof text, "merge_method: ties\nparameters: {weight: 1}\nmodels: [{model: %s}]\n", b.model[0]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "no base_model");
    snprintf(text, sizeof text, "merge_method: slerp\nbase_model: %s\nparameters: {t: 0.5}\nmodels: [{model: %s}, {model: %s}]\n",
             b.model[0], b.model[1], b.model[2]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "found 3 models");
    snprintf(text, sizeof text, "merge_method: passthrough\nmodels: [{model: %s}, {model: %s}]\n", b.model[0], b.model[1]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "wanted 1 to 1");
    snprintf(text, sizeof text,
             "merge_method: della\nbase_model: %s\nparameters: {weight: 1, density: 0.1, epsilon: 0.2}\nmodels: [{model: %s}]\n",
             b.model[0], b.model[1]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "density - epsilon");
    snprintf(text, sizeof text, "merge_method: linear\nparameters: {weight: 0}\nmodels: [{model: %s}]\n", b.model[0]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_NUMERIC, "add up to 0");
    snprintf(text, sizeof text, "merge_method: linear\nparameters: {weight: 1, densty: 1}\nmodels: [{model: %s}]\n", b.model[0]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_NAME, "densty");
    snprintf(text, sizeof text, "merge_method: linear\ndtype: int3\nparameters: {weight: 1}\nmodels: [{model: %s}]\n", b.model[0]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "number type");
    // slices that reach beyond the layers, and a base that is not among them
    snprintf(text, sizeof text, "merge_method: passthrough\nslices: [{sources: [{model: %s, layer_range: [1, 9]}]}]\n", b.model[0]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_SHAPE, "found 3 layers; wanted 9");
    snprintf(text, sizeof text,
             "merge_method: ties\nbase_model: %s\nparameters: {weight: 1}\nslices: [{sources: [{model: %s, layer_range: [0, 1]}]}]\n",
             b.model[0], b.model[1]);
    CHECK_FAILS(merge_text(text, b.out, 1, NULL, &err), CB_E_USAGE, "not among its sources");
}

TEST(merge_models, number_types_shards_and_bare_names) {
    struct cb_err err = {0};
    struct bench b;
    char text[900], other[200];
    bench_open(&b);
    snprintf(other, sizeof other, "%s/other", b.folder);
    // halves stay halves, and are read beside f32
    make_model(other, 3, 24, 37, 9, "f16");
    struct merge_report r;
    CHECK_OK(merge_text(LINEAR(other, b.model[0]), b.out, 2, &r, &err));
    struct tensors *got;
    CHECK_OK(tensors_open(&got, b.out, &err));
    CHECK(tensors_find(got, "lm_head.weight")->type.dtype == CB_DTYPE_F16 && r.max_error > 0 && r.max_error < 1e-4, "%g", r.max_error);
    tensors_destroy(&got);
    // several files
    json_t *root = NULL;
    struct merge_recipe *recipe;
    struct merge_plan plan;
    struct merge_run run = {.shard_bytes = 20000};
    snprintf(text, sizeof text,
             "{\"merge_method\": \"linear\", \"parameters\": {\"weight\": 1}, \"models\": [{\"model\": \"%s\"}, {\"model\": \"%s\"}]}",
             b.model[0], b.model[1]);
    root = json_loads(text, 0, NULL);
    CHECK_OK(merge_json(root, b.out, 2, NULL, NULL, &err));
    CHECK_OK(pool_create(&run.pool, 2, &err));
    CHECK_OK(merge_recipe_create(&recipe, root, "recipe", &err));
    CHECK_OK(merge_plan_open(&plan, recipe, merge_method_find("linear"), NULL, &err));
    CHECK_OK(merge_write(&plan, &run, other, &r, &err));
    CHECK(io_is_file(path_of(other, "model.safetensors.index.json")), "an index");
    CHECK(tensors_gap(b.out, other) == 0, "shards hold the same");
    merge_plan_close(&plan);
    merge_recipe_destroy(&recipe);
    json_decref(root);
    pool_destroy(&run.pool);
}
