/* Invertible adapters (Pfeiffer et al. 2020, MAD-X): the embeddings pass a coupling of their halves (NICE, Dinh et al. 2015), and a tied head its inverse. */
#include <math.h>
#include <stdio.h>

#include "modules/adapters.h"
#include "ops/ops.h"

/* Parameters in the order F.0.weight, F.0.bias, F.2.weight, F.2.bias, then G's. */
enum cb_status inverse_declare(struct module *m, struct tuner_site *site, const char *activation, double reduction, struct cb_err *err) {
    (void)activation;
    const char *place = site->site.name;
    // the head's inverse reads the parameters of the embeddings
    for (int i = 0; site->site.kind != NN_EMBEDDED && i < m->n_sites; i++)
        if (m->sites[i].site.kind == NN_EMBEDDED) place = m->sites[i].site.name;
    int64_t width = site->site.in, first = width / 2, second = width - first;
    for (int net = 0; net < 2; net++) {
        const int64_t in = net ? first : second, out = net ? second : first, inner = (int64_t)floor((double)in / reduction);
        if (inner < 1 || inner > 1 << 24)
            FAIL(err, CB_E_SHAPE, "%s: inv_adapter_reduction_factor: found %g; wanted at least one of %lld features left", place, reduction,
                 (long long)in);
        for (int k = 0; k < 2; k++) {
            const int64_t shape[2] = {k ? out : inner, k ? inner : in};
            for (int bias = 0; bias < 2; bias++) {
                const char *key =
                    arena_printf(m->arena, "%s.%s.%c.%d.%s", place, m->label, net ? 'G' : 'F', 2 * k, bias ? "bias" : "weight");
                if (!key) FAIL(err, CB_E_MEMORY, "%s: no memory for a name", m->name);
                TRY(adapters_add(m, site, key, bias ? 1 : 2, shape, bias ? TUNER_ZEROS : TUNER_NORMAL, 0.02, TUNER_TRAINED, NULL, err));
            }
        }
    }
    return CB_OK;
}

/* F or G of x, times the run-time scale. */
static struct cb_tensor *net(const struct module *m, const struct tuner_site *site, struct nn *nn, const char *activation, int first,
                             struct cb_tensor *x, struct cb_tensor *scale) {
    struct cb_graph *g = nn->g;
    x = op_linear(g, x, tuner_leaf(m, site, first, nn), tuner_leaf(m, site, first + 1, nn), false);
    x = adapters_activation(nn, activation, x);
    x = op_linear(g, x, tuner_leaf(m, site, first + 2, nn), tuner_leaf(m, site, first + 3, nn), false);
    return op_mul(g, x, scale);
}

struct cb_tensor *inverse_apply(const struct module *m, const struct tuner_site *site, struct nn *nn, const char *activation,
                                struct cb_tensor *x, struct cb_tensor *scale, bool is_back) {
    struct cb_graph *g = nn->g;
    if (graph_is_bad(g, x)) return x;
    const int64_t width = x->type.dim[x->type.rank - 1], half[2] = {width / 2, width - width / 2};
    struct cb_tensor *parts = op_split(g, x, -1, 2, half), *a = graph_out(g, parts, 0), *b = graph_out(g, parts, 1);
    if (is_back) {
        b = op_sub(g, b, net(m, site, nn, activation, 4, a, scale));
        a = op_sub(g, a, net(m, site, nn, activation, 0, b, scale));
    } else {
        a = op_add(g, a, net(m, site, nn, activation, 0, b, scale));
        b = op_add(g, b, net(m, site, nn, activation, 4, a, scale));
    }
    return op_concat(g, 2, (struct cb_tensor *[]){a, b}, -1);
}
