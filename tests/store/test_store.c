/* The store: names, places, conversion, saving and loading. */
#include "store/store.h"

#include "../harness.h"
#include "io/file.h"
#include "io/safetensors.h"

static struct cb_err err;

TEST(store, add_find_remove) {
    struct store *s;
    struct store_entry *e, *first = NULL;
    char name[32];
    CHECK_OK(store_create(&s, &err));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "layer.%d.weight", i);
        CHECK_OK(store_add(s, name, (struct cb_type){CB_DTYPE_F32, 2, {3, i}}, &e, &err));
        CHECK((uintptr_t)e->data % 64 == 0 && e->place == STORE_HEAP && e->bytes == 12 * i);
        for (int k = 0; k < 3 * i; k++) CHECK(((float *)e->data)[k] == 0);
        if (!first) first = e;
    }
    CHECK(store_find(s, "layer.0.weight") == first && store_at(s, 299) == e && store_count(s) == 300);
    CHECK_FAILS(store_add(s, "layer.7.weight", e->type, &e, &err), CB_E_NAME, "layer.7.weight");
    CHECK_FAILS(store_add(s, "x", (struct cb_type){CB_DTYPE_F32, 1, {-1}}, &e, &err), CB_E_SHAPE, "negative");
    int64_t before = store_bytes(s, STORE_HEAP);
    for (int i = 0; i < 300; i += 2) {
        snprintf(name, sizeof name, "layer.%d.weight", i);
        store_remove(s, name);
    }
    store_remove(s, "absent");
    CHECK(store_count(s) == 150 && !strcmp(store_at(s, 1)->name, "layer.3.weight") && store_bytes(s, STORE_HEAP) < before);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "layer.%d.weight", i);
        CHECK((store_find(s, name) != NULL) == (i % 2 == 1), "%s", name);
    }
    store_destroy(&s);
    CHECK(!s);
}

TEST(store, big_entries_are_pages) {
    struct store *s;
    struct store_entry *e;
    CHECK_OK(store_create(&s, &err));
    CHECK_OK(store_add(s, "big", (struct cb_type){CB_DTYPE_F32, 1, {600001}}, &e, &err));
    float *v = e->data;
    CHECK((uintptr_t)v % 4096 == 0 && v[0] == 0 && v[600000] == 0);
    v[600000] = 1;
    CHECK_OK(store_make(s, e, CB_DTYPE_BF16, true, &err));
    CHECK(((uint16_t *)e->data)[600000] == 0x3f80 && store_bytes(s, STORE_HEAP) == 1200002);
    CHECK_FAILS(store_add(s, "huge", (struct cb_type){CB_DTYPE_F32, 1, {(int64_t)1 << 55}}, &e, &err), CB_E_MEMORY, "huge");
    CHECK(store_count(s) == 1);
    store_destroy(&s);
}

TEST(store, mapped_entries) {
    struct store *s;
    struct store_entry *e, *odd;
    struct map *m;
    const float x[4] = {1, -2, 0.5f, 3};
    char bytes[17];
    memcpy(bytes + 1, x, 16);
    CHECK_OK(store_create(&s, &err));
    CHECK_OK(map_copy(&m, x, 16, "m", &err));
    CHECK_OK(store_add_map(s, "a", (struct cb_type){CB_DTYPE_F32, 1, {4}}, m, 0, &e, &err));
    CHECK(e->place == STORE_MAP && e->data == map_data(m) && store_bytes(s, STORE_MAP) == 16);
    CHECK_FAILS(store_add_map(s, "b", (struct cb_type){CB_DTYPE_F32, 1, {4}}, m, 4, &e, &err), CB_E_FORMAT, "b: 16 bytes from 4");
    map_release(&m);  // the entry holds its own
    e = store_find(s, "a");
    CHECK_OK(store_make(s, e, CB_DTYPE_F32, false, &err));
    CHECK(e->place == STORE_MAP);
    CHECK_OK(store_make(s, e, CB_DTYPE_F32, true, &err));
    CHECK(e->place == STORE_HEAP && !memcmp(e->data, x, 16) && store_bytes(s, STORE_MAP) == 0);
    CHECK_OK(store_make(s, e, CB_DTYPE_F16, true, &err));
    CHECK(e->bytes == 8 && ((uint16_t *)e->data)[1] == 0xc000);
    CHECK_FAILS(store_make(s, e, CB_DTYPE_I32, true, &err), CB_E_DTYPE, "cannot make i32 of f16[4]");
    CHECK_FAILS(store_make(s, e, CB_DTYPE_Q8_0, true, &err), CB_E_SHAPE, "multiple of 32");
    // bytes off their alignment are copied
    CHECK_OK(map_copy(&m, bytes, 17, "m", &err));
    CHECK_OK(store_add_map(s, "odd", (struct cb_type){CB_DTYPE_F32, 1, {4}}, m, 1, &odd, &err));
    CHECK(odd->place == STORE_HEAP && !memcmp(odd->data, x, 16));
    map_release(&m);
    store_destroy(&s);
}

static bool pick(void *context, const struct store_entry *entry, const char **name, enum cb_dtype *dtype) {
    if (!strcmp(entry->name, "skip")) return false;
    if (!strcmp(entry->name, "w")) *name = context, *dtype = CB_DTYPE_BF16;
    return true;
}
static const char *rename_tensor(void *context, const struct tensor *tensor) {
    (void)context;
    return strcmp(tensor->name, "ids") ? "weight" : NULL;
}

TEST(store, save_and_load) {
    char folder[128];
    char *path = io_path_join(temporary_folder(folder, "store"), "x.safetensors");
    struct store *s, *again;
    struct store_entry *e;
    struct tensors *t;
    CHECK_OK(store_create(&s, &err));
    enum { N = 700001 };
    CHECK_OK(store_add(s, "w", (struct cb_type){CB_DTYPE_F32, 1, {N}}, &e, &err));
    for (int i = 0; i < N; i++) ((float *)e->data)[i] = (float)(i % 128);
    CHECK_OK(store_add(s, "skip", (struct cb_type){CB_DTYPE_F32, 1, {2}}, &e, &err));
    CHECK_OK(store_add(s, "ids", (struct cb_type){CB_DTYPE_I64, 1, {2}}, &e, &err));
    ((int64_t *)e->data)[1] = INT64_MAX - 5;
    CHECK_OK(store_save(s, path, 0, pick, "model.w", NULL, &err));
    CHECK_OK(tensors_open(&t, path, &err));
    CHECK(tensors_count(t) == 2 && tensors_find(t, "model.w")->type.dtype == CB_DTYPE_BF16);
    CHECK(((const int64_t *)tensor_data(tensors_find(t, "ids")))[1] == INT64_MAX - 5);
    CHECK_OK(store_create(&again, &err));
    CHECK_OK(store_load(again, t, rename_tensor, NULL, &err));
    tensors_destroy(&t);  // entries outlive the set
    CHECK(store_count(again) == 1 && (e = store_find(again, "weight")) && e->place == STORE_MAP);
    CHECK_OK(store_make(again, e, CB_DTYPE_F32, true, &err));
    CHECK(!memcmp(e->data, store_find(s, "w")->data, (size_t)N * 4));
    store_destroy(&again);
    // shards, by their folder
    CHECK_OK(store_save(s, folder, 2000000, NULL, NULL, NULL, &err));
    CHECK_OK(tensors_open(&t, folder, &err));
    CHECK(tensors_count(t) == 3 && strstr(tensors_name(t), "index"));
    tensors_destroy(&t);
    store_destroy(&s);
    free(path);
}
