/* Arrow (Ostapenko et al. 2024): each token goes through the LoRA modules whose direction it lies along most. The direction of a module at a site is the top right
   singular vector of B A, by 15 steps of power iteration from a vector that the seed gives, as PEFT takes it. The last modules may be general ones, whose mean
   A and B are taken off the others' first (general knowledge subtraction). */
#include <math.h>
#include <string.h>

#include "base/torch_rng.h"
#include "modules/compose.h"
#include "modules/lora.h"
#include "ops/ops.h"

enum { TOP_K, TEMPERATURE, SEED, GENERAL };
const struct block_option compose_arrow_options[] = {
    [TOP_K] = {"top_k", 3, 1, 4096, true},
    [TEMPERATURE] = {"temperature", 1, 1e-6, 1e6, false},
    [SEED] = {"seed", 0, 0, 9007199254740992.0, true},
    [GENERAL] = {"general", 0, 0, 4096, true},
    {0},
};

enum cb_status compose_arrow_check(struct expression *e, const char *where, struct cb_err *err) {
    for (int i = 0; i < e->n; i++)
        if (e->child[i]->block || !e->child[i]->path)
            FAIL(err, CB_E_USAGE, "%s: arrow: child %d is no module; wanted LoRA modules", where, i + 1);
    if (e->option[GENERAL] >= e->n)
        FAIL(err, CB_E_USAGE, "%s: arrow: %d modules, %g of them general; wanted others too", where, e->n, e->option[GENERAL]);
    return CB_OK;
}

/* One module at a site. */
struct expert {
    struct cb_tensor *a, *b;  // (r,in), (out,r)
    double scale;
    struct cb_tensor *run_scale;
};

/* False and a sticky failure where the module is not plain LoRA there. */
static bool expert_read(struct compose *c, const struct module *m, struct expert *x) {
    const struct tuner_site *site = module_site(m, c->name);
    const struct lora_site *own = site && strcmp(m->tuner->name, "lora") == 0 ? site->own : NULL;
    const enum nn_kind kind = c->site->kind;
    if (!own || (kind != NN_LINEAR && kind != NN_HEAD) || !lora_site_is_plain(own)) {
        graph_fail(c->nn->g, CB_E_UNSUPPORTED, "%s: arrow: %s is not plain LoRA of a linear layer there", c->name, m->name);
        return false;
    }
    *x = (struct expert){tuner_leaf(m, site, 0, c->nn), tuner_leaf(m, site, 1, c->nn), site->scale, module_scale(m, site, c->nn)};
    return true;
}

/* The start of the power iteration, (in,1): normal numbers, made a unit. */
static struct cb_tensor *start_vector(struct compose *c, int64_t in, double seed) {
    struct cb_graph *g = c->nn->g;
    float *v = arena_array(g->arena, (size_t)in, sizeof *v);
    double sum = 0;
    if (!v) return graph_fail(g, CB_E_MEMORY, "arrow: no memory");
    struct torch_rng rng = torch_rng_make((uint64_t)seed);
    torch_rng_normal(&rng, v, in);
    for (int64_t i = 0; i < in; i++) sum += (double)v[i] * (double)v[i];
    for (int64_t i = 0; i < in; i++) v[i] = (float)((double)v[i] / (sqrt(sum) + 1e-8));
    return graph_const(g, type_make(CB_DTYPE_F32, 2, (int64_t[]){in, 1}), v);
}

/* v <- A^T C A v over its norm, C = B^T B, 15 times; but for the last one in the r coordinates u = A v, where |A^T z|^2 = z^T A A^T z. (in,1) */
static struct cb_tensor *direction(struct cb_graph *g, const struct expert *x, struct cb_tensor *v) {
    struct cb_tensor *c = op_matmul(g, x->b, x->b, true, false), *k = op_matmul(g, x->a, x->a, false, true);
    struct cb_tensor *u = op_matmul(g, x->a, v, false, false);
    for (int i = 0; i < 15; i++) {
        struct cb_tensor *z = op_matmul(g, c, u, false, false), *kz = op_matmul(g, k, z, false, false);
        struct cb_tensor *norm = op_unary(g, "sqrt", op_clamp(g, op_matmul(g, z, kz, true, false), 0, INFINITY));
        norm = op_scale(g, norm, 1, 1e-8);
        if (i == 14) return op_stop_gradient(g, op_div(g, op_matmul(g, x->a, z, true, false), norm));
        u = op_div(g, kz, norm);
    }
    return v;
}

/* What is left of an expert without the mean of the general ones. */
static void subtract_general(struct cb_graph *g, struct expert *x, const struct expert *general, int n) {
    for (int i = 0; i < n; i++) {
        x->a = op_sub(g, x->a, op_scale(g, general[i].a, 1.0 / n, 0));
        x->b = op_sub(g, x->b, op_scale(g, general[i].b, 1.0 / n, 0));
    }
}

/* Shares (...,n) of the experts: softmax over the k whose directions' products with x are largest in size, 0 for others. */
static struct cb_tensor *shares(struct cb_graph *g, struct cb_tensor *x, struct cb_tensor *directions, int64_t k, double temperature) {
    struct cb_tensor *size = op_unary(g, "abs", op_linear(g, x, directions, NULL, true));
    if (graph_is_bad(g, size)) return size;
    const int axis = size->type.rank - 1;
    struct cb_tensor *best = op_topk(g, size, k, axis, true);
    struct cb_tensor *share = op_softmax(g, op_scale(g, best, 1 / temperature, 0), axis);
    return op_scatter_add(g, NULL, &size->type, graph_out(g, best, 1), share, axis);
}

struct cb_tensor *compose_arrow(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    if (!c->site) return y;  // inputs are left alone
    struct expert *all = arena_array(g->arena, (size_t)e->n, sizeof *all);
    struct cb_tensor **v = arena_array(g->arena, (size_t)e->n, sizeof(struct cb_tensor *));
    if (!all || !v) return graph_fail(g, CB_E_MEMORY, "arrow: no memory");
    const int first_general = e->n - (int)e->option[GENERAL];
    int n = 0, n_general = 0;
    for (int i = e->n - 1; i >= 0; i--) {
        // the general ones are read first, behind the others
        struct expert *to = i >= first_general ? &all[e->n - 1 - n_general] : &all[n];
        if (!compose_touches(c, e->child[i])) continue;
        if (!expert_read(c, c->list->modules[e->child[i]->module], to)) return &g->bad_tensor;
        if (i >= first_general)
            n_general++;
        else
            n++;
    }
    if (!n) return y;
    struct cb_tensor *start = start_vector(c, c->site->in, e->option[SEED]);
    for (int i = 0; i < n; i++) {
        subtract_general(g, &all[i], all + e->n - n_general, n_general);
        v[i] = direction(g, &all[i], start);
    }
    const int64_t k = (int64_t)e->option[TOP_K] < n ? (int64_t)e->option[TOP_K] : n;
    struct cb_tensor *share = shares(g, x, op_concat(g, n, v, 1), k, e->option[TEMPERATURE]);
    for (int i = 0; i < n; i++) {
        struct cb_tensor *low = op_mul(g, op_linear(g, x, all[i].a, NULL, false), op_slice(g, share, -1, i, i + 1, 1));
        low = op_mul(g, op_scale(g, low, all[i].scale, 0), all[i].run_scale);
        y = op_add(g, y, op_linear(g, low, all[i].b, NULL, false));
    }
    return y;
}
