/* Runs Jinja's statements: output, scopes, loops, macros; and the whole rendering. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"

typedef enum cb_status statement_fn(struct jinja_run *r, const struct jinja_node *node);

static enum cb_status run_body(struct jinja_run *r, const struct jinja_body *body);

struct jinja_loop {
    const struct jinja_node *node;
    struct jinja_frame *frame;  // around the loop
    struct jinja_list items;
    size_t at;
    int depth;  // of recursion, from 0
    struct jinja_value changed;  // what loop.changed saw last: a tuple
};

// ---- scopes

static enum cb_status scope_open(struct jinja_run *r, struct jinja_frame *parent) {
    struct jinja_frame *frame;
    TRY(jinja_new(r, &frame, 1, sizeof *frame));
    frame->parent = parent;
    r->frame = frame;
    return CB_OK;
}

enum cb_status jinja_set(struct jinja_run *r, const struct jinja_string *name, const struct jinja_value *v) {
    struct jinja_frame *f = r->frame;
    TRY(jinja_work(r, f->n));
    for (size_t i = 0; i < f->n; i++) {
        if (f->variable[i].name->n != name->n || memcmp(f->variable[i].name->data, name->data, name->n)) continue;
        f->variable[i].value = *v;
        return CB_OK;
    }
    if (f->n == f->capacity) {
        struct jinja_variable *more;
        f->capacity = f->n ? 2 * f->n : 4;
        TRY(jinja_new(r, &more, f->capacity, sizeof *more));
        if (f->n) memcpy(more, f->variable, f->n * sizeof *more);
        f->variable = more;
    }
    f->variable[f->n++] = (struct jinja_variable){name, *v};
    return CB_OK;
}

// A value into a target: a name, a tuple of targets, or an attribute of a namespace.
static enum cb_status assign(struct jinja_run *r, const struct jinja_node *target, const struct jinja_value *v) {
    struct jinja_list items;
    if (target->kind == JINJA_LOAD) return jinja_set(r, target->name, v);
    if (target->kind == JINJA_ATTRIBUTE) {
        struct jinja_value space, key = jinja_of(target->name);
        TRY(jinja_evaluate(r, &space, target->a));
        if (space.kind != JINJA_NAMESPACE) JINJA_RAISE(r, "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
        return jinja_dict_put(r, space.dict, &key, v);
    }
    size_t n = target->item.n;
    if (v->kind != JINJA_UNDEFINED && v->kind != JINJA_ITERATOR && jinja_length(v) == SIZE_MAX)
        JINJA_RAISE(r, "TypeError", "cannot unpack non-iterable %s object", jinja_type(v));
    TRY(jinja_items(r, &items, v));
    if (items.n > n) JINJA_RAISE(r, "ValueError", "too many values to unpack (expected %zu)", n);
    if (items.n < n) JINJA_RAISE(r, "ValueError", "not enough values to unpack (expected %zu, got %zu)", n, items.n);
    for (size_t i = 0; i < n; i++) TRY(assign(r, target->item.item[i], &items.item[i]));
    return CB_OK;
}

// ---- captured output: it stands at the end of the text until it is taken away

struct capture {
    size_t mark;
    bool outermost;
};
static struct capture capture_begin(struct jinja_run *r) {
    struct capture c = {r->out.n, r->capture == SIZE_MAX};
    if (c.outermost) r->capture = c.mark;
    return c;
}
static enum cb_status capture_end(struct jinja_run *r, struct jinja_value *out, struct capture c) {
    TRY(jinja_text(r, out, r->out.data ? r->out.data + c.mark : "", r->out.n - c.mark));
    r->out.n = c.mark;
    if (c.outermost) r->capture = SIZE_MAX;
    return CB_OK;
}
// A body in a scope of its own, its output as a string.
static enum cb_status capture_body(struct jinja_run *r, struct jinja_value *out, const struct jinja_body *body,
                                   struct jinja_frame *parent) {
    struct jinja_frame *before = r->frame;
    struct capture c = capture_begin(r);
    TRY(scope_open(r, parent));
    TRY(run_body(r, body));
    r->frame = before;
    return capture_end(r, out, c);
}

// ---- loops

static enum cb_status kept_items(struct jinja_run *r, struct jinja_list *items, const struct jinja_node *node) {
    struct jinja_items kept = {0};
    struct jinja_frame *before = r->frame;
    TRY(scope_open(r, before));
    for (size_t i = 0; i < items->n; i++) {
        struct jinja_value keep;
        r->frame->n = 0;
        TRY(assign(r, node->a, &items->item[i]));
        TRY(jinja_evaluate(r, &keep, node->c));
        if (jinja_truth(&keep)) TRY(jinja_push(r, &kept, &items->item[i]));
    }
    r->frame = before;
    *items = (struct jinja_list){.item = kept.item, .n = kept.n};
    return CB_OK;
}

static enum cb_status run_loop(struct jinja_run *r, const struct jinja_node *node, const struct jinja_value *over, int depth) {
    static const struct jinja_string name = {.data = "loop", .n = 4, .points = 4};
    struct jinja_frame *before = r->frame;
    struct jinja_loop *loop;
    bool whole = false;
    TRY(jinja_new(r, &loop, 1, sizeof *loop));
    *loop = (struct jinja_loop){.node = node, .frame = before, .depth = depth};
    TRY(jinja_items(r, &loop->items, over));
    if (node->c) TRY(kept_items(r, &loop->items, node));
    struct jinja_value v = {.kind = JINJA_LOOP, .loop = loop};
    // one scope, emptied for each item
    TRY(scope_open(r, before));
    for (; loop->at < loop->items.n && r->signal != JINJA_BREAKS; loop->at++) {
        r->signal = JINJA_GO_ON;
        r->frame->n = 0;
        TRY(jinja_set(r, &name, &v));
        TRY(assign(r, node->a, &loop->items.item[loop->at]));
        TRY(run_body(r, &node->body));
        whole |= r->signal == JINJA_GO_ON;
    }
    r->signal = JINJA_GO_ON;
    r->frame = before;
    // else: no item, or, in the reference, none whose body ran to its end
    if (whole) return CB_OK;
    TRY(scope_open(r, before));
    TRY(run_body(r, &node->other));
    r->frame = before;
    return CB_OK;
}

static enum cb_status run_for(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value over;
    TRY(jinja_evaluate(r, &over, node->b));
    return run_loop(r, node, &over, 0);
}

enum cb_status jinja_call_loop(struct jinja_run *r, struct jinja_value *out, struct jinja_loop *loop, const struct jinja_args *args) {
    if (!loop->node->recursive) JINJA_RAISE(r, "TypeError", "The loop must have the 'recursive' marker to be called recursively.");
    if (args->n != 1 || args->n_keywords) JINJA_RAISE(r, "TypeError", "loop() got %zu arguments; wanted 1", args->n + args->n_keywords);
    struct jinja_frame *before = r->frame;
    struct capture c = capture_begin(r);
    r->frame = loop->frame;
    TRY(run_loop(r, loop->node, &args->item[0], loop->depth + 1));
    r->frame = before;
    return capture_end(r, out, c);
}

static enum cb_status loop_cycle(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self,
                                 const struct jinja_args *args) {
    if (!args->n) JINJA_RAISE(r, "TypeError", "no items for cycling given");
    *out = args->item[self->loop->at % args->n];
    return CB_OK;
}

static enum cb_status loop_changed(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self,
                                   const struct jinja_args *args) {
    struct jinja_value now;
    bool same = false;
    TRY(jinja_new_list(r, &now, JINJA_TUPLE, args->n));
    if (args->n) memcpy(now.list->item, args->item, args->n * sizeof *args->item);
    if (self->loop->changed.kind == JINJA_TUPLE) TRY(jinja_is_equal(r, &same, &now, &self->loop->changed));
    self->loop->changed = now;
    *out = jinja_bool(!same);
    return CB_OK;
}

enum cb_status jinja_loop_attribute(struct jinja_run *r, struct jinja_value *out, struct jinja_loop *loop,
                                    const struct jinja_string *name) {
    static const struct jinja_builtin methods[] = {{"cycle", loop_cycle, NULL}, {"changed", loop_changed, NULL}, {0}};
    const struct jinja_builtin *method = jinja_find_builtin(methods, name);
    jinja_integer at = (jinja_integer)loop->at, n = (jinja_integer)loop->items.n;
    const struct {
        const char *name;
        struct jinja_value value;
    } fields[] = {{"index", jinja_int(at + 1)},      {"index0", jinja_int(at)},
                  {"revindex", jinja_int(n - at)},   {"revindex0", jinja_int(n - at - 1)},
                  {"first", jinja_bool(at == 0)},    {"last", jinja_bool(at + 1 == n)},
                  {"length", jinja_int(n)},          {"depth", jinja_int(loop->depth + 1)},
                  {"depth0", jinja_int(loop->depth)}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (jinja_equals(name, fields[i].name)) return *out = fields[i].value, CB_OK;
    bool previous = jinja_equals(name, "previtem"), next = jinja_equals(name, "nextitem");
    if (previous && at > 0) return *out = loop->items.item[at - 1], CB_OK;
    if (next && at + 1 < n) return *out = loop->items.item[at + 1], CB_OK;
    if (previous) return jinja_undefined(r, out, &(struct jinja_undefined){.text = "there is no previous item"});
    if (next) return jinja_undefined(r, out, &(struct jinja_undefined){.text = "there is no next item"});
    if (!method) return jinja_undefined(r, out, &(struct jinja_undefined){.name = name, .owner = JINJA_LOOP});
    struct jinja_function *f;
    TRY(jinja_new(r, &f, 1, sizeof *f));
    f->builtin = method;
    f->self = (struct jinja_value){.kind = JINJA_LOOP, .loop = loop};
    *out = (struct jinja_value){.kind = JINJA_FUNCTION, .function = f};
    return CB_OK;
}

// ---- macros

static enum cb_status new_closure(struct jinja_run *r, struct jinja_value *out, const struct jinja_macro *m) {
    struct jinja_closure *c;
    TRY(jinja_new(r, &c, 1, sizeof *c));
    c->macro = m;
    c->frame = r->frame;
    *out = (struct jinja_value){.kind = JINJA_MACRO_VALUE, .closure = c};
    return CB_OK;
}

// The value of parameter i: a positional argument, a keyword, its default, or undefined.
static enum cb_status bind_parameter(struct jinja_run *r, const struct jinja_macro *m, size_t i, const struct jinja_args *args,
                                     size_t *n_keywords) {
    const struct jinja_string *name = m->parameter[i];
    struct jinja_value v = {.kind = JINJA_ABSENT};
    size_t first_default = m->n_parameters - m->defaults.n;
    if (i < args->n) v = args->item[i];
    for (size_t k = 0; k < args->n_keywords; k++) {
        if (args->keyword[k]->n != name->n || memcmp(args->keyword[k]->data, name->data, name->n)) continue;
        if (v.kind != JINJA_ABSENT)
            JINJA_RAISE(r, "TypeError", "macro '%.*s' got multiple values for argument '%.*s'", (int)m->name->n, m->name->data,
                        (int)name->n, name->data);
        v = args->value[k];
        ++*n_keywords;
    }
    if (v.kind == JINJA_ABSENT && i >= first_default) TRY(jinja_evaluate(r, &v, m->defaults.item[i - first_default]));
    if (v.kind == JINJA_ABSENT) {
        char *text = arena_printf(r->arena, "parameter '%.*s' was not provided", (int)name->n, name->data);
        if (!text) FAIL(r->err, CB_E_MEMORY, "rendering: out of memory");
        TRY(jinja_undefined(r, &v, &(struct jinja_undefined){.text = text}));
    }
    return jinja_set(r, name, &v);
}

static bool is_parameter(const struct jinja_macro *m, const struct jinja_string *name) {
    for (size_t i = 0; i < m->n_parameters; i++)
        if (m->parameter[i]->n == name->n && !memcmp(m->parameter[i]->data, name->data, name->n)) return true;
    return false;
}

// What no parameter takes: varargs, kwargs, caller.
static enum cb_status bind_rest(struct jinja_run *r, const struct jinja_macro *m, const struct jinja_args *args, size_t n_keywords) {
    static const struct jinja_string varargs = {.data = "varargs", .n = 7, .points = 7}, kwargs = {.data = "kwargs", .n = 6, .points = 6},
                                     caller = {.data = "caller", .n = 6, .points = 6};
    struct jinja_value rest, dict, called = {.kind = JINJA_ABSENT};
    size_t extra = args->n > m->n_parameters ? args->n - m->n_parameters : 0;
    if (extra && !m->takes_varargs)
        JINJA_RAISE(r, "TypeError", "macro '%.*s' takes not more than %zu argument(s)", (int)m->name->n, m->name->data, m->n_parameters);
    TRY(jinja_new_list(r, &rest, JINJA_TUPLE, extra));
    if (extra) memcpy(rest.list->item, args->item + m->n_parameters, extra * sizeof *args->item);
    TRY(jinja_new_dict(r, &dict, JINJA_DICT));
    for (size_t k = 0; k < args->n_keywords && n_keywords < args->n_keywords; k++) {
        struct jinja_value key = jinja_of(args->keyword[k]);
        if (is_parameter(m, args->keyword[k])) continue;
        if (m->takes_caller && jinja_equals(args->keyword[k], "caller"))
            called = args->value[k];
        else if (m->takes_kwargs)
            TRY(jinja_dict_put(r, dict.dict, &key, &args->value[k]));
        else
            JINJA_RAISE(r, "TypeError", "macro '%.*s' takes no keyword argument '%.*s'", (int)m->name->n, m->name->data,
                        (int)args->keyword[k]->n, args->keyword[k]->data);
    }
    if (m->takes_varargs) TRY(jinja_set(r, &varargs, &rest));
    if (m->takes_kwargs) TRY(jinja_set(r, &kwargs, &dict));
    if (!m->takes_caller || is_parameter(m, &caller)) return CB_OK;
    // a caller within a caller is that of the macro around it
    if (called.kind == JINJA_ABSENT && jinja_equals(m->name, "caller")) return CB_OK;
    if (called.kind == JINJA_ABSENT) TRY(jinja_undefined(r, &called, &(struct jinja_undefined){.text = "No caller defined"}));
    return jinja_set(r, &caller, &called);
}

enum cb_status jinja_call_macro(struct jinja_run *r, struct jinja_value *out, const struct jinja_closure *c,
                                const struct jinja_args *args) {
    struct jinja_frame *before = r->frame;
    struct capture capture = capture_begin(r);
    size_t n_keywords = 0;
    TRY(jinja_enter(r));
    TRY(scope_open(r, c->frame));
    for (size_t i = 0; i < c->macro->n_parameters; i++) TRY(bind_parameter(r, c->macro, i, args, &n_keywords));
    TRY(bind_rest(r, c->macro, args, n_keywords));
    TRY(run_body(r, &c->macro->body));
    r->frame = before;
    r->depth--;
    return capture_end(r, out, capture);
}

static enum cb_status run_macro(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value v;
    TRY(new_closure(r, &v, node->macro));
    return jinja_set(r, node->macro->name, &v);
}

static enum cb_status run_call_block(struct jinja_run *r, const struct jinja_node *node) {
    static const struct jinja_string name = {.data = "caller", .n = 6, .points = 6};
    struct jinja_value f, text, *value;
    const struct jinja_string **keyword;
    struct jinja_args args;
    TRY(jinja_evaluate(r, &f, node->a->a));
    TRY(jinja_arguments(r, &args, node->a->call));
    size_t n = args.n_keywords;
    TRY(jinja_new(r, &keyword, n + 1, sizeof *keyword));
    TRY(jinja_new(r, &value, n + 1, sizeof *value));
    if (n) memcpy(keyword, args.keyword, n * sizeof *keyword), memcpy(value, args.value, n * sizeof *value);
    keyword[n] = &name;
    TRY(new_closure(r, &value[n], node->macro));
    args.keyword = keyword, args.value = value, args.n_keywords = n + 1;
    TRY(jinja_call_value(r, &text, &f, &args));
    return jinja_put_str(r, &r->out, &text);
}

// ---- the other statements

static enum cb_status run_output(struct jinja_run *r, const struct jinja_node *node) {
    return jinja_put(r, &r->out, node->name->data, node->name->n);
}

static enum cb_status run_print(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value v;
    TRY(jinja_evaluate(r, &v, node->a));
    return jinja_put_str(r, &r->out, &v);
}

static enum cb_status run_if(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value v;
    while (true) {
        TRY(jinja_evaluate(r, &v, node->a));
        if (jinja_truth(&v)) return run_body(r, &node->body);
        // elif: a chain, not a tower
        if (node->other.n != 1 || node->other.item[0]->kind != JINJA_IF) return run_body(r, &node->other);
        node = node->other.item[0];
    }
}

static enum cb_status run_set(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value v;
    TRY(jinja_evaluate(r, &v, node->b));
    return assign(r, node->a, &v);
}

static enum cb_status run_set_block(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value v;
    TRY(capture_body(r, &v, &node->body, r->frame));
    if (node->b) TRY(jinja_filter_chain(r, &v, node->b, &v));
    return assign(r, node->a, &v);
}

static enum cb_status run_filter_block(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_value v;
    TRY(capture_body(r, &v, &node->body, r->frame));
    TRY(jinja_filter_chain(r, &v, node->b, &v));
    return jinja_put_str(r, &r->out, &v);
}

static enum cb_status run_with(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_frame *before = r->frame;
    struct jinja_value *value;
    TRY(jinja_new(r, &value, node->item.n / 2, sizeof *value));
    // all values are seen from outside
    for (size_t i = 0; i + 1 < node->item.n; i += 2) TRY(jinja_evaluate(r, &value[i / 2], node->item.item[i + 1]));
    TRY(scope_open(r, before));
    for (size_t i = 0; i + 1 < node->item.n; i += 2) TRY(assign(r, node->item.item[i], &value[i / 2]));
    TRY(run_body(r, &node->body));
    r->frame = before;
    return CB_OK;
}

static enum cb_status run_scope(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_frame *before = r->frame;
    TRY(scope_open(r, before));
    TRY(run_body(r, &node->body));
    r->frame = before;
    return CB_OK;
}

static enum cb_status run_jump(struct jinja_run *r, const struct jinja_node *node) {
    r->signal = node->kind == JINJA_BREAK ? JINJA_BREAKS : JINJA_CONTINUES;
    return CB_OK;
}

/* A span begins where the text outside all captures ends: inside a macro or set block that is where its output will stand at the earliest, as in the
   reference. */
static enum cb_status run_generation(struct jinja_run *r, const struct jinja_node *node) {
    struct jinja_frame *before = r->frame;
    size_t mark = r->out.n, begin = r->capture == SIZE_MAX ? mark : r->capture;
    TRY(scope_open(r, before));
    TRY(run_body(r, &node->macro->body));
    r->frame = before;
    struct jinja_output *o = r->spans;
    TRY(buffer_grow((void **)&o->span, &o->capacity, o->n_spans + 1, sizeof *o->span, r->err));
    o->span[o->n_spans++] = (struct jinja_span){begin, begin + r->out.n - mark};
    return CB_OK;
}

static enum cb_status run_loader(struct jinja_run *r, const struct jinja_node *node) {
    (void)node;
    JINJA_RAISE(r, "TypeError", "no loader for this environment specified");
}

static statement_fn *const statements[JINJA_NODE_KINDS] = {[JINJA_OUTPUT] = run_output,
                                                           [JINJA_PRINT] = run_print,
                                                           [JINJA_IF] = run_if,
                                                           [JINJA_FOR] = run_for,
                                                           [JINJA_SET] = run_set,
                                                           [JINJA_SET_BLOCK] = run_set_block,
                                                           [JINJA_MACRO] = run_macro,
                                                           [JINJA_CALL_BLOCK] = run_call_block,
                                                           [JINJA_FILTER_BLOCK] = run_filter_block,
                                                           [JINJA_WITH] = run_with,
                                                           [JINJA_SCOPE] = run_scope,
                                                           [JINJA_BREAK] = run_jump,
                                                           [JINJA_CONTINUE] = run_jump,
                                                           [JINJA_GENERATION] = run_generation,
                                                           [JINJA_LOADER] = run_loader};

static enum cb_status run_body(struct jinja_run *r, const struct jinja_body *body) {
    TRY(jinja_enter(r));
    for (size_t i = 0; i < body->n && r->signal == JINJA_GO_ON; i++) {
        TRY(jinja_work(r, 2));
        r->line = body->item[i]->line;
        TRY(statements[body->item[i]->kind](r, body->item[i]));
    }
    r->depth--;
    return CB_OK;
}

// ---- the whole

void jinja_output_deinit(struct jinja_output *output) {
    free(output->text);
    free(output->span);
    *output = (struct jinja_output){0};
}

static enum cb_status render(struct jinja_run *r, const json_t *variables) {
    if (!json_is_object(variables)) FAIL(r->err, CB_E_ARGUMENT, "the variables are no JSON object");
    TRY(jinja_from_json(r, &r->context, variables));
    TRY(scope_open(r, NULL));
    TRY(run_body(r, &r->jinja->body));
    return buffer_reserve(&r->out, 1, r->err);
}

enum cb_status jinja_render(struct jinja_output *out, const struct jinja *jinja, const json_t *variables,
                            const struct jinja_options *options, struct cb_err *err) {
    static const struct jinja_options defaults = {0};
    const struct jinja_options *o = options ? options : &defaults;
    jinja_output_deinit(out);
    struct cb_err own = {0};
    struct jinja_run r = {.jinja = jinja, .err = err ? err : &own, .capture = SIZE_MAX, .spans = out, .now = o->now, .line = 1};
    r.max_work = o->max_work ? o->max_work : 1000000000;
    r.max_bytes = o->max_bytes ? o->max_bytes : (size_t)256 << 20;
    r.max_output = o->max_output ? o->max_output : (size_t)64 << 20;
    r.arena = arena_create();
    enum cb_status status = r.arena ? render(&r, variables) : err_set(r.err, CB_E_MEMORY, __FILE__, __LINE__, "rendering: out of memory");
    arena_destroy(&r.arena);
    if (status == CB_OK) {
        out->text = r.out.data;
        out->n = r.out.n;
        out->text[out->n] = 0;
        return CB_OK;
    }
    free(r.out.data);
    jinja_output_deinit(out);
    if (status != CB_E_MEMORY) err_prefix(r.err, "%s: line %d", jinja->name, r.line);
    return status;
}
