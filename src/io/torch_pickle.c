/* The pickle of a state dictionary (PEP 307, protocols 2 to 5) as a machine of a few opcodes over plain values: texts, numbers, tuples, storages, tensors. */
#include <stdio.h>
#include <string.h>

#include "io/torch_private.h"

#define PICKLE_LIMIT (1 << 24)
enum { VALUES_LIMIT = 1 << 21 };  // a value takes far more memory than the byte that may make it

struct machine {
    struct arena *arena;
    const char *where;
    const unsigned char *at, *end;
    struct value **stack, **memo;
    int n, room, n_memo, memo_room;
    int n_values;  // made so far
    bool stopped;
};

/* ---- values */
static enum cb_status spoilt(const struct machine *m, const char *what, struct cb_err *err) {
    FAIL(err, CB_E_FORMAT, "%s: %s", m->where, what);
}

static enum cb_status list_room(struct machine *m, struct value ***list, int n, int *room, struct cb_err *err) {
    if (n < *room) return CB_OK;
    const int size = *room ? 2 * *room : 32;
    struct value **grown = arena_array(m->arena, (size_t)size, sizeof *grown);
    if (!grown) FAIL(err, CB_E_MEMORY, "%s: no memory for its values", m->where);
    if (n) memcpy(grown, *list, (size_t)n * sizeof *grown);
    *list = grown;
    *room = size;
    return CB_OK;
}

static enum cb_status push(struct machine *m, struct value *v, struct cb_err *err) {
    TRY(list_room(m, &m->stack, m->n, &m->room, err));
    m->stack[m->n++] = v;
    return CB_OK;
}

static enum cb_status make(struct machine *m, struct value **v, enum kind kind, struct cb_err *err) {
    if (m->n_values++ == VALUES_LIMIT) FAIL(err, CB_E_LIMIT, "%s: a pickle of more than %d values", m->where, VALUES_LIMIT);
    *v = arena_alloc(m->arena, sizeof **v);
    if (!*v) FAIL(err, CB_E_MEMORY, "%s: no memory for its values", m->where);
    (*v)->kind = kind;
    return push(m, *v, err);
}

static enum cb_status push_number(struct machine *m, int64_t number, struct cb_err *err) {
    struct value *v = NULL;
    TRY(make(m, &v, NUMBER, err));
    v->number = number;
    return CB_OK;
}

static enum cb_status pop(struct machine *m, struct value **v, struct cb_err *err) {
    if (!m->n || m->stack[m->n - 1]->kind == MARK) return spoilt(m, "a pickle that takes more than it made", err);
    *v = m->stack[--m->n];
    return CB_OK;
}

/* How many values lie above the last mark, which goes. */
static enum cb_status above_mark(struct machine *m, int *n, struct cb_err *err) {
    int i = m->n;
    while (i > 0 && m->stack[i - 1]->kind != MARK) i--;
    if (!i) return spoilt(m, "a pickle without the mark that it goes back to", err);
    *n = m->n - i;
    memmove(&m->stack[i - 1], &m->stack[i], (size_t)*n * sizeof *m->stack);
    m->n--;
    return CB_OK;
}

/* n bytes that follow. */
static enum cb_status take(struct machine *m, const unsigned char **p, uint64_t n, struct cb_err *err) {
    if (n > (uint64_t)(m->end - m->at))
        FAIL(err, CB_E_FORMAT, "%s: a pickle that ends too early, or is over %d bytes long", m->where, PICKLE_LIMIT);
    *p = m->at;
    m->at += n;
    return CB_OK;
}

static enum cb_status take_number(struct machine *m, uint64_t *x, int n, struct cb_err *err) {
    const unsigned char *p = NULL;
    TRY(take(m, &p, (uint64_t)n, err));
    for (*x = 0; n-- > 0;) *x = *x << 8 | p[n];
    return CB_OK;
}

/* ---- what names do */
static const struct {
    const char *name;
    enum cb_dtype dtype;
} storages[] = {
    {"torch.BFloat16Storage", CB_DTYPE_BF16}, {"torch.BoolStorage", CB_DTYPE_BOOL},  {"torch.ByteStorage", CB_DTYPE_U8},
    {"torch.CharStorage", CB_DTYPE_I8},       {"torch.DoubleStorage", CB_DTYPE_F64}, {"torch.FloatStorage", CB_DTYPE_F32},
    {"torch.HalfStorage", CB_DTYPE_F16},      {"torch.IntStorage", CB_DTYPE_I32},    {"torch.LongStorage", CB_DTYPE_I64},
    {"torch.ShortStorage", CB_DTYPE_I16},
};

static bool is_kind(const struct value *tuple, int i, enum kind kind) { return i < tuple->n && tuple->item[i]->kind == kind; }

/* How far an element lies from the first at most; -1: farther than `most`, or a step goes back. */
static int64_t reach(const struct value *sizes, const struct value *strides, int64_t most) {
    int64_t far = 0;
    for (int i = 0; i < sizes->n; i++) {
        const int64_t steps = sizes->item[i]->number - 1, by = strides->item[i]->number;
        if (by < 0 || (steps > 0 && by > (most - far) / steps)) return -1;
        far += steps > 0 ? steps * by : 0;
    }
    return far;
}

/* (storage, first element, sizes, strides, ...); no tensor has more elements than its storage, so nothing small grows large. */
static enum cb_status rebuild_tensor(struct machine *m, struct value *args, struct cb_err *err) {
    struct value *v = NULL;
    if (!is_kind(args, 0, STORAGE) || !is_kind(args, 1, NUMBER) || !is_kind(args, 2, TUPLE) || !is_kind(args, 3, TUPLE))
        return spoilt(m, "a tensor that is not made of a storage, an offset, sizes and strides", err);
    const struct value *sizes = args->item[2], *strides = args->item[3];
    if (sizes->n != strides->n || sizes->n > CB_MAX_RANK)
        FAIL(err, CB_E_LIMIT, "%s: a tensor of %d axes; at most %d", m->where, sizes->n, CB_MAX_RANK);
    TRY(make(m, &v, TENSOR, err));
    v->storage = args->item[0];
    v->offset = args->item[1]->number;
    v->type = (struct cb_type){.dtype = v->storage->type.dtype, .rank = sizes->n};
    for (int i = 0; i < sizes->n; i++) {
        if (!is_kind(sizes, i, NUMBER) || !is_kind(strides, i, NUMBER)) return spoilt(m, "a tensor whose sizes are no numbers", err);
        v->type.dim[i] = sizes->item[i]->number;
    }
    TRY(type_check(&v->type, m->where, err));
    const int64_t elements = type_elements(&v->type);
    int64_t step = 1;
    for (int i = sizes->n; i-- > 0; step *= v->type.dim[i])
        if (v->type.dim[i] != 1 && strides->item[i]->number != step) v->strides = strides;
    if (v->offset < 0 || v->offset > v->storage->number || elements > v->storage->number - v->offset)
        FAIL(err, CB_E_FORMAT, "%s: a tensor of %lld elements from %lld; its storage has %lld", m->where, (long long)elements,
             (long long)v->offset, (long long)v->storage->number);
    if (!elements) v->strides = NULL;
    if (v->strides && reach(sizes, strides, v->storage->number - v->offset - 1) < 0)
        return spoilt(m, "a tensor whose strides leave its storage", err);
    return CB_OK;
}

static enum cb_status rebuild_parameter(struct machine *m, struct value *args, struct cb_err *err) {
    if (!is_kind(args, 0, TENSOR)) return spoilt(m, "a parameter that is no tensor", err);
    return push(m, args->item[0], err);
}

static enum cb_status ordered_dictionary(struct machine *m, struct value *args, struct cb_err *err) {
    struct value *v = NULL;
    if (args->n) return spoilt(m, "a dictionary made of something; wanted it empty", err);
    return make(m, &v, DICTIONARY, err);
}

static const struct {
    const char *name;
    enum cb_status (*call)(struct machine *m, struct value *args, struct cb_err *err);
} functions[] = {
    {"collections.OrderedDict", ordered_dictionary},
    {"torch._utils._rebuild_parameter", rebuild_parameter},
    {"torch._utils._rebuild_tensor_v2", rebuild_tensor},
};

/* A name that may be pushed: of a storage or of one of the functions above. */
static enum cb_status push_name(struct machine *m, const char *module, size_t n, const char *name, size_t n_name, struct cb_err *err) {
    struct value *v = NULL;
    char text[160];
    snprintf(text, sizeof text, "%.*s.%.*s", (int)(n < 80 ? n : 80), module, (int)(n_name < 70 ? n_name : 70), name);
    TRY(make(m, &v, NAME, err));
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, text) == 0) v->text = functions[i].name;
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++)
        if (strcmp(storages[i].name, text) == 0) v->text = storages[i].name;
    if (!v->text) FAIL(err, CB_E_UNSUPPORTED, "%s: found %s; wanted a dictionary of tensors alone", m->where, text);
    return CB_OK;
}

/* ---- opcodes: arg is what tells those apart that share a function */
static enum cb_status op_skip(struct machine *m, int arg, struct cb_err *err) {
    const unsigned char *p = NULL;
    return take(m, &p, (uint64_t)arg, err);
}
static enum cb_status op_make(struct machine *m, int arg, struct cb_err *err) {
    struct value *v = NULL;
    return make(m, &v, (enum kind)arg, err);
}
static enum cb_status op_flag(struct machine *m, int arg, struct cb_err *err) { return push_number(m, arg, err); }
static enum cb_status op_unsigned(struct machine *m, int arg, struct cb_err *err) {
    uint64_t x;
    TRY(take_number(m, &x, arg, err));
    return push_number(m, (int64_t)x, err);
}
static enum cb_status op_int(struct machine *m, int arg, struct cb_err *err) {
    uint64_t x;
    TRY(take_number(m, &x, arg, err));
    return push_number(m, (int32_t)(uint32_t)x, err);
}
/* A number of as many bytes as the next one says. */
static enum cb_status op_long(struct machine *m, int arg, struct cb_err *err) {
    uint64_t n, x;
    TRY(take_number(m, &n, arg, err));
    if (n > 8) return spoilt(m, "a number of more than 64 bits", err);
    TRY(take_number(m, &x, (int)n, err));
    if (n && n < 8 && x >> (8 * n - 1)) x |= UINT64_MAX << (8 * n);
    return push_number(m, (int64_t)x, err);
}
static enum cb_status op_text(struct machine *m, int arg, struct cb_err *err) {
    uint64_t n;
    const unsigned char *p = NULL;
    struct value *v = NULL;
    TRY(take_number(m, &n, arg, err));
    TRY(take(m, &p, n, err));
    TRY(make(m, &v, TEXT, err));
    if (memchr(p, 0, n)) return spoilt(m, "a text that holds NUL", err);
    v->text = arena_strndup(m->arena, (const char *)p, n);
    if (!v->text) FAIL(err, CB_E_MEMORY, "%s: no memory for its values", m->where);
    return CB_OK;
}
static enum cb_status memo_put(struct machine *m, uint64_t i, struct cb_err *err) {
    // every one takes an opcode, so none lies beyond the pickle's length
    if (!m->n || i >= PICKLE_LIMIT || i > (uint64_t)m->n_memo) return spoilt(m, "a pickle that keeps nothing, or out of order", err);
    if (i == (uint64_t)m->n_memo) {
        TRY(list_room(m, &m->memo, m->n_memo, &m->memo_room, err));
        m->n_memo++;
    }
    m->memo[i] = m->stack[m->n - 1];
    return CB_OK;
}
static enum cb_status op_put(struct machine *m, int arg, struct cb_err *err) {
    uint64_t i;
    TRY(take_number(m, &i, arg, err));
    return memo_put(m, i, err);
}
static enum cb_status op_memoize(struct machine *m, int arg, struct cb_err *err) {
    (void)arg;
    return memo_put(m, (uint64_t)m->n_memo, err);
}
static enum cb_status op_get(struct machine *m, int arg, struct cb_err *err) {
    uint64_t i;
    TRY(take_number(m, &i, arg, err));
    if (i >= (uint64_t)m->n_memo || m->memo[i]->kind == MARK) return spoilt(m, "a pickle that recalls what it did not keep", err);
    return push(m, m->memo[i], err);
}
/* A tuple of the last n values; n -1: of those above the mark. */
static enum cb_status op_tuple(struct machine *m, int n, struct cb_err *err) {
    if (n < 0) TRY(above_mark(m, &n, err));
    struct value *v = NULL, **item = arena_array(m->arena, (size_t)n + 1, sizeof *item);
    if (!item) FAIL(err, CB_E_MEMORY, "%s: no memory for its values", m->where);
    for (int i = n; i-- > 0;) TRY(pop(m, &item[i], err));
    TRY(make(m, &v, TUPLE, err));
    v->item = item;
    v->n = n;
    v->room = n + 1;
    return CB_OK;
}
/* The last n values, or (n -1) those above the mark, into the value of this kind below; in multiples of `unit`. */
static enum cb_status put_into(struct machine *m, int n, enum kind kind, int unit, struct cb_err *err) {
    if (n < 0) TRY(above_mark(m, &n, err));
    struct value *v = n < m->n ? m->stack[m->n - n - 1] : NULL;
    if (n % unit || !v || v->kind != kind) return spoilt(m, "values that go into no list or dictionary", err);
    for (int i = 0; i < n; i++) {
        TRY(list_room(m, &v->item, v->n, &v->room, err));
        v->item[v->n++] = m->stack[m->n - n + i];
    }
    m->n -= n;
    return CB_OK;
}
/* A list is a tuple that grows. */
static enum cb_status op_append(struct machine *m, int n, struct cb_err *err) { return put_into(m, n, TUPLE, 1, err); }
static enum cb_status op_set(struct machine *m, int n, struct cb_err *err) { return put_into(m, n, DICTIONARY, 2, err); }
static enum cb_status op_name(struct machine *m, int arg, struct cb_err *err) {
    (void)arg;
    const unsigned char *line[2];
    size_t n[2];
    for (int i = 0; i < 2; i++) {
        const unsigned char *stop = memchr(m->at, '\n', (size_t)(m->end - m->at));
        if (!stop) return spoilt(m, "a name without end", err);
        line[i] = m->at;
        n[i] = (size_t)(stop - m->at);
        m->at = stop + 1;
    }
    return push_name(m, (const char *)line[0], n[0], (const char *)line[1], n[1], err);
}
static enum cb_status op_stack_name(struct machine *m, int arg, struct cb_err *err) {
    (void)arg;
    struct value *name = NULL, *module = NULL;
    TRY(pop(m, &name, err));
    TRY(pop(m, &module, err));
    if (name->kind != TEXT || module->kind != TEXT) return spoilt(m, "a name that is no text", err);
    return push_name(m, module->text, strlen(module->text), name->text, strlen(name->text), err);
}
static enum cb_status op_reduce(struct machine *m, int arg, struct cb_err *err) {
    (void)arg;
    struct value *args = NULL, *function = NULL;
    TRY(pop(m, &args, err));
    TRY(pop(m, &function, err));
    for (size_t i = 0; function->kind == NAME && args->kind == TUPLE && i < sizeof functions / sizeof *functions; i++)
        if (function->text == functions[i].name) return functions[i].call(m, args, err);
    return spoilt(m, "a call of something that is no function of tensors", err);
}
/* The state of a dictionary (its metadata) is left. */
static enum cb_status op_build(struct machine *m, int arg, struct cb_err *err) {
    (void)arg;
    struct value *state = NULL;
    TRY(pop(m, &state, err));
    return m->n && m->stack[m->n - 1]->kind == DICTIONARY ? CB_OK : spoilt(m, "a state of something that is no dictionary", err);
}
/* ("storage", its type, the member's name, the device, elements); in files without an archive None follows: it is no part of another. */
static enum cb_status op_storage(struct machine *m, int arg, struct cb_err *err) {
    (void)arg;
    struct value *id = NULL, *v = NULL;
    TRY(pop(m, &id, err));
    if (id->kind != TUPLE || !is_kind(id, 1, NAME) || !is_kind(id, 2, TEXT) || !is_kind(id, 4, NUMBER) ||
        (id->n > 5 && !is_kind(id, 5, NOTHING)))
        return spoilt(m, "a storage without a type, a name or a length", err);
    TRY(make(m, &v, STORAGE, err));
    v->text = id->item[2]->text;
    v->number = id->item[4]->number;
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++) {
        if (id->item[1]->text != storages[i].name) continue;
        v->type = (struct cb_type){.dtype = storages[i].dtype, .rank = 1, .dim = {v->number}};
        return v->number < 0 ? spoilt(m, "a storage of negative length", err) : CB_OK;
    }
    return spoilt(m, "a storage of no known type", err);
}
static enum cb_status op_stop(struct machine *m, int arg, struct cb_err *err) {
    (void)arg, (void)err;
    m->stopped = true;
    return CB_OK;
}

static const struct {
    unsigned char code;
    enum cb_status (*run)(struct machine *m, int arg, struct cb_err *err);
    int arg;
} opcodes[] = {
    {0x80, op_skip, 1} /* PROTO */,
    {0x95, op_skip, 8} /* FRAME */,
    {'}', op_make, DICTIONARY},
    {']', op_make, TUPLE},
    {'a', op_append, 1},
    {'e', op_append, -1},
    {'(', op_make, MARK},
    {'N', op_make, NOTHING},
    {0x88, op_flag, 1},
    {0x89, op_flag, 0},
    {'K', op_unsigned, 1},
    {'M', op_unsigned, 2},
    {'J', op_int, 4},
    {0x8a, op_long, 1},
    {'X', op_text, 4},
    {0x8c, op_text, 1},
    {0x8d, op_text, 8},
    {'q', op_put, 1},
    {'r', op_put, 4},
    {0x94, op_memoize, 0},
    {'h', op_get, 1},
    {'j', op_get, 4},
    {')', op_tuple, 0},
    {0x85, op_tuple, 1},
    {0x86, op_tuple, 2},
    {0x87, op_tuple, 3},
    {'t', op_tuple, -1},
    {'s', op_set, 2},
    {'u', op_set, -1},
    {'c', op_name, 0},
    {0x93, op_stack_name, 0},
    {'R', op_reduce, 0},
    {'b', op_build, 0},
    {'Q', op_storage, 0},
    {'.', op_stop, 0},
};

enum cb_status pickle_run(struct value **root, struct arena *arena, const char *where, const unsigned char **at, const unsigned char *end,
                          struct cb_err *err) {
    struct machine machine = {.arena = arena, .where = where, .at = *at, .end = end}, *m = &machine;
    if (end - *at > PICKLE_LIMIT) m->end = *at + PICKLE_LIMIT;
    while (!m->stopped) {
        const unsigned char *code = NULL;
        size_t i = 0;
        TRY(take(m, &code, 1, err));
        while (i < sizeof opcodes / sizeof *opcodes && opcodes[i].code != *code) i++;
        if (i == sizeof opcodes / sizeof *opcodes)
            FAIL(err, CB_E_UNSUPPORTED, "%s: opcode 0x%02x; wanted a dictionary of tensors alone", m->where, *code);
        TRY(opcodes[i].run(m, opcodes[i].arg, err));
    }
    if (m->n != 1) return spoilt(m, "a pickle of more than one value, or none", err);
    *root = m->stack[0];
    *at = m->at;
    return CB_OK;
}
