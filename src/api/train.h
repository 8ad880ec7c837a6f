/* The parts of cb_train: its data, validation, samples. */
#ifndef API_TRAIN_H
#define API_TRAIN_H
#include "api/score.h"
#include "api/sets.h"
#include "api/training.h"
#include "data/loader.h"
#include "train/metrics.h"

struct run_data {
    struct tokenizer *tokenizer;
    struct chat *chat;  // NULL: the model has no chat template
    struct data_sets sets;
    struct mask *mask;  // of masked language models; NULL: none
    struct corrupt *corrupt;  // of span corruption; NULL: another task
    int32_t *spare;  // with corrupt: the loader's labels, which are none of the model's
    bool segments;  // more than one document, or a masked language model, which is not to see padding
    struct labelled *examples, *valid_examples;  // of a labelled task, in place of corpora; else NULL
    struct labels known;  // of the model that is trained on
};

/* One call of cb_train. */
struct run {
    struct cb_engine *engine;
    const struct cb_train_options *o;
    int64_t batch, seq, accumulate, steps, resume_step, done_here;
    struct training_what what;
    const struct task *task;  // NULL: text
    struct model_as as;
    struct labelled_batch rows;  // inputs of the plan, of a labelled task
    struct task_eval eval;
    uint64_t frozen;  // a hash of the modules that are not trained
    struct set_inputs row_sets, valid_sets;  // of the plans of steps and of validation
    bool go_on;
    bool made_out;  // OUT was not there before
    char *run_folder;  // OUT/run
    int lock;  // of run_folder; -1: none
    char *resume_path;  // the checkpoint to go on from; NULL: from the start
    json_t *identity;  // what the checkpoints say of the run
    bool is_identity_short;  // memory ran out over it
    size_t n_compared;  // how many of its keys the checkpoint was asked about
    struct run_data data;
    struct training training;
    struct score score;
    struct metrics *metrics;
    struct {
        int32_t *ids, *labels, *segments, *positions;  // inputs of the plan
    } in;
};

enum cb_status run_sizes(struct run *r, struct cb_err *err);
/* Whether the model learns what --task says, and what the masks are. */
enum cb_status run_check_task(const struct run *r, struct cb_err *err);
/* Names and numbers that are wrong whatever the data are. */
enum cb_status run_check_data(const struct run *r, struct cb_err *err);
/* train_data.c: tokenises (into OUT/run), splits, makes the loaders; with a plan only, the first loader alone in memory. */
enum cb_status run_data(struct run *r, struct cb_err *err);
/* Batch `index` of the text's rows into the plan's inputs. */
enum cb_status run_text_batch(struct run *r, int64_t index, struct cb_err *err);
/* Validation: its mean loss over all tokens; of several data sets the mean of each one's, and all of them in a line to the caller. */
enum cb_status run_text_valid(struct run *r, double *loss, struct cb_err *err);
/* The same of a labelled task, before the model is read: its labels make the head. */
enum cb_status run_examples(struct run *r, struct cb_err *err);
void run_data_close(struct run *r);
/* Makes and locks OUT/run; refuses an OUT that holds a run unless it is resumed; finds the step to resume from. */
enum cb_status run_open_folder(struct run *r, struct cb_err *err);
/* After a failure: folders that this call made and left empty are gone. */
void run_leave_folder(const struct run *r);
/* The tokenizer's ids must fit the model's vocabulary. */
enum cb_status run_check_ids(const struct run *r, struct cb_err *err);
/* train_identity.c: what run this is, into r->identity; a checkpoint to go on from must say the same, but for --steps and, where forced, rates. First all
   that is known without the data, before anything is written; then the data, the length and the weights that are not trained. */
enum cb_status run_identity_options(struct run *r, const struct trainer_options *options, struct cb_err *err);
enum cb_status run_identity_data(struct run *r, struct cb_err *err);
/* A piece of text from the model as it is, into the metrics. */
enum cb_status run_sample(void *user, int64_t step, struct cb_err *err);
/* Positions that the model was made for, less those that a module to be trained takes before the first token. */
enum cb_status run_context(const struct run *r, int64_t *context, struct cb_err *err);
#endif
