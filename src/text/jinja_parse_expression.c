/* Jinja's expressions: tokens to trees, by recursive descent in Jinja's own order of precedence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"

// ---- helpers of both parser files

struct jinja_node *jinja_node(struct jinja_parser *p, enum jinja_node_kind kind) {
    struct jinja_node *node = arena_alloc(p->arena, sizeof *node);
    if (!node) return NULL;
    node->kind = kind;
    node->line = p->token->line;
    return node;
}

static enum cb_status make(struct jinja_parser *p, struct jinja_node **out, enum jinja_node_kind kind) {
    *out = jinja_node(p, kind);
    if (!*out) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    return CB_OK;
}

// A power of two of places, doubled when full.
static enum cb_status grow(struct jinja_parser *p, void *array, size_t n, size_t bytes) {
    void *old, *more;
    if (n & (n - 1)) return CB_OK;
    memcpy(&old, array, sizeof old);
    more = arena_array(p->arena, n ? 2 * n : 1, bytes);
    if (!more) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    if (n) memcpy(more, old, n * bytes);
    memcpy(array, &more, sizeof more);
    return CB_OK;
}

enum cb_status jinja_body_add(struct jinja_parser *p, struct jinja_body *body, struct jinja_node *node) {
    TRY(grow(p, &body->item, body->n, sizeof *body->item));
    body->item[body->n++] = node;
    return CB_OK;
}

static enum cb_status token_string(struct jinja_parser *p, const struct jinja_token *t, const struct jinja_string **out) {
    struct jinja_string *s = arena_alloc(p->arena, sizeof *s);
    if (!s) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    *s = (struct jinja_string){.data = t->text, .n = t->n, .points = SIZE_MAX};
    *out = s;
    return CB_OK;
}

static bool token_is(const struct jinja_token *t, enum jinja_token_kind kind, const char *text) {
    return t->kind == kind && t->n == strlen(text) && !memcmp(t->text, text, t->n);
}
bool jinja_at_operator(const struct jinja_parser *p, const char *text) { return token_is(p->token, JINJA_OPERATOR, text); }
bool jinja_at_name(const struct jinja_parser *p, const char *text) { return token_is(p->token, JINJA_NAME, text); }
static bool skip(struct jinja_parser *p, enum jinja_token_kind kind, const char *text) {
    if (!token_is(p->token, kind, text)) return false;
    p->token++;
    return true;
}
bool jinja_skip_operator(struct jinja_parser *p, const char *text) { return skip(p, JINJA_OPERATOR, text); }
bool jinja_skip_name(struct jinja_parser *p, const char *text) { return skip(p, JINJA_NAME, text); }

const char *jinja_token_text(const struct jinja_token *t, char text[64]) {
    static const char *const names[] = {[JINJA_DATA] = "template data / text",
                                        [JINJA_BLOCK_BEGIN] = "begin of statement block",
                                        [JINJA_BLOCK_END] = "end of statement block",
                                        [JINJA_PRINT_BEGIN] = "begin of print statement",
                                        [JINJA_PRINT_END] = "end of print statement",
                                        [JINJA_TEXT] = "string",
                                        [JINJA_INTEGER] = "integer",
                                        [JINJA_REAL] = "float",
                                        [JINJA_END] = "end of template"};
    if (t->kind != JINJA_NAME && t->kind != JINJA_OPERATOR) return names[t->kind];
    snprintf(text, 64, "%.*s", t->n > 60 ? 60 : (int)t->n, t->text);
    return text;
}

enum cb_status jinja_expect_operator(struct jinja_parser *p, const char *wanted) {
    char text[64];
    if (jinja_skip_operator(p, wanted)) return CB_OK;
    if (p->token->kind == JINJA_END) JINJA_SYNTAX(p, "unexpected end of template, expected '%s'.", wanted);
    JINJA_SYNTAX(p, "expected token '%s', got '%s'", wanted, jinja_token_text(p->token, text));
}
enum cb_status jinja_expect_name(struct jinja_parser *p, const struct jinja_string **name) {
    char text[64];
    if (p->token->kind == JINJA_END) JINJA_SYNTAX(p, "unexpected end of template, expected 'name'.");
    if (p->token->kind != JINJA_NAME) JINJA_SYNTAX(p, "expected token 'name', got '%s'", jinja_token_text(p->token, text));
    TRY(token_string(p, p->token, name));
    p->token++;
    return CB_OK;
}

static enum cb_status deeper(struct jinja_parser *p) {
    if (++p->nesting > JINJA_MAX_NESTING) FAIL(p->err, CB_E_LIMIT, "TemplateSyntaxError: nested over %d deep", JINJA_MAX_NESTING);
    return CB_OK;
}

// ---- literals, names, brackets

static enum cb_status parse_text(struct jinja_parser *p, struct jinja_node **out) {
    struct buffer joined = {0};
    const struct jinja_token *first = p->token;
    struct jinja_token whole = *first;
    enum cb_status status = CB_OK;
    TRY(make(p, out, JINJA_CONST));
    for (; p->token->kind == JINJA_TEXT && status == CB_OK; p->token++)
        if (p->token != first || p->token[1].kind == JINJA_TEXT) status = buffer_append(&joined, p->token->text, p->token->n, p->err);
    if (joined.n) whole.text = arena_strndup(p->arena, joined.data, joined.n), whole.n = joined.n;
    free(joined.data);
    TRY(status);
    if (!whole.text) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    (*out)->constant.kind = JINJA_STRING;
    return token_string(p, &whole, &(*out)->constant.string);
}

static enum cb_status parse_number(struct jinja_parser *p, struct jinja_node **out) {
    char plain[64];
    size_t n = 0;
    const struct jinja_token *t = p->token;
    bool fits = false;
    TRY(make(p, out, JINJA_CONST));
    for (size_t i = 0; i < t->n && n < sizeof plain - 1; i++)
        if (t->text[i] != '_') plain[n++] = t->text[i];
    plain[n] = 0;
    if (t->kind == JINJA_REAL) {
        (*out)->constant = jinja_real(strtod(plain, NULL));
    } else {
        char second = n > 1 ? plain[1] | 32 : 0;
        int base = second == 'x' ? 16 : second == 'o' ? 8 : second == 'b' ? 2 : 10;
        (*out)->constant = jinja_int(0);
        jinja_parse_integer(plain + (base == 10 ? 0 : 2), n - (base == 10 ? 0 : 2), base, &(*out)->constant.integer, &fits);
        if (!fits || n == sizeof plain - 1) JINJA_SYNTAX(p, "the number %.40s; wanted one below 2^127", plain);
    }
    p->token++;
    return CB_OK;
}

static enum cb_status parse_name(struct jinja_parser *p, struct jinja_node **out) {
    static const struct {
        const char *name;
        struct jinja_value value;
    } constants[] = {{"true", {.kind = JINJA_BOOL, .boolean = true}},
                     {"True", {.kind = JINJA_BOOL, .boolean = true}},
                     {"false", {.kind = JINJA_BOOL, .boolean = false}},
                     {"False", {.kind = JINJA_BOOL, .boolean = false}},
                     {"none", {.kind = JINJA_NONE}},
                     {"None", {.kind = JINJA_NONE}}};
    TRY(make(p, out, JINJA_LOAD));
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (!jinja_skip_name(p, constants[i].name)) continue;
        (*out)->kind = JINJA_CONST;
        (*out)->constant = constants[i].value;
        return CB_OK;
    }
    p->uses_caller |= jinja_at_name(p, "caller");
    p->uses_varargs |= jinja_at_name(p, "varargs");
    p->uses_kwargs |= jinja_at_name(p, "kwargs");
    return jinja_expect_name(p, &(*out)->name);
}

static enum cb_status parse_list(struct jinja_parser *p, struct jinja_node **out) {
    struct jinja_node *item;
    TRY(make(p, out, JINJA_LIST_OF));
    p->token++;
    while (!jinja_at_operator(p, "]")) {
        if ((*out)->item.n) TRY(jinja_expect_operator(p, ","));
        if (jinja_at_operator(p, "]")) break;
        TRY(jinja_parse_expression(p, &item));
        TRY(jinja_body_add(p, &(*out)->item, item));
    }
    return jinja_expect_operator(p, "]");
}

static enum cb_status parse_dict(struct jinja_parser *p, struct jinja_node **out) {
    struct jinja_node *key, *value;
    TRY(make(p, out, JINJA_DICT_OF));
    p->token++;
    while (!jinja_at_operator(p, "}")) {
        if ((*out)->item.n) TRY(jinja_expect_operator(p, ","));
        if (jinja_at_operator(p, "}")) break;
        TRY(jinja_parse_expression(p, &key));
        TRY(jinja_expect_operator(p, ":"));
        TRY(jinja_parse_expression(p, &value));
        TRY(jinja_body_add(p, &(*out)->item, key));
        TRY(jinja_body_add(p, &(*out)->item, value));
    }
    return jinja_expect_operator(p, "}");
}

enum cb_status jinja_parse_primary(struct jinja_parser *p, struct jinja_node **out) {
    char text[64];
    if (p->token->kind == JINJA_NAME) return parse_name(p, out);
    if (p->token->kind == JINJA_TEXT) return parse_text(p, out);
    if (p->token->kind == JINJA_INTEGER || p->token->kind == JINJA_REAL) return parse_number(p, out);
    if (jinja_at_operator(p, "[")) return parse_list(p, out);
    if (jinja_at_operator(p, "{")) return parse_dict(p, out);
    if (!jinja_skip_operator(p, "(")) JINJA_SYNTAX(p, "unexpected '%s'", jinja_token_text(p->token, text));
    TRY(jinja_parse_tuple(p, out, true, true));
    return jinja_expect_operator(p, ")");
}

// ---- what follows a value: attributes, items, calls, filters, tests

// One index, or a slice.
static enum cb_status parse_subscript(struct jinja_parser *p, struct jinja_node **out) {
    struct jinja_node *part[3] = {0}, *slice;
    int colons = 0;
    for (; colons < 3; colons++) {
        if (!jinja_at_operator(p, ":") && !jinja_at_operator(p, "]") && !jinja_at_operator(p, ","))
            TRY(jinja_parse_expression(p, &part[colons]));
        if (colons == 2 || !jinja_skip_operator(p, ":")) break;
    }
    *out = part[0];
    if (colons == 0) return part[0] ? CB_OK : jinja_parse_expression(p, out);  // nothing there: its message
    TRY(make(p, &slice, JINJA_SLICE));
    slice->a = part[0], slice->b = part[1], slice->c = part[2];
    *out = slice;
    return CB_OK;
}

static enum cb_status parse_item(struct jinja_parser *p, struct jinja_node **node) {
    struct jinja_node *item, *part, *list;
    TRY(make(p, &item, JINJA_ITEM));
    TRY(make(p, &list, JINJA_TUPLE_OF));
    p->token++;
    while (!jinja_at_operator(p, "]")) {
        if (list->item.n) TRY(jinja_expect_operator(p, ","));
        TRY(parse_subscript(p, &part));
        if (part->kind == JINJA_SLICE && list->item.n) JINJA_SYNTAX(p, "a slice among several indices");
        TRY(jinja_body_add(p, &list->item, part));
    }
    p->token++;
    if (list->item.n > 1 && list->item.item[0]->kind == JINJA_SLICE) JINJA_SYNTAX(p, "a slice among several indices");
    item->a = *node;
    item->b = list->item.n == 1 ? list->item.item[0] : list;
    *node = item;
    return CB_OK;
}

static enum cb_status parse_attribute(struct jinja_parser *p, struct jinja_node **node) {
    struct jinja_node *made;
    TRY(make(p, &made, JINJA_ATTRIBUTE));
    p->token++;
    made->a = *node;
    *node = made;
    if (p->token->kind == JINJA_INTEGER) {
        made->kind = JINJA_ITEM;
        return parse_number(p, &made->b);
    }
    if (p->token->kind != JINJA_NAME) JINJA_SYNTAX(p, "expected name or number");
    return jinja_expect_name(p, &made->name);
}

static enum cb_status parse_argument(struct jinja_parser *p, struct jinja_call *call) {
    struct jinja_node *value;
    bool fits = !call->stars;
    if (jinja_skip_operator(p, "*")) {
        TRY(jinja_parse_expression(p, &value));
        fits = fits && !call->star;
        call->star = value;
    } else if (jinja_skip_operator(p, "**")) {
        TRY(jinja_parse_expression(p, &call->stars));
    } else if (p->token->kind == JINJA_NAME && token_is(p->token + 1, JINJA_OPERATOR, "=")) {
        TRY(grow(p, &call->keyword, call->values.n, sizeof *call->keyword));
        TRY(token_string(p, p->token, &call->keyword[call->values.n]));
        p->token += 2;
        TRY(jinja_parse_expression(p, &value));
        TRY(jinja_body_add(p, &call->values, value));
    } else {
        fits = fits && !call->star && !call->values.n;
        TRY(jinja_parse_expression(p, &value));
        TRY(jinja_body_add(p, &call->arguments, value));
    }
    if (!fits) JINJA_SYNTAX(p, "invalid syntax for function call expression");
    return CB_OK;
}

static enum cb_status parse_arguments(struct jinja_parser *p, struct jinja_call **out) {
    *out = arena_alloc(p->arena, sizeof **out);
    if (!*out) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
    if (!jinja_skip_operator(p, "(")) return CB_OK;
    for (bool first = true; !jinja_at_operator(p, ")"); first = false) {
        if (!first) TRY(jinja_expect_operator(p, ","));
        if (jinja_at_operator(p, ")")) break;
        TRY(parse_argument(p, *out));
    }
    return jinja_expect_operator(p, ")");
}

static enum cb_status parse_call(struct jinja_parser *p, struct jinja_node **node) {
    struct jinja_node *made;
    TRY(make(p, &made, JINJA_CALL));
    made->a = *node;
    *node = made;
    return parse_arguments(p, &made->call);
}

// NAME or NAME.NAME of a filter or test.
static enum cb_status parse_builtin_name(struct jinja_parser *p, const struct jinja_string **name) {
    TRY(jinja_expect_name(p, name));
    while (jinja_skip_operator(p, ".")) {
        const struct jinja_string *more;
        TRY(jinja_expect_name(p, &more));
        char *joined = arena_printf(p->arena, "%.*s.%.*s", (int)(*name)->n, (*name)->data, (int)more->n, more->data);
        if (!joined) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
        TRY(token_string(p, &(struct jinja_token){.text = joined, .n = strlen(joined)}, name));
    }
    return CB_OK;
}

enum cb_status jinja_parse_filters(struct jinja_parser *p, struct jinja_node **node, bool first_is_named) {
    while (first_is_named || jinja_skip_operator(p, "|")) {
        struct jinja_node *made;
        first_is_named = false;
        TRY(make(p, &made, JINJA_FILTER));
        TRY(parse_builtin_name(p, &made->name));
        made->a = *node;
        TRY(parse_arguments(p, &made->call));
        made->builtin = jinja_find_filter(made->name);
        if (!made->builtin && !p->soft && !p->missing) p->missing = made;
        *node = made;
    }
    return CB_OK;
}

static bool begins_test_argument(const struct jinja_parser *p) {
    if (p->token->kind == JINJA_NAME) return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    return p->token->kind == JINJA_TEXT || p->token->kind == JINJA_INTEGER || p->token->kind == JINJA_REAL || jinja_at_operator(p, "[") ||
           jinja_at_operator(p, "{");
}

static enum cb_status parse_postfix(struct jinja_parser *p, struct jinja_node **node) {
    while (true) {
        if (jinja_at_operator(p, "."))
            TRY(parse_attribute(p, node));
        else if (jinja_at_operator(p, "["))
            TRY(parse_item(p, node));
        else if (jinja_at_operator(p, "("))
            TRY(parse_call(p, node));
        else
            return CB_OK;
    }
}

static enum cb_status parse_test(struct jinja_parser *p, struct jinja_node **node) {
    struct jinja_node *made, *argument, *negated;
    TRY(make(p, &made, JINJA_TEST));
    TRY(make(p, &negated, JINJA_NOT));
    p->token++;
    bool is_negated = jinja_skip_name(p, "not");
    TRY(parse_builtin_name(p, &made->name));
    bool parentheses = jinja_at_operator(p, "(");
    TRY(parse_arguments(p, &made->call));
    if (!parentheses && begins_test_argument(p)) {
        if (jinja_at_name(p, "is")) JINJA_SYNTAX(p, "You cannot chain multiple tests with is");
        TRY(jinja_parse_primary(p, &argument));
        TRY(parse_postfix(p, &argument));
        TRY(jinja_body_add(p, &made->call->arguments, argument));
    }
    made->a = *node;
    made->builtin = jinja_find_test(made->name);
    if (!made->builtin && !p->soft && !p->missing) p->missing = made;
    negated->a = made;
    *node = is_negated ? negated : made;
    return CB_OK;
}

// ---- operators, from the tightest

enum cb_status jinja_parse_unary(struct jinja_parser *p, struct jinja_node **out, bool with_filter) {
    bool minus = jinja_at_operator(p, "-");
    TRY(deeper(p));
    if (minus || jinja_at_operator(p, "+")) {
        struct jinja_node *made;
        TRY(make(p, &made, minus ? JINJA_NEGATIVE : JINJA_POSITIVE));
        p->token++;
        TRY(jinja_parse_unary(p, &made->a, false));
        *out = made;
    } else {
        TRY(jinja_parse_primary(p, out));
    }
    TRY(parse_postfix(p, out));
    while (with_filter) {
        if (jinja_at_operator(p, "|"))
            TRY(jinja_parse_filters(p, out, false));
        else if (jinja_at_name(p, "is"))
            TRY(parse_test(p, out));
        else if (jinja_at_operator(p, "("))
            TRY(parse_call(p, out));
        else
            break;
    }
    p->nesting--;
    return CB_OK;
}

// Left-associative levels: ** binds tightest, then * / // %, then ~, then + -.
static enum cb_status parse_level(struct jinja_parser *p, struct jinja_node **out, int level) {
    static const char *const operators[4][5] = {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}};
    if (level == 4) return jinja_parse_unary(p, out, true);
    TRY(parse_level(p, out, level + 1));
    while (true) {
        const char *op = NULL;
        for (int i = 0; i < 5 && operators[level][i] && !op; i++)
            if (jinja_at_operator(p, operators[level][i])) op = operators[level][i];
        if (!op) return CB_OK;
        struct jinja_node *made;
        TRY(make(p, &made, level == 1 ? JINJA_CONCAT : JINJA_BINARY));
        if (level == 1) {
            TRY(jinja_body_add(p, &made->item, *out));
            while (jinja_skip_operator(p, "~")) {
                struct jinja_node *part;
                TRY(parse_level(p, &part, 2));
                TRY(jinja_body_add(p, &made->item, part));
            }
        } else {
            made->a = *out;
            TRY(token_string(p, p->token, &made->name));
            made->op = arena_alloc(p->arena, sizeof *made->op);
            if (!made->op) FAIL(p->err, CB_E_MEMORY, "template: out of memory");
            made->op[0] = op;
            p->token++;
            TRY(parse_level(p, &made->b, level + 1));
        }
        *out = made;
    }
}

static const char *comparison(struct jinja_parser *p) {
    static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++)
        if (jinja_skip_operator(p, operators[i])) return operators[i];
    if (jinja_skip_name(p, "in")) return "in";
    if (!jinja_at_name(p, "not") || !token_is(p->token + 1, JINJA_NAME, "in")) return NULL;
    p->token += 2;
    return "not in";
}

static enum cb_status parse_compare(struct jinja_parser *p, struct jinja_node **out) {
    struct jinja_node *made = NULL, *other;
    TRY(parse_level(p, out, 0));
    for (const char *op; (op = comparison(p)) != NULL;) {
        if (!made) {
            TRY(make(p, &made, JINJA_COMPARE));
            made->a = *out;
            *out = made;
        }
        TRY(parse_level(p, &other, 0));
        TRY(grow(p, &made->op, made->item.n, sizeof *made->op));
        made->op[made->item.n] = op;
        TRY(jinja_body_add(p, &made->item, other));
    }
    return CB_OK;
}

static enum cb_status parse_not(struct jinja_parser *p, struct jinja_node **out) {
    if (!jinja_at_name(p, "not")) return parse_compare(p, out);
    TRY(deeper(p));
    TRY(make(p, out, JINJA_NOT));
    p->token++;
    TRY(parse_not(p, &(*out)->a));
    p->nesting--;
    return CB_OK;
}

// `and`, or `or` around it.
static enum cb_status parse_logic(struct jinja_parser *p, struct jinja_node **out, bool is_or) {
    TRY(is_or ? parse_logic(p, out, false) : parse_not(p, out));
    while (jinja_at_name(p, is_or ? "or" : "and")) {
        struct jinja_node *made;
        TRY(make(p, &made, is_or ? JINJA_OR : JINJA_AND));
        p->token++;
        made->a = *out;
        TRY(is_or ? parse_logic(p, &made->b, false) : parse_not(p, &made->b));
        *out = made;
    }
    return CB_OK;
}

enum cb_status jinja_parse_expression(struct jinja_parser *p, struct jinja_node **out) {
    bool soft = p->soft;
    const struct jinja_node *missing = p->missing;
    TRY(deeper(p));
    TRY(parse_logic(p, out, true));
    if (jinja_at_name(p, "if")) p->missing = missing, p->soft = true;
    while (jinja_at_name(p, "if")) {
        struct jinja_node *made;
        TRY(make(p, &made, JINJA_CHOICE));
        p->token++;
        made->b = *out;
        TRY(parse_logic(p, &made->a, true));
        if (jinja_skip_name(p, "else")) TRY(jinja_parse_expression(p, &made->c));
        *out = made;
    }
    p->soft = soft;
    p->nesting--;
    return CB_OK;
}

static bool tuple_ends(const struct jinja_parser *p) {
    return p->token->kind == JINJA_PRINT_END || p->token->kind == JINJA_BLOCK_END || p->token->kind == JINJA_END ||
           jinja_at_operator(p, ")") || jinja_at_name(p, "recursive");
}

enum cb_status jinja_parse_tuple(struct jinja_parser *p, struct jinja_node **out, bool with_choice, bool empty_is_fine) {
    struct jinja_node *tuple, *item;
    char text[64];
    TRY(make(p, &tuple, JINJA_TUPLE_OF));
    bool is_tuple = false;
    while (!tuple_ends(p)) {
        TRY(with_choice ? jinja_parse_expression(p, &item) : parse_logic(p, &item, true));
        TRY(jinja_body_add(p, &tuple->item, item));
        if (!jinja_skip_operator(p, ",")) break;
        is_tuple = true;
    }
    if (!tuple->item.n && !empty_is_fine) JINJA_SYNTAX(p, "Expected an expression, got '%s'", jinja_token_text(p->token, text));
    *out = is_tuple || !tuple->item.n ? tuple : tuple->item.item[0];
    return CB_OK;
}

enum cb_status jinja_parse_target(struct jinja_parser *p, struct jinja_node **out, bool with_attribute) {
    struct jinja_node *tuple, *item;
    char text[64];
    bool is_tuple = false;
    TRY(make(p, &tuple, JINJA_TUPLE_OF));
    while (!jinja_at_name(p, "in") && !jinja_at_operator(p, "=") && !tuple_ends(p)) {
        if (p->token->kind == JINJA_OPERATOR && jinja_skip_operator(p, "(")) {
            TRY(deeper(p));
            TRY(jinja_parse_target(p, &item, with_attribute));
            p->nesting--;
            TRY(jinja_expect_operator(p, ")"));
        } else {
            TRY(jinja_parse_primary(p, &item));
            if (item->kind != JINJA_LOAD) JINJA_SYNTAX(p, "can't assign to this expression");
            if (with_attribute && jinja_at_operator(p, ".")) {
                TRY(parse_attribute(p, &item));
                if (item->kind != JINJA_ATTRIBUTE) JINJA_SYNTAX(p, "expected token 'name', got 'integer'");
            }
        }
        TRY(jinja_body_add(p, &tuple->item, item));
        if (!jinja_skip_operator(p, ",")) break;
        is_tuple = true;
    }
    if (!tuple->item.n) JINJA_SYNTAX(p, "Expected an expression, got '%s'", jinja_token_text(p->token, text));
    *out = is_tuple ? tuple : tuple->item.item[0];
    return CB_OK;
}
