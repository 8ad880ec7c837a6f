/* What a run leaves to look at: metrics.jsonl (a line a step), a TensorBoard event file, and report.html. */
#ifndef TRAIN_METRICS_H
#define TRAIN_METRICS_H
#include "train/loop.h"

struct metrics;

/* Opens FOLDER/metrics.jsonl and an event file. steps_done > 0: a run that goes on; lines of later steps are dropped. Owned by caller, free with
   metrics_close. */
enum cb_status metrics_open(struct metrics **metrics, const char *folder, int64_t steps_done, struct cb_err *err);
void metrics_close(struct metrics **metrics);
/* Appends one step: step, loss, grad_norm, lr, tokens_per_s, seconds, and valid_loss where it was evaluated. */
enum cb_status metrics_step(struct metrics *metrics, const struct loop_event *event, struct cb_err *err);
/* A sample of text at a step (samples.jsonl). */
enum cb_status metrics_sample(struct metrics *metrics, int64_t step, const char *text, struct cb_err *err);
/* FOLDER/report.html from the files written so far: curves of loss, rate and speed as inline SVG, samples, options (JSON text). Nullable: options. */
enum cb_status metrics_report(struct metrics *metrics, const char *title, const char *options, struct cb_err *err);
#endif
