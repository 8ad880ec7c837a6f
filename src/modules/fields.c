/* Fields of rows ("task", "language") on whose values a module's weights depend: one value for all rows, or each row's own at run time. */
#include <stdio.h>
#include <string.h>

#include "modules/private.h"

static struct module_field *field_find(const struct module *m, const char *name) {
    for (int i = 0; i < m->n_fields; i++)
        if (strcmp(m->fields[i].name, name) == 0) return &m->fields[i];
    return NULL;
}

bool module_has_field(const struct module *module, const char *field) { return field_find(module, field) != NULL; }

const char *module_field_values(const struct module_field *field, char text[200]) {
    size_t used = 0;
    *text = 0;
    for (int i = 0; i < field->n && used < 140; i++)
        used += (size_t)snprintf(text + used, 200 - used, "%s%.40s", i ? ", " : "", field->value[i]);
    return text;
}

enum cb_status module_set_field(struct module *module, const char *field, const char *value, struct cb_err *err) {
    struct module_field *f = field_find(module, field);
    char known[200];
    if (!f) FAIL(err, CB_E_NAME, "field %.60s: a module of kind %s that depends on no such field", field, module->tuner->name);
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->value[i], value) == 0) {
            f->at = i;
            return CB_OK;
        }
    FAIL(err, CB_E_NAME, "field %s: found %.60s; wanted one of %s", f->name, value, module_field_values(f, known));
}

const struct module_field *module_open_field(const struct module *module) {
    for (int i = 0; i < module->n_fields; i++)
        if (module->fields[i].at < 0) return &module->fields[i];
    return NULL;
}

/* As expression_input names it: a router by the same field and values reads the same input. */
static const char *input_name(const struct module_field *f, struct arena *arena) {
    size_t bytes = strlen(f->name) + 8;
    for (int i = 0; i < f->n; i++) bytes += strlen(f->value[i]) + 1;
    char *name = arena_array(arena, bytes, 1);
    if (!name) return NULL;
    size_t used = (size_t)snprintf(name, bytes, "route.%s", f->name);
    for (int i = 0; i < f->n; i++) used += (size_t)snprintf(name + used, bytes - used, "%c%s", i ? ',' : ':', f->value[i]);
    return name;
}

const struct module_field *module_field_of(const struct module *module, const char *input, struct arena *arena) {
    for (int i = 0; i < module->n_fields; i++) {
        const char *name = module->fields[i].at < 0 ? input_name(&module->fields[i], arena) : NULL;
        if (name && strcmp(name, input) == 0) return &module->fields[i];
    }
    return NULL;
}

struct cb_tensor *tuner_field_rows(const struct module *m, int i, struct nn *nn) {
    const struct module_field *f = &m->fields[i];
    const int64_t one = 1;
    const int32_t at = f->at;
    if (at >= 0) return graph_const(nn->g, type_make(CB_DTYPE_I32, 1, &one), &at);
    const struct cb_tensor *ids = graph_find_leaf(nn->g, "input_ids");
    const char *name = input_name(f, nn->g->arena);
    if (!name) return graph_fail(nn->g, CB_E_MEMORY, "%s: no memory for a name", m->name);
    if (!ids)
        return graph_fail(nn->g, CB_E_UNSUPPORTED, "%s: field %s of each row: wanted input_ids, whose rows they are", m->name, f->name);
    return graph_input(nn->g, name, type_make(CB_DTYPE_I32, 1, &ids->type.dim[0]));
}

/* ---- configuration */
/* "FIELD=VALUE" without marks of expressions, which name both. */
static enum cb_status pair_read(const struct module *m, const json_t *item, const char *where, const char *key, const char **field,
                                const char **value, struct cb_err *err) {
    const char *text = json_string_value(item), *equals = text ? strchr(text, '=') : NULL;
    char shown[JSON_TEXT];
    bool ok = equals && equals > text && equals[1] && strlen(text) == json_string_length(item) && strlen(text) <= 200;
    for (const char *p = text; ok && *p; p++)
        ok = (unsigned char)*p > ' ' && *p != 127 && !strchr(",:;()\"*", *p) && (*p != '=' || p == equals);
    if (!ok)
        FAIL(err, CB_E_FORMAT, "%s: %s: found %s; wanted \"FIELD=VALUE\" of at most 200 bytes without spaces and , : ; ( ) \" * =", where,
             key, json_text(item, shown));
    *field = arena_strndup(m->arena, text, (size_t)(equals - text));
    *value = arena_strdup(m->arena, equals + 1);
    if (!*field || !*value) FAIL(err, CB_E_MEMORY, "%s: no memory for fields", where);
    return CB_OK;
}

/* One more value of a field, which may be new. */
static enum cb_status value_add(struct module *m, const char *name, const char *value, size_t most, const char *where, const char *key,
                                struct cb_err *err) {
    struct module_field *f = field_find(m, name);
    if (!f) {
        if (m->n_fields == TUNER_MAX_FIELDS) FAIL(err, CB_E_LIMIT, "%s: %s: more than %d fields", where, key, TUNER_MAX_FIELDS);
        f = &m->fields[m->n_fields++];
        *f = (struct module_field){.name = name, .value = arena_array(m->arena, most, sizeof(const char *)), .at = -1};
        if (!f->value) FAIL(err, CB_E_MEMORY, "%s: no memory for fields", where);
    }
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->value[i], value) == 0) FAIL(err, CB_E_FORMAT, "%s: %s: found %s=%s twice; wanted it once", where, key, name, value);
    f->value[f->n++] = value;
    return CB_OK;
}

enum cb_status tuner_fields_parse(struct module *m, const char *where, const char *key, const char *default_key, struct cb_err *err) {
    const json_t *list = NULL, *chosen = NULL;
    const char *field, *value;
    enum { MOST = 1024 };
    TRY(json_get_array(&list, m->config, where, key, false, err));
    TRY(json_get_array(&chosen, m->config, where, default_key, false, err));
    const size_t n = json_array_size(list);
    if (n > MOST) FAIL(err, CB_E_LIMIT, "%s: %s: found %zu values; at most %d are taken", where, key, n, MOST);
    m->fields = arena_array(m->arena, TUNER_MAX_FIELDS, sizeof *m->fields);
    if (!m->fields) FAIL(err, CB_E_MEMORY, "%s: no memory for fields", where);
    for (size_t i = 0; i < n; i++) {
        TRY(pair_read(m, json_array_get(list, i), where, key, &field, &value, err));
        TRY(value_add(m, field, value, n, where, key, err));
    }
    for (int i = 0; i < m->n_fields; i++) m->fields[i].at = m->fields[i].n == 1 ? 0 : -1;
    for (size_t i = 0; i < json_array_size(chosen); i++) {
        TRY(pair_read(m, json_array_get(chosen, i), where, default_key, &field, &value, err));
        if (module_set_field(m, field, value, err) != CB_OK) {
            err_prefix(err, "%s: %s", where, default_key);
            return err->code;
        }
    }
    return CB_OK;
}
