/* Text about graphs and plans: dumps, flops, profiles. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/plan_private.h"

static double node_flops(const struct node *node) {
    if (node->op->flops) return node->op->flops(node);
    return node->n_out ? (double)type_elements(&node->out[0]->type) : 0;
}

double plan_flops(const struct plan *plan) {
    double total = 0;
    for (int s = 0; s < plan->n_steps; s++)
        if (plan->steps[s].node) total += node_flops(plan->steps[s].node);
    return total;
}

/* Attributes as "axis=-1 keep=1". */
static void print_attrs(FILE *f, const struct node *node) {
    for (const struct attr_field *a = node->op->attrs; a && a->name; a++) {
        const char *p = (const char *)node->attrs + a->offset;
        const struct attr_ints *ints = (const void *)p;
        switch (a->kind) {
            case ATTR_BOOL: fprintf(f, " %s=%d", a->name, *(const bool *)p); break;
            case ATTR_INT: fprintf(f, " %s=%" PRId64, a->name, *(const int64_t *)p); break;
            case ATTR_FLOAT: fprintf(f, " %s=%g", a->name, *(const double *)p); break;
            case ATTR_STR: fprintf(f, " %s=%s", a->name, *(const char *const *)p ? *(const char *const *)p : ""); break;
            case ATTR_INTS:
                fprintf(f, " %s=", a->name);
                for (int i = 0; i < ints->n; i++) fprintf(f, "%s%" PRId64, i ? ":" : "", ints->v[i]);
                break;
            case ATTR_PTR: break;
        }
    }
}

static void print_node(FILE *f, const struct node *node) {
    char text[TYPE_TEXT];
    for (int i = 0; i < node->n_out; i++) fprintf(f, "%s%%%d %s", i ? ", " : "", node->out[i]->id, type_text(&node->out[i]->type, text));
    fprintf(f, " = %s(", node->op->name);
    for (int i = 0; i < node->n_in; i++) {
        if (node->in[i])
            fprintf(f, "%s%%%d", i ? ", " : "", node->in[i]->id);
        else
            fprintf(f, "%s-", i ? ", " : "");
    }
    fputc(')', f);
    print_attrs(f, node);
    if (node->name && *node->name) fprintf(f, "  # %s", node->name);
}

enum cb_status graph_dump(const struct cb_graph *g, char **text, struct cb_err *err) {
    size_t n;
    FILE *f = open_memstream(text, &n);
    if (!f) FAIL(err, CB_E_MEMORY, "graph: out of memory");
    for (int i = 0; i < g->n_nodes; i++) {
        print_node(f, g->nodes[i]);
        fputc('\n', f);
    }
    for (int i = 0; i < g->n_outputs; i++) fprintf(f, "output %s = %%%d\n", g->outputs[i].name, g->outputs[i].tensor->id);
    if (fclose(f)) FAIL(err, CB_E_MEMORY, "graph: out of memory");
    return CB_OK;
}

static void print_where(FILE *f, const struct plan *plan, const struct cb_tensor *t) {
    const struct where *w = &plan->where[t->id];
    if (w->place == PLACE_SLOT)
        fprintf(f, " %%%d@%s", t->id, plan->slots[w->slot].name);
    else if (w->place == PLACE_INSIDE)
        fprintf(f, " %%%d@%" PRId64, t->id, w->offset);
}

enum cb_status plan_dump(const struct plan *plan, char **text, struct cb_err *err) {
    size_t n;
    FILE *f = open_memstream(text, &n);
    if (!f) FAIL(err, CB_E_MEMORY, "plan: out of memory");
    for (int s = 0; s < plan->n_steps; s++) {
        const struct step *step = &plan->steps[s];
        if (!step->node) {
            fprintf(f, "%4d copy -> %s\n", s, plan->slots[step->copy_slot].name);
            continue;
        }
        fprintf(f, "%4d [%s] ", s, step->kernel ? step->kernel->name : "ref");
        print_node(f, step->node);
        fputs("  ->", f);
        for (int i = 0; i < step->node->n_out; i++) print_where(f, plan, step->node->out[i]);
        if (step->work_bytes) fprintf(f, "  work %" PRId64, step->work_bytes);
        if (step->copy_source) fputs("  (copies its accumulator)", f);
        fputc('\n', f);
    }
    if (fclose(f)) FAIL(err, CB_E_MEMORY, "plan: out of memory");
    return CB_OK;
}

/* One line of a profile. */
struct tally {
    const char *op, *kernel;
    int64_t ns;
    int n;
    double flops;
};

static int by_time(const void *a, const void *b) {
    const struct tally *x = a, *y = b;
    return x->ns < y->ns ? 1 : x->ns > y->ns ? -1 : 0;
}

enum cb_status plan_profile_report(const struct plan *plan, char **text, struct cb_err *err) {
    struct tally *list = calloc((size_t)plan->n_steps + 1, sizeof *list);
    size_t size;
    FILE *f = list ? open_memstream(text, &size) : NULL;
    if (!f) {
        free(list);
        FAIL(err, CB_E_MEMORY, "plan: out of memory");
    }
    int n = 0;
    int64_t total = 0;
    for (int s = 0; s < plan->n_steps; s++) {
        const struct step *step = &plan->steps[s];
        const char *op = step->node ? step->node->op->name : "copy", *kernel = !step->node ? "" : step->kernel ? step->kernel->name : "ref";
        int i = 0;
        while (i < n && (strcmp(list[i].op, op) != 0 || strcmp(list[i].kernel, kernel) != 0)) i++;
        if (i == n) list[n++] = (struct tally){.op = op, .kernel = kernel};
        list[i].ns += step->time_ns;
        list[i].n++;
        list[i].flops += step->node ? node_flops(step->node) : 0;
        total += step->time_ns;
    }
    qsort(list, (size_t)n, sizeof *list, by_time);
    int64_t runs = plan->n_profiled ? plan->n_profiled : 1;
    fprintf(f, "%-32s %-8s %6s %10s %6s %9s\n", "op", "kernel", "calls", "us/run", "%", "GFLOP/s");
    for (int i = 0; i < n; i++)
        fprintf(f, "%-32s %-8s %6d %10.1f %6.1f %9.1f\n", list[i].op, list[i].kernel, list[i].n, (double)list[i].ns / 1e3 / (double)runs,
                total ? 100.0 * (double)list[i].ns / (double)total : 0, list[i].ns ? list[i].flops * (double)runs / (double)list[i].ns : 0);
    fprintf(f, "%-32s %-8s %6d %10.1f\n", "total", "", plan->n_steps, (double)total / 1e3 / (double)runs);
    free(list);
    if (fclose(f)) FAIL(err, CB_E_MEMORY, "plan: out of memory");
    return CB_OK;
}
