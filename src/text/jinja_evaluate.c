/* Evaluates Jinja's expressions. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"

typedef enum cb_status evaluate_fn(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node);

static enum cb_status eval_const(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    (void)r;
    *out = node->constant;
    return CB_OK;
}

// A name: the scopes from the innermost, what the caller gave, the globals.
static enum cb_status eval_load(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    const struct jinja_string *name = node->name;
    for (const struct jinja_frame *f = r->frame; f; f = f->parent) {
        TRY(jinja_work(r, f->n));
        for (size_t i = 0; i < f->n; i++) {
            if (f->variable[i].name->n != name->n || memcmp(f->variable[i].name->data, name->data, name->n)) continue;
            *out = f->variable[i].value;
            return CB_OK;
        }
    }
    const struct jinja_value *given = jinja_dict_get(r->context.dict, name);
    TRY(jinja_work(r, r->context.dict->n));
    if (given) return *out = *given, CB_OK;
    const struct jinja_builtin *global = jinja_find_global(name);
    if (global) {
        struct jinja_function *f;
        TRY(jinja_new(r, &f, 1, sizeof *f));
        f->builtin = global;
        *out = (struct jinja_value){.kind = JINJA_FUNCTION, .function = f};
        return CB_OK;
    }
    if (jinja_equals(name, "self")) return *out = (struct jinja_value){.kind = JINJA_SELF}, CB_OK;
    return jinja_undefined(r, out, &(struct jinja_undefined){.name = name});
}

static enum cb_status eval_list(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value list;
    TRY(jinja_new_list(r, &list, node->kind == JINJA_LIST_OF ? JINJA_LIST : JINJA_TUPLE, node->item.n));
    for (size_t i = 0; i < node->item.n; i++) TRY(jinja_evaluate(r, &list.list->item[i], node->item.item[i]));
    *out = list;
    return CB_OK;
}

static enum cb_status eval_dict(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value dict, key, item;
    TRY(jinja_new_dict(r, &dict, JINJA_DICT));
    for (size_t i = 0; i + 1 < node->item.n; i += 2) {
        TRY(jinja_evaluate(r, &key, node->item.item[i]));
        TRY(jinja_evaluate(r, &item, node->item.item[i + 1]));
        TRY(jinja_dict_put(r, dict.dict, &key, &item));
    }
    *out = dict;
    return CB_OK;
}

static enum cb_status eval_not(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    TRY(jinja_evaluate(r, out, node->a));
    *out = jinja_bool(!jinja_truth(out));
    return CB_OK;
}

static enum cb_status eval_sign(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value v;
    TRY(jinja_evaluate(r, &v, node->a));
    return jinja_sign(r, out, &v, node->kind == JINJA_NEGATIVE);
}

static enum cb_status eval_logic(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    TRY(jinja_evaluate(r, out, node->a));
    return jinja_truth(out) == (node->kind == JINJA_OR) ? CB_OK : jinja_evaluate(r, out, node->b);
}

static enum cb_status eval_binary(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value a, b;
    TRY(jinja_evaluate(r, &a, node->a));
    TRY(jinja_evaluate(r, &b, node->b));
    return jinja_operate(r, out, node->op[0], &a, &b);
}

// a < b < c: each pair, until one does not hold.
static enum cb_status eval_compare(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value left, right;
    bool holds = true;
    TRY(jinja_evaluate(r, &left, node->a));
    for (size_t i = 0; i < node->item.n && holds; i++) {
        TRY(jinja_evaluate(r, &right, node->item.item[i]));
        TRY(jinja_compare(r, &holds, node->op[i], &left, &right));
        left = right;
    }
    *out = jinja_bool(holds);
    return CB_OK;
}

static enum cb_status eval_concat(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value v, text;
    TRY(jinja_evaluate(r, &v, node->item.item[0]));
    TRY(jinja_str(r, &text, &v));
    for (size_t i = 1; i < node->item.n; i++) {
        struct jinja_value more;
        TRY(jinja_evaluate(r, &v, node->item.item[i]));
        TRY(jinja_str(r, &more, &v));
        TRY(jinja_append(r, &text, text.string, more.string->data, more.string->n));
    }
    *out = text;
    return CB_OK;
}

static enum cb_status eval_choice(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    TRY(jinja_evaluate(r, out, node->a));
    if (jinja_truth(out)) return jinja_evaluate(r, out, node->b);
    if (node->c) return jinja_evaluate(r, out, node->c);
    return jinja_undefined(
        r, out, &(struct jinja_undefined){.text = "the inline if-expression evaluated to false and no else section was defined."});
}

static enum cb_status eval_attribute(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value of;
    TRY(jinja_evaluate(r, &of, node->a));
    return jinja_attribute(r, out, &of, node->name);
}

static enum cb_status eval_item(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value of, key, part[3] = {{.kind = JINJA_ABSENT}, {.kind = JINJA_ABSENT}, {.kind = JINJA_ABSENT}};
    TRY(jinja_evaluate(r, &of, node->a));
    if (node->b->kind == JINJA_SLICE) {
        const struct jinja_node *parts[3] = {node->b->a, node->b->b, node->b->c};
        for (int i = 0; i < 3; i++)
            if (parts[i]) TRY(jinja_evaluate(r, &part[i], parts[i]));
        return jinja_slice(r, out, &of, part);
    }
    TRY(jinja_evaluate(r, &key, node->b));
    return jinja_item(r, out, &of, &key);
}

// ---- calls

static enum cb_status keywords_add(struct jinja_run *r, struct jinja_args *out, const struct jinja_value *stars) {
    const struct jinja_string **keyword;
    struct jinja_value *value;
    if (stars->kind != JINJA_DICT) JINJA_RAISE(r, "TypeError", "argument after ** must be a mapping, not %s", jinja_type(stars));
    size_t n = out->n_keywords, total = n + stars->dict->n;
    TRY(jinja_new(r, &keyword, total, sizeof *keyword));
    TRY(jinja_new(r, &value, total, sizeof *value));
    for (size_t i = 0; i < total; i++) {
        const struct jinja_value *key = i < n ? NULL : &stars->dict->key[i - n];
        if (key && key->kind != JINJA_STRING) JINJA_RAISE(r, "TypeError", "keywords must be strings");
        keyword[i] = key ? key->string : out->keyword[i];
        value[i] = key ? stars->dict->item[i - n] : out->value[i];
    }
    out->keyword = keyword, out->value = value, out->n_keywords = total;
    return CB_OK;
}

enum cb_status jinja_arguments(struct jinja_run *r, struct jinja_args *out, const struct jinja_call *call) {
    struct jinja_value v, *item, *value;
    struct jinja_list more = {0};
    size_t n = call->arguments.n;
    *out = (struct jinja_args){.n = n, .keyword = call->keyword, .n_keywords = call->values.n};
    TRY(jinja_new(r, &item, n, sizeof *item));
    for (size_t i = 0; i < n; i++) TRY(jinja_evaluate(r, &item[i], call->arguments.item[i]));
    TRY(jinja_new(r, &value, call->values.n, sizeof *value));
    for (size_t i = 0; i < call->values.n; i++) TRY(jinja_evaluate(r, &value[i], call->values.item[i]));
    out->item = item, out->value = value;
    if (call->star) {
        TRY(jinja_evaluate(r, &v, call->star));
        TRY(jinja_items(r, &more, &v));
        TRY(jinja_new(r, &item, n + more.n, sizeof *item));
        if (n) memcpy(item, out->item, n * sizeof *item);
        if (more.n) memcpy(item + n, more.item, more.n * sizeof *item);
        out->item = item, out->n = n + more.n;
    }
    if (!call->stars) return CB_OK;
    TRY(jinja_evaluate(r, &v, call->stars));
    return keywords_add(r, out, &v);
}

static enum cb_status eval_call(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value f;
    struct jinja_args args;
    TRY(jinja_evaluate(r, &f, node->a));
    if (f.kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, &f);
    TRY(jinja_arguments(r, &args, node->call));
    r->line = node->line;
    return jinja_call_value(r, out, &f, &args);
}

static enum cb_status apply(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node, const struct jinja_value *self) {
    struct jinja_args args;
    if (!node->builtin)
        JINJA_RAISE(r, "TemplateRuntimeError", "No %s named '%.*s' found.", node->kind == JINJA_TEST ? "test" : "filter",
                    (int)node->name->n, node->name->data);
    TRY(jinja_arguments(r, &args, node->call));
    r->line = node->line;
    return jinja_call_builtin(r, out, node->builtin, self, &args);
}

static enum cb_status eval_filter(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    struct jinja_value self;
    TRY(jinja_evaluate(r, &self, node->a));
    return apply(r, out, node, &self);
}

enum cb_status jinja_filter_chain(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *filter,
                                  const struct jinja_value *captured) {
    struct jinja_value self = *captured;
    TRY(jinja_enter(r));
    if (filter->a) TRY(jinja_filter_chain(r, &self, filter->a, captured));
    r->depth--;
    return apply(r, out, filter, &self);
}

static evaluate_fn *const evaluators[JINJA_NODE_KINDS] = {
    [JINJA_CONST] = eval_const,   [JINJA_LOAD] = eval_load,     [JINJA_LIST_OF] = eval_list,        [JINJA_TUPLE_OF] = eval_list,
    [JINJA_DICT_OF] = eval_dict,  [JINJA_NOT] = eval_not,       [JINJA_NEGATIVE] = eval_sign,       [JINJA_POSITIVE] = eval_sign,
    [JINJA_AND] = eval_logic,     [JINJA_OR] = eval_logic,      [JINJA_BINARY] = eval_binary,       [JINJA_COMPARE] = eval_compare,
    [JINJA_CONCAT] = eval_concat, [JINJA_CHOICE] = eval_choice, [JINJA_ATTRIBUTE] = eval_attribute, [JINJA_ITEM] = eval_item,
    [JINJA_CALL] = eval_call,     [JINJA_FILTER] = eval_filter, [JINJA_TEST] = eval_filter};

enum cb_status jinja_evaluate(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node) {
    TRY(jinja_enter(r));
    TRY(jinja_work(r, 2));
    r->line = node->line;
    TRY(evaluators[node->kind](r, out, node));
    r->depth--;
    return CB_OK;
}
