/* Files: whole reads with a limit, atomic writes, folders and path pieces. */
#ifndef IO_FILE_H
#define IO_FILE_H
#include "base/err.h"

/* Reads a whole file (or pipe) of at most `limit` bytes. *out: NUL after the last byte, owned by caller, free with free(). */
enum cb_status io_read_file(char **out, size_t *n, const char *path, size_t limit, struct cb_err *err);

/* A file that appears under its name only when committed: written beside it, flushed to the device, then renamed. Where `path` is a device or pipe, it is
   written directly. */
struct io_writer;
enum cb_status io_writer_open(struct io_writer **writer, const char *path, struct cb_err *err);
enum cb_status io_writer_write(struct io_writer *writer, const void *bytes, size_t n, struct cb_err *err);
/* Frees the writer in any case; on failure nothing is left behind and an older file stays as it was. */
enum cb_status io_writer_commit(struct io_writer **writer, struct cb_err *err);
/* Removes what was written. Nullable: *writer. */
void io_writer_abort(struct io_writer **writer);
/* Removes what writers of killed processes left in a folder. No other process may be writing there. */
void io_remove_temporaries(const char *folder);
/* One call for small files. */
enum cb_status io_write_file(const char *path, const void *bytes, size_t n, struct cb_err *err);

/* Makes the folder and its parents; one that exists is fine. */
enum cb_status io_mkdirs(const char *path, struct cb_err *err);
/* Locks a folder against others who ask; CB_E_IO where another holds it. Nothing is written, a killed process holds nothing, and a file system without locks
   keeps nobody out. Held until io_unlock, which takes -1 too. */
enum cb_status io_lock(int *lock, const char *folder, struct cb_err *err);
void io_unlock(int *lock);
/* FOLDER/NAME; NULL when out of memory. Owned by caller, free with free(). */
char *io_path_join(const char *folder, const char *name);
/* True for a relative name that stays inside its folder (no "..", not absolute, not empty). */
bool io_name_stays(const char *name);
/* True where the path holds a component "..". */
bool io_name_climbs(const char *name);
/* The path without "." and "..", links followed: NULL where there is nothing, or without memory. Owned by caller, free with free(). */
char *io_absolute(const char *path);
bool io_is_folder(const char *path);
bool io_is_file(const char *path);  // anything that exists and is no folder
bool io_has_file(const char *folder, const char *name);  // the same of a name in a folder; needs no memory
#endif
