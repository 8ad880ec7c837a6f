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
/* The modules that act in place at the site, in order. */
typedef void compose_visit(void *user, const struct module *m);
void compose_in_place(const struct compose *c, const struct expression *e, compose_visit *visit, void *user);
/* apply.c: whether a module changes a site, or replaces its weight or bias. */
bool module_touches(const struct module *m, const char *name);
#endif
