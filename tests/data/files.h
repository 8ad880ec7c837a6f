/* Files for the tests of data, each folder of its own under the system's temporary folder. */
#ifndef TESTS_DATA_FILES_H
#define TESTS_DATA_FILES_H
#include <stddef.h>

/* A new temporary folder; free with free(). */
char *folder_make(void);
/* FOLDER/NAME with these bytes; its path, free with free(). */
char *file_put(const char *folder, const char *name, const void *bytes, size_t n);
/* The same with text in gzip or zstd, as the name's end says. */
char *file_put_packed(const char *folder, const char *name, const void *bytes, size_t n);
/* A file in a new folder; free with free(). */
char *file_make(const char *name, const void *bytes, size_t n);
#endif
