/* Small files beside results. */
#include "api/files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

enum cb_status files_copy_into(const char *from, const char *folder, const char *name, struct cb_err *err) {
    char *to = io_path_join(folder, name);
    enum cb_status status = to ? copy_file(from, to, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", name);
    free(to);
    return status;
}

/* A single file of another format becomes a tokenizer.json. */
static enum cb_status convert_file(const char *from, const char *to, bool *done, struct cb_err *err) {
    struct tokenizer *t = NULL;
    char *bytes = NULL;
    size_t n, at = 0;
    TRY(io_read_file(&bytes, &n, from, LIMIT, err));
    while (at < n && bytes[at] && strchr(" \t\r\n", bytes[at])) at++;
    *done = at == n || bytes[at] != '{';
    free(bytes);
    if (!*done) return CB_OK;
    enum cb_status status = tokenizer_load(&t, from, err);
    if (status == CB_OK) status = files_save_tokenizer(t, to, NULL, err);
    tokenizer_destroy(&t);
    return status;
}

/* Parts of a tokenizer, and what goes with one. */
static const char *const part_names[] = {"merges.txt", "vocab.bpe", "target.spm", "added_tokens.json"};
static const char *const setting_names[] = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"};
enum { N_PART_NAMES = sizeof part_names / sizeof *part_names, N_SETTING_NAMES = sizeof setting_names / sizeof *setting_names };

/* The i-th of the files that a tokenizer begins with, of its parts and of what goes with it; NULL after the last. */
static const char *file_name(size_t i) {
    size_t n = 0;
    while (tokenizer_file_names[n]) n++;
    if (i < n) return tokenizer_file_names[i];
    i -= n;
    if (i < N_PART_NAMES) return part_names[i];
    return i < N_PART_NAMES + N_SETTING_NAMES ? setting_names[i - N_PART_NAMES] : NULL;
}

/* FROM/NAME into another folder, where it is there. */
static enum cb_status copy_named(const char *from, const char *to, const char *name, struct cb_err *err) {
    char *source = io_path_join(from, name);
    if (!source) FAIL(err, CB_E_MEMORY, "%s: out of memory", name);
    const bool is_there = io_is_file(source) && strcmp(from, to) != 0;
    const enum cb_status status = is_there ? files_copy_into(source, to, name, err) : CB_OK;
    free(source);
    return status;
}

enum cb_status files_copy_settings(const char *from, const char *to, struct cb_err *err) {
    if (!io_is_folder(from)) return gguf_is_path(from) ? gguf_write_tokenizer(from, to, err) : CB_OK;
    for (size_t i = 0; i < N_SETTING_NAMES; i++) TRY(copy_named(from, to, setting_names[i], err));
    return CB_OK;
}

void files_remove_tokenizer(const char *folder) {
    const char *name;
    for (size_t i = 0; (name = file_name(i)); i++) {
        char *path = io_path_join(folder, name);
        if (path) unlink(path);
        free(path);
    }
    rmdir(folder);
}

enum cb_status files_copy_tokenizer(const char *from, const char *to, struct cb_err *err) {
    const bool is_folder = io_is_folder(from);
    const char *name;
    bool done = false;
    if (!is_folder && gguf_is_path(from)) return gguf_write_tokenizer(from, to, err);
    if (!is_folder && io_is_file(from)) {
        TRY(convert_file(from, to, &done, err));
        return done ? CB_OK : files_copy_into(from, to, "tokenizer.json", err);
    }
    for (size_t i = 0; (name = file_name(i)); i++) TRY(copy_named(from, to, name, err));
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
    bool there = false;
    if (!io_is_folder(path) && gguf_is_path(path)) {
        struct gguf *g;
        struct cb_err quiet = {0};
        if (gguf_open(&g, path, &quiet) != CB_OK) return false;
        there = gguf_find(g, "tokenizer.ggml.tokens") != NULL;
        gguf_destroy(&g);
        return there;
    }
    for (const char *const *name = tokenizer_file_names; *name && !there; name++) there = io_has_file(path, *name);
    return there;
}
