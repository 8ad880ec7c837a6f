/* Tokens and the syntax tree of Jinja templates. Private to jinja_*.c. */
#ifndef TEXT_JINJA_TREE_H
#define TEXT_JINJA_TREE_H
#include "base/arena.h"
#include "text/jinja_value.h"

#define JINJA_MAX_NESTING 120  // of expressions and blocks in the source

// ---- tokens

enum jinja_token_kind {
    JINJA_DATA,  // text between tags
    JINJA_BLOCK_BEGIN,
    JINJA_BLOCK_END,
    JINJA_PRINT_BEGIN,
    JINJA_PRINT_END,
    JINJA_NAME,
    JINJA_TEXT,  // a string literal, its escapes resolved
    JINJA_INTEGER,
    JINJA_REAL,
    JINJA_OPERATOR,
    JINJA_END,
};
struct jinja_token {
    enum jinja_token_kind kind;
    int line;
    const char *text;  // n bytes
    size_t n;
};
struct jinja_tokens {
    struct jinja_token *item;  // the last is JINJA_END
    size_t n, capacity;
};
/* Tokens of a whole template; their text lives in the arena. Free tokens->item in any case. */
enum cb_status jinja_lex(struct jinja_tokens *tokens, struct arena *arena, const char *source, size_t n, struct cb_err *err);

// ---- the tree

enum jinja_node_kind {
    // expressions
    JINJA_CONST,
    JINJA_LOAD,  // a name
    JINJA_LIST_OF,
    JINJA_TUPLE_OF,
    JINJA_DICT_OF,  // item: key, value, key, value ...
    JINJA_NOT,
    JINJA_NEGATIVE,
    JINJA_POSITIVE,
    JINJA_AND,
    JINJA_OR,
    JINJA_BINARY,  // name: the operator
    JINJA_COMPARE,  // a, then item[i] compared by op[i]
    JINJA_CONCAT,
    JINJA_CHOICE,  // a if b else c; c nullable
    JINJA_ATTRIBUTE,
    JINJA_ITEM,  // a[b]
    JINJA_SLICE,  // a:b:c, each nullable; only as the b of JINJA_ITEM
    JINJA_CALL,
    JINJA_FILTER,  // a nullable: what a block captured
    JINJA_TEST,
    // statements
    JINJA_OUTPUT,
    JINJA_PRINT,
    JINJA_IF,  // a, body, other
    JINJA_FOR,  // a: target, b: what is walked, c: condition (nullable), body, other
    JINJA_SET,  // a = b
    JINJA_SET_BLOCK,  // a = body, through the filters b (nullable)
    JINJA_MACRO,
    JINJA_CALL_BLOCK,  // a: the call; macro: its caller
    JINJA_FILTER_BLOCK,
    JINJA_WITH,  // item: target, value, target, value ...
    JINJA_SCOPE,  // body in a scope of its own
    JINJA_BREAK,
    JINJA_CONTINUE,
    JINJA_GENERATION,
    JINJA_LOADER,  // include, import, extends: there is nothing to load from
    JINJA_NODE_KINDS,
};

struct jinja_node;
struct jinja_body {
    struct jinja_node **item;
    size_t n;
};
struct jinja_call {
    struct jinja_body arguments, values;  // positional; values of the keywords
    const struct jinja_string **keyword;
    struct jinja_node *star, *stars;  // *args, **kwargs; nullable
};
struct jinja_macro {
    const struct jinja_string *name;  // "caller" for a call block
    const struct jinja_string **parameter;
    size_t n_parameters;
    struct jinja_body defaults;  // of the last parameters
    struct jinja_body body;
    bool takes_varargs, takes_kwargs, takes_caller;
};
struct jinja_node {
    enum jinja_node_kind kind;
    int line;
    const struct jinja_string *name;  // of a variable, attribute, filter, test or operator
    struct jinja_node *a, *b, *c;
    struct jinja_body item;  // of lists, comparisons, concatenations
    const char **op;  // of comparisons
    struct jinja_body body, other;  // statements
    struct jinja_call *call;
    struct jinja_macro *macro;
    const struct jinja_builtin *builtin;  // of filters and tests; NULL where there is none of the name
    struct jinja_value constant;
    bool recursive;  // a for loop that may call itself
};

struct jinja {
    struct arena *arena;
    char *name;
    struct jinja_body body;
    bool marks_generation;
};

// ---- the parser, shared between its two files

struct jinja_parser {
    struct arena *arena;
    const struct jinja_token *token;  // the current one
    struct cb_err *err;
    int nesting, loops, line;
    bool soft;  // inside a condition: unknown filters and tests fail only when they are reached
    bool uses_varargs, uses_kwargs, uses_caller;  // of the macro being parsed
    bool marks_generation;
    const struct jinja_node *missing;  // the first filter or test that is unknown, where that is fatal
};

struct jinja_node *jinja_node(struct jinja_parser *p, enum jinja_node_kind kind);
enum cb_status jinja_body_add(struct jinja_parser *p, struct jinja_body *body, struct jinja_node *node);
bool jinja_at_operator(const struct jinja_parser *p, const char *text);
bool jinja_at_name(const struct jinja_parser *p, const char *text);
bool jinja_skip_operator(struct jinja_parser *p, const char *text);
bool jinja_skip_name(struct jinja_parser *p, const char *text);
enum cb_status jinja_expect_operator(struct jinja_parser *p, const char *text);
enum cb_status jinja_expect_name(struct jinja_parser *p, const struct jinja_string **name);
/* The current token in words, for messages. */
const char *jinja_token_text(const struct jinja_token *token, char text[64]);

/* An expression; a tuple where commas follow. */
enum cb_status jinja_parse_expression(struct jinja_parser *p, struct jinja_node **out);
enum cb_status jinja_parse_tuple(struct jinja_parser *p, struct jinja_node **out, bool with_choice, bool empty_is_fine);
/* Names, tuples of them, or with attributes `space.name`: what may be assigned to. */
enum cb_status jinja_parse_target(struct jinja_parser *p, struct jinja_node **out, bool with_attribute);
enum cb_status jinja_parse_filters(struct jinja_parser *p, struct jinja_node **node, bool first_is_named);
enum cb_status jinja_parse_primary(struct jinja_parser *p, struct jinja_node **out);
enum cb_status jinja_parse_unary(struct jinja_parser *p, struct jinja_node **out, bool with_filter);

#define JINJA_SYNTAX(p, ...) FAIL((p)->err, CB_E_FORMAT, "TemplateSyntaxError: " __VA_ARGS__)
#endif
