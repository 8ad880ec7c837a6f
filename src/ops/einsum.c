/* Einstein summation: diagonals, sums and one matrix product for each operand after the first. */
#include <ctype.h>
#include <string.h>

#include "ops/infer.h"
#include "ops/ops.h"

/* A tensor and the label of each of its axes: letters, or digits for the axes of "..." counted from the right. */
struct term {
    struct cb_tensor *t;
    char label[CB_MAX_RANK];
    int n;
};

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static int find(const struct term *term, char label) {
    for (int i = 0; i < term->n; i++)
        if (term->label[i] == label) return i;
    return -1;
}

static void drop_label(struct term *term, int at) {
    memmove(term->label + at, term->label + at + 1, (size_t)(term->n - at - 1));
    term->n--;
}

/* Reads the labels of one term up to ',', '-' or the end. rank < 0: an output, "..." stands for n_dots axes. */
static const char *read_labels(struct cb_graph *g, const char *p, int rank, int n_dots, struct term *term) {
    const char *stop = p + strcspn(p, ",-");
    int letters = 0;
    for (const char *c = p; c < stop; c++) letters += is_letter(*c);
    int dots = rank < 0 ? n_dots : rank - letters;
    bool has_dots = false, fits = true;
    term->n = 0;
    while (p < stop && fits) {
        if (*p == ' ') {
            p++;
        } else if (!has_dots && stop - p >= 3 && strncmp(p, "...", 3) == 0) {
            has_dots = true;
            fits = dots >= 0 && term->n + dots <= CB_MAX_RANK;
            for (int i = 0; fits && i < dots; i++) term->label[term->n++] = (char)('0' + dots - 1 - i);
            p += 3;
        } else {
            fits = is_letter(*p) && term->n < CB_MAX_RANK;
            if (fits) term->label[term->n++] = *p++;
        }
    }
    if (!fits || (rank >= 0 && term->n != rank)) {
        graph_fail(g, CB_E_ARGUMENT, "einsum: labels '%.*s' for rank %d; wanted one letter an axis, at most one '...'", (int)(stop - p), p,
                   rank);
        return NULL;
    }
    return stop;
}

/* Axes of one label become their diagonal: the two moved last, flattened, every (n+1)th element. */
static void take_diagonals(struct cb_graph *g, struct term *term) {
    for (int i = 0; i < term->n && !g->err.code; i++)
        for (int j = i + 1; j < term->n; j++) {
            if (term->label[i] != term->label[j]) continue;
            const struct cb_type *type = &term->t->type;
            int64_t order[CB_MAX_RANK], dim[CB_MAX_RANK], n = type->dim[i];
            int k = 0;
            char label[CB_MAX_RANK];
            for (int a = 0; a < term->n; a++)
                if (a != i && a != j) label[k] = term->label[a], dim[k] = type->dim[a], order[k++] = a;
            order[k] = i;
            order[k + 1] = j;
            label[k] = term->label[i];
            dim[k] = n * n;
            struct cb_tensor *flat = op_reshape(g, op_permute(g, term->t, term->n, order), k + 1, dim);
            term->t = op_slice(g, flat, k, 0, n * n, n + 1);
            memcpy(term->label, label, (size_t)(k + 1));
            term->n = k + 1;
            i = -1;  // start over on the new axes
            break;
        }
}

/* Sums over axes whose label is not among the wanted ones. */
static void sum_others(struct cb_graph *g, struct term *term, const bool *wanted) {
    int64_t axes[CB_MAX_RANK];
    int n = 0;
    for (int i = 0; i < term->n; i++)
        if (!wanted[(unsigned char)term->label[i]]) axes[n++] = i;
    if (n) term->t = op_sum(g, term->t, n, axes, false);
    for (int i = n - 1; i >= 0; i--) drop_label(term, (int)axes[i]);
}

/* Labels in the order of `to` from a term that has them all. */
static struct cb_tensor *arrange(struct cb_graph *g, const struct term *term, const struct term *to) {
    int64_t order[CB_MAX_RANK];
    bool moved = false;
    for (int i = 0; i < to->n; i++) {
        order[i] = find(term, to->label[i]);
        moved |= order[i] != i;
    }
    return moved ? op_permute(g, term->t, to->n, order) : term->t;
}

/* Product of two terms; labels that only they have and that are not wanted are summed over. */
static void multiply(struct cb_graph *g, struct term *a, const struct term *b, const bool *wanted, const int64_t *size) {
    struct term left = {.n = 0}, right = {.n = 0}, out = {.n = 0};
    int64_t batch = 1, rows = 1, inner = 1, cols = 1, dim[CB_MAX_RANK];
    char own[CB_MAX_RANK], sums[CB_MAX_RANK];
    int n_own = 0, n_sums = 0;
    // batch labels first in both, then a's own, the summed ones, b's own
    for (int i = 0; i < a->n; i++) {
        char c = a->label[i];
        bool shared = find(b, c) >= 0;
        if (shared && wanted[(unsigned char)c]) left.label[left.n++] = right.label[right.n++] = c, batch *= size[(unsigned char)c];
        if (shared && !wanted[(unsigned char)c]) sums[n_sums++] = c, inner *= size[(unsigned char)c];
        if (!shared) own[n_own++] = c, rows *= size[(unsigned char)c];
    }
    memcpy(out.label, left.label, (size_t)left.n);
    out.n = left.n;
    if (out.n + n_own + b->n - left.n - n_sums > CB_MAX_RANK) {
        graph_fail(g, CB_E_SHAPE, "einsum: a product of more than %d axes; wanted fewer", CB_MAX_RANK);
        return;
    }
    for (int i = 0; i < n_own; i++) left.label[left.n++] = out.label[out.n++] = own[i];
    for (int i = 0; i < n_sums; i++) left.label[left.n++] = right.label[right.n++] = sums[i];
    for (int i = 0; i < b->n; i++)
        if (find(a, b->label[i]) < 0) right.label[right.n++] = out.label[out.n++] = b->label[i], cols *= size[(unsigned char)b->label[i]];
    struct cb_tensor *x = op_reshape(g, arrange(g, a, &left), 3, (int64_t[]){batch, rows, inner});
    struct cb_tensor *y = op_reshape(g, arrange(g, b, &right), 3, (int64_t[]){batch, inner, cols});
    for (int i = 0; i < out.n; i++) dim[i] = size[(unsigned char)out.label[i]];
    out.t = op_reshape(g, op_matmul(g, x, y, false, false), out.n, dim);
    *a = out;
}

/* Sizes of labels; axes of 1 under "..." that others stretch lose their label. False after a failure. */
static bool check_sizes(struct cb_graph *g, int n, struct term *term, int64_t *size) {
    for (int i = 0; i < n; i++)
        for (int k = 0; k < term[i].n; k++) {
            int64_t d = term[i].t->type.dim[k], *s = &size[(unsigned char)term[i].label[k]];
            if (*s < 0 || (isdigit((unsigned char)term[i].label[k]) && *s == 1)) *s = d;
            if (*s != d && !(isdigit((unsigned char)term[i].label[k]) && d == 1)) {
                graph_fail(g, CB_E_SHAPE, "einsum: label '%c' is %lld and %lld; wanted one size", term[i].label[k], (long long)*s,
                           (long long)d);
                return false;
            }
        }
    for (int i = 0; i < n; i++)
        for (int k = term[i].n - 1; k >= 0; k--) {
            if (term[i].t->type.dim[k] == size[(unsigned char)term[i].label[k]]) continue;
            term[i].t = op_sum(g, term[i].t, 1, (int64_t[]){k}, false);
            drop_label(&term[i], k);
        }
    return true;
}

/* Without "->": the axes of "...", then the letters that occur once, in order. */
static void implicit_output(int n, const struct term *term, int n_dots, struct term *out) {
    int count[128] = {0};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < term[i].n; k++) count[(unsigned char)term[i].label[k]]++;
    out->n = 0;
    for (int i = n_dots - 1; i >= 0; i--) out->label[out->n++] = (char)('0' + i);
    for (int c = 'A'; c <= 'z' && out->n < CB_MAX_RANK; c++)
        if (count[c] == 1) out->label[out->n++] = (char)c;
}

struct cb_tensor *op_einsum(struct cb_graph *g, const char *equation, int n, struct cb_tensor *const *x) {
    struct term term[8], out = {.n = 0};
    int64_t size[128];
    int n_dots = 0;
    const char *p = equation;
    for (int i = 0; i < 128; i++) size[i] = -1;
    if (n < 1 || n > 8) return graph_fail(g, CB_E_ARGUMENT, "einsum: %d operands; wanted 1 to 8", n);
    for (int i = 0; i < n; i++) {
        if (graph_is_bad(g, x[i])) return x[i];
        if (i && *p++ != ',') return graph_fail(g, CB_E_ARGUMENT, "einsum: '%s' for %d operands; wanted as many terms", equation, n);
        term[i].t = x[i];
        if (!(p = read_labels(g, p, x[i]->type.rank, 0, &term[i]))) return &g->bad_tensor;
        for (int k = 0; k < term[i].n; k++)
            if (isdigit((unsigned char)term[i].label[k]) && term[i].label[k] - '0' >= n_dots) n_dots = term[i].label[k] - '0' + 1;
    }
    if (strncmp(p, "->", 2) == 0) {
        if (!(p = read_labels(g, p + 2, -1, n_dots, &out))) return &g->bad_tensor;
    } else {
        implicit_output(n, term, n_dots, &out);
    }
    if (*p || !check_sizes(g, n, term, size))
        return graph_fail(g, CB_E_ARGUMENT, "einsum: '%s' for %d operands; wanted as many terms", equation, n);
    for (int i = 0; i < out.n; i++)
        if (size[(unsigned char)out.label[i]] < 0 || find(&out, out.label[i]) != i)
            return graph_fail(g, CB_E_ARGUMENT, "einsum: output label '%c'; wanted one of the operands', once", out.label[i]);
    for (int i = 0; i < n; i++) take_diagonals(g, &term[i]);
    // from the left: what neither the output nor a later operand needs is summed
    for (int i = 0; i < n && !g->err.code; i++) {
        bool wanted[128] = {false}, here[128];
        for (int k = 0; k < out.n; k++) wanted[(unsigned char)out.label[k]] = true;
        for (int j = i + 1; j < n; j++)
            for (int k = 0; k < term[j].n; k++) wanted[(unsigned char)term[j].label[k]] = true;
        memcpy(here, wanted, sizeof here);
        for (int k = 0; i && k < term[0].n; k++) here[(unsigned char)term[0].label[k]] = true;
        sum_others(g, &term[i], here);
        if (i && !g->err.code) multiply(g, &term[0], &term[i], wanted, size);
        if (i && !g->err.code) sum_others(g, &term[0], wanted);
    }
    return g->err.code ? &g->bad_tensor : arrange(g, &term[0], &out);
}
