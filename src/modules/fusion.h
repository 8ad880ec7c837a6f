/* AdapterFusion: its folder, and the block that uses it. */
#ifndef MODULES_FUSION_H
#define MODULES_FUSION_H
#include "modules/compose.h"

struct cb_tensor *fusion_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y);
void fusion_flow(struct compose_join *j, const struct expression *e);

/* disk_fusion.c: whether a folder holds a fusion (adapter_fusion_config.json, model_adapter_fusion.safetensors); reading and writing one, with the head
   that was trained with it. */
bool fusion_is_folder(const char *folder);
enum cb_status fusion_load(struct module **module, struct store *store, const char *folder, const char *name, const struct nn *sites,
                           struct cb_err *err);
enum cb_status fusion_save(const struct module *module, const struct store *store, const char *folder, struct cb_err *err);
#endif
