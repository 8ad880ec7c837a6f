/* Heads of parts of a batch: where children of a block have rows of their own, each child's head serves these. */
#include "modules/compose.h"

struct heads {
    const struct module_list *list;
    struct nn_head_part *part;
    int n, size;
};

/* Parts are told by the first block that gives rows to its children; where rows choose at run time all have one head. */
static const struct expression *divider(const struct expression *e) {
    if (!e->block) return NULL;
    if (e->block->by_rows) return e->block->chooses ? NULL : e;
    for (int i = 0; i < e->n; i++) {
        const struct expression *found = divider(e->child[i]);
        if (found) return found;
    }
    return NULL;
}

/* The head of the last module that brings one. */
static const struct nn_head *head_of(const struct module_list *list, const struct expression *e) {
    const struct nn_head *head = !e->block && e->module >= 0 ? list->modules[e->module]->head : NULL;
    for (int i = e->n; i-- > 0 && !head;) head = head_of(list, e->child[i]);
    return head;
}

/* The parts of so many rows; false where the block's numbers are of others. */
static bool parts_add(struct heads *h, const struct expression *e, int64_t rows) {
    const struct expression *by = divider(e);
    if (!by) {
        const struct expression *last = e;
        while (last->block) last = last->child[last->n - 1];
        if (h->n == h->size) return false;
        if (rows) h->part[h->n++] = (struct nn_head_part){last->name ? last->name : "base", head_of(h->list, e), rows};
        return true;
    }
    int64_t left = rows;
    for (int i = 0; i < by->n; i++) {
        const int64_t own = by->block->takes_numbers ? by->number[i] : rows / by->n;
        if (own > left || !parts_add(h, by->child[i], own)) return false;
        left -= own;
    }
    return left == 0;
}

static int n_leaves(const struct expression *e) {
    int n = !e->block;
    for (int i = 0; i < e->n; i++) n += n_leaves(e->child[i]);
    return n;
}

int compose_heads(struct nn *nn, const struct module_list *list, int64_t batch, const struct nn_head_part **parts) {
    if (!list->expression || list->n_composed < list->n) return 0;
    struct heads h = {.list = list, .size = n_leaves(list->expression)};
    h.part = arena_array(nn->g->arena, (size_t)h.size, sizeof *h.part);
    if (!h.part) graph_fail(nn->g, CB_E_MEMORY, "modules: no memory for heads");
    if (!h.part || !parts_add(&h, list->expression, batch)) return 0;
    // one head of all that are there serves every row
    const struct nn_head *first = NULL;
    bool differ = false;
    for (int i = 0; i < h.n; i++) {
        if (!first) first = h.part[i].head;
        differ |= h.part[i].head && h.part[i].head != first;
    }
    *parts = h.part;
    return differ ? h.n : 0;
}
