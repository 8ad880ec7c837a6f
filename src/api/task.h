/* Labelled tasks: what a head learns from labelled examples, and how well it does. */
#ifndef API_TASK_H
#define API_TASK_H
#include "api/instance.h"
#include "data/labelled.h"

/* A kind of task; the table in task.c lists them. */
struct task {
    const char *name, *doc;
    const char *class;  // of models, "ForSequenceClassification"
    enum labelled_kind kind;
    const char *peft_type;  // task_type of an adapter_config.json
};
/* NULL where there is none of the name, or no name. */
const struct task *task_find(const char *name);
/* i-th task; NULL after the last. */
const struct task *task_at(int i);

/* The labels that a model folder of the task's head, or the labels.json of a module's folder, names; none where there are none. */
enum cb_status task_read_labels(struct labels *labels, const struct task *task, const char *folder, struct cb_err *err);
/* The task and labels that a module's folder, or one of an expression's, names in labels.json; *task NULL where there is none. */
enum cb_status task_of_modules(const struct task **task, struct labels *labels, const char *modules, struct cb_err *err);
/* Writes FOLDER/labels.json. */
enum cb_status task_write_labels(const struct labels *labels, const struct task *task, const char *folder, struct cb_err *err);
/* The model with the task's head. pad: of rows; -1: the model's own. */
struct model_as task_model(const struct task *task, const struct labels *labels, int64_t pad, uint64_t seed);
int32_t task_pad(const struct tokenizer *tokenizer);
/* Tokens a row: what is asked for, or as the longest example needs, in steps of 8, at most the model's. */
int64_t task_seq(int64_t asked, int64_t longest, int64_t context);
/* The inputs of a pass that a batch of examples goes into. */
struct labelled_batch task_batch(struct pass *pass, const struct task *task, int64_t batch, int64_t seq, int32_t pad);
/* Inputs of that pass for modules that depend on a field of each row: the examples' values of it. Free with task_batch_close, also after a failure. */
enum cb_status task_batch_fields(struct labelled_batch *batch, struct pass *pass, const struct instance *instance,
                                 const struct labelled *data, struct cb_err *err);
void task_batch_close(struct labelled_batch *batch);
/* What a graph of a labelled task wants. */
struct model_io task_io(const struct model *model, bool has_pairs, int64_t batch, int64_t seq);

struct set_inputs;  // api/sets.h
/* Examples under an instance, by a plan without gradients. */
struct task_eval {
    const struct task *task;
    struct instance *instance;
    const struct labelled *data;  // borrowed
    int64_t batch, seq;
    int32_t pad;
    const struct set_inputs *sets;  // told with each batch; NULL: none
    struct pass pass;
    bool is_open;
};
/* Weights are the instance's own, so that later training shows. Free with task_eval_close, also after a failure. */
enum cb_status task_eval_open(struct task_eval *eval, struct cb_err *err);
void task_eval_close(struct task_eval *eval);
/* Everything once, in order. Measures that the task does not have are NaN. */
enum cb_status task_eval_run(struct task_eval *eval, struct cb_task_result *result, struct cb_err *err);

/* task_measure.c: what is counted along the way. Zero-initialise. */
struct measure {
    enum labelled_kind kind;
    int n_labels;
    const struct labels *labels;
    int64_t n, right;  // rows, or tokens with a tag
    int64_t *confusion;  // (n_labels, n_labels): truth, then guess
    double *truth, *guess;  // of numbers
    int64_t size;
    int64_t spans, found, both;  // of tags: entities in truth, in guesses, in both
};
enum cb_status measure_open(struct measure *m, enum labelled_kind kind, const struct labels *labels, int64_t examples, struct cb_err *err);
void measure_close(struct measure *m);
/* One example: logits of n rows (1, or the row's tokens) by labels (numbers: by 1); truth: its labels, negative where there is none. */
void measure_add(struct measure *m, const float *logits, int64_t n, const int32_t *truth, float value);
void measure_finish(const struct measure *m, struct cb_task_result *result);
#endif
