/* A model in use: description, weights, the modules on it; and a plan of it with its bindings. */
#ifndef API_INSTANCE_H
#define API_INSTANCE_H
#include "api/engine.h"
#include "models/model.h"
#include "modules/module.h"
#include "store/store.h"

#define INSTANCE_MAX_MODULES 4096

struct instance {
    struct cb_engine *engine;
    struct model *model;
    struct store *store;
    const char *path;  // of the model; borrowed
    const char *task_type;  // of modules made here, as PEFT names it; NULL: that of the model's head
    struct cb_graph *site_graph;  // where the sites were recorded, made with the first module
    struct nn sites;
    struct module **modules;  // in order
    int modules_size;
    struct module_list list;  // the same, as hooks take them
    bool is_replicated;  // layers of the file stand in the model several times over
    bool is_parted;  // its head has got a table of its own: its modules are read once more, what they warn of was told
    struct arena *arena;  // of the expression
    struct expression *open;  // the block of it that wants weights which are to be made; NULL: none
    int64_t copies;  // of each row of the input that the expression wants; 0: no expression
    bool gives_fields;  // the caller gives the values of fields that modules depend on
    const struct expression *tasks;  // the block of modules that were made for a task each; NULL: none
    bool gives_tasks;  // the caller says which task each row is of
    bool gives_rows;  // the caller gives these copies, and the numbers that rows are routed by
};

/* Loads a model folder and, where modules is not NULL, the module expression onto it. Free with instance_close, also after a failure. */
enum cb_status instance_open(struct instance *instance, struct cb_engine *engine, const char *model, const char *modules,
                             struct cb_err *err);
/* The same with another head than the file's (model_load_as). Nullable: as. */
enum cb_status instance_open_as(struct instance *instance, struct cb_engine *engine, const char *model, const char *modules,
                                const struct model_as *as, struct cb_err *err);
void instance_close(struct instance *instance);
/* expressions.c: an expression over folders (modules/expression.h); the first modules of the instance. */
enum cb_status instance_add_modules(struct instance *instance, const char *expression, struct cb_err *err);
/* Where a module changes one use of a table that the head shares with the embedding: parts the two, and loads the expression again;
   nothing where another module changes both uses alike. */
enum cb_status instance_part(struct instance *instance, const char *expression, struct cb_err *err);
/* The hook of the modules; nothing where there are none. Refused where the expression wants of the caller what it does not give. */
enum cb_status instance_hook(struct instance *instance, struct nn_hook *hook, struct cb_err *err);
/* The block that gives each row to several children, and so outputs for each; NULL: none. */
const struct expression *instance_copied(const struct instance *instance);
/* A fresh module by its tuner's spec, drawn from the engine's seed, on top of what is there. Owned by the instance. */
enum cb_status instance_new_module(struct instance *instance, const char *spec, struct module **module, struct cb_err *err);
/* The same for each of n tasks: rows go through that of their number in the input task_ids. names: borrowed. */
enum cb_status instance_new_tasks(struct instance *instance, const char *spec, const char *const *names, int n, struct cb_err *err);
/* Builds the plain model once, to record its sites. */
enum cb_status instance_sites(struct instance *instance, struct cb_err *err);
/* Loads one folder at a run-time scale. Nullable: head, a folder with the head that the module is to bring. */
enum cb_status instance_load_module(struct instance *instance, const char *folder, const char *head, double scale, struct cb_err *err);
/* Virtual tokens of all modules, and all positions that they take before the first token. */
int64_t instance_rows(const struct instance *instance);
int64_t instance_positions(const struct instance *instance);
/* What modules compute values with outside a pass. */
struct module_evaluator instance_evaluator(struct instance *instance);
/* Weights for computing: what is trained is f32 in memory; half-precision weights stay as they are stored where only read. */
enum cb_status instance_f32(struct instance *instance, bool writable, struct cb_err *err);

/* One graph of an instance, planned and bound. */
struct pass {
    struct cb_graph *graph;
    struct plan *plan;
    struct store *own;  // caches
};
/* Starts a graph builder with the instance's hooks and stored types. */
enum cb_status pass_begin(struct pass *pass, struct instance *instance, struct nn *nn, struct cb_err *err);
/* Plans what was built, and binds every param from the instance's store; params named cache.* get memory of the pass. held: bytes outside the plan
   that count against the memory limit. */
enum cb_status pass_plan(struct pass *pass, struct instance *instance, bool recompute, int64_t held, struct cb_err *err);
void pass_end(struct pass *pass);
/* Buffer of a slot, NULL where there is none. */
void *pass_data(struct pass *pass, const char *name);

/* Bytes of the weights that a plan reads: heap, and mapped. */
int64_t instance_weight_bytes(const struct instance *instance);
/* What this process holds beside plans: the weights, mapped ones counted whole, and everything loaded so far. */
int64_t instance_held_bytes(const struct instance *instance);
#endif
