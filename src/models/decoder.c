/* The body of decoders in the manner of Llama (Touvron et al. 2023): RMS norms, rotary positions, grouped queries, gated MLP or experts. */
#include "models/decoder.h"

#include "nn/block.h"
#include "ops/ops.h"

const char *const decoder_ignored[] = {".rotary_emb.inv_freq", NULL};
const struct model_class *const decoder_classes[] = {&model_class_causal_lm, &model_class_last, &model_class_scores, NULL};
const struct model_class *const decoder_span_old_classes[] = {&model_class_causal_lm, &model_class_last, &model_class_scores,
                                                              &model_class_span_old, NULL};
const struct model_class *const decoder_span_classes[] = {&model_class_causal_lm, &model_class_last, &model_class_scores, &model_class_span,
                                                          NULL};

/* ---- weights */
static enum cb_status add_norm(struct model *m, const struct decoder *d, int64_t n, const char *layer, const char *name,
                               struct cb_err *err) {
    enum model_init init = d->norm_offset != 0 ? MODEL_ZEROS : MODEL_ONES;
    return name ? model_add_weight(m, err, init, 0, 1, &n, "%s.%s.weight", layer, name) : CB_OK;
}

static enum cb_status attention_weights(struct model *m, const char *layer, struct cb_err *err) {
    const struct decoder *d = m->options;
    int64_t c = m->n_embd, q = m->n_head * m->head_dim, kv = m->n_kv_head * m->head_dim;
    if (d->is_fused) {
        TRY(model_add_linear(m, c, q + 2 * kv, d->qkv_bias, layer, "self_attn.qkv_proj", err));
    } else {
        TRY(model_add_linear(m, c, q, d->qkv_bias, layer, "self_attn.q_proj", err));
        TRY(model_add_linear(m, c, kv, d->qkv_bias, layer, "self_attn.k_proj", err));
        TRY(model_add_linear(m, c, kv, d->qkv_bias, layer, "self_attn.v_proj", err));
    }
    TRY(model_add_linear(m, q, c, d->out_bias, layer, "self_attn.o_proj", err));
    if (d->qk_norm == DECODER_QK_PLAIN) return CB_OK;
    bool whole = d->qk_norm == DECODER_QK_WHOLE;
    TRY(add_norm(m, d, whole ? q : m->head_dim, layer, "self_attn.q_norm", err));
    return add_norm(m, d, whole ? kv : m->head_dim, layer, "self_attn.k_norm", err);
}

static enum cb_status mlp_weights(struct model *m, const char *layer, struct cb_err *err) {
    const struct decoder *d = m->options;
    int64_t c = m->n_embd;
    if (d->is_fused) {
        TRY(model_add_linear(m, c, 2 * d->inner, d->mlp_bias, layer, "mlp.gate_up_proj", err));
    } else {
        TRY(model_add_linear(m, c, d->inner, d->mlp_bias, layer, "mlp.gate_proj", err));
        TRY(model_add_linear(m, c, d->inner, d->mlp_bias, layer, "mlp.up_proj", err));
    }
    return model_add_linear(m, d->inner, c, d->mlp_bias, layer, "mlp.down_proj", err);
}

enum cb_status decoder_weights(struct model *m, struct cb_err *err) {
    const struct decoder *d = m->options;
    const int64_t table[2] = {m->vocab, m->n_embd};
    TRY(model_add_weight(m, err, MODEL_NORMAL, m->init_std, 2, table, "model.embed_tokens.weight"));
    for (int64_t i = 0; i < m->n_layer; i++) {
        const char *layer = arena_printf(m->arena, "model.layers.%lld", (long long)i);
        if (!layer) FAIL(err, CB_E_MEMORY, "model: no memory for a name");
        TRY(attention_weights(m, layer, err));
        TRY(d->layer[i].is_sparse ? decoder_moe_weights(m, layer, err) : mlp_weights(m, layer, err));
        for (int k = 0; k < 2; k++) {
            TRY(add_norm(m, d, m->n_embd, layer, d->norm_before[k], err));
            TRY(add_norm(m, d, m->n_embd, layer, d->norm_after[k], err));
        }
    }
    return add_norm(m, d, m->n_embd, "model", "norm", err);
}

/* ---- graph */
static struct cb_tensor *norm(const struct decoder *d, struct nn *nn, struct cb_tensor *x, const char *path, const char *name) {
    return name ? nn_rms_norm_offset(nn, x, nn_name(nn, "%s.%s", path, name), d->eps, d->norm_offset) : x;
}

static struct cb_tensor *linear(struct nn *nn, struct cb_tensor *x, const char *path, const char *name, const char *role, int64_t in,
                                int64_t out, bool bias) {
    struct nn_linear l = {.name = nn_name(nn, "%s.%s", path, name), .in = in, .out = out, .bias = bias, .role = role};
    return nn_linear(nn, x, &l);
}

/* One product that gives n named parts side by side. */
static void linear_fused(struct nn *nn, struct cb_tensor *x, const char *path, const char *name, const char *role, int64_t in, bool bias,
                         int n, const char *const *names, const int64_t *sizes, struct cb_tensor **part) {
    struct nn_linear l = {.name = nn_name(nn, "%s.%s", path, name), .role = role, .in = in, .bias = bias, .n_slices = n};
    for (int i = 0; i < n; i++) {
        l.slice[i] = (struct nn_slice){names[i], l.out, l.out + sizes[i]};
        l.out += sizes[i];
    }
    struct cb_tensor *all = op_split(nn->g, nn_linear(nn, x, &l), -1, n, sizes);
    for (int i = 0; i < n; i++) part[i] = graph_out(nn->g, all, i);
}

/* Queries, keys and values of x: (B,T,H,D) and twice (B,T,Hkv,D), normed as the family wants. */
static void project(const struct model *m, struct nn *nn, const char *path, struct cb_tensor *x, struct cb_tensor *qkv[3]) {
    static const char *const names[3] = {"q", "k", "v"};
    const struct decoder *d = m->options;
    const int64_t heads[3] = {m->n_head, m->n_kv_head, m->n_kv_head}, c = m->n_embd;
    const int64_t width[3] = {heads[0] * m->head_dim, heads[1] * m->head_dim, heads[2] * m->head_dim};
    if (d->is_fused) linear_fused(nn, x, path, "qkv_proj", "qkv", c, d->qkv_bias, 3, names, width, qkv);
    for (int i = 0; i < 3; i++) {
        const char *scale = i < 2 && d->qk_norm != DECODER_QK_PLAIN ? nn_name(nn, "%s_norm", names[i]) : NULL;
        if (!d->is_fused) qkv[i] = linear(nn, x, path, nn_name(nn, "%s_proj", names[i]), names[i], c, width[i], d->qkv_bias);
        if (graph_is_bad(nn->g, qkv[i])) continue;
        const int64_t shape[4] = {x->type.dim[0], x->type.dim[1], heads[i], m->head_dim};
        if (d->qk_norm == DECODER_QK_WHOLE) qkv[i] = norm(d, nn, qkv[i], path, scale);
        qkv[i] = op_reshape(nn->g, qkv[i], 4, shape);
        if (d->qk_norm == DECODER_QK_HEADS) qkv[i] = norm(d, nn, qkv[i], path, scale);
    }
}

/* Self-attention of a layer: x (B,T,C) -> (B,T,C). inv_freq: of each rope. */
static struct cb_tensor *attention(const struct model *m, struct nn *nn, const struct model_io *io, const struct model_leaves *leaves,
                                   const char *path, struct cb_tensor *x, struct cb_tensor *const *inv_freq) {
    const struct decoder *d = m->options;
    const struct decoder_layer *layer = &d->layer[nn->layer];
    struct cb_graph *g = nn->g;
    const int64_t joined[3] = {io->batch, io->tokens, m->n_head * m->head_dim};
    struct cb_tensor *qkv[3];
    project(m, nn, path, x, qkv);
    for (int i = 0; i < 2 && layer->rope >= 0; i++)
        qkv[i] = op_rope(g, qkv[i], leaves->positions, inv_freq[layer->rope], false, d->rope[layer->rope].attention_factor);
    struct nn_attention a = {.name = path, .q_segment = leaves->q_segment, .k_segment = leaves->k_segment, .scale = d->attention_scale};
    a.input = x;
    a.softcap = d->softcap;
    a.window = layer->window;
    a.cache = io->cache;
    a.start = leaves->start;
    a.dropout = d->attention_dropout;
    x = op_reshape(g, nn_attention(nn, qkv[0], qkv[1], qkv[2], &a), 3, joined);
    return linear(nn, x, path, "o_proj", "o", joined[2], m->n_embd, d->out_bias);
}

/* Gated MLP (Shazeer 2020): down(act(gate x) * up x). */
static struct cb_tensor *mlp(const struct model *m, struct nn *nn, const char *path, struct cb_tensor *x) {
    const struct decoder *d = m->options;
    if (!d->is_fused) {
        struct nn_feed_forward f = {path, .gate = "gate_proj", .up = "up_proj", .down = "down_proj", .width = m->n_embd, .inner = d->inner};
        f.activation = d->activation;
        f.no_bias = !d->mlp_bias;
        return nn_feed_forward(nn, x, &f);
    }
    static const char *const names[2] = {"gate", "up"};
    struct cb_tensor *part[2];
    linear_fused(nn, x, path, "gate_up_proj", "gate_up", m->n_embd, d->mlp_bias, 2, names, (const int64_t[]){d->inner, d->inner}, part);
    x = op_mul(nn->g, nn_activation(nn, d->activation, part[0]), part[1]);
    return linear(nn, x, path, "down_proj", "down", d->inner, m->n_embd, d->mlp_bias);
}

struct cb_tensor *decoder_body(const struct model *m, struct nn *nn, struct model_io *io, const struct model_leaves *leaves) {
    const struct decoder *d = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *inv_freq[2] = {NULL, NULL};
    struct decoder_balance balance = {.n_layers = 0};
    for (int i = 0; i < d->n_ropes; i++) inv_freq[i] = rope_tensor(g, &d->rope[i], leaves->length);
    struct cb_tensor *x = nn_embedding_padded(nn, leaves->ids, "model.embed_tokens", m->vocab, m->n_embd, m->pad);
    if (d->embedding_scale != 0) x = op_scale(g, x, d->embedding_scale, 0);
    x = model_embedded(nn, io, x);
    for (nn->layer = 0; nn->layer < m->n_layer && !graph_is_bad(g, x); nn->layer++) {
        const char *layer = nn_name(nn, "model.layers.%d", nn->layer), *old = graph_push(g, "layers.%d", nn->layer);
        for (int k = 0; k < 2; k++) {
            struct cb_tensor *y = norm(d, nn, x, layer, d->norm_before[k]);
            if (k == 0)
                y = attention(m, nn, io, leaves, nn_name(nn, "%s.self_attn", layer), y, inv_freq);
            else if (d->layer[nn->layer].is_sparse)
                y = decoder_moe(m, nn, io, leaves, layer, y, &balance);
            else
                y = mlp(m, nn, nn_name(nn, "%s.mlp", layer), y);
            y = nn_dropout(nn, norm(d, nn, y, layer, d->norm_after[k]), d->residual_dropout);
            x = model_join(nn, x, y, layer, k ? "feed_forward" : "attention");
        }
        x = model_hidden(nn, io, x, nn->layer + 1, layer);
        graph_pop(g, old);
    }
    nn->layer = -1;
    io->extra_loss = decoder_balance_loss(m, nn, io, &balance);
    return norm(d, nn, x, "model", "norm");
}
