/* Fuzz target: any bytes as a file of each format of records. The input's first line is a digit, for what is done with broken bytes, and the ending of the
   file's name or the format's; without one it is Parquet. Readers end with records or a message. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/records.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void read_all(const char *path, const struct reader_kind *kind, enum data_invalid invalid) {
    struct cb_err err = {0};
    struct records *records;
    const struct record *record = NULL;
    struct records_options options = {.invalid = invalid};
    enum cb_status status = records_open(&records, path, kind, &options, &err);
    if (status != CB_OK) return;
    int count = 0;
    while ((status = records_next(records, &record, &err)) == CB_OK && record && count++ < 100000)
        if (record->text && utf8_check(record->text, record->n_text) != record->n_text) __builtin_trap();
    if (status != CB_OK && (!err.code || !err.message[0])) __builtin_trap();
    records_close(&records);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    const struct reader_kind *const *kind = reader_kinds();
    const uint8_t *end = n ? memchr(bytes, '\n', n) : NULL;
    char path[] = "/dev/shm/cambium_fuzz_XXXXXX.end4567", *ending = strchr(path, '.') + 1;
    size_t line = end ? (size_t)(end - bytes) : 0, skip = line && line < 9 ? line + 1 : 0;
    strcpy(ending, "parquet");
    for (size_t i = 1; skip && i < line; i++) {
        if (!isalnum(bytes[i])) return 0;
        ending[i - 1] = (char)bytes[i];
        ending[i] = 0;
    }
    int fd = mkstemps(path, (int)strlen(ending) + 1);
    if (fd < 0 || write(fd, bytes + skip, n - skip) != (ssize_t)(n - skip)) abort();
    while (*kind && strcmp((*kind)->name, ending) != 0) kind++;
    read_all(path, *kind, (enum data_invalid)(skip ? bytes[0] % 3 : DATA_INVALID_FAIL));
    close(fd);
    unlink(path);
    return 0;
}
