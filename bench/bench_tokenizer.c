/* Encoding of a text on one core: MB/s, and a digest of all ids to compare with another library's. Arguments: MODEL (a folder or any tokenizer file),
   TEXT, and how often (1). The text is given line by line, ends of lines included. tools/bench_tokenizer.py runs it beside its peer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/tokenizer.h"

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static char *read_all(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = size >= 0 ? malloc((size_t)size + 1) : NULL;
    *n = bytes ? fread(bytes, 1, (size_t)size, file) : 0;
    fclose(file);
    return bytes;
}

/* FNV-1a 64 over the ids as little-endian numbers of four bytes. */
static uint64_t digest(uint64_t h, const struct token_list *list) {
    for (size_t i = 0; i < list->n; i++)
        for (int k = 0; k < 4; k++) h = (h ^ ((uint32_t)list->token[i].id >> 8 * k & 255)) * 0x100000001b3u;
    return h;
}

struct result {
    double seconds;
    int64_t tokens;
    uint64_t digest;
};

static enum cb_status run(struct result *out, struct encoder *encoder, const char *text, size_t n, struct cb_err *err) {
    struct token_list list = {0};
    enum cb_status status = CB_OK;
    *out = (struct result){.digest = 0xcbf29ce484222325u};
    for (size_t at = 0, length; at < n && !status; at += length) {
        const char *end = memchr(text + at, '\n', n - at);
        length = end ? (size_t)(end + 1 - text) - at : n - at;
        double begin = now();
        status = encoder_encode(encoder, &list, text + at, length, ENCODE_SPECIALS, err);
        out->seconds += now() - begin;
        out->tokens += (int64_t)list.n;
        out->digest = digest(out->digest, &list);
    }
    token_list_deinit(&list);
    return status;
}

int main(int argc, char **argv) {
    struct tokenizer *t = NULL;
    struct encoder *encoder = NULL;
    struct cb_err err = {0};
    struct result result;
    size_t n = 0;
    char *text = argc > 2 ? read_all(argv[2], &n) : NULL;
    if (!text) return fprintf(stderr, "usage: bench_tokenizer MODEL TEXT [TIMES]\n"), 2;
    double begin = now();
    enum cb_status status = tokenizer_load(&t, argv[1], &err);
    double load = now() - begin;
    for (int i = 0; i < (argc > 3 ? atoi(argv[3]) : 1) && !status; i++) {
        // a fresh encoder: nothing is remembered from the round before
        status = encoder_create(&encoder, t, &err);
        if (!status) status = run(&result, encoder, text, n, &err);
        encoder_destroy(&encoder);
        if (!status)
            printf(
                "{\"load_ms\": %.1f, \"seconds\": %.4f, \"mb_per_s\": %.2f, \"bytes\": %zu, \"tokens\": %lld, \"fnv1a64\": \"%016llx\"}\n",
                load * 1e3, result.seconds, (double)n * 1e-6 / result.seconds, n, (long long)result.tokens,
                (unsigned long long)result.digest);
    }
    if (status) fprintf(stderr, "bench_tokenizer: %s\n", err.message);
    tokenizer_destroy(&t);
    free(text);
    return status ? 1 : 0;
}
