/* `inspect` of GGUF files: keys, tensors, and what they claim to be, checked. */
#include "api/gguf_arrays.h"
#include "api/inspect.h"
#include "models/gguf_lora.h"

enum { SHOWN = 16 /* elements of an array */ };

static void describe_keys(const struct inspection *in, const struct gguf *g) {
    json_t *keys = json_object();
    for (int i = 0; i < gguf_n_keys(g); i++) inspect_put(keys, gguf_key_at(g, i)->name, gguf_json(gguf_key_at(g, i), SHOWN));
    inspect_put(in->root, "keys", json_integer(gguf_n_keys(g)));
    inspect_put(in->root, "metadata", keys);
}

static enum cb_status check_vocabulary(const struct inspection *in, struct gguf *g, struct cb_err *err) {
    struct gguf_arrays arrays;
    bool there;
    enum cb_status status = gguf_arrays_read(&arrays, &there, g, err);
    if (status == CB_OK) inspect_put(in->root, "tokenizer", json_boolean(there));
    gguf_arrays_free(&arrays);
    return status;
}

static enum cb_status check_content(const struct inspection *in, struct gguf *g, struct cb_err *err) {
    const char *arch = NULL;
    char known[200];
    TRY(gguf_get_str(&arch, g, "general.architecture", true, err));
    inspect_put(in->root, "architecture", json_string(arch));
    if (!gguf_arch_find(arch))
        FAIL(err, CB_E_UNSUPPORTED, "%s: general.architecture: found %.60s; wanted %s", gguf_name(g), arch, gguf_arch_names(known));
    if (gguf_is_adapter(g)) {
        json_t *config = NULL;
        struct tensors *t = NULL;
        return gguf_lora_read(&config, &t, g, NULL, err);
    }
    if (gguf_has_model(g, arch)) {
        struct model *m;
        TRY(gguf_model(&m, NULL, g, err));
        inspect_model(in, m);
        model_destroy(&m);
    }
    return check_vocabulary(in, g, err);
}

enum cb_status inspect_gguf(struct inspection *in, struct cb_err *err) {
    struct gguf *g;
    TRY(gguf_open(&g, in->path, err));
    inspect_tensors(in, gguf_tensors(g));
    describe_keys(in, g);
    enum cb_status status = check_content(in, g, err);
    gguf_destroy(&g);
    return status;
}
