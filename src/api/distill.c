/* Distillation: the teacher's pass, and the loss that its logits make. */
#include "api/distill.h"

#include <string.h>

#include "ops/ops.h"

static const char *const shared_inputs[] = {"input_ids", "attention_mask", "token_type_ids", "segments", "position_ids", "choice_mask"};

enum cb_status teacher_open(struct teacher *t, struct cb_engine *engine, const char *model, const struct model_as *as,
                            const struct model_io *io, struct cb_err *err) {
    struct nn nn;
    struct model_io own = *io;
    struct model_as head = as ? *as : (struct model_as){0};
    head.head = MODEL_HEAD_FILE;  // the teacher's own, also where the student's is fresh
    own.want_loss = false;
    own.want_logits = true;
    t->is_open = true;
    TRY(instance_open_as(&t->instance, engine, model, NULL, as ? &head : NULL, err));
    if (t->instance.model->family->encoder_decoder)
        FAIL(err, CB_E_UNSUPPORTED, "--teacher %s: an encoder-decoder; wanted a model of one stack", model);
    TRY(pass_begin(&t->pass, &t->instance, &nn, err));
    TRY(model_build(t->instance.model, &nn, &own, err));
    return pass_plan(&t->pass, &t->instance, false, 0, err);
}

void teacher_close(struct teacher *t) {
    if (!t->is_open) return;
    pass_end(&t->pass);
    instance_close(&t->instance);
    t->is_open = false;
}

struct cb_tensor *distill_loss(struct nn *nn, const struct model_io *io, double share, double temperature) {
    struct cb_graph *g = nn->g;
    const struct cb_tensor *labels = graph_find_leaf(g, "labels");
    if (!io->logits || !labels || graph_is_bad(g, io->logits))
        return graph_fail(g, CB_E_UNSUPPORTED, "--teacher: the model gives no logits of labels");
    const struct cb_type *type = &io->logits->type;
    const int64_t width = type->dim[type->rank - 1], rows = type_elements(type) / (width ? width : 1), flat[2] = {rows, width};
    if (type_elements(&labels->type) != rows || labels->type.dtype != CB_DTYPE_I32)
        return graph_fail(g, CB_E_UNSUPPORTED, "--teacher: the labels are none of classes or tokens, one a row of logits");
    struct cb_tensor *student = op_scale(g, op_reshape(g, io->logits, 2, flat), 1 / temperature, 0);
    struct cb_tensor *teacher = op_scale(g, op_reshape(g, graph_input(g, "teacher_logits", *type), 2, flat), 1 / temperature, 0);
    // KL(p || q) = sum p (log p - log q), of the rows with a label
    struct cb_tensor *p = op_softmax(g, teacher, -1);
    struct cb_tensor *gap = op_sub(g, op_log_softmax(g, teacher, -1), op_log_softmax(g, student, -1));
    struct cb_tensor *row = op_sum(g, op_mul(g, p, gap), 1, (const int64_t[]){-1}, false);
    const int32_t ignored = -100;
    struct cb_tensor *known = op_compare(g, "ne", op_reshape(g, (struct cb_tensor *)labels, 1, &rows),
                                         graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &ignored));
    known = op_cast(g, known, CB_DTYPE_F32);
    struct cb_tensor *count = op_clamp(g, op_sum(g, known, 0, NULL, false), 1, (double)rows);
    struct cb_tensor *kl = op_div(g, op_sum(g, op_mul(g, row, known), 0, NULL, false), count);
    return op_add(g, op_scale(g, io->loss, 1 - share, 0), op_scale(g, kl, share * temperature * temperature, 0));
}

enum cb_status teacher_run(struct teacher *t, struct pass *student, struct cb_err *err) {
    for (size_t i = 0; i < sizeof shared_inputs / sizeof *shared_inputs; i++) {
        int from = plan_find(student->plan, shared_inputs[i]), to = plan_find(t->pass.plan, shared_inputs[i]);
        if (from < 0 || to < 0) continue;
        memcpy(plan_data(t->pass.plan, to), plan_data(student->plan, from), (size_t)type_bytes(&plan_slot(t->pass.plan, to)->type));
    }
    TRY(plan_run(t->pass.plan, t->instance.engine->pool, err));
    const int from = plan_find(t->pass.plan, "logits"), to = plan_find(student->plan, "teacher_logits");
    const struct cb_type *have = &plan_slot(t->pass.plan, from)->type, *want = &plan_slot(student->plan, to)->type;
    char text[2][TYPE_TEXT];
    if (!type_equal(have, want))
        FAIL(err, CB_E_SHAPE, "--teacher %s: gives logits %s; wanted %s, as the student's", t->instance.path, type_text(have, text[0]),
             type_text(want, text[1]));
    memcpy(plan_data(student->plan, to), plan_data(t->pass.plan, from), (size_t)type_bytes(have));
    return CB_OK;
}
