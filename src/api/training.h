/* A training set-up: what is trained (all, the last layers, a module), the plan of a step with its gradients, the trainer. */
#ifndef API_TRAINING_H
#define API_TRAINING_H
#include "api/distill.h"
#include "api/instance.h"
#include "api/task.h"
#include "train/trainer.h"

/* What a --tuner spec says is trained. */
struct training_what {
    enum { TRAIN_ALL, TRAIN_LAST, TRAIN_HEAD, TRAIN_MATCH, TRAIN_MODULE } kind;
    int64_t last;  // layers, of TRAIN_LAST
    const char *match;  // of TRAIN_MATCH: a pattern over the weights' whole names; borrowed from the spec
};
/* NULL and "full": all; "last:N"; "head": what is fresh; "match:PATTERN"; anything else is a module's spec, which training_open reads. */
enum cb_status training_parse(const char *tuner, struct training_what *what, struct cb_err *err);

struct training_options {
    const char *model, *modules, *tuner;
    const char *const *sets;  // names of data sets, whose numbers go into the input task_ids; n_sets of them
    int n_sets;
    bool module_per_set;
    int64_t adapter_drop;
    struct training_what what;  // training_parse of tuner
    int64_t batch, seq;
    int64_t target;  // of an encoder-decoder: labels a row; 0: seq
    bool segments;  // inputs "segments" and "position_ids": packed documents
    bool labels_given;  // input "labels" is aligned to the next token; else as Transformers', shifted in the graph
    bool train_mode;  // dropout
    const struct task *task;  // labelled examples, under the head that `as` names; NULL: text
    const struct model_as *as;
    const struct labelled_info *examples;  // of the task
    const char *teacher;  // a model that is distilled; NULL: none
    double distill, temperature;  // share of the teacher in the loss, and what both logits are divided by
    const char *const *lr_scales;  // "PATTERN=X"; n_lr_scales of them
    int n_lr_scales;
    int64_t unfreeze;  // steps from one layer to the one before it; 0: all learn at once
    int64_t held_bytes;  // of other plans in use meanwhile: counted against the memory limit
    struct trainer_options trainer;
};

struct training {
    struct instance instance;
    struct pass pass;
    struct pass twin;  // for the other half of each batch; without a plan: there is none
    struct store *inputs;  // of both, where each whole batch is filled in
    bool labels_given;
    struct module *module;  // the first of those being trained; NULL: none
    struct module *const *modules;  // they, n_modules, owned by the instance
    int n_modules;
    struct train_param *params;
    int n_params;
    struct trainer *trainer;
    struct teacher teacher;
    int64_t trainable, total;  // parameters
    int64_t weights_bytes, gradients_bytes, states_bytes, activations_bytes, planned_bytes;
};

/* Loads the model and finds or makes what is trained, from model, modules, tuner and seq alone. Free with training_close, also after a failure. */
enum cb_status training_open(struct training *training, struct cb_engine *engine, const struct training_options *options,
                             struct cb_err *err);
/* Then builds, plans, binds. With the null device nothing is allocated for the run and trainer is NULL. */
enum cb_status training_plan(struct training *training, const struct training_options *options, struct cb_err *err);
/* Of one pass of all that goes through the plans at once. */
double training_flops(const struct training *training);
void training_close(struct training *training);

/* training_halves.c. Whether a batch could go through two plans by its size; whether these gradients, weighed by labels, would be the whole batch's, and
   which inputs have a row for each of its `rows` is certain; then the inputs of both plans are the halves of what is filled in. */
bool training_may_halve(const struct training *training, const struct training_options *options);
bool training_can_halve(const struct cb_graph *graph, const struct cb_tensor *loss, int64_t rows);
enum cb_status training_bind_halves(struct training *training, int64_t rows, struct cb_err *err);

/* train_groups.c: rates by name and gradual unfreezing, of the parameters that were picked. */
enum cb_status training_groups(struct training *training, const struct training_options *options, struct cb_err *err);
/* Layers with weights of their own; the layer in a parameter's name, -1 outside; whether it comes before all layers (embeddings). */
int64_t training_layers(const struct model *model);
int64_t training_layer_of(const char *name);
bool training_is_before_layers(const struct model *model, const char *name);
#endif
