/* generation_config.json: the rules that decoding keeps to, and a warning about those that it does not. */
#include "api/generation.h"

#include <stdio.h>
#include <string.h>

#define MOST_NGRAM (1 << 20)

/* Whether a value asks for anything; off: the number that does not. */
static bool is_on(const json_t *value, double off) {
    if (json_is_number(value)) return json_number_value(value) != off;
    return json_is_true(value) || json_array_size(value) || json_object_size(value) || json_string_length(value);
}

static void tell_unknown(const json_t *config, const char *name, bool repeat_penalty, const struct cb_engine *engine) {
    static const struct {
        const char *key;
        double off;
    } rows[] = {{"num_beams", 1},
                {"num_beam_groups", 1},
                {"min_length", 0},
                {"min_new_tokens", 0},
                {"repetition_penalty", 1},
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
        if (repeat_penalty && !strcmp(rows[i].key, "repetition_penalty")) continue;
        snprintf(text + used, sizeof text - used, "%s%s", used ? ", " : "", rows[i].key);
    }
    if (*text) engine_warn(engine, "%s asks for what is not done here: %s; Transformers may answer otherwise", name, text);
}

enum cb_status generation_rules_read(struct generation_rules *rules, const struct model *m, bool repeat_penalty,
                                     const struct cb_engine *engine, struct cb_err *err) {
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
    tell_unknown(config, name, repeat_penalty, engine);
    return CB_OK;
}
