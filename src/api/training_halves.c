/* Batches of small models are cut into halves with a plan each: two threads then wait for each other once a step, not once an op. */
#include <string.h>

#include "api/training.h"
#include "graph/op.h"

enum {
    WEIGHTS_MOST = 8 << 20,  // bytes: with larger ones two threads share each product well, and would each pack all weights
    ROWS_LEAST = 128,  // tokens of a half
};

/* Neither depends on the number of threads: results do not either. */
bool training_may_halve(const struct training *t, const struct training_options *o) {
    return o->batch % 2 == 0 && o->batch / 2 * o->seq >= ROWS_LEAST && o->trainer.accumulate <= 1 && !o->task && !o->teacher &&
           !o->n_sets && !t->n_modules && instance_weight_bytes(&t->instance) <= WEIGHTS_MOST;
}

/* Whether each row has a place of its own in this input; *known: whether that is certain. */
static bool has_rows(const struct cb_type *type, int64_t rows, bool *known) {
    const bool is_matrix = type->rank >= 2, fits = type->rank > 0 && type->dim[0] == rows;
    *known = is_matrix == fits;
    return is_matrix;
}

bool training_can_halve(const struct cb_graph *g, const struct cb_tensor *loss, int64_t rows) {
    if (g->err.code || strcmp(loss->node->op->name, "linear_cross_entropy") != 0 || loss->index != 0) return false;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        bool known = true;
        if (node->op->traits & OP_RANDOM) return false;
        if (node->op == &op_input) has_rows(&node->out[0]->type, rows, &known);
        if (!known) return false;
    }
    return true;
}

enum cb_status training_bind_halves(struct training *t, int64_t rows, struct cb_err *err) {
    struct plan *plan = t->pass.plan, *twin = t->twin.plan;
    TRY(store_create(&t->inputs, err));
    for (int i = 0; i < plan_n_slots(plan); i++) {
        const struct plan_slot *slot = plan_slot(plan, i);
        const int other = plan_find(twin, slot->name);
        if (!slot->is_input || other < 0) continue;
        struct cb_type type = slot->type;
        struct store_entry *whole;
        bool known, halved = has_rows(&type, rows, &known);
        if (halved) type.dim[0] *= 2;
        TRY(store_add(t->inputs, slot->name, type, &whole, err));
        plan_bind(plan, i, whole->data);
        plan_bind(twin, other, (char *)whole->data + (halved ? type_bytes(&slot->type) : 0));
    }
    return CB_OK;
}
