/* Fuzz target: a folder of a tokenizer that has no tokenizer.json. The input is a digit for the name of its last file, then tokenizer_config.json,
   NUL, vocab.json, NUL, and that file: a SentencePiece model or merges.txt. Files that are empty are left out. Where the digit has its highest bit set,
   the first is special_tokens_map.json too, and the second added_tokens.json instead. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tokenizer_use.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const last_name[] = {"merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model", "source.spm"};
enum { N_LAST = sizeof last_name / sizeof *last_name };

static void put(const char *folder, const char *name, const uint8_t *bytes, size_t n) {
    char path[80];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
    FILE *f = n ? fopen(path, "wb") : NULL;
    if (n && (!f || fwrite(bytes, 1, n, f) != n || fclose(f))) abort();
}

/* Bytes up to the next NUL, or all. */
static size_t part(const uint8_t *bytes, size_t n) {
    const uint8_t *gap = n ? memchr(bytes, 0, n) : NULL;
    return gap ? (size_t)(gap - bytes) : n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char folder[] = "/dev/shm/cambium_fuzz_XXXXXX";
    struct tokenizer *t = NULL;
    struct cb_err err = {0};
    if (!size) return 0;
    if (!mkdtemp(folder)) abort();
    const char *last = last_name[data[0] % N_LAST];
    const bool is_old = data[0] & 0x80;
    size_t at = 1, n = part(data + at, size - at);
    put(folder, "tokenizer_config.json", data + at, n);
    if (is_old) put(folder, "special_tokens_map.json", data + at, n);
    at += n + (at + n < size);
    n = part(data + at, size - at);
    put(folder, is_old ? "added_tokens.json" : "vocab.json", data + at, n);
    at += n + (at + n < size);
    put(folder, last, data + at, size - at);
    if (!tokenizer_load(&t, folder, &err)) {
        use_text(t, "Hello \xc3\xa9 ab  abab<s>en_XX __en__ \xe2\x96\x81\xe4\xbd\xa0 12", 42, ENCODE_SPECIALS | ENCODE_CODE_POINTS);
        use_again(&t);
    } else if (!err.code || !err.message[0]) {
        abort();
    }
    put(folder, "tokenizer_config.json", NULL, 0);
    put(folder, "vocab.json", NULL, 0);
    put(folder, "special_tokens_map.json", NULL, 0);
    put(folder, "added_tokens.json", NULL, 0);
    put(folder, last, NULL, 0);
    if (rmdir(folder)) abort();
    return 0;
}
