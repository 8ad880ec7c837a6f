/* From a description to a graph: the leaves, the family's body, then the head and its loss. */
#include <stdlib.h>
#include <string.h>

#include "models/model.h"
#include "ops/ops.h"

void model_head_output(struct nn *nn, const struct model_io *io, struct cb_tensor *y, const char *name) {
    graph_output(nn->g, y, io->part ? nn_name(nn, "%s.%s", name, io->part) : name);
}

struct cb_tensor *model_rows_input(struct nn *nn, const struct model_io *io, const char *name, struct cb_type type) {
    // rows of questions may be fewer than those of the batch
    const int64_t each = io->batch / (type.dim[0] ? type.dim[0] : 1), begin = io->first_row / (each ? each : 1), rows = type.dim[0];
    if (!io->all_rows) return graph_input(nn->g, name, type);
    if (!rows || !each || io->all_rows % each || io->first_row % each)
        return graph_fail(nn->g, CB_E_SHAPE, "%s: rows [%lld,%lld) of %lld are no whole questions", name, (long long)io->first_row,
                          (long long)(io->first_row + io->batch), (long long)io->all_rows);
    type.dim[0] = io->all_rows / each;
    return op_slice(nn->g, graph_input(nn->g, name, type), 0, begin, begin + rows, 1);
}

struct cb_tensor *model_input(struct nn *nn, struct model_io *io, const char *name, int rank, const int64_t *dim, int64_t low, int64_t high,
                              bool ignore) {
    for (int i = 0; i < io->n_ranges; i++)
        if (strcmp(io->ranges[i].name, name) == 0) return model_rows_input(nn, io, name, type_make(CB_DTYPE_I32, rank, dim));
    if (io->n_ranges == MODEL_MAX_RANGES) return graph_fail(nn->g, CB_E_LIMIT, "%s: more than %d inputs", name, MODEL_MAX_RANGES);
    io->ranges[io->n_ranges++] = (struct model_range){name, low, high, ignore};
    return model_rows_input(nn, io, name, type_make(CB_DTYPE_I32, rank, dim));
}

static struct cb_tensor *scalar_i32(struct cb_graph *g, int64_t value) {
    const int32_t v = (int32_t)value;
    return graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &v);
}

struct cb_tensor *model_counting(struct cb_graph *g, int64_t n, int64_t begin, int64_t step) {
    int32_t *value = arena_array(g->arena, (size_t)n, sizeof *value);
    if (!value) return graph_fail(g, CB_E_MEMORY, "model: no memory for %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++) value[i] = (int32_t)(begin + i * step);
    return graph_const(g, type_make(CB_DTYPE_I32, 1, &n), value);
}

/* x (B,T,...) with rows before row `at` of it. */
static struct cb_tensor *insert(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *rows, int64_t at) {
    if (graph_is_bad(g, x)) return x;
    if (!at) return op_concat(g, 2, (struct cb_tensor *[]){rows, x}, 1);
    struct cb_tensor *parts[3] = {op_slice(g, x, 1, 0, at, 1), rows, op_slice(g, x, 1, at, x->type.dim[1], 1)};
    return op_concat(g, 3, parts, 1);
}

/* i32 (B,n), all of one value. */
static struct cb_tensor *filled(struct cb_graph *g, int64_t b, int64_t n, int64_t value) {
    return op_expand(g, op_reshape(g, scalar_i32(g, value), 2, (const int64_t[]){1, 1}), 2, (const int64_t[]){b, n});
}

/* x (B,T) of tokens with a value for each virtual token that is embedded with them: (B,early + T). */
static struct cb_tensor *with_early(struct nn *nn, struct cb_tensor *x, int64_t value) {
    const int64_t early = nn->n_rows - nn->n_late;
    if (!early || graph_is_bad(nn->g, x)) return x;
    return insert(nn->g, x, filled(nn->g, x->type.dim[0], early, value), 0);
}

/* The same for all of them: (B,n + T). */
static struct cb_tensor *with_rows(struct nn *nn, struct cb_tensor *x, int64_t value) {
    x = with_early(nn, x, value);
    if (!nn->n_late || graph_is_bad(nn->g, x)) return x;
    return insert(nn->g, x, filled(nn->g, x->type.dim[0], nn->n_late, value), nn->hook.rows_at);
}

struct cb_tensor *model_labels(struct nn *nn, struct model_io *io, int64_t rows, int64_t high) {
    const int64_t shape[2] = {io->batch, rows - nn->n_rows};
    return with_rows(nn, model_input(nn, io, "labels", 2, shape, 0, high, true), -100);
}

struct cb_tensor *model_token_rows(struct nn *nn, struct cb_tensor *x) {
    struct cb_graph *g = nn->g;
    const int64_t early = nn->n_rows - nn->n_late, at = nn->hook.rows_at;
    if (!nn->n_rows || graph_is_bad(g, x)) return x;
    if (nn->n_late && at)
        x = op_concat(g, 2, (struct cb_tensor *[]){op_slice(g, x, 1, 0, at, 1), op_slice(g, x, 1, at + nn->n_late, x->type.dim[1], 1)}, 1);
    else if (nn->n_late)
        x = op_slice(g, x, 1, nn->n_late, x->type.dim[1], 1);
    return early ? op_slice(g, x, 1, early, x->type.dim[1], 1) : x;
}

struct cb_tensor *model_token_places(struct nn *nn, struct cb_tensor *at) {
    struct cb_graph *g = nn->g;
    const int64_t early = nn->n_rows - nn->n_late;
    if (early) at = op_add(g, at, scalar_i32(g, early));
    if (!nn->n_late) return at;
    struct cb_tensor *is_behind = op_cast(g, op_compare(g, "ge", at, scalar_i32(g, nn->hook.rows_at)), CB_DTYPE_I32);
    return op_add(g, at, op_mul(g, is_behind, scalar_i32(g, nn->n_late)));
}

static enum cb_status io_check(const struct model *model, const struct nn *nn, const struct model_io *io, struct cb_err *err) {
    long long b = io->batch, t = io->tokens, n = nn->n_rows, past = model->family->encoder_decoder ? 0 : nn->hook.n_past;
    if (b < 1 || t < 1 || b > INT32_MAX / t || t > INT32_MAX - n - nn->hook.n_past || b > INT32_MAX / (t + n + nn->hook.n_past))
        FAIL(err, CB_E_SHAPE, "model: batch %lld of %lld tokens; wanted 1 to 2^31 - 1 tokens in all", b, t + n);
    if (nn->n_late && t < nn->hook.rows_at)
        FAIL(err, CB_E_SHAPE, "model: virtual tokens after token %lld of %lld", (long long)nn->hook.rows_at, t);
    t += n;
    const long long held = model->family->encoder_decoder ? io->tokens : t;  // their cache is the decoder's
    if (io->cache && (io->cache < held || io->cache > INT32_MAX))
        FAIL(err, CB_E_SHAPE, "model: cache of %lld for %lld tokens; wanted as many or more", (long long)io->cache, held);
    if (io->cache && (io->segments || io->want_loss)) FAIL(err, CB_E_ARGUMENT, "model: segments and loss are for graphs without a cache");
    if (io->token_types && !model->n_types) FAIL(err, CB_E_ARGUMENT, "model: token_type_ids; %s has none", model->class->name);
    if (io->cache && model->family->bidirectional && !model->family->encoder_decoder)
        FAIL(err, CB_E_UNSUPPORTED, "model: a cache for %s; it reads both ways", model->class->name);
    if (io->segments && io->attention_mask) FAIL(err, CB_E_ARGUMENT, "model: segments and attention_mask together; wanted one of them");
    if (io->last_only && io->want_loss) FAIL(err, CB_E_ARGUMENT, "model: last_only and loss together; wanted one of them");
    if (io->choices > 1 && b % io->choices)
        FAIL(err, CB_E_SHAPE, "model: batch %lld of %lld choices each; wanted a multiple", b, (long long)io->choices);
    int64_t length = past + (io->cache ? io->cache : t) - nn->n_late;
    if (model->learned_positions && (!io->position_ids || n + past) && length > model->max_positions)
        FAIL(err, CB_E_LIMIT, "model: %lld positions%s; at most %lld are learned", (long long)length,
             n + past ? ", those of modules among them" : "", (long long)model->max_positions);
    return CB_OK;
}

/* Encoder-decoders: what is wanted of which stack. */
static enum cb_status io_check_decoder(const struct model *model, const struct nn *nn, struct model_io *io, struct cb_err *err) {
    if (!model->family->encoder_decoder) {
        if (io->decoder_tokens || io->decoder_ids || io->memory)
            FAIL(err, CB_E_ARGUMENT, "model: decoder_input_ids; %s has no decoder beside its ids", model->class->name);
        return CB_OK;
    }
    if (io->segments) FAIL(err, CB_E_UNSUPPORTED, "model: packed documents for %s; wanted one a row", model->class->name);
    if ((io->cache != 0) != (io->memory && io->decoder_tokens))
        FAIL(err, CB_E_ARGUMENT, "model: %s keeps a cache of its decoder beside one of its source; wanted both", model->class->name);
    if (io->memory && (io->memory < io->tokens || io->memory > INT32_MAX))
        FAIL(err, CB_E_SHAPE, "model: room for %lld source tokens; %lld are read", (long long)io->memory, (long long)io->tokens);
    if (!io->decoder_tokens && !io->memory) io->decoder_tokens = io->tokens;
    int64_t length = io->cache ? io->cache : io->decoder_tokens, positions = length + nn->hook.n_past;
    if (io->decoder_tokens < 0 || io->decoder_tokens > INT32_MAX / io->batch || io->decoder_tokens > length)
        FAIL(err, CB_E_SHAPE, "model: %lld rows of a decoder; wanted 1 to %lld", (long long)io->decoder_tokens, (long long)length);
    if (model->learned_positions && positions > model->max_positions)
        FAIL(err, CB_E_LIMIT, "model: %lld positions of the decoder; at most %lld are learned", (long long)positions,
             (long long)model->max_positions);
    // ids are given, or made of the labels, or of the source (a classifier's decoder reads that once more)
    const struct model_head *head = model->class->head;
    bool is_made = head->shifts_labels ? io->want_loss : true;
    if (io->memory || !is_made) io->decoder_ids = true;
    if (io->decoder_tokens && !io->decoder_ids && model->decoder_start < 0 && !model->family->shift)
        FAIL(err, CB_E_FORMAT, "model: decoder_start_token_id: found none; wanted one, or decoder_input_ids");
    if (!head->shifts_labels && !io->decoder_ids && io->decoder_tokens != io->tokens)
        FAIL(err, CB_E_SHAPE, "model: a decoder of %lld rows for %lld of the source; wanted as many", (long long)io->decoder_tokens,
             (long long)io->tokens);
    return CB_OK;
}

/* decoder_start, then all labels but the last. */
static struct cb_tensor *shift_right(const struct model *model, struct cb_graph *g, struct cb_tensor *labels) {
    if (graph_is_bad(g, labels)) return labels;
    const int64_t b = labels->type.dim[0], t = labels->type.dim[1];
    struct cb_tensor *start = op_reshape(g, model_counting(g, b, model->decoder_start, 0), 2, (const int64_t[]){b, 1});
    return t == 1 ? start : op_concat(g, 2, (struct cb_tensor *[]){start, op_slice(g, labels, 1, 0, t - 1, 1)}, 1);
}

static void leaves_add_decoder(const struct model *model, struct nn *nn, struct model_io *io, struct model_leaves *leaves) {
    struct cb_graph *g = nn->g;
    const int64_t b = io->batch, t = io->decoder_tokens, rows[2] = {b, t}, column[2] = {b, 1};
    if (!t) return;
    // ids
    if (io->decoder_ids) {
        leaves->decoder_ids = model_input(nn, io, "decoder_input_ids", 2, rows, 0, model->vocab, false);
    } else {
        bool by_labels = model->class->head->shifts_labels;
        struct cb_tensor *ids =
            by_labels ? model_input(nn, io, "labels", 2, rows, 0, model->vocab, true) : model_token_rows(nn, leaves->ids);
        struct cb_tensor *padding = scalar_i32(g, model->pad < 0 ? 0 : model->pad);
        ids = op_where(g, op_compare(g, "eq", ids, scalar_i32(g, -100)), padding, ids);
        leaves->decoder_ids = (model->family->shift ? model->family->shift : shift_right)(model, g, ids);
    }
    // positions, and what each row sees
    leaves->decoder_past = nn->hook.n_past;
    leaves->decoder_length = leaves->decoder_past + (io->cache ? io->cache : t);
    leaves->decoder_positions = model_counting(g, t, leaves->decoder_past, 1);
    if (io->cache) leaves->decoder_positions = op_add(g, op_reshape(g, leaves->start, 2, column), leaves->decoder_positions);
    if (io->decoder_mask && !io->cache)
        leaves->decoder_q_segment = leaves->decoder_k_segment = model_input(nn, io, "decoder_attention_mask", 2, rows, 0, 2, false);
    if (!io->attention_mask) return;
    leaves->memory_q_segment = op_reshape(g, model_counting(g, b * t, 1, 0), 2, rows);
    const int64_t known[2] = {b, io->memory - nn->n_rows};
    leaves->memory_k_segment = io->memory ? with_rows(nn, model_input(nn, io, "attention_mask", 2, known, 0, 2, false), 1) : leaves->mask;
}

/* The source is in the caches already: a decoder's leaves alone. */
static struct model_leaves leaves_continue(const struct model *model, struct nn *nn, struct model_io *io) {
    struct model_leaves leaves = {.start = model_input(nn, io, "start", 1, &io->batch, 0, io->cache, false)};
    leaves_add_decoder(model, nn, io, &leaves);
    return leaves;
}

/* Numbers of a token a virtual token stands for: no padding, no end of text. */
static int64_t plain_id(const struct model *model) {
    int64_t id = 0;
    for (int i = -1; i < model->n_eos; i++)
        if (id == model->pad || (i >= 0 && id == model->eos[i])) id++, i = -2;
    return id < model->vocab ? id : 0;
}

/* Positions of early virtual tokens and tokens: those of the tokens are given, or they count on, with a cache from start. */
static struct cb_tensor *positions_make(const struct model *model, struct nn *nn, struct model_io *io, struct model_leaves *leaves) {
    struct cb_graph *g = nn->g;
    const int64_t n = nn->n_rows - nn->n_late, b = io->batch, t = io->tokens - nn->n_late, before = leaves->past + n, column[2] = {b, 1};
    const int64_t top = model->learned_positions ? model->max_positions + model->position_offset : INT32_MAX;
    if (!io->position_ids) {
        struct cb_tensor *count = model_counting(g, t, leaves->past, 1);
        return io->cache ? op_add(g, op_reshape(g, leaves->start, 2, column), count) : count;
    }
    struct cb_tensor *given = model_input(nn, io, "position_ids", 2, (const int64_t[]){b, t - n}, 0, top - before, false);
    if (before) given = op_add(g, given, scalar_i32(g, before));
    if (!n) return given;
    // packed documents count from 0 whatever the family's offset
    struct cb_tensor *first = model_counting(g, n, leaves->past + (io->segments ? 0 : model->position_offset), 1);
    first = op_expand(g, op_reshape(g, first, 2, (const int64_t[]){1, n}), 2, (const int64_t[]){b, n});
    return insert(g, given, first, 0);
}

/* Documents of a row: virtual tokens are seen by all; where rows see what follows, virtual tokens see the first document, else nothing of any. */
static void segments_make(const struct model *model, struct nn *nn, struct model_io *io, struct model_leaves *leaves) {
    struct cb_graph *g = nn->g;
    const int64_t b = io->batch, n = nn->n_rows, early = n - nn->n_late;
    struct cb_tensor *given = model_input(nn, io, "segments", 2, (const int64_t[]){b, io->tokens - n}, INT32_MIN, INT32_MAX, false);
    leaves->q_segment = leaves->k_segment = with_rows(nn, given, ATTENTION_EVERYONE);
    if (!n || !model->family->bidirectional) return;
    struct cb_tensor *first = op_slice(g, given, 1, 0, 1, 1);
    if (early) given = insert(g, given, op_expand(g, first, 2, (const int64_t[]){b, early}), 0);
    if (nn->n_late) given = insert(g, given, op_expand(g, first, 2, (const int64_t[]){b, nn->n_late}), nn->hook.rows_at);
    leaves->q_segment = given;
}

/* Rows see what the mask has, the first `all` rows everything. */
static struct cb_tensor *sight_make(struct nn *nn, struct cb_tensor *mask, int64_t all) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, mask)) return mask;
    const int64_t b = mask->type.dim[0], t = mask->type.dim[1], across[4] = {b, 1, 1, t}, down[4] = {1, 1, t, 1}, whole[4] = {b, 1, t, t};
    struct cb_tensor *none = scalar_i32(g, 0), *zero = graph_const_f32(g, 0), *low = graph_const_f32(g, -1e30f);
    struct cb_tensor *keys = op_where(g, op_compare(g, "ne", op_reshape(g, mask, 4, across), none), zero, low);
    struct cb_tensor *is_first = op_compare(g, "lt", op_reshape(g, model_counting(g, t, 0, 1), 4, down), scalar_i32(g, all));
    return op_where(g, is_first, zero, op_expand(g, keys, 4, whole));
}

static struct model_leaves leaves_make(const struct model *model, struct nn *nn, struct model_io *io) {
    struct cb_graph *g = nn->g;
    const int64_t n = nn->n_rows, b = io->batch, t = io->tokens, rows[2] = {b, t}, known[2] = {b, t - n};
    struct model_leaves leaves = {.past = model->family->encoder_decoder ? 0 : nn->hook.n_past};
    leaves.ids = with_early(nn, model_input(nn, io, "input_ids", 2, known, 0, model->vocab, false), plain_id(model));
    leaves.length = leaves.past + (io->cache ? io->cache : t);
    if (io->cache) leaves.start = model_input(nn, io, "start", 1, &b, 0, io->cache, false);
    leaves.positions = positions_make(model, nn, io, &leaves);
    if (model->n_types)
        leaves.types = io->token_types ? with_early(nn, model_input(nn, io, "token_type_ids", 2, known, 0, model->n_types, false), 0)
                                       : op_reshape(g, model_counting(g, t - nn->n_late, 0, 0), 2, (const int64_t[]){1, t - nn->n_late});
    // a mask is two segments: tokens 1, padding 0
    if (io->segments) segments_make(model, nn, io, &leaves);
    if (io->attention_mask && !io->cache)
        leaves.mask = leaves.q_segment = leaves.k_segment = with_rows(nn, model_input(nn, io, "attention_mask", 2, known, 0, 2, false), 1);
    // rows of padding see what is not, as in Transformers, where something before them always is: virtual tokens, prefixes
    if (io->attention_mask &&
        (model->family->bidirectional || model->class->head->reads_padding || nn->hook.reads_padding || n || nn->hook.before))
        leaves.q_segment = op_reshape(g, model_counting(g, b * t, 1, 0), 2, rows);
    if (leaves.mask && nn->n_late && nn->hook.late_see_padding) leaves.sight = sight_make(nn, leaves.mask, nn->n_late);
    if (io->attention_mask && io->cache) {
        leaves.k_segment = model_input(nn, io, "attention_mask", 2, (const int64_t[]){b, io->cache}, 0, 2, false);
        leaves.q_segment = op_reshape(g, model_counting(g, b * t, 1, 0), 2, rows);
    }
    nn->token_ids = leaves.ids;
    return leaves;
}

struct cb_tensor *model_hidden_of(struct nn *nn, const struct model_io *io, const char *stack, struct cb_tensor *x, int n,
                                  const char *site) {
    if (site) x = nn_hidden(nn, x, site);
    if (io->want_hidden) graph_output(nn->g, x, nn_name(nn, "%shidden.%d", stack, n));
    return x;
}

struct cb_tensor *model_hidden(struct nn *nn, const struct model_io *io, struct cb_tensor *x, int n, const char *site) {
    return model_hidden_of(nn, io, "", x, n, site);
}

/* The first of some keys of config.json that is a number. */
static double config_number(const struct model *model, const char *const *keys, double other) {
    for (; *keys; keys++)
        if (json_is_number(json_object_get(model->config, *keys))) return json_number_value(json_object_get(model->config, *keys));
    return other;
}

/* What modules may know of the model. */
static void facts_tell(const struct model *model, struct nn *nn) {
    static const char *const dropouts[] = {"classifier_dropout", "hidden_dropout_prob", "dropout", "resid_pdrop", NULL};
    static const char *const epsilons[] = {"layer_norm_eps", NULL};
    nn->model_type = model->family->name;
    nn->model_class = model->class->name;
    nn->prefix = model->family->prefix ? model->family->prefix : "";
    nn->file_prefix = model->class->prefix;
    nn->width = model->n_embd;
    nn->n_layer = model->n_layer;
    nn->n_head = model->n_head;
    nn->n_kv_head = model->n_kv_head;
    nn->task = model->class->head->task;
    nn->head_dropout = config_number(model, dropouts, 0);
    nn->norm_eps = config_number(model, epsilons, 1e-12);
}

struct cb_tensor *model_embedded(struct nn *nn, const struct model_io *io, struct cb_tensor *x) {
    x = nn_embedded(nn, x, nn_name(nn, "%sinvertible_adapters", nn->prefix));
    return model_hidden(nn, io, x, 0, NULL);
}

const char *model_join_name(struct nn *nn, const char *block, const char *role) {
    return nn_name(nn, "%s.%s_adapters", block, strcmp(role, "feed_forward") == 0 ? "output" : role);
}

struct cb_tensor *model_join(struct nn *nn, struct cb_tensor *x, struct cb_tensor *y, const char *block, const char *role) {
    const struct nn_join join = {.name = model_join_name(nn, block, role), .role = role, .residual = x};
    return nn_join(nn, y, &join);
}

/* The body once more before the body, for hooks that survey it. */
static void survey_make(const struct model *model, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    struct model_io first = *io;
    struct model_leaves own = *leaves;
    if (io->cache || model->family->encoder_decoder) {
        graph_fail(nn->g, CB_E_UNSUPPORTED,
                   "model: a module that runs the model twice: not with a cache, and not an encoder with a decoder");
        return;
    }
    first.want_hidden = false;
    struct cb_tensor *x = model->family->body(model, nn, &first, &own);
    nn->layer = -1;
    if (!graph_is_bad(nn->g, x)) nn->survey = nn->hook.survey(nn->hook.user, nn, x);
}

static void head_make(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                      struct cb_tensor *x) {
    const struct model_class *class = model->class;
    if (nn->hook.head) {
        model_head_given(model, nn, io, leaves, x);
        return;
    }
    if (class->features) x = class->features(model, nn, io, leaves, x);
    if (!graph_is_bad(nn->g, x)) class->head->build(model, nn, io, x);
}

/* Rows [begin,end) of a leaf of the batch. */
static struct cb_tensor *rows_of(struct nn *nn, struct cb_tensor *x, int64_t begin, int64_t end) {
    return x && x->type.rank == 2 && !graph_is_bad(nn->g, x) ? op_slice(nn->g, x, 0, begin, end, 1) : x;
}

/* Each part's rows through its own head; the losses are added, as the adapters library does it. Logits of one type are together "logits" too. */
static void parts_make(const struct model *model, struct nn *nn, struct model_io *io, const struct model_leaves *leaves,
                       struct cb_tensor *x, const struct nn_head_part *part, int n) {
    struct cb_graph *g = nn->g;
    const struct nn_head *head = nn->hook.head;
    struct cb_tensor *mask = nn->mask, **logits = arena_array(g->arena, (size_t)n, sizeof(struct cb_tensor *)), *loss = NULL;
    bool are_alike = true;
    int64_t begin = 0;
    if (!logits) graph_fail(g, CB_E_MEMORY, "model: no memory for heads");
    for (int i = 0; logits && i < n && !g->err.code; i++) {
        struct model_io own = *io;
        struct model_leaves rows = *leaves;
        const int64_t end = begin + part[i].rows;
        own.batch = part[i].rows;
        own.first_row = begin;
        own.all_rows = io->batch;
        own.part = part[i].name;
        nn->mask = rows.mask = rows_of(nn, leaves->mask, begin, end);
        rows.ids = rows_of(nn, leaves->ids, begin, end);
        rows.decoder_ids = rows_of(nn, leaves->decoder_ids, begin, end);
        nn->hook.head = part[i].head;
        head_make(model, nn, &own, &rows, op_slice(g, x, 0, begin, end, 1));
        begin = end;
        memcpy(io->ranges, own.ranges, sizeof io->ranges);
        io->n_ranges = own.n_ranges;
        logits[i] = own.logits;
        if (own.loss) loss = loss ? op_add(g, loss, own.loss) : own.loss;
        are_alike = are_alike && logits[i] && logits[i]->type.rank == logits[0]->type.rank;
        for (int k = 1; are_alike && k < logits[i]->type.rank; k++) are_alike = logits[i]->type.dim[k] == logits[0]->type.dim[k];
    }
    nn->mask = mask;
    nn->hook.head = head;
    io->loss = loss;
    io->has_parts = true;
    if (!are_alike || g->err.code) return;
    io->logits = op_concat(g, n, logits, 0);
    if (io->want_logits) graph_output(g, io->logits, "logits");
}

/* The graph of io, whose tokens and memory count virtual tokens too. */
static enum cb_status build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_err *err) {
    struct cb_graph *g = nn->g;
    bool is_continued = io->memory && io->decoder_tokens, is_source = io->memory && !io->decoder_tokens;
    struct model_leaves leaves = is_continued ? leaves_continue(model, nn, io) : leaves_make(model, nn, io);
    if (!is_continued && !is_source) leaves_add_decoder(model, nn, io, &leaves);
    facts_tell(model, nn);
    nn->mask = leaves.mask;
    nn->start = leaves.start;
    if (nn->hook.survey) survey_make(model, nn, io, &leaves);
    struct cb_tensor *x = model->family->body(model, nn, io, &leaves);
    nn->layer = -1;
    if (model->family->encoder_decoder) {
        // what follows is of the decoder's rows alone
        if (leaves.ids) leaves.ids = model_token_rows(nn, leaves.ids);
        io->tokens -= nn->n_rows;
        nn->n_rows = nn->n_late = 0;
    }
    if (io->want_hidden) graph_output(g, x, "final");
    const struct model_class *class = model->class;
    if (!graph_is_bad(g, x) && !is_source && (io->want_logits || io->want_loss)) {
        const struct nn_head_part *parts = NULL;
        const int n_parts = nn->hook.heads ? nn->hook.heads(nn->hook.user, nn, io->batch, &parts) : 0;
        if (n_parts > 1)
            parts_make(model, nn, io, &leaves, x, parts, n_parts);
        else
            head_make(model, nn, io, &leaves, x);
        if (io->loss && io->extra_loss && !io->head_loss_only) io->loss = op_add(g, io->loss, io->extra_loss);
        if (io->want_loss && !io->loss) graph_fail(g, CB_E_UNSUPPORTED, "%s: has no loss", class->name);
        if (io->want_loss && nn->train && nn->hook.loss && !graph_is_bad(g, io->loss))
            io->loss = nn->hook.loss(nn->hook.user, nn, io->loss);
        if (io->want_loss) graph_output(g, io->loss, "loss");
    }
    if (g->err.code != CB_OK) FAIL(err, g->err.code, "%s", g->err.message);
    return CB_OK;
}

enum cb_status model_build(const struct model *model, struct nn *nn, struct model_io *io, struct cb_err *err) {
    const bool has_two = model->family->encoder_decoder;
    const int64_t tokens = io->tokens, memory = io->memory;
    io->logits = io->loss = io->extra_loss = NULL;
    io->n_ranges = 0;
    nn->n_late = io->no_rows && !has_two ? 0 : nn->hook.n_late;
    nn->n_rows = io->no_rows && !has_two ? 0 : nn->hook.n_rows + nn->n_late;
    nn->rows_scale = model->rows_scale;
    TRY(io_check(model, nn, io, err));
    TRY(io_check_decoder(model, nn, io, err));
    io->tokens += nn->n_rows;
    if (memory) io->memory += nn->n_rows;
    enum cb_status status = build(model, nn, io, err);
    io->tokens = tokens;
    io->memory = memory;
    return status;
}
