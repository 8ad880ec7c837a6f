/* Feeds files, and all files of folders, to a fuzz target: `replay PATH...`; prints how many were fed, fails on none. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static int path_feed(const char *path) {
    struct cb_err err = {0};
    int n_fed = 0;
    if (io_is_folder(path)) {
        DIR *folder = opendir(path);
        for (struct dirent *entry; folder && (entry = readdir(folder));) {
            if (entry->d_name[0] == '.') continue;
            char *inside = io_path_join(path, entry->d_name);
            if (inside) n_fed += path_feed(inside);
            free(inside);
        }
        if (folder) closedir(folder);
        return n_fed;
    }
    char *bytes;
    size_t n;
    if (io_read_file(&bytes, &n, path, (size_t)1 << 28, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 0;
    }
    // an exact allocation lets the sanitizer see one byte too far
    char *exact = malloc(n ? n : 1);
    for (size_t i = 0; exact && i < n; i++) exact[i] = bytes[i];
    free(bytes);
    if (exact) LLVMFuzzerTestOneInput((const uint8_t *)exact, n);
    free(exact);
    return 1;
}

int main(int argc, char **argv) {
    int n_fed = 0;
    for (int i = 1; i < argc; i++) n_fed += path_feed(argv[i]);
    printf("%d inputs\n", n_fed);
    return n_fed == 0;
}
