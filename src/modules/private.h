/* What the files of this room share beyond tuner.h. */
#ifndef MODULES_PRIVATE_H
#define MODULES_PRIVATE_H
#include "io/safetensors.h"
#include "modules/tuner.h"

#define CONFIG_LIMIT ((size_t)16 << 20)  // bytes of an adapter_config.json

/* From a configuration object, to which a reference is taken. where: the file or spec, for messages. Nullable: file, of which parameters are to be read;
   sites. */
enum cb_status module_from_config(struct module **module, json_t *config, const struct tensors *file, const char *where, const char *name,
                                  const struct nn *sites, struct cb_err *err);
/* Room for one more element of a list in the module's arena; NULL: no memory. */
void *module_grow(struct module *module, void *list, int n, int *size, size_t bytes);
/* rows.c: a site's output with the new rows; rows and table change places; a table of which some sites have no new rows, or NULL. */
struct cb_tensor *tuner_rows_apply(const struct module *module, struct nn *nn, const struct nn_site *site, struct cb_tensor *x,
                                   struct cb_tensor *y);
enum cb_status tuner_rows_fold(const struct module *module, struct store *store, struct cb_err *err);
bool tuner_has_rows(const struct module *module, const char *site);
const char *tuner_rows_alone(const struct module *module, const struct nn *nn);
/* name is word or ends in ".word". */
bool targets_ends_in(const char *name, const char *word);
/* Whether an expert's site can be changed. */
bool tuner_takes_experts(const struct tuner *tuner);
/* Matches the targets against the sites and declares every parameter. */
enum cb_status module_resolve(struct module *module, const struct nn *sites, const char *where, struct cb_err *err);
/* The fresh value of a parameter, or a derived one's, into data. */
enum cb_status module_param_fill(const struct module *module, const struct tuner_param *param, struct store *store, uint64_t seed,
                                 void *data, struct cb_err *err);
/* The scale's entry, with the value 1. */
enum cb_status module_add_scale(const struct module *module, struct store *store, struct cb_err *err);
/* Its run-time scale at one of its sites. */
struct cb_tensor *module_scale(const struct module *module, const struct tuner_site *site, struct nn *nn);
/* A site as keys of a PEFT file name it: *prefix, then what is returned (both borrowed). */
const char *module_file_site(const struct module *module, const char *site, const char **prefix);
/* The module's part at a site; NULL: none. */
const struct tuner_site *module_site(const struct module *module, const char *name);
/* A weight or bias as the module's definition has it, in the orientation of p. */
struct cb_tensor *module_defined(const struct module *module, const struct tuner_site *site, struct nn *nn, bool is_bias,
                                 struct cb_tensor *p);
/* Whether a module is of the adapters library. */
bool module_is_adapters(const struct module *module);
/* adapters.c: label, method and tuner of that library's configuration. */
enum cb_status adapters_parse(struct module *module, const char *where, struct cb_err *err);
/* adapters_head.c: the model's width; the head that module->config has under "head", as head_config.json has it, with its parameters. */
enum cb_status adapters_resolve(struct module *module, const struct nn *sites, const char *where, struct cb_err *err);
/* disk_adapters.c: whether a folder holds a module of that library; reading one, heads included, and writing one. config: a new reference. tensors: owned by
   caller. Nullable: head_folder, of a head that is not in the folder itself. */
bool adapters_is_folder(const char *folder);
enum cb_status adapters_open(json_t **config, struct tensors **tensors, const char *folder, const char *head_folder,
                             const struct store *store, const struct nn *sites, struct cb_err *err);
/* Parts of it: parameters of the module or of its head, shared ones under each of their names; what stands beside a configuration proper; the head, where
   there is one; such a head read into config and tensors. */
enum cb_status adapters_tensors_save(const struct module *module, const struct store *store, const char *folder, const char *name,
                                     bool of_head, struct cb_err *err);
enum cb_status adapters_tensors_join(struct tensors *into, const struct tensors *from, struct cb_err *err);
bool adapters_envelope_fill(json_t *file, const struct module *module);
enum cb_status adapters_head_save(const struct module *module, const struct store *store, const char *folder, struct cb_err *err);
enum cb_status adapters_head_open(json_t *config, struct tensors *into, const char *folder, const struct store *store,
                                  const struct nn *sites, struct cb_err *err);
enum cb_status adapters_save(const struct module *module, const struct store *store, const char *folder, struct cb_err *err);
/* spec.c: the configuration of a method of the adapters library by its name, or a preset's. *config: a new reference. */
enum cb_status module_method_config(json_t **config, const char *name, const char *where, struct cb_err *err);
/* The defaults with every key of object over them, in the order of the names. */
enum cb_status module_config_complete(json_t **out, const struct tuner *tuner, const json_t *object, struct cb_err *err);
#endif
