/* What the kinds of `inspect` share. */
#ifndef API_INSPECT_H
#define API_INSPECT_H
#include "io/safetensors.h"
#include "models/model.h"

/* One call. */
struct inspection {
    const char *path, *model;
    bool tensors;
    json_t *root;  // what was found
};

void inspect_put(json_t *root, const char *key, json_t *value);
/* Tensors of an open set: count, bytes, types; each one where asked. */
void inspect_tensors(const struct inspection *in, const struct tensors *tensors);
void inspect_model(const struct inspection *in, const struct model *model);
/* inspect_gguf.c: a GGUF file or its parts: a model, an adapter, a vocabulary or plain tensors. */
enum cb_status inspect_gguf(struct inspection *in, struct cb_err *err);
/* inspect_data.c: a file of records by its reader, and plain text. */
enum cb_status inspect_records(struct inspection *in, struct cb_err *err);
enum cb_status inspect_text(struct inspection *in, struct cb_err *err);
#endif
