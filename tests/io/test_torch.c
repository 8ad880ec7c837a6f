/* Files of torch.save: the same tensors as their safetensors copies, and spoilt bytes that are refused or read, never more. */
#include "io/torch.h"

#include "../harness.h"
#include "io/file.h"

static struct cb_err err;

static const char *const cases[] = {"mam_bert", "prefix_tuning_gpt2", "seq_bn_ln_bert", "unipelt_bert", NULL};

TEST(torch, equals_safetensors) {
    const char *shared = shared_dir();
    if (!shared) return;
    for (const char *const *name = cases; *name; name++) {
        char path[600];
        struct tensors *have, *want;
        snprintf(path, sizeof path, "%s/fixtures/modules/%s/pytorch_adapter.bin", shared, *name);
        CHECK_OK(tensors_open(&have, path, &err));
        strcat(path, ".safetensors");
        CHECK_OK(tensors_open(&want, path, &err));
        CHECK(tensors_count(have) == tensors_count(want) && tensors_count(want) > 0);
        for (int i = 0; i < tensors_count(want); i++) {
            const struct tensor *w = tensors_at(want, i), *h = tensors_find(have, w->name);
            CHECK(h && type_equal(&h->type, &w->type) && memcmp(tensor_data(h), tensor_data(w), (size_t)w->bytes) == 0, "%s", w->name);
        }
        tensors_destroy(&have);
        tensors_destroy(&want);
    }
}

/* Each byte changed in turn, and each length. */
TEST(torch, spoilt_bytes) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600], *bytes;
    size_t n;
    int refused = 0;
    snprintf(path, sizeof path, "%s/fixtures/modules/prefix_tuning_gpt2/pytorch_adapter.bin", shared);
    CHECK_OK(io_read_file(&bytes, &n, path, 1 << 24, &err));
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
    CHECK(refused >= (int)n, "%d of %zu refused", refused, 2 * n);
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
