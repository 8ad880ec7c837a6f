/* The table of all ops, and building a node from an op's name and attributes as text. */
#include <stdlib.h>
#include <string.h>

#include "ops/build.h"
#include "ops/ops.h"

#define OP_FILE(name) extern const struct op *const op_file_##name[];
#include "gen/ops.inc"
#undef OP_FILE

const struct op_table *ops_table(void) {
    static const struct op *const *const files[] = {
#define OP_FILE(name) op_file_##name,
#include "gen/ops.inc"
#undef OP_FILE
        NULL,
    };
    static const struct op_table table = {files};
    return &table;
}

static const struct attr_field *find_field(const struct op *op, const char *name) {
    for (const struct attr_field *f = op->attrs; f && f->name; f++)
        if (!strcmp(f->name, name)) return f;
    return NULL;
}

/* "1:2:3" */
static bool parse_ints(const char *text, struct attr_ints *out) {
    for (const char *p = text; *p;) {
        char *end;
        if (out->n == CB_MAX_RANK * 2) return false;
        out->v[out->n++] = strtoll(p, &end, 10);
        if (end == p || (*end && *end != ':')) return false;
        p = *end ? end + 1 : end;
        if (*end && !*p) return false;
    }
    return true;
}

/* Reads one value into its field of the attribute struct. */
static bool parse_value(struct cb_graph *g, const struct attr_field *field, const char *text, void *attrs) {
    void *at = (char *)attrs + field->offset;
    char *end = NULL;
    switch (field->kind) {
        case ATTR_BOOL: {
            bool yes = !strcmp(text, "true") || !strcmp(text, "1");
            memcpy(at, &yes, sizeof yes);
            return yes || !strcmp(text, "false") || !strcmp(text, "0");
        }
        case ATTR_INT: {
            int64_t v = strtoll(text, &end, 10);
            memcpy(at, &v, sizeof v);
            return *text && !*end;
        }
        case ATTR_FLOAT: {
            double v = strtod(text, &end);
            memcpy(at, &v, sizeof v);
            return *text && !*end;
        }
        case ATTR_INTS: {
            struct attr_ints v = {0};
            bool fine = parse_ints(text, &v);
            memcpy(at, &v, sizeof v);
            return fine;
        }
        case ATTR_STR: {
            const char *v = arena_strdup(g->arena, text);
            memcpy(at, &v, sizeof v);
            return v != NULL;
        }
        default: return false;
    }
}

/* Attributes named axis and axes: negative ones count from the end of input 0, no axes are all of them. */
static bool place_axes(struct cb_graph *g, const struct op *op, int rank, void *attrs) {
    const struct attr_field *axis = find_field(op, "axis"), *axes = find_field(op, "axes");
    if (axis && axis->kind == ATTR_INT) {
        int64_t v;
        memcpy(&v, (char *)attrs + axis->offset, sizeof v);
        if (!ops_build_axis(g, op->name, rank, v, &v)) return false;
        memcpy((char *)attrs + axis->offset, &v, sizeof v);
    }
    if (axes && axes->kind == ATTR_INTS) {
        struct attr_ints v, placed;
        memcpy(&v, (char *)attrs + axes->offset, sizeof v);
        if (v.n == 0) {
            if (!ops_build_axes(g, op->name, rank, 0, NULL, &placed)) return false;
            v = placed;
        }
        for (int i = 0; i < v.n; i++)
            if (!ops_build_axis(g, op->name, rank, v.v[i], &v.v[i])) return false;
        memcpy((char *)attrs + axes->offset, &v, sizeof v);
    }
    return true;
}

/* Reads "key=value,key=value" into a zeroed attribute struct. */
static bool parse_attrs(struct cb_graph *g, const struct op *op, char *text, void *attrs) {
    for (char *item = text, *next; item && *item; item = next) {
        next = strchr(item, ',');
        if (next) *next++ = '\0';
        char *value = strchr(item, '=');
        if (value) *value++ = '\0';
        const struct attr_field *field = find_field(op, item);
        if (!field) {
            graph_fail(g, CB_E_NAME, "%s: attribute '%s'; one that the op has wanted (see `cambium ops`)", op->name, item);
            return false;
        }
        if (!parse_value(g, field, value ? value : "", attrs)) {
            graph_fail(g, CB_E_ARGUMENT, "%s: attribute %s is '%s'; a value of its kind wanted", op->name, item, value ? value : "");
            return false;
        }
    }
    return true;
}

struct cb_tensor *op_apply(struct cb_graph *g, const char *op_name, const char *attrs, int n_in, struct cb_tensor *const *in) {
    const struct op *op = op_find(g->ops, op_name);
    if (!op) return graph_fail(g, CB_E_NAME, "op '%s': no such op", op_name);
    for (int i = 0; i < n_in; i++)
        if (in[i] && graph_is_bad(g, in[i])) return in[i];
    void *values = arena_alloc(g->arena, op->attr_bytes);
    char *text = arena_strdup(g->arena, attrs ? attrs : "");
    if (!values || !text) return graph_fail(g, CB_E_MEMORY, "%s: out of memory for its attributes", op->name);
    if (!parse_attrs(g, op, text, values)) return &g->bad_tensor;
    if (n_in > 0 && in[0] && !place_axes(g, op, in[0]->type.rank, values)) return &g->bad_tensor;
    return graph_node(g, op, op->attr_bytes ? values : NULL, n_in, in);
}
