/* Small files beside results. */
#include "api/files.h"

#include <stdlib.h>
#include <string.h>

#include "api/gguf_arrays.h"
#include "io/file.h"

enum { LIMIT = 1 << 30 };

enum cb_status files_write_text(const char *folder, const char *name, const char *text, struct cb_err *err) {
    if (!text) return CB_OK;
    char *path = io_path_join(folder, name);
    if (!path) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    enum cb_status status = io_write_file(path, text, strlen(text), err);
    free(path);
    return status;
}

static enum cb_status copy_file(const char *from, const char *to, struct cb_err *err) {
    char *bytes = NULL;
    size_t n;
    TRY(io_read_file(&bytes, &n, from, LIMIT, err));
    enum cb_status status = io_write_file(to, bytes, n, err);
    free(bytes);
    return status;
}

enum cb_status files_copy_tokenizer(const char *from, const char *to, bool *found, struct cb_err *err) {
    static const char *const names[] = {
        "tokenizer.json",          "vocab.json",        "merges.txt",         "encoder.json", "vocab.bpe", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"};
    bool is_folder = io_is_folder(from);
    if (!is_folder && gguf_is_path(from)) return gguf_write_tokenizer(from, to, found, err);
    if (found) *found = false;
    for (size_t i = 0; i < (is_folder ? sizeof names / sizeof *names : 1); i++) {
        char *source = is_folder ? io_path_join(from, names[i]) : strdup(from), *target = io_path_join(to, names[i]);
        enum cb_status status = source && target ? CB_OK : CB_E_MEMORY;
        if (status == CB_OK && io_is_file(source) && strcmp(source, target) != 0) {
            status = copy_file(source, target, err);
            if (found && i < 5) *found = true;
        }
        free(source);
        free(target);
        if (status == CB_E_MEMORY) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
        TRY(status);
    }
    return CB_OK;
}

enum cb_status files_load_tokenizer(struct tokenizer **tokenizer, const char *path, struct cb_err *err) {
    struct gguf *g;
    if (!gguf_is_path(path) || io_is_folder(path)) return tokenizer_load(tokenizer, path, err);
    *tokenizer = NULL;
    TRY(gguf_open(&g, path, err));
    enum cb_status status = gguf_tokenizer(tokenizer, g, err);
    gguf_destroy(&g);
    return status;
}

bool files_have_tokenizer(const char *path) {
    static const char *const names[] = {"tokenizer.json", "vocab.json", "encoder.json", "tokenizer.model", "spiece.model", "vocab.txt"};
    bool there = false;
    if (!io_is_folder(path) && gguf_is_path(path)) {
        struct gguf *g;
        struct cb_err quiet = {0};
        if (gguf_open(&g, path, &quiet) != CB_OK) return false;
        there = gguf_find(g, "tokenizer.ggml.tokens") != NULL;
        gguf_destroy(&g);
        return there;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names && !there; i++) {
        char *file = io_path_join(path, names[i]);
        there = file && io_is_file(file);
        free(file);
    }
    return there;
}
