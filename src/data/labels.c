/* Names of labels, and the fields of labelled examples: values that are not learnt, numbered. */
#include <stdlib.h>
#include <string.h>

#include "data/labelled_private.h"

/* ---- names of labels */
void labels_deinit(struct labels *labels) {
    for (int i = 0; i < labels->n; i++) free(labels->name[i]);
    free(labels->name);
    table_deinit(&labels->index);
    *labels = (struct labels){0};
}

int labels_find(const struct labels *labels, const char *name) { return (int)table_get(&labels->index, name, strlen(name)); }

enum cb_status labels_add(struct labels *labels, const char *name, struct cb_err *err) {
    enum { MOST = 1 << 16 };
    if (labels->n == MOST) FAIL(err, CB_E_LIMIT, "labels: more than %d different ones; are they numbers (--task regress)?", MOST);
    if (labels->n == labels->size) {
        int size = labels->size ? 2 * labels->size : 16;
        char **grown = realloc(labels->name, (size_t)size * sizeof *grown);
        if (!grown) FAIL(err, CB_E_MEMORY, "labels: out of memory");
        labels->name = grown;
        labels->size = size;
    }
    char *own = strdup(name);
    if (!own) FAIL(err, CB_E_MEMORY, "labels: out of memory");
    const int number = labels->n++;
    labels->name[number] = own;
    return labels_find(labels, own) < 0 ? table_put(&labels->index, own, strlen(own), number, err) : CB_OK;
}

/* ---- fields */
/* A field that is seen for the first time: no example before had it. NULL: no memory. */
static struct field *field_add(struct labelled *l, const char *name) {
    struct field *f = &l->field[l->n_fields];
    *f = (struct field){.name = strdup(name), .number = malloc((size_t)l->examples_size * sizeof *f->number)};
    l->n_fields++;
    if (!f->name || !f->number) return NULL;
    for (int64_t i = 0; i < l->n_rows; i++) f->number[i] = -1;
    return f;
}

enum cb_status labelled_fields_keep(struct labelled *l, const struct record *r, int64_t n, struct cb_err *err) {
    const char *key;
    json_t *value;
    const int64_t first = l->n_rows - n;
    for (int i = 0; i < l->n_fields; i++)
        for (int64_t at = first; at < l->n_rows; at++) l->field[i].number[at] = -1;
    json_object_foreach((json_t *)r->object, key, value) {
        struct field *f = NULL;
        if (!json_is_string(value) || record_uses(r->shape, key)) continue;
        for (int i = 0; i < l->n_fields && !f; i++)
            if (strcmp(l->field[i].name, key) == 0) f = &l->field[i];
        if (!f && l->n_fields == FIELDS_MOST) continue;
        if (!f && !(f = field_add(l, key))) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
        int number = f->is_left_out ? -1 : labels_find(&f->values, json_string_value(value));
        f->is_left_out |= number < 0 && f->values.n == FIELD_VALUES_MOST;
        if (f->is_left_out) continue;
        if (number < 0) {
            number = f->values.n;
            TRY(labels_add(&f->values, json_string_value(value), err));
        }
        for (int64_t at = first; at < l->n_rows; at++) f->number[at] = number;
    }
    return CB_OK;
}

enum cb_status labelled_field(int32_t **numbers, const struct labelled *l, const char *field, const char *const *names, int n,
                              struct cb_err *err) {
    const struct field *f = NULL;
    int32_t map[FIELD_VALUES_MOST];
    *numbers = NULL;
    for (int i = 0; i < l->n_fields && !f; i++)
        if (strcmp(l->field[i].name, field) == 0) f = &l->field[i];
    if (!f) FAIL(err, CB_E_FORMAT, "data: found no example with a string %s; wanted one in each", field);
    if (f->is_left_out) FAIL(err, CB_E_LIMIT, "data: %s: found more than %d values; wanted a field of few", field, FIELD_VALUES_MOST);
    for (int i = 0; i < f->values.n; i++) {
        map[i] = -1;
        for (int k = 0; k < n; k++)
            if (strcmp(f->values.name[i], names[k]) == 0) map[i] = k;
    }
    if (!(*numbers = malloc((size_t)l->n_rows * sizeof **numbers + 1))) FAIL(err, CB_E_MEMORY, "labelled data: out of memory");
    for (int64_t i = 0; i < l->n_rows; i++) {
        const int32_t number = f->number[i];
        if (number >= 0 && map[number] >= 0) {
            (*numbers)[i] = map[number];
            continue;
        }
        free(*numbers);
        *numbers = NULL;
        FAIL(err, CB_E_FORMAT, "data: example %lld: %s: found %.60s; wanted one of %d values (%.60s, ...)", (long long)i + 1, field,
             number < 0 ? "nothing" : f->values.name[number], n, n ? names[0] : "none");
    }
    return CB_OK;
}
