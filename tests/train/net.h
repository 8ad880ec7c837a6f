/* A small network under a trainer: store, graph with gradients, plan, parameters. */
#ifndef TESTS_TRAIN_NET_H
#define TESTS_TRAIN_NET_H
#include "../models/graph_runner.h"
#include "models/model.h"
#include "modules/module.h"
#include "train/trainer.h"

struct net {
    struct store *store;
    struct model *model;  // NULL: built by ops
    struct cb_graph *sites_graph;
    struct nn sites;
    struct module *module;  // NULL: the weights are trained
    struct runner r;
    struct train_param *params;
    int n_params;
    struct trainer *trainer;
};

/* Trains the entries from first to the store's end, or (module) its parameters, but those whose names end with `frozen` (nullable). loss: of the graph
   net->r.g. Plans, binds, makes the trainer. decay_all: vectors decay too. */
enum cb_status net_finish(struct net *net, struct cb_tensor *loss, const char *frozen, bool decay_all,
                          const struct trainer_options *options, struct cb_err *err);
/* Loads a model folder, its weights f32 and writable. */
enum cb_status net_load(struct net *net, const char *folder, struct cb_err *err);
/* The model's loss on (batch, tokens), labels as in Transformers. */
enum cb_status net_model_loss(struct net *net, int64_t batch, int64_t tokens, bool mask, struct cb_tensor **loss, struct cb_err *err);
void net_close(struct net *net);
/* Copies the part of `from` that begins at element `at` into an input of the plan, converted. */
enum cb_status net_fill(struct net *net, const char *input, const struct tensor *from, int64_t at, struct cb_err *err);

/* A tiny classifier with drawn weights, its batches of 8 rows drawn by their index; or of other numbers of rows, which the test fills. */
enum cb_status net_tiny(struct net *net, uint64_t seed, const struct trainer_options *options, struct cb_err *err);
enum cb_status net_tiny_of(struct net *net, uint64_t seed, int64_t rows, const struct trainer_options *options, struct cb_err *err);
enum cb_status net_tiny_batch(void *net, int64_t index, struct cb_err *err);
#endif
