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

/* The i-th of the files that a tokenizer begins with, of its parts and of what goes with it; NULL after the last. *begins: one of the first. */
static const char *file_name(size_t i, bool *begins) {
    size_t n = 0;
    while (tokenizer_file_names[n]) n++;
    *begins = i < n;
    if (i < n) return tokenizer_file_names[i];
    i -= n;
    if (i < N_PART_NAMES) return part_names[i];
    return i < N_PART_NAMES + N_SETTING_NAMES ? setting_names[i - N_PART_NAMES] : NULL;
}

enum cb_status files_copy_settings(const char *from, const char *to, struct cb_err *err) {
    if (!io_is_folder(from)) return gguf_is_path(from) ? gguf_write_tokenizer(from, to, NULL, err) : CB_OK;
    for (size_t i = 0; i < N_SETTING_NAMES; i++) {
        char *source = io_path_join(from, setting_names[i]), *target = io_path_join(to, setting_names[i]);
        enum cb_status status = source && target ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "tokenizer: out of memory");
        if (status == CB_OK && io_is_file(source)) status = copy_file(source, target, err);
        free(source);
        free(target);
        TRY(status);
    }
    return CB_OK;
}

void files_remove_tokenizer(const char *folder) {
    const char *name;
    bool begins;
    for (size_t i = 0; (name = file_name(i, &begins)); i++) {
        char *path = io_path_join(folder, name);
        if (path) unlink(path);
        free(path);
    }
    rmdir(folder);
}

enum cb_status files_copy_tokenizer(const char *from, const char *to, bool *found, struct cb_err *err) {
    bool is_folder = io_is_folder(from), done = false;
    if (!is_folder && gguf_is_path(from)) return gguf_write_tokenizer(from, to, found, err);
    if (!is_folder && io_is_file(from)) TRY(convert_file(from, to, &done, err));
    if (found) *found = done;
    const char *name;
    bool begins;
    // of one file: as tokenizer.json
    const size_t n = done ? 0 : is_folder ? SIZE_MAX : 1;
    for (size_t i = 0; i < n && (name = file_name(i, &begins)); i++) {
        char *source = is_folder ? io_path_join(from, name) : strdup(from), *target = io_path_join(to, name);
        enum cb_status status = source && target ? CB_OK : CB_E_MEMORY;
        if (status == CB_OK && io_is_file(source) && strcmp(source, target) != 0) {
            status = copy_file(source, target, err);
            if (found && begins) *found = true;
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
    bool there = false;
    if (!io_is_folder(path) && gguf_is_path(path)) {
        struct gguf *g;
        struct cb_err quiet = {0};
        if (gguf_open(&g, path, &quiet) != CB_OK) return false;
        there = gguf_find(g, "tokenizer.ggml.tokens") != NULL;
        gguf_destroy(&g);
        return there;
    }
    for (const char *const *name = tokenizer_file_names; *name && !there; name++) {
        char *file = io_path_join(path, *name);
        there = file && io_is_file(file);
        free(file);
    }
    return there;
}
