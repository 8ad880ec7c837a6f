/* Jinja's tests (`x is odd`), its globals, and the tables in which builtins are found. */
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/jinja_builtin.h"
#include "text/utf8.h"

static enum cb_status answer(struct jinja_value *out, bool yes) {
    *out = jinja_bool(yes);
    return CB_OK;
}

// ---- kinds

#define KIND_TEST(name, condition) \
    static enum cb_status name(FILTER) { return (void)r, (void)args, answer(out, condition); }
KIND_TEST(t_defined, self->kind != JINJA_UNDEFINED)
KIND_TEST(t_undefined, self->kind == JINJA_UNDEFINED)
KIND_TEST(t_none, self->kind == JINJA_NONE)
KIND_TEST(t_boolean, self->kind == JINJA_BOOL)
KIND_TEST(t_true, self->kind == JINJA_BOOL && self->boolean)
KIND_TEST(t_false, self->kind == JINJA_BOOL && !self->boolean)
KIND_TEST(t_integer, self->kind == JINJA_INT)
KIND_TEST(t_float, self->kind == JINJA_FLOAT)
KIND_TEST(t_number, jinja_is_number(self))
KIND_TEST(t_string, self->kind == JINJA_STRING)
KIND_TEST(t_mapping, self->kind == JINJA_DICT)
KIND_TEST(t_iterable, self->kind == JINJA_ITERATOR || self->kind == JINJA_LOOP || jinja_length(self) != SIZE_MAX)
KIND_TEST(t_sequence, self->kind != JINJA_VIEW && jinja_length(self) != SIZE_MAX)
KIND_TEST(t_callable, self->kind == JINJA_FUNCTION || self->kind == JINJA_MACRO_VALUE || self->kind == JINJA_LOOP ||
                          self->kind == JINJA_JOINER || self->kind == JINJA_UNDEFINED)
KIND_TEST(t_escaped, self->kind == JINJA_STRING && self->string->safe)

static enum cb_status t_sameas(FILTER) {
    bool same = self->kind == ARG(0)->kind;
    if (same && (self->kind <= JINJA_BYTES))
        TRY(jinja_is_equal(r, &same, self, ARG(0)));
    else if (same)
        same = self->list == ARG(0)->list;
    return answer(out, same);
}

// ---- numbers and order

static enum cb_status rest(struct jinja_run *r, const struct jinja_value *self, jinja_integer by, bool *zero, bool *one) {
    struct jinja_value divisor = jinja_int(by), left;
    TRY(jinja_operate(r, &left, "%", self, &divisor));
    *zero = jinja_is_number(&left) && jinja_number(&left) == 0;
    *one = jinja_is_number(&left) && jinja_number(&left) == 1;
    return CB_OK;
}
static enum cb_status t_odd(FILTER) {
    bool zero, one;
    (void)args;
    TRY(rest(r, self, 2, &zero, &one));
    return answer(out, one);
}
static enum cb_status t_even(FILTER) {
    bool zero, one;
    (void)args;
    TRY(rest(r, self, 2, &zero, &one));
    return answer(out, zero);
}
static enum cb_status t_divisibleby(FILTER) {
    struct jinja_value left;
    TRY(jinja_operate(r, &left, "%", self, ARG(0)));
    return answer(out, jinja_is_number(&left) && jinja_number(&left) == 0);
}

static enum cb_status compared(struct jinja_run *r, struct jinja_value *out, const char *op, const struct jinja_value *a,
                               const struct jinja_value *b) {
    bool holds;
    TRY(jinja_compare(r, &holds, op, a, b));
    return answer(out, holds);
}
static enum cb_status t_eq(FILTER) { return compared(r, out, "==", self, ARG(0)); }
static enum cb_status t_ne(FILTER) { return compared(r, out, "!=", self, ARG(0)); }
static enum cb_status t_gt(FILTER) { return compared(r, out, ">", self, ARG(0)); }
static enum cb_status t_ge(FILTER) { return compared(r, out, ">=", self, ARG(0)); }
static enum cb_status t_lt(FILTER) { return compared(r, out, "<", self, ARG(0)); }
static enum cb_status t_le(FILTER) { return compared(r, out, "<=", self, ARG(0)); }
static enum cb_status t_in(FILTER) { return compared(r, out, "in", self, ARG(0)); }

// ---- text, names

static enum cb_status cased(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const char *method) {
    struct jinja_value text, f;
    const struct jinja_string name = {.data = method, .n = strlen(method), .points = SIZE_MAX};
    TRY(jinja_str(r, &text, self));
    TRY(jinja_attribute(r, &f, &text, &name));
    return jinja_call_value(r, out, &f, &(struct jinja_args){0});
}
static enum cb_status t_lower(FILTER) { return (void)args, cased(r, out, self, "islower"); }
static enum cb_status t_upper(FILTER) { return (void)args, cased(r, out, self, "isupper"); }
static enum cb_status t_filter(FILTER) {
    (void)r, (void)args;
    return answer(out, self->kind == JINJA_STRING && jinja_find_filter(self->string));
}
static enum cb_status t_test(FILTER) {
    (void)r, (void)args;
    return answer(out, self->kind == JINJA_STRING && jinja_find_test(self->string));
}

static const struct jinja_builtin tests[] = {{"defined", t_defined, ""},
                                             {"undefined", t_undefined, ""},
                                             {"none", t_none, ""},
                                             {"boolean", t_boolean, ""},
                                             {"true", t_true, ""},
                                             {"false", t_false, ""},
                                             {"integer", t_integer, ""},
                                             {"float", t_float, ""},
                                             {"number", t_number, ""},
                                             {"string", t_string, ""},
                                             {"mapping", t_mapping, ""},
                                             {"iterable", t_iterable, ""},
                                             {"sequence", t_sequence, ""},
                                             {"callable", t_callable, ""},
                                             {"escaped", t_escaped, ""},
                                             {"sameas", t_sameas, "other!"},
                                             {"odd", t_odd, ""},
                                             {"even", t_even, ""},
                                             {"divisibleby", t_divisibleby, "num!"},
                                             {"eq", t_eq, "other!"},
                                             {"equalto", t_eq, "other!"},
                                             {"==", t_eq, "other!"},
                                             {"ne", t_ne, "other!"},
                                             {"!=", t_ne, "other!"},
                                             {"gt", t_gt, "other!"},
                                             {"greaterthan", t_gt, "other!"},
                                             {">", t_gt, "other!"},
                                             {"ge", t_ge, "other!"},
                                             {">=", t_ge, "other!"},
                                             {"lt", t_lt, "other!"},
                                             {"lessthan", t_lt, "other!"},
                                             {"<", t_lt, "other!"},
                                             {"le", t_le, "other!"},
                                             {"<=", t_le, "other!"},
                                             {"in", t_in, "seq!"},
                                             {"lower", t_lower, ""},
                                             {"upper", t_upper, ""},
                                             {"filter", t_filter, ""},
                                             {"test", t_test, ""},
                                             {0}};

// ---- globals

static enum cb_status g_range(FILTER) {
    jinja_integer part[3] = {0, 0, 1};
    struct jinja_range *range;
    (void)self;
    if (args->n_keywords || args->n < 1 || args->n > 3)
        JINJA_RAISE(r, "TypeError", "range expected 1 to 3 arguments, got %zu", args->n + args->n_keywords);
    for (size_t i = 0; i < args->n; i++) {
        if (args->item[i].kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, &args->item[i]);
        if (!jinja_is_whole(&args->item[i]))
            JINJA_RAISE(r, "TypeError", "'%s' object cannot be interpreted as an integer", jinja_type(&args->item[i]));
        part[args->n == 1 ? 1 : i] = jinja_whole(&args->item[i]);
    }
    if (!part[2]) JINJA_RAISE(r, "ValueError", "range() arg 3 must not be zero");
    for (int i = 0; i < 3; i++)
        if (part[i] > INT32_MAX || part[i] < -INT32_MAX) JINJA_RAISE(r, "OverflowError", "Range too big.");
    jinja_integer span = part[2] > 0 ? part[1] - part[0] : part[0] - part[1], step = part[2] > 0 ? part[2] : -part[2];
    jinja_integer n = span > 0 ? (span + step - 1) / step : 0;
    if (n > JINJA_MAX_RANGE)
        JINJA_RAISE(r, "OverflowError", "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", JINJA_MAX_RANGE);
    TRY(jinja_new(r, &range, 1, sizeof *range));
    *range = (struct jinja_range){(int64_t)part[0], (int64_t)part[1], (int64_t)part[2], (int64_t)n};
    *out = (struct jinja_value){.kind = JINJA_RANGE, .range = range};
    return CB_OK;
}

// A dictionary, or pairs, and keywords: what dict() and namespace() take.
static enum cb_status make_dict(struct jinja_run *r, struct jinja_value *out, const struct jinja_args *args, enum jinja_kind kind) {
    struct jinja_list pairs, pair;
    TRY(jinja_new_dict(r, out, kind));
    if (args->n > 1) JINJA_RAISE(r, "TypeError", "dict expected at most 1 argument, got %zu", args->n);
    if (args->n && args->item[0].kind == JINJA_DICT) {
        const struct jinja_dict *d = args->item[0].dict;
        for (size_t i = 0; i < d->n; i++) TRY(jinja_dict_put(r, out->dict, &d->key[i], &d->item[i]));
    } else if (args->n) {
        TRY(jinja_items(r, &pairs, &args->item[0]));
        for (size_t i = 0; i < pairs.n; i++) {
            TRY(jinja_items(r, &pair, &pairs.item[i]));
            if (pair.n != 2)
                JINJA_RAISE(r, "ValueError", "dictionary update sequence element #%zu has length %zu; 2 is required", i, pair.n);
            TRY(jinja_dict_put(r, out->dict, &pair.item[0], &pair.item[1]));
        }
    }
    for (size_t k = 0; k < args->n_keywords; k++) {
        struct jinja_value key = jinja_of(args->keyword[k]);
        TRY(jinja_dict_put(r, out->dict, &key, &args->value[k]));
    }
    return CB_OK;
}
static enum cb_status g_dict(FILTER) { return (void)self, make_dict(r, out, args, JINJA_DICT); }
static enum cb_status g_namespace(FILTER) { return (void)self, make_dict(r, out, args, JINJA_NAMESPACE); }

static enum cb_status make_cycle(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, const struct jinja_value *item,
                                 size_t n) {
    struct jinja_cycle *c;
    TRY(jinja_new(r, &c, 1, sizeof *c));
    TRY(jinja_new(r, &c->items.item, n, sizeof *item));
    memcpy(c->items.item, item, n * sizeof *item);
    c->items.n = n;
    *out = (struct jinja_value){.kind = kind, .cycle = c};
    return CB_OK;
}
static enum cb_status g_cycler(FILTER) {
    (void)self;
    if (!args->n || args->n_keywords) JINJA_RAISE(r, "RuntimeError", "at least one item has to be provided");
    return make_cycle(r, out, JINJA_CYCLER, args->item, args->n);
}
static enum cb_status g_joiner(FILTER) {
    static const struct jinja_string comma = {.data = ", ", .n = 2, .points = 2};
    struct jinja_value with = ARG(0)->kind == JINJA_ABSENT ? jinja_of(&comma) : *ARG(0);
    (void)self;
    return make_cycle(r, out, JINJA_JOINER, &with, 1);
}

static enum cb_status g_lipsum(FILTER) {
    (void)out, (void)self, (void)args;
    FAIL(r->err, CB_E_UNSUPPORTED, "lipsum() makes filler text, which no chat needs");
}

static enum cb_status g_raise_exception(FILTER) {
    struct jinja_value text;
    (void)out, (void)self;
    TRY(jinja_str(r, &text, ARG(0)));
    JINJA_RAISE(r, "TemplateError", "%.*s", text.string->n > 900 ? 900 : (int)text.string->n, text.string->data);
}

static enum cb_status g_strftime_now(FILTER) {
    const struct jinja_string *format;
    char text[1024], pattern[256];
    (void)self;
    TRY(jinja_need_string(r, &format, ARG(0)));
    if (format->n >= sizeof pattern || memchr(format->data, 0, format->n))
        JINJA_RAISE(r, "ValueError", "strftime_now: a format of %zu bytes", format->n);
    memcpy(pattern, format->data, format->n);
    pattern[format->n] = 0;
    struct tm now;
    time_t seconds = time(NULL);
    if (r->now)
        now = *r->now;
    else if (!localtime_r(&seconds, &now))
        JINJA_RAISE(r, "OSError", "strftime_now: no local time");
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) FAIL(r->err, CB_E_MEMORY, "rendering: out of memory");
    size_t n = *pattern ? strftime_l(text, sizeof text, pattern, &now, plain) : 0;
    freelocale(plain);
    // widths in the pattern make bytes that are no UTF-8 impossible: it is cut nowhere
    return jinja_text(r, out, text, utf8_check(text, n));
}

static const struct jinja_builtin globals[] = {{"range", g_range, NULL},
                                               {"dict", g_dict, NULL},
                                               {"namespace", g_namespace, NULL},
                                               {"cycler", g_cycler, NULL},
                                               {"joiner", g_joiner, "sep"},
                                               {"lipsum", g_lipsum, NULL},
                                               {"raise_exception", g_raise_exception, "message!"},
                                               {"strftime_now", g_strftime_now, "format!"},
                                               {0}};

// ---- tables

const struct jinja_builtin *jinja_find_filter(const struct jinja_string *name) {
    const struct jinja_builtin *const tables[] = {jinja_text_filters, jinja_list_filters, jinja_more_filters};
    const struct jinja_builtin *found = NULL;
    for (size_t i = 0; i < sizeof tables / sizeof *tables && !found; i++) found = jinja_find_builtin(tables[i], name);
    return found;
}
const struct jinja_builtin *jinja_find_test(const struct jinja_string *name) { return jinja_find_builtin(tests, name); }
const struct jinja_builtin *jinja_find_global(const struct jinja_string *name) { return jinja_find_builtin(globals, name); }
