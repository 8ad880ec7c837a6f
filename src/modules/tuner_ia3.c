/* The tuner (IA)3 (Liu et al. 2022): learned factors of what a layer gives, y = l (W x + b), or, in feed-forward modules, of what it takes,
   y = W (l x) + b. */
#include <stdio.h>
#include <string.h>

#include "modules/tuner.h"
#include "ops/ops.h"

struct ia3_options {
    const json_t *names;  // feedforward_modules: a list of endings, or
    const struct pattern *pattern;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct ia3_options *o = (struct ia3_options *)m->options;
    const json_t *value = json_object_get(m->config, "feedforward_modules"), *word;
    char text[JSON_TEXT], place[400];
    bool init = true;
    size_t i;
    TRY(json_get_bool(&init, m->config, where, "init_ia3_weights", false, err));
    if (!value || json_is_null(value)) return CB_OK;
    snprintf(place, sizeof place, "%.300s: feedforward_modules", where);
    if (json_is_string(value)) return tuner_pattern(m, &o->pattern, json_string_value(value), place, err);
    if (!json_is_array(value)) FAIL(err, CB_E_FORMAT, "%s: found %s; wanted a list of names or a pattern", place, json_text(value, text));
    json_array_foreach((json_t *)value, i, word) if (!json_is_string(word))
        FAIL(err, CB_E_FORMAT, "%s: found %s in the list; wanted a name", place, json_text(word, text));
    o->names = value;
    return CB_OK;
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD; }

/* A list holds mere endings, unlike that of target_modules. */
static enum cb_status is_feedforward(bool *out, const struct ia3_options *o, const char *name, struct cb_err *err) {
    *out = false;
    if (o->pattern) return pattern_matches(o->pattern, name, out, err);
    for (size_t i = 0; i < json_array_size(o->names); i++) {
        const char *word = json_string_value(json_array_get(o->names, i));
        size_t n = strlen(name), w = strlen(word);
        *out |= n >= w && strcmp(name + n - w, word) == 0;
    }
    return CB_OK;
}

/* l: (out,1), in feed-forward modules (1,in). site->own: whether it is one. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    bool *feedforward = arena_alloc(m->arena, sizeof *feedforward);
    if (!feedforward) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", m->name);
    TRY(is_feedforward(feedforward, m->options, site->site.name, err));
    site->own = feedforward;
    const int64_t dim[2] = {*feedforward ? 1 : site->site.out, *feedforward ? site->site.in : 1};
    return tuner_add_param(m, site, "ia3_l", 2, dim, TUNER_CONSTANT, 1, err);
}

/* 1 + scale (l - 1), as (n) or as it is kept. */
static struct cb_tensor *factor(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, bool flat) {
    struct cb_tensor *l = op_scale(nn->g, op_mul(nn->g, op_scale(nn->g, tuner_leaf(m, site, 0, nn), 1, -1), scale), 1, 1);
    return flat ? op_reshape(nn->g, l, 1, (const int64_t[]){-1}) : l;
}

static struct cb_tensor *input(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale) {
    return *(const bool *)site->own ? op_mul(nn->g, x, factor(m, site, nn, scale, true)) : x;
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    (void)x;
    return *(const bool *)site->own ? y : op_mul(nn->g, y, factor(m, site, nn, scale, true));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    return op_mul(nn->g, w, factor(m, site, nn, scale, false));
}

static struct cb_tensor *bias(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *b,
                              struct cb_tensor *scale) {
    return *(const bool *)site->own ? b : op_mul(nn->g, b, factor(m, site, nn, scale, true));
}

/* ---- many modules at once: each sequence by the factors of its own */
static bool groups(const struct module *m, const struct tuner_site *site) {
    (void)m, (void)site;
    return true;
}

/* t (B,T,n) times the factors of the modules that scale inputs, or outputs: a table of all of them, in its last row ones. */
static struct cb_tensor *grouped_factors(const struct tuner_group *group, struct nn *nn, bool of_input, struct cb_tensor *t) {
    struct cb_graph *g = nn->g;
    const int64_t row[2] = {1, t->type.dim[2]}, each[3] = {t->type.dim[0], 1, row[1]};
    struct cb_tensor **rows = arena_array(g->arena, (size_t)group->n + 1, sizeof(struct cb_tensor *));
    struct cb_tensor *ones = op_expand(g, graph_const_f32(g, 1), 2, row);
    bool is_any = false;
    if (!rows) return graph_fail(g, CB_E_MEMORY, "ia3: no memory");
    for (int i = 0; i <= group->n; i++) {
        const bool is_own = i < group->n && group->module[i] && *(const bool *)group->site[i]->own == of_input;
        rows[i] = is_own ? op_reshape(g, tuner_leaf(group->module[i], group->site[i], 0, nn), 2, row) : ones;
        is_any |= is_own;
    }
    if (!is_any) return t;
    struct cb_tensor *table = op_scale(g, op_mul(g, op_scale(g, op_concat(g, group->n + 1, rows, 0), 1, -1), group->scales), 1, 1);
    return op_mul(g, t, op_reshape(g, op_embedding(g, table, group->slot), 3, each));
}

static struct cb_tensor *grouped_input(const struct tuner_group *group, struct nn *nn, struct cb_tensor *x) {
    return grouped_factors(group, nn, true, x);
}

static struct cb_tensor *grouped(const struct tuner_group *group, struct nn *nn, struct cb_tensor *x, struct cb_tensor *y) {
    (void)x;
    return grouped_factors(group, nn, false, y);
}

static const struct tuner_option options[] = {
    {"targets", "target_modules", TUNER_STRS,
     "modules: names or endings joined by +, a pattern, or all-linear; without: keys, values, and the feed-forward's last"},
    {"feedforward", "feedforward_modules", TUNER_STRS, "those of them whose input is scaled, not their output"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"ia3:targets=all-linear,feedforward=.*(down_proj|fc2|output.dense|c_proj)", NULL};

/* The usual names of keys and values, and of the feed-forward block's second projection. */
#define ATTENTION "k_proj|v_proj|key|value|c_attn|qkv_proj|query_key_value|key_proj|value_proj|k_lin|v_lin|k|v|Wqkv"
#define FEEDFORWARD "down_proj|fc2|fc_out|output\\\\.dense|mlp\\\\.c_proj|dense_4h_to_h|lin2|wo|w2|mlp\\\\.Wo"

const struct tuner tuner_ia3 = {
    .name = "ia3",
    .doc = "(IA)3: a learned factor for each key, value and feed-forward feature.",
    .peft_type = "IA3",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"exclude_modules\":null,\"fan_in_fan_out\":false,"
        "\"feedforward_modules\":\".*\\\\.(" FEEDFORWARD
        ")\",\"inference_mode\":true,\"init_ia3_weights\":true,"
        "\"modules_to_save\":null,\"peft_type\":\"IA3\",\"peft_version\":\"0.21.2\",\"revision\":null,"
        "\"target_modules\":\".*\\\\.(" ATTENTION "|" FEEDFORWARD ")\",\"task_type\":null}",
    .options_bytes = sizeof(struct ia3_options),
    .fresh = TUNER_IS_BASE,
    .scaling = "the factors' distance from 1",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .input = input,
    .delta = delta,
    .groups = groups,
    .grouped_input = grouped_input,
    .grouped = grouped,
    .weight = weight,
    .bias = bias,
};
