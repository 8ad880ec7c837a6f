/* BART (Lewis et al. 2020) as Transformers stores it: learned positions, a norm after each part. */
#include "models/seq2seq.h"

static const struct seq2seq_kind kind = {.embedding_norm = true, .learned_offset = 2, .activation = "gelu"};

static enum cb_status parse(struct model *m, const char *name, struct cb_err *err) {
    m->pad = 1;
    m->decoder_start = 2;
    m->learned_positions = true;
    return seq2seq_parse(m, name, &kind, err);
}

static const char *const model_types[] = {"bart", NULL};

const struct family model_bart = {
    .name = "bart",
    .doc = "BART: an encoder and a decoder with learned positions and a norm after each part; translation, summaries, labels, spans.",
    .model_types = model_types,
    .title = "Bart",
    .classes = seq2seq_classes,
    .prefix = "model.",
    .ignored = seq2seq_ignored,
    .bidirectional = true,
    .encoder_decoder = true,
    .defaults =
        "{\"activation_dropout\":0.0,\"activation_function\":\"gelu\",\"architectures\":[\"BartForConditionalGeneration\"],"
        "\"attention_dropout\":0.0,\"bos_token_id\":0,\"classifier_dropout\":0.0,\"d_model\":768,\"decoder_attention_heads\":12,"
        "\"decoder_ffn_dim\":3072,\"decoder_layerdrop\":0.0,\"decoder_layers\":6,\"decoder_start_token_id\":2,\"dropout\":0.1,"
        "\"dtype\":\"float32\",\"encoder_attention_heads\":12,\"encoder_ffn_dim\":3072,\"encoder_layerdrop\":0.0,\"encoder_layers\":6,"
        "\"eos_token_id\":2,\"init_std\":0.02,\"is_encoder_decoder\":true,\"max_position_embeddings\":1024,\"model_type\":\"bart\","
        "\"num_hidden_layers\":6,\"pad_token_id\":1,\"scale_embedding\":false,\"use_cache\":true,\"vocab_size\":50265}",
    .tiny =
        "d_model=24,decoder_attention_heads=3,encoder_attention_heads=4,decoder_ffn_dim=40,encoder_ffn_dim=32,decoder_layers=2,"
        "encoder_layers=2,max_position_embeddings=40,vocab_size=71",
    .options_bytes = sizeof(struct seq2seq),
    .parse = parse,
    .weights = seq2seq_weights,
    .body = seq2seq_body,
};
