/* LoRA (Hu et al. 2021): y = W x + b + (alpha / r) B A drop(x); rsLoRA's alpha / sqrt(r) (Kalajdzievski 2023), DoRA, a bias behind B, token rows, and
   starts of several kinds are options. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "modules/lora.h"
#include "modules/parts.h"
#include "ops/ops.h"

/* Options of PEFT that change what the numbers mean: on is refused by name. */
static enum cb_status refuse(const json_t *config, const char *where, struct cb_err *err) {
    static const char *const flags[] = {"use_qalora", "use_bdlora"};
    static const char *const others[] = {"target_parameters", "alora_invocation_tokens", "arrow_config", "megatron_config", "velora_config",
                                         "kasa_config",       "monteclora_config"};
    char text[JSON_TEXT];
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool on = false;
        TRY(json_get_bool(&on, config, where, flags[i], false, err));
        if (on) FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found true, which is not done here; wanted false", where, flags[i]);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const json_t *value = json_object_get(config, others[i]);
        if (value && !json_is_null(value) && !(json_is_array(value) && !json_array_size(value)) &&
            !(json_is_object(value) && !json_object_size(value)))
            FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %s, which is not done here; wanted null", where, others[i], json_text(value, text));
    }
    return CB_OK;
}

/* init_lora_weights: true, or a word; what a fresh module is follows from it. */
static enum cb_status init_parse(struct module *m, struct lora_options *o, const char *where, struct cb_err *err) {
    const json_t *value = json_object_get(m->config, "init_lora_weights");
    const char *word = json_string_value(value);
    char text[JSON_TEXT], names[300];
    o->init = lora_init_find(word ? word : "default", &o->iterations);
    if (!o->init || (value && !word && !json_is_boolean(value) && !json_is_null(value)))
        FAIL(err, CB_E_UNSUPPORTED, "%s: init_lora_weights: found %s; wanted true or one of %s", where, json_text(value, text),
             lora_init_names(names));
    if (o->init->keeps_b && o->dora)
        FAIL(err, CB_E_UNSUPPORTED, "%s: init_lora_weights: found %s beside use_dora; wanted one of them", where, o->init->name);
    m->fresh = o->dora && o->init->fresh == TUNER_IS_BASE ? TUNER_NEAR_BASE : o->init->fresh;
    m->is_additive = !o->dora;
    if ((o->init->keeps_b || o->init->is_quantised) && o->bias)
        FAIL(err, CB_E_UNSUPPORTED, "%s: init_lora_weights: found %s beside lora_bias; wanted one of them", where, o->init->name);
    if (o->init->of_moments) TRY(lora_corda_parse(m, o, where, err));
    return o->init->is_quantised ? lora_loftq_parse(m, o, where, err) : CB_OK;
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct lora_options *o = (struct lora_options *)m->options;
    const json_t *c = m->config, *tokens = json_object_get(c, "trainable_token_indices");
    char text[JSON_TEXT];
    o->r = 8;
    o->alpha = 8;
    TRY(json_get_int(&o->r, c, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, c, where, "lora_alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, c, where, "lora_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->rslora, c, where, "use_rslora", false, err));
    TRY(json_get_bool(&o->dora, c, where, "use_dora", false, err));
    TRY(json_get_bool(&o->bias, c, where, "lora_bias", false, err));
    if (o->bias && o->dora) FAIL(err, CB_E_UNSUPPORTED, "%s: lora_bias: found true beside use_dora; wanted one of them", where);
    TRY(refuse(c, where, err));
    TRY(init_parse(m, o, where, err));
    if (tokens && !json_is_null(tokens)) {
        if (!json_is_array(tokens) && !json_is_object(tokens))
            FAIL(err, CB_E_FORMAT, "%s: trainable_token_indices: found %s; wanted a list, or an object of lists", where,
                 json_text(tokens, text));
        o->tokens = tokens;
    }
    TRY(tuner_numbers_parse(m, &o->ranks, where, "rank_pattern", 1, TUNER_RANK_LIMIT, true, err));
    return tuner_numbers_parse(m, &o->alphas, where, "alpha_pattern", -1e6, 1e6, false, err);
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD || site->kind == NN_EMBEDDING; }

static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    const struct lora_options *o = m->options;
    // what PEFT wants to read beside the word
    if (m->is_fresh && o->init->of_inputs &&
        json_object_set_new(m->config, "eva_config",
                            json_pack("{s:b,s:i,s:f,s:f,s:b,s:b}", "adjust_scaling_factors", 1, "label_mask_value", -100, "rho", 1.0, "tau",
                                      0.99, "use_label_mask", 1, "whiten", 0)) != 0)
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    if (m->is_fresh && o->init->of_moments) TRY(lora_corda_config(m, err));
    if (!m->is_fresh && o->init->is_quantised) TRY(lora_loftq_check(m, o, err));
    if (m->is_fresh && o->init->is_quantised &&
        (json_object_set_new(json_object_get(m->config, "loftq_config"), "loftq_bits", json_integer(o->loftq.bits)) != 0 ||
         json_object_set_new(json_object_get(m->config, "loftq_config"), "loftq_iter", json_integer(o->loftq.iterations)) != 0 ||
         json_object_set_new(json_object_get(m->config, "loftq_config"), "loftq_reading",
                             json_string(o->loftq.is_peft ? "peft" : "paper")) != 0))
        FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
    return o->tokens ? tuner_token_rows(m, nn, o->tokens, m->name, err) : CB_OK;
}

/* One more parameter of a site, with a value that is not drawn. */
static enum cb_status add_filled(struct module *m, struct tuner_site *site, const char *suffix, int rank, const int64_t *dim,
                                 enum tuner_role role, tuner_fill *fill, struct cb_err *err) {
    struct tuner_param p = {.role = role, .fill = fill};
    p.public.key = tuner_key(m, site, suffix, err);
    p.public.type = type_make(CB_DTYPE_F32, rank, dim);
    return tuner_add(m, site, p, NULL, err);
}

/* A (r,in), B (out,r) of a linear layer, uniform in 1 / sqrt(in) (kaiming with a = sqrt(5)) and zeros unless the start is another. */
static enum cb_status declare_linear(struct module *m, struct tuner_site *site, struct lora_site *own, struct cb_err *err) {
    const struct lora_options *o = m->options;
    const int64_t a[2] = {site->rank, site->site.in}, b[2] = {site->site.out, site->rank}, out = site->site.out;
    const int64_t whole[2] = {site->site.out, site->site.in};
    const bool is_quantised = lora_loftq_wanted(m, site), fills = !o->init->is_quantised || is_quantised;
    if (site->shared && (o->init->is_quantised || (o->init->is_residual && !m->is_fresh)))
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: init_lora_weights: found %s at a weight that another site reads, which PEFT changes there too; "
             "wanted the module as plain LoRA",
             site->site.name, o->init->name);
    // A and B are made of what is lost, which is known before them
    if (is_quantised) TRY(add_filled(m, site, "lora_shift", 2, whole, TUNER_DERIVED, lora_fill_shift, err));
    if (o->init->a && fills)
        TRY(add_filled(m, site, "lora_A.weight", 2, a, TUNER_TRAINED, o->init->a, err));
    else
        TRY(tuner_add_param(m, site, "lora_A.weight", 2, a, TUNER_UNIFORM, 1 / sqrt((double)a[1]), err));
    if (o->init->b && fills)
        TRY(add_filled(m, site, "lora_B.weight", 2, b, o->init->keeps_b ? TUNER_FROZEN : TUNER_TRAINED, o->init->b, err));
    else
        TRY(tuner_add_param(m, site, "lora_B.weight", 2, b, TUNER_ZEROS, 0, err));
    if (is_quantised) {
        const int shift = site->param[0];
        site->param[0] = site->param[1];
        site->param[1] = site->param[2];
        site->param[own->shift = 2] = shift;
    }
    if (o->bias) {
        if (site->site.some_rows)
            FAIL(err, CB_E_UNSUPPORTED, "%s: lora_bias: found true; an expert's module has none; wanted targets without it",
                 site->site.name);
        own->bias = site->n_params;
        TRY(tuner_add_param(m, site, "lora_B.bias", 1, &out, TUNER_ZEROS, 0, err));
    }
    if (!o->init->is_residual) return CB_OK;
    own->a0 = site->n_params;
    TRY(add_filled(m, site, "lora_A0", 2, a, TUNER_DERIVED, lora_fill_a0, err));
    return add_filled(m, site, "lora_B0", 2, b, TUNER_DERIVED, lora_fill_b0, err);
}

/* Embeddings: A (r,rows), B (channels,r), with the zeros in A. */
static enum cb_status declare_table(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct lora_options *o = m->options;
    const int64_t a[2] = {site->rank, site->site.in}, b[2] = {site->site.out, site->rank};
    if (o->bias || o->init->is_residual || o->init->keeps_b || o->init->is_quantised)
        FAIL(err, CB_E_UNSUPPORTED, "%s: %s: found %s; embeddings have it not; wanted targets without it, or plain LoRA", site->site.name,
             o->bias ? "lora_bias" : "init_lora_weights", o->bias ? "true" : o->init->name);
    TRY(tuner_add_param(m, site, "lora_embedding_A", 2, a, TUNER_ZEROS, 0, err));
    return tuner_add_param(m, site, "lora_embedding_B", 2, b, TUNER_NORMAL, 1, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct lora_options *o = m->options;
    const int64_t out = site->site.out;
    double alpha = o->alpha, rank = (double)o->r;
    struct lora_site *own = arena_alloc(m->arena, sizeof *own);
    if (!own) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", m->name);
    TRY(tuner_number(&rank, &o->ranks, site->site.name, err));
    TRY(tuner_number(&alpha, &o->alphas, site->site.name, err));
    *own = (struct lora_site){-1, -1, -1, -1, false};
    site->own = own;
    site->rank = (int64_t)rank;
    site->scale = alpha / (o->rslora ? sqrt(rank) : rank);
    for (int i = 0; i < m->n_new_rows; i++)
        if (strcmp(m->new_rows[i].site, site->site.name) == 0)
            FAIL(err, CB_E_UNSUPPORTED, "%s: found in target_modules and in trainable_token_indices; wanted one of them", site->site.name);
    TRY(site->site.kind == NN_EMBEDDING ? declare_table(m, site, err) : declare_linear(m, site, own, err));
    own->magnitude = o->dora ? site->n_params : -1;
    return o->dora ? add_filled(m, site, "lora_magnitude_vector", 1, &out, TUNER_TRAINED, lora_fill_magnitude, err) : CB_OK;
}

/* ensure_weight_tying: a head has its table's change, W + s (B A)^T, so that both stay one matrix. */
static enum cb_status declare_tied(struct module *m, struct tuner_site *site, const struct tuner_site *table, struct cb_err *err) {
    const struct lora_options *o = m->options;
    struct lora_site *own = arena_alloc(m->arena, sizeof *own);
    double alpha = o->alpha;
    if (!own) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", m->name);
    if (o->dora)
        FAIL(err, CB_E_UNSUPPORTED,
             "%s: ensure_weight_tying: found true beside use_dora, whose magnitudes part the head from its table; "
             "wanted one of them",
             m->name);
    TRY(tuner_number(&alpha, &o->alphas, site->site.name, err));
    *own = (struct lora_site){-1, -1, -1, -1, true};
    site->own = own;
    site->rank = table->rank;
    site->scale = alpha / (o->rslora ? sqrt((double)site->rank) : (double)site->rank);
    if (site->scale != table->scale)
        FAIL(err, CB_E_UNSUPPORTED, "%s: ensure_weight_tying: found a scale of %g at %s and of %g at %s; wanted one", m->name, site->scale,
             site->site.name, table->scale, table->site.name);
    site->param[site->n_params++] = table->param[0];
    site->param[site->n_params++] = table->param[1];
    TRY(tuner_add_turned(m, tuner_key(m, site, "lora_A.weight", err), table->param[1], err));
    return tuner_add_turned(m, tuner_key(m, site, "lora_B.weight", err), table->param[0], err);
}

/* scale (alpha / r) t */
static struct cb_tensor *scaled(const struct tuner_site *site, struct nn *nn, struct cb_tensor *t, struct cb_tensor *scale) {
    return op_mul(nn->g, op_scale(nn->g, t, site->scale, 0), scale);
}

/* W + scale (alpha / r) (B A - B0 A0), and scale times what quantising does to W; embeddings, heads tied to them: W + its transpose. */
static struct cb_tensor *add_product(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                     struct cb_tensor *scale) {
    const struct lora_site *own = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, 0, nn), *b = scaled(site, nn, tuner_leaf(m, site, 1, nn), scale);
    const bool is_table = site->site.kind == NN_EMBEDDING || own->is_tied;
    w = op_add(g, w, is_table ? op_matmul(g, a, b, true, true) : op_matmul(g, b, a, false, false));
    if (own->shift >= 0) w = op_add(g, w, op_mul(g, tuner_leaf(m, site, own->shift, nn), scale));
    if (own->a0 < 0) return w;
    b = scaled(site, nn, tuner_leaf(m, site, own->a0 + 1, nn), scale);
    return op_sub(g, w, op_matmul(g, b, tuner_leaf(m, site, own->a0, nn), false, false));
}

/* DoRA (Liu et al. 2024): the magnitude over the norm of each output's weights with the change, the base's own; a constant to the gradient. (out) */
static struct cb_tensor *dora_factor(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    const struct lora_site *own = site->own;
    const int64_t axis = site->site.kind == NN_EMBEDDING ? 0 : 1;
    struct cb_tensor *w = op_stop_gradient(nn->g, add_product(m, site, nn, tuner_base(site, nn), scale));
    return op_div(nn->g, tuner_leaf(m, site, own->magnitude, nn), op_norm_p(nn->g, w, 2, 1, &axis, false));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    const struct lora_options *o = m->options;
    w = add_product(m, site, nn, w, scale);
    if (!o->dora) return w;
    struct cb_tensor *factor = dora_factor(m, site, nn, scale);
    const int64_t column[2] = {site->site.out, 1};
    return op_mul(nn->g, w, site->site.kind == NN_EMBEDDING ? factor : op_reshape(nn->g, factor, 2, column));
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    const struct lora_site *own = site->own;
    return own->bias < 0 ? b : op_add(nn->g, b, scaled(site, nn, tuner_leaf(m, site, own->bias, nn), scale));
}

/* factor (y - b) + b, where dropout does not come between: else b + W drop(x), which is then scaled in y's place. */
static struct cb_tensor *dora_output(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                     struct cb_tensor *y, struct cb_tensor *factor) {
    const struct lora_options *o = m->options;
    struct cb_graph *g = nn->g;
    if (site->site.kind == NN_EMBEDDING) return op_mul(g, y, factor);
    if (nn->train && o->dropout > 0)
        return op_add(g, y, op_mul(g, op_linear(g, x, tuner_base(site, nn), NULL, false), op_scale(g, factor, 1, -1)));
    struct cb_tensor *b = tuner_bias(site, nn);
    return b ? op_add(g, op_mul(g, op_sub(g, y, b), factor), b) : op_mul(g, y, factor);
}

/* An expert's rows alone cannot be scaled. */
static bool by_weight(const struct module *m, const struct tuner_site *site) {
    return ((const struct lora_options *)m->options)->dora && site->site.some_rows;
}

/* What the start did to the weight: y + scale (Q - W) x - scale (alpha / r) B0 A0 x. */
static struct cb_tensor *add_start(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                   struct cb_tensor *y, struct cb_tensor *scale) {
    const struct lora_site *own = site->own;
    struct cb_graph *g = nn->g;
    if (own->shift >= 0) y = nn_product(nn, op_mul(g, x, scale), tuner_leaf(m, site, own->shift, nn), y);
    if (own->a0 < 0) return y;
    struct cb_tensor *low = scaled(site, nn, nn_product(nn, x, tuner_leaf(m, site, own->a0, nn), NULL), scale);
    return nn_product(nn, op_scale(g, low, -1, 0), tuner_leaf(m, site, own->a0 + 1, nn), y);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct lora_options *o = m->options;
    const struct lora_site *own = site->own;
    const bool is_table = site->site.kind == NN_EMBEDDING;
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, 0, nn), *b = tuner_leaf(m, site, 1, nn), *start = x, *low;
    if (!is_table) x = nn_dropout(nn, x, o->dropout);
    if (own->is_tied) {
        low = scaled(site, nn, op_linear(g, x, b, NULL, true), scale);
        return op_add(g, y, op_linear(g, low, a, NULL, true));
    }
    low = is_table ? op_embedding(g, op_transpose(g, a, 0, 1), x) : nn_product(nn, x, a, NULL);
    // the scale goes where the tensor is smallest
    low = scaled(site, nn, low, scale);
    if (o->dora) {
        struct cb_tensor *factor = dora_factor(m, site, nn, scale);
        y = dora_output(m, site, nn, x, y, factor);
        return op_add(g, y, op_mul(g, add_start(m, site, nn, x, op_linear(g, low, b, NULL, false), scale), factor));
    }
    y = is_table ? op_add(g, y, op_linear(g, low, b, NULL, false)) : nn_product(nn, low, b, y);
    if (own->bias >= 0) y = op_add(g, y, scaled(site, nn, tuner_leaf(m, site, own->bias, nn), scale));
    return add_start(m, site, nn, start, y, scale);  // dropout aside
}

/* Many modules at once: two products in which each sequence has matrices of its own. */
static bool groups(const struct module *m, const struct tuner_site *site) {
    const struct lora_options *o = m->options;
    const struct lora_site *own = site->own;
    return !o->dora && lora_site_is_plain(own) && !site->site.some_rows;
}

/* Those of one rank. */
static struct cb_tensor *grouped_rank(const struct tuner_group *group, struct nn *nn, int64_t rank, struct cb_tensor *x,
                                      struct cb_tensor *y) {
    struct cb_graph *g = nn->g;
    const size_t n = (size_t)group->n;
    const int64_t rows[2] = {group->n + 1, 1}, each[3] = {x->type.dim[0], 1, 1};
    struct cb_tensor **a = arena_array(g->arena, n, sizeof(struct cb_tensor *)), **b = arena_array(g->arena, n, sizeof(struct cb_tensor *));
    float *scale = arena_array(g->arena, n + 1, sizeof *scale);
    double dropout = 0;
    if (!a || !b || !scale) return graph_fail(g, CB_E_MEMORY, "lora: no memory");
    for (int i = 0; i < group->n; i++) {
        if (!group->module[i] || group->site[i]->rank != rank) continue;
        a[i] = tuner_leaf(group->module[i], group->site[i], 0, nn);
        b[i] = tuner_leaf(group->module[i], group->site[i], 1, nn);
        scale[i] = (float)group->site[i]->scale;
        dropout = ((const struct lora_options *)group->module[i]->options)->dropout;
    }
    struct cb_tensor *table = op_mul(g, group->scales, graph_const(g, type_make(CB_DTYPE_F32, 2, rows), scale));
    struct cb_tensor *low = op_indexed_linear(g, nn_dropout(nn, x, dropout), group->index, NULL, group->n, a, false);
    low = op_mul(g, low, op_reshape(g, op_embedding(g, table, group->slot), 3, each));
    return op_indexed_linear(g, low, group->index, y, group->n, b, false);
}

static struct cb_tensor *grouped(const struct tuner_group *group, struct nn *nn, struct cb_tensor *x, struct cb_tensor *y) {
    for (int i = 0; i < group->n; i++) {
        bool is_new = group->module[i] != NULL;
        for (int k = 0; k < i && is_new; k++) is_new = !group->module[k] || group->site[k]->rank != group->site[i]->rank;
        if (is_new) y = grouped_rank(group, nn, group->site[i]->rank, x, y);
    }
    return y;
}

/* EVA (Paischer et al. 2024), its ranks as they are given (rho 1): A is the components, B stays 0. */
static int64_t components(const struct module *m, const struct tuner_site *site) {
    const bool is_layer = site->site.kind != NN_EMBEDDING && !site->site.some_rows;
    return ((const struct lora_options *)m->options)->init->of_inputs && is_layer ? site->rank : 0;
}

static enum cb_status take_components(const struct module *m, const struct tuner_site *site, struct store *store, const double *rows,
                                      struct cb_err *err) {
    const struct module_param *a = &m->params[site->param[0]].public;
    struct store_entry *entry = store_find(store, a->name);
    if (!entry) FAIL(err, CB_E_NAME, "%s: not in the store", a->name);
    for (int64_t i = 0; i < type_elements(&a->type); i++) ((float *)entry->data)[i] = (float)rows[i];
    return CB_OK;
}

/* CorDA: of which sites the second moments are wanted. */
static bool wants_moments(const struct module *m, const struct tuner_site *site) {
    return ((const struct lora_options *)m->options)->init->of_moments && !site->site.some_rows;
}

static const char *refuses_fold(const struct module *m) {
    const struct lora_options *o = m->options;
    for (int i = 0; o->bias && i < m->n_sites; i++)
        if (!m->sites[i].site.bias) return "lora_bias is true, and a layer that it changes has no bias";
    return NULL;
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    {"alpha", "lora_alpha", TUNER_FLOAT, "the change is scaled by alpha / r"},
    PARTS_RANKS,
    PARTS_ALPHAS,
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "lora_dropout", TUNER_FLOAT, "of the input, in training"},
    {"bias", "bias", TUNER_STR, "biases that are trained too: none, lora_only, all"},
    {"rslora", "use_rslora", TUNER_BOOL, "scale by alpha / sqrt(r)"},
    {"dora", "use_dora", TUNER_BOOL, "the norm of each output's weights is learned apart"},
    {"lora_bias", "lora_bias", TUNER_BOOL, "a bias behind B"},
    {"init", "init_lora_weights", TUNER_STR,
     "gaussian, orthogonal, pissa, pissa_niter_N, olora, mica, eva, corda, loftq; else uniform as PEFT's default"},
    {"corda", "corda_config.corda_method", TUNER_STR, "corda: ipm (what the data need most is trained) or kpm (what they need least)"},
    {"bits", "loftq_config.loftq_bits", TUNER_INT, "loftq: 2, 4 or 8, normal floats in blocks of 64"},
    {"iterations", "loftq_config.loftq_iter", TUNER_INT, "loftq: how often the weight is quantised and the rest decomposed"},
    {"blocks", "loftq_config.loftq_type", TUNER_STR, "loftq: a type of blocks in place of bits: q4_0, q8_0, q4_k, ..."},
    {"reading", "loftq_config.loftq_reading", TUNER_STR, "loftq: paper, or peft: A and B begin as if alpha were r"},
    {"tokens", "trainable_token_indices", TUNER_INTS, "rows of the words' table that are trained, as copies"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"lora:r=2,alpha=4",
                                    "lora:r=3,alpha=3,rslora=true,init=gaussian,bias=all",
                                    "lora:r=2,dora=true,tokens=3+1",
                                    "lora:r=1,init=pissa",
                                    "lora:r=1,init=pissa,dora=true",
                                    "lora:r=1,init=loftq",
                                    "lora:r=1,init=corda",
                                    NULL};

const struct tuner tuner_lora = {
    .name = "lora",
    .doc = "LoRA: a trained product of two thin matrices beside each weight, y = W x + (alpha / r) B A x.",
    .peft_type = "LORA",
    .options = options,
    .defaults =
        "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,\"base_model_name_or_path\":"
        "null,"
        "\"bias\":\"none\",\"corda_config\":null,\"ensure_weight_tying\":false,\"eva_config\":null,\"exclude_modules\":null,"
        "\"fan_in_fan_out\":false,\"inference_mode\":true,\"init_lora_weights\":true,\"kasa_config\":null,\"layer_replication\":null,"
        "\"layers_pattern\":null,\"layers_to_transform\":null,\"loftq_config\":{},\"lora_alpha\":8,\"lora_bias\":false,\"lora_dropout\":0."
        "0,"
        "\"lora_ga_config\":null,\"megatron_config\":null,\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,"
        "\"monteclora_config\":null,\"peft_type\":\"LORA\",\"peft_version\":\"0.21.2\",\"qalora_group_size\":16,\"r\":8,\"rank_pattern\":{}"
        ","
        "\"revision\":null,\"target_modules\":\"all-linear\",\"target_parameters\":null,\"task_type\":null,"
        "\"trainable_token_indices\":null,\"use_bdlora\":null,\"use_dora\":false,\"use_qalora\":false,\"use_rslora\":false,"
        "\"velora_config\":null}",
    .options_bytes = sizeof(struct lora_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change B A x, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare_shared = declare_shared,
    .declare = declare,
    .tied_key = "lora_A.weight",
    .declare_tied = declare_tied,
    .delta = delta,
    .groups = groups,
    .grouped = grouped,
    .weight = weight,
    .bias = bias,
    .by_weight = by_weight,
    .convert = lora_convert,
    .components = components,
    .take_components = take_components,
    .wants_moments = wants_moments,
    .take_moments = lora_take_moments,
    .refuses_fold = refuses_fold,
};
