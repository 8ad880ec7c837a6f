/* LoRA (Hu et al. 2021): y = W x + b + (alpha / r) B A drop(x), with rsLoRA's alpha / sqrt(r) (Kalajdzievski 2023) as an option. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "modules/tuner.h"
#include "ops/ops.h"

struct lora_options {
    int64_t r;
    double alpha, dropout;
    bool rslora, gaussian;
    struct tuner_numbers ranks, alphas;
};

/* Options of PEFT that change what the numbers mean: on is refused by name. */
static enum cb_status refuse(const json_t *config, const char *where, struct cb_err *err) {
    static const char *const flags[] = {"use_dora", "lora_bias", "use_qalora", "use_bdlora", "ensure_weight_tying"};
    static const char *const others[] = {"target_parameters", "trainable_token_indices", "layer_replication", "alora_invocation_tokens",
                                         "arrow_config",      "megatron_config",         "velora_config",     "kasa_config",
                                         "monteclora_config"};
    char text[JSON_TEXT];
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on = false;
        TRY(json_get_bool(&on, config, where, flags[i], false, err));
        if (on) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found true; this tuner has it off only", where, flags[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const json_t *value = json_object_get(config, others[i]);
        if (value && !json_is_null(value) && !(json_is_array(value) && !json_array_size(value)) &&
            !(json_is_object(value) && !json_object_size(value)))
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %s; wanted null", where, others[i], json_text(value, text));
    }
    return CB_OK;
}

/* init_lora_weights: true, or a word; those that change the model's own weights are refused. */
static enum cb_status init_parse(struct lora_options *o, const json_t *config, const char *where, struct cb_err *err) {
    const json_t *value = json_object_get(config, "init_lora_weights");
    const char *word = json_string_value(value);
    char text[JSON_TEXT];
    o->gaussian = word && strcmp(word, "gaussian") == 0;
    if (!value || json_is_boolean(value) || json_is_null(value) || o->gaussian) return CB_OK;
    if (word && (strcmp(word, "eva") == 0 || strcmp(word, "orthogonal") == 0)) return CB_OK;
    FAIL(err, CB_E_UNSUPPORTED, "%s: init_lora_weights: found %s; wanted true or \"gaussian\" (the others change the model's weights)",
         where, json_text(value, text));
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct lora_options *o = (struct lora_options *)m->options;
    const json_t *c = m->config;
    o->r = 8;
    o->alpha = 8;
    TRY(json_get_int(&o->r, c, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, c, where, "lora_alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, c, where, "lora_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->rslora, c, where, "use_rslora", false, err));
    TRY(refuse(c, where, err));
    TRY(init_parse(o, c, where, err));
    TRY(tuner_numbers_parse(m, &o->ranks, where, "rank_pattern", 1, TUNER_RANK_LIMIT, true, err));
    return tuner_numbers_parse(m, &o->alphas, where, "alpha_pattern", -1e6, 1e6, false, err);
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD || site->kind == NN_EMBEDDING; }

/* A (r,in), B (out,r); embeddings: A (r,rows), B (channels,r), with the zeros in A. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct lora_options *o = m->options;
    double alpha = o->alpha, rank = (double)o->r;
    TRY(tuner_number(&rank, &o->ranks, site->site.name, err));
    TRY(tuner_number(&alpha, &o->alphas, site->site.name, err));
    const int64_t r = (int64_t)rank;
    site->rank = r;
    site->scale = alpha / (o->rslora ? sqrt(rank) : rank);
    const int64_t a[2] = {r, site->site.in}, b[2] = {site->site.out, r};
    if (site->site.kind == NN_EMBEDDING) {
        TRY(tuner_add_param(m, site, "lora_embedding_A", 2, a, TUNER_ZEROS, 0, err));
        return tuner_add_param(m, site, "lora_embedding_B", 2, b, TUNER_NORMAL, 1, err);
    }
    // kaiming with a = sqrt(5) is uniform in 1 / sqrt(in); gaussian has deviation 1 / r
    enum tuner_init init = o->gaussian ? TUNER_NORMAL : TUNER_UNIFORM;
    double spread = o->gaussian ? 1 / rank : 1 / sqrt((double)site->site.in);
    TRY(tuner_add_param(m, site, "lora_A.weight", 2, a, init, spread, err));
    return tuner_add_param(m, site, "lora_B.weight", 2, b, TUNER_ZEROS, 0, err);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct lora_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, 0, nn), *b = tuner_leaf(m, site, 1, nn), *low;
    if (site->site.kind == NN_EMBEDDING)
        low = op_embedding(g, op_transpose(g, a, 0, 1), x);
    else
        low = nn_product(nn, nn_dropout(nn, x, o->dropout), a, NULL);
    // the scale goes where the tensor is smallest
    low = op_mul(g, op_scale(g, low, site->scale, 0), scale);
    if (site->site.kind == NN_EMBEDDING) return op_add(g, y, op_linear(g, low, b, NULL, false));
    return nn_product(nn, low, b, y);
}

/* W + scale (alpha / r) B A; embeddings: W + its transpose. */
static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, 0, nn), *b = tuner_leaf(m, site, 1, nn);
    b = op_mul(g, op_scale(g, b, site->scale, 0), scale);
    bool is_table = site->site.kind == NN_EMBEDDING;
    return op_add(g, w, is_table ? op_matmul(g, a, b, true, true) : op_matmul(g, b, a, false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    {"alpha", "lora_alpha", TUNER_FLOAT, "the change is scaled by alpha / r"},
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "lora_dropout", TUNER_FLOAT, "of the input, in training"},
    {"bias", "bias", TUNER_STR, "biases that are trained too: none, lora_only, all"},
    {"rslora", "use_rslora", TUNER_BOOL, "scale by alpha / sqrt(r)"},
    {"init", "init_lora_weights", TUNER_STR, "gaussian; else uniform as PEFT's default"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"lora:r=2,alpha=4", "lora:r=3,alpha=3,rslora=true,init=gaussian,bias=all", NULL};

const struct tuner tuner_lora = {
    .name = "lora",
    .doc = "LoRA: a trained product of two thin matrices beside each weight, y = W x + (alpha / r) B A x.",
    .peft_type = "LORA",
    .options = options,
    .defaults =
        "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,\"base_model_name_or_path\":"
        "null,"
        "\"bias\":\"none\",\"corda_config\":null,\"ensure_weight_tying\":false,\"eva_config\":null,\"exclude_modules\":null,"
        "\"fan_in_fan_out\":false,\"inference_mode\":true,\"init_lora_weights\":true,\"kasa_config\":null,\"layer_replication\":null,"
        "\"layers_pattern\":null,\"layers_to_transform\":null,\"loftq_config\":{},\"lora_alpha\":8,\"lora_bias\":false,\"lora_dropout\":0."
        "0,"
        "\"lora_ga_config\":null,\"megatron_config\":null,\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,"
        "\"monteclora_config\":null,\"peft_type\":\"LORA\",\"peft_version\":\"0.21.2\",\"qalora_group_size\":16,\"r\":8,\"rank_pattern\":{}"
        ","
        "\"revision\":null,\"target_modules\":\"all-linear\",\"target_parameters\":null,\"task_type\":\"CAUSAL_LM\","
        "\"trainable_token_indices\":null,\"use_bdlora\":null,\"use_dora\":false,\"use_qalora\":false,\"use_rslora\":false,"
        "\"velora_config\":null}",
    .options_bytes = sizeof(struct lora_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .scaling = "the change B A x, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .delta = delta,
    .weight = weight,
};
