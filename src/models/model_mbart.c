/* mBART (Liu et al. 2020) as Transformers stores it: BART with a norm before each part, whose decoder begins with the last token of the labels. */
#include "models/seq2seq.h"
#include "ops/ops.h"

static const struct seq2seq_kind kind = {.pre_norm = true, .embedding_norm = true, .learned_offset = 2, .activation = "gelu"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    m->pad = 1;
    m->learned_positions = true;
    return seq2seq_parse(m, name, &kind, err);
}

/* The last token that is not padding (the language) moves to the front. */
static struct cb_tensor *shift(const struct model *m, struct cb_graph *g, struct cb_tensor *labels) {
    if (graph_is_bad(g, labels)) return labels;
    const int64_t t = labels->type.dim[1], time = 1;
    const int32_t pad = (int32_t)(m->pad < 0 ? 1 : m->pad);
    struct cb_tensor *is_token = op_compare(g, "ne", labels, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &pad));
    struct cb_tensor *count = op_sum(g, op_cast(g, is_token, CB_DTYPE_F32), 1, &time, true);
    struct cb_tensor *last = op_gather(g, labels, op_cast(g, op_scale(g, count, 1, -1), CB_DTYPE_I32), 1);
    return t == 1 ? last : op_concat(g, 2, (struct cb_tensor *[]){last, op_slice(g, labels, 1, 0, t - 1, 1)}, 1);
}

static const char *const model_types[] = {"mbart", NULL};

const struct family model_mbart = {
    .name = "mbart",
    .doc = "mBART: BART over many languages, with a norm before each part; translation, labels, spans.",
    .model_types = model_types,
    .title = "MBart",
    .classes = seq2seq_classes,
    .prefix = "model.",
    .ignored = seq2seq_ignored,
    .bidirectional = true,
    .encoder_decoder = true,
    .shift = shift,
    .defaults =
        "{\"activation_dropout\":0.0,\"activation_function\":\"gelu\",\"architectures\":[\"MBartForConditionalGeneration\"],"
        "\"attention_dropout\":0.0,\"bos_token_id\":0,\"classifier_dropout\":0.0,\"d_model\":1024,\"decoder_attention_heads\":16,"
        "\"decoder_ffn_dim\":4096,\"decoder_layerdrop\":0.0,\"decoder_layers\":12,\"decoder_start_token_id\":2,\"dropout\":0.1,"
        "\"dtype\":\"float32\",\"encoder_attention_heads\":16,\"encoder_ffn_dim\":4096,\"encoder_layerdrop\":0.0,\"encoder_layers\":12,"
        "\"eos_token_id\":2,\"init_std\":0.02,\"is_encoder_decoder\":true,\"max_position_embeddings\":1024,\"model_type\":\"mbart\","
        "\"num_hidden_layers\":12,\"pad_token_id\":1,\"scale_embedding\":false,\"use_cache\":true,\"vocab_size\":50265}",
    .tiny =
        "d_model=24,decoder_attention_heads=3,encoder_attention_heads=4,decoder_ffn_dim=40,encoder_ffn_dim=32,decoder_layers=2,"
        "encoder_layers=2,max_position_embeddings=40,vocab_size=71",
    .options_bytes = sizeof(struct seq2seq),
    .parse = parse,
    .weights = seq2seq_weights,
    .body = seq2seq_body,
};
