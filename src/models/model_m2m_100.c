/* M2M-100 and NLLB (Fan et al. 2021) as Transformers stores them: a norm before each part, sinusoidal positions counted from the padding id. */
#include <math.h>

#include "models/seq2seq.h"
#include "ops/ops.h"

/* Sines then cosines of frequencies from 1 to 1/10000; the row of padding is zero. */
static struct cb_tensor *table_make(struct cb_graph *g, int64_t rows, int64_t c, int64_t pad) {
    const int64_t half = c / 2, shape[2] = {rows, c};
    float *table = arena_array(g->arena, (size_t)(rows * c), sizeof *table);
    if (!table) return graph_fail(g, CB_E_MEMORY, "positions: no memory for %lld x %lld", (long long)rows, (long long)c);
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = 0; i < c; i++) {
            int64_t k = i < half ? i : i - half;
            double angle = (double)t * exp(-log(10000) * (double)k / (double)(half > 1 ? half - 1 : 1));
            table[t * c + i] = t == pad || i >= 2 * half ? 0 : (float)(i < half ? sin(angle) : cos(angle));
        }
    return graph_const(g, type_make(CB_DTYPE_F32, 2, shape), table);
}

static struct cb_tensor *sinusoids(const struct model *m, struct nn *nn, struct cb_tensor *ids, struct cb_tensor *positions,
                                   struct cb_tensor *start, int64_t length) {
    (void)positions;
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, ids)) return ids;
    const int32_t pad = (int32_t)m->pad;
    struct cb_tensor *pad_id = graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &pad);
    struct cb_tensor *is_token = op_cast(g, op_compare(g, "ne", ids, pad_id), CB_DTYPE_F32), *count = op_cumsum(g, is_token, 1, false);
    if (start) count = op_add(g, count, op_reshape(g, op_cast(g, start, CB_DTYPE_F32), 2, (const int64_t[]){ids->type.dim[0], 1}));
    struct cb_tensor *rows = op_add(g, op_cast(g, op_mul(g, count, is_token), CB_DTYPE_I32), pad_id);
    return op_embedding(g, table_make(g, m->pad + 1 + length, m->n_embd, m->pad), rows);
}

static const struct seq2seq_kind kind = {.pre_norm = true, .positions = sinusoids, .learned_offset = -1, .activation = "relu"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    m->pad = 1;
    m->decoder_start = 2;
    TRY(seq2seq_parse(m, name, &kind, err));
    if (m->pad < 0 || m->pad > 1 << 20)
        FAIL(err, CB_E_FORMAT, "%s: pad_token_id: found %lld; wanted 0 to 2^20, positions are counted from it", name, (long long)m->pad);
    return CB_OK;
}

static const char *const model_types[] = {"m2m_100", NULL};
static const char *const ignored[] = {".embed_positions.weights", ".embed_positions.weight", "lm_head.weight", NULL};
static const struct model_class language = {"ForConditionalGeneration", &model_head_seq2seq, .bias = ""};
static const struct model_class *const classes[] = {&language, NULL};

const struct family model_m2m_100 = {
    .name = "m2m_100",
    .doc = "M2M-100 and NLLB: an encoder and a decoder with sinusoidal positions and a norm before each part; translation.",
    .model_types = model_types,
    .title = "M2M100",
    .classes = classes,
    .prefix = "model.",
    .ignored = ignored,
    .bidirectional = true,
    .encoder_decoder = true,
    .defaults =
        "{\"activation_dropout\":0.0,\"activation_function\":\"relu\",\"architectures\":[\"M2M100ForConditionalGeneration\"],"
        "\"attention_dropout\":0.1,\"bos_token_id\":0,\"d_model\":1024,\"decoder_attention_heads\":16,\"decoder_ffn_dim\":4096,"
        "\"decoder_layerdrop\":0.05,\"decoder_layers\":12,\"decoder_start_token_id\":2,\"dropout\":0.1,\"dtype\":\"float32\","
        "\"encoder_attention_heads\":16,\"encoder_ffn_dim\":4096,\"encoder_layerdrop\":0.05,\"encoder_layers\":12,\"eos_token_id\":2,"
        "\"init_std\":0.02,\"is_encoder_decoder\":true,\"max_position_embeddings\":1024,\"model_type\":\"m2m_100\","
        "\"num_hidden_layers\":12,\"pad_token_id\":1,\"scale_embedding\":true,\"use_cache\":true,\"vocab_size\":128112}",
    .tiny =
        "d_model=24,decoder_attention_heads=3,encoder_attention_heads=4,decoder_ffn_dim=40,encoder_ffn_dim=32,decoder_layers=2,"
        "encoder_layers=2,max_position_embeddings=40,vocab_size=71",
    .options_bytes = sizeof(struct seq2seq),
    .parse = parse,
    .weights = seq2seq_weights,
    .body = seq2seq_body,
};
