/* Attributes, items, slices and calls of Jinja's values, within the sandbox: methods that change a value and names with underscores are refused. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"
#include "text/utf8.h"

const struct jinja_builtin *jinja_find_builtin(const struct jinja_builtin *table, const struct jinja_string *name) {
    for (const struct jinja_builtin *b = table; b->name; b++)
        if (jinja_equals(name, b->name)) return b;
    return NULL;
}

// ---- attributes

// Methods that change a list or dictionary: seen, and refused when used.
static bool is_unsafe(const struct jinja_value *of, const struct jinja_string *name) {
    static const char *const of_list[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort", NULL};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = of->kind == JINJA_LIST ? of_list : of->kind == JINJA_DICT ? of_dict : NULL;
    for (; names && *names; names++)
        if (jinja_equals(name, *names)) return true;
    // what every Python object has
    static const char *const of_all[] = {"__class__",        "__init__",   "__doc__",    "__dict__", "__repr__", "__str__",
                                         "__eq__",           "__hash__",   "__dir__",    "__new__",  "__len__",  "__format__",
                                         "__getattribute__", "__reduce__", "__sizeof__", NULL};
    for (names = of_all; *names; names++)
        if (jinja_equals(name, *names)) return true;
    return false;
}

static enum cb_status bind(struct jinja_run *r, struct jinja_value *out, const struct jinja_builtin *builtin,
                           const struct jinja_value *self) {
    struct jinja_function *f;
    TRY(jinja_new(r, &f, 1, sizeof *f));
    f->builtin = builtin;
    f->self = *self;
    *out = (struct jinja_value){.kind = JINJA_FUNCTION, .function = f};
    return CB_OK;
}

static enum cb_status number_attribute(struct jinja_value *out, bool *found, const struct jinja_value *of,
                                       const struct jinja_string *name) {
    bool real = jinja_equals(name, "real"), imaginary = jinja_equals(name, "imag");
    *found = real || imaginary || (jinja_is_whole(of) && (jinja_equals(name, "numerator") || jinja_equals(name, "denominator")));
    if (imaginary)
        *out = of->kind == JINJA_FLOAT ? jinja_real(0) : jinja_int(0);
    else
        *out = of->kind == JINJA_FLOAT ? *of : jinja_int(jinja_equals(name, "denominator") ? 1 : jinja_whole(of));
    return CB_OK;
}

static enum cb_status macro_attribute(struct jinja_run *r, struct jinja_value *out, bool *found, const struct jinja_macro *m,
                                      const struct jinja_string *name) {
    *found = true;
    if (jinja_equals(name, "name")) {
        *out = jinja_of(m->name);
    } else if (jinja_equals(name, "arguments")) {
        TRY(jinja_new_list(r, out, JINJA_TUPLE, m->n_parameters));
        for (size_t i = 0; i < m->n_parameters; i++) out->list->item[i] = jinja_of(m->parameter[i]);
    } else if (jinja_equals(name, "catch_varargs") || jinja_equals(name, "catch_kwargs")) {
        *out = jinja_bool(jinja_equals(name, "catch_varargs") ? m->takes_varargs : m->takes_kwargs);
    } else {
        *found = false;
    }
    return CB_OK;
}

// What Python's getattr finds.
static enum cb_status get_attribute(struct jinja_run *r, struct jinja_value *out, bool *found, const struct jinja_value *of,
                                    const struct jinja_string *name) {
    const struct jinja_builtin *method = NULL;
    const struct jinja_value *item;
    *found = false;
    if (jinja_is_number(of)) return number_attribute(out, found, of, name);
    if (of->kind == JINJA_MACRO_VALUE) return macro_attribute(r, out, found, of->closure->macro, name);
    if (of->kind == JINJA_NAMESPACE) {
        if ((item = jinja_dict_get(of->dict, name)) != NULL) *out = *item, *found = true;
        return jinja_work(r, of->dict->n);
    }
    if (of->kind == JINJA_TUPLE && of->list->grouped && (jinja_equals(name, "grouper") || jinja_equals(name, "list"))) {
        *out = of->list->item[jinja_equals(name, "list")];
        *found = true;
        return CB_OK;
    }
    if (of->kind == JINJA_CYCLER && jinja_equals(name, "current")) {
        *out = of->cycle->items.item[of->cycle->at];
        *found = true;
        return CB_OK;
    }
    if (of->kind == JINJA_STRING) method = jinja_find_builtin(jinja_string_methods, name);
    // methods of containers are listed as "dict.get"
    if (!method && of->kind != JINJA_STRING) {
        const char *type = jinja_type(of);
        size_t n = strlen(type);
        for (const struct jinja_builtin *b = jinja_container_methods; b->name && !method; b++)
            if (!strncmp(b->name, type, n) && b->name[n] == '.' && jinja_equals(name, b->name + n + 1)) method = b;
    }
    *found = method != NULL;
    return method ? bind(r, out, method, of) : CB_OK;
}

enum cb_status jinja_attribute(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of,
                               const struct jinja_string *name) {
    bool found;
    if (of->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, of);
    if (of->kind == JINJA_LOOP) return jinja_loop_attribute(r, out, of->loop, name);
    if (is_unsafe(of, name)) return jinja_undefined(r, out, &(struct jinja_undefined){.name = name, .owner = of->kind, .unsafe = true});
    TRY(get_attribute(r, out, &found, of, name));
    if (found) return CB_OK;
    if (of->kind == JINJA_DICT) {
        const struct jinja_value *item = jinja_dict_get(of->dict, name);
        TRY(jinja_work(r, of->dict->n));
        if (item) return *out = *item, CB_OK;
    }
    return jinja_undefined(r, out, &(struct jinja_undefined){.name = name, .owner = of->kind});
}

// ---- items

// Position of an index that may count from the end; -1 where it is outside.
static int64_t position(jinja_integer index, size_t n) {
    if (index < 0) index += (jinja_integer)n;
    return index < 0 || index >= (jinja_integer)n ? -1 : (int64_t)index;
}

static enum cb_status sequence_item(struct jinja_run *r, struct jinja_value *out, bool *found, const struct jinja_value *of,
                                    jinja_integer index) {
    size_t n = jinja_length(of);
    int64_t at = position(index, n);
    *found = at >= 0;
    if (at < 0) return CB_OK;
    if (of->kind == JINJA_RANGE) return *out = jinja_int(of->range->start + at * of->range->step), CB_OK;
    if (of->kind == JINJA_BYTES) return *out = jinja_int((unsigned char)of->string->data[at]), CB_OK;
    if (of->kind != JINJA_STRING) return *out = of->list->item[at], CB_OK;
    TRY(jinja_work(r, of->string->n / 8));
    size_t offset = jinja_offset(of->string, (size_t)at);
    return jinja_borrow(r, out, of->string->data + offset, (size_t)utf8_length(of->string->data[offset]));
}

enum cb_status jinja_item(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_value *key) {
    bool found = false, is_sequence = of->kind == JINJA_LIST || of->kind == JINJA_TUPLE || of->kind == JINJA_STRING ||
                                      of->kind == JINJA_RANGE || of->kind == JINJA_BYTES;
    if (of->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, of);
    if (of->kind == JINJA_DICT) {
        const struct jinja_value *item = NULL;
        if (key->kind != JINJA_LIST && key->kind != JINJA_DICT) TRY(jinja_dict_find(r, &item, of->dict, key));
        if (item) return *out = *item, CB_OK;
    }
    if (is_sequence && jinja_is_whole(key)) TRY(sequence_item(r, out, &found, of, jinja_whole(key)));
    if (found) return CB_OK;
    if (key->kind == JINJA_STRING) {
        if (is_unsafe(of, key->string))
            return jinja_undefined(r, out, &(struct jinja_undefined){.name = key->string, .owner = of->kind, .unsafe = true});
        if (of->kind == JINJA_LOOP) return jinja_loop_attribute(r, out, of->loop, key->string);
        TRY(get_attribute(r, out, &found, of, key->string));
        if (found) return CB_OK;
        return jinja_undefined(r, out, &(struct jinja_undefined){.name = key->string, .owner = of->kind});
    }
    struct jinja_value text;
    TRY(jinja_str(r, &text, key));
    return jinja_undefined(r, out, &(struct jinja_undefined){.name = text.string, .owner = of->kind, .is_index = true});
}

enum cb_status jinja_path(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_value *path) {
    struct jinja_value at = *of;
    if (jinja_is_whole(path)) return jinja_item(r, out, of, path);
    if (path->kind != JINJA_STRING) JINJA_RAISE(r, "TypeError", "attribute is '%s'; wanted a name or number", jinja_type(path));
    const char *s = path->string->data, *end = s + path->string->n;
    while (true) {
        const char *dot = memchr(s, '.', (size_t)(end - s));
        size_t n = (size_t)((dot ? dot : end) - s);
        struct jinja_value key;
        jinja_integer index;
        bool is_index;
        TRY(jinja_borrow(r, &key, s, n));
        jinja_parse_integer(s, n, 10, &index, &is_index);
        if (is_index) key = jinja_int(index);
        TRY(jinja_item(r, &at, &at, &key));
        if (!dot) break;
        s = dot + 1;
    }
    *out = at;
    return CB_OK;
}

// ---- slices

static enum cb_status bound(struct jinja_run *r, int64_t *out, const struct jinja_value *v, int64_t otherwise, int64_t low, int64_t high,
                            int64_t n) {
    *out = otherwise;
    if (v->kind == JINJA_NONE || v->kind == JINJA_ABSENT) return CB_OK;
    if (v->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, v);
    if (!jinja_is_whole(v)) JINJA_RAISE(r, "TypeError", "slice indices must be integers or None or have an __index__ method");
    jinja_integer at = jinja_whole(v);
    if (at < 0) at += n;
    *out = at < low ? low : at > high ? high : (int64_t)at;
    return CB_OK;
}

static enum cb_status slice_string(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *s, int64_t start, int64_t step,
                                   size_t count) {
    if (step == 1) {
        size_t from = jinja_offset(s, (size_t)start), to = jinja_offset(s, (size_t)start + count);
        TRY(jinja_work(r, s->n / 8));
        return jinja_borrow(r, out, s->data + from, to > from ? to - from : 0);
    }
    struct jinja_list items;
    struct jinja_value whole = jinja_of(s);
    struct buffer b = {0};
    enum cb_status status = CB_OK;
    TRY(jinja_items(r, &items, &whole));
    for (size_t i = 0; i < count && status == CB_OK; i++) status = jinja_put_str(r, &b, &items.item[start + (int64_t)i * step]);
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

enum cb_status jinja_slice(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *of, const struct jinja_value part[3]) {
    int64_t start, stop, step = 1;
    if (of->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, of);
    if (of->kind == JINJA_DICT) JINJA_RAISE(r, "TypeError", "unhashable type: 'slice'");
    if (of->kind != JINJA_STRING && of->kind != JINJA_LIST && of->kind != JINJA_TUPLE && of->kind != JINJA_RANGE)
        JINJA_RAISE(r, "TypeError", "'%s' object is not subscriptable", jinja_type(of));
    int64_t n = (int64_t)jinja_length(of);
    TRY(bound(r, &step, &part[2], 1, -INT32_MAX, INT32_MAX, 0));
    if (part[2].kind == JINJA_INT && !step) JINJA_RAISE(r, "ValueError", "slice step cannot be zero");
    TRY(bound(r, &start, &part[0], step > 0 ? 0 : n - 1, step > 0 ? 0 : -1, step > 0 ? n : n - 1, n));
    TRY(bound(r, &stop, &part[1], step > 0 ? n : -1, step > 0 ? 0 : -1, step > 0 ? n : n - 1, n));
    size_t count = step > 0 ? (stop > start ? (size_t)((stop - start + step - 1) / step) : 0)
                            : (start > stop ? (size_t)((start - stop - step - 1) / -step) : 0);
    if (of->kind == JINJA_STRING) return slice_string(r, out, of->string, start, step, count);
    if (of->kind == JINJA_RANGE) {
        struct jinja_range *range;
        const struct jinja_range *whole = of->range;
        TRY(jinja_new(r, &range, 1, sizeof *range));
        *range =
            (struct jinja_range){whole->start + start * whole->step, whole->start + stop * whole->step, whole->step * step, (int64_t)count};
        *out = (struct jinja_value){.kind = JINJA_RANGE, .range = range};
        return CB_OK;
    }
    struct jinja_list items;
    TRY(jinja_items(r, &items, of));
    TRY(jinja_new_list(r, out, of->kind == JINJA_TUPLE ? JINJA_TUPLE : JINJA_LIST, count));
    for (size_t i = 0; i < count; i++) out->list->item[i] = items.item[start + (int64_t)i * step];
    return CB_OK;
}

// ---- calls

#define MAX_PARAMETERS 8

// Positional arguments and keywords into one item for each of the builtin's parameters.
static enum cb_status bind_parameters(struct jinja_run *r, struct jinja_value item[MAX_PARAMETERS], size_t *n,
                                      const struct jinja_builtin *f, const struct jinja_args *args) {
    size_t used = 0;
    *n = 0;
    for (const char *name = f->parameters; *name; (*n)++) {
        size_t length = strcspn(name, " !");
        bool needed = name[length] == '!';
        struct jinja_value *v = &item[*n];
        *v = (struct jinja_value){.kind = JINJA_ABSENT};
        if (*n < args->n) *v = args->item[*n], used++;
        for (size_t k = 0; k < args->n_keywords; k++) {
            if (args->keyword[k]->n != length || memcmp(args->keyword[k]->data, name, length)) continue;
            if (v->kind != JINJA_ABSENT)
                JINJA_RAISE(r, "TypeError", "%s() got multiple values for argument '%.*s'", f->name, (int)length, name);
            *v = args->value[k], used++;
        }
        if (needed && v->kind == JINJA_ABSENT)
            JINJA_RAISE(r, "TypeError", "%s() missing a required argument: '%.*s'", f->name, (int)length, name);
        name += length + needed;
        name += *name == ' ';
    }
    if (used < args->n + args->n_keywords)
        JINJA_RAISE(r, "TypeError", "%s() got %zu arguments; wanted at most %zu: %s", f->name, args->n + args->n_keywords, *n,
                    *f->parameters ? f->parameters : "none");
    return CB_OK;
}

enum cb_status jinja_call_builtin(struct jinja_run *r, struct jinja_value *out, const struct jinja_builtin *f,
                                  const struct jinja_value *self, const struct jinja_args *args) {
    struct jinja_value item[MAX_PARAMETERS];
    struct jinja_args bound_args = {.item = item};
    TRY(jinja_work(r, 4));
    if (f->parameters) {
        TRY(bind_parameters(r, item, &bound_args.n, f, args));
        args = &bound_args;
    }
    TRY(jinja_enter(r));
    TRY(f->fn(r, out, self, args));
    r->depth--;
    return CB_OK;
}

static enum cb_status call_cycle(struct jinja_value *out, struct jinja_cycle *c, bool joiner) {
    static const struct jinja_string empty = {.data = ""};
    if (joiner)
        *out = c->at++ ? c->items.item[0] : jinja_of(&empty);
    else
        *out = c->items.item[c->at], c->at = (c->at + 1) % c->items.n;
    return CB_OK;
}

enum cb_status jinja_call_value(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *f, const struct jinja_args *args) {
    switch (f->kind) {
        case JINJA_UNDEFINED: return jinja_refuse_undefined(r, f);
        case JINJA_FUNCTION: return jinja_call_builtin(r, out, f->function->builtin, &f->function->self, args);
        case JINJA_MACRO_VALUE: return jinja_call_macro(r, out, f->closure, args);
        case JINJA_LOOP: return jinja_call_loop(r, out, f->loop, args);
        case JINJA_JOINER: return call_cycle(out, f->cycle, true);
        default: JINJA_RAISE(r, "TypeError", "'%s' object is not callable", jinja_type(f));
    }
}
