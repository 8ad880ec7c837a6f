/* The keys of a model's GGUF file. */
#include <stdio.h>
#include <string.h>

#include "api/convert.h"
#include "io/file.h"

enum { QUANTIZATION_VERSION = 2 /* of ggml's layouts */ };

/* What describes the file rather than the model. */
static bool is_of_file(const char *key) {
    static const char *const names[] = {"general.alignment", "general.file_type", "general.quantization_version", NULL};
    for (const char *const *name = names; *name; name++)
        if (!strcmp(*name, key)) return true;
    return !strncmp(key, "split.", 6);
}

/* The keys of a file: those of its vocabulary, the others, or both. The numbers of layers and tokens are the model's. */
static enum cb_status copy_keys(struct gguf_builder *keys, const char *path, bool vocabulary, bool others, const struct model *model,
                                struct cb_err *err) {
    struct gguf *g;
    TRY(gguf_open(&g, path, err));
    for (int i = 0; i < gguf_n_keys(g); i++) {
        const struct gguf_key *key = gguf_key_at(g, i);
        const char *dot = strchr(key->name, '.');
        if (is_of_file(key->name) || !(strncmp(key->name, "tokenizer.", 10) ? others : vocabulary)) continue;
        if (dot && !strcmp(dot, ".block_count"))
            gguf_put_int(keys, key->name, GGUF_U32, model->n_layer);
        else if (dot && !strcmp(dot, ".vocab_size"))
            gguf_put_int(keys, key->name, GGUF_U32, model->vocab);
        else
            gguf_put_key(keys, key);
    }
    gguf_destroy(&g);
    return CB_OK;
}

static bool is_file(const char *path) { return gguf_is_path(path) && !io_is_folder(path); }

/* The last part of a path without its ending. */
static void title_of(const char *path, char out[128]) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    snprintf(out, 128, "%.*s", (int)(n - begin < 120 ? n - begin : 120), path + begin);
}

/* llama.cpp's own converter leaves such windows out of "llama": the model then attends to keys that it never saw so far behind. */
static enum cb_status check_window(const struct gguf_arch *arch, const struct model *model, const struct cb_engine *engine,
                                   struct cb_err *err) {
    const int64_t window = gguf_lost_window(arch, model);
    if (!window) return CB_OK;
    if (!engine->options.force)
        FAIL(err, CB_E_UNSUPPORTED,
             "found a window of %lld keys; GGUF has no key for it in %s, whose readers attend to all %lld positions (--force leaves it "
             "out, as llama.cpp's converter does)",
             (long long)window, arch->name, (long long)model->max_positions);
    engine_warn(engine, "the window of %lld keys is left out: longer texts give other numbers", (long long)window);
    return CB_OK;
}

enum cb_status gguf_model_keys(struct gguf_builder *keys, const struct gguf_origin *from, const struct gguf_arch *arch,
                               const struct model *model, int file_type, struct cb_engine *engine, struct cb_err *err) {
    char title[128];
    const bool is_one = !strcmp(from->path, from->vocabulary);
    title_of(from->path, title);
    if (is_file(from->path))
        TRY(copy_keys(keys, from->path, is_one, true, model, err));
    else {
        TRY(check_window(arch, model, engine, err));
        TRY(gguf_put_config(keys, arch, model, title, err));
    }
    gguf_put_int(keys, "general.file_type", GGUF_U32, file_type);
    gguf_put_int(keys, "general.quantization_version", GGUF_U32, QUANTIZATION_VERSION);
    if (!is_file(from->vocabulary)) return gguf_put_vocabulary(keys, from->vocabulary, model, engine, err);
    return is_one ? CB_OK : copy_keys(keys, from->vocabulary, true, false, model, err);
}
