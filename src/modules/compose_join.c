/* Blocks of expressions where an output joins the residual stream: there modules hand on a state of several tensors (struct tuner_flow).
   Where a block was read from adapter_setup.json the first of its modules enters for all, as in the adapters library; else each enters itself. */
#include "modules/compose.h"
#include "ops/ops.h"

static struct cb_tensor *fail(struct compose_join *j, const struct expression *e, const char *reason) {
    return graph_fail(j->c.nn->g, CB_E_UNSUPPORTED, "%s: %s: %s", j->c.name, e->block->name, reason);
}

static void enter(struct compose_join *j, const struct module *m) {
    const struct tuner_site *site = module_site(m, j->c.name);
    if (!site || !m->tuner->join || graph_is_bad(j->c.nn->g, j->flow.hidden)) return;
    m->tuner->join->enter(m, site, j->c.nn, &j->flow);
}

static void change(struct compose_join *j, const struct module *m) {
    const struct tuner_site *site = module_site(m, j->c.name);
    if (!site || !m->tuner->join || graph_is_bad(j->c.nn->g, j->flow.hidden)) return;
    m->tuner->join->change(m, site, j->c.nn, &j->flow, module_scale(m, site, j->c.nn));
    j->last = m;
}

void compose_join_module(struct compose_join *j, const struct module *m) {
    enter(j, m);
    change(j, m);
}

static void join_apply(struct compose_join *j, const struct expression *e) {
    if (!compose_touches(&j->c, e)) return;
    if (!e->block)
        compose_join_module(j, j->c.list->modules[e->module]);
    else if (!e->block->flow)
        fail(j, e, "it has no meaning where outputs join the residual stream");
    else if (e->weight != 1)
        fail(j, e, "a weight before it; there outputs hold the stream itself");
    else
        e->block->flow(j, e);
}

/* The first module of a block, in the order in which they are written. */
static const struct expression *first_leaf(const struct expression *e) {
    while (e->block) e = e->child[0];
    return e;
}

static void block_enter(struct compose_join *j, const struct expression *e) {
    const struct expression *first = first_leaf(e);
    if (e->is_library && first->module >= 0) enter(j, j->c.list->modules[first->module]);
}

/* A child of a block that has entered, or that leaves it to its children. */
static void child_apply(struct compose_join *j, const struct expression *parent, const struct expression *e) {
    if (!e->block && parent->is_library && e->module >= 0)
        change(j, j->c.list->modules[e->module]);
    else
        join_apply(j, e);
}

void compose_join_enter(struct compose_join *j, const struct expression *e) {
    while (e->block) e = e->child[e->n - 1];
    if (e->module >= 0) enter(j, j->c.list->modules[e->module]);
}

void compose_join_child(struct compose_join *j, const struct expression *e) {
    if (!e->block && e->module >= 0)
        change(j, j->c.list->modules[e->module]);
    else
        join_apply(j, e);
}

void compose_flow_chain(struct compose_join *j, const struct expression *e) {
    for (int i = 0; i < e->n; i++) join_apply(j, e->child[i]);
}

/* ---- parts of a state */
static struct cb_tensor *part_of(struct compose_join *j, struct cb_tensor *t, int axis, int64_t begin, int64_t end) {
    if (!t || (begin == 0 && end == t->type.dim[axis])) return t;
    return op_slice(j->c.nn->g, t, axis, begin, end, 1);
}

/* The state of examples or positions [begin, end); join: room for what it joins. */
static struct compose_join state_part(struct compose_join *j, struct nn_join *join, int axis, int64_t begin, int64_t end) {
    struct compose_join part = *j;
    *join = *j->flow.join;
    join->residual = part_of(j, join->residual, axis, begin, end);
    part.flow.join = join;
    part.flow.output = part_of(j, j->flow.output, axis, begin, end);
    part.flow.hidden = part_of(j, j->flow.hidden, axis, begin, end);
    part.flow.residual = part_of(j, j->flow.residual, axis, begin, end);
    part.flow.up = part_of(j, j->flow.up, axis, begin, end);
    if (axis == 0) part.c.first_row += begin, part.c.n_rows = end - begin;
    return part;
}

/* Children one after the other along an axis, sizes[i] each. */
static void parts_apply(struct compose_join *j, const struct expression *e, int axis, const int64_t *sizes) {
    struct cb_graph *g = j->c.nn->g;
    struct cb_tensor **hidden = arena_array(g->arena, 2 * (size_t)e->n, sizeof(struct cb_tensor *)), **residual = hidden + e->n;
    int64_t begin = 0;
    int n = 0;
    if (!hidden) {
        graph_fail(g, CB_E_MEMORY, "%s: no memory", e->block->name);
        return;
    }
    block_enter(j, e);
    for (int i = 0; i < e->n && !graph_is_bad(g, j->flow.hidden); i++) {
        struct nn_join join;
        struct compose_join part = state_part(j, &join, axis, begin, begin + sizes[i]);
        begin += sizes[i];
        if (!sizes[i]) continue;
        child_apply(&part, e, e->child[i]);
        if (part.last) j->last = part.last;
        hidden[n] = part.flow.hidden;
        residual[n++] = part.flow.residual;
    }
    if (!n) return;
    j->flow.hidden = n == 1 ? hidden[0] : op_concat(g, n, hidden, axis);
    j->flow.residual = n == 1 ? residual[0] : op_concat(g, n, residual, axis);
    j->flow.up = NULL;
}

void compose_flow_rows(struct compose_join *j, const struct expression *e) {
    const int64_t *sizes = compose_row_sizes(&j->c, e);
    if (sizes) parts_apply(j, e, 0, sizes);
}

void compose_flow_split(struct compose_join *j, const struct expression *e) {
    const int64_t *sizes = compose_split_sizes(&j->c, e, j->flow.hidden->type.dim[1]);
    if (graph_find_leaf(j->c.nn->g, "start"))
        fail(j, e, "positions of a cached sequence are known at run time only");
    else if (sizes)
        parts_apply(j, e, 1, sizes);
}

/* Each row takes what its child makes of it. */
void compose_flow_route(struct compose_join *j, const struct expression *e) {
    struct cb_tensor *ids = compose_row_numbers(&j->c, e);
    block_enter(j, e);
    const struct compose_join start = *j;
    for (int i = 0; i < e->n && ids; i++) {
        struct compose_join child = start;
        child_apply(&child, e, e->child[i]);
        if (!child.last) continue;
        j->last = child.last;
        j->flow.hidden = compose_select(&j->c, ids, i, child.flow.hidden, j->flow.hidden);
        j->flow.residual = compose_select(&j->c, ids, i, child.flow.residual, j->flow.residual);
        j->flow.up = NULL;
    }
}

/* The weighted mean of their states. */
void compose_flow_avg(struct compose_join *j, const struct expression *e) {
    struct cb_graph *g = j->c.nn->g;
    struct cb_tensor *sum = NULL;
    const struct module *last = j->last;
    block_enter(j, e);
    for (int i = 0; i < e->n; i++) {
        struct compose_join child = *j;
        child_apply(&child, e, e->child[i]);
        if (child.last) last = child.last;
        struct cb_tensor *z = op_scale(g, child.flow.hidden, compose_avg_weight(e, i), 0);
        sum = sum ? op_add(g, sum, z) : z;
        if (i + 1 == e->n) j->flow.residual = child.flow.residual;
    }
    j->flow.hidden = sum;
    j->flow.up = NULL;
    j->last = last;
}

/* ---- the hook */
static struct cb_tensor *leave(struct compose_join *j) {
    const struct module *m = j->last;
    if (!m) return nn_join_plain(j->c.nn, j->flow.output, j->flow.join);
    return m->tuner->join->leave(m, module_site(m, j->c.name), j->c.nn, &j->flow);
}

/* Rows that go through modules of their own leave by themselves: what joins the stream, and how, may differ between them. */
static struct cb_tensor *stream(struct compose_join *j, const struct expression *e) {
    struct cb_graph *g = j->c.nn->g;
    const struct expression *lone = compose_lone(&j->c, e);
    struct nn_join join;
    if (!lone->block || !lone->block->by_rows || lone->is_library || lone->weight != 1) {
        join_apply(j, e);
        return leave(j);
    }
    struct cb_tensor *ids = lone->block->chooses ? compose_row_numbers(&j->c, lone) : NULL;
    const int64_t *sizes = lone->block->chooses ? NULL : compose_row_sizes(&j->c, lone);
    struct cb_tensor **part = arena_array(g->arena, (size_t)lone->n, sizeof(struct cb_tensor *));
    if ((!ids && !sizes) || !part) return &g->bad_tensor;
    struct cb_tensor *out = ids ? nn_join_plain(j->c.nn, j->flow.output, j->flow.join) : NULL;
    int64_t begin = 0;
    int n = 0;
    for (int i = 0; i < lone->n; i++) {
        if (ids ? !compose_touches(&j->c, lone->child[i]) : !sizes[i]) continue;
        struct compose_join child = ids ? *j : state_part(j, &join, 0, begin, begin + sizes[i]);
        struct cb_tensor *z = stream(&child, lone->child[i]);
        if (ids)
            out = compose_select(&j->c, ids, i, z, out);
        else
            part[n++] = z, begin += sizes[i];
    }
    return ids ? out : n == 1 ? part[0] : op_concat(g, n, part, 0);
}

struct cb_tensor *compose_join(struct nn *nn, const struct module_list *list, const struct nn_site *place, const struct nn_join *join,
                               struct cb_tensor *y) {
    struct compose_join j = {.c = {.nn = nn, .list = list, .name = place->name, .site = place, .plain = y, .n_rows = -1}};
    j.flow = (struct tuner_flow){.join = join, .output = y, .hidden = y, .residual = y};
    const struct expression *e = list->expression && compose_touches(&j.c, list->expression) ? list->expression : NULL;
    int n_others = 0;
    for (int i = list->n_composed; i < list->n; i++)
        n_others += list->modules[i]->tuner->join && module_site(list->modules[i], place->name);
    if (!e && !n_others) return NULL;
    if (e && !n_others) return stream(&j, e);
    if (e) join_apply(&j, e);
    for (int i = list->n_composed; i < list->n; i++) compose_join_module(&j, list->modules[i]);
    return leave(&j);
}
