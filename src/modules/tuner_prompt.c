/* Prompt tuning (Lester et al. 2021): trained rows before the embeddings of the tokens, X' = [P; X]. */
#include "modules/prompt.h"

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    TRY(prompt_parse(m, where, err));
    TRY(prompt_parse_init(m, where, err));
    m->n_rows = ((const struct prompt *)m->options)->n;
    return CB_OK;
}

static const struct tuner_option options[] = {
    {"n", "num_virtual_tokens", TUNER_INT, "virtual tokens"}, PROMPT_INIT, PROMPT_SAVE, PROMPT_TEXT, {0},
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
    .options_bytes = sizeof(struct prompt),
    .fresh = TUNER_NOT_BASE,
    .prefix = "base_model.",
    .cases = cases,
    .parse = parse,
    .match = prompt_match,
    .implied = prompt_implied,
    .declare_shared = prompt_declare_shared,
    .declare = prompt_add_rows,
    .rows = prompt_rows,
    .refuses_fold = prompt_refuses_fold,
};
