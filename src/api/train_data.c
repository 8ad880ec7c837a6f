/* The data of a training run: tokenised once into OUT/run, split, loaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/chat.h"
#include "api/files.h"
#include "api/train.h"
#include "base/rng.h"
#include "io/file.h"
#include "text/tokenizer.h"
#include "train/ckpt.h"

static void warn(void *user, const char *line) { engine_warn(user, "%s", line); }
static void note(void *user, const char *line) {
    struct cb_progress p = {.verb = "data", .seconds = -1, .seconds_left = -1, .loss = -1, .valid_loss = -1, .text = line};
    engine_progress(user, &p);
}

static bool progress(void *user, int64_t done, int64_t total) {
    struct cb_progress p = {
        .verb = "tokenize", .done = done, .total = total, .seconds_left = -1, .loss = -1, .valid_loss = -1, .unit = "bytes"};
    return engine_progress(user, &p);
}

enum cb_status run_context(const struct run *r, int64_t *context, struct cb_err *err) {
    struct model *m = NULL;
    int64_t before = 0;
    TRY(model_describe(&m, r->o->model, err));
    *context = m->max_positions > 0 ? m->max_positions : 1024;
    model_destroy(&m);
    if (r->what.kind == TRAIN_MODULE) TRY(module_spec_positions(r->o->tuner, &before, err));
    if (before >= *context)
        FAIL(err, CB_E_LIMIT, "--tuner %s: takes %lld positions of the model's %lld", r->o->tuner, (long long)before, (long long)*context);
    *context -= before;
    return CB_OK;
}

enum cb_status run_check_data(const struct run *r, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    enum data_invalid invalid;
    if (!o->out && !o->plan_only) FAIL(err, CB_E_USAGE, "training: no folder to write; wanted --out DIR");
    if (!o->plan_only) TRY(engine_check_runs(r->engine, err));
    TRY(data_invalid_by_name(&invalid, o->invalid, err));
    TRY(records_check_columns(o->columns, o->n_columns, err));
    if (!(o->valid_share >= 0 && o->valid_share < 1))
        FAIL(err, CB_E_USAGE, "--valid-share %g: wanted a number from 0 to below 1", o->valid_share);
    if (o->patience > 0 && o->eval_every <= 0)
        FAIL(err, CB_E_USAGE, "--patience %lld: wanted --eval-every N with it", (long long)o->patience);
    return CB_OK;
}

enum cb_status run_check_task(const struct run *r, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    const struct model *m = r->training.instance.model;
    struct mask *none;
    struct corrupt *neither;
    TRY(score_check_task(m, o->task, err));
    if (o->sample_every > 0 && !m->class->head->generates)
        FAIL(err, CB_E_USAGE, "--sample-every: %s writes no text; wanted a model that does", m->class->name);
    TRY(score_mask(&none, m, NULL, o->mask, o->mask_rate, 0, err));
    return score_corrupt(&neither, m, NULL, o->task, o->mask_rate, 0, err);
}

/* part: "train" or "valid". */
static enum cb_status corpus_make(struct run *r, const struct data_set *set, struct corpus **corpus, const char *part, struct cb_err *err) {
    const bool is_valid = strcmp(part, "valid") == 0;
    char file[100];
    enum data_invalid invalid;
    TRY(data_invalid_by_name(&invalid, r->o->invalid, err));
    const int32_t bos = r->data.mask ? tokenizer_bos(r->data.tokenizer) : -1;
    struct corpus_options o = {
        .bos = bos, .eos = tokenizer_eos(r->data.tokenizer), .invalid = invalid, .user = r->engine, .warn = warn, .progress = progress};
    o.note = note;
    o.chat = r->data.chat;
    o.is_chat = r->o->task && !strcmp(r->o->task, "chat");
    o.records = RECORDS_OPTIONS(r->o);
    o.apart = r->training.instance.model->class->head->shifts_labels && !r->data.corrupt;
    snprintf(file, sizeof file, "%s%s%s.tokens", part, set->name ? "." : "", set->name ? set->name : "");
    char *path = r->run_folder ? io_path_join(r->run_folder, file) : NULL;
    if (r->run_folder && !path) FAIL(err, CB_E_MEMORY, "training data: out of memory");
    enum cb_status status = corpus_load(corpus, is_valid ? set->valid : set->text, is_valid ? set->n_valid : set->n_text, r->data.tokenizer,
                                        path, &o, NULL, err);
    free(path);
    return status;
}

/* Where the training part ends; the rest is for validation. */
static enum cb_status split(const struct run *r, const struct data_set *set, int64_t *cut, struct cb_err *err) {
    double share = r->o->valid_share > 0 ? r->o->valid_share : 0.1;
    *cut = 0;
    if (r->o->n_valid || (r->o->eval_every <= 0 && r->o->valid_share <= 0)) return CB_OK;
    return corpus_split(set->corpus, share, cut, err);
}

/* What training and validation read of one data set; of several, training asks for single rows. */
static enum cb_status loaders_make(struct run *r, struct data_set *set, struct loader_options lo, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    int64_t cut;
    TRY(split(r, set, &cut, err));
    lo.last = cut;
    if (set->name) {
        lo.batch = 1;
        lo.seed ^= rng_hash(set->name);
    }
    TRY(loader_create(&set->loader, set->corpus, &lo, err));
    char of[100] = "";
    if (set->name) snprintf(of, sizeof of, "%.80s: ", set->name);
    score_tell_lost(r->engine, set->loader, of);
    if (!o->n_valid && !cut) return CB_OK;
    lo.batch = r->batch;
    lo.evaluation = true;
    lo.first = cut;
    lo.last = 0;
    TRY(loader_create(&set->valid_loader, set->valid_corpus ? set->valid_corpus : set->corpus, &lo, err));
    snprintf(of, sizeof of, "validation%s%.80s: ", set->name ? " of " : "", set->name ? set->name : "");
    score_tell_lost(r->engine, set->valid_loader, of);
    return CB_OK;
}

enum cb_status run_data(struct run *r, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    struct run_data *d = &r->data;
    TRY(files_load_tokenizer(&d->tokenizer, o->model, err));
    TRY(run_check_ids(r, err));
    TRY(score_mask(&d->mask, r->training.instance.model, d->tokenizer, o->mask, o->mask_rate, r->engine->options.seed, err));
    TRY(score_corrupt(&d->corrupt, r->training.instance.model, d->tokenizer, o->task, o->mask_rate, r->engine->options.seed, err));
    if (d->corrupt && !(d->spare = calloc((size_t)(r->batch * r->seq), sizeof *d->spare)))
        FAIL(err, CB_E_MEMORY, "training data: out of memory");
    const char *template = o->chat_template;
    TRY(o->task && !strcmp(o->task, "chat") ? chat_need(&d->chat, o->model, d->tokenizer, template, err)
                                            : chat_open(&d->chat, o->model, d->tokenizer, template, err));
    const bool pairs = r->training.instance.model->class->head->shifts_labels && !d->corrupt;
    d->segments = o->no_pack || d->mask;
    for (int i = 0; i < d->sets.n; i++) {
        struct data_set *set = &d->sets.set[i];
        if (set->n_valid) TRY(corpus_make(r, set, &set->valid_corpus, "valid", err));
        TRY(corpus_make(r, set, &set->corpus, "train", err));
        if (pairs) TRY(score_check_pairs(r->training.instance.model, set->corpus, err));
        d->segments |= corpus_info(set->corpus)->documents > 1;
    }
    int32_t pad = tokenizer_eos(d->tokenizer) >= 0 ? tokenizer_eos(d->tokenizer) : 0;
    struct loader_options lo = {
        .batch = r->batch, .seq = r->seq, .seed = r->engine->options.seed, .no_pack = o->no_pack, .segments = d->segments, .pad = pad};
    if (pairs) score_pairs(&lo, r->training.instance.model);
    for (int i = 0; i < d->sets.n; i++) TRY(loaders_make(r, &d->sets.set[i], lo, err));
    return CB_OK;
}

enum cb_status run_text_batch(struct run *r, int64_t index, struct cb_err *err) {
    const struct run_data *d = &r->data;
    int32_t *labels = d->spare ? d->spare : r->in.labels, *segments = r->in.segments, *positions = r->in.positions;
    if (!d->sets.mixture) TRY(loader_batch(d->sets.set[0].loader, index, r->in.ids, labels, segments, positions, err));
    for (int64_t b = 0; b < r->batch && d->sets.mixture; b++) {
        const int64_t at = b * r->seq;
        int set;
        int64_t row;
        mixture_row(d->sets.mixture, index * r->batch + b, &set, &row);
        r->row_sets.set[b] = set;
        TRY(loader_batch(d->sets.set[set].loader, row, r->in.ids + at, labels + at, segments ? segments + at : NULL,
                         positions ? positions + at : NULL, err));
    }
    score_prepare(d->mask, d->corrupt, (uint64_t)index, r->batch, r->seq, r->in.ids, r->in.labels, segments);
    return CB_OK;
}

enum cb_status run_text_valid(struct run *r, double *loss, struct cb_err *err) {
    const struct data_sets *s = &r->data.sets;
    char line[400] = "";
    size_t used = 0;
    double sum = 0, one;
    for (int i = 0; i < s->n; i++) {
        set_inputs_all(&r->valid_sets, i);
        r->score.loader = s->set[i].valid_loader;
        TRY(score_run(&r->score, &one, NULL, err));
        sum += one;
        if (s->is_named && used < sizeof line)
            used += (size_t)snprintf(line + used, sizeof line - used, "%s%s %.4f", i ? ", " : "validation: ", s->names[i], one);
    }
    if (s->is_named) note(r->engine, line);
    *loss = sum / s->n;
    return CB_OK;
}

static enum cb_status examples_make(struct run *r, struct labelled **examples, bool valid, const struct labels *known, int64_t context,
                                    struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    const char **paths;
    int *sets, n;
    struct labelled_options lo = {
        .kind = r->task->kind, .known = known, .seq = o->seq && o->seq < context ? o->seq : context, .pad = task_pad(r->data.tokenizer)};
    lo.stride = o->stride;
    lo.records = RECORDS_OPTIONS(o);
    TRY(data_invalid_by_name(&lo.records.invalid, o->invalid, err));
    enum cb_status status = sets_paths(&r->data.sets, valid, &paths, &sets, &n, err);
    lo.sets = sets;
    if (status == CB_OK) status = labelled_load(examples, paths, n, r->data.tokenizer, &lo, err);
    const struct labelled_info *info = status == CB_OK ? labelled_info(*examples) : NULL;
    char text[200];
    if (info && info->questions)
        snprintf(text, sizeof text, "%.100s: %lld questions in %lld windows, the longest of %lld tokens", n ? paths[0] : "",
                 (long long)info->questions, (long long)info->n, (long long)info->longest);
    else if (info)
        snprintf(text, sizeof text, "%.100s: %lld examples, %d labels, the longest of %lld tokens", n ? paths[0] : "", (long long)info->n,
                 labelled_labels(*examples)->n, (long long)info->longest);
    free(paths);
    free(sets);
    TRY(status);
    note(r->engine, text);
    task_say(r->engine, *examples, lo.seq);
    return CB_OK;
}

enum cb_status run_examples(struct run *r, struct cb_err *err) {
    const struct cb_train_options *o = r->o;
    struct run_data *d = &r->data;
    int64_t context;
    if (!d->sets.n) FAIL(err, CB_E_USAGE, "--task %s: no data; the labels in them make the head", r->task->name);
    if (o->valid_share > 0 || (o->eval_every > 0 && !o->n_valid))
        FAIL(err, CB_E_USAGE, "--task %s: wanted --valid FILE for validation; no share of the examples is held out", r->task->name);
    TRY(run_context(r, &context, err));
    TRY(files_load_tokenizer(&d->tokenizer, o->model, err));
    if (!o->new_head) TRY(task_read_labels(&d->known, r->task, o->model, err));
    TRY(examples_make(r, &d->examples, false, d->known.n ? &d->known : NULL, context, err));
    if (o->n_valid) TRY(examples_make(r, &d->valid_examples, true, labelled_labels(d->examples), context, err));
    int64_t longest = labelled_info(d->examples)->longest;
    if (d->valid_examples && labelled_info(d->valid_examples)->longest > longest) longest = labelled_info(d->valid_examples)->longest;
    r->seq = task_seq(o->seq, longest, context);
    r->as = task_model(r->task, labelled_labels(d->examples), task_pad(d->tokenizer), r->engine->options.seed);
    if (o->new_head) r->as.head = MODEL_HEAD_FRESH;
    return CB_OK;
}

void run_data_close(struct run *r) {
    labelled_destroy(&r->data.examples);
    labelled_destroy(&r->data.valid_examples);
    labels_deinit(&r->data.known);
    sets_close(&r->data.sets);
    mask_destroy(&r->data.mask);
    corrupt_destroy(&r->data.corrupt);
    free(r->data.spare);
    chat_destroy(&r->data.chat);
    tokenizer_destroy(&r->data.tokenizer);
}

enum cb_status run_open_folder(struct run *r, struct cb_err *err) {
    char *path;
    r->made_out = !io_is_folder(r->o->out);
    if (!(r->run_folder = io_path_join(r->o->out, "run"))) FAIL(err, CB_E_MEMORY, "training: out of memory");
    TRY(io_mkdirs(r->run_folder, err));
    TRY(io_lock(&r->lock, r->run_folder, err));
    io_remove_temporaries(r->o->out);
    io_remove_temporaries(r->run_folder);
    TRY(ckpt_newest(r->run_folder, &path, warn, r->engine, err));
    enum cb_status status = CB_OK;
    if (path && !r->o->resume)
        status = err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "%s: holds a run already; --resume goes on with it, or give another --out",
                         r->o->out);
    const char *dash = path ? strrchr(path, '-') : NULL;
    if (dash) r->resume_step = strtoll(dash + 1, NULL, 10);
    r->resume_path = path;
    return status;
}

void run_leave_folder(const struct run *r) {
    if (r->lock >= 0 && rmdir(r->run_folder) == 0 && r->made_out) rmdir(r->o->out);
}

enum cb_status run_check_ids(const struct run *r, struct cb_err *err) {
    int64_t size = tokenizer_size(r->data.tokenizer), vocab = r->training.instance.model->vocab;
    if (size > vocab)
        FAIL(err, CB_E_ARGUMENT, "%s: the tokenizer has %lld ids, the model's vocab_size is %lld; wanted a model with as many or more",
             r->o->model, (long long)size, (long long)vocab);
    return CB_OK;
}
