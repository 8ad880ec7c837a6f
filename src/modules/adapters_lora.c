/* LoRA of the adapters library: which layers, factors by part of a fused projection, VeRA's shared ones, what tasks have of their own in MTL-LoRA, gates. */
#include "modules/adapters_lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/ops.h"

static const char *const matrices[3] = {"q", "k", "v"};

/* ---- configuration */
/* Files of versions before 1.1.0 were trained with a factor of 1, whatever alpha they name. */
static bool is_of_faulty_version(const struct module *m) {
    const char *version = json_string_value(json_object_get(m->config, "version"));
    if (!version || strncmp(version, "adapters.", 9) != 0) return false;
    char *end;
    const long major = strtol(version + 9, &end, 10), minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return major < 1 || (major == 1 && minor < 1);
}

static enum cb_status init_parse(struct module *m, struct ad_lora *o, const char *where, struct cb_err *err) {
    static const struct {
        const char *name;
        enum tuner_init a, b;
        double spread;
        bool is_kaiming;
    } kinds[] = {
        {"bert", TUNER_NORMAL, TUNER_NORMAL, 0.02, false},
        {"ia3", TUNER_CONSTANT, TUNER_CONSTANT, 1, false},
        {"lora", TUNER_UNIFORM, TUNER_ZEROS, 0, false},
        {"vera", TUNER_UNIFORM, TUNER_UNIFORM, 0, true},
    };
    const char *init = "lora";
    TRY(json_get_str(&init, m->method, where, "init_weights", false, err));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, init) != 0) continue;
        o->a_init = kinds[i].a;
        o->b_init = kinds[i].b;
        o->spread = kinds[i].spread;
        o->is_kaiming = kinds[i].is_kaiming;
        const bool is_zero = o->is_vera ? o->vera_b == 0 : o->b_init == TUNER_ZEROS;
        m->fresh = o->scales     ? (o->b_init == TUNER_CONSTANT && o->alpha == 1 && !o->use_gating ? TUNER_IS_BASE : TUNER_NOT_BASE)
                   : !is_zero    ? TUNER_NOT_BASE
                   : o->use_dora ? TUNER_NEAR_BASE
                                 : TUNER_IS_BASE;
        return CB_OK;
    }
    FAIL(err, CB_E_FORMAT, "%s: init_weights: found %.60s; wanted lora, bert, ia3 or vera", where, init);
}

static enum cb_status matrices_parse(struct ad_lora *o, const json_t *c, const char *where, struct cb_err *err) {
    const json_t *list = NULL;
    char text[JSON_TEXT];
    size_t i;
    json_t *word;
    o->attn[0] = o->attn[2] = !json_object_get(c, "attn_matrices");
    TRY(json_get_array(&list, c, where, "attn_matrices", false, err));
    if (list) json_array_foreach((json_t *)list, i, word) {
            int found = 3;
            for (int k = 0; k < 3; k++)
                if (json_is_string(word) && strcmp(json_string_value(word), matrices[k]) == 0) found = k;
            if (found == 3) FAIL(err, CB_E_FORMAT, "%s: attn_matrices: found %s; wanted q, k or v", where, json_text(word, text));
            o->attn[found] = true;
        }
    return CB_OK;
}

enum cb_status ad_lora_parse(struct module *m, const char *where, struct cb_err *err) {
    struct ad_lora *o = (struct ad_lora *)m->options;
    const json_t *c = m->method;
    const char *mode = "add";
    o->selfattn = true;
    o->r = 8;
    o->alpha = 8;
    TRY(json_get_bool(&o->selfattn, c, where, "selfattn_lora", false, err));
    TRY(json_get_bool(&o->intermediate, c, where, "intermediate_lora", false, err));
    TRY(json_get_bool(&o->output, c, where, "output_lora", false, err));
    TRY(json_get_bool(&o->use_gating, c, where, "use_gating", false, err));
    m->reads_padding = o->use_gating;
    TRY(json_get_bool(&o->use_dora, c, where, "use_dora", false, err));
    TRY(json_get_int(&o->r, c, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_float(&o->alpha, c, where, "alpha", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->dropout, c, where, "dropout", 0, 0.999, false, err));
    TRY(json_get_str(&mode, c, where, "composition_mode", false, err));
    o->is_vera = json_is_real(json_object_get(c, "vera_d")) || json_is_real(json_object_get(c, "vera_b"));
    if (o->is_vera) m->is_low_rank = false;  // its factors are drawn, its rank is free
    TRY(json_get_float(&o->vera_d, c, where, "vera_d", -1e6, 1e6, false, err));
    TRY(json_get_float(&o->vera_b, c, where, "vera_b", -1e6, 1e6, false, err));
    o->scales = strcmp(mode, "scale") == 0;
    if (!o->scales && strcmp(mode, "add") != 0)
        FAIL(err, CB_E_FORMAT, "%s: composition_mode: found %.60s; wanted add or scale", where, mode);
    if (o->scales && (o->r != 1 || o->use_dora || o->dropout > 0))
        FAIL(err, CB_E_FORMAT, "%s: composition_mode scale with r %lld, use_dora or dropout; wanted r 1 alone", where, (long long)o->r);
    if (is_of_faulty_version(m)) o->alpha = (double)o->r;
    TRY(matrices_parse(o, c, where, err));
    TRY(adapters_layers_parse(&o->layers, c, where, err));
    return init_parse(m, o, where, err);
}

/* ---- sites */
bool ad_lora_match(const struct nn_site *site) { return site->kind == NN_LINEAR && site->role; }

bool ad_lora_implied(const struct module *m, const struct nn_site *site) {
    const struct ad_lora *o = m->options;
    if (!adapters_layers_take(&o->layers, site)) return false;
    for (int i = 0; i < 3; i++)
        if (strcmp(site->role, matrices[i]) == 0) return o->selfattn && o->attn[i];
    if (strcmp(site->role, "qkv") == 0) return o->selfattn && (o->attn[0] || o->attn[1] || o->attn[2]);
    // the library has these two the other way round in Llama and Mistral
    const bool swapped = strcmp(m->model_type, "llama") == 0 || strcmp(m->model_type, "mistral") == 0;
    if (strcmp(site->role, "up") == 0 || strcmp(site->role, "gate_up") == 0) return swapped ? o->output : o->intermediate;
    return strcmp(site->role, "down") == 0 && (swapped ? o->intermediate : o->output);
}

static enum cb_status parts_find(struct ad_lora_place *p, const struct ad_lora *o, const struct nn_site *site, struct cb_err *err) {
    if (strcmp(site->role, "qkv") != 0) {
        p->n = 1;
        p->size[0] = p->width = site->out;
        return CB_OK;
    }
    if (!site->n_slices) FAIL(err, CB_E_NAME, "%s: queries, keys and values lie head by head; wanted them one after another", site->name);
    for (int s = 0; s < site->n_slices; s++)
        for (int i = 0; i < 3; i++) {
            if (!o->attn[i] || strcmp(site->slice[s].name, matrices[i]) != 0) continue;
            p->begin[p->n] = site->slice[s].begin;
            p->size[p->n] = site->slice[s].end - site->slice[s].begin;
            p->width += p->size[p->n++];
        }
    p->is_part = p->width < site->out;
    return CB_OK;
}

/* A diagonal, in a parameter (n,n), of its spread. */
static enum cb_status diagonal_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                    struct cb_err *err) {
    (void)m, (void)store, (void)seed, (void)err;
    const int64_t n = p->public.type.dim[0];
    for (int64_t i = 0; i < n; i++) ((float *)data)[i * n + i] = (float)p->spread;
    return CB_OK;
}

/* The norms of the rows of the site's weight that are changed. */
static enum cb_status norms_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                 struct cb_err *err) {
    (void)seed;
    const struct tuner_site *site = &m->sites[p->site];
    float *weight;
    TRY(tuner_base_weight(&weight, site, store, err));
    const struct ad_lora_place *place = site->own;
    float *out = data;
    for (int part = 0; part < place->n; part++)
        for (int64_t i = place->begin[part]; i < place->begin[part] + place->size[part]; i++) {
            const float *row = weight + i * site->site.in;
            double sum = 0;
            for (int64_t k = 0; k < site->site.in; k++) sum += (double)row[k] * row[k];
            *out++ = (float)sqrt(sum);
        }
    free(weight);
    return CB_OK;
}

static enum cb_status filled_add(struct module *m, struct tuner_site *site, const char *suffix, int64_t rows, int64_t columns,
                                 tuner_fill *fill, double spread, int *at, struct cb_err *err) {
    const char *key = adapters_key(m, site->site.name, "loras", suffix, err);
    if (!key) return err->code;
    struct tuner_param rest = {.public = {.key = key, .type = type_make(CB_DTYPE_F32, 2, (const int64_t[]){rows, columns})}};
    rest.fill = fill;
    rest.spread = spread;
    *at = site->n_params;
    return tuner_add(m, site, rest, NULL, err);
}

/* A fresh factor's spread. */
static double factor_spread(const struct ad_lora *o, enum tuner_init init, int64_t fan_in) {
    return init == TUNER_UNIFORM ? sqrt((o->is_kaiming ? 6.0 : 1.0) / (double)fan_in) : o->spread;
}

static enum cb_status factors_add(struct module *m, struct tuner_site *site, struct ad_lora_place *p, struct cb_err *err) {
    const struct ad_lora *o = m->options;
    const char *name = site->site.name, *key[2] = {NULL, NULL};
    const int64_t a[2] = {o->r * p->n, site->site.in}, b[3] = {o->n_up, p->width, o->r}, task[2] = {o->r, o->r};
    const bool is_mtl = o->n_up > 0;
    for (int i = 0; i < 2; i++) {
        const char *suffix = i ? "lora_B" : "lora_A";
        key[i] = o->is_vera ? arena_printf(m->arena, "%sshared_parameters.%s.%s", m->prefix, m->label, suffix)
                            : adapters_key(m, name, "loras", suffix, err);
        if (!key[i]) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
    }
    enum tuner_role role = o->is_vera ? TUNER_FROZEN : TUNER_TRAINED;
    if (!o->scales) TRY(adapters_add(m, site, key[0], 2, a, o->a_init, factor_spread(o, o->a_init, a[1]), role, &p->a, err));
    TRY(adapters_add(m, site, key[1], is_mtl ? 3 : 2, is_mtl ? b : b + 1, o->b_init, factor_spread(o, o->b_init, o->r), role, &p->b, err));
    if (is_mtl) {
        TRY(adapters_add(m, site, adapters_key(m, name, "loras", "task_specific.values", err), o->has_matrix ? 2 : 1, task, TUNER_CONSTANT,
                         1, role, &p->task, err));
        TRY(adapters_add(m, site, adapters_key(m, name, "loras", "weights", err), 1, &o->n_up, TUNER_CONSTANT, 1, role, &p->weights, err));
    }
    if (!o->is_vera) return CB_OK;
    TRY(filled_add(m, site, "vera_D", o->r, o->r, diagonal_fill, o->vera_d, &p->d, err));
    return filled_add(m, site, "vera_B", p->width, p->width, diagonal_fill, o->vera_b, &p->vera_b, err);
}

enum cb_status ad_lora_declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct ad_lora *o = m->options;
    struct ad_lora_place *p = arena_alloc(m->arena, sizeof *p);
    if (!p) FAIL(err, CB_E_MEMORY, "%s: no memory for a site", site->site.name);
    *p = (struct ad_lora_place){.a = -1, .b = -1, .d = -1, .vera_b = -1, .m = -1, .gate = -1, .task = -1, .weights = -1};
    site->own = p;
    site->rank = o->r;
    site->scale = o->scales ? o->alpha : o->alpha / (double)o->r;
    TRY(parts_find(p, o, &site->site, err));
    TRY(factors_add(m, site, p, err));
    if (o->use_dora) TRY(filled_add(m, site, "m.weight", p->width, 1, norms_fill, 0, &p->m, err));
    if (!o->use_gating) return CB_OK;
    const int64_t gate[2] = {p->n, site->site.in}, heads = p->n;
    const char *name = site->site.name;
    TRY(adapters_add(m, site, adapters_key(m, name, "loras", "gate.weight", err), 2, gate, TUNER_NORMAL, 0.02, TUNER_TRAINED, &p->gate,
                     err));
    return adapters_add(m, site, adapters_key(m, name, "loras", "gate.bias", err), 1, &heads, TUNER_UNIFORM,
                        1 / sqrt((double)site->site.in), TUNER_TRAINED, NULL, err);
}

const char *ad_lora_refuses_fold(const struct module *m) {
    const struct ad_lora *o = m->options;
    return o->use_gating ? "its gate depends on the input" : NULL;
}

/* ---- graph */
/* Rows of part i of a factor that stacks the parts. */
static struct cb_tensor *part_rows(struct nn *nn, struct cb_tensor *factor, int64_t begin, int64_t size, bool is_whole) {
    return is_whole ? factor : op_slice(nn->g, factor, 0, begin, begin + size, 1);
}

/* The up-projection; of MTL-LoRA the mean of several, in shares that are a softmax of the task's weights. (width,r) */
static struct cb_tensor *up_projection(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct ad_lora *o = m->options;
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *b = tuner_leaf(m, site, p->b, nn);
    if (p->weights < 0) return b;
    struct cb_tensor *share = op_softmax(g, op_scale(g, tuner_leaf(m, site, p->weights, nn), 1 / o->sharpness, 0), 0);
    share = op_reshape(g, share, 2, (const int64_t[]){1, o->n_up});
    b = op_matmul(g, share, op_reshape(g, b, 2, (const int64_t[]){o->n_up, p->width * o->r}), false, false);
    return op_reshape(g, b, 2, (const int64_t[]){p->width, o->r});
}

/* Rows (...,r) times what the task has between down and up: a diagonal or a matrix. */
static struct cb_tensor *task_apply(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *low) {
    const struct ad_lora_place *p = site->own;
    if (p->task < 0) return low;
    struct cb_tensor *values = tuner_leaf(m, site, p->task, nn);
    return ((const struct ad_lora *)m->options)->has_matrix ? op_linear(nn->g, low, values, NULL, true) : op_mul(nn->g, low, values);
}

struct cb_tensor *ad_lora_spread(const struct tuner_site *site, struct nn *nn, struct cb_tensor *parts, int axis, float fill) {
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    if (!p->is_part || graph_is_bad(g, parts)) return parts;
    struct cb_tensor *piece[2 * AD_LORA_PARTS + 1];
    struct cb_type type = parts->type;
    int n = 0;
    if (axis < 0) axis += type.rank;
    int64_t at = 0, from = 0;
    for (int i = 0; i <= p->n; i++) {
        const int64_t begin = i < p->n ? p->begin[i] : site->site.out;
        type.dim[axis] = begin - at;
        if (begin > at) piece[n++] = op_expand(g, graph_const_f32(g, fill), type.rank, type.dim);
        if (i == p->n) break;
        piece[n++] = op_slice(g, parts, axis, from, from + p->size[i], 1);
        from += p->size[i];
        at = begin + p->size[i];
    }
    return op_concat(g, n, piece, axis);
}

struct cb_tensor *ad_lora_gates(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x) {
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    if (p->gate < 0) return NULL;
    struct cb_tensor *gate = adapters_gate(nn, x, tuner_leaf(m, site, p->gate, nn), tuner_leaf(m, site, p->gate + 1, nn));
    if (p->n == 1 || graph_is_bad(g, gate)) return gate;
    struct cb_tensor *piece[AD_LORA_PARTS];
    for (int i = 0; i < p->n; i++)
        piece[i] = op_expand(g, op_slice(g, gate, 2, i, i + 1, 1), 3, (const int64_t[]){gate->type.dim[0], 1, p->size[i]});
    return op_concat(g, p->n, piece, 2);
}

struct cb_tensor *ad_lora_added(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                struct cb_tensor *scale) {
    const struct ad_lora *o = m->options;
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, p->a, nn), *b = up_projection(m, site, nn), *piece[AD_LORA_PARTS];
    struct cb_tensor *dropped = nn_dropout(nn, x, o->dropout);
    int64_t from = 0;
    for (int i = 0; i < p->n; i++) {
        struct cb_tensor *low = op_linear(g, dropped, part_rows(nn, a, i * o->r, o->r, p->n == 1), NULL, false);
        if (p->d >= 0) low = op_linear(g, low, tuner_leaf(m, site, p->d, nn), NULL, false);
        low = task_apply(m, site, nn, low);
        // the scale goes where the tensor is smallest; a gate is in place of alpha / r
        low = op_mul(g, p->gate < 0 ? op_scale(g, low, site->scale, 0) : low, scale);
        piece[i] = op_linear(g, low, part_rows(nn, b, from, p->size[i], p->n == 1), NULL, false);
        from += p->size[i];
    }
    struct cb_tensor *y = p->n == 1 ? piece[0] : op_concat(g, p->n, piece, -1), *gate = ad_lora_gates(m, site, nn, x);
    if (p->vera_b >= 0) y = op_linear(g, y, tuner_leaf(m, site, p->vera_b, nn), NULL, false);
    return ad_lora_spread(site, nn, gate ? op_mul(g, y, gate) : y, -1, 0);
}

struct cb_tensor *ad_lora_delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                struct cb_tensor *y, struct cb_tensor *scale) {
    return op_add(nn->g, y, ad_lora_added(m, site, nn, x, scale));
}

struct cb_tensor *ad_lora_product(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    const struct ad_lora *o = m->options;
    const struct ad_lora_place *p = site->own;
    struct cb_graph *g = nn->g;
    struct cb_tensor *a = tuner_leaf(m, site, p->a, nn), *b = up_projection(m, site, nn), *piece[AD_LORA_PARTS];
    int64_t from = 0;
    if (p->d >= 0) a = op_matmul(g, tuner_leaf(m, site, p->d, nn), a, false, false);
    if (p->vera_b >= 0) b = op_matmul(g, tuner_leaf(m, site, p->vera_b, nn), b, false, false);
    for (int i = 0; i < p->n; i++) {
        struct cb_tensor *down = op_transpose(g, part_rows(nn, a, i * o->r, o->r, p->n == 1), 0, 1);
        piece[i] = op_matmul(g, part_rows(nn, b, from, p->size[i], p->n == 1), task_apply(m, site, nn, down), false, true);
        from += p->size[i];
    }
    return ad_lora_spread(site, nn, p->n == 1 ? piece[0] : op_concat(g, p->n, piece, 0), 0, 0);
}

struct cb_tensor *ad_lora_weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                 struct cb_tensor *scale) {
    return op_add(nn->g, w, op_mul(nn->g, op_scale(nn->g, ad_lora_product(m, site, nn), site->scale, 0), scale));
}

const struct tuner_option ad_lora_options[] = {
    AD_LORA_RANK,
    AD_LORA_PLACES,
    {"vera_d", "vera_d", TUNER_REAL, "fresh diagonal of the vectors d of VeRA"},
    {"vera_b", "vera_b", TUNER_REAL, "fresh diagonal of the vectors b of VeRA"},
    {0},
};
