/* Writing a merged model: each tensor is merged when the file's writer asks for it, in the memory of a few pieces. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "merge/models.h"

/* Elements of each tensor that the identity test merges. */
enum { PROBE = 1 << 16 };

struct merge_reader {
    const struct merge_plan *plan;
    const struct merge_run *run;
    struct merge_report *report;
    const struct merge_output *current;  // whose job is open
    struct merge_job job;
    struct merge_input model[MERGE_MAX_MODELS + 1], base, statistic[MERGE_MAX_MODELS];
    int number[MERGE_MAX_MODELS + 1];  // in the plan, of each model of the job
    double shared[MERGE_MAX_OPTIONS], own[MERGE_MAX_MODELS + 1][MERGE_MAX_OPTIONS];
    struct absent {
        struct merge_absent absent;
        const struct merge_vocabulary *vocabulary;
        struct merge_input model[MERGE_MAX_MODELS + 2];  // the plan's, as they lie; without data where one has no such tensor
        int n_models;
        int64_t width;  // numbers a token
    } absent;  // of a tensor of rows of tokens
    float *whole[2 * MERGE_MAX_MODELS + 4];  // tensors that lie in an order of their own, as they should
    int n_whole;
    float *piece;
    int64_t done, total;
};

enum { PIECE = 1 << 16 };

static void set_order(const struct merge_reader *w, int number, const char *name, struct merge_input *in) {
    if (w->run->alignment) w->run->alignment->set(w->run->alignment->context, number, name, in);
}

/* Whether a tensor's rows are tokens; else, where it has tokens, its numbers are. */
static bool has_rows(const struct merge_plan *plan, const struct merge_output *o) {
    return o->type.rank == 2 && o->type.dim[0] == plan->vocabulary->n;
}

/* A tensor as the job reads it: where it lies, or, where it lies in another order, or in blocks whose columns change places, copied. */
static enum cb_status input_of(struct merge_reader *w, int number, const struct merge_tensor *t, const struct merge_output *o,
                               struct merge_input *in, struct cb_err *err) {
    const struct merge_model *m = &w->plan->models[number];
    const struct map *map = t->stored->map;
    *in = (struct merge_input){.model = m->path, .data = map_data(map) + t->offset, .dtype = t->type.dtype, .map = map};
    set_order(w, number, o->name, in);
    const bool by_column = in->cols || (o->rows_of && !has_rows(w->plan, o));
    if (!t->place && !(by_column && dtype_of(t->type.dtype)->is_quantised)) return CB_OK;
    const int64_t n = type_elements(&t->type);
    float *whole = malloc((size_t)n * sizeof *whole + 1);
    if (!whole) FAIL(err, CB_E_MEMORY, "%s: %s: no memory to merge it", m->path, t->name);
    w->whole[w->n_whole++] = whole;
    if (t->place)
        w->plan->format->read(m, t, whole);
    else
        dtype_of(in->dtype)->to_f32(whole, in->data, n);
    map_forget(map, in->data, 0, (size_t)type_bytes(&t->type));
    in->data = whole;
    in->dtype = CB_DTYPE_F32;
    in->map = NULL;
    return CB_OK;
}

/* Rows of tokens that a model has not: another's, or their mean. */
static void read_absent(const struct merge_absent *absent, int64_t row, int64_t first, int64_t n, float *out) {
    const struct absent *a = (const struct absent *)absent;
    const struct merge_vocabulary *v = a->vocabulary;
    const int32_t source = v->source[row];
    float part[256];
    int count = 0;
    memset(out, 0, (size_t)n * sizeof *out);
    for (int k = 0; k < a->n_models && source != MERGE_ZERO_ROW; k++) {
        if (!a->model[k].data || v->row[k][row] < 0 || (source >= 0 && source != k)) continue;
        count++;
        for (int64_t i = 0; i < n; i += 256) {
            const int64_t some = n - i < 256 ? n - i : 256;
            merge_input_read(&a->model[k], a->width, v->row[k][row] * a->width + first + i, some, part);
            for (int64_t j = 0; j < some; j++) out[i + j] += part[j];
        }
    }
    for (int64_t i = 0; count > 1 && i < n; i++) out[i] /= (float)count;
}

/* Every model's rows of tokens, for those that others have not. */
static enum cb_status open_absent(struct merge_reader *w, const struct merge_output *o, struct cb_err *err) {
    const struct merge_plan *plan = w->plan;
    w->absent = (struct absent){.absent = {read_absent}, .vocabulary = plan->vocabulary, .n_models = plan->n_models};
    w->absent.width = has_rows(plan, o) ? o->type.dim[1] : 1;
    for (int k = 0; k < plan->n_models; k++)
        if (o->rows_of[k]) TRY(input_of(w, k, o->rows_of[k], o, &w->absent.model[k], err));
    return CB_OK;
}

/* One model into the job: the base by itself, or first, as the method wants it. */
static enum cb_status add_input(struct merge_reader *w, const struct merge_output *o, int i, struct cb_err *err) {
    const struct merge_plan *plan = w->plan;
    const struct merge_source *s = i < o->slice->n_sources ? &o->slice->sources[i] : NULL;
    const struct merge_method *m = plan->method;
    const int base = merge_plan_base(plan, o->slice), number = s ? merge_plan_model(plan, s->model) : base;
    struct merge_input in;
    struct merge_job *job = &w->job;
    const bool is_base = number == base;
    // a base that is also listed comes once
    if (is_base && (job->base || (job->n_models && w->number[0] == number))) return CB_OK;
    TRY(input_of(w, number, o->tensor[i], o, &in, err));
    if (o->rows_of) {
        const int32_t *row = plan->vocabulary->row[number];
        if (has_rows(plan, o))
            in.rows = row;
        else
            in.cols = row;
        in.absent = &w->absent.absent;
        in.n = type_elements(&o->tensor[i]->type);
    }
    if (is_base && m->base != MERGE_BASE_FIRST) {
        w->base = in;
        job->base = &w->base;
        return CB_OK;
    }
    if (job->n_models == MERGE_MAX_MODELS) FAIL(err, CB_E_LIMIT, "%s: more than %d models", plan->recipe->name, MERGE_MAX_MODELS);
    int at = job->n_models++;
    if (is_base) {
        for (; at > 0; at--) {
            w->model[at] = w->model[at - 1];
            w->number[at] = w->number[at - 1];
            memcpy(w->own[at], w->own[at - 1], sizeof w->own[at]);
        }
    }
    w->model[at] = in;
    w->number[at] = number;
    for (int k = 0; k < MERGE_MAX_OPTIONS && m->options[k].name; k++)
        if (m->options[k].per_model)
            TRY(merge_recipe_value(plan->recipe, o->slice, s, &m->options[k], o->own[i], o->t, &w->own[at][k], err));
    return CB_OK;
}

static enum cb_status add_statistics(struct merge_reader *w, const struct merge_output *o, struct cb_err *err) {
    const struct merge_statistics *s = w->run->statistics;
    if (!w->plan->method->statistic) return CB_OK;
    if (!s) FAIL(err, CB_E_USAGE, "%s: no %s of the models; wanted it", w->plan->method->name, w->plan->method->statistic);
    for (int k = 0; k < w->job.n_models; k++) {
        const struct tensor *t;
        char text[2][TYPE_TEXT];
        TRY(s->find(s->context, w->number[k], o->name, &t, &w->job.in_out, err));
        w->statistic[k] = (struct merge_input){.model = w->model[k].model};
        if (!t) continue;
        struct cb_type want = o->type;
        want.dtype = t->type.dtype;
        // a Gram matrix is of the weight's inputs
        if (!w->plan->method->statistic_in_tiles && o->type.rank == 2) want.dim[0] = want.dim[1] = o->type.dim[w->job.in_out ? 0 : 1];
        if (!type_equal(&want, &t->type))
            FAIL(err, CB_E_SHAPE, "%s: %s: found %s; wanted %s", w->model[k].model, t->name, type_text(&t->type, text[0]),
                 type_text(&want, text[1]));
        w->statistic[k] = (struct merge_input){.model = w->model[k].model, .data = tensor_data(t), .dtype = t->type.dtype, .map = t->map};
        if (w->plan->method->statistic_in_tiles) set_order(w, w->number[k], o->name, &w->statistic[k]);
    }
    w->job.statistic = w->statistic;
    return CB_OK;
}

/* Every input is the first model: what comes out should be that model again. */
static enum cb_status test_identity(struct merge_reader *w, struct cb_err *err) {
    struct merge_input same[MERGE_MAX_MODELS];
    struct merge_job job = w->job;
    const int last = job.type.rank - 1;
    for (int k = 0; k < job.n_models; k++) same[k] = w->model[0];
    job.model = same;
    if (job.base) job.base = &same[0];
    job.masks = NULL;
    if (!job.method->statistic_in_tiles) job.statistic = NULL;  // of the whole tensor
    // whole rows, few of them
    int64_t cols = job.type.rank ? job.type.dim[last] : 1, rows = cols ? type_elements(&job.type) / cols : 0;
    if (rows * cols > PROBE) rows = cols < PROBE ? PROBE / cols : 1;
    if (rows == 1 && cols > PROBE) cols = PROBE;
    job.type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){rows, cols});
    if (same[0].rows || same[0].cols || w->job.type.rank < 2) {
        // a vector stays one; permuted inputs are read as they lie: the test is of the method. Rows of tokens are found by their numbers alone
        for (int k = 0; k < job.n_models && !same[0].absent; k++) same[k].rows = same[k].cols = NULL;
        if (w->job.type.rank < 2) job.type = type_make(CB_DTYPE_F32, 1, &cols);
    }
    const int64_t n = rows * cols;
    float *got = malloc((size_t)n * 2 * sizeof *got + 1);
    enum cb_status status = got ? merge_begin(&job, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "merge: out of memory");
    if (status == CB_OK) status = merge_read(&job, 0, n, got, err);
    if (status == CB_OK) {
        merge_input_read(&same[0], cols, 0, n, got + n);
        for (int64_t i = 0; i < n; i++) w->report->identity = fmax(w->report->identity, fabs((double)got[i] - (double)got[n + i]));
    }
    merge_end(&job);
    free(got);
    return status;
}

static void close_job(struct merge_reader *w) {
    w->report->conflicts += w->job.conflicts;
    w->report->shared_elements += w->job.shared_elements;
    merge_end(&w->job);
    while (w->n_whole) free(w->whole[--w->n_whole]);
    w->current = NULL;
}

static enum cb_status open_job(struct merge_reader *w, const struct merge_output *o, struct cb_err *err) {
    const struct merge_plan *plan = w->plan;
    const struct merge_method *m = plan->method;
    const bool has_extra = merge_plan_base(plan, o->slice) >= 0 && !plan->recipe->is_sliced;
    if (w->current) close_job(w);
    w->job = (struct merge_job){.method = m,
                                .name = o->name,
                                .type = o->type,
                                .model = w->model,
                                .shared = w->shared,
                                .own = (const double(*)[MERGE_MAX_OPTIONS])w->own,
                                .seed = w->run->seed,
                                .masks = w->run->masks,
                                .pool = w->run->pool};
    for (int k = 0; k < MERGE_MAX_OPTIONS && m->options[k].name; k++)
        if (!m->options[k].per_model)
            TRY(merge_recipe_value(plan->recipe, o->slice, NULL, &m->options[k], o->name, o->t, &w->shared[k], err));
    if (o->rows_of) TRY(open_absent(w, o, err));
    for (int i = 0; i < o->slice->n_sources + has_extra; i++) TRY(add_input(w, o, i, err));
    TRY(add_statistics(w, o, err));
    if (w->job.base || m->base == MERGE_BASE_WANTED) w->report->has_conflicts = true;
    if (type_elements(&o->type) && w->job.n_models >= m->min_models && w->job.n_models <= m->max_models) TRY(test_identity(w, err));
    w->current = o;
    return merge_begin(&w->job, err);
}

/* Whole numbers (indices, masks) are not merged: all models must have the same ones. */
static enum cb_status copy_whole(const struct merge_reader *w, const struct merge_output *o, char *out, int64_t first, int64_t n,
                                 struct cb_err *err) {
    const int64_t size = dtype_of(o->type.dtype)->block_bytes;
    const struct tensor *from = o->tensor[0]->stored;
    for (int i = 1; i < o->slice->n_sources; i++) {
        const struct tensor *other = o->tensor[i]->stored;
        if (other->bytes != from->bytes || memcmp(tensor_data(other), tensor_data(from), (size_t)from->bytes))
            FAIL(err, CB_E_DTYPE, "%s: %s: whole numbers that differ between models; wanted the same ones", w->plan->recipe->name, o->name);
    }
    memcpy(out, (const char *)tensor_data(from) + first * size, (size_t)(n * size));
    return CB_OK;
}

enum cb_status merge_reader_read(struct merge_reader *w, const struct merge_output *o, int64_t first, int64_t n, float *out,
                                 struct cb_err *err) {
    if (!dtype_of(o->type.dtype)->is_float) FAIL(err, CB_E_DTYPE, "%s: whole numbers; wanted floating point", o->name);
    if (w->current != o) TRY(open_job(w, o, err));
    return merge_read(&w->job, first, n, out, err);
}

/* What the number type of the result does to a piece of values. */
static void measure(struct merge_report *r, const struct dtype *d, const void *stored, const float *values, int64_t n) {
    float back[256];
    for (int64_t i = 0; i < n; i += 256) {
        const int64_t few = n - i < 256 ? n - i : 256;
        d->to_f32(back, (const char *)stored + i * d->block_bytes, few);
        for (int64_t j = 0; j < few; j++) {
            const double value = (double)values[i + j], error = fabs((double)back[j] - value);
            r->max_error = fmax(r->max_error, error);
            r->error_squares += error * error;
            r->value_squares += value * value;
        }
    }
}

static enum cb_status fill(void *context, void *out, const struct tensor_item *item, int64_t first, int64_t n, struct cb_err *err) {
    struct merge_reader *w = context;
    const struct merge_output *o = item->source;
    const struct dtype *d = dtype_of(o->type.dtype);
    if (!d->is_float) return copy_whole(w, o, out, first, n, err);
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t some = n - at < PIECE ? n - at : PIECE;
        char *to = (char *)out + at * d->block_bytes;
        TRY(merge_reader_read(w, o, first + at, some, w->piece, err));
        d->from_f32(to, w->piece, some);
        if (o->type.dtype != CB_DTYPE_F32) measure(w->report, d, to, w->piece, some);
    }
    w->done += n * d->block_bytes;
    if (w->run->progress && !w->run->progress(w->run->user, w->done, w->total)) FAIL(err, CB_E_STOPPED, "merge: stopped on request");
    return CB_OK;
}

/* Every option of every tensor, before anything is written. */
static enum cb_status check_options(const struct merge_plan *plan, struct cb_err *err) {
    const struct merge_method *m = plan->method;
    double value;
    for (int i = 0; i < plan->n_outputs; i++) {
        const struct merge_output *o = &plan->outputs[i];
        for (int k = 0; k < MERGE_MAX_OPTIONS && m->options[k].name; k++)
            for (int s = 0; s < (m->options[k].per_model ? o->slice->n_sources : 1); s++) {
                const struct merge_source *source = m->options[k].per_model ? &o->slice->sources[s] : NULL;
                const bool is_base = source && merge_plan_model(plan, source->model) == merge_plan_base(plan, o->slice);
                const char *name = source ? o->own[s] : o->name;
                if (!is_base) TRY(merge_recipe_value(plan->recipe, o->slice, source, &m->options[k], name, o->t, &value, err));
            }
    }
    return CB_OK;
}

enum cb_status merge_reader_create(struct merge_reader **reader, const struct merge_plan *plan, const struct merge_run *run,
                                   struct merge_report *report, struct cb_err *err) {
    *reader = NULL;
    TRY(check_options(plan, err));
    *report = (struct merge_report){0};
    struct merge_reader *w = calloc(1, sizeof *w);
    if (w) *w = (struct merge_reader){.plan = plan, .run = run, .report = report, .piece = malloc(PIECE * sizeof(float))};
    *reader = w;
    if (w && w->piece) return CB_OK;
    merge_reader_destroy(reader);
    FAIL(err, CB_E_MEMORY, "merge: out of memory");
}

void merge_reader_destroy(struct merge_reader **reader) {
    struct merge_reader *w = *reader;
    if (!w) return;
    close_job(w);
    free(w->piece);
    free(w);
    *reader = NULL;
}

enum cb_status merge_write(const struct merge_plan *plan, const struct merge_run *run, const char *folder, struct merge_report *report,
                           struct cb_err *err) {
    struct merge_reader *w;
    TRY(merge_reader_create(&w, plan, run, report, err));
    struct tensor_item *items = calloc((size_t)plan->n_outputs + 1, sizeof *items);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    enum cb_status status = items && metadata ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "merge: out of memory");
    for (int i = 0; i < plan->n_outputs && status == CB_OK; i++) {
        const struct merge_output *o = &plan->outputs[i];
        items[i] = (struct tensor_item){.name = o->name, .type = o->type, .source = (void *)o};
        report->tensors++;
        report->parameters += type_elements(&o->type);
        report->bytes += type_bytes(&o->type);
    }
    w->total = report->bytes;
    if (status == CB_OK) status = tensors_write_sharded(folder, "model", items, plan->n_outputs, run->shard_bytes, metadata, fill, w, err);
    merge_reader_destroy(&w);
    json_decref(metadata);
    free(items);
    return status;
}
