/* ADePT (Tang et al. 2025, arXiv:2501.03291): prompt tuning whose words are moved too, by two thin layers that all share, X' = [P; E + relu(E A + a) B + b];
   input-tuning (An et al. 2022, arXiv:2203.03131) trains prompts and words' places too. Files as the authors' PEFT writes them. */
#include <math.h>

#include "modules/prompt.h"
#include "ops/ops.h"

struct adept_options {
    struct prompt prompt;  // first
    int64_t r;
};

enum { TABLE, A, A_BIAS, B, B_BIAS };  // numbers of the parameters

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct adept_options *o = (struct adept_options *)m->options;
    TRY(prompt_parse(m, where, err));
    TRY(prompt_parse_init(m, where, err));
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, true, err));
    m->n_rows = o->prompt.n;
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct adept_options *o = m->options;
    const int64_t c = o->prompt.channels, r = o->r;
    const struct {
        const char *key;
        int rank;
        int64_t dim[2];
        enum tuner_init init;
    } thin[] = {{"prompt_encoder.lora_embedding_A", 2, {c, r}, TUNER_UNIFORM},
                {"prompt_encoder.lora_embedding_a", 1, {r}, TUNER_ZEROS},
                {"prompt_encoder.lora_embedding_B", 2, {r, c}, TUNER_ZEROS},
                {"prompt_encoder.lora_embedding_b", 1, {c}, TUNER_ZEROS}};
    TRY(prompt_add_rows(m, site, err));
    for (int i = 0; i < 4; i++) {
        struct tuner_param rest = {.init = thin[i].init, .spread = 1 / sqrt((double)r)};  // PyTorch's kaiming_uniform_ counts A's columns
        rest.public.key = thin[i].key;
        rest.public.type = type_make(CB_DTYPE_F32, thin[i].rank, thin[i].dim);
        TRY(tuner_add(m, site, rest, NULL, err));
    }
    return CB_OK;
}

/* x w + b, w being (in,out). */
static struct cb_tensor *linear(const struct module *m, const struct tuner_site *site, int i, struct nn *nn, struct cb_tensor *x) {
    return op_linear(nn->g, x, tuner_leaf(m, site, i, nn), tuner_leaf(m, site, i + 1, nn), true);
}

/* The words y (B,T,channels) in their new places. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    (void)x;
    (void)scale;  // as with all that acts on inputs
    return op_add(nn->g, y, linear(m, site, B, nn, op_unary(nn->g, "relu", linear(m, site, A, nn, y))));
}

static const struct tuner_option options[] = {
    {"n", "num_virtual_tokens", TUNER_INT, "virtual tokens"},
    {"r", "r", TUNER_INT, "width of the two layers that move the words"},
    PROMPT_INIT,
    PROMPT_SAVE,
    PROMPT_TEXT,
    {0},
};
static const char *const cases[] = {"adept:n=3,r=4", "adept:n=2,r=4,init=SAMPLE_VOCAB", NULL};

const struct tuner tuner_adept = {
    .name = "adept",
    .doc = "ADePT, input-tuning: virtual tokens, and two thin layers that move the words' embeddings.",
    .peft_type = "PROMPT_TUNING_LORAX",
    .options = options,
    .defaults = "{" PROMPT_JSON
                ",\"peft_type\":\"PROMPT_TUNING_LORAX\",\"prompt_tuning_init\":\"RANDOM\",\"prompt_tuning_init_text\":null,\"r\":8,"
                "\"tokenizer_name_or_path\":null}",
    .options_bytes = sizeof(struct adept_options),
    .fresh = TUNER_NOT_BASE,
    .prefix = "base_model.",
    .cases = cases,
    .parse = parse,
    .match = prompt_match,
    .implied = prompt_implied,
    .declare_shared = prompt_declare_shared,
    .declare = declare,
    .delta = delta,
    .rows = prompt_rows,
    .refuses_fold = prompt_refuses_fold,
};
