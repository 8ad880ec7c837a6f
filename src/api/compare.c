/* cb_compare: several tuners on one task at one budget, each with several seeds; a table, a plot, and every run in a folder of its own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/files.h"
#include "api/task.h"
#include "base/json.h"
#include "io/file.h"
#include "train/report.h"

enum { TRIAL_STEPS = 5, LEAST_STEPS = 10, NAME = 96, MOST_SEEDS = 64 };

/* One tuner of the list: "SPEC" or "SPEC@LR". */
struct entrant {
    char *spec;
    double lr;
    char folder[NAME];  // within OUT
};

/* What can be measured: of labels in struct cb_task_result, of text in struct cb_eval_result. */
static const struct metric {
    const char *name;
    bool is_of_text;
    size_t at;
} metrics[] = {{"accuracy", false, offsetof(struct cb_task_result, accuracy)},
               {"f1", false, offsetof(struct cb_task_result, f1)},
               {"exact_match", false, offsetof(struct cb_task_result, exact_match)},
               {"mcc", false, offsetof(struct cb_task_result, mcc)},
               {"pearson", false, offsetof(struct cb_task_result, pearson)},
               {"spearman", false, offsetof(struct cb_task_result, spearman)},
               {"loss", false, offsetof(struct cb_task_result, loss)},
               {"loss", true, offsetof(struct cb_eval_result, loss)},
               {"perplexity", true, offsetof(struct cb_eval_result, perplexity)},
               {"bits_per_byte", true, offsetof(struct cb_eval_result, bits_per_byte)}};

struct comparison {
    struct cb_engine *engine;
    const struct cb_compare_options *o;
    const struct task *task;  // NULL: text
    const struct metric *metric;
    uint64_t seed;  // of the engine, before
};

static enum cb_status metric_find(struct comparison *c, struct cb_err *err) {
    const char *name = c->o->metric ? c->o->metric : c->task ? c->task->measure->metric : "loss";
    char names[120] = "";
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        if (metrics[i].is_of_text != !c->task) continue;
        if (strcmp(metrics[i].name, name) == 0) c->metric = &metrics[i];
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? ", " : "", metrics[i].name);
    }
    if (!c->metric) FAIL(err, CB_E_USAGE, "--metric %s: wanted one of %s", name, names);
    return CB_OK;
}

static enum cb_status check(struct comparison *c, struct cb_err *err) {
    const struct cb_compare_options *o = c->o;
    const bool is_text = o->task && (strcmp(o->task, "text") == 0 || strcmp(o->task, "chat") == 0);
    c->task = task_find(o->task);
    if (!c->task && !is_text) return task_unknown(o->task, "text, chat, ", err);
    TRY(metric_find(c, err));
    if (!o->out) FAIL(err, CB_E_USAGE, "compare: --out DIR is missing");
    if (!o->n_tuners) FAIL(err, CB_E_USAGE, "compare: --tuner SPEC is missing; give it once for each (full, last:2, lora:r=8, ...)");
    if (!o->n_text || !o->n_valid) FAIL(err, CB_E_USAGE, "compare: --data and --valid are missing; wanted both");
    if (o->seeds < 0 || o->seeds > MOST_SEEDS) FAIL(err, CB_E_USAGE, "--seeds %lld: wanted 1 to %d", (long long)o->seeds, MOST_SEEDS);
    if ((o->steps > 0) + (o->seconds > 0) != 1) FAIL(err, CB_E_USAGE, "--steps, --seconds: wanted one of them");
    return CB_OK;
}

static enum cb_status entrant_parse(struct entrant *e, const char *text, int number, struct cb_err *err) {
    const char *at = strrchr(text, '@');
    char *end = NULL;
    *e = (struct entrant){.spec = at ? strndup(text, (size_t)(at - text)) : strdup(text)};
    if (!e->spec) FAIL(err, CB_E_MEMORY, "compare: out of memory");
    if (at) e->lr = strtod(at + 1, &end);
    if (at && (end == at + 1 || *end || !(e->lr > 0)))
        FAIL(err, CB_E_USAGE, "--tuner %s: wanted SPEC or SPEC@LR with a positive rate", text);
    int used = snprintf(e->folder, sizeof e->folder, "%02d-%.80s", number + 1, e->spec);
    for (int i = 0; i < used && e->folder[i]; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", e->folder[i])) e->folder[i] = '-';
    return CB_OK;
}

static struct cb_train_options options_of(const struct comparison *c, const struct entrant *e, const char *out) {
    const struct cb_compare_options *o = c->o;
    return (struct cb_train_options){.model = o->model,
                                     .out = out,
                                     .text = o->text,
                                     .n_text = o->n_text,
                                     .valid = o->valid,
                                     .n_valid = o->n_valid,
                                     .tuner = e->spec,
                                     .task = o->task,
                                     .new_head = o->new_head,
                                     .columns = o->columns,
                                     .n_columns = o->n_columns,
                                     .separator = o->separator,
                                     .quote = o->quote,
                                     .format = o->format,
                                     .batch = o->batch,
                                     .seq = o->seq,
                                     .stride = o->stride,
                                     .lr = e->lr > 0 ? e->lr : o->lr,
                                     .run_json = o->run_json};
}

/* Steps that fit the budget, by the time of a few. */
static enum cb_status steps_of(const struct comparison *c, const struct entrant *e, int64_t *steps, struct cb_err *err) {
    char name[NAME + 16];
    struct cb_train_result r;
    *steps = c->o->steps;
    if (*steps) return CB_OK;
    snprintf(name, sizeof name, "%s-trial", e->folder);
    char *out = io_path_join(c->o->out, name);
    if (!out) FAIL(err, CB_E_MEMORY, "compare: out of memory");
    struct cb_train_options o = options_of(c, e, out);
    o.n_valid = 0;
    o.steps = TRIAL_STEPS;
    o.resume = io_is_folder(out);
    enum cb_status status = cb_train(c->engine, &o, &r, err);
    free(out);
    TRY(status);
    // the first step is slower: it maps the weights
    double per_step = r.seconds / TRIAL_STEPS;
    *steps = per_step > 0 ? (int64_t)(c->o->seconds / per_step) : LEAST_STEPS;
    if (*steps < LEAST_STEPS) *steps = LEAST_STEPS;
    return CB_OK;
}

static int64_t file_bytes(const char *folder) {
    static const char *const names[] = {"model.safetensors", "adapter_model.safetensors", "adapter.safetensors", "model_head.safetensors"};
    int64_t bytes = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat info;
        char *path = io_path_join(folder, names[i]);
        if (path && stat(path, &info) == 0) bytes += info.st_size;
        free(path);
    }
    return bytes;
}

/* What a finished run left: so that a comparison that was stopped goes on. */
static bool run_read(const char *out, struct cb_compare_run *run) {
    char *path = io_path_join(out, "result.json"), *text = NULL;
    size_t n;
    json_t *object = NULL;
    struct cb_err quiet = {0};
    bool found = path && io_is_file(path) && io_read_file(&text, &n, path, 1 << 16, &quiet) == CB_OK &&
                 json_parse_object(&object, text, n, path, &quiet) == CB_OK;
    if (found) {
        run->valid = json_number_value(json_object_get(object, "valid"));
        run->test = json_object_get(object, "test") ? json_number_value(json_object_get(object, "test")) : NAN;
        run->seconds = json_number_value(json_object_get(object, "seconds"));
        run->step_ms = json_number_value(json_object_get(object, "step_ms"));
        run->steps = json_integer_value(json_object_get(object, "steps"));
        run->trainable = json_integer_value(json_object_get(object, "trainable"));
        run->total = json_integer_value(json_object_get(object, "total"));
        run->planned_bytes = json_integer_value(json_object_get(object, "planned_bytes"));
        run->file_bytes = json_integer_value(json_object_get(object, "file_bytes"));
    }
    json_decref(object);
    free(text);
    free(path);
    return found;
}

static json_t *run_json(const struct cb_compare_run *run) {
    json_t *o = json_object();
    if (!o) return NULL;
    json_object_set_new(o, "valid", json_real(run->valid));
    if (isfinite(run->test)) json_object_set_new(o, "test", json_real(run->test));
    json_object_set_new(o, "seconds", json_real(run->seconds));
    json_object_set_new(o, "step_ms", json_real(run->step_ms));
    json_object_set_new(o, "steps", json_integer(run->steps));
    json_object_set_new(o, "trainable", json_integer(run->trainable));
    json_object_set_new(o, "total", json_integer(run->total));
    json_object_set_new(o, "planned_bytes", json_integer(run->planned_bytes));
    json_object_set_new(o, "file_bytes", json_integer(run->file_bytes));
    return o;
}

static enum cb_status json_put(json_t *object, const char *folder, const char *name, struct cb_err *err) {
    char *text = NULL;
    enum cb_status status =
        object ? json_dump(&text, object, 2, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "compare: out of memory");
    if (status == CB_OK) status = files_write_text(folder, name, text, err);
    free(text);
    json_decref(object);
    return status;
}

static enum cb_status score(const struct comparison *c, const char *out, const char *const *text, int n, double *measure,
                            struct cb_err *err) {
    const struct cb_compare_options *o = c->o;
    char *adapter = io_path_join(out, "config.json");
    if (!adapter) FAIL(err, CB_E_MEMORY, "compare: out of memory");
    bool is_model = io_is_file(adapter);
    struct cb_task_result labels = {0};
    struct cb_eval_result likelihood = {0};
    struct cb_eval_options eo = {.model = is_model ? out : o->model,
                                 .modules = is_model ? NULL : out,
                                 .text = text,
                                 .n_text = n,
                                 .task = o->task,
                                 .batch = o->batch,
                                 .seq = o->seq,
                                 .stride = o->stride,
                                 .columns = o->columns,
                                 .n_columns = o->n_columns,
                                 .separator = o->separator,
                                 .quote = o->quote,
                                 .format = o->format};
    free(adapter);
    TRY(c->task ? cb_eval_task(c->engine, &eo, &labels, err) : cb_eval_text(c->engine, &eo, &likelihood, err));
    *measure = *(const double *)((const char *)(c->task ? (const void *)&labels : &likelihood) + c->metric->at);
    return CB_OK;
}

static enum cb_status run_one(const struct comparison *c, const struct entrant *e, int64_t steps, int seed, struct cb_compare_run *run,
                              struct cb_err *err) {
    char name[NAME + 24];
    snprintf(name, sizeof name, "%s-seed%d", e->folder, seed + 1);
    char *out = io_path_join(c->o->out, name);
    if (!out) FAIL(err, CB_E_MEMORY, "compare: out of memory");
    *run = (struct cb_compare_run){.test = NAN};
    if (run_read(out, run)) {
        free(out);
        return CB_OK;
    }
    struct cb_train_options o = options_of(c, e, out);
    struct cb_train_result r;
    o.steps = steps;
    o.resume = io_is_folder(out);
    c->engine->options.seed = c->seed + (uint64_t)seed;
    enum cb_status status = cb_train(c->engine, &o, &r, err);
    if (status == CB_OK) status = score(c, out, c->o->valid, c->o->n_valid, &run->valid, err);
    if (status == CB_OK && c->o->n_test) status = score(c, out, c->o->test, c->o->n_test, &run->test, err);
    c->engine->options.seed = c->seed;
    if (status == CB_OK) {
        run->seconds = r.seconds;
        run->steps = r.steps;
        run->step_ms = r.steps ? 1000 * r.seconds / (double)r.steps : 0;
        run->trainable = r.trainable;
        run->total = r.total;
        run->planned_bytes = r.planned_bytes;
        run->file_bytes = file_bytes(out);
        status = json_put(run_json(run), out, "result.json", err);
    }
    free(out);
    return status;
}

/* Mean over the seeds, and its standard error. */
static void row_finish(struct cb_compare_row *row, const struct cb_compare_run *runs, int n) {
    double valid = 0, test = 0, squares = 0;
    row->mean = runs[0];
    row->seeds = n;
    row->mean.seconds = row->mean.step_ms = 0;
    for (int i = 0; i < n; i++) {
        valid += runs[i].valid / n;
        test += runs[i].test / n;
        row->mean.seconds += runs[i].seconds / n;
        row->mean.step_ms += runs[i].step_ms / n;
    }
    for (int i = 0; i < n; i++) {
        double gap = isfinite(test) ? runs[i].test - test : runs[i].valid - valid;
        squares += gap * gap;
    }
    row->mean.valid = valid;
    row->mean.test = test;
    row->error = n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
}

/* ---- what is written */
/* Four digits; "-" for what there is not. */
static const char *cell(char text[32], double value) {
    snprintf(text, 32, isfinite(value) ? "%.4f" : "-", value);
    return text;
}

static enum cb_status write_table(const struct comparison *c, const struct cb_compare_row *rows, int n, struct cb_err *err) {
    char *text = malloc((size_t)(n + 2) * 400), *p = text;
    if (!text) FAIL(err, CB_E_MEMORY, "compare: out of memory");
    p += sprintf(p,
                 "| tuner | valid | test | +- | trained | step ms | memory MiB | file kB | steps | seconds "
                 "|\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (int i = 0; i < n; i++) {
        const struct cb_compare_run *m = &rows[i].mean;
        char valid[32], test[32], error[32];
        p += sprintf(p, "| %.120s | %s | %s | %s | %.3f%% | %.1f | %.0f | %.0f | %lld | %.1f |\n", rows[i].tuner, cell(valid, m->valid),
                     cell(test, m->test), cell(error, rows[i].error), 100.0 * (double)m->trainable / (double)m->total, m->step_ms,
                     (double)m->planned_bytes / 1048576, (double)m->file_bytes / 1000, (long long)m->steps, m->seconds);
    }
    enum cb_status status = files_write_text(c->o->out, "compare.md", text, err);
    free(text);
    return status;
}

static enum cb_status write_json(const struct comparison *c, const struct cb_compare_row *rows, int n, struct cb_err *err) {
    json_t *all = json_object(), *list = json_array();
    for (int i = 0; i < n; i++) {
        json_t *row = run_json(&rows[i].mean);
        json_object_set_new(row, "tuner", json_string(rows[i].tuner));
        json_object_set_new(row, "seeds", json_integer(rows[i].seeds));
        if (isfinite(rows[i].error)) json_object_set_new(row, "error", json_real(rows[i].error));
        json_array_append_new(list, row);
    }
    json_object_set_new(all, "rows", list);
    return json_put(all, c->o->out, "compare.json", err);
}

/* The measure over the share that is trained, as log10 of percent: a dot a tuner. */
static enum cb_status write_plot(const struct comparison *c, const struct cb_compare_row *rows, int n, struct cb_err *err) {
    struct curve *curves = calloc((size_t)n, sizeof *curves);
    struct chart_line *lines = calloc((size_t)n, sizeof *lines);
    char *path = io_path_join(c->o->out, "compare.svg");
    struct page page = {.err = err};
    enum cb_status status = curves && lines && path ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "compare: out of memory");
    if (status == CB_OK) status = io_writer_open(&page.writer, path, err);
    static const char *const styles[] = {"a", "b"};
    for (int i = 0; status == CB_OK && i < n; i++) {
        const struct cb_compare_run *m = &rows[i].mean;
        curve_add(&curves[i], log10(100.0 * (double)m->trainable / (double)m->total), isfinite(m->test) ? m->test : m->valid);
        lines[i] = (struct chart_line){.curve = &curves[i], .label = rows[i].tuner, .style = styles[i % 2], .dots = true};
    }
    if (status == CB_OK) {
        svg_alone(&page, c->metric->name, "log10 of the percent that is trained", lines, n);
        status = page.status == CB_OK ? io_writer_commit(&page.writer, err) : page.status;
    }
    io_writer_abort(&page.writer);
    free(path);
    free(lines);
    free(curves);
    return status;
}

static enum cb_status compare(struct comparison *c, struct cb_compare_result *result, struct cb_err *err) {
    const struct cb_compare_options *o = c->o;
    const int seeds = (int)(o->seeds ? o->seeds : 1);
    struct cb_compare_run runs[MOST_SEEDS];
    TRY(check(c, err));
    TRY(engine_check_runs(c->engine, err));
    TRY(io_mkdirs(o->out, err));
    if (!(result->rows = calloc((size_t)o->n_tuners, sizeof *result->rows))) FAIL(err, CB_E_MEMORY, "compare: out of memory");
    for (int i = 0; i < o->n_tuners; i++) {
        struct entrant e;
        int64_t steps = 0;
        enum cb_status status = entrant_parse(&e, o->tuners[i], i, err);
        if (status == CB_OK) status = steps_of(c, &e, &steps, err);
        for (int k = 0; status == CB_OK && k < seeds; k++) status = run_one(c, &e, steps, k, &runs[k], err);
        free(e.spec);
        if (status != CB_OK) {
            err_prefix(err, "--tuner %s", o->tuners[i]);
            return status;
        }
        result->rows[i].tuner = o->tuners[i];
        row_finish(&result->rows[i], runs, seeds);
        result->n_rows = i + 1;
        // what is there so far is not lost when a later one fails
        TRY(write_json(c, result->rows, result->n_rows, err));
        TRY(write_table(c, result->rows, result->n_rows, err));
    }
    TRY(write_plot(c, result->rows, result->n_rows, err));
    return files_write_text(o->out, "run.json", o->run_json, err);
}

enum cb_status cb_compare(struct cb_engine *engine, const struct cb_compare_options *options, struct cb_compare_result *result,
                          struct cb_err *err) {
    struct comparison c = {.engine = engine, .o = options, .seed = engine->options.seed};
    *result = (struct cb_compare_result){0};
    enum cb_status status = compare(&c, result, err);
    engine->options.seed = c.seed;
    if (status != CB_OK) {
        cb_free(result->rows);
        *result = (struct cb_compare_result){0};
    }
    return status;
}
