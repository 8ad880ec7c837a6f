/* The language of module expressions: recursive descent over text, and names that stand for expressions. */
#include "modules/expression.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"

enum { TEXT_LIMIT = 1 << 20, NAMES_LIMIT = 4096 };
#define SCALE_LIMIT 1e6

/* A line NAME=EXPRESSION or @FIELD=VALUE. */
struct definition {
    const char *text, *field;  // field: NULL for a name
    bool in_use;  // it is being read: a name inside of it that comes here again is a cycle
};

struct parser {
    struct arena *arena;
    struct cb_err *err;
    const char *what;  // for messages
    const char *text;  // of the line or name that is read
    const char *name;  // whose text that is; NULL: of none
    const char *at, *end;
    struct table names, fields;  // numbers of the definitions: of names, and of what all rows are
    struct definition *definition;
    int n_definitions, n_nodes, depth;
};

/* ---- words */
static void skip_space(struct parser *p) {
    while (p->at < p->end && isspace((unsigned char)*p->at)) p->at++;
}

/* The place, what is found there, and what was wanted. */
static enum cb_status unexpected(struct parser *p, const char *wanted) {
    const char *in = p->name ? " of " : "", *name = p->name ? p->name : "";
    const long place = (long)(p->at - p->text);
    skip_space(p);
    if (p->at == p->end)
        FAIL(p->err, CB_E_USAGE, "%s: at character %ld%s%.60s: found its end; wanted %s", p->what, place, in, name, wanted);
    const int n = (int)(p->end - p->at < 24 ? p->end - p->at : 24);
    FAIL(p->err, CB_E_USAGE, "%s: at character %ld%s%.60s: found '%.*s'; wanted %s", p->what, place, in, name, n, p->at, wanted);
}

static bool next_is(struct parser *p, char c) {
    skip_space(p);
    return p->at < p->end && *p->at == c;
}

static enum cb_status expect(struct parser *p, char c, const char *wanted) {
    if (!next_is(p, c)) return unexpected(p, wanted);
    p->at++;
    return CB_OK;
}

/* A path or name: up to one of the marks, or whatever stands between quotation marks. */
static enum cb_status word(struct parser *p, const char *marks, const char **begin, size_t *n, const char *wanted) {
    skip_space(p);
    if (next_is(p, '"')) {
        const char *close = memchr(p->at + 1, '"', (size_t)(p->end - p->at - 1));
        if (!close) return unexpected(p, "a closing quotation mark");
        *begin = p->at + 1;
        *n = (size_t)(close - *begin);
        p->at = close + 1;
        return *n ? CB_OK : unexpected(p, wanted);
    }
    const char *from = p->at;
    while (p->at < p->end && !strchr(marks, *p->at)) p->at++;
    const char *stop = p->at;
    while (stop > from && isspace((unsigned char)stop[-1])) stop--;
    *begin = from;
    *n = (size_t)(stop - from);
    if (*n) return CB_OK;
    p->at = from;
    return unexpected(p, wanted);
}

static enum cb_status word_copy(struct parser *p, const char *marks, const char **out, const char *wanted) {
    const char *begin;
    size_t n;
    TRY(word(p, marks, &begin, &n, wanted));
    if (!(*out = arena_strndup(p->arena, begin, n))) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
    return CB_OK;
}

/* "0.5*": a number before a star. Text ends with NUL, and no number goes past it. */
static bool weight_read(struct parser *p, double *weight) {
    skip_space(p);
    char *stop;
    if (p->at == p->end || !strchr("+-.0123456789", *p->at)) return false;
    const double value = strtod(p->at, &stop);
    const char *star = stop;
    while (star < p->end && isspace((unsigned char)*star)) star++;
    if (stop == p->at || star >= p->end || *star != '*') return false;
    *weight = value;
    p->at = star + 1;
    return true;
}

/* ---- the tree */
static enum cb_status node_make(struct parser *p, struct expression **out) {
    if (p->n_nodes++ >= EXPRESSION_NODES) FAIL(p->err, CB_E_LIMIT, "%s: more than %d modules and blocks", p->what, EXPRESSION_NODES);
    if (!(*out = arena_alloc(p->arena, sizeof **out))) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
    **out = (struct expression){.module = -1, .own = -1, .weight = 1, .scale = 1};
    return CB_OK;
}

static enum cb_status expression_read(struct parser *p, struct expression **out);

/* Whether a ';' comes at this depth before the block closes: then what stands here is its head. */
static bool has_head(const struct parser *p) {
    int depth = 0;
    bool quoted = false;
    for (const char *c = p->at; c < p->end; c++) {
        if (*c == '"') quoted = !quoted;
        if (quoted) continue;
        if (*c == '(') depth++;
        if (*c == ')' && depth-- == 0) return false;
        if (*c == ';' && depth == 0) return true;
    }
    return false;
}

/* "DIR;" or "by=FIELD;" */
static enum cb_status head_read(struct parser *p, struct expression *e) {
    const struct block *b = e->block;
    const char *text, *wanted = b->takes_field && b->takes_folder ? "a folder or by=FIELD" : b->takes_field ? "by=FIELD" : "a folder";
    if ((!b->takes_folder && !b->takes_field) || !has_head(p)) return CB_OK;
    const char *from = p->at;
    TRY(word_copy(p, ";,()", &text, wanted));
    const bool by_field = b->takes_field && strncmp(text, "by=", 3) == 0 && text[3];
    if (!next_is(p, ';') || (!by_field && !b->takes_folder)) {
        p->at = from;
        return unexpected(p, wanted);
    }
    p->at++;
    if (by_field)
        e->field = text + 3;
    else
        e->folder = text;
    return CB_OK;
}

/* [VALUE=]EXPRESSION, ... */
static enum cb_status children_read(struct parser *p, struct expression *e) {
    int size = 0;
    do {
        if (e->n == size) {
            size = size ? 2 * size : 4;
            struct expression **child = arena_array(p->arena, (size_t)size, sizeof(struct expression *));
            const char **value = arena_array(p->arena, (size_t)size, sizeof *value);
            if (!child || !value) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
            if (e->n) memcpy(child, e->child, (size_t)e->n * sizeof(struct expression *));
            if (e->n) memcpy(value, e->value, (size_t)e->n * sizeof *value);
            e->child = child;
            e->value = value;
        }
        if (e->field) {
            TRY(word_copy(p, "=,;()", &e->value[e->n], "VALUE=MODULE"));
            TRY(expect(p, '=', "'=' after a value of the field"));
            for (int i = 0; i < e->n; i++)
                if (strcmp(e->value[i], e->value[e->n]) == 0)
                    FAIL(p->err, CB_E_USAGE, "%s: %s: the value '%s' of %s twice", p->what, e->block->name, e->value[i], e->field);
        }
        TRY(expression_read(p, &e->child[e->n]));
        e->n++;
    } while (next_is(p, ',') && p->at++);
    return CB_OK;
}

/* One of the block's own options. */
static enum cb_status number_read(struct parser *p, struct expression *e, const char *text) {
    const struct block_option *o = e->block->options;
    const char *equals = strchr(text, '=');
    const size_t n = equals ? (size_t)(equals - text) : 0;
    while (o->name && (strlen(o->name) != n || memcmp(o->name, text, n) != 0)) o++;
    if (!o->name)
        FAIL(p->err, CB_E_USAGE, "%s: %s: found '%.40s'; wanted an option, %s=NUMBER ...", p->what, e->block->name, text,
             e->block->options[0].name);
    char *stop;
    const double value = strtod(equals + 1, &stop);
    if (!equals[1] || *stop || !(value >= o->low && value <= o->high) || (o->is_whole && value != floor(value)))
        FAIL(p->err, CB_E_USAGE, "%s: %s: %s: found '%.40s'; wanted a %snumber from %g to %g", p->what, e->block->name, o->name, equals + 1,
             o->is_whole ? "whole " : "", o->low, o->high);
    e->option[o - e->block->options] = value;
    return CB_OK;
}

static enum cb_status option_read(struct parser *p, struct expression *e, const char *text) {
    if (e->block->options) return number_read(p, e, text);
    if (strcmp(text, "reading=adapters") == 0)
        e->is_library = true;
    else if (strcmp(text, "normalize=false") == 0)
        e->keeps_weights = true;
    else if (strcmp(text, "reading=mean") != 0 && strcmp(text, "normalize=true") != 0)
        FAIL(p->err, CB_E_USAGE, "%s: %s: found '%.40s'; wanted reading=mean or adapters, normalize=true or false", p->what, e->block->name,
             text);
    return CB_OK;
}

/* "; 2, 3" or "; reading=adapters" */
static enum cb_status tail_read(struct parser *p, struct expression *e) {
    const struct block *b = e->block;
    if (!next_is(p, ';') || !(b->takes_numbers || b->takes_options)) return CB_OK;
    int size = 0;
    do {
        const char *text;
        char *stop;
        p->at++;
        const char *from = p->at;
        TRY(word_copy(p, ",;()", &text, b->takes_numbers ? "a whole number" : "an option"));
        if (b->takes_options) {
            TRY(option_read(p, e, text));
            continue;
        }
        const long long value = strtoll(text, &stop, 10);
        if (*stop || !isdigit((unsigned char)*text) || value > INT32_MAX) {
            p->at = from;
            return unexpected(p, "a whole number");
        }
        if (e->n_numbers == size) {
            size = size ? 2 * size : 8;
            int64_t *number = arena_array(p->arena, (size_t)size, sizeof *number);
            if (!number) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
            if (e->n_numbers) memcpy(number, e->number, (size_t)e->n_numbers * sizeof *number);
            e->number = number;
        }
        e->number[e->n_numbers++] = value;
    } while (next_is(p, ','));
    return CB_OK;
}

static struct expression *first_leaf(struct expression *e) {
    while (e->block) e = e->child[0];
    return e;
}

/* Where all rows have one value of a field, what routes by it is that value's module, the base where there is none; and where all have one of task_ids, what
   chooses by these is the child of that number or name. */
static enum cb_status route_settle(struct parser *p, struct expression *e) {
    const char *name = e->field ? e->field : e->block && e->block->chooses ? "task_ids" : NULL;
    const int64_t number = name ? table_get(&p->fields, name, strlen(name)) : -1;
    struct expression chosen = {.module = -1, .own = -1, .weight = 1, .scale = 1, .name = "base"};
    if (number < 0) return CB_OK;
    const char *value = p->definition[number].text;
    int task = -1;
    for (int i = 0; i < e->n; i++) {
        char digits[16];
        snprintf(digits, sizeof digits, "%d", i);
        const char *own = e->field ? e->value[i] : e->child[i]->name;
        if ((own && strcmp(own, value) == 0) || (!e->field && strcmp(digits, value) == 0)) task = i;
    }
    if (!e->field && task < 0)
        FAIL(p->err, CB_E_USAGE, "%s: %s: task_ids: found %.40s; wanted 0 to %d, or a module's name", p->what, e->block->name, value,
             e->n - 1);
    if (task >= 0) chosen = *e->child[task];
    // a head that goes with the first of all
    const char *head = first_leaf(e)->head;
    *e = chosen;
    if (head && !first_leaf(e)->head && first_leaf(e)->path) first_leaf(e)->head = head;
    return CB_OK;
}

/* The same of all blocks in what a folder says. */
static enum cb_status routes_settle(struct parser *p, struct expression *e) {
    for (int i = 0; i < e->n; i++) TRY(routes_settle(p, e->child[i]));
    return route_settle(p, e);
}

/* After NAME( */
static enum cb_status block_read(struct parser *p, struct expression *e) {
    for (int i = 0; e->block->options && e->block->options[i].name; i++) e->option[i] = e->block->options[i].value;
    TRY(head_read(p, e));
    TRY(children_read(p, e));
    TRY(tail_read(p, e));
    TRY(expect(p, ')', e->block->takes_numbers || e->block->takes_options ? "',', ';' or ')'" : "',' or ')'"));
    TRY(block_check(e, p->what, p->err));
    return route_settle(p, e);
}

/* The expression that a name stands for, read anew: what is read at once is bounded. */
static enum cb_status name_read(struct parser *p, int64_t number, const char *name, struct expression **out) {
    struct definition *d = &p->definition[number];
    if (d->in_use) FAIL(p->err, CB_E_USAGE, "%s: the name '%s' stands for something that contains itself", p->what, name);
    const struct parser outer = *p;
    d->in_use = true;
    p->name = name;
    p->at = p->text = d->text;
    p->end = d->text + strlen(d->text);
    TRY(expression_read(p, out));
    skip_space(p);
    if (p->at != p->end) return unexpected(p, "nothing more");
    d->in_use = false;
    p->name = outer.name;
    p->text = outer.text;
    p->at = outer.at;
    p->end = outer.end;
    return CB_OK;
}

/* The last part of a path. */
static const char *path_name(struct arena *arena, const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    return arena_strndup(arena, path + begin, n - begin);
}

/* A name, the base, or a path. */
static enum cb_status leaf_read(struct parser *p, const char *text, struct expression **out) {
    const int64_t number = table_get(&p->names, text, strlen(text));
    if (number >= 0) {
        TRY(name_read(p, number, text, out));
        if (!(*out)->block) (*out)->name = text;
        return CB_OK;
    }
    if (setup_is_folder(text)) {
        TRY(setup_read(out, NULL, p->arena, text, p->err));
        return routes_settle(p, *out);
    }
    TRY(node_make(p, out));
    (*out)->name = path_name(p->arena, text);
    if (!(*out)->name) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
    if (strcmp(text, "base") != 0) (*out)->path = text;
    return CB_OK;
}

static enum cb_status term_read(struct parser *p, struct expression **out) {
    const char *begin, *from = p->at;
    size_t n;
    const bool quoted = next_is(p, '"');
    TRY(word(p, ",;()", &begin, &n, "a module or a block"));
    if (quoted || !next_is(p, '(')) {
        const char *text = arena_strndup(p->arena, begin, n);
        if (!text) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
        return leaf_read(p, text, out);
    }
    const struct block *block = block_find(begin, n);
    if (!block) {
        char known[200] = "";
        size_t used = 0;
        int count;
        const struct block *all = blocks(&count);
        for (int i = 0; i < count && used < 150; i++)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", all[i].name);
        p->at = from;
        return unexpected(p, known);
    }
    p->at++;
    TRY(node_make(p, out));
    (*out)->block = block;
    return block_read(p, *out);
}

/* [WEIGHT*]TERM */
static enum cb_status expression_read(struct parser *p, struct expression **out) {
    double weight = 1;
    if (p->depth >= EXPRESSION_DEPTH) FAIL(p->err, CB_E_LIMIT, "%s: nested deeper than %d", p->what, EXPRESSION_DEPTH);
    p->depth++;
    const bool weighted = weight_read(p, &weight);
    TRY(term_read(p, out));
    if (weighted) (*out)->weight *= weight;
    p->depth--;
    return CB_OK;
}

/* ---- names before the expression */
/* One line, up to stop: NAME=EXPRESSION, or @FIELD=VALUE. A copy is made that ends where the line does. */
static enum cb_status definition_read(struct parser *p, int number, const char *line, const char *stop) {
    const bool is_field = *line == '@';
    struct table *table = is_field ? &p->fields : &p->names;
    struct definition *d = &p->definition[number];
    const char *name;
    p->text = line;
    p->at = line + is_field;
    p->end = stop;
    TRY(word_copy(p, "=,;()\"*", &name, is_field ? "@FIELD=VALUE" : "NAME=MODULE"));
    TRY(expect(p, '=', "'=' after a name"));
    if (!is_field && (block_find(name, strlen(name)) || strcmp(name, "base") == 0 || strchr(name, '/')))
        FAIL(p->err, CB_E_USAGE, "%s: '%s' cannot be a name: wanted one without '/' that is neither base nor a block's", p->what, name);
    if (table_get(table, name, strlen(name)) >= 0) FAIL(p->err, CB_E_USAGE, "%s: the name '%s' twice", p->what, name);
    skip_space(p);
    while (stop > p->at && isspace((unsigned char)stop[-1])) stop--;
    if (!(d->text = arena_strndup(p->arena, p->at, (size_t)(stop - p->at)))) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
    if (is_field) d->field = name;
    return table_put(table, name, strlen(name), number, p->err);
}

/* All lines but the last. */
static enum cb_status definitions_read(struct parser *p) {
    int n = 0;
    for (const char *c = p->text; *c; c++) n += *c == '\n';
    if (n > NAMES_LIMIT) FAIL(p->err, CB_E_LIMIT, "%s: %d names; wanted %d at most", p->what, n, NAMES_LIMIT);
    if (!(p->definition = arena_array(p->arena, (size_t)n + 1, sizeof *p->definition))) FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
    const char *line = p->text;
    p->n_definitions = n;
    for (int i = 0; i < n; i++) {
        const char *stop = strchr(line, '\n');
        TRY(definition_read(p, i, line, stop));
        line = stop + 1;
    }
    p->at = p->text = line;
    p->end = line + strlen(line);
    return CB_OK;
}

/* Weights of sums come down to their children, those of modules become their scales; what a block weighs itself stays. All are within what files may say of
   such numbers (alpha): products of larger ones leave f32. */
static enum cb_status weights_settle(const struct parser *p, struct expression *e, bool is_weighed) {
    const bool passes = e->block && e->block->adds && !is_weighed;
    if (!(fabs(e->weight) <= SCALE_LIMIT))
        FAIL(p->err, CB_E_USAGE, "%s: %s: its weight is %g; wanted -%g to %g", p->what, e->block ? e->block->name : e->name, e->weight,
             SCALE_LIMIT, SCALE_LIMIT);
    for (int i = 0; i < e->n; i++) {
        if (passes) e->child[i]->weight *= e->weight;
        TRY(weights_settle(p, e->child[i], e->block->weighs));
    }
    e->scale = e->block || is_weighed ? 1 : e->weight;
    if (passes || (!e->block && !is_weighed)) e->weight = 1;
    return CB_OK;
}

/* What all rows have, for modules that depend on it. */
static enum cb_status fields_keep(struct parser *p, struct expression *e) {
    if (!(e->fields = arena_array(p->arena, 2 * (size_t)p->n_definitions + 1, sizeof *e->fields)))
        FAIL(p->err, CB_E_MEMORY, "%s: no memory", p->what);
    for (int i = 0; i < p->n_definitions; i++) {
        if (!p->definition[i].field) continue;
        e->fields[2 * e->n_fields] = p->definition[i].field;
        e->fields[2 * e->n_fields++ + 1] = p->definition[i].text;
    }
    return CB_OK;
}

bool expression_is_sum(const struct expression *e) {
    if (e->block && (!e->block->adds || e->block->drops)) return false;
    for (int i = 0; i < e->n; i++)
        if (!expression_is_sum(e->child[i])) return false;
    return true;
}

enum cb_status expression_parse(struct expression **out, struct arena *arena, const char *text, const char *what, struct cb_err *err) {
    struct parser p = {.arena = arena, .err = err, .what = what, .text = text};
    *out = NULL;
    if (strnlen(text, TEXT_LIMIT) == TEXT_LIMIT) FAIL(err, CB_E_LIMIT, "%s: longer than %d bytes", what, TEXT_LIMIT);
    enum cb_status status = definitions_read(&p);
    if (status == CB_OK) status = expression_read(&p, out);
    skip_space(&p);
    if (status == CB_OK && p.at != p.end) status = unexpected(&p, "nothing more");
    if (status == CB_OK) status = fields_keep(&p, *out);
    if (status == CB_OK) status = weights_settle(&p, *out, false);
    table_deinit(&p.names);
    table_deinit(&p.fields);
    if (status != CB_OK) *out = NULL;
    return status;
}
