/* Prefix tuning as the adapters library has it (Li and Liang 2021): one table for all attentions of a kind, [P_K; K] and [P_V; V], which an MLP makes,
   act(E A + a) B + b, or which is trained flat; for the decoder's own attention, the encoder's and the attention to the source. Prefixes are no past:
   the tokens' positions begin at 0. A gate, the mean over time of sigmoid(w x + b), may weigh keys and values. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/safetensors.h"
#include "modules/adapters.h"
#include "modules/prompt.h"
#include "ops/ops.h"

enum location { SELF, ENCODER, CROSS, LOCATIONS };

struct ad_prefix {
    int64_t n, inner, hidden;  // rows, width of the MLP, of the model
    bool flat, has_encoder, has_cross, use_gating, shared_gating;
    const char *activation;
    double dropout;
    struct adapters_layers layers;
    int64_t count[LOCATIONS];  // attentions of each kind that have a prefix
    int64_t next[LOCATIONS];  // of them declared, by keys
    const char *first[LOCATIONS];  // path of the first attention that holds the library's pool
};

/* What a site knows: its place in the table and its parameters. */
struct place {
    enum location location;
    int64_t number;
    int table, gate;  // numbers among the site's parameters: the flat table or the MLP's first; -1: none
};

/* ---- configuration */
static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct ad_prefix *o = (struct ad_prefix *)m->options;
    const json_t *c = m->method;
    o->has_encoder = o->has_cross = o->shared_gating = true;
    o->activation = "tanh";
    TRY(json_get_int(&o->n, c, where, "prefix_length", 1, 1 << 20, true, err));
    TRY(json_get_bool(&o->flat, c, where, "flat", false, err));
    o->inner = 512;
    TRY(json_get_int(&o->inner, c, where, "bottleneck_size", 1, 1 << 20, false, err));
    TRY(json_get_bool(&o->has_encoder, c, where, "encoder_prefix", false, err));
    TRY(json_get_bool(&o->has_cross, c, where, "cross_prefix", false, err));
    TRY(json_get_bool(&o->use_gating, c, where, "use_gating", false, err));
    m->reads_padding = o->use_gating;
    TRY(json_get_bool(&o->shared_gating, c, where, "shared_gating", false, err));
    TRY(json_get_str(&o->activation, c, where, "non_linearity", false, err));
    TRY(json_get_float(&o->dropout, c, where, "dropout", 0, 0.999, false, err));
    if (!adapters_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: non_linearity: found %.60s; wanted tanh, relu, gelu, ...", where, o->activation);
    return adapters_layers_parse(&o->layers, c, where, err);
}

/* ---- sites */
static bool match(const struct nn_site *site) { return site->kind == NN_KEYS || site->kind == NN_VALUES; }

static enum location location_of(const struct nn_site *site) {
    return !site->role || strcmp(site->role, "decoder") == 0 ? SELF : strcmp(site->role, "encoder") == 0 ? ENCODER : CROSS;
}

static bool implied(const struct module *m, const struct nn_site *site) {
    const struct ad_prefix *o = m->options;
    const enum location location = location_of(site);
    return match(site) && adapters_layers_take(&o->layers, site) && (location != ENCODER || o->has_encoder) &&
           (location != CROSS || o->has_cross);
}

/* The path of the attention that a site is of. */
static const char *attention_path(struct module *m, const struct nn_site *site) {
    return arena_printf(m->arena, "%.*s", (int)(strrchr(site->name, '.') - site->name), site->name);
}

/* ---- parameters */
/* The library's name of a location; DistilBERT's only one is called otherwise. */
static const char *location_name(const struct module *m, enum location location) {
    static const char *const names[LOCATIONS] = {"self_prefix", "encoder_prefix", "cross_prefix"};
    return location == SELF && strcmp(m->model_type, "distilbert") == 0 ? "self" : names[location];
}

/* Another name of a parameter for each attention, and for the model's own: the library writes what is shared under all. */
static enum cb_status aliases_add(struct module *m, const struct nn *sites, enum location location, const char *suffix, int number,
                                  struct cb_err *err) {
    struct ad_prefix *o = (struct ad_prefix *)m->options;
    for (int i = 0; i <= sites->n_sites; i++) {
        const struct nn_site *site = i < sites->n_sites ? sites->sites[i] : NULL;
        if (site && site->kind != NN_KEYS) continue;
        const char *path = site ? attention_path(m, site) : NULL;
        if (path && strcmp(path, o->first[location]) == 0) continue;
        const char *key = path ? arena_printf(m->arena, "%s.prefix_tuning.pool.prefix_tunings.%s.%s.%s", path, m->label,
                                              location_name(m, location), suffix)
                               : arena_printf(m->arena, "%sprefix_tuning.prefix_tunings.%s.%s.%s", m->prefix, m->label,
                                              location_name(m, location), suffix);
        if (!key || (site && !path)) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
        TRY(tuner_add_alias(m, key, number, err));
    }
    return CB_OK;
}

/* A shared parameter of a location, with all its names. */
static enum cb_status shared_add(struct module *m, const struct nn *sites, enum location location, const char *suffix, int rank,
                                 const int64_t *dim, enum tuner_init init, double spread, struct cb_err *err) {
    struct ad_prefix *o = (struct ad_prefix *)m->options;
    int number;
    struct tuner_param rest = {.init = init, .spread = spread};
    rest.public.key = arena_printf(m->arena, "%s.prefix_tuning.pool.prefix_tunings.%s.%s.%s", o->first[location], m->label,
                                   location_name(m, location), suffix);
    rest.public.type = type_make(CB_DTYPE_F32, rank, dim);
    if (!rest.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    TRY(tuner_add(m, NULL, rest, &number, err));
    return aliases_add(m, sites, location, suffix, number, err);
}

/* Whether a file holds a flat table though its configuration says otherwise: what eject_prefix_tuning leaves. */
static bool is_ejected(const struct module *m, const char *first) {
    char key[512];
    snprintf(key, sizeof key, "%s.prefix_tuning.pool.prefix_tunings.%s.%s.control_trans", first, m->label, location_name(m, SELF));
    return m->file && tensors_find(m->file, key);
}

static enum cb_status location_declare(struct module *m, const struct nn *sites, enum location location, int64_t width,
                                       struct cb_err *err) {
    const struct ad_prefix *o = m->options;
    const int64_t hidden = o->hidden, wide = o->count[location] * 2 * width, all = o->n * wide;
    if (o->flat) return shared_add(m, sites, location, "control_trans", 1, &all, TUNER_NORMAL, 1, err);
    const int64_t embedding[2] = {o->n, hidden}, down[2] = {o->inner, hidden}, up[2] = {wide, o->inner};
    const double first = 1 / sqrt((double)hidden), second = 1 / sqrt((double)o->inner);
    TRY(shared_add(m, sites, location, "wte.weight", 2, embedding, TUNER_NORMAL, 1, err));
    TRY(shared_add(m, sites, location, "control_trans.0.weight", 2, down, TUNER_UNIFORM, first, err));
    TRY(shared_add(m, sites, location, "control_trans.0.bias", 1, &o->inner, TUNER_UNIFORM, first, err));
    TRY(shared_add(m, sites, location, "control_trans.2.weight", 2, up, TUNER_UNIFORM, second, err));
    return shared_add(m, sites, location, "control_trans.2.bias", 1, &wide, TUNER_UNIFORM, second, err);
}

static enum cb_status declare_shared(struct module *m, const struct nn *sites, struct cb_err *err) {
    struct ad_prefix *o = (struct ad_prefix *)m->options;
    const char *first = NULL;
    int64_t width[LOCATIONS] = {0};
    o->hidden = sites->width;
    memset(o->count, 0, sizeof o->count);
    memset(o->next, 0, sizeof o->next);
    for (int i = 0; i < sites->n_sites; i++) {
        const struct nn_site *site = sites->sites[i];
        const enum location location = location_of(site);
        if (site->kind != NN_KEYS) continue;
        if (!first && !(first = attention_path(m, site))) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
        if (!implied(m, site)) continue;
        if (width[location] && width[location] != site->out)
            FAIL(err, CB_E_SHAPE, "%s: %s is %lld wide; wanted %lld, as in every layer", m->name, site->name, (long long)site->out,
                 (long long)width[location]);
        width[location] = site->out;
        o->count[location]++;
    }
    if (first && !o->flat) o->flat = is_ejected(m, first);
    for (int k = 0; k < LOCATIONS; k++) {
        o->first[k] = first;
        if (o->count[k]) TRY(location_declare(m, sites, k, width[k], err));
    }
    return CB_OK;
}

/* A site takes the location's shared parameters; keys and values of one attention are one place, whose gate belongs to both. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    static const char *const mlp[] = {"wte.weight", "control_trans.0.weight", "control_trans.0.bias", "control_trans.2.weight",
                                      "control_trans.2.bias"};
    static const char *const flat[] = {"control_trans"};
    struct ad_prefix *o = (struct ad_prefix *)m->options;
    struct place *p = arena_alloc(m->arena, sizeof *p);
    const char *path = attention_path(m, &site->site);
    if (!p || !path) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", site->site.name);
    p->location = location_of(&site->site);
    p->number = o->next[p->location] - (site->site.kind == NN_VALUES);
    if (site->site.kind == NN_KEYS) o->next[p->location]++;
    p->gate = -1;
    site->own = p;
    for (size_t i = 0; i < (o->flat ? 1 : sizeof mlp / sizeof *mlp); i++) {
        const char *key = arena_printf(m->arena, "%s.prefix_tuning.pool.prefix_tunings.%s.%s.%s", o->first[p->location], m->label,
                                       location_name(m, p->location), o->flat ? flat[i] : mlp[i]);
        const int64_t number = key ? table_get(&m->by_key, key, strlen(key)) : -1;
        if (number < 0) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
        TRY(tuner_add(m, site, m->params[number], NULL, err));
    }
    if (!o->use_gating) return CB_OK;
    const int64_t gates = o->shared_gating ? 1 : 2, weight[2] = {gates, o->hidden};
    const char *place = arena_printf(m->arena, "%s.prefix_tuning", path);
    if (!place) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    TRY(adapters_add(m, site, adapters_key(m, place, "prefix_gates", "weight", err), 2, weight, TUNER_NORMAL, 0.02, TUNER_TRAINED, &p->gate,
                     err));
    return adapters_add(m, site, adapters_key(m, place, "prefix_gates", "bias", err), 1, &gates, TUNER_UNIFORM, 1 / sqrt((double)o->hidden),
                        TUNER_TRAINED, NULL, err);
}

/* ---- graph */
/* All rows of a location, (n,wide), once a graph. */
static struct cb_tensor *table_make(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct ad_prefix *o = m->options;
    const char *name = m->params[site->param[0]].public.name;
    struct cb_graph *g = nn->g;
    struct cb_tensor *x = nn_kept(nn, name);
    if (x) return x;
    if (o->flat) {
        x = tuner_leaf(m, site, 0, nn);
        const int64_t shape[2] = {o->n, type_elements(&x->type) / o->n};
        x = op_reshape(g, x, 2, shape);
    } else {
        x = op_linear(g, tuner_leaf(m, site, 0, nn), tuner_leaf(m, site, 1, nn), tuner_leaf(m, site, 2, nn), false);
        x = op_linear(g, adapters_activation(nn, o->activation, x), tuner_leaf(m, site, 3, nn), tuner_leaf(m, site, 4, nn), false);
    }
    return nn_keep(nn, name, nn_dropout(nn, x, o->dropout));
}

static struct cb_tensor *before(const struct module *m, const struct tuner_site *site, struct nn *nn, const struct nn_prefixed *attention) {
    const struct ad_prefix *o = m->options;
    const struct place *p = site->own;
    struct cb_graph *g = nn->g;
    const bool is_values = site->site.kind == NN_VALUES;
    const int64_t width = site->site.out, at = (2 * p->number + is_values) * width;
    struct cb_tensor *rows = op_slice(g, table_make(m, site, nn), 1, at, at + width, 1);
    rows = op_reshape(g, rows, 4, (const int64_t[]){1, o->n, attention->heads, attention->head_dim});
    if (p->gate < 0) return rows;
    if (attention->is_cached || !attention->input || graph_is_bad(g, attention->input))
        return graph_fail(g, CB_E_UNSUPPORTED, "%s: its gates read whole sequences; here is a part of one", m->name);
    struct cb_tensor *gate = adapters_gate(nn, attention->input, tuner_leaf(m, site, p->gate, nn), tuner_leaf(m, site, p->gate + 1, nn));
    if (graph_is_bad(g, gate)) return gate;
    const int64_t one = o->shared_gating || !is_values ? 0 : 1, shape[4] = {gate->type.dim[0], 1, 1, 1};
    gate = op_reshape(g, op_slice(g, gate, 2, one, one + 1, 1), 4, shape);
    const int64_t wide[4] = {shape[0], o->n, attention->heads, attention->head_dim};
    return op_mul(g, op_expand(g, rows, 4, wide), gate);
}

static const struct tuner_option options[] = {
    {"n", "prefix_length", TUNER_INT, "rows before the keys and values of each attention"},
    {"bottleneck", "bottleneck_size", TUNER_INT, "width of the MLP that makes them"},
    {"flat", "flat", TUNER_BOOL, "the rows themselves are trained, without an MLP"},
    {"non_linearity", "non_linearity", TUNER_STR, "of the MLP: tanh, relu, ..."},
    {"encoder", "encoder_prefix", TUNER_BOOL, "in the encoder of an encoder-decoder"},
    {"cross", "cross_prefix", TUNER_BOOL, "in its decoder's attention to the source"},
    {"leave_out", "leave_out", TUNER_INTS, "numbers of layers joined by +"},
    {"dropout", "dropout", TUNER_FLOAT, "of the rows, in training"},
    {"use_gating", "use_gating", TUNER_BOOL, "a gate, read from the input, weighs them"},
    {"shared_gating", "shared_gating", TUNER_BOOL, "one gate for keys and values"},
    {0},
};
static const char *const cases[] = {"ad_prefix:n=3,bottleneck=8", "ad_prefix:n=2,flat=true,leave_out=0", NULL};

const struct tuner tuner_ad_prefix = {
    .name = "ad_prefix",
    .doc = "Prefix tuning of the adapters library: trained rows before keys and values, in all stacks; positions stay.",
    .architecture = "prefix_tuning",
    .options = options,
    .defaults =
        "{\"architecture\":\"prefix_tuning\",\"bottleneck_size\":512,\"cross_prefix\":true,\"dropout\":0.0,"
        "\"encoder_prefix\":true,\"flat\":false,\"init_weights_seed\":null,\"leave_out\":[],\"non_linearity\":\"tanh\","
        "\"prefix_length\":30,\"shared_gating\":true,\"use_gating\":false}",
    .options_bytes = sizeof(struct ad_prefix),
    .fresh = TUNER_NOT_BASE,
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .before = before,
    .refuses_fold = prompt_refuses_fold,
};
