/* Labelled tasks: the table of them, their labels on disk, heads on any base, evaluation. */
#include "api/task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/files.h"
#include "api/sets.h"
#include "base/name.h"
#include "io/file.h"
#include "modules/expression.h"

#define LABELS_LIMIT ((size_t)16 << 20)

static const struct task tasks[] = {
    {.name = "classify",
     .doc = "a class a text, or a pair of texts: records of text (and text_b) with label",
     .class = "ForSequenceClassification",
     .kind = LABELLED_CLASS,
     .problem = MODEL_SINGLE_LABEL,
     .measure = &measure_classes,
     .peft_type = "SEQ_CLS"},
    {.name = "regress",
     .doc = "a number a text, or a pair of texts: records of text (and text_b) with label",
     .class = "ForSequenceClassification",
     .kind = LABELLED_NUMBER,
     .n_labels = 1,
     .problem = MODEL_REGRESSION,
     .measure = &measure_numbers,
     .peft_type = "SEQ_CLS"},
    {.name = "tag",
     .doc = "a tag a word: records of tokens with tags, CoNLL files",
     .class = "ForTokenClassification",
     .kind = LABELLED_TAGS,
     .measure = &measure_tags,
     .peft_type = "TOKEN_CLS"},
    {.name = "qa",
     .doc = "the span of a context that answers a question: records of context, question and answers, SQuAD's files",
     .class = "ForQuestionAnswering",
     .kind = LABELLED_SPAN,
     .n_labels = 2,
     .measure = &measure_spans,
     .peft_type = "QUESTION_ANS"},
    {.name = "choice",
     .doc = "one of several choices: records of text, question or sent1 with choices and the label's number",
     .class = "ForMultipleChoice",
     .kind = LABELLED_CHOICE,
     .n_labels = 1,
     .measure = &measure_choices,
     .peft_type = "SEQ_CLS"},
};

const struct task *task_at(int i) { return i < (int)(sizeof tasks / sizeof *tasks) ? &tasks[i] : NULL; }

const struct task *task_find(const char *name) {
    for (int i = 0; name && task_at(i); i++)
        if (strcmp(task_at(i)->name, name) == 0) return task_at(i);
    return NULL;
}

enum cb_status task_unknown(const char *name, const char *others, struct cb_err *err) {
    char names[120] = "";
    for (int i = 0; task_at(i); i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", !i ? "" : task_at(i + 1) ? ", " : " or ", task_at(i)->name);
    FAIL(err, CB_E_USAGE, "--task %s: wanted %s%s", name ? name : "(none)", others, names);
}

bool cb_task_is_labelled(const char *task) { return task_find(task) != NULL; }

/* ---- labels on disk */
static enum cb_status add_list(struct labels *labels, const json_t *list, const char *where, struct cb_err *err) {
    size_t i;
    json_t *name;
    json_array_foreach((json_t *)list, i, name) {
        if (!json_is_string(name)) FAIL(err, CB_E_FORMAT, "%s: labels: wanted a list of names", where);
        TRY(labels_add(labels, json_string_value(name), err));
    }
    return CB_OK;
}

/* wanted: nullable, any. */
static enum cb_status read_file(struct labels *labels, const struct task **task, const struct task *wanted, const char *path,
                                struct cb_err *err) {
    char *text;
    size_t n;
    json_t *object = NULL;
    const json_t *list = NULL;
    const char *name = NULL;
    TRY(io_read_file(&text, &n, path, LABELS_LIMIT, err));
    enum cb_status status = json_parse_object(&object, text, n, path, err);
    if (status == CB_OK) status = json_get_str(&name, object, path, "task", true, err);
    if (status == CB_OK) status = json_get_array(&list, object, path, "labels", true, err);
    if (status == CB_OK && !(*task = task_find(name)))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__, "%s: task: found %.60s; wanted classify, regress, tag, qa, ...", path, name);
    if (status == CB_OK && wanted && *task != wanted)
        status = err_set(err, CB_E_ARGUMENT, __FILE__, __LINE__, "%s: task: found %.60s; wanted %s", path, name, wanted->name);
    if (status == CB_OK) status = json_get_int(&labels->pad, object, path, "pad_token_id", 0, INT32_MAX, false, err);
    if (status == CB_OK) status = add_list(labels, list, path, err);
    json_decref(object);
    free(text);
    return status;
}

static enum cb_status of_folder(const struct task **task, struct labels *labels, const char *folder, struct cb_err *err) {
    if (!io_is_folder(folder)) return CB_OK;
    char *path = io_path_join(folder, "labels.json");
    if (!path) FAIL(err, CB_E_MEMORY, "%s: out of memory", folder);
    enum cb_status status = io_is_file(path) ? read_file(labels, task, NULL, path, err) : CB_OK;
    free(path);
    return status;
}

/* The folder whose head the composition has: a block's own, else the last module's. */
static enum cb_status of_tree(const struct task **task, struct labels *labels, const struct expression *e, struct cb_err *err) {
    if (e->folder) TRY(of_folder(task, labels, e->folder, err));
    if (!*task && e->path) TRY(of_folder(task, labels, e->path, err));
    if (e->block && e->block->brings_head && !e->is_library) return CB_OK;
    for (int i = e->n - 1; i >= 0 && !*task; i--) TRY(of_tree(task, labels, e->child[i], err));
    return CB_OK;
}

enum cb_status task_of_modules(const struct task **task, struct labels *labels, const char *modules, struct cb_err *err) {
    *task = NULL;
    if (io_is_folder(modules)) TRY(of_folder(task, labels, modules, err));
    if (*task) return CB_OK;
    struct expression *root;
    struct arena *arena = arena_create();
    if (!arena) FAIL(err, CB_E_MEMORY, "modules: out of memory");
    enum cb_status status = expression_parse(&root, arena, modules, "--modules", err);
    if (status == CB_OK) status = of_tree(task, labels, root, err);
    arena_destroy(&arena);
    return status;
}

/* Of a model whose class has the task's head. */
static enum cb_status read_model(struct labels *labels, const struct task *task, const char *folder, struct cb_err *err) {
    struct model *m;
    TRY(model_describe(&m, folder, err));
    const json_t *names = name_ends(m->class->name, task->class) ? json_object_get(m->config, "id2label") : NULL;
    enum cb_status status = CB_OK;
    for (int i = 0; status == CB_OK && names && i < m->n_labels; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        const char *name = json_string_value(json_object_get(names, key));
        status = labels_add(labels, name ? name : key, err);
    }
    model_destroy(&m);
    return status;
}

enum cb_status task_read_labels(struct labels *labels, const struct task *task, const char *folder, struct cb_err *err) {
    char *path = io_path_join(folder, "labels.json"), *config = io_path_join(folder, "config.json");
    enum cb_status status = path && config ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", folder);
    const struct task *found;
    if (status == CB_OK && io_is_file(path))
        status = read_file(labels, &found, task, path, err);
    else if (status == CB_OK && io_is_file(config))
        status = read_model(labels, task, folder, err);
    free(path);
    free(config);
    return status;
}

/* A module of the adapters library with a copy of the model's own head: the library takes the number of labels, and their names, from beside that copy. */
static enum cb_status write_head_labels(const struct labels *labels, const struct task *task, const char *folder, struct cb_err *err) {
    char *path = io_path_join(folder, "head_config.json"), *text = NULL;
    size_t n;
    json_t *file = NULL, *numbers = json_object();
    enum cb_status status = path && numbers ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", folder);
    const bool is_there = status == CB_OK && io_is_file(path);
    if (is_there) status = io_read_file(&text, &n, path, LABELS_LIMIT, err);
    if (is_there && status == CB_OK) status = json_parse_object(&file, text, n, path, err);
    free(text);
    text = NULL;
    if (status == CB_OK && file && json_is_null(json_object_get(file, "config"))) {
        bool ok = json_object_set_new(file, "num_labels", json_integer(labels->n ? labels->n : task->n_labels)) == 0;
        for (int i = 0; ok && i < labels->n; i++) ok = json_object_set_new(numbers, labels->name[i], json_integer(i)) == 0;
        ok = ok && (!labels->n || json_object_set(file, "label2id", numbers) == 0);
        status = ok ? json_dump(&text, file, 2, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", folder);
        if (status == CB_OK) status = files_write_text(folder, "head_config.json", text, err);
    }
    free(text);
    json_decref(numbers);
    json_decref(file);
    free(path);
    return status;
}

enum cb_status task_write_labels(const struct labels *labels, const struct task *task, const char *folder, struct cb_err *err) {
    json_t *list = json_array(), *object = json_object();
    char *text = NULL;
    bool ok = list && object;
    for (int i = 0; ok && i < labels->n; i++) ok = json_array_append_new(list, json_string(labels->name[i])) == 0;
    ok = ok && json_object_set_new(object, "task", json_string(task->name)) == 0 && json_object_set(object, "labels", list) == 0 &&
         json_object_set_new(object, "pad_token_id", json_integer(labels->pad)) == 0;
    enum cb_status status =
        ok ? json_dump(&text, object, 2, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "%s: out of memory", folder);
    if (status == CB_OK) status = files_write_text(folder, "labels.json", text, err);
    if (status == CB_OK) status = write_head_labels(labels, task, folder, err);
    free(text);
    json_decref(list);
    json_decref(object);
    return status;
}

/* ---- models and batches */
void task_say(struct cb_engine *engine, const struct labelled *data, int64_t seq) {
    const struct labelled_info *info = labelled_info(data);
    const char *what = info->questions ? "questions, without their contexts," : "examples";
    if (info->cut) engine_warn(engine, "%lld %s are longer than %lld tokens allow and are cut", (long long)info->cut, what, (long long)seq);
    if (info->lost)
        engine_warn(engine, "%lld answers are whole in no window of %lld tokens (longer --seq, shorter --stride), or have no token",
                    (long long)info->lost, (long long)seq);
}

int32_t task_pad(const struct tokenizer *tokenizer) {
    static const char *const usual[] = {"[PAD]", "<pad>", "<|pad|>", "<|endoftext|>"};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (tokenizer_id(tokenizer, usual[i]) >= 0) return tokenizer_id(tokenizer, usual[i]);
    return tokenizer_eos(tokenizer) >= 0 ? tokenizer_eos(tokenizer) : 0;
}

struct model_as task_model(const struct task *task, const struct labels *labels, int64_t pad, uint64_t seed) {
    struct model_as as = {.class = task->class, .n_labels = task->n_labels, .problem = task->problem, .pad = pad, .seed = seed};
    if (!task->n_labels) as.n_labels = labels->n, as.labels = (const char *const *)labels->name;
    return as;
}

int64_t task_seq(int64_t asked, int64_t longest, int64_t context) {
    int64_t seq = asked ? asked : (longest + 7) / 8 * 8;
    return seq < context ? seq : context;
}

struct model_io task_io(const struct model *model, const struct labelled_info *examples, int64_t batch, int64_t seq) {
    const bool has_choices = model->class->head == &model_head_choice;
    return (struct model_io){.batch = batch * examples->rows,
                             .tokens = seq,
                             .want_loss = true,
                             .attention_mask = true,
                             .choices = has_choices ? examples->rows : 0,
                             .choice_mask = has_choices,
                             .token_types = examples->has_pairs && model->n_types > 1};
}

struct labelled_batch task_batch(struct pass *pass, const struct task *task, int64_t batch, int64_t seq, int32_t pad) {
    struct labelled_batch b = {.batch = batch, .seq = seq, .pad = pad};
    b.ids = pass_data(pass, "input_ids");
    b.mask = pass_data(pass, "attention_mask");
    b.types = pass_data(pass, "token_type_ids");
    b.start = pass_data(pass, "start_positions");
    b.end = pass_data(pass, "end_positions");
    b.choices = pass_data(pass, "choice_mask");
    if (task->kind == LABELLED_NUMBER)
        b.values = pass_data(pass, "labels");
    else
        b.labels = pass_data(pass, "labels");
    return b;
}

enum cb_status task_batch_fields(struct labelled_batch *b, struct pass *pass, const struct instance *in, const struct labelled *data,
                                 struct cb_err *err) {
    for (int i = 0; i < plan_n_slots(pass->plan); i++) {
        const struct plan_slot *slot = plan_slot(pass->plan, i);
        const struct module_field *field = NULL;
        for (int k = 0; k < in->list.n && slot->is_input && !field; k++)
            field = module_field_of(in->modules[k], slot->name, pass->graph->arena);
        if (!field) continue;
        if (b->n_fields == LABELLED_FIELDS) FAIL(err, CB_E_LIMIT, "modules: more than %d fields of rows", LABELLED_FIELDS);
        TRY(labelled_field(&b->number[b->n_fields], data, field->name, (const char *const *)field->value, field->n, err));
        b->field[b->n_fields++] = plan_data(pass->plan, i);
    }
    return CB_OK;
}

void task_batch_close(struct labelled_batch *b) {
    for (int i = 0; i < b->n_fields; i++) free(b->number[i]);
    b->n_fields = 0;
}

/* ---- evaluation */
enum cb_status task_eval_open(struct task_eval *e, struct cb_err *err) {
    struct nn nn;
    struct instance *in = e->instance;
    struct model_io io = task_io(in->model, labelled_info(e->data), e->batch, e->seq);
    io.want_logits = true;
    e->is_open = true;
    TRY(pass_begin(&e->pass, in, &nn, err));
    TRY(model_build(in->model, &nn, &io, err));
    e->early = nn.n_rows - nn.n_late;
    e->late = nn.n_late;
    e->late_at = nn.hook.rows_at;
    return pass_plan(&e->pass, in, false, engine_base_bytes(in->engine) + instance_weight_bytes(in), err);
}

void task_eval_close(struct task_eval *e) {
    if (e->is_open) pass_end(&e->pass);
    e->is_open = false;
}

static enum cb_status run(struct task_eval *e, const struct labelled_batch *batch, struct measure *m, struct cb_task_result *r,
                          struct cb_err *err) {
    const float *loss = pass_data(&e->pass, "loss");
    const int64_t n = labelled_info(e->data)->n;
    struct measured b = {.data = e->data, .batch = batch, .early = e->early, .late = e->late, .late_at = e->late_at};
    b.logits = pass_data(&e->pass, "logits");
    b.start = pass_data(&e->pass, "start_logits");
    b.end = pass_data(&e->pass, "end_logits");
    for (b.first = 0; b.first < n; b.first += e->batch) {
        b.n = n - b.first < e->batch ? n - b.first : e->batch;
        labelled_fill_from(e->data, batch, b.first);
        if (e->sets) set_inputs_fill(e->sets);
        TRY(plan_run(e->pass.plan, e->instance->engine->pool, err));
        b.loss = *loss;
        TRY(e->task->measure->add(m, &b, err));
        struct cb_progress p = {
            .verb = "eval", .done = b.first + b.n, .total = n, .seconds_left = -1, .loss = m->loss / (double)m->learnt, .valid_loss = -1};
        if (!engine_progress(e->instance->engine, &p)) FAIL(err, CB_E_STOPPED, "evaluation: stopped");
    }
    r->n = n;
    r->loss = m->learnt ? m->loss / (double)m->learnt : NAN;
    return e->task->measure->finish(m, r, err);
}

/* Guesses: an object of all, or one a line. */
static enum cb_status submission_write(const json_t *guesses, const char *path, struct cb_err *err) {
    char *text = NULL;
    if (json_is_object(guesses)) {
        enum cb_status status = json_dump(&text, guesses, 2, err);
        if (status == CB_OK) status = io_write_file(path, text, strlen(text), err);
        free(text);
        return status;
    }
    struct io_writer *writer = NULL;
    enum cb_status status = io_writer_open(&writer, path, err);
    for (size_t i = 0; status == CB_OK && i < json_array_size(guesses); i++) {
        status = json_dump(&text, json_array_get(guesses, i), 0, err);
        if (status == CB_OK) status = io_writer_write(writer, text, strlen(text), err);
        if (status == CB_OK) status = io_writer_write(writer, "\n", 1, err);
        free(text);
        text = NULL;
    }
    if (status == CB_OK) status = io_writer_commit(&writer, err);
    io_writer_abort(&writer);
    return status;
}

enum cb_status task_eval_run(struct task_eval *e, struct cb_task_result *result, struct cb_err *err) {
    struct measure m = {.labels = labelled_labels(e->data), .answer_tokens = e->answer_tokens > 0 ? e->answer_tokens : 30};
    *result = (struct cb_task_result){.accuracy = NAN, .f1 = NAN, .exact_match = NAN, .mcc = NAN, .pearson = NAN, .spearman = NAN};
    m.n_labels = e->task->n_labels ? e->task->n_labels : m.labels->n;
    m.wants_guesses = e->submission != NULL;
    enum cb_status status = e->task->measure->open(&m, labelled_info(e->data), err);
    struct labelled_batch rows = task_batch(&e->pass, e->task, e->batch, e->seq, e->pad);
    if (e->sets) rows.sets = e->sets->set;
    if (status == CB_OK) status = task_batch_fields(&rows, &e->pass, e->instance, e->data, err);
    if (status == CB_OK) status = run(e, &rows, &m, result, err);
    if (status == CB_OK && e->submission) status = submission_write(m.guesses, e->submission, err);
    task_batch_close(&rows);
    measure_close(&m);
    return status;
}

/* ---- cb_eval_task */
struct call {
    const struct cb_eval_options *o;
    const struct task *task;
    struct tokenizer *tokenizer;
    struct labels known;
    struct labelled *data;
    struct instance instance;
    struct task_eval eval;
};

static enum cb_status evaluate(struct call *c, struct cb_engine *engine, struct cb_task_result *result, struct cb_err *err) {
    const struct cb_eval_options *o = c->o;
    const double begin = engine_now();
    const struct task *own = NULL;
    if (!(c->task = task_find(o->task))) return task_unknown(o->task, "", err);
    TRY(engine_check_runs(engine, err));
    TRY(records_check_columns(o->columns, o->n_columns, err));
    TRY(files_load_tokenizer(&c->tokenizer, o->model, err));
    // a module's own labels, else the model's
    if (o->modules) TRY(task_of_modules(&own, &c->known, o->modules, err));
    if (own && own != c->task)
        FAIL(err, CB_E_ARGUMENT, "--modules %.200s: labels.json: task: found %s; wanted %s", o->modules, own->name, c->task->name);
    if (!own) TRY(task_read_labels(&c->known, c->task, o->model, err));
    struct model *plain;
    TRY(model_describe(&plain, o->model, err));
    const int64_t context = plain->max_positions > 0 ? plain->max_positions : 1024;
    model_destroy(&plain);
    struct labelled_options lo = {
        .kind = c->task->kind, .known = c->known.n ? &c->known : NULL, .seq = o->seq ? o->seq : context, .stride = o->stride};
    if (lo.seq > context) lo.seq = context;
    lo.records = RECORDS_OPTIONS(o);
    TRY(data_invalid_by_name(&lo.records.invalid, o->invalid, err));
    TRY(labelled_load(&c->data, o->text, o->n_text, c->tokenizer, &lo, err));
    task_say(engine, c->data, lo.seq);
    struct model_as as = task_model(c->task, labelled_labels(c->data), task_pad(c->tokenizer), engine->options.seed);
    if (own) as.head = MODEL_HEAD_FITTING;
    TRY(instance_open_as(&c->instance, engine, o->model, o->modules, &as, err));
    c->instance.gives_fields = true;
    const int64_t seq = task_seq(o->seq, labelled_info(c->data)->longest, context);
    c->eval = (struct task_eval){.task = c->task,
                                 .instance = &c->instance,
                                 .data = c->data,
                                 .batch = o->batch ? o->batch : 16,
                                 .seq = seq,
                                 .answer_tokens = o->answer_tokens,
                                 .submission = o->submission,
                                 .pad = c->instance.model->pad >= 0 ? (int32_t)c->instance.model->pad : task_pad(c->tokenizer)};
    TRY(task_eval_open(&c->eval, err));
    TRY(task_eval_run(&c->eval, result, err));
    result->seconds = engine_now() - begin;
    return CB_OK;
}

enum cb_status cb_eval_task(struct cb_engine *engine, const struct cb_eval_options *options, struct cb_task_result *result,
                            struct cb_err *err) {
    struct call c = {.o = options};
    enum cb_status status = evaluate(&c, engine, result, err);
    task_eval_close(&c.eval);
    instance_close(&c.instance);
    labelled_destroy(&c.data);
    labels_deinit(&c.known);
    tokenizer_destroy(&c.tokenizer);
    return status;
}
