/* HiRA (Huang et al. 2025): the weight times 1 plus a product of two thin matrices, W' = W (1 + B A) elementwise; several modules all multiply the
   base's own weight. */
#include <math.h>
#include <string.h>

#include "io/safetensors.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct hira_options {
    int64_t r;
    double dropout;
    bool gaussian;
    struct tuner_numbers ranks;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct hira_options *o = (struct hira_options *)m->options;
    const json_t *init = json_object_get(m->config, "init_weights");
    const char *word = json_string_value(init);
    char text[JSON_TEXT];
    o->r = 32;
    o->gaussian = word && strcmp(word, "gaussian") == 0;
    if (init && !json_is_null(init) && !json_is_boolean(init) && !o->gaussian)
        FAIL(err, CB_E_FORMAT, "%s: init_weights: found %s; wanted true or \"gaussian\"", where, json_text(init, text));
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "hira_dropout", 0, 0.999, false, err));
    return tuner_numbers_parse(m, &o->ranks, where, "rank_pattern", 1, TUNER_RANK_LIMIT, true, err);
}

static bool match(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD || site->kind == NN_EMBEDDING; }

/* The rank of a site. PEFT 0.21.2 writes rank_pattern and makes every layer of rank r all the same: the file decides. */
static enum cb_status rank_find(struct module *m, struct tuner_site *site, const char *suffix, struct cb_err *err) {
    const struct hira_options *o = m->options;
    const char *key = tuner_key(m, site, suffix, err);
    if (!key) return err->code;
    const struct tensor *held = m->file ? tensors_find(m->file, key) : NULL;
    double rank = (double)o->r;
    TRY(tuner_number(&rank, &o->ranks, site->site.name, err));
    const bool is_plain = held && held->type.rank == 2 && held->type.dim[0] == o->r;
    site->rank = is_plain ? o->r : (int64_t)rank;
    return CB_OK;
}

/* A (r,in), B (out,r); embeddings: A (r,rows), B (channels,r), with the zeros in A. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct hira_options *o = m->options;
    const bool is_table = site->site.kind == NN_EMBEDDING;
    TRY(rank_find(m, site, is_table ? "hira_embedding_A" : "hira_A", err));
    const int64_t a[2] = {site->rank, site->site.in}, b[2] = {site->site.out, site->rank};
    if (is_table) {
        TRY(tuner_add_param(m, site, "hira_embedding_A", 2, a, TUNER_ZEROS, 0, err));
        return tuner_add_param(m, site, "hira_embedding_B", 2, b, TUNER_NORMAL, 1, err);
    }
    double spread = o->gaussian ? 1 / (double)site->rank : 1 / sqrt((double)site->site.in);
    TRY(tuner_add_param(m, site, "hira_A", 2, a, o->gaussian ? TUNER_NORMAL : TUNER_UNIFORM, spread, err));
    return tuner_add_param(m, site, "hira_B", 2, b, TUNER_ZEROS, 0, err);
}

/* What is added to w: the base's own weight, elementwise times scale B A. */
static struct cb_tensor *change(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, 0, nn), *b = op_mul(g, tuner_leaf(m, site, 1, nn), scale);
    const bool is_table = site->site.kind == NN_EMBEDDING;
    return op_mul(g, tuner_base(site, nn), is_table ? op_matmul(g, a, b, true, true) : op_matmul(g, b, a, false, false));
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    return op_add(nn->g, w, change(m, site, nn, scale));
}

/* Added to the output, so that the base's weight may stay in its stored type, and dropout meets the change alone. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct hira_options *o = m->options;
    struct cb_graph *g = nn->g;
    if (site->site.kind != NN_EMBEDDING) return nn_product(nn, nn_dropout(nn, x, o->dropout), change(m, site, nn, scale), y);
    // rows of the base's table, times those of A turned, times B
    struct cb_tensor *rows = op_embedding(g, tuner_base(site, nn), x);
    struct cb_tensor *low = op_embedding(g, op_transpose(g, tuner_leaf(m, site, 0, nn), 0, 1), x);
    return op_add(g, y, op_mul(g, rows, op_mul(g, op_linear(g, low, tuner_leaf(m, site, 1, nn), NULL, false), scale)));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    PARTS_RANKS,
    {"targets", "target_modules", TUNER_STRS, "modules: names or endings joined by +, or all-linear (every linear layer but the head)"},
    {"exclude", "exclude_modules", TUNER_STRS, "modules that are left alone"},
    {"layers", "layers_to_transform", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "hira_dropout", TUNER_FLOAT, "of the input, in training"},
    {"init", "init_weights", TUNER_STR, "gaussian; else uniform as PEFT's default"},
    {"save", "modules_to_save", TUNER_STRS, "modules that are trained whole, as copies"},
    {0},
};
static const char *const cases[] = {"hira:r=2", NULL};

const struct tuner tuner_hira = {
    .name = "hira",
    .doc = "HiRA: the weight times 1 plus a product of two thin matrices, elementwise, W' = W (1 + B A).",
    .peft_type = "HIRA",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"exclude_modules\":null,\"fan_in_fan_out\":false,\"hira_dropout\":0.0,"
        "\"inference_mode\":true,\"init_weights\":true,\"layers_pattern\":null,\"layers_to_transform\":null,\"modules_to_save\":null,"
        "\"peft_type\":\"HIRA\",\"peft_version\":\"0.21.2\",\"r\":32,\"rank_pattern\":{},\"revision\":null,"
        "\"target_modules\":\"all-linear\",\"task_type\":null}",
    .options_bytes = sizeof(struct hira_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_low_rank = true,
    .scaling = "the product B A",
    .cases = cases,
    .parse = parse,
    .match = match,
    .declare = declare,
    .delta = delta,
    .weight = weight,
};
