/* What the files of this room share beyond tuner.h. */
#ifndef MODULES_PRIVATE_H
#define MODULES_PRIVATE_H
#include "modules/tuner.h"

/* From a configuration object, to which a reference is taken. where: the file or spec, for messages. Nullable: sites. */
enum cb_status module_from_config(struct module **module, json_t *config, const char *where, const char *name, const struct nn *sites,
                                  struct cb_err *err);
/* Whether an expert's site can be changed. */
bool tuner_takes_experts(const struct tuner *tuner);
/* Matches the targets against the sites and declares every parameter. */
enum cb_status module_resolve(struct module *module, const struct nn *sites, const char *where, struct cb_err *err);
/* The fresh value of a parameter, or a derived one's, into data. */
enum cb_status module_param_fill(const struct module *module, const struct tuner_param *param, struct store *store, uint64_t seed,
                                 void *data, struct cb_err *err);
/* The scale's entry, with the value 1. */
enum cb_status module_add_scale(const struct module *module, struct store *store, struct cb_err *err);
/* The module's part at a site; NULL: none. */
const struct tuner_site *module_site(const struct module *module, const char *name);
/* A weight or bias as the module's definition has it, in the orientation of p. */
struct cb_tensor *module_defined(const struct module *module, const struct tuner_site *site, struct nn *nn, bool is_bias,
                                 struct cb_tensor *p);
#endif
