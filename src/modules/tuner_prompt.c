/* Prompt tuning (Lester et al. 2021): trained rows before the embeddings of the tokens, X' = [P; X]. */
#include <string.h>

#include "modules/prompt.h"

struct prompt_options {
    struct prompt prompt;  // first
    enum { FROM_NORMAL, FROM_VOCABULARY, FROM_TEXT } from;
    const char *text;
    double rows_scale;  // of the embedding's rows; 0: 1
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    static const char *const names[] = {"RANDOM", "SAMPLE_VOCAB", "TEXT"};
    struct prompt_options *o = (struct prompt_options *)m->options;
    const char *init = "RANDOM", *tokenizer = NULL;
    TRY(prompt_parse(m, where, err));
    TRY(json_get_str(&init, m->config, where, "prompt_tuning_init", false, err));
    TRY(json_get_str(&o->text, m->config, where, "prompt_tuning_init_text", false, err));
    TRY(json_get_str(&tokenizer, m->config, where, "tokenizer_name_or_path", false, err));
    int k = 0;
    while (k < 3 && strcmp(names[k], init) != 0) k++;
    if (k == 3) FAIL(err, CB_E_FORMAT, "%s: prompt_tuning_init: found %.60s; wanted RANDOM, SAMPLE_VOCAB or TEXT", where, init);
    o->from = k;
    if (o->from == FROM_TEXT && (!o->text || !*o->text))
        FAIL(err, CB_E_FORMAT, "%s: prompt_tuning_init_text: found none; wanted the text that the prompt begins as", where);
    m->n_rows = o->prompt.n;
    m->init_text = o->from == FROM_TEXT ? o->text : NULL;
    return CB_OK;
}

static enum cb_status fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *to,
                           struct cb_err *err) {
    const struct prompt_options *o = m->options;
    return prompt_fill(m, p, &m->sites[p->site].site, o->from == FROM_TEXT, o->rows_scale, store, seed, to, err);
}

/* PEFT reads no TEXT without the name of a tokenizer: the model's. */
static enum cb_status tokenizer_name(struct module *m, struct cb_err *err) {
    const json_t *own = json_object_get(m->config, "tokenizer_name_or_path");
    json_t *base = json_object_get(m->config, "base_model_name_or_path");
    if (!m->init_text || json_is_string(own) || !json_is_string(base)) return CB_OK;
    if (json_object_set(m->config, "tokenizer_name_or_path", base) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for its configuration", m->name);
    return CB_OK;
}

static enum cb_status declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    struct prompt_options *o = (struct prompt_options *)m->options;
    for (int i = 0; i < sites->n_sites; i++) {
        const struct nn_site *site = sites->sites[i];
        if (!site->reads_tokens) continue;
        o->rows_scale = site->rows_scale;
        if (m->is_fresh) TRY(tokenizer_name(m, err));
        return prompt_settle(m, sites, site->out, sites->n_head, err);
    }
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct prompt_options *o = m->options;
    struct tuner_param rest = {.init = TUNER_NORMAL, .spread = 1, .fill = o->from == FROM_NORMAL ? NULL : fill};
    return prompt_add_table(m, site, o->prompt.n * o->prompt.stacks, o->prompt.channels, false, rest, err);
}

static const struct tuner_option options[] = {
    {"n", "num_virtual_tokens", TUNER_INT, "virtual tokens"},
    {"init", "prompt_tuning_init", TUNER_STR, "RANDOM, SAMPLE_VOCAB (embeddings of tokens drawn) or TEXT (of those of text)"},
    PROMPT_SAVE,
    {"text", "prompt_tuning_init_text", TUNER_TEXT, "what the prompt begins as, with init=TEXT; the last option, commas are its own"},
    {0},
};
static const char *const cases[] = {"prompt:n=3", "prompt:n=5,init=SAMPLE_VOCAB", NULL};

const struct tuner tuner_prompt = {
    .name = "prompt",
    .doc = "Prompt tuning: trained embeddings of virtual tokens before those of the tokens.",
    .peft_type = "PROMPT_TUNING",
    .options = options,
    .defaults = "{" PROMPT_JSON
                ",\"peft_type\":\"PROMPT_TUNING\",\"prompt_tuning_init\":\"RANDOM\",\"prompt_tuning_init_text\":null,\"tokenizer_kwargs\":"
                "null,\"tokenizer_name_or_path\":null}",
    .options_bytes = sizeof(struct prompt_options),
    .fresh = TUNER_NOT_BASE,
    .prefix = "base_model.",
    .cases = cases,
    .parse = parse,
    .match = prompt_match,
    .implied = prompt_implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .rows = prompt_rows,
    .refuses_fold = prompt_refuses_fold,
};
