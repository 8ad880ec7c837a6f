/* generation_config.json: the rules that decoding keeps to, what it draws by, and a warning about what it does not do. */
#include "api/generation.h"

#include <stdio.h>
#include <string.h>

#define MOST_NGRAM (1 << 20)
#define MOST_NEW (INT32_MAX / 2)
#define USUAL_TOP_K 50  // of Transformers, where it samples

/* Whether a value asks for anything; off: the number that does not. */
static bool is_on(const json_t *value, double off) {
    if (json_is_number(value)) return json_number_value(value) != off;
    return json_is_true(value) || json_array_size(value) || json_object_size(value) || json_string_length(value);
}

static void tell_unknown(const json_t *config, const char *name, const struct cb_engine *engine) {
    static const struct {
        const char *key;
        double off;
    } rows[] = {{"num_beams", 1},
                {"num_beam_groups", 1},
                {"min_length", 0},
                {"min_new_tokens", 0},
                {"encoder_repetition_penalty", 1},
                {"encoder_no_repeat_ngram_size", 0},
                {"bad_words_ids", 0},
                {"suppress_tokens", 0},
                {"begin_suppress_tokens", 0},
                {"forced_decoder_ids", 0},
                {"sequence_bias", 0},
                {"exponential_decay_length_penalty", 0},
                {"guidance_scale", 1},
                {"penalty_alpha", 0},
                {"stop_strings", 0}};
    char text[400] = "";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const size_t used = strlen(text);
        if (!is_on(json_object_get(config, rows[i].key), rows[i].off)) continue;
        snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "", rows[i].key);
    }
    if (*text) engine_warn(engine, "%s asks for what is not done here: %s; Transformers may answer otherwise", name, text);
}

/* Transformers draws only where do_sample is true. */
static enum cb_status sampling_read(struct generation_rules *rules, const json_t *config, const char *name, struct cb_err *err) {
    struct sample_options *s = &rules->sampling;
    bool draws = false;
    TRY(json_get_bool(&draws, config, name, "do_sample", false, err));
    TRY(json_get_float(&s->temperature, config, name, "temperature", 0, 1e6, false, err));
    TRY(json_get_float(&s->top_p, config, name, "top_p", 0, 1, false, err));
    TRY(json_get_float(&s->min_p, config, name, "min_p", 0, 1, false, err));
    TRY(json_get_float(&s->repeat_penalty, config, name, "repetition_penalty", 0, 1e6, false, err));
    if (draws && !json_object_get(config, "top_k")) s->top_k = USUAL_TOP_K;
    TRY(json_get_int(&s->top_k, config, name, "top_k", -1, INT64_MAX, false, err));
    if (s->top_k < 0) s->top_k = 0;
    // a temperature of 0 is another word for it
    const bool is_cold = json_is_number(json_object_get(config, "temperature")) && s->temperature == 0;
    s->greedy = json_is_false(json_object_get(config, "do_sample")) || is_cold;
    return json_get_int(&rules->max_new, config, name, "max_new_tokens", 1, MOST_NEW, false, err);
}

struct sample_options generation_sampling(const struct generation_rules *rules, const struct cb_generate_options *o) {
    struct sample_options s = rules->sampling;
    s.greedy = o->greedy || (s.greedy && !o->temperature && !o->top_p && !o->min_p && !o->top_k);
    if (o->temperature) s.temperature = o->temperature;
    if (o->top_p) s.top_p = o->top_p;
    if (o->min_p) s.min_p = o->min_p == -1 ? 0 : o->min_p;
    if (o->top_k) s.top_k = o->top_k == -1 ? 0 : o->top_k;
    if (o->repeat_penalty) s.repeat_penalty = o->repeat_penalty;
    return s;
}

enum cb_status generation_rules_read(struct generation_rules *rules, const struct model *m, const struct cb_engine *engine,
                                     struct cb_err *err) {
    const char *name = m->generation ? "generation_config.json" : "config.json";
    const json_t *config = m->generation ? m->generation : m->config;
    int64_t ends[MODEL_MAX_EOS];
    int n = 0;
    *rules = (struct generation_rules){.forced_eos = -1};
    TRY(json_get_int(&rules->no_repeat_ngram, config, name, "no_repeat_ngram_size", 0, MOST_NGRAM, false, err));
    TRY(json_get_ints(ends, &n, MODEL_MAX_EOS, config, name, "forced_eos_token_id", 0, m->vocab - 1, false, err));
    // of several, all equally likely, the greedy choice is the first
    for (int i = 0; i < n; i++)
        if (rules->forced_eos < 0 || ends[i] < rules->forced_eos) rules->forced_eos = ends[i];
    TRY(sampling_read(rules, config, name, err));
    // a file does not ask for more memory than the model has positions for
    if (m->max_positions > 0 && rules->max_new > m->max_positions) rules->max_new = m->max_positions;
    tell_unknown(config, name, engine);
    return CB_OK;
}
