/* Feeds the files named on the command line to a fuzz target, one after another, without a fuzzer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The whole file in one heap block of exactly its size, so that a read past the end is seen. Owned by caller, free(). */
static uint8_t *read_all(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    long end = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    uint8_t *data = end >= 0 ? malloc(end > 0 ? (size_t)end : 1) : NULL;
    rewind(f);
    if (data && fread(data, 1, (size_t)end, f) != (size_t)end) {
        free(data);
        data = NULL;
    }
    fclose(f);
    *size = (size_t)end;
    return data;
}

int main(int argc, char **argv) {
    // the empty input first
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        size_t size = 0;
        uint8_t *data = read_all(argv[i], &size);
        if (!data) {
            fprintf(stderr, "%s: cannot be read\n", argv[i]);
            return 1;
        }
        LLVMFuzzerTestOneInput(data, size);
        free(data);
    }
    printf("%d inputs\n", argc);
    return 0;
}
