/* Temporary files and folders for the tests of data. */
#include "files.h"

#include <zlib.h>
#include <zstd.h>

#include "../harness.h"
#include "io/file.h"

char *folder_make(void) {
    char path[128];
    return strdup(temporary_folder(path, "data"));
}

char *file_put(const char *folder, const char *name, const void *bytes, size_t n) {
    struct cb_err err = {0};
    char *path = io_path_join(folder, name);
    CHECK(path, "out of memory");
    char *parent = strndup(path, (size_t)(strrchr(path, '/') - path));
    CHECK_OK(io_mkdirs(parent, &err));
    free(parent);
    CHECK_OK(io_write_file(path, bytes, n, &err));
    return path;
}

char *file_put_packed(const char *folder, const char *name, const void *bytes, size_t n) {
    size_t room = n * 2 + 4096, used = 0, length = strlen(name);
    char *out = malloc(room);
    CHECK(out, "out of memory");
    if (!strcmp(name + length - 4, ".zst")) {
        used = ZSTD_compress(out, room, bytes, n, 3);
    } else {
        z_stream z = {0};
        deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
        z.next_in = (unsigned char *)(uintptr_t)bytes, z.avail_in = (uInt)n, z.next_out = (unsigned char *)out, z.avail_out = (uInt)room;
        deflate(&z, Z_FINISH);
        used = z.total_out;
        deflateEnd(&z);
    }
    char *path = file_put(folder, name, out, used);
    free(out);
    return path;
}

char *file_make(const char *name, const void *bytes, size_t n) {
    char *folder = folder_make(), *path = file_put(folder, name, bytes, n);
    free(folder);
    return path;
}
