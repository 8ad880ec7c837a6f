/* The training loop: steps, validation, checkpoints, the best result, early stopping. Reports through callbacks; knows no files but checkpoints. */
#ifndef TRAIN_LOOP_H
#define TRAIN_LOOP_H
#include "base/json.h"
#include "train/trainer.h"

struct loop_event {
    int64_t step, steps;  // done and wanted
    struct train_result result;
    double loss;  // of the last step that had a label to learn, which may lie before this one; NaN: none had
    double valid_loss, best_loss;  // NaN where there is none
    int64_t best_step;
    double seconds, seconds_here, tokens_per_s;  // of training, validation left out: of the whole run, of this process; of this step
    bool is_evaluated;
};

struct loop_options {
    int64_t steps, eval_every, save_every, sample_every, stop_after;  // 0: never
    int keep;
    int64_t patience;  // 0: never stop early
    int64_t tokens_a_step;
    const char *folder;  // of checkpoints
    const json_t *identity;  // what run this is, kept in every checkpoint's state as "run"; borrowed, nullable
    double (*now)(void);  // seconds
};

struct loop_callbacks {
    void *user;
    train_batch_fn *batch;
    enum cb_status (*validate)(void *user, double *loss, struct cb_err *err);  // nullable
    enum cb_status (*step)(void *user, const struct loop_event *event, struct cb_err *err);  // after each step
    enum cb_status (*sample)(void *user, int64_t step, struct cb_err *err);  // nullable
    bool (*go_on)(void *user, const struct loop_event *event);  // false: save and stop
    void (*warn)(void *user, const char *line);
};

struct loop_outcome {
    struct loop_event last;
    bool is_stopped;  // asked to
    bool is_early;  // patience ran out
    bool has_best;  // FOLDER/best.safetensors exists
    int64_t bad_evals;
};

/* Runs until options->steps. resume_path: the checkpoint to go on from (ckpt_newest's); NULL: from the start. Checkpoints of later steps are put aside.
   Nothing that is not finite is saved: a numeric failure names the step and the last good checkpoint. */
enum cb_status loop_run(struct trainer *trainer, const struct loop_options *options, const struct loop_callbacks *callbacks,
                        const char *resume_path, struct loop_outcome *outcome, struct cb_err *err);
#endif
