/* VB-LoRA (Li et al. 2024): W' = W + B A, whose rows and columns are cut into vectors, each a mixture of the k best of a bank that all sites share. A file may
   keep of each mixture its k places and all but the last of their weights; the logits are then made again of these. */
#include <math.h>

#include "base/rng.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct vblora_options {
    int64_t r, n_vectors, length, k;
    double dropout, bound, deviation;
    bool is_short;  // the file keeps the best only
};

/* The site's parameters: logits of A and B, and in a short file for each before them its places and weights. */
static int logits_at(const struct module *m, int which) {
    return ((const struct vblora_options *)m->options)->is_short ? 3 * which + 2 : which;
}

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct vblora_options *o = (struct vblora_options *)m->options;
    *o = (struct vblora_options){.r = 4, .n_vectors = 256, .length = 256, .k = 2, .bound = 0.02, .deviation = 0.1};
    TRY(json_get_int(&o->r, m->config, where, "r", 1, TUNER_RANK_LIMIT, false, err));
    TRY(json_get_int(&o->n_vectors, m->config, where, "num_vectors", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->length, m->config, where, "vector_length", 1, 1 << 24, false, err));
    TRY(json_get_int(&o->k, m->config, where, "topk", 1, o->n_vectors, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "vblora_dropout", 0, 0.999, false, err));
    TRY(json_get_float(&o->bound, m->config, where, "init_vector_bank_bound", 0, 1e6, false, err));
    TRY(json_get_float(&o->deviation, m->config, where, "init_logits_std", 0, 1e6, false, err));
    return json_get_bool(&o->is_short, m->config, where, "save_only_topk_weights", false, err);
}

static enum cb_status declare_shared(struct module *m, const struct nn *nn, struct cb_err *err) {
    const struct vblora_options *o = m->options;
    struct tuner_param bank = {.init = TUNER_UNIFORM, .spread = o->bound};
    (void)nn;
    bank.public.key = "base_model.vblora_vector_bank";
    bank.public.type = type_make(CB_DTYPE_F32, 2, (int64_t[]){o->n_vectors, o->length});
    return tuner_add(m, NULL, bank, NULL, err);
}

/* The logits whose places and weights are the parameters before them: logarithms there, and far below elsewhere. Fresh ones are normal. */
static enum cb_status logits_fill(const struct module *m, const struct tuner_param *p, struct store *store, uint64_t seed, void *data,
                                  struct cb_err *err) {
    const struct vblora_options *o = m->options;
    const int64_t n = type_elements(&p->public.type), rows = n / o->n_vectors;
    float *out = data;
    if (m->is_fresh) {
        struct rng rng = rng_make(seed, rng_hash(p->public.key));
        for (int64_t i = 0; i < n; i++) out[i] = (float)(o->deviation * rng_normal(&rng));
        return CB_OK;
    }
    const int number = (int)(p - m->params);
    TRY(parts_check_range(m, store, number - 2, 0, rows * o->k, o->n_vectors, err));
    const int32_t *place = store_find(store, m->params[number - 2].public.name)->data;
    const float *weight = store_find(store, m->params[number - 1].public.name)->data;
    for (int64_t i = 0; i < n; i++) out[i] = -1e4f;
    for (int64_t i = 0; i < rows; i++) {
        double left = 1;
        for (int64_t j = 0; j < o->k; j++) {
            const double w = j + 1 < o->k ? (double)weight[i * (o->k - 1) + j] : left;
            left -= w;
            out[i * o->n_vectors + place[i * o->k + j]] = (float)fmax(log(fmax(w, 0)), -1e3);
        }
    }
    return CB_OK;
}

/* The places and weights of the logits as they are now. */
static void best_of_logits(const struct module *m, const struct store *store, int number) {
    const struct vblora_options *o = m->options;
    const struct tuner_param *p = &m->params[number];
    const float *logits = store_find(store, p->public.name)->data;
    int32_t *place = store_find(store, m->params[number - 2].public.name)->data;
    float *weight = store_find(store, m->params[number - 1].public.name)->data;
    for (int64_t i = 0; i < type_elements(&p->public.type) / o->n_vectors; i++, logits += o->n_vectors, place += o->k) {
        double sum = 0;
        for (int64_t j = 0; j < o->k; j++) {
            // the largest that comes after the one before, equal ones in their order
            int32_t best = -1;
            for (int32_t v = 0; v < o->n_vectors; v++) {
                const bool is_taken = j && (logits[v] > logits[place[j - 1]] || (logits[v] == logits[place[j - 1]] && v <= place[j - 1]));
                if (!is_taken && (best < 0 || logits[v] > logits[best])) best = v;
            }
            place[j] = best < 0 ? 0 : best;
            sum += exp((double)logits[place[j]] - (double)logits[place[0]]);
        }
        for (int64_t j = 0; j + 1 < o->k; j++)
            weight[i * (o->k - 1) + j] = (float)(exp((double)logits[place[j]] - (double)logits[place[0]]) / sum);
    }
}

static enum cb_status before_save(const struct module *m, const struct store *store, struct cb_err *err) {
    (void)err;
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].role == TUNER_INNER) best_of_logits(m, store, i);
    return CB_OK;
}

static enum cb_status add_logits(struct module *m, struct tuner_site *site, const char *name, int64_t a, int64_t b, struct cb_err *err) {
    const struct vblora_options *o = m->options;
    struct tuner_param logits = {.fill = logits_fill, .role = o->is_short ? TUNER_INNER : TUNER_TRAINED};
    logits.public.key = tuner_key(m, site, name, err);
    logits.public.type = type_make(CB_DTYPE_F32, 3, (int64_t[]){a, b, o->n_vectors});
    if (!logits.public.key) return err->code;
    if (!o->is_short) {
        logits.fill = NULL;
        logits.init = TUNER_NORMAL;
        logits.spread = o->deviation;
        return tuner_add(m, site, logits, NULL, err);
    }
    struct tuner_param kept = {.role = TUNER_FROZEN};
    kept.public.key = arena_printf(m->arena, "%s_topk_indices", logits.public.key);
    kept.public.type = type_make(CB_DTYPE_I32, 3, (int64_t[]){a, b, o->k});
    TRY(tuner_add(m, site, kept, NULL, err));
    kept.public.key = arena_printf(m->arena, "%s_topk_weights", logits.public.key);
    kept.public.type = type_make(CB_DTYPE_F32, 3, (int64_t[]){a, b, o->k - 1});
    TRY(tuner_add(m, site, kept, NULL, err));
    return tuner_add(m, site, logits, NULL, err);
}

static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct vblora_options *o = m->options;
    const int64_t in = site->site.in, out = site->site.out, v = o->length;
    if (in % v || out % v)
        FAIL(err, CB_E_SHAPE, "%s: a weight (%lld,%lld) in vectors of %lld; wanted a divisor of both widths", site->site.name,
             (long long)out, (long long)in, (long long)v);
    site->rank = o->r;
    TRY(add_logits(m, site, "vblora_logits_A", o->r, in / v, err));
    return add_logits(m, site, "vblora_logits_B", out / v, o->r, err);
}

/* The vectors of logits (a,b,N): (a,b,length). */
static struct cb_tensor *vectors(const struct module *m, struct nn *nn, struct cb_tensor *logits) {
    const struct vblora_options *o = m->options;
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, logits)) return logits;
    const struct module_param *bank = &m->params[0].public;
    const int64_t a = logits->type.dim[0], b = logits->type.dim[1], column[4] = {a, b, o->k, 1}, axis = 2;
    struct cb_tensor *best = op_topk(g, logits, o->k, 2, true);
    struct cb_tensor *mixed = op_embedding(g, graph_param(g, bank->name, bank->type), graph_out(g, best, 1));
    return op_sum(g, op_mul(g, mixed, op_reshape(g, op_softmax(g, best, 2), 4, column)), 1, &axis, false);
}

/* A (r,in), scaled, and B (out,r). */
static void factors(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *scale, struct cb_tensor **a,
                    struct cb_tensor **b) {
    struct cb_graph *g = nn->g;
    *a = op_reshape(g, vectors(m, nn, tuner_leaf(m, site, logits_at(m, 0), nn)), 2, (int64_t[]){site->rank, site->site.in});
    *a = op_mul(g, *a, scale);
    *b = op_transpose(g, vectors(m, nn, tuner_leaf(m, site, logits_at(m, 1), nn)), 1, 2);
    *b = op_reshape(g, *b, 2, (int64_t[]){site->site.out, site->rank});
}

static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    const struct vblora_options *o = m->options;
    struct cb_tensor *a, *b;
    factors(m, site, nn, scale, &a, &b);
    return nn_product(nn, nn_product(nn, nn_dropout(nn, x, o->dropout), a, NULL), b, y);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_tensor *a, *b;
    factors(m, site, nn, scale, &a, &b);
    return op_add(nn->g, w, op_matmul(nn->g, b, a, false, false));
}

static const struct tuner_option options[] = {
    {"r", "r", TUNER_INT, "rank"},
    {"vectors", "num_vectors", TUNER_INT, "of the bank"},
    {"length", "vector_length", TUNER_INT, "of a vector, a divisor of the widths"},
    {"topk", "topk", TUNER_INT, "vectors of a mixture"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    PARTS_BIAS("vblora"),
    {"short", "save_only_topk_weights", TUNER_BOOL, "the file keeps the mixtures and not the logits (PEFT cannot train it on)"},
    {"dropout", "vblora_dropout", TUNER_FLOAT, "of the input, in training"},
    {0},
};
static const char *const cases[] = {"vblora:r=2,vectors=6,length=2,exclude=gate+shared_expert_gate", NULL};

const struct tuner tuner_vblora = {
    .name = "vblora",
    .doc = "VB-LoRA: LoRA whose factors are mixtures of vectors of one bank.",
    .peft_type = "VBLORA",
    .options = options,
    .defaults =
        "{" PARTS_JSON "," PARTS_JSON_LAYERS
        ",\"bias\":\"none\",\"exclude_modules\":null,\"fan_in_fan_out\":false,\"init_logits_std\":0.1,\"init_vector_bank_bound\":0.02,"
        "\"num_vectors\":256,\"peft_type\":\"VBLORA\",\"r\":4,\"save_only_topk_weights\":false,\"topk\":2,\"vblora_dropout\":0.0,"
        "\"vector_length\":256}",
    .options_bytes = sizeof(struct vblora_options),
    .fresh = TUNER_NOT_BASE,
    .takes_experts = true,
    .is_additive = true,
    .scaling = "the change",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare_shared = declare_shared,
    .declare = declare,
    .before_save = before_save,
    .delta = delta,
    .weight = weight,
};
