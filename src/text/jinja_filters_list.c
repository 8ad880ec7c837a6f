/* Jinja's filters of lists and dictionaries. */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_builtin.h"

// ---- walking

static enum cb_status first_or_last(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, bool last) {
    struct jinja_list items;
    if (last && (self->kind == JINJA_ITERATOR || (jinja_length(self) == SIZE_MAX && self->kind != JINJA_UNDEFINED)))
        JINJA_RAISE(r, "TypeError", "'%s' object is not reversible", jinja_type(self));
    TRY(jinja_items(r, &items, self));
    if (items.n) return *out = items.item[last ? items.n - 1 : 0], CB_OK;
    return jinja_undefined(
        r, out, &(struct jinja_undefined){.text = last ? "No last item, sequence was empty." : "No first item, sequence was empty."});
}
static enum cb_status f_first(FILTER) { return (void)args, first_or_last(r, out, self, false); }
static enum cb_status f_last(FILTER) { return (void)args, first_or_last(r, out, self, true); }

static enum cb_status f_length(FILTER) {
    size_t n = jinja_length(self);
    (void)args;
    if (n == SIZE_MAX) JINJA_RAISE(r, "TypeError", "object of type '%s' has no len()", jinja_type(self));
    *out = jinja_int((jinja_integer)n);
    return CB_OK;
}

static enum cb_status f_list(FILTER) {
    struct jinja_list items;
    (void)args;
    TRY(jinja_items(r, &items, self));
    TRY(jinja_new_list(r, out, JINJA_LIST, items.n));
    if (items.n) memcpy(out->list->item, items.item, items.n * sizeof *items.item);
    return CB_OK;
}

static enum cb_status f_reverse(FILTER) {
    struct jinja_list items;
    struct jinja_value none[3] = {{.kind = JINJA_ABSENT}, {.kind = JINJA_ABSENT}, jinja_int(-1)};
    (void)args;
    if (self->kind == JINJA_STRING) return jinja_slice(r, out, self, none);
    if (self->kind != JINJA_ITERATOR && jinja_length(self) == SIZE_MAX) JINJA_RAISE(r, "FilterArgumentError", "argument must be iterable");
    TRY(jinja_items(r, &items, self));
    TRY(jinja_new_list(r, out, JINJA_ITERATOR, items.n));
    for (size_t i = 0; i < items.n; i++) out->list->item[i] = items.item[items.n - 1 - i];
    return CB_OK;
}

static enum cb_status f_random(FILTER) {
    struct jinja_list items;
    (void)args;
    TRY(jinja_items(r, &items, self));
    if (!items.n) return jinja_undefined(r, out, &(struct jinja_undefined){.text = "No random item, sequence was empty."});
    // repeatable: a multiplicative hash of how often it was asked
    *out = items.item[(size_t)(++r->draws * 2654435769u) % items.n];
    return CB_OK;
}

// ---- text of lists

static enum cb_status f_join(FILTER) {
    struct jinja_list items;
    struct buffer b = {0};
    const struct jinja_value *d = ARG(0), *attribute = ARG(1);
    enum cb_status status = CB_OK;
    TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n && status == CB_OK; i++) {
        struct jinja_value v = items.item[i];
        if (GIVEN(attribute)) status = jinja_path(r, &v, &items.item[i], attribute);
        if (status == CB_OK && i && GIVEN(d)) status = jinja_put_str(r, &b, d);
        if (status == CB_OK) status = jinja_put_str(r, &b, &v);
    }
    if (status == CB_OK) return jinja_take(r, out, &b);
    free(b.data);
    return status;
}

// ---- order: a stable merge sort of items by keys

struct sorted {
    struct jinja_value key, item;
};

static enum cb_status merge_sort(struct jinja_run *r, struct sorted *list, struct sorted *spare, size_t n, bool reverse) {
    if (n < 2) return CB_OK;
    size_t half = n / 2, a = 0, b = half, used = 0;
    TRY(merge_sort(r, list, spare, half, reverse));
    TRY(merge_sort(r, list + half, spare, n - half, reverse));
    TRY(jinja_work(r, n));
    while (a < half && b < n) {
        int sign;
        TRY(jinja_order(r, &sign, &list[b].key, &list[a].key, "<"));
        spare[used++] = (reverse ? sign == 1 : sign == -1) ? list[b++] : list[a++];
    }
    while (a < half) spare[used++] = list[a++];
    memcpy(list, spare, used * sizeof *list);
    return CB_OK;
}

// The key of an item: its value under the path, in lower case where case does not count.
static enum cb_status sort_key(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *item, const struct jinja_value *path,
                               bool case_sensitive) {
    *out = *item;
    if (GIVEN(path)) TRY(jinja_path(r, out, item, path));
    if (case_sensitive || out->kind != JINJA_STRING) return CB_OK;
    return jinja_map_case(r, out, out->string, UNICODE_LOWER);
}

// Several paths "a,b": a tuple of keys.
static enum cb_status sort_keys(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *item,
                                const struct jinja_value *paths, bool case_sensitive) {
    if (paths->kind != JINJA_STRING || !memchr(paths->string->data, ',', paths->string->n))
        return sort_key(r, out, item, paths, case_sensitive);
    struct jinja_items keys = {0};
    const char *s = paths->string->data, *end = s + paths->string->n;
    while (true) {
        const char *comma = memchr(s, ',', (size_t)(end - s));
        struct jinja_value path, key;
        TRY(jinja_borrow(r, &path, s, (size_t)((comma ? comma : end) - s)));
        TRY(sort_key(r, &key, item, &path, case_sensitive));
        TRY(jinja_push(r, &keys, &key));
        if (!comma) return jinja_finish(r, out, JINJA_TUPLE, &keys);
        s = comma + 1;
    }
}

static enum cb_status sort_items(struct jinja_run *r, struct sorted **out, struct jinja_list *items, const struct jinja_value *self,
                                 const struct jinja_value *paths, bool case_sensitive, bool reverse) {
    struct sorted *spare;
    TRY(jinja_items(r, items, self));
    TRY(jinja_new(r, out, items->n, sizeof **out));
    TRY(jinja_new(r, &spare, items->n, sizeof *spare));
    for (size_t i = 0; i < items->n; i++) {
        TRY(sort_keys(r, &(*out)[i].key, &items->item[i], paths, case_sensitive));
        (*out)[i].item = items->item[i];
    }
    return merge_sort(r, *out, spare, items->n, reverse);
}

static enum cb_status f_sort(FILTER) {
    struct sorted *list;
    struct jinja_list items;
    TRY(sort_items(r, &list, &items, self, ARG(2), TRUE(ARG(1)), TRUE(ARG(0))));
    TRY(jinja_new_list(r, out, JINJA_LIST, items.n));
    for (size_t i = 0; i < items.n; i++) out->list->item[i] = list[i].item;
    return CB_OK;
}

static enum cb_status f_dictsort(FILTER) {
    struct jinja_value pairs, position = jinja_int(0);
    struct sorted *list;
    struct jinja_list items;
    const struct jinja_value *by = ARG(1);
    TRY(jinja_pairs(r, &pairs, self, JINJA_LIST));
    if (GIVEN(by)) {
        bool value = by->kind == JINJA_STRING && jinja_equals(by->string, "value");
        if (!value && !(by->kind == JINJA_STRING && jinja_equals(by->string, "key")))
            JINJA_RAISE(r, "FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
        position = jinja_int(value);
    }
    TRY(sort_items(r, &list, &items, &pairs, &position, TRUE(ARG(0)), TRUE(ARG(2))));
    TRY(jinja_new_list(r, out, JINJA_LIST, items.n));
    for (size_t i = 0; i < items.n; i++) out->list->item[i] = list[i].item;
    return CB_OK;
}

static enum cb_status f_items(FILTER) {
    (void)args;
    if (self->kind == JINJA_UNDEFINED) return jinja_new_list(r, out, JINJA_ITERATOR, 0);
    return jinja_pairs(r, out, self, JINJA_ITERATOR);
}

static enum cb_status f_unique(FILTER) {
    struct jinja_list items;
    struct jinja_items kept = {0}, keys = {0};
    TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n; i++) {
        struct jinja_value key;
        bool seen = false;
        TRY(sort_key(r, &key, &items.item[i], ARG(1), TRUE(ARG(0))));
        for (size_t k = 0; k < keys.n && !seen; k++) TRY(jinja_is_equal(r, &seen, &keys.item[k], &key));
        if (seen) continue;
        TRY(jinja_push(r, &keys, &key));
        TRY(jinja_push(r, &kept, &items.item[i]));
    }
    return jinja_finish(r, out, JINJA_ITERATOR, &kept);
}

static enum cb_status extreme(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                              int wanted) {
    struct jinja_list items;
    struct jinja_value best, key;
    TRY(jinja_items(r, &items, self));
    if (!items.n) return jinja_undefined(r, out, &(struct jinja_undefined){.text = "No aggregated item, sequence was empty."});
    *out = items.item[0];
    TRY(sort_key(r, &best, out, ARG(1), TRUE(ARG(0))));
    for (size_t i = 1; i < items.n; i++) {
        int sign;
        TRY(sort_key(r, &key, &items.item[i], ARG(1), TRUE(ARG(0))));
        TRY(jinja_order(r, &sign, &key, &best, wanted < 0 ? "<" : ">"));
        if (sign == wanted) best = key, *out = items.item[i];
    }
    return CB_OK;
}
static enum cb_status f_min(FILTER) { return extreme(r, out, self, args, -1); }
static enum cb_status f_max(FILTER) { return extreme(r, out, self, args, 1); }

static enum cb_status f_sum(FILTER) {
    struct jinja_list items;
    *out = GIVEN(ARG(1)) ? *ARG(1) : jinja_int(0);
    TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n; i++) {
        struct jinja_value v = items.item[i], before = *out;
        if (GIVEN(ARG(0))) TRY(jinja_path(r, &v, &items.item[i], ARG(0)));
        TRY(jinja_operate(r, out, "+", &before, &v));
    }
    return CB_OK;
}

// ---- map, select, reject

static enum cb_status keyword(const struct jinja_args *args, const char *name, const struct jinja_value **out) {
    *out = NULL;
    for (size_t k = 0; k < args->n_keywords; k++)
        if (jinja_equals(args->keyword[k], name)) *out = &args->value[k];
    return CB_OK;
}

static enum cb_status f_map(FILTER) {
    struct jinja_list items;
    struct jinja_value mapped;
    const struct jinja_value *attribute, *otherwise;
    const struct jinja_builtin *filter = NULL;
    struct jinja_args rest = *args;
    keyword(args, "attribute", &attribute);
    keyword(args, "default", &otherwise);
    if (args->n) {
        if (args->item[0].kind != JINJA_STRING)
            JINJA_RAISE(r, "TypeError", "map takes the name of a filter, not %s", jinja_type(&args->item[0]));
        filter = jinja_find_filter(args->item[0].string);
        if (!filter)
            JINJA_RAISE(r, "TemplateRuntimeError", "No filter named '%.*s'.", (int)args->item[0].string->n, args->item[0].string->data);
        rest.item++, rest.n--;
    } else if (!attribute) {
        JINJA_RAISE(r, "FilterArgumentError", "map requires a filter argument");
    }
    // what is false is empty, whatever it is
    items = (struct jinja_list){0};
    if (jinja_truth(self)) TRY(jinja_items(r, &items, self));
    TRY(jinja_new_list(r, &mapped, JINJA_ITERATOR, items.n));
    for (size_t i = 0; i < items.n; i++) {
        struct jinja_value *to = &mapped.list->item[i];
        TRY(filter ? jinja_call_builtin(r, to, filter, &items.item[i], &rest) : jinja_path(r, to, &items.item[i], attribute));
        if (!filter && otherwise && to->kind == JINJA_UNDEFINED) *to = *otherwise;
    }
    *out = mapped;
    return CB_OK;
}

static enum cb_status pick(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *self, const struct jinja_args *args,
                           bool keep, bool by_attribute) {
    struct jinja_list items;
    struct jinja_items kept = {0};
    struct jinja_args rest = *args;
    const struct jinja_builtin *test = NULL;
    if (by_attribute) {
        if (!args->n) JINJA_RAISE(r, "FilterArgumentError", "Missing parameter for attribute name");
        rest.item++, rest.n--;
    }
    if (rest.n) {
        if (rest.item[0].kind == JINJA_STRING) test = jinja_find_test(rest.item[0].string);
        if (!test) {
            struct jinja_value name;
            TRY(jinja_str(r, &name, &rest.item[0]));
            JINJA_RAISE(r, "TemplateRuntimeError", "No test named '%.*s'.", (int)name.string->n, name.string->data);
        }
        rest.item++, rest.n--;
    }
    items = (struct jinja_list){0};
    if (jinja_truth(self)) TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n; i++) {
        struct jinja_value v = items.item[i];
        if (by_attribute) TRY(jinja_path(r, &v, &items.item[i], &args->item[0]));
        if (test) {
            struct jinja_value subject = v;
            TRY(jinja_call_builtin(r, &v, test, &subject, &rest));
        }
        if (jinja_truth(&v) == keep) TRY(jinja_push(r, &kept, &items.item[i]));
    }
    return jinja_finish(r, out, JINJA_ITERATOR, &kept);
}
static enum cb_status f_select(FILTER) { return pick(r, out, self, args, true, false); }
static enum cb_status f_reject(FILTER) { return pick(r, out, self, args, false, false); }
static enum cb_status f_selectattr(FILTER) { return pick(r, out, self, args, true, true); }
static enum cb_status f_rejectattr(FILTER) { return pick(r, out, self, args, false, true); }

// ---- grouping

static enum cb_status f_groupby(FILTER) {
    struct sorted *list;
    struct jinja_list items;
    struct jinja_items groups = {0};
    bool case_sensitive = TRUE(ARG(2));
    TRY(jinja_items(r, &items, self));
    struct jinja_value again;
    TRY(jinja_new_list(r, &again, JINJA_LIST, items.n));
    if (items.n) memcpy(again.list->item, items.item, items.n * sizeof *items.item);
    TRY(sort_items(r, &list, &items, &again, ARG(0), case_sensitive, false));
    for (size_t i = 0; i < items.n;) {
        struct jinja_items members = {0};
        struct jinja_value group;
        size_t first = i;
        for (bool same = true; same && i < items.n;) {
            TRY(jinja_is_equal(r, &same, &list[first].key, &list[i].key));
            if (same) TRY(jinja_push(r, &members, &list[i++].item));
        }
        TRY(jinja_new_list(r, &group, JINJA_TUPLE, 2));
        group.list->grouped = true;
        TRY(jinja_path(r, &group.list->item[0], &list[first].item, ARG(0)));
        if (group.list->item[0].kind == JINJA_UNDEFINED && GIVEN(ARG(1))) group.list->item[0] = *ARG(1);
        TRY(jinja_finish(r, &group.list->item[1], JINJA_LIST, &members));
        TRY(jinja_push(r, &groups, &group));
    }
    return jinja_finish(r, out, JINJA_LIST, &groups);
}

static enum cb_status positive(struct jinja_run *r, size_t *out, const struct jinja_value *v, const char *what) {
    *out = 1;
    if (!jinja_is_whole(v) || jinja_whole(v) < 1 || jinja_whole(v) > INT32_MAX)
        JINJA_RAISE(r, "ValueError", "%s; wanted a number from 1 on", what);
    *out = (size_t)jinja_whole(v);
    return CB_OK;
}

static enum cb_status f_batch(FILTER) {
    struct jinja_list items;
    struct jinja_items rows = {0};
    size_t width;
    TRY(positive(r, &width, ARG(0), "batch size"));
    TRY(jinja_items(r, &items, self));
    for (size_t i = 0; i < items.n; i += width) {
        struct jinja_value row;
        size_t n = items.n - i < width ? items.n - i : width;
        TRY(jinja_new_list(r, &row, JINJA_LIST, GIVEN(ARG(1)) ? width : n));
        for (size_t k = 0; k < row.list->n; k++) row.list->item[k] = k < n ? items.item[i + k] : *ARG(1);
        TRY(jinja_push(r, &rows, &row));
    }
    return jinja_finish(r, out, JINJA_ITERATOR, &rows);
}

static enum cb_status f_slice(FILTER) {
    struct jinja_list items;
    struct jinja_value rows;
    size_t n, at = 0;
    TRY(positive(r, &n, ARG(0), "number of slices"));
    TRY(jinja_items(r, &items, self));
    TRY(jinja_new_list(r, &rows, JINJA_ITERATOR, n));
    for (size_t i = 0; i < n; i++) {
        size_t count = items.n / n + (i < items.n % n);
        bool fill = GIVEN(ARG(1)) && i >= items.n % n;
        TRY(jinja_new_list(r, &rows.list->item[i], JINJA_LIST, count + fill));
        if (count) memcpy(rows.list->item[i].list->item, items.item + at, count * sizeof *items.item);
        if (fill) rows.list->item[i].list->item[count] = *ARG(1);
        at += count;
    }
    *out = rows;
    return CB_OK;
}

static enum cb_status f_attr(FILTER) {
    if (ARG(0)->kind != JINJA_STRING) JINJA_RAISE(r, "TypeError", "attribute name must be string, not '%s'", jinja_type(ARG(0)));
    // attributes alone, no items
    if (self->kind == JINJA_DICT) return jinja_undefined(r, out, &(struct jinja_undefined){.name = ARG(0)->string, .owner = self->kind});
    return jinja_attribute(r, out, self, ARG(0)->string);
}

const struct jinja_builtin jinja_list_filters[] = {{"first", f_first, ""},
                                                   {"last", f_last, ""},
                                                   {"length", f_length, ""},
                                                   {"count", f_length, ""},
                                                   {"list", f_list, ""},
                                                   {"reverse", f_reverse, ""},
                                                   {"random", f_random, ""},
                                                   {"join", f_join, "d attribute"},
                                                   {"sort", f_sort, "reverse case_sensitive attribute"},
                                                   {"dictsort", f_dictsort, "case_sensitive by reverse"},
                                                   {"items", f_items, ""},
                                                   {"unique", f_unique, "case_sensitive attribute"},
                                                   {"min", f_min, "case_sensitive attribute"},
                                                   {"max", f_max, "case_sensitive attribute"},
                                                   {"sum", f_sum, "attribute start"},
                                                   {"map", f_map, NULL},
                                                   {"select", f_select, NULL},
                                                   {"reject", f_reject, NULL},
                                                   {"selectattr", f_selectattr, NULL},
                                                   {"rejectattr", f_rejectattr, NULL},
                                                   {"groupby", f_groupby, "attribute! default case_sensitive"},
                                                   {"batch", f_batch, "linecount! fill_with"},
                                                   {"slice", f_slice, "slices! fill_with"},
                                                   {"attr", f_attr, "name!"},
                                                   {0}};
