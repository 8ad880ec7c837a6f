/* Walks folders in an order that is the same everywhere: by the bytes of the names. */
#include "data/walk.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file.h"

#define MAX_DEPTH 64

// The folders on the way down, so that a link upwards does not lead round in circles.
struct place {
    const struct place *above;
    dev_t device;
    ino_t inode;
    int depth;
};

void walk_deinit(struct walk *walk) {
    for (int64_t i = 0; i < walk->n; i++) free(walk->file[i].path);
    free(walk->file);
    *walk = (struct walk){0};
}

// s: NULL for standard input.
static enum cb_status file_add(struct walk *w, const char *path, const struct stat *s, bool listed, struct cb_err *err) {
    if (w->n == w->capacity) {
        int64_t capacity = w->capacity ? 2 * w->capacity : 64;
        struct source_file *more = realloc(w->file, (size_t)capacity * sizeof *more);
        if (!more) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
        w->file = more;
        w->capacity = capacity;
    }
    struct source_file f = {.path = strdup(path), .is_listed = listed};
    if (!f.path) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    f.reader = reader_by_name(path);
    if (!f.reader && !listed && s && S_ISREG(s->st_mode)) f.reader = reader_by_magic(path);
    if (s && S_ISREG(s->st_mode)) {
        f.is_regular = true;
        f.bytes = s->st_size;
        f.mtime_ns = (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec;
    }
    w->file[w->n++] = f;
    return CB_OK;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// The names in a folder, sorted. *names: owned by caller, names_free.
static enum cb_status names_read(char ***names, size_t *n, const char *path, struct cb_err *err) {
    DIR *folder = opendir(path);
    *names = NULL;
    *n = 0;
    if (!folder) FAIL(err, CB_E_IO, "%s: %s", path, strerror(errno));
    enum cb_status status = CB_OK;
    for (struct dirent *entry; status == CB_OK && (errno = 0, entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        char **more = *n & (*n - 1) ? *names : realloc(*names, (*n ? 2 * *n : 1) * sizeof *more);
        if (more) *names = more;
        if (!more || !((*names)[*n] = strdup(entry->d_name)))
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", path);
        else
            ++*n;
    }
    if (status == CB_OK && errno) status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: %s", path, strerror(errno));
    closedir(folder);
    if (*n) qsort(*names, *n, sizeof **names, by_name);
    return status;
}
static void names_free(char **names, size_t n) {
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
}

static enum cb_status path_add(struct walk *w, const char *path, const struct place *above, struct cb_err *err);

static enum cb_status folder_add(struct walk *w, const char *path, const struct place *above, const struct stat *s, struct cb_err *err) {
    struct place here = {above, s->st_dev, s->st_ino, above ? above->depth + 1 : 0};
    for (const struct place *p = above; p; p = p->above)
        if (p->device == here.device && p->inode == here.inode) return CB_OK;
    if (here.depth > MAX_DEPTH) FAIL(err, CB_E_LIMIT, "%s: a folder %d deep; wanted at most %d", path, here.depth, MAX_DEPTH);
    char **names;
    size_t n;
    enum cb_status status = names_read(&names, &n, path, err);
    for (size_t i = 0; i < n && status == CB_OK; i++) {
        char *inner = io_path_join(path, names[i]);
        status = inner ? path_add(w, inner, &here, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", path);
        free(inner);
    }
    names_free(names, n);
    return status;
}

static enum cb_status path_add(struct walk *w, const char *path, const struct place *above, struct cb_err *err) {
    struct stat s;
    bool absent = stat(path, &s) != 0;
    // within a folder, a link to nothing, a device or a pipe is no text
    if (above && (absent || (!S_ISREG(s.st_mode) && !S_ISDIR(s.st_mode)))) return CB_OK;
    if (absent) FAIL(err, CB_E_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(s.st_mode)) return folder_add(w, path, above, &s, err);
    return file_add(w, path, &s, above != NULL, err);
}

enum cb_status walk_add(struct walk *walk, const char *path, struct cb_err *err) {
    if (!strcmp(path, "-")) return file_add(walk, path, NULL, false, err);
    return path_add(walk, path, NULL, err);
}
