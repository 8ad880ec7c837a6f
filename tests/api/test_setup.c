/* Compositions are converted: modules in folders of their own, and the adapter_setup.json that puts them together. */
#include <cambium/cambium.h>
#include <dirent.h>

#include "../harness.h"
#include "base/json.h"
#include "io/file.h"
#include "io/safetensors.h"

static struct cb_err err;

struct place {
    char root[128];
    struct cb_engine *engine;
};
static void place_open(struct place *p) {
    temporary_folder(p->root, "setup");
    CHECK_OK(cb_engine_create(&p->engine, &(struct cb_engine_options){.threads = 2}, &err));
    int32_t ids[21];
    for (int i = 0; i < 21; i++) ids[i] = (i * 7 + 3) % 29;
    const struct tensor_item item = {.name = "input_ids", .type = type_make(CB_DTYPE_I32, 2, (int64_t[]){3, 7}), .data = ids};
    char path[160];
    snprintf(path, sizeof path, "%s/in.safetensors", p->root);
    CHECK_OK(tensors_write(path, &item, 1, NULL, NULL, NULL, &err));
}
static void place_close(struct place *p) { cb_engine_destroy(&p->engine); }

static enum cb_status forward(const struct place *p, const char *model, const char *modules, const char *out) {
    char in[160], to[200];
    struct cb_forward_result r = {0};
    snprintf(in, sizeof in, "%s/in.safetensors", p->root);
    snprintf(to, sizeof to, "%s/%s", p->root, out);
    struct cb_forward_options o = {.model = model, .modules = modules, .input = in, .output = to};
    enum cb_status status = cb_forward(p->engine, &o, &r, &err);
    cb_free(r.shapes);
    return status;
}

/* Every output is there in both, and the same to the last bit. */
static void check_same(const struct place *p, const char *name) {
    char path[2][160];
    struct tensors *t[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", p->root, i ? "got.safetensors" : "want.safetensors");
        CHECK_OK(tensors_open(&t[i], path[i], &err));
    }
    CHECK(tensors_count(t[0]) == tensors_count(t[1]) && tensors_count(t[0]), "%s: outputs", name);
    for (int i = 0; i < tensors_count(t[0]); i++) {
        const struct tensor *x = tensors_at(t[0], i), *y = tensors_find(t[1], x->name);
        CHECK(y && type_equal(&x->type, &y->type) && !memcmp(tensor_data(x), tensor_data(y), (size_t)x->bytes), "%s: %s differs", name,
              x->name);
    }
    tensors_destroy(&t[0]);
    tensors_destroy(&t[1]);
}

static json_t *read_setup(const char *folder) {
    char path[1600];
    snprintf(path, sizeof path, "%s/adapter_setup.json", folder);
    return json_load_file(path, 0, NULL);
}

TEST(setup, compositions_of_the_fixtures_are_converted) {
    const char *shared = shared_dir();
    char root[1200], in[1500], base[1500], out[200];
    struct place p;
    int n = 0, n_run = 0;
    if (!shared) return;
    snprintf(root, sizeof root, "%s/fixtures/modules", shared);
    DIR *d = opendir(root);
    CHECK(d, "%s", root);
    place_open(&p);
    for (struct dirent *e; (e = readdir(d));) {
        const char *family = strrchr(e->d_name, '_');
        snprintf(in, sizeof in, "%.1100s/%.200s", root, e->d_name);
        json_t *want = family ? read_setup(in) : NULL;
        if (!want) continue;
        snprintf(base, sizeof base, "%.1100s/base%.100s", root, family);
        snprintf(out, sizeof out, "%s/%.60s", p.root, e->d_name);
        const enum cb_status runs = forward(&p, base, in, "want.safetensors");
        memset(&err, 0, sizeof err);
        struct cb_convert_options o = {.in = in, .out = out, .model = base};
        struct cb_convert_result r;
        const enum cb_status status = cb_convert(p.engine, &o, &r, &err);
        if (runs != CB_OK) fprintf(stderr, "%s: not run here\n", e->d_name);
        if (status != CB_OK) fprintf(stderr, "%s: %s\n", e->d_name, err.message);
        CHECK(status == CB_OK || runs != CB_OK, "%s: %s", e->d_name, err.message);
        memset(&err, 0, sizeof err);
        if (status == CB_OK) {
            json_t *got = read_setup(out);
            CHECK(json_equal(json_object_get(want, "adapter_setup"), json_object_get(got, "adapter_setup")), "%s: the composition",
                  e->d_name);
            CHECK(r.files > 1 || strstr(e->d_name, "single"), "%s: %lld modules", e->d_name, (long long)r.files);
            json_decref(got);
            n++;
        }
        if (status == CB_OK && runs == CB_OK) {
            CHECK_OK(forward(&p, base, out, "got.safetensors"));
            check_same(&p, e->d_name);
            n_run++;
        }
        json_decref(want);
    }
    closedir(d);
    fprintf(stderr, "%d compositions, %d run\n", n, n_run);
    CHECK(n >= 15 && n_run >= 12, "%d compositions, %d run", n, n_run);
    place_close(&p);
}

TEST(setup, an_expression_becomes_a_folder) {
    const char *shared = shared_dir();
    char text[3000], base[1500], out[160];
    struct place p;
    if (!shared) return;
    place_open(&p);
    snprintf(base, sizeof base, "%.1100s/fixtures/modules/base_bert", shared);
    snprintf(out, sizeof out, "%s/out", p.root);
    snprintf(text, sizeof text,
             "stack(\"%.1100s/fixtures/modules/compose_stack_bert/a\", \"%.1100s/fixtures/modules/compose_stack_bert/b\")", shared, shared);
    struct cb_convert_options o = {.in = text, .out = out, .model = base};
    struct cb_convert_result r;
    CHECK_OK(forward(&p, base, text, "want.safetensors"));
    CHECK_OK(cb_convert(p.engine, &o, &r, &err));
    CHECK_OK(forward(&p, base, out, "got.safetensors"));
    check_same(&p, "stack(a, b)");
    CHECK(r.files == 2 && r.tensors > 4 && r.bytes > 0);
    // what has no form there
    snprintf(text, sizeof text,
             "stack(\"%.1100s/fixtures/modules/compose_stack_bert/a\", 0.5*\"%.1100s/fixtures/modules/compose_stack_bert/b\")", shared,
             shared);
    CHECK(cb_convert(p.engine, &o, &r, &err) != CB_OK && strstr(err.message, "weight"), "%s", err.message);
    memset(&err, 0, sizeof err);
    snprintf(text, sizeof text,
             "stack(\"%.1100s/fixtures/modules/compose_stack_bert/a\", \"%.1100s/fixtures/modules/compose_parallel_bert/a\")", shared,
             shared);
    CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_NAME, "two modules of one name");
    o.model = NULL;
    snprintf(text, sizeof text, "%.1100s/fixtures/modules/compose_stack_bert", shared);
    CHECK_FAILS(cb_convert(p.engine, &o, &r, &err), CB_E_USAGE, "--model BASE");
    place_close(&p);
}
