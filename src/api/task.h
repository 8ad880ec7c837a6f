/* Labelled tasks: what a head learns from labelled examples, and how well it does. */
#ifndef API_TASK_H
#define API_TASK_H
#include "api/instance.h"
#include "data/labelled.h"

struct measure_kind;
/* A kind of task; the table in task.c lists them. */
struct task {
    const char *name, *doc;
    const char *class;  // of models, "ForSequenceClassification"
    enum labelled_kind kind;
    int n_labels;  // of the head, whatever the data; 0: the data's labels
    enum model_problem problem;  // of sequences
    const struct measure_kind *measure;
    const char *peft_type;  // task_type of an adapter_config.json
};
/* NULL where there is none of the name, or no name. */
const struct task *task_find(const char *name);
/* CB_E_USAGE that names them, behind `others`. Nullable: name. */
enum cb_status task_unknown(const char *name, const char *others, struct cb_err *err);
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
/* Warns of what was cut to rows of seq tokens. */
void task_say(struct cb_engine *engine, const struct labelled *data, int64_t seq);
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
struct model_io task_io(const struct model *model, const struct labelled_info *examples, int64_t batch, int64_t seq);

struct set_inputs;  // api/sets.h
/* Examples under an instance, by a plan without gradients. */
struct task_eval {
    const struct task *task;
    struct instance *instance;
    const struct labelled *data;  // borrowed
    int64_t batch, seq;
    int32_t pad;
    const struct set_inputs *sets;  // told with each batch; NULL: none
    int64_t answer_tokens;  // the most that an answer may have; 0: 30
    const char *submission;  // file for what was guessed; NULL: none
    struct pass pass;
    int64_t early, late, late_at;  // virtual tokens before all tokens, and before token late_at
    bool is_open;
};
/* Weights are the instance's own, so that later training shows. Free with task_eval_close, also after a failure. */
enum cb_status task_eval_open(struct task_eval *eval, struct cb_err *err);
void task_eval_close(struct task_eval *eval);
/* Everything once, in order. Measures that the task does not have are NaN. */
enum cb_status task_eval_run(struct task_eval *eval, struct cb_task_result *result, struct cb_err *err);

/* A batch after its pass: examples [first, first + n) of the data, outputs of the graph (NULL: not of this head), the mean loss. */
struct measured {
    const struct labelled *data;
    const struct labelled_batch *batch;
    int64_t first, n;
    const float *logits, *start, *end;
    double loss;
    int64_t early, late, late_at;  // as of struct task_eval
};

/* What is counted along the way. Zero-initialise but for labels, n_labels, answer_tokens, wants_guesses; free with measure_close. */
struct measure {
    const struct labels *labels;
    int n_labels;
    bool wants_guesses;
    json_t *guesses;  // a list, or an object by ids
    double loss;  // sum over `learnt` rows or tokens
    int64_t learnt;
    int64_t n, right;  // examples, or tokens with a tag
    int64_t *confusion;  // (n_labels, n_labels): truth, then guess
    double *truth, *guess;  // of numbers
    int64_t spans, found, both;  // of tags: entities in truth, in guesses, in both
    // of answers: sums over the questions so far; then the question whose windows are being read, its best span, and the score of none
    double exact, f1;
    bool may_be_none;
    int64_t answer_tokens;
    const struct labelled_question *question;
    double best, none;
    uint32_t begin, end;  // bytes of its context
};

/* How a kind of task is measured. */
struct measure_kind {
    const char *metric;  // of cb_task_result: what tuners are compared by
    enum cb_status (*open)(struct measure *m, const struct labelled_info *examples, struct cb_err *err);
    enum cb_status (*add)(struct measure *m, const struct measured *batch, struct cb_err *err);
    enum cb_status (*finish)(struct measure *m, struct cb_task_result *result, struct cb_err *err);
};
extern const struct measure_kind measure_classes, measure_numbers, measure_tags, measure_choices;  // task_measure.c
extern const struct measure_kind measure_spans;  // task_span.c
void measure_close(struct measure *m);
/* The row of a token among all rows. */
static inline int64_t measured_place(const struct measured *b, int64_t t) { return b->early + t + (t >= b->late_at ? b->late : 0); }
/* Rows of an example with a row a token. */
static inline int64_t measured_rows(const struct measured *b) { return b->early + b->late + b->batch->seq; }
/* Adds a guess to those wanted. guess: taken over in any case. Nullable: key, of an object. */
enum cb_status measure_guess(struct measure *m, const char *key, json_t *guess, struct cb_err *err);

/* answer.c: SQuAD's measures of an answer's text beside the right ones (a list of strings; empty: no answer is right): exact match and F1 of words,
   0 to 1. */
enum cb_status answer_score(double *exact, double *f1, const char *answer, size_t n, const json_t *right, struct cb_err *err);
#endif
