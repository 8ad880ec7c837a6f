/* Trainable tokens: some rows of the words' table are trained, as new rows that stand for the table's own; a head that shares the table has them too. */
#include <string.h>

#include "modules/tuner.h"

struct tokens_options {
    const json_t *indices;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct tokens_options *o = (struct tokens_options *)m->options;
    bool init = true;
    TRY(json_get_bool(&init, m->config, where, "init_weights", false, err));
    return json_get_array(&o->indices, m->config, where, "token_indices", true, err);
}

static bool match(const struct nn_site *site) { return site->kind == NN_EMBEDDING || site->kind == NN_HEAD; }

static bool implied(const struct module *m, const struct nn_site *site) { return site == tuner_word_table(m->nn); }

static bool has_rows(const struct module *m, const char *site) {
    for (int i = 0; i < m->n_new_rows; i++)
        if (strcmp(m->new_rows[i].site, site) == 0) return true;
    return false;
}

/* The library keeps the rows once for each module that shares the table; the last module's are the trained ones. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct tokens_options *o = m->options;
    const struct nn_site *last = NULL;
    if (has_rows(m, site->site.name)) return CB_OK;
    for (int i = 0; i < m->nn->n_sites; i++)
        if (m->nn->sites[i]->weight && strcmp(m->nn->sites[i]->weight, site->site.weight) == 0) last = m->nn->sites[i];
    TRY(tuner_add_rows(m, last, o->indices, "trainable_tokens_delta", m->name, err));
    const int delta = m->new_rows[m->n_new_rows - 1].delta;
    for (int i = 0; i < m->nn->n_sites; i++) {
        const struct tuner_site place = {.site = *m->nn->sites[i]};
        if (m->nn->sites[i] == last || !place.site.weight || strcmp(place.site.weight, last->weight) != 0) continue;
        TRY(tuner_tie_rows(m, &place.site, err));
        TRY(tuner_add_alias(m, tuner_key(m, &place, "trainable_tokens_delta", err), delta, err));
    }
    return CB_OK;
}

static const struct tuner_option options[] = {
    {"tokens", "token_indices", TUNER_INTS, "numbers of the rows, joined by +"},
    {"targets", "target_modules", TUNER_STRS, "tables: names or endings joined by +; without: the words'"},
    {0},
};
static const char *const cases[] = {"trainable_tokens:tokens=3+1+10", NULL};

const struct tuner tuner_trainable_tokens = {
    .name = "trainable_tokens",
    .doc = "Trainable tokens: some rows of the words' table.",
    .peft_type = "TRAINABLE_TOKENS",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"inference_mode\":true,\"init_weights\":true,"
        "\"peft_type\":\"TRAINABLE_TOKENS\",\"peft_version\":\"0.21.2\",\"revision\":null,\"target_modules\":null,"
        "\"task_type\":null,\"token_indices\":[]}",
    .options_bytes = sizeof(struct tokens_options),
    .fresh = TUNER_IS_BASE,
    .scaling = "nothing: new rows stand for the old ones",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare = declare,
};
