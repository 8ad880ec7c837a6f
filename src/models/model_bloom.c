/* BLOOM (Le Scao et al. 2022): ALiBi in place of positions (Press et al. 2022), a norm on the embeddings, fused qkv by head. */
#include <math.h>

#include "models/model.h"
#include "nn/block.h"
#include "ops/ops.h"

struct bloom_options {
    double eps, hidden_dropout, attention_dropout;
    bool normed_residual;  // what is added to a block's output is its normed input
};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    struct bloom_options *o = (struct bloom_options *)m->options;
    const json_t *c = m->config;
    // sizes, some of which files have under either of two names
    TRY(json_get_int(&m->vocab, c, name, "vocab_size", 1, INT32_MAX, true, err));
    TRY(json_get_int(&m->n_embd, c, name, "hidden_size", 1, 1 << 20, false, err));
    TRY(json_get_int(&m->n_embd, c, name, "n_embed", 1, 1 << 20, !m->n_embd, err));
    TRY(json_get_int(&m->n_layer, c, name, "n_layer", 1, 4096, false, err));
    TRY(json_get_int(&m->n_layer, c, name, "num_hidden_layers", 1, 4096, !m->n_layer, err));
    TRY(json_get_int(&m->n_head, c, name, "n_head", 1, 1 << 16, false, err));
    TRY(json_get_int(&m->n_head, c, name, "num_attention_heads", 1, 1 << 16, !m->n_head, err));
    if (m->n_embd % m->n_head)
        FAIL(err, CB_E_FORMAT, "%s: n_head: found %lld; wanted a divisor of hidden_size %lld", name, (long long)m->n_head,
             (long long)m->n_embd);
    m->n_kv_head = m->n_head;
    m->head_dim = m->n_embd / m->n_head;
    m->max_positions = 2048;
    TRY(json_get_int(&m->max_positions, c, name, "seq_length", 1, INT32_MAX, false, err));
    // options
    o->eps = 1e-5;
    m->tied = true;
    TRY(json_get_float(&o->eps, c, name, "layer_norm_epsilon", 0, 1, false, err));
    TRY(json_get_float(&o->hidden_dropout, c, name, "hidden_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->attention_dropout, c, name, "attention_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->normed_residual, c, name, "apply_residual_connection_post_layernorm", false, err));
    TRY(json_get_bool(&m->tied, c, name, "tie_word_embeddings", false, err));
    m->embedding = "transformer.word_embeddings.weight";
    return CB_OK;
}

static enum cb_status weights(struct model *m, struct cb_err *err) {
    const int64_t c = m->n_embd, table[2] = {m->vocab, c};
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, table, "%s", m->embedding));
    TRY(model_add_norm(m, c, true, "transformer", "word_embeddings_layernorm", err));
    for (int64_t i = 0; i < m->n_layer; i++) {
        const char *layer = arena_printf(m->arena, "transformer.h.%lld", (long long)i);
        if (!layer) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
        TRY(model_add_norm(m, c, true, layer, "input_layernorm", err));
        TRY(model_add_linear(m, c, 3 * c, true, layer, "self_attention.query_key_value", err));
        TRY(model_add_linear(m, c, c, true, layer, "self_attention.dense", err));
        TRY(model_add_norm(m, c, true, layer, "post_attention_layernorm", err));
        TRY(model_add_linear(m, c, 4 * c, true, layer, "mlp.dense_h_to_4h", err));
        TRY(model_add_linear(m, 4 * c, c, true, layer, "mlp.dense_4h_to_h", err));
    }
    return model_add_norm(m, c, true, "transformer", "ln_f", err);
}

/* ALiBi: slope(h) times the place of a key, which under softmax is the slope times its distance. Slopes fall from 2^(-8/n) by that factor over the
   largest power of two n of heads; further heads take every other step of the row of 2n. */
static void slopes(float *slope, int64_t heads) {
    int64_t n = 1;
    while (2 * n <= heads) n *= 2;
    for (int64_t h = 0; h < heads; h++)
        slope[h] = (float)(h < n ? pow(2, -8.0 * (double)(h + 1) / (double)n) : pow(2, -4.0 * (double)(2 * (h - n) + 1) / (double)n));
}

/* A bias a key: (B,H,1,Tk), or (1,H,1,Tk) where there is no mask that places are counted from. */
static struct cb_tensor *alibi(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves) {
    struct cb_graph *g = nn->g;
    const int64_t h = m->n_head, keys = leaves->length, past = leaves->past, by_head[4] = {1, h, 1, 1},
                  by_key[4] = {io->attention_mask ? io->batch : 1, 1, 1, keys};
    float *slope = arena_array(g->arena, (size_t)h, sizeof *slope);
    if (!slope) return graph_fail(g, CB_E_MEMORY, "alibi: no memory for %lld slopes", (long long)h);
    slopes(slope, h);
    struct cb_tensor *place;
    if (io->attention_mask) {
        struct cb_tensor *mask = op_cast(g, leaves->k_segment, CB_DTYPE_F32);
        place = op_mul(g, op_scale(g, op_cumsum(g, mask, 1, false), 1, (double)past - 1), mask);
        if (past) {
            struct cb_tensor *first = op_reshape(g, op_cast(g, model_counting(g, past, 0, 1), CB_DTYPE_F32), 2, (const int64_t[]){1, past});
            first = op_expand(g, first, 2, (const int64_t[]){io->batch, past});
            place = op_concat(g, 2, (struct cb_tensor *[]){first, place}, 1);
        }
    } else {
        place = op_cast(g, model_counting(g, keys, 0, 1), CB_DTYPE_F32);
    }
    return op_mul(g, graph_const(g, type_make(CB_DTYPE_F32, 4, by_head), slope), op_reshape(g, place, 4, by_key));
}

/* Self-attention of a layer: x (B,T,C) -> (B,T,C). */
static struct cb_tensor *attention(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                                   const char *layer, struct cb_tensor *x, struct cb_tensor *bias) {
    const struct bloom_options *o = m->options;
    const int64_t c = m->n_embd, joined[3] = {io->batch, io->tokens, c};
    const char *path = nn_name(nn, "%s.self_attention", layer);
    struct nn_linear fused = {.name = nn_name(nn, "%s.query_key_value", path), .in = c, .out = 3 * c, .bias = true, .role = "qkv"};
    struct nn_linear dense = {.name = nn_name(nn, "%s.dense", path), .in = c, .out = c, .bias = true, .role = "o"};
    struct cb_tensor *qkv[3];
    nn_split_heads(nn, nn_linear(nn, x, &fused), m->n_head, qkv);
    struct nn_attention a = {.name = path, .bias = bias, .q_segment = leaves->q_segment, .k_segment = leaves->k_segment};
    a.input = x;
    a.cache = io->cache;
    a.start = leaves->start;
    a.dropout = o->attention_dropout;
    x = op_reshape(nn->g, nn_attention(nn, qkv[0], qkv[1], qkv[2], &a), 3, joined);
    return nn_dropout(nn, nn_linear(nn, x, &dense), o->hidden_dropout);
}

static struct cb_tensor *body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct bloom_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *bias = alibi(m, nn, io, leaves);
    struct cb_tensor *x = nn_embedding(nn, leaves->ids, "transformer.word_embeddings", m->vocab, m->n_embd);
    x = model_embedded(nn, io, nn_layer_norm(nn, x, "transformer.word_embeddings_layernorm", o->eps));
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *layer = nn_name(nn, "transformer.h.%d", nn->layer), *old = graph_push(g, "h.%d", nn->layer);
        struct nn_feed_forward mlp = {nn_name(nn, "%s.mlp", layer), .up = "dense_h_to_4h", .down = "dense_4h_to_h", .width = m->n_embd};
        mlp.inner = 4 * m->n_embd;
        mlp.activation = "gelu_pytorch_tanh";
        struct cb_tensor *y = nn_layer_norm(nn, x, nn_name(nn, "%s.input_layernorm", layer), o->eps);
        x = model_join(nn, o->normed_residual ? y : x, attention(m, nn, io, leaves, layer, y, bias), layer, "attention");
        y = nn_layer_norm(nn, x, nn_name(nn, "%s.post_attention_layernorm", layer), o->eps);
        struct cb_tensor *z = nn_dropout(nn, nn_feed_forward(nn, y, &mlp), o->hidden_dropout);
        x = model_join(nn, o->normed_residual ? y : x, z, layer, "feed_forward");
        x = model_hidden(nn, io, x, nn->layer + 1, layer);
        graph_pop(g, old);
    }
    nn->layer = -1;
    return nn_layer_norm(nn, x, "transformer.ln_f", o->eps);
}

static const char *const model_types[] = {"bloom", NULL};
static const struct model_class *const classes[] = {&model_class_causal_lm, &model_class_last, &model_class_tokens, &model_class_span,
                                                    NULL};
static const char *const ignored[] = {NULL};

const struct family model_bloom = {
    .name = "bloom",
    .doc = "BLOOM: a bias that falls with the distance of keys (ALiBi) in place of positions, a norm on the embeddings.",
    .model_types = model_types,
    .title = "Bloom",
    .classes = classes,
    .prefix = "transformer.",
    .ignored = ignored,
    .defaults =
        "{\"apply_residual_connection_post_layernorm\":false,\"architectures\":[\"BloomForCausalLM\"],\"attention_dropout\":0.0,"
        "\"bos_token_id\":null,\"dtype\":\"float32\",\"eos_token_id\":null,\"hidden_dropout\":0.0,\"hidden_size\":768,"
        "\"initializer_range\":0.02,\"layer_norm_epsilon\":1e-05,\"model_type\":\"bloom\",\"n_head\":12,\"n_layer\":12,"
        "\"pad_token_id\":null,\"pretraining_tp\":1,\"slow_but_exact\":false,\"tie_word_embeddings\":true,\"use_cache\":true,"
        "\"vocab_size\":32000}",
    .tiny = "hidden_size=24,n_head=3,n_layer=2,vocab_size=71",
    .options_bytes = sizeof(struct bloom_options),
    .parse = parse,
    .weights = weights,
    .body = body,
};
