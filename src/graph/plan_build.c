/* Turns a graph into steps: which nodes run, by which kernel, and where every tensor lies. */
#include <stdlib.h>
#include <string.h>

#include "graph/mem.h"
#include "graph/plan_private.h"

/* Tensors that share bytes form a class: views, in-place results, accumulators, named buffers. Indexed by tensor id. */
struct build {
    struct plan *plan;
    struct cb_graph *g;
    int *parent;  // union-find
    int *slot;  // of the class root; -1: none
    bool *fixed;  // class root: a constant, never written
    int *last;  // class root: last step that reads it; INT32_MAX: read outside after the run
    int *first;  // class root: step that first writes it
    int *step_of;  // node id -> step, -1: none
    bool *needed;  // node id
    struct cb_tensor **slot_leaf, **slot_output;  // by slot
};

static int find(const struct build *b, int t) {
    while (b->parent[t] != t) t = b->parent[t] = b->parent[b->parent[t]];
    return t;
}

static void join(struct build *b, int keep, int gone) {
    keep = find(b, keep), gone = find(b, gone);
    if (keep == gone) return;
    b->parent[gone] = keep;
    if (b->slot[keep] < 0) b->slot[keep] = b->slot[gone];
    b->fixed[keep] |= b->fixed[gone];
    if (b->last[gone] > b->last[keep]) b->last[keep] = b->last[gone];
    if (b->first[gone] < b->first[keep]) b->first[keep] = b->first[gone];
}

static bool default_accepts(const struct node *node) {
    for (int i = 0; i < node->n_in; i++)
        if (node->in[i] && node->in[i]->type.dtype != CB_DTYPE_F32 && dtype_of(node->in[i]->type.dtype)->is_float) return false;
    for (int i = 0; i < node->n_out; i++)
        if (node->out[i]->type.dtype == CB_DTYPE_F64) return false;
    return true;
}

/* The kernel named for an op in "op=name,op=name", or NULL. Writes at most size bytes of the name. */
static bool forced_kernel(const char *list, const char *op, char *name, size_t size) {
    size_t n = strlen(op);
    for (const char *p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, op, n) == 0 && p[n] == '=') {
            size_t k = strcspn(p + n + 1, ",");
            if (k >= size) k = size - 1;
            memcpy(name, p + n + 1, k);
            name[k] = 0;
            return true;
        }
    return false;
}

/* The best kernel that accepts the node; NULL: ref. */
static enum cb_status choose(const struct plan_options *o, const struct node *node, const struct kernel **kernel, struct cb_err *err) {
    char name[64];
    bool forced = forced_kernel(o->kernels, node->op->name, name, sizeof name), known = false;
    const struct kernel *best = NULL;
    *kernel = NULL;
    if (forced && strcmp(name, "ref") == 0) return CB_OK;
    for (int f = 0; o->backend && o->backend->files[f]; f++)
        for (const struct kernel *k = o->backend->files[f]; k->op; k++) {
            if (strcmp(k->op, node->op->name) != 0) continue;
            if (forced && strcmp(k->name, name) != 0) continue;
            known = true;
            if ((k->cpu & o->cpu_mask) != k->cpu || (best && best->priority >= k->priority)) continue;
            if (k->accepts ? k->accepts(node) : default_accepts(node)) best = k;
        }
    if (forced && !known)
        FAIL(err, CB_E_NAME, "kernel %s=%s: no such kernel; `cambium list ops %s` shows them", node->op->name, name, node->op->name);
    *kernel = best;
    return CB_OK;
}

/* Replaces nodes that nothing can run (no kernel, no ref) by their expansion. */
static enum cb_status expand_unrunnable(struct build *b, struct cb_err *err) {
    struct cb_graph *g = b->g;
    bool changed = false;
    for (int i = 0; i < g->n_nodes; i++) {
        struct node *node = g->nodes[i];
        const struct kernel *kernel;
        if (node->op->ref || !node->op->expand || node->op->traits & (OP_LEAF | OP_VIEW)) continue;
        TRY(choose(&b->plan->options, node, &kernel, err));
        if (kernel) continue;
        struct cb_tensor *out[64] = {NULL};
        node->op->expand(g, node, out);
        if (g->err.code) break;
        for (int o = 0; o < node->n_out; o++) {
            for (int j = 0; out[o] && j < g->n_nodes; j++)
                for (int k = 0; k < g->nodes[j]->n_in; k++)
                    if (g->nodes[j]->in[k] == node->out[o]) g->nodes[j]->in[k] = out[o];
            for (int j = 0; out[o] && j < g->n_outputs; j++)
                if (g->outputs[j].tensor == node->out[o]) g->outputs[j].tensor = out[o];
        }
        changed = true;
    }
    return changed ? graph_sort(g) : g->err.code;
}

static enum cb_status build_alloc(struct build *b, struct cb_err *err) {
    size_t nt = (size_t)b->g->n_tensors + 1, nn = (size_t)b->g->n_nodes + 1, ns = nn + (size_t)b->g->n_outputs;
    struct arena *a = b->plan->arena;
    b->parent = arena_array(a, nt, sizeof *b->parent);
    b->slot = arena_array(a, nt, sizeof *b->slot);
    b->fixed = arena_array(a, nt, sizeof *b->fixed);
    b->last = arena_array(a, nt, sizeof *b->last);
    b->first = arena_array(a, nt, sizeof *b->first);
    b->step_of = arena_array(a, nn, sizeof *b->step_of);
    b->needed = arena_array(a, nn, sizeof *b->needed);
    b->slot_leaf = arena_array(a, ns, sizeof *b->slot_leaf);
    b->slot_output = arena_array(a, ns, sizeof *b->slot_output);
    b->plan->slots = arena_array(a, ns, sizeof *b->plan->slots);
    b->plan->where = arena_array(a, nt, sizeof *b->plan->where);
    b->plan->n_tensors = b->g->n_tensors;
    if (!b->parent || !b->slot || !b->fixed || !b->last || !b->first || !b->step_of || !b->needed || !b->slot_leaf || !b->slot_output ||
        !b->plan->slots || !b->plan->where)
        FAIL(err, CB_E_MEMORY, "plan: out of memory");
    for (int i = 0; i < b->g->n_tensors; i++) b->parent[i] = i, b->slot[i] = -1, b->last[i] = -1, b->first[i] = INT32_MAX;
    return CB_OK;
}

/* Marks what the outputs need, gives every running node a step, and collects reads. */
static enum cb_status find_steps(struct build *b, struct cb_err *err) {
    struct cb_graph *g = b->g;
    struct plan *plan = b->plan;
    for (int i = 0; i < g->n_outputs; i++) b->needed[g->outputs[i].tensor->node->id] = true;
    for (int i = g->n_nodes - 1; i >= 0; i--)
        for (int k = 0; b->needed[i] && k < g->nodes[i]->n_in; k++)
            if (g->nodes[i]->in[k]) b->needed[g->nodes[i]->in[k]->node->id] = true;
    for (int i = 0; i < g->n_nodes; i++) {
        b->step_of[i] = -1;
        if (b->needed[i] && !(g->nodes[i]->op->traits & (OP_LEAF | OP_VIEW))) b->step_of[i] = plan->n_steps++;
    }
    plan->steps = arena_array(plan->arena, (size_t)plan->n_steps + (size_t)g->n_outputs + 1, sizeof *plan->steps);
    if (!plan->steps) FAIL(err, CB_E_MEMORY, "plan: out of memory");
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        int s = b->step_of[i];
        if (s < 0) continue;
        struct step *step = &plan->steps[s];
        step->node = node;
        step->copy_slot = -1;
        TRY(choose(&plan->options, node, &step->kernel, err));
        step->run = step->kernel ? step->kernel->run : node->op->ref;
        if (!step->run && plan->options.backend && plan->options.backend->runs)
            FAIL(err, CB_E_UNSUPPORTED, "%s: no kernel accepts this node and the op has no reference", node->op->name);
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k] && b->last[node->in[k]->id] < s) b->last[node->in[k]->id] = s;
        for (int k = 0; k < node->n_out; k++) b->first[node->out[k]->id] = s;
    }
    return CB_OK;
}

static enum cb_status slot_named(int *slot, struct build *b, const char *name, struct cb_type type, struct cb_err *err) {
    struct plan *plan = b->plan;
    if ((*slot = plan_find(plan, name)) >= 0) return CB_OK;
    plan->slots[ *slot = plan->n_slots++] = (struct plan_slot){.name = name, .type = type};
    return table_put(&plan->by_name, name, strlen(name), *slot, err);
}

/* Slots of leaves and outputs; classes of views. An output goes straight into its slot where it can. */
static enum cb_status find_slots(struct build *b, struct cb_err *err) {
    struct cb_graph *g = b->g;
    struct plan *plan = b->plan;
    for (int i = 0; i < g->n_nodes; i++) {
        struct node *node = g->nodes[i];
        struct cb_tensor *t = node->n_out ? node->out[0] : NULL;
        if (node->op->traits & OP_LEAF && node->op != &op_const) {  // unused leaves keep their slots, so that callers may bind them
            int s;
            TRY(slot_named(&s, b, graph_leaf_name(t), t->type, err));
            plan->slots[s].is_param = node->op == &op_param;
            plan->slots[s].is_input = node->op == &op_input;
            plan->slots[s].is_inside = node->op == &op_input;
            b->slot[t->id] = s;
            b->slot_leaf[s] = t;
            b->first[t->id] = -1;
        } else if (node->op == &op_const) {
            b->fixed[t->id] = true;
            b->first[t->id] = -1;
        } else if (b->needed[i] && node->op->traits & OP_VIEW) {
            join(b, node->in[0]->id, t->id);
        }
    }
    for (int i = 0; i < g->n_outputs; i++) {
        struct cb_tensor *t = g->outputs[i].tensor;
        int s, root = find(b, t->id);
        TRY(slot_named(&s, b, g->outputs[i].name, t->type, err));
        if (!type_equal(&plan->slots[s].type, &t->type)) {
            char have[TYPE_TEXT], want[TYPE_TEXT];
            FAIL(err, CB_E_SHAPE, "output %s: %s; its leaf is %s", g->outputs[i].name, type_text(&t->type, have),
                 type_text(&plan->slots[s].type, want));
        }
        plan->slots[s].is_output = true;
        if (!b->slot_leaf[s]) plan->slots[s].is_inside = !g->outputs[i].is_external;
        b->slot_output[s] = t;
        b->last[root] = INT32_MAX;
        if (!b->slot_leaf[s] && b->slot[root] < 0 && !b->fixed[root]) b->slot[root] = s;
    }
    return CB_OK;
}

/* Whether output i of a step may take over the buffer of input k. */
static bool can_share(const struct build *b, const struct node *node, int i, int k, int step) {
    const struct cb_tensor *in = node->in[k], *out = node->out[i];
    int from = find(b, in->id), to = find(b, out->id);
    if (from == to) return true;
    if (type_bytes(&in->type) != type_bytes(&out->type) || b->fixed[from]) return false;
    if (b->last[from] > step || b->plan->options.keep_all) return false;
    if (b->slot[from] >= 0) {
        // a leaf's buffer may be overwritten only where an output of its name replaces it
        const struct plan_slot *s = &b->plan->slots[b->slot[from]];
        if (!s->is_output || (b->slot[to] >= 0 && b->slot[to] != b->slot[from])) return false;
    }
    for (int j = 0; j < node->n_in; j++)
        if (j != k && node->in[j] && node->in[j] != in && find(b, node->in[j]->id) == from) return false;
    for (int j = 0; j < node->n_out; j++)
        if (j != i && find(b, node->out[j]->id) == from) return false;
    return true;
}

static void share_buffers(struct build *b) {
    for (int s = 0; s < b->plan->n_steps; s++) {
        struct step *step = &b->plan->steps[s];
        const struct node *node = step->node;
        int acc = node->op->accumulate - 1;
        for (int i = 0; i < node->n_out && i < OP_MAX_OUT; i++) {
            bool is_acc = acc >= 0 && acc < node->n_in && node->in[acc] && i == node->op->accumulate_out;
            int k = is_acc ? acc : node->op->inplace[i] - 1;
            if (k < 0 || k >= node->n_in || !node->in[k]) continue;
            if (can_share(b, node, i, k, s)) {
                join(b, node->in[k]->id, node->out[i]->id);
            } else if (is_acc || node->op->traits & OP_EFFECT) {
                step->copy_source = node->in[k];
                step->copy_target = node->out[i];
            }
        }
    }
}

/* Copies for outputs that could not be computed in their slot. */
static enum cb_status final_copies(struct build *b, struct cb_err *err) {
    struct plan *plan = b->plan;
    for (int s = 0; s < plan->n_slots; s++) {
        struct cb_tensor *t = b->slot_output[s];
        if (!t || b->slot[find(b, t->id)] == s) continue;
        int from = b->slot[find(b, t->id)];
        if (from >= 0 && from < s && b->slot_output[from] && b->slot[find(b, b->slot_output[from]->id)] != from)
            FAIL(err, CB_E_UNSUPPORTED, "outputs %s and %s: each is made from the other's old value", plan->slots[from].name,
                 plan->slots[s].name);
        struct step *step = &plan->steps[plan->n_steps++];
        step->copy_slot = s;
        step->copy_source = t;
    }
    return CB_OK;
}

/* Inside slots stand first, one after the other; the bytes of all slots are counted by kind. */
static int64_t place_slots(struct plan *plan) {
    int64_t total = 0;
    for (int s = 0; s < plan->n_slots; s++) {
        int64_t bytes = type_bytes(&plan->slots[s].type);
        plan->slot_offset[s] = -1;
        if (plan->slots[s].is_param) plan->bytes.params += bytes;
        if (plan->slots[s].is_output && !plan->slots[s].is_param) plan->bytes.outputs += bytes;
        if (!plan->slots[s].is_inside) continue;
        plan->slot_offset[s] = total;
        total += ((bytes ? bytes : 1) + 63) & ~(int64_t)63;
    }
    return total;
}

/* Offsets: inside slots keep their place, everything else shares by lifetime. */
static enum cb_status place_all(struct build *b, struct cb_err *err) {
    struct plan *plan = b->plan;
    int nt = plan->n_tensors, n = 0;
    struct mem_buffer *buffers = calloc((size_t)nt + (size_t)plan->n_steps + 1, sizeof *buffers);
    int *buffer_of = arena_array(plan->arena, (size_t)nt + 1, sizeof *buffer_of);
    plan->slot_offset = arena_array(plan->arena, (size_t)plan->n_slots + 1, sizeof *plan->slot_offset);
    if (!buffers || !buffer_of || !plan->slot_offset) {
        free(buffers);
        FAIL(err, CB_E_MEMORY, "plan: out of memory");
    }
    int64_t slots_bytes = place_slots(plan), total = 0;
    // a class without slot lives from its first write to its last read
    for (int t = 0; t < nt; t++) buffer_of[t] = -1;
    for (int t = 0; t < nt; t++) {
        int root = find(b, t);
        if (b->first[root] == INT32_MAX || b->slot[root] >= 0 || b->fixed[root]) continue;
        if (buffer_of[root] < 0) {
            int last = b->last[root] == INT32_MAX || plan->options.keep_all ? plan->n_steps : b->last[root];
            buffer_of[root] = n;
            buffers[n++] = (struct mem_buffer){.first = b->first[root], .last = last < b->first[root] ? b->first[root] : last};
        }
        int64_t bytes = type_bytes(&b->g->tensors[t]->type);
        if (bytes < 1) bytes = 1;
        if (bytes > buffers[buffer_of[root]].bytes) buffers[buffer_of[root]].bytes = bytes;
    }
    for (int s = 0; s < plan->n_steps; s++) {
        struct step *step = &plan->steps[s];
        if (!step->node) continue;
        if (step->kernel && step->kernel->workspace)
            step->work_bytes = (int64_t)step->kernel->workspace(step->node, plan->options.n_threads);
        if (!step->kernel && step->node->op->ref_work) step->work_bytes = (int64_t)step->node->op->ref_work(step->node);
        step->work_offset = -1;
        if (!step->work_bytes) continue;
        step->work_offset = n;
        buffers[n++] = (struct mem_buffer){.bytes = step->work_bytes, .first = s, .last = s};
        if (step->work_bytes > plan->bytes.workspace) plan->bytes.workspace = step->work_bytes;
    }
    enum cb_status status = mem_place(buffers, n, &total, err);
    for (int t = 0; t < nt && status == CB_OK; t++) {
        int root = find(b, t);
        struct where *w = &plan->where[t];
        if (b->fixed[root]) {
            const struct cb_tensor *leaf = b->g->tensors[root];
            while (leaf->node->op->traits & OP_VIEW) leaf = leaf->node->in[0];
            *w = (struct where){.place = PLACE_CONST, .data = ((const struct attr_leaf *)leaf->node->attrs)->data};
        } else if (b->slot[root] >= 0) {
            *w = (struct where){.place = PLACE_SLOT, .slot = b->slot[root]};
        } else if (buffer_of[root] >= 0) {
            *w = (struct where){.place = PLACE_INSIDE, .offset = slots_bytes + buffers[buffer_of[root]].offset};
        }
    }
    for (int s = 0; s < plan->n_steps && status == CB_OK; s++)
        if (plan->steps[s].node && plan->steps[s].work_offset >= 0)
            plan->steps[s].work_offset = slots_bytes + buffers[plan->steps[s].work_offset].offset;
    plan->bytes.activations = total;
    plan->bytes.inside = slots_bytes + total;
    free(buffers);
    return status;
}

enum cb_status plan_build(struct plan *plan, struct cb_err *err) {
    struct build b = {.plan = plan, .g = plan->graph};
    TRY(expand_unrunnable(&b, err));
    TRY(pass_replay(plan->graph));
    TRY(pass_sum(plan->graph));
    if (plan->options.recompute) TRY(pass_recompute(plan->graph, plan->options.recompute));
    TRY(build_alloc(&b, err));
    TRY(find_steps(&b, err));
    TRY(find_slots(&b, err));
    share_buffers(&b);
    TRY(final_copies(&b, err));
    return place_all(&b, err);
}
