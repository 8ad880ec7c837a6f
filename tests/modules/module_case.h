/* What tests of modules share: a model with its sites, graphs with modules on it, and one fixture of ../shared/fixtures/modules against its golden file. */
#ifndef TESTS_MODULE_CASE_H
#define TESTS_MODULE_CASE_H
#include "../harness.h"
#include "../models/graph_runner.h"
#include "models/model.h"
#include "modules/tuner.h"

/* A model with the sites of its graph. */
struct base {
    struct store *store;
    struct model *model;
    struct cb_graph *sites_graph;
    struct nn sites;
    bool is_copy;  // all but the store is another's
};
enum cb_status base_open(struct base *b, const char *folder, struct cb_err *err);
/* A fresh tiny model of a family. */
enum cb_status base_fresh(struct base *b, const char *family, struct cb_err *err);
/* The same of other changes to a family's usual configuration ("hidden_size=32,architectures=[BertModel]"). */
enum cb_status base_class(struct base *b, const char *family, const char *changes, struct cb_err *err);
/* The same, as wide as the type's blocks want, its linear layers' weights stored in it (those whose rows are whole blocks of it). *n: how many were. */
enum cb_status base_typed(struct base *b, const char *family, enum cb_dtype dtype, int *n, struct cb_err *err);
/* A store of its own with the weights of another, which is borrowed for the rest. */
enum cb_status base_copy(struct base *b, const struct base *from, struct cb_err *err);
void base_close(struct base *b);

/* A fixture's module "m": a folder, or the new values of biases alone, as BitFit's cases have them. */
enum cb_status case_module(struct module **m, struct store *store, const char *folder, const struct nn *sites, struct cb_err *err);
/* What module_fold wants of a test. */
struct module_evaluator test_evaluator(void);
/* module_fold with it. */
enum cb_status base_fold(struct base *b, const struct module *m, bool unfold, struct cb_err *err);

/* A graph of the model with modules: logits, loss, and grad.<key> of the trained parameters of `of` (NULL: none). */
enum cb_status with_modules(struct base *b, struct runner *r, struct module_list *list, const struct module *of,
                            const struct model_io *wanted, struct cb_err *err);
/* ids that repeat nothing, labels that are ids */
void inputs_fill(struct runner *r, int32_t vocab);
/* Logits, loss, gradients and merged weights of one fixture in its stored tolerances; "" or a message. */
void module_fixture_check(const char *shared, const char *name, char message[400]);
/* The same with the module of another folder. */
void module_folder_check(const char *shared, const char *name, const char *folder, char message[400]);
/* The same of a NULL-ended list; the number that failed, each told. */
int module_fixtures_check(const char *shared, const char *const *names);
#endif
