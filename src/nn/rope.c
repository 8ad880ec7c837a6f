/* Rotary positions (Su et al. 2021, RoFormer) and their scalings: linear, dynamic NTK, YaRN (Peng et al. 2023), Llama 3.1. */
#include "nn/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

static const char *const kind_names[] = {"default", "linear", "dynamic", "yarn", "llama3"};

/* The 0.1 ln(s) + 1 rule of YaRN, weighted by m. */
static double yarn_scale(double factor, double m) { return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1; }

static enum cb_status yarn_parse(struct rope *r, const json_t *o, const char *name, struct cb_err *err) {
    double mscale = 0, mscale_all = 0;
    r->attention_factor = 0;
    r->truncate = true;
    TRY(json_get_float(&r->attention_factor, o, name, "attention_factor", 1e-6, 1e6, false, err));
    TRY(json_get_float(&r->beta_fast, o, name, "beta_fast", 1e-6, 1e9, false, err));
    TRY(json_get_float(&r->beta_slow, o, name, "beta_slow", 1e-6, 1e9, false, err));
    TRY(json_get_float(&mscale, o, name, "mscale", 0, 1e6, false, err));
    TRY(json_get_float(&mscale_all, o, name, "mscale_all_dim", 0, 1e6, false, err));
    TRY(json_get_bool(&r->truncate, o, name, "truncate", false, err));
    if (r->attention_factor == 0 && mscale != 0 && mscale_all != 0)
        r->attention_factor = yarn_scale(r->factor, mscale) / yarn_scale(r->factor, mscale_all);
    else if (r->attention_factor == 0)
        r->attention_factor = yarn_scale(r->factor, 1);
    return CB_OK;
}

static enum cb_status llama3_parse(struct rope *r, const json_t *o, const char *name, struct cb_err *err) {
    TRY(json_get_float(&r->low_freq_factor, o, name, "low_freq_factor", 1e-6, 1e6, true, err));
    TRY(json_get_float(&r->high_freq_factor, o, name, "high_freq_factor", 1e-6, 1e6, true, err));
    TRY(json_get_int(&r->original_positions, o, name, "original_max_position_embeddings", 1, (int64_t)1 << 40, true, err));
    if (r->high_freq_factor == r->low_freq_factor)
        FAIL(err, CB_E_FORMAT, "%s: high_freq_factor: found %g, as low_freq_factor; wanted two different factors", name,
             r->high_freq_factor);
    return CB_OK;
}

/* The rule, its factor and what else it reads. */
static enum cb_status scaling_parse(struct rope *r, const json_t *o, const char *name, struct cb_err *err) {
    const char *kind = NULL;
    TRY(json_get_str(&kind, o, name, "rope_type", false, err));
    if (!kind) TRY(json_get_str(&kind, o, name, "type", false, err));
    if (!kind) kind = "default";
    int i = 0;
    while (i < 5 && strcmp(kind, kind_names[i]) != 0) i++;
    if (i == 5) FAIL(err, CB_E_UNSUPPORTED, "%s: rope_type: found %.60s; wanted default, linear, dynamic, yarn or llama3", name, kind);
    r->kind = (enum rope_kind)i;
    if (r->kind == ROPE_DEFAULT) return CB_OK;
    TRY(json_get_float(&r->factor, o, name, "factor", 1e-6, 1e6, true, err));
    if (r->kind == ROPE_LLAMA3) return llama3_parse(r, o, name, err);
    if (r->kind != ROPE_YARN) return CB_OK;
    TRY(json_get_int(&r->original_positions, o, name, "original_max_position_embeddings", 1, (int64_t)1 << 40, false, err));
    return yarn_parse(r, o, name, err);
}

enum cb_status rope_parse(struct rope *rope, const json_t *config, const char *name, int64_t dim, int64_t max_positions,
                          struct cb_err *err) {
    *rope = (struct rope){.dim = dim, .theta = 10000, .factor = 1, .max_positions = max_positions, .original_positions = max_positions};
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    rope->attention_factor = 1;
    const json_t *scaling = NULL, *parameters = NULL;
    TRY(json_get_float(&rope->theta, config, name, "rope_theta", 1e-3, 1e15, false, err));
    TRY(json_get_object(&scaling, config, name, "rope_scaling", false, err));
    TRY(json_get_object(&parameters, config, name, "rope_parameters", false, err));
    if (parameters) TRY(json_get_float(&rope->theta, parameters, name, "rope_theta", 1e-3, 1e15, false, err));
    if (parameters) return scaling_parse(rope, parameters, name, err);
    return scaling ? scaling_parse(rope, scaling, name, err) : CB_OK;
}

/* The feature pair whose wave turns `rotations` times within the original length. */
static double yarn_pair(const struct rope *r, double rotations) {
    return (double)r->dim * log((double)r->original_positions / (rotations * 2 * PI)) / (2 * log(r->theta));
}

/* YaRN: pairs below `low` keep their frequency, pairs above `high` are interpolated, a ramp between. */
static void yarn_frequencies(const struct rope *r, float *inv_freq) {
    double low = yarn_pair(r, r->beta_fast), high = yarn_pair(r, r->beta_slow);
    if (r->truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, (double)(r->dim - 1));
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < r->dim / 2; i++) {
        double f = pow(r->theta, -2.0 * (double)i / (double)r->dim);
        double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
        inv_freq[i] = (float)(f / r->factor * ramp + f * (1 - ramp));
    }
}

/* Llama 3.1: long waves are stretched by the factor, short ones kept, a smooth passage between. */
static double llama3_frequency(const struct rope *r, double f) {
    double wave = 2 * PI / f, length = (double)r->original_positions;
    if (wave > length / r->low_freq_factor) return f / r->factor;
    if (wave < length / r->high_freq_factor) return f;
    double smooth = (length / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * f / r->factor + smooth * f;
}

void rope_frequencies(const struct rope *r, int64_t length, float *inv_freq) {
    if (r->kind == ROPE_YARN) {
        yarn_frequencies(r, inv_freq);
        return;
    }
    double theta = r->theta, dim = (double)r->dim;
    // dynamic NTK: the base grows with the length beyond max_positions
    if (r->kind == ROPE_DYNAMIC && length > r->max_positions && r->dim > 2)
        theta *= pow(r->factor * (double)length / (double)r->max_positions - (r->factor - 1), dim / (dim - 2));
    for (int64_t i = 0; i < r->dim / 2; i++) {
        double f = pow(theta, -2.0 * (double)i / dim);
        if (r->kind == ROPE_LINEAR) f /= r->factor;
        if (r->kind == ROPE_LLAMA3) f = llama3_frequency(r, f);
        inv_freq[i] = (float)f;
    }
}

struct cb_tensor *rope_tensor(struct cb_graph *g, const struct rope *rope, int64_t length) {
    float *inv_freq = arena_array(g->arena, (size_t)rope->dim / 2, sizeof *inv_freq);
    if (!inv_freq) return graph_fail(g, CB_E_MEMORY, "rope: no memory for %lld frequencies", (long long)rope->dim / 2);
    rope_frequencies(rope, length, inv_freq);
    return graph_const(g, type_make(CB_DTYPE_F32, 1, (const int64_t[]){rope->dim / 2}), inv_freq);
}
