/* Mixtures of experts (Shazeer et al. 2017; Jiang et al. 2024, Mixtral): only the chosen experts are computed, all rows of one at a time. */
#include "nn/nn.h"
#include "ops/ops.h"

/* Linear layer `part` of every expert over its rows of x (R,in), sorted by expert: (R,out). */
static struct cb_tensor *experts_linear(struct nn *nn, struct cb_tensor *x, struct cb_tensor *ends, const struct nn_moe *m,
                                        const char *part, int64_t in, int64_t out) {
    const int64_t shape[2] = {out, in};
    struct cb_tensor **w = arena_array(nn->g->arena, (size_t)m->n_experts, sizeof(struct cb_tensor *));
    if (!w) return graph_fail(nn->g, CB_E_MEMORY, "%s: no memory for %lld experts", m->name, (long long)m->n_experts);
    struct nn_site site = {.kind = NN_LINEAR, .in = in, .out = out, .some_rows = true};
    for (int64_t e = 0; e < m->n_experts; e++) {
        const char *name = nn_name(nn, "%s.experts.%lld.%s", m->name, (long long)e, part);
        w[e] = nn_site_param(nn, name, "weight", nn_name(nn, "%s.weight", name), 2, shape, false);
    }
    struct cb_tensor *y = op_grouped_linear(nn->g, x, ends, NULL, (int)m->n_experts, w, 0, false);
    // each expert is a site that may change its own rows
    nn->group_ends = ends;
    for (nn->group = 0; nn->group < m->n_experts && !graph_is_bad(nn->g, y); nn->group++) {
        site.name = nn_name(nn, "%s.experts.%lld.%s", m->name, (long long)nn->group, part);
        site.weight = nn_name(nn, "%s.weight", site.name);
        y = nn_site(nn, &site, x, y);
    }
    nn->group_ends = NULL;
    return y;
}

struct cb_tensor *nn_moe(struct nn *nn, struct cb_tensor *x, const struct nn_moe *m, struct nn_moe_routes *routes) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, x)) return x;
    const struct cb_type type = x->type;
    const int64_t c = m->channels, n = type_elements(&type) / c, k = m->top_k, flat[2] = {n, c};
    x = op_reshape(g, x, 2, flat);
    if (nn->train && m->jitter > 0) {
        struct cb_tensor *noise = op_random(g, "uniform", nn_seed(nn), type_make(CB_DTYPE_F32, 2, flat), ++nn->n_dropouts);
        x = op_mul(g, x, op_scale(g, noise, 2 * m->jitter, 1 - m->jitter));
    }
    // the router: softmax over the experts, of which top_k stay
    struct nn_linear router = {.name = nn_name(nn, "%s.gate", m->name), .in = c, .out = m->n_experts};
    struct nn_moe_routes r = {.logits = nn_linear(nn, x, &router)};
    r.weights = op_softmax(g, r.logits, -1);
    struct cb_tensor *weight = op_topk(g, r.weights, k, -1, true);
    r.chosen = graph_out(g, weight, 1);
    if (m->normalised) weight = op_div(g, weight, op_sum(g, weight, 1, (const int64_t[]){-1}, true));
    // a row for every choice, sorted by expert
    struct cb_tensor *source = op_group_rows(g, r.chosen, m->n_experts), *place = graph_out(g, source, 1), *ends = graph_out(g, source, 2);
    struct cb_tensor *rows = op_embedding(g, x, source);
    struct cb_tensor *gate = nn_activation(nn, m->activation, experts_linear(nn, rows, ends, m, m->gate, c, m->inner));
    rows = op_mul(g, gate, experts_linear(nn, rows, ends, m, m->up, c, m->inner));
    rows = experts_linear(nn, rows, ends, m, m->down, m->inner, c);
    // the weighted sum of what each token's experts gave
    struct cb_tensor *y = op_matmul(g, op_reshape(g, weight, 3, (const int64_t[]){n, 1, k}), op_embedding(g, rows, place), false, false);
    if (routes) *routes = r;
    return op_reshape(g, y, type.rank, type.dim);
}
