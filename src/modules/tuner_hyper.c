/* Hypernetworks (Karimi Mahabadi et al. 2021, HyperFormer; Üstün et al. 2022, Hyper-X): one small network makes the weights of LoRA, or of bottlenecks, of
   every site from embeddings of what the rows are (task, language, ...) and of where the site is:
     z = norm(W2 relu(W1 [e_field ...; e_layer; e_place] + b1) + b2),   a tensor of a site = H z, one head H for all sites where it has that shape. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/name.h"
#include "modules/adapters.h"
#include "modules/parts.h"
#include "modules/private.h"
#include "ops/ops.h"

#define SIZE_LIMIT 65536
enum { LAYER, PLACE, W1, B1, W2, B2 };  // numbers of the shared parameters after those of the fields

/* A tensor that is made at a site: (rank,in) below, (out,rank) above, or a bias of that side. */
struct piece {
    const char *head;  // in the name of its head
    const char *suffix;  // of its key in the plain module's file
    bool is_above, is_bias;
};

/* What is made. */
struct product {
    const char *name;
    bool is_join;  // at joins of the residual stream; else at linear layers
    const char *sites;  // for messages
    int n;
    struct piece piece[4];
    enum cb_status (*config)(const struct module *m, json_t **config, struct cb_err *err);  // of the plain module
};

struct hyper_options {
    const struct product *product;
    int64_t r, embedding, hidden, size;
    double alpha, dropout, reduction;
    const char *activation;
    const char **place;  // names of the sites without the layers' numbers
    int n_places, places_size;
    int64_t n_layers;  // and one for what is outside of them
};

/* A site's rows of the two tables. */
struct spot {
    int32_t layer, place;
};

/* ---- configuration of the plain module */
static bool config_put(json_t *config, const char *key, json_t *value) { return value && json_object_set_new(config, key, value) == 0; }

static enum cb_status config_failed(const struct module *m, json_t *config, struct cb_err *err) {
    json_decref(config);
    FAIL(err, CB_E_MEMORY, "%s: no memory for a configuration", m->name);
}

static json_t *site_names(const struct module *m) {
    json_t *names = json_array();
    bool ok = names != NULL;
    for (int i = 0; ok && i < m->n_sites; i++) ok = json_array_append_new(names, json_string(m->sites[i].site.name)) == 0;
    if (ok) return names;
    json_decref(names);
    return NULL;
}

/* PEFT's LoRA on the same sites, by their names. */
static enum cb_status lora_config(const struct module *m, json_t **config, struct cb_err *err) {
    const struct hyper_options *o = m->options;
    static const char *const kept[] = {"base_model_name_or_path", "task_type", "modules_to_save"};
    bool ok, in_out = false;
    *config =
        json_pack("{s:s,s:I,s:f,s:f}", "peft_type", "LORA", "r", (json_int_t)o->r, "lora_alpha", o->alpha, "lora_dropout", o->dropout);
    ok = *config != NULL;
    for (int i = 0; i < m->n_sites; i++) in_out |= m->sites[i].site.weight_is_in_out;
    for (size_t i = 0; ok && i < sizeof kept / sizeof *kept; i++)
        if (json_object_get(m->config, kept[i])) ok = json_object_set(*config, kept[i], json_object_get(m->config, kept[i])) == 0;
    ok = ok && config_put(*config, "fan_in_fan_out", json_boolean(in_out)) && config_put(*config, "target_modules", site_names(m));
    return ok ? CB_OK : config_failed(m, *config, err);
}

/* The module's name in a file of the adapters library: its values, joined. */
static const char *label_of(const struct module *m, char text[200]) {
    size_t used = 0;
    snprintf(text, 200, "hyper");
    for (int i = 0; i < m->n_fields && used < 140; i++)
        used += (size_t)snprintf(text + used, 200 - used, "%s%.50s", i ? "_" : "", m->fields[i].value[m->fields[i].at]);
    for (char *p = text; *p; p++)
        if (*p == '.') *p = '_';
    return text;
}

/* Bottlenecks (Houlsby et al. 2019) of the adapters library behind the same parts of the same layers. */
static enum cb_status bottleneck_config(const struct module *m, json_t **config, struct cb_err *err) {
    const struct hyper_options *o = m->options;
    bool has[2] = {false, false}, ok = true;
    char label[200];
    json_t *method, *out = json_array();
    TRY(module_method_config(&method, "double_seq_bn", m->name, err));
    for (int64_t k = 0; ok && k + 1 < o->n_layers; k++) {
        bool found = false;
        for (int i = 0; i < m->n_sites; i++) {
            found |= m->sites[i].site.depth == k;
            has[strcmp(m->sites[i].site.role, "feed_forward") == 0] = true;
        }
        if (!found) ok = json_array_append_new(out, json_integer(k)) == 0;
    }
    ok = ok && config_put(method, "mh_adapter", json_boolean(has[0])) && config_put(method, "output_adapter", json_boolean(has[1])) &&
         config_put(method, "leave_out", json_incref(out)) && config_put(method, "reduction_factor", json_real(o->reduction)) &&
         config_put(method, "non_linearity", json_string(o->activation)) && config_put(method, "dropout", json_real(o->dropout));
    json_decref(out);
    if (!ok) return config_failed(m, method, err);
    *config = json_pack("{s:o,s:s}", "config", method, "name", label_of(m, label));
    json_t *save = json_object_get(m->config, "modules_to_save");
    ok = *config && (!save || json_object_set(*config, "modules_to_save", save) == 0);
    return ok ? CB_OK : config_failed(m, *config, err);
}

static const struct product products[] = {
    {"lora", false, "linear layers", 2, {{"lora_A", "lora_A.weight", false, false}, {"lora_B", "lora_B.weight", true, false}}, lora_config},
    {"bottleneck",
     true,
     "places where an output joins the residual stream",
     4,
     {{"down", "adapter_down.0.weight", false, false},
      {"down_bias", "adapter_down.0.bias", false, true},
      {"up", "adapter_up.weight", true, false},
      {"up_bias", "adapter_up.bias", true, true}},
     bottleneck_config},
};

/* ---- configuration */
static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct hyper_options *o = (struct hyper_options *)m->options;
    const json_t *c = m->config;
    const char *name = "lora", *bias = "none";
    *o = (struct hyper_options){.r = 8, .alpha = 8, .reduction = 16, .embedding = 32, .hidden = 64, .size = 32, .activation = "relu"};
    TRY(json_get_str(&name, c, where, "generates", false, err));
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        if (strcmp(products[i].name, name) == 0) o->product = &products[i];
    if (!o->product) FAIL(err, CB_E_FORMAT, "%s: generates: found %.60s; wanted lora or bottleneck", where, name);
    TRY(tuner_fields_parse(m, where, "metadata", "metadata_default", err));
    TRY(json_get_int(&o->r, c, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, c, where, "lora_alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->reduction, c, where, "reduction_factor", 1e-3, 1e6, false, err));
    TRY(json_get_str(&o->activation, c, where, "non_linearity", false, err));
    if (!adapters_is_activation(o->activation))
        FAIL(err, CB_E_UNSUPPORTED, "%s: non_linearity: found %.60s; wanted relu, gelu, swish, leakyrelu, ...", where, o->activation);
    TRY(json_get_float(&o->dropout, c, where, "dropout", 0, 0.999, false, err));
    TRY(json_get_int(&o->embedding, c, where, "embedding_size", 1, SIZE_LIMIT, false, err));
    TRY(json_get_int(&o->hidden, c, where, "hidden_size", 1, SIZE_LIMIT, false, err));
    // the norm of one number is 0
    TRY(json_get_int(&o->size, c, where, "projection_size", 2, SIZE_LIMIT, false, err));
    TRY(json_get_str(&bias, c, where, "bias", false, err));
    if (strcmp(bias, "none") != 0) FAIL(err, CB_E_UNSUPPORTED, "%s: bias: found %.60s; wanted none", where, bias);
    m->is_additive = m->is_low_rank = !o->product->is_join;
    return CB_OK;
}

static bool match(const struct nn_site *site) { return parts_is_linear(site) || site->kind == NN_JOIN; }

static bool implied(const struct module *m, const struct nn_site *site) {
    const struct hyper_options *o = m->options;
    return o->product->is_join ? site->kind == NN_JOIN && strcmp(site->role, "cross_attention") != 0 : site->kind == NN_LINEAR;
}

/* ---- parameters */
/* A site's name with a star for its layer's number. */
static const char *place_name(struct arena *arena, const struct nn_site *site) {
    char number[24];
    const size_t n = (size_t)snprintf(number, sizeof number, "%d", site->layer);
    for (const char *p = site->name; site->layer >= 0 && p; p = strchr(p, '.')) {
        p += p != site->name;
        if (strncmp(p, number, n) == 0 && (p[n] == '.' || !p[n]))
            return arena_printf(arena, "%.*s*%s", (int)(p - site->name), site->name, p + n);
    }
    return arena_strdup(arena, site->name);
}

static int place_find(const struct hyper_options *o, const char *name) {
    int i = 0;
    while (i < o->n_places && strcmp(o->place[i], name) != 0) i++;
    return i;
}

/* How many layers and places the tables have. */
static enum cb_status places_count(struct module *m, const struct nn *nn, struct cb_err *err) {
    struct hyper_options *o = (struct hyper_options *)m->options;
    o->n_layers = 1;
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *site = nn->sites[i];
        bool matches;
        TRY(tuner_targets_match(m, site, &matches, err));
        if (!matches) continue;
        if (site->depth + 2 > o->n_layers) o->n_layers = site->depth + 2;
        const char *name = place_name(m->arena, site), **grown;
        if (name && place_find(o, name) < o->n_places) continue;
        grown = module_grow(m, o->place, o->n_places, &o->places_size, sizeof *grown);
        if (!name || !grown) FAIL(err, CB_E_MEMORY, "%s: no memory for sites", m->name);
        o->place = grown;
        o->place[o->n_places++] = name;
    }
    return CB_OK;
}

/* A parameter of the network, "base_model.hyper.<name>". Nullable: site. */
static enum cb_status network_add(struct module *m, struct tuner_site *site, const char *name, int64_t rows, int64_t columns,
                                  enum tuner_init init, double spread, struct cb_err *err) {
    const int64_t dim[2] = {rows, columns};
    struct tuner_param p = {.init = init, .spread = spread};
    p.public.key = arena_printf(m->arena, "base_model.hyper.%s", name);
    p.public.type = type_make(CB_DTYPE_F32, columns ? 2 : 1, dim);
    if (!p.public.key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    return tuner_add(m, site, p, NULL, err);
}

static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    const struct hyper_options *o = m->options;
    const int64_t in = (m->n_fields + 2) * o->embedding;
    const double spread[2] = {1 / sqrt((double)in), 1 / sqrt((double)o->hidden)};
    char name[240];
    TRY(places_count(m, nn, err));
    for (int i = 0; i < m->n_fields; i++) {
        snprintf(name, sizeof name, "field.%s.weight", m->fields[i].name);
        TRY(network_add(m, NULL, name, m->fields[i].n, o->embedding, TUNER_NORMAL, 1, err));
    }
    TRY(network_add(m, NULL, "layer.weight", o->n_layers, o->embedding, TUNER_NORMAL, 1, err));
    TRY(network_add(m, NULL, "place.weight", o->n_places ? o->n_places : 1, o->embedding, TUNER_NORMAL, 1, err));
    TRY(network_add(m, NULL, "mlp.0.weight", o->hidden, in, TUNER_UNIFORM, spread[0], err));
    TRY(network_add(m, NULL, "mlp.0.bias", o->hidden, 0, TUNER_UNIFORM, spread[0], err));
    TRY(network_add(m, NULL, "mlp.2.weight", o->size, o->hidden, TUNER_UNIFORM, spread[1], err));
    return network_add(m, NULL, "mlp.2.bias", o->size, 0, TUNER_UNIFORM, spread[1], err);
}

static void piece_shape(const struct piece *p, const struct tuner_site *site, int64_t *rows, int64_t *columns) {
    *rows = p->is_above ? site->site.out : site->rank;
    *columns = p->is_bias ? 1 : p->is_above ? site->rank : site->site.in;
}

/* Heads, shared with the other sites of this shape. What is made below is as large as a plain module's fresh A, uniform in 1 / sqrt(in): z has deviation 1 in
   each of its numbers (Chang et al. 2020); all else begins as 0. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct hyper_options *o = m->options;
    struct spot *spot = arena_alloc(m->arena, sizeof *spot);
    const char *place = place_name(m->arena, &site->site);
    if (!spot || !place) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", m->name);
    if ((site->site.kind == NN_JOIN) != o->product->is_join)
        FAIL(err, CB_E_NAME, "%s: found among the targets; wanted %s, for which generates=%s makes weights", site->site.name,
             o->product->sites, o->product->name);
    const double size = o->product->is_join ? floor((double)site->site.in / o->reduction) : (double)o->r;
    if (size > 1 << 20) FAIL(err, CB_E_LIMIT, "%s: a bottleneck of %g features; at most %d are taken", site->site.name, size, 1 << 20);
    site->rank = size < 1 ? 1 : (int64_t)size;
    site->scale = o->product->is_join ? 1 : o->alpha / (double)o->r;
    *spot = (struct spot){(int32_t)site->site.depth + 1, (int32_t)place_find(o, place)};
    site->own = spot;
    for (int i = 0; i < o->product->n; i++) {
        const struct piece *p = &o->product->piece[i];
        const bool is_zero = p->is_above || p->is_bias;
        int64_t rows, columns;
        char name[120];
        piece_shape(p, site, &rows, &columns);
        snprintf(name, sizeof name, "%s.%lldx%lld.weight", p->head, (long long)rows, (long long)columns);
        TRY(network_add(m, site, name, rows * columns, o->size, is_zero ? TUNER_ZEROS : TUNER_UNIFORM,
                        is_zero ? 0 : 1 / sqrt((double)site->site.in * (double)o->size), err));
    }
    return CB_OK;
}

/* ---- the network */
static struct cb_tensor *leaf(const struct module *m, int i, struct nn *nn) {
    const struct module_param *p = &m->params[i].public;
    return graph_param(nn->g, p->name, p->type);
}

/* z of every site, (rows or 1, sites, size), once a graph. */
static struct cb_tensor *latent(const struct module *m, struct nn *nn) {
    const struct hyper_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int first = m->n_fields;
    const char *name = m->params[first + W2].public.name;
    struct cb_tensor *kept = nn_kept(nn, name), *part[TUNER_MAX_FIELDS + 2], *ids[TUNER_MAX_FIELDS];
    if (kept) return kept;
    const int64_t n = m->n_sites;
    int64_t rows = 1;
    int32_t *index[2] = {arena_array(g->arena, (size_t)n, sizeof **index), arena_array(g->arena, (size_t)n, sizeof **index)};
    if (!index[0] || !index[1]) return graph_fail(g, CB_E_MEMORY, "%s: no memory", m->name);
    for (int i = 0; i < first; i++) {
        if (graph_is_bad(g, ids[i] = tuner_field_rows(m, i, nn))) return ids[i];
        if (ids[i]->type.dim[0] > rows) rows = ids[i]->type.dim[0];
    }
    const int64_t all[3] = {rows, n, o->embedding}, by_row[3] = {-1, 1, o->embedding}, by_site[3] = {1, n, o->embedding};
    for (int i = 0; i < first; i++) part[i] = op_expand(g, op_reshape(g, op_embedding(g, leaf(m, i, nn), ids[i]), 3, by_row), 3, all);
    for (int64_t i = 0; i < n; i++) {
        const struct spot *spot = m->sites[i].own;
        index[0][i] = spot->layer;
        index[1][i] = spot->place;
    }
    for (int k = 0; k < 2; k++) {
        struct cb_tensor *at = graph_const(g, type_make(CB_DTYPE_I32, 1, &n), index[k]);
        part[first + k] = op_expand(g, op_reshape(g, op_embedding(g, leaf(m, first + LAYER + k, nn), at), 3, by_site), 3, all);
    }
    struct cb_tensor *z = op_linear(g, op_concat(g, first + 2, part, 2), leaf(m, first + W1, nn), leaf(m, first + B1, nn), false);
    z = op_linear(g, op_unary(g, "relu", z), leaf(m, first + W2, nn), leaf(m, first + B2, nn), false);
    return nn_keep(nn, name, op_layer_norm(g, z, NULL, NULL, 1e-5));
}

/* The i-th tensor of a site: (rows, columns), or where rows of the batch differ (B, rows, columns). */
static struct cb_tensor *made(const struct module *m, const struct tuner_site *site, int i, struct nn *nn) {
    const struct hyper_options *o = m->options;
    struct cb_graph *g = nn->g;
    const int64_t number = site - m->sites;
    struct cb_tensor *z = op_slice(g, latent(m, nn), 1, number, number + 1, 1);
    int64_t dim[3];
    if (graph_is_bad(g, z)) return z;
    dim[0] = z->type.dim[0];
    piece_shape(&o->product->piece[i], site, &dim[1], &dim[2]);
    z = op_linear(g, z, tuner_leaf(m, site, i, nn), NULL, false);
    return dim[0] == 1 ? op_reshape(g, z, 2, dim + 1) : op_reshape(g, z, 3, dim);
}

/* acc + x (B,...,in) times a weight (out,in), or each row's (B,out,in). Nullable: acc. */
static struct cb_tensor *product(const struct module *m, struct nn *nn, struct cb_tensor *x, struct cb_tensor *w, struct cb_tensor *acc) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, x) || graph_is_bad(g, w)) return &g->bad_tensor;
    if (w->type.rank == 2) return nn_product(nn, x, w, acc);
    if (nn->group_ends || x->type.dim[0] % w->type.dim[0])
        return graph_fail(g, CB_E_UNSUPPORTED,
                          "%s: field %s of each row: %s; wanted one value for all rows, or targets that see whole rows", m->name,
                          module_open_field(m)->name, nn->group_ends ? "experts have rows of many" : "a part of the batch");
    struct cb_type type = x->type;
    type.dim[type.rank - 1] = w->type.dim[1];
    x = op_reshape(g, x, 3, (const int64_t[]){w->type.dim[0], -1, w->type.dim[2]});
    x = op_reshape(g, op_matmul(g, x, w, false, true), type.rank, type.dim);
    return acc ? op_add(g, acc, x) : x;
}

/* y (B,T,n) plus a bias (n,1), or (B,n,1). */
static struct cb_tensor *biased(struct cb_graph *g, struct cb_tensor *y, struct cb_tensor *b) {
    if (graph_is_bad(g, b)) return b;
    const int64_t each[3] = {b->type.dim[0], 1, -1};
    return op_add(g, y, b->type.rank == 2 ? op_reshape(g, b, 1, each + 2) : op_reshape(g, b, 3, each));
}

/* ---- LoRA: y + scale (alpha / r) B A drop(x) */
static struct cb_tensor *scaled(const struct tuner_site *site, struct nn *nn, struct cb_tensor *t, struct cb_tensor *scale) {
    return op_mul(nn->g, op_scale(nn->g, t, site->scale, 0), scale);
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct hyper_options *o = m->options;
    if (o->product->is_join) return y;
    struct cb_tensor *low = product(m, nn, nn_dropout(nn, x, o->dropout), made(m, site, 0, nn), NULL);
    return product(m, nn, scaled(site, nn, low, scale), made(m, site, 1, nn), y);
}

static const char *refuses_fold(const struct module *m) {
    const struct hyper_options *o = m->options;
    if (o->product->is_join) return "bottlenecks stand beside the weights";
    return module_open_field(m) ? "rows have weights of their own; a value for each field (--field FIELD=VALUE) makes them one" : NULL;
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    if (refuses_fold(m)) return graph_fail(nn->g, CB_E_UNSUPPORTED, "%s: no change of a weight: %s", m->name, refuses_fold(m));
    return op_add(nn->g, w, op_matmul(nn->g, scaled(site, nn, made(m, site, 1, nn), scale), made(m, site, 0, nn), false, false));
}

/* ---- bottlenecks: h + scale (U act(D h + b) + b') */
static void enter(const struct module *m, const struct tuner_site *site, struct nn *nn, struct tuner_flow *f) {
    (void)m, (void)site, (void)nn;
    f->residual = f->hidden;
}

static void change(const struct module *m, const struct tuner_site *site, struct nn *nn, struct tuner_flow *f, struct cb_tensor *scale) {
    const struct hyper_options *o = m->options;
    struct cb_graph *g = nn->g;
    struct cb_tensor *up = biased(g, product(m, nn, f->hidden, made(m, site, 0, nn), NULL), made(m, site, 1, nn));
    up = product(m, nn, adapters_activation(nn, o->activation, up), made(m, site, 2, nn), NULL);
    f->up = op_mul(g, biased(g, up, made(m, site, 3, nn)), scale);
    f->hidden = op_add(g, f->residual, nn_dropout(nn, f->up, o->dropout));
}

static struct cb_tensor *leave(const struct module *m, const struct tuner_site *site, struct nn *nn, const struct tuner_flow *f) {
    (void)m, (void)site;
    return nn_join_plain(nn, f->hidden, f->join);
}

/* ---- the plain module */
static enum cb_status plain_config(const struct module *m, json_t **config, struct cb_err *err) {
    return ((const struct hyper_options *)m->options)->product->config(m, config, err);
}

static struct cb_tensor *plain_value(const struct module *m, const struct module *plain, int param, struct nn *nn) {
    const struct hyper_options *o = m->options;
    const struct tuner_param *p = &plain->params[param];
    const struct tuner_site *site = p->site < 0 ? NULL : module_site(m, plain->sites[p->site].site.name);
    int i = 0;
    while (i < o->product->n && !name_ends(p->public.key, o->product->piece[i].suffix)) i++;
    if (!site || i == o->product->n) return graph_fail(nn->g, CB_E_NAME, "%s: %s does not make it", p->public.key, m->name);
    return op_reshape(nn->g, made(m, site, i, nn), p->public.type.rank, p->public.type.dim);
}

/* ---- descriptor */
static const struct tuner_option options[] = {
    {"generates", "generates", TUNER_STR, "lora, of linear layers, or bottleneck, behind attention and feed-forward"},
    {"values", "metadata", TUNER_STRS, "what rows can be: task=a+task=b+language=en"},
    {"at", "metadata_default", TUNER_STRS, "what all rows are where nothing else is told: task=a; a field without it is each row's own"},
    {"r", "r", TUNER_INT, "rank of LoRA"},
    {"alpha", "lora_alpha", TUNER_FLOAT, "its change is scaled by alpha / r"},
    {"reduction_factor", "reduction_factor", TUNER_REAL, "the stream's width over the bottleneck's"},
    {"non_linearity", "non_linearity", TUNER_STR, "of the bottleneck: relu, gelu, swish, ..."},
    {"dropout", "dropout", TUNER_REAL, "in training, of LoRA's input, of what a bottleneck adds"},
    {"embedding", "embedding_size", TUNER_INT, "width of the embeddings of values, layers and places"},
    {"hidden", "hidden_size", TUNER_INT, "width of the network's hidden layer"},
    {"size", "projection_size", TUNER_INT, "numbers of which the heads make the weights"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    {0},
};
static const char *const cases[] = {
    "hyper:r=2,embedding=4,hidden=6,size=5,values=task=a+task=b+language=en+language=ru,at=task=b+language=en",
    "hyper:generates=bottleneck,reduction_factor=5,embedding=4,hidden=6,size=3,values=task=a+task=b,at=task=a", NULL};
static const struct tuner_join join = {enter, change, leave};

const struct tuner tuner_hyper = {
    .name = "hyper",
    .doc = "A hypernetwork: LoRA or bottlenecks of every site, made from embeddings of what rows are and of the site.",
    .peft_type = "HYPER",
    .options = options,
    .defaults =
        "{\"auto_mapping\":null,\"base_model_name_or_path\":null,\"dropout\":0.0,\"embedding_size\":32,\"exclude_modules\":null,"
        "\"generates\":\"lora\",\"hidden_size\":64,\"inference_mode\":true," PARTS_JSON_LAYERS
        ",\"lora_alpha\":8,\"metadata\":[],\"metadata_default\":[],\"modules_to_save\":null,\"non_linearity\":\"relu\","
        "\"peft_type\":\"HYPER\",\"projection_size\":32,\"r\":8,\"reduction_factor\":16.0,\"revision\":null,\"target_modules\":null,"
        "\"task_type\":null}",
    .options_bytes = sizeof(struct hyper_options),
    .fresh = TUNER_IS_BASE,
    .takes_experts = true,
    .is_additive = true,
    .is_low_rank = true,
    .scaling = "the change, beside alpha / r",
    .cases = cases,
    .parse = parse,
    .match = match,
    .implied = implied,
    .declare_shared = declare_shared,
    .declare = declare,
    .delta = delta,
    .weight = weight,
    .join = &join,
    .plain_config = plain_config,
    .plain_value = plain_value,
    .refuses_fold = refuses_fold,
};
