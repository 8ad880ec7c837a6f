/* Sizes, tables and encoders of virtual tokens and prefixes, as PEFT's configurations name them. */
#include "modules/prompt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "ops/ops.h"

#define SIZE_LIMIT (1 << 20)

enum cb_status prompt_parse(struct module *m, const char *where, struct cb_err *err) {
    struct prompt *p = (struct prompt *)m->options;
    const json_t *c = m->config;
    TRY(json_get_int(&p->n, c, where, "num_virtual_tokens", 1, SIZE_LIMIT, true, err));
    TRY(json_get_int(&p->channels, c, where, "token_dim", 1, SIZE_LIMIT, false, err));
    TRY(json_get_int(&p->layers, c, where, "num_layers", 1, SIZE_LIMIT, false, err));
    TRY(json_get_int(&p->heads, c, where, "num_attention_heads", 1, SIZE_LIMIT, false, err));
    return json_get_int(&p->stacks, c, where, "num_transformer_submodules", 1, 2, false, err);
}

enum cb_status prompt_parse_init(struct module *m, const char *where, struct cb_err *err) {
    static const char *const names[] = {"RANDOM", "SAMPLE_VOCAB", "TEXT"};
    const char *init = "RANDOM", *text = NULL, *tokenizer = NULL;
    TRY(json_get_str(&init, m->config, where, "prompt_tuning_init", false, err));
    TRY(json_get_str(&text, m->config, where, "prompt_tuning_init_text", false, err));
    TRY(json_get_str(&tokenizer, m->config, where, "tokenizer_name_or_path", false, err));
    int k = 0;
    while (k < 3 && strcmp(names[k], init) != 0) k++;
    if (k == 3) FAIL(err, CB_E_FORMAT, "%s: prompt_tuning_init: found %.60s; wanted RANDOM, SAMPLE_VOCAB or TEXT", where, init);
    if (k == PROMPT_OF_TEXT && (!text || !*text))
        FAIL(err, CB_E_FORMAT, "%s: prompt_tuning_init_text: found none; wanted the text that the prompt begins as", where);
    ((struct prompt *)m->options)->from = k;
    m->init_text = k == PROMPT_OF_TEXT ? text : NULL;
    return CB_OK;
}

enum cb_status prompt_settle(struct module *m, const struct nn *sites, int64_t channels, int64_t heads, struct cb_err *err) {
    struct prompt *p = (struct prompt *)m->options;
    if (p->channels && p->channels != channels)
        FAIL(err, CB_E_SHAPE, "%s: token_dim: found %lld; wanted %lld, as wide as the model's", m->name, (long long)p->channels,
             (long long)channels);
    p->channels = channels;
    if (!p->layers) p->layers = sites->n_layer;
    if (!p->heads) p->heads = heads;
    const char *task = json_string_value(json_object_get(m->config, "task_type"));
    if (!p->stacks) p->stacks = task && strcmp(task, "SEQ_2_SEQ_LM") == 0 ? 2 : 1;
    if (!m->is_fresh) return CB_OK;
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {{"token_dim", p->channels},
                 {"num_layers", p->layers},
                 {"num_attention_heads", p->heads},
                 {"num_transformer_submodules", p->stacks}};
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof sizes / sizeof *sizes; i++)
        ok = json_object_set_new(m->config, sizes[i].key, json_integer(sizes[i].value)) == 0;
    if (!ok) FAIL(err, CB_E_MEMORY, "%s: no memory for its configuration", m->name);
    return CB_OK;
}

enum cb_status prompt_settle_hidden(struct module *m, int64_t *hidden, struct cb_err *err) {
    if (!*hidden) *hidden = ((const struct prompt *)m->options)->channels;
    if (m->is_fresh && json_object_set_new(m->config, "encoder_hidden_size", json_integer(*hidden)) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for its configuration", m->name);
    return CB_OK;
}

/* PEFT reads no TEXT without the name of a tokenizer: the model's. */
static enum cb_status tokenizer_name(struct module *m, struct cb_err *err) {
    const json_t *own = json_object_get(m->config, "tokenizer_name_or_path");
    json_t *base = json_object_get(m->config, "base_model_name_or_path");
    if (!m->is_fresh || !m->init_text || json_is_string(own) || !json_is_string(base)) return CB_OK;
    if (json_object_set(m->config, "tokenizer_name_or_path", base) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for its configuration", m->name);
    return CB_OK;
}

enum cb_status prompt_declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    for (int i = 0; i < sites->n_sites; i++) {
        const struct nn_site *site = sites->sites[i];
        if (!site->reads_tokens) continue;
        ((struct prompt *)m->options)->rows_scale = site->rows_scale;
        TRY(tokenizer_name(m, err));
        return prompt_settle(m, sites, site->out, sites->n_head, err);
    }
    return CB_OK;
}

/* ---- parameters */
enum cb_status prompt_add_table(struct module *m, struct tuner_site *site, int64_t rows, int64_t channels, bool is_made,
                                struct tuner_param rest, struct cb_err *err) {
    rest.public.key = PROMPT_TABLE;
    rest.public.type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){rows, channels});
    if (is_made) rest.role = TUNER_MADE;
    return tuner_add(m, site, rest, NULL, err);
}

enum cb_status prompt_add_inner(struct module *m, struct tuner_site *site, const char *name, int rank, const int64_t *dim,
                                enum tuner_init init, double spread, struct cb_err *err) {
    struct tuner_param rest = {.init = init, .spread = spread, .role = TUNER_INNER};
    rest.public.key = arena_printf(m->arena, "prompt_encoder.%s", name);
    rest.public.type = type_make(CB_DTYPE_F32, rank, dim);
    if (!rest.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    return tuner_add(m, site, rest, NULL, err);
}

enum cb_status prompt_add_linear(struct module *m, struct tuner_site *site, const char *name, int64_t in, int64_t out, enum tuner_init init,
                                 struct cb_err *err) {
    const double spread = 1 / sqrt((double)in);
    char text[64];
    snprintf(text, sizeof text, "%s.weight", name);
    TRY(prompt_add_inner(m, site, text, 2, (const int64_t[]){out, in}, init, spread, err));
    snprintf(text, sizeof text, "%s.bias", name);
    return prompt_add_inner(m, site, text, 1, &out, init, spread, err);
}

struct cb_tensor *prompt_linear(const struct module *m, const struct tuner_site *site, int i, struct nn *nn, struct cb_tensor *x) {
    return op_linear(nn->g, x, tuner_leaf(m, site, i, nn), tuner_leaf(m, site, i + 1, nn), false);
}

enum cb_status prompt_fill(const struct module *m, const struct tuner_param *p, const struct nn_site *site, bool by_text, double scale,
                           struct store *store, uint64_t seed, float *to, struct cb_err *err) {
    const int64_t rows = p->public.type.dim[0], c = p->public.type.dim[1];
    const struct tuner_site place = {.site = *site};
    struct rng rng = rng_make(seed, rng_hash(p->public.key));
    float *table;
    TRY(tuner_base_weight(&table, &place, store, err));
    for (int64_t i = 0; i < rows; i++) {
        int64_t id = by_text ? m->init_ids[i % m->n_init_ids] : (int64_t)rng_below(&rng, (uint64_t)site->in);
        for (int64_t k = 0; k < c; k++) to[i * c + k] = (float)(table[id * c + k] * (scale != 0 ? scale : 1));
    }
    free(table);
    return CB_OK;
}

static enum cb_status fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *to,
                           struct cb_err *err) {
    const struct prompt *o = m->options;
    return prompt_fill(m, p, &m->sites[p->site].site, o->from == PROMPT_OF_TEXT, o->rows_scale, store, seed, to, err);
}

enum cb_status prompt_add_rows(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct prompt *p = m->options;
    const struct tuner_param rest = {.init = TUNER_NORMAL, .spread = 1, .fill = p->from == PROMPT_OF_NORMAL ? NULL : fill};
    return prompt_add_table(m, site, p->n * p->stacks, p->channels, false, rest, err);
}

/* ---- for descriptors */
bool prompt_match(const struct nn_site *site) { return site->reads_tokens; }

bool prompt_implied(const struct module *m, const struct nn_site *site) {
    (void)m;
    return site->reads_tokens;
}

const char *prompt_refuses_fold(const struct module *m) {
    (void)m;
    return "it acts on what the model reads";
}

struct cb_tensor *prompt_rows(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct prompt *p = m->options;
    struct cb_tensor *table = tuner_value(m, site, 0, nn);
    return p->stacks > 1 ? op_slice(nn->g, table, 0, 0, p->n, 1) : table;
}
