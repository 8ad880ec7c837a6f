/* A module: a small set of trained parameters that changes a model at its sites, kept on disk as a PEFT folder. */
#ifndef MODULES_MODULE_H
#define MODULES_MODULE_H
#include "base/json.h"
#include "nn/nn.h"
#include "store/store.h"

struct module;
struct module_list;
struct tuner;
struct expression;  // modules/expression.h

/* Reads an adapter_config.json. name: of the module, the prefix of its store entries. sites: a model built into a graph, whose sites are matched against
   the targets; NULL: only the file is checked. Owned by caller, free with module_destroy. */
enum cb_status module_check_config(struct module **module, const char *path, const char *name, const struct nn *sites, struct cb_err *err);
/* Reads a PEFT folder (adapter_config.json, adapter_model.safetensors). The parameters become f32 heap entries "<name>/<key of the file>", and
   "<name>/scale", a number that multiplies the module's effect at run time, starts at 1. Missing and unexpected keys are refused, all of them told. */
enum cb_status module_load(struct module **module, struct store *store, const char *folder, const char *name, const struct nn *sites,
                           struct cb_err *err);
/* The same with the head that another folder holds (adapters library); MODULE_NO_HEAD: without its own, copies of the model's head (modules_to_save)
   included. Nullable: head. */
#define MODULE_NO_HEAD ""
enum cb_status module_load_headed(struct module **module, struct store *store, const char *folder, const char *head, const char *name,
                                  const struct nn *sites, struct cb_err *err);
/* The layers that a folder's module wants its model made of (LoRA's layer_replication: pairs of the first and the one after the last, of n_layer): their
   numbers in *source, owned by caller, free(); *n 0: as the model is. */
enum cb_status module_layers(int **source, int *n, const char *folder, int64_t n_layer, struct cb_err *err);
/* The same from a configuration and the tensors under the keys of their file, wherever they come from. where: the configuration's, for messages. */
struct tensors;  // io/safetensors.h
enum cb_status module_make(struct module **module, struct store *store, json_t *config, const char *where, const struct tensors *tensors,
                           const char *name, const struct nn *sites, struct cb_err *err);
/* A fresh module by a text such as "lora:r=8,alpha=16,targets=q_proj+v_proj", in its tuner's fresh state drawn from seed and names; its entries are
   trainable. base: base_model_name_or_path of the file to be. Copies of the model's weights are read from store. Nullable: base. */
enum cb_status module_create(struct module **module, struct store *store, const char *spec, const char *name, const char *base,
                             uint64_t seed, const struct nn *sites, struct cb_err *err);
/* The same with more to say. */
#define MODULE_MAX_SAVE 64
struct module_fresh {
    const char *spec, *name, *base;
    uint64_t seed;
    const char *task_type;  // of the configuration; NULL: that of the model's head
    const char *label;  // the name within the files of the adapters library, where the spec gives none; NULL: its name here
    const char *const *save;  // modules that are trained whole beside it, as modules_to_save; n_save of them
    int n_save;
    /* Ids of a text that a tuner begins with; NULL: such are refused. *ids: owned by the caller, free(). */
    enum cb_status (*ids)(void *user, const char *text, int32_t **ids, int64_t *n, struct cb_err *err);
    void *user;
    /* The block of an expression that the module is for, and the modules of that; NULL: it stands by itself. */
    const struct expression *block;
    const struct module_list *list;
};
enum cb_status module_create_fresh(struct module **module, struct store *store, const struct module_fresh *fresh, const struct nn *sites,
                                   struct cb_err *err);
/* Checks a spec without a model. *positions: those that such a module takes before the first token. */
enum cb_status module_spec_positions(const char *spec, int64_t *positions, struct cb_err *err);
/* Writes the folder so that PEFT loads it; each file appears whole. */
enum cb_status module_save(const struct module *module, const struct store *store, const char *folder, struct cb_err *err);
/* The description only: the entries stay in the store. Nullable: *module. */
void module_destroy(struct module **module);
/* Removes the module's entries from the store. */
void module_remove(const struct module *module, struct store *store);

/* A hook that applies an expression over the first n_composed modules (NULL: none, n_composed is 0), then the others in order, each to what those before
   it left. list, its modules and the expression are borrowed while graphs are built. */
struct module_list {
    const struct module *const *modules;
    int n;
    const struct expression *expression;
    int n_composed;
};
struct nn_hook module_hook(struct module_list *list);
/* Refuses modules in places where what they change is shared by what should differ: virtual tokens of some rows of a batch. */
enum cb_status module_list_check(const struct module_list *list, struct cb_err *err);

/* Sets the run-time scale; no graph or plan changes. */
void module_set_scale(const struct module *module, struct store *store, double scale);
/* What folding computes with: run evaluates a graph of f32 outputs once, its params being entries of store, and copies output names[i] to out[i]. */
struct module_evaluator {
    const struct op_table *ops;
    enum cb_status (*run)(void *user, struct cb_graph *g, const struct store *store, int n, const char *const *names, float *const *out,
                          struct cb_err *err);
    void *user;
};
/* Brings up to date what the file holds in place of what is trained (the rows that an encoder makes); wanted before module_save. */
enum cb_status module_settle(const struct module *module, struct store *store, const struct module_evaluator *evaluator,
                             struct cb_err *err);
/* How many principal components of its i-th site's inputs a fresh module begins with, and that it takes them, (components,in), the largest first. */
int64_t module_components(const struct module *module, int i);
enum cb_status module_take_components(const struct module *module, int i, struct store *store, const double *rows, struct cb_err *err);
/* Whether it begins with the mean second moments of its i-th site's inputs, each sequence divided by its largest value (CorDA), and that it takes them,
   (in,in); they are overwritten. */
bool module_wants_moments(const struct module *module, int i);
enum cb_status module_take_moments(const struct module *module, int i, struct store *store, double *moments, struct cb_err *err);
/* Before and after the steps of training, for kinds that do more than follow the gradient (AdaLoRA's ranks). states: of the trainer, in which what is to be
   kept between steps becomes entries. */
enum cb_status module_train_begin(struct module *module, struct store *states, int64_t steps, struct cb_err *err);
int64_t module_train_bytes(const struct module *module);  // of those entries
enum cb_status module_train_step(const struct module *module, struct store *store, struct store *states, int64_t step, struct cb_err *err);
/* Puts the modules, at their scales, into the model's weights in the store (f32 from then on); unfold: takes them off again, up to rounding, where their
   kinds add something to the weights. Refused where a weight is shared with a site that a module leaves alone. Replaced weights and biases change places
   with the model's. */
enum cb_status module_fold(const struct module_list *list, struct store *store, bool unfold, const struct module_evaluator *evaluator,
                           struct cb_err *err);
/* Whether it changes one of several uses of a weight, as of a table that is the head too: such a one is not folded. */
bool module_shares(const struct module *module);
/* Whether it changes all uses of a weight alike (token rows), which want to stay one. */
bool module_ties(const struct module *module);
/* Whether folding can be undone. */
bool module_unfolds(const struct module *module);

/* A field of rows ("task") on whose value a module's weights depend (hypernetworks). */
struct module_field {
    const char *name;
    const char **value;  // those that it knows, n of them
    int n, at;  // at: the one that all rows have; -1: each row has its own
};
bool module_has_field(const struct module *module, const char *field);
/* Gives all rows one value, in graphs that are built from now on. */
enum cb_status module_set_field(struct module *module, const char *field, const char *value, struct cb_err *err);
/* A field that has no value for all rows: whoever builds a graph fills its input. NULL: none. */
const struct module_field *module_open_field(const struct module *module);
/* The field whose values' numbers an input "route.<field>:<value>,...", i32 (B), holds; NULL: none of this module's. arena: for names. */
const struct module_field *module_field_of(const struct module *module, const char *input, struct arena *arena);
/* "a, b, c", for messages. */
const char *module_field_values(const struct module_field *field, char text[200]);
/* The plain module (LoRA, a bottleneck) that a hypernetwork is for the values that its fields have, its entries in store under name. Owned by caller, free
   with module_destroy. */
enum cb_status module_plain(struct module **plain, const struct module *module, struct store *store, const char *name,
                            const struct nn *sites, const struct module_evaluator *evaluator, struct cb_err *err);

struct module_param {
    const char *name, *key;  // of the store entry, of the file
    struct cb_type type;  // f32, or whole numbers where they are not trained
    bool is_trained, is_stored;  // stored: in the module's file
};
int module_n_params(const struct module *module);
const struct module_param *module_param(const struct module *module, int i);
int64_t module_parameters(const struct module *module);
/* Virtual tokens that it puts before the tokens; with the positions that its prefixes count as. */
int64_t module_rows(const struct module *module);
int64_t module_positions(const struct module *module);
/* Parameters that tasks of its kind have in common (MTL-LoRA's A and B) become those of another fresh module of the same spec. */
enum cb_status module_share(struct module *module, const struct module *with, struct store *store, struct cb_err *err);
/* How many tasks it knows, one of which each row's number in the input task_ids names; 0: it does not read them. */
int64_t module_tasks(const struct module *module);
/* AdapterDrop (Ruckle et al. 2021): graphs for training get the input MODULE_DROP_INPUT, i32 (), how many of the first layers the module is left out of now.
   Refused where that means nothing. spec: for messages. */
#define MODULE_DROP_INPUT "adapter_drop"
enum cb_status module_set_drop(struct module *module, const char *spec, struct cb_err *err);
/* Whether a scale other than 1 means something. */
bool module_scales(const struct module *module);
int module_n_sites(const struct module *module);
/* Name of the i-th site that the module changes. */
const char *module_site_name(const struct module *module, int i);
const struct tuner *module_tuner(const struct module *module);
const char *module_name(const struct module *module);
const json_t *module_config(const struct module *module);
/* What was read but is not understood ("unknown keys: a, b"); NULL: nothing. */
const char *module_warning(const struct module *module);
#endif
