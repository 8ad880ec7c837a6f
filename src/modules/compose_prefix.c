/* Expressions over prefixes: rows before a site's keys or values, of one length for a batch; where rows of the batch have fewer, theirs are filled up and
   hidden. */
#include <string.h>

#include "modules/compose.h"
#include "ops/ops.h"

#define HIDDEN -1e30f

/* rows (1 or n_rows, n, heads, head_dim); mask (1 or n_rows, n): what is added to the scores of their keys. NULL: none. */
struct prefix {
    struct cb_tensor *rows, *mask;
};

static struct prefix prefix_of(struct compose *c, const struct expression *e, const struct nn_prefixed *attention);

static struct cb_tensor *filled(struct cb_graph *g, float value, int rank, const int64_t *dim) {
    return op_expand(g, graph_const_f32(g, value), rank, dim);
}

static struct prefix failed(struct compose *c, const struct expression *e, const char *reason) {
    graph_fail(c->nn->g, CB_E_UNSUPPORTED, "%s: %s: %s", c->name, e->block ? e->block->name : e->name, reason);
    return (struct prefix){&c->nn->g->bad_tensor, NULL};
}

/* As many rows of the batch, n of the prefix: filled up with hidden ones. */
static struct prefix stretched(struct compose *c, struct prefix p, int64_t batch, int64_t n, const struct nn_prefixed *a) {
    struct cb_graph *g = c->nn->g;
    if (p.rows && graph_is_bad(g, p.rows)) return p;
    const int64_t have = p.rows ? p.rows->type.dim[1] : 0, more[4] = {batch, n - have, a->heads, a->head_dim};
    const int64_t all[4] = {batch, have, a->heads, a->head_dim};
    struct cb_tensor *rows = p.rows ? op_expand(g, p.rows, 4, all) : NULL, *mask = NULL;
    if (p.rows) mask = p.mask ? op_expand(g, p.mask, 2, all) : filled(g, 0, 2, all);
    if (have == n) return (struct prefix){rows, mask};
    struct cb_tensor *rest = filled(g, 0, 4, more), *hidden = filled(g, HIDDEN, 2, more);
    if (!p.rows) return (struct prefix){rest, hidden};
    return (struct prefix){op_concat(g, 2, (struct cb_tensor *[]){rows, rest}, 1),
                           op_concat(g, 2, (struct cb_tensor *[]){mask, hidden}, 1)};
}

/* One behind the other. */
static struct prefix joined(struct compose *c, struct prefix a, struct prefix b, const struct nn_prefixed *attention) {
    struct cb_graph *g = c->nn->g;
    if (!a.rows || !b.rows) return a.rows ? a : b;
    if (graph_is_bad(g, a.rows) || graph_is_bad(g, b.rows)) return (struct prefix){&g->bad_tensor, NULL};
    const int64_t n = a.rows->type.dim[0] > b.rows->type.dim[0] ? a.rows->type.dim[0] : b.rows->type.dim[0];
    const bool is_masked = a.mask || b.mask;
    a = stretched(c, a, n, a.rows->type.dim[1], attention);
    b = stretched(c, b, n, b.rows->type.dim[1], attention);
    struct prefix all = {op_concat(g, 2, (struct cb_tensor *[]){a.rows, b.rows}, 1), NULL};
    if (is_masked) all.mask = op_concat(g, 2, (struct cb_tensor *[]){a.mask, b.mask}, 1);
    return all;
}

/* Prefixes of a block's children: each of its rows, or all of each row where rows choose at run time. *n: the longest; *differs: whether some are hidden
   in part. */
static bool children_of(struct compose *c, const struct expression *e, const int64_t *sizes, const struct nn_prefixed *attention,
                        struct prefix *child, int64_t *n, bool *differs) {
    struct cb_graph *g = c->nn->g;
    int64_t begin = 0;
    *n = 0;
    *differs = false;
    for (int i = 0; i < e->n; i++) {
        struct compose inner = *c;
        struct nn_prefixed part = *attention;
        if (sizes) {
            inner.first_row = c->first_row + begin;
            inner.n_rows = sizes[i];
            if (part.input && !graph_is_bad(g, part.input) && sizes[i]) part.input = op_slice(g, part.input, 0, begin, begin + sizes[i], 1);
            begin += sizes[i];
        }
        if (!sizes || sizes[i]) child[i] = prefix_of(&inner, e->child[i], &part);
        if (child[i].rows && graph_is_bad(g, child[i].rows)) return false;
        const int64_t have = child[i].rows ? child[i].rows->type.dim[1] : 0;
        if (have > *n) *n = have;
    }
    for (int i = 0; i < e->n; i++) *differs |= !child[i].rows || child[i].mask || child[i].rows->type.dim[1] != *n;
    return true;
}

static struct prefix rows_prefix(struct compose *c, const struct expression *e, const struct nn_prefixed *attention) {
    struct cb_graph *g = c->nn->g;
    struct prefix *child = arena_array(g->arena, (size_t)e->n, sizeof *child);
    struct cb_tensor **part = arena_array(g->arena, 2 * (size_t)e->n + 2, sizeof(struct cb_tensor *)), **mask = part + e->n + 1;
    const bool chooses = e->block->chooses;
    struct cb_tensor *ids = chooses ? compose_row_numbers(c, e) : NULL;
    const int64_t *sizes = chooses ? NULL : compose_row_sizes(c, e);
    int64_t n;
    bool differs;
    int parts = 0;
    if (!child || !part || (!ids && !sizes)) return failed(c, e, "its rows are not known");
    if (!children_of(c, e, sizes, attention, child, &n, &differs)) return (struct prefix){&g->bad_tensor, NULL};
    if (!n) return (struct prefix){NULL, NULL};
    // rows that choose at run time may choose none: a last entry, all hidden
    for (int i = 0; i < e->n + chooses; i++) {
        struct prefix p = i < e->n ? child[i] : (struct prefix){NULL, NULL};
        if (chooses && p.rows && p.rows->type.dim[0] != 1) return failed(c, e, "a prefix that differs from row to row");
        if (!chooses && !sizes[i]) continue;
        p = stretched(c, p, chooses ? 1 : sizes[i], n, attention);
        part[parts] = p.rows;
        mask[parts++] = p.mask;
    }
    struct prefix all = {op_concat(g, parts, part, 0), chooses || differs ? op_concat(g, parts, mask, 0) : NULL};
    if (!chooses || graph_is_bad(g, all.rows)) return all;
    const int64_t flat[2] = {e->n + 1, n * attention->heads * attention->head_dim},
                  shape[4] = {c->n_rows, n, attention->heads, attention->head_dim};
    ids = compose_slots(g, ids, e->n);
    all.rows = op_reshape(g, op_embedding(g, op_reshape(g, all.rows, 2, flat), ids), 4, shape);
    all.mask = op_embedding(g, all.mask, ids);
    return all;
}

static struct prefix prefix_of(struct compose *c, const struct expression *e, const struct nn_prefixed *attention) {
    struct prefix all = {NULL, NULL};
    if (!compose_touches(c, e)) return all;
    if (!e->block) {
        const struct module *m = c->list->modules[e->module];
        if (m->tuner->before) all.rows = m->tuner->before(m, module_site(m, c->name), c->nn, attention);
        return all;
    }
    if (e->block->by_rows) return rows_prefix(c, e, attention);
    if ((!e->block->adds && !e->block->is_lone) || e->weight != 1)
        return failed(c, e, "prefixes have no outputs that could be combined; stack, sum and parts of a batch can hold them");
    for (int i = 0; i < e->n; i++) all = joined(c, all, prefix_of(c, e->child[i], attention), attention);
    return all;
}

static struct prefix list_prefix(struct nn *nn, const struct module_list *list, const struct nn_site *place,
                                 const struct nn_prefixed *attention) {
    struct compose c = {.nn = nn, .list = list, .name = place->name, .site = place, .n_rows = -1};
    struct prefix all = list->expression ? prefix_of(&c, list->expression, attention) : (struct prefix){NULL, NULL};
    for (int i = list->n_composed; i < list->n; i++) {
        const struct module *m = list->modules[i];
        const struct tuner_site *site = m->tuner->before ? module_site(m, place->name) : NULL;
        if (site) all = joined(&c, all, (struct prefix){m->tuner->before(m, site, nn, attention), NULL}, attention);
    }
    return all;
}

struct cb_tensor *compose_before(struct nn *nn, const struct module_list *list, const struct nn_site *place,
                                 const struct nn_prefixed *attention) {
    return list_prefix(nn, list, place, attention).rows;
}

struct cb_tensor *compose_hidden(struct nn *nn, const struct module_list *list, const struct nn_site *place,
                                 const struct nn_prefixed *attention) {
    struct cb_tensor *mask = list_prefix(nn, list, place, attention).mask;
    if (!mask || graph_is_bad(nn->g, mask)) return mask;
    return op_reshape(nn->g, mask, 4, (const int64_t[]){mask->type.dim[0], 1, 1, mask->type.dim[1]});
}

/* ---- what all rows of a batch share */
static enum cb_status check(const struct module_list *list, const struct expression *e, bool is_whole, struct cb_err *err) {
    if (e->block) {
        const bool passes = is_whole && (e->block->adds || e->block->is_lone) && !e->block->drops && e->weight == 1;
        for (int i = 0; i < e->n; i++) TRY(check(list, e->child[i], passes, err));
        return CB_OK;
    }
    const struct module *m = e->module >= 0 ? list->modules[e->module] : NULL;
    if (!m || is_whole) return CB_OK;
    if (module_open_field(m))
        FAIL(err, CB_E_UNSUPPORTED, "%s: its weights are each row's own, by field %s; only sum and stack can hold it", e->name,
             module_open_field(m)->name);
    if (!m->n_rows && !m->n_past) return CB_OK;
    FAIL(err, CB_E_UNSUPPORTED, "%s: a module of kind %s takes positions, which all rows of a batch share; only sum and stack can hold it",
         e->name, m->tuner->name);
}

enum cb_status module_list_check(const struct module_list *list, struct cb_err *err) {
    return list->expression ? check(list, list->expression, true, err) : CB_OK;
}
