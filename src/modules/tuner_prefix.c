/* Prefix tuning (Li and Liang 2021): trained rows before the keys and values of every layer, K' = [P_K; K], V' = [P_V; V]. The table (n, 2 layers width)
   holds a layer's keys, then its values. With prefix_projection an MLP makes it, tanh(E A + a) B + b; files hold what the MLP gives, the MLP lives in a
   run and its checkpoints. Prefixes count as past: the tokens' positions begin at n. */
#include <stdio.h>
#include <string.h>

#include "modules/prompt.h"
#include "ops/ops.h"

struct prefix_options {
    struct prompt prompt;  // first
    int64_t hidden;
    bool projects, is_zero;
};

enum { MADE, EMBEDDING, FIRST, LAST = FIRST + 2 };  // numbers of a fresh site's parameters: the table, E, the MLP's

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct prefix_options *o = (struct prefix_options *)m->options;
    const char *init = NULL;
    TRY(prompt_parse(m, where, err));
    TRY(json_get_int(&o->hidden, m->config, where, "encoder_hidden_size", 1, 1 << 20, false, err));
    TRY(json_get_bool(&o->projects, m->config, where, "prefix_projection", false, err));
    TRY(json_get_str(&init, m->config, where, "init_weights", false, err));
    if (init && strcmp(init, "zero") != 0) FAIL(err, CB_E_FORMAT, "%s: init_weights: found %.60s; wanted null or zero", where, init);
    o->is_zero = init != NULL;
    m->n_past = o->prompt.n;
    return CB_OK;
}

/* Of models with two stacks the decoder's own attention alone. */
static bool match(const struct nn_site *site) {
    return (site->kind == NN_KEYS || site->kind == NN_VALUES) && (!site->role || strcmp(site->role, "decoder") == 0);
}

static bool implied(const struct module *m, const struct nn_site *site) {
    (void)m;
    return match(site);
}

static enum cb_status declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    struct prefix_options *o = (struct prefix_options *)m->options;
    for (int i = 0; i < sites->n_sites; i++) {
        const struct nn_site *site = sites->sites[i];
        if (!match(site)) continue;
        TRY(prompt_settle(m, sites, site->out, sites->n_kv_head, err));
        TRY(prompt_settle_hidden(m, &o->hidden, err));
        if (o->prompt.layers < sites->n_layer)
            FAIL(err, CB_E_SHAPE, "%s: num_layers: found %lld; wanted %lld, as many as the model's", m->name, (long long)o->prompt.layers,
                 (long long)sites->n_layer);
        return CB_OK;
    }
    return CB_OK;
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct prefix_options *o = m->options;
    const int64_t n = o->prompt.n, c = o->prompt.channels, wide = 2 * o->prompt.layers * c;
    const bool makes = o->projects && m->is_fresh;
    const enum tuner_init init = o->is_zero ? TUNER_ZEROS : TUNER_NORMAL;
    if (site->site.out != c)
        FAIL(err, CB_E_SHAPE, "%s: %s is %lld wide; wanted %lld, as in every layer", m->name, site->site.name, (long long)site->site.out,
             (long long)c);
    TRY(prompt_add_table(m, site, n, wide, makes, (struct tuner_param){.init = init, .spread = 1}, err));
    if (!makes) return CB_OK;
    TRY(prompt_add_inner(m, site, "embedding.weight", 2, (const int64_t[]){n, c}, TUNER_NORMAL, 1, err));
    TRY(prompt_add_linear(m, site, "transform.0", c, o->hidden, TUNER_UNIFORM, err));
    return prompt_add_linear(m, site, "transform.2", o->hidden, wide, o->is_zero ? TUNER_ZEROS : TUNER_UNIFORM, err);
}

static struct cb_tensor *make(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    struct cb_tensor *x = prompt_linear(m, site, FIRST, nn, tuner_leaf(m, site, EMBEDDING, nn));
    return prompt_linear(m, site, LAST, nn, op_unary(nn->g, "tanh", x));
}

static struct cb_tensor *before(const struct module *m, const struct tuner_site *site, struct nn *nn, const struct nn_prefixed *attention) {
    const struct prefix_options *o = m->options;
    const int64_t c = o->prompt.channels, shape[4] = {1, o->prompt.n, attention->heads, attention->head_dim};
    // rows of two stacks go four to a layer, two of them for an attention to the source that PEFT then leaves without
    const int64_t layer = o->prompt.stacks > 1 ? 2 * nn->layer % o->prompt.layers : nn->layer;
    const int64_t at = (2 * layer + (site->site.kind == NN_VALUES)) * c;
    struct cb_tensor *rows = op_slice(nn->g, tuner_value(m, site, MADE, nn), 1, at, at + c, 1);
    return op_reshape(nn->g, rows, 4, shape);
}

static const struct tuner_option options[] = {
    {"n", "num_virtual_tokens", TUNER_INT, "rows before the keys and values of each layer"},
    {"projection", "prefix_projection", TUNER_BOOL, "an MLP makes them: steadier training, the file holds what it gives"},
    {"hidden", "encoder_hidden_size", TUNER_INT, "width of the MLP; else that of the keys"},
    {"init", "init_weights", TUNER_STR, "zero: the prefix begins at zero"},
    PROMPT_SAVE,
    {0},
};
static const char *const cases[] = {"prefix:n=3", "prefix:n=2,projection=true,hidden=8", NULL};

const struct tuner tuner_prefix = {
    .name = "prefix",
    .doc = "Prefix tuning: trained rows before the keys and values of every layer.",
    .peft_type = "PREFIX_TUNING",
    .options = options,
    .defaults =
        "{" PROMPT_JSON ",\"encoder_hidden_size\":null,\"init_weights\":null,\"peft_type\":\"PREFIX_TUNING\",\"prefix_projection\":false}",
    .options_bytes = sizeof(struct prefix_options),
    .fresh = TUNER_NOT_BASE,
    .prefix = "base_model.",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .make = make,
    .before = before,
    .refuses_fold = prompt_refuses_fold,
};
