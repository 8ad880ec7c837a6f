/* Fuzz target: any bytes as a file of each format of records; the first byte chooses. Readers end with records or a message. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/records.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n) {
    const struct reader_kind *const *kinds = reader_kinds();
    int n_kinds = 0;
    while (kinds[n_kinds]) n_kinds++;
    int fd = memfd_create("fuzz", 0);
    bool parquet = n >= 4 && bytes[0] == 'P' && bytes[1] == 'A' && bytes[2] == 'R' && bytes[3] == '1';
    size_t skip = n && !parquet;
    if (fd < 0 || write(fd, bytes + skip, n - skip) != (ssize_t)(n - skip)) abort();
    char path[40];
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    for (int i = 0; i < n_kinds; i++) {
        struct cb_err err = {0};
        struct records *records;
        const struct record *record = NULL;
        struct records_options options = {.invalid = n ? (enum data_invalid)(bytes[0] % 3) : DATA_INVALID_FAIL};
        if ((n && !parquet && bytes[0] / 3 % n_kinds != i) || (parquet && !kinds[i]->magic)) continue;
        lseek(fd, 0, SEEK_SET);
        enum cb_status status = records_open(&records, path, kinds[i], &options, &err);
        if (status != CB_OK) continue;
        int count = 0;
        while ((status = records_next(records, &record, &err)) == CB_OK && record && count++ < 100000)
            if (record->text && utf8_check(record->text, record->n_text) != record->n_text) __builtin_trap();
        if (status != CB_OK && (!err.code || !err.message[0])) __builtin_trap();
        records_close(&records);
    }
    close(fd);
    return 0;
}
