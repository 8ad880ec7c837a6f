/* Jinja's statements: the blocks of a template to a tree. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"

static enum cb_status parse_body(struct jinja_parser *p, struct jinja_body *body, const char *const *ends, const char *what);

static enum cb_status make(struct jinja_parser *p, struct jinja_node **out, enum jinja_node_kind kind) {
    *out = jinja_node(p, kind);
    if (!*out) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    return CB_OK;
}

static enum cb_status block_end(struct jinja_parser *p) {
    char text[64];
    if (p->token->kind == JINJA_END) JINJA_SYNTAX(p, "unexpected end of template, expected 'end of statement block'.");
    if (p->token->kind != JINJA_BLOCK_END)
        JINJA_SYNTAX(p, "expected token 'end of statement block', got '%s'", jinja_token_text(p->token, text));
    p->token++;
    return CB_OK;
}

// The rest of a tag, a body, and its end tag (the name of which is left as the current token where several may end it).
static enum cb_status block(struct jinja_parser *p, struct jinja_body *body, const char *end, const char *what) {
    TRY(block_end(p));
    TRY(parse_body(p, body, (const char *const[]){end, NULL}, what));
    p->token++;
    return block_end(p);
}

// ---- statements, each from the token after its name

static enum cb_status parse_if(struct jinja_parser *p, struct jinja_node **out) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    bool soft = p->soft;
    struct jinja_node *node;
    TRY(make(p, out, JINJA_IF));
    for (node = *out;; node = node->other.item[0]) {
        TRY(jinja_parse_tuple(p, &node->a, false, false));
        TRY(block_end(p));
        p->soft = true;
        TRY(parse_body(p, &node->body, ends, "if"));
        if (!jinja_skip_name(p, "elif")) break;
        struct jinja_node *next;
        TRY(make(p, &next, JINJA_IF));
        TRY(jinja_body_add(p, &node->other, next));
    }
    if (jinja_skip_name(p, "else"))
        TRY(block(p, &node->other, "endif", "if"));
    else {
        p->token++;
        TRY(block_end(p));
    }
    p->soft = soft;
    return CB_OK;
}

static enum cb_status parse_for(struct jinja_parser *p, struct jinja_node **out) {
    static const char *const ends[] = {"endfor", "else", NULL};
    char text[64];
    bool soft = p->soft;
    struct jinja_node *node;
    TRY(make(p, &node, JINJA_FOR));
    TRY(jinja_parse_target(p, &node->a, false));
    if (!jinja_skip_name(p, "in")) JINJA_SYNTAX(p, "expected token 'in', got '%s'", jinja_token_text(p->token, text));
    TRY(jinja_parse_tuple(p, &node->b, false, false));
    p->soft = false;
    if (jinja_skip_name(p, "if")) TRY(jinja_parse_expression(p, &node->c));
    node->recursive = jinja_skip_name(p, "recursive");
    TRY(block_end(p));
    p->loops++;
    TRY(parse_body(p, &node->body, ends, "for"));
    p->loops--;
    if (jinja_skip_name(p, "else"))
        TRY(block(p, &node->other, "endfor", "for"));
    else {
        p->token++;
        TRY(block_end(p));
    }
    p->soft = soft;
    *out = node;
    return CB_OK;
}

static enum cb_status parse_set(struct jinja_parser *p, struct jinja_node **out) {
    bool soft = p->soft;
    TRY(make(p, out, JINJA_SET));
    TRY(jinja_parse_target(p, &(*out)->a, true));
    if (jinja_skip_operator(p, "=")) {
        TRY(jinja_parse_tuple(p, &(*out)->b, true, false));
        return block_end(p);
    }
    (*out)->kind = JINJA_SET_BLOCK;
    TRY(jinja_parse_filters(p, &(*out)->b, false));
    p->soft = false;
    int loops = p->loops;
    TRY(block(p, &(*out)->body, "endset", "set"));
    p->loops = loops;
    p->soft = soft;
    return CB_OK;
}

// (a, b=1): the parameters of a macro or of a call block's caller.
static enum cb_status parse_parameters(struct jinja_parser *p, struct jinja_macro *m) {
    TRY(jinja_expect_operator(p, "("));
    struct jinja_node *value;
    while (!jinja_at_operator(p, ")")) {
        if (m->n_parameters) TRY(jinja_expect_operator(p, ","));
        if (m->n_parameters == 64) FAIL(p->err, CB_E_LIMIT, "TemplateSyntaxError: over 64 parameters");
        if (!m->parameter) m->parameter = arena_array(p->arena, 64, sizeof *m->parameter);
        if (!m->parameter) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
        TRY(jinja_expect_name(p, &m->parameter[m->n_parameters++]));
        if (jinja_skip_operator(p, "=")) {
            TRY(jinja_parse_expression(p, &value));
            TRY(jinja_body_add(p, &m->defaults, value));
        } else if (m->defaults.n) {
            JINJA_SYNTAX(p, "non-default argument follows default argument");
        }
    }
    p->token++;
    return CB_OK;
}

// Parameters (where there are any), body and end of a macro.
static enum cb_status parse_macro_rest(struct jinja_parser *p, struct jinja_macro *m, const char *end, const char *what) {
    bool varargs = p->uses_varargs, kwargs = p->uses_kwargs, caller = p->uses_caller, soft = p->soft;
    int loops = p->loops;
    p->uses_varargs = p->uses_kwargs = p->uses_caller = p->soft = false;
    p->loops = 0;
    TRY(block(p, &m->body, end, what));
    m->takes_varargs = p->uses_varargs, m->takes_kwargs = p->uses_kwargs, m->takes_caller = p->uses_caller;
    p->uses_varargs |= varargs, p->uses_kwargs |= kwargs, p->uses_caller |= caller;
    p->soft = soft;
    p->loops = loops;
    return CB_OK;
}

static enum cb_status new_macro(struct jinja_parser *p, struct jinja_node *node) {
    static const struct jinja_string caller = {.data = "caller", .n = 6, .points = 6};
    node->macro = arena_alloc(p->arena, sizeof *node->macro);
    if (!node->macro) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    node->macro->name = &caller;
    return CB_OK;
}

static enum cb_status parse_macro(struct jinja_parser *p, struct jinja_node **out) {
    TRY(make(p, out, JINJA_MACRO));
    TRY(new_macro(p, *out));
    TRY(jinja_expect_name(p, &(*out)->macro->name));
    TRY(parse_parameters(p, (*out)->macro));
    return parse_macro_rest(p, (*out)->macro, "endmacro", "macro");
}

static enum cb_status parse_call_block(struct jinja_parser *p, struct jinja_node **out) {
    TRY(make(p, out, JINJA_CALL_BLOCK));
    TRY(new_macro(p, *out));
    if (jinja_at_operator(p, "(")) TRY(parse_parameters(p, (*out)->macro));
    TRY(jinja_parse_expression(p, &(*out)->a));
    if ((*out)->a->kind != JINJA_CALL) JINJA_SYNTAX(p, "expected call");
    return parse_macro_rest(p, (*out)->macro, "endcall", "call");
}

static enum cb_status parse_generation(struct jinja_parser *p, struct jinja_node **out) {
    TRY(make(p, out, JINJA_GENERATION));
    TRY(new_macro(p, *out));
    p->marks_generation = true;
    return parse_macro_rest(p, (*out)->macro, "endgeneration", "generation");
}

static enum cb_status parse_filter_block(struct jinja_parser *p, struct jinja_node **out) {
    bool soft = p->soft;
    TRY(make(p, out, JINJA_FILTER_BLOCK));
    TRY(jinja_parse_filters(p, &(*out)->b, true));
    p->soft = false;
    TRY(block(p, &(*out)->body, "endfilter", "filter"));
    p->soft = soft;
    return CB_OK;
}

static enum cb_status parse_with(struct jinja_parser *p, struct jinja_node **out) {
    struct jinja_node *target, *value;
    bool soft = p->soft;
    TRY(make(p, out, JINJA_WITH));
    while (p->token->kind != JINJA_BLOCK_END) {
        if ((*out)->item.n) TRY(jinja_expect_operator(p, ","));
        TRY(jinja_parse_primary(p, &target));
        if (target->kind != JINJA_LOAD) JINJA_SYNTAX(p, "can't assign to this expression");
        TRY(jinja_expect_operator(p, "="));
        TRY(jinja_parse_expression(p, &value));
        TRY(jinja_body_add(p, &(*out)->item, target));
        TRY(jinja_body_add(p, &(*out)->item, value));
    }
    p->soft = false;
    TRY(block(p, &(*out)->body, "endwith", "with"));
    p->soft = soft;
    return CB_OK;
}

static enum cb_status parse_scope(struct jinja_parser *p, struct jinja_node **out, const char *end, const char *what) {
    struct jinja_node *ignored;
    const struct jinja_string *name;
    TRY(make(p, out, JINJA_SCOPE));
    if (!strcmp(what, "block"))
        TRY(jinja_expect_name(p, &name));
    else
        TRY(jinja_parse_expression(p, &ignored));
    TRY(block_end(p));
    TRY(parse_body(p, &(*out)->body, (const char *const[]){end, NULL}, what));
    p->token++;
    if (!strcmp(what, "block") && p->token->kind == JINJA_NAME) p->token++;
    return block_end(p);
}
static enum cb_status parse_block(struct jinja_parser *p, struct jinja_node **out) { return parse_scope(p, out, "endblock", "block"); }
static enum cb_status parse_autoescape(struct jinja_parser *p, struct jinja_node **out) {
    return parse_scope(p, out, "endautoescape", "autoescape");
}

static enum cb_status parse_print(struct jinja_parser *p, struct jinja_node **out) {
    TRY(make(p, out, JINJA_PRINT));
    TRY(jinja_parse_tuple(p, &(*out)->a, true, false));
    return block_end(p);
}

static enum cb_status parse_jump(struct jinja_parser *p, struct jinja_node **out, enum jinja_node_kind kind) {
    if (!p->loops) JINJA_SYNTAX(p, "'%s' outside loop", kind == JINJA_BREAK ? "break" : "continue");
    TRY(make(p, out, kind));
    return block_end(p);
}
static enum cb_status parse_break(struct jinja_parser *p, struct jinja_node **out) { return parse_jump(p, out, JINJA_BREAK); }
static enum cb_status parse_continue(struct jinja_parser *p, struct jinja_node **out) { return parse_jump(p, out, JINJA_CONTINUE); }

// What would load another template: refused when it is reached, as an environment without a loader does.
static enum cb_status parse_loader(struct jinja_parser *p, struct jinja_node **out) {
    struct jinja_node *ignored;
    TRY(make(p, out, JINJA_LOADER));
    TRY(jinja_parse_expression(p, &ignored));
    while (p->token->kind != JINJA_BLOCK_END && p->token->kind != JINJA_END) p->token++;
    return block_end(p);
}

static const struct {
    const char *name;
    enum cb_status (*parse)(struct jinja_parser *p, struct jinja_node **out);
} statements[] = {{"if", parse_if},
                  {"for", parse_for},
                  {"set", parse_set},
                  {"macro", parse_macro},
                  {"call", parse_call_block},
                  {"filter", parse_filter_block},
                  {"with", parse_with},
                  {"block", parse_block},
                  {"autoescape", parse_autoescape},
                  {"print", parse_print},
                  {"break", parse_break},
                  {"continue", parse_continue},
                  {"generation", parse_generation},
                  {"include", parse_loader},
                  {"extends", parse_loader},
                  {"import", parse_loader},
                  {"from", parse_loader}};

static enum cb_status parse_statement(struct jinja_parser *p, struct jinja_node **out) {
    char text[64];
    if (p->token->kind != JINJA_NAME) JINJA_SYNTAX(p, "tag name expected");
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        if (!jinja_skip_name(p, statements[i].name)) continue;
        if (++p->nesting > JINJA_MAX_NESTING) FAIL(p->err, CB_E_LIMIT, "TemplateSyntaxError: nested over %d deep", JINJA_MAX_NESTING);
        TRY(statements[i].parse(p, out));
        p->nesting--;
        return CB_OK;
    }
    JINJA_SYNTAX(p, "Encountered unknown tag '%s'.", jinja_token_text(p->token, text));
}

static enum cb_status parse_output(struct jinja_parser *p, struct jinja_body *body) {
    struct jinja_node *node;
    char text[64];
    bool is_data = p->token->kind == JINJA_DATA;
    TRY(make(p, &node, is_data ? JINJA_OUTPUT : JINJA_PRINT));
    if (is_data) {
        struct jinja_string *s = arena_alloc(p->arena, sizeof *s);
        if (!s) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
        *s = (struct jinja_string){.data = p->token->text, .n = p->token->n, .points = SIZE_MAX};
        node->name = s;
    } else {
        p->token++;
        TRY(jinja_parse_tuple(p, &node->a, true, false));
        if (p->token->kind == JINJA_END) JINJA_SYNTAX(p, "unexpected end of template, expected 'end of print statement'.");
        if (p->token->kind != JINJA_PRINT_END)
            JINJA_SYNTAX(p, "expected token 'end of print statement', got '%s'", jinja_token_text(p->token, text));
    }
    p->token++;
    return jinja_body_add(p, body, node);
}

// Up to a tag whose name is among `ends` (left as the current token); the whole template where ends is NULL.
static enum cb_status parse_body(struct jinja_parser *p, struct jinja_body *body, const char *const *ends, const char *what) {
    while (p->token->kind != JINJA_END) {
        if (p->token->kind != JINJA_BLOCK_BEGIN) {
            TRY(parse_output(p, body));
            continue;
        }
        p->token++;
        for (const char *const *end = ends; end && *end; end++)
            if (jinja_at_name(p, *end)) return CB_OK;
        struct jinja_node *node;
        TRY(parse_statement(p, &node));
        TRY(jinja_body_add(p, body, node));
    }
    if (ends) JINJA_SYNTAX(p, "Unexpected end of template. The innermost block that needs to be closed is '%s'.", what);
    return CB_OK;
}

// ---- the whole

static enum cb_status parse_all(struct jinja_parser *p, struct jinja *j) {
    enum cb_status status = parse_body(p, &j->body, NULL, NULL);
    int line = p->token->line;
    if (status == CB_OK && p->missing) {
        const struct jinja_string *name = p->missing->name;
        line = p->missing->line;
        status = err_set(p->err, CB_E_FORMAT, __FILE__, __LINE__, "TemplateAssertionError: No %s named '%.*s'.",
                         p->missing->kind == JINJA_FILTER ? "filter" : "test", (int)name->n, name->data);
    }
    j->marks_generation = p->marks_generation;
    return status == CB_OK || !p->err ? status : err_prefix(p->err, "line %d", line);
}

enum cb_status jinja_parse(struct jinja **out, const char *source, size_t n, const char *name, struct cb_err *err) {
    *out = NULL;
    struct jinja *j = calloc(1, sizeof *j);
    if (!j) FAIL(err, CB_E_MEMORY, "template: out of memory");
    j->arena = arena_create();
    j->name = j->arena ? arena_strdup(j->arena, name) : NULL;
    struct jinja_tokens tokens = {0};
    enum cb_status status =
        j->name ? jinja_lex(&tokens, j->arena, source, n, err) : err_set(err, CB_E_MEMORY, __FILE__, __LINE__, "template: out of memory");
    if (status == CB_OK) {
        struct jinja_parser p = {.arena = j->arena, .token = tokens.item, .err = err};
        status = parse_all(&p, j);
    }
    free(tokens.item);
    if (status == CB_OK) {
        *out = j;
        return CB_OK;
    }
    if (j->name && err && status != CB_E_MEMORY) err_prefix(err, "%s", name);
    jinja_destroy(&j);
    return status;
}

void jinja_destroy(struct jinja **jinja) {
    struct jinja *j = jinja ? *jinja : NULL;
    if (!j) return;
    arena_destroy(&j->arena);
    free(j);
    *jinja = NULL;
}

bool jinja_marks_generation(const struct jinja *jinja) { return jinja->marks_generation; }
