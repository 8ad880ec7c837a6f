/* cb_train: data, the set-up of training_open, the loop, and what is written at the end. */
#include "api/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/card.h"
#include "api/components.h"
#include "api/files.h"
#include "api/training.h"
#include "base/hash.h"
#include "base/rng.h"
#include "io/file.h"
#include "modules/expression.h"
#include "text/chat.h"
#include "train/ckpt.h"

/* What a tuner or full training usually wants. */
static double usual_lr(const struct run *r) { return !r->o->tuner || r->what.kind == TRAIN_MODULE ? 1e-3 : 1e-4; }

/* Counts that would not fit where they go, or make no sense below 0. */
static enum cb_status check_counts(const struct cb_train_options *o, struct cb_err *err) {
    const struct {
        const char *name;
        int64_t value, max;
    } counts[] = {{"--batch", o->batch, INT32_MAX},
                  {"--seq", o->seq, INT32_MAX},
                  {"--accumulate", o->accumulate, 1 << 20},
                  {"--keep", o->keep, INT32_MAX},
                  {"--steps", o->steps, INT64_MAX},
                  {"--tokens", o->tokens, INT64_MAX},
                  {"--epochs", o->epochs, INT64_MAX},
                  {"--eval-every", o->eval_every, INT64_MAX},
                  {"--save-every", o->save_every, INT64_MAX},
                  {"--sample-every", o->sample_every, INT64_MAX},
                  {"--patience", o->patience, INT64_MAX},
                  {"--unfreeze", o->unfreeze, 1 << 30},
                  {"--adapter-drop", o->adapter_drop, 1 << 30},
                  {"--stop-after", o->stop_after, INT64_MAX}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].value < 0 || counts[i].value > counts[i].max)
            FAIL(err, CB_E_USAGE, "%s %lld: wanted a number from 0 to %lld", counts[i].name, (long long)counts[i].value,
                 (long long)counts[i].max);
    if (!(o->lr >= 0) || !isfinite(o->lr)) FAIL(err, CB_E_USAGE, "--lr %g: wanted a positive number", o->lr);
    return CB_OK;
}

/* Batch, length and steps, from the options, the model and the data. */
enum cb_status run_sizes(struct run *r, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    int64_t context;
    TRY(check_counts(o, err));
    TRY(run_context(r, &context, err));
    r->batch = o->batch ? o->batch : 8;
    r->seq = o->seq ? o->seq : context < 1024 ? context : 1024;
    r->accumulate = o->accumulate ? o->accumulate : 1;
    if (r->batch > INT32_MAX / r->seq)
        FAIL(err, CB_E_USAGE, "--batch %lld of --seq %lld tokens: too many", (long long)r->batch, (long long)r->seq);
    if (o->precision && strcmp(o->precision, "f32") != 0) FAIL(err, CB_E_USAGE, "--precision %s: wanted f32", o->precision);
    if (o->new_head && !task_find(o->task)) FAIL(err, CB_E_USAGE, "--new-head: wanted it with a --task that has a head of labels");
    static const char *const tasks[] = {"text", "chat", "mlm", "span-corruption"};
    for (size_t i = 0; o->task && i < sizeof tasks / sizeof *tasks; i++)
        if (strcmp(o->task, tasks[i]) == 0) return CB_OK;
    r->task = task_find(o->task);
    return o->task && !r->task ? task_unknown(o->task, "text, chat, mlm, span-corruption, ", err) : CB_OK;
}

static enum cb_status run_steps(struct run *r, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    int64_t a_step = r->batch * r->seq * r->accumulate;
    if ((o->steps > 0) + (o->tokens > 0) + (o->epochs > 0) > 1) FAIL(err, CB_E_USAGE, "--steps, --tokens, --epochs: wanted one of them");
    r->steps = o->steps ? o->steps : o->tokens ? o->tokens / a_step + (o->tokens % a_step != 0) : 1;
    const int64_t n = sets_rows(&r->data.sets, r->data.examples), epochs = o->epochs ? o->epochs : 1, rows = r->batch * r->accumulate;
    if (!o->steps && !o->tokens && n) {
        if (epochs > (INT64_MAX - rows) / n) FAIL(err, CB_E_USAGE, "--epochs %lld: too many", (long long)epochs);
        r->steps = (n * epochs + rows - 1) / rows;
    }
    if (r->steps > INT64_MAX / a_step)
        FAIL(err, CB_E_USAGE, "training: %lld steps of %lld tokens; wanted fewer than 2^63 tokens", (long long)r->steps, (long long)a_step);
    return CB_OK;
}

static enum cb_status trainer_options(struct run *r, struct trainer_options *t, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    bool module = r->what.kind == TRAIN_MODULE;
    TRY(opt_parse(o->optimizer ? o->optimizer : "adamw", &t->opt, t->option, err));
    t->sched.lr = o->lr > 0 ? o->lr : usual_lr(r);
    t->sched.min_lr = o->min_lr > 0 ? o->min_lr : o->min_lr < 0 ? 0 : t->sched.lr / 10;
    TRY(sched_parse(o->schedule ? o->schedule : "cosine", &t->sched.kind, err));
    t->sched.steps = r->steps;
    int64_t usual = r->steps / 50 < 200 ? r->steps / 50 : 200;
    t->sched.warmup = o->warmup > 0 ? o->warmup : o->warmup < 0 ? 0 : usual;
    if (t->sched.min_lr > t->sched.lr)
        FAIL(err, CB_E_USAGE, "--min-lr %g: above --lr %g, where the schedule begins", t->sched.min_lr, t->sched.lr);
    t->sched.decay_share = 0.2;
    t->weight_decay = o->weight_decay > 0 ? o->weight_decay : o->weight_decay < 0 || module ? 0 : 0.1;
    t->clip = o->clip > 0 ? o->clip : o->clip < 0 ? 0 : 1;
    t->accumulate = (int)r->accumulate;
    return CB_OK;
}

/* Examples of the plan's rows: one data set's in its own order, or each row's of the set drawn for it. */
static void run_task_batch(struct run *r, int64_t index) {
    const uint64_t seed = r->engine->options.seed;
    for (int64_t b = 0; b < r->batch && r->data.sets.mixture; b++) {
        int set;
        int64_t at;
        mixture_row(r->data.sets.mixture, index * r->batch + b, &set, &at);
        labelled_fill_row(r->data.examples, &r->rows, b, set, seed, at);
    }
    if (!r->data.sets.mixture) labelled_fill(r->data.examples, &r->rows, seed, index);
}

static enum cb_status next_batch(void *user, int64_t index, struct cb_err *err) {
    struct run *r = user;
    struct pass *p = &r->training.pass;
    int64_t *seed = pass_data(p, "seed");
    if (seed) *seed = (int64_t)(r->engine->options.seed * 0x9E3779B97F4A7C15ull + (uint64_t)index);
    if (r->task)
        run_task_batch(r, index);
    else
        TRY(run_text_batch(r, index, err));
    set_inputs_fill(&r->row_sets);
    int32_t *drop = pass_data(p, MODULE_DROP_INPUT);
    struct rng rng = rng_make(r->engine->options.seed ^ rng_hash(MODULE_DROP_INPUT), (uint64_t)index);
    if (drop) *drop = (int32_t)rng_below(&rng, (uint64_t)r->o->adapter_drop + 1);
    if (r->o->teacher) TRY(teacher_run(&r->training.teacher, p, err));
    return CB_OK;
}

/* Loss over the whole validation part, by a plan without gradients. */
static enum cb_status validate(void *user, double *loss, struct cb_err *err) {
    struct run *r = user;
    struct cb_task_result result;
    if (!r->task) return run_text_valid(r, loss, err);
    TRY(task_eval_run(&r->eval, &result, err));
    *loss = result.loss;
    return CB_OK;
}

static enum cb_status on_step(void *user, const struct loop_event *e, struct cb_err *err) {
    struct run *r = user;
    int64_t left = e->steps - e->step;
    r->done_here++;
    double per_step = e->seconds_here / (double)r->done_here;
    struct cb_progress p = {.verb = r->o->tuner ? "finetune" : "pretrain",
                            .done = e->step,
                            .total = e->steps,
                            .seconds = e->seconds,
                            .seconds_left = per_step * (double)left,
                            .rate = e->tokens_per_s,
                            .unit = "tokens",
                            .loss = e->loss,
                            .valid_loss = isfinite(e->valid_loss) ? e->valid_loss : -1,
                            .lr = e->result.lr};
    r->go_on = engine_progress(r->engine, &p);
    return metrics_step(r->metrics, e, err);
}

static bool go_on(void *user, const struct loop_event *e) {
    (void)e;
    return ((struct run *)user)->go_on;
}

static void warn(void *user, const char *line) { engine_warn(((struct run *)user)->engine, "%s", line); }

/* Writes the trained thing: a model folder or an adapter folder. */
static json_t *number_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

/* All bits of the modules that were on the model and are not trained; *n: their tensors. */
static uint64_t frozen_modules(const struct run *r, int *n) {
    const struct instance *in = &r->training.instance;
    uint64_t h = HASH_START;
    *n = 0;
    for (int i = 0; i < in->list.n - r->training.n_modules; i++)
        for (int k = 0; k < module_n_params(in->modules[i]); k++, ++*n) {
            const struct store_entry *entry = store_find(in->store, module_param(in->modules[i], k)->name);
            if (entry && entry->data) h = hash_bytes(h, entry->data, (size_t)entry->bytes);
        }
    return h;
}

static enum cb_status write_card(const struct run *r, const struct module *module, const char *folder, const struct loop_event *e,
                                 struct cb_err *err) {
    json_t *metrics = json_pack("{s:I, s:o, s:o, s:o}", "steps", (json_int_t)e->step, "loss", number_or_null(e->loss), "valid_loss",
                                number_or_null(e->valid_loss), "best_valid_loss", number_or_null(e->best_loss));
    int n;
    const uint64_t hash = frozen_modules(r, &n);
    if (hash != r->frozen) FAIL(err, CB_E_ARGUMENT, "training: modules that were frozen have changed");
    if (n && json_object_set_new(metrics, "frozen_modules",
                                 json_sprintf("%d tensors, hash %016" PRIx64 ", bit-equal before and after", n, hash)) != 0)
        FAIL(err, CB_E_MEMORY, "training: out of memory");
    json_t *data = json_object_get(r->identity, "training data");
    return card_write(&r->training.instance, folder, module, json_incref(data), metrics, r->o->modules, r->o->run_json, err);
}

static enum cb_status write_module(struct run *r, const struct module *module, const char *folder, const struct loop_event *last,
                                   struct cb_err *err) {
    struct instance *in = &r->training.instance;
    const struct module_evaluator evaluator = instance_evaluator(in);
    TRY(module_settle(module, in->store, &evaluator, err));
    TRY(module_save(module, in->store, folder, err));
    TRY(write_card(r, module, folder, last, err));
    return r->task ? task_write_labels(labelled_labels(r->data.examples), r->task, folder, err) : CB_OK;
}

/* A folder for each data set's module, and what puts them together. */
static enum cb_status write_modules(struct run *r, const struct loop_event *last, struct cb_err *err) {
    for (int i = 0; i < r->training.n_modules; i++) {
        char *folder = io_path_join(r->o->out, r->data.sets.names[i]);
        if (!folder) FAIL(err, CB_E_MEMORY, "training: out of memory");
        enum cb_status status = write_module(r, r->training.modules[i], folder, last, err);
        free(folder);
        TRY(status);
    }
    return setup_write(r->training.instance.tasks, NULL, r->o->out, err);
}

static enum cb_status write_result(struct run *r, const struct loop_event *last, struct cb_err *err) {
    const struct instance *in = &r->training.instance;
    TRY(trainer_check(r->training.trainer, err));
    if (r->training.module) {
        TRY(in->tasks ? write_modules(r, last, err) : write_module(r, r->training.module, r->o->out, last, err));
    } else {
        TRY(model_save(in->model, in->store, r->o->out, 0, CB_DTYPE_COUNT, err));
        TRY(files_copy_tokenizer(r->o->model, r->o->out, err));
    }
    if (r->task && !r->training.module) TRY(task_write_labels(labelled_labels(r->data.examples), r->task, r->o->out, err));
    // a template that was given goes with what was trained on it
    if (!r->o->chat_template || !r->data.chat) return CB_OK;
    return files_write_text(r->o->out, "chat_template.jinja", chat_source(r->data.chat, NULL), err);
}

static void fill_result(struct run *r, const struct loop_outcome *outcome, struct cb_train_result *result) {
    const struct loop_event *e = &outcome->last;
    result->steps = e->step;
    result->tokens = e->step * r->batch * r->seq * r->accumulate;
    result->loss = e->loss;
    result->valid_loss = e->valid_loss;
    result->best_valid_loss = e->best_loss;
    result->seconds = e->seconds;
    result->tokens_per_s = e->seconds_here > 0 ? (double)(r->done_here * r->batch * r->seq * r->accumulate) / e->seconds_here : 0;
    result->peak_bytes = engine_peak_bytes();
}

static void fill_plan(const struct run *r, struct cb_train_result *result) {
    const struct training *t = &r->training;
    result->weights_bytes = t->weights_bytes;
    result->gradients_bytes = t->gradients_bytes;
    result->optimizer_bytes = t->states_bytes;
    result->activations_bytes = t->activations_bytes;
    result->planned_bytes = t->planned_bytes;
    result->trainable = t->trainable;
    result->total = t->total;
    result->flops = training_flops(t) * (double)r->accumulate;
}

static bool has_valid(const struct run *r) { return r->data.valid_examples || (r->data.sets.n && r->data.sets.set[0].valid_loader); }

/* The loop itself and what comes after it. */
static enum cb_status train(struct run *r, struct cb_train_result *result, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    int64_t save_every = o->save_every > 0 ? o->save_every : r->steps / 10 > 0 ? r->steps / 10 : 1;
    struct loop_options lo = {.steps = r->steps,
                              .eval_every = o->eval_every,
                              .save_every = save_every,
                              .sample_every = o->sample_every,
                              .stop_after = o->stop_after,
                              .keep = (int)(o->keep > 0 ? o->keep : 2),
                              .patience = o->patience,
                              .tokens_a_step = r->batch * r->seq * r->accumulate,
                              .folder = r->run_folder,
                              .now = engine_now};
    struct loop_callbacks lc = {.user = r,
                                .batch = next_batch,
                                .validate = has_valid(r) ? validate : NULL,
                                .step = on_step,
                                .go_on = go_on,
                                .warn = warn,
                                .sample = o->sample_every > 0 && r->data.tokenizer && !r->task ? run_sample : NULL};
    struct loop_outcome outcome;
    int n_frozen;
    r->frozen = frozen_modules(r, &n_frozen);
    TRY(run_identity_data(r, err));
    lo.identity = r->identity;
    TRY(files_write_text(r->run_folder, "run.json", o->run_json, err));
    TRY(metrics_open(&r->metrics, r->run_folder, r->resume_step, err));
    TRY(components_run(&r->training, next_batch, r, r->resume_path != NULL, err));
    enum cb_status status = loop_run(r->training.trainer, &lo, &lc, r->resume_path, &outcome, err);
    fill_result(r, &outcome, result);
    if (status == CB_OK && outcome.is_early && outcome.has_best) {
        char *best = io_path_join(r->run_folder, "best.safetensors");
        status = best ? ckpt_load_params(r->training.trainer, best, err)
                      : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "training: out of memory");
        free(best);
    }
    if (status == CB_OK) status = write_result(r, &outcome.last, err);
    if (status == CB_OK) status = files_write_text(o->out, "run.json", o->run_json, err);
    if (status == CB_OK || status == CB_E_NUMERIC) {
        enum cb_status reported = metrics_report(r->metrics, o->out, o->run_json, status == CB_OK ? err : NULL);
        if (status == CB_OK) status = reported;
    }
    if (status == CB_OK && outcome.is_stopped)
        FAIL(err, CB_E_STOPPED, "%s: stopped at step %lld of %lld, checkpoint saved; the same command with --resume goes on", o->out,
             (long long)outcome.last.step, (long long)r->steps);
    return status;
}

/* Validation has a plan of its own, whose memory the plan of the steps is to leave; without data, of the shape that they would have. */
static enum cb_status plan_validation(struct run *r, int64_t *bytes, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    const struct loader *valid = r->data.sets.n ? r->data.sets.set[0].valid_loader : NULL;
    bool is_wanted = r->data.sets.n ? valid != NULL : o->n_valid || o->eval_every > 0 || o->valid_share > 0;
    *bytes = 0;
    if (r->task && r->data.valid_examples) {
        const struct model *m = r->training.instance.model;
        r->eval = (struct task_eval){.task = r->task,
                                     .instance = &r->training.instance,
                                     .data = r->data.valid_examples,
                                     .batch = r->batch,
                                     .seq = r->seq,
                                     .pad = (int32_t)m->pad,
                                     .sets = &r->valid_sets};
        TRY(task_eval_open(&r->eval, err));
        *bytes = plan_memory(r->eval.pass.plan).inside;
    }
    if (!is_wanted || r->task) return CB_OK;
    struct loader_options shape = {
        .batch = r->batch, .seq = r->seq, .no_pack = o->no_pack, .segments = r->training.instance.model->class->head->masks};
    enum cb_status status = score_open(&r->score, &r->training.instance, valid ? loader_options(valid) : &shape, r->data.corrupt, err);
    if (status == CB_E_LIMIT)
        err_prefix(err, "--memory %lld: validation; a smaller --batch or a shorter --seq needs less",
                   (long long)r->engine->options.memory_limit);
    TRY(status);
    r->score.mask = r->data.mask;
    *bytes = score_bytes(&r->score);
    return CB_OK;
}

/* What the options alone say. */
static enum cb_status read_options(struct run *r, struct training_options *to, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    TRY(training_parse(o->tuner, &r->what, err));
    *to = (struct training_options){.model = o->model,
                                    .modules = o->modules,
                                    .tuner = o->tuner,
                                    .what = r->what,
                                    .labels_given = true,
                                    .train_mode = true,
                                    .module_per_set = o->module_per_set,
                                    .adapter_drop = o->adapter_drop,
                                    .lr_scales = o->lr_scales,
                                    .n_lr_scales = o->n_lr_scales,
                                    .unfreeze = o->unfreeze,
                                    .teacher = o->teacher,
                                    .distill = o->distill > 0 ? o->distill : 0.5,
                                    .temperature = o->temperature > 0 ? o->temperature : 1};
    if (!o->teacher && (o->distill != 0 || o->temperature != 0))
        FAIL(err, CB_E_USAGE, "--distill, --temperature: wanted --teacher MODEL with them");
    if (to->distill > 1 || !isfinite(to->temperature)) FAIL(err, CB_E_USAGE, "--distill %g: wanted a share from 0 to 1", to->distill);
    return CB_OK;
}

/* The inputs of the plans, which batches fill. */
static enum cb_status open_inputs(struct run *r, struct cb_err *err) {
    const bool has_fields = r->task != NULL;
    const struct instance *in = &r->training.instance;
    struct pass *pass = &r->training.pass, *valid = r->task ? &r->eval.pass : &r->score.pass;
    const int64_t rows = r->batch * (r->task ? labelled_info(r->data.examples)->rows : 1);
    const int64_t valid_rows = r->batch * (r->data.valid_examples ? labelled_info(r->data.valid_examples)->rows : 1);
    TRY(set_inputs_open(&r->row_sets, pass, in, &r->data.sets, rows, has_fields, err));
    if (has_valid(r)) TRY(set_inputs_open(&r->valid_sets, valid, in, &r->data.sets, valid_rows, has_fields, err));
    if (r->task) {
        r->rows = task_batch(pass, r->task, r->batch, r->seq, (int32_t)in->model->pad);
        TRY(task_batch_fields(&r->rows, pass, in, r->data.examples, err));
    }
    r->rows.sets = r->row_sets.set;
    r->in.ids = pass_data(pass, "input_ids");
    r->in.labels = pass_data(pass, "labels");
    r->in.segments = score_segments(pass);
    r->in.positions = pass_data(pass, "position_ids");
    return CB_OK;
}

static enum cb_status run_train(struct run *r, struct cb_train_result *result, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    struct training_options to;
    TRY(read_options(r, &to, err));
    // all that can be refused without the data is refused before they are read
    TRY(sets_parse(&r->data.sets, o, err));
    if (r->data.sets.is_named && o->sample_every > 0)
        FAIL(err, CB_E_USAGE, "--sample-every: a sample is of none of --dataset; wanted one of the two options");
    TRY(run_sizes(r, err));
    TRY(run_check_data(r, err));
    TRY(run_steps(r, err));
    TRY(trainer_options(r, &to.trainer, err));
    to.batch = r->batch;
    to.seq = r->seq;
    if (!o->plan_only) TRY(run_open_folder(r, err));
    TRY(run_identity_options(r, &to.trainer, err));
    if (r->task) {
        TRY(run_examples(r, err));
        to.task = r->task;
        to.as = &r->as;
        to.seq = r->seq;
        to.labels_given = false;
        to.examples = labelled_info(r->data.examples);
    }
    to.sets = r->data.sets.names;
    to.n_sets = r->data.sets.is_named ? r->data.sets.n : 0;
    TRY(training_open(&r->training, r->engine, &to, err));
    if (!r->task) TRY(run_check_task(r, err));
    if (r->data.sets.n && !r->task) TRY(run_data(r, err));
    TRY(sets_mix(&r->data.sets, r->data.examples, r->engine->options.seed, err));
    TRY(run_steps(r, err));
    TRY(trainer_options(r, &to.trainer, err));
    if (to.trainer.sched.warmup > r->steps)
        engine_warn(r->engine, "--warmup %lld: the run has %lld steps, so that its rate never reaches --lr",
                    (long long)to.trainer.sched.warmup, (long long)r->steps);
    to.segments = r->data.segments || r->training.instance.model->class->head->masks;
    if (r->data.corrupt) to.target = corrupt_target(r->data.corrupt, r->seq);
    TRY(plan_validation(r, &to.held_bytes, err));
    TRY(training_plan(&r->training, &to, err));
    if (o->plan_only || !r->training.trainer) {
        fill_plan(r, result);
        return o->dump ? plan_dump(r->training.pass.plan, &result->dump, err) : CB_OK;
    }
    TRY(open_inputs(r, err));
    fill_plan(r, result);
    return train(r, result, err);
}

enum cb_status cb_train(struct cb_engine *engine, const struct cb_train_options *options, struct cb_train_result *result,
                        struct cb_err *err) {
    struct run r = {.engine = engine, .o = options, .go_on = true, .lock = -1};
    *result = (struct cb_train_result){.loss = NAN, .valid_loss = NAN, .best_valid_loss = NAN};
    enum cb_status status = run_train(&r, result, err);
    metrics_close(&r.metrics);
    score_close(&r.score);
    task_eval_close(&r.eval);
    task_batch_close(&r.rows);
    training_close(&r.training);
    set_inputs_close(&r.row_sets);
    set_inputs_close(&r.valid_sets);
    run_data_close(&r);
    if (status != CB_OK) run_leave_folder(&r);
    io_unlock(&r.lock);
    free(r.run_folder);
    free(r.resume_path);
    json_decref(r.identity);
    return status;
}
