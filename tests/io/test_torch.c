/* Files of torch.save: the same tensors as their safetensors copies, and spoilt bytes that are refused or read, never more. */
#include "io/torch.h"

#include "../harness.h"
#include "io/file.h"

static struct cb_err err;

/* All of want's tensors, and no other. */
static void same(const char *have_path, const char *want_path) {
    struct tensors *have, *want;
    CHECK_OK(tensors_open(&have, have_path, &err));
    CHECK_OK(tensors_open(&want, want_path, &err));
    CHECK(tensors_count(have) == tensors_count(want) && tensors_count(want) > 0);
    for (int i = 0; i < tensors_count(want); i++) {
        const struct tensor *w = tensors_at(want, i), *h = tensors_find(have, w->name);
        CHECK(h && type_equal(&h->type, &w->type), "%s: %s", have_path, w->name);
        CHECK(memcmp(tensor_data(h), tensor_data(w), (size_t)w->bytes) == 0, "%s: %s", have_path, w->name);
        const uintptr_t size = (uintptr_t)dtype_of(w->type.dtype)->block_bytes;
        CHECK((uintptr_t)tensor_data(h) % size == 0, "%s: %s is not aligned", have_path, w->name);
    }
    tensors_destroy(&have);
    tensors_destroy(&want);
}

TEST(torch, equals_safetensors) {
    static const char *const cases[] = {"mam_bert", "prefix_tuning_gpt2", "seq_bn_ln_bert", "unipelt_bert", NULL};
    const char *shared = shared_dir();
    if (!shared) return;
    for (const char *const *name = cases; *name; name++) {
        char path[600], want[640];
        snprintf(path, sizeof path, "%s/fixtures/modules/%s/pytorch_adapter.bin", shared, *name);
        snprintf(want, sizeof want, "%s.safetensors", path);
        same(path, want);
    }
}

/* New and old files, rows in other strides, shared storages, shards: tests/golden/make_torch.py. */
TEST(torch, every_form) {
    static const char *const forms[] = {"zip.bin", "zip_turned.bin", "plain.bin", "plain_turned.bin", "sharded", NULL};
    for (const char *const *form = forms; *form; form++) {
        char path[200];
        snprintf(path, sizeof path, "tests/golden/torch/%s", *form);
        same(path, "tests/golden/torch/want.safetensors");
    }
}

/* Each byte changed in turn, and each length; returns how many were refused. */
static size_t spoil(char *bytes, size_t n) {
    size_t refused = 0;
    for (size_t i = 0; i < 2 * n; i++) {
        struct map *map;
        struct tensors *t = NULL;
        const size_t length = i < n ? n : i - n;
        const char kept = bytes[i % n];
        if (i < n) bytes[i] = (char)(kept ^ (1 << i % 8));
        CHECK_OK(map_copy(&map, bytes, length, "spoilt", &err));
        refused += torch_read(&t, map, &err) != CB_OK;
        bytes[i % n] = kept;
        tensors_destroy(&t);
        map_release(&map);
    }
    return refused;
}

TEST(torch, spoilt_bytes) {
    static const char *const names[] = {"zip_turned.bin", "plain_turned.bin", NULL};
    for (const char *const *name = names; *name; name++) {
        char path[200], *bytes;
        size_t n;
        snprintf(path, sizeof path, "tests/golden/torch/%s", *name);
        CHECK_OK(io_read_file(&bytes, &n, path, 1 << 24, &err));
        const size_t refused = spoil(bytes, n);
        // each shorter file is; of the changed bytes those of structure
        CHECK(refused >= n + n / 8, "%s: %zu of %zu refused", path, refused, 2 * n);
        free(bytes);
    }
}

/* A tensor that repeats one number in step 0 more often than the file has bytes, leaves its storage, or is of a size beyond all numbers is refused; so is a
   storage that is shorter than the pickle says. */
TEST(torch, strides_stay) {
    static const char head[] =
        "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
        "\x80\x02M\xe9\x03."
        "\x80\x02}."
        "\x80\x02}"
        "X\x01\0\0\0w"
        "ctorch._utils\n_rebuild_tensor_v2\n("
        "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
        "0X\x03\0\0\0cpuK\x04NtQK\0";
#define BYTES(text) text, sizeof text - 1
#define HUGE "\x8a\x08\0\0\0\0\0\0\0\x40"
    static const struct {
        const char *sizes;  // and strides
        size_t n;
        char stored;  // numbers of the storage, which the pickle says are 4
        enum cb_status status;
        const char *word;
    } cases[] = {{BYTES("K\x02K\x02\x86K\x01K\x02\x86"), 4, CB_OK, NULL},
                 {BYTES("K\x02K\x02\x86K\x01K\x02\x86"), 3, CB_E_FORMAT, "too short"},
                 {BYTES("J\x00\x00\x00\x40"
                        "K\x02\x86K\x00K\x01\x86"),
                  4, CB_E_FORMAT, "elements"},
                 {BYTES(HUGE HUGE "K\0\x87K\x01K\x01K\x01\x87"), 4, CB_E_SHAPE, "overflows"},
                 {BYTES("K\x02K\x02\x86K\x02K\x02\x86"), 4, CB_E_FORMAT, "leave its storage"},
                 {BYTES("K\x02K\x02\x86K\x01J\xff\xff\xff\xff\x86"), 4, CB_E_FORMAT, "leave its storage"}};
    static const char tail[] =
        "tRs."
        "\x80\x02]X\x01\0\0\0"
        "0a."
        "\0\0\0\0\0\0\0\0";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char bytes[600];
        size_t n = 0;
        struct map *map;
        struct tensors *t = NULL;
        memcpy(bytes, head, n = sizeof head - 1);
        memcpy(bytes + n, cases[i].sizes, cases[i].n);
        memcpy(bytes + (n += cases[i].n), tail, sizeof tail - 1);
        memcpy(bytes + (n += sizeof tail - 1), (const float[]){1, 2, 3, 4}, 16);
        bytes[n - 8] = cases[i].stored;
        CHECK_OK(map_copy(&map, bytes, n + 16, "strides", &err));
        if (cases[i].word)
            CHECK_FAILS(torch_read(&t, map, &err), cases[i].status, cases[i].word);
        else
            CHECK_OK(torch_read(&t, map, &err));
        if (t) CHECK(memcmp(tensor_data(tensors_find(t, "w")), (const float[]){1, 3, 2, 4}, 16) == 0);
        tensors_destroy(&t);
        map_release(&map);
    }
}

/* A byte makes a value many times its size: there is an end to them. */
TEST(torch, too_many_values) {
    enum { N = 3 << 20 };
    char *bytes = malloc(N);
    struct map *map;
    struct tensors *t = NULL;
    CHECK(bytes != NULL);
    memset(bytes, ')', N);  // empty tuples
    memcpy(bytes, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02", 27);
    CHECK_OK(map_copy(&map, bytes, N, "tuples", &err));
    CHECK_FAILS(torch_read(&t, map, &err), CB_E_LIMIT, "values");
    map_release(&map);
    free(bytes);
}

TEST(torch, calls_nothing) {
    // a pickle that would call os.system stands where the tensors are
    struct map *map;
    struct tensors *t = NULL;
    const char *shared = shared_dir();
    char path[600], *bytes, *name;
    size_t n;
    if (!shared) return;
    snprintf(path, sizeof path, "%s/fixtures/modules/prefix_tuning_gpt2/pytorch_adapter.bin", shared);
    CHECK_OK(io_read_file(&bytes, &n, path, 1 << 24, &err));
    for (name = bytes; memcmp(name, "ctorch._utils\n", 14) != 0;) name++;
    memcpy(name, "cos_posix_xxx\n", 14);
    CHECK_OK(map_copy(&map, bytes, n, "spoilt", &err));
    CHECK_FAILS(torch_read(&t, map, &err), CB_E_UNSUPPORTED, "dictionary of tensors");
    map_release(&map);
    free(bytes);
}
