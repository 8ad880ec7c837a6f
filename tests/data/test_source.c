/* Text inputs: documents, pieces, folders, compression, records, broken bytes, empty files. */
#include "data/source.h"

#include <unistd.h>

#include "../harness.h"
#include "files.h"
#include "io/file.h"

static struct cb_err err;
static char warned[4][1000];
static int n_warned;
static void warn_keep(void *user, const char *line) {
    (void)user;
    if (n_warned < 4) snprintf(warned[n_warned++], sizeof *warned, "%s", line);
}

// All documents of the inputs as "[document][prompt>completion]"; pieces are joined by '~'.
static enum cb_status read_all(char *out, size_t size, const char *const *paths, int n, enum data_invalid invalid, size_t piece_bytes) {
    struct source *s;
    const struct source_piece *p;
    struct source_options o = {.invalid = invalid, .piece_bytes = piece_bytes, .needs_chat = true, .warn = warn_keep};
    size_t used = 0;
    bool inside = false;
    n_warned = 0;
    TRY(source_open(&s, paths, n, &o, &err));
    enum cb_status status;
    while ((status = source_next(s, &p, &err)) == CB_OK && p) {
        CHECK(p->begins == !inside);
        inside = !p->ends;
        used += (size_t)snprintf(out + used, size - used, "%s%.*s%s%.*s%s", p->begins ? "[" : "~", (int)p->n_prompt,
                                 p->prompt ? p->prompt : "", p->prompt ? ">" : "", (int)p->n, p->text, p->ends ? "]" : "");
        CHECK(used < size);
    }
    CHECK(status != CB_OK || !inside);
    if (status == CB_OK) CHECK(source_bytes_done(s) == source_bytes(s));
    source_close(&s);
    return status;
}
static enum cb_status read_one(char *out, size_t size, const char *name, const char *text, size_t n, enum data_invalid invalid,
                               size_t piece) {
    char *path = file_make(name, text, n);
    const char *paths[] = {path};
    enum cb_status status = read_all(out, size, paths, 1, invalid, piece);
    free(path);
    return status;
}

TEST(data_source, documents_of_plain_text) {
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"a\nb\n", "[a\nb\n]"},
        {"a\n<|endoftext|>\nb", "[a\n][b]"},
        {"<|endoftext|>\na\n<|endoftext|>\r\n<|endoftext|>\n\n<|endoftext|>\nb\n<|endoftext|>", "[a\n][b\n]"},
        {"a <|endoftext|>\n<|endoftext|> b\n", "[a <|endoftext|>\n<|endoftext|> b\n]"},
        {"\xef\xbb\xbf<|endoftext|>\nc", "[c]"},
    };
    char out[400];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_OK(read_one(out, sizeof out, "a.txt", cases[i].text, strlen(cases[i].text), DATA_INVALID_FAIL, 0));
        CHECK(!strcmp(out, cases[i].want), "%d: %s", (int)i, out);
    }
}

TEST(data_source, long_documents_come_in_pieces) {
    char out[600];
    static const char lines[] = "aaaaaaaaaaaa\nbbbbb\n\n  cccccccccccc\nd\n<|endoftext|>\ne";
    CHECK_OK(read_one(out, sizeof out, "a.txt", lines, sizeof lines - 1, DATA_INVALID_FAIL, 16));
    CHECK(!strcmp(out, "[aaaaaaaaaaaa\n~bbbbb\n\n  ccccccc~ccccc\nd\n][e]"), "%s", out);
    // nothing is lost, wherever it is cut; a separator in the middle of a cut line is text
    static const char tail[] =
        "xxxxxxxxxxxxxxxx<|endoftext|>\n\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6\xd0\xb6";
    for (size_t piece = 16; piece < 40; piece++) {
        CHECK_OK(read_one(out, sizeof out, "a.txt", tail, sizeof tail - 1, DATA_INVALID_FAIL, piece));
        char joined[600];
        size_t n = 0;
        for (const char *c = out; *c; c++)
            if (!strchr("[]~", *c)) joined[n++] = *c;
        joined[n] = 0;
        CHECK(!strcmp(joined, tail), "%d: %s", (int)piece, out);
        CHECK(strchr(out, '[') == strrchr(out, '['));
    }
}

TEST(data_source, records) {
    char out[400];
    static const char pairs[] = "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"\",\"completion\":\"\"}\n";
    CHECK_OK(read_one(out, sizeof out, "a.jsonl", pairs, sizeof pairs - 1, DATA_INVALID_FAIL, 0));
    CHECK(!strcmp(out, "[a>b][>]"), "%s", out);
    static const char texts[] = "{\"text\":\"a\\n<|endoftext|>\\nb\"}\n{\"text\":\" \"}\n{\"text\":\"c\"}";
    CHECK_OK(read_one(out, sizeof out, "a.jsonl", texts, sizeof texts - 1, DATA_INVALID_FAIL, 16));
    CHECK(!strcmp(out, "[a\n<|endoftext|>\nb][c]"), "%s", out);
    static const char chat[] = "{\"messages\":[{\"role\":\"assistant\",\"content\":\"b\"}]}";
    CHECK_FAILS(read_one(out, sizeof out, "a.jsonl", chat, sizeof chat - 1, DATA_INVALID_FAIL, 0), CB_E_UNSUPPORTED,
                "line 1: found a record of messages");
    static const char ids[] = "{\"ids\":[1]}";
    CHECK_FAILS(read_one(out, sizeof out, "a.jsonl", ids, sizeof ids - 1, DATA_INVALID_FAIL, 0), CB_E_UNSUPPORTED, "is not text");
    // the same bytes under another name are text
    CHECK_OK(read_one(out, sizeof out, "a.txt", ids, sizeof ids - 1, DATA_INVALID_FAIL, 0));
}

TEST(data_source, broken_utf8_three_ways) {
    static const char text[] = "ab\xff\xe2\x82z\n<|endoftext|>\nc\xd0";
    char out[400];
    CHECK_FAILS(read_one(out, sizeof out, "a.txt", text, sizeof text - 1, DATA_INVALID_FAIL, 0), CB_E_FORMAT,
                "a.txt: found byte 0xff at offset 2");
    CHECK_OK(read_one(out, sizeof out, "a.txt", text, sizeof text - 1, DATA_INVALID_REPLACE, 0));
    CHECK(!strcmp(out, "[ab\xef\xbf\xbd\xef\xbf\xbdz\n][c\xef\xbf\xbd]"), "%s", out);
    CHECK(n_warned == 1 && strstr(warned[0], "4 bytes") && strstr(warned[0], "offset 2"), "%s", warned[0]);
    CHECK_OK(read_one(out, sizeof out, "a.txt", text, sizeof text - 1, DATA_INVALID_SKIP, 0));
    CHECK(!strcmp(out, "[abz\n][c]"), "%s", out);
    // broken far into a long file: the offset is the file's
    size_t n = 300000;
    char *far = malloc(n), *big = malloc(2 * n);
    memset(far, 'x', n);
    far[n - 5] = (char)0x80;
    CHECK_FAILS(read_one(big, 2 * n, "a.txt", far, n, DATA_INVALID_FAIL, 1000), CB_E_FORMAT, "0x80 at offset 299995");
    free(big);
    free(far);
    static const char wide[] =
        "\xff\xfe"
        "a\0b\0";
    CHECK_FAILS(read_one(out, sizeof out, "a.txt", wide, sizeof wide - 1, DATA_INVALID_REPLACE, 0), CB_E_FORMAT, "UTF-16");
}

TEST(data_source, empty_and_absent) {
    char out[100];
    CHECK_FAILS(read_one(out, sizeof out, "nothing.txt", "", 0, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "nothing.txt: found no text");
    CHECK_FAILS(read_one(out, sizeof out, "blank.txt", " \n\n", 3, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "blank.txt: found no text");
    CHECK_FAILS(read_one(out, sizeof out, "n.jsonl", "\n", 1, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "n.jsonl: found no text");
    const char *absent[] = {"no/such/file"};
    CHECK_FAILS(read_all(out, sizeof out, absent, 1, DATA_INVALID_FAIL, 0), CB_E_IO, "no/such/file");
    char *folder = folder_make();
    const char *paths[] = {folder};
    CHECK_FAILS(read_all(out, sizeof out, paths, 1, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "found no files");
    free(file_put(folder, "a.bin", "\0\1", 2));
    CHECK_FAILS(read_all(out, sizeof out, paths, 1, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "a.bin: a NUL at offset 0");
    free(folder);
}

TEST(data_source, folders) {
    char *folder = folder_make(), out[1000];
    free(file_put(folder, "b.txt", "B", 1));
    free(file_put(folder, "a/z.md", "Z", 1));
    free(file_put(folder, "a/deep/er/y", "Y", 1));
    free(file_put(folder, "a/picture.png", "\x89PNG\r\n\x1a\n\0\0", 10));
    free(file_put(folder, "a/latin", "caf\xe9", 4));
    free(file_put(folder, ".hidden", "H", 1));
    free(file_put(folder, ".git/x", "H", 1));
    free(file_put(folder, "empty", "", 0));
    free(file_put(folder, "cut.gz", "\x1f\x8b\x08", 3));
    free(file_put_packed(folder, "c.txt.gz", "C", 1));
    free(file_put_packed(folder, "d.jsonl.zst", "{\"text\":\"D\"}", 12));
    char *link = io_path_join(folder, "a/up");
    CHECK(symlink("..", link) == 0);
    const char *paths[] = {folder};
    CHECK_OK(read_all(out, sizeof out, paths, 1, DATA_INVALID_FAIL, 0));
    CHECK(!strcmp(out, "[Y][Z][B][C][D]"), "%s", out);
    CHECK(n_warned == 1 && strstr(warned[0], "4 of 9 files") && strstr(warned[0], "latin: no UTF-8 at offset 3"), "%s", warned[0]);
    CHECK_OK(read_all(out, sizeof out, paths, 1, DATA_INVALID_SKIP, 0));
    CHECK(!strcmp(out, "[Y][caf][Z][B][C][D]"), "%s", out);
    CHECK(n_warned == 2 && strstr(warned[0], "3 of 9 files") && strstr(warned[1], "1 bytes"), "%s", warned[0]);
    // a damaged archive that is named itself is an error
    char *cut = io_path_join(folder, "cut.gz");
    const char *named[] = {cut};
    CHECK_FAILS(read_all(out, sizeof out, named, 1, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "truncated");
    free(cut);
    free(link);
    free(folder);
}

/* Of a folder JSON without records is left out with a word, as the settings beside a model; named itself it is refused. */
TEST(data_source, json_in_folders) {
    char *folder = folder_make(), *settings = file_put(folder, "config.json", "{\"hidden_size\":4}", 17), out[1000];
    free(file_put(folder, "b.txt", "B", 1));
    free(file_put(folder, "list.json", "[{\"text\":\"L\"}]", 14));
    const char *paths[] = {folder}, *named[] = {settings};
    CHECK_OK(read_all(out, sizeof out, paths, 1, DATA_INVALID_FAIL, 0));
    CHECK(!strcmp(out, "[B][L]"), "%s", out);
    CHECK(n_warned == 1 && strstr(warned[0], "1 of 3 files") && strstr(warned[0], "config.json"), "%s", warned[0]);
    CHECK_FAILS(read_all(out, sizeof out, named, 1, DATA_INVALID_FAIL, 0), CB_E_FORMAT, "found \"hidden_size\"; wanted text");
    free(settings);
    free(folder);
}

TEST(data_source, packed_equals_plain) {
    size_t n = 400000;
    char *text = malloc(n), *plain = malloc(n * 2), *packed = malloc(n * 2), *folder = folder_make();
    for (size_t i = 0; i < n; i++) text[i] = i % 61 == 60 ? '\n' : (char)('a' + i * i % 26);
    char *paths[] = {file_put(folder, "t.txt", text, n), file_put_packed(folder, "t.txt.gz", text, n),
                     file_put_packed(folder, "t.txt.zst", text, n)};
    CHECK_OK(read_all(plain, n * 2, (const char *const *)paths, 1, DATA_INVALID_FAIL, 5000));
    for (int i = 1; i < 3; i++) {
        CHECK_OK(read_all(packed, n * 2, (const char *const *)paths + i, 1, DATA_INVALID_FAIL, 5000));
        CHECK(!strcmp(plain, packed));
    }
    for (int i = 0; i < 3; i++) free(paths[i]);
    free(folder);
    free(packed), free(plain), free(text);
}
