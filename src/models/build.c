/* From a description to a graph: the leaves, the family's body, then the head and its loss. */
#include <stdlib.h>

#include "models/model.h"
#include "ops/ops.h"

static struct cb_tensor *input_i32(struct cb_graph *g, const char *name, int rank, const int64_t *dim) {
    return graph_input(g, name, type_make(CB_DTYPE_I32, rank, dim));
}

/* i32 (n): begin, begin + step, ... */
static struct cb_tensor *counting(struct cb_graph *g, int64_t n, int64_t begin, int64_t step) {
    int32_t *value = arena_array(g->arena, (size_t)n, sizeof *value);
    if (!value) return graph_fail(g, CB_E_MEMORY, "model: no memory for %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++) value[i] = (int32_t)(begin + i * step);
    return graph_const(g, type_make(CB_DTYPE_I32, 1, &n), value);
}

static enum cb_status io_check(const struct model *model, const struct model_io *io, struct cb_err *err) {
    long long b = io->batch, t = io->tokens;
    if (b < 1 || t < 1 || b > INT32_MAX / t)
        FAIL(err, CB_E_SHAPE, "model: batch %lld of %lld tokens; wanted 1 to 2^31 - 1 tokens in all", b, t);
    if (io->cache && (io->cache < t || io->cache > INT32_MAX))
        FAIL(err, CB_E_SHAPE, "model: cache of %lld for %lld tokens; wanted as many or more", (long long)io->cache, t);
    if (io->cache && (io->segments || io->want_loss)) FAIL(err, CB_E_ARGUMENT, "model: segments and loss are for graphs without a cache");
    if (io->segments && io->attention_mask) FAIL(err, CB_E_ARGUMENT, "model: segments and attention_mask together; wanted one of them");
    if (io->last_only && io->want_loss) FAIL(err, CB_E_ARGUMENT, "model: last_only and loss together; wanted one of them");
    if (io->want_loss && model->head == MODEL_LM && !io->labels_shifted && t < 2)
        FAIL(err, CB_E_SHAPE, "model: loss of 1 token; wanted 2 or more");
    int64_t length = io->cache ? io->cache : t;
    if (model->learned_positions && !io->position_ids && length > model->max_positions)
        FAIL(err, CB_E_LIMIT, "model: %lld positions; at most %lld are learned", (long long)length, (long long)model->max_positions);
    return CB_OK;
}

static struct model_leaves leaves_make(struct cb_graph *g, const struct model_io *io) {
    const int64_t b = io->batch, t = io->tokens, rows[2] = {b, t}, column[2] = {b, 1};
    struct model_leaves leaves = {.ids = input_i32(g, "input_ids", 2, rows), .length = io->cache ? io->cache : t};
    if (io->cache) leaves.start = input_i32(g, "start", 1, &b);
    // positions
    if (io->position_ids) {
        leaves.positions = input_i32(g, "position_ids", 2, rows);
    } else {
        leaves.positions = counting(g, t, 0, 1);
        if (io->cache) leaves.positions = op_add(g, op_reshape(g, leaves.start, 2, column), leaves.positions);
    }
    // a mask is two segments: tokens 1, padding 0
    if (io->segments) leaves.q_segment = leaves.k_segment = input_i32(g, "segments", 2, rows);
    if (io->attention_mask && !io->cache) leaves.q_segment = leaves.k_segment = input_i32(g, "attention_mask", 2, rows);
    if (io->attention_mask && io->cache) {
        leaves.k_segment = input_i32(g, "attention_mask", 2, (const int64_t[]){b, io->cache});
        leaves.q_segment = op_reshape(g, counting(g, b * t, 1, 0), 2, rows);
    }
    return leaves;
}

struct cb_tensor *model_hidden(struct nn *nn, const struct model_io *io, struct cb_tensor *x, int n, const char *site) {
    if (site) x = nn_hidden(nn, x, site);
    if (io->want_hidden) graph_output(nn->g, x, nn_name(nn, "hidden.%d", n));
    return x;
}

/* Row last[b] of x (B,T,C): (B,C). */
static struct cb_tensor *rows_pick(struct cb_graph *g, struct cb_tensor *x, const struct model_io *io) {
    struct cb_tensor *last = input_i32(g, "last", 1, &io->batch);
    const int64_t flat[2] = {io->batch * io->tokens, x->type.dim[2]};
    return op_embedding(g, op_reshape(g, x, 2, flat), op_add(g, last, counting(g, io->batch, 0, io->tokens)));
}

/* (B,T,N) or (B,T) without its first or last step, rows joined. */
static struct cb_tensor *rows_shifted(struct cb_graph *g, struct cb_tensor *x, int64_t begin, int64_t end) {
    if (graph_is_bad(g, x)) return x;
    if (end - begin != x->type.dim[1]) x = op_slice(g, x, 1, begin, end, 1);
    if (graph_is_bad(g, x)) return x;
    const int64_t flat[2] = {x->type.dim[0] * x->type.dim[1], x->type.rank > 2 ? x->type.dim[2] : 0};
    return op_reshape(g, x, x->type.rank - 1, flat);
}

static void lm_head(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    struct nn_linear head = {.name = "lm_head", .kind = NN_HEAD, .in = model->n_embd, .out = model->vocab};
    if (model->tied) head.weight = model->embedding;
    if (io->want_logits) {
        io->logits = nn_linear(nn, io->last_only ? rows_pick(g, x, io) : x, &head);
        graph_output(g, io->logits, "logits");
    }
    if (!io->want_loss) return;
    const int64_t t = io->tokens, shift = io->labels_shifted ? 0 : 1, rows[2] = {io->batch, t};
    struct cb_tensor *labels = rows_shifted(g, input_i32(g, "labels", 2, rows), shift, t);
    if (io->want_logits)
        io->loss = op_cross_entropy(g, rows_shifted(g, io->logits, 0, t - shift), labels, "mean");
    else
        io->loss = nn_head_loss(nn, rows_shifted(g, x, 0, t - shift), &head, labels);
    graph_output(g, io->loss, "loss");
}

/* One label: mean squared error against f32 labels; more: cross-entropy. */
static void classifier_head(const struct model *model, struct nn *nn, struct model_io *io, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    struct nn_linear head = {.name = "score", .kind = NN_HEAD, .in = model->n_embd, .out = model->n_labels};
    io->logits = nn_linear(nn, rows_pick(g, x, io), &head);
    if (io->want_logits) graph_output(g, io->logits, "logits");
    if (!io->want_loss) return;
    if (model->n_labels == 1) {
        struct cb_tensor *labels = graph_input(g, "labels", type_make(CB_DTYPE_F32, 1, &io->batch));
        struct cb_tensor *miss = op_sub(g, op_reshape(g, io->logits, 1, &io->batch), labels);
        io->loss = op_mean(g, op_mul(g, miss, miss), 0, NULL, false);
    } else {
        io->loss = op_cross_entropy(g, io->logits, input_i32(g, "labels", 1, &io->batch), "mean");
    }
    graph_output(g, io->loss, "loss");
}

enum cb_status model_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_err *err) {
    struct cb_graph *g = nn->g;
    io->logits = io->loss = NULL;
    TRY(io_check(model, io, err));
    struct model_leaves leaves = leaves_make(g, io);
    struct cb_tensor *x = model->family->body(model, nn, io, &leaves);
    nn->layer = -1;
    if (io->want_hidden) graph_output(g, x, "final");
    if (!graph_is_bad(g, x) && (io->want_logits || io->want_loss)) {
        if (model->head == MODEL_CLASSIFIER)
            classifier_head(model, nn, io, x);
        else
            lm_head(model, nn, io, x);
    }
    if (g->err.code != CB_OK) FAIL(err, g->err.code, "%s", g->err.message);
    return CB_OK;
}

void model_last_tokens(const struct model *model, int32_t *last, const int32_t *ids, int64_t batch, int64_t tokens) {
    for (int64_t b = 0; b < batch; b++) {
        int64_t t = tokens - 1;
        while (model->pad >= 0 && t > 0 && ids[b * tokens + t] == model->pad) t--;
        last[b] = (int32_t)t;
    }
}
