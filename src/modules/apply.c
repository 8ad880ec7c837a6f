/* Modules at work: the hook that changes a graph. */
#include <stdlib.h>
#include <string.h>

#include "modules/compose.h"
#include "ops/ops.h"

const struct tuner_site *module_site(const struct module *m, const char *name) {
    int64_t k = table_get(&m->by_site, name, strlen(name));
    return k < 0 ? NULL : &m->sites[k];
}

/* With AdapterDrop in training 0 in the first layers, as many as the input says. */
struct cb_tensor *module_scale(const struct module *m, const struct tuner_site *site, struct nn *nn) {
    struct cb_graph *g = nn->g;
    struct cb_tensor *scale = graph_param(g, m->scale_name, type_make(CB_DTYPE_F32, 0, NULL));
    if (!nn->train || !m->drops || site->site.depth < 0) return scale;
    const int32_t layer = site->site.depth;
    const struct cb_type one = type_make(CB_DTYPE_I32, 0, NULL);
    struct cb_tensor *is_in = op_compare(g, "ge", graph_const(g, one, &layer), graph_input(g, MODULE_DROP_INPUT, one));
    return op_where(g, is_in, scale, graph_const_f32(g, 0));
}

/* The copy that stands for the model's own weight or bias at a site; NULL: none. */
static const struct module_param *swap_of(const struct module *m, const char *name, const char *field) {
    for (int k = 0; k < m->n_swaps; k++)
        if (strcmp(m->swaps[k].site, name) == 0 && strcmp(m->swaps[k].field, field) == 0) return &m->params[m->swaps[k].param].public;
    return NULL;
}

bool module_touches(const struct module *m, const char *name) {
    return module_site(m, name) || swap_of(m, name, "weight") || swap_of(m, name, "bias") || tuner_has_rows(m, name);
}

/* Whether a linear layer's weight is (in,out) in this graph. */
static bool is_turned(const struct tuner_site *site, const struct nn *nn) {
    bool is_linear = site->site.kind == NN_LINEAR || site->site.kind == NN_HEAD;
    bool is_held_turned = site->site.weight && nn->param_turned && nn->param_turned(nn->dtype_user, site->site.weight);
    return is_linear && site->site.weight_is_in_out != is_held_turned;
}

struct cb_tensor *module_defined(const struct module *m, const struct tuner_site *site, struct nn *nn, bool is_bias, struct cb_tensor *p) {
    const bool turned = is_turned(site, nn);
    if (graph_is_bad(nn->g, p)) return p;
    if (p->type.dtype != CB_DTYPE_F32) p = op_cast(nn->g, p, CB_DTYPE_F32);
    if (is_bias) return m->tuner->bias(m, site, nn, p, module_scale(m, site, nn));
    if (turned) p = op_transpose(nn->g, p, 0, 1);
    p = m->tuner->weight(m, site, nn, p, module_scale(m, site, nn));
    return turned ? op_transpose(nn->g, p, 0, 1) : p;
}

struct cb_tensor *tuner_base(const struct tuner_site *site, struct nn *nn) {
    const bool turned = is_turned(site, nn);
    const int64_t in = site->site.in, out = site->site.out, linear[2] = {turned ? in : out, turned ? out : in}, table[2] = {in, out};
    struct cb_tensor *p = graph_find_leaf(nn->g, site->site.weight);
    // a graph of the bias alone
    if (!p) p = nn_param(nn, site->site.weight, site->site.kind == NN_NORM ? 1 : 2, site->site.kind == NN_EMBEDDING ? table : linear);
    if (graph_is_bad(nn->g, p)) return p;
    if (p->type.dtype != CB_DTYPE_F32) p = op_cast(nn->g, p, CB_DTYPE_F32);
    return turned ? op_transpose(nn->g, p, 0, 1) : p;
}

struct cb_tensor *tuner_bias(const struct tuner_site *site, struct nn *nn) {
    return site->site.bias ? nn_site_param(nn, site->site.name, "bias", site->site.bias, 1, &site->site.out, true) : NULL;
}

bool tuner_is_by_weight(const struct module *m, const struct tuner_site *site) {
    const struct tuner *t = m->tuner;
    if (!t->weight && !t->bias) return false;
    if (!t->input && !t->delta) return true;
    if (site->site.some_rows && !t->takes_experts) return true;
    return t->by_weight && t->by_weight(m, site);
}

/* ---- one module */
/* Modules that change weights alone, and not by adding to them, want those before them at the site to do so too: these leave the outputs alone. */
static bool changes_weight(const struct module *m, const char *name) {
    const struct tuner_site *site = module_site(m, name);
    return site && m->tuner->weight && tuner_is_by_weight(m, site) && !m->is_additive;
}

/* A walk over the modules that act in place at a site. */
struct chain {
    const char *name;
    const struct module *of;  // the one that is asked for
    int n, last;  // modules so far; the last one whose kind changes weights
    int at;  // the number of `of`
};

static void chain_count(void *user, const struct module *m) {
    struct chain *chain = user;
    if (m == chain->of) chain->at = chain->n;
    if (changes_weight(m, chain->name)) chain->last = chain->n;
    chain->n++;
}

/* All modules of a list that act in place: the expression's, then the others. */
static void list_visit(const struct compose *c, compose_visit *visit, void *user) {
    if (c->list->expression) compose_in_place(c, c->list->expression, visit, user);
    for (int i = c->list->n_composed; i < c->list->n; i++)
        if (module_touches(c->list->modules[i], c->name)) visit(user, c->list->modules[i]);
}

/* Whether a module that acts in place does so through the weight. What folding would lose is refused: a shift where the layer has no bias. */
static bool goes_by_weight(const struct compose *c, const struct module *m, const struct tuner_site *site) {
    if (tuner_is_by_weight(m, site)) return true;
    if (!m->tuner->weight) return false;
    struct chain chain = {.name = c->name, .of = m, .last = -1};
    list_visit(c, chain_count, &chain);
    if (chain.at >= chain.last) return false;
    const char *reason = m->tuner->refuses_fold ? m->tuner->refuses_fold(m) : NULL;
    if (reason)
        graph_fail(c->nn->g, CB_E_UNSUPPORTED, "%s: %s: before a module that changes the weight it would have to act on that too: %s",
                   m->name, c->name, reason);
    return true;
}

/* The weight or bias of a module alone: its copy or the model's own, then its definition. */
static struct cb_tensor *param_alone(struct compose *c, const struct module *m, const char *field, int rank, const int64_t *dim) {
    struct nn *nn = c->nn;
    const bool is_bias = rank == 1;
    const struct module_param *own = swap_of(m, c->name, field);
    const struct tuner_site *site = module_site(m, c->name);
    struct cb_tensor *p =
        own ? graph_param(nn->g, own->name, own->type) : nn_param(nn, is_bias ? c->site->bias : c->site->weight, rank, dim);
    if (site && tuner_is_by_weight(m, site) && (is_bias ? m->tuner->bias != NULL : m->tuner->weight != NULL))
        p = module_defined(m, site, nn, is_bias, p);
    return is_bias && p->type.dtype != CB_DTYPE_F32 ? op_cast(nn->g, p, CB_DTYPE_F32) : p;
}

/* The site's layer with the module's weight and bias in place of the model's. */
static struct cb_tensor *layer_alone(struct compose *c, const struct module *m, struct cb_tensor *x) {
    const struct nn_site *s = c->site;
    struct cb_graph *g = c->nn->g;
    const bool is_table = s->kind == NN_EMBEDDING;
    if (!is_table && s->kind != NN_LINEAR && s->kind != NN_HEAD)
        return graph_fail(
            g, CB_E_UNSUPPORTED,
            "%s: %s: a module of kind %s changes its weights, and they cannot differ between parts of a batch or be averaged; "
            "sum(...) can hold it",
            m->name, c->name, m->tuner->name);
    const int64_t shape[2] = {s->weight_is_in_out || is_table ? s->in : s->out, s->weight_is_in_out || is_table ? s->out : s->in};
    struct cb_tensor *w = param_alone(c, m, "weight", 2, shape), *b = s->bias ? param_alone(c, m, "bias", 1, &s->out) : NULL;
    if (graph_is_bad(g, w) || graph_is_bad(g, x)) return &g->bad_tensor;
    if (!is_table) return op_linear(g, x, w, b, s->weight_is_in_out);
    struct cb_tensor *y = op_embedding(g, w, x);
    return y->type.dtype != CB_DTYPE_F32 && !graph_is_bad(g, y) ? op_cast(g, y, CB_DTYPE_F32) : y;
}

/* What a kind that adds to weights alone adds to y. */
static struct cb_tensor *added_alone(struct compose *c, const struct module *m, const struct tuner_site *site, struct cb_tensor *x,
                                     struct cb_tensor *y) {
    const struct nn_site *s = c->site;
    struct cb_graph *g = c->nn->g;
    const bool is_table = s->kind == NN_EMBEDDING;
    const int64_t shape[2] = {is_table ? s->in : s->out, is_table ? s->out : s->in};
    struct cb_tensor *zero = graph_const_f32(g, 0), *w = NULL, *b = NULL;
    if (m->tuner->weight) w = m->tuner->weight(m, site, c->nn, op_expand(g, zero, 2, shape), module_scale(m, site, c->nn));
    if (m->tuner->bias && s->bias) b = m->tuner->bias(m, site, c->nn, op_expand(g, zero, 1, &s->out), module_scale(m, site, c->nn));
    if (w) return op_add(g, y, is_table ? op_embedding(g, w, x) : op_linear(g, x, w, b, false));
    return b ? op_add(g, y, b) : y;
}

/* A module that does not act in place, as a function of the site's input and output. */
static struct cb_tensor *module_alone(struct compose *c, const struct module *m, const struct tuner_site *site, struct cb_tensor *x,
                                      struct cb_tensor *y) {
    struct cb_graph *g = c->nn->g;
    const struct tuner *t = m->tuner;
    const bool has_copies = swap_of(m, c->name, "weight") || swap_of(m, c->name, "bias");
    const bool defines = site && tuner_is_by_weight(m, site), has_input = site && t->input && !defines && c->own_input;
    if (has_input) x = t->input(m, site, c->nn, x, module_scale(m, site, c->nn));
    const bool is_matrix = c->site->kind == NN_LINEAR || c->site->kind == NN_HEAD || c->site->kind == NN_EMBEDDING;
    if (defines && m->is_additive && !has_copies && !has_input && is_matrix) return added_alone(c, m, site, x, y);
    if (has_copies || has_input || defines) {
        struct cb_tensor *z = layer_alone(c, m, x);
        y = y == c->plain ? z : op_add(g, y, op_sub(g, z, c->plain));
    }
    y = tuner_rows_apply(m, c->nn, c->site, x, y);
    return site && t->delta && !defines && !graph_is_bad(g, y) ? t->delta(m, site, c->nn, x, y, module_scale(m, site, c->nn)) : y;
}

bool module_groups(const struct compose *c, const struct module *m) {
    const struct tuner_site *site = module_site(m, c->name);
    const bool is_linear = site && (site->site.kind == NN_LINEAR || site->site.kind == NN_HEAD);
    if (!is_linear || !m->tuner->groups || (c->own_input && m->tuner->input) || tuner_is_by_weight(m, site)) return false;
    return !swap_of(m, c->name, "weight") && !swap_of(m, c->name, "bias") && !tuner_has_rows(m, c->name) && m->tuner->groups(m, site);
}

struct cb_tensor *compose_module(struct compose *c, const struct module *m, struct cb_tensor *x, struct cb_tensor *y) {
    const struct tuner_site *site = module_site(m, c->name);
    const bool by_weight = site && !c->own_weights ? goes_by_weight(c, m, site) : site && tuner_is_by_weight(m, site);
    if (!c->site) return site && m->tuner->input && !by_weight ? m->tuner->input(m, site, c->nn, y, module_scale(m, site, c->nn)) : y;
    if (c->own_weights) return module_alone(c, m, site, x, y);
    y = tuner_rows_apply(m, c->nn, c->site, x, y);
    return site && m->tuner->delta && !by_weight ? m->tuner->delta(m, site, c->nn, x, y, module_scale(m, site, c->nn)) : y;
}

/* ---- the hook */
static struct cb_tensor *list_apply(struct compose *c, struct cb_tensor *x, struct cb_tensor *y) {
    const struct module_list *list = c->list;
    const bool is_state = x == y;
    if (list->expression) y = compose_apply(c, list->expression, x, y);
    for (int i = list->n_composed; i < list->n && !graph_is_bad(c->nn->g, y); i++)
        if (module_touches(list->modules[i], c->name)) y = compose_module(c, list->modules[i], is_state ? y : x, y);
    return y;
}

static struct cb_tensor *hook_input(void *user, struct nn *nn, const char *name, struct cb_tensor *x) {
    struct compose c = {.nn = nn, .list = user, .name = name, .n_rows = -1};
    return list_apply(&c, x, x);
}

static struct cb_tensor *hook_site(void *user, struct nn *nn, const struct nn_site *place, struct cb_tensor *x, struct cb_tensor *y) {
    struct compose c = {.nn = nn, .list = user, .name = place->name, .site = place, .plain = y, .n_rows = -1};
    return list_apply(&c, x, y);
}

/* A parameter on its way through the modules that act in place. */
struct param_walk {
    struct compose c;
    const char *field;
    struct cb_tensor *p;
};

static void copy_visit(void *user, const struct module *m) {
    struct param_walk *walk = user;
    const struct module_param *own = swap_of(m, walk->c.name, walk->field);
    if (own) walk->p = graph_param(walk->c.nn->g, own->name, own->type);
}

static void definition_visit(void *user, const struct module *m) {
    struct param_walk *walk = user;
    const bool is_bias = strcmp(walk->field, "bias") == 0;
    const struct tuner_site *site = module_site(m, walk->c.name);
    if (!site || !(is_bias ? m->tuner->bias != NULL : m->tuner->weight != NULL) || !goes_by_weight(&walk->c, m, site)) return;
    walk->p = module_defined(m, site, walk->c.nn, is_bias, walk->p);
}

/* Copies stand for the model's own, the last module's that has one; then definitions change what they meet. */
static struct cb_tensor *hook_param(void *user, struct nn *nn, const char *name, const char *field, struct cb_tensor *p) {
    struct param_walk walk = {.c = {.nn = nn, .list = user, .name = name, .n_rows = -1}, .field = field, .p = p};
    list_visit(&walk.c, copy_visit, &walk);
    list_visit(&walk.c, definition_visit, &walk);
    return walk.p;
}

static struct cb_tensor *hook_join(void *user, struct nn *nn, const struct nn_site *place, const struct nn_join *join,
                                   struct cb_tensor *y) {
    return compose_join(nn, user, place, join, y);
}

/* Rows of all modules that have some, those of the first in front. */
static struct cb_tensor *hook_rows(void *user, struct nn *nn, const struct nn_site *place) {
    const struct module_list *list = user;
    struct cb_tensor *all = NULL;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        const struct tuner_site *site = m->tuner->rows ? module_site(m, place->name) : NULL;
        struct cb_tensor *rows = site ? m->tuner->rows(m, site, nn) : NULL;
        if (rows) all = all ? op_concat(nn->g, 2, (struct cb_tensor *[]){all, rows}, 0) : rows;
    }
    return all ? all : graph_fail(nn->g, CB_E_NAME, "%s: virtual tokens of modules that are not for it", place->name);
}

static struct cb_tensor *hook_before(void *user, struct nn *nn, const struct nn_site *place, const struct nn_prefixed *attention) {
    return compose_before(nn, user, place, attention);
}

static struct cb_tensor *hook_hidden(void *user, struct nn *nn, const struct nn_site *place, const struct nn_prefixed *attention) {
    return compose_hidden(nn, user, place, attention);
}

/* The loss and every module's penalty. */
static struct cb_tensor *hook_loss(void *user, struct nn *nn, struct cb_tensor *loss) {
    const struct module_list *list = user;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        struct cb_tensor *more = m->tuner->penalty ? m->tuner->penalty(m, nn) : NULL;
        if (more) loss = op_add(nn->g, loss, more);
    }
    return loss;
}

static struct cb_tensor *hook_survey(void *user, struct nn *nn, struct cb_tensor *x) {
    const struct module_list *list = user;
    const struct module *one = NULL;
    for (int i = 0; i < list->n; i++) {
        const struct module *m = list->modules[i];
        if (!m->tuner->survey) continue;
        if (one)
            return graph_fail(nn->g, CB_E_UNSUPPORTED, "%s, %s: each wants a first pass of its own; wanted one such", one->name, m->name);
        one = m;
    }
    return one->tuner->survey(one, nn, x);
}

static int hook_heads(void *user, struct nn *nn, int64_t batch, const struct nn_head_part **parts) {
    return compose_heads(nn, user, batch, parts);
}

struct nn_hook module_hook(struct module_list *list) {
    struct nn_hook hook = {.user = list, .input = hook_input, .site = hook_site, .param = hook_param, .join = hook_join};
    for (int i = 0; i < list->n; i++) {
        hook.n_rows += list->modules[i]->n_rows;
        hook.n_late += list->modules[i]->n_late;
        if (list->modules[i]->n_late) hook.rows_at = list->modules[i]->rows_at;
        hook.late_see_padding |= list->modules[i]->late_see_padding;
        hook.n_past += list->modules[i]->n_past;
        if (list->modules[i]->tuner->before) hook.before = hook_before, hook.hidden = hook_hidden;
        if (list->modules[i]->tuner->penalty) hook.loss = hook_loss;
        if (list->modules[i]->tuner->survey) hook.survey = hook_survey;
        if (list->modules[i]->head) hook.head = list->modules[i]->head, hook.heads = hook_heads;
        hook.reads_padding |= list->modules[i]->reads_padding;
    }
    if (hook.n_rows + hook.n_late) hook.rows = hook_rows;
    return hook;
}

/* A site's value that `make` gives, into its entry. */
static enum cb_status settle_one(const struct module *m, const struct tuner_param *p, struct store *store,
                                 const struct module_evaluator *evaluator, struct cb_err *err) {
    struct store_entry *entry = store_find(store, p->public.name);
    struct cb_graph *g;
    if (!entry) FAIL(err, CB_E_NAME, "%s: not in the store", p->public.name);
    TRY(graph_create(&g, evaluator->ops, err));
    struct nn nn = nn_make(g);
    const char *output = "made";
    float *data = entry->data;
    graph_output(g, m->tuner->make(m, &m->sites[p->site], &nn), output);
    enum cb_status status = g->err.code;
    if (status != CB_OK) err_set(err, status, __FILE__, __LINE__, "%s", g->err.message);
    if (status == CB_OK) status = evaluator->run(evaluator->user, g, store, 1, &output, &data, err);
    graph_destroy(&g);
    return status;
}

enum cb_status module_settle(const struct module *m, struct store *store, const struct module_evaluator *evaluator, struct cb_err *err) {
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].role == TUNER_MADE) TRY(settle_one(m, &m->params[i], store, evaluator, err));
    return CB_OK;
}
