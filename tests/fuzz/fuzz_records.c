/* Fuzz target: any bytes as a file of records; readers of all three ways with broken bytes end with records or a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/records.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n) abort();
    char path[40];
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    for (int invalid = DATA_INVALID_FAIL; invalid <= DATA_INVALID_SKIP; invalid++) {
        struct cb_err err = {0};
        struct records *records;
        struct records_options options = {.invalid = (enum data_invalid)invalid};
        const struct record *record = NULL;
        lseek(fd, 0, SEEK_SET);
        if (records_open(&records, path, NULL, &options, &err)) continue;
        enum cb_status status;
        while ((status = records_next(records, &record, &err)) == CB_OK && record)
            if (record->text && utf8_check(record->text, record->n_text) != record->n_text) __builtin_trap();
        if (status != CB_OK && (!err.code || !err.message[0])) __builtin_trap();
        records_close(&records);
    }
    close(fd);
    return 0;
}
