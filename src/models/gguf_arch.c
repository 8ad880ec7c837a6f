/* The table of ggml's architectures: keys and tensor names as gguf-py/gguf/constants.py and tensor_mapping.py of llama.cpp have them, beside those of
   Transformers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/decoder.h"
#include "models/gguf.h"

#define MODEL_FIELD(name) offsetof(struct model, name)
#define DECODER_FIELD(name) offsetof(struct decoder, name)
#define SIZE(key, option, wanted, most, field) \
    { key, option, GGUF_U32, wanted, 1, most, field, 0, false }
#define NUMBER(key, option, wanted, low, high, usual) \
    { key, option, GGUF_F32, wanted, low, high, 0, usual, false }
// read as the others, written from what the family made of them
#define WINDOW(wanted) \
    { "attention.sliding_window", "sliding_window", GGUF_U32, wanted, 1, MOST_POSITIONS, 0, 0, true }
#define THETA(usual) \
    { "rope.freq_base", "rope_theta", GGUF_F32, false, 1e-3, 1e15, DECODER_FIELD(rope[0].theta), usual, true }
#define EXPERT(key, option, most, field) \
    { key, option, GGUF_U32, true, 1, most, DECODER_FIELD(field), 0, true }

#define AS_IS(file, name) \
    { file, name, 0, false, 0, false, false, false }
#define PLAIN(file, name) \
    { file, name, 0, false, 0, true, false, false }
#define TURNED(file, name) \
    { file, name, 0, true, 0, false, false, false }
#define PLUS_ONE(file, name) \
    { file, name, 0, false, 1, false, false, false }
#define IN_PAIRS(file, name, heads) \
    { file, name, heads, false, 0, false, false, false }
#define EXPERTS(file, name) \
    { file, name, 0, false, 0, false, true, false }
#define FLAT(file, name) \
    { file, name, 0, false, 0, true, false, true }

enum { MOST_LAYERS = 4096, MOST_HEADS = 1 << 16, MOST_WIDTH = 1 << 20, MOST_INNER = 1 << 24 };
#define MOST_POSITIONS 2147483647.0

/* ---- llama and its kin */
#define LLAMA_OPTIONS                                                                                      \
    SIZE("context_length", "max_position_embeddings", true, MOST_POSITIONS, MODEL_FIELD(max_positions)),   \
        SIZE("embedding_length", "hidden_size", true, MOST_WIDTH, MODEL_FIELD(n_embd)),                    \
        SIZE("block_count", "num_hidden_layers", true, MOST_LAYERS, MODEL_FIELD(n_layer)),                 \
        SIZE("feed_forward_length", "intermediate_size", true, MOST_INNER, 0),                             \
        SIZE("attention.head_count", "num_attention_heads", true, MOST_HEADS, MODEL_FIELD(n_head)),        \
        SIZE("attention.head_count_kv", "num_key_value_heads", false, MOST_HEADS, MODEL_FIELD(n_kv_head)), \
        SIZE("attention.key_length", "head_dim", false, MOST_HEADS, MODEL_FIELD(head_dim)),                \
        NUMBER("attention.layer_norm_rms_epsilon", "rms_norm_eps", true, 0, 1, 0), THETA(10000)

// clang-format off
#define LLAMA_OUTSIDE AS_IS("token_embd", "model.embed_tokens"), AS_IS("output", "lm_head")
#define LLAMA_VALUES AS_IS("blk.#.attn_v", "model.layers.#.self_attn.v_proj"), AS_IS("blk.#.attn_output", "model.layers.#.self_attn.o_proj")
#define LLAMA_PRODUCTS \
    LLAMA_VALUES, \
    AS_IS("blk.#.ffn_gate", "model.layers.#.mlp.gate_proj"), AS_IS("blk.#.ffn_up", "model.layers.#.mlp.up_proj"), \
    AS_IS("blk.#.ffn_down", "model.layers.#.mlp.down_proj")
#define LLAMA_NORMS \
    AS_IS("output_norm", "model.norm"), AS_IS("blk.#.attn_norm", "model.layers.#.input_layernorm"), \
    AS_IS("blk.#.ffn_norm", "model.layers.#.post_attention_layernorm")
#define LLAMA_HALVES AS_IS("blk.#.attn_q", "model.layers.#.self_attn.q_proj"), AS_IS("blk.#.attn_k", "model.layers.#.self_attn.k_proj")
// clang-format on

static const struct gguf_option llama_options[] = {LLAMA_OPTIONS, {0}};
static const struct gguf_name llama_names[] = {
    LLAMA_OUTSIDE,
    LLAMA_NORMS,
    LLAMA_PRODUCTS,
    IN_PAIRS("blk.#.attn_q", "model.layers.#.self_attn.q_proj", MODEL_FIELD(n_head)),
    IN_PAIRS("blk.#.attn_k", "model.layers.#.self_attn.k_proj", MODEL_FIELD(n_kv_head)),
    {0},
};
static const struct gguf_name qwen_names[] = {
    LLAMA_OUTSIDE,
    LLAMA_NORMS,
    LLAMA_PRODUCTS,
    LLAMA_HALVES,
    AS_IS("blk.#.attn_q_norm", "model.layers.#.self_attn.q_norm"),
    AS_IS("blk.#.attn_k_norm", "model.layers.#.self_attn.k_norm"),
    {0},
};
// mixtures of experts: Mixtral's in Llama's place, Qwen's
static const struct gguf_option mixtral_options[] = {
    LLAMA_OPTIONS,
    EXPERT("expert_count", "num_local_experts", 4096, experts.n),
    EXPERT("expert_used_count", "num_experts_per_tok", 4096, experts.top_k),
    {0},
};
static const struct gguf_name mixtral_names[] = {
    LLAMA_OUTSIDE,
    LLAMA_NORMS,
    LLAMA_VALUES,
    IN_PAIRS("blk.#.attn_q", "model.layers.#.self_attn.q_proj", MODEL_FIELD(n_head)),
    IN_PAIRS("blk.#.attn_k", "model.layers.#.self_attn.k_proj", MODEL_FIELD(n_kv_head)),
    PLAIN("blk.#.ffn_gate_inp", "model.layers.#.block_sparse_moe.gate"),
    EXPERTS("blk.#.ffn_gate_exps", "model.layers.#.block_sparse_moe.experts.#.w1"),
    EXPERTS("blk.#.ffn_up_exps", "model.layers.#.block_sparse_moe.experts.#.w3"),
    EXPERTS("blk.#.ffn_down_exps", "model.layers.#.block_sparse_moe.experts.#.w2"),
    {0},
};
#define QWEN_EXPERT_OPTIONS                                                                                                          \
    EXPERT("expert_count", "num_experts", 4096, experts.n), EXPERT("expert_used_count", "num_experts_per_tok", 4096, experts.top_k), \
        EXPERT("expert_feed_forward_length", "moe_intermediate_size", MOST_INNER, experts.inner)
#define QWEN_EXPERTS                                                                                                \
    LLAMA_OUTSIDE, LLAMA_NORMS, LLAMA_VALUES, LLAMA_HALVES, PLAIN("blk.#.ffn_gate_inp", "model.layers.#.mlp.gate"), \
        EXPERTS("blk.#.ffn_gate_exps", "model.layers.#.mlp.experts.#.gate_proj"),                                   \
        EXPERTS("blk.#.ffn_up_exps", "model.layers.#.mlp.experts.#.up_proj"),                                       \
        EXPERTS("blk.#.ffn_down_exps", "model.layers.#.mlp.experts.#.down_proj")
static const struct gguf_option qwen2moe_options[] = {
    LLAMA_OPTIONS,
    QWEN_EXPERT_OPTIONS,
    EXPERT("expert_shared_feed_forward_length", "shared_expert_intermediate_size", MOST_INNER, experts.shared_inner),
    {0},
};
static const struct gguf_name qwen2moe_names[] = {
    QWEN_EXPERTS,
    FLAT("blk.#.ffn_gate_inp_shexp", "model.layers.#.mlp.shared_expert_gate"),
    AS_IS("blk.#.ffn_gate_shexp", "model.layers.#.mlp.shared_expert.gate_proj"),
    AS_IS("blk.#.ffn_up_shexp", "model.layers.#.mlp.shared_expert.up_proj"),
    AS_IS("blk.#.ffn_down_shexp", "model.layers.#.mlp.shared_expert.down_proj"),
    {0},
};
static const struct gguf_option qwen3moe_options[] = {LLAMA_OPTIONS, QWEN_EXPERT_OPTIONS, {0}};
static const struct gguf_name qwen3moe_names[] = {
    QWEN_EXPERTS,
    AS_IS("blk.#.attn_q_norm", "model.layers.#.self_attn.q_norm"),
    AS_IS("blk.#.attn_k_norm", "model.layers.#.self_attn.k_norm"),
    {0},
};
// the norms multiply by one plus their weight; the file holds the sum
static const struct gguf_name gemma_names[] = {
    LLAMA_OUTSIDE,
    LLAMA_PRODUCTS,
    LLAMA_HALVES,
    PLUS_ONE("output_norm", "model.norm"),
    PLUS_ONE("blk.#.attn_norm", "model.layers.#.input_layernorm"),
    PLUS_ONE("blk.#.ffn_norm", "model.layers.#.post_attention_layernorm"),
    {0},
};

// Gemma 2 and 3: a norm before and after each part
#define GEMMA_NORMS                                                                                       \
    PLUS_ONE("output_norm", "model.norm"), PLUS_ONE("blk.#.attn_norm", "model.layers.#.input_layernorm"), \
        PLUS_ONE("blk.#.post_attention_norm", "model.layers.#.post_attention_layernorm"),                 \
        PLUS_ONE("blk.#.ffn_norm", "model.layers.#.pre_feedforward_layernorm"),                           \
        PLUS_ONE("blk.#.post_ffw_norm", "model.layers.#.post_feedforward_layernorm")
static const struct gguf_name gemma2_names[] = {LLAMA_OUTSIDE, LLAMA_PRODUCTS, LLAMA_HALVES, GEMMA_NORMS, {0}};
static const struct gguf_name gemma3_names[] = {
    LLAMA_OUTSIDE,
    LLAMA_PRODUCTS,
    LLAMA_HALVES,
    GEMMA_NORMS,
    PLUS_ONE("blk.#.attn_q_norm", "model.layers.#.self_attn.q_norm"),
    PLUS_ONE("blk.#.attn_k_norm", "model.layers.#.self_attn.k_norm"),
    {0},
};
static const struct gguf_option gemma2_options[] = {
    LLAMA_OPTIONS,
    WINDOW(true),
    NUMBER("attn_logit_softcapping", "attn_logit_softcapping", false, 1e-3, 1e9, 50),
    NUMBER("final_logit_softcapping", "final_logit_softcapping", false, 1e-3, 1e9, 30),
    {0},
};
static const struct gguf_option gemma3_options[] = {
    LLAMA_OPTIONS,
    WINDOW(true),
    {"attention.sliding_window_pattern", "sliding_window_pattern", GGUF_U32, false, 1, MOST_LAYERS, 0, 6, true},
    {"rope.freq_base_swa", "rope_local_base_freq", GGUF_F32, false, 1e-3, 1e15, 0, 10000, true},
    NUMBER("final_logit_softcapping", "final_logit_softcapping", false, 1e-3, 1e9, 0),
    {0},
};
static const struct gguf_name phi3_names[] = {
    LLAMA_OUTSIDE,
    LLAMA_NORMS,
    AS_IS("blk.#.attn_qkv", "model.layers.#.self_attn.qkv_proj"),
    AS_IS("blk.#.attn_output", "model.layers.#.self_attn.o_proj"),
    AS_IS("blk.#.ffn_up", "model.layers.#.mlp.gate_up_proj"),
    AS_IS("blk.#.ffn_down", "model.layers.#.mlp.down_proj"),
    {0},
};
static const struct gguf_option phi3_options[] = {
    LLAMA_OPTIONS,
    WINDOW(false),
    {0},
};

/* ---- GPT-2 */
static const struct gguf_option gpt2_options[] = {
    SIZE("context_length", "n_positions", true, MOST_POSITIONS, MODEL_FIELD(max_positions)),
    SIZE("embedding_length", "n_embd", true, MOST_WIDTH, MODEL_FIELD(n_embd)),
    SIZE("block_count", "n_layer", true, MOST_LAYERS, MODEL_FIELD(n_layer)),
    {"feed_forward_length", "n_inner", GGUF_U32, true, 1, MOST_INNER, 0, -4, false},
    SIZE("attention.head_count", "n_head", true, MOST_HEADS, MODEL_FIELD(n_head)),
    NUMBER("attention.layer_norm_epsilon", "layer_norm_epsilon", true, 0, 1, 0),
    {0},
};
static const struct gguf_name gpt2_names[] = {
    AS_IS("token_embd", "transformer.wte"),
    PLAIN("position_embd", "transformer.wpe"),
    AS_IS("output_norm", "transformer.ln_f"),
    AS_IS("output", "lm_head"),
    AS_IS("blk.#.attn_norm", "transformer.h.#.ln_1"),
    AS_IS("blk.#.ffn_norm", "transformer.h.#.ln_2"),
    TURNED("blk.#.attn_qkv", "transformer.h.#.attn.c_attn"),
    TURNED("blk.#.attn_output", "transformer.h.#.attn.c_proj"),
    TURNED("blk.#.ffn_up", "transformer.h.#.mlp.c_fc"),
    TURNED("blk.#.ffn_down", "transformer.h.#.mlp.c_proj"),
    {0},
};

/* ---- BERT */
static const struct gguf_option bert_options[] = {
    SIZE("context_length", "max_position_embeddings", true, MOST_POSITIONS, MODEL_FIELD(max_positions)),
    SIZE("embedding_length", "hidden_size", true, MOST_WIDTH, MODEL_FIELD(n_embd)),
    SIZE("block_count", "num_hidden_layers", true, MOST_LAYERS, MODEL_FIELD(n_layer)),
    SIZE("feed_forward_length", "intermediate_size", true, MOST_INNER, 0),
    SIZE("attention.head_count", "num_attention_heads", true, MOST_HEADS, MODEL_FIELD(n_head)),
    NUMBER("attention.layer_norm_epsilon", "layer_norm_eps", true, 0, 1, 0),
    {0},
};
static const struct gguf_name bert_names[] = {
    AS_IS("token_embd", "embeddings.word_embeddings"),
    PLAIN("position_embd", "embeddings.position_embeddings"),
    PLAIN("token_types", "embeddings.token_type_embeddings"),
    AS_IS("token_embd_norm", "embeddings.LayerNorm"),
    AS_IS("blk.#.attn_q", "encoder.layer.#.attention.self.query"),
    AS_IS("blk.#.attn_k", "encoder.layer.#.attention.self.key"),
    AS_IS("blk.#.attn_v", "encoder.layer.#.attention.self.value"),
    AS_IS("blk.#.attn_output", "encoder.layer.#.attention.output.dense"),
    AS_IS("blk.#.attn_output_norm", "encoder.layer.#.attention.output.LayerNorm"),
    AS_IS("blk.#.ffn_up", "encoder.layer.#.intermediate.dense"),
    AS_IS("blk.#.ffn_down", "encoder.layer.#.output.dense"),
    AS_IS("blk.#.layer_output_norm", "encoder.layer.#.output.LayerNorm"),
    {0},
};

static const struct gguf_arch archs[] = {
    {.name = "llama",
     .config = "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_act\":\"silu\"}",
     .options = llama_options,
     .names = llama_names,
     .biases = {{"attention_bias", "blk.0.attn_q.bias"}, {"mlp_bias", "blk.0.ffn_up.bias"}},
     .rope = true,
     .divisors = true,
     .head = true},
    {.name = "qwen2",
     .config = "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"hidden_act\":\"silu\",\"use_sliding_window\":false}",
     .options = llama_options,
     .names = qwen_names,
     .rope = true,
     .head = true},
    {.name = "qwen3",
     .config = "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\",\"hidden_act\":\"silu\",\"use_sliding_window\":false}",
     .options = llama_options,
     .names = qwen_names,
     .biases = {{"attention_bias", "blk.0.attn_q.bias"}},
     .rope = true,
     .head = true},
    {.name = "gemma",
     .config = "{\"architectures\":[\"GemmaForCausalLM\"],\"model_type\":\"gemma\",\"hidden_act\":\"gelu_pytorch_tanh\"}",
     .options = llama_options,
     .names = gemma_names,
     .rope = true,
     .head = true},
    {.name = "gemma2",
     .config = "{\"architectures\":[\"Gemma2ForCausalLM\"],\"model_type\":\"gemma2\",\"hidden_activation\":\"gelu_pytorch_tanh\","
               "\"attention_bias\":false}",
     .options = gemma2_options,
     .names = gemma2_names,
     .windows = 2,
     .wide_layers = 46,
     .rope = true,
     .head = true},
    {.name = "gemma3",
     .config = "{\"architectures\":[\"Gemma3ForCausalLM\"],\"model_type\":\"gemma3_text\",\"hidden_activation\":\"gelu_pytorch_tanh\","
               "\"attention_bias\":false}",
     .options = gemma3_options,
     .names = gemma3_names,
     .family = "gemma3_text",
     .windows = 6,
     .wide_layers = 62,
     .rope = true,
     .head = true},
    {.name = "phi3",
     .config = "{\"architectures\":[\"Phi3ForCausalLM\"],\"model_type\":\"phi3\",\"hidden_act\":\"silu\"}",
     .options = phi3_options,
     .names = phi3_names,
     .windows = 1,
     .rope = true,
     .partial = true,
     .long_factors = true,
     .head = true},
    // read as llama, from which it differs by its window alone
    {.name = "llama",
     .config = "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\",\"hidden_act\":\"silu\"}",
     .options = llama_options,
     .names = llama_names,
     .family = "mistral",
     .rope = true,
     .divisors = true,
     .head = true},
    {.name = "llama",
     .config = "{\"architectures\":[\"MixtralForCausalLM\"],\"model_type\":\"mixtral\",\"hidden_act\":\"silu\",\"sliding_window\":null}",
     .options = mixtral_options,
     .names = mixtral_names,
     .family = "mixtral",
     .experts = true,
     .normalised = true,
     .rope = true,
     .divisors = true,
     .head = true},
    {.name = "qwen2moe",
     .config = "{\"architectures\":[\"Qwen2MoeForCausalLM\"],\"model_type\":\"qwen2_moe\",\"hidden_act\":\"silu\",\"use_sliding_window\":"
               "false,\"norm_topk_prob\":false}",
     .options = qwen2moe_options,
     .names = qwen2moe_names,
     .family = "qwen2_moe",
     .biases = {{"qkv_bias", "blk.0.attn_q.bias"}},
     .experts = true,
     .rope = true,
     .head = true,
     .repeats_head = true},
    {.name = "qwen3moe",
     .config = "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\",\"hidden_act\":\"silu\",\"use_sliding_window\":"
               "false,\"norm_topk_prob\":true}",
     .options = qwen3moe_options,
     .names = qwen3moe_names,
     .family = "qwen3_moe",
     .biases = {{"attention_bias", "blk.0.attn_q.bias"}},
     .experts = true,
     .normalised = true,
     .rope = true,
     .head = true},
    {.name = "gpt2",
     .config = "{\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\",\"activation_function\":\"gelu_new\",\"scale_attn_"
               "weights\":true,\"scale_attn_by_inverse_layer_idx\":false}",
     .options = gpt2_options,
     .names = gpt2_names,
     .head = true,
     .repeats_head = true},
    {.name = "bert",
     .config =
         "{\"architectures\":[\"BertModel\"],\"model_type\":\"bert\",\"hidden_act\":\"gelu\",\"position_embedding_type\":\"absolute\"}",
     .options = bert_options,
     .names = bert_names,
     .left_out = {"cls.", "classifier.", "qa_outputs.", "bert.pooler."}},
};
enum { N_ARCHS = sizeof archs / sizeof *archs };

const struct gguf_arch *gguf_arch_find(const char *name) {
    for (int i = 0; i < N_ARCHS; i++)
        if (!strcmp(archs[i].name, name)) return &archs[i];
    return NULL;
}

enum cb_status gguf_arch_of_file(const struct gguf_arch **arch, struct gguf *g, struct cb_err *err) {
    const char *name = NULL;
    char key[256], known[200];
    int64_t experts = 0;
    TRY(gguf_get_str(&name, g, "general.architecture", true, err));
    *arch = gguf_arch_find(name);
    if (!*arch) FAIL(err, CB_E_UNSUPPORTED, "%s: general.architecture: found %.60s; wanted %s", gguf_name(g), name, gguf_arch_names(known));
    snprintf(key, sizeof key, "%s.expert_count", name);
    TRY(gguf_get_int(&experts, g, key, 0, INT32_MAX, false, err));
    for (int i = 0; i < N_ARCHS; i++)
        if (!strcmp(archs[i].name, name) && archs[i].experts == (experts > 0)) {
            *arch = &archs[i];
            return CB_OK;
        }
    FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %lld; wanted a model %s experts", gguf_name(g), key, (long long)experts,
         experts ? "without" : "with");
}

const struct gguf_arch *gguf_arch_of(const struct model *model) {
    for (int i = 0; i < N_ARCHS; i++)
        if (!strcmp(archs[i].family ? archs[i].family : archs[i].name, model->family->name)) return &archs[i];
    return NULL;
}

const char *gguf_arch_names(char text[200]) {
    size_t n = 0;
    for (int i = 0; i < N_ARCHS; i++)
        if (gguf_arch_find(archs[i].name) == &archs[i]) n += (size_t)snprintf(text + n, 200 - n, "%s%s", i ? ", " : "", archs[i].name);
    return text;
}

/* ---- names */

/* What stands for the '#' of a pattern. */
struct numbers {
    const char *text[2];
    size_t n[2];
    int count;
};

/* Whether the first n bytes of text are the pattern. */
static bool matches(const char *pattern, const char *text, size_t n, struct numbers *numbers) {
    const char *end = text + n;
    *numbers = (struct numbers){0};
    for (; *pattern; pattern++) {
        if (*pattern == '#') {
            size_t digits = strspn(text, "0123456789");
            if (!digits || digits > 9 || (digits > 1 && *text == '0') || text + digits > end || numbers->count == 2) return false;
            numbers->text[numbers->count] = text;
            numbers->n[numbers->count++] = digits;
            text += digits;
        } else if (text == end || *text++ != *pattern) {
            return false;
        }
    }
    return text == end;
}

/* The pattern with its numbers (0 where there are too few), and the ending. */
static void compose(char out[256], const char *pattern, const struct numbers *numbers, const char *ending) {
    size_t used = 0;
    for (int k = 0; *pattern && used < 255; pattern++) {
        if (*pattern != '#') {
            out[used++] = *pattern;
            continue;
        }
        int wrote = k < numbers->count ? snprintf(out + used, 256 - used, "%.*s", (int)numbers->n[k], numbers->text[k])
                                       : snprintf(out + used, 256 - used, "0");
        used += (size_t)wrote;
        k++;
    }
    snprintf(out + used, used < 256 ? 256 - used : 0, "%s", ending);
}

/* Length up to the last '.', 0 where the ending is not of a parameter. */
static size_t stem(const char *text) {
    const char *dot = strrchr(text, '.');
    return dot && (!strcmp(dot, ".weight") || !strcmp(dot, ".bias")) ? (size_t)(dot - text) : 0;
}

const struct gguf_name *gguf_name_of_file(const struct gguf_arch *arch, const char *file, char name[256]) {
    struct numbers numbers;
    size_t n = stem(file);
    for (const struct gguf_name *row = arch->names; n && row->file; row++)
        if (matches(row->file, file, n, &numbers)) {
            compose(name, row->name, &numbers, file + n);
            return row;
        }
    return NULL;
}

const struct gguf_name *gguf_name_of_weight(const struct gguf_arch *arch, const char *weight, const char *prefix, char file[256],
                                            int64_t *expert) {
    struct numbers numbers;
    size_t skip = strlen(prefix);
    for (int part = 0; part < 2; part++) {
        // as it is, then without the family's prefix
        if (part && (!skip || strncmp(weight, prefix, skip) != 0)) break;
        const char *text = part ? weight + skip : weight;
        size_t n = stem(text);
        for (const struct gguf_name *row = arch->names; n && row->file; row++)
            if (matches(row->name, text, n, &numbers)) {
                compose(file, row->file, &numbers, text + n);
                if (expert) *expert = numbers.count > 1 ? strtoll(numbers.text[1], NULL, 10) : 0;
                return row;
            }
    }
    return NULL;
}

int64_t gguf_name_heads(const struct gguf_name *row, const struct model *model) {
    int64_t heads = 0;
    if (row->heads) memcpy(&heads, (const char *)model + row->heads, sizeof heads);
    return heads;
}

static void move_rows(char *out, const char *in, int64_t rows, int64_t heads, size_t row_bytes, bool pair) {
    const int64_t size = rows / heads, half = size / 2;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t s = 0; s < 2; s++)
            for (int64_t j = 0; j < half; j++) {
                const size_t halves = (size_t)(h * size + s * half + j) * row_bytes, pairs = (size_t)(h * size + 2 * j + s) * row_bytes;
                memcpy(out + (pair ? pairs : halves), in + (pair ? halves : pairs), row_bytes);
            }
}
void gguf_unpair_rows(void *out, const void *in, int64_t rows, int64_t heads, size_t row_bytes) {
    move_rows(out, in, rows, heads, row_bytes, false);
}
void gguf_pair_rows(void *out, const void *in, int64_t rows, int64_t heads, size_t row_bytes) {
    move_rows(out, in, rows, heads, row_bytes, true);
}
