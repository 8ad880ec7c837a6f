/* Maps files read-only, with a heap copy where the file cannot be mapped. */
#include "io/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

struct map {
    atomic_int n_references;
    bool mapped;
    void *data;  // never NULL
    size_t size;
    char *name;
};

static enum cb_status map_make(struct map **out, const char *name, struct cb_err *err) {
    struct map *map = calloc(1, sizeof *map);
    if (map) map->name = strdup(name);
    if (!map || !map->name) {
        free(map);
        *out = NULL;
        FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    }
    atomic_init(&map->n_references, 1);
    *out = map;
    return CB_OK;
}

// True if the whole regular file could be mapped.
static bool file_map(struct map *map, int fd, off_t size) {
    if (size <= 0 || (uint64_t)size > SIZE_MAX / 2) return false;
    void *data = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return false;
    map->data = data;
    map->size = (size_t)size;
    map->mapped = true;
    return true;
}

enum cb_status map_open(struct map **out, const char *path, struct cb_err *err) {
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat s;
    if (fd < 0 || fstat(fd, &s)) {
        int e = errno;
        if (fd >= 0) close(fd);
        FAIL(err, CB_E_IO, "%s: %s", path, strerror(e));
    }
    struct map *map = NULL;
    enum cb_status status = CB_OK;
    if (S_ISDIR(s.st_mode)) status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: a folder; wanted a file", path);
    if (status == CB_OK) status = map_make(&map, path, err);
    bool mapped = status == CB_OK && S_ISREG(s.st_mode) && file_map(map, fd, s.st_size);
    close(fd);
    if (status == CB_OK && !mapped) {
        char *bytes = NULL;
        status = io_read_file(&bytes, &map->size, path, SIZE_MAX / 4, err);
        map->data = bytes;
    }
    if (status != CB_OK) {
        map_release(&map);
        return status;
    }
    *out = map;
    return CB_OK;
}

enum cb_status map_create(struct map **out, unsigned char **bytes, size_t n, const char *name, struct cb_err *err) {
    TRY(map_make(out, name, err));
    *bytes = (*out)->data = calloc(n ? n : 1, 1);
    if (!*bytes) {
        map_release(out);
        FAIL(err, CB_E_MEMORY, "%s: out of memory for %zu bytes", name, n);
    }
    (*out)->size = n;
    return CB_OK;
}

enum cb_status map_copy(struct map **out, const void *bytes, size_t n, const char *name, struct cb_err *err) {
    unsigned char *own = NULL;
    TRY(map_create(out, &own, n, name, err));
    if (n) memcpy(own, bytes, n);
    return CB_OK;
}

struct map *map_retain(struct map *map) {
    atomic_fetch_add(&map->n_references, 1);
    return map;
}

void map_release(struct map **map) {
    struct map *m = map ? *map : NULL;
    if (!m) return;
    *map = NULL;
    if (atomic_fetch_sub(&m->n_references, 1) != 1) return;
    if (m->mapped)
        munmap(m->data, m->size);
    else
        free(m->data);
    free(m->name);
    free(m);
}

void map_forget(const struct map *map, const void *data, size_t begin, size_t n) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)data + begin;
    // whole pages alone: others hold what lies beside
    const uintptr_t end = (uintptr_t)map->data + map->size;
    const uintptr_t first = (from + page - 1) / page * page, last = (from + n < end ? from + n : end) / page * page;
    if (map->mapped && last > first) madvise((void *)first, last - first, MADV_DONTNEED);
}

const unsigned char *map_data(const struct map *map) { return map->data; }
size_t map_size(const struct map *map) { return map->size; }
const char *map_name(const struct map *map) { return map->name; }
