/* Every combination of the outside fixtures: PEFT's own reading gives PEFT's result; the exact reading gives the weighted sum of what the modules do. */
#include <dirent.h>

#include "harness.h"
#include "io/file.h"
#include "io/yaml.h"
#include "merge/fixtures.h"
#include "merge/lora.h"

struct drawn {
    const json_t *draws;
    struct tensors *golden;
    const char *recipe;
};

/* Masks by module, part (A, B or the whole change) and adapter. */
static const unsigned char *find_mask(void *context, const char *model, const char *tensor, int64_t n) {
    const struct drawn *d = context;
    for (size_t i = 0; i < json_array_size(d->draws); i++) {
        const json_t *who = json_array_get(d->draws, i);
        const char *part = json_string_value(json_array_get(who, 1));
        char name[600];
        snprintf(name, sizeof name, strcmp(part, "delta") ? "%s.%s" : "%s", json_string_value(json_array_get(who, 0)), part);
        if (strcmp(name, tensor) || strcmp(json_string_value(json_array_get(who, 2)), model)) continue;
        snprintf(name, sizeof name, "draw.%s.%zu", d->recipe, i);
        const struct tensor *t = tensors_find(d->golden, name);
        return t && type_elements(&t->type) == n ? tensor_data(t) : NULL;
    }
    return NULL;
}

/* scale B A, added times factor to change(out,in). */
static void add_change(const struct lora_pair *p, double factor, double *change) {
    float *a = malloc((size_t)(p->rank * p->in) * sizeof *a), *b = malloc((size_t)(p->rank * p->out) * sizeof *b);
    tensor_read_f32(a, p->a);
    tensor_read_f32(b, p->b);
    for (int64_t i = 0; i < p->out; i++)
        for (int64_t k = 0; k < p->rank; k++)
            for (int64_t j = 0; j < p->in; j++)
                change[i * p->in + j] += factor * p->scale * (double)b[i * p->rank + k] * (double)a[k * p->in + j];
    free(a);
    free(b);
}

static double vector_gap(const struct tensor *a, const struct tensor *b) {
    if (!a && !b) return 0;
    if (!a || !b || type_elements(&a->type) != type_elements(&b->type)) return INFINITY;
    double worst = 0;
    const int64_t n = type_elements(&a->type);
    float *x = malloc((size_t)n * 2 * sizeof *x + 1);
    tensor_read_f32(x, a);
    tensor_read_f32(x + n, b);
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)x[i] - (double)x[n + i]));
    free(x);
    return worst;
}

/* Of a file whose tensors have another rank than its configuration, which PEFT writes but cannot read: what it did before it was written. */
static void mend_scales(struct lora *l) {
    for (int i = 0; i < l->n_pairs && !json_object_size(json_object_get(l->config, "rank_pattern")); i++)
        if (l->pairs[i].rank != l->r) l->pairs[i].scale = l->alpha / (l->rslora ? sqrt((double)l->r) : (double)l->r);
}

/* Largest difference of what two modules do, biases and magnitudes too. */
static double module_gap(const char *got, const char *want) {
    struct cb_err err = {0};
    struct arena *arena = arena_create();
    struct lora a, b;
    double worst = 0;
    CHECK_OK(lora_open(&a, got, arena, &err));
    CHECK_OK(lora_open(&b, want, arena, &err));
    mend_scales(&b);
    if (a.n_pairs != b.n_pairs || a.rslora != b.rslora || a.dora != b.dora) worst = INFINITY;
    for (int i = 0; i < b.n_pairs; i++) {
        const struct lora_pair *p = &b.pairs[i], *q = lora_find(&a, p->site);
        if (!q || q->in != p->in || q->out != p->out) worst = INFINITY;
        if (!q || q->in != p->in || q->out != p->out) continue;
        double *change = calloc((size_t)(p->in * p->out), sizeof *change);
        add_change(p, 1, change);
        add_change(q, -1, change);
        for (int64_t k = 0; k < p->in * p->out; k++) worst = fmax(worst, fabs(change[k]));
        free(change);
        worst = fmax(worst, vector_gap(p->bias, q->bias));
        worst = fmax(worst, vector_gap(p->magnitude, q->magnitude));
    }
    lora_close(&a);
    lora_close(&b);
    arena_destroy(&arena);
    return worst;
}

static json_t *recipe_of(const char *folder, const json_t *case_recipe, const char *method, const char *convention) {
    json_t *root = json_object(), *models = json_array(), *parameters = json_object();
    const json_t *names = json_object_get(case_recipe, "adapters"), *weights = json_object_get(case_recipe, "weights");
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *path = path_of(folder, json_string_value(json_array_get(names, i)));
        json_array_append_new(models, json_pack("{s:s, s:{s:O}}", "model", path, "parameters", "weight", json_array_get(weights, i)));
    }
    static const char *const pairs[][2] = {
        {"density", "density"}, {"majority_sign_method", "majority_sign_method"}, {"svd_rank", "rank"}, {"svd_clamp", "clamp"}};
    for (int i = 0; i < 4; i++) {
        json_t *v = json_object_get(case_recipe, pairs[i][0]);
        if (v) json_object_set(parameters, pairs[i][1], v);
    }
    json_object_set_new(parameters, "convention", json_string(convention));
    json_object_set_new(root, "merge_method", json_string(method));
    json_object_set_new(root, "models", models);
    json_object_set_new(root, "parameters", parameters);
    return root;
}

static enum cb_status merge_modules(json_t *root, struct tensors *base, const struct merge_masks *masks, const char *folder,
                                    struct lora_report *report, struct cb_err *err) {
    struct merge_recipe *recipe = NULL;
    struct lora_run run = {.masks = masks, .base = base};
    struct lora_report none;
    enum cb_status status = pool_create(&run.pool, 2, err);
    if (status == CB_OK) status = merge_recipe_create(&recipe, root, "recipe", err);
    if (status == CB_OK) status = lora_merge(recipe, &run, folder, report ? report : &none, err);
    merge_recipe_destroy(&recipe);
    pool_destroy(&run.pool);
    return status;
}

static int check_case(const char *dir, const char *name) {
    struct cb_err err = {0};
    char path[1600], folder[128], out[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    json_t *about = json_of(path_of(path, "golden.json")), *recipe;
    const char *key;
    struct tensors *golden, *base;
    int n = 0;
    CHECK(about, "%s/golden.json", path);
    CHECK_OK(tensors_open(&golden, path_of(path, "golden.safetensors"), &err));
    CHECK_OK(tensors_open(&base, path_of(dir, json_string_value(json_object_get(about, "base"))), &err));
    temporary_folder(folder, "merge");
    json_object_foreach(json_object_get(about, "recipes"), key, recipe) {
        struct drawn d = {json_object_get(recipe, "draws"), golden, key};
        struct merge_masks masks = {find_mask, &d};
        snprintf(out, sizeof out, "%s/%d", folder, n);
        json_t *root = recipe_of(path, recipe, json_string_value(json_object_get(recipe, "combination_type")), "peft");
        if (json_object_get(recipe, "refused")) {
            CHECK_FAILS(merge_modules(root, base, NULL, out, NULL, &err), CB_E_SHAPE, "one rank");
            fprintf(stderr, "%-24s %-20s refused, as there\n", name, key);
        } else {
            CHECK_OK(merge_modules(root, base, d.draws ? &masks : NULL, out, NULL, &err));
            const double gap = module_gap(out, path_of(path, key));
            fprintf(stderr, "%-24s %-20s gap %.2e\n", name, key, gap);
            // what a cut-off changes depends on the signs of singular vectors, which are free: compared with PEFT's signs below
            if (!json_object_get(recipe, "svd_clamp")) CHECK(gap < 1e-5, "%s %s: differs by %g", name, key, gap);
        }
        json_decref(root);
        n++;
    }
    tensors_destroy(&golden);
    tensors_destroy(&base);
    json_decref(about);
    return n;
}

TEST(merge_peft, gives_what_peft_wrote) {
    const char *dir = modules_dir();
    char root[1200];
    int n = 0;
    if (!dir) return;
    snprintf(root, sizeof root, "%s", dir);
    DIR *d = opendir(root);
    CHECK(d, "the fixtures' folder");
    for (struct dirent *e; (e = readdir(d));)
        if (!strncmp(e->d_name, "weighted_", 9)) n += check_case(root, e->d_name);
    closedir(d);
    CHECK(n >= 30, "only %d combinations were found", n);
}

/* ---- the cut-off of a decomposition, with the vectors that PEFT found */

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Both factors cut off at +- the quantile of all their values. */
static void cut(float *a, int64_t na, float *b, int64_t nb, double q) {
    const int64_t n = na + nb;
    float *all = malloc((size_t)n * sizeof *all);
    memcpy(all, a, (size_t)na * sizeof *a);
    memcpy(all + na, b, (size_t)nb * sizeof *b);
    qsort(all, (size_t)n, sizeof *all, by_value);
    const double at = q * (double)(n - 1);
    const int64_t i = (int64_t)at;
    const float most = (float)((double)all[i] + (at - (double)i) * ((double)all[i + 1 < n ? i + 1 : i] - (double)all[i]));
    for (int64_t k = 0; k < na; k++) a[k] = fminf(fmaxf(a[k], -most), most);
    for (int64_t k = 0; k < nb; k++) b[k] = fminf(fmaxf(b[k], -most), most);
    free(all);
}

/* got's factors should be plain's, cut off. Returns the largest difference of the products. */
static double cut_gap(const struct lora *plain, const struct lora *got, double q) {
    double worst = 0;
    for (int i = 0; i < plain->n_pairs; i++) {
        const struct lora_pair *p = &plain->pairs[i], *g = lora_find(got, p->site);
        const int64_t na = p->rank * p->in, nb = p->rank * p->out;
        float *x = malloc((size_t)(na + nb) * 2 * sizeof *x), *y = x + na + nb;
        if (!g || g->rank != p->rank) return INFINITY;
        tensor_read_f32(x, p->a);
        tensor_read_f32(x + na, p->b);
        tensor_read_f32(y, g->a);
        tensor_read_f32(y + na, g->b);
        cut(x, na, x + na, nb, q);
        for (int64_t r = 0; r < p->out; r++)
            for (int64_t c = 0; c < p->in; c++) {
                double sum = 0;
                for (int64_t k = 0; k < p->rank; k++)
                    sum += (double)x[na + r * p->rank + k] * (double)x[k * p->in + c] -
                           (double)y[na + r * p->rank + k] * (double)y[k * p->in + c];
                worst = fmax(worst, fabs(sum));
            }
        free(x);
    }
    return worst;
}

TEST(merge_peft, a_decomposition_is_cut_off_at_a_quantile) {
    const char *dir = modules_dir();
    struct cb_err err = {0};
    char root[1200], folder[128];
    if (!dir) return;
    snprintf(root, sizeof root, "%s/weighted_llama", dir);
    temporary_folder(folder, "merge");
    json_t *about = json_of(path_of(root, "golden.json")), *recipes = json_object_get(about, "recipes");
    const double q = json_number_value(json_object_get(json_object_get(recipes, "svd_clamp"), "svd_clamp"));
    struct arena *arena = arena_create();
    struct lora plain, clamped;
    // PEFT's own two results agree with the reading of the option
    CHECK_OK(lora_open(&plain, path_of(root, "svd"), arena, &err));
    CHECK_OK(lora_open(&clamped, path_of(root, "svd_clamp"), arena, &err));
    CHECK(cut_gap(&plain, &clamped, q) < 1e-5, "PEFT's: %g", cut_gap(&plain, &clamped, q));
    lora_close(&plain);
    lora_close(&clamped);
    // and so do ours
    static const char *const names[] = {"svd", "svd_clamp"};
    char out[2][200];
    for (int i = 0; i < 2; i++) {
        json_t *r = recipe_of(root, json_object_get(recipes, names[i]), "svd", "peft");
        snprintf(out[i], sizeof out[i], "%s/%s", folder, names[i]);
        CHECK_OK(merge_modules(r, NULL, NULL, out[i], NULL, &err));
        json_decref(r);
    }
    CHECK_OK(lora_open(&plain, out[0], arena, &err));
    CHECK_OK(lora_open(&clamped, out[1], arena, &err));
    CHECK(q > 0 && cut_gap(&plain, &clamped, q) < 1e-6, "ours: %g", cut_gap(&plain, &clamped, q));
    lora_close(&plain);
    lora_close(&clamped);
    arena_destroy(&arena);
    json_decref(about);
}

/* ---- the exact reading: what PEFT gets wrong is right */

/* Merges folders of a fixture by a method with weights 0.7, 0.4, ... and more parameters (YAML flow). */
static enum cb_status merge_exactly(const char *root, const char *const *names, int n, const char *method, const char *more,
                                    struct tensors *base, const char *out, struct lora_report *report, struct cb_err *err) {
    static const double weights[] = {0.7, 0.4, -1.2};
    char text[3000];
    int at = snprintf(text, sizeof text, "merge_method: %s\nparameters: {%s}\nmodels:\n", method, more);
    for (int i = 0; i < n; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "- {model: '%s/%s', parameters: {weight: %g}}\n", root, names[i], weights[i]);
    json_t *recipe = NULL;
    TRY(yaml_parse(&recipe, text, strlen(text), "recipe", err));
    enum cb_status status = merge_modules(recipe, base, NULL, out, report, err);
    json_decref(recipe);
    return status;
}

/* Largest difference of a merged module from the weighted sum of what its parts do, biases with them. */
static double sum_gap(const char *root, const char *const *names, int n, const char *out) {
    static const double weights[] = {0.7, 0.4, -1.2};
    struct cb_err err = {0};
    struct arena *arena = arena_create();
    struct lora part[3], got;
    double worst = 0;
    CHECK_OK(lora_open(&got, out, arena, &err));
    for (int i = 0; i < n; i++) CHECK_OK(lora_open(&part[i], path_of(root, names[i]), arena, &err));
    CHECK(!got.rslora && !got.dora, "a plain LoRA");
    for (int s = 0; s < got.n_pairs; s++) {
        const struct lora_pair *g = &got.pairs[s];
        double *change = calloc((size_t)(g->in * g->out), sizeof *change);
        float *bias = calloc((size_t)g->out * 2, sizeof *bias);
        double *wanted = calloc((size_t)g->out, sizeof *wanted);
        add_change(g, -1, change);
        for (int i = 0; i < n; i++) {
            const struct lora_pair *p = lora_find(&part[i], g->site);
            if (p) add_change(p, weights[i], change);
            if (p && p->bias) tensor_read_f32(bias, p->bias);
            for (int64_t k = 0; p && p->bias && k < g->out; k++) wanted[k] += weights[i] * p->scale * (double)bias[k];
        }
        if (g->bias) tensor_read_f32(bias + g->out, g->bias);
        for (int64_t k = 0; k < g->out; k++) worst = fmax(worst, fabs(wanted[k] - g->scale * (double)bias[g->out + k]));
        for (int64_t k = 0; k < g->in * g->out; k++) worst = fmax(worst, fabs(change[k]));
        free(change);
        free(bias);
        free(wanted);
    }
    for (int i = 0; i < n; i++) lora_close(&part[i]);
    lora_close(&got);
    arena_destroy(&arena);
    return worst;
}

TEST(merge_peft, the_exact_reading_is_the_weighted_sum) {
    const char *dir = modules_dir();
    struct cb_err err = {0};
    char root[1400], folder[128];
    struct lora_report report;
    if (!dir) return;
    char all[1200];
    snprintf(all, sizeof all, "%s", dir);
    temporary_folder(folder, "merge");
    static const struct {
        const char *name, *parts[3];
        int n;
    } cases[] = {{"weighted_llama", {"a", "c", "b"}, 3},
                 {"weighted_rslora", {"a", "b", "d"}, 3},
                 {"weighted_pattern", {"a", "b"}, 2},
                 {"weighted_bias", {"a", "b"}, 2},
                 {"weighted_gpt2", {"a", "b"}, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(root, sizeof root, "%s/%s", all, cases[i].name);
        // one module, several by concatenation, and at a rank that holds them all
        CHECK_OK(merge_exactly(root, cases[i].parts, 1, "linear", "", NULL, folder, &report, &err));
        CHECK(sum_gap(root, cases[i].parts, 1, folder) < 1e-6, "%s: one: %g", cases[i].name, sum_gap(root, cases[i].parts, 1, folder));
        CHECK_OK(merge_exactly(root, cases[i].parts, cases[i].n, "linear", "", NULL, folder, &report, &err));
        CHECK(sum_gap(root, cases[i].parts, cases[i].n, folder) < 2e-6, "%s: joined", cases[i].name);
        CHECK_OK(merge_exactly(root, cases[i].parts, cases[i].n, "svd", "rank: 12", NULL, folder, &report, &err));
        CHECK(sum_gap(root, cases[i].parts, cases[i].n, folder) < 5e-6 && report.max_error < 1e-5, "%s: decomposed", cases[i].name);
        // at a lower rank the report bounds the difference
        CHECK_OK(merge_exactly(root, cases[i].parts, cases[i].n, "svd", "rank: 2", NULL, folder, &report, &err));
        const double off = sum_gap(root, cases[i].parts, cases[i].n, folder);
        CHECK(report.rank == 2 && off > 1e-4 && off <= report.max_error * 1.0001 + 1e-6, "%s: rank 2: off by %g, said %g", cases[i].name,
              off, report.max_error);
    }
    // DoRA by what it does to the base: refused without one, exact at full rank
    snprintf(root, sizeof root, "%s/weighted_dora", all);
    static const char *const dora[] = {"a", "b"};
    struct tensors *base;
    CHECK_FAILS(merge_exactly(root, dora, 2, "linear", "", NULL, folder, &report, &err), CB_E_USAGE, "base_model");
    CHECK_OK(tensors_open(&base, path_of(all, "base_llama"), &err));
    CHECK_OK(merge_exactly(root, dora, 2, "linear", "rank: 64", base, folder, &report, &err));
    CHECK(report.max_error < 1e-5, "DoRA: off by %g", report.max_error);
    tensors_destroy(&base);
    // methods of models on the modules' changes
    snprintf(root, sizeof root, "%s/weighted_llama", all);
    static const char *const abc[] = {"a", "b", "c"};
    CHECK_OK(merge_exactly(root, abc, 3, "breadcrumbs", "density: 0.5, rank: 64", NULL, folder, &report, &err));
    CHECK_OK(merge_exactly(root, abc, 3, "ties", "convention: mergekit, density: 0.5, rank: 64", NULL, folder, &report, &err));
    CHECK_OK(merge_exactly(root, abc, 3, "task_arithmetic", "rank: 64", NULL, folder, &report, &err));
    CHECK(sum_gap(root, abc, 3, folder) < 5e-6, "task arithmetic is the sum");
    // and what is refused
    CHECK_FAILS(merge_exactly(root, abc, 3, "arcee_fusion", "", NULL, folder, &report, &err), CB_E_UNSUPPORTED, "whole models");
    CHECK_FAILS(merge_exactly(root, abc, 3, "nothing", "", NULL, folder, &report, &err), CB_E_NAME, "unknown");
    CHECK_FAILS(merge_exactly(root, abc, 3, "linear", "convention: other", NULL, folder, &report, &err), CB_E_USAGE,
                "exact, peft or mergekit");
    CHECK_FAILS(merge_exactly(root, abc, 3, "ties", "", NULL, folder, &report, &err), CB_E_USAGE, "density");
    CHECK_FAILS(merge_exactly(root, abc, 3, "linear", "dencity: 1", NULL, folder, &report, &err), CB_E_NAME, "dencity");
    snprintf(root, sizeof root, "%s", all);
    static const char *const two[] = {"weighted_llama/a", "weighted_gpt2/a"}, *const other[] = {"ia3_llama"};
    CHECK_FAILS(merge_exactly(root, two, 2, "linear", "", NULL, folder, &report, &err), CB_E_FORMAT, "one base");
    CHECK_FAILS(merge_exactly(root, other, 1, "linear", "", NULL, folder, &report, &err), CB_E_UNSUPPORTED, "wanted LORA");
}

/* A module folder of one pair and a configuration. */
static void write_module(const char *folder, const char *config, int rank_a, int rank_b, float value) {
    struct cb_err err = {0};
    float data[64] = {value};
    struct tensor_item items[2] = {{.name = "base_model.model.q.lora_A.weight", .data = data},
                                   {.name = "base_model.model.q.lora_B.weight", .data = data}};
    items[0].type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){rank_a, 4});
    items[1].type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){5, rank_b});
    CHECK_OK(io_mkdirs(folder, &err));
    CHECK_OK(tensors_write(path_of(folder, "adapter_model.safetensors"), items, rank_a ? 2 : 1, NULL, NULL, NULL, &err));
    CHECK_OK(io_write_file(path_of(folder, "adapter_config.json"), config, strlen(config), &err));
}

/* PEFT counts the largest of rank_pattern, of sites that the file has or has not. */
TEST(merge_peft, ranks_of_patterns_count) {
    struct cb_err err = {0};
    struct lora_report report;
    char folder[128], out[160];
    temporary_folder(folder, "merge");
    snprintf(out, sizeof out, "%s/out", folder);
    write_module(path_of(folder, "a"), "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1, \"rank_pattern\": {\"x\": 3}}", 1, 1, 1);
    write_module(path_of(folder, "b"), "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 2}", 2, 2, 1);
    static const char *const names[] = {"a", "b"};
    CHECK_OK(merge_exactly(folder, names, 2, "cat", "convention: peft", NULL, out, &report, &err));
    CHECK(report.rank == 5, "cat: rank %lld", (long long)report.rank);
    CHECK_OK(merge_exactly(folder, names, 2, "svd", "convention: peft", NULL, out, &report, &err));
    CHECK(report.rank == 3, "svd: rank %lld", (long long)report.rank);
    CHECK_FAILS(merge_exactly(folder, names, 2, "linear", "convention: peft", NULL, out, &report, &err), CB_E_SHAPE, "one rank");
    write_module(path_of(folder, "a"), "{\"peft_type\": \"LORA\", \"rank_pattern\": {\"x\": 0}}", 1, 1, 1);
    CHECK_FAILS(merge_exactly(folder, names, 1, "linear", "", NULL, out, &report, &err), CB_E_FORMAT, "rank_pattern");
}

TEST(merge_peft, broken_modules_are_refused) {
    struct cb_err err = {0};
    char folder[128], out[160];
    struct lora_report report;
    static const char *const parts[] = {"a", "a"};
    temporary_folder(folder, "merge");
    snprintf(out, sizeof out, "%s/out", folder);
    char a[160];
    snprintf(a, sizeof a, "%s/a", folder);
#define REFUSED(status, words) CHECK_FAILS(merge_exactly(folder, parts, 2, "linear", "", NULL, out, &report, &err), status, words)
#define GOOD "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, \"target_modules\": [\"q\"]}"
    write_module(a, GOOD, 2, 2, 1);
    CHECK_OK(merge_exactly(folder, parts, 2, "linear", "", NULL, out, &report, &err));
    write_module(a, GOOD, 2, 3, 1);
    REFUSED(CB_E_SHAPE, "wanted (r,in) and (out,r)");
    write_module(a, "{\"r\": 2}", 2, 2, 1);
    REFUSED(CB_E_FORMAT, "peft_type");
    write_module(a, "{\"peft_type\": \"LORA\", \"r\": 0}", 2, 2, 1);
    REFUSED(CB_E_FORMAT, "r: found 0");
    write_module(a, "{\"peft_type\": \"LORA\", \"alpha_pattern\": {\"(\": 1}}", 2, 2, 1);
    REFUSED(CB_E_FORMAT, "pattern");
    write_module(a, "{\"peft_type\": \"LORA\", \"use_dora\": true}", 2, 2, 1);
    REFUSED(CB_E_FORMAT, "magnitudes");
    write_module(a, "[]", 2, 2, 1);
    REFUSED(CB_E_FORMAT, "");
    // options under which A and B alone are not the change: on by name, off they say nothing
    static const char *const options[][2] = {{"layer_replication", "[[0, 1]]"},  {"use_qalora", "true"},
                                             {"alora_invocation_tokens", "[5]"}, {"target_parameters", "[\"experts.down_proj\"]"},
                                             {"trainable_token_indices", "[1]"}, {"arrow_config", "{\"top_k\": 1}"}};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        char config[200], words[60];
        snprintf(config, sizeof config, "{\"peft_type\": \"LORA\", \"r\": 2, \"%s\": %s}", options[i][0], options[i][1]);
        snprintf(words, sizeof words, "%s: found ", options[i][0]);
        write_module(a, config, 2, 2, 1);
        REFUSED(CB_E_UNSUPPORTED, words);
    }
    write_module(a, "{\"peft_type\": \"LORA\", \"r\": 2, \"layer_replication\": [], \"use_qalora\": false, \"arrow_config\": null}", 2, 2,
                 1);
    CHECK_OK(merge_exactly(folder, parts, 2, "linear", "", NULL, out, &report, &err));
    write_module(a, GOOD, 2, 2, NAN);
    CHECK_FAILS(merge_exactly(folder, parts, 2, "ties", "density: 0.5", NULL, out, &report, &err), CB_E_NUMERIC, "not finite");
    REFUSED(CB_E_NUMERIC, "not finite");
}
