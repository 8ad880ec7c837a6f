/* Temporary folders of tests: each is removed, with what is in it, when the process that made it ends. */
#include "harness.h"

#include <ftw.h>
#include <unistd.h>

struct folder {
    struct folder *before;
    pid_t maker;
    char path[128];
};
static struct folder *folders;

static int entry_remove(const char *path, const struct stat *s, int type, struct FTW *ftw) {
    (void)s, (void)type, (void)ftw;
    return remove(path);
}

/* A process that a test forks ends with its parent's list: the parent's folders are left. */
static void folders_remove(void) {
    for (struct folder *f = folders, *before; f; f = before) {
        before = f->before;
        if (f->maker == getpid()) nftw(f->path, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
        free(f);
    }
    folders = NULL;
}

const char *temporary_folder(char text[128], const char *name) {
    const char *base = getenv("TMPDIR");
    struct folder *f = malloc(sizeof *f);
    CHECK(f && (folders || atexit(folders_remove) == 0), "out of memory");
    *f = (struct folder){.before = folders, .maker = getpid()};
    snprintf(f->path, sizeof f->path, "%.80s/cambium_%.20s_XXXXXX", base ? base : "/tmp", name);
    CHECK(mkdtemp(f->path), "%s: cannot be made", f->path);
    folders = f;
    return strcpy(text, f->path);
}
