/* GGUF files: what the writer makes the reader finds; values of every type; parts; hostile headers by hand. */
#include <unistd.h>

#include "../harness.h"
#include "io/gguf.h"

static struct cb_err err;

static const char *in_folder(const char *folder, const char *name) {
    static char path[4][200];
    static int next;
    char *text = path[next++ % 4];
    snprintf(text, sizeof path[0], "%s/%s", folder, name);
    return text;
}

static struct gguf_builder *some_keys(void) {
    struct gguf_builder *b;
    const char *const texts[] = {"a", "", "\xc3\xa9"};
    const size_t lengths[] = {1, 0, 2};
    const float scores[] = {0.5f, -1e6f, 0};
    CHECK_OK(gguf_builder_create(&b, &err));
    gguf_put_str(b, "general.architecture", "test");
    gguf_put_int(b, "x.u8", GGUF_U8, 255);
    gguf_put_int(b, "x.i8", GGUF_I8, -128);
    gguf_put_int(b, "x.u16", GGUF_U16, 65535);
    gguf_put_int(b, "x.i32", GGUF_I32, -5);
    gguf_put_int(b, "x.u64", GGUF_U64, -1);
    gguf_put_f32(b, "x.f32", 1e-5);
    gguf_put_bool(b, "x.bool", true);
    gguf_put_strings(b, "x.texts", texts, lengths, 3);
    gguf_put_array(b, "x.scores", GGUF_F32, scores, 3);
    return b;
}

static float row[4 * 256];
static unsigned char blocks[2 * 144];

/* A plain matrix, a vector, and blocks that are made on the way. */
static enum cb_status fill(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *e) {
    (void)e;
    CHECK(context == row && item->source == blocks && first == 0 && n == 512);
    memcpy(out, blocks, sizeof blocks);
    return CB_OK;
}
static int some_items(struct tensor_item items[3]) {
    for (int i = 0; i < 4 * 256; i++) row[i] = (float)i;
    dtype_of(CB_DTYPE_Q4_K)->from_f32(blocks, row, 512);
    items[0] = (struct tensor_item){.name = "m.weight", .type = type_make(CB_DTYPE_F32, 2, (int64_t[]){4, 5}), .data = row};
    items[1] = (struct tensor_item){.name = "v", .type = type_make(CB_DTYPE_F16, 1, (int64_t[]){3}), .data = row};
    items[2] = (struct tensor_item){.name = "q", .type = type_make(CB_DTYPE_Q4_K, 2, (int64_t[]){2, 256}), .source = blocks};
    return 3;
}

static void check_tensors(const struct gguf *g) {
    const struct tensor *t;
    CHECK(tensors_count(gguf_tensors(g)) == 3);
    CHECK_OK(tensors_need(&t, gguf_tensors(g), "m.weight", &err));
    CHECK(t->type.rank == 2 && t->type.dim[0] == 4 && t->type.dim[1] == 5 && !memcmp(tensor_data(t), row, 80));
    CHECK_OK(tensors_need(&t, gguf_tensors(g), "q", &err));
    CHECK(t->type.dtype == CB_DTYPE_Q4_K && t->bytes == sizeof blocks && !memcmp(tensor_data(t), blocks, sizeof blocks));
    CHECK((t->offset & 31) == 0);
}

TEST(gguf, written_files_are_read_again) {
    char folder[128];
    struct tensor_item items[3];
    struct gguf *g;
    temporary_folder(folder, "gguf");
    const char *path = in_folder(folder, "a.gguf");
    struct gguf_builder *b = some_keys();
    int n = some_items(items);
    CHECK_OK(gguf_write(path, b, items, n, fill, row, &err));
    gguf_builder_destroy(&b);
    CHECK_OK(gguf_open(&g, path, &err));
    check_tensors(g);
    // typed values
    int64_t whole = 0;
    double number = 0;
    bool flag = false;
    const char *text = NULL;
    const struct gguf_key *list;
    size_t at = 0, length;
    CHECK(gguf_n_keys(g) == 10 && !strcmp(gguf_key_at(g, 2)->name, "x.i8"));
    CHECK_OK(gguf_get_int(&whole, g, "x.i8", -128, 0, true, &err));
    CHECK(whole == -128);
    CHECK_OK(gguf_get_int(&whole, g, "x.u64", 0, INT64_MAX, true, &err));
    CHECK(whole == INT64_MAX);
    CHECK_OK(gguf_get_int(&whole, g, "x.absent", 0, 1, false, &err));
    CHECK_OK(gguf_get_float(&number, g, "x.f32", 0, 1, true, &err));
    CHECK(number == 1e-5, "%.17g", number);
    CHECK_OK(gguf_get_bool(&flag, g, "x.bool", true, &err));
    CHECK(flag);
    CHECK_OK(gguf_get_str(&text, g, "general.architecture", true, &err));
    CHECK(!strcmp(text, "test"));
    CHECK_OK(gguf_get_array(&list, g, "x.texts", GGUF_STR, true, &err));
    gguf_next_string(list, &at, &length);
    gguf_next_string(list, &at, &length);
    CHECK(length == 0 && !memcmp(gguf_next_string(list, &at, &length), "\xc3\xa9", 2) && at == list->bytes);
    CHECK_FAILS(gguf_get_int(&whole, g, "x.absent", 0, 1, true, &err), CB_E_FORMAT, "x.absent");
    CHECK_FAILS(gguf_get_int(&whole, g, "x.u16", 0, 9, true, &err), CB_E_FORMAT, "65535");
    CHECK_FAILS(gguf_get_int(&whole, g, "x.f32", 0, 9, true, &err), CB_E_FORMAT, "f32");
    CHECK_FAILS(gguf_get_array(&list, g, "x.texts", GGUF_F32, true, &err), CB_E_FORMAT, "array of str");
    // as JSON: unsigned numbers past the signed range are texts
    json_t *json = gguf_json(gguf_find(g, "x.u64"), -1);
    CHECK(!strcmp(json_string_value(json), "18446744073709551615"));
    json_decref(json);
    json = gguf_json(gguf_find(g, "x.texts"), 2);
    CHECK(json_integer_value(json_object_get(json, "length")) == 3);
    json_decref(json);
    gguf_destroy(&g);
}

TEST(gguf, parts_are_one_file) {
    char folder[128];
    struct tensor_item items[3];
    struct gguf *g;
    int n_files = 0, n = some_items(items);
    temporary_folder(folder, "gguf");
    struct gguf_builder *b = some_keys();
    CHECK_OK(gguf_write_split(in_folder(folder, "a.gguf"), b, items, n, 96, fill, row, &n_files, &err));
    gguf_builder_destroy(&b);
    CHECK(n_files == 3, "%d files", n_files);
    for (int i = 1; i <= 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "a-%05d-of-00003.gguf", i);
        CHECK_OK(gguf_open(&g, in_folder(folder, name), &err));
        check_tensors(g);
        CHECK(gguf_find(g, "x.bool"), "part %d: the keys are those of the first", i);
        gguf_destroy(&g);
    }
    // a part under another name, and one that is gone
    CHECK(!rename(in_folder(folder, "a-00003-of-00003.gguf"), in_folder(folder, "b.gguf")));
    CHECK_FAILS(gguf_open(&g, in_folder(folder, "a-00001-of-00003.gguf"), &err), CB_E_IO, "split");
    CHECK_FAILS(gguf_open(&g, in_folder(folder, "b.gguf"), &err), CB_E_FORMAT, "split.no");
    CHECK(g == NULL);
}

TEST(gguf, what_the_format_cannot_hold_is_not_written) {
    struct gguf_builder *b = some_keys();
    char name[80];
    memset(name, 'n', sizeof name);
    name[64] = 0;
    struct tensor_item item = {.name = name, .type = type_make(CB_DTYPE_F32, 1, (int64_t[]){3}), .data = row};
    CHECK_FAILS(gguf_write("/tmp/cambium-never.gguf", b, &item, 1, NULL, NULL, &err), CB_E_NAME, "64 bytes");
    item.name = "a";
    item.type = type_make(CB_DTYPE_BOOL, 1, (int64_t[]){3});
    CHECK_FAILS(gguf_write("/tmp/cambium-never.gguf", b, &item, 1, NULL, NULL, &err), CB_E_DTYPE, "bool[3]");
    item.type = type_make(CB_DTYPE_F32, 5, (int64_t[]){1, 1, 1, 1, 3});
    CHECK_FAILS(gguf_write("/tmp/cambium-never.gguf", b, &item, 1, NULL, NULL, &err), CB_E_DTYPE, "dimensions");
    CHECK(access("/tmp/cambium-never.gguf", F_OK) != 0);
    gguf_builder_destroy(&b);
}

/* Every cut of a small file is refused, and so is every count or length that is made huge. */
TEST(gguf, cut_and_huge) {
    static const unsigned char head[] =
        "GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0"
        "\3\0\0\0\0\0\0\0k.a\4\0\0\0\7\0\0\0"
        "\1\0\0\0\0\0\0\0t\1\0\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        "\0\0\0\0\0";
    enum { HEAD = 24 + 8 + 3 + 4 + 4 + 8 + 1 + 4 + 8 + 4 + 8, START = (HEAD + 31) / 32 * 32, ALL = START + 8 };
    unsigned char file[ALL] = {0};
    struct map *map;
    struct gguf *g;
    memcpy(file, head, HEAD);
    for (int n = 0; n <= ALL; n++) {
        CHECK_OK(map_copy(&map, file, (size_t)n, "a", &err));
        enum cb_status status = gguf_read(&g, map, &err);
        CHECK((status == CB_OK) == (n == ALL), "%d of %d bytes: %s", n, ALL, err.message);
        memset(&err, 0, sizeof err);
        gguf_destroy(&g);
        map_release(&map);
    }
    static const int words[] = {8, 16, 24, 43, 56};  // counts, lengths, a dimension
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int bit = 24; bit < 64; bit += 13) {
            unsigned char hostile[ALL];
            memcpy(hostile, file, ALL);
            hostile[words[i] + bit / 8] |= (unsigned char)(1 << bit % 8);
            CHECK_OK(map_copy(&map, hostile, ALL, "a", &err));
            CHECK(gguf_read(&g, map, &err) != CB_OK && g == NULL, "word at %d, bit %d", words[i], bit);
            memset(&err, 0, sizeof err);
            map_release(&map);
        }
}
