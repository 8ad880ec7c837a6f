/* Files: atomic writes and what they leave behind, limits, folders, maps. */
#include "io/file.h"

#include <errno.h>
#include <unistd.h>

#include "../harness.h"
#include "io/map.h"

static struct cb_err err;

static const char *scratch(void) {
    static char path[128];
    return temporary_folder(path, "file");
}

TEST(file, write_is_all_or_nothing) {
    const char *folder = scratch();
    char *path = io_path_join(folder, "a.txt"), *text;
    size_t n;
    CHECK_OK(io_write_file(path, "old", 3, &err));
    struct io_writer *w;
    CHECK_OK(io_writer_open(&w, path, &err));
    CHECK_OK(io_writer_write(w, "new text", 8, &err));
    CHECK_OK(io_read_file(&text, &n, path, 100, &err));
    CHECK(n == 3 && !strcmp(text, "old"));
    free(text);
    io_writer_abort(&w);
    CHECK(!w);
    CHECK_OK(io_writer_open(&w, path, &err));
    // over the buffer in odd pieces
    char piece[1000];
    memset(piece, 'x', sizeof piece);
    for (int i = 0; i < 3000; i++) CHECK_OK(io_writer_write(w, piece, (size_t)(i % 1000), &err));
    char *big = calloc(1, 3 << 20);
    CHECK_OK(io_writer_write(w, big, 3 << 20, &err));
    free(big);
    CHECK_OK(io_writer_commit(&w, &err));
    CHECK_OK(io_read_file(&text, &n, path, 1 << 24, &err));
    CHECK(n == 1498500 + (3 << 20) && text[1498499] == 'x' && text[1498500] == 0);
    free(text);
    CHECK_FAILS(io_read_file(&text, &n, path, 1000, &err), CB_E_LIMIT, "more than 1000 bytes");
    CHECK_OK(io_read_file(&text, &n, path, 1498500 + (3 << 20), &err));  // the limit itself is allowed
    free(text);
    unlink(path);
    CHECK(rmdir(folder) == 0, "a temporary file was left");
    free(path);
}

TEST(file, failures_name_the_path_and_the_reason) {
    struct io_writer *w = NULL;
    char *text;
    size_t n;
    CHECK_FAILS(io_writer_open(&w, "no/such/folder/x", &err), CB_E_IO, "no/such/folder/x: cannot write: No such file");
    CHECK_FAILS(io_read_file(&text, &n, "no/such", 10, &err), CB_E_IO, "no/such: No such file");
    CHECK_FAILS(io_read_file(&text, &n, ".", 10, &err), CB_E_IO, "directory");
    const char *folder = scratch();
    CHECK_FAILS(io_writer_open(&w, folder, &err), CB_E_IO, "a folder; wanted a file");
    // the device that is always full
    if (access("/dev/full", W_OK) == 0) {
        CHECK_OK(io_writer_open(&w, "/dev/full", &err));
        CHECK_OK(io_writer_write(w, "x", 1, &err));
        CHECK_FAILS(io_writer_commit(&w, &err), CB_E_IO, "/dev/full: cannot write after 0 bytes: No space left");
        CHECK(!w);
    }
}

TEST(file, folders_and_names) {
    const char *folder = scratch();
    char *deep = io_path_join(folder, "a/b//c/"), *file = io_path_join(folder, "f"), *under = io_path_join(folder, "f/g");
    CHECK_OK(io_mkdirs(deep, &err));
    CHECK_OK(io_mkdirs(deep, &err));
    CHECK(io_is_folder(deep) && !io_is_file(deep));
    CHECK_OK(io_write_file(file, "", 0, &err));
    CHECK(io_is_file(file));
    CHECK_FAILS(io_mkdirs(file, &err), CB_E_IO, "folder");
    CHECK_FAILS(io_mkdirs(under, &err), CB_E_IO, "folder");
    free(deep), free(file), free(under);
    CHECK(io_name_stays("a") && io_name_stays("a/b..c") && io_name_stays("..a"));
    CHECK(io_name_climbs("..") && io_name_climbs("/a/..") && io_name_climbs("../a") && !io_name_climbs("/a/..b/c.."));
    CHECK(!io_name_stays("") && !io_name_stays("/a") && !io_name_stays("..") && !io_name_stays("a/../b") && !io_name_stays("a/.."));
}

TEST(map, files_and_copies) {
    const char *folder = scratch();
    char *path = io_path_join(folder, "m");
    struct map *m;
    CHECK_OK(io_write_file(path, "hello", 5, &err));
    CHECK_OK(map_open(&m, path, &err));
    struct map *other = map_retain(m);
    unlink(path);
    map_release(&m);
    CHECK(!m && map_size(other) == 5 && !memcmp(map_data(other), "hello", 5) && !strcmp(map_name(other), path));
    map_release(&other);
    CHECK_OK(io_write_file(path, "", 0, &err));
    CHECK_OK(map_open(&m, path, &err));
    CHECK(map_size(m) == 0 && map_data(m));
    map_release(&m);
    CHECK_FAILS(map_open(&m, folder, &err), CB_E_IO, "a folder; wanted a file");
    CHECK_OK(map_copy(&m, "abc", 3, "memory", &err));
    CHECK(map_size(m) == 3);
    map_release(&m);
    free(path);
}
