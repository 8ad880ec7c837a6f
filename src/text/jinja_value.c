/* Making Jinja's values: strings, lists, dictionaries, values from JSON; their lengths, truth and items. */
#include "text/jinja_value.h"

#include <string.h>

#include "text/jinja_tree.h"
#include "text/utf8.h"

enum cb_status jinja_work(struct jinja_run *r, size_t n) {
    if (n > r->max_work - r->work) FAIL(r->err, CB_E_LIMIT, "rendering takes over %llu steps", (unsigned long long)r->max_work);
    r->work += n;
    return CB_OK;
}

enum cb_status jinja_enter(struct jinja_run *r) {
    if (r->depth >= JINJA_MAX_DEPTH) FAIL(r->err, CB_E_LIMIT, "RecursionError: over %d levels deep", JINJA_MAX_DEPTH);
    r->depth++;
    return CB_OK;
}

enum cb_status jinja_new(struct jinja_run *r, void *out, size_t n, size_t bytes) {
    size_t total;
    if (__builtin_mul_overflow(n, bytes, &total) || total > r->max_bytes - r->bytes)
        FAIL(r->err, CB_E_LIMIT, "rendering holds over %zu bytes", r->max_bytes);
    r->bytes += total;
    TRY(jinja_work(r, total / 16));
    void *made = arena_alloc(r->arena, total);
    if (!made) FAIL(r->err, CB_E_MEMORY, "rendering: out of memory for %zu bytes", total);
    memcpy(out, &made, sizeof made);
    return CB_OK;
}

// ---- strings

struct jinja_tail {
    char *data;
    size_t used, capacity;
};

enum cb_status jinja_borrow(struct jinja_run *r, struct jinja_value *out, const char *data, size_t n) {
    struct jinja_string *s;
    TRY(jinja_new(r, &s, 1, sizeof *s));
    *s = (struct jinja_string){.data = data, .n = n, .points = SIZE_MAX};
    *out = jinja_of(s);
    return CB_OK;
}
enum cb_status jinja_text(struct jinja_run *r, struct jinja_value *out, const char *data, size_t n) {
    char *copy;
    TRY(jinja_new(r, &copy, n + 1, 1));
    if (n) memcpy(copy, data, n);
    return jinja_borrow(r, out, copy, n);
}
enum cb_status jinja_cstring(struct jinja_run *r, struct jinja_value *out, const char *data) {
    return jinja_borrow(r, out, data, strlen(data));
}

enum cb_status jinja_append(struct jinja_run *r, struct jinja_value *out, const struct jinja_string *a, const char *data, size_t n) {
    struct jinja_tail *tail = a->tail;
    struct jinja_string *s;
    TRY(jinja_work(r, n / 8));
    if (!tail || tail->data + tail->used != a->data + a->n || tail->capacity - tail->used < n) {
        size_t capacity = a->n + n < 32 ? 64 : 2 * (a->n + n);
        TRY(jinja_new(r, &tail, 1, sizeof *tail));
        TRY(jinja_new(r, &tail->data, capacity, 1));
        if (a->n) memcpy(tail->data, a->data, a->n);
        tail->used = a->n, tail->capacity = capacity;
    }
    if (n) memcpy(tail->data + tail->used, data, n);
    tail->used += n;
    TRY(jinja_borrow(r, out, tail->data + tail->used - n - a->n, a->n + n));
    s = (struct jinja_string *)out->string;
    s->tail = tail;
    return CB_OK;
}

size_t jinja_points(const struct jinja_string *s) {
    struct jinja_string *counted = (struct jinja_string *)s;
    if (s->points != SIZE_MAX) return s->points;
    return counted->points = utf8_count(s->data, s->n);
}
size_t jinja_offset(const struct jinja_string *s, size_t point) {
    size_t at = 0;
    if (jinja_points(s) == s->n) return point < s->n ? point : s->n;
    while (point-- && at < s->n) at += (size_t)utf8_length(s->data[at]);
    return at < s->n ? at : s->n;
}

// ---- lists

enum cb_status jinja_new_list(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, size_t n) {
    struct jinja_list *list;
    TRY(jinja_new(r, &list, 1, sizeof *list));
    TRY(jinja_new(r, &list->item, n, sizeof *list->item));
    list->n = n;
    list->type = "generator";
    *out = (struct jinja_value){.kind = kind, .list = list};
    return CB_OK;
}

enum cb_status jinja_push(struct jinja_run *r, struct jinja_items *items, const struct jinja_value *v) {
    if (items->n == items->capacity) {
        struct jinja_value *more;
        size_t capacity = items->capacity ? 2 * items->capacity : 8;
        TRY(jinja_new(r, &more, capacity, sizeof *more));
        if (items->n) memcpy(more, items->item, items->n * sizeof *more);
        items->item = more, items->capacity = capacity;
    }
    items->item[items->n++] = *v;
    return CB_OK;
}
enum cb_status jinja_finish(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind, const struct jinja_items *items) {
    TRY(jinja_new_list(r, out, kind, 0));
    out->list->item = items->item;
    out->list->n = items->n;
    return CB_OK;
}

// ---- dictionaries: in the order of insertion, looked through one by one (the work is counted)

enum cb_status jinja_new_dict(struct jinja_run *r, struct jinja_value *out, enum jinja_kind kind) {
    struct jinja_dict *dict;
    TRY(jinja_new(r, &dict, 1, sizeof *dict));
    *out = (struct jinja_value){.kind = kind, .dict = dict};
    return CB_OK;
}

static bool can_be_key(const struct jinja_value *v) {
    if (v->kind == JINJA_TUPLE)
        for (size_t i = 0; i < v->list->n; i++)
            if (!can_be_key(&v->list->item[i])) return false;
    return v->kind != JINJA_LIST && v->kind != JINJA_DICT && v->kind != JINJA_VIEW;
}

enum cb_status jinja_dict_find(struct jinja_run *r, const struct jinja_value **out, const struct jinja_dict *d,
                               const struct jinja_value *key) {
    *out = NULL;
    if (!can_be_key(key)) JINJA_RAISE(r, "TypeError", "unhashable type: '%s'", jinja_type(key));
    TRY(jinja_work(r, d->n));
    for (size_t i = 0; i < d->n; i++) {
        bool same = false;
        if (d->key[i].kind == key->kind || (jinja_is_number(key) && jinja_is_number(&d->key[i])))
            TRY(jinja_is_equal(r, &same, &d->key[i], key));
        if (!same) continue;
        *out = &d->item[i];
        return CB_OK;
    }
    return CB_OK;
}

enum cb_status jinja_dict_put(struct jinja_run *r, struct jinja_dict *d, const struct jinja_value *key, const struct jinja_value *item) {
    const struct jinja_value *found;
    TRY(jinja_dict_find(r, &found, d, key));
    if (found) {
        d->item[found - d->item] = *item;
        return CB_OK;
    }
    struct jinja_items keys = {d->key, d->n, d->capacity}, items = {d->item, d->n, d->capacity};
    TRY(jinja_push(r, &keys, key));
    TRY(jinja_push(r, &items, item));
    *d = (struct jinja_dict){keys.item, items.item, keys.n, keys.capacity};
    return CB_OK;
}

const struct jinja_value *jinja_dict_get(const struct jinja_dict *d, const struct jinja_string *name) {
    for (size_t i = 0; i < d->n; i++)
        if (d->key[i].kind == JINJA_STRING && d->key[i].string->n == name->n && !memcmp(d->key[i].string->data, name->data, name->n))
            return &d->item[i];
    return NULL;
}

// ---- from JSON, whose text is borrowed

static enum cb_status object_from_json(struct jinja_run *r, struct jinja_value *out, const json_t *json) {
    const char *key;
    json_t *item;
    struct jinja_value name;
    size_t n = json_object_size(json);
    TRY(jinja_new_dict(r, out, JINJA_DICT));
    struct jinja_dict *d = out->dict;
    TRY(jinja_new(r, &d->key, n, sizeof *d->key));
    TRY(jinja_new(r, &d->item, n, sizeof *d->item));
    d->capacity = n;
    json_object_foreach((json_t *)json, key, item) {
        TRY(jinja_cstring(r, &name, key));
        TRY(jinja_from_json(r, &d->item[d->n], item));
        d->key[d->n++] = name;
    }
    return CB_OK;
}

enum cb_status jinja_from_json(struct jinja_run *r, struct jinja_value *out, const json_t *json) {
    TRY(jinja_work(r, 1));
    switch (json_typeof(json)) {
        case JSON_NULL: *out = jinja_none(); return CB_OK;
        case JSON_TRUE: *out = jinja_bool(true); return CB_OK;
        case JSON_FALSE: *out = jinja_bool(false); return CB_OK;
        case JSON_INTEGER: *out = jinja_int(json_integer_value(json)); return CB_OK;
        case JSON_REAL: *out = jinja_real(json_real_value(json)); return CB_OK;
        case JSON_STRING: return jinja_borrow(r, out, json_string_value(json), json_string_length(json));
        case JSON_ARRAY:
        case JSON_OBJECT: break;
    }
    TRY(jinja_enter(r));
    if (json_is_object(json)) {
        TRY(object_from_json(r, out, json));
    } else {
        TRY(jinja_new_list(r, out, JINJA_LIST, json_array_size(json)));
        for (size_t i = 0; i < out->list->n; i++) TRY(jinja_from_json(r, &out->list->item[i], json_array_get(json, i)));
    }
    r->depth--;
    return CB_OK;
}

// ---- what is not there

enum cb_status jinja_undefined(struct jinja_run *r, struct jinja_value *out, const struct jinja_undefined *what) {
    struct jinja_undefined *u;
    TRY(jinja_new(r, &u, 1, sizeof *u));
    *u = *what;
    *out = (struct jinja_value){.kind = JINJA_UNDEFINED, .undefined = u};
    return CB_OK;
}

// How Jinja names the owner of an attribute: "'None'" or "'dict object'".
static const char *owner_text(enum jinja_kind kind) {
    return kind == JINJA_NONE ? "None" : jinja_type(&(struct jinja_value){.kind = kind});
}

enum cb_status jinja_refuse_undefined(struct jinja_run *r, const struct jinja_value *v) {
    const struct jinja_undefined *u = v->undefined;
    const char *object = u->owner == JINJA_NONE ? "" : " object";
    int n = u->name ? (int)u->name->n : 0;
    const char *name = u->name ? u->name->data : "";
    if (u->text) JINJA_RAISE(r, "UndefinedError", "%s", u->text);
    if (u->unsafe) JINJA_RAISE(r, "SecurityError", "access to attribute '%.*s' of '%s' object is unsafe.", n, name, owner_text(u->owner));
    if (u->owner == JINJA_ABSENT) JINJA_RAISE(r, "UndefinedError", "'%.*s' is undefined", n, name);
    if (u->is_index) JINJA_RAISE(r, "UndefinedError", "%s%s has no element %.*s", owner_text(u->owner), object, n, name);
    JINJA_RAISE(r, "UndefinedError", "'%s%s' has no attribute '%.*s'", owner_text(u->owner), object, n, name);
}

// ---- properties

const char *jinja_type(const struct jinja_value *v) {
    static const char *const names[JINJA_KINDS] = {[JINJA_ABSENT] = "nothing",
                                                   [JINJA_UNDEFINED] = "Undefined",
                                                   [JINJA_NONE] = "NoneType",
                                                   [JINJA_BOOL] = "bool",
                                                   [JINJA_INT] = "int",
                                                   [JINJA_FLOAT] = "float",
                                                   [JINJA_STRING] = "str",
                                                   [JINJA_BYTES] = "bytes",
                                                   [JINJA_LIST] = "list",
                                                   [JINJA_TUPLE] = "tuple",
                                                   [JINJA_DICT] = "dict",
                                                   [JINJA_ITERATOR] = "generator",
                                                   [JINJA_VIEW] = "dict_items",
                                                   [JINJA_RANGE] = "range",
                                                   [JINJA_NAMESPACE] = "Namespace",
                                                   [JINJA_LOOP] = "LoopContext",
                                                   [JINJA_FUNCTION] = "function",
                                                   [JINJA_MACRO_VALUE] = "Macro",
                                                   [JINJA_CYCLER] = "Cycler",
                                                   [JINJA_JOINER] = "Joiner",
                                                   [JINJA_SELF] = "TemplateReference"};
    return names[v->kind];
}

size_t jinja_length(const struct jinja_value *v) {
    switch (v->kind) {
        case JINJA_UNDEFINED: return 0;
        case JINJA_STRING: return jinja_points(v->string);
        case JINJA_BYTES: return v->string->n;
        case JINJA_LIST:
        case JINJA_TUPLE:
        case JINJA_VIEW: return v->list->n;
        case JINJA_DICT: return v->dict->n;
        case JINJA_RANGE: return (size_t)v->range->n;
        default: return SIZE_MAX;
    }
}

bool jinja_truth(const struct jinja_value *v) {
    switch (v->kind) {
        case JINJA_ABSENT:
        case JINJA_NONE: return false;
        case JINJA_BOOL: return v->boolean;
        case JINJA_INT: return v->integer != 0;
        case JINJA_FLOAT: return v->real != 0;
        case JINJA_STRING:
        case JINJA_BYTES: return v->string->n > 0;
        default: return jinja_length(v) > 0;  // SIZE_MAX: an object without length is true
    }
}

static enum cb_status string_items(struct jinja_run *r, struct jinja_list *out, const struct jinja_string *s, bool bytes) {
    size_t n = bytes ? s->n : jinja_points(s);
    TRY(jinja_new(r, &out->item, n, sizeof *out->item));
    for (size_t at = 0; at < s->n; out->n++) {
        size_t length = bytes ? 1 : (size_t)utf8_length(s->data[at]);
        if (bytes)
            out->item[out->n] = jinja_int((unsigned char)s->data[at]);
        else
            TRY(jinja_borrow(r, &out->item[out->n], s->data + at, length));
        at += length;
    }
    return CB_OK;
}

enum cb_status jinja_items(struct jinja_run *r, struct jinja_list *out, const struct jinja_value *v) {
    *out = (struct jinja_list){0};
    switch (v->kind) {
        case JINJA_UNDEFINED: return CB_OK;
        case JINJA_STRING:
        case JINJA_BYTES: return string_items(r, out, v->string, v->kind == JINJA_BYTES);
        case JINJA_ITERATOR:
            if (!v->list->consumed) out->item = v->list->item, out->n = v->list->n;
            v->list->consumed = true;
            break;
        case JINJA_LIST:
        case JINJA_TUPLE:
        case JINJA_VIEW: out->item = v->list->item, out->n = v->list->n; break;
        case JINJA_DICT: out->item = v->dict->key, out->n = v->dict->n; break;
        case JINJA_RANGE:
            TRY(jinja_new(r, &out->item, (size_t)v->range->n, sizeof *out->item));
            for (; out->n < (size_t)v->range->n; out->n++)
                out->item[out->n] = jinja_int(v->range->start + (int64_t)out->n * v->range->step);
            break;
        default: JINJA_RAISE(r, "TypeError", "'%s' object is not iterable", jinja_type(v));
    }
    return jinja_work(r, out->n);
}
