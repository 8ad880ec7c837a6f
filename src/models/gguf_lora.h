/* LoRA adapters in GGUF files (llama.cpp's src/llama-adapter.cpp) and as PEFT keeps them. */
#ifndef MODELS_GGUF_LORA_H
#define MODELS_GGUF_LORA_H
#include "models/gguf.h"

/* Whether the file says that it is an adapter. */
bool gguf_is_adapter(struct gguf *gguf);
/* The adapter as adapter_config.json and the tensors of adapter_model.safetensors. model: what it is for, wanted where rows of heads lie in pairs; NULL: the file is
   checked, nothing is made. */
enum cb_status gguf_lora_read(json_t **config, struct tensors **tensors, struct gguf *gguf, const struct model *model, struct cb_err *err);
#endif
