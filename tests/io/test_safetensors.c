/* Safetensors: the malformed corpus, vectors of number types, byte equality with the format's library, shards and their index. */
#include "io/safetensors.h"

#include <ctype.h>
#include <unistd.h>

#include "../harness.h"
#include "io/file.h"

static struct cb_err err;

// A fresh folder for one test; its name stays valid until the next call.
static const char *scratch(void) {
    static char path[128];
    return temporary_folder(path, "io");
}

static bool has_word(const char *text, const char *word, size_t n) {
    for (; *text; text++)
        if (!strncasecmp(text, word, n)) return true;
    return false;
}
// words: "a;b|c" wants a and one of b, c; the path does not count.
static bool has_words(const char *message, const char *words) {
    for (const char *at = words; *at;) {
        size_t group = strcspn(at, ";");
        bool found = group == 0;
        for (const char *w = at; w < at + group;) {
            size_t n = strcspn(w, "|;");
            found |= has_word(message, w, n);
            w += n + 1;
        }
        if (!found) return false;
        at += group + (at[group] == ';');
    }
    return true;
}

TEST(safetensors, malformed_corpus) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600], *text, *save = NULL;
    size_t n;
    int rows = 0;
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/EXPECTED.tsv", shared);
    CHECK_OK(io_read_file(&text, &n, path, 1 << 24, &err));
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *field[5] = {0}, *at = line;
        for (int i = 0; i < 5 && at; i++) field[i] = strsep(&at, "\t");
        if (!field[3] || strcmp(field[0], "safetensors")) continue;
        rows++;
        snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/safetensors/%s", shared, field[1]);
        struct tensors *t = NULL;
        memset(&err, 0, sizeof err);
        enum cb_status status = tensors_open(&t, path, &err);
        if (!strcmp(field[2], "accept")) {
            CHECK(status == CB_OK, "%s: refused: %s", field[1], err.message);
        } else {
            CHECK(status != CB_OK && !t, "%s: accepted", field[1]);
            CHECK(!strncmp(err.message, path, strlen(path)) && has_words(err.message + strlen(path), field[3]), "%s: says '%s', lacks %s",
                  field[1], err.message, field[3]);
        }
        tensors_destroy(&t);
    }
    CHECK(rows >= 50, "%d rows", rows);
    free(text);
}

TEST(safetensors, what_downloads_leave) {
    static const char *const files[][2] = {{"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"},
                                           {"<!DOCTYPE html><title>403</title>", "HTML page"},
                                           {"Entry not found, sorry", "looks like text"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct tensors *t;
        char path[300];
        snprintf(path, sizeof path, "%s/model.safetensors", scratch());
        CHECK_OK(io_write_file(path, files[i][0], strlen(files[i][0]), &err));
        CHECK_FAILS(tensors_open(&t, path, &err), CB_E_FORMAT, files[i][1]);
    }
}

TEST(safetensors, values_of_accepted_files) {
    const char *shared = shared_dir();
    if (!shared) return;
    char path[600];
    struct tensors *t;
    float x[2];
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/safetensors/ok_unsorted.safetensors", shared);
    CHECK_OK(tensors_open(&t, path, &err));
    for (int i = 0; i < 2; i++) {
        const struct tensor *a = tensors_find(t, i ? "b" : "a");
        CHECK(a && a->type.rank == 1 && a->type.dim[0] == 2);
        tensor_read_f32(x, a);
        CHECK(x[0] == 1 && x[1] == 2);
    }
    tensors_destroy(&t);
    snprintf(path, sizeof path, "%s/fixtures/gguf/malformed/safetensors/ok_all_dtypes.safetensors", shared);
    CHECK_OK(tensors_open(&t, path, &err));
    bool seen[CB_DTYPE_COUNT] = {false};
    for (int i = 0; i < tensors_count(t); i++) seen[tensors_at(t, i)->type.dtype] = true;
    for (int i = 0; i < CB_DTYPE_COUNT; i++) CHECK(seen[i] == (safetensors_dtype_name((enum cb_dtype)i) != NULL), "type %d", i);
    tensors_destroy(&t);
}

// The blocks of the vectors decode to their values bit by bit, and inputs encode to the same bytes.
static void vector_check(const char *shared, const char *name, enum cb_dtype dtype, bool encodes) {
    char path[600];
    struct tensors *t;
    const struct dtype *d = dtype_of(dtype);
    snprintf(path, sizeof path, "%s/fixtures/gguf/vectors/vec_%s.safetensors", shared, name);
    CHECK_OK(tensors_open(&t, path, &err));
    const struct tensor *blocks = tensors_find(t, "random_blocks"), *values = tensors_find(t, "random_values");
    CHECK(blocks && values, "%s", name);
    int64_t n = type_elements(&values->type), bad = 0;
    float *out = malloc((size_t)n * 4);
    d->to_f32(out, tensor_data(blocks), n);
    const float *want = tensor_data(values);
    for (int64_t i = 0; i < n; i++) bad += !(out[i] == want[i] || (isnan(out[i]) && isnan(want[i])));
    CHECK(n > 0 && !bad, "%s: %d of %d values differ", name, (int)bad, (int)n);
    free(out);
    const struct tensor *input = tensors_find(t, "input"), *quantised = tensors_find(t, "quantized");
    CHECK((input != NULL) >= encodes, "%s", name);
    if (encodes) {
        n = type_elements(&input->type);
        unsigned char *bytes = malloc((size_t)quantised->bytes);
        CHECK(quantised->bytes == n / d->block * d->block_bytes);
        d->from_f32(bytes, tensor_data(input), n);
        const unsigned char *goal = tensor_data(quantised);
        // bytes equal, or both NaN
        for (int64_t i = 0; i < quantised->bytes; i += d->block_bytes) {
            float mine[256], theirs[256];
            d->to_f32(mine, bytes + i, d->block);
            d->to_f32(theirs, goal + i, d->block);
            bool none = d->is_float && isnan(mine[0]) && isnan(theirs[0]);
            bad += !none && memcmp(bytes + i, goal + i, (size_t)d->block_bytes);
        }
        CHECK(!bad, "%s: %d of %d blocks differ", name, (int)bad, (int)(n / d->block));
        free(bytes);
    }
    tensors_destroy(&t);
}
TEST(safetensors, number_type_vectors) {
    const char *shared = shared_dir();
    if (!shared) return;
    vector_check(shared, "F16", CB_DTYPE_F16, true);
    vector_check(shared, "BF16", CB_DTYPE_BF16, true);
    vector_check(shared, "Q8_0", CB_DTYPE_Q8_0, true);
    vector_check(shared, "Q4_0", CB_DTYPE_Q4_0, true);
    vector_check(shared, "Q4_K", CB_DTYPE_Q4_K, false);
}

// What the format's library gives for b = F32[2] zeros, a name to escape, and an empty F64: largest type first, then names, padded to 8.
TEST(safetensors, writes_the_librarys_bytes) {
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"z\":{\"dtype\":\"F64\",\"shape\":[0,2],\"data_offsets\":[0,0]},"
        "\"a\xc3\xa9\\n\\u0001/"
        "\\\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
    const float zero[2] = {0};
    struct tensor_item items[] = {
        {"b", {CB_DTYPE_F32, 1, {2}}, zero, NULL},
        {"a\xc3\xa9\n\x01/\"", {CB_DTYPE_F32, 0, {0}}, zero, NULL},
        {"z", {CB_DTYPE_F64, 2, {0, 2}}, NULL, NULL},
    };
    const char *folder = scratch();
    char *path = io_path_join(folder, "x.safetensors"), *bytes;
    size_t n, length = (strlen(header) + 7) / 8 * 8;
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    CHECK_OK(tensors_write(path, items, 3, metadata, NULL, NULL, &err));
    CHECK_OK(io_read_file(&bytes, &n, path, 1 << 20, &err));
    CHECK(n == 8 + length + 12 && (unsigned char)bytes[0] == length && !memcmp(bytes + 8, header, strlen(header)), "%s", bytes + 8);
    free(bytes);
    struct tensors *t;
    CHECK_OK(tensors_open(&t, path, &err));
    CHECK(!strcmp(tensors_metadata(t, "format"), "pt") && !tensors_metadata(t, "x") && tensors_find(t, "z")->bytes == 0);
    CHECK(!strcmp(tensors_at(t, 0)->name, "z"));
    const struct tensor *none;
    CHECK_FAILS(tensors_need(&none, t, "q", &err), CB_E_NAME, "no tensor q");
    tensors_destroy(&t);

    items[1].name = "b";
    CHECK_FAILS(tensors_write(path, items, 3, NULL, NULL, NULL, &err), CB_E_NAME, "tensor b: duplicate");
    items[1].name = "c", items[1].type = (struct cb_type){CB_DTYPE_Q8_0, 1, {32}};
    CHECK_FAILS(tensors_write(path, items, 3, NULL, NULL, NULL, &err), CB_E_DTYPE, "q8_0[32]");
    json_decref(metadata);
    free(path);
}

/* The newer name counts, whatever else lies in the folder. */
TEST(safetensors, adapters_by_either_name) {
    static const char *const names[] = {"model.safetensors", "adapter_model.bin", "adapter_model.safetensors"};
    static const float zero[2] = {0};
    const char *folder = scratch();
    struct tensors *t;
    for (int i = 0; i < 3; i++) {
        const struct tensor_item item = {names[i], {CB_DTYPE_F32, 1, {2}}, zero, NULL};
        char *path = io_path_join(folder, names[i]);
        CHECK_OK(tensors_write(path, &item, 1, NULL, NULL, NULL, &err));
        free(path);
        if (!i) {
            CHECK_FAILS(tensors_open_adapter(&t, folder, &err), CB_E_IO, "wanted adapter_model.safetensors or adapter_model.bin");
            continue;
        }
        CHECK_OK(tensors_open_adapter(&t, folder, &err));
        CHECK(tensors_find(t, names[i]), "%s was opened", tensors_name(t));
        tensors_destroy(&t);
    }
}

// A source that knows its values without holding them, and fails when told to.
static enum cb_status count_up(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *e) {
    const int64_t *fail_at = context;
    if (first + n > *fail_at) FAIL(e, CB_E_STOPPED, "%s: stopped at %lld", item->name, (long long)first);
    for (int64_t i = 0; i < n; i++) ((int32_t *)out)[i] = (int32_t)(first + i);
    return CB_OK;
}
TEST(safetensors, streams_pieces_and_cleans_up) {
    struct tensor_item item = {"big", {CB_DTYPE_I32, 2, {1000, 700}}, NULL, NULL};
    int64_t fail_at = INT64_MAX;
    const char *folder = scratch();
    char *path = io_path_join(folder, "x.safetensors");
    CHECK_OK(tensors_write(path, &item, 1, NULL, count_up, &fail_at, &err));
    struct tensors *t;
    CHECK_OK(tensors_open(&t, path, &err));
    const int32_t *v = tensor_data(tensors_at(t, 0));
    for (int32_t i = 0; i < 700000; i++) CHECK(v[i] == i, "%d", i);
    tensors_destroy(&t);
    // a failure in the middle leaves the old file and nothing else
    fail_at = 300000;
    CHECK_FAILS(tensors_write(path, &item, 1, NULL, count_up, &fail_at, &err), CB_E_STOPPED, "big: stopped");
    CHECK_OK(tensors_open(&t, path, &err));
    CHECK(tensors_count(t) == 1);
    tensors_destroy(&t);
    unlink(path);
    CHECK(rmdir(folder) == 0, "something was left in the folder");
    free(path);
}

TEST(safetensors, shards_round_trip) {
    enum { N = 20 };
    float data[N][4];
    char names[N][16];
    struct tensor_item items[N];
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        for (int k = 0; k < 4; k++) data[i][k] = (float)(i * 4 + k);
        items[i] = (struct tensor_item){names[i], {CB_DTYPE_F32, 1, {4}}, data[i], NULL};
    }
    const char *folder = scratch();
    struct tensors *t;
    // 16 bytes each, 3 in a shard of 50: 7 shards; an older whole file must not win
    CHECK_OK(tensors_write_sharded(folder, "model", items, 1, 1 << 20, NULL, NULL, NULL, &err));
    CHECK_OK(tensors_write_sharded(folder, "model", items, N, 50, NULL, NULL, NULL, &err));
    char *last = io_path_join(folder, "model-00007-of-00007.safetensors"), *index = io_path_join(folder, "model.safetensors.index.json");
    CHECK(io_is_file(last) && io_is_file(index));
    CHECK_OK(tensors_open(&t, folder, &err));
    CHECK(tensors_count(t) == N);
    for (int i = 0; i < N; i++) {
        float x[4];
        CHECK(tensors_find(t, names[i]), "%s", names[i]);
        tensor_read_f32(x, tensors_find(t, names[i]));
        CHECK(!memcmp(x, data[i], sizeof x));
    }
    tensors_destroy(&t);
    CHECK(unlink(last) == 0);
    CHECK_FAILS(tensors_open(&t, folder, &err), CB_E_IO, "model-00007-of-00007");
    // a small save takes the index away again
    CHECK_OK(tensors_write_sharded(folder, "model", items, 2, 1 << 20, NULL, NULL, NULL, &err));
    CHECK(!io_is_file(index));
    CHECK_OK(tensors_open(&t, folder, &err));
    CHECK(tensors_count(t) == 2);
    tensors_destroy(&t);
    free(last);
    free(index);
}

static enum cb_status index_try(const char *folder, const char *text) {
    struct tensors *t = NULL;
    char *path = io_path_join(folder, "model.safetensors.index.json");
    enum cb_status status = io_write_file(path, text, strlen(text), &err);
    if (status == CB_OK) status = tensors_open(&t, path, &err);
    tensors_destroy(&t);
    free(path);
    return status;
}
TEST(safetensors, index_refusals) {
    const float one = 1;
    struct tensor_item item = {"a", {CB_DTYPE_F32, 0, {0}}, &one, NULL};
    const char *folder = scratch();
    char *path = io_path_join(folder, "s.safetensors");
    CHECK_OK(tensors_write(path, &item, 1, NULL, NULL, NULL, &err));
    CHECK_OK(index_try(folder, "{\"weight_map\":{\"a\":\"s.safetensors\"}}"));
    CHECK_FAILS(index_try(folder, "{\"weight_map\":{\"b\":\"s.safetensors\"}}"), CB_E_NAME, "tensor b is not in s.safetensors");
    CHECK_FAILS(index_try(folder, "{\"weight_map\":{\"a\":\"none.safetensors\"}}"), CB_E_IO, "none.safetensors");
    CHECK_FAILS(index_try(folder, "{\"weight_map\":{\"a\":\"../s.safetensors\"}}"), CB_E_FORMAT, "leaves the folder");
    CHECK_FAILS(index_try(folder, "{\"weight_map\":{\"a\":\"/s.safetensors\"}}"), CB_E_FORMAT, "leaves the folder");
    CHECK_FAILS(index_try(folder, "{\"weight_map\":{\"a\":3}}"), CB_E_FORMAT, "a: found 3");
    CHECK_FAILS(index_try(folder, "{}"), CB_E_FORMAT, "weight_map: found nothing");
    CHECK_FAILS(index_try(folder, "[]"), CB_E_FORMAT, "JSON object");
    free(path);
    struct tensors *t;
    CHECK_FAILS(tensors_open(&t, "no/such", &err), CB_E_IO, "no/such");
}

TEST(safetensors, sharded_models_of_others) {
    const char *shared = shared_dir();
    if (!shared) return;
    static const char *const names[] = {"llama_sharded", "gpt2_sharded", "bert_sharded_f16"};
    for (int i = 0; i < 3; i++) {
        char path[600];
        struct tensors *t;
        snprintf(path, sizeof path, "%s/fixtures/models/%s", shared, names[i]);
        CHECK_OK(tensors_open(&t, path, &err));
        CHECK(tensors_count(t) > 10, "%s", names[i]);
        tensors_destroy(&t);
    }
}
