/* Marian (Junczys-Dowmunt et al. 2018) as Transformers stores it: BART's shape with sinusoidal positions. */
#include <math.h>

#include "models/seq2seq.h"
#include "ops/ops.h"

/* Rows of the table (Vaswani et al. 2017): sines of all frequencies, then cosines. */
static struct cb_tensor *sinusoids(const struct model *m, struct nn *nn, struct cb_tensor *ids, struct cb_tensor *positions,
                                   struct cb_tensor *start, int64_t length) {
    (void)ids;
    (void)start;
    struct cb_graph *g = nn->g;
    const int64_t c = m->n_embd, half = (c + 1) / 2, shape[2] = {length, c};
    float *table = arena_array(g->arena, (size_t)(length * c), sizeof *table);
    if (!table) return graph_fail(g, CB_E_MEMORY, "positions: no memory for %lld x %lld", (long long)length, (long long)c);
    for (int64_t t = 0; t < length; t++)
        for (int64_t i = 0; i < c; i++) {
            int64_t k = i < half ? i : i - half;
            double angle = (double)t / pow(10000, 2 * (double)k / (double)c);
            table[t * c + i] = (float)(i < half ? sin(angle) : cos(angle));
        }
    return op_embedding(g, graph_const(g, type_make(CB_DTYPE_F32, 2, shape), table), positions);
}

static const struct seq2seq_kind kind = {.positions = sinusoids, .learned_offset = -1, .activation = "gelu"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    bool is_shared = true;
    m->learned_positions = true;  // the table ends there in other libraries too
    TRY(seq2seq_parse(m, name, &kind, err));
    int64_t decoder_vocab = m->vocab;
    TRY(json_get_bool(&is_shared, m->config, name, "share_encoder_decoder_embeddings", false, err));
    TRY(json_get_int(&decoder_vocab, m->config, name, "decoder_vocab_size", 1, INT32_MAX, false, err));
    if (!is_shared || decoder_vocab != m->vocab)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: share_encoder_decoder_embeddings: found false, or another decoder_vocab_size; wanted one vocabulary", name);
    return CB_OK;
}

static const char *const model_types[] = {"marian", NULL};
static const char *const ignored[] = {".embed_positions.weight", "lm_head.weight", NULL};
static const struct model_class language = {"MTModel", &model_head_seq2seq, .bias = "", .weights = seq2seq_logits_bias};
static const struct model_class *const classes[] = {&language, NULL};

const struct family model_marian = {
    .name = "marian",
    .doc = "Marian: an encoder and a decoder with sinusoidal positions and a norm after each part; translation.",
    .model_types = model_types,
    .title = "Marian",
    .classes = classes,
    .prefix = "model.",
    .ignored = ignored,
    .bidirectional = true,
    .encoder_decoder = true,
    .defaults =
        "{\"activation_dropout\":0.0,\"activation_function\":\"swish\",\"architectures\":[\"MarianMTModel\"],\"attention_dropout\":0.0,"
        "\"d_model\":512,\"decoder_attention_heads\":8,\"decoder_ffn_dim\":2048,\"decoder_layerdrop\":0.0,\"decoder_layers\":6,"
        "\"decoder_start_token_id\":0,\"dropout\":0.1,\"dtype\":\"float32\",\"encoder_attention_heads\":8,\"encoder_ffn_dim\":2048,"
        "\"encoder_layerdrop\":0.0,\"encoder_layers\":6,\"eos_token_id\":null,\"init_std\":0.02,\"is_encoder_decoder\":true,"
        "\"max_position_embeddings\":512,\"model_type\":\"marian\",\"num_hidden_layers\":6,\"pad_token_id\":0,\"scale_embedding\":true,"
        "\"share_encoder_decoder_embeddings\":true,\"use_cache\":true,\"vocab_size\":58101}",
    .tiny =
        "d_model=24,decoder_attention_heads=3,encoder_attention_heads=4,decoder_ffn_dim=40,encoder_ffn_dim=32,decoder_layers=2,"
        "encoder_layers=2,max_position_embeddings=40,vocab_size=71",
    .options_bytes = sizeof(struct seq2seq),
    .parse = parse,
    .weights = seq2seq_weights,
    .body = seq2seq_body,
};
