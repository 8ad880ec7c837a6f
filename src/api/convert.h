/* What the conversions share. */
#ifndef API_CONVERT_H
#define API_CONVERT_H
#include "api/engine.h"
#include "models/gguf.h"

/* convert_lora.c: a LoRA adapter between a GGUF file and a PEFT folder. */
enum cb_status convert_adapter(struct cb_engine *engine, const struct cb_convert_options *options, struct cb_convert_result *result,
                               struct cb_err *err);
/* convert_setup.c: the modules of an expression or of a folder's adapter_setup.json, each into a folder of its own, and the file that puts them together. */
bool convert_is_setup(const struct cb_convert_options *options);
enum cb_status convert_setup(struct cb_engine *engine, const struct cb_convert_options *options, struct cb_convert_result *result,
                             struct cb_err *err);
/* gguf_keys.c. The keys of a model that comes from `path` and has the vocabulary of another (or of the same): a GGUF file's own, but for those of its number types,
   parts and layers; a folder's from its configuration and tokenizer. */
struct gguf_origin {
    const char *path, *vocabulary;
};
enum cb_status gguf_model_keys(struct gguf_builder *keys, const struct gguf_origin *from, const struct gguf_arch *arch,
                               const struct model *model, int file_type, struct cb_engine *engine, struct cb_err *err);
/* gguf_vocabulary.c: tokenizer.* from the files of a folder; nothing where it has no tokenizer. */
enum cb_status gguf_put_vocabulary(struct gguf_builder *keys, const char *folder, const struct model *model, struct cb_engine *engine,
                                   struct cb_err *err);
/* A model as a GGUF file. parts: by gguf_choose. */
enum cb_status convert_save_gguf(struct cb_engine *engine, const struct gguf_origin *from, const struct gguf_target *to,
                                 const struct model *model, const struct gguf_part *parts, const struct gguf_recipe *recipe,
                                 struct gguf_saved *saved, struct cb_err *err);
#endif
