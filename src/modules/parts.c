/* Pieces of tuners' definitions: masks of training, blocks on a diagonal, frozen indices. */
#include "modules/parts.h"

#include "ops/ops.h"

bool parts_is_linear(const struct nn_site *site) { return site->kind == NN_LINEAR || site->kind == NN_HEAD; }

enum cb_status parts_largest(const struct module *m, const struct nn *nn, int64_t *out, int64_t *in, struct cb_err *err) {
    *out = *in = 0;
    for (int i = 0; i < nn->n_sites; i++) {
        const struct nn_site *site = nn->sites[i];
        bool matches;
        TRY(tuner_targets_match(m, site, &matches, err));
        if (matches && site->out > *out) *out = site->out;
        if (matches && site->in > *in) *in = site->in;
    }
    return CB_OK;
}

struct cb_tensor *parts_mask(struct nn *nn, int64_t n, double rate) {
    if (!nn->train || rate <= 0) return NULL;
    struct cb_tensor *ones = op_expand(nn->g, graph_const_f32(nn->g, 1), 1, &n);
    return op_scale(nn->g, nn_dropout(nn, ones, rate), 1 - rate, 0);
}

struct cb_tensor *parts_identity(struct cb_graph *g, int64_t n) {
    const int64_t dim[2] = {n, n};
    struct cb_tensor *ones = op_expand(g, graph_const_f32(g, 1), 2, dim);
    return op_tril(g, op_tril(g, ones, 0, false), 0, true);
}

struct cb_tensor *parts_by_blocks(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *r, bool turned) {
    if (graph_is_bad(g, x) || graph_is_bad(g, r)) return x;
    const struct cb_type type = x->type;
    const int64_t n_blocks = r->type.dim[0], b = r->type.dim[1], rows[3] = {-1, n_blocks, b};
    x = op_reshape(g, x, 3, rows);
    // one block for all is one plain product
    if (n_blocks > 1) x = op_transpose(g, x, 0, 1);
    if (n_blocks == 1) r = op_reshape(g, r, 2, (int64_t[]){b, b});
    x = op_matmul(g, x, r, false, turned);
    if (n_blocks > 1) x = op_transpose(g, x, 0, 1);
    return op_reshape(g, x, type.rank, type.dim);
}

struct cb_tensor *parts_drop_blocks(struct nn *nn, struct cb_tensor *r, double rate) {
    if (graph_is_bad(nn->g, r)) return r;
    const int64_t n = r->type.dim[0], column[3] = {n, 1, 1};
    struct cb_tensor *mask = parts_mask(nn, n, rate);
    if (!mask) return r;
    struct cb_tensor *unit = parts_identity(nn->g, r->type.dim[1]);
    return op_add(nn->g, unit, op_mul(nn->g, op_sub(nn->g, r, unit), op_reshape(nn->g, mask, 3, column)));
}

struct cb_tensor *parts_scaled_factor(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *scale) {
    return op_scale(g, op_mul(g, op_scale(g, x, 1, -1), scale), 1, 1);
}

enum cb_status parts_check_range(const struct module *m, const struct store *store, int param, int64_t begin, int64_t end, int64_t size,
                                 struct cb_err *err) {
    const struct module_param *p = &m->params[param].public;
    const struct store_entry *entry = store_find(store, p->name);
    if (!entry) FAIL(err, CB_E_NAME, "%s: not in the store", p->name);
    const int32_t *index = entry->data;
    for (int64_t i = begin; i < end; i++)
        if (index[i] < 0 || index[i] >= size)
            FAIL(err, CB_E_FORMAT, "%s: element %lld: found %d; wanted 0 to %lld", p->key, (long long)i, index[i], (long long)size - 1);
    return CB_OK;
}
