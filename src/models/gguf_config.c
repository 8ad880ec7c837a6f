/* The options of a model from the keys of a GGUF file, and the keys from the options. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/decoder.h"
#include "models/gguf.h"

enum { NAME = 256 };

static enum cb_status put(json_t *object, const char *key, json_t *value, struct cb_err *err) {
    if (!value || json_object_set_new(object, key, value) != 0) FAIL(err, CB_E_MEMORY, "%s: out of memory", key);
    return CB_OK;
}

static const char *full(char name[NAME], const struct gguf_arch *arch, const char *key) {
    snprintf(name, NAME, "%s.%s", arch->name, key);
    return name;
}

/* ---- from a file */

static enum cb_status read_option(json_t *config, const struct gguf_arch *arch, const struct gguf *g, const struct gguf_option *o,
                                  struct cb_err *err) {
    char name[NAME];
    const bool there = gguf_find(g, full(name, arch, o->key));
    if (!there && !o->required && o->usual <= 0) return CB_OK;
    if (o->type == GGUF_U32) {
        int64_t value = (int64_t)o->usual;
        TRY(gguf_get_int(&value, g, name, (int64_t)o->min, (int64_t)o->max, o->required, err));
        return put(config, o->option, json_integer(value), err);
    }
    double value = o->usual;
    TRY(gguf_get_float(&value, g, name, o->min, o->max, o->required, err));
    return put(config, o->option, json_real(value), err);
}

/* Heads must divide the width, key heads the heads; all of a head turns, or its part. */
static enum cb_status read_heads(json_t *config, const struct gguf_arch *arch, const struct gguf *g, struct cb_err *err) {
    char name[NAME];
    int64_t width = 0, heads = 0, key_heads, size = 0, value_size, turned, layers = 0;
    TRY(gguf_get_int(&width, g, full(name, arch, "embedding_length"), 1, INT32_MAX, true, err));
    TRY(gguf_get_int(&heads, g, full(name, arch, "attention.head_count"), 1, INT32_MAX, true, err));
    TRY(gguf_get_int(&size, g, full(name, arch, "attention.key_length"), 1, INT32_MAX, false, err));
    if (!size && width % heads)
        FAIL(err, CB_E_FORMAT, "%s: %s.attention.head_count: found %lld; wanted a divisor of embedding_length %lld", gguf_name(g),
             arch->name, (long long)heads, (long long)width);
    if (!size) size = width / heads;
    key_heads = heads;
    value_size = turned = size;
    TRY(gguf_get_int(&key_heads, g, full(name, arch, "attention.head_count_kv"), 1, INT32_MAX, false, err));
    if (heads % key_heads)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %lld; wanted a divisor of head_count %lld", gguf_name(g), name, (long long)key_heads,
             (long long)heads);
    TRY(gguf_get_int(&value_size, g, full(name, arch, "attention.value_length"), 1, INT32_MAX, false, err));
    if (value_size != size)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %lld; wanted the keys' %lld", gguf_name(g), name, (long long)value_size,
             (long long)size);
    TRY(gguf_get_int(&turned, g, full(name, arch, "rope.dimension_count"), 0, INT32_MAX, false, err));
    if (arch->rope && turned != size && !(arch->partial && turned < size && turned > 0 && turned % 2 == 0))
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %lld; wanted a whole head, %lld", gguf_name(g), name, (long long)turned,
             (long long)size);
    if (turned != size) TRY(put(config, "partial_rotary_factor", json_real((double)turned / (double)size), err));
    if (!arch->wide_layers) return CB_OK;
    TRY(gguf_get_int(&layers, g, full(name, arch, "block_count"), 1, INT32_MAX, true, err));
    return put(config, "query_pre_attn_scalar", json_integer(layers == arch->wide_layers ? width / heads : size), err);
}

/* A vector of divisors of frequencies as a list; NULL where there is none. */
static enum cb_status read_divisors(json_t **list, struct gguf *g, const char *name, struct cb_err *err) {
    const struct tensor *t = tensors_find(gguf_tensors(g), name);
    *list = NULL;
    if (!t) return CB_OK;
    const int64_t n = type_elements(&t->type);
    if (t->type.dtype != CB_DTYPE_F32 || t->type.rank != 1 || n > 1 << 16)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: wanted a vector of f32", gguf_name(g), name);
    const float *value = tensor_data(t);
    *list = json_array();
    for (int64_t i = 0; *list && i < n; i++) json_array_append_new(*list, json_real((double)value[i]));
    if (!*list) FAIL(err, CB_E_MEMORY, "%s: %s: out of memory", gguf_name(g), name);
    return CB_OK;
}

/* LongRoPE: rope_factors_short and _long, with the length from which the second count. *is_there: whether there are any. */
static enum cb_status read_long_factors(bool *is_there, json_t *config, const struct gguf_arch *arch, struct gguf *g, struct cb_err *err) {
    char name[NAME];
    json_t *shorter, *longer = NULL;
    double attention = 1;
    int64_t original = 1;
    TRY(read_divisors(&shorter, g, "rope_factors_short.weight", err));
    enum cb_status status = read_divisors(&longer, g, "rope_factors_long.weight", err);
    *is_there = shorter || longer;
    if (status == CB_OK && *is_there && !(shorter && longer))
        status = err_set(err, CB_E_FORMAT, __FILE__, __LINE__,
                         "%s: rope_factors_short.weight, rope_factors_long.weight: found one; wanted both", gguf_name(g));
    if (status == CB_OK && *is_there)
        status = gguf_get_float(&attention, g, full(name, arch, "rope.scaling.attn_factor"), 1e-6, 1e6, false, err);
    if (status == CB_OK && *is_there)
        status = gguf_get_int(&original, g, full(name, arch, "rope.scaling.original_context_length"), 1, INT32_MAX, true, err);
    json_t *scaling = NULL;
    if (status == CB_OK && *is_there)
        scaling = json_pack("{s:s,s:O,s:O}", "type", "longrope", "short_factor", shorter, "long_factor", longer);
    // the scale of attention is named only where it is not what the lengths give: Transformers 4 takes no fourth key
    const double factor = (double)json_integer_value(json_object_get(config, "max_position_embeddings")) / (double)original;
    const double usual = factor <= 1 || original < 2 ? 1 : sqrt(1 + log(factor) / log((double)original));
    if (scaling && fabs(attention / usual - 1) > 1e-6) json_object_set_new(scaling, "attention_factor", json_real(attention));
    json_decref(shorter);
    json_decref(longer);
    if (status != CB_OK || !*is_there) return status;
    TRY(put(config, "rope_scaling", scaling, err));
    return put(config, "original_max_position_embeddings", json_integer(original), err);
}

/* YaRN's bounds, and its scale of attention beside the rule that readers take. */
static enum cb_status read_yarn(json_t *scaling, const struct gguf_arch *arch, struct gguf *g, double attention, struct cb_err *err) {
    char name[NAME];
    double fast = ROPE_YARN_FAST, slow = ROPE_YARN_SLOW;
    TRY(gguf_get_float(&fast, g, full(name, arch, "rope.scaling.yarn_beta_fast"), 1e-6, 1e9, false, err));
    TRY(gguf_get_float(&slow, g, full(name, arch, "rope.scaling.yarn_beta_slow"), 1e-6, 1e9, false, err));
    if (fast != ROPE_YARN_FAST) TRY(put(scaling, "beta_fast", json_real(fast), err));
    if (slow != ROPE_YARN_SLOW) TRY(put(scaling, "beta_slow", json_real(slow), err));
    const double factor = json_number_value(json_object_get(scaling, "factor"));
    return attention == 1 ? CB_OK : put(scaling, "attention_factor", json_real(attention * rope_yarn_attention(factor, 1)), err);
}

/* rope.scaling.* and the divisors in rope_freqs.weight. */
static enum cb_status read_scaling(json_t *config, const struct gguf_arch *arch, struct gguf *g, struct cb_err *err) {
    char name[NAME];
    const char *type = "none";
    double factor = 1, attention = 1;
    int64_t original = 0;
    bool has_factors = false;
    json_t *list;
    if (arch->long_factors) TRY(read_long_factors(&has_factors, config, arch, g, err));
    if (has_factors) return CB_OK;
    TRY(gguf_get_str(&type, g, full(name, arch, "rope.scaling.type"), false, err));
    TRY(gguf_get_float(&factor, g, full(name, arch, "rope.scaling.factor"), 1e-6, 1e6, false, err));
    TRY(gguf_get_int(&original, g, full(name, arch, "rope.scaling.original_context_length"), 1, INT32_MAX, false, err));
    TRY(read_divisors(&list, g, "rope_freqs.weight", err));
    if (list) {
        // a divisor a pair, at any length
        json_t *scaling = json_pack("{s:s,s:f,s:f,s:O,s:o}", "rope_type", "longrope", "factor", 1.0, "attention_factor", 1.0,
                                    "short_factor", list, "long_factor", list);
        return put(config, "rope_scaling", scaling, err);
    }
    if (!strcmp(type, "yarn")) TRY(gguf_get_float(&attention, g, full(name, arch, "rope.scaling.attn_factor"), 1e-6, 1e6, false, err));
    if (!strcmp(type, "none") || (factor == 1 && attention == 1)) return CB_OK;
    if (strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s.rope.scaling.type: found %.60s; wanted none, linear or yarn", gguf_name(g), arch->name, type);
    json_t *scaling = json_pack("{s:s,s:f}", "rope_type", type, "factor", factor);
    if (scaling && original) json_object_set_new(scaling, "original_max_position_embeddings", json_integer(original));
    enum cb_status status = scaling && !strcmp(type, "yarn") ? read_yarn(scaling, arch, g, attention, err) : CB_OK;
    if (status == CB_OK) return put(config, "rope_scaling", scaling, err);
    json_decref(scaling);
    return status;
}

/* Whether the head repeats the embedding. */
static bool is_tied(const struct tensors *t) {
    const struct tensor *head = tensors_find(t, "output.weight"), *table = tensors_find(t, "token_embd.weight");
    if (!head || !table) return true;
    return type_equal(&head->type, &table->type) && !memcmp(tensor_data(head), tensor_data(table), (size_t)table->bytes);
}

/* Special tokens, bounded by the vocabulary. */
static enum cb_status read_tokens(json_t *config, const struct gguf *g, int64_t vocab, struct cb_err *err) {
    static const char *const keys[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                          {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                          {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t id = -1, end = -1;
        TRY(gguf_get_int(&id, g, keys[i][0], 0, vocab - 1, false, err));
        if (i == 1) TRY(gguf_get_int(&end, g, "tokenizer.ggml.eot_token_id", 0, vocab - 1, false, err));
        json_t *value = id < 0                  ? json_null()
                        : end >= 0 && end != id ? json_pack("[I,I]", (json_int_t)id, (json_int_t)end)
                                                : json_integer(id);
        TRY(put(config, keys[i][1], value, err));
    }
    return CB_OK;
}

static enum cb_status read_config(json_t *config, const struct gguf_arch *arch, struct gguf *g, struct cb_err *err) {
    const struct tensor *table;
    const struct gguf_key *tokens;
    for (const struct gguf_option *o = arch->options; o->key; o++) TRY(read_option(config, arch, g, o, err));
    TRY(read_heads(config, arch, g, err));
    TRY(tensors_need(&table, gguf_tensors(g), "token_embd.weight", err));
    if (table->type.rank != 2) FAIL(err, CB_E_SHAPE, "%s: token_embd.weight: rank %d; wanted 2", gguf_name(g), table->type.rank);
    const int64_t vocab = table->type.dim[0];
    TRY(gguf_get_array(&tokens, g, "tokenizer.ggml.tokens", GGUF_STR, false, err));
    if (tokens && tokens->n != vocab)
        FAIL(err, CB_E_FORMAT, "%s: tokenizer.ggml.tokens: %lld tokens; token_embd.weight has %lld rows", gguf_name(g),
             (long long)tokens->n, (long long)vocab);
    TRY(put(config, "vocab_size", json_integer(vocab), err));
    if (arch->head) TRY(put(config, "tie_word_embeddings", json_boolean(is_tied(gguf_tensors(g))), err));
    for (int i = 0; i < 2 && arch->biases[i][0]; i++)
        TRY(put(config, arch->biases[i][0], json_boolean(tensors_find(gguf_tensors(g), arch->biases[i][1]) != NULL), err));
    const struct tensor *types = tensors_find(gguf_tensors(g), "token_types.weight");
    if (types && types->type.rank == 2) TRY(put(config, "type_vocab_size", json_integer(types->type.dim[0]), err));
    if (arch->rope) TRY(read_scaling(config, arch, g, err));
    return read_tokens(config, g, vocab, err);
}

enum cb_status gguf_config(json_t **config, const struct gguf_arch *arch, struct gguf *g, struct cb_err *err) {
    TRY(json_parse_object(config, arch->config, strlen(arch->config), arch->name, err));
    enum cb_status status = read_config(*config, arch, g, err);
    if (status != CB_OK) {
        json_decref(*config);
        *config = NULL;
    }
    return status;
}

/* ---- into a file */

const json_t *gguf_scaling(const struct model *m) {
    const json_t *o = json_object_get(m->config, "rope_parameters");
    const json_t *part = json_object_get(o, "full_attention");
    if (json_is_object(part)) return part;
    if (!json_is_object(o)) o = json_object_get(m->config, "rope_scaling");
    return json_is_object(o) ? o : NULL;
}

static enum cb_status put_option(struct gguf_builder *b, const struct gguf_arch *arch, const struct model *m, const struct gguf_option *o,
                                 struct cb_err *err) {
    char name[NAME];
    const json_t *value = json_object_get(m->config, o->option);
    full(name, arch, o->key);
    if (o->computed) {
        const char *at = (const char *)decoder_options(m) + o->field;
        int64_t integer;
        double number;
        memcpy(&integer, at, sizeof integer);
        memcpy(&number, at, sizeof number);
        if (o->field && o->type == GGUF_F32) gguf_put_f32(b, name, number);
        if (o->field && o->type == GGUF_U32 && integer > 0) gguf_put_int(b, name, o->type, integer);
        return CB_OK;
    }
    if (o->type == GGUF_F32) {
        if (json_is_null(value) && o->usual != 0)
            FAIL(err, CB_E_UNSUPPORTED, "%s: found null; GGUF wants a number for %s", o->option, name);
        if (json_is_number(value) || o->usual != 0) gguf_put_f32(b, name, value ? json_number_value(value) : o->usual);
        return CB_OK;
    }
    int64_t number = json_is_number(value) ? (int64_t)json_number_value(value) : o->usual < 0 ? (int64_t)-o->usual * m->n_embd : 0;
    if (o->field) memcpy(&number, (const char *)m + o->field, sizeof number);
    if (number > 0) gguf_put_int(b, name, o->type, number);
    return CB_OK;
}

static enum cb_status put_yarn(struct gguf_builder *b, const struct gguf_arch *arch, const struct rope *rope, struct cb_err *err) {
    char name[NAME];
    const double attention = rope->attention_factor / rope_yarn_attention(rope->factor, 1);
    if (!rope->truncate) FAIL(err, CB_E_UNSUPPORTED, "rope_scaling: truncate: found false; GGUF has no key for it, readers take true");
    if (rope->beta_fast != ROPE_YARN_FAST) gguf_put_f32(b, full(name, arch, "rope.scaling.yarn_beta_fast"), rope->beta_fast);
    if (rope->beta_slow != ROPE_YARN_SLOW) gguf_put_f32(b, full(name, arch, "rope.scaling.yarn_beta_slow"), rope->beta_slow);
    if (fabs(attention - 1) > 1e-6) gguf_put_f32(b, full(name, arch, "rope.scaling.attn_factor"), attention);
    return CB_OK;
}

/* Scalings that a key can say; divisors of frequencies are a tensor (gguf_save.c). */
static enum cb_status put_scaling(struct gguf_builder *b, const struct gguf_arch *arch, const struct model *m, struct cb_err *err) {
    char name[NAME];
    const json_t *o = gguf_scaling(m);
    const struct rope *rope = &decoder_options(m)->rope[0];
    const char *kind = json_string_value(json_object_get(o, "rope_type"));
    if (!kind) kind = json_string_value(json_object_get(o, "type"));
    if (arch->long_factors && rope->long_factor) {
        gguf_put_f32(b, full(name, arch, "rope.scaling.attn_factor"), rope->attention_factor);
        gguf_put_int(b, full(name, arch, "rope.scaling.original_context_length"), GGUF_U32, rope->original_positions);
        return CB_OK;
    }
    if (!kind || !strcmp(kind, "default") || !strcmp(kind, "llama3") || !strcmp(kind, "longrope")) return CB_OK;
    if (strcmp(kind, "linear") != 0 && strcmp(kind, "yarn") != 0)
        FAIL(err, CB_E_UNSUPPORTED, "rope_type %.60s: GGUF has no key for it; wanted default, linear, yarn or llama3", kind);
    gguf_put_str(b, full(name, arch, "rope.scaling.type"), kind);
    gguf_put_f32(b, full(name, arch, "rope.scaling.factor"), json_number_value(json_object_get(o, "factor")));
    const json_t *original = json_object_get(o, "original_max_position_embeddings");
    if (original) gguf_put_int(b, full(name, arch, "rope.scaling.original_context_length"), GGUF_U32, json_integer_value(original));
    return strcmp(kind, "yarn") == 0 ? put_yarn(b, arch, rope, err) : CB_OK;
}

/* Names of one function. */
static const char *plain_name(const char *activation) {
    static const char *const same[][2] = {{"gelu_pytorch_tanh", "gelu_new"}, {"gelu_python_tanh", "gelu_new"},
                                          {"gelu_accurate", "gelu_new"},     {"gelu_fast", "gelu_new"},
                                          {"gelu_python", "gelu"},           {"swish", "silu"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (!strcmp(same[i][0], activation)) return same[i][1];
    return activation;
}

/* What the format has no key for must be as readers take it to be; windows: see check_decoder and gguf_lost_window. */
static enum cb_status check_fixed(const struct gguf_arch *arch, const struct model *m, struct cb_err *err) {
    json_t *fixed, *want;
    const char *key;
    char text[2][JSON_TEXT];
    TRY(json_parse_object(&fixed, arch->config, strlen(arch->config), arch->name, err));
    enum cb_status status = CB_OK;
    json_object_foreach(fixed, key, want) {
        const json_t *have = json_object_get(m->config, key);
        if (!strcmp(key, "architectures") || !strcmp(key, "sliding_window") || !have || json_is_null(have) ||
            json_equal((json_t *)(uintptr_t)have, want))
            continue;
        if (json_is_number(have) && json_is_number(want) && json_number_value(have) == json_number_value(want)) continue;
        if (json_is_string(have) && json_is_string(want) &&
            !strcmp(plain_name(json_string_value(have)), plain_name(json_string_value(want))))
            continue;
        status = err_set(err, CB_E_UNSUPPORTED, __FILE__, __LINE__, "%s: found %s; GGUF has no key for it, readers of %s take %s", key,
                         json_text(have, text[0]), arch->name, json_text(want, text[1]));
        break;
    }
    json_decref(fixed);
    return status;
}

int64_t gguf_lost_window(const struct gguf_arch *arch, const struct model *m) {
    int64_t least = 0;
    for (int64_t i = 0; arch->rope && !arch->windows && i < m->n_layer; i++) {
        const int64_t window = decoder_options(m)->layer[i].window;
        if (window && window < m->max_positions && (!least || window < least)) least = window;
    }
    return least;
}

/* What a decoder's readers take as given: which layers have windows, the scale of scores, the second base of positions. */
static enum cb_status check_decoder(const struct gguf_arch *arch, const struct model *m, struct cb_err *err) {
    const struct decoder *d = decoder_options(m);
    const int64_t every = arch->windows, most = m->n_layer ? d->layer[0].window : 0;
    for (int64_t i = 0; every && i < m->n_layer; i++) {
        const int64_t want = every == 1 || (i + 1) % every ? most : 0, have = d->layer[i].window;
        if (every > 1 && !most)
            FAIL(err, CB_E_UNSUPPORTED,
                 "layer 0: found no window; GGUF has no key for it, readers of %s take one in all but each %lld-th layer", arch->name,
                 (long long)every);
        if (have != want)
            FAIL(err, CB_E_UNSUPPORTED, "layer %lld: found a window of %lld keys; GGUF has no key for it, readers of %s take %lld (0: all)",
                 (long long)i, (long long)have, arch->name, (long long)want);
    }
    if (arch->experts && d->experts.normalised != arch->normalised)
        FAIL(err, CB_E_UNSUPPORTED, "norm_topk_prob: found %s; GGUF has no key for it, readers of %s take %s",
             d->experts.normalised ? "true" : "false", arch->name, arch->normalised ? "true" : "false");
    const int64_t scalar = arch->wide_layers && m->n_layer == arch->wide_layers ? m->n_embd / m->n_head : m->head_dim;
    if (d->attention_scale != 0 && fabs(d->attention_scale * sqrt((double)scalar) - 1) > 1e-6)
        FAIL(err, CB_E_UNSUPPORTED, "query_pre_attn_scalar: found %g; GGUF has no key for it, readers of %s take %lld",
             1 / (d->attention_scale * d->attention_scale), arch->name, (long long)scalar);
    if (d->n_ropes > 1 && d->rope[1].theta != 10000)
        FAIL(err, CB_E_UNSUPPORTED, "rope_local_base_freq: found %g; readers of %s take 10000", d->rope[1].theta, arch->name);
    if (!arch->partial && d->rope[0].dim != m->head_dim)
        FAIL(err, CB_E_UNSUPPORTED, "partial_rotary_factor: %lld of %lld features turn; readers of %s turn all", (long long)d->rope[0].dim,
             (long long)m->head_dim, arch->name);
    return CB_OK;
}

enum cb_status gguf_put_config(struct gguf_builder *b, const struct gguf_arch *arch, const struct model *m, const char *title,
                               struct cb_err *err) {
    char name[NAME];
    TRY(check_fixed(arch, m, err));
    if (arch->rope) TRY(check_decoder(arch, m, err));
    gguf_put_str(b, "general.architecture", arch->name);
    gguf_put_str(b, "general.type", "model");
    gguf_put_str(b, "general.name", title);
    for (const struct gguf_option *o = arch->options; o->key; o++) TRY(put_option(b, arch, m, o, err));
    if (arch->rope) {
        gguf_put_int(b, full(name, arch, "attention.value_length"), GGUF_U32, m->head_dim);
        const struct decoder *d = decoder_options(m);
        if (arch->windows && d->layer[0].window)
            gguf_put_int(b, full(name, arch, "attention.sliding_window"), GGUF_U32, d->layer[0].window);
        gguf_put_int(b, full(name, arch, "rope.dimension_count"), GGUF_U32, d->rope[0].dim);
        TRY(put_scaling(b, arch, m, err));
    }
    if (!arch->head) {
        gguf_put_bool(b, full(name, arch, "attention.causal"), false);
        gguf_put_int(b, full(name, arch, "pooling_type"), GGUF_U32, 0);
    }
    gguf_put_int(b, full(name, arch, "vocab_size"), GGUF_U32, m->vocab);
    return CB_OK;
}
