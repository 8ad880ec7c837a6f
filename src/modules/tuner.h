/* The descriptor of a kind of module, and what it sees of a module. One file tuner_<name>.c defines `tuner_<name>`. */
#ifndef MODULES_TUNER_H
#define MODULES_TUNER_H
#include "base/pattern.h"
#include "base/table.h"
#include "modules/module.h"

enum tuner_fresh { TUNER_IS_BASE, TUNER_NEAR_BASE, TUNER_NOT_BASE };
enum tuner_init {
    TUNER_ZEROS,
    TUNER_UNIFORM /* in +-spread */,
    TUNER_NORMAL /* deviation spread */,
    TUNER_COPY /* of the entry `source` */
};
enum tuner_kind { TUNER_INT, TUNER_FLOAT, TUNER_BOOL, TUNER_STR, TUNER_STRS /* a+b+c; a pattern stays one string */, TUNER_INTS };

/* A key of a spec text, and the key of adapter_config.json that it sets. */
struct tuner_option {
    const char *name, *key;  // NULL ends the list
    enum tuner_kind kind;
    const char *doc;
};

/* One parameter of a module. */
struct tuner_param {
    struct module_param public;
    enum tuner_init init;
    double spread;
    const char *source;  // the model's weight that it copies and stands for; NULL: none
};

/* A site that the tuner changes, with its parameters [first, first + n_params). */
struct tuner_site {
    struct nn_site site;
    int first, n_params;
    bool shared;  // another site reads the same weight
    double scale;  // the tuner's own factor, e.g. alpha / r
    int64_t rank;
};

/* A parameter that stands for the model's own at one site (modules_to_save, biases). */
struct tuner_swap {
    const char *site, *field;  // "weight" or "bias"
    int param;
    bool shared;
};

/* Which modules a configuration means; the key semantics of PEFT. */
struct tuner_targets {
    bool all_linear;
    const json_t *names;  // list of exact names or endings after a dot; NULL: pattern
    const struct pattern *pattern;
    const json_t *exclude_names;
    const struct pattern *exclude_pattern;
    const struct pattern *layers;  // NULL: all
    bool by_layer;  // layers_to_transform without a pattern: by the site's own layer
    int64_t layer[256];
    int n_layers;
    const json_t *save;  // modules_to_save; NULL: none
};

struct module {
    const struct tuner *tuner;
    const char *name;
    struct arena *arena;
    json_t *config;
    const void *options;  // struct <tuner>_options
    struct tuner_targets targets;
    struct tuner_site *sites;
    struct table by_site;  // names of the sites: their numbers
    struct tuner_param *params;
    struct tuner_swap *swaps;
    struct pattern **patterns;  // all that were compiled
    int n_sites, n_params, n_swaps, n_patterns;
    int sites_size, params_size, swaps_size, patterns_size;
    const char *scale_name;  // of the scale's entry
    const char *warning;
};

struct tuner {
    const char *name, *doc, *peft_type;
    const struct tuner_option *options;
    const char *defaults;  // a complete adapter_config.json as PEFT writes it
    size_t options_bytes;
    enum tuner_fresh fresh;
    bool takes_experts;  // delta changes the rows of an expert's site alone (nn_product)
    const char *scaling;  // what the run-time scale multiplies
    const char *const *cases;  // specs for the generic tests, NULL-ended
    /* Reads module->config into module->options. where: the file, for messages. */
    enum cb_status (*parse)(struct module *module, const char *where, struct cb_err *err);
    /* Whether a site of this kind can be changed. */
    bool (*match)(const struct nn_site *site);
    /* Adds the site's parameters through tuner_add_param; sets site->scale. */
    enum cb_status (*declare)(struct module *module, struct tuner_site *site, struct cb_err *err);
    /* The new output of the site. scale: rank 0, the run-time scale. */
    struct cb_tensor *(*delta)(const struct module *module, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale);
    /* Adds factor times the change to weight (the site's, f32). param[i]: data of the site's parameters. NULL: cannot be folded. */
    void (*fold)(const struct tuner_site *site, const float *const *param, double factor, float *weight);
};

/* All tuners in the order of their names; *n their count. */
const struct tuner *const *tuners(int *n);
/* By name or peft_type; NULL where unknown. */
const struct tuner *tuner_find(const char *name);

/* For tuners: one more parameter of the site, named "base_model.model.<site>.<suffix>" in the file. */
enum cb_status tuner_add_param(struct module *module, struct tuner_site *site, const char *suffix, int rank, const int64_t *dim,
                               enum tuner_init init, double spread, struct cb_err *err);
/* The graph's leaf of a parameter. */
struct cb_tensor *tuner_leaf(const struct module *module, const struct tuner_site *site, int i, struct nn *nn);
/* A pattern that lives as long as the module. */
enum cb_status tuner_pattern(struct module *module, const struct pattern **pattern, const char *text, const char *where,
                             struct cb_err *err);

/* targets.c: reads target_modules, exclude_modules, layers_*, modules_to_save into module->targets. */
enum cb_status tuner_targets_parse(struct module *module, const char *where, struct cb_err *err);
enum cb_status tuner_targets_match(const struct module *module, const struct nn_site *site, bool *matches, struct cb_err *err);
/* Whether a site is, or lies in, one of modules_to_save. */
bool tuner_targets_save(const struct tuner_targets *targets, const char *site);
/* The first key of an object of patterns ("layers.1.q_proj": 4) that fits the end of name; its value, NULL where none fits. compiled[i] belongs to
   the i-th key. */
enum cb_status tuner_pattern_value(const json_t **value, const json_t *object, const struct pattern *const *compiled, const char *name,
                                   struct cb_err *err);
/* Compiles the keys of such an object for it. Nullable: object. */
enum cb_status tuner_pattern_keys(struct module *module, const struct pattern *const **compiled, const json_t *object, const char *where,
                                  struct cb_err *err);
#endif
