/* Rotary positions (Su et al. 2021, RoFormer) and their scalings: linear, dynamic NTK, YaRN (Peng et al. 2023), LongRoPE (Ding et al. 2024), Llama 3.1. */
#include "nn/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846
#define MAX_POSITIONS ((int64_t)1 << 40)

/* A scaling rule: what it reads beside the factor, and what it makes of the plain frequencies. */
struct rope_rule {
    const char *name;
    bool has_factor;
    /* o: rope_scaling or rope_parameters. Nullable: nothing more. */
    enum cb_status (*parse)(struct rope *rope, const json_t *o, const struct rope_source *source, struct cb_err *err);
    /* Nullable: the plain ones stay. */
    void (*scale)(const struct rope *rope, int64_t length, float *inv_freq);
};

/* theta^(-2i/dim) */
static double plain(double theta, int64_t i, int64_t dim) { return pow(theta, -2.0 * (double)i / (double)dim); }

/* ---- linear: positions are stretched */
static void linear_scale(const struct rope *r, int64_t length, float *inv_freq) {
    (void)length;
    for (int64_t i = 0; i < r->dim / 2; i++) inv_freq[i] = (float)(plain(r->theta, i, r->dim) / r->factor);
}

/* ---- dynamic NTK: the base grows with the length beyond max_positions */
static enum cb_status dynamic_parse(struct rope *r, const json_t *o, const struct rope_source *s, struct cb_err *err) {
    (void)o, (void)s, (void)err;
    r->exact_positions = r->max_positions;
    return CB_OK;
}

static void dynamic_scale(const struct rope *r, int64_t length, float *inv_freq) {
    double theta = r->theta, dim = (double)r->dim;
    if (length > r->max_positions && r->dim > 2)
        theta *= pow(r->factor * (double)length / (double)r->max_positions - (r->factor - 1), dim / (dim - 2));
    for (int64_t i = 0; i < r->dim / 2; i++) inv_freq[i] = (float)plain(theta, i, r->dim);
}

/* ---- YaRN */
double rope_yarn_attention(double factor, double m) { return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1; }

static enum cb_status yarn_parse(struct rope *r, const json_t *o, const struct rope_source *s, struct cb_err *err) {
    const char *name = s->name;
    double mscale = 0, mscale_all = 0;
    r->beta_fast = ROPE_YARN_FAST;
    r->beta_slow = ROPE_YARN_SLOW;
    r->attention_factor = 0;
    r->truncate = true;
    TRY(json_get_int(&r->original_positions, o, name, "original_max_position_embeddings", 1, MAX_POSITIONS, false, err));
    TRY(json_get_float(&r->attention_factor, o, name, "attention_factor", 1e-6, 1e6, false, err));
    TRY(json_get_float(&r->beta_fast, o, name, "beta_fast", 1e-6, 1e9, false, err));
    TRY(json_get_float(&r->beta_slow, o, name, "beta_slow", 1e-6, 1e9, false, err));
    TRY(json_get_float(&mscale, o, name, "mscale", 0, 1e6, false, err));
    TRY(json_get_float(&mscale_all, o, name, "mscale_all_dim", 0, 1e6, false, err));
    TRY(json_get_bool(&r->truncate, o, name, "truncate", false, err));
    if (r->attention_factor == 0 && mscale != 0 && mscale_all != 0)
        r->attention_factor = rope_yarn_attention(r->factor, mscale) / rope_yarn_attention(r->factor, mscale_all);
    else if (r->attention_factor == 0)
        r->attention_factor = rope_yarn_attention(r->factor, 1);
    return CB_OK;
}

/* The feature pair whose wave turns `rotations` times within the original length. */
static double yarn_pair(const struct rope *r, double rotations) {
    return (double)r->dim * log((double)r->original_positions / (rotations * 2 * PI)) / (2 * log(r->theta));
}

/* Pairs below `low` keep their frequency, pairs above `high` are interpolated, a ramp between. */
static void yarn_scale(const struct rope *r, int64_t length, float *inv_freq) {
    (void)length;
    double low = yarn_pair(r, r->beta_fast), high = yarn_pair(r, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, (double)(r->dim - 1));
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < r->dim / 2; i++) {
        double f = plain(r->theta, i, r->dim), ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        inv_freq[i] = (float)(f / r->factor * ramp + f * (1 - ramp));
    }
}

/* ---- LongRoPE: a factor a pair, one list up to the original length and another beyond it */
static enum cb_status factors_parse(const json_t **list, const json_t *o, const char *key, const struct rope *r, const char *name,
                                    struct cb_err *err) {
    TRY(json_get_array(list, o, name, key, true, err));
    char text[JSON_TEXT];
    if ((int64_t)json_array_size(*list) != r->dim / 2)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %zu numbers; wanted %lld, half of the features that turn", name, key, json_array_size(*list),
             (long long)r->dim / 2);
    for (size_t i = 0; i < json_array_size(*list); i++) {
        const json_t *value = json_array_get(*list, i);
        double v = json_is_number(value) ? json_number_value(value) : 0;
        if (!(v >= 1e-6 && v <= 1e9))
            FAIL(err, CB_E_FORMAT, "%s: %s[%zu]: found %s; wanted a number from 1e-06 to 1e+09", name, key, i, json_text(value, text));
    }
    return CB_OK;
}

static enum cb_status longrope_parse(struct rope *r, const json_t *o, const struct rope_source *s, struct cb_err *err) {
    const char *name = s->name;
    int64_t original = s->original_positions;
    TRY(factors_parse(&r->short_factor, o, "short_factor", r, name, err));
    TRY(factors_parse(&r->long_factor, o, "long_factor", r, name, err));
    // the original length stands within rope_parameters, or beside rope_scaling; its ratio to the new length is the factor
    if (json_object_get(s->config, "rope_parameters"))
        TRY(json_get_int(&original, o, name, "original_max_position_embeddings", 1, MAX_POSITIONS, false, err));
    TRY(json_get_int(&original, s->config, name, "original_max_position_embeddings", 1, MAX_POSITIONS, false, err));
    TRY(json_get_float(&r->factor, o, name, "factor", 1e-6, 1e6, !original, err));
    if (original) {
        r->original_positions = original;
        r->factor = (double)r->max_positions / (double)original;
    }
    r->attention_factor = 0;
    TRY(json_get_float(&r->attention_factor, o, name, "attention_factor", 1e-6, 1e6, false, err));
    if (r->attention_factor == 0)
        r->attention_factor =
            r->factor <= 1 || r->original_positions < 2 ? 1 : sqrt(1 + log(r->factor) / log((double)r->original_positions));
    r->exact_positions = r->original_positions;
    r->exact_again = true;
    return CB_OK;
}

static void longrope_scale(const struct rope *r, int64_t length, float *inv_freq) {
    const json_t *factor = length > r->original_positions ? r->long_factor : r->short_factor;
    for (int64_t i = 0; i < r->dim / 2; i++)
        inv_freq[i] = (float)(plain(r->theta, i, r->dim) / json_number_value(json_array_get(factor, (size_t)i)));
}

/* ---- Llama 3.1: long waves are stretched by the factor, short ones kept, a smooth passage between */
static enum cb_status llama3_parse(struct rope *r, const json_t *o, const struct rope_source *s, struct cb_err *err) {
    const char *name = s->name;
    TRY(json_get_float(&r->low_freq_factor, o, name, "low_freq_factor", 1e-6, 1e6, true, err));
    TRY(json_get_float(&r->high_freq_factor, o, name, "high_freq_factor", 1e-6, 1e6, true, err));
    TRY(json_get_int(&r->original_positions, o, name, "original_max_position_embeddings", 1, MAX_POSITIONS, true, err));
    if (r->high_freq_factor == r->low_freq_factor)
        FAIL(err, CB_E_FORMAT, "%s: high_freq_factor: found %g, as low_freq_factor; wanted two different factors", name,
             r->high_freq_factor);
    return CB_OK;
}

static double llama3_frequency(const struct rope *r, double f) {
    double wave = 2 * PI / f, length = (double)r->original_positions;
    if (wave > length / r->low_freq_factor) return f / r->factor;
    if (wave < length / r->high_freq_factor) return f;
    double smooth = (length / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * f / r->factor + smooth * f;
}

static void llama3_scale(const struct rope *r, int64_t length, float *inv_freq) {
    (void)length;
    for (int64_t i = 0; i < r->dim / 2; i++) inv_freq[i] = (float)llama3_frequency(r, plain(r->theta, i, r->dim));
}

/* ---- all rules */
static const struct rope_rule rules[] = {
    {"default", false, NULL, NULL},
    {"linear", true, NULL, linear_scale},
    {"dynamic", true, dynamic_parse, dynamic_scale},
    {"yarn", true, yarn_parse, yarn_scale},
    {"longrope", false, longrope_parse, longrope_scale},
    {"su", false, longrope_parse, longrope_scale},  // its first name
    {"llama3", true, llama3_parse, llama3_scale},
};
enum { N_RULES = sizeof rules / sizeof *rules };

static enum cb_status rule_parse(struct rope *r, const json_t *o, const struct rope_source *s, struct cb_err *err) {
    const char *kind = NULL, *old = NULL;
    TRY(json_get_str(&kind, o, s->name, "rope_type", false, err));
    TRY(json_get_str(&old, o, s->name, "type", false, err));
    if (!kind) kind = old ? old : "default";
    if (s->old_yarn && old && strcmp(old, "yarn") == 0) kind = "longrope";
    for (int i = 0; i < N_RULES; i++)
        if (strcmp(kind, rules[i].name) == 0) r->rule = &rules[i];
    if (!r->rule)
        FAIL(err, CB_E_UNSUPPORTED, "%s: rope_type: found %.60s; wanted default, linear, dynamic, yarn, longrope or llama3", s->name, kind);
    if (r->rule->has_factor) TRY(json_get_float(&r->factor, o, s->name, "factor", 1e-6, 1e6, true, err));
    return r->rule->parse ? r->rule->parse(r, o, s, err) : CB_OK;
}

enum cb_status rope_parse(struct rope *rope, const struct rope_source *s, struct cb_err *err) {
    *rope = (struct rope){.theta = s->theta != 0 ? s->theta : 10000, .factor = 1, .attention_factor = 1, .exact_positions = INT64_MAX};
    rope->max_positions = rope->original_positions = s->max_positions;
    double partial = s->partial != 0 ? s->partial : 1;
    const json_t *scaling = NULL, *parameters = NULL, *part = NULL;
    TRY(json_get_object(&parameters, s->config, s->name, "rope_parameters", false, err));
    // one object for all layers, or one for each kind of them
    if (parameters) TRY(json_get_object(&part, parameters, s->name, s->part ? s->part : "full_attention", false, err));
    if (part) parameters = part;
    if (!s->own_keys) TRY(json_get_float(&rope->theta, s->config, s->name, "rope_theta", 1e-3, 1e15, false, err));
    if (!s->own_keys) TRY(json_get_float(&partial, s->config, s->name, "partial_rotary_factor", 1e-6, 1, false, err));
    if (parameters) TRY(json_get_float(&rope->theta, parameters, s->name, "rope_theta", 1e-3, 1e15, false, err));
    if (parameters) TRY(json_get_float(&partial, parameters, s->name, "partial_rotary_factor", 1e-6, 1, false, err));
    rope->dim = (int64_t)((double)s->head_dim * partial);
    if (rope->dim < 2 || rope->dim % 2)
        FAIL(err, CB_E_FORMAT, "%s: head_dim: found %lld, of which %lld features turn; wanted an even number", s->name,
             (long long)s->head_dim, (long long)rope->dim);
    // a part without an object of its own turns plainly
    if (!parameters && !s->part) TRY(json_get_object(&scaling, s->config, s->name, "rope_scaling", false, err));
    rope->rule = NULL;
    if (parameters || scaling) return rule_parse(rope, parameters ? parameters : scaling, s, err);
    rope->rule = &rules[0];
    return CB_OK;
}

void rope_frequencies(const struct rope *r, int64_t length, float *inv_freq) {
    if (r->rule->scale) {
        r->rule->scale(r, length, inv_freq);
        return;
    }
    for (int64_t i = 0; i < r->dim / 2; i++) inv_freq[i] = (float)plain(r->theta, i, r->dim);
}

struct cb_tensor *rope_tensor(struct cb_graph *g, const struct rope *rope, int64_t length) {
    float *inv_freq = arena_array(g->arena, (size_t)rope->dim / 2, sizeof *inv_freq);
    if (!inv_freq) return graph_fail(g, CB_E_MEMORY, "rope: no memory for %lld frequencies", (long long)rope->dim / 2);
    rope_frequencies(rope, length, inv_freq);
    return graph_const(g, type_make(CB_DTYPE_F32, 1, (const int64_t[]){rope->dim / 2}), inv_freq);
}
