/* Blocks of module expressions at work: what becomes of a site's output where several modules have a say. */
#include "modules/compose.h"
#include "modules/fusion.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"

/* ---- who has a site */
/* The layer of a site by the modules that have it; -1: outside the layers, or of none. */
static int64_t layer_of(const struct compose *c, const struct expression *e) {
    const struct tuner_site *site = e->module >= 0 ? module_site(c->list->modules[e->module], c->name) : NULL;
    int64_t layer = site ? site->site.depth : -1;
    for (int i = 0; i < e->n && layer < 0; i++) layer = layer_of(c, e->child[i]);
    return layer;
}

bool compose_touches(const struct compose *c, const struct expression *e) {
    const int64_t layer = e->block && e->block->drops ? layer_of(c, e) : -1;
    if (layer >= 0 && layer < e->number[0]) return false;
    const int own = e->block ? e->own : e->module;
    if (own >= 0 && module_touches(c->list->modules[own], c->name)) return true;
    for (int i = 0; i < e->n; i++)
        if (compose_touches(c, e->child[i])) return true;
    return false;
}

/* How many children have the site; *which: the last of them. */
static int n_touching(const struct compose *c, const struct expression *e, int *which) {
    int n = 0;
    *which = 0;
    for (int i = 0; i < e->n; i++)
        if (compose_touches(c, e->child[i])) n++, *which = i;
    return n;
}

const struct expression *compose_lone(const struct compose *c, const struct expression *e) {
    int only;
    while (e->block && (e->block->adds || e->block->is_lone) && e->weight == 1 && n_touching(c, e, &only) == 1) e = e->child[only];
    return e;
}

void compose_in_place(const struct compose *c, const struct expression *e, compose_visit *visit, void *user) {
    int only;
    if (!compose_touches(c, e)) return;
    // the head that a block's own weights bring
    if (e->own >= 0 && module_touches(c->list->modules[e->own], c->name)) visit(user, c->list->modules[e->own]);
    if (!e->block)
        visit(user, c->list->modules[e->module]);
    else if (e->block->adds)
        for (int i = 0; i < e->n; i++) compose_in_place(c, e->child[i], visit, user);
    else if (e->block->is_lone && e->weight == 1 && n_touching(c, e, &only) == 1)
        compose_in_place(c, e->child[only], visit, user);
}

/* ---- parts */
/* y + weight (z - y) */
static struct cb_tensor *weighed(struct cb_graph *g, struct cb_tensor *y, struct cb_tensor *z, double weight) {
    return weight == 1 || z == y ? z : op_add(g, y, op_scale(g, op_sub(g, z, y), weight, 0));
}

struct cb_tensor *compose_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    if (graph_is_bad(g, y) || !compose_touches(c, e)) return y;
    if (!e->block) return compose_module(c, c->list->modules[e->module], x, y);
    if (c->nn->group_ends && !e->block->adds)
        return graph_fail(g, CB_E_UNSUPPORTED, "%s: %s: an expert has rows of its own; sum(...) alone can change it", c->name,
                          e->block->name);
    return weighed(g, y, e->block->apply(c, e, x, y), e->weight);
}

/* A block whose children do not act in place: they bring their own inputs and weights. While inputs are made it does nothing. */
struct cb_tensor *compose_alone(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct compose inner = *c;
    inner.own_input = inner.own_weights = true;
    return compose_apply(&inner, e, x, y);
}

static bool is_input(const struct compose *c) { return !c->site; }

/* Whether what a module changes at this site is added to y: then blocks work on what is added, and else on y. */
static bool is_added(const struct compose *c) {
    const enum nn_kind kind = c->site->kind;
    return kind == NN_LINEAR || kind == NN_HEAD || kind == NN_EMBEDDING;
}

/* ---- sum */
static struct cb_tensor *sum_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    for (int i = 0; i < e->n; i++) y = compose_apply(c, e->child[i], x, y);
    return y;
}

static enum cb_status drop_check(struct expression *e, const char *where, struct cb_err *err) {
    if (e->n_numbers != 1) FAIL(err, CB_E_USAGE, "%s: drop: found %d numbers; wanted how many layers, drop(a; 2)", where, e->n_numbers);
    return CB_OK;
}

/* ---- stack: what comes out of one goes into the next */
static bool adds_only(const struct compose *c, const struct expression *e) {
    if (!compose_touches(c, e)) return true;
    if (!e->block) return c->list->modules[e->module]->is_additive;
    for (int i = 0; i < e->n; i++)
        if (!adds_only(c, e->child[i])) return false;
    return true;
}

/* Modules that add something to a layer's output: each takes what the one before it would add, and the last one's is added (the adapters library's Stack
   of LoRA). */
static struct cb_tensor *stack_added(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    if (c->site->kind == NN_EMBEDDING || c->site->in != c->site->out)
        return graph_fail(
            g, CB_E_UNSUPPORTED,
            "%s: stack: it takes %lld features and gives %lld, so what one module adds cannot go into the next; sum(...) adds them",
            c->name, (long long)c->site->in, (long long)c->site->out);
    struct cb_tensor *zero = op_expand(g, graph_const_f32(g, 0), y->type.rank, y->type.dim), *state = x;
    for (int i = 0; i < e->n; i++)
        if (compose_touches(c, e->child[i])) state = compose_alone(c, e->child[i], state, zero);
    return op_add(g, y, state);
}

static struct cb_tensor *stack_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    int only;
    if (n_touching(c, e, &only) == 1 && e->weight == 1) return compose_apply(c, e->child[only], x, y);
    if (is_input(c)) return y;
    if (is_added(c) && adds_only(c, e)) return stack_added(c, e, x, y);
    for (int i = 0; i < e->n; i++) {
        struct cb_tensor *z = compose_alone(c, e->child[i], x, y);
        if (x == y) x = z;  // a state of its own
        y = z;
    }
    return y;
}

/* ---- average */
double compose_avg_weight(const struct expression *e, int i) {
    double sum = 0;
    for (int k = 0; k < e->n; k++) sum += e->child[k]->weight;
    return (e->keeps_weights ? e->child[i]->weight : e->child[i]->weight / sum) / (e->is_library ? e->n : 1);
}

static enum cb_status avg_check(struct expression *e, const char *where, struct cb_err *err) {
    double sum = 0;
    for (int k = 0; k < e->n; k++) sum += e->child[k]->weight;
    if (!e->keeps_weights && !(fabs(sum) > 1e-12))
        FAIL(err, CB_E_USAGE, "%s: avg: weights that sum to %g cannot be made to sum to 1; wanted others, or normalize=false", where, sum);
    return CB_OK;
}

/* The weighted mean of what the children add. The adapters library takes the mean of the weighted outputs: it divides by their number once more, and
   where the children's outputs hold the state that they change, that too. */
static struct cb_tensor *avg_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    struct cb_tensor *sum = NULL;
    double rest = 1;
    if (is_input(c)) return y;
    for (int i = 0; i < e->n; i++) {
        struct cb_tensor *z = compose_alone(c, e->child[i], x, y);
        const double weight = compose_avg_weight(e, i);
        rest -= weight;
        if (z == y) continue;
        z = op_scale(g, op_sub(g, z, y), weight, 0);
        sum = sum ? op_add(g, sum, z) : z;
    }
    if (!sum) return y;
    if (e->is_library && !is_added(c)) y = op_scale(g, y, 1 - rest, 0);
    return op_add(g, y, sum);
}

/* ---- rows: parts of the batch */
/* Steps of the first axis that one example has; 0 and a failure where its rows cannot be told. */
static int64_t steps_of(struct compose *c, const struct cb_tensor *t) {
    const int64_t rows = t->type.rank ? t->type.dim[0] : 1;
    if (c->n_rows > 0 && rows > 0 && rows % c->n_rows == 0) return rows / c->n_rows;
    graph_fail(c->nn->g, CB_E_UNSUPPORTED, "%s: it has %lld rows for %lld examples; what rows of the batch differ in cannot reach it",
               c->name, (long long)rows, (long long)c->n_rows);
    return 0;
}

/* Rows of the examples [begin, end). */
static struct cb_tensor *rows_of(struct compose *c, struct cb_tensor *t, int64_t begin, int64_t end) {
    const int64_t k = t ? steps_of(c, t) : 0;
    if (!t || !k) return t ? &c->nn->g->bad_tensor : NULL;
    return begin == 0 && end == c->n_rows ? t : op_slice(c->nn->g, t, 0, begin * k, end * k, 1);
}

/* The number of examples of the whole graph. */
static bool rows_known(struct compose *c, const struct expression *e) {
    if (c->n_rows >= 0) return true;
    const struct cb_tensor *ids = graph_find_leaf(c->nn->g, "input_ids");
    c->n_rows = ids && ids->type.rank ? ids->type.dim[0] : -1;
    if (c->n_rows < 0) graph_fail(c->nn->g, CB_E_UNSUPPORTED, "%s: the model has no rows of input_ids", e->block->name);
    return c->n_rows >= 0;
}

/* A child on the examples [begin, end), beside the others: its modules bring their own weights, inputs were made by rows already. */
static struct cb_tensor *child_rows(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y, int64_t begin,
                                    int64_t end) {
    struct compose inner = *c;
    struct cb_tensor *part = rows_of(c, y, begin, end);
    inner.own_weights = true;
    inner.plain = c->plain == y || !c->plain ? part : rows_of(c, c->plain, begin, end);
    x = x == y ? part : rows_of(c, x, begin, end);
    inner.first_row = c->first_row + begin;
    inner.n_rows = end - begin;
    return compose_apply(&inner, e, x, part);
}

/* ---- modules of one kind, each for rows of its own, in one product */
struct groups {
    const struct expression *e;
    struct cb_tensor *index, *slot;  // as in struct tuner_group
    const struct module **module;  // of each child; NULL: not in the group
    const struct tuner_site **site;
    bool *is_done;
};

/* All children of one kind. */
static struct cb_tensor *group_apply(struct compose *c, struct groups *s, const struct tuner *tuner, struct cb_tensor *x,
                                     struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    const int64_t k = steps_of(c, y), in = x->type.dim[x->type.rank - 1], out = y->type.dim[y->type.rank - 1];
    const int rank = y->type.rank;
    struct cb_tensor **scale = arena_array(g->arena, (size_t)s->e->n + 1, sizeof(struct cb_tensor *)), *zero = graph_const_f32(g, 0);
    int64_t plain[CB_MAX_RANK];
    if (!scale || !k) return scale ? y : graph_fail(g, CB_E_MEMORY, "%s: no memory", c->name);
    memcpy(plain, y->type.dim, sizeof plain);
    for (int i = 0; i <= s->e->n; i++) scale[i] = i < s->e->n && s->module[i] ? module_scale(s->module[i], s->site[i], c->nn) : zero;
    struct cb_tensor *scales = op_reshape(g, op_stack(g, s->e->n + 1, scale, 0), 2, (const int64_t[]){s->e->n + 1, 1});
    const struct tuner_group group = {s->e->n, s->module, s->site, s->index, s->slot, scales};
    const int64_t rows = type_elements(&y->type) / (c->n_rows * (out ? out : 1));
    struct cb_tensor *seen = op_reshape(g, y, 3, (const int64_t[]){c->n_rows, rows, out});
    x = x == y ? seen : op_reshape(g, x, 3, (const int64_t[]){c->n_rows, rows, in});
    seen = is_input(c) ? tuner->grouped_input(&group, c->nn, seen) : tuner->grouped(&group, c->nn, x, seen);
    return op_reshape(g, seen, rank, plain);
}

/* Children that are modules of a kind with at least one other; the others are left. */
static struct cb_tensor *groups_apply(struct compose *c, struct groups *s, struct cb_tensor *x, struct cb_tensor *y) {
    const struct expression *e = s->e;
    for (int i = 0; i < e->n; i++) {
        const struct module *m = e->child[i]->module >= 0 ? c->list->modules[e->child[i]->module] : NULL;
        int n = 0;
        if (s->is_done[i] || !m || !module_groups(c, m)) continue;
        for (int k = 0; k < e->n; k++) {
            const struct module *other = e->child[k]->module >= 0 ? c->list->modules[e->child[k]->module] : NULL;
            const bool is_in = other && other->tuner == m->tuner && module_groups(c, other);
            s->module[k] = is_in ? other : NULL;
            s->site[k] = is_in ? module_site(other, c->name) : NULL;
            n += is_in;
        }
        if (n < 2) continue;
        for (int k = 0; k < e->n; k++) s->is_done[k] |= s->module[k] != NULL;
        if (is_input(c) ? m->tuner->grouped_input != NULL : m->tuner->grouped != NULL) y = group_apply(c, s, m->tuner, x, y);
    }
    return y;
}

static bool groups_make(struct compose *c, struct groups *s, const struct expression *e) {
    struct arena *arena = c->nn->g->arena;
    *s = (struct groups){.e = e, .module = arena_array(arena, (size_t)e->n, sizeof(struct module *))};
    s->site = arena_array(arena, (size_t)e->n, sizeof(struct tuner_site *));
    s->is_done = arena_array(arena, (size_t)e->n, sizeof(bool));
    if (s->module && s->site && s->is_done) return true;
    graph_fail(c->nn->g, CB_E_MEMORY, "%s: no memory", e->block->name);
    return false;
}

/* Children one after the other, sizes[i] examples each. */
static struct cb_tensor *rows_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    const int64_t *sizes = compose_row_sizes(c, e);
    struct cb_tensor **part = arena_array(g->arena, (size_t)e->n, sizeof(struct cb_tensor *)), *whole = y;
    int32_t *number = arena_array(g->arena, (size_t)(c->n_rows > 0 ? c->n_rows : 0) + 1, sizeof *number);
    struct groups groups;
    int64_t begin = 0, at = 0;
    int n = 0;
    if (!sizes || !part || !number || !groups_make(c, &groups, e))
        return sizes ? graph_fail(g, CB_E_MEMORY, "%s: no memory", e->block->name) : y;
    for (int i = 0; i < e->n; i++)
        for (int64_t k = 0; k < sizes[i]; k++) number[at++] = (int32_t)i;
    groups.index = groups.slot = graph_const(g, type_make(CB_DTYPE_I32, 1, &c->n_rows), number);
    whole = groups_apply(c, &groups, x, y);
    // neighbours that are done, or have nothing here, stay together
    for (int i = 0; i < e->n;) {
        int64_t end = begin + sizes[i];
        const bool is_own = !groups.is_done[i] && compose_touches(c, e->child[i]);
        int next = i + 1;
        for (; !is_own && next < e->n && (groups.is_done[next] || !compose_touches(c, e->child[next])); next++) end += sizes[next];
        if (end > begin) part[n++] = is_own ? child_rows(c, e->child[i], x, y, begin, end) : rows_of(c, whole, begin, end);
        begin = end;
        i = next;
    }
    return n == 1 ? part[0] : op_concat(g, n, part, 0);
}

static enum cb_status batch_check(struct expression *e, const char *where, struct cb_err *err) {
    if (e->n_numbers != e->n)
        FAIL(err, CB_E_USAGE, "%s: batch: found %d numbers; wanted the rows of each of %d children, batch(a, b; 2, 3)", where, e->n_numbers,
             e->n);
    return CB_OK;
}

/* Of a block with numbers these; else the caller gives the batch once for each child. */
const int64_t *compose_row_sizes(struct compose *c, const struct expression *e) {
    struct cb_graph *g = c->nn->g;
    int64_t sum = 0, *sizes = arena_array(g->arena, (size_t)e->n, sizeof *sizes);
    if (!sizes) graph_fail(g, CB_E_MEMORY, "%s: no memory", e->block->name);
    if (!sizes || !rows_known(c, e)) return NULL;
    for (int i = 0; i < e->n; i++) {
        sizes[i] = e->block->takes_numbers ? e->number[i] : c->n_rows / e->n;
        sum += sizes[i];
    }
    if (sum == c->n_rows) return sizes;
    graph_fail(g, CB_E_SHAPE, "%s: its %d children take %lld rows; the input has %lld", e->block->name, e->n, (long long)sum,
               (long long)c->n_rows);
    return NULL;
}

/* ---- by a number that each row has at run time */
const char *expression_input(const struct expression *e, struct arena *arena) {
    if (!e->field) return "task_ids";
    const char *name = arena_printf(arena, "route.%s", e->field);
    for (int i = 0; i < e->n && name; i++) name = arena_printf(arena, "%s%c%s", name, i ? ',' : ':', e->value[i]);
    return name;
}

/* Both are seen as (rows, steps, ...), so that a condition (rows, 1, ...) fits them. */
struct cb_tensor *compose_select(struct compose *c, struct cb_tensor *ids, int number, struct cb_tensor *z, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    const int64_t k = graph_is_bad(g, y) || graph_is_bad(g, z) ? 0 : steps_of(c, y);
    int64_t seen[CB_MAX_RANK + 1], ones[CB_MAX_RANK + 1], plain[CB_MAX_RANK];
    const int rank = y->type.rank, extra = k > 1;
    const int32_t wanted = number;
    if (!k || rank + extra > CB_MAX_RANK) return &g->bad_tensor;
    memcpy(plain, y->type.dim, sizeof plain);
    seen[0] = c->n_rows;
    seen[1] = k;
    for (int i = 1; i < rank; i++) seen[i + extra] = plain[i];
    for (int i = 0; i < rank + extra; i++) ones[i] = i ? 1 : c->n_rows;
    struct cb_tensor *is = op_compare(g, "eq", ids, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &wanted));
    is = op_reshape(g, is, rank + extra, ones);
    if (!extra) return op_where(g, is, z, y);
    return op_reshape(g, op_where(g, is, op_reshape(g, z, rank + extra, seen), op_reshape(g, y, rank + extra, seen)), rank, plain);
}

struct cb_tensor *compose_row_numbers(struct compose *c, const struct expression *e) {
    struct cb_graph *g = c->nn->g;
    const char *name = expression_input(e, g->arena);
    if (!name) graph_fail(g, CB_E_MEMORY, "%s: no memory", e->block->name);
    if (!name || !rows_known(c, e)) return NULL;
    const int64_t all = graph_find_leaf(g, "input_ids")->type.dim[0];
    struct cb_tensor *ids = graph_input(g, name, type_make(CB_DTYPE_I32, 1, &all));
    return c->n_rows == all ? ids : op_slice(g, ids, 0, c->first_row, c->first_row + c->n_rows, 1);
}

struct cb_tensor *compose_slots(struct cb_graph *g, struct cb_tensor *ids, int n) {
    const int32_t zero = 0, end = n;
    struct cb_tensor *past = graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &end);
    struct cb_tensor *is_in = op_compare(g, "ge", ids, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &zero));
    return op_where(g, op_logical(g, "logical_and", is_in, op_compare(g, "lt", ids, past)), ids, past);
}

static struct cb_tensor *route_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    struct cb_tensor *ids = compose_row_numbers(c, e);
    struct groups groups;
    if (!ids || !groups_make(c, &groups, e)) return &g->bad_tensor;
    groups.index = ids;
    groups.slot = compose_slots(g, ids, e->n);
    struct cb_tensor *out = groups_apply(c, &groups, x, y);
    for (int i = 0; i < e->n; i++) {
        struct cb_tensor *z = groups.is_done[i] ? y : child_rows(c, e->child[i], x, y, 0, c->n_rows);
        if (z != y) out = compose_select(c, ids, i, z, out);
    }
    return out;
}

static enum cb_status route_check(struct expression *e, const char *where, struct cb_err *err) {
    if (!e->field) FAIL(err, CB_E_UNSUPPORTED, "%s: route: a learned router; wanted route(by=FIELD; VALUE=MODULE, ...)", where);
    return CB_OK;
}

/* ---- split: parts of the sequence */
static enum cb_status split_check(struct expression *e, const char *where, struct cb_err *err) {
    if (e->n_numbers != e->n && e->n_numbers != e->n - 1)
        FAIL(err, CB_E_USAGE, "%s: split: found %d numbers; wanted how many positions each of %d children takes (the last may be left out)",
             where, e->n_numbers, e->n);
    return CB_OK;
}

const int64_t *compose_split_sizes(struct compose *c, const struct expression *e, int64_t length) {
    struct cb_graph *g = c->nn->g;
    int64_t sum = 0, *sizes = arena_array(g->arena, (size_t)e->n, sizeof *sizes);
    if (!sizes) graph_fail(g, CB_E_MEMORY, "split: no memory");
    if (!sizes) return NULL;
    for (int i = 0; i < e->n_numbers; i++) sum += sizes[i] = e->number[i];
    if (e->n_numbers == e->n ? sum != length : sum > length) {
        graph_fail(g, CB_E_SHAPE, "split: its children take %lld positions; the input has %lld", (long long)sum, (long long)length);
        return NULL;
    }
    if (e->n_numbers < e->n) sizes[e->n - 1] = length - sum;
    return sizes;
}

/* Where a cache is read the step of a row is known at run time only: every child sees all, and the position chooses. */
static struct cb_tensor *split_cached(struct compose *c, const struct expression *e, struct cb_tensor *start, struct cb_tensor *x,
                                      struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    const int64_t rows[3] = {y->type.dim[0], 1, 1}, steps[3] = {1, y->type.dim[1], 1};
    int32_t *count = arena_array(g->arena, (size_t)steps[1], sizeof *count), end = 0;
    if (!count) return graph_fail(g, CB_E_MEMORY, "split: no memory");
    for (int64_t t = 0; t < steps[1]; t++) count[t] = (int32_t)t;
    struct cb_tensor *at = graph_const(g, type_make(CB_DTYPE_I32, 3, steps), count);
    at = op_add(g, op_reshape(g, start, 3, rows), at);
    struct cb_tensor *out = y;
    for (int i = e->n - 1; i >= 0; i--) {
        end = 0;
        for (int k = 0; k <= i && k < e->n_numbers; k++) end += (int32_t)e->number[k];
        struct cb_tensor *z = compose_apply(c, e->child[i], x, y);
        const bool is_last = i == e->n - 1 && e->n_numbers < e->n;
        out = is_last ? z : op_where(g, op_compare(g, "lt", at, graph_const(g, type_make(CB_DTYPE_I32, 0, NULL), &end)), z, out);
    }
    return out;
}

static struct cb_tensor *split_apply(struct compose *outer, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y) {
    struct compose inner = *outer, *c = &inner;
    struct cb_graph *g = c->nn->g;
    const bool is_state = x == y;
    inner.own_weights = true;
    if (y->type.rank != 3 || x->type.rank < 2) return graph_fail(g, CB_E_UNSUPPORTED, "%s: split: its output has no positions", c->name);
    struct cb_tensor *start = graph_find_leaf(g, "start");
    if (start && start->type.rank == 1 && start->type.dim[0] == y->type.dim[0]) return split_cached(c, e, start, x, y);
    struct cb_tensor **part = arena_array(g->arena, (size_t)e->n, sizeof(struct cb_tensor *));
    const int64_t *sizes = compose_split_sizes(c, e, y->type.dim[1]);
    int64_t begin = 0;
    int n = 0;
    if (!part || !sizes) return graph_fail(g, CB_E_MEMORY, "split: no memory");
    for (int i = 0; i < e->n; i++) {
        const int64_t end = begin + sizes[i];
        if (end == begin) continue;
        struct cb_tensor *piece = op_slice(g, y, 1, begin, end, 1);
        inner.plain = outer->plain == y || !outer->plain ? piece : op_slice(g, outer->plain, 1, begin, end, 1);
        part[n++] = compose_apply(c, e->child[i], is_state ? piece : op_slice(g, x, 1, begin, end, 1), piece);
        begin = end;
    }
    return n == 1 ? part[0] : op_concat(g, n, part, 1);
}

/* ---- the table */
static const struct block table[] = {
    {.name = "sum",
     .syntax = "sum(a, -1*b)",
     .doc = "what each adds is added; others change what those before them left",
     .adds = true,
     .apply = sum_apply,
     .flow = compose_flow_chain},
    {.name = "stack",
     .type = "Stack",
     .syntax = "stack(a, b)",
     .doc = "what comes out of a goes into b",
     .is_lone = true,
     .apply = stack_apply,
     .flow = compose_flow_chain},
    {.name = "avg",
     .type = "Average",
     .syntax = "avg(0.3*a, 0.7*b)",
     .doc = "the weighted mean of what each makes of it; ; reading=adapters divides by their number once more, ; normalize=false keeps the "
            "weights",
     .takes_options = true,
     .weighs = true,
     .check = avg_check,
     .apply = avg_apply,
     .flow = compose_flow_avg},
    {.name = "fuse",
     .type = "Fuse",
     .syntax = "fuse(weights_dir; a, b)",
     .doc = "attention over what each adds (AdapterFusion), with the weights and the head of a folder; fuse(a, b): weights that are to be "
            "trained "
            "(finetune --tuner fusion)",
     .takes_folder = true,
     .brings_head = true,
     .apply = fusion_apply,
     .flow = fusion_flow},
    {.name = "batch",
     .type = "BatchSplit",
     .syntax = "batch(a, b; 2, 3)",
     .doc = "the first 2 rows of the batch go through a, the next 3 through b",
     .takes_numbers = true,
     .by_rows = true,
     .check = batch_check,
     .apply = rows_apply,
     .flow = compose_flow_rows},
    {.name = "split",
     .type = "Split",
     .syntax = "split(a, b; 64)",
     .doc = "the first 64 positions go through a, the others through b",
     .takes_numbers = true,
     .check = split_check,
     .apply = split_apply,
     .flow = compose_flow_split},
    {.name = "parallel",
     .type = "Parallel",
     .syntax = "parallel(a, b)",
     .doc = "the whole batch goes through each, outputs for each",
     .by_rows = true,
     .replicates = true,
     .apply = rows_apply,
     .flow = compose_flow_rows},
    {.name = "multitask",
     .type = "MultiTask",
     .syntax = "multitask(a, b)",
     .doc = "each row goes through the one of its number in task_ids",
     .by_rows = true,
     .chooses = true,
     .apply = route_apply,
     .flow = compose_flow_route},
    {.name = "route",
     .syntax = "route(by=language; en=a, ru=b)",
     .doc = "each row goes through the one of its field; rows with other values through none",
     .takes_field = true,
     .by_rows = true,
     .chooses = true,
     .check = route_check,
     .apply = route_apply,
     .flow = compose_flow_route},
    {.name = "arrow",
     .syntax = "arrow(a, b, c; top_k=2)",
     .doc = "each token goes through the top_k LoRA modules along whose directions it lies most (Arrow), their shares a softmax at "
            "; temperature=1; ; general=N takes the mean of the last N off the others first; ; seed=0 starts the search for directions",
     .takes_options = true,
     .options = compose_arrow_options,
     .check = compose_arrow_check,
     .apply = compose_arrow},
    {.name = "drop",
     .syntax = "drop(a; 2)",
     .doc = "a without the first 2 layers (AdapterDrop)",
     .takes_numbers = true,
     .adds = true,
     .drops = true,
     .check = drop_check,
     .apply = sum_apply,
     .flow = compose_flow_chain},
};

const struct block *blocks(int *n) {
    *n = (int)(sizeof table / sizeof *table);
    return table;
}

const struct block *block_find(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0) return &table[i];
    return NULL;
}

const struct block *block_of_type(const char *type) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].type && strcmp(table[i].type, type) == 0) return &table[i];
    return NULL;
}

enum cb_status block_check(struct expression *e, const char *where, struct cb_err *err) {
    return e->block->check ? e->block->check(e, where, err) : CB_OK;
}
