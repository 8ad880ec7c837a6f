/* OPT (Zhang et al. 2022): learned positions counted from the mask, norms before the blocks or (350M) after them, embeddings of a width of their own. */
#include "models/model.h"
#include "nn/block.h"
#include "ops/ops.h"

#define OFFSET 2  // rows of the position table that no token uses
#define EPS 1e-5

struct opt_options {
    int64_t inner, width;  // of the MLP, of the word embeddings
    const char *activation;
    double dropout, attention_dropout, layer_drop;
    bool norms_first, has_bias, has_norm_weights, has_final_norm;
};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct opt_options *o = (struct opt_options *)m->options;
    const json_t *c = m->config;
    // sizes
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "hidden_size", 1, 1 << 20, true, err));
    TRY(json_get_int(&o->inner, c, name, "ffn_dim", 1, 1 << 24, true, err));
    TRY(json_get_int(&m->n_layer, c, name, "num_hidden_layers", 1, 4096, true, err));
    TRY(json_get_int(&m->n_head, c, name, "num_attention_heads", 1, 1 << 16, true, err));
    TRY(json_get_int(&m->max_positions, c, name, "max_position_embeddings", 1, INT32_MAX - OFFSET, true, err));
    o->width = m->n_embd;
    TRY(json_get_int(&o->width, c, name, "word_embed_proj_dim", 1, 1 << 20, false, err));
    if (m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: num_attention_heads: found %lld; wanted a divisor of hidden_size %lld", name, (long long)m->n_head,
             (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    // options
    bool no_final_norm = false;
    o->activation = "relu";
    TRY(json_get_str(&o->activation, c, name, "activation_function", false, err));
    if (!nn_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: activation_function: found %.60s; wanted relu, gelu, silu, ...", name, o->activation);
    o->dropout = 0.1;
    o->norms_first = o->has_bias = o->has_norm_weights = m->tied = m->learned_positions = true;
    TRY(json_get_float(&o->dropout, c, name, "dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->attention_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->layer_drop, c, name, "layerdrop", 0, 1, false, err));
    TRY(json_get_float(&m->init_std, c, name, "init_std", 0, 1e3, false, err));
    TRY(json_get_bool(&o->norms_first, c, name, "do_layer_norm_before", false, err));
    TRY(json_get_bool(&no_final_norm, c, name, "_remove_final_layer_norm", false, err));
    TRY(json_get_bool(&o->has_bias, c, name, "enable_bias", false, err));
    TRY(json_get_bool(&o->has_norm_weights, c, name, "layer_norm_elementwise_affine", false, err));
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    o->has_final_norm = o->norms_first && !no_final_norm;
    m->embedding = "model.decoder.embed_tokens.weight";
    return CB_OK;
}

static enum cb_status add_norm(struct model *m, const char *path, const char *name, struct cb_err *err) {
    const struct opt_options *o = m->options;
    return o->has_norm_weights ? model_add_norm(m, m->n_embd, true, path, name, err) : CB_OK;
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    static const char *const projections[] = {"self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"};
    const struct opt_options *o = m->options;
    const int64_t c = m->n_embd, words[2] = {m->vocab, o->width}, positions[2] = {m->max_positions + OFFSET, c};
    m->n_features = o->width;
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, words, "%s", m->embedding));
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, positions, "model.decoder.embed_positions.weight"));
    if (o->width != c) TRY(model_add_linear(m, o->width, c, false, "model.decoder", "project_in", err));
    for (int64_t i = 0; i < m->n_layer; i++) {
        const char *layer = arena_printf(m->arena, "model.decoder.layers.%lld", (long long)i);
        if (!layer) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
        for (int k = 0; k < 4; k++) TRY(model_add_linear(m, c, c, o->has_bias, layer, projections[k], err));
        TRY(add_norm(m, layer, "self_attn_layer_norm", err));
        TRY(model_add_linear(m, c, o->inner, o->has_bias, layer, "fc1", err));
        TRY(model_add_linear(m, o->inner, c, o->has_bias, layer, "fc2", err));
        TRY(add_norm(m, layer, "final_layer_norm", err));
    }
    if (o->has_final_norm) TRY(add_norm(m, "model.decoder", "final_layer_norm", err));
    return o->width != c ? model_add_linear(m, c, o->width, false, "model.decoder", "project_out", err) : CB_OK;
}

static struct cb_tensor *norm(const struct opt_options *o, struct nn *nn, struct cb_tensor *x, const char *path, const char *name) {
    return o->has_norm_weights ? nn_layer_norm(nn, x, nn_name(nn, "%s.%s", path, name), EPS) : op_layer_norm(nn->g, x, NULL, NULL, EPS);
}

/* Rows of the position table: the number of tokens before, padding left out. */
static struct cb_tensor *positions(struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    struct cb_graph *g = nn->g;
    const int32_t offset = OFFSET;
    struct cb_tensor *place = leaves->positions;
    if (io->attention_mask && !io->position_ids) {
        // tokens up to here - 1; padding reads the row before the first
        struct cb_tensor *mask = op_cast(g, leaves->k_segment, CB_DTYPE_F32);
        struct cb_tensor *count = op_scale(g, op_cumsum(g, mask, 1, false), 1, (double)leaves->past);
        place = op_cast(g, op_scale(g, op_mul(g, count, mask), 1, -1), CB_DTYPE_I32);
        // of a cache only the rows that are new
        const int32_t past = (int32_t)leaves->past;
        struct cb_tensor *rows = op_sub(g, leaves->positions, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &past));
        if (io->cache) place = op_gather(g, place, rows, 1);
    }
    return op_add(g, place, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &offset));
}

/* One layer: x (B,T,C) -> (B,T,C). */
static struct cb_tensor *block(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                               const char *layer, struct cb_tensor *x) {
    const struct opt_options *o = m->options;
    const char *path = nn_name(nn, "%s.self_attn", layer);
    struct nn_heads heads = {path, "q_proj", "k_proj", "v_proj", "out_proj", m->n_embd, m->n_head, m->head_dim, .no_bias = !o->has_bias};
    struct nn_attention a = {.name = path, .q_segment = leaves->q_segment, .k_segment = leaves->k_segment, .cache = io->cache};
    a.start = leaves->start;
    a.dropout = o->attention_dropout;
    struct nn_feed_forward mlp = {layer, .up = "fc1", .down = "fc2", .width = m->n_embd, .inner = o->inner, .activation = o->activation};
    mlp.no_bias = !o->has_bias;
    for (int k = 0; k < 2; k++) {
        const char *name = k ? "final_layer_norm" : "self_attn_layer_norm";
        struct cb_tensor *y = o->norms_first ? norm(o, nn, x, layer, name) : x;
        y = k ? nn_feed_forward(nn, y, &mlp) : nn_heads(nn, y, NULL, NULL, &heads, &a);
        struct nn_join join = {.role = k ? "feed_forward" : "attention", .residual = x, .eps = EPS};
        join.norm_has_no_weights = !o->has_norm_weights;
        join.name = model_join_name(nn, layer, join.role);
        if (!o->norms_first) join.norm = nn_name(nn, "%s.%s", layer, name);
        x = nn_join(nn, nn_dropout(nn, y, o->dropout), &join);
    }
    return x;
}

static struct cb_tensor *body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct opt_options *o = m->options;
    struct cb_graph *g = nn->g;
    if (nn->train && o->layer_drop > 0)
        return graph_fail(g, CB_E_UNSUPPORTED, "opt: layerdrop %g: layers that are left out at random; wanted 0 in training",
                          o->layer_drop);
    struct cb_tensor *x = nn_embedding_padded(nn, leaves->ids, "model.decoder.embed_tokens", m->vocab, o->width, m->pad);
    // as wide as what the head reads
    x = nn_embedded(nn, x, nn_name(nn, "%sinvertible_adapters", nn->prefix));
    if (o->width != m->n_embd) {
        struct nn_linear in = {.name = "model.decoder.project_in", .in = o->width, .out = m->n_embd};
        x = nn_linear(nn, x, &in);
    }
    x = op_add(g, x, nn_embedding(nn, positions(nn, io, leaves), "model.decoder.embed_positions", m->max_positions + OFFSET, m->n_embd));
    x = model_hidden(nn, io, x, 0, NULL);
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *layer = nn_name(nn, "model.decoder.layers.%d", nn->layer), *old = graph_push(g, "layers.%d", nn->layer);
        x = model_hidden(nn, io, block(m, nn, io, leaves, layer, x), nn->layer + 1, layer);
        graph_pop(g, old);
    }
    nn->layer = -1;
    if (o->has_final_norm) x = norm(o, nn, x, "model.decoder", "final_layer_norm");
    if (o->width == m->n_embd) return x;
    struct nn_linear out = {.name = "model.decoder.project_out", .in = m->n_embd, .out = o->width};
    return nn_linear(nn, x, &out);
}

static const char *const model_types[] = {"opt", NULL};
static const struct model_class *const classes[] = {&model_class_causal_lm, &model_class_last, &model_class_span, NULL};
static const char *const ignored[] = {NULL};

const struct family model_opt = {
    .name = "opt",
    .doc = "OPT: learned positions counted from the mask, ReLU, norms before or after the blocks.",
    .model_types = model_types,
    .title = "OPT",
    .classes = classes,
    .prefix = "model.",
    .ignored = ignored,
    .defaults =
        "{\"_remove_final_layer_norm\":false,\"activation_function\":\"relu\",\"architectures\":[\"OPTForCausalLM\"],"
        "\"attention_dropout\":0.0,\"bos_token_id\":null,\"do_layer_norm_before\":true,\"dropout\":0.0,\"dtype\":\"float32\","
        "\"enable_bias\":true,\"eos_token_id\":null,\"ffn_dim\":3072,\"hidden_size\":768,\"init_std\":0.02,"
        "\"layer_norm_elementwise_affine\":true,\"layerdrop\":0.0,\"max_position_embeddings\":2048,\"model_type\":\"opt\","
        "\"num_attention_heads\":12,\"num_hidden_layers\":12,\"pad_token_id\":null,\"tie_word_embeddings\":true,\"use_cache\":true,"
        "\"vocab_size\":32000,\"word_embed_proj_dim\":null}",
    .tiny =
        "hidden_size=24,word_embed_proj_dim=16,ffn_dim=44,num_attention_heads=4,num_hidden_layers=2,max_position_embeddings=64,vocab_size="
        "71",
    .options_bytes = sizeof(struct opt_options),
    .parse = parse,
    .weights = weights,
    .body = body,
};
