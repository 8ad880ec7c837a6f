/* Bottleneck adapters (Houlsby et al. 2019; Pfeiffer et al. 2020; He et al. 2021): h + s up(act(down h)) behind attention, feed-forward, or beside them;
   with projections of Compacter, and invertible adapters at the embeddings. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "modules/adapters.h"
#include "ops/ops.h"

#define SIZE_LIMIT (1 << 20)

enum scaling { SCALING_NUMBER, SCALING_LEARNED, SCALING_CHANNEL };
enum residual { RESIDUAL_BEFORE, RESIDUAL_AFTER, RESIDUAL_POST_ADD };

/* The keys of BnConfig. */
struct bottleneck {
    bool mh_adapter, output_adapter, cross_adapter;
    bool original_ln_before, original_ln_after, ln_before, ln_after, is_parallel, use_gating, adapter_residual_before_ln;
    enum residual residual;
    const json_t *reductions;  // by layer; NULL: one for all
    double reduction;
    const char *activation;
    enum scaling scaling;
    double factor;  // SCALING_NUMBER
    double dropout, depth_dropout;
    enum tuner_init down_init, up_init;
    double up_spread;
    bool has_inverse;
    double inverse_reduction;
    struct phm phm;
    struct adapters_layers layers;
};

/* Numbers of parameters among a site's own; -1: none. A norm's bias follows its weight. */
struct place {
    struct projection down, up;
    int norm_before, norm_after, gate, scaling;
};

/* ---- configuration */
static enum cb_status init_parse(struct module *m, struct bottleneck *o, const char *where, struct cb_err *err) {
    const char *init = "bert";
    TRY(json_get_str(&init, m->method, where, "init_weights", false, err));
    o->down_init = o->up_init = TUNER_NORMAL;
    o->up_spread = 0.02;
    // a new norm behind the bottleneck is no identity; shared rules begin near 0
    const bool passes = !o->ln_after && !o->has_inverse && o->residual == RESIDUAL_BEFORE;
    m->fresh = passes && o->phm.on && o->phm.shares_rule ? TUNER_NEAR_BASE : TUNER_NOT_BASE;
    if (strcmp(init, "mam_adapter") == 0) {
        o->down_init = TUNER_UNIFORM;
        o->up_init = TUNER_ZEROS;
        if (!o->phm.on && passes) m->fresh = TUNER_IS_BASE;
    } else if (strcmp(init, "houlsby") == 0) {
        o->down_init = o->up_init = TUNER_TRUNCATED;
        o->up_spread = 0.01;
    } else if (strcmp(init, "bert") != 0) {
        FAIL(err, CB_E_FORMAT, "%s: init_weights: found %.60s; wanted bert, mam_adapter or houlsby", where, init);
    }
    return CB_OK;
}

static enum cb_status residual_parse(const json_t *c, struct bottleneck *o, const char *where, struct cb_err *err) {
    const json_t *value = json_object_get(c, "residual_before_ln");
    const char *word = json_string_value(value);
    char text[JSON_TEXT];
    o->residual = json_is_false(value) ? RESIDUAL_AFTER : word && strcmp(word, "post_add") == 0 ? RESIDUAL_POST_ADD : RESIDUAL_BEFORE;
    if (value && !json_is_boolean(value) && !json_is_null(value) && o->residual != RESIDUAL_POST_ADD)
        FAIL(err, CB_E_FORMAT, "%s: residual_before_ln: found %s; wanted true, false or \"post_add\"", where, json_text(value, text));
    if (o->residual == RESIDUAL_POST_ADD && !o->original_ln_before && !o->is_parallel)
        FAIL(err, CB_E_FORMAT, "%s: residual_before_ln: found \"post_add\" without original_ln_before; wanted both", where);
    return CB_OK;
}

static enum cb_status scaling_parse(const json_t *c, struct bottleneck *o, const char *where, struct cb_err *err) {
    const char *word = json_string_value(json_object_get(c, "scaling"));
    o->factor = 1;
    o->scaling = !word ? SCALING_NUMBER : strcmp(word, "channel") == 0 ? SCALING_CHANNEL : SCALING_LEARNED;
    if (!word) return json_get_float(&o->factor, c, where, "scaling", -1e6, 1e6, false, err);
    if (strcmp(word, "learned") != 0 && strcmp(word, "channel") != 0)
        FAIL(err, CB_E_FORMAT, "%s: scaling: found \"%.60s\"; wanted a number, \"learned\" or \"channel\"", where, word);
    return CB_OK;
}

static enum cb_status reduction_parse(const json_t *c, struct bottleneck *o, const char *where, struct cb_err *err) {
    const char *key;
    json_t *value;
    double one;
    o->reductions = json_object_get(c, "reduction_factor");
    if (!json_is_object(o->reductions)) {
        o->reductions = NULL;
        return json_get_float(&o->reduction, c, where, "reduction_factor", 1e-3, 1e6, true, err);
    }
    if (o->phm.on && o->phm.shares_w)
        FAIL(err, CB_E_FORMAT, "%s: reduction_factor: found one by layer beside shared_W_phm; wanted one number", where);
    json_object_foreach((json_t *)o->reductions, key, value) TRY(json_get_float(&one, o->reductions, where, key, 1e-3, 1e6, true, err));
    return CB_OK;
}

static enum cb_status inverse_parse(const json_t *c, struct bottleneck *o, const char *where, struct cb_err *err) {
    const char *kind = NULL;
    TRY(json_get_str(&kind, c, where, "inv_adapter", false, err));
    o->has_inverse = kind != NULL;
    if (kind && strcmp(kind, "nice") != 0)
        FAIL(err, CB_E_UNSUPPORTED, "%s: inv_adapter: found %.60s; wanted nice (the library's glow does not run)", where, kind);
    return json_get_float(&o->inverse_reduction, c, where, "inv_adapter_reduction_factor", 1e-3, 1e6, kind != NULL, err);
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct bottleneck *o = (struct bottleneck *)m->options;
    const json_t *c = m->method;
    o->original_ln_after = true;
    const struct {
        const char *key;
        bool *to, required;
    } flags[] = {
        {"mh_adapter", &o->mh_adapter, true},
        {"output_adapter", &o->output_adapter, true},
        {"cross_adapter", &o->cross_adapter, false},
        {"original_ln_before", &o->original_ln_before, false},
        {"original_ln_after", &o->original_ln_after, false},
        {"ln_before", &o->ln_before, false},
        {"ln_after", &o->ln_after, false},
        {"is_parallel", &o->is_parallel, false},
        {"use_gating", &o->use_gating, false},
        {"adapter_residual_before_ln", &o->adapter_residual_before_ln, false},
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        TRY(json_get_bool(flags[i].to, c, where, flags[i].key, flags[i].required, err));
    m->reads_padding = o->use_gating;
    TRY(json_get_str(&o->activation, c, where, "non_linearity", true, err));
    if (!adapters_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: non_linearity: found %.60s; wanted relu, gelu, swish, leakyrelu, ...", where, o->activation);
    TRY(json_get_float(&o->dropout, c, where, "dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->depth_dropout, c, where, "stochastic_depth", 0, 0.999, false, err));
    TRY(phm_parse(&o->phm, c, where, err));
    TRY(residual_parse(c, o, where, err));
    TRY(scaling_parse(c, o, where, err));
    TRY(reduction_parse(c, o, where, err));
    TRY(inverse_parse(c, o, where, err));
    TRY(adapters_layers_parse(&o->layers, c, where, err));
    return init_parse(m, o, where, err);
}

/* ---- sites */
static bool match(const struct nn_site *site) {
    return site->kind == NN_JOIN || site->kind == NN_EMBEDDED || (site->role && strcmp(site->role, "vocabulary") == 0);
}

static bool implied(const struct module *m, const struct nn_site *site) {
    const struct bottleneck *o = m->options;
    // the library inverts before the heads of models that it hooks, and before heads of its own, not before those of its native models
    if (site->kind == NN_HEAD) return o->has_inverse && m->n_sites && !adapters_is_native(m->model_type);
    if (site->kind == NN_EMBEDDED) return o->has_inverse;
    if (!adapters_layers_take(&o->layers, site)) return false;
    return strcmp(site->role, "attention") == 0      ? o->mh_adapter
           : strcmp(site->role, "feed_forward") == 0 ? o->output_adapter
                                                     : o->cross_adapter;
}

/* Features of the bottleneck at a site. */
static enum cb_status down_size(int64_t *size, const struct module *m, const struct nn_site *site, struct cb_err *err) {
    const struct bottleneck *o = m->options;
    double reduction = o->reduction;
    char key[24];
    snprintf(key, sizeof key, "%d", site->depth);
    if (o->reductions) {
        const json_t *value = json_object_get(o->reductions, key);
        if (!value) value = json_object_get(o->reductions, "default");
        if (!value) FAIL(err, CB_E_FORMAT, "%s: reduction_factor: found none for layer %s; wanted one, or \"default\"", m->name, key);
        reduction = json_number_value(value);
    }
    double wanted = floor((double)site->in / reduction);
    if (wanted > SIZE_LIMIT) FAIL(err, CB_E_LIMIT, "%s: a bottleneck of %g features; at most %d are taken", site->name, wanted, SIZE_LIMIT);
    *size = wanted < 1 ? 1 : (int64_t)wanted;
    return CB_OK;
}

/* A fresh layer norm, under one or two keys of the file. */
static enum cb_status norm_add(struct module *m, struct tuner_site *site, const char *name, const char *alias, int *at,
                               struct cb_err *err) {
    static const char *const field[2] = {"weight", "bias"};
    for (int i = 0; i < 2; i++) {
        char suffix[40];
        snprintf(suffix, sizeof suffix, "%s.%s", name, field[i]);
        const char *key = adapters_key(m, site->site.name, "adapters", suffix, err);
        TRY(adapters_add(m, site, key, 1, &site->site.in, TUNER_CONSTANT, i == 0, TUNER_TRAINED, i ? NULL : at, err));
        if (!alias) continue;
        snprintf(suffix, sizeof suffix, "%s.%s", alias, field[i]);
        TRY(tuner_add_alias(m, adapters_key(m, site->site.name, "adapters", suffix, err), site->param[site->n_params - 1], err));
    }
    return CB_OK;
}

/* What is neither projection nor norm. */
static enum cb_status rest_add(struct module *m, struct tuner_site *site, struct place *p, struct cb_err *err) {
    const struct bottleneck *o = m->options;
    const char *place = site->site.name;
    const int64_t width = site->site.in, gate[2] = {1, width}, one = 1;
    if (o->scaling != SCALING_NUMBER)
        TRY(adapters_add(m, site, adapters_key(m, place, "adapters", "scaling", err), 1, o->scaling == SCALING_CHANNEL ? &width : &one,
                         TUNER_CONSTANT, 1, TUNER_TRAINED, &p->scaling, err));
    if (!o->use_gating) return CB_OK;
    TRY(adapters_add(m, site, adapters_key(m, place, "adapters", "gate.weight", err), 2, gate, TUNER_NORMAL, 0.02, TUNER_TRAINED, &p->gate,
                     err));
    return adapters_add(m, site, adapters_key(m, place, "adapters", "gate.bias", err), 1, &one, TUNER_ZEROS, 0, TUNER_TRAINED, NULL, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct bottleneck *o = m->options;
    if (site->site.kind != NN_JOIN) return inverse_declare(m, site, o->activation, o->inverse_reduction, err);
    struct place *p = arena_alloc(m->arena, sizeof *p);
    if (!p) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", site->site.name);
    *p = (struct place){.norm_before = -1, .norm_after = -1, .gate = -1, .scaling = -1};
    site->own = p;
    p->down.in = p->up.out = site->site.in;
    TRY(down_size(&p->down.out, m, &site->site, err));
    p->up.in = p->down.out;
    if (o->ln_before) TRY(norm_add(m, site, "adapter_norm_before", "adapter_down.0", &p->norm_before, err));
    const char *down = adapters_key(m, site->site.name, "adapters", o->ln_before ? "adapter_down.1" : "adapter_down.0", err);
    const char *up = adapters_key(m, site->site.name, "adapters", "adapter_up", err);
    if (!down || !up) return err->code;
    const double spread = o->down_init == TUNER_UNIFORM ? 1 / sqrt((double)site->site.in) : o->up_spread;
    TRY(projection_declare(m, site, &p->down, &o->phm, down, "down", m->prefix, o->down_init, spread, err));
    TRY(projection_declare(m, site, &p->up, &o->phm, up, "up", m->prefix, o->up_init, o->up_spread, err));
    if (o->ln_after) TRY(norm_add(m, site, "adapter_norm_after", NULL, &p->norm_after, err));
    return rest_add(m, site, p, err);
}

/* ---- graph */
static struct cb_tensor *own_norm(const struct module *m, const struct tuner_site *site, struct nn *nn, int at, struct cb_tensor *x) {
    return at < 0 ? x : op_layer_norm(nn->g, x, tuner_leaf(m, site, at, nn), tuner_leaf(m, site, at + 1, nn), 1e-5);
}

/* In training whole rows of the batch pass by the bottleneck (Huang et al. 2016), the others are scaled up. */
static struct cb_tensor *rows_dropped(const struct bottleneck *o, struct nn *nn, struct cb_tensor *x) {
    if (!nn->train || o->depth_dropout <= 0 || graph_is_bad(nn->g, x)) return x;
    struct cb_graph *g = nn->g;
    const struct cb_type rows = type_make(CB_DTYPE_F32, 3, (const int64_t[]){x->type.dim[0], 1, 1});
    struct cb_tensor *draw = op_random(g, "uniform", nn_seed(nn), rows, ++nn->n_dropouts);
    struct cb_tensor *keep = op_cast(g, op_compare(g, "ge", draw, graph_const_f32(g, (float)o->depth_dropout)), CB_DTYPE_F32);
    return op_mul(g, x, op_scale(g, keep, 1 / (1 - o->depth_dropout), 0));
}

static void enter(const struct module *m, const struct tuner_site *site, struct nn *nn, struct tuner_flow *f) {
    const struct bottleneck *o = m->options;
    (void)site;
    if (o->is_parallel) {
        f->hidden = f->residual = f->join->residual;
        return;
    }
    f->residual = f->hidden;
    if (o->original_ln_before) {
        f->hidden = op_add(nn->g, f->join->residual, f->hidden);
        if (o->residual == RESIDUAL_POST_ADD) f->residual = f->hidden;
        f->hidden = nn_join_norm(nn, f->hidden, f->join);
    }
    if (o->residual == RESIDUAL_AFTER) f->residual = f->hidden;
}

static void change(const struct module *m, const struct tuner_site *site, struct nn *nn, struct tuner_flow *f, struct cb_tensor *scale) {
    const struct bottleneck *o = m->options;
    const struct place *p = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *x = f->hidden, *up = own_norm(m, site, nn, p->norm_before, x);
    up = adapters_activation(nn, o->activation, projection_apply(m, site, &p->down, &o->phm, nn, up));
    up = projection_apply(m, site, &p->up, &o->phm, nn, up);
    if (!o->is_parallel) up = rows_dropped(o, nn, up);
    if (p->scaling >= 0) up = op_mul(g, up, tuner_leaf(m, site, p->scaling, nn));
    if (p->scaling < 0 && o->factor != 1) up = op_scale(g, up, o->factor, 0);
    f->up = up = op_mul(g, up, scale);
    struct cb_tensor *y = nn_dropout(nn, up, o->dropout);
    if (p->gate >= 0) y = op_mul(g, y, adapters_gate(nn, x, tuner_leaf(m, site, p->gate, nn), tuner_leaf(m, site, p->gate + 1, nn)));
    bool is_inside = o->adapter_residual_before_ln && !o->is_parallel;
    if (is_inside) y = op_add(g, f->residual, y);
    y = own_norm(m, site, nn, p->norm_after, y);
    f->hidden = is_inside || o->is_parallel ? y : op_add(g, f->residual, y);
}

static struct cb_tensor *leave(const struct module *m, const struct tuner_site *site, struct nn *nn, const struct tuner_flow *f) {
    const struct bottleneck *o = m->options;
    (void)site;
    struct cb_tensor *x = o->is_parallel ? op_add(nn->g, f->output, f->hidden) : f->hidden;
    return o->original_ln_after ? nn_join_plain(nn, x, f->join) : x;
}

/* The embeddings forward, what goes into a language model's head back. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct bottleneck *o = m->options;
    (void)x;
    return site->site.kind == NN_EMBEDDED ? inverse_apply(m, site, nn, o->activation, y, scale, false) : y;
}

static struct cb_tensor *input(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale) {
    const struct bottleneck *o = m->options;
    return site->site.kind == NN_HEAD ? inverse_apply(m, site, nn, o->activation, x, scale, true) : x;
}

/* ---- descriptor */
static const struct tuner_option options[] = {
    {"reduction_factor", "reduction_factor", TUNER_MAP, "the stream's width over the bottleneck's; by layer 0:8+default:16"},
    {"non_linearity", "non_linearity", TUNER_STR, "relu, gelu, swish, ..."},
    {"mh_adapter", "mh_adapter", TUNER_BOOL, "behind attention"},
    {"output_adapter", "output_adapter", TUNER_BOOL, "behind the feed-forward layer"},
    {"cross_adapter", "cross_adapter", TUNER_BOOL, "behind cross-attention"},
    {"is_parallel", "is_parallel", TUNER_BOOL, "beside that part, from the same residual"},
    {"scaling", "scaling", TUNER_SCALAR, "a factor, learned, or channel"},
    {"original_ln_before", "original_ln_before", TUNER_BOOL, "the model's residual and norm come before the bottleneck"},
    {"original_ln_after", "original_ln_after", TUNER_BOOL, "they come after it"},
    {"ln_before", "ln_before", TUNER_BOOL, "a norm of its own before"},
    {"ln_after", "ln_after", TUNER_BOOL, "a norm of its own after"},
    {"residual_before_ln", "residual_before_ln", TUNER_SCALAR, "its residual is taken before the model's norm: true, false, post_add"},
    {"adapter_residual_before_ln", "adapter_residual_before_ln", TUNER_BOOL, "its residual comes before its own norm"},
    {"use_gating", "use_gating", TUNER_BOOL, "a learned gate"},
    {"init_weights", "init_weights", TUNER_STR, "bert, mam_adapter or houlsby"},
    {"dropout", "dropout", TUNER_REAL, "of what it adds, in training"},
    {"stochastic_depth", "stochastic_depth", TUNER_REAL, "share of sequences that pass by it, in training"},
    {"leave_out", "leave_out", TUNER_INTS, "layers without it, joined by +"},
    {"inv_adapter", "inv_adapter", TUNER_SCALAR, "nice: an invertible adapter at the embeddings; none"},
    {"inv_adapter_reduction_factor", "inv_adapter_reduction_factor", TUNER_REAL, "of that one"},
    {"phm_layer", "phm_layer", TUNER_BOOL, "projections of Compacter"},
    {"phm_dim", "phm_dim", TUNER_INT, "their number of Kronecker factors"},
    {"phm_rank", "phm_rank", TUNER_INT, "of their factored weights"},
    {"phm_bias", "phm_bias", TUNER_BOOL, "whether they have one"},
    {"shared_phm_rule", "shared_phm_rule", TUNER_BOOL, "one rule for all layers"},
    {"factorized_phm_rule", "factorized_phm_rule", TUNER_BOOL, "the rule as a product"},
    {"learn_phm", "learn_phm", TUNER_BOOL, "the rule is trained"},
    {"factorized_phm_W", "factorized_phm_W", TUNER_BOOL, "the weights as a product"},
    {"shared_W_phm", "shared_W_phm", TUNER_BOOL, "one pair of weights for all layers"},
    {"phm_c_init", "phm_c_init", TUNER_STR, "normal or uniform"},
    {"phm_init_range", "phm_init_range", TUNER_REAL, "the rule's deviation"},
    {0},
};

#define SEQ "\"original_ln_before\":true,\"non_linearity\":\"relu\",\"reduction_factor\":16"
#define DOUBLE "\"mh_adapter\":true,\"non_linearity\":\"swish\",\"reduction_factor\":16"
#define PARALLEL "\"is_parallel\":true,\"init_weights\":\"mam_adapter\",\"non_linearity\":\"relu\",\"reduction_factor\":2"
#define NICE "\"inv_adapter\":\"nice\",\"inv_adapter_reduction_factor\":2.0"
static const struct tuner_preset presets[] = {
    {"adapterplus", "AdapterPlus (Steitz and Roth 2024): a scale for each channel, rows of the batch left out in training.",
     "{\"init_weights\":\"houlsby\",\"non_linearity\":\"gelu\",\"original_ln_after\":false,\"original_ln_before\":true,"
     "\"reduction_factor\":96,\"residual_before_ln\":false,\"scaling\":\"channel\",\"stochastic_depth\":0.1}"},
    {"compacter", "Compacter (Mahabadi et al. 2021): bottlenecks behind both parts, of sums of Kronecker products.",
     "{\"mh_adapter\":true,\"non_linearity\":\"gelu\",\"phm_layer\":true,\"reduction_factor\":32}"},
    {"compacter++", "Compacter++: behind the feed-forward layer alone.",
     "{\"non_linearity\":\"gelu\",\"original_ln_before\":true,\"phm_layer\":true,\"reduction_factor\":32}"},
    {"double_seq_bn", "Bottlenecks behind attention and feed-forward (Houlsby et al. 2019).", "{" DOUBLE "}"},
    {"double_seq_bn_inv", "The same with an invertible adapter at the embeddings.", "{" DOUBLE "," NICE "}"},
    {"par_bn", "A bottleneck beside the feed-forward layer, times 4 (He et al. 2021).", "{" PARALLEL ",\"scaling\":4.0}"},
    {"scaled_par_bn", "The same with a learned factor.", "{" PARALLEL ",\"scaling\":\"learned\"}"},
    {"seq_bn", "A bottleneck behind the feed-forward layer (Pfeiffer et al. 2020).", "{" SEQ "}"},
    {"seq_bn_inv", "The same with an invertible adapter at the embeddings (MAD-X).", "{" SEQ "," NICE "}"},
    {0},
};
static const char *const cases[] = {"seq_bn:reduction_factor=4",
                                    "double_seq_bn:reduction_factor=0:3+default:5,ln_after=true,use_gating=true",
                                    "par_bn:reduction_factor=3,scaling=channel",
                                    "seq_bn_inv:reduction_factor=4",
                                    "compacter:reduction_factor=4,phm_dim=2,factorized_phm_rule=true",
                                    NULL};
static const struct tuner_join join = {enter, change, leave};

const struct tuner tuner_bottleneck = {
    .name = "bottleneck",
    .doc = "Bottleneck adapters: two thin layers with an activation, added behind or beside parts of each block.",
    .architecture = "",
    .presets = presets,
    .options = options,
    .defaults =
        "{\"adapter_residual_before_ln\":false,\"cross_adapter\":false,\"dropout\":0.0,\"factorized_phm_W\":true,"
        "\"factorized_phm_rule\":false,\"hypercomplex_nonlinearity\":\"glorot-uniform\",\"init_weights\":\"bert\","
        "\"init_weights_seed\":null,\"inv_adapter\":null,\"inv_adapter_reduction_factor\":null,\"is_parallel\":false,\"learn_phm\":true,"
        "\"leave_out\":[],\"ln_after\":false,\"ln_before\":false,\"mh_adapter\":false,\"non_linearity\":\"relu\",\"original_ln_after\":"
        "true,"
        "\"original_ln_before\":false,\"output_adapter\":true,\"phm_bias\":true,\"phm_c_init\":\"normal\",\"phm_dim\":4,"
        "\"phm_init_range\":0.0001,\"phm_layer\":false,\"phm_rank\":1,\"reduction_factor\":16,\"residual_before_ln\":true,\"scaling\":1.0,"
        "\"shared_W_phm\":false,\"shared_phm_rule\":true,\"stochastic_depth\":0.0,\"use_gating\":false}",
    .options_bytes = sizeof(struct bottleneck),
    .fresh = TUNER_NOT_BASE,
    .scaling = "what the bottleneck adds, beside its own factor",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare = declare,
    .input = input,
    .delta = delta,
    .join = &join,
};
