/* BOFT (Liu et al. 2024): W' = diag(s) W R^T, R = M_(m-1) ... M_0 a product of butterfly factors M_i = P_i blockdiag(Q_i) P_i^T, each block a Cayley transform
   Q = (I - S)(I + S)^-1 of a skew S = (R_i - R_i^T) / 2. */
#include "io/safetensors.h"
#include "modules/parts.h"
#include "ops/ops.h"

struct boft_options {
    int64_t block, n_blocks, factors;
    double dropout;
    bool is_zero;
};

static enum cb_status parse(struct module *m, const char *where, struct cb_err *err) {
    struct boft_options *o = (struct boft_options *)m->options;
    *o = (struct boft_options){.block = 4, .factors = 1, .is_zero = true};
    TRY(json_get_int(&o->block, m->config, where, "boft_block_size", 0, 1 << 15, false, err));
    TRY(json_get_int(&o->n_blocks, m->config, where, "boft_block_num", 0, 1 << 24, false, err));
    TRY(json_get_int(&o->factors, m->config, where, "boft_n_butterfly_factor", 1, 24, false, err));
    TRY(json_get_float(&o->dropout, m->config, where, "boft_dropout", 0, 0.999, false, err));
    TRY(json_get_bool(&o->is_zero, m->config, where, "init_weights", false, err));
    if (!o->block == !o->n_blocks)
        FAIL(err, CB_E_FORMAT, "%s: boft_block_size, boft_block_num: found %lld and %lld; wanted one of them, the other 0", where,
             (long long)o->block, (long long)o->n_blocks);
    return CB_OK;
}

/* R (m,D,b,b) and s (out,1). PEFT writes m = 1 where it lacks its CUDA extension, whatever the configuration says: the file decides. */
static enum cb_status declare(struct module *m, struct tuner_site *site, struct cb_err *err) {
    const struct boft_options *o = m->options;
    const int64_t in = site->site.in, b = o->block ? o->block : in / o->n_blocks, d = b ? in / b : 0;
    int64_t factors = o->factors;
    const char *key = tuner_key(m, site, "boft_R", err);
    if (!key) return err->code;
    const struct tensor *held = m->file ? tensors_find(m->file, key) : NULL;
    if (held && held->type.rank == 4 && held->type.dim[0] == 1) factors = 1;
    if (b < 1 || in % b || d * b != in || (o->n_blocks && d != o->n_blocks))
        FAIL(err, CB_E_SHAPE, "%s: %lld inputs do not divide into blocks of %lld", site->site.name, (long long)in, (long long)b);
    if (factors > 1 && (b % 2 || d % ((int64_t)1 << (factors - 1))))
        FAIL(err, CB_E_SHAPE, "%s: %lld blocks of %lld; wanted blocks of even size, as many as %lld divides, for %lld butterfly factors",
             site->site.name, (long long)d, (long long)b, (long long)1 << (factors - 1), (long long)factors);
    site->rank = b;
    const int64_t r[4] = {factors, d, b, b}, s[2] = {site->site.out, 1};
    TRY(tuner_add_param(m, site, "boft_R", 4, r, o->is_zero ? TUNER_ZEROS : TUNER_NORMAL, 0.1, err));
    return tuner_add_param(m, site, "boft_s", 2, s, TUNER_CONSTANT, 1, err);
}

/* The i-th permutation: in each run of 2^i blocks the half blocks of even number come first. inverse: where each feature goes. */
static struct cb_tensor *permutation(struct nn *nn, const struct tuner_site *site, int64_t i, bool inverse) {
    const int64_t in = site->site.in, half = site->rank / 2, run = site->rank << i, chunks = run / half;
    int32_t *index = arena_array(nn->g->arena, (size_t)in, sizeof *index);
    if (!index) return graph_fail(nn->g, CB_E_MEMORY, "%s: no memory for a permutation", site->site.name);
    for (int64_t a = 0; a < in; a++) {
        int64_t chunk = a % run / half, from = chunk < chunks / 2 ? 2 * chunk : 2 * (chunk - chunks / 2) + 1;
        int64_t p = a / run * run + from * half + a % half;
        if (inverse)
            index[p] = (int32_t)a;
        else
            index[a] = (int32_t)p;
    }
    return graph_const(nn->g, type_make(CB_DTYPE_I32, 1, &in), index);
}

/* Rows x (...,in) times R, or times its transpose. */
static struct cb_tensor *turned(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                                struct cb_tensor *scale, bool transposed) {
    const struct boft_options *o = m->options;
    const struct cb_type *type = &m->params[site->param[0]].public.type;
    struct cb_graph *g = nn->g;
    const int64_t n = type->dim[0], axis = x->type.rank - 1;
    struct cb_tensor *blocks = op_mul(g, op_scale(g, tuner_leaf(m, site, 0, nn), 0.5, 0), scale);
    for (int64_t k = 0; k < n; k++) {
        // x R = x M_(m-1) ... M_0; x R^T takes the factors, transposed, from the other end
        const int64_t i = transposed ? k : n - 1 - k;
        struct cb_tensor *s = op_reshape(g, op_slice(g, blocks, 0, i, i + 1, 1), 3, type->dim + 1), *unit = parts_identity(g, site->rank);
        s = op_sub(g, s, op_transpose(g, s, 1, 2));
        struct cb_tensor *q = op_solve(g, op_add(g, unit, s), op_sub(g, unit, s));
        q = parts_drop_blocks(nn, q, o->dropout);
        if (i) x = op_index_select(g, x, permutation(nn, site, i, true), (int)axis);
        x = parts_by_blocks(g, x, q, transposed);
        if (i) x = op_index_select(g, x, permutation(nn, site, i, false), (int)axis);
    }
    return x;
}

static struct cb_tensor *input(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *scale) {
    return turned(m, site, nn, x, scale, false);
}

/* The bias is not scaled. */
static struct cb_tensor *delta(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *x,
                               struct cb_tensor *y, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    (void)x;
    struct cb_tensor *s = op_reshape(g, tuner_leaf(m, site, 1, nn), 1, &site->site.out);
    s = parts_scaled_factor(g, s, scale);
    if (!site->site.bias) return op_mul(g, y, s);
    struct cb_tensor *b = nn_site_param(nn, site->site.name, "bias", site->site.bias, 1, &site->site.out, true);
    return op_add(g, op_mul(g, op_sub(g, y, b), s), b);
}

static struct cb_tensor *weight(const struct module *m, const struct tuner_site *site, struct nn *nn, struct cb_tensor *w,
                                struct cb_tensor *scale) {
    struct cb_tensor *s = parts_scaled_factor(nn->g, tuner_leaf(m, site, 1, nn), scale);
    return op_mul(nn->g, turned(m, site, nn, w, scale, true), s);
}

static const struct tuner_option options[] = {
    {"block", "boft_block_size", TUNER_INT, "size of the blocks; 0: by blocks"},
    {"blocks", "boft_block_num", TUNER_INT, "number of the blocks; 0: by block"},
    {"factors", "boft_n_butterfly_factor", TUNER_INT, "butterfly factors (PEFT without its CUDA extension takes 1 only)"},
    PARTS_TARGETS,
    PARTS_EXCLUDE,
    PARTS_LAYERS,
    PARTS_BIAS("boft"),
    {"dropout", "boft_dropout", TUNER_FLOAT, "probability of a block to be left out, in training"},
    {0},
};
static const char *const cases[] = {"boft:block=2,factors=2," PARTS_QUERIES, NULL};

const struct tuner tuner_boft = {
    .name = "boft",
    .doc = "BOFT: OFT whose rotation is a product of butterfly factors, with a factor for each output, W' = diag(s) W R^T.",
    .peft_type = "BOFT",
    .options = options,
    .defaults = "{" PARTS_JSON "," PARTS_JSON_LAYERS
                ",\"bias\":\"none\",\"boft_block_num\":0,\"boft_block_size\":4,\"boft_dropout\":0.0,\"boft_n_butterfly_factor\":1,"
                "\"exclude_modules\":null,\"fan_in_fan_out\":false,\"init_weights\":true,\"peft_type\":\"BOFT\"}",
    .options_bytes = sizeof(struct boft_options),
    .fresh = TUNER_NEAR_BASE,
    .scaling = "the skew matrices S, and the factors' distance from 1",
    .cases = cases,
    .parse = parse,
    .match = parts_is_linear,
    .declare = declare,
    .input = input,
    .delta = delta,
    .weight = weight,
};
