/* Operators of Jinja's values: equality, order, membership and arithmetic, as Python has them. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "text/jinja_tree.h"

#define INTEGER_MAX ((jinja_integer)(((unsigned __int128)1 << 127) - 1))

// ---- equality

static bool is_sequence(const struct jinja_value *v) { return v->kind == JINJA_LIST || v->kind == JINJA_TUPLE; }

static enum cb_status lists_equal(struct jinja_run *r, bool *out, const struct jinja_list *a, const struct jinja_list *b) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) TRY(jinja_is_equal(r, out, &a->item[i], &b->item[i]));
    return CB_OK;
}

static enum cb_status dicts_equal(struct jinja_run *r, bool *out, const struct jinja_dict *a, const struct jinja_dict *b) {
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        const struct jinja_value *other;
        TRY(jinja_dict_find(r, &other, b, &a->key[i]));
        *out = other != NULL;
        if (other) TRY(jinja_is_equal(r, out, &a->item[i], other));
    }
    return CB_OK;
}

enum cb_status jinja_is_equal(struct jinja_run *r, bool *out, const struct jinja_value *a, const struct jinja_value *b) {
    TRY(jinja_work(r, 1));
    *out = false;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *out = jinja_is_whole(a) && jinja_is_whole(b) ? jinja_whole(a) == jinja_whole(b) : jinja_number(a) == jinja_number(b);
        return CB_OK;
    }
    if (a->kind != b->kind) return CB_OK;
    switch (a->kind) {
        case JINJA_UNDEFINED:
        case JINJA_NONE:
        case JINJA_SELF: *out = true; return CB_OK;
        case JINJA_STRING:
        case JINJA_BYTES:
            TRY(jinja_work(r, a->string->n / 8));
            *out = a->string->n == b->string->n && !memcmp(a->string->data, b->string->data, a->string->n);
            return CB_OK;
        case JINJA_RANGE: *out = !memcmp(a->range, b->range, sizeof *a->range); return CB_OK;
        case JINJA_LIST:
        case JINJA_TUPLE:
        case JINJA_DICT: break;
        default: *out = a->list == b->list; return CB_OK;  // objects: the same one
    }
    TRY(jinja_enter(r));
    TRY(a->kind == JINJA_DICT ? dicts_equal(r, out, a->dict, b->dict) : lists_equal(r, out, a->list, b->list));
    r->depth--;
    return CB_OK;
}

// ---- order

static int strings_order(const struct jinja_string *a, const struct jinja_string *b) {
    size_t n = a->n < b->n ? a->n : b->n;
    int sign = n ? memcmp(a->data, b->data, n) : 0;  // UTF-8 sorts as its code points do
    return sign < 0 ? -1 : sign > 0 ? 1 : a->n < b->n ? -1 : a->n > b->n;
}

enum cb_status jinja_order(struct jinja_run *r, int *out, const struct jinja_value *a, const struct jinja_value *b, const char *op) {
    TRY(jinja_work(r, 1));
    *out = 0;
    if (jinja_is_whole(a) && jinja_is_whole(b)) {
        *out = jinja_whole(a) < jinja_whole(b) ? -1 : jinja_whole(a) > jinja_whole(b);
        return CB_OK;
    }
    if (jinja_is_number(a) && jinja_is_number(b)) {
        double x = jinja_number(a), y = jinja_number(b);
        *out = x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
        return CB_OK;
    }
    if (a->kind == b->kind && (a->kind == JINJA_STRING || a->kind == JINJA_BYTES)) {
        *out = strings_order(a->string, b->string);
        return jinja_work(r, a->string->n / 8);
    }
    if (a->kind == b->kind && is_sequence(a)) {
        TRY(jinja_enter(r));
        for (size_t i = 0; i < a->list->n && i < b->list->n; i++) {
            bool same;
            TRY(jinja_is_equal(r, &same, &a->list->item[i], &b->list->item[i]));
            if (!same) TRY(jinja_order(r, out, &a->list->item[i], &b->list->item[i], op));
            if (!same) break;
        }
        if (!*out) *out = a->list->n < b->list->n ? -1 : a->list->n > b->list->n;
        r->depth--;
        return CB_OK;
    }
    if (a->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, a);
    if (b->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, b);
    JINJA_RAISE(r, "TypeError", "'%s' not supported between instances of '%s' and '%s'", op, jinja_type(a), jinja_type(b));
}

enum cb_status jinja_contains(struct jinja_run *r, bool *out, const struct jinja_value *item, const struct jinja_value *in) {
    struct jinja_list items;
    *out = false;
    if (in->kind == JINJA_STRING) {
        if (item->kind == JINJA_UNDEFINED && item->undefined->unsafe) return jinja_refuse_undefined(r, item);
        if (item->kind != JINJA_STRING)
            JINJA_RAISE(r, "TypeError", "'in <string>' requires string as left operand, not %s", jinja_type(item));
        TRY(jinja_work(r, in->string->n / 4));
        *out = memmem(in->string->data, in->string->n, item->string->data, item->string->n) != NULL;
        return CB_OK;
    }
    if (in->kind == JINJA_DICT) {
        const struct jinja_value *found;
        TRY(jinja_dict_find(r, &found, in->dict, item));
        *out = found != NULL;
        return CB_OK;
    }
    if (in->kind != JINJA_UNDEFINED && in->kind != JINJA_ITERATOR && in->kind != JINJA_RANGE && in->kind != JINJA_BYTES &&
        jinja_length(in) == SIZE_MAX)
        JINJA_RAISE(r, "TypeError", "argument of type '%s' is not iterable", jinja_type(in));
    TRY(jinja_items(r, &items, in));
    for (size_t i = 0; i < items.n && !*out; i++) TRY(jinja_is_equal(r, out, &items.item[i], item));
    return CB_OK;
}

enum cb_status jinja_compare(struct jinja_run *r, bool *out, const char *op, const struct jinja_value *a, const struct jinja_value *b) {
    if (op[0] == '=' || op[0] == '!') {
        TRY(jinja_is_equal(r, out, a, b));
        *out ^= op[0] == '!';
        return CB_OK;
    }
    if (op[0] == 'i' || op[0] == 'n') {
        TRY(jinja_contains(r, out, a, b));
        *out ^= op[0] == 'n';
        return CB_OK;
    }
    int sign;
    TRY(jinja_order(r, &sign, a, b, op));
    *out = (op[0] == '<' ? sign == -1 : sign == 1) || (op[1] == '=' && sign == 0);
    return CB_OK;
}

// ---- arithmetic

enum cb_status jinja_parse_integer(const char *text, size_t n, int base, jinja_integer *out, bool *fits) {
    jinja_integer value = 0;
    *fits = n > 0;
    for (size_t i = 0; i < n && *fits; i++) {
        char c = text[i] | 32;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
        *fits = digit < base && !__builtin_mul_overflow(value, (jinja_integer)base, &value) &&
                !__builtin_add_overflow(value, (jinja_integer)digit, &value);
    }
    *out = value;
    return CB_OK;
}

static enum cb_status too_big(struct jinja_run *r) { JINJA_RAISE(r, "OverflowError", "an integer of more than 127 bits"); }

static enum cb_status whole_power(struct jinja_run *r, struct jinja_value *out, jinja_integer base, jinja_integer exponent) {
    jinja_integer result = 1;
    if (exponent > 200 && base != 0 && base != 1 && base != -1) return too_big(r);
    if (exponent > 200) exponent = 200 + exponent % 2;
    for (; exponent > 0; exponent--)
        if (__builtin_mul_overflow(result, base, &result)) return too_big(r);
    *out = jinja_int(result);
    return CB_OK;
}

static enum cb_status whole_operate(struct jinja_run *r, struct jinja_value *out, char op, bool is_double, jinja_integer a,
                                    jinja_integer b) {
    jinja_integer result = 0;
    bool over = false;
    if (op == '*' && is_double && b >= 0) return whole_power(r, out, a, b);
    if (op == '+') over = __builtin_add_overflow(a, b, &result);
    if (op == '-') over = __builtin_sub_overflow(a, b, &result);
    if (op == '*') over = __builtin_mul_overflow(a, b, &result);
    if (op == '/' || op == '%') {
        if (b == 0) JINJA_RAISE(r, "ZeroDivisionError", "%s", op == '%' ? "integer modulo by zero" : "integer division or modulo by zero");
        over = a < -INTEGER_MAX && b == -1;
        if (!over) {
            jinja_integer quotient = a / b, rest = a % b;
            // both round towards minus infinity
            if (rest && (rest < 0) != (b < 0)) quotient--, rest += b;
            result = op == '/' ? quotient : rest;
        }
    }
    if (over) return too_big(r);
    *out = jinja_int(result);
    return CB_OK;
}

static enum cb_status real_operate(struct jinja_run *r, struct jinja_value *out, char op, bool is_double, double a, double b) {
    double result = 0;
    if ((op == '/' || op == '%') && b == 0)
        JINJA_RAISE(r, "ZeroDivisionError", "%s",
                    op == '%'   ? "float modulo"
                    : is_double ? "float floor division by zero"
                                : "division by zero");
    if (op == '+') result = a + b;
    if (op == '-') result = a - b;
    if (op == '*') result = is_double ? pow(a, b) : a * b;
    if (op == '*' && is_double && a == 0 && b < 0) JINJA_RAISE(r, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
    if (op == '*' && is_double && isinf(result) && isfinite(a) && isfinite(b))
        JINJA_RAISE(r, "OverflowError", "(34, 'Numerical result out of range')");
    if (op == '/') result = is_double ? floor(a / b) : a / b;
    if (op == '%') {
        result = fmod(a, b);
        if (result != 0 && (result < 0) != (b < 0)) result += b;
        if (result == 0) result = copysign(0, b);
    }
    *out = jinja_real(result);
    return CB_OK;
}

// Text or list, n times.
static enum cb_status repeat(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, jinja_integer times) {
    size_t n = times < 0 ? 0 : times > INT32_MAX ? INT32_MAX : (size_t)times;
    if (v->kind == JINJA_STRING) {
        char *data;
        size_t total = v->string->n && n > SIZE_MAX / 2 / v->string->n ? SIZE_MAX / 2 : v->string->n * n;
        TRY(jinja_new(r, &data, total + 1, 1));
        for (size_t i = 0; i < n && v->string->n; i++) memcpy(data + i * v->string->n, v->string->data, v->string->n);
        return jinja_borrow(r, out, data, total);
    }
    size_t length = v->list->n, total = length && n > SIZE_MAX / 64 / length ? SIZE_MAX / 64 : length * n;
    TRY(jinja_new_list(r, out, v->kind, total));
    for (size_t i = 0; i < total; i++) out->list->item[i] = v->list->item[i % length];
    return CB_OK;
}

static enum cb_status escaped_append(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *a,
                                     const struct jinja_string *b);

static enum cb_status add(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *a, const struct jinja_value *b) {
    if (a->kind == JINJA_STRING) {
        if (b->kind != JINJA_STRING) JINJA_RAISE(r, "TypeError", "can only concatenate str (not \"%s\") to str", jinja_type(b));
        if (a->string->safe || b->string->safe) return escaped_append(r, out, a->string, b->string);
        return jinja_append(r, out, a->string, b->string->data, b->string->n);
    }
    if (a->kind != b->kind)
        JINJA_RAISE(r, "TypeError", "can only concatenate %s (not \"%s\") to %s", jinja_type(a), jinja_type(b), jinja_type(a));
    TRY(jinja_new_list(r, out, a->kind, a->list->n + b->list->n));
    if (a->list->n) memcpy(out->list->item, a->list->item, a->list->n * sizeof *a->list->item);
    if (b->list->n) memcpy(out->list->item + a->list->n, b->list->item, b->list->n * sizeof *b->list->item);
    return CB_OK;
}

// One of two texts is safe HTML: the other is escaped first.
static enum cb_status escaped_append(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *a,
                                     const struct jinja_string *b) {
    const struct jinja_string name = {.data = "e", .n = 1, .points = 1};
    const struct jinja_builtin *escape = jinja_find_filter(&name);
    struct jinja_value x = jinja_of(a), y = jinja_of(b), left, right;
    TRY(jinja_call_builtin(r, &left, escape, &x, &(struct jinja_args){0}));
    TRY(jinja_call_builtin(r, &right, escape, &y, &(struct jinja_args){0}));
    TRY(jinja_append(r, out, left.string, right.string->data, right.string->n));
    ((struct jinja_string *)out->string)->safe = true;
    return CB_OK;
}

enum cb_status jinja_operate(struct jinja_run *r, struct jinja_value *out, const char *op, const struct jinja_value *a,
                             const struct jinja_value *b) {
    bool is_double = op[1] != 0, two = jinja_is_number(a) && jinja_is_number(b), whole = two && jinja_is_whole(a) && jinja_is_whole(b);
    if (a->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, a);
    // text formats whatever is given, undefined too
    if (op[0] == '%' && a->kind == JINJA_STRING) {
        struct jinja_args args = {.item = b, .n = 1};
        if (b->kind == JINJA_TUPLE) args.item = b->list->item, args.n = b->list->n;
        return jinja_format_percent(r, out, a->string, &args);
    }
    if (b->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, b);
    if (whole && !(op[0] == '/' && !is_double) && !(is_double && op[0] == '*' && jinja_whole(b) < 0))
        return whole_operate(r, out, op[0], is_double, jinja_whole(a), jinja_whole(b));
    if (two) return real_operate(r, out, op[0], is_double, jinja_number(a), jinja_number(b));
    if (op[0] == '+' && (a->kind == JINJA_STRING || is_sequence(a))) return add(r, out, a, b);
    if (op[0] == '*' && !is_double) {
        if ((a->kind == JINJA_STRING || is_sequence(a)) && jinja_is_whole(b)) return repeat(r, out, a, jinja_whole(b));
        if ((b->kind == JINJA_STRING || is_sequence(b)) && jinja_is_whole(a)) return repeat(r, out, b, jinja_whole(a));
    }
    JINJA_RAISE(r, "TypeError", "unsupported operand type(s) for %s: '%s' and '%s'", is_double && op[0] == '*' ? "** or pow()" : op,
                jinja_type(a), jinja_type(b));
}

enum cb_status jinja_sign(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *a, bool negative) {
    if (a->kind == JINJA_UNDEFINED) return jinja_refuse_undefined(r, a);
    if (!jinja_is_number(a)) JINJA_RAISE(r, "TypeError", "bad operand type for unary %c: '%s'", negative ? '-' : '+', jinja_type(a));
    if (a->kind == JINJA_FLOAT) {
        *out = jinja_real(negative ? -a->real : a->real);
        return CB_OK;
    }
    if (negative && jinja_whole(a) < -INTEGER_MAX) return too_big(r);
    *out = jinja_int(negative ? -jinja_whole(a) : jinja_whole(a));
    return CB_OK;
}
