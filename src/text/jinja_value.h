/* Values of Jinja templates, their operations, and the state of one rendering. Private to jinja_*.c.
   Semantics are those of Python, whose type names and messages the errors carry. */
#ifndef TEXT_JINJA_VALUE_H
#define TEXT_JINJA_VALUE_H
#include "base/arena.h"
#include "text/buffer.h"
#include "text/jinja.h"

#define JINJA_MAX_DEPTH 1500  // of evaluation, calls and nested values
#define JINJA_MAX_RANGE 100000

typedef __int128 jinja_integer;  // more is refused with OverflowError

enum jinja_kind {
    JINJA_ABSENT,  // an argument that was not given
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_BYTES,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_ITERATOR,  // what filters yield: may be walked once
    JINJA_VIEW,  // keys(), values(), items() of a dictionary
    JINJA_RANGE,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_FUNCTION,  // a global, or a method with its object
    JINJA_MACRO_VALUE,
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_SELF,
    JINJA_KINDS,
};

struct jinja_string {
    const char *data;  // n bytes of UTF-8
    size_t n;
    size_t points;  // code points; SIZE_MAX: not counted yet
    struct jinja_tail *tail;  // where it may grow in place; nullable
    bool safe;  // escaped for HTML already
};
struct jinja_value {
    enum jinja_kind kind;
    union {
        bool boolean;
        jinja_integer integer;
        double real;
        const struct jinja_string *string;
        struct jinja_list *list;  // list, tuple, iterator, view
        struct jinja_dict *dict;  // and namespace
        const struct jinja_range *range;
        const struct jinja_undefined *undefined;
        const struct jinja_function *function;
        struct jinja_loop *loop;
        const struct jinja_closure *closure;
        struct jinja_cycle *cycle;  // cycler and joiner
    };
};
struct jinja_list {
    struct jinja_value *item;
    size_t n;
    bool consumed;  // of an iterator
    bool grouped;  // a tuple of groupby: has grouper and list
    const char *type;  // Python's name of an iterator or view
};
struct jinja_dict {
    struct jinja_value *key, *item;
    size_t n, capacity;
};
struct jinja_range {
    int64_t start, stop, step, n;
};
struct jinja_undefined {
    const struct jinja_string *name;
    enum jinja_kind owner;  // whose attribute or item it would be; JINJA_ABSENT: a variable
    bool unsafe, is_index;
    const char *text;  // a whole message instead; nullable
};
struct jinja_cycle {
    struct jinja_list items;  // of a joiner: the separator
    size_t at;
};

// ---- builtins: filters, tests, methods, globals

struct jinja_run;
struct jinja_args {
    const struct jinja_value *item;
    size_t n;
    const struct jinja_string **keyword;
    const struct jinja_value *value;  // of the keywords
    size_t n_keywords;
};
typedef enum cb_status jinja_fn(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self,
                                const struct jinja_args *args);
struct jinja_builtin {
    const char *name;
    jinja_fn *fn;
    const char *
        parameters;  // names parted by spaces, "!" after those that must be given: fn gets one item for each. NULL: fn gets all as they are
};
struct jinja_function {
    const struct jinja_builtin *builtin;
    struct jinja_value self;
};
const struct jinja_builtin *jinja_find_filter(const struct jinja_string *name);
const struct jinja_builtin *jinja_find_test(const struct jinja_string *name);
const struct jinja_builtin *jinja_find_global(const struct jinja_string *name);
extern const struct jinja_builtin jinja_text_filters[], jinja_list_filters[], jinja_more_filters[], jinja_string_methods[],
    jinja_container_methods[];
const struct jinja_builtin *jinja_find_builtin(const struct jinja_builtin *table, const struct jinja_string *name);

// ---- the state of one rendering

struct jinja_frame {
    struct jinja_frame *parent;
    struct jinja_variable {
        const struct jinja_string *name;
        struct jinja_value value;
    } * variable;
    size_t n, capacity;
};
struct jinja_closure {
    const struct jinja_macro *macro;
    struct jinja_frame *frame;
};
enum jinja_signal { JINJA_GO_ON, JINJA_BREAKS, JINJA_CONTINUES };
struct jinja_run {
    const struct jinja *jinja;
    struct cb_err *err;
    struct arena *arena;
    struct buffer out;
    size_t capture;  // where the outermost capture began; SIZE_MAX: none
    struct jinja_output *spans;
    struct jinja_value context;  // the caller's variables
    struct jinja_frame *frame;
    const struct tm *now;
    uint64_t work, max_work;
    size_t bytes, max_bytes, max_output;
    int depth, line;
    uint32_t draws;  // of the filter `random`
    enum jinja_signal signal;
};

#define JINJA_RAISE(r, kind, ...) FAIL((r)->err, CB_E_FORMAT, kind ": " __VA_ARGS__)
/* Counts n units of work. */
enum cb_status jinja_work(struct jinja_run *r, size_t n);
enum cb_status jinja_enter(struct jinja_run *r);  // one level deeper; r->depth-- on the way back
/* Zeroed memory that lives as long as the rendering. */
enum cb_status jinja_new(struct jinja_run *r, void *out, size_t n, size_t bytes);

// ---- jinja_value.c: making values

static inline struct jinja_value jinja_none(void) { return (struct jinja_value){.kind = JINJA_NONE}; }
static inline struct jinja_value jinja_bool(bool b) { return (struct jinja_value){.kind = JINJA_BOOL, .boolean = b}; }
static inline struct jinja_value jinja_int(jinja_integer i) { return (struct jinja_value){.kind = JINJA_INT, .integer = i}; }
static inline struct jinja_value jinja_real(double d) { return (struct jinja_value){.kind = JINJA_FLOAT, .real = d}; }
static inline struct jinja_value jinja_of(const struct jinja_string *s) { return (struct jinja_value){.kind = JINJA_STRING, .string = s}; }
static inline bool jinja_is_text(const struct jinja_value *v) { return v->kind == JINJA_STRING; }
static inline bool jinja_is_number(const struct jinja_value *v) {
    return v->kind == JINJA_BOOL || v->kind == JINJA_INT || v->kind == JINJA_FLOAT;
}
static inline bool jinja_is_whole(const struct jinja_value *v) { return v->kind == JINJA_BOOL || v->kind == JINJA_INT; }
static inline jinja_integer jinja_whole(const struct jinja_value *v) { return v->kind == JINJA_BOOL ? v->boolean : v->integer; }
static inline double jinja_number(const struct jinja_value *v) { return v->kind == JINJA_FLOAT ? v->real : (double)jinja_whole(v); }
static inline bool jinja_equals(const struct jinja_string *s, const char *text) {
    return s->n == strlen(text) && !memcmp(s->data, text, s->n);
}
/* A string over n bytes, copied; over borrowed bytes. */
enum cb_status jinja_text(struct jinja_run *r, struct jinja_value *out, const char *data, size_t n);
enum cb_status jinja_borrow(struct jinja_run *r, struct jinja_value *out, const char *data, size_t n);
enum cb_status jinja_cstring(struct jinja_run *r, struct jinja_value *out, const char *data);
/* a and then n bytes; grows in a's place where it is the newest. */
enum cb_status jinja_append(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *a, const char *data, size_t n);
size_t jinja_points(const struct jinja_string *s);
/* Byte offset of a code point; at the end or after it n. */
size_t jinja_offset(const struct jinja_string *s, size_t point);
/* A list, tuple, iterator or view of n items, zeroed. */
enum cb_status jinja_new_list(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, size_t n);
enum cb_status jinja_new_dict(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind);
/* NULL where the key is absent. */
enum cb_status jinja_dict_find(struct jinja_run *r, const struct jinja_value **out, const struct jinja_dict *d,
                               const struct jinja_value *key);
enum cb_status jinja_dict_put(struct jinja_run *r, struct jinja_dict *d, const struct jinja_value *key, const struct jinja_value *item);
const struct jinja_value *jinja_dict_get(const struct jinja_dict *d, const struct jinja_string *name);
enum cb_status jinja_from_json(struct jinja_run *r, struct jinja_value *out, const json_t *json);
enum cb_status jinja_undefined(struct jinja_run *r, struct jinja_value *out, const struct jinja_undefined *what);
/* Refuses to use it: "UndefinedError: 'x' is undefined". */
enum cb_status jinja_refuse_undefined(struct jinja_run *r, const struct jinja_value *v);
const char *jinja_type(const struct jinja_value *v);  // Python's type name
bool jinja_truth(const struct jinja_value *v);
/* The items of anything that can be walked; TypeError otherwise. An iterator is used up. */
enum cb_status jinja_items(struct jinja_run *r, struct jinja_list *out, const struct jinja_value *v);
/* SIZE_MAX where it has no length. */
size_t jinja_length(const struct jinja_value *v);
/* A growing list. */
struct jinja_items {
    struct jinja_value *item;
    size_t n, capacity;
};
enum cb_status jinja_push(struct jinja_run *r, struct jinja_items *items, const struct jinja_value *v);
enum cb_status jinja_finish(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, const struct jinja_items *items);

// ---- jinja_text.c: text forms. All append to a buffer that the caller frees.

enum cb_status jinja_put(struct jinja_run *r, struct buffer *b, const char *data, size_t n);
enum cb_status jinja_put_str(struct jinja_run *r, struct buffer *b, const struct jinja_value *v);  // Python's str
enum cb_status jinja_put_repr(struct jinja_run *r, struct buffer *b, const struct jinja_value *v);
/* v as a string value. */
enum cb_status jinja_str(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v);
enum cb_status jinja_take(struct jinja_run *r, struct jinja_value *out, struct buffer *b);  // frees b
void jinja_float_text(char text[40], double value);
void jinja_integer_text(char text[48], jinja_integer value);
struct jinja_json_style {
    bool pretty, ascii, sort_keys;
    const struct jinja_string *indent, *comma, *colon;  // indent: of one level
};
enum cb_status jinja_put_json(struct jinja_run *r, struct buffer *b, const struct jinja_value *v, const struct jinja_json_style *style);

// ---- jinja_operate.c

enum cb_status jinja_is_equal(struct jinja_run *r, bool *out, const struct jinja_value *a, const struct jinja_value *b);
/* -1, 0, 1; TypeError with `op` where they have no order. 2: not comparable numbers (NaN). */
enum cb_status jinja_order(struct jinja_run *r, int *out, const struct jinja_value *a, const struct jinja_value *b, const char *op);
enum cb_status jinja_contains(struct jinja_run *r, bool *out, const struct jinja_value *item, const struct jinja_value *in);
enum cb_status jinja_compare(struct jinja_run *r, bool *out, const char *op, const struct jinja_value *a, const struct jinja_value *b);
enum cb_status jinja_operate(struct jinja_run *r, struct jinja_value *out, const char *op, const struct jinja_value *a,
                             const struct jinja_value *b);
enum cb_status jinja_sign(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *a, bool negative);
enum cb_status jinja_parse_integer(const char *text, size_t n, int base, jinja_integer *out, bool *fits);

// ---- jinja_access.c: attributes, items, slices, calls

enum cb_status jinja_attribute(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_string *name);
enum cb_status jinja_item(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_value *key);
/* A dotted path "a.b.0", as the filters' attribute= has it. */
enum cb_status jinja_path(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_value *path);
enum cb_status jinja_slice(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_value part[3]);
enum cb_status jinja_call_builtin(struct jinja_run *r, struct jinja_value *out, const struct jinja_builtin *f,
                                  const struct jinja_value *self, const struct jinja_args *args);
enum cb_status jinja_call_value(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *f, const struct jinja_args *args);

// ---- jinja_run.c

enum cb_status jinja_call_macro(struct jinja_run *r, struct jinja_value *out, const struct jinja_closure *c, const struct jinja_args *args);
enum cb_status jinja_call_loop(struct jinja_run *r, struct jinja_value *out, struct jinja_loop *loop, const struct jinja_args *args);
enum cb_status jinja_loop_attribute(struct jinja_run *r, struct jinja_value *out, struct jinja_loop *loop, const struct jinja_string *name);
enum cb_status jinja_set(struct jinja_run *r, const struct jinja_string *name, const struct jinja_value *v);

// ---- jinja_evaluate.c

struct jinja_node;
struct jinja_call;
enum cb_status jinja_evaluate(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *node);
/* Arguments of a call; in the rendering's memory. */
enum cb_status jinja_arguments(struct jinja_run *r, struct jinja_args *out, const struct jinja_call *call);
/* The filters of a block on what it captured. */
enum cb_status jinja_filter_chain(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *filter,
                                  const struct jinja_value *captured);

// ---- jinja_format.c: "%s" % x and "{}".format(x)
enum cb_status jinja_format_percent(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *format,
                                    const struct jinja_args *args);
enum cb_status jinja_format_braces(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *format,
                                   const struct jinja_args *args);
#endif
