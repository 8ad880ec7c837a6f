/* The tokenizer of a GGUF file: loaded, and as the files of a model's folder. */
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/gguf_arrays.h"
#include "io/file.h"

enum cb_status gguf_tokenizer(struct tokenizer **tokenizer, struct gguf *g, struct cb_err *err) {
    struct gguf_arrays arrays;
    bool there;
    *tokenizer = NULL;
    enum cb_status status = gguf_arrays_read(&arrays, &there, g, err);
    if (status == CB_OK && !there)
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: tokenizer.ggml.tokens: no such key; wanted a vocabulary", gguf_name(g));
    if (status == CB_OK) status = tokenizer_from_arrays(tokenizer, &arrays.arrays, gguf_name(g), err);
    gguf_arrays_free(&arrays);
    return status;
}

static void put_token(json_t *config, const char *key, const struct tokenizer *t, int32_t id) {
    size_t n;
    const char *text = id >= 0 ? tokenizer_token(t, id, &n) : NULL;
    if (text) json_object_set_new(config, key, json_stringn(text, n));
}

/* tokenizer_config.json: what the other file does not say. */
static enum cb_status write_config(const char *folder, struct gguf *g, const struct tokenizer *t, struct cb_err *err) {
    const char *template = NULL;
    char *text = NULL;
    TRY(gguf_get_str(&template, g, "tokenizer.chat_template", false, err));
    json_t *config = json_pack("{s:s}", "tokenizer_class", "PreTrainedTokenizerFast");
    if (!config) FAIL(err, CB_E_MEMORY, "tokenizer: out of memory");
    put_token(config, "bos_token", t, tokenizer_bos(t));
    put_token(config, "eos_token", t, tokenizer_eos(t));
    if (template) json_object_set_new(config, "chat_template", json_string(template));
    enum cb_status status = json_dump(&text, config, 2, err);
    if (status == CB_OK) status = files_write_text(folder, "tokenizer_config.json", text, err);
    free(text);
    json_decref(config);
    return status;
}

enum cb_status gguf_write_tokenizer(const char *path, const char *folder, struct cb_err *err) {
    struct gguf *g;
    struct tokenizer *t = NULL;
    char *text = NULL;
    size_t n;
    TRY(gguf_open(&g, path, err));
    enum cb_status status = CB_OK;
    if (gguf_find(g, "tokenizer.ggml.tokens")) {
        status = gguf_tokenizer(&t, g, err);
        if (status == CB_OK) status = tokenizer_to_json(t, &text, &n, err);
        if (status == CB_OK) status = files_write_text(folder, "tokenizer.json", text, err);
        if (status == CB_OK) status = write_config(folder, g, t, err);
    }
    free(text);
    tokenizer_destroy(&t);
    gguf_destroy(&g);
    return status;
}
