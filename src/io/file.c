/* Whole-file reads, atomic writes and small path helpers over POSIX calls. */
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER ((size_t)1 << 20)

enum cb_status io_read_file(char **out, size_t *n, const char *path, size_t limit, struct cb_err *err) {
    *out = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) FAIL(err, CB_E_IO, "%s: %s", path, strerror(errno));
    struct stat s;
    size_t size = fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_size > 0 ? (size_t)s.st_size : 4096, used = 0;
    if (size > limit) size = limit;
    char *data = malloc(size + 2);
    enum cb_status status = data ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory for %zu bytes", path, size);
    while (status == CB_OK) {
        // one byte over the size tells the end of the file, and the limit, apart
        ssize_t got = read(fd, data + used, size + 1 - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) status = err_set(err, CB_E_IO, __FILE__, __LINE__, "%s: %s", path, strerror(errno));
        if (got <= 0) break;
        used += (size_t)got;
        if (used <= size) continue;
        if (size >= limit) {
            status = err_set(err, CB_E_LIMIT, __FILE__, __LINE__, "%s: more than %zu bytes; wanted at most that", path, limit);
            break;
        }
        size = size < limit / 2 ? size * 2 : limit;
        char *more = realloc(data, size + 2);
        if (more)
            data = more;
        else
            status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory for %zu bytes", path, size);
    }
    close(fd);
    if (status != CB_OK) {
        free(data);
        return status;
    }
    data[used] = 0;
    *out = data;
    *n = used;
    return CB_OK;
}

// ---- writer

struct io_writer {
    int fd;
    char *path, *temporary;  // temporary: NULL where path is written directly
    char *folder;
    size_t used;
    uint64_t written;
    char buffer[];
};

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

#define TEMPORARY_BEGIN ".cambium-"
#define TEMPORARY_END ".tmp"

// A new file of a random name in the folder.
static int temporary_open(struct io_writer *w) {
    for (int attempt = 0; attempt < 16; attempt++) {
        uint64_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random) return -1;
        char name[40];
        snprintf(name, sizeof name, TEMPORARY_BEGIN "%016llx" TEMPORARY_END, (unsigned long long)random);
        free(w->temporary);
        if (!(w->temporary = io_path_join(w->folder, name))) return -1;
        int fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

static void writer_free(struct io_writer *w) {
    if (w->fd >= 0) close(w->fd);
    free(w->path);
    free(w->temporary);
    free(w->folder);
    free(w);
}

enum cb_status io_writer_open(struct io_writer **out, const char *path, struct cb_err *err) {
    *out = NULL;
    struct io_writer *w = malloc(sizeof *w + BUFFER);
    if (!w) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    *w = (struct io_writer){.fd = -1, .path = strdup(path), .folder = folder_of(path)};
    if (!w->path || !w->folder) {
        writer_free(w);
        FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    }
    struct stat s;
    bool exists = stat(path, &s) == 0;
    if (exists && S_ISDIR(s.st_mode)) {
        writer_free(w);
        FAIL(err, CB_E_IO, "%s: a folder; wanted a file name to write", path);
    }
    w->fd = exists && !S_ISREG(s.st_mode) ? open(path, O_WRONLY | O_CLOEXEC) : temporary_open(w);
    if (w->fd < 0) {
        int e = errno;
        writer_free(w);
        FAIL(err, CB_E_IO, "%s: cannot write: %s", path, strerror(e));
    }
    *out = w;
    return CB_OK;
}

static enum cb_status write_all(struct io_writer *w, const char *bytes, size_t n, struct cb_err *err) {
    while (n) {
        ssize_t done = write(w->fd, bytes, n < (size_t)1 << 30 ? n : (size_t)1 << 30);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) FAIL(err, CB_E_IO, "%s: cannot write after %llu bytes: %s", w->path, (unsigned long long)w->written, strerror(errno));
        bytes += done;
        n -= (size_t)done;
        w->written += (uint64_t)done;
    }
    return CB_OK;
}

static enum cb_status writer_flush(struct io_writer *w, struct cb_err *err) {
    size_t n = w->used;
    w->used = 0;
    return write_all(w, w->buffer, n, err);
}

enum cb_status io_writer_write(struct io_writer *w, const void *bytes, size_t n, struct cb_err *err) {
    if (n > BUFFER - w->used) TRY(writer_flush(w, err));
    if (n >= BUFFER) return write_all(w, bytes, n, err);
    memcpy(w->buffer + w->used, bytes, n);
    w->used += n;
    return CB_OK;
}

// Data first, then the name, then the folder that holds the name.
static enum cb_status writer_finish(struct io_writer *w, struct cb_err *err) {
    TRY(writer_flush(w, err));
    if (!w->temporary) return CB_OK;
    if (fsync(w->fd)) FAIL(err, CB_E_IO, "%s: cannot flush: %s", w->path, strerror(errno));
    int closed = close(w->fd);
    w->fd = -1;
    if (closed) FAIL(err, CB_E_IO, "%s: cannot close: %s", w->path, strerror(errno));
    if (rename(w->temporary, w->path)) FAIL(err, CB_E_IO, "%s: cannot rename to it: %s", w->path, strerror(errno));
    free(w->temporary);
    w->temporary = NULL;
    int folder = open(w->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return CB_OK;  // written, though the folder may not be listed
    int failed = fsync(folder) && errno != EINVAL && errno != ENOTSUP;
    close(folder);
    if (failed) FAIL(err, CB_E_IO, "%s: cannot flush its folder: %s", w->path, strerror(errno));
    return CB_OK;
}

enum cb_status io_writer_commit(struct io_writer **writer, struct cb_err *err) {
    enum cb_status status = writer_finish(*writer, err);
    io_writer_abort(writer);
    return status;
}

void io_writer_abort(struct io_writer **writer) {
    if (!writer || !*writer) return;
    if ((*writer)->temporary) unlink((*writer)->temporary);
    writer_free(*writer);
    *writer = NULL;
}

enum cb_status io_write_file(const char *path, const void *bytes, size_t n, struct cb_err *err) {
    struct io_writer *w;
    TRY(io_writer_open(&w, path, err));
    enum cb_status status = io_writer_write(w, bytes, n, err);
    if (status == CB_OK) return io_writer_commit(&w, err);
    io_writer_abort(&w);
    return status;
}

static bool is_temporary(const char *name) {
    size_t begin = strlen(TEMPORARY_BEGIN), digits;
    if (strncmp(name, TEMPORARY_BEGIN, begin) != 0) return false;
    digits = strspn(name + begin, "0123456789abcdef");
    return digits == 16 && strcmp(name + begin + digits, TEMPORARY_END) == 0;
}

void io_remove_temporaries(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));)
        if (is_temporary(e->d_name)) unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
}

// ---- folders and paths

enum cb_status io_mkdirs(const char *path, struct cb_err *err) {
    char *copy = strdup(path);
    if (!copy) FAIL(err, CB_E_MEMORY, "%s: out of memory", path);
    int e = 0;
    for (char *at = copy + 1; *copy && !e; at++) {  // the first that cannot be made tells why
        char c = *at;
        if (c && c != '/') continue;
        *at = 0;
        if (mkdir(copy, 0777) && errno != EEXIST) {
            int why = errno;
            if (!io_is_folder(copy)) e = why;
        }
        *at = c;
        if (!c) break;
    }
    free(copy);
    if (e) FAIL(err, CB_E_IO, "%s: cannot make the folder: %s", path, strerror(e));
    if (!io_is_folder(path)) FAIL(err, CB_E_IO, "%s: found something that is no folder; wanted a folder", path);
    return CB_OK;
}

enum cb_status io_lock(int *lock, const char *folder, struct cb_err *err) {
    *lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0) FAIL(err, CB_E_IO, "%s: cannot open the folder: %s", folder, strerror(errno));
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return CB_OK;
    io_unlock(lock);
    FAIL(err, CB_E_IO, "%s: another run is writing here; wait for its end, or give another folder", folder);
}

void io_unlock(int *lock) {
    if (*lock >= 0) close(*lock);
    *lock = -1;
}

char *io_path_join(const char *folder, const char *name) {
    size_t n = strlen(folder), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (!path) return NULL;
    memcpy(path, folder, n);
    if (n && folder[n - 1] != '/') path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

bool io_name_climbs(const char *name) {
    for (const char *at = name; at; at = strchr(at, '/')) {
        if (*at == '/') at++;
        if (at[0] == '.' && at[1] == '.' && (at[2] == '/' || !at[2])) return true;
    }
    return false;
}

bool io_name_stays(const char *name) { return *name && *name != '/' && !io_name_climbs(name); }

char *io_absolute(const char *path) { return realpath(path, NULL); }

bool io_is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}
bool io_is_file(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && !S_ISDIR(s.st_mode);
}
bool io_has_file(const char *folder, const char *name) {
    struct stat s;
    const int at = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const bool there = at >= 0 && fstatat(at, name, &s, 0) == 0 && !S_ISDIR(s.st_mode);
    if (at >= 0) close(at);
    return there;
}
