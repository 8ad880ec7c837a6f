/* cb_forward: one pass on given tensors, outputs and gradients as a safetensors file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/instance.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "modules/expression.h"
#include "ops/ops.h"

/* One run of the verb. */
struct forward {
    const struct cb_forward_options *o;
    struct instance instance;
    struct pass pass;
    struct tensors *input;
    struct model_io io;
    int64_t copies;  // of each row of the input
    struct store_entry **wrt;  // gradients by these entries, under these keys of the file
    const char **keys;
    int n_wrt;
};

/* Rows of the decoder: its ids, or the labels that they are made of. */
static enum cb_status read_decoder(struct forward *f, struct cb_err *err) {
    if (!f->instance.model->family->encoder_decoder) return CB_OK;
    const struct tensor *ids = tensors_find(f->input, "decoder_input_ids"), *labels = tensors_find(f->input, "labels");
    const struct tensor *rows = ids ? ids : f->instance.model->class->head->shifts_labels ? labels : NULL;
    if (rows && rows->type.rank != 2)
        FAIL(err, CB_E_SHAPE, "%s: %s has rank %d; wanted (batch, sequence)", f->o->input, rows->name, rows->type.rank);
    if (!rows && f->instance.model->class->head->shifts_labels)
        FAIL(err, CB_E_ARGUMENT, "%s: neither decoder_input_ids nor labels; the decoder wants one of them", f->o->input);
    f->io.decoder_ids = ids != NULL;
    f->io.decoder_mask = tensors_find(f->input, "decoder_attention_mask") != NULL;
    f->io.decoder_tokens = rows ? rows->type.dim[1] : f->io.tokens;
    return CB_OK;
}

/* What the file gives, as the graph wants it: batch, length, which inputs there are. */
static enum cb_status read_shapes(struct forward *f, struct cb_err *err) {
    const struct tensor *ids, *labels = tensors_find(f->input, "labels");
    const struct model_head *head = f->instance.model->class->head;
    TRY(tensors_need(&ids, f->input, "input_ids", err));
    int rank = ids->type.rank;
    bool is_choice = head == &model_head_choice;
    if (rank != (is_choice ? 3 : 2))
        FAIL(err, CB_E_SHAPE, "%s: input_ids has rank %d; wanted (batch, %ssequence)", f->o->input, rank, is_choice ? "choices, " : "");
    f->io = (struct model_io){.batch = ids->type.dim[0],
                              .tokens = ids->type.dim[rank - 1],
                              .want_logits = true,
                              .want_loss = *head->labels != NULL,
                              .want_hidden = f->o->hidden,
                              .attention_mask = tensors_find(f->input, "attention_mask") != NULL,
                              .token_types = tensors_find(f->input, "token_type_ids") != NULL && f->instance.model->n_types > 0,
                              .position_ids = tensors_find(f->input, "position_ids") != NULL};
    if (is_choice) {
        f->io.choices = ids->type.dim[1];
        if (f->io.choices < 1 || f->io.batch > INT32_MAX / f->io.choices)
            FAIL(err, CB_E_SHAPE, "%s: input_ids: %lld questions of %lld choices", f->o->input, (long long)f->io.batch,
                 (long long)f->io.choices);
        f->io.batch *= f->io.choices;
    }
    f->io.float_labels = labels && dtype_of(labels->type.dtype)->is_float;
    if (f->o->grad && !f->io.want_loss) FAIL(err, CB_E_UNSUPPORTED, "%s: no loss; gradients want one", f->instance.model->class->name);
    // a loss where all that it wants is there
    f->io.want_loss = *head->labels != NULL;
    if (f->o->grad && !f->io.want_loss)
        FAIL(err, CB_E_ARGUMENT, "%s: a body without a head has no loss; gradients want one", f->instance.model->class->name);
    for (const char *const *name = head->labels; *name; name++) {
        if (tensors_find(f->input, *name)) continue;
        f->io.want_loss = false;
        if (f->o->grad) FAIL(err, CB_E_ARGUMENT, "%s: no %s; gradients want a loss", f->o->input, *name);
    }
    return read_decoder(f, err);
}

static enum cb_status list_wrt(struct forward *f, struct cb_err *err) {
    struct instance *in = &f->instance;
    int n = in->model->n_weights;
    for (int m = 0; m < in->list.n; m++) n += module_n_params(in->modules[m]);
    f->wrt = calloc((size_t)n + 1, sizeof *f->wrt);
    f->keys = calloc((size_t)n + 1, sizeof *f->keys);
    if (!f->wrt || !f->keys) FAIL(err, CB_E_MEMORY, "forward: out of memory");
    for (int i = 0; i < in->model->n_weights && !in->list.n; i++) {
        if (in->model->weights[i].is_buffer) continue;
        f->keys[f->n_wrt] = in->model->weights[i].name;
        if ((f->wrt[f->n_wrt] = store_find(in->store, f->keys[f->n_wrt]))) f->n_wrt++;
    }
    for (int m = 0; m < in->list.n; m++)
        for (int i = 0; i < module_n_params(in->modules[m]); i++) {
            const struct module_param *p = module_param(in->modules[m], i);
            if (!p->is_trained) continue;
            f->keys[f->n_wrt] = p->key;
            if ((f->wrt[f->n_wrt] = store_find(in->store, p->name))) f->n_wrt++;
        }
    return CB_OK;
}

static enum cb_status add_gradients(struct forward *f, struct cb_tensor *loss, struct cb_err *err) {
    struct cb_graph *g = f->pass.graph;
    TRY(list_wrt(f, err));
    struct cb_tensor **wrt = calloc((size_t)f->n_wrt + 1, sizeof *wrt), **grad = calloc((size_t)f->n_wrt + 1, sizeof *grad);
    int n = 0;
    if (!wrt || !grad) graph_fail(g, CB_E_MEMORY, "forward: out of memory");
    for (int i = 0; i < f->n_wrt && !g->err.code; i++)
        if ((wrt[n] = graph_find_leaf(g, f->wrt[i]->name))) f->keys[n++] = f->keys[i];
    if (!g->err.code) graph_grad(g, loss, NULL, n, wrt, NULL, grad);
    for (int i = 0; i < n && !g->err.code; i++) {
        char *name = arena_printf(g->arena, "grad.%s", f->keys[i]);
        if (name && grad[i]) graph_output(g, grad[i], name);
    }
    free(wrt);
    free(grad);
    if (g->err.code) FAIL(err, g->err.code, "%s", g->err.message);
    return CB_OK;
}

/* Copies a tensor of the file into an input of the plan. */
static enum cb_status fill_input(struct forward *f, const struct plan_slot *slot, void *to, struct cb_err *err) {
    const struct tensor *from;
    char have[TYPE_TEXT], want[TYPE_TEXT];
    TRY(tensors_need(&from, f->input, slot->name, err));
    int64_t n = type_elements(&slot->type);
    // an expression may want each row several times
    const int64_t given = type_elements(&from->type), copies = given && n > given && slot->type.dim[0] % f->io.batch == 0 ? f->copies : 1;
    bool fits = given * copies == n && dtype_of(from->type.dtype)->block == 1;
    for (int i = 0; fits && i < slot->type.rank && from->type.rank == slot->type.rank; i++)
        fits = from->type.dim[i] * (i ? 1 : copies) == slot->type.dim[i];
    if (!fits)
        FAIL(err, CB_E_SHAPE, "%s: %s is %s; wanted %s", f->o->input, slot->name, type_text(&from->type, have),
             type_text(&slot->type, want));
    struct model_range any = {slot->name, INT32_MIN, INT32_MAX, false}, *range = NULL;
    for (int r = 0; r < f->io.n_ranges; r++)
        if (strcmp(f->io.ranges[r].name, slot->name) == 0) range = &f->io.ranges[r];
    for (int i = 0; i < f->instance.list.n && !range && strcmp(slot->name, "task_ids") == 0; i++) {
        const int64_t n_tasks = module_tasks(f->instance.modules[i]);
        if (n_tasks && n_tasks < any.high) any.low = 0, any.high = n_tasks;
    }
    if (!range && slot->type.dtype == CB_DTYPE_I32) range = &any;
    for (int64_t i = 0; i < n; i++) {
        double v = ref_get(from->type.dtype, tensor_data(from), i % given);
        if (range && !(v >= (double)range->low && v < (double)range->high) && !(range->ignore && v == -100))
            FAIL(err, CB_E_ARGUMENT, "%s: %s[%lld] is %.15g; wanted %lld to %lld%s", f->o->input, slot->name, (long long)i, v,
                 (long long)range->low, (long long)range->high - 1, range->ignore ? ", or -100" : "");
        ref_set(slot->type.dtype, to, i, v);
    }
    return CB_OK;
}

/* The block whose rows' numbers an input holds; NULL: none. */
static const struct expression *router_of(struct forward *f, const struct expression *e, const char *input) {
    const bool is_told = e->field || (e->block && e->block->chooses && f->o->rows);
    const char *name = is_told ? expression_input(e, f->pass.graph->arena) : NULL;
    const struct expression *found = name && strcmp(name, input) == 0 ? e : NULL;
    for (int i = 0; i < e->n && !found; i++) found = router_of(f, e->child[i], input);
    return found;
}

/* An input that holds a number of each row: of its value of a field among those of a block, or of a module that has to know it; or of "task_ids". */
struct numbered {
    const char *field;  // NULL: task_ids
    const char *const *value;
    int n;
    const struct module_field *of;  // of a module; NULL: rows with another value have -1
};

static bool numbered_find(struct forward *f, struct numbered *out, const char *input) {
    const struct expression *root = f->instance.list.expression, *e = root ? router_of(f, root, input) : NULL;
    const struct module_field *of = NULL;
    for (int i = 0; i < f->instance.list.n && !of; i++) of = module_field_of(f->instance.modules[i], input, f->pass.graph->arena);
    if (of)
        *out = (struct numbered){of->name, of->value, of->n, of};
    else if (e)
        *out = (struct numbered){e->field, e->value, e->n, NULL};
    return of || e;
}

/* The number that a row's object gives. */
static enum cb_status row_number(int64_t *number, const struct numbered *by, const json_t *object, const char *where, struct cb_err *err) {
    const json_t *found = by->field ? json_object_get(object, by->field) : NULL;
    const char *value = json_string_value(found);
    char known[200], text[JSON_TEXT];
    *number = -1;
    if (!by->field) return json_get_int(number, object, where, "task_ids", 0, by->n - 1, true, err);
    for (int i = 0; value && i < by->n; i++)
        if (strcmp(by->value[i], value) == 0) *number = i;
    if (by->of && *number < 0)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted one of %s", where, by->field, json_text(found, text),
             module_field_values(by->of, known));
    return CB_OK;
}

/* The numbers of all rows, from the file of rows. */
static enum cb_status fill_route(struct forward *f, const struct numbered *by, const struct plan_slot *slot, int32_t *to,
                                 struct cb_err *err) {
    const int64_t n = slot->type.dim[0], given = n / f->copies;
    char *text = NULL, where[600];
    size_t bytes;
    int64_t row = 0;
    if (!f->o->rows) FAIL(err, CB_E_ARGUMENT, "--modules: route by %s: --rows FILE is wanted, or --field %s=VALUE", by->field, by->field);
    TRY(io_read_file(&text, &bytes, f->o->rows, (size_t)1 << 30, err));
    enum cb_status status = CB_OK;
    for (char *line = text, *stop; status == CB_OK && *line; line = *stop ? stop + 1 : stop, row++) {
        stop = line + strcspn(line, "\n");
        json_t *object = NULL;
        int64_t number = -1;
        snprintf(where, sizeof where, "%.500s: line %lld", f->o->rows, (long long)row + 1);
        status = json_parse_object(&object, line, (size_t)(stop - line), where, err);
        if (status == CB_OK) status = row_number(&number, by, object, where, err);
        for (int64_t i = row; row < given && i < n; i += given) to[i] = (int32_t)number;
        json_decref(object);
    }
    free(text);
    if (status == CB_OK && row != given)
        FAIL(err, CB_E_SHAPE, "%s: %lld rows; the input has %lld", f->o->rows, (long long)row, (long long)given);
    return status;
}

static enum cb_status fill_inputs(struct forward *f, struct cb_err *err) {
    struct plan *plan = f->pass.plan;
    for (int i = 0; i < plan_n_slots(plan); i++) {
        const struct plan_slot *slot = plan_slot(plan, i);
        void *to = slot->is_input ? plan_data(plan, i) : NULL;
        if (!to) continue;
        struct numbered by;
        if (strcmp(slot->name, "seed") == 0) {
            *(int64_t *)to = (int64_t)f->instance.engine->options.seed;
        } else if (numbered_find(f, &by, slot->name)) {
            TRY(fill_route(f, &by, slot, to, err));
        } else {
            TRY(fill_input(f, slot, to, err));
        }
    }
    return CB_OK;
}

/* Every output of the plan, and their shapes as JSON. */
static enum cb_status write_outputs(struct forward *f, struct cb_forward_result *result, struct cb_err *err) {
    struct plan *plan = f->pass.plan;
    int n = 0;
    struct tensor_item *items = calloc((size_t)plan_n_slots(plan) + 1, sizeof *items);
    json_t *shapes = json_object(), *root = json_object();
    enum cb_status status = items && shapes && root ? CB_OK : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "forward: out of memory");
    for (int i = 0; status == CB_OK && i < plan_n_slots(plan); i++) {
        const struct plan_slot *slot = plan_slot(plan, i);
        if (!slot->is_output || slot->is_param) continue;
        items[n++] = (struct tensor_item){.name = slot->name, .type = slot->type, .data = plan_data(plan, i)};
        json_t *shape = json_array();
        for (int k = 0; k < slot->type.rank; k++) json_array_append_new(shape, json_integer(slot->type.dim[k]));
        json_object_set_new(shapes, slot->name, shape);
    }
    if (status == CB_OK) status = tensors_write(f->o->output, items, n, NULL, NULL, NULL, err);
    const float *loss = pass_data(&f->pass, "loss");
    result->loss = loss ? *loss : NAN;
    if (loss && isfinite(*loss)) json_object_set_new(root, "loss", json_real(*loss));
    json_object_set(root, "shapes", shapes);
    if (status == CB_OK && !(result->shapes = json_dumps(root, 0)))
        status = err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "forward: out of memory");
    json_decref(shapes);
    json_decref(root);
    free(items);
    return status;
}

/* Rows for an expression whose children each want all of them. */
static enum cb_status rows_copy(struct forward *f, struct cb_err *err) {
    f->copies = f->instance.copies > 1 ? f->instance.copies : 1;
    f->instance.gives_rows = true;
    if (f->io.batch > INT32_MAX / f->copies)
        FAIL(err, CB_E_LIMIT, "forward: %lld rows for each of %lld modules", (long long)f->io.batch, (long long)f->copies);
    f->io.batch *= f->copies;
    return CB_OK;
}

/* Outputs logits.<module>: the rows of each. */
static void add_copies(struct forward *f) {
    const struct expression *e = f->io.has_parts ? NULL : instance_copied(&f->instance);
    struct cb_graph *g = f->pass.graph;
    for (int i = 0; e && f->copies == e->n && f->io.logits && i < e->n && !g->err.code; i++) {
        const struct expression *last = e->child[i];
        while (last->block) last = last->child[last->n - 1];
        const char *name = arena_printf(g->arena, "logits.%s", last->name);
        const int64_t rows = f->io.logits->type.dim[0] / e->n;
        if (!name)
            graph_fail(g, CB_E_MEMORY, "forward: out of memory");
        else
            graph_output(g, op_slice(g, f->io.logits, 0, i * rows, (i + 1) * rows, 1), name);
    }
}

static enum cb_status run(struct forward *f, struct cb_engine *engine, struct cb_forward_result *result, struct cb_err *err) {
    struct nn nn;
    TRY(engine_check_runs(engine, err));
    TRY(tensors_open(&f->input, f->o->input, err));
    TRY(instance_open(&f->instance, engine, f->o->model, f->o->modules, err));
    TRY(instance_f32(&f->instance, false, err));  // this door compares with other libraries: nothing is rounded on the way
    TRY(read_shapes(f, err));
    TRY(rows_copy(f, err));
    TRY(pass_begin(&f->pass, &f->instance, &nn, err));
    nn.train = f->o->train_mode;
    TRY(model_build(f->instance.model, &nn, &f->io, err));
    add_copies(f);
    if (f->o->grad) TRY(add_gradients(f, f->io.loss, err));
    TRY(pass_plan(&f->pass, &f->instance, false, engine_base_bytes(engine) + instance_weight_bytes(&f->instance), err));
    TRY(fill_inputs(f, err));
    TRY(plan_run(f->pass.plan, engine->pool, err));
    return write_outputs(f, result, err);
}

enum cb_status cb_forward(struct cb_engine *engine, const struct cb_forward_options *options, struct cb_forward_result *result,
                          struct cb_err *err) {
    struct forward f = {.o = options};
    *result = (struct cb_forward_result){.loss = NAN};
    enum cb_status status = run(&f, engine, result, err);
    pass_end(&f.pass);
    instance_close(&f.instance);
    tensors_destroy(&f.input);
    free(f.wrt);
    free(f.keys);
    return status;
}
