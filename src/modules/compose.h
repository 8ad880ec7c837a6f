/* What blocks of an expression see of the site that they change. */
#ifndef MODULES_COMPOSE_H
#define MODULES_COMPOSE_H
#include "modules/expression.h"
#include "modules/private.h"

/* A site while its input or its output is made. */
struct compose {
    struct nn *nn;
    const struct module_list *list;
    const char *name;
    const struct nn_site *site;  // NULL: the input is made
    struct cb_tensor *plain;  // what the model's own layer gives, with the weights of the modules that act in place
    int64_t first_row, n_rows;  // examples of the batch that y holds; n_rows -1: all
    bool own_input, own_weights;  // modules bring theirs: they do not act in place
};
/* y changed by an expression; y itself where none of its modules has the site. */
struct cb_tensor *compose_apply(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y);
/* apply.c: the same by one module. */
struct cb_tensor *compose_module(struct compose *c, const struct module *m, struct cb_tensor *x, struct cb_tensor *y);
/* The same by modules that bring their own inputs and weights. */
struct cb_tensor *compose_alone(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y);
bool compose_touches(const struct compose *c, const struct expression *e);
/* The expression without blocks of which one child alone has the site. */
const struct expression *compose_lone(const struct compose *c, const struct expression *e);
/* How many examples each child of a block by rows takes; NULL after a failure. */
const int64_t *compose_row_sizes(struct compose *c, const struct expression *e);
/* How many of `length` positions each child takes. */
const int64_t *compose_split_sizes(struct compose *c, const struct expression *e, int64_t length);
/* Each row's number of a child of a choosing block, i32 (n_rows); NULL after a failure. */
struct cb_tensor *compose_row_numbers(struct compose *c, const struct expression *e);
/* The numbers where they are one of n children's, n elsewhere. */
struct cb_tensor *compose_slots(struct cb_graph *g, struct cb_tensor *ids, int n);
/* z in the rows of that number, y in the others. */
struct cb_tensor *compose_select(struct compose *c, struct cb_tensor *ids, int number, struct cb_tensor *z, struct cb_tensor *y);
/* What the i-th child of an average counts. */
double compose_avg_weight(const struct expression *e, int i);

/* compose_join.c: where an output joins the residual stream. */
struct compose_join {
    struct compose c;
    struct tuner_flow flow;
    const struct module *last;  // that changed it; NULL: none
};
/* The new stream; NULL where no module has the site. */
struct cb_tensor *compose_join(struct nn *nn, const struct module_list *list, const struct nn_site *place, const struct nn_join *join,
                               struct cb_tensor *y);
void compose_join_module(struct compose_join *j, const struct module *m);
/* The last module of a child enters for a whole block; a child of a block that has entered. */
void compose_join_enter(struct compose_join *j, const struct expression *e);
void compose_join_child(struct compose_join *j, const struct expression *e);
void compose_flow_chain(struct compose_join *j, const struct expression *e);
void compose_flow_rows(struct compose_join *j, const struct expression *e);
void compose_flow_split(struct compose_join *j, const struct expression *e);
void compose_flow_route(struct compose_join *j, const struct expression *e);
void compose_flow_avg(struct compose_join *j, const struct expression *e);

/* compose_arrow.c */
extern const struct block_option compose_arrow_options[];
enum cb_status compose_arrow_check(struct expression *e, const char *where, struct cb_err *err);
struct cb_tensor *compose_arrow(struct compose *c, const struct expression *e, struct cb_tensor *x, struct cb_tensor *y);

/* compose_prefix.c: rows before a site's keys or values, and what is added to the scores of these keys, (1 or B,1,1,n); NULL: none. */
struct cb_tensor *compose_before(struct nn *nn, const struct module_list *list, const struct nn_site *place,
                                 const struct nn_prefixed *attention);
struct cb_tensor *compose_hidden(struct nn *nn, const struct module_list *list, const struct nn_site *place,
                                 const struct nn_prefixed *attention);
/* compose_heads.c: struct nn_hook's heads. */
int compose_heads(struct nn *nn, const struct module_list *list, int64_t batch, const struct nn_head_part **parts);

/* apply.c: whether a module's part at this site can be computed together with that of others of its kind. */
bool module_groups(const struct compose *c, const struct module *m);
/* The modules that act in place at the site, in order. */
typedef void compose_visit(void *user, const struct module *m);
void compose_in_place(const struct compose *c, const struct expression *e, compose_visit *visit, void *user);
/* apply.c: whether a module changes a site, or replaces its weight or bias. */
bool module_touches(const struct module *m, const char *name);
#endif
